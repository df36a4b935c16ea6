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
	const uint8_t *w;	  /* the base's bytes of them; NULL without a base */
	uint8_t *out;		  /* gets theirs */
	struct lora_stats *stats; /* added to, tile by tile */
};

/* LORA_INPUT for a result that is not finite, with its place. */
enum lora_status lora__block_compute(const struct lora_block *block, struct lora_scratch *scratch,
				     struct lora_error *err);

/* DORA: job->gain, by reading the whole base tensor once. */
enum lora_status lora__job_gain(const struct lora_plan *plan, struct lora_job *job,
				struct lora_scratch *scratch, struct lora_error *err);

void lora__stats_add(struct lora_stats *total, const struct lora_stats *more);

#endif
