/* SPDX-License-Identifier: Apache-2.0 */
/* merge/explain.c - a checkpoint against the merge that should have made it.
 *
 * The plan of that merge is made once more and carried out block by block, into memory
 *(merge/tile.h: the arithmetic is the merge's own), and every block is held against what the
 *checkpoint has there. Bits that are the predicted ones need no more. Where they are not, another
 *program may have merged: it sums in another order, or rounds the update before it is added. Then
 *
 *	[1] every element is what an honest sum can be rounded to. It may be off by half an ulp (of
 *the largest of W, the sum and what is there: a small W' may be the difference of two large
 *	    numbers); by 1.5 ulp of the update, if that is rounded to the type before it is added
 *	    (the product, the scaled product: 1 ulp; the update: 1/2); and by what the order of
 *	    summation in f32 does: (r + 3) 2^-24 s sum_k |B_ik||A_kj| on either side (Higham 2002,
 *	    section 3.1), which by Cauchy and Schwarz is at most that of the norms of a row and a
 *	    column. In 16 bits that is hardly more than half an ulp: a flipped last bit is seen;
 *	[2] the whole update is there. In 16 bits an update is often smaller than an ulp, so that
 *[1] would let one pass that is 1 % too strong, or missing. But rounding is fair: over many
 *	    elements what was changed, b, has the size of what should have been, a. k below is how
 *much longer b is than a, as a share: <b-a, b+a> / 2 over |(b+a)/2|^2, which is symmetric, so that
 *	    an element that was rounded the other way adds nothing. Its standard error follows from
 *the same sums.
 *
 * A checkpoint that says that it is our merge has to have the predicted bits.
 *
 * What the plan does not touch has the base's bytes: the diff knows that already. */
#include "adapter/diff.h"
#include "base/error.h"
#include "base/pool.h"
#include "base/watch.h"
#include "merge/explain.h"
#include "merge/plan.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define BLOCK	      ((uint64_t)1 << 18) /* elements at a time */
#define STRENGTH_SLIP 1e-3		  /* k below this is explained */
#define SIGMAS	      5.0 /* ... and so is one within so many standard errors of 0 */

/* One tensor of the plan. */
struct verdict {
	const struct lora_item *item;
	enum lora_dtype type; /* of what was found */
	char *why;	      /* malloc'd; NULL: explained */
	uint64_t different, far, first;
	double *by_row, *by_column;  /* what f32 may lose at [i, j]: their product */
	double along, size2, spread; /* sums of e*c, c^2, (e*c)^2; e = b - a, c = (b + a)/2 */
	bool exact;		     /* nothing but the bits will do */
};

struct explain {
	struct lora_plan *plan;
	const struct lora_diff *diff;
	const struct lora_model *merged;
	struct verdict *verdicts;
	size_t count;
	struct lora_scratch *scratch; /* by worker */
	unsigned workers;
	bool exact;
	struct lora_watch watch;
};

/* The elements of a block: W or NULL, their values before rounding, what they are rounded to, what
 * is there. */
struct elements {
	const uint8_t *w;
	enum lora_dtype w_type;
	const float *value;
	uint8_t *predicted;
	const uint8_t *found;
	enum lora_dtype type;
};

static enum lora_status say(struct verdict *verdict, const char *why, struct lora_error *err)
{
	verdict->why = strdup(why);
	return verdict->why ? LORA_OK : lora__fail_memory(err);
}

/* What a DoRA's gain, m over a norm that is a sum of so many squares in f32, may be off by, as a
 * share (Higham and Mary 2019: the root of the terms, not their number). */
static double gain_slip(const struct lora_job *job)
{
	uint64_t terms = job->gain_by_column ? job->height : job->width;

	return job->dora ? 0x1p-24 * (sqrt((double)terms) + 4) : 0;
}

/* [1] */
static bool is_far(const struct verdict *v, uint64_t at, double w, double value, double found)
{
	uint64_t width = v->item->job->width;
	double largest = fmax(fmax(fabs(w), fabs(value)), fabs(found)),
	       most = lora__value_ulp(largest, v->type) / 2 +
		      1.5 * lora__value_ulp(value - w, v->type) +
		      v->by_row[at / width] * v->by_column[at % width] +
		      gain_slip(v->item->job) * fabs(value);

	return !(fabs(found - value) <= most);
}

