/* SPDX-License-Identifier: Apache-2.0 */
/* net/tokenizer_stages.c - reading normalizers, pre-tokenizers and decoders: what they share
 *
 *	{"type": "Sequence", "normalizers": [{"type": "NFC"}, {"type": "Lowercase"}]}
 *
 * becomes a flat list of stages. Each of the three families has a table of the types that it knows,
 * with the keys that each of them may have; here the tables are gone through.
 */
#include <stdio.h>
#include <string.h>

#include "base/error.h"
#include "base/utf8.h"
#include "net/tokenizer.h"

/* Is it one of the words of a list that is separated by blanks? */
static bool is_listed(const char *word, const char *list)
{
	size_t length = strlen(word);

	for (const char *at = list; at != NULL && *at != '\0'; at = strchr(at, ' ')) {
		at += *at == ' ';
		if (strncmp(at, word, length) == 0 && (at[length] == ' ' || at[length] == '\0'))
			return length > 0;
	}
	return false;
}

enum lora_status lora__check_keys(const struct lora_json *json, const char *keys, const char *where,
				  struct lora_error *err)
{
	if (lora__json_type(json) != LORA_JSON_OBJECT)
		return lora__fail(err, LORA_INPUT, "%s is no object", where);
	for (json = lora__json_first(json); json != NULL; json = lora__json_next(json))
		if (!is_listed(lora__json_key(json), keys))
			return lora__fail(err, LORA_INPUT, "%s: the key '%s' is not supported",
					  where, lora__escape(lora__json_key(json)));
	return LORA_OK;
}

struct lora_stage *lora__stage_add(struct lora_reader *reader, enum lora_stage_kind kind)
{
	struct lora_stage *stage;

	if (reader->stages->count == LORA_TOKENIZER_STAGES) {
		(void)lora__fail(reader->err, LORA_INPUT, "%s: more than %u components",
				 reader->where, LORA_TOKENIZER_STAGES);
		return NULL;
	}
	stage = &reader->stages->at[reader->stages->count++];
	*stage = (struct lora_stage){.kind = kind};
	return stage;
}

void lora__stages_fini(struct lora_stages *stages)
{
	for (size_t i = 0; i < stages->count; i++)
		lora__regex_free(stages->at[i].regex);
	stages->count = 0;
}

static enum lora_status fail_value(struct lora_reader *reader, const char *key)
{
	return lora__fail(reader->err, LORA_INPUT, "%s: %s: '%s' is missing or malformed",
			  reader->where, reader->type, key);
}

enum lora_status lora__read_bool(struct lora_reader *reader, const char *key, bool *value)
{
	return lora__json_bool(lora__json_get(reader->json, key), value) ? LORA_OK
									 : fail_value(reader, key);
}

enum lora_status lora__read_content(struct lora_reader *reader, const char *key,
				    struct lora_stage *stage)
{
	const char *text = lora__json_string(lora__json_get(reader->json, key));

	if (text == NULL)
		return fail_value(reader, key);
	stage->length = strlen(text);
	stage->content = lora__arena_copy(reader->arena, text, stage->length);
	return stage->content == NULL ? lora__fail_memory(reader->err) : LORA_OK;
}

enum lora_status lora__read_pattern(struct lora_reader *reader, struct lora_stage *stage)
{
	const struct lora_json *pattern = lora__json_get(reader->json, "pattern");
	const char *plain = lora__json_string(lora__json_get(pattern, "String"));
	const char *regex = lora__json_string(lora__json_get(pattern, "Regex"));

	if (lora__json_count(pattern) != 1 || (plain == NULL && regex == NULL))
		return fail_value(reader, "pattern");
	return lora__context(reader->err,
			     lora__regex_compile(&stage->regex, plain != NULL ? plain : regex,
						 plain != NULL, reader->err),
			     "%s: %s", reader->where, reader->type);
}

/* One character. */
static bool is_character(const char *text)
{
	uint32_t code = 0;
	size_t length = lora__utf8_decode(text, strlen(text), &code);

	return length > 0 && text[length] == '\0';
}

enum lora_status lora__read_character(struct lora_reader *reader, const char *key,
				      struct lora_stage *stage)
{
	enum lora_status status = lora__read_content(reader, key, stage);

