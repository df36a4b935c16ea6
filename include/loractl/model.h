/* SPDX-License-Identifier: Apache-2.0 */
/* loractl/model.h - a checkpoint on disk: one safetensors file, or a directory of them.
 *
 * A model is opened once, read-only. Its headers are in memory, its tensors are read on demand;
 * what was read is what was checked: a file that changes while it is open makes every later read
 * fail.
 */
#ifndef LORACTL_MODEL_H
#define LORACTL_MODEL_H

#include <loractl/progress.h>

#ifdef __cplusplus
extern "C" {
#endif

struct lora_model;

/* Opens BASE: a directory (config.json with model.safetensors, or shards with
 * model.safetensors.index.json), a name `org/model` in the local hub cache, or a .safetensors file.
 * LORA_INPUT if it does not exist or is malformed, LORA_SYSTEM if it cannot be read. *out is NULL
 * on failure; the caller closes it. */
LORA_API enum lora_status lora_model_open(struct lora_model **out, const char *path,
					  struct lora_error *err);
LORA_API void lora_model_close(struct lora_model *model);

/* The path that was opened (a hub name resolved). Borrowed, as everything below. */
LORA_API const char *lora_model_path(const struct lora_model *model);
LORA_API bool lora_model_is_directory(const struct lora_model *model);
/* config.json's model_type and architectures[0]; NULL if there is none. */
LORA_API const char *lora_model_type(const struct lora_model *model);
LORA_API const char *lora_model_architecture(const struct lora_model *model);

LORA_API size_t lora_model_file_count(const struct lora_model *model);
LORA_API const char *lora_model_file_name(const struct lora_model *model, size_t file);
LORA_API uint64_t lora_model_file_size(const struct lora_model *model, size_t file);

/* Tensors, file after file, in the order in which their bytes stand. */
LORA_API size_t lora_model_tensor_count(const struct lora_model *model);
LORA_API const struct lora_tensor *lora_model_tensor(const struct lora_model *model, size_t i);
/* By name; NULL if absent. */
LORA_API const struct lora_tensor *lora_model_find(const struct lora_model *model,
						   const char *name);

/* size bytes of a tensor from byte `offset` of it into buffer. LORA_INPUT if the file has changed
 * or is shorter than its header says; LORA_USAGE if the range leaves the tensor. Safe on several
 * threads. */
LORA_API enum lora_status lora_model_read(const struct lora_model *model,
					  const struct lora_tensor *tensor, uint64_t offset,
					  void *buffer, size_t size, struct lora_error *err);

/* Digests. `root` is the Merkle root over name, dtype, shape and SHA-256 of every tensor,
 * independent of sharding. Computed with `threads` workers (0: every core this process may use), or
 * taken from the cache under $XDG_CACHE_HOME/loractl when every file's device, inode, size, mtime
 * and ctime are those of the cached entry. */
enum lora_digest_policy {
	LORA_DIGEST_CACHED, /* use and fill the cache */
	LORA_DIGEST_FRESH,  /* neither read nor write it */
};

LORA_API enum lora_status lora_model_digest(struct lora_model *model,
					    enum lora_digest_policy policy, unsigned threads,
					    const struct lora_observer *observer,
					    struct lora_error *err);
/* NULL before a successful lora_model_digest. */
LORA_API const struct lora_sha256 *lora_model_root(const struct lora_model *model);
LORA_API const struct lora_sha256 *lora_model_file_digest(const struct lora_model *model,
							  size_t file);
LORA_API const struct lora_sha256 *lora_model_tensor_digest(const struct lora_model *model,
							    size_t i);

#ifdef __cplusplus
}
#endif

#endif
