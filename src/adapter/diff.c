/* SPDX-License-Identifier: Apache-2.0 */
/* adapter/diff.c - the frame of a comparison, and two adapters in it.
 *
 * 1. `same` is a question about bytes: the two roots are equal, or they are not.
 * 2. Tensors are listed by name. A name that only one adapter has is listed unless the edit that
 *    uses it has a partner of its own kind in the other: then the two spell one module
 *    differently, and nothing is missing. */
#include "adapter/diff.h"

#include "base/digest.h"
#include "base/error.h"

#include <stdlib.h>
#include <string.h>

#define CHUNK ((size_t)1 << 18) /* bytes compared at a time */

enum lora_status lora__diff_new(struct lora_diff **out, const struct lora_diff_options *options,
				struct lora_error *err)
{
	*out = NULL;
	if (options->size != sizeof(*options))
		return lora__fail(err, LORA_USAGE, "lora_diff_options: size %zu, not %zu",
				  options->size, sizeof(*options));
	*out = calloc(1, sizeof(**out));
	if (!*out)
		return lora__fail_memory(err);
	(*out)->equivalent = true;
	return LORA_OK;
}

void lora_diff_free(struct lora_diff *diff)
{
	if (!diff)
		return;
	free(diff->config);
	free(diff->added.name);
	free(diff->removed.name);
	free(diff->changed.name);
	lora__arena_fini(&diff->arena);
	free(diff);
}

enum lora_status lora__diff_name(struct lora_diff *diff, struct lora_names *names, const char *name,
				 struct lora_error *err)
{
	const char *copy = lora__arena_copy(&diff->arena, name, strlen(name));

	if (!copy)
		return lora__fail_memory(err);
	if (names->count == names->room) {
		size_t room = names->room ? 2 * names->room : 16;
		const char **more = realloc(names->name, room * sizeof(*more));

		if (!more)
			return lora__fail_memory(err);
		names->name = more;
		names->room = room;
	}
	names->name[names->count++] = copy;
	return LORA_OK;
}

/* ---- tensors of two adapters */

enum lora_status lora__diff_same_bytes(const struct lora_adapter *x, const struct lora_tensor *a,
				       const struct lora_adapter *y, const struct lora_tensor *b,
				       bool *same, struct lora_error *err)
{
	uint8_t *left = malloc(CHUNK), *right = malloc(CHUNK);
	enum lora_status status = left && right ? LORA_OK : lora__fail_memory(err);

	*same = a->dtype == b->dtype && a->ndim == b->ndim &&
		memcmp(a->shape, b->shape, a->ndim * sizeof(a->shape[0])) == 0;
	for (uint64_t at = 0; at < a->size && *same && !status; at += CHUNK) {
		size_t n = a->size - at < CHUNK ? (size_t)(a->size - at) : CHUNK;

		status = lora__adapter_read(x, a, at, left, n, err);
		if (!status)
			status = lora__adapter_read(y, b, at, right, n, err);
		*same = *same && (status || memcmp(left, right, n) == 0);
	}
	free(left);
	free(right);
	return status;
}

static enum lora_status compare_tensor(struct lora_diff *diff, const struct lora_adapter *x,
				       const struct lora_tensor *a, const struct lora_adapter *y,
				       const struct lora_tensor *b, struct lora_error *err)
{
	bool same = false;
	enum lora_status status = lora__diff_same_bytes(x, a, y, b, &same, err);

	return status || same ? status : lora__diff_name(diff, &diff->changed, a->name, err);
}

/* Which edit of the adapter uses each of its tensors; malloc'd, SIZE_MAX for none. */
static size_t *users(const struct lora_adapter *adapter)
{
	size_t *user = malloc((adapter->index.count + 1) * sizeof(*user));

	for (size_t i = 0; user && i < adapter->index.count; i++)
		user[i] = SIZE_MAX;
	for (size_t e = 0; user && e < adapter->decode.edit_count; e++)
		for (size_t s = 0; s < adapter->decode.edits[e].source_count; s++)
			user[adapter->decode.edits[e].sources[s]] = e;
	return user;
}

