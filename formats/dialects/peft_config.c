/* SPDX-License-Identifier: Apache-2.0 */
/* formats/dialects/peft_config.c - adapter_config.json, key by key.
 *
 * Every key of PEFT 0.21's LoraConfig stands in a table with what we do about it. PEFT drops keys
 * that it does not know; we do not:
 *
 * [1] a key that we know and use is checked for its type;
 * [2] a key that only tells how the adapter was trained is passed over;
 * [3] a key that changes the arithmetic in a way that no merged weight can express, or that we do
 *     not do, is refused by name when its value asks for it (not null, false or empty);
 * [4] a key that is not in the table is refused likewise: a new option that changes the meaning
 *     must not be ignored. allow_unknown turns this, and only this, into a warning.
 *
 * r and lora_alpha have a default in PEFT (8); where it stands in for a missing key, a note says
 * so. */
#include "formats/dialects/peft.h"

#include "base/distance.h"
#include "base/error.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#define ALPHA_LIMIT 1e9 /* a million times the largest alpha / r that anyone trains with */

enum use {
	USED,	/* read by somebody below */
	PASSED, /* how it was trained, or which class wraps the model */
};

static const struct known {
	const char *key;
	enum use use;
	const char *refused; /* why, if it is set */
} table[] = {
    {"peft_type", USED, NULL},
    {"r", USED, NULL},
    {"lora_alpha", USED, NULL},
    {"use_rslora", USED, NULL},
    {"use_dora", USED, NULL},
    {"lora_bias", USED, NULL},
    {"bias", USED, NULL},
    {"fan_in_fan_out", USED, NULL},
    {"init_lora_weights", USED, NULL},
    {"rank_pattern", USED, NULL},
    {"alpha_pattern", USED, NULL},
    {"modules_to_save", USED, NULL},
    {"target_parameters", USED, NULL},
    {"trainable_token_indices", USED, NULL},
    {"layers_to_transform", USED, NULL},
    {"base_model_name_or_path", USED, NULL},
    {"peft_version", USED, NULL},
    {"task_type", PASSED, NULL},
    {"auto_mapping", PASSED, NULL},
    {"revision", PASSED, NULL},
    {"inference_mode", PASSED, NULL},
    {"target_modules", PASSED, NULL},
    {"exclude_modules", PASSED, NULL},
    {"lora_dropout", PASSED, NULL},
    {"layers_pattern", PASSED, NULL},
    {"megatron_core", PASSED, NULL},
    {"loftq_config", PASSED, NULL},
    {"eva_config", PASSED, NULL},
    {"corda_config", PASSED, NULL},
    {"lora_ga_config", PASSED, NULL},
    {"qalora_group_size", PASSED, NULL},
    {"runtime_config", PASSED, NULL},
    {"ensure_weight_tying", PASSED, NULL},
    {"layer_replication", PASSED,
     "layers that share weights get different updates: no merged weight exists"},
    {"alora_invocation_tokens", PASSED,
     "the update applies to some tokens only (aLoRA): no merged weight exists"},
    {"arrow_config", PASSED, "updates are routed token by token (Arrow): no merged weight exists"},
    {"kasa_config", PASSED, "KaSA truncates the base's weights: the base on disk is not its base"},
    {"use_qalora", PASSED, "QA-LoRA works on groups of a quantized base"},
    {"use_bdlora", PASSED, "block-diagonal LoRA is not supported"},
    {"velora_config", PASSED, "VeLoRA is not supported"},
    {"monteclora_config", PASSED, "MonteCLoRA is not supported"},
    {"megatron_config", PASSED, "Megatron's parallel layers are not supported"},
    {"enable_lora", PASSED, "it comes from loralib's MergedLinear, which PEFT has dropped"},
    {"merge_weights", PASSED,
     "it comes from a PEFT before 0.3, whose weights may be merged already"},
};
#define TABLE_COUNT (sizeof(table) / sizeof(*table))

static const struct known *find_known(const char *key)
{
	for (size_t i = 0; i < TABLE_COUNT; i++)
		if (!strcmp(table[i].key, key))
			return &table[i];
	return NULL;
}

