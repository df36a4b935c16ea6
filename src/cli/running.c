/* SPDX-License-Identifier: Apache-2.0 */
/* cli/running.c - opening a model to run it, with adapters beside its weights */
#include "running.h"

#include <stdio.h>
#include <stdlib.h>

#include "key_map.h"
#include "reference.h"

/* Adapters are needed until they are attached. */
struct inputs {
	struct lora_net_input *input;
	size_t count;
	struct key_map map;
};

static enum lora_status open_inputs(struct inputs *inputs, const struct cmd_ctx *ctx,
				    const struct running_args *args, struct lora_error *err)
{
	const struct opt_list *references = &args->adapters;
	struct lora_adapter_options options = LORA_ADAPTER_OPTIONS_INIT;

	if (args->key_map && key_map_read(&inputs->map, args->key_map, err))
		return err->status;
	options.allow_unknown = args->allow_unknown;
	options.allow_mutated_base = args->allow_mutated_base;
	options.key_map = inputs->map.pairs;
	inputs->input = calloc(references->count + 1, sizeof(*inputs->input));
	if (!inputs->input)
		return opt_fail(err, LORA_SYSTEM, "out of memory");
	for (size_t i = 0; i < references->count; i++) {
		struct lora_net_input *input = &inputs->input[i];
		char *path = NULL;
		enum lora_status status =
		    reference_split(references->item[i], &path, &input->weight, err);

		if (!status)
			status =
			    lora_adapter_open(&input->adapter, path, &options, ctx->observer, err);
		free(path);
		if (status)
			return status;
		inputs->count++;
	}
	return LORA_OK;
}

static enum lora_status open_net(struct running *r, const struct cmd_ctx *ctx,
				 const struct inputs *inputs, const struct running_args *args,
				 struct lora_error *err)
{
	struct lora_net_options options = LORA_NET_OPTIONS_INIT;
	enum lora_status status;

	options.threads = ctx->threads;
	options.allow_unknown = args->allow_unknown;
	options.allow_unmatched = args->allow_unmatched;
	status = lora_net_open(&r->net, r->model, &options, ctx->observer, err);
	return status ? status
		      : lora_net_attach(r->net, inputs->input, inputs->count, ctx->observer, err);
}

/* What is small comes first: a missing tokenizer is told before gigabytes are read. */
enum lora_status running_open(struct running *r, const struct cmd_ctx *ctx, const char *model,
			      const struct running_args *args, struct lora_error *err)
{
	struct inputs inputs = {NULL, 0, {NULL, 0, NULL}};
	enum lora_status status = lora_model_open(&r->model, model, err);

	if (!status && !lora_model_is_directory(r->model))
		status = opt_fail(err, LORA_INPUT,
				  "'%.200s' is one file: give a model's directory, with its "
				  "config.json and tokenizer.json",
				  model);
	if (!status)
		status = lora_tokenizer_open(&r->tokenizer, lora_model_path(r->model), err);
	if (!status)
		status = open_inputs(&inputs, ctx, args, err);
	if (!status)
		status = open_net(r, ctx, &inputs, args, err);
	for (size_t i = 0; i < inputs.count; i++)
		lora_adapter_close(inputs.input[i].adapter);
	free(inputs.input);
	key_map_free(&inputs.map);
	return status;
}

void running_close(struct running *r)
{
	lora_net_close(r->net);
	lora_tokenizer_close(r->tokenizer);
	lora_model_close(r->model);
}

enum lora_status running_chat(const char *name, enum lora_chat *chat, struct lora_error *err)
{
	char known[128] = "";
	size_t used = 0;

	*chat = name ? lora_chat_find(name) : LORA_CHAT_NONE;
	if (*chat != LORA_CHAT_OTHER)
		return LORA_OK;
	for (int i = LORA_CHAT_PLAIN; i < LORA_CHAT_COUNT && used < sizeof(known); i++)
		used += (size_t)snprintf(known + used, sizeof(known) - used, "%s%s",
					 used ? ", " : "", lora_chat_name((enum lora_chat)i));
	return opt_fail(err, LORA_USAGE, "there is no template '%.100s': use one of: %s", name,
			known);
}
