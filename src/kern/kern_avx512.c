/* SPDX-License-Identifier: Apache-2.0 */
/* kern/kern_avx512.c - sixteen f32 at a time: AVX-512 F, BW, VL and DQ.
 *
 * The update, D += s*L*R with rank r small and fixed, does 2r operations per element of D:
 *
 *	          64 columns			Each block of 6 x 64 elements keeps its 24 sums in
 *	     +-------------------+		registers while k runs over the whole rank: one
 *	  R  | r rows, repacked  |		load of 4 vectors of R, 6 broadcasts from L and 24
 *	     +-------------------+		fma a step, so that the multipliers are the limit
 *	L    +-------------------+		(24 sums + 4 of R + 1 of L = 29 of 32 registers).
 *	6 x  | D: 6 rows at once |
 *	r    |     ...           |
 *
 * 1. Every element's sum is one chain of fma, k ascending from +0, as the contract has it;
 *    the blocks only say which chains run side by side. The last product and addition are two
 *    instructions (-ffp-contract=off).
 * 2. A panel of R, r x 64, is copied once and used for all rows. As it lies in memory its rows
 *    are often a large power of two apart and fight for the same few lines of the cache.
 * 3. A panel deeper than DEEP would leave the first cache. It is then taken in parts, for BAND rows
 *    at a time, with the unfinished sums kept as f32 in between: which loses nothing, since
 *    they were f32 in the register.
 * 4. What is left of 64 columns goes one vector at a time, the last one under a mask; what is left
 *    of 6 rows has its own block sizes. Lanes outside the mask are neither read nor written.
 *
 * vcvtneps2bf16 is not used: it flushes subnormals. vcvtps2ph and vcvtph2ps never do.
 */
#include <assert.h>
#include <immintrin.h>
#include <stdlib.h>

#include "kern/fpmode.h"
#include "kern/kern.h"
#include "kern/span.h"

#define INLINE static inline __attribute__((always_inline))

/* Hides where a vector comes from: clang 14 compares two vectors that were widened from f16 as f16,
 * element by element, since it sees that the result is the same. */
#define OPAQUE(x) __asm__("" : "+v"(x))

#define ALL ((__mmask16)0xffff)

enum {
	LANES = 16,
	ROWS = 6,
	VECTORS = 4,
	WIDE = LANES * VECTORS,
	DEEP = 128,	/* steps of one part: 128 * 64 * 4 bytes = 32 KiB, the first cache */
	BAND = 96,	/* rows of one part: their sums take 24 KiB of stack */
	PACK_FROM = 32, /* rows from which copying a panel costs less than it saves */
};

/* The mask of the first n lanes, all of them if n >= 16. */
INLINE __mmask16 first_lanes(size_t n)
{
	return (__mmask16)(n >= LANES ? ALL : (1u << n) - 1);
}

/* --- the update ------------------------------------------------------------------------------ */

/* One part of one panel: `depth` steps for `rows` rows and up to 64 columns. */
struct part {
	float *D;	/* [rows, columns], ldd */
	const float *L; /* [rows, depth], ldl */
	const float *R; /* [depth, columns], ldr */
	float *C;	/* [rows, WIDE] unfinished sums */
	size_t ldd, ldl, ldr, rows, depth;
	float s;
	bool first;	/* D holds nothing yet */
	bool resume;	/* sums begin in C, not at +0 */
	bool suspend;	/* sums end in C, not in D */
	__mmask16 mask; /* lanes of the last vector; only used in panels of one */
};

