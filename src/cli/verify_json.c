/* SPDX-License-Identifier: Apache-2.0 */
/* cli/verify_json.c - a merged model's levels in loractl.verify/1 */
#include "verify.h"

static void put_double(struct lora_json_writer *w, const char *key, double value)
{
	lora_json_key(w, key);
	lora_json_double(w, value);
}

static void put_uint(struct lora_json_writer *w, const char *key, uint64_t value)
{
	lora_json_key(w, key);
	lora_json_uint(w, value);
}

static void put_string(struct lora_json_writer *w, const char *key, const char *value)
{
	lora_json_key(w, key);
	lora_json_string(w, value);
}

void verify_json_claim(struct lora_json_writer *w, const struct verify_job *job)
{
	lora_json_key(w, "receipt");
	lora_json_bool(w, !lora_proof_is_foreign(job->proof));
	lora_json_key(w, "base_root");
	lora_json_sha256(w, lora_proof_base_root(job->proof));
	lora_json_key(w, "merged_root");
	lora_json_sha256(w, lora_proof_merged_root(job->proof));
}

static void put_types(struct lora_json_writer *w, const struct lora_proof_type *types)
{
	lora_json_key(w, "types");
	lora_json_begin_array(w);
	for (size_t i = 0; i < LORA_PROOF_TYPES; i++) {
		lora_json_begin_object(w);
		put_string(w, "dtype", lora_dtype_name(types[i].dtype));
		put_double(w, "noise", types[i].noise);
		put_double(w, "unchanged", types[i].unchanged);
		put_uint(w, "bytes", types[i].bytes);
		lora_json_end_object(w);
	}
	lora_json_end_array(w);
}

static bool was_surveyed(const struct lora_proof_bytes *b)
{
	return b->tensors > 0;
}

void verify_json_bytes(struct lora_json_writer *w, const struct verify_job *job)
{
	const struct lora_proof_bytes *b = lora_proof_bytes_result(job->proof);

	put_uint(w, "tensors", b->tensors);
	put_uint(w, "mismatched", b->mismatched);
	put_uint(w, "max_ulp", b->max_ulp);
	put_uint(w, "rounded", b->rounded);
	put_uint(w, "elements", b->elements);
	lora_json_key(w, "off");
	lora_json_begin_array(w);
	for (size_t i = 0; i < 4; i++)
		lora_json_uint(w, b->off[i]);
	lora_json_end_array(w);
	if (was_surveyed(b)) {
		put_double(w, "rho", b->rho);
		put_double(w, "unchanged", b->unchanged);
		put_double(w, "noise", b->noise);
		put_types(w, b->types);
	}
	lora_json_key(w, "problems");
	lora_json_begin_array(w);
	for (size_t i = 0; i < b->problem_count; i++)
		lora_json_string(w, b->problems[i]);
	lora_json_end_array(w);
}

void verify_json_modules(struct lora_json_writer *w, const struct verify_job *job)
{
	const struct lora_proof_modules *m = lora_proof_modules_result(job->proof);

	put_double(w, "worst", m->worst);
	put_double(w, "bound", m->bound);
	put_string(w, "module", m->module);
	put_uint(w, "modules", m->modules);
	put_uint(w, "failed", m->failed);
}

void verify_json_logits(struct lora_json_writer *w, const struct verify_job *job)
{
	const struct lora_proof_logits *l = lora_proof_logits_result(job->proof);

	put_double(w, "max_abs", l->max_abs);
	put_double(w, "rms", l->rms);
	put_double(w, "kl", l->kl);
	put_double(w, "kl_max", l->kl_max);
	put_double(w, "kl_adapter", l->kl_adapter);
	put_double(w, "top1_agreement", l->top1_agreement);
	lora_json_key(w, "first_divergence");
	if (l->diverges)
		lora_json_uint(w, l->first_divergence);
	else
		lora_json_null(w);
	put_double(w, "perplexity_base", l->perplexity_base);
	put_double(w, "perplexity_merged", l->perplexity_merged);
	put_double(w, "perplexity_unmerged", l->perplexity_unmerged);
	put_uint(w, "prompts", l->prompts);
	put_uint(w, "tokens", l->tokens);
	if (!l->has_reference)
		return;
	lora_json_key(w, "reference");
	lora_json_begin_object(w);
	put_double(w, "max_abs", l->reference_max_abs);
	put_double(w, "rms", l->reference_rms);
	put_double(w, "kl", l->reference_kl);
	put_double(w, "kl_adapter", l->reference_kl_adapter);
	put_double(w, "top1_agreement", l->reference_top1);
	lora_json_end_object(w);
}

static void put_interval(struct lora_json_writer *w, const char *key,
			 const struct lora_proof_interval *interval)
{
	lora_json_key(w, key);
	lora_json_begin_array(w);
	lora_json_double(w, interval->low);
	lora_json_double(w, interval->high);
	lora_json_end_array(w);
}

void verify_json_latency(struct lora_json_writer *w, const struct verify_job *job)
{
	const struct lora_proof_latency *l = lora_proof_latency_result(job->proof);

	lora_json_key(w, "structural");
	lora_json_bool(w, l->structural);
	put_double(w, "ratio", l->merged.ratio);
	put_interval(w, "ci90", &l->merged);
	put_double(w, "control_ratio", l->control.ratio);
	put_interval(w, "control_ci90", &l->control);
	put_double(w, "unmerged_ratio", l->unmerged.ratio);
	put_interval(w, "unmerged_ci90", &l->unmerged);
	put_uint(w, "rounds", l->rounds);
	put_uint(w, "operations", l->operations);
	put_double(w, "milliseconds", l->milliseconds);
	put_string(w, "difference", l->difference);
}

static void put_tensor(struct lora_json_writer *w, const struct lora_proof_tensor *t)
{
	lora_json_begin_object(w);
	put_string(w, "tensor", t->name);
	put_string(w, "kind", t->kind);
	put_string(w, "dtype", lora_dtype_name(t->dtype));
	put_uint(w, "elements", t->elements);
	put_uint(w, "different", t->different);
	put_uint(w, "max_ulp", t->max_ulp);
	if (t->kind) {
		put_uint(w, "rank", t->rank);
		put_double(w, "scale", t->scale);
		put_double(w, "rho", t->rho);
		put_double(w, "unchanged", t->unchanged);
		put_double(w, "noise", t->noise);
		put_double(w, "worst", t->worst);
		put_double(w, "bound", t->bound);
		put_double(w, "strength", t->strength);
		put_types(w, t->types);
	}
	put_string(w, "problem", t->problem ? t->problem : t->module_problem);
	lora_json_end_object(w);
}

void verify_json_tensors(struct lora_json_writer *w, const struct verify_job *job)
{
	size_t count;
	const struct lora_proof_tensor *t = lora_proof_tensors(job->proof, &count);

	lora_json_key(w, "tensors");
	lora_json_begin_array(w);
	for (size_t i = 0; i < count; i++)
		put_tensor(w, &t[i]);
	lora_json_end_array(w);
}
