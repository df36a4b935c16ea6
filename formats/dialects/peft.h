/* SPDX-License-Identifier: Apache-2.0 */
/* formats/dialects/peft.h - shared by the files of the PEFT dialect; nothing else includes it.
 *
 *	adapter_config.json --peft_config.c--> struct peft_config
 *	tensor names --peft_keys.c, peft_collect.c--> struct peft_module, struct peft_whole
 *	modules --peft_patterns.c, peft_scale.c--> r, alpha, s
 *	modules --peft_orient.c, peft_layers.c, peft_experts.c--> edits
 *	whole tensors --peft_whole.c--> edits
 *	config against tensors --peft_targets.c--> warnings
 *
 * Letters: A [r, in], B [out, r] as the adapter stores them; W as the base stores it. */
#ifndef LORA_DIALECTS_PEFT_H
#define LORA_DIALECTS_PEFT_H

#include "formats/dialect.h"
#include "formats/families.h"

#define PEFT_RANK_LIMIT                                                                            \
	65536u /* sixteen times the widest projection that anyone adapts at full rank */
#define PEFT_EXPERT_LIMIT 4096u /* ten times the largest mixture on the hub */
#define PEFT_PREFIX	  "base_model.model."

/* --- config ---------------------------------------------------------------------------------- */

struct peft_config {
	uint32_t r;
	double alpha;
	bool r_missing, alpha_missing; /* PEFT's default, 8, stands in */
	bool rslora, dora, lora_bias, fan_in_fan_out;
	const char *init;		      /* init_lora_weights, if it is a word */
	const struct lora_json *rank_pattern; /* an object, or NULL; so the next */
	const struct lora_json *alpha_pattern;
	const struct lora_json *modules_to_save; /* an array of strings, or NULL; so the next */
	const struct lora_json *target_parameters;
	const struct lora_json *tokens; /* an array or an object of arrays, or NULL */
	const struct lora_json *layers; /* layers_to_transform: a number or array, or NULL */
	bool has_version;
	unsigned version[3]; /* peft_version */
	bool dev;	     /* a development build */
};

/* LORA_INPUT for what is malformed, unknown or not supported, naming the key. */
enum lora_status lora__peft_config(struct peft_config *out, struct lora_decode *decode,
				   struct lora_error *err);

/* --- keys ------------------------------------------------------------------------------------ */

enum peft_role {
	PEFT_A,	     /* lora_A.weight */
	PEFT_B,	     /* lora_B.weight */
	PEFT_B_BIAS, /* lora_B.bias */
	PEFT_EMBEDDING_A,
	PEFT_EMBEDDING_B,
	PEFT_MAGNITUDE,
	PEFT_TOKENS, /* token_adapter.trainable_tokens_delta */
	PEFT_ROLES,
	PEFT_WHOLE = PEFT_ROLES, /* a tensor of the base as it shall be */
	PEFT_OTHER,		 /* a LoRA tensor of a kind that we do not know */
};

struct peft_key {
	enum peft_role role;
	/* the module, without PEFT's prefix and wrappers; for PEFT_WHOLE the tensor */
	const char *path;
	const char *owner;   /* the module that was targeted: `path`, but for a part of a wrapped
				module that one */
	const char *adapter; /* the adapter's name if the key holds one, else NULL */
	unsigned depth;	     /* wrappers named base_layer at the end of the path */
	bool wrapped;	     /* PEFT_WHOLE: spelled with base_layer: the module is adapted, too */
};

/* NULL strings only without memory. */
enum lora_status lora__peft_key_parse(struct peft_key *out, struct lora_arena *arena,
				      const char *name, struct lora_error *err);

/* Tensors of one module. */
struct peft_module {
	const char *path, *owner;
	unsigned depth;
	uint32_t tensor[PEFT_ROLES]; /* or LORA_NO_TENSOR */
};

