/* SPDX-License-Identifier: Apache-2.0 */
/* store/unpack.c - a version's files, written to a new directory
 *
 * Every object is checked against its digest while it is written, every file against its own; the
 * directory gets its name when all of them were right. */
#include "store/engine.h"

#include "base/error.h"

#include <inttypes.h>
#include <loractl/container.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MANIFEST "manifest.json"

struct unpacking {
	const struct lora_store *store;
	struct lora_output *output;
	struct lora_watch *watch;
	struct lora_decoder decoder;
	struct lora_hasher *hasher; /* of the file */
	uint8_t *buffer;
	int fd;
	uint64_t at;
};

static enum lora_status write_chunk(void *user, uint64_t chunk, const uint8_t *bytes, size_t size,
				    struct lora_error *err)
{
	struct unpacking *u = user;
	enum lora_status status = lora__write_at(u->fd, "the output", u->at, bytes, size, err);

	(void)chunk;
	lora__hasher_update(u->hasher, bytes, size);
	u->at += size;
	return status ? status : lora__watch_add(u->watch, size, err);
}

static enum lora_status write_file(struct unpacking *u, const struct lora_manifest *m,
				   const struct lora_manifest_file *file, struct lora_error *err)
{
	struct lora_sha256 digest;
	enum lora_status status = lora__output_file(u->output, file->name, file->size, &u->fd, err);

	u->at = 0;
	lora__hasher_reset(u->hasher);
	for (size_t i = file->first; i < file->first + file->count && !status; i++)
		status = lora__object_verify(u->store, &u->decoder,
					     lora__object_find(u->store, &m->parts[i].digest),
					     u->buffer, write_chunk, u, err);
	lora__hasher_final(u->hasher, &digest);
	if (!status && !lora__sha256_equal(&digest, &file->digest))
		status = lora__fail(err, LORA_INPUT, "damaged: it does not have its digest");
	if (!status)
		status = lora__output_finish(u->output, u->fd, err);
	return lora__context(err, status, "'%s'", lora__escape(file->name));
}

static enum lora_status write_text(struct lora_output *output, const char *name, const char *text,
				   size_t size, struct lora_error *err)
{
	enum lora_status status;
	int fd = -1;

	status = lora__output_file(output, name, size, &fd, err);
	if (!status)
		status = lora__write_at(fd, name, 0, text, size, err);
	return status ? status : lora__output_finish(output, fd, err);
}

/* manifest.json, manifest.json.minisig, manifest.json.2.minisig, ... */
static enum lora_status write_manifest(const struct unpacking *u, size_t version,
				       struct lora_unpack_result *result, struct lora_error *err)
{
	enum lora_status status;
	char *text = NULL;
	size_t size, count = lora__store_note_count(u->store, version, LORA_RECORD_SIGNATURE);

	status = lora__store_manifest(u->store, version, &text, &size, err);
	if (!status)
		status = write_text(u->output, MANIFEST, text, size, err);
	free(text);
	for (size_t i = 0; i < count && !status; i++) {
		char name[64] = MANIFEST ".minisig";

		if (i > 0)
			snprintf(name, sizeof(name), MANIFEST ".%zu.minisig", i + 1);
		status = lora__store_note(u->store, version, LORA_RECORD_SIGNATURE, i, &text, &size,
					  err);
		if (!status)
			status = write_text(u->output, name, text, size, err);
		if (!status)
			free(text);
		text = NULL;
		result->signatures += !status;
	}
	return status;
}

static enum lora_status unpack(struct unpacking *u, const struct lora_snapshot *snapshot,
			       size_t version, bool manifest, struct lora_unpack_result *result,
			       struct lora_error *err)
{
	const struct lora_manifest *m = lora__snapshot_manifest(snapshot);
	enum lora_status status = lora__decoder_init(&u->decoder, lora__chunk_room(u->store), err);

	u->hasher = lora__hasher_new();
	u->buffer = malloc(lora__chunk_room(u->store));
	if (!status && !(u->hasher && u->buffer))
		status = lora__fail_memory(err);
	if (!status && manifest && lora__snapshot_find(snapshot, MANIFEST) != SIZE_MAX)
		status =
		    lora__fail(err, LORA_USAGE,
			       "the adapter has a file " MANIFEST " of its own: drop --manifest");
	for (size_t f = 0; f < m->file_count && !status; f++)
		status = write_file(u, m, &m->files[f], err);
	if (!status && manifest)
		status = write_manifest(u, version, result, err);
	*result =
	    (struct lora_unpack_result){m->version, m->bytes, m->file_count, result->signatures};
	lora__decoder_fini(&u->decoder);
	lora__hasher_free(u->hasher);
	free(u->buffer);
	return lora__context(err, status, "'%s': version %" PRIu64,
			     lora__escape(u->store->file.path), m->version);
}

static enum lora_status open_version(const char *reference, struct lora_store **store,
				     struct lora_snapshot **snapshot, size_t *version,
				     const struct lora_observer *observer, struct lora_error *err)
{
	uint64_t number = 0;
	char *path = NULL;
	enum lora_status status = lora__store_split(reference, &path, &number, err);

	if (!status)
		status = lora__store_open(store, path, observer, err);
	if (!status)
		status = lora__store_find(*store, number, version, err);
	if (!status)
		status = lora__snapshot_open(snapshot, *store, *version, err);
	free(path);
	return status;
}

enum lora_status lora_container_unpack(const char *reference, const char *directory,
				       const struct lora_unpack_options *options,
				       struct lora_unpack_result *result,
				       const struct lora_observer *observer, struct lora_error *err)
{
	struct unpacking u = {0};
	struct lora_store *store = NULL;
	struct lora_snapshot *snapshot = NULL;
	struct lora_watch watch;
	size_t version = 0;
	enum lora_status status =
	    open_version(reference, &store, &snapshot, &version, observer, err);

	*result = (struct lora_unpack_result){0};
	if (!status)
		status = lora__output_begin(&u.output, directory, true, false, err);
	if (!status) {
		lora__watch_init(&watch, observer, "unpack",
				 lora__snapshot_manifest(snapshot)->bytes);
		u.store = store;
		u.watch = &watch;
		status = unpack(&u, snapshot, version, options && options->manifest, result, err);
		lora__watch_fini(&watch);
	}
	if (!status)
		status = lora__output_commit(u.output, err);
	lora__output_free(u.output);
	lora__snapshot_close(snapshot);
	lora__store_close(store);
	return status;
}
