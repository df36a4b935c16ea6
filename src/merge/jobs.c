/* SPDX-License-Identifier: Apache-2.0 */
/* merge/jobs.c - gathering edits by the tensor that they write.
 *
 * Refused here, because no single answer is right:
 *	[1] a weight other than 1 on DoRA or on a replacement (there is no scale to multiply);
 *	[2] DoRA beside any other edit of the same tensor;
 *	[3] two adapters that replace one tensor, or one row of it, with different values;
 *	[4] an edit of a tensor whose type we do not compute with.
 */
#include "merge/plan.h"

#include "base/error.h"
#include "base/watch.h"

#include <stdlib.h>
#include <string.h>

static bool computes(enum lora_dtype type)
{
	return type == LORA_DTYPE_F32 || type == LORA_DTYPE_F16 || type == LORA_DTYPE_BF16;
}

static bool is_add(const struct lora_edit *edit)
{
	return edit->kind == LORA_EDIT_ADD_LOWRANK || edit->kind == LORA_EDIT_ADD_DENSE;
}

static bool replaces(const struct lora_edit *edit)
{
	return edit->kind == LORA_EDIT_REPLACE || edit->kind == LORA_EDIT_ADD_TENSOR;
}

struct lora_job *lora__plan_find_job(struct lora_plan *plan, const char *name)
{
	uint32_t i = lora__map_find(&plan->job_by_name, name, strlen(name));

	return i == UINT32_MAX ? NULL : &plan->jobs[i];
}

struct lora_job *lora__plan_job(struct lora_plan *plan, const char *name, uint32_t source)
{
	struct lora_job *job = lora__plan_find_job(plan, name);
	bool present;

	if (job)
		return job;
	if (plan->job_count == plan->job_limit ||
	    lora__map_add(&plan->job_by_name, name, strlen(name), (uint32_t)plan->job_count,
			  &present, NULL))
		return NULL;
	job = &plan->jobs[plan->job_count];
	if (pthread_mutex_init(&job->lock, NULL))
		return NULL;
	job->number = plan->job_count++;
	job->name = name;
	job->source = source;
	if (source != LORA_NO_TENSOR) {
		const struct lora_tensor *w = &plan->base->index.tensors[source];

		job->in_type = w->dtype;
		job->ndim = w->ndim;
		memcpy(job->shape, w->shape, sizeof(job->shape));
	}
	return job;
}

/* How many parts of each sort every job gets: so that its arrays have their size at once. */
static void count_part(struct lora_job *job, const struct lora_edit *edit)
{
	if (is_add(edit))
		job->add_count++;
	else if (edit->kind == LORA_EDIT_REPLACE_ROWS)
		job->row_count++;
}

static enum lora_status make_jobs(struct lora_plan *plan, struct lora_error *err)
{
	for (size_t a = 0; a < plan->input_count; a++) {
		struct lora_resolved *resolved = &plan->resolved[a];

		for (size_t e = 0; e < resolved->edit_count; e++) {
			const struct lora_edit *edit = &resolved->edits[e];
			struct lora_job *job =
			    lora__plan_job(plan, edit->target, edit->base_tensor);

			if (!job)
				return lora__fail_memory(err);
			count_part(job, edit);
		}
	}
	for (size_t i = 0; i < plan->job_count; i++) {
		struct lora_job *job = &plan->jobs[i];

		job->adds = lora__arena_array(&plan->arena, job->add_count, sizeof(*job->adds));
		job->rows = lora__arena_array(&plan->arena, job->row_count, sizeof(*job->rows));
		if ((!job->adds && job->add_count) || (!job->rows && job->row_count))
			return lora__fail_memory(err);
		job->add_count = job->row_count = 0;
	}
	return LORA_OK;
}

/* Rows of a part's dense tensor, from `row` on. */
struct rows_of {
	const struct lora_part *part;
	uint64_t row;
};

static enum lora_status read_row(const struct lora_plan *plan, struct rows_of at, uint64_t i,
				 float *out, struct lora_error *err)
{
	return lora__view_read(plan->inputs[at.part->adapter].adapter, &at.part->edit->dense,
			       at.row + i, 1, out, err);
}

/* Do two adapters hold the same values? Row by row, so that an embedding needs one row of memory.
 */
static enum lora_status same_values(const struct lora_plan *plan, struct rows_of x,
				    struct rows_of y, uint64_t rows, bool *same,
				    struct lora_error *err)
{
	size_t cols = (size_t)x.part->edit->dense.cols;
	float *a = calloc(cols + 1, sizeof(*a)), *b = calloc(cols + 1, sizeof(*b));
	enum lora_status status = a && b ? LORA_OK : lora__fail_memory(err);

