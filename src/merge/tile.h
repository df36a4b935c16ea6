/* SPDX-License-Identifier: Apache-2.0 */
/* merge/tile.h - the arithmetic of one block of one job, in tiles that fit a core's cache. */
#ifndef LORA_MERGE_TILE_H
#define LORA_MERGE_TILE_H

#include "merge/plan.h"

/* A tile is at most 32 x 2048 elements: its update, 256 KiB of f32, stays in a core's second-level
 * cache, and its strip of R is read again for 32 rows. Where rows are short a tile has more of
 * them. */
#define LORA_TILE_ROWS 32
#define LORA_TILE_COLS 2048
#define LORA_TILE_AREA (LORA_TILE_ROWS * LORA_TILE_COLS)

/* A worker's own memory. */
struct lora_scratch {
	float *update;		     /* LORA_TILE_AREA: D */
	float *value;		     /* LORA_TILE_AREA: W' before rounding, on the general path */
	float *base;		     /* LORA_TILE_AREA: f32(W), on the general path */
	float *rounded;		     /* LORA_TILE_AREA: f32(W'), on the general path */
	float *span;		     /* LORA_STAT_SPAN: a prediction before rounding */
	float *line;		     /* one row of an adapter's dense tensor */
	float *left;		     /* rows of a left factor that is too large to keep whole */
	size_t line_room, left_room; /* elements */
};

enum lora_status lora__scratch_init(struct lora_scratch *scratch, struct lora_error *err);
void lora__scratch_fini(struct lora_scratch *scratch);

/* A rectangle of a job's matrix. */
struct lora_tile {
	uint64_t row, rows, col, cols;
};

/* The update D of a tile into scratch->update, row-major, packed, by `kern`. */
enum lora_status lora__tile_update(const struct lora_plan *plan, const struct lora_job *job,
				   struct lora_tile tile, const struct lora_kern *kern,
				   struct lora_scratch *scratch, struct lora_error *err);

/* The next tile at or after element `at` of the elements [at, end) of a matrix `width` wide; whole
 * rows, or a part of one. */
struct lora_tile lora__tile_next(uint64_t at, uint64_t end, uint64_t width);

/* Elements [first, first + count) of a job: whole rows, or part of one row. */
struct lora_block {
	const struct lora_plan *plan;
	const struct lora_job *job;
	uint64_t first, count;
	const uint8_t *w;   /* the base's bytes of them; NULL without a base */
	uint8_t *out;	    /* gets theirs; of a job that restores, predictions */
	uint8_t *predicted; /* gets what a way back would predict of w, in w's type; or NULL */
	struct lora_stats *stats; /* added to, tile by tile */
};

/* A tile of the way back: from `merged` values, D in scratch->update, to `base`, each at the first
 * element of the block. loractl-undo(5), "Prediction". */
struct lora_way {
	const uint8_t *merged;
	enum lora_dtype merged_type;
	uint8_t *base;
	enum lora_dtype base_type;
};

void lora__tile_predict(const struct lora_block *block, struct lora_tile tile, struct lora_way way,
			const struct lora_kern *kern, struct lora_scratch *scratch); /* predict.c */

/* The same tile, without a residual to repair it: what to expect of the predictions, in *stats:
 * nonzero elements, d2 of them not the base's, e2 the sum of their squared errors, w2 of squares,
 * if every other weight of the base is odd. `changed` elements are the base's for sure, `unchanged`
 * of them even; ties and ties2 belong to d2 and e2 for each weight more that is even. */
void lora__tile_expect(const struct lora_block *block, struct lora_tile tile, struct lora_way way,
		       const struct lora_kern *kern, struct lora_scratch *scratch,
		       struct lora_stats *stats); /* predict.c */

/* n elements of a type that we compute with, to f32 and back. */
void lora__widen(const struct lora_kern *kern, float *out, const void *in, enum lora_dtype type,
		 size_t n);
void lora__narrow(const struct lora_kern *kern, void *out, enum lora_dtype type, const float *in,
		  size_t n);

/* LORA_INPUT for a result that is not finite, with its place (but where it restores). */
enum lora_status lora__block_compute(const struct lora_block *block, struct lora_scratch *scratch,
				     struct lora_error *err);

/* DORA: job->gain, by reading the whole base tensor once. */
enum lora_status lora__job_gain(const struct lora_plan *plan, struct lora_job *job,
				struct lora_scratch *scratch, struct lora_error *err);

void lora__stats_add(struct lora_stats *total, const struct lora_stats *more);

#endif
