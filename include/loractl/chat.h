/* SPDX-License-Identifier: Apache-2.0 */
/* loractl/chat.h - conversations as the text that a model was tuned on.
 *
 * A chat model expects its conversations in one spelling: who speaks, where a turn ends. Models
 * carry it as a Jinja template; here the spellings of the large families are data, and a model's
 * template is recognized as one of them by marks that only it has (src/net/chat.c lists them).
 */
#ifndef LORACTL_CHAT_H
#define LORACTL_CHAT_H

#include <loractl/tokenizer.h>

#ifdef __cplusplus
extern "C" {
#endif

enum lora_chat {
	LORA_CHAT_NONE,	 /* a model without a template */
	LORA_CHAT_OTHER, /* a template that is none of these */
	LORA_CHAT_PLAIN, /* every content, and a newline */
	LORA_CHAT_CHATML,
	LORA_CHAT_LLAMA2,
	LORA_CHAT_LLAMA3,
	LORA_CHAT_MISTRAL,
	LORA_CHAT_COUNT
};

struct lora_message {
	const char *role;    /* "system", "user", "assistant"; chatml and llama3 take any word */
	const char *content; /* UTF-8, not NUL-terminated */
	size_t length;
};

struct lora_conversation {
	enum lora_chat chat;
	const struct lora_message *messages;
	size_t count;
	bool prompt; /* its end invites an answer */
};

/* "none", "other", "plain", "chatml", ...; NULL for a bad value. */
LORA_API const char *lora_chat_name(enum lora_chat chat);
/* The family of that name, one that can be rendered; LORA_CHAT_OTHER if there is none. */
LORA_API enum lora_chat lora_chat_find(const char *name);
/* What the tokenizer's own template is. */
LORA_API enum lora_chat lora_chat_of(const struct lora_tokenizer *tokenizer);

/* The conversation as text, with a NUL behind its `length` bytes; malloc'd. The tokenizer says how
 * a text begins and ends, and which system message stands where none is given, if its own template
 * has one. LORA_INPUT if the family has no place for a role or for the order of the roles;
 * LORA_USAGE if the family cannot be rendered. */
LORA_API enum lora_status lora_chat_render(const struct lora_tokenizer *tokenizer,
					   const struct lora_conversation *talk, char **text,
					   size_t *length, struct lora_error *err);

/* Appends the conversation's tokens: those of its text, in which special tokens are found where the
 * family puts them and never in a content, whoever wrote it. LORA_INPUT also if that cannot be had:
 * a content has a special token that the tokenizer searches for in normalized text only. */
LORA_API enum lora_status lora_chat_encode(const struct lora_tokenizer *tokenizer,
					   const struct lora_conversation *talk,
					   struct lora_tokens *tokens, struct lora_error *err);

/* The same, and which of the tokens a model has to learn to say: (*mask)[i] is 1 for the i-th token
 * that was appended if it belongs to what follows an invitation, up to the token that ends the
 * assistant's turn and with it; else 0. A token that reaches over the end of an invitation is 1.
 * malloc'd. LORA_INPUT also if no token ends a turn, as in plain conversations. */
LORA_API enum lora_status lora_chat_encode_masked(const struct lora_tokenizer *tokenizer,
						  const struct lora_conversation *talk,
						  struct lora_tokens *tokens, uint8_t **mask,
						  struct lora_error *err);

#ifdef __cplusplus
}
#endif

#endif
