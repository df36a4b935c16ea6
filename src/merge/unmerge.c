/* SPDX-License-Identifier: Apache-2.0 */
/* merge/unmerge.c - the base back, byte for byte, and the proof that it is
 *
 *	record and merged model fit? --> tensors that nothing reads are hashed --> blocks, every
 *tensor that is read hashed on the way --> every file's digest is the base's? --> other files -->
 *commit
 *
 * 1. A merged model that differs from what the merge wrote in a single bit, in weights or in
 *another file, is refused by name, whether or not that bit would have mattered.
 * 2. A base that does not come out is never published: its digests are in the record.
 */
#include "merge/unmerge.h"

#include "base/digest.h"
#include "base/error.h"
#include "base/pool.h"
#include "base/watch.h"
#include "merge/pipeline.h"
#include "merge/target.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define STEP (1u << 18)

double lora__seconds_since(const struct timespec *begin)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (double)(now.tv_sec - begin->tv_sec) + 1e-9 * (double)(now.tv_nsec - begin->tv_nsec);
}

/* ---- what no item reads: tensors that the merge added, or put in the place of others ----------
 */

static enum lora_status hash_unread(void *user, size_t i, unsigned worker, struct lora_error *err)
{
	const struct lora_way_back *way = user;
	const struct lora_model *merged = way->plan.base;
	const struct lora_tensor *t = &merged->index.tensors[way->unread[i]];
	uint32_t at = lora__map_find(&way->undo.merged_by_name, t->name, strlen(t->name));
	struct lora_hasher *hasher = lora__hasher_new();
	uint8_t *step = malloc(STEP);
	struct lora_sha256 digest;
	enum lora_status status = hasher && step ? LORA_OK : lora__fail_memory(err);

	(void)worker;
	for (uint64_t done = 0; done < t->size && !status; done += STEP) {
		size_t n = t->size - done < STEP ? (size_t)(t->size - done) : STEP;

		status = lora_model_read(merged, t, done, step, n, err);
		if (!status)
			lora__hasher_update(hasher, step, n);
	}
	if (!status) {
		lora__hasher_final(hasher, &digest);
		if (!lora__sha256_equal(&digest, &way->undo.merged_tensors[at].sha256))
			status =
			    lora__fail(err, LORA_NO,
				       "tensor '%s' is not what the merge wrote: use the merged "
				       "model as it was",
				       lora__escape(t->name));
	}
	lora__hasher_free(hasher);
	free(step);
	return status;
}

/* ---- the base's other files -------------------------------------------------------------------
 */

/* Where bytes of a file come from: the record's store, or a file of the merged model. */
struct bytes {
	const struct lora_file *file;
	uint64_t begin, size;
};

/* Copies (out NULL: only reads) and compares the digest; LORA_NO with *same false is the caller's
 * message to make. */
static enum lora_status pass_on(struct bytes from, int fd, const char *name,
				const struct lora_sha256 *expected, bool *same,
				struct lora_error *err)
{
	struct lora_hasher *hasher = lora__hasher_new();
	uint8_t *step = malloc(STEP);
	struct lora_sha256 digest;
	enum lora_status status = hasher && step ? LORA_OK : lora__fail_memory(err);

	for (uint64_t at = 0; at < from.size && !status; at += STEP) {
		size_t n = from.size - at < STEP ? (size_t)(from.size - at) : STEP;

		status = lora__file_read(from.file, from.begin + at, step, n, err);
		if (!status)
			lora__hasher_update(hasher, step, n);
		if (!status && fd >= 0)
			status = lora__write_at(fd, name, at, step, n, err);
	}
	if (!status) {
		lora__hasher_final(hasher, &digest);
		*same = lora__sha256_equal(&digest, expected);
	}
	lora__hasher_free(hasher);
	free(step);
	return status;
}

static enum lora_status changed_file(const struct lora_way_back *way, const char *name,
				     struct lora_error *err)
{
	return lora__fail(
	    err, LORA_NO,
	    "'%s' of '%s' is not what the merge wrote: use the merged model as it was",
	    lora__escape(name), lora__escape(way->plan.base->path));
}

/* A file of the merged model, opened, with the size that it should have. */
static enum lora_status open_other(const struct lora_way_back *way, const struct lora_other *other,
				   struct lora_file *file, struct lora_error *err)
{
	char *path = lora__path_join(way->plan.base->path, other->name);
	enum lora_path_kind kind = LORA_PATH_ABSENT;
	enum lora_status status = path ? lora__path_kind(path, &kind, err) : lora__fail_memory(err);

