/* SPDX-License-Identifier: Apache-2.0 */
/* merge/parcel.c - the four ways to a parcel's bytes
 *
 *	untouched	the base's, copied inside the kernel where it can
 *	raw		the adapter's, of a type that we do not compute with
 *	computed	W' from W and the update; with an undo record also the chunk that leads back
 *	restored	W from W', the update and such a chunk
 *
 * All depend on the plan alone.
 */
#include "merge/parcel.h"

#include "base/error.h"
#include "merge/undo_write.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Parcels of a job are whole rows, or
 * part of one row; the wider of the two types decides, so that the base's bytes fit a buffer too.
 */
uint64_t lora__parcel_size(const struct lora_item *item, uint64_t offset, size_t chunk)
{
	const struct lora_job *job = item->job;
	uint64_t left = item->size - offset, out, in, row, room;

	if (job && job->chunk_count) /* the record decides */
		return job->chunks[chunk].elements * lora__residual_width(job->out_type);
	if (!job || job->raw || left == 0)
		return left < LORA_PARCEL_SIZE ? left : LORA_PARCEL_SIZE;
	out = lora_dtype_bits(job->out_type) / 8;
	in = lora_dtype_bits(job->in_type) / 8;
	row = job->width * out;
	room = LORA_PARCEL_SIZE / (in > out ? in : out) *
	       out; /* output bytes of as many elements as fit */
	if (row <= room)
		room -= room % row;
	else if (room > row - offset % row)
		room = row - offset % row;
	return left < room ? left : room;
}

enum lora_status lora__maker_init(struct lora_maker *maker, struct lora_plan *plan, bool digests,
				  struct lora_error *err)
{
	size_t room = plan->record ? LORA_CHUNK_LIMIT : LORA_PARCEL_SIZE + LORA_CHUNK_OVERHEAD;
	enum lora_status status = lora__scratch_init(&maker->scratch, err);

	maker->plan = plan;
	maker->digests = digests;
	maker->input = aligned_alloc(64, LORA_PARCEL_SIZE);
	if (!status && !maker->input)
		status = lora__fail_memory(err);
	if (status || (!plan->undo && !plan->record))
		return status;
	maker->predicted = malloc(room);
	status = lora__residual_init(&maker->residual, err);
	return !status && !maker->predicted ? lora__fail_memory(err) : status;
}

void lora__maker_fini(struct lora_maker *maker)
{
	lora__scratch_fini(&maker->scratch);
	lora__residual_fini(&maker->residual);
	free(maker->input);
	free(maker->predicted);
}

/* Bytes of one file that become bytes of another. */
struct transfer {
	const struct lora_file *in;
	uint64_t from, to;
	size_t size;
};

/* Moves an untouched range inside the kernel; *done is false where the file systems cannot. */
static enum lora_status copy_range(struct transfer move, const struct lora_outfile *file,
				   bool *done, struct lora_error *err)
{
	loff_t source = (loff_t)move.from, target = (loff_t)move.to;
	int in = -1, failed = 0;
	enum lora_status status = lora__file_lend(move.in, &in, err);

	*done = false;
	while (!status && !failed && move.size > 0) {
		ssize_t n = copy_file_range(in, &source, file->fd, &target, move.size, 0);

		if (n > 0)
			move.size -= (size_t)n;
		else if (n == 0)
			failed = EINVAL;
		else if (errno != EINTR)
			failed = errno;
	}
	if (status)
		return status;
	lora__file_take_back(move.in, in);
	*done = !failed;
	if (!failed || failed == EXDEV || failed == EINVAL || failed == ENOSYS ||
	    failed == EOPNOTSUPP)
		return LORA_OK; /* if not done: written again, the plain way */
	errno = failed;
	return lora__fail_errno(err, "cannot write '%s'", lora__escape(file->name));
}

static enum lora_status untouched(struct lora_maker *maker, const struct lora_outfile *file,
				  struct lora_parcel *block, struct lora_error *err)
{
	const struct lora_tensor *base = block->item->base;
	struct transfer move = {&maker->plan->base->shards[base->file].file,
				base->begin + block->offset, block->item->begin + block->offset,
				block->size};
	enum lora_status status = LORA_OK;
	bool copied = file->fd < 0;

	if (!copied)
		status = copy_range(move, file, &copied, err);
	if (!status && (maker->digests || !copied))
		status = lora_model_read(maker->plan->base, base, block->offset, block->data,
					 block->size, err);
	if (!status && !copied)
		status =
		    lora__write_at(file->fd, file->name, move.to, block->data, block->size, err);
	return status;
}

