/* SPDX-License-Identifier: Apache-2.0 */
/* net/data.h - a file of examples as tokens: what evaluation and training read.
 *
 * 1. The kind of file is told by its name, the kind of an example by its keys: "messages", "prompt"
 *    with "completion", or "text". Other keys are left alone.
 * 2. A line that cannot be used fails with its number; nothing is skipped.
 * 3. mask[i] tells whether token i belongs to what is to be learned: a completion, what the
 *    assistant says, all of a text.
 */
#ifndef LORA_NET_DATA_H
#define LORA_NET_DATA_H

#include "base/arena.h"
#include <loractl/chat.h>

#define LORA_DATA_LIMIT ((uint64_t)4 << 30) /* bytes of a file */

struct lora_example {
	const uint32_t *ids;
	const uint8_t *mask;
	size_t count; /* after cutting */
	size_t line;  /* from 1 */
	size_t bytes; /* of that line */
	bool cut;
};

struct lora_data {
	struct lora_arena arena;
	struct lora_example *examples;
	size_t count, room;
};

struct lora_data_options {
	const struct lora_tokenizer *tokenizer;
	enum lora_chat chat; /* the template of messages; LORA_CHAT_NONE: the model's own */
	size_t tokens;	     /* examples are cut behind so many; 0: never */
	bool masked;	     /* the masks are wanted: a conversation that gives none is refused */
};

/* The caller finis *data, zeroed before, also after a failure. LORA_INPUT names file and line. */
enum lora_status lora__data_read(struct lora_data *data, const char *path,
				 const struct lora_data_options *options, struct lora_error *err);
void lora__data_fini(struct lora_data *data);

#endif
