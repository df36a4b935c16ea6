/* SPDX-License-Identifier: Apache-2.0 */
/* kern/kern_neon.c - four f32 at a time: AArch64, where this is part of every processor.
 *
 * The update is blocked as in kern_avx512.c, whose essay holds here too: 6 rows by 16 columns keep
 * 24 sums, 4 vectors of R and a broadcast of L in 29 of 32 registers. R is read where it lies.
 *
 * 1. Every element's sum is one chain of fma, k ascending from +0. The last product and addition
 *    are two instructions (-ffp-contract=off).
 * 2. The sixteen lanes of a sum of squares are four vectors.
 * 3. What is left of a vector goes to the generic table, which gives the same bits, or through a
 *    block padded with +0, which adds nothing to a sum or a count.
 * 4. Conversions from and to f16 obey FPCR here (its rounding direction, its alternative format),
 * so they too compute in the default mode.
 */
#include <arm_neon.h>
#include <assert.h>
#include <stdlib.h>

#include "kern/fpmode.h"
#include "kern/kern.h"
#include "kern/span.h"

#define INLINE static inline __attribute__((always_inline))

enum {
	LANES = 4,
	ROWS = 6,
	VECTORS = 4,
	WIDE = LANES * VECTORS,
};

/* --- the update ------------------------------------------------------------------------------ */

/* One panel: all rows of up to 16 columns. */
struct panel {
	float *D;	/* [rows, columns], ldd */
	const float *L; /* [rows, depth], ldl */
	const float *R; /* [depth, columns], ldr */
	size_t ldd, ldl, ldr, rows, depth;
	float s;
	bool first; /* D holds nothing yet */
};

/* The rows from i on, `rows` of them, by `vectors` vectors: both constants where it is used. */
INLINE void block(const struct panel *given, size_t i, const int rows, const int vectors)
{
	const struct panel panel = *given; /* a copy: no store below can change it */
	LORA_UNINITIALIZED float32x4_t c[ROWS][VECTORS], r[VECTORS];
	const float *L = panel.L + i * panel.ldl, *R = panel.R;
	float *D = panel.D + i * panel.ldd;

	for (int a = 0; a < rows; a++)
		for (int v = 0; v < vectors; v++)
			c[a][v] = vdupq_n_f32(0.0f);
	for (size_t k = 0; k < panel.depth; k++, R += panel.ldr) {
		for (int v = 0; v < vectors; v++)
			r[v] = vld1q_f32(R + v * LANES);
		for (int a = 0; a < rows; a++)
			for (int v = 0; v < vectors; v++)
				c[a][v] = vfmaq_n_f32(c[a][v], r[v], L[(size_t)a * panel.ldl + k]);
	}
	for (int a = 0; a < rows; a++, D += panel.ldd) {
		for (int v = 0; v < vectors; v++) {
			float32x4_t d = vmulq_n_f32(c[a][v], panel.s);
			float32x4_t before = vdupq_n_f32(0.0f);

			if (!panel.first)
				before = vld1q_f32(D + v * LANES);
			vst1q_f32(D + v * LANES, vaddq_f32(before, d));
		}
	}
}

/* All rows of a panel. */
INLINE void blocks(const struct panel *panel, const int vectors)
{
	size_t i = 0;

	for (; i + ROWS <= panel->rows; i += ROWS)
		block(panel, i, ROWS, vectors);
	switch (panel->rows - i) {
	case 5:
		block(panel, i, 5, vectors);
		break;
	case 4:
		block(panel, i, 4, vectors);
		break;
	case 3:
		block(panel, i, 3, vectors);
		break;
	case 2:
		block(panel, i, 2, vectors);
		break;
	case 1:
		block(panel, i, 1, vectors);
		break;
	default:
		break;
	}
}

/* Whole vectors only; returns how many columns. */
static LORA_NOINLINE size_t compute_lowrank(const struct panel *whole, size_t cols)
{
	struct panel panel = *whole;
	size_t j = 0;

	for (; j + WIDE <= cols; j += WIDE, panel.D += WIDE, panel.R += WIDE)
		blocks(&panel, VECTORS);
	for (; j + LANES <= cols; j += LANES, panel.D += LANES, panel.R += LANES)
		blocks(&panel, 1);
	return j;
}

