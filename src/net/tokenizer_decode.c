/* SPDX-License-Identifier: Apache-2.0 */
/* net/tokenizer_decode.c - tokens to text, one token at a time
 *
 *	ByteLevel	printable characters become bytes again, and those text
 *	ByteFallback	<0x41> becomes a byte; a row of them becomes text if it is UTF-8, else one
 *			U+FFFD for each
 *	Metaspace	the mark becomes ' '; in the first token, nothing
 *	Replace		a pattern in a token becomes something else
 *	Fuse		from here on there is one token: all of them
 *	Strip		some characters less at the start of a token
 *
 * The stages stand in a row; each gets a token from the one before it and gives what it makes of it
 * to the next, at once or when it knows enough. So decoding a list is pushing its tokens, and the
 * two cannot differ.
 *
 * 1. After ByteLevel or Fuse there is one token only, of which the pieces come in one after the
 *    other. A stage that would have to know all of it is refused behind them.
 * 2. ByteLevel keeps at most three bytes back; ByteFallback the row that has not ended. At the end
 *    an incomplete character becomes U+FFFD.
 */
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "base/utf8.h"
#include "net/tokenizer.h"

struct state {
	struct lora_buffer held;  /* BYTE_LEVEL, BYTE_FALLBACK: bytes that wait */
	struct lora_buffer token; /* what the stage makes */
	uint64_t stripped;	  /* STRIP, fused: characters so far */
	bool begun;		  /* METASPACE: the first token is through; STRIP: the start is */
};

struct lora_decoder {
	const struct lora_tokenizer *tokenizer;
	unsigned flags;
	bool begun; /* a token is out: with `spaced`, a blank follows */
	struct lora_matcher *matcher;
	struct lora_segments segments;
	struct lora_buffer out;
	struct state states[LORA_TOKENIZER_STAGES];
};

/* --- reading ---------------------------------------------------------------------- */

static enum lora_status read_byte_level(struct lora_reader *reader)
{
	return lora__stage_add(reader, LORA_STAGE_BYTE_LEVEL) == NULL ? LORA_INPUT : LORA_OK;
}

static enum lora_status read_replace(struct lora_reader *reader)
{
	struct lora_stage *stage = lora__stage_add(reader, LORA_STAGE_REPLACE);
	enum lora_status status;

	if (stage == NULL)
		return LORA_INPUT;
	status = lora__read_pattern(reader, stage);
	return status == LORA_OK ? lora__read_content(reader, "content", stage) : status;
}

static enum lora_status read_metaspace(struct lora_reader *reader)
{
	struct lora_stage *stage = lora__stage_add(reader, LORA_STAGE_METASPACE);

	return stage == NULL ? LORA_INPUT : lora__metaspace_read(reader, stage);
}

static enum lora_status read_strip(struct lora_reader *reader)
{
	struct lora_stage *stage = lora__stage_add(reader, LORA_STAGE_STRIP);
	enum lora_status status;
	uint64_t stop = 0;

	if (stage == NULL)
		return LORA_INPUT;
	status = lora__read_character(reader, "content", stage);
	if (status == LORA_OK &&
	    (!lora__json_u64(lora__json_get(reader->json, "start"), &stage->start) ||
	     !lora__json_u64(lora__json_get(reader->json, "stop"), &stop) || stop != 0))
		status = lora__fail(reader->err, LORA_INPUT,
				    "decoder: Strip: needs a start, and a stop of 0");
	return status;
}

/* [1] */
static enum lora_status check_order(struct lora_stages *stages, struct lora_error *err)
{
	bool fused = false;

	for (size_t i = 0; i < stages->count; i++) {
		struct lora_stage *stage = &stages->at[i];

		stage->fused = fused;
		if (fused && stage->kind != LORA_STAGE_STRIP && stage->kind != LORA_STAGE_FUSE)
			return lora__fail(err, LORA_INPUT,
					  "decoder: only Strip is supported behind Fuse or "
					  "ByteLevel");
		fused =
		    fused || stage->kind == LORA_STAGE_FUSE || stage->kind == LORA_STAGE_BYTE_LEVEL;
	}
	return LORA_OK;
}

