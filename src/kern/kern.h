/* SPDX-License-Identifier: Apache-2.0 */
/* kern/kern.h - the arithmetic of a merge: one table of kernels per instruction set.
 *
 * 1. Every slot of every table gives THE SAME BITS as the generic one, which is the definition of right: plain loops in
 *    kern_generic.c, written straight from the rounding contract. All these files are compiled with -ffp-contract=off; an fma
 *    stands only where fmaf() is written.
 * 2. No I/O, no allocation, no failure. Pointers need the alignment of their type only.
 * 3. A table starts as a copy of the generic one with slots replaced: no slot is NULL.
 * 4. Statistics, too, have one order of summation (see struct lora_stats), since they enter receipts.
 *
 * Letters: W base weight as stored, D the update, L [rows, rank] and R [rank, cols] its factors in the layout of the stored
 * tensor (L = B, R = A for a Linear; L = A^T, R = B^T where the base stores [in, out]), s the scale.
 */
#ifndef LORA_KERN_KERN_H
#define LORA_KERN_KERN_H

#include <loractl/types.h>

/* Sums over the elements of one span. Each sum of squares is taken in sixteen f32 lanes (element j of the span goes to lane j mod 16, ascending,
 * by fmaf), spans being at most LORA_STAT_SPAN elements; the lanes are added in f64: pairwise, ((l0+l1)+(l2+l3))+... . If such an f32 lane sum
 * is not finite, or the total is below 2^-100 and not zero in every element, the span is summed again in f64 in the same lanes.
 * Spans are added to the totals in f64 in ascending order by the caller. */
#define LORA_STAT_SPAN 4096

struct lora_stats {
	double d2;	    /* sum of D^2 */
	double w2;	    /* sum of f32(W)^2 */
	double e2;	    /* sum of (W' - (W + D))^2: (f32(W') - t) + (t - (W + D)), the second term by TwoSum, all f32 */
	uint64_t nonzero;   /* elements with D != 0 */
	uint64_t unchanged; /* of those, elements whose value did not change: f32(W') == f32(W) */
	uint64_t changed;   /* elements with f32(W') != f32(W) */
	uint64_t nonfinite; /* elements whose W' is not finite */
};

struct lora_lowrank_shape {
	size_t rows, cols, rank;
	float s;
	bool first;
};

struct lora_kern {
	const char *isa;

	/* Exact widening and round-to-nearest-even narrowing of n elements. A NaN stays a NaN (quiet, payload's upper bits and sign kept),
	 * overflow becomes infinity, subnormals are kept. */
	void (*widen_f16)(float *out, const uint16_t *in, size_t n);
	void (*widen_bf16)(float *out, const uint16_t *in, size_t n);
	void (*narrow_f16)(uint16_t *out, const float *in, size_t n);
	void (*narrow_bf16)(uint16_t *out, const float *in, size_t n);

	/* For every i < rows, j < cols:  c = +0; for k ascending c = fmaf(L[i*ldl + k], R[k*ldr + j], c);
	 * d = s * c; D[i*ldd + j] = (first ? +0 : D[i*ldd + j]) + d.        (sum of +0 and -0 is +0: no shortcut) */
	void (*lowrank)(float *D, size_t ldd, const float *L, size_t ldl, const float *R, size_t ldr,
			const struct lora_lowrank_shape *shape);

	/* t = f32(W) + D; W' = RNE(t) into `out`; n <= LORA_STAT_SPAN; *stats is ADDED to. `out` may be W when the types are of one size. Types F32, F16, BF16. */
	void (*apply)(void *out, enum lora_dtype out_type, const void *w, enum lora_dtype w_type,
		      const float *D, size_t n, struct lora_stats *stats);

	/* t = f32(W) + D as f32, n elements. */
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

/* The table for this processor, chosen once; LORACTL_CPU=generic|avx2|avx512|neon forces one. NULL, with LORA_USAGE in err, for an unknown name or one
 * that this processor cannot run. */
const struct lora_kern *lora__kern(struct lora_error *err);
/* Table by name whatever the environment says; NULL if this processor cannot run it. For tests. */
const struct lora_kern *lora__kern_find(const char *isa);

#endif
