/* SPDX-License-Identifier: Apache-2.0 */
/* kern/vec*.c: every table that this processor runs against plain loops in f64, within the bounds
 * that kern/vec.h promises; arrays end at unreadable pages (kern_compare.h), so that reading or
 * writing one element too many ends the process. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "guarded.h"
#include "kern/kern.h"
#include "kern/vec.h"

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

static const size_t sizes[] = {1,  2,  3,  7,  8,  9,	15,  16,  17,  31,   32,  33,
			       47, 48, 63, 64, 65, 127, 128, 129, 576, 1000, 1536};

/* The tables, one after the other. */
static const struct lora_vec *table(size_t i)
{
	static const char *const names[] = {"generic", "avx2", "avx512", "neon"};

	for (; i < COUNT(names); i++)
		if (lora__kern_find(names[i]))
			return lora__vec(names[i]);
	return NULL;
}

/* Runs check(vec, n) for all tables and sizes; a table may come twice. */
static void for_all(void (*check)(const struct lora_vec *vec, size_t n))
{
	for (size_t t = 0; t < 4; t++)
		for (size_t k = 0; table(t) && k < COUNT(sizes); k++)
			check(table(t), sizes[k]);
}

static uint64_t seed = 88172645463325252u;

/* [-1, 1) */
static float noise(void)
{
	seed ^= seed << 13;
	seed ^= seed >> 7;
	seed ^= seed << 17;
	return (float)((double)(seed >> 40) * 0x1p-23 - 1);
}

struct array {
	struct guarded guard;
	float *at;
};

static struct array array_new(size_t n, float scale)
{
	struct array a = {guarded_new(n * sizeof(float)), NULL};

	a.at = guarded_last(&a.guard, n, sizeof(float));
	for (size_t i = 0; i < n; i++)
		a.at[i] = scale * noise();
	return a;
}

static void array_free(struct array a)
{
	guarded_free(&a.guard);
}

static void near_to(const char *what, const char *isa, size_t n, double got, double want,
		    double allowed)
{
	if (!(fabs(got - want) <= allowed))
		fail_msg("%s, %s, n = %zu: %.9g, not %.9g within %.3g", what, isa, n, got, want,
			 allowed);
}

/* --- products -------------------------------------------------------------------------------- */

static float bf16(uint16_t h)
{
	uint32_t bits = (uint32_t)h << 16;
	float x;

	memcpy(&x, &bits, 4);
	return x;
}

static void check_gemv(const struct lora_vec *vec, size_t n)
{
	for (size_t rows = 1; rows <= 9; rows += rows < 5 ? 1 : 4) {
		size_t ld = n + rows % 3;
		struct array W = array_new((rows - 1) * ld + n, 1), x = array_new(n, 1),
			     y = array_new(rows, 1), wide = array_new(rows * ld, 1);
		struct guarded half = guarded_new(((rows - 1) * ld + n) * 2);
		uint16_t *h = guarded_last(&half, (rows - 1) * ld + n, 2);

		for (int type = 0; type < 3; type++) {
			for (size_t i = 0; i < (rows - 1) * ld + n; i++) {
				if (type == 1)
					lora__kern_generic.narrow_f16(&h[i], &W.at[i], 1);
				else
					lora__kern_generic.narrow_bf16(&h[i], &W.at[i], 1);
				if (type == 1)
					lora__kern_generic.widen_f16(&wide.at[i], &h[i], 1);
				else
					wide.at[i] = type ? bf16(h[i]) : W.at[i];
			}
			if (type == 0)
				vec->gemv_f32(y.at, W.at, ld, x.at, rows, n);
			else if (type == 1)
				vec->gemv_f16(y.at, h, ld, x.at, rows, n);
			else
				vec->gemv_bf16(y.at, h, ld, x.at, rows, n);
			for (size_t i = 0; i < rows; i++) {
				double want = 0, size = 0;

				for (size_t j = 0; j < n; j++) {
					double p = (double)wide.at[i * ld + j] * (double)x.at[j];

					want += p;
					size += fabs(p);
				}
				near_to("gemv", vec->isa, n, (double)y.at[i], want, size * 0x1p-22);
			}
		}
		array_free(W);
		array_free(x);
		array_free(y);
		array_free(wide);
		guarded_free(&half);
	}
}

static void vec__gemv(void **state)
{
	(void)state;
	for_all(check_gemv);
}

/* Every one of the 65536 halves, as a weight of 1 x 1. */
static void vec__halves_are_exact(void **state)
{
	(void)state;
	for (size_t t = 0; t < 4 && table(t); t++)
		for (uint32_t bits = 0; bits < 65536; bits++) {
			uint16_t h = (uint16_t)bits;
			float one = 1, got, want;

			lora__kern_generic.widen_f16(&want, &h, 1);
			if (isfinite(want)) {
				table(t)->gemv_f16(&got, &h, 1, &one, 1, 1);
				assert_true(got == want);
			}
			want = bf16(h);
			if (isfinite(want)) {
				table(t)->gemv_bf16(&got, &h, 1, &one, 1, 1);
				assert_true(got == want);
			}
		}
}

