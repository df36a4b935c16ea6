/* SPDX-License-Identifier: Apache-2.0 */
/* merge/undo_json.h - record.json of loractl-undo(5), from a merge that is done. */
#ifndef LORA_MERGE_UNDO_JSON_H
#define LORA_MERGE_UNDO_JSON_H

#include "merge/plan.h"
#include "merge/undo_files.h"

/* A job's chunks, `at` in its file's spool. */
struct lora_undo_chunks {
	struct lora_residual_chunk *chunk;
	size_t count;
	uint64_t bytes;
};

/* malloc'd text. `chunks` by job. */
enum lora_status lora__undo_json(const struct lora_plan *plan, const struct lora_others *others,
				 const struct lora_undo_chunks *chunks,
				 const struct lora_sha256 *merged_root, char **text, size_t *size,
				 struct lora_error *err);

#endif
