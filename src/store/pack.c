/* SPDX-License-Identifier: Apache-2.0 */
/* store/pack.c - a directory becomes the next version of a container
 *
 *	files -> parts (a safetensors file: its head, then each tensor) -> objects -> manifest
 *
 * 1. A part that the container has, whatever its name was, costs nothing. Of a new one the object
 *    that bore its name in the latest version may be the parent.
 * 2. A file is read once if its parts are chunks at most; a larger part is read once for its
 *    digest and, if it is new, once more to be stored: then it must have that digest still.
 * 3. The same directory, container and options give the same bytes: nothing of the time, the
 *    place or the machine gets in.
 * 4. A version whose content is the latest's is none: the container stays as it is.
 */
#include "store/collect.h"
#include "store/engine.h"

#include "base/error.h"
#include "formats/container.h"

#include <errno.h>
#include <inttypes.h>
#include <loractl/container.h>
#include <stdlib.h>
#include <string.h>

struct packing {
	const char *directory;
	const struct lora_pack_options *options;
	struct lora_pack_result *result;
	struct lora_writer writer;
	struct lora_snapshot *before; /* the latest version; NULL for the first */
	struct lora_manifest manifest;
	struct lora_watch *watch;
	struct lora_hasher *file_hash, *part_hash;
	uint8_t *buffer; /* a chunk */
};

/* The bytes of one part, in its file or in the buffer. */
struct region {
	const struct lora_file *file;
	const uint8_t *bytes; /* NULL: in the file */
	uint64_t begin;
};

static enum lora_status read_region(void *user, uint64_t offset, void *buffer, size_t size,
				    struct lora_error *err)
{
	const struct region *region = user;

	if (region->bytes) {
		memcpy(buffer, region->bytes + offset, size);
		return LORA_OK;
	}
	return lora__file_read(region->file, region->begin + offset, buffer, size, err);
}

/* --- parts ----------------------------------------------------------------------------------- */

/* Digest of the part; its bytes go into the file's digest, and into the buffer if they fit. */
static enum lora_status hash_part(struct packing *p, struct region *region,
				  struct lora_manifest_part *part, struct lora_error *err)
{
	enum lora_status status = LORA_OK;

	lora__hasher_reset(p->part_hash);
	for (uint64_t done = 0; done < part->size && !status;) {
		uint64_t rest = part->size - done;
		size_t size = rest < LORA_CHUNK_SIZE ? (size_t)rest : LORA_CHUNK_SIZE;

		status = lora__file_read(region->file, region->begin + done, p->buffer, size, err);
		if (!status)
			status = lora__watch_add(p->watch, size, err);
		if (status)
			return status;
		lora__hasher_update(p->part_hash, p->buffer, size);
		lora__hasher_update(p->file_hash, p->buffer, size);
		done += size;
	}
	lora__hasher_final(p->part_hash, &part->digest);
	if (part->size <= LORA_CHUNK_SIZE)
		region->bytes = p->buffer;
	return status;
}

/* The object that stood in the part's place in the latest version: the tensor of that name, or the
 * part of that number. */
static uint32_t find_parent(const struct packing *p, const char *file,
			    const struct lora_manifest_part *part, size_t number)
{
	const struct lora_manifest *m;
	const struct lora_manifest_part *found = NULL;
	size_t f;

	if (!p->before)
		return LORA_NO_OBJECT;
	m = lora__snapshot_manifest(p->before);
	f = lora__snapshot_find(p->before, file);
	if (f == SIZE_MAX || !m->parts)
		return LORA_NO_OBJECT;
	if (number < m->files[f].count) /* as a rule nothing has moved */
		found = &m->parts[m->files[f].first + number];
	if (part->tensor &&
	    (!found || !found->tensor || strcmp(found->tensor, part->tensor) != 0)) {
		found = NULL;
		for (size_t i = 0; i < m->files[f].count && !found; i++) {
			const struct lora_manifest_part *other = &m->parts[m->files[f].first + i];

			if (other->tensor && strcmp(other->tensor, part->tensor) == 0)
				found = other;
		}
	}
	if (!found || !part->tensor || found->size != part->size || found->dtype != part->dtype)
		return LORA_NO_OBJECT;
	return lora__object_find(p->writer.store, &found->digest);
}

static enum lora_status add_part(struct packing *p, struct lora_manifest_file *out,
				 struct region *region, struct lora_manifest_part *part,
				 struct lora_error *err)
{
	struct lora_manifest *m = &p->manifest;
	struct lora_manifest_part *parts =
	    lora__manifest_room(m->parts, m->part_count, sizeof(*parts));
	struct lora_object_source source = {read_region, region, false};
	enum lora_status status;

