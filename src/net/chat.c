/* SPDX-License-Identifier: Apache-2.0 */
/* net/chat.c - the spellings of conversations, as data
 *
 * A family says what stands before and after a message of each role, what stands first of all, and
 * what invites an answer. Three marks in it are filled in: the token that begins a text, the one
 * that ends it, the role's name.
 *
 * A template is recognized by pieces of its source: all of `has`, none of `lacks`. The marks that
 * are lacked are those of successors which add something: thoughts, tools, dates.
 *
 * 1. A content is copied, repaired (UTF-8) and, where the family's template does so, stripped of
 *    white space; nothing else happens to it.
 * 2. In lora_chat_encode() no special token is found in a content: a message cannot end its own
 *    turn. Roles are words of letters, digits, '_' and '-'.
 * 3. chatml's templates often begin with a system message of their own when none is given. It is
 *    read out of the template's source: what stands between "<|im_start|>system", a newline and
 *    "<|im_end|>", if that is plain text.
 */
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "base/utf8.h"
#include "net/chat.h"

#define BOS   "\1"
#define EOS   "\2"
#define ROLE  "\3"
#define MARKS 6

struct turn {
	const char *before, *after;
};

struct lora_chat_family {
	const char *name;
	const char *begin; /* first of all */
	struct turn user, assistant;
	struct turn other;  /* any other role; NULL: there is none */
	struct turn fold;   /* a first system message goes into the first user's content so */
	const char *prompt; /* what invites an answer; assistant.before begins with it */
	bool strip;	    /* contents lose the white space around them */
	bool alternate;	    /* user and assistant take turns */
	const char *has[MARKS], *lacks[MARKS];
};

static const struct lora_chat_family families[LORA_CHAT_COUNT] = {
    [LORA_CHAT_NONE] = {.name = "none"},
    [LORA_CHAT_OTHER] = {.name = "other"},
    [LORA_CHAT_PLAIN] =
	{
	    .name = "plain",
	    .begin = "",
	    .user = {"", "\n"},
	    .assistant = {"", "\n"},
	    .other = {"", "\n"},
	    .prompt = "",
	},
    [LORA_CHAT_CHATML] =
	{
	    .name = "chatml",
	    .begin = "",
	    .user = {"<|im_start|>user\n", "<|im_end|>\n"},
	    .assistant = {"<|im_start|>assistant\n", "<|im_end|>\n"},
	    .other = {"<|im_start|>" ROLE "\n", "<|im_end|>\n"},
	    .prompt = "<|im_start|>assistant\n",
	    .has = {"<|im_start|>", "<|im_end|>"},
	    .lacks = {"<think>", "<|im_sep|>", "trim", "strip", "bos_token"},
	},
    [LORA_CHAT_LLAMA2] =
	{
	    .name = "llama2",
	    .begin = "",
	    .user = {BOS "[INST] ", " [/INST]"},
	    .assistant = {" ", " " EOS},
	    .fold = {"<<SYS>>\n", "\n<</SYS>>\n\n"},
	    .prompt = "",
	    .strip = true,
	    .alternate = true,
	    .has = {"'<<SYS>>\\n'", "bos_token + '[INST] ' + content.strip() + ' [/INST]'",
		    "content.strip() + ' ' + eos_token"},
	},
    [LORA_CHAT_LLAMA3] =
	{
	    .name = "llama3",
	    .begin = BOS,
	    .user = {"<|start_header_id|>user<|end_header_id|>\n\n", "<|eot_id|>"},
	    .assistant = {"<|start_header_id|>assistant<|end_header_id|>\n\n", "<|eot_id|>"},
	    .other = {"<|start_header_id|>" ROLE "<|end_header_id|>\n\n", "<|eot_id|>"},
	    .prompt = "<|start_header_id|>assistant<|end_header_id|>\n\n",
	    .strip = true,
	    .has = {"<|start_header_id|>", "<|eot_id|>", "| trim", "bos_token"},
	    .lacks = {"Cutting Knowledge", "tools", "<think>"},
	},
    [LORA_CHAT_MISTRAL] =
	{
	    .name = "mistral",
	    .begin = BOS,
	    .user = {"[INST] ", " [/INST]"},
	    .assistant = {"", EOS},
	    .prompt = "",
	    .alternate = true,
	    .has = {"'[INST] ' + message['content'] + ' [/INST]'",
		    "message['content'] + eos_token"},
	    .lacks = {"<<SYS>>", "eos_token + ' '", "AVAILABLE_TOOLS", "system_message"},
	},
};

/* --- names and recognition -------------------------------------------------------- */

const char *lora_chat_name(enum lora_chat chat)
{
	return (unsigned)chat < LORA_CHAT_COUNT ? families[chat].name : NULL;
}

