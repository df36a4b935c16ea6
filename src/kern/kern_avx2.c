/* SPDX-License-Identifier: Apache-2.0 */
/* kern/kern_avx2.c - eight f32 at a time: AVX2, FMA and F16C.
 *
 * The update is blocked as in kern_avx512.c, whose essay holds here too, with the sizes of sixteen
 * registers: 6 rows by 16 columns keep 12 sums, 2 vectors of R and a broadcast of L, and a step is
 * 12 fma for 8 loads.
 *
 * 1. Every element's sum is one chain of fma, k ascending from +0. The last product and addition
 *    are two instructions (-ffp-contract=off).
 * 2. The sixteen lanes of a sum of squares are two vectors.
 * 3. What is left of a vector goes to the generic table, which gives the same bits, or through a
 *    block padded with +0, which adds nothing to a sum or a count.
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
#define OPAQUE(x) __asm__("" : "+x"(x))

enum {
	LANES = 8,
	ROWS = 6,
	VECTORS = 2,
	WIDE = LANES * VECTORS,
	DEEP = 256,	/* steps of one part: 256 * 16 * 4 bytes = 16 KiB, half the first cache */
	BAND = 96,	/* rows of one part: their sums take 6 KiB of stack */
	PACK_FROM = 12, /* rows from which copying a panel costs less than it saves */
};

/* The mask of the first n lanes, all of them if n >= 8. */
INLINE __m256i first_lanes(size_t n)
{
	__m256i lane = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);

	return _mm256_cmpgt_epi32(_mm256_set1_epi32(n >= LANES ? LANES : (int)n), lane);
}

/* --- the update ------------------------------------------------------------------------------ */

/* One part of one panel: `depth` steps for `rows` rows and up to 16 columns. */
struct part {
	float *D;	/* [rows, columns], ldd */
	const float *L; /* [rows, depth], ldl */
	const float *R; /* [depth, columns], ldr */
	float *C;	/* [rows, WIDE] unfinished sums */
	size_t ldd, ldl, ldr, rows, depth;
	float s;
	bool first;   /* D holds nothing yet */
	bool resume;  /* sums begin in C, not at +0 */
	bool suspend; /* sums end in C, not in D */
	__m256i mask; /* lanes of the last vector; only used in panels of one */
};

/* The masked forms only where they are needed: `vectors` is a constant. */
INLINE __m256 load_columns(const struct part *part, const float *p, const int vectors)
{
	return vectors == VECTORS ? _mm256_loadu_ps(p) : _mm256_maskload_ps(p, part->mask);
}

INLINE void store_columns(const struct part *part, float *p, __m256 x, const int vectors)
{
	if (vectors == VECTORS)
		_mm256_storeu_ps(p, x);
	else
		_mm256_maskstore_ps(p, part->mask, x);
}

