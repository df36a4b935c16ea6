/* SPDX-License-Identifier: Apache-2.0 */
/* net/stops.c - the tokens by which a model's files say that a text ends: `eos_token_id`, a number
 * or a list of numbers, in config.json and in generation_config.json beside it.
 */
#include <stdlib.h>

#include "base/file.h"
#include "base/json.h"
#include "net/net.h"

#define LIMIT ((uint64_t)1 << 20) /* bytes of generation_config.json: a few hundred as a rule */

struct stops {
	uint32_t *ids;
	size_t count, room;
};

static void add_one(struct stops *stops, const struct lora_json *json)
{
	uint64_t id = 0;

	if (!lora__json_u64(json, &id) || id > UINT32_MAX)
		return;
	for (size_t i = 0; i < stops->count && i < stops->room; i++)
		if (stops->ids[i] == id)
			return;
	if (stops->count < stops->room)
		stops->ids[stops->count] = (uint32_t)id;
	stops->count++;
}

static void add(struct stops *stops, const struct lora_json *config)
{
	const struct lora_json *eos = lora__json_get(config, "eos_token_id");

	add_one(stops, eos);
	if (eos && lora__json_type(eos) == LORA_JSON_ARRAY)
		for (const struct lora_json *i = lora__json_first(eos); i; i = lora__json_next(i))
			add_one(stops, i);
}

size_t lora_net_stops(const struct lora_net *net, uint32_t *ids, size_t room)
{
	struct stops stops = {ids, 0, room};
	char *path = lora__path_join(net->model->path, "generation_config.json"), *text = NULL;
	struct lora_json *json = NULL;
	size_t size;

	add(&stops, net->model->config);
	if (path && lora__file_slurp(path, LIMIT, &text, &size, NULL) == LORA_OK &&
	    lora__json_parse(&json, text, size, NULL) == LORA_OK)
		add(&stops, json);
	lora__json_free(json);
	free(text);
	free(path);
	return stops.count;
}