enum lora_status lora__decoder_read(struct lora_stages *stages, struct lora_arena *arena,
				    const struct lora_json *json, struct lora_error *err)
{
	static const struct lora_component known[] = {
	    {"ByteLevel", "add_prefix_space trim_offsets use_regex", read_byte_level,
	     LORA_STAGE_BYTE_LEVEL},
	    {"ByteFallback", "", NULL, LORA_STAGE_BYTE_FALLBACK},
	    {"Fuse", "", NULL, LORA_STAGE_FUSE},
	    {"Strip", "content start stop", read_strip, LORA_STAGE_STRIP},
	    {"Replace", "pattern content", read_replace, LORA_STAGE_REPLACE},
	    {"Metaspace", LORA_METASPACE_KEYS, read_metaspace, LORA_STAGE_METASPACE},
	    {NULL, NULL, NULL, LORA_STAGE_FUSE},
	};
	struct lora_reader reader = {
	    .arena = arena, .stages = stages, .json = json, .where = "decoder", .err = err};
	enum lora_status status = lora__stages_read(&reader, "decoders", known);

	return status == LORA_OK ? check_order(stages, err) : status;
}

/* --- the stages ------------------------------------------------------------------- */

static enum lora_status give(struct lora_decoder *decoder, size_t i, const char *token, size_t size,
			     struct lora_error *err);

/* The byte of a printable form; -1 if the character is none. */
static int byte_of(uint32_t code)
{
	if ((code >= 0x21 && code <= 0x7e) || (code >= 0xa1 && code <= 0xff && code != 0xad))
		return (int)code;
	if (code >= 0x100 && code <= 0x120)
		return (int)(code - 0x100);
	if (code >= 0x121 && code <= 0x142)
		return (int)(code - 0x121 + 0x7f);
	return code == 0x143 ? 0xad : -1;
}

/* Appends the token's bytes: if it has a character that stands for none, those of its spelling. */
static enum lora_status add_bytes(struct lora_buffer *to, const char *token, size_t size,
				  struct lora_error *err)
{
	enum lora_status status = lora__buffer_reserve(to, size, err);
	size_t before = to->size;
	uint32_t code = 0;

	for (size_t at = 0; at < size && status == LORA_OK;) {
		int byte;

		at += lora__utf8_decode(token + at, size - at, &code);
		byte = byte_of(code);
		if (byte < 0) {
			to->size = before;
			return lora__buffer_add(to, token, size, err);
		}
		to->at[to->size++] = (char)byte;
	}
	return status;
}

/* Gives on what is text in held, and keeps the rest. */
static enum lora_status give_text(struct lora_decoder *decoder, size_t i, bool last,
				  struct lora_error *err)
{
	struct state *state = &decoder->states[i];
	enum lora_status status;
	size_t used = 0;

	state->token.size = 0;
	status =
	    lora__utf8_repair(&state->token, state->held.at, state->held.size, last, &used, err);
	if (status != LORA_OK || used == 0)
		return status;
	memmove(state->held.at, state->held.at + used, state->held.size - used);
	state->held.size -= used;
	return give(decoder, i + 1, state->token.at, state->token.size, err);
}

static int hex(char c)
{
	return c >= '0' && c <= '9'   ? c - '0'
	       : c >= 'a' && c <= 'f' ? c - 'a' + 10
	       : c >= 'A' && c <= 'F' ? c - 'A' + 10
				      : -1;
}

/* The row of bytes has ended. */
static enum lora_status give_row(struct lora_decoder *decoder, size_t i, struct lora_error *err)
{
	struct lora_buffer *held = &decoder->states[i].held;
	enum lora_status status = LORA_OK;
	size_t at = 0, length = 1;
	uint32_t code = 0;

	while (at < held->size && length > 0) {
		length = lora__utf8_decode(held->at + at, held->size - at, &code);
		at += length;
	}
	if (held->size > 0 && length > 0)
		status = give(decoder, i + 1, held->at, held->size, err);
	for (at = 0; length == 0 && at < held->size && status == LORA_OK; at++)
		status = give(decoder, i + 1, "\xef\xbf\xbd", 3, err);
	held->size = 0;
	return status;
}

