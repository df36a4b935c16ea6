/* SPDX-License-Identifier: Apache-2.0 */
/* tests/unit/kern_compare.h - is a table of kernels the generic one, bit for bit?
 *
 * Every slot is run beside the generic table's on the same input, and the whole output arrays are
 * compared: the elements, and what lies between and around them, which no kernel may touch.
 *
 * 1. Every array ends where an unreadable page begins, so that reading or writing one element too
 *    many ends the process. Since sizes differ, so do the alignments of the beginnings.
 * 2. Inputs are drawn from kinds that break wrong kernels in different ways (enum kind); the sizes
 *    are those around the vector and block sizes of all tables.
 * 3. Two results agree if their bits do, or if both are NaN (kern/kern.h, 1).
 *
 * Used by test_kern.c and, with other processors' compilers, by tests/lint/neon_compare.c: no test
 * framework here.
 */
#ifndef TESTS_UNIT_KERN_COMPARE_H
#define TESTS_UNIT_KERN_COMPARE_H

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "guarded.h"
#include "kern/kern.h"

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

/* --- inputs ----------------------------------------------------------------------------------- */

/* A linear congruential generator (Knuth's MMIX constants); its upper bits are good enough. */
static uint32_t draw(uint64_t *seed)
{
	*seed = *seed * 6364136223846793005u + 1442695040888963407u;
	return (uint32_t)(*seed >> 32);
}

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

enum kind {
	KIND_WEIGHTS, /* about as large as weights are: sums round, nothing overflows */
	KIND_GRID,    /* small integers over 64: sums are exact, ties and cancellation to zero */
	KIND_TINY,    /* around the smallest normal numbers: results are subnormal */
	KIND_ANY,     /* from the smallest to 2^60: products and their sums are finite */
	KIND_SPECIAL, /* zeros, subnormals, extremes, infinities and NaNs among weights */
	KIND_ZERO,    /* +0 and -0 only */
	KINDS
};

static float draw_float(enum kind kind, uint64_t *seed)
{
	static const uint32_t special[] = {
	    0x00000000, 0x80000000, 0x00000001, 0x80000001, 0x007fffff, 0x00800000, 0x7f7fffff,
	    0xff7fffff, 0x7f800000, 0xff800000, 0x7fc12345, 0xffc00001, 0x7f800001, 0x3f800000,
	};
	uint32_t u = draw(seed), sign = u & 0x80000000, m = u & 0x7fffff, which = draw(seed);

	switch (kind) {
	case KIND_WEIGHTS:
		return float_of(sign | (112 + which % 16) << 23 | m);
	case KIND_GRID:
		return (float)((int)(u % 129) - 64) / 64.0f;
	case KIND_TINY:
		return float_of(sign | (which % 70) << 23 | m);
	case KIND_ANY:
		return float_of(sign | (which % 187) << 23 | m);
	case KIND_SPECIAL:
		if (which % 4 == 0)
			return float_of(special[u % COUNT(special)]);
		return float_of(sign | (112 + which % 16) << 23 | m);
	default:
		return float_of(sign);
	}
}

static void fill(float *p, size_t n, enum kind kind, uint64_t seed)
{
	for (size_t j = 0; j < n; j++)
		p[j] = draw_float(kind, &seed);
}

static size_t dtype_size(enum lora_dtype type)
{
	return type == LORA_DTYPE_F32 ? 4 : 2;
}

/* n stored weights, made by the generic table's narrowing; which bits exactly does not matter. */
static void fill_stored(void *p, enum lora_dtype type, size_t n, enum kind kind, uint64_t seed)
{
	for (size_t j = 0; j < n; j++) {
		float x = draw_float(kind, &seed);

		if (type == LORA_DTYPE_F32)
			memcpy((float *)p + j, &x, sizeof(x));
		else if (type == LORA_DTYPE_F16)
			lora__kern_generic.narrow_f16((uint16_t *)p + j, &x, 1);
		else
			lora__kern_generic.narrow_bf16((uint16_t *)p + j, &x, 1);
	}
}

/* --- comparing -------------------------------------------------------------------------------- */

static const size_t compare_sizes[] = {0, 1, 7, 8, 9, 15, 16, 17, 31, 33, 63, 64, 65, 1000};

static bool agree(float x, float y)
{
	return bits_of(x) == bits_of(y) || (isnan(x) && isnan(y));
}

static bool agree_f64(double x, double y)
{
	return memcmp(&x, &y, sizeof(x)) == 0 || (isnan(x) && isnan(y));
}

/* Elements that differ; says where the first one is. */
static size_t differences(const char *what, const float *got, const float *want, size_t n)
{
	size_t bad = 0;

	for (size_t j = 0; j < n; j++) {
		if (agree(got[j], want[j]))
			continue;
		if (bad++ == 0)
			fprintf(stderr, "%s: element %zu is %a, not %a\n", what, j, (double)got[j],
				(double)want[j]);
	}
	return bad;
}

