/* SPDX-License-Identifier: Apache-2.0 */
/* checkpoint/shard_map.c - model.safetensors.index.json
 *
 * What it is     the list that ties the shards of a model together, as transformers writes it.
 * Layout
 *		{ "metadata":   { "total_size": BYTES, ... },		(not looked at)
 *		  "weight_map": { TENSOR: SHARD, ... } }
 *
 * Invariants     (1) A shard is named by a plain file name: no '/', no '..', nothing that could
 *lead out of the directory. (2) Shards are numbered in bytewise ascending order of name, so that
 *their order does not depend on the order of tensors in the map. (3) The map and the shards'
 *headers name the same tensors, in the same places. Decisions      metadata.total_size is ignored:
 *writers disagree on whether tied tensors count twice. A map that names a tensor which no shard
 *holds is refused, and so is the reverse: either way something would be lost silently by whoever
 *trusts the other one. Tested by      tests/unit/test_model.c, tests/fuzz/fuzz_index.c
 */
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "base/map.h"
#include "checkpoint/checkpoint.h"

void lora__shard_map_fini(struct lora_shard_map *map)
{
	lora__json_free(map->json);
	lora__arena_fini(&map->arena);
	memset(map, 0, sizeof(*map));
}

static int by_text(const void *left, const void *right)
{
	const char *const *a = left, *const *b = right;

	return strcmp(*a, *b);
}

/* One pair of the weight_map, as far as it can be judged alone: [1]. */
static enum lora_status check_pair(const struct lora_json *pair, struct lora_error *err)
{
	const char *tensor = lora__json_key(pair), *shard = lora__json_string(pair);

	if (!shard)
		return lora__fail(err, LORA_INPUT,
				  "weight_map: the shard of '%s' is no string: " LORA_DAMAGED,
				  lora__escape(tensor));
	if (!lora__path_is_plain(shard))
		return lora__fail(
		    err, LORA_INPUT,
		    "weight_map: '%s' is said to be in '%s', which is not the name of a "
		    "file in the same directory: " LORA_DAMAGED,
		    lora__escape(tensor), lora__escape(shard));
	return LORA_OK;
}

/* names := the distinct shards, ascending. `numbers` maps them to their position. */
static enum lora_status number_names(struct lora_shard_map *map, const struct lora_json *weight_map,
				     struct lora_map *numbers, struct lora_error *err)
{
	const struct lora_json *pair = lora__json_first(weight_map);
	enum lora_status status = LORA_OK;
	struct lora_map seen = {0};
	bool present = false;

	for (; pair && status == LORA_OK; pair = lora__json_next(pair)) {
		const char *name = lora__json_string(pair);

		status = check_pair(pair, err);
		if (status == LORA_OK)
			status = lora__map_add(&seen, name, strlen(name), 0, &present, err);
		if (status == LORA_OK && !present)
			map->names[map->name_count++] = name;
	}
	lora__map_fini(&seen);
	if (status != LORA_OK)
		return status;
	qsort(map->names, map->name_count, sizeof(*map->names), by_text);
	for (size_t i = 0; i < map->name_count && status == LORA_OK; i++)
		status = lora__map_add(numbers, map->names[i], strlen(map->names[i]), (uint32_t)i,
				       &present, err);
	return status;
}

static enum lora_status read_pairs(struct lora_shard_map *map, const struct lora_json *weight_map,
				   struct lora_error *err)
{
	const struct lora_json *pair = lora__json_first(weight_map);
	size_t count = lora__json_count(weight_map);
	enum lora_status status = LORA_OK;
	struct lora_map numbers = {0};

	map->names = lora__arena_array(&map->arena, count, sizeof(*map->names));
	map->entries = lora__arena_array(&map->arena, count, sizeof(*map->entries));
	if (!map->names || !map->entries)
		return lora__fail_memory(err);
	status = number_names(map, weight_map, &numbers, err);
	for (; pair && status == LORA_OK; pair = lora__json_next(pair)) {
		struct lora_shard_entry *entry = &map->entries[map->entry_count++];
		const char *name = lora__json_string(pair);

		entry->tensor = lora__json_key(pair);
		entry->shard = lora__map_find(&numbers, name, strlen(name));
	}
	lora__map_fini(&numbers);
	return status;
}

enum lora_status lora__shard_map_parse(struct lora_shard_map *map, const char *text, size_t size,
				       struct lora_error *err)
{
	const struct lora_json *weight_map = NULL;
	enum lora_status status = LORA_OK;

	if (size > LORA_INDEX_LIMIT)
		return lora__fail(err, LORA_INPUT, "%zu bytes, at most %llu are supported", size,
				  (unsigned long long)LORA_INDEX_LIMIT);
	status = lora__json_parse(&map->json, text, size, err);
	if (status != LORA_OK)
		return status;
	weight_map = lora__json_get(map->json, "weight_map");
	if (!weight_map || lora__json_type(weight_map) != LORA_JSON_OBJECT)
		return lora__fail(err, LORA_INPUT, "it has no object 'weight_map': " LORA_DAMAGED);
	if (!lora__json_first(weight_map))
		return lora__fail(err, LORA_INPUT,
				  "its 'weight_map' names no tensor: " LORA_DAMAGED);
	return read_pairs(map, weight_map, err);
}

/* The tensor that no entry named: there is one, since there are more tensors than entries. */
static enum lora_status refuse_unnamed(const struct lora_shard_map *map,
				       const struct lora_index *index, const bool *named,
				       struct lora_error *err)
{
	size_t i = 0;

	while (named[i])
		i++;
	return lora__fail(
	    err, LORA_INPUT,
	    "its weight_map does not name tensor '%s', which '%s' holds: fetch index and "
	    "shards of one version",
	    lora__escape(index->tensors[i].name), lora__escape(map->names[index->tensors[i].file]));
}

static enum lora_status check_entry(const struct lora_shard_map *map,
				    const struct lora_shard_entry *entry,
				    const struct lora_tensor *tensor, struct lora_error *err)
{
	if (!tensor)
		return lora__fail(
		    err, LORA_INPUT,
		    "tensor '%s' is said to be in '%s', which does not hold it: fetch "
		    "index and shards of one version",
		    lora__escape(entry->tensor), lora__escape(map->names[entry->shard]));
	if (tensor->file != entry->shard)
		return lora__fail(
		    err, LORA_INPUT,
		    "tensor '%s' is said to be in '%s', but is in '%s': fetch index and "
		    "shards of one version",
		    lora__escape(entry->tensor), lora__escape(map->names[entry->shard]),
		    lora__escape(map->names[tensor->file]));
	return LORA_OK;
}

enum lora_status lora__shard_map_check(const struct lora_shard_map *map,
				       const struct lora_index *index, struct lora_error *err)
{
	enum lora_status status = LORA_OK;
	bool *named = calloc(index->count + 1, sizeof(*named));

	if (!named)
		return lora__fail_memory(err);
	for (size_t i = 0; i < map->entry_count && status == LORA_OK; i++) {
		const struct lora_shard_entry *entry = &map->entries[i];
		const struct lora_tensor *tensor =
		    lora__index_find(index, entry->tensor, strlen(entry->tensor));

		status = check_entry(map, entry, tensor, err);
		if (tensor)
			named[tensor - index->tensors] = true;
	}
	if (status == LORA_OK && map->entry_count < index->count)
		status = refuse_unnamed(map, index, named, err);
	free(named);
	return status;
}
