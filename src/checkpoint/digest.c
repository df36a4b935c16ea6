/* SPDX-License-Identifier: Apache-2.0 */
/* checkpoint/digest.c - hashing a model: every byte is read once and hashed twice
 *
 * What it is     SHA-256 of every file and of every tensor. A file's hash takes its bytes in order,
 *on one thread at a time; so do its tensors', taken together. These are two chains for each file,
 *and a third one feeds them:
 *
 *		read ---> [block] [block] [block] ---> file's hash		(all bytes)
 *		                              '-----> tensors' hashes		(all but the head)
 *
 *	A chain's next step is a task. Workers take whatever task is ready, of any file, so that one
 *file keeps two threads busy (three, with a slow disk) and many files keep many.
 *
 * Invariants     (1) Blocks of one file are read, and enter each of its two hashes, in order. (2) A
 *                block is used again when both have seen it. (3) Blocks are BLOCKS at most,
 *whatever the number of files and threads. (4) A worker waits only while another one works: some
 *task is ready, or running, as long as a file is unfinished. For if no block is free, all are full,
 *and the oldest of each file can be hashed. So one thread is enough. (5) The digests do not depend
 *on the number of threads. Decisions      Hashing comes before reading, except that a second block
 *is read ahead: with two threads on one file neither waits for the disk while the other has nothing
 *to hash. The failure that is reported is the one in the lowest file that failed. Tested by
 *tests/unit/test_model.c, against a computation in Python
 */
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "base/digest.h"
#include "base/error.h"
#include "base/pool.h"
#include "base/watch.h"
#include "checkpoint/checkpoint.h"

#define BLOCK                                                                                      \
	((size_t)1 << 20) /* bytes: half a millisecond of hashing, so that the lock is idle        \
			   */
#define BLOCKS 28u	  /* 28 MiB: two for each of 14 threads */
#define RING   8u	  /* blocks of one file in flight */
#define AHEAD  2u	  /* blocks that are read before hashing goes on */

struct block {
	uint8_t *bytes; /* BLOCK of them */
	uint64_t offset;
	size_t size;
};

/* One file. The three counters number its blocks; a block's place in the ring is its number mod
 * RING. */
struct stream {
	struct lora_shard *shard;
	struct block *ring[RING];
	uint64_t blocks;			 /* of the whole file */
	uint64_t read, hashed, tensors_hashed;	 /* blocks that are through */
	bool reading, hashing, tensors_hashing;	 /* a worker is at the next one */
	struct lora_hasher *whole, *tensor_hash; /* of the file; of the current tensor */
	size_t tensor, tensor_end; /* the current tensor, and behind the file's last */
};

struct job {
	struct lora_model *model;
	struct lora_watch watch;
	pthread_mutex_t lock;
	pthread_cond_t news; /* a task ended */
	struct stream *streams;
	size_t count;
	struct block blocks[BLOCKS];
	struct block *free[BLOCKS];
	unsigned free_count;
	size_t failed; /* the lowest file that failed, if status is not LORA_OK */
	enum lora_status status;
	struct lora_error error;
};

enum task { NOTHING, READ, HASH, HASH_TENSORS };

/* --- tasks --------------------------------------------------------------------------------------
 */

static enum lora_status read_block(struct stream *stream, struct block *block,
				   struct lora_error *err)
{
	uint64_t left = stream->shard->file.size - stream->read * BLOCK;

	block->offset = stream->read * BLOCK;
	block->size = left < BLOCK ? (size_t)left : BLOCK;
	return lora__shard_read(stream->shard, block->offset, block->bytes, block->size, err);
}

static void next_tensor(struct lora_model *model, struct stream *stream)
{
	lora__hasher_final(stream->tensor_hash, &model->tensor_sha256[stream->tensor++]);
	lora__hasher_reset(stream->tensor_hash);
}

/* The parts of tensors that the block holds: they stand in order and do not overlap. */
static void hash_tensors(struct lora_model *model, struct stream *stream, const struct block *block)
{
	uint64_t end = block->offset + block->size;

	while (stream->tensor < stream->tensor_end) {
		const struct lora_tensor *tensor = &model->index.tensors[stream->tensor];
		uint64_t last = tensor->begin + tensor->size;
		uint64_t from = tensor->begin > block->offset ? tensor->begin : block->offset;
		uint64_t to = last < end ? last : end;

		if (from < to)
			lora__hasher_update(stream->tensor_hash,
					    block->bytes + (from - block->offset),
					    (size_t)(to - from));
		if (last > end)
			return;
		next_tensor(model, stream);
	}
}

