/* SPDX-License-Identifier: Apache-2.0 */
/* cli/cmd_rebuild.c - `loractl rebuild`: the merge that a receipt describes, again */
#include <stdio.h>
#include <string.h>

#include <loractl/unmerge.h>

#include "cmd.h"
#include "inputs.h"

struct rebuild_args {
	const char *output;
};

static enum lora_status rebuild(const struct cmd_ctx *ctx, const struct rebuild_args *args,
				const struct lora_rebuild *receipt, struct lora_model *base,
				struct inputs *inputs, struct lora_error *err)
{
	struct lora_unmerge_options options = LORA_UNMERGE_OPTIONS_INIT;
	struct lora_merge_result *result = NULL;
	char text[UI_TEXT];
	enum lora_status status;

	options.threads = ctx->threads;
	options.observer = ctx->observer;
	status = lora_rebuild(&result, receipt, base, inputs->input, args->output, &options, err);

	if (!status && ctx->json)
		fputs(lora_merge_receipt(result), ui_out(ctx->ui));
	else if (!status && !ctx->ui->quiet)
		fprintf(ui_out(ctx->ui),
			"%-12s%s of weights in %.2f s, every SHA-256 the receipt's\n", "rebuilt",
			ui_size(lora_merge_summary(result)->bytes, text),
			lora_merge_summary(result)->seconds);
	lora_merge_result_free(result);
	return status;
}

/* The receipt says what was merged how strongly: a weight on the command line could only
 * contradict it. */
static bool any_weight(const struct inputs *inputs)
{
	for (size_t i = 0; i < inputs->count; i++)
		if (inputs->input[i].weight < 1 || inputs->input[i].weight > 1)
			return true;
	return false;
}

static enum lora_status run(const struct cmd_ctx *ctx, const void *arguments,
			    const char *const *operands, size_t count)
{
	struct lora_error err = LORA_ERROR_INIT;
	struct lora_rebuild *receipt = NULL;
	struct lora_model *base = NULL;
	struct inputs inputs = {NULL, 0};
	enum lora_status status;

	if ((ctx->json || !ctx->ui->quiet) && !ui_writable(ctx->ui))
		return ui_failf(
		    ctx->ui, LORA_SYSTEM,
		    "cannot write the result: standard output is closed: open it, or use --quiet");
	status = lora_rebuild_open(&receipt, operands[0], &err);
	if (!status && count - 2 != lora_rebuild_adapter_count(receipt)) {
		err.status = status = LORA_USAGE;
		snprintf(err.message, sizeof(err.message),
			 "the receipt names %zu adapters, %zu are given",
			 lora_rebuild_adapter_count(receipt), count - 2);
	}
	if (!status)
		status = lora_model_open(&base, operands[1], &err);
	if (!status)
		status = inputs_open(&inputs, operands + 2, count - 2,
				     lora_rebuild_adapter_options(receipt), ctx->observer, &err);
	if (!status && any_weight(&inputs)) {
		err.status = status = LORA_USAGE;
		snprintf(err.message, sizeof(err.message),
			 "the weights are the receipt's: name the adapters without them");
	}
	if (!status)
		status = rebuild(ctx, arguments, receipt, base, &inputs, &err);
	inputs_close(&inputs);
	lora_model_close(base);
	lora_rebuild_free(receipt);
	return status ? ui_fail(ctx->ui, &err) : LORA_OK;
}

static const struct operand operands[] = {
    {
	.name = "RECEIPT",
	.help = "loractl-receipt.json of a merged model, or what --json printed",
	.hint = HINT_FILE,
    },
    {
	.name = "BASE",
	.help = "the base that it names by root",
	.hint = HINT_FILE,
    },
    {
	.name = "ADAPTER",
	.help = "the adapters that it names by root, in any order",
	.hint = HINT_FILE,
	.repeats = true,
    },
    {.name = NULL},
};

static const struct opt opts[] = {
    {
	.kind = OPT_PATH,
	.letter = 'o',
	.name = "output",
	.metavar = "OUT",
	.help = "where the merged model goes",
	.detail = "It appears only if every file has the SHA-256 that the receipt names.",
	.at = offsetof(struct rebuild_args, output),
	.hint = HINT_FILE,
	.flags = OPT_REQUIRED,
    },
    {.name = NULL},
};

static const struct example examples[] = {
    {"from a receipt that was kept", "loractl rebuild receipt.json base/ adapter/ -o merged/"},
    {NULL, NULL},
};

const struct cmd cmd_rebuild = {
    .name = "rebuild",
    .summary = "Repeat the merge that a receipt describes",
    .operands = operands,
    .opts = opts,
    .args_size = sizeof(struct rebuild_args),
    .flags = CMD_REPORTS,
    .examples = examples,
    .run = run,
};
