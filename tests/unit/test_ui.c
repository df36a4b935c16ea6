/* SPDX-License-Identifier: Apache-2.0 */
/* test_ui.c - what reaches the user (src/cli/ui.h): lines, progress, tables, figures, interruption
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "cli/ui.h"

/* A ui whose streams are memory, and whose clock is set by hand. */
struct screen {
	struct ui ui;
	char *out, *err;
	size_t out_size, err_size;
};

static double now;

static double fake_clock(void)
{
	return now;
}

static int open_screen(void **state)
{
	struct screen *screen = calloc(1, sizeof(*screen));

	if (!screen)
		return 1;
	unsetenv("NO_COLOR");
	now = 1000;
	ui_init(&screen->ui, open_memstream(&screen->out, &screen->out_size),
		open_memstream(&screen->err, &screen->err_size));
	screen->ui.command = "merge";
	screen->ui.clock = fake_clock;
	*state = screen;
	return 0;
}

static int close_screen(void **state)
{
	struct screen *screen = *state;

	if (screen->ui.out)
		fclose(screen->ui.out);
	fclose(screen->ui.err);
	ui_fini(&screen->ui);
	free(screen->out);
	free(screen->err);
	free(screen);
	return 0;
}

/* What was written to the stream since the last call; *text is its memory. */
static const char *take(FILE *stream, char *const *text)
{
	static char taken[8192];

	fflush(stream);
	snprintf(taken, sizeof(taken), "%s", *text);
	rewind(stream);
	fflush(stream);
	memset(*text, 0, strlen(*text));
	return taken;
}

static const char *take_err(struct screen *screen)
{
	return take(screen->ui.err, &screen->err);
}

static void ui__an_error_is_one_line(void **state)
{
	struct screen *screen = *state;
	struct lora_error err = {LORA_INPUT, 0, "cannot open 'a\nb\x1b[2J': gone"};

	assert_int_equal(ui_fail(&screen->ui, &err), LORA_INPUT);
	assert_string_equal(take_err(screen), "loractl merge: cannot open 'a\\nb\\x1b[2J': gone\n");
	screen->ui.command = NULL;
	screen->ui.err_color = true;
	assert_int_equal(ui_failf(&screen->ui, LORA_NO, "no %d", 7), LORA_NO);
	assert_string_equal(take_err(screen), "\033[1;31mloractl:\033[0m no 7\n");
}

static void ui__notes_by_level(void **state)
{
	static const struct {
		bool quiet, verbose;
		const char *text;
	} cases[] = {
	    {false, false, "loractl merge: note: i\nloractl merge: warning: w\nloractl merge: p\n"},
	    {true, false, "loractl merge: p\n"},
	    {false, true,
	     "loractl merge: d\nloractl merge: note: i\nloractl merge: warning: w\nloractl merge: "
	     "p\n"},
	};
	struct screen *screen = *state;
	struct lora_observer observer = ui_observer(&screen->ui);

	for (size_t i = 0; i < 3; i++) {
		screen->ui.quiet = cases[i].quiet;
		screen->ui.verbose = cases[i].verbose;
		observer.note(observer.user, LORA_NOTE_DETAIL, "d");
		observer.note(observer.user, LORA_NOTE_INFO, "i");
		ui_note(&screen->ui, LORA_NOTE_WARNING, "%s", "w");
		observer.note(observer.user, LORA_NOTE_PROBLEM, "p");
		assert_string_equal(take_err(screen), cases[i].text);
	}
}

/* One step of progress at a time; the callback's answer. */
static int step_at(struct screen *screen, double time, const char *stage, uint64_t done,
		   uint64_t total)
{
	struct lora_observer observer = ui_observer(&screen->ui);
	struct lora_progress progress = {stage, done, total};

	now = time;
	return observer.progress(observer.user, &progress);
}

#define MIB (UINT64_C(1) << 20)

static void progress__short_work_prints_nothing(void **state)
{
	struct screen *screen = *state;

	for (uint64_t i = 0; i <= 10; i++)
		assert_int_equal(step_at(screen, 1000 + 0.099 * (double)i, "merge", i, 10), 0);
	assert_string_equal(take_err(screen), "");
}

