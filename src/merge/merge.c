/* SPDX-License-Identifier: Apache-2.0 */
/* merge/merge.c - the whole of a merge, from its contract's front door to the rename.
 *
 *	refuse early --> plan --> base digests --> bindings --> write under a temporary name -->
 *inputs unchanged? --> anything changed?
 *	--> config, index, other files --> receipt --> read back (verify) --> commit
 *
 * 1. Nothing is written before everything that can be refused from names, shapes and digests has
 *been.
 * 2. Whatever fails after that leaves no trace: the output is a temporary name until the last step.
 */
#include "base/digest.h"
#include "base/error.h"
#include "base/watch.h"
#include "merge/check.h"
#include "merge/pipeline.h"
#include "merge/plan.h"
#include "merge/receipt.h"
#include "merge/sidecar.h"
#include "merge/target.h"
#include "merge/undo_write.h"
#include "merge/unmerge.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

struct lora_merge_result {
	struct lora_arena arena;
	struct lora_merge_summary summary;
	struct lora_merged_tensor *tensors;
	size_t count;
	char *receipt;
	size_t receipt_size;
};

static enum lora_status check_arguments(const struct lora_merge_input *inputs, size_t count,
					const char *output,
					const struct lora_merge_options *options,
					struct lora_error *err)
{
	if (options->size != sizeof(*options))
		return lora__fail(err, LORA_USAGE, "lora_merge_options: size %zu, not %zu",
				  options->size, sizeof(*options));
	if (count == 0)
		return lora__fail(err, LORA_USAGE, "no adapter to merge");
	if (!output && !options->dry_run)
		return lora__fail(err, LORA_USAGE, "no output");
	if (options->dtype != LORA_DTYPE_NONE && options->dtype != LORA_DTYPE_F32 &&
	    options->dtype != LORA_DTYPE_F16 && options->dtype != LORA_DTYPE_BF16)
		return lora__fail(err, LORA_USAGE,
				  "cannot merge into type %s: use F32, F16 or BF16",
				  lora_dtype_name(options->dtype));
	for (size_t a = 0; a < count; a++)
		if (!isfinite(inputs[a].weight))
			return lora__fail(err, LORA_USAGE, "weight of adapter '%s' is not finite",
					  lora__escape(inputs[a].adapter->name));
	return LORA_OK;
}

static bool any_bound(const struct lora_plan *plan)
{
	for (size_t a = 0; a < plan->input_count; a++)
		if (plan->inputs[a].adapter->bound)
			return true;
	return false;
}

static enum lora_status digest_base(struct lora_plan *plan, struct lora_error *err)
{
	if (plan->base->digests_known)
		return LORA_OK;
	return lora_model_digest(plan->base, LORA_DIGEST_CACHED, plan->options->threads,
				 plan->observer, err);
}

/* Every adapter that names a base must name this one. */
static enum lora_status check_bindings(const struct lora_plan *plan, struct lora_error *err)
{
	for (size_t a = 0; a < plan->input_count; a++) {
		const struct lora_adapter *adapter = plan->inputs[a].adapter;
		char theirs[LORA_SHA256_HEX], ours[LORA_SHA256_HEX];

		if (!adapter->bound && plan->options->require_bound)
			return lora__fail(err, LORA_NO,
					  "adapter '%s' is not bound to a base: get one whose "
					  "loractl.json names this base's root, or drop "
					  "--require-bound",
					  lora__escape(adapter->name));
		if (!adapter->bound)
			continue;
		if (lora__sha256_equal(&adapter->bound_root, &plan->base->root))
			continue;
		lora__sha256_hex(&adapter->bound_root, theirs);
		lora__sha256_hex(&plan->base->root, ours);
		return lora__fail(err, LORA_NO,
				  "adapter '%s' was trained on another base: root %.16s..., this "
				  "one has %.16s...: use that base",
				  lora__escape(adapter->name), theirs, ours);
	}
	return LORA_OK;
}

/* Said once the merge stands: before, it would only be a line beside an error. */
static void note_unbound(const struct lora_plan *plan)
{
	for (size_t a = 0; a < plan->input_count; a++)
		if (!plan->inputs[a].adapter->bound)
			lora__note(
			    plan->observer, LORA_NOTE_INFO,
			    "adapter '%s' carries no binding: names and shapes fit this base, "
			    "its weights were not compared",
			    lora__escape(plan->inputs[a].adapter->name));
}

