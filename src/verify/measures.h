/* SPDX-License-Identifier: Apache-2.0 */
/* verify/measures.h - what two rows of logits are to one another. Pure functions, in f64. */
#ifndef LORA_VERIFY_MEASURES_H
#define LORA_VERIFY_MEASURES_H

#include <stddef.h>
#include <stdint.h>

/* KL(p || q) in nats of the distributions whose logits are given [n]; never below 0. */
double lora__kl(const float *p, const float *q, size_t n);
/* -ln of the probability of `id`. */
double lora__surprise(const float *logits, size_t n, uint32_t id);
/* The largest, the first of equals. */
uint32_t lora__top(const float *logits, size_t n);

/* Sums over rows. */
struct lora_measures {
	size_t rows, values, agree;
	double kl, kl_max, max_abs, sum2;
};
/* Adds row q against p, which is the reference. */
void lora__measure(struct lora_measures *m, const float *p, const float *q, size_t n);

#endif
