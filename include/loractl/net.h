/* SPDX-License-Identifier: Apache-2.0 */
/* loractl/net.h - running a model: tokens to logits, with adapters beside the weights or without.
 *
 *	struct lora_net *net;
 *	struct lora_net_state *state;
 *	status = lora_net_open(&net, model, &options, observer, err);
 *	status = lora_net_attach(net, inputs, 1, observer, err);	y = Wx + s*B(Ax) from here
 *on status = lora_net_state_new(&state, net, 1024, err); status = lora_net_forward(state, ids,
 *count, LORA_NET_LAST, logits, err);
 *
 * 1. Models: Llama, Mistral, Qwen2, Qwen3 and GPT-2, as transformers stores them. What else a
 *    config.json asks for is refused by name, never guessed.
 * 2. Weights of F32, F16 and BF16 stay as they are stored and are widened exactly; everything is
 *    computed in f32.
 * 3. Attached adapters are never added to the weights: this is what a merge is measured against.
 *    Every kind of edit is applied, or refused by name.
 * 4. The same call gives the same bits on one machine with one number of threads. Between
 *    processors, between numbers of threads, and between one call with many tokens and many calls
 *    with one, the last digits differ.
 * 5. Memory: the weights, once; a state's keys and values, 8 bytes for each of its tokens, layers,
 *    key heads and their dimensions; and buffers for a batch of at most LORA_NET_BATCH tokens. All
 *of it is taken when net and state are made; nothing while they run.
 */
#ifndef LORACTL_NET_H
#define LORACTL_NET_H

#include <loractl/adapter.h>
#include <loractl/chat.h>

