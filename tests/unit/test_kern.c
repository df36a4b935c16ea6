/* SPDX-License-Identifier: Apache-2.0 */
/* tests/unit/test_kern.c - the arithmetic, against other ways to compute it.
 *
 * Two questions, asked apart. Is each table the generic one, bit for bit? kern_compare.h asks it of
 * every table that this processor runs. And is the generic one right? Here its results are
 * computed again in ways that share nothing with it:
 *
 * - a conversion to 16 bits, by searching the table of all values of the type, in f64, for the
 *   nearest; from 16 bits, from the fields by ldexp();
 * - a fused multiply-add, in integers of 640 bits where no rounding happens at all;
 * - a product or sum of two f32, in f64 and rounded to f32: the product is exact there (48 bits of
 *   53), and a sum rounded to 53 >= 2 * 24 + 2 bits first rounds to 24 as if at once (Figueroa
 *   1995), subnormal sums being exact.
 */
#include <float.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "kern/kern.h"
#include "kern_compare.h"

static const struct lora_kern *const generic = &lora__kern_generic;

/* --- the 16-bit formats ----------------------------------------------------------------------- */

struct format {
	int significand; /* bits that are stored */
	int bias;
	uint16_t infinity;
	double *values; /* of the patterns without sign up to infinity, which counts as the */
};			/* next power of two: where rounding to it begins, midway */

static double f16_values[0x7c01], bf16_values[0x7f81];
static const struct format f16 = {10, 15, 0x7c00, f16_values};
static const struct format bf16 = {7, 127, 0x7f80, bf16_values};

/* The value of a pattern, from its fields: all are exact in f64, and so are their midpoints. */
static double value_of(const struct format *f, uint16_t h)
{
	int exponent = h >> f->significand, m = h & ((1 << f->significand) - 1);

	if (exponent == 0)
		return ldexp(m, 1 - f->bias - f->significand);
	return ldexp(m + (1 << f->significand), exponent - f->bias - f->significand);
}

static int fill_values(void **state)
{
	(void)state;
	for (uint16_t h = 0; h <= f16.infinity; h++)
		f16_values[h] = value_of(&f16, h);
	for (uint16_t h = 0; h <= bf16.infinity; h++)
		bf16_values[h] = value_of(&bf16, h);
	return 0;
}

/* The nearest pattern to x, ties to the even one. */
static uint16_t nearest(const struct format *f, float x)
{
	double size = fabs((double)x), below, above;
	uint16_t sign = signbit(x) ? 0x8000 : 0, low = 0, high = f->infinity;

	while (high - low > 1) { /* values[low] <= size; they grow */
		uint16_t middle = (uint16_t)((low + high) / 2);

		if (f->values[middle] <= size)
			low = middle;
		else
			high = middle;
	}
	below = size - f->values[low];
	above = f->values[high] - size;
	if (above < below || (above == below && low % 2 == 1))
		low = high;
	return sign | low;
}

static void kern__widening_gives_the_value_of_every_pattern(void **state)
{
	(void)state;
	for (uint32_t u = 0; u < 65536; u++) {
		uint16_t h = (uint16_t)u, size = h & 0x7fff;
		float x, y;

		generic->widen_f16(&x, &h, 1);
		generic->widen_bf16(&y, &h, 1);
		assert_int_equal(bits_of(x) >> 31, h >> 15);
		assert_int_equal(bits_of(y) >> 31, h >> 15);
		if (size < f16.infinity)
			assert_true(fabs((double)x) == f16.values[size]);
		else if (size == f16.infinity)
			assert_true(isinf(x));
		else /* quiet, sign and payload kept */
			assert_int_equal(bits_of(x) & 0x7fffffff, 0x7fc00000 | (uint32_t)(h & 0x3ff)
										   << 13);
		if (size < bf16.infinity)
			assert_true(fabs((double)y) == bf16.values[size]);
		else /* infinity and NaN: the upper half of an f32 */
			assert_int_equal(bits_of(y), u << 16);
	}
}

