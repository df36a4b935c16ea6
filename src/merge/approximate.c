/* SPDX-License-Identifier: Apache-2.0 */
/* merge/approximate.c - subtracting adapters from a merged model, and how far that leads
 *
 * The same adapters laid over the merged model give the same jobs as the merge had; each is turned
 * round: P = RNE(f32(W') - D), which is near W. Only sums can be subtracted: what was replaced is
 * gone, and of DoRA's gain m / |W + D| neither side is known.
 */
#include "base/error.h"
#include "base/watch.h"
#include "kern/ordinal.h"
#include "merge/pipeline.h"
#include "merge/residual.h"
#include "merge/sidecar.h"
#include "merge/target.h"
#include "merge/tile.h"
#include "merge/unmerge.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define STEP (1u << 18) /* bytes */

static enum lora_status turn_round(struct lora_plan *plan, struct lora_error *err)
{
	if (plan->untie || plan->split_head || plan->added_count)
		return lora__fail(err, LORA_INPUT,
				  "subtracting would split tied weights or add tensors: only the "
				  "record of the merge leads back");
	for (size_t i = 0; i < plan->job_count; i++) {
		struct lora_job *job = &plan->jobs[i];

		if (!job->plain)
			return lora__fail(
			    err, LORA_INPUT,
			    "'%s' was not merged by a sum (%s): nothing gives it back but "
			    "the record of the merge",
			    lora__escape(job->name),
			    lora__edit_kind_name(lora__job_lead(job)->edit->kind));
		job->restores = true;
	}
	return LORA_OK;
}

static enum lora_status make_plan(struct lora_plan *plan, struct lora_error *err)
{
	enum lora_status status = lora__kern(err) ? lora__plan_make(plan, err) : LORA_USAGE;

	return status ? status : turn_round(plan, err);
}

static struct lora_unmerge_error from_stats(const struct lora_plan *plan)
{
	struct lora_stats total = {0};
	struct lora_unmerge_error e = {0, 0, 0};
	double even =
	    0; /* of all weights, above one half: a base that was quantized once has more */

	for (size_t i = 0; i < plan->job_count; i++)
		lora__stats_add(&total, &plan->jobs[i].stats);
	if (total.changed)
		even = (double)total.unchanged / (double)total.changed - 0.5;
	total.d2 -= even * total.ties;
	total.e2 -= even * total.ties2;
	if (total.nonzero)
		e.off = total.d2 / (double)total.nonzero;
	if (total.w2 > 0)
		e.relative = sqrt(total.e2 / total.w2);
	return e;
}

enum lora_status lora_unmerge_expect(struct lora_unmerge_error *expected, struct lora_model *merged,
				     const struct lora_merge_input *inputs, size_t count,
				     const struct lora_unmerge_options *options,
				     struct lora_error *err)
{
	struct lora_merge_options merge = LORA_MERGE_OPTIONS_INIT;
	struct lora_plan plan = {.base = merged,
				 .inputs = inputs,
				 .input_count = count,
				 .options = &merge,
				 .observer = options->observer,
				 .split_source = LORA_NO_TENSOR};
	enum lora_status status;

	merge.threads = options->threads;
	status = make_plan(&plan, err);
	if (!status)
		status = lora__pipeline_run(&plan, NULL, false, err);
	if (!status)
		*expected = from_stats(&plan);
	lora__plan_fini(&plan);
	return status;
}

/* ---- measuring --------------------------------------------------------------------------------
 */

struct sums {
	uint64_t elements, off, max_ulp;
	double e2, w2;
};

/* n elements of two tensors of one type. */
static void compare(struct sums *sums, const void *got, const void *want, enum lora_dtype type,
		    size_t n, float *buffers)
{
	float *x = buffers, *w = buffers + STEP / 2;
	uint32_t *z = (uint32_t *)(void *)(buffers + STEP);
	unsigned width = lora_dtype_bits(type) / 8;

	lora__widen(&lora__kern_generic, x, got, type, n);
	lora__widen(&lora__kern_generic, w, want, type, n);
	(void)lora__ordinal_fold(z, got, want, n, width);
	for (size_t i = 0; i < n; i++) {
		uint64_t folded = width == 4 ? z[i] : ((const uint16_t *)(const void *)z)[i],
			 ulp = (folded + 1) / 2;
		double e = (double)x[i] - (double)w[i];

		sums->off += folded != 0;
		sums->max_ulp = ulp > sums->max_ulp ? ulp : sums->max_ulp;
		sums->e2 += e * e;
		sums->w2 += (double)w[i] * (double)w[i];
	}
	sums->elements += n;
}

