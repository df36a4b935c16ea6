/* SPDX-License-Identifier: Apache-2.0 */
/* formats/containers/safetensors.c - the safetensors container
 *
 * What it is     named tensors behind a JSON header, as Hugging Face defines it: "Format" in
 *                https://github.com/huggingface/safetensors (README.md), read 2026 at version 0.8.
 * Layout
 *		u64 LE	n, the length of the header
 *		n bytes	header, JSON, may end in white space; '{' is its first byte
 *		...	data: the tensors' bytes, one after the other
 *
 *	header	{ "__metadata__": { KEY: STRING, ... }		(optional)
 *		  NAME: { "dtype": "F32",
 *			  "shape": [ROWS, COLUMNS],		row-major; [] is a scalar
 *			  "data_offsets": [BEGIN, END] },	from the first byte of data
 *		  ... }
 *
 * Invariants, beside those of formats/container.h
 *	(1) n <= 100,000,000 and 8 + n <= the file's size.
 *	(2) A tensor has exactly the keys dtype, shape and data_offsets; a dtype that we do not know
 *	    is refused by name.
 *	(3) Sorted, the tensors fill the data from its first byte to the file's last: no hole, no
 *	    byte after them. What no tensor covers could be a second file (a polyglot), and no
 *digest of tensors would see it. (4) Memory while parsing is the index plus the JSON of one batch
 *(BATCH, or one member). A tree over a header of 100 MB would take 2 GB. How            The header
 *is cut into the members of its outermost object, a few hundred at a time; each batch, in braces,
 *is a JSON object for the strict parser of base/json.h. The pieces are valid JSON exactly if the
 *whole is: a member ends at a comma or brace outside of strings and nested values, and an object is
 *its members joined by commas. Decisions      Stricter than the reference implementation: no
 *duplicate keys (it takes the last), no further keys in a tensor, no empty name, at most
 *LORA_MAX_DIMS dimensions, `{` as the very first byte (the text of the format says so). As lenient:
 *any order of the members, empty tensors, no alignment of data. Traps          Offsets count from
 *the end of the header, not from the start of the file. A header's member order is no promise: old
 *writers sorted by name. Lengths of 2^63 are favourites of those who test parsers: every sum is
 *checked. Tested by      tests/unit/test_safetensors.c, tests/fuzz/fuzz_safetensors.c
 */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include <loractl/json.h>

#include "base/checked.h"
#include "base/error.h"
#include "base/json.h"
#include "formats/container.h"

#define PREFIX	 8u /* bytes of the header's length */
#define METADATA "__metadata__"
/* A batch of members is parsed at once: large enough that the fixed cost of a parse (a seed, a
 * table) is shared by hundreds, small enough that its tree, some thirty times the text, stays in
 * the cache. */
#define BATCH 65536u
/* One tensor's member: a name of LORA_NAME_LIMIT bytes, each spelled \u0000, and eight numbers. */
#define ENTRY_LIMIT 65536u
/* __metadata__ alone: trainers put tag counts and thumbnails there, some megabytes at most. */
#define METADATA_LIMIT (16u << 20)
/* The shortest member that describes a tensor is
 * "a":{"dtype":"U8","shape":[],"data_offsets":[0,0]}. */
#define ENTRY_MIN 50u

/* The header's text and where we are in it. Members are text[begin, end). */
struct cursor {
	const char *text;
	size_t size, at;
};

struct member {
	size_t begin, end;
	unsigned depth; /* of nested brackets */
	bool last;	/* a '}' follows, not a ',' */
};

static int probe(const uint8_t *head, size_t size, uint64_t file_size)
{
	uint64_t length = 0;

	if (size <= PREFIX || head[PREFIX] != '{')
		return 0;
	for (unsigned i = 0; i < PREFIX; i++)
		length |= (uint64_t)head[i] << (8 * i);
	/* A brace alone is one byte of evidence; a length that fits as well makes nine. */
	return length <= LORA_HEADER_LIMIT && length + PREFIX <= file_size ? 90 : 10;
}