static void progress__short_work_draws_nothing(void **state)
{
	struct screen *screen = *state;

	screen->ui.err_tty = true;
	for (uint64_t i = 0; i <= 10; i++)
		step_at(screen, 1000 + 0.099 * (double)i, i < 5 ? "hash base" : "merge", i, 11);
	assert_string_equal(take_err(screen), "");
}

/* 100 MiB in 10 s. The first second is silent; what it would have said is not caught up with. */
static void progress__plain_lines_at_tenths(void **state)
{
	struct screen *screen = *state;

	for (uint64_t i = 0; i <= 1000; i++)
		step_at(screen, 1000 + 0.01 * (double)i, "hash base", i * MIB / 10, 100 * MIB);
	assert_string_equal(take_err(screen),
			    "loractl merge: hash base: 10 % (10.0 MiB of 100 MiB, 10.0 MiB/s)\n"
			    "loractl merge: hash base: 20 % (20.0 MiB of 100 MiB, 10.0 MiB/s)\n"
			    "loractl merge: hash base: 30 % (30.0 MiB of 100 MiB, 10.0 MiB/s)\n"
			    "loractl merge: hash base: 40 % (40.0 MiB of 100 MiB, 10.0 MiB/s)\n"
			    "loractl merge: hash base: 50 % (50.0 MiB of 100 MiB, 10.0 MiB/s)\n"
			    "loractl merge: hash base: 60 % (60.0 MiB of 100 MiB, 10.0 MiB/s)\n"
			    "loractl merge: hash base: 70 % (70.0 MiB of 100 MiB, 10.0 MiB/s)\n"
			    "loractl merge: hash base: 80 % (80.0 MiB of 100 MiB, 10.0 MiB/s)\n"
			    "loractl merge: hash base: 90 % (90.0 MiB of 100 MiB, 10.0 MiB/s)\n"
			    "loractl merge: hash base: 100 % (100 MiB of 100 MiB, 10.0 MiB/s)\n");
	/* another stage, which is fast at first: 60 % are reached before its second is over */
	step_at(screen, 1010, "merge", 0, 10 * MIB);
	step_at(screen, 1010.9, "merge", 6 * MIB, 10 * MIB);
	step_at(screen, 1012, "merge", 7 * MIB, 10 * MIB);
	assert_string_equal(take_err(screen),
			    "loractl merge: merge: 70 % (7.00 MiB of 10.0 MiB, 3.50 MiB/s)\n");
}

static void progress__quiet_is_silent(void **state)
{
	struct screen *screen = *state;

	screen->ui.quiet = true;
	for (int tty = 0; tty < 2; tty++) {
		screen->ui.err_tty = tty;
		for (uint64_t i = 0; i <= 10; i++)
			step_at(screen, 1000 + (double)i, "merge", i, 10);
		assert_string_equal(take_err(screen), "");
	}
}

/* A memory stream has no window: 80 columns, of which the last stays free, the stage takes 5,
 * brackets and space 3, the figures 50. 40 % of the 21 that are left are 8. */
static void progress__bar_on_a_terminal(void **state)
{
	struct screen *screen = *state;

	screen->ui.err_tty = true;
	step_at(screen, 1000, "merge", 0, 100 * MIB);
	step_at(screen, 1000.99, "merge", 39 * MIB, 100 * MIB);
	assert_string_equal(take_err(screen), "");
	step_at(screen, 1004, "merge", 40 * MIB, 100 * MIB);
	assert_string_equal(take_err(screen),
			    "\rmerge [########-------------]  40 %  40.0 MiB of 100 MiB"
			    "  10.0 MiB/s  0:06 left\033[K");
	step_at(screen, 1004.05, "merge", 41 * MIB, 100 * MIB); /* too soon to be drawn */
	assert_string_equal(take_err(screen), "");
	ui_note(&screen->ui, LORA_NOTE_INFO, "x");
	assert_string_equal(take_err(screen), "\r\033[Kloractl merge: note: x\n");
	step_at(screen, 1005, "merge", 50 * MIB, 100 * MIB);
	(void)take_err(screen);
	step_at(screen, 1010, "merge", 100 * MIB,
		100 * MIB); /* finished: the line is empty again */
	assert_string_equal(take_err(screen), "\r\033[K");
	step_at(screen, 1011, "count", 3 * MIB, 0); /* no end is known */
	assert_string_equal(take_err(screen), "\rcount  3.00 MiB\033[K");
	(void)ui_out(&screen->ui);
	assert_string_equal(take_err(screen), "\r\033[K");
	(void)ui_out(&screen->ui);
	assert_string_equal(take_err(screen), "");
}

