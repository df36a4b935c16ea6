/* SPDX-License-Identifier: Apache-2.0 */
/* merge/undo_read.h - an undo record, loractl-undo(5), opened: believed in nothing. */
#ifndef LORA_MERGE_UNDO_READ_H
#define LORA_MERGE_UNDO_READ_H

#include "merge/plan.h"
#include "merge/undo_files.h"

/* The biggest numbers that a record may ask for, beside those of its page. */
#define LORA_UNDO_TENSORS_LIMIT 2000000u /* as of a checkpoint */

struct lora_undo_file {
	const char *name;
	uint64_t size;
	struct lora_sha256 sha256, head_sha256; /* the latter of merged files only */
};

/* A factor's range, and its tensors in the record. */
struct lora_undo_part {
	bool dense;
	float scale;
	uint64_t row0, rows, col0, cols;
	uint32_t left, right; /* positions in the index; left alone for a dense part */
};

struct lora_undo_tensor {
	const char *name;
	bool from_nothing;
	uint64_t width;
	struct lora_undo_part *parts;
	size_t part_count;
	uint64_t *rows;
	size_t row_count;
	bool has_gain, gain_by_column;
	uint32_t gain, residual; /* positions in the index */
	struct lora_residual_chunk *chunks;
	size_t chunk_count;
};

struct lora_undo_merged {
	const char *name;
	struct lora_sha256 sha256;
};

/* What record.json says, checked for itself. */
struct lora_undo {
	struct lora_arena arena;
	struct lora_sha256 base_root, merged_root;
	bool directory;
	struct lora_undo_file *base_files, *merged_files;
	size_t base_file_count, merged_file_count;
	struct lora_others others; /* base and merged; of stored ones `data` is NULL */
	struct lora_undo_merged *merged_tensors;
	size_t merged_tensor_count;
	struct lora_map merged_by_name;
	struct lora_undo_tensor *tensors;
	size_t tensor_count;
	size_t adapter_count;
	const char **adapter_names;
};

/* A PURE function of record.json and the record's index. LORA_INPUT for what readers refuse. The
 * caller finis *undo, zeroed before, also after a failure. */
enum lora_status lora__undo_parse(struct lora_undo *undo, const char *text, size_t size,
				  const struct lora_index *index, struct lora_error *err);
void lora__undo_fini(struct lora_undo *undo);

/* Opens a record as what an adapter is to the arithmetic: one file with tensors. The caller finis
 * *store, zeroed with LORA_UNDO_STORE_INIT, also after a failure. */
enum lora_status lora__undo_open(struct lora_adapter *store, struct lora_undo *undo,
				 const char *path, struct lora_error *err);
void lora__undo_close(struct lora_adapter *store, struct lora_undo *undo);

/* Position of tensor "NAME.NUMBER" in an index, or LORA_NO_TENSOR. */
uint32_t lora__undo_find(const struct lora_index *index, const char *name, size_t number);

#endif
