/* SPDX-License-Identifier: Apache-2.0 */
/* merge/pipeline.h - carrying a plan out: every byte of every output file, once, in constant
 * memory. */
#ifndef LORA_MERGE_PIPELINE_H
#define LORA_MERGE_PIPELINE_H

#include "merge/plan.h"

/* Makes the plan's files in an output that was begun. All get their space now, so that a full disk
 * shows before the work; those of a directory then rest until their turn. */
enum lora_status lora__pipeline_outputs(struct lora_plan *plan, struct lora_output *output,
					struct lora_error *err);

/* Computes every block, writes it to its file of the output (NULL: to none), where the files rest
 * or, if it is one file, is open; and fills the jobs' statistics and, with `digests`, the digests
 * of jobs, items and files. Files are synced and closed at their end. On failure they are in any
 * state. */
enum lora_status lora__pipeline_run(struct lora_plan *plan, struct lora_output *output,
				    bool digests, struct lora_error *err);

#endif
