/* SPDX-License-Identifier: Apache-2.0 */
/* net/patch.c - the edits on one matrix, made ready for the forward pass.
 *
 *	REPLACE, REPLACE_ROWS, ADD_DENSE	a copy of the matrix in f32 that is used in its
 *place ADD_LOWRANK, DORA			A, stacked, and B beside the matrix, never added to
 *it DORA					also the gain m / |W + s*B*A|, by output
 *
 * 1. Edits speak of the matrix as the file has it. Where that is [in, out] (`turned`), L is A^T and
 *R is B^T, and stored row i is column i here.
 * 2. The order is that of formats/edit.h, whatever the order of the list.
 * 3. The norm of DoRA is taken in f64 over the sum as f32 products give it: |W + s*B*A| has no one
 *    right rounding here, since the merge's contract is another arithmetic.
 */
#include "net/attach.h"

#include <inttypes.h>
#include <math.h>
#include <string.h>

#include "base/checked.h"
#include "base/error.h"
#include "kern/gemm.h"

/* Floats from the arena, or NULL: the product is checked. */
static float *floats(struct lora_arena *arena, size_t rows, size_t cols)
{
	uint64_t count;

	if (lora__mul_overflows(rows, cols, &count) || count > SIZE_MAX / sizeof(float))
		return NULL;
	return lora__arena_array(arena, (size_t)count, sizeof(float));
}

static float *read_view(const struct lora_laid *laid, const struct lora_view *view,
			struct lora_arena *arena, enum lora_status *status, struct lora_error *err)
{
	float *out = floats(arena, (size_t)view->rows, (size_t)view->cols);

	*status = out ? lora__view_read(laid->input->adapter, view, 0, view->rows, out, err)
		      : lora__fail_memory(err);
	return out;
}

static bool replaces(const struct lora_edit *edit)
{
	return edit->kind == LORA_EDIT_REPLACE || edit->kind == LORA_EDIT_REPLACE_ROWS;
}

static bool is_low(const struct lora_edit *edit)
{
	return edit->kind == LORA_EDIT_ADD_LOWRANK || edit->kind == LORA_EDIT_DORA;
}

static const struct lora_piece *piece_of(const struct lora_edited *e, const struct lora_laid *laid)
{
	return &e->piece[laid->piece];
}

/* --- the copy -------------------------------------------------------------------------------- */

enum lora_status lora__patch_same(const struct lora_laid *laid, const float *there,
				  const float *values, size_t n, size_t step,
				  struct lora_error *err)
{
	for (size_t j = 0; j < n; j++)
		if (there[j * step] != values[j])
			return lora__fail(err, LORA_INPUT,
					  "two adapters replace '%s' with different values: attach "
					  "one of them",
					  lora__escape(laid->edit->target));
	return LORA_OK;
}

/* One stored row of an edit's dense values into the copy: a row here, or a column. `done`: an
 * adapter has been there. */
static enum lora_status put_row(const struct lora_edited *e, float *copy,
				const struct lora_laid *laid, uint64_t stored, const float *values,
				bool done, struct lora_error *err)
{
	const struct lora_edit *edit = laid->edit;
	size_t cols = e->W.cols, step = e->turned ? cols : 1, n = (size_t)edit->dense.cols;
	size_t row0 = piece_of(e, laid)->row0, col = (size_t)edit->col0;
	float *at = e->turned ? copy + (row0 + col) * cols + stored
			      : copy + (row0 + (size_t)stored) * cols + col;

	if (done)
		return lora__patch_same(laid, at, values, n, step, err);
	for (size_t j = 0; j < n; j++)
		at[j * step] = replaces(edit) ? values[j] : at[j * step] + laid->s * values[j];
	return LORA_OK;
}

/* All edits of one kind into the copy. */
static enum lora_status put_kind(const struct lora_edited *e, float *copy, enum lora_edit_kind kind,
				 struct lora_error *err)
{
	size_t rows = e->turned ? e->W.cols : e->W.rows, width = e->turned ? e->W.rows : e->W.cols;
	uint8_t *done = lora__arena_alloc(e->arena, rows + 1);
	float *line = floats(e->arena, width, 1);
	enum lora_status status = done && line ? LORA_OK : lora__fail_memory(err);

	for (size_t k = 0; k < e->count && !status; k++) {
		const struct lora_laid *laid = e->laid[k];
		const struct lora_edit *edit = laid->edit;

		for (uint64_t i = 0; i < edit->dense.rows && edit->kind == kind && !status; i++) {
			uint64_t stored = kind == LORA_EDIT_REPLACE_ROWS ? edit->row_ids[i]
					  : kind == LORA_EDIT_REPLACE	 ? i
									 : edit->row0 + i;
			uint8_t *mark = &done[stored]; /* a bit for each piece */

			status =
			    lora__view_read(laid->input->adapter, &edit->dense, i, 1, line, err);
			if (!status)
				status = put_row(e, copy, laid, stored, line,
						 replaces(edit) && *mark & 1u << laid->piece, err);
			if (replaces(edit))
				*mark |= (uint8_t)(1u << laid->piece);
		}
	}
	return status;
}

