/* SPDX-License-Identifier: Apache-2.0 */
/* cli/cmd_log.c - `loractl log`: the history of a container. */
#include <stdio.h>

#include "cmd.h"
#include "history.h"

struct log_args {
	char none; /* it has no options of its own */
};

static enum lora_status print_json(const struct cmd_ctx *ctx, const struct lora_log *log,
				   const char *path, struct lora_error *err)
{
	struct lora_json_writer *w = lora_json_writer_new(LORA_JSON_PRETTY);
	enum lora_status status;
	const char *text;
	size_t length;

	lora_json_begin_object(w);
	lora_json_key(w, "schema");
	lora_json_string(w, "loractl.log/1");
	status = history_json(w, log, path, err);
	lora_json_end_object(w);
	if (!status)
		status = lora_json_writer_text(w, &text, &length, err);
	if (!status)
		fputs(text, ui_out(ctx->ui));
	lora_json_writer_free(w);
	return status;
}

static enum lora_status run(const struct cmd_ctx *ctx, const void *arguments,
			    const char *const *operands, size_t count)
{
	struct lora_log *log = NULL;
	struct lora_error err = LORA_ERROR_INIT;
	enum lora_status status = lora_log_open(&log, operands[0], ctx->observer, &err);

	(void)arguments;
	(void)count;
	if (!status)
		status = ctx->json ? print_json(ctx, log, operands[0], &err)
				   : history_text(ctx->ui, log, ctx->verbose, &err);
	lora_log_close(log);
	return status ? ui_fail(ctx->ui, &err) : LORA_OK;
}

static const struct operand operands[] = {
    {
	.name = "F.lora",
	.help = "a container",
	.hint = HINT_FILE,
    },
    {.name = NULL},
};

static const struct opt opts[] = {
    {.name = NULL},
};

static const struct example examples[] = {
    {"the history, newest first", "loractl log style.lora"},
    {"with whole digests", "loractl log style.lora -v"},
    {NULL, NULL},
};

const struct cmd cmd_log = {
    .name = "log",
    .summary = "Show the versions of a container",
    .operands = operands,
    .opts = opts,
    .args_size = sizeof(struct log_args),
    .flags = CMD_REPORTS,
    .examples = examples,
    .run = run,
};
