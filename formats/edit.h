/* SPDX-License-Identifier: Apache-2.0 */
/* formats/edit.h - the heart of the program: what an adapter does to a base, without spellings.
 *
 * A dialect turns tensors and a config into a list of edits; merge, unmerge, diff, verify, the
 * forward pass and the receipt consume edits and nothing else.
 *
 * The target is a stored tensor seen as a row-major matrix [elements / width, width] (a Linear's
 * [out, in]; a convolution's [out, in*kh*kw]; the experts' [E*d1, d2]; a vector's [1, n]). An
 * edit covers rows row0 .. row0+rows and columns col0 .. col0+cols of it: fused qkv slices and
 * single experts are ranges. Factors are strided views into the adapter's tensors, already turned
 * to the target's STORED orientation: where the base stores [in, out] (Conv1D), L = A^T and R =
 * B^T. Nothing behind this file knows what fan_in_fan_out is.
 *
 *	ADD_LOWRANK	W += s * L * R			L [rows, rank], R [rank, cols]
 *	ADD_DENSE	W += s * D			D [rows, cols]
 *	DORA		W  = m * (W + s*L*R) / |W + s*L*R|	m by row, or by column
 *	REPLACE		W  = D, whole; may have another shape than the base's (a resized embedding)
 *	REPLACE_ROWS	W[row_ids[i], :] = D[i, :]
 *	ADD_TENSOR	a tensor that the base does not have = D
 *
 * On one target the order is: REPLACE, REPLACE_ROWS, then the sum of all ADDs, then DORA.
 * Provenance: `sources` lists every adapter tensor that the edit consumed; the union over all
 * edits must be all tensors of the adapter. */
#ifndef LORA_FORMATS_EDIT_H
#define LORA_FORMATS_EDIT_H

#include "base/arena.h"
#include <loractl/types.h>

enum lora_edit_kind {
	LORA_EDIT_ADD_LOWRANK,
	LORA_EDIT_ADD_DENSE,
	LORA_EDIT_DORA,
	LORA_EDIT_REPLACE,
	LORA_EDIT_REPLACE_ROWS,
	LORA_EDIT_ADD_TENSOR,
};

/* "low-rank", "dense", "dora", "replace", "rows", "add": as reports spell them. */
const char *lora__edit_kind_name(enum lora_edit_kind kind);

/* Element (i, j) is element offset + i*row_stride + j*col_stride of adapter tensor `tensor`. rows
 * = 0: no view. */
struct lora_view {
	uint32_t tensor;
	uint64_t offset, rows, cols, row_stride, col_stride;
};

#define LORA_NO_TENSOR UINT32_MAX

struct lora_edit {
	enum lora_edit_kind kind;
	const char *target;   /* the base's name for the tensor (ADD_TENSOR: the new name) */
	uint32_t base_tensor; /* its index in the base; LORA_NO_TENSOR for ADD_TENSOR */
	bool tied_alias;      /* target is the absent half of a tie; base_tensor the stored half */
	uint32_t ndim; /* of the target: the base's; for REPLACE and ADD_TENSOR the new shape */
	uint64_t shape[LORA_MAX_DIMS];
	uint64_t width;
	uint64_t row0, rows, col0, cols;
	struct lora_view left, right; /* ADD_LOWRANK, DORA */
	struct lora_view dense;	    /* ADD_DENSE, REPLACE, REPLACE_ROWS, ADD_TENSOR: [rows, cols] */
	struct lora_view magnitude; /* DORA: [1, rows] or, by column, [1, cols] */
	bool norm_by_column;
	const uint64_t *row_ids; /* REPLACE_ROWS: dense.rows of them, each below the target's rows,
				    no two equal */
	uint32_t rank;		 /* as the dialect says; 0 without one */
	double alpha;
	double divisor; /* r or sqrt(r): s = f32(weight * alpha / divisor), left to right in f64 */
	double scale; /* alpha / divisor, before the adapter's weight; 1 (alpha = divisor = 1) where
			 there is none */
	const char *scale_from;	 /* "alpha/r", "alpha/sqrt(r), rank_pattern 'q_proj'", ...; or "" */
	const char *module;	 /* the module's path as the adapter spells it, for people */
	const uint32_t *sources; /* adapter tensors consumed */
	size_t source_count;
};

#endif
