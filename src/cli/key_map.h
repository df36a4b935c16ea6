/* SPDX-License-Identifier: Apache-2.0 */
/* cli/key_map.h - the file behind --key-map: which adapter name means which base tensor. */
#ifndef LORA_CLI_KEY_MAP_H
#define LORA_CLI_KEY_MAP_H

#include <stddef.h>

#include <loractl/error.h>

struct key_map {
	const char *
	    *pairs;   /* adapter name, base name, ...; ends with NULL, as the library wants it */
	size_t count; /* of pairs */
	char **lines; /* hold the names */
};

/* Reads path. LORA_INPUT if it does not exist or is malformed, LORA_SYSTEM if it cannot be read.
 * The caller frees the map, also after a failure. */
enum lora_status key_map_read(struct key_map *map, const char *path, struct lora_error *err);
void key_map_free(struct key_map *map);

#endif
