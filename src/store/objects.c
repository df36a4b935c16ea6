/* SPDX-License-Identifier: Apache-2.0 */
/* store/objects.c - the objects of a container: found by digest, decoded chunk by chunk
 *
 * 1. The table holds 64 bytes an object and nothing of its words: these are read when a chunk is.
 * 2. A chunk is decoded from its oldest ancestor on, in one buffer: the parent's bytes are replaced
 *    by the child's. Nine steps at most, and no recursion.
 */
#include "store/engine.h"

#include "base/checked.h"
#include "base/error.h"
#include "base/map.h"
#include "base/random.h"
#include "formats/containers/lora_bytes.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#define LENGTH_MASK 0xffffffu
#define MAX_WORDS   (4 * LORA_PLANES_MAX) /* bytes of a chunk's words */

/* --- the table ------------------------------------------------------------------------------- */

/* The slot where the digest is, or would be. */
static size_t slot_of(const struct lora_store *store, const struct lora_object_map *map,
		      const struct lora_sha256 *digest)
{
	size_t mask = map->capacity - 1,
	       at = (size_t)lora__siphash(map->seed, digest->byte, sizeof(digest->byte)) & mask;

	while (map->slots[at] &&
	       !lora__sha256_equal(&store->objects[map->slots[at] - 1].digest, digest))
		at = (at + 1) & mask;
	return at;
}

static enum lora_status grow_map(struct lora_store *store, struct lora_error *err)
{
	struct lora_object_map *map = &store->by_digest,
			       larger = {.capacity = map->capacity ? map->capacity * 2 : 64};

	if (!lora__random(larger.seed, sizeof(larger.seed)))
		return lora__fail_system(err, "the system gives no random numbers");
	larger.slots = calloc(larger.capacity, sizeof(*larger.slots));
	if (!larger.slots)
		return lora__fail_memory(err);
	for (uint32_t i = 0; i < store->object_count; i++)
		larger.slots[slot_of(store, &larger, &store->objects[i].digest)] = i + 1;
	free(map->slots);
	*map = larger;
	return LORA_OK;
}

uint32_t lora__object_find(const struct lora_store *store, const struct lora_sha256 *digest)
{
	const struct lora_object_map *map = &store->by_digest;
	uint32_t slot = map->capacity ? map->slots[slot_of(store, map, digest)] : 0;

	return slot ? slot - 1 : LORA_NO_OBJECT;
}

uint64_t lora__expansion_limit(uint64_t container)
{
	uint64_t limit;

	if (lora__mul_overflows(container, LORA_EXPANSION_RATIO, &limit) ||
	    lora__add_overflows(limit, LORA_EXPANSION_FREE, &limit))
		return UINT64_MAX;
	return limit;
}

enum lora_status lora__object_add(struct lora_store *store, const struct lora_object *object,
				  struct lora_error *err)
{
	struct lora_object *objects;
	enum lora_status status = LORA_OK;

	if (store->object_count == LORA_OBJECTS_MAX)
		return lora__fail(err, LORA_INPUT,
				  "it has more than %u objects: `loractl gc` makes room",
				  LORA_OBJECTS_MAX);
	if (lora__object_find(store, &object->digest) != LORA_NO_OBJECT)
		return lora__fail(err, LORA_INPUT,
				  "object %" PRIu32
				  " is there twice: it is damaged or badly written",
				  store->object_count);
	objects = lora__manifest_room(store->objects, store->object_count, sizeof(*objects));
	if (!objects)
		return lora__fail_memory(err);
	store->objects = objects;
	if (store->by_digest.capacity < 2 * ((size_t)store->object_count + 1))
		status = grow_map(store, err);
	if (status)
		return status;
	objects[store->object_count] = *object;
	store->by_digest.slots[slot_of(store, &store->by_digest, &object->digest)] =
	    store->object_count + 1;
	store->object_count++;
	store->object_bytes += object->size; /* 2^19 sizes below 2^48: no overflow */
	if (store->largest < object->size)
		store->largest = object->size;
	return LORA_OK;
}

void lora__object_forget(struct lora_store *store, uint32_t count)
{
	struct lora_object_map *map = &store->by_digest;

	store->object_count = count;
	store->object_bytes = 0;
	if (map->capacity)
		memset(map->slots, 0, map->capacity * sizeof(*map->slots));
	for (uint32_t i = 0; i < count; i++) {
		map->slots[slot_of(store, map, &store->objects[i].digest)] = i + 1;
		store->object_bytes += store->objects[i].size;
	}
}

/* --- decoding -------------------------------------------------------------------------------- */

size_t lora__chunk_room(const struct lora_store *store)
{
	if (store->largest >= LORA_CHUNK_SIZE)
		return LORA_CHUNK_SIZE;
	return store->largest ? (size_t)store->largest : 1;
}

