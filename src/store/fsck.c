/* SPDX-License-Identifier: Apache-2.0 */
/* store/fsck.c - is every byte of a container what it was when it was written?
 *
 *	groups		the body's digest of each commit covers every byte between commits
 *	versions	manifests, and that they are the children of one another
 *	files		decoded, against their digests; a safetensors head against the manifest
 *	objects		those that no file needed, too
 *	the end		a tail, or damage that hides commits
 *
 * 1. Everything is looked at, whatever was found before; each fault is one line.
 * 2. What has been found right is not decoded twice: an object once, a file that a version shares
 *    with the one before it once.
 * 3. Repair cuts off a tail, and nothing else: what is damaged cannot be made whole from itself.
 */
#include "store/engine.h"

#include "base/error.h"
#include "formats/container.h"

#include <dirent.h>
#include <errno.h>
#include <fnmatch.h>
#include <inttypes.h>
#include <loractl/container.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define PIECE ((size_t)64 << 10)

struct check {
	const struct lora_store *store;
	void (*problem)(void *user, const char *where, const char *what);
	void *user;
	struct lora_fsck_result *result;
	struct lora_watch *watch;
	struct lora_decoder decoder;
	struct lora_hasher *hasher;
	uint8_t *buffer; /* of a chunk, or a piece of a record: `room` bytes */
	size_t room;
	uint8_t *good; /* by object: 1 right, 2 wrong, 0 not looked at */
	uint8_t
	    *head; /* of the safetensors file that is being read; collected from its first part */
	size_t head_size, head_got;
};

static void complain(struct check *check, const char *what, const char *format, ...)
    LORA_PRINTF(3, 4);

static void complain(struct check *check, const char *what, const char *format, ...)
{
	char where[LORA_ERROR_SIZE];
	va_list list;

	va_start(list, format);
	vsnprintf(where, sizeof(where), format, list);
	va_end(list);
	check->result->problems++;
	if (check->problem)
		check->problem(check->user, where, what);
}

/* Faults of the input are problems; everything else stops the check. */
static enum lora_status absorb(struct check *check, enum lora_status status,
			       const struct lora_error *found, const char *where,
			       struct lora_error *err)
{
	if (status == LORA_INPUT) {
		complain(check, found->message, "%s", where);
		return LORA_OK;
	}
	if (status && err)
		*err = *found;
	return status;
}

/* --- groups ---------------------------------------------------------------------------------- */

/* A record's payload with its zeros, then its header, into the hasher. */
static enum lora_status hash_record(struct check *check, uint64_t at, const uint8_t *head,
				    uint64_t size, struct lora_error *err)
{
	uint64_t end = at + LORA_RECORD_HEAD + size + lora__record_padding(size);
	enum lora_status status = LORA_OK;

	for (uint64_t from = at + LORA_RECORD_HEAD; from < end && !status;) {
		size_t n = end - from < check->room ? (size_t)(end - from) : check->room;

		status = lora__file_read(&check->store->file, from, check->buffer, n, err);
		if (!status)
			lora__hasher_update(check->hasher, check->buffer, n);
		if (!status)
			status = lora__watch_add(check->watch, n, err);
		from += n;
	}
	lora__hasher_update(check->hasher, head, LORA_RECORD_HEAD);
	return status;
}

static enum lora_status check_groups(struct check *check, struct lora_error *err)
{
	const struct lora_store *store = check->store;
	uint64_t at = LORA_SUPERBLOCK_SIZE;
	enum lora_status status = LORA_OK;
	struct lora_sha256 body;

	lora__hasher_reset(check->hasher);
	while (at < store->end && !status) {
		uint8_t bytes[LORA_COMMIT_SIZE];
		struct lora_record record = {0};
		struct lora_commit commit;

		status = lora__file_read(&store->file, at, bytes, LORA_RECORD_HEAD, err);
		if (!status && !lora__record_parse(&record, bytes))
			return lora__fail(err, LORA_INPUT, "'%s' changed while it was read",
					  lora__escape(store->file.path));
		if (status)
			break;
		if (record.type != LORA_RECORD_COMMIT) {
			status = hash_record(check, at, bytes, record.size, err);
			at += LORA_RECORD_HEAD + record.size + lora__record_padding(record.size);
			continue;
		}
		status = lora__file_read(&store->file, at, bytes, sizeof(bytes), err);
		lora__hasher_final(check->hasher, &body);
		lora__hasher_reset(check->hasher);
		if (!status && (!lora__commit_parse(&commit, bytes, at) ||
				!lora__sha256_equal(&commit.body, &body)))
			complain(check, "damaged: the bytes do not have the digest of their commit",
				 "the group that ends at %" PRIu64, at);
		at += LORA_COMMIT_SIZE;
	}
	return status;
}

