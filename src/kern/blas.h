/* SPDX-License-Identifier: Apache-2.0 */
/* kern/blas.h - the BLAS and LAPACK, loaded when somebody first needs them.
 *
 * OpenBLAS takes 64 MB of address space and starts threads when it is loaded, and ends the process
 * where it gets neither. A merge, or anything else that does not compute with it, does not pay for
 * that: the library is not linked, but opened by its soname. Each member is the function of its
 * name, with the type that the library's own header gives it.
 */
#ifndef LORA_KERN_BLAS_H
#define LORA_KERN_BLAS_H

#include <cblas.h>
#include <loractl/error.h>
#include <stddef.h>

/* LAPACK has no header of its own everywhere. Fortran passes the lengths of strings at the end. */
typedef void lora_dgeqrf(const int *m, const int *n, double *a, const int *lda, double *tau,
			 double *work, const int *lwork, int *info);
typedef void lora_dorgqr(const int *m, const int *n, const int *k, double *a, const int *lda,
			 const double *tau, double *work, const int *lwork, int *info);
typedef void lora_dsyev(const char *jobz, const char *uplo, const int *n, double *a, const int *lda,
			double *w, double *work, const int *lwork, int *info, size_t jobz_length,
			size_t uplo_length);
typedef void lora_dgesvd(const char *jobu, const char *jobvt, const int *m, const int *n, double *a,
			 const int *lda, double *s, double *u, const int *ldu, double *vt,
			 const int *ldvt, double *work, const int *lwork, int *info,
			 size_t jobu_length, size_t jobvt_length);

struct lora_blas {
	__typeof__(cblas_sgemm) *sgemm;
	__typeof__(cblas_dgemm) *dgemm;
	__typeof__(cblas_dnrm2) *dnrm2;
	lora_dgeqrf *dgeqrf;
	lora_dorgqr *dorgqr;
	lora_dgesvd *dgesvd;
	lora_dsyev *dsyev;
	/* For the whole process, as it has no setting of smaller reach; 1 until somebody calls it.
	 * Never NULL; a BLAS that has no such setting ignores it. */
	void (*set_threads)(int threads);
};

/* The same table for every caller, from any thread; it stays for the life of the process. NULL with
 * LORA_SYSTEM if the library is missing, is not the one that was built with, or does not fit into
 * the address space. */
const struct lora_blas *lora__blas(struct lora_error *err);

#endif
