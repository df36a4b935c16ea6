/* SPDX-License-Identifier: Apache-2.0 */
/* formats/dialects/peft_collect.c - the adapter's tensors, sorted into modules and whole tensors.
 *
 * [1] Each role of a module is taken by one tensor; a second one with another spelling is refused.
 * [2] A and B come together; a bias, a magnitude comes with them.
 * [3] Factors are F32, F16 or BF16; whole tensors may have any type but F64. Nothing is empty.
 * [4] All keys that hold an adapter's name hold the same.
 */
#include "formats/dialects/peft.h"

#include "base/error.h"

#include <stdlib.h>
#include <string.h>

struct collector {
	struct peft *peft;
	const char *adapter;
};

static bool computes(enum lora_dtype type)
{
	return type == LORA_DTYPE_F32 || type == LORA_DTYPE_F16 || type == LORA_DTYPE_BF16;
}

static enum lora_status check_tensor(const struct lora_tensor *tensor, enum peft_role role,
				     struct lora_error *err)
{
	const char *type = lora_dtype_name(tensor->dtype);

	if (role == PEFT_OTHER)
		return lora__fail(err, LORA_INPUT, "tensor '%s' is of a kind that is not supported",
				  lora__escape(tensor->name));
	if (tensor->elements == 0)
		return lora__fail(err, LORA_INPUT,
				  "tensor '%s' is empty %s: was it saved from a sharded model?",
				  lora__escape(tensor->name), lora__peft_shape(tensor));
	if (role == PEFT_WHOLE ? tensor->dtype == LORA_DTYPE_F64 : !computes(tensor->dtype))
		return lora__fail(err, LORA_INPUT,
				  "tensor '%s' has type %s: only F32, F16 and BF16 are supported",
				  lora__escape(tensor->name), type ? type : "?");
	return LORA_OK;
}

static enum lora_status check_adapter(struct collector *collector, const struct peft_key *key,
				      const char *name, struct lora_error *err)
{
	if (!key->adapter)
		return LORA_OK;
	if (!collector->adapter)
		collector->adapter = key->adapter;
	if (!strcmp(collector->adapter, key->adapter))
		return LORA_OK;
	return lora__fail(
	    err, LORA_INPUT,
	    "tensor '%s' belongs to another adapter than those before it ('%s'): save "
	    "one adapter to a file",
	    lora__escape(name), lora__escape(collector->adapter));
}

static bool is_saved_copy(const struct peft *peft, uint32_t tensor)
{
	return strstr(lora__peft_tensor(peft, tensor)->name, ".modules_to_save.") != NULL;
}

/* A tensor again under another name: PEFT's own second copy, or a contradiction. */
static enum lora_status add_copy(struct peft *peft, struct peft_whole *whole, uint32_t tensor,
				 struct lora_error *err)
{
	const struct lora_tensor *a = lora__peft_tensor(peft, whole->tensor),
				 *b = lora__peft_tensor(peft, tensor);

	if (whole->copy_count ||
	    is_saved_copy(peft, whole->tensor) == is_saved_copy(peft, tensor) ||
	    a->ndim != b->ndim || memcmp(a->shape, b->shape, a->ndim * sizeof(*a->shape)) != 0)
		return lora__fail(err, LORA_INPUT,
				  "tensors '%s' and '%s' are the same one: keep one of them",
				  lora__escape(a->name), lora__escape(b->name));
	whole->copies[whole->copy_count++] = is_saved_copy(peft, tensor) ? tensor : whole->tensor;
	if (!is_saved_copy(peft, tensor))
		whole->tensor = tensor;
	return lora__decode_note(peft->decode, LORA_NOTE_DETAIL, err,
				 "'%s' is stored twice: the one that PEFT loads is taken",
				 lora__escape(whole->path));
}

static enum lora_status add_whole(struct collector *collector, const struct peft_key *key,
				  uint32_t tensor, struct lora_error *err)
{
	struct peft *peft = collector->peft;
	enum lora_status status;
	bool present;

	status = lora__map_add(&peft->whole_by_path, key->path, strlen(key->path),
			       (uint32_t)peft->whole_count, &present, err);
	if (status)
		return status;
	if (present)
		return add_copy(peft,
				&peft->wholes[lora__map_find(&peft->whole_by_path, key->path,
							     strlen(key->path))],
				tensor, err);
	peft->wholes[peft->whole_count++] =
	    (struct peft_whole){.tensor = tensor, .path = key->path, .wrapped = key->wrapped};
	return LORA_OK;
}

static enum lora_status add_part(struct collector *collector, const struct peft_key *key,
				 uint32_t tensor, struct lora_error *err)
{
	struct peft *peft = collector->peft;
	struct lora_arena *arena = peft->decode->arena;
	char *id = lora__arena_printf(arena, "%u %s", key->depth, key->path);
	struct peft_module *module;
	enum lora_status status;
	bool present;

	if (!id)
		return lora__fail_memory(err);
	status = lora__map_add(&peft->module_by_id, id, strlen(id), (uint32_t)peft->module_count,
			       &present, err);
	if (status)
		return status;
	if (present) {
		module = &peft->modules[lora__map_find(&peft->module_by_id, id, strlen(id))];
	} else {
		module = &peft->modules[peft->module_count++];
		module->path = key->path;
		module->owner = key->owner;
		module->depth = key->depth;
		for (int role = 0; role < PEFT_ROLES; role++)
			module->tensor[role] = LORA_NO_TENSOR;
	}
	if (module->tensor[key->role] != LORA_NO_TENSOR) /* [1] */
		return lora__fail(
		    err, LORA_INPUT, "tensors '%s' and '%s' are the same one",
		    lora__escape(lora__peft_tensor(peft, module->tensor[key->role])->name),
		    lora__escape(lora__peft_tensor(peft, tensor)->name));
	module->tensor[key->role] = tensor;
	return LORA_OK;
}

