/* SPDX-License-Identifier: Apache-2.0 */
/* store/store.c - an open container, and what can be asked of it. */
#include "store/engine.h"

#include "base/error.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>

/* Is somebody writing to it at this moment? Then a tail is nothing to talk about. */
static bool is_being_written(const struct lora_store *store)
{
	if (flock(store->file.fd, LOCK_SH | LOCK_NB) != 0)
		return errno == EWOULDBLOCK;
	(void)flock(store->file.fd, LOCK_UN);
	return false;
}

enum lora_status lora__store_open(struct lora_store **out, const char *path,
				  const struct lora_observer *observer, struct lora_error *err)
{
	struct lora_store *store = calloc(1, sizeof(*store));
	enum lora_status status;

	*out = NULL;
	if (!store)
		return lora__fail_memory(err);
	store->file = (struct lora_file)LORA_FILE_INIT;
	status = lora__file_open(&store->file, path, err);
	if (!status) {
		status = lora__store_walk(store, err);
		lora__context(err, status, "'%s'", lora__escape(path));
	}
	if (status) {
		lora__store_close(store);
		return status;
	}
	if (store->file.size > store->end && !store->hidden && !is_being_written(store))
		lora__note(observer, LORA_NOTE_WARNING,
			   "'%s': %" PRIu64
			   " bytes at its end are an append that was not finished, "
			   "and are ignored (`loractl fsck --repair` cuts them off)",
			   lora__escape(path), store->file.size - store->end);
	*out = store;
	return LORA_OK;
}

void lora__store_close(struct lora_store *store)
{
	if (!store)
		return;
	lora__store_clear(store);
	lora__file_close(&store->file);
	free(store);
}

const char *lora__store_path(const struct lora_store *store)
{
	return store->file.path;
}

uint64_t lora__store_size(const struct lora_store *store)
{
	return store->file.size;
}

size_t lora__store_count(const struct lora_store *store)
{
	return store->version_count;
}

uint64_t lora__store_number(const struct lora_store *store, size_t version)
{
	return store->versions[version].number;
}

const struct lora_sha256 *lora__store_digest(const struct lora_store *store, size_t version)
{
	return &store->versions[version].digest;
}

enum lora_status lora__store_find(const struct lora_store *store, uint64_t number, size_t *version,
				  struct lora_error *err)
{
	const struct lora_version *first = store->versions;
	size_t count = store->version_count;

	*version = 0;
	if (number == 0 && store->hidden)
		return lora__context(err, lora__store_complain(store, err), "'%s'",
				     lora__escape(store->file.path));
	if (count == 0)
		return lora__fail(err, LORA_INPUT, "'%s' has no version: `loractl pack` adds one",
				  lora__escape(store->file.path));
	if (number == 0)
		number = first[count - 1].number;
	if (number < first->number || number - first->number >= count)
		return lora__fail(err, LORA_INPUT,
				  "'%s' has no version %" PRIu64 ": it has %" PRIu64 " to %" PRIu64,
				  lora__escape(store->file.path), number, first->number,
				  first[count - 1].number);
	*version = (size_t)(number - first->number);
	return LORA_OK;
}

/* --- manifests ------------------------------------------------------------------------------- */

static enum lora_status unpack_manifest(const struct lora_version *version, const uint8_t *stored,
					char *bytes, struct lora_error *err)
{
	size_t size = (size_t)version->manifest_size;
	struct lora_codec *codec;
	enum lora_status status;

	if (version->stored_size == version->manifest_size) {
		memcpy(bytes, stored, size);
		return LORA_OK;
	}
	codec = lora__codec_new();
	status = codec ? lora__frame_unpack(codec, stored, (size_t)version->stored_size, bytes,
					    size, err)
		       : lora__fail_memory(err);
	lora__codec_free(codec);
	return status;
}

enum lora_status lora__store_manifest(const struct lora_store *store, size_t version, char **bytes,
				      size_t *size, struct lora_error *err)
{
	const struct lora_version *v = &store->versions[version];
	uint8_t *stored = malloc((size_t)v->stored_size);
	char *text = malloc((size_t)v->manifest_size + 1);
	struct lora_sha256 digest;
	enum lora_status status = stored && text ? LORA_OK : lora__fail_memory(err);

	*bytes = NULL;
	*size = (size_t)v->manifest_size;
	if (!status)
		status = lora__file_read(&store->file, v->manifest_at, stored,
					 (size_t)v->stored_size, err);
	if (!status)
		status = unpack_manifest(v, stored, text, err);
	if (!status) {
		lora__sha256(text, *size, &digest);
		text[*size] = '\0';
		if (!lora__sha256_equal(&digest, &v->digest))
			status = lora__fail(err, LORA_INPUT,
					    "damaged: the manifest does not have its digest");
	}
	free(stored);
	if (status) {
		free(text);
		return lora__context(err, status, "'%s': version %" PRIu64,
				     lora__escape(store->file.path), v->number);
	}
	*bytes = text;
	return LORA_OK;
}

