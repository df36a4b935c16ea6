/* SPDX-License-Identifier: Apache-2.0 */
/* merge/unmerge.h - a plan that leads back, for the pipeline that leads there. */
#ifndef LORA_MERGE_UNMERGE_H
#define LORA_MERGE_UNMERGE_H

#include "merge/undo_read.h"
#include <loractl/unmerge.h>
#include <time.h>

/* A record, opened, and the plan that it makes of a merged model: plan.base is the merged model,
 * plan.files are the base's, the one input is the record's own tensors. */
struct lora_way_back {
	struct lora_adapter store;
	struct lora_undo undo;
	struct lora_index *heads; /* by base file */
	size_t head_count;
	struct lora_merge_input input;
	struct lora_merge_options options;
	struct lora_plan plan;
	uint32_t *unread; /* tensors of the merged model that no item reads */
	size_t unread_count;
};

/* Opens the record and checks everything that names, sizes, shapes and heads tell. LORA_NO if the
 * record belongs to another model. The caller finis in any case. */
enum lora_status lora__way_back_make(struct lora_way_back *way, struct lora_model *merged,
				     const char *record, struct lora_error *err);
void lora__way_back_fini(struct lora_way_back *way);

double lora__seconds_since(const struct timespec *begin);

#endif
