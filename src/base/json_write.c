/* SPDX-License-Identifier: Apache-2.0 */
/* base/json_write.c - writing JSON in one canonical spelling
 *
 * 1. The same calls give the same bytes, in every locale and on every machine.
 * 2. The first failure is kept, and everything after it is ignored; the document is asked for once,
 *    at the end, and then either is well-formed or does not exist.
 * 3. White space is that of Python's json.dumps(), with separators=(",", ":") or with indent=2.
 * 4. Strings hold UTF-8 as it is; escaped are the quote, the backslash and control characters.
 *    Except in canonical text, what a terminal obeys or hides (base/utf8.h) is escaped too:
 *    documents get printed.
 *
 * Where the writer stands is a stack of open containers, of which it knows the kind and whether
 * something is in them already, and whether a key waits for its value.
 */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <loractl/json.h>

#include "base/digest.h"
#include "base/error.h"
#include "base/json.h"
#include "base/number.h"
#include "base/utf8.h"

#define NESTING_MAX 64

struct lora_json_writer {
	char *text;
	size_t length, capacity; /* bytes; one more for the NUL is always there */
	enum lora_status problem;
	bool pretty, minimal;
	bool keyed;    /* a key waits for its value */
	bool finished; /* the one value of the document is written */
	unsigned depth;
	struct {
		char close; /* '}' or ']' */
		bool used;
	} open[NESTING_MAX];
};

static struct lora_json_writer *writer_new(bool pretty, bool minimal)
{
	struct lora_json_writer *writer = calloc(1, sizeof *writer);

	if (writer != NULL) {
		writer->pretty = pretty;
		writer->minimal = minimal;
	}
	return writer;
}

struct lora_json_writer *lora_json_writer_new(enum lora_json_style style)
{
	return writer_new(style == LORA_JSON_PRETTY, false);
}

struct lora_json_writer *lora__json_writer_minimal(void)
{
	return writer_new(false, true);
}

void lora_json_writer_free(struct lora_json_writer *writer)
{
	if (writer == NULL)
		return;
	free(writer->text);
	free(writer);
}

/* --- bytes --------------------------------------------------------------------------- */

static void put(struct lora_json_writer *writer, const char *bytes, size_t size)
{
	size_t capacity = writer->capacity == 0 ? 512 : writer->capacity;
	char *text;

	if (writer->problem != LORA_OK)
		return;
	while (capacity - writer->length <= size && capacity <= SIZE_MAX / 2)
		capacity *= 2;
	if (capacity - writer->length <= size) {
		writer->problem = LORA_SYSTEM;
		return;
	}
	if (capacity != writer->capacity) {
		text = realloc(writer->text, capacity);
		if (text == NULL) {
			writer->problem = LORA_SYSTEM;
			return;
		}
		writer->text = text;
		writer->capacity = capacity;
	}
	memcpy(writer->text + writer->length, bytes, size);
	writer->length += size;
	writer->text[writer->length] = '\0';
}

static void put_text(struct lora_json_writer *writer, const char *text)
{
	put(writer, text, strlen(text));
}

static void put_line(struct lora_json_writer *writer)
{
	put(writer, "\n", writer->pretty);
	for (unsigned i = 0; i < writer->depth; i++)
		put(writer, "  ", writer->pretty ? 2 : 0);
}

static void put_escaped(struct lora_json_writer *writer, uint32_t code)
{
	static const char shorts[] =
	    "\"\"\\\\\bb\ff\nn\rr\tt"; /* pairs: the character, its letter */
	char text[16];

	for (size_t i = 0; i < sizeof shorts - 1; i += 2) {
		if (code == (unsigned char)shorts[i]) {
			(void)snprintf(text, sizeof text, "\\%c", shorts[i + 1]);
			put_text(writer, text);
			return;
		}
	}
	if (code < 0x10000)
		(void)snprintf(text, sizeof text, "\\u%04x", (unsigned)code);
	else
		(void)snprintf(text, sizeof text, "\\u%04x\\u%04x",
			       (unsigned)(0xd800 + ((code - 0x10000) >> 10)),
			       (unsigned)(0xdc00 + ((code - 0x10000) & 0x3ff)));
	put_text(writer, text);
}

static bool must_escape(const struct lora_json_writer *writer, uint32_t code)
{
	if (code < 0x20 || code == '"' || code == '\\')
		return true;
	return code >= 0x7f && !writer->minimal && lora__utf8_is_hidden(code);
}

static void put_string(struct lora_json_writer *writer, const char *text)
{
	size_t length = strlen(text), plain = 0, at = 0;

	put(writer, "\"", 1);
	while (at < length) {
		uint32_t code = 0;
		size_t size = lora__utf8_decode(text + at, length - at, &code);

		if (size > 0 && !must_escape(writer, code)) {
			at += size;
			continue;
		}
		put(writer, text + plain, at - plain);
		if (size == 0)
			put_text(writer, "\xef\xbf\xbd"); /* U+FFFD */
		else
			put_escaped(writer, code);
		at += size == 0 ? 1 : size;
		plain = at;
	}
	put(writer, text + plain, length - plain);
	put(writer, "\"", 1);
}

/* --- structure ----------------------------------------------------------------------- */

