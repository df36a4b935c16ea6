/* SPDX-License-Identifier: Apache-2.0 */
/* formats/dialects/peft_targets.c - does the config name what the adapter holds?
 *
 * The tensors decide what is merged. PEFT builds its modules from the config instead, and fills
 * them with the tensors: one that the config does not name is passed over, one that it names and
 * that is not there stops PEFT or leaves the base's. Where the two differ, somebody has edited one
 * of them, and what was evaluated in PEFT is not what the tensors say. So each difference is a
 * warning with its first example and their number, and, where PEFT would not do the same as we, an
 * obstacle.
 *
 * [1] target_modules and exclude_modules: a list, of which a module's path equals one or ends in
 *     "." and one; or one regular expression for the whole path. Null and "all-linear" are filled
 *     in by PEFT from the model: nothing to compare.
 * [2] layers_to_transform counts with a list only, for modules that are not named by their whole
 *     path, by the first number in it; layers_pattern makes it another number: not compared.
 * [3] target_parameters name "module.parameter", whole or by its end.
 * [4] PEFT lists both names that a classifier's head may have, "classifier" and "score".
 * [5] ensure_weight_tying adapts the other half of tied embeddings with the one that is named.
 * [6] A model without biases trains none, so that the base decides whether one is missing. */
#include "formats/dialects/peft.h"

#include "base/error.h"

#include <stdlib.h>
#include <string.h>

#define WORK_LIMIT 200000000u /* names times modules: 14,000 of each */

/* What differs: how many, and the first. */
struct difference {
	size_t count;
	const char *first;
};

static void add(struct difference *difference, const char *name)
{
	if (difference->count++ == 0)
		difference->first = name;
}

/* A warning; with `obstacle` also a reason why PEFT does not load the adapter as it is. */
static enum lora_status tell(struct peft *peft, const struct difference *found, bool obstacle,
			     const char *what, struct lora_error *err)
{
	struct lora_decode *decode = peft->decode;
	enum lora_status status;

	if (!found->count)
		return LORA_OK;
	status = lora__decode_note(
	    decode, LORA_NOTE_WARNING, err, "%s: '%s'%s", what, lora__escape(found->first),
	    found->count == 1
		? ""
		: lora__arena_printf(decode->arena, " and %zu more", found->count - 1));
	if (!status)
		decode->notes[decode->note_count - 1].obstacle = obstacle;
	return status;
}

/* --- which modules are targeted -------------------------------------------------------------- */

struct targets {
	const struct lora_json *list;
	struct peft_patterns *expression;
};

/* [1] An expression that we do not read as Python does is not compared; that is no mistake. */
static enum lora_status open_targets(struct targets *targets, const struct peft *peft,
				     const char *key, struct lora_error *err)
{
	const struct lora_json *value = lora__json_get(peft->decode->config, key);
	struct lora_error ignored = LORA_ERROR_INIT;
	enum lora_status status;

	if (value && lora__json_type(value) == LORA_JSON_ARRAY)
		targets->list = value;
	if (!lora__json_string(value) || !strcmp(lora__json_string(value), "all-linear"))
		return LORA_OK;
	status = lora__peft_expression_new(&targets->expression, key, lora__json_string(value),
					   &ignored);
	if (status == LORA_INPUT) {
		lora__peft_patterns_free(targets->expression);
		targets->expression = NULL;
		return lora__decode_note(peft->decode, LORA_NOTE_INFO, err,
					 "not compared with the tensors: %s", ignored.message);
	}
	return status ? lora__fail_memory(err) : LORA_OK;
}

enum named { NOT_NAMED, BY_END, BY_PATH };

static enum named find_target(const struct targets *targets, const char *path)
{
	const struct lora_json *item = targets->list ? lora__json_first(targets->list) : NULL;
	enum named named = NOT_NAMED;
	int entry = -1, clash;

	for (; item && named != BY_PATH; item = lora__json_next(item)) {
		const char *name = lora__json_string(item);

		if (name && !strcmp(name, path))
			named = BY_PATH;
		else if (name && lora__peft_ends_in(path, name))
			named = BY_END;
	}
	/* A match that takes too long is taken for one. */
	if (targets->expression &&
	    (lora__peft_patterns_match(targets->expression, path, &entry, &clash, NULL) ||
	     entry >= 0))
		named = BY_PATH;
	return named;
}