static void check_narrowing(float x)
{
	uint16_t h, b;

	generic->narrow_f16(&h, &x, 1);
	generic->narrow_bf16(&b, &x, 1);
	if (isnan(x)) { /* quiet, sign and the payload's upper bits kept */
		uint32_t u = bits_of(x);

		assert_int_equal(h, (u >> 16 & 0x8000) | 0x7e00 | (u >> 13 & 0x3ff));
		assert_int_equal(b, u >> 16 | 0x40);
		return;
	}
	if (h != nearest(&f16, x) || b != nearest(&bf16, x))
		fail_msg("%a: f16 0x%04x, not 0x%04x; bf16 0x%04x, not 0x%04x", (double)x, h,
			 nearest(&f16, x), b, nearest(&bf16, x));
}

/* Every value, every midpoint, and the f32 next to each of them. */
static void kern__narrowing_rounds_ties_to_even(void **state)
{
	static const struct format *const formats[] = {&f16, &bf16};

	(void)state;
	for (size_t i = 0; i < 2; i++) {
		for (uint16_t h = 0; h < formats[i]->infinity; h++) {
			double low = formats[i]->values[h], high = formats[i]->values[h + 1];
			const float points[] = {(float)low, (float)((low + high) / 2)};

			for (size_t p = 0; p < 2; p++) {
				assert_true((double)points[p] == (p == 0 ? low : (low + high) / 2));
				check_narrowing(points[p]);
				check_narrowing(-points[p]);
				check_narrowing(nextafterf(points[p], INFINITY));
				check_narrowing(nextafterf(points[p], -INFINITY));
				check_narrowing(-nextafterf(points[p], INFINITY));
			}
		}
	}
	check_narrowing(INFINITY);
	check_narrowing(-INFINITY);
	check_narrowing(FLT_MAX);
}

/* 2^24 patterns spread over all of f32. (A prime near 2^32 / 2^24.) */
static void kern__narrowing_gives_the_nearest(void **state)
{
	uint32_t u = 0;

	(void)state;
	for (uint32_t i = 0; i < 1u << 24; i++, u += 257)
		check_narrowing(float_of(u));
}

/* --- exact fused multiply-add ----------------------------------------------------------------- */

/* Two's complement, least significant word first, in units of 2^-300: the smallest product is
 * 2^-298, the largest sum below 2^257, so 557 bits and a sign are enough. */
enum { WORDS = 20, UNIT = -300 };

/* sum += sign * m * 2^exponent */
static void wide_add(uint32_t sum[WORDS], bool negative, uint64_t m, int exponent)
{
	unsigned shift = (unsigned)(exponent - UNIT);
	uint32_t term[WORDS] = {0};
	uint64_t carry = negative ? 1 : 0;

	for (unsigned bit = 0; bit < 64; bit++)
		if (m >> bit & 1)
			term[(shift + bit) / 32] |= 1u << (shift + bit) % 32;
	for (int i = 0; i < WORDS; i++) {
		carry += (uint64_t)sum[i] + (negative ? ~term[i] : term[i]);
		sum[i] = (uint32_t)carry;
		carry >>= 32;
	}
}

static bool wide_bit(const uint32_t x[WORDS], int bit)
{
	return bit >= 0 && (x[bit / 32] >> bit % 32 & 1);
}

/* The f32 nearest to a positive x, ties to even. */
static float wide_round(const uint32_t x[WORDS])
{
	int top = WORDS * 32 - 1, low;
	uint32_t m = 0;
	bool rest = false;

	while (!wide_bit(x, top))
		top--;
	low = top - 23; /* of 24 bits, but none below 2^-149 */
	if (low + UNIT < -149)
		low = -149 - UNIT;
	for (int bit = top; bit >= low; bit--)
		m = m << 1 | wide_bit(x, bit);
	for (int bit = 0; bit < low - 1; bit++)
		rest = rest || wide_bit(x, bit);
	if (wide_bit(x, low - 1) && (rest || m % 2 == 1))
		m++;
	return (float)ldexp(m, low + UNIT); /* exact in f64; beyond FLT_MAX only 2^128 is left */
}

/* |x| = the result * 2^*exponent */
static uint32_t integer_of(float x, int *exponent)
{
	uint32_t u = bits_of(x) & 0x7fffffff;

	*exponent = (u >> 23 > 0 ? (int)(u >> 23) : 1) - 150;
	return (u & 0x7fffff) | (u >> 23 > 0 ? 0x800000 : 0);
}