/* A loader that follows config.json's type would round again what --dtype kept. */
static void note_config_type(const struct lora_plan *plan)
{
	const char *type = lora__json_string(lora__json_get(plan->base->config, "dtype"));

	if (!type)
		type = lora__json_string(lora__json_get(plan->base->config, "torch_dtype"));
	for (size_t i = 0; i < plan->job_count && type; i++) {
		const struct lora_job *job = &plan->jobs[i];

		if (job->out_type != LORA_DTYPE_F32 || job->in_type == LORA_DTYPE_F32 ||
		    strcmp(type, "float32") == 0)
			continue;
		lora__note(
		    plan->observer, LORA_NOTE_WARNING,
		    "config.json says dtype '%s': load the model with float32, or the adapted "
		    "tensors are rounded again",
		    lora__escape(type));
		return;
	}
}

/* Half of the update's norm gone is no rounding error any more: the result is nearer to the base
 * than to base + adapter. */
#define SWALLOWED 0.5

static void note_swallowed(const struct lora_plan *plan, const struct lora_merge_summary *summary)
{
	if (summary->noise > SWALLOWED)
		lora__note(
		    plan->observer, LORA_NOTE_WARNING,
		    "rounding swallowed most of the update: its error is %.3g %% of |update|: "
		    "a wider --dtype keeps it",
		    100 * summary->noise);
}

static bool needs_digests(const struct lora_merge_options *options)
{
	return !options->no_receipt || options->undo || options->expect;
}

/* Bits of a value that a type keeps. */
static int precision(enum lora_dtype type)
{
	return type == LORA_DTYPE_F32 ? 24 : type == LORA_DTYPE_F16 ? 11 : 8;
}

/* Where rounding takes most of every value, a record holds as much as the base. */
static enum lora_status refuse_narrow_undo(const struct lora_plan *plan, struct lora_error *err)
{
	for (size_t i = 0; i < plan->job_count && plan->options->undo; i++) {
		const struct lora_job *job = &plan->jobs[i];

		if (!job->replace && !plan->options->undo_large &&
		    precision(job->out_type) < precision(job->in_type))
			return lora__fail(err, LORA_USAGE,
					  "--undo with --dtype %s: rounding '%s' from %s loses "
					  "bits of every value, "
					  "the record will be nearly as large as the base: use "
					  "--undo-large, or a "
					  "wider --dtype",
					  lora_dtype_name(job->out_type), lora__escape(job->name),
					  lora_dtype_name(job->in_type));
	}
	return LORA_OK;
}

static enum lora_status inputs_unchanged(const struct lora_plan *plan, struct lora_error *err)
{
	enum lora_status status = lora__model_unchanged(plan->base, err);

	for (size_t a = 0; a < plan->input_count && !status; a++)
		status = lora__adapter_unchanged(plan->inputs[a].adapter, err);
	return status;
}

static enum lora_status refuse_noop(const struct lora_plan *plan, struct lora_error *err)
{
	uint64_t changed = 0;

	for (size_t i = 0; i < plan->job_count; i++)
		changed += plan->jobs[i].stats.changed;
	if (changed || plan->options->allow_noop)
		return LORA_OK;
	return lora__fail(err, LORA_INPUT,
			  "the merge changes nothing: %zu tensors adapted, every value as before: "
			  "check the adapter, or use "
			  "--allow-noop",
			  plan->job_count);
}

static enum lora_status write_receipt(const struct lora_plan *plan, struct lora_output *output,
				      const char *path, const struct lora_merge_result *result,
				      struct lora_error *err)
{
	char *beside = lora__receipt_path(path, false);
	int fd = -1;
	enum lora_status status = beside ? LORA_OK : lora__fail_memory(err);

	if (!status && plan->base->directory)
		status = lora__output_file(output, LORA_RECEIPT_FILE, 0, &fd, err);
	else if (!status)
		status = lora__output_beside(output, beside, &fd, err);
	if (!status)
		status = lora__write_at(fd, LORA_RECEIPT_FILE, 0, result->receipt,
					result->receipt_size, err);
	if (!status && plan->base->directory)
		status = lora__output_finish(output, fd, err);
	free(beside);
	return status;
}

