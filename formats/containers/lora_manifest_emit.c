/* SPDX-License-Identifier: Apache-2.0 */
/* formats/containers/lora_manifest_emit.c - writing the manifest of a version, and what its names
 * may be: lora-container(5). Members are written in the order of their bytes. */
#include "base/error.h"
#include "base/json.h"
#include "base/utf8.h"
#include "formats/containers/lora.h"
#include "formats/containers/lora_bytes.h"

#include <loractl/json.h>
#include <stdlib.h>
#include <string.h>

#define COMPONENT_MAX 255u

/* --- names ----------------------------------------------------------------------------------- */

static bool is_clean(const char *text, size_t length)
{
	for (size_t at = 0; at < length;) {
		uint32_t code = 0;
		size_t size = lora__utf8_decode(text + at, length - at, &code);

		if (size == 0 || code < 0x20 || code == 0x7f)
			return false;
		at += size;
	}
	return true;
}

bool lora__packed_name_ok(const char *name)
{
	size_t length = strlen(name);

	if (length > LORA_FILE_NAME_MAX || !is_clean(name, length))
		return false;
	for (;;) {
		size_t part = strcspn(name, "/");

		if (part == 0 || part > COMPONENT_MAX || (part == 1 && name[0] == '.') ||
		    (part == 2 && name[0] == '.' && name[1] == '.'))
			return false;
		if (!name[part])
			return true;
		name += part + 1;
	}
}

bool lora__adapter_name_ok(const char *name)
{
	size_t length = strlen(name);

	return length > 0 && length <= LORA_ADAPTER_NAME_MAX && is_clean(name, length) &&
	       !strchr(name, '/');
}

/* --- the root -------------------------------------------------------------------------------- */

void lora__manifest_root(const struct lora_manifest *manifest, struct lora_sha256 *root)
{
	static const char domain[] = "loractl content 1";
	struct lora_hasher *hasher = lora__hasher_new();

	*root = (struct lora_sha256){{0}};
	if (!hasher)
		return; /* fits no manifest: what is asked next fails */
	lora__hasher_update(hasher, domain, sizeof(domain));
	for (size_t i = 0; i < manifest->file_count; i++) {
		const struct lora_manifest_file *file = &manifest->files[i];
		uint8_t number[8];

		lora__put32(number, (uint32_t)strlen(file->name));
		lora__hasher_update(hasher, number, 4);
		lora__hasher_update(hasher, file->name, strlen(file->name));
		lora__put64(number, file->size);
		lora__hasher_update(hasher, number, 8);
		lora__hasher_update(hasher, file->digest.byte, LORA_SHA256_SIZE);
	}
	lora__hasher_final(hasher, root);
	lora__hasher_free(hasher);
}

/* --- text ------------------------------------------------------------------------------------ */

static void put_digest(struct lora_json_writer *w, const char *key, bool there,
		       const struct lora_sha256 *digest)
{
	lora_json_key(w, key);
	if (there)
		lora_json_sha256(w, digest);
	else
		lora_json_null(w);
}

static void put_part(struct lora_json_writer *w, const struct lora_manifest_part *part)
{
	lora_json_begin_object(w);
	if (part->tensor) {
		lora_json_key(w, "dtype");
		lora_json_string(w, lora_dtype_name(part->dtype));
	}
	put_digest(w, "sha256", true, &part->digest);
	if (part->tensor) {
		lora_json_key(w, "shape");
		lora_json_begin_array(w);
		for (uint32_t i = 0; i < part->ndim; i++)
			lora_json_uint(w, part->shape[i]);
		lora_json_end_array(w);
	}
	lora_json_key(w, "size");
	lora_json_uint(w, part->size);
	if (part->tensor) {
		lora_json_key(w, "tensor");
		lora_json_string(w, part->tensor);
	}
	lora_json_end_object(w);
}

static void put_file(struct lora_json_writer *w, const struct lora_manifest *manifest,
		     const struct lora_manifest_file *file)
{
	lora_json_begin_object(w);
	lora_json_key(w, "name");
	lora_json_string(w, file->name);
	lora_json_key(w, "parts");
	lora_json_begin_array(w);
	for (size_t i = 0; i < file->count; i++)
		put_part(w, &manifest->parts[file->first + i]);
	lora_json_end_array(w);
	put_digest(w, "sha256", true, &file->digest);
	lora_json_key(w, "size");
	lora_json_uint(w, file->size);
	lora_json_end_object(w);
}

static void put_manifest(struct lora_json_writer *w, const struct lora_manifest *manifest)
{
	lora_json_begin_object(w);
	put_digest(w, "base_root", manifest->bound, &manifest->base_root);
	lora_json_key(w, "files");
	lora_json_begin_array(w);
	for (size_t i = 0; i < manifest->file_count; i++)
		put_file(w, manifest, &manifest->files[i]);
	lora_json_end_array(w);
	lora_json_key(w, "message");
	lora_json_string(w, manifest->message);
	lora_json_key(w, "metadata");
	lora_json_begin_object(w);
	for (size_t i = 0; i < manifest->metadata_count; i++) {
		lora_json_key(w, manifest->metadata[i].key);
		lora_json_string(w, manifest->metadata[i].value);
	}
	lora_json_end_object(w);
	lora_json_key(w, "name");
	lora_json_string(w, manifest->name);
	put_digest(w, "parent", manifest->has_parent, &manifest->parent);
	put_digest(w, "root", true, &manifest->root);
	lora_json_key(w, "schema");
	lora_json_string(w, LORA_MANIFEST_SCHEMA);
	lora_json_key(w, "version");
	lora_json_uint(w, manifest->version);
	lora_json_end_object(w);
}

enum lora_status lora__manifest_emit(struct lora_manifest *manifest, char **text, size_t *size,
				     struct lora_error *err)
{
	struct lora_json_writer *w = lora__json_writer_minimal();
	struct lora_manifest again = {0};
	const char *borrowed;
	enum lora_status status;

	*text = NULL;
	lora__manifest_root(manifest, &manifest->root);
	put_manifest(w, manifest);
	status = lora_json_writer_text(w, &borrowed, size, err);
	if (!status)
		status = lora__manifest_parse(&again, borrowed, *size, err);
	if (!status)
		*text = lora__json_writer_take(w);
	lora__manifest_fini(&again);
	lora_json_writer_free(w);
	return status;
}
