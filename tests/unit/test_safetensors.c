/* SPDX-License-Identifier: Apache-2.0 */
/* test_safetensors.c - the safetensors container (formats/containers/safetensors.c)
 *
 * Files are built in code by made_safetensors(); expected values are read off the headers by hand.
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

/* Members out of order; a matrix, a scalar, an empty tensor that shares its begin, one of half
 *bytes. a F32 [2, 3] 24 bytes 0..24 | z F16 [0, 7] 24..24 | b BF16 [] 24..26 | c F4 [4] 26..28 */
#define GOOD                                                                                       \
	"{\"b\":{\"dtype\":\"BF16\",\"shape\":[],\"data_offsets\":[24,26]},"                       \
	"\"__metadata__\":{\"format\":\"pt\",\"x\":\"\\u00e9\"},"                                  \
	"\"a\":{\"shape\":[2,3],\"data_offsets\":[0,24],\"dtype\":\"F32\"},"                       \
	"\"z\":{\"dtype\":\"F16\",\"shape\":[0,7],\"data_offsets\":[24,24]},"                      \
	"\"c\":{\"dtype\":\"F4\",\"shape\":[4],\"data_offsets\":[26,28]}}  "
#define GOOD_DATA 28

#define A(fields) "{\"a\":{" fields "}}"
#define U8(name, shape, offsets)                                                                   \
	"\"" name "\":{\"dtype\":\"U8\",\"shape\":" shape ",\"data_offsets\":" offsets "}"

static enum lora_status parse(struct lora_index *index, const uint8_t *bytes, size_t size,
			      uint64_t file_size, struct lora_error *err)
{
	memset(index, 0, sizeof(*index));
	return lora__safetensors.parse(index, bytes, size, file_size, err);
}

static void check_tensor(const struct lora_tensor *tensor, const char *name, enum lora_dtype dtype,
			 uint32_t ndim, uint64_t elements, uint64_t begin, uint64_t size)
{
	assert_string_equal(tensor->name, name);
	assert_int_equal(tensor->dtype, dtype);
	assert_int_equal(tensor->ndim, ndim);
	assert_int_equal(tensor->elements, elements);
	assert_int_equal(tensor->begin, begin);
	assert_int_equal(tensor->size, size);
	assert_int_equal(tensor->file, 0);
}

static void safetensors__reads_what_the_header_says(void **state)
{
	const uint64_t data = 8 + sizeof(GOOD) - 1;
	struct lora_error err = LORA_ERROR_INIT;
	struct lora_index index;
	size_t size;
	uint8_t *bytes = made_safetensors(GOOD, GOOD_DATA, &size);

	(void)state;
	assert_int_equal(parse(&index, bytes, size, size, &err), LORA_OK);
	assert_int_equal(index.count, 4);
	assert_int_equal(index.data_begin, data);
	check_tensor(&index.tensors[0], "a", LORA_DTYPE_F32, 2, 6, data, 24);
	assert_int_equal(index.tensors[0].shape[0], 2);
	assert_int_equal(index.tensors[0].shape[1], 3);
	check_tensor(&index.tensors[1], "z", LORA_DTYPE_F16, 2, 0, data + 24, 0);
	check_tensor(&index.tensors[2], "b", LORA_DTYPE_BF16, 0, 1, data + 24, 2);
	check_tensor(&index.tensors[3], "c", LORA_DTYPE_F4, 1, 4, data + 26, 2);
	assert_ptr_equal(lora__index_find(&index, "b", 1), &index.tensors[2]);
	assert_null(lora__index_find(&index, "__metadata__", 12));
	assert_int_equal(index.metadata_count, 2);
	assert_string_equal(lora__index_metadata(&index, "format"), "pt");
	assert_string_equal(lora__index_metadata(&index, "x"), "\xc3\xa9");
	assert_null(lora__index_metadata(&index, "y"));
	lora__index_fini(&index);
	free(bytes);
}

