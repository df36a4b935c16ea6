/* SPDX-License-Identifier: Apache-2.0 */
/* kern/subspace.c - two updates side by side, through QR of their stacked factors.
 *
 *	[Bx By]   = Q1 [S1 S2]	[m, k] = [m, k] [k, p + q]	x = Q1 (sx S1 T1^T) Q2^T
 *	[Ax' Ay'] = Q2 [T1 T2]	[n, k] = [n, k] [k, p + q]	y = Q1 (sy S2 T2^T) Q2^T
 *
 * with p and q the ranks of x and y and k = p + q. Q1 and Q2 have orthonormal columns, so that
 * norms, inner products and angles of x and y are those of the k x k matrices in the middle.
 *
 * 1. Only the triangles are wanted: tall matrices are taken in blocks of rows, as kern/linalg.c
 *    does. Memory depends on k alone.
 * 2. LAPACK is column-major: element (i, j) of a matrix here is at [i + j*ld].
 * 3. Where x has its full rank p, its column space is that of Bx: a basis from QR of S1 does not
 *    suffer from what A does to it. Otherwise it is the left singular vectors of S1 T1^T.
 * 4. Angles below pi/4 come from their sines, the others from their cosines: each where its inverse
 *    loses nothing.
 * 5. What stands below "the wrappers" calls LAPACK and BLAS through them alone.
 */
#include <float.h>
#include <limits.h>
#include <math.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "base/error.h"
#include "kern/blas.h"
#include "kern/subspace.h"

/* ---- the wrappers */

/* The process's own, once somebody asked for it. */
static _Atomic(const struct lora_blas *) blas;

static enum lora_status load(struct lora_error *err)
{
	blas = lora__blas(err);
	return blas ? LORA_OK : LORA_SYSTEM;
}

/* A column-major matrix that is worked on. */
struct dense {
	double *at;
	int rows, cols, ld;
};

/* What LAPACK wants beside a matrix: 64 doubles a column are at least what each routine below needs
 * for matrices of up to `columns` columns and rows, and enough for its fast variant. */
struct workspace {
	double *tau, *work;
	int size;
};
#define WORK_PER_COLUMN 64

static enum lora_status report(struct lora_error *err, const char *routine, int info)
{
	if (info == 0)
		return LORA_OK;
	return lora__fail(err, LORA_SYSTEM, "%s of LAPACK failed with info %d", routine, info);
}

/* A becomes R above its diagonal and the reflectors of Q below. */
static enum lora_status qr(struct dense A, const struct workspace *w, struct lora_error *err)
{
	int info = 0;

	blas->dgeqrf(&A.rows, &A.cols, A.at, &A.ld, w->tau, w->work, &w->size, &info);
	return report(err, "dgeqrf", info);
}

/* A [rows >= cols] becomes an orthonormal basis of its columns. */
static enum lora_status orthonormalize(struct dense A, const struct workspace *w,
				       struct lora_error *err)
{
	enum lora_status status = qr(A, w, err);
	int info = 0;

	if (!status)
		blas->dorgqr(&A.rows, &A.cols, &A.cols, A.at, &A.ld, w->tau, w->work, &w->size,
			     &info);
	return status ? status : report(err, "dorgqr", info);
}

/* Singular values of A, descending; A becomes its left singular vectors if `vectors`, else noise.
 */
static enum lora_status singular(struct dense A, bool vectors, double *values,
				 const struct workspace *w, struct lora_error *err)
{
	const int one = 1;
	double none = 0;
	int info = 0;

	blas->dgesvd(vectors ? "O" : "N", "N", &A.rows, &A.cols, A.at, &A.ld, values, &none, &one,
		     &none, &one, w->work, &w->size, &info, 1, 1);
	return report(err, "dgesvd", info);
}

/* Eigenvalues of a symmetric matrix, ascending; A becomes noise. */
static enum lora_status eigenvalues(struct dense A, double *values, const struct workspace *w,
				    struct lora_error *err)
{
	int info = 0;

