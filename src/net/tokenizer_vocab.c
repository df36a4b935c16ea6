/* SPDX-License-Identifier: Apache-2.0 */
/* net/tokenizer_vocab.c - the "model" of a tokenizer.json: vocabulary and merges
 *
 *	"vocab": {"a": 0, "b": 1, "ab": 2, ...}		spelling to id
 *	"merges": ["a b", ...] or [["a","b"], ...]	the first one is merged first
 *
 * 1. An id belongs to one spelling; ids may have holes. They end at LORA_TOKENIZER_IDS, since
 *memory is taken up to the highest one.
 * 2. Both sides of a merge, and what they become, are in the vocabulary. Of two merges of one pair
 *    the later counts, as in the `tokenizers` library.
 * 3. All strings are copied into the arena: the JSON can go.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "net/tokenizer.h"

/* --- tokens ----------------------------------------------------------------------- */

static enum lora_status make_room(struct lora_bpe *bpe, uint32_t id, struct lora_error *err)
{
	uint32_t room = bpe->room == 0 ? 1024 : bpe->room;
	struct lora_token *grown;

	if (id < bpe->room)
		return LORA_OK;
	while (room <= id)
		room *= 2;
	grown = realloc(bpe->tokens, room * sizeof *grown);
	if (grown == NULL)
		return lora__fail_memory(err);
	memset(grown + bpe->room, 0, (room - bpe->room) * sizeof *grown);
	bpe->tokens = grown;
	bpe->room = room;
	return LORA_OK;
}

enum lora_status lora__bpe_name(struct lora_bpe *bpe, uint64_t id, const char *text, size_t length,
				struct lora_error *err)
{
	enum lora_status status;

	if (id >= LORA_TOKENIZER_IDS)
		return lora__fail(err, LORA_INPUT, "id %llu of '%s': ids end at %u",
				  (unsigned long long)id, lora__escape(text),
				  LORA_TOKENIZER_IDS - 1);
	status = make_room(bpe, (uint32_t)id, err);
	if (status != LORA_OK)
		return status;
	if (bpe->tokens[id].text != NULL)
		return lora__fail(err, LORA_INPUT, "'%s' and '%s' have the same id %llu",
				  lora__escape(bpe->tokens[id].text), lora__escape(text),
				  (unsigned long long)id);
	bpe->tokens[id].text = text;
	bpe->tokens[id].length = length;
	bpe->count++;
	return LORA_OK;
}

static enum lora_status read_token(struct lora_bpe *bpe, struct lora_arena *arena,
				   const struct lora_json *member, struct lora_error *err)
{
	const char *key = lora__json_key(member);
	size_t length = strlen(key);
	char *text = lora__arena_copy(arena, key, length);
	enum lora_status status;
	bool present = false;
	uint64_t id = 0;

	if (text == NULL)
		return lora__fail_memory(err);
	if (!lora__json_u64(member, &id))
		return lora__fail(err, LORA_INPUT, "vocab: '%s' has no id", lora__escape(key));
	status = lora__bpe_name(bpe, id, text, length, err);
	if (status == LORA_OK)
		status = lora__map_add(&bpe->ids, text, length, (uint32_t)id, &present, err);
	bpe->in_model++;
	return lora__context(err, status, "vocab");
}

static enum lora_status read_vocab(struct lora_bpe *bpe, struct lora_arena *arena,
				   const struct lora_json *vocab, struct lora_error *err)
{
	enum lora_status status = LORA_OK;
	char text[8];

	if (lora__json_type(vocab) != LORA_JSON_OBJECT)
		return lora__fail(err, LORA_INPUT, "vocab is no object");
	for (vocab = lora__json_first(vocab); vocab != NULL && status == LORA_OK;
	     vocab = lora__json_next(vocab))
		status = read_token(bpe, arena, vocab, err);
	for (uint32_t code = 0; code < LORA_BPE_DIRECT; code++) {
		size_t length = code < 0x80 ? 1 : 2;

		text[0] = (char)(code < 0x80 ? code : 0xc0u | code >> 6);
		text[1] = (char)(0x80u | (code & 0x3fu));
		bpe->direct[code] = lora__map_find(&bpe->ids, text, length);
	}
	for (unsigned byte = 0; byte < 256; byte++) {
		(void)snprintf(text, sizeof text, "<0x%02X>", byte);
		bpe->byte[byte] = lora__map_find(&bpe->ids, text, strlen(text));
	}
	return status;
}

