/* SPDX-License-Identifier: Apache-2.0 */
/* checkpoint/root.c - one digest for all tensors of a model
 *
 * What it is     the Merkle root that checkpoint.h defines: what an adapter is bound to, and what a
 * receipt names its inputs and its output by. Invariants     (1) It depends on the tensors' names,
 * types, shapes and bytes, and on nothing else: not on shards, their order, headers, metadata or
 * alignment. (2) No two different sets of tensors hash the same input: every part of a leaf has a
 * length in front or a NUL behind it that cannot occur inside, and leaves and nodes begin with
 * different bytes. Decisions      A tree, though a list would do for equality: that one tensor
 * belongs to a root can be shown with log2(n) digests. An odd node moves up unchanged instead of
 * being paired with itself, which would give two sets of leaves one root. Tested by
 * tests/unit/test_root.c, against a computation in Python
 */
#include <stdlib.h>
#include <string.h>

#include "base/digest.h"
#include "base/error.h"
#include "checkpoint/checkpoint.h"

static int by_name(const void *left, const void *right)
{
	const struct lora_leaf *a = left, *b = right;

	return strcmp(a->name, b->name); /* compares bytes as unsigned */
}

/* The `size` low bytes of value, least significant first. */
static void update_number(struct lora_hasher *hasher, uint64_t value, size_t size)
{
	uint8_t bytes[8];

	for (size_t i = 0; i < size; i++)
		bytes[i] = (uint8_t)(value >> (8 * i));
	lora__hasher_update(hasher, bytes, size);
}

static void hash_leaf(struct lora_hasher *hasher, const struct lora_leaf *leaf,
		      struct lora_sha256 *digest)
{
	static const char tag[] = "\0loractl tensor 1"; /* its NUL included */
	const char *dtype = lora_dtype_name(leaf->dtype);

	lora__hasher_reset(hasher);
	lora__hasher_update(hasher, tag, sizeof(tag));
	update_number(hasher, strlen(leaf->name), 4);
	lora__hasher_update(hasher, leaf->name, strlen(leaf->name));
	lora__hasher_update(hasher, dtype, strlen(dtype) + 1);
	update_number(hasher, leaf->ndim, 4);
	for (uint32_t i = 0; i < leaf->ndim; i++)
		update_number(hasher, leaf->shape[i], 8);
	lora__hasher_update(hasher, leaf->digest->byte, LORA_SHA256_SIZE);
	lora__hasher_final(hasher, digest);
}

static void hash_node(struct lora_hasher *hasher, const struct lora_sha256 pair[2],
		      struct lora_sha256 *digest)
{
	static const uint8_t tag = 1;

	lora__hasher_reset(hasher);
	lora__hasher_update(hasher, &tag, 1);
	lora__hasher_update(hasher, pair[0].byte, LORA_SHA256_SIZE);
	lora__hasher_update(hasher, pair[1].byte, LORA_SHA256_SIZE);
	lora__hasher_final(hasher, digest);
}

/* One level of the tree becomes the next, in place; the number of its nodes. */
static size_t climb(struct lora_hasher *hasher, struct lora_sha256 *nodes, size_t count)
{
	for (size_t i = 0; i < count / 2; i++)
		hash_node(hasher, &nodes[2 * i], &nodes[i]);
	if (count % 2 == 1)
		nodes[count / 2] = nodes[count - 1];
	return count / 2 + count % 2;
}

static enum lora_status check_leaves(const struct lora_leaf *leaves, size_t count,
				     struct lora_error *err)
{
	for (size_t i = 0; i < count; i++) {
		if (!lora_dtype_name(leaves[i].dtype) || leaves[i].ndim > LORA_MAX_DIMS)
			return lora__fail(err, LORA_USAGE, "tensor '%s' has no type or shape",
					  lora__escape(leaves[i].name));
		if (i > 0 && strcmp(leaves[i - 1].name, leaves[i].name) == 0)
			return lora__fail(err, LORA_USAGE, "two tensors are named '%s'",
					  lora__escape(leaves[i].name));
	}
	return LORA_OK;
}

enum lora_status lora__root_compute(struct lora_sha256 *root, struct lora_leaf *leaves,
				    size_t count, struct lora_error *err)
{
	enum lora_status status = LORA_OK;
	struct lora_hasher *hasher = NULL;
	struct lora_sha256 *nodes = NULL;

	if (count == 0) {
		lora__sha256("", 0, root);
		return LORA_OK;
	}
	qsort(leaves, count, sizeof(*leaves), by_name);
	status = check_leaves(leaves, count, err);
	if (status != LORA_OK)
		return status;
	hasher = lora__hasher_new();
	nodes = calloc(count, sizeof(*nodes));
	if (!hasher || !nodes) {
		status = lora__fail_memory(err);
		goto out;
	}
	for (size_t i = 0; i < count; i++)
		hash_leaf(hasher, &leaves[i], &nodes[i]);
	while (count > 1)
		count = climb(hasher, nodes, count);
	*root = nodes[0];
out:
	free(nodes);
	lora__hasher_free(hasher);
	return status;
}

enum lora_status lora__model_root(struct lora_model *model, struct lora_error *err)
{
	enum lora_status status = LORA_OK;
	struct lora_leaf *leaves = calloc(model->index.count + 1, sizeof(*leaves));

	if (!leaves)
		return lora__fail_memory(err);
	for (size_t i = 0; i < model->index.count; i++) {
		const struct lora_tensor *tensor = &model->index.tensors[i];

		leaves[i] = (struct lora_leaf){
		    .name = tensor->name,
		    .dtype = tensor->dtype,
		    .ndim = tensor->ndim,
		    .shape = tensor->shape,
		    .digest = &model->tensor_sha256[i],
		};
	}
	status = lora__root_compute(&model->root, leaves, model->index.count, err);
	free(leaves);
	return status;
}