	blas->dsyev("N", "L", &A.rows, A.at, &A.ld, values, w->work, &w->size, &info, 1, 1);
	return report(err, "dsyev", info);
}

/* C = alpha op(A) op(B) + beta C; op is the transpose where `ta` or `tb` says so. */
static void multiply(double alpha, struct dense A, bool ta, struct dense B, bool tb, double beta,
		     struct dense C)
{
	if (C.rows && C.cols)
		blas->dgemm(CblasColMajor, ta ? CblasTrans : CblasNoTrans,
			    tb ? CblasTrans : CblasNoTrans, C.rows, C.cols, ta ? A.rows : A.cols,
			    alpha, A.at, A.ld, B.at, B.ld, beta, C.at, C.ld);
}

/* ---- two products */

static struct dense columns(struct dense A, size_t from, size_t count)
{
	A.at += from * (size_t)A.ld;
	A.cols = (int)count;
	return A;
}

static void copy(struct dense to, struct dense from)
{
	for (int j = 0; j < to.cols; j++)
		memcpy(to.at + (size_t)j * (size_t)to.ld, from.at + (size_t)j * (size_t)from.ld,
		       (size_t)to.rows * sizeof(double));
}

/* Does not overflow: the largest element is taken out. */
static double norm_of(struct dense A)
{
	double largest = 0, sum = 0;

	for (int j = 0; j < A.cols; j++)
		for (int i = 0; i < A.rows; i++)
			largest = fmax(largest, fabs(A.at[(size_t)j * (size_t)A.ld + (size_t)i]));
	for (int j = 0; j < A.cols && largest > 0; j++)
		for (int i = 0; i < A.rows; i++) {
			double x = A.at[(size_t)j * (size_t)A.ld + (size_t)i] / largest;

			sum += x * x;
		}
	return largest * sqrt(sum);
}

/* A factor [rows, r] of which element (i, k) is at[i*row_step + k*column_step]. */
struct tall {
	const float *at;
	size_t rows, r, row_step, column_step;
};

#define BLOCK_ROWS 256

/* All memory of one comparison: parts of one allocation. p, q: the two ranks; k = p + q. */
struct scratch {
	struct dense S, T;	 /* [k, k]: the triangles */
	struct dense X, Y;	 /* [k, k]: the products in the middle */
	struct dense U, V, work; /* [k, k] */
	struct dense block;	 /* [2k + BLOCK_ROWS, k] */
	double *values, *other;	 /* [k] */
	struct workspace lapack;
	size_t p, q, k;
};

static struct dense take(double **at, size_t rows, size_t cols)
{
	struct dense A = {*at, (int)rows, (int)cols, (int)rows};

	*at += rows * cols;
	return A;
}

/* k > 0; *memory is the caller's to free. */
static enum lora_status scratch_new(struct scratch *s, double **memory, struct lora_error *err)
{
	size_t k = s->k, height = 2 * k + BLOCK_ROWS;
	uint64_t square, total;
	double *at;

	if (lora__mul_overflows(k, k, &square) || square > INT_MAX / 4)
		return lora__fail(err, LORA_INPUT,
				  "ranks %zu and %zu are more than can be compared", s->p, s->q);
	total = 7 * square + height * k + 3 * k + WORK_PER_COLUMN * k;
	*memory = calloc((size_t)total, sizeof(double));
	if (!*memory)
		return lora__fail_memory(err);
	at = *memory;
	s->S = take(&at, k, k);
	s->T = take(&at, k, k);
	s->X = take(&at, k, k);
	s->Y = take(&at, k, k);
	s->U = take(&at, k, k);
	s->V = take(&at, k, k);
	s->work = take(&at, k, k);
	s->block = take(&at, height, k);
	s->values = take(&at, k, 1).at;
	s->other = take(&at, k, 1).at;
	s->lapack.tau = take(&at, k, 1).at;
	s->lapack.work = at;
	s->lapack.size = (int)(WORK_PER_COLUMN * k);
	return LORA_OK;
}

