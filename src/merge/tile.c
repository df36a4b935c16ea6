/* SPDX-License-Identifier: Apache-2.0 */
/* merge/tile.c - the update of a tile, and the two ways from it to output bytes.
 *
 * The plain way, for sums of low-rank and dense updates on a base tensor of the same shape, is one
 *fused kernel: W' = RNE(f32(W) + D). The general way, for everything else, goes through f32 values
 *of the tile:
 *
 *	value = f32(W), or the replacement; replaced rows over it; + D; times the DoRA gain; W' =
 *RNE(value)
 *
 * A block's tiles, and the spans in which statistics are summed, depend on the matrix's shape
 *alone, never on threads.
 */
#include "merge/tile.h"

#include "base/error.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum lora_status lora__scratch_init(struct lora_scratch *scratch, struct lora_error *err)
{
	memset(scratch, 0, sizeof(*scratch));
	scratch->update = aligned_alloc(64, LORA_TILE_AREA * sizeof(float));
	scratch->value = aligned_alloc(64, LORA_TILE_AREA * sizeof(float));
	scratch->base = aligned_alloc(64, LORA_TILE_AREA * sizeof(float));
	scratch->rounded = aligned_alloc(64, LORA_TILE_AREA * sizeof(float));
	scratch->span = aligned_alloc(64, LORA_STAT_SPAN * sizeof(float));
	return scratch->update && scratch->value && scratch->base && scratch->rounded &&
		       scratch->span
		   ? LORA_OK
		   : lora__fail_memory(err);
}

void lora__scratch_fini(struct lora_scratch *scratch)
{
	free(scratch->update);
	free(scratch->value);
	free(scratch->base);
	free(scratch->rounded);
	free(scratch->span);
	free(scratch->line);
	free(scratch->left);
}

static enum lora_status room_for(float **buffer, size_t *room, uint64_t need,
				 struct lora_error *err)
{
	float *larger;

	if (need <= *room)
		return LORA_OK;
	if (need > SIZE_MAX / sizeof(float))
		return lora__fail_memory(err);
	larger = realloc(*buffer, (size_t)need * sizeof(float));
	if (!larger)
		return lora__fail_memory(err);
	*buffer = larger;
	*room = (size_t)need;
	return LORA_OK;
}

void lora__stats_add(struct lora_stats *total, const struct lora_stats *more)
{
	total->d2 += more->d2;
	total->w2 += more->w2;
	total->e2 += more->e2;
	total->nonzero += more->nonzero;
	total->unchanged += more->unchanged;
	total->changed += more->changed;
	total->nonfinite += more->nonfinite;
	total->ties += more->ties;
	total->ties2 += more->ties2;
}

struct lora_tile lora__tile_next(uint64_t at, uint64_t end, uint64_t width)
{
	struct lora_tile tile = {at / width, 1, at % width, width};
	uint64_t rows = width <= LORA_TILE_COLS ? LORA_TILE_AREA / width : LORA_TILE_ROWS;

	if (tile.col == 0 && end - at >= width) {
		tile.rows = (end - at) / width;
		tile.rows = tile.rows < rows ? tile.rows : rows;
	} else if (end - at < width - tile.col) {
		tile.cols = end - at;
	} else {
		tile.cols = width - tile.col;
	}
	return tile;
}

/* What two ranges [a, a + an) and [b, b + bn) share: *n = 0 if nothing. */
static uint64_t overlap(uint64_t a, uint64_t an, uint64_t b, uint64_t bn, uint64_t *n)
{
	uint64_t begin = a > b ? a : b, end = a + an < b + bn ? a + an : b + bn;

	*n = begin < end ? end - begin : 0;
	return begin;
}

static struct lora_tile covered(const struct lora_edit *edit, struct lora_tile tile)
{
	struct lora_tile both;

	both.row = overlap(tile.row, tile.rows, edit->row0, edit->rows, &both.rows);
	both.col = overlap(tile.col, tile.cols, edit->col0, edit->cols, &both.cols);
	return both;
}

static enum lora_status add_lowrank(const struct lora_plan *plan, const struct lora_part *part,
				    struct lora_tile tile, bool first, const struct lora_kern *kern,
				    struct lora_scratch *scratch, struct lora_error *err)
{
	const struct lora_edit *edit = part->edit;
	struct lora_tile both = covered(edit, tile);
	size_t rank = (size_t)edit->left.cols;
	struct lora_lowrank_shape shape = {(size_t)both.rows, (size_t)both.cols, rank, part->s,
					   first};
	const float *left = part->left ? part->left + (both.row - edit->row0) * rank : NULL;
	enum lora_status status;

