/* SPDX-License-Identifier: Apache-2.0 */
/* net/state.c - the memory of a text: keys, values, and the buffers of a batch, in one allocation.
 *
 * The layout is walked twice: for its size, then for its addresses.
 */
#include "net/net.h"

#include <inttypes.h>
#include <stdlib.h>

#include "base/checked.h"
#include "base/error.h"

/* Elements of a worker's scratch: 1 MiB, about a second cache. */
#define SCRATCH 262144u

struct carver {
	float *memory;
	uint64_t used; /* elements */
	bool overflow;
};

static float *carve(struct carver *c, uint64_t count, uint64_t size)
{
	float *at = c->memory ? c->memory + c->used : NULL;
	uint64_t total;

	c->overflow = c->overflow || lora__mul_overflows(count, size, &total) ||
		      lora__add_overflows(c->used, (total + 15) / 16 * 16, &c->used);
	return at;
}

static void lay_out(struct lora_net_state *state, struct carver *c)
{
	const struct lora_spec *s = &state->net->spec;
	struct lora_activations *a = &state->a;
	uint64_t T = state->capacity < LORA_NET_BATCH ? state->capacity : LORA_NET_BATCH,
		 d = s->width, q = s->heads * s->head_dim, kv = s->kv_heads * s->head_dim,
		 slots = state->capacity * kv;

	state->keys = carve(c, s->layers, slots);
	state->values = carve(c, s->layers, slots);
	a->x = carve(c, T, d);
	a->n = carve(c, T, d);
	a->whole = carve(c, T, d);
	a->qkv = carve(c, T, q + 2 * kv);
	a->q = carve(c, T, q);
	a->mixed = carve(c, T, q);
	a->up = carve(c, T, (s->family->gated ? 2 : 1) * (uint64_t)s->hidden);
	a->act = carve(c, T, s->hidden);
	a->cos = carve(c, T, (s->head_dim + 1) / 2);
	a->sin = carve(c, T, (s->head_dim + 1) / 2);
	state->scratch = carve(c, lora__team_count(state->net->team), state->scratch_size);
}

/* Enough for one token's scores of a group, and for one row of every matrix. */
static size_t scratch_size(const struct lora_net_state *state)
{
	const struct lora_spec *s = &state->net->spec;
	size_t need = s->heads / s->kv_heads * (state->capacity + s->head_dim);

	need = need > s->width ? need : s->width;
	need = need > s->hidden ? need : s->hidden;
	need = need > s->heads * s->head_dim ? need : s->heads * s->head_dim;
	return ((need > SCRATCH ? need : SCRATCH) + 15) / 16 * 16;
}

static enum lora_status allocate(struct lora_net_state *state, struct lora_error *err)
{
	struct carver c = {0};
	void *memory = NULL;

	state->scratch_size = scratch_size(state);
	lay_out(state, &c);
	if (c.overflow || c.used > SIZE_MAX / 8 || !lora__net_fits(c.used * sizeof(float)) ||
	    posix_memalign(&memory, 64, (size_t)c.used * sizeof(float)))
		return lora__fail(err, LORA_SYSTEM,
				  "out of memory: keys and values of %zu tokens, and a batch's "
				  "buffers, take %" PRIu64 " bytes",
				  state->capacity, c.used * sizeof(float));
	state->memory = memory;
	c = (struct carver){.memory = memory};
	lay_out(state, &c);
	return LORA_OK;
}

enum lora_status lora__net_state_make(struct lora_net_state **out, struct lora_net *net,
				      size_t capacity, struct lora_error *err)
{
	struct lora_net_state *state = calloc(1, sizeof(*state));
	enum lora_status status;

	*out = NULL;
	if (!state)
		return lora__fail_memory(err);
	state->net = net;
	state->capacity = capacity;
	status = allocate(state, err);
	if (status) {
		lora_net_state_free(state);
		return status;
	}
	*out = state;
	return LORA_OK;
}

enum lora_status lora_net_state_new(struct lora_net_state **out, struct lora_net *net,
				    size_t capacity, struct lora_error *err)
{
	*out = NULL;
	if (capacity == 0 || capacity > net->spec.positions)
		return lora__fail(err, LORA_USAGE,
				  "%zu tokens: this model has positions for 1 to %zu", capacity,
				  net->spec.positions);
	return lora__net_state_make(out, net, capacity, err);
}

void lora_net_state_free(struct lora_net_state *state)
{
	if (!state)
		return;
	free(state->memory);
	free(state->low_memory);
	free(state->chunk);
	free(state);
}

size_t lora_net_state_length(const struct lora_net_state *state)
{
	return state->length;
}

void lora_net_state_cut(struct lora_net_state *state, size_t length)
{
	if (length < state->length)
		state->length = length;
}
