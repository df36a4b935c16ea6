/* SPDX-License-Identifier: Apache-2.0 */
/* net/attach.c - laying adapters over a model: which edit goes where, and back again.
 *
 * 1. Adapters are resolved against the base as a merge resolves them; what has no place fails.
 * 2. Every edit goes to one tensor of the net, found by the base tensor's number. On tied
 *    embeddings an edit changes the side that it names, the input's or (`tied_alias`) the
 *    head's; replaced rows alone mean the shared tensor and change both.
 * 3. All edits on one matrix make one patch (patch.c); a vector is copied and changed.
 * 4. What would need an order between adapters, or a strength where there is none, is refused, as
 * in a merge.
 */
#include "net/attach.h"

#include <stdlib.h>
#include <string.h>

#include "base/digest.h"
#include "base/error.h"
#include "base/watch.h"

struct attaching {
	struct lora_net *net;
	const struct lora_net_input *inputs;
	size_t count;
	const struct lora_observer *observer;
	struct lora_resolved *resolved; /* by input */
	struct lora_patches *patches;
};

/* --- before anything is changed --------------------------------------------------------------- */

static enum lora_status check_binding(const struct attaching *at, const struct lora_net_input *in,
				      struct lora_error *err)
{
	const struct lora_sha256 *bound = lora_adapter_bound_root(in->adapter);
	struct lora_model *model = at->net->model;
	enum lora_status status = LORA_OK;

	if (!bound)
		return LORA_OK;
	if (!model->digests_known)
		status = lora_model_digest(model, LORA_DIGEST_CACHED,
					   lora__team_count(at->net->team), at->observer, err);
	if (status || lora__sha256_equal(bound, &model->root))
		return status;
	return lora__fail(err, LORA_NO, "adapter '%s' was trained on another base: use that base",
			  lora__escape(lora_adapter_name(in->adapter)));
}

static enum lora_status resolve(struct attaching *at, struct lora_error *err)
{
	enum lora_status status = LORA_OK;

	for (size_t i = 0; i < at->count && !status; i++) {
		struct lora_adapter *adapter = at->inputs[i].adapter;

		status = lora__adapter_resolve(&at->resolved[i], adapter, at->net->model,
					       at->observer, err);
		if (!status && at->resolved[i].unmatched_count && at->net->options.allow_unmatched)
			lora__note(at->observer, LORA_NOTE_WARNING,
				   "%s: %zu tensors find no place in the model: left out",
				   lora__escape(lora_adapter_name(adapter)),
				   at->resolved[i].unmatched_count);
		else if (!status && at->resolved[i].unmatched_count)
			status = lora__adapter_refuse_unmatched(&at->resolved[i], adapter,
								at->net->model, at->observer, err);
		if (!status && at->resolved[i].edit_count == 0)
			status = lora__fail(err, LORA_INPUT,
					    "adapter '%s' changes nothing of this model",
					    lora__escape(lora_adapter_name(adapter)));
		if (!status)
			status = check_binding(at, &at->inputs[i], err);
	}
	return status;
}

/* --- where edits go -------------------------------------------------------------------------- */

static enum lora_status refuse(const struct lora_edit *edit, const char *why,
			       struct lora_error *err)
{
	return lora__fail(err, LORA_INPUT, "an edit of kind '%s' on '%s' cannot be run: %s",
			  lora__edit_kind_name(edit->kind), lora__escape(edit->target), why);
}

/* The place of one edit; at most two, for replaced rows of a shared tensor. */
static void lay(struct attaching *at, const struct lora_laid *laid)
{
	at->patches->laid[at->patches->laid_count++] = *laid;
}

/* Is there any edit on that side of the tied embeddings? */
static bool is_edited(const struct attaching *at, uint32_t tensor, bool alias)
{
	for (size_t i = 0; i < at->count; i++)
		for (size_t k = 0; k < at->resolved[i].edit_count; k++) {
			const struct lora_edit *edit = &at->resolved[i].edits[k];

			if (edit->base_tensor == tensor && edit->tied_alias == alias)
				return true;
		}
	return false;
}

/* [2] */
static void lay_embedding(struct attaching *at, struct lora_laid laid)
{
	const struct lora_edit *edit = laid.edit;
	struct lora_linear *head = &at->net->head;
	bool alias = edit->tied_alias;

	laid.linear = alias ? head : NULL;
	lay(at, &laid);
	if (!at->net->spec.tied || edit->kind != LORA_EDIT_REPLACE_ROWS ||
	    is_edited(at, edit->base_tensor, !alias))
		return;
	laid.linear = alias ? NULL : head;
	lay(at, &laid);
}