enum lora_status lora__decoder_init(struct lora_decoder *decoder, size_t room,
				    struct lora_error *err)
{
	decoder->codec = lora__codec_new();
	decoder->stored = malloc(room);
	decoder->scratch = malloc(room);
	return decoder->codec && decoder->stored && decoder->scratch ? LORA_OK
								     : lora__fail_memory(err);
}

void lora__decoder_fini(struct lora_decoder *decoder)
{
	lora__codec_free(decoder->codec);
	free(decoder->stored);
	free(decoder->scratch);
	*decoder = (struct lora_decoder){0};
}

size_t lora__chunk_bytes(const struct lora_object *object, uint64_t chunk)
{
	uint64_t rest = object->size - chunk * LORA_CHUNK_SIZE;

	return rest < LORA_CHUNK_SIZE ? (size_t)rest : LORA_CHUNK_SIZE;
}

/* Where the stored bytes of a chunk stand: those of the chunks before it are skipped. */
static enum lora_status locate(const struct lora_store *store, const struct lora_object *object,
			       uint64_t chunk, uint64_t *at, struct lora_error *err)
{
	uint8_t words[4096];
	uint64_t left = chunk * object->layout.width, from = object->words;

	*at = object->data;
	while (left) {
		size_t n = left < sizeof(words) / 4 ? (size_t)left : sizeof(words) / 4;
		enum lora_status status = lora__file_read(&store->file, from, words, 4 * n, err);

		if (status)
			return status;
		for (size_t i = 0; i < n; i++)
			*at += lora__get32(words + 4 * i) & LENGTH_MASK;
		from += 4 * n;
		left -= n;
	}
	return LORA_OK;
}

/* One link of the chain: `out` holds the parent's bytes, if it has one, and becomes the object's.
 */
static enum lora_status decode_link(const struct lora_store *store, struct lora_decoder *decoder,
				    const struct lora_object *object, uint64_t chunk, uint8_t *out,
				    struct lora_error *err)
{
	uint8_t words[MAX_WORDS];
	const struct lora_chunk what = {object->layout, words, lora__chunk_bytes(object, chunk),
					object->parent == LORA_NO_OBJECT ? NULL : out};
	uint64_t at, stored = 0;
	enum lora_status status = locate(store, object, chunk, &at, err);

	if (!status)
		status =
		    lora__file_read(&store->file, object->words + chunk * 4 * object->layout.width,
				    words, 4 * (size_t)object->layout.width, err);
	/* They were right when the index was read; the file may have changed under us. */
	if (!status)
		status = lora__words_check(words, object->layout, what.size, &stored, err);
	if (!status)
		status = lora__file_read(&store->file, at, decoder->stored, (size_t)stored, err);
	if (status)
		return status;
	return lora__chunk_decode(decoder->codec, &what, decoder->stored, out, decoder->scratch,
				  err);
}

enum lora_status lora__object_chunk(const struct lora_store *store, struct lora_decoder *decoder,
				    uint32_t number, uint64_t chunk, uint8_t *out,
				    struct lora_error *err)
{
	uint32_t chain[LORA_DEPTH_MAX + 1];
	enum lora_status status = LORA_OK;
	size_t length = 0;

	for (uint32_t at = number; at != LORA_NO_OBJECT; at = store->objects[at].parent)
		chain[length++] = at;
	while (length-- > 0 && !status)
		status =
		    decode_link(store, decoder, &store->objects[chain[length]], chunk, out, err);
	return status;
}

enum lora_status lora__object_verify(const struct lora_store *store, struct lora_decoder *decoder,
				     uint32_t number, uint8_t *out, lora_chunk_fn *each, void *user,
				     struct lora_error *err)
{
	const struct lora_object *object = &store->objects[number];
	uint64_t chunks = lora__object_chunks(object->size);
	struct lora_hasher *hasher = lora__hasher_new();
	enum lora_status status = hasher ? LORA_OK : lora__fail_memory(err);
	struct lora_sha256 digest;

	for (uint64_t i = 0; i < chunks && !status; i++) {
		size_t size = lora__chunk_bytes(object, i);

		status = lora__object_chunk(store, decoder, number, i, out, err);
		if (!status)
			lora__hasher_update(hasher, out, size);
		if (!status && each)
			status = each(user, i, out, size, err);
	}
	if (!status) {
		lora__hasher_final(hasher, &digest);
		if (!lora__sha256_equal(&digest, &object->digest))
			status = lora__fail(err, LORA_INPUT, "its bytes do not have their digest");
	}
	lora__hasher_free(hasher);
	if (status && status != LORA_CANCELLED) {
		char hex[LORA_SHA256_HEX];

		lora__sha256_hex(&object->digest, hex);
		lora__context(err, status, "damaged: object %.16s", hex);
	}
	return status;
}