/* --- merges ----------------------------------------------------------------------- */

static enum lora_status begin_merges(struct lora_bpe *bpe, size_t count, struct lora_error *err)
{
	if (count > LORA_TOKENIZER_MERGES)
		return lora__fail(err, LORA_INPUT, "merges: %zu of them: at most %u are read",
				  count, LORA_TOKENIZER_MERGES);
	return lora__pairs_init(&bpe->merges, count, err);
}

/* The two sides of a merge in either spelling; false if it has not two. */
static bool sides_of(const struct lora_json *merge, const char *side[2], size_t length[2])
{
	const char *text = lora__json_string(merge);

	if (text != NULL) {
		const char *blank = strchr(text, ' ');

		if (blank == NULL || strchr(blank + 1, ' ') != NULL)
			return false;
		side[0] = text;
		length[0] = (size_t)(blank - text);
		side[1] = blank + 1;
		length[1] = strlen(side[1]);
		return true;
	}
	if (lora__json_type(merge) != LORA_JSON_ARRAY || lora__json_count(merge) != 2)
		return false;
	merge = lora__json_first(merge);
	for (int i = 0; i < 2; i++, merge = lora__json_next(merge)) {
		side[i] = lora__json_string(merge);
		if (side[i] == NULL)
			return false;
		length[i] = strlen(side[i]);
	}
	return true;
}

static enum lora_status find_part(const struct lora_bpe *bpe, const char *text, size_t length,
				  uint32_t *id, struct lora_error *err)
{
	*id = lora__map_find(&bpe->ids, text, length);
	if (*id != LORA_TOKEN_NONE)
		return LORA_OK;
	return lora__fail(err, LORA_INPUT, "'%s' is not in the vocabulary",
			  lora__escape_n(text, length));
}

static enum lora_status read_merge(struct lora_bpe *bpe, const struct lora_json *json,
				   uint32_t rank, struct lora_buffer *joined,
				   struct lora_error *err)
{
	uint32_t left = 0, right = 0, id = 0;
	enum lora_status status;
	const char *side[2];
	size_t length[2];

	if (!sides_of(json, side, length))
		return lora__fail(err, LORA_INPUT, "it is no pair of tokens");
	joined->size = 0;
	status = lora__buffer_add(joined, side[0], length[0], err);
	if (status == LORA_OK)
		status = lora__buffer_add(joined, side[1], length[1], err);
	if (status == LORA_OK)
		status = find_part(bpe, side[0], length[0], &left, err);
	if (status == LORA_OK)
		status = find_part(bpe, side[1], length[1], &right, err);
	if (status == LORA_OK)
		status = find_part(bpe, joined->at, joined->size, &id, err);
	if (status == LORA_OK)
		lora__pairs_put(&bpe->merges, left, right, rank, id);
	return status;
}

static enum lora_status read_merges(struct lora_bpe *bpe, const struct lora_json *merges,
				    struct lora_error *err)
{
	enum lora_status status;
	struct lora_buffer joined = {0};
	uint32_t rank = 0;

	if (lora__json_type(merges) != LORA_JSON_ARRAY)
		return lora__fail(err, LORA_INPUT, "merges is no array");
	status = begin_merges(bpe, lora__json_count(merges), err);
	for (merges = lora__json_first(merges); merges != NULL && status == LORA_OK;
	     merges = lora__json_next(merges), rank++) {
		const char *text = lora__json_string(merges);

		if (text != NULL && strncmp(text, "#version", 8) == 0)
			continue; /* the first line of a merges.txt */
		status = read_merge(bpe, merges, rank, &joined, err);
		status = lora__context(err, status, "merge %u", rank);
	}
	lora__buffer_fini(&joined);
	return status;
}

