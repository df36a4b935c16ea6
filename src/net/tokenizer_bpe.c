/* SPDX-License-Identifier: Apache-2.0 */
/* net/tokenizer_bpe.c - byte-pair encoding of one word
 *
 * A word begins as its characters, each a token. Then the pair of neighbours whose merge comes
 * first in the file's list (the leftmost, if it occurs more than once) becomes one token, again and
 * again, until no pair of neighbours has a merge (Sennrich et al. 2016).
 *
 *	symbols     a doubly linked list in an array: a merge keeps the left one, unlinks the right
 *	candidates  a binary heap of pairs, by rank and then by position
 *
 * 1. A candidate is not removed when one of its sides is merged away: it is looked at again when
 *    its turn comes, and dropped unless its pair still makes the token that it made.
 * 2. n characters make at most n - 1 merges; each takes one candidate and adds two. So the heap has
 *    at most 2n of them, and all is done in n log n steps, whatever the word.
 * 3. A character that the vocabulary lacks becomes its bytes (byte_fallback, if it has them all),
 *    else the unknown token (one for a row of them with fuse_unk), else nothing. An unknown token
 *    waits for the next known character; bytes pass it. These are the `tokenizers` library's ways.
 */
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "net/tokenizer.h"

#define END UINT32_MAX

enum lora_status lora__tokens_add(struct lora_tokens *tokens, uint32_t id, struct lora_error *err)
{
	if (tokens->count == tokens->capacity) {
		size_t capacity = tokens->capacity == 0 ? 64 : tokens->capacity * 2;
		uint32_t *grown = realloc(tokens->ids, capacity * sizeof *grown);

		if (grown == NULL)
			return lora__fail_memory(err);
		tokens->ids = grown;
		tokens->capacity = capacity;
	}
	tokens->ids[tokens->count++] = id;
	return LORA_OK;
}

void lora_tokens_fini(struct lora_tokens *tokens)
{
	free(tokens->ids);
	*tokens = (struct lora_tokens){0};
}

void lora__bpe_work_fini(struct lora_bpe_work *work)
{
	free(work->symbols);
	free(work->heap);
	*work = (struct lora_bpe_work){0};
}

/* --- candidates ------------------------------------------------------------------- */

static void heap_push(struct lora_bpe_work *work, struct lora_candidate candidate)
{
	size_t at = work->heap_count++;

	while (at > 0 && work->heap[(at - 1) / 2].order > candidate.order) {
		work->heap[at] = work->heap[(at - 1) / 2];
		at = (at - 1) / 2;
		work->steps++;
	}
	work->heap[at] = candidate;
	work->steps++;
}

static struct lora_candidate heap_pop(struct lora_bpe_work *work)
{
	struct lora_candidate top = work->heap[0], last = work->heap[--work->heap_count];
	size_t at = 0, child;

	while ((child = 2 * at + 1) < work->heap_count) {
		work->steps++;
		if (child + 1 < work->heap_count &&
		    work->heap[child + 1].order < work->heap[child].order)
			child++;
		if (work->heap[child].order >= last.order)
			break;
		work->heap[at] = work->heap[child];
		at = child;
	}
	work->heap[at] = last;
	return top;
}

/* Makes a candidate of the symbols at `left` and behind it, if they have a merge. */
static void propose(const struct lora_bpe *bpe, struct lora_bpe_work *work, uint32_t left)
{
	const struct lora_symbol *symbol = &work->symbols[left];
	const struct lora_pair *merge;

	if (symbol->next == END)
		return;
	merge = lora__pairs_find(&bpe->merges, symbol->id, work->symbols[symbol->next].id);
	if (merge != NULL)
		heap_push(work,
			  (struct lora_candidate){(uint64_t)merge->rank << 32 | left, merge->id});
}

/* --- characters ------------------------------------------------------------------- */

/* What a word can have of them at most. */
static size_t count_symbols(const struct lora_bpe *bpe, const char *word, size_t length)
{
	size_t count = 0;

	if (bpe->byte_fallback)
		return length;
	for (size_t i = 0; i < length; i++)
		count += ((unsigned char)word[i] & 0xc0u) != 0x80u;
	return count;
}

static enum lora_status reserve(struct lora_bpe_work *work, size_t characters,
				struct lora_error *err)
{
	size_t heap = 2 * characters; /* [2] */

	if (characters > work->capacity) {
		void *grown = realloc(work->symbols, characters * sizeof *work->symbols);

		if (grown == NULL)
			return lora__fail_memory(err);
		work->symbols = grown;
		work->capacity = characters;
	}
	if (heap > work->heap_capacity) {
		void *grown = realloc(work->heap, heap * sizeof *work->heap);

		if (grown == NULL)
			return lora__fail_memory(err);
		work->heap = grown;
		work->heap_capacity = heap;
	}
	return LORA_OK;
}

