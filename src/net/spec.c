/* SPDX-License-Identifier: Apache-2.0 */
/* net/spec.c - config.json to a spec: the contract is in spec.h */
#include "net/spec.h"

#include <inttypes.h>
#include <string.h>

#include "base/error.h"
#include "formats/families.h"

/* Limits, so that products of two sizes stay far from 2^64: each is a hundred times the largest
 * model's. */
#define SIZE_LIMIT  ((uint64_t)1 << 24) /* widths, vocabulary, positions */
#define LAYER_LIMIT ((uint64_t)1 << 14)

static enum lora_status find_family(struct lora_spec *spec, const struct lora_json *config,
				    struct lora_error *err)
{
	const char *type = lora__json_string(lora__json_get(config, "model_type"));
	const struct lora_json *architectures = lora__json_get(config, "architectures");
	const char *name = lora__json_string(lora__json_first(architectures));

	if (!type)
		return lora__fail(err, LORA_INPUT,
				  "config.json has no 'model_type': the model cannot be run");
	for (size_t i = 0; lora__net_families[i] && !spec->family; i++)
		if (strcmp(lora__net_families[i]->type, type) == 0)
			spec->family = lora__net_families[i];
	if (!spec->family)
		return lora__fail(err, LORA_INPUT,
				  "models of type '%s' cannot be run (llama, mistral, qwen2, "
				  "qwen3 and gpt2 can)",
				  lora__escape(type));
	if (name && strcmp(name, spec->family->architecture) != 0)
		return lora__fail(err, LORA_INPUT,
				  "a model of architecture '%s' cannot be run: it is no '%s'",
				  lora__escape(name), spec->family->architecture);
	return LORA_OK;
}

static bool is_one_of(const char *key, const char *const *list)
{
	for (; *list; list++)
		if (strcmp(*list, key) == 0)
			return true;
	return false;
}

static bool is_understood(const struct lora_net_family *f, const char *key)
{
	const char *const sizes[] = {f->vocabulary.name, f->width.name, f->hidden.name,
				     f->layers.name,	 f->heads.name, f->positions.name,
				     f->activation_key,	 f->eps_key,	NULL};
	static const char *const turned[] = {
	    "num_key_value_heads", "head_dim",	      "rope_theta", "rope_scaling",
	    "layer_types",	   "rope_parameters", NULL};

	return is_one_of(key, sizes) || is_one_of(key, f->keys) ||
	       (f->turned && is_one_of(key, turned));
}

static enum lora_status check_keys(const struct lora_spec *spec, const struct lora_json *config,
				   bool allow_unknown, struct lora_error *err)
{
	for (const struct lora_json *m = lora__json_first(config); m; m = lora__json_next(m)) {
		const char *key = lora__json_key(m);

		if (!allow_unknown && !lora__json_is_empty(m) &&
		    !is_understood(spec->family, key) && !lora__spec_harmless(key))
			return lora__fail(err, LORA_INPUT,
					  "config.json: key '%s' is not known, and could change "
					  "what a %s model computes: --allow-unknown ignores it",
					  lora__escape(key), spec->family->type);
	}
	return LORA_OK;
}

/* A size that is there, or its default (which may be 0). */
static enum lora_status size_or(const struct lora_json *config, const struct lora_size_key *key,
				uint64_t otherwise, size_t *out, struct lora_error *err)
{
	const struct lora_json *member = key->name ? lora__json_get(config, key->name) : NULL;
	uint64_t value = otherwise;

	if (member && lora__json_type(member) != LORA_JSON_NULL &&
	    (!lora__json_u64(member, &value) || value == 0 || value > SIZE_LIMIT))
		return lora__fail(err, LORA_INPUT,
				  "config.json: '%s' is no number from 1 to %" PRIu64, key->name,
				  SIZE_LIMIT);
	*out = (size_t)value;
	return LORA_OK;
}

static enum lora_status size(const struct lora_json *config, const struct lora_size_key *key,
			     size_t *out, struct lora_error *err)
{
	enum lora_status status = size_or(config, key, key->otherwise, out, err);

	if (!status && *out == 0)
		status = lora__fail(err, LORA_INPUT, "config.json has no '%s'", key->name);
	return status;
}

static enum lora_status read_sizes(struct lora_spec *spec, const struct lora_json *config,
				   struct lora_error *err)
{
	const struct lora_net_family *f = spec->family;
	enum lora_status status = size(config, &f->vocabulary, &spec->vocabulary, err);

