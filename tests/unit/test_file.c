/* SPDX-License-Identifier: Apache-2.0 */
/* base/file.c and base/path.c. */
#include "base_check.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <time.h>

#include "base/file.h"
#include "failing_malloc.h"

/* The system calls, made difficult: every second one is interrupted, the others move `most` bytes.
 */
static size_t most;
static unsigned calls;

static bool is_interrupted(void)
{
	if (most == 0 || calls++ % 2 == 0)
		return false;
	errno = EINTR;
	return true;
}

ssize_t pread(int fd, void *buffer, size_t size, off_t offset)
{
	if (is_interrupted())
		return -1;
	return syscall(SYS_pread64, fd, buffer, most > 0 && size > most ? most : size, offset);
}

ssize_t pwrite(int fd, const void *buffer, size_t size, off_t offset)
{
	if (is_interrupted())
		return -1;
	return syscall(SYS_pwrite64, fd, buffer, most > 0 && size > most ? most : size, offset);
}

static int set_up(void **state)
{
	(void)state;
	most = 0;
	enter_scratch();
	return 0;
}

static int tear_down(void **state)
{
	(void)state;
	most = 0;
	leave_scratch();
	return 0;
}

static void write_file(const char *path, const char *text)
{
	FILE *file = fopen(path, "w");

	assert_non_null(file);
	assert_true(fputs(text, file) >= 0);
	assert_int_equal(fclose(file), 0);
}

static void make_directory(const char *path)
{
	assert_int_equal(mkdir(path, 0777), 0);
}

/* Runs as nobody, if we are root; root may do anything. */
static void drop(bool dropped)
{
	if (getuid() == 0)
		assert_int_equal(seteuid(dropped ? 65534 : 0), 0);
}

/* --- reading ------------------------------------------------------------------------- */

static void file__only_regular_files_are_opened(void **state)
{
	struct lora_file file = LORA_FILE_INIT;
	struct lora_error err = LORA_ERROR_INIT;

	(void)state;
	write_file("a", "text");
	make_directory("d");
	assert_int_equal(mkfifo("fifo", 0666), 0);
	assert_int_equal(symlink("a", "link"), 0);
	assert_int_equal(symlink("nowhere", "broken"), 0);
	assert_int_equal(symlink("loop", "loop"), 0);
	assert_fails(LORA_INPUT, "cannot open 'b': No such file",
		     lora__file_open(&file, "b", &err));
	assert_int_equal(err.sys_errno, ENOENT);
	assert_fails(LORA_INPUT, "cannot open 'a/x'", lora__file_open(&file, "a/x", &err));
	assert_fails(LORA_INPUT, "cannot open 'broken'", lora__file_open(&file, "broken", &err));
	assert_fails(LORA_INPUT, "a directory", lora__file_open(&file, "d", &err));
	assert_fails(LORA_INPUT, "a pipe", lora__file_open(&file, "fifo", &err));
	assert_fails(LORA_INPUT, "a device", lora__file_open(&file, "/dev/null", &err));
	assert_fails(LORA_SYSTEM, "cannot open 'loop'", lora__file_open(&file, "loop", &err));
	assert_fails(LORA_INPUT, "cannot open 'x\\x1B'", lora__file_open(&file, "x\x1b", &err));
	assert_int_equal(file.fd, -1);
	assert_null(file.path);
	assert_ok(lora__file_open(&file, "link", &err));
	assert_int_equal(file.size, 4);
	assert_string_equal(file.path, "link");
	assert_int_equal(fcntl(file.fd, F_GETFD) & FD_CLOEXEC, FD_CLOEXEC);
	assert_int_equal(fcntl(file.fd, F_GETFL) & O_ACCMODE, O_RDONLY);
	lora__file_close(&file);
	assert_int_equal(file.fd, -1);
	lora__file_close(&file);
}

