/* SPDX-License-Identifier: Apache-2.0 */
/* base/output.c, base/output_commit.c, base/place.c, base/remove.c: an output exists whole or not
 * at all.
 *
 * The system calls that matter go through functions of this file, which write down what is called,
 * on what, and can make the n-th call fail or play a file system that lacks something. (Syncs are
 * only written down.)
 */
#include "base_check.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/resource.h>
#include <sys/syscall.h>

#include <loractl/cleanup.h>

#include "base/file.h"
#include "base/pool.h"
#include "failing_malloc.h"

/* --- system calls -------------------------------------------------------------------- */

static char trace[8192];	 /* "fdatasync T/a; fsync T; rename T -> out; ..." */
static long calls, fail_at = -1; /* the number of the call that fails with EIO */
static bool no_flags, no_links, no_fallocate;
static void (*before_rename)(void);

/* The end of a path with the random temporary name written as T. */
static void note_path(char *to, size_t room, const char *path)
{
	const char *mark = strstr(path, ".loractl-");
	const char *slash = strrchr(path, '/');

	if (mark != NULL)
		(void)snprintf(to, room, "T%s", mark + strlen(".loractl-") + 6);
	else
		(void)snprintf(to, room, "%s", slash == NULL ? path : slash + 1);
}

/* True if this call is to fail. */
static bool note_call(const char *name, const char *what)
{
	static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
	size_t length;
	bool failing;

	(void)pthread_mutex_lock(&lock);
	length = strlen(trace);
	(void)snprintf(trace + length, sizeof trace - length, "%s %s; ", name, what);
	failing = calls++ == fail_at;
	(void)pthread_mutex_unlock(&lock);
	if (failing)
		errno = EIO;
	return failing;
}

static bool note_fd(const char *name, int fd)
{
	char link[64], path[4096] = "", shown[4096], here[4096];
	ssize_t length;

	(void)snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
	length = readlink(link, path, sizeof path - 1);
	path[length < 0 ? 0 : length] = '\0';
	if (getcwd(here, sizeof here) != NULL && strcmp(here, path) == 0)
		strcpy(path, ".");
	note_path(shown, sizeof shown, path);
	return note_call(name, shown);
}

int fdatasync(int fd)
{
	return note_fd("fdatasync", fd) ? -1 : 0;
}

int fsync(int fd)
{
	return note_fd("fsync", fd) ? -1 : 0;
}

int renameat2(int from_dir, const char *from, int to_dir, const char *to, unsigned flags)
{
	char x[300], y[300], what[700];

	note_path(x, sizeof x, from);
	note_path(y, sizeof y, to);
	(void)snprintf(what, sizeof what, "%s %s %s", x,
		       flags == RENAME_EXCHANGE	   ? "<->"
		       : flags == RENAME_NOREPLACE ? "->"
						   : "=>",
		       y);
	if (before_rename != NULL)
		before_rename();
	if (note_call("rename", what))
		return -1;
	if (no_flags && flags != 0) {
		errno = EINVAL;
		return -1;
	}
	return (int)syscall(SYS_renameat2, from_dir, from, to_dir, to, flags);
}

int renameat(int from_dir, const char *from, int to_dir, const char *to)
{
	return renameat2(from_dir, from, to_dir, to, 0);
}

int linkat(int from_dir, const char *from, int to_dir, const char *to, int flags)
{
	if (note_call("link", ""))
		return -1;
	if (no_links) {
		errno = EPERM;
		return -1;
	}
	return (int)syscall(SYS_linkat, from_dir, from, to_dir, to, flags);
}

int fallocate(int fd, int mode, off_t offset, off_t size)
{
	if (note_fd("fallocate", fd))
		return -1;
	if (no_fallocate) {
		errno = EOPNOTSUPP;
		return -1;
	}
	return (int)syscall(SYS_fallocate, fd, mode, offset, size);
}

/* --- the stage ----------------------------------------------------------------------- */

static void reset_calls(void)
{
	trace[0] = '\0';
	calls = 0;
	fail_at = -1;
	no_flags = no_links = no_fallocate = false;
	before_rename = NULL;
}

static int set_up(void **state)
{
	(void)state;
	enter_scratch();
	(void)umask(022);
	reset_calls();
	return 0;
}