static enum lora_status run_task(struct job *job, struct stream *stream, enum task task,
				 struct block *block, struct lora_error *err)
{
	switch (task) {
	case READ:
		return read_block(stream, block, err);
	case HASH:
		lora__hasher_update(stream->whole, block->bytes, block->size);
		return lora__watch_add(&job->watch, block->size, err);
	default:
		hash_tensors(job->model, stream, block);
		return LORA_OK;
	}
}

/* --- who does what; the caller holds the lock ---------------------------------------------------
 */

static uint64_t smaller(uint64_t a, uint64_t b)
{
	return a < b ? a : b;
}

static bool finished(const struct stream *stream)
{
	return smaller(stream->hashed, stream->tensors_hashed) == stream->blocks;
}

static bool can_read(const struct job *job, const struct stream *stream)
{
	return !stream->reading && stream->read < stream->blocks && job->free_count > 0 &&
	       stream->read - smaller(stream->hashed, stream->tensors_hashed) < RING;
}

/* The stream's most urgent task. */
static enum task pick_of(const struct job *job, const struct stream *stream)
{
	uint64_t seen =
	    stream->hashed > stream->tensors_hashed ? stream->hashed : stream->tensors_hashed;

	if (can_read(job, stream) && stream->read - seen < AHEAD)
		return READ;
	if (!stream->tensors_hashing && stream->tensors_hashed < stream->read)
		return HASH_TENSORS;
	if (!stream->hashing && stream->hashed < stream->read)
		return HASH;
	return can_read(job, stream) ? READ : NOTHING;
}

/* Takes a task and the block it works on. False if nothing is left to do at all. */
static bool take(struct job *job, struct stream **stream, enum task *task, struct block **block)
{
	bool unfinished = false;

	*task = NOTHING;
	if (job->status != LORA_OK)
		return false;
	for (size_t i = 0; i < job->count && *task == NOTHING; i++) {
		*stream = &job->streams[i];
		if (finished(*stream))
			continue;
		unfinished = true;
		*task = pick_of(job, *stream);
	}
	switch (*task) {
	case NOTHING:
		return unfinished;
	case READ:
		*block = job->free[--job->free_count];
		(*stream)->ring[(*stream)->read % RING] = *block;
		(*stream)->reading = true;
		break;
	case HASH:
		*block = (*stream)->ring[(*stream)->hashed % RING];
		(*stream)->hashing = true;
		break;
	case HASH_TENSORS:
		*block = (*stream)->ring[(*stream)->tensors_hashed % RING];
		(*stream)->tensors_hashing = true;
		break;
	}
	return true;
}

static void end_task(struct job *job, struct stream *stream, enum task task, struct block *block)
{
	uint64_t before = smaller(stream->hashed, stream->tensors_hashed);

	if (task == READ) {
		stream->reading = false;
		stream->read++;
	} else if (task == HASH) {
		stream->hashing = false;
		stream->hashed++;
	} else {
		stream->tensors_hashing = false;
		stream->tensors_hashed++;
	}
	if (smaller(stream->hashed, stream->tensors_hashed) > before) /* [2] */
		job->free[job->free_count++] = block;
}

static void fail(struct job *job, const struct stream *stream, enum lora_status status,
		 const struct lora_error *error)
{
	size_t file = (size_t)(stream - job->streams);

	if (job->status == LORA_OK || file < job->failed) {
		job->failed = file;
		job->status = status;
		job->error = *error;
	}
}

/* One worker, until nothing is left; `item` and `worker` do not matter. */
static enum lora_status work(void *user, size_t item, unsigned worker, struct lora_error *err)
{
	struct job *job = user;
	struct stream *stream = NULL;
	struct block *block = NULL;
	enum task task;

	(void)item;
	(void)worker;
	(void)pthread_mutex_lock(&job->lock);
	while (take(job, &stream, &task, &block)) {
		enum lora_status status = LORA_OK;

		if (task == NOTHING) { /* [4] */
			(void)pthread_cond_wait(&job->news, &job->lock);
			continue;
		}
		(void)pthread_mutex_unlock(&job->lock);
		status = run_task(job, stream, task, block, err);
		(void)pthread_mutex_lock(&job->lock);
		end_task(job, stream, task, block);
		if (status != LORA_OK)
			fail(job, stream, status, err);
		(void)pthread_cond_broadcast(&job->news);
	}
	(void)pthread_mutex_unlock(&job->lock);
	return LORA_OK;
}

