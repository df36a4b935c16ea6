/* SPDX-License-Identifier: Apache-2.0 */
/* tests/unit/test_linalg.c - the spectrum of s*B*A, against numpy's of the full product and by
 *hand.
 *
 * The factors of a numbered case c are B[i,k] = f(i, k, c) and A[k,j] = f(k, j, c + 4), exact in
 *f32:
 *
 *	def f(i, k, c): return ((i*37 + k*101 + i*k*c) % 127 - 63) / 64
 *	np.linalg.svd(s * (B @ A), compute_uv=False)[:min(m, n, r)], np.linalg.norm(s * (B @ A))
 */
#include <math.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "kern/linalg.h"

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

struct spectrum_case {
	size_t m, n, r;
	double s;
	size_t c;
	double norm, values[5];
	size_t count;
};

/* The third is taller than a block of rows; of the second and fourth one side is below r. */
static const struct spectrum_case cases[] = {
    {40,
     30,
     4,
     2.0,
     3,
     46.223752579638536,
     {28.214032233718886, 26.31349324305582, 20.859563481299993, 14.597341277629402},
     4},
    {3,
     50,
     8,
     -0.75,
     5,
     8.734321970258312,
     {7.021553153296465, 4.606117933905812, 2.402051034953423},
     3},
    {600,
     700,
     5,
     1.0 / 3,
     7,
     158.8212562623179,
     {78.2030577501307, 72.64916119135083, 71.0068306247274, 68.9507515310665, 63.5168988962502},
     5},
    {9, 2, 6, 1.5, 11, 3.8658585952731177, {3.4946360010655373, 1.6529918023703898}, 2},
};

static float *factor(size_t rows, size_t cols, size_t c)
{
	float *x = malloc(rows * cols * sizeof(*x));

	assert_non_null(x);
	for (size_t i = 0; i < rows; i++)
		for (size_t k = 0; k < cols; k++)
			x[i * cols + k] =
			    (float)((int)((i * 37 + k * 101 + i * k * c) % 127) - 63) / 64.0f;
	return x;
}

static bool near(double x, double y, double relative)
{
	return fabs(x - y) <= relative * fabs(y);
}

static bool case_holds(const struct spectrum_case *c)
{
	float *B = factor(c->m, c->r, c->c), *A = factor(c->r, c->n, c->c + 4);
	struct lora_product product = {B, A, c->m, c->n, c->r, c->s};
	double values[8];
	struct lora_spectrum spectrum = {values, 0, 0};
	bool holds = lora__lowrank_spectrum(&product, &spectrum, NULL) == LORA_OK;

	holds = holds && spectrum.count == c->count && near(spectrum.norm, c->norm, 1e-13);
	for (size_t i = 0; i < c->count; i++)
		holds = holds && near(values[i], c->values[i], 1e-13);
	free(A);
	free(B);
	return holds;
}

static void linalg__spectrum_is_numpys(void **state)
{
	(void)state;
	for (size_t i = 0; i < COUNT(cases); i++)
		assert_true(case_holds(&cases[i]));
}

/* B = [1 1; 1 1+e], A = I, e = 2^-23: the determinant is e, and so the smaller value is e over the
 * larger, whose square is (t + sqrt(t^2 - 4 e^2)) / 2 with t = 4 + 2e + e^2. Through B^T B it
 * would be lost in the rounding errors of the larger. */
static void linalg__spectrum_keeps_small_values(void **state)
{
	const double e = 0x1p-23, t = 4 + 2 * e + e * e;
	const double large = sqrt((t + sqrt(t * t - 4 * e * e)) / 2);
	const float B[] = {1, 1, 1, 1 + 0x1p-23f}, A[] = {1, 0, 0, 1};
	struct lora_product product = {B, A, 2, 2, 2, -3.0};
	double values[2];
	struct lora_spectrum spectrum = {values, 0, 0};

	(void)state;
	assert_int_equal(lora__lowrank_spectrum(&product, &spectrum, NULL), LORA_OK);
	assert_int_equal(spectrum.count, 2);
	assert_true(near(values[0], 3 * large, 1e-14));
	assert_true(near(values[1], 3 * e / large, 1e-7));
}

/* 3e38 * 3e38 is beyond f32, and the square of the norm, 2 * 9e176^2, beyond f64. */
static void linalg__spectrum_does_not_overflow(void **state)
{
	const float B[] = {3e38f, 0, 0, 3e38f}, A[] = {3e38f, 0, 0, 3e38f};
	struct lora_product product = {B, A, 2, 2, 2, 1e100};
	double values[2];
	struct lora_spectrum spectrum = {values, 0, 0};
	double want = (double)3e38f * (double)3e38f * 1e100;

	(void)state;
	assert_int_equal(lora__lowrank_spectrum(&product, &spectrum, NULL), LORA_OK);
	assert_true(near(values[0], want, 1e-14) && near(values[1], want, 1e-14));
	assert_true(near(spectrum.norm, want * sqrt(2), 1e-14));
}