/* Rows of one factor into its columns of the block; false if a value is not finite. */
static bool fill(struct dense block, size_t below, const struct tall *X, size_t row, size_t rows)
{
	bool finite = true;

	for (size_t j = 0; j < X->r; j++) {
		double *column = block.at + j * (size_t)block.ld + below;
		const float *from = X->at + row * X->row_step + j * X->column_step;

		for (size_t i = 0; i < rows; i++) {
			float x = from[i * X->row_step];

			finite = finite && isfinite(x);
			column[i] = (double)x;
		}
	}
	return finite;
}

/* R [k, k], upper triangular and zero on entry, such that [X Y] = Q R. */
static enum lora_status triangle(struct scratch *s, struct dense R, const struct tall *X,
				 const struct tall *Y, struct lora_error *err)
{
	size_t k = s->k, step = k + BLOCK_ROWS;

	for (size_t row = 0; row < X->rows; row += step) {
		size_t rows = X->rows - row < step ? X->rows - row : step;
		struct dense block = s->block;
		enum lora_status status;

		copy((struct dense){block.at, (int)k, (int)k, block.ld}, R);
		block.rows = (int)(k + rows);
		if (!fill(block, k, X, row, rows) ||
		    !fill(columns(block, X->r, Y->r), k, Y, row, rows))
			return lora__fail(err, LORA_INPUT,
					  "a factor holds a value that is not finite");
		status = qr(block, &s->lapack, err);
		if (status)
			return status;
		for (size_t j = 0; j < k; j++) /* below the diagonal lies Q */
			memcpy(R.at + j * k, block.at + j * (size_t)block.ld,
			       (j + 1) * sizeof(double));
	}
	return LORA_OK;
}

static enum lora_status extent(struct scratch *s, struct dense factor, struct lora_extent *out,
			       struct lora_error *err)
{
	enum lora_status status = LORA_OK;

	out->frobenius = norm_of(factor);
	out->spectral = 0;
	if (factor.cols && out->frobenius > 0) {
		struct dense A = columns(s->work, 0, (size_t)factor.cols);

		copy(A, factor);
		status = singular(A, false, s->values, &s->lapack, err);
		out->spectral = s->values[0];
	}
	return status;
}

/* How many singular values of a product in the middle are no noise. */
static enum lora_status rank_of(struct scratch *s, struct dense core, size_t longest, size_t most,
				size_t *rank, struct lora_error *err)
{
	enum lora_status status;

	copy(s->work, core);
	status = singular(s->work, false, s->values, &s->lapack, err);
	*rank = 0;
	while (!status && *rank < most &&
	       s->values[*rank] > s->values[0] * (double)longest * DBL_EPSILON)
		++*rank;
	return status;
}

/* `into` becomes [k, rank]: a basis of core's columns, or, with transpose, of its rows [3]. */
static enum lora_status basis(struct scratch *s, struct dense factor, struct dense core,
			      bool transpose, size_t rank, struct dense *into,
			      struct lora_error *err)
{
	if (rank == (size_t)factor.cols) {
		into->cols = factor.cols;
		copy(*into, factor);
		return rank ? orthonormalize(*into, &s->lapack, err) : LORA_OK;
	}
	into->cols = (int)s->k;
	for (size_t j = 0; j < s->k; j++)
		for (size_t i = 0; i < s->k; i++)
			into->at[i + j * s->k] = core.at[transpose ? j + i * s->k : i + j * s->k];
	if (rank) {
		enum lora_status status = singular(*into, true, s->values, &s->lapack, err);

		if (status)
			return status;
	}
	into->cols = (int)rank;
	return LORA_OK;
}

/* Between the spaces that U and V are bases of [4]. V becomes V - U U'V: its sines. */
static enum lora_status angles(struct scratch *s, struct dense U, struct dense V, double *out,
			       struct lora_error *err)
{
	struct dense wide = U.cols >= V.cols ? U : V, slim = U.cols >= V.cols ? V : U;
	struct dense cosines = columns(s->work, 0, (size_t)slim.cols);
	enum lora_status status;

