/* SPDX-License-Identifier: Apache-2.0 */
/* formats/dialects/peft.c - Hugging Face PEFT's LoRA: adapter_config.json beside
 * adapter_model.safetensors.
 *
 * Written from what PEFT 0.17 to 0.21 store and compute. In order: the config, key by key
 * (peft_config.c); names sorted into modules (peft_keys.c, peft_collect.c); r, alpha and s for
 * each (peft_patterns.c, peft_scale.c); orientation (peft_orient.c); edits (peft_layers.c,
 * peft_experts.c, peft_whole.c).
 *
 * 1. decode() reads names, types, shapes and the config; never a tensor's data.
 * 2. Nothing is passed over: a tensor becomes part of an edit, or is listed as unmatched, or the
 *    whole adapter is refused by name.
 * 3. What PEFT computes is what the edits say, with the exceptions that each file's head names.
 * 4. Where a module is unmatched, all its tensors are. */
#include "formats/dialects/peft.h"

#include "base/error.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* --- helpers --------------------------------------------------------------------------------- */

const struct lora_tensor *lora__peft_tensor(const struct peft *peft, uint32_t tensor)
{
	return &peft->decode->tensors->tensors[tensor];
}

const char *lora__peft_shape(const struct lora_tensor *tensor)
{
	static _Thread_local char texts[4][LORA_MAX_DIMS * 22 + 4];
	static _Thread_local unsigned turn;
	char *text = texts[turn++ % 4];
	size_t at = 0, room = sizeof(texts[0]);

	text[at++] = '[';
	for (uint32_t i = 0; i < tensor->ndim && i < LORA_MAX_DIMS; i++)
		at += (size_t)snprintf(text + at, room - at, i ? ", %llu" : "%llu",
				       (unsigned long long)tensor->shape[i]);
	snprintf(text + at, room - at, "]");
	return text;
}

struct lora_view lora__peft_view(uint32_t tensor, uint64_t rows, uint64_t cols)
{
	return (struct lora_view){tensor, 0, rows, cols, cols, 1};
}

struct lora_view lora__peft_turned(struct lora_view view)
{
	return (struct lora_view){view.tensor, view.offset,	view.cols,
				  view.rows,   view.col_stride, view.row_stride};
}

struct lora_found lora__peft_find(struct peft *peft, const char *name)
{
	struct lora_found found = {LORA_NO_TENSOR, false, name, false};

	if (!peft->decode->base)
		return found;
	found = lora__base_find(peft->decode->base, peft->decode->arena, name);
	if (found.respelled)
		lora__peft_respelled(peft, name, found.name);
	return found;
}

void lora__peft_respelled(struct peft *peft, const char *adapter, const char *base)
{
	if (!peft->respelled)
		lora__decode_note(
		    peft->decode, LORA_NOTE_INFO, NULL,
		    "another release of transformers spelled the names: '%s' is '%s' in "
		    "the base, and so on",
		    lora__escape(adapter), lora__escape(base));
	peft->respelled = true;
}

const struct lora_tensor *lora__peft_base(const struct peft *peft, const struct lora_found *found)
{
	return found->tensor == LORA_NO_TENSOR ? NULL
					       : &peft->decode->base->index->tensors[found->tensor];
}

bool lora__peft_ends_in(const char *path, const char *end)
{
	size_t p = strlen(path), e = strlen(end);

	return p >= e && !memcmp(path + p - e, end, e) && (p == e || path[p - e - 1] == '.');
}

void lora__peft_target(struct lora_edit *edit, const struct lora_found *found, uint32_t ndim,
		       const uint64_t *shape, uint64_t width)
{
	uint64_t elements = 1;

	edit->target = found->name;
	edit->base_tensor = found->tensor;
	edit->tied_alias = found->tied_alias;
	edit->ndim = ndim;
	for (uint32_t i = 0; i < ndim; i++) {
		edit->shape[i] = shape[i];
		elements *= shape[i];
	}
	edit->width = width;
	edit->row0 = edit->col0 = 0;
	edit->rows = elements / width;
	edit->cols = width;
}

