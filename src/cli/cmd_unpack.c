/* SPDX-License-Identifier: Apache-2.0 */
/* cli/cmd_unpack.c - `loractl unpack`: a version of a container becomes a directory. */
#include <stdio.h>

#include <loractl/container.h>

#include "cmd.h"

struct unpack_args {
	const char *output;
	bool manifest;
};

static enum lora_status run(const struct cmd_ctx *ctx, const void *arguments,
			    const char *const *operands, size_t count)
{
	const struct unpack_args *args = arguments;
	struct lora_unpack_options options = LORA_UNPACK_OPTIONS_INIT;
	struct lora_unpack_result result;
	struct lora_error err = LORA_ERROR_INIT;
	char bytes[UI_TEXT], safe[1024];

	(void)count;
	options.manifest = args->manifest;
	if (lora_container_unpack(operands[0], args->output, &options, &result, ctx->observer,
				  &err))
		return ui_fail(ctx->ui, &err);
	fprintf(ui_out(ctx->ui), "%s: version %llu, %zu files, %s\n",
		ui_escape(args->output, safe, sizeof(safe)), (unsigned long long)result.version,
		result.files, ui_size(result.bytes, bytes));
	if (args->manifest && !result.signatures)
		ui_note(ctx->ui, LORA_NOTE_INFO, "the version is not signed");
	return LORA_OK;
}

static const struct operand operands[] = {
    {
	.name = "F.lora[@VERSION]",
	.help = "a container, and which version of it; the latest if none is named",
	.hint = HINT_FILE,
    },
    {.name = NULL},
};

static const struct opt opts[] = {
    {
	.kind = OPT_PATH,
	.letter = 'o',
	.name = "output",
	.metavar = "DIR",
	.help = "the new directory",
	.at = offsetof(struct unpack_args, output),
	.hint = HINT_DIR,
	.flags = OPT_REQUIRED,
    },
    {
	.kind = OPT_FLAG,
	.name = "manifest",
	.help = "also write manifest.json, and its signatures",
	.detail = "They go to manifest.json.minisig, which minisign checks, "
		  "and manifest.json.2.minisig and so on if there are several.",
	.at = offsetof(struct unpack_args, manifest),
    },
    {.name = NULL},
};

static const struct example examples[] = {
    {"the latest version", "loractl unpack style.lora -o adapter/"},
    {"an old one, with what was signed", "loractl unpack style.lora@3 -o adapter/ --manifest"},
    {NULL, NULL},
};

const struct cmd cmd_unpack = {
    .name = "unpack",
    .summary = "Write a version of a container to a directory",
    .operands = operands,
    .opts = opts,
    .args_size = sizeof(struct unpack_args),
    .examples = examples,
    .run = run,
};