/* --- files ----------------------------------------------------------------------------------- */

static enum lora_status take_chunk(void *user, uint64_t chunk, const uint8_t *bytes, size_t size,
				   struct lora_error *err)
{
	struct check *check = user;
	size_t want = check->head_size - check->head_got, n = size < want ? size : want;

	(void)chunk;
	lora__hasher_update(check->hasher, bytes, size);
	if (n)
		memcpy(check->head + check->head_got, bytes, n);
	check->head_got += n;
	return lora__watch_add(check->watch, size, err);
}

/* Does the head of a safetensors file describe the parts that the manifest lists? */
static enum lora_status compare_head(const struct check *check, const struct lora_manifest *m,
				     const struct lora_manifest_file *file, struct lora_error *err)
{
	struct lora_index index = {0};
	uint64_t at = check->head_size;
	enum lora_status status =
	    lora__safetensors.parse(&index, check->head, check->head_size, file->size, err);
	size_t part = file->first + 1, end = file->first + file->count;

	for (size_t i = 0; i < index.count && !status; i++) {
		const struct lora_tensor *t = &index.tensors[i];
		const struct lora_manifest_part *p = &m->parts[part < end ? part : end - 1];

		if (t->size == 0)
			continue;
		if (part >= end || !p->tensor || strcmp(p->tensor, t->name) != 0 ||
		    p->dtype != t->dtype || p->ndim != t->ndim || p->size != t->size ||
		    t->begin != at || memcmp(p->shape, t->shape, t->ndim * sizeof(*t->shape)) != 0)
			status =
			    lora__fail(err, LORA_INPUT, "tensor '%s' is not what the manifest says",
				       lora__escape(t->name));
		at += t->size;
		part++;
	}
	if (!status && part != end)
		status = lora__fail(err, LORA_INPUT,
				    "the manifest lists tensors that the file does not have");
	lora__index_fini(&index);
	return status;
}

static bool has_tensors(const struct lora_manifest *m, const struct lora_manifest_file *file)
{
	for (size_t i = file->first; i < file->first + file->count; i++)
		if (m->parts[i].tensor)
			return true;
	return false;
}

static enum lora_status read_file(struct check *check, const struct lora_manifest *m,
				  const struct lora_manifest_file *file, struct lora_error *err)
{
	bool tensors = has_tensors(m, file);
	const struct lora_manifest_part *first = &m->parts[file->first];
	struct lora_sha256 digest;
	enum lora_status status = LORA_OK;

	if (tensors && (first->tensor || first->size > LORA_HEADER_LIMIT + 8))
		return lora__fail(err, LORA_INPUT, "the manifest lists tensors without a head");
	check->head_size = tensors ? (size_t)first->size : 0;
	check->head_got = 0;
	free(check->head);
	check->head = malloc(check->head_size + 1);
	if (!check->head)
		return lora__fail_memory(err);
	lora__hasher_reset(check->hasher);
	for (size_t i = file->first; i < file->first + file->count && !status; i++) {
		uint32_t number = lora__object_find(check->store, &m->parts[i].digest);

		if (check->good[number] == 2)
			return lora__fail(err, LORA_INPUT, "it needs an object that is damaged");
		status = lora__object_verify(check->store, &check->decoder, number, check->buffer,
					     take_chunk, check, err);
		check->good[number] = status == LORA_OK ? 1 : status == LORA_INPUT ? 2 : 0;
	}
	lora__hasher_final(check->hasher, &digest);
	if (!status && !lora__sha256_equal(&digest, &file->digest))
		status = lora__fail(err, LORA_INPUT, "it does not have its digest");
	if (!status && tensors)
		status = compare_head(check, m, file, err);
	return status;
}

