/* SPDX-License-Identifier: Apache-2.0 */
/* verify/bytes.c - the answers of two levels, from the facts of the survey. */
#include "verify/proof.h"

#include "base/digest.h"
#include "base/error.h"
#include "base/map.h"

#include <string.h>

/* Tensors that the merge does not write. */
static enum lora_status find_strangers(struct lora_proof *proof, struct lora_error *err)
{
	struct lora_map known = {0};
	const struct lora_plan *plan = &proof->plan;
	enum lora_status status = LORA_OK;
	bool present;

	for (size_t f = 0; f < plan->file_count; f++)
		for (size_t i = 0; i < plan->files[f].item_count && !status; i++) {
			const char *name = plan->files[f].items[i].name;

			status = lora__map_add(&known, name, strlen(name), 0, &present, err);
		}
	for (size_t i = 0; i < lora_model_tensor_count(proof->merged) && !status; i++) {
		const char *name = lora_model_tensor(proof->merged, i)->name;

		if (lora__map_find(&known, name, strlen(name)) == UINT32_MAX)
			status = lora__proof_line(proof, &proof->problems, err,
						  "'%s': neither the base nor an adapter has it",
						  lora__escape(name));
	}
	lora__map_fini(&known);
	return status;
}

/* The receipt names every weight file by digest: metadata count too. */
static enum lora_status check_files(struct lora_proof *proof, struct lora_error *err)
{
	const struct lora_json *file = lora__receipt_files(proof->receipt->json);
	enum lora_status status = LORA_OK;

	for (size_t f = 0; f < proof->merged->shard_count && !status; f++) {
		const struct lora_shard *shard = &proof->merged->shards[f];
		const char *text = lora__json_string(lora__json_get(file, "sha256"));
		struct lora_sha256 named;

		if (!text || !lora__sha256_parse(text, &named) ||
		    !lora__sha256_equal(&named, &shard->sha256))
			status = lora__proof_line(proof, &proof->problems, err,
						  "'%s': its SHA-256 is not the receipt's",
						  lora__escape(shard->name));
		file = file ? lora__json_next(file) : NULL;
	}
	return status;
}

/* The first problem is the answer. */
static enum lora_status answer(const struct lora_proof *proof, struct lora_error *err)
{
	const struct lora_lines *p = &proof->problems;

	if (p->count == 0)
		return LORA_OK;
	if (p->count == 1)
		return lora__fail(err, LORA_NO, "%s", p->line[0]);
	return lora__fail(err, LORA_NO, "%s (the first of %zu problems)", p->line[0], p->count);
}

enum lora_status lora_proof_bytes(struct lora_proof *proof, struct lora_error *err)
{
	enum lora_status status = lora__proof_refused(proof, err);

	if (status == LORA_NO) {
		status =
		    lora__proof_line(proof, &proof->problems, err, "%s", proof->refused.message);
	} else {
		status = lora__proof_survey(proof, err);
		if (!status)
			status = find_strangers(proof, err);
		if (!status && proof->receipt)
			status = check_files(proof, err);
		if (!status && proof->merged->directory)
			status = lora__proof_sidecars(proof, err);
	}
	if (status)
		return status;
	proof->has_bytes = true;
	proof->bytes.problems = proof->problems.line;
	proof->bytes.problem_count = proof->problems.count;
	proof->bytes.passed = proof->problems.count == 0;
	return answer(proof, err);
}

/* Is a nearer to its bound, or farther beyond it, than b? */
static bool nearer(const struct lora_proof_tensor *a, const struct lora_proof_modules *b)
{
	return !b->module || !(a->worst * b->bound <= b->worst * a->bound);
}

enum lora_status lora_proof_modules(struct lora_proof *proof, struct lora_error *err)
{
	struct lora_proof_modules *m = &proof->modules;
	const struct lora_proof_tensor *bad = NULL;
	enum lora_status status = lora__proof_refused(proof, err);

	proof->has_modules = status == LORA_NO;
	if (!status)
		status = lora__proof_survey(proof, err);
	if (status)
		return status;
	*m = (struct lora_proof_modules){.passed = true};
	for (size_t i = 0; i < proof->tensor_count; i++) {
		const struct lora_proof_tensor *t = &proof->tensors[i];
		bool judged = t->strength >= 0 || t->strength < 0 || t->module_problem;

		if (t->kind && !judged && !t->problem) /* a replacement: nothing to multiply */
			continue;
		if (!t->kind)
			continue;
		m->modules++;
		if (judged && nearer(t, m)) {
			m->worst = t->worst;
			m->bound = t->bound;
			m->module = t->name;
		}
		if (t->module_problem || !judged) {
			m->failed++;
			bad = bad ? bad : t;
		}
	}
	m->passed = m->failed == 0;
	proof->has_modules = true;
	if (m->passed)
		return LORA_OK;
	return lora__fail(err, LORA_NO, "'%s': %s%s", lora__escape(bad->name),
			  bad->module_problem ? bad->module_problem : bad->problem,
			  m->failed > 1 ? " (and other modules)" : "");
}
