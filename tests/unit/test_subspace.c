/* SPDX-License-Identifier: Apache-2.0 */
/* tests/unit/test_subspace.c - two updates side by side and the range of a difference, on matrices
 * whose norms, angles and singular values are known without computing them.
 *
 * (tests/interop/diff.py compares with numpy on random ones.) */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "kern/subspace.h"

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

static bool near(double have, double want, double relative)
{
	return fabs(have - want) <= relative * fabs(want);
}

/* x = 3 e1 e1' + 4 e2 e2' and y = 3 e1 e1' + (3 e2 + 4 e3) e2', 3 x 4. */
static const float Bx[] = {1, 0, 0, 1, 0, 0}, Ax[] = {3, 0, 0, 0, 0, 4, 0, 0};
static const float By[] = {3, 0, 0, 3, 0, 4}, Ay[] = {1, 0, 0, 0, 0, 1, 0, 0};
static const struct lora_product x = {Bx, Ax, 3, 4, 2, 1}, y = {By, Ay, 3, 4, 2, 1};

static void subspace__two_small_products(void **state)
{
	double rows[2], columns[2];
	struct lora_comparison c = {.angles_rows = rows, .angles_columns = columns};

	(void)state;
	assert_int_equal(lora__products_compare(&x, &y, &c, NULL), LORA_OK);
	assert_true(near(c.norm_x, 5, 1e-14) && near(c.norm_y, sqrt(34), 1e-14));
	assert_true(near(c.norm_difference, sqrt(17), 1e-14) && near(c.dot, 21, 1e-14));
	assert_true(near(c.Bx.frobenius, sqrt(2), 1e-14) && near(c.Bx.spectral, 1, 1e-14));
	assert_true(near(c.Ax.frobenius, 5, 1e-14) && near(c.Ax.spectral, 4, 1e-14));
	assert_true(near(c.By.frobenius, sqrt(34), 1e-14) && near(c.By.spectral, 5, 1e-14));
	assert_true(near(c.Ay.frobenius, sqrt(2), 1e-14) && near(c.Ay.spectral, 1, 1e-14));
	assert_true(c.rank_x == 2 && c.rank_y == 2 && c.angles == 2);
	assert_true(fabs(columns[0]) < 1e-14 && near(columns[1], atan(4.0 / 3), 1e-14));
	assert_true(fabs(rows[0]) < 1e-14 && fabs(rows[1]) < 1e-14);
}

/* e1 against e1 + t e3: atan(t), which no cosine knows. */
static void subspace__small_angles(void **state)
{
	static const float A[] = {3, 1, 0, 0};
	double rows[1], columns[1];
	struct lora_comparison c = {.angles_rows = rows, .angles_columns = columns};

	(void)state;
	for (int e = 0; e < 40; e += 3) {
		const float one[] = {1, 0, 0}, other[] = {1, 0, ldexpf(1, -e)};
		struct lora_product a = {one, A, 3, 4, 1, 1}, b = {other, A, 3, 4, 1, 1};

		assert_int_equal(lora__products_compare(&a, &b, &c, NULL), LORA_OK);
		assert_true(near(columns[0], atan(ldexp(1, -e)), 1e-14));
		assert_true(fabs(rows[0]) < 1e-14);
	}
}

/* Scales, one of them negative; the other way round. */
static void subspace__scales_and_sides(void **state)
{
	double rows[2], columns[2];
	struct lora_comparison c = {.angles_rows = rows, .angles_columns = columns};
	struct lora_product a = y, b = x;

	(void)state;
	a.s = -2;
	b.s = 0.5;
	assert_int_equal(lora__products_compare(&a, &b, &c, NULL), LORA_OK);
	assert_true(near(c.norm_x, 2 * sqrt(34), 1e-14) && near(c.norm_y, 2.5, 1e-14));
	assert_true(near(c.dot, -21, 1e-14));
	assert_true(near(c.norm_difference, sqrt(4 * 34 + 6.25 + 42), 1e-14));
	assert_true(near(columns[1], atan(4.0 / 3), 1e-14));
}

/* Nothing has no direction; and no rank is no update. */
static void subspace__nothing(void **state)
{
	static const float zero[8] = {0};
	double rows[2], columns[2];
	struct lora_comparison c = {.angles_rows = rows, .angles_columns = columns};
	struct lora_product none = {zero, zero, 3, 4, 0, 1}, zeros = {zero, zero, 3, 4, 2, 1};

	(void)state;
	assert_int_equal(lora__products_compare(&none, &none, &c, NULL), LORA_OK);
	assert_true(c.norm_x == 0 && c.norm_y == 0 && c.norm_difference == 0 && c.angles == 0);
	assert_int_equal(lora__products_compare(&x, &none, &c, NULL), LORA_OK);
	assert_true(near(c.norm_x, 5, 1e-14) && near(c.norm_difference, 5, 1e-14));
	assert_true(c.norm_y == 0 && c.rank_x == 2 && c.rank_y == 0 && c.angles == 0);
	assert_int_equal(lora__products_compare(&zeros, &y, &c, NULL), LORA_OK);
	assert_true(c.norm_x == 0 && near(c.norm_difference, sqrt(34), 1e-14) && c.angles == 0);
	none.m = 0;
	assert_int_equal(lora__products_compare(&none, &none, &c, NULL), LORA_OK);
	none = x;
	none.m = 2;
	assert_int_equal(lora__products_compare(&none, &y, &c, NULL), LORA_USAGE);
}

