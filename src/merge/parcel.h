/* SPDX-License-Identifier: Apache-2.0 */
/* merge/parcel.h - one block of one output tensor: how many bytes it has, and how they come about.
 */
#ifndef LORA_MERGE_PARCEL_H
#define LORA_MERGE_PARCEL_H

#include "merge/residual.h"
#include "merge/tile.h"

/* Bytes of a parcel at most: fits a core's second-level cache; a syscall's cost is lost in it. */
#define LORA_PARCEL_SIZE (1u << 20)

struct lora_parcel {
	uint8_t *data; /* LORA_PARCEL_SIZE */
	struct lora_item *item;
	uint64_t offset; /* bytes into the item's output */
	size_t size;
	bool last;	   /* of its item */
	uint8_t *input;	   /* on the way back: the merged model's bytes; else NULL */
	uint8_t *residual; /* with an undo record: its chunk of it; else NULL */
	struct lora_residual_chunk chunk;
	struct lora_stats stats;
};

/* How many bytes of an item's output the parcel at `offset`, number `chunk` of its item, has. */
uint64_t lora__parcel_size(const struct lora_item *item, uint64_t offset, size_t chunk);

/* What a worker makes parcels with. */
struct lora_maker {
	struct lora_plan *plan;
	struct lora_scratch scratch;
	uint8_t *input;	    /* LORA_PARCEL_SIZE: the base's bytes */
	uint8_t *predicted; /* with an undo record: predictions, or a chunk that was read */
	struct lora_residual residual; /* with an undo record */
	bool digests;		       /* untouched bytes are read even where they need not be */
};

enum lora_status lora__maker_init(struct lora_maker *maker, struct lora_plan *plan, bool digests,
				  struct lora_error *err);
void lora__maker_fini(struct lora_maker *maker); /* a zeroed one is empty */

/* Computes a parcel, and writes it to its file unless that has no descriptor. */
enum lora_status lora__parcel_make(struct lora_parcel *block, struct lora_maker *maker,
				   const struct lora_outfile *file, struct lora_error *err);

#endif