static enum lora_status read_back(struct lora_plan *plan, const struct lora_output *output,
				  struct lora_error *err)
{
	char *path = lora__output_path(output, NULL);
	struct lora_model *merged = NULL;
	enum lora_status status =
	    path ? lora_model_open(&merged, path, err) : lora__fail_memory(err);

	if (!status)
		status = lora__merge_check(plan, merged, err);
	lora_model_close(merged);
	free(path);
	return status;
}

/* Statistics, digests and receipt are known: the result. */
static enum lora_status make_result(const struct lora_plan *plan, struct lora_merge_result *result,
				    struct lora_error *err)
{
	struct lora_sha256 root;
	struct lora_stats total = {0};
	struct lora_ratios r;
	enum lora_status status = LORA_OK;

	result->tensors =
	    lora__arena_array(&result->arena, plan->job_count + 1, sizeof(*result->tensors));
	if (!result->tensors)
		return lora__fail_memory(err);
	for (size_t i = 0; i < plan->job_count; i++) {
		const struct lora_job *job = &plan->jobs[i];
		const struct lora_part *lead = lora__job_lead(job);
		struct lora_merged_tensor *t = &result->tensors[result->count];

		if (job->dropped)
			continue;
		result->count++;
		r = lora__stats_ratios(&job->stats);
		*t = (struct lora_merged_tensor){
		    lora__arena_copy(&result->arena, job->name, strlen(job->name)),
		    lora__edit_kind_name(lead->edit->kind),
		    lora__job_rank(job),
		    (double)lead->s,
		    lora__arena_copy(&result->arena, lead->edit->scale_from,
				     strlen(lead->edit->scale_from)),
		    r.rho,
		    r.unchanged,
		    r.noise};
		if (!t->tensor || !t->scale_from)
			return lora__fail_memory(err);
		total.d2 += job->stats.d2;
		total.w2 += job->stats.w2;
		total.e2 += job->stats.e2;
		total.nonzero += job->stats.nonzero;
		total.unchanged += job->stats.unchanged;
	}
	r = lora__stats_ratios(&total);
	result->summary.modules = result->count;
	result->summary.added = plan->added_count;
	for (size_t f = 0; f < plan->file_count; f++)
		for (size_t i = 0; i < plan->files[f].item_count; i++)
			result->summary.untouched += !plan->files[f].items[i].job;
	result->summary.rho = r.rho;
	result->summary.unchanged = r.unchanged;
	result->summary.noise = r.noise;
	result->summary.bytes = plan->bytes;
	result->summary.undo = plan->undo != NULL;
	result->summary.undo_bytes = plan->undo_size;
	if (plan->undo)
		lora__undo_sizes(plan, &result->summary.undo_residual,
				 &result->summary.undo_adapted);
	if (plan->options->no_receipt)
		return LORA_OK;
	if (!plan->options->dry_run)
		status = lora__plan_root(plan, &root, err);
	if (!status)
		status = lora__receipt_text(plan, plan->options->dry_run ? NULL : &root,
					    &result->receipt, &result->receipt_size, err);
	return status;
}

/* The record of the way back, a companion of the output. */
static enum lora_status write_undo(struct lora_plan *plan, struct lora_output *output,
				   struct lora_error *err)
{
	const char *path = plan->options->undo, *slash = strrchr(path, '/');
	char *written = lora__output_path(output, NULL);
	int fd = -1;
	enum lora_status status =
	    written ? lora__output_beside(output, path, &fd, err) : lora__fail_memory(err);

	if (!status)
		status = lora__undo_write(plan, fd, written, err);
	plan->undo_name = slash ? slash + 1 : path;
	free(written);
	return status;
}

/* Every block, and with a record what the blocks do not say. */
static enum lora_status compute(struct lora_plan *plan, struct lora_output *output, bool digests,
				struct lora_error *err)
{
	const char *undo = plan->options->undo;
	enum lora_status status =
	    undo ? lora__undo_begin(plan, output ? undo : NULL, err) : LORA_OK;

	if (!status)
		status = lora__pipeline_run(plan, output, digests, err);
	if (!status && undo)
		status = lora__undo_replaced(plan, err);
	if (!status)
		status = inputs_unchanged(plan, err);
	return status ? status : refuse_noop(plan, err);
}

