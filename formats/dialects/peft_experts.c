/* SPDX-License-Identifier: Apache-2.0 */
/* formats/dialects/peft_experts.c - target_parameters: factors of a parameter rather than of a
 * layer; experts in 3-D.
 *
 * Names. The keys do not say which parameter is meant. Parameters of one module nest their
 * wrappers in the order in which the model's class registers them: the first stands innermost
 * (deepest). `order` below is that order for the classes in use.
 *
 * Packing. W [E, d1, d2]; A and B are matrices with experts and ranks flattened, differently in
 * each:
 *
 *	A [E*r, .]	row e*r + k		experts slowest
 *	B [., r*E]	column k*E + e		experts fastest
 *
 * Layout. A module with the flag is_transposed gets the first, one without it the second:
 *
 *	A [E*r, d1], B [d2, r*E]	D_e = s * (B_e A_e)^T
 *	A [E*r, d2], B [d1, r*E]	D_e = s * B_e A_e
 *
 * PEFT 0.17 and 0.18 took the first for all; 0.19.0 had the flag the wrong way round. The file
 * does not say which: shapes tell unless d1 = d2; then peft_version and the table of families
 * must. What they say must fit the shapes in any case.
 *
 * Fusion. transformers 5 holds some experts fused in memory that stand one by one on disk
 * (formats/families.h): each gets its rows of the fused update. */
#include "formats/dialects/peft.h"

#include "base/error.h"

#include <string.h>

static const char *const order[] = {
    "gate_up_proj", "gate_up_proj_bias", "up_proj",	   "w1",     "v1",   "w2",
    "down_proj",    "down_proj_bias",	 "in_proj_weight", "weight", "bias", NULL};

static size_t place_of(const char *parameter)
{
	size_t i = 0;

	while (order[i] && strcmp(order[i], parameter) != 0)
		i++;
	return i;
}

static const struct lora_tensor *factor(const struct peft *peft, const struct peft_module *module,
					enum peft_role role)
{
	return lora__peft_tensor(peft, module->tensor[role]);
}

/* The name of one expert's part on disk. */
static char *expert_name(const struct peft *peft, const struct peft_module *module,
			 const struct lora_fusion *fusion, uint64_t expert, const char *part)
{
	size_t kept = strlen(module->path) - strlen(fusion->memory);

	return lora__arena_printf(peft->decode->arena, "%.*s%s.%llu.%s.weight", (int)kept,
				  module->path, fusion->disk, (unsigned long long)expert, part);
}

static const struct lora_fusion *fusion_of(struct peft *peft, const struct peft_module *module,
					   const char *parameter)
{
	const struct lora_base_view *base = peft->decode->base;
	const struct lora_fusion *fusion =
	    base ? lora__family_fusion(base->model_type, module->path, parameter) : NULL;
	char *first = fusion ? expert_name(peft, module, fusion, 0, fusion->parts[0]) : NULL;

	return first && lora__peft_find(peft, first).tensor != LORA_NO_TENSOR ? fusion : NULL;
}

/* Can the module have that parameter? Without a base only an entry that names the module, too, is
 * believed. */
static bool exists(struct peft *peft, const struct peft_module *module, const char *parameter,
		   const char *full, const char *target)
{
	if (!peft->decode->base)
		return strchr(target, '.') != NULL;
	return lora__peft_find(peft, full).tensor != LORA_NO_TENSOR ||
	       fusion_of(peft, module, parameter) != NULL;
}

/* The parameters of the module that target_parameters names, in the order of `order`; at most
 * `room`. */
static enum lora_status candidates(struct peft *peft, const struct peft_module *module,
				   const char **out, size_t room, size_t *count,
				   struct lora_error *err)
{
	const struct lora_json *item;

