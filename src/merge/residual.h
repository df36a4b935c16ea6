/* SPDX-License-Identifier: Apache-2.0 */
/* merge/residual.h - what a prediction got wrong, in few bytes: the chunks of loractl-undo(5). */
#ifndef LORA_MERGE_RESIDUAL_H
#define LORA_MERGE_RESIDUAL_H

#include "formats/codec.h"
#include <loractl/types.h>

#define LORA_CHUNK_ELEMENTS (1u << 19) /* of one chunk at most */
#define LORA_CHUNK_BYTES    (1u << 20) /* of these elements, in the base and in the merged model */
/* No chunk of ours is larger than its elements and this. */
#define LORA_CHUNK_OVERHEAD 64u
/* What others may write, less frugally. */
#define LORA_CHUNK_LIMIT (2u << 20)

/* Bytes of an element as the record sees it: 4 or 2 for F32, F16, BF16; else 1. */
unsigned lora__residual_width(enum lora_dtype type);

/* A worker's own memory: some 4 MiB, and the compressor's. */
struct lora_residual {
	struct lora_codec *codec;
	uint8_t *z, *gaps, *values, *plane, *other;
};

enum lora_status lora__residual_init(struct lora_residual *r, struct lora_error *err);
void lora__residual_fini(struct lora_residual *r);

/* n elements of `width` bytes. */
struct lora_residual_span {
	unsigned width;
	size_t n; /* at most LORA_CHUNK_ELEMENTS, and LORA_CHUNK_BYTES in all */
};

/* The chunk that leads from `predicted` to `base` into `out`, with room for n * width +
 * LORA_CHUNK_OVERHEAD bytes. `predicted` NULL: zeros. */
enum lora_status lora__residual_encode(struct lora_residual *r, struct lora_residual_span span,
				       const void *base, const void *predicted, uint8_t *out,
				       size_t *size, struct lora_error *err);

/* A chunk of `size` bytes turns `predicted` into the base. LORA_INPUT if it is malformed; then
 * `predicted` is in any state. */
enum lora_status lora__residual_decode(struct lora_residual *r, struct lora_residual_span span,
				       const uint8_t *chunk, size_t size, void *predicted,
				       struct lora_error *err);

#endif
