/* SPDX-License-Identifier: Apache-2.0 */
/* kern/kern.h - the arithmetic of a merge: one table of kernels per instruction set.
 *
 * 1. Every slot of every table gives THE SAME BITS as the generic one, which is the definition of
 *    right: plain loops in kern_generic.c, written straight from the rounding contract. All these
 *    files are compiled with -ffp-contract=off; an fma stands only where fmaf() is written.
 *    The one exception: of a result that is NaN only that it is NaN is promised, not its payload,
 *    since processors differ in which operand's payload they pass on.
 * 2. No I/O, no allocation, no failure. Pointers need the alignment of their type only; that of a
 *    cache line (64 bytes) is up to a fifth faster.
 * 3. A table starts as a copy of the generic one with slots replaced: no slot is NULL.
 * 4. Statistics, too, have one order of summation (see struct lora_stats), since they enter
 *    receipts.
 * 5. A caller's floating-point mode (rounding direction, flush-to-zero: a library linked with
 *    -ffast-math may switch it on for a whole thread) changes nothing: every slot computes
 *    in the default mode and puts the caller's back (kern/fpmode.h).
 * 6. Every slot may run on any number of threads at once. At most 64 KiB of stack are used.
 *
 * Letters: W base weight as stored, D the update, L [rows, rank] and R [rank, cols] its factors
 * in the layout of the stored tensor (L = B, R = A for a Linear; L = A^T, R = B^T where the base
 * stores [in, out]), s the scale.
 */
#ifndef LORA_KERN_KERN_H
#define LORA_KERN_KERN_H

#include <loractl/types.h>

/* Elements of one span at most. 16 KiB of f32: D, W and W' of a span live in the first cache. */
#define LORA_STAT_SPAN 4096
/* Lanes of a sum; element j of a span belongs to lane j mod 16. */
#define LORA_STAT_LANES 16

/* Sums over the elements of spans, each of at most LORA_STAT_SPAN elements. For x each of D, f32(W)
 * and e, with j ascending and every q[l] from +0:
 *
 *	q[j mod 16] = fmaf(x[j], x[j], q[j mod 16])		in f32
 *	sum = pairs(q)						in f64
 *
 * where pairs() adds neighbours, then neighbours of these, and so on: ((q0+q1)+(q2+q3))+... . If a
 * lane of q is not finite, or sum < 2^-100, this one sum is taken again over the span, in f64, in
 * the same lanes: q[j mod 16] += (double)x[j] * (double)x[j], where the product is exact. (A square
 * below the normal range of f32 is wrong by 2^-150 at most, 4096 of them by 2^-138: nothing beside
 * 2^-100.) A span's sums are then added, once each, to those below. A caller that adds spans in an
 * order of its own gets sums of its own. */
struct lora_stats {
	double d2; /* sum of D^2 */
	double w2; /* sum of f32(W)^2 */
	/* Sum of e^2 for e = W' - (W + D), what rounding did. In f32, t being fl(W + D):
	 * v = t - W; err = (W - (t - v)) + (D - v); e = (f32(W') - t) - err. By Knuth's TwoSum
	 * t + err = W + D exactly, and f32(W') - t is exact as well: e is rounded once. */
	double e2;
	uint64_t nonzero;   /* elements with D != 0 */
	uint64_t unchanged; /* of those, elements whose value did not change: f32(W') == f32(W) */
	uint64_t changed;   /* elements with f32(W') != f32(W) */
	uint64_t nonfinite; /* elements whose W' is not finite */
	double ties, ties2; /* of an expectation, merge/predict.c */
};

/* Elements. rank 0 is an update of +0. */
struct lora_lowrank_shape {
	size_t rows, cols, rank;
	float s;
	bool first; /* D holds nothing yet */
};

struct lora_kern {
	const char *isa;

	/* Exact widening and round-to-nearest-even narrowing of n elements. Overflow becomes
	 * infinity, subnormals are kept, and so is the sign of zero. A NaN keeps its sign and the
	 * upper bits of its payload and becomes quiet, except in widen_bf16, which moves bits
	 * and nothing else. `out` and `in` do not overlap. */
	void (*widen_f16)(float *out, const uint16_t *in, size_t n);
	void (*widen_bf16)(float *out, const uint16_t *in, size_t n);
	void (*narrow_f16)(uint16_t *out, const float *in, size_t n);
	void (*narrow_bf16)(uint16_t *out, const float *in, size_t n);

	/* For every i < rows, j < cols:
	 *	c = +0; for k ascending c = fmaf(L[i*ldl + k], R[k*ldr + j], c);
	 *	d = s * c; D[i*ldd + j] = (first ? +0 : D[i*ldd + j]) + d.
	 * No shortcut for zeros: +0 + -0 is +0. D overlaps neither L nor R. Fastest when D's block
	 * stays in the second cache (256 KiB to 512 KiB) and has many rows, 32 to 128, since every
	 * panel of R is fetched once for all rows. */
	void (*lowrank)(float *D, size_t ldd, const float *L, size_t ldl, const float *R,
			size_t ldr, const struct lora_lowrank_shape *shape);

	/* One span: t = f32(W) + D; W' = RNE(t) into `out`; n <= LORA_STAT_SPAN; *stats is ADDED
	 * to. Types F32, F16, BF16. `out` may be `w` itself when the types are of one size;
	 * otherwise nothing overlaps. */
	void (*apply)(void *out, enum lora_dtype out_type, const void *w, enum lora_dtype w_type,
		      const float *D, size_t n, struct lora_stats *stats);

	/* t = f32(W) + D as f32, n elements. `t` may be D, and may be `w` when that is F32. */
	void (*sum)(float *t, const void *w, enum lora_dtype w_type, const float *D, size_t n);

	/* p[(j0 + j) mod 8] += (double)t[j]^2, j ascending: the row norm's eight partial sums. */
	void (*square8)(double p[8], const float *t, size_t n, size_t j0);
};

extern const struct lora_kern lora__kern_generic;
#if defined(LORA_HAVE_AVX2)
extern const struct lora_kern lora__kern_avx2;
#endif
#if defined(LORA_HAVE_AVX512)
extern const struct lora_kern lora__kern_avx512;
#endif
#if defined(LORA_HAVE_NEON)
extern const struct lora_kern lora__kern_neon;
#endif

/* The table for this processor, chosen once for the life of the process; LORACTL_CPU in the
 * environment (generic, avx2, avx512 or neon; empty is as if unset) forces one. NULL, with
 * LORA_USAGE in err, for an unknown name or one that this processor cannot run. */
const struct lora_kern *lora__kern(struct lora_error *err);
/* Table by name whatever the environment says; NULL if there is none or this processor cannot run
 * it. For tests. */
const struct lora_kern *lora__kern_find(const char *isa);

#endif
