/* SPDX-License-Identifier: Apache-2.0 */
/* net/tokenizer_added.c - added tokens: whole in the text, before anything is cut or merged
 *
 * "added_tokens" of a tokenizer.json: <s>, <|im_end|>, rows of blanks. They are searched for twice:
 * those with "normalized": false in the text as it came, the others, normalized themselves, in what
 * the normalizer makes of the rest. The leftmost occurrence wins, of those the longest, and the
 * search goes on behind it. Flags:
 *
 *	single_word	not counted beside a letter or digit (but the search goes on behind it)
 *	lstrip, rstrip	white space on that side belongs to it
 *	special		decodes to nothing when asked for
 *
 * 1. Ids are those that the `tokenizers` library gives: the vocabulary's, if the spelling is there,
 *    else the next free one behind the vocabulary. It goes by the file's order, not by the file's
 *    "id"; a file in which the two differ is refused.
 * 2. The search walks a trie from every byte at which a token may begin: LORA_TOKENIZER_CONTENT
 *    steps a byte at worst. White space is measured once, however many tokens it belongs to.
 */
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "base/utf8.h"
#include "net/tokenizer.h"

/* --- reading ---------------------------------------------------------------------- */

static enum lora_status read_flags(struct lora_added *token, const struct lora_json *json,
				   struct lora_error *err)
{
	const struct {
		const char *key;
		bool *value;
	} flags[] = {{"single_word", &token->single_word},
		     {"lstrip", &token->lstrip},
		     {"rstrip", &token->rstrip},
		     {"normalized", &token->normalized},
		     {"special", &token->special}};

	for (size_t i = 0; i < sizeof flags / sizeof *flags; i++)
		if (!lora__json_bool(lora__json_get(json, flags[i].key), flags[i].value))
			return lora__fail(err, LORA_INPUT, "'%s': '%s' is missing",
					  lora__escape(token->content), flags[i].key);
	return LORA_OK;
}

/* [1] */
static enum lora_status place(struct lora_added_set *set, struct lora_added *token,
			      struct lora_bpe *bpe, const struct lora_json *json,
			      struct lora_error *err)
{
	enum lora_status status = LORA_OK;
	bool present = false;
	uint64_t id = 0;

	token->id = lora__map_find(&bpe->ids, token->content, token->length);
	if (token->id == LORA_TOKEN_NONE) {
		token->id = set->next > bpe->in_model ? set->next : bpe->in_model;
		status = lora__bpe_name(bpe, token->id, token->content, token->length, err);
	}
	if (status != LORA_OK)
		return status;
	if (!lora__json_u64(json, &id) || id != token->id)
		return lora__fail(err, LORA_INPUT,
				  "'%s' has id %s where its place makes it %u: put the list in "
				  "the order of its ids, without holes",
				  lora__escape(token->content),
				  lora__json_number(json) ? lora__escape(lora__json_number(json))
							  : "?",
				  token->id);
	if (token->id >= set->next)
		set->next = token->id + 1;
	bpe->tokens[token->id].special = token->special;
	status =
	    lora__map_add(&set->places, token->content, token->length, set->count, &present, err);
	if (status == LORA_OK && present)
		return lora__fail(err, LORA_INPUT, "'%s' is there twice",
				  lora__escape(token->content));
	return status;
}

static enum lora_status read_token(struct lora_added_set *set, struct lora_bpe *bpe,
				   struct lora_arena *arena, const struct lora_json *json,
				   struct lora_error *err)
{
	static const char keys[] = "id content single_word lstrip rstrip normalized special";
	const char *content = lora__json_string(lora__json_get(json, "content"));
	struct lora_added *token = &set->at[set->count];
	enum lora_status status;

	if (content == NULL || *content == '\0')
		return lora__fail(err, LORA_INPUT, "one has no content");
	token->length = strlen(content);
	if (token->length > LORA_TOKENIZER_CONTENT)
		return lora__fail(err, LORA_INPUT, "'%s' has %zu bytes: at most %u are supported",
				  lora__escape(content), token->length, LORA_TOKENIZER_CONTENT);
	token->content = lora__arena_copy(arena, content, token->length);
	if (token->content == NULL)
		return lora__fail_memory(err);
	status = lora__check_keys(json, keys, lora__escape(content), err);
	if (status == LORA_OK)
		status = read_flags(token, json, err);
	if (status == LORA_OK)
		status = place(set, token, bpe, lora__json_get(json, "id"), err);
	if (status == LORA_OK)
		set->count++;
	return status;
}