/* The number of the layer that a module's path names: its first component of digits. */
static bool layer_of(const char *path, uint64_t *layer)
{
	for (const char *at = path; at; at = strchr(at, '.')) {
		size_t digits;

		at += *at == '.';
		digits = strspn(at, "0123456789");
		if (digits && digits < 10 && (at[digits] == '.' || !at[digits])) {
			*layer = strtoull(at, NULL, 10);
			return true;
		}
	}
	return false;
}

/* [2] */
static bool is_listed(const struct lora_json *layers, const char *path)
{
	const struct lora_json *item;
	uint64_t layer, value;

	if (!layers || lora__json_is_empty(layers) || !layer_of(path, &layer))
		return true;
	if (lora__json_u64(layers, &value))
		return value == layer;
	for (item = lora__json_first(layers); item; item = lora__json_next(item))
		if (lora__json_u64(item, &value) && value == layer)
			return true;
	return false;
}

/* [3] */
static bool is_parameter(const struct peft *peft, const char *path)
{
	const struct lora_json *item = peft->config.target_parameters
					   ? lora__json_first(peft->config.target_parameters)
					   : NULL;

	for (; item; item = lora__json_next(item)) {
		const char *name = lora__json_string(item), *dot = strrchr(name, '.');
		const char *module =
		    dot ? lora__arena_copy(peft->decode->arena, name, (size_t)(dot - name)) : NULL;

		if (!dot || (module && lora__peft_ends_in(path, module)))
			return true;
	}
	return false;
}

/* [5] */
static bool is_tied(const struct peft *peft, const char *path)
{
	const char *weight = lora__arena_printf(peft->decode->arena, "%s.weight", path);
	bool tying = false;

	lora__json_bool(lora__json_get(peft->decode->config, "ensure_weight_tying"), &tying);
	return tying && weight && lora__family_is_embedding(weight);
}

static bool is_low_rank(const struct peft_module *module)
{
	return module->tensor[PEFT_A] != LORA_NO_TENSOR ||
	       module->tensor[PEFT_EMBEDDING_A] != LORA_NO_TENSOR;
}

static enum lora_status compare_modules(struct peft *peft, const struct targets *targets,
					const struct targets *excluded, struct lora_error *err)
{
	const struct lora_json *pattern = lora__json_get(peft->decode->config, "layers_pattern");
	const struct lora_json *layers =
	    targets->list && lora__json_is_empty(pattern) ? peft->config.layers : NULL;
	struct difference other = {0}, layer = {0};
	enum lora_status status;
	size_t names = (targets->list ? lora__json_count(targets->list) : 1) +
		       (excluded->list ? lora__json_count(excluded->list) : 1);

	if ((!targets->list && !targets->expression) ||
	    names > WORK_LIMIT / (peft->module_count + 1))
		return LORA_OK;
	for (size_t i = 0; i < peft->module_count; i++) {
		const struct peft_module *module = &peft->modules[i];
		enum named named = find_target(targets, module->owner);

		if (!is_low_rank(module) || is_parameter(peft, module->owner) ||
		    is_tied(peft, module->owner))
			continue;
		if (named == NOT_NAMED || find_target(excluded, module->owner))
			add(&other, module->path);
		else if (named == BY_END && !is_listed(layers, module->owner))
			add(&layer, module->path);
	}
	status = tell(peft, &other, true,
		      "target_modules does not name modules that the adapter has: PEFT passes "
		      "over them",
		      err);
	return status ? status
		      : tell(peft, &layer, true,
			     "layers_to_transform does not list layers that the adapter has: PEFT "
			     "passes over them",
			     err);
}

static enum lora_status check_targets(struct peft *peft, struct lora_error *err)
{
	struct targets targets = {0}, excluded = {0};
	enum lora_status status = open_targets(&targets, peft, "target_modules", err);

	if (!status)
		status = open_targets(&excluded, peft, "exclude_modules", err);
	if (!status)
		status = compare_modules(peft, &targets, &excluded, err);
	lora__peft_patterns_free(targets.expression);
	lora__peft_patterns_free(excluded.expression);
	return status;
}

/* --- what is named and not there ------------------------------------------------------------- */

