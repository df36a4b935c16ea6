/* SPDX-License-Identifier: Apache-2.0 */
/* The same files as test_output.c: whatever fails, nothing new is left and nothing old is lost. */
#include "output_stage.h"

#include <signal.h>
#include <sys/resource.h>

#include "failing_malloc.h"

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

/* The new one is in place, whole, when the old one turns out not to be removable: that is said. */
static void output__what_cannot_be_removed_is_named(void **state)
{
	struct lora_error err = LORA_ERROR_INIT;

	(void)state;
	assert_int_equal(chmod(".", 0777), 0);
	if (getuid() == 0) /* root may remove anything */
		assert_int_equal(seteuid(65534), 0);
	make_directory("out");
	make_directory("out/locked");
	write_file("out/locked/file", "old");
	write_file("out/other", "old");
	assert_int_equal(chmod("out/locked", 0555), 0);
	assert_fails(
	    LORA_SYSTEM,
	    "'out' was replaced, but what it was before cannot be removed: remove '.out.loractl-",
	    produce(TREE, true, &err));
	assert_non_null(strstr(err.message, "Permission denied"));
	assert_content("out/sub/b", "new b");
	assert_int_equal(access("out/locked", F_OK), -1);
	assert_non_null(strstr(listing(), "/locked/file|"));
	assert_null(strstr(listing(), "/other|")); /* the rest of it is gone */
	if (getuid() == 0)
		assert_int_equal(seteuid(0), 0);
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

int main(void)
{
	const struct CMUnitTest tests[] = {
	    WITH_SCRATCH(output__every_failing_call_is_undone),
	    WITH_SCRATCH(output__a_failed_sync_is_final),
	    WITH_SCRATCH(output__what_cannot_be_removed_is_named),
	    WITH_SCRATCH(output__works_without_renameat2),
	    WITH_SCRATCH(output__failures_are_undone_without_renameat2),
	    WITH_SCRATCH(output__a_full_disk_leaves_nothing),
	    WITH_SCRATCH(output__reserved_space_is_there),
	    WITH_SCRATCH(output__without_memory_nothing_is_left),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
