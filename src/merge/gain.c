/* SPDX-License-Identifier: Apache-2.0 */
/* merge/gain.c - DoRA's factor for every row (or column) of a weight: g = f32(m / |t|), t = f32(W)
 * + D.
 *
 * The norm is taken over the input dimension (Liu et al. 2024, section 4: one magnitude for each
 * output), in f64, as eight partial sums of t^2 by index mod 8, added pairwise. Where the base
 * stores [in, out] a norm belongs to a column, and the index is the row's. The base tensor is read
 * once here, before its blocks are computed.
 */
#include "merge/tile.h"

#include "base/error.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

struct norms {
	double (*partial)[8]; /* by row or column */
	float *t;	      /* one tile */
	uint8_t *w;	      /* its bytes */
};

static void sum_rows(const struct lora_kern *kern, struct norms *norms, struct lora_tile tile)
{
	for (uint64_t i = 0; i < tile.rows; i++)
		kern->square8(norms->partial[tile.row + i], norms->t + i * tile.cols,
			      (size_t)tile.cols, (size_t)tile.col);
}

static void sum_columns(struct norms *norms, struct lora_tile tile)
{
	for (uint64_t i = 0; i < tile.rows; i++)
		for (uint64_t j = 0; j < tile.cols; j++) {
			double t = (double)norms->t[i * tile.cols + j];

			norms->partial[tile.col + j][(tile.row + i) % 8] += t * t;
		}
}

static enum lora_status sum_tile(const struct lora_plan *plan, const struct lora_job *job,
				 struct lora_tile tile, struct norms *norms,
				 struct lora_scratch *scratch, struct lora_error *err)
{
	const struct lora_tensor *w = &plan->base->index.tensors[job->source];
	const struct lora_kern *kern = lora__kern(err);
	size_t size = lora_dtype_bits(job->in_type) / 8;
	enum lora_status status = kern ? LORA_OK : LORA_USAGE;

	for (uint64_t i = 0; i < tile.rows && !status; i++)
		status =
		    lora_model_read(plan->base, w, ((tile.row + i) * job->width + tile.col) * size,
				    norms->w + i * tile.cols * size, (size_t)tile.cols * size, err);
	if (!status)
		status = lora__tile_update(plan, job, tile, kern, scratch, err);
	if (status)
		return status;
	kern->sum(norms->t, norms->w, job->in_type, scratch->update,
		  (size_t)(tile.rows * tile.cols));
	if (job->dora->edit->norm_by_column)
		sum_columns(norms, tile);
	else
		sum_rows(kern, norms, tile);
	return LORA_OK;
}

static double norm_of(const double p[8])
{
	return sqrt(((p[0] + p[1]) + (p[2] + p[3])) + ((p[4] + p[5]) + (p[6] + p[7])));
}

static enum lora_status sum_all(const struct lora_plan *plan, const struct lora_job *job,
				struct norms *norms, struct lora_scratch *scratch,
				struct lora_error *err)
{
	enum lora_status status = LORA_OK;

	for (uint64_t at = 0; at < job->elements && !status;) {
		struct lora_tile rows = lora__tile_next(at, job->elements, job->width);

		for (uint64_t c = 0; c < rows.cols && !status; c += LORA_TILE_COLS) {
			struct lora_tile tile = rows;

			tile.col = c;
			tile.cols = rows.cols - c < LORA_TILE_COLS ? rows.cols - c : LORA_TILE_COLS;
			status = sum_tile(plan, job, tile, norms, scratch, err);
		}
		at += rows.rows * rows.cols;
	}
	return status;
}

enum lora_status lora__job_gain(const struct lora_plan *plan, struct lora_job *job,
				struct lora_scratch *scratch, struct lora_error *err)
{
	const struct lora_part *part = job->dora;
	size_t count = (size_t)(part->edit->norm_by_column ? job->width : job->height);
	struct norms norms = {calloc(count + 1, sizeof(*norms.partial)),
			      calloc(LORA_TILE_AREA, sizeof(*norms.t)), calloc(LORA_TILE_AREA, 4)};
	enum lora_status status = LORA_OK;

	job->gain = malloc((count + 1) * sizeof(float));
	if (!job->gain || !norms.partial || !norms.t || !norms.w) {
		status = lora__fail_memory(err);
		goto out;
	}
	status = lora__view_read(plan->inputs[part->adapter].adapter, &part->edit->magnitude, 0,
				 part->edit->magnitude.rows, job->gain, err);
	if (!status)
		status = sum_all(plan, job, &norms, scratch, err);
	for (size_t i = 0; i < count && !status; i++)
		job->gain[i] = (float)((double)job->gain[i] / norm_of(norms.partial[i]));
out:
	free(norms.partial);
	free(norms.t);
	free(norms.w);
	return status;
}
