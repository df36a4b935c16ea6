/* SPDX-License-Identifier: Apache-2.0 */
/* kern/linalg.c - the spectrum of an update, through its factors.
 *
 * The singular values of D = s*B*A [m, n] are those of a matrix of r x r, r being small:
 *
 *	B   = Q1 R1	[m, r] = [m, r] [r, r]		D = Q1 (s R1 R2^T) Q2^T
 *	A^T = Q2 R2	[n, r] = [n, r] [r, r]
 *
 * for Q1 and Q2 have orthonormal columns and change no singular value. (R^T R = B^T B would give R
 * as well, but squares the condition: singular values below 1e-8 of the largest would be noise.)
 *
 * 1. Only R is wanted, so that a tall matrix is taken in blocks of rows: R of [R so far; next
 *    rows] is R of all rows so far. Memory depends on r alone, however long the vocabulary is.
 * 2. LAPACK is column-major: element (i, k) of a matrix here is at [i + k*ld].
 * 3. With fewer than r rows in all, R has rows of zeros, and r - min(m, n) values are zero: noise
 *in what LAPACK returns, which is descending, so that they are its last and are not passed on.
 */
#include <limits.h>
#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "base/error.h"
#include "kern/blas.h"
#include "kern/linalg.h"

/* A matrix of f32 [rows, r] of which element (i, k) is at[i*row_step + k*column_step]. */
struct tall {
	const float *at;
	size_t rows, row_step, column_step;
};

/* All memory of one spectrum: parts of one allocation. */
struct scratch {
	const struct lora_blas *blas;
	double *R1, *R2, *core; /* [r, r] */
	double *block;		/* [ld, r]: R so far, then rows of a factor */
	double *tau;		/* [r] */
	double *work;		/* [work_size], LAPACK's */
	int r, ld, work_size;
};

/* Rows of a block beyond R: at least as many as R has, or most of the work would be spent on R. */
static uint64_t block_rows(uint64_t r)
{
	return r + 256;
}

static enum lora_status report(struct lora_error *err, const char *routine, int info)
{
	if (info == 0)
		return LORA_OK;
	return lora__fail(err, LORA_SYSTEM, "%s of LAPACK failed with info %d", routine, info);
}

/* What dgeqrf and dgesvd want for their work arrays, as they say themselves. */
static enum lora_status ask_work_size(struct scratch *s, struct lora_error *err)
{
	const int ask = -1;
	double want[2] = {1, 1}, none = 0;
	int info = 0;

	s->blas->dgeqrf(&s->ld, &s->r, &none, &s->ld, &none, &want[0], &ask, &info);
	if (info == 0)
		s->blas->dgesvd("N", "N", &s->r, &s->r, &none, &s->r, &none, &none, &s->r, &none,
				&s->r, &want[1], &ask, &info, 1, 1);
	if (want[1] > want[0])
		want[0] = want[1];
	if (want[0] >= INT_MAX)
		return lora__fail_memory(err);
	s->work_size = (int)want[0];
	return report(err, "dgeqrf or dgesvd", info);
}

/* r > 0; *memory is the caller's to free, and NULL on failure. */
static enum lora_status scratch_new(struct scratch *s, size_t r, double **memory,
				    struct lora_error *err)
{
	enum lora_status status;
	uint64_t square, total;

	/* dnrm2 and LAPACK count elements in an int. What follows is below 2^35 elements. */
	if (lora__mul_overflows(r, r, &square) || square > INT_MAX)
		return lora__fail(err, LORA_INPUT, "rank %zu is more than a spectrum is made for",
				  r);
	s->r = (int)r;
	s->ld = (int)(r + block_rows(r));
	status = ask_work_size(s, err);
	if (status)
		return status;
	total = 3 * square + (uint64_t)s->ld * r + r + (uint64_t)s->work_size;
	*memory = total > SIZE_MAX ? NULL : calloc((size_t)total, sizeof(double));
	if (!*memory)
		return lora__fail_memory(err);
	s->R1 = *memory;
	s->R2 = s->R1 + square;
	s->core = s->R2 + square;
	s->block = s->core + square;
	s->tau = s->block + (size_t)s->ld * r;
	s->work = s->tau + r;
	return LORA_OK;
}