static enum lora_status lay_edit(struct attaching *at, const struct lora_net_input *input,
				 const struct lora_edit *edit, struct lora_error *err)
{
	bool whole = edit->kind == LORA_EDIT_DORA || edit->kind == LORA_EDIT_REPLACE ||
		     edit->kind == LORA_EDIT_REPLACE_ROWS;
	struct lora_laid laid = {.edit = edit, .input = input};
	const struct lora_slot *slot;

	if (edit->kind == LORA_EDIT_ADD_TENSOR || edit->base_tensor == LORA_NO_TENSOR)
		return refuse(edit, "the model has no use for it", err);
	if (whole && input->weight != 1)
		return lora__fail(err, LORA_INPUT,
				  "weight %g on '%s': adapter '%s' %s it, which has no strength: "
				  "use weight 1",
				  input->weight, lora__escape(edit->target),
				  lora__escape(lora_adapter_name(input->adapter)),
				  edit->kind == LORA_EDIT_DORA ? "applies DoRA to" : "replaces");
	laid.s = (float)(input->weight * edit->alpha / edit->divisor);
	slot = &at->net->slots[edit->base_tensor];
	switch (slot->kind) {
	case LORA_SLOT_EMBEDDING:
		lay_embedding(at, laid);
		return LORA_OK;
	case LORA_SLOT_WEIGHT:
		laid.linear = slot->linear;
		laid.piece = slot->piece;
		break;
	case LORA_SLOT_VECTOR:
		if (edit->kind != LORA_EDIT_REPLACE && edit->kind != LORA_EDIT_ADD_DENSE)
			return refuse(edit, "it is added, not multiplied", err);
		laid.vector = slot;
		break;
	case LORA_SLOT_NONE:
		return refuse(edit, "the model does not use that tensor", err);
	}
	lay(at, &laid);
	return LORA_OK;
}

static enum lora_status lay_all(struct attaching *at, struct lora_error *err)
{
	enum lora_status status = LORA_OK;
	size_t room = 1;

	for (size_t i = 0; i < at->count; i++)
		room += 2 * at->resolved[i].edit_count;
	at->patches->laid =
	    lora__arena_array(&at->patches->arena, room, sizeof(*at->patches->laid));
	at->patches->saved =
	    lora__arena_array(&at->patches->arena, room, sizeof(*at->patches->saved));
	if (!at->patches->laid || !at->patches->saved)
		return lora__fail_memory(err);
	for (size_t i = 0; i < at->count; i++)
		for (size_t k = 0; k < at->resolved[i].edit_count && !status; k++)
			status = lay_edit(at, &at->inputs[i], &at->resolved[i].edits[k], err);
	return status;
}

/* --- vectors --------------------------------------------------------------------------------- */

static struct lora_saved *find_saved(const struct lora_patches *patches, const float **vector)
{
	for (size_t i = 0; i < patches->saved_count; i++)
		if (patches->saved[i].vector == vector)
			return &patches->saved[i];
	return NULL;
}

/* The vector's copy, made at the first edit; NULL without memory. */
static float *own_vector(struct lora_patches *patches, const struct lora_slot *slot)
{
	struct lora_saved *saved = find_saved(patches, slot->vector);
	float *copy;

	if (saved)
		return saved->now + slot->begin;
	copy = lora__arena_array(&patches->arena, slot->whole, sizeof(float));
	if (!copy)
		return NULL;
	memcpy(copy, *slot->vector, slot->whole * sizeof(float));
	patches->saved[patches->saved_count++] =
	    (struct lora_saved){slot->vector, *slot->vector, copy};
	*slot->vector = copy;
	return copy + slot->begin;
}

/* An earlier replacement of the same vector. */
static bool was_replaced(const struct lora_patches *patches, const struct lora_laid *laid)
{
	for (const struct lora_laid *l = patches->laid; l != laid; l++)
		if (l->vector == laid->vector && l->edit->kind == LORA_EDIT_REPLACE)
			return true;
	return false;
}

static enum lora_status change_vector(struct lora_patches *patches, const struct lora_laid *laid,
				      struct lora_error *err)
{
	const struct lora_edit *edit = laid->edit;
	size_t n = laid->vector->count, first = (size_t)(edit->row0 * edit->width + edit->col0);
	size_t given = (size_t)(edit->dense.rows * edit->dense.cols);
	float *values, *at = own_vector(patches, laid->vector);
	enum lora_status status;

	if (given > n || first > n - given || (edit->dense.rows > 1 && edit->cols != edit->width))
		return refuse(edit, "its shape is not the vector's", err);
	values = lora__arena_array(&patches->arena, given, sizeof(float));
	if (!at || !values)
		return lora__fail_memory(err);
	at += first;
	status =
	    lora__view_read(laid->input->adapter, &edit->dense, 0, edit->dense.rows, values, err);
	if (!status && edit->kind == LORA_EDIT_REPLACE && was_replaced(patches, laid))
		return lora__patch_same(laid, at, values, given, 1, err);
	for (size_t i = 0; i < given && !status; i++)
		at[i] = edit->kind == LORA_EDIT_REPLACE ? values[i] : at[i] + laid->s * values[i];
	return status;
}

