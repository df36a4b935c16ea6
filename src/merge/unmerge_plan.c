/* SPDX-License-Identifier: Apache-2.0 */
/* merge/unmerge_plan.c - an undo record laid over a merged model
 *
 *	heads in the record --> the base's files and tensors, one item each
 *	a tensor that the record names --> a job that restores; any other --> the merged one's bytes
 *	record's factors --> parts of edits, as if the record were an adapter
 *
 * After this file every range lies inside its tensor and every chunk inside its item, whatever the
 * record says.
 */
#include "merge/unmerge.h"

#include "base/digest.h"
#include "base/error.h"
#include "merge/residual.h"

#include <stdlib.h>
#include <string.h>

static enum lora_status damaged(const struct lora_way_back *way, const char *tensor,
				const char *what, struct lora_error *err)
{
	return lora__fail(err, LORA_INPUT, "'%s': damaged undo record: '%s': %s",
			  lora__escape(way->store.files[0].file.path), lora__escape(tensor), what);
}

/* ---- is it the record of this model? ----------------------------------------------------------
 */

static enum lora_status other_model(const struct lora_way_back *way, const char *what,
				    struct lora_error *err)
{
	return lora__fail(err, LORA_NO, "'%s' is not the record of '%s': %s",
			  lora__escape(way->store.files[0].file.path),
			  lora__escape(way->plan.base->path), what);
}

/* A single file may have another name today. */
static const struct lora_undo_file *merged_file(const struct lora_way_back *way, const char *name)
{
	for (size_t f = 0; f < way->undo.merged_file_count; f++)
		if (!way->undo.directory || strcmp(way->undo.merged_files[f].name, name) == 0)
			return &way->undo.merged_files[f];
	return NULL;
}

static enum lora_status check_files(const struct lora_way_back *way, struct lora_error *err)
{
	const struct lora_model *merged = way->plan.base;

	if (merged->directory != way->undo.directory)
		return other_model(way, "one is a directory, the other a file", err);
	if (merged->shard_count != way->undo.merged_file_count)
		return other_model(way, "it has another number of files", err);
	for (size_t f = 0; f < merged->shard_count; f++) {
		const struct lora_shard *shard = &merged->shards[f];
		const struct lora_undo_file *file = merged_file(way, shard->name);
		struct lora_sha256 head;

		if (!file)
			return other_model(way, "its files have other names", err);
		lora__sha256(shard->head, (size_t)shard->data_begin, &head);
		if (file->size != shard->file.size ||
		    !lora__sha256_equal(&head, &file->head_sha256))
			return other_model(way, "a file has another size or other tensors", err);
	}
	return LORA_OK;
}

/* The heads are the same: so a list of tensors that differs is the record's own fault. Its root
 * then follows from the digests. */
static enum lora_status check_tensors(const struct lora_way_back *way, struct lora_error *err)
{
	const struct lora_undo *undo = &way->undo;
	const struct lora_index *index = &way->plan.base->index;
	struct lora_leaf *leaves = calloc(undo->merged_tensor_count + 1, sizeof(*leaves));
	struct lora_sha256 root;
	enum lora_status status = leaves ? LORA_OK : lora__fail_memory(err);

	if (!status && undo->merged_tensor_count != index->count)
		status = damaged(way, "tensors", "not those of the merged model", err);
	for (size_t i = 0; i < undo->merged_tensor_count && !status; i++) {
		const struct lora_undo_merged *t = &undo->merged_tensors[i];
		const struct lora_tensor *found = lora__index_find(index, t->name, strlen(t->name));

		if (!found)
			status = damaged(way, t->name, "the merged model has no such tensor", err);
		else
			leaves[i] = (struct lora_leaf){found->name, found->dtype, found->ndim,
						       found->shape, &t->sha256};
	}
	if (!status)
		status = lora__root_compute(&root, leaves, index->count, err);
	if (!status && !lora__sha256_equal(&root, &undo->merged_root))
		status = other_model(way, "it has another root", err);
	free(leaves);
	return status;
}

/* ---- jobs -------------------------------------------------------------------------------------
 */

static struct lora_view whole(const struct lora_index *index, uint32_t tensor)
{
	const struct lora_tensor *t = &index->tensors[tensor];

	return (struct lora_view){tensor, 0, t->shape[0], t->shape[1], t->shape[1], 1};
}