/* Names that only `adapter` has [2]. */
static enum lora_status list_missing(struct lora_diff *diff, struct lora_names *names,
				     const struct lora_adapter *adapter,
				     const struct lora_adapter *other,
				     const struct lora_places *places, struct lora_error *err)
{
	size_t *user = users(adapter);
	enum lora_status status = user ? LORA_OK : lora__fail_memory(err);

	for (size_t i = 0; i < adapter->index.count && !status; i++) {
		const char *name = adapter->index.tensors[i].name;
		const struct lora_edit *edit =
		    user[i] == SIZE_MAX ? NULL : &adapter->decode.edits[user[i]];
		const struct lora_edit *partner =
		    edit ? lora__places_find(places, other, edit) : NULL;

		if (lora__index_find(&other->index, name, strlen(name)) ||
		    (partner && partner->kind == edit->kind))
			continue;
		diff->equivalent = false;
		status = lora__diff_name(diff, names, name, err);
	}
	free(user);
	return status;
}

static enum lora_status compare_tensors(struct lora_diff *diff, const struct lora_adapter *x,
					const struct lora_adapter *y,
					const struct lora_places *in_x,
					const struct lora_places *in_y, struct lora_error *err)
{
	enum lora_status status = list_missing(diff, &diff->removed, x, y, in_y, err);

	if (!status)
		status = list_missing(diff, &diff->added, y, x, in_x, err);
	for (size_t i = 0; i < x->index.count && !status; i++) {
		const struct lora_tensor *a = &x->index.tensors[i],
					 *b = lora__index_find(&y->index, a->name, strlen(a->name));

		if (b)
			status = compare_tensor(diff, x, a, y, b, err);
	}
	return status;
}

/* ---- the front door */

static enum lora_status diff_adapters(struct lora_diff *diff, struct lora_adapter *x,
				      struct lora_adapter *y, unsigned threads,
				      const struct lora_observer *observer, struct lora_error *err)
{
	struct lora_places in_x = {0}, in_y = {0};
	struct lora_sha256 root_x, root_y;
	enum lora_status status = lora_adapter_root(x, &root_x, err);

	if (!status)
		status = lora_adapter_root(y, &root_y, err);
	if (!status)
		status = lora__diff_json(diff, x->config, y->config, err);
	if (!status)
		status = lora__places_init(&in_x, x, err);
	if (!status)
		status = lora__places_init(&in_y, y, err);
	if (!status)
		status = compare_tensors(diff, x, y, &in_x, &in_y, err);
	if (!status)
		status = lora__diff_modules(diff, x, y, &in_y, threads, observer, err);
	if (!status)
		status = lora__adapter_unchanged(x, err);
	if (!status)
		status = lora__adapter_unchanged(y, err);
	if (!status)
		diff->same = lora__sha256_equal(&root_x, &root_y);
	lora__places_fini(&in_x);
	lora__places_fini(&in_y);
	return status;
}

enum lora_status lora_diff_adapters(struct lora_diff **out, struct lora_adapter *x,
				    struct lora_adapter *y, const struct lora_diff_options *options,
				    const struct lora_observer *observer, struct lora_error *err)
{
	enum lora_status status = lora__diff_new(out, options, err);

	if (!status)
		status = diff_adapters(*out, x, y, options->threads, observer, err);
	if (status) {
		lora_diff_free(*out);
		*out = NULL;
	}
	return status;
}

bool lora_diff_same(const struct lora_diff *diff)
{
	return diff->same;
}

bool lora_diff_equivalent(const struct lora_diff *diff)
{
	return diff->equivalent;
}

const struct lora_config_difference *lora_diff_config(const struct lora_diff *diff, size_t *count)
{
	*count = diff->config_count;
	return diff->config;
}

const char *const *lora_diff_added(const struct lora_diff *diff, size_t *count)
{
	*count = diff->added.count;
	return diff->added.name;
}

const char *const *lora_diff_removed(const struct lora_diff *diff, size_t *count)
{
	*count = diff->removed.count;
	return diff->removed.name;
}

const char *const *lora_diff_changed(const struct lora_diff *diff, size_t *count)
{
	*count = diff->changed.count;
	return diff->changed.name;
}

const struct lora_module_difference *lora_diff_modules(const struct lora_diff *diff, size_t *count)
{
	*count = diff->module_count;
	return diff->modules;
}

const struct lora_tensor_difference *lora_diff_tensors(const struct lora_diff *diff, size_t *count)
{
	*count = diff->tensor_count;
	return diff->tensors;
}

const struct lora_explanation *lora_diff_explanation(const struct lora_diff *diff)
{
	return diff->has_explanation ? &diff->explanation : NULL;
}