static void file__what_may_not_be_read_is_a_system_failure(void **state)
{
	struct lora_file file = LORA_FILE_INIT;
	struct lora_error err = LORA_ERROR_INIT;
	enum lora_path_kind kind;

	(void)state;
	write_file("a", "text");
	make_directory("d");
	write_file("d/a", "text");
	assert_int_equal(chmod(".", 0755), 0);
	assert_int_equal(chmod("a", 0), 0);
	assert_int_equal(chmod("d", 0), 0);
	drop(true);
	assert_fails(LORA_SYSTEM, "Permission denied", lora__file_open(&file, "a", &err));
	assert_fails(LORA_SYSTEM, "Permission denied", lora__path_kind("d/a", &kind, &err));
	drop(false);
}

static void file__reads_exactly_what_was_asked_for(void **state)
{
	struct lora_file file = LORA_FILE_INIT;
	struct lora_error err = LORA_ERROR_INIT;
	char text[32];

	(void)state;
	write_file("a", "0123456789");
	assert_ok(lora__file_open(&file, "a", &err));
	for (most = 0; most < 4; most++) {
		memset(text, 'x', sizeof text);
		assert_ok(lora__file_read(&file, 0, text, 10, &err));
		assert_memory_equal(text, "0123456789x", 11);
		assert_ok(lora__file_read(&file, 3, text, 4, &err));
		assert_memory_equal(text, "3456456", 7);
		assert_ok(lora__file_read(&file, 10, text, 0, &err));
		assert_fails(LORA_INPUT, "'a' ends early, at byte 10",
			     lora__file_read(&file, 3, text, 8, &err));
		assert_fails(LORA_INPUT, "ends early", lora__file_read(&file, 99, text, 1, &err));
	}
	assert_fails(LORA_INPUT, "no byte", lora__file_read(&file, UINT64_MAX, text, 1, &err));
	assert_fails(LORA_INPUT, "no byte", lora__file_read(&file, INT64_MAX, text, 1, &err));
	lora__file_close(&file);
	assert_int_equal(file.fd, -1);
}

static void wait_a_tick(void)
{
	struct timespec tick = {0, 20000000}; /* the clock of time stamps: 1 to 10 ms */

	while (nanosleep(&tick, &tick) != 0)
		continue;
}

static void append(const char *path)
{
	FILE *file = fopen(path, "a");

	assert_non_null(file);
	assert_int_equal(fputc('x', file), 'x');
	assert_int_equal(fclose(file), 0);
}

static void overwrite(const char *path)
{
	write_file(path, "TEXT");
}

static void shorten(const char *path)
{
	assert_int_equal(truncate(path, 2), 0);
}

/* Writes, and puts the old modification time back: only ctime tells. */
static void overwrite_slyly(const char *path)
{
	struct timespec times[2];
	struct stat info;

	assert_int_equal(stat(path, &info), 0);
	times[0] = info.st_atim;
	times[1] = info.st_mtim;
	write_file(path, "TEXT");
	assert_int_equal(utimensat(AT_FDCWD, path, times, 0), 0);
}

static void file__every_change_is_noticed(void **state)
{
	static void (*const changes[])(const char *) = {append, overwrite, shorten,
							overwrite_slyly};
	struct lora_error err = LORA_ERROR_INIT;

	(void)state;
	for (size_t i = 0; i < sizeof changes / sizeof *changes; i++) {
		struct lora_file file = LORA_FILE_INIT;

		write_file("a", "text");
		wait_a_tick();
		assert_ok(lora__file_open(&file, "a", &err));
		assert_ok(lora__file_unchanged(&file, &err));
		changes[i]("a");
		assert_fails(LORA_INPUT, "'a' changed while it was read",
			     lora__file_unchanged(&file, &err));
		lora__file_close(&file);
	}
}

/* The descriptor counts: another file under the same name is not looked at. */
static void file__what_was_opened_is_what_is_read(void **state)
{
	struct lora_file file = LORA_FILE_INIT;
	struct lora_error err = LORA_ERROR_INIT;
	char text[4];

	(void)state;
	write_file("a", "text");
	assert_int_equal(link("a", "keep"), 0);
	assert_ok(lora__file_open(&file, "a", &err));
	write_file("b", "evil");
	assert_int_equal(rename("b", "a"), 0);
	assert_ok(lora__file_read(&file, 0, text, 4, &err));
	assert_memory_equal(text, "text", 4);
	lora__file_close(&file);
}