/* The rows from i on, `rows` of them, by `vectors` vectors: both constants where it is used. */
INLINE void block(const struct part *given, size_t i, const int rows, const int vectors)
{
	const struct part part = *given; /* a copy: no store below can change it */
	const __mmask16 mask = vectors == VECTORS ? ALL : part.mask;
	LORA_UNINITIALIZED const float *L[ROWS];
	const float *R = part.R;
	float *D = part.D + i * part.ldd, *C = part.C + i * WIDE;
	LORA_UNINITIALIZED __m512 c[ROWS][VECTORS], r[VECTORS];

	for (int a = 0; a < rows; a++) {
		L[a] = part.L + (i + (size_t)a) * part.ldl;
		for (int v = 0; v < vectors; v++)
			c[a][v] = part.resume ? _mm512_loadu_ps(C + a * WIDE + v * LANES)
					      : _mm512_setzero_ps();
	}
	for (size_t k = 0; k < part.depth; k++, R += part.ldr) {
		for (int v = 0; v < vectors; v++)
			r[v] = _mm512_maskz_loadu_ps(mask, R + v * LANES);
		for (int a = 0; a < rows; a++) {
			__m512 l = _mm512_set1_ps(L[a][k]);

			for (int v = 0; v < vectors; v++)
				c[a][v] = _mm512_fmadd_ps(l, r[v], c[a][v]);
		}
	}
	if (part.suspend) {
		for (int a = 0; a < rows; a++)
			for (int v = 0; v < vectors; v++)
				_mm512_storeu_ps(C + a * WIDE + v * LANES, c[a][v]);
		return;
	}
	for (int a = 0; a < rows; a++, D += part.ldd) {
		for (int v = 0; v < vectors; v++) {
			__m512 d = _mm512_mul_ps(_mm512_set1_ps(part.s), c[a][v]);
			__m512 before = _mm512_setzero_ps();

			if (!part.first)
				before = _mm512_maskz_loadu_ps(mask, D + v * LANES);
			_mm512_mask_storeu_ps(D + v * LANES, mask, _mm512_add_ps(before, d));
		}
	}
}

/* All rows of a part. */
INLINE void blocks(const struct part *part, const int vectors)
{
	size_t i = 0;

	for (; i + ROWS <= part->rows; i += ROWS)
		block(part, i, ROWS, vectors);
	switch (part->rows - i) {
	case 5:
		block(part, i, 5, vectors);
		break;
	case 4:
		block(part, i, 4, vectors);
		break;
	case 3:
		block(part, i, 3, vectors);
		break;
	case 2:
		block(part, i, 2, vectors);
		break;
	case 1:
		block(part, i, 1, vectors);
		break;
	default:
		break;
	}
}

static LORA_NOINLINE void run_wide(const struct part *part)
{
	blocks(part, VECTORS);
}

static LORA_NOINLINE void run_narrow(const struct part *part)
{
	blocks(part, 1);
}

/* packed [depth, 16 * vectors] = R [depth, columns] */
static void pack(float *packed, const struct part *part, int vectors)
{
	__mmask16 mask = vectors == VECTORS ? ALL : part->mask;
	const float *R = part->R;

	for (size_t k = 0; k < part->depth; k++, R += part->ldr)
		for (int v = 0; v < vectors; v++, packed += LANES)
			_mm512_store_ps(packed, _mm512_maskz_loadu_ps(mask, R + v * LANES));
}

/* Where a panel's copy and its unfinished sums are. */
struct scratch {
	float packed[DEEP * WIDE];
	float sums[BAND * WIDE];
};

/* One panel of at most 64 columns: `whole` describes it with the full rank as its depth. */
static void run_panel(const struct part *whole, int vectors, struct scratch *scratch)
{
	size_t band = whole->depth > DEEP ? BAND : whole->rows;
	struct part part = *whole;

	part.C = scratch->sums;
	for (size_t i = 0; i < whole->rows; i += part.rows) {
		size_t k = 0;

		part.rows = whole->rows - i < band ? whole->rows - i : band;
		part.D = whole->D + i * whole->ldd;
		do {
			size_t left = whole->depth - k;

			part.depth = left < DEEP ? left : DEEP;
			part.L = whole->L + i * whole->ldl + k;
			part.R = whole->R + k * whole->ldr;
			part.ldr = whole->ldr;
			part.resume = k > 0;
			part.suspend = left > DEEP;
			if (part.rows >= PACK_FROM) {
				pack(scratch->packed, &part, vectors);
				part.R = scratch->packed;
				part.ldr = (size_t)vectors * LANES;
			}
			if (vectors == VECTORS)
				run_wide(&part);
			else
				run_narrow(&part);
			k += part.depth;
		} while (k < whole->depth);
	}
}

