/* SPDX-License-Identifier: Apache-2.0 */
/* adapter/diff_models.c - two checkpoints, tensor by tensor.
 *
 *	1. which		pieces of tensors of one name, type and shape are compared as bytes,
 *on all threads; the first piece that differs ends its tensor
 *	2. by how much		pieces of those that differ are compared as numbers
 *	3. in how many ways	the rank of each difference (diff_rank.c)
 *
 * Memory: two pieces for every thread, 40 bytes for every piece of a tensor that differs, and
 * what the rank takes. What a piece gives depends on its number alone, and pieces are summed in
 * order: the numbers are the same for every number of threads. */
#include "adapter/diff.h"

#include "base/error.h"
#include "base/pool.h"
#include "base/watch.h"

#include <math.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#define PIECE ((uint64_t)1 << 20) /* bytes; a multiple of every element's size */

/* Two tensors of one name. */
struct pair {
	const struct lora_tensor *x, *y;
	atomic_bool differs;
};

/* Elements [first, first + count) of a pair. */
struct piece {
	struct pair *pair;
	uint64_t first, count;
	struct lora_values values;
};

struct comparison {
	struct lora_diff *diff;
	const struct lora_model *x, *y;
	unsigned threads;
	const struct lora_observer *observer;
	struct pair *pairs;
	size_t pair_count;
	struct piece *pieces;
	size_t piece_count;
	struct lora_watch watch;
};

static bool same_shape(const struct pair *pair)
{
	return pair->x->ndim == pair->y->ndim &&
	       memcmp(pair->x->shape, pair->y->shape, pair->x->ndim * sizeof(pair->x->shape[0])) ==
		   0;
}

/* Can it be told which elements differ? Without a shape in common it cannot. */
static bool countable(const struct pair *pair)
{
	bool known = lora__values_known(pair->x->dtype) && lora__values_known(pair->y->dtype);

	return same_shape(pair) &&
	       (known || (pair->x->dtype == pair->y->dtype && pair->x->size == pair->y->size &&
			  lora_dtype_bits(pair->x->dtype) % 8 == 0));
}

/* Tensors in X's order; those without a partner are listed. */
static enum lora_status find_pairs(struct comparison *c, struct lora_error *err)
{
	size_t count = lora_model_tensor_count(c->x);
	enum lora_status status = LORA_OK;

	c->pairs = calloc(count + 1, sizeof(*c->pairs));
	if (!c->pairs)
		return lora__fail_memory(err);
	for (size_t i = 0; i < count && !status; i++) {
		const struct lora_tensor *x = lora_model_tensor(c->x, i),
					 *y = lora_model_find(c->y, x->name);
		struct pair *pair = &c->pairs[c->pair_count];

		if (!y) {
			status = lora__diff_name(c->diff, &c->diff->removed, x->name, err);
			continue;
		}
		c->pair_count++;
		pair->x = x;
		pair->y = y;
		atomic_init(&pair->differs, x->dtype != y->dtype || !same_shape(pair));
	}
	for (size_t i = 0; i < lora_model_tensor_count(c->y) && !status; i++) {
		const struct lora_tensor *y = lora_model_tensor(c->y, i);

		if (!lora_model_find(c->x, y->name))
			status = lora__diff_name(c->diff, &c->diff->added, y->name, err);
	}
	return status;
}

/* Pieces of all pairs of which that is asked: those that differ, or might. */
static enum lora_status cut(struct comparison *c, bool differing, struct lora_error *err)
{
	size_t count = 0;

	free(c->pieces);
	c->pieces = NULL;
	for (int pass = 0; pass < 2; pass++) {
		count = 0;
		for (size_t i = 0; i < c->pair_count; i++) {
			struct pair *pair = &c->pairs[i];
			unsigned bits = lora_dtype_bits(pair->x->dtype);
			uint64_t total = differing ? pair->x->elements : pair->x->size,
				 step = differing ? PIECE * 8 / (bits ? bits : 8) : PIECE;

			if (atomic_load(&pair->differs) != differing ||
			    (differing && !countable(pair)))
				continue;
			for (uint64_t at = 0; at < total; at += step, count++)
				if (c->pieces)
					c->pieces[count] = (struct piece){
					    pair, at, total - at < step ? total - at : step, {0}};
		}
		if (!c->pieces)
			c->pieces = calloc(count + 1, sizeof(*c->pieces));
		if (!c->pieces)
			return lora__fail_memory(err);
	}
	c->piece_count = count;
	return LORA_OK;
}