/* round(a * b + c), for finite a, b, c. */
static float exact_fma(float a, float b, float c)
{
	uint32_t sum[WORDS] = {0}, zero[WORDS] = {0}, negated[WORDS] = {0};
	bool product_negative = signbit(a) != signbit(b), c_negative = signbit(c);
	int ea, eb, ec;
	uint64_t m = (uint64_t)integer_of(a, &ea) * integer_of(b, &eb);
	uint32_t mc = integer_of(c, &ec);

	wide_add(sum, product_negative, m, ea + eb);
	wide_add(sum, c_negative, mc, ec);
	if (memcmp(sum, zero, sizeof(sum)) == 0) /* +0, unless both terms are -0 */
		return m == 0 && mc == 0 && product_negative && c_negative ? -0.0f : 0.0f;
	if (!(sum[WORDS - 1] >> 31))
		return wide_round(sum);
	for (uint64_t i = 0, carry = 1; i < WORDS; i++, carry >>= 32) {
		carry += (uint32_t)~sum[i];
		negated[i] = (uint32_t)carry;
	}
	return -wide_round(negated);
}

/* By hand: what the reference above must get right before it may judge. */
static void kern__the_reference_fma_rounds_once(void **state)
{
	const float e = 0x1p-23f; /* 1 + e is the f32 after 1 */

	(void)state;
	/* (1 + e)^2 = 1 + 2e + e^2: e^2 is lost, and is all that is left when 1 + 2e is taken off.
	 */
	assert_true(exact_fma(1 + e, 1 + e, 0) == 1 + 2 * e);
	assert_true(exact_fma(1 + e, 1 + e, -(1 + 2 * e)) == 0x1p-46f);
	/* (1 + 2^-12)^2 = 1 + 2^-11 + 2^-24, a tie: to even, or where a bit far below pulls it. In
	 * f64 that bit would be lost. */
	assert_true(exact_fma(1 + 0x1p-12f, 1 + 0x1p-12f, 0) == 1 + 0x1p-11f);
	assert_true(exact_fma(1 + 0x1p-12f, 1 + 0x1p-12f, -0x1p-140f) == 1 + 0x1p-11f);
	assert_true(exact_fma(1 + 0x1p-12f, 1 + 0x1p-12f, 0x1p-140f) == 1 + 0x1p-11f + e);
	/* Subnormal: half of the smallest is a tie to zero, more than half is not. */
	assert_true(exact_fma(0x1p-75f, 0x1p-75f, 0) == 0);
	assert_true(exact_fma(0x1.000002p-75f, 0x1p-75f, 0) == 0x1p-149f);
	assert_true(exact_fma(0x1.8p-75f, 0x1p-74f, 0x1p-149f) == 0x1p-148f); /* 2.5 units */
	/* Overflow begins half a step above the largest. */
	assert_true(exact_fma(FLT_MAX, 1, 0x1p102f) == FLT_MAX);
	assert_true(isinf(exact_fma(FLT_MAX, 1, 0x1p103f)));
	/* Zeros. */
	assert_int_equal(bits_of(exact_fma(-1, 0, 0)), 0);
	assert_int_equal(bits_of(exact_fma(-1, 0, -0.0f)), 0x80000000);
	assert_int_equal(bits_of(exact_fma(-1, 1, 1)), 0);
	assert_int_equal(bits_of(exact_fma(-0x1p-100f, 0x1p-100f, 0)), 0x80000000);
}

static float exact_product(float a, float b)
{
	return (float)((double)a * (double)b);
}

static float exact_sum(float a, float b)
{
	return (float)((double)a + (double)b);
}

/* --- lowrank ---------------------------------------------------------------------------------- */

enum { ROWS = 7, COLS = 70, RANK = 19 };

/* One product by the reference; false if an infinity turns up, where it does not apply. */
static bool expected_element(float *out, const float *L, const float *R, size_t ldr, float s,
			     float before)
{
	float c = 0.0f;

	for (size_t k = 0; k < RANK; k++) {
		c = exact_fma(L[k], R[k * ldr], c);
		if (!isfinite(c))
			return false;
	}
	*out = exact_sum(before, exact_product(s, c));
	return isfinite(*out);
}

