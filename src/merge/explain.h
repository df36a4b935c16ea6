/* SPDX-License-Identifier: Apache-2.0 */
/* merge/explain.h - is a tensor what a merge, also another program's, made of it? */
#ifndef LORA_MERGE_EXPLAIN_H
#define LORA_MERGE_EXPLAIN_H

#include "merge/tile.h"

/* One item of a plan against the tensor of its name in `merged`, as lora_diff_explain() judges it
 * where the bits need not be ours. *why is NULL if it is explained; else malloc'd, one line for a
 * terminal. The job's out_type is F32 afterwards. */
enum lora_status lora__explain_item(struct lora_plan *plan, const struct lora_item *item,
				    const struct lora_model *merged, struct lora_scratch *scratch,
				    char **why, struct lora_error *err);

#endif
