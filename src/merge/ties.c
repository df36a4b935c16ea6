/* SPDX-License-Identifier: Apache-2.0 */
/* merge/ties.c - an adapter on tied embeddings: one stored tensor, two uses, and an update to one
 *of them.
 *
 * The unmerged model applies the update to one use and not to the other. A merge that writes the
 *shared tensor would change both, silently.
 *	1. The same update on both sides leaves them tied. So do replaced rows, which mean the
 *shared tensor.
 *	2. Otherwise the tie is split: the second tensor is written, tie_word_embeddings becomes
 *false, and a note says so; or, with LORA_TIED_REFUSE, the merge fails.
 *	3. Ties that no config can undo (T5's encoder and decoder) are never split.
 * An embedding that is replaced by one with more rows takes the config's vocab_size with it.
 */
#include "merge/plan.h"

#include "base/error.h"
#include "base/watch.h"
#include "formats/families.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

static enum lora_status views_equal(const struct lora_plan *plan, const struct lora_part *x,
				    const struct lora_view *xv, const struct lora_part *y,
				    const struct lora_view *yv, bool *equal, struct lora_error *err)
{
	size_t cols = (size_t)xv->cols;
	float *a = malloc(cols * sizeof(float) + 1), *b = malloc(cols * sizeof(float) + 1);
	enum lora_status status = a && b ? LORA_OK : lora__fail_memory(err);

	*equal = xv->rows == yv->rows && xv->cols == yv->cols;
	for (uint64_t i = 0; i < xv->rows && *equal && !status; i++) {
		status = lora__view_read(plan->inputs[x->adapter].adapter, xv, i, 1, a, err);
		if (!status)
			status =
			    lora__view_read(plan->inputs[y->adapter].adapter, yv, i, 1, b, err);
		for (size_t j = 0; j < cols && !status; j++)
			*equal = *equal && a[j] == b[j];
	}
	free(a);
	free(b);
	return status;
}

static enum lora_status parts_equal(const struct lora_plan *plan, const struct lora_part *x,
				    const struct lora_part *y, bool *equal, struct lora_error *err)
{
	const struct lora_edit *a = x->edit, *b = y->edit;
	enum lora_status status;

	*equal = a->kind == b->kind && x->s == y->s && a->row0 == b->row0 && a->col0 == b->col0;
	if (!*equal || a->kind == LORA_EDIT_DORA) {
		*equal = false;
		return LORA_OK;
	}
	if (a->kind != LORA_EDIT_ADD_LOWRANK)
		return views_equal(plan, x, &a->dense, y, &b->dense, equal, err);
	status = views_equal(plan, x, &a->left, y, &b->left, equal, err);
	if (!status && *equal)
		status = views_equal(plan, x, &a->right, y, &b->right, equal, err);
	return status;
}

/* Do both jobs write the same tensor? Rows are compared as sets elsewhere: two jobs with rows are
 * equal only if neither has anything else. */
static enum lora_status jobs_equal(const struct lora_plan *plan, const struct lora_job *x,
				   const struct lora_job *y, bool *equal, struct lora_error *err)
{
	enum lora_status status = LORA_OK;

	*equal = x && y && x->add_count == y->add_count && !x->replace == !y->replace && !x->dora &&
		 !y->dora && x->row_count == y->row_count;
	for (size_t i = 0; *equal && i < x->add_count && !status; i++)
		status = parts_equal(plan, &x->adds[i], &y->adds[i], equal, err);
	for (size_t i = 0; *equal && i < x->row_count && !status; i++) {
		*equal = memcmp(x->rows[i].edit->row_ids, y->rows[i].edit->row_ids,
				(size_t)x->rows[i].edit->dense.rows * sizeof(uint64_t)) == 0;
		if (*equal)
			status = parts_equal(plan, &x->rows[i], &y->rows[i], equal, err);
	}
	if (*equal && x->replace && !status)
		status = parts_equal(plan, x->replace, y->replace, equal, err);
	return status;
}

/* Replaced rows alone mean the shared tensor, whichever name they came under. */
static bool only_rows(const struct lora_job *job)
{
	return job && job->row_count && !job->add_count && !job->replace && !job->dora;
}

static void drop_job(struct lora_plan *plan, struct lora_job *job)
{
	job->dropped = true;
	lora__note(plan->observer, LORA_NOTE_INFO,
		   "'%s' gets the same update as the tensor it is tied to: they stay tied",
		   lora__escape(job->name));
}

/* Under the alias only: the edits belong to the stored tensor. */
static enum lora_status rename_job(struct lora_plan *plan, struct lora_job *job, const char *stored,
				   struct lora_error *err)
{
	bool present;

	job->name = stored;
	return lora__map_add(&plan->job_by_name, stored, strlen(stored),
			     (uint32_t)(job - plan->jobs), &present, err);
}

static enum lora_status split(struct lora_plan *plan, const char *stored, uint32_t source,
			      const char *alias, bool always, bool alias_stored,
			      struct lora_error *err)
{
	struct lora_job *main_job = lora__plan_find_job(plan, stored),
			*alias_job = lora__plan_find_job(plan, alias);
	const struct lora_job *one = main_job ? main_job : alias_job;

