/* SPDX-License-Identifier: Apache-2.0 */
/* base/watch.c */
#include "base_check.h"

#include "base/watch.h"
#include "base/pool.h"

struct listener {
	/* Plain, not atomic: calls must not overlap, and ThreadSanitizer sees it if they do. */
	uint64_t last, calls, total;
	bool backwards;
	uint64_t cancel_at;
	char line[8192];
	enum lora_note_level level;
};

static int progress(void *user, const struct lora_progress *step)
{
	struct listener *listener = user;

	assert_string_equal(step->stage, "merge");
	listener->backwards |= step->done < listener->last;
	listener->last = step->done;
	listener->total = step->total;
	listener->calls++;
	return step->done >= listener->cancel_at;
}

static void note(void *user, enum lora_note_level level, const char *line)
{
	struct listener *listener = user;

	listener->level = level;
	(void)snprintf(listener->line, sizeof listener->line, "%s", line);
}

static void watch__notes_are_formatted(void **state)
{
	struct listener listener = {.level = LORA_NOTE_DETAIL};
	struct lora_observer observer = {&listener, note, NULL}, deaf = {0};
	char text[6000];

	(void)state;
	lora__note(&observer, LORA_NOTE_WARNING, "%s has %d", "x", 3);
	assert_string_equal(listener.line, "x has 3");
	assert_int_equal(listener.level, LORA_NOTE_WARNING);
	lora__note(NULL, LORA_NOTE_WARNING, "x");
	lora__note(&deaf, LORA_NOTE_WARNING, "x");
	memset(text, 'a', sizeof text - 1);
	text[sizeof text - 1] = '\0';
	lora__note(&observer, LORA_NOTE_INFO, "%s", text);
	assert_int_equal(strlen(listener.line), 4095);
	assert_string_equal(listener.line + 4091, "a...");
}

static void watch__beginning_steps_and_end_are_reported(void **state)
{
	struct listener listener = {.cancel_at = UINT64_MAX};
	struct lora_observer observer = {&listener, NULL, progress};
	struct lora_error err = LORA_ERROR_INIT;
	struct lora_watch watch;

	(void)state;
	lora__watch_init(&watch, &observer, "merge", 1000000);
	assert_int_equal(listener.calls, 1);
	assert_int_equal(listener.last, 0);
	assert_int_equal(listener.total, 1000000);
	for (int i = 0; i < 100000; i++)
		assert_ok(lora__watch_add(&watch, 10, &err));
	assert_int_equal(listener.last, 1000000);
	assert_int_equal(listener.calls, 1001); /* 0, and each thousandth */
	assert_false(listener.backwards);
	lora__watch_fini(&watch);

	/* The end is reported though it lies within a step. */
	lora__watch_init(&watch, &observer, "merge", 10999);
	assert_ok(lora__watch_add(&watch, 10995, &err));
	listener.calls = 0;
	assert_ok(lora__watch_add(&watch, 3, &err));
	assert_int_equal(listener.calls, 0);
	assert_ok(lora__watch_add(&watch, 1, &err));
	assert_int_equal(listener.calls, 1);
	assert_int_equal(listener.last, 10999);
	lora__watch_fini(&watch);
}

static void watch__odd_totals(void **state)
{
	static const uint64_t totals[] = {0, 1, 3, 999, 1001, UINT64_MAX};
	struct lora_error err = LORA_ERROR_INIT;

	(void)state;
	for (size_t i = 0; i < sizeof totals / sizeof *totals; i++) {
		struct listener listener = {.cancel_at = UINT64_MAX};
		struct lora_observer observer = {&listener, NULL, progress};
		struct lora_watch watch;

		lora__watch_init(&watch, &observer, "merge", totals[i]);
		for (uint64_t done = 0; done < totals[i] && done < 2000; done++)
			assert_ok(lora__watch_add(&watch, 1, &err));
		if (totals[i] < 2000)
			assert_int_equal(listener.last, totals[i]);
		assert_true(listener.calls <= 1002);
		/* More than was announced is no harm. */
		assert_ok(lora__watch_add(&watch, 100, &err));
		lora__watch_fini(&watch);
	}
}

static void watch__nobody_has_to_listen(void **state)
{
	struct lora_error err = LORA_ERROR_INIT;
	struct lora_observer deaf = {0};
	struct lora_watch watch;

	(void)state;
	lora__watch_init(&watch, NULL, "merge", 10);
	assert_ok(lora__watch_add(&watch, 10, &err));
	lora__watch_fini(&watch);
	lora__watch_init(&watch, &deaf, "merge", 10);
	assert_ok(lora__watch_add(&watch, 10, &err));
	lora__watch_fini(&watch);
}

static void watch__cancelling_lasts(void **state)
{
	struct listener listener = {.cancel_at = 500};
	struct lora_observer observer = {&listener, NULL, progress};
	struct lora_watch watch;
	struct lora_error err = LORA_ERROR_INIT;

	(void)state;
	lora__watch_init(&watch, &observer, "merge", 1000);
	assert_ok(lora__watch_add(&watch, 499, &err));
	assert_fails(LORA_CANCELLED, "interrupted", lora__watch_add(&watch, 1, &err));
	listener.calls = 0;
	for (int i = 0; i < 10; i++)
		assert_int_equal(lora__watch_add(&watch, 100, NULL), LORA_CANCELLED);
	assert_int_equal(listener.calls, 0);
	lora__watch_fini(&watch);
	/* Even before anything was done. */
	listener.cancel_at = 0;
	lora__watch_init(&watch, &observer, "merge", 1000);
	assert_int_equal(lora__watch_add(&watch, 1, NULL), LORA_CANCELLED);
	lora__watch_fini(&watch);
}

static enum lora_status add_some(void *user, size_t item, unsigned worker, struct lora_error *err)
{
	enum lora_status status = LORA_OK;

	(void)item;
	(void)worker;
	for (int i = 0; i < 100 && status == LORA_OK; i++)
		status = lora__watch_add(user, 1, err);
	return status;
}

static void watch__threads_lose_nothing(void **state)
{
	struct lora_error err = LORA_ERROR_INIT;

	(void)state;
	for (uint64_t cancel_at = 30000; cancel_at < 300000; cancel_at += 200000) {
		struct listener listener = {.cancel_at = cancel_at};
		struct lora_observer observer = {&listener, NULL, progress};
		struct lora_watch watch;
		enum lora_status status;

		lora__watch_init(&watch, &observer, "merge", 100000);
		status = lora__parallel(4, 1000, add_some, &watch, &err);
		assert_int_equal(status, cancel_at < 100000 ? LORA_CANCELLED : LORA_OK);
		assert_false(listener.backwards);
		assert_true(listener.calls <= 1001);
		if (cancel_at > 100000)
			assert_int_equal(listener.last, 100000);
		else
			assert_true(listener.last >= cancel_at && listener.last < 40000);
		lora__watch_fini(&watch);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(watch__notes_are_formatted),
	    cmocka_unit_test(watch__beginning_steps_and_end_are_reported),
	    cmocka_unit_test(watch__odd_totals),
	    cmocka_unit_test(watch__nobody_has_to_listen),
	    cmocka_unit_test(watch__cancelling_lasts),
	    cmocka_unit_test(watch__threads_lose_nothing),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