static int tear_down(void **state)
{
	(void)state;
	reset_calls();
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

static char *lines[1000];
static size_t line_count;

static int list_one(const char *path, const struct stat *info, int type, struct FTW *place)
{
	char kind = S_ISDIR(info->st_mode) ? 'd' : S_ISLNK(info->st_mode) ? 'l' : 'f';

	(void)type;
	if (place->level > 0 && line_count < sizeof lines / sizeof *lines &&
	    asprintf(&lines[line_count], "%c %o %s|", kind, (unsigned)info->st_mode & 07777,
		     path + 2) > 0)
		line_count++;
	return 0;
}

static int by_path(const void *a, const void *b)
{
	const char *x = strrchr(*(const char *const *)a, ' ');
	const char *y = strrchr(*(const char *const *)b, ' ');

	while (*x == *y && *x != '\0') {
		x++;
		y++;
	}
	return (*x == '|' ? 0 : *x) - (*y == '|' ? 0 : *y); /* the bar is the end */
}

/* Everything below the working directory with its type and mode, sorted: "d 755 out|f 644 out/a|".
 */
static const char *listing(void)
{
	static char text[65536];
	size_t length = 0;

	line_count = 0;
	text[0] = '\0';
	assert_int_equal(nftw(".", list_one, 16, FTW_PHYS), 0);
	qsort(lines, line_count, sizeof *lines, by_path);
	for (size_t i = 0; i < line_count; i++) {
		(void)snprintf(text + length, sizeof text - length, "%s", lines[i]);
		length += strlen(text + length);
		free(lines[i]);
	}
	return text;
}

static void assert_content(const char *path, const char *expected)
{
	struct lora_error err = LORA_ERROR_INIT;
	char *text = NULL;
	size_t size;

	assert_ok(lora__file_slurp(path, 1 << 20, &text, &size, &err));
	assert_string_equal(text, expected);
	free(text);
}

static int open_descriptors(void)
{
	int count = 0;

	for (int fd = 0; fd < 256; fd++)
		count += fcntl(fd, F_GETFD) >= 0;
	return count;
}

static enum lora_status put(struct lora_output *output, const char *name, const char *text,
			    struct lora_error *err)
{
	enum lora_status status;
	int fd = -1;

	status = lora__output_file(output, name, strlen(text), &fd, err);
	if (status == LORA_OK)
		status = lora__write_at(fd, "out", 0, text, strlen(text), err);
	return status;
}

/* The scenarios that the tests of failures run through: an output from its begin to its end. */
enum scenario { ONE_FILE, WITH_COMPANIONS, TREE, SCENARIOS };

static enum lora_status fill(struct lora_output *output, enum scenario scenario,
			     struct lora_error *err)
{
	enum lora_status status;
	int fd = -1;

	if (scenario != TREE) {
		status = put(output, NULL, "new", err);
		if (status == LORA_OK && scenario == WITH_COMPANIONS)
			status = lora__output_beside(output, "out.one", &fd, err);
		if (status == LORA_OK && fd >= 0)
			status = lora__write_at(fd, "out.one", 0, "one", 3, err);
		if (status == LORA_OK && scenario == WITH_COMPANIONS)
			status = lora__output_beside(output, "./out.two", &fd, err);
		return status;
	}
	status = put(output, "a", "new a", err);
	if (status == LORA_OK)
		status = put(output, "sub/b", "new b", err);
	if (status == LORA_OK)
		status = lora__output_file(output, "sub/deep/c", 0, &fd, err);
	if (status == LORA_OK)
		status = lora__output_finish(output, fd, err);
	return status;
}

static enum lora_status produce(enum scenario scenario, bool replace, struct lora_error *err)
{
	struct lora_output *output = NULL;
	enum lora_status status;

	status = lora__output_begin(&output, "out", scenario == TREE, replace, err);
	if (status == LORA_OK)
		status = fill(output, scenario, err);
	if (status == LORA_OK)
		status = lora__output_commit(output, err);
	lora__output_free(output);
	return status;
}

static const char *const made[SCENARIOS] = {
    "f 644 out|",
    "f 644 out|f 644 out.one|f 644 out.two|",
    "d 755 out|f 644 out/a|d 755 out/sub|f 644 out/sub/b|d 755 out/sub/deep|f 644 out/sub/deep/c|",
};

/* What is there before, where something is to be replaced. */
static const char *const before[SCENARIOS] = {
    "f 600 out|",
    "f 600 out|f 600 out.one|",
    "d 700 out|f 600 out/old|",
};

static void make_old(enum scenario scenario)
{
	mode_t mask = umask(077);

	if (scenario == TREE) {
		make_directory("out");
		write_file("out/old", "old");
	} else {
		write_file("out", "old");
	}
	if (scenario == WITH_COMPANIONS)
		write_file("out.one", "old one");
	(void)umask(mask);
}

static void assert_old(enum scenario scenario)
{
	assert_string_equal(listing(), before[scenario]);
	assert_content(scenario == TREE ? "out/old" : "out", "old");
	if (scenario == WITH_COMPANIONS)
		assert_content("out.one", "old one");
}

static void assert_new(enum scenario scenario)
{
	assert_string_equal(listing(), made[scenario]);
	if (scenario == TREE)
		assert_content("out/sub/b", "new b");
	else
		assert_content("out", "new");
	if (scenario == WITH_COMPANIONS)
		assert_content("out.one", "one");
}

static int remove_one(const char *path, const struct stat *info, int type, struct FTW *place)
{
	(void)info, (void)type;
	return place->level > 0 ? remove(path) : 0;
}

static void clear(void)
{
	assert_int_equal(nftw(".", remove_one, 16, FTW_PHYS | FTW_DEPTH), 0);
	assert_string_equal(listing(), "");
}

/* --- what is promised ---------------------------------------------------------------- */

static void output__commit_makes_it_appear_whole(void **state)
{
	struct lora_error err = LORA_ERROR_INIT;

	(void)state;
	for (enum scenario scenario = 0; scenario < SCENARIOS; scenario++) {
		int descriptors = open_descriptors();
		struct lora_output *output;

		assert_ok(lora__output_begin(&output, "out", scenario == TREE, false, &err));
		assert_ok(fill(output, scenario, &err));
		assert_int_equal(access("out", F_OK), -1);
		assert_int_equal(access("out.one", F_OK), -1);
		assert_ok(lora__output_commit(output, &err));
		assert_new(scenario);
		assert_fails(LORA_USAGE, "committed already", lora__output_commit(output, &err));
		lora__output_free(output);
		assert_new(scenario);
		assert_int_equal(open_descriptors(), descriptors);
		clear();
	}
}

static void output__is_private_until_then(void **state)
{
	struct lora_error err = LORA_ERROR_INIT;
	struct lora_output *output;
	char *path, *inner;
	int fd;

	(void)state;
	(void)umask(002);
	assert_ok(lora__output_begin(&output, "./out", false, false, &err));
	assert_ok(lora__output_file(output, NULL, 0, &fd, &err));
	path = lora__output_path(output, NULL);
	assert_memory_equal(path, "./.out.loractl-", 15);
	assert_int_equal(strlen(path), 21);
	assert_string_equal(strncmp(listing(), "f 600 .out.loractl-", 19) == 0 ? "" : listing(),
			    "");
	assert_ok(lora__write_at(fd, path, 0, "new", 3, &err));
	assert_content(path, "new"); /* to be read back */
	assert_ok(lora__output_commit(output, &err));
	lora__output_free(output);
	assert_string_equal(listing(), "f 664 out|");
	free(path);
	clear();

	assert_ok(lora__output_begin(&output, "out", true, false, &err));
	assert_ok(put(output, "sub/a", "x", &err));
	path = lora__output_path(output, NULL);
	inner = lora__output_path(output, "sub/a");
	assert_content(inner, "x");
	assert_memory_equal(inner, path, strlen(path));
	assert_int_equal(strncmp(listing(), "d 700 .out.loractl-", 19), 0);
	assert_ok(lora__output_commit(output, &err));
	lora__output_free(output);
	assert_string_equal(listing(), "d 775 out|d 775 out/sub|f 664 out/sub/a|");
	free(path);
	free(inner);
}

static void output__abort_leaves_nothing(void **state)
{
	struct lora_error err = LORA_ERROR_INIT;

	(void)state;
	for (int replace = 0; replace < 2; replace++) {
		for (enum scenario scenario = 0; scenario < SCENARIOS; scenario++) {
			int descriptors = open_descriptors();
			struct lora_output *output;

			if (replace)
				make_old(scenario);
			assert_ok(
			    lora__output_begin(&output, "out", scenario == TREE, replace, &err));
			lora__output_free(output);
			assert_ok(
			    lora__output_begin(&output, "out", scenario == TREE, replace, &err));
			assert_ok(fill(output, scenario, &err));
			lora__output_free(output);
			if (replace)
				assert_old(scenario);
			assert_int_equal(open_descriptors(), descriptors);
			clear();
		}
	}
	lora__output_free(NULL);
}

static void output__nothing_is_overwritten(void **state)
{
	struct lora_error err = LORA_ERROR_INIT;
	struct lora_output *output = (struct lora_output *)&err;
	int fd;

	(void)state;
	write_file("file", "old");
	make_directory("dir");
	assert_int_equal(symlink("nowhere", "link"), 0);
	for (int directory = 0; directory < 2; directory++) {
		assert_fails(LORA_USAGE, "'file' exists",
			     lora__output_begin(&output, "file", directory, false, &err));
		assert_null(output);
		assert_fails(LORA_USAGE, "'dir' exists",
			     lora__output_begin(&output, "dir", directory, false, &err));
		assert_fails(LORA_USAGE, "'link' exists",
			     lora__output_begin(&output, "link", directory, false, &err));
	}
	assert_fails(LORA_USAGE, "'dir' exists",
		     lora__output_begin(&output, "dir/", true, false, &err));
	/* Asked to replace, it is still not a file by a directory, nor the other way round. */
	assert_fails(LORA_USAGE, "cannot replace 'file'",
		     lora__output_begin(&output, "file", true, true, &err));
	assert_fails(LORA_USAGE, "cannot replace 'dir'",
		     lora__output_begin(&output, "dir", false, true, &err));
	assert_ok(lora__output_begin(&output, "out", false, false, &err));
	assert_fails(LORA_USAGE, "'file' exists", lora__output_beside(output, "file", &fd, &err));
	assert_int_equal(fd, -1);
	lora__output_free(output);
	assert_string_equal(listing(), "d 755 dir|f 644 file|l 777 link|");
	assert_content("file", "old");
}

static void output__places_that_cannot_be(void **state)
{
	static const char *const names[] = {"", ".", "..", "/", "dir/.", "dir/..", "//"};
	struct lora_error err = LORA_ERROR_INIT;
	struct lora_output *output;
	char name[300];

	(void)state;
	make_directory("dir");
	write_file("file", "");
	for (int directory = 0; directory < 2; directory++) {
		for (size_t i = 0; i < sizeof names / sizeof *names; i++)
			assert_fails(LORA_USAGE, "cannot write '",
				     lora__output_begin(&output, names[i], directory, true, &err));
		assert_fails(LORA_INPUT, "the directory 'none' does not exist",
			     lora__output_begin(&output, "none/out", directory, false, &err));
		assert_fails(LORA_INPUT, "cannot open the directory 'file'",
			     lora__output_begin(&output, "file/out", directory, false, &err));
		memset(name, 'a', 256);
		name[256] = '\0';
		assert_fails(LORA_USAGE, "too long",
			     lora__output_begin(&output, name, directory, false, &err));
	}
	assert_fails(LORA_USAGE, "new file",
		     lora__output_begin(&output, "out/", false, false, &err));
	assert_string_equal(listing(), "d 755 dir|f 644 file|");
	/* The longest name that there is has a temporary one, too. */
	for (int directory = 0; directory < 2; directory++) {
		name[255] = '\0';
		memcpy(name, "\xc3\xbc", 2);
		assert_ok(lora__output_begin(&output, name, directory, false, &err));
		lora__output_free(output);
	}
	assert_ok(lora__output_begin(&output, "dir/new///", true, false, &err));
	assert_ok(lora__output_commit(output, &err));
	lora__output_free(output);
	assert_string_equal(listing(), "d 755 dir|d 755 dir/new|f 644 file|");
}

static void output__an_unwritable_directory(void **state)
{
	struct lora_error err = LORA_ERROR_INIT;
	struct lora_output *output;

	(void)state;
	assert_int_equal(chmod(".", 0555), 0);
	if (getuid() == 0)
		assert_int_equal(seteuid(65534), 0);
	assert_fails(LORA_SYSTEM, "Permission denied",
		     lora__output_begin(&output, "out", false, false, &err));
	assert_fails(LORA_SYSTEM, "Permission denied",
		     lora__output_begin(&output, "out", true, false, &err));
	assert_null(output);
	if (getuid() == 0)
		assert_int_equal(seteuid(0), 0);
	assert_int_equal(chmod(".", 0755), 0);
	assert_string_equal(listing(), "");
}

static void output__names_inside(void **state)
{
	static const char *const bad[] = {"",	  ".",	  "..",	 "/a",	   "a/",  "a//b",
					  "../a", "a/..", "./a", "a/../b", "a\n", "a/\x1b"};
	struct lora_error err = LORA_ERROR_INIT;
	struct lora_output *output;
	int fd = 7;

	(void)state;
	assert_ok(lora__output_begin(&output, "out", true, false, &err));
	for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
		assert_fails(LORA_USAGE, "is no name for a file",
			     lora__output_file(output, bad[i], 0, &fd, &err));
		assert_int_equal(fd, -1);
	}
	assert_ok(lora__output_file(output, "a", 0, &fd, &err));
	assert_fails(LORA_USAGE, "twice", lora__output_file(output, "a", 0, &fd, &err));
	assert_fails(LORA_SYSTEM, "a", lora__output_file(output, "a/b", 0, &fd, &err));
	assert_fails(LORA_USAGE, "have names", lora__output_file(output, NULL, 0, &fd, &err));
	assert_fails(LORA_USAGE, "write 'x' into it", lora__output_beside(output, "x", &fd, &err));
	assert_fails(LORA_USAGE, "descriptor 99", lora__output_finish(output, 99, &err));
	assert_fails(LORA_USAGE, "descriptor -1", lora__output_finish(output, -1, &err));
	lora__output_free(output);
	assert_ok(lora__output_begin(&output, "out", false, false, &err));
	assert_fails(LORA_USAGE, "is a file", lora__output_file(output, "a", 0, &fd, &err));
	assert_fails(LORA_USAGE, "nothing was written", lora__output_commit(output, &err));
	assert_ok(lora__output_file(output, NULL, 0, &fd, &err));
	assert_fails(LORA_USAGE, "open already", lora__output_file(output, NULL, 0, &fd, &err));
	lora__output_free(output);
	assert_string_equal(listing(), "");
}

