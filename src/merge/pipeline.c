/* SPDX-License-Identifier: Apache-2.0 */
/* merge/pipeline.c - blocks through workers: read, compute, write, hash.
 *
 *	file 0:  head | block 0 | block 1 | ...      cut from the items in order, at most BLOCK
 *bytes each file 1:  ...
 *
 *	a worker takes the next block of some file --> reads and computes it --> writes it -->
 *`ready` lanes of a file take ready blocks IN ORDER:   FILE_LANE    SHA-256 of the whole file
 *	                                               TENSOR_LANE  SHA-256 and statistics of each
 *tensor when both have passed a block, its buffer is free again
 *
 * 1. A block's bytes and statistics depend on the plan alone; lanes see blocks in order: so the
 *output, its digests and its statistics are the same for every number of threads.
 * 2. Memory is the buffers, two for each worker and a few more, and the factors of the files under
 *    way: the first is bounded by the number of workers, the second by that of files, whatever
 *    --threads says. A file's blocks are taken in order, so the block that a lane waits for always
 *    has a buffer: no deadlock.
 * 3. Hashing runs while the block is still in the processor's cache, on whichever worker is free;
 *    lanes come before new blocks.
 * 4. Several files are under way at once, so that SHA-256, serial by nature, runs on every core.
 * 5. A file has a descriptor from its first block to its last, and is synced when it loses it: a
 *    model may have any number of shards.
 */
#include "merge/pipeline.h"

#include "base/digest.h"
#include "base/error.h"
#include "base/pool.h"
#include "base/watch.h"
#include "merge/residual.h"
#include "merge/tile.h"
#include "merge/undo_write.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define BLOCK                                                                                      \
	(1u << 20) /* bytes: fits a core's second-level cache; a syscall's cost is lost in it */

#define OPEN_MAX    8u		/* files under way; as many descriptors */
#define FACTOR_ROOM (64u << 20) /* bytes for the factors of all files under way */

enum { FILE_LANE, TENSOR_LANE, BASE_LANE, LANES };

struct block {
	uint8_t *data;
	struct lora_item *item;
	uint64_t offset; /* bytes into the item's output */
	size_t size;
	bool last;	   /* of its item */
	uint8_t *input;	   /* on the way back: the merged model's bytes; else NULL */
	uint8_t *residual; /* with an undo record: its chunk of it; else NULL */
	struct lora_residual_chunk chunk;
	struct lora_stats stats;
	unsigned lanes_left;
	struct block *next; /* while free */
};

struct lane {
	uint64_t next; /* sequence number of the block it takes next */
	bool busy;
	struct lora_hasher *hasher;
};

/* BUSY: a worker opens or closes the file. */
enum state { WAITING, BUSY, OPEN, DONE };

struct stream {
	struct lora_outfile *file;
	enum state state;
	size_t item;	      /* cursor: the next block's item ... */
	uint64_t offset;      /* ... and bytes into it */
	size_t chunk;	      /* ... and chunk, on the way back */
	uint64_t taken;	      /* sequence number of the next block */
	struct block **ready; /* by sequence number modulo the number of blocks */
	struct lane lane[LANES];
	unsigned lanes;
};

struct pipeline {
	struct lora_plan *plan;
	struct lora_output *output; /* NULL in a dry run */
	bool digests;
	unsigned lanes; /* in use: the last one on the way back only */
	unsigned workers, open_max;
	size_t block_count;
	struct block *blocks, *free_block;
	uint8_t *memory;
	struct stream *streams;
	struct lora_scratch *scratch; /* by worker */
	uint8_t **input;	      /* by worker: BLOCK bytes of the base */
	uint8_t **predicted; /* by worker, with an undo record: BLOCK bytes, and the overhead of a
				chunk */
	struct lora_residual *residual; /* by worker, with an undo record */
	unsigned residual_count;	/* of them that are ready */
	struct lora_watch watch;
	pthread_mutex_t lock;
	pthread_cond_t changed;
	bool failed;
};