/* A file that rests is opened by its path each time, and is nothing but what was opened first. */
static void file__at_rest(void **state)
{
	struct lora_error err = LORA_ERROR_INIT;
	struct lora_file file = LORA_FILE_INIT;
	char text[4];
	int fd;

	(void)state;
	write_file("x", "abcd");
	assert_ok(lora__file_open(&file, "x", &err));
	assert_ok(lora__file_lend(&file, &fd, &err));
	assert_int_equal(fd, file.fd);
	lora__file_take_back(&file, fd);
	assert_true(fcntl(fd, F_GETFD) >= 0); /* its own: stays open */
	lora__file_rest(&file);
	assert_true(fcntl(fd, F_GETFD) < 0);
	assert_ok(lora__file_read(&file, 1, text, 3, &err));
	assert_memory_equal(text, "bcd", 3);
	assert_ok(lora__file_unchanged(&file, &err));
	assert_ok(lora__file_lend(&file, &fd, &err));
	lora__file_take_back(&file, fd);
	assert_true(fcntl(fd, F_GETFD) < 0); /* lent for that use only */
	/* The same bytes, another file. */
	write_file("y", "abcd");
	assert_int_equal(rename("y", "x"), 0);
	assert_fails(LORA_INPUT, "'x' changed while it was read",
		     lora__file_read(&file, 0, text, 1, &err));
	assert_fails(LORA_INPUT, "'x' changed while it was read",
		     lora__file_unchanged(&file, &err));
	assert_fails(LORA_INPUT, "'x' changed while it was read",
		     lora__file_lend(&file, &fd, &err));
	assert_int_equal(unlink("x"), 0);
	assert_fails(LORA_INPUT, "cannot open 'x' again", lora__file_read(&file, 0, text, 1, &err));
	lora__file_close(&file);
	/* Closed: no longer at rest. */
	write_file("z", "abcd");
	assert_ok(lora__file_open(&file, "z", &err));
	assert_false(file.rests);
	lora__file_close(&file);
}

static void file__slurp(void **state)
{
	struct lora_error err = LORA_ERROR_INIT;
	char *text = NULL;
	size_t size = 0;

	(void)state;
	write_file("a", "0123456789");
	write_file("empty", "");
	for (most = 0; most < 3; most++) {
		assert_ok(lora__file_slurp("a", 10, &text, &size, &err));
		assert_int_equal(size, 10);
		assert_string_equal(text, "0123456789");
		free(text);
	}
	assert_ok(lora__file_slurp("empty", 0, &text, &size, &err));
	assert_int_equal(size, 0);
	assert_string_equal(text, "");
	free(text);
	assert_fails(LORA_INPUT, "'a' has 10 bytes: at most 9",
		     lora__file_slurp("a", 9, &text, &size, &err));
	assert_null(text);
	assert_fails(LORA_INPUT, "cannot open", lora__file_slurp("b", 9, &text, &size, &err));
	assert_null(text);
	/* A sparse file of 1 TiB is refused by its size, before memory is taken. */
	assert_int_equal(truncate("empty", (off_t)1 << 40), 0);
	assert_fails(LORA_INPUT, "at most", lora__file_slurp("empty", 1 << 20, &text, &size, &err));
}

static void file__without_memory(void **state)
{
	long live = failing_malloc_live(), n = 0;
	struct lora_error err = LORA_ERROR_INIT;
	bool failed = true;

	(void)state;
	if (!FAILING_MALLOC)
		skip();
	write_file("a", "0123456789");
	for (; failed; n++) {
		char *text = NULL;
		enum lora_status status;
		size_t size;
		bool inside;

		failing_malloc_begin(n);
		status = lora__file_slurp("a", 10, &text, &size, &err);
		if (status == LORA_OK)
			status = lora__path_inside("a/b", "a", &inside, &err);
		failed = failing_malloc_end();
		assert_int_equal(status, failed ? LORA_SYSTEM : LORA_OK);
		free(text);
		assert_int_equal(failing_malloc_live(), live);
	}
	assert_true(n > 5);
	failing_malloc_begin(0);
	assert_null(lora__path_join("a", "b"));
	assert_true(failing_malloc_end());
}

