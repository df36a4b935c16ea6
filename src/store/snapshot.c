/* SPDX-License-Identifier: Apache-2.0 */
/* store/snapshot.c - one version of a container, read as files
 *
 *	file, offset -> part -> object -> chunk -> decoded, checked, kept
 *
 * 1. Every part's object is there, with its size, in the version's group or before it: proved when
 *    the snapshot is opened. No object's bytes are read then.
 * 2. No byte is given out before the digest of its whole object was found right. Of an object of
 *    several chunks the digest of each chunk is kept from that pass, so that a chunk that has to be
 *    decoded again is checked again, against what was right.
 * 3. The cache holds at most CACHE_BYTES. What is decoded replaces what was not asked for longest.
 * 4. One lock: any number of threads may read, one of them decodes.
 */
#include "store/engine.h"

#include "base/error.h"

#include <inttypes.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#define CACHE_BYTES ((size_t)24 << 20)
#define CACHE_SLOTS 64u

/* One decoded chunk. */
struct slot {
	uint8_t *bytes;
	size_t size;
	uint32_t object; /* LORA_NO_OBJECT: free */
	uint64_t chunk;
	uint64_t used; /* the clock when it was last asked for */
};

/* What is known of a part. */
struct piece {
	uint64_t begin;		    /* in its file */
	uint32_t object;	    /* its number */
	struct lora_sha256 *chunks; /* of a large object, once it was found right */
};

struct lora_snapshot {
	const struct lora_store *store;
	struct lora_manifest manifest;
	struct piece *pieces; /* one a part */
	struct lora_decoder decoder;
	uint8_t *work; /* the chunk that is being decoded */
	struct slot slots[CACHE_SLOTS];
	size_t cached;
	uint64_t clock;
	pthread_mutex_t lock;
};

/* --- opening --------------------------------------------------------------------------------- */

static enum lora_status place_parts(struct lora_snapshot *snapshot, size_t version,
				    struct lora_error *err)
{
	const struct lora_store *store = snapshot->store;
	const struct lora_manifest *m = &snapshot->manifest;

	snapshot->pieces = calloc(m->part_count + 1, sizeof(*snapshot->pieces));
	if (!snapshot->pieces)
		return lora__fail_memory(err);
	for (size_t f = 0; f < m->file_count; f++) {
		uint64_t begin = 0;

		for (size_t i = m->files[f].first; i < m->files[f].first + m->files[f].count; i++) {
			uint32_t number = lora__object_find(store, &m->parts[i].digest);

			if (number == LORA_NO_OBJECT ||
			    number >= store->versions[version].objects ||
			    store->objects[number].size != m->parts[i].size)
				return lora__fail(err, LORA_INPUT,
						  "the container does not hold what '%s' consists "
						  "of: it is damaged or badly written",
						  lora__escape(m->files[f].name));
			snapshot->pieces[i] = (struct piece){begin, number, NULL};
			begin += m->parts[i].size;
		}
	}
	return LORA_OK;
}

/* What the manifest says of itself, and what the container says of it. */
static enum lora_status check_manifest(const struct lora_snapshot *snapshot, size_t version,
				       struct lora_error *err)
{
	const struct lora_store *store = snapshot->store;
	const struct lora_manifest *m = &snapshot->manifest;

	if (m->version != store->versions[version].number)
		return lora__fail(err, LORA_INPUT,
				  "its manifest says that it is version %" PRIu64
				  ": it is damaged or badly written",
				  m->version);
	if (version > 0 && !lora__sha256_equal(&m->parent, &store->versions[version - 1].digest))
		return lora__fail(err, LORA_INPUT,
				  "its parent is not the version before it: it is damaged or badly "
				  "written");
	if (m->bytes > lora__expansion_limit(store->file.size))
		return lora__fail(err, LORA_INPUT,
				  "its files would have %" PRIu64
				  " bytes, in a container of %" PRIu64 ": no honest one has",
				  m->bytes, store->file.size);
	return LORA_OK;
}

enum lora_status lora__snapshot_open(struct lora_snapshot **out, const struct lora_store *store,
				     size_t version, struct lora_error *err)
{
	struct lora_snapshot *snapshot = calloc(1, sizeof(*snapshot));
	enum lora_status status;
	char *text = NULL;
	size_t size;

	*out = NULL;
	if (!snapshot)
		return lora__fail_memory(err);
	if (pthread_mutex_init(&snapshot->lock, NULL) != 0) {
		free(snapshot);
		return lora__fail_memory(err);
	}
	snapshot->store = store;
	for (unsigned i = 0; i < CACHE_SLOTS; i++)
		snapshot->slots[i].object = LORA_NO_OBJECT;
	status = lora__store_manifest(store, version, &text, &size, err);
	if (!status) {
		status = lora__manifest_parse(&snapshot->manifest, text, size, err);
		if (!status)
			status = check_manifest(snapshot, version, err);
		if (!status)
			status = place_parts(snapshot, version, err);
		lora__context(err, status, "'%s': version %" PRIu64, lora__escape(store->file.path),
			      store->versions[version].number);
	}
	free(text);
	if (status)
		lora__snapshot_close(snapshot);
	else
		*out = snapshot;
	return status;
}