/* block [r + rows, r] = [R; rows of X from `row` on]; false if one of them is not finite. */
static bool fill_block(struct scratch *s, const double *R, const struct tall *X, size_t row,
		       size_t rows)
{
	size_t r = (size_t)s->r, ld = (size_t)s->ld;
	bool finite = true;

	for (size_t k = 0; k < r; k++) {
		double *column = s->block + k * ld;
		const float *from = X->at + row * X->row_step + k * X->column_step;

		memcpy(column, R + k * r, r * sizeof(double));
		for (size_t i = 0; i < rows; i++) {
			float x = from[i * X->row_step];

			finite = finite && isfinite(x);
			column[r + i] = (double)x;
		}
	}
	return finite;
}

/* R [r, r], upper triangular and zero on entry, such that X = Q R. */
static enum lora_status triangle(struct scratch *s, double *R, const struct tall *X,
				 struct lora_error *err)
{
	size_t r = (size_t)s->r, ld = (size_t)s->ld, step = ld - r;

	for (size_t row = 0; row < X->rows; row += step) {
		size_t rows = X->rows - row < step ? X->rows - row : step;
		int height = (int)(r + rows), info = 0;

		if (!fill_block(s, R, X, row, rows))
			return lora__fail(err, LORA_INPUT,
					  "a factor holds a value that is not finite");
		s->blas->dgeqrf(&height, &s->r, s->block, &s->ld, s->tau, s->work, &s->work_size,
				&info);
		if (info != 0)
			return report(err, "dgeqrf", info);
		for (size_t k = 0; k < r; k++) /* below the diagonal lies Q */
			memcpy(R + k * r, s->block + k * ld, (k + 1) * sizeof(double));
	}
	return LORA_OK;
}

/* out->values has room for r values, of which the last may be noise [3]. */
static enum lora_status spectrum(struct scratch *scratch, const struct lora_product *p,
				 struct lora_spectrum *out, struct lora_error *err)
{
	const struct tall B = {p->B, p->m, p->r, 1}, At = {p->A, p->n, 1, p->n};
	int r = scratch->r, info = 0;
	double none = 0;
	enum lora_status status = triangle(scratch, scratch->R1, &B, err);

	if (!status)
		status = triangle(scratch, scratch->R2, &At, err);
	if (status)
		return status;
	scratch->blas->dgemm(CblasColMajor, CblasNoTrans, CblasTrans, r, r, r, p->s, scratch->R1, r,
			     scratch->R2, r, 0.0, scratch->core, r);
	out->norm = scratch->blas->dnrm2(r * r, scratch->core, 1);
	scratch->blas->dgesvd("N", "N", &r, &r, scratch->core, &r, out->values, &none, &r, &none,
			      &r, scratch->work, &scratch->work_size, &info, 1, 1);
	return report(err, "dgesvd", info);
}

enum lora_status lora__lowrank_spectrum(const struct lora_product *product,
					struct lora_spectrum *out, struct lora_error *err)
{
	size_t count = product->m < product->n ? product->m : product->n;
	struct scratch scratch = {0};
	double *memory = NULL;
	enum lora_status status;

	out->count = 0;
	out->norm = 0;
	if (count == 0 || product->r == 0)
		return LORA_OK;
	scratch.blas = lora__blas(err);
	if (!scratch.blas)
		return LORA_SYSTEM;
	status = scratch_new(&scratch, product->r, &memory, err);
	if (!status)
		status = spectrum(&scratch, product, out, err);
	if (status)
		out->norm = 0;
	else
		out->count = count < product->r ? count : product->r;
	free(memory);
	return status;
}

double lora__effective_rank(const double *values, size_t count)
{
	double sum = 0, entropy = 0;

	for (size_t i = 0; i < count; i++)
		sum += values[i];
	if (!(sum > 0))
		return 0;
	for (size_t i = 0; i < count; i++)
		if (values[i] > 0) /* p ln p is 0 at 0 */
			entropy -= values[i] / sum * log(values[i] / sum);
	return exp(entropy);
}