	if (both.rows == 0 || both.cols == 0)
		return LORA_OK;
	if (!left) {
		status = room_for(&scratch->left, &scratch->left_room, both.rows * rank, err);
		if (!status)
			status =
			    lora__view_read(plan->inputs[part->adapter].adapter, &edit->left,
					    both.row - edit->row0, both.rows, scratch->left, err);
		if (status)
			return status;
		left = scratch->left;
	}
	kern->lowrank(scratch->update + (both.row - tile.row) * tile.cols + (both.col - tile.col),
		      (size_t)tile.cols, left, rank, part->right + (both.col - edit->col0),
		      (size_t)edit->cols, &shape);
	return LORA_OK;
}

/* Row `row` of a dense view into scratch->line. */
static enum lora_status read_line(const struct lora_plan *plan, const struct lora_part *part,
				  uint64_t row, struct lora_scratch *scratch,
				  struct lora_error *err)
{
	const struct lora_view *view = &part->edit->dense;
	enum lora_status status = room_for(&scratch->line, &scratch->line_room, view->cols, err);

	if (status)
		return status;
	return lora__view_read(plan->inputs[part->adapter].adapter, view, row, 1, scratch->line,
			       err);
}

/* d = s * v; D = D + d, both rounded. */
static enum lora_status add_dense(const struct lora_plan *plan, const struct lora_part *part,
				  struct lora_tile tile, struct lora_scratch *scratch,
				  struct lora_error *err)
{
	const struct lora_edit *edit = part->edit;
	struct lora_tile both = covered(edit, tile);

	for (uint64_t i = both.row; i < both.row + both.rows && both.cols; i++) {
		float *d = scratch->update + (i - tile.row) * tile.cols + (both.col - tile.col);
		enum lora_status status = read_line(plan, part, i - edit->row0, scratch, err);

		if (status)
			return status;
		for (uint64_t j = 0; j < both.cols; j++) {
			float update = part->s * scratch->line[both.col - edit->col0 + j];

			d[j] = d[j] + update;
		}
	}
	return LORA_OK;
}

/* True if the part alone gives every element of the tile, so that D need not be zeroed before. */
static bool fills(const struct lora_part *part, struct lora_tile tile)
{
	struct lora_tile both = covered(part->edit, tile);

	return part->edit->kind != LORA_EDIT_ADD_DENSE && both.rows == tile.rows &&
	       both.cols == tile.cols;
}

enum lora_status lora__tile_update(const struct lora_plan *plan, const struct lora_job *job,
				   struct lora_tile tile, const struct lora_kern *kern,
				   struct lora_scratch *scratch, struct lora_error *err)
{
	size_t count;
	const struct lora_part *parts = lora__job_parts(job, &count);
	bool first = count > 0 && fills(&parts[0], tile);
	enum lora_status status = LORA_OK;

	if (!first)
		memset(scratch->update, 0, (size_t)(tile.rows * tile.cols) * sizeof(float));
	for (size_t i = 0; i < count && !status; i++) {
		if (parts[i].edit->kind == LORA_EDIT_ADD_DENSE)
			status = add_dense(plan, &parts[i], tile, scratch, err);
		else
			status =
			    add_lowrank(plan, &parts[i], tile, first && i == 0, kern, scratch, err);
	}
	return status;
}

void lora__widen(const struct lora_kern *kern, float *out, const void *in, enum lora_dtype type,
		 size_t n)
{
	if (type == LORA_DTYPE_F32)
		memcpy(out, in, n * sizeof(float));
	else if (type == LORA_DTYPE_F16)
		kern->widen_f16(out, in, n);
	else
		kern->widen_bf16(out, in, n);
}

void lora__narrow(const struct lora_kern *kern, void *out, enum lora_dtype type, const float *in,
		  size_t n)
{
	if (type == LORA_DTYPE_F32)
		memcpy(out, in, n * sizeof(float));
	else if (type == LORA_DTYPE_F16)
		kern->narrow_f16(out, in, n);
	else
		kern->narrow_bf16(out, in, n);
}

/* The replacement's values of a tile, then the replaced rows, into scratch->value. */
static enum lora_status replace_values(const struct lora_plan *plan, const struct lora_job *job,
				       struct lora_tile tile, struct lora_scratch *scratch,
				       struct lora_error *err)
{
	enum lora_status status = LORA_OK;

