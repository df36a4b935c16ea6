/* SPDX-License-Identifier: Apache-2.0 */
/* net/linear.c - tokens times a weight, with what hangs on it:
 *
 *	y = gain * (W x + sum of s * B (A x)) + bias
 *
 * One token is a matrix times a vector: the time is that of reading W, so each worker reads a share
 * of its rows, in the type in which they are stored. More tokens are a product of matrices: each
 * worker gives the BLAS a share of W's rows; weights of 16 bits are widened panel by panel, small
 * enough to stay in the second cache.
 *
 * 1. h = A x comes first, for all low-rank updates of the matrix at once.
 * 2. Row i of the result is made by one worker alone.
 * 3. `accumulate` adds to y what would be stored there. With a gain that is done by way of
 *    a.whole, since the gain does not concern what is in y.
 */
#include <string.h>

#include "kern/gemm.h"
#include "net/net.h"

#define GRAIN 16 /* rows of a worker's share come in multiples of this */
/* Elements of W below which one worker is faster than calling the others (one to two microseconds).
 */
#define ALONE 32768u

static void gemv(const struct lora_net *net, float *y, const struct lora_matrix *W, size_t row,
		 size_t rows, const float *x)
{
	const void *w = lora__matrix_at(W, row, 0);

	if (W->dtype == LORA_DTYPE_F16)
		net->vec->gemv_f16(y, w, W->cols, x, rows, W->cols);
	else if (W->dtype == LORA_DTYPE_BF16)
		net->vec->gemv_bf16(y, w, W->cols, x, rows, W->cols);
	else
		net->vec->gemv_f32(y, w, W->cols, x, rows, W->cols);
}

static void share(struct lora_net *net, size_t size, lora_team_fn *work, void *user)
{
	if (size < ALONE)
		work(user, 0, 1);
	else
		lora__team_run(net->team, work, user);
}

/* --- h = A x --------------------------------------------------------------------------------- */

static void lower(void *user, unsigned worker, unsigned count)
{
	const struct lora_product_run *run = user;
	const struct lora_patch *patch = run->linear->patch;
	const struct lora_net *net = run->state->net;
	size_t in = run->linear->W.cols, begin, end;
	float *h = run->state->a.low;

	if (run->tokens == 1) {
		lora__team_share(patch->rank, GRAIN, worker, count, &begin, &end);
		net->vec->gemv_f32(h + begin, patch->A + begin * in, in, run->x, end - begin, in);
		return;
	}
	lora__team_share(run->tokens, 1, worker, count, &begin, &end);
	lora__gemm_nt(&(struct lora_gemm){.m = end - begin,
					  .n = patch->rank,
					  .k = in,
					  .alpha = 1,
					  .A = run->x + begin * run->ldx,
					  .lda = run->ldx,
					  .B = patch->A,
					  .ldb = in,
					  .C = h + begin * patch->rank,
					  .ldc = patch->rank});
}

/* --- W x ------------------------------------------------------------------------------------- */

/* Where the product of this run goes before gain and bias, and how. */
struct target {
	float *y;
	size_t ldy;
	float beta;
};

static struct target target_of(const struct lora_product_run *run)
{
	const struct lora_patch *patch = run->linear->patch;
	bool aside = run->accumulate && ((patch && patch->gain) || run->tokens == 1);

	if (aside)
		return (struct target){run->state->a.whole, run->linear->W.rows, 0};
	return (struct target){run->y, run->ldy, run->accumulate ? 1 : 0};
}

/* Rows [begin, end) of W for many tokens. */
static void multiply(const struct lora_product_run *run, const struct lora_matrix *W,
		     const struct target *to, size_t begin, size_t end, float *panel)
{
	const struct lora_net *net = run->state->net;
	size_t step = W->dtype == LORA_DTYPE_F32 ? end - begin : run->state->scratch_size / W->cols;

	for (size_t row = begin; row < end; row += step) {
		size_t rows = end - row < step ? end - row : step;
		const float *w = lora__matrix_at(W, row, 0);

		if (W->dtype != LORA_DTYPE_F32) {
			lora__net_widen(net, panel, w, W->dtype, rows * W->cols);
			w = panel;
		}
		lora__gemm_nt(&(struct lora_gemm){.m = run->tokens,
						  .n = rows,
						  .k = W->cols,
						  .alpha = 1,
						  .beta = to->beta,
						  .A = run->x,
						  .lda = run->ldx,
						  .B = w,
						  .ldb = W->cols,
						  .C = to->y + row,
						  .ldc = to->ldy});
	}
}

