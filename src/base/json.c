/* SPDX-License-Identifier: Apache-2.0 */
/* base/json.c - reading JSON from strangers
 *
 * cJSON parses, unescapes and holds the tree. It is kind to what it gets: every number becomes a
 * double, broken UTF-8 passes for text, and of two equal keys both stay. So a text goes through
 * three steps:
 *
 *	scan      (base/json_scan.c) the grammar of RFC 8259, to the letter, and our limits: what
 *fails it goes no further rewrite   white space goes; every string gets an 's' in front, and every
 *number becomes a string with an 'n' in front,
 *
 *	              {"a": [1.50, "x"]}   ->   {"sa":["n1.50","sx"]}
 *
 *	          so that cJSON keeps a number's digits and nothing is mistaken for anything else
 *	tree      cJSON's parser; then the keys of every object are compared with one another
 *
 * 1. Time is linear in the text. Memory too: a value takes about 110 bytes in cJSON, hence
 *    LORA_JSON_VALUES; keys take a hash table for the length of one comparison.
 * 2. Recursion is at most LORA_JSON_DEPTH deep, here and in cJSON.
 * 3. After the scan cJSON can fail for want of memory only.
 * 4. A lora_json is a cJSON of type String (its first letter says which), True, False, NULL, Array
 *    or Object.
 */
#include <cjson/cJSON.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "base/json.h"
#include "base/json_scan.h"
#include "base/map.h"
#include "base/number.h"

#define MARK_STRING 's'
#define MARK_NUMBER 'n'
/* Up to this many keys are compared each with each; more go into a hash table. */
#define FEW_KEYS 12

/* --- rewrite ------------------------------------------------------------------------- */

/* Copies the string that begins at *from, and its mark; *from and the result are behind it. */
static char *copy_string(const char **from, char *to)
{
	const char *in = *from;

	*to++ = *in++;
	*to++ = MARK_STRING;
	while (*in != '"') {
		if (*in == '\\')
			*to++ = *in++;
		*to++ = *in++;
	}
	*to++ = *in++;
	*from = in;
	return to;
}

static char *copy_number(const char **from, const char *end, char *to)
{
	const char *in = *from;

	*to++ = '"';
	*to++ = MARK_NUMBER;
	while (in < end && (lora__json_is_digit(*in) || *in == '-' || *in == '+' || *in == '.' ||
			    *in == 'e' || *in == 'E'))
		*to++ = *in++;
	*to++ = '"';
	*from = in;
	return to;
}

/* The marked spelling of a text that was scanned, and its length; malloc'd, NULL without memory. */
static char *rewrite(const char *json, size_t *length, size_t growth)
{
	const char *in = json, *end = json + *length;
	char *text, *to;

	if (growth > SIZE_MAX - *length - 1)
		return NULL;
	text = malloc(*length + growth + 1);
	if (text == NULL)
		return NULL;
	to = text;
	while (in < end) {
		if (*in == '"')
			to = copy_string(&in, to);
		else if (*in == '-' || lora__json_is_digit(*in))
			to = copy_number(&in, end, to);
		else if (lora__json_is_space(*in))
			in++;
		else
			*to++ = *in++;
	}
	*to = '\0';
	*length = (size_t)(to - text);
	return text;
}

/* --- keys ---------------------------------------------------------------------------- */

static enum lora_status fail_duplicate(const cJSON *member, struct lora_error *err)
{
	return lora__fail(err, LORA_INPUT, "malformed JSON: an object has the key '%s' twice",
			  lora__escape(member->string + 1));
}

static enum lora_status check_few_keys(const cJSON *object, struct lora_error *err)
{
	for (const cJSON *a = object->child; a != NULL; a = a->next)
		for (const cJSON *b = object->child; b != a; b = b->next)
			if (strcmp(a->string, b->string) == 0)
				return fail_duplicate(a, err);
	return LORA_OK;
}

static enum lora_status check_many_keys(const cJSON *object, struct lora_error *err)
{
	struct lora_map keys = {0};
	enum lora_status status = LORA_OK;
	const cJSON *member = object->child;

	for (; member != NULL && status == LORA_OK; member = member->next) {
		bool present = false;

		status =
		    lora__map_add(&keys, member->string, strlen(member->string), 0, &present, err);
		if (present)
			status = fail_duplicate(member, err);
	}
	lora__map_fini(&keys);
	return status;
}

static enum lora_status check_keys(const cJSON *value, struct lora_error *err)
{
	enum lora_status status = LORA_OK;
	size_t count = 0;

