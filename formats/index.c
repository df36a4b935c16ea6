/* SPDX-License-Identifier: Apache-2.0 */
/* formats/index.c - the list of a file's tensors, and the proof that it can be trusted.
 *
 * What it is     every container's parse() fills an array of tensors from bytes of a stranger and
 * then calls lora__index_finish(). What holds for all formats is proved here, once, so that a new
 * format cannot forget it. Invariants     those of formats/container.h; the code cites them as [1]
 * to [4]. Decisions      A dimension of zero is legal and makes the tensor empty, but the others
 * must still multiply without overflow, in any order: code behind this file multiplies some of
 *                them. Control characters are refused in names although JSON could carry them: no
 *                trainer writes them, and a terminal or a log obeys them.
 * Traps          Empty tensors share their begin with the next one; sorting by size second, and by
 * name third, keeps the order the same whatever the file's own order was. Tested by
 * tests/unit/test_index.c, tests/unit/test_safetensors.c, tests/fuzz/fuzz_safetensors.c
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "base/error.h"
#include "base/utf8.h"
#include "formats/container.h"

void lora__index_fini(struct lora_index *index)
{
	lora__map_fini(&index->by_name);
	lora__arena_fini(&index->arena);
	memset(index, 0, sizeof(*index));
}

const struct lora_tensor *lora__index_find(const struct lora_index *index, const char *name,
					   size_t length)
{
	uint32_t found = lora__map_find(&index->by_name, name, length);

	return found == UINT32_MAX ? NULL : &index->tensors[found];
}

const char *lora__index_metadata(const struct lora_index *index, const char *key)
{
	for (size_t i = 0; i < index->metadata_count; i++)
		if (strcmp(index->metadata[i].key, key) == 0)
			return index->metadata[i].value;
	return NULL;
}

/* C0, DEL and C1. */
static bool is_control(uint32_t code)
{
	return code < 0x20 || (code >= 0x7f && code < 0xa0);
}

/* [1], all but uniqueness. */
static enum lora_status check_name(const char *name, struct lora_error *err)
{
	size_t length = strlen(name), at = 0, step;
	uint32_t code;

	if (length == 0)
		return lora__fail(err, LORA_INPUT, "a tensor has no name: " LORA_DAMAGED);
	if (length > LORA_NAME_LIMIT)
		return lora__fail(
		    err, LORA_INPUT,
		    "tensor '%s': its name has %zu bytes, more than %u: " LORA_DAMAGED,
		    lora__escape(name), length, LORA_NAME_LIMIT);
	for (; at < length; at += step) {
		step = lora__utf8_decode(name + at, length - at, &code);
		if (step == 0 || is_control(code))
			return lora__fail(err, LORA_INPUT,
					  "tensor '%s': its name holds a control character or is "
					  "not UTF-8: " LORA_DAMAGED,
					  lora__escape(name));
	}
	return LORA_OK;
}

/* "[2, 3]": at most LORA_MAX_DIMS numbers of 20 digits. */
#define SHAPE_TEXT (24 * LORA_MAX_DIMS)
static void shape_text(char text[SHAPE_TEXT], const struct lora_tensor *tensor)
{
	size_t at = 0, room = SHAPE_TEXT;

	text[at++] = '[';
	for (uint32_t i = 0; i < tensor->ndim; i++)
		at += (size_t)snprintf(text + at, room - at, "%s%" PRIu64, i > 0 ? ", " : "",
				       tensor->shape[i]);
	snprintf(text + at, room - at, "]");
}

/* elements := the product of the shape; *bits := times the bits of one; false if that overflows,
 * also without the dimensions that are zero. */
static bool measure(struct lora_tensor *tensor, uint64_t *bits)
{
	uint64_t product = 1;
	bool empty = false;

	for (uint32_t i = 0; i < tensor->ndim; i++) {
		if (tensor->shape[i] == 0)
			empty = true;
		else if (lora__mul_overflows(product, tensor->shape[i], &product))
			return false;
	}
	if (lora__mul_overflows(product, lora_dtype_bits(tensor->dtype), bits))
		return false;
	tensor->elements = empty ? 0 : product;
	if (empty)
		*bits = 0;
	return true;
}

/* What is wrong with shape, dtype and size, for a tensor that check_size() found wrong. */
static enum lora_status refuse_size(const struct lora_tensor *tensor, bool measured, uint64_t bits,
				    struct lora_error *err)
{
	const char *name = lora__escape(tensor->name), *dtype = lora_dtype_name(tensor->dtype);
	char shape[SHAPE_TEXT];