static void safetensors__needs_the_head_only(void **state)
{
	struct lora_error err = LORA_ERROR_INIT;
	struct lora_index index;
	uint64_t need = 0;
	size_t size;
	uint8_t *bytes = made_safetensors(GOOD, GOOD_DATA, &size);

	(void)state;
	assert_int_equal(lora__safetensors.head_size(&need, bytes, 64, size, &err), LORA_OK);
	assert_int_equal(need, size - GOOD_DATA);
	assert_int_equal(parse(&index, bytes, (size_t)need, size, &err), LORA_OK);
	lora__index_fini(&index);
	assert_int_equal(parse(&index, bytes, (size_t)need - 1, size, &err), LORA_USAGE);
	lora__index_fini(&index);
	free(bytes);
}

static void safetensors__reads_files_without_tensors(void **state)
{
	static const char *const headers[] = {"{}", "{ }\n", "{\"__metadata__\":{}}"};
	struct lora_error err = LORA_ERROR_INIT;

	(void)state;
	for (size_t i = 0; i < 3; i++) {
		struct lora_index index;
		size_t size;
		uint8_t *bytes = made_safetensors(headers[i], 0, &size);

		assert_int_equal(parse(&index, bytes, size, size, &err), LORA_OK);
		assert_int_equal(index.count, 0);
		lora__index_fini(&index);
		free(bytes);
	}
}

/* 2^40 elements: the head of a file of 4 TiB can be judged without the file. */
static void safetensors__reads_heads_of_huge_files(void **state)
{
	struct lora_error err = LORA_ERROR_INIT;
	struct lora_index index;
	size_t size;
	uint8_t *bytes = made_safetensors(A("\"dtype\":\"F32\",\"shape\":[1048576,1048576],"
					    "\"data_offsets\":[0,4398046511104]"),
					  0, &size);

	(void)state;
	assert_int_equal(parse(&index, bytes, size, size + 4398046511104u, &err), LORA_OK);
	assert_int_equal(index.tensors[0].elements, 1099511627776u);
	lora__index_fini(&index);
	assert_int_equal(parse(&index, bytes, size, size + 4398046511103u, &err), LORA_INPUT);
	assert_non_null(strstr(err.message, "tensor 'a'"));
	assert_non_null(strstr(err.message, "truncated"));
	lora__index_fini(&index);
	free(bytes);
}

