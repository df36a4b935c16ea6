/* SPDX-License-Identifier: Apache-2.0 */
/* merge/undo_json.c - the members of record.json in the order of loractl-undo(5) */
#include "merge/undo_json.h"

#include "base/digest.h"
#include "base/error.h"
#include "merge/receipt.h"
#include "merge/undo_write.h"

#include <stdlib.h>
#include <string.h>

static void put_text(struct lora_json_writer *w, const char *key, const char *value)
{
	lora_json_key(w, key);
	lora_json_string(w, value);
}

static void put_uint(struct lora_json_writer *w, const char *key, uint64_t value)
{
	lora_json_key(w, key);
	lora_json_uint(w, value);
}

static void put_sha256(struct lora_json_writer *w, const char *key, const struct lora_sha256 *value)
{
	lora_json_key(w, key);
	lora_json_sha256(w, value);
}

static void begin_list(struct lora_json_writer *w, const char *key)
{
	lora_json_key(w, key);
	lora_json_begin_array(w);
}

enum other_members { NAME_SIZE, WITH_DIGEST, WITH_STORED };

static void put_others(struct lora_json_writer *w, const char *key, const struct lora_other *other,
		       size_t count, enum other_members members)
{
	begin_list(w, key);
	for (size_t i = 0; i < count; i++) {
		lora_json_begin_object(w);
		put_text(w, "name", other[i].name);
		put_uint(w, "size", other[i].size);
		if (members != NAME_SIZE)
			put_sha256(w, "sha256", &other[i].sha256);
		if (members == WITH_STORED) {
			lora_json_key(w, "stored");
			lora_json_bool(w, other[i].stored);
		}
		lora_json_end_object(w);
	}
	lora_json_end_array(w);
}

static void put_base(struct lora_json_writer *w, const struct lora_model *base,
		     const struct lora_others *others)
{
	lora_json_key(w, "base");
	lora_json_begin_object(w);
	put_sha256(w, "root", &base->root);
	lora_json_key(w, "directory");
	lora_json_bool(w, base->directory);
	begin_list(w, "files");
	for (size_t f = 0; f < base->shard_count; f++) {
		lora_json_begin_object(w);
		put_text(w, "name", base->shards[f].name);
		put_uint(w, "size", base->shards[f].file.size);
		put_sha256(w, "sha256", &base->shards[f].sha256);
		lora_json_end_object(w);
	}
	lora_json_end_array(w);
	put_others(w, "others", others->base, others->base_count, WITH_STORED);
	put_others(w, "left", others->left, others->left_count, NAME_SIZE);
	lora_json_end_object(w);
}

static void put_merged(struct lora_json_writer *w, const struct lora_plan *plan,
		       const struct lora_others *others, const struct lora_sha256 *root)
{
	lora_json_key(w, "merged");
	lora_json_begin_object(w);
	put_sha256(w, "root", root);
	begin_list(w, "files");
	for (size_t f = 0; f < plan->file_count; f++) {
		const struct lora_outfile *file = &plan->files[f];
		struct lora_sha256 head;

		lora__sha256(file->head ? file->head : plan->base->shards[f].head, file->head_size,
			     &head);
		lora_json_begin_object(w);
		put_text(w, "name", file->name);
		put_uint(w, "size", file->size);
		put_sha256(w, "head_sha256", &head);
		lora_json_end_object(w);
	}
	lora_json_end_array(w);
	begin_list(w, "tensors");
	for (size_t f = 0; f < plan->file_count; f++)
		for (size_t i = 0; i < plan->files[f].item_count; i++) {
			lora_json_begin_object(w);
			put_text(w, "name", plan->files[f].items[i].name);
			put_sha256(w, "sha256", &plan->files[f].items[i].digest);
			lora_json_end_object(w);
		}
	lora_json_end_array(w);
	put_others(w, "others", others->merged, others->merged_count, WITH_DIGEST);
	lora_json_end_object(w);
}

static enum lora_status put_adapters(struct lora_json_writer *w, const struct lora_plan *plan,
				     struct lora_error *err)
{
	enum lora_status status = LORA_OK;

