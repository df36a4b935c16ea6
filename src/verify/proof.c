/* SPDX-License-Identifier: Apache-2.0 */
/* verify/proof.c - what is claimed about a merged model: by its receipt, by digest; by the caller,
 * by place. They have to agree before anything is computed.
 *
 * 1. A receipt that stands there counts, even one that does not fit: a model that says how it was
 *    made is not judged more kindly for saying it wrongly.
 * 2. The caller's weights are part of the claim (1 where none is given).
 * 3. An adapter that is bound to a base has to be bound to this one.
 */
#include "verify/proof.h"

#include "base/digest.h"
#include "base/error.h"
#include "base/watch.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum lora_status lora__proof_line(struct lora_proof *proof, struct lora_lines *lines,
				  struct lora_error *err, const char *format, ...)
{
	char text[LORA_ERROR_SIZE];
	va_list args;
	char *copy;

	va_start(args, format);
	(void)vsnprintf(text, sizeof(text), format, args);
	va_end(args);
	if (lines->count == lines->room) {
		size_t room = lines->room ? 2 * lines->room : 8;
		const char **more = realloc((void *)lines->line, room * sizeof(*lines->line));

		if (!more)
			return lora__fail_memory(err);
		lines->line = more;
		lines->room = room;
	}
	copy = lora__arena_copy(&proof->arena, text, strlen(text));
	if (!copy)
		return lora__fail_memory(err);
	lines->line[lines->count++] = copy;
	return LORA_OK;
}

enum lora_status lora__proof_refused(const struct lora_proof *proof, struct lora_error *err)
{
	if (!proof->refused.status)
		return LORA_OK;
	return lora__fail(err, proof->refused.status, "%s", proof->refused.message);
}

/* ---- opening */

static enum lora_status open_receipt(struct lora_proof *proof, struct lora_error *err)
{
	char *path = lora__receipt_path(proof->merged->path, proof->merged->directory);
	enum lora_path_kind kind = LORA_PATH_ABSENT;
	struct lora_json *stands = NULL;
	enum lora_status status = path ? lora__path_kind(path, &kind, err) : lora__fail_memory(err);

	if (!status && kind != LORA_PATH_ABSENT)
		status = lora_rebuild_open(&proof->receipt, path, err);
	if (!status && proof->receipt) { /* [1] */
		proof->merge = proof->receipt->options;
		if (lora__receipt_load(&stands, proof->merged->path, proof->merged->directory,
				       &proof->refused))
			proof->refused.status = LORA_NO;
		lora__json_free(stands);
	}
	free(path);
	return status;
}

static enum lora_status open_adapters(struct lora_proof *proof,
				      const struct lora_proof_place *places, size_t count,
				      struct lora_error *err)
{
	struct lora_adapter_options plain = LORA_ADAPTER_OPTIONS_INIT;
	const struct lora_adapter_options *options =
	    proof->receipt ? &proof->receipt->adapter_options : &plain;
	enum lora_status status = LORA_OK;

	proof->inputs = calloc(count + 1, sizeof(*proof->inputs));
	if (!proof->inputs)
		return lora__fail_memory(err);
	for (size_t i = 0; i < count && !status; i++) {
		struct lora_merge_input *input = &proof->inputs[i];

		if (!isfinite(places[i].weight))
			return lora__fail(err, LORA_USAGE, "the weight of '%s' is not finite",
					  lora__escape(places[i].path));
		status =
		    lora_adapter_open(&input->adapter, places[i].path, options, &proof->quiet, err);
		input->weight = places[i].weight;
		proof->input_count += !status;
	}
	return status;
}

/* ---- do they agree? */

static double given_weight(const struct lora_proof_place *places, const struct lora_merge_input *in,
			   size_t count, const struct lora_adapter *adapter)
{
	for (size_t i = 0; i < count; i++)
		if (in[i].adapter == adapter)
			return places[i].weight;
	return 1;
}

