/* SPDX-License-Identifier: Apache-2.0 */
/* formats/dialects/peft_whole.c - tensors that stand in the place of the base's: modules_to_save,
 * biases, embeddings, tokens.
 *
 * [1] A whole tensor replaces the base's of the same name. Its shape must be the base's, but an
 *     embedding may have other rows: the vocabulary was resized. Then every stored half of the
 *     same embeddings must get the same number of rows.
 * [2] One that the base does not have is added if modules_to_save asks for it (a task's head),
 *     and if no base tensor ends in the same path: then the name is only spelled in another way,
 *     and adding a second copy would change nothing that anyone uses.
 * [3] Trainable tokens are rows that replace the base's (their name in PEFT says "delta", but
 *     they are not), in the order of the config's list.
 * PEFT matches modules_to_save by the end of the text, not of the component: "norm" takes
 * "input_layernorm" as well. */
#include "formats/dialects/peft.h"

#include "base/error.h"

#include <stdlib.h>
#include <string.h>

static bool computes(enum lora_dtype type)
{
	return type == LORA_DTYPE_F32 || type == LORA_DTYPE_F16 || type == LORA_DTYPE_BF16;
}

static bool text_ends_in(const char *text, size_t length, const char *end)
{
	size_t n = strlen(end);

	return length >= n && !memcmp(text + length - n, end, n);
}

/* If a module on the way to `path` is saved: what stands from that module's last component on
 * ("classifier.dense.weight"), else NULL. */
const char *lora__peft_saved(const struct peft *peft, const char *path)
{
	const struct lora_json *item;

	for (const char *dot = strchr(path, '.'); dot; dot = strchr(dot + 1, '.'))
		for (item = peft->config.modules_to_save
				? lora__json_first(peft->config.modules_to_save)
				: NULL;
		     item; item = lora__json_next(item)) {
			const char *start = dot;

			if (!text_ends_in(path, (size_t)(dot - path), lora__json_string(item)))
				continue;
			while (start > path && start[-1] != '.')
				start--;
			return start;
		}
	return NULL;
}

/* Does any base tensor end in that path? [2] */
static const char *ends_alike(const struct peft *peft, const char *part)
{
	const struct lora_index *index = peft->decode->base->index;

	for (size_t i = 0; i < index->count; i++)
		if (lora__peft_ends_in(index->tensors[i].name, part))
			return index->tensors[i].name;
	return NULL;
}

static enum lora_status emit(struct peft *peft, enum lora_edit_kind kind,
			     const struct peft_whole *whole, const struct lora_found *found,
			     struct lora_error *err)
{
	const struct lora_tensor *tensor = lora__peft_tensor(peft, whole->tensor);
	uint64_t width = tensor->ndim ? tensor->shape[tensor->ndim - 1] : 1;
	const uint32_t sources[] = {whole->tensor, whole->copies[0], whole->copies[1]};
	struct lora_edit *edit = lora__peft_edit(peft, kind, found->name, whole->path, sources,
						 1 + whole->copy_count, err);

	if (!edit)
		return LORA_SYSTEM;
	lora__peft_target(edit, found, tensor->ndim, tensor->shape, width);
	edit->dense = lora__peft_view(whole->tensor, tensor->elements / width, width);
	return LORA_OK;
}

static bool same_shape(const struct lora_tensor *a, const struct lora_tensor *b)
{
	return a->ndim == b->ndim && !memcmp(a->shape, b->shape, a->ndim * sizeof(*a->shape));
}

static bool is_resized(const struct lora_tensor *tensor, const struct lora_tensor *w,
		       const char *name)
{
	return tensor->ndim == 2 && w->ndim == 2 && tensor->shape[1] == w->shape[1] &&
	       lora__family_is_embedding(name);
}