	if (plan->options->tied == LORA_TIED_REFUSE || always)
		return lora__fail(
		    err, LORA_INPUT,
		    "the adapter changes '%s' but not '%s', and this model ties them: %s",
		    lora__escape(one->name), lora__escape(one == main_job ? alias : stored),
		    always ? "they cannot be split" : "use --tied split");
	if (one->replace && one->source == LORA_NO_TENSOR && !(main_job && alias_job))
		return lora__fail(err, LORA_INPUT,
				  "'%s' is replaced by a tensor of another shape, but '%s', tied "
				  "to it, is not: save the adapter with both",
				  lora__escape(one->name),
				  lora__escape(one == main_job ? alias : stored));
	if (!alias_job && !alias_stored) {
		plan->split_head = alias;
		plan->split_source = source;
	}
	plan->untie = true;
	lora__note(plan->observer, LORA_NOTE_WARNING,
		   "'%s' and '%s' were tied and now differ: both are written, tie_word_embeddings "
		   "becomes false%s",
		   lora__escape(stored), lora__escape(alias),
		   plan->base->config
		       ? ""
		       : " (there is no config.json to say so: say it where the model is loaded)");
	return LORA_OK;
}

static enum lora_status decide(struct lora_plan *plan, const char *stored, uint32_t source,
			       const char *alias, struct lora_error *err)
{
	struct lora_job *main_job = lora__plan_find_job(plan, stored),
			*alias_job = lora__plan_find_job(plan, alias);
	bool alias_stored = lora__index_find(&plan->base->index, alias, strlen(alias)) != NULL;
	bool equal = false;
	enum lora_status status = jobs_equal(plan, main_job, alias_job, &equal, err);

	if (status)
		return status;
	if (equal && !alias_stored)
		drop_job(plan, alias_job);
	if (equal)
		return LORA_OK;
	if ((only_rows(main_job) && !alias_job))
		return LORA_OK;
	if (only_rows(alias_job) && !main_job && !alias_stored)
		return rename_job(plan, alias_job, stored, err);
	return split(plan, stored, source, alias, lora__family_always_tied(stored, alias),
		     alias_stored, err);
}

static enum lora_status follow_vocabulary(struct lora_plan *plan, const struct lora_job *job,
					  struct lora_error *err)
{
	const struct lora_tensor *w =
	    lora__index_find(&plan->base->index, job->name, strlen(job->name));
	uint64_t rows = job->ndim == 2 ? job->shape[0] : 0;

	if (!w || !job->replace || job->source != LORA_NO_TENSOR ||
	    !lora__family_is_embedding(job->name))
		return LORA_OK;
	if (w->ndim != 2 || job->ndim != 2 || w->shape[1] != job->shape[1])
		return lora__fail(err, LORA_INPUT,
				  "'%s' is replaced by a tensor that is no embedding of this model",
				  lora__escape(job->name));
	if (plan->vocab_size && plan->vocab_size != rows)
		return lora__fail(err, LORA_INPUT,
				  "embeddings are replaced with %" PRIu64 " and with %" PRIu64
				  " rows: they must agree",
				  plan->vocab_size, rows);
	plan->vocab_size = rows;
	lora__note(plan->observer, LORA_NOTE_WARNING,
		   "'%s' has %" PRIu64 " rows now, %" PRIu64 " before: vocab_size follows",
		   lora__escape(job->name), rows, w->shape[0]);
	return LORA_OK;
}

/* The other name under which this model uses a stored embedding: one that the base stores too, else
 * the one absent name there can be; NULL if there is none, or if it cannot be told which. */
static const char *other_half(const struct lora_plan *plan, const char *stored)
{
	const char *type = lora_model_type(plan->base), *name, *absent = NULL;
	const char *head =
	    type && strcmp(type, "whisper") == 0 ? "proj_out.weight" : "lm_head.weight";

	for (size_t i = 0; (name = lora__family_tied_name(stored, i)) != NULL; i++) {
		if (lora__family_always_tied(stored, name))
			continue;
		if (lora__index_find(&plan->base->index, name, strlen(name)))
			return name;
		if (!absent || strcmp(name, head) == 0)
			absent = name;
	}
	return absent;
}

/* The stored tensor behind a job, and whether that job writes an alias of it. */
static const char *stored_name(const struct lora_plan *plan, const struct lora_job *job)
{
	const struct lora_edit *edit = lora__job_lead(job)->edit;

	return edit->tied_alias ? plan->base->index.tensors[edit->base_tensor].name : job->name;
}

enum lora_status lora__plan_ties(struct lora_plan *plan, struct lora_error *err)
{
	struct lora_base_view view = {&plan->base->index, plan->base->config,
				      lora_model_type(plan->base), NULL, NULL};
	bool ties = lora__family_ties(&view) == LORA_ANSWER_YES;
	size_t count = plan->job_count;
	enum lora_status status = LORA_OK;

	for (size_t i = 0; i < count && !status; i++) {
		struct lora_job *job = &plan->jobs[i];
		const char *stored = stored_name(plan, job),
			   *alias = stored == job->name ? NULL : job->name;
		const struct lora_tensor *w =
		    lora__index_find(&plan->base->index, stored, strlen(stored));

		status = follow_vocabulary(plan, job, err);
		if (!w || status || job->dropped)
			continue;
		/* The other name: the alias that an adapter used, or the one that this model would
		 * use. */
		if (!alias)
			alias = other_half(plan, stored);
		if (alias && (ties || lora__family_always_tied(stored, alias)) &&
		    !job->tie_decided) {
			struct lora_job *other =
			    lora__plan_find_job(plan, alias == job->name ? stored : alias);

			if (other)
				other->tie_decided = true;
			status = decide(plan, stored, (uint32_t)(w - plan->base->index.tensors),
					alias, err);
		}
	}
	return status;
}
