/* SPDX-License-Identifier: Apache-2.0 */
/* net/forward.c - the forward pass: the stages, in their order, for a batch; and what is asked of
 * it.
 *
 * The list in net/spec.h is lora__net_run() and lora__net_layer(), line for line.
 */
#include "net/net.h"

#include <math.h>
#include <stdlib.h>

#include "base/error.h"

static void project(struct lora_net_state *state, const struct lora_linear *linear, const float *x,
		    size_t tokens, float *y, bool accumulate)
{
	struct lora_product_run run = {.state = state,
				       .linear = linear,
				       .x = x,
				       .ldx = linear->W.cols,
				       .tokens = tokens,
				       .y = y,
				       .ldy = linear->W.rows,
				       .accumulate = accumulate};

	lora__net_linear(&run);
}

void lora__net_trace(struct lora_net_trace *trace, const uint64_t *sizes, size_t count)
{
	for (size_t i = 0; i < count; i++)
		trace->hash = (trace->hash ^ sizes[i]) * 0x100000001B3u + (trace->hash >> 41);
	trace->operations++;
}

/* Attention over the batch's segments. */
static void note_attention(struct lora_net *net, const struct lora_batch *batch, size_t layer)
{
	for (size_t i = 0; i < batch->segment_count; i++) {
		uint64_t sizes[] = {batch->segments[i].count, batch->segments[i].past,
				    net->spec.heads,	      net->spec.kv_heads,
				    net->spec.head_dim,	      net->layers[layer].window};

		lora__net_trace(net->trace, sizes, sizeof(sizes) / sizeof(*sizes));
	}
}

void lora__net_layer(struct lora_net_state *state, const struct lora_batch *batch, size_t i)
{
	const struct lora_layer *layer = &state->net->layers[i];
	struct lora_activations *a = &state->a;
	size_t T = batch->tokens;

	if (state->net->trace)
		note_attention(state->net, batch, i);
	lora__stage_norm(state, T, layer->norm1, layer->norm1_bias);
	project(state, &layer->qkv, a->n, T, a->qkv, false);
	lora__stage_turn(state, batch, i);
	lora__stage_attend(state, batch, i);
	project(state, &layer->out, a->mixed, T, a->x, true);
	lora__stage_norm(state, T, layer->norm2, layer->norm2_bias);
	project(state, &layer->up, a->n, T, a->up, false);
	lora__stage_activate(state, T);
	project(state, &layer->down, a->act, T, a->x, true);
}

static enum lora_status check_ids(const struct lora_net *net, const struct lora_batch *batch,
				  struct lora_error *err)
{
	const struct lora_patch *patch = net->embed.patch;
	size_t rows = patch && patch->W.data ? patch->W.rows : net->embed.W.rows;

	for (size_t t = 0; t < batch->tokens; t++)
		if (batch->ids[t] >= rows)
			return lora__fail(
			    err, LORA_INPUT,
			    "token %u is beyond the model's vocabulary of %zu: is the "
			    "tokenizer another model's?",
			    batch->ids[t], rows);
	return LORA_OK;
}

/* The most rows of A that hang on one matrix. */
static size_t most_rank(const struct lora_net *net)
{
	const struct lora_patch *head = net->head.patch;
	size_t most = head ? head->rank : 0;

	for (size_t i = 0; i < net->spec.layers; i++) {
		const struct lora_layer *l = &net->layers[i];
		const struct lora_patch *const of[] = {l->qkv.patch, l->out.patch, l->up.patch,
						       l->down.patch};

		for (size_t k = 0; k < sizeof(of) / sizeof(*of); k++)
			if (of[k] && of[k]->rank > most)
				most = of[k]->rank;
	}
	return most;
}

/* a.low for the adapters that are attached now. */
static enum lora_status make_low(struct lora_net_state *state, struct lora_error *err)
{
	size_t rank = state->net->patches ? most_rank(state->net) : 0;