static bool misuse(struct lora_json_writer *writer)
{
	if (writer->problem == LORA_OK)
		writer->problem = LORA_USAGE;
	return false;
}

/* What stands between two members, or before the first. */
static void put_separator(struct lora_json_writer *writer)
{
	if (writer->open[writer->depth - 1].used)
		put(writer, ",", 1);
	writer->open[writer->depth - 1].used = true;
	put_line(writer);
}

/* Makes everything ready for one value; false if none may stand here. */
static bool begin_value(struct lora_json_writer *writer)
{
	if (writer == NULL || writer->problem != LORA_OK)
		return false;
	if (writer->depth == 0) {
		if (writer->finished)
			return misuse(writer);
		writer->finished = true;
	} else if (writer->open[writer->depth - 1].close == ']') {
		put_separator(writer);
	} else if (!writer->keyed) {
		return misuse(writer);
	}
	writer->keyed = false;
	return true;
}

static void begin_container(struct lora_json_writer *writer, const char *opening, char close)
{
	if (!begin_value(writer))
		return;
	if (writer->depth == NESTING_MAX) {
		(void)misuse(writer);
		return;
	}
	put_text(writer, opening);
	writer->open[writer->depth].close = close;
	writer->open[writer->depth].used = false;
	writer->depth++;
}

static void end_container(struct lora_json_writer *writer, char close)
{
	bool used;

	if (writer == NULL || writer->problem != LORA_OK)
		return;
	if (writer->depth == 0 || writer->keyed || writer->open[writer->depth - 1].close != close) {
		(void)misuse(writer);
		return;
	}
	used = writer->open[--writer->depth].used;
	if (used)
		put_line(writer);
	put(writer, &close, 1);
}

void lora_json_begin_object(struct lora_json_writer *writer)
{
	begin_container(writer, "{", '}');
}

void lora_json_end_object(struct lora_json_writer *writer)
{
	end_container(writer, '}');
}

void lora_json_begin_array(struct lora_json_writer *writer)
{
	begin_container(writer, "[", ']');
}

void lora_json_end_array(struct lora_json_writer *writer)
{
	end_container(writer, ']');
}

void lora_json_key(struct lora_json_writer *writer, const char *key)
{
	if (writer == NULL || writer->problem != LORA_OK)
		return;
	if (key == NULL || writer->depth == 0 || writer->keyed ||
	    writer->open[writer->depth - 1].close != '}') {
		(void)misuse(writer);
		return;
	}
	put_separator(writer);
	put_string(writer, key);
	put_text(writer, writer->pretty ? ": " : ":");
	writer->keyed = true;
}

/* --- values -------------------------------------------------------------------------- */

void lora__json_raw(struct lora_json_writer *writer, const char *token)
{
	if (begin_value(writer))
		put_text(writer, token);
}

void lora_json_value(struct lora_json_writer *writer, const char *text)
{
	lora__json_raw(writer, text ? text : "null");
}

void lora_json_null(struct lora_json_writer *writer)
{
	lora__json_raw(writer, "null");
}

void lora_json_bool(struct lora_json_writer *writer, bool value)
{
	lora__json_raw(writer, value ? "true" : "false");
}

void lora_json_string(struct lora_json_writer *writer, const char *text)
{
	if (text == NULL)
		lora_json_null(writer);
	else if (begin_value(writer))
		put_string(writer, text);
}

void lora_json_uint(struct lora_json_writer *writer, uint64_t value)
{
	char text[24];

	(void)snprintf(text, sizeof text, "%" PRIu64, value);
	lora__json_raw(writer, text);
}

void lora_json_int(struct lora_json_writer *writer, int64_t value)
{
	char text[24];

	(void)snprintf(text, sizeof text, "%" PRId64, value);
	lora__json_raw(writer, text);
}

void lora_json_double(struct lora_json_writer *writer, double value)
{
	char text[LORA_DOUBLE_TEXT] = "null";

	if (isfinite(value))
		lora__double_text(value, text);
	lora__json_raw(writer, text);
}

void lora_json_sha256(struct lora_json_writer *writer, const struct lora_sha256 *digest)
{
	char hex[LORA_SHA256_HEX];

	lora__sha256_hex(digest, hex);
	lora_json_string(writer, hex);
}

/* --- the document -------------------------------------------------------------------- */

enum lora_status lora_json_writer_text(struct lora_json_writer *writer, const char **text,
				       size_t *length, struct lora_error *err)
{
	*text = NULL;
	*length = 0;
	if (writer == NULL)
		return lora__fail_memory(err);
	if (writer->depth > 0 || !writer->finished)
		(void)misuse(writer);
	if (writer->pretty && writer->problem == LORA_OK &&
	    writer->text[writer->length - 1] != '\n')
		put(writer, "\n", 1);
	if (writer->problem == LORA_SYSTEM)
		return lora__fail_memory(err);
	if (writer->problem != LORA_OK)
		return lora__fail(err, LORA_USAGE,
				  "a JSON document is not finished or wrongly nested");
	*text = writer->text;
	*length = writer->length;
	return LORA_OK;
}

char *lora__json_writer_take(struct lora_json_writer *writer)
{
	char *text = writer->text;

	writer->text = NULL;
	writer->length = writer->capacity = 0;
	writer->problem = LORA_USAGE;
	return text;
}