static void judge(struct verdict *v, const struct elements *e, uint64_t first, size_t n)
{
	size_t width = lora_dtype_bits(e->type) / 8;

	for (size_t i = 0; i < n; i++) {
		double w = e->w ? lora__value_at(e->w, e->w_type, i) : 0,
		       predicted = lora__value_at(e->predicted, e->type, i),
		       found = lora__value_at(e->found, e->type, i),
		       middle = (found + predicted) / 2 - w, off = found - predicted;

		v->size2 += middle * middle;
		if (memcmp(e->predicted + i * width, e->found + i * width, width) == 0)
			continue;
		if ((v->exact || is_far(v, first + i, w, (double)e->value[i], found)) &&
		    v->far++ == 0)
			v->first = first + i;
		v->different++;
		v->along += off * middle;
		v->spread += off * middle * off * middle;
	}
}

static enum lora_status narrow(const struct elements *e, size_t n, struct lora_error *err)
{
	const struct lora_kern *kern = lora__kern(err);

	if (!kern)
		return LORA_USAGE;
	if (e->type == LORA_DTYPE_F32)
		memcpy(e->predicted, e->value, n * sizeof(float));
	else if (e->type == LORA_DTYPE_F16)
		kern->narrow_f16((uint16_t *)(void *)e->predicted, e->value, n);
	else
		kern->narrow_bf16((uint16_t *)(void *)e->predicted, e->value, n);
	return LORA_OK;
}

/* The job's output type is F32 here: its values before the last rounding. */
static enum lora_status look_at_block(struct explain *x, const struct lora_job *job,
				      struct lora_block *block, struct verdict *verdict,
				      unsigned worker, struct lora_error *err)
{
	const struct lora_tensor *found = lora_model_find(x->merged, job->name);
	size_t in = lora_dtype_bits(job->in_type) / 8, out = lora_dtype_bits(verdict->type) / 8,
	       n = (size_t)block->count;
	bool has_base = job->source != LORA_NO_TENSOR;
	uint8_t *w = malloc(n * in + 1), *there = malloc(n * out + 1),
		*predicted = malloc(n * out + 1);
	float *value = malloc(n * sizeof(float) + 1);
	struct elements elements = {has_base ? w : NULL, job->in_type, value,
				    predicted,		 there,	       verdict->type};
	enum lora_status status =
	    w && there && predicted && value ? LORA_OK : lora__fail_memory(err);

	block->w = elements.w;
	block->out = (uint8_t *)value;
	if (!status && has_base)
		status = lora_model_read(x->plan->base, &x->plan->base->index.tensors[job->source],
					 block->first * in, w, n * in, err);
	if (!status)
		status = lora_model_read(x->merged, found, block->first * out, there, n * out, err);
	if (!status)
		status = lora__block_compute(block, &x->scratch[worker], err);
	if (!status)
		status = narrow(&elements, n, err);
	if (!status)
		judge(verdict, &elements, block->first, n);
	free(w);
	free(there);
	free(predicted);
	free(value);
	return status ? status : lora__watch_add(&x->watch, n * in, err);
}

/* All sums of a tensor are known [1] [2]. */
static enum lora_status conclude(const struct lora_job *job, struct verdict *v,
				 struct lora_error *err)
{
	char why[LORA_ERROR_SIZE];
	double k = v->size2 > 0 ? v->along / v->size2 : 0,
	       error = v->size2 > 0 ? sqrt(v->spread) / v->size2 : 0;

	if (v->far) {
		snprintf(why, sizeof(why),
			 "%" PRIu64 " of %" PRIu64
			 " elements are not what the adapter makes of them, [%" PRIu64 ", %" PRIu64
			 "] is the first",
			 v->far, job->elements, v->first / job->width, v->first % job->width);
		return say(v, why, err);
	}
	if (!(fabs(k) <= fmax(STRENGTH_SLIP, SIGMAS * error))) {
		snprintf(why, sizeof(why),
			 "the update is %.2g %% %s than the adapter's, by %.0f standard errors",
			 100 * fabs(k), k > 0 ? "larger" : "smaller", fabs(k) / error);
		return say(v, why, err);
	}
	return LORA_OK;
}

/* Adds the squares of a factor's rows, or columns. */
static enum lora_status add_squares(const struct lora_adapter *adapter,
				    const struct lora_view *view, bool columns, double *squares,
				    struct lora_error *err)
{
	float *line = malloc((size_t)view->cols * sizeof(float) + 1);
	enum lora_status status = line ? LORA_OK : lora__fail_memory(err);

