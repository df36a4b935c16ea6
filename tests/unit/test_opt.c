/* SPDX-License-Identifier: Apache-2.0 */
/* test_opt.c - the option parser (src/cli/opt.h, rules 1 to 5) and the suggestions
 * (src/cli/suggest.h) */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "cli/opt.h"
#include "cli/suggest.h"

struct args {
	bool flag, other;
	const char *text, *path;
	uint64_t number, plain;
	double real, bounded;
	int choice, unset;
	struct opt_list list;
};

static const char *const colors[] = {"red", "green", "blue", NULL};

static const struct opt table[] = {
    {.kind = OPT_FLAG, .letter = 'f', .name = "flag", .at = offsetof(struct args, flag)},
    {.kind = OPT_FLAG, .letter = 'g', .name = "other", .at = offsetof(struct args, other)},
    {.kind = OPT_STRING, .letter = 't', .name = "text", .at = offsetof(struct args, text)},
    {.kind = OPT_PATH,
     .letter = 'o',
     .name = "output",
     .metavar = "OUT",
     .at = offsetof(struct args, path),
     .flags = OPT_REQUIRED,
     .unless = "flag"},
    {.kind = OPT_U64,
     .letter = 'n',
     .name = "number",
     .metavar = "N",
     .def = "7",
     .min = 1,
     .max = 10,
     .at = offsetof(struct args, number)},
    {.kind = OPT_U64, .name = "plain", .at = offsetof(struct args, plain)},
    {.kind = OPT_DOUBLE, .name = "real", .at = offsetof(struct args, real)},
    {.kind = OPT_DOUBLE,
     .name = "bounded",
     .low = 0,
     .high = 1,
     .def = "0.25",
     .at = offsetof(struct args, bounded)},
    {.kind = OPT_CHOICE,
     .name = "choice",
     .choices = colors,
     .def = "green",
     .at = offsetof(struct args, choice)},
    {.kind = OPT_CHOICE, .name = "unset", .choices = colors, .at = offsetof(struct args, unset)},
    {.kind = OPT_LIST, .letter = 'l', .name = "list", .at = offsetof(struct args, list)},
    {.name = NULL},
};

#define MAX_WORDS 16

/* One command line, read. */
struct line {
	struct args args;
	struct opt_set set;
	struct opt_scan scan;
	const char *operands[MAX_WORDS];
	struct lora_error err;
	enum lora_status status;
};

/* words end with NULL. */
static void read_line(struct line *line, const char *const *words)
{
	size_t count = 0;

	while (words[count])
		count++;
	*line = (struct line){.err = LORA_ERROR_INIT};
	line->set = (struct opt_set){table, &line->args, 0};
	line->scan = (struct opt_scan){
	    .sets = &line->set,
	    .nset = 1,
	    .argv = (char *const *)words,
	    .argc = count,
	    .operands = line->operands,
	};
	assert_int_equal(opt_init(&line->set, &line->err), LORA_OK);
	line->status = opt_scan(&line->scan, &line->err);
}

#define READ(line, ...) read_line(line, (const char *const[]){__VA_ARGS__, NULL})

static void opt__defaults_come_from_their_text(void **state)
{
	struct line line;

	(void)state;
	read_line(&line, (const char *const[]){NULL});
	assert_int_equal(line.status, LORA_OK);
	assert_int_equal(line.args.number, 7);
	assert_true(line.args.bounded == 0.25);
	assert_int_equal(line.args.choice, 1);
	assert_int_equal(line.args.unset, -1);
	assert_true(isnan(line.args.real));
	assert_null(line.args.path);
	assert_false(line.args.flag);
	assert_int_equal(line.args.list.count, 0);
}

static void opt__a_bad_default_is_found(void **state)
{
	static const struct opt bad[] = {
	    {.kind = OPT_U64,
	     .name = "n",
	     .def = "0",
	     .min = 1,
	     .at = offsetof(struct args, number)},
	    {.name = NULL},
	};
	struct args args = {0};
	struct opt_set set = {bad, &args, 0};
	struct lora_error err = LORA_ERROR_INIT;

	(void)state;
	assert_int_equal(opt_init(&set, &err), LORA_USAGE);
}

