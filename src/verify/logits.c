/* SPDX-License-Identifier: Apache-2.0 */
/* verify/logits.c - the forward pass of three models on the same tokens: base, base with the
 * adapters beside it (unmerged), merged.
 *
 *	base's weights + adapters	continue every prompt, greedily; logits of all tokens
 *	base's weights			logits of the same tokens
 *	merged weights			logits of the same tokens, compared one text at a time
 *
 * 1. One model's weights are in memory at a time.
 * 2. Logits that are compared come from one call for a whole text each: the last digits depend on
 *    how tokens are batched. So what continues a text is looked at in the unmerged model's logits
 *    of the whole text, not in those by which it was chosen.
 * 3. Against what is a loss in f32 small? Against what the adapters do: a merge passes if
 *    KL(unmerged || merged) is at most max_kl of KL(base || unmerged), or below FLOOR, which the
 *    arithmetic of f32 makes of nothing.
 */
#include "verify/proof.h"

#include "base/error.h"
#include "base/watch.h"
#include "verify/measures.h"
#include "verify/prompts.h"
#include <loractl/net.h>

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define FLOOR	   1e-8
#define PAIRS	   1500
#define LOGITS_MAX ((uint64_t)4 << 30) /* bytes of two models' */

struct comparison {
	struct lora_proof *proof;
	struct lora_prompts prompts;
	size_t vocabulary;	/* that all three have */
	size_t tokens, longest; /* of all texts; of the longest */
	float *base, *unmerged; /* [tokens, vocabulary] */
	float *text;		/* [longest, a model's own vocabulary] */
	float (*pairs)[2];
	size_t pair_count;
	struct lora_measures merged, adapter, reference, reference_adapter;
	double surprise[3]; /* of base, unmerged, merged on the prompts */
	size_t predicted;
	struct lora_watch watch; /* in bytes of weights that are read for tokens */
	uint64_t weights;	 /* bytes of one model */
};

/* ---- one model on all texts */

static enum lora_status open_net(const struct comparison *c, struct lora_model *model,
				 struct lora_net **net, struct lora_error *err)
{
	struct lora_net_options options = LORA_NET_OPTIONS_INIT;

	options.threads = c->proof->options.threads;
	return lora_net_open(net, model, &options, c->proof->observer, err);
}

static enum lora_status attach(const struct lora_proof *proof, struct lora_net *net,
			       struct lora_error *err)
{
	struct lora_net_input *inputs = calloc(proof->input_count + 1, sizeof(*inputs));
	enum lora_status status = inputs ? LORA_OK : lora__fail_memory(err);

	for (size_t i = 0; i < proof->input_count && !status; i++)
		inputs[i] =
		    (struct lora_net_input){proof->inputs[i].adapter, proof->inputs[i].weight};
	if (!status)
		status = lora_net_attach(net, inputs, proof->input_count, &proof->quiet, err);
	free(inputs);
	return status;
}

/* Fills a prompt's continuation. */
static enum lora_status continue_text(struct lora_net_state *state, struct lora_prompt *p,
				      float *row, size_t vocabulary, struct lora_error *err)
{
	enum lora_status status = LORA_OK;

	lora_net_state_cut(state, 0);
	for (size_t at = p->count, from = 0; at < p->total && !status; from = at, at++) {
		status = lora_net_forward(state, p->ids + from, at - from, LORA_NET_LAST, row, err);
		if (!status)
			p->ids[at] = lora__top(row, vocabulary);
	}
	return status;
}

/* Logits of one whole text into c->text. */
static enum lora_status run_text(struct comparison *c, struct lora_net_state *state,
				 const struct lora_prompt *p, struct lora_error *err)
{
	enum lora_status status;

	lora_net_state_cut(state, 0);
	status = lora_net_forward(state, p->ids, p->total, LORA_NET_ALL, c->text, err);
	return status ? status : lora__watch_add(&c->watch, p->total * c->weights, err);
}

/* Logits of all texts, cut to the common vocabulary. */
static enum lora_status run_all(struct comparison *c, struct lora_net *net, bool continues,
				float *out, struct lora_error *err)
{
	struct lora_net_state *state = NULL;
	size_t own = lora_net_vocabulary(net);
	enum lora_status status = lora_net_state_new(&state, net, c->longest, err);

	for (size_t i = 0; i < c->prompts.count && !status; i++) {
		struct lora_prompt *p = &c->prompts.at[i];

		if (continues)
			status = continue_text(state, p, c->text, c->vocabulary, err);
		if (!status)
			status = run_text(c, state, p, err);
		for (size_t t = 0; t < p->total && !status; t++, out += c->vocabulary)
			memcpy(out, c->text + t * own, c->vocabulary * sizeof(*out));
	}
	lora_net_state_free(state);
	return status;
}

/* ---- memory, once the prompts are known */