/* --- the order ----------------------------------------------------------------------- */

static void output__everything_is_synced_before_its_name_shows(void **state)
{
	static const char *const expected[2][SCENARIOS] = {
	    {
		"fdatasync T; rename T -> out; fsync .; ",
		"fdatasync T; fdatasync T; fdatasync T; rename T -> out.one; "
		"rename T -> out.two; rename T -> out; fsync .; ",
		"fdatasync T/sub/deep/c; fdatasync T/a; fdatasync T/sub/b; fsync T/sub/deep; "
		"fsync T/sub; fsync T; rename T -> out; fsync .; ",
	    },
	    {
		"fdatasync T; rename T <-> out; fsync .; ",
		"fdatasync T; fdatasync T; fdatasync T; rename T <-> out.one; "
		"rename T -> out.two; rename T <-> out; fsync .; ",
		"fdatasync T/sub/deep/c; fdatasync T/a; fdatasync T/sub/b; fsync T/sub/deep; "
		"fsync T/sub; fsync T; rename T <-> out; fsync .; ",
	    },
	};
	struct lora_error err = LORA_ERROR_INIT;

	(void)state;
	for (int replace = 0; replace < 2; replace++) {
		for (enum scenario scenario = 0; scenario < SCENARIOS; scenario++) {
			char *at;

			if (replace)
				make_old(scenario);
			reset_calls();
			assert_ok(produce(scenario, replace, &err));
			while ((at = strstr(trace, "fallocate ")) != NULL)
				memmove(at, strchr(at, ';') + 2, strlen(strchr(at, ';') + 2) + 1);
			assert_string_equal(trace, expected[replace][scenario]);
			assert_new(scenario);
			clear();
		}
	}
}