	if (slim.cols == 0)
		return LORA_OK;
	cosines.rows = wide.cols;
	multiply(1, wide, true, slim, false, 0, cosines);
	multiply(-1, wide, false, cosines, false, 1, slim);
	status = singular(cosines, false, s->values, &s->lapack, err);
	if (!status)
		status = singular(slim, false, s->other, &s->lapack, err);
	for (int i = 0; i < slim.cols && !status; i++) {
		double cosine = s->values[i], sine = s->other[slim.cols - 1 - i];

		out[i] = cosine * cosine < 0.5 ? acos(cosine) : asin(fmin(sine, 1));
	}
	return status;
}

static double dot_of(struct dense X, struct dense Y)
{
	double sum = 0;

	for (size_t i = 0; i < (size_t)X.rows * (size_t)X.cols; i++)
		sum += X.at[i] * Y.at[i];
	return sum;
}

/* S and T are known. */
static enum lora_status compare(struct scratch *s, size_t longest, struct lora_comparison *out,
				struct lora_error *err)
{
	struct dense S1 = columns(s->S, 0, s->p), S2 = columns(s->S, s->p, s->q),
		     T1 = columns(s->T, 0, s->p), T2 = columns(s->T, s->p, s->q);
	enum lora_status status;

	out->norm_x = norm_of(s->X);
	out->norm_y = norm_of(s->Y);
	out->dot = dot_of(s->X, s->Y);
	status = extent(s, S1, &out->Bx, err);
	if (!status)
		status = extent(s, T1, &out->Ax, err);
	if (!status)
		status = extent(s, S2, &out->By, err);
	if (!status)
		status = extent(s, T2, &out->Ay, err);
	if (!status)
		status = rank_of(s, s->X, longest, s->p, &out->rank_x, err);
	if (!status)
		status = rank_of(s, s->Y, longest, s->q, &out->rank_y, err);
	for (int rows = 0; rows < 2 && !status; rows++) {
		struct dense U = s->U, V = s->V;

		status = basis(s, rows ? T1 : S1, s->X, rows, out->rank_x, &U, err);
		if (!status)
			status = basis(s, rows ? T2 : S2, s->Y, rows, out->rank_y, &V, err);
		if (!status)
			status =
			    angles(s, U, V, rows ? out->angles_rows : out->angles_columns, err);
	}
	out->angles = out->rank_x < out->rank_y ? out->rank_x : out->rank_y;
	for (size_t i = 0; i < s->k * s->k; i++)
		s->X.at[i] -= s->Y.at[i];
	out->norm_difference = norm_of(s->X);
	return status;
}

enum lora_status lora__products_compare(const struct lora_product *x, const struct lora_product *y,
					struct lora_comparison *out, struct lora_error *err)
{
	const struct tall Bx = {x->B, x->m, x->r, x->r, 1}, By = {y->B, y->m, y->r, y->r, 1},
			  Ax = {x->A, x->n, x->r, 1, x->n}, Ay = {y->A, y->n, y->r, 1, y->n};
	struct lora_comparison zero = {.angles_columns = out->angles_columns,
				       .angles_rows = out->angles_rows};
	struct scratch s = {.p = x->r, .q = y->r, .k = x->r + y->r};
	double *memory = NULL;
	enum lora_status status;

	*out = zero;
	if (x->m != y->m || x->n != y->n)
		return lora__fail(err, LORA_USAGE, "updates of two shapes are not compared");
	if (s.k == 0 || x->m == 0 || x->n == 0)
		return LORA_OK;
	status = load(err);
	if (!status)
		status = scratch_new(&s, &memory, err);
	if (!status)
		status = triangle(&s, s.S, &Bx, &By, err);
	if (!status)
		status = triangle(&s, s.T, &Ax, &Ay, err);
	if (!status) {
		multiply(x->s, columns(s.S, 0, s.p), false, columns(s.T, 0, s.p), true, 0, s.X);
		multiply(y->s, columns(s.S, s.p, s.q), false, columns(s.T, s.p, s.q), true, 0, s.Y);
		status = compare(&s, x->m > x->n ? x->m : x->n, out, err);
	}
	if (status)
		*out = zero;
	free(memory);
	return status;
}