/* --- writing ------------------------------------------------------------------------- */

static void file__writes_every_byte(void **state)
{
	struct lora_error err = LORA_ERROR_INIT;
	char *text = NULL;
	size_t size;

	(void)state;
	for (most = 0; most < 4; most++) {
		int fd = open("a", O_RDWR | O_CREAT | O_TRUNC, 0666);

		assert_true(fd >= 0);
		assert_ok(lora__write_at(fd, "a", 4, "456789", 6, &err));
		assert_ok(lora__write_at(fd, "a", 0, "0123", 4, &err));
		assert_ok(lora__write_at(fd, "a", 0, NULL, 0, &err));
		assert_ok(lora__file_slurp("a", 99, &text, &size, &err));
		assert_string_equal(text, "0123456789");
		free(text);
		assert_int_equal(close(fd), 0);
	}
	assert_fails(LORA_SYSTEM, "cannot write 'a'", lora__write_at(-1, "a", 0, "x", 1, &err));
	assert_fails(LORA_SYSTEM, "cannot write 'a'",
		     lora__write_at(1, "a", UINT64_MAX - 1, "xyz", 3, &err));
}

static void file__a_full_disk_is_reported(void **state)
{
	struct rlimit before, small = {100, RLIM_INFINITY};
	struct lora_error err = LORA_ERROR_INIT;
	int fd = open("a", O_RDWR | O_CREAT, 0666);
	char text[200] = "";

	(void)state;
	assert_true(fd >= 0);
	(void)signal(SIGXFSZ, SIG_IGN);
	assert_int_equal(getrlimit(RLIMIT_FSIZE, &before), 0);
	small.rlim_max = before.rlim_max;
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &small), 0);
	assert_ok(lora__write_at(fd, "a", 0, text, 100, &err));
	/* The first 100 bytes go, the rest does not: both are seen. */
	assert_fails(LORA_SYSTEM, "cannot write 'a': File too large",
		     lora__write_at(fd, "a", 0, text, 200, &err));
	assert_int_equal(err.sys_errno, EFBIG);
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &before), 0);
	assert_int_equal(close(fd), 0);
}

/* --- paths --------------------------------------------------------------------------- */

static void path__kinds(void **state)
{
	static const struct {
		const char *path;
		enum lora_path_kind kind;
	} cases[] = {
	    {"a", LORA_PATH_FILE},	  {"d", LORA_PATH_DIRECTORY}, {"d/", LORA_PATH_DIRECTORY},
	    {"fifo", LORA_PATH_OTHER},	  {"to-a", LORA_PATH_FILE},   {"to-d", LORA_PATH_DIRECTORY},
	    {"broken", LORA_PATH_ABSENT}, {"none", LORA_PATH_ABSENT}, {"a/x", LORA_PATH_ABSENT},
	    {"none/x", LORA_PATH_ABSENT}, {"", LORA_PATH_ABSENT},
	};
	struct lora_error err = LORA_ERROR_INIT;
	enum lora_path_kind kind;

	(void)state;
	write_file("a", "");
	make_directory("d");
	assert_int_equal(mkfifo("fifo", 0666), 0);
	assert_int_equal(symlink("a", "to-a"), 0);
	assert_int_equal(symlink("d", "to-d"), 0);
	assert_int_equal(symlink("nowhere", "broken"), 0);
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		assert_ok(lora__path_kind(cases[i].path, &kind, &err));
		assert_int_equal(kind, cases[i].kind);
	}
}

