/* SPDX-License-Identifier: Apache-2.0 */
/* adapter/config.c - the facts beside an adapter's weights: its config, and the base that it is
 * bound to.
 *
 * The config is adapter_config.json in the directory, or beside the file. A file alone may carry
 * the same facts in its metadata:
 *
 *	lora_adapter_metadata	a JSON object with the keys of adapter_config.json; or
 *	r, lora_alpha		as text, both, and any of `keys` below (JSON for objects, lists)
 *
 * with peft_type LORA where it is not said. PEFT itself writes no such metadata.
 *
 * loractl.json there, too, may hold "base_root": 64 hexadecimal digits, the root of the base that
 * the adapter was trained on. A version of a container may name it in its manifest; where both do,
 * they must agree. */
#include "adapter/adapter.h"

#include "base/digest.h"
#include "base/error.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CONFIG	"adapter_config.json"
#define BINDING "loractl.json"

static enum lora_status slurp(struct lora_adapter *adapter, const char *name, char **text,
			      size_t *size, struct lora_error *err)
{
	enum lora_status status =
	    lora__adapter_slurp(adapter, name, LORA_CONFIG_LIMIT, text, size, err);

	return status ? status : lora__adapter_part(adapter, name, *text, *size, err);
}

/* --- the config ------------------------------------------------------------------------------ */

static enum lora_status parse(struct lora_adapter *adapter, const char *what,
			      struct lora_error *err)
{
	enum lora_status status =
	    lora__json_parse(&adapter->config, adapter->config_text, adapter->config_size, err);

	if (!status && lora__json_type(adapter->config) != LORA_JSON_OBJECT)
		status = lora__fail(err, LORA_INPUT, "it is no JSON object");
	return lora__context(err, status, "%s", what);
}

static bool is_json(const char *text)
{
	struct lora_json *json = NULL;
	bool good = lora__json_parse(&json, text, strlen(text), NULL) == LORA_OK;

	lora__json_free(json);
	return good;
}

/* r, lora_alpha, ... -> {"peft_type": "LORA", "r": 8, ...} */
static enum lora_status from_pairs(struct lora_adapter *adapter, struct lora_error *err)
{
	static const char *const keys[] = {"use_rslora",
					   "use_dora",
					   "lora_bias",
					   "bias",
					   "fan_in_fan_out",
					   "rank_pattern",
					   "alpha_pattern",
					   "modules_to_save",
					   "target_parameters",
					   "trainable_token_indices",
					   "init_lora_weights",
					   "layer_replication",
					   "base_model_name_or_path",
					   "peft_type",
					   "peft_version",
					   "r",
					   "lora_alpha",
					   NULL};
	struct lora_arena *arena = &adapter->arena;
	char *text = lora__arena_printf(arena, "{");
	bool typed = lora__index_metadata(&adapter->index, "peft_type") != NULL;

	for (size_t i = 0; keys[i] && text; i++) {
		const char *value = lora__index_metadata(&adapter->index, keys[i]);
		bool quoted = value && !is_json(value);

		if (!value)
			continue;
		if (quoted && strpbrk(value, "\"\\"))
			return lora__fail(
			    err, LORA_INPUT,
			    "the file's metadata '%s' is neither JSON nor a plain word", keys[i]);
		text = lora__arena_printf(arena, "%s%s\"%s\":%s%s%s", text, text[1] ? "," : "",
					  keys[i], quoted ? "\"" : "", value, quoted ? "\"" : "");
	}
	if (text)
		text = lora__arena_printf(arena, "%s%s}", text,
					  typed ? "" : ",\"peft_type\":\"LORA\"");
	adapter->config_text = text ? strdup(text) : NULL;
	return adapter->config_text ? LORA_OK : lora__fail_memory(err);
}

/* {...} -> {"peft_type": "LORA", ...} where it is not said. */
static enum lora_status from_object(struct lora_adapter *adapter, const char *object,
				    struct lora_error *err)
{
	struct lora_json *json = NULL;
	enum lora_status status = lora__json_parse(&json, object, strlen(object), err);
	const char *brace = strchr(object, '{');
	char *text = NULL;

