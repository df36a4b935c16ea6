/* SPDX-License-Identifier: Apache-2.0 */
/* adapter/parts.c - which bytes an adapter was read from, for whoever has to vouch for them.
 *
 * 1. Small files are hashed from the very text that was parsed; weights through the descriptor from
 *    which they will be read, which must not have changed since it was opened.
 * 2. A file that was looked for and not found is part of the answer: an adapter without its
 *    binding is another adapter. */
#include "adapter/adapter.h"

#include "base/digest.h"
#include "base/error.h"

#include <stdlib.h>
#include <string.h>

#define CHUNK ((size_t)1 << 20)

static enum lora_status add(struct lora_adapter *adapter, const struct lora_adapter_part *part,
			    struct lora_error *err)
{
	struct lora_adapter_part *grown =
	    realloc(adapter->parts, (adapter->part_count + 1) * sizeof(*adapter->parts));

	if (!grown)
		return lora__fail_memory(err);
	adapter->parts = grown;
	grown[adapter->part_count] = *part;
	grown[adapter->part_count].name =
	    lora__arena_copy(&adapter->arena, part->name, strlen(part->name));
	if (!grown[adapter->part_count].name)
		return lora__fail_memory(err);
	adapter->part_count++;
	return LORA_OK;
}

enum lora_status lora__adapter_part(struct lora_adapter *adapter, const char *name,
				    const char *text, size_t size, struct lora_error *err)
{
	struct lora_adapter_part part = {name, text != NULL, size, {{0}}};

	if (text)
		lora__sha256(text, size, &part.digest);
	return add(adapter, &part, err);
}

static enum lora_status hash_source(const struct lora_source *file, struct lora_sha256 *digest,
				    struct lora_error *err)
{
	struct lora_hasher *hasher = lora__hasher_new();
	uint8_t *buffer = malloc(CHUNK);
	enum lora_status status = hasher && buffer ? LORA_OK : lora__fail_memory(err);

	for (uint64_t done = 0; done < file->size && !status;) {
		size_t n = file->size - done < CHUNK ? (size_t)(file->size - done) : CHUNK;

		status = lora__source_read(file, done, buffer, n, err);
		if (!status)
			lora__hasher_update(hasher, buffer, n);
		done += n;
	}
	if (!status)
		status = file->origin->unchanged(file, err);
	if (!status)
		lora__hasher_final(hasher, digest);
	lora__hasher_free(hasher);
	free(buffer);
	return status;
}

static const char *name_of(const struct lora_source *file)
{
	const char *slash;

	if (file->snapshot)
		return lora__snapshot_manifest(file->snapshot)->files[file->number].name;
	slash = strrchr(file->file.path, '/');
	return slash ? slash + 1 : file->file.path;
}

enum lora_status lora_adapter_parts(struct lora_adapter *adapter,
				    const struct lora_adapter_part **parts, size_t *count,
				    struct lora_error *err)
{
	size_t before = adapter->part_count;
	enum lora_status status = LORA_OK;

	for (size_t i = 0; i < adapter->file_count && !adapter->parts_hashed && !status; i++) {
		const struct lora_source *source = &adapter->files[i];
		struct lora_adapter_part part = {name_of(source), true, source->size, {{0}}};

		status = hash_source(source, &part.digest, err);
		if (!status)
			status = add(adapter, &part, err);
	}
	if (status) {
		adapter->part_count = before;
		return lora__context(err, status, "adapter '%s'", lora__escape(adapter->path));
	}
	adapter->parts_hashed = true;
	*parts = adapter->parts;
	*count = adapter->part_count;
	return LORA_OK;
}

const struct lora_sha256 *lora_adapter_manifest(const struct lora_adapter *adapter)
{
	const struct lora_manifest *manifest;

	if (!adapter->snapshot)
		return NULL;
	manifest = lora__snapshot_manifest(adapter->snapshot);
	for (size_t i = 0; i < lora__store_count(adapter->store); i++)
		if (lora__store_number(adapter->store, i) == manifest->version)
			return lora__store_digest(adapter->store, i);
	return NULL;
}