/* --- options ---------------------------------------------------------------------- */

/* An option that may be absent or null, else has to be true or false. */
static enum lora_status read_flag(const struct lora_json *model, const char *key, bool *value,
				  struct lora_error *err)
{
	const struct lora_json *json = lora__json_get(model, key);

	if (json == NULL || lora__json_type(json) == LORA_JSON_NULL || lora__json_bool(json, value))
		return LORA_OK;
	return lora__fail(err, LORA_INPUT, "%s is neither true nor false", key);
}

static enum lora_status refuse_option(const struct lora_json *model, const char *key,
				      struct lora_error *err)
{
	const struct lora_json *json = lora__json_get(model, key);
	double number = 1;

	if (json == NULL || (lora__json_type(json) != LORA_JSON_FALSE && lora__json_is_empty(json)))
		return LORA_OK;
	if (lora__json_double(json, &number) && number <= 0 && number >= 0)
		return LORA_OK;
	return lora__fail(err, LORA_INPUT, "%s is not supported", key);
}

static enum lora_status read_options(struct lora_bpe *bpe, const struct lora_json *model,
				     struct lora_error *err)
{
	static const char *const unsupported[] = {"dropout", "continuing_subword_prefix",
						  "end_of_word_suffix"};
	const struct lora_json *unk = lora__json_get(model, "unk_token");
	const char *text = lora__json_string(unk);
	enum lora_status status = LORA_OK;

	for (size_t i = 0; status == LORA_OK && i < sizeof unsupported / sizeof *unsupported; i++)
		status = refuse_option(model, unsupported[i], err);
	if (status == LORA_OK)
		status = read_flag(model, "byte_fallback", &bpe->byte_fallback, err);
	if (status == LORA_OK)
		status = read_flag(model, "fuse_unk", &bpe->fuse_unk, err);
	if (status == LORA_OK)
		status = read_flag(model, "ignore_merges", &bpe->ignore_merges, err);
	if (status != LORA_OK || unk == NULL || lora__json_type(unk) == LORA_JSON_NULL)
		return status;
	if (text == NULL)
		return lora__fail(err, LORA_INPUT, "unk_token is no string");
	bpe->has_unk = true;
	bpe->unk = lora__map_find(&bpe->ids, text, strlen(text));
	return LORA_OK;
}

enum lora_status lora__bpe_read(struct lora_bpe *bpe, struct lora_arena *arena,
				const struct lora_json *model, struct lora_error *err)
{
	static const char keys[] = "type dropout unk_token continuing_subword_prefix "
				   "end_of_word_suffix fuse_unk byte_fallback ignore_merges vocab "
				   "merges";
	const struct lora_json *type = lora__json_get(model, "type");
	const char *name = lora__json_string(type);
	enum lora_status status;

	if (lora__json_type(model) != LORA_JSON_OBJECT)
		return lora__fail(err, LORA_INPUT, "model is missing");
	/* The first files for GPT-2 do not name their type. */
	if (type != NULL && (name == NULL || strcmp(name, "BPE") != 0))
		return lora__fail(err, LORA_INPUT,
				  "model: the type '%s' is not supported, only BPE",
				  name == NULL ? "?" : lora__escape(name));
	status = lora__check_keys(model, keys, "model", err);
	if (status == LORA_OK)
		status = lora__context(
		    err, read_vocab(bpe, arena, lora__json_get(model, "vocab"), err), "model");
	if (status == LORA_OK)
		status = lora__context(err, read_options(bpe, model, err), "model");
	if (status == LORA_OK)
		status = lora__context(err, read_merges(bpe, lora__json_get(model, "merges"), err),
				       "model");
	return status;
}

void lora__bpe_fini(struct lora_bpe *bpe)
{
	lora__map_fini(&bpe->ids);
	free(bpe->tokens);
	lora__pairs_fini(&bpe->merges);
	*bpe = (struct lora_bpe){0};
}
