/* SPDX-License-Identifier: Apache-2.0 */
/* tests/helpers/logits.c - the engine for Python: raw logits on standard output.
 *
 *	logits MODEL [ADAPTER:WEIGHT]... -- STEP...
 *
 * Token ids, as text, come on standard input; STEP is how many of them each call of
 * lora_net_forward() appends (the last is repeated), so that a whole prompt, token by token, and
 * anything between can be compared. Output: f32 [ids, vocabulary].
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <loractl/net.h>

static struct lora_error err = LORA_ERROR_INIT;

static void check(enum lora_status status)
{
	if (status == LORA_OK)
		return;
	fprintf(stderr, "%s\n", err.message);
	exit((int)status);
}

static size_t read_ids(uint32_t **ids)
{
	size_t count = 0, room = 0;
	unsigned long id;

	*ids = NULL;
	while (scanf("%lu", &id) == 1) {
		if (count == room) {
			room = 2 * room + 64;
			*ids = realloc(*ids, room * sizeof(**ids));
			if (!*ids)
				exit(4);
		}
		(*ids)[count++] = (uint32_t)id;
	}
	return count;
}

static void attach(struct lora_net *net, char **references, size_t count)
{
	struct lora_net_input inputs[16] = {{NULL, 1}};
	struct lora_adapter_options options = LORA_ADAPTER_OPTIONS_INIT;

	for (size_t i = 0; i < count && i < 16; i++) {
		char *colon = strrchr(references[i], ':');

		*colon = '\0';
		inputs[i].weight = strtod(colon + 1, NULL);
		check(lora_adapter_open(&inputs[i].adapter, references[i], &options, NULL, &err));
	}
	check(lora_net_attach(net, inputs, count, NULL, &err));
	for (size_t i = 0; i < count; i++)
		lora_adapter_close(inputs[i].adapter);
}

static void run(struct lora_net *net, char **steps)
{
	size_t vocabulary = lora_net_vocabulary(net), at = 0, count;
	struct lora_net_state *state = NULL;
	uint32_t *ids;
	float *logits;

	count = read_ids(&ids);
	logits = calloc(count * vocabulary + 1, sizeof(*logits));
	if (!logits)
		exit(4);
	check(lora_net_state_new(&state, net, count, &err));
	while (at < count) {
		size_t step = strtoul(*steps, NULL, 10);

		step = step < count - at ? step : count - at;
		check(lora_net_forward(state, ids + at, step, LORA_NET_ALL,
				       logits + at * vocabulary, &err));
		at += step;
		steps += steps[1] != NULL;
	}
	fwrite(logits, sizeof(*logits), count * vocabulary, stdout);
	lora_net_state_free(state);
	free(logits);
	free(ids);
}

int main(int argc, char **argv)
{
	struct lora_net_options options = LORA_NET_OPTIONS_INIT;
	struct lora_model *model = NULL;
	struct lora_net *net = NULL;
	const char *threads = getenv("LORACTL_THREADS");
	int dashes = 2;

	while (dashes < argc && strcmp(argv[dashes], "--") != 0)
		dashes++;
	if (argc < 2 || dashes + 1 >= argc)
		return 2;
	options.threads = threads ? (unsigned)strtoul(threads, NULL, 10) : 0;
	check(lora_model_open(&model, argv[1], &err));
	check(lora_net_open(&net, model, &options, NULL, &err));
	if (dashes > 2)
		attach(net, argv + 2, (size_t)dashes - 2);
	run(net, argv + dashes + 1);
	lora_net_close(net);
	lora_model_close(model);
	return 0;
}