/* The known key that was probably meant, or NULL. */
static const char *nearest_key(const char *key)
{
	const char *best = NULL;
	size_t least = 1 + strlen(key) / 3;

	for (size_t i = 0; i < TABLE_COUNT; i++) {
		size_t distance =
		    lora__distance(key, strlen(key), table[i].key, strlen(table[i].key));

		if (distance < least) {
			least = distance;
			best = table[i].key;
		}
	}
	return best;
}

static enum lora_status check_unknown(struct lora_decode *decode, const char *key,
				      struct lora_error *err)
{
	const char *meant = nearest_key(key);

	if (decode->allow_unknown)
		return lora__decode_note(decode, LORA_NOTE_WARNING, err,
					 "config key '%s' is unknown: ignored", lora__escape(key));
	if (meant)
		return lora__fail(err, LORA_INPUT,
				  "config key '%s' is unknown; did you mean '%s'? it may change "
				  "what the adapter does: correct it, or use --allow-unknown",
				  lora__escape(key), meant);
	return lora__fail(err, LORA_INPUT,
			  "config key '%s' is unknown and may change what the adapter does: remove "
			  "it, or use --allow-unknown",
			  lora__escape(key));
}

/* [3] [4] */
static enum lora_status check_keys(struct lora_decode *decode, struct lora_error *err)
{
	const struct lora_json *member;
	enum lora_status status = LORA_OK;

	for (member = lora__json_first(decode->config); member && !status;
	     member = lora__json_next(member)) {
		const char *key = lora__json_key(member);
		const struct known *known = find_known(key);

		if (lora__json_is_empty(member))
			continue;
		if (!known)
			status = check_unknown(decode, key, err);
		else if (known->refused)
			status = lora__fail(err, LORA_INPUT, "config key '%s' is set: %s", key,
					    known->refused);
	}
	return status;
}

static enum lora_status wrong_type(const char *key, const char *wanted, struct lora_error *err)
{
	return lora__fail(err, LORA_INPUT, "config key '%s' is not %s", key, wanted);
}

/* Absent and null are alike everywhere: NULL. */
static const struct lora_json *get(const struct lora_decode *decode, const char *key)
{
	const struct lora_json *value = lora__json_get(decode->config, key);

	return value && lora__json_type(value) != LORA_JSON_NULL ? value : NULL;
}

static enum lora_status read_bool(const struct lora_decode *decode, const char *key, bool *out,
				  struct lora_error *err)
{
	const struct lora_json *value = get(decode, key);

	if (value && !lora__json_bool(value, out))
		return wrong_type(key, "true or false", err);
	return LORA_OK;
}

static enum lora_status read_object(const struct lora_decode *decode, const char *key,
				    const struct lora_json **out, struct lora_error *err)
{
	const struct lora_json *value = get(decode, key);

	if (!value || (lora__json_type(value) == LORA_JSON_ARRAY && !lora__json_count(value)))
		return LORA_OK;
	if (lora__json_type(value) != LORA_JSON_OBJECT)
		return wrong_type(key, "an object", err);
	*out = value;
	return LORA_OK;
}

/* An array of strings. */
static enum lora_status read_names(const struct lora_decode *decode, const char *key,
				   const struct lora_json **out, struct lora_error *err)
{
	const struct lora_json *value = get(decode, key), *item;

	if (!value)
		return LORA_OK;
	if (lora__json_type(value) != LORA_JSON_ARRAY)
		return wrong_type(key, "a list of names", err);
	for (item = lora__json_first(value); item; item = lora__json_next(item))
		if (!lora__json_string(item))
			return wrong_type(key, "a list of names", err);
	*out = value;
	return LORA_OK;
}

static enum lora_status read_rank(struct peft_config *config, struct lora_decode *decode,
				  struct lora_error *err)
{
	const struct lora_json *r = get(decode, "r"), *alpha = get(decode, "lora_alpha");
	enum lora_status status = LORA_OK;
	uint64_t rank = 8;