/* A companion in another directory is durable before the output shows. */
static void output__companions_elsewhere_are_synced_first(void **state)
{
	struct lora_error err = LORA_ERROR_INIT;
	struct lora_output *output;
	int fd;

	(void)state;
	make_directory("dir");
	for (long n = 0; n <= 6; n++) {
		assert_ok(lora__output_begin(&output, "out", false, false, &err));
		assert_ok(lora__output_file(output, NULL, 0, &fd, &err));
		assert_ok(lora__output_beside(output, "dir/out.one", &fd, &err));
		reset_calls();
		fail_at = n;
		if (n < 6) {
			/* A failure after the first name shows takes it back, wherever it is. */
			assert_fails(LORA_SYSTEM, "", lora__output_commit(output, &err));
			assert_string_equal(listing(), "d 755 dir|");
		} else {
			assert_ok(lora__output_commit(output, &err));
			assert_string_equal(trace, "fdatasync T; fdatasync T; rename T -> out.one; "
						   "fsync dir; rename T -> out; fsync .; ");
			assert_string_equal(listing(), "d 755 dir|f 644 dir/out.one|f 644 out|");
		}
		lora__output_free(output);
	}
}

/* Whichever of the calls fails: the command fails, nothing new is there, nothing old is lost. */
static void output__every_failing_call_is_undone(void **state)
{
	struct lora_error err = LORA_ERROR_INIT;

	(void)state;
	for (int replace = 0; replace < 2; replace++) {
		for (enum scenario scenario = 0; scenario < SCENARIOS; scenario++) {
			long total = 1;

			for (long n = 0; n < total; n++) {
				int descriptors = open_descriptors();

				if (replace)
					make_old(scenario);
				reset_calls();
				fail_at = n;
				assert_fails(LORA_SYSTEM, "Input/output error",
					     produce(scenario, replace, &err));
				assert_int_equal(open_descriptors(), descriptors);
				if (replace)
					assert_old(scenario);
				else
					assert_string_equal(listing(), "");
				clear();
				if (n > 0)
					continue;
				/* How many calls a success takes. */
				if (replace)
					make_old(scenario);
				reset_calls();
				assert_ok(produce(scenario, replace, &err));
				total = calls;
				assert_true(total >= 4);
				clear();
			}
		}
	}
}

