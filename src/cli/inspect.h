/* SPDX-License-Identifier: Apache-2.0 */
/* cli/inspect.h - what `loractl inspect` found out about one path, and its two ways to say it. */
#ifndef LORA_CLI_INSPECT_H
#define LORA_CLI_INSPECT_H

#include <loractl/container.h>
#include <loractl/inspect.h>
#include <loractl/unmerge.h>

#include "cmd.h"

/* Lines that somebody collected. */
struct lines {
	char **line;
	size_t count;
};

/* What the user asked for. */
struct inspect_view {
	bool modules, tensors, spectrum;
	const char *base;   /* NULL: not asked */
	const char *engine; /* NULL: not asked */
};

/* One path. Of a container the log is set, and the adapter if that could be opened; else exactly
 * one of model, adapter and record. (Of a record's tensors the model tells.) */
struct inspected {
	const char *path;
	enum lora_kind kind;
	struct lora_log *log;
	struct lora_model *model;
	struct lora_adapter *adapter;
	struct lora_undo_record *record;
	struct lora_sha256 root;
	bool fits, loads; /* meaningful if asked */
	struct lines misfits, obstacles;
	struct lines problems; /* of a model */
};

/* Element counts by type, in the order of enum lora_dtype. */
struct type_sums {
	uint64_t tensors[LORA_DTYPE_COUNT], elements[LORA_DTYPE_COUNT], bytes[LORA_DTYPE_COUNT];
};
void sum_types(struct type_sums *sums, const struct lora_model *model);

/* The smallest and largest rank of the modules that have one; 0 and 0 without. */
void rank_range(const struct lora_adapter *adapter, uint32_t *min, uint32_t *max);

/* Schema loractl.inspect/1. */
enum lora_status inspect_json(struct lora_json_writer *writer, const struct inspected *what,
			      const struct inspect_view *view, struct lora_error *err);
enum lora_status inspect_text(struct ui *ui, const struct inspected *what,
			      const struct inspect_view *view, struct lora_error *err);

#endif