	for (uint64_t i = 0; i < view->rows && !status; i++) {
		status = lora__view_read(adapter, view, i, 1, line, err);
		for (uint64_t j = 0; j < view->cols && !status; j++)
			squares[columns ? j : i] += (double)line[j] * (double)line[j];
	}
	free(line);
	return status;
}

/* Of all products, each counted as if it covered its rows and columns alone, in the squares of the
 * norms; several add up as (sum_p a_p b_p)^2 <= sum_p a_p^2 sum_p b_p^2. */
static enum lora_status find_losses(const struct explain *x, const struct lora_job *job,
				    struct verdict *v, struct lora_error *err)
{
	const struct lora_part *parts = job->dora ? job->dora : job->adds;
	size_t count = job->dora ? 1 : job->add_count;
	double terms = 0;
	enum lora_status status = LORA_OK;

	v->by_row = calloc((size_t)job->height + 1, sizeof(double));
	v->by_column = calloc((size_t)job->width + 1, sizeof(double));
	if (!v->by_row || !v->by_column)
		return lora__fail_memory(err);
	for (size_t p = 0; p < count && !status; p++) {
		const struct lora_edit *edit = parts[p].edit;
		const struct lora_adapter *adapter = x->plan->inputs[parts[p].adapter].adapter;

		if (edit->kind == LORA_EDIT_ADD_DENSE)
			continue;
		terms = fmax(terms, fabs((double)parts[p].s) * (double)(edit->left.cols + 3));
		status = add_squares(adapter, &edit->left, false, v->by_row + edit->row0, err);
		if (!status)
			status = add_squares(adapter, &edit->right, true, v->by_column + edit->col0,
					     err);
	}
	for (uint64_t i = 0; i < job->height; i++)
		v->by_row[i] = 2 * 0x1p-24 * terms * sqrt(v->by_row[i]);
	for (uint64_t j = 0; j < job->width; j++)
		v->by_column[j] = sqrt(v->by_column[j]);
	return status;
}

static enum lora_status look_at_job(struct explain *x, struct lora_job *job,
				    struct verdict *verdict, unsigned worker,
				    struct lora_error *err)
{
	uint64_t step = job->width < BLOCK ? BLOCK / job->width * job->width : job->width;
	struct lora_stats stats = {0};
	enum lora_status status = lora__job_load(x->plan, job, err);

	if (!status)
		status = find_losses(x, job, verdict, err);
	if (!status && job->dora)
		status = lora__job_gain(x->plan, job, &x->scratch[worker], err);
	for (uint64_t at = 0; at < job->elements && !status; at += step) {
		struct lora_block block = {.plan = x->plan,
					   .job = job,
					   .first = at,
					   .count = job->elements - at < step ? job->elements - at
									      : step,
					   .stats = &stats};

		status = look_at_block(x, job, &block, verdict, worker, err);
	}
	lora__job_unload(job);
	free(verdict->by_row);
	free(verdict->by_column);
	verdict->by_row = verdict->by_column = NULL;
	return status ? status : conclude(job, verdict, err);
}

/* Where bytes that have to be there come from. */
struct origin {
	const struct lora_tensor *tensor;
	const struct lora_adapter *adapter; /* or NULL: the base's */
};

static enum lora_status read_origin(const struct explain *x, struct origin from, uint64_t at,
				    void *out, size_t n, struct lora_error *err)
{
	if (!from.adapter)
		return lora_model_read(x->plan->base, from.tensor, at, out, n, err);
	return lora__adapter_read(from.adapter, from.tensor, at, out, n, err);
}

static enum lora_status look_at_bytes(const struct explain *x, struct origin from,
				      const struct lora_tensor *found, struct verdict *verdict,
				      struct lora_error *err)
{
	uint8_t *a = malloc(BLOCK), *b = malloc(BLOCK);
	bool same = from.tensor->size == found->size && from.tensor->dtype == found->dtype;
	enum lora_status status = a && b ? LORA_OK : lora__fail_memory(err);

	for (uint64_t at = 0; at < found->size && same && !status; at += BLOCK) {
		size_t n = found->size - at < BLOCK ? (size_t)(found->size - at) : (size_t)BLOCK;

		status = read_origin(x, from, at, a, n, err);
		if (!status)
			status = lora_model_read(x->merged, found, at, b, n, err);
		same = same && (status || memcmp(a, b, n) == 0);
	}
	free(a);
	free(b);
	if (!status && !same)
		return say(verdict,
			   from.adapter ? "it is not the tensor that the adapter puts there"
					: "it is not the tensor that it was tied to",
			   err);
	return status;
}

