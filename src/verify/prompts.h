/* SPDX-License-Identifier: Apache-2.0 */
/* verify/prompts.h - the token sequences on which models are compared. */
#ifndef LORA_VERIFY_PROMPTS_H
#define LORA_VERIFY_PROMPTS_H

#include "verify/proof.h"

struct lora_prompt {
	uint32_t *ids;	     /* room for `total` */
	size_t count, total; /* tokens of the prompt; with its continuation */
};

struct lora_prompts {
	struct lora_arena arena;
	struct lora_prompt *at;
	size_t count;
	struct lora_model *reference;	  /* of --reference-logits; or NULL */
	const struct lora_tensor *logits; /* its logits [prompts, tokens, vocabulary] */
};

struct lora_prompt_limits {
	size_t vocabulary, positions;
};

/* From the reference's input_ids, the file of prompts, or the seed. LORA_INPUT if there is none, or
 * if the reference's logits are of other prompts. The caller finis also after a failure. */
enum lora_status lora__prompts_make(struct lora_prompts *prompts, const struct lora_proof *proof,
				    struct lora_prompt_limits limits, struct lora_error *err);
void lora__prompts_fini(struct lora_prompts *prompts);
/* The reference's logits of token `at` of prompt i, `vocabulary` of them; at < its tokens. */
enum lora_status lora__prompts_reference(const struct lora_prompts *prompts, size_t i, size_t at,
					 float *out, struct lora_error *err);
/* Tokens of a prompt for which the reference has logits; 0 without one. */
size_t lora__prompts_covered(const struct lora_prompts *prompts, size_t i);

#endif
