/* SPDX-License-Identifier: Apache-2.0 */
/* test_policy.c - patterns for names, dates, and comments. */
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>
#include <string.h>
#include <time.h>

#include "trust/trust.h"

static void scope__covers(void **state)
{
	static const struct {
		const char *pattern, *name;
		bool covers;
	} cases[] = {
	    {"*", "", true},
	    {"*", "anything/at all", true},
	    {"", "", true},
	    {"", "a", false},
	    {"a", "a", true},
	    {"a", "ab", false},
	    {"a", "A", false},
	    {"a*", "a", true},
	    {"a*", "ba", false},
	    {"*a", "ba", true},
	    {"*a", "bab", false},
	    {"org/*", "org/x/y", true},
	    {"org/*", "org", false},
	    {"org/*", "organ/x", false},
	    {"a?c", "abc", true},
	    {"a?c", "ac", false},
	    {"a?c", "abbc", false},
	    {"?", "\xc3\xa4", true}, /* one character of two bytes */
	    {"??", "\xc3\xa4", false},
	    {"?b",
	     "\xe2\x82\xac"
	     "b",
	     true},
	    {"*x*y*", "axbyc", true},
	    {"*x*y*", "aybxc", false},
	    {"**", "a", true},
	    {"a**b", "ab", true},
	    {"[ab]", "a", false}, /* no sets: what looks like one stands for itself */
	    {"[ab]", "[ab]", true},
	    {"\\*", "*", false}, /* nor an escape */
	    {"\\*", "\\x", true},
	    {"*.lora", ".lora", true},
	    {"*ab*ab*abc", "ababababab", false},
	    {"*ab*ab*abc", "abababababc", true},
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++)
		if (lora__scope_covers(cases[i].pattern, cases[i].name) != cases[i].covers)
			fail_msg("'%s' and '%s'", cases[i].pattern, cases[i].name);
}

static void scope__takes_no_exponential_time(void **state)
{
	char pattern[401], name[4001];

	(void)state;
	for (size_t i = 0; i < 400; i++)
		pattern[i] = i % 2 ? 'a' : '*';
	pattern[399] = 'b';
	pattern[400] = '\0';
	memset(name, 'a', 4000);
	name[4000] = '\0';
	assert_false(lora__scope_covers(pattern, name));
}

/* Seconds by date(1): date -u -d '...' +%s */
static void time__is_read_and_written(void **state)
{
	static const struct {
		const char *text;
		int64_t seconds;
		const char *again;
	} cases[] = {
	    {"1970-01-01T00:00:00Z", 0, "1970-01-01T00:00:00Z"},
	    {"1970-01-01", 86400, "1970-01-02T00:00:00Z"},
	    {"2000-02-29T12:34:56Z", 951827696, "2000-02-29T12:34:56Z"},
	    {"2027-12-31", 1830297600, "2028-01-01T00:00:00Z"},
	    {"2038-01-19T03:14:08Z", 2147483648, "2038-01-19T03:14:08Z"},
	    {"9998-12-31", 253370764800, "9999-01-01T00:00:00Z"},
	};
	static const char *const bad[] = {"",
					  "2027",
					  "2027-1-01",
					  "2027-00-01",
					  "2027-13-01",
					  "2027-01-00",
					  "2027-01-32",
					  "2027-02-29",
					  "2100-02-29",
					  "2027-04-31",
					  "9999-01-01",
					  "1969-12-31",
					  "2027-01-01 ",
					  " 2027-01-01",
					  "2027-01-01T",
					  "2027-01-01T00:00:00",
					  "2027-01-01T00:00:00z",
					  "2027-01-01T24:00:00Z",
					  "2027-01-01T00:60:00Z",
					  "2027-01-01T00:00:60Z",
					  "2027-01-01T00:00:00Zx",
					  "2027-01-01T00:00:00+00:00",
					  "-027-01-01",
					  "+027-01-01",
					  "2027/01/01"};
	char text[LORA_TIME_TEXT];
	int64_t seconds;

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
		assert_true(lora__time_parse(cases[i].text, &seconds));
		assert_int_equal(seconds, cases[i].seconds);
		lora__time_text(seconds, text);
		assert_string_equal(text, cases[i].again);
	}
	for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++)
		if (lora__time_parse(bad[i], &seconds))
			fail_msg("'%s' was taken for a time", bad[i]);
}

static void comment__is_plain(void **state)
{
	(void)state;
	assert_true(lora__comment_is_plain("", 0, 0));
	assert_true(lora__comment_is_plain("a\tb", 3, 3));
	assert_false(lora__comment_is_plain("a\tb", 3, 2));
	assert_true(lora__comment_is_plain("\xc3\xa4", 2, 10));
	assert_false(lora__comment_is_plain("\xc3", 1, 10));
	assert_false(lora__comment_is_plain("a\nb", 3, 10));
	assert_false(lora__comment_is_plain("a\rb", 3, 10));
	assert_false(lora__comment_is_plain("a\0b", 3, 10));
	assert_false(lora__comment_is_plain("\x7f", 1, 10));
	assert_false(lora__comment_is_plain("\xc2\x9b"
					    "31m",
					    5, 10)); /* CSI in eight bits */
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(scope__covers),
	    cmocka_unit_test(scope__takes_no_exponential_time),
	    cmocka_unit_test(time__is_read_and_written),
	    cmocka_unit_test(comment__is_plain),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