/* [2] */
static enum lora_status check_weights(const struct lora_proof *proof,
				      const struct lora_proof_place *places,
				      const struct lora_merge_input *given, struct lora_error *err)
{
	for (size_t i = 0; i < proof->input_count; i++) {
		const struct lora_merge_input *in = &proof->inputs[i];
		double weight = given_weight(places, given, proof->input_count, in->adapter);

		if (weight < in->weight || weight > in->weight)
			return lora__fail(err, LORA_NO,
					  "the receipt says that adapter '%s' was merged with "
					  "weight %.9g, not %.9g: was it meant to be?",
					  lora__escape(in->adapter->name), in->weight, weight);
	}
	return LORA_OK;
}

static enum lora_status check_receipt(struct lora_proof *proof,
				      const struct lora_proof_place *places, struct lora_error *err)
{
	size_t count = proof->input_count, named = lora_rebuild_adapter_count(proof->receipt);
	struct lora_merge_input *given = calloc(count + 1, sizeof(*given));
	enum lora_status status = given ? LORA_OK : lora__fail_memory(err);

	if (!status)
		memcpy(given, proof->inputs, count * sizeof(*given));
	if (!status && named != count)
		status = lora__fail(err, LORA_NO, "the receipt names %zu adapters, %zu are given",
				    named, count);
	if (!status)
		status = lora__rebuild_base(proof->receipt, proof->base, err);
	if (!status)
		status = lora__rebuild_inputs(proof->receipt, proof->inputs, err);
	if (!status)
		status = check_weights(proof, places, given, err);
	free(given);
	return status;
}

/* [3] */
static enum lora_status check_bindings(const struct lora_proof *proof, struct lora_error *err)
{
	for (size_t i = 0; i < proof->input_count; i++) {
		const struct lora_adapter *adapter = proof->inputs[i].adapter;

		if (adapter->bound && !lora__sha256_equal(&adapter->bound_root, &proof->base->root))
			return lora__fail(err, LORA_NO,
					  "adapter '%s' was trained on another base than '%s': its "
					  "root is not the one that the adapter names",
					  lora__escape(adapter->name),
					  lora__escape(proof->base->path));
	}
	return LORA_OK;
}

/* What is not LORA_NO is a failure; that is kept for the levels to say. */
static enum lora_status keep(struct lora_proof *proof, enum lora_status status,
			     struct lora_error *own, struct lora_error *err)
{
	if (status == LORA_NO && !proof->refused.status)
		proof->refused = *own;
	if (status <= LORA_NO)
		return LORA_OK;
	if (err)
		*err = *own;
	return status;
}

static enum lora_status check_claim(struct lora_proof *proof, const struct lora_proof_place *places,
				    struct lora_error *err)
{
	struct lora_error own = LORA_ERROR_INIT;
	enum lora_status status = LORA_OK;

	if (proof->receipt)
		status = keep(proof, check_receipt(proof, places, &own), &own, err);
	if (!status)
		status = keep(proof, check_bindings(proof, &own), &own, err);
	return status;
}

/* ---- the plan of the merge that should have been */

static void pass_problems(void *user, enum lora_note_level level, const char *line)
{
	if (level == LORA_NOTE_PROBLEM)
		lora__note(user, level, "%s", line);
}

static int pass_progress(void *user, const struct lora_progress *progress)
{
	const struct lora_observer *observer = user;

	return observer && observer->progress ? observer->progress(observer->user, progress) : 0;
}

static enum lora_status make_plan(struct lora_proof *proof, struct lora_error *err)
{
	proof->merge.threads = proof->options.threads;
	proof->merge.dry_run = true;
	proof->plan = (struct lora_plan){.base = proof->base,
					 .inputs = proof->inputs,
					 .input_count = proof->input_count,
					 .options = &proof->merge,
					 .observer = &proof->quiet,
					 .split_source = LORA_NO_TENSOR};
	proof->planned = true;
	return lora__plan_make(&proof->plan, err);
}