	*count = 0;
	for (item = lora__json_first(peft->config.target_parameters); item;
	     item = lora__json_next(item)) {
		const char *target = lora__json_string(item), *dot = strrchr(target, '.');
		const char *parameter = dot ? dot + 1 : target, *full;
		size_t at = 0;

		full = lora__arena_printf(peft->decode->arena, "%s.%s", module->path, parameter);
		if (!full)
			return lora__fail_memory(err);
		if (!lora__peft_ends_in(full, target) ||
		    !exists(peft, module, parameter, full, target))
			continue;
		while (at < *count && strcmp(out[at], parameter) != 0)
			at++;
		if (at < *count)
			continue;
		if (*count == room)
			return lora__fail(err, LORA_INPUT,
					  "module '%s' has too many target_parameters",
					  lora__escape(module->path));
		while (at > 0 && place_of(out[at - 1]) > place_of(parameter)) {
			out[at] = out[at - 1];
			at--;
		}
		out[at] = parameter;
		++*count;
	}
	return LORA_OK;
}

enum lora_status lora__peft_parameter(struct peft *peft, const struct peft_module *module,
				      const char **parameter, struct lora_error *err)
{
	const char *found[16];
	enum lora_status status;
	size_t count, depths = 0;

	*parameter = NULL;
	if (!peft->config.target_parameters)
		return LORA_OK;
	status = candidates(peft, module, found, 16, &count, err);
	if (status || count == 0)
		return status;
	while (lora__peft_module(peft, module->path, (unsigned)depths))
		depths++;
	if (depths != count || module->depth >= count)
		return lora__fail(err, LORA_INPUT,
				  "module '%s': target_parameters names %zu of its parameters, the "
				  "adapter has factors for %zu",
				  lora__escape(module->path), count, depths);
	for (size_t i = 0; i < count && count > 1; i++)
		if (!order[place_of(found[i])])
			return lora__fail(
			    err, LORA_INPUT,
			    "module '%s': the order of its parameters '%s' ... is not "
			    "known, and the adapter does not say which factors are whose",
			    lora__escape(module->path), lora__escape(found[i]));
	*parameter = found[count - 1 - module->depth];
	return LORA_OK;
}

/* --- layout ---------------------------------------------------------------------------------- */

/* What the adapter's version and the base's family lead to expect. */
static enum lora_answer expect_transposed(const struct peft *peft)
{
	const unsigned *v = peft->config.version;
	unsigned minor = v[1], patch = v[2];
	enum lora_answer flag = LORA_ANSWER_UNKNOWN;
	bool known = peft->config.has_version, old, early;

	if (peft->decode->base)
		flag = lora__family_experts_transposed(peft->decode->base->model_type);
	old = v[0] == 0 && (minor == 17 || minor == 18);
	early = v[0] == 0 && minor < 17;
	/* Builds between releases: from the one after 0.18.0 to the one that 0.19.1 came from,
	 * anything. */
	if (!known || early ||
	    (peft->config.dev && v[0] == 0 &&
	     ((minor == 18 && patch > 0) || (minor == 19 && patch <= 1))))
		return LORA_ANSWER_UNKNOWN;
	if (old)
		return LORA_ANSWER_YES;
	if (v[0] == 0 && minor == 19 && patch == 0)
		return flag == LORA_ANSWER_YES	? LORA_ANSWER_NO
		       : flag == LORA_ANSWER_NO ? LORA_ANSWER_YES
						: LORA_ANSWER_UNKNOWN;
	return flag;
}

struct experts {
	const struct peft_module *module;
	const char *name; /* of the parameter, with its module's path */
	struct peft_scale scale;
	uint64_t count, d1, d2; /* the (fused) parameter [count, d1, d2] */
	bool transposed;
	const struct lora_fusion *fusion;
};

/* True if the factors have the sizes of that layout. */
static bool layout_fits(const struct peft *peft, const struct experts *experts, bool transposed)
{
	const struct lora_tensor *a = factor(peft, experts->module, PEFT_A),
				 *b = factor(peft, experts->module, PEFT_B);

	return a->shape[1] == (transposed ? experts->d1 : experts->d2) &&
	       b->shape[0] == (transposed ? experts->d2 : experts->d1);
}

