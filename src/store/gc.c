/* SPDX-License-Identifier: Apache-2.0 */
/* store/gc.c - a container without its oldest versions
 *
 * 1. It is written anew beside the old one and takes its place at once, as every output does; the
 *    lock is held meanwhile, and who waits for it looks again at what the name means.
 * 2. Manifests, signatures, attestations, and records that we do not know, are copied byte for
 *    byte: what was signed stays signed. Objects are stored anew, since parents may be gone.
 * 3. Before the old one goes, every object of the new one is decoded and checked.
 */
#include "store/engine.h"

#include "base/error.h"

#include <inttypes.h>
#include <loractl/container.h>
#include <stdlib.h>
#include <string.h>

struct collecting {
	const struct lora_store *old;
	struct lora_writer writer;
	struct lora_watch *watch;
	struct lora_snapshot *from, *before; /* the version that is copied, the one before it */
	uint64_t total;
};

/* A part of the old version, as the source of an object. */
struct region {
	struct collecting *c;
	size_t file;
	uint64_t begin;
};

static enum lora_status read_region(void *user, uint64_t offset, void *buffer, size_t size,
				    struct lora_error *err)
{
	const struct region *region = user;
	enum lora_status status = lora__watch_add(region->c->watch, size, err);

	return status ? status
		      : lora__snapshot_read(region->c->from, region->file, region->begin + offset,
					    buffer, size, err);
}

/* The object in the new container that stands at that place in the version before. */
static uint32_t find_parent(const struct collecting *c, const char *file,
			    const struct lora_manifest_part *part, size_t number)
{
	const struct lora_manifest *m = c->before ? lora__snapshot_manifest(c->before) : NULL;
	const struct lora_manifest_part *found = NULL;
	size_t f = m ? lora__snapshot_find(c->before, file) : SIZE_MAX;

	if (f == SIZE_MAX || !part->tensor)
		return LORA_NO_OBJECT;
	if (number < m->files[f].count)
		found = &m->parts[m->files[f].first + number];
	if (!found || !found->tensor || strcmp(found->tensor, part->tensor) != 0 ||
	    found->size != part->size || found->dtype != part->dtype)
		return LORA_NO_OBJECT;
	return lora__object_find(c->writer.store, &found->digest);
}

static enum lora_status copy_objects(struct collecting *c, struct lora_error *err)
{
	const struct lora_manifest *m = lora__snapshot_manifest(c->from);
	enum lora_status status = LORA_OK;

	for (size_t f = 0; f < m->file_count; f++) {
		struct region region = {c, f, 0};
		const struct lora_object_source source = {read_region, &region, false};

		for (size_t i = 0; i < m->files[f].count && !status; i++) {
			const struct lora_manifest_part *part = &m->parts[m->files[f].first + i];

			if (lora__object_find(c->writer.store, &part->digest) == LORA_NO_OBJECT)
				status = lora__writer_object(
				    &c->writer, &part->digest, part->size,
				    lora__layout_of(part->dtype),
				    find_parent(c, m->files[f].name, part, i), &source, err);
			region.begin += part->size;
		}
		if (status)
			return status;
	}
	return LORA_OK;
}

/* Records of their own: those of a version, or (LORA_NO_VERSION) those of a type that we do not
 * know, wherever they stood. */
static enum lora_status copy_loose(struct collecting *c, uint32_t version, struct lora_error *err)
{
	enum lora_status status = LORA_OK;
	bool any = false;

	for (size_t i = 0; i < c->old->loose_count && !status; i++) {
		const struct lora_loose *loose = &c->old->loose[i];
		bool known = lora__record_name(loose->type) != NULL;
		struct lora_payload what;
		uint8_t *payload;

		if (loose->version != version || known != (version != LORA_NO_VERSION))
			continue;
		payload = loose->size < c->old->file.size ? malloc((size_t)loose->size + 1) : NULL;
		if (!payload)
			return lora__fail_memory(err);
		status = lora__file_read(&c->old->file, loose->at + LORA_RECORD_HEAD, payload,
					 (size_t)loose->size, err);
		what = (struct lora_payload){payload, (size_t)loose->size, NULL, 0};
		if (!status)
			status = lora__writer_record(&c->writer, loose->type, false, &what, err);
		free(payload);
		any = true;
	}
	if (!status && any)
		status = lora__writer_commit(&c->writer, 0, NULL, 0, err);
	return status;
}

static enum lora_status copy_version(struct collecting *c, size_t version, struct lora_error *err)
{
	char *manifest = NULL;
	size_t size;
	enum lora_status status;