static enum lora_status byte_fallback(struct lora_decoder *decoder, size_t i, const char *token,
				      size_t size, struct lora_error *err)
{
	enum lora_status status;

	if (size == 6 && memcmp(token, "<0x", 3) == 0 && token[5] == '>' && hex(token[3]) >= 0 &&
	    hex(token[4]) >= 0) {
		char byte = (char)(hex(token[3]) << 4 | hex(token[4]));

		return lora__buffer_add(&decoder->states[i].held, &byte, 1, err);
	}
	status = give_row(decoder, i, err);
	return status == LORA_OK ? give(decoder, i + 1, token, size, err) : status;
}

static enum lora_status metaspace(struct lora_decoder *decoder, size_t i, const char *token,
				  size_t size, struct lora_error *err)
{
	const struct lora_stage *stage = &decoder->tokenizer->decoder.at[i];
	struct state *state = &decoder->states[i];
	bool drop = !state->begun && stage->prepend != LORA_PREPEND_NEVER;
	enum lora_status status = LORA_OK;

	state->begun = true;
	state->token.size = 0;
	for (size_t at = 0; at < size && status == LORA_OK;) {
		bool mark = size - at >= stage->length &&
			    memcmp(token + at, stage->content, stage->length) == 0;

		if (!mark)
			status = lora__buffer_add(&state->token, token + at, 1, err);
		else if (!drop)
			status = lora__buffer_add(&state->token, " ", 1, err);
		at += mark ? stage->length : 1;
	}
	return status == LORA_OK ? give(decoder, i + 1, state->token.at, state->token.size, err)
				 : status;
}

static enum lora_status replace(struct lora_decoder *decoder, size_t i, const char *token,
				size_t size, struct lora_error *err)
{
	const struct lora_stage *stage = &decoder->tokenizer->decoder.at[i];
	struct lora_buffer *to = &decoder->states[i].token;
	enum lora_status status;

	to->size = 0;
	decoder->segments.count = 0;
	status = lora__regex_segments(stage->regex, decoder->matcher, token, size,
				      &decoder->segments, err);
	for (size_t k = 0; k < decoder->segments.count && status == LORA_OK; k++) {
		const struct lora_segment *part = &decoder->segments.at[k];

		status = part->match ? lora__buffer_add(to, stage->content, stage->length, err)
				     : lora__buffer_add(to, token + part->begin,
							part->end - part->begin, err);
	}
	return status == LORA_OK ? give(decoder, i + 1, to->at, to->size, err) : status;
}

static enum lora_status strip(struct lora_decoder *decoder, size_t i, const char *token,
			      size_t size, struct lora_error *err)
{
	const struct lora_stage *stage = &decoder->tokenizer->decoder.at[i];
	struct state *state = &decoder->states[i];

	if (!stage->fused) {
		state->stripped = 0;
		state->begun = false;
	}
	while (!state->begun && size > 0) {
		if (state->stripped < stage->start && size >= stage->length &&
		    memcmp(token, stage->content, stage->length) == 0) {
			state->stripped++;
			token += stage->length;
			size -= stage->length;
		} else {
			state->begun = true;
		}
	}
	return give(decoder, i + 1, token, size, err);
}

/* A token (or a piece of the only one) to the stage i; behind the last one, to the output. */
static enum lora_status give(struct lora_decoder *decoder, size_t i, const char *token, size_t size,
			     struct lora_error *err)
{
	const struct lora_stages *stages = &decoder->tokenizer->decoder;
	enum lora_status status;

	if (i == stages->count)
		return lora__buffer_add(&decoder->out, token, size, err);
	switch (stages->at[i].kind) {
	case LORA_STAGE_BYTE_LEVEL:
		status = add_bytes(&decoder->states[i].held, token, size, err);
		return status == LORA_OK ? give_text(decoder, i, false, err) : status;
	case LORA_STAGE_BYTE_FALLBACK:
		return byte_fallback(decoder, i, token, size, err);
	case LORA_STAGE_METASPACE:
		return metaspace(decoder, i, token, size, err);
	case LORA_STAGE_REPLACE:
		return replace(decoder, i, token, size, err);
	case LORA_STAGE_STRIP:
		return strip(decoder, i, token, size, err);
	default:
		return give(decoder, i + 1, token, size, err);
	}
}

/* --- the decoder ------------------------------------------------------------------ */