static enum lora_status make_parts(struct lora_way_back *way, struct lora_job *job,
				   const struct lora_undo_tensor *t, struct lora_error *err)
{
	struct lora_edit *edits =
	    lora__arena_array(&way->plan.arena, t->part_count + 1, sizeof(*edits));

	job->adds = lora__arena_array(&way->plan.arena, t->part_count + 1, sizeof(*job->adds));
	if (!edits || !job->adds)
		return lora__fail_memory(err);
	for (size_t i = 0; i < t->part_count; i++) {
		const struct lora_undo_part *from = &t->parts[i];
		struct lora_edit *edit = &edits[job->add_count];

		if (from->row0 > job->height || from->rows > job->height - from->row0)
			return damaged(way, t->name, "a part outside of the matrix", err);
		if (!way->store.index.tensors[from->left].elements || !from->cols)
			continue; /* no element, or a sum of nothing */
		edit->kind = from->dense ? LORA_EDIT_ADD_DENSE : LORA_EDIT_ADD_LOWRANK;
		edit->width = job->width;
		edit->row0 = from->row0;
		edit->rows = from->rows;
		edit->col0 = from->col0;
		edit->cols = from->cols;
		if (from->dense) {
			edit->dense = whole(&way->store.index, from->left);
		} else {
			edit->left = whole(&way->store.index, from->left);
			edit->right = whole(&way->store.index, from->right);
		}
		job->adds[job->add_count++] = (struct lora_part){0, edit, from->scale, NULL, NULL};
	}
	return LORA_OK;
}

static enum lora_status make_rows(struct lora_way_back *way, struct lora_job *job,
				  const struct lora_undo_tensor *t, struct lora_error *err)
{
	if (!t->row_count)
		return LORA_OK;
	job->zero_rows = lora__arena_array(&way->plan.arena, (size_t)(job->height / 8 + 1), 1);
	if (!job->zero_rows)
		return lora__fail_memory(err);
	for (size_t i = 0; i < t->row_count; i++) {
		if (t->rows[i] >= job->height)
			return damaged(way, t->name, "a row outside of the matrix", err);
		job->zero_rows[t->rows[i] / 8] =
		    (uint8_t)(job->zero_rows[t->rows[i] / 8] | 1u << t->rows[i] % 8);
	}
	return LORA_OK;
}

static enum lora_status read_gain(struct lora_way_back *way, struct lora_job *job,
				  const struct lora_undo_tensor *t, struct lora_error *err)
{
	const struct lora_tensor *gain = &way->store.index.tensors[t->gain];
	struct lora_view view = {t->gain, 0, 1, gain->elements, gain->elements, 1};

	job->gain_by_column = t->gain_by_column;
	if (gain->elements != (t->gain_by_column ? job->width : job->height))
		return damaged(way, t->name, "a gain of another length", err);
	job->gain = malloc((size_t)gain->size + 1);
	if (!job->gain)
		return lora__fail_memory(err);
	return gain->elements ? lora__view_read(&way->store, &view, 0, 1, job->gain, err) : LORA_OK;
}

/* A chunk is whole rows, or a part of one row; of a replaced tensor anything. */
static bool chunk_fits(const struct lora_job *job, uint64_t at,
		       const struct lora_residual_chunk *chunk)
{
	uint64_t in = lora_dtype_bits(job->in_type) / 8;

	if (chunk->elements * lora__residual_width(job->out_type) > LORA_CHUNK_BYTES)
		return false;
	if (job->source == LORA_NO_TENSOR)
		return true;
	if (chunk->elements * in > LORA_CHUNK_BYTES)
		return false;
	if (at % job->width == 0 && chunk->elements % job->width == 0)
		return true;
	return chunk->elements <= job->width - at % job->width;
}

static enum lora_status take_chunks(struct lora_way_back *way, struct lora_job *job,
				    const struct lora_undo_tensor *t, uint64_t elements,
				    struct lora_error *err)
{
	uint64_t at = 0;

	for (size_t i = 0; i < t->chunk_count; i++) {
		if (t->chunks[i].elements > elements - at || !chunk_fits(job, at, &t->chunks[i]))
			return damaged(way, t->name, "a chunk that does not fit", err);
		at += t->chunks[i].elements;
	}
	if (at != elements)
		return damaged(way, t->name, "chunks that do not add up to the tensor", err);
	job->chunks = t->chunks;
	job->chunk_count = t->chunk_count;
	return LORA_OK;
}