/* Replacements first. */
static enum lora_status change_vectors(struct lora_patches *patches, struct lora_error *err)
{
	static const enum lora_edit_kind order[] = {LORA_EDIT_REPLACE, LORA_EDIT_ADD_DENSE};
	enum lora_status status = LORA_OK;

	for (size_t k = 0; k < 2; k++)
		for (size_t i = 0; i < patches->laid_count && !status; i++)
			if (patches->laid[i].vector && patches->laid[i].edit->kind == order[k])
				status = change_vector(patches, &patches->laid[i], err);
	return status;
}

/* --- matrices -------------------------------------------------------------------------------- */

static bool same_matrix(const struct lora_laid *a, const struct lora_laid *b)
{
	return !b->vector && a->linear == b->linear;
}

/* A patch of all edits that share the matrix of `first`. */
static enum lora_status patch_matrix(struct attaching *at, const struct lora_laid *first,
				     struct lora_error *err)
{
	struct lora_patches *patches = at->patches;
	struct lora_net *net = at->net;
	struct lora_linear *linear = first->linear;
	const struct lora_piece all = {0, net->embed.W.rows};
	struct lora_edited edited = {.net = net,
				     .arena = &patches->arena,
				     .W = linear ? linear->W : net->embed.W,
				     .turned = linear && linear->turned,
				     .both_gains = !linear,
				     .may_grow = !linear || linear == &net->head,
				     .piece = linear ? linear->piece : &all};
	struct lora_patch *patch = lora__arena_alloc(&patches->arena, sizeof(*patch));
	const struct lora_laid **laid =
	    lora__arena_array(&patches->arena, patches->laid_count, sizeof(const void *));
	enum lora_status status;
	bool by_row = true;

	if (!patch || !laid)
		return lora__fail_memory(err);
	for (size_t i = 0; i < patches->laid_count; i++)
		if (same_matrix(first, &patches->laid[i]))
			laid[edited.count++] = &patches->laid[i];
	edited.laid = laid;
	status = lora__patch_make(&edited, patch, &by_row, err);
	if (status)
		return status;
	if (linear)
		linear->patch = patch;
	else
		net->embed.patch = patch;
	net->embed.gain_by_row = linear ? net->embed.gain_by_row : by_row;
	return LORA_OK;
}

static enum lora_status patch_matrices(struct attaching *at, struct lora_error *err)
{
	const struct lora_net *net = at->net;
	enum lora_status status = LORA_OK;

	for (size_t i = 0; i < at->patches->laid_count && !status; i++) {
		const struct lora_laid *laid = &at->patches->laid[i];
		const struct lora_patch *patch =
		    laid->linear ? laid->linear->patch : net->embed.patch;

		if (!laid->vector && !patch)
			status = patch_matrix(at, laid, err);
	}
	return status;
}

static enum lora_status check_vocabulary(const struct lora_net *net, struct lora_error *err)
{
	const struct lora_patch *patch = net->embed.patch;
	size_t in = patch && patch->W.data ? patch->W.rows : net->embed.W.rows,
	       out = lora_net_vocabulary(net);

	if (in == out)
		return LORA_OK;
	return lora__fail(err, LORA_INPUT,
			  "with the adapter the input has %zu tokens and the output %zu: save the "
			  "adapter with both",
			  in, out);
}

/* --- the whole of it ------------------------------------------------------------------------- */

void lora_net_detach(struct lora_net *net)
{
	if (!net->patches)
		return;
	for (size_t i = 0; i < net->patches->saved_count; i++)
		*net->patches->saved[i].vector = net->patches->saved[i].before;
	for (size_t i = 0; i < net->patches->laid_count; i++)
		if (net->patches->laid[i].linear)
			net->patches->laid[i].linear->patch = NULL;
	net->embed.patch = NULL;
	lora__arena_fini(&net->patches->arena);
	free(net->patches);
	net->patches = NULL;
}

static enum lora_status attach(struct attaching *at, struct lora_error *err)
{
	enum lora_status status = resolve(at, err);

	if (!status)
		status = lay_all(at, err);
	if (!status)
		status = change_vectors(at->patches, err);
	if (!status)
		status = patch_matrices(at, err);
	return status ? status : check_vocabulary(at->net, err);
}

enum lora_status lora_net_attach(struct lora_net *net, const struct lora_net_input *inputs,
				 size_t count, const struct lora_observer *observer,
				 struct lora_error *err)
{
	struct attaching at = {net, inputs, count, observer, NULL, NULL};
	enum lora_status status = LORA_OK;

	lora_net_detach(net);
	if (count == 0)
		return LORA_OK;
	net->patches = calloc(1, sizeof(*net->patches));
	at.patches = net->patches;
	at.resolved = calloc(count, sizeof(*at.resolved));
	if (!at.patches || !at.resolved)
		status = lora__fail_memory(err);
	if (!status)
		status = attach(&at, err);
	if (status)
		lora_net_detach(net);
	for (size_t i = 0; at.resolved && i < count; i++)
		lora__resolved_fini(&at.resolved[i]);
	free(at.resolved);
	return status;
}
