/* SPDX-License-Identifier: Apache-2.0 */
/* cli/reference.c - ADAPTER[:WEIGHT]: where the path ends and the weight begins.
 *
 * 1. What exists under the whole text is the path: a directory may be called "style:2".
 * 2. Otherwise the text behind the last colon is the weight, a plain decimal such as 0.5, -1 or 2.
 * 3. A path that does not exist is left for the library to report.
 */
#include "reference.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

static enum lora_status fail(struct lora_error *err, enum lora_status status, const char *what,
			     const char *text)
{
	err->status = status;
	snprintf(err->message, sizeof(err->message), "%s: '%.200s': write ADAPTER or ADAPTER:0.5",
		 what, text);
	return status;
}

/* [-+]digits[.digits], nothing else: strtod alone would take "inf", "0x1p3" and "1e400". */
static bool is_decimal(const char *text)
{
	size_t whole, part = 0;

	text += *text == '-' || *text == '+';
	whole = strspn(text, "0123456789");
	text += whole;
	if (*text == '.') {
		part = strspn(text + 1, "0123456789");
		text += 1 + part;
	}
	return *text == '\0' && whole + part > 0;
}

enum lora_status reference_split(const char *text, char **path, double *weight,
				 struct lora_error *err)
{
	const char *colon = strrchr(text, ':');
	struct stat st;

	*weight = 1;
	*path = strdup(text);
	if (!*path)
		return fail(err, LORA_SYSTEM, "out of memory", text);
	if (!colon || strchr(colon, '/') || stat(text, &st) == 0)
		return LORA_OK;
	if (!is_decimal(colon + 1))
		return fail(err, LORA_USAGE, "the weight is no decimal number", text);
	*weight = strtod(colon + 1, NULL);
	if (!isfinite(*weight))
		return fail(err, LORA_USAGE, "the weight is out of range", text);
	(*path)[colon - text] = '\0';
	return LORA_OK;
}