enum lora_status lora__added_read(struct lora_added_set *set, struct lora_bpe *bpe,
				  struct lora_arena *arena, const struct lora_json *json,
				  struct lora_error *err)
{
	enum lora_status status = LORA_OK;
	size_t count = lora__json_count(json);

	if (json == NULL || lora__json_type(json) == LORA_JSON_NULL)
		return LORA_OK;
	if (lora__json_type(json) != LORA_JSON_ARRAY)
		return lora__fail(err, LORA_INPUT, "added_tokens is no array");
	if (count > LORA_TOKENIZER_ADDED)
		return lora__fail(err, LORA_INPUT, "added_tokens: %zu of them: at most %u are read",
				  count, LORA_TOKENIZER_ADDED);
	set->at = lora__arena_array(arena, count, sizeof *set->at);
	if (set->at == NULL)
		return lora__fail_memory(err);
	for (json = lora__json_first(json); json != NULL && status == LORA_OK;
	     json = lora__json_next(json))
		status = read_token(set, bpe, arena, json, err);
	return lora__context(err, status, "added_tokens");
}

/* --- the trie --------------------------------------------------------------------- */

/* Room for so many nodes behind the root. */
static enum lora_status trie_init(struct lora_trie *trie, size_t most, struct lora_error *err)
{
	trie->tokens = malloc((most + 1) * sizeof *trie->tokens);
	if (trie->tokens == NULL)
		return lora__fail_memory(err);
	trie->tokens[0] = UINT32_MAX;
	trie->count = 1;
	return lora__pairs_init(&trie->edges, most, err);
}

static void trie_fini(struct lora_trie *trie)
{
	free(trie->tokens);
	lora__pairs_fini(&trie->edges);
}

static void trie_add(struct lora_trie *trie, const char *text, size_t length, uint32_t token)
{
	uint32_t node = 0;

	for (size_t i = 0; i < length; i++) {
		const struct lora_pair *edge =
		    lora__pairs_find(&trie->edges, node, (unsigned char)text[i]);

		if (edge == NULL) {
			trie->tokens[trie->count] = UINT32_MAX;
			lora__pairs_put(&trie->edges, node, (unsigned char)text[i], 0, trie->count);
			node = trie->count++;
		} else {
			node = edge->id;
		}
	}
	trie->begins[(unsigned char)text[0]] = true;
	if (trie->tokens[node] == UINT32_MAX) /* the first of two that are normalized alike */
		trie->tokens[node] = token;
}

/* The longest token that text begins with, or UINT32_MAX. */
static uint32_t trie_find(const struct lora_trie *trie, const char *text, size_t size,
			  size_t *length)
{
	uint32_t node = 0, found = UINT32_MAX;

	if (!trie->begins[(unsigned char)text[0]])
		return UINT32_MAX;
	for (size_t i = 0; i < size; i++) {
		const struct lora_pair *edge =
		    lora__pairs_find(&trie->edges, node, (unsigned char)text[i]);

		if (edge == NULL)
			break;
		node = edge->id;
		if (trie->tokens[node] != UINT32_MAX) {
			found = trie->tokens[node];
			*length = i + 1;
		}
	}
	return found;
}

/* What the token is searched for as. */
static enum lora_status spelling(const struct lora_added *token, struct lora_work *work,
				 const struct lora_stages *normalizer, const char **text,
				 size_t *length, struct lora_error *err)
{
	enum lora_status status;

	*text = token->content;
	*length = token->length;
	if (!token->normalized)
		return LORA_OK;
	status =
	    lora__normalize(normalizer, work, token->content, token->length, text, length, err);
	if (status == LORA_OK && *length == 0)
		return lora__fail(err, LORA_INPUT, "added_tokens: '%s' is empty when normalized",
				  lora__escape(token->content));
	if (status == LORA_OK && *length > 4 * LORA_TOKENIZER_CONTENT)
		return lora__fail(err, LORA_INPUT, "added_tokens: '%s' is too long when normalized",
				  lora__escape(token->content));
	return status;
}

