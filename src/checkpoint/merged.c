/* SPDX-License-Identifier: Apache-2.0 */
/* checkpoint/merged.c - is this a model that we merged?
 *
 * A receipt is believed of the files beside it, never by its name alone: each weight file that it
 * names must stand there with its size. That says what the model is, not that its bytes are right:
 * digests are compared where that is the question.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "checkpoint/checkpoint.h"

char *lora__receipt_path(const char *model, bool directory)
{
	size_t room = strlen(model) + sizeof(LORA_RECEIPT_SUFFIX);
	char *path;

	if (directory)
		return lora__path_join(model, LORA_RECEIPT_FILE);
	path = malloc(room);
	if (path)
		(void)snprintf(path, room, "%s%s", model, LORA_RECEIPT_SUFFIX);
	return path;
}

const struct lora_json *lora__receipt_files(const struct lora_json *receipt)
{
	return lora__json_first(lora__json_get(lora__json_get(receipt, "merged"), "files"));
}

/* Does the weight file that this entry names stand there with its size? */
static bool stands(const struct lora_json *entry, const char *model, bool directory)
{
	const char *name = lora__json_string(lora__json_get(entry, "name"));
	char *path = name && lora__path_is_plain(name) ? lora__path_join(model, name) : NULL;
	struct stat info;
	uint64_t size;
	bool yes = path && lora__json_u64(lora__json_get(entry, "size"), &size) &&
		   stat(directory ? path : model, &info) == 0 && S_ISREG(info.st_mode) &&
		   (uint64_t)info.st_size == size;

	free(path);
	return yes;
}

static bool describes(const struct lora_json *receipt, const char *model, bool directory)
{
	static const char schema[] = "loractl.receipt/";
	const char *found = lora__json_string(lora__json_get(receipt, "schema"));
	const struct lora_json *file = lora__receipt_files(receipt);
	bool all = found && strncmp(found, schema, sizeof(schema) - 1) == 0 && file;

	for (; file && all; file = lora__json_next(file))
		all = stands(file, model, directory);
	return all;
}

enum lora_status lora__receipt_load(struct lora_json **receipt, const char *model, bool directory,
				    struct lora_error *err)
{
	char *path = lora__receipt_path(model, directory), *text = NULL;
	size_t size = 0;
	enum lora_status status =
	    path ? lora__file_slurp(path, LORA_RECEIPT_LIMIT, &text, &size, err)
		 : lora__fail_memory(err);

	*receipt = NULL;
	if (!status)
		status = lora__json_parse(receipt, text, size, err);
	if (!status && !describes(*receipt, model, directory)) {
		lora__json_free(*receipt);
		*receipt = NULL;
		status = lora__fail(err, LORA_INPUT,
				    "'%s' does not describe '%s': it is no receipt, or names other "
				    "files or sizes",
				    lora__escape(path), lora__escape(model));
	}
	free(text);
	free(path);
	return status;
}
