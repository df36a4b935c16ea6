/* SPDX-License-Identifier: Apache-2.0 */
/* base/map.h - names to numbers: an open-addressing table over strings that somebody else owns.
 *
 * 1. Keys are borrowed and must outlive the map.
 * 2. Iteration is the owner's own array: the map holds only indices.
 * 3. The hash is seeded per map from the system's random source, so that a file cannot choose
 *    collisions.
 */
#ifndef LORA_BASE_MAP_H
#define LORA_BASE_MAP_H

#include <loractl/error.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct lora_map {
	struct lora_map_slot *slots;
	size_t capacity, count;
	uint64_t seed[2];
};

void lora__map_fini(struct lora_map *map); /* a zeroed map is empty and ready */
/* Adds key -> value, which is below UINT32_MAX; key is not NULL. *present tells whether it was
 * there already (then nothing changes). */
enum lora_status lora__map_add(struct lora_map *map, const char *key, size_t length, uint32_t value,
			       bool *present, struct lora_error *err);
/* The value, or UINT32_MAX. */
uint32_t lora__map_find(const struct lora_map *map, const char *key, size_t length);

/* SipHash-1-3 of size bytes. */
uint64_t lora__siphash(const uint64_t seed[2], const void *data, size_t size);

#endif
