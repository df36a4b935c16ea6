/* SPDX-License-Identifier: Apache-2.0 */
/* adapter/diff_config.c - two JSON objects, member by member.
 *
 * Values are compared as canonical text: the order of members means nothing, that of a list does, a
 * number is what was written. Objects on both sides are entered, which the reader's limit on depth
 * bounds. */
#include "adapter/diff.h"

#include "base/error.h"

#include <stdlib.h>
#include <string.h>

static enum lora_status canonical(struct lora_diff *diff, const struct lora_json *value,
				  const char **text, struct lora_error *err)
{
	char *made = NULL;
	size_t length = 0;
	enum lora_status status = LORA_OK;

	*text = NULL;
	if (!value)
		return LORA_OK;
	status = lora__json_canonical(value, &made, &length, err);
	if (!status) {
		*text = lora__arena_copy(&diff->arena, made, length);
		status = *text ? LORA_OK : lora__fail_memory(err);
	}
	free(made);
	return status;
}

static enum lora_status add(struct lora_diff *diff, struct lora_config_difference found,
			    struct lora_error *err)
{
	if (diff->config_count == diff->config_room) {
		size_t room = diff->config_room ? 2 * diff->config_room : 16;
		struct lora_config_difference *more =
		    realloc(diff->config, room * sizeof(*diff->config));

		if (!more)
			return lora__fail_memory(err);
		diff->config = more;
		diff->config_room = room;
	}
	diff->config[diff->config_count++] = found;
	return LORA_OK;
}

static bool is_object(const struct lora_json *value)
{
	return value && lora__json_type(value) == LORA_JSON_OBJECT;
}

/* The members of an object, by name: a file chooses how many there are. */
struct members {
	const struct lora_json **at;
	struct lora_map by_name;
};

static enum lora_status members_init(struct members *m, const struct lora_json *object,
				     struct lora_error *err)
{
	size_t count = lora__json_count(object);
	const struct lora_json *member = lora__json_first(object);
	enum lora_status status = LORA_OK;
	bool present;

	m->at = calloc(count + 1, sizeof(*m->at));
	if (!m->at)
		return lora__fail_memory(err);
	for (uint32_t i = 0; member && !status; i++, member = lora__json_next(member)) {
		const char *key = lora__json_key(member);

		m->at[i] = member;
		status = lora__map_add(&m->by_name, key, strlen(key), i, &present, err);
	}
	return status;
}

static void members_fini(struct members *m)
{
	lora__map_fini(&m->by_name);
	free(m->at);
}

static const struct lora_json *member_find(const struct members *m, const char *key)
{
	uint32_t i = lora__map_find(&m->by_name, key, strlen(key));

	return i == UINT32_MAX ? NULL : m->at[i];
}

static enum lora_status compare_objects(struct lora_diff *diff, const char *prefix,
					const struct lora_json *x, const struct lora_json *y,
					struct lora_error *err);

/* A path longer than that is not entered any further: it would be copied for every member. */
#define PATH_LIMIT 1024

static enum lora_status compare_values(struct lora_diff *diff, const char *prefix, const char *name,
				       const struct lora_json *x, const struct lora_json *y,
				       struct lora_error *err)
{
	struct lora_config_difference found = {NULL, NULL, NULL};
	enum lora_status status = canonical(diff, x, &found.x, err);

	if (!status)
		status = canonical(diff, y, &found.y, err);
	if (status || (found.x && found.y && strcmp(found.x, found.y) == 0))
		return status;
	found.key = lora__arena_printf(&diff->arena, "%s%s%s", prefix, *prefix ? "." : "", name);
	if (!found.key)
		return lora__fail_memory(err);
	if (is_object(x) && is_object(y) && strlen(found.key) < PATH_LIMIT)
		return compare_objects(diff, found.key, x, y, err);
	return add(diff, found, err);
}

static enum lora_status compare_objects(struct lora_diff *diff, const char *prefix,
					const struct lora_json *x, const struct lora_json *y,
					struct lora_error *err)
{
	struct members in_x = {0}, in_y = {0};
	enum lora_status status = members_init(&in_x, x, err);

	if (!status)
		status = members_init(&in_y, y, err);
	for (size_t i = 0; !status && in_x.at[i]; i++) {
		const char *key = lora__json_key(in_x.at[i]);

		status =
		    compare_values(diff, prefix, key, in_x.at[i], member_find(&in_y, key), err);
	}
	for (size_t i = 0; !status && in_y.at[i]; i++) {
		const char *key = lora__json_key(in_y.at[i]);

		if (!member_find(&in_x, key))
			status = compare_values(diff, prefix, key, NULL, in_y.at[i], err);
	}
	members_fini(&in_x);
	members_fini(&in_y);
	return status;
}

enum lora_status lora__diff_json(struct lora_diff *diff, const struct lora_json *x,
				 const struct lora_json *y, struct lora_error *err)
{
	return compare_objects(diff, "", is_object(x) ? x : NULL, is_object(y) ? y : NULL, err);
}