	if (!status && kind == LORA_PATH_FILE)
		status = lora__file_open(file, path, err);
	if (!status && (kind != LORA_PATH_FILE || file->size != other->size))
		status = changed_file(way, other->name, err);
	free(path);
	return status;
}

static enum lora_status write_other(const struct lora_way_back *way, size_t k,
				    struct lora_output *output, struct lora_error *err)
{
	const struct lora_other *other = &way->undo.others.base[k];
	const struct lora_tensor *stored =
	    other->stored ? &way->store.index.tensors[lora__undo_find(&way->store.index, "file", k)]
			  : NULL;
	struct lora_file file = LORA_FILE_INIT;
	struct bytes from = {stored ? &way->store.files[0].file : &file, stored ? stored->begin : 0,
			     other->size};
	bool same = false;
	int fd = -1;
	enum lora_status status = stored ? LORA_OK : open_other(way, other, &file, err);

	if (!status)
		status = lora__output_file(output, other->name, 0, &fd, err);
	if (!status)
		status = pass_on(from, fd, other->name, &other->sha256, &same, err);
	if (!status && !same)
		status = stored
			     ? lora__fail(err, LORA_INPUT,
					  "'%s': damaged undo record: the stored file '%s' is not "
					  "what its digest says",
					  lora__escape(way->store.files[0].file.path),
					  lora__escape(other->name))
			     : changed_file(way, other->name, err);
	if (!status)
		status = lora__output_finish(output, fd, err);
	lora__file_close(&file);
	return status;
}

/* Files that the merge changed do not come back from the merged model, but say whether it is that
 * one. */
static enum lora_status check_other(const struct lora_way_back *way, const struct lora_other *other,
				    struct lora_error *err)
{
	struct lora_file file = LORA_FILE_INIT;
	bool same = false;
	enum lora_status status = open_other(way, other, &file, err);

	if (!status)
		status = pass_on((struct bytes){&file, 0, other->size}, -1, other->name,
				 &other->sha256, &same, err);
	if (!status && !same)
		status = changed_file(way, other->name, err);
	lora__file_close(&file);
	return status;
}

static enum lora_status other_files(const struct lora_way_back *way, struct lora_output *output,
				    struct lora_error *err)
{
	const struct lora_others *o = &way->undo.others;
	enum lora_status status = LORA_OK;

	for (size_t k = 0; k < o->merged_count && !status; k++)
		status = check_other(way, &o->merged[k], err);
	for (size_t k = 0; k < o->base_count && !status; k++)
		status = write_other(way, k, output, err);
	return status;
}

/* ---- the whole --------------------------------------------------------------------------------
 */

static enum lora_status not_the_base(const struct lora_way_back *way, const char *what,
				     struct lora_error *err)
{
	return lora__fail(
	    err, LORA_INPUT,
	    "'%s': damaged undo record: '%s' does not come out as the base's: get the "
	    "record again",
	    lora__escape(way->store.files[0].file.path), lora__escape(what));
}

static enum lora_status check_root(const struct lora_way_back *way, struct lora_error *err)
{
	const struct lora_plan *plan = &way->plan;
	struct lora_leaf *leaves = NULL;
	struct lora_sha256 root;
	size_t count = 0;
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
			const struct lora_tensor *t = &way->heads[f].tensors[i];

			leaves[count++] =
			    (struct lora_leaf){t->name, t->dtype, t->ndim, t->shape,
					       item->job ? &item->restored : &item->digest};
		}
	status = lora__root_compute(&root, leaves, count, err);
	if (!status && !lora__sha256_equal(&root, &way->undo.base_root))
		status = not_the_base(way, "root", err);
	free(leaves);
	return status == LORA_USAGE ? not_the_base(way, "tensors", err) : status;
}

static enum lora_status check_base(const struct lora_way_back *way, struct lora_error *err)
{
	for (size_t f = 0; f < way->plan.file_count; f++)
		if (!lora__sha256_equal(&way->plan.files[f].digest,
					&way->undo.base_files[f].sha256))
			return not_the_base(way, way->plan.files[f].name, err);
	return check_root(way, err);
}

static enum lora_status write_base(struct lora_way_back *way, const char *path,
				   struct lora_error *err)
{
	struct lora_plan *plan = &way->plan;
	struct lora_output *output = NULL;
	enum lora_status status =
	    lora__output_begin(&output, path, plan->base->directory, false, err);

