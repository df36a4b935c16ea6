/* SPDX-License-Identifier: Apache-2.0 */
/* base/json.c, base/json_scan.c, base/json_canonical.c: what RFC 8259 says, and our limits. */
#include "base_check.h"

#include "base/json.h"
#include "failing_malloc.h"

static struct lora_json *parse(const char *text)
{
	struct lora_error err = LORA_ERROR_INIT;
	struct lora_json *json = NULL;

	assert_ok(lora__json_parse(&json, text, strlen(text), &err));
	assert_non_null(json);
	return json;
}

static void json__tree(void **state)
{
	static const enum lora_json_type types[] = {
	    LORA_JSON_NULL,   LORA_JSON_FALSE, LORA_JSON_TRUE,	LORA_JSON_NUMBER,
	    LORA_JSON_STRING, LORA_JSON_ARRAY, LORA_JSON_OBJECT};
	struct lora_json *root =
	    parse(" {\"a\" : [null, false, true, 1, \"n1\", [ ], { }],\r\n\t\"b\":{\"c\":\"d\"}} ");
	const struct lora_json *a = lora__json_get(root, "a"), *item = lora__json_first(a);
	const struct lora_json *b = lora__json_next(a);

	(void)state;
	assert_int_equal(lora__json_type(root), LORA_JSON_OBJECT);
	assert_int_equal(lora__json_count(root), 2);
	assert_ptr_equal(lora__json_first(root), a);
	assert_string_equal(lora__json_key(a), "a");
	assert_int_equal(lora__json_count(a), 7);
	for (size_t i = 0; i < 7; i++, item = lora__json_next(item)) {
		assert_int_equal(lora__json_type(item), types[i]);
		assert_null(lora__json_key(item));
	}
	assert_null(item);
	assert_string_equal(lora__json_key(b), "b");
	assert_string_equal(lora__json_string(lora__json_get(b, "c")), "d");
	assert_null(lora__json_next(b));
	assert_null(lora__json_get(b, "C"));
	assert_null(lora__json_get(b, "sc")); /* nothing of how it is kept shows */
	assert_null(lora__json_get(a, "a"));
	lora__json_free(root);
}

static void json__null_is_harmless(void **state)
{
	uint64_t u;
	double d;
	bool b;

	(void)state;
	assert_int_equal(lora__json_type(NULL), LORA_JSON_NULL);
	assert_null(lora__json_get(NULL, "a"));
	assert_null(lora__json_first(NULL));
	assert_null(lora__json_next(NULL));
	assert_null(lora__json_key(NULL));
	assert_null(lora__json_string(NULL));
	assert_int_equal(lora__json_count(NULL), 0);
	assert_false(lora__json_u64(NULL, &u));
	assert_false(lora__json_double(NULL, &d));
	assert_false(lora__json_bool(NULL, &b));
	assert_true(lora__json_is_empty(NULL));
	lora__json_free(NULL);
}

static void json__u64_is_exact_and_strict(void **state)
{
	static const struct {
		const char *text;
		bool good;
		uint64_t value;
	} cases[] = {
	    {"0", true, 0},
	    {"16", true, 16},
	    {"9007199254740993", true, 9007199254740993u}, /* 2^53 + 1: no double */
	    {"18446744073709551615", true, UINT64_MAX},
	    {"18446744073709551616", false, 0},
	    {"18446744073709551620", false, 0},
	    {"99999999999999999999999", false, 0},
	    {"-1", false, 0},
	    {"-0", false, 0},
	    {"16.0", false, 0},
	    {"1e3", false, 0},
	    {"\"16\"", false, 0},
	    {"true", false, 0},
	};

	(void)state;
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		struct lora_json *json = parse(cases[i].text);
		uint64_t value = 12345;

		assert_int_equal(lora__json_u64(json, &value), cases[i].good);
		assert_true(value == (cases[i].good ? cases[i].value : 12345));
		lora__json_free(json);
	}
}

static void json__double_and_bool(void **state)
{
	struct lora_json *json =
	    parse("[0.1, 1E5, -2.5e-1, 1e999, \"1\", true, false, 0, 18446744073709551615]");
	const struct lora_json *item = lora__json_first(json);
	double value = 7;
	bool flag = true;

	(void)state;
	assert_true(lora__json_double(item, &value) && value == 0.1);
	item = lora__json_next(item);
	assert_true(lora__json_double(item, &value) && value == 100000);
	item = lora__json_next(item);
	assert_true(lora__json_double(item, &value) && value == -0.25);
	item = lora__json_next(item);
	assert_false(lora__json_double(item, &value)); /* no finite double */
	item = lora__json_next(item);
	assert_false(lora__json_double(item, &value));
	item = lora__json_next(item);
	assert_false(lora__json_double(item, &value));
	assert_true(value == -0.25);
	assert_true(lora__json_bool(item, &flag) && flag);
	item = lora__json_next(item);
	assert_true(lora__json_bool(item, &flag) && !flag);
	item = lora__json_next(item);
	assert_false(lora__json_bool(item, &flag));
	item = lora__json_next(item);
	assert_true(lora__json_double(item, &value) && value == 0x1p64);
	lora__json_free(json);
}