/* Is a tensor of a module of that name stored whole? PEFT matches by the end of the text. */
static bool is_saved(const struct peft *peft, const char *name)
{
	size_t n = strlen(name);

	for (size_t i = 0; i < peft->whole_count; i++)
		for (const char *dot = strchr(peft->wholes[i].path, '.'); dot;
		     dot = strchr(dot + 1, '.'))
			if ((size_t)(dot - peft->wholes[i].path) >= n && !memcmp(dot - n, name, n))
				return true;
	return false;
}

static enum lora_status check_saved(struct peft *peft, struct lora_error *err)
{
	const struct lora_json *item =
	    peft->config.modules_to_save ? lora__json_first(peft->config.modules_to_save) : NULL;
	bool head = is_saved(peft, "classifier") || is_saved(peft, "score"); /* [4] */
	struct difference missing = {0};

	if (lora__json_count(peft->config.modules_to_save) >
	    WORK_LIMIT / (8 * peft->whole_count + 1))
		return LORA_OK;
	for (; item; item = lora__json_next(item)) {
		const char *name = lora__json_string(item);

		if (!is_saved(peft, name) &&
		    !(head && (!strcmp(name, "classifier") || !strcmp(name, "score"))))
			add(&missing, name);
	}
	return tell(peft, &missing, true,
		    "modules_to_save names modules of which the adapter has no tensor: PEFT does "
		    "not load it",
		    err);
}

static enum lora_status check_tokens(struct peft *peft, struct lora_error *err)
{
	struct difference missing = {1, "trainable_tokens_delta"};

	if (!peft->config.tokens || lora__json_is_empty(peft->config.tokens))
		return LORA_OK;
	for (size_t i = 0; i < peft->module_count; i++)
		if (peft->modules[i].tensor[PEFT_TOKENS] != LORA_NO_TENSOR)
			return LORA_OK;
	return tell(peft, &missing, true,
		    "trainable_token_indices is set, but the adapter has no tensor for it: PEFT "
		    "does not load it",
		    err);
}

/* --- biases ---------------------------------------------------------------------------------- */

/* A bias alone; that of a layer that is stored whole belongs to the layer. */
static bool is_bias(const struct peft *peft, const struct peft_whole *whole)
{
	size_t length = strlen(whole->path);
	const char *weight;

	if (!lora__peft_ends_in(whole->path, "bias") || lora__peft_saved(peft, whole->path))
		return false;
	weight =
	    lora__arena_printf(peft->decode->arena, "%.*sweight", (int)(length - 4), whole->path);
	return whole->wrapped || !weight || !lora__peft_whole(peft, weight);
}

/* [6] The first bias of the base that the config says is trained, or NULL. */
static const char *trained_bias(struct peft *peft, bool all)
{
	const struct lora_index *index = peft->decode->base ? peft->decode->base->index : NULL;

	for (size_t i = 0; all && index && i < index->count; i++)
		if (lora__peft_ends_in(index->tensors[i].name, "bias"))
			return index->tensors[i].name;
	for (size_t i = 0; index && i < peft->module_count; i++) {
		const char *name =
		    lora__arena_printf(peft->decode->arena, "%s.bias", peft->modules[i].path);

		if (name && is_low_rank(&peft->modules[i]) &&
		    lora__base_find(peft->decode->base, peft->decode->arena, name).tensor !=
			LORA_NO_TENSOR)
			return name;
	}
	return NULL;
}

/* PEFT loads a bias that is there whatever the config says, and keeps the base's otherwise. */
static enum lora_status check_bias(struct peft *peft, struct lora_error *err)
{
	const char *word = lora__json_string(lora__json_get(peft->decode->config, "bias"));
	struct difference stored = {0}, missing = {0};
	const char *name;

	for (size_t i = 0; i < peft->whole_count; i++)
		if (is_bias(peft, &peft->wholes[i]))
			add(&stored, peft->wholes[i].path);
	if (!word || !strcmp(word, "none"))
		return tell(peft, &stored, false,
			    "config key 'bias' is 'none', but the adapter has biases", err);
	name = stored.count ? NULL : trained_bias(peft, !strcmp(word, "all"));
	if (name)
		add(&missing, name);
	return tell(peft, &missing, false,
		    "config key 'bias' says that biases were trained, but the adapter has none",
		    err);
}

enum lora_status lora__peft_targets(struct peft *peft, struct lora_error *err)
{
	enum lora_status status = check_targets(peft, err);

	if (!status)
		status = check_saved(peft, err);
	if (!status)
		status = check_tokens(peft, err);
	return status ? status : check_bias(peft, err);
}