/* How many bytes of an item's output the block at `offset` has. Blocks of a job are whole rows, or
 * part of one row; the wider of the two types decides, so that the base's bytes fit a buffer too.
 */
static uint64_t block_size(const struct lora_item *item, uint64_t offset, size_t chunk)
{
	const struct lora_job *job = item->job;
	uint64_t left = item->size - offset, out, in, row, room;

	if (job && job->chunk_count) /* the record decides */
		return job->chunks[chunk].elements * lora__residual_width(job->out_type);
	if (!job || job->raw || left == 0)
		return left < BLOCK ? left : BLOCK;
	out = lora_dtype_bits(job->out_type) / 8;
	in = lora_dtype_bits(job->in_type) / 8;
	row = job->width * out;
	room = BLOCK / (in > out ? in : out) * out; /* output bytes of as many elements as fit */
	if (row <= room)
		room -= room % row;
	else if (room > row - offset % row)
		room = row - offset % row;
	return left < room ? left : room;
}

static bool exhausted(const struct stream *stream)
{
	return stream->item == stream->file->item_count;
}

static bool finished(const struct stream *stream)
{
	if (!exhausted(stream))
		return false;
	for (unsigned l = 0; l < stream->lanes; l++)
		if (stream->lane[l].next != stream->taken)
			return false;
	return true;
}

/* Of the first `open_max` files that are not done, the one whose lanes are least behind, or one
 * that waits to be opened. NULL if there is nothing to take. */
static struct stream *choose_stream(struct pipeline *p)
{
	struct stream *best = NULL;
	uint64_t best_behind = 0;
	unsigned open = 0;

	for (size_t f = 0; f < p->plan->file_count && open < p->open_max; f++) {
		struct stream *stream = &p->streams[f];
		uint64_t behind = stream->taken - stream->lane[FILE_LANE].next;

		open += stream->state != DONE;
		if (stream->state != WAITING && (stream->state != OPEN || exhausted(stream)))
			continue;
		if (!best || behind < best_behind) {
			best = stream;
			best_behind = behind;
		}
	}
	return best;
}

/* Cuts the next block off a stream; *sequence is its number. Under the lock. */
static struct block *take_block(struct pipeline *p, struct stream *stream, uint64_t *sequence)
{
	struct block *block = p->free_block;
	struct lora_item *item = &stream->file->items[stream->item];

	p->free_block = block->next;
	*sequence = stream->taken++;
	block->item = item;
	block->offset = stream->offset;
	block->size = (size_t)block_size(item, stream->offset, stream->chunk);
	if (item->job && item->job->chunk_count)
		block->chunk = item->job->chunks[stream->chunk++];
	block->last = block->offset + block->size == item->size;
	block->lanes_left = p->lanes;
	memset(&block->stats, 0, sizeof(block->stats));
	stream->offset += block->size;
	if (block->last) {
		stream->item++;
		stream->offset = 0;
		stream->chunk = 0;
	}
	return block;
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

static enum lora_status untouched(struct pipeline *p, const struct lora_outfile *file,
				  struct block *block, struct lora_error *err)
{
	const struct lora_tensor *base = block->item->base;
	struct transfer move = {&p->plan->base->shards[base->file].file,
				base->begin + block->offset, block->item->begin + block->offset,
				block->size};
	enum lora_status status = LORA_OK;
	bool copied = file->fd < 0;

	if (!copied)
		status = copy_range(move, file, &copied, err);
	if (!status && (p->digests || !copied))
		status = lora_model_read(p->plan->base, base, block->offset, block->data,
					 block->size, err);
	if (!status && !copied)
		status =
		    lora__write_at(file->fd, file->name, move.to, block->data, block->size, err);
	return status;
}

/* A replacement whose type we do not compute with. */
static enum lora_status raw_bytes(struct pipeline *p, struct block *block, struct lora_error *err)
{
	const struct lora_part *part = block->item->job->replace;
	const struct lora_adapter *adapter = p->plan->inputs[part->adapter].adapter;
	const struct lora_tensor *t = &adapter->index.tensors[part->edit->dense.tensor];

