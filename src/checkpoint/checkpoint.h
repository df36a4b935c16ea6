/* SPDX-License-Identifier: Apache-2.0 */
/* checkpoint/checkpoint.h - a model on disk, inside the library: what loractl/model.h does not show.
 *
 * 1. All shards are one index (tensors by file, then begin); names are unique over all shards.
 * 2. Shards are named by model.safetensors.index.json; a name with a path component is refused; a shard that the index does not name is not read; a tensor that the
 *    weight_map puts elsewhere than it is, or that only one of the two knows, is refused.
 */
#ifndef LORA_CHECKPOINT_CHECKPOINT_H
#define LORA_CHECKPOINT_CHECKPOINT_H

#include "base/file.h"
#include "base/json.h"
#include "formats/container.h"
#include <loractl/model.h>

struct lora_shard {
	const char *name; /* file name inside the directory */
	struct lora_file file;
	uint64_t data_begin; /* bytes of the head */
	uint8_t *head;	     /* those bytes, as read */
	struct lora_metadata *metadata;
	size_t metadata_count;
	struct lora_sha256 sha256; /* valid if the model's digests_known */
};

struct lora_model {
	char *path;
	bool directory;
	struct lora_index index; /* all shards */
	struct lora_shard *shards;
	size_t shard_count;
	char *config_text; /* config.json as read; NULL if none */
	size_t config_size;
	struct lora_json *config;
	char *index_text; /* model.safetensors.index.json as read; NULL if none */
	size_t index_size;
	struct lora_json *index_json;
	bool digests_known;
	struct lora_sha256 *tensor_sha256; /* by position in index.tensors */
	struct lora_sha256 root;
};

/* Is there something that opens as a checkpoint (directory with config.json and weights, or a safetensors file)? No error if not. */
bool lora__model_plausible(const char *path);

/* `org/model` -> the directory of its current snapshot in the hub cache (HF_HUB_CACHE, HF_HOME/hub, ~/.cache/huggingface/hub; refs/main). *out is malloc'd;
 * LORA_INPUT if there is none. */
enum lora_status lora__hub_resolve(char **out, const char *name, struct lora_error *err);

/* The root: SHA-256 of a Merkle tree whose leaves are, in bytewise ascending order of name, SHA-256(0x00 "loractl tensor 1" NUL || u32 LE name length || name || dtype spelling NUL || u32 LE ndim ||
 * u64 LE dims || 32-byte digest of the raw bytes), an inner node SHA-256(0x01 || left || right), an odd node moving up unchanged; no tensor: SHA-256 of nothing. */
struct lora_leaf {
	const char *name;
	enum lora_dtype dtype;
	uint32_t ndim;
	const uint64_t *shape;
	const struct lora_sha256 *digest;
};
/* Sorts leaves in place. */
enum lora_status lora__root_compute(struct lora_sha256 *root, struct lora_leaf *leaves, size_t count,
				    struct lora_error *err);

/* Puts digests that the caller computed while writing (a merged model's) into the cache, keyed by the files' identity now. Best effort: never fails. */
void lora__digest_cache_store(const struct lora_model *model);

#endif
