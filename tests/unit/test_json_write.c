/* SPDX-License-Identifier: Apache-2.0 */
/* base/json_write.c and base/number.c. Documents as Python's json.dumps() writes them, doubles as
 * its repr(). */
#include "base_check.h"

#include <loractl/json.h>
#include <locale.h>
#include <math.h>

#include "base/number.h"
#include "failing_malloc.h"

/* The document so far, finished; then a new writer stands in *w. */
static void assert_text(struct lora_json_writer **w, const char *expected)
{
	struct lora_error err = LORA_ERROR_INIT;
	const char *text = NULL;
	size_t length = 0;

	assert_ok(lora_json_writer_text(*w, &text, &length, &err));
	assert_string_equal(text, expected);
	assert_int_equal(length, strlen(expected));
	lora_json_writer_free(*w);
	*w = lora_json_writer_new(LORA_JSON_COMPACT);
}

/* {"a": [1, "x", {}, []], "b": {"c": [], "d": {"e": None}}} */
static void write_sample(struct lora_json_writer *w)
{
	lora_json_begin_object(w);
	lora_json_key(w, "a");
	lora_json_begin_array(w);
	lora_json_uint(w, 1);
	lora_json_string(w, "x");
	lora_json_begin_object(w);
	lora_json_end_object(w);
	lora_json_begin_array(w);
	lora_json_end_array(w);
	lora_json_end_array(w);
	lora_json_key(w, "b");
	lora_json_begin_object(w);
	lora_json_key(w, "c");
	lora_json_begin_array(w);
	lora_json_end_array(w);
	lora_json_key(w, "d");
	lora_json_begin_object(w);
	lora_json_key(w, "e");
	lora_json_null(w);
	lora_json_end_object(w);
	lora_json_end_object(w);
	lora_json_end_object(w);
}

static void json_write__layout_is_pythons(void **state)
{
	struct lora_json_writer *w = lora_json_writer_new(LORA_JSON_PRETTY);

	(void)state;
	write_sample(w);
	/* json.dumps(x, indent=2) + "\n" */
	assert_text(&w, "{\n  \"a\": [\n    1,\n    \"x\",\n    {},\n    []\n  ],\n"
			"  \"b\": {\n    \"c\": [],\n    \"d\": {\n      \"e\": null\n    }\n"
			"  }\n}\n");
	write_sample(w);
	/* json.dumps(x, separators=(",", ":")) */
	assert_text(&w, "{\"a\":[1,\"x\",{},[]],\"b\":{\"c\":[],\"d\":{\"e\":null}}}");
	lora_json_string(w, "alone");
	assert_text(&w, "\"alone\"");
	lora_json_writer_free(w);
}

static void json_write__asking_twice_gives_the_same(void **state)
{
	struct lora_json_writer *w = lora_json_writer_new(LORA_JSON_PRETTY);
	struct lora_error err = LORA_ERROR_INIT;
	const char *text;
	size_t length;

	(void)state;
	lora_json_bool(w, true);
	assert_ok(lora_json_writer_text(w, &text, &length, &err));
	assert_string_equal(text, "true\n");
	assert_text(&w, "true\n");
	lora_json_writer_free(w);
}

static void json_write__integers(void **state)
{
	struct lora_json_writer *w = lora_json_writer_new(LORA_JSON_COMPACT);

	(void)state;
	lora_json_begin_array(w);
	lora_json_uint(w, UINT64_MAX);
	lora_json_int(w, INT64_MIN);
	lora_json_int(w, -1);
	lora_json_bool(w, false);
	lora_json_end_array(w);
	assert_text(&w, "[18446744073709551615,-9223372036854775808,-1,false]");
	lora_json_writer_free(w);
}

static void json_write__strings(void **state)
{
	static const struct {
		const char *text, *written;
	} cases[] = {
	    {"", "\"\""},
	    {"a\"b\\c/d", "\"a\\\"b\\\\c/d\""},
	    {"\b\f\n\r\t\x01\x1f", "\"\\b\\f\\n\\r\\t\\u0001\\u001f\""},
	    {"gr\xc3\xbc\xc3\x9f \xf0\x9f\x98\x80", "\"gr\xc3\xbc\xc3\x9f \xf0\x9f\x98\x80\""},
	    {"a\xff"
	     "b\xe2\x82",
	     "\"a\xef\xbf\xbd"
	     "b\xef\xbf\xbd\xef\xbf\xbd\""},
	    /* What a terminal would obey: DEL, a C1 control, U+202E, U+E0041. */
	    {"\x7f\xc2\x9b\xe2\x80\xae\xf3\xa0\x81\x81", "\"\\u007f\\u009b\\u202e\\udb40\\udc41\""},
	};
	struct lora_json_writer *w = lora_json_writer_new(LORA_JSON_COMPACT);

	(void)state;
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		lora_json_string(w, cases[i].text);
		assert_text(&w, cases[i].written);
	}
	lora_json_string(w, NULL);
	assert_text(&w, "null");
	lora_json_begin_object(w);
	lora_json_key(w, "\"\n");
	lora_json_string(w, "");
	lora_json_end_object(w);
	assert_text(&w, "{\"\\\"\\n\":\"\"}");
	lora_json_writer_free(w);
}