static enum lora_status make_room(struct comparison *c, size_t widest, struct lora_error *err)
{
	uint64_t bytes;

	for (size_t i = 0; i < c->prompts.count; i++) {
		size_t total = c->prompts.at[i].total;

		c->tokens += total;
		c->longest = total > c->longest ? total : c->longest;
	}
	bytes = (uint64_t)c->tokens * c->vocabulary * 2 * sizeof(float);
	if (bytes > LOGITS_MAX)
		return lora__fail(err, LORA_INPUT,
				  "%zu tokens with %zu logits each are too many to compare: use "
				  "fewer --tokens, or fewer prompts",
				  c->tokens, c->vocabulary);
	c->base = malloc((size_t)bytes / 2 + 1);
	c->unmerged = malloc((size_t)bytes / 2 + 1);
	c->text = malloc(c->longest * widest * sizeof(float) + 1);
	c->pairs = lora__arena_array(&c->proof->arena, PAIRS, sizeof(*c->pairs));
	return c->base && c->unmerged && c->text && c->pairs ? LORA_OK : lora__fail_memory(err);
}

static size_t least(size_t a, size_t b)
{
	return a < b ? a : b;
}

/* Base and unmerged, with one model's weights. */
static enum lora_status run_base(struct comparison *c, struct lora_error *err)
{
	struct lora_proof *proof = c->proof;
	struct lora_prompt_limits limits;
	struct lora_net *net = NULL;
	size_t own, with = 0;
	enum lora_status status = open_net(c, proof->base, &net, err);

	for (size_t f = 0; f < proof->base->shard_count; f++)
		c->weights += proof->base->shards[f].file.size;
	own = status ? 0 : lora_net_vocabulary(net);
	if (!status)
		status = attach(proof, net, err);
	if (status) {
		proof->unsupported = status == LORA_INPUT;
		lora_net_close(net);
		return status;
	}
	with = lora_net_vocabulary(net);
	c->vocabulary = least(own, with);
	limits = (struct lora_prompt_limits){c->vocabulary, lora_net_positions(net)};
	status = lora__prompts_make(&c->prompts, proof, limits, err);
	if (!status)
		status = make_room(c, own > with ? own : with, err);
	lora__watch_init(&c->watch, proof->observer, "run", 3 * (uint64_t)c->tokens * c->weights);
	if (!status)
		status = run_all(c, net, true, c->unmerged, err);
	lora_net_detach(net);
	if (!status)
		status = run_all(c, net, false, c->base, err);
	lora_net_close(net);
	return status;
}

/* ---- comparing */

static void take_pairs(struct comparison *c, const float *p, const float *q)
{
	size_t n = c->vocabulary, each = PAIRS / (c->tokens ? c->tokens : 1) + 1;

	for (size_t k = 0; k < each && c->pair_count < PAIRS; k++) {
		size_t i = (k * (n / each + 1) + c->pair_count * 7919) % n;

		c->pairs[c->pair_count][0] = p[i];
		c->pairs[c->pair_count++][1] = q[i];
	}
}

static void look_at_choice(struct lora_proof_logits *out, const struct lora_prompt *p, size_t t,
			   bool same)
{
	uint64_t at;

	if (same || t + 1 < p->count || t + 1 >= p->total)
		return;
	at = t + 1 - p->count;
	if (!out->diverges || at < out->first_divergence)
		out->first_divergence = at;
	out->diverges = true;
}

static enum lora_status against_reference(struct comparison *c, size_t i, size_t t,
					  const float *base, const float *merged, float *row,
					  struct lora_error *err)
{
	enum lora_status status;

	if (t >= lora__prompts_covered(&c->prompts, i))
		return LORA_OK;
	status = lora__prompts_reference(&c->prompts, i, t, row, err);
	if (!status) {
		lora__measure(&c->reference, row, merged, c->vocabulary);
		lora__measure(&c->reference_adapter, base, row, c->vocabulary);
	}
	return status;
}

/* Text i, whose merged logits are in c->text, `own` a row; the others' begin at row `first`. */
static enum lora_status compare_text(struct comparison *c, size_t i, size_t first, size_t own,
				     struct lora_error *err)
{
	const struct lora_prompt *p = &c->prompts.at[i];
	size_t n = c->vocabulary;
	float *row = malloc(n * sizeof(*row) + 1);
	enum lora_status status = row ? LORA_OK : lora__fail_memory(err);