void lora__snapshot_close(struct lora_snapshot *snapshot)
{
	if (!snapshot)
		return;
	for (unsigned i = 0; i < CACHE_SLOTS; i++)
		free(snapshot->slots[i].bytes);
	for (size_t i = 0; snapshot->pieces && i < snapshot->manifest.part_count; i++)
		free(snapshot->pieces[i].chunks);
	free(snapshot->pieces);
	free(snapshot->work);
	lora__decoder_fini(&snapshot->decoder);
	lora__manifest_fini(&snapshot->manifest);
	(void)pthread_mutex_destroy(&snapshot->lock);
	free(snapshot);
}

const struct lora_manifest *lora__snapshot_manifest(const struct lora_snapshot *snapshot)
{
	return &snapshot->manifest;
}

size_t lora__snapshot_find(const struct lora_snapshot *snapshot, const char *name)
{
	const struct lora_manifest *m = &snapshot->manifest;
	size_t low = 0, high = m->file_count;

	while (low < high) {
		size_t middle = low + (high - low) / 2;
		int order = strcmp(m->files[middle].name, name);

		if (order == 0)
			return middle;
		if (order < 0)
			low = middle + 1;
		else
			high = middle;
	}
	return SIZE_MAX;
}

/* --- the cache ------------------------------------------------------------------------------- */

static struct slot *find_slot(struct lora_snapshot *snapshot, uint32_t object, uint64_t chunk)
{
	for (unsigned i = 0; i < CACHE_SLOTS; i++) {
		struct slot *slot = &snapshot->slots[i];

		if (slot->object == object && slot->chunk == chunk) {
			slot->used = ++snapshot->clock;
			return slot;
		}
	}
	return NULL;
}

static void drop(struct lora_snapshot *snapshot, struct slot *slot)
{
	free(slot->bytes);
	snapshot->cached -= slot->size;
	*slot = (struct slot){.object = LORA_NO_OBJECT};
}

/* A free slot, and room for `size` bytes. */
static struct slot *make_room(struct lora_snapshot *snapshot, size_t size)
{
	for (;;) {
		struct slot *oldest = &snapshot->slots[0], *vacant = NULL;

		for (unsigned i = 0; i < CACHE_SLOTS; i++) {
			struct slot *slot = &snapshot->slots[i];

			if (slot->object == LORA_NO_OBJECT)
				vacant = slot;
			else if (oldest->object == LORA_NO_OBJECT || slot->used < oldest->used)
				oldest = slot;
		}
		if (vacant && snapshot->cached + size <= CACHE_BYTES)
			return vacant;
		drop(snapshot, oldest);
	}
}

static enum lora_status keep(struct lora_snapshot *snapshot, uint32_t object, uint64_t chunk,
			     const uint8_t *bytes, size_t size, struct slot **out,
			     struct lora_error *err)
{
	struct slot *slot = make_room(snapshot, size);

	slot->bytes = malloc(size);
	if (!slot->bytes)
		return lora__fail_memory(err);
	memcpy(slot->bytes, bytes, size);
	slot->size = size;
	slot->object = object;
	slot->chunk = chunk;
	slot->used = ++snapshot->clock;
	snapshot->cached += size;
	*out = slot;
	return LORA_OK;
}

/* --- reading --------------------------------------------------------------------------------- */

static enum lora_status hash_chunk(void *user, uint64_t chunk, const uint8_t *bytes, size_t size,
				   struct lora_error *err)
{
	struct lora_sha256 *chunks = user;

	(void)err;
	lora__sha256(bytes, size, &chunks[chunk]);
	return LORA_OK;
}

static enum lora_status make_buffers(struct lora_snapshot *snapshot, struct lora_error *err)
{
	if (snapshot->work)
		return LORA_OK;
	snapshot->work = malloc(lora__chunk_room(snapshot->store));
	return snapshot->work
		   ? lora__decoder_init(&snapshot->decoder, lora__chunk_room(snapshot->store), err)
		   : lora__fail_memory(err);
}

/* The whole object of several chunks is found right, and the digests of these are kept. */
static enum lora_status verify_large(struct lora_snapshot *snapshot, struct piece *piece,
				     struct lora_error *err)
{
	const struct lora_object *object = &snapshot->store->objects[piece->object];
	struct lora_sha256 *chunks =
	    calloc((size_t)lora__object_chunks(object->size), sizeof(*chunks));
	enum lora_status status =
	    chunks ? lora__object_verify(snapshot->store, &snapshot->decoder, piece->object,
					 snapshot->work, hash_chunk, chunks, err)
		   : lora__fail_memory(err);

