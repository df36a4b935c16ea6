/* SPDX-License-Identifier: Apache-2.0 */
/* checkpoint/read.c - looking into an open model
 *
 * What it is     the accessors of loractl/model.h, and the one way to a tensor's bytes.
 * Invariants     (1) A read never leaves its tensor. (2) After every read the file is still the one
 * that was opened (device, inode, size, times), or the read fails: what was checked is what is
 * used. Tested by      tests/unit/test_model.c
 */
#include <string.h>

#include "base/error.h"
#include "checkpoint/checkpoint.h"

const char *lora_model_path(const struct lora_model *model)
{
	return model->path;
}

bool lora_model_is_directory(const struct lora_model *model)
{
	return model->directory;
}

const char *lora_model_type(const struct lora_model *model)
{
	return lora__json_string(lora__json_get(model->config, "model_type"));
}

const char *lora_model_architecture(const struct lora_model *model)
{
	const struct lora_json *list = lora__json_get(model->config, "architectures");

	if (!list || lora__json_type(list) != LORA_JSON_ARRAY)
		return NULL;
	return lora__json_string(lora__json_first(list));
}

size_t lora_model_file_count(const struct lora_model *model)
{
	return model->shard_count;
}

const char *lora_model_file_name(const struct lora_model *model, size_t file)
{
	return model->shards[file].name;
}

uint64_t lora_model_file_size(const struct lora_model *model, size_t file)
{
	return model->shards[file].file.size;
}

size_t lora_model_tensor_count(const struct lora_model *model)
{
	return model->index.count;
}

const struct lora_tensor *lora_model_tensor(const struct lora_model *model, size_t i)
{
	return &model->index.tensors[i];
}

const struct lora_tensor *lora_model_find(const struct lora_model *model, const char *name)
{
	return lora__index_find(&model->index, name, strlen(name));
}

const struct lora_sha256 *lora_model_root(const struct lora_model *model)
{
	return model->digests_known ? &model->root : NULL;
}

const struct lora_sha256 *lora_model_file_digest(const struct lora_model *model, size_t file)
{
	return model->digests_known ? &model->shards[file].sha256 : NULL;
}

const struct lora_sha256 *lora_model_tensor_digest(const struct lora_model *model, size_t i)
{
	return model->digests_known ? &model->tensor_sha256[i] : NULL;
}

enum lora_status lora__shard_read(const struct lora_shard *shard, uint64_t offset, void *buffer,
				  size_t size, struct lora_error *err)
{
	enum lora_status status = lora__file_read(&shard->file, offset, buffer, size, err);
	enum lora_status changed = LORA_OK;

	/* A file that ends early has shrunk since its header was checked: that is what is said. */
	if (status == LORA_OK || status == LORA_INPUT)
		changed = lora__file_unchanged(&shard->file, err);
	return changed != LORA_OK ? changed : status;
}

enum lora_status lora_model_read(const struct lora_model *model, const struct lora_tensor *tensor,
				 uint64_t offset, void *buffer, size_t size, struct lora_error *err)
{
	enum lora_status status = LORA_OK;

	if (tensor->file >= model->shard_count)
		return lora__fail(err, LORA_USAGE, "tensor '%s' is not of this model",
				  lora__escape(tensor->name));
	if (offset > tensor->size || size > tensor->size - offset) /* [1] */
		return lora__fail(err, LORA_USAGE,
				  "tensor '%s' has %llu bytes, not %zu from byte %llu",
				  lora__escape(tensor->name), (unsigned long long)tensor->size,
				  size, (unsigned long long)offset);
	status = lora__shard_read(&model->shards[tensor->file], tensor->begin + offset, buffer,
				  size, err);
	return lora__context(err, status, "tensor '%s'", lora__escape(tensor->name));
}

enum lora_status lora__model_unchanged(const struct lora_model *model, struct lora_error *err)
{
	enum lora_status status = LORA_OK;

	for (size_t i = 0; i < model->shard_count && status == LORA_OK; i++)
		status = lora__file_unchanged(&model->shards[i].file, err);
	return status;
}
