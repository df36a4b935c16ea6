/* SPDX-License-Identifier: Apache-2.0 */
/* net/attach.h - from edits to what the forward pass reads: the steps of lora_net_attach(). */
#ifndef LORA_NET_ATTACH_H
#define LORA_NET_ATTACH_H

#include "net/net.h"

/* One edit of one adapter, and the tensor of the net that it changes: a linear's piece, the input
 * embeddings (both NULL), or a vector. */
struct lora_laid {
	const struct lora_edit *edit;
	const struct lora_net_input *input;
	float s;
	struct lora_linear *linear;
	size_t piece;
	const struct lora_slot *vector;
};

/* A vector that was replaced. */
struct lora_saved {
	const float **vector;
	const float *before;
	float *now; /* the copy that edits change */
};

/* What is attached. Everything lives in the arena. */
struct lora_patches {
	struct lora_arena arena;
	struct lora_laid *laid;
	size_t laid_count;
	struct lora_saved *saved; /* room for as many as laid */
	size_t saved_count;
};

/* The matrix that edits change, and how its file stands. */
struct lora_edited {
	struct lora_net *net;
	struct lora_arena *arena;
	const char *name; /* for messages */
	struct lora_matrix W;
	bool turned;		       /* the file has [in, out] */
	bool both_gains;	       /* a norm may run along rows or columns: an embedding */
	bool may_grow;		       /* a replacement may have another number of rows */
	const struct lora_laid **laid; /* count of them, in the order of the adapters */
	size_t count;
	const struct lora_piece *piece; /* of the fused matrix */
};

/* All edits on one matrix, as a patch (patch.c). *by_row: the gain is by row of an embedding. */
enum lora_status lora__patch_make(const struct lora_edited *edited, struct lora_patch *patch,
				  bool *by_row, struct lora_error *err);

/* Does the row or vector `values` [n] that an adapter puts where another already put one differ? */
enum lora_status lora__patch_same(const struct lora_laid *laid, const float *there,
				  const float *values, size_t n, size_t step,
				  struct lora_error *err);

#endif
