/* SPDX-License-Identifier: Apache-2.0 */
/* verify/equivalence.c - medians, their intervals, and what follows from them */
#include "verify/equivalence.h"

#include <math.h>
#include <stdlib.h>

static int ascending(const void *x, const void *y)
{
	double a = *(const double *)x, b = *(const double *)y;

	return (a > b) - (a < b);
}

static double median(const double *sorted, size_t n)
{
	return n ? (sorted[(n - 1) / 2] + sorted[n / 2]) / 2 : NAN;
}

/* How many of n coin tosses may be heads, at most, so that the chance of so few is below 5 %: the
 * (k + 1)th smallest and (k + 1)th largest value then enclose the median with 90 % (David and
 * Nagaraja 2003, section 7.1). SIZE_MAX if not even 0 may. */
static size_t tail(size_t n)
{
	double chance = pow(0.5, (double)n), sum = 0;
	size_t k = 0;

	if (n > 1000) /* chance is 0 in f64: the normal limit */
		return (size_t)((double)n / 2 - 1.645 * sqrt((double)n) / 2 - 1);
	for (;; k++) {
		sum += chance;
		if (sum > 0.05)
			return k - 1;
		chance *= (double)(n - k) / (double)(k + 1);
	}
}

struct lora_proof_interval lora__median_interval(double *logs, size_t n)
{
	struct lora_proof_interval interval = {NAN, 0, INFINITY};
	size_t k = tail(n);

	qsort(logs, n, sizeof(*logs), ascending);
	if (n)
		interval.ratio = exp(median(logs, n));
	if (k < n) {
		interval.low = exp(logs[k]);
		interval.high = exp(logs[n - 1 - k]);
	}
	return interval;
}

static bool inside(const struct lora_proof_interval *interval, double margin)
{
	return interval->low >= 1 - margin && interval->high <= 1 + margin;
}

enum lora_equivalence lora__equivalence(const struct lora_round *rounds, size_t n, double margin,
					double *room, struct lora_proof_latency *out)
{
	for (size_t i = 0; i < n; i++)
		room[i] = log(rounds[i].again / rounds[i].merged);
	out->control = lora__median_interval(room, n);
	for (size_t i = 0; i < n; i++)
		room[i] = log(rounds[i].unmerged / rounds[i].base);
	out->unmerged = lora__median_interval(room, n);
	for (size_t i = 0; i < n; i++)
		room[i] = rounds[i].base;
	qsort(room, n, sizeof(*room), ascending);
	out->milliseconds = 1000 * median(room, n);
	/* Both runs of the merged model count: their noise is halved. */
	for (size_t i = 0; i < n; i++)
		room[i] = log(rounds[i].merged * rounds[i].again) / 2 - log(rounds[i].base);
	out->merged = lora__median_interval(room, n);
	out->rounds = n;
	if (!inside(&out->control, margin))
		return LORA_UNDECIDED;
	if (inside(&out->merged, margin))
		return LORA_EQUAL;
	return out->merged.low > 1 + margin ? LORA_SLOWER : LORA_UNDECIDED;
}