	if (tensor->ndim > LORA_MAX_DIMS)
		return lora__fail(err, LORA_INPUT,
				  "tensor '%s': %" PRIu32 " dimensions, at most %d are supported: "
				  "reshape it before saving",
				  name, tensor->ndim, LORA_MAX_DIMS);
	if (!dtype)
		return lora__fail(err, LORA_INPUT, "tensor '%s': no dtype: " LORA_DAMAGED, name);
	shape_text(shape, tensor);
	if (!measured)
		return lora__fail(
		    err, LORA_INPUT,
		    "tensor '%s': shape %s is more than any memory holds: " LORA_DAMAGED, name,
		    shape);
	if (bits % 8 != 0)
		return lora__fail(
		    err, LORA_INPUT,
		    "tensor '%s': %s %s is not a whole number of bytes: " LORA_DAMAGED, name, dtype,
		    shape);
	return lora__fail(err, LORA_INPUT,
			  "tensor '%s': %s %s needs %" PRIu64 " bytes, the file gives it %" PRIu64
			  ": " LORA_DAMAGED,
			  name, dtype, shape, bits / 8, tensor->size);
}

/* [2]: shape, dtype and size agree. */
static enum lora_status check_size(struct lora_tensor *tensor, struct lora_error *err)
{
	bool measured = false;
	uint64_t bits = 0;

	if (tensor->ndim <= LORA_MAX_DIMS && lora_dtype_bits(tensor->dtype) > 0)
		measured = measure(tensor, &bits);
	if (measured && bits % 8 == 0 && tensor->size == bits / 8)
		return LORA_OK;
	return refuse_size(tensor, measured, bits, err);
}

/* [2]: the tensor lies inside the file. */
static enum lora_status check_place(const struct lora_tensor *tensor, uint64_t data_begin,
				    uint64_t file_size, struct lora_error *err)
{
	uint64_t end;

	if (lora__add_overflows(tensor->begin, tensor->size, &end))
		return lora__fail(err, LORA_INPUT,
				  "tensor '%s': its place is beyond any file's end: " LORA_DAMAGED,
				  lora__escape(tensor->name));
	if (tensor->begin < data_begin)
		return lora__fail(err, LORA_INPUT,
				  "tensor '%s': starts at byte %" PRIu64
				  ", inside the file's header: " LORA_DAMAGED,
				  lora__escape(tensor->name), tensor->begin);
	if (end > file_size)
		return lora__fail(err, LORA_INPUT,
				  "tensor '%s': ends at byte %" PRIu64 ", but the file has %" PRIu64
				  " bytes: it is truncated: fetch or save it again",
				  lora__escape(tensor->name), end, file_size);
	return LORA_OK;
}

static int by_place(const void *left, const void *right)
{
	const struct lora_tensor *a = left, *b = right;

	if (a->begin != b->begin)
		return a->begin < b->begin ? -1 : 1;
	if (a->size != b->size)
		return a->size < b->size ? -1 : 1;
	return strcmp(a->name, b->name);
}

/* [4]. Files usually stand in order already; then nothing is moved. */
static void sort(struct lora_index *index)
{
	for (size_t i = 1; i < index->count; i++) {
		if (by_place(&index->tensors[i - 1], &index->tensors[i]) > 0) {
			qsort(index->tensors, index->count, sizeof(*index->tensors), by_place);
			return;
		}
	}
}

/* [3], on sorted tensors: empty ones overlap nothing. */
static enum lora_status check_overlap(const struct lora_index *index, struct lora_error *err)
{
	const struct lora_tensor *last = NULL;

	for (size_t i = 0; i < index->count; i++) {
		const struct lora_tensor *tensor = &index->tensors[i];

		if (tensor->size == 0)
			continue;
		if (last && tensor->begin < last->begin + last->size)
			return lora__fail(err, LORA_INPUT,
					  "tensors '%s' and '%s' overlap: " LORA_DAMAGED,
					  lora__escape(last->name), lora__escape(tensor->name));
		last = tensor;
	}
	return LORA_OK;
}

/* [1]: uniqueness, and the way to find a tensor. */
static enum lora_status build_names(struct lora_index *index, struct lora_error *err)
{
	for (size_t i = 0; i < index->count; i++) {
		const char *name = index->tensors[i].name;
		bool present = false;
		enum lora_status status =
		    lora__map_add(&index->by_name, name, strlen(name), (uint32_t)i, &present, err);

		if (status != LORA_OK)
			return status;
		if (present)
			return lora__fail(err, LORA_INPUT,
					  "tensor '%s' occurs twice: " LORA_DAMAGED,
					  lora__escape(name));
	}
	return LORA_OK;
}

enum lora_status lora__index_finish(struct lora_index *index, uint64_t file_size,
				    struct lora_error *err)
{
	enum lora_status status = LORA_OK;

	if (index->count > LORA_TENSOR_LIMIT)
		return lora__fail(err, LORA_INPUT,
				  "%zu tensors, at most %u are supported: split the file",
				  index->count, LORA_TENSOR_LIMIT);
	for (size_t i = 0; i < index->count && status == LORA_OK; i++) {
		status = check_name(index->tensors[i].name, err);
		if (status == LORA_OK)
			status = check_size(&index->tensors[i], err);
	}
	if (status != LORA_OK)
		return status;
	sort(index);
	for (size_t i = 0; i < index->count && status == LORA_OK; i++)
		status = check_place(&index->tensors[i], index->data_begin, file_size, err);
	if (status == LORA_OK)
		status = check_overlap(index, err);
	if (status == LORA_OK)
		status = build_names(index, err);
	return status;
}
