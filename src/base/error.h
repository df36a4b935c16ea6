/* SPDX-License-Identifier: Apache-2.0 */
/* base/error.h - setting the one error message, and escaping what goes into it.
 *
 * The message is set exactly where the fact is known; on the way up lora__context() puts
 * "WHERE: " in front where a new fact is known, and nothing overwrites a lower message. Data from
 * files never reaches an assert.
 */
#ifndef LORA_BASE_ERROR_H
#define LORA_BASE_ERROR_H

#include <loractl/error.h>
#include <stddef.h>

/* Sets err (which may be NULL) and returns status. */
enum lora_status lora__fail(struct lora_error *err, enum lora_status status, const char *format,
			    ...) LORA_PRINTF(3, 4);
/* The same, with ": strerror(errno)" appended: LORA_SYSTEM; but ENOENT and ENOTDIR give LORA_INPUT.
 */
enum lora_status lora__fail_errno(struct lora_error *err, const char *format, ...)
    LORA_PRINTF(2, 3);
/* The same, but LORA_SYSTEM whatever errno is: for what we made ourselves and must be there. */
enum lora_status lora__fail_system(struct lora_error *err, const char *format, ...)
    LORA_PRINTF(2, 3);
enum lora_status lora__fail_memory(struct lora_error *err);
/* Puts "FORMAT: " before the message that is there. Returns status, and err has it too: the one
 * that came from below, as a rule. Does nothing if status is LORA_OK. */
enum lora_status lora__context(struct lora_error *err, enum lora_status status, const char *format,
			       ...) LORA_PRINTF(3, 4);

/* A name from a file, made safe for a terminal: control characters, bytes that are not UTF-8,
 * bidirectional overrides and the like become \xHH or \u{HEX}; longer than 200 bytes is cut in the
 * middle with "...". The result lives in one of eight rotating thread-local buffers: use it at
 * once. */
const char *lora__escape(const char *text);
const char *lora__escape_n(const char *text, size_t length);

#endif