	config->alpha = 8;
	config->r_missing = !r;
	config->alpha_missing = !alpha;
	if (r && (!lora__json_u64(r, &rank) || rank == 0 || rank > PEFT_RANK_LIMIT))
		return lora__fail(err, LORA_INPUT, "config key 'r' is not a rank from 1 to %u",
				  PEFT_RANK_LIMIT);
	if (alpha &&
	    (!lora__json_double(alpha, &config->alpha) || fabs(config->alpha) > ALPHA_LIMIT))
		return lora__fail(err, LORA_INPUT,
				  "config key 'lora_alpha' is not a number from -%g to %g",
				  ALPHA_LIMIT, ALPHA_LIMIT);
	config->r = (uint32_t)rank;
	if (!r)
		status = lora__decode_note(decode, LORA_NOTE_WARNING, err,
					   "config key 'r' is missing: PEFT's default 8 applies");
	if (!alpha && !status)
		status = lora__decode_note(
		    decode, LORA_NOTE_WARNING, err,
		    "config key 'lora_alpha' is missing: PEFT's default 8 applies");
	if (!status && config->alpha == 0)
		status = lora__decode_note(decode, LORA_NOTE_WARNING, err,
					   "lora_alpha is 0: the low-rank updates are zero");
	else if (!status && config->alpha < 0)
		status = lora__decode_note(decode, LORA_NOTE_WARNING, err,
					   "lora_alpha is negative: the updates are subtracted");
	return status;
}

/* init_lora_weights: words whose adapters belong to a base that the initialisation has changed. */
static bool mutates_base(const char *init)
{
	return !strncasecmp(init, "pissa", 5) || !strncasecmp(init, "corda", 5) ||
	       !strcasecmp(init, "olora") || !strcasecmp(init, "loftq") ||
	       !strcasecmp(init, "lora_ga");
}

static enum lora_status read_init(struct peft_config *config, struct lora_decode *decode,
				  struct lora_error *err)
{
	static const char *const harmless[] = {"gaussian", "orthogonal", "eva", "mica",
					       "true",	   "false",	 NULL};
	const struct lora_json *value = get(decode, "init_lora_weights");
	bool plain;

	if (!value || lora__json_bool(value, &plain))
		return LORA_OK;
	config->init = lora__json_string(value);
	if (!config->init)
		return wrong_type("init_lora_weights", "true, false or a name", err);
	for (size_t i = 0; harmless[i]; i++)
		if (!strcasecmp(config->init, harmless[i]))
			return LORA_OK;
	if (mutates_base(config->init)) {
		decode->mutated_by = config->init;
		if (decode->base && !decode->allow_mutated_base)
			return lora__fail(
			    err, LORA_INPUT,
			    "init_lora_weights '%s' changed the base that the adapter was trained "
			    "beside: convert the adapter to plain LoRA, or give that base and "
			    "--allow-mutated-base",
			    lora__escape(config->init));
		return LORA_OK;
	}
	if (decode->allow_unknown)
		return lora__decode_note(decode, LORA_NOTE_WARNING, err,
					 "init_lora_weights '%s' is unknown: ignored",
					 lora__escape(config->init));
	return lora__fail(err, LORA_INPUT,
			  "init_lora_weights '%s' is unknown and may have changed the base: use "
			  "--allow-unknown if it has not",
			  lora__escape(config->init));
}

static enum lora_status check_tokens(const struct lora_json *list, struct lora_error *err)
{
	const struct lora_json *item;
	uint64_t id;

	if (lora__json_type(list) != LORA_JSON_ARRAY)
		return wrong_type("trainable_token_indices", "a list of token numbers", err);
	for (item = lora__json_first(list); item; item = lora__json_next(item))
		if (!lora__json_u64(item, &id))
			return wrong_type("trainable_token_indices", "a list of token numbers",
					  err);
	return LORA_OK;
}

static enum lora_status read_tokens(struct peft_config *config, const struct lora_decode *decode,
				    struct lora_error *err)
{
	const struct lora_json *value = get(decode, "trainable_token_indices"), *member;
	enum lora_status status = LORA_OK;

	config->tokens = value;
	if (!value)
		return LORA_OK;
	if (lora__json_type(value) != LORA_JSON_OBJECT)
		return check_tokens(value, err);
	for (member = lora__json_first(value); member && !status; member = lora__json_next(member))
		status = check_tokens(member, err);
	return status;
}

static enum lora_status read_layers(struct peft_config *config, const struct lora_decode *decode,
				    struct lora_error *err)
{
	const struct lora_json *value = get(decode, "layers_to_transform"), *item;
	uint64_t layer;