/* --- signatures and attestations ------------------------------------------------------------- */

/* The i-th of that sort and version; NULL if there are fewer. */
static const struct lora_loose *find_note(const struct lora_store *store, size_t version,
					  enum lora_record_type type, size_t i)
{
	for (size_t at = 0; at < store->loose_count; at++)
		if (store->loose[at].type == type && store->loose[at].version == version &&
		    i-- == 0)
			return &store->loose[at];
	return NULL;
}

size_t lora__store_note_count(const struct lora_store *store, size_t version,
			      enum lora_record_type type)
{
	size_t count = 0;

	for (size_t i = 0; i < store->loose_count; i++)
		count += store->loose[i].type == type && store->loose[i].version == version;
	return count < LORA_NOTES_MAX ? count : LORA_NOTES_MAX;
}

enum lora_status lora__store_note(const struct lora_store *store, size_t version,
				  enum lora_record_type type, size_t i, char **text, size_t *size,
				  struct lora_error *err)
{
	const struct lora_loose *note = find_note(store, version, type, i);
	enum lora_status status;

	*text = NULL;
	*size = 0;
	if (!note)
		return lora__fail(err, LORA_USAGE, "there is no such signature");
	*size = (size_t)note->size - LORA_SHA256_SIZE; /* at most 4 MiB, by its type */
	*text = malloc(*size + 1);
	status = *text
		     ? lora__file_read(&store->file, note->at + LORA_RECORD_HEAD + LORA_SHA256_SIZE,
				       *text, *size, err)
		     : lora__fail_memory(err);
	if (status) {
		free(*text);
		*text = NULL;
		return status;
	}
	(*text)[*size] = '\0';
	return LORA_OK;
}

static enum lora_status check_note(const struct lora_store *store, const char *path,
				   const struct lora_sha256 *manifest, enum lora_record_type type,
				   size_t size, struct lora_error *err)
{
	uint64_t limit = type == LORA_RECORD_SIGNATURE ? LORA_SIGNATURE_MAX : LORA_ATTESTATION_MAX;

	if (type != LORA_RECORD_SIGNATURE && type != LORA_RECORD_ATTESTATION)
		return lora__fail(err, LORA_USAGE, "this is no sort of signature");
	if (size == 0 || size > limit)
		return lora__fail(
		    err, LORA_INPUT, "a %s has 1 to %" PRIu64 " bytes, and this one %zu",
		    type == LORA_RECORD_SIGNATURE ? "signature" : "attestation", limit, size);
	for (size_t v = 0; v < store->version_count; v++) {
		if (!lora__sha256_equal(&store->versions[v].digest, manifest))
			continue;
		if (lora__store_note_count(store, v, type) == LORA_NOTES_MAX)
			return lora__fail(err, LORA_INPUT,
					  "'%s': version %" PRIu64 " has %u of them, no more fit",
					  lora__escape(path), store->versions[v].number,
					  LORA_NOTES_MAX);
		return LORA_OK;
	}
	return lora__fail(err, LORA_INPUT,
			  "'%s' has no version with that manifest: it changed meanwhile",
			  lora__escape(path));
}

enum lora_status lora__store_add_note(const char *path, const struct lora_sha256 *manifest,
				      enum lora_record_type type, const void *text, size_t size,
				      const struct lora_observer *observer, struct lora_error *err)
{
	const struct lora_payload payload = {manifest->byte, LORA_SHA256_SIZE, text, size};
	struct lora_writer writer;
	enum lora_status status = lora__writer_open(&writer, path, observer, err);

	if (!status)
		status = check_note(writer.store, path, manifest, type, size, err);
	if (!status)
		status = lora__writer_record(&writer, (uint16_t)type, false, &payload, err);
	if (!status)
		status = lora__writer_commit(&writer, 0, NULL, 0, err);
	lora__writer_close(&writer);
	return status;
}
