/* SPDX-License-Identifier: Apache-2.0 */
/* formats/container.h - files that hold named tensors. A container knows bytes; it knows nothing of LoRA.
 *
 * parse() is a PURE function of the head of a file and the file's size: the same symbol is the reader, the unit test's subject and the fuzz
 * target. After it lora__index_check() proves, for every format alike:
 *	1. names are unique, valid UTF-8, without control characters, 1 to LORA_NAME_LIMIT bytes;
 *	2. begin + size <= file size, no overflow; size = ceil(product(shape) * bits / 8) exactly, whole bytes;
 *	3. no two tensors overlap;
 *	4. tensors stand in ascending order of begin.
 */
#ifndef LORA_FORMATS_CONTAINER_H
#define LORA_FORMATS_CONTAINER_H

#include "base/arena.h"
#include "base/map.h"
#include <loractl/types.h>

/* Limits, each with its reason. */
#define LORA_HEADER_LIMIT 100000000u /* bytes of a safetensors header: the reference implementation's own limit */
#define LORA_NAME_LIMIT	  4096u	     /* bytes of a tensor's name: ten times the longest seen on the hub */
#define LORA_TENSOR_LIMIT 4000000u   /* tensors of one file: what a header of 100 MB can hold at 25 bytes each */

struct lora_metadata {
	const char *key, *value;
};

/* What a file, or a set of shards, holds. Everything lives in the arena. */
struct lora_index {
	struct lora_arena arena;
	struct lora_tensor *tensors; /* by (file, begin) */
	size_t count;
	struct lora_map by_name; /* -> position in tensors */
	struct lora_metadata *metadata;
	size_t metadata_count;
	uint64_t data_begin; /* of a single file: where tensor bytes start */
};

void lora__index_fini(struct lora_index *index); /* a zeroed index is empty */
/* NULL if absent. */
const struct lora_tensor *lora__index_find(const struct lora_index *index, const char *name, size_t length);
const char *lora__index_metadata(const struct lora_index *index, const char *key);
/* Sorts by begin, builds by_name, proves 1 to 4 of the head of this file. */
enum lora_status lora__index_finish(struct lora_index *index, uint64_t file_size, struct lora_error *err);

struct lora_container {
	const char *name;   /* "safetensors" */
	const char *suffix; /* ".safetensors" */
	/* 0 to 100 from the first `size` bytes (as many as 64) and the file's size. */
	int (*probe)(const uint8_t *head, size_t size, uint64_t file_size);
	/* How many bytes from the start parse() needs, from the first (up to) 64; at most LORA_HEADER_LIMIT + 8. */
	enum lora_status (*head_size)(uint64_t *need, const uint8_t *head, size_t size, uint64_t file_size,
				      struct lora_error *err);
	/* Fills *index (zeroed before; the caller finis it also after a failure); calls lora__index_finish. */
	enum lora_status (*parse)(struct lora_index *index, const uint8_t *head, size_t size,
				  uint64_t file_size, struct lora_error *err);
	/* The head of a new file: tensors' name, dtype, shape, size are given; begin is assigned by this call, in the order given, file bytes
	 * contiguous. *head is malloc'd. */
	enum lora_status (*emit)(uint8_t **head, size_t *size, struct lora_tensor *tensors, size_t count,
				 const struct lora_metadata *metadata, size_t metadata_count,
				 struct lora_error *err);
};

extern const struct lora_container lora__safetensors;

/* NULL-terminated; the order is the order of probing. */
extern const struct lora_container *const lora__containers[];
/* The best bid, or NULL if nobody bids. */
const struct lora_container *lora__container_probe(const uint8_t *head, size_t size, uint64_t file_size);

#endif
