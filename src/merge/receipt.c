/* SPDX-License-Identifier: Apache-2.0 */
/* merge/receipt.c - what went in, by digest; what came out, by digest; what happened between,
 * tensor by tensor.
 *
 * The same inputs and options give the same receipt, on every machine: every number in it comes
 * from sums in a fixed order.
 */
#include "merge/receipt.h"

#include "base/digest.h"
#include "base/error.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

struct lora_ratios lora__stats_ratios(const struct lora_stats *stats)
{
	struct lora_ratios r;

	r.rho = stats->w2 > 0 ? sqrt(stats->d2 / stats->w2) : NAN;
	r.unchanged = stats->nonzero ? (double)stats->unchanged / (double)stats->nonzero : NAN;
	r.noise = stats->d2 > 0 ? sqrt(stats->e2 / stats->d2) : NAN;
	return r;
}

enum lora_status lora__plan_root(const struct lora_plan *plan, struct lora_sha256 *root,
				 struct lora_error *err)
{
	size_t count = 0;
	struct lora_leaf *leaves;
	enum lora_status status;

	for (size_t f = 0; f < plan->file_count; f++)
		count += plan->files[f].item_count;
	leaves = calloc(count + 1, sizeof(*leaves));
	if (!leaves)
		return lora__fail_memory(err);
	count = 0;
	for (size_t f = 0; f < plan->file_count; f++)
		for (size_t i = 0; i < plan->files[f].item_count; i++) {
			const struct lora_item *item = &plan->files[f].items[i];
			struct lora_leaf *leaf = &leaves[count++];

			leaf->name = item->name;
			leaf->dtype = item->job ? item->job->out_type : item->base->dtype;
			leaf->ndim = item->job ? item->job->ndim : item->base->ndim;
			leaf->shape = item->job ? item->job->shape : item->base->shape;
			leaf->digest = &item->digest;
		}
	status = lora__root_compute(root, leaves, count, err);
	free(leaves);
	return status;
}

static void put_file(struct lora_json_writer *w, const char *name, uint64_t size,
		     const struct lora_sha256 *digest)
{
	lora_json_begin_object(w);
	lora_json_key(w, "name");
	lora_json_string(w, name);
	lora_json_key(w, "size");
	lora_json_uint(w, size);
	lora_json_key(w, "sha256");
	lora_json_sha256(w, digest);
	lora_json_end_object(w);
}

static void put_base(struct lora_json_writer *w, const struct lora_model *base)
{
	lora_json_key(w, "base");
	lora_json_begin_object(w);
	lora_json_key(w, "root");
	lora_json_sha256(w, &base->root);
	lora_json_key(w, "files");
	lora_json_begin_array(w);
	for (size_t f = 0; f < base->shard_count; f++)
		put_file(w, base->shards[f].name, base->shards[f].file.size,
			 &base->shards[f].sha256);
	lora_json_end_array(w);
	lora_json_end_object(w);
}

static enum lora_status put_adapters(struct lora_json_writer *w, const struct lora_plan *plan,
				     struct lora_error *err)
{
	lora_json_key(w, "adapters");
	lora_json_begin_array(w);
	for (size_t a = 0; a < plan->input_count; a++) {
		struct lora_sha256 root;
		enum lora_status status = lora_adapter_root(plan->inputs[a].adapter, &root, err);

		if (status)
			return status;
		lora_json_begin_object(w);
		lora_json_key(w, "root");
		lora_json_sha256(w, &root);
		lora_json_key(w, "weight");
		lora_json_double(w, plan->inputs[a].weight);
		lora_json_key(w, "name");
		lora_json_string(w, plan->inputs[a].adapter->name);
		lora_json_end_object(w);
	}
	lora_json_end_array(w);
	return LORA_OK;
}

