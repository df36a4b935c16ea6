/* SPDX-License-Identifier: Apache-2.0 */
/* kern/subspace.h - comparing two updates by their factors, and counting the directions of a
 * difference; in f64.
 *
 * LAPACK and BLAS stand behind it, on one thread, as behind kern/linalg.h, and the same holds: the
 * last digits differ between processors. All functions may run on any number of threads at once,
 * on distinct results.
 */
#ifndef LORA_KERN_SUBSPACE_H
#define LORA_KERN_SUBSPACE_H

#include "kern/linalg.h"

/* Of one factor: its Frobenius norm and its largest singular value. */
struct lora_extent {
	double frobenius, spectral;
};

/* x = sx*Bx*Ax and y = sy*By*Ay, both [m, n]; all norms are Frobenius. */
struct lora_comparison {
	double norm_x, norm_y, norm_difference;
	double dot; /* sum of x_ij * y_ij */
	struct lora_extent Bx, Ax, By, Ay;
	size_t rank_x, rank_y; /* numerical: singular values above max(m, n)*2^-52 of the largest */
	size_t angles;	       /* min(rank_x, rank_y) */
	double *angles_columns; /* between the column spaces, in R^m: radians, ascending; ... */
	double *angles_rows; /* ... the row spaces, in R^n; the caller's, room for min of both r */
};

/* Compares two products of one shape without forming either.
 *
 * shapes   x and y have the same m and n; their r may differ, and be 0.
 * memory   some 100*(x.r + y.r)^2 bytes, whatever m and n are.
 * result   LORA_INPUT if a factor holds a value that is not finite; LORA_SYSTEM without memory or
 *	    if LAPACK does not converge. Then all numbers are 0.
 * numeric  [Bx By] = Q1 [S1 S2], [Ax' Ay'] = Q2 [T1 T2], all that follows on matrices of size
 *	    x.r + y.r. Norms, angles and the cosine are right to a few 1e-15 of the larger norm, of
 *	    pi/2 and of 1; a small angle too, since it is taken from its sine.
 * source   angles: Bjoerck and Golub 1973; the sine where the cosine is above sqrt(1/2): Knyazev
 *and Argentati 2002, algorithm 3.1.
 */
enum lora_status lora__products_compare(const struct lora_product *x, const struct lora_product *y,
					struct lora_comparison *out, struct lora_error *err);

/* The largest singular values of a matrix D [count, d] that is seen in pieces, several times.
 *
 * Subspace iteration (Halko, Martinsson, Tropp 2011, algorithm 4.4) on D'D with l vectors: each
 * round sees every row once and gives l values, the square roots of the Rayleigh-Ritz values of
 * D'D. With l = d the first round is exact. Otherwise the second round's values are those
 * of a random subspace that D'D has sharpened once: one that stands out by a factor g of the
 * values behind the l largest is right to about g^-6. Being square roots, values below 1e-8 of the
 * largest are noise. The random start is the same in every run.
 *
 * memory   16*d*l bytes.
 */
struct lora_range;

/* 0 < l <= d, d*l at most INT_MAX. LORA_SYSTEM without memory. *out is NULL on failure. */
enum lora_status lora__range_new(struct lora_range **out, size_t d, size_t l,
				 struct lora_error *err);
void lora__range_free(struct lora_range *range);
/* Rows of D [count, d], row-major, which is only read; `room` holds count*l doubles. */
void lora__range_add(struct lora_range *range, double *D, size_t count, double *room);
/* Ends a round: l values, descending, and begins the next one. LORA_SYSTEM if LAPACK fails. */
enum lora_status lora__range_turn(struct lora_range *range, double *values, struct lora_error *err);

#endif