static size_t differences_u16(const char *what, const uint16_t *got, const uint16_t *want, size_t n)
{
	size_t bad = 0;

	for (size_t j = 0; j < n; j++)
		if (got[j] != want[j] && bad++ == 0)
			fprintf(stderr, "%s: element %zu is 0x%04x, not 0x%04x\n", what, j, got[j],
				want[j]);
	return bad;
}

struct lowrank_case {
	size_t rows, cols, rank, gap; /* gap: of the leading dimensions over the widths */
	enum kind kind;
	bool first;
};

/* The arrays of all comparisons, large enough for the largest. */
struct arena {
	struct guarded D, want, L, R;
};

static struct arena arena_new(void)
{
	struct arena a;

	a.D = guarded_new((size_t)8 << 20);
	a.want = guarded_new((size_t)8 << 20);
	a.L = guarded_new((size_t)1 << 20);
	a.R = guarded_new((size_t)1 << 20);
	return a;
}

static void arena_free(struct arena *a)
{
	guarded_free(&a->D);
	guarded_free(&a->want);
	guarded_free(&a->L);
	guarded_free(&a->R);
}

/* Elements of a matrix whose rows are `ld` apart, the last row ending with its last column. */
static size_t extent(size_t rows, size_t cols, size_t ld)
{
	return rows == 0 || cols == 0 ? 0 : (rows - 1) * ld + cols;
}

static size_t compare_lowrank(const struct lora_kern *kern, const struct arena *a,
			      const struct lowrank_case *c)
{
	static const float scales[] = {2.0f, 0.3f, -1.7f, 0.0f, 0x1p-40f};
	size_t ldd = c->cols + c->gap, ldl = c->rank + c->gap / 2, ldr = c->cols + 2 * c->gap;
	size_t nd = extent(c->rows, c->cols, ldd), nl = extent(c->rows, c->rank, ldl);
	size_t nr = extent(c->rank, c->cols, ldr), seed = c->rows + 31 * c->cols + 997 * c->rank;
	struct lora_lowrank_shape shape = {c->rows, c->cols, c->rank, scales[seed % COUNT(scales)],
					   c->first};
	float *D = guarded_last(&a->D, nd, 4), *want = guarded_last(&a->want, nd, 4);
	float *L = guarded_last(&a->L, nl, 4), *R = guarded_last(&a->R, nr, 4);
	char what[160];

	snprintf(what, sizeof(what), "%s lowrank %zux%zu r=%zu gap=%zu kind=%d first=%d", kern->isa,
		 c->rows, c->cols, c->rank, c->gap, (int)c->kind, c->first);
	fill(D, nd, c->kind, seed);
	fill(L, nl, c->kind, seed + 1);
	fill(R, nr, c->kind, seed + 2);
	memcpy(want, D, nd * sizeof(*D));
	kern->lowrank(D, ldd, L, ldl, R, ldr, &shape);
	lora__kern_generic.lowrank(want, ldd, L, ldl, R, ldr, &shape);
	return differences(what, D, want, nd);
}

/* All sizes by all ranks; the other properties take turns. */
static size_t compare_lowrank_all(const struct lora_kern *kern, const struct arena *a)
{
	static const size_t ranks[] = {0, 1, 2, 3, 15, 16, 17, 64, 100};
	/* Ranks above the depth of a part, rows around its band (kern_avx512.c, 3). */
	static const struct lowrank_case deep[] = {
	    {97, 70, 128, 3, KIND_WEIGHTS, true},   {97, 70, 129, 3, KIND_WEIGHTS, false},
	    {200, 65, 257, 0, KIND_WEIGHTS, true},  {95, 15, 300, 1, KIND_WEIGHTS, false},
	    {1, 130, 512, 0, KIND_WEIGHTS, true},   {33, 1, 513, 2, KIND_WEIGHTS, false},
	    {193, 17, 385, 5, KIND_SPECIAL, false}, {96, 64, 256, 0, KIND_TINY, true},
	};
	size_t bad = 0, turn = 0;

	for (size_t i = 0; i < COUNT(compare_sizes); i++) {
		for (size_t j = 0; j < COUNT(compare_sizes); j++) {
			for (size_t k = 0; k < COUNT(ranks); k++, turn++) {
				struct lowrank_case c = {compare_sizes[i],
							 compare_sizes[j],
							 ranks[k],
							 turn % 5,
							 (enum kind)(turn % KINDS),
							 turn / KINDS % 2 == 0};

				if (c.rows * c.cols > 100000 && c.rank > 3)
					continue; /* the generic table would take seconds */
				bad += compare_lowrank(kern, a, &c);
			}
		}
	}
	for (size_t i = 0; i < COUNT(deep); i++)
		bad += compare_lowrank(kern, a, &deep[i]);
	return bad;
}

