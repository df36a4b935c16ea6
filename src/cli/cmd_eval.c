/* SPDX-License-Identifier: Apache-2.0 */
/* cli/cmd_eval.c - `loractl eval`: how well does a model, with or without adapters, predict a text?
 */
#include <inttypes.h>
#include <stdio.h>

#include <loractl/json.h>

#include "running.h"

struct eval_args {
	struct running_args run;
	const char *data;
	uint64_t tokens;
	bool mask_prompt;
};

static double rate(const struct lora_eval *e)
{
	return e->seconds > 0 ? (double)e->run / e->seconds : 0;
}

static enum lora_status print_json(const struct cmd_ctx *ctx, const struct lora_eval *e,
				   struct lora_error *err)
{
	struct lora_json_writer *w = lora_json_writer_new(LORA_JSON_PRETTY);
	enum lora_status status;
	const char *text;
	size_t length;

	lora_json_begin_object(w);
	lora_json_key(w, "schema");
	lora_json_string(w, "loractl.eval/1");
	lora_json_key(w, "loss");
	lora_json_double(w, e->loss);
	lora_json_key(w, "perplexity");
	lora_json_double(w, e->perplexity);
	lora_json_key(w, "tokens");
	lora_json_uint(w, e->tokens);
	lora_json_key(w, "examples");
	lora_json_uint(w, e->examples);
	lora_json_key(w, "cut");
	lora_json_uint(w, e->cut);
	lora_json_key(w, "seconds");
	lora_json_double(w, e->seconds);
	lora_json_key(w, "tokens_per_second");
	lora_json_double(w, rate(e));
	lora_json_end_object(w);
	status = lora_json_writer_text(w, &text, &length, err);
	if (!status)
		fputs(text, ui_out(ctx->ui));
	lora_json_writer_free(w);
	return status;
}

static void print_text(const struct cmd_ctx *ctx, const struct lora_eval *e)
{
	char a[UI_TEXT], b[UI_TEXT];
	FILE *out = ui_out(ctx->ui);

	fprintf(out, "%-12s%.6f\n", "loss", e->loss);
	fprintf(out, "%-12s%.5f\n", "perplexity", e->perplexity);
	fprintf(out, "%-12s%s predicted, in %s examples\n", "tokens", ui_count(e->tokens, a),
		ui_count(e->examples, b));
	fprintf(out, "%-12s%.0f tokens per second\n", "speed", rate(e));
}

static enum lora_status run(const struct cmd_ctx *ctx, const void *arguments,
			    const char *const *operands, size_t count)
{
	const struct eval_args *args = arguments;
	struct lora_eval_options options = LORA_EVAL_OPTIONS_INIT;
	struct lora_error err = LORA_ERROR_INIT;
	struct running r = {NULL, NULL, NULL};
	struct lora_eval result;
	enum lora_status status;

	(void)count;
	options.tokens = (size_t)args->tokens;
	options.mask_prompt = args->mask_prompt;
	status = running_chat(args->run.template, &options.chat, &err);
	if (!status)
		status = running_open(&r, ctx, operands[0], &args->run, &err);
	if (!status)
		status = lora_net_evaluate(&result, r.net, r.tokenizer, args->data, &options,
					   ctx->observer, &err);
	if (!status && ctx->json)
		status = print_json(ctx, &result, &err);
	else if (!status)
		print_text(ctx, &result);
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
	.kind = OPT_PATH,
	.name = "data",
	.metavar = "FILE",
	.help = "examples: F.jsonl, one object a line, or F.txt, one example a line",
	.detail = "An object holds text, or prompt and completion, or messages.",
	.at = offsetof(struct eval_args, data),
	.hint = HINT_FILE,
	.flags = OPT_REQUIRED,
    },
    RUNNING_OPTS(eval_args),
    {
	.kind = OPT_U64,
	.name = "seq-len",
	.metavar = "N",
	.help = "cut examples to N tokens",
	.detail = "Without it an example that is longer than the model has positions for is an "
		  "error.",
	.otherwise = "as long as they are",
	.at = offsetof(struct eval_args, tokens),
	.min = 2,
	.max = 1u << 24,
    },
    {
	.kind = OPT_FLAG,
	.name = "mask-prompt",
	.help = "count completions, and what the assistant says, alone",
	.at = offsetof(struct eval_args, mask_prompt),
    },
    {.name = NULL},
};

static const struct example examples[] = {
    {"the loss of a model on held-out text", "loractl eval base/ --data held-out.txt"},
    {"the same with an adapter beside the weights, as JSON",
     "loractl eval base/ --adapter adapter/ --data held-out.jsonl --json"},
    {NULL, NULL},
};

const struct cmd cmd_eval = {
    .name = "eval",
    .summary = "Measure how well a model predicts a text",
    .operands = operands,
    .opts = opts,
    .args_size = sizeof(struct eval_args),
    .flags = CMD_REPORTS,
    .examples = examples,
    .run = run,
};
