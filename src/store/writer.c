/* SPDX-License-Identifier: Apache-2.0 */
/* store/writer.c - one group is added: locked, synced, committed
 *
 *	lock -> walk -> cut off a tail -> records -> fdatasync -> commit record -> fdatasync
 *
 * 1. The lock is flock(LOCK_EX) on the file; who waited for it makes sure that the path still names
 *    that file, for gc replaces it.
 * 2. Nothing before the end of the last commit is written to. Until the commit record is there, all
 *    that was written is a tail, whatever of it reached the disk and in which order.
 * 3. A failed sync is not tried again: the file is cut back to where it was.
 * 4. DATA is written before its header, whose length is not known before; the body's digest
 *    therefore takes each payload first.
 */
#include "store/engine.h"

#include "base/error.h"
#include "formats/containers/lora_bytes.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <time.h>
#include <unistd.h>

/* --- beginning ------------------------------------------------------------------------------- */

static enum lora_status init(struct lora_writer *writer, struct lora_error *err)
{
	enum lora_status status = lora__decoder_init(&writer->decoder, LORA_CHUNK_SIZE, err);

	writer->body = lora__hasher_new();
	writer->part = lora__hasher_new();
	writer->raw = malloc(LORA_CHUNK_SIZE);
	writer->parent = malloc(LORA_CHUNK_SIZE);
	writer->planes[0] = malloc(LORA_CHUNK_SIZE);
	writer->planes[1] = malloc(LORA_CHUNK_SIZE);
	writer->encode = malloc(2 * LORA_CHUNK_SIZE);
	if (!status && !(writer->body && writer->part && writer->raw && writer->parent &&
			 writer->planes[0] && writer->planes[1] && writer->encode))
		status = lora__fail_memory(err);
	return status;
}

static void begin_group(struct lora_writer *writer)
{
	writer->begin = writer->at = writer->store->end;
	writer->data_at = writer->index_record = writer->index_payload = 0;
	writer->index_size = 0;
	writer->first = writer->store->object_count;
	lora__hasher_reset(writer->body);
}

static enum lora_status lock(struct lora_writer *writer, const struct lora_observer *observer,
			     struct lora_error *err)
{
	const struct timespec pause = {0, 50000000};
	bool told = false;

	while (flock(writer->fd, LOCK_EX | LOCK_NB) != 0) {
		const struct lora_progress progress = {"wait", 0, 0};

		if (errno != EWOULDBLOCK && errno != EINTR)
			return lora__fail_system(err, "cannot lock '%s'",
						 lora__escape(writer->path));
		if (!told)
			lora__note(observer, LORA_NOTE_INFO, "'%s' is being written to: waiting",
				   lora__escape(writer->path));
		told = true;
		if (observer && observer->progress && observer->progress(observer->user, &progress))
			return lora__fail(err, LORA_CANCELLED, "interrupted");
		(void)nanosleep(&pause, NULL);
	}
	return LORA_OK;
}

/* Opens and locks; *again if the path names another file by now. */
static enum lora_status open_locked(struct lora_writer *writer,
				    const struct lora_observer *observer, bool *again,
				    struct lora_error *err)
{
	struct stat ours, there;
	enum lora_status status;

	*again = false;
	writer->fd = open(writer->path, O_RDWR | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
	if (writer->fd < 0)
		return lora__fail_errno(err, "cannot write to '%s'", lora__escape(writer->path));
	if (fstat(writer->fd, &ours) != 0)
		return lora__fail_system(err, "cannot examine '%s'", lora__escape(writer->path));
	if (!S_ISREG(ours.st_mode))
		return lora__fail(err, LORA_INPUT, "'%s' is no regular file",
				  lora__escape(writer->path));
	status = lock(writer, observer, err);
	if (status)
		return status;
	*again = stat(writer->path, &there) != 0 || there.st_dev != ours.st_dev ||
		 there.st_ino != ours.st_ino;
	if (*again) {
		(void)close(writer->fd);
		writer->fd = -1;
	}
	return LORA_OK;
}

/* The store that the writer adds to, over its own descriptor. */
static enum lora_status look(struct lora_writer *writer, struct lora_error *err)
{
	struct lora_store *store = calloc(1, sizeof(*store));

