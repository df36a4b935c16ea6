/* SPDX-License-Identifier: Apache-2.0 */
/* merge/factors.c - a job's factors in memory, from its first block to its last.
 *
 * R [rank, cols] is needed whole by every block. L [rows, rank] is kept whole up to LEFT_LIMIT; a
 * larger one (the head of a large vocabulary at a high rank) is read row by row when a tile asks
 * for it: memory stays bounded for every model.
 */
#include "merge/plan.h"

#include "base/checked.h"
#include "base/error.h"

#include <stdlib.h>

#define LEFT_LIMIT (32u << 20) /* bytes */

static enum lora_status read_whole(const struct lora_plan *plan, const struct lora_part *part,
				   const struct lora_view *view, float **out,
				   struct lora_error *err)
{
	uint64_t bytes;

	if (lora__mul_overflows(view->rows, view->cols, &bytes) ||
	    lora__mul_overflows(bytes, sizeof(float), &bytes) || bytes > SIZE_MAX / 2)
		return lora__fail_memory(err);
	*out = malloc((size_t)bytes + 1);
	if (!*out)
		return lora__fail_memory(err);
	return lora__view_read(plan->inputs[part->adapter].adapter, view, 0, view->rows, *out, err);
}

static bool keeps_left(const struct lora_edit *edit)
{
	return edit->left.rows * edit->left.cols <= LEFT_LIMIT / sizeof(float);
}

static enum lora_status load_part(struct lora_plan *plan, struct lora_part *part,
				  struct lora_error *err)
{
	const struct lora_edit *edit = part->edit;
	enum lora_status status;

	if (edit->kind == LORA_EDIT_ADD_DENSE)
		return LORA_OK;
	status = read_whole(plan, part, &edit->right, &part->right, err);
	if (!status && keeps_left(edit))
		status = read_whole(plan, part, &edit->left, &part->left, err);
	return status;
}

static uint64_t part_room(const struct lora_part *part)
{
	const struct lora_edit *edit = part->edit;
	uint64_t elements = edit->right.rows * edit->right.cols;

	if (edit->kind == LORA_EDIT_ADD_DENSE)
		return 0;
	if (keeps_left(edit))
		elements += edit->left.rows * edit->left.cols;
	return elements * sizeof(float);
}

uint64_t lora__job_room(const struct lora_job *job)
{
	uint64_t room = job->dora ? part_room(job->dora) : 0;

	for (size_t i = 0; i < job->add_count; i++)
		room += part_room(&job->adds[i]);
	return room;
}

enum lora_status lora__job_load(struct lora_plan *plan, struct lora_job *job,
				struct lora_error *err)
{
	enum lora_status status = LORA_OK;

	pthread_mutex_lock(&job->lock);
	if (!job->loaded) {
		for (size_t i = 0; i < job->add_count && !status; i++)
			status = load_part(plan, &job->adds[i], err);
		if (job->dora && !status)
			status = load_part(plan, job->dora, err);
		job->loaded = !status;
	}
	pthread_mutex_unlock(&job->lock);
	return status;
}

static void unload_part(struct lora_part *part)
{
	free(part->left);
	free(part->right);
	part->left = part->right = NULL;
}

void lora__job_unload(struct lora_job *job)
{
	for (size_t i = 0; i < job->add_count; i++)
		unload_part(&job->adds[i]);
	if (job->dora)
		unload_part(job->dora);
	job->loaded = false;
}