/* y[begin, end) += s * B h, as far as the update has these rows. */
static void raise(const struct lora_product_run *run, const struct lora_lowrank *low,
		  const struct target *to, size_t begin, size_t end)
{
	const struct lora_vec *vec = run->state->net->vec;
	size_t first = begin > low->row0 ? begin : low->row0,
	       last = end < low->row0 + low->rows ? end : low->row0 + low->rows;
	const float *h = run->state->a.low + low->h0, *B;
	float part[64];

	if (first >= last)
		return;
	B = low->B + (first - low->row0) * low->rank;
	if (run->tokens > 1) {
		lora__gemm_nt(&(struct lora_gemm){.m = run->tokens,
						  .n = last - first,
						  .k = low->rank,
						  .alpha = low->s,
						  .beta = 1,
						  .A = h,
						  .lda = run->linear->patch->rank,
						  .B = B,
						  .ldb = low->rank,
						  .C = to->y + first,
						  .ldc = to->ldy});
		return;
	}
	for (size_t row = first; row < last; row += 64) {
		size_t rows = last - row < 64 ? last - row : 64;

		vec->gemv_f32(part, B + (row - first) * low->rank, low->rank, h, rows, low->rank);
		vec->add(to->y + row, low->s, part, rows);
	}
}

/* gain and bias, and the way from a.whole to y. */
static void finish(const struct lora_product_run *run, const struct target *to, size_t begin,
		   size_t end)
{
	const struct lora_linear *linear = run->linear;
	const struct lora_vec *vec = run->state->net->vec;
	const float *gain =
			linear->patch && linear->patch->gain ? linear->patch->gain + begin : NULL,
		    *bias = linear->bias ? linear->bias + begin : NULL;

	if (!gain && !bias && to->y == run->y)
		return;
	for (size_t t = 0; t < run->tokens; t++) {
		float *row = to->y + t * to->ldy + begin;

		vec->affine(row, gain, bias, end - begin);
		if (to->y != run->y)
			vec->add(run->y + t * run->ldy + begin, 1, row, end - begin);
	}
}

static void work_rows(void *user, unsigned worker, unsigned count)
{
	const struct lora_product_run *run = user;
	const struct lora_matrix *W = lora__linear_matrix(run->linear);
	const struct lora_patch *patch = run->linear->patch;
	struct lora_net_state *state = run->state;
	struct target to = target_of(run);
	size_t begin, end;

	lora__team_share(W->rows, GRAIN, worker, count, &begin, &end);
	if (begin == end)
		return;
	if (run->tokens == 1)
		gemv(state->net, to.y + begin, W, begin, end - begin, run->x);
	else
		multiply(run, W, &to, begin, end, state->scratch + worker * state->scratch_size);
	for (size_t i = 0; patch && i < patch->low_count; i++)
		raise(run, &patch->low[i], &to, begin, end);
	finish(run, &to, begin, end);
}

/* What this product costs: its sizes, the type in which W is read, and what hangs on it. */
static void note_run(const struct lora_product_run *run, const struct lora_matrix *W,
		     const struct lora_patch *patch)
{
	uint64_t sizes[] = {run->tokens,
			    W->rows,
			    W->cols,
			    W->dtype,
			    run->linear->bias != NULL,
			    run->accumulate,
			    patch ? patch->rank : 0,
			    patch ? patch->low_count : 0,
			    patch && patch->gain};

	lora__net_trace(run->state->net->trace, sizes, sizeof(sizes) / sizeof(*sizes));
}

void lora__net_linear(const struct lora_product_run *run)
{
	struct lora_net *net = run->state->net;
	const struct lora_matrix *W = lora__linear_matrix(run->linear);
	const struct lora_patch *patch = run->linear->patch;
	struct lora_product_run own = *run;

	if (net->trace)
		note_run(run, W, patch);
	if (patch && patch->rank)
		share(net, run->tokens * patch->rank * W->cols, lower, &own);
	share(net, run->tokens * W->rows * W->cols, work_rows, &own);
}
