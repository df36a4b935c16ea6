/* SPDX-License-Identifier: Apache-2.0 */
/* cli/cmd_inspect.c - `loractl inspect`: what is this path, and what is in it? */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "inspect.h"

struct inspect_args {
	bool modules;
	bool tensors;
	bool spectrum;
	const char *base;
	int engine; /* index into engines, or -1 */
};

/* The names that lora_adapter_loads_in() takes. */
static const char *const engines[] = {"peft", "vllm", "llama.cpp", NULL};

void sum_types(struct type_sums *sums, const struct lora_model *model)
{
	memset(sums, 0, sizeof(*sums));
	for (size_t i = 0; i < lora_model_tensor_count(model); i++) {
		const struct lora_tensor *t = lora_model_tensor(model, i);

		sums->tensors[t->dtype]++;
		sums->elements[t->dtype] += t->elements;
		sums->bytes[t->dtype] += t->size;
	}
}

void rank_range(const struct lora_adapter *adapter, uint32_t *min, uint32_t *max)
{
	*min = *max = 0;
	for (size_t i = 0; i < lora_adapter_module_count(adapter); i++) {
		uint32_t rank = lora_adapter_module(adapter, i)->rank;

		if (rank && (!*min || rank < *min))
			*min = rank;
		if (rank > *max)
			*max = rank;
	}
}

/* A callback of the library: keeps the line. */
static void keep_line(void *user, const char *line)
{
	struct lines *lines = user;
	char **more = realloc(lines->line, (lines->count + 1) * sizeof(*more));

	if (!more)
		return;
	lines->line = more;
	more[lines->count] = strdup(line);
	lines->count += more[lines->count] != NULL;
}

static void free_lines(struct lines *lines)
{
	for (size_t i = 0; i < lines->count; i++)
		free(lines->line[i]);
	free(lines->line);
}

/* The two questions about an adapter. LORA_NO is an answer, not a failure. */
static enum lora_status ask(struct inspected *what, const struct inspect_view *view,
			    struct lora_error *err)
{
	struct lora_model *base = NULL;
	enum lora_status status = LORA_OK;

	if (view->base) {
		status = lora_model_open(&base, view->base, err);
		if (!status)
			status =
			    lora_adapter_fits(what->adapter, base, keep_line, &what->misfits, err);
		what->fits = status == LORA_OK;
		lora_model_close(base);
	}
	if (view->engine && status <= LORA_NO) {
		status = lora_adapter_loads_in(what->adapter, view->engine, keep_line,
					       &what->obstacles, err);
		what->loads = status == LORA_OK;
	}
	return status <= LORA_NO ? LORA_OK : status;
}

static enum lora_status look_at_adapter(const struct cmd_ctx *ctx, struct inspected *what,
					const struct inspect_view *view, struct lora_error *err)
{
	struct lora_adapter_options options = LORA_ADAPTER_OPTIONS_INIT;
	enum lora_status status;

	options.allow_mutated_base = true; /* looking harms nobody; the method says what it is */
	status = lora_adapter_open(&what->adapter, what->path, &options, ctx->observer, err);
	if (!status)
		status = lora_adapter_measure(what->adapter, ctx->threads, ctx->observer, err);
	if (!status)
		status = lora_adapter_root(what->adapter, &what->root, err);
	return status ? status : ask(what, view, err);
}

static enum lora_status look_at_model(const struct cmd_ctx *ctx, struct inspected *what,
				      struct lora_error *err)
{
	struct lora_error stale = LORA_ERROR_INIT;
	enum lora_status status = lora_model_open(&what->model, what->path, err);

	if (!status && lora_receipt_check(lora_model_path(what->model), &stale))
		keep_line(&what->problems, stale.message);
	if (!status)
		status = lora_model_digest(what->model, LORA_DIGEST_CACHED, ctx->threads,
					   ctx->observer, err);
	if (!status)
		what->root = *lora_model_root(what->model);
	return status;
}

/* Its tensors are those of any safetensors file. */
static enum lora_status look_at_record(struct inspected *what, const struct inspect_view *view,
				       struct lora_error *err)
{
	enum lora_status status = lora_undo_record_open(&what->record, what->path, err);

	return status || !view->tensors ? status : lora_model_open(&what->model, what->path, err);
}

/* The history; and the version as an adapter, unless it is none that we can read. */
static enum lora_status look_at_container(const struct cmd_ctx *ctx, struct inspected *what,
					  const struct inspect_view *view, struct lora_error *err)
{
	struct lora_error why = LORA_ERROR_INIT;
	enum lora_status status = lora_log_open(&what->log, what->path, ctx->observer, err);

	if (status || lora_log_count(what->log) == 0)
		return status;
	status = look_at_adapter(ctx, what, view, &why);
	if (status == LORA_INPUT && !what->adapter && !view->base && !view->engine) {
		ui_note(ctx->ui, LORA_NOTE_WARNING, "%s", why.message);
		return LORA_OK;
	}
	if (status)
		*err = why;
	return status;
}