	if (!status && lora__json_type(json) != LORA_JSON_OBJECT)
		status = lora__fail(err, LORA_INPUT, "it is no JSON object");
	if (status) {
		lora__context(err, status, "the file's metadata 'lora_adapter_metadata'");
	} else {
		if (lora__json_get(json, "peft_type"))
			text = strdup(object);
		else if (asprintf(&text, "{\"peft_type\":\"LORA\"%s%s",
				  lora__json_count(json) ? "," : "", brace + 1) < 0)
			text = NULL;
		adapter->config_text = text;
		status = text ? LORA_OK : lora__fail_memory(err);
	}
	lora__json_free(json);
	return status;
}

static enum lora_status from_metadata(struct lora_adapter *adapter, struct lora_error *err)
{
	const char *object = lora__index_metadata(&adapter->index, "lora_adapter_metadata"),
		   *r = lora__index_metadata(&adapter->index, "r"),
		   *alpha = lora__index_metadata(&adapter->index, "lora_alpha");
	enum lora_status status;

	if (!object && (!r || !alpha))
		return lora__fail(err, LORA_INPUT,
				  "there is no " CONFIG
				  " beside it, and its metadata lacks %s: rank and scale "
				  "would be guesses",
				  r	  ? "'lora_alpha'"
				  : alpha ? "'r'"
					  : "'lora_adapter_metadata', or 'r' and 'lora_alpha'");
	status = object ? from_object(adapter, object, err) : from_pairs(adapter, err);
	if (status)
		return status;
	adapter->config_size = strlen(adapter->config_text);
	return parse(adapter, "the file's metadata", err);
}

/* --- the binding ----------------------------------------------------------------------------- */

static enum lora_status read_binding(struct lora_adapter *adapter, struct lora_error *err)
{
	struct lora_json *json = NULL;
	const struct lora_json *root;
	enum lora_status status;
	const char *hex;
	char *text;
	size_t size;

	status = slurp(adapter, BINDING, &text, &size, err);
	if (status || !text)
		return status;
	status = lora__json_parse(&json, text, size, err);
	if (!status && lora__json_type(json) != LORA_JSON_OBJECT)
		status = lora__fail(err, LORA_INPUT, "it is no JSON object");
	root = status ? NULL : lora__json_get(json, "base_root");
	if (root && lora__json_type(root) != LORA_JSON_NULL) {
		hex = lora__json_string(root);
		adapter->bound = hex && lora__sha256_parse(hex, &adapter->bound_root);
		if (!adapter->bound)
			status = lora__fail(err, LORA_INPUT,
					    "'base_root' is not 64 lower-case hexadecimal digits");
	}
	lora__json_free(json);
	free(text);
	return lora__context(err, status, BINDING);
}

/* What the container's manifest says; after loractl.json. */
static enum lora_status read_container_binding(struct lora_adapter *adapter, struct lora_error *err)
{
	const struct lora_manifest *m =
	    adapter->snapshot ? lora__snapshot_manifest(adapter->snapshot) : NULL;

	if (!m || !m->bound)
		return LORA_OK;
	if (adapter->bound && !lora__sha256_equal(&adapter->bound_root, &m->base_root))
		return lora__fail(err, LORA_INPUT,
				  "its manifest and its " BINDING
				  " bind it to two different bases: pack it again");
	adapter->bound = true;
	adapter->bound_root = m->base_root;
	return LORA_OK;
}

enum lora_status lora__adapter_config(struct lora_adapter *adapter, struct lora_error *err)
{
	enum lora_status status =
	    slurp(adapter, CONFIG, &adapter->config_text, &adapter->config_size, err);

	if (status)
		return status;
	if (adapter->config_text)
		status = parse(adapter, CONFIG, err);
	else if (adapter->directory)
		return lora__fail(err, LORA_INPUT,
				  "it has no " CONFIG ": rank and scale would be guesses");
	else
		status = from_metadata(adapter, err);
	if (!status)
		status = read_binding(adapter, err);
	return status ? status : read_container_binding(adapter, err);
}