struct lora_edit *lora__peft_edit(struct peft *peft, enum lora_edit_kind kind, const char *target,
				  const char *module, const uint32_t *sources, size_t count,
				  struct lora_error *err)
{
	uint32_t *copy = lora__arena_array(peft->decode->arena, count, sizeof(*copy));
	struct lora_edit *edit;

	if (!copy) {
		lora__fail_memory(err);
		return NULL;
	}
	edit = lora__decode_edit(peft->decode, kind, target, err);
	if (!edit)
		return NULL;
	edit->module = module;
	edit->sources = copy;
	for (size_t i = 0; i < count; i++)
		if (sources[i] != LORA_NO_TENSOR)
			copy[edit->source_count++] = sources[i];
	return edit;
}

enum lora_status lora__peft_unmatched(struct peft *peft, const struct peft_module *module,
				      const char *why, const char *wanted, struct lora_error *err)
{
	enum lora_status status = LORA_OK;

	for (int role = 0; role < PEFT_ROLES && !status; role++)
		if (module->tensor[role] != LORA_NO_TENSOR)
			status = lora__decode_unmatched(peft->decode, module->tensor[role], why,
							wanted, err);
	return status;
}

/* --- the dialect ----------------------------------------------------------------------------- */

static int probe(const struct lora_index *tensors, const struct lora_json *config)
{
	if (config && lora__json_get(config, "peft_type"))
		return 90;
	for (size_t i = 0; i < tensors->count; i++)
		if (strstr(tensors->tensors[i].name, ".lora_A.") ||
		    strstr(tensors->tensors[i].name, ".lora_embedding_A"))
			return config ? 60 : 30;
	return 0;
}

/* PEFT itself ignores keys without its prefix, so that such an adapter may never have been seen
 * at work. */
static enum lora_status note_prefix(struct peft *peft, struct lora_error *err)
{
	const struct lora_index *tensors = peft->decode->tensors;

	for (size_t i = 0; i < tensors->count; i++)
		if (!strncmp(tensors->tensors[i].name, PEFT_PREFIX, strlen(PEFT_PREFIX)))
			return LORA_OK;
	return lora__decode_note(peft->decode, LORA_NOTE_INFO, err,
				 "the adapter's names lack '%s': PEFT itself would ignore them",
				 PEFT_PREFIX);
}

static enum lora_status decode_all(struct peft *peft, struct lora_error *err)
{
	enum lora_status status = lora__peft_config(&peft->config, peft->decode, err);

	if (!status)
		status = lora__peft_patterns_new(&peft->rank, "rank_pattern",
						 peft->config.rank_pattern, err);
	if (!status)
		status = lora__peft_patterns_new(&peft->alpha, "alpha_pattern",
						 peft->config.alpha_pattern, err);
	if (!status)
		status = lora__peft_collect(peft, err);
	if (!status)
		status = lora__peft_orient_learn(peft, err);
	for (size_t i = 0; i < peft->module_count && !status; i++) {
		status = lora__peft_layer(peft, &peft->modules[i], err);
		if (!status)
			status = lora__peft_tokens(peft, &peft->modules[i], err);
	}
	if (!status)
		status = lora__peft_wholes(peft, err);
	if (!status)
		status = lora__peft_scale_notes(peft, err);
	if (!status)
		status = lora__peft_targets(peft, err);
	return status ? status : note_prefix(peft, err);
}

static enum lora_status decode(struct lora_decode *job, struct lora_error *err)
{
	struct peft peft = {.decode = job};
	enum lora_status status = decode_all(&peft, err);

	lora__peft_patterns_free(peft.rank);
	lora__peft_patterns_free(peft.alpha);
	lora__map_fini(&peft.module_by_id);
	lora__map_fini(&peft.whole_by_path);
	lora__map_fini(&peft.evidence.by_leaf);
	return status;
}

const struct lora_dialect lora__peft = {
    .name = "peft",
    .probe = probe,
    .decode = decode,
};
