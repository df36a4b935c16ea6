/* SPDX-License-Identifier: Apache-2.0 */
/* kern/gemm.c - products of matrices of f32: the contract is in gemm.h */
#include <pthread.h>

#include <cblas.h>

#include "kern/gemm.h"

/* As in linalg.c: one thread a call, for the whole process. */
static void set_one_thread(void)
{
#if defined(OPENBLAS_VERSION)
	openblas_set_num_threads(1);
#endif
}

static void product(enum CBLAS_TRANSPOSE op, const struct lora_gemm *g)
{
	static pthread_once_t once = PTHREAD_ONCE_INIT;

	if (g->m == 0 || g->n == 0)
		return;
	pthread_once(&once, set_one_thread);
	cblas_sgemm(CblasRowMajor, CblasNoTrans, op, (int)g->m, (int)g->n, (int)g->k, g->alpha,
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