static void put_merged(struct lora_json_writer *w, const struct lora_plan *plan,
		       const struct lora_sha256 *root)
{
	lora_json_key(w, "merged");
	if (!root) {
		lora_json_null(w);
		return;
	}
	lora_json_begin_object(w);
	lora_json_key(w, "root");
	lora_json_sha256(w, root);
	lora_json_key(w, "files");
	lora_json_begin_array(w);
	for (size_t f = 0; f < plan->file_count; f++)
		put_file(w, plan->files[f].name, plan->files[f].size, &plan->files[f].digest);
	lora_json_end_array(w);
	lora_json_end_object(w);
}

static void put_bool(struct lora_json_writer *w, const char *key, bool value)
{
	lora_json_key(w, key);
	lora_json_bool(w, value);
}

static void put_key_map(struct lora_json_writer *w, char *const *pairs)
{
	lora_json_key(w, "key_map");
	lora_json_begin_array(w);
	for (; pairs && pairs[0]; pairs += 2) {
		lora_json_begin_array(w);
		lora_json_string(w, pairs[0]);
		lora_json_string(w, pairs[1]);
		lora_json_end_array(w);
	}
	lora_json_end_array(w);
}

/* Only options that change what comes out, or whether: a rebuild needs exactly these. The adapters
 * of one command are opened alike. */
static void put_options(struct lora_json_writer *w, const struct lora_plan *plan)
{
	const struct lora_merge_options *options = plan->options;
	const struct lora_adapter *adapter = plan->inputs[0].adapter;

	lora_json_key(w, "options");
	lora_json_begin_object(w);
	lora_json_key(w, "dtype");
	lora_json_string(w, lora_dtype_name(options->dtype));
	lora_json_key(w, "tied");
	lora_json_string(w, options->tied == LORA_TIED_SPLIT ? "split" : "refuse");
	lora_json_key(w, "tokenizer");
	lora_json_string(w, options->adapter_tokenizer ? "adapter" : "base");
	put_bool(w, "allow_unmatched", options->allow_unmatched);
	put_bool(w, "allow_noop", options->allow_noop);
	put_bool(w, "allow_unknown", adapter->allow_unknown);
	put_bool(w, "allow_mutated_base", adapter->allow_mutated_base);
	put_key_map(w, adapter->key_map);
	lora_json_end_object(w);
}

static void put_undo(struct lora_json_writer *w, const struct lora_plan *plan)
{
	lora_json_key(w, "undo");
	if (!plan->undo_name) {
		lora_json_null(w);
		return;
	}
	lora_json_begin_object(w);
	lora_json_key(w, "name");
	lora_json_string(w, plan->undo_name);
	lora_json_key(w, "sha256");
	lora_json_sha256(w, &plan->undo_sha256);
	lora_json_end_object(w);
}

static void put_job(struct lora_json_writer *w, const struct lora_job *job)
{
	const struct lora_part *lead = lora__job_lead(job);
	struct lora_ratios r = lora__stats_ratios(&job->stats);

	lora_json_begin_object(w);
	lora_json_key(w, "tensor");
	lora_json_string(w, job->name);
	lora_json_key(w, "kind");
	lora_json_string(w, lora__edit_kind_name(lead->edit->kind));
	lora_json_key(w, "rank");
	lora_json_uint(w, lora__job_rank(job));
	lora_json_key(w, "scale");
	lora_json_double(w, (double)lead->s);
	lora_json_key(w, "scale_from");
	lora_json_string(w, lead->edit->scale_from);
	lora_json_key(w, "rho");
	lora_json_double(w, r.rho);
	lora_json_key(w, "unchanged");
	lora_json_double(w, r.unchanged);
	lora_json_key(w, "noise");
	lora_json_double(w, r.noise);
	lora_json_end_object(w);
}

static void put_names(struct lora_json_writer *w, const struct lora_plan *plan)
{
	lora_json_key(w, "added");
	lora_json_begin_array(w);
	for (size_t i = 0; i < plan->added_count; i++)
		lora_json_string(w, plan->added[i]);
	lora_json_end_array(w);
	lora_json_key(w, "unmatched");
	lora_json_begin_array(w);
	for (size_t a = 0; a < plan->input_count; a++)
		for (size_t i = 0; i < plan->resolved[a].unmatched_count; i++)
			lora_json_string(w, plan->resolved[a].unmatched[i].tensor);
	lora_json_end_array(w);
}