enum lora_chat lora_chat_find(const char *name)
{
	for (int i = LORA_CHAT_PLAIN; i < LORA_CHAT_COUNT; i++)
		if (strcmp(families[i].name, name) == 0)
			return (enum lora_chat)i;
	return LORA_CHAT_OTHER;
}

static bool is_like(const struct lora_chat_family *family, const char *source)
{
	for (size_t i = 0; i < MARKS; i++) {
		if (family->has[i] != NULL && strstr(source, family->has[i]) == NULL)
			return false;
		if (family->lacks[i] != NULL && strstr(source, family->lacks[i]) != NULL)
			return false;
	}
	return family->has[0] != NULL;
}

enum lora_chat lora_chat_of(const struct lora_tokenizer *tokenizer)
{
	const char *source = lora_tokenizer_chat_template(tokenizer);

	if (source == NULL)
		return LORA_CHAT_NONE;
	for (int i = LORA_CHAT_PLAIN; i < LORA_CHAT_COUNT; i++)
		if (is_like(&families[i], source))
			return (enum lora_chat)i;
	return LORA_CHAT_OTHER;
}

/* [3] The newline stands as one or as Jinja spells it. */
static const char *default_system(const struct lora_tokenizer *tokenizer, size_t *length)
{
	static const char begin[] = "<|im_start|>system";
	const char *at = lora_tokenizer_chat_template(tokenizer);

	while (at != NULL && (at = strstr(at, begin)) != NULL) {
		const char *end;

		at += sizeof begin - 1;
		if (*at == '\n')
			at++;
		else if (at[0] == '\\' && at[1] == 'n')
			at += 2;
		else
			continue;
		end = strstr(at, "<|im_end|>");
		*length = strcspn(at, "'\"{}\\+");
		if (end != NULL && *length >= (size_t)(end - at)) {
			*length = (size_t)(end - at);
			return at;
		}
	}
	return NULL;
}

/* --- rendering -------------------------------------------------------------------- */

static enum lora_status put_token(struct lora_rendering *r, enum lora_token_role role)
{
	uint32_t id = lora_tokenizer_special(r->tokenizer, role);
	const struct lora_added_set *added = &r->tokenizer->added;
	size_t length = 0;
	const char *text;

	if (id == LORA_TOKEN_NONE)
		return lora__fail(r->err, LORA_INPUT,
				  "the %s template needs %s, which the tokenizer does not name",
				  r->family->name,
				  role == LORA_TOKEN_BOS ? "bos_token" : "eos_token");
	text = lora_tokenizer_token(r->tokenizer, id, &length);
	for (uint32_t i = 0; i < added->count; i++) /* as spelled, not as normalized */
		if (added->at[i].id == id) {
			text = added->at[i].content;
			length = added->at[i].length;
		}
	return lora__buffer_add(&r->text, text, length, r->err);
}

/* A piece of the family's spelling, its marks filled in. */
static enum lora_status put(struct lora_rendering *r, const char *text, const char *role)
{
	enum lora_status status = LORA_OK;

	for (; *text != '\0' && status == LORA_OK; text++) {
		if (*text == BOS[0])
			status = put_token(r, LORA_TOKEN_BOS);
		else if (*text == EOS[0])
			status = put_token(r, LORA_TOKEN_EOS);
		else if (*text == ROLE[0])
			status = lora__buffer_add(&r->text, role, strlen(role), r->err);
		else
			status = lora__buffer_add(&r->text, text, 1, r->err);
	}
	return status;
}

/* What Python's strip() takes away. */
static bool is_blank(uint32_t code)
{
	return lora__is_space(code) || (code >= 0x1c && code <= 0x1f);
}

static void strip(const char **text, size_t *length)
{
	size_t end = 0, begin = *length, size;
	uint32_t code = 0;

	for (size_t at = 0; at < *length; at += size) {
		size = lora__utf8_decode(*text + at, *length - at, &code);
		if (is_blank(code))
			continue;
		if (begin == *length)
			begin = at;
		end = at + size;
	}
	*text += begin;
	*length = end > begin ? end - begin : 0;
}

/* r->content into the text, remembered as somebody's words. */
static enum lora_status put_content(struct lora_rendering *r)
{
	const char *text = r->content.at;
	size_t length = r->content.size, begin = r->text.size;
	enum lora_status status;

	if (r->family->strip)
		strip(&text, &length);
	status = lora__buffer_add(&r->text, text, length, r->err);
	if (r->spans != NULL && length > 0)
		r->spans[r->span_count++] = (struct lora_span){begin, r->text.size};
	return status;
}

static enum lora_status add_content(struct lora_rendering *r, const char *text, size_t length)
{
	size_t used = 0;

	return lora__utf8_repair(&r->content, text, length, true, &used, r->err);
}