	begin_list(w, "adapters");
	for (size_t a = 0; a < plan->input_count && !status; a++) {
		struct lora_sha256 root = {{0}};

		status = lora_adapter_root(plan->inputs[a].adapter, &root, err);
		lora_json_begin_object(w);
		put_text(w, "name", plan->inputs[a].adapter->name);
		put_sha256(w, "root", &root);
		lora_json_key(w, "weight");
		lora_json_double(w, plan->inputs[a].weight);
		lora_json_end_object(w);
	}
	lora_json_end_array(w);
	return status;
}

static void put_parts(struct lora_json_writer *w, const struct lora_job *job)
{
	size_t count;
	const struct lora_part *parts = lora__job_parts(job, &count);

	begin_list(w, "parts");
	for (size_t i = 0; i < count && !job->replace; i++) {
		const struct lora_edit *edit = parts[i].edit;

		lora_json_begin_object(w);
		put_text(w, "kind", edit->kind == LORA_EDIT_ADD_DENSE ? "dense" : "low-rank");
		lora_json_key(w, "scale");
		lora_json_double(w, (double)parts[i].s);
		put_uint(w, "row", edit->row0);
		put_uint(w, "rows", edit->rows);
		put_uint(w, "col", edit->col0);
		put_uint(w, "cols", edit->cols);
		lora_json_end_object(w);
	}
	lora_json_end_array(w);
}

static void put_rows(struct lora_json_writer *w, const struct lora_job *job)
{
	begin_list(w, "rows");
	for (uint64_t i = 0; job->zero_rows && !job->replace && i < job->height; i++)
		if (job->zero_rows[i / 8] >> i % 8 & 1)
			lora_json_uint(w, i);
	lora_json_end_array(w);
}

static void put_tensor(struct lora_json_writer *w, const struct lora_job *job,
		       const struct lora_undo_chunks *chunks)
{
	lora_json_begin_object(w);
	put_text(w, "name", job->name);
	put_text(w, "from", job->replace ? "nothing" : "merged");
	if (!job->replace)
		put_uint(w, "width", job->width);
	put_parts(w, job);
	put_rows(w, job);
	put_text(w, "gain", !job->gain ? NULL : job->gain_by_column ? "column" : "row");
	begin_list(w, "chunks");
	for (size_t i = 0; i < chunks->count; i++) {
		lora_json_begin_array(w);
		lora_json_uint(w, chunks->chunk[i].elements);
		lora_json_uint(w, chunks->chunk[i].size);
		lora_json_end_array(w);
	}
	lora_json_end_array(w);
	lora_json_end_object(w);
}

static void put_tensors(struct lora_json_writer *w, const struct lora_plan *plan,
			const struct lora_undo_chunks *chunks)
{
	begin_list(w, "tensors");
	for (size_t f = 0; f < plan->file_count; f++)
		for (size_t i = 0; i < plan->files[f].item_count; i++) {
			const struct lora_item *item = &plan->files[f].items[i];

			if (item->base && item->job)
				put_tensor(w, item->job, &chunks[item->job->number]);
		}
	lora_json_end_array(w);
}

enum lora_status lora__undo_json(const struct lora_plan *plan, const struct lora_others *others,
				 const struct lora_undo_chunks *chunks,
				 const struct lora_sha256 *merged_root, char **text, size_t *size,
				 struct lora_error *err)
{
	struct lora_json_writer *w = lora_json_writer_new(LORA_JSON_COMPACT);
	const char *done = NULL;
	enum lora_status status = w ? LORA_OK : lora__fail_memory(err);

	lora_json_begin_object(w);
	put_text(w, "schema", LORA_UNDO_SCHEMA);
	put_text(w, "tool", "loractl");
	put_text(w, "version", lora_version());
	put_uint(w, "arithmetic", LORA_ARITHMETIC);
	put_base(w, plan->base, others);
	put_merged(w, plan, others, merged_root);
	if (!status)
		status = put_adapters(w, plan, err);
	put_tensors(w, plan, chunks);
	lora_json_end_object(w);
	if (!status)
		status = lora_json_writer_text(w, &done, size, err);
	if (!status && *size > LORA_UNDO_JSON_LIMIT)
		status = lora__fail(err, LORA_INPUT,
				    "the undo record would need %zu bytes of names and numbers, "
				    "more than its limit of %u",
				    *size, LORA_UNDO_JSON_LIMIT);
	if (!status && !(*text = lora__json_writer_take(w)))
		status = lora__fail_memory(err);
	lora_json_writer_free(w);
	return status;
}