static void lowrank(float *D, size_t ldd, const float *L, size_t ldl, const float *R, size_t ldr,
		    const struct lora_lowrank_shape *shape)
{
	uint64_t mode = lora__fpmode_enter();
	struct lora_lowrank_shape rest = *shape;
	struct panel whole = {
	    .D = D,
	    .L = L,
	    .R = R,
	    .ldd = ldd,
	    .ldl = ldl,
	    .ldr = ldr,
	    .rows = shape->rows,
	    .depth = shape->rank,
	    .s = shape->s,
	    .first = shape->first,
	};
	size_t done = compute_lowrank(&whole, shape->cols);

	rest.cols -= done;
	lora__kern_generic.lowrank(D + done, ldd, L, ldl, R + done, ldr, &rest);
	lora__fpmode_leave(mode);
}

/* --- four elements in and out ----------------------------------------------------------------- */

/* As shift_rne(u, 16) in kern_generic.c, and NaNs apart. */
INLINE uint16x4_t narrow4_bf16(float32x4_t x)
{
	uint32x4_t u = vreinterpretq_u32_f32(x);
	uint32x4_t odd = vandq_u32(vshrq_n_u32(u, 16), vdupq_n_u32(1));
	uint32x4_t up = vaddq_u32(vaddq_u32(u, vdupq_n_u32(0x7fff)), odd);
	uint32x4_t quiet = vorrq_u32(u, vdupq_n_u32(0x400000));

	return vshrn_n_u32(vbslq_u32(vceqq_f32(x, x), up, quiet), 16);
}

INLINE float32x4_t widen4(uint16x4_t half, enum lora_dtype type)
{
	if (type == LORA_DTYPE_F16)
		return vcvt_f32_f16(vreinterpret_f16_u16(half));
	return vreinterpretq_f32_u32(vshll_n_u16(half, 16));
}

INLINE float32x4_t load(const void *p, enum lora_dtype type, size_t j)
{
	if (type == LORA_DTYPE_F32)
		return vld1q_f32((const float *)p + j);
	return widen4(vld1_u16((const uint16_t *)p + j), type);
}

/* Stores x rounded to a type and returns what was stored. */
INLINE float32x4_t store(void *p, enum lora_dtype type, size_t j, float32x4_t x)
{
	uint16x4_t half;

	if (type == LORA_DTYPE_F32) {
		vst1q_f32((float *)p + j, x);
		return x;
	}
	half = type == LORA_DTYPE_F16 ? vreinterpret_u16_f16(vcvt_f16_f32(x)) : narrow4_bf16(x);
	vst1_u16((uint16_t *)p + j, half);
	return widen4(half, type);
}

/* out[j] = in[j] from one type to another, whole vectors only; returns how many elements. */
INLINE size_t convert(void *out, enum lora_dtype to, const void *in, enum lora_dtype from, size_t n)
{
	size_t j = 0;

	for (; j + LANES <= n; j += LANES)
		store(out, to, j, load(in, from, j));
	return j;
}

static LORA_NOINLINE size_t convert_from_f16(float *out, const uint16_t *in, size_t n)
{
	return convert(out, LORA_DTYPE_F32, in, LORA_DTYPE_F16, n);
}

static LORA_NOINLINE size_t convert_to_f16(uint16_t *out, const float *in, size_t n)
{
	return convert(out, LORA_DTYPE_F16, in, LORA_DTYPE_F32, n);
}

static void widen_f16(float *out, const uint16_t *in, size_t n)
{
	uint64_t mode = lora__fpmode_enter();
	size_t j = convert_from_f16(out, in, n);

	lora__kern_generic.widen_f16(out + j, in + j, n - j);
	lora__fpmode_leave(mode);
}

static void widen_bf16(float *out, const uint16_t *in, size_t n)
{
	size_t j = convert(out, LORA_DTYPE_F32, in, LORA_DTYPE_BF16, n);

	lora__kern_generic.widen_bf16(out + j, in + j, n - j);
}

static void narrow_f16(uint16_t *out, const float *in, size_t n)
{
	uint64_t mode = lora__fpmode_enter();
	size_t j = convert_to_f16(out, in, n);

	lora__kern_generic.narrow_f16(out + j, in + j, n - j);
	lora__fpmode_leave(mode);
}

static void narrow_bf16(uint16_t *out, const float *in, size_t n)
{
	size_t j = convert(out, LORA_DTYPE_BF16, in, LORA_DTYPE_F32, n);

	lora__kern_generic.narrow_bf16(out + j, in + j, n - j);
}

/* --- W' and the statistics -------------------------------------------------------------------- */

enum { QUARTERS = LORA_STAT_LANES / LANES };