static size_t compare_stats(const char *what, const struct lora_stats *got,
			    const struct lora_stats *want)
{
	if (agree_f64(got->d2, want->d2) && agree_f64(got->w2, want->w2) &&
	    agree_f64(got->e2, want->e2) && got->nonzero == want->nonzero &&
	    got->unchanged == want->unchanged && got->changed == want->changed &&
	    got->nonfinite == want->nonfinite)
		return 0;
	fprintf(stderr,
		"%s: statistics differ: d2 %a %a, w2 %a %a, e2 %a %a, nonzero %ju %ju, "
		"unchanged %ju %ju, changed %ju %ju, nonfinite %ju %ju\n",
		what, got->d2, want->d2, got->w2, want->w2, got->e2, want->e2,
		(uintmax_t)got->nonzero, (uintmax_t)want->nonzero, (uintmax_t)got->unchanged,
		(uintmax_t)want->unchanged, (uintmax_t)got->changed, (uintmax_t)want->changed,
		(uintmax_t)got->nonfinite, (uintmax_t)want->nonfinite);
	return 1;
}

struct apply_case {
	enum lora_dtype out, w;
	size_t n;
	enum kind kind_w, kind_D;
	bool in_place;
};

/* Stored elements that differ, two NaNs being equal. */
static size_t compare_stored(const char *what, enum lora_dtype type, const void *got,
			     const void *want, size_t n)
{
	float x[2];
	size_t bad = 0;

	if (type == LORA_DTYPE_F32)
		return differences(what, got, want, n);
	for (size_t j = 0; j < n; j++) {
		const uint16_t *g = (const uint16_t *)got + j, *w = (const uint16_t *)want + j;

		if (*g == *w)
			continue;
		if (type == LORA_DTYPE_F16) {
			lora__kern_generic.widen_f16(&x[0], g, 1);
			lora__kern_generic.widen_f16(&x[1], w, 1);
		} else {
			lora__kern_generic.widen_bf16(&x[0], g, 1);
			lora__kern_generic.widen_bf16(&x[1], w, 1);
		}
		bad += differences(what, &x[0], &x[1], 1);
	}
	return bad;
}

static size_t compare_apply(const struct lora_kern *kern, const struct arena *a,
			    const struct apply_case *c)
{
	void *out = guarded_last(&a->D, c->n, dtype_size(c->out));
	void *want = guarded_last(&a->want, c->n, dtype_size(c->out));
	void *w = guarded_last(&a->L, c->n, dtype_size(c->w));
	float *D = guarded_last(&a->R, c->n, 4);
	struct lora_stats got_stats = {1.0, 2.0, 3.0, 4, 5, 6, 7}, want_stats = got_stats;
	char what[160];

	snprintf(what, sizeof(what), "%s apply %d -> %d n=%zu kinds %d %d%s", kern->isa, (int)c->w,
		 (int)c->out, c->n, (int)c->kind_w, (int)c->kind_D, c->in_place ? " in place" : "");
	fill_stored(w, c->w, c->n, c->kind_w, c->n);
	fill(D, c->n, c->kind_D, c->n + 7);
	lora__kern_generic.apply(want, c->out, w, c->w, D, c->n, &want_stats);
	if (c->in_place)
		memcpy(out, w, c->n * dtype_size(c->w));
	kern->apply(out, c->out, c->in_place ? out : w, c->w, D, c->n, &got_stats);
	return compare_stored(what, c->out, out, want, c->n) +
	       compare_stats(what, &got_stats, &want_stats);
}

static size_t compare_sum(const struct lora_kern *kern, const struct arena *a,
			  const struct apply_case *c)
{
	float *t = guarded_last(&a->D, c->n, 4), *want = guarded_last(&a->want, c->n, 4);
	void *w = guarded_last(&a->L, c->n, dtype_size(c->w));
	float *D = guarded_last(&a->R, c->n, 4);
	char what[160];

	snprintf(what, sizeof(what), "%s sum of %d n=%zu", kern->isa, (int)c->w, c->n);
	fill_stored(w, c->w, c->n, c->kind_w, c->n);
	fill(D, c->n, c->kind_D, c->n + 7);
	lora__kern_generic.sum(want, w, c->w, D, c->n);
	if (c->in_place)
		memcpy(t, D, c->n * sizeof(*D));
	kern->sum(t, w, c->w, c->in_place ? t : D, c->n);
	return differences(what, t, want, c->n);
}

