/* SPDX-License-Identifier: Apache-2.0 */
/* cli/cmd_generate.c - `loractl generate`: a model, with or without adapters, continues a text */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "running.h"

struct generate_args {
	struct running_args run;
	const char *prompt;
	uint64_t limit;
	double temperature;
	double top_p;
	uint64_t seed;
	bool chat;
};

/* Where the text goes while it is made. */
struct printer {
	const struct cmd_ctx *ctx;
	struct lora_decoder *decoder;
	struct lora_error *err;
	enum lora_status status;
};

/* To a terminal only what it shows: a model may say anything. */
static void print(struct printer *p, const char *text, size_t length)
{
	struct ui *ui = p->ctx->ui;
	FILE *out = ui_out(ui);
	char *shown;

	if (length == 0)
		return;
	if (!ui->out_tty) {
		fwrite(text, 1, length, out);
		return;
	}
	shown = malloc(UI_ESCAPE_GROWTH * length + 8);
	for (const char *at = text, *end = text + length; shown && at < end;) {
		size_t line = strcspn(at, "\n\t");
		char *part = strndup(at, line);

		if (part)
			fputs(ui_escape(part, shown, UI_ESCAPE_GROWTH * length + 8), out);
		free(part);
		at += line;
		if (at < end) /* a newline, a tab or a NUL */
			fputc(*at ? *at : ' ', out);
		at++;
	}
	free(shown);
	fflush(out);
}

static int take_token(void *user, uint32_t id)
{
	struct printer *p = user;
	const char *text = NULL;
	size_t length = 0;

	p->status = lora_decoder_push(p->decoder, id, &text, &length, p->err);
	if (!p->status)
		print(p, text, length);
	if (!p->status && ui_interrupted())
		p->status = opt_fail(p->err, LORA_CANCELLED, "interrupted");
	return p->status != LORA_OK;
}

/* Every token that ends a text: those of the model's configs, and the tokenizer's. malloc'd. */
static uint32_t *stops_of(const struct running *r, size_t *count)
{
	size_t room = lora_net_stops(r->net, NULL, 0) + 1;
	uint32_t *ids = calloc(room, sizeof(*ids)),
		 eos = lora_tokenizer_special(r->tokenizer, LORA_TOKEN_EOS);

	*count = 0;
	if (!ids)
		return NULL;
	*count = lora_net_stops(r->net, ids, room);
	*count = *count < room ? *count : room - 1;
	if (eos != LORA_TOKEN_NONE)
		ids[(*count)++] = eos;
	return ids;
}

/* The prompt as a user's message, and the invitation to answer it. */
static enum lora_status encode_chat(const struct running *r, const struct generate_args *args,
				    struct lora_tokens *prompt, struct lora_error *err)
{
	struct lora_message message = {"user", args->prompt, strlen(args->prompt)};
	enum lora_chat chat = LORA_CHAT_NONE;
	enum lora_status status = running_chat(args->run.template, &chat, err);

	if (status)
		return status;
	if (chat == LORA_CHAT_NONE)
		chat = lora_chat_of(r->tokenizer);
	if (chat == LORA_CHAT_NONE || chat == LORA_CHAT_OTHER)
		return opt_fail(err, LORA_INPUT, "%s: --template NAME says how to spell a chat",
				chat == LORA_CHAT_NONE ? "the model has no chat template"
						       : "the model's chat template is not one of "
							 "those that are known");
	return lora_chat_encode(r->tokenizer, &(struct lora_conversation){chat, &message, 1, true},
				prompt, err);
}

static enum lora_status encode(const struct running *r, const struct generate_args *args,
			       struct lora_tokens *prompt, struct lora_error *err)
{
	if (args->chat || args->run.template)
		return encode_chat(r, args, prompt, err);
	return lora_tokenizer_encode(r->tokenizer, args->prompt, strlen(args->prompt),
				     LORA_ENCODE_SPECIAL, prompt, err);
}

static enum lora_status new_state(struct lora_net_state **state, const struct running *r,
				  const struct generate_args *args, size_t prompt,
				  struct lora_error *err)
{
	size_t positions = lora_net_positions(r->net), room;

	if (prompt >= positions)
		return opt_fail(err, LORA_INPUT,
				"the prompt has %zu tokens: this model has positions for %zu, and "
				"needs one to answer",
				prompt, positions);
	room = positions - prompt < args->limit ? positions - prompt : (size_t)args->limit;
	return lora_net_state_new(state, r->net, prompt + room, err);
}

