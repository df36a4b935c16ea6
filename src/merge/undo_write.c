/* SPDX-License-Identifier: Apache-2.0 */
/* merge/undo_write.c - residuals on their way, and the record when all is known
 *
 *	blocks --chunks--> spool 0 (of output file 0), spool 1, ...	while the merge runs
 *	heads, other files, factors, gains, spools, record.json --> one safetensors file
 *
 * 1. A spool is a nameless file in the record's folder: whatever happens, nothing is left behind.
 * 2. Chunks of a tensor follow one another in its file's spool, in order, whatever the threads do:
 *    the record is the same for every number of them.
 * 3. Sizes are known before the first byte of the record is written, so that its head can be.
 * 4. Factors are written as they were stored: in their own type, row-major, exactly.
 */
#include "merge/undo_write.h"

#include "base/digest.h"
#include "base/error.h"
#include "base/watch.h"
#include "merge/receipt.h"
#include "merge/residual.h"
#include "merge/tile.h"
#include "merge/undo_json.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define STEP (1u << 18) /* bytes written at a time */

struct spool {
	int fd; /* -1: counted only */
	uint64_t size;
};

struct lora_undo_writer {
	const char *path; /* NULL: counts only */
	struct spool *spools;
	size_t spool_count;
	struct lora_undo_chunks *chunks; /* by job */
};

/* ---- while the merge runs ---------------------------------------------------------------------
 */

/* A file without a name in the folder of `path`. */
static enum lora_status nameless(const char *path, int *fd, struct lora_error *err)
{
	const char *slash = strrchr(path, '/');
	size_t length = slash ? (size_t)(slash - path) + 1 : 2;
	static const char pattern[] = ".loractl-spool-XXXXXX";
	char *name = malloc(length + sizeof(pattern));

	if (!name)
		return lora__fail_memory(err);
	memcpy(name, slash ? path : "./", length);
	name[length] = '\0';
	*fd = open(name, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
	if (*fd < 0) { /* not every file system has it */
		memcpy(name + length, pattern, sizeof(pattern));
		*fd = mkostemp(name, O_CLOEXEC);
		if (*fd >= 0)
			unlink(name);
	}
	free(name);
	return *fd >= 0 ? LORA_OK
			: lora__fail_errno(err, "cannot write beside '%s'", lora__escape(path));
}

/* Which rows of a job are replaced, one bit each. */
static enum lora_status mark_rows(struct lora_plan *plan, struct lora_job *job,
				  struct lora_error *err)
{
	if (!job->row_count)
		return LORA_OK;
	job->zero_rows = lora__arena_array(&plan->arena, (size_t)(job->height / 8 + 1), 1);
	if (!job->zero_rows)
		return lora__fail_memory(err);
	for (size_t p = 0; p < job->row_count; p++)
		for (uint64_t i = 0; i < job->rows[p].edit->dense.rows; i++) {
			uint64_t row = job->rows[p].edit->row_ids[i];

			job->zero_rows[row / 8] =
			    (uint8_t)(job->zero_rows[row / 8] | 1u << row % 8);
		}
	return LORA_OK;
}

enum lora_status lora__undo_begin(struct lora_plan *plan, const char *path, struct lora_error *err)
{
	struct lora_undo_writer *writer = calloc(1, sizeof(*writer));
	enum lora_status status = LORA_OK;