/* One field broken in each; the message must name the place and the fact. */
static const struct {
	const char *json;
	size_t data;
	const char *says;
} refused[] = {
    /* the object */
    {"", 0, "does not begin with '{'"},
    {" {}", 0, "does not begin with '{'"},
    {"[]", 0, "does not begin with '{'"},
    {"{", 0, "does not end in '}'"},
    {"{} x", 0, "something follows"},
    {"{}{}", 0, "something follows"},
    {"{,}", 0, "malformed JSON"},
    {"{" U8("a", "[1]", "[0,1]") ",}", 1, "malformed JSON"},
    {"{" U8("a", "[1]", "[0,1]"), 1, "does not end in '}'"},
    {"{\"a}", 0, "does not end in '}'"},
    {"{\"a\":1]}", 0, "header, from byte 8"},
    {"{\"a\xff\":{}}", 0, "not UTF-8"},
    /* names */
    {"{" U8("", "[1]", "[0,1]") "}", 1, "a tensor has no name"},
    {"{" U8("a\\u0007", "[1]", "[0,1]") "}", 1, "tensor 'a\\x07': its name holds a control"},
    {"{" U8("a\\u0000", "[1]", "[0,1]") "}", 1, "\\u0000"},
    {"{" U8("a", "[1]", "[0,1]") "," U8("a", "[1]", "[1,2]") "}", 2, "'a' twice"},
    {"{" U8("a", "[1]", "[0,1]") "," U8("\\u0061", "[1]", "[1,2]") "}", 2, "'a' twice"},
    /* a tensor's keys */
    {"{\"a\":1}", 0, "tensor 'a': its description is no object"},
    {"{\"a\":[]}", 0, "tensor 'a': its description is no object"},
    {A(""), 0, "tensor 'a': dtype is missing"},
    {A("\"shape\":[1],\"data_offsets\":[0,1]"), 1, "tensor 'a': dtype is missing"},
    {A("\"dtype\":\"U8\",\"data_offsets\":[0,1]"), 1, "tensor 'a': shape is missing"},
    {A("\"dtype\":\"U8\",\"shape\":[1]"), 1, "tensor 'a': data_offsets is missing"},
    {A("\"data_offsets\":[0,1]"), 1, "tensor 'a': dtype is missing"},
    {A("\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1],\"x\":1"), 1,
     "tensor 'a': key 'x' is not of the safetensors format"},
    {A("\"dtype\":\"U8\",\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]"), 1,
     "'dtype' twice"},
    /* dtype */
    {A("\"dtype\":\"Q4_K\",\"shape\":[1],\"data_offsets\":[0,1]"), 1,
     "tensor 'a': dtype 'Q4_K' is not known"},
    {A("\"dtype\":\"u8\",\"shape\":[1],\"data_offsets\":[0,1]"), 1, "dtype 'u8' is not known"},
    {A("\"dtype\":\"\",\"shape\":[1],\"data_offsets\":[0,1]"), 1, "dtype '' is not known"},
    {A("\"dtype\":8,\"shape\":[1],\"data_offsets\":[0,1]"), 1, "tensor 'a': dtype is no string"},
    {A("\"dtype\":null,\"shape\":[1],\"data_offsets\":[0,1]"), 1, "dtype is no string"},
    /* shape */
    {A("\"dtype\":\"U8\",\"shape\":1,\"data_offsets\":[0,1]"), 1,
     "tensor 'a': shape is no array of whole numbers"},
    {A("\"dtype\":\"U8\",\"shape\":[-1],\"data_offsets\":[0,1]"), 1, "shape is no array of whole"},
    {A("\"dtype\":\"U8\",\"shape\":[1.0],\"data_offsets\":[0,1]"), 1, "shape is no array of whole"},
    {A("\"dtype\":\"U8\",\"shape\":[1e0],\"data_offsets\":[0,1]"), 1, "shape is no array of whole"},
    {A("\"dtype\":\"U8\",\"shape\":[\"1\"],\"data_offsets\":[0,1]"), 1, "shape is no array"},
    {A("\"dtype\":\"U8\",\"shape\":[18446744073709551616],\"data_offsets\":[0,1]"), 1,
     "shape is no array of whole numbers"},
    {A("\"dtype\":\"U8\",\"shape\":[1,1,1,1,1,1,1,1,1],\"data_offsets\":[0,1]"), 1,
     "tensor 'a': 9 dimensions, at most 8"},
    {A("\"dtype\":\"U8\",\"shape\":[[1]],\"data_offsets\":[0,1]"), 1, "nested deeper"},
    {A("\"dtype\":\"U8\",\"shape\":[4294967296,4294967296],\"data_offsets\":[0,0]"), 0,
     "tensor 'a': shape [4294967296, 4294967296] is more than"},
    {A("\"dtype\":\"F64\",\"shape\":[2305843009213693952],\"data_offsets\":[0,0]"), 0,
     "is more than any memory"},
    {A("\"dtype\":\"U8\",\"shape\":[4294967296,4294967296,0],\"data_offsets\":[0,0]"), 0,
     "is more than any memory"},
    {A("\"dtype\":\"U8\",\"shape\":[0,4294967296,4294967296],\"data_offsets\":[0,0]"), 0,
     "is more than any memory"},
    {A("\"dtype\":\"F4\",\"shape\":[3],\"data_offsets\":[0,1]"), 1,
     "tensor 'a': F4 [3] is not a whole number of bytes"},
    {A("\"dtype\":\"F6_E2M3\",\"shape\":[2],\"data_offsets\":[0,2]"), 2, "not a whole number"},
    /* data_offsets */
    {A("\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0]"), 1,
     "tensor 'a': data_offsets are not two whole numbers"},
    {A("\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1,1]"), 1, "are not two whole numbers"},
    {A("\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[]"), 1, "are not two whole numbers"},
    {A("\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":{}"), 1, "are not two whole numbers"},
    {A("\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,-1]"), 1, "are not two whole numbers"},
    {A("\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[1,0]"), 1,
     "tensor 'a': data_offsets [1, 0] end before they begin"},
    {A("\"dtype\":\"U8\",\"shape\":[0],"
       "\"data_offsets\":[18446744073709551615,18446744073709551615]"),
     0, "tensor 'a': data_offsets [18446744073709551615, 18446744073709551615] reach past"},
    {A("\"dtype\":\"U8\",\"shape\":[18446744073709551000],"
       "\"data_offsets\":[0,18446744073709551000]"),
     1, "tensor 'a': shape [18446744073709551000] is more"},
    {A("\"dtype\":\"U8\",\"shape\":[2],\"data_offsets\":[18446744073709551515,"
       "18446744073709551517]"),
     1, "tensor 'a': its place is beyond any file's end"},
    /* size, places */
    {A("\"dtype\":\"F32\",\"shape\":[3],\"data_offsets\":[0,8]"), 8,
     "tensor 'a': F32 [3] needs 12 bytes, the file gives it 8"},
    {A("\"dtype\":\"F32\",\"shape\":[],\"data_offsets\":[0,0]"), 0, "F32 [] needs 4 bytes"},
    {A("\"dtype\":\"F32\",\"shape\":[0],\"data_offsets\":[0,4]"), 4, "needs 0 bytes"},
    {A("\"dtype\":\"U8\",\"shape\":[2],\"data_offsets\":[0,2]"), 1, "it is truncated"},
    {A("\"dtype\":\"U8\",\"shape\":[2],\"data_offsets\":[0,2]"), 3,
     "1 bytes after the last tensor"},
    {A("\"dtype\":\"U8\",\"shape\":[2],\"data_offsets\":[1,3]"), 3, "1 bytes before tensor 'a'"},
    {"{}", 1, "1 bytes after the last tensor"},
    {"{" U8("a", "[2]", "[0,2]") "," U8("b", "[2]", "[3,5]") "}", 5, "1 bytes before tensor 'b'"},
    {"{" U8("a", "[2]", "[0,2]") "," U8("b", "[2]", "[1,3]") "}", 3, "'a' and 'b' overlap"},
    {"{" U8("a", "[2]", "[0,2]") "," U8("b", "[2]", "[0,2]") "}", 2, "'a' and 'b' overlap"},
    {"{" U8("a", "[4]", "[0,4]") "," U8("b", "[0]", "[2,2]") "}", 4,
     "tensor 'b' begins inside the one before"},
    {"{" U8("a", "[4]", "[0,4]") "," U8("b", "[0]", "[5,5]") "}", 4, "it is truncated"},
    /* __metadata__ */
    {"{\"__metadata__\":null}", 0, "__metadata__ is no object"},
    {"{\"__metadata__\":[]}", 0, "__metadata__ is no object"},
    {"{\"__metadata__\":{\"a\":1}}", 0, "__metadata__ 'a' is no string"},
    {"{\"__metadata__\":{\"a\":null}}", 0, "__metadata__ 'a' is no string"},
    {"{\"__metadata__\":{\"a\":{}}}", 0, "__metadata__: nested deeper"},
    {"{\"__metadata__\":{\"a\":\"1\",\"a\":\"2\"}}", 0, "'a' twice"},
    {"{\"__metadata__\":{},\"__metadata__\":{}}", 0, "'__metadata__' twice"},
};

static void safetensors__refuses_each_broken_field(void **state)
{
	(void)state;
	for (size_t i = 0; i < sizeof(refused) / sizeof(*refused); i++) {
		struct lora_error err = LORA_ERROR_INIT;
		struct lora_index index;
		size_t size;
		uint8_t *bytes = made_safetensors(refused[i].json, refused[i].data, &size);
		enum lora_status status = parse(&index, bytes, size, size, &err);

		if (status != LORA_INPUT || !strstr(err.message, refused[i].says) ||
		    strchr(err.message, '\n'))
			fail_msg("case %zu, %s: status %d, '%s' instead of '%s'", i,
				 refused[i].json, (int)status, err.message, refused[i].says);
		lora__index_fini(&index);
		free(bytes);
	}
}

/* The same member in a header that is large enough for several batches: duplicates are found across
 * them, and nothing is lost at their borders. */
static char *many_members(const char *first, size_t count, const char *last)
{
	size_t room = count * 100 + 200, at = 0;
	char *json = malloc(room);

	assert_non_null(json);
	at = (size_t)snprintf(json, room, "{%s", first);
	for (size_t i = 0; i < count; i++)
		at += (size_t)snprintf(json + at, room - at,
				       "\"x\\\"},{\\\\%zu\" : {\"dtype\":\"U8\",\"shape\":[1],"
				       "\"data_offsets\":[%zu,%zu]}\t,\n",
				       i, i, i + 1);
	snprintf(json + at, room - at, "%s}", last);
	return json;
}

static void safetensors__reads_many_tensors(void **state)
{
	enum { COUNT = 3000 };
	struct lora_error err = LORA_ERROR_INIT;
	struct lora_index index;
	size_t size;
	char *json = many_members("", COUNT, U8("last", "[2]", "[3000,3002]"));
	uint8_t *bytes = made_safetensors(json, COUNT + 2, &size);

	(void)state;
	assert_int_equal(parse(&index, bytes, size, size, &err), LORA_OK);
	assert_int_equal(index.count, COUNT + 1);
	for (size_t i = 0; i < COUNT; i++) {
		char name[32];

		snprintf(name, sizeof(name), "x\"},{\\%zu", i);
		assert_string_equal(index.tensors[i].name, name);
		assert_int_equal(index.tensors[i].begin, index.data_begin + i);
		assert_ptr_equal(lora__index_find(&index, name, strlen(name)), &index.tensors[i]);
	}
	assert_string_equal(index.tensors[COUNT].name, "last");
	lora__index_fini(&index);
	free(bytes);
	free(json);
}

static void safetensors__finds_duplicates_across_batches(void **state)
{
	enum { COUNT = 3000 };
	static const struct {
		const char *first, *last, *says;
		size_t data;
	} cases[] = {
	    {"", U8("x\\\"},{\\\\0", "[1]", "[3000,3001]"), "tensor 'x\"},{\\0' occurs twice",
	     3001},
	    {"\"__metadata__\":{},", "\"__metadata__\":{}", "__metadata__ occurs twice", 3000},
	    {"\"__metadata__\":{},", "\"\\u005f_metadata__\":{}", "__metadata__ occurs twice",
	     3000},
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
		struct lora_error err = LORA_ERROR_INIT;
		struct lora_index index;
		size_t size;
		char *json = many_members(cases[i].first, COUNT, cases[i].last);
		uint8_t *bytes = made_safetensors(json, cases[i].data, &size);

		assert_int_equal(parse(&index, bytes, size, size, &err), LORA_INPUT);
		assert_non_null(strstr(err.message, cases[i].says));
		lora__index_fini(&index);
		free(bytes);
		free(json);
	}
}

/* What would take much memory is refused by its length or depth alone. */
static void safetensors__refuses_oversized_members(void **state)
{
	static const struct {
		const char *begin, *fill, *end, *says;
		size_t length;
	} cases[] = {
	    {"{\"a\":[", "0,", "0]}", "65536 are supported", 70000},
	    {"{\"__metadata__\":{\"a\":[", "0,", "0]}}", "nested deeper", 70000},
	    {"{\"__metadata__\":{\"a\":\"", "xx", "\"}}", "16777216 are supported", 17000000},
	    {"{\"\\u005f_metadata__\":{\"a\":\"", "xx", "\"}}", "65536 are supported", 70000},
	    {"{", "\"\":0,", "\"\":0}", "cannot describe", 1000},
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
		size_t room = cases[i].length + 64, at, step = strlen(cases[i].fill), size;
		struct lora_error err = LORA_ERROR_INIT;
		struct lora_index index;
		uint8_t *bytes = NULL;
		char *json = malloc(room);

		assert_non_null(json);
		at = (size_t)snprintf(json, room, "%s", cases[i].begin);
		for (; at < cases[i].length; at += step)
			memcpy(json + at, cases[i].fill, step);
		snprintf(json + at, room - at, "%s", cases[i].end);
		bytes = made_safetensors(json, 0, &size);
		assert_int_equal(parse(&index, bytes, size, size, &err), LORA_INPUT);
		if (!strstr(err.message, cases[i].says))
			fail_msg("case %zu: '%s'", i, err.message);
		lora__index_fini(&index);
		free(bytes);
		free(json);
	}
}

static void safetensors__reads_large_metadata(void **state)
{
	static const char begin[] = "{\"__metadata__\":{\"t\":\"";
	size_t length = 1000000, front = sizeof(begin) - 1, size;
	char *json = malloc(front + length + sizeof("\"}}"));
	struct lora_error err = LORA_ERROR_INIT;
	struct lora_index index;
	uint8_t *bytes = NULL;

	(void)state;
	assert_non_null(json);
	memcpy(json, begin, front);
	memset(json + front, 'y', length);
	strcpy(json + front + length, "\"}}");
	bytes = made_safetensors(json, 0, &size);
	assert_int_equal(parse(&index, bytes, size, size, &err), LORA_OK);
	assert_int_equal(strlen(lora__index_metadata(&index, "t")), length);
	lora__index_fini(&index);
	free(bytes);
	free(json);
}

/* The header's length field. */
static void safetensors__refuses_impossible_lengths(void **state)
{
	static const struct {
		uint64_t length, file_size;
		const char *says;
	} cases[] = {
	    {3, 10, "would end at byte 11, but the file has 10 bytes"},
	    {100000000, 1000, "would end at byte 100000008"},
	    {100000001, UINT64_MAX, "100000001 bytes, more than the format's 100000000"},
	    {UINT64_MAX, UINT64_MAX, "18446744073709551615 bytes, more than"},
	    {UINT64_MAX - 7, 10, "more than the format's"},
	    {2, 7, "7 bytes are too few"},
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
		struct lora_error err = LORA_ERROR_INIT;
		uint8_t head[10] = {0, 0, 0, 0, 0, 0, 0, 0, '{', '}'};
		uint64_t need = 77;

		for (unsigned j = 0; j < 8; j++)
			head[j] = (uint8_t)(cases[i].length >> (8 * j));
		assert_int_equal(lora__safetensors.head_size(&need, head, sizeof(head),
							     cases[i].file_size, &err),
				 LORA_INPUT);
		assert_int_equal(need, 77);
		if (!strstr(err.message, cases[i].says))
			fail_msg("case %zu: '%s'", i, err.message);
	}
}

/* Since the last tensor must end with the file, no truncation is ever accepted. */
static void safetensors__refuses_every_truncation(void **state)
{
	size_t size;
	uint8_t *bytes = made_safetensors(GOOD, GOOD_DATA, &size);

	(void)state;
	for (size_t length = 0; length < size; length++) {
		struct lora_error err = LORA_ERROR_INIT;
		struct lora_index index;
		uint8_t *copy = malloc(length + 1); /* its own block, so that overruns are seen */

		assert_non_null(copy);
		copy = realloc(copy, length > 0 ? length : 1);
		memcpy(copy, bytes, length);
		assert_int_equal(parse(&index, copy, length, length, &err), LORA_INPUT);
		assert_int_not_equal(strlen(err.message), 0);
		lora__index_fini(&index);
		free(copy);
	}
	free(bytes);
}

/* What an accepted file must satisfy, judged from the index alone. */
static void check_sound(const struct lora_index *index, uint64_t size)
{
	uint64_t end = index->data_begin;

	for (size_t i = 0; i < index->count; i++) {
		const struct lora_tensor *tensor = &index->tensors[i];
		uint64_t bits = lora_dtype_bits(tensor->dtype);

		for (uint32_t j = 0; j < tensor->ndim; j++)
			bits *= tensor->shape[j];
		assert_int_equal(tensor->begin, end);
		assert_int_equal(bits, tensor->size * 8);
		assert_int_not_equal(tensor->name[0], 0);
		end += tensor->size;
	}
	assert_int_equal(end, size);
}

static void safetensors__survives_every_changed_byte(void **state)
{
	size_t size, accepted = 0;
	uint8_t *bytes = made_safetensors(GOOD, GOOD_DATA, &size);

	(void)state;
	for (size_t at = 0; at < size - GOOD_DATA; at++) {
		for (unsigned change = 1; change < 256; change++) {
			struct lora_error err = LORA_ERROR_INIT;
			struct lora_index index;

			bytes[at] ^= (uint8_t)change;
			if (parse(&index, bytes, size, size, &err) == LORA_OK) {
				check_sound(&index, size);
				accepted++;
			} else {
				assert_int_equal(err.status, LORA_INPUT);
			}
			lora__index_fini(&index);
			bytes[at] ^= (uint8_t)change;
		}
	}
	/* Names and metadata can become others, BF16 F16, [2,3] [3,2] by two flips but [6,1] by
	 * none. */
	assert_in_range(accepted, 1, size * 100);
	free(bytes);
}

static void safetensors__bids_for_its_own(void **state)
{
	static const uint8_t zip[16] = "PK\x03\x04", gguf[16] = "GGUF\x03\0\0\0{";
	uint8_t head[10] = {2, 0, 0, 0, 0, 0, 0, 0, '{', '}'};

	(void)state;
	assert_int_equal(lora__safetensors.probe(head, 10, 10), 90);
	assert_ptr_equal(lora__container_probe(head, 10, 10), &lora__safetensors);
	assert_int_equal(lora__safetensors.probe(head, 8, 8), 0);
	assert_int_equal(lora__safetensors.probe(head, 0, 0), 0);
	assert_int_equal(lora__safetensors.probe(head, 9, 9), 10); /* truncated */
	head[8] = '[';
	assert_int_equal(lora__safetensors.probe(head, 10, 10), 0);
	assert_int_equal(lora__safetensors.probe(zip, 16, 1000), 0);
	assert_in_range(lora__safetensors.probe(gguf, 16, 1000), 0, 10);
	assert_null(lora__container_probe(zip, 16, 1000));
}

/* --- emit ---------------------------------------------------------------------------------------
 */

static void safetensors__emits_the_expected_bytes(void **state)
{
	/* In the order given; 8 + 136 = 144 bytes, the header padded from 134 to a multiple of 8.
	 */
	static const char expected[] =
	    "{\"__metadata__\":{\"format\":\"pt\"},"
	    "\"w\":{\"dtype\":\"F32\",\"shape\":[2,3],\"data_offsets\":[0,24]},"
	    "\"a\\\"\":{\"dtype\":\"BF16\",\"shape\":[],\"data_offsets\":[24,26]}}";
	struct lora_tensor tensors[2] = {
	    {.name = "w", .dtype = LORA_DTYPE_F32, .ndim = 2, .shape = {2, 3}, .size = 24},
	    {.name = "a\"", .dtype = LORA_DTYPE_BF16, .ndim = 0, .size = 2},
	};
	const struct lora_metadata metadata = {"format", "pt"};
	struct lora_error err = LORA_ERROR_INIT;
	size_t length = sizeof(expected) - 1, padded = (length + 7) / 8 * 8, size = 0;
	uint8_t *head = NULL;

	(void)state;
	assert_int_equal(lora__safetensors.emit(&head, &size, tensors, 2, &metadata, 1, &err),
			 LORA_OK);
	assert_int_equal(size, 8 + padded);
	assert_int_equal(head[0], padded);
	for (size_t i = 1; i < 8; i++)
		assert_int_equal(head[i], 0);
	assert_memory_equal(head + 8, expected, length);
	for (size_t i = length; i < padded; i++)
		assert_int_equal(head[8 + i], ' ');
	assert_int_equal(tensors[0].begin, size);
	assert_int_equal(tensors[1].begin, size + 24);
	free(head);
}

static void safetensors__emits_a_file_without_tensors(void **state)
{
	struct lora_error err = LORA_ERROR_INIT;
	uint8_t *head = NULL;
	size_t size = 0;

	(void)state;
	assert_int_equal(lora__safetensors.emit(&head, &size, NULL, 0, NULL, 0, &err), LORA_OK);
	assert_int_equal(size, 16);
	assert_memory_equal(head, "\x08\0\0\0\0\0\0\0{}      ", 16);
	free(head);
}

static void safetensors__emits_nothing_unreadable(void **state)
{
	static const struct lora_tensor good = {
	    .name = "x", .dtype = LORA_DTYPE_U8, .ndim = 1, .shape = {2}, .size = 2};
	static const struct {
		struct lora_tensor tensor;
		struct lora_metadata pair;
		const char *says;
	} cases[] = {
	    {{.name = "x", .dtype = LORA_DTYPE_U8, .ndim = 1, .shape = {2}, .size = 2},
	     {"k", "v"},
	     "'x' twice"},
	    {{.name = "y", .dtype = LORA_DTYPE_U8, .ndim = 1, .shape = {2}, .size = 3},
	     {"k", "v"},
	     "tensor 'y': U8 [2] needs 2 bytes"},
	    {{.name = "", .dtype = LORA_DTYPE_U8, .ndim = 1, .shape = {2}, .size = 2},
	     {"k", "v"},
	     "no name"},
	    {{.name = "y\xff", .dtype = LORA_DTYPE_U8, .ndim = 1, .shape = {2}, .size = 2},
	     {"k", "v"},
	     "tensor 'y\\xFF' cannot be written"},
	    {{.name = "__metadata__", .dtype = LORA_DTYPE_U8, .ndim = 1, .shape = {2}, .size = 2},
	     {"k", "v"},
	     "__metadata__"},
	    {{.name = "y", .dtype = LORA_DTYPE_NONE, .ndim = 1, .shape = {2}, .size = 2},
	     {"k", "v"},
	     "tensor 'y': dtype is no string"},
	    {{.name = "y", .dtype = LORA_DTYPE_U8, .ndim = 9, .shape = {2}, .size = 2},
	     {"k", "v"},
	     "tensor 'y'"},
	    {{.name = "y", .dtype = LORA_DTYPE_U8, .ndim = 1, .shape = {2}, .size = UINT64_MAX},
	     {"k", "v"},
	     "tensor 'y': the sizes overflow"},
	    {{.name = "y", .dtype = LORA_DTYPE_U8, .ndim = 1, .shape = {2}, .size = 2},
	     {"k", "\xff"},
	     "__metadata__ 'k' cannot be written"},
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
		struct lora_tensor tensors[2] = {good, cases[i].tensor};
		struct lora_error err = LORA_ERROR_INIT;
		uint8_t *head = NULL;
		size_t size = 1;

		assert_int_not_equal(
		    lora__safetensors.emit(&head, &size, tensors, 2, &cases[i].pair, 1, &err),
		    LORA_OK);
		assert_null(head);
		assert_int_equal(size, 0);
		if (!strstr(err.message, cases[i].says))
			fail_msg("case %zu: '%s' instead of '%s'", i, err.message, cases[i].says);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(safetensors__reads_what_the_header_says),
	    cmocka_unit_test(safetensors__needs_the_head_only),
	    cmocka_unit_test(safetensors__reads_files_without_tensors),
	    cmocka_unit_test(safetensors__reads_heads_of_huge_files),
	    cmocka_unit_test(safetensors__refuses_each_broken_field),
	    cmocka_unit_test(safetensors__reads_many_tensors),
	    cmocka_unit_test(safetensors__finds_duplicates_across_batches),
	    cmocka_unit_test(safetensors__refuses_oversized_members),
	    cmocka_unit_test(safetensors__reads_large_metadata),
	    cmocka_unit_test(safetensors__refuses_impossible_lengths),
	    cmocka_unit_test(safetensors__refuses_every_truncation),
	    cmocka_unit_test(safetensors__survives_every_changed_byte),
	    cmocka_unit_test(safetensors__bids_for_its_own),
	    cmocka_unit_test(safetensors__emits_the_expected_bytes),
	    cmocka_unit_test(safetensors__emits_a_file_without_tensors),
	    cmocka_unit_test(safetensors__emits_nothing_unreadable),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