/* Does a replacement change the number of rows? Then all of them must agree. */
static enum lora_status new_rows(const struct lora_edited *e, size_t *rows, struct lora_error *err)
{
	bool seen = false;

	*rows = e->W.rows;
	for (size_t k = 0; k < e->count; k++) {
		const struct lora_edit *edit = e->laid[k]->edit;
		const struct lora_piece *piece = piece_of(e, e->laid[k]);
		uint64_t out = e->turned ? edit->dense.cols : edit->dense.rows,
			 in = e->turned ? edit->dense.rows : edit->dense.cols;

		if (edit->kind != LORA_EDIT_REPLACE)
			continue;
		if (in != e->W.cols || out > SIZE_MAX / 8 ||
		    (out != piece->rows && !(e->may_grow && (!seen || out == *rows))))
			return lora__fail(err, LORA_INPUT,
					  "'%s' is replaced by a tensor of a shape that this model "
					  "cannot be run with",
					  lora__escape(edit->target));
		if (e->may_grow)
			*rows = (size_t)out;
		seen = true;
	}
	return LORA_OK;
}

static enum lora_status make_copy(struct lora_edited *e, struct lora_patch *patch,
				  struct lora_error *err)
{
	static const enum lora_edit_kind order[] = {LORA_EDIT_REPLACE, LORA_EDIT_REPLACE_ROWS,
						    LORA_EDIT_ADD_DENSE};
	size_t rows = 0, kept;
	enum lora_status status = new_rows(e, &rows, err);
	bool needed = false;
	float *copy;

	for (size_t k = 0; k < e->count; k++)
		needed = needed || !is_low(e->laid[k]->edit);
	if (status || !needed)
		return status;
	copy = floats(e->arena, rows, e->W.cols);
	if (!copy)
		return lora__fail_memory(err);
	kept = rows < e->W.rows ? rows : e->W.rows;
	lora__net_widen(e->net, copy, e->W.data, e->W.dtype, kept * e->W.cols);
	patch->W = (struct lora_matrix){LORA_DTYPE_F32, rows, e->W.cols, copy};
	e->W = patch->W;
	for (size_t i = 0; i < sizeof(order) / sizeof(*order) && !status; i++)
		status = put_kind(e, copy, order[i], err);
	return status;
}

/* --- the low-rank updates -------------------------------------------------------------------- */

/* to [cols, rows] = the transpose of from [rows, cols]; rows of `to` are ld apart. */
static void transpose(float *to, size_t ld, const float *from, size_t rows, size_t cols)
{
	for (size_t i = 0; i < rows; i++)
		for (size_t j = 0; j < cols; j++)
			to[j * ld + i] = from[i * cols + j];
}

/* One update: its rows of A, and its B. */
static enum lora_status add_low(const struct lora_edited *e, struct lora_patch *patch,
				const struct lora_laid *laid, struct lora_error *err)
{
	const struct lora_edit *edit = laid->edit;
	const struct lora_view *in = e->turned ? &edit->left : &edit->right,
			       *out = e->turned ? &edit->right : &edit->left;
	size_t rank = (size_t)edit->left.cols, cols = e->W.cols,
	       col = (size_t)(e->turned ? edit->row0 : edit->col0),
	       row = (size_t)(e->turned ? edit->col0 : edit->row0);
	struct lora_lowrank *low = &patch->low[patch->low_count];
	float *A = patch->A + patch->rank * cols + col, *B, *read;
	enum lora_status status;

	read = read_view(laid, in, e->arena, &status, err);
	if (status)
		return status;
	if (e->turned)
		transpose(A, cols, read, (size_t)in->rows, rank);
	for (size_t k = 0; k < rank && !e->turned; k++)
		memcpy(A + k * cols, read + k * (size_t)in->cols, (size_t)in->cols * sizeof(float));
	B = read = read_view(laid, out, e->arena, &status, err);
	if (status)
		return status;
	if (e->turned) {
		B = floats(e->arena, (size_t)out->cols, rank);
		if (!B)
			return lora__fail_memory(err);
		transpose(B, rank, read, rank, (size_t)out->cols);
	}
	*low = (struct lora_lowrank){piece_of(e, laid)->row0 + row,
				     (size_t)(e->turned ? out->cols : out->rows),
				     patch->rank,
				     rank,
				     laid->s,
				     B};
	patch->low_count++;
	patch->rank += rank;
	return LORA_OK;
}

/* --- DoRA's gain ----------------------------------------------------------------------------- */

#define STEP 64 /* rows at a time */

/* t [rows, cols] = W + s*B*A for rows row .. row + rows of the matrix. */
static void sum_rows(const struct lora_edited *e, const struct lora_patch *patch,
		     const struct lora_lowrank *low, size_t row, size_t rows, float *t)
{
	size_t cols = e->W.cols;

	lora__net_widen(e->net, t, lora__matrix_at(&e->W, row, 0), e->W.dtype, rows * cols);
	lora__gemm_nn(&(struct lora_gemm){.m = rows,
					  .n = cols,
					  .k = low->rank,
					  .alpha = low->s,
					  .beta = 1,
					  .A = low->B + (row - low->row0) * low->rank,
					  .lda = low->rank,
					  .B = patch->A + low->h0 * cols,
					  .ldb = cols,
					  .C = t,
					  .ldc = cols});
}

