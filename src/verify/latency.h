/* SPDX-License-Identifier: Apache-2.0 */
/* verify/latency.h - timing a merged model, inside the library. */
#ifndef LORA_VERIFY_LATENCY_H
#define LORA_VERIFY_LATENCY_H

#include "verify/proof.h"

struct lora_latency_test {
	double delay;  /* every run of the merged model is made longer by this share: what the level
			* has to find; 0 outside of tests */
	size_t rounds; /* at most */
};

enum lora_status lora__proof_latency(struct lora_proof *proof, const struct lora_latency_test *test,
				     struct lora_error *err);

#endif
