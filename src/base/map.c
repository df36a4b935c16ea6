/* SPDX-License-Identifier: Apache-2.0 */
/* base/map.c - the hash table: what it promises is in map.h
 *
 * Slots   a power of two of them, at most three quarters used, probed one after the other from the
 *         place that the hash names. Nothing is ever removed, so that an empty slot ends a search.
 * Hash    SipHash-1-3 (Aumasson and Bernstein, "SipHash: a fast short-input PRF", 2012; with one
 *         round a word and three at the end, as Python and Rust use it): whoever does not know the
 *         seed cannot find keys that collide. A slot keeps 32 bits of it: they decide nearly every
 *         comparison without a look at the key, and the table grows without hashing again.
 */
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "base/map.h"
#include "base/random.h"

#define CAPACITY_MIN 16u

struct lora_map_slot {
	const char *key; /* NULL: empty */
	size_t length;
	uint32_t hash;
	uint32_t value;
};

static uint64_t rotate(uint64_t x, unsigned bits)
{
	return x << bits | x >> (64 - bits);
}

static void sip_round(uint64_t v[4])
{
	v[0] += v[1];
	v[2] += v[3];
	v[1] = rotate(v[1], 13) ^ v[0];
	v[3] = rotate(v[3], 16) ^ v[2];
	v[0] = rotate(v[0], 32);
	v[2] += v[1];
	v[0] += v[3];
	v[1] = rotate(v[1], 17) ^ v[2];
	v[3] = rotate(v[3], 21) ^ v[0];
	v[2] = rotate(v[2], 32);
}

/* Up to eight bytes, little-endian. */
static uint64_t word(const unsigned char *bytes, size_t count)
{
	uint64_t value = 0;

	for (size_t i = 0; i < count; i++)
		value |= (uint64_t)bytes[i] << 8 * i;
	return value;
}

uint64_t lora__siphash(const uint64_t seed[2], const void *data, size_t size)
{
	const unsigned char *bytes = data;
	size_t whole = size / 8 * 8;
	uint64_t v[4] = {
	    /* "somepseudorandomlygeneratedbytes", as the paper has it */
	    seed[0] ^ 0x736f6d6570736575u,
	    seed[1] ^ 0x646f72616e646f6du,
	    seed[0] ^ 0x6c7967656e657261u,
	    seed[1] ^ 0x7465646279746573u,
	};

	for (size_t i = 0; i <= whole; i += 8) {
		uint64_t m = i < whole ? word(bytes + i, 8)
				       : word(bytes + i, size - whole) | (uint64_t)size << 56;

		v[3] ^= m;
		sip_round(v);
		v[0] ^= m;
	}
	v[2] ^= 0xff;
	for (int i = 0; i < 3; i++)
		sip_round(v);
	return v[0] ^ v[1] ^ v[2] ^ v[3];
}

static uint32_t hash_of(const struct lora_map *map, const char *key, size_t length)
{
	return (uint32_t)(lora__siphash(map->seed, key, length) >> 32);
}

/* The slot that holds the key, or the empty one where it would go. */
static struct lora_map_slot *locate(const struct lora_map *map, const char *key, size_t length,
				    uint32_t hash)
{
	for (size_t i = hash;; i++) {
		struct lora_map_slot *slot = &map->slots[i & (map->capacity - 1)];

		if (slot->key == NULL)
			return slot;
		if (slot->hash == hash && slot->length == length &&
		    memcmp(slot->key, key, length) == 0)
			return slot;
	}
}

static enum lora_status grow(struct lora_map *map, struct lora_error *err)
{
	size_t capacity = map->capacity == 0 ? CAPACITY_MIN : map->capacity * 2;
	struct lora_map_slot *slots;

	if (map->capacity == 0 && !lora__random(map->seed, sizeof map->seed))
		return lora__fail_system(err, "cannot get random bytes");
	slots = calloc(capacity, sizeof *slots);
	if (slots == NULL)
		return lora__fail_memory(err);
	for (size_t i = 0; i < map->capacity; i++) {
		size_t at = map->slots[i].hash;

		if (map->slots[i].key == NULL)
			continue;
		while (slots[at & (capacity - 1)].key != NULL)
			at++;
		slots[at & (capacity - 1)] = map->slots[i];
	}
	free(map->slots);
	map->slots = slots;
	map->capacity = capacity;
	return LORA_OK;
}

enum lora_status lora__map_add(struct lora_map *map, const char *key, size_t length, uint32_t value,
			       bool *present, struct lora_error *err)
{
	struct lora_map_slot *slot;
	uint32_t hash;

	if (value == UINT32_MAX)
		return lora__fail(err, LORA_USAGE, "more than %lu names", (unsigned long)value);
	if (map->count >= map->capacity / 4 * 3) {
		enum lora_status status = grow(map, err);

		if (status != LORA_OK)
			return status;
	}
	hash = hash_of(map, key, length);
	slot = locate(map, key, length, hash);
	*present = slot->key != NULL;
	if (!*present) {
		*slot = (struct lora_map_slot){key, length, hash, value};
		map->count++;
	}
	return LORA_OK;
}

uint32_t lora__map_find(const struct lora_map *map, const char *key, size_t length)
{
	struct lora_map_slot *slot;

	if (map->count == 0)
		return UINT32_MAX;
	slot = locate(map, key, length, hash_of(map, key, length));
	return slot->key == NULL ? UINT32_MAX : slot->value;
}

void lora__map_fini(struct lora_map *map)
{
	free(map->slots);
	*map = (struct lora_map){0};
}