	block->stats.changed = block->size; /* bytes: not compared with the base's */
	return lora__adapter_read(adapter, t, block->offset, block->data, block->size, err);
}

/* The base's bytes of a block, and with them the chunk that leads back to them. */
static enum lora_status computed(struct pipeline *p, unsigned worker, struct block *block,
				 struct lora_error *err)
{
	struct lora_job *job = block->item->job;
	size_t out = lora_dtype_bits(job->out_type) / 8, in = lora_dtype_bits(job->in_type) / 8;
	struct lora_block work = {p->plan,     job,  block->offset / out, block->size / out, NULL,
				  block->data, NULL, &block->stats};
	struct lora_residual_span span = {(unsigned)in, (size_t)work.count};
	enum lora_status status = lora__job_load(p->plan, job, err);

	if (!status && job->source != LORA_NO_TENSOR) {
		work.w = p->input[worker];
		status = lora_model_read(p->plan->base, &p->plan->base->index.tensors[job->source],
					 work.first * in, p->input[worker], (size_t)work.count * in,
					 err);
	}
	if (lora__undo_wants(p->plan, block->item))
		work.predicted = p->predicted[worker];
	if (!status)
		status = lora__block_compute(&work, &p->scratch[worker], err);
	if (!status && work.predicted) {
		block->chunk.elements = work.count;
		status = lora__residual_encode(&p->residual[worker], span, work.w, work.predicted,
					       block->residual, &block->chunk.size, err);
	}
	return status;
}

/* The way back: the prediction from the merged model's bytes (zero for a tensor that was replaced),
 * and over it the residual, if there is a record. */
static enum lora_status restored(struct pipeline *p, unsigned worker, struct block *block,
				 struct lora_error *err)
{
	struct lora_job *job = block->item->job;
	size_t out = lora__residual_width(job->out_type), in = lora_dtype_bits(job->in_type) / 8;
	struct lora_block work = {
	    p->plan,	 job,  block->offset / out, block->size / out, block->input,
	    block->data, NULL, &block->stats};
	struct lora_residual_span span = {(unsigned)out, (size_t)work.count};
	enum lora_status status = LORA_OK;

	if (job->source == LORA_NO_TENSOR) {
		memset(block->data, 0, block->size);
	} else {
		status = lora__job_load(p->plan, job, err);
		if (!status)
			status = lora_model_read(
			    p->plan->base, &p->plan->base->index.tensors[job->source],
			    work.first * in, block->input, (size_t)work.count * in, err);
		if (!status)
			status = lora__block_compute(&work, &p->scratch[worker], err);
	}
	if (status || !job->chunk_count)
		return status;
	status = lora__file_read(p->plan->record, block->chunk.at, p->predicted[worker],
				 block->chunk.size, err);
	if (!status)
		status = lora__residual_decode(&p->residual[worker], span, p->predicted[worker],
					       block->chunk.size, block->data, err);
	return lora__context(err, status, "'%s': tensor '%s'", lora__escape(p->plan->record->path),
			     lora__escape(job->name));
}

/* Starts writing back what a block completes, a window at a time: the disk works while the
 * processors do, and the sync at the end finds little left. A hint: its failure is the sync's to
 * report. */
#define WINDOW (8ull << 20) /* bytes */

static void write_behind(const struct lora_outfile *file, const struct block *block)
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

static enum lora_status make_block(struct pipeline *p, unsigned worker,
				   const struct lora_outfile *file, struct block *block,
				   struct lora_error *err)
{
	enum lora_status status;

	const struct lora_job *job = block->item->job;