/* Invariant 2. */
static bool is_shared(const struct lora_manifest *m, const struct lora_manifest_file *file,
		      const struct lora_snapshot *before)
{
	const struct lora_manifest *other = before ? lora__snapshot_manifest(before) : NULL;
	size_t f = other ? lora__snapshot_find(before, file->name) : SIZE_MAX;

	if (f == SIZE_MAX || other->files[f].count != file->count ||
	    !lora__sha256_equal(&other->files[f].digest, &file->digest))
		return false;
	for (size_t i = 0; i < file->count; i++) {
		const struct lora_manifest_part *x = &m->parts[file->first + i],
						*y = &other->parts[other->files[f].first + i];

		if (!lora__sha256_equal(&x->digest, &y->digest) || !x->tensor != !y->tensor ||
		    (x->tensor && (strcmp(x->tensor, y->tensor) != 0 || x->dtype != y->dtype ||
				   x->ndim != y->ndim ||
				   memcmp(x->shape, y->shape, x->ndim * sizeof(*x->shape)) != 0)))
			return false;
	}
	return true;
}

static enum lora_status check_versions(struct check *check, struct lora_error *err)
{
	struct lora_snapshot *before = NULL, *snapshot = NULL;
	enum lora_status status = LORA_OK;

	for (size_t v = 0; v < check->store->version_count && !status; v++) {
		struct lora_error found = LORA_ERROR_INIT;
		char where[64 + LORA_ERROR_SIZE];

		lora__snapshot_close(before);
		before = snapshot;
		snapshot = NULL;
		snprintf(where, sizeof(where), "version %" PRIu64,
			 check->store->versions[v].number);
		status = lora__snapshot_open(&snapshot, check->store, v, &found);
		status = absorb(check, status, &found, where, err);
		for (size_t f = 0; snapshot && !status; f++) {
			const struct lora_manifest *m = lora__snapshot_manifest(snapshot);

			if (f == m->file_count)
				break;
			if (is_shared(m, &m->files[f], before))
				continue;
			snprintf(where, sizeof(where), "version %" PRIu64 ", '%s'", m->version,
				 lora__escape(m->files[f].name));
			status = read_file(check, m, &m->files[f], &found);
			status = absorb(check, status, &found, where, err);
		}
		check->result->versions += snapshot != NULL;
	}
	lora__snapshot_close(before);
	lora__snapshot_close(snapshot);
	return status;
}

static enum lora_status check_objects(struct check *check, struct lora_error *err)
{
	enum lora_status status = LORA_OK;

	for (uint32_t i = 0; i < check->store->object_count && !status; i++) {
		struct lora_error found = LORA_ERROR_INIT;
		char where[32];

		if (check->good[i])
			continue;
		snprintf(where, sizeof(where), "object %" PRIu32, i);
		status = lora__object_verify(check->store, &check->decoder, i, check->buffer, NULL,
					     NULL, &found);
		status = absorb(check, status, &found, where, err);
	}
	return status;
}

/* --- the end --------------------------------------------------------------------------------- */

static void check_end(struct check *check)
{
	const struct lora_store *store = check->store;
	size_t before = check->result->problems;

	if (store->hidden)
		complain(check,
			 store->problem.message[0]
			     ? store->problem.message
			     : "damaged: it hides what was committed behind it",
			 "bytes %" PRIu64 " to %" PRIu64, store->end, store->hidden);
	else if (store->file.size > store->end)
		complain(check, "an append that was not finished", "bytes %" PRIu64 " to %" PRIu64,
			 store->end, store->file.size);
	check->result->repairable = before == 0 && check->result->problems == 1 && !store->hidden;
}

static enum lora_status check_store(struct check *check, struct lora_error *err)
{
	enum lora_status status =
	    lora__decoder_init(&check->decoder, lora__chunk_room(check->store), err);

	check->hasher = lora__hasher_new();
	check->room = lora__chunk_room(check->store);
	if (check->room < PIECE)
		check->room = PIECE;
	check->buffer = malloc(check->room);
	check->good = calloc(check->store->object_count + 1, 1);
	if (!status && !(check->hasher && check->buffer && check->good))
		status = lora__fail_memory(err);
	if (!status)
		status = check_groups(check, err);
	if (!status)
		status = check_versions(check, err);
	if (!status)
		status = check_objects(check, err);
	if (!status)
		check_end(check);
	lora__decoder_fini(&check->decoder);
	lora__hasher_free(check->hasher);
	free(check->buffer);
	free(check->good);
	free(check->head);
	return status;
}