static void json__is_empty(void **state)
{
	static const char *const empty[] = {"null", "false", "\"\"", "[]", "{}"};
	static const char *const full[] = {"true", "\" \"", "[0]", "{\"\":0}",
					   "0",	   "-0.0",  "-1",  "1e-999"};

	(void)state;
	for (size_t i = 0; i < sizeof empty / sizeof *empty; i++) {
		struct lora_json *json = parse(empty[i]);

		assert_true(lora__json_is_empty(json));
		lora__json_free(json);
	}
	for (size_t i = 0; i < sizeof full / sizeof *full; i++) {
		struct lora_json *json = parse(full[i]);

		assert_false(lora__json_is_empty(json));
		lora__json_free(json);
	}
}

static void json__strings_are_unescaped(void **state)
{
	static const struct {
		const char *text, *value;
	} cases[] = {
	    {"\"\"", ""},
	    {"\"\\\"\\\\\\/\\b\\f\\n\\r\\t\"", "\"\\/\b\f\n\r\t"},
	    {"\"\\u0041\\u00fc\\u20ac\\uD83D\\uDE00\"", "A\xc3\xbc\xe2\x82\xac\xf0\x9f\x98\x80"},
	    {"\"\xc3\xbc\xe2\x82\xac\xf0\x9f\x98\x80\"", "\xc3\xbc\xe2\x82\xac\xf0\x9f\x98\x80"},
	    {"\"\\u0001\x7f\"", "\x01\x7f"},
	    {"\"[1, 2] {\\\"a\\\": -3.5}\"", "[1, 2] {\"a\": -3.5}"},
	};

	(void)state;
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		struct lora_json *json = parse(cases[i].text);

		assert_string_equal(lora__json_string(json), cases[i].value);
		lora__json_free(json);
	}
}

/* Each with the place and the reason that are to be named. Columns count bytes from 1. */
static void json__malformed_text_is_refused_with_its_place(void **state)
{
	static const struct {
		const char *text, *message;
	} cases[] = {
	    {"", "ends too early, at line 1, column 1"},
	    {"   ", "ends too early, at line 1, column 4"},
	    {"[1,\n 2,\n  x]", "expected a value at line 3, column 3"},
	    {"nul", "expected a value at line 1, column 1"},
	    {"nulL", "expected a value at line 1, column 1"},
	    {"True", "expected a value"},
	    {"1 2", "expected the end at line 1, column 3"},
	    {"{} x", "expected the end"},
	    {"[1,]", "expected a value at line 1, column 4"},
	    {"[,1]", "expected a value"},
	    {"[1 2]", "expected ',' or ']'"},
	    {"[1}", "expected ',' or ']'"},
	    {"[", "ends too early"},
	    {"[1,", "ends too early"},
	    {"{", "ends too early"},
	    {"{\"a\"", "ends too early"},
	    {"{\"a\":", "ends too early"},
	    {"{\"a\":1", "ends too early"},
	    {"{\"a\":1,}", "expected a key"},
	    {"{a:1}", "expected a key"},
	    {"{'a':1}", "expected a key"},
	    {"{1:1}", "expected a key"},
	    {"{\"a\" 1}", "expected ':'"},
	    {"{\"a\":1]", "expected ',' or '}'"},
	    {"{\"a\":1 \"b\":2}", "expected ',' or '}'"},
	    {"\"abc", "ends too early"},
	    {"\"a\nb\"", "control character in a string at line 1, column 3"},
	    {"\"\\x41\"", "unknown escape"},
	    {"\"\\u12g4\"", "four hexadecimal digits"},
	    {"\"\\u0000\"", "\\u0000"},
	    {"\"\\ud800\"", "half of a surrogate pair"},
	    {"\"\\ud800\\u0041\"", "half of a surrogate pair"},
	    {"\"\\ud800\\ud800\"", "half of a surrogate pair"},
	    {"\"\\udc00\"", "half of a surrogate pair"},
	    {"\"\xff\"", "not UTF-8"},
	    {"\"\xc0\xaf\"", "not UTF-8"},
	    {"\"\xed\xa0\x80\"", "not UTF-8"},
	    {"\"\xe2\x82\"", "not UTF-8"},
	    {"\xef\xbb\xbf{}", "byte order mark"},
	    {"NaN", "expected a value"},
	    {"Infinity", "expected a value"},
	    {"-Infinity", "expected a digit"},
	    {"+1", "expected a value"},
	    {"01", "superfluous 0"},
	    {"-01", "superfluous 0"},
	    {"-", "ends too early"},
	    {"1.x", "expected a digit"},
	    {".5", "expected a value"},
	    {"1e", "ends too early"},
	    {"1e+ ", "expected a digit"},
	    {"0x10", "expected the end"},
	    {"1.5.2", "expected the end"},
	    {"/* c */ 1", "expected a value"},
	    {"\v1", "expected a value"},
	};
	struct lora_error err;

	(void)state;
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		struct lora_json *json = (struct lora_json *)&err;

		assert_fails(LORA_INPUT, cases[i].message,
			     lora__json_parse(&json, cases[i].text, strlen(cases[i].text), &err));
		assert_null(json);
	}
}

