/* SPDX-License-Identifier: Apache-2.0 */
/* store/reference.c - FILE.lora[@VERSION]
 *
 * 1. What exists under the whole text is the path: a file may be called "a@2".
 * 2. Otherwise the text behind the last '@' is the version: a number, or `latest`. A directory
 *    stands behind no version: an '@' that a '/' follows belongs to the path. */
#include "store/engine.h"

#include "base/error.h"

#include <loractl/container.h>
#include <stdlib.h>
#include <string.h>

/* Decimal digits of a number from 1 to LORA_VERSION_MAX; 0 for anything else. */
static uint64_t parse_number(const char *text)
{
	uint64_t value = 0;

	if (!*text || strspn(text, "0123456789") != strlen(text) || strlen(text) > 16)
		return 0;
	for (; *text; text++)
		value = value * 10 + (uint64_t)(*text - '0');
	return value <= LORA_VERSION_MAX ? value : 0;
}

enum lora_status lora__store_split(const char *reference, char **path, uint64_t *number,
				   struct lora_error *err)
{
	const char *mark = strrchr(reference, '@');
	enum lora_path_kind kind = LORA_PATH_ABSENT;
	enum lora_status status;

	*number = 0;
	*path = NULL;
	status = lora__path_kind(reference, &kind, err);
	if (status)
		return status;
	if (kind != LORA_PATH_ABSENT || !mark || mark == reference || strchr(mark, '/')) {
		*path = strdup(reference);
		return *path ? LORA_OK : lora__fail_memory(err);
	}
	if (strcmp(mark + 1, "latest") != 0) {
		*number = parse_number(mark + 1);
		if (*number == 0)
			return lora__fail(err, LORA_USAGE,
					  "'%s': no version is called '%s': write FILE.lora@3 or "
					  "FILE.lora@latest",
					  lora__escape(reference), lora__escape(mark + 1));
	}
	*path = strndup(reference, (size_t)(mark - reference));
	return *path ? LORA_OK : lora__fail_memory(err);
}

static bool begins_like_one(const char *path)
{
	struct lora_file file = LORA_FILE_INIT;
	uint8_t head[sizeof(lora__magic)];
	bool is = lora__file_open(&file, path, NULL) == LORA_OK && file.size >= sizeof(head) &&
		  lora__file_read(&file, 0, head, sizeof(head), NULL) == LORA_OK &&
		  memcmp(head, lora__magic, sizeof(head)) == 0;

	lora__file_close(&file);
	return is;
}

bool lora_container_is(const char *reference)
{
	const char *mark = strrchr(reference, '@');
	enum lora_path_kind kind = LORA_PATH_ABSENT;
	char *path;
	bool is;

	if (lora__path_kind(reference, &kind, NULL))
		return false;
	if (kind != LORA_PATH_ABSENT)
		return kind == LORA_PATH_FILE && begins_like_one(reference);
	if (!mark || mark == reference || strchr(mark, '/'))
		return false;
	path = strndup(reference, (size_t)(mark - reference));
	is = path && lora__path_kind(path, &kind, NULL) == LORA_OK && kind == LORA_PATH_FILE &&
	     begins_like_one(path);
	free(path);
	return is;
}