/* A sync that failed once is not believed when it succeeds later. */
static void output__a_failed_sync_is_final(void **state)
{
	struct lora_error err = LORA_ERROR_INIT;
	struct lora_output *output;
	int fd;

	(void)state;
	assert_ok(lora__output_begin(&output, "out", true, false, &err));
	assert_ok(lora__output_file(output, "a", 0, &fd, &err));
	fail_at = calls;
	assert_fails(LORA_SYSTEM, "cannot sync 'out': 'a': Input/output error",
		     lora__output_finish(output, fd, &err));
	assert_fails(LORA_SYSTEM, "failed before", lora__output_commit(output, &err));
	assert_fails(LORA_SYSTEM, "failed before", lora__output_file(output, "b", 0, &fd, &err));
	lora__output_free(output);
	assert_string_equal(listing(), "");
}

/* --- others in between --------------------------------------------------------------- */

static void somebody_makes_out(void)
{
	before_rename = NULL;
	write_file("out", "theirs");
}

static void somebody_replaces_out(void)
{
	before_rename = NULL;
	write_file("theirs", "theirs");
	assert_int_equal(rename("theirs", "out"), 0);
}

static void somebody_removes_out(void)
{
	before_rename = NULL;
	assert_int_equal(unlink("out"), 0);
}