/* Opening a writer cuts off the tail, if it is one. */
static enum lora_status repair(const char *path, struct lora_error *err)
{
	struct lora_writer writer;
	enum lora_status status = lora__writer_open(&writer, path, NULL, err);

	if (!status && fdatasync(writer.fd) != 0)
		status = lora__fail_system(err, "cannot sync '%s'", lora__escape(path));
	lora__writer_close(&writer);
	return status;
}

/* A file with the magic whose superblock is damaged is a damaged container, not a stranger. */
static bool is_damaged_superblock(const char *path)
{
	struct lora_file file = LORA_FILE_INIT;
	uint8_t bytes[LORA_SUPERBLOCK_SIZE];
	struct lora_sha256 digest;
	bool damaged = false;

	if (lora_container_is(path) && lora__file_open(&file, path, NULL) == LORA_OK) {
		damaged = file.size < sizeof(bytes) ||
			  lora__file_read(&file, 0, bytes, sizeof(bytes), NULL) != LORA_OK;
		if (!damaged) {
			lora__sha256(bytes, 32, &digest);
			damaged = memcmp(bytes + 32, digest.byte, 32) != 0;
		}
	}
	lora__file_close(&file);
	return damaged;
}

static enum lora_status fsck_file(struct check *check, const char *path, bool mend,
				  const struct lora_observer *observer, struct lora_error *err)
{
	struct lora_store *store = NULL;
	struct lora_error found = LORA_ERROR_INIT;
	struct lora_watch watch;
	enum lora_status status = lora__store_open(&store, path, NULL, &found);

	if (status == LORA_INPUT && is_damaged_superblock(path)) {
		complain(check, "damaged: the superblock does not have its digest", "bytes 0 to %u",
			 LORA_SUPERBLOCK_SIZE);
		return LORA_NO;
	}
	if (status) {
		if (err)
			*err = found;
		return status;
	}
	lora__watch_init(&watch, observer, "check", store->end + store->object_bytes);
	check->store = store;
	check->watch = &watch;
	status = check_store(check, err);
	lora__watch_fini(&watch);
	lora__store_close(store);
	if (status)
		return status;
	check->result->ok = check->result->problems == 0;
	if (!check->result->ok && check->result->repairable && mend) {
		status = repair(path, err);
		check->result->ok = status == LORA_OK;
	}
	return status ? status : check->result->ok ? LORA_OK : LORA_NO;
}

/* --- directories ----------------------------------------------------------------------------- */

static enum lora_status fsck_directory(struct check *check, const char *path,
				       struct lora_error *err)
{
	DIR *dir = opendir(path);
	struct dirent *entry;

	if (!dir)
		return lora__fail_errno(err, "cannot list '%s'", lora__escape(path));
	for (errno = 0; (entry = readdir(dir)) != NULL; errno = 0)
		if (fnmatch(".*.loractl-??????", entry->d_name, 0) == 0)
			complain(check,
				 "left by a program that was killed: remove it, unless a loractl "
				 "is writing there now",
				 "%s", lora__escape(entry->d_name));
	if (errno) {
		closedir(dir);
		return lora__fail_system(err, "cannot list '%s'", lora__escape(path));
	}
	closedir(dir);
	check->result->ok = check->result->problems == 0;
	return check->result->ok ? LORA_OK : LORA_NO;
}

enum lora_status lora_container_fsck(const char *path, bool repair_it,
				     void (*problem)(void *user, const char *where,
						     const char *what),
				     void *user, struct lora_fsck_result *result,
				     const struct lora_observer *observer, struct lora_error *err)
{
	struct check check = {.problem = problem, .user = user, .result = result};
	enum lora_path_kind kind = LORA_PATH_ABSENT;
	enum lora_status status = lora__path_kind(path, &kind, err);

	*result = (struct lora_fsck_result){0};
	if (status)
		return status;
	if (kind == LORA_PATH_DIRECTORY)
		status = fsck_directory(&check, path, err);
	else
		status = fsck_file(&check, path, repair_it, observer, err);
	if (status == LORA_NO)
		lora__fail(err, LORA_NO, "'%s' is damaged", lora__escape(path));
	return status;
}
