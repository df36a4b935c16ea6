/* SPDX-License-Identifier: Apache-2.0 */
/* cli/cmd_diff.c - `loractl diff`: what differs between two adapters, or two checkpoints? */
#include <stdio.h>
#include <stdlib.h>

#include <loractl/inspect.h>

#include "diff.h"
#include "key_map.h"
#include "reference.h"

struct diff_args {
	bool modules;
	bool allow_unmatched;
	bool allow_unknown;
	const char *key_map;
};

/* Everything that was opened. */
struct opened {
	struct lora_model *model[2];
	struct lora_adapter *adapter[2];
	bool ours;			 /* Y has our receipt: it says that it is our merge */
	struct lora_merge_input *inputs; /* the adapters that shall explain */
	size_t input_count;
};

static void close_all(struct opened *opened)
{
	for (size_t i = 0; i < opened->input_count; i++)
		lora_adapter_close(opened->inputs[i].adapter);
	free(opened->inputs);
	for (int i = 0; i < 2; i++) {
		lora_adapter_close(opened->adapter[i]);
		lora_model_close(opened->model[i]);
	}
}

static enum lora_status open_one(const struct cmd_ctx *ctx, struct opened *opened, int i,
				 const char *path, const struct lora_adapter_options *options,
				 struct lora_error *err)
{
	enum lora_kind kind = LORA_KIND_UNKNOWN;
	enum lora_status status = lora_kind_of(path, &kind, err);

	if (status)
		return status;
	/* Of the last, Y. A receipt counts whether or not it still describes what stands there. */
	opened->ours = kind == LORA_KIND_MERGED ||
		       (kind == LORA_KIND_BASE && lora_receipt_check(path, NULL) != LORA_OK);
	if (kind == LORA_KIND_BASE || kind == LORA_KIND_MERGED)
		return lora_model_open(&opened->model[i], path, err);
	if (kind != LORA_KIND_ADAPTER && kind != LORA_KIND_CONTAINER)
		return opt_fail(err, LORA_INPUT,
				"'%.200s' is of kind '%s': compare adapters, or models", path,
				lora_kind_name(kind));
	return lora_adapter_open(&opened->adapter[i], path, options, ctx->observer, err);
}

static enum lora_status open_inputs(const struct cmd_ctx *ctx, struct opened *opened,
				    const char *const *references, size_t count,
				    const struct lora_adapter_options *options,
				    struct lora_error *err)
{
	opened->inputs = calloc(count + 1, sizeof(*opened->inputs));
	if (!opened->inputs)
		return opt_fail(err, LORA_SYSTEM, "out of memory");
	for (size_t i = 0; i < count; i++) {
		struct lora_merge_input *input = &opened->inputs[i];
		char *path = NULL;
		enum lora_status status =
		    reference_split(references[i], &path, &input->weight, err);

		if (!status)
			status =
			    lora_adapter_open(&input->adapter, path, options, ctx->observer, err);
		free(path);
		if (status)
			return status;
		opened->input_count++;
	}
	return LORA_OK;
}

static enum lora_status open_all(const struct cmd_ctx *ctx, struct opened *opened,
				 const char *const *paths, size_t count,
				 const struct lora_adapter_options *options, struct lora_error *err)
{
	enum lora_status status = open_one(ctx, opened, 0, paths[0], options, err);

	if (!status)
		status = open_one(ctx, opened, 1, paths[1], options, err);
	if (status)
		return status;
	if (!opened->model[0] != !opened->model[1])
		return opt_fail(err, LORA_INPUT,
				"'%.200s' is an adapter and '%.200s' is a checkpoint: compare two "
				"of one kind",
				paths[opened->model[0] ? 1 : 0], paths[opened->model[0] ? 0 : 1]);
	if (opened->adapter[0] && count > 2)
		return opt_fail(err, LORA_USAGE,
				"'%.200s': a third argument explains how one checkpoint became "
				"another, and '%.200s' is an adapter",
				paths[2], paths[0]);
	return open_inputs(ctx, opened, paths + 2, count - 2, options, err);
}

static enum lora_status compare(const struct cmd_ctx *ctx, const struct diff_args *args,
				const struct opened *opened, struct lora_diff **diff,
				struct lora_error *err)
{
	struct lora_diff_options options = LORA_DIFF_OPTIONS_INIT;
	enum lora_status status;

