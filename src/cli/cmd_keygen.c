/* SPDX-License-Identifier: Apache-2.0 */
/* cli/cmd_keygen.c - `loractl keygen`: a pair of keys in minisign's formats */
#include <stdio.h>

#include "cmd.h"
#include "passphrase.h"

struct keygen_args {
	const char *name;
	const char *comment;
	bool no_passphrase;
	const char *fd;
};

static enum lora_status run(const struct cmd_ctx *ctx, const void *arguments,
			    const char *const *operands, size_t count)
{
	const struct keygen_args *args = arguments;
	struct passphrase from = {ctx->ui, args->fd};
	struct lora_passphrase source = passphrase_source(&from);
	struct lora_error err = LORA_ERROR_INIT;
	char id[LORA_KEY_ID], text[LORA_KEY_TEXT];
	struct lora_public_key key;
	enum lora_status status;

	(void)operands;
	(void)count;
	if (args->no_passphrase && args->fd)
		return ui_failf(ctx->ui, LORA_USAGE,
				"--no-passphrase and --passphrase-fd exclude each other: give one");
	passphrase_guard();
	status = lora_key_generate(&key, args->name, args->comment,
				   args->no_passphrase ? NULL : &source, &err);
	passphrase_unguard();
	if (status)
		return ui_fail(ctx->ui, &err);
	if (ctx->ui->quiet)
		return LORA_OK;
	lora_public_key_id(&key, id);
	lora_public_key_text(&key, text);
	fprintf(ui_out(ctx->ui), "key %s\n%s\n", id, text);
	return LORA_OK;
}

static const struct operand operands[] = {{.name = NULL}};

static const struct opt opts[] = {
    {
	.kind = OPT_PATH,
	.letter = 'o',
	.name = "output",
	.metavar = "NAME",
	.help = "write NAME.key (the secret) and NAME.pub",
	.detail = "Neither may exist: a key is never replaced.",
	.at = offsetof(struct keygen_args, name),
	.hint = HINT_FILE,
	.flags = OPT_REQUIRED,
    },
    {
	.kind = OPT_STRING,
	.name = "comment",
	.metavar = "C",
	.help = "the untrusted comment of both files",
	.otherwise = "minisign's, with the key's id",
	.at = offsetof(struct keygen_args, comment),
    },
    {
	.kind = OPT_FLAG,
	.name = "no-passphrase",
	.help = "store the secret key as it is",
	.detail =
	    "Whoever reads the file can sign with it: for machines whose files are the secret "
	    "store's.",
	.at = offsetof(struct keygen_args, no_passphrase),
    },
    PASSPHRASE_OPT(offsetof(struct keygen_args, fd)),
    {.name = NULL},
};

static const struct example examples[] = {
    {"a pair of keys; asks for a passphrase", "loractl keygen -o release"},
    {"for a pipeline", "loractl keygen -o ci --no-passphrase --comment 'CI of team A'"},
    {NULL, NULL},
};

const struct cmd cmd_keygen = {
    .name = "keygen",
    .summary = "Make a pair of keys for signing",
    .operands = operands,
    .opts = opts,
    .args_size = sizeof(struct keygen_args),
    .examples = examples,
    .run = run,
};
