/* SPDX-License-Identifier: Apache-2.0 */
/* net/stages.c - the stages of the forward pass that see one token at a time: embedding, norms,
 * positions, activation. Shapes and buffers: net/net.h.
 */
#include <math.h>
#include <string.h>

#include "net/net.h"

/* Elements of a batch below which one worker is faster than all. */
#define ALONE 16384u

struct rows {
	lora_rows_fn *work;
	void *user;
	size_t tokens;
};

static void work_share(void *user, unsigned worker, unsigned count)
{
	const struct rows *rows = user;
	size_t begin, end;

	lora__team_share(rows->tokens, 1, worker, count, &begin, &end);
	if (begin < end)
		rows->work(rows->user, begin, end, worker);
}

void lora__net_rows(struct lora_net *net, size_t tokens, size_t cost, lora_rows_fn *work,
		    void *user)
{
	struct rows rows = {work, user, tokens};

	if (tokens * cost < ALONE)
		work(user, 0, tokens, 0);
	else
		lora__team_run(net->team, work_share, &rows);
}

/* What every stage here is given. */
struct stage {
	struct lora_net_state *state;
	const struct lora_batch *batch;
	size_t layer;
	const float *g, *b;
};

/* --- embedding ------------------------------------------------------------------------------- */

/* x = gain * (W[id] + sum of s * L[id] R) */
static void look_up(const struct lora_net *net, uint32_t id, float *x)
{
	const struct lora_embedding *embed = &net->embed;
	const struct lora_patch *patch = embed->patch;
	const struct lora_matrix *W = patch && patch->W.data ? &patch->W : &embed->W;

	lora__net_widen(net, x, lora__matrix_at(W, id, 0), W->dtype, W->cols);
	if (!patch)
		return;
	for (size_t i = 0; i < patch->low_count; i++) {
		const struct lora_lowrank *low = &patch->low[i];

		if (id < low->row0 || id - low->row0 >= low->rows)
			continue;
		for (size_t k = 0; k < low->rank; k++)
			net->vec->add(x, low->s * low->B[(id - low->row0) * low->rank + k],
				      patch->A + (low->h0 + k) * W->cols, W->cols);
	}
	for (size_t j = 0; patch->gain && j < W->cols; j++)
		x[j] *= patch->gain[embed->gain_by_row ? id : j];
}

static size_t position_of(const struct lora_batch *batch, size_t row)
{
	const struct lora_segment *segment = batch->segments;

	while (row >= segment->row + segment->count)
		segment++;
	return segment->past + row - segment->row;
}

static void embed_rows(void *user, size_t begin, size_t end, unsigned worker)
{
	const struct stage *stage = user;
	struct lora_activations *a = &stage->state->a;
	const struct lora_net *net = stage->state->net;
	size_t d = net->spec.width, half = net->spec.head_dim / 2;

	(void)worker;
	for (size_t t = begin; t < end; t++) {
		size_t position = position_of(stage->batch, t);

		look_up(net, stage->batch->ids[t], a->x + t * d);
		if (net->position)
			net->vec->add(a->x + t * d, 1, net->position + position * d, d);
		for (size_t i = 0; net->spec.inverse && i < half; i++) {
			float angle = (float)position * net->spec.inverse[i];

			a->cos[t * half + i] = cosf(angle);
			a->sin[t * half + i] = sinf(angle);
		}
	}
}

void lora__stage_embed(struct lora_net_state *state, const struct lora_batch *batch)
{
	struct stage stage = {.state = state, .batch = batch};

	lora__net_rows(state->net, batch->tokens, 4 * state->net->spec.width, embed_rows, &stage);
}

/* --- norms ----------------------------------------------------------------------------------- */

