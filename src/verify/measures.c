/* SPDX-License-Identifier: Apache-2.0 */
/* verify/measures.c - what two rows of logits are to one another */
#include "verify/measures.h"

#include <math.h>

uint32_t lora__top(const float *logits, size_t n)
{
	size_t top = 0;

	for (size_t i = 1; i < n; i++)
		if (logits[i] > logits[top])
			top = i;
	return (uint32_t)top;
}

/* ln sum exp, safe from overflow. */
static double log_sum(const float *logits, size_t n)
{
	double most = (double)logits[lora__top(logits, n)], sum = 0;

	for (size_t i = 0; i < n; i++)
		sum += exp((double)logits[i] - most);
	return most + log(sum);
}

double lora__surprise(const float *logits, size_t n, uint32_t id)
{
	return log_sum(logits, n) - (double)logits[id];
}

/* sum p (ln p - ln q); since both sum to 1, sum (q - p) is 0 and may be added: then every term p ln
 * (p/q) + q - p is at least 0, and rounding cannot make the whole of them negative. */
double lora__kl(const float *p, const float *q, size_t n)
{
	double of_p = log_sum(p, n), of_q = log_sum(q, n), sum = 0;

	for (size_t i = 0; i < n; i++) {
		double a = (double)p[i] - of_p, b = (double)q[i] - of_q;

		sum += exp(a) * (a - b + expm1(b - a));
	}
	return sum > 0 ? sum : 0;
}

void lora__measure(struct lora_measures *m, const float *p, const float *q, size_t n)
{
	double kl = lora__kl(p, q, n);

	m->rows++;
	m->values += n;
	m->agree += lora__top(p, n) == lora__top(q, n);
	m->kl += kl;
	m->kl_max = fmax(m->kl_max, kl);
	for (size_t i = 0; i < n; i++) {
		double d = (double)q[i] - (double)p[i];

		m->sum2 += d * d;
		m->max_abs = fmax(m->max_abs, fabs(d));
	}
}