/* Right column: digits of Python's repr(), which is the shortest that reads back. */
static void json_write__doubles_are_short_and_exact(void **state)
{
	static const struct {
		double value;
		const char *written;
	} cases[] = {
	    {0.1, "0.1"},
	    {1.0 / 3, "0.3333333333333333"},
	    {2.0 / 3, "0.6666666666666666"},
	    {0.1 + 0.2, "0.30000000000000004"},
	    {2e-4, "0.0002"},
	    {1e-5, "1e-05"},
	    {1e22, "1e+22"},
	    {1e23, "1e+23"},
	    {16.0, "16"},
	    {9007199254740992.0, "9007199254740992"},
	    {123456789012345680.0, "1.2345678901234568e+17"},
	    {0x1p-44, "5.684341886080802e-14"},
	    {0x1p-1074, "5e-324"},
	    {0x3p-1074, "1.5e-323"},
	    {3e-310, "3e-310"},
	    {0x1p-1022, "2.2250738585072014e-308"},
	    {0x1.fffffffffffffp1023, "1.7976931348623157e+308"},
	    {-1.5, "-1.5"},
	    {0.0, "0"},
	    {-0.0, "-0.0"},
	    {(double)INFINITY, "null"},
	    {-(double)INFINITY, "null"},
	    {(double)NAN, "null"},
	};
	struct lora_json_writer *w = lora_json_writer_new(LORA_JSON_COMPACT);

	(void)state;
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		double back = 0;

		lora_json_double(w, cases[i].value);
		assert_text(&w, cases[i].written);
		if (isfinite(cases[i].value)) {
			assert_true(lora__double_parse(cases[i].written, &back));
			assert_memory_equal(&back, &cases[i].value, sizeof back);
		}
	}
	lora_json_writer_free(w);
}

static void number__parse_takes_decimal_numbers_only(void **state)
{
	static const char *const wrong[] = {"",	   "x",	  "1x",	   " 1",    "1 ",     "0x10", "inf",
					    "nan", "1,5", "1e400", "1.5.2", "-1e999", "1e"};
	double value = 7;

	(void)state;
	for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++)
		assert_false(lora__double_parse(wrong[i], &value));
	assert_true(value == 7);
	assert_true(lora__double_parse("1e-400", &value));
	assert_true(value == 0);
	/* Half way between 2^53 and 2^53 + 2: to even; and a hair above it. */
	assert_true(lora__double_parse("9007199254740993", &value) && value == 0x1p53);
	assert_true(lora__double_parse("9007199254740993.0000000001", &value) &&
		    value == 0x1p53 + 2);
}

/* Where the decimal point is a comma. Skipped where no such locale is installed. */
static void json_write__locale_changes_nothing(void **state)
{
	static const char *const names[] = {"de_DE.UTF-8", "de_DE.utf8", "fr_FR.UTF-8", "de_DE",
					    "ru_RU.UTF-8"};
	struct lora_json_writer *w;
	bool found = false;
	double value = 0;

	(void)state;
	for (size_t i = 0; i < sizeof names / sizeof *names && !found; i++)
		found = setlocale(LC_ALL, names[i]) != NULL;
	if (!found)
		skip();
	w = lora_json_writer_new(LORA_JSON_COMPACT);
	lora_json_double(w, 1.5);
	assert_text(&w, "1.5");
	assert_true(lora__double_parse("1.5", &value) && value == 1.5);
	assert_string_equal(localeconv()->decimal_point, ","); /* and it is as it was */
	lora_json_writer_free(w);
	(void)setlocale(LC_ALL, "C");
}

static void open_array(struct lora_json_writer *w)
{
	lora_json_begin_array(w);
}

static void two_values(struct lora_json_writer *w)
{
	lora_json_null(w);
	lora_json_null(w);
}

static void wrong_end(struct lora_json_writer *w)
{
	lora_json_begin_array(w);
	lora_json_end_object(w);
}

static void end_too_many(struct lora_json_writer *w)
{
	lora_json_begin_array(w);
	lora_json_end_array(w);
	lora_json_end_array(w);
}

static void value_without_key(struct lora_json_writer *w)
{
	lora_json_begin_object(w);
	lora_json_uint(w, 1);
	lora_json_end_object(w);
}