static void add_symbol(struct lora_bpe_work *work, uint32_t id)
{
	uint32_t at = (uint32_t)work->count++;

	work->symbols[at] = (struct lora_symbol){id, at == 0 ? END : at - 1, END};
	if (at > 0)
		work->symbols[at - 1].next = at;
}

static uint32_t find_character(const struct lora_bpe *bpe, const char *text, size_t length)
{
	const unsigned char *b = (const unsigned char *)text;

	if (length == 1)
		return bpe->direct[b[0]];
	if (length == 2 && b[0] < 0xc6) /* below U+0180 */
		return bpe->direct[(b[0] & 0x1fu) << 6 | (b[1] & 0x3fu)];
	return lora__map_find(&bpe->ids, text, length);
}

static bool has_bytes(const struct lora_bpe *bpe, const char *text, size_t length)
{
	for (size_t i = 0; i < length; i++)
		if (bpe->byte[(unsigned char)text[i]] == LORA_TOKEN_NONE)
			return false;
	return bpe->byte_fallback;
}

static size_t character_size(const char *text)
{
	unsigned char first = (unsigned char)*text;

	return first < 0x80 ? 1 : first < 0xe0 ? 2 : first < 0xf0 ? 3 : 4;
}

/* [3] The word's characters as symbols. */
static enum lora_status begin_word(const struct lora_bpe *bpe, struct lora_bpe_work *work,
				   const char *word, size_t length, struct lora_error *err)
{
	bool waiting = false; /* an unknown token */
	size_t size;

	for (size_t at = 0; at < length; at += size) {
		uint32_t id;

		size = character_size(word + at);
		id = find_character(bpe, word + at, size);
		if (id != LORA_TOKEN_NONE) {
			if (waiting)
				add_symbol(work, bpe->unk);
			waiting = false;
			add_symbol(work, id);
		} else if (has_bytes(bpe, word + at, size)) {
			for (size_t i = 0; i < size; i++)
				add_symbol(work, bpe->byte[(unsigned char)word[at + i]]);
		} else if (bpe->has_unk) {
			if (bpe->unk == LORA_TOKEN_NONE)
				return lora__fail(err, LORA_INPUT,
						  "the vocabulary has neither '%s' nor a token for "
						  "what is unknown",
						  lora__escape_n(word + at, size));
			if (waiting && !bpe->fuse_unk)
				add_symbol(work, bpe->unk);
			waiting = true;
		}
	}
	if (waiting)
		add_symbol(work, bpe->unk);
	return LORA_OK;
}

/* --- the word --------------------------------------------------------------------- */

static void merge_all(const struct lora_bpe *bpe, struct lora_bpe_work *work)
{
	struct lora_symbol *symbols = work->symbols;

	for (size_t i = 0; i < work->count; i++)
		propose(bpe, work, (uint32_t)i);
	while (work->heap_count > 0) {
		struct lora_candidate top = heap_pop(work);
		struct lora_symbol *left = &symbols[(uint32_t)top.order], *right;
		const struct lora_pair *merge;

		if (left->id == LORA_TOKEN_NONE || left->next == END)
			continue;
		right = &symbols[left->next];
		merge = lora__pairs_find(&bpe->merges, left->id, right->id);
		if (merge == NULL || merge->id != top.id) /* [1] */
			continue;
		left->id = top.id;
		left->next = right->next;
		right->id = LORA_TOKEN_NONE;
		if (left->next != END)
			symbols[left->next].previous = (uint32_t)top.order;
		if (left->previous != END)
			propose(bpe, work, left->previous);
		propose(bpe, work, (uint32_t)top.order);
	}
}

enum lora_status lora__bpe_encode(const struct lora_bpe *bpe, struct lora_bpe_work *work,
				  const char *word, size_t length, struct lora_tokens *tokens,
				  struct lora_error *err)
{
	enum lora_status status;

	if (bpe->ignore_merges) {
		uint32_t id = lora__map_find(&bpe->ids, word, length);

		if (id != LORA_TOKEN_NONE)
			return lora__tokens_add(tokens, id, err);
	}
	status = reserve(work, count_symbols(bpe, word, length), err);
	if (status != LORA_OK)
		return status;
	work->count = 0;
	work->heap_count = 0;
	status = begin_word(bpe, work, word, length, err);
	if (status != LORA_OK || work->count == 0)
		return status;
	merge_all(bpe, work);
	for (uint32_t at = 0; at != END && status == LORA_OK; at = work->symbols[at].next)
		status = lora__tokens_add(tokens, work->symbols[at].id, err);
	return status;
}