static void json__a_nul_is_never_part_of_a_text(void **state)
{
	struct lora_json *json;
	struct lora_error err;

	(void)state;
	assert_fails(LORA_INPUT, "malformed", lora__json_parse(&json, "1\0", 2, &err));
	assert_fails(LORA_INPUT, "malformed", lora__json_parse(&json, "\"a\0b\"", 5, &err));
	assert_fails(LORA_INPUT, "malformed", lora__json_parse(&json, "\"\\\0\"", 4, &err));
	assert_fails(LORA_INPUT, "malformed", lora__json_parse(&json, "[1,\0 2]", 7, &err));
}

/* A prefix of a text never parses, and nothing is read behind the length that was given: the copy
 * is exactly as long, for AddressSanitizer. */
static void json__every_truncation_is_refused(void **state)
{
	static const char text[] = "{\"k\\u00fc\": [1.5e+3, -0, \"\\ud83d\\ude00\xc3\xbc\", true, "
				   "false, null, {\"a\": {}}, []], \"x\": \"y\"}";
	struct lora_json *json;
	struct lora_error err;

	(void)state;
	for (size_t length = 0; length < sizeof text - 1; length++) {
		char *copy = malloc(length == 0 ? 1 : length);

		assert_non_null(copy);
		memcpy(copy, text, length);
		assert_fails(LORA_INPUT, "malformed JSON",
			     lora__json_parse(&json, copy, length, &err));
		free(copy);
	}
	lora__json_free(parse(text));
}

static void json__depth_is_limited(void **state)
{
	char text[2 * (LORA_JSON_DEPTH + 1) + 1];
	struct lora_json *json;
	struct lora_error err;

	(void)state;
	for (size_t depth = LORA_JSON_DEPTH; depth <= LORA_JSON_DEPTH + 1; depth++) {
		memset(text, '[', depth);
		memset(text + depth, ']', depth);
		if (depth == LORA_JSON_DEPTH) {
			assert_ok(lora__json_parse(&json, text, 2 * depth, &err));
			lora__json_free(json);
		} else {
			assert_fails(LORA_INPUT, "nested too deeply at line 1, column 33",
				     lora__json_parse(&json, text, 2 * depth, &err));
		}
	}
	/* Siblings do not count. */
	lora__json_free(
	    parse("[[],[],[],[],[],[],[],[],[],[],[],[],[],[],[],[],[],[],[],[],[],[],[],"
		  "[],[],[],[],[],[],[],[],[],[],[],[],[]]"));
}

static void json__duplicate_keys_are_refused(void **state)
{
	static const char *const cases[] = {
	    "{\"a\":1,\"a\":1}",
	    "{\"a\":1,\"\\u0061\":2}", /* equal once unescaped */
	    "{\"\":1,\"b\":2,\"\":3}",
	    "[0,{\"x\":{\"y\":[{\"a\":1,\"b\":2,\"a\":3}]}}]",
	};
	char many[4000] = "{\"key0\":0";
	struct lora_json *json;
	struct lora_error err;

	(void)state;
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
		assert_fails(LORA_INPUT, "twice",
			     lora__json_parse(&json, cases[i], strlen(cases[i]), &err));
	/* In an object of any size, whichever two they are. */
	for (size_t n = 1; n < 100; n++) {
		size_t length = strlen(many);

		(void)snprintf(many + length, sizeof many - length, ",\"key%zu\":0}", n);
		lora__json_free(parse(many));
		for (size_t twice = 0; twice < n; twice += n / 3 + 1) {
			(void)snprintf(many + length, sizeof many - length, ",\"key%zu\":0}",
				       twice);
			assert_fails(LORA_INPUT, "twice",
				     lora__json_parse(&json, many, strlen(many), &err));
		}
		(void)snprintf(many + length, sizeof many - length, ",\"key%zu\":0", n);
	}
	lora__json_free(parse("[{\"a\":1},{\"a\":2,\"A\":3,\"a \":4}]"));
}

