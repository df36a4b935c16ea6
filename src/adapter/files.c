/* SPDX-License-Identifier: Apache-2.0 */
/* adapter/files.c - an adapter's weights: one safetensors file, or shards that an index names.
 *
 * 1. In a directory: adapter_model.safetensors, else the shards of
 *    adapter_model.safetensors.index.json. Pickles (.bin) are not read: loading one runs its
 *    code.
 * 2. All shards become one index; a tensor stands in one of them, where the index says.
 * 3. A version of a container is a directory like another: adapter/source.h. */
#include "adapter/adapter.h"

#include "base/error.h"

#include <stdlib.h>
#include <string.h>

#define WEIGHTS "adapter_model.safetensors"
#define INDEX	"adapter_model.safetensors.index.json"

static enum lora_status read_bytes(const void *from, uint64_t offset, void *buffer, size_t size,
				   struct lora_error *err)
{
	return lora__source_read(from, offset, buffer, size, err);
}

/* Opens adapter->files[number] and reads its head. NULL: the adapter is that file. */
static enum lora_status open_file(struct lora_adapter *adapter, const char *name,
				  struct lora_index *index, struct lora_error *err)
{
	struct lora_source *source = &adapter->files[adapter->file_count];
	struct lora_bytes bytes = {name, 0, read_bytes, source};
	enum lora_status status = lora__source_open(source, adapter, name, err);
	uint8_t *head = NULL;
	size_t size;

	if (status) {
		lora__source_close(source);
		return status;
	}
	adapter->file_count++;
	bytes.size = source->size;
	if (source->file.path)
		bytes.path = source->file.path;
	status = lora__container_load_bytes(index, &head, &size, &bytes, err);
	free(head);
	return status;
}

static enum lora_status open_single(struct lora_adapter *adapter, const char *name,
				    struct lora_error *err)
{
	adapter->files = calloc(1, sizeof(*adapter->files));
	if (!adapter->files)
		return lora__fail_memory(err);
	return open_file(adapter, name, &adapter->index, err);
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
		status = open_file(adapter, map->names[i], &indices[i], err);
		count += indices[i].count;
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
	struct lora_index *indices = NULL;
	struct lora_shard_map map = {0};
	enum lora_status status;
	char *text = NULL;
	size_t size;

	status = lora__adapter_slurp(adapter, INDEX, LORA_INDEX_LIMIT, &text, &size, err);
	if (!status)
		status = lora__adapter_part(adapter, INDEX, text, size, err);
	if (status)
		goto out;
	status = lora__shard_map_parse(&map, text, size, err);
	if (status) {
		lora__context(err, status, "'%s'", INDEX);
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
	return status;
}

enum lora_status lora__adapter_files(struct lora_adapter *adapter, struct lora_error *err)
{
	bool weights = false, index = false, pickle = false;
	enum lora_status status;

	if (!adapter->directory)
		return open_single(adapter, NULL, err);
	status = lora__adapter_has(adapter, WEIGHTS, &weights, err);
	if (!status)
		status = lora__adapter_has(adapter, INDEX, &index, err);
	if (!status)
		status = lora__adapter_has(adapter, "adapter_model.bin", &pickle, err);
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
	return open_single(adapter, WEIGHTS, err);
}
