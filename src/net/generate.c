/* SPDX-License-Identifier: Apache-2.0 */
/* net/generate.c - continuing a text, token after token */
#include <stdlib.h>

#include "base/error.h"
#include "net/net.h"

static bool is_stop(const struct lora_net_generation *g, uint32_t id)
{
	for (size_t i = 0; i < g->stop_count; i++)
		if (g->stops[i] == id)
			return true;
	return false;
}

static enum lora_status check(const struct lora_net_generation *g, struct lora_error *err)
{
	const struct lora_net_sampling *s = &g->sampling;

	if (!(s->temperature >= 0 && s->temperature <= 1e6))
		return lora__fail(err, LORA_USAGE, "the temperature is not from 0 to 1000000");
	if (!(s->top_p > 0 && s->top_p <= 1))
		return lora__fail(err, LORA_USAGE, "top_p is not above 0 and at most 1");
	if (g->prompt_count == 0)
		return lora__fail(err, LORA_INPUT,
				  "the prompt has no tokens: there is nothing to continue");
	return LORA_OK;
}

static enum lora_status go_on(struct lora_net_state *state, const struct lora_net_generation *g,
			      float *logits, struct lora_candidate *room, struct lora_error *err)
{
	size_t vocabulary = lora_net_vocabulary(state->net);
	uint64_t random = g->sampling.seed;
	enum lora_status status =
	    lora_net_forward(state, g->prompt, g->prompt_count, LORA_NET_LAST, logits, err);

	for (size_t made = 0; made < g->limit && !status; made++) {
		uint32_t id = lora__net_choose(logits, vocabulary, &g->sampling, room, &random);

		if (is_stop(g, id) || (g->token && g->token(g->user, id)))
			break;
		if (made + 1 == g->limit || state->length == state->capacity)
			break;
		status = lora_net_forward(state, &id, 1, LORA_NET_LAST, logits, err);
	}
	return status;
}

enum lora_status lora_net_generate(struct lora_net_state *state,
				   const struct lora_net_generation *generation,
				   struct lora_error *err)
{
	size_t vocabulary = lora_net_vocabulary(state->net);
	float *logits = calloc(vocabulary, sizeof(*logits));
	struct lora_candidate *room = calloc(vocabulary, sizeof(*room));
	enum lora_status status = check(generation, err);

	if (!status && (!logits || !room))
		status = lora__fail_memory(err);
	if (!status)
		status = go_on(state, generation, logits, room, err);
	free(logits);
	free(room);
	return status;
}