/* Lanes of the sums, four in each of four; counts in any lane. */
struct tally {
	float32x4_t d2[QUARTERS], w2[QUARTERS], e2[QUARTERS];
	uint32x4_t nonzero, unchanged, changed, nonfinite;
};

/* count + 1 where the mask is all ones, which is -1 */
INLINE uint32x4_t count(uint32x4_t counts, uint32x4_t mask)
{
	return vsubq_u32(counts, mask);
}

/* Elements j.. of a span, lanes 4q to 4q + 3 of the sums. */
INLINE void apply4(const struct lora_span *span, size_t j, const int q, struct tally *tally)
{
	const uint32x4_t infinity = vdupq_n_u32(0x7f800000);
	float32x4_t w = load(span->w, span->w_type, j), d = vld1q_f32(span->D + j);
	float32x4_t t = vaddq_f32(w, d);
	float32x4_t written = store(span->out, span->out_type, j, t);
	float32x4_t v = vsubq_f32(t, w);
	float32x4_t err = vaddq_f32(vsubq_f32(w, vsubq_f32(t, v)), vsubq_f32(d, v));
	float32x4_t e = vsubq_f32(vsubq_f32(written, t), err);
	uint32x4_t nonzero = vmvnq_u32(vceqzq_f32(d)), same = vceqq_f32(written, w);
	uint32x4_t size = vandq_u32(vreinterpretq_u32_f32(written), infinity);

	tally->d2[q] = vfmaq_f32(tally->d2[q], d, d);
	tally->w2[q] = vfmaq_f32(tally->w2[q], w, w);
	tally->e2[q] = vfmaq_f32(tally->e2[q], e, e);
	tally->nonzero = count(tally->nonzero, nonzero);
	tally->unchanged = count(tally->unchanged, vandq_u32(nonzero, same));
	tally->changed = count(tally->changed, vmvnq_u32(same));
	tally->nonfinite = count(tally->nonfinite, vceqq_u32(size, infinity));
}

INLINE void apply16(const struct lora_span *span, size_t j, struct tally *tally)
{
	for (int q = 0; q < QUARTERS; q++)
		apply4(span, j + (size_t)q * LANES, q, tally);
}

/* The last n - j < 16 elements of a span, as one block padded with W = D = W' = +0. */
INLINE void apply_rest(const struct lora_span *span, size_t j, struct tally *tally)
{
	size_t out_size = span->out_type == LORA_DTYPE_F32 ? 4 : 2;
	size_t w_size = span->w_type == LORA_DTYPE_F32 ? 4 : 2;
	float out[LORA_STAT_LANES], w[LORA_STAT_LANES] = {0}, D[LORA_STAT_LANES] = {0};
	struct lora_span padded = {out, w, D, LORA_STAT_LANES, span->out_type, span->w_type};
	size_t n = span->n - j;

	memcpy(w, (const char *)span->w + j * w_size, n * w_size);
	memcpy(D, span->D + j, n * sizeof(*D));
	apply16(&padded, 0, tally);
	memcpy((char *)span->out + j * out_size, out, n * out_size);
}

static LORA_NOINLINE void finish(const struct lora_span *span, const struct tally *tally,
				 struct lora_stats *stats)
{
	struct lora_span_found found;

	for (int q = 0; q < QUARTERS; q++) {
		vst1q_f32(found.d2 + q * LANES, tally->d2[q]);
		vst1q_f32(found.w2 + q * LANES, tally->w2[q]);
		vst1q_f32(found.e2 + q * LANES, tally->e2[q]);
	}
	found.nonzero = vaddvq_u32(tally->nonzero);
	found.unchanged = vaddvq_u32(tally->unchanged);
	found.changed = vaddvq_u32(tally->changed);
	found.nonfinite = vaddvq_u32(tally->nonfinite);
	lora__span_finish(span, &found, stats);
}

/* One span; the types are constants where this is used. */
INLINE void apply_types(const struct lora_span *given, enum lora_dtype out_type,
			enum lora_dtype w_type, struct lora_stats *stats)
{
	const struct lora_span span = {given->out, given->w, given->D, given->n, out_type, w_type};
	const float32x4_t none = vdupq_n_f32(0.0f);
	const uint32x4_t zero = vdupq_n_u32(0);
	struct tally tally = {{none, none, none, none},
			      {none, none, none, none},
			      {none, none, none, none},
			      zero,
			      zero,
			      zero,
			      zero};
	size_t j = 0;