static enum lora_status read_both(const struct comparison *c, const struct piece *piece,
				  uint8_t **x, uint8_t **y, bool elements, struct lora_error *err)
{
	const struct lora_tensor *a = piece->pair->x, *b = piece->pair->y;
	uint64_t wx = elements ? lora_dtype_bits(a->dtype) / 8 : 1,
		 wy = elements ? lora_dtype_bits(b->dtype) / 8 : 1;
	enum lora_status status;

	*x = malloc((size_t)(piece->count * wx) + 1);
	*y = malloc((size_t)(piece->count * wy) + 1);
	if (!*x || !*y)
		return lora__fail_memory(err);
	status = lora_model_read(c->x, a, piece->first * wx, *x, (size_t)(piece->count * wx), err);
	return status ? status
		      : lora_model_read(c->y, b, piece->first * wy, *y, (size_t)(piece->count * wy),
					err);
}

/* Step 1: a piece of bytes. */
static enum lora_status compare_bytes(void *user, size_t item, unsigned worker,
				      struct lora_error *err)
{
	struct comparison *c = user;
	struct piece *piece = &c->pieces[item];
	enum lora_status status = LORA_OK;
	uint8_t *x = NULL, *y = NULL;

	(void)worker;
	if (!atomic_load(&piece->pair->differs)) {
		status = read_both(c, piece, &x, &y, false, err);
		if (!status && memcmp(x, y, (size_t)piece->count) != 0)
			atomic_store(&piece->pair->differs, true);
	}
	free(x);
	free(y);
	return status ? status : lora__watch_add(&c->watch, piece->count, err);
}

static uint64_t count_changed(const uint8_t *x, const uint8_t *y, uint64_t count, size_t width)
{
	uint64_t changed = 0;

	for (uint64_t i = 0; i < count; i++)
		changed += memcmp(x + i * width, y + i * width, width) != 0;
	return changed;
}

/* Step 2: a piece of elements. */
static enum lora_status compare_elements(void *user, size_t item, unsigned worker,
					 struct lora_error *err)
{
	struct comparison *c = user;
	struct piece *piece = &c->pieces[item];
	enum lora_dtype a = piece->pair->x->dtype, b = piece->pair->y->dtype;
	uint8_t *x = NULL, *y = NULL;
	enum lora_status status = read_both(c, piece, &x, &y, true, err);

	(void)worker;
	if (!status && lora__values_known(a))
		lora__values_compare(x, a, y, b, (size_t)piece->count, &piece->values);
	else if (!status)
		piece->values.changed = count_changed(x, y, piece->count, lora_dtype_bits(a) / 8);
	free(x);
	free(y);
	return status ? status
		      : lora__watch_add(&c->watch, piece->count * (lora_dtype_bits(a) / 8), err);
}

/* Step 3: a tensor. */
static enum lora_status find_rank(void *user, size_t item, unsigned worker, struct lora_error *err)
{
	struct comparison *c = user;
	struct lora_tensor_difference *t = &c->diff->tensors[item];
	const struct lora_tensor *x = lora_model_find(c->x, t->name),
				 *y = lora_model_find(c->y, t->name);
	enum lora_status status = LORA_OK;

	(void)worker;
	if (isfinite(t->threshold))
		status = lora__diff_rank(c->x, x, c->y, y, t, err);
	return status ? status : lora__watch_add(&c->watch, x->size, err);
}

static enum lora_status describe(struct comparison *c, struct lora_error *err)
{
	struct lora_diff *diff = c->diff;
	size_t at = 0;