	if (!parts)
		return lora__fail_memory(err);
	m->parts = parts;
	if (m->part_count == LORA_PARTS_MAX)
		return lora__fail(err, LORA_INPUT, "it has more than %u tensors and files",
				  LORA_PARTS_MAX);
	status = hash_part(p, region, part, err);
	if (status)
		return status;
	source.hashed = region->bytes != NULL;
	p->result->objects++;
	if (lora__object_find(p->writer.store, &part->digest) != LORA_NO_OBJECT)
		p->result->reused++;
	else
		status = lora__writer_object(
		    &p->writer, &part->digest, part->size, lora__layout_of(part->dtype),
		    find_parent(p, out->name, part, out->count), &source, err);
	if (status)
		return status;
	parts[m->part_count++] = *part;
	out->count++;
	return LORA_OK;
}

/* The head of a safetensors file, then its tensors: they cover it without a gap. */
static enum lora_status add_tensors(struct packing *p, struct lora_manifest_file *out,
				    const struct lora_file *file, const struct lora_index *index,
				    struct lora_error *err)
{
	struct lora_manifest_part head = {.size = index->data_begin};
	struct region region = {file, NULL, 0};
	enum lora_status status = add_part(p, out, &region, &head, err);

	for (size_t i = 0; i < index->count && !status; i++) {
		const struct lora_tensor *t = &index->tensors[i];
		struct lora_manifest_part part = {
		    .size = t->size, .dtype = t->dtype, .ndim = t->ndim};
		uint64_t *shape;

		if (t->size == 0)
			continue;
		region = (struct region){file, NULL, t->begin};
		part.tensor = lora__arena_copy(&p->manifest.arena, t->name, strlen(t->name));
		shape = lora__arena_array(&p->manifest.arena, t->ndim + 1, sizeof(*shape));
		if (!part.tensor || !shape)
			return lora__fail_memory(err);
		memcpy(shape, t->shape, t->ndim * sizeof(*shape));
		part.shape = shape;
		status = add_part(p, out, &region, &part, err);
	}
	return status;
}

static enum lora_status add_bytes(struct packing *p, struct lora_manifest_file *out,
				  const struct lora_file *file, struct lora_error *err)
{
	struct lora_manifest_part part = {.size = file->size};
	struct region region = {file, NULL, 0};

	return file->size ? add_part(p, out, &region, &part, err) : LORA_OK;
}

/* --- files ----------------------------------------------------------------------------------- */

static bool ends_in(const char *name, const char *suffix)
{
	size_t n = strlen(name), s = strlen(suffix);

	return n >= s && strcmp(name + n - s, suffix) == 0;
}

static enum lora_status add_open_file(struct packing *p, struct lora_manifest_file *out,
				      const struct lora_file *file, struct lora_error *err)
{
	struct lora_index index = {0};
	struct lora_error why = LORA_ERROR_INIT;
	uint8_t *head = NULL;
	size_t head_size;
	bool tensors = ends_in(out->name, ".safetensors");
	enum lora_status status = LORA_OK;

	if (tensors) {
		status = lora__container_load(&index, &head, &head_size, file, &why);
		if (status && status != LORA_INPUT && err)
			*err = why;
		tensors = status == LORA_OK;
		if (status == LORA_INPUT) { /* its bytes are kept all the same */
			lora__note(p->watch->observer, LORA_NOTE_WARNING, "packed as it is: %s",
				   why.message);
			status = LORA_OK;
		}
	}
	free(head);
	lora__hasher_reset(p->file_hash);
	if (!status)
		status =
		    tensors ? add_tensors(p, out, file, &index, err) : add_bytes(p, out, file, err);
	lora__hasher_final(p->file_hash, &out->digest);
	out->size = file->size;
	lora__index_fini(&index);
	return status ? status : lora__file_unchanged(file, err);
}

static enum lora_status add_file(struct packing *p, const char *name, struct lora_error *err)
{
	struct lora_manifest *m = &p->manifest;
	struct lora_manifest_file *files =
	    lora__manifest_room(m->files, m->file_count, sizeof(*files));
	struct lora_file file = LORA_FILE_INIT;
	char *path = lora__path_join(p->directory, name);
	enum lora_status status;