static enum lora_status choose_layout(const struct peft *peft, struct experts *experts, bool *fits,
				      struct lora_error *err)
{
	bool plain = layout_fits(peft, experts, false), turned = layout_fits(peft, experts, true);
	enum lora_answer expected = expect_transposed(peft);

	*fits = plain || turned;
	if (!*fits)
		return LORA_OK;
	experts->transposed = turned && !plain;
	if (plain && turned) {
		if (expected == LORA_ANSWER_UNKNOWN)
			return lora__fail(
			    err, LORA_INPUT,
			    "experts '%s' are square, and neither peft_version nor the base's "
			    "model_type says how the factors lie: save the adapter with PEFT "
			    "0.19.1 or later",
			    lora__escape(experts->module->path));
		experts->transposed = expected == LORA_ANSWER_YES;
	} else if (expected != LORA_ANSWER_UNKNOWN &&
		   experts->transposed != (expected == LORA_ANSWER_YES)) {
		return lora__fail(
		    err, LORA_INPUT,
		    "experts '%s': the factors lie otherwise than peft_version %u.%u.%u "
		    "writes them for this model: something else has written the adapter",
		    lora__escape(experts->module->path), peft->config.version[0],
		    peft->config.version[1], peft->config.version[2]);
	}
	if (experts->transposed && experts->count == 1)
		return lora__fail(err, LORA_INPUT,
				  "experts '%s': a single transposed expert is not supported",
				  lora__escape(experts->module->path));
	return LORA_OK;
}

/* --- edits ----------------------------------------------------------------------------------- */

/* L [d1, r] and R [r, d2] of expert e. */
static void expert_views(const struct peft *peft, const struct experts *experts, uint64_t e,
			 struct lora_view *left, struct lora_view *right)
{
	const struct peft_module *module = experts->module;
	uint64_t r = experts->scale.rank, wide = factor(peft, module, PEFT_A)->shape[1],
		 high = factor(peft, module, PEFT_B)->shape[0];
	struct lora_view a = {module->tensor[PEFT_A], e * r * wide, r, wide, wide, 1};
	struct lora_view b = {module->tensor[PEFT_B], e, high, r, r * experts->count,
			      experts->count};

	*left = experts->transposed ? lora__peft_turned(a) : b;
	*right = experts->transposed ? lora__peft_turned(b) : a;
}

static struct lora_edit *new_edit(struct peft *peft, const struct experts *experts,
				  const char *target, uint64_t e, struct lora_error *err)
{
	const uint32_t sources[] = {experts->module->tensor[PEFT_A],
				    experts->module->tensor[PEFT_B]};
	struct lora_edit *edit =
	    lora__peft_edit(peft, LORA_EDIT_ADD_LOWRANK, target, experts->name, sources, 2, err);

	if (!edit)
		return NULL;
	expert_views(peft, experts, e, &edit->left, &edit->right);
	edit->rank = experts->scale.rank;
	edit->alpha = experts->scale.alpha;
	edit->divisor = experts->scale.divisor;
	edit->scale = experts->scale.s;
	edit->scale_from = experts->scale.from;
	return edit;
}

static enum lora_status emit_stacked(struct peft *peft, const struct experts *experts,
				     const struct lora_found *found, struct lora_error *err)
{
	const uint64_t shape[3] = {experts->count, experts->d1, experts->d2};

	for (uint64_t e = 0; e < experts->count; e++) {
		struct lora_edit *edit = new_edit(peft, experts, found->name, e, err);

		if (!edit)
			return LORA_SYSTEM;
		lora__peft_target(edit, found, 3, shape, experts->d2);
		edit->row0 = e * experts->d1;
		edit->rows = experts->d1;
	}
	return LORA_OK;
}

