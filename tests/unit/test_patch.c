/* SPDX-License-Identifier: Apache-2.0 */
/* Changing one value of a JSON file: every other byte stays. Expected texts are written out by
 * hand. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "merge/patch.h"

static void expect(const char *before, const char *object, const char *key, const char *value,
		   const char *after)
{
	struct lora_text text = {NULL, 0};
	struct lora_error err = LORA_ERROR_INIT;

	assert_int_equal(lora__text_copy(&text, before, strlen(before), &err), LORA_OK);
	assert_int_equal(lora__text_set(&text, object, key, value, &err), LORA_OK);
	assert_string_equal(text.data, after);
	assert_int_equal(text.size, strlen(after));
	lora__text_fini(&text);
}

static void refuse(const char *before, const char *object, const char *key, const char *value)
{
	struct lora_text text = {NULL, 0};
	struct lora_error err = LORA_ERROR_INIT;

	assert_int_equal(lora__text_copy(&text, before, strlen(before), &err), LORA_OK);
	assert_int_equal(lora__text_set(&text, object, key, value, &err), LORA_INPUT);
	assert_true(strlen(err.message) > 0);
	lora__text_fini(&text);
}

static void patch__replaces_a_value_in_place(void **state)
{
	(void)state;
	expect("{\"a\": 1, \"b\" :\ttrue ,\"c\":[]}", NULL, "b", "false",
	       "{\"a\": 1, \"b\" :\tfalse ,\"c\":[]}");
	expect("{\"a\":{\"x\":[1,{\"b\":2}]},\"b\":3}", NULL, "b", "4",
	       "{\"a\":{\"x\":[1,{\"b\":2}]},\"b\":4}");
	expect("{\"a\":{\"x\":\"}]\\\"\"},\"b\":null}\n", NULL, "a", "7", "{\"a\":7,\"b\":null}\n");
	expect("  {\"v\":1e-05}", NULL, "v", "2", "  {\"v\":2}");
}

static void patch__is_not_fooled_by_strings(void **state)
{
	(void)state;
	/* "b" as a value, inside a string, and in a nested object come before the member. */
	expect("{\"a\":\"b\",\"c\":\"\\\"b\\\":1\",\"d\":{\"b\":2},\"b\":3}", NULL, "b", "9",
	       "{\"a\":\"b\",\"c\":\"\\\"b\\\":1\",\"d\":{\"b\":2},\"b\":9}");
	expect("{\"bb\":1,\"b\":2}", NULL, "b", "3", "{\"bb\":1,\"b\":3}");
}

static void patch__adds_a_member_in_the_style_of_the_first(void **state)
{
	(void)state;
	expect("{\n  \"a\": 1,\n  \"b\": [\n    2\n  ]\n}\n", NULL, "c", "false",
	       "{\n  \"a\": 1,\n  \"b\": [\n    2\n  ],\n  \"c\": false\n}\n");
	expect("{\"a\":1}", NULL, "c", "2", "{\"a\":1,\"c\": 2}");
	expect("{}", NULL, "c", "2", "{\"c\": 2}");
}

static void patch__reaches_into_one_object(void **state)
{
	(void)state;
	expect("{\"weight_map\":{\"x\":\"f\"},\"x\":1}", "weight_map", "y", "\"g\"",
	       "{\"weight_map\":{\"x\":\"f\",\"y\": \"g\"},\"x\":1}");
	expect("{\"m\":{\"n\":1},\"n\":1}", "m", "n", "5", "{\"m\":{\"n\":5},\"n\":1}");
	expect("{\"m\":{}}", "m", "n", "5", "{\"m\":{\"n\": 5}}");
}

static void patch__refuses_what_is_no_object(void **state)
{
	(void)state;
	refuse("[1]", NULL, "a", "1");
	refuse("{\"m\":[1]}", "m", "a", "1");
	refuse("{\"m\":1}", "absent", "a", "1");
}

/* A key that is spelled with an escape is not found; the member added beside it would be a
 * duplicate: refused, not written. */
static void patch__never_writes_a_duplicate(void **state)
{
	(void)state;
	refuse("{\"\\u0061\":1}", NULL, "a", "2");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(patch__replaces_a_value_in_place),
	    cmocka_unit_test(patch__is_not_fooled_by_strings),
	    cmocka_unit_test(patch__adds_a_member_in_the_style_of_the_first),
	    cmocka_unit_test(patch__reaches_into_one_object),
	    cmocka_unit_test(patch__refuses_what_is_no_object),
	    cmocka_unit_test(patch__never_writes_a_duplicate),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