static enum lora_status head_size(uint64_t *need, const uint8_t *head, size_t size,
				  uint64_t file_size, struct lora_error *err)
{
	uint64_t length = 0;

	if (size < PREFIX || file_size < PREFIX)
		return lora__fail(err, LORA_INPUT,
				  "%" PRIu64
				  " bytes are too few for a safetensors header: " LORA_DAMAGED,
				  file_size);
	for (unsigned i = 0; i < PREFIX; i++)
		length |= (uint64_t)head[i] << (8 * i);
	if (length > LORA_HEADER_LIMIT)
		return lora__fail(err, LORA_INPUT,
				  "its header would have %" PRIu64
				  " bytes, more than the format's %u: " LORA_DAMAGED,
				  length, LORA_HEADER_LIMIT);
	if (length > file_size - PREFIX)
		return lora__fail(err, LORA_INPUT,
				  "its header would end at byte %" PRIu64
				  ", but the file has %" PRIu64
				  " bytes: it is truncated: fetch or save it again",
				  length + PREFIX, file_size);
	*need = length + PREFIX;
	return LORA_OK;
}

/* --- cutting the header into members ------------------------------------------------------------
 */

static bool is_space(char c)
{
	return c == ' ' || c == '\t' || c == '\n' || c == '\r';
}

static size_t skip_space(const char *text, size_t size, size_t at)
{
	while (at < size && is_space(text[at]))
		at++;
	return at;
}

/* The byte after the string whose opening quote is at text[at], or size if it never closes. */
static size_t skip_string(const char *text, size_t size, size_t at)
{
	for (at++; at < size && text[at] != '"'; at++)
		if (text[at] == '\\')
			at++;
	return at < size ? at + 1 : size;
}

/* The next member, up to the comma or brace that ends it, which is passed too. */
static enum lora_status next_member(struct cursor *cursor, struct member *member,
				    struct lora_error *err)
{
	const char *text = cursor->text;
	size_t size = cursor->size, at = cursor->at;
	unsigned depth = 0;

	*member = (struct member){at, at, 0, false};
	while (at < size) {
		char c = text[at];

		if (c == '"') {
			at = skip_string(text, size, at);
			continue;
		}
		if (depth == 0 && (c == ',' || c == '}')) {
			member->end = at;
			member->last = c == '}';
			cursor->at = at + 1;
			return LORA_OK;
		}
		if (c == '{' || c == '[') {
			if (++depth > member->depth)
				member->depth = depth;
		} else if (depth > 0 && (c == '}' || c == ']')) {
			depth--;
		}
		at++;
	}
	return lora__fail(err, LORA_INPUT, "its header does not end in '}': " LORA_DAMAGED);
}

/* Counts the members, so that the index is allocated once. Only white space follows the object. */
static enum lora_status count_members(struct cursor cursor, size_t *count, struct lora_error *err)
{
	enum lora_status status = LORA_OK;
	struct member member = {0};

	*count = 0;
	if (cursor.size == 0 || cursor.text[0] != '{')
		return lora__fail(err, LORA_INPUT,
				  "its header does not begin with '{': " LORA_DAMAGED);
	cursor.at = 1;
	while (!member.last) {
		status = next_member(&cursor, &member, err);
		if (status != LORA_OK)
			return status;
		++*count;
	}
	if (*count == 1 && skip_space(cursor.text, member.end, member.begin) == member.end)
		*count = 0;
	if (skip_space(cursor.text, cursor.size, cursor.at) != cursor.size)
		return lora__fail(err, LORA_INPUT,
				  "something follows the header's last '}': " LORA_DAMAGED);
	if (*count > cursor.size / ENTRY_MIN + 2)
		return lora__fail(
		    err, LORA_INPUT,
		    "its header of %zu bytes cannot describe %zu tensors: " LORA_DAMAGED,
		    cursor.size, *count);
	return LORA_OK;
}

/* --- one tensor ---------------------------------------------------------------------------------
 */

/* Copies a JSON array of at most `limit` whole numbers. */
static bool read_numbers(const struct lora_json *array, uint64_t *numbers, uint32_t limit,
			 uint32_t *count)
{
	const struct lora_json *item = NULL;

	*count = 0;
	if (lora__json_type(array) != LORA_JSON_ARRAY)
		return false;
	for (item = lora__json_first(array); item; item = lora__json_next(item))
		if (*count == limit || !lora__json_u64(item, &numbers[(*count)++]))
			return false;
	return true;
}