	for (uint64_t i = 0; i < tile.rows && job->replace && !status; i++) {
		status = read_line(plan, job->replace, tile.row + i, scratch, err);
		if (!status)
			memcpy(scratch->value + i * tile.cols, scratch->line + tile.col,
			       (size_t)tile.cols * sizeof(float));
	}
	for (size_t p = 0; p < job->row_count; p++) {
		const struct lora_edit *edit = job->rows[p].edit;

		for (uint64_t k = 0; k < edit->dense.rows && !status; k++) {
			uint64_t id = edit->row_ids[k];

			if (id < tile.row || id >= tile.row + tile.rows)
				continue;
			status = read_line(plan, &job->rows[p], k, scratch, err);
			if (!status)
				memcpy(scratch->value + (id - tile.row) * tile.cols,
				       scratch->line + tile.col, (size_t)tile.cols * sizeof(float));
		}
	}
	return status;
}

static void apply_gain(const struct lora_job *job, struct lora_tile tile, float *value)
{
	for (uint64_t i = 0; i < tile.rows; i++)
		for (uint64_t j = 0; j < tile.cols; j++)
			value[i * tile.cols + j] *=
			    job->gain[job->gain_by_column ? tile.col + j : tile.row + i];
}

/* Statistics of a span on the general path: D is what the element moved before rounding. f64, in
 * order. */
static void count_general(struct lora_stats *stats, const float *base, const float *value,
			  const float *rounded, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		double w = base ? (double)base[i] : 0, d = (double)value[i] - w,
		       e = (double)rounded[i] - (double)value[i];

		stats->nonfinite += isfinite(rounded[i]) ? 0 : 1;
		stats->d2 += d * d;
		stats->w2 += w * w;
		stats->e2 += e * e;
		stats->nonzero += d != 0;
		stats->unchanged += base && d != 0 && rounded[i] == base[i];
		stats->changed += !base || rounded[i] != base[i];
	}
}

/* One contiguous run of a tile: n elements from w to out; `at` is its place inside the tile. */
struct run {
	const uint8_t *w;
	uint8_t *out;
	size_t at, n; /* elements */
};

static enum lora_status general_tile(const struct lora_plan *plan, const struct lora_job *job,
				     struct lora_tile tile, const struct lora_kern *kern,
				     struct lora_scratch *scratch, struct lora_error *err)
{
	size_t n = (size_t)(tile.rows * tile.cols);
	enum lora_status status = LORA_OK;

	if (job->source != LORA_NO_TENSOR)
		memcpy(scratch->value, scratch->base, n * sizeof(float));
	status = replace_values(plan, job, tile, scratch, err);
	if (!status)
		status = lora__tile_update(plan, job, tile, kern, scratch, err);
	if (!status && (job->add_count || job->dora)) /* -0 + 0 would be +0 */
		kern->sum(scratch->value, scratch->value, LORA_DTYPE_F32, scratch->update, n);
	if (!status && job->dora)
		apply_gain(job, tile, scratch->value);
	return status;
}

static void general_run(const struct lora_job *job, struct run run, const struct lora_kern *kern,
			struct lora_scratch *scratch, struct lora_stats *stats)
{
	const float *value = scratch->value + run.at;
	float *rounded = scratch->rounded + run.at;

	lora__narrow(kern, run.out, job->out_type, value, run.n);
	lora__widen(kern, rounded, run.out, job->out_type, run.n);
	count_general(stats, job->source == LORA_NO_TENSOR ? NULL : scratch->base + run.at, value,
		      rounded, run.n);
}

static void plain_run(const struct lora_job *job, struct run run, const struct lora_kern *kern,
		      const struct lora_scratch *scratch, struct lora_stats *stats)
{
	size_t in = lora_dtype_bits(job->in_type) / 8, out = lora_dtype_bits(job->out_type) / 8;

	for (size_t i = 0; i < run.n; i += LORA_STAT_SPAN) {
		size_t n = run.n - i < LORA_STAT_SPAN ? run.n - i : LORA_STAT_SPAN;

		kern->apply(run.out + i * out, job->out_type, run.w + i * in, job->in_type,
			    scratch->update + run.at + i, n, stats);
	}
}

static float one_value(const void *data, enum lora_dtype type, uint64_t at)
{
	float value;

	lora__widen(&lora__kern_generic, &value,
		    (const uint8_t *)data + at * (lora_dtype_bits(type) / 8), type, 1);
	return value;
}