static void text__sizes(void **state)
{
	static const struct {
		uint64_t bytes;
		const char *text;
	} cases[] = {
	    {0, "0 B"},
	    {1023, "1023 B"},
	    {1024, "1.00 KiB"},
	    {1536, "1.50 KiB"},
	    {10 * 1024, "10.0 KiB"},
	    {100 * 1024, "100 KiB"},
	    {1048575, "1.00 MiB"}, /* 1023.999 KiB would read 1024 KiB */
	    {1047552, "1023 KiB"},
	    {UINT64_C(13421772800), "12.5 GiB"},
	    {UINT64_MAX, "16.0 EiB"},
	};
	char buffer[UI_TEXT];

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
		assert_string_equal(ui_size(cases[i].bytes, buffer), cases[i].text);
	assert_string_equal(ui_seconds(0, buffer), "0:00");
	assert_string_equal(ui_seconds(7.4, buffer), "0:07");
	assert_string_equal(ui_seconds(59.6, buffer), "1:00");
	assert_string_equal(ui_seconds(3723, buffer), "1:02:03");
	assert_string_equal(ui_seconds(-1, buffer), "0:00");
	assert_string_equal(ui_count(0, buffer), "0");
	assert_string_equal(ui_count(999, buffer), "999");
	assert_string_equal(ui_count(1000, buffer), "1,000");
	assert_string_equal(ui_count(UINT64_C(6738415616), buffer), "6,738,415,616");
	assert_string_equal(ui_count(UINT64_MAX, buffer), "18,446,744,073,709,551,615");
}

static void text__escapes_what_a_terminal_obeys(void **state)
{
	static const struct {
		const char *text, *safe;
	} cases[] = {
	    {"model.layers.0", "model.layers.0"},
	    {"Gr\xc3\xb6\xc3\x9f"
	     "e \xe6\xa8\xa1\xe5\x9e\x8b \xf0\x9f\x99\x82",
	     "Gr\xc3\xb6\xc3\x9f"
	     "e \xe6\xa8\xa1\xe5\x9e\x8b \xf0\x9f\x99\x82"},
	    {"a\nb\tc\rd", "a\\nb\\tc\\x0dd"},
	    {"\x1b[31m\x7f", "\\x1b[31m\\x7f"},
	    {"\xc2\x9b", "\\u{9b}"},	   /* CSI in one character */
	    {"\xe2\x80\xae", "\\u{202e}"}, /* right-to-left override */
	    {"\xe2\x81\xa6", "\\u{2066}"}, /* isolate */
	    {"\xef\xbb\xbf", "\\u{feff}"},
	    {"\xff\xc0\xaf", "\\xff\\xc0\\xaf"}, /* never valid; overlong */
	    {"\xe0\x80\xaf\xf0\x80\x80\xaf", "\\xe0\\x80\\xaf\\xf0\\x80\\x80\\xaf"}, /* overlong */
	    {"\xed\xa0\x80", "\\xed\\xa0\\x80"},				     /* surrogate */
	    {"\xf4\x90\x80\x80", "\\xf4\\x90\\x80\\x80"}, /* beyond U+10FFFF */
	    {"x\xe2\x80", "x\\xe2\\x80"},		  /* cut short */
	    {"a\\nb", "a\\nb"},				  /* escaped before */
	};
	char buffer[64], small[6];

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		assert_string_equal(ui_escape(cases[i].text, buffer, sizeof(buffer)),
				    cases[i].safe);
		assert_true(strlen(buffer) <= UI_ESCAPE_GROWTH * strlen(cases[i].text));
	}
	assert_string_equal(ui_escape("abcd\nx", small, sizeof(small)),
			    "abcd"); /* no half escape */
}