static enum lora_status read_shape(struct lora_tensor *tensor, const struct lora_json *shape,
				   struct lora_error *err)
{
	if (read_numbers(shape, tensor->shape, LORA_MAX_DIMS, &tensor->ndim))
		return LORA_OK;
	if (lora__json_type(shape) == LORA_JSON_ARRAY && lora__json_count(shape) > LORA_MAX_DIMS)
		return lora__fail(
		    err, LORA_INPUT,
		    "tensor '%s': %zu dimensions, at most %d are supported: reshape it "
		    "before saving",
		    lora__escape(tensor->name), lora__json_count(shape), LORA_MAX_DIMS);
	return lora__fail(err, LORA_INPUT,
			  "tensor '%s': shape is no array of whole numbers: " LORA_DAMAGED,
			  lora__escape(tensor->name));
}

static enum lora_status read_offsets(struct lora_tensor *tensor, const struct lora_json *offsets,
				     uint64_t data_begin, struct lora_error *err)
{
	uint64_t pair[2] = {0, 0};
	uint32_t count;

	if (!read_numbers(offsets, pair, 2, &count) || count != 2)
		return lora__fail(
		    err, LORA_INPUT,
		    "tensor '%s': data_offsets are not two whole numbers: " LORA_DAMAGED,
		    lora__escape(tensor->name));
	if (pair[1] < pair[0])
		return lora__fail(err, LORA_INPUT,
				  "tensor '%s': data_offsets [%" PRIu64 ", %" PRIu64
				  "] end before they begin: " LORA_DAMAGED,
				  lora__escape(tensor->name), pair[0], pair[1]);
	tensor->size = pair[1] - pair[0];
	if (lora__add_overflows(pair[0], data_begin, &tensor->begin))
		return lora__fail(err, LORA_INPUT,
				  "tensor '%s': data_offsets [%" PRIu64 ", %" PRIu64
				  "] reach past any file's end: " LORA_DAMAGED,
				  lora__escape(tensor->name), pair[0], pair[1]);
	return LORA_OK;
}

static enum lora_status read_dtype(struct lora_tensor *tensor, const struct lora_json *dtype,
				   struct lora_error *err)
{
	const char *name = lora__json_string(dtype);

	if (!name)
		return lora__fail(err, LORA_INPUT, "tensor '%s': dtype is no string: " LORA_DAMAGED,
				  lora__escape(tensor->name));
	tensor->dtype = lora_dtype_find(name, strlen(name));
	if (tensor->dtype == LORA_DTYPE_NONE)
		return lora__fail(err, LORA_INPUT,
				  "tensor '%s': dtype '%s' is not known: save it in another type",
				  lora__escape(tensor->name), lora__escape(name));
	return LORA_OK;
}

/* One member of a tensor's object, by its key; *seen collects which were there. */
static enum lora_status read_field(struct lora_tensor *tensor, const struct lora_json *field,
				   uint64_t data_begin, unsigned *seen, struct lora_error *err)
{
	const char *key = lora__json_key(field);

	if (strcmp(key, "dtype") == 0) {
		*seen |= 1;
		return read_dtype(tensor, field, err);
	}
	if (strcmp(key, "shape") == 0) {
		*seen |= 2;
		return read_shape(tensor, field, err);
	}
	if (strcmp(key, "data_offsets") == 0) {
		*seen |= 4;
		return read_offsets(tensor, field, data_begin, err);
	}
	return lora__fail(err, LORA_INPUT, /* [2] */
			  "tensor '%s': key '%s' is not of the safetensors format: " LORA_DAMAGED,
			  lora__escape(tensor->name), lora__escape(key));
}

static enum lora_status read_tensor(struct lora_index *index, const struct lora_json *member,
				    struct lora_error *err)
{
	/* by `seen`: the first of dtype 1, shape 2, data_offsets 4 that is not there */
	static const char *const missing[8] = {"dtype", "shape", "dtype", "data_offsets",
					       "dtype", "shape", "dtype", NULL};
	const char *name = lora__json_key(member);
	struct lora_tensor *tensor = &index->tensors[index->count];
	enum lora_status status = LORA_OK;
	unsigned seen = 0;

	tensor->name = lora__arena_copy(&index->arena, name, strlen(name));
	if (!tensor->name)
		return lora__fail_memory(err);
	if (lora__json_type(member) != LORA_JSON_OBJECT)
		return lora__fail(err, LORA_INPUT,
				  "tensor '%s': its description is no object: " LORA_DAMAGED,
				  lora__escape(name));
	member = lora__json_first(member);
	for (; member && status == LORA_OK; member = lora__json_next(member))
		status = read_field(tensor, member, index->data_begin, &seen, err);
	if (status == LORA_OK && missing[seen])
		return lora__fail(err, LORA_INPUT, "tensor '%s': %s is missing: " LORA_DAMAGED,
				  lora__escape(name), missing[seen]);
	index->count++;
	return status;
}

