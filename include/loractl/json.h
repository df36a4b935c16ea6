/* SPDX-License-Identifier: Apache-2.0 */
/* loractl/json.h - writing JSON documents in one canonical spelling.
 *
 * Objects and arrays are opened and closed, keys and values follow one another; the writer puts
 * commas, indentation and escapes. Doubles are written with the fewest digits that read back
 * as the same double; a non-finite one as null. The writer remembers the first failure (memory,
 *wrong nesting), so that a document is checked once, at its end.
 *
 *	struct lora_json_writer *w = lora_json_writer_new(LORA_JSON_PRETTY);
 *	lora_json_begin_object(w);
 *	lora_json_key(w, "rank");
 *	lora_json_uint(w, 16);
 *	lora_json_end_object(w);
 *	status = lora_json_writer_text(w, &text, &length, err);
 */
#ifndef LORACTL_JSON_H
#define LORACTL_JSON_H

#include <loractl/types.h>

#ifdef __cplusplus
extern "C" {
#endif

struct lora_json_writer;

enum lora_json_style {
	LORA_JSON_COMPACT, /* no white space */
	LORA_JSON_PRETTY,  /* two spaces a level, a newline at the end */
};

/* A new writer, or NULL without memory (every function below takes NULL and does nothing). */
LORA_API struct lora_json_writer *lora_json_writer_new(enum lora_json_style style);
LORA_API void lora_json_writer_free(struct lora_json_writer *writer);

LORA_API void lora_json_begin_object(struct lora_json_writer *writer);
LORA_API void lora_json_end_object(struct lora_json_writer *writer);
LORA_API void lora_json_begin_array(struct lora_json_writer *writer);
LORA_API void lora_json_end_array(struct lora_json_writer *writer);
LORA_API void lora_json_key(struct lora_json_writer *writer, const char *key);
/* NULL is written as null. Invalid UTF-8 bytes become U+FFFD. */
LORA_API void lora_json_string(struct lora_json_writer *writer, const char *text);
LORA_API void lora_json_uint(struct lora_json_writer *writer, uint64_t value);
LORA_API void lora_json_int(struct lora_json_writer *writer, int64_t value);
LORA_API void lora_json_double(struct lora_json_writer *writer, double value);
LORA_API void lora_json_bool(struct lora_json_writer *writer, bool value);
LORA_API void lora_json_null(struct lora_json_writer *writer);
/* A value that is JSON already: `text` is put there as it is, unchecked. NULL is written as null.
 */
LORA_API void lora_json_value(struct lora_json_writer *writer, const char *text);
LORA_API void lora_json_sha256(struct lora_json_writer *writer, const struct lora_sha256 *digest);

/* The finished document: borrowed, NUL-terminated, valid until the writer is freed.
 * LORA_SYSTEM without memory, LORA_USAGE if it was nested wrongly or is not finished. */
LORA_API enum lora_status lora_json_writer_text(struct lora_json_writer *writer, const char **text,
						size_t *length, struct lora_error *err);

#ifdef __cplusplus
}
#endif

#endif