static enum lora_status copy_options(struct lora_proof *proof,
				     const struct lora_proof_options *options,
				     struct lora_error *err)
{
	if (options->size != sizeof(*options))
		return lora__fail(err, LORA_USAGE, "lora_proof_options: size %zu, not %zu",
				  options->size, sizeof(*options));
	proof->options = *options;
	proof->observer = options->observer;
	proof->quiet =
	    (struct lora_observer){(void *)options->observer, pass_problems, pass_progress};
	proof->prompts = options->prompts ? strdup(options->prompts) : NULL;
	proof->reference = options->reference ? strdup(options->reference) : NULL;
	if ((options->prompts && !proof->prompts) || (options->reference && !proof->reference))
		return lora__fail_memory(err);
	proof->options.prompts = proof->prompts;
	proof->options.reference = proof->reference;
	return LORA_OK;
}

static enum lora_status digest(struct lora_proof *proof, struct lora_model *model,
			       struct lora_error *err)
{
	return lora_model_digest(model, LORA_DIGEST_FRESH, proof->options.threads, proof->observer,
				 err);
}

static enum lora_status open_all(struct lora_proof *proof, const char *merged, const char *base,
				 const struct lora_proof_place *places, size_t count,
				 struct lora_error *err)
{
	enum lora_status status =
	    count ? LORA_OK : lora__fail(err, LORA_USAGE, "no adapter to verify with");

	if (!status)
		status = lora_model_open(&proof->merged, merged, err);
	if (!status)
		status = lora_model_open(&proof->base, base, err);
	if (!status)
		status = open_receipt(proof, err);
	if (!status)
		status = open_adapters(proof, places, count, err);
	if (!status)
		status = digest(proof, proof->base, err);
	if (!status)
		status = digest(proof, proof->merged, err);
	if (!status)
		status = check_claim(proof, places, err);
	if (!status && !proof->refused.status)
		status = make_plan(proof, err);
	return status;
}

enum lora_status lora_proof_open(struct lora_proof **out, const char *merged, const char *base,
				 const struct lora_proof_place *places, size_t count,
				 const struct lora_proof_options *options, struct lora_error *err)
{
	struct lora_proof *proof = calloc(1, sizeof(*proof));
	enum lora_status status;

	*out = NULL;
	if (!proof)
		return lora__fail_memory(err);
	proof->merge = (struct lora_merge_options)LORA_MERGE_OPTIONS_INIT;
	status = copy_options(proof, options, err);
	if (!status)
		status = open_all(proof, merged, base, places, count, err);
	if (status)
		lora_proof_close(proof);
	else
		*out = proof;
	return status;
}

void lora_proof_close(struct lora_proof *proof)
{
	if (!proof)
		return;
	if (proof->planned)
		lora__plan_fini(&proof->plan);
	for (size_t i = 0; i < proof->input_count; i++)
		lora_adapter_close(proof->inputs[i].adapter);
	lora_rebuild_free(proof->receipt);
	lora_model_close(proof->merged);
	lora_model_close(proof->base);
	free(proof->inputs);
	free((void *)proof->problems.line);
	free(proof->tensors);
	free(proof->prompts);
	free(proof->reference);
	lora__arena_fini(&proof->arena);
	free(proof);
}

bool lora_proof_is_foreign(const struct lora_proof *proof)
{
	return !proof->receipt;
}

const struct lora_sha256 *lora_proof_base_root(const struct lora_proof *proof)
{
	return &proof->base->root;
}

const struct lora_sha256 *lora_proof_merged_root(const struct lora_proof *proof)
{
	return &proof->merged->root;
}

const struct lora_proof_bytes *lora_proof_bytes_result(const struct lora_proof *proof)
{
	return proof->has_bytes ? &proof->bytes : NULL;
}

const struct lora_proof_modules *lora_proof_modules_result(const struct lora_proof *proof)
{
	return proof->has_modules ? &proof->modules : NULL;
}

const struct lora_proof_logits *lora_proof_logits_result(const struct lora_proof *proof)
{
	return proof->has_logits ? &proof->logits : NULL;
}

const struct lora_proof_latency *lora_proof_latency_result(const struct lora_proof *proof)
{
	return proof->has_latency ? &proof->latency : NULL;
}

bool lora_proof_unsupported(const struct lora_proof *proof)
{
	return proof->unsupported;
}

const struct lora_proof_tensor *lora_proof_tensors(const struct lora_proof *proof, size_t *count)
{
	*count = proof->surveyed ? proof->tensor_count : 0;
	return proof->tensors;
}
