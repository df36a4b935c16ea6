/* SPDX-License-Identifier: Apache-2.0 */
/* checkpoint/checkpoint.h - a model on disk, inside the library: what loractl/model.h does not
 * show.
 *
 * 1. All shards are one index (tensors by file, then begin); names are unique over all shards.
 * 2. Shards are named by model.safetensors.index.json, in ascending order of name; a name with a
 * path component is refused; a shard that the index does not name is not read; a tensor that the
 *    weight_map puts elsewhere than it is, or that only one of the two knows, is refused.
 * 3. Where model.safetensors stands beside an index, the former is the model and the index is not
 *    read: so does transformers. `index_ignored` tells.
 * 4. Files are opened once, but for those of many shards, which rest. What is read later is checked
 *    against their identity then.
 */
#ifndef LORA_CHECKPOINT_CHECKPOINT_H
#define LORA_CHECKPOINT_CHECKPOINT_H

#include <loractl/model.h>
#include <time.h>

#include "base/file.h"
#include "base/json.h"
#include "formats/container.h"

#define LORA_CONFIG_FILE  "config.json"
#define LORA_WEIGHTS_FILE "model.safetensors"
#define LORA_INDEX_FILE	  "model.safetensors.index.json"

/* Limits, each with its reason. */
#define LORA_CONFIG_LIMIT ((uint64_t)16 << 20) /* config.json: the largest known has 100 KB */
#define LORA_INDEX_LIMIT  ((uint64_t)64 << 20) /* the index of 140,000 tensors has 14 MB */
#define LORA_OPEN_SHARDS  8u		       /* shards that are kept open; the others rest */

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
	struct timespec opened;	 /* just before the first file was, by the wall clock */
	struct lora_arena arena; /* what the index does not hold: the shards and their names */
	struct lora_index index; /* all shards; metadata and data_begin of a single one only */
	struct lora_shard *shards;
	size_t shard_count;
	char *config_text; /* config.json as read; NULL if none */
	size_t config_size;
	struct lora_json *config;
	char *index_text; /* model.safetensors.index.json as read; NULL if none */
	size_t index_size;
	struct lora_json *index_json;
	bool index_ignored; /* model.safetensors won over an index beside it */
	bool digests_known;
	bool digests_cached;		   /* ... and came out of the cache */
	struct lora_sha256 *tensor_sha256; /* by position in index.tensors */
	struct lora_sha256 root;
};

/* The receipt of a merged model stands in its directory, or beside its file under
 * FILE.receipt.json.
 */
#define LORA_UNDO_FORMAT    "loractl.undo/" /* and a version: metadata `format` of a record */
#define LORA_RECEIPT_FILE   "loractl-receipt.json"
#define LORA_RECEIPT_SUFFIX ".receipt.json"
#define LORA_RECEIPT_LIMIT  ((uint64_t)64 << 20) /* 300 bytes a tensor, of 200,000 tensors */

char *lora__receipt_path(const char *model, bool directory); /* malloc'd; NULL without memory */
/* The receipt, if it describes what stands at `model`: every weight file that it names, with its
 * size. Otherwise an error that says why not, and *receipt NULL. */
enum lora_status lora__receipt_load(struct lora_json **receipt, const char *model, bool directory,
				    struct lora_error *err);
/* The first of its weight files' entries (`name`, `size`, `sha256`). */
const struct lora_json *lora__receipt_files(const struct lora_json *receipt);

/* Is there something that opens as a checkpoint (directory with config.json and weights, or a
 * safetensors file, or a name in the hub cache)? Looks at names and first bytes. No error if not.
 */
bool lora__model_plausible(const char *path);

/* Bytes of a shard, wherever; for lora_model_read() and the digests. LORA_INPUT if the file is no
 * longer what was opened, also when the bytes could be read. Thread-safe. */
enum lora_status lora__shard_read(const struct lora_shard *shard, uint64_t offset, void *buffer,
				  size_t size, struct lora_error *err);
/* LORA_INPUT, naming the file, if any shard is no longer what was opened: for the end of an
 * operation. */
enum lora_status lora__model_unchanged(const struct lora_model *model, struct lora_error *err);

/* model.safetensors.index.json, parsed: which shard holds which tensor. */
struct lora_shard_entry {
	const char *tensor;
	uint32_t shard; /* position in names */
};

struct lora_shard_map {
	struct lora_arena arena;
	struct lora_json *json;
	const char **names; /* of the shards: plain, ascending, no two equal */
	size_t name_count;
	struct lora_shard_entry *entries; /* in the file's order; no two tensors equal */
	size_t entry_count;
};

/* A PURE function of the file's bytes. The caller finis *map, zeroed before, also after a failure.
 */
enum lora_status lora__shard_map_parse(struct lora_shard_map *map, const char *text, size_t size,
				       struct lora_error *err);
void lora__shard_map_fini(struct lora_shard_map *map);
/* The map and the shards agree on every tensor: invariant 2. */
enum lora_status lora__shard_map_check(const struct lora_shard_map *map,
				       const struct lora_index *index, struct lora_error *err);

/* `org/model` -> the directory of its current snapshot in the hub cache: the commit that refs/main
 * names, below HF_HUB_CACHE, HUGGINGFACE_HUB_CACHE, HF_HOME/hub, XDG_CACHE_HOME/huggingface/hub or
 * ~/.cache/huggingface/hub, the first that the environment names. *out is malloc'd, NULL on
 * failure; LORA_INPUT if there is none. */
enum lora_status lora__hub_resolve(char **out, const char *name, struct lora_error *err);
/* Could this be `org/model`? */
bool lora__hub_is_name(const char *name);

/* The root: SHA-256 of a Merkle tree.
 *
 *	leaf  SHA-256(0x00 "loractl tensor 1" NUL || u32 LE name length || name || dtype spelling
 *NUL || u32 LE ndim || u64 LE dims || 32-byte digest of the raw bytes), in bytewise ascending order
 *of name node  SHA-256(0x01 || left || right); an odd node moves up unchanged
 *
 * No tensor: SHA-256 of nothing. The first bytes differ so that no leaf can be passed off as a
 *node. */
struct lora_leaf {
	const char *name;
	enum lora_dtype dtype;
	uint32_t ndim;
	const uint64_t *shape;
	const struct lora_sha256 *digest;
};
/* Sorts leaves in place. LORA_USAGE if two have one name. */
enum lora_status lora__root_compute(struct lora_sha256 *root, struct lora_leaf *leaves,
				    size_t count, struct lora_error *err);
/* model->root from its tensors and tensor_sha256. */
enum lora_status lora__model_root(struct lora_model *model, struct lora_error *err);

/* Puts digests that the caller computed while writing (a merged model's) into the cache, keyed by
 * the files' identity when they were opened. Best effort: never fails. Files that changed since, or
 * that were written less than two seconds before they were opened, are not cached. */
void lora__digest_cache_store(const struct lora_model *model);
/* True if the cache knew: file and tensor digests are filled (tensor_sha256 is allocated before).
 */
bool lora__digest_cache_load(struct lora_model *model);

#endif
