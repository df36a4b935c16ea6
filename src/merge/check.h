/* SPDX-License-Identifier: Apache-2.0 */
/* merge/check.h - reading a merge back. */
#ifndef LORA_MERGE_CHECK_H
#define LORA_MERGE_CHECK_H

#include "merge/plan.h"

/* Compares `merged`, opened from what was written, with the plan computed once more by the plain
 * reference kernel, row by row: every bit of adapted tensors, every byte of untouched ones. LORA_NO
 * names the first tensor and element that differ. */
enum lora_status lora__merge_check(struct lora_plan *plan, const struct lora_model *merged,
				   struct lora_error *err);

/* One row of a tensor that a job writes, by the plain reference kernel. */
struct lora_check_row {
	uint64_t number;
	size_t width;
	const float *before; /* [width] the base's values, or those that were put in their place */
	const float *update; /* [width] D */
	const float *value;  /* [width] what is rounded to the result: before + update, DoRA's gain
			      * times that */
	const uint8_t *expected, *written; /* `bytes` of each, in the job's out_type */
	size_t bytes;
};

/* Visits the rows of a job, not of a raw one, in order, and `written`, of the job's shape and
 * out_type, beside them; a DoRA's gain is known. What the visitor returns, if not LORA_OK, ends it.
 */
typedef enum lora_status lora_check_row_fn(void *user, const struct lora_check_row *row,
					   struct lora_error *err);
enum lora_status lora__check_rows(struct lora_plan *plan, struct lora_job *job,
				  const struct lora_model *merged,
				  const struct lora_tensor *written, lora_check_row_fn *visit,
				  void *user, struct lora_error *err);

#endif