	if (!status)
		status = size(config, &f->width, &spec->width, err);
	if (!status)
		status = size(config, &f->layers, &spec->layers, err);
	if (!status)
		status = size(config, &f->heads, &spec->heads, err);
	if (!status)
		status = size(config, &f->positions, &spec->positions, err);
	if (!status) /* GPT-2's n_inner is null as a rule */
		status =
		    size_or(config, &f->hidden, f->gated ? 0 : 4 * spec->width, &spec->hidden, err);
	if (!status)
		status = size_or(config, &f->kv_heads,
				 f->kv_heads.otherwise && !lora__json_get(config, f->kv_heads.name)
				     ? f->kv_heads.otherwise
				     : spec->heads,
				 &spec->kv_heads, err);
	if (!status)
		status = size_or(config, &f->head_dim,
				 f->head_dim.otherwise && !lora__json_get(config, f->head_dim.name)
				     ? f->head_dim.otherwise
				     : 0,
				 &spec->head_dim, err);
	return status;
}

static enum lora_status check_sizes(struct lora_spec *spec, struct lora_error *err)
{
	if (spec->hidden == 0)
		return lora__fail(err, LORA_INPUT, "config.json has no '%s'",
				  spec->family->hidden.name);
	if (spec->layers > LAYER_LIMIT)
		return lora__fail(err, LORA_INPUT, "config.json: %zu layers are more than %" PRIu64,
				  spec->layers, LAYER_LIMIT);
	if (spec->head_dim == 0 && spec->width % spec->heads)
		return lora__fail(err, LORA_INPUT,
				  "config.json: a width of %zu is no multiple of %zu heads",
				  spec->width, spec->heads);
	if (spec->head_dim == 0)
		spec->head_dim = spec->width / spec->heads;
	if (spec->heads % spec->kv_heads)
		return lora__fail(
		    err, LORA_INPUT,
		    "config.json: %zu heads of queries are no multiple of %zu of keys", spec->heads,
		    spec->kv_heads);
	if (spec->heads > SIZE_LIMIT / spec->head_dim)
		return lora__fail(err, LORA_INPUT, "config.json: %zu heads of %zu are too many",
				  spec->heads, spec->head_dim);
	return LORA_OK;
}

static enum lora_status read_activation(struct lora_spec *spec, const struct lora_json *config,
					struct lora_error *err)
{
	static const struct {
		const char *name;
		enum lora_activation activation;
		bool gated; /* only kernels that exist are offered */
	} known[] = {
	    {"silu", LORA_ACTIVATION_SILU, true},
	    {"swish", LORA_ACTIVATION_SILU, true},
	    {"gelu_new", LORA_ACTIVATION_GELU_TANH, false},
	    {"gelu_pytorch_tanh", LORA_ACTIVATION_GELU_TANH, false},
	};
	const struct lora_net_family *f = spec->family;
	const struct lora_json *member = lora__json_get(config, f->activation_key);
	const char *name = member ? lora__json_string(member) : f->default_activation;

	for (size_t i = 0; name && i < sizeof(known) / sizeof(*known); i++)
		if (strcmp(known[i].name, name) == 0 && known[i].gated == f->gated) {
			spec->activation = known[i].activation;
			return LORA_OK;
		}
	return lora__fail(err, LORA_INPUT, "config.json: %s '%s' is not supported for %s models",
			  f->activation_key, name ? lora__escape(name) : "(no string)", f->type);
}

static enum lora_status flag(const struct lora_json *config, const char *key, bool otherwise,
			     bool *out, struct lora_error *err)
{
	const struct lora_json *member = lora__json_get(config, key);

	*out = otherwise;
	if (!member || lora__json_type(member) == LORA_JSON_NULL || lora__json_bool(member, out))
		return LORA_OK;
	return lora__fail(err, LORA_INPUT, "config.json: '%s' is neither true nor false", key);
}

static enum lora_status read_flags(struct lora_spec *spec, const struct lora_json *config,
				   struct lora_error *err)
{
	struct lora_base_view view = {NULL, config, spec->family->type, NULL, NULL};
	const struct lora_json *eps = lora__json_get(config, spec->family->eps_key);
	double value = spec->family->default_eps;
	bool scaled = true;
	enum lora_status status = flag(config, "attention_bias", false, &spec->attention_bias, err);

