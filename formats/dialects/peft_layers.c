/* SPDX-License-Identifier: Apache-2.0 */
/* formats/dialects/peft_layers.c - the low-rank edits of one module.
 *
 *	layer		adapter				base		update
 *	Linear		A [r, in], B [out, r]		[out, in]	s*B*A
 *	Conv1D (GPT-2)	the same			[in, out]	s*A^T*B^T
 *	Embedding	A [r, V], B [D, r]		[V, D]		s*A^T*B^T
 *	ConvNd		A [r, in, k..], B [out, r, 1..]	[out, in, k..]	s*B*A, as [out, in*k..]
 *	Multihead-	A [r, E], B [3E, r]		in_proj_weight	s*B*A
 *	Attention	(its out_proj is a Linear of its own)
 *
 * DoRA adds a magnitude for every output: rows of W, where W is [out, ...]; columns, where it is
 * turned. An embedding's are its columns. lora_bias adds s*b to the base's bias.
 *
 * PEFT 0.21 adds a MultiheadAttention's out_proj update twice when it merges; we do what the
 * layer means: once. A grouped convolution's update is no product of two matrices of that shape:
 * refused. */
#include "formats/dialects/peft.h"

#include "base/error.h"

#include <string.h>

static const struct lora_tensor *tensor_of(const struct peft *peft,
					   const struct peft_module *module, enum peft_role role)
{
	return lora__peft_tensor(peft, module->tensor[role]);
}

/* The tensor that the edit will meet: the base's, or the adapter's own replacement for it (a
 * resized embedding). */
static const struct lora_tensor *effective(const struct peft *peft, const char *name,
					   const struct lora_found *found)
{
	const struct peft_whole *whole = lora__peft_whole(peft, name);

	return whole ? lora__peft_tensor(peft, whole->tensor) : lora__peft_base(peft, found);
}

static enum lora_status wrong_rank(const struct lora_tensor *tensor, uint64_t shape_rank,
				   const struct peft_scale *scale, struct lora_error *err)
{
	return lora__fail(err, LORA_INPUT, "tensor '%s' %s has rank %llu, the config says %u (%s)",
			  lora__escape(tensor->name), lora__peft_shape(tensor),
			  (unsigned long long)shape_rank, scale->rank, scale->from);
}

static enum lora_status wrong_pair(const struct lora_tensor *a, const struct lora_tensor *b,
				   struct lora_error *err)
{
	return lora__fail(err, LORA_INPUT, "tensors '%s' %s and '%s' %s do not fit each other",
			  lora__escape(a->name), lora__peft_shape(a), lora__escape(b->name),
			  lora__peft_shape(b));
}

/* A [r, in], B [out, r], and r is the config's. */
static enum lora_status check_factors(const struct lora_tensor *a, const struct lora_tensor *b,
				      const struct peft_scale *scale, struct lora_error *err)
{
	if (a->ndim != 2 || b->ndim != 2 || a->shape[0] != b->shape[1])
		return wrong_pair(a, b, err);
	return a->shape[0] == scale->rank ? LORA_OK : wrong_rank(a, a->shape[0], scale, err);
}

static enum lora_status misfit(struct peft *peft, const struct peft_module *module,
			       const struct lora_tensor *a, const struct lora_tensor *b,
			       const struct lora_tensor *w, const char *wanted,
			       struct lora_error *err)
{
	const char *why = lora__arena_printf(
	    peft->decode->arena, "factors of shapes %s and %s do not fit '%s' %s",
	    lora__peft_shape(b), lora__peft_shape(a), lora__escape(w->name), lora__peft_shape(w));

	return lora__peft_unmatched(peft, module, why, wanted, err);
}

static enum lora_status absent(struct peft *peft, const struct peft_module *module,
			       const struct lora_found *found, struct lora_error *err)
{
	const char *why = lora__arena_printf(peft->decode->arena, "no tensor '%s' in the base",
					     lora__escape(found->name));

	return lora__peft_unmatched(peft, module, why, found->name, err);
}

/* The edit itself. L and R as the base stores W; `by_column` where its columns are the outputs. */
static enum lora_status emit(struct peft *peft, const struct peft_module *module,
			     const struct peft_scale *scale, const struct lora_edit *like,
			     struct lora_error *err)
{
	const uint32_t sources[] = {
	    module->tensor[PEFT_A], module->tensor[PEFT_B], module->tensor[PEFT_EMBEDDING_A],
	    module->tensor[PEFT_EMBEDDING_B], module->tensor[PEFT_MAGNITUDE]};
	uint32_t magnitude = module->tensor[PEFT_MAGNITUDE];
	uint64_t gains = like->norm_by_column ? like->cols : like->rows;
	struct lora_edit *edit;