/* Which element it was, and whose fault. */
static enum lora_status fail_nonfinite(const struct lora_block *block, struct lora_error *err)
{
	const struct lora_job *job = block->job;
	uint64_t i = 0, at;
	bool base_bad;

	while (i + 1 < block->count && isfinite(one_value(block->out, job->out_type, i)))
		i++;
	at = block->first + i;
	base_bad = block->w && !isfinite(one_value(block->w, job->in_type, i));
	return lora__fail(
	    err, LORA_INPUT, "'%s' [%llu, %llu]: %s", lora__escape(job->name),
	    (unsigned long long)(at / job->width), (unsigned long long)(at % job->width),
	    base_bad ? "the base's value is not finite: repair the base"
	    : job->out_type == LORA_DTYPE_F16
		? "the merged value is outside F16's range: use --dtype f32 or bf16"
		: "the merged value is not finite: the update is too large for its type");
}

/* Run i of a tile. Rows that follow one another without a gap are one run. */
static struct run tile_run(const struct lora_block *block, struct lora_tile tile, uint64_t i)
{
	const struct lora_job *job = block->job;
	bool joined = tile.cols == job->width;
	size_t length = (size_t)(joined ? tile.rows * tile.cols : tile.cols);
	uint64_t element = (tile.row + i) * job->width + tile.col - block->first;
	struct run run = {NULL, block->out + element * (lora_dtype_bits(job->out_type) / 8),
			  (size_t)i * length, length};

	if (block->w)
		run.w = block->w + element * (lora_dtype_bits(job->in_type) / 8);
	return run;
}

/* The way back of one tile, from the block's bytes. */
static enum lora_status restore_tile(const struct lora_block *block, struct lora_tile tile,
				     const struct lora_kern *kern, struct lora_scratch *scratch,
				     struct lora_error *err)
{
	const struct lora_job *job = block->job;
	struct lora_way way = {block->w, job->in_type, block->out, job->out_type};
	enum lora_status status = lora__tile_update(block->plan, job, tile, kern, scratch, err);

	if (!status)
		lora__tile_predict(block, tile, way, kern, scratch);
	if (!status && !job->chunk_count)
		lora__tile_expect(block, tile, way, kern, scratch, block->stats);
	return status;
}

static enum lora_status merge_tile(const struct lora_block *block, struct lora_tile tile,
				   const struct lora_kern *kern, struct lora_scratch *scratch,
				   struct lora_error *err)
{
	const struct lora_job *job = block->job;
	struct lora_way way = {block->out, job->out_type, block->predicted, job->in_type};
	uint64_t runs = tile.cols == job->width ? 1 : tile.rows;
	enum lora_status status;

	for (uint64_t i = 0; i < runs && !job->plain && block->w; i++) {
		struct run run = tile_run(block, tile, i);

		lora__widen(kern, scratch->base + run.at, run.w, job->in_type, run.n);
	}
	if (job->plain)
		status = lora__tile_update(block->plan, job, tile, kern, scratch, err);
	else
		status = general_tile(block->plan, job, tile, kern, scratch, err);
	for (uint64_t i = 0; i < runs && !status; i++) {
		if (job->plain)
			plain_run(job, tile_run(block, tile, i), kern, scratch, block->stats);
		else
			general_run(job, tile_run(block, tile, i), kern, scratch, block->stats);
	}
	if (!status && block->predicted)
		lora__tile_predict(block, tile, way, kern, scratch);
	return status;
}

enum lora_status lora__block_compute(const struct lora_block *block, struct lora_scratch *scratch,
				     struct lora_error *err)
{
	const struct lora_kern *kern = lora__kern(err);
	uint64_t nonfinite = block->stats->nonfinite, end = block->first + block->count;

	if (!kern)
		return LORA_USAGE;
	for (uint64_t at = block->first; at < end;) {
		struct lora_tile rows = lora__tile_next(at, end, block->job->width);

		for (uint64_t c = 0; c < rows.cols; c += LORA_TILE_COLS) {
			uint64_t cols =
			    rows.cols - c < LORA_TILE_COLS ? rows.cols - c : LORA_TILE_COLS;
			struct lora_tile tile = {rows.row, rows.rows, rows.col + c, cols};
			enum lora_status status =
			    block->job->restores ? restore_tile(block, tile, kern, scratch, err)
						 : merge_tile(block, tile, kern, scratch, err);

			if (status)
				return status;
		}
		at += rows.rows * rows.cols;
	}
	return block->stats->nonfinite == nonfinite ? LORA_OK : fail_nonfinite(block, err);
}
