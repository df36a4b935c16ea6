/* SPDX-License-Identifier: Apache-2.0 */
/* formats/containers/lora_index.c - the INDEX of a .lora container: which objects a group brings
 *
 *	u64 count, then count entries of 48 bytes and 4 * width * chunks bytes of words
 *
 * 1. An entry says how an object is stored, and nothing of where: stored bytes follow one another
 *    in the order of the entries, so that two objects cannot share bytes and none is left over.
 * 2. A parent is an object with a smaller number, of the same size: chains of parents cannot close.
 *    Depth is counted here, not read.
 * 3. No memory is taken for a count; every entry is bounded by the bytes that are there.
 */
#include "base/checked.h"
#include "base/error.h"
#include "formats/containers/lora.h"
#include "formats/containers/lora_bytes.h"

#include <inttypes.h>
#include <string.h>

static enum lora_status damaged(struct lora_error *err, uint32_t number, const char *what)
{
	return lora__fail(err, LORA_INPUT,
			  "the index is damaged or badly written: object %" PRIu32 ": %s", number,
			  what);
}

uint64_t lora__object_chunks(uint64_t size)
{
	return size / LORA_CHUNK_SIZE + (size % LORA_CHUNK_SIZE != 0);
}

enum lora_status lora__index_begin(struct lora_index_walk *walk, const uint8_t *bytes, size_t size,
				   uint64_t index_at, uint64_t data_at, uint64_t data_size,
				   struct lora_error *err)
{
	*walk = (struct lora_index_walk){bytes, size, 8, index_at, 0, data_at, 0};
	if (size < 8 || lora__add_overflows(data_at, data_size, &walk->data_end))
		return lora__fail(err, LORA_INPUT, "the index is too short: the file is damaged");
	walk->left = lora__get64(bytes);
	if (walk->left == 0)
		return lora__fail(err, LORA_INPUT,
				  "the index is empty: the file is damaged or badly written");
	return LORA_OK;
}

static enum lora_status end_walk(const struct lora_index_walk *walk, struct lora_error *err)
{
	if (walk->at != walk->size)
		return lora__fail(err, LORA_INPUT,
				  "the index has %zu bytes too many: the file is damaged or badly "
				  "written",
				  walk->size - walk->at);
	if (walk->data != walk->data_end)
		return lora__fail(err, LORA_INPUT,
				  "%" PRIu64 " stored bytes belong to no object: the file is "
				  "damaged or badly written",
				  walk->data_end - walk->data);
	return LORA_OK;
}

/* The fields of the fixed part. */
static enum lora_status read_head(const uint8_t *head, const struct lora_object *known,
				  uint32_t number, struct lora_object *object,
				  struct lora_error *err)
{
	uint8_t width = head[40], flags = head[41];
	uint32_t parent = lora__get32(head + 44);

	memcpy(object->digest.byte, head, LORA_SHA256_SIZE);
	object->size = lora__get64(head + 32);
	object->layout = (struct lora_layout){width, flags & LORA_OBJECT_ROTATED};
	object->parent = flags & LORA_OBJECT_XOR ? parent : LORA_NO_OBJECT;
	object->depth = 0;
	if (object->size == 0 || object->size >= LORA_SIZE_MAX)
		return damaged(err, number, "no object has such a size");
	if ((width != 1 && width != 2 && width != 4 && width != 8) || object->size % width)
		return damaged(err, number, "its width does not fit its size");
	if ((flags & ~(LORA_OBJECT_ROTATED | LORA_OBJECT_XOR)) || lora__get16(head + 42) ||
	    (width == 1 && object->layout.rotated) || (!(flags & LORA_OBJECT_XOR) && parent))
		return damaged(err, number, "unknown flags");
	if (!(flags & LORA_OBJECT_XOR))
		return LORA_OK;
	if (parent >= number || known[parent].size != object->size)
		return damaged(err, number, "its parent does not stand before it with its size");
	object->depth = (uint8_t)(known[parent].depth + 1);
	if (object->depth > LORA_DEPTH_MAX)
		return damaged(err, number, "it has more than 8 parents");
	return LORA_OK;
}

/* What the words of a whole object add up to. */
static enum lora_status sum_words(const uint8_t *words, const struct lora_object *object,
				  uint64_t *sum, struct lora_error *err)
{
	enum lora_status status = LORA_OK;

	*sum = 0;
	for (uint64_t done = 0; done < object->size && !status; done += LORA_CHUNK_SIZE) {
		uint64_t rest = object->size - done, stored = 0;

		status = lora__words_check(
		    words, object->layout,
		    (size_t)(rest < LORA_CHUNK_SIZE ? rest : LORA_CHUNK_SIZE), &stored, err);
		*sum += stored; /* at most the object's size, which is below 2^48 */
		words += 4 * object->layout.width;
	}
	return status;
}

enum lora_status lora__index_next(struct lora_index_walk *walk, const struct lora_object *known,
				  uint32_t number, struct lora_object *object, bool *end,
				  struct lora_error *err)
{
	size_t left = walk->size - walk->at;
	uint64_t words, stored;
	enum lora_status status;

	*end = walk->left == 0;
	if (*end)
		return end_walk(walk, err);
	if (left < LORA_ENTRY_HEAD)
		return damaged(err, number, "the index ends before it");
	status = read_head(walk->bytes + walk->at, known, number, object, err);
	if (status)
		return status;
	words = 4 * object->layout.width * lora__object_chunks(object->size);
	if (words > left - LORA_ENTRY_HEAD)
		return damaged(err, number, "the index ends inside it");
	walk->at += LORA_ENTRY_HEAD;
	status = sum_words(walk->bytes + walk->at, object, &stored, err);
	if (status)
		return lora__context(err, status, "object %" PRIu32, number);
	if (stored > walk->data_end - walk->data)
		return damaged(err, number, "its stored bytes leave the record");
	object->words = walk->index_at + walk->at;
	object->data = walk->data;
	walk->data += stored;
	walk->at += (size_t)words;
	walk->left--;
	return LORA_OK;
}