static bool has(const struct peft_module *module, enum peft_role role)
{
	return module->tensor[role] != LORA_NO_TENSOR;
}

static enum lora_status missing(const struct peft *peft, const struct peft_module *module,
				enum peft_role there, const char *what, struct lora_error *err)
{
	return lora__fail(err, LORA_INPUT, "tensor '%s' has no %s beside it",
			  lora__escape(lora__peft_tensor(peft, module->tensor[there])->name), what);
}

/* [2] */
static enum lora_status check_module(const struct peft *peft, const struct peft_module *module,
				     struct lora_error *err)
{
	bool factors = has(module, PEFT_A), embedding = has(module, PEFT_EMBEDDING_A);

	if (factors && !has(module, PEFT_B))
		return missing(peft, module, PEFT_A, "lora_B", err);
	if (has(module, PEFT_B) && !factors)
		return missing(peft, module, PEFT_B, "lora_A", err);
	if (embedding && !has(module, PEFT_EMBEDDING_B))
		return missing(peft, module, PEFT_EMBEDDING_A, "lora_embedding_B", err);
	if (has(module, PEFT_EMBEDDING_B) && !embedding)
		return missing(peft, module, PEFT_EMBEDDING_B, "lora_embedding_A", err);
	if (factors && embedding)
		return lora__fail(err, LORA_INPUT,
				  "module '%s' has the factors of a layer and of an embedding",
				  lora__escape(module->path));
	if (has(module, PEFT_TOKENS) && (factors || embedding))
		return lora__fail(err, LORA_INPUT,
				  "module '%s' has both factors and trainable tokens: PEFT defines "
				  "no such layer",
				  lora__escape(module->path));
	if (has(module, PEFT_B_BIAS) && !factors)
		return missing(peft, module, PEFT_B_BIAS, "lora_A", err);
	if (factors && has(module, PEFT_B_BIAS) != peft->config.lora_bias)
		return lora__fail(
		    err, LORA_INPUT, "tensor '%s' %s a bias, but config key 'lora_bias' is %sset",
		    lora__escape(lora__peft_tensor(peft, module->tensor[PEFT_B])->name),
		    peft->config.lora_bias ? "lacks" : "has", peft->config.lora_bias ? "" : "not ");
	if (has(module, PEFT_MAGNITUDE) && !factors && !embedding)
		return missing(peft, module, PEFT_MAGNITUDE, "lora_A", err);
	if ((factors || embedding) && peft->config.dora && !has(module, PEFT_MAGNITUDE))
		return missing(peft, module, factors ? PEFT_A : PEFT_EMBEDDING_A,
			       "lora_magnitude_vector (config key 'use_dora' is set)", err);
	if (has(module, PEFT_MAGNITUDE) && !peft->config.dora)
		return lora__fail(
		    err, LORA_INPUT,
		    "tensor '%s' belongs to DoRA, but config key 'use_dora' is not set",
		    lora__escape(lora__peft_tensor(peft, module->tensor[PEFT_MAGNITUDE])->name));
	return LORA_OK;
}

static enum lora_status add_tensor(struct collector *collector, uint32_t i, struct lora_error *err)
{
	const struct lora_tensor *tensor = lora__peft_tensor(collector->peft, i);
	struct lora_arena *arena = collector->peft->decode->arena;
	enum lora_status status;
	struct peft_key key;

	status = lora__peft_key_parse(&key, arena, tensor->name, err);
	if (!status)
		status = check_tensor(tensor, key.role, err);
	if (!status)
		status = check_adapter(collector, &key, tensor->name, err);
	if (status)
		return status;
	return key.role == PEFT_WHOLE ? add_whole(collector, &key, i, err)
				      : add_part(collector, &key, i, err);
}

enum lora_status lora__peft_collect(struct peft *peft, struct lora_error *err)
{
	struct collector collector = {.peft = peft};
	const struct lora_index *tensors = peft->decode->tensors;
	enum lora_status status = LORA_OK;

	if (tensors->count == 0)
		return lora__fail(err, LORA_INPUT, "the adapter holds no tensors");
	peft->modules =
	    lora__arena_array(peft->decode->arena, tensors->count, sizeof(*peft->modules));
	peft->wholes =
	    lora__arena_array(peft->decode->arena, tensors->count, sizeof(*peft->wholes));
	if (!peft->modules || !peft->wholes)
		return lora__fail_memory(err);
	for (size_t i = 0; i < tensors->count && !status; i++)
		status = add_tensor(&collector, (uint32_t)i, err);
	for (size_t i = 0; i < peft->module_count && !status; i++)
		status = check_module(peft, &peft->modules[i], err);
	return status;
}

const struct peft_module *lora__peft_module(struct peft *peft, const char *path, unsigned depth)
{
	const char *id =
	    path ? lora__arena_printf(peft->decode->arena, "%u %s", depth, path) : NULL;
	uint32_t i = id ? lora__map_find(&peft->module_by_id, id, strlen(id)) : UINT32_MAX;

	return i == UINT32_MAX ? NULL : &peft->modules[i];
}

const struct peft_whole *lora__peft_whole(const struct peft *peft, const char *path)
{
	uint32_t i = lora__map_find(&peft->whole_by_path, path, strlen(path));

	return i == UINT32_MAX ? NULL : &peft->wholes[i];
}
