/* SPDX-License-Identifier: Apache-2.0 */
/* ADAPTER[:WEIGHT]: where the path ends. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "cli/reference.h"
#include "made.h"

static void expect(const char *text, const char *path, double weight)
{
	struct lora_error err = LORA_ERROR_INIT;
	char *got = NULL;
	double w = 0;

	assert_int_equal(reference_split(text, &got, &w, &err), LORA_OK);
	assert_string_equal(got, path);
	assert_true(w == weight);
	free(got);
}

static void refuse(const char *text)
{
	struct lora_error err = LORA_ERROR_INIT;
	char *got = NULL;
	double w = 0;

	assert_int_equal(reference_split(text, &got, &w, &err), LORA_USAGE);
	assert_non_null(strstr(err.message, text));
	free(got);
}

static void reference__takes_a_decimal_weight(void **state)
{
	(void)state;
	expect("adapter", "adapter", 1);
	expect("adapter:0.5", "adapter", 0.5);
	expect("adapter:-1", "adapter", -1);
	expect("adapter:+.25", "adapter", 0.25);
	expect("adapter:2.", "adapter", 2);
	expect("a:b:0.125", "a:b", 0.125);
	expect("dir:x/adapter", "dir:x/adapter", 1);
	expect("dir:x/adapter:3", "dir:x/adapter", 3);
}

static void reference__refuses_what_is_no_decimal(void **state)
{
	static const char *const texts[] = {"a:",    "a:x",   "a:1e3", "a:inf", "a:nan", "a:0x1",
					    "a:1,5", "a:--1", "a:.",   "a: 1",	"a:1 "};

	(void)state;
	for (size_t i = 0; i < sizeof(texts) / sizeof(*texts); i++)
		refuse(texts[i]);
}

/* Four hundred digits are more than a double holds. */
static void reference__refuses_an_infinite_weight(void **state)
{
	struct lora_error err = LORA_ERROR_INIT;
	char text[410], *got = NULL;
	double w;

	(void)state;
	memset(text, '9', sizeof(text));
	memcpy(text, "a:", 2);
	text[sizeof(text) - 1] = '\0';
	assert_int_equal(reference_split(text, &got, &w, &err), LORA_USAGE);
	free(got);
}

static void reference__prefers_what_exists(void **state)
{
	char *dir = made_directory(), whole[4096];

	(void)state;
	snprintf(whole, sizeof(whole), "%s", made_path(dir, "style:2"));
	expect(whole, made_path(dir, "style"), 2);
	made_text(whole, "");
	expect(whole, whole, 1);
	made_remove(dir);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(reference__takes_a_decimal_weight),
	    cmocka_unit_test(reference__refuses_what_is_no_decimal),
	    cmocka_unit_test(reference__refuses_an_infinite_weight),
	    cmocka_unit_test(reference__prefers_what_exists),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