static void linalg__spectrum_of_nothing_is_empty(void **state)
{
	const float zero[6] = {0};
	double values[3] = {7, 7, 7};
	struct lora_spectrum spectrum = {values, 9, 9};
	struct lora_product none = {zero, zero, 0, 3, 2, 1}, zeros = {zero, zero, 2, 2, 3, 1};

	(void)state;
	assert_int_equal(lora__lowrank_spectrum(&none, &spectrum, NULL), LORA_OK);
	assert_true(spectrum.count == 0 && spectrum.norm == 0);
	none = (struct lora_product){zero, zero, 3, 2, 0, 1};
	assert_int_equal(lora__lowrank_spectrum(&none, &spectrum, NULL), LORA_OK);
	assert_true(spectrum.count == 0 && spectrum.norm == 0);
	assert_int_equal(lora__lowrank_spectrum(&zeros, &spectrum, NULL), LORA_OK);
	assert_true(spectrum.count == 2 && spectrum.norm == 0);
	assert_true(values[0] == 0 && values[1] == 0);
}

static void linalg__spectrum_refuses_what_is_not_finite(void **state)
{
	const float bad[] = {INFINITY, -INFINITY, NAN};
	struct lora_error err = LORA_ERROR_INIT;
	double values[5];
	struct lora_spectrum spectrum = {values, 0, 0};

	(void)state;
	for (size_t i = 0; i < COUNT(bad); i++) {
		float *B = factor(600, 5, 1), *A = factor(5, 700, 2);
		struct lora_product product = {B, A, 600, 700, 5, 1};

		(i % 2 ? A : B)[599 * 5 + 3] = bad[i];
		assert_int_equal(lora__lowrank_spectrum(&product, &spectrum, &err), LORA_INPUT);
		assert_non_null(strstr(err.message, "not finite"));
		assert_true(spectrum.count == 0 && spectrum.norm == 0);
		free(A);
		free(B);
	}
}

/* Counts in *argument what fails: assertions belong to the main thread. */
static void *check_many(void *argument)
{
	size_t *failures = argument;

	for (int i = 0; i < 20; i++)
		*failures += case_holds(&cases[2]) ? 0 : 1;
	return NULL;
}

static void linalg__spectra_may_be_taken_side_by_side(void **state)
{
	pthread_t threads[4];
	size_t failures[COUNT(threads)] = {0};

	(void)state;
	for (size_t i = 0; i < COUNT(threads); i++)
		assert_int_equal(pthread_create(&threads[i], NULL, check_many, &failures[i]), 0);
	for (size_t i = 0; i < COUNT(threads); i++) {
		assert_int_equal(pthread_join(threads[i], NULL), 0);
		assert_int_equal(failures[i], 0);
	}
}

/* 3, 2, 1: p = 1/2, 1/3, 1/6; by numpy. */
static void linalg__effective_rank_counts_equal_values(void **state)
{
	const double equal[] = {2, 2, 2, 2, 2}, one[] = {3, 0, 0}, zero[] = {0, 0};
	const double falling[] = {3, 2, 1}, same[] = {3e200, 2e200, 1e200};

	(void)state;
	assert_true(near(lora__effective_rank(equal, 5), 5, 1e-14));
	assert_true(near(lora__effective_rank(one, 3), 1, 1e-14));
	assert_true(near(lora__effective_rank(falling, 3), 2.749459273997205, 1e-14));
	assert_true(near(lora__effective_rank(same, 3), 2.749459273997205, 1e-14));
	assert_true(lora__effective_rank(zero, 2) == 0);
	assert_true(lora__effective_rank(zero, 0) == 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(linalg__spectrum_is_numpys),
	    cmocka_unit_test(linalg__spectrum_keeps_small_values),
	    cmocka_unit_test(linalg__spectrum_does_not_overflow),
	    cmocka_unit_test(linalg__spectrum_of_nothing_is_empty),
	    cmocka_unit_test(linalg__spectrum_refuses_what_is_not_finite),
	    cmocka_unit_test(linalg__spectra_may_be_taken_side_by_side),
	    cmocka_unit_test(linalg__effective_rank_counts_equal_values),
	};

	return cmocka_run_group_tests_name("linalg", tests, NULL, NULL);
}
