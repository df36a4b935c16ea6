/* SPDX-License-Identifier: Apache-2.0 */
/* test_index.c - what holds for the tensors of every container (formats/index.c), and opening a
 * file of any kind (formats/container.c)
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "formats/container.h"
#include "made.h"

/* An index as a parser would leave it: data begins at byte 100. */
static void start(struct lora_index *index, const struct lora_tensor *tensors, size_t count)
{
	memset(index, 0, sizeof(*index));
	index->data_begin = 100;
	index->tensors = lora__arena_array(&index->arena, count, sizeof(*tensors));
	assert_non_null(index->tensors);
	memcpy(index->tensors, tensors, count * sizeof(*tensors));
	index->count = count;
}

#define U8(NAME, BEGIN, SIZE)                                                                      \
	{                                                                                          \
		.name = NAME, .dtype = LORA_DTYPE_U8, .ndim = 1, .shape = {SIZE}, .begin = BEGIN,  \
		.size = SIZE                                                                       \
	}

static void index__sorts_and_finds(void **state)
{
	/* c and d are empty: both before b, which begins where they do; by name between themselves.
	 */
	static const struct lora_tensor tensors[] = {
	    U8("b", 104, 4), U8("d", 104, 0), U8("a", 100, 4), U8("c", 104, 0), U8("ab", 200, 56)};
	static const char *const order[] = {"a", "c", "d", "b", "ab"};
	struct lora_error err = LORA_ERROR_INIT;
	struct lora_index index;

	(void)state;
	start(&index, tensors, 5);
	assert_int_equal(lora__index_finish(&index, 256, &err), LORA_OK);
	for (size_t i = 0; i < 5; i++) {
		assert_string_equal(index.tensors[i].name, order[i]);
		assert_ptr_equal(lora__index_find(&index, order[i], strlen(order[i])),
				 &index.tensors[i]);
	}
	assert_null(lora__index_find(&index, "abc", 3));
	assert_null(lora__index_find(&index, "", 0));
	assert_non_null(lora__index_find(&index, "abc", 2)); /* the length counts, not the NUL */
	lora__index_fini(&index);
	assert_int_equal(index.count, 0);
	lora__index_fini(&index);
}

static void index__counts_elements(void **state)
{
	static const struct lora_tensor tensors[] = {
	    {.name = "scalar", .dtype = LORA_DTYPE_F64, .begin = 100, .size = 8},
	    {.name = "empty",
	     .dtype = LORA_DTYPE_F32,
	     .ndim = 3,
	     .shape = {UINT64_C(1) << 57, 0, 2},
	     .begin = 108},
	    {.name = "cube",
	     .dtype = LORA_DTYPE_BF16,
	     .ndim = 3,
	     .shape = {2, 3, 4},
	     .begin = 108,
	     .size = 48},
	    {.name = "six",
	     .dtype = LORA_DTYPE_F6_E3M2,
	     .ndim = 8,
	     .shape = {1, 2, 1, 2, 1, 1, 1, 3},
	     .begin = 156,
	     .size = 9},
	};
	static const uint64_t elements[] = {1, 0, 24, 12};
	struct lora_error err = LORA_ERROR_INIT;
	struct lora_index index;

	(void)state;
	start(&index, tensors, 4);
	assert_int_equal(lora__index_finish(&index, 165, &err), LORA_OK);
	for (size_t i = 0; i < 4; i++)
		assert_int_equal(index.tensors[i].elements, elements[i]);
	lora__index_fini(&index);
}

