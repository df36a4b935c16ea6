/* SPDX-License-Identifier: Apache-2.0 */
/* base/json.h - reading JSON from strangers: cJSON behind limits. (The writer is loractl/json.h.)
 *
 * Checked before cJSON sees a byte (one pass of our own over the text): valid UTF-8, no NUL, depth
 * at most LORA_JSON_DEPTH, at most LORA_JSON_VALUES values, nothing but white space after the
 * value, strict number grammar (JSON's: no NaN, Infinity, leading zeros or plus), whole surrogate
 * pairs. Checked afterwards: no object has a key twice, after unescaping. Numbers keep their text,
 * so that 64-bit integers are exact.
 */
#ifndef LORA_BASE_JSON_H
#define LORA_BASE_JSON_H

#include <loractl/error.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define LORA_JSON_DEPTH 32
/* A header of a million tensors has 8 million values; a value takes some 110 bytes while it is
 * open. */
#define LORA_JSON_VALUES ((size_t)1 << 24)

/* A value; the root owns the tree (lora__json_free), all others are borrowed. Opaque (a cJSON). */
struct lora_json;

enum lora_json_type {
	LORA_JSON_NULL,
	LORA_JSON_FALSE,
	LORA_JSON_TRUE,
	LORA_JSON_NUMBER,
	LORA_JSON_STRING,
	LORA_JSON_ARRAY,
	LORA_JSON_OBJECT,
};

/* LORA_INPUT with line and column if malformed. `text` need not be NUL-terminated. */
enum lora_status lora__json_parse(struct lora_json **out, const char *text, size_t length,
				  struct lora_error *err);
void lora__json_free(struct lora_json *json);

enum lora_json_type lora__json_type(const struct lora_json *json);
/* Member of an object, exactly spelled; NULL if absent or if json is NULL or no object. */
const struct lora_json *lora__json_get(const struct lora_json *json, const char *key);
/* First child of an object or array, and the next one; NULL at the end. O(1) each. */
const struct lora_json *lora__json_first(const struct lora_json *json);
const struct lora_json *lora__json_next(const struct lora_json *json);
const char *lora__json_key(const struct lora_json *member); /* of a member of an object */
size_t lora__json_count(const struct lora_json *json);	    /* children */
/* NULL if json is NULL or no string. A string with \u0000 inside is refused by the parser. */
const char *lora__json_string(const struct lora_json *json);
/* False unless json is a number of that kind, exactly: u64 needs digits only ("16" but not "16.0",
 * "-1", "1e3"). */
bool lora__json_u64(const struct lora_json *json, uint64_t *value);
bool lora__json_double(const struct lora_json *json, double *value); /* correctly rounded, finite */
/* A number as it was written; NULL if json is none. */
const char *lora__json_number(const struct lora_json *json);
/* JSON's true and false; false for anything else and *value untouched. */
bool lora__json_bool(const struct lora_json *json, bool *value);
/* null, false, "", [] or {}: a value that asks for nothing. (0 is a value.) */
bool lora__json_is_empty(const struct lora_json *json);

/* Canonical text (keys sorted by bytes, no white space, numbers as written): for digests. malloc'd.
 */
enum lora_status lora__json_canonical(const struct lora_json *json, char **text, size_t *length,
				      struct lora_error *err);

/* The writer's private side, for canonical text. */
struct lora_json_writer;
/* Compact, and escapes nothing that JSON does not demand. */
struct lora_json_writer *lora__json_writer_minimal(void);
/* One value that is spelled out already: a number. */
void lora__json_raw(struct lora_json_writer *writer, const char *token);
/* Takes the finished text out of the writer, which can only be freed then; malloc'd. */
char *lora__json_writer_take(struct lora_json_writer *writer);

#endif