#ifdef __cplusplus
extern "C" {
#endif

struct lora_net;

struct lora_net_options {
	size_t size;	      /* sizeof(struct lora_net_options) */
	unsigned threads;     /* 0: every core this process may use */
	bool allow_unknown;   /* ignore keys of config.json that we do not know */
	bool allow_unmatched; /* attach adapters without their tensors that have no place */
};

#define LORA_NET_OPTIONS_INIT                                                                      \
	{                                                                                          \
		sizeof(struct lora_net_options), 0, false, false                                   \
	}

/* Reads the weights. The model is borrowed and must outlive the net (its digests are computed if an
 * adapter that is bound to a base is attached). LORA_INPUT if it cannot be run
 * (the architecture, a key of the config, a tensor is named) or holds a value that is not finite,
 * LORA_SYSTEM without memory. */
LORA_API enum lora_status lora_net_open(struct lora_net **out, struct lora_model *model,
					const struct lora_net_options *options,
					const struct lora_observer *observer,
					struct lora_error *err);
LORA_API void lora_net_close(struct lora_net *net);

LORA_API size_t lora_net_vocabulary(const struct lora_net *net); /* logits of a token */
LORA_API size_t lora_net_positions(const struct lora_net *net);	 /* tokens of the longest text */

struct lora_net_input {
	struct lora_adapter *adapter;
	double weight;
};

/* Lays adapters over the model, in place of those that were: all of them, or after a failure none.
 * Their factors are read; the adapters may be closed afterwards. LORA_NO: bound to another base;
 * LORA_INPUT: tensors without a place, values that are not finite, adapters that exclude each
 * other, an edit of a kind that cannot be applied where it asks to be. */
LORA_API enum lora_status lora_net_attach(struct lora_net *net, const struct lora_net_input *inputs,
					  size_t count, const struct lora_observer *observer,
					  struct lora_error *err);
LORA_API void lora_net_detach(struct lora_net *net);

/* ---- One text at a time: keys and values of the tokens so far. */

struct lora_net_state;

/* Room for `capacity` tokens, at most lora_net_positions(). LORA_USAGE if it is 0 or more. The net
 * must outlive the state. */
LORA_API enum lora_status lora_net_state_new(struct lora_net_state **out, struct lora_net *net,
					     size_t capacity, struct lora_error *err);
LORA_API void lora_net_state_free(struct lora_net_state *state);
LORA_API size_t lora_net_state_length(const struct lora_net_state *state); /* tokens so far */
/* Forgets all tokens but the first `length`, which is at most the state's. */
LORA_API void lora_net_state_cut(struct lora_net_state *state, size_t length);

enum lora_net_wanted {
	LORA_NET_NONE, /* only remember the tokens; logits may be NULL */
	LORA_NET_LAST, /* logits [vocabulary] of the last token */
	LORA_NET_ALL,  /* logits [count, vocabulary] */
};

/* Appends `count` tokens. LORA_INPUT for a token beyond the vocabulary, for more tokens than the
 * state has room for, or if a logit is not finite; then the state is as it was. */
LORA_API enum lora_status lora_net_forward(struct lora_net_state *state, const uint32_t *ids,
					   size_t count, enum lora_net_wanted wanted, float *logits,
					   struct lora_error *err);

/* ---- Many texts at once: what they cost. */

/* Tokens of one text; a prediction of token i is counted (from i = 1) if mask is NULL or mask[i] is
 * not 0. */
struct lora_net_text {
	const uint32_t *ids;
	const uint8_t *mask;
	size_t count;
};

/* loss[t] = the sum, over the counted tokens of text t, of -ln p(token | those before it in t).
 * Texts are separate, and computed side by side in batches without padding. The state's tokens are
 * forgotten. LORA_INPUT for a text longer than the state has room for, naming its number. */
LORA_API enum lora_status lora_net_loss(struct lora_net_state *state,
					const struct lora_net_text *texts, size_t count,
					double *loss, struct lora_error *err);

/* ---- Continuing a text. */

struct lora_net_sampling {
	double temperature; /* 0: always the most likely token, the first of equals */
	double top_p;	    /* of the likeliest tokens as many as make up this share; 1: all */
	uint64_t seed;
};

struct lora_net_generation {
	size_t size;		/* sizeof(struct lora_net_generation) */
	const uint32_t *prompt; /* prompt_count of them, at least one */
	size_t prompt_count;
	size_t limit;	       /* tokens to make at most */
	const uint32_t *stops; /* stop_count tokens that end the text */
	size_t stop_count;
	struct lora_net_sampling sampling;
	/* Called with every token but a stop; non-zero ends the text. */
	int (*token)(void *user, uint32_t id);
	void *user;
};

/* Appends the prompt to the state, then token after token. It ends at `limit`, at a stop, or where
 * the state is full. */
LORA_API enum lora_status lora_net_generate(struct lora_net_state *state,
					    const struct lora_net_generation *generation,
					    struct lora_error *err);

/* The tokens by which config.json and generation_config.json say that a text ends: as many as there
 * are, of which the first `room` are written. */
LORA_API size_t lora_net_stops(const struct lora_net *net, uint32_t *ids, size_t room);

/* ---- Evaluating a file of examples.
 *
 *	F.jsonl		one object a line: {"text"}, {"prompt", "completion"} or {"messages"}
 *	any other	one example a line; empty lines are none
 *
 * An example is tokenized as the tokenizer does it, special tokens around it included; prompt and
 * completion each for themselves, one behind the other. No end of text is added. All tokens but an
 * example's first are predicted; with mask_prompt only those of completions and of what the
 * assistant says. */
struct lora_eval_options {
	size_t size;   /* sizeof(struct lora_eval_options) */
	size_t tokens; /* longer examples are cut; 0: they are refused if the model has no
			  positions for them */
	bool mask_prompt;
	enum lora_chat chat; /* the template of messages; LORA_CHAT_NONE: the model's own */
};

#define LORA_EVAL_OPTIONS_INIT                                                                     \
	{                                                                                          \
		sizeof(struct lora_eval_options), 0, false, LORA_CHAT_NONE                         \
	}

struct lora_eval {
	double loss;	   /* mean of -ln p over the predicted tokens of all examples */
	double perplexity; /* exp(loss) */
	uint64_t tokens;   /* predicted */
	uint64_t examples;
	uint64_t cut;	/* examples that were longer than options.tokens */
	uint64_t run;	/* tokens that went through the model */
	double seconds; /* of running it */
};

/* LORA_INPUT if the file is malformed (the line is named), holds nothing to predict, or holds an
 * example that is too long. */
LORA_API enum lora_status lora_net_evaluate(struct lora_eval *out, struct lora_net *net,
					    const struct lora_tokenizer *tokenizer,
					    const char *path,
					    const struct lora_eval_options *options,
					    const struct lora_observer *observer,
					    struct lora_error *err);

#ifdef __cplusplus
}
#endif

#endif