	edit = lora__peft_edit(peft,
			       magnitude == LORA_NO_TENSOR ? LORA_EDIT_ADD_LOWRANK : LORA_EDIT_DORA,
			       like->target, module->path, sources, 5, err);
	if (!edit)
		return LORA_SYSTEM;
	edit->base_tensor = like->base_tensor;
	edit->tied_alias = like->tied_alias;
	edit->ndim = like->ndim;
	memcpy(edit->shape, like->shape, sizeof(edit->shape));
	edit->width = like->width;
	edit->rows = like->rows;
	edit->cols = like->cols;
	edit->left = like->left;
	edit->right = like->right;
	edit->rank = scale->rank;
	edit->alpha = scale->alpha;
	edit->divisor = scale->divisor;
	edit->scale = scale->s;
	edit->scale_from = scale->from;
	if (magnitude == LORA_NO_TENSOR)
		return LORA_OK;
	if (lora__peft_tensor(peft, magnitude)->elements != gains)
		return lora__fail(err, LORA_INPUT, "tensor '%s' %s does not have %llu elements",
				  lora__escape(lora__peft_tensor(peft, magnitude)->name),
				  lora__peft_shape(lora__peft_tensor(peft, magnitude)),
				  (unsigned long long)gains);
	edit->magnitude = lora__peft_view(magnitude, 1, gains);
	edit->norm_by_column = like->norm_by_column;
	return LORA_OK;
}

/* lora_B.bias: the base's bias += s*b. */
static enum lora_status add_bias(struct peft *peft, const struct peft_module *module,
				 const struct peft_scale *scale, struct lora_error *err)
{
	uint32_t source = module->tensor[PEFT_B_BIAS];
	const struct lora_tensor *b, *w;
	struct lora_found found;
	struct lora_edit *edit;
	const char *name, *why;

	if (source == LORA_NO_TENSOR)
		return LORA_OK;
	b = lora__peft_tensor(peft, source);
	name = lora__arena_printf(peft->decode->arena, "%s.bias", module->path);
	if (!name)
		return lora__fail_memory(err);
	if (b->ndim != 1 || b->elements != tensor_of(peft, module, PEFT_B)->shape[0])
		return wrong_pair(b, tensor_of(peft, module, PEFT_B), err);
	found = lora__peft_find(peft, name);
	w = lora__peft_base(peft, &found);
	if (peft->decode->base && (!w || w->ndim != 1 || w->elements != b->elements)) {
		why = w ? lora__arena_printf(peft->decode->arena, "shape %s does not fit '%s' %s",
					     lora__peft_shape(b), lora__escape(w->name),
					     lora__peft_shape(w))
			: lora__arena_printf(peft->decode->arena, "no tensor '%s' in the base",
					     lora__escape(found.name));
		return lora__decode_unmatched(peft->decode, source, why, found.name, err);
	}
	edit =
	    lora__peft_edit(peft, LORA_EDIT_ADD_DENSE, found.name, module->path, &source, 1, err);
	if (!edit)
		return LORA_SYSTEM;
	lora__peft_target(edit, &found, 1, b->shape, b->elements);
	edit->dense = lora__peft_view(source, 1, b->elements);
	edit->alpha = scale->alpha;
	edit->divisor = scale->divisor;
	edit->scale = scale->s;
	edit->scale_from = scale->from;
	return LORA_OK;
}

/* W [out, in] or [in, out]; `name` is what the rules of patterns see. */
enum lora_status lora__peft_matrix(struct peft *peft, const struct peft_module *module,
				   const char *name, const struct lora_found *found,
				   enum peft_orientation orientation, struct lora_error *err)
{
	const struct lora_tensor *a = tensor_of(peft, module, PEFT_A),
				 *b = tensor_of(peft, module, PEFT_B);
	bool turned = orientation == PEFT_TRANSPOSED;
	struct lora_edit like = {.norm_by_column = turned};
	struct peft_scale scale;
	enum lora_status status;
	uint64_t shape[2];

