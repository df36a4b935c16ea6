/* SPDX-License-Identifier: Apache-2.0 */
/* merge/patch.c - a scanner over JSON that is known to be valid, to find where one value stands.
 *
 * A merged model's config.json differs from the base's in one or two values at most; rewriting the
 * file through a tree would lose number spellings, order and layout that people and other tools
 * compare. So the file is treated as text: the value's bytes change.
 */
#include "merge/patch.h"

#include "base/error.h"
#include "base/json.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum lora_status lora__text_copy(struct lora_text *text, const char *data, size_t size,
				 struct lora_error *err)
{
	text->data = malloc(size + 1);
	if (!text->data)
		return lora__fail_memory(err);
	memcpy(text->data, data, size);
	text->data[size] = '\0';
	text->size = size;
	return LORA_OK;
}

void lora__text_fini(struct lora_text *text)
{
	free(text->data);
	text->data = NULL;
	text->size = 0;
}

static const char *skip_space(const char *p)
{
	return p + strspn(p, " \t\r\n");
}

/* p at the opening quote; the result is behind the closing one. */
static const char *skip_string(const char *p)
{
	for (p++; *p && *p != '"'; p++)
		if (*p == '\\' && p[1])
			p++;
	return *p ? p + 1 : p;
}

static const char *skip_value(const char *p)
{
	int depth = 0;

	if (*p != '{' && *p != '[' && *p != '"')
		return p + strcspn(p, ",]} \t\r\n");
	do {
		if (*p == '"') {
			p = skip_string(p);
			continue;
		}
		depth += (*p == '{' || *p == '[') - (*p == '}' || *p == ']');
		p++;
	} while (*p && depth > 0);
	return p;
}

/* Where a member's value stands, or would: [begin, end) is the value; begin == end: absent, to be
 * inserted there. */
struct place {
	const char *begin, *end;
	const char *lead; /* white space before the first member's key, lead_size bytes */
	size_t lead_size;
	bool found, empty;
};

/* p at the '{' of an object. */
static struct place find_member(const char *p, const char *key)
{
	struct place place = {NULL, NULL, p + 1, 0, false, false};
	size_t length = strlen(key);
	const char *last = p + 1;

	p = skip_space(p + 1);
	place.lead_size = (size_t)(p - place.lead);
	place.empty = *p == '}';
	while (*p == '"') {
		const char *name = p + 1;

		p = skip_string(p);
		place.found = (size_t)(p - 1 - name) == length && memcmp(name, key, length) == 0;
		p = skip_space(p);
		p = skip_space(p + 1); /* the colon */
		place.begin = p;
		p = last = skip_value(p);
		place.end = p;
		if (place.found)
			return place;
		p = skip_space(p);
		if (*p == ',')
			p = skip_space(p + 1);
	}
	place.begin = place.end = last;
	return place;
}

static enum lora_status splice(struct lora_text *text, struct place place, const char *key,
			       const char *value, struct lora_error *err)
{
	size_t head = (size_t)(place.begin - text->data),
	       tail = (size_t)(text->data + text->size - place.end);
	size_t room = text->size + strlen(key) + strlen(value) + place.lead_size + 16;
	char *out = malloc(room);
	int n;

	if (!out)
		return lora__fail_memory(err);
	memcpy(out, text->data, head);
	if (place.found)
		n = snprintf(out + head, room - head, "%s", value);
	else
		n = snprintf(out + head, room - head, "%s%.*s\"%s\": %s", place.empty ? "" : ",",
			     (int)place.lead_size, place.lead, key, value);
	memcpy(out + head + n, place.end, tail);
	out[head + (size_t)n + tail] = '\0';
	free(text->data);
	text->data = out;
	text->size = head + (size_t)n + tail;
	return LORA_OK;
}

enum lora_status lora__text_set(struct lora_text *text, const char *object, const char *key,
				const char *value, struct lora_error *err)
{
	const char *root = skip_space(text->data);
	struct lora_json *check = NULL;
	enum lora_status status;

	if (*root == '{' && object) {
		struct place inner = find_member(root, object);

		root = inner.found ? inner.begin : "";
	}
	if (*root != '{')
		return lora__fail(err, LORA_INPUT, "no JSON object %s%s%s to set '%s' in",
				  object ? "'" : "", object ? object : "at the root",
				  object ? "'" : "", key);
	status = splice(text, find_member(root, key), key, value, err);
	if (!status)
		status = lora__json_parse(&check, text->data, text->size, err);
	lora__json_free(check);
	return status;
}
