/* SPDX-License-Identifier: Apache-2.0 */
/* net/attention.c - softmax(scale * q k^T) v, a block of queries at a time (Vaswani et al. 2017).
 *
 * An item is a block of a segment's tokens and one head of keys: the H/G heads of queries that
 * share it stand together in a.q, so that their scores are one product of matrices. Scores are made
 * for all keys that some query of the block sees, then each row's softmax runs over its own keys,
 * the rest becoming zeros, and the mean of values is a second product.
 *
 * 1. A block is as large as lets its scores fit in the worker's scratch, and at most BLOCK tokens:
 *    the scores above the diagonal, computed for nothing, are at most half a block's.
 * 2. Items are handed out as workers come; each writes its own rows and columns of a.mixed.
 */
#include <stdatomic.h>
#include <string.h>

#include "kern/gemm.h"
#include "net/net.h"

#define BLOCK 64
/* Rows of scores for which two calls of gemv are faster than the BLAS. */
#define FEW 4

struct attention {
	struct lora_net_state *state;
	const struct lora_batch *batch;
	size_t layer;
	atomic_size_t next;
};

/* Tokens first .. first + count of a segment, and a head of keys. */
struct block {
	const struct lora_segment *segment;
	size_t first, count, head;
	size_t key0, keys; /* what its queries see together */
};

/* Tokens of a block whose last key is number `keys`. */
static size_t block_tokens(const struct lora_net_state *state, size_t keys)
{
	const struct lora_spec *s = &state->net->spec;
	size_t group = s->heads / s->kv_heads,
	       most = state->scratch_size / (group * (keys + s->head_dim));

	return most < 1 ? 1 : most < BLOCK ? most : BLOCK;
}

/* The first key that the query at position p sees. */
static size_t first_key(const struct lora_layer *layer, size_t p)
{
	return layer->window && p + 1 > layer->window ? p + 1 - layer->window : 0;
}

static void score(const struct attention *at, const struct block *b, const float *q, float *scores)
{
	const struct lora_net_state *state = at->state;
	const struct lora_spec *s = &state->net->spec;
	size_t c = s->head_dim, rows = b->count * (s->heads / s->kv_heads);
	const float *k = state->keys + ((at->layer * s->kv_heads + b->head) * state->capacity +
					b->segment->cache + b->key0) *
					   c;

	for (size_t i = 0; rows <= FEW && i < rows; i++)
		state->net->vec->gemv_f32(scores + i * b->keys, k, c, q + i * c, b->keys, c);
	if (rows > FEW)
		lora__gemm_nt(&(struct lora_gemm){.m = rows,
						  .n = b->keys,
						  .k = c,
						  .alpha = 1,
						  .A = q,
						  .lda = c,
						  .B = k,
						  .ldb = c,
						  .C = scores,
						  .ldc = b->keys});
}

static void normalise(const struct attention *at, const struct block *b, float *scores)
{
	const struct lora_net *net = at->state->net;
	const struct lora_layer *layer = &net->layers[at->layer];
	size_t group = net->spec.heads / net->spec.kv_heads;

	for (size_t i = 0; i < b->count * group; i++) {
		size_t p = b->segment->past + b->first + i / group,
		       begin = first_key(layer, p) - b->key0, end = p + 1 - b->key0;
		float *row = scores + i * b->keys;

		memset(row, 0, begin * sizeof(float));
		net->vec->softmax(row + begin, layer->scale, end - begin);
		memset(row + end, 0, (b->keys - end) * sizeof(float));
	}
}

static void mix(const struct attention *at, const struct block *b, const float *scores, float *out)
{
	const struct lora_net_state *state = at->state;
	const struct lora_spec *s = &state->net->spec;
	size_t c = s->head_dim, rows = b->count * (s->heads / s->kv_heads);
	const float *v = state->values + ((at->layer * s->kv_heads + b->head) * state->capacity +
					  b->segment->cache + b->key0) *
					     c;

	for (size_t i = 0; rows <= FEW && i < rows; i++)
		state->net->vec->mix(out + i * c, v, c, scores + i * b->keys, b->keys, c);
	if (rows > FEW)
		lora__gemm_nn(&(struct lora_gemm){.m = rows,
						  .n = c,
						  .k = b->keys,
						  .alpha = 1,
						  .A = scores,
						  .lda = b->keys,
						  .B = v,
						  .ldb = c,
						  .C = out,
						  .ldc = c});
}

static void attend_block(const struct attention *at, const struct block *b, float *scratch)
{
	struct lora_net_state *state = at->state;
	const struct lora_spec *s = &state->net->spec;
	size_t c = s->head_dim, group = s->heads / s->kv_heads, row = b->segment->row + b->first;
	float *out = scratch + b->count * group * b->keys;
	const float *q = state->a.q + (b->head * at->batch->tokens + row) * group * c;

	score(at, b, q, scratch);
	normalise(at, b, scratch);
	mix(at, b, scratch, out);
	for (size_t t = 0; t < b->count; t++) /* the group's heads stand together there, too */
		memcpy(state->a.mixed + ((row + t) * s->heads + b->head * group) * c,
		       out + t * group * c, group * c * sizeof(float));
}

/* The item-th block; false behind the last. */
static bool find_block(const struct attention *at, size_t item, struct block *b)
{
	const struct lora_spec *s = &at->state->net->spec;
	const struct lora_layer *layer = &at->state->net->layers[at->layer];

	b->head = item % s->kv_heads;
	item /= s->kv_heads;
	for (size_t i = 0; i < at->batch->segment_count; i++) {
		const struct lora_segment *segment = &at->batch->segments[i];
		size_t tokens = block_tokens(at->state, segment->past + segment->count),
		       blocks = (segment->count + tokens - 1) / tokens;

		if (item >= blocks) {
			item -= blocks;
			continue;
		}
		/* the last, and longest, first */
		b->segment = segment;
		b->first = (blocks - 1 - item) * tokens;
		b->count = segment->count - b->first < tokens ? segment->count - b->first : tokens;
		b->key0 = first_key(layer, segment->past + b->first);
		b->keys = segment->past + b->first + b->count - b->key0;
		return true;
	}
	return false;
}

static void attend(void *user, unsigned worker, unsigned count)
{
	struct attention *at = user;
	float *scratch = at->state->scratch + worker * at->state->scratch_size;
	struct block b;

	(void)count;
	while (find_block(at, atomic_fetch_add(&at->next, 1), &b))
		attend_block(at, &b, scratch);
}

void lora__stage_attend(struct lora_net_state *state, const struct lora_batch *batch, size_t layer)
{
	struct attention at = {.state = state, .batch = batch, .layer = layer};
	const struct lora_segment *last = &batch->segments[batch->segment_count - 1];

	/* one token with a short past is done sooner than the others are called */
	if (batch->tokens == 1 && last->past * state->net->spec.heads < 4096)
		attend(&at, 0, 1);
	else
		lora__team_run(state->net->team, attend, &at);
}