	if (!store)
		return lora__fail_memory(err);
	writer->store = store;
	store->file.fd = writer->fd;
	store->file.path = strdup(writer->path);
	if (!store->file.path)
		return lora__fail_memory(err);
	if (fstat(writer->fd, &store->file.stat) != 0)
		return lora__fail_system(err, "cannot examine '%s'", lora__escape(writer->path));
	store->file.size = (uint64_t)store->file.stat.st_size;
	return LORA_OK;
}

static enum lora_status cut(const struct lora_writer *writer, uint64_t size, struct lora_error *err)
{
	int failed;

	do
		failed = ftruncate(writer->fd, (off_t)size);
	while (failed != 0 && errno == EINTR);
	if (failed != 0)
		return lora__fail_system(err, "cannot cut '%s' to %" PRIu64 " bytes",
					 lora__escape(writer->path), size);
	return LORA_OK;
}

static enum lora_status prepare(struct lora_writer *writer, const struct lora_observer *observer,
				struct lora_error *err)
{
	struct lora_store *store;
	enum lora_status status = look(writer, err);

	if (!status) {
		status = lora__store_walk(writer->store, err);
		lora__context(err, status, "'%s'", lora__escape(writer->path));
	}
	if (status)
		return status;
	store = writer->store;
	if (store->hidden)
		return lora__context(err, lora__store_complain(store, err), "'%s'",
				     lora__escape(writer->path));
	if (store->block.ro_compat)
		return lora__fail(err, LORA_INPUT,
				  "'%s' has features that this program reads and cannot write: use "
				  "a newer one",
				  lora__escape(writer->path));
	if (store->file.size > store->end) {
		lora__note(observer, LORA_NOTE_WARNING,
			   "'%s': %" PRIu64 " bytes at its end were an append that was not "
			   "finished: cut off",
			   lora__escape(writer->path), store->file.size - store->end);
		status = cut(writer, store->end, err);
		store->file.size = store->end;
	}
	return status ? status : init(writer, err);
}

enum lora_status lora__writer_open(struct lora_writer *writer, const char *path,
				   const struct lora_observer *observer, struct lora_error *err)
{
	enum lora_status status;
	bool again;

	*writer = (struct lora_writer){.fd = -1, .path = path};
	do
		status = open_locked(writer, observer, &again, err);
	while (!status && again);
	if (!status)
		status = prepare(writer, observer, err);
	if (!status)
		begin_group(writer);
	return status;
}

enum lora_status lora__writer_create(struct lora_writer *writer, int fd, const char *path,
				     const struct lora_superblock *block, struct lora_error *err)
{
	uint8_t bytes[LORA_SUPERBLOCK_SIZE];
	enum lora_status status;

	*writer = (struct lora_writer){.fd = fd, .path = path, .fresh = true};
	lora__superblock_emit(bytes, block);
	status = lora__write_at(fd, path, 0, bytes, sizeof(bytes), err);
	if (!status)
		status = look(writer, err);
	if (!status)
		status = lora__store_walk(writer->store, err);
	if (!status)
		status = init(writer, err);
	if (!status)
		begin_group(writer);
	return status;
}

void lora__writer_close(struct lora_writer *writer)
{
	if (writer->store && !writer->fresh && writer->at > writer->store->end)
		(void)cut(writer, writer->store->end, NULL);
	if (writer->store) {
		lora__store_clear(writer->store);
		writer->store->file.fd = -1;
		lora__file_close(&writer->store->file);
		free(writer->store);
	}
	if (writer->fd >= 0 && !writer->fresh)
		(void)close(writer->fd);
	lora__decoder_fini(&writer->decoder);
	lora__hasher_free(writer->body);
	lora__hasher_free(writer->part);
	free(writer->index);
	free(writer->raw);
	free(writer->parent);
	free(writer->planes[0]);
	free(writer->planes[1]);
	free(writer->encode);
	*writer = (struct lora_writer){.fd = -1};
}

/* --- bytes ----------------------------------------------------------------------------------- */

/* Appends bytes that count for the body's digest. */
static enum lora_status put(struct lora_writer *writer, const void *bytes, size_t size,
			    struct lora_error *err)
{
	enum lora_status status =
	    lora__write_at(writer->fd, writer->path, writer->at, bytes, size, err);