static void output__what_appeared_meanwhile_stays(void **state)
{
	struct lora_error err = LORA_ERROR_INIT;

	(void)state;
	for (int old_system = 0; old_system < 3; old_system++) {
		for (int replace = 0; replace < 2; replace++) {
			for (enum scenario scenario = 0; scenario < SCENARIOS; scenario++) {
				reset_calls();
				no_flags = old_system > 0;
				no_links = old_system > 1;
				before_rename = somebody_makes_out;
				assert_fails(LORA_USAGE, "'out' exists now",
					     produce(scenario, replace, &err));
				assert_string_equal(listing(), "f 644 out|");
				assert_content("out", "theirs");
				clear();
			}
		}
	}
}

static void output__only_what_stood_there_is_replaced(void **state)
{
	struct lora_error err = LORA_ERROR_INIT;

	(void)state;
	for (int old_system = 0; old_system < 2; old_system++) {
		make_old(ONE_FILE);
		reset_calls();
		no_flags = old_system;
		before_rename = somebody_replaces_out;
		assert_fails(LORA_USAGE, "changed by somebody else", produce(ONE_FILE, true, &err));
		assert_string_equal(listing(), "f 644 out|");
		assert_content("out", "theirs");
		clear();
	}
	/* What vanished needs no replacing; between look and exchange it may still vanish. */
	make_old(ONE_FILE);
	reset_calls();
	before_rename = somebody_removes_out;
	assert_fails(LORA_SYSTEM, "cannot replace 'out'", produce(ONE_FILE, true, &err));
	assert_string_equal(listing(), "");
}

static void output__a_link_is_replaced_not_followed(void **state)
{
	struct lora_error err = LORA_ERROR_INIT;

	(void)state;
	make_directory("real");
	write_file("real/file", "precious");
	for (enum scenario scenario = ONE_FILE; scenario < SCENARIOS; scenario += TREE) {
		assert_int_equal(symlink(scenario == TREE ? "real" : "real/file", "out"), 0);
		assert_ok(produce(scenario, true, &err));
		assert_content("real/file", "precious");
		assert_int_equal(system("rm -rf out; test \"$(ls -A)\" = real"), 0);
	}
}

/* --- lesser file systems ------------------------------------------------------------- */

static void output__works_without_renameat2(void **state)
{
	struct lora_error err = LORA_ERROR_INIT;

	(void)state;
	for (int links = 0; links < 2; links++) {
		for (int replace = 0; replace < 2; replace++) {
			for (enum scenario scenario = 0; scenario < SCENARIOS; scenario++) {
				if (replace)
					make_old(scenario);
				reset_calls();
				no_flags = no_fallocate = true;
				no_links = !links;
				assert_ok(produce(scenario, replace, &err));
				assert_new(scenario);
				clear();
			}
		}
	}
}

/* With links even the old content comes back; without them a replaced file cannot be kept, so that
 * only the steps up to the rename are tried. */
static void output__failures_are_undone_without_renameat2(void **state)
{
	struct lora_error err = LORA_ERROR_INIT;

	(void)state;
	for (int replace = 0; replace < 2; replace++) {
		for (enum scenario scenario = 0; scenario < SCENARIOS; scenario++) {
			enum lora_status status = LORA_SYSTEM;

			for (long n = 0; status != LORA_OK; n++) {
				if (replace)
					make_old(scenario);
				reset_calls();
				no_flags = true;
				fail_at = n;
				status = produce(scenario, replace, &err);
				if (status == LORA_OK)
					assert_new(scenario);
				else if (replace)
					assert_old(scenario);
				else
					assert_string_equal(listing(), "");
				clear();
				assert_true(n < 40);
			}
		}
	}
}

/* --- space --------------------------------------------------------------------------- */

