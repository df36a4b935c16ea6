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
#include <loractl/chat.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "base/utf8.h"
#include "net/tokenizer.h"

#define BOS   "\1"
#define EOS   "\2"
#define ROLE  "\3"
#define MARKS 6

struct turn {
	const char *before, *after;
};

struct family {
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

static const struct family families[LORA_CHAT_COUNT] = {
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

/* --- names and recognition ---------------------------------------------------------------------
 */

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

static bool is_like(const struct family *family, const char *source)
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

/* --- rendering
 * ------------------------------------------------------------------------------------ */

struct rendering {
	const struct lora_tokenizer *tokenizer;
	const struct family *family;
	struct lora_buffer text;
	struct lora_buffer content; /* of one message */
	struct lora_span *spans;    /* where contents stand; NULL if nobody asks */
	size_t span_count;
	struct spoken *spoken; /* where assistants speak; NULL if nobody asks */
	size_t spoken_count;
	struct lora_error *err;
};

/* What an assistant says, from the end of the invitation; and what ends its turn. */
struct spoken {
	size_t begin, end, last;
};

static enum lora_status put_token(struct rendering *r, enum lora_token_role role)
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
static enum lora_status put(struct rendering *r, const char *text, const char *role)
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
static enum lora_status put_content(struct rendering *r)
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

static enum lora_status add_content(struct rendering *r, const char *text, size_t length)
{
	size_t used = 0;

	return lora__utf8_repair(&r->content, text, length, true, &used, r->err);
}

static enum lora_status put_turn(struct rendering *r, const struct turn *turn, const char *role)
{
	/* What an assistant has to say is all that follows the invitation. */
	struct spoken spoken = {.begin = r->text.size + strlen(r->family->prompt)};
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
static enum lora_status put_message(struct rendering *r, const struct lora_message *message,
				    size_t place)
{
	const struct family *family = r->family;
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
static enum lora_status put_begin(struct rendering *r, const struct lora_message *messages,
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

static enum lora_status render(struct rendering *r, const struct lora_conversation *talk)
{
	enum lora_status status;
	size_t skip = 0;

	if ((unsigned)talk->chat < LORA_CHAT_PLAIN || (unsigned)talk->chat >= LORA_CHAT_COUNT)
		return lora__fail(r->err, LORA_USAGE,
				  "no built-in chat template: name one of them (plain, chatml, "
				  "llama2, llama3, mistral)");
	r->family = &families[talk->chat];
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
	struct rendering r = {.tokenizer = tokenizer, .err = err};
	enum lora_status status = render(&r, talk);

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

/* --- encoding
 * --------------------------------------------------------------------------------------- */

/* [2] The search in normalized text does not know where contents are. */
static enum lora_status check_normalized(const struct rendering *r)
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
static enum lora_status encode_stretch(const struct rendering *r, size_t begin, size_t end,
				       struct lora_tokens *tokens)
{
	struct lora_added_search search = {.later = begin > 0};

	return lora__tokenizer_encode(r->tokenizer, &search, r->text.at + begin, end - begin,
				      LORA_ENCODE_LITERAL, tokens, r->err);
}

/* Marks one turn. ids[0 .. origins->count) are the conversation's, and *at is a token of the turns
 * before. Of the stretch in which the content begins, the tokens that what stands before the
 * content makes by itself are not the assistant's. */
static enum lora_status mark_turn(const struct rendering *r, const struct spoken *turn,
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
					      r->family->name);
}

static enum lora_status mark_all(const struct rendering *r, const struct lora_tokens *tokens,
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
	struct rendering r = {.tokenizer = tokenizer, .err = err};
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
		status = render(&r, talk);
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
