/* SPDX-License-Identifier: Apache-2.0 */
/* base/json_canonical.c - one spelling for everything that is the same JSON value
 *
 * Keys ascend by their bytes, white space is gone, strings are escaped only where JSON demands it,
 * numbers stay as they were written (1.0 and 1 differ: who wrote them may have meant to). Numbers
 * apart, it is what Python writes with
 *
 *	json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
 *
 * since UTF-8 sorted by bytes is sorted by code points.
 */
#include <stdlib.h>
#include <string.h>

#include <loractl/json.h>

#include "base/error.h"
#include "base/json.h"

static enum lora_status put_value(struct lora_json_writer *writer, const struct lora_json *json,
				  struct lora_error *err);

static int by_key(const void *a, const void *b)
{
	const struct lora_json *const *x = a, *const *y = b;

	return strcmp(lora__json_key(*x), lora__json_key(*y));
}

static enum lora_status put_object(struct lora_json_writer *writer, const struct lora_json *json,
				   struct lora_error *err)
{
	size_t count = lora__json_count(json), i = 0;
	const struct lora_json **members = calloc(count + 1, sizeof *members);
	enum lora_status status = LORA_OK;

	if (members == NULL)
		return lora__fail_memory(err);
	for (json = lora__json_first(json); json != NULL; json = lora__json_next(json))
		members[i++] = json;
	qsort(members, count, sizeof *members, by_key);
	lora_json_begin_object(writer);
	for (i = 0; i < count && status == LORA_OK; i++) {
		lora_json_key(writer, lora__json_key(members[i]));
		status = put_value(writer, members[i], err);
	}
	lora_json_end_object(writer);
	free(members);
	return status;
}

static enum lora_status put_array(struct lora_json_writer *writer, const struct lora_json *json,
				  struct lora_error *err)
{
	enum lora_status status = LORA_OK;

	lora_json_begin_array(writer);
	json = lora__json_first(json);
	for (; json != NULL && status == LORA_OK; json = lora__json_next(json))
		status = put_value(writer, json, err);
	lora_json_end_array(writer);
	return status;
}

static enum lora_status put_value(struct lora_json_writer *writer, const struct lora_json *json,
				  struct lora_error *err)
{
	switch (lora__json_type(json)) {
	case LORA_JSON_OBJECT:
		return put_object(writer, json, err);
	case LORA_JSON_ARRAY:
		return put_array(writer, json, err);
	case LORA_JSON_STRING:
		lora_json_string(writer, lora__json_string(json));
		break;
	case LORA_JSON_NUMBER:
		lora__json_raw(writer, lora__json_number(json));
		break;
	case LORA_JSON_NULL:
		lora_json_null(writer);
		break;
	default:
		lora_json_bool(writer, lora__json_type(json) == LORA_JSON_TRUE);
		break;
	}
	return LORA_OK;
}

enum lora_status lora__json_canonical(const struct lora_json *json, char **text, size_t *length,
				      struct lora_error *err)
{
	struct lora_json_writer *writer = lora__json_writer_minimal();
	enum lora_status status = LORA_SYSTEM;
	const char *borrowed = NULL;

	*text = NULL;
	*length = 0;
	if (writer == NULL)
		return lora__fail_memory(err);
	status = put_value(writer, json, err);
	if (status == LORA_OK)
		status = lora_json_writer_text(writer, &borrowed, length, err);
	if (status == LORA_OK)
		*text = lora__json_writer_take(writer);
	lora_json_writer_free(writer);
	return status;
}