static enum lora_status replace(struct peft *peft, const struct peft_whole *whole,
				const struct lora_found *found, struct lora_error *err)
{
	const struct lora_tensor *tensor = lora__peft_tensor(peft, whole->tensor),
				 *w = lora__peft_base(peft, found);
	struct lora_arena *arena = peft->decode->arena;
	enum lora_status status = LORA_OK;

	if (!same_shape(tensor, w) && !is_resized(tensor, w, found->name))
		return lora__decode_unmatched(
		    peft->decode, whole->tensor,
		    lora__arena_printf(arena, "shape %s does not fit '%s' %s",
				       lora__peft_shape(tensor), lora__escape(w->name),
				       lora__peft_shape(w)),
		    found->name, err);
	if (tensor->dtype != w->dtype && (!computes(tensor->dtype) || !computes(w->dtype)))
		return lora__decode_unmatched(
		    peft->decode, whole->tensor,
		    lora__arena_printf(arena, "type %s cannot replace '%s' of type %s",
				       lora_dtype_name(tensor->dtype), lora__escape(w->name),
				       lora_dtype_name(w->dtype)),
		    found->name, err);
	if (!lora__peft_saved(peft, whole->path) && !whole->wrapped &&
	    !lora__family_is_embedding(found->name) && !lora__peft_ends_in(whole->path, "bias"))
		status =
		    lora__decode_note(peft->decode, LORA_NOTE_INFO, err,
				      "tensor '%s' replaces the base's, though modules_to_save "
				      "does not name it",
				      lora__escape(whole->path));
	return status ? status : emit(peft, LORA_EDIT_REPLACE, whole, found, err);
}

static enum lora_status add_or_refuse(struct peft *peft, const struct peft_whole *whole,
				      const struct lora_found *found, struct lora_error *err)
{
	const char *part = lora__peft_saved(peft, whole->path);
	struct lora_arena *arena = peft->decode->arena;
	const char *alike = part ? ends_alike(peft, part) : NULL, *why;

	if (part && !alike && !whole->wrapped)
		return emit(peft, LORA_EDIT_ADD_TENSOR, whole, found, err);
	if (alike)
		why = lora__arena_printf(arena, "no tensor '%s' in the base, but '%s' ends alike",
					 lora__escape(found->name), lora__escape(alike));
	else
		why = lora__arena_printf(arena, "no tensor '%s' in the base%s",
					 lora__escape(found->name),
					 part ? "" : ", and modules_to_save does not name it");
	return lora__decode_unmatched(peft->decode, whole->tensor, why, found->name, err);
}

static enum lora_status place(struct peft *peft, const struct peft_whole *whole,
			      struct lora_error *err)
{
	struct lora_found found;

	if (whole->carried)
		return LORA_OK;
	if (strstr(whole->path, ".original_module."))
		return lora__decode_unmatched(
		    peft->decode, whole->tensor,
		    "it is a copy of the base's own module, not an update", NULL, err);
	found = lora__peft_find(peft, whole->path);
	if (!peft->decode->base)
		return emit(peft, LORA_EDIT_REPLACE, whole, &found, err);
	return found.tensor == LORA_NO_TENSOR ? add_or_refuse(peft, whole, &found, err)
					      : replace(peft, whole, &found, err);
}

/* A copy of the base's own module beside the one that takes its place is carried along with it. */
static enum lora_status carry(struct peft *peft, struct peft_whole *whole, struct lora_error *err)
{
	static const char original[] = ".original_module.";
	const char *at = strstr(whole->path, original);
	struct peft_whole *real;
	char *path;
	uint32_t i;

	if (!at)
		return LORA_OK;
	path = lora__arena_printf(peft->decode->arena, "%.*s.%s", (int)(at - whole->path),
				  whole->path, at + sizeof(original) - 1);
	if (!path)
		return lora__fail_memory(err);
	i = lora__map_find(&peft->whole_by_path, path, strlen(path));
	if (i == UINT32_MAX)
		return LORA_OK;
	real = &peft->wholes[i];
	if (real->copy_count < sizeof(real->copies) / sizeof(*real->copies)) {
		real->copies[real->copy_count++] = whole->tensor;
		whole->carried = true;
	}
	return LORA_OK;
}

