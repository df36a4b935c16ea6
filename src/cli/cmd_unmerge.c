/* SPDX-License-Identifier: Apache-2.0 */
/* cli/cmd_unmerge.c - `loractl unmerge`: the base, byte for byte; or, asked for, nearly */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <loractl/json.h>
#include <loractl/unmerge.h>

#include "cmd.h"
#include "inputs.h"

struct unmerge_args {
	const char *output;
	const char *undo;
	bool approximate;
	const char *base;
};

static void put_error(struct lora_json_writer *w, const char *key,
		      const struct lora_unmerge_error *error, bool measured)
{
	lora_json_key(w, key);
	lora_json_begin_object(w);
	lora_json_key(w, "off");
	lora_json_double(w, error->off);
	lora_json_key(w, "relative");
	lora_json_double(w, error->relative);
	if (measured) {
		lora_json_key(w, "max_ulp");
		lora_json_uint(w, error->max_ulp);
	}
	lora_json_end_object(w);
}

/* Schema loractl.unmerge/1. expected NULL: exact; measured NULL: no base to compare with. */
static enum lora_status print_json(const struct cmd_ctx *ctx, const struct lora_unmerge_summary *s,
				   const struct lora_unmerge_error *expected,
				   const struct lora_unmerge_error *measured,
				   struct lora_error *err)
{
	struct lora_json_writer *w = lora_json_writer_new(LORA_JSON_PRETTY);
	const char *text = NULL;
	size_t length = 0;
	enum lora_status status;

	lora_json_begin_object(w);
	lora_json_key(w, "schema");
	lora_json_string(w, "loractl.unmerge/1");
	lora_json_key(w, "exact");
	lora_json_bool(w, !expected);
	lora_json_key(w, "root");
	if (expected)
		lora_json_null(w);
	else
		lora_json_sha256(w, &s->root);
	lora_json_key(w, "tensors");
	lora_json_uint(w, s->tensors);
	lora_json_key(w, "restored");
	lora_json_uint(w, s->restored);
	lora_json_key(w, "files");
	lora_json_uint(w, s->files);
	lora_json_key(w, "left");
	lora_json_uint(w, s->left);
	lora_json_key(w, "bytes");
	lora_json_uint(w, s->bytes);
	if (expected)
		put_error(w, "expected", expected, false);
	if (measured)
		put_error(w, "measured", measured, true);
	lora_json_end_object(w);
	status = lora_json_writer_text(w, &text, &length, err);
	if (!status)
		fputs(text, ui_out(ctx->ui));
	lora_json_writer_free(w);
	return status;
}

static enum lora_status exactly(const struct cmd_ctx *ctx, const struct unmerge_args *args,
				struct lora_model *merged, struct lora_error *err)
{
	struct lora_unmerge_summary s;
	char text[UI_TEXT];
	FILE *out = ui_out(ctx->ui);
	struct lora_unmerge_options options = LORA_UNMERGE_OPTIONS_INIT;
	enum lora_status status;

	options.threads = ctx->threads;
	options.observer = ctx->observer;
	status = lora_unmerge(&s, merged, args->undo, args->output, &options, err);

	if (status)
		return status;
	if (ctx->json)
		return print_json(ctx, &s, NULL, NULL, err);
	if (ctx->ui->quiet)
		return LORA_OK;
	fprintf(out, "%-12s%zu restored, %zu as they were\n", "tensors", s.restored,
		s.tensors - s.restored);
	fprintf(out, "%-12s%zu, every SHA-256 the base's\n", "files", s.files);
	fprintf(out, "%-12s", "root");
	for (size_t i = 0; i < LORA_SHA256_SIZE; i++)
		fprintf(out, "%02x", s.root.byte[i]);
	fprintf(out, "\n%-12s%s of weights in %.2f s\n", "wrote", ui_size(s.bytes, text),
		s.seconds);
	return LORA_OK;
}

static void print_error(FILE *out, const char *what, const struct lora_unmerge_error *e)
{
	fprintf(out, "%-12s%.3g %% of the adapted weights off, |error| %.3g %% of |W|\n", what,
		100 * e->off, 100 * e->relative);
	fflush(out);
}

