/* SPDX-License-Identifier: Apache-2.0 */
/* cli/cmd_fsck.c - `loractl fsck`: is every byte of a container right? */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <loractl/container.h>
#include <loractl/json.h>

#include "cmd.h"

struct fsck_args {
	bool repair;
};

struct problem {
	char *where, *what;
};

struct problems {
	struct problem *item;
	size_t count;
};

/* A callback of the library. */
static void keep(void *user, const char *where, const char *what)
{
	struct problems *problems = user;
	struct problem *more =
	    realloc(problems->item, (problems->count + 1) * sizeof(*problems->item));

	if (!more)
		return;
	problems->item = more;
	more[problems->count] = (struct problem){strdup(where), strdup(what)};
	problems->count += more[problems->count].where && more[problems->count].what;
}

static void print_json(const struct cmd_ctx *ctx, const struct problems *problems,
		       const struct lora_fsck_result *result, bool repaired)
{
	struct lora_json_writer *w = lora_json_writer_new(LORA_JSON_PRETTY);
	const char *text;
	size_t length;

	lora_json_begin_object(w);
	lora_json_key(w, "schema");
	lora_json_string(w, "loractl.fsck/1");
	lora_json_key(w, "ok");
	lora_json_bool(w, result->ok);
	lora_json_key(w, "versions");
	lora_json_uint(w, result->versions);
	lora_json_key(w, "problems");
	lora_json_begin_array(w);
	for (size_t i = 0; i < problems->count; i++) {
		lora_json_begin_object(w);
		lora_json_key(w, "where");
		lora_json_string(w, problems->item[i].where);
		lora_json_key(w, "what");
		lora_json_string(w, problems->item[i].what);
		lora_json_end_object(w);
	}
	lora_json_end_array(w);
	lora_json_key(w, "repairable");
	lora_json_bool(w, result->repairable);
	lora_json_key(w, "repaired");
	lora_json_bool(w, repaired);
	lora_json_end_object(w);
	if (lora_json_writer_text(w, &text, &length, NULL) == LORA_OK)
		fputs(text, ui_out(ctx->ui));
	lora_json_writer_free(w);
}

static void print_text(const struct cmd_ctx *ctx, const char *path, const struct problems *problems,
		       const struct lora_fsck_result *result, bool repaired)
{
	FILE *out = ui_out(ctx->ui);
	char safe[1024], line[4096];

	ui_escape(path, safe, sizeof(safe));
	for (size_t i = 0; i < problems->count; i++) {
		fprintf(out, "%s: ", safe);
		fprintf(out, "%s: ", ui_escape(problems->item[i].where, line, sizeof(line)));
		fprintf(out, "%s\n", ui_escape(problems->item[i].what, line, sizeof(line)));
	}
	fprintf(out, "%s: %s", safe,
		repaired	     ? "repaired"
		: result->ok	     ? "ok"
		: result->repairable ? "not ok: --repair makes it so"
				     : "not ok");
	if (result->versions)
		fprintf(out, ", %zu version%s", result->versions, result->versions == 1 ? "" : "s");
	fputc('\n', out);
}

static enum lora_status run(const struct cmd_ctx *ctx, const void *arguments,
			    const char *const *operands, size_t count)
{
	const struct fsck_args *args = arguments;
	struct problems problems = {0};
	struct lora_fsck_result result;
	struct lora_error err = LORA_ERROR_INIT;
	enum lora_status status = lora_container_fsck(operands[0], args->repair, keep, &problems,
						      &result, ctx->observer, &err);
	bool repaired = !status && result.problems > 0;

	(void)count;
	if (status > LORA_NO)
		ui_fail(ctx->ui, &err);
	else if (ctx->json)
		print_json(ctx, &problems, &result, repaired);
	else
		print_text(ctx, operands[0], &problems, &result, repaired);
	for (size_t i = 0; i < problems.count; i++) {
		free(problems.item[i].where);
		free(problems.item[i].what);
	}
	free(problems.item);
	return status;
}

static const struct operand operands[] = {
    {
	.name = "PATH",
	.help = "a container; or a directory, where a killed command may have left something",
	.hint = HINT_FILE,
    },
    {.name = NULL},
};

static const struct opt opts[] = {
    {
	.kind = OPT_FLAG,
	.name = "repair",
	.help = "cut off what a killed writer left at the end",
	.detail = "Nothing else is changed: what is damaged cannot be made whole from itself.",
	.at = offsetof(struct fsck_args, repair),
    },
    {.name = NULL},
};

static const struct example examples[] = {
    {"is it whole?", "loractl fsck style.lora"},
    {"what did a killed command leave here?", "loractl fsck ."},
    {NULL, NULL},
};

const struct cmd cmd_fsck = {
    .name = "fsck",
    .summary = "Check every byte of a container",
    .operands = operands,
    .opts = opts,
    .args_size = sizeof(struct fsck_args),
    .flags = CMD_REPORTS,
    .examples = examples,
    .run = run,
};
