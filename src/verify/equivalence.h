/* SPDX-License-Identifier: Apache-2.0 */
/* verify/equivalence.h - do paired times say that two things take equally long? Pure functions.
 *
 * "No significant difference" is what noisy measurements say of anything. Here equality has to be
 * shown: the 90 % interval of the median ratio lies inside 1 +- margin (two one-sided tests at 5 %,
 * Schuirmann 1987).
 */
#ifndef LORA_VERIFY_EQUIVALENCE_H
#define LORA_VERIFY_EQUIVALENCE_H

#include <loractl/verify.h>

/* Seconds of one round. */
struct lora_round {
	double base, merged, again, unmerged;
};

enum lora_equivalence {
	LORA_UNDECIDED, /* the interval crosses the margin, or the control is not equal to itself */
	LORA_EQUAL,
	LORA_SLOWER, /* the whole interval lies above 1 + margin */
};

/* The median of n ratios, given by their logarithms, which are sorted in place, and the interval
 * between two order statistics that holds the true median with a chance of at least 90 %, whatever
 * the distribution; from 0 to infinity where n is too small for one (below 5). */
struct lora_proof_interval lora__median_interval(double *logs, size_t n);

/* Fills merged, control, unmerged and milliseconds' seconds (a base round's median) of *out. `room`
 * is scratch for n numbers. */
enum lora_equivalence lora__equivalence(const struct lora_round *rounds, size_t n, double margin,
					double *room, struct lora_proof_latency *out);

#endif
