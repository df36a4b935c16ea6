/* SPDX-License-Identifier: Apache-2.0 */
/* tokenize.c - a tokenizer's functions for tests in other languages
 *
 * usage: helper_tokenize DIRECTORY facts
 *        helper_tokenize DIRECTORY encode FLAGS     texts on stdin, a line of ids for each on
 * stdout helper_tokenize DIRECTORY decode FLAGS     lines of ids on stdin, texts on stdout
 *        helper_tokenize DIRECTORY stream FLAGS     the same through a decoder, token by token
 *        helper_tokenize DIRECTORY chat NAME PROMPT  roles and contents, by turns, on stdin: the
 * text and a line of ids on stdout; NAME "own" is the tokenizer's own
 *
 * A text is its length in a line, its bytes, and a newline. What fails is one line on stderr, and
 * the status is the exit code.
 */
#include <loractl/loractl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The next text on stdin, malloc'd with a NUL behind it; NULL at the end. */
static char *next_text(size_t *size)
{
	char *text;

	if (scanf("%zu%*1[\n]", size) != 1)
		return NULL;
	text = malloc(*size + 1);
	if (text == NULL || fread(text, 1, *size, stdin) != *size)
		abort();
	text[*size] = '\0';
	return text;
}

static void show_ids(const struct lora_tokens *tokens)
{
	for (size_t i = 0; i < tokens->count; i++)
		printf(i == 0 ? "%u" : " %u", tokens->ids[i]);
	putchar('\n');
}

static enum lora_status encode(const struct lora_tokenizer *tokenizer, unsigned flags,
			       struct lora_error *err)
{
	struct lora_tokens tokens = {0};
	enum lora_status status = LORA_OK;
	size_t size = 0;

	for (char *text; status == LORA_OK && (text = next_text(&size)) != NULL; free(text)) {
		tokens.count = 0;
		status = lora_tokenizer_encode(tokenizer, text, size, flags, &tokens, err);
		show_ids(&tokens);
	}
	lora_tokens_fini(&tokens);
	return status;
}

static void show(const char *text, size_t length)
{
	printf("%zu\n", length);
	fwrite(text, 1, length, stdout);
	putchar('\n');
}

static enum lora_status decode_one(const struct lora_tokenizer *tokenizer,
				   const struct lora_tokens *tokens, unsigned flags,
				   struct lora_error *err)
{
	char *text = NULL;
	size_t length = 0;
	enum lora_status status = lora_tokenizer_decode(tokenizer, tokens->ids, tokens->count,
							flags, &text, &length, err);

	if (status == LORA_OK)
		show(text, length);
	free(text);
	return status;
}

/* Each token's text, and at last what was held back: as many texts as tokens, and one. */
static enum lora_status stream_one(struct lora_decoder *decoder, const struct lora_tokens *tokens,
				   struct lora_error *err)
{
	enum lora_status status = LORA_OK;
	const char *text = NULL;
	size_t length = 0;

	for (size_t i = 0; i <= tokens->count && status == LORA_OK; i++) {
		status = i < tokens->count
			     ? lora_decoder_push(decoder, tokens->ids[i], &text, &length, err)
			     : lora_decoder_finish(decoder, &text, &length, err);
		if (status == LORA_OK)
			show(text, length);
	}
	return status;
}

static enum lora_status decode(const struct lora_tokenizer *tokenizer, bool stream, unsigned flags,
			       struct lora_error *err)
{
	struct lora_decoder *decoder = NULL;
	enum lora_status status = lora_decoder_new(&decoder, tokenizer, flags, err);
	size_t capacity = 0, room = 0;
	struct lora_tokens tokens = {0};
	char *line = NULL;