	if (!job)
		return untouched(p, file, block, err);
	status = job->restores ? restored(p, worker, block, err)
		 : job->raw    ? raw_bytes(p, block, err)
			       : computed(p, worker, block, err);
	if (!status && file->fd >= 0)
		status = lora__write_at(file->fd, file->name, block->item->begin + block->offset,
					block->data, block->size, err);
	return status;
}

/* What was read for a block of the way back; NULL: nothing. */
static const uint8_t *bytes_read(const struct block *block, size_t *size)
{
	const struct lora_job *job = block->item->job;

	*size = block->size;
	if (!job)
		return block->data;
	if (job->source == LORA_NO_TENSOR)
		return NULL;
	*size = block->size / (lora_dtype_bits(job->out_type) / 8) *
		(lora_dtype_bits(job->in_type) / 8);
	return block->input;
}

/* The bytes of an item pass: those of the merged tensor, written or, on the way back, read. */
static enum lora_status hash_tensor(struct lane *lane, struct block *block, struct lora_error *err)
{
	struct lora_item *item = block->item;
	size_t size = block->size;
	const uint8_t *bytes = item->expected ? bytes_read(block, &size)
			       : item->job    ? block->data
					      : NULL;

	if (!bytes)
		return LORA_OK;
	if (block->offset == 0)
		lora__hasher_reset(lane->hasher);
	lora__hasher_update(lane->hasher, bytes, size);
	if (!block->last)
		return LORA_OK;
	lora__hasher_final(lane->hasher, &item->digest);
	if (!item->expected || lora__sha256_equal(&item->digest, item->expected))
		return LORA_OK;
	return lora__fail(err, LORA_NO,
			  "tensor '%s' is not what the merge wrote: use the merged model as it was",
			  lora__escape(item->name));
}

/* The base's bytes of an item, where they are not those that were read. */
static void hash_restored(struct lane *lane, struct block *block)
{
	struct lora_item *item = block->item;

	if (!item->job)
		return;
	if (block->offset == 0)
		lora__hasher_reset(lane->hasher);
	lora__hasher_update(lane->hasher, block->data, block->size);
	if (block->last)
		lora__hasher_final(lane->hasher, &item->restored);
}

/* What the tensor lane does with a block. Only one worker at a time is in a lane. */
static enum lora_status pass_tensor_lane(struct pipeline *p, struct stream *stream,
					 struct lane *lane, struct block *block,
					 struct lora_error *err)
{
	struct lora_job *job = block->item->job;
	enum lora_status status = LORA_OK;

	if (p->digests)
		status = hash_tensor(lane, block, err);
	if (!job)
		return status;
	lora__stats_add(&job->stats, &block->stats);
	if (!status && lora__undo_wants(p->plan, block->item))
		status = lora__undo_chunk(p->plan->undo, (size_t)(stream - p->streams), job,
					  block->chunk, block->residual, err);
	if (block->last)
		lora__job_unload(job);
	return status;
}

/* A lane that can move: *stream, *lane; NULL block if none. Under the lock; marks the lane busy. */
static struct block *choose_lane(struct pipeline *p, struct stream **stream, unsigned *lane)
{
	for (size_t f = 0; f < p->plan->file_count; f++)
		for (unsigned l = 0; l < p->lanes; l++) {
			struct lane *candidate = &p->streams[f].lane[l];
			struct block *block;

			if (candidate->busy || candidate->next == p->streams[f].taken)
				continue;
			block = p->streams[f].ready[candidate->next % p->block_count];
			if (!block)
				continue;
			candidate->busy = true;
			*stream = &p->streams[f];
			*lane = l;
			return block;
		}
	return NULL;
}

/* Under the lock, as are all the callers of the steps below; dropped while bytes move. */
static enum lora_status move_lane(struct pipeline *p, struct stream *stream, unsigned l,
				  struct block *block, struct lora_error *err)
{
	struct lane *lane = &stream->lane[l];
	enum lora_status status = LORA_OK;

