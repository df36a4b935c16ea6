/* SPDX-License-Identifier: Apache-2.0 */
/* merge/receipt.h - the account of a merge: schema loractl.receipt/1. */
#ifndef LORA_MERGE_RECEIPT_H
#define LORA_MERGE_RECEIPT_H

#include "merge/plan.h"

/* Numbers of a job as people read them; NaN where there is none (no base to compare with). */
struct lora_ratios {
	double rho, unchanged, noise;
};
struct lora_ratios lora__stats_ratios(const struct lora_stats *stats);

/* Name, size and digest of every output weight file, and the root over all output tensors. */
enum lora_status lora__plan_root(const struct lora_plan *plan, struct lora_sha256 *root,
				 struct lora_error *err);

/* The receipt as JSON text, malloc'd. merged_root NULL: `merged` is null. No path, host or time
 * enters it. */
enum lora_status lora__receipt_text(const struct lora_plan *plan,
				    const struct lora_sha256 *merged_root, char **text,
				    size_t *size, struct lora_error *err);

/* With options->expect: LORA_NO, naming the first that differs, unless the output's weight files
 * are those of that receipt. */
enum lora_status lora__receipt_expect(const struct lora_plan *plan, struct lora_error *err);

#endif
