/* SPDX-License-Identifier: Apache-2.0 */
/* net/tokenizer_encode.c - text to ids: the steps of tokenizer.h, one after the other; and what the
 * post-processor puts around them
 *
 * "post_processor": TemplateProcessing says in "single" which tokens stand before and after a text
 * ("pair" is for two, which no language model gets); ByteLevel only moves offsets, which we have
 * none of.
 */
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "net/tokenizer.h"

/* --- the post-processor ----------------------------------------------------------- */

/* The ids of a template's special token go to the end of `tokens`. */
static enum lora_status add_special(const struct lora_tokenizer *tokenizer,
				    const struct lora_json *json, const struct lora_json *names,
				    struct lora_tokens *tokens, struct lora_error *err)
{
	const char *name = lora__json_string(lora__json_get(json, "id"));
	const struct lora_json *ids;
	enum lora_status status = LORA_OK;

	if (name == NULL)
		return lora__fail(err, LORA_INPUT, "a SpecialToken without id");
	ids = lora__json_get(lora__json_get(names, name), "ids");
	if (lora__json_type(ids) != LORA_JSON_ARRAY)
		return lora__fail(err, LORA_INPUT, "special_tokens has no ids for '%s'",
				  lora__escape(name));
	for (ids = lora__json_first(ids); ids != NULL && status == LORA_OK;
	     ids = lora__json_next(ids)) {
		uint64_t id = 0;

		if (!lora__json_u64(ids, &id) || id >= tokenizer->bpe.room ||
		    tokenizer->bpe.tokens[id].text == NULL)
			return lora__fail(err, LORA_INPUT, "no token has the id of '%s'",
					  lora__escape(name));
		status = lora__tokens_add(tokens, (uint32_t)id, err);
	}
	return status;
}

/* New ids in front of those that are there. */
static enum lora_status put_in_front(struct lora_tokens *front, struct lora_tokens *rest,
				     struct lora_error *err)
{
	enum lora_status status = LORA_OK;
	struct lora_tokens old = *rest;

	for (size_t i = 0; i < old.count && status == LORA_OK; i++)
		status = lora__tokens_add(front, old.ids[i], err);
	*rest = *front;
	*front = old;
	return status;
}

static enum lora_status read_template(struct lora_tokenizer *tokenizer,
				      const struct lora_json *json, struct lora_error *err)
{
	const struct lora_json *names = lora__json_get(json, "special_tokens");
	const struct lora_json *piece = lora__json_get(json, "single");
	struct lora_tokens before = {0};
	enum lora_status status;
	bool behind = false;

	status =
	    lora__check_keys(json, "type single pair special_tokens", "TemplateProcessing", err);
	if (status == LORA_OK && lora__json_type(piece) != LORA_JSON_ARRAY)
		status = lora__fail(err, LORA_INPUT, "single is no array");
	for (piece = lora__json_first(piece); piece != NULL && status == LORA_OK;
	     piece = lora__json_next(piece)) {
		const struct lora_json *special = lora__json_get(piece, "SpecialToken");
		const char *text =
		    lora__json_string(lora__json_get(lora__json_get(piece, "Sequence"), "id"));

		if (special != NULL)
			status = add_special(tokenizer, special, names,
					     behind ? &tokenizer->after : &before, err);
		else if (text == NULL || strcmp(text, "A") != 0 || behind)
			status = lora__fail(err, LORA_INPUT, "single is not around one text A");
		else
			behind = true;
	}
	if (status == LORA_OK && !behind)
		status = lora__fail(err, LORA_INPUT, "single is not around one text A");
	if (status == LORA_OK)
		status = put_in_front(&before, &tokenizer->before, err);
	lora_tokens_fini(&before);
	return status;
}

static enum lora_status read_processor(struct lora_tokenizer *tokenizer,
				       const struct lora_json *json, struct lora_error *err)
{
	const char *type = lora__json_string(lora__json_get(json, "type"));
	enum lora_status status;

	if (type == NULL)
		return lora__fail(err, LORA_INPUT, "a component without a type");
	if (strcmp(type, "ByteLevel") == 0)
		return lora__check_keys(json, "type add_prefix_space trim_offsets use_regex",
					"ByteLevel", err);
	if (strcmp(type, "TemplateProcessing") == 0)
		return read_template(tokenizer, json, err);
	if (strcmp(type, "Sequence") != 0)
		return lora__fail(err, LORA_INPUT, "the type '%s' is not supported",
				  lora__escape(type));
	status = lora__check_keys(json, "type processors", "Sequence", err);
	json = lora__json_get(json, "processors");
	if (status == LORA_OK && lora__json_type(json) != LORA_JSON_ARRAY)
		return lora__fail(err, LORA_INPUT, "Sequence: processors is no array");
	for (json = lora__json_first(json); json != NULL && status == LORA_OK;
	     json = lora__json_next(json))
		status = read_processor(tokenizer, json, err);
	return status;
}

enum lora_status lora__post_processor_read(struct lora_tokenizer *tokenizer,
					   const struct lora_json *json, struct lora_error *err)
{
	if (json == NULL || lora__json_type(json) == LORA_JSON_NULL)
		return LORA_OK;
	return lora__context(err, read_processor(tokenizer, json, err), "post_processor");
}

/* --- encoding --------------------------------------------------------------------- */

enum lora_status lora__work_init(struct lora_work *work, struct lora_error *err)
{
	*work = (struct lora_work){0};
	return lora__matcher_new(&work->matcher, err);
}

