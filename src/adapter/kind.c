/* SPDX-License-Identifier: Apache-2.0 */
/* adapter/kind.c - what is this path? Decided from names and heads, before anything is trusted.
 *
 *	a file that begins like a container, or	FILE@VERSION	    a container
 *	directory	adapter_config.json, or adapter weights	    an adapter
 *			config.json, or a model's weights	    a base; with our receipt a
 *			merged model
 *	file		a safetensors file whose metadata say so	an undo record
 *			one that some dialect claims			an adapter
 *			any other safetensors file			a base; with our receipt a
 *			merged model
 *
 * A receipt counts if it describes what stands there (checkpoint/merged.c).
 */
#include "adapter/adapter.h"

#include "base/error.h"

#include <loractl/container.h>
#include <loractl/inspect.h>
#include <stdlib.h>
#include <string.h>

const char *lora_kind_name(enum lora_kind kind)
{
	static const char *const names[] = {"unknown", "base", "adapter",
					    "merged",  "undo", "container"};

	return (size_t)kind < sizeof(names) / sizeof(*names) ? names[kind] : NULL;
}

/* Is there a regular file `name` in `dir`? */
static enum lora_status has(const char *dir, const char *name, bool *yes, struct lora_error *err)
{
	char *path = lora__path_join(dir, name);
	enum lora_path_kind kind = LORA_PATH_ABSENT;
	enum lora_status status = path ? lora__path_kind(path, &kind, err) : lora__fail_memory(err);

	*yes = kind == LORA_PATH_FILE;
	free(path);
	return status;
}

static enum lora_status any_of(const char *dir, const char *const *names, bool *yes,
			       struct lora_error *err)
{
	enum lora_status status = LORA_OK;

	*yes = false;
	for (; *names && !*yes && !status; names++)
		status = has(dir, *names, yes, err);
	return status;
}

/* Does a receipt describe the model that stands there? */
static bool is_merged(const char *path, bool directory)
{
	struct lora_json *receipt = NULL;
	bool merged = lora__receipt_load(&receipt, path, directory, NULL) == LORA_OK;

	lora__json_free(receipt);
	return merged;
}

enum lora_status lora_receipt_check(const char *path, struct lora_error *err)
{
	enum lora_path_kind kind = LORA_PATH_ABSENT, beside = LORA_PATH_ABSENT;
	struct lora_json *json = NULL;
	enum lora_status status = lora__path_kind(path, &kind, err);
	char *receipt = lora__receipt_path(path, kind == LORA_PATH_DIRECTORY);

	if (!status && !receipt)
		status = lora__fail_memory(err);
	if (!status)
		status = lora__path_kind(receipt, &beside, err);
	if (!status && beside != LORA_PATH_ABSENT)
		status = lora__receipt_load(&json, path, kind == LORA_PATH_DIRECTORY, err);
	lora__json_free(json);
	free(receipt);
	return status;
}

static enum lora_status kind_of_directory(const char *path, enum lora_kind *kind,
					  struct lora_error *err)
{
	static const char *const adapter[] = {"adapter_config.json", "adapter_model.safetensors",
					      "adapter_model.safetensors.index.json",
					      "adapter_model.bin", NULL};
	static const char *const base[] = {"config.json", "model.safetensors",
					   "model.safetensors.index.json", NULL};
	bool is_adapter = false, is_base = false;
	enum lora_status status = any_of(path, adapter, &is_adapter, err);

	if (!status)
		status = any_of(path, base, &is_base, err);
	if (status)
		return status;
	*kind = is_adapter		? LORA_KIND_ADAPTER
		: is_merged(path, true) ? LORA_KIND_MERGED
					: LORA_KIND_BASE;
	if (!is_adapter && !is_base)
		return lora__fail(err, LORA_INPUT,
				  "'%s' holds neither a model nor an adapter: no config.json, no "
				  "adapter_config.json",
				  lora__escape(path));
	return LORA_OK;
}

static bool is_undo(const struct lora_index *index)
{
	const char *format = lora__index_metadata(index, "format");

	return format && strncmp(format, LORA_UNDO_FORMAT, sizeof(LORA_UNDO_FORMAT) - 1) == 0;
}

static enum lora_status kind_of_file(const char *path, enum lora_kind *kind, struct lora_error *err)
{
	struct lora_file file = LORA_FILE_INIT;
	struct lora_index index = {0};
	uint8_t *head = NULL;
	size_t head_size = 0;
	enum lora_status status = lora__file_open(&file, path, err);

	if (!status)
		status = lora__container_load(&index, &head, &head_size, &file, err);
	if (!status)
		*kind = is_undo(&index)			    ? LORA_KIND_UNDO
			: lora__dialect_probe(&index, NULL) ? LORA_KIND_ADAPTER
			: is_merged(path, false)	    ? LORA_KIND_MERGED
							    : LORA_KIND_BASE;
	lora__index_fini(&index);
	lora__file_close(&file);
	free(head);
	return status;
}

enum lora_status lora_kind_of(const char *path, enum lora_kind *kind, struct lora_error *err)
{
	enum lora_path_kind there = LORA_PATH_ABSENT;
	char *snapshot = NULL;
	enum lora_status status = lora__path_kind(path, &there, err);

	*kind = LORA_KIND_UNKNOWN;
	if (status)
		return status;
	if (lora_container_is(path)) {
		*kind = LORA_KIND_CONTAINER;
		return LORA_OK;
	}
	if (there == LORA_PATH_DIRECTORY)
		return kind_of_directory(path, kind, err);
	if (there == LORA_PATH_FILE)
		return kind_of_file(path, kind, err);
	if (there == LORA_PATH_ABSENT && lora__hub_is_name(path)) {
		status = lora__hub_resolve(&snapshot, path, err);
		if (status)
			return lora__context(err, status, "'%s' does not exist",
					     lora__escape(path));
		status = kind_of_directory(snapshot, kind, err);
	} else
		status =
		    lora__fail(err, LORA_INPUT, "'%s' %s", lora__escape(path),
			       there == LORA_PATH_ABSENT ? "does not exist"
							 : "is neither a file nor a directory");
	free(snapshot);
	return status;
}