	plan->undo = writer;
	if (!writer)
		return lora__fail_memory(err);
	writer->path = path;
	writer->chunks = calloc(plan->job_count + 1, sizeof(*writer->chunks));
	writer->spools = calloc(plan->file_count + 1, sizeof(*writer->spools));
	if (!writer->chunks || !writer->spools)
		return lora__fail_memory(err);
	for (; writer->spool_count < plan->file_count && !status; writer->spool_count++) {
		writer->spools[writer->spool_count].fd = -1;
		if (path)
			status = nameless(path, &writer->spools[writer->spool_count].fd, err);
	}
	for (size_t i = 0; i < plan->job_count && !status; i++)
		status = mark_rows(plan, &plan->jobs[i], err);
	return status;
}

void lora__undo_end(struct lora_plan *plan)
{
	struct lora_undo_writer *writer = plan->undo;

	plan->undo = NULL;
	if (!writer)
		return;
	for (size_t f = 0; f < writer->spool_count; f++)
		if (writer->spools[f].fd >= 0)
			close(writer->spools[f].fd);
	for (size_t i = 0; writer->chunks && i < plan->job_count; i++)
		free(writer->chunks[i].chunk);
	free(writer->chunks);
	free(writer->spools);
	free(writer);
}

bool lora__undo_wants(const struct lora_plan *plan, const struct lora_item *item)
{
	return plan->undo && item->base && item->job && !item->job->replace;
}

enum lora_status lora__undo_chunk(struct lora_undo_writer *writer, size_t file,
				  const struct lora_job *job, struct lora_residual_chunk chunk,
				  const uint8_t *data, struct lora_error *err)
{
	struct spool *spool = &writer->spools[file];
	struct lora_undo_chunks *list = &writer->chunks[job->number];
	enum lora_status status = LORA_OK;

	if ((list->count & (list->count - 1)) == 0) { /* a power of two: full */
		struct lora_residual_chunk *grown =
		    realloc(list->chunk, 2 * (list->count + 1) * sizeof(*grown));

		if (!grown)
			return lora__fail_memory(err);
		list->chunk = grown;
	}
	chunk.at = spool->size;
	list->chunk[list->count++] = chunk;
	list->bytes += chunk.size;
	if (spool->fd >= 0)
		status =
		    lora__write_at(spool->fd, writer->path, spool->size, data, chunk.size, err);
	spool->size += chunk.size;
	return status;
}

/* The chunk of a replaced tensor that begins with element *at; moves *at behind it. */
static enum lora_status replaced_chunk(struct lora_plan *plan, size_t f,
				       const struct lora_item *item, uint64_t *at,
				       struct lora_residual *r, uint8_t *buffers,
				       struct lora_error *err)
{
	struct lora_residual_span span = {lora__residual_width(item->base->dtype), 0};
	uint64_t left = item->base->size / span.width - *at;
	struct lora_residual_chunk chunk = {0, 0, 0};
	uint8_t *out = buffers + LORA_CHUNK_BYTES;
	size_t most = LORA_CHUNK_BYTES / span.width;
	enum lora_status status;

	most = most < LORA_CHUNK_ELEMENTS ? most : LORA_CHUNK_ELEMENTS;
	span.n = left < most ? (size_t)left : most;
	chunk.elements = span.n;
	status = lora_model_read(plan->base, item->base, *at * span.width, buffers,
				 span.n * span.width, err);
	*at += span.n;
	if (!status)
		status = lora__residual_encode(r, span, buffers, NULL, out, &chunk.size, err);
	return status ? status : lora__undo_chunk(plan->undo, f, item->job, chunk, out, err);
}

enum lora_status lora__undo_replaced(struct lora_plan *plan, struct lora_error *err)
{
	struct lora_residual r;
	uint8_t *buffers = malloc(2 * LORA_CHUNK_BYTES + LORA_CHUNK_OVERHEAD);
	enum lora_status status = lora__residual_init(&r, err);

	if (!status && !buffers)
		status = lora__fail_memory(err);
	for (size_t f = 0; f < plan->file_count; f++)
		for (size_t i = 0; i < plan->files[f].item_count; i++) {
			const struct lora_item *item = &plan->files[f].items[i];
			uint64_t at = 0, count = 0;

			if (item->base && item->job && item->job->replace)
				count = item->base->size / lora__residual_width(item->base->dtype);
			while (at < count && !status)
				status = replaced_chunk(plan, f, item, &at, &r, buffers, err);
		}
	lora__residual_fini(&r);
	free(buffers);
	return status;
}

void lora__undo_sizes(const struct lora_plan *plan, uint64_t *residual, uint64_t *adapted)
{
	*residual = *adapted = 0;
	for (size_t f = 0; f < plan->file_count; f++)
		for (size_t i = 0; i < plan->files[f].item_count; i++) {
			const struct lora_item *item = &plan->files[f].items[i];

			if (!item->base || !item->job)
				continue;
			*residual += plan->undo->chunks[item->job->number].bytes;
			*adapted += item->base->size;
		}
}

/* ---- the record -------------------------------------------------------------------------------
 */

/* Where a tensor of the record comes from: memory, a view of an adapter, or a spool. */
struct source {
	const void *data;
	const struct lora_part *part;
	const struct lora_view *view;
	const struct spool *spool;
	uint64_t at;
};

struct record {
	struct lora_plan *plan;
	struct lora_others others;
	char *json;
	struct lora_tensor *tensors;
	struct source *sources;
	size_t count, room;
	int fd;
	uint64_t written;
	struct lora_hasher *hasher;
};

/* A new tensor "NAME.NUMBER" (or NAME alone); of `t` the type and the shape are given. */
static enum lora_status add(struct record *r, const char *name, size_t number, struct lora_tensor t,
			    struct source source, struct lora_error *err)
{
	t.name = number == SIZE_MAX ? name
				    : lora__arena_printf(&r->others.arena, "%s.%zu", name, number);
	if (!t.name)
		return lora__fail_memory(err);
	t.elements = 1;
	for (uint32_t d = 0; d < t.ndim; d++)
		t.elements *= t.shape[d];
	t.size = t.elements * lora_dtype_bits(t.dtype) / 8;
	r->tensors[r->count] = t;
	r->sources[r->count++] = source;
	return LORA_OK;
}

static struct lora_tensor row_of(enum lora_dtype type, uint64_t count)
{
	return (struct lora_tensor){.dtype = type, .ndim = 1, .shape = {count}};
}

static enum lora_status add_bytes(struct record *r, const char *name, size_t number,
				  const void *data, uint64_t size, struct lora_error *err)
{
	return add(r, name, number, row_of(LORA_DTYPE_U8, size), (struct source){.data = data},
		   err);
}

static enum lora_status add_view(struct record *r, const char *name, size_t number,
				 const struct lora_part *part, const struct lora_view *view,
				 struct lora_error *err)
{
	const struct lora_adapter *adapter = r->plan->inputs[part->adapter].adapter;
	struct lora_tensor t = {.dtype = adapter->index.tensors[view->tensor].dtype,
				.ndim = 2,
				.shape = {view->rows, view->cols}};