	if (status)
		free(chunks);
	else
		piece->chunks = chunks;
	return status;
}

/* A chunk of a part's object, checked. */
static enum lora_status load(struct lora_snapshot *snapshot, struct piece *piece, uint64_t chunk,
			     struct slot **slot, struct lora_error *err)
{
	const struct lora_object *object = &snapshot->store->objects[piece->object];
	bool large = object->size > LORA_CHUNK_SIZE;
	size_t size = lora__chunk_bytes(object, chunk);
	struct lora_sha256 digest;
	enum lora_status status;

	*slot = find_slot(snapshot, piece->object, chunk);
	if (*slot)
		return LORA_OK;
	status = make_buffers(snapshot, err);
	if (!status && large && !piece->chunks)
		status = verify_large(snapshot, piece, err);
	if (!status && large) {
		status = lora__object_chunk(snapshot->store, &snapshot->decoder, piece->object,
					    chunk, snapshot->work, err);
		if (!status)
			lora__sha256(snapshot->work, size, &digest);
		if (!status && !lora__sha256_equal(&digest, &piece->chunks[chunk]))
			status = lora__fail(err, LORA_INPUT, "it changed while it was read");
	} else if (!status) {
		status = lora__object_verify(snapshot->store, &snapshot->decoder, piece->object,
					     snapshot->work, NULL, NULL, err);
	}
	if (!status)
		status = keep(snapshot, piece->object, chunk, snapshot->work, size, slot, err);
	return status;
}

/* The part of a file that holds a byte of it. */
static size_t part_at(const struct lora_snapshot *snapshot, size_t file, uint64_t offset)
{
	const struct lora_manifest_file *f = &snapshot->manifest.files[file];
	size_t low = f->first, high = f->first + f->count;

	while (high - low > 1) {
		size_t middle = low + (high - low) / 2;

		if (snapshot->pieces[middle].begin <= offset)
			low = middle;
		else
			high = middle;
	}
	return low;
}

/* From the cache or the container, up to the end of the chunk that holds `offset`; *got bytes. */
static enum lora_status read_some(struct lora_snapshot *snapshot, size_t file, uint64_t offset,
				  uint8_t *out, size_t size, size_t *got, struct lora_error *err)
{
	struct piece *piece = &snapshot->pieces[part_at(snapshot, file, offset)];
	uint64_t inside = offset - piece->begin, chunk = inside / LORA_CHUNK_SIZE;
	size_t at = (size_t)(inside % LORA_CHUNK_SIZE);
	struct slot *slot;
	enum lora_status status = load(snapshot, piece, chunk, &slot, err);

	if (status)
		return status;
	*got = slot->size - at < size ? slot->size - at : size;
	memcpy(out, slot->bytes + at, *got);
	return LORA_OK;
}

enum lora_status lora__snapshot_read(struct lora_snapshot *snapshot, size_t file, uint64_t offset,
				     void *buffer, size_t size, struct lora_error *err)
{
	const struct lora_manifest_file *f = &snapshot->manifest.files[file];
	enum lora_status status = LORA_OK;
	uint8_t *out = buffer;

	if (offset > f->size || size > f->size - offset)
		return lora__fail(err, LORA_INPUT, "'%s': '%s' ends early, at byte %" PRIu64,
				  lora__escape(snapshot->store->file.path), lora__escape(f->name),
				  f->size);
	(void)pthread_mutex_lock(&snapshot->lock);
	while (size && !status) {
		size_t got = 0;

		status = read_some(snapshot, file, offset, out, size, &got, err);
		out += got;
		offset += got;
		size -= got;
	}
	(void)pthread_mutex_unlock(&snapshot->lock);
	return lora__context(err, status, "'%s': '%s'", lora__escape(snapshot->store->file.path),
			     lora__escape(f->name));
}

enum lora_status lora__snapshot_slurp(struct lora_snapshot *snapshot, size_t file, uint64_t limit,
				      char **text, size_t *size, struct lora_error *err)
{
	const struct lora_manifest_file *f = &snapshot->manifest.files[file];
	enum lora_status status;

	*text = NULL;
	*size = 0;
	if (f->size > limit)
		return lora__fail(err, LORA_INPUT,
				  "'%s' has %" PRIu64 " bytes: at most %" PRIu64 " are read",
				  lora__escape(f->name), f->size, limit);
	*text = malloc((size_t)f->size + 1);
	status = *text ? lora__snapshot_read(snapshot, file, 0, *text, (size_t)f->size, err)
		       : lora__fail_memory(err);
	if (status) {
		free(*text);
		*text = NULL;
		return status;
	}
	(*text)[f->size] = '\0';
	*size = (size_t)f->size;
	return LORA_OK;
}