static enum lora_status emit_part(struct peft *peft, const struct experts *experts, uint64_t e,
				  uint64_t part, uint64_t parts, struct lora_error *err)
{
	const uint64_t shape[2] = {experts->d1 / parts, experts->d2};
	char *name =
	    expert_name(peft, experts->module, experts->fusion, e, experts->fusion->parts[part]);
	struct lora_found found;
	struct lora_edit *edit;

	if (!name)
		return lora__fail_memory(err);
	found = lora__peft_find(peft, name);
	edit = new_edit(peft, experts, found.name, e, err);
	if (!edit)
		return LORA_SYSTEM;
	lora__peft_target(edit, &found, 2, shape, shape[1]);
	edit->left.offset += part * shape[0] * edit->left.row_stride;
	edit->left.rows = shape[0];
	return LORA_OK;
}

static enum lora_status emit_fused(struct peft *peft, const struct experts *experts,
				   struct lora_error *err)
{
	uint64_t parts = experts->fusion->parts[1] ? 2 : 1;
	enum lora_status status = LORA_OK;

	for (uint64_t e = 0; e < experts->count && !status; e++)
		for (uint64_t part = 0; part < parts && !status; part++)
			status = emit_part(peft, experts, e, part, parts, err);
	return status;
}

/* --- sizes ----------------------------------------------------------------------------------- */

/* Are all parts of all experts there, of one shape, and no expert more? *why says what is not, in
 * the arena. */
static enum lora_status measure_fused(struct peft *peft, struct experts *experts, const char **why,
				      struct lora_error *err)
{
	const struct lora_tensor *first = NULL;

	*why = NULL;
	for (uint64_t i = 0; i < 2 * (experts->count + 1) && !*why; i++) {
		const char *part = experts->fusion->parts[i % 2];
		bool wanted = i / 2 < experts->count;
		const struct lora_tensor *w;
		struct lora_found found;
		char *name;

		if (!part)
			continue;
		name = expert_name(peft, experts->module, experts->fusion, i / 2, part);
		if (!name)
			return lora__fail_memory(err);
		found = lora__peft_find(peft, name);
		w = lora__peft_base(peft, &found);
		if (!first)
			first = w;
		if ((w != NULL) != wanted)
			*why = lora__arena_printf(
			    peft->decode->arena,
			    "the factors are for %llu experts, but the base has %s '%s'",
			    (unsigned long long)experts->count, w ? "also" : "no",
			    lora__escape(name));
		else if (w && (w->ndim != 2 ||
			       memcmp(w->shape, first->shape, 2 * sizeof(*w->shape)) != 0))
			*why = lora__arena_printf(peft->decode->arena,
						  "'%s' %s has another shape than its siblings",
						  lora__escape(name), lora__peft_shape(w));
	}
	if (first && first->ndim == 2) {
		experts->d1 = first->shape[0] * (experts->fusion->parts[1] ? 2 : 1);
		experts->d2 = first->shape[1];
	}
	return LORA_OK;
}

/* A [E*r, .], B [., r*E]: E from the factors. */
static enum lora_status count_experts(const struct peft *peft, struct experts *experts,
				      struct lora_error *err)
{
	const struct lora_tensor *a = factor(peft, experts->module, PEFT_A),
				 *b = factor(peft, experts->module, PEFT_B);
	uint64_t r = experts->scale.rank;

	if (a->ndim != 2 || b->ndim != 2 || a->shape[0] != b->shape[1])
		return lora__fail(err, LORA_INPUT,
				  "tensors '%s' %s and '%s' %s do not fit each other",
				  lora__escape(a->name), lora__peft_shape(a), lora__escape(b->name),
				  lora__peft_shape(b));
	if (a->shape[0] % r || a->shape[0] / r > PEFT_EXPERT_LIMIT)
		return lora__fail(err, LORA_INPUT,
				  "tensor '%s' %s does not hold 1 to %u experts of rank %llu (%s)",
				  lora__escape(a->name), lora__peft_shape(a), PEFT_EXPERT_LIMIT,
				  (unsigned long long)r, experts->scale.from);
	experts->count = a->shape[0] / r;
	return LORA_OK;
}

