/* SPDX-License-Identifier: Apache-2.0 */
/* merge/plan.c - from references to a plan: resolve, gather, decide, lay out. */
#include "merge/plan.h"

#include "base/error.h"
#include "base/pool.h"
#include "base/watch.h"

#include <stdlib.h>

const struct lora_part *lora__job_lead(const struct lora_job *job)
{
	return job->dora	? job->dora
	       : job->add_count ? &job->adds[0]
	       : job->replace	? job->replace
				: &job->rows[0];
}

const struct lora_part *lora__job_parts(const struct lora_job *job, size_t *count)
{
	*count = job->dora ? 1 : job->add_count;
	return job->dora ? job->dora : job->adds;
}

uint32_t lora__job_rank(const struct lora_job *job)
{
	uint32_t rank = job->dora ? job->dora->edit->rank : 0;

	/* Ranks add up over adapters, not over the experts or slices of one. */
	for (size_t i = 0; i < job->add_count; i++)
		if (i == 0 || job->adds[i].adapter != job->adds[i - 1].adapter)
			rank += job->adds[i].edit->rank;
	return rank;
}

/* A worker takes 4 MiB (9 with residuals) and, for a moment, a descriptor. More of them than this
 * only wait for the disk. */
#define WORKERS_MAX 24u

unsigned lora__merge_workers(const struct lora_plan *plan)
{
	unsigned threads = plan->options->threads ? plan->options->threads : lora__cores(),
		 most = plan->undo || plan->record ? WORKERS_MAX / 2 : WORKERS_MAX;

	return threads < most ? threads : most;
}

/* [unmatched] Every tensor of an adapter is used, or named. */
static enum lora_status resolve_one(struct lora_plan *plan, size_t a, struct lora_error *err)
{
	struct lora_adapter *adapter = plan->inputs[a].adapter;
	struct lora_resolved *resolved = &plan->resolved[a];
	enum lora_status status =
	    lora__adapter_resolve(resolved, adapter, plan->base, plan->observer, err);

	if (status)
		return status;
	if (resolved->unmatched_count && !plan->options->allow_unmatched)
		return lora__adapter_refuse_unmatched(resolved, adapter, plan->base, plan->observer,
						      err);
	for (size_t i = 0; i < resolved->unmatched_count; i++)
		lora__note(plan->observer, LORA_NOTE_WARNING, "not merged: '%s': %s",
			   lora__escape(resolved->unmatched[i].tensor), resolved->unmatched[i].why);
	return LORA_OK;
}

enum lora_status lora__plan_make(struct lora_plan *plan, struct lora_error *err)
{
	enum lora_status status = LORA_OK;

	plan->resolved =
	    lora__arena_array(&plan->arena, plan->input_count, sizeof(*plan->resolved));
	if (!plan->resolved)
		return lora__fail_memory(err);
	for (size_t a = 0; a < plan->input_count && !status; a++)
		status = resolve_one(plan, a, err);
	if (!status)
		status = lora__plan_jobs(plan, err);
	if (!status)
		status = lora__plan_ties(plan, err);
	if (!status)
		status = lora__plan_layout(plan, err);
	return status;
}

void lora__plan_fini(struct lora_plan *plan)
{
	for (size_t i = 0; i < plan->job_count; i++) {
		lora__job_unload(&plan->jobs[i]);
		free(plan->jobs[i].gain);
		pthread_mutex_destroy(&plan->jobs[i].lock);
	}
	for (size_t f = 0; f < plan->file_count; f++)
		free(plan->files[f].head);
	for (size_t a = 0; plan->resolved && a < plan->input_count; a++)
		lora__resolved_fini(&plan->resolved[a]);
	lora__map_fini(&plan->job_by_name);
	lora__arena_fini(&plan->arena);
}
