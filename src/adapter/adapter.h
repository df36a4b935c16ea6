/* SPDX-License-Identifier: Apache-2.0 */
/* adapter/adapter.h - opening an adapter, and laying it over a base, inside the library.
 *
 * 1. An adapter is one index over one or more safetensors files, plus a config. Its dialect is
 *    found by probing.
 * 2. lora__adapter_resolve() runs the dialect against a base. The base's own names drive it: as
 *    spelled first; if tensors stay unmatched, each single leading component (`model.`,
 *    `transformer.`, `base_model.model.`) added to or stripped from all names is tried, and taken
 *    when exactly one such choice leaves nothing unmatched. A --key-map is applied before.
 * 3. After it, every tensor of the adapter is in an edit's sources or in `unmatched`: counted
 *    here once more, whatever the dialect says. */
#ifndef LORA_ADAPTER_ADAPTER_H
#define LORA_ADAPTER_ADAPTER_H

#include "adapter/source.h"
#include "base/file.h"
#include "checkpoint/checkpoint.h"
#include "formats/dialect.h"
#include <loractl/adapter.h>

/* The edits of one module, in decode.edits: one, or one per expert. */
struct lora_span {
	size_t first, count;
};

struct lora_adapter {
	char *path, *name;
	bool directory;
	const struct lora_origin *origin;
	struct lora_store *store; /* of a container, with the version's snapshot; else NULL */
	struct lora_snapshot *snapshot;
	struct lora_source *files; /* tensor.file indexes it */
	size_t file_count;
	struct lora_index index;
	char *config_text;
	size_t config_size;
	struct lora_json *config; /* may be NULL */
	const struct lora_dialect *dialect;
	struct lora_arena arena;
	struct lora_decode decode; /* without a base: what inspect shows */
	bool allow_unknown, allow_mutated_base;
	char **key_map; /* copied pairs, or NULL */
	bool bound;
	struct lora_sha256 bound_root;
	bool measured, root_known;
	struct lora_sha256 root;
	struct lora_module *modules;
	struct lora_span *spans; /* by module */
	size_t module_count;
	char **problems; /* malloc'd */
	size_t problem_count;
	struct lora_adapter_part *parts; /* malloc'd */
	size_t part_count;
	bool parts_hashed; /* the weights are among them */
};

/* The adapter's edits on one base. */
struct lora_resolved {
	struct lora_arena arena;
	struct lora_edit *edits;
	size_t edit_count;
	struct lora_unmatched *unmatched;
	size_t unmatched_count;
	const char *prefix; /* what was done to all names, "added 'model.'"; NULL if nothing */
};

/* LORA_INPUT if the adapter is malformed or unsupported for this base; unmatched tensors are NOT
 * a failure here. Notes (rules, warnings, the prefix) go to the observer. The caller finis `out`
 * in any case. */
enum lora_status lora__adapter_resolve(struct lora_resolved *out, struct lora_adapter *adapter,
				       const struct lora_model *base,
				       const struct lora_observer *observer,
				       struct lora_error *err);
void lora__resolved_fini(struct lora_resolved *resolved);

/* One note (LORA_NOTE_PROBLEM) per unmatched tensor, with the closest base names; then fails with
 * LORA_INPUT and their number. */
enum lora_status lora__adapter_refuse_unmatched(const struct lora_resolved *resolved,
						const struct lora_adapter *adapter,
						const struct lora_model *base,
						const struct lora_observer *observer,
						struct lora_error *err);

/* rows row0 .. row0+rows of a view, widened exactly to f32, row-major, packed: dst[i*view->cols +
 * j]. LORA_INPUT for a value that is not finite, naming tensor and element. Thread-safe. Stored
 * types F32, F16, BF16 (F64 is refused by the dialect). */
enum lora_status lora__view_read(const struct lora_adapter *adapter, const struct lora_view *view,
				 uint64_t row0, uint64_t rows, float *dst, struct lora_error *err);

/* The same, but a value that is not finite is no failure: *bad becomes the number (in its tensor)
 * of the first such element that was met, else UINT64_MAX. */
enum lora_status lora__view_read_any(const struct lora_adapter *adapter,
				     const struct lora_view *view, uint64_t row0, uint64_t rows,
				     float *dst, uint64_t *bad, struct lora_error *err);
/* "tensor 'x': element [3, 17] is not finite", into a buffer of LORA_ERROR_SIZE. */
void lora__view_complain(const struct lora_adapter *adapter, const struct lora_view *view,
			 uint64_t element, char *line);

/* Steps of lora_adapter_open(), each in its file. */
enum lora_status lora__adapter_files(struct lora_adapter *adapter,
				     struct lora_error *err); /* files.c */
enum lora_status lora__adapter_config(struct lora_adapter *adapter,
				      struct lora_error *err); /* config.c */
enum lora_status lora__adapter_modules(struct lora_adapter *adapter,
				       struct lora_error *err); /* modules.c */
/* Notes a file that was read whole (or, text NULL, looked for in vain): parts.c. */
enum lora_status lora__adapter_part(struct lora_adapter *adapter, const char *name,
				    const char *text, size_t size, struct lora_error *err);
/* Adds a line to the problems. */
enum lora_status lora__adapter_problem(struct lora_adapter *adapter, struct lora_error *err,
				       const char *format, ...) LORA_PRINTF(3, 4);

/* Why an unmatched tensor is: "tensor 'x': no tensor 'y' in the base; the closest is 'z'".
 * `nearest` may be NULL. Into a buffer of LORA_ERROR_SIZE. */
struct lora_nearest;
void lora__unmatched_line(const struct lora_unmatched *unmatched, struct lora_nearest *nearest,
			  char *line);

#endif