	if (files)
		m->files = files;
	if (!files || !path) {
		free(path);
		return lora__fail_memory(err);
	}
	files[m->file_count] = (struct lora_manifest_file){.name = name, .first = m->part_count};
	status = lora__file_open(&file, path, err);
	if (!status)
		status = add_open_file(p, &files[m->file_count], &file, err);
	if (!status) {
		m->bytes += file.size;
		m->file_count++;
	}
	lora__file_close(&file);
	lora__context(err, status, "'%s'", lora__escape(path));
	free(path);
	return status;
}

static enum lora_status measure(const char *directory, const struct lora_collection *files,
				uint64_t *bytes, struct lora_error *err)
{
	*bytes = 0;
	for (size_t i = 0; i < files->count; i++) {
		char *path = lora__path_join(directory, files->names[i]);
		struct stat info;

		if (!path)
			return lora__fail_memory(err);
		if (stat(path, &info) == 0)
			*bytes += (uint64_t)info.st_size;
		free(path);
	}
	return LORA_OK;
}

/* --- the version ----------------------------------------------------------------------------- */

/* The last part of a directory's path that is a name. */
static char *default_name(const char *directory)
{
	char *real = realpath(directory, NULL), *slash = real ? strrchr(real, '/') : NULL,
	     *name = slash && slash[1] ? strdup(slash + 1) : strdup("adapter");

	free(real);
	return name;
}

/* Name, version, parent. */
static enum lora_status head_manifest(struct packing *p, struct lora_error *err)
{
	const struct lora_store *store = p->writer.store;
	const struct lora_manifest *before = p->before ? lora__snapshot_manifest(p->before) : NULL;
	struct lora_manifest *m = &p->manifest;
	char *made = NULL;
	const char *name = p->options->name;

	if (before && name && strcmp(name, before->name) != 0)
		return lora__fail(err, LORA_USAGE,
				  "'%s' holds the adapter '%s', not '%s': drop --name, or make "
				  "another container",
				  lora__escape(p->writer.path), lora__escape(before->name),
				  lora__escape(name));
	if (!name)
		name = before ? before->name : (made = default_name(p->directory));
	m->name = name ? lora__arena_copy(&m->arena, name, strlen(name)) : NULL;
	free(made);
	if (!m->name)
		return lora__fail_memory(err);
	if (!lora__adapter_name_ok(m->name))
		return lora__fail(err, LORA_USAGE,
				  "'%s' is no name for an adapter: give --name, at most 255 bytes "
				  "without '/' and control characters",
				  lora__escape(m->name));
	m->message = p->options->message ? p->options->message : "";
	m->version = 1;
	if (before) {
		m->version = before->version + 1;
		m->has_parent = true;
		m->parent = store->versions[store->version_count - 1].digest;
	}
	m->bound = p->options->base_root != NULL;
	if (m->bound)
		m->base_root = *p->options->base_root;
	return LORA_OK;
}

/* Invariant 4. A version that is bound stays so without being bound again. */
static bool is_unchanged(const struct packing *p)
{
	const struct lora_manifest *before = p->before ? lora__snapshot_manifest(p->before) : NULL;
	struct lora_sha256 root;

	if (!before)
		return false;
	lora__manifest_root(&p->manifest, &root);
	return lora__sha256_equal(&root, &before->root) &&
	       (!p->manifest.bound ||
		(before->bound && lora__sha256_equal(&p->manifest.base_root, &before->base_root)));
}

static enum lora_status add_version(struct packing *p, const struct lora_collection *files,
				    struct lora_error *err)
{
	uint64_t old = p->writer.store->end, limit;
	enum lora_status status = head_manifest(p, err);
	char *text = NULL;
	size_t size;

	for (size_t i = 0; i < files->count && !status; i++)
		status = add_file(p, files->names[i], err);
	if (status)
		return status;
	p->result->bytes = p->manifest.bytes;
	p->result->files = p->manifest.file_count;
	p->result->unchanged = is_unchanged(p);
	p->result->version = p->manifest.version - p->result->unchanged;
	if (p->result->unchanged)
		return LORA_OK;
	limit = lora__expansion_limit(p->writer.at);
	if (p->manifest.bytes > limit || p->writer.store->object_bytes > limit)
		return lora__fail(err, LORA_INPUT,
				  "'%s': nearly all of it is one value: readers would refuse so "
				  "much of it in so small a container",
				  lora__escape(p->directory));
	status = lora__manifest_emit(&p->manifest, &text, &size, err);
	if (!status)
		status = lora__writer_commit(&p->writer, p->manifest.version, text, size, err);
	free(text);
	p->result->stored = p->writer.store->end - old;
	return status;
}

