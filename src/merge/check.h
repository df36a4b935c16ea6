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

#endif
