/* SPDX-License-Identifier: Apache-2.0 */
/* net/net.c - opening a model for running: its spec, its weights, its threads */
#include "net/net.h"

#include <stdlib.h>
#include <unistd.h>

#include "base/error.h"
#include "kern/gemm.h"

/* More would only take memory: every one has scratch of its own (state.c). */
#define MOST_THREADS 256

bool lora__net_fits(uint64_t bytes)
{
	long pages = sysconf(_SC_PHYS_PAGES), size = sysconf(_SC_PAGESIZE);

	return pages <= 0 || size <= 0 || bytes / (uint64_t)size < (uint64_t)pages;
}

static enum lora_status open_net(struct lora_net *net, const struct lora_observer *observer,
				 struct lora_error *err)
{
	enum lora_status status = LORA_OK;

	if (!net->model->config)
		return lora__fail(err, LORA_INPUT,
				  "there is no config.json: give a model's directory");
	net->kern = lora__kern(err);
	if (!net->kern)
		return LORA_USAGE;
	net->vec = lora__vec(net->kern->isa);
	status = lora__spec_parse(&net->spec, net->model->config, net->options.allow_unknown,
				  &net->arena, err);
	if (!status)
		status = lora__gemm_open(err);
	if (!status)
		status = lora__team_new(
		    &net->team,
		    net->options.threads < MOST_THREADS ? net->options.threads : MOST_THREADS, err);
	return status ? status : lora__net_load(net, observer, err);
}

enum lora_status lora_net_open(struct lora_net **out, struct lora_model *model,
			       const struct lora_net_options *options,
			       const struct lora_observer *observer, struct lora_error *err)
{
	const struct lora_net_options defaults = LORA_NET_OPTIONS_INIT;
	struct lora_net *net = calloc(1, sizeof(*net));
	enum lora_status status;

	*out = NULL;
	if (!net)
		return lora__fail_memory(err);
	net->model = model;
	net->options = options ? *options : defaults;
	status = open_net(net, observer, err);
	if (status) {
		lora_net_close(net);
		return lora__context(err, status, "'%s'", lora__escape(lora_model_path(model)));
	}
	*out = net;
	return LORA_OK;
}

void lora_net_close(struct lora_net *net)
{
	if (!net)
		return;
	lora_net_detach(net);
	lora__team_free(net->team);
	lora__arena_fini(&net->arena);
	free(net->weights);
	free(net);
}

size_t lora_net_vocabulary(const struct lora_net *net)
{
	return lora__linear_matrix(&net->head)->rows;
}

size_t lora_net_positions(const struct lora_net *net)
{
	return net->spec.positions;
}
