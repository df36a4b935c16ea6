/* SPDX-License-Identifier: Apache-2.0 */
/* merge/plan.h - what a merge will do, before a byte is written.
 *
 *	adapters --edits--> jobs (one per tensor that changes or appears)
 *	base shards + jobs --layout--> output files, each a head and a row of items
 *
 * 1. A job gathers every edit on one output tensor; conflicts are refused here, by name, before
 *anything is computed.
 * 2. An item without a job is an untouched tensor: its bytes are the base's.
 * 3. Items stand in the base's order; what the base does not have follows at the end of the last
 *file.
 * 4. The order of parts in `adds` is the order of the adapters on the command line: it is part of
 *the rounding contract.
 */
#ifndef LORA_MERGE_PLAN_H
#define LORA_MERGE_PLAN_H

#include "adapter/adapter.h"
#include "kern/kern.h"
#include <loractl/merge.h>
#include <pthread.h>

/* One edit of one adapter, with its scale. */
struct lora_part {
	uint32_t adapter;
	const struct lora_edit *edit;
	float s;      /* f32(weight * alpha / divisor) */
	float *left;  /* [rows, rank], or NULL: read block by block */
	float *right; /* [rank, cols] */
};

/* A piece of a tensor's residual (merge/residual.h) in an undo record. */
struct lora_residual_chunk {
	uint64_t elements;
	uint64_t at; /* bytes from the beginning of the record */
	size_t size;
};

struct lora_job {
	size_t number; /* its place in the plan */
	const char *name;
	uint32_t source;	 /* base tensor, or LORA_NO_TENSOR */
	enum lora_dtype in_type; /* of the base tensor; LORA_DTYPE_NONE without one */
	enum lora_dtype out_type;
	uint32_t ndim;
	uint64_t shape[LORA_MAX_DIMS];
	uint64_t elements, width, height; /* elements = width * height */
	struct lora_part *replace;	  /* REPLACE or ADD_TENSOR; or NULL */
	struct lora_part *rows;		  /* REPLACE_ROWS */
	size_t row_count;
	struct lora_part *adds; /* ADD_LOWRANK, ADD_DENSE */
	size_t add_count;
	struct lora_part *dora; /* or NULL; then no other part */
	float *gain;		/* DORA: f32(m / norm), by row or by column */
	bool gain_by_column;
	bool restores;	    /* the way back: the source is a merged tensor, the result the base's */
	uint8_t *zero_rows; /* with an undo record: bit i mod 8 of byte i / 8 says that row i was
			       replaced, so that the base's is predicted as +0; or NULL */
	const struct lora_residual_chunk *chunks; /* restores: in order, they make up the tensor */
	size_t chunk_count;
	bool raw;   /* a replacement of a type that we do not compute with: its bytes are copied */
	bool plain; /* only adds on a base tensor of this shape: the fast path */
	bool tie_decided; /* the other half of its tie has been looked at */
	bool dropped;	  /* an alias of a tensor that gets the same update: not written */
	struct lora_stats stats;
	pthread_mutex_t lock; /* guards loaded and the parts' factors */
	bool loaded;
};

struct lora_undo_writer;

struct lora_item {
	const char *name;
	const struct lora_tensor
	    *base;	      /* where untouched bytes come from; NULL for a tensor that is new */
	struct lora_job *job; /* NULL: untouched */
	uint64_t begin, size; /* bytes in the output file */
	struct lora_sha256 digest;
	const struct lora_sha256 *expected; /* of the bytes read for it; NULL: anything */
	struct lora_sha256 restored;	    /* on the way back: of a job's result */
};

struct lora_outfile {
	const char *name;
	uint8_t *head;
	size_t head_size;
	struct lora_item *items;
	size_t item_count;
	uint64_t size;
	int fd; /* -1 before and after it is written, and in a dry run */
	struct lora_sha256 digest;
};

struct lora_plan {
	struct lora_arena arena;
	struct lora_model *base;
	const struct lora_merge_input *inputs;
	size_t input_count;
	const struct lora_merge_options *options;
	const struct lora_observer *observer;
	struct lora_resolved *resolved; /* by input */
	struct lora_job
	    *jobs; /* room for job_limit: one for every edit, and one for a tie that is split */
	size_t job_count, job_limit;
	struct lora_map job_by_name;
	struct lora_outfile *files;
	size_t file_count;
	const char **added; /* names of tensors that the base does not have */
	size_t added_count;
	const char *split_head; /* of a tie that is split with one half untouched: the absent half's
				   name ... */
	uint32_t split_source;	/* ... and the stored half, whose bytes it gets */
	bool untie;		/* tie_word_embeddings becomes false */
	uint64_t vocab_size;	/* 0: unchanged */
	uint64_t base_vocab_size;
	uint64_t bytes;		       /* of all output weight files */
	struct lora_undo_writer *undo; /* gets the residuals; or NULL */
	const char *undo_name;	       /* the record's file name, once it is written; or NULL */
	struct lora_sha256 undo_sha256;
	uint64_t undo_size;
	const struct lora_file *record; /* where jobs that restore have their chunks */
};

/* Resolves the adapters, gathers jobs, decides ties, lays out files. The caller finis in any case.
 */
enum lora_status lora__plan_make(struct lora_plan *plan, struct lora_error *err);
void lora__plan_fini(struct lora_plan *plan);

/* Steps of lora__plan_make, each in its file. */
enum lora_status lora__plan_jobs(struct lora_plan *plan, struct lora_error *err);   /* jobs.c */
enum lora_status lora__plan_ties(struct lora_plan *plan, struct lora_error *err);   /* ties.c */
enum lora_status lora__plan_layout(struct lora_plan *plan, struct lora_error *err); /* layout.c */

/* A new job on output tensor `name` with the shape of `like` (its source when source is given).
 * NULL without memory. */
struct lora_job *lora__plan_job(struct lora_plan *plan, const char *name, uint32_t source);
struct lora_job *lora__plan_find_job(struct lora_plan *plan, const char *name);

/* The part by which reports name a job: its DoRA or first sum, else its replacement or first rows.
 */
const struct lora_part *lora__job_lead(const struct lora_job *job);
/* The parts that make its update D, in order: the DoRA's one, or the sums. */
const struct lora_part *lora__job_parts(const struct lora_job *job, size_t *count);
/* The sum of its adapters' ranks. */
uint32_t lora__job_rank(const struct lora_job *job);

/* Factors of a job's parts: loaded once when its first block needs them, released after its last.
 */
enum lora_status lora__job_load(struct lora_plan *plan, struct lora_job *job,
				struct lora_error *err);
void lora__job_unload(struct lora_job *job);
/* Bytes that lora__job_load takes. */
uint64_t lora__job_room(const struct lora_job *job);
/* How many of --threads a merge uses: its memory and its open files depend on them. */
unsigned lora__merge_workers(const struct lora_plan *plan);

#endif