/* Two tensors at 100..104 and 104..108 of a file of 200 bytes; the second is replaced. */
static void index__refuses_each_broken_rule(void **state)
{
	static const struct {
		struct lora_tensor second;
		const char *says;
	} cases[] = {
	    {U8("a", 104, 4), "tensor 'a' occurs twice"},
	    {U8("", 104, 4), "a tensor has no name"},
	    {U8("x\ty", 104, 4), "tensor 'x\\x09y': its name holds a control character"},
	    {U8("x\x7f", 104, 4), "control character"},
	    {U8("x\xc2\x85", 104, 4), "control character"}, /* U+0085, next line */
	    {U8("x\xc0\xaf", 104, 4), "not UTF-8"},	    /* overlong '/' */
	    {U8("x\xed\xa0\x80", 104, 4), "not UTF-8"},	    /* half of a surrogate pair */
	    {U8("x\xf4\x90\x80\x80", 104, 4), "not UTF-8"}, /* above U+10FFFF */
	    {U8("x\xe2\x82", 104, 4), "not UTF-8"},	    /* cut off */
	    {U8("b", 103, 4), "tensors 'a' and 'b' overlap"},
	    {U8("b", 100, 4), "overlap"},
	    {U8("b", 99, 4), "tensor 'b': starts at byte 99, inside the file's header"},
	    {U8("b", 197, 4), "tensor 'b': ends at byte 201, but the file has 200 bytes"},
	    {U8("b", 201, 0), "ends at byte 201"},
	    {U8("b", UINT64_MAX - 1, 4), "beyond any file's end"},
	    {{.name = "b", .dtype = LORA_DTYPE_F32, .ndim = 1, .shape = {1}, .begin = 104},
	     "tensor 'b': F32 [1] needs 4 bytes, the file gives it 0"},
	    {{.name = "b", .dtype = LORA_DTYPE_NONE, .ndim = 1, .shape = {1}, .begin = 104},
	     "tensor 'b': no dtype"},
	    {{.name = "b", .dtype = LORA_DTYPE_COUNT, .ndim = 1, .shape = {1}, .begin = 104},
	     "tensor 'b': no dtype"},
	    {{.name = "b", .dtype = LORA_DTYPE_U8, .ndim = 9, .begin = 104},
	     "tensor 'b': 9 dimensions, at most 8"},
	    {{.name = "b", .dtype = LORA_DTYPE_F4, .ndim = 2, .shape = {3, 3}, .begin = 104},
	     "tensor 'b': F4 [3, 3] is not a whole number of bytes"},
	    {{.name = "b",
	      .dtype = LORA_DTYPE_F64,
	      .ndim = 3,
	      .shape = {0, UINT64_C(1) << 32, UINT64_C(1) << 28},
	      .begin = 104},
	     "tensor 'b': shape [0, 4294967296, 268435456] is more than any memory"},
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
		const struct lora_tensor tensors[] = {U8("a", 100, 4), cases[i].second};
		struct lora_error err = LORA_ERROR_INIT;
		struct lora_index index;

		start(&index, tensors, 2);
		assert_int_equal(lora__index_finish(&index, 200, &err), LORA_INPUT);
		if (!strstr(err.message, cases[i].says))
			fail_msg("case %zu: '%s' instead of '%s'", i, err.message, cases[i].says);
		lora__index_fini(&index);
	}
}

static void index__takes_names_of_all_scripts(void **state)
{
	/* the first and last code points of each length of UTF-8, without controls */
	static const struct lora_tensor tensors[] = {U8(" ", 100, 1),
						     U8("~", 101, 1),
						     U8("\xc2\xa0", 102, 1),
						     U8("\xdf\xbf", 103, 1),
						     U8("\xe0\xa0\x80", 104, 1),
						     U8("\xed\x9f\xbf", 105, 1),
						     U8("\xee\x80\x80", 106, 1),
						     U8("\xf0\x90\x80\x80", 107, 1),
						     U8("\xf4\x8f\xbf\xbf", 108, 1)};
	struct lora_error err = LORA_ERROR_INIT;
	struct lora_index index;

	(void)state;
	start(&index, tensors, 9);
	assert_int_equal(lora__index_finish(&index, 109, &err), LORA_OK);
	lora__index_fini(&index);
}