static bool has_shape(const struct lora_tensor *t, const struct lora_job *job)
{
	return t->ndim == job->ndim &&
	       memcmp(t->shape, job->shape, job->ndim * sizeof(job->shape[0])) == 0;
}

/* A replacement of a type that is not computed with: the adapter's bytes. */
static struct origin raw_origin(const struct lora_plan *plan, const struct lora_job *job)
{
	const struct lora_adapter *adapter = plan->inputs[job->replace->adapter].adapter;

	return (struct origin){&adapter->index.tensors[job->replace->edit->dense.tensor], adapter};
}

static enum lora_status look_at_item(void *user, size_t i, unsigned worker, struct lora_error *err)
{
	struct explain *x = user;
	struct verdict *verdict = &x->verdicts[i];
	struct lora_job *job = verdict->item->job;
	const struct lora_tensor *found = lora_model_find(x->merged, verdict->item->name);

	if (!found)
		return say(verdict, "it is not in the merged model", err);
	if (!job && strcmp(verdict->item->base->name, verdict->item->name) != 0) /* a split tie */
		return look_at_bytes(x, (struct origin){verdict->item->base, NULL}, found, verdict,
				     err);
	if (!job)
		return LORA_OK;
	if (!has_shape(found, job))
		return say(verdict, "it does not have the shape that the merge gives it", err);
	if (job->raw)
		return look_at_bytes(x, raw_origin(x->plan, job), found, verdict, err);
	if (!lora__values_known(found->dtype))
		return say(verdict, "it has a type that is not computed with", err);
	verdict->type = found->dtype;
	verdict->exact = x->exact;
	job->out_type = LORA_DTYPE_F32;
	return look_at_job(x, job, verdict, worker, err);
}

enum lora_status lora__explain_item(struct lora_plan *plan, const struct lora_item *item,
				    const struct lora_model *merged, struct lora_scratch *scratch,
				    char **why, struct lora_error *err)
{
	struct verdict verdict = {.item = item};
	struct explain x = {.plan = plan,
			    .merged = merged,
			    .verdicts = &verdict,
			    .count = 1,
			    .scratch = scratch,
			    .workers = 1};
	enum lora_status status;

	lora__watch_init(&x.watch, NULL, "explain", 0);
	status = look_at_item(&x, 0, 0, err);
	lora__watch_fini(&x.watch);
	*why = verdict.why;
	return status;
}

/* Bytes that changed without an edit: the diff's list, less the plan's. */
static enum lora_status look_at_rest(struct explain *x, struct lora_map *items,
				     struct lora_error *err)
{
	enum lora_status status = LORA_OK;

	for (size_t i = 0; i < x->diff->tensor_count && !status; i++) {
		const char *name = x->diff->tensors[i].name;
		uint32_t at = lora__map_find(items, name, strlen(name));

		if (at != UINT32_MAX && !x->verdicts[at].item->job && !x->verdicts[at].why)
			status =
			    say(&x->verdicts[at], "it changed, and no adapter touches it", err);
	}
	return status;
}

static enum lora_status list_items(struct explain *x, struct lora_map *items, uint64_t *bytes,
				   struct lora_error *err)
{
	const struct lora_plan *plan = x->plan;
	enum lora_status status = LORA_OK;
	size_t count = 0;
	bool present;

	for (size_t f = 0; f < plan->file_count; f++)
		count += plan->files[f].item_count;
	x->verdicts = calloc(count + 1, sizeof(*x->verdicts));
	if (!x->verdicts)
		return lora__fail_memory(err);
	for (size_t f = 0; f < plan->file_count; f++)
		for (size_t i = 0; i < plan->files[f].item_count && !status; i++) {
			const struct lora_item *item = &plan->files[f].items[i];

			if (item->job)
				*bytes +=
				    item->job->elements * lora_dtype_bits(item->job->in_type) / 8;
			status = lora__map_add(items, item->name, strlen(item->name),
					       (uint32_t)x->count, &present, err);
			x->verdicts[x->count++].item = item;
		}
	return status;
}

