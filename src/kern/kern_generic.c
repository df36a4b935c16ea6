/* SPDX-License-Identifier: Apache-2.0 */
/* kern/kern_generic.c - the definition of right.
 *
 * Every loop here is the sentence of the rounding contract that it implements, and nothing cleverer
 * (kern/kern.h gives the sentences). The other tables are fast and are compared with this one bit
 * by bit; `verify` recomputes merges with it. It is slow where the compiler may not assume a
 * fused multiply-add in hardware, for fmaf() is then a call into libm: correct, some nanoseconds
 * each.
 *
 * The formats, as (sign, exponent, significand) bits with the exponent's bias:
 *
 *	f32   1  8 23  bias 127		f16   1  5 10  bias 15		bf16   1  8  7  bias 127
 *
 * so that bf16 is the upper half of an f32, and f16 holds m * 2^-24 for an exponent of 0.
 *
 * Conversions are done on integers, where what happens to ties, subnormals and NaNs can be read.
 * Rounding to nearest, ties to even, by an addition: for u = q * 2^s + rest the quotient of
 * u + (2^(s-1) - 1) + (q & 1) by 2^s is q + 1 exactly if rest > 2^(s-1), or rest = 2^(s-1) and q is
 * odd. A carry out of the significand steps the exponent, which is what rounding up to the next
 * power of two means, up to and including infinity.
 */
#include <assert.h>
#include <float.h>
#include <math.h>
#include <stdlib.h>

#include "kern/fpmode.h"
#include "kern/kern.h"
#include "kern/span.h"

/* Each operation has to round to its own type: with x87 arithmetic, or with -ffast-math, there is
 * no contract to keep. */
_Static_assert(FLT_EVAL_METHOD == 0, "loractl needs arithmetic that rounds to float");
#if defined(__FAST_MATH__)
#error "loractl cannot be compiled with -ffast-math"
#endif

static uint32_t bits_of(float x)
{
	uint32_t u;

	memcpy(&u, &x, sizeof(u));
	return u;
}

static float float_of(uint32_t u)
{
	float x;

	memcpy(&x, &u, sizeof(x));
	return x;
}

/* Rounds u / 2^shift to nearest even; 1 <= shift <= 24, and the additions do not carry out of u. */
static uint32_t shift_rne(uint32_t u, unsigned shift)
{
	return (u + ((1u << (shift - 1)) - 1) + ((u >> shift) & 1)) >> shift;
}

static float widen_f16_one(uint16_t h)
{
	uint32_t sign = (uint32_t)(h & 0x8000) << 16;
	uint32_t exponent = (h >> 10) & 0x1f;
	uint32_t m = h & 0x3ff;

	if (exponent == 0x1f)
		return float_of(sign | 0x7f800000 | m << 13 | (m != 0 ? 0x400000 : 0));
	if (exponent == 0 && m == 0)
		return float_of(sign);
	if (exponent == 0) { /* m * 2^-24: shift until the hidden bit appears */
		exponent = 1;
		for (; !(m & 0x400); m <<= 1)
			exponent--;
		m &= 0x3ff;
	}
	return float_of(sign | (exponent + (127 - 15)) << 23 | m << 13);
}

static uint16_t narrow_f16_one(float x)
{
	uint32_t sign = bits_of(x) >> 16 & 0x8000;
	uint32_t u = bits_of(x) & 0x7fffffff;
	uint32_t h;

	if (u > 0x7f800000) /* NaN */
		h = 0x7e00 | (u >> 13 & 0x3ff);
	else if (u >= 0x47800000) /* 2^16 and above; below it rounding finds infinity itself */
		h = 0x7c00;
	else if (u >= 0x38800000) /* 2^-14: normal in f16 */
		h = shift_rne(u - ((127 - 15) << 23), 13);
	else if (u >= 0x33000000) /* 2^-25, half of the smallest: m * 2^(exponent - 150) in 2^-24 */
		h = shift_rne((u & 0x7fffff) | 0x800000, 126 - (u >> 23));
	else
		h = 0;
	return (uint16_t)(sign | h);
}

static float widen_bf16_one(uint16_t h)
{
	return float_of((uint32_t)h << 16);
}