	for (size_t f = 0; f < plan->file_count && !status; f++)
		status =
		    lora__output_file(output, plan->base->directory ? plan->files[f].name : NULL,
				      plan->files[f].size, &plan->files[f].fd, err);
	if (!status)
		status = lora__parallel(plan->options->threads, way->unread_count, hash_unread, way,
					err);
	if (!status)
		status = lora__pipeline_run(plan, output, true, err);
	if (!status)
		status = check_base(way, err);
	if (!status && plan->base->directory)
		status = other_files(way, output, err);
	if (!status)
		status = lora__model_unchanged(plan->base, err);
	if (!status)
		status = lora__file_unchanged(&way->store.files[0].file, err);
	if (!status)
		status = lora__output_commit(output, err);
	lora__output_free(output);
	return status;
}

static enum lora_status digest_record(const struct lora_file *file, char hex[LORA_SHA256_HEX],
				      struct lora_error *err)
{
	struct lora_hasher *hasher = lora__hasher_new();
	uint8_t *step = malloc(STEP);
	struct lora_sha256 digest;
	enum lora_status status = hasher && step ? LORA_OK : lora__fail_memory(err);

	for (uint64_t at = 0; at < file->size && !status; at += STEP) {
		size_t n = file->size - at < STEP ? (size_t)(file->size - at) : STEP;

		status = lora__file_read(file, at, step, n, err);
		if (!status)
			lora__hasher_update(hasher, step, n);
	}
	if (!status) {
		lora__hasher_final(hasher, &digest);
		lora__sha256_hex(&digest, hex);
	}
	lora__hasher_free(hasher);
	free(step);
	return status;
}

/* The answer was no. Where the merged model says itself that another record is its own, that one is
 * what the user looks for: it undoes the merge that came last. */
static void name_own_record(const struct lora_way_back *way, struct lora_error *err)
{
	const struct lora_model *merged = way->plan.base;
	const char *name = NULL, *sha256 = NULL;
	struct lora_json *receipt = NULL;
	char line[LORA_ERROR_SIZE], hex[LORA_SHA256_HEX];

	if (lora__receipt_load(&receipt, merged->path, merged->directory, NULL) == LORA_OK) {
		const struct lora_json *undo = lora__json_get(receipt, "undo");

		name = lora__json_string(lora__json_get(undo, "name"));
		sha256 = lora__json_string(lora__json_get(undo, "sha256"));
	}
	if (name && sha256 && err &&
	    digest_record(&way->store.files[0].file, hex, NULL) == LORA_OK &&
	    strcmp(hex, sha256) != 0) {
		snprintf(line, sizeof(line), "%s", err->message);
		lora__fail(err, LORA_NO,
			   "'%s' does not undo the last merge of '%s': that is '%s' (sha256 "
			   "%.16s...): undo it first (%s)",
			   lora__escape(way->store.files[0].file.path), lora__escape(merged->path),
			   lora__escape(name), sha256, line);
	}
	lora__json_free(receipt);
}

static enum lora_status check_places(const struct lora_model *merged, const char *record,
				     const char *output, struct lora_error *err)
{
	enum lora_status status = lora__target_outside(output, merged->path, err);

	return status ? status : lora__target_outside(output, record, err);
}

static void summarise(const struct lora_way_back *way, struct lora_unmerge_summary *summary)
{
	for (size_t f = 0; f < way->plan.file_count; f++)
		summary->tensors += way->plan.files[f].item_count;
	summary->restored = way->plan.job_count;
	summary->files = way->plan.file_count + way->undo.others.base_count;
	summary->left = way->undo.others.left_count;
	summary->bytes = way->plan.bytes;
	summary->root = way->undo.base_root;
}

enum lora_status lora_unmerge(struct lora_unmerge_summary *summary, struct lora_model *merged,
			      const char *record, const char *output,
			      const struct lora_unmerge_options *options, struct lora_error *err)
{
	struct lora_way_back way = {.options = LORA_MERGE_OPTIONS_INIT};
	struct timespec begin;
	enum lora_status status = check_places(merged, record, output, err);

	memset(summary, 0, sizeof(*summary));
	if (status)
		return status;
	clock_gettime(CLOCK_MONOTONIC, &begin);
	way.options.threads = options->threads;
	way.plan.observer = options->observer;
	status = lora__way_back_make(&way, merged, record, err);
	if (!status)
		status = write_base(&way, output, err);
	if (status == LORA_NO)
		name_own_record(&way, err);
	for (size_t i = 0; i < way.undo.others.left_count && !status; i++)
		lora__note(
		    options->observer, LORA_NOTE_WARNING,
		    "'%s' of the base is neither in the record nor in the merged model: it did "
		    "not come back",
		    lora__escape(way.undo.others.left[i].name));
	if (!status) {
		summarise(&way, summary);
		summary->seconds = lora__seconds_since(&begin);
	}
	lora__way_back_fini(&way);
	return status;
}