static enum lora_status pack_into(struct packing *p, const struct lora_observer *observer,
				  struct lora_error *err)
{
	struct lora_collection files = {0};
	const struct lora_store *store = p->writer.store;
	struct lora_watch watch;
	uint64_t bytes = 0;
	enum lora_status status =
	    lora__collect(&files, p->directory, p->options->all, observer, err);

	if (!status && files.count == 0)
		status =
		    lora__fail(err, LORA_INPUT, "'%s' has no files: give an adapter's directory",
			       lora__escape(p->directory));
	if (!status)
		status = measure(p->directory, &files, &bytes, err);
	if (!status && store->version_count)
		status = lora__snapshot_open(&p->before, store, store->version_count - 1, err);
	lora__watch_init(&watch, observer, "pack", bytes);
	p->watch = &watch;
	p->file_hash = lora__hasher_new();
	p->part_hash = lora__hasher_new();
	p->buffer = malloc(LORA_CHUNK_SIZE);
	if (!status && !(p->file_hash && p->part_hash && p->buffer))
		status = lora__fail_memory(err);
	if (!status)
		status = add_version(p, &files, err);
	p->result->left_out = files.left_out;
	p->watch = NULL;
	lora__watch_fini(&watch);
	lora__collection_fini(&files);
	return status;
}

static void fini(struct packing *p)
{
	lora__snapshot_close(p->before);
	lora__writer_close(&p->writer);
	lora__manifest_fini(&p->manifest);
	lora__hasher_free(p->file_hash);
	lora__hasher_free(p->part_hash);
	free(p->buffer);
}

static enum lora_status pack_new(struct packing *p, const char *path,
				 const struct lora_observer *observer, struct lora_error *err)
{
	const struct lora_superblock block = {.major = 1};
	struct lora_output *output = NULL;
	enum lora_status status = lora__output_begin(&output, path, false, false, err);
	int fd = -1;

	if (!status)
		status = lora__output_file(output, NULL, 0, &fd, err);
	if (!status)
		status = lora__writer_create(&p->writer, fd, path, &block, err);
	if (!status)
		status = pack_into(p, observer, err);
	if (!status) {
		p->result->stored = p->writer.store->end;
		status = lora__output_commit(output, err);
	}
	fini(p);
	lora__output_free(output);
	return status;
}

static enum lora_status check_places(const char *directory, const char *path, bool append,
				     bool *exists, struct lora_error *err)
{
	enum lora_path_kind from = LORA_PATH_ABSENT, to = LORA_PATH_ABSENT;
	enum lora_status status = lora__path_kind(directory, &from, err);
	bool inside = false;

	if (!status && from != LORA_PATH_DIRECTORY)
		status =
		    lora__fail(err, LORA_INPUT, "'%s' %s: give an adapter's directory",
			       lora__escape(directory),
			       from == LORA_PATH_ABSENT ? "does not exist" : "is no directory");
	if (!status)
		status = lora__path_kind(path, &to, err);
	if (!status)
		status = lora__path_inside(path, directory, &inside, err);
	if (status)
		return status;
	if (inside)
		return lora__fail(err, LORA_USAGE,
				  "'%s' lies in '%s', which it would hold: write it elsewhere",
				  lora__escape(path), lora__escape(directory));
	*exists = to != LORA_PATH_ABSENT;
	if (*exists && !append)
		return lora__fail(err, LORA_USAGE, "'%s' exists: --append adds a version to it",
				  lora__escape(path));
	return LORA_OK;
}

enum lora_status lora_container_pack(const char *directory, const char *path,
				     const struct lora_pack_options *options,
				     struct lora_pack_result *result,
				     const struct lora_observer *observer, struct lora_error *err)
{
	const struct lora_pack_options plain = LORA_PACK_OPTIONS_INIT;
	struct packing p = {.directory = directory,
			    .options = options ? options : &plain,
			    .result = result,
			    .writer = {.fd = -1}};
	bool exists = false;
	enum lora_status status;

	*result = (struct lora_pack_result){0};
	status = check_places(directory, path, p.options->append, &exists, err);
	if (!status && p.options->message && strlen(p.options->message) > LORA_MESSAGE_MAX)
		status = lora__fail(err, LORA_USAGE, "the message has more than %u bytes",
				    LORA_MESSAGE_MAX);
	if (status)
		return status;
	if (!exists)
		return pack_new(&p, path, observer, err);
	status = lora__writer_open(&p.writer, path, observer, err);
	if (!status)
		status = pack_into(&p, observer, err);
	fini(&p);
	return status;
}
