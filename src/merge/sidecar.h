/* SPDX-License-Identifier: Apache-2.0 */
/* merge/sidecar.h - the files of a model directory that are not its weights. */
#ifndef LORA_MERGE_SIDECAR_H
#define LORA_MERGE_SIDECAR_H

#include "merge/patch.h"
#include "merge/plan.h"

/* Bytes of one file beside the weights: a tokenizer has tens of megabytes; more than this is
 * weights. */
#define LORA_SIDECAR_LIMIT (1ull << 31)

/* Copies the base's other files into the output (config and shard index with the plan's changes),
 * the tokenizer from the adapter if asked. What is left behind is noted. */
enum lora_status lora__sidecars_write(const struct lora_plan *plan, struct lora_output *output,
				      struct lora_error *err);
/* The config.json that the merge writes beside the weights; the base has one. The caller finis
 * *text, zeroed before. */
enum lora_status lora__sidecar_config(const struct lora_plan *plan, struct lora_text *text,
				      struct lora_error *err);
/* The names of the files that tokenizers are read from; NULL-terminated. */
extern const char *const lora__tokenizer_files[];
/* Would this merge write something of this kind under this name (relative, with '/')? Its parent is
 * expected too. */
bool lora__sidecar_expected(const struct lora_plan *plan, const char *name, bool directory);
/* Notes whether an adapter brings a tokenizer that differs from the base's. */
enum lora_status lora__tokenizer_note(const struct lora_plan *plan, struct lora_error *err);

#endif