/* --- the header ---------------------------------------------------------------------------------
 */

static enum lora_status read_metadata(struct lora_index *index, const struct lora_json *member,
				      struct lora_error *err)
{
	const struct lora_json *item = lora__json_first(member);
	size_t count = lora__json_count(member);

	if (lora__json_type(member) != LORA_JSON_OBJECT)
		return lora__fail(err, LORA_INPUT, METADATA " is no object: " LORA_DAMAGED);
	index->metadata = lora__arena_array(&index->arena, count, sizeof(*index->metadata));
	if (!index->metadata)
		return lora__fail_memory(err);
	for (; item; item = lora__json_next(item)) {
		struct lora_metadata *pair = &index->metadata[index->metadata_count++];
		const char *key = lora__json_key(item), *value = lora__json_string(item);

		if (!value)
			return lora__fail(err, LORA_INPUT,
					  METADATA " '%s' is no string: " LORA_DAMAGED,
					  lora__escape(key));
		pair->key = lora__arena_copy(&index->arena, key, strlen(key));
		pair->value = lora__arena_copy(&index->arena, value, strlen(value));
		if (!pair->key || !pair->value)
			return lora__fail_memory(err);
	}
	return LORA_OK;
}

/* Parses "{" text[begin, end) "}" and takes every member into the index. */
static enum lora_status read_batch(struct lora_index *index, const char *text, size_t begin,
				   size_t end, struct lora_error *err)
{
	size_t size = end - begin;
	const struct lora_json *member = NULL;
	enum lora_status status = LORA_OK;
	struct lora_json *json = NULL;
	char *object = NULL;

	object = malloc(size + 2);
	if (!object)
		return lora__fail_memory(err);
	object[0] = '{';
	memcpy(object + 1, text + begin, size);
	object[size + 1] = '}';
	status = lora__json_parse(&json, object, size + 2, err);
	free(object);
	if (status != LORA_OK) /* its column 1 is the brace before text[begin] */
		return lora__context(err, status, "header, from byte %zu", PREFIX + begin - 1);
	member = lora__json_first(json);
	for (; member && status == LORA_OK; member = lora__json_next(member)) {
		if (strcmp(lora__json_key(member), METADATA) != 0)
			status = read_tensor(index, member, err);
		else if (index->metadata)
			status =
			    lora__fail(err, LORA_INPUT, METADATA " occurs twice: " LORA_DAMAGED);
		else
			status = read_metadata(index, member, err);
	}
	lora__json_free(json);
	return status;
}

/* Is the member __metadata__? (Spelled with escapes it is found after parsing, and must be short.)
 */
static bool is_metadata(const struct cursor *cursor, const struct member *member)
{
	static const char key[] = "\"" METADATA "\"";
	size_t at = skip_space(cursor->text, member->end, member->begin);

	return member->end - at >= sizeof(key) - 1 &&
	       memcmp(cursor->text + at, key, sizeof(key) - 1) == 0;
}

/* Refuses, before memory is taken, what would cost much of it. */
static enum lora_status check_member(const struct cursor *cursor, const struct member *member,
				     struct lora_error *err)
{
	bool metadata = is_metadata(cursor, member);
	size_t size = member->end - member->begin, limit = metadata ? METADATA_LIMIT : ENTRY_LIMIT;
	const char *text = cursor->text + member->begin;

	if (size > limit)
		return lora__fail(
		    err, LORA_INPUT,
		    "%s: %zu bytes of header, at most %zu are supported: " LORA_DAMAGED,
		    metadata ? METADATA : lora__escape_n(text, 60), size, limit);
	if (member->depth > (metadata ? 1 : 2))
		return lora__fail(err, LORA_INPUT,
				  "%s: nested deeper than the format allows: " LORA_DAMAGED,
				  metadata ? METADATA : lora__escape_n(text, size));
	return LORA_OK;
}

/* Collects members until a batch is full; text[*begin, *end) is it. */
static enum lora_status next_batch(struct cursor *cursor, size_t *begin, size_t *end, bool *last,
				   struct lora_error *err)
{
	enum lora_status status = LORA_OK;
	struct member member = {0};

