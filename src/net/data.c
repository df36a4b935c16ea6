/* SPDX-License-Identifier: Apache-2.0 */
/* net/data.c - a file of examples as tokens: the contract is in data.h */
#include "net/data.h"

#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "base/file.h"
#include "base/json.h"

/* The example at work: tokens as they come, and which of them count. */
struct draft {
	const struct lora_data_options *options;
	struct lora_tokens tokens;
	uint8_t *mask;
	size_t mask_room;
};

/* Every token from number `from` on belongs to what is learned, or does not. */
static enum lora_status mark(struct draft *draft, size_t from, bool learned, struct lora_error *err)
{
	if (draft->tokens.count > draft->mask_room) {
		uint8_t *more = realloc(draft->mask, draft->tokens.capacity);

		if (!more)
			return lora__fail_memory(err);
		draft->mask = more;
		draft->mask_room = draft->tokens.capacity;
	}
	memset(draft->mask + from, learned, draft->tokens.count - from);
	return LORA_OK;
}

static enum lora_status add(struct draft *draft, const char *text, size_t length, unsigned flags,
			    bool learned, struct lora_error *err)
{
	size_t from = draft->tokens.count;
	enum lora_status status = lora_tokenizer_encode(draft->options->tokenizer, text, length,
							flags, &draft->tokens, err);

	return status || draft->tokens.count == from ? status : mark(draft, from, learned, err);
}

/* --- the kinds of examples ------------------------------------------------------------------- */

static enum lora_status string_of(const struct lora_json *object, const char *key, const char **out,
				  struct lora_error *err)
{
	*out = lora__json_string(lora__json_get(object, key));
	return *out ? LORA_OK : lora__fail(err, LORA_INPUT, "its '%s' is no string", key);
}

static enum lora_status add_text(struct draft *draft, const struct lora_json *object,
				 struct lora_error *err)
{
	const char *text = NULL;
	enum lora_status status = string_of(object, "text", &text, err);

	return status ? status : add(draft, text, strlen(text), LORA_ENCODE_SPECIAL, true, err);
}

static enum lora_status add_pair(struct draft *draft, const struct lora_json *object,
				 struct lora_error *err)
{
	const char *prompt = NULL, *completion = NULL;
	enum lora_status status = string_of(object, "prompt", &prompt, err);

	if (!status)
		status = string_of(object, "completion", &completion, err);
	if (!status)
		status = add(draft, prompt, strlen(prompt), LORA_ENCODE_SPECIAL, false, err);
	if (!status)
		status = add(draft, completion, strlen(completion), 0, true, err);
	return status;
}

/* The conversation, borrowed from its JSON; malloc'd. */
static enum lora_status read_messages(const struct lora_json *list, struct lora_message **out,
				      size_t *count, struct lora_error *err)
{
	struct lora_message *messages;
	size_t i = 0;

	*out = NULL;
	*count = lora__json_count(list);
	if (lora__json_type(list) != LORA_JSON_ARRAY || *count == 0)
		return lora__fail(err, LORA_INPUT, "its 'messages' is no list of messages");
	messages = calloc(*count, sizeof(*messages));
	*out = messages;
	if (!messages)
		return lora__fail_memory(err);
	for (const struct lora_json *m = lora__json_first(list); m; m = lora__json_next(m), i++) {
		messages[i].role = lora__json_string(lora__json_get(m, "role"));
		messages[i].content = lora__json_string(lora__json_get(m, "content"));
		if (!messages[i].role || !messages[i].content)
			return lora__fail(err, LORA_INPUT,
					  "message %zu has no 'role' or no 'content' that is a "
					  "string",
					  i + 1);
		messages[i].length = strlen(messages[i].content);
	}
	return LORA_OK;
}

static enum lora_status choose_chat(const struct draft *draft, enum lora_chat *chat,
				    struct lora_error *err)
{
	*chat = draft->options->chat;
	if (*chat == LORA_CHAT_NONE)
		*chat = lora_chat_of(draft->options->tokenizer);
	if (*chat != LORA_CHAT_NONE && *chat != LORA_CHAT_OTHER)
		return LORA_OK;
	return lora__fail(err, LORA_INPUT,
			  "%s: --template NAME says how messages are to be spelled",
			  *chat == LORA_CHAT_NONE ? "the model has no chat template"
						  : "the model's chat template is not one of those "
						    "that are known");
}

/* What the assistant says, up to the end of its turn, is learned. Without masks all of it is. */
static enum lora_status encode_talk(struct draft *draft, const struct lora_conversation *talk,
				    struct lora_error *err)
{
	const struct lora_tokenizer *tokenizer = draft->options->tokenizer;
	uint8_t *mask = NULL;
	enum lora_status status;

	if (!draft->options->masked) {
		status = lora_chat_encode(tokenizer, talk, &draft->tokens, err);
		return status || draft->tokens.count == 0 ? status : mark(draft, 0, true, err);
	}
	status = lora_chat_encode_masked(tokenizer, talk, &draft->tokens, &mask, err);
	if (!status && draft->tokens.count > 0)
		status = mark(draft, 0, false, err);
	if (!status && draft->tokens.count > 0)
		memcpy(draft->mask, mask, draft->tokens.count);
	free(mask);
	return status;
}