	status = lora__peft_scale(peft, name, &scale, err);
	if (!status)
		status = check_factors(a, b, &scale, err);
	if (status)
		return status;
	shape[0] = turned ? a->shape[1] : b->shape[0];
	shape[1] = turned ? b->shape[0] : a->shape[1];
	lora__peft_target(&like, found, 2, shape, shape[1]);
	like.left = lora__peft_view(module->tensor[PEFT_B], b->shape[0], b->shape[1]);
	like.right = lora__peft_view(module->tensor[PEFT_A], a->shape[0], a->shape[1]);
	if (turned) {
		struct lora_view left = lora__peft_turned(like.right);

		like.right = lora__peft_turned(like.left);
		like.left = left;
	}
	status = emit(peft, module, &scale, &like, err);
	return status ? status : add_bias(peft, module, &scale, err);
}

/* Is it a MultiheadAttention, whose first weight has a name of its own? */
static bool is_attention(struct peft *peft, const struct peft_module *module,
			 struct lora_found *found, const char **name)
{
	const char *in_proj =
	    lora__arena_printf(peft->decode->arena, "%s.in_proj_weight", module->path);
	struct lora_found other;
	const struct peft_module *out_proj;

	if (!in_proj)
		return false;
	out_proj = lora__peft_module(
	    peft, lora__arena_printf(peft->decode->arena, "%s.out_proj", module->path), 0);
	other = lora__peft_find(peft, in_proj);
	/* Without a base the wrapped out_proj beside it tells. */
	if (other.tensor == LORA_NO_TENSOR &&
	    (peft->decode->base || !out_proj || strcmp(out_proj->owner, module->path) != 0))
		return false;
	*found = other;
	*name = in_proj;
	return true;
}

static enum lora_status linear(struct peft *peft, const struct peft_module *module,
			       struct lora_error *err)
{
	enum peft_orientation orientation = PEFT_STRAIGHT;
	const struct lora_tensor *a = tensor_of(peft, module, PEFT_A),
				 *b = tensor_of(peft, module, PEFT_B), *w;
	const char *name = lora__arena_printf(peft->decode->arena, "%s.weight", module->path);
	enum lora_status status;
	struct peft_scale scale;
	struct lora_found found;
	bool attention = false;

	if (!name)
		return lora__fail_memory(err);
	status = lora__peft_scale(peft, module->owner, &scale, err);
	if (!status)
		status = check_factors(a, b, &scale, err);
	if (status)
		return status;
	found = lora__peft_find(peft, name);
	if (found.tensor == LORA_NO_TENSOR)
		attention = is_attention(peft, module, &found, &name);
	if (!peft->decode->base)
		return lora__peft_matrix(peft, module, module->owner, &found, orientation, err);
	if (found.tensor == LORA_NO_TENSOR)
		return absent(peft, module, &found, err);
	w = effective(peft, name, &found);
	if (attention) {
		if (w->ndim != 2 || a->ndim != 2 || b->ndim != 2 || w->shape[0] != b->shape[0] ||
		    w->shape[1] != a->shape[1])
			orientation = PEFT_NO_FIT;
	} else {
		status = lora__peft_orient(peft, module, w, &orientation, err);
		if (status)
			return status;
	}
	if (orientation == PEFT_NO_FIT)
		return misfit(peft, module, a, b, w, found.name, err);
	return lora__peft_matrix(peft, module, module->owner, &found, orientation, err);
}

static enum lora_status grouped(const struct peft_module *module, uint64_t groups,
				struct lora_error *err)
{
	return lora__fail(err, LORA_INPUT,
			  "module '%s' is a convolution with %llu groups: no merged weight exists",
			  lora__escape(module->path), (unsigned long long)groups);
}

/* B's kernel is 1 everywhere, A's is W's. */
static bool kernels_fit(const struct lora_tensor *a, const struct lora_tensor *b,
			const struct lora_tensor *w)
{
	bool fit = a->ndim == b->ndim && (!w || w->ndim == a->ndim);

	for (uint32_t i = 2; fit && i < a->ndim; i++)
		fit = b->shape[i] == 1 && (!w || w->shape[i] == a->shape[i]);
	return fit;
}

static enum lora_status convolution(struct peft *peft, const struct peft_module *module,
				    struct lora_error *err)
{
	const struct lora_tensor *a = tensor_of(peft, module, PEFT_A),
				 *b = tensor_of(peft, module, PEFT_B), *w;
	const char *name = lora__arena_printf(peft->decode->arena, "%s.weight", module->path);
	uint64_t shape[LORA_MAX_DIMS], width = a->elements / a->shape[0];
	struct lora_edit like = {0};
	struct peft_scale scale;
	enum lora_status status;
	struct lora_found found;