static size_t compare_apply_all(const struct lora_kern *kern, const struct arena *a)
{
	static const enum lora_dtype types[] = {LORA_DTYPE_F32, LORA_DTYPE_F16, LORA_DTYPE_BF16};
	static const size_t sizes[] = {
	    0, 1, 7, 8, 9, 15, 16, 17, 24, 31, 33, 63, 64, 65, 1000, 4095, LORA_STAT_SPAN};
	size_t bad = 0;

	for (size_t i = 0; i < 9 * COUNT(sizes) * KINDS * KINDS; i++) {
		struct apply_case c = {types[i % 3],
				       types[i / 3 % 3],
				       sizes[i / 9 % COUNT(sizes)],
				       (enum kind)(i / 9 / COUNT(sizes) % KINDS),
				       (enum kind)(i / 9 / COUNT(sizes) / KINDS),
				       false};

		bad += compare_apply(kern, a, &c) + compare_sum(kern, a, &c);
		c.in_place = dtype_size(c.out) == dtype_size(c.w);
		if (c.in_place)
			bad += compare_apply(kern, a, &c) + compare_sum(kern, a, &c);
	}
	return bad;
}

static size_t compare_square8(const struct lora_kern *kern, const struct arena *a, size_t n,
			      size_t j0, enum kind kind)
{
	float *t = guarded_last(&a->R, n, 4);
	double got[8] = {-0.0, 1, 2, 3, -0.0, 5, 6, 7}, want[8] = {-0.0, 1, 2, 3, -0.0, 5, 6, 7};

	fill(t, n, kind, n + j0);
	kern->square8(got, t, n, j0);
	lora__kern_generic.square8(want, t, n, j0);
	for (size_t l = 0; l < 8; l++) {
		if (agree_f64(got[l], want[l]))
			continue;
		fprintf(stderr, "%s square8 n=%zu j0=%zu kind=%d: lane %zu is %a, not %a\n",
			kern->isa, n, j0, (int)kind, l, got[l], want[l]);
		return 1;
	}
	return 0;
}

static size_t compare_square8_all(const struct lora_kern *kern, const struct arena *a)
{
	size_t bad = 0;

	for (size_t i = 0; i < COUNT(compare_sizes); i++)
		for (size_t j0 = 0; j0 < 9; j0++)
			for (int kind = 0; kind < KINDS; kind++)
				bad +=
				    compare_square8(kern, a, compare_sizes[i], j0, (enum kind)kind);
	return bad;
}

/* Every 16-bit pattern, in runs of `n`. */
static size_t compare_widening(const struct lora_kern *kern, const struct arena *a, size_t n)
{
	float *got = guarded_last(&a->D, n, 4), *want = guarded_last(&a->want, n, 4);
	uint16_t *in = guarded_last(&a->R, n, 2);
	size_t bad = 0;

	for (uint32_t u = 0; u < 65536; u += (uint32_t)n) {
		for (size_t j = 0; j < n; j++)
			in[j] = (uint16_t)(u + j);
		kern->widen_f16(got, in, n);
		lora__kern_generic.widen_f16(want, in, n);
		bad += memcmp(got, want, n * 4) != 0;
		kern->widen_bf16(got, in, n);
		lora__kern_generic.widen_bf16(want, in, n);
		bad += memcmp(got, want, n * 4) != 0;
	}
	if (bad > 0)
		fprintf(stderr, "%s: %zu runs of %zu are widened differently\n", kern->isa, bad, n);
	return bad;
}

/* f32 patterns `stride` apart, NaNs among them: their bits, too, must be equal here. */
static size_t compare_narrowing(const struct lora_kern *kern, const struct arena *a, size_t n,
				uint32_t stride)
{
	uint16_t *got = guarded_last(&a->D, n, 2), *want = guarded_last(&a->want, n, 2);
	float *in = guarded_last(&a->R, n, 4);
	uint32_t u = 0;
	size_t bad = 0;

	for (uint64_t done = 0; done < ((uint64_t)1 << 32) / stride; done += n) {
		for (size_t j = 0; j < n; j++, u += stride)
			memcpy(&in[j], &u, sizeof(u));
		kern->narrow_f16(got, in, n);
		lora__kern_generic.narrow_f16(want, in, n);
		bad += differences_u16("narrow_f16", got, want, n);
		kern->narrow_bf16(got, in, n);
		lora__kern_generic.narrow_bf16(want, in, n);
		bad += differences_u16("narrow_bf16", got, want, n);
	}
	return bad;
}

static size_t compare_conversions(const struct lora_kern *kern, const struct arena *a)
{
	size_t bad = compare_narrowing(kern, a, 1000, 1021);

	for (size_t i = 1; i < COUNT(compare_sizes); i++) {
		bad += compare_widening(kern, a, compare_sizes[i]);
		bad += compare_narrowing(kern, a, compare_sizes[i], 65521);
	}
	return bad;
}

#endif
