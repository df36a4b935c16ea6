/* SPDX-License-Identifier: Apache-2.0 */
/* base/types.c and base/version.c. Names and sizes: safetensors 0.6, enum Dtype and
 * Dtype::bitsize(). */
#include "base_check.h"

#include <loractl/types.h>

static const struct {
	const char *name;
	unsigned bits;
} expected[] = {
    {"BOOL", 8}, {"F4", 4},	 {"F6_E2M3", 6}, {"F6_E3M2", 6}, {"U8", 8},
    {"I8", 8},	 {"F8_E5M2", 8}, {"F8_E4M3", 8}, {"F8_E8M0", 8}, {"I16", 16},
    {"U16", 16}, {"F16", 16},	 {"BF16", 16},	 {"I32", 32},	 {"U32", 32},
    {"F32", 32}, {"C64", 64},	 {"F64", 64},	 {"I64", 64},	 {"U64", 64},
};

static void types__names_and_sizes(void **state)
{
	(void)state;
	assert_int_equal(sizeof expected / sizeof *expected, LORA_DTYPE_COUNT - 1);
	for (size_t i = 0; i < sizeof expected / sizeof *expected; i++) {
		enum lora_dtype dtype = lora_dtype_find(expected[i].name, strlen(expected[i].name));

		assert_int_not_equal(dtype, LORA_DTYPE_NONE);
		assert_string_equal(lora_dtype_name(dtype), expected[i].name);
		assert_int_equal(lora_dtype_bits(dtype), expected[i].bits);
	}
}

static void types__everything_else_is_none(void **state)
{
	(void)state;
	assert_int_equal(lora_dtype_find("F32", 2), LORA_DTYPE_NONE);
	assert_int_equal(lora_dtype_find("F321", 4), LORA_DTYPE_NONE);
	assert_int_equal(lora_dtype_find("F32\0", 4), LORA_DTYPE_NONE);
	assert_int_equal(lora_dtype_find("f32", 3), LORA_DTYPE_NONE);
	assert_int_equal(lora_dtype_find("", 0), LORA_DTYPE_NONE);
	assert_null(lora_dtype_name(LORA_DTYPE_NONE));
	assert_null(lora_dtype_name(LORA_DTYPE_COUNT));
	assert_null(lora_dtype_name((enum lora_dtype) - 1));
	assert_int_equal(lora_dtype_bits(LORA_DTYPE_NONE), 0);
	assert_int_equal(lora_dtype_bits((enum lora_dtype)1000), 0);
}

static void version__is_that_of_the_header(void **state)
{
	char text[64];

	(void)state;
	(void)snprintf(text, sizeof text, "%d.%d.%d", LORA_VERSION_MAJOR, LORA_VERSION_MINOR,
		       LORA_VERSION_PATCH);
	assert_string_equal(lora_version(), text);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(types__names_and_sizes),
	    cmocka_unit_test(types__everything_else_is_none),
	    cmocka_unit_test(version__is_that_of_the_header),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
