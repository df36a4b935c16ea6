/* SPDX-License-Identifier: Apache-2.0 */
/* net/spec.h - what a model computes, as data: one description of a block that all families share.
 *
 *	x = embed[id] (+ position[p])
 *	for every layer:
 *		q, k, v = qkv(norm1(x)); q, k = q_norm(q), k_norm(k); q, k turned by the position
 *		x += out(softmax(scale * q k^T) v)
 *		x += down(act(gate(norm2(x))) * up(norm2(x)))		gated
 *		x += down(act(up(norm2(x))))				plain
 *	logits = head(norm(x))
 *
 * 1. A family is a row of the table in families.c: which of these parts it has, and what its
 *    tensors and its keys in config.json are called. There is no code for one family alone.
 * 2. A spec is a PURE function of config.json. Every key of it is known and understood, known to
 *    change nothing, or empty; any other is refused by name: it could change what the model
 *    computes.
 * 3. Where config.json is silent, the default of the family's class in transformers holds; sizes
 *    that have no sensible one must be there.
 */
#ifndef LORA_NET_SPEC_H
#define LORA_NET_SPEC_H

#include "base/arena.h"
#include "base/json.h"
#include <loractl/types.h>

enum lora_norm_kind { LORA_NORM_RMS, LORA_NORM_LAYER };
enum lora_activation { LORA_ACTIVATION_SILU, LORA_ACTIVATION_GELU_TANH };
/* Which layers look back only so far: none, all of them, or as layer_types says. */
enum lora_window_rule { LORA_WINDOW_NONE, LORA_WINDOW_ALL, LORA_WINDOW_TYPES };
/* When a module has a bias: never, always, or if the config's attention_bias or mlp_bias says so.
 */
enum lora_bias_rule {
	LORA_BIAS_NEVER,
	LORA_BIAS_ALWAYS,
	LORA_BIAS_ATTENTION,
	LORA_BIAS_MLP,
};

/* A module with a weight; its name stands behind the block's. */
struct lora_module_row {
	const char *name; /* NULL: the row is empty */
	enum lora_bias_rule bias;
};

/* A size in config.json. */
struct lora_size_key {
	const char *name;
	uint64_t otherwise; /* where it is absent; 0: it must be there */
};

struct lora_net_family {
	const char *type;	  /* config.json's model_type */
	const char *architecture; /* the class with the head */
	enum lora_norm_kind norm;
	bool gated, turned; /* the MLP is; positions turn q and k (else they are learned) */
	bool conv1d;	    /* weights stand [in, out] */
	enum lora_window_rule window;
	uint64_t default_window;
	/* config.json */
	struct lora_size_key vocabulary, width, hidden, layers, heads, kv_heads, head_dim,
	    positions;
	const char *activation_key, *default_activation;
	const char *eps_key;
	double default_eps;
	const char *const *keys; /* further keys that are understood; ends with NULL */
	/* tensors; prefix is left out in some checkpoints */
	const char *prefix, *embed, *position, *norm_name, *block, *head;
	const char *norm1, *norm2, *q_norm, *k_norm;
	struct lora_module_row qkv[3], out, up[2], down; /* gate before up */
};

extern const struct lora_net_family *const lora__net_families[]; /* NULL-terminated */

struct lora_spec {
	const struct lora_net_family *family;
	size_t vocabulary, width, hidden, layers, heads, kv_heads, head_dim, positions;
	float eps;
	enum lora_activation activation;
	bool attention_bias, mlp_bias, tied;
	float *inverse;	 /* [head_dim/2] angle of a position, by pair; NULL if positions are learned
			  */
	size_t *window;	 /* [layers] a position sees itself and window - 1 before it; 0: all */
	bool scale_down; /* layer i's scores are divided by i + 1 as well */
};

/* Everything lives in the arena. LORA_INPUT if the model is not supported, or its config is
 * malformed; the key is named. */
enum lora_status lora__spec_parse(struct lora_spec *spec, const struct lora_json *config,
				  bool allow_unknown, struct lora_arena *arena,
				  struct lora_error *err);

/* Steps of it: the angles (rope.c). */
enum lora_status lora__spec_rope(struct lora_spec *spec, const struct lora_json *config,
				 struct lora_arena *arena, struct lora_error *err);
/* Is it a key that changes nothing of what the model computes? (keys.c) */
bool lora__spec_harmless(const char *key);

#endif
