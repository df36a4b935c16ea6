/* SPDX-License-Identifier: Apache-2.0 */
/* net/tokenizer_pairs.c - a table from pairs of numbers to a pair of numbers: merges, and the edges
 * of tries
 *
 * Open addressing in a power of two of slots, half of which stay empty. The hash is the upper half
 * of the product with an odd factor that the system's random source gives (Dietzfelbinger et al.
 * 1997): a file cannot choose collisions.
 */
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "base/random.h"
#include "net/tokenizer.h"

enum lora_status lora__pairs_init(struct lora_pairs *pairs, size_t most, struct lora_error *err)
{
	uint64_t slots = 16;

	*pairs = (struct lora_pairs){0};
	if (!lora__random(&pairs->seed, sizeof pairs->seed))
		return lora__fail_system(err, "cannot get random bytes");
	pairs->seed |= 1;
	while (slots < 2 * (uint64_t)most)
		slots *= 2;
	pairs->slots = malloc(slots * sizeof *pairs->slots);
	if (pairs->slots == NULL)
		return lora__fail_memory(err);
	pairs->mask = slots - 1;
	memset(pairs->slots, 0xff, slots * sizeof *pairs->slots); /* every key UINT64_MAX */
	return LORA_OK;
}

void lora__pairs_fini(struct lora_pairs *pairs)
{
	free(pairs->slots);
	*pairs = (struct lora_pairs){0};
}

/* The slot that has the key, or the empty one where it would go. */
static struct lora_pair *locate(const struct lora_pairs *pairs, uint64_t key)
{
	for (uint64_t i = key * pairs->seed >> 32;; i++) {
		struct lora_pair *pair = &pairs->slots[i & pairs->mask];

		if (pair->key == key || pair->key == UINT64_MAX)
			return pair;
	}
}

void lora__pairs_put(struct lora_pairs *pairs, uint32_t left, uint32_t right, uint32_t rank,
		     uint32_t id)
{
	uint64_t key = (uint64_t)left << 32 | right;

	*locate(pairs, key) = (struct lora_pair){key, rank, id};
}

const struct lora_pair *lora__pairs_find(const struct lora_pairs *pairs, uint32_t left,
					 uint32_t right)
{
	const struct lora_pair *pair = locate(pairs, (uint64_t)left << 32 | right);

	return pair->key == UINT64_MAX ? NULL : pair;
}