	while (status == LORA_OK && getline(&line, &capacity, stdin) > 0) {
		char *at = line, *end = line;

		tokens.count = 0;
		for (;; at = end) {
			unsigned long id = strtoul(at, &end, 10);

			if (end == at)
				break;
			if (tokens.count == room) {
				room = 2 * room + 64;
				tokens.ids = realloc(tokens.ids, room * sizeof *tokens.ids);
				if (tokens.ids == NULL)
					abort();
			}
			tokens.ids[tokens.count++] = (uint32_t)id;
		}
		status = stream ? stream_one(decoder, &tokens, err)
				: decode_one(tokenizer, &tokens, flags, err);
	}
	lora_decoder_free(decoder);
	lora_tokens_fini(&tokens);
	free(line);
	return status;
}

static enum lora_status chat(const struct lora_tokenizer *tokenizer, const char *name, bool prompt,
			     bool masked, struct lora_error *err)
{
	enum lora_chat family =
	    strcmp(name, "own") == 0 ? lora_chat_of(tokenizer) : lora_chat_find(name);
	struct lora_message messages[64] = {{NULL, NULL, 0}};
	struct lora_tokens tokens = {0};
	size_t count = 0, size = 0, length = 0;
	struct lora_conversation talk = {family, messages, 0, prompt};
	enum lora_status status;
	char *text = NULL;

	while (count < 64 && (messages[count].role = next_text(&size)) != NULL) {
		messages[count].content = next_text(&messages[count].length);
		count++;
	}
	talk.count = count;
	status = lora_chat_render(tokenizer, &talk, &text, &length, err);
	if (status == LORA_OK) {
		show(text, length);
		status = lora_chat_encode(tokenizer, &talk, &tokens, err);
	}
	if (status == LORA_OK)
		show_ids(&tokens);
	if (status == LORA_OK && masked) {
		uint8_t *mask = NULL;

		tokens.count = 0;
		status = lora_chat_encode_masked(tokenizer, &talk, &tokens, &mask, err);
		for (size_t i = 0; i < tokens.count; i++)
			putchar(mask[i] ? '1' : '0');
		putchar('\n');
		free(mask);
	}
	for (size_t i = 0; i < count; i++) {
		free((void *)(uintptr_t)messages[i].role);
		free((void *)(uintptr_t)messages[i].content);
	}
	free(text);
	lora_tokens_fini(&tokens);
	return status;
}

static void facts(const struct lora_tokenizer *tokenizer)
{
	printf("count %zu\nsize %zu\n", lora_tokenizer_count(tokenizer),
	       lora_tokenizer_vocab_size(tokenizer));
	for (int role = LORA_TOKEN_BOS; role <= LORA_TOKEN_UNK; role++)
		printf("special %d %d\n", role,
		       (int)lora_tokenizer_special(tokenizer, (enum lora_token_role)role));
	printf("chat %s\n", lora_chat_name(lora_chat_of(tokenizer)));
}

int main(int argc, char **argv)
{
	struct lora_error err = LORA_ERROR_INIT;
	struct lora_tokenizer *tokenizer = NULL;
	unsigned flags = argc > 3 ? (unsigned)atoi(argv[3]) : 0;
	enum lora_status status = LORA_USAGE;

	if (argc >= 3)
		status = lora_tokenizer_open(&tokenizer, argv[1], &err);
	if (status == LORA_OK && strcmp(argv[2], "encode") == 0)
		status = encode(tokenizer, flags, &err);
	else if (status == LORA_OK && strcmp(argv[2], "chat") == 0 && argc > 4)
		status = chat(tokenizer, argv[3], atoi(argv[4]) == 1, atoi(argv[4]) == 2, &err);
	else if (status == LORA_OK && strcmp(argv[2], "facts") == 0)
		facts(tokenizer);
	else if (status == LORA_OK)
		status = decode(tokenizer, strcmp(argv[2], "stream") == 0, flags, &err);
	if (status != LORA_OK)
		fprintf(stderr, "%s\n", err.message);
	lora_tokenizer_close(tokenizer);
	return (int)status;
}