	if (!name)
		return lora__fail_memory(err);
	status = lora__peft_scale(peft, module->owner, &scale, err);
	if (status)
		return status;
	if (!kernels_fit(a, b, NULL))
		return wrong_pair(a, b, err);
	if (a->shape[0] != scale.rank)
		return wrong_rank(a, a->shape[0], &scale, err);
	if (b->shape[1] != scale.rank)
		return scale.rank % b->shape[1] ? wrong_pair(a, b, err)
						: grouped(module, scale.rank / b->shape[1], err);
	found = lora__peft_find(peft, name);
	w = effective(peft, name, &found);
	if (peft->decode->base && found.tensor == LORA_NO_TENSOR)
		return absent(peft, module, &found, err);
	if (w && (!kernels_fit(a, b, w) || w->shape[0] != b->shape[0]))
		return misfit(peft, module, a, b, w, found.name, err);
	if (w && w->shape[1] != a->shape[1])
		return !w->shape[1] || a->shape[1] % w->shape[1]
			   ? misfit(peft, module, a, b, w, found.name, err)
			   : grouped(module, a->shape[1] / w->shape[1], err);
	memcpy(shape, a->shape, sizeof(shape));
	shape[0] = b->shape[0];
	lora__peft_target(&like, &found, a->ndim, shape, width);
	like.left = lora__peft_view(module->tensor[PEFT_B], b->shape[0], b->shape[1]);
	like.right = lora__peft_view(module->tensor[PEFT_A], a->shape[0], width);
	status = emit(peft, module, &scale, &like, err);
	return status ? status : add_bias(peft, module, &scale, err);
}

static enum lora_status embedding(struct peft *peft, const struct peft_module *module,
				  struct lora_error *err)
{
	const struct lora_tensor *a = tensor_of(peft, module, PEFT_EMBEDDING_A),
				 *b = tensor_of(peft, module, PEFT_EMBEDDING_B), *w;
	const char *name = lora__arena_printf(peft->decode->arena, "%s.weight", module->path);
	struct lora_edit like = {.norm_by_column = true};
	struct peft_scale scale;
	enum lora_status status;
	struct lora_found found;
	uint64_t shape[2];

	if (!name)
		return lora__fail_memory(err);
	status = lora__peft_scale(peft, module->owner, &scale, err);
	if (!status)
		status = check_factors(a, b, &scale, err);
	if (status)
		return status;
	shape[0] = a->shape[1];
	shape[1] = b->shape[0];
	found = lora__peft_find(peft, name);
	w = effective(peft, name, &found);
	if (peft->decode->base && found.tensor == LORA_NO_TENSOR)
		return absent(peft, module, &found, err);
	if (w && (w->ndim != 2 || w->shape[0] != shape[0] || w->shape[1] != shape[1]))
		return misfit(peft, module, a, b, w, found.name, err);
	lora__peft_target(&like, &found, 2, shape, shape[1]);
	like.left = lora__peft_turned(
	    lora__peft_view(module->tensor[PEFT_EMBEDDING_A], a->shape[0], a->shape[1]));
	like.right = lora__peft_turned(
	    lora__peft_view(module->tensor[PEFT_EMBEDDING_B], b->shape[0], b->shape[1]));
	return emit(peft, module, &scale, &like, err);
}

enum lora_status lora__peft_layer(struct peft *peft, const struct peft_module *module,
				  struct lora_error *err)
{
	const char *parameter = NULL;
	enum lora_status status;

	if (module->tensor[PEFT_EMBEDDING_A] != LORA_NO_TENSOR)
		return embedding(peft, module, err);
	if (module->tensor[PEFT_A] == LORA_NO_TENSOR)
		return LORA_OK;
	status = lora__peft_parameter(peft, module, &parameter, err);
	if (status)
		return status;
	if (parameter)
		return lora__peft_experts(peft, module, parameter, err);
	if (module->depth)
		return lora__fail(err, LORA_INPUT,
				  "tensor '%s' is wrapped in %u 'base_layer', but no entry of "
				  "target_parameters names a parameter of that module",
				  lora__escape(tensor_of(peft, module, PEFT_A)->name),
				  module->depth);
	return tensor_of(peft, module, PEFT_A)->ndim <= 2 ? linear(peft, module, err)
							  : convolution(peft, module, err);
}