static enum lora_status add_messages(struct draft *draft, const struct lora_json *object,
				     struct lora_error *err)
{
	struct lora_conversation talk = {LORA_CHAT_NONE, NULL, 0, false};
	struct lora_message *messages = NULL;
	enum lora_status status =
	    read_messages(lora__json_get(object, "messages"), &messages, &talk.count, err);

	talk.messages = messages;
	if (!status)
		status = choose_chat(draft, &talk.chat, err);
	if (!status)
		status = encode_talk(draft, &talk, err);
	free(messages);
	return status;
}

static enum lora_status add_object(struct draft *draft, const struct lora_json *object,
				   struct lora_error *err)
{
	if (lora__json_type(object) != LORA_JSON_OBJECT)
		return lora__fail(err, LORA_INPUT, "it is no JSON object");
	if (lora__json_get(object, "messages"))
		return add_messages(draft, object, err);
	if (lora__json_get(object, "prompt") || lora__json_get(object, "completion"))
		return add_pair(draft, object, err);
	if (lora__json_get(object, "text"))
		return add_text(draft, object, err);
	return lora__fail(err, LORA_INPUT,
			  "it has neither 'text', nor 'prompt' and 'completion', nor 'messages'");
}

/* --- lines ----------------------------------------------------------------------------------- */

static enum lora_status add_json(struct draft *draft, const char *line, size_t length,
				 struct lora_error *err)
{
	struct lora_json *object = NULL;
	enum lora_status status = lora__json_parse(&object, line, length, err);

	if (!status)
		status = add_object(draft, object, err);
	lora__json_free(object);
	return status;
}

/* The draft becomes an example. */
static enum lora_status keep(struct lora_data *data, const struct draft *draft, size_t line,
			     size_t bytes, struct lora_error *err)
{
	size_t limit = draft->options->tokens, count = draft->tokens.count;
	bool cut = limit && count > limit;
	uint32_t *ids;
	uint8_t *mask;

	count = cut ? limit : count;
	ids = lora__arena_array(&data->arena, count + 1, sizeof(*ids));
	mask = lora__arena_alloc(&data->arena, count + 1);
	if (data->count == data->room) {
		size_t room = 2 * data->room + 64;
		struct lora_example *more = realloc(data->examples, room * sizeof(*more));

		if (!more)
			return lora__fail_memory(err);
		data->examples = more;
		data->room = room;
	}
	if (!ids || !mask)
		return lora__fail_memory(err);
	if (count > 0) {
		memcpy(ids, draft->tokens.ids, count * sizeof(*ids));
		memcpy(mask, draft->mask, count);
	}
	data->examples[data->count++] = (struct lora_example){ids, mask, count, line, bytes, cut};
	return LORA_OK;
}

static bool is_blank(const char *line, size_t length)
{
	for (size_t i = 0; i < length; i++)
		if (line[i] != ' ' && line[i] != '\t' && line[i] != '\r')
			return false;
	return true;
}

static bool ends_in(const char *path, const char *end)
{
	size_t n = strlen(path), e = strlen(end);

	return n >= e && strcmp(path + n - e, end) == 0;
}

static enum lora_status read_lines(struct lora_data *data, struct draft *draft, const char *path,
				   const char *text, size_t size, struct lora_error *err)
{
	bool json = ends_in(path, ".jsonl");
	enum lora_status status = LORA_OK;
	size_t line = 0;

	for (const char *at = text, *end = text + size, *next; at < end && !status; at = next) {
		const char *newline = memchr(at, '\n', (size_t)(end - at));
		size_t length = (size_t)((newline ? newline : end) - at);

		next = newline ? newline + 1 : end;
		line++;
		if (is_blank(at, length))
			continue;
		if (!json && at[length - 1] == '\r')
			length--;
		draft->tokens.count = 0;
		status = json ? add_json(draft, at, length, err)
			      : add(draft, at, length, LORA_ENCODE_SPECIAL, true, err);
		if (!status)
			status = keep(data, draft, line, length, err);
		if (status)
			return lora__context(err, status, "'%s': line %zu", lora__escape(path),
					     line);
	}
	if (data->count == 0)
		return lora__fail(err, LORA_INPUT, "'%s' holds no examples", lora__escape(path));
	return LORA_OK;
}

enum lora_status lora__data_read(struct lora_data *data, const char *path,
				 const struct lora_data_options *options, struct lora_error *err)
{
	struct draft draft = {.options = options};
	char *text = NULL;
	size_t size = 0;
	enum lora_status status = lora__file_slurp(path, LORA_DATA_LIMIT, &text, &size, err);

	if (!status)
		status = read_lines(data, &draft, path, text, size, err);
	lora_tokens_fini(&draft.tokens);
	free(draft.mask);
	free(text);
	return status;
}

void lora__data_fini(struct lora_data *data)
{
	lora__arena_fini(&data->arena);
	free(data->examples);
	*data = (struct lora_data){0};
}
