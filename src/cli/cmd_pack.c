/* SPDX-License-Identifier: Apache-2.0 */
/* cli/cmd_pack.c - `loractl pack`: a directory becomes a version of a container. */
#include <stdio.h>
#include <string.h>

#include <loractl/adapter.h>
#include <loractl/container.h>

#include "cmd.h"

struct pack_args {
	const char *output;
	const char *name;
	const char *message;
	const char *base;
	bool append;
	bool all;
};

/* What the version is to be bound to. */
struct binding {
	bool bound;
	struct lora_sha256 root;
};

static enum lora_status refuse(struct lora_error *err, enum lora_status status, const char *text)
{
	err->status = status;
	snprintf(err->message, sizeof(err->message), "%s", text);
	return status;
}

/* The binding that the adapter carries. What is no adapter to us is packed all the same: a version
 * is its files. */
static enum lora_status ask_adapter(const struct cmd_ctx *ctx, const char *directory,
				    struct binding *binding, struct lora_error *err)
{
	struct lora_adapter_options options = LORA_ADAPTER_OPTIONS_INIT;
	struct lora_adapter *adapter = NULL;
	enum lora_status status;

	options.allow_unknown = options.allow_mutated_base = true;
	status = lora_adapter_open(&adapter, directory, &options, ctx->observer, err);
	if (status == LORA_INPUT) {
		ui_note(ctx->ui, LORA_NOTE_WARNING, "packed unread: %s", err->message);
		return LORA_OK;
	}
	if (!status && lora_adapter_bound_root(adapter)) {
		binding->bound = true;
		binding->root = *lora_adapter_bound_root(adapter);
	}
	lora_adapter_close(adapter);
	return status;
}

static enum lora_status bind(const struct cmd_ctx *ctx, const char *base, struct binding *binding,
			     struct lora_error *err)
{
	struct lora_model *model = NULL;
	enum lora_status status = lora_model_open(&model, base, err);
	const struct lora_sha256 *root;

	if (!status)
		status =
		    lora_model_digest(model, LORA_DIGEST_CACHED, ctx->threads, ctx->observer, err);
	root = status ? NULL : lora_model_root(model);
	if (root && binding->bound && memcmp(root, &binding->root, sizeof(*root)) != 0)
		status =
		    refuse(err, LORA_NO,
			   "the adapter is bound to another base than --base: its loractl.json "
			   "names the one that it was trained on");
	else if (root)
		*binding = (struct binding){true, *root};
	lora_model_close(model);
	return status;
}

static void report_json(const struct cmd_ctx *ctx, const char *path,
			const struct lora_pack_result *result)
{
	struct lora_json_writer *w = lora_json_writer_new(LORA_JSON_PRETTY);
	const char *text;
	size_t length;

	lora_json_begin_object(w);
	lora_json_key(w, "schema");
	lora_json_string(w, "loractl.pack/1");
	lora_json_key(w, "container");
	lora_json_string(w, path);
	lora_json_key(w, "version");
	lora_json_uint(w, result->version);
	lora_json_key(w, "unchanged");
	lora_json_bool(w, result->unchanged);
	lora_json_key(w, "files");
	lora_json_uint(w, result->files);
	lora_json_key(w, "bytes");
	lora_json_uint(w, result->bytes);
	lora_json_key(w, "stored");
	lora_json_uint(w, result->stored);
	lora_json_key(w, "objects");
	lora_json_uint(w, result->objects);
	lora_json_key(w, "reused");
	lora_json_uint(w, result->reused);
	lora_json_end_object(w);
	if (lora_json_writer_text(w, &text, &length, NULL) == LORA_OK)
		fputs(text, ui_out(ctx->ui));
	lora_json_writer_free(w);
}

