/* SPDX-License-Identifier: Apache-2.0 */
/* kern/linalg.c - the singular values of s*B*A through QR of its factors.
 *
 *	B [m, r] = Q1 R1,  A^T [n, r] = Q2 R2   =>   s*B*A = Q1 (s R1 R2^T) Q2^T
 *
 * Q1 and Q2 have orthonormal columns, so that the small matrix in the middle has the singular
 *values of the product: O((m + n) r^2) instead of the O(m n min(m, n)) of the full matrix.
 *Everything is in f64, column-major inside, as LAPACK wants it: a row-major A [r, n] is A^T [n, r]
 *column-major as it stands.
 *
 * OpenBLAS is set to one thread, here and nowhere else; that is process-wide.
 */
#include "kern/linalg.h"

#include "base/checked.h"
#include "base/error.h"

#include <cblas.h>
#include <limits.h>
#include <math.h>
#include <pthread.h>
#include <stdlib.h>

/* LAPACK as its Fortran callers see it. */
void dgeqrf_(const int *m, const int *n, double *a, const int *lda, double *tau, double *work,
	     const int *lwork, int *info);
void dgesdd_(const char *jobz, const int *m, const int *n, double *a, const int *lda, double *s,
	     double *u, const int *ldu, double *vt, const int *ldvt, double *work, const int *lwork,
	     int *iwork, int *info, size_t jobz_length);

static pthread_once_t once = PTHREAD_ONCE_INIT;

static void one_thread(void)
{
	openblas_set_num_threads(1);
}

static double *doubles(size_t rows, size_t cols)
{
	uint64_t bytes;

	if (lora__mul_overflows(rows, cols, &bytes) ||
	    lora__mul_overflows(bytes, sizeof(double), &bytes) || bytes > SIZE_MAX / 2)
		return NULL;
	return malloc((size_t)bytes + 1);
}

/* The upper trapezoid R [min(rows, r), r] of X [rows, r], column-major in x (destroyed), into out,
 * column-major with its zeros. */
static enum lora_status triangle(double *x, size_t rows, size_t r, double *out,
				 struct lora_error *err)
{
	int m = (int)rows, n = (int)r, info = 0, work_size = -1;
	size_t k = rows < r ? rows : r;
	double best = 0, *tau = doubles(k, 1), *work = NULL;
	enum lora_status status = tau ? LORA_OK : lora__fail_memory(err);

	if (!status) {
		dgeqrf_(&m, &n, x, &m, tau, &best, &work_size, &info);
		work_size = (int)best;
		work = doubles((size_t)work_size, 1);
		status = work ? LORA_OK : lora__fail_memory(err);
	}
	if (!status) {
		dgeqrf_(&m, &n, x, &m, tau, work, &work_size, &info);
		if (info)
			status = lora__fail(err, LORA_SYSTEM, "LAPACK dgeqrf failed: %d", info);
	}
	for (size_t j = 0; j < r && !status; j++)
		for (size_t i = 0; i < k; i++)
			out[j * k + i] = i <= j ? x[j * rows + i] : 0;
	free(tau);
	free(work);
	return status;
}

/* Singular values of M [rows, cols], column-major (destroyed). */
static enum lora_status singular_values(double *matrix, size_t rows, size_t cols, double *values,
					struct lora_error *err)
{
	int m = (int)rows, n = (int)cols, one = 1, info = 0, work_size = -1;
	size_t k = rows < cols ? rows : cols;
	double best = 0, nothing = 0, *work = NULL;
	int *iwork = malloc((8 * k + 1) * sizeof(*iwork));
	enum lora_status status = iwork ? LORA_OK : lora__fail_memory(err);

	if (!status) {
		dgesdd_("N", &m, &n, matrix, &m, values, &nothing, &one, &nothing, &one, &best,
			&work_size, iwork, &info, 1);
		work_size = (int)best;
		work = doubles((size_t)work_size, 1);
		status = work ? LORA_OK : lora__fail_memory(err);
	}
	if (!status) {
		dgesdd_("N", &m, &n, matrix, &m, values, &nothing, &one, &nothing, &one, work,
			&work_size, iwork, &info, 1);
		if (info)
			status = lora__fail(err, LORA_SYSTEM, "LAPACK dgesdd did not converge: %d",
					    info);
	}
	free(iwork);
	free(work);
	return status;
}

static enum lora_status factors(const float *B, const float *A, size_t m, size_t n, size_t r,
				double *r1, double *r2, struct lora_error *err)
{
	double *b = doubles(m, r), *a = doubles(n, r);
	enum lora_status status = b && a ? LORA_OK : lora__fail_memory(err);

	for (size_t k = 0; k < r && !status; k++) {
		for (size_t i = 0; i < m; i++)
			b[k * m + i] = (double)B[i * r + k];
		for (size_t j = 0; j < n; j++)
			a[k * n + j] = (double)A[k * n + j];
	}
	if (!status)
		status = triangle(b, m, r, r1, err);
	if (!status)
		status = triangle(a, n, r, r2, err);
	free(b);
	free(a);
	return status;
}

enum lora_status lora__lowrank_spectrum(const float *B, const float *A, size_t m, size_t n,
					size_t r, double s, double *values, size_t *count,
					double *norm, struct lora_error *err)
{
	size_t k1 = m < r ? m : r, k2 = n < r ? n : r;
	double *r1 = NULL, *r2 = NULL, *middle = NULL, sum = 0;
	enum lora_status status = LORA_OK;

	*count = 0;
	*norm = 0;
	if (m > INT_MAX || n > INT_MAX || r > INT_MAX)
		return lora__fail(err, LORA_INPUT,
				  "a factor has more than %d rows: too large to look at", INT_MAX);
	if (k1 == 0 || k2 == 0)
		return LORA_OK;
	pthread_once(&once, one_thread);
	r1 = doubles(k1, r);
	r2 = doubles(k2, r);
	middle = doubles(k1, k2);
	if (!r1 || !r2 || !middle) {
		status = lora__fail_memory(err);
		goto out;
	}
	status = factors(B, A, m, n, r, r1, r2, err);
	if (status)
		goto out;
	cblas_dgemm(CblasColMajor, CblasNoTrans, CblasTrans, (int)k1, (int)k2, (int)r, s, r1,
		    (int)k1, r2, (int)k2, 0, middle, (int)k1);
	for (size_t i = 0; i < k1 * k2; i++)
		sum += middle[i] * middle[i];
	*norm = sqrt(sum);
	status = singular_values(middle, k1, k2, values, err);
	if (!status)
		*count = k1 < k2 ? k1 : k2;
out:
	free(r1);
	free(r2);
	free(middle);
	return status;
}

double lora__effective_rank(const double *values, size_t count)
{
	double sum = 0, entropy = 0;

	for (size_t i = 0; i < count; i++)
		sum += values[i];
	if (!(sum > 0))
		return 0;
	for (size_t i = 0; i < count; i++) {
		double p = values[i] / sum;

		if (p > 0)
			entropy -= p * log(p);
	}
	return exp(entropy);
}