static size_t check_exact(const struct lora_kern *kern, enum kind kind, bool first, uint64_t seed)
{
	static float D[ROWS * COLS], before[ROWS * COLS], L[ROWS * RANK], R[RANK * COLS];
	struct lora_lowrank_shape shape = {ROWS, COLS, RANK, seed % 2 ? 0.3f : -1.5f, first};
	size_t checked = 0;

	fill(L, ROWS * RANK, kind, seed);
	fill(R, RANK * COLS, kind, seed + 1);
	fill(before, ROWS * COLS, kind, seed + 2);
	memcpy(D, before, sizeof(D));
	kern->lowrank(D, COLS, L, RANK, R, COLS, &shape);
	for (size_t i = 0; i < ROWS; i++) {
		for (size_t j = 0; j < COLS; j++) {
			float was = first ? 0.0f : before[i * COLS + j], want;

			if (!expected_element(&want, L + i * RANK, R + j, COLS, shape.s, was))
				continue;
			checked++;
			if (bits_of(D[i * COLS + j]) != bits_of(want))
				fail_msg("%s, kind %d: D[%zu, %zu] is %a, not %a", kern->isa,
					 (int)kind, i, j, (double)D[i * COLS + j], (double)want);
		}
	}
	return checked;
}

static const char *const names[] = {"generic", "avx2", "avx512", "neon"};

static void kern__lowrank_is_the_exact_chain(void **state)
{
	static const enum kind kinds[] = {KIND_WEIGHTS, KIND_GRID, KIND_TINY, KIND_ANY, KIND_ZERO};

	(void)state;
	for (size_t i = 0; i < COUNT(names); i++) {
		const struct lora_kern *kern = lora__kern_find(names[i]);

		for (size_t k = 0; kern && k < COUNT(kinds); k++) {
			size_t checked = 0;

			for (uint64_t seed = 0; seed < 8; seed++)
				checked += check_exact(kern, kinds[k], seed / 2 % 2, 99 * seed);
			assert_true(checked > ROWS * COLS);
		}
	}
}

/* Two adapters of one rank: D + s1*c1, then + s2*c2, and -0 on the way as IEEE has it. */
static void kern__lowrank_of_zero_is_plus_zero(void **state)
{
	struct lora_lowrank_shape shape = {1, 1, 1, 1.0f, true};
	float D = 5.0f, L = -0.0f, R = 1.0f;

	(void)state;
	for (size_t i = 0; i < COUNT(names); i++) {
		const struct lora_kern *kern = lora__kern_find(names[i]);

		if (!kern)
			continue;
		shape.first =
		    true; /* c = fma(-0, 1, +0) = +0; d = -1 * +0 = -0; D = +0 + -0 = +0 */
		shape.s = -1.0f;
		D = 5.0f;
		kern->lowrank(&D, 1, &L, 1, &R, 1, &shape);
		assert_int_equal(bits_of(D), 0);
		shape.first = false; /* D = -0 + -0 = -0 */
		D = -0.0f;
		kern->lowrank(&D, 1, &L, 1, &R, 1, &shape);
		assert_int_equal(bits_of(D), 0x80000000);
		shape.rank = 0; /* c = +0 all the same */
		shape.s = 1.0f;
		kern->lowrank(&D, 1, &L, 1, &R, 1, &shape);
		assert_int_equal(bits_of(D), 0);
		shape.rank = 1;
	}
}

/* --- apply ------------------------------------------------------------------------------------ */

/* The sum of squares as kern.h defines it: sixteen chains of exact fma, then neighbours. */
static double expected_sum(const float *x, size_t n, bool again)
{
	double q[16] = {0};

	for (size_t l = 0; l < 16; l++) {
		float lane = 0.0f;

		for (size_t j = l; j < n; j += 16) {
			lane = exact_fma(x[j], x[j], lane);
			if (again)
				q[l] = (double)x[j] * (double)x[j] + q[l];
		}
		if (!again)
			q[l] = lane;
	}
	return (((q[0] + q[1]) + (q[2] + q[3])) + ((q[4] + q[5]) + (q[6] + q[7]))) +
	       (((q[8] + q[9]) + (q[10] + q[11])) + ((q[12] + q[13]) + (q[14] + q[15])));
}

struct apply_data {
	float D[300], w[300], written[300], e[300];
	uint16_t stored[300], out[300];
	size_t n;
};

