/* SPDX-License-Identifier: Apache-2.0 */
/* cli/running.h - MODEL with --adapter A[:W]...: what eval and generate have in common. */
#ifndef LORA_CLI_RUNNING_H
#define LORA_CLI_RUNNING_H

#include <loractl/net.h>

#include "cmd.h"

/* A model that is ready to run, and its tokenizer. Zeroed it is closed. */
struct running {
	struct lora_model *model;
	struct lora_tokenizer *tokenizer;
	struct lora_net *net;
};

/* Opens MODEL and lays the adapters over it. The caller closes it also after a failure. */
enum lora_status running_open(struct running *r, const struct cmd_ctx *ctx, const char *model,
			      const struct opt_list *adapters, bool allow_unknown,
			      struct lora_error *err);
void running_close(struct running *r);

/* --template NAME; NULL is the model's own (LORA_CHAT_NONE). LORA_USAGE names those that exist. */
enum lora_status running_chat(const char *name, enum lora_chat *chat, struct lora_error *err);

/* The options of both, for a table of struct NAME_args. */
#define RUNNING_OPTS(args)                                                                         \
	{                                                                                          \
	    .kind = OPT_LIST,                                                                      \
	    .name = "adapter",                                                                     \
	    .metavar = "ADAPTER[:WEIGHT]",                                                         \
	    .help = "lay an adapter over the model; may be given more than once",                  \
	    .detail = "The weights stay as they are: every module computes Wx + s*B(Ax). "         \
		      "WEIGHT is a decimal, 1 if absent.",                                         \
	    .at = offsetof(struct args, adapters),                                                 \
	    .hint = HINT_FILE,                                                                     \
	},                                                                                         \
	    {                                                                                      \
		.kind = OPT_FLAG,                                                                  \
		.name = "allow-unknown",                                                           \
		.help = "accept keys of config.json and adapter_config.json that are not known",   \
		.detail = "A key that is not known might change what the model computes.",         \
		.at = offsetof(struct args, allow_unknown),                                        \
	    },                                                                                     \
	{                                                                                          \
		.kind = OPT_STRING, .name = "template", .metavar = "NAME",                         \
		.help = "how messages are spelled: plain, chatml, llama2, llama3, mistral",        \
		.otherwise = "as the model's own chat template does",                              \
		.at = offsetof(struct args, template),                                             \
	}

#endif