	pthread_mutex_unlock(&p->lock);
	if (l == TENSOR_LANE)
		status = pass_tensor_lane(p, stream, lane, block, err);
	else if (p->digests && l == BASE_LANE)
		hash_restored(lane, block);
	else if (p->digests)
		lora__hasher_update(lane->hasher, block->data, block->size);
	pthread_mutex_lock(&p->lock);
	if (--block->lanes_left == 0) {
		stream->ready[lane->next % p->block_count] = NULL;
		block->next = p->free_block;
		p->free_block = block;
	}
	lane->next++;
	lane->busy = false;
	p->failed = p->failed || status;
	pthread_cond_broadcast(&p->changed);
	return status;
}

static enum lora_status move_block(struct pipeline *p, unsigned worker, struct stream *stream,
				   struct lora_error *err)
{
	uint64_t sequence;
	struct block *block = take_block(p, stream, &sequence);
	enum lora_status status;

	pthread_mutex_unlock(&p->lock);
	status = make_block(p, worker, stream->file, block, err);
	if (!status)
		write_behind(stream->file, block);
	if (!status)
		status = lora__watch_add(&p->watch, block->size, err);
	pthread_mutex_lock(&p->lock);
	if (status)
		p->failed = true;
	else
		stream->ready[sequence % p->block_count] = block;
	pthread_cond_broadcast(&p->changed);
	return status;
}

/* The head goes first: it is hashed before any block. */
static enum lora_status open_file(struct pipeline *p, struct stream *stream, struct lora_error *err)
{
	struct lora_outfile *file = stream->file;
	const uint8_t *head =
	    file->head ? file->head : p->plan->base->shards[file - p->plan->files].head;
	enum lora_status status = LORA_OK;

	if (p->output && file->fd < 0)
		status = lora__output_wake(p->output, file->name, &file->fd, err);
	if (!status && file->fd >= 0)
		status = lora__write_at(file->fd, file->name, 0, head, file->head_size, err);
	if (!status && p->digests)
		lora__hasher_update(stream->lane[FILE_LANE].hasher, head, file->head_size);
	return status;
}

static enum lora_status close_file(struct pipeline *p, struct stream *stream,
				   struct lora_error *err)
{
	struct lora_outfile *file = stream->file;
	int fd = file->fd;

	file->fd = -1;
	if (p->digests)
		lora__hasher_final(stream->lane[FILE_LANE].hasher, &file->digest);
	return fd < 0 ? LORA_OK : lora__output_finish(p->output, fd, err);
}

/* Opens a file that waits, or closes one that is finished. */
static enum lora_status turn(struct pipeline *p, struct stream *stream, struct lora_error *err)
{
	bool begins = stream->state == WAITING;
	enum lora_status status;

	stream->state = BUSY;
	pthread_mutex_unlock(&p->lock);
	status = begins ? open_file(p, stream, err) : close_file(p, stream, err);
	pthread_mutex_lock(&p->lock);
	stream->state = begins ? OPEN : DONE;
	p->failed = p->failed || status;
	pthread_cond_broadcast(&p->changed);
	return status;
}

static struct stream *choose_finished(struct pipeline *p)
{
	for (size_t f = 0; f < p->plan->file_count; f++)
		if (p->streams[f].state == OPEN && finished(&p->streams[f]))
			return &p->streams[f];
	return NULL;
}

static bool all_done(const struct pipeline *p)
{
	for (size_t f = 0; f < p->plan->file_count; f++)
		if (p->streams[f].state != DONE)
			return false;
	return true;
}

/* One thing that can be done now; false if there is none. Lanes first [3], then what frees a
 * descriptor. Under the lock. */
static bool step(struct pipeline *p, unsigned worker, enum lora_status *status,
		 struct lora_error *err)
{
	struct stream *stream = NULL;
	unsigned lane = 0;
	struct block *block = choose_lane(p, &stream, &lane);

	if (block) {
		*status = move_lane(p, stream, lane, block, err);
		return true;
	}
	stream = choose_finished(p);
	if (!stream && p->free_block)
		stream = choose_stream(p);
	if (!stream)
		return false;
	*status = stream->state == WAITING || finished(stream) ? turn(p, stream, err)
							       : move_block(p, worker, stream, err);
	return true;
}

static enum lora_status work(void *user, size_t item, unsigned worker, struct lora_error *err)
{
	struct pipeline *p = user;
	enum lora_status status = LORA_OK;