static void report(const struct cmd_ctx *ctx, const char *path,
		   const struct lora_pack_result *result)
{
	char bytes[UI_TEXT], stored[UI_TEXT], safe[1024];
	FILE *out;

	if (ctx->json) {
		report_json(ctx, path, result);
		return;
	}
	out = ui_out(ctx->ui);
	ui_escape(path, safe, sizeof(safe));
	if (result->unchanged) {
		fprintf(out, "%s: unchanged: version %llu holds this content already\n", safe,
			(unsigned long long)result->version);
		return;
	}
	fprintf(out, "%s: version %llu, %zu files, %s in %s (%.1f %%)", safe,
		(unsigned long long)result->version, result->files, ui_size(result->bytes, bytes),
		ui_size(result->stored, stored),
		result->bytes ? 100.0 * (double)result->stored / (double)result->bytes : 100.0);
	if (result->reused)
		fprintf(out, "; %zu of %zu tensors and files were there", result->reused,
			result->objects);
	fputc('\n', out);
}

static enum lora_status run(const struct cmd_ctx *ctx, const void *arguments,
			    const char *const *operands, size_t count)
{
	const struct pack_args *args = arguments;
	struct lora_pack_options options = LORA_PACK_OPTIONS_INIT;
	struct lora_pack_result result;
	struct binding binding = {0};
	struct lora_error err = LORA_ERROR_INIT;
	enum lora_status status = ask_adapter(ctx, operands[0], &binding, &err);

	(void)count;
	if (!status && args->base)
		status = bind(ctx, args->base, &binding, &err);
	options.append = args->append;
	options.all = args->all;
	options.name = args->name;
	options.message = args->message;
	options.base_root = binding.bound ? &binding.root : NULL;
	if (!status)
		status = lora_container_pack(operands[0], args->output, &options, &result,
					     ctx->observer, &err);
	if (status)
		return ui_fail(ctx->ui, &err);
	report(ctx, args->output, &result);
	return LORA_OK;
}

static const struct operand operands[] = {
    {
	.name = "DIR",
	.help = "the adapter's directory, as PEFT saves it",
	.hint = HINT_DIR,
    },
    {.name = NULL},
};

static const struct opt opts[] = {
    {
	.kind = OPT_PATH,
	.letter = 'o',
	.name = "output",
	.metavar = "F.lora",
	.help = "the container",
	.at = offsetof(struct pack_args, output),
	.hint = HINT_FILE,
	.flags = OPT_REQUIRED,
    },
    {
	.kind = OPT_FLAG,
	.name = "append",
	.help = "add the next version, if the container exists",
	.detail = "Content that the latest version has already adds none, and that is said.",
	.at = offsetof(struct pack_args, append),
    },
    {
	.kind = OPT_STRING,
	.name = "name",
	.metavar = "N",
	.help = "the adapter's name",
	.detail = "All versions of a container have one name.",
	.otherwise = "the container's, or the directory's",
	.at = offsetof(struct pack_args, name),
    },
    {
	.kind = OPT_STRING,
	.name = "message",
	.metavar = "M",
	.help = "what is new in this version; `loractl log` shows it",
	.at = offsetof(struct pack_args, message),
    },
    {
	.kind = OPT_PATH,
	.name = "base",
	.metavar = "BASE",
	.help = "bind the version to that base model",
	.detail = "`loractl merge` then refuses another one. "
		  "An adapter that carries a binding keeps it; another base than that is refused "
		  "(exit status 1).",
	.at = offsetof(struct pack_args, base),
	.hint = HINT_FILE,
    },
    {
	.kind = OPT_FLAG,
	.name = "all",
	.help = "pack the state of the training run too",
	.detail = "The optimizer's and scheduler's state, and checkpoints, which are left out and "
		  "named otherwise.",
	.at = offsetof(struct pack_args, all),
    },
    {.name = NULL},
};

static const struct example examples[] = {
    {"a new container, bound to its base", "loractl pack adapter/ -o style.lora --base base/"},
    {"the next version", "loractl pack adapter/ -o style.lora --append --message 'more data'"},
    {NULL, NULL},
};

const struct cmd cmd_pack = {
    .name = "pack",
    .summary = "Put an adapter into a versioned container",
    .operands = operands,
    .opts = opts,
    .args_size = sizeof(struct pack_args),
    .flags = CMD_REPORTS,
    .examples = examples,
    .run = run,
};