static enum lora_status put_turn(struct lora_rendering *r, const struct turn *turn,
				 const char *role)
{
	/* What an assistant has to say is all that follows the invitation. */
	struct lora_spoken spoken = {.begin = r->text.size + strlen(r->family->prompt)};
	enum lora_status status = put(r, turn->before, role);

	if (status == LORA_OK)
		status = put_content(r);
	spoken.end = r->text.size;
	if (status == LORA_OK)
		status = put(r, turn->after, role);
	spoken.last = r->text.size;
	if (r->spoken != NULL && turn == &r->family->assistant)
		r->spoken[r->spoken_count++] = spoken;
	return status;
}

/* A message whose content is added to what r->content has already. */
static enum lora_status put_message(struct lora_rendering *r, const struct lora_message *message,
				    size_t place)
{
	const struct lora_chat_family *family = r->family;
	bool user = strcmp(message->role, "user") == 0;
	bool assistant = strcmp(message->role, "assistant") == 0;
	const struct turn *turn = user	      ? &family->user
				  : assistant ? &family->assistant
					      : &family->other;
	enum lora_status status;

	if (strspn(message->role,
		   "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-") !=
		strlen(message->role) ||
	    message->role[0] == '\0')
		return lora__fail(r->err, LORA_INPUT, "message %zu: '%s' is no role", place + 1,
				  lora__escape(message->role));
	if (turn->before == NULL)
		return lora__fail(r->err, LORA_INPUT,
				  "message %zu: the %s template has no place for the role '%s'",
				  place + 1, family->name, lora__escape(message->role));
	if (family->alternate && user != (place % 2 == 0))
		return lora__fail(r->err, LORA_INPUT,
				  "message %zu: in the %s template user and assistant take turns, "
				  "the user first",
				  place + 1, family->name);
	status = add_content(r, message->content, message->length);
	if (status == LORA_OK)
		status = put_turn(r, turn, message->role);
	r->content.size = 0;
	return status;
}

/* What stands before the first message: *skip messages are in it. */
static enum lora_status put_begin(struct lora_rendering *r, const struct lora_message *messages,
				  size_t count, size_t *skip)
{
	bool system = count > 0 && strcmp(messages[0].role, "system") == 0;
	enum lora_status status = put(r, r->family->begin, "");
	const char *text = NULL;
	size_t length = 0;

	*skip = 0;
	if (status == LORA_OK && system && r->family->fold.before != NULL) {
		const struct turn *fold = &r->family->fold;

		*skip = 1;
		status = add_content(r, fold->before, strlen(fold->before));
		if (status == LORA_OK)
			status = add_content(r, messages[0].content, messages[0].length);
		if (status == LORA_OK)
			status = add_content(r, fold->after, strlen(fold->after));
		if (status == LORA_OK && count == 1)
			status = lora__fail(r->err, LORA_INPUT,
					    "the %s template has no place for a system message "
					    "without a user's",
					    r->family->name);
	} else if (status == LORA_OK && !system && r->family == &families[LORA_CHAT_CHATML] &&
		   lora_chat_of(r->tokenizer) == LORA_CHAT_CHATML) {
		text = default_system(r->tokenizer, &length);
	}
	if (text == NULL || status != LORA_OK || count == 0)
		return status;
	status = add_content(r, text, length);
	if (status == LORA_OK)
		status = put_turn(r, &r->family->other, "system");
	r->content.size = 0;
	return status;
}

enum lora_status lora__chat_render(struct lora_rendering *r, const struct lora_conversation *talk)
{
	enum lora_status status;
	size_t skip = 0;

	if ((unsigned)talk->chat < LORA_CHAT_PLAIN || (unsigned)talk->chat >= LORA_CHAT_COUNT)
		return lora__fail(r->err, LORA_USAGE,
				  "no built-in chat template: name one of them (plain, chatml, "
				  "llama2, llama3, mistral)");
	r->family = &families[talk->chat];
	r->name = r->family->name;
	status = put_begin(r, talk->messages, talk->count, &skip);
	for (size_t i = skip; i < talk->count && status == LORA_OK; i++)
		status = put_message(r, &talk->messages[i], i - skip);
	if (status == LORA_OK && talk->prompt)
		status = put(r, r->family->prompt, "");
	if (status == LORA_OK)
		status = lora__buffer_reserve(&r->text, 0, r->err);
	if (status == LORA_OK)
		r->text.at[r->text.size] = '\0';
	return status;
}

enum lora_status lora_chat_render(const struct lora_tokenizer *tokenizer,
				  const struct lora_conversation *talk, char **text, size_t *length,
				  struct lora_error *err)
{
	struct lora_rendering r = {.tokenizer = tokenizer, .err = err};
	enum lora_status status = lora__chat_render(&r, talk);

	*text = NULL;
	*length = 0;
	lora__buffer_fini(&r.content);
	if (status != LORA_OK) {
		lora__buffer_fini(&r.text);
		return status;
	}
	*text = r.text.at;
	*length = r.text.size;
	return LORA_OK;
}