static LORA_NOINLINE void compute_lowrank(const struct part *whole, size_t cols)
{
	LORA_UNINITIALIZED _Alignas(64) struct scratch scratch;
	struct part panel = *whole;
	size_t j = 0;

	while (j < cols) {
		int vectors = cols - j >= WIDE ? VECTORS : 1;

		panel.D = whole->D + j;
		panel.R = whole->R + j;
		panel.mask = first_lanes(cols - j);
		run_panel(&panel, vectors, &scratch);
		j += (size_t)vectors * LANES;
	}
}

static void lowrank(float *D, size_t ldd, const float *L, size_t ldl, const float *R, size_t ldr,
		    const struct lora_lowrank_shape *shape)
{
	uint64_t mode = lora__fpmode_enter();
	struct part whole = {
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

	compute_lowrank(&whole, shape->cols);
	lora__fpmode_leave(mode);
}

/* --- sixteen elements in and out ------------------------------------------------------------- */

INLINE __m512 widen16_f16(__m256i h)
{
	__m512 x = _mm512_cvtph_ps(h);

	OPAQUE(x);
	return x;
}

INLINE __m512 widen16_bf16(__m256i h)
{
	return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(h), 16));
}

INLINE __m256i narrow16_f16(__m512 x)
{
	return _mm512_maskz_cvtps_ph(ALL, x, _MM_FROUND_TO_NEAREST_INT);
}

/* As shift_rne(u, 16) in kern_generic.c, and NaNs apart. */
INLINE __m256i narrow16_bf16(__m512 x)
{
	__m512i u = _mm512_castps_si512(x);
	__m512i odd = _mm512_and_si512(_mm512_srli_epi32(u, 16), _mm512_set1_epi32(1));
	__m512i up = _mm512_add_epi32(_mm512_add_epi32(u, _mm512_set1_epi32(0x7fff)), odd);
	__mmask16 nan = _mm512_cmp_ps_mask(x, x, _CMP_UNORD_Q);

	up = _mm512_mask_or_epi32(up, nan, u, _mm512_set1_epi32(0x400000));
	return _mm512_cvtepi32_epi16(_mm512_srli_epi32(up, 16));
}

/* Elements j.. of an array of a type, those in the mask; the others are +0. The mask is a constant
 * in loops, where a full one becomes a plain load. */
INLINE __m512 load(const void *p, enum lora_dtype type, size_t j, __mmask16 mask)
{
	const void *from = (const char *)p + j * (type == LORA_DTYPE_F32 ? 4 : 2);
	__m256i half;

	if (type == LORA_DTYPE_F32)
		return mask == ALL ? _mm512_loadu_ps(from) : _mm512_maskz_loadu_ps(mask, from);
	half = mask == ALL ? _mm256_loadu_si256(from) : _mm256_maskz_loadu_epi16(mask, from);
	return type == LORA_DTYPE_F16 ? widen16_f16(half) : widen16_bf16(half);
}

INLINE void store_floats(float *p, __mmask16 mask, __m512 x)
{
	if (mask == ALL)
		_mm512_storeu_ps(p, x);
	else
		_mm512_mask_storeu_ps(p, mask, x);
}

INLINE void store_halves(uint16_t *p, __mmask16 mask, __m256i x)
{
	if (mask == ALL)
		_mm256_storeu_si256((__m256i *)(void *)p, x);
	else
		_mm256_mask_storeu_epi16(p, mask, x);
}