static uint16_t narrow_bf16_one(float x)
{
	uint32_t u = bits_of(x);

	if ((u & 0x7fffffff) > 0x7f800000) /* NaN: quiet, so that it does not become infinity */
		return (uint16_t)(u >> 16 | 0x40);
	return (uint16_t)shift_rne(u, 16);
}

static void widen_f16(float *out, const uint16_t *in, size_t n)
{
	for (size_t j = 0; j < n; j++)
		out[j] = widen_f16_one(in[j]);
}

static void widen_bf16(float *out, const uint16_t *in, size_t n)
{
	for (size_t j = 0; j < n; j++)
		out[j] = widen_bf16_one(in[j]);
}

static void narrow_f16(uint16_t *out, const float *in, size_t n)
{
	for (size_t j = 0; j < n; j++)
		out[j] = narrow_f16_one(in[j]);
}

static void narrow_bf16(uint16_t *out, const float *in, size_t n)
{
	for (size_t j = 0; j < n; j++)
		out[j] = narrow_bf16_one(in[j]);
}

/* Element j of an array of the given type, as f32. A type that is none of the three is a bug of
 * ours, and going on would write wrong weights. */
static float get(const void *p, enum lora_dtype type, size_t j)
{
	switch (type) {
	case LORA_DTYPE_F32:
		return ((const float *)p)[j];
	case LORA_DTYPE_F16:
		return widen_f16_one(((const uint16_t *)p)[j]);
	case LORA_DTYPE_BF16:
		return widen_bf16_one(((const uint16_t *)p)[j]);
	default:
		abort();
	}
}

static void put(void *p, enum lora_dtype type, size_t j, float x)
{
	switch (type) {
	case LORA_DTYPE_F32:
		((float *)p)[j] = x;
		break;
	case LORA_DTYPE_F16:
		((uint16_t *)p)[j] = narrow_f16_one(x);
		break;
	case LORA_DTYPE_BF16:
		((uint16_t *)p)[j] = narrow_bf16_one(x);
		break;
	default:
		abort();
	}
}

/* D [rows, cols] (+)= s * L [rows, rank] R [rank, cols] */
static LORA_NOINLINE void compute_lowrank(float *D, size_t ldd, const float *L, size_t ldl,
					  const float *R, size_t ldr,
					  const struct lora_lowrank_shape *shape)
{
	for (size_t i = 0; i < shape->rows; i++) {
		for (size_t j = 0; j < shape->cols; j++) {
			float c = 0.0f, before = shape->first ? 0.0f : D[i * ldd + j];

			for (size_t k = 0; k < shape->rank; k++)
				c = fmaf(L[i * ldl + k], R[k * ldr + j], c);
			float d = shape->s * c;

			D[i * ldd + j] = before + d;
		}
	}
}

static void lowrank(float *D, size_t ldd, const float *L, size_t ldl, const float *R, size_t ldr,
		    const struct lora_lowrank_shape *shape)
{
	uint64_t mode = lora__fpmode_enter();

	compute_lowrank(D, ldd, L, ldl, R, ldr, shape);
	lora__fpmode_leave(mode);
}

/* What rounding did to one element: W' - (W + D), as struct lora_stats says. */
static float residue(float w, float d, float written)
{
	float t = w + d, v = t - w;
	float err = (w - (t - v)) + (d - v);

	return (written - t) - err;
}

static LORA_NOINLINE void compute_apply(const struct lora_span *span, struct lora_stats *stats)
{
	struct lora_span_found found = {0};

	for (size_t j = 0; j < span->n; j++) {
		size_t lane = j % LORA_STAT_LANES;
		float w = get(span->w, span->w_type, j), d = span->D[j], written, e;

		put(span->out, span->out_type, j, w + d);
		written = get(span->out, span->out_type, j);
		e = residue(w, d, written);
		found.d2[lane] = fmaf(d, d, found.d2[lane]);
		found.w2[lane] = fmaf(w, w, found.w2[lane]);
		found.e2[lane] = fmaf(e, e, found.e2[lane]);
		found.nonzero += d != 0.0f;
		found.unchanged += d != 0.0f && written == w;
		found.changed += written != w;
		found.nonfinite += isfinite(written) ? 0 : 1;
	}
	lora__span_finish(span, &found, stats);
}

