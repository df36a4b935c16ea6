/* SPDX-License-Identifier: Apache-2.0 */
/* net/tokenizer.c - opening a tokenizer, and what is known of one
 *
 *	tokenizer.json		all of the tokenizer; the `tokenizers` library's own file
 *	tokenizer_config.json	which tokens begin, end and fill texts; the chat template
 *	special_tokens_map.json	the same tokens, where the file above does not name them
 *	chat_template.jinja	the chat template, where it has a file of its own
 *
 * 1. tokenizer.json decides. The classes of the transformers library that build a tokenizer of
 *    their own out of its vocabulary alone may differ from it; we are with the `tokenizers`
 *    library.
 * 2. "truncation" and "padding" are for batches, and are not applied: a text is encoded whole.
 * 3. What is put around a text is the post-processor's matter alone: add_bos_token and
 *    add_eos_token of tokenizer_config.json say what its maker once asked for, and are not looked
 *    at where there is a tokenizer.json, here as in the transformers library.
 * 4. A token that tokenizer_config.json adds but tokenizer.json lacks is refused: its id would be a
 *    guess. So is one whose flags differ.
 * 5. A special token is skipped in decoding whatever its spelling: the library misses one that is
 *    normalized to another spelling than its own.
 * 6. The numbers differ from the `tokenizers` library's for characters that only one of the two
 *    Unicode versions at work has. Measured over all code points, PCRE2 10.42 and utf8proc 2.8
 *    against tokenizers 0.23: the classes of expressions differ for what Unicode 15 and 16 added,
 *    NFC for no single character but in the order of 54 marks, all added since Unicode 10.
 * 7. A vocabulary that lacks bytes drops them, here as there.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "base/file.h"
#include "net/tokenizer.h"

/* --- tokenizer.json --------------------------------------------------------------- */

static enum lora_status read_components(struct lora_tokenizer *t, const struct lora_json *json,
					struct lora_error *err)
{
	const struct lora_json *decoder = lora__json_get(json, "decoder");
	enum lora_status status;

	status = lora__check_keys(json,
				  "version truncation padding added_tokens normalizer "
				  "pre_tokenizer post_processor decoder model",
				  "tokenizer.json", err);
	if (status == LORA_OK)
		status = lora__bpe_read(&t->bpe, &t->arena, lora__json_get(json, "model"), err);
	if (status == LORA_OK)
		status = lora__added_read(&t->added, &t->bpe, &t->arena,
					  lora__json_get(json, "added_tokens"), err);
	if (status == LORA_OK)
		status = lora__normalizer_read(&t->normalizer, &t->arena,
					       lora__json_get(json, "normalizer"), err);
	if (status == LORA_OK)
		status = lora__added_build(&t->added, &t->bpe, &t->arena, &t->normalizer, err);
	if (status == LORA_OK)
		status = lora__pre_tokenizer_read(&t->pre_tokenizer, &t->arena,
						  lora__json_get(json, "pre_tokenizer"), err);
	if (status == LORA_OK)
		status = lora__post_processor_read(t, lora__json_get(json, "post_processor"), err);
	if (status == LORA_OK)
		status = lora__decoder_read(&t->decoder, &t->arena, decoder, err);
	t->spaced = decoder == NULL || lora__json_type(decoder) == LORA_JSON_NULL;
	return status;
}

/* --- its companions --------------------------------------------------------------- */

/* A token is a string, or an object that has it as "content". */
static const char *token_text(const struct lora_json *json)
{
	const char *text = lora__json_string(json);

	return text != NULL ? text : lora__json_string(lora__json_get(json, "content"));
}

static void read_roles(struct lora_tokenizer *t, const struct lora_json *json)
{
	static const char *const names[] = {"bos_token", "eos_token", "pad_token", "unk_token"};

	for (size_t i = 0; i < 4; i++) {
		const char *text = token_text(lora__json_get(json, names[i]));

		if (t->special[i] == LORA_TOKEN_NONE && text != NULL)
			t->special[i] = lora_tokenizer_find(t, text, strlen(text));
	}
}

static bool is_number(const char *text, uint32_t number)
{
	char spelled[12];

	(void)snprintf(spelled, sizeof spelled, "%u", number);
	return strcmp(text, spelled) == 0;
}