	if (!status) {
		lora__hasher_update(writer->body, bytes, size);
		writer->at += size;
		if (writer->store->file.size < writer->at)
			writer->store->file.size = writer->at;
	}
	return status;
}

/* The zero bytes and the header of a record that began at `at`, when its payload is there. */
static enum lora_status put_head(struct lora_writer *writer, uint64_t at, uint16_t type,
				 bool critical, struct lora_error *err)
{
	static const uint8_t zeros[8];
	uint64_t size = writer->at - at - LORA_RECORD_HEAD;
	uint8_t head[LORA_RECORD_HEAD];
	enum lora_status status = put(writer, zeros, lora__record_padding(size), err);

	if (status)
		return status;
	lora__record_emit(head, type, critical, size);
	lora__hasher_update(writer->body, head, sizeof(head));
	return lora__write_at(writer->fd, writer->path, at, head, sizeof(head), err);
}

static enum lora_status write_record(struct lora_writer *writer, uint16_t type, bool critical,
				     const struct lora_payload *payload, struct lora_error *err)
{
	uint64_t at = writer->at;
	enum lora_status status;

	if (++writer->store->record_count > LORA_RECORDS_MAX)
		return lora__fail(err, LORA_INPUT,
				  "'%s' has too many records: `loractl gc` makes room",
				  lora__escape(writer->path));
	writer->at += LORA_RECORD_HEAD;
	status = put(writer, payload->head, payload->head_size, err);
	if (!status)
		status = put(writer, payload->body, payload->body_size, err);
	return status ? status : put_head(writer, at, type, critical, err);
}

/* --- objects --------------------------------------------------------------------------------- */

/* Room for an entry with that many bytes of words; its place. */
static enum lora_status add_entry(struct lora_writer *writer, uint64_t words, uint8_t **entry,
				  struct lora_error *err)
{
	uint64_t need = writer->index_size + LORA_ENTRY_HEAD + words;

	if (writer->index_size == 0)
		need += 8; /* the count */
	if (need > LORA_INDEX_SIZE_MAX)
		return lora__fail(err, LORA_INPUT, "it is too large for one version");
	while (writer->index_room < need) {
		size_t room = writer->index_room ? writer->index_room * 2 : 65536;
		uint8_t *more = realloc(writer->index, room);

		if (!more)
			return lora__fail_memory(err);
		writer->index = more;
		writer->index_room = room;
	}
	*entry = writer->index + (size_t)(need - LORA_ENTRY_HEAD - words);
	memset(*entry, 0, (size_t)(LORA_ENTRY_HEAD + words));
	writer->index_size = (size_t)need;
	return LORA_OK;
}

/* One chunk, raw in writer->raw: encoded as itself (planes[0]) or as the difference (planes[1]). */
struct encoded {
	uint8_t words[2][4 * LORA_PLANES_MAX];
	size_t stored[2];
};

static enum lora_status encode(struct lora_writer *writer, const struct lora_object *object,
			       size_t size, unsigned way, struct encoded *out,
			       struct lora_error *err)
{
	const struct lora_chunk chunk = {object->layout, out->words[way], size,
					 way ? writer->parent : NULL};

	return lora__chunk_encode(writer->decoder.codec, &chunk, writer->raw, writer->planes[way],
				  &out->stored[way], writer->encode, err);
}

/* All chunks: the first decides for all whether the parent helps. */
static enum lora_status store_chunks(struct lora_writer *writer, struct lora_object *object,
				     uint8_t *words, const struct lora_object_source *source,
				     struct lora_error *err)
{
	uint64_t chunks = lora__object_chunks(object->size);
	enum lora_status status = LORA_OK;