static void key_without_value(struct lora_json_writer *w)
{
	lora_json_begin_object(w);
	lora_json_key(w, "a");
	lora_json_end_object(w);
}

static void key_after_key(struct lora_json_writer *w)
{
	lora_json_begin_object(w);
	lora_json_key(w, "a");
	lora_json_key(w, "b");
	lora_json_null(w);
	lora_json_end_object(w);
}

static void key_in_array(struct lora_json_writer *w)
{
	lora_json_begin_array(w);
	lora_json_key(w, "a");
	lora_json_end_array(w);
}

static void key_alone(struct lora_json_writer *w)
{
	lora_json_key(w, "a");
}

static void no_key(struct lora_json_writer *w)
{
	lora_json_begin_object(w);
	lora_json_key(w, NULL);
	lora_json_null(w);
	lora_json_end_object(w);
}

static void too_deep(struct lora_json_writer *w)
{
	for (int i = 0; i < 100; i++)
		lora_json_begin_array(w);
	for (int i = 0; i < 100; i++)
		lora_json_end_array(w);
}

static void nothing(struct lora_json_writer *w)
{
	(void)w;
}

static void json_write__misuse_is_remembered(void **state)
{
	static void (*const wrong[])(struct lora_json_writer *) = {
	    open_array,	       two_values,    wrong_end,    end_too_many, value_without_key,
	    key_without_value, key_after_key, key_in_array, key_alone,	  no_key,
	    too_deep,	       nothing,
	};
	struct lora_error err = LORA_ERROR_INIT;

	(void)state;
	for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
		struct lora_json_writer *w = lora_json_writer_new(LORA_JSON_PRETTY);
		const char *text = "";
		size_t length = 1;

		wrong[i](w);
		assert_fails(LORA_USAGE, "JSON", lora_json_writer_text(w, &text, &length, &err));
		assert_null(text);
		assert_int_equal(length, 0);
		lora_json_writer_free(w);
	}
}

static void json_write__null_writers_do_nothing(void **state)
{
	struct lora_error err = LORA_ERROR_INIT;
	struct lora_sha256 digest = {{0}};
	const char *text;
	size_t length;

	(void)state;
	write_sample(NULL);
	lora_json_double(NULL, 1);
	lora_json_int(NULL, 1);
	lora_json_bool(NULL, true);
	lora_json_sha256(NULL, &digest);
	lora_json_writer_free(NULL);
	assert_fails(LORA_SYSTEM, "memory", lora_json_writer_text(NULL, &text, &length, &err));
}

static void json_write__sha256_is_lower_case_hex(void **state)
{
	struct lora_json_writer *w = lora_json_writer_new(LORA_JSON_COMPACT);
	struct lora_sha256 digest;

	(void)state;
	for (unsigned i = 0; i < LORA_SHA256_SIZE; i++)
		digest.byte[i] = (uint8_t)(0xf0 + i); /* wraps */
	lora_json_sha256(w, &digest);
	assert_text(&w, "\"f0f1f2f3f4f5f6f7f8f9fafbfcfdfeff000102030405060708090a0b0c0d0e0f\"");
	lora_json_writer_free(w);
}

static void json_write__every_failing_allocation_is_reported(void **state)
{
	long live = failing_malloc_live(), n = 0;
	struct lora_error err = LORA_ERROR_INIT;
	bool failed = true;

	(void)state;
	if (!FAILING_MALLOC)
		skip();
	for (; failed; n++) {
		struct lora_json_writer *w;
		enum lora_status status;
		const char *text;
		size_t length;

		failing_malloc_begin(n);
		w = lora_json_writer_new(LORA_JSON_PRETTY);
		lora_json_begin_array(w);
		for (int i = 0; i < 500; i++)
			write_sample(w);
		lora_json_end_array(w);
		status = lora_json_writer_text(w, &text, &length, &err);
		failed = failing_malloc_end();
		assert_int_equal(status, failed ? LORA_SYSTEM : LORA_OK);
		lora_json_writer_free(w);
		assert_int_equal(failing_malloc_live(), live);
	}
	assert_true(n > 3);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(json_write__layout_is_pythons),
	    cmocka_unit_test(json_write__asking_twice_gives_the_same),
	    cmocka_unit_test(json_write__integers),
	    cmocka_unit_test(json_write__strings),
	    cmocka_unit_test(json_write__doubles_are_short_and_exact),
	    cmocka_unit_test(number__parse_takes_decimal_numbers_only),
	    cmocka_unit_test(json_write__locale_changes_nothing),
	    cmocka_unit_test(json_write__misuse_is_remembered),
	    cmocka_unit_test(json_write__null_writers_do_nothing),
	    cmocka_unit_test(json_write__sha256_is_lower_case_hex),
	    cmocka_unit_test(json_write__every_failing_allocation_is_reported),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