/* squares[i] of every row, or squares[j] of every column. */
static enum lora_status add_squares(const struct lora_edited *e, const struct lora_patch *patch,
				    const struct lora_lowrank *low, bool by_row, double *squares,
				    struct lora_error *err)
{
	size_t cols = e->W.cols;
	float *t = floats(e->arena, STEP, cols);

	if (!t)
		return lora__fail_memory(err);
	for (size_t at = 0; at < low->rows; at += STEP) {
		size_t rows = low->rows - at < STEP ? low->rows - at : STEP;

		sum_rows(e, patch, low, low->row0 + at, rows, t);
		for (size_t i = 0; i < rows; i++)
			for (size_t j = 0; j < cols; j++) {
				double x = (double)t[i * cols + j];

				squares[by_row ? at + i : j] += x * x;
			}
	}
	return LORA_OK;
}

static enum lora_status add_gain(const struct lora_edited *e, struct lora_patch *patch,
				 const struct lora_laid *laid, const struct lora_lowrank *low,
				 bool by_row, struct lora_error *err)
{
	size_t count = (size_t)laid->edit->magnitude.cols, all = by_row ? e->W.rows : e->W.cols,
	       first = by_row ? low->row0 : 0;
	double *squares = lora__arena_array(e->arena, count, sizeof(*squares));
	enum lora_status status;
	float *m;

	if (count != (by_row ? low->rows : all))
		return lora__fail(err, LORA_INPUT,
				  "DoRA on part of '%s' is not supported when a model is run",
				  lora__escape(laid->edit->target));
	if (!patch->gain) {
		patch->gain = floats(e->arena, all, 1);
		for (size_t i = 0; patch->gain && i < all; i++)
			patch->gain[i] = 1;
	}
	if (!patch->gain || !squares)
		return lora__fail_memory(err);
	m = read_view(laid, &laid->edit->magnitude, e->arena, &status, err);
	if (!status)
		status = add_squares(e, patch, low, by_row, squares, err);
	for (size_t i = 0; i < count && !status; i++) {
		patch->gain[first + i] = (float)((double)m[i] / sqrt(squares[i]));
		if (!isfinite(patch->gain[first + i]))
			status = lora__fail(err, LORA_INPUT,
					    "'%s': DoRA divides by the norm of row or column %zu, "
					    "which is 0",
					    lora__escape(laid->edit->target), i);
	}
	return status;
}

/* --- together -------------------------------------------------------------------------------- */

/* Edits that exclude each other. */
static enum lora_status check(const struct lora_edited *e, struct lora_error *err)
{
	for (size_t k = 0; k < e->count; k++) {
		const struct lora_laid *laid = e->laid[k];

		if (laid->edit->kind != LORA_EDIT_DORA)
			continue;
		for (size_t i = 0; i < e->count; i++)
			if (i != k && e->laid[i]->piece == laid->piece &&
			    !replaces(e->laid[i]->edit))
				return lora__fail(err, LORA_INPUT,
						  "'%s' has DoRA and another edit: attach them one "
						  "at a time",
						  lora__escape(laid->edit->target));
		/* outputs are the file's rows; where it is turned, its columns */
		if (!e->both_gains && laid->edit->norm_by_column != e->turned)
			return lora__fail(err, LORA_INPUT,
					  "'%s': DoRA along the inputs is not supported when a "
					  "model is run",
					  lora__escape(laid->edit->target));
	}
	return LORA_OK;
}

enum lora_status lora__patch_make(const struct lora_edited *edited, struct lora_patch *patch,
				  bool *by_row, struct lora_error *err)
{
	struct lora_edited e = *edited;
	enum lora_status status = check(&e, err);
	size_t rank = 0;

	*by_row = true;
	for (size_t k = 0; k < e.count; k++)
		if (is_low(e.laid[k]->edit))
			rank += (size_t)e.laid[k]->edit->left.cols;
	patch->A = floats(e.arena, rank, e.W.cols);
	patch->low = lora__arena_array(e.arena, e.count, sizeof(*patch->low));
	if (!status && (!patch->A || !patch->low))
		status = lora__fail_memory(err);
	if (!status)
		status = make_copy(&e, patch, err);
	for (size_t k = 0; k < e.count && !status; k++) {
		const struct lora_laid *laid = e.laid[k];

		if (!is_low(laid->edit))
			continue;
		status = add_low(&e, patch, laid, err);
		if (status || laid->edit->kind != LORA_EDIT_DORA)
			continue;
		*by_row = !e.both_gains || !laid->edit->norm_by_column;
		status = add_gain(&e, patch, laid, &patch->low[patch->low_count - 1], *by_row, err);
	}
	return status;
}