/* Is there a replacement of that base name with that many rows? */
static bool follows(const struct lora_decode *decode, const char *name, uint64_t rows)
{
	for (size_t i = 0; i < decode->edit_count; i++)
		if (decode->edits[i].kind == LORA_EDIT_REPLACE &&
		    !strcmp(decode->edits[i].target, name) && decode->edits[i].shape[0] == rows)
			return true;
	return false;
}

/* [1] */
static enum lora_status check_resized(const struct peft *peft, const struct lora_edit *edit,
				      struct lora_error *err)
{
	const struct lora_index *index = peft->decode->base->index;
	const char *other;

	for (size_t i = 0; (other = lora__family_tied_name(edit->target, i)); i++) {
		const struct lora_tensor *w = lora__index_find(index, other, strlen(other));

		if (w && w->ndim == 2 && w->shape[0] != edit->shape[0] &&
		    !follows(peft->decode, other, edit->shape[0]))
			return lora__fail(
			    err, LORA_INPUT,
			    "'%s' is resized to %llu rows, but '%s' keeps its %llu: the "
			    "adapter must hold both",
			    lora__escape(edit->target), (unsigned long long)edit->shape[0],
			    lora__escape(other), (unsigned long long)w->shape[0]);
	}
	return LORA_OK;
}

enum lora_status lora__peft_wholes(struct peft *peft, struct lora_error *err)
{
	struct lora_decode *decode = peft->decode;
	enum lora_status status = LORA_OK;
	size_t first = decode->edit_count;

	for (size_t i = 0; i < peft->whole_count && !status; i++)
		status = carry(peft, &peft->wholes[i], err);
	for (size_t i = 0; i < peft->whole_count && !status; i++)
		status = place(peft, &peft->wholes[i], err);
	for (size_t i = first; i < decode->edit_count && !status && decode->base; i++) {
		const struct lora_edit *edit = &decode->edits[i];

		if (edit->kind == LORA_EDIT_REPLACE &&
		    decode->base->index->tensors[edit->base_tensor].shape[0] != edit->shape[0])
			status = check_resized(peft, edit, err);
	}
	return status;
}

/* --- trainable tokens ------------------------------------------------------------------------ */

static const struct lora_json *entry_for(const struct lora_json *object, const char *path)
{
	const struct lora_json *member;

	for (member = lora__json_first(object); member; member = lora__json_next(member))
		if (lora__peft_ends_in(path, lora__json_key(member)))
			return member;
	return NULL;
}

/* The list of the config that is meant for the module; for one that is tied to another (which
 * PEFT saves under both names), that one's. */
static const struct lora_json *list_for(struct peft *peft, const char *path, const char *name)
{
	const struct lora_json *tokens = peft->config.tokens, *list;
	const char *tied;

	if (!tokens || lora__json_type(tokens) == LORA_JSON_ARRAY)
		return tokens;
	list = entry_for(tokens, path);
	for (size_t i = 0; !list && (tied = lora__family_tied_name(name, i)); i++) {
		const char *module =
		    lora__arena_copy(peft->decode->arena, tied, strlen(tied) - strlen(".weight"));

		list = module ? entry_for(tokens, module) : NULL;
	}
	return list;
}

static int compare_ids(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return (x > y) - (x < y);
}

