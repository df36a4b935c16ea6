/* SPDX-License-Identifier: Apache-2.0 */
/* adapter/open.c - from what the user called ADAPTER to its modules.
 *
 *	path -> files -> one index -> config -> dialect -> edits without a base -> modules
 *
 * What the adapter alone shows to be wrong fails here; what is only strange becomes a problem's
 * line. */
#include "adapter/adapter.h"

#include "base/error.h"

#include <inttypes.h>
#include <loractl/container.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void lora_adapter_close(struct lora_adapter *adapter)
{
	if (!adapter)
		return;
	for (size_t i = 0; i < adapter->file_count; i++)
		lora__source_close(&adapter->files[i]);
	for (size_t i = 0; i < adapter->problem_count; i++)
		free(adapter->problems[i]);
	for (size_t i = 0; adapter->key_map && adapter->key_map[i]; i++)
		free(adapter->key_map[i]);
	lora__snapshot_close(adapter->snapshot);
	lora__store_close(adapter->store);
	lora__json_free(adapter->config);
	lora__index_fini(&adapter->index);
	lora__arena_fini(&adapter->arena);
	free(adapter->config_text);
	free(adapter->problems);
	free(adapter->key_map);
	free(adapter->parts);
	free(adapter->files);
	free(adapter->path);
	free(adapter->name);
	free(adapter);
}

/* adapter->path without slashes at its end, and the last part of it. */
static enum lora_status set_path(struct lora_adapter *adapter, const char *path,
				 struct lora_error *err)
{
	size_t length = strlen(path);
	const char *slash;

	while (length > 1 && path[length - 1] == '/')
		length--;
	adapter->path = strndup(path, length);
	if (!adapter->path)
		return lora__fail_memory(err);
	slash = strrchr(adapter->path, '/');
	adapter->name = strdup(slash && slash[1] ? slash + 1 : adapter->path);
	return adapter->name ? LORA_OK : lora__fail_memory(err);
}

static enum lora_status copy_key_map(struct lora_adapter *adapter, const char *const *pairs,
				     struct lora_error *err)
{
	size_t count = 0;

	if (!pairs)
		return LORA_OK;
	while (pairs[count])
		count++;
	if (count % 2)
		return lora__fail(err, LORA_USAGE, "the key map does not consist of pairs");
	adapter->key_map = calloc(count + 1, sizeof(*adapter->key_map));
	if (!adapter->key_map)
		return lora__fail_memory(err);
	for (size_t i = 0; i < count; i++) {
		adapter->key_map[i] = strdup(pairs[i]);
		if (!adapter->key_map[i])
			return lora__fail_memory(err);
	}
	return LORA_OK;
}

static enum lora_status decode(struct lora_adapter *adapter, struct lora_error *err)
{
	struct lora_decode *job = &adapter->decode;
	enum lora_status status;

	adapter->dialect = lora__dialect_probe(&adapter->index, adapter->config);
	if (!adapter->dialect)
		return lora__fail(
		    err, LORA_INPUT,
		    "its names and config are of no kind of adapter that is supported");
	*job = (struct lora_decode){.tensors = &adapter->index,
				    .config = adapter->config,
				    .allow_unknown = adapter->allow_unknown,
				    .allow_mutated_base = adapter->allow_mutated_base,
				    .arena = &adapter->arena};
	status = adapter->dialect->decode(job, err);
	return status ? status : lora__decode_check(job, err);
}

/* What was remarkable, for whoever asks. */
static enum lora_status keep_warnings(struct lora_adapter *adapter, struct lora_error *err)
{
	const struct lora_decode *job = &adapter->decode;
	enum lora_status status = LORA_OK;

	if (job->mutated_by)
		status = lora__adapter_problem(adapter, err,
					       "init_lora_weights '%s' changed the base that the "
					       "adapter was trained beside: it "
					       "does not fit the original",
					       lora__escape(job->mutated_by));
	for (size_t i = 0; i < job->note_count && !status; i++)
		if (job->notes[i].level == LORA_NOTE_WARNING)
			status = lora__adapter_problem(adapter, err, "%s", job->notes[i].line);
	for (size_t i = 0; i < job->unmatched_count && !status; i++)
		status = lora__adapter_problem(adapter, err, "tensor '%s': %s",
					       lora__escape(job->unmatched[i].tensor),
					       job->unmatched[i].why);
	return status;
}

/* FILE.lora[@VERSION]: the version is a directory; its name is the one in the manifest. */
static enum lora_status enter_container(struct lora_adapter *adapter, const char *reference,
					const struct lora_observer *observer,
					struct lora_error *err)
{
	const struct lora_manifest *m;
	uint64_t number = 0;
	size_t version = 0;
	enum lora_status status;