static void opt__every_spelling_means_the_same(void **state)
{
	static const char *const spellings[][3] = {
	    {"--output=x=y", NULL}, {"--output", "x=y", NULL}, {"-ox=y", NULL},
	    {"-o", "x=y", NULL},    {"-fox=y", NULL}, /* a flag shares the dash */
	};

	(void)state;
	for (size_t i = 0; i < sizeof(spellings) / sizeof(spellings[0]); i++) {
		struct line line;

		read_line(&line, spellings[i]);
		assert_int_equal(line.status, LORA_OK);
		assert_string_equal(line.args.path, "x=y");
		assert_int_equal(line.args.flag, i == 4);
		assert_int_equal(line.scan.noperand, 0);
	}
}

static void opt__operands_stand_anywhere(void **state)
{
	struct line line;

	(void)state;
	READ(&line, "a", "-f", "b", "--output", "o", "-", "--", "--flag", "-o");
	assert_int_equal(line.status, LORA_OK);
	assert_int_equal(line.scan.noperand, 5);
	assert_string_equal(line.operands[0], "a");
	assert_string_equal(line.operands[1], "b");
	assert_string_equal(line.operands[2], "-");
	assert_string_equal(line.operands[3], "--flag");
	assert_string_equal(line.operands[4], "-o");
	assert_string_equal(line.args.path, "o");
}

static void opt__leading_stops_at_the_first_operand(void **state)
{
	const char *const words[] = {"-f", "--number", "3", "merge", "-g", NULL};
	struct line line;

	(void)state;
	read_line(&line, (const char *const[]){NULL});
	line.scan.argv = (char *const *)words;
	line.scan.argc = 5;
	line.scan.leading = true;
	assert_int_equal(opt_scan(&line.scan, &line.err), LORA_OK);
	assert_int_equal(line.scan.next, 3);
	assert_true(line.args.flag);
	assert_false(line.args.other);
	assert_int_equal(line.args.number, 3);
}

static void opt__a_list_keeps_every_value_in_order(void **state)
{
	struct line line;

	(void)state;
	READ(&line, "-l", "c", "--list=a", "-lb", "--list", "a");
	assert_int_equal(line.status, LORA_OK);
	assert_int_equal(line.args.list.count, 4);
	assert_string_equal(line.args.list.item[0], "c");
	assert_string_equal(line.args.list.item[1], "a");
	assert_string_equal(line.args.list.item[2], "b");
	assert_string_equal(line.args.list.item[3], "a");
	opt_fini(&line.set);
	assert_null(line.args.list.item);
}

/* A line that is refused, and what the message must hold. */
struct refusal {
	const char *words[5];
	const char *message;
};

static void opt__refuses(void **state)
{
	static const struct refusal refusals[] = {
	    /* (3) */
	    {{"--outpu", "x"}, "unknown option '--outpu': did you mean '--output'?"},
	    {{"--out=x"}, "unknown option '--out': did you mean '--output'?"},
	    {{"--=x"}, "unknown option '--': "},
	    {{"-x"}, "unknown option '-x'"},
	    {{"-fx"}, "unknown option '-fx'"},
	    {{"-gext"}, "unknown option '-gext': did you mean '--text'?"},
	    /* (4) */
	    {{"-o", "a", "-o", "b"}, "option '-o' is given twice"},
	    {{"-o", "a", "--output=a"}, "option '--output' is given twice"},
	    {{"-n1", "-n1"}, "option '-n' is given twice"},
	    /* (5) */
	    {{"-o", "-f"}, "option '-o' needs a value, and '-f' is an option"},
	    {{"-o", "--choice=red"}, "option '-o' needs a value, and '--choice=red' is an option"},
	    {{"--output", "--"}, "option '--output' needs a value, and '--' is an option"},
	    {{"--output"}, "option '--output' needs a value: '--output OUT'"},
	    {{"-fo"}, "option '-o' needs a value: '-o OUT'"},
	    {{"--flag=1"}, "option '--flag' takes no value"},
	    {{"--choice", "pink"}, "bad value 'pink': option '--choice': use red, green or blue"},
	    {{"--choice", "re"}, "bad value 're'"},
	    {{"--choice="}, "bad value ''"},
	    {{"-o", ""}, "bad value '': option '-o': give a path"},
	};

	(void)state;
	for (size_t i = 0; i < sizeof(refusals) / sizeof(refusals[0]); i++) {
		struct line line;

		read_line(&line, refusals[i].words);
		assert_int_equal(line.status, LORA_USAGE);
		assert_int_equal(line.err.status, LORA_USAGE);
		if (strncmp(line.err.message, refusals[i].message, strlen(refusals[i].message)) !=
		    0)
			fail_msg("'%s', not '%s'", line.err.message, refusals[i].message);
		assert_null(strchr(line.err.message, '\n'));
	}
}