/* Expected: Python, json.dumps(json.loads(text, parse_int=raw, parse_float=raw), sort_keys=True,
 * separators=(",", ":"), ensure_ascii=False), the numbers' quotes taken off. */
static void json__canonical(void **state)
{
	static const char text[] =
	    "{\"b\":[1.50, -0, 1E+5, 18446744073709551615],\n \"a\": {\"\\u00fc\": "
	    "\"\\ud83d\\ude00\\u2028\\u0007\\b\\f\\n\\r\\t\\\"\\\\\\/\", \"\": null}, "
	    "\"B\": [true, false, {}, []], \"\\u007f\": \"\\u007f\", \"a\\u0062\":\"x\", "
	    "\"ab \":0}";
	static const char expected[] =
	    "{\"B\":[true,false,{},[]],\"a\":{\"\":null,\"\xc3\xbc\":\"\xf0\x9f\x98\x80"
	    "\xe2\x80\xa8\\u0007\\b\\f\\n\\r\\t\\\"\\\\/\"},\"ab\":\"x\",\"ab \":0,"
	    "\"b\":[1.50,-0,1E+5,18446744073709551615],\"\x7f\":\"\x7f\"}";
	struct lora_error err = LORA_ERROR_INIT;
	struct lora_json *json = parse(text);
	char *canonical;
	size_t length;

	(void)state;
	assert_ok(lora__json_canonical(json, &canonical, &length, &err));
	assert_string_equal(canonical, expected);
	assert_int_equal(length, sizeof expected - 1);
	lora__json_free(json);
	/* And it is its own canonical text. */
	json = parse(canonical);
	free(canonical);
	assert_ok(lora__json_canonical(json, &canonical, &length, &err));
	assert_string_equal(canonical, expected);
	free(canonical);
	lora__json_free(json);
}

static void json__every_failing_allocation_is_reported(void **state)
{
	static const char text[] =
	    "{\"a\":[1,\"x\",{\"b\":null}],\"c\":{\"1\":1,\"2\":2,\"3\":3,\"4\":4,"
	    "\"5\":5,\"6\":6,\"7\":7,\"8\":8,\"9\":9,\"10\":0,\"11\":1,\"12\":2,"
	    "\"13\":3}}";
	struct lora_error err = LORA_ERROR_INIT;
	long live = failing_malloc_live();
	bool failed = true;
	long n = 0;

	(void)state;
	if (!FAILING_MALLOC)
		skip();
	for (; failed; n++) {
		struct lora_json *json = NULL;
		enum lora_status status;
		char *canonical = NULL;
		size_t length;

		failing_malloc_begin(n);
		status = lora__json_parse(&json, text, sizeof text - 1, &err);
		if (status == LORA_OK)
			status = lora__json_canonical(json, &canonical, &length, &err);
		failed = failing_malloc_end();
		assert_int_equal(status, failed ? LORA_SYSTEM : LORA_OK);
		assert_true(failed || canonical != NULL);
		lora__json_free(json);
		free(canonical);
		assert_int_equal(failing_malloc_live(), live);
	}
	assert_true(n > 50); /* one for each value, one for each key, number and string */
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(json__tree),
	    cmocka_unit_test(json__null_is_harmless),
	    cmocka_unit_test(json__u64_is_exact_and_strict),
	    cmocka_unit_test(json__double_and_bool),
	    cmocka_unit_test(json__is_empty),
	    cmocka_unit_test(json__strings_are_unescaped),
	    cmocka_unit_test(json__malformed_text_is_refused_with_its_place),
	    cmocka_unit_test(json__a_nul_is_never_part_of_a_text),
	    cmocka_unit_test(json__every_truncation_is_refused),
	    cmocka_unit_test(json__depth_is_limited),
	    cmocka_unit_test(json__duplicate_keys_are_refused),
	    cmocka_unit_test(json__canonical),
	    cmocka_unit_test(json__every_failing_allocation_is_reported),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