static void path__join(void **state)
{
	static const char *const cases[][3] = {{"a", "b", "a/b"},    {"a/", "b", "a/b"},
					       {"/", "b", "/b"},     {"", "b", "b"},
					       {"a//", "b", "a//b"}, {"a", "b/c", "a/b/c"}};

	(void)state;
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		char *path = lora__path_join(cases[i][0], cases[i][1]);

		assert_string_equal(path, cases[i][2]);
		free(path);
	}
}

static void path__plain_names(void **state)
{
	static const char *const good[] = {"a", "...", ".a", "a.b", " ", "gr\xc3\xbc\xc3\x9f", "-"};
	static const char *const bad[] = {"",	".",  "..",   "/",    "a/b",
					  "a/", "/a", "a\nb", "\x7f", "\x1b"};

	(void)state;
	for (size_t i = 0; i < sizeof good / sizeof *good; i++)
		assert_true(lora__path_is_plain(good[i]));
	for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
		assert_false(lora__path_is_plain(bad[i]));
}

static void path__inside(void **state)
{
	static const struct {
		const char *inner, *outer;
		bool inside;
	} cases[] = {
	    {"base", "base", true},
	    {"base/", "base", true},
	    {"./base", "base/.", true},
	    {"base/x", "base", true},
	    {"base/none/deep", "base", true},
	    {"base2", "base", false}, /* begins alike */
	    {"base", "base/x", false},
	    {"base/../base2", "base", false},
	    {"base/none/../../base2", "base", false},
	    {"base/../out/../base/new", "base", true},
	    {"out", "base", false},
	    {"link", "base", true},	/* -> base */
	    {"link/new", "base", true}, /* through a link */
	    {"base/x", "link", true},
	    {"link/../out", "base", false}, /* .. of what the link names */
	    {"deep-link", "base", true},    /* -> base/sub */
	    {"deep-link/..", "base", true},
	    {"base/sub", "deep-link", true},
	    {"base/x", "deep-link", false},
	    {"hard", "base/x", true}, /* another name of one file */
	    {"none", "none", true},
	    {"none/a", "none", true},
	    {"none2", "none", false},
	    {"nothing/../base/x", "base", true},
	    {"/", "base", false},
	    {"base", "/", true},
	    {".", "base", false},
	    {"base", ".", true},
	};
	struct lora_error err = LORA_ERROR_INIT;
	bool inside;

	(void)state;
	make_directory("base");
	make_directory("base/sub");
	make_directory("base2");
	make_directory("out");
	write_file("base/x", "");
	assert_int_equal(symlink("base", "link"), 0);
	assert_int_equal(symlink("base/sub", "deep-link"), 0);
	assert_int_equal(link("base/x", "hard"), 0);
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		assert_ok(lora__path_inside(cases[i].inner, cases[i].outer, &inside, &err));
		if (inside != cases[i].inside)
			fail_msg("'%s' in '%s'", cases[i].inner, cases[i].outer);
	}
	assert_int_equal(symlink("loop", "loop"), 0);
	assert_fails(LORA_SYSTEM, "cannot resolve 'loop'",
		     lora__path_inside("loop", "base", &inside, &err));
}

#define WITH_SCRATCH(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
	    WITH_SCRATCH(file__only_regular_files_are_opened),
	    WITH_SCRATCH(file__what_may_not_be_read_is_a_system_failure),
	    WITH_SCRATCH(file__reads_exactly_what_was_asked_for),
	    WITH_SCRATCH(file__every_change_is_noticed),
	    WITH_SCRATCH(file__what_was_opened_is_what_is_read),
	    WITH_SCRATCH(file__at_rest),
	    WITH_SCRATCH(file__slurp),
	    WITH_SCRATCH(file__without_memory),
	    WITH_SCRATCH(file__writes_every_byte),
	    WITH_SCRATCH(file__a_full_disk_is_reported),
	    WITH_SCRATCH(path__kinds),
	    WITH_SCRATCH(path__join),
	    WITH_SCRATCH(path__plain_names),
	    WITH_SCRATCH(path__inside),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