/* [4] One of "added_tokens_decoder". */
static enum lora_status check_added(const struct lora_tokenizer *t, const struct lora_json *json,
				    struct lora_error *err)
{
	const char *text = token_text(json);
	const struct lora_added *token =
	    text == NULL ? NULL : lora__added_find(&t->added, text, strlen(text));

	if (text == NULL)
		return lora__fail(err, LORA_INPUT, "'%s' has no content",
				  lora__escape(lora__json_key(json)));
	if (token == NULL || !is_number(lora__json_key(json), token->id))
		return lora__fail(err, LORA_INPUT, "tokenizer.json does not add '%s' as %s",
				  lora__escape(text), lora__escape(lora__json_key(json)));
	const struct {
		const char *key;
		bool value;
	} flags[] = {{"lstrip", token->lstrip},
		     {"rstrip", token->rstrip},
		     {"normalized", token->normalized},
		     {"single_word", token->single_word},
		     {"special", token->special}};

	for (size_t i = 0; i < sizeof flags / sizeof *flags; i++) {
		bool value = flags[i].value;

		(void)lora__json_bool(lora__json_get(json, flags[i].key), &value);
		if (value != flags[i].value)
			return lora__fail(err, LORA_INPUT, "'%s': %s is not as in tokenizer.json",
					  lora__escape(text), flags[i].key);
	}
	return LORA_OK;
}

/* The template as a string, or the one named "default" of a list. */
static const char *find_template(const struct lora_json *json)
{
	const char *text = lora__json_string(json);

	if (text != NULL || lora__json_type(json) != LORA_JSON_ARRAY)
		return text;
	for (json = lora__json_first(json); json != NULL; json = lora__json_next(json)) {
		const char *name = lora__json_string(lora__json_get(json, "name"));

		if (name != NULL && strcmp(name, "default") == 0)
			return lora__json_string(lora__json_get(json, "template"));
	}
	return NULL;
}

static enum lora_status read_config(struct lora_tokenizer *t, const struct lora_json *config,
				    struct lora_error *err)
{
	const char *chat = find_template(lora__json_get(config, "chat_template"));
	const struct lora_json *added = lora__json_get(config, "added_tokens_decoder");
	enum lora_status status = LORA_OK;

	read_roles(t, config);
	if (chat != NULL && t->chat_template == NULL) {
		t->chat_template = lora__arena_copy(&t->arena, chat, strlen(chat));
		if (t->chat_template == NULL)
			return lora__fail_memory(err);
	}
	for (added = lora__json_first(added); added != NULL && status == LORA_OK;
	     added = lora__json_next(added))
		status = check_added(t, added, err);
	return lora__context(err, status, "added_tokens_decoder");
}

/* --- all files -------------------------------------------------------------------- */

/* Parses a file that may be missing; *out is NULL then. */
static enum lora_status parse(struct lora_json **out, const char *name, const char *text,
			      size_t size, struct lora_error *err)
{
	*out = NULL;
	return text == NULL
		   ? LORA_OK
		   : lora__context(err, lora__json_parse(out, text, size, err), "%s", name);
}

static enum lora_status read_companions(struct lora_tokenizer *t,
					const struct lora_tokenizer_files *files,
					struct lora_error *err)
{
	struct lora_json *config = NULL, *special = NULL;
	enum lora_status status;

	if (files->chat != NULL) {
		t->chat_template = lora__arena_copy(&t->arena, files->chat, files->chat_size);
		if (t->chat_template == NULL)
			return lora__fail_memory(err);
	}
	status = parse(&config, "tokenizer_config.json", files->config, files->config_size, err);
	if (status == LORA_OK)
		status = parse(&special, "special_tokens_map.json", files->special,
			       files->special_size, err);
	if (status == LORA_OK)
		status = lora__context(err, read_config(t, config, err), "tokenizer_config.json");
	if (status == LORA_OK)
		read_roles(t, special);
	lora__json_free(config);
	lora__json_free(special);
	return status;
}

enum lora_status lora__tokenizer_parse(struct lora_tokenizer **out,
				       const struct lora_tokenizer_files *files,
				       struct lora_error *err)
{
	struct lora_tokenizer *t = calloc(1, sizeof *t);
	struct lora_json *json = NULL;
	enum lora_status status;