	for (const cJSON *child = value->child; child != NULL; child = child->next) {
		count++;
		if (child->child != NULL)
			status = check_keys(child, err);
		if (status != LORA_OK)
			return status;
	}
	if (!cJSON_IsObject(value))
		return LORA_OK;
	return count <= FEW_KEYS ? check_few_keys(value, err) : check_many_keys(value, err);
}

/* --- the tree ------------------------------------------------------------------------ */

static const cJSON *node_of(const struct lora_json *json)
{
	return (const cJSON *)json;
}

static const struct lora_json *json_of(const cJSON *node)
{
	return (const struct lora_json *)node;
}

enum lora_status lora__json_parse(struct lora_json **out, const char *text, size_t length,
				  struct lora_error *err)
{
	enum lora_status status;
	size_t growth = 0;
	char *marked = NULL;
	cJSON *root = NULL;

	*out = NULL;
	status = lora__json_scan(text, length, &growth, err);
	if (status != LORA_OK)
		return status;
	marked = rewrite(text, &length, growth);
	if (marked != NULL)
		root = cJSON_ParseWithLength(marked, length);
	free(marked);
	if (root == NULL)
		return lora__fail_memory(err);
	status = check_keys(root, err);
	if (status == LORA_OK)
		*out = (struct lora_json *)root;
	else
		cJSON_Delete(root);
	return status;
}

void lora__json_free(struct lora_json *json)
{
	cJSON_Delete((cJSON *)json);
}

enum lora_json_type lora__json_type(const struct lora_json *json)
{
	const cJSON *node = node_of(json);

	if (cJSON_IsString(node))
		return node->valuestring[0] == MARK_NUMBER ? LORA_JSON_NUMBER : LORA_JSON_STRING;
	if (cJSON_IsObject(node))
		return LORA_JSON_OBJECT;
	if (cJSON_IsArray(node))
		return LORA_JSON_ARRAY;
	if (cJSON_IsTrue(node))
		return LORA_JSON_TRUE;
	return cJSON_IsFalse(node) ? LORA_JSON_FALSE : LORA_JSON_NULL;
}

const struct lora_json *lora__json_first(const struct lora_json *json)
{
	return json == NULL ? NULL : json_of(node_of(json)->child);
}

const struct lora_json *lora__json_next(const struct lora_json *json)
{
	return json == NULL ? NULL : json_of(node_of(json)->next);
}

const char *lora__json_key(const struct lora_json *member)
{
	const cJSON *node = node_of(member);

	return node == NULL || node->string == NULL ? NULL : node->string + 1;
}

const struct lora_json *lora__json_get(const struct lora_json *json, const char *key)
{
	if (lora__json_type(json) != LORA_JSON_OBJECT)
		return NULL;
	for (json = lora__json_first(json); json != NULL; json = lora__json_next(json))
		if (strcmp(lora__json_key(json), key) == 0)
			return json;
	return NULL;
}

size_t lora__json_count(const struct lora_json *json)
{
	size_t count = 0;

	for (json = lora__json_first(json); json != NULL; json = lora__json_next(json))
		count++;
	return count;
}

/* --- values -------------------------------------------------------------------------- */

const char *lora__json_string(const struct lora_json *json)
{
	return lora__json_type(json) == LORA_JSON_STRING ? node_of(json)->valuestring + 1 : NULL;
}

const char *lora__json_number(const struct lora_json *json)
{
	return lora__json_type(json) == LORA_JSON_NUMBER ? node_of(json)->valuestring + 1 : NULL;
}

bool lora__json_u64(const struct lora_json *json, uint64_t *value)
{
	const char *text = lora__json_number(json);
	uint64_t sum = 0;

	if (text == NULL)
		return false;
	for (; *text != '\0'; text++) {
		unsigned digit = (unsigned)*text - '0';

		if (digit > 9 || sum > (UINT64_MAX - digit) / 10)
			return false;
		sum = sum * 10 + digit;
	}
	*value = sum;
	return true;
}

bool lora__json_double(const struct lora_json *json, double *value)
{
	const char *text = lora__json_number(json);

	return text != NULL && lora__double_parse(text, value);
}

bool lora__json_bool(const struct lora_json *json, bool *value)
{
	enum lora_json_type type = lora__json_type(json);

	if (type != LORA_JSON_TRUE && type != LORA_JSON_FALSE)
		return false;
	*value = type == LORA_JSON_TRUE;
	return true;
}

bool lora__json_is_empty(const struct lora_json *json)
{
	switch (lora__json_type(json)) {
	case LORA_JSON_STRING:
		return lora__json_string(json)[0] == '\0';
	case LORA_JSON_ARRAY:
	case LORA_JSON_OBJECT:
		return lora__json_first(json) == NULL;
	case LORA_JSON_NUMBER:
	case LORA_JSON_TRUE:
		return false;
	default:
		return true;
	}
}