	free(adapter->path);
	adapter->path = NULL;
	status = lora__store_split(reference, &adapter->path, &number, err);
	if (!status)
		status = lora__store_open(&adapter->store, adapter->path, observer, err);
	if (!status)
		status = lora__store_find(adapter->store, number, &version, err);
	if (!status)
		status = lora__snapshot_open(&adapter->snapshot, adapter->store, version, err);
	if (status)
		return status;
	m = lora__snapshot_manifest(adapter->snapshot);
	free(adapter->name);
	if (asprintf(&adapter->name, "%s@%" PRIu64, m->name, m->version) < 0)
		adapter->name = NULL;
	adapter->origin = &lora__origin_container;
	adapter->directory = true;
	return adapter->name ? LORA_OK : lora__fail_memory(err);
}

static enum lora_status enter(struct lora_adapter *adapter, const char *path,
			      const struct lora_observer *observer, struct lora_error *err)
{
	enum lora_path_kind kind = LORA_PATH_ABSENT;
	enum lora_status status;

	if (lora_container_is(path))
		return enter_container(adapter, path, observer, err);
	status = lora__path_kind(adapter->path, &kind, err);
	if (status)
		return status;
	if (kind == LORA_PATH_ABSENT)
		return lora__fail(
		    err, LORA_INPUT,
		    "'%s' does not exist: give a PEFT directory, a .safetensors file or a .lora "
		    "container",
		    lora__escape(path));
	adapter->origin = &lora__origin_files;
	adapter->directory = kind == LORA_PATH_DIRECTORY;
	return LORA_OK;
}

static enum lora_status open_all(struct lora_adapter *adapter, const char *path,
				 const struct lora_adapter_options *options,
				 const struct lora_observer *observer, struct lora_error *err)
{
	enum lora_status status = set_path(adapter, path, err);

	if (!status && options)
		status = copy_key_map(adapter, options->key_map, err);
	if (!status)
		status = enter(adapter, path, observer, err);
	if (status)
		return status;
	status = lora__adapter_files(adapter, err);
	if (!status)
		status = lora__adapter_config(adapter, err);
	if (!status)
		status = decode(adapter, err);
	if (!status)
		status = lora__adapter_modules(adapter, err);
	if (!status)
		status = keep_warnings(adapter, err);
	return lora__context(err, status, "adapter '%s'", lora__escape(adapter->path));
}

enum lora_status lora_adapter_open(struct lora_adapter **out, const char *path,
				   const struct lora_adapter_options *options,
				   const struct lora_observer *observer, struct lora_error *err)
{
	struct lora_adapter *adapter = calloc(1, sizeof(*adapter));
	enum lora_status status;

	*out = NULL;
	if (!adapter)
		return lora__fail_memory(err);
	if (options) {
		adapter->allow_unknown = options->allow_unknown;
		adapter->allow_mutated_base = options->allow_mutated_base;
	}
	/* Other notes belong to the base that the adapter is laid over: resolve.c. */
	status = open_all(adapter, path, options, observer, err);
	if (status) {
		lora_adapter_close(adapter);
		return status;
	}
	*out = adapter;
	return LORA_OK;
}

const char *lora_adapter_path(const struct lora_adapter *adapter)
{
	return adapter->path;
}

const char *lora_adapter_name(const struct lora_adapter *adapter)
{
	return adapter->name;
}

const char *lora_adapter_dialect(const struct lora_adapter *adapter)
{
	return adapter->dialect->name;
}

const char *lora_adapter_method(const struct lora_adapter *adapter)
{
	return adapter->decode.method;
}

const char *lora_adapter_base_name(const struct lora_adapter *adapter)
{
	return adapter->decode.base_name;
}

uint64_t lora_adapter_parameters(const struct lora_adapter *adapter)
{
	uint64_t sum = 0;

	for (size_t i = 0; i < adapter->index.count; i++)
		sum += adapter->index.tensors[i].elements;
	return sum;
}

uint64_t lora_adapter_bytes(const struct lora_adapter *adapter)
{
	uint64_t sum = 0;

	for (size_t i = 0; i < adapter->index.count; i++)
		sum += adapter->index.tensors[i].size;
	return sum;
}

size_t lora_adapter_tensor_count(const struct lora_adapter *adapter)
{
	return adapter->index.count;
}

const struct lora_tensor *lora_adapter_tensor(const struct lora_adapter *adapter, size_t i)
{
	return i < adapter->index.count ? &adapter->index.tensors[i] : NULL;
}

const struct lora_sha256 *lora_adapter_bound_root(const struct lora_adapter *adapter)
{
	return adapter->bound ? &adapter->bound_root : NULL;
}
