/* SPDX-License-Identifier: Apache-2.0 */
/* kern/linalg.h - dense linear algebra in f64 for looking at adapters, never for the merged
 * weights.
 *
 * LAPACK and BLAS stand behind it. Their last digits differ between processors: nothing that is
 * signed, or compared bit by bit, may rest on these results.
 *
 * They are loaded with the first call, and compute on one thread (kern/blas.h). Callers parallelise
 * over modules; all functions may run on any number of threads at once.
 */
#ifndef LORA_KERN_LINALG_H
#define LORA_KERN_LINALG_H

#include <loractl/error.h>
#include <stddef.h>

/* s*B*A by its factors: B [m, r], A [r, n], row-major, contiguous; m or n may be below r. */
struct lora_product {
	const float *B, *A;
	size_t m, n, r;
	double s;
};

struct lora_spectrum {
	double *values; /* the caller's, with room for r */
	size_t count;	/* of them that are written: min(r, m, n) */
	double norm;	/* Frobenius */
};

/* Singular values of a product, descending, and its norm, without ever forming it.
 *
 * result   LORA_INPUT if a factor holds a value that is not finite, LORA_SYSTEM without a
 * BLAS, without memory (some 40*r*r bytes are taken) or if LAPACK does not converge; then count and
 * norm are 0. numeric B = Q1 R1 and A^T = Q2 R2, then the values of s * R1 * R2^T [r, r], whose
 * norm is computed from its elements. Errors are a few 1e-15 of the largest value.
 */
enum lora_status lora__lowrank_spectrum(const struct lora_product *product,
					struct lora_spectrum *out, struct lora_error *err);

/* exp(-sum p ln p) for p = values / sum(values): how many equal values would spread as much (Roy
 * and Vetterli 2007). 0 if all are 0. */
double lora__effective_rank(const double *values, size_t count);

#endif