static void opt__an_attached_value_may_be_anything(void **state)
{
	struct line line;

	(void)state;
	READ(&line, "--output=-f", "--text=", "--real=-1e3");
	assert_int_equal(line.status, LORA_OK);
	assert_string_equal(line.args.path, "-f");
	assert_string_equal(line.args.text, "");
	assert_true(line.args.real == -1000);
	READ(&line, "-o", "-xyz", "--real", "-1");
	assert_int_equal(line.status, LORA_OK);
	assert_string_equal(line.args.path, "-xyz");
	assert_true(line.args.real == -1);
}

static void opt__whole_numbers_are_strict(void **state)
{
	static const char *const bad[] = {"",
					  "-1",
					  "+1",
					  " 1",
					  "1 ",
					  "1x",
					  "0x1",
					  "1.0",
					  "1e3",
					  "0",
					  "11",
					  "18446744073709551617",
					  "99999999999999999999999999"};
	struct line line;

	(void)state;
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		READ(&line, "--number", bad[i]);
		assert_int_equal(line.status, LORA_USAGE);
		assert_non_null(strstr(line.err.message, "use a whole number from 1 to 10"));
	}
	READ(&line, "--number=10", "--plain=18446744073709551615");
	assert_int_equal(line.status, LORA_OK);
	assert_int_equal(line.args.number, 10);
	assert_true(line.args.plain == UINT64_MAX);
	READ(&line, "--plain=18446744073709551616");
	assert_int_equal(line.status, LORA_USAGE);
	READ(&line, "--plain", "007");
	assert_int_equal(line.args.plain, 7);
}

static void opt__decimal_numbers_are_strict(void **state)
{
	static const char *const bad[] = {"",	 ".",  "-",	"+-1", "--1",	"1,5",
					  " 1",	 "1 ", "0x1p3", "inf", "nan",	"1e",
					  "1e+", "e5", ".e1",	"1f",  "1e999", "-1e999"};
	static const struct {
		const char *text;
		double value;
	} good[] = {{"1", 1},	   {".5", .5}, {"5.", 5},     {"-2.5e-3", -2.5e-3},
		    {"+1E2", 100}, {"0", 0},   {"1e-400", 0}, {"0.1", 0.1}};
	struct line line;

	(void)state;
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		char option[64];

		snprintf(option, sizeof(option), "--real=%s", bad[i]);
		READ(&line, option);
		if (line.status != LORA_USAGE)
			fail_msg("'%s' was taken", bad[i]);
	}
	for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++) {
		READ(&line, "--real", good[i].text);
		assert_int_equal(line.status, LORA_OK);
		assert_true(line.args.real == good[i].value);
	}
	READ(&line, "--bounded=1");
	assert_int_equal(line.status, LORA_OK);
	READ(&line, "--bounded=1.0000001");
	assert_int_equal(line.status, LORA_USAGE);
	assert_string_equal(line.err.message,
			    "bad value '1.0000001': option '--bounded': use a number from 0 to 1");
}

static void opt__required_unless(void **state)
{
	struct line line;

	(void)state;
	READ(&line, "a");
	assert_int_equal(opt_check(&line.set, &line.err), LORA_USAGE);
	assert_string_equal(line.err.message, "an option is missing: give '-o OUT'");
	READ(&line, "a", "--flag");
	assert_int_equal(opt_check(&line.set, &line.err), LORA_OK);
	READ(&line, "a", "-oout");
	assert_int_equal(opt_check(&line.set, &line.err), LORA_OK);
	assert_true(opt_given(&line.set, "output"));
	assert_false(opt_given(&line.set, "number")); /* a default is not given */
	assert_false(opt_given(&line.set, "nothing"));
}

static void opt__stop_ends_the_scan(void **state)
{
	static const struct opt stops[] = {
	    {.kind = OPT_FLAG,
	     .letter = 'h',
	     .name = "help",
	     .flags = OPT_STOP,
	     .at = offsetof(struct args, flag)},
	    {.name = NULL},
	};
	const char *const words[] = {"a", "-hx", "--nonsense", NULL};
	struct args args = {0};
	struct opt_set set = {stops, &args, 0};
	const char *operands[MAX_WORDS];
	struct opt_scan scan = {
	    .sets = &set, .nset = 1, .argv = (char *const *)words, .argc = 3, .operands = operands};
	struct lora_error err = LORA_ERROR_INIT;

	(void)state;
	assert_int_equal(opt_scan(&scan, &err), LORA_OK);
	assert_true(args.flag);
	assert_ptr_equal(scan.stop, &stops[0]);
}