	*same = cols == y.part->edit->dense.cols;
	for (uint64_t i = 0; i < rows && *same && !status; i++) {
		status = read_row(plan, x, i, a, err);
		if (!status)
			status = read_row(plan, y, i, b, err);
		for (size_t j = 0; j < cols && !status; j++)
			*same = *same && a[j] == b[j];
	}
	free(a);
	free(b);
	return status;
}

static enum lora_status add_replacement(struct lora_plan *plan, struct lora_job *job,
					struct lora_part part, struct lora_error *err)
{
	enum lora_status status;
	bool same = false;

	if (!job->replace) {
		job->replace = lora__arena_alloc(&plan->arena, sizeof(part));
		if (!job->replace)
			return lora__fail_memory(err);
		*job->replace = part;
		return LORA_OK;
	}
	if (part.edit->dense.rows == job->replace->edit->dense.rows) {
		status = same_values(plan, (struct rows_of){job->replace, 0},
				     (struct rows_of){&part, 0}, part.edit->dense.rows, &same, err);
		if (status)
			return status;
	}
	if (!same) /* [3] */
		return lora__fail(err, LORA_INPUT,
				  "two adapters replace '%s' with different values: '%s', '%s': "
				  "merge one of them",
				  lora__escape(job->name),
				  lora__escape(plan->inputs[job->replace->adapter].adapter->name),
				  lora__escape(plan->inputs[part.adapter].adapter->name));
	return LORA_OK;
}

static enum lora_status check_rows(struct lora_plan *plan, struct lora_job *job,
				   struct lora_part part, struct lora_error *err)
{
	for (size_t p = 0; p < job->row_count; p++) {
		const struct lora_part *old = &job->rows[p];

		for (uint64_t i = 0; i < old->edit->dense.rows; i++)
			for (uint64_t j = 0; j < part.edit->dense.rows; j++) {
				enum lora_status status = LORA_OK;
				bool same = true;

				if (old->edit->row_ids[i] == part.edit->row_ids[j])
					status =
					    same_values(plan, (struct rows_of){old, i},
							(struct rows_of){&part, j}, 1, &same, err);
				if (status)
					return status;
				if (!same) /* [3] */
					return lora__fail(
					    err, LORA_INPUT,
					    "two adapters replace row %llu of '%s' with different "
					    "values: merge one of them",
					    (unsigned long long)part.edit->row_ids[j],
					    lora__escape(job->name));
			}
	}
	job->rows[job->row_count++] = part;
	return LORA_OK;
}

static enum lora_status add_part(struct lora_plan *plan, struct lora_job *job,
				 struct lora_part part, struct lora_error *err)
{
	const struct lora_edit *edit = part.edit;

	if (!is_add(edit) && plan->inputs[part.adapter].weight != 1) /* [1] */
		return lora__fail(
		    err, LORA_INPUT,
		    "weight %g on '%s': adapter '%s' %s it, which has no strength: use weight 1",
		    plan->inputs[part.adapter].weight, lora__escape(job->name),
		    lora__escape(plan->inputs[part.adapter].adapter->name),
		    edit->kind == LORA_EDIT_DORA ? "applies DoRA to" : "replaces");
	if (edit->kind == LORA_EDIT_REPLACE_ROWS)
		return check_rows(plan, job, part, err);
	if (replaces(edit))
		return add_replacement(plan, job, part, err);
	if (is_add(edit)) {
		job->adds[job->add_count++] = part;
		return LORA_OK;
	}
	if (job->dora) /* [2] */
		return lora__fail(
		    err, LORA_INPUT,
		    "two adapters apply DoRA to '%s': their norms depend on one another: merge one",
		    lora__escape(job->name));
	job->dora = lora__arena_alloc(&plan->arena, sizeof(part));
	if (!job->dora)
		return lora__fail_memory(err);
	*job->dora = part;
	return LORA_OK;
}

/* s = f32(weight * alpha / divisor), the product and the quotient in f64 from left to right. */
static float part_scale(double weight, const struct lora_edit *edit)
{
	return (float)(weight * edit->alpha / edit->divisor);
}

static enum lora_status fill_jobs(struct lora_plan *plan, struct lora_error *err)
{
	for (size_t a = 0; a < plan->input_count; a++) {
		struct lora_resolved *resolved = &plan->resolved[a];

		for (size_t e = 0; e < resolved->edit_count; e++) {
			const struct lora_edit *edit = &resolved->edits[e];
			struct lora_job *job = lora__plan_find_job(plan, edit->target);
			struct lora_part part = {(uint32_t)a, edit,
						 part_scale(plan->inputs[a].weight, edit), NULL,
						 NULL};
			enum lora_status status = add_part(plan, job, part, err);

			if (status)
				return status;
		}
	}
	return LORA_OK;
}

/* A dialect's promise, proved once more before it becomes a pointer: every range lies inside the
 * target. */
