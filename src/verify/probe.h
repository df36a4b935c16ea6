/* SPDX-License-Identifier: Apache-2.0 */
/* verify/probe.h - inputs through one module: y = Wx + s*B(Ax) in f64 against W'x.
 *
 * "Module" is the stored matrix [height, width]: x has the width, y the height, s*L*R is the update
 * (formats/edit.h). Where the base stores [in, out] that is the module run backwards, which proves
 * the same about the same numbers.
 */
#ifndef LORA_VERIFY_PROBE_H
#define LORA_VERIFY_PROBE_H

#include "merge/check.h"

#define LORA_PROBE_INPUTS 8

struct lora_probe_part; /* one product, with what the inputs make of its right factor */

struct lora_probe {
	const struct lora_plan *plan;
	const struct lora_job *job;
	bool foreign;
	double *x;			 /* [inputs, width] */
	double *into;			 /* [inputs, width] x times a gain by column, or x itself */
	double *there, *wanted, *before; /* [width] rows, as f64 */
	float *line;			 /* a row of a factor */
	struct lora_probe_part *parts;
	size_t part_count;
	double terms;		     /* roundings that an element of D goes through in f32 */
	double worst, bound;	     /* at the row nearest to its bound */
	uint64_t row;		     /* that row */
	double along, size2, spread; /* sums of a*b, b^2, (a row's a*b)^2 */
	bool any;
};

/* The job is loaded and its gain known. The caller finis also after a failure. */
enum lora_status lora__probe_init(struct lora_probe *probe, const struct lora_plan *plan,
				  const struct lora_job *job, uint64_t seed, bool foreign,
				  struct lora_error *err);
void lora__probe_fini(struct lora_probe *probe);
enum lora_status lora__probe_row(struct lora_probe *probe, const struct lora_check_row *row,
				 struct lora_error *err);

/* What is missing (or too much) of the update, as a share of it, and the standard error of that. */
void lora__probe_strength(const struct lora_probe *probe, double *k, double *error);

#endif
