/* SPDX-License-Identifier: Apache-2.0 */
/* net/loss.c - what texts cost: many of them side by side, no padding, no logits kept.
 *
 *	-ln p(next) = ln(sum of exp(logits)) - logits[next]
 *
 * Batches are filled to the brim, text after text; one that does not fit goes on in the next batch,
 * with its keys and values still in the state. A text's place there is its own, so that texts never
 * see each other. The head, a fifth of a small model's work, is computed for counted tokens alone,
 * LORA_NET_CHUNK rows at a time: all logits of a batch would be larger than the model's
 *activations.
 */
#include <stdlib.h>

#include "base/error.h"
#include "net/net.h"

/* A token of the batch whose prediction is counted. */
struct counted {
	size_t row, text;
	uint32_t next;
	double loss;
};

struct costs {
	struct lora_net_state *state;
	const struct lora_net_text *texts;
	double *loss;
	uint32_t ids[LORA_NET_BATCH];
	struct lora_segment segments[LORA_NET_BATCH];
	struct counted counted[LORA_NET_BATCH];
	size_t tokens, segment_count, counted_count;
	size_t cache;	       /* tokens of the state that are taken */
	struct counted *chunk; /* at work */
};

static void cost_rows(void *user, size_t begin, size_t end, unsigned worker)
{
	const struct costs *costs = user;
	const struct lora_net *net = costs->state->net;
	size_t vocabulary = lora_net_vocabulary(net);
	struct counted *counted = costs->chunk;

	(void)worker;
	for (size_t i = begin; i < end; i++) {
		const float *logits = costs->state->chunk + i * vocabulary;

		counted[i].loss =
		    net->vec->log_sum_exp(logits, vocabulary) - (double)logits[counted[i].next];
	}
}

static enum lora_status make_chunk(struct lora_net_state *state, struct lora_error *err)
{
	size_t vocabulary = lora_net_vocabulary(state->net);

	if (state->chunk && state->chunk_vocabulary >= vocabulary)
		return LORA_OK;
	free(state->chunk);
	state->chunk = calloc(vocabulary, LORA_NET_CHUNK * sizeof(float));
	state->chunk_vocabulary = vocabulary;
	return state->chunk ? LORA_OK : lora__fail_memory(err);
}

/* The losses of the batch that has just been run. */
static enum lora_status count(struct costs *costs, struct lora_error *err)
{
	size_t vocabulary = lora_net_vocabulary(costs->state->net), rows[LORA_NET_CHUNK];

	for (size_t at = 0; at < costs->counted_count; at += LORA_NET_CHUNK) {
		size_t n = costs->counted_count - at;

		n = n < LORA_NET_CHUNK ? n : LORA_NET_CHUNK;
		costs->chunk = costs->counted + at;
		for (size_t i = 0; i < n; i++)
			rows[i] = costs->counted[at + i].row;
		lora__net_head(costs->state, rows, n, costs->state->chunk);
		lora__net_rows(costs->state->net, n, vocabulary, cost_rows, costs);
	}
	for (size_t i = 0; i < costs->counted_count; i++) {
		const struct counted *c = &costs->counted[i];

		if (!(c->loss - c->loss == 0))
			return lora__fail(err, LORA_INPUT,
					  "the loss of text %zu is not finite: these weights "
					  "overflow when they are run in f32",
					  c->text + 1);
		costs->loss[c->text] += c->loss;
	}
	return LORA_OK;
}

static enum lora_status run_batch(struct costs *costs, struct lora_error *err)
{
	struct lora_batch batch = {costs->ids, costs->tokens, costs->segments,
				   costs->segment_count};
	enum lora_status status = LORA_OK;

	if (costs->tokens > 0)
		status = lora__net_run(costs->state, &batch, err);
	if (!status)
		status = count(costs, err);
	costs->tokens = costs->segment_count = costs->counted_count = 0;
	return status;
}

/* Tokens past .. past + n of text t, which stands at `cache` in the state. */
static void add_stretch(struct costs *costs, size_t t, size_t past, size_t n, size_t cache)
{
	const struct lora_net_text *text = &costs->texts[t];

	costs->segments[costs->segment_count++] =
	    (struct lora_segment){costs->tokens, n, cache, past};
	for (size_t i = 0; i < n; i++) {
		size_t next = past + i + 1;

		costs->ids[costs->tokens] = text->ids[past + i];
		if (!text->mask || text->mask[next])
			costs->counted[costs->counted_count++] =
			    (struct counted){costs->tokens, t, text->ids[next], 0};
		costs->tokens++;
	}
}

/* The last token predicts nothing that is known, so that it is not run. */
static enum lora_status add_text(struct costs *costs, size_t t, struct lora_error *err)
{
	const struct lora_net_text *text = &costs->texts[t];
	struct lora_net_state *state = costs->state;
	size_t tokens = text->count > 0 ? text->count - 1 : 0, vocabulary, room, cache;
	enum lora_status status = LORA_OK;

	if (tokens > state->capacity || tokens > state->net->spec.positions)
		return lora__fail(err, LORA_INPUT, "text %zu has %zu tokens, there is room for %zu",
				  t + 1, text->count,
				  (state->capacity < state->net->spec.positions
				       ? state->capacity
				       : state->net->spec.positions) +
				      1);
	vocabulary = lora_net_vocabulary(state->net);
	for (size_t i = 1; i < text->count; i++)
		if (text->ids[i] >= vocabulary)
			return lora__fail(err, LORA_INPUT,
					  "text %zu: token %u is beyond the model's vocabulary of "
					  "%zu: is the tokenizer another model's?",
					  t + 1, text->ids[i], vocabulary);
	if (tokens > state->capacity - costs->cache) {
		status = run_batch(costs, err);
		costs->cache = 0;
	}
	cache = costs->cache;
	costs->cache += tokens;
	for (size_t past = 0; past < tokens && !status; past += room) {
		room = LORA_NET_BATCH - costs->tokens;
		room = room < tokens - past ? room : tokens - past;
		add_stretch(costs, t, past, room, cache);
		if (costs->tokens == LORA_NET_BATCH)
			status = run_batch(costs, err);
	}
	return status;
}

enum lora_status lora_net_loss(struct lora_net_state *state, const struct lora_net_text *texts,
			       size_t count_of_texts, double *loss, struct lora_error *err)
{
	struct costs *costs = calloc(1, sizeof(*costs));
	enum lora_status status;

	if (!costs)
		return lora__fail_memory(err);
	costs->state = state;
	costs->texts = texts;
	costs->loss = loss;
	state->length = 0;
	status = make_chunk(state, err);
	for (size_t t = 0; t < count_of_texts && !status; t++) {
		loss[t] = 0;
		status = add_text(costs, t, err);
	}
	if (!status)
		status = run_batch(costs, err);
	free(costs);
	return status;
}