	*begin = cursor->at;
	do {
		status = next_member(cursor, &member, err);
		if (status == LORA_OK)
			status = check_member(cursor, &member, err);
		if (status != LORA_OK)
			return status;
	} while (!member.last && member.end - *begin < BATCH);
	*end = member.end;
	*last = member.last;
	return LORA_OK;
}

static enum lora_status read_header(struct lora_index *index, struct cursor cursor,
				    struct lora_error *err)
{
	enum lora_status status = LORA_OK;
	size_t count = 0, begin = 0, end = 0;
	bool last = false;

	status = count_members(cursor, &count, err);
	if (status != LORA_OK)
		return status;
	index->tensors = lora__arena_array(&index->arena, count + 1, sizeof(*index->tensors));
	if (!index->tensors)
		return lora__fail_memory(err);
	cursor.at = 1;
	while (!last) {
		status = next_batch(&cursor, &begin, &end, &last, err);
		if (status != LORA_OK)
			return status;
		status = read_batch(index, cursor.text, begin, end, err);
		if (status != LORA_OK)
			return status;
	}
	return LORA_OK;
}

/* [3] */
static enum lora_status check_contiguous(const struct lora_index *index, uint64_t file_size,
					 struct lora_error *err)
{
	uint64_t end = index->data_begin;

	for (size_t i = 0; i < index->count; i++) {
		const struct lora_tensor *tensor = &index->tensors[i];

		if (tensor->begin > end)
			return lora__fail(err, LORA_INPUT,
					  "%" PRIu64
					  " bytes before tensor '%s' belong to none: " LORA_DAMAGED,
					  tensor->begin - end, lora__escape(tensor->name));
		if (tensor->begin < end)
			return lora__fail(
			    err, LORA_INPUT,
			    "tensor '%s' begins inside the one before it: " LORA_DAMAGED,
			    lora__escape(tensor->name));
		end += tensor->size;
	}
	if (end != file_size)
		return lora__fail(err, LORA_INPUT,
				  "%" PRIu64
				  " bytes after the last tensor belong to none: " LORA_DAMAGED,
				  file_size - end);
	return LORA_OK;
}

static enum lora_status parse(struct lora_index *index, const uint8_t *head, size_t size,
			      uint64_t file_size, struct lora_error *err)
{
	enum lora_status status = LORA_OK;
	struct cursor cursor = {NULL, 0, 0};
	uint64_t need = 0;

	status = head_size(&need, head, size, file_size, err);
	if (status != LORA_OK)
		return status;
	if (need > size)
		return lora__fail(err, LORA_USAGE, "a header of %" PRIu64 " bytes was read as %zu",
				  need, size);
	cursor.text = (const char *)head + PREFIX;
	cursor.size = (size_t)need - PREFIX;
	index->data_begin = need;
	status = read_header(index, cursor, err);
	if (status == LORA_OK)
		status = lora__index_finish(index, file_size, err);
	if (status == LORA_OK)
		status = check_contiguous(index, file_size, err);
	return status;
}

/* --- writing ------------------------------------------------------------------------------------
 */

static void emit_tensor(struct lora_json_writer *writer, const struct lora_tensor *tensor,
			uint64_t offset)
{
	lora_json_key(writer, tensor->name);
	lora_json_begin_object(writer);
	lora_json_key(writer, "dtype");
	lora_json_string(writer, lora_dtype_name(tensor->dtype));
	lora_json_key(writer, "shape");
	lora_json_begin_array(writer);
	for (uint32_t i = 0; i < tensor->ndim && i < LORA_MAX_DIMS; i++)
		lora_json_uint(writer, tensor->shape[i]);
	lora_json_end_array(writer);
	lora_json_key(writer, "data_offsets");
	lora_json_begin_array(writer);
	lora_json_uint(writer, offset);
	lora_json_uint(writer, offset + tensor->size);
	lora_json_end_array(writer);
	lora_json_end_object(writer);
}

/* The header's JSON; *data is the size of all tensors. */
static enum lora_status emit_json(struct lora_json_writer *writer,
				  const struct lora_tensor *tensors, size_t count,
				  const struct lora_metadata *metadata, size_t metadata_count,
				  uint64_t *data, struct lora_error *err)
{
	lora_json_begin_object(writer);
	if (metadata_count > 0) {
		lora_json_key(writer, METADATA);
		lora_json_begin_object(writer);
		for (size_t i = 0; i < metadata_count; i++) {
			lora_json_key(writer, metadata[i].key);
			lora_json_string(writer, metadata[i].value);
		}
		lora_json_end_object(writer);
	}
	*data = 0;
	for (size_t i = 0; i < count; i++) {
		uint64_t begin = *data;

		if (lora__add_overflows(begin, tensors[i].size, data))
			return lora__fail(err, LORA_USAGE, "tensor '%s': the sizes overflow",
					  lora__escape(tensors[i].name));
		emit_tensor(writer, &tensors[i], begin);
	}
	lora_json_end_object(writer);
	return LORA_OK;
}

