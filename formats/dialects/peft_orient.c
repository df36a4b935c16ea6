/* SPDX-License-Identifier: Apache-2.0 */
/* formats/dialects/peft_orient.c - does a weight stand as [out, in] or as [in, out]?
 *
 * PEFT stores A [r, in] and B [out, r] for both; the base alone differs. In this order:
 *
 * 1. the table of families, where it knows the module: what it says must fit the shape;
 * 2. the shape, unless it is square;
 * 3. what the adapter's non-square modules of the same last name show, then what all of them
 *    show, if they agree;
 * 4. [out, in].
 *
 * fan_in_fan_out in the config is no evidence: PEFT stores there what the last layer that it
 * looked at wanted. But where it is set, and nothing else tells, step 4 would be a guess against
 * the only hint: refused. */
#include "formats/dialects/peft.h"

#include "base/error.h"

#include <string.h>

static const char *leaf_of(const char *path)
{
	const char *dot = strrchr(path, '.');

	return dot ? dot + 1 : path;
}

static unsigned fits(const struct lora_tensor *w, uint64_t out, uint64_t in)
{
	unsigned straight = w->ndim == 2 && w->shape[0] == out && w->shape[1] == in;
	unsigned turned = w->ndim == 2 && w->shape[0] == in && w->shape[1] == out;

	return straight << PEFT_STRAIGHT | turned << PEFT_TRANSPOSED;
}

static bool sizes_of(const struct peft *peft, const struct peft_module *module, uint64_t *out,
		     uint64_t *in)
{
	const struct lora_tensor *a, *b;

	if (module->tensor[PEFT_A] == LORA_NO_TENSOR)
		return false;
	a = lora__peft_tensor(peft, module->tensor[PEFT_A]);
	b = lora__peft_tensor(peft, module->tensor[PEFT_B]);
	*out = b->shape[0];
	*in = a->shape[1];
	return a->ndim == 2 && b->ndim == 2;
}

static enum lora_status learn_from(struct peft *peft, const struct peft_module *module,
				   struct lora_error *err)
{
	struct peft_evidence *evidence = &peft->evidence;
	const char *leaf = leaf_of(module->path), *name;
	struct lora_found found;
	enum lora_status status;
	uint64_t in, out;
	unsigned bits;
	bool present;

	if (!sizes_of(peft, module, &out, &in) || in == out)
		return LORA_OK;
	name = lora__arena_printf(peft->decode->arena, "%s.weight", module->path);
	if (!name)
		return lora__fail_memory(err);
	found = lora__peft_find(peft, name);
	if (found.tensor == LORA_NO_TENSOR)
		return LORA_OK;
	bits = fits(lora__peft_base(peft, &found), out, in);
	if (!bits)
		return LORA_OK;
	status = lora__map_add(&evidence->by_leaf, leaf, strlen(leaf), (uint32_t)evidence->count,
			       &present, err);
	if (status)
		return status;
	evidence->count += !present;
	evidence->bits[lora__map_find(&evidence->by_leaf, leaf, strlen(leaf))] |= (uint8_t)bits;
	evidence->all |= (uint8_t)bits;
	return LORA_OK;
}

enum lora_status lora__peft_orient_learn(struct peft *peft, struct lora_error *err)
{
	enum lora_status status = LORA_OK;

	if (!peft->decode->base)
		return LORA_OK;
	peft->evidence.bits = lora__arena_alloc(peft->decode->arena, peft->module_count + 1);
	if (!peft->evidence.bits)
		return lora__fail_memory(err);
	for (size_t i = 0; i < peft->module_count && !status; i++)
		status = learn_from(peft, &peft->modules[i], err);
	return status;
}

/* Step 3 and 4, for a square weight of a family that the table does not know. */
static enum lora_status decide_square(const struct peft *peft, const struct peft_module *module,
				      enum peft_orientation *out, struct lora_error *err)
{
	const struct peft_evidence *evidence = &peft->evidence;
	const char *leaf = leaf_of(module->path);
	uint32_t i = lora__map_find(&evidence->by_leaf, leaf, strlen(leaf));
	unsigned bits = i == UINT32_MAX ? evidence->all : evidence->bits[i];

	*out = bits == 1u << PEFT_TRANSPOSED ? PEFT_TRANSPOSED : PEFT_STRAIGHT;
	if (bits == (1u << PEFT_STRAIGHT | 1u << PEFT_TRANSPOSED))
		return lora__fail(err, LORA_INPUT,
				  "module '%s' is square, and other modules of the adapter stand "
				  "both as [out, in] and as [in, out]: give the base with its "
				  "config.json",
				  lora__escape(module->path));
	if (!bits && peft->config.fan_in_fan_out)
		return lora__fail(err, LORA_INPUT,
				  "module '%s' is square, and only 'fan_in_fan_out' hints at [in, "
				  "out], which is not to be trusted: give the base with its "
				  "config.json",
				  lora__escape(module->path));
	return LORA_OK;
}

/* The module of a base tensor by its own name: a key map or a renaming may call it otherwise in the
 * adapter, but how the base stores it does not depend on that. NULL without memory. */
static const char *module_of(const struct peft *peft, const struct lora_tensor *w)
{
	size_t length = strlen(w->name), end = sizeof(".weight") - 1;

	if (length > end && !strcmp(w->name + length - end, ".weight"))
		length -= end;
	return lora__arena_copy(peft->decode->arena, w->name, length);
}

enum lora_status lora__peft_orient(const struct peft *peft, const struct peft_module *module,
				   const struct lora_tensor *w, enum peft_orientation *out,
				   struct lora_error *err)
{
	const struct lora_base_view *base = peft->decode->base;
	uint64_t size_out = 0, size_in = 0;
	const char *stored = module_of(peft, w);
	unsigned bits;

	*out = PEFT_NO_FIT;
	if (!stored)
		return lora__fail_memory(err);
	if (!sizes_of(peft, module, &size_out, &size_in))
		return LORA_OK;
	bits = fits(w, size_out, size_in);
	switch (lora__family_conv1d(base->model_type, stored)) {
	case LORA_ANSWER_YES:
		bits &= 1u << PEFT_TRANSPOSED;
		break;
	case LORA_ANSWER_NO:
		bits &= 1u << PEFT_STRAIGHT;
		break;
	case LORA_ANSWER_UNKNOWN:
		if (bits == (1u << PEFT_STRAIGHT | 1u << PEFT_TRANSPOSED))
			return decide_square(peft, module, out, err);
		break;
	}
	if (bits)
		*out = bits == 1u << PEFT_TRANSPOSED ? PEFT_TRANSPOSED : PEFT_STRAIGHT;
	return LORA_OK;
}
