/* SPDX-License-Identifier: Apache-2.0 */
/* formats/families.h - what has to be known about model families, because no file says it: a
 * table by config.json's model_type.
 *
 *	which modules store their weight [in, out]		(Conv1D)
 *	which names share one stored tensor			(ties)
 *	how experts stand in 3-D parameters			(MoE)
 *	which modules one release of transformers spells otherwise than the checkpoints on disk
 *
 * What has no row is not guessed. */
#ifndef LORA_FORMATS_FAMILIES_H
#define LORA_FORMATS_FAMILIES_H

#include "formats/dialect.h"

enum lora_answer { LORA_ANSWER_UNKNOWN, LORA_ANSWER_NO, LORA_ANSWER_YES };

/* Does `module` (a path) store its weight [in, out]? UNKNOWN where the family is. */
enum lora_answer lora__family_conv1d(const char *model_type, const char *module);

/* Does the model tie its embeddings: tie_word_embeddings of config.json (or of its text_config),
 * else the family's default. */
enum lora_answer lora__family_ties(const struct lora_base_view *base);

/* The i-th other name under which a model may use the tensor `name` ("lm_head.weight" for
 * "model.embed_tokens.weight", and back), whether or not this model ties them; NULL after the
 * last. Static storage. */
const char *lora__family_tied_name(const char *name, size_t i);
/* Is the pair tied in every model that has it (T5's shared.weight and
 * encoder.embed_tokens.weight)? */
bool lora__family_always_tied(const char *name, const char *other);
/* Is it an input or output embedding, by its name? */
bool lora__family_is_embedding(const char *name);

/* Is the flag is_transposed set on this family's experts (so that PEFT takes them as [E, in,
 * out])? UNKNOWN where releases differ or the family is unknown. */
enum lora_answer lora__family_experts_transposed(const char *model_type);

/* Fused experts in memory, one tensor per expert and projection on disk:
 *	memory.fused [E, parts*d, h]	the parts, one under the other
 *	disk.EXPERT.part.weight [d, h]
 */
struct lora_fusion {
	const char *memory;    /* module path's end in memory: "mlp.experts" */
	const char *parameter; /* "gate_up_proj" */
	const char *disk;      /* the same on disk: "block_sparse_moe.experts" */
	const char *parts[2];  /* "w1", "w3"; the second may be NULL */
};
/* The fusion for memory path `module` and parameter, NULL without one. */
const struct lora_fusion *lora__family_fusion(const char *model_type, const char *module,
					      const char *parameter);

/* `name` as the base spells it, if it does not stand there as it is and exactly one row of the
 * family's renamings leads to a tensor; else NULL. In the arena. */
const char *lora__family_rename(const struct lora_base_view *base, struct lora_arena *arena,
				const char *name);

#endif