static void text__width_and_middle_cut(void **state)
{
	char buffer[64];

	(void)state;
	assert_int_equal(ui_width(""), 0);
	assert_int_equal(ui_width("abc"), 3);
	assert_int_equal(ui_width("\xc3\xb6"), 1);
	assert_int_equal(ui_width("\xe6\xa8\xa1"), 2); /* a wide character */
	assert_int_equal(ui_width("e\xcc\x81"), 1);    /* a combining accent */
	assert_string_equal(ui_shorten("abcdef", 6, buffer, sizeof(buffer)), "abcdef");
	assert_string_equal(ui_shorten("abcdefg", 6, buffer, sizeof(buffer)), "ab...g");
	assert_string_equal(ui_shorten("abcdefgh", 7, buffer, sizeof(buffer)), "ab...gh");
	/* columns, not bytes, and never half a character: 5 wide ones in 8 columns leave room for 3
	 * + 2 */
	assert_string_equal(
	    ui_shorten("\xe6\xa8\xa1\xe6\xa8\xa1\xe6\xa8\xa1\xe6\xa8\xa1\xe6\xa8\xa1", 8, buffer,
		       sizeof(buffer)),
	    "\xe6\xa8\xa1...\xe6\xa8\xa1");
}

static void table__aligns(void **state)
{
	static const struct ui_column columns[] = {
	    {"name", UI_LEFT, true},
	    {"rank", UI_RIGHT, false},
	    {"from", UI_LEFT, false},
	};
	struct screen *screen = *state;
	struct ui_table *table = ui_table_new(columns, 3);
	struct lora_error err = LORA_ERROR_INIT;
	char name[201];

	ui_table_cell(table, "q_%s", "proj");
	ui_table_cell(table, "%d", 16);
	ui_table_cell(table, "alpha/r");
	ui_table_cell(table, "x\n");
	ui_table_cell(table, "%d", 100000);
	ui_table_cell(table, "y");
	assert_int_equal(ui_table_print(table, &screen->ui, &err), LORA_OK);
	assert_string_equal(take(screen->ui.out, &screen->out), "name      rank  from\n"
								"q_proj      16  alpha/r\n"
								"x\\n     100000  y\n");
	ui_table_free(table);

	/* cut only on a terminal: 80 columns here, of which 2 + 4 + 2 + 4 are the others' */
	memset(name, 'a', 100);
	memset(name + 100, 'z', 100);
	name[200] = '\0';
	for (int tty = 0; tty < 2; tty++) {
		const char *text;

		screen->ui.out_tty = tty;
		table = ui_table_new(columns, 3);
		ui_table_cell(table, "%s", name);
		ui_table_cell(table, "1");
		ui_table_cell(table, "f");
		assert_int_equal(ui_table_print(table, &screen->ui, &err), LORA_OK);
		text = take(screen->ui.out, &screen->out);
		assert_int_equal(strstr(text, "a...z") != NULL, tty);
		assert_int_equal(strstr(text, name) != NULL, !tty);
		assert_int_equal(strcspn(strchr(text, '\n') + 1, "\n"), tty ? 77 : 209);
		ui_table_free(table);
	}
	assert_int_equal(ui_table_print(NULL, &screen->ui, &err), LORA_SYSTEM);
}

/* In a child: `count` signals, then progress until it says stop; the exit status. */
static int interrupted_child(int number, int count)
{
	pid_t child = fork();
	int status = 0;

	assert_true(child >= 0);
	if (child == 0) {
		struct lora_progress progress = {"merge", 1, 2};
		struct ui ui;

		alarm(20);
		ui_init(&ui, stdout, stderr);
		ui.quiet = true;
		ui_signals_start();
		if (ui_interrupted() || ui_progress_step(&ui, &progress) != 0)
			_exit(99);
		for (int i = 0; i < count; i++) {
			kill(getpid(), number);
			while (!ui_interrupted())
				usleep(1000);
		}
		if (count == 2)
			for (;;) /* work that never looks up */
				usleep(1000);
		_exit(ui_progress_step(&ui, &progress) ? 42 : 98);
	}
	assert_int_equal(waitpid(child, &status, 0), child);
	assert_true(WIFEXITED(status));
	return WEXITSTATUS(status);
}

