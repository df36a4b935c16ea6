/* SPDX-License-Identifier: Apache-2.0 */
/* merge/pipeline.c - blocks through workers: read, compute, write, hash.
 *
 *	file 0:  head | block 0 | block 1 | ...      cut from the items in order, at most
 *LORA_PARCEL_SIZE bytes each file 1:  ...
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
#include "merge/parcel.h"
#include "merge/undo_write.h"

#include <stdlib.h>
#include <string.h>

#define OPEN_MAX    8u		/* files under way; as many descriptors */
#define FACTOR_ROOM (64u << 20) /* bytes for the factors of all files under way */

enum { FILE_LANE, TENSOR_LANE, BASE_LANE, LANES };

struct block {
	struct lora_parcel parcel;
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
	struct lora_maker *makers; /* by worker */
	struct lora_watch watch;
	pthread_mutex_t lock;
	pthread_cond_t changed;
	bool failed;
};

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
	block->parcel.item = item;
	block->parcel.offset = stream->offset;
	block->parcel.size = (size_t)lora__parcel_size(item, stream->offset, stream->chunk);
	if (item->job && item->job->chunk_count)
		block->parcel.chunk = item->job->chunks[stream->chunk++];
	block->parcel.last = block->parcel.offset + block->parcel.size == item->size;
	block->lanes_left = p->lanes;
	memset(&block->parcel.stats, 0, sizeof(block->parcel.stats));
	stream->offset += block->parcel.size;
	if (block->parcel.last) {
		stream->item++;
		stream->offset = 0;
		stream->chunk = 0;
	}
	return block;
}

/* What was read for a block of the way back; NULL: nothing. */
static const uint8_t *bytes_read(const struct block *block, size_t *size)
{
	const struct lora_job *job = block->parcel.item->job;

	*size = block->parcel.size;
	if (!job)
		return block->parcel.data;
	if (job->source == LORA_NO_TENSOR)
		return NULL;
	*size = block->parcel.size / (lora_dtype_bits(job->out_type) / 8) *
		(lora_dtype_bits(job->in_type) / 8);
	return block->parcel.input;
}

/* The bytes of an item pass: those of the merged tensor, written or, on the way back, read. */
static enum lora_status hash_tensor(struct lane *lane, struct block *block, struct lora_error *err)
{
	struct lora_item *item = block->parcel.item;
	size_t size = block->parcel.size;
	const uint8_t *bytes = item->expected ? bytes_read(block, &size)
			       : item->job    ? block->parcel.data
					      : NULL;

	if (!bytes)
		return LORA_OK;
	if (block->parcel.offset == 0)
		lora__hasher_reset(lane->hasher);
	lora__hasher_update(lane->hasher, bytes, size);
	if (!block->parcel.last)
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
	struct lora_item *item = block->parcel.item;

	if (!item->job)
		return;
	if (block->parcel.offset == 0)
		lora__hasher_reset(lane->hasher);
	lora__hasher_update(lane->hasher, block->parcel.data, block->parcel.size);
	if (block->parcel.last)
		lora__hasher_final(lane->hasher, &item->restored);
}

/* What the tensor lane does with a block. Only one worker at a time is in a lane. */
static enum lora_status pass_tensor_lane(struct pipeline *p, struct stream *stream,
					 struct lane *lane, struct block *block,
					 struct lora_error *err)
{
	struct lora_job *job = block->parcel.item->job;
	enum lora_status status = LORA_OK;

	if (p->digests)
		status = hash_tensor(lane, block, err);
	if (!job)
		return status;
	lora__stats_add(&job->stats, &block->parcel.stats);
	if (!status && lora__undo_wants(p->plan, block->parcel.item))
		status = lora__undo_chunk(p->plan->undo, (size_t)(stream - p->streams), job,
					  block->parcel.chunk, block->parcel.residual, err);
	if (block->parcel.last)
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
		lora__hasher_update(lane->hasher, block->parcel.data, block->parcel.size);
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
	status = lora__parcel_make(&block->parcel, &p->makers[worker], stream->file, err);
	if (!status)
		status = lora__watch_add(&p->watch, block->parcel.size, err);
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

static enum lora_status init_blocks(struct pipeline *p, struct lora_error *err)
{
	size_t each = any_restored(p->plan) ? 2 * LORA_PARCEL_SIZE : LORA_PARCEL_SIZE;

	p->block_count = 2 * (size_t)p->workers + 6;
	p->blocks = calloc(p->block_count, sizeof(*p->blocks));
	p->memory = aligned_alloc(64, p->block_count * each);
	if (!p->blocks || !p->memory)
		return lora__fail_memory(err);
	for (size_t b = 0; b < p->block_count; b++) {
		struct lora_parcel *parcel = &p->blocks[b].parcel;

		parcel->data = p->memory + b * each;
		if (any_restored(p->plan))
			parcel->input = parcel->data + LORA_PARCEL_SIZE;
		if (p->plan->undo)
			parcel->residual = malloc(LORA_PARCEL_SIZE + LORA_CHUNK_OVERHEAD);
		if (p->plan->undo && !parcel->residual)
			return lora__fail_memory(err);
		p->blocks[b].next = p->free_block;
		p->free_block = &p->blocks[b];
	}
	return LORA_OK;
}

static enum lora_status init_workers(struct pipeline *p, struct lora_error *err)
{
	enum lora_status status;

	p->lanes = p->plan->record ? LANES : BASE_LANE;
	p->makers = calloc(p->workers, sizeof(*p->makers));
	p->streams = calloc(p->plan->file_count, sizeof(*p->streams));
	if (!p->makers || !p->streams)
		return lora__fail_memory(err);
	status = init_blocks(p, err);
	for (unsigned w = 0; w < p->workers && !status; w++)
		status = lora__maker_init(&p->makers[w], p->plan, p->digests, err);
	return status;
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
		status = lora__job_gain(p->plan, job, &p->makers[worker].scratch, err);
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
	for (unsigned w = 0; p->makers && w < p->workers; w++)
		lora__maker_fini(&p->makers[w]);
	for (size_t b = 0; p->blocks && b < p->block_count; b++)
		free(p->blocks[b].parcel.residual);
	free(p->blocks);
	free(p->memory);
	free(p->makers);
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