	*out = NULL;
	if (t == NULL)
		return lora__fail_memory(err);
	for (size_t i = 0; i < 4; i++)
		t->special[i] = LORA_TOKEN_NONE;
	status = lora__json_parse(&json, files->tokenizer, files->tokenizer_size, err);
	if (status == LORA_OK)
		status = read_components(t, json, err);
	lora__json_free(json);
	status = lora__context(err, status, "tokenizer.json");
	if (status == LORA_OK)
		status = read_companions(t, files, err);
	if (status == LORA_OK)
		*out = t;
	else
		lora_tokenizer_close(t);
	return status;
}

/* The file's text, or NULL if it is not there and need not be. */
static enum lora_status slurp(const char *directory, const char *name, uint64_t limit, bool needed,
			      char **text, size_t *size, struct lora_error *err)
{
	char *path = lora__path_join(directory, name);
	enum lora_path_kind kind = LORA_PATH_FILE;
	enum lora_status status = LORA_OK;

	if (path == NULL)
		return lora__fail_memory(err);
	if (!needed)
		status = lora__path_kind(path, &kind, err);
	if (status == LORA_OK && kind != LORA_PATH_ABSENT)
		status = lora__file_slurp(path, limit, text, size, err);
	free(path);
	return status;
}

enum lora_status lora_tokenizer_open(struct lora_tokenizer **out, const char *directory,
				     struct lora_error *err)
{
	static const char *const names[] = {"tokenizer.json", "tokenizer_config.json",
					    "special_tokens_map.json", "chat_template.jinja"};
	char *text[4] = {NULL};
	size_t size[4] = {0};
	enum lora_status status = LORA_OK;

	*out = NULL;
	for (size_t i = 0; i < 4 && status == LORA_OK; i++)
		status =
		    slurp(directory, names[i], i == 0 ? LORA_TOKENIZER_FILE : LORA_TOKENIZER_CONFIG,
			  i == 0, &text[i], &size[i], err);
	if (status == LORA_OK) {
		struct lora_tokenizer_files files = {text[0], text[1], text[2], text[3],
						     size[0], size[1], size[2], size[3]};

		status = lora__context(err, lora__tokenizer_parse(out, &files, err),
				       "tokenizer of '%s'", lora__escape(directory));
	}
	for (size_t i = 0; i < 4; i++)
		free(text[i]);
	return status;
}

void lora_tokenizer_close(struct lora_tokenizer *t)
{
	if (t == NULL)
		return;
	lora__stages_fini(&t->normalizer);
	lora__stages_fini(&t->pre_tokenizer);
	lora__stages_fini(&t->decoder);
	lora__added_fini(&t->added);
	lora__bpe_fini(&t->bpe);
	lora_tokens_fini(&t->before);
	lora_tokens_fini(&t->after);
	lora__arena_fini(&t->arena);
	free(t);
}

/* --- facts ------------------------------------------------------------------------ */

size_t lora_tokenizer_count(const struct lora_tokenizer *t)
{
	return t->bpe.count;
}

size_t lora_tokenizer_vocab_size(const struct lora_tokenizer *t)
{
	size_t size = t->bpe.room;

	while (size > 0 && t->bpe.tokens[size - 1].text == NULL)
		size--;
	return size;
}

uint32_t lora_tokenizer_special(const struct lora_tokenizer *t, enum lora_token_role role)
{
	return (unsigned)role < 4 ? t->special[role] : LORA_TOKEN_NONE;
}

uint32_t lora_tokenizer_find(const struct lora_tokenizer *t, const char *token, size_t length)
{
	const struct lora_added *added = lora__added_find(&t->added, token, length);

	return added != NULL ? added->id : lora__map_find(&t->bpe.ids, token, length);
}

const char *lora_tokenizer_token(const struct lora_tokenizer *t, uint32_t id, size_t *length)
{
	if (id >= t->bpe.room || t->bpe.tokens[id].text == NULL)
		return NULL;
	if (length != NULL)
		*length = t->bpe.tokens[id].length;
	return t->bpe.tokens[id].text;
}

bool lora_tokenizer_is_special(const struct lora_tokenizer *t, uint32_t id)
{
	return id < t->bpe.room && t->bpe.tokens[id].special;
}

const char *lora_tokenizer_chat_template(const struct lora_tokenizer *t)
{
	return t->chat_template;
}