/* Stores x rounded to a type and returns what was stored. */
INLINE __m512 store(void *p, enum lora_dtype type, size_t j, __mmask16 mask, __m512 x)
{
	__m256i half;

	if (type == LORA_DTYPE_F32) {
		store_floats((float *)p + j, mask, x);
		return x;
	}
	half = type == LORA_DTYPE_F16 ? narrow16_f16(x) : narrow16_bf16(x);
	store_halves((uint16_t *)p + j, mask, half);
	return type == LORA_DTYPE_F16 ? widen16_f16(half) : widen16_bf16(half);
}

/* out[j] = in[j] from one type to another. */
INLINE void convert(void *out, enum lora_dtype to, const void *in, enum lora_dtype from, size_t n)
{
	size_t j = 0;

	for (; j + LANES <= n; j += LANES)
		store(out, to, j, ALL, load(in, from, j, ALL));
	if (j < n)
		store(out, to, j, first_lanes(n - j), load(in, from, j, first_lanes(n - j)));
}

static void widen_f16(float *out, const uint16_t *in, size_t n)
{
	convert(out, LORA_DTYPE_F32, in, LORA_DTYPE_F16, n);
}

static void widen_bf16(float *out, const uint16_t *in, size_t n)
{
	convert(out, LORA_DTYPE_F32, in, LORA_DTYPE_BF16, n);
}

static void narrow_f16(uint16_t *out, const float *in, size_t n)
{
	convert(out, LORA_DTYPE_F16, in, LORA_DTYPE_F32, n);
}

static void narrow_bf16(uint16_t *out, const float *in, size_t n)
{
	convert(out, LORA_DTYPE_BF16, in, LORA_DTYPE_F32, n);
}

/* --- W' and the statistics -------------------------------------------------------------------- */

/* Lanes of the sums, and counts lane by lane. */
struct tally {
	__m512 d2, w2, e2;
	__m512i nonzero, unchanged, changed, nonfinite;
};

/* count += 1 in the lanes of the mask */
INLINE __m512i count(__m512i counts, __mmask16 mask)
{
	return _mm512_mask_add_epi32(counts, mask, counts, _mm512_set1_epi32(1));
}

/* Elements j.. of a span. Outside the mask W = D = W' = +0: nothing is added there. */
INLINE void apply16(const struct lora_span *span, size_t j, __mmask16 mask, struct tally *tally)
{
	const __m512i infinity = _mm512_set1_epi32(0x7f800000);
	__m512 w = load(span->w, span->w_type, j, mask);
	__m512 d = load(span->D, LORA_DTYPE_F32, j, mask);
	__m512 t = _mm512_add_ps(w, d);
	__m512 written = store(span->out, span->out_type, j, mask, t);
	__m512 v = _mm512_sub_ps(t, w);
	__m512 err = _mm512_add_ps(_mm512_sub_ps(w, _mm512_sub_ps(t, v)), _mm512_sub_ps(d, v));
	__m512 e = _mm512_sub_ps(_mm512_sub_ps(written, t), err);
	__mmask16 nonzero = _mm512_cmp_ps_mask(d, _mm512_setzero_ps(), _CMP_NEQ_UQ);
	__mmask16 changed = _mm512_cmp_ps_mask(written, w, _CMP_NEQ_UQ);
	__m512i size = _mm512_and_si512(_mm512_castps_si512(written), infinity);

	tally->d2 = _mm512_fmadd_ps(d, d, tally->d2);
	tally->w2 = _mm512_fmadd_ps(w, w, tally->w2);
	tally->e2 = _mm512_fmadd_ps(e, e, tally->e2);
	tally->nonzero = count(tally->nonzero, nonzero);
	tally->unchanged = count(tally->unchanged, nonzero & (__mmask16)~changed);
	tally->changed = count(tally->changed, changed);
	tally->nonfinite = count(tally->nonfinite, _mm512_cmpeq_epi32_mask(size, infinity));
}

