/* SPDX-License-Identifier: Apache-2.0 */
/* cli/cmd_sign.c - `loractl sign`: signatures for files, directories and containers */
#include <stdio.h>

#include "cmd.h"
#include "passphrase.h"

struct sign_args {
	const char *key;
	const char *comment;
	bool force;
	const char *fd;
};

static enum lora_status run(const struct cmd_ctx *ctx, const void *arguments,
			    const char *const *paths, size_t count)
{
	const struct sign_args *args = arguments;
	struct lora_sign_options options = LORA_SIGN_OPTIONS_INIT;
	struct passphrase from = {ctx->ui, args->fd};
	struct lora_passphrase source = passphrase_source(&from);
	struct lora_error err = LORA_ERROR_INIT;
	struct lora_secret_key *key = NULL;
	struct lora_public_key public;
	char id[LORA_KEY_ID] = "";
	enum lora_status status;

	options.comment = args->comment;
	options.force = args->force;
	passphrase_guard();
	status = lora_secret_key_open(&key, args->key, &source, ctx->observer, &err);
	if (!status) {
		lora_secret_key_public(key, &public);
		lora_public_key_id(&public, id);
	}
	for (size_t i = 0; i < count && !status; i++) {
		status = lora_sign(paths[i], key, &options, ctx->observer, &err);
		if (!status && !ctx->ui->quiet)
			fprintf(ui_out(ctx->ui), "%s: signed by key %s\n", paths[i], id);
	}
	lora_secret_key_close(key);
	passphrase_unguard();
	return status ? ui_fail(ctx->ui, &err) : LORA_OK;
}

static const struct operand operands[] = {
    {
	.name = "PATH",
	.help = "a file, a directory, or a container FILE.lora[@VERSION]",
	.hint = HINT_FILE,
	.repeats = true,
    },
    {.name = NULL},
};

static const struct opt opts[] = {
    {
	.kind = OPT_PATH,
	.letter = 'k',
	.name = "key",
	.metavar = "NAME.key",
	.help = "the secret key",
	.at = offsetof(struct sign_args, key),
	.hint = HINT_FILE,
	.flags = OPT_REQUIRED,
    },
    {
	.kind = OPT_STRING,
	.name = "comment",
	.metavar = "C",
	.help = "words that are signed too, and shown when the signature is verified",
	.detail = "They stand at the beginning of the trusted comment.",
	.at = offsetof(struct sign_args, comment),
    },
    {
	.kind = OPT_FLAG,
	.name = "force",
	.help = "replace a signature that another key made",
	.detail = "One that the same key made is always replaced.",
	.at = offsetof(struct sign_args, force),
    },
    PASSPHRASE_OPT(offsetof(struct sign_args, fd)),
    {.name = NULL},
};

static const struct example examples[] = {
    {"a file: adapter.safetensors.minisig", "loractl sign adapter.safetensors -k release.key"},
    {"all files of a directory", "loractl sign adapter/ -k release.key --comment 'reviewed'"},
    {NULL, NULL},
};

const struct cmd cmd_sign = {
    .name = "sign",
    .summary = "Sign files, directories and containers",
    .operands = operands,
    .opts = opts,
    .args_size = sizeof(struct sign_args),
    .examples = examples,
    .run = run,
};