	config->layers = value;
	if (!value || lora__json_u64(value, &layer))
		return LORA_OK;
	if (lora__json_type(value) != LORA_JSON_ARRAY)
		return wrong_type("layers_to_transform", "a number or a list of numbers", err);
	for (item = lora__json_first(value); item; item = lora__json_next(item))
		if (!lora__json_u64(item, &layer))
			return wrong_type("layers_to_transform", "a number or a list of numbers",
					  err);
	return LORA_OK;
}

/* "0.21.2", "0.20.1.dev0@abc", "0.19.0rc1": three numbers, and whether anything follows. A
 * version that is spelled otherwise is none. */
static void read_version(struct peft_config *config, const struct lora_decode *decode)
{
	const char *text = lora__json_string(get(decode, "peft_version"));

	for (int i = 0; text && i < 3; i++) {
		size_t digits = strspn(text, "0123456789");

		if (digits == 0 || digits > 4 || (i < 2 && text[digits] != '.'))
			return;
		config->version[i] = (unsigned)strtoul(text, NULL, 10);
		text += digits + (i < 2);
	}
	config->has_version = text != NULL;
	config->dev = text && *text;
}

static enum lora_status read_words(struct lora_decode *decode, struct lora_error *err)
{
	const struct lora_json *type = get(decode, "peft_type"), *bias = get(decode, "bias");
	const char *word = lora__json_string(type);

	decode->base_name = lora__json_string(get(decode, "base_model_name_or_path"));
	if (type && !word)
		return wrong_type("peft_type", "a name", err);
	if (!word)
		return lora__fail(err, LORA_INPUT,
				  "config key 'peft_type' is missing: this is no PEFT adapter");
	if (strcmp(word, "LORA") != 0)
		return lora__fail(err, LORA_INPUT,
				  "peft_type '%s' is not supported: only LORA is; PEFT's "
				  "convert_to_lora may help",
				  lora__escape(word));
	word = lora__json_string(bias);
	if (bias && (!word || (strcmp(word, "none") != 0 && strcmp(word, "all") != 0 &&
			       strcmp(word, "lora_only") != 0)))
		return wrong_type("bias", "'none', 'all' or 'lora_only'", err);
	return LORA_OK;
}

static enum lora_status read_flags(struct peft_config *config, const struct lora_decode *decode,
				   struct lora_error *err)
{
	enum lora_status status = read_bool(decode, "use_rslora", &config->rslora, err);

	if (!status)
		status = read_bool(decode, "use_dora", &config->dora, err);
	if (!status)
		status = read_bool(decode, "lora_bias", &config->lora_bias, err);
	if (!status)
		status = read_bool(decode, "fan_in_fan_out", &config->fan_in_fan_out, err);
	if (!status && config->dora && config->lora_bias)
		status = lora__fail(err, LORA_INPUT,
				    "config keys 'use_dora' and 'lora_bias' are both set: PEFT "
				    "defines no such layer");
	return status;
}

enum lora_status lora__peft_config(struct peft_config *out, struct lora_decode *decode,
				   struct lora_error *err)
{
	enum lora_status status;

	*out = (struct peft_config){0};
	if (!decode->config || lora__json_type(decode->config) != LORA_JSON_OBJECT)
		return lora__fail(err, LORA_INPUT, "the adapter's config is not a JSON object");
	status = read_words(decode, err);
	if (!status)
		status = check_keys(decode, err);
	if (!status)
		status = read_flags(out, decode, err);
	if (!status)
		status = read_rank(out, decode, err);
	if (!status)
		status = read_object(decode, "rank_pattern", &out->rank_pattern, err);
	if (!status)
		status = read_object(decode, "alpha_pattern", &out->alpha_pattern, err);
	if (!status)
		status = read_names(decode, "modules_to_save", &out->modules_to_save, err);
	if (!status)
		status = read_names(decode, "target_parameters", &out->target_parameters, err);
	if (!status)
		status = read_tokens(out, decode, err);
	if (!status)
		status = read_layers(out, decode, err);
	read_version(out, decode);
	if (!status)
		status = read_init(out, decode, err);
	decode->method = out->dora ? "dora" : out->rslora ? "rslora" : "lora";
	return status;
}