	spec->tied = lora__family_ties(&view) == LORA_ANSWER_YES;
	if (!status)
		status = flag(config, "mlp_bias", false, &spec->mlp_bias, err);
	if (!status)
		status =
		    flag(config, "scale_attn_by_inverse_layer_idx", false, &spec->scale_down, err);
	if (!status)
		status = flag(config, "scale_attn_weights", true, &scaled, err);
	if (!status && !scaled)
		status = lora__fail(err, LORA_INPUT,
				    "config.json: 'scale_attn_weights' false is not supported");
	if (!status && eps && (!lora__json_double(eps, &value) || !(value >= 0 && value < 1)))
		status = lora__fail(err, LORA_INPUT, "config.json: '%s' is no number from 0 to 1",
				    spec->family->eps_key);
	spec->eps = (float)value;
	return status;
}

/* layer_types: which layers slide. Families that have no such list may carry one that says nothing
 * else than they do. */
static enum lora_status read_types(struct lora_spec *spec, const struct lora_json *config,
				   size_t window, struct lora_error *err)
{
	const struct lora_json *types = lora__json_get(config, "layer_types"),
			       *type = lora__json_first(types);

	if (!types || lora__json_type(types) == LORA_JSON_NULL)
		return LORA_OK;
	if (lora__json_type(types) != LORA_JSON_ARRAY || lora__json_count(types) != spec->layers)
		return lora__fail(err, LORA_INPUT,
				  "config.json: 'layer_types' is no list of %zu layers",
				  spec->layers);
	for (size_t i = 0; i < spec->layers; i++, type = lora__json_next(type)) {
		const char *name = lora__json_string(type);
		bool slides = name && strcmp(name, "sliding_attention") == 0;
		size_t own = slides ? window : 0;

		if (!name || (!slides && strcmp(name, "full_attention") != 0))
			return lora__fail(err, LORA_INPUT,
					  "config.json: layer type '%s' is not supported",
					  name ? lora__escape(name) : "(no string)");
		if (spec->family->window != LORA_WINDOW_TYPES && own != spec->window[i])
			return lora__fail(err, LORA_INPUT,
					  "config.json: 'layer_types' of a %s model is not "
					  "supported",
					  spec->family->type);
		spec->window[i] = own;
	}
	return LORA_OK;
}

static enum lora_status read_windows(struct lora_spec *spec, const struct lora_json *config,
				     struct lora_arena *arena, struct lora_error *err)
{
	const struct lora_net_family *f = spec->family;
	const struct lora_size_key key = {"sliding_window", 0},
				   first_key = {"max_window_layers", 0};
	const struct lora_json *given = lora__json_get(config, "sliding_window");
	bool slides = f->window == LORA_WINDOW_ALL;
	size_t window = 0, first = 0;
	enum lora_status status = LORA_OK;

	spec->window = lora__arena_array(arena, spec->layers, sizeof(*spec->window));
	if (!spec->window)
		return lora__fail_memory(err);
	if (f->window == LORA_WINDOW_TYPES)
		status = flag(config, "use_sliding_window", false, &slides, err);
	if (!status && f->window == LORA_WINDOW_TYPES && slides) {
		uint64_t layers = 28;

		if (lora__json_get(config, first_key.name) &&
		    !lora__json_u64(lora__json_get(config, first_key.name), &layers))
			return lora__fail(err, LORA_INPUT, "config.json: '%s' is no number",
					  first_key.name);
		first = layers < spec->layers ? (size_t)layers : spec->layers;
	}
	if (!status && slides)
		status = size_or(config, &key, given ? 0 : f->default_window, &window, err);
	for (size_t i = first; i < spec->layers; i++)
		spec->window[i] = window;
	return status ? status : read_types(spec, config, window, err);
}

enum lora_status lora__spec_parse(struct lora_spec *spec, const struct lora_json *config,
				  bool allow_unknown, struct lora_arena *arena,
				  struct lora_error *err)
{
	enum lora_status status;

	*spec = (struct lora_spec){0};
	status = find_family(spec, config, err);
	if (!status)
		status = check_keys(spec, config, allow_unknown, err);
	if (!status)
		status = read_sizes(spec, config, err);
	if (!status)
		status = check_sizes(spec, err);
	if (!status)
		status = read_activation(spec, config, err);
	if (!status)
		status = read_flags(spec, config, err);
	if (!status)
		status = read_windows(spec, config, arena, err);
	if (!status && spec->family->turned)
		status = lora__spec_rope(spec, config, arena, err);
	return status;
}