/* What bf16 -> bf16 must give, from the definition and from exact sums. */
static void expect_apply(struct apply_data *x, struct lora_stats *stats)
{
	for (size_t j = 0; j < x->n; j++) {
		float t = exact_sum(x->w[j], x->D[j]);
		double err = ((double)x->w[j] - (double)t) + (double)x->D[j]; /* exact, see below */

		x->written[j] = float_of((uint32_t)nearest(&bf16, t) << 16);
		x->e[j] = (float)(((double)x->written[j] - (double)t) - err);
		stats->nonzero += x->D[j] != 0.0f;
		stats->unchanged += x->D[j] != 0.0f && x->written[j] == x->w[j];
		stats->changed += x->written[j] != x->w[j];
	}
}

/* Weights of one binade apart at most, so that W - t and what follows are exact in f64: all terms
 * are multiples of 2^-46 below 2^-2. */
static void kern__apply_follows_the_definition(void **state)
{
	static struct apply_data x = {.n = 300};
	struct lora_stats want = {0};

	(void)state;
	fill(x.D, x.n, KIND_WEIGHTS, 1);
	for (size_t j = 0; j < x.n; j++) {
		x.D[j] = j % 7 == 0 ? 0.0f : ldexpf(x.D[j], -8);
		x.stored[j] = (uint16_t)(0x3d00 + j * 37 % 256 + (j % 2 ? 0x8000 : 0));
		x.w[j] = float_of((uint32_t)x.stored[j] << 16);
	}
	expect_apply(&x, &want);
	assert_true(want.unchanged > 30 && want.changed > 30);
	for (size_t i = 0; i < COUNT(names); i++) {
		const struct lora_kern *kern = lora__kern_find(names[i]);
		struct lora_stats got = {0.5, 0.25, 0.125, 1, 2, 3, 4}; /* is added to */

		if (!kern)
			continue;
		kern->apply(x.out, LORA_DTYPE_BF16, x.stored, LORA_DTYPE_BF16, x.D, x.n, &got);
		for (size_t j = 0; j < x.n; j++)
			assert_int_equal((uint32_t)x.out[j] << 16, bits_of(x.written[j]));
		assert_true(got.d2 == 0.5 + expected_sum(x.D, x.n, false));
		assert_true(got.w2 == 0.25 + expected_sum(x.w, x.n, false));
		assert_true(got.e2 == 0.125 + expected_sum(x.e, x.n, false));
		assert_int_equal(got.nonzero, 1 + want.nonzero);
		assert_int_equal(got.unchanged, 2 + want.unchanged);
		assert_int_equal(got.changed, 3 + want.changed);
		assert_int_equal(got.nonfinite, 4);
	}
}

/* Squares that f32 cannot hold are summed in f64: D^2 below 2^-150, W^2 above 2^128. */
static void kern__apply_sums_again_what_f32_cannot_hold(void **state)
{
	float D[100], w[100], out[100];

	(void)state;
	for (size_t j = 0; j < 100; j++) {
		D[j] = ldexpf((float)j, -100);
		w[j] = ldexpf((float)(j + 1), 70);
	}
	for (size_t i = 0; i < COUNT(names); i++) {
		const struct lora_kern *kern = lora__kern_find(names[i]);
		struct lora_stats stats = {0};

		if (!kern)
			continue;
		memcpy(out, w, sizeof(w)); /* in place: W is needed twice */
		kern->apply(out, LORA_DTYPE_F32, out, LORA_DTYPE_F32, D, 100, &stats);
		/* sum of j^2 below 100 is 328350, of 1 to 100 it is 338350: exact in f64 */
		assert_true(stats.d2 == ldexp(328350, -200));
		assert_true(stats.w2 == ldexp(338350, 140));
		assert_true(stats.e2 == stats.d2); /* W' = W: all of D is lost */
		assert_int_equal(stats.unchanged, 99);
		assert_true(expected_sum(D, 100, true) == stats.d2);
	}
}

/* Lanes so far apart that the order in which they are added shows; with `small` elements, whose
 * sums are taken again in f64. */
static void check_neighbours(const struct lora_kern *kern, uint64_t seed, bool small)
{
	float D[300], w[300], out[300];
	struct lora_stats stats = {0};

	fill(D, COUNT(D), KIND_WEIGHTS, seed);
	fill(w, COUNT(w), KIND_WEIGHTS, seed + 100);
	for (size_t j = 0; j < COUNT(w); j++) {
		int lower = (int)((j % 16 * (seed + 3) * 7) % 41) + (small ? 70 : 0);

		D[j] = ldexpf(D[j], -lower);
		w[j] = ldexpf(w[j], -lower);
	}
	kern->apply(out, LORA_DTYPE_F32, w, LORA_DTYPE_F32, D, COUNT(D), &stats);
	assert_true(stats.d2 == expected_sum(D, COUNT(D), small));
	assert_true(stats.w2 == expected_sum(w, COUNT(w), small));
}

