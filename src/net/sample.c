/* SPDX-License-Identifier: Apache-2.0 */
/* net/sample.c - which token comes next.
 *
 * Without a temperature the likeliest, the first of equals. With one, token i has the chance
 * exp(logit[i]/temperature) / sum; top_p keeps the likeliest tokens, as few as together reach it
 * (Holtzman et al. 2020), and their chances in proportion. The draw is one number of SplitMix64
 * (Steele et al. 2014) a token, so that a seed and the logits decide everything.
 */
#include <math.h>
#include <stdlib.h>

#include "net/net.h"

/* [0, 1), 53 bits. */
static double draw(uint64_t *random)
{
	uint64_t z = *random += 0x9e3779b97f4a7c15u;

	z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
	z = (z ^ z >> 27) * 0x94d049bb133111ebu;
	z ^= z >> 31;
	return (double)(z >> 11) * 0x1p-53;
}

static uint32_t likeliest(const float *logits, size_t n)
{
	size_t best = 0;

	for (size_t i = 1; i < n; i++)
		if (logits[i] > logits[best])
			best = i;
	return (uint32_t)best;
}

static int by_chance(const void *left, const void *right)
{
	const struct lora_candidate *a = left, *b = right;

	if (a->p != b->p)
		return a->p > b->p ? -1 : 1;
	return a->id < b->id ? -1 : a->id > b->id;
}

/* The nucleus, to the front of room; how many. Of tokens rarer than (1 - top_p)/n none is in it:
 * all of them together do not make up 1 - top_p. */
static size_t nucleus(struct lora_candidate *room, size_t n, double top_p)
{
	double least = (1 - top_p) / (double)n, reached = 0;
	size_t kept = 0, count = 0;

	for (size_t i = 0; i < n; i++)
		if (room[i].p >= least)
			room[kept++] = room[i];
	qsort(room, kept, sizeof(*room), by_chance);
	while (count < kept && (count == 0 || reached < top_p))
		reached += room[count++].p;
	return count;
}

uint32_t lora__net_choose(const float *logits, size_t n, const struct lora_net_sampling *sampling,
			  struct lora_candidate *room, uint64_t *random)
{
	uint32_t best = likeliest(logits, n);
	double sum = 0, point;
	size_t count = n;

	if (sampling->temperature == 0)
		return best;
	for (size_t i = 0; i < n; i++) {
		double p = exp(((double)logits[i] - (double)logits[best]) / sampling->temperature);

		room[i] = (struct lora_candidate){p, (uint32_t)i};
		sum += p;
	}
	for (size_t i = 0; i < n; i++)
		room[i].p /= sum;
	if (sampling->top_p < 1)
		count = nucleus(room, n, sampling->top_p);
	sum = 0;
	for (size_t i = 0; i < count; i++)
		sum += room[i].p;
	point = draw(random) * sum;
	for (size_t i = 0; i < count; i++) {
		point -= room[i].p;
		if (point < 0)
			return room[i].id;
	}
	return room[count - 1].id; /* rounding alone leads here */
}
