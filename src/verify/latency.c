/* SPDX-License-Identifier: Apache-2.0 */
/* verify/latency.c - merged costs what base costs: first by structure, then by the clock.
 *
 * 1. Structure has no noise: the same tensors with the same shapes and types, and the same trace of
 *    operations of one token through the engine.
 * 2. The clock: rounds of four runs, base, merged, merged again, unmerged, forwards and backwards
 *    in turn, each the same tokens on top of the same prompt. The ratio within a round is what
 *    counts, so that a machine that slows down slows all four.
 * 3. Where the weights lie in memory matters more than a percent. So the nets are opened anew from
 *    sitting to sitting, once base first, once merged.
 * 4. The control (merged against itself) shows what the machine can tell apart; the unmerged model
 *    shows that a real difference is seen.
 */
#include "verify/latency.h"

#include "base/error.h"
#include "base/watch.h"
#include "net/net.h"
#include "verify/equivalence.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define PROMPT	16
#define LEAST	0.02 /* seconds of one run */
#define RUN_MAX 64   /* tokens of one run */
#define SITTING 12   /* rounds */
#define FEWEST	24   /* rounds before an answer */

/* One model that is timed. */
struct runner {
	struct lora_net *net;
	struct lora_net_state *state;
};

struct timing {
	struct lora_proof *proof;
	const struct lora_latency_test *test;
	struct runner base, merged; /* unmerged is the base, attached for a moment */
	float *logits;
	size_t run; /* tokens of one run */
	struct lora_round *rounds;
	double *room;
	size_t count;
	struct timespec begin;
};

static double since(const struct timespec *begin)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (double)(now.tv_sec - begin->tv_sec) + 1e-9 * (double)(now.tv_nsec - begin->tv_nsec);
}

/* ---- structure [1] */

static bool same_tensor(const struct lora_tensor *a, const struct lora_tensor *b)
{
	return a->dtype == b->dtype && a->ndim == b->ndim &&
	       memcmp(a->shape, b->shape, a->ndim * sizeof(a->shape[0])) == 0;
}

/* The first tensor that the two do not share, as a line; NULL: none. */
static const char *find_difference(struct lora_proof *proof)
{
	size_t count = lora_model_tensor_count(proof->base),
	       theirs = lora_model_tensor_count(proof->merged);

	for (size_t i = 0; i < count; i++) {
		const struct lora_tensor *a = lora_model_tensor(proof->base, i),
					 *b = lora_model_find(proof->merged, a->name);

		if (!b)
			return lora__arena_printf(&proof->arena, "'%s' is missing",
						  lora__escape(a->name));
		if (!same_tensor(a, b))
			return lora__arena_printf(
			    &proof->arena,
			    "'%s' is %s with %" PRIu64 " elements, the base's %s with %" PRIu64,
			    lora__escape(a->name), lora_dtype_name(b->dtype), b->elements,
			    lora_dtype_name(a->dtype), a->elements);
	}
	if (count != theirs)
		return lora__arena_printf(&proof->arena, "%zu tensors, the base has %zu", theirs,
					  count);
	return NULL;
}

/* ---- runs */

static void close_runner(struct runner *r)
{
	lora_net_state_free(r->state);
	lora_net_close(r->net);
	*r = (struct runner){NULL, NULL};
}

static enum lora_status open_runner(struct timing *t, struct runner *r, struct lora_model *model,
				    struct lora_error *err)
{
	struct lora_net_options options = LORA_NET_OPTIONS_INIT;
	enum lora_status status;

	options.threads = t->proof->options.threads;
	status = lora_net_open(&r->net, model, &options, NULL, err);
	t->proof->unsupported = status == LORA_INPUT;
	if (!status && lora_net_positions(r->net) < PROMPT + RUN_MAX)
		status = lora__fail(err, LORA_INPUT, "the model has positions for %zu tokens only",
				    lora_net_positions(r->net));
	return status ? status : lora_net_state_new(&r->state, r->net, PROMPT + RUN_MAX, err);
}

static enum lora_status decode(const struct timing *t, struct runner *r, size_t count,
			       struct lora_error *err)
{
	enum lora_status status = LORA_OK;

	for (size_t i = 0; i < count && !status; i++) {
		uint32_t id = (uint32_t)(i * 37 % lora_net_vocabulary(r->net));

		status = lora_net_forward(r->state, &id, 1, LORA_NET_LAST, t->logits, err);
	}
	return status;
}