static void kern__apply_adds_neighbouring_lanes(void **state)
{
	(void)state;
	for (size_t i = 0; i < COUNT(names); i++) {
		const struct lora_kern *kern = lora__kern_find(names[i]);

		for (uint64_t seed = 0; kern && seed < 32; seed++) {
			check_neighbours(kern, seed, false);
			check_neighbours(kern, seed, true);
		}
	}
}

static void kern__apply_counts_what_is_not_finite(void **state)
{
	/* f16 ends at 65504; 65519 rounds to it and 65520, a tie, to infinity */
	const float w[] = {65504, 65504, -65504, 1, INFINITY, NAN, 0};
	const float D[] = {15, 16, -16, 1, 0, 0, NAN};
	uint16_t out[COUNT(w)];

	(void)state;
	for (size_t i = 0; i < COUNT(names); i++) {
		const struct lora_kern *kern = lora__kern_find(names[i]);
		struct lora_stats stats = {0};

		if (!kern)
			continue;
		kern->apply(out, LORA_DTYPE_F16, w, LORA_DTYPE_F32, D, COUNT(w), &stats);
		assert_int_equal(out[0], 0x7bff);
		assert_int_equal(out[1], 0x7c00);
		assert_int_equal(out[2], 0xfc00);
		assert_int_equal(stats.nonfinite, 5);
		assert_int_equal(stats.nonzero, 5);   /* NaN is not zero */
		assert_int_equal(stats.changed, 5);   /* all but 65504 and infinity */
		assert_int_equal(stats.unchanged, 1); /* 65504 + 15 */
		assert_true(isnan(stats.d2) && isnan(stats.w2));
	}
}

/* p[(j0 + j) mod 8]: 1, 4, 9, ... at j0 = 6; each sum is exact. */
static void kern__square8_goes_around(void **state)
{
	const float t[] = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11};
	const double want[8] = {9 + 121, 16, 25, 36, 49, 64, 1 + 81, 4 + 100};

	(void)state;
	for (size_t i = 0; i < COUNT(names); i++) {
		const struct lora_kern *kern = lora__kern_find(names[i]);
		double p[8] = {0};

		if (!kern)
			continue;
		kern->square8(p, t, COUNT(t), 6);
		for (size_t l = 0; l < 8; l++)
			assert_true(p[l] == want[l]);
	}
}

/* --- all tables, all modes -------------------------------------------------------------------- */

static void kern__every_table_is_the_generic_one(void **state)
{
	struct arena a = arena_new();
	size_t tables = 0;

	(void)state;
	for (size_t i = 0; i < COUNT(names); i++) {
		const struct lora_kern *kern = lora__kern_find(names[i]);

		if (!kern)
			continue;
		tables++;
		assert_string_equal(kern->isa, names[i]);
		assert_int_equal(compare_conversions(kern, &a), 0);
		assert_int_equal(compare_lowrank_all(kern, &a), 0);
		assert_int_equal(compare_apply_all(kern, &a), 0);
		assert_int_equal(compare_square8_all(kern, &a), 0);
	}
	print_message("%zu tables run here\n", tables);
	arena_free(&a);
}

/* Rounding toward zero and, where there is such a thing, subnormals flushed. */
static void set_hostile_mode(bool on)
{
#if defined(__x86_64__)
	__builtin_ia32_ldmxcsr(on ? 0x1f80 | 0x6000 | 0x8040 : 0x1f80);
#elif defined(__aarch64__)
	uint64_t mode = on ? 3u << 22 | 1u << 24 : 0;

	__asm__ volatile("msr fpcr, %0" ::"r"(mode) : "memory");
#else
	(void)on;
#endif
}

struct results {
	float D[9 * 37], t[300], out[300];
	uint16_t halves[300];
	double p[8];
	struct lora_stats stats;
};

