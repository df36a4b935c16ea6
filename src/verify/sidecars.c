/* SPDX-License-Identifier: Apache-2.0 */
/* verify/sidecars.c - config and tokenizer: what else decides how a model behaves.
 *
 * 1. Our merge copies the base's files byte for byte, and changes in config.json what the adapters
 *    demand; so every byte is compared.
 * 2. Other tools write JSON anew, with members that their version adds. There a member is compared
 *    that both sides have: another value is a problem, unless it only tells where the file came
 *    from (`provenance`). tokenizer.json is the tokenizer itself: its members have to be all the
 *    same. What is no JSON is compared byte for byte. A member or file that one side lacks is
 *    noted; of config.json it is a problem where both can be read as a model that we know, and are
 *    not the same one.
 */
#include "verify/proof.h"

#include "adapter/diff.h"
#include "base/error.h"
#include "base/watch.h"
#include "merge/sidecar.h"
#include "net/spec.h"

#include <dirent.h>
#include <stdlib.h>
#include <string.h>

/* Where a file came from, and how a loader is to read it. */
static const char *const provenance[] = {"transformers_version",
					 "torch_dtype",
					 "dtype",
					 "_name_or_path",
					 "name_or_path",
					 "use_cache",
					 "_attn_implementation_autoset",
					 "tokenizer_class",
					 "tokenizer_file",
					 "is_local",
					 "local_files_only",
					 "backend",
					 "_from_model_config",
					 NULL};

static bool one_of(const char *name, const char *const *names)
{
	for (; *names; names++)
		if (strcmp(name, *names) == 0)
			return true;
	return false;
}

/* A file's text, or NULL where there is none. */
static enum lora_status slurp(const char *directory, const char *name, struct lora_text *text,
			      struct lora_error *err)
{
	char *path = lora__path_join(directory, name);
	enum lora_path_kind kind = LORA_PATH_ABSENT;
	enum lora_status status = path ? lora__path_kind(path, &kind, err) : lora__fail_memory(err);

	if (!status && kind == LORA_PATH_FILE)
		status = lora__file_slurp(path, LORA_SIDECAR_LIMIT, &text->data, &text->size, err);
	free(path);
	return status;
}

/* What the merge would have put there; NULL: nothing. */
static enum lora_status slurp_expected(const struct lora_proof *proof, const char *name,
				       struct lora_text *text, struct lora_error *err)
{
	const struct lora_plan *plan = &proof->plan;
	enum lora_status status = LORA_OK;

	if (strcmp(name, LORA_CONFIG_FILE) == 0)
		return plan->base->config_text ? lora__sidecar_config(plan, text, err) : LORA_OK;
	for (size_t a = 0; a < plan->input_count && proof->merge.adapter_tokenizer; a++) {
		const struct lora_adapter *adapter = plan->inputs[a].adapter;

		if (adapter->directory && one_of(name, lora__tokenizer_files) && !text->data &&
		    !status)
			status = lora__adapter_slurp(adapter, name, LORA_SIDECAR_LIMIT, &text->data,
						     &text->size, err);
	}
	if (status || text->data ||
	    (proof->merge.adapter_tokenizer && one_of(name, lora__tokenizer_files)))
		return status;
	return slurp(plan->base->path, name, text, err);
}

static enum lora_status problem(struct lora_proof *proof, const char *name, const char *what,
				struct lora_error *err)
{
	return lora__proof_line(proof, &proof->problems, err, "'%s': %s", lora__escape(name), what);
}

/* ---- JSON, member by member [2] */

struct pair {
	const char *name;
	struct lora_json *x, *y; /* what is expected, what is there */
};

static enum lora_status tell(struct lora_proof *proof, const struct pair *pair,
			     const struct lora_config_difference *d, bool bad,
			     struct lora_error *err)
{
	if (bad)
		return lora__proof_line(
		    proof, &proof->problems, err, "'%s': '%s' is %.100s, not %.100s",
		    lora__escape(pair->name), lora__escape(d->key),
		    d->y ? lora__escape(d->y) : "absent", d->x ? lora__escape(d->x) : "absent");
	lora__note(proof->observer, LORA_NOTE_INFO, "'%s': '%s' is %.100s, the base says %.100s",
		   lora__escape(pair->name), lora__escape(d->key),
		   d->y ? lora__escape(d->y) : "absent", d->x ? lora__escape(d->x) : "absent");
	return LORA_OK;
}

static bool same_list(const size_t *a, const size_t *b, size_t n)
{
	return (!a || !b) ? a == b : memcmp(a, b, n * sizeof(*a)) == 0;
}

static bool same_angles(const struct lora_spec *a, const struct lora_spec *b)
{
	for (size_t i = 0; a->inverse && b->inverse && i < a->head_dim / 2; i++)
		if (a->inverse[i] < b->inverse[i] || a->inverse[i] > b->inverse[i])
			return false;
	return !a->inverse == !b->inverse;
}

static bool same_spec(const struct lora_spec *a, const struct lora_spec *b)
{
	return a->family == b->family && a->vocabulary == b->vocabulary && a->width == b->width &&
	       a->hidden == b->hidden && a->layers == b->layers && a->heads == b->heads &&
	       a->kv_heads == b->kv_heads && a->head_dim == b->head_dim &&
	       a->positions == b->positions && !(a->eps < b->eps) && !(a->eps > b->eps) &&
	       a->activation == b->activation && a->attention_bias == b->attention_bias &&
	       a->mlp_bias == b->mlp_bias && a->tied == b->tied && a->scale_down == b->scale_down &&
	       same_angles(a, b) && same_list(a->window, b->window, a->layers);
}