/* ---- the range of a difference */

struct lora_range {
	struct dense Q, Y; /* [d, l]: the basis, and D'D Q so far */
	double *values;	   /* [l] */
	double *square;	   /* [l, l] */
	struct workspace lapack;
	double memory[];
};

/* Sums of 4 uniform numbers: near enough to a Gaussian; SplitMix64 (Steele, Lea, Flood 2014). */
static double next_random(uint64_t *state)
{
	double sum = -2;

	for (int i = 0; i < 4; i++) {
		uint64_t z = *state += 0x9e3779b97f4a7c15u;

		z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
		z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
		sum += (double)((z ^ (z >> 31)) >> 11) * 0x1p-53;
	}
	return sum;
}

enum lora_status lora__range_new(struct lora_range **out, size_t d, size_t l,
				 struct lora_error *err)
{
	struct lora_range *range;
	uint64_t area, total, state = 0;
	enum lora_status status = LORA_OK;
	double *at;

	*out = NULL;
	if (l == 0 || l > d || lora__mul_overflows(d, l, &area) || area > INT_MAX)
		return lora__fail(err, LORA_USAGE, "a range of %zu in %zu dimensions", l, d);
	total = 2 * area + (uint64_t)l * l + (2 + WORK_PER_COLUMN) * (uint64_t)l;
	if (load(err))
		return LORA_SYSTEM;
	range = calloc(1, sizeof(*range) + (size_t)total * sizeof(double));
	if (!range)
		return lora__fail_memory(err);
	at = range->memory;
	range->Q = take(&at, d, l);
	range->Y = take(&at, d, l);
	range->square = take(&at, l, l).at;
	range->values = take(&at, l, 1).at;
	range->lapack.tau = take(&at, l, 1).at;
	range->lapack.work = at;
	range->lapack.size = (int)(WORK_PER_COLUMN * l);
	if (l == d) {
		for (size_t i = 0; i < d; i++)
			range->Q.at[i + i * d] = 1;
	} else {
		for (size_t i = 0; i < area; i++)
			range->Q.at[i] = next_random(&state);
		status = orthonormalize(range->Q, &range->lapack, err);
	}
	if (status)
		free(range);
	else
		*out = range;
	return status;
}

void lora__range_free(struct lora_range *range)
{
	free(range);
}

void lora__range_add(struct lora_range *range, double *D, size_t count, double *room)
{
	/* Rows of D are columns of its transpose. */
	struct dense Dt = {D, range->Q.rows, (int)count, range->Q.rows},
		     P = {room, (int)count, range->Q.cols, (int)count};

	if (count == 0)
		return;
	multiply(1, Dt, true, range->Q, false, 0, P);
	multiply(1, Dt, false, P, false, 1, range->Y);
}

enum lora_status lora__range_turn(struct lora_range *range, double *values, struct lora_error *err)
{
	int l = range->Q.cols;
	struct dense ritz = {range->square, l, l, l};
	enum lora_status status;

	multiply(1, range->Q, true, range->Y, false, 0, ritz);
	status = eigenvalues(ritz, range->values, &range->lapack, err);
	if (status)
		return status;
	for (int i = 0; i < l; i++)
		values[i] = sqrt(fmax(range->values[l - 1 - i], 0));
	if (range->Q.rows > l) {
		copy(range->Q, range->Y);
		status = orthonormalize(range->Q, &range->lapack, err);
	}
	memset(range->Y.at, 0, (size_t)range->Y.rows * (size_t)l * sizeof(double));
	return status;
}
