/* SPDX-License-Identifier: Apache-2.0 */
/* adapter/source.c - the two origins of an adapter's bytes, and what is the same for both. */
#include "adapter/adapter.h"

#include "base/error.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

/* --- files ----------------------------------------------------------------------------------- */

/* Path of `name` in the adapter's directory, or beside its file; malloc'd. */
static char *path_of(const struct lora_adapter *adapter, const char *name)
{
	const char *slash = strrchr(adapter->path, '/');
	char *folder, *path;

	if (!name)
		return strdup(adapter->path);
	if (adapter->directory)
		return lora__path_join(adapter->path, name);
	folder = slash ? strndup(adapter->path, (size_t)(slash - adapter->path) + 1) : strdup(".");
	path = folder ? lora__path_join(folder, name) : NULL;
	free(folder);
	return path;
}

static enum lora_status file_has(const struct lora_adapter *adapter, const char *name, bool *there,
				 struct lora_error *err)
{
	char *path = path_of(adapter, name);
	enum lora_path_kind kind = LORA_PATH_ABSENT;
	enum lora_status status = path ? lora__path_kind(path, &kind, err) : lora__fail_memory(err);

	*there = kind != LORA_PATH_ABSENT;
	free(path);
	return status;
}

static enum lora_status file_open(const struct lora_adapter *adapter, const char *name,
				  struct lora_source *source, struct lora_error *err)
{
	char *path = path_of(adapter, name);
	enum lora_status status =
	    path ? lora__file_open(&source->file, path, err) : lora__fail_memory(err);

	source->size = source->file.size;
	free(path);
	return status;
}

static enum lora_status file_read(const struct lora_source *source, uint64_t offset, void *buffer,
				  size_t size, struct lora_error *err)
{
	return lora__file_read(&source->file, offset, buffer, size, err);
}

static enum lora_status file_unchanged(const struct lora_source *source, struct lora_error *err)
{
	return lora__file_unchanged(&source->file, err);
}

const struct lora_origin lora__origin_files = {file_has, file_open, file_read, file_unchanged};

/* --- a version of a container ---------------------------------------------------------------- */

static enum lora_status stored_has(const struct lora_adapter *adapter, const char *name,
				   bool *there, struct lora_error *err)
{
	(void)err;
	*there = lora__snapshot_find(adapter->snapshot, name) != SIZE_MAX;
	return LORA_OK;
}

static enum lora_status stored_open(const struct lora_adapter *adapter, const char *name,
				    struct lora_source *source, struct lora_error *err)
{
	source->snapshot = adapter->snapshot;
	source->number = lora__snapshot_find(adapter->snapshot, name);
	if (source->number == SIZE_MAX)
		return lora__fail(err, LORA_INPUT, "'%s' holds no '%s'",
				  lora__escape(adapter->path), lora__escape(name));
	source->size = lora__snapshot_manifest(adapter->snapshot)->files[source->number].size;
	return LORA_OK;
}

static enum lora_status stored_read(const struct lora_source *source, uint64_t offset, void *buffer,
				    size_t size, struct lora_error *err)
{
	return lora__snapshot_read(source->snapshot, source->number, offset, buffer, size, err);
}

static enum lora_status stored_unchanged(const struct lora_source *source, struct lora_error *err)
{
	(void)source; /* every byte was checked against the manifest's digest when it was read */
	(void)err;
	return LORA_OK;
}

const struct lora_origin lora__origin_container = {stored_has, stored_open, stored_read,
						   stored_unchanged};

/* --- both ------------------------------------------------------------------------------------ */

enum lora_status lora__source_open(struct lora_source *source, const struct lora_adapter *adapter,
				   const char *name, struct lora_error *err)
{
	*source = (struct lora_source){.origin = adapter->origin, .file = LORA_FILE_INIT};
	return adapter->origin->open(adapter, name, source, err);
}

void lora__source_close(struct lora_source *source)
{
	if (source->origin)
		lora__file_close(&source->file);
	*source = (struct lora_source){0};
}

enum lora_status lora__source_read(const struct lora_source *source, uint64_t offset, void *buffer,
				   size_t size, struct lora_error *err)
{
	return source->origin->read(source, offset, buffer, size, err);
}

enum lora_status lora__adapter_unchanged(const struct lora_adapter *adapter, struct lora_error *err)
{
	enum lora_status status = LORA_OK;

	for (size_t i = 0; i < adapter->file_count && !status; i++)
		status = adapter->origin->unchanged(&adapter->files[i], err);
	return status;
}

enum lora_status lora__adapter_read(const struct lora_adapter *adapter, const struct lora_tensor *t,
				    uint64_t offset, void *buffer, size_t size,
				    struct lora_error *err)
{
	return lora__source_read(&adapter->files[t->file], t->begin + offset, buffer, size, err);
}

enum lora_status lora__adapter_has(const struct lora_adapter *adapter, const char *name,
				   bool *there, struct lora_error *err)
{
	*there = false;
	return adapter->origin->has(adapter, name, there, err);
}

static enum lora_status slurp(const struct lora_source *source, const char *name, uint64_t limit,
			      char **text, size_t *size, struct lora_error *err)
{
	enum lora_status status;

	if (source->size > limit || source->size >= SIZE_MAX)
		return lora__fail(err, LORA_INPUT,
				  "'%s' has %" PRIu64 " bytes: at most %" PRIu64 " are read",
				  lora__escape(name), source->size, limit);
	*size = (size_t)source->size;
	*text = malloc(*size + 1);
	if (!*text)
		return lora__fail_memory(err);
	(*text)[*size] = '\0';
	status = lora__source_read(source, 0, *text, *size, err);
	return status ? status : source->origin->unchanged(source, err);
}

enum lora_status lora__adapter_slurp(const struct lora_adapter *adapter, const char *name,
				     uint64_t limit, char **text, size_t *size,
				     struct lora_error *err)
{
	struct lora_source source = {0};
	bool there = false;
	enum lora_status status = lora__adapter_has(adapter, name, &there, err);

	*text = NULL;
	*size = 0;
	if (status || !there)
		return status;
	status = lora__source_open(&source, adapter, name, err);
	if (!status)
		status = slurp(&source, name, limit, text, size, err);
	lora__source_close(&source);
	if (status) {
		free(*text);
		*text = NULL;
	}
	return status;
}