static uint64_t untouched_count(const struct lora_plan *plan)
{
	uint64_t count = 0;

	for (size_t f = 0; f < plan->file_count; f++)
		for (size_t i = 0; i < plan->files[f].item_count; i++)
			count += !plan->files[f].items[i].job;
	return count;
}

static enum lora_status put_receipt(struct lora_json_writer *w, const struct lora_plan *plan,
				    const struct lora_sha256 *root, struct lora_error *err)
{
	enum lora_status status;

	lora_json_begin_object(w);
	lora_json_key(w, "schema");
	lora_json_string(w, "loractl.receipt/1");
	lora_json_key(w, "tool");
	lora_json_string(w, "loractl");
	lora_json_key(w, "version");
	lora_json_string(w, lora_version());
	lora_json_key(w, "arithmetic");
	lora_json_uint(w, LORA_ARITHMETIC);
	put_base(w, plan->base);
	status = put_adapters(w, plan, err);
	put_merged(w, plan, root);
	put_options(w, plan);
	lora_json_key(w, "modules");
	lora_json_begin_array(w);
	for (size_t i = 0; i < plan->job_count; i++)
		if (!plan->jobs[i].dropped)
			put_job(w, &plan->jobs[i]);
	lora_json_end_array(w);
	put_names(w, plan);
	lora_json_key(w, "untouched");
	lora_json_uint(w, untouched_count(plan));
	put_undo(w, plan);
	lora_json_end_object(w);
	return status;
}

enum lora_status lora__receipt_text(const struct lora_plan *plan,
				    const struct lora_sha256 *merged_root, char **text,
				    size_t *size, struct lora_error *err)
{
	struct lora_json_writer *w = lora_json_writer_new(LORA_JSON_PRETTY);
	const char *done = NULL;
	enum lora_status status =
	    w ? put_receipt(w, plan, merged_root, err) : lora__fail_memory(err);

	*text = NULL;
	if (!status)
		status = lora_json_writer_text(w, &done, size, err);
	if (!status) {
		*text = malloc(*size + 1);
		if (*text)
			memcpy(*text, done, *size + 1);
		else
			status = lora__fail_memory(err);
	}
	lora_json_writer_free(w);
	return status;
}

static enum lora_status expect_files(const struct lora_plan *plan, const struct lora_json *files,
				     struct lora_error *err)
{
	const struct lora_json *file = lora__json_first(files);

	if (lora__json_count(files) != plan->file_count)
		return lora__fail(err, LORA_NO, "the receipt names %zu files, and %zu come out",
				  lora__json_count(files), plan->file_count);
	for (size_t f = 0; f < plan->file_count; f++, file = lora__json_next(file)) {
		const char *name = lora__json_string(lora__json_get(file, "name")),
			   *text = lora__json_string(lora__json_get(file, "sha256"));
		struct lora_sha256 sha256;

		if (!name || !text || !lora__sha256_parse(text, &sha256))
			return lora__fail(err, LORA_INPUT,
					  "the receipt's merged.files is malformed");
		/* A single file may have another name today. */
		if ((plan->base->directory && strcmp(name, plan->files[f].name) != 0) ||
		    !lora__sha256_equal(&sha256, &plan->files[f].digest))
			return lora__fail(err, LORA_NO,
					  "'%s' does not come out as the receipt says: nothing was "
					  "written",
					  lora__escape(plan->files[f].name));
	}
	return LORA_OK;
}

enum lora_status lora__receipt_expect(const struct lora_plan *plan, struct lora_error *err)
{
	const char *text = plan->options->expect;
	struct lora_json *receipt = NULL;
	enum lora_status status;

	if (!text)
		return LORA_OK;
	status = lora__json_parse(&receipt, text, strlen(text), err);
	if (!status)
		status = expect_files(
		    plan, lora__json_get(lora__json_get(receipt, "merged"), "files"), err);
	lora__json_free(receipt);
	return status;
}