/* Both tries, empty, and the expression for single words. */
static enum lora_status begin_build(struct lora_added_set *set, struct lora_work *work,
				    const struct lora_stages *normalizer, struct lora_error *err)
{
	size_t plain = 0, normal = 0, length = 0;
	enum lora_status status = LORA_OK;
	const char *text = NULL;
	bool words = false;

	for (uint32_t i = 0; i < set->count && status == LORA_OK; i++) {
		status = spelling(&set->at[i], work, normalizer, &text, &length, err);
		*(set->at[i].normalized ? &normal : &plain) += length;
		words = words || set->at[i].single_word;
	}
	if (status == LORA_OK)
		status = trie_init(&set->plain, plain, err);
	if (status == LORA_OK)
		status = trie_init(&set->normal, normal, err);
	if (status == LORA_OK && words)
		status = lora__word_compile(&set->word, err);
	return status;
}

/* A token that is searched for in another spelling is decoded to that spelling. */
static enum lora_status respell(struct lora_bpe *bpe, struct lora_arena *arena,
				const struct lora_added *token, const char *text, size_t length,
				struct lora_error *err)
{
	const char *copy;

	if (length == token->length && memcmp(text, token->content, length) == 0)
		return LORA_OK;
	copy = lora__arena_copy(arena, text, length);
	if (copy == NULL)
		return lora__fail_memory(err);
	bpe->tokens[token->id].text = copy;
	bpe->tokens[token->id].length = length;
	return LORA_OK;
}

enum lora_status lora__added_build(struct lora_added_set *set, struct lora_bpe *bpe,
				   struct lora_arena *arena, const struct lora_stages *normalizer,
				   struct lora_error *err)
{
	struct lora_work work = {0};
	enum lora_status status = lora__work_init(&work, err);
	const char *text = NULL;
	size_t length = 0;

	if (status == LORA_OK)
		status = begin_build(set, &work, normalizer, err);
	/* Special tokens come first, as in the `tokenizers` library: it matters where two are
	 * normalized alike. */
	for (int special = 1; special >= 0; special--)
		for (uint32_t i = 0; i < set->count && status == LORA_OK; i++) {
			if (set->at[i].special != (special == 1))
				continue;
			status = spelling(&set->at[i], &work, normalizer, &text, &length, err);
			if (status == LORA_OK)
				status = respell(bpe, arena, &set->at[i], text, length, err);
			if (status == LORA_OK)
				trie_add(set->at[i].normalized ? &set->normal : &set->plain, text,
					 length, i);
		}
	lora__work_fini(&work);
	return status;
}

const struct lora_added *lora__added_find(const struct lora_added_set *set, const char *content,
					  size_t length)
{
	uint32_t place = lora__map_find(&set->places, content, length);

	return place == UINT32_MAX ? NULL : &set->at[place];
}

void lora__added_fini(struct lora_added_set *set)
{
	trie_fini(&set->plain);
	trie_fini(&set->normal);
	lora__map_fini(&set->places);
	lora__regex_free(set->word);
	*set = (struct lora_added_set){0};
}

/* --- the search ------------------------------------------------------------------- */

static bool is_word(const struct lora_added_search *search, const char *text, size_t size,
		    struct lora_error *err, enum lora_status *status)
{
	bool match = false;

	*status = lora__regex_is_match(search->set->word, search->matcher, text, size, &match, err);
	return match;
}

/* Is there a letter or digit right before text[begin] or at text[end]? */
static enum lora_status is_inside_word(const struct lora_added_search *search, const char *text,
				       size_t size, const size_t at[2], bool *inside,
				       struct lora_error *err)
{
	enum lora_status status = LORA_OK;
	size_t before = at[0], length = size - at[1] < 4 ? size - at[1] : 4;
	uint32_t code = 0;

	*inside = false;
	while (before > 0 && ((unsigned char)text[--before] & 0xc0u) == 0x80u)
		;
	if (at[0] > 0)
		*inside = is_word(search, text + before, at[0] - before, err, &status);
	if (status != LORA_OK || *inside || length == 0)
		return status;
	length = lora__utf8_decode(text + at[1], length, &code);
	*inside = is_word(search, text + at[1], length, err, &status);
	return status;
}

