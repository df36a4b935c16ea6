/* SPDX-License-Identifier: Apache-2.0 */
/* base/json_scan.h - the check that comes before cJSON. */
#ifndef LORA_BASE_JSON_SCAN_H
#define LORA_BASE_JSON_SCAN_H

#include <loractl/error.h>
#include <stdbool.h>
#include <stddef.h>

/* LORA_INPUT with line and column unless text is JSON within our limits. *growth: one for every
 * string and three for every number in it, the bytes by which base/json.c makes it longer. */
enum lora_status lora__json_scan(const char *text, size_t length, size_t *growth,
				 struct lora_error *err);

static inline bool lora__json_is_digit(int c)
{
	return c >= '0' && c <= '9';
}

static inline bool lora__json_is_space(int c)
{
	return c == ' ' || c == '\n' || c == '\t' || c == '\r';
}

#endif
