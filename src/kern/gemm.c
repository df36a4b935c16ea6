/* SPDX-License-Identifier: Apache-2.0 */
/* kern/gemm.c - products of matrices of f32: the contract is in gemm.h */
#include "kern/gemm.h"

#include "kern/blas.h"

enum lora_status lora__gemm_open(struct lora_error *err)
{
	return lora__blas(err) ? LORA_OK : LORA_SYSTEM;
}

static void product(enum CBLAS_TRANSPOSE op, const struct lora_gemm *g)
{
	const struct lora_blas *blas = lora__blas(NULL);

	if (g->m == 0 || g->n == 0)
		return;
	blas->sgemm(CblasRowMajor, CblasNoTrans, op, (int)g->m, (int)g->n, (int)g->k, g->alpha,
		    g->A, (int)g->lda, g->B, (int)g->ldb, g->beta, g->C, (int)g->ldc);
}

void lora__gemm_nt(const struct lora_gemm *g)
{
	product(CblasTrans, g);
}

void lora__gemm_nn(const struct lora_gemm *g)
{
	product(CblasNoTrans, g);
}