	for (size_t t = 0; t < p->total && !status; t++) {
		const float *const of[3] = {c->base + (first + t) * n,
					    c->unmerged + (first + t) * n, c->text + t * own};

		lora__measure(&c->merged, of[1], of[2], n);
		lora__measure(&c->adapter, of[0], of[1], n);
		look_at_choice(&c->proof->logits, p, t, lora__top(of[1], n) == lora__top(of[2], n));
		take_pairs(c, of[1], of[2]);
		for (size_t k = 0; k < 3 && t + 1 < p->count; k++)
			c->surprise[k] += lora__surprise(of[k], n, p->ids[t + 1]);
		c->predicted += t + 1 < p->count;
		status = against_reference(c, i, t, of[0], of[2], row, err);
	}
	free(row);
	return status;
}

static enum lora_status run_merged(struct comparison *c, struct lora_error *err)
{
	struct lora_net *net = NULL;
	struct lora_net_state *state = NULL;
	size_t own, first = 0;
	enum lora_status status = open_net(c, c->proof->merged, &net, err);

	own = status ? 0 : lora_net_vocabulary(net);
	if (!status && own < c->vocabulary)
		status =
		    lora__fail(err, LORA_NO, "the merged model has a vocabulary of %zu, not of %zu",
			       own, c->vocabulary);
	if (!status)
		status = lora_net_state_new(&state, net, c->longest, err);
	if (!status) {
		free(c->text);
		c->text = malloc(c->longest * own * sizeof(float) + 1);
		status = c->text ? LORA_OK : lora__fail_memory(err);
	}
	for (size_t i = 0; i < c->prompts.count && !status; i++) {
		status = run_text(c, state, &c->prompts.at[i], err);
		if (!status)
			status = compare_text(c, i, first, own, err);
		first += c->prompts.at[i].total;
	}
	lora_net_state_free(state);
	lora_net_close(net);
	return status;
}

static double mean(double sum, size_t n)
{
	return n ? sum / (double)n : NAN;
}

/* [3] */
static bool holds(const struct lora_proof *proof, double kl, double yardstick)
{
	return kl <= fmax(proof->options.max_kl * yardstick, FLOOR);
}

static enum lora_status conclude(struct comparison *c, struct lora_error *err)
{
	struct lora_proof_logits *out = &c->proof->logits;
	const struct lora_measures *m = &c->merged, *r = &c->reference;

	out->prompts = c->prompts.count;
	out->tokens = m->rows;
	out->max_abs = m->max_abs;
	out->rms = sqrt(mean(m->sum2, m->values));
	out->kl = mean(m->kl, m->rows);
	out->kl_max = m->kl_max;
	out->kl_adapter = mean(c->adapter.kl, c->adapter.rows);
	out->top1_agreement = mean((double)m->agree, m->rows);
	out->perplexity_base = exp(mean(c->surprise[0], c->predicted));
	out->perplexity_unmerged = exp(mean(c->surprise[1], c->predicted));
	out->perplexity_merged = exp(mean(c->surprise[2], c->predicted));
	out->has_reference = c->prompts.logits != NULL;
	out->reference_max_abs = r->max_abs;
	out->reference_rms = sqrt(mean(r->sum2, r->values));
	out->reference_kl = mean(r->kl, r->rows);
	out->reference_kl_adapter = mean(c->reference_adapter.kl, c->reference_adapter.rows);
	out->reference_top1 = mean((double)r->agree, r->rows);
	out->pairs = (const float(*)[2])c->pairs;
	out->pair_count = c->pair_count;
	c->proof->has_logits = true;
	if (!holds(c->proof, out->kl, out->kl_adapter))
		return lora__fail(
		    err, LORA_NO,
		    "the merged model is KL %.3g away from base + adapter, %.3g %% of "
		    "what the adapter does (%.3g), more than %.3g %%",
		    out->kl, 100 * out->kl / out->kl_adapter, out->kl_adapter,
		    100 * c->proof->options.max_kl);
	if (out->has_reference && !holds(c->proof, out->reference_kl, out->reference_kl_adapter))
		return lora__fail(err, LORA_NO,
				  "the merged model is KL %.3g away from the reference, %.3g %% of "
				  "what that does to the base (%.3g), more than %.3g %%",
				  out->reference_kl,
				  100 * out->reference_kl / out->reference_kl_adapter,
				  out->reference_kl_adapter, 100 * c->proof->options.max_kl);
	out->passed = true;
	return LORA_OK;
}

enum lora_status lora_proof_logits(struct lora_proof *proof, struct lora_error *err)
{
	struct comparison c = {.proof = proof};
	enum lora_status status = lora__proof_refused(proof, err);

	proof->logits = (struct lora_proof_logits){.passed = false};
	proof->has_logits = status == LORA_NO;
	proof->unsupported = false;
	if (status)
		return status;
	status = run_base(&c, err);
	if (!status)
		status = run_merged(&c, err);
	if (!status)
		status = conclude(&c, err);
	if (c.watch.stage)
		lora__watch_fini(&c.watch);
	lora__prompts_fini(&c.prompts);
	free(c.base);
	free(c.unmerged);
	free(c.text);
	return status;
}