void lora__work_fini(struct lora_work *work)
{
	lora__matcher_free(work->matcher);
	lora__pieces_fini(&work->pieces);
	lora__pieces_fini(&work->other);
	lora__buffer_fini(&work->text);
	lora__buffer_fini(&work->spare);
	free(work->segments.at);
	lora__bpe_work_fini(&work->bpe);
	free(work->codes);
	*work = (struct lora_work){0};
}

/* Every piece that is no token: normalized, and cut at the tokens that are searched for then. */
static enum lora_status normalize_pieces(const struct lora_tokenizer *tokenizer,
					 struct lora_added_search *search, struct lora_work *work,
					 struct lora_error *err)
{
	enum lora_status status = LORA_OK;
	struct lora_pieces done;

	search->trie = &tokenizer->added.normal;
	search->places = false;
	search->span_count = 0; /* they are places in the text as it came */
	lora__pieces_clear(&work->other);
	for (size_t i = 0; i < work->pieces.count && status == LORA_OK; i++) {
		const struct lora_piece *piece = &work->pieces.at[i];
		const char *text = work->pieces.text.at + piece->begin;
		size_t size = piece->end - piece->begin;

		work->other.origin = piece->origin;
		if (piece->id != LORA_TOKEN_NONE) {
			status = lora__pieces_add(&work->other, work->other.text.size, piece->id,
						  false, err);
			continue;
		}
		status =
		    lora__normalize(&tokenizer->normalizer, work, text, size, &text, &size, err);
		if (status == LORA_OK)
			status =
			    lora__added_cut(search, text, size, piece->first, &work->other, err);
	}
	done = work->other;
	work->other = work->pieces;
	work->pieces = done;
	return status;
}

/* Cuts work->pieces into words. */
static enum lora_status cut(const struct lora_tokenizer *tokenizer,
			    struct lora_added_search *search, struct lora_work *work,
			    const char *text, size_t length, struct lora_error *err)
{
	struct lora_buffer good = {0};
	enum lora_status status;
	size_t used = 0;

	status = lora__utf8_repair(&good, text, length, true, &used, err);
	search->set = &tokenizer->added;
	search->trie = &tokenizer->added.plain;
	search->matcher = work->matcher;
	search->places = true;
	if (status == LORA_OK)
		status =
		    lora__added_cut(search, good.at, good.size, !search->later, &work->pieces, err);
	lora__buffer_fini(&good);
	if (status == LORA_OK)
		status = normalize_pieces(tokenizer, search, work, err);
	for (size_t i = 0; i < tokenizer->pre_tokenizer.count && status == LORA_OK; i++)
		status = lora__split(&tokenizer->pre_tokenizer.at[i], work, err);
	return status;
}

static enum lora_status add_all(struct lora_tokens *tokens, const struct lora_tokens *more,
				bool wanted, struct lora_error *err)
{
	enum lora_status status = LORA_OK;

	for (size_t i = 0; wanted && i < more->count && status == LORA_OK; i++)
		status = lora__tokens_add(tokens, more->ids[i], err);
	return status;
}

/* The tokens of one piece, and where they came from. */
static enum lora_status encode_piece(const struct lora_tokenizer *tokenizer, struct lora_work *work,
				     const struct lora_piece *piece, struct lora_origins *origins,
				     struct lora_tokens *tokens, struct lora_error *err)
{
	size_t count = tokens->count;
	enum lora_status status =
	    piece->id != LORA_TOKEN_NONE
		? lora__tokens_add(tokens, piece->id, err)
		: lora__bpe_encode(&tokenizer->bpe, &work->bpe, work->pieces.text.at + piece->begin,
				   piece->end - piece->begin, tokens, err);

	for (; origins != NULL && count < tokens->count && status == LORA_OK; count++) {
		if (origins->count == origins->capacity) {
			size_t capacity = 2 * origins->capacity + 64;
			size_t *grown = realloc(origins->at, capacity * sizeof *grown);

			if (grown == NULL)
				return lora__fail_memory(err);
			origins->at = grown;
			origins->capacity = capacity;
		}
		origins->at[origins->count++] = piece->origin;
	}
	return status;
}

enum lora_status lora__tokenizer_encode(const struct lora_tokenizer *tokenizer,
					struct lora_added_search *search, const char *text,
					size_t length, unsigned flags, struct lora_tokens *tokens,
					struct lora_error *err)
{
	bool special = (flags & LORA_ENCODE_SPECIAL) != 0;
	size_t count = tokens->count;
	enum lora_status status;
	struct lora_work work;

	if (length >= LORA_TOKENIZER_TEXT)
		return lora__fail(err, LORA_USAGE, "a text of %zu bytes is too long for one call",
				  length);
	search->literal = (flags & LORA_ENCODE_LITERAL) != 0;
	status = lora__work_init(&work, err);
	if (status == LORA_OK)
		status = cut(tokenizer, search, &work, text, length, err);
	if (status == LORA_OK)
		status = add_all(tokens, &tokenizer->before, special, err);
	for (size_t i = 0; i < work.pieces.count && status == LORA_OK; i++)
		status = encode_piece(tokenizer, &work, &work.pieces.at[i], search->origins, tokens,
				      err);
	if (status == LORA_OK)
		status = add_all(tokens, &tokenizer->after, special, err);
	if (status != LORA_OK)
		tokens->count = count;
	lora__work_fini(&work);
	return status;
}

enum lora_status lora_tokenizer_encode(const struct lora_tokenizer *tokenizer, const char *text,
				       size_t length, unsigned flags, struct lora_tokens *tokens,
				       struct lora_error *err)
{
	struct lora_added_search search = {0};

	return lora__tokenizer_encode(tokenizer, &search, text, length, flags, tokens, err);
}