static void index__bounds_names_and_count(void **state)
{
	char name[LORA_NAME_LIMIT + 2];
	struct lora_tensor tensor = U8(name, 100, 1);
	struct lora_error err = LORA_ERROR_INIT;
	struct lora_index index;

	(void)state;
	memset(name, 'n', sizeof(name));
	name[LORA_NAME_LIMIT] = '\0';
	start(&index, &tensor, 1);
	assert_int_equal(lora__index_finish(&index, 101, &err), LORA_OK);
	lora__index_fini(&index);
	name[LORA_NAME_LIMIT] = 'n';
	name[LORA_NAME_LIMIT + 1] = '\0';
	start(&index, &tensor, 1);
	assert_int_equal(lora__index_finish(&index, 101, &err), LORA_INPUT);
	assert_non_null(strstr(err.message, "4097 bytes, more than 4096"));
	lora__index_fini(&index);
	start(&index, &tensor, 1);
	index.count = LORA_TENSOR_LIMIT + 1;
	assert_int_equal(lora__index_finish(&index, 101, &err), LORA_INPUT);
	assert_non_null(strstr(err.message, "2000001 tensors"));
	lora__index_fini(&index);
}

/* --- lora__container_load() ---------------------------------------------------------------------
 */

#define ONE "{\"a\":{\"dtype\":\"U8\",\"shape\":[3],\"data_offsets\":[0,3]}}"

static enum lora_status load(const char *path, struct lora_index *index, uint8_t **head,
			     size_t *head_size, struct lora_error *err)
{
	struct lora_file file = LORA_FILE_INIT;
	enum lora_status status;

	memset(index, 0, sizeof(*index));
	assert_int_equal(lora__file_open(&file, path, err), LORA_OK);
	status = lora__container_load(index, head, head_size, &file, err);
	lora__file_close(&file);
	return status;
}

static void container__loads_a_file(void **state)
{
	char *dir = made_directory();
	const char *path = made_path(dir, "any.name");
	struct lora_error err = LORA_ERROR_INIT;
	struct lora_index index;
	uint8_t *head = NULL;
	size_t size = 0;

	(void)state;
	made_weights(path, ONE, 3);
	assert_int_equal(load(path, &index, &head, &size, &err), LORA_OK);
	assert_int_equal(size, 8 + sizeof(ONE) - 1);
	assert_memory_equal(head + 8, ONE, sizeof(ONE) - 1);
	assert_int_equal(index.count, 1);
	lora__index_fini(&index);
	free(head);
	made_remove(dir);
}

static void container__says_what_else_it_is(void **state)
{
	static const struct {
		const char *bytes;
		size_t size;
		const char *says;
	} cases[] = {
	    {"", 0, "it is empty"},
	    {"version https://git-lfs.github.com/spec/v1\noid sha256:00\n", 57, "git lfs pull"},
	    {"GGUF\3\0\0\0\0\0\0\0", 12, "GGUF"},
	    {"PK\x03\x04\0\0\0\0\0\0", 10, "zip archive"},
	    {"\x80\x02}q\0", 5, "pickle"},
	    {"<!DOCTYPE html><html>", 21, "web page"},
	    {"{\"architectures\":[]}", 20, "JSON"},
	    {"\0\0\0\0\0\0\0\0\0\0", 10, "no header of a known container"},
	    {"\xff\xff\xff\xff\xff\xff\xff\xff{}", 10, "more than the format's 100000000"},
	    {"\x09\0\0\0\0\0\0\0{}", 10, "truncated"},
	    {"\x02\0\0\0\0\0\0\0{]", 10, "does not end in '}'"},
	};
	char *dir = made_directory();
	const char *path = made_path(dir, "model.safetensors");

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
		struct lora_error err = LORA_ERROR_INIT;
		struct lora_index index;
		uint8_t *head = (uint8_t *)"";
		size_t size = 1;

		made_file(path, cases[i].bytes, cases[i].size);
		assert_int_equal(load(path, &index, &head, &size, &err), LORA_INPUT);
		assert_null(head);
		assert_int_equal(size, 0);
		assert_non_null(strstr(err.message, "model.safetensors'"));
		if (!strstr(err.message, cases[i].says))
			fail_msg("case %zu: '%s' instead of '%s'", i, err.message, cases[i].says);
		lora__index_fini(&index);
	}
	made_remove(dir);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(index__sorts_and_finds),
	    cmocka_unit_test(index__counts_elements),
	    cmocka_unit_test(index__refuses_each_broken_rule),
	    cmocka_unit_test(index__takes_names_of_all_scripts),
	    cmocka_unit_test(index__bounds_names_and_count),
	    cmocka_unit_test(container__loads_a_file),
	    cmocka_unit_test(container__says_what_else_it_is),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