static bool inside(const struct lora_job *job, const struct lora_part *part)
{
	const struct lora_edit *e = part->edit;

	if (e->width != job->width)
		return false;
	if (e->kind != LORA_EDIT_REPLACE_ROWS)
		return e->row0 <= job->height && e->rows <= job->height - e->row0 &&
		       e->col0 <= job->width && e->cols <= job->width - e->col0;
	for (uint64_t i = 0; i < e->dense.rows; i++)
		if (e->row_ids[i] >= job->height)
			return false;
	return e->dense.cols == job->width;
}

/* DoRA's magnitudes belong to whole rows or columns. */
static bool dora_whole(const struct lora_job *job)
{
	const struct lora_edit *e = job->dora->edit;

	return e->rows == job->height && e->cols == job->width &&
	       e->magnitude.rows * e->magnitude.cols ==
		   (e->norm_by_column ? job->width : job->height);
}

static bool all_inside(const struct lora_job *job)
{
	bool ok = (!job->replace || inside(job, job->replace)) &&
		  (!job->dora || (inside(job, job->dora) && dora_whole(job)));

	for (size_t i = 0; i < job->add_count; i++)
		ok = ok && inside(job, &job->adds[i]);
	for (size_t i = 0; i < job->row_count; i++)
		ok = ok && inside(job, &job->rows[i]);
	return ok;
}

/* Shape, types and the fast path, once all parts are known. */
static enum lora_status finish_job(struct lora_plan *plan, struct lora_job *job,
				   struct lora_error *err)
{
	const struct lora_edit *shaped = job->replace ? job->replace->edit : NULL;
	const struct lora_tensor *w =
	    job->source == LORA_NO_TENSOR ? NULL : &plan->base->index.tensors[job->source];
	bool same_shape = true;

	if (job->dora && (job->replace || job->row_count || job->add_count)) /* [2] */
		return lora__fail(err, LORA_INPUT,
				  "'%s' has DoRA and another edit: merge them one at a time",
				  lora__escape(job->name));
	if (shaped) {
		same_shape = w && w->ndim == shaped->ndim &&
			     memcmp(w->shape, shaped->shape, w->ndim * sizeof(w->shape[0])) == 0;
		job->ndim = shaped->ndim;
		memcpy(job->shape, shaped->shape, sizeof(job->shape));
		if (!w)
			job->in_type = plan->inputs[job->replace->adapter]
					   .adapter->index.tensors[shaped->dense.tensor]
					   .dtype;
		else if (!same_shape)
			job->source =
			    LORA_NO_TENSOR; /* nothing to compare with, element by element */
	}
	job->elements = 1;
	for (uint32_t d = 0; d < job->ndim; d++)
		job->elements *= job->shape[d];
	job->width = shaped	      ? shaped->width
		     : job->add_count ? job->adds[0].edit->width
		     : job->row_count ? job->rows[0].edit->width
		     : job->dora      ? job->dora->edit->width
				      : job->elements;
	job->height = job->width ? job->elements / job->width : 0;
	if (!all_inside(job))
		return lora__fail(
		    err, LORA_INPUT,
		    "'%s': an edit reaches outside the tensor: the adapter does not fit",
		    lora__escape(job->name));
	job->raw = shaped && !computes(job->in_type);
	if (job->raw && (job->add_count || job->row_count))
		return lora__fail(err, LORA_INPUT,
				  "'%s' is %s: it cannot be replaced and adapted at once",
				  lora__escape(job->name), lora_dtype_name(job->in_type));
	if (!shaped && !computes(job->in_type)) /* [4] */
		return lora__fail(
		    err, LORA_INPUT,
		    "cannot adapt '%s': its type is %s: convert the base to F32, F16 or BF16 first",
		    lora__escape(job->name), lora_dtype_name(job->in_type));
	job->out_type = job->in_type;
	if (!job->raw && plan->options->dtype != LORA_DTYPE_NONE)
		job->out_type = plan->options->dtype;
	job->plain = w && !job->replace && !job->row_count && !job->dora;
	job->gain_by_column = job->dora && job->dora->edit->norm_by_column;
	return LORA_OK;
}

enum lora_status lora__plan_jobs(struct lora_plan *plan, struct lora_error *err)
{
	enum lora_status status;

	for (size_t a = 0; a < plan->input_count; a++)
		plan->job_limit += plan->resolved[a].edit_count;
	plan->job_limit += 1;
	plan->jobs = lora__arena_array(&plan->arena, plan->job_limit, sizeof(*plan->jobs));
	if (!plan->jobs)
		return lora__fail_memory(err);
	status = make_jobs(plan, err);
	if (!status)
		status = fill_jobs(plan, err);
	for (size_t i = 0; i < plan->job_count && !status; i++)
		status = finish_job(plan, &plan->jobs[i], err);
	return status;
}