static void check_mix(const struct lora_vec *vec, size_t n)
{
	for (size_t rows = 1; rows <= 33; rows += 16) {
		size_t ld = n + 1;
		struct array V = array_new((rows - 1) * ld + n, 1), p = array_new(rows, 1),
			     out = array_new(n, 1);

		vec->mix(out.at, V.at, ld, p.at, rows, n);
		for (size_t j = 0; j < n; j++) {
			double want = 0, size = 0;

			for (size_t i = 0; i < rows; i++) {
				want += (double)p.at[i] * (double)V.at[i * ld + j];
				size += fabs((double)p.at[i] * (double)V.at[i * ld + j]);
			}
			near_to("mix", vec->isa, n, (double)out.at[j], want, size * 0x1p-22);
		}
		array_free(V);
		array_free(p);
		array_free(out);
	}
}

static void vec__mix(void **state)
{
	(void)state;
	for_all(check_mix);
}

/* --- exponentials ---------------------------------------------------------------------------- */

static void check_softmax(const struct lora_vec *vec, size_t n)
{
	struct array x = array_new(n, 40), y = array_new(n, 1);
	double most = -INFINITY, sum = 0, total = 0;

	memcpy(y.at, x.at, n * sizeof(float));
	for (size_t i = 0; i < n; i++)
		most = fmax(most, (double)x.at[i]);
	for (size_t i = 0; i < n; i++)
		sum += exp(((double)x.at[i] - most) * 0.625);
	vec->softmax(y.at, 0.625f, n);
	for (size_t i = 0; i < n; i++) {
		double want = exp(((double)x.at[i] - most) * 0.625) / sum;

		/* the argument, up to 50, is rounded: e^x moves by as much */
		near_to("softmax", vec->isa, n, (double)y.at[i], want, want * 1e-5 + 1e-30);
		total += (double)y.at[i];
	}
	near_to("softmax's sum", vec->isa, n, total, 1, 1e-6);
	sum = 0;
	for (size_t i = 0; i < n; i++)
		sum += exp((double)x.at[i] - most);
	near_to("log_sum_exp", vec->isa, n, vec->log_sum_exp(x.at, n), most + log(sum), 2e-6);
	array_free(x);
	array_free(y);
}

static void vec__softmax(void **state)
{
	(void)state;
	for_all(check_softmax);
}

/* Far apart, and all equal: no overflow, no 0/0. */
static void vec__softmax_of_extremes(void **state)
{
	(void)state;
	for (size_t t = 0; t < 4 && table(t); t++) {
		float far[20] = {-3e38f, 3e38f, 0}, same[20];

		for (size_t i = 0; i < 20; i++)
			same[i] = -1e30f;
		table(t)->softmax(far, 1, 20);
		assert_true(far[1] == 1 && far[0] < 1e-30f && far[2] < 1e-30f);
		table(t)->softmax(same, 1, 20);
		assert_float_equal(same[0], 0.05f, 1e-7f);
		assert_float_equal(same[19], 0.05f, 1e-7f);
		same[7] = NAN;
		assert_true(isnan(table(t)->log_sum_exp(same, 20)));
	}
}

/* One likely token and a vocabulary of unlikely ones: together they count. */
static void vec__long_tails_are_not_lost(void **state)
{
	enum { N = 49152 };
	float *x = malloc(N * sizeof(float));
	double sum = 1;

	(void)state;
	assert_non_null(x);
	for (size_t i = 0; i < N; i++) {
		x[i] = i == 5 ? 3 : -15 + noise();
		sum += i == 5 ? 0 : exp((double)x[i] - 3);
	}
	for (size_t t = 0; t < 4 && table(t); t++)
		near_to("log_sum_exp", table(t)->isa, N, table(t)->log_sum_exp(x, N) - 3, log(sum),
			1e-8 + 0.01 * log(sum));
	free(x);
}

static double silu(double x)
{
	return x / (1 + exp(-x));
}

static double gelu(double x)
{
	return x / 2 * (1 + tanh(sqrt(2 / M_PI) * (x + 0.044715 * x * x * x)));
}

static void check_activations(const struct lora_vec *vec, size_t n)
{
	for (float scale = 1e-3f; scale < 1e4f; scale *= 10) {
		struct array g = array_new(n, scale), u = array_new(n, 3), out = array_new(n, 1);

		vec->silu_mul(out.at, g.at, u.at, n);
		for (size_t i = 0; i < n; i++) {
			double want = silu((double)g.at[i]) * (double)u.at[i],
			       size = fabs((double)g.at[i] * (double)u.at[i]);

			near_to("silu", vec->isa, n, (double)out.at[i], want,
				fabs(want) * 0x1p-21 + size * 0x1p-23);
		}
		vec->gelu(out.at, g.at, n);
		for (size_t i = 0; i < n; i++) {
			double want = gelu((double)g.at[i]);

			near_to("gelu", vec->isa, n, (double)out.at[i], want,
				fabs(want) * 0x1p-21 + fabs((double)g.at[i]) * 0x1p-23);
		}
		array_free(g);
		array_free(u);
		array_free(out);
	}
}