/* Two columns of B that are one: rank 1, whose space is that of the sum. */
static void subspace__rank_below_the_factors(void **state)
{
	static const float B[] = {1, 1, 0, 0, 1, 1}, A[] = {1, 0, 0, 0, 1, 2, 0, 0};
	double rows[2], columns[2];
	struct lora_comparison c = {.angles_rows = rows, .angles_columns = columns};
	struct lora_product z = {B, A, 3, 4, 2, 1}; /* (e1 + e3) (2 e1 + 2 e2)' */

	(void)state;
	assert_int_equal(lora__products_compare(&z, &y, &c, NULL), LORA_OK);
	assert_true(c.rank_x == 1 && c.rank_y == 2 && c.angles == 1);
	assert_true(near(c.norm_x, 4, 1e-14));
	/* e1 + e3 against the span of e1 and 3 e2 + 4 e3: its projection has the square 1 + 0.64 */
	assert_true(near(columns[0], acos(sqrt(1.64 / 2)), 1e-12));
	assert_true(fabs(rows[0]) < 1e-14);
}

static void subspace__large_and_small_values(void **state)
{
	static const float B[] = {3e38f, 0, 0, 1e-38f}, A[] = {3e38f, 0, 0, 1e-38f};
	double rows[2], columns[2];
	struct lora_comparison c = {.angles_rows = rows, .angles_columns = columns};
	struct lora_product z = {B, A, 2, 2, 2, 1e50};

	(void)state;
	assert_int_equal(lora__products_compare(&z, &z, &c, NULL), LORA_OK);
	assert_true(near(c.norm_x, (double)3e38f * (double)3e38f * 1e50, 1e-14));
	assert_true(c.norm_difference == 0);
	assert_true(c.rank_x == 1 && fabs(columns[0]) < 1e-14);
}

static void subspace__refuses_what_is_not_finite(void **state)
{
	const float bad[] = {INFINITY, -INFINITY, NAN};
	double rows[2], columns[2];
	struct lora_comparison c = {.angles_rows = rows, .angles_columns = columns};
	struct lora_error err = LORA_ERROR_INIT;

	(void)state;
	for (size_t i = 0; i < 4 * COUNT(bad); i++) {
		float B[6], A[8];
		struct lora_product z = {B, A, 3, 4, 2, 1};

		memcpy(B, Bx, sizeof(B));
		memcpy(A, Ax, sizeof(A));
		(i % 2 ? A : B)[5] = bad[i / 4];
		assert_int_equal(
		    lora__products_compare(i / 2 % 2 ? &z : &x, i / 2 % 2 ? &x : &z, &c, &err),
		    LORA_INPUT);
		assert_non_null(strstr(err.message, "not finite"));
		assert_true(c.norm_x == 0 && c.norm_y == 0 && c.angles == 0);
	}
}

/* D [60, 40] has value(i) at row i, column 7 i mod 40, for i < 40: these are its singular values.
 */
static double value(size_t i)
{
	return i < 6 ? (double)(100 - 10 * i) : 1e-6;
}

/* The l values of D, handed over in two pieces, after `turns` rounds. */
static void find_values(size_t l, int turns, double *values)
{
	double *D = calloc(60 * 40, sizeof(*D)), *room = calloc(60 * l, sizeof(*room));
	struct lora_range *range;

	assert_true(D && room);
	for (size_t i = 0; i < 40; i++)
		D[i * 40 + 7 * i % 40] = value(i);
	assert_int_equal(lora__range_new(&range, 40, l, NULL), LORA_OK);
	for (int t = 0; t < turns; t++) {
		lora__range_add(range, D, 3, room);
		lora__range_add(range, D + 3 * 40, 57, room);
		lora__range_add(range, D, 0, room);
		assert_int_equal(lora__range_turn(range, values, NULL), LORA_OK);
	}
	lora__range_free(range);
	free(room);
	free(D);
}

static void subspace__range_is_exact_when_whole(void **state)
{
	double values[40];

	(void)state;
	find_values(40, 1, values);
	for (size_t i = 0; i < 6; i++)
		assert_true(near(values[i], value(i), 1e-13));
	for (size_t i = 6; i < 40; i++)
		assert_true(values[i] < 2e-6);
}

static void subspace__range_finds_what_stands_out(void **state)
{
	double values[12], again[12];

	(void)state;
	find_values(12, 2, values);
	for (size_t i = 0; i < 6; i++)
		assert_true(near(values[i], value(i), 1e-12));
	for (size_t i = 6; i < 12; i++)
		assert_true(values[i] < 1e-5);
	find_values(12, 2, again);
	assert_memory_equal(values, again, sizeof(values));
}

static void subspace__range_refuses_bad_sizes(void **state)
{
	struct lora_range *range;

	(void)state;
	assert_int_equal(lora__range_new(&range, 5, 0, NULL), LORA_USAGE);
	assert_int_equal(lora__range_new(&range, 5, 6, NULL), LORA_USAGE);
	assert_int_equal(lora__range_new(&range, (size_t)1 << 40, (size_t)1 << 30, NULL),
			 LORA_USAGE);
	assert_null(range);
	lora__range_free(NULL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(subspace__two_small_products),
	    cmocka_unit_test(subspace__small_angles),
	    cmocka_unit_test(subspace__scales_and_sides),
	    cmocka_unit_test(subspace__nothing),
	    cmocka_unit_test(subspace__rank_below_the_factors),
	    cmocka_unit_test(subspace__large_and_small_values),
	    cmocka_unit_test(subspace__refuses_what_is_not_finite),
	    cmocka_unit_test(subspace__range_is_exact_when_whole),
	    cmocka_unit_test(subspace__range_finds_what_stands_out),
	    cmocka_unit_test(subspace__range_refuses_bad_sizes),
	};

	return cmocka_run_group_tests_name("subspace", tests, NULL, NULL);
}