static void apply(void *out, enum lora_dtype out_type, const void *w, enum lora_dtype w_type,
		  const float *D, size_t n, struct lora_stats *stats)
{
	LORA_UNINITIALIZED _Alignas(64) unsigned char scratch[LORA_SPAN_BYTES];
	uint64_t mode = lora__fpmode_enter();
	struct lora_span span = {out, NULL, D, n, out_type, w_type};

	assert(n <= LORA_STAT_SPAN);
	span.w = lora__span_keep(scratch, out, w, w_type, n);
	compute_apply(&span, stats);
	lora__fpmode_leave(mode);
}

/* Adds neighbours until one is left. */
static double pairs(const double q[LORA_STAT_LANES])
{
	double sum[LORA_STAT_LANES];

	memcpy(sum, q, sizeof(sum));
	for (size_t n = LORA_STAT_LANES / 2; n > 0; n /= 2)
		for (size_t l = 0; l < n; l++)
			sum[l] = sum[2 * l] + sum[2 * l + 1];
	return sum[0];
}

/* The sum from its f32 lanes; false if it has to be taken again. */
static bool sum_lanes(const float q[LORA_STAT_LANES], double *sum)
{
	double wide[LORA_STAT_LANES];
	bool finite = true;

	for (size_t l = 0; l < LORA_STAT_LANES; l++) {
		wide[l] = q[l];
		finite = finite && isfinite(q[l]);
	}
	*sum = pairs(wide);
	return finite && *sum >= 0x1p-100;
}

enum term { TERM_D, TERM_W, TERM_E };

/* The sum of one term's squares over the span, in f64. */
static double sum_again(const struct lora_span *span, enum term term)
{
	double q[LORA_STAT_LANES] = {0};

	for (size_t j = 0; j < span->n; j++) {
		float x = span->D[j];

		if (term != TERM_D)
			x = get(span->w, span->w_type, j);
		if (term == TERM_E)
			x = residue(x, span->D[j], get(span->out, span->out_type, j));
		q[j % LORA_STAT_LANES] += (double)x * (double)x;
	}
	return pairs(q);
}

/* Where D is zero everywhere the two sums that vanish with it need no second look: they are +0.
 * That is common (an adapter of some rows of a fused matrix), a second summation is slow. */
void lora__span_finish(const struct lora_span *span, const struct lora_span_found *found,
		       struct lora_stats *stats)
{
	bool still = found->nonzero == 0, exact = still && span->out_type == span->w_type;
	double sum;

	if (!sum_lanes(found->d2, &sum) && !still)
		sum = sum_again(span, TERM_D);
	stats->d2 += sum;
	if (!sum_lanes(found->w2, &sum))
		sum = sum_again(span, TERM_W);
	stats->w2 += sum;
	if (!sum_lanes(found->e2, &sum) && !(exact && sum == 0))
		sum = sum_again(span, TERM_E);
	stats->e2 += sum;
	stats->nonzero += found->nonzero;
	stats->unchanged += found->unchanged;
	stats->changed += found->changed;
	stats->nonfinite += found->nonfinite;
}

static LORA_NOINLINE void compute_sum(float *t, const void *w, enum lora_dtype w_type,
				      const float *D, size_t n)
{
	for (size_t j = 0; j < n; j++)
		t[j] = get(w, w_type, j) + D[j];
}

static void sum(float *t, const void *w, enum lora_dtype w_type, const float *D, size_t n)
{
	uint64_t mode = lora__fpmode_enter();

	compute_sum(t, w, w_type, D, n);
	lora__fpmode_leave(mode);
}

static LORA_NOINLINE void compute_square8(double p[8], const float *t, size_t n, size_t j0)
{
	for (size_t j = 0; j < n; j++)
		p[(j0 + j) % 8] += (double)t[j] * (double)t[j];
}

static void square8(double p[8], const float *t, size_t n, size_t j0)
{
	uint64_t mode = lora__fpmode_enter();

	compute_square8(p, t, n, j0);
	lora__fpmode_leave(mode);
}

const struct lora_kern lora__kern_generic = {
    .isa = "generic",
    .widen_f16 = widen_f16,
    .widen_bf16 = widen_bf16,
    .narrow_f16 = narrow_f16,
    .narrow_bf16 = narrow_bf16,
    .lowrank = lowrank,
    .apply = apply,
    .sum = sum,
    .square8 = square8,
};