	for (uint64_t i = 0; i < chunks && !status; i++) {
		size_t size = lora__chunk_bytes(object, i);
		struct encoded coded;
		unsigned way = object->parent != LORA_NO_OBJECT;

		status = source->read(source->user, i * LORA_CHUNK_SIZE, writer->raw, size, err);
		if (!status && !source->hashed)
			lora__hasher_update(writer->part, writer->raw, size);
		if (!status && way)
			status = lora__object_chunk(writer->store, &writer->decoder, object->parent,
						    i, writer->parent, err);
		if (!status && (i == 0 || !way))
			status = encode(writer, object, size, 0, &coded, err);
		if (!status && way)
			status = encode(writer, object, size, 1, &coded, err);
		if (status)
			break;
		if (i == 0 && way && coded.stored[0] <= coded.stored[1]) {
			object->parent = LORA_NO_OBJECT;
			way = 0;
		}
		memcpy(words + i * 4 * object->layout.width, coded.words[way],
		       4 * (size_t)object->layout.width);
		status = put(writer, writer->planes[way], coded.stored[way], err);
	}
	return status;
}

static enum lora_status begin_data(struct lora_writer *writer, struct lora_error *err)
{
	if (writer->data_at)
		return LORA_OK;
	if (++writer->store->record_count > LORA_RECORDS_MAX)
		return lora__fail(err, LORA_INPUT,
				  "'%s' has too many records: `loractl gc` makes room",
				  lora__escape(writer->path));
	writer->data_at = writer->at;
	writer->at += LORA_RECORD_HEAD;
	return LORA_OK;
}

enum lora_status lora__writer_object(struct lora_writer *writer, const struct lora_sha256 *digest,
				     uint64_t size, struct lora_layout layout, uint32_t parent,
				     const struct lora_object_source *source,
				     struct lora_error *err)
{
	struct lora_object object = {*digest, size, 0, 0, parent, layout, 0};
	struct lora_sha256 found;
	uint8_t *entry;
	enum lora_status status;

	if (size % layout.width)
		object.layout = (struct lora_layout){1, false};
	if (parent != LORA_NO_OBJECT && (writer->store->objects[parent].size != size ||
					 writer->store->objects[parent].depth == LORA_DEPTH_MAX))
		object.parent = LORA_NO_OBJECT;
	status = begin_data(writer, err);
	if (!status)
		status = add_entry(writer, 4 * object.layout.width * lora__object_chunks(size),
				   &entry, err);
	if (status)
		return status;
	object.data = writer->at;
	lora__hasher_reset(writer->part);
	status = store_chunks(writer, &object, entry + LORA_ENTRY_HEAD, source, err);
	if (status)
		return status;
	lora__hasher_final(writer->part, &found);
	if (!source->hashed && !lora__sha256_equal(&found, digest))
		return lora__fail(err, LORA_INPUT, "it changed while it was read: try again");
	memcpy(entry, digest->byte, LORA_SHA256_SIZE);
	lora__put64(entry + 32, size);
	entry[40] = object.layout.width;
	entry[41] = (uint8_t)((object.layout.rotated ? LORA_OBJECT_ROTATED : 0) |
			      (object.parent != LORA_NO_OBJECT ? LORA_OBJECT_XOR : 0));
	if (object.parent != LORA_NO_OBJECT) {
		lora__put32(entry + 44, object.parent);
		object.depth = (uint8_t)(writer->store->objects[object.parent].depth + 1);
	}
	return lora__object_add(writer->store, &object, err);
}

/* --- the group's end ------------------------------------------------------------------------- */

/* Where the words of the group's objects stand, now that this is known. */
static void place_words(struct lora_writer *writer)
{
	uint64_t at = writer->index_payload + 8;

	for (uint32_t i = writer->first; i < writer->store->object_count; i++) {
		struct lora_object *object = &writer->store->objects[i];

		object->words = at + LORA_ENTRY_HEAD;
		at = object->words + 4 * object->layout.width * lora__object_chunks(object->size);
	}
}

/* Ends DATA and writes the INDEX, once. */
static enum lora_status end_data(struct lora_writer *writer, struct lora_error *err)
{
	struct lora_payload payload;
	enum lora_status status;