/* The rows from i on, `rows` of them, by `vectors` vectors: both constants where it is used. */
INLINE void block(const struct part *given, size_t i, const int rows, const int vectors)
{
	const struct part part = *given; /* a copy: no store below can change it */
	LORA_UNINITIALIZED const float *L[ROWS];
	const float *R = part.R;
	float *D = part.D + i * part.ldd, *C = part.C + i * WIDE;
	LORA_UNINITIALIZED __m256 c[ROWS][VECTORS], r[VECTORS];

	for (int a = 0; a < rows; a++) {
		L[a] = part.L + (i + (size_t)a) * part.ldl;
		for (int v = 0; v < vectors; v++)
			c[a][v] = part.resume ? _mm256_loadu_ps(C + a * WIDE + v * LANES)
					      : _mm256_setzero_ps();
	}
	for (size_t k = 0; k < part.depth; k++, R += part.ldr) {
		for (int v = 0; v < vectors; v++)
			r[v] = load_columns(&part, R + v * LANES, vectors);
		for (int a = 0; a < rows; a++) {
			__m256 l = _mm256_broadcast_ss(L[a] + k);

			for (int v = 0; v < vectors; v++)
				c[a][v] = _mm256_fmadd_ps(l, r[v], c[a][v]);
		}
	}
	if (part.suspend) {
		for (int a = 0; a < rows; a++)
			for (int v = 0; v < vectors; v++)
				_mm256_storeu_ps(C + a * WIDE + v * LANES, c[a][v]);
		return;
	}
	for (int a = 0; a < rows; a++, D += part.ldd) {
		for (int v = 0; v < vectors; v++) {
			__m256 d = _mm256_mul_ps(_mm256_set1_ps(part.s), c[a][v]);
			__m256 before = _mm256_setzero_ps();

			if (!part.first)
				before = load_columns(&part, D + v * LANES, vectors);
			store_columns(&part, D + v * LANES, _mm256_add_ps(before, d), vectors);
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

/* packed [depth, 8 * vectors] = R [depth, columns] */
static void pack(float *packed, const struct part *part, int vectors)
{
	const float *R = part->R;

	for (size_t k = 0; k < part->depth; k++, R += part->ldr)
		for (int v = 0; v < vectors; v++, packed += LANES)
			_mm256_store_ps(packed, load_columns(part, R + v * LANES, vectors));
}

/* Where a panel's copy and its unfinished sums are. */
struct scratch {
	float packed[DEEP * WIDE];
	float sums[BAND * WIDE];
};

/* One panel of at most 16 columns: `whole` describes it with the full rank as its depth. */
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

/* --- eight elements in and out ---------------------------------------------------------------- */

INLINE __m256 widen8_f16(__m128i h)
{
	__m256 x = _mm256_cvtph_ps(h);

	OPAQUE(x);
	return x;
}

INLINE __m256 widen8_bf16(__m128i h)
{
	return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(h), 16));
}

INLINE __m128i narrow8_f16(__m256 x)
{
	return _mm256_cvtps_ph(x, _MM_FROUND_TO_NEAREST_INT);
}

/* As shift_rne(u, 16) in kern_generic.c, and NaNs apart. */
INLINE __m128i narrow8_bf16(__m256 x)
{
	__m256i u = _mm256_castps_si256(x);
	__m256i odd = _mm256_and_si256(_mm256_srli_epi32(u, 16), _mm256_set1_epi32(1));
	__m256i up = _mm256_add_epi32(_mm256_add_epi32(u, _mm256_set1_epi32(0x7fff)), odd);
	__m256i quiet = _mm256_or_si256(u, _mm256_set1_epi32(0x400000));
	__m256i nan = _mm256_castps_si256(_mm256_cmp_ps(x, x, _CMP_UNORD_Q));

	up = _mm256_srli_epi32(_mm256_blendv_epi8(up, quiet, nan), 16);
	return _mm_packus_epi32(_mm256_castsi256_si128(up), _mm256_extracti128_si256(up, 1));
}

INLINE __m256 load(const void *p, enum lora_dtype type, size_t j)
{
	__m128i half;

	if (type == LORA_DTYPE_F32)
		return _mm256_loadu_ps((const float *)p + j);
	half = _mm_loadu_si128((const __m128i *)(const void *)((const uint16_t *)p + j));
	return type == LORA_DTYPE_F16 ? widen8_f16(half) : widen8_bf16(half);
}

/* Stores x rounded to a type and returns what was stored. */
INLINE __m256 store(void *p, enum lora_dtype type, size_t j, __m256 x)
{
	__m128i half;

	if (type == LORA_DTYPE_F32) {
		_mm256_storeu_ps((float *)p + j, x);
		return x;
	}
	half = type == LORA_DTYPE_F16 ? narrow8_f16(x) : narrow8_bf16(x);
	_mm_storeu_si128((__m128i *)(void *)((uint16_t *)p + j), half);
	return type == LORA_DTYPE_F16 ? widen8_f16(half) : widen8_bf16(half);
}

/* out[j] = in[j] from one type to another, whole vectors only; returns how many elements. */
INLINE size_t convert(void *out, enum lora_dtype to, const void *in, enum lora_dtype from, size_t n)
{
	size_t j = 0;

	for (; j + LANES <= n; j += LANES)
		store(out, to, j, load(in, from, j));
	return j;
}

static void widen_f16(float *out, const uint16_t *in, size_t n)
{
	size_t j = convert(out, LORA_DTYPE_F32, in, LORA_DTYPE_F16, n);

	lora__kern_generic.widen_f16(out + j, in + j, n - j);
}

static void widen_bf16(float *out, const uint16_t *in, size_t n)
{
	size_t j = convert(out, LORA_DTYPE_F32, in, LORA_DTYPE_BF16, n);

	lora__kern_generic.widen_bf16(out + j, in + j, n - j);
}

static void narrow_f16(uint16_t *out, const float *in, size_t n)
{
	size_t j = convert(out, LORA_DTYPE_F16, in, LORA_DTYPE_F32, n);

	lora__kern_generic.narrow_f16(out + j, in + j, n - j);
}

static void narrow_bf16(uint16_t *out, const float *in, size_t n)
{
	size_t j = convert(out, LORA_DTYPE_BF16, in, LORA_DTYPE_F32, n);

	lora__kern_generic.narrow_bf16(out + j, in + j, n - j);
}

/* --- W' and the statistics -------------------------------------------------------------------- */

/* Lanes of the sums, eight in each of two; counts in any lane. */
struct tally {
	__m256 d2[2], w2[2], e2[2];
	__m256i nonzero, unchanged, changed, nonfinite;
};

/* count + 1 where the mask is all ones, which is -1 */
INLINE __m256i count(__m256i counts, __m256i mask)
{
	return _mm256_sub_epi32(counts, mask);
}

/* Elements j.. of a span, lanes 0 to 7 of the sums (half 0) or 8 to 15 (half 1). */
INLINE void apply8(const struct lora_span *span, size_t j, const int half, struct tally *tally)
{
	const __m256i infinity = _mm256_set1_epi32(0x7f800000);
	__m256 w = load(span->w, span->w_type, j);
	__m256 d = _mm256_loadu_ps(span->D + j);
	__m256 t = _mm256_add_ps(w, d);
	__m256 written = store(span->out, span->out_type, j, t);
	__m256 v = _mm256_sub_ps(t, w);
	__m256 err = _mm256_add_ps(_mm256_sub_ps(w, _mm256_sub_ps(t, v)), _mm256_sub_ps(d, v));
	__m256 e = _mm256_sub_ps(_mm256_sub_ps(written, t), err);
	__m256 differs = _mm256_cmp_ps(written, w, _CMP_NEQ_UQ);
	__m256i nonzero = _mm256_castps_si256(_mm256_cmp_ps(d, _mm256_setzero_ps(), _CMP_NEQ_UQ));
	__m256i changed = _mm256_castps_si256(differs);
	__m256i size = _mm256_and_si256(_mm256_castps_si256(written), infinity);

	tally->d2[half] = _mm256_fmadd_ps(d, d, tally->d2[half]);
	tally->w2[half] = _mm256_fmadd_ps(w, w, tally->w2[half]);
	tally->e2[half] = _mm256_fmadd_ps(e, e, tally->e2[half]);
	tally->nonzero = count(tally->nonzero, nonzero);
	tally->unchanged = count(tally->unchanged, _mm256_andnot_si256(changed, nonzero));
	tally->changed = count(tally->changed, changed);
	tally->nonfinite = count(tally->nonfinite, _mm256_cmpeq_epi32(size, infinity));
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
	apply8(&padded, 0, 0, tally);
	apply8(&padded, LANES, 1, tally);
	memcpy((char *)span->out + j * out_size, out, n * out_size);
}

static uint64_t total(__m256i counts)
{
	uint32_t count[LANES];
	uint64_t sum = 0;

	_mm256_storeu_si256((__m256i *)(void *)count, counts);
	for (int l = 0; l < LANES; l++)
		sum += count[l];
	return sum;
}

static LORA_NOINLINE void finish(const struct lora_span *span, const struct tally *tally,
				 struct lora_stats *stats)
{
	struct lora_span_found found;

	for (int half = 0; half < 2; half++) {
		_mm256_storeu_ps(found.d2 + half * LANES, tally->d2[half]);
		_mm256_storeu_ps(found.w2 + half * LANES, tally->w2[half]);
		_mm256_storeu_ps(found.e2 + half * LANES, tally->e2[half]);
	}
	found.nonzero = total(tally->nonzero);
	found.unchanged = total(tally->unchanged);
	found.changed = total(tally->changed);
	found.nonfinite = total(tally->nonfinite);
	lora__span_finish(span, &found, stats);
}

/* One span; the types are constants where this is used. */
INLINE void apply_types(const struct lora_span *given, enum lora_dtype out_type,
			enum lora_dtype w_type, struct lora_stats *stats)
{
	const struct lora_span span = {given->out, given->w, given->D, given->n, out_type, w_type};
	struct tally tally = {0};
	size_t j = 0;

	for (; j + LORA_STAT_LANES <= span.n; j += LORA_STAT_LANES) {
		apply8(&span, j, 0, &tally);
		apply8(&span, j + LANES, 1, &tally);
	}
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
		_mm256_storeu_ps(t + j, _mm256_add_ps(load(w, w_type, j), _mm256_loadu_ps(D + j)));
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
	__m256d low, high, x, y;

	lora__kern_generic.square8(p, t, j, j0);
	low = _mm256_loadu_pd(p);
	high = _mm256_loadu_pd(p + 4);
	for (; j + 8 <= n; j += 8) {
		x = _mm256_cvtps_pd(_mm_loadu_ps(t + j));
		y = _mm256_cvtps_pd(_mm_loadu_ps(t + j + 4));
		low = _mm256_fmadd_pd(x, x, low);
		high = _mm256_fmadd_pd(y, y, high);
	}
	_mm256_storeu_pd(p, low);
	_mm256_storeu_pd(p + 4, high);
	lora__kern_generic.square8(p, t + j, n - j, j0 + j);
}

static void square8(double p[8], const float *t, size_t n, size_t j0)
{
	uint64_t mode = lora__fpmode_enter();

	compute_square8(p, t, n, j0);
	lora__fpmode_leave(mode);
}

const struct lora_kern lora__kern_avx2 = {
    .isa = "avx2",
    .widen_f16 = widen_f16,
    .widen_bf16 = widen_bf16,
    .narrow_f16 = narrow_f16,
    .narrow_bf16 = narrow_bf16,
    .lowrank = lowrank,
    .apply = apply,
    .sum = sum,
    .square8 = square8,
};