	lora__snapshot_close(c->before);
	c->before = c->from;
	c->from = NULL;
	status = lora__snapshot_open(&c->from, c->old, version, err);
	if (!status)
		status = copy_objects(c, err);
	if (!status)
		status = lora__store_manifest(c->old, version, &manifest, &size, err);
	if (!status)
		status = lora__writer_commit(&c->writer, c->old->versions[version].number, manifest,
					     size, err);
	free(manifest);
	return status ? status : copy_loose(c, (uint32_t)version, err);
}

/* Invariant 3, on what a walk finds in the new file. */
static enum lora_status check_copy(const struct collecting *c, size_t versions,
				   struct lora_error *err)
{
	struct lora_store *store = c->writer.store;
	struct lora_decoder decoder = {0};
	uint8_t *buffer = malloc(LORA_CHUNK_SIZE);
	enum lora_status status =
	    buffer ? lora__decoder_init(&decoder, LORA_CHUNK_SIZE, err) : lora__fail_memory(err);
	uint64_t end = store->end;

	lora__store_clear(store);
	store->file.size = end;
	if (!status)
		status = lora__store_walk(store, err);
	if (!status && (store->version_count != versions || store->end != end))
		status = lora__fail(err, LORA_SYSTEM, "the new container does not read back");
	for (uint32_t i = 0; i < store->object_count && !status; i++)
		status = lora__object_verify(store, &decoder, i, buffer, NULL, NULL, err);
	for (size_t v = 0; v < store->version_count && !status; v++) {
		struct lora_snapshot *snapshot = NULL;

		status = lora__snapshot_open(&snapshot, store, v, err);
		lora__snapshot_close(snapshot);
	}
	lora__decoder_fini(&decoder);
	free(buffer);
	return status;
}

static enum lora_status copy(struct collecting *c, size_t first, int fd, const char *path,
			     struct lora_error *err)
{
	enum lora_status status = lora__writer_create(&c->writer, fd, path, &c->old->block, err);

	for (size_t v = first; v < c->old->version_count && !status; v++)
		status = copy_version(c, v, err);
	if (!status)
		status = copy_loose(c, LORA_NO_VERSION, err);
	return status ? status : check_copy(c, c->old->version_count - first, err);
}

/* Bytes that will be read: every file of every version that stays, at most. */
static enum lora_status measure(const struct lora_store *store, size_t first, uint64_t *bytes,
				struct lora_error *err)
{
	enum lora_status status = LORA_OK;
	uint32_t from = first ? store->versions[first - 1].objects : 0;

	*bytes = 0;
	for (uint32_t i = from; i < store->object_count; i++)
		*bytes += store->objects[i].size;
	if (store->version_count == 0)
		status = lora__fail(err, LORA_INPUT, "'%s' has no version",
				    lora__escape(store->file.path));
	return status;
}

static enum lora_status rewrite(const struct lora_store *old, const char *path, size_t first,
				struct lora_gc_result *result, const struct lora_observer *observer,
				struct lora_error *err)
{
	struct collecting c = {.old = old, .writer = {.fd = -1}};
	struct lora_output *output = NULL;
	struct lora_watch watch;
	uint64_t bytes;
	enum lora_status status = measure(old, first, &bytes, err);
	int fd = -1;

	if (status)
		return status;
	lora__watch_init(&watch, observer, "gc", bytes);
	c.watch = &watch;
	status = lora__output_begin(&output, path, false, true, err);
	if (!status)
		status = lora__output_file(output, NULL, 0, &fd, err);
	if (!status)
		status = copy(&c, first, fd, path, err);
	if (!status) {
		lora__output_mode(output, old->file.stat.st_mode);
		result->after = c.writer.store->end;
		status = lora__output_commit(output, err);
	}
	lora__snapshot_close(c.before);
	lora__snapshot_close(c.from);
	lora__writer_close(&c.writer);
	lora__output_free(output);
	lora__watch_fini(&watch);
	return status;
}

enum lora_status lora_container_gc(const char *path, uint64_t keep, struct lora_gc_result *result,
				   const struct lora_observer *observer, struct lora_error *err)
{
	char *real = realpath(path, NULL); /* a link stays one */
	struct lora_writer lock = {.fd = -1};
	enum lora_status status;

	*result = (struct lora_gc_result){0};
	if (!real)
		return lora__fail_errno(err, "cannot open '%s'", lora__escape(path));
	status = keep ? lora__writer_open(&lock, real, observer, err)
		      : lora__fail(err, LORA_USAGE, "at least one version is kept");
	if (!status) {
		const struct lora_store *old = lock.store;
		size_t first = keep < old->version_count ? old->version_count - (size_t)keep : 0;

		result->before = result->after = old->end;
		result->kept = old->version_count - first;
		result->removed = first;
		if (first)
			status = rewrite(old, real, first, result, observer, err);
	}
	lora__writer_close(&lock);
	free(real);
	return status;
}