static void vec__activations(void **state)
{
	(void)state;
	for_all(check_activations);
}

/* --- norms, turns, sums ---------------------------------------------------------------------- */

static void check_norms(const struct lora_vec *vec, size_t n)
{
	struct array x = array_new(n, 5), g = array_new(n, 1), b = array_new(n, 1),
		     out = array_new(n, 1);
	double mean = 0, square = 0, variance = 0;

	for (size_t i = 0; i < n; i++) {
		x.at[i] += 2;
		mean += (double)x.at[i] / (double)n;
		square += (double)x.at[i] * (double)x.at[i] / (double)n;
	}
	for (size_t i = 0; i < n; i++)
		variance += ((double)x.at[i] - mean) * ((double)x.at[i] - mean) / (double)n;
	vec->rms_norm(out.at, x.at, g.at, 1e-2f, n);
	for (size_t i = 0; i < n; i++)
		near_to("rms_norm", vec->isa, n, (double)out.at[i],
			(double)g.at[i] * (double)x.at[i] / sqrt(square + (double)1e-2f), 2e-6);
	vec->layer_norm(out.at, x.at, g.at, b.at, 1e-2f, n);
	for (size_t i = 0; i < n; i++)
		near_to("layer_norm", vec->isa, n, (double)out.at[i],
			(double)g.at[i] * ((double)x.at[i] - mean) /
				sqrt(variance + (double)1e-2f) +
			    (double)b.at[i],
			4e-6);
	array_free(x);
	array_free(g);
	array_free(b);
	array_free(out);
}

static void vec__norms(void **state)
{
	(void)state;
	for_all(check_norms);
}

static void check_rotate(const struct lora_vec *vec, size_t n)
{
	struct array x = array_new(2 * n, 1), c = array_new(n, 1), s = array_new(n, 1),
		     out = array_new(2 * n, 1);

	for (size_t i = 0; i < n; i++) {
		double angle = 100 * (double)c.at[i];

		c.at[i] = (float)cos(angle);
		s.at[i] = (float)sin(angle);
	}
	vec->rotate(out.at, x.at, c.at, s.at, n);
	for (size_t i = 0; i < n; i++) {
		double a = (double)x.at[i], b = (double)x.at[n + i], cos_i = (double)c.at[i],
		       sin_i = (double)s.at[i];

		near_to("rotate", vec->isa, n, (double)out.at[i], a * cos_i - b * sin_i, 2e-7);
		near_to("rotate", vec->isa, n, (double)out.at[n + i], b * cos_i + a * sin_i, 2e-7);
	}
	vec->rotate(x.at, x.at, c.at, s.at, n);
	assert_memory_equal(x.at, out.at, 2 * n * sizeof(float));
	array_free(x);
	array_free(c);
	array_free(s);
	array_free(out);
}

static void vec__rotate(void **state)
{
	(void)state;
	for_all(check_rotate);
}

static void check_sums(const struct lora_vec *vec, size_t n)
{
	struct array y = array_new(n, 1), x = array_new(n, 1), was = array_new(n, 1);

	memcpy(was.at, y.at, n * sizeof(float));
	vec->add(y.at, -2.5f, x.at, n);
	for (size_t i = 0; i < n; i++)
		near_to("add", vec->isa, n, (double)y.at[i],
			(double)was.at[i] - 2.5 * (double)x.at[i], 4e-7);
	memcpy(y.at, was.at, n * sizeof(float));
	vec->affine(y.at, x.at, NULL, n);
	vec->affine(y.at, NULL, x.at, n);
	for (size_t i = 0; i < n; i++)
		near_to("affine", vec->isa, n, (double)y.at[i],
			(double)was.at[i] * (double)x.at[i] + (double)x.at[i], 2e-7);
	array_free(y);
	array_free(x);
	array_free(was);
}

static void vec__sums(void **state)
{
	(void)state;
	for_all(check_sums);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(vec__gemv),
	    cmocka_unit_test(vec__halves_are_exact),
	    cmocka_unit_test(vec__mix),
	    cmocka_unit_test(vec__softmax),
	    cmocka_unit_test(vec__softmax_of_extremes),
	    cmocka_unit_test(vec__long_tails_are_not_lost),
	    cmocka_unit_test(vec__activations),
	    cmocka_unit_test(vec__norms),
	    cmocka_unit_test(vec__rotate),
	    cmocka_unit_test(vec__sums),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