/* Forgets what was decoded, and decodes one token: caches and threads are warm. */
static enum lora_status rewind_to_prompt(const struct timing *t, struct runner *r,
					 struct lora_error *err)
{
	enum lora_status status;

	lora_net_state_cut(r->state, 0);
	status = decode(t, r, PROMPT, err);
	return status;
}

static void wait(double seconds)
{
	struct timespec begin;

	clock_gettime(CLOCK_MONOTONIC, &begin);
	while (since(&begin) < seconds)
		;
}

static enum lora_status time_run(const struct timing *t, struct runner *r, double delay,
				 double *seconds, struct lora_error *err)
{
	struct timespec begin;
	enum lora_status status = rewind_to_prompt(t, r, err);

	clock_gettime(CLOCK_MONOTONIC, &begin);
	if (!status)
		status = decode(t, r, t->run, err);
	if (delay > 0)
		wait(delay * since(&begin));
	*seconds = since(&begin);
	return status;
}

static enum lora_status time_unmerged(const struct timing *t, double *seconds,
				      struct lora_error *err)
{
	const struct lora_proof *proof = t->proof;
	struct lora_net_input *inputs = calloc(proof->input_count + 1, sizeof(*inputs));
	struct runner base = t->base;
	enum lora_status status = inputs ? LORA_OK : lora__fail_memory(err);

	for (size_t i = 0; i < proof->input_count && !status; i++)
		inputs[i] =
		    (struct lora_net_input){proof->inputs[i].adapter, proof->inputs[i].weight};
	if (!status)
		status = lora_net_attach(base.net, inputs, proof->input_count, &proof->quiet, err);
	if (!status)
		status = time_run(t, &base, 0, seconds, err);
	lora_net_detach(base.net);
	free(inputs);
	return status;
}

/* Which of the four runs a round's k-th is [2]. */
static enum lora_status time_one(struct timing *t, struct lora_round *round, size_t k,
				 struct lora_error *err)
{
	double delay = t->test->delay;

	if (k == 0)
		return time_run(t, &t->base, 0, &round->base, err);
	if (k == 1)
		return time_run(t, &t->merged, delay, &round->merged, err);
	if (k == 2)
		return time_run(t, &t->merged, delay, &round->again, err);
	return time_unmerged(t, &round->unmerged, err);
}

static enum lora_status time_round(struct timing *t, struct lora_error *err)
{
	struct lora_round *round = &t->rounds[t->count];
	enum lora_status status = LORA_OK;

	for (size_t k = 0; k < 4 && !status; k++)
		status = time_one(t, round, t->count % 2 ? 3 - k : k, err);
	t->count += !status;
	return status;
}

/* ---- sittings [3] */

static enum lora_status open_both(struct timing *t, bool merged_first, struct lora_error *err)
{
	struct lora_proof *proof = t->proof;
	enum lora_status status = LORA_OK;

	if (merged_first)
		status = open_runner(t, &t->merged, proof->merged, err);
	if (!status)
		status = open_runner(t, &t->base, proof->base, err);
	if (!status && !merged_first)
		status = open_runner(t, &t->merged, proof->merged, err);
	return status;
}

static void close_both(struct timing *t)
{
	close_runner(&t->base);
	close_runner(&t->merged);
}

/* One token's operations, of both. */
static enum lora_status compare_traces(struct timing *t, struct lora_error *err)
{
	struct lora_net_trace of_base = {0, 0}, of_merged = {0, 0};
	enum lora_status status = rewind_to_prompt(t, &t->base, err);

	if (!status)
		status = rewind_to_prompt(t, &t->merged, err);
	t->base.net->trace = &of_base;
	t->merged.net->trace = &of_merged;
	if (!status)
		status = decode(t, &t->base, 1, err);
	if (!status)
		status = decode(t, &t->merged, 1, err);
	t->base.net->trace = t->merged.net->trace = NULL;
	t->proof->latency.operations = of_merged.operations;
	t->proof->latency.structural =
	    of_base.hash == of_merged.hash && of_base.operations == of_merged.operations;
	if (!status && !t->proof->latency.structural)
		t->proof->latency.difference = "the engine runs other operations";
	return status;
}

/* Tokens of a run, so that it takes long enough for the clock. */
static enum lora_status choose_run(struct timing *t, struct lora_error *err)
{
	double seconds = 0;
	enum lora_status status = LORA_OK;