	(void)item;
	pthread_mutex_lock(&p->lock);
	while (!status && !p->failed && !all_done(p))
		if (!step(p, worker, &status, err))
			pthread_cond_wait(&p->changed, &p->lock);
	pthread_mutex_unlock(&p->lock);
	return status;
}

static enum lora_status init_stream(struct pipeline *p, size_t f, struct lora_error *err)
{
	struct stream *stream = &p->streams[f];

	stream->file = &p->plan->files[f];
	stream->lanes = p->lanes;
	stream->ready = calloc(p->block_count, sizeof(*stream->ready));
	if (!stream->ready)
		return lora__fail_memory(err);
	for (unsigned l = 0; l < p->lanes && p->digests; l++) {
		stream->lane[l].hasher = lora__hasher_new();
		if (!stream->lane[l].hasher)
			return lora__fail_memory(err);
	}
	return LORA_OK;
}

static bool any_restored(const struct lora_plan *plan)
{
	return plan->job_count > 0 && plan->jobs[0].restores;
}

/* Memory for residuals: where they are made or used. */
static enum lora_status init_residuals(struct pipeline *p, struct lora_error *err)
{
	size_t room = p->plan->record ? LORA_CHUNK_LIMIT : BLOCK + LORA_CHUNK_OVERHEAD;
	enum lora_status status = LORA_OK;

	if (!p->plan->undo && !p->plan->record)
		return LORA_OK;
	p->predicted = calloc(p->workers, sizeof(*p->predicted));
	p->residual = calloc(p->workers, sizeof(*p->residual));
	if (!p->predicted || !p->residual)
		return lora__fail_memory(err);
	for (; p->residual_count < p->workers && !status; p->residual_count++) {
		status = lora__residual_init(&p->residual[p->residual_count], err);
		p->predicted[p->residual_count] = malloc(room);
		if (!status && !p->predicted[p->residual_count])
			status = lora__fail_memory(err);
	}
	for (size_t b = 0; b < p->block_count && p->plan->undo && !status; b++) {
		p->blocks[b].residual = malloc(room);
		if (!p->blocks[b].residual)
			status = lora__fail_memory(err);
	}
	return status;
}

static enum lora_status init_blocks(struct pipeline *p, struct lora_error *err)
{
	size_t inputs = any_restored(p->plan) ? p->block_count : p->workers;

	p->blocks = calloc(p->block_count, sizeof(*p->blocks));
	p->memory = aligned_alloc(64, (p->block_count + inputs) * (size_t)BLOCK);
	p->input = calloc(p->workers, sizeof(*p->input));
	if (!p->blocks || !p->memory || !p->input)
		return lora__fail_memory(err);
	for (size_t b = 0; b < p->block_count; b++) {
		p->blocks[b].data = p->memory + b * BLOCK;
		if (any_restored(p->plan))
			p->blocks[b].input = p->memory + (p->block_count + b) * BLOCK;
		p->blocks[b].next = p->free_block;
		p->free_block = &p->blocks[b];
	}
	for (unsigned w = 0; w < p->workers && !any_restored(p->plan); w++)
		p->input[w] = p->memory + (p->block_count + w) * BLOCK;
	return LORA_OK;
}

static enum lora_status init_workers(struct pipeline *p, struct lora_error *err)
{
	enum lora_status status;

	p->block_count = 2 * (size_t)p->workers + 6;
	p->lanes = p->plan->record ? LANES : BASE_LANE;
	p->scratch = calloc(p->workers, sizeof(*p->scratch));
	p->streams = calloc(p->plan->file_count, sizeof(*p->streams));
	if (!p->scratch || !p->streams)
		return lora__fail_memory(err);
	status = init_blocks(p, err);
	for (unsigned w = 0; w < p->workers && !status; w++)
		status = lora__scratch_init(&p->scratch[w], err);
	return status ? status : init_residuals(p, err);
}

static enum lora_status gain_work(void *user, size_t item, unsigned worker, struct lora_error *err)
{
	struct pipeline *p = user;
	struct lora_job *job = &p->plan->jobs[item];
	enum lora_status status;