enum lora_status lora_decoder_new(struct lora_decoder **out, const struct lora_tokenizer *tokenizer,
				  unsigned flags, struct lora_error *err)
{
	struct lora_decoder *decoder = calloc(1, sizeof *decoder);
	enum lora_status status;

	*out = NULL;
	if (decoder == NULL)
		return lora__fail_memory(err);
	decoder->tokenizer = tokenizer;
	decoder->flags = flags;
	status = lora__buffer_reserve(&decoder->out, 64, err);
	if (status == LORA_OK)
		status = lora__matcher_new(&decoder->matcher, err);
	if (status == LORA_OK)
		*out = decoder;
	else
		lora_decoder_free(decoder);
	return status;
}

void lora_decoder_free(struct lora_decoder *decoder)
{
	if (decoder == NULL)
		return;
	for (size_t i = 0; i < LORA_TOKENIZER_STAGES; i++) {
		lora__buffer_fini(&decoder->states[i].held);
		lora__buffer_fini(&decoder->states[i].token);
	}
	free(decoder->segments.at);
	lora__matcher_free(decoder->matcher);
	lora__buffer_fini(&decoder->out);
	free(decoder);
}

static void show(struct lora_decoder *decoder, const char **text, size_t *length)
{
	decoder->out.at[decoder->out.size] = '\0';
	*text = decoder->out.at;
	*length = decoder->out.size;
}

/* Appends to the output. */
static enum lora_status push(struct lora_decoder *decoder, uint32_t id, struct lora_error *err)
{
	const struct lora_tokenizer *tokenizer = decoder->tokenizer;
	enum lora_status status = LORA_OK;
	size_t size = 0;
	const char *token = lora_tokenizer_token(tokenizer, id, &size);

	if (token == NULL || ((decoder->flags & LORA_DECODE_SKIP_SPECIAL) != 0 &&
			      lora_tokenizer_is_special(tokenizer, id)))
		return LORA_OK;
	if (tokenizer->spaced && decoder->begun)
		status = lora__buffer_add(&decoder->out, " ", 1, err);
	decoder->begun = true;
	return status == LORA_OK ? give(decoder, 0, token, size, err) : status;
}

static enum lora_status finish(struct lora_decoder *decoder, struct lora_error *err)
{
	const struct lora_stages *stages = &decoder->tokenizer->decoder;
	enum lora_status status = LORA_OK;

	for (size_t i = 0; i < stages->count && status == LORA_OK; i++) {
		if (stages->at[i].kind == LORA_STAGE_BYTE_LEVEL)
			status = give_text(decoder, i, true, err);
		else if (stages->at[i].kind == LORA_STAGE_BYTE_FALLBACK)
			status = give_row(decoder, i, err);
	}
	for (size_t i = 0; i < stages->count; i++) {
		decoder->states[i].held.size = 0;
		decoder->states[i].stripped = 0;
		decoder->states[i].begun = false;
	}
	decoder->begun = false;
	return status;
}

enum lora_status lora_decoder_push(struct lora_decoder *decoder, uint32_t id, const char **text,
				   size_t *length, struct lora_error *err)
{
	enum lora_status status;

	decoder->out.size = 0;
	status = push(decoder, id, err);
	show(decoder, text, length);
	return status;
}

enum lora_status lora_decoder_finish(struct lora_decoder *decoder, const char **text,
				     size_t *length, struct lora_error *err)
{
	enum lora_status status;

	decoder->out.size = 0;
	status = finish(decoder, err);
	show(decoder, text, length);
	return status;
}

enum lora_status lora_tokenizer_decode(const struct lora_tokenizer *tokenizer, const uint32_t *ids,
				       size_t count, unsigned flags, char **text, size_t *length,
				       struct lora_error *err)
{
	struct lora_decoder *decoder = NULL;
	enum lora_status status = lora_decoder_new(&decoder, tokenizer, flags, err);

	*text = NULL;
	*length = 0;
	for (size_t i = 0; i < count && status == LORA_OK; i++)
		status = push(decoder, ids[i], err);
	if (status == LORA_OK)
		status = finish(decoder, err);
	if (status == LORA_OK) {
		const char *shown = NULL;

		show(decoder, &shown, length);
		*text = decoder->out.at;
		decoder->out = (struct lora_buffer){0};
	}
	lora_decoder_free(decoder);
	return status;
}