/* In the list's order; each below `rows`, none twice. */
static enum lora_status read_ids(struct peft *peft, const struct peft_module *module,
				 const struct lora_json *list, uint64_t count, uint64_t rows,
				 uint64_t **out, struct lora_error *err)
{
	const struct lora_json *item = list ? lora__json_first(list) : NULL;
	uint64_t *ids, *sorted;

	if (!list || lora__json_count(list) != count)
		return lora__fail(err, LORA_INPUT,
				  "module '%s' has %llu trainable tokens, trainable_token_indices "
				  "lists %zu for it",
				  lora__escape(module->path), (unsigned long long)count,
				  list ? lora__json_count(list) : 0);
	ids = lora__arena_array(peft->decode->arena, (size_t)count, sizeof(*ids));
	sorted = lora__arena_array(peft->decode->arena, (size_t)count, sizeof(*ids));
	if (!ids || !sorted)
		return lora__fail_memory(err);
	for (uint64_t i = 0; item; i++, item = lora__json_next(item)) {
		lora__json_u64(item, &ids[i]);
		if (ids[i] >= rows)
			return lora__fail(
			    err, LORA_INPUT,
			    "trainable_token_indices: token %llu is not below the %llu "
			    "rows of '%s'",
			    (unsigned long long)ids[i], (unsigned long long)rows,
			    lora__escape(module->path));
	}
	memcpy(sorted, ids, (size_t)count * sizeof(*ids));
	qsort(sorted, (size_t)count, sizeof(*ids), compare_ids);
	for (uint64_t i = 1; i < count; i++)
		if (sorted[i] == sorted[i - 1])
			return lora__fail(err, LORA_INPUT,
					  "trainable_token_indices: token %llu stands there twice",
					  (unsigned long long)sorted[i]);
	*out = ids;
	return LORA_OK;
}

static uint64_t after_largest(const uint64_t *ids, uint64_t count)
{
	uint64_t rows = 0;

	for (uint64_t i = 0; i < count; i++)
		rows = ids[i] >= rows ? ids[i] + 1 : rows;
	return rows;
}

/* The embedding as it will be: the base's, or the one that comes with the adapter. NULL without
 * both. */
static const struct lora_tensor *embedding_of(const struct peft *peft, const char *name,
					      const struct lora_found *found)
{
	const struct peft_whole *whole = lora__peft_whole(peft, name);

	return whole ? lora__peft_tensor(peft, whole->tensor) : lora__peft_base(peft, found);
}

enum lora_status lora__peft_tokens(struct peft *peft, const struct peft_module *module,
				   struct lora_error *err)
{
	const char *name = lora__arena_printf(peft->decode->arena, "%s.weight", module->path);
	uint32_t source = module->tensor[PEFT_TOKENS];
	const struct lora_tensor *delta, *w;
	uint64_t shape[2], *ids = NULL;
	enum lora_status status;
	struct lora_found found;
	struct lora_edit *edit;
	const char *why;

	if (source == LORA_NO_TENSOR)
		return LORA_OK;
	if (!name)
		return lora__fail_memory(err);
	delta = lora__peft_tensor(peft, source);
	found = lora__peft_find(peft, name);
	w = embedding_of(peft, name, &found);
	if (peft->decode->base && (found.tensor == LORA_NO_TENSOR || w->ndim != 2 ||
				   delta->ndim != 2 || w->shape[1] != delta->shape[1])) {
		why = found.tensor == LORA_NO_TENSOR
			  ? lora__arena_printf(peft->decode->arena, "no tensor '%s' in the base",
					       lora__escape(found.name))
			  : lora__arena_printf(peft->decode->arena, "rows of %s do not fit '%s' %s",
					       lora__peft_shape(delta), lora__escape(w->name),
					       lora__peft_shape(w));
		return lora__decode_unmatched(peft->decode, source, why, found.name, err);
	}
	if (delta->ndim != 2)
		return lora__fail(err, LORA_INPUT, "tensor '%s' %s is no matrix",
				  lora__escape(delta->name), lora__peft_shape(delta));
	status = read_ids(peft, module, list_for(peft, module->path, found.name), delta->shape[0],
			  w ? w->shape[0] : UINT64_MAX / delta->shape[1] - 1, &ids, err);
	if (status)
		return status;
	edit = lora__peft_edit(peft, LORA_EDIT_REPLACE_ROWS, found.name, module->path, &source, 1,
			       err);
	if (!edit)
		return LORA_SYSTEM;
	shape[0] = w ? w->shape[0] : after_largest(ids, delta->shape[0]);
	shape[1] = delta->shape[1];
	lora__peft_target(edit, &found, 2, shape, shape[1]);
	edit->dense = lora__peft_view(source, delta->shape[0], delta->shape[1]);
	edit->row_ids = ids;
	return LORA_OK;
}