static void signal__the_first_cancels_the_second_ends(void **state)
{
	(void)state;
	assert_int_equal(interrupted_child(SIGINT, 1), 42);
	assert_int_equal(interrupted_child(SIGTERM, 1), 42);
	assert_int_equal(interrupted_child(SIGHUP, 1), 42);
	assert_int_equal(interrupted_child(SIGINT, 2), LORA_CANCELLED);
	assert_int_equal(interrupted_child(SIGTERM, 2), LORA_CANCELLED);
}

/* As in a background job of a shell script. */
static void signal__an_ignored_interrupt_is_taken_all_the_same(void **state)
{
	void (*before)(int) = signal(SIGINT, SIG_IGN);

	(void)state;
	assert_int_equal(interrupted_child(SIGINT, 1), 42);
	signal(SIGINT, before);
}

static void ui__finish_keeps_the_status(void **state)
{
	static const enum lora_status statuses[] = {LORA_OK, LORA_NO, LORA_INPUT};
	static const enum lora_status on_full[] = {LORA_SYSTEM, LORA_SYSTEM, LORA_INPUT};
	struct screen *screen = *state;

	fclose(screen->ui.out);
	for (size_t i = 0; i < 3; i++) {
		screen->ui.out = fopen("/dev/null", "w");
		fputs("text", screen->ui.out);
		assert_int_equal(ui_finish(&screen->ui, statuses[i]), statuses[i]);
		assert_string_equal(take_err(screen), "");
		screen->ui.out = fopen("/dev/full", "w");
		fputs("text", screen->ui.out);
		assert_int_equal(ui_finish(&screen->ui, statuses[i]), on_full[i]);
		assert_int_equal(strlen(take_err(screen)) > 0,
				 i < 2); /* a failure was told before */
	}
	screen->ui.out = NULL;
}

/* A large text goes to the descriptor past the buffer. When that fails, flushing the empty buffer
 * succeeds at the end and errno says nothing: only the stream's mark is left. */
static void ui__finish_sees_an_early_failure(void **state)
{
	static char large[1 << 20];
	struct screen *screen = *state;
	int ends[2];

	signal(SIGPIPE, SIG_IGN);
	memset(large, 'x', sizeof(large));
	fclose(screen->ui.out);
	screen->ui.out = fopen("/dev/full", "w");
	assert_true(fwrite(large, 1, sizeof(large), screen->ui.out) < sizeof(large));
	assert_int_equal(ui_finish(&screen->ui, LORA_OK), LORA_SYSTEM);
	(void)take_err(screen);

	assert_int_equal(pipe(ends), 0);
	close(ends[0]);
	screen->ui.out = fdopen(ends[1], "w");
	assert_true(fwrite(large, 1, sizeof(large), screen->ui.out) < sizeof(large));
	assert_int_equal(ui_finish(&screen->ui, LORA_NO), LORA_NO); /* the reader had enough */
	assert_string_equal(take_err(screen), "");
	screen->ui.out = NULL;
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, open_screen, close_screen)

int main(void)
{
	const struct CMUnitTest tests[] = {
	    TEST(ui__an_error_is_one_line),
	    TEST(ui__notes_by_level),
	    TEST(ui__finish_keeps_the_status),
	    TEST(ui__finish_sees_an_early_failure),
	    TEST(progress__short_work_prints_nothing),
	    TEST(progress__short_work_draws_nothing),
	    TEST(progress__plain_lines_at_tenths),
	    TEST(progress__quiet_is_silent),
	    TEST(progress__bar_on_a_terminal),
	    TEST(table__aligns),
	    cmocka_unit_test(text__sizes),
	    cmocka_unit_test(text__escapes_what_a_terminal_obeys),
	    cmocka_unit_test(text__width_and_middle_cut),
	    cmocka_unit_test(signal__the_first_cancels_the_second_ends),
	    cmocka_unit_test(signal__an_ignored_interrupt_is_taken_all_the_same),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