	options.threads = ctx->threads;
	options.exact = opened->ours;
	options.allow_unmatched = args->allow_unmatched;
	if (opened->adapter[0])
		return lora_diff_adapters(diff, opened->adapter[0], opened->adapter[1], &options,
					  ctx->observer, err);
	status = lora_diff_models(diff, opened->model[0], opened->model[1], &options, ctx->observer,
				  err);
	if (!status && opened->input_count)
		status = lora_diff_explain(*diff, opened->model[0], opened->inputs,
					   opened->input_count, &options, ctx->observer, err);
	return status;
}

static enum lora_status print_json(const struct cmd_ctx *ctx, const struct lora_diff *diff,
				   bool adapters, struct lora_error *err)
{
	struct lora_json_writer *writer = lora_json_writer_new(LORA_JSON_PRETTY);
	enum lora_status status;
	const char *text;
	size_t length;

	diff_json(writer, diff, adapters);
	status = lora_json_writer_text(writer, &text, &length, err);
	if (!status)
		fputs(text, ui_out(ctx->ui));
	lora_json_writer_free(writer);
	return status;
}

/* Asked for an explanation, that is the question; else whether the two are the same. */
static bool answer(const struct lora_diff *diff)
{
	const struct lora_explanation *explanation = lora_diff_explanation(diff);

	return explanation ? explanation->explained : lora_diff_same(diff);
}

static enum lora_status run(const struct cmd_ctx *ctx, const void *arguments,
			    const char *const *paths, size_t count)
{
	const struct diff_args *args = arguments;
	struct lora_error err = LORA_ERROR_INIT;
	struct opened opened = {.input_count = 0};
	struct lora_adapter_options options = LORA_ADAPTER_OPTIONS_INIT;
	struct key_map map = {NULL, 0, NULL};
	struct lora_diff *diff = NULL;
	enum lora_status status = LORA_OK;
	bool adapters, yes = false;

	if (args->key_map)
		status = key_map_read(&map, args->key_map, &err);
	options.key_map = map.pairs;
	options.allow_unknown = args->allow_unknown;
	options.allow_mutated_base = true; /* looking harms nobody */
	if (!status)
		status = open_all(ctx, &opened, paths, count, &options, &err);
	adapters = opened.adapter[0] != NULL;
	if (!status)
		status = compare(ctx, args, &opened, &diff, &err);
	if (!status)
		yes = answer(diff);
	if (!status && ctx->json)
		status = print_json(ctx, diff, adapters, &err);
	else if (!status && !ctx->ui->quiet)
		status = diff_text(ctx->ui, diff, adapters, args->modules, &err);
	lora_diff_free(diff);
	close_all(&opened);
	key_map_free(&map);
	if (status)
		return ui_fail(ctx->ui, &err);
	return yes ? LORA_OK : LORA_NO;
}

static const struct operand operands[] = {
    {
	.name = "X",
	.help = "an adapter or a model: what was",
	.hint = HINT_FILE,
    },
    {
	.name = "Y",
	.help = "another of its kind: what is",
	.hint = HINT_FILE,
    },
    {
	.name = "ADAPTER[:WEIGHT]",
	.help = "of two models: what shall have made Y out of X",
	.hint = HINT_FILE,
	.optional = true,
	.repeats = true,
    },
    {.name = NULL},
};

static const struct opt opts[] = {
    {
	.kind = OPT_FLAG,
	.name = "modules",
	.help = "every module or tensor that differs, not only those that differ most",
	.at = offsetof(struct diff_args, modules),
    },
    {
	.kind = OPT_FLAG,
	.name = "allow-unmatched",
	.help = "the merge left out adapter tensors without a place in the base",
	.at = offsetof(struct diff_args, allow_unmatched),
    },
    {
	.kind = OPT_FLAG,
	.name = "allow-unknown",
	.help = "accept adapter_config.json keys that loractl does not know",
	.at = offsetof(struct diff_args, allow_unknown),
    },
    {
	.kind = OPT_PATH,
	.name = "key-map",
	.metavar = "FILE",
	.help = "read from FILE which adapter names mean which base tensors, as merge does",
	.at = offsetof(struct diff_args, key_map),
	.hint = HINT_FILE,
    },
    {.name = NULL},
};

static const struct example examples[] = {
    {"what did another epoch do?", "loractl diff epoch-1/ epoch-2/ --modules"},
    {"what was changed in a model?", "loractl diff base/ model/"},
    {"is that all this adapter's doing?", "loractl diff base/ merged/ adapter/"},
    {NULL, NULL},
};

const struct cmd cmd_diff = {
    .name = "diff",
    .summary = "Say what differs between two adapters or two models",
    .operands = operands,
    .opts = opts,
    .args_size = sizeof(struct diff_args),
    .flags = CMD_REPORTS,
    .examples = examples,
    .run = run,
};