	return add(r, name, number, t, (struct source){.part = part, .view = view}, err);
}

static enum lora_status add_parts(struct record *r, const struct lora_job *job, size_t *number,
				  struct lora_error *err)
{
	size_t count;
	const struct lora_part *parts = lora__job_parts(job, &count);
	enum lora_status status = LORA_OK;

	for (size_t i = 0; i < count && !status; i++, (*number)++) {
		const struct lora_edit *edit = parts[i].edit;

		if (edit->kind == LORA_EDIT_ADD_DENSE) {
			status = add_view(r, "dense", *number, &parts[i], &edit->dense, err);
			continue;
		}
		status = add_view(r, "left", *number, &parts[i], &edit->left, err);
		if (!status)
			status = add_view(r, "right", *number, &parts[i], &edit->right, err);
	}
	return status;
}

/* What belongs to the changed tensors, in the order of record.json's `tensors`. */
static enum lora_status add_tensors(struct record *r, struct lora_error *err)
{
	const struct lora_plan *plan = r->plan;
	size_t part = 0, tensor = 0;
	enum lora_status status = LORA_OK;

	for (size_t f = 0; f < plan->file_count; f++)
		for (size_t i = 0; i < plan->files[f].item_count && !status; i++) {
			const struct lora_item *item = &plan->files[f].items[i];
			const struct lora_job *job = item->job;
			const struct lora_undo_chunks *list;
			uint64_t gains;

			if (!item->base || !job)
				continue;
			list = &plan->undo->chunks[job->number];
			if (!job->replace)
				status = add_parts(r, job, &part, err);
			gains = job->gain_by_column ? job->width : job->height;
			if (!status && job->gain)
				status = add(r, "gain", tensor, row_of(LORA_DTYPE_F32, gains),
					     (struct source){.data = job->gain}, err);
			if (!status)
				status =
				    add(r, "residual", tensor, row_of(LORA_DTYPE_U8, list->bytes),
					(struct source){.spool = &plan->undo->spools[f],
							.at = list->count ? list->chunk[0].at : 0},
					err);
			tensor++;
		}
	return status;
}

static enum lora_status add_all(struct record *r, size_t json_size, struct lora_error *err)
{
	const struct lora_model *base = r->plan->base;
	enum lora_status status = add_bytes(r, "record.json", SIZE_MAX, r->json, json_size, err);