struct peft_whole {
	uint32_t tensor;
	const char *path; /* the base's tensor as the adapter spells it: "lm_head.weight" */
	bool wrapped;
	/* With a resized vocabulary PEFT saves an embedding up to three times: as PATH, which is
	 * the one that it loads, and as PATH's .modules_to_save. and .original_module. These are
	 * carried along: consumed, and not used. */
	uint32_t copies[2];
	size_t copy_count;
	bool carried; /* is such a copy itself */
};

/* What non-square modules say about orientation (orient.c): bit 1 << PEFT_STRAIGHT or 1 <<
 * PEFT_TRANSPOSED. */
struct peft_evidence {
	struct lora_map by_leaf; /* last component of the module's path -> position in bits */
	uint8_t *bits;
	size_t count;
	uint8_t all;
};

struct peft {
	struct lora_decode *decode;
	struct peft_config config;
	struct peft_module *modules;
	size_t module_count;
	struct lora_map module_by_id; /* "DEPTH PATH" -> position */
	struct peft_whole *wholes;
	size_t whole_count;
	struct lora_map whole_by_path;
	struct peft_patterns *rank, *alpha;
	struct peft_evidence evidence;
	bool respelled; /* told that names were found through the table of families */
};

/* Sorts the adapter's tensors into modules and wholes. LORA_INPUT for duplicates, missing halves,
 * tensors of unknown kind, types that we do not compute with. */
enum lora_status lora__peft_collect(struct peft *peft, struct lora_error *err);
/* The module with that path (which may be NULL) and depth, or NULL. */
const struct peft_module *lora__peft_module(struct peft *peft, const char *path, unsigned depth);
/* The whole tensor with that path, or NULL. */
const struct peft_whole *lora__peft_whole(const struct peft *peft, const char *path);

/* --- patterns -------------------------------------------------------------------------------- */

struct peft_patterns;

/* *out is freed by lora__peft_patterns_free also after a failure. `key` is the config's name for
 * the object. */
enum lora_status lora__peft_patterns_new(struct peft_patterns **out, const char *key,
					 const struct lora_json *object, struct lora_error *err);
/* One expression that has to match a whole path: re.fullmatch(EXPRESSION, name). */
enum lora_status lora__peft_expression_new(struct peft_patterns **out, const char *key,
					   const char *expression, struct lora_error *err);
void lora__peft_patterns_free(struct peft_patterns *patterns);
/* The first entry, in the file's order, that matches `name`: PEFT's re.match(r"(.*\.)?(KEY)$",
 * name). -1 without one. *clash is the first later entry that matches, too, with another value,
 * or -1. */
enum lora_status lora__peft_patterns_match(struct peft_patterns *patterns, const char *name,
					   int *entry, int *clash, struct lora_error *err);
const char *lora__peft_patterns_key(const struct peft_patterns *patterns, int entry);
double lora__peft_patterns_value(const struct peft_patterns *patterns, int entry);
/* True the first time it is asked of an entry. */
bool lora__peft_patterns_first(struct peft_patterns *patterns, int entry);
/* Has the entry matched anything yet? */
bool lora__peft_patterns_used(const struct peft_patterns *patterns, int entry);
int lora__peft_patterns_count(const struct peft_patterns *patterns);

/* --- scale ----------------------------------------------------------------------------------- */

struct peft_scale {
	uint32_t rank;
	double alpha, divisor, s; /* s = alpha / divisor */
	const char *from;
};

/* r, alpha and s of the module that PEFT knows as `name`. LORA_INPUT for values that cannot be. */
enum lora_status lora__peft_scale(struct peft *peft, const char *name, struct peft_scale *out,
				  struct lora_error *err);
/* Notes for pattern keys that matched nothing. */
enum lora_status lora__peft_scale_notes(struct peft *peft, struct lora_error *err);

/* --- orientation ----------------------------------------------------------------------------- */

enum peft_orientation {
	PEFT_STRAIGHT,	 /* W [out, in] */
	PEFT_TRANSPOSED, /* W [in, out] */
	PEFT_NO_FIT,	 /* neither fits the shape, or only the one that the family does not have */
};