static LORA_NOINLINE void finish(const struct lora_span *span, const struct tally *tally,
				 struct lora_stats *stats)
{
	struct lora_span_found found;

	_mm512_storeu_ps(found.d2, tally->d2);
	_mm512_storeu_ps(found.w2, tally->w2);
	_mm512_storeu_ps(found.e2, tally->e2);
	found.nonzero = (uint64_t)_mm512_reduce_add_epi32(tally->nonzero);
	found.unchanged = (uint64_t)_mm512_reduce_add_epi32(tally->unchanged);
	found.changed = (uint64_t)_mm512_reduce_add_epi32(tally->changed);
	found.nonfinite = (uint64_t)_mm512_reduce_add_epi32(tally->nonfinite);
	lora__span_finish(span, &found, stats);
}

/* One span; the types are constants where this is used. */
INLINE void apply_types(const struct lora_span *given, enum lora_dtype out_type,
			enum lora_dtype w_type, struct lora_stats *stats)
{
	const struct lora_span span = {given->out, given->w, given->D, given->n, out_type, w_type};
	struct tally tally = {0};
	size_t j = 0;

	for (; j + LANES <= span.n; j += LANES)
		apply16(&span, j, ALL, &tally);
	if (j < span.n)
		apply16(&span, j, first_lanes(span.n - j), &tally);
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

INLINE void sum_type(float *t, const void *w, enum lora_dtype w_type, const float *D, size_t n)
{
	for (size_t j = 0; j < n; j += LANES) {
		__mmask16 mask = first_lanes(n - j);
		__m512 d = load(D, LORA_DTYPE_F32, j, mask);

		store_floats(t + j, mask, _mm512_add_ps(load(w, w_type, j, mask), d));
	}
}

static LORA_NOINLINE void compute_sum(float *t, const void *w, enum lora_dtype w_type,
				      const float *D, size_t n)
{
	switch (w_type) {
	case LORA_DTYPE_F32:
		sum_type(t, w, LORA_DTYPE_F32, D, n);
		break;
	case LORA_DTYPE_F16:
		sum_type(t, w, LORA_DTYPE_F16, D, n);
		break;
	case LORA_DTYPE_BF16:
		sum_type(t, w, LORA_DTYPE_BF16, D, n);
		break;
	default:
		abort();
	}
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
	__m512d sums = _mm512_loadu_pd(p), x;
	size_t head = (8 - j0 % 8) % 8, j = head < n ? head : n;
	__mmask8 mask = (__mmask8)(((1u << j) - 1) << j0 % 8);

	/* Lane j0 % 8 is the first of the head: expanded, not read from before t. */
	x = _mm512_cvtps_pd(_mm256_maskz_expandloadu_ps(mask, t));
	sums = _mm512_mask3_fmadd_pd(x, x, sums, mask);
	for (; j + 8 <= n; j += 8) {
		x = _mm512_cvtps_pd(_mm256_loadu_ps(t + j));
		sums = _mm512_fmadd_pd(x, x, sums);
	}
	mask = (__mmask8)((1u << (n - j)) - 1);
	x = _mm512_cvtps_pd(_mm256_maskz_loadu_ps(mask, t + j));
	sums = _mm512_mask3_fmadd_pd(x, x, sums, mask);
	_mm512_storeu_pd(p, sums);
}

static void square8(double p[8], const float *t, size_t n, size_t j0)
{
	uint64_t mode = lora__fpmode_enter();

	compute_square8(p, t, n, j0);
	lora__fpmode_leave(mode);
}

const struct lora_kern lora__kern_avx512 = {
    .isa = "avx512",
    .widen_f16 = widen_f16,
    .widen_bf16 = widen_bf16,
    .narrow_f16 = narrow_f16,
    .narrow_bf16 = narrow_bf16,
    .lowrank = lowrank,
    .apply = apply,
    .sum = sum,
    .square8 = square8,
};
