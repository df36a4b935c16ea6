/* SPDX-License-Identifier: Apache-2.0 */
/* tests/bench/bench_net.c - the engine's side of `run net`, and its limits: reads the name of a
 *piece of work, does it, prints the seconds it took.
 *
 *	prefill	a prompt of 512 tokens to the logits of the last
 *	decode	64 tokens behind it, each the likeliest
 *	gemm	the matrices of a prefill alone, by OpenBLAS with its own threads
 *	read	the bytes of the weights 64 times, every core a share
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/pool.h"
#include "kern/blas.h"
#include "net/net.h"

#define PROMPT 512
#define MADE   64

static struct lora_error err = LORA_ERROR_INIT;

static void check(enum lora_status status)
{
	if (status == LORA_OK)
		return;
	fprintf(stderr, "bench_net: %s\n", err.message);
	exit((int)status);
}

static double now(void)
{
	struct timespec time;

	clock_gettime(CLOCK_MONOTONIC, &time);
	return (double)time.tv_sec + (double)time.tv_nsec * 1e-9;
}

struct bench {
	struct lora_net *net;
	struct lora_net_state *state;
	float *logits, *x, *y;
	volatile uint64_t sink;
};

static void prefill(struct bench *b)
{
	uint32_t ids[PROMPT];

	for (size_t i = 0; i < PROMPT; i++)
		ids[i] = (uint32_t)((3 + 7 * i) % lora_net_vocabulary(b->net));
	lora_net_state_cut(b->state, 0);
	check(lora_net_forward(b->state, ids, PROMPT, LORA_NET_LAST, b->logits, &err));
}

static void decode(struct bench *b)
{
	size_t n = lora_net_vocabulary(b->net);

	for (size_t i = 0; i < MADE; i++) {
		uint32_t best = 0;

		for (size_t k = 1; k < n; k++)
			if (b->logits[k] > b->logits[best])
				best = (uint32_t)k;
		check(lora_net_forward(b->state, &best, 1, LORA_NET_LAST, b->logits, &err));
	}
}

static void multiply(struct bench *b, const struct lora_matrix *W)
{
	lora__blas(NULL)->sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, PROMPT, (int)W->rows,
				(int)W->cols, 1, b->x, (int)W->cols, W->data, (int)W->cols, 0, b->y,
				(int)W->rows);
}

static void gemm(struct bench *b)
{
	const struct lora_blas *blas = lora__blas(NULL);

	blas->set_threads((int)lora__team_count(b->net->team));
	for (size_t i = 0; i < b->net->spec.layers; i++) {
		const struct lora_layer *layer = &b->net->layers[i];

		multiply(b, &layer->qkv.W);
		multiply(b, &layer->out.W);
		multiply(b, &layer->up.W);
		multiply(b, &layer->down.W);
	}
	blas->set_threads(1);
}

static void read_share(void *user, unsigned worker, unsigned count)
{
	struct bench *b = user;
	const uint64_t *words = (const void *)b->net->weights;
	uint64_t sum[32] = {0};
	size_t begin, end;

	lora__team_share(b->net->weights_size / 8, 512, worker, count, &begin, &end);
	end -= (end - begin) % 32;
	for (size_t i = begin; i < end; i += 32)
		for (size_t k = 0; k < 32; k++)
			sum[k] += words[i + k];
	for (size_t k = 0; k < 32; k++)
		b->sink += sum[k];
}

static void open_bench(struct bench *b, const char *path)
{
	struct lora_net_options options = LORA_NET_OPTIONS_INIT;
	struct lora_model *model = NULL;
	const struct lora_spec *s;
	size_t most;

	check(lora_model_open(&model, path, &err));
	check(lora_net_open(&b->net, model, &options, NULL, &err));
	check(lora_net_state_new(&b->state, b->net, PROMPT + MADE, &err));
	s = &b->net->spec;
	most = 2 * s->hidden > 3 * s->width ? 2 * s->hidden : 3 * s->width;
	b->logits = calloc(lora_net_vocabulary(b->net), sizeof(float));
	b->x = calloc(most, PROMPT * sizeof(float));
	b->y = calloc(most, PROMPT * sizeof(float));
	if (!b->logits || !b->x || !b->y)
		exit(4);
	for (size_t i = 0; i < most * PROMPT; i++)
		b->x[i] = (float)(i % 17) - 8;
}

int main(int argc, char **argv)
{
	struct bench b = {NULL};
	char work[32];

	if (argc != 2)
		return 2;
	open_bench(&b, argv[1]);
	while (fgets(work, sizeof(work), stdin)) {
		double began;

		work[strcspn(work, "\n")] = '\0';
		if (strcmp(work, "decode") == 0)
			prefill(&b);
		began = now();
		if (strcmp(work, "prefill") == 0)
			prefill(&b);
		else if (strcmp(work, "decode") == 0)
			decode(&b);
		else if (strcmp(work, "gemm") == 0)
			gemm(&b);
		else
			for (size_t i = 0; i < MADE; i++)
				lora__team_run(b.net->team, read_share, &b);
		printf("%.6f\n", now() - began);
		fflush(stdout);
	}
	return 0;
}
