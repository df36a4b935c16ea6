/* SPDX-License-Identifier: Apache-2.0 */
/* adapter/files.c - an adapter's weights: one safetensors file, or shards that an index names.
 *
 * 1. In a directory: adapter_model.safetensors, else the shards of
 *    adapter_model.safetensors.index.json. Pickles (.bin) are not read: loading one runs its
 *    code.
 * 2. All shards become one index; a tensor stands in one of them, where the index says. */
#include "adapter/adapter.h"

#include "base/error.h"

#include <stdlib.h>
#include <string.h>

#define WEIGHTS "adapter_model.safetensors"
#define INDEX	"adapter_model.safetensors.index.json"

char *lora__adapter_beside(const struct lora_adapter *adapter, const char *name)
{
	const char *slash = strrchr(adapter->path, '/');
	char *folder, *path;

	if (adapter->directory)
		return lora__path_join(adapter->path, name);
	folder = slash ? strndup(adapter->path, (size_t)(slash - adapter->path) + 1) : strdup(".");
	path = folder ? lora__path_join(folder, name) : NULL;
	free(folder);
	return path;
}

static enum lora_status is_there(const struct lora_adapter *adapter, const char *name, bool *there,
				 struct lora_error *err)
{
	char *path = lora__path_join(adapter->path, name);
	enum lora_path_kind kind = LORA_PATH_ABSENT;
	enum lora_status status = path ? lora__path_kind(path, &kind, err) : lora__fail_memory(err);

	*there = kind != LORA_PATH_ABSENT;
	free(path);
	return status;
}

/* Opens adapter->files[number] and reads its head. */
static enum lora_status open_file(struct lora_adapter *adapter, const char *path,
				  struct lora_index *index, struct lora_error *err)
{
	struct lora_file *file = &adapter->files[adapter->file_count];
	enum lora_status status;
	uint8_t *head = NULL;
	size_t size;

	*file = (struct lora_file)LORA_FILE_INIT;
	status = lora__file_open(file, path, err);
	if (status)
		return status;
	adapter->file_count++;
	status = lora__container_load(index, &head, &size, file, err);
	free(head);
	return status;
}

static enum lora_status open_single(struct lora_adapter *adapter, const char *path,
				    struct lora_error *err)
{
	adapter->files = calloc(1, sizeof(*adapter->files));
	if (!adapter->files)
		return lora__fail_memory(err);
	return open_file(adapter, path, &adapter->index, err);
}

static enum lora_status join(struct lora_adapter *adapter, uint32_t file,
			     const struct lora_index *index, struct lora_error *err)
{
	struct lora_index *all = &adapter->index;
	enum lora_status status = LORA_OK;

	for (size_t i = 0; i < index->count && !status; i++) {
		struct lora_tensor *tensor = &all->tensors[all->count];
		size_t length = strlen(index->tensors[i].name);
		bool present;

		*tensor = index->tensors[i];
		tensor->file = file;
		tensor->name = lora__arena_copy(&all->arena, tensor->name, length);
		if (!tensor->name)
			return lora__fail_memory(err);
		status = lora__map_add(&all->by_name, tensor->name, length, (uint32_t)all->count,
				       &present, err);
		if (!status && present)
			return lora__fail(
			    err, LORA_INPUT,
			    "tensor '%s' stands in two shards: fetch all of one version",
			    lora__escape(tensor->name));
		all->count++;
	}
	return status;
}

static enum lora_status open_named(struct lora_adapter *adapter, const struct lora_shard_map *map,
				   struct lora_index *indices, struct lora_error *err)
{
	enum lora_status status = LORA_OK;
	size_t count = 0;

	adapter->files = calloc(map->name_count + 1, sizeof(*adapter->files));
	if (!adapter->files)
		return lora__fail_memory(err);
	for (size_t i = 0; i < map->name_count && !status; i++) {
		char *path = lora__path_join(adapter->path, map->names[i]);

		status = path ? open_file(adapter, path, &indices[i], err) : lora__fail_memory(err);
		count += indices[i].count;
		free(path);
	}
	if (status)
		return status;
	if (count >= UINT32_MAX)
		return lora__fail(err, LORA_INPUT, "the adapter has too many tensors");
	adapter->index.tensors =
	    lora__arena_array(&adapter->index.arena, count + 1, sizeof(*adapter->index.tensors));
	if (!adapter->index.tensors)
		return lora__fail_memory(err);
	for (size_t i = 0; i < map->name_count && !status; i++)
		status = join(adapter, (uint32_t)i, &indices[i], err);
	return status ? status : lora__shard_map_check(map, &adapter->index, err);
}

static enum lora_status open_sharded(struct lora_adapter *adapter, struct lora_error *err)
{
	char *path = lora__path_join(adapter->path, INDEX), *text = NULL;
	struct lora_index *indices = NULL;
	struct lora_shard_map map = {0};
	enum lora_status status;
	size_t size;

	status = path ? lora__file_slurp(path, LORA_INDEX_LIMIT, &text, &size, err)
		      : lora__fail_memory(err);
	if (status)
		goto out;
	status = lora__shard_map_parse(&map, text, size, err);
	if (status) {
		lora__context(err, status, "'%s'", lora__escape(path));
		goto out;
	}
	indices = calloc(map.name_count + 1, sizeof(*indices));
	status = indices ? open_named(adapter, &map, indices, err) : lora__fail_memory(err);
out:
	for (size_t i = 0; indices && i < map.name_count; i++)
		lora__index_fini(&indices[i]);
	lora__shard_map_fini(&map);
	free(indices);
	free(text);
	free(path);
	return status;
}

enum lora_status lora__adapter_files(struct lora_adapter *adapter, struct lora_error *err)
{
	bool weights = false, index = false, pickle = false;
	enum lora_status status;
	char *path;

	if (!adapter->directory)
		return open_single(adapter, adapter->path, err);
	status = is_there(adapter, WEIGHTS, &weights, err);
	if (!status)
		status = is_there(adapter, INDEX, &index, err);
	if (!status)
		status = is_there(adapter, "adapter_model.bin", &pickle, err);
	if (status)
		return status;
	if (!weights && index)
		return open_sharded(adapter, err);
	if (!weights)
		return lora__fail(err, LORA_INPUT,
				  pickle ? "it has no " WEIGHTS
					   ", and adapter_model.bin is a pickle, "
					   "which is not read: save the adapter as safetensors"
					 : "it has no " WEIGHTS ": give the directory that "
					   "save_pretrained wrote");
	path = lora__path_join(adapter->path, WEIGHTS);
	status = path ? open_single(adapter, path, err) : lora__fail_memory(err);
	free(path);
	return status;
}
