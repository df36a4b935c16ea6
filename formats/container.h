/* SPDX-License-Identifier: Apache-2.0 */
/* formats/container.h - files that hold named tensors. A container knows bytes; it knows nothing of
 * LoRA.
 *
 * parse() is a PURE function of the head of a file and the file's size: the same symbol is the
 * reader, the unit test's subject and the fuzz target. It ends with lora__index_finish(), which
 * proves, for every format alike:
 *	1. names are unique, valid UTF-8, without control characters, 1 to LORA_NAME_LIMIT bytes;
 *	2. data_begin <= begin, begin + size <= file size without overflow, and size is exactly the
 *	   product of the shape times the bits of the dtype, in whole bytes; the product of all
 *	   dimensions that are not zero does not overflow either;
 *	3. no two tensors overlap;
 *	4. tensors stand in ascending order of (begin, size, name).
 */
#ifndef LORA_FORMATS_CONTAINER_H
#define LORA_FORMATS_CONTAINER_H

#include "base/arena.h"
#include "base/file.h"
#include "base/map.h"
#include <loractl/types.h>

/* Limits, each with its reason. */
#define LORA_HEADER_LIMIT 100000000u /* bytes of a safetensors header: the format's own limit */
#define LORA_NAME_LIMIT	  4096u	   /* bytes of a tensor's name: ten times the longest on the hub */
#define LORA_TENSOR_LIMIT 2000000u /* tensors of a file: a header of 100 MB at 50 bytes each */
#define LORA_PROBE_SIZE	  64u	   /* bytes that tell every container from every other */

/* The end of every message that blames the writer or the transport of a file. */
#define LORA_DAMAGED "the file is damaged or badly written: fetch or save it again"

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
const struct lora_tensor *lora__index_find(const struct lora_index *index, const char *name,
					   size_t length);
const char *lora__index_metadata(const struct lora_index *index, const char *key);
/* The tail of every parse(): the tensors' name, dtype, ndim, shape, begin and size and the index's
 * data_begin are given; fills `elements`, sorts, builds by_name, proves 1 to 4. */
enum lora_status lora__index_finish(struct lora_index *index, uint64_t file_size,
				    struct lora_error *err);

struct lora_container {
	const char *name;   /* "safetensors" */
	const char *suffix; /* ".safetensors" */
	/* 0 to 100 from the first `size` bytes (as many as LORA_PROBE_SIZE) and the file's size. */
	int (*probe)(const uint8_t *head, size_t size, uint64_t file_size);
	/* How many bytes from the start parse() needs, from the first (up to) LORA_PROBE_SIZE; at
	 * most LORA_HEADER_LIMIT + 8 and at most the file's size. */
	enum lora_status (*head_size)(uint64_t *need, const uint8_t *head, size_t size,
				      uint64_t file_size, struct lora_error *err);
	/* Fills *index (zeroed before; the caller finis it also after a failure) and finishes it.
	 */
	enum lora_status (*parse)(struct lora_index *index, const uint8_t *head, size_t size,
				  uint64_t file_size, struct lora_error *err);
	/* The head of a new file: tensors' name, dtype, shape, size are given; begin is assigned by
	 * this call, in the order given, file bytes contiguous. *head is malloc'd, NULL on failure.
	 * What was emitted is parsed and compared before it is returned. NULL: read only. */
	enum lora_status (*emit)(uint8_t **head, size_t *size, struct lora_tensor *tensors,
				 size_t count, const struct lora_metadata *metadata,
				 size_t metadata_count, struct lora_error *err);
};

extern const struct lora_container lora__safetensors;

/* NULL-terminated; the order is the order of probing. */
extern const struct lora_container *const lora__containers[];
/* The best bid, or NULL if nobody bids. */
const struct lora_container *lora__container_probe(const uint8_t *head, size_t size,
						   uint64_t file_size);

/* Bytes to be read from wherever they are. */
struct lora_bytes {
	const char *path; /* for messages */
	uint64_t size;
	enum lora_status (*read)(const void *from, uint64_t offset, void *buffer, size_t size,
				 struct lora_error *err);
	const void *from;
};

/* Probes a file's bytes, reads its head and parses it. *index is zeroed before; the caller finis it
 * also after a failure. *head is malloc'd (the bytes before data_begin), NULL on failure. Messages
 * name the file; LORA_INPUT for what is no container says what it looks like instead. */
enum lora_status lora__container_load_bytes(struct lora_index *index, uint8_t **head,
					    size_t *head_size, const struct lora_bytes *file,
					    struct lora_error *err);
/* The same of an open file. */
enum lora_status lora__container_load(struct lora_index *index, uint8_t **head, size_t *head_size,
				      const struct lora_file *file, struct lora_error *err);

#endif