static enum lora_status misfit(struct peft *peft, const struct experts *experts, const char *what,
			       const char *wanted, struct lora_error *err)
{
	const struct lora_tensor *a = factor(peft, experts->module, PEFT_A),
				 *b = factor(peft, experts->module, PEFT_B);
	const char *why =
	    lora__arena_printf(peft->decode->arena, "factors of shapes %s and %s do not fit '%s'",
			       lora__peft_shape(b), lora__peft_shape(a), lora__escape(what));

	return lora__peft_unmatched(peft, experts->module, why, wanted, err);
}

static enum lora_status fused(struct peft *peft, struct experts *experts, const char *full,
			      struct lora_error *err)
{
	enum lora_status status;
	const char *why;
	bool fits;

	status = measure_fused(peft, experts, &why, err);
	if (status)
		return status;
	if (why)
		return lora__peft_unmatched(peft, experts->module, why, full, err);
	status = choose_layout(peft, experts, &fits, err);
	if (status)
		return status;
	if (!fits)
		return misfit(peft, experts, full, full, err);
	lora__peft_respelled(
	    peft, full,
	    expert_name(peft, experts->module, experts->fusion, 0, experts->fusion->parts[0]));
	return emit_fused(peft, experts, err);
}

static enum lora_status stacked(struct peft *peft, struct experts *experts,
				const struct lora_found *found, struct lora_error *err)
{
	const struct lora_tensor *w = lora__peft_base(peft, found);
	enum lora_status status;
	bool fits = false;

	experts->d1 = w ? w->shape[1] : factor(peft, experts->module, PEFT_B)->shape[0];
	experts->d2 = w ? w->shape[2] : factor(peft, experts->module, PEFT_A)->shape[1];
	if (!w)
		return emit_stacked(peft, experts, found, err);
	status = choose_layout(peft, experts, &fits, err);
	if (status)
		return status;
	return fits && w->shape[0] == experts->count
		   ? emit_stacked(peft, experts, found, err)
		   : misfit(peft, experts, w->name, found->name, err);
}

enum lora_status lora__peft_experts(struct peft *peft, const struct peft_module *module,
				    const char *parameter, struct lora_error *err)
{
	const char *full =
	    lora__arena_printf(peft->decode->arena, "%s.%s", module->path, parameter);
	struct experts experts = {.module = module, .name = full};
	struct peft_module named = *module;
	const struct lora_tensor *w;
	enum lora_status status;
	struct lora_found found;

	if (!full)
		return lora__fail_memory(err);
	if (module->tensor[PEFT_MAGNITUDE] != LORA_NO_TENSOR ||
	    module->tensor[PEFT_B_BIAS] != LORA_NO_TENSOR)
		return lora__fail(
		    err, LORA_INPUT,
		    "module '%s': target_parameters with DoRA or lora_bias is nothing "
		    "that PEFT defines",
		    lora__escape(module->path));
	found = lora__peft_find(peft, full);
	w = lora__peft_base(peft, &found);
	status = lora__peft_scale(peft, full, &experts.scale, err);
	if (!status)
		status = count_experts(peft, &experts, err);
	if (status)
		return status;
	experts.fusion = w ? NULL : fusion_of(peft, module, parameter);
	if (experts.fusion)
		return fused(peft, &experts, full, err);
	if (w ? w->ndim == 2 : experts.count == 1) {
		if (w && !(layout_fits(peft,
				       &(struct experts){
					   .module = module, .d1 = w->shape[0], .d2 = w->shape[1]},
				       false) &&
			   experts.count == 1))
			return misfit(peft, &experts, w->name, found.name, err);
		named.path = full;
		return lora__peft_matrix(peft, &named, full, &found, PEFT_STRAIGHT, err);
	}
	if (w && w->ndim != 3)
		return misfit(peft, &experts, w->name, found.name, err);
	return stacked(peft, &experts, &found, err);
}
