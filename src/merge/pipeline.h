/* SPDX-License-Identifier: Apache-2.0 */
/* merge/pipeline.h - carrying a plan out: every byte of every output file, once, in constant
 * memory. */
#ifndef LORA_MERGE_PIPELINE_H
#define LORA_MERGE_PIPELINE_H

#include "merge/plan.h"

/* Computes every block, writes it to its file's fd (unless that is -1), and fills the jobs'
 * statistics and, with `digests`, the digests of jobs, items and files. On failure files are in any
 * state. */
enum lora_status lora__pipeline_run(struct lora_plan *plan, bool digests, struct lora_error *err);

#endif