	if (rank <= state->low_rank)
		return LORA_OK;
	free(state->low_memory);
	state->low_rank = 0;
	state->low_memory = rank < SIZE_MAX / (LORA_NET_BATCH * sizeof(float))
				? malloc(LORA_NET_BATCH * rank * sizeof(float))
				: NULL;
	state->a.low = state->low_memory;
	if (!state->low_memory)
		return lora__fail_memory(err);
	state->low_rank = rank;
	return LORA_OK;
}

enum lora_status lora__net_run(struct lora_net_state *state, const struct lora_batch *batch,
			       struct lora_error *err)
{
	enum lora_status status = check_ids(state->net, batch, err);

	if (!status)
		status = make_low(state, err);
	if (status)
		return status;
	lora__stage_embed(state, batch);
	for (size_t i = 0; i < state->net->spec.layers; i++)
		lora__net_layer(state, batch, i);
	return LORA_OK;
}

/* Rows move to the front of a.n (they ascend), the norm goes over them there. */
void lora__net_head(struct lora_net_state *state, const size_t *rows, size_t count, float *logits)
{
	const struct lora_net *net = state->net;
	struct lora_activations *a = &state->a;
	size_t d = net->spec.width;
	struct lora_product_run run = {.state = state,
				       .linear = &net->head,
				       .x = a->n,
				       .ldx = d,
				       .tokens = count,
				       .y = logits,
				       .ldy = lora_net_vocabulary(net)};

	for (size_t i = 0; i < count; i++) {
		const float *x = a->x + rows[i] * d;

		if (net->spec.family->norm == LORA_NORM_RMS)
			net->vec->rms_norm(a->n + i * d, x, net->norm, net->spec.eps, d);
		else
			net->vec->layer_norm(a->n + i * d, x, net->norm, net->norm_bias,
					     net->spec.eps, d);
	}
	lora__net_linear(&run);
}

static enum lora_status check_finite(const float *logits, size_t n, struct lora_error *err)
{
	float odd = 0;

	for (size_t i = 0; i < n; i++)
		odd += logits[i] - logits[i];
	if (odd == 0)
		return LORA_OK;
	return lora__fail(err, LORA_INPUT,
			  "a logit is not finite: these weights overflow when they are run in f32");
}

/* One batch of a text, appended at the state's length. */
static enum lora_status append(struct lora_net_state *state, const uint32_t *ids, size_t count,
			       enum lora_net_wanted wanted, float *logits, struct lora_error *err)
{
	struct lora_segment segment = {0, count, 0, state->length};
	struct lora_batch batch = {ids, count, &segment, 1};
	size_t rows[LORA_NET_BATCH], first = wanted == LORA_NET_LAST ? count - 1 : 0,
				     made = count - first;
	enum lora_status status = lora__net_run(state, &batch, err);

	if (!status && wanted != LORA_NET_NONE) {
		for (size_t i = 0; i < made; i++)
			rows[i] = first + i;
		lora__net_head(state, rows, made, logits);
		status = check_finite(logits, made * lora_net_vocabulary(state->net), err);
	}
	if (!status)
		state->length += count;
	return status;
}

enum lora_status lora_net_forward(struct lora_net_state *state, const uint32_t *ids, size_t count,
				  enum lora_net_wanted wanted, float *logits,
				  struct lora_error *err)
{
	size_t length = state->length, vocabulary = lora_net_vocabulary(state->net);
	size_t room = state->capacity < state->net->spec.positions ? state->capacity
								   : state->net->spec.positions;
	enum lora_status status = LORA_OK;

	if (count == 0)
		return lora__fail(err, LORA_USAGE, "no tokens: there is nothing to run");
	if (count > room - length)
		return lora__fail(err, LORA_INPUT,
				  "%zu tokens and %zu more are too long: there is room for %zu",
				  length, count, room);
	for (size_t at = 0; at < count && !status;) {
		size_t n = count - at < LORA_NET_BATCH ? count - at : LORA_NET_BATCH;
		bool last = at + n == count;

		status = append(state, ids + at, n,
				wanted == LORA_NET_LAST && !last ? LORA_NET_NONE : wanted,
				wanted == LORA_NET_ALL ? logits + at * vocabulary : logits, err);
		at += n;
	}
	if (status)
		state->length = length;
	return status;
}