/* A replacement whose type we do not compute with. */
static enum lora_status raw_bytes(struct lora_maker *maker, struct lora_parcel *block,
				  struct lora_error *err)
{
	const struct lora_part *part = block->item->job->replace;
	const struct lora_adapter *adapter = maker->plan->inputs[part->adapter].adapter;
	const struct lora_tensor *t = &adapter->index.tensors[part->edit->dense.tensor];

	block->stats.changed = block->size; /* bytes: not compared with the base's */
	return lora__adapter_read(adapter, t, block->offset, block->data, block->size, err);
}

/* The base's bytes of a block, and with them the chunk that leads back to them. */
static enum lora_status computed(struct lora_maker *maker, struct lora_parcel *block,
				 struct lora_error *err)
{
	struct lora_job *job = block->item->job;
	size_t out = lora_dtype_bits(job->out_type) / 8, in = lora_dtype_bits(job->in_type) / 8;
	struct lora_block work = {maker->plan, job,  block->offset / out, block->size / out, NULL,
				  block->data, NULL, &block->stats};
	struct lora_residual_span span = {(unsigned)in, (size_t)work.count};
	enum lora_status status = lora__job_load(maker->plan, job, err);

	if (!status && job->source != LORA_NO_TENSOR) {
		work.w = maker->input;
		status = lora_model_read(
		    maker->plan->base, &maker->plan->base->index.tensors[job->source],
		    work.first * in, maker->input, (size_t)work.count * in, err);
	}
	if (lora__undo_wants(maker->plan, block->item))
		work.predicted = maker->predicted;
	if (!status)
		status = lora__block_compute(&work, &maker->scratch, err);
	if (!status && work.predicted) {
		block->chunk.elements = work.count;
		status = lora__residual_encode(&maker->residual, span, work.w, work.predicted,
					       block->residual, &block->chunk.size, err);
	}
	return status;
}

/* The way back: the prediction from the merged model's bytes (zero for a tensor that was replaced),
 * and over it the residual, if there is a record. */
static enum lora_status restored(struct lora_maker *maker, struct lora_parcel *block,
				 struct lora_error *err)
{
	struct lora_job *job = block->item->job;
	size_t out = lora__residual_width(job->out_type), in = lora_dtype_bits(job->in_type) / 8;
	struct lora_block work = {
	    maker->plan, job,  block->offset / out, block->size / out, block->input,
	    block->data, NULL, &block->stats};
	struct lora_residual_span span = {(unsigned)out, (size_t)work.count};
	enum lora_status status = LORA_OK;

	if (job->source == LORA_NO_TENSOR) {
		memset(block->data, 0, block->size);
	} else {
		status = lora__job_load(maker->plan, job, err);
		if (maker->plan->record)
			lora__context(err, status, "'%s': damaged undo record",
				      lora__escape(maker->plan->record->path));
		if (!status)
			status = lora_model_read(
			    maker->plan->base, &maker->plan->base->index.tensors[job->source],
			    work.first * in, block->input, (size_t)work.count * in, err);
		if (!status)
			status = lora__block_compute(&work, &maker->scratch, err);
	}
	if (status || !job->chunk_count)
		return status;
	status = lora__file_read(maker->plan->record, block->chunk.at, maker->predicted,
				 block->chunk.size, err);
	if (!status)
		status = lora__residual_decode(&maker->residual, span, maker->predicted,
					       block->chunk.size, block->data, err);
	return lora__context(err, status, "'%s': tensor '%s'",
			     lora__escape(maker->plan->record->path), lora__escape(job->name));
}

/* Starts writing back what a block completes, a window at a time: the disk works while the
 * processors do, and the sync at the end finds little left. A hint: its failure is the sync's to
 * report. */
#define WINDOW (8ull << 20) /* bytes */

static void write_behind(const struct lora_outfile *file, const struct lora_parcel *block)
{
#ifdef SYNC_FILE_RANGE_WRITE
	uint64_t begin = block->item->begin + block->offset, end = begin + block->size;

	if (file->fd >= 0 && begin / WINDOW != end / WINDOW)
		sync_file_range(file->fd, (off_t)((end / WINDOW - 1) * WINDOW), (off_t)WINDOW,
				SYNC_FILE_RANGE_WRITE);
#else
	(void)file;
	(void)block;
#endif
}

enum lora_status lora__parcel_make(struct lora_parcel *block, struct lora_maker *maker,
				   const struct lora_outfile *file, struct lora_error *err)
{
	const struct lora_job *job = block->item->job;
	enum lora_status status;

	if (!job)
		status = untouched(maker, file, block, err);
	else if (job->restores)
		status = restored(maker, block, err);
	else
		status = job->raw ? raw_bytes(maker, block, err) : computed(maker, block, err);
	if (!status && job && file->fd >= 0)
		status = lora__write_at(file->fd, file->name, block->item->begin + block->offset,
					block->data, block->size, err);
	if (!status)
		write_behind(file, block);
	return status;
}