static enum lora_status compare_tensor(struct sums *sums, const struct lora_model *got,
				       const struct lora_model *base, const struct lora_job *job,
				       uint8_t *bytes, float *buffers, struct lora_error *err)
{
	const struct lora_tensor *x = lora__index_find(&got->index, job->name, strlen(job->name)),
				 *w = lora__index_find(&base->index, job->name, strlen(job->name));
	unsigned width = x ? lora_dtype_bits(x->dtype) / 8 : 0;
	enum lora_status status = LORA_OK;

	if (!x || !w || x->dtype != w->dtype || x->size != w->size)
		return lora__fail(
		    err, LORA_INPUT,
		    "'%s' has no tensor '%s' of that type and shape: it is another base",
		    lora__escape(base->path), lora__escape(job->name));
	for (uint64_t at = 0; at < x->size && !status; at += STEP) {
		size_t n = x->size - at < STEP ? (size_t)(x->size - at) : STEP;

		status = lora_model_read(got, x, at, bytes, n, err);
		if (!status)
			status = lora_model_read(base, w, at, bytes + STEP, n, err);
		if (!status)
			compare(sums, bytes, bytes + STEP, x->dtype, n / width, buffers);
	}
	return status;
}

static enum lora_status measure(struct lora_unmerge_error *measured, const struct lora_plan *plan,
				const struct lora_output *output, const struct lora_model *base,
				struct lora_error *err)
{
	char *path = lora__output_path(output, NULL);
	uint8_t *bytes = malloc(2 * STEP);
	float *buffers = malloc(2 * STEP * sizeof(float));
	struct lora_model *got = NULL;
	struct sums sums = {0, 0, 0, 0, 0};
	enum lora_status status =
	    path && bytes && buffers ? lora_model_open(&got, path, err) : lora__fail_memory(err);

	for (size_t i = 0; i < plan->job_count && !status; i++)
		status = compare_tensor(&sums, got, base, &plan->jobs[i], bytes, buffers, err);
	if (!status) {
		measured->off = sums.elements ? (double)sums.off / (double)sums.elements : 0;
		measured->relative = sums.w2 > 0 ? sqrt(sums.e2 / sums.w2) : 0;
		measured->max_ulp = sums.max_ulp;
	}
	lora_model_close(got);
	free(bytes);
	free(buffers);
	free(path);
	return status;
}

/* ---- writing ----------------------------------------------------------------------------------
 */

static enum lora_status write_near(struct lora_plan *plan, struct lora_unmerge_error *measured,
				   const struct lora_model *base, const char *path,
				   struct lora_error *err)
{
	struct lora_output *output = NULL;
	bool directory = plan->base->directory;
	enum lora_status status = lora__output_begin(&output, path, directory, false, err);

	if (!status)
		status = lora__pipeline_outputs(plan, output, err);
	if (!status)
		status = lora__pipeline_run(plan, output, false, err);
	if (!status)
		status = lora__model_unchanged(plan->base, err);
	if (!status && directory)
		status = lora__sidecars_write(plan, output, err);
	if (!status && base)
		status = measure(measured, plan, output, base, err);
	if (!status)
		status = lora__output_commit(output, err);
	lora__output_free(output);
	return status;
}

static enum lora_status check_places(const struct lora_model *merged, const struct lora_model *base,
				     const struct lora_merge_input *inputs, size_t count,
				     const char *output, struct lora_error *err)
{
	enum lora_status status = lora__target_outside(output, merged->path, err);

	if (!status && base)
		status = lora__target_outside(output, base->path, err);
	for (size_t a = 0; a < count && !status; a++)
		status = lora__target_outside(output, inputs[a].adapter->path, err);
	return status;
}

enum lora_status
lora_unmerge_approximate(struct lora_unmerge_summary *summary, struct lora_model *merged,
			 const struct lora_merge_input *inputs, size_t count, const char *output,
			 const struct lora_unmerge_options *options, struct lora_error *err)
{
	struct lora_merge_options merge = LORA_MERGE_OPTIONS_INIT;
	/* What there is to say about the adapters, lora_unmerge_expect() has said. */
	const struct lora_observer *observer = options->observer;
	struct lora_observer quiet = {observer ? observer->user : NULL, NULL,
				      observer ? observer->progress : NULL};
	struct lora_plan plan = {.base = merged,
				 .inputs = inputs,
				 .input_count = count,
				 .options = &merge,
				 .observer = &quiet,
				 .split_source = LORA_NO_TENSOR};
	struct timespec begin;
	enum lora_status status = check_places(merged, options->base, inputs, count, output, err);

	memset(summary, 0, sizeof(*summary));
	clock_gettime(CLOCK_MONOTONIC, &begin);
	merge.threads = options->threads;
	if (!status)
		status = make_plan(&plan, err);
	if (!status)
		status = write_near(&plan, &summary->measured, options->base, output, err);
	if (!status) {
		summary->tensors = merged->index.count;
		summary->restored = plan.job_count;
		summary->files = plan.file_count;
		summary->bytes = plan.bytes;
		summary->seconds = lora__seconds_since(&begin);
	}
	lora__plan_fini(&plan);
	return status;
}
