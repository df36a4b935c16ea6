/* SPDX-License-Identifier: Apache-2.0 */
/* merge/target.h - may a merge write there? */
#ifndef LORA_MERGE_TARGET_H
#define LORA_MERGE_TARGET_H

#include "merge/plan.h"

/* LORA_USAGE unless `output` lies outside of all inputs, and nothing is there that would be lost.
 * NULL: nothing is written, everything is well. Needs the plan's inputs and options only. */
enum lora_status lora__target_check(const struct lora_plan *plan, const char *output,
				    struct lora_error *err);

/* LORA_USAGE if `output` is, lies inside, or contains `input`. */
enum lora_status lora__target_outside(const char *output, const char *input,
				      struct lora_error *err);

#endif
