/* SPDX-License-Identifier: Apache-2.0 */
/* kern/gemm.h - products of matrices of f32, by the BLAS.
 *
 * Row-major; ld* is the distance of rows in elements. The BLAS computes on the calling thread
 * alone: whoever wants two cores gives each a part of C. Its last digits differ between processors
 * and with the shape of the part: as for kern/vec.h, nothing that is written to a file may rest on
 * them. Safe on any number of threads.
 */
#ifndef LORA_KERN_GEMM_H
#define LORA_KERN_GEMM_H

#include <loractl/error.h>
#include <stddef.h>

/* Loads the BLAS. Nothing below may be called before that has succeeded once. */
enum lora_status lora__gemm_open(struct lora_error *err);

/* C [m, n] = alpha * A [m, k] * op(B) + beta * C. Every size is below 2^31. With beta 0, C is not
 * read. */
struct lora_gemm {
	size_t m, n, k;
	float alpha, beta;
	const float *A;
	size_t lda;
	const float *B;
	size_t ldb;
	float *C;
	size_t ldc;
};

/* op(B) = B^T, B [n, k]: tokens times a weight [out, in]. */
void lora__gemm_nt(const struct lora_gemm *g);
/* op(B) = B, B [k, n]. */
void lora__gemm_nn(const struct lora_gemm *g);

#endif