/* One path, from opening to printing. *no becomes true if an answer was no. */
static enum lora_status inspect(const struct cmd_ctx *ctx, const char *path,
				const struct inspect_view *view, struct lora_json_writer *writer,
				bool *no, struct lora_error *err)
{
	struct inspected what = {.path = path};
	enum lora_status status = lora_kind_of(path, &what.kind, err);

	if (!status && what.kind == LORA_KIND_ADAPTER)
		status = look_at_adapter(ctx, &what, view, err);
	else if (!status && what.kind == LORA_KIND_UNDO)
		status = look_at_record(&what, view, err);
	else if (!status && what.kind == LORA_KIND_CONTAINER)
		status = look_at_container(ctx, &what, view, err);
	else if (!status)
		status = look_at_model(ctx, &what, err);
	if (!status && !what.adapter && (view->base || view->engine)) {
		status = err->status = LORA_USAGE;
		snprintf(err->message, sizeof(err->message),
			 "'%.200s' is no adapter: --base and --for ask about one", path);
	}
	if (!status && writer)
		status = inspect_json(writer, &what, view, err);
	else if (!status && !ctx->ui->quiet)
		status = inspect_text(ctx->ui, &what, view, err);
	*no = *no || (!status && ((view->base && !what.fits) || (view->engine && !what.loads)));
	free_lines(&what.misfits);
	free_lines(&what.obstacles);
	free_lines(&what.problems);
	lora_adapter_close(what.adapter);
	lora_model_close(what.model);
	lora_undo_record_close(what.record);
	lora_log_close(what.log);
	return status;
}

static enum lora_status run(const struct cmd_ctx *ctx, const void *arguments,
			    const char *const *paths, size_t count)
{
	const struct inspect_args *args = arguments;
	struct inspect_view view = {args->modules, args->tensors, args->spectrum, args->base,
				    args->engine < 0 ? NULL : engines[args->engine]};
	struct lora_json_writer *writer = ctx->json ? lora_json_writer_new(LORA_JSON_PRETTY) : NULL;
	struct lora_error err = LORA_ERROR_INIT;
	enum lora_status status = LORA_OK;
	const char *text;
	size_t length;
	bool no = false;

	if (count > 1)
		lora_json_begin_array(writer);
	for (size_t i = 0; i < count && !status; i++)
		status = inspect(ctx, paths[i], &view, writer, &no, &err);
	if (count > 1)
		lora_json_end_array(writer);
	if (!status && ctx->json)
		status = lora_json_writer_text(writer, &text, &length, &err);
	if (!status && ctx->json)
		fputs(text, ui_out(ctx->ui));
	lora_json_writer_free(writer);
	if (status)
		return ui_fail(ctx->ui, &err);
	return no ? LORA_NO : LORA_OK;
}

static const struct operand operands[] = {
    {
	.name = "PATH",
	.help = "an adapter, a container of one, a model, or the record of a merge",
	.hint = HINT_FILE,
	.repeats = true,
    },
    {.name = NULL},
};

static const struct opt opts[] = {
    {
	.kind = OPT_FLAG,
	.name = "modules",
	.help = "one line a module: shape, rank, alpha, scale and where it came from",
	.at = offsetof(struct inspect_args, modules),
    },
    {
	.kind = OPT_FLAG,
	.name = "tensors",
	.help = "one line a tensor, as it is stored",
	.at = offsetof(struct inspect_args, tensors),
    },
    {
	.kind = OPT_FLAG,
	.name = "spectrum",
	.help = "the singular values of every module's update",
	.detail = "Those of s*B*A, from the factors; the full matrix is never made.",
	.at = offsetof(struct inspect_args, spectrum),
    },
    {
	.kind = OPT_PATH,
	.name = "base",
	.metavar = "BASE",
	.help = "does the adapter fit that base, and what does not",
	.detail = "If it does not fit, the exit status is 1.",
	.at = offsetof(struct inspect_args, base),
	.hint = HINT_FILE,
    },
    {
	.kind = OPT_CHOICE,
	.name = "for",
	.choices = engines,
	.help = "will that engine load the adapter, and why not",
	.detail = "If it will not, the exit status is 1.",
	.at = offsetof(struct inspect_args, engine),
    },
    {.name = NULL},
};

static const struct example examples[] = {
    {"what is it?", "loractl inspect adapter/"},
    {"every module's scale and norm", "loractl inspect adapter/ --modules"},
    {"does it fit, and will vLLM load it?", "loractl inspect adapter/ --base base/ --for vllm"},
    {NULL, NULL},
};

const struct cmd cmd_inspect = {
    .name = "inspect",
    .summary = "Say what a path is and what is in it",
    .operands = operands,
    .opts = opts,
    .args_size = sizeof(struct inspect_args),
    .flags = CMD_REPORTS,
    .examples = examples,
    .run = run,
};