static void output__a_full_disk_leaves_nothing(void **state)
{
	struct rlimit old, small = {1000, 0};
	struct lora_error err = LORA_ERROR_INIT;
	struct lora_output *output;
	char text[2000] = "";
	int fd;

	(void)state;
	(void)signal(SIGXFSZ, SIG_IGN);
	assert_int_equal(getrlimit(RLIMIT_FSIZE, &old), 0);
	small.rlim_max = old.rlim_max;
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &small), 0);
	for (int plain = 0; plain < 2; plain++) {
		no_fallocate = plain;
		/* It shows when the space is reserved ... */
		assert_ok(lora__output_begin(&output, "out", true, false, &err));
		assert_fails(LORA_SYSTEM, "cannot reserve 2000 bytes for 'out': File too large",
			     lora__output_file(output, "a", 2000, &fd, &err));
		assert_int_equal(fd, -1);
		assert_fails(LORA_SYSTEM, "failed before", lora__output_commit(output, &err));
		lora__output_free(output);
		assert_string_equal(listing(), "");
		assert_ok(lora__output_begin(&output, "out", false, false, &err));
		assert_fails(LORA_SYSTEM, "cannot reserve",
			     lora__output_file(output, NULL, UINT64_MAX, &fd, &err));
		lora__output_free(output);
	}
	/* ... or when it is written. */
	assert_ok(lora__output_begin(&output, "out", false, false, &err));
	assert_ok(lora__output_file(output, NULL, 0, &fd, &err));
	assert_fails(LORA_SYSTEM, "File too large",
		     lora__write_at(fd, "out", 0, text, sizeof text, &err));
	lora__output_free(output);
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &old), 0);
	assert_string_equal(listing(), "");
}

static void output__reserved_space_is_there(void **state)
{
	struct lora_error err = LORA_ERROR_INIT;
	struct lora_output *output;
	struct stat info;
	int fd;

	(void)state;
	for (int plain = 0; plain < 2; plain++) {
		no_fallocate = plain;
		assert_ok(lora__output_begin(&output, "out", false, false, &err));
		assert_ok(lora__output_file(output, NULL, 1 << 20, &fd, &err));
		assert_int_equal(fstat(fd, &info), 0);
		assert_int_equal(info.st_size, 1 << 20);
		lora__output_free(output);
	}
}

static void output__without_memory_nothing_is_left(void **state)
{
	struct lora_error err = LORA_ERROR_INIT;

	(void)state;
	if (!FAILING_MALLOC)
		skip();
	for (int replace = 0; replace < 2; replace++) {
		for (enum scenario scenario = 0; scenario < SCENARIOS; scenario++) {
			bool failed = true;
			long n = 0;

			for (; failed; n++) {
				long live = failing_malloc_live();
				int descriptors = open_descriptors();
				enum lora_status status;

				if (replace)
					make_old(scenario);
				live = failing_malloc_live();
				failing_malloc_begin(n);
				status = produce(scenario, replace, &err);
				failed = failing_malloc_end();
				assert_int_equal(status, failed ? LORA_SYSTEM : LORA_OK);
				assert_int_equal(failing_malloc_live(), live);
				assert_int_equal(open_descriptors(), descriptors);
				if (!failed)
					assert_new(scenario);
				else if (replace)
					assert_old(scenario);
				else
					assert_string_equal(listing(), "");
				clear();
			}
			assert_true(n > 3);
		}
	}
}

/* --- removal ------------------------------------------------------------------------- */

static void output__removal_follows_no_link(void **state)
{
	struct lora_error err = LORA_ERROR_INIT;
	struct lora_output *output;
	char *inner;

	(void)state;
	make_directory("real");
	write_file("real/file", "precious");
	make_directory("out");
	assert_int_equal(symlink("../real", "out/link"), 0);
	assert_ok(lora__output_begin(&output, "out", true, true, &err));
	inner = lora__output_path(output, "link");
	assert_int_equal(symlink("../real", inner), 0);
	lora__output_free(output);
	free(inner);
	assert_content("real/file", "precious");
	assert_ok(produce(TREE, true, &err)); /* removes the old out, and its link */
	assert_content("real/file", "precious");
	assert_int_equal(access("out/link", F_OK), -1);
	assert_int_equal(access("out/a", F_OK), 0);
}

static void output__large_trees_are_removed(void **state)
{
	struct lora_error err = LORA_ERROR_INIT;
	struct lora_output *output;
	char name[300];

	(void)state;
	assert_ok(lora__output_begin(&output, "out", true, false, &err));
	for (int i = 0; i < 600; i++) {
		int fd;

		(void)snprintf(name, sizeof name, "d%d/%0200d/e/%d", i % 3, i % 7, i);
		assert_ok(lora__output_file(output, name, 0, &fd, &err));
		assert_ok(lora__output_finish(output, fd, &err));
	}
	lora__output_free(output);
	assert_string_equal(listing(), "");
}