	diff->tensors = lora__arena_array(&diff->arena, c->pair_count + 1, sizeof(*diff->tensors));
	if (!diff->tensors)
		return lora__fail_memory(err);
	for (size_t i = 0; i < c->pair_count; i++) {
		struct pair *pair = &c->pairs[i];
		struct lora_tensor_difference *t = &diff->tensors[diff->tensor_count];
		bool known = lora__values_known(pair->x->dtype) && countable(pair);
		struct lora_values sum = {0};

		if (!atomic_load(&pair->differs))
			continue;
		for (; at < c->piece_count && c->pieces[at].pair == pair; at++) {
			const struct lora_values *v = &c->pieces[at].values;

			sum.changed += v->changed;
			sum.max_ulp = v->max_ulp > sum.max_ulp ? v->max_ulp : sum.max_ulp;
			sum.difference2 += v->difference2;
			sum.x2 += v->x2;
		}
		diff->tensor_count++;
		t->name = lora__arena_copy(&diff->arena, pair->x->name, strlen(pair->x->name));
		if (!t->name)
			return lora__fail_memory(err);
		t->dtype_x = pair->x->dtype;
		t->dtype_y = pair->y->dtype;
		t->reshaped = !same_shape(pair);
		t->elements = pair->x->elements;
		t->changed = countable(pair) ? sum.changed : t->elements;
		t->has_ulp = known && t->dtype_x == t->dtype_y;
		t->max_ulp = sum.max_ulp;
		t->relative_norm = known && isfinite(sum.difference2) && isfinite(sum.x2)
				       ? sqrt(sum.difference2) / sqrt(sum.x2)
				       : NAN;
		/* For step 3: is there a rank to be found? */
		t->threshold = known && isfinite(sum.difference2) ? 0 : NAN;
		diff->equivalent = diff->equivalent && t->dtype_x == t->dtype_y && t->changed == 0;
	}
	return LORA_OK;
}

static uint64_t bytes_of(const struct comparison *c)
{
	uint64_t total = 0;

	for (size_t i = 0; i < c->piece_count; i++)
		total += c->pieces[i].count;
	return total;
}

static enum lora_status stage(struct comparison *c, const char *name, uint64_t total, size_t count,
			      lora_work_fn *work, struct lora_error *err)
{
	enum lora_status status;

	lora__watch_init(&c->watch, c->observer, name, total);
	status = lora__parallel(c->threads, count, work, c, err);
	lora__watch_fini(&c->watch);
	return status;
}

static enum lora_status compare(struct comparison *c, struct lora_error *err)
{
	struct lora_diff *diff = c->diff;
	uint64_t bytes = 0;
	enum lora_status status = lora__diff_json(diff, c->x->config, c->y->config, err);

	if (!status)
		status = find_pairs(c, err);
	if (!status)
		status = cut(c, false, err);
	if (!status)
		status = stage(c, "compare", bytes_of(c), c->piece_count, compare_bytes, err);
	if (!status)
		status = cut(c, true, err);
	for (size_t i = 0; i < c->pair_count; i++)
		bytes += atomic_load(&c->pairs[i].differs) ? c->pairs[i].x->size : 0;
	if (!status)
		status = stage(c, "measure", bytes, c->piece_count, compare_elements, err);
	if (!status)
		status = describe(c, err);
	if (!status)
		status = stage(c, "rank", bytes, diff->tensor_count, find_rank, err);
	if (!status)
		status = lora__model_unchanged(c->x, err);
	if (!status)
		status = lora__model_unchanged(c->y, err);
	if (diff->added.count || diff->removed.count)
		diff->equivalent = false;
	diff->same = !diff->tensor_count && !diff->config_count && !diff->added.count &&
		     !diff->removed.count;
	return status;
}

enum lora_status lora_diff_models(struct lora_diff **out, const struct lora_model *x,
				  const struct lora_model *y,
				  const struct lora_diff_options *options,
				  const struct lora_observer *observer, struct lora_error *err)
{
	struct comparison c = {.x = x, .y = y, .threads = options->threads, .observer = observer};
	enum lora_status status = lora__diff_new(out, options, err);

	c.diff = *out;
	if (!status) {
		(*out)->x = x;
		(*out)->y = y;
		status = compare(&c, err);
	}
	free(c.pairs);
	free(c.pieces);
	if (status) {
		lora_diff_free(*out);
		*out = NULL;
	}
	return status;
}