/* --- the job ------------------------------------------------------------------------------------
 */

static enum lora_status prepare(struct job *job, struct lora_error *err)
{
	struct lora_model *model = job->model;
	size_t tensor = 0;

	job->streams = calloc(job->count + 1, sizeof(*job->streams));
	if (!job->streams)
		return lora__fail_memory(err);
	for (size_t i = 0; i < job->count; i++) {
		struct stream *stream = &job->streams[i];

		stream->shard = &model->shards[i];
		stream->blocks = (stream->shard->file.size + BLOCK - 1) / BLOCK;
		stream->whole = lora__hasher_new();
		stream->tensor_hash = lora__hasher_new();
		if (!stream->whole || !stream->tensor_hash)
			return lora__fail_memory(err);
		stream->tensor = tensor;
		while (tensor < model->index.count && model->index.tensors[tensor].file == i)
			tensor++;
		stream->tensor_end = tensor;
	}
	for (unsigned i = 0; i < BLOCKS; i++) { /* untouched memory costs nothing */
		job->blocks[i].bytes = malloc(BLOCK);
		if (!job->blocks[i].bytes)
			return lora__fail_memory(err);
		job->free[job->free_count++] = &job->blocks[i];
	}
	return LORA_OK;
}

static void release(struct job *job)
{
	for (size_t i = 0; job->streams && i < job->count; i++) {
		lora__hasher_free(job->streams[i].whole);
		lora__hasher_free(job->streams[i].tensor_hash);
	}
	free(job->streams);
	for (unsigned i = 0; i < BLOCKS; i++)
		free(job->blocks[i].bytes);
}

static uint64_t total_size(const struct lora_model *model)
{
	uint64_t total = 0;

	for (size_t i = 0; i < model->shard_count; i++)
		total += model->shards[i].file.size;
	return total;
}

static enum lora_status hash_files(struct lora_model *model, unsigned threads,
				   const struct lora_observer *observer, struct lora_error *err)
{
	struct job job = {.model = model, .count = model->shard_count};
	enum lora_status status = LORA_OK;

	lora__watch_init(&job.watch, observer, "hash base", total_size(model));
	(void)pthread_mutex_init(&job.lock, NULL);
	(void)pthread_cond_init(&job.news, NULL);
	if (threads == 0)
		threads = lora__cores();
	if (threads > 3 * job.count) /* a file has three chains */
		threads = (unsigned)(3 * job.count);
	status = prepare(&job, err);
	if (status == LORA_OK)
		status = lora__parallel(threads, threads, work, &job, err);
	if (status == LORA_OK && job.status != LORA_OK) {
		status = job.status;
		if (err)
			*err = job.error;
	}
	for (size_t i = 0; i < job.count && status == LORA_OK; i++)
		lora__hasher_final(job.streams[i].whole, &model->shards[i].sha256);
	release(&job);
	(void)pthread_cond_destroy(&job.news);
	(void)pthread_mutex_destroy(&job.lock);
	lora__watch_fini(&job.watch);
	return status;
}

enum lora_status lora_model_digest(struct lora_model *model, enum lora_digest_policy policy,
				   unsigned threads, const struct lora_observer *observer,
				   struct lora_error *err)
{
	bool cached = false;
	enum lora_status status = LORA_OK;

	if (model->digests_known && (policy == LORA_DIGEST_CACHED || !model->digests_cached))
		return lora__model_unchanged(model, err);
	model->digests_known = false;
	if (!model->tensor_sha256)
		model->tensor_sha256 =
		    calloc(model->index.count + 1, sizeof(*model->tensor_sha256));
	if (!model->tensor_sha256)
		return lora__fail_memory(err);
	cached = policy == LORA_DIGEST_CACHED && lora__digest_cache_load(model);
	if (!cached)
		status = hash_files(model, threads, observer, err);
	if (status == LORA_OK)
		status = lora__model_unchanged(model, err);
	if (status == LORA_OK)
		status = lora__model_root(model, err);
	if (status != LORA_OK)
		return status;
	model->digests_known = true;
	model->digests_cached = cached;
	if (policy == LORA_DIGEST_CACHED && !cached)
		lora__digest_cache_store(model);
	return LORA_OK;
}
