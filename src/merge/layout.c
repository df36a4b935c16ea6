/* SPDX-License-Identifier: Apache-2.0 */
/* merge/layout.c - where every output tensor stands: the base's shards again, tensor by tensor.
 *
 * 1. A shard in which no tensor changes type, shape or name keeps its head byte for byte.
 * 2. Otherwise its head is written anew, with the same order and metadata.
 * 3. Tensors that the base does not have follow in the last shard.
 */
#include "merge/plan.h"

#include "base/checked.h"
#include "base/error.h"

#include <string.h>

/* Jobs that are written and whose tensor no shard holds: task heads, the second half of a split
 * tie. */
static bool is_new(const struct lora_plan *plan, const struct lora_job *job)
{
	return !job->dropped && !lora__index_find(&plan->base->index, job->name, strlen(job->name));
}

static void set_item(struct lora_item *item, const char *name, const struct lora_tensor *base,
		     struct lora_job *job)
{
	item->name = name;
	item->base = base;
	item->job = job;
	item->size = base ? base->size : 0;
	if (job)
		item->size = job->elements * lora_dtype_bits(job->out_type) / 8;
}

static enum lora_status add_new_items(struct lora_plan *plan, struct lora_outfile *file,
				      size_t room, struct lora_error *err)
{
	plan->added = lora__arena_array(&plan->arena, room + 1, sizeof(*plan->added));
	if (!plan->added)
		return lora__fail_memory(err);
	for (size_t i = 0; i < plan->job_count; i++) {
		struct lora_job *job = &plan->jobs[i];

		if (!is_new(plan, job))
			continue;
		set_item(&file->items[file->item_count++], job->name, NULL, job);
		plan->added[plan->added_count++] = job->name;
	}
	if (plan->split_head) {
		set_item(&file->items[file->item_count++], plan->split_head,
			 &plan->base->index.tensors[plan->split_source], NULL);
		plan->added[plan->added_count++] = plan->split_head;
	}
	return LORA_OK;
}

static enum lora_status fill_items(struct lora_plan *plan, size_t f, struct lora_error *err)
{
	const struct lora_index *index = &plan->base->index;
	struct lora_outfile *file = &plan->files[f];
	size_t room = 0, fresh = 0;

	for (size_t i = 0; i < index->count; i++)
		room += index->tensors[i].file == f;
	for (size_t i = 0; i < plan->job_count && f + 1 == plan->file_count; i++)
		fresh += is_new(plan, &plan->jobs[i]);
	file->items = lora__arena_array(&plan->arena, room + fresh + 1, sizeof(*file->items));
	if (!file->items)
		return lora__fail_memory(err);
	for (size_t i = 0; i < index->count; i++) {
		const struct lora_tensor *t = &index->tensors[i];

		if (t->file == f)
			set_item(&file->items[file->item_count++], t->name, t,
				 lora__plan_find_job(plan, t->name));
	}
	return f + 1 == plan->file_count ? add_new_items(plan, file, fresh + 1, err) : LORA_OK;
}

static bool keeps_head(const struct lora_outfile *file)
{
	for (size_t i = 0; i < file->item_count; i++) {
		const struct lora_item *item = &file->items[i];
		const struct lora_job *job = item->job;

		if (!item->base || strcmp(item->base->name, item->name) != 0)
			return false;
		if (job &&
		    (job->out_type != item->base->dtype || job->ndim != item->base->ndim ||
		     memcmp(job->shape, item->base->shape, job->ndim * sizeof(job->shape[0])) != 0))
			return false;
	}
	return true;
}

static void describe(struct lora_tensor *out, const struct lora_item *item)
{
	if (item->base)
		*out = *item->base;
	if (item->job) {
		out->dtype = item->job->out_type;
		out->ndim = item->job->ndim;
		memcpy(out->shape, item->job->shape, sizeof(out->shape));
		out->elements = item->job->elements;
	}
	out->name = item->name;
	out->size = item->size;
}

static enum lora_status emit_head(struct lora_plan *plan, struct lora_outfile *file,
				  const struct lora_shard *shard, struct lora_error *err)
{
	struct lora_tensor *tensors =
	    lora__arena_array(&plan->arena, file->item_count + 1, sizeof(*tensors));
	enum lora_status status;

	if (!tensors)
		return lora__fail_memory(err);
	for (size_t i = 0; i < file->item_count; i++)
		describe(&tensors[i], &file->items[i]);
	status = lora__safetensors.emit(&file->head, &file->head_size, tensors, file->item_count,
					shard->metadata, shard->metadata_count, err);
	for (size_t i = 0; i < file->item_count && !status; i++)
		file->items[i].begin = tensors[i].begin;
	return status;
}

static enum lora_status lay_out(struct lora_plan *plan, size_t f, struct lora_error *err)
{
	struct lora_outfile *file = &plan->files[f];
	const struct lora_shard *shard = &plan->base->shards[f];
	enum lora_status status;

	file->name = shard->name;
	file->fd = -1;
	status = fill_items(plan, f, err);
	if (status)
		return status;
	if (!keeps_head(file)) {
		status = emit_head(plan, file, shard, err);
		file->size = file->head_size;
		for (size_t i = 0; i < file->item_count && !status; i++)
			if (lora__add_overflows(file->size, file->items[i].size, &file->size))
				return lora__fail(err, LORA_INPUT,
						  "'%s' would be larger than any file",
						  lora__escape(file->name));
		return status;
	}
	file->size = shard->file.size;
	file->head_size = (size_t)shard->data_begin;
	for (size_t i = 0; i < file->item_count; i++)
		file->items[i].begin = file->items[i].base->begin;
	return LORA_OK;
}

enum lora_status lora__plan_layout(struct lora_plan *plan, struct lora_error *err)
{
	enum lora_status status = LORA_OK;

	plan->file_count = plan->base->shard_count;
	plan->files = lora__arena_array(&plan->arena, plan->file_count, sizeof(*plan->files));
	if (!plan->files)
		return lora__fail_memory(err);
	for (size_t f = 0; f < plan->file_count && !status; f++) {
		status = lay_out(plan, f, err);
		plan->bytes += plan->files[f].size;
	}
	return status;
}
