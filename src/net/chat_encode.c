/* SPDX-License-Identifier: Apache-2.0 */
/* net/chat_encode.c - a conversation's tokens, and which of them an assistant says
 *
 * The text is encoded as a whole, so that the tokens are those which it has anywhere else; only are
 * special tokens not looked for where contents stand: a message cannot end its own turn.
 *
 * Which tokens are an assistant's? Added tokens cut a text into stretches that are encoded each by
 * itself, and every token knows where its stretch begins. The stretch in which an answer begins is
 *
 *	assistant \n Hello .		(chatml; <|im_start|> before it and <|im_end|> behind it)
 *
 * and those of its tokens which "assistant\n" alone makes too are not the assistant's; all others
 * are, up to the special token that ends the turn. No offsets are needed, whatever a normalizer
 * does.
 */
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "net/chat.h"

/* The search in normalized text does not know where contents are. */
static enum lora_status check_normalized(const struct lora_rendering *r)
{
	const struct lora_added_set *added = &r->tokenizer->added;

	for (uint32_t i = 0; i < added->count; i++) {
		const struct lora_added *token = &added->at[i];

		if (!token->special || !token->normalized)
			continue;
		for (size_t k = 0; k < r->span_count; k++)
			if (memmem(r->text.at + r->spans[k].begin,
				   r->spans[k].end - r->spans[k].begin, token->content,
				   token->length) != NULL)
				return lora__fail(
				    r->err, LORA_INPUT,
				    "a message contains the special token '%s', which "
				    "this tokenizer cannot take for text",
				    lora__escape(token->content));
	}
	return LORA_OK;
}

/* The tokens of a stretch of the text in which no added token is. */
static enum lora_status encode_stretch(const struct lora_rendering *r, size_t begin, size_t end,
				       struct lora_tokens *tokens)
{
	struct lora_added_search search = {.later = begin > 0};

	return lora__tokenizer_encode(r->tokenizer, &search, r->text.at + begin, end - begin,
				      LORA_ENCODE_LITERAL, tokens, r->err);
}

/* Marks one turn. ids[0 .. origins->count) are the conversation's, and *at is a token of the turns
 * before. Of the stretch in which the content begins, the tokens that what stands before the
 * content makes by itself are not the assistant's. */
static enum lora_status mark_turn(const struct lora_rendering *r, const struct lora_spoken *turn,
				  const uint32_t *ids, const struct lora_origins *origins,
				  size_t *at, uint8_t *mask)
{
	struct lora_tokens before = {0};
	enum lora_status status = LORA_OK;
	size_t i = *at, same = 0, origin;

	while (i + 1 < origins->count && origins->at[i + 1] <= turn->begin)
		i++;
	origin = i < origins->count ? origins->at[i] : turn->begin;
	while (i > *at && origins->at[i - 1] == origin)
		i--;
	if (origin < turn->begin)
		status = encode_stretch(r, origin, turn->begin, &before);
	while (same < before.count && i < origins->count && origins->at[i] == origin &&
	       ids[i] == before.ids[same]) {
		same++;
		i++;
	}
	lora_tokens_fini(&before);
	for (; status == LORA_OK && i < origins->count && origins->at[i] < turn->last; i++) {
		mask[i] = 1;
		*at = i;
		if (origins->at[i] >= turn->end && lora_tokenizer_is_special(r->tokenizer, ids[i]))
			return LORA_OK;
	}
	return status != LORA_OK ? status
				 : lora__fail(r->err, LORA_INPUT,
					      "no token ends an assistant's turn in this %s "
					      "conversation: it cannot be told from the others",
					      r->name);
}

static enum lora_status mark_all(const struct lora_rendering *r, const struct lora_tokens *tokens,
				 const struct lora_origins *origins, uint8_t **mask)
{
	const uint32_t *ids = tokens->ids + (tokens->count - origins->count);
	enum lora_status status = LORA_OK;
	size_t at = 0;

	*mask = calloc(origins->count + 1, 1);
	if (*mask == NULL)
		return lora__fail_memory(r->err);
	for (size_t i = 0; i < r->spoken_count && status == LORA_OK; i++)
		status = mark_turn(r, &r->spoken[i], ids, origins, &at, *mask);
	return status;
}

enum lora_status lora_chat_encode_masked(const struct lora_tokenizer *tokenizer,
					 const struct lora_conversation *talk,
					 struct lora_tokens *tokens, uint8_t **mask,
					 struct lora_error *err)
{
	struct lora_rendering r = {.tokenizer = tokenizer, .err = err};
	struct lora_added_search search = {0};
	struct lora_origins origins = {0};
	size_t count = tokens->count;
	enum lora_status status = LORA_OK;

	if (mask != NULL)
		*mask = NULL;
	r.spans = calloc(talk->count + 2, sizeof *r.spans);
	r.spoken = calloc(talk->count + 2, sizeof *r.spoken);
	if (r.spans == NULL || r.spoken == NULL)
		status = lora__fail_memory(err);
	if (status == LORA_OK)
		status = lora__chat_render(&r, talk);
	if (status == LORA_OK)
		status = check_normalized(&r);
	search.spans = r.spans;
	search.span_count = r.span_count;
	search.origins = mask != NULL ? &origins : NULL;
	if (status == LORA_OK)
		status = lora__tokenizer_encode(tokenizer, &search, r.text.at, r.text.size, 0,
						tokens, err);
	if (status == LORA_OK && mask != NULL)
		status = mark_all(&r, tokens, &origins, mask);
	if (status != LORA_OK) {
		tokens->count = count;
		if (mask != NULL) {
			free(*mask);
			*mask = NULL;
		}
	}
	free(r.spans);
	free(r.spoken);
	free(origins.at);
	lora__buffer_fini(&r.content);
	lora__buffer_fini(&r.text);
	return status;
}

enum lora_status lora_chat_encode(const struct lora_tokenizer *tokenizer,
				  const struct lora_conversation *talk, struct lora_tokens *tokens,
				  struct lora_error *err)
{
	return lora_chat_encode_masked(tokenizer, talk, tokens, NULL, err);
}