	if (!job->dora || job->dropped) /* on the way back the gain is known */
		return LORA_OK;
	status = lora__job_load(p->plan, job, err);
	if (!status)
		status = lora__job_gain(p->plan, job, &p->scratch[worker], err);
	lora__job_unload(job);
	return status;
}

static void finish_digests(struct pipeline *p)
{
	for (size_t f = 0; f < p->plan->file_count; f++) {
		struct lora_outfile *file = &p->plan->files[f];

		for (size_t i = 0; i < file->item_count; i++) {
			struct lora_item *item = &file->items[i];
			size_t base =
			    item->base ? (size_t)(item->base - p->plan->base->index.tensors) : 0;

			if (!item->job && !item->expected)
				item->digest = p->plan->base->tensor_sha256[base];
		}
	}
}

static void fini(struct pipeline *p)
{
	for (size_t f = 0; p->streams && f < p->plan->file_count; f++) {
		free(p->streams[f].ready);
		for (unsigned l = 0; l < LANES; l++)
			lora__hasher_free(p->streams[f].lane[l].hasher);
	}
	for (unsigned w = 0; p->scratch && w < p->workers; w++)
		lora__scratch_fini(&p->scratch[w]);
	for (unsigned w = 0; w < p->residual_count; w++) {
		lora__residual_fini(&p->residual[w]);
		free(p->predicted[w]);
	}
	for (size_t b = 0; p->blocks && b < p->block_count; b++)
		free(p->blocks[b].residual);
	free(p->predicted);
	free(p->residual);
	free(p->blocks);
	free(p->memory);
	free(p->input);
	free(p->scratch);
	free(p->streams);
	lora__watch_fini(&p->watch);
	pthread_cond_destroy(&p->changed);
	pthread_mutex_destroy(&p->lock);
}

enum lora_status lora__pipeline_outputs(struct lora_plan *plan, struct lora_output *output,
					struct lora_error *err)
{
	bool directory = plan->base->directory;
	enum lora_status status = LORA_OK;

	for (size_t f = 0; f < plan->file_count && !status; f++) {
		struct lora_outfile *file = &plan->files[f];

		status = lora__output_file(output, directory ? file->name : NULL, file->size,
					   &file->fd, err);
		if (!status && directory) {
			status = lora__output_rest(output, file->fd, err);
			file->fd = -1;
		}
	}
	return status;
}

/* How many jobs' factors may be in memory at once. */
static unsigned jobs_at_once(const struct lora_plan *plan, unsigned most)
{
	uint64_t largest = 1;

	for (size_t i = 0; i < plan->job_count; i++) {
		uint64_t room = lora__job_room(&plan->jobs[i]);

		if (room > largest)
			largest = room;
	}
	if (FACTOR_ROOM / largest < most)
		most = (unsigned)(FACTOR_ROOM / largest);
	return most ? most : 1;
}

enum lora_status lora__pipeline_run(struct lora_plan *plan, struct lora_output *output,
				    bool digests, struct lora_error *err)
{
	struct pipeline p = {.plan = plan, .output = output, .digests = digests};
	enum lora_status status;

	p.workers = lora__merge_workers(plan);
	p.open_max = (jobs_at_once(plan, 2 * OPEN_MAX) + 1) / 2; /* one ends, the next begins */
	pthread_mutex_init(&p.lock, NULL);
	pthread_cond_init(&p.changed, NULL);
	lora__watch_init(&p.watch, plan->observer, any_restored(plan) ? "unmerge" : "merge",
			 plan->bytes);
	status = init_workers(&p, err);
	for (size_t f = 0; f < plan->file_count && !status; f++)
		status = init_stream(&p, f, err);
	if (!status)
		status = lora__parallel(jobs_at_once(plan, p.workers), plan->job_count, gain_work,
					&p, err);
	if (!status)
		status = lora__parallel(p.workers, p.workers, work, &p, err);
	if (!status && digests)
		finish_digests(&p);
	fini(&p);
	return status;
}
