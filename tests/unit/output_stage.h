/* SPDX-License-Identifier: Apache-2.0 */
/* output_stage.h - what the tests of outputs share. To be included by one .c file of a program.
 *
 * The system calls that matter go through functions of this file, which write down what is called,
 * on what, and can make the n-th call fail or play a file system that lacks something. (Syncs are
 * only written down.) Then three scenarios: what is there before, what is made, what is there
 * afterwards.
 */
#ifndef TESTS_OUTPUT_STAGE_H
#define TESTS_OUTPUT_STAGE_H

#include "base_check.h"

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <pthread.h>
#include <sys/syscall.h>

#include "base/file.h"

/* --- system calls -------------------------------------------------------------------- */

static char trace[8192];	 /* "fdatasync T/a; fsync T; rename T -> out; ..." */
static long calls, fail_at = -1; /* the number of the call that fails with EIO */
static bool no_flags, no_links, no_fallocate;
static void (*before_rename)(void);

/* The end of a path with the random temporary name written as T. */
static inline void note_path(char *to, size_t room, const char *path)
{
	const char *mark = strstr(path, ".loractl-");
	const char *slash = strrchr(path, '/');

	if (mark != NULL)
		(void)snprintf(to, room, "T%s", mark + strlen(".loractl-") + 6);
	else
		(void)snprintf(to, room, "%s", slash == NULL ? path : slash + 1);
}

/* True if this call is to fail. */
static inline bool note_call(const char *name, const char *what)
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

static inline bool note_fd(const char *name, int fd)
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

static inline void reset_calls(void)
{
	trace[0] = '\0';
	calls = 0;
	fail_at = -1;
	no_flags = no_links = no_fallocate = false;
	before_rename = NULL;
}

static inline int set_up(void **state)
{
	(void)state;
	enter_scratch();
	(void)umask(022);
	reset_calls();
	return 0;
}

static inline int tear_down(void **state)
{
	(void)state;
	reset_calls();
	leave_scratch();
	return 0;
}

static inline void write_file(const char *path, const char *text)
{
	FILE *file = fopen(path, "w");

	assert_non_null(file);
	assert_true(fputs(text, file) >= 0);
	assert_int_equal(fclose(file), 0);
}

static inline void make_directory(const char *path)
{
	assert_int_equal(mkdir(path, 0777), 0);
}

static char *lines[1000];
static size_t line_count;

static inline int list_one(const char *path, const struct stat *info, int type, struct FTW *place)
{
	char kind = S_ISDIR(info->st_mode) ? 'd' : S_ISLNK(info->st_mode) ? 'l' : 'f';

	(void)type;
	if (place->level > 0 && line_count < sizeof lines / sizeof *lines &&
	    asprintf(&lines[line_count], "%c %o %s|", kind, (unsigned)info->st_mode & 07777,
		     path + 2) > 0)
		line_count++;
	return 0;
}

static inline int by_path(const void *a, const void *b)
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
static inline const char *listing(void)
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

static inline void assert_content(const char *path, const char *expected)
{
	struct lora_error err = LORA_ERROR_INIT;
	char *text = NULL;
	size_t size;

	assert_ok(lora__file_slurp(path, 1 << 20, &text, &size, &err));
	assert_string_equal(text, expected);
	free(text);
}

static inline int open_descriptors(void)
{
	int count = 0;

	for (int fd = 0; fd < 256; fd++)
		count += fcntl(fd, F_GETFD) >= 0;
	return count;
}

static inline enum lora_status put(struct lora_output *output, const char *name, const char *text,
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

static inline enum lora_status fill(struct lora_output *output, enum scenario scenario,
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

static inline enum lora_status produce(enum scenario scenario, bool replace, struct lora_error *err)
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

static inline void make_old(enum scenario scenario)
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

static inline void assert_old(enum scenario scenario)
{
	assert_string_equal(listing(), before[scenario]);
	assert_content(scenario == TREE ? "out/old" : "out", "old");
	if (scenario == WITH_COMPANIONS)
		assert_content("out.one", "old one");
}

static inline void assert_new(enum scenario scenario)
{
	assert_string_equal(listing(), made[scenario]);
	if (scenario == TREE)
		assert_content("out/sub/b", "new b");
	else
		assert_content("out", "new");
	if (scenario == WITH_COMPANIONS)
		assert_content("out.one", "one");
}

static inline int remove_one(const char *path, const struct stat *info, int type, struct FTW *place)
{
	(void)info, (void)type;
	return place->level > 0 ? remove(path) : 0;
}

static inline void clear(void)
{
	assert_int_equal(nftw(".", remove_one, 16, FTW_PHYS | FTW_DEPTH), 0);
	assert_string_equal(listing(), "");
}

#define WITH_SCRATCH(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)

#endif