static void norm_rows(void *user, size_t begin, size_t end, unsigned worker)
{
	const struct stage *stage = user;
	struct lora_activations *a = &stage->state->a;
	const struct lora_net *net = stage->state->net;
	size_t d = net->spec.width;

	(void)worker;
	for (size_t t = begin; t < end; t++)
		if (net->spec.family->norm == LORA_NORM_RMS)
			net->vec->rms_norm(a->n + t * d, a->x + t * d, stage->g, net->spec.eps, d);
		else
			net->vec->layer_norm(a->n + t * d, a->x + t * d, stage->g, stage->b,
					     net->spec.eps, d);
}

void lora__stage_norm(struct lora_net_state *state, size_t tokens, const float *g, const float *b)
{
	struct stage stage = {.state = state, .g = g, .b = b};

	lora__net_rows(state->net, tokens, state->net->spec.width, norm_rows, &stage);
}

/* --- positions: q, k and v from a.qkv to where attention reads them -------------------------- */

/* A head from a.qkv: its norm, if it has one, and its turn, if positions turn. */
static void turn(const struct stage *stage, float *out, const float *x, const float *g, size_t t)
{
	const struct lora_net *net = stage->state->net;
	size_t c = net->spec.head_dim;

	if (g) {
		net->vec->rms_norm(out, x, g, net->spec.eps, c);
		x = out;
	}
	if (net->spec.inverse)
		net->vec->rotate(out, x, stage->state->a.cos + t * (c / 2),
				 stage->state->a.sin + t * (c / 2), c / 2);
	else if (out != x)
		memcpy(out, x, c * sizeof(float));
}

static void turn_token(const struct stage *stage, size_t t, size_t cache)
{
	struct lora_net_state *state = stage->state;
	const struct lora_spec *s = &state->net->spec;
	const struct lora_layer *layer = &state->net->layers[stage->layer];
	size_t c = s->head_dim, H = s->heads, G = s->kv_heads, group = H / G;
	const float *row = state->a.qkv + t * (H + 2 * G) * c;

	for (size_t h = 0; h < H; h++)
		turn(stage,
		     state->a.q + ((h / group * stage->batch->tokens + t) * group + h % group) * c,
		     row + h * c, layer->q_norm, t);
	for (size_t g = 0; g < G; g++) {
		size_t at = ((stage->layer * G + g) * state->capacity + cache) * c;

		turn(stage, state->keys + at, row + (H + g) * c, layer->k_norm, t);
		memcpy(state->values + at, row + (H + G + g) * c, c * sizeof(float));
	}
}

static void turn_rows(void *user, size_t begin, size_t end, unsigned worker)
{
	const struct stage *stage = user;

	(void)worker;
	for (size_t i = 0; i < stage->batch->segment_count; i++) {
		const struct lora_segment *segment = &stage->batch->segments[i];

		for (size_t k = 0; k < segment->count; k++)
			if (segment->row + k >= begin && segment->row + k < end)
				turn_token(stage, segment->row + k,
					   segment->cache + segment->past + k);
	}
}

void lora__stage_turn(struct lora_net_state *state, const struct lora_batch *batch, size_t layer)
{
	struct stage stage = {.state = state, .batch = batch, .layer = layer};
	const struct lora_spec *s = &state->net->spec;

	lora__net_rows(state->net, batch->tokens, (s->heads + 2 * s->kv_heads) * s->head_dim,
		       turn_rows, &stage);
}

/* --- activation ------------------------------------------------------------------------------ */

static void activate_rows(void *user, size_t begin, size_t end, unsigned worker)
{
	const struct stage *stage = user;
	struct lora_activations *a = &stage->state->a;
	const struct lora_net *net = stage->state->net;
	size_t f = net->spec.hidden;

	(void)worker;
	for (size_t t = begin; t < end; t++)
		if (net->spec.family->gated)
			net->vec->silu_mul(a->act + t * f, a->up + 2 * t * f,
					   a->up + (2 * t + 1) * f, f);
		else
			net->vec->gelu(a->act + t * f, a->up + t * f, f);
}

void lora__stage_activate(struct lora_net_state *state, size_t tokens)
{
	struct stage stage = {.state = state};

	lora__net_rows(state->net, tokens, 4 * state->net->spec.hidden, activate_rows, &stage);
}
