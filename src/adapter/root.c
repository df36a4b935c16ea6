/* SPDX-License-Identifier: Apache-2.0 */
/* adapter/root.c - what makes an adapter this adapter: one digest over its tensors and its
 * config.
 *
 *	root = SHA-256("loractl adapter 1" NUL || T || C)
 *
 * T is the Merkle root of the tensors, as a model's (checkpoint/checkpoint.h): independent of
 * their order and of shards. C is the SHA-256 of the config as canonical JSON (keys sorted, no
 * white space, numbers as written), or 32 zero bytes without a config. The same text stands in
 * include/loractl/adapter.h. */
#include "adapter/adapter.h"

#include "base/digest.h"
#include "base/error.h"

#include <stdlib.h>
#include <string.h>

#define CHUNK ((size_t)1 << 20)

static enum lora_status hash_tensor(const struct lora_adapter *adapter,
				    const struct lora_tensor *tensor, struct lora_hasher *hasher,
				    uint8_t *buffer, struct lora_sha256 *digest,
				    struct lora_error *err)
{
	lora__hasher_reset(hasher);
	for (uint64_t done = 0; done < tensor->size;) {
		size_t n = tensor->size - done < CHUNK ? (size_t)(tensor->size - done) : CHUNK;
		enum lora_status status = lora__adapter_read(adapter, tensor, done, buffer, n, err);

		if (status)
			return status;
		lora__hasher_update(hasher, buffer, n);
		done += n;
	}
	lora__hasher_final(hasher, digest);
	return LORA_OK;
}

static enum lora_status tensor_root(const struct lora_adapter *adapter, struct lora_sha256 *root,
				    struct lora_error *err)
{
	size_t count = adapter->index.count;
	struct lora_leaf *leaves = calloc(count + 1, sizeof(*leaves));
	struct lora_sha256 *digests = calloc(count + 1, sizeof(*digests));
	struct lora_hasher *hasher = lora__hasher_new();
	uint8_t *buffer = malloc(CHUNK);
	enum lora_status status =
	    leaves && digests && hasher && buffer ? LORA_OK : lora__fail_memory(err);

	for (size_t i = 0; i < count && !status; i++) {
		const struct lora_tensor *tensor = &adapter->index.tensors[i];

		status = hash_tensor(adapter, tensor, hasher, buffer, &digests[i], err);
		leaves[i] = (struct lora_leaf){tensor->name, tensor->dtype, tensor->ndim,
					       tensor->shape, &digests[i]};
	}
	if (!status)
		status = lora__adapter_unchanged(adapter, err);
	if (!status)
		status = lora__root_compute(root, leaves, count, err);
	lora__hasher_free(hasher);
	free(buffer);
	free(digests);
	free(leaves);
	return status;
}

enum lora_status lora_adapter_root(struct lora_adapter *adapter, struct lora_sha256 *root,
				   struct lora_error *err)
{
	static const char domain[] = "loractl adapter 1";
	uint8_t parts[sizeof(domain) + 2 * LORA_SHA256_SIZE] = {0};
	struct lora_sha256 tensors, config = {{0}};
	enum lora_status status;
	char *text = NULL;
	size_t size;

	if (adapter->root_known) {
		*root = adapter->root;
		return LORA_OK;
	}
	status = tensor_root(adapter, &tensors, err);
	if (!status && adapter->config) {
		status = lora__json_canonical(adapter->config, &text, &size, err);
		if (!status)
			lora__sha256(text, size, &config);
	}
	free(text);
	if (status)
		return lora__context(err, status, "adapter '%s'", lora__escape(adapter->path));
	memcpy(parts, domain, sizeof(domain));
	memcpy(parts + sizeof(domain), tensors.byte, LORA_SHA256_SIZE);
	memcpy(parts + sizeof(domain) + LORA_SHA256_SIZE, config.byte, LORA_SHA256_SIZE);
	lora__sha256(parts, sizeof(parts), &adapter->root);
	adapter->root_known = true;
	*root = adapter->root;
	return LORA_OK;
}