/* The part that writes. */
static enum lora_status write_all(struct lora_plan *plan, const char *path,
				  struct lora_merge_result *result, struct lora_error *err)
{
	struct lora_output *output = NULL;
	bool receipt = !plan->options->no_receipt;
	enum lora_status status =
	    lora__output_begin(&output, path, plan->base->directory, plan->options->force, err);

	if (!status)
		status = lora__pipeline_outputs(plan, output, err);
	if (!status)
		status = compute(plan, output, needs_digests(plan->options), err);
	if (!status)
		status = lora__receipt_expect(plan, err);
	if (!status && plan->base->directory)
		status = lora__sidecars_write(plan, output, err);
	if (!status && plan->options->undo)
		status = write_undo(plan, output, err);
	if (!status)
		status = make_result(plan, result, err);
	if (!status && receipt)
		status = write_receipt(plan, output, path, result, err);
	if (!status && plan->options->verify)
		status = read_back(plan, output, err);
	if (!status) /* what came into it meanwhile is not lost either */
		status = lora__target_check(plan, path, err);
	if (!status)
		status = lora__output_commit(output, err);
	lora__output_free(output);
	return status;
}

static enum lora_status predict(struct lora_plan *plan, struct lora_merge_result *result,
				struct lora_error *err)
{
	enum lora_status status = compute(plan, NULL, false, err);

	return status ? status : make_result(plan, result, err);
}

static enum lora_status run(struct lora_plan *plan, const char *output,
			    struct lora_merge_result *result, struct lora_error *err)
{
	enum lora_status status =
	    lora__kern(err) ? lora__target_check(plan, output, err) : LORA_USAGE;

	if (plan->base->index_ignored)
		lora__note(plan->observer, LORA_NOTE_WARNING,
			   "'%s' has model.safetensors and a shard index: the index is ignored, as "
			   "transformers "
			   "does",
			   lora__escape(plan->base->path));
	if (!status && any_bound(plan))
		status = digest_base(plan, err);
	if (!status)
		status = lora__plan_make(plan, err);
	if (!status)
		status = lora__tokenizer_note(plan, err);
	if (!status)
		status = refuse_narrow_undo(plan, err);
	if (!status && needs_digests(plan->options))
		status = digest_base(plan, err);
	if (!status)
		status = check_bindings(plan, err);
	if (status)
		return status;
	status = plan->options->dry_run ? predict(plan, result, err)
					: write_all(plan, output, result, err);
	if (!status) {
		note_unbound(plan);
		note_swallowed(plan, &result->summary);
		note_config_type(plan);
	}
	return status;
}

enum lora_status lora_merge(struct lora_merge_result **out, struct lora_model *base,
			    const struct lora_merge_input *inputs, size_t count, const char *output,
			    const struct lora_merge_options *options,
			    const struct lora_observer *observer, struct lora_error *err)
{
	struct lora_plan plan = {.base = base,
				 .inputs = inputs,
				 .input_count = count,
				 .options = options,
				 .observer = observer,
				 .split_source = LORA_NO_TENSOR};
	struct timespec begin;
	enum lora_status status = check_arguments(inputs, count, output, options, err);

	*out = NULL;
	if (status)
		return status;
	clock_gettime(CLOCK_MONOTONIC, &begin);
	*out = calloc(1, sizeof(**out));
	status = *out ? run(&plan, output, *out, err) : lora__fail_memory(err);
	lora__undo_end(&plan);
	lora__plan_fini(&plan);
	if (status) {
		lora_merge_result_free(*out);
		*out = NULL;
		return status;
	}
	(*out)->summary.seconds = lora__seconds_since(&begin);
	return LORA_OK;
}

void lora_merge_result_free(struct lora_merge_result *result)
{
	if (!result)
		return;
	free(result->receipt);
	lora__arena_fini(&result->arena);
	free(result);
}

const struct lora_merge_summary *lora_merge_summary(const struct lora_merge_result *result)
{
	return &result->summary;
}

const struct lora_merged_tensor *lora_merge_tensors(const struct lora_merge_result *result,
						    size_t *count)
{
	*count = result->count;
	return result->tensors;
}

const char *lora_merge_receipt(const struct lora_merge_result *result)
{
	return result->receipt;
}