/* Everything is known: the explanation, into the diff's arena. */
static enum lora_status tell(const struct explain *x, struct lora_diff *diff,
			     const struct lora_map *items, struct lora_error *err)
{
	struct lora_explanation *out = &diff->explanation;
	struct lora_unexplained *list =
	    lora__arena_array(&diff->arena, x->count + diff->added.count + 1, sizeof(*list));
	size_t at = 0;

	if (!list)
		return lora__fail_memory(err);
	memset(out, 0, sizeof(*out));
	for (size_t i = 0; i < x->count; i++) {
		const struct verdict *v = &x->verdicts[i];

		if (v->why)
			list[at++] = (struct lora_unexplained){v->item->name, v->why};
		else if (v->item->job)
			*(v->different ? &out->rounded : &out->exact) += 1;
	}
	for (size_t i = 0; i < diff->added.count; i++)
		if (lora__map_find(items, diff->added.name[i], strlen(diff->added.name[i])) ==
		    UINT32_MAX)
			list[at++] = (struct lora_unexplained){
			    diff->added.name[i], "it is new, and no adapter brings it"};
	for (size_t i = 0; i < at; i++) {
		list[i].name = lora__arena_copy(&diff->arena, list[i].name, strlen(list[i].name));
		list[i].why = lora__arena_copy(&diff->arena, list[i].why, strlen(list[i].why));
		if (!list[i].name || !list[i].why)
			return lora__fail_memory(err);
	}
	out->unexplained = list;
	out->unexplained_count = at;
	out->explained = at == 0;
	diff->has_explanation = true;
	return LORA_OK;
}

static enum lora_status look(struct explain *x, struct lora_diff *diff, struct lora_error *err)
{
	struct lora_map items = {0};
	uint64_t bytes = 0;
	enum lora_status status = lora__plan_make(x->plan, err);

	if (!status)
		status = list_items(x, &items, &bytes, err);
	x->scratch = calloc(x->workers, sizeof(*x->scratch));
	if (!status && !x->scratch)
		status = lora__fail_memory(err);
	for (unsigned w = 0; w < x->workers && !status; w++)
		status = lora__scratch_init(&x->scratch[w], err);
	lora__watch_init(&x->watch, x->plan->observer, "explain", bytes);
	if (!status)
		status = lora__parallel(x->workers, x->count, look_at_item, x, err);
	lora__watch_fini(&x->watch);
	if (!status)
		status = look_at_rest(x, &items, err);
	if (!status)
		status = tell(x, diff, &items, err);
	for (unsigned w = 0; x->scratch && w < x->workers; w++)
		lora__scratch_fini(&x->scratch[w]);
	for (size_t i = 0; i < x->count; i++)
		free(x->verdicts[i].why);
	free(x->scratch);
	free(x->verdicts);
	lora__map_fini(&items);
	return status;
}

struct watcher {
	const struct lora_observer *observer; /* may be NULL */
};

/* The plan's notes tell what a merge writes: nothing is written here. */
static void pass_problems(void *user, enum lora_note_level level, const char *line)
{
	const struct watcher *watcher = user;

	if (level == LORA_NOTE_PROBLEM)
		lora__note(watcher->observer, level, "%s", line);
}

static int pass_progress(void *user, const struct lora_progress *progress)
{
	const struct lora_observer *observer = ((const struct watcher *)user)->observer;

	return observer && observer->progress ? observer->progress(observer->user, progress) : 0;
}

enum lora_status lora_diff_explain(struct lora_diff *diff, struct lora_model *base,
				   const struct lora_merge_input *inputs, size_t count,
				   const struct lora_diff_options *options,
				   const struct lora_observer *observer, struct lora_error *err)
{
	struct lora_merge_options merge = LORA_MERGE_OPTIONS_INIT;
	struct watcher watcher = {observer};
	struct lora_observer quiet = {&watcher, pass_problems, pass_progress};
	struct lora_plan plan = {.base = base,
				 .inputs = inputs,
				 .input_count = count,
				 .options = &merge,
				 .observer = &quiet,
				 .split_source = LORA_NO_TENSOR};
	struct explain x = {.plan = &plan, .diff = diff, .merged = diff->y};
	enum lora_status status;

	if (options->size != sizeof(*options))
		return lora__fail(err, LORA_USAGE, "lora_diff_options: size %zu, not %zu",
				  options->size, sizeof(*options));
	if (!diff->x || diff->x != base)
		return lora__fail(err, LORA_USAGE, "this diff is not one of that base");
	for (size_t a = 0; a < count; a++)
		if (!isfinite(inputs[a].weight))
			return lora__fail(err, LORA_USAGE, "weight of adapter '%s' is not finite",
					  lora__escape(inputs[a].adapter->name));
	x.exact = options->exact;
	x.workers = options->threads ? options->threads : lora__cores();
	merge.threads = x.workers;
	merge.dry_run = true;
	merge.allow_unmatched = options->allow_unmatched;
	status = look(&x, diff, err);
	lora__plan_fini(&plan);
	return status;
}