static void output__cleanup_removes_all_that_is_unfinished(void **state)
{
	struct lora_error err = LORA_ERROR_INIT;
	struct lora_output *tree, *file, *done;
	int fd, descriptors = open_descriptors();

	(void)state;
	lora_cleanup();
	assert_ok(lora__output_begin(&done, "out-done", false, false, &err));
	assert_ok(put(done, NULL, "whole", &err));
	assert_ok(lora__output_begin(&tree, "out-tree", true, false, &err));
	assert_ok(fill(tree, TREE, &err));
	assert_ok(lora__output_commit(done, &err));
	assert_ok(lora__output_begin(&file, "out", false, false, &err));
	assert_ok(fill(file, WITH_COMPANIONS, &err));
	lora_cleanup();
	assert_string_equal(listing(), "f 644 out-done|");
	assert_fails(LORA_CANCELLED, "interrupted", lora__output_file(tree, "x", 0, &fd, &err));
	assert_fails(LORA_CANCELLED, "interrupted", lora__output_beside(file, "x", &fd, &err));
	assert_fails(LORA_CANCELLED, "interrupted", lora__output_commit(tree, &err));
	assert_fails(LORA_CANCELLED, "interrupted", lora__output_commit(file, &err));
	lora__output_free(tree);
	lora__output_free(file);
	lora__output_free(done);
	lora_cleanup();
	assert_string_equal(listing(), "f 644 out-done|");
	assert_int_equal(open_descriptors(), descriptors);
}

/* --- threads ------------------------------------------------------------------------- */

static atomic_size_t begun;

static enum lora_status write_one(void *user, size_t item, unsigned worker, struct lora_error *err)
{
	enum lora_status status;
	char name[32];
	int fd;

	(void)worker;
	(void)snprintf(name, sizeof name, "%zu/%zu", item % 5, item);
	status = lora__output_file(user, name, 4, &fd, err);
	if (status == LORA_OK)
		status = lora__write_at(fd, name, 0, "text", 4, err);
	if (status == LORA_OK)
		status = lora__output_finish(user, fd, err);
	atomic_fetch_add(&begun, 1);
	return status;
}

static void *clean_up_in_the_middle(void *argument)
{
	while (atomic_load(&begun) < 20)
		(void)sched_yield();
	lora_cleanup();
	return argument;
}

static void output__threads_write_and_one_cleans_up(void **state)
{
	struct lora_error err = LORA_ERROR_INIT;
	struct lora_output *output;
	pthread_t thread;

	(void)state;
	assert_ok(lora__output_begin(&output, "out", true, false, &err));
	assert_ok(lora__parallel(4, 200, write_one, output, &err));
	assert_ok(lora__output_commit(output, &err));
	lora__output_free(output);
	assert_int_equal(system("test $(find out -type f -size 4c | wc -l) = 200"), 0);
	clear();
	begun = 0;
	assert_ok(lora__output_begin(&output, "out", true, false, &err));
	assert_int_equal(pthread_create(&thread, NULL, clean_up_in_the_middle, NULL), 0);
	assert_fails(LORA_CANCELLED, "interrupted",
		     lora__parallel(4, 1000000, write_one, output, &err));
	assert_int_equal(pthread_join(thread, NULL), 0);
	assert_string_equal(listing(), "");
	lora__output_free(output);
}

#define WITH_SCRATCH(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
	    WITH_SCRATCH(output__commit_makes_it_appear_whole),
	    WITH_SCRATCH(output__is_private_until_then),
	    WITH_SCRATCH(output__abort_leaves_nothing),
	    WITH_SCRATCH(output__nothing_is_overwritten),
	    WITH_SCRATCH(output__places_that_cannot_be),
	    WITH_SCRATCH(output__an_unwritable_directory),
	    WITH_SCRATCH(output__names_inside),
	    WITH_SCRATCH(output__everything_is_synced_before_its_name_shows),
	    WITH_SCRATCH(output__companions_elsewhere_are_synced_first),
	    WITH_SCRATCH(output__every_failing_call_is_undone),
	    WITH_SCRATCH(output__a_failed_sync_is_final),
	    WITH_SCRATCH(output__what_appeared_meanwhile_stays),
	    WITH_SCRATCH(output__only_what_stood_there_is_replaced),
	    WITH_SCRATCH(output__a_link_is_replaced_not_followed),
	    WITH_SCRATCH(output__works_without_renameat2),
	    WITH_SCRATCH(output__failures_are_undone_without_renameat2),
	    WITH_SCRATCH(output__a_full_disk_leaves_nothing),
	    WITH_SCRATCH(output__reserved_space_is_there),
	    WITH_SCRATCH(output__without_memory_nothing_is_left),
	    WITH_SCRATCH(output__removal_follows_no_link),
	    WITH_SCRATCH(output__large_trees_are_removed),
	    WITH_SCRATCH(output__cleanup_removes_all_that_is_unfinished),
	    WITH_SCRATCH(output__threads_write_and_one_cleans_up),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