	return status == LORA_OK && !is_character(stage->content) ? fail_value(reader, key)
								  : status;
}

/* The older files say add_prefix_space, the newer prepend_scheme; "str_rep" repeats the
 * replacement. */
enum lora_status lora__metaspace_read(struct lora_reader *reader, struct lora_stage *stage)
{
	static const char *const schemes[] = {"always", "first", "never"};
	const struct lora_json *scheme = lora__json_get(reader->json, "prepend_scheme");
	const char *name = lora__json_string(scheme);
	enum lora_status status = lora__read_character(reader, "replacement", stage);
	bool prefix;
	size_t i = 0;

	stage->split = true;
	if (status == LORA_OK && lora__json_get(reader->json, "split") != NULL)
		status = lora__read_bool(reader, "split", &stage->split);
	while (scheme != NULL && i < 3 && (name == NULL || strcmp(name, schemes[i]) != 0))
		i++;
	if (status == LORA_OK && i == 3)
		status = fail_value(reader, "prepend_scheme");
	stage->prepend = (enum lora_prepend)i;
	stage->behavior = stage->split ? LORA_SPLIT_NEXT : LORA_SPLIT_ISOLATED;
	if (status != LORA_OK || lora__json_get(reader->json, "add_prefix_space") == NULL)
		return status;
	status = lora__read_bool(reader, "add_prefix_space", &prefix);
	if (status == LORA_OK && prefix != (stage->prepend != LORA_PREPEND_NEVER))
		status = lora__fail(reader->err, LORA_INPUT,
				    "%s: %s: add_prefix_space contradicts prepend_scheme",
				    reader->where, reader->type);
	return status;
}

static enum lora_status read_one(struct lora_reader *reader, const struct lora_component *known)
{
	struct lora_error *err = reader->err;
	char keys[160], where[64];
	enum lora_status status;

	reader->type = lora__json_string(lora__json_get(reader->json, "type"));
	if (reader->type == NULL)
		return lora__fail(err, LORA_INPUT, "%s: a component without a type", reader->where);
	while (known->type != NULL && strcmp(known->type, reader->type) != 0)
		known++;
	if (known->type == NULL)
		return lora__fail(err, LORA_INPUT, "%s: the type '%s' is not supported",
				  reader->where, lora__escape(reader->type));
	reader->type = known->type;
	(void)snprintf(keys, sizeof keys, "type %s", known->keys);
	(void)snprintf(where, sizeof where, "%s: %s", reader->where, known->type);
	status = lora__check_keys(reader->json, keys, where, err);
	if (status != LORA_OK)
		return status;
	if (known->read != NULL)
		return known->read(reader);
	return lora__stage_add(reader, known->kind) == NULL ? LORA_INPUT : LORA_OK;
}

static bool is_sequence(const struct lora_json *json)
{
	const char *type = lora__json_string(lora__json_get(json, "type"));

	return type != NULL && strcmp(type, "Sequence") == 0;
}

/* A Sequence in a Sequence: LORA_JSON_DEPTH bounds the recursion. */
enum lora_status lora__stages_read(struct lora_reader *reader, const char *list,
				   const struct lora_component *known)
{
	const struct lora_json *json = reader->json, *member = lora__json_get(json, list);
	enum lora_status status;
	char keys[40];

	if (json == NULL || lora__json_type(json) == LORA_JSON_NULL)
		return LORA_OK;
	if (!is_sequence(json))
		return read_one(reader, known);
	(void)snprintf(keys, sizeof keys, "type %s", list);
	status = lora__check_keys(json, keys, reader->where, reader->err);
	if (status == LORA_OK && lora__json_type(member) != LORA_JSON_ARRAY)
		status = lora__fail(reader->err, LORA_INPUT, "%s: Sequence: '%s' is no array",
				    reader->where, list);
	for (member = lora__json_first(member); member != NULL && status == LORA_OK;
	     member = lora__json_next(member)) {
		reader->json = member;
		status = lora__json_type(member) == LORA_JSON_OBJECT
			     ? lora__stages_read(reader, list, known)
			     : lora__fail(reader->err, LORA_INPUT,
					  "%s: Sequence: a component is no object", reader->where);
	}
	return status;
}