/* What was emitted says what was meant: the head is parsed, and every tensor and pair compared. */
static enum lora_status check_emitted(const uint8_t *head, size_t size, uint64_t file_size,
				      const struct lora_tensor *tensors, size_t count,
				      const struct lora_metadata *metadata, struct lora_error *err)
{
	enum lora_status status = LORA_OK;
	struct lora_index index = {0};

	status = parse(&index, head, size, file_size, err);
	if (status != LORA_OK) {
		status = lora__context(err, status, "cannot write a safetensors header");
		goto out;
	}
	for (size_t i = 0; i < count && status == LORA_OK; i++) {
		const struct lora_tensor *a = &tensors[i];
		const struct lora_tensor *b = lora__index_find(&index, a->name, strlen(a->name));

		if (!b || a->begin != b->begin || a->size != b->size || a->dtype != b->dtype ||
		    a->ndim != b->ndim ||
		    memcmp(a->shape, b->shape, a->ndim * sizeof(*a->shape)) != 0)
			status =
			    lora__fail(err, LORA_INPUT,
				       "tensor '%s' cannot be written to a safetensors header: "
				       "rename it",
				       lora__escape(a->name));
	}
	for (size_t i = 0; i < index.metadata_count && status == LORA_OK; i++)
		if (strcmp(index.metadata[i].key, metadata[i].key) != 0 ||
		    strcmp(index.metadata[i].value, metadata[i].value) != 0)
			status = lora__fail(err, LORA_INPUT,
					    METADATA " '%s' cannot be written: it is not UTF-8",
					    lora__escape(metadata[i].key));
out:
	lora__index_fini(&index);
	return status;
}

/* Length, text, and spaces up to a multiple of eight, so that data is aligned when mapped. */
static enum lora_status make_head(uint8_t **head, size_t *size, const char *text, size_t length,
				  struct lora_error *err)
{
	size_t padded = (length + 7) / 8 * 8;

	if (length > LORA_HEADER_LIMIT - 7)
		return lora__fail(
		    err, LORA_INPUT,
		    "a safetensors header of %zu bytes is more than the format's %u: use "
		    "more shards",
		    length, LORA_HEADER_LIMIT);
	*head = malloc(PREFIX + padded);
	if (!*head)
		return lora__fail_memory(err);
	for (unsigned i = 0; i < PREFIX; i++)
		(*head)[i] = (uint8_t)((uint64_t)padded >> (8 * i));
	memcpy(*head + PREFIX, text, length);
	memset(*head + PREFIX + length, ' ', padded - length);
	*size = PREFIX + padded;
	return LORA_OK;
}

static enum lora_status emit(uint8_t **head, size_t *size, struct lora_tensor *tensors,
			     size_t count, const struct lora_metadata *metadata,
			     size_t metadata_count, struct lora_error *err)
{
	struct lora_json_writer *writer = lora_json_writer_new(LORA_JSON_COMPACT);
	enum lora_status status = LORA_OK;
	const char *text = NULL;
	size_t length = 0;
	uint64_t data = 0;

	*head = NULL;
	*size = 0;
	status = emit_json(writer, tensors, count, metadata, metadata_count, &data, err);
	if (status == LORA_OK)
		status = lora_json_writer_text(writer, &text, &length, err);
	if (status == LORA_OK)
		status = make_head(head, size, text, length, err);
	if (status != LORA_OK)
		goto out;
	for (size_t i = 0; i < count; i++)
		tensors[i].begin = i == 0 ? *size : tensors[i - 1].begin + tensors[i - 1].size;
	status = check_emitted(*head, *size, *size + data, tensors, count, metadata, err);
out:
	if (status != LORA_OK) {
		free(*head);
		*head = NULL;
		*size = 0;
	}
	lora_json_writer_free(writer);
	return status;
}

const struct lora_container lora__safetensors = {
    .name = "safetensors",
    .suffix = ".safetensors",
    .probe = probe,
    .head_size = head_size,
    .parse = parse,
    .emit = emit,
};
