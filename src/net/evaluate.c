/* SPDX-License-Identifier: Apache-2.0 */
/* net/evaluate.c - the loss of a file of examples: the contract is in loractl/net.h
 *
 * Examples are separate, and their losses are added in the file's order. They are computed in
 * groups of about GROUP tokens, between which the observer is told and may stop.
 */
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <time.h>

#include "base/error.h"
#include "base/watch.h"
#include "net/data.h"
#include "net/net.h"

#define GROUP (8 * (size_t)LORA_NET_BATCH)

struct evaluation {
	struct lora_eval *out;
	const struct lora_eval_options *options;
	struct lora_data data;
	struct lora_net_state *state;
	struct lora_watch watch;
	uint64_t bytes; /* of all examples */
	double total;
};

static double now(void)
{
	struct timespec time;

	(void)clock_gettime(CLOCK_MONOTONIC, &time);
	return (double)time.tv_sec + (double)time.tv_nsec * 1e-9;
}

/* Counts what will be predicted; the longest example. */
static enum lora_status survey(struct evaluation *e, const struct lora_net *net, const char *path,
			       size_t *longest, struct lora_error *err)
{
	size_t vocabulary = lora_net_vocabulary(net);
	struct lora_eval *out = e->out;

	*out = (struct lora_eval){.examples = e->data.count};
	*longest = 0;
	for (size_t i = 0; i < e->data.count; i++) {
		const struct lora_example *x = &e->data.examples[i];

		if (x->count > net->spec.positions)
			return lora__fail(err, LORA_INPUT,
					  "'%s': line %zu: it has %zu tokens, the model has "
					  "positions for %zu: --seq-len cuts examples",
					  lora__escape(path), x->line, x->count,
					  net->spec.positions);
		*longest = x->count > *longest ? x->count : *longest;
		out->cut += x->cut;
		e->bytes += x->bytes;
		out->run += x->count ? x->count - 1 : 0;
		for (size_t k = 0; k < x->count; k++) {
			if (x->ids[k] >= vocabulary)
				return lora__fail(err, LORA_INPUT,
						  "'%s': line %zu: token %u is beyond the model's "
						  "vocabulary of %zu: is the tokenizer another "
						  "model's?",
						  lora__escape(path), x->line, x->ids[k],
						  vocabulary);
			out->tokens += k > 0 && (!e->options->mask_prompt || x->mask[k]);
		}
	}
	if (out->tokens == 0)
		return lora__fail(err, LORA_INPUT,
				  "'%s' holds no token to predict: an example needs two",
				  lora__escape(path));
	return LORA_OK;
}

/* Examples [first, last). */
static enum lora_status run_group(struct evaluation *e, size_t first, size_t last, size_t bytes,
				  struct lora_error *err)
{
	size_t count = last - first;
	struct lora_net_text *texts = calloc(count, sizeof(*texts));
	double *loss = calloc(count, sizeof(*loss));
	enum lora_status status = texts && loss ? LORA_OK : lora__fail_memory(err);

	for (size_t i = 0; i < count && !status; i++) {
		const struct lora_example *x = &e->data.examples[first + i];

		texts[i] = (struct lora_net_text){x->ids, e->options->mask_prompt ? x->mask : NULL,
						  x->count};
	}
	if (!status)
		status = lora_net_loss(e->state, texts, count, loss, err);
	for (size_t i = 0; i < count && !status; i++)
		e->total += loss[i];
	if (!status)
		status = lora__watch_add(&e->watch, bytes, err);
	free(texts);
	free(loss);
	return status;
}

static enum lora_status run_all(struct evaluation *e, struct lora_error *err)
{
	enum lora_status status = LORA_OK;
	size_t first = 0, tokens = 0, bytes = 0;

	for (size_t i = 0; i < e->data.count && !status; i++) {
		tokens += e->data.examples[i].count;
		bytes += e->data.examples[i].bytes;
		if (tokens < GROUP && i + 1 < e->data.count)
			continue;
		status = run_group(e, first, i + 1, bytes, err);
		first = i + 1;
		tokens = bytes = 0;
	}
	return status;
}

static enum lora_status evaluate(struct evaluation *e, struct lora_net *net, const char *path,
				 const struct lora_observer *observer, struct lora_error *err)
{
	size_t longest = 0;
	enum lora_status status = survey(e, net, path, &longest, err);
	double began;

	if (!status) /* a batch is full before there is no room for a further text */
		status = lora__net_state_make(&e->state, net, longest + LORA_NET_BATCH, err);
	if (status)
		return status;
	lora__watch_init(&e->watch, observer, "evaluate", e->bytes);
	began = now();
	status = run_all(e, err);
	e->out->seconds = now() - began;
	lora__watch_fini(&e->watch);
	e->out->loss = e->total / (double)e->out->tokens;
	e->out->perplexity = exp(e->out->loss);
	if (e->out->cut && !status)
		lora__note(observer, LORA_NOTE_WARNING,
			   "%" PRIu64 " of %" PRIu64 " examples were cut to %zu tokens",
			   e->out->cut, e->out->examples, e->options->tokens);
	return lora__context(err, status, "'%s'", lora__escape(path));
}

enum lora_status lora_net_evaluate(struct lora_eval *out, struct lora_net *net,
				   const struct lora_tokenizer *tokenizer, const char *path,
				   const struct lora_eval_options *options,
				   const struct lora_observer *observer, struct lora_error *err)
{
	const struct lora_eval_options defaults = LORA_EVAL_OPTIONS_INIT;
	struct evaluation e = {.out = out, .options = options ? options : &defaults};
	struct lora_data_options data = {tokenizer, e.options->chat, e.options->tokens,
					 e.options->mask_prompt};
	enum lora_status status = lora__data_read(&e.data, path, &data, err);

	if (!status)
		status = evaluate(&e, net, path, observer, err);
	lora_net_state_free(e.state);
	lora__data_fini(&e.data);
	return status;
}