static enum lora_status generate(const struct cmd_ctx *ctx, const struct generate_args *args,
				 const struct running *r, const struct lora_tokens *prompt,
				 struct lora_error *err)
{
	struct printer printer = {ctx, NULL, err, LORA_OK};
	struct lora_net_generation g = {.size = sizeof(g),
					.prompt = prompt->ids,
					.prompt_count = prompt->count,
					.limit = (size_t)args->limit,
					.sampling = {args->temperature, args->top_p, args->seed},
					.token = take_token,
					.user = &printer};
	struct lora_net_state *state = NULL;
	uint32_t *stops = stops_of(r, &g.stop_count);
	enum lora_status status = stops ? LORA_OK : opt_fail(err, LORA_SYSTEM, "out of memory");
	const char *rest = NULL;
	size_t length = 0;

	g.stops = stops;
	if (!status)
		status = new_state(&state, r, args, prompt->count, err);
	if (!status)
		status =
		    lora_decoder_new(&printer.decoder, r->tokenizer, LORA_DECODE_SKIP_SPECIAL, err);
	if (!status)
		status = lora_net_generate(state, &g, err);
	if (!status)
		status = printer.status;
	if (!status)
		status = lora_decoder_finish(printer.decoder, &rest, &length, err);
	if (!status) {
		print(&printer, rest, length);
		fputc('\n', ui_out(ctx->ui));
	}
	lora_decoder_free(printer.decoder);
	lora_net_state_free(state);
	free(stops);
	return status;
}

static enum lora_status run(const struct cmd_ctx *ctx, const void *arguments,
			    const char *const *operands, size_t count)
{
	const struct generate_args *args = arguments;
	struct lora_error err = LORA_ERROR_INIT;
	struct running r = {NULL, NULL, NULL};
	struct lora_tokens prompt = {NULL, 0, 0};
	enum lora_status status;

	(void)count;
	status = running_open(&r, ctx, operands[0], &args->run, &err);
	if (!status)
		status = encode(&r, args, &prompt, &err);
	if (!status)
		status = generate(ctx, args, &r, &prompt, &err);
	lora_tokens_fini(&prompt);
	running_close(&r);
	return status ? ui_fail(ctx->ui, &err) : LORA_OK;
}

static const struct operand operands[] = {
    {
	.name = "MODEL",
	.help = "model directory, or org/model in the hub cache",
	.hint = HINT_FILE,
    },
    {.name = NULL},
};

static const struct opt opts[] = {
    {
	.kind = OPT_STRING,
	.name = "prompt",
	.metavar = "TEXT",
	.help = "the text to continue",
	.at = offsetof(struct generate_args, prompt),
	.flags = OPT_REQUIRED,
    },
    {
	.kind = OPT_FLAG,
	.name = "chat",
	.help = "the prompt is a user's message: spell it as the model's chat template does",
	.at = offsetof(struct generate_args, chat),
    },
    RUNNING_OPTS(generate_args),
    {
	.kind = OPT_U64,
	.letter = 'n',
	.name = "tokens",
	.metavar = "N",
	.help = "make at most N tokens",
	.def = "128",
	.at = offsetof(struct generate_args, limit),
	.min = 1,
	.max = 1u << 24,
    },
    {
	.kind = OPT_DOUBLE,
	.name = "temperature",
	.metavar = "X",
	.help = "draw tokens by chance, their logits divided by X",
	.detail = "Without it, or with 0, every token is the likeliest one.",
	.def = "0",
	.at = offsetof(struct generate_args, temperature),
	.low = 0,
	.high = 1000,
    },
    {
	.kind = OPT_DOUBLE,
	.name = "top-p",
	.metavar = "X",
	.help = "draw from the likeliest tokens that together have the chance X",
	.def = "1",
	.at = offsetof(struct generate_args, top_p),
	.low = 1e-6,
	.high = 1,
    },
    {
	.kind = OPT_U64,
	.name = "seed",
	.metavar = "N",
	.help = "of the draws: the same seed gives the same text",
	.def = "0",
	.at = offsetof(struct generate_args, seed),
    },
    {.name = NULL},
};

static const struct example examples[] = {
    {"what does the model make of it?", "loractl generate base/ --prompt 'Once upon a time' -n 40"},
    {"the same with an adapter at half its strength",
     "loractl generate base/ --adapter adapter/:0.5 --prompt 'Once upon a time'"},
    {"ask a model that was tuned to answer",
     "loractl generate base/ --chat --prompt 'What is the capital of France?'"},
    {NULL, NULL},
};

const struct cmd cmd_generate = {
    .name = "generate",
    .summary = "Continue a text",
    .operands = operands,
    .opts = opts,
    .args_size = sizeof(struct generate_args),
    .examples = examples,
    .run = run,
};