static size_t space_before(const char *text, size_t begin, size_t at)
{
	while (at > begin) {
		size_t before = at - 1;
		uint32_t code = 0;

		while (before > begin && ((unsigned char)text[before] & 0xc0u) == 0x80u)
			before--;
		if (lora__utf8_decode(text + before, at - before, &code) == 0 ||
		    !lora__is_space(code))
			break;
		at = before;
	}
	return at;
}

/* The end of the white space at text[at]; run[0 .. 1) is the last stretch that was measured. */
static size_t space_behind(const char *text, size_t size, size_t at, size_t run[2])
{
	if (at >= run[0] && at < run[1])
		return run[1];
	run[0] = at;
	while (at < size) {
		uint32_t code = 0;
		size_t length = lora__utf8_decode(text + at, size - at, &code);

		if (length == 0 || !lora__is_space(code))
			break;
		at += length;
	}
	run[1] = at;
	return at;
}

/* Does text[begin .. end) touch a span? Both go forward: *next is the first span not yet passed. */
static bool touches(const struct lora_added_search *search, size_t begin, size_t end, size_t *next)
{
	while (*next < search->span_count && search->spans[*next].end <= begin)
		(*next)++;
	return *next < search->span_count && search->spans[*next].begin < end;
}

struct cut {
	const char *text;
	size_t size;
	bool first, places;
	size_t done;   /* pieces reach up to here */
	size_t run[2]; /* white space that was measured */
};

/* What is between two tokens. */
static enum lora_status add_text(const struct cut *cut, size_t end, struct lora_pieces *to,
				 struct lora_error *err)
{
	size_t begin = to->text.size;
	enum lora_status status =
	    lora__buffer_add(&to->text, cut->text + cut->done, end - cut->done, err);

	if (cut->places)
		to->origin = cut->done;
	return status == LORA_OK
		   ? lora__pieces_add(to, begin, LORA_TOKEN_NONE, cut->first && cut->done == 0, err)
		   : status;
}

/* The token at text[at[0] .. at[1]) becomes a piece, with what is before it. */
static enum lora_status cut_out(struct cut *cut, const struct lora_added *token, size_t at[2],
				struct lora_pieces *to, struct lora_error *err)
{
	enum lora_status status = LORA_OK;

	if (token->lstrip) {
		at[0] = space_before(cut->text, cut->done < at[0] ? cut->done : at[0], at[0]);
		if (at[0] < cut->done)
			at[0] = cut->done;
	}
	if (token->rstrip)
		at[1] = space_behind(cut->text, cut->size, at[1], cut->run);
	if (at[0] > at[1]) /* all of it is white space that the token before has */
		return LORA_OK;
	if (cut->done < at[0])
		status = add_text(cut, at[0], to, err);
	if (cut->places)
		to->origin = at[0];
	if (status == LORA_OK)
		status = lora__pieces_add(to, to->text.size, token->id, false, err);
	cut->done = at[1];
	return status;
}

enum lora_status lora__added_cut(const struct lora_added_search *search, const char *text,
				 size_t size, bool first, struct lora_pieces *to,
				 struct lora_error *err)
{
	struct cut cut = {.text = text, .size = size, .first = first, .places = search->places};
	enum lora_status status = LORA_OK;
	size_t length = 0, next = 0;

	for (size_t i = 0; i < size && status == LORA_OK; i += length) {
		uint32_t found = trie_find(search->trie, text + i, size - i, &length);
		const struct lora_added *token;
		size_t at[2] = {i, i + length};
		bool inside = false;

		if (found == UINT32_MAX) {
			length = 1;
			continue;
		}
		token = &search->set->at[found];
		if (token->special && search->literal)
			continue;
		if (token->special && touches(search, at[0], at[1], &next)) {
			length = 1;
			continue;
		}
		if (token->single_word)
			status = is_inside_word(search, text, size, at, &inside, err);
		if (status == LORA_OK && !inside)
			status = cut_out(&cut, token, at, to, err);
	}
	if (status == LORA_OK && cut.done != size)
		status = add_text(&cut, size, to, err);
	return status;
}