/* Looks at all non-square modules first. */
enum lora_status lora__peft_orient_learn(struct peft *peft, struct lora_error *err);
/* How the weight `w` of the module stands, given B's out and A's in. LORA_INPUT where only a
 * guess is left. */
enum lora_status lora__peft_orient(const struct peft *peft, const struct peft_module *module,
				   const struct lora_tensor *w, enum peft_orientation *out,
				   struct lora_error *err);

/* --- edits ----------------------------------------------------------------------------------- */

/* Edits of the low-rank tensors of one module. */
enum lora_status lora__peft_layer(struct peft *peft, const struct peft_module *module,
				  struct lora_error *err);
/* The parameter of the module that these factors belong to, if target_parameters names one; NULL
 * if the module itself is adapted. */
enum lora_status lora__peft_parameter(struct peft *peft, const struct peft_module *module,
				      const char **parameter, struct lora_error *err);
/* A parameter [E, d1, d2] of experts, or (matrix) one of two dimensions. */
enum lora_status lora__peft_experts(struct peft *peft, const struct peft_module *module,
				    const char *parameter, struct lora_error *err);
enum lora_status lora__peft_matrix(struct peft *peft, const struct peft_module *module,
				   const char *name, const struct lora_found *found,
				   enum peft_orientation orientation, struct lora_error *err);
/* Replacements: modules_to_save, biases, embeddings; trainable tokens of a module. */
enum lora_status lora__peft_wholes(struct peft *peft, struct lora_error *err);
/* If modules_to_save names a module on the way to the tensor `path`: the path from that module's
 * last component on, else NULL. */
const char *lora__peft_saved(const struct peft *peft, const char *path);
/* Warns where the config and the tensors say different things. */
enum lora_status lora__peft_targets(struct peft *peft, struct lora_error *err);
enum lora_status lora__peft_tokens(struct peft *peft, const struct peft_module *module,
				   struct lora_error *err);

/* --- small helpers (peft.c) ------------------------------------------------------------------ */

const struct lora_tensor *lora__peft_tensor(const struct peft *peft, uint32_t tensor);
/* "[4, 3]": one of four rotating thread-local buffers. */
const char *lora__peft_shape(const struct lora_tensor *tensor);
/* A new edit with n sources, which follow as uint32_t; LORA_NO_TENSOR among them are left out. */
struct lora_edit *lora__peft_edit(struct peft *peft, enum lora_edit_kind kind, const char *target,
				  const char *module, const uint32_t *sources, size_t count,
				  struct lora_error *err);
/* Puts the base tensor's shape (or, without a base, `shape`) into the edit, seen with that width,
 * and the range over all of it. */
void lora__peft_target(struct lora_edit *edit, const struct lora_found *found, uint32_t ndim,
		       const uint64_t *shape, uint64_t width);
/* All tensors of the module that are there go to unmatched. */
enum lora_status lora__peft_unmatched(struct peft *peft, const struct peft_module *module,
				      const char *why, const char *wanted, struct lora_error *err);
/* Row-major [rows, cols] view of a whole tensor. */
struct lora_view lora__peft_view(uint32_t tensor, uint64_t rows, uint64_t cols);
struct lora_view lora__peft_turned(struct lora_view view); /* its transpose */
/* What stands in the base under that name; without a base {LORA_NO_TENSOR, false, name}. */
struct lora_found lora__peft_find(struct peft *peft, const char *name);
/* A note, once, that the table of families led from one spelling to the other. */
void lora__peft_respelled(struct peft *peft, const char *adapter, const char *base);
/* base tensor, or NULL. */
const struct lora_tensor *lora__peft_base(const struct peft *peft, const struct lora_found *found);
/* Does `path` equal `end`, or end in '.' and `end`? */
bool lora__peft_ends_in(const char *path, const char *end);

#endif
