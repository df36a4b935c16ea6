/* SPDX-License-Identifier: Apache-2.0 */
/* merge/undo_files.h - which of the base's other files the merged model has, and which a record
 * must keep. */
#ifndef LORA_MERGE_UNDO_FILES_H
#define LORA_MERGE_UNDO_FILES_H

#include "merge/plan.h"

struct lora_other {
	const char *name; /* components joined by '/' */
	uint64_t size;
	struct lora_sha256 sha256;
	uint8_t *data; /* stored: its bytes; NULL: the merged model has it */
	bool stored;
};

/* In ascending order of name. Names live in the arena, data is malloc'd. */
struct lora_others {
	struct lora_arena arena;
	struct lora_other *base, *left, *merged;
	size_t base_count, left_count, merged_count;
};

/* Compares the base's directory with the merged one, both without the plan's weight files. The
 * caller finis in any case. */
enum lora_status lora__undo_others(struct lora_others *others, const struct lora_plan *plan,
				   const char *written, struct lora_error *err);
void lora__undo_others_fini(struct lora_others *others);

#endif