	if (!writer->data_at || writer->index_record)
		return LORA_OK;
	status = put_head(writer, writer->data_at, LORA_RECORD_DATA, true, err);
	if (status)
		return status;
	lora__put64(writer->index, writer->store->object_count - writer->first);
	lora__sha256(writer->index, writer->index_size, &writer->index_digest);
	writer->index_record = writer->at;
	writer->index_payload = writer->at + LORA_RECORD_HEAD;
	place_words(writer);
	payload = (struct lora_payload){writer->index, writer->index_size, NULL, 0};
	return write_record(writer, LORA_RECORD_INDEX, true, &payload, err);
}

enum lora_status lora__writer_record(struct lora_writer *writer, uint16_t type, bool critical,
				     const struct lora_payload *payload, struct lora_error *err)
{
	enum lora_status status = end_data(writer, err);

	return status ? status : write_record(writer, type, critical, payload, err);
}

/* Packed if that makes it smaller. */
static enum lora_status put_manifest(struct lora_writer *writer, struct lora_commit *commit,
				     const char *manifest, size_t size, struct lora_error *err)
{
	struct lora_payload payload = {manifest, size, NULL, 0};
	uint8_t *packed = malloc(size);
	size_t packed_size = size - 1; /* room, then size */
	enum lora_status status =
	    packed ? lora__frame_pack(writer->decoder.codec,
				      size < 65536 ? LORA_FRAME_DENSE : LORA_FRAME_REPEATS,
				      manifest, size, packed, &packed_size, err)
		   : lora__fail_memory(err);

	commit->manifest_at = writer->at;
	commit->manifest_size = size;
	lora__sha256(manifest, size, &commit->manifest);
	if (packed_size)
		payload = (struct lora_payload){packed, packed_size, NULL, 0};
	if (!status)
		status = write_record(writer, LORA_RECORD_MANIFEST, true, &payload, err);
	free(packed);
	return status;
}

static enum lora_status sync_now(const struct lora_writer *writer, struct lora_error *err)
{
	int failed;

	do
		failed = fdatasync(writer->fd);
	while (failed != 0 && errno == EINTR);
	return failed == 0 ? LORA_OK
			   : lora__fail_system(err, "cannot sync '%s'", lora__escape(writer->path));
}

/* What the store knows of the new group. */
static enum lora_status note_commit(struct lora_writer *writer, const struct lora_commit *commit,
				    struct lora_error *err)
{
	struct lora_store *store = writer->store;
	struct lora_version *versions;

	if (commit->version) {
		versions =
		    lora__manifest_room(store->versions, store->version_count, sizeof(*versions));
		if (!versions)
			return lora__fail_memory(err);
		store->versions = versions;
		versions[store->version_count++] =
		    (struct lora_version){commit->version,	 commit->manifest,    0, 0,
					  commit->manifest_size, store->object_count, 0};
	}
	store->end = writer->at;
	store->sequence = commit->sequence;
	memcpy(store->link, commit->check.byte, sizeof(store->link));
	return LORA_OK;
}

enum lora_status lora__writer_commit(struct lora_writer *writer, uint64_t version,
				     const char *manifest, size_t size, struct lora_error *err)
{
	struct lora_store *store = writer->store;
	struct lora_commit commit = {
	    .sequence = store->sequence + 1, .begin = writer->begin, .version = version};
	uint8_t record[LORA_COMMIT_SIZE];
	enum lora_status status = end_data(writer, err);

	if (!status && version && store->version_count == LORA_VERSIONS_MAX)
		status = lora__fail(err, LORA_INPUT, "'%s' has too many versions: use `loractl gc`",
				    lora__escape(writer->path));
	if (!status && version)
		status = put_manifest(writer, &commit, manifest, size, err);
	if (status)
		return status;
	commit.at = writer->at;
	commit.index_at = writer->index_record;
	if (commit.index_at)
		commit.index = writer->index_digest;
	memcpy(commit.link, store->link, sizeof(commit.link));
	lora__hasher_final(writer->body, &commit.body);
	lora__commit_emit(record, &commit);
	if (!writer->fresh)
		status = sync_now(writer, err);
	if (!status)
		status = lora__write_at(writer->fd, writer->path, writer->at, record,
					sizeof(record), err);
	writer->at += sizeof(record);
	if (!status && !writer->fresh)
		status = sync_now(writer, err);
	if (!status)
		status = note_commit(writer, &commit, err);
	if (status)
		return status;
	if (store->file.size < writer->at)
		store->file.size = writer->at;
	begin_group(writer);
	return LORA_OK;
}
