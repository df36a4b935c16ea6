/* SPDX-License-Identifier: Apache-2.0 */
/* base/output.c, base/output_commit.c, base/place.c, base/remove.c: an output exists whole or not
 * at all. (What happens when something fails: test_output_faults.c.)
 */
#include "output_stage.h"

#include <sched.h>
#include <stdatomic.h>

#include <loractl/cleanup.h>

#include "base/pool.h"

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

/* Files take their turns with a descriptor. */
static void output__at_rest(void **state)
{
	struct lora_error err = LORA_ERROR_INIT;
	struct lora_output *output;
	int a, b, was;

	(void)state;
	assert_ok(lora__output_begin(&output, "out", true, false, &err));
	assert_ok(lora__output_file(output, "a", 4, &a, &err));
	was = a;
	assert_fails(LORA_USAGE, "does not rest", lora__output_wake(output, "a", &b, &err));
	assert_ok(lora__output_rest(output, a, &err));
	assert_true(fcntl(was, F_GETFD) < 0);
	assert_fails(LORA_USAGE, "descriptor -1", lora__output_rest(output, -1, &err));
	assert_ok(lora__output_file(output, "b", 4, &b, &err));
	assert_ok(lora__output_rest(output, b, &err));
	assert_ok(lora__output_wake(output, "b", &b, &err));
	assert_ok(lora__write_at(b, "b", 0, "bbbb", 4, &err));
	assert_ok(lora__output_finish(output, b, &err));
	assert_fails(LORA_USAGE, "does not rest", lora__output_wake(output, "b", &b, &err));
	assert_ok(lora__output_wake(output, "a", &a, &err));
	assert_ok(lora__write_at(a, "a", 0, "aaaa", 4, &err));
	assert_ok(lora__output_commit(output, &err));
	lora__output_free(output);
	assert_int_equal(system("test \"$(cat out/a out/b)\" = aaaabbbb"), 0);
	clear();
	/* One that was never woken has no bytes: that is no output. */
	assert_ok(lora__output_begin(&output, "out", true, false, &err));
	assert_ok(lora__output_file(output, "a", 4, &a, &err));
	assert_ok(lora__output_rest(output, a, &err));
	assert_fails(LORA_USAGE, "'a' of 'out' was never written",
		     lora__output_commit(output, &err));
	lora__output_free(output);
	assert_string_equal(listing(), "");
	assert_ok(lora__output_begin(&output, "out", false, false, &err));
	assert_ok(lora__output_file(output, NULL, 0, &a, &err));
	assert_fails(LORA_USAGE, "none of 'out'", lora__output_rest(output, a, &err));
	lora__output_free(output);
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

/* A directory and its companion: whatever fails, both or neither. */
static void output__a_directory_has_companions_too(void **state)
{
	struct lora_error err = LORA_ERROR_INIT;
	struct lora_output *output;
	int fd;

	(void)state;
	make_directory("dir");
	for (long n = 0; n <= 9; n++) {
		assert_ok(lora__output_begin(&output, "out", true, false, &err));
		assert_ok(lora__output_file(output, "a", 0, &fd, &err));
		assert_ok(lora__output_beside(output, "dir/record", &fd, &err));
		reset_calls();
		fail_at = n;
		if (lora__output_commit(output, &err) != LORA_OK) {
			assert_int_equal(err.status, LORA_SYSTEM);
			assert_string_equal(listing(), "d 755 dir|");
			lora__output_free(output);
			continue;
		}
		assert_int_equal(n, 7);
		assert_string_equal(trace,
				    "fdatasync T/a; fdatasync T; fsync T; rename T -> record; "
				    "fsync dir; rename T -> out; fsync .; ");
		assert_string_equal(listing(), "d 755 dir|f 644 dir/record|d 755 out|f 644 out/a|");
		lora__output_free(output);
		return;
	}
	fail();
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

/* --- temporary names ----------------------------------------------------------------- */

static int guessed; /* so many names are drawn as aaaaaa */

int getentropy(void *bytes, size_t size)
{
	if (guessed == 0)
		return syscall(SYS_getrandom, bytes, size, 0) == (long)size ? 0 : -1;
	guessed--;
	memset(bytes, 0, size);
	return 0;
}

static void output__a_guessed_name_is_not_written_through(void **state)
{
	struct lora_error err = LORA_ERROR_INIT;

	(void)state;
	write_file(".out.loractl-aaaaaa", "somebody's");
	for (enum scenario scenario = ONE_FILE; scenario < SCENARIOS; scenario += TREE) {
		guessed = 1;
		assert_ok(produce(scenario, false, &err));
		assert_int_equal(guessed, 0);
		assert_content(".out.loractl-aaaaaa", "somebody's");
		assert_int_equal(system("rm -rf out*"), 0);
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
	    WITH_SCRATCH(output__at_rest),
	    WITH_SCRATCH(output__everything_is_synced_before_its_name_shows),
	    WITH_SCRATCH(output__companions_elsewhere_are_synced_first),
	    WITH_SCRATCH(output__a_directory_has_companions_too),
	    WITH_SCRATCH(output__what_appeared_meanwhile_stays),
	    WITH_SCRATCH(output__only_what_stood_there_is_replaced),
	    WITH_SCRATCH(output__a_link_is_replaced_not_followed),
	    WITH_SCRATCH(output__a_guessed_name_is_not_written_through),
	    WITH_SCRATCH(output__removal_follows_no_link),
	    WITH_SCRATCH(output__large_trees_are_removed),
	    WITH_SCRATCH(output__cleanup_removes_all_that_is_unfinished),
	    WITH_SCRATCH(output__threads_write_and_one_cleans_up),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