	for (size_t f = 0; f < base->shard_count && !status; f++)
		status =
		    add_bytes(r, "head", f, base->shards[f].head, base->shards[f].data_begin, err);
	for (size_t k = 0; k < r->others.base_count && !status; k++)
		if (r->others.base[k].stored)
			status = add_bytes(r, "file", k, r->others.base[k].data,
					   r->others.base[k].size, err);
	return status ? status : add_tensors(r, err);
}

static enum lora_status put(struct record *r, const void *data, size_t size, struct lora_error *err)
{
	lora__hasher_update(r->hasher, data, size);
	r->written += size;
	return lora__write_at(r->fd, r->plan->options->undo, r->written - size, data, size, err);
}

/* Row after row, in the type in which it is stored. */
static enum lora_status put_view(struct record *r, const struct lora_tensor *t,
				 const struct source *source, struct lora_error *err)
{
	const struct lora_kern *kern = lora__kern(err);
	const struct lora_adapter *adapter = r->plan->inputs[source->part->adapter].adapter;
	uint64_t cols = source->view->cols, rows = cols ? STEP / sizeof(float) / cols : 1;
	float *wide = NULL;
	enum lora_status status = kern ? LORA_OK : LORA_USAGE;

	rows = rows ? rows : 1;
	if (!status && !(wide = malloc((size_t)(2 * rows * cols) * sizeof(float) + 1)))
		status = lora__fail_memory(err);
	for (uint64_t i = 0; i < source->view->rows && !status; i += rows) {
		uint64_t n = source->view->rows - i < rows ? source->view->rows - i : rows;

		status = lora__view_read(adapter, source->view, i, n, wide, err);
		if (status)
			break;
		lora__narrow(kern, wide + rows * cols, t->dtype, wide, (size_t)(n * cols));
		status = put(r, wide + rows * cols,
			     (size_t)(n * cols) * (lora_dtype_bits(t->dtype) / 8), err);
	}
	free(wide);
	return status;
}

static enum lora_status put_spool(struct record *r, const struct lora_tensor *t,
				  const struct source *source, struct lora_error *err)
{
	uint8_t *step = malloc(STEP);
	enum lora_status status = step ? LORA_OK : lora__fail_memory(err);

	for (uint64_t at = 0; at < t->size && !status;) {
		size_t n = t->size - at < STEP ? (size_t)(t->size - at) : STEP;
		ssize_t got = pread(source->spool->fd, step, n, (off_t)(source->at + at));

		if (got <= 0)
			status = lora__fail_system(err, "cannot read '%s' back while it is made",
						   lora__escape(r->plan->options->undo));
		else
			status = put(r, step, (size_t)got, err);
		at += got > 0 ? (uint64_t)got : 0;
	}
	free(step);
	return status;
}

static enum lora_status put_all(struct record *r, struct lora_error *err)
{
	char proof[LORA_SHA256_HEX];
	const struct lora_metadata metadata[] = {{LORA_UNDO_KEY, LORA_UNDO_SCHEMA},
						 {LORA_UNDO_PROOF, proof}};
	struct lora_sha256 digest;
	uint8_t *head = NULL;
	size_t size = 0;
	enum lora_status status;

	lora__sha256(r->json, (size_t)r->tensors[0].size, &digest); /* add_all: the first */
	lora__sha256_hex(&digest, proof);
	status = lora__safetensors.emit(&head, &size, r->tensors, r->count, metadata, 2, err);
	if (!status)
		status = put(r, head, size, err);
	for (size_t i = 0; i < r->count && !status; i++) {
		const struct source *source = &r->sources[i];

		if (source->view)
			status = put_view(r, &r->tensors[i], source, err);
		else if (source->spool)
			status = put_spool(r, &r->tensors[i], source, err);
		else
			status = put(r, source->data, (size_t)r->tensors[i].size, err);
	}
	free(head);
	return status;
}

/* Tensors that the record has at most. */
static size_t room_for(const struct lora_plan *plan, const struct lora_others *others)
{
	size_t room = 1 + plan->base->shard_count + others->base_count + 2 * plan->job_count, parts;

	for (size_t i = 0; i < plan->job_count; i++) {
		(void)lora__job_parts(&plan->jobs[i], &parts);
		room += 2 * parts;
	}
	return room;
}

enum lora_status lora__undo_write(struct lora_plan *plan, int fd, const char *written,
				  struct lora_error *err)
{
	struct lora_sha256 root;
	struct record r = {.plan = plan, .fd = fd, .hasher = lora__hasher_new()};
	size_t json_size = 0;
	enum lora_status status =
	    r.hasher ? lora__plan_root(plan, &root, err) : lora__fail_memory(err);

	if (!status && plan->base->directory)
		status = lora__undo_others(&r.others, plan, written, err);
	for (size_t i = 0; i < r.others.left_count && !status; i++)
		lora__note(plan->observer, LORA_NOTE_INFO,
			   "not in the record: '%s': unmerge will not bring it back",
			   lora__escape(r.others.left[i].name));
	if (!status)
		status = lora__undo_json(plan, &r.others, plan->undo->chunks, &root, &r.json,
					 &json_size, err);
	r.room = room_for(plan, &r.others);
	r.tensors = calloc(r.room, sizeof(*r.tensors));
	r.sources = calloc(r.room, sizeof(*r.sources));
	if (!status && (!r.tensors || !r.sources))
		status = lora__fail_memory(err);
	if (!status)
		status = add_all(&r, json_size, err);
	if (!status)
		status = put_all(&r, err);
	if (!status)
		lora__hasher_final(r.hasher, &plan->undo_sha256);
	plan->undo_size = r.written;
	lora__hasher_free(r.hasher);
	lora__undo_others_fini(&r.others);
	free(r.json);
	free(r.tensors);
	free(r.sources);
	return status;
}
