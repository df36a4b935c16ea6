/* SPDX-License-Identifier: Apache-2.0 */
/* loractl/diff.h - what is different between two adapters, or between two checkpoints.
 *
 * Two adapters are compared as updates, module by module: Dx = sx*Bx*Ax against Dy = sy*By*Ay,
 * through QR of their factors, never through the full matrices. Two checkpoints are compared tensor
 * by tensor, in bounded memory. And with the adapter that made one checkpoint out of the other:
 * does it account for every change?
 *
 * X is the first of the two, Y the second: what only Y has was added, what only X has was removed.
 * Everything is computed in f64; the last digits may differ between processors.
 */
#ifndef LORACTL_DIFF_H
#define LORACTL_DIFF_H

#include <loractl/merge.h>

#ifdef __cplusplus
extern "C" {
#endif

struct lora_diff; /* owns all that its accessors return */

struct lora_diff_options {
	size_t size;	  /* sizeof(struct lora_diff_options) */
	unsigned threads; /* 0: every core this process may use */
	/* lora_diff_explain */
	bool exact;	      /* the bits of our own merge, nothing near them */
	bool allow_unmatched; /* leave out adapter tensors without a place, as the merge did */
};

#define LORA_DIFF_OPTIONS_INIT                                                                     \
	{                                                                                          \
		sizeof(struct lora_diff_options), 0, false, false                                  \
	}

/* One member of the configs that is not the same, whatever the order of members; objects are
 * compared member by member and the key is the path, "rank_pattern.q_proj". Values are canonical
 * JSON text; NULL where that side does not have the member. */
struct lora_config_difference {
	const char *key, *x, *y;
};

/* One module that both adapters have: the same target tensor, the same range of it, the same shape.
 * The experts of one module are one: norms are those of all of them together, angles those of each.
 *
 * Norms are Frobenius norms of s*B*A (and |D| of what is no product of factors, of every value that
 * is put in place). Where the kinds differ (low-rank against dense, or DoRA) there is nothing to
 * subtract: norm_difference and cosine are NaN. */
struct lora_module_difference {
	const char *name;   /* the module's path as X spells it */
	const char *type_x; /* as struct lora_module's */
	const char *type_y;
	bool same;	 /* the same values, stored in whatever type, the same scale */
	bool equivalent; /* the same update, within `allowance` */
	double norm_x, norm_y;
	double norm_difference; /* |Dx - Dy| */
	double cosine;		/* <Dx, Dy> / (|Dx||Dy|); NaN if one is 0 */
	/* What rounding alone explains of |Dx - Dy|, were both the same update with other factors:
	 *
	 *	e(B, A) = s * (uB + uA + uB*uA) * max(|B| |A|2, |B|2 |A|)	|.|2 the largest
	 *singular value allowance = e(Bx, Ax) + e(By, Ay) + 2^-24 * (|Dx| + |Dy|)
	 *
	 * A factor whose elements are right to a relative u is wrong by at most u|B|, which moves
	 * the product by u|B| |A|2. u = t + 2^-24*sqrt(r): t is the unit roundoff of the
	 * type in which the factor is stored (2^-24, F16 2^-11, BF16 2^-8), the second term what a
	 * product of length r loses in f32 (Higham and Mary 2019), as in B*M; the last term of the
	 * allowance is the rounding of the two scales. 0 for what is no product. */
	double allowance;
	/* DoRA's magnitudes: |mx - my|, else 0. They are equivalent if their values are equal. */
	double magnitude_difference;
	/* Principal angles, radians, ascending, as many as the smaller numerical rank. */
	size_t angle_count;
	const double *angles_rows;    /* between the row spaces (of A) */
	const double *angles_columns; /* between the column spaces (of B) */
};

/* One tensor that both checkpoints have, with other bytes. Numbers are NaN where there is none:
 * types that are not computed with, other shapes, values that are not finite. */
struct lora_tensor_difference {
	const char *name;
	enum lora_dtype dtype_x, dtype_y;
	bool reshaped; /* other shapes: nothing below is known but `elements`, which are X's */
	uint64_t elements;
	uint64_t changed;     /* elements with another value; -0 equals +0 */
	bool has_ulp;	      /* one type on both sides, F32, F16 or BF16 */
	uint64_t max_ulp;     /* values of that type from one to the other, at most */
	double relative_norm; /* |Y - X| / |X| */
	/* How many singular values of Y - X, seen as [shape[0], the rest] (a vector as one row),
	 *are above `threshold`:
	 *
	 *	v_ij      = ulp(Y_ij)^2 / 12	variance of rounding to nearest; in rows and columns
	 *			without a changed element 0
	 *	threshold = min(2 (max_i sqrt(sum_j v_ij) + max_j sqrt(sum_i v_ij)), sqrt(3 sum v)),
	 *		    but at least 1e-7 of the largest singular value
	 *
	 * The first is twice what the largest singular value of independent rounding errors is
	 * expected to be (Bandeira and van Handel 2016), the second a bound that they never
	 * pass. 0: nothing stands out of the rounding. At most 512 are counted in tensors
	 * with more than 1024 rows and columns: then rank_is_least is true. */
	bool has_rank;
	bool rank_is_least;
	uint32_t rank;
	double threshold;
};

/* Two adapters. Notes go to the observer. LORA_INPUT for a factor that is not finite, naming tensor
 * and element. *out is NULL on failure. */
LORA_API enum lora_status lora_diff_adapters(struct lora_diff **out, struct lora_adapter *x,
					     struct lora_adapter *y,
					     const struct lora_diff_options *options,
					     const struct lora_observer *observer,
					     struct lora_error *err);
/* Two checkpoints. Values that are not finite are no failure. */
LORA_API enum lora_status lora_diff_models(struct lora_diff **out, const struct lora_model *x,
					   const struct lora_model *y,
					   const struct lora_diff_options *options,
					   const struct lora_observer *observer,
					   struct lora_error *err);
LORA_API void lora_diff_free(struct lora_diff *diff);

/* Adapters: all tensors have the same names, types, shapes and bytes, and the configs the same
 * values. Checkpoints: likewise, however the tensors are spread over files. */
LORA_API bool lora_diff_same(const struct lora_diff *diff);
/* Adapters: the same update of every target, to rounding. Checkpoints: the same tensors with the
 * same values (-0 equals +0), whatever the configs say. */
LORA_API bool lora_diff_equivalent(const struct lora_diff *diff);

LORA_API const struct lora_config_difference *lora_diff_config(const struct lora_diff *diff,
							       size_t *count);
/* Names of tensors. `changed` are those of adapters that both have with other bytes, types or
 * shapes. Of adapters whose names differ but mean the same module nothing is listed. */
LORA_API const char *const *lora_diff_added(const struct lora_diff *diff, size_t *count);
LORA_API const char *const *lora_diff_removed(const struct lora_diff *diff, size_t *count);
LORA_API const char *const *lora_diff_changed(const struct lora_diff *diff, size_t *count);
/* In the order of X. */
LORA_API const struct lora_module_difference *lora_diff_modules(const struct lora_diff *diff,
								size_t *count);
LORA_API const struct lora_tensor_difference *lora_diff_tensors(const struct lora_diff *diff,
								size_t *count);

/* Why a tensor is not explained. */
struct lora_unexplained {
	const char *name;
	const char *why; /* one line, escaped for a terminal */
};

struct lora_explanation {
	bool explained; /* every tensor is what the merge predicts */
	size_t exact;	/* adapted tensors with exactly the predicted bits */
	size_t rounded; /* ... that another program rounded: see below */
	size_t unexplained_count;
	const struct lora_unexplained *unexplained;
};

/* Is Y of `diff` the merge of these adapters into its X, `base`? Both are still open. Every adapted
 * tensor is computed again, in the type that Y has it in (of F32, F16, BF16), and accounted for
 *
 *	exactly, if all bits are the predicted ones; or, unless options->exact is set,
 *	as another program's merge, if (1) every element is as near to the value v before rounding
 *as rounding allows: half an ulp of the largest of |W|, |v| and |W'|; 1.5 ulp of v - W, for an
 *	update that was itself rounded on its way; and 2^-23 (r + 3) s |B_i||A_j| (a row's and a
 *	column's norm), for another order of summation; and (2) the update is there at its full
 *	strength: with a what the prediction changed and b what was changed,
 *	k = sum (b-a)(b+a)/2 / sum ((b+a)/2)^2 is below 1e-3, or below five of its standard errors.
 *
 * All other tensors have to have the base's bytes. LORA_INPUT if an adapter does not fit the base,
 * LORA_USAGE if `base` is not X. The explanation belongs to the diff. */
LORA_API enum lora_status lora_diff_explain(struct lora_diff *diff, struct lora_model *base,
					    const struct lora_merge_input *inputs, size_t count,
					    const struct lora_diff_options *options,
					    const struct lora_observer *observer,
					    struct lora_error *err);
/* NULL before a successful lora_diff_explain. */
LORA_API const struct lora_explanation *lora_diff_explanation(const struct lora_diff *diff);

#ifdef __cplusplus
}
#endif

#endif
