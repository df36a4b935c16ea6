/* SPDX-License-Identifier: Apache-2.0 */
/* kern/vec.h - the arithmetic of a model on one row at a time: one table of kernels per instruction
 * set.
 *
 * 1. Unlike those of kern.h these kernels do NOT give the same bits on every processor: a sum has
 *    one partial sum for each lane of the machine's vectors (and two rows of them), added pairwise,
 *    and products are fused where the machine can. Nothing that is written to a file may rest on
 *    them. On one processor the result is a function of the arguments alone.
 * 2. Errors against f64 (tests/unit/test_vec.c): sums of n products within 2^-22 of the sum of
 *    their magnitudes for n up to 8192; exp, silu and gelu within 4 ulp of the result or 2^-23 of
 *    the argument's magnitude, whichever is larger.
 * 3. A NaN stays one; otherwise finite arguments give finite results as far as f32 reaches.
 * 4. No I/O, no allocation, no failure. Pointers need the alignment of their type only. Arrays
 *    overlap only where a comment says that `out` may be an argument.
 */
#ifndef LORA_KERN_VEC_H
#define LORA_KERN_VEC_H

#include <stddef.h>
#include <stdint.h>

struct lora_vec {
	const char *isa;

	/* y[i] = sum over j of W[i*ld + j] * x[j], for i < rows, j < cols: a weight times one
	 * token. Weights of 16 bits are widened exactly on the way. */
	void (*gemv_f32)(float *y, const float *W, size_t ld, const float *x, size_t rows,
			 size_t cols);
	void (*gemv_f16)(float *y, const uint16_t *W, size_t ld, const float *x, size_t rows,
			 size_t cols);
	void (*gemv_bf16)(float *y, const uint16_t *W, size_t ld, const float *x, size_t rows,
			  size_t cols);
	/* out[j] = sum over i of p[i] * V[i*ld + j]: attention's mean of values. */
	void (*mix)(float *out, const float *V, size_t ld, const float *p, size_t rows,
		    size_t cols);

	/* x = softmax(scale * x), n > 0. */
	void (*softmax)(float *x, float scale, size_t n);
	/* ln of the sum of exp(x[i]), n > 0. */
	double (*log_sum_exp)(const float *x, size_t n);

	/* out = g * x / sqrt(mean(x^2) + eps) (Zhang and Sennrich 2019). `out` may be x. */
	void (*rms_norm)(float *out, const float *x, const float *g, float eps, size_t n);
	/* out = g * (x - mean(x)) / sqrt(var(x) + eps) + b (Ba et al. 2016). `out` may be x. */
	void (*layer_norm)(float *out, const float *x, const float *g, const float *b, float eps,
			   size_t n);
	/* Pairs (x[i], x[half + i]) turned by the angle whose cosine is c[i] and sine s[i] (Su et
	 * al. 2021, in the order of halves). `out` may be x. */
	void (*rotate)(float *out, const float *x, const float *c, const float *s, size_t half);

	/* out = silu(g) * u, silu(x) = x / (1 + exp(-x)) (Shazeer 2020). `out` may be g or u. */
	void (*silu_mul)(float *out, const float *g, const float *u, size_t n);
	/* out = x/2 * (1 + tanh(sqrt(2/pi) * (x + 0.044715 x^3))) (Hendrycks and Gimpel 2016).
	 * `out` may be x. */
	void (*gelu)(float *out, const float *x, size_t n);
	/* y += s * x */
	void (*add)(float *y, float s, const float *x, size_t n);
	/* y = g * y + b; g or b may be NULL: ones, zeros. */
	void (*affine)(float *y, const float *g, const float *b, size_t n);
};

extern const struct lora_vec lora__vec_generic;
#if defined(LORA_HAVE_AVX2)
extern const struct lora_vec lora__vec_avx2;
#endif
#if defined(LORA_HAVE_AVX512)
extern const struct lora_vec lora__vec_avx512;
#endif
#if defined(LORA_HAVE_NEON)
extern const struct lora_vec lora__vec_neon;
#endif

/* The table that goes with a table of merge kernels, by its `isa`: lora__kern() has chosen what
 * this processor runs. NULL for an unknown name. */
const struct lora_vec *lora__vec(const char *isa);

#endif