static enum lora_status nearly(const struct cmd_ctx *ctx, const struct unmerge_args *args,
			       struct lora_model *merged, const char *const *references,
			       size_t count, struct lora_error *err)
{
	struct lora_adapter_options options = LORA_ADAPTER_OPTIONS_INIT;
	struct lora_unmerge_options way = LORA_UNMERGE_OPTIONS_INIT;
	struct lora_unmerge_error expected;
	struct lora_unmerge_summary s;
	struct lora_model *base = NULL;
	struct inputs inputs = {NULL, 0};
	bool quiet = ctx->json || ctx->ui->quiet;
	char text[UI_TEXT];
	enum lora_status status =
	    inputs_open(&inputs, references, count, &options, ctx->observer, err);

	if (!status && args->base)
		status = lora_model_open(&base, args->base, err);
	way.threads = ctx->threads;
	way.observer = ctx->observer;
	way.base = base;
	if (!status)
		status =
		    lora_unmerge_expect(&expected, merged, inputs.input, inputs.count, &way, err);
	if (!status && !quiet)
		print_error(ui_out(ctx->ui), "expected", &expected);
	if (!status)
		status = lora_unmerge_approximate(&s, merged, inputs.input, inputs.count,
						  args->output, &way, err);
	if (!status && !quiet && base)
		print_error(ui_out(ctx->ui), "measured", &s.measured);
	if (!status && !quiet)
		fprintf(ui_out(ctx->ui), "%-12s%s of weights in %.2f s; not the base: near it\n",
			"wrote", ui_size(s.bytes, text), s.seconds);
	if (!status && ctx->json)
		status = print_json(ctx, &s, &expected, base ? &s.measured : NULL, err);
	lora_model_close(base);
	inputs_close(&inputs);
	return status;
}

static enum lora_status run(const struct cmd_ctx *ctx, const void *arguments,
			    const char *const *operands, size_t count)
{
	const struct unmerge_args *args = arguments;
	struct lora_error err = LORA_ERROR_INIT;
	struct lora_model *merged = NULL;
	enum lora_status status;

	if ((ctx->json || !ctx->ui->quiet) && !ui_writable(ctx->ui))
		return ui_failf(
		    ctx->ui, LORA_SYSTEM,
		    "cannot write the result: standard output is closed: open it, or use --quiet");
	if (args->approximate && args->undo)
		return ui_failf(ctx->ui, LORA_USAGE,
				"--undo restores exactly: drop --approximate, or the record");
	if (!args->approximate && !args->undo)
		return ui_failf(
		    ctx->ui, LORA_USAGE,
		    "without the record nothing gives the base back: name it with --undo, "
		    "or accept --approximate with the adapters");
	if (!args->approximate && count > 1)
		return ui_failf(ctx->ui, LORA_USAGE, "the record knows the adapters: drop '%s'",
				operands[1]);
	if (!args->approximate && args->base)
		return ui_failf(ctx->ui, LORA_USAGE, "--base is for --approximate: drop it");
	if (args->approximate && count == 1)
		return ui_failf(ctx->ui, LORA_USAGE,
				"--approximate needs the adapters to subtract");
	status = lora_model_open(&merged, operands[0], &err);
	if (!status)
		status = args->approximate
			     ? nearly(ctx, args, merged, operands + 1, count - 1, &err)
			     : exactly(ctx, args, merged, &err);
	lora_model_close(merged);
	return status ? ui_fail(ctx->ui, &err) : LORA_OK;
}

static const struct operand operands[] = {
    {
	.name = "MERGED",
	.help = "the merged model: a directory, or one .safetensors file",
	.hint = HINT_FILE,
    },
    {
	.name = "ADAPTER[:WEIGHT]",
	.help = "with --approximate: what was merged, as it was given to merge",
	.hint = HINT_FILE,
	.optional = true,
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
	.help = "where the base goes",
	.detail = "OUT is a directory where MERGED is one, else a file; it must not exist. "
		  "It exists whole or not at all.",
	.at = offsetof(struct unmerge_args, output),
	.hint = HINT_FILE,
	.flags = OPT_REQUIRED,
    },
    {
	.kind = OPT_PATH,
	.name = "undo",
	.metavar = "FILE",
	.help = "the record that merge --undo wrote",
	.detail = "No adapter is needed with it.",
	.at = offsetof(struct unmerge_args, undo),
	.hint = HINT_FILE,
    },
    {
	.kind = OPT_FLAG,
	.name = "approximate",
	.help = "without a record: subtract the adapters",
	.detail = "The result is near the base, not the base. "
		  "The error to expect is printed before anything is written.",
	.at = offsetof(struct unmerge_args, approximate),
    },
    {
	.kind = OPT_PATH,
	.name = "base",
	.metavar = "BASE",
	.help = "with --approximate: measure the error against this base",
	.at = offsetof(struct unmerge_args, base),
	.hint = HINT_FILE,
    },
    {.name = NULL},
};

static const struct example examples[] = {
    {"take a merge back", "loractl unmerge merged/ --undo merged.undo -o base/"},
    {"without its record", "loractl unmerge merged/ adapter/ --approximate -o near/"},
    {NULL, NULL},
};

const struct cmd cmd_unmerge = {
    .name = "unmerge",
    .summary = "Take a merge back",
    .operands = operands,
    .opts = opts,
    .args_size = sizeof(struct unmerge_args),
    .flags = CMD_REPORTS,
    .examples = examples,
    .run = run,
};
