/* SPDX-License-Identifier: Apache-2.0 */
/* fuzz_tokenizer.c - any bytes as tokenizer.json, tokenizer_config.json and a text
 *
 * The three are separated by NUL bytes. What is accepted encodes the text to tokens that exist, or
 * says in one line why not; the tokens decode to UTF-8, the same whole and one at a time.
 */
#include <loractl/chat.h>
#include <stdlib.h>
#include <string.h>

#include "base/utf8.h"
#include "net/tokenizer.h"

#define TEXT_LIMIT 512u /* an expression may take its time */

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void demand(bool truth)
{
	if (!truth)
		abort();
}

static void demand_line(enum lora_status status, const struct lora_error *err)
{
	demand(status == err->status && err->message[0] != '\0' && !strchr(err->message, '\n'));
}

static void check_decoding(const struct lora_tokenizer *tokenizer, const struct lora_tokens *tokens,
			   unsigned flags)
{
	struct lora_error err = LORA_ERROR_INIT;
	struct lora_decoder *decoder = NULL;
	size_t length = 0, at = 0, more = 0;
	const char *part = NULL;
	enum lora_status status;
	char *text = NULL;

	status = lora_tokenizer_decode(tokenizer, tokens->ids, tokens->count, flags, &text, &length,
				       &err);
	if (status != LORA_OK) {
		demand_line(status, &err);
		return;
	}
	demand(lora_decoder_new(&decoder, tokenizer, flags, &err) == LORA_OK);
	for (size_t i = 0; i <= tokens->count; i++, at += more) {
		status = i < tokens->count
			     ? lora_decoder_push(decoder, tokens->ids[i], &part, &more, &err)
			     : lora_decoder_finish(decoder, &part, &more, &err);
		demand(status == LORA_OK && more <= length - at);
		demand(memcmp(text + at, part, more) == 0);
	}
	demand(at == length);
	for (at = 0; at < length; at += more) {
		uint32_t code = 0;

		more = lora__utf8_decode(text + at, length - at, &code);
		demand(more > 0);
	}
	lora_decoder_free(decoder);
	free(text);
}

static void check_encoding(const struct lora_tokenizer *tokenizer, const char *text, size_t size)
{
	const struct lora_message talk[] = {{"user", text, size}, {"assistant", text, size / 2}};
	const struct lora_conversation all = {lora_chat_of(tokenizer), talk, 2, true};

	for (unsigned flags = 0; flags < 4; flags++) {
		struct lora_error err = LORA_ERROR_INIT;
		struct lora_tokens tokens = {0};
		uint8_t *mask = NULL;
		enum lora_status status =
		    lora_tokenizer_encode(tokenizer, text, size, flags, &tokens, &err);

		if (status == LORA_OK && all.chat >= LORA_CHAT_PLAIN)
			status = lora_chat_encode_masked(tokenizer, &all, &tokens, &mask, &err);
		if (status != LORA_OK)
			demand_line(status, &err);
		for (size_t i = 0; i < tokens.count; i++) {
			demand(tokens.ids[i] < lora_tokenizer_vocab_size(tokenizer));
			demand(lora_tokenizer_token(tokenizer, tokens.ids[i], NULL) != NULL);
		}
		check_decoding(tokenizer, &tokens, flags & LORA_DECODE_SKIP_SPECIAL);
		free(mask);
		lora_tokens_fini(&tokens);
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct lora_error err = LORA_ERROR_INIT;
	struct lora_tokenizer *tokenizer = NULL;
	const char *part[3] = {NULL, NULL, NULL};
	size_t length[3] = {0, 0, 0}, rest = size;
	enum lora_status status;

	for (size_t i = 0; i < 3; i++) {
		const char *begin = (const char *)data + (size - rest);
		const char *end = rest > 0 && i < 2 ? memchr(begin, 0, rest) : NULL;

		part[i] = begin;
		length[i] = end == NULL ? rest : (size_t)(end - begin);
		rest -= length[i] + (end != NULL);
	}
	struct lora_tokenizer_files files = {.tokenizer = part[0],
					     .tokenizer_size = length[0],
					     .config = length[1] > 0 ? part[1] : NULL,
					     .config_size = length[1]};

	status = lora__tokenizer_parse(&tokenizer, &files, &err);
	if (status == LORA_OK)
		check_encoding(tokenizer, part[2], length[2] < TEXT_LIMIT ? length[2] : TEXT_LIMIT);
	else
		demand_line(status, &err);
	lora_tokenizer_close(tokenizer);
	return 0;
}