static void opt__metavars(void **state)
{
	char buffer[32], small[8];

	(void)state;
	assert_string_equal(opt_metavar(&table[0], buffer, sizeof(buffer)), "");
	assert_string_equal(opt_metavar(&table[2], buffer, sizeof(buffer)), "VALUE");
	assert_string_equal(opt_metavar(&table[3], buffer, sizeof(buffer)), "OUT");
	assert_string_equal(opt_metavar(&table[8], buffer, sizeof(buffer)), "red|green|blue");
	assert_string_equal(opt_metavar(&table[8], small, sizeof(small)), "red|gre");
}

static void opt__long_messages_end_in_dots(void **state)
{
	char text[2 * LORA_ERROR_SIZE];
	struct lora_error err = LORA_ERROR_INIT;

	(void)state;
	memset(text, 'x', sizeof(text) - 1);
	text[sizeof(text) - 1] = '\0';
	assert_int_equal(opt_fail(&err, LORA_INPUT, "%s", text), LORA_INPUT);
	assert_int_equal(strlen(err.message), LORA_ERROR_SIZE - 1);
	assert_string_equal(err.message + LORA_ERROR_SIZE - 4, "...");
}

/* Distances counted by hand: each edit is named. */
static void suggest__distance(void **state)
{
	static const struct {
		const char *a, *b;
		size_t distance;
	} pairs[] = {
	    {"", "", 0},
	    {"", "abc", 3},
	    {"merge", "merge", 0},
	    {"dtpye", "dtype", 1},    /* swap p y */
	    {"mrege", "merge", 1},    /* swap r e */
	    {"kitten", "sitting", 3}, /* k>s, e>i, +g */
	    {"flaw", "lawn", 2},      /* -f, +n */
	    {"ca", "abc", 3},	      /* a swap may not be edited again: -c, +b, +c */
	    {"abcdef", "badcfe", 3},  /* three swaps */
	    {"undo", "redo", 2},      /* u>r, n>e */
	    {"threads", "thread", 1},
	};

	(void)state;
	for (size_t i = 0; i < sizeof(pairs) / sizeof(pairs[0]); i++) {
		assert_int_equal(suggest_distance(pairs[i].a, pairs[i].b), pairs[i].distance);
		assert_int_equal(suggest_distance(pairs[i].b, pairs[i].a), pairs[i].distance);
	}
}

static void suggest__nearest_or_nothing(void **state)
{
	static const char *const words[] = {"inspect", "merge", "help", "unmerge",
					    "allow-unmatched"};
	static const char *const two[] = {"gc"};
	char endless[200];

	(void)state;
	assert_string_equal(suggest("merg", words, 5), "merge");
	assert_null(suggest("mreeg", words, 4)); /* two swaps: too many for five letters */
	assert_string_equal(suggest("unmerg", words, 5), "unmerge");
	assert_string_equal(suggest("insp", words, 5), "inspect"); /* cut short */
	assert_string_equal(suggest("allow", words, 5), "allow-unmatched");
	assert_string_equal(suggest("gd", two, 1), "gc"); /* one edit is always allowed */
	assert_null(suggest("xd", two, 1));
	assert_null(suggest("zzz", words, 5));
	assert_null(suggest("", words, 5));
	assert_null(suggest("in", words, 5)); /* too short to be a prefix of anything */
	assert_null(suggest("merge", words, 0));
	memset(endless, 'a', sizeof(endless) - 1);
	endless[sizeof(endless) - 1] = '\0';
	assert_null(suggest(endless, words, 5));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(opt__defaults_come_from_their_text),
	    cmocka_unit_test(opt__a_bad_default_is_found),
	    cmocka_unit_test(opt__every_spelling_means_the_same),
	    cmocka_unit_test(opt__operands_stand_anywhere),
	    cmocka_unit_test(opt__leading_stops_at_the_first_operand),
	    cmocka_unit_test(opt__a_list_keeps_every_value_in_order),
	    cmocka_unit_test(opt__refuses),
	    cmocka_unit_test(opt__an_attached_value_may_be_anything),
	    cmocka_unit_test(opt__whole_numbers_are_strict),
	    cmocka_unit_test(opt__decimal_numbers_are_strict),
	    cmocka_unit_test(opt__required_unless),
	    cmocka_unit_test(opt__stop_ends_the_scan),
	    cmocka_unit_test(opt__metavars),
	    cmocka_unit_test(opt__long_messages_end_in_dots),
	    cmocka_unit_test(suggest__distance),
	    cmocka_unit_test(suggest__nearest_or_nothing),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
