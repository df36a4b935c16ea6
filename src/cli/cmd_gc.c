/* SPDX-License-Identifier: Apache-2.0 */
/* cli/cmd_gc.c - `loractl gc`: a container forgets its oldest versions. */
#include <stdio.h>

#include <loractl/container.h>

#include "cmd.h"

struct gc_args {
	uint64_t keep;
};

static enum lora_status run(const struct cmd_ctx *ctx, const void *arguments,
			    const char *const *operands, size_t count)
{
	const struct gc_args *args = arguments;
	struct lora_gc_result result;
	struct lora_error err = LORA_ERROR_INIT;
	char before[UI_TEXT], after[UI_TEXT], safe[1024];

	(void)count;
	if (lora_container_gc(operands[0], args->keep, &result, ctx->observer, &err))
		return ui_fail(ctx->ui, &err);
	fprintf(ui_out(ctx->ui), "%s: %zu version%s removed, %zu kept, %s to %s\n",
		ui_escape(operands[0], safe, sizeof(safe)), result.removed,
		result.removed == 1 ? "" : "s", result.kept, ui_size(result.before, before),
		ui_size(result.after, after));
	return LORA_OK;
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
    {
	.kind = OPT_U64,
	.name = "keep",
	.metavar = "N",
	.help = "how many of the latest versions stay",
	.at = offsetof(struct gc_args, keep),
	.min = 1,
	.max = UINT64_MAX,
	.flags = OPT_REQUIRED,
    },
    {.name = NULL},
};

static const struct example examples[] = {
    {"only the last three", "loractl gc style.lora --keep 3"},
    {NULL, NULL},
};

const struct cmd cmd_gc = {
    .name = "gc",
    .summary = "Remove the oldest versions of a container",
    .operands = operands,
    .opts = opts,
    .args_size = sizeof(struct gc_args),
    .examples = examples,
    .run = run,
};
