/* SPDX-License-Identifier: Apache-2.0 */
/* net/chat.h - a conversation as text, with what its encoding needs to know of it */
#ifndef LORA_NET_CHAT_H
#define LORA_NET_CHAT_H

#include <loractl/chat.h>

#include "net/tokenizer.h"

struct lora_chat_family;

/* What an assistant says, from the end of the invitation; and what ends its turn. */
struct lora_spoken {
	size_t begin, end, last;
};

struct lora_rendering {
	const struct lora_tokenizer *tokenizer;
	const struct lora_chat_family *family;
	const char *name; /* the family's */
	struct lora_buffer text;
	struct lora_buffer content; /* of one message */
	struct lora_span *spans;    /* where contents stand; NULL if nobody asks */
	size_t span_count;
	struct lora_spoken *spoken; /* where assistants speak; NULL if nobody asks */
	size_t spoken_count;
	struct lora_error *err;
};

/* Fills in the text, and spans and spoken if they are there: with room for two more than there are
 * messages. */
enum lora_status lora__chat_render(struct lora_rendering *r, const struct lora_conversation *talk);

#endif
