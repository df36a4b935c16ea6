/* SPDX-License-Identifier: Apache-2.0 */
/* formats/dialect.h - how trainers spell an adapter. A dialect knows spellings; it knows nothing
 * of files.
 *
 * decode() is a PURE function of (tensor index, config, base view) to edits. It reads no tensor
 * data and chooses no prefix: it asks the base view for names, and the caller may put a renaming
 * in between and call again. Without a base (NULL) it decodes as far as the adapter alone tells:
 * targets as the adapter spells them, default orientation. */
#ifndef LORA_FORMATS_DIALECT_H
#define LORA_FORMATS_DIALECT_H

#include "base/json.h"
#include "formats/container.h"
#include "formats/edit.h"
#include <loractl/progress.h>

/* The base as a dialect sees it. All borrowed. */
struct lora_base_view {
	const struct lora_index *index;
	const struct lora_json *config; /* config.json; NULL for a single file */
	const char *model_type;		/* may be NULL */
	/* Maps a name that the adapter wants to the one to look up; NULL: unchanged. The result
	 * lives as long as the arena. */
	const char *(*rename)(void *user, struct lora_arena *arena, const char *name);
	void *rename_user;
};

struct lora_found {
	uint32_t tensor;  /* in base->index, or LORA_NO_TENSOR */
	bool tied_alias;  /* the name is the absent half of a tie; `tensor` the stored half */
	const char *name; /* after renaming: what the target is called in the base */
	bool respelled;	  /* a row of the table of families led there, not the name itself */
};
/* Looks a wanted tensor name up in the base, renamed, ties resolved (formats/families.h). */
struct lora_found lora__base_find(const struct lora_base_view *base, struct lora_arena *arena,
				  const char *name);

struct lora_unmatched {
	const char *tensor; /* the adapter's tensor */
	const char *why; /* "no tensor 'X' in the base", "shape [2, 3] does not fit [4, 3]", ... */
	const char *wanted; /* the base name that was looked for, or NULL */
};

/* A rule that was applied (LORA_NOTE_INFO, _DETAIL) or a warning, as one line; names in it are
 * escaped. */
struct lora_decode_note {
	enum lora_note_level level;
	bool obstacle; /* the trainer's own library would not do what the edits say */
	const char *line;
};

struct lora_decode {
	/* in */
	const struct lora_index *tensors;  /* the adapter's */
	const struct lora_json *config;	   /* adapter_config.json, or what stands for it; or NULL */
	const struct lora_base_view *base; /* NULL: none */
	bool allow_unknown;
	bool allow_mutated_base;  /* accept adapters that were trained beside a base which their
				     initialisation changed */
	struct lora_arena *arena; /* everything below lives here */
	/* out */
	const char *method;	/* "lora", "dora", "rslora" */
	const char *base_name;	/* base_model_name_or_path, or NULL */
	const char *mutated_by; /* "pissa": the initialisation that changed the base; or NULL */
	struct lora_edit *edits;
	size_t edit_count;
	struct lora_unmatched *unmatched; /* tensors that found no place; the caller decides */
	size_t unmatched_count;
	struct lora_decode_note *notes;
	size_t note_count;
};

/* How decode() hands out what it finds. A new edit is zeroed, its kind, target and rows, cols are
 * set, base_tensor is LORA_NO_TENSOR, the scale 1. NULL without memory, with err set. */
struct lora_edit *lora__decode_edit(struct lora_decode *decode, enum lora_edit_kind kind,
				    const char *target, struct lora_error *err);
/* `why` and `wanted` must live as long as the arena. */
enum lora_status lora__decode_unmatched(struct lora_decode *decode, uint32_t tensor,
					const char *why, const char *wanted,
					struct lora_error *err);
enum lora_status lora__decode_note(struct lora_decode *decode, enum lora_note_level level,
				   struct lora_error *err, const char *format, ...)
    LORA_PRINTF(4, 5);
/* Proves what every dialect promises: sources and views name tensors that exist and stay inside
 * them; ranges lie inside the target; every tensor of the adapter is in the sources of exactly
 * one edit, or in unmatched (edits that share ALL their sources count as one: the experts of one
 * module); no two edits of one kind mean the same place. LORA_INPUT if not. */
enum lora_status lora__decode_check(const struct lora_decode *decode, struct lora_error *err);

struct lora_dialect {
	const char *name;
	/* 0 to 100. */
	int (*probe)(const struct lora_index *tensors, const struct lora_json *config);
	/* LORA_INPUT with one line for what is malformed or not supported (naming the config key,
	 * the tensor, the peft_type). A tensor that merely finds no place in the base goes to
	 * `unmatched`. Postcondition: every adapter tensor is in some edit's sources or in
	 * unmatched. */
	enum lora_status (*decode)(struct lora_decode *decode, struct lora_error *err);
};

extern const struct lora_dialect lora__peft;
extern const struct lora_dialect *const lora__dialects[]; /* NULL-terminated */
const struct lora_dialect *lora__dialect_probe(const struct lora_index *tensors,
					       const struct lora_json *config);

#endif