/* Two configs that differ in what one of them does not spell out: do they mean two models? */
static bool two_models(const struct pair *pair)
{
	struct lora_arena arena = {NULL};
	struct lora_spec x = {0}, y = {0};
	bool known = lora__spec_parse(&x, pair->x, false, &arena, NULL) == LORA_OK &&
		     lora__spec_parse(&y, pair->y, false, &arena, NULL) == LORA_OK,
	     two = known && !same_spec(&x, &y);

	lora__arena_fini(&arena);
	return two;
}

static bool is_provenance(const char *key)
{
	const char *dot = strrchr(key, '.');

	return one_of(dot ? dot + 1 : key, provenance);
}

static enum lora_status compare_members(struct lora_proof *proof, const struct pair *pair,
					struct lora_error *err)
{
	struct lora_diff_options options = LORA_DIFF_OPTIONS_INIT;
	struct lora_diff *diff = NULL;
	bool whole = strcmp(pair->name, "tokenizer.json") == 0,
	     config = strcmp(pair->name, LORA_CONFIG_FILE) == 0, two = false;
	enum lora_status status = lora__diff_new(&diff, &options, err);

	if (!status)
		status = lora__diff_json(diff, pair->x, pair->y, err);
	two = !status && diff->config_count && config && two_models(pair);
	for (size_t i = 0; !status && i < diff->config_count; i++) {
		const struct lora_config_difference *d = &diff->config[i];
		bool one_sided = !d->x || !d->y;

		if (whole || !is_provenance(d->key))
			status = tell(proof, pair, d, whole || !one_sided || two, err);
	}
	lora_diff_free(diff);
	return status;
}

static bool is_json(const char *name)
{
	size_t length = strlen(name);

	return length > 5 && strcmp(name + length - 5, ".json") == 0;
}

static enum lora_status compare_foreign(struct lora_proof *proof, const char *name,
					const struct lora_text *x, const struct lora_text *y,
					struct lora_error *err)
{
	struct pair pair = {name, NULL, NULL};
	enum lora_status status = LORA_OK;

	if (!is_json(name))
		return problem(proof, name, "it is not the base's", err);
	status = lora__json_parse(&pair.x, x->data, x->size, err);
	if (!status && lora__json_parse(&pair.y, y->data, y->size, NULL))
		status = problem(proof, name, "it is no JSON, and the base's is", err);
	else if (!status)
		status = compare_members(proof, &pair, err);
	lora__json_free(pair.x);
	lora__json_free(pair.y);
	return status;
}

/* ---- one file, all files */

static enum lora_status compare_file(struct lora_proof *proof, const char *name,
				     struct lora_error *err)
{
	struct lora_text x = {NULL, 0}, y = {NULL, 0};
	enum lora_status status = slurp_expected(proof, name, &x, err);

	if (!status)
		status = slurp(proof->merged->path, name, &y, err);
	if (status || (!x.data && !y.data))
		goto out;
	if (x.data && y.data && x.size == y.size && memcmp(x.data, y.data, x.size) == 0)
		goto out;
	if (proof->receipt) /* [1] */
		status = problem(proof, name,
				 !y.data   ? "it is missing"
				 : !x.data ? "the merge did not put it there"
					   : "it is not what the merge put there",
				 err);
	else if (!x.data || !y.data)
		lora__note(proof->observer, LORA_NOTE_INFO, "'%s': %s", lora__escape(name),
			   x.data ? "the base has it, the merged model does not"
				  : "the merged model has it, the base does not");
	else
		status = compare_foreign(proof, name, &x, &y, err);
out:
	lora__text_fini(&x);
	lora__text_fini(&y);
	return status;
}

/* Of our merge: all files of the base that it copies, beyond the names that everybody knows. */
static enum lora_status compare_rest(struct lora_proof *proof, struct lora_error *err)
{
	DIR *dir = opendir(proof->base->path);
	enum lora_status status =
	    dir ? LORA_OK
		: lora__fail_errno(err, "cannot list '%s'", lora__escape(proof->base->path));
	struct dirent *entry;

	while (!status && (entry = readdir(dir))) {
		const char *name = entry->d_name;

		if (strcmp(name, LORA_CONFIG_FILE) != 0 && strcmp(name, LORA_INDEX_FILE) != 0 &&
		    !one_of(name, lora__tokenizer_files) &&
		    lora__sidecar_expected(&proof->plan, name, false))
			status = compare_file(proof, name, err);
	}
	if (dir)
		closedir(dir);
	return status;
}

enum lora_status lora__proof_sidecars(struct lora_proof *proof, struct lora_error *err)
{
	enum lora_status status;

	if (!proof->base->directory)
		return LORA_OK;
	status = compare_file(proof, LORA_CONFIG_FILE, err);
	for (const char *const *name = lora__tokenizer_files; *name && !status; name++)
		status = compare_file(proof, *name, err);
	if (!status && proof->receipt)
		return compare_rest(proof, err);
	return status ? status : compare_file(proof, "generation_config.json", err);
}
