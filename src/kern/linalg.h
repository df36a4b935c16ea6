/* SPDX-License-Identifier: Apache-2.0 */
/* kern/linalg.h - dense linear algebra in f64 for looking at adapters (never for the merged weights): LAPACK and BLAS behind three functions.
 *
 * All matrices row-major. OpenBLAS runs single-threaded here: callers parallelise over modules. */
#ifndef LORA_KERN_LINALG_H
#define LORA_KERN_LINALG_H

#include <loractl/error.h>
#include <stddef.h>

/* Singular values of s*B*A, descending, without ever forming the product: B [m, r] = Q1 R1, A^T [n, r] = Q2 R2, then the SVD of s * R1 * R2^T
 * (at most r x r; m or n may be below r). Writes min(r, m, n) values to `values` and their number to *count; *norm is the Frobenius norm, computed from
 * R1 R2^T directly. Inputs must be finite. B and A are kept. LORA_SYSTEM without memory or if LAPACK does not converge. */
enum lora_status lora__lowrank_spectrum(const float *B, const float *A, size_t m, size_t n, size_t r, double s,
					double *values, size_t *count, double *norm, struct lora_error *err);

/* exp(-sum p ln p), p = values / sum(values): Roy & Vetterli 2007. 0 if all are 0. */
double lora__effective_rank(const double *values, size_t count);

#endif