static bool computes(enum lora_dtype type)
{
	return type == LORA_DTYPE_F32 || type == LORA_DTYPE_F16 || type == LORA_DTYPE_BF16;
}

static bool same_shape(const struct lora_tensor *a, const struct lora_tensor *b)
{
	return a->ndim == b->ndim && memcmp(a->shape, b->shape, a->ndim * sizeof(a->shape[0])) == 0;
}

/* The job that restores tensor `base` of the base from `merged`, or from nothing (NULL). */
static enum lora_status fill_job(struct lora_way_back *way, struct lora_job *job,
				 const struct lora_undo_tensor *t, const struct lora_tensor *base,
				 const struct lora_tensor *merged, struct lora_error *err)
{
	enum lora_status status;

	job->restores = true;
	job->out_type = base->dtype;
	job->ndim = base->ndim;
	memcpy(job->shape, base->shape, sizeof(job->shape));
	job->source = LORA_NO_TENSOR;
	job->width = job->elements = base->size / lora__residual_width(base->dtype);
	job->height = 1;
	if (merged) {
		if (!computes(base->dtype) || !computes(merged->dtype) || !same_shape(base, merged))
			return damaged(way, t->name, "another type or shape in the merged model",
				       err);
		if (t->width == 0 ? base->elements != 0 : base->elements % t->width != 0)
			return damaged(way, t->name, "a width that does not divide it", err);
		job->source = (uint32_t)(merged - way->plan.base->index.tensors);
		job->in_type = merged->dtype;
		job->elements = base->elements;
		job->width = t->width ? t->width : 1;
		job->height = job->elements / job->width;
	}
	status = make_parts(way, job, t, err);
	if (!status)
		status = make_rows(way, job, t, err);
	if (!status && t->has_gain)
		status = read_gain(way, job, t, err);
	return status ? status : take_chunks(way, job, t, job->elements, err);
}

static enum lora_status make_jobs(struct lora_way_back *way, struct lora_error *err)
{
	struct lora_plan *plan = &way->plan;

	plan->job_limit = way->undo.tensor_count + 1;
	plan->jobs = lora__arena_array(&plan->arena, plan->job_limit, sizeof(*plan->jobs));
	if (!plan->jobs)
		return lora__fail_memory(err);
	for (size_t i = 0; i < way->undo.tensor_count; i++) {
		const char *name = way->undo.tensors[i].name;

		if (lora__plan_find_job(plan, name))
			return damaged(way, name, "named twice", err);
		if (!lora__plan_job(plan, name, LORA_NO_TENSOR))
			return lora__fail_memory(err);
	}
	return LORA_OK;
}

/* ---- files ------------------------------------------------------------------------------------
 */

static enum lora_status read_head(struct lora_way_back *way, size_t f, struct lora_error *err)
{
	const struct lora_undo_file *base = &way->undo.base_files[f];
	struct lora_outfile *file = &way->plan.files[f];
	const struct lora_tensor *head =
	    &way->store.index.tensors[lora__undo_find(&way->store.index, "head", f)];
	uint64_t need = 0;
	enum lora_status status;

	file->name = base->name;
	file->size = base->size;
	file->fd = -1;
	if (head->size > LORA_HEADER_LIMIT + 8 || head->size > base->size)
		return damaged(way, base->name, "a head larger than a file may have", err);
	file->head_size = (size_t)head->size;
	file->head = malloc(file->head_size + 1);
	if (!file->head)
		return lora__fail_memory(err);
	status = lora__file_read(&way->store.files[0].file, head->begin, file->head,
				 file->head_size, err);
	if (!status)
		status = lora__safetensors.head_size(
		    &need, file->head,
		    file->head_size < LORA_PROBE_SIZE ? file->head_size : LORA_PROBE_SIZE,
		    base->size, err);
	if (!status && need != file->head_size)
		status = damaged(way, base->name, "a head of another length than it says", err);
	if (!status)
		status = lora__safetensors.parse(&way->heads[f], file->head, file->head_size,
						 base->size, err);
	return lora__context(err, status, "'%s': head of '%s'",
			     lora__escape(way->store.files[0].file.path), lora__escape(base->name));
}