static void compute_all(const struct lora_kern *kern, bool hostile, struct results *r)
{
	static float L[9 * 21], R[21 * 37], D[300], w[300];
	struct lora_lowrank_shape shape = {9, 37, 21, 0.7f, true};

	fill(L, COUNT(L), KIND_TINY, 1);
	for (size_t j = 0; j < COUNT(L); j++)
		L[j] = ldexpf(L[j], -70);
	fill(R, COUNT(R), KIND_WEIGHTS, 2);
	fill(D, COUNT(D), KIND_TINY, 3);
	fill(w, COUNT(w), KIND_TINY, 4);
	memset(r, 0, sizeof(*r));
	set_hostile_mode(hostile);
	kern->lowrank(r->D, 37, L, 21, R, 37, &shape);
	kern->apply(r->out, LORA_DTYPE_F32, w, LORA_DTYPE_F32, D, 300, &r->stats);
	kern->sum(r->t, w, LORA_DTYPE_F32, D, 300);
	kern->square8(r->p, R, 300, 0);
	kern->narrow_f16(r->halves, R, 300);
	kern->narrow_bf16(r->halves + 150, w, 150);
	kern->widen_f16(r->t + 290, r->halves, 10);
	set_hostile_mode(false);
}

static void kern__results_do_not_depend_on_the_callers_mode(void **state)
{
	static struct results want, got;

	(void)state;
	compute_all(generic, false, &want);
	assert_true(want.D[0] != 0.0f && fabsf(want.D[0]) < FLT_MIN);
	assert_true(want.stats.w2 != 0 && want.t[0] != 0.0f);
	for (size_t i = 0; i < COUNT(names); i++) {
		const struct lora_kern *kern = lora__kern_find(names[i]);

		if (!kern)
			continue;
		compute_all(kern, true, &got);
		assert_memory_equal(&got, &want, sizeof(want));
	}
}

/* --- dispatch --------------------------------------------------------------------------------- */

/* One test, since the choice is made once: refused twice, then made, then kept. */
static void kern__the_table_is_chosen_once(void **state)
{
	struct lora_error err = LORA_ERROR_INIT;

	(void)state;
	setenv("LORACTL_CPU", "sse9", 1);
	assert_null(lora__kern(&err));
	assert_int_equal(err.status, LORA_USAGE);
	assert_non_null(strstr(err.message, "'sse9'"));
	assert_non_null(strstr(err.message, "generic"));
	assert_null(lora_cpu_name());
#if defined(__x86_64__)
	setenv("LORACTL_CPU", "neon", 1);
#else
	setenv("LORACTL_CPU", "avx2", 1);
#endif
	assert_null(lora__kern(NULL));
	setenv("LORACTL_CPU", "generic", 1);
	assert_ptr_equal(lora__kern(&err), generic);
	assert_string_equal(lora_cpu_name(), "generic");
	setenv("LORACTL_CPU", "sse9", 1);
	assert_ptr_equal(lora__kern(&err), generic);
	unsetenv("LORACTL_CPU");
}

static void kern__tables_are_found_by_name(void **state)
{
	(void)state;
	assert_ptr_equal(lora__kern_find("generic"), generic);
	assert_null(lora__kern_find("avx"));
	assert_null(lora__kern_find(""));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(kern__widening_gives_the_value_of_every_pattern),
	    cmocka_unit_test(kern__narrowing_rounds_ties_to_even),
	    cmocka_unit_test(kern__narrowing_gives_the_nearest),
	    cmocka_unit_test(kern__the_reference_fma_rounds_once),
	    cmocka_unit_test(kern__lowrank_is_the_exact_chain),
	    cmocka_unit_test(kern__lowrank_of_zero_is_plus_zero),
	    cmocka_unit_test(kern__apply_follows_the_definition),
	    cmocka_unit_test(kern__apply_sums_again_what_f32_cannot_hold),
	    cmocka_unit_test(kern__apply_counts_what_is_not_finite),
	    cmocka_unit_test(kern__apply_adds_neighbouring_lanes),
	    cmocka_unit_test(kern__square8_goes_around),
	    cmocka_unit_test(kern__every_table_is_the_generic_one),
	    cmocka_unit_test(kern__results_do_not_depend_on_the_callers_mode),
	    cmocka_unit_test(kern__the_table_is_chosen_once),
	    cmocka_unit_test(kern__tables_are_found_by_name),
	};

	return cmocka_run_group_tests_name("kern", tests, fill_values, NULL);
}
