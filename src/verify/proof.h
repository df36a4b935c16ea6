/* SPDX-License-Identifier: Apache-2.0 */
/* verify/proof.h - a proof while it is made, inside the library.
 *
 *	proof.c		what is claimed, by the receipt and by the caller, and whether they agree
 *	survey.c	one pass over all tensors: the facts from which bytes and modules are judged
 *	probe.c		inputs through one module, beside its weights and through the merged ones
 *	bytes.c		the level's answer; tensors that nobody expects
 *	sidecars.c	config and tokenizer
 *	logits.c	the forward pass of base, unmerged and merged
 *	measures.c	two rows of logits
 *	latency.c	runs against a clock; equivalence.c: what their times say
 *	html.c		the page
 */
#ifndef LORA_VERIFY_PROOF_H
#define LORA_VERIFY_PROOF_H

#include "merge/check.h"
#include "merge/explain.h"
#include "merge/rebuild.h"
#include <loractl/verify.h>

/* Lines that grow. */
struct lora_lines {
	const char **line; /* malloc'd; the texts are the arena's */
	size_t count, room;
};

struct lora_proof {
	struct lora_arena arena;
	struct lora_proof_options options;
	char *prompts, *reference;  /* copies, malloc'd */
	struct lora_observer quiet; /* what a plan may tell */
	const struct lora_observer *observer;
	struct lora_model *base, *merged;
	struct lora_merge_input *inputs; /* in the order of the merge */
	size_t input_count;
	struct lora_rebuild *receipt; /* NULL: foreign */
	struct lora_merge_options merge;
	struct lora_error refused; /* the claim does not hold: LORA_NO and why; else LORA_OK */
	struct lora_plan plan;
	bool planned, surveyed;
	struct lora_proof_tensor *tensors; /* by item of the plan; afterwards those that are told */
	size_t tensor_count;
	struct lora_lines problems;
	struct lora_proof_bytes bytes;
	struct lora_proof_modules modules;
	struct lora_proof_logits logits;
	struct lora_proof_latency latency;
	bool has_bytes, has_modules, has_logits, has_latency, unsupported;
};

/* proof.c */
enum lora_status lora__proof_line(struct lora_proof *proof, struct lora_lines *lines,
				  struct lora_error *err, const char *format, ...)
    LORA_PRINTF(4, 5);
/* Returns proof->refused, with its message, or LORA_OK. */
enum lora_status lora__proof_refused(const struct lora_proof *proof, struct lora_error *err);

/* survey.c: fills tensors, once. */
enum lora_status lora__proof_survey(struct lora_proof *proof, struct lora_error *err);

/* sidecars.c: a problem for every difference of config and tokenizer that counts. */
enum lora_status lora__proof_sidecars(struct lora_proof *proof, struct lora_error *err);

#endif