	for (t->run = 1; t->run < RUN_MAX && !status; t->run *= 2) {
		status = time_run(t, &t->base, 0, &seconds, err);
		if (seconds >= LEAST)
			break;
	}
	return status;
}

static enum lora_status prepare(struct timing *t, struct lora_error *err)
{
	size_t widest = 0;
	enum lora_status status = open_both(t, false, err);

	if (status)
		return status;
	widest = lora_net_vocabulary(t->base.net) + lora_net_vocabulary(t->merged.net);
	t->logits = malloc(widest * sizeof(float));
	t->rounds = calloc(t->test->rounds, sizeof(*t->rounds));
	t->room = calloc(t->test->rounds, sizeof(*t->room));
	if (!t->logits || !t->rounds || !t->room)
		return lora__fail_memory(err);
	return compare_traces(t, err);
}

/* Rounds until they say something, or for too long. */
static enum lora_status sit(struct timing *t, enum lora_equivalence *answer, struct lora_error *err)
{
	struct lora_proof_latency *out = &t->proof->latency;
	double margin = t->proof->options.margin, patience = t->proof->options.patience;
	struct lora_watch watch;
	enum lora_status status = choose_run(t, err);

	lora__watch_init(&watch, t->proof->observer, "time", t->test->rounds);
	clock_gettime(CLOCK_MONOTONIC, &t->begin);
	*answer = LORA_UNDECIDED;
	while (!status && t->count < t->test->rounds && since(&t->begin) < patience) {
		if (t->count && t->count % SITTING == 0) {
			close_both(t);
			status = open_both(t, t->count / SITTING % 2, err);
		}
		if (!status)
			status = time_round(t, err);
		if (!status)
			status = lora__watch_add(&watch, 1, err);
		*answer = lora__equivalence(t->rounds, t->count, margin, t->room, out);
		if (*answer != LORA_UNDECIDED && t->count >= FEWEST && t->count % SITTING == 0)
			break;
	}
	lora__watch_fini(&watch);
	out->milliseconds /= (double)t->run;
	return status;
}

static enum lora_status tell(struct lora_proof *proof, enum lora_equivalence answer,
			     struct lora_error *err)
{
	const struct lora_proof_latency *out = &proof->latency;
	double percent = 100 * proof->options.margin;

	proof->has_latency = true;
	if (out->difference)
		return lora__fail(err, LORA_NO,
				  "the merged model does not cost what the base does: %s",
				  out->difference);
	if (answer == LORA_SLOWER)
		return lora__fail(err, LORA_NO,
				  "the merged model takes %.4f times as long as the base, 90 %% "
				  "interval [%.4f, %.4f], more than %.3g %%",
				  out->merged.ratio, out->merged.low, out->merged.high, percent);
	if (answer == LORA_UNDECIDED)
		return lora__fail(
		    err, LORA_INPUT,
		    "latency: %zu rounds cannot tell whether it is equal within %.3g "
		    "%%: merged/base in [%.4f, %.4f], the control in [%.4f, %.4f]: use "
		    "a quieter machine, or a wider --latency-margin",
		    out->rounds, percent, out->merged.low, out->merged.high, out->control.low,
		    out->control.high);
	proof->latency.passed = true;
	return LORA_OK;
}

enum lora_status lora__proof_latency(struct lora_proof *proof, const struct lora_latency_test *test,
				     struct lora_error *err)
{
	struct timing t = {.proof = proof, .test = test};
	enum lora_equivalence answer = LORA_UNDECIDED;
	enum lora_status status = lora__proof_refused(proof, err);

	proof->latency = (struct lora_proof_latency){.passed = false};
	proof->has_latency = status == LORA_NO;
	proof->unsupported = false;
	if (status)
		return status;
	proof->latency.difference = find_difference(proof);
	if (!proof->latency.difference)
		status = prepare(&t, err);
	if (!status && !proof->latency.difference)
		status = sit(&t, &answer, err);
	if (!status)
		status = tell(proof, answer, err);
	close_both(&t);
	free(t.logits);
	free(t.rounds);
	free(t.room);
	return status;
}

enum lora_status lora_proof_latency(struct lora_proof *proof, struct lora_error *err)
{
	static const struct lora_latency_test test = {0, 600};

	return lora__proof_latency(proof, &test, err);
}
