/* SPDX-License-Identifier: Apache-2.0 */
/* fuzz_index.c - any bytes as model.safetensors.index.json
 *
 * What is accepted names plain files only, in ascending order, each of them used; no tensor twice.
 */
#include <stdlib.h>
#include <string.h>

#include "base/map.h"
#include "checkpoint/checkpoint.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void demand(bool truth)
{
	if (!truth)
		abort();
}

static void check(const struct lora_shard_map *map)
{
	bool *used = calloc(map->name_count + 1, sizeof(*used));
	struct lora_map tensors = {0};

	demand(used != NULL && map->entry_count > 0 && map->name_count > 0);
	for (size_t i = 0; i < map->name_count; i++) {
		const char *name = map->names[i];

		demand(name[0] && strcmp(name, ".") != 0 && strcmp(name, "..") != 0);
		for (const char *at = name; *at; at++)
			demand(*at != '/' && (unsigned char)*at >= 0x20);
		demand(i == 0 || strcmp(map->names[i - 1], name) < 0);
	}
	for (size_t i = 0; i < map->entry_count; i++) {
		const struct lora_shard_entry *entry = &map->entries[i];
		struct lora_error err = LORA_ERROR_INIT;
		bool present = true;

		demand(entry->shard < map->name_count);
		used[entry->shard] = true;
		demand(lora__map_add(&tensors, entry->tensor, strlen(entry->tensor), 0, &present,
				     &err) == LORA_OK);
		demand(!present);
	}
	for (size_t i = 0; i < map->name_count; i++)
		demand(used[i]);
	lora__map_fini(&tensors);
	free(used);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct lora_error err = LORA_ERROR_INIT;
	struct lora_shard_map map = {0};
	enum lora_status status;

	status = lora__shard_map_parse(&map, (const char *)data, size, &err);
	if (status == LORA_OK)
		check(&map);
	else
		demand(status == err.status && err.message[0] && !strchr(err.message, '\n'));
	lora__shard_map_fini(&map);
	return 0;
}
