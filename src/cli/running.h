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

/* Their options, a member of the args struct called `run`. */
struct running_args {
	struct opt_list adapters;
	const char *key_map;
	bool allow_unmatched, allow_unknown, allow_mutated_base;
	const char *template;
};

/* Opens MODEL and lays the adapters over it. The caller closes it also after a failure. */
enum lora_status running_open(struct running *r, const struct cmd_ctx *ctx, const char *model,
			      const struct running_args *args, struct lora_error *err);
void running_close(struct running *r);

/* --template NAME; NULL is the model's own (LORA_CHAT_NONE). LORA_USAGE names those that exist. */
enum lora_status running_chat(const char *name, enum lora_chat *chat, struct lora_error *err);

/* The options of both, for the table of a struct NAME_args. */
#define RUNNING_OPTS(args)                                                                         \
	{                                                                                          \
	    .kind = OPT_LIST,                                                                      \
	    .name = "adapter",                                                                     \
	    .metavar = "ADAPTER[:WEIGHT]",                                                         \
	    .help = "lay an adapter over the model",                                               \
	    .detail = "The weights stay as they are: every module computes Wx + s*B(Ax). "         \
		      "WEIGHT is a decimal, 1 if absent.",                                         \
	    .at = offsetof(struct args, run.adapters),                                             \
	    .hint = HINT_FILE,                                                                     \
	},                                                                                         \
	    {                                                                                      \
		.kind = OPT_STRING,                                                                \
		.name = "template",                                                                \
		.metavar = "NAME",                                                                 \
		.help = "how messages are spelled: plain, chatml, llama2, llama3, mistral",        \
		.otherwise = "as the model's own chat template does",                              \
		.at = offsetof(struct args, run.template),                                         \
	    },                                                                                     \
	    {                                                                                      \
		.kind = OPT_FLAG,                                                                  \
		.name = "allow-unmatched",                                                         \
		.help = "leave out adapter tensors that have no place in the model",               \
		.at = offsetof(struct args, run.allow_unmatched),                                  \
	    },                                                                                     \
	    {                                                                                      \
		.kind = OPT_PATH,                                                                  \
		.name = "key-map",                                                                 \
		.metavar = "FILE",                                                                 \
		.help = "read from FILE which adapter names mean which of the model's tensors",    \
		.detail = "As for merge.",                                                         \
		.at = offsetof(struct args, run.key_map),                                          \
		.hint = HINT_FILE,                                                                 \
	    },                                                                                     \
	    {                                                                                      \
		.kind = OPT_FLAG,                                                                  \
		.name = "allow-unknown",                                                           \
		.help = "accept keys of config.json and adapter_config.json that are not known",   \
		.detail = "A key that is not known might change what the model computes.",         \
		.at = offsetof(struct args, run.allow_unknown),                                    \
	    },                                                                                     \
	{                                                                                          \
		.kind = OPT_FLAG, .name = "allow-mutated-base",                                    \
		.help = "MODEL is the one that PiSSA, OLoRA ... changed at initialisation",        \
		.detail = "Such an adapter is right only beside the residual base that its "       \
			  "training saved.",                                                       \
		.at = offsetof(struct args, run.allow_mutated_base),                               \
	}

#endif