static enum lora_status fill_item(struct lora_way_back *way, struct lora_item *item,
				  const struct lora_tensor *t, struct lora_error *err)
{
	struct lora_plan *plan = &way->plan;
	const struct lora_index *merged = &plan->base->index;
	const struct lora_tensor *same = lora__index_find(merged, t->name, strlen(t->name));
	struct lora_job *job = lora__plan_find_job(plan, t->name);
	const struct lora_undo_tensor *changed = job ? &way->undo.tensors[job->number] : NULL;
	uint32_t digest = lora__map_find(&way->undo.merged_by_name, t->name, strlen(t->name));

	item->name = t->name;
	item->job = job;
	item->begin = t->begin;
	item->size = t->size;
	if (job && job->restores)
		return damaged(way, t->name, "twice in the base", err);
	if (changed && changed->from_nothing)
		return fill_job(way, job, changed, t, NULL, err);
	if (!same || digest == UINT32_MAX)
		return damaged(way, t->name, "not in the merged model", err);
	item->base = same;
	item->expected = &way->undo.merged_tensors[digest].sha256;
	way->unread[same - merged->tensors] = 0;
	if (changed)
		return fill_job(way, job, changed, t, same, err);
	if (same->dtype != t->dtype || !same_shape(same, t))
		return damaged(way, t->name, "another type or shape in the merged model", err);
	return LORA_OK;
}

static enum lora_status make_file(struct lora_way_back *way, size_t f, struct lora_error *err)
{
	struct lora_outfile *file = &way->plan.files[f];
	const struct lora_index *head = &way->heads[f];
	enum lora_status status = LORA_OK;

	file->items = lora__arena_array(&way->plan.arena, head->count + 1, sizeof(*file->items));
	if (!file->items)
		return lora__fail_memory(err);
	for (; file->item_count < head->count && !status; file->item_count++)
		status = fill_item(way, &file->items[file->item_count],
				   &head->tensors[file->item_count], err);
	way->plan.bytes += file->size;
	return status;
}

static enum lora_status make_files(struct lora_way_back *way, struct lora_error *err)
{
	struct lora_plan *plan = &way->plan;
	size_t count = way->undo.base_file_count;
	enum lora_status status = LORA_OK;

	plan->files = lora__arena_array(&plan->arena, count, sizeof(*plan->files));
	way->heads = lora__arena_array(&plan->arena, count, sizeof(*way->heads));
	way->unread =
	    lora__arena_array(&plan->arena, plan->base->index.count + 1, sizeof(*way->unread));
	if (!plan->files || !way->heads || !way->unread)
		return lora__fail_memory(err);
	for (size_t i = 0; i < plan->base->index.count; i++)
		way->unread[i] = 1;
	plan->file_count = way->head_count = count;
	for (size_t f = 0; f < count && !status; f++)
		status = read_head(way, f, err);
	for (size_t f = 0; f < count && !status; f++)
		status = make_file(way, f, err);
	for (size_t i = 0; i < plan->job_count && !status; i++)
		if (!plan->jobs[i].restores)
			status = damaged(way, plan->jobs[i].name, "not in the base", err);
	for (size_t i = 0; i < plan->base->index.count; i++)
		if (way->unread[i])
			way->unread[way->unread_count++] = (uint32_t)i;
	return status;
}

enum lora_status lora__way_back_make(struct lora_way_back *way, struct lora_model *merged,
				     const char *record, struct lora_error *err)
{
	enum lora_status status = lora__undo_open(&way->store, &way->undo, record, err);

	way->plan.base = merged;
	way->input = (struct lora_merge_input){&way->store, 1};
	way->plan.inputs = &way->input;
	way->plan.input_count = 1;
	way->plan.options = &way->options;
	way->plan.record = status ? NULL : &way->store.files[0].file;
	if (!status)
		status = check_files(way, err);
	if (!status)
		status = check_tensors(way, err);
	if (!status)
		status = make_jobs(way, err);
	return status ? status : make_files(way, err);
}

void lora__way_back_fini(struct lora_way_back *way)
{
	for (size_t f = 0; f < way->head_count; f++)
		lora__index_fini(&way->heads[f]);
	lora__plan_fini(&way->plan);
	lora__undo_close(&way->store, &way->undo);
}