	for (; j + LORA_STAT_LANES <= span.n; j += LORA_STAT_LANES)
		apply16(&span, j, &tally);
	if (j < span.n)
		apply_rest(&span, j, &tally);
	finish(given, &tally, stats);
}

#define PAIR(out_type, w_type) ((unsigned)(out_type)*LORA_DTYPE_COUNT + (unsigned)(w_type))
#define APPLY(out_type, w_type)                                                                    \
	case PAIR(out_type, w_type):                                                               \
		apply_types(span, out_type, w_type, stats);                                        \
		break

static LORA_NOINLINE void compute_apply(const struct lora_span *span, struct lora_stats *stats)
{
	switch (PAIR(span->out_type, span->w_type)) {
		APPLY(LORA_DTYPE_F32, LORA_DTYPE_F32);
		APPLY(LORA_DTYPE_F32, LORA_DTYPE_F16);
		APPLY(LORA_DTYPE_F32, LORA_DTYPE_BF16);
		APPLY(LORA_DTYPE_F16, LORA_DTYPE_F32);
		APPLY(LORA_DTYPE_F16, LORA_DTYPE_F16);
		APPLY(LORA_DTYPE_F16, LORA_DTYPE_BF16);
		APPLY(LORA_DTYPE_BF16, LORA_DTYPE_F32);
		APPLY(LORA_DTYPE_BF16, LORA_DTYPE_F16);
		APPLY(LORA_DTYPE_BF16, LORA_DTYPE_BF16);
	default:
		abort();
	}
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

/* --- sums ------------------------------------------------------------------------------------- */

/* Whole vectors only; returns how many elements. */
INLINE size_t sum_type(float *t, const void *w, enum lora_dtype w_type, const float *D, size_t n)
{
	size_t j = 0;

	for (; j + LANES <= n; j += LANES)
		vst1q_f32(t + j, vaddq_f32(load(w, w_type, j), vld1q_f32(D + j)));
	return j;
}

static LORA_NOINLINE void compute_sum(float *t, const void *w, enum lora_dtype w_type,
				      const float *D, size_t n)
{
	size_t j = 0;

	switch (w_type) {
	case LORA_DTYPE_F32:
		j = sum_type(t, w, LORA_DTYPE_F32, D, n);
		break;
	case LORA_DTYPE_F16:
		j = sum_type(t, w, LORA_DTYPE_F16, D, n);
		break;
	case LORA_DTYPE_BF16:
		j = sum_type(t, w, LORA_DTYPE_BF16, D, n);
		break;
	default:
		abort();
	}
	w = (const char *)w + j * (w_type == LORA_DTYPE_F32 ? 4 : 2);
	lora__kern_generic.sum(t + j, w, w_type, D + j, n - j);
}

static void sum(float *t, const void *w, enum lora_dtype w_type, const float *D, size_t n)
{
	uint64_t mode = lora__fpmode_enter();

	compute_sum(t, w, w_type, D, n);
	lora__fpmode_leave(mode);
}

/* Eight elements a step from the first j with (j0 + j) mod 8 = 0 on; the product of two f32 is
 * exact in f64, so that an fma rounds where the sum alone would. */
static LORA_NOINLINE void compute_square8(double p[8], const float *t, size_t n, size_t j0)
{
	size_t head = (8 - j0 % 8) % 8, j = head < n ? head : n;
	float64x2_t sums[4], x;

	lora__kern_generic.square8(p, t, j, j0);
	for (int q = 0; q < 4; q++)
		sums[q] = vld1q_f64(p + 2 * q);
	for (; j + 8 <= n; j += 8) {
		for (int q = 0; q < 4; q++) {
			x = vcvt_f64_f32(vld1_f32(t + j + 2 * q));
			sums[q] = vfmaq_f64(sums[q], x, x);
		}
	}
	for (int q = 0; q < 4; q++)
		vst1q_f64(p + 2 * q, sums[q]);
	lora__kern_generic.square8(p, t + j, n - j, j0 + j);
}

static void square8(double p[8], const float *t, size_t n, size_t j0)
{
	uint64_t mode = lora__fpmode_enter();

	compute_square8(p, t, n, j0);
	lora__fpmode_leave(mode);
}

const struct lora_kern lora__kern_neon = {
    .isa = "neon",
    .widen_f16 = widen_f16,
    .widen_bf16 = widen_bf16,
    .narrow_f16 = narrow_f16,
    .narrow_bf16 = narrow_bf16,
    .lowrank = lowrank,
    .apply = apply,
    .sum = sum,
    .square8 = square8,
};
