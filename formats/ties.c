/* SPDX-License-Identifier: Apache-2.0 */
/* formats/ties.c - one stored tensor, several names: input embeddings that are the output's, too.
 *
 * 1. A checkpoint stores tied weights once. The name that is missing there is an alias of the one
 *    that is not.
 * 2. config.json's tie_word_embeddings decides whether two names are tied; where the key is
 *    absent, the family's default, since transformers leaves out what equals it. An alias is not
 *    taken where the model says that it does not tie.
 * 3. T5 and BART tie their encoder's and decoder's input embeddings in any case. */
#include "formats/families.h"

#include <string.h>

struct tie {
	const char *stored, *alias; /* in either role */
	bool always;
};

static const struct tie ties[] = {
    {"model.embed_tokens.weight", "lm_head.weight", false},
    {"embed_tokens.weight", "lm_head.weight", false},
    {"transformer.wte.weight", "lm_head.weight", false},
    {"wte.weight", "lm_head.weight", false},
    {"transformer.word_embeddings.weight", "lm_head.weight", false},
    {"word_embeddings.weight", "lm_head.weight", false},
    {"transformer.tokens_embed.weight", "lm_head.weight", false},
    {"tokens_embed.weight", "lm_head.weight", false},
    {"model.decoder.embed_tokens.weight", "lm_head.weight", false},
    {"decoder.embed_tokens.weight", "lm_head.weight", false},
    {"model.decoder.embed_tokens.weight", "proj_out.weight", false},
    {"gpt_neox.embed_in.weight", "embed_out.weight", false},
    {"backbone.embeddings.weight", "lm_head.weight", false},
    {"model.embeddings.weight", "lm_head.weight", false},
    {"model.language_model.embed_tokens.weight", "lm_head.weight", false},
    {"language_model.model.embed_tokens.weight", "language_model.lm_head.weight", false},
    {"language_model.model.embed_tokens.weight", "lm_head.weight", false},
    {"model.text_model.embed_tokens.weight", "lm_head.weight", false},
    {"model.embeddings.tok_embeddings.weight", "decoder.weight", false},
    {"bert.embeddings.word_embeddings.weight", "cls.predictions.decoder.weight", false},
    {"roberta.embeddings.word_embeddings.weight", "lm_head.decoder.weight", false},
    {"distilbert.embeddings.word_embeddings.weight", "vocab_projector.weight", false},
    {"albert.embeddings.word_embeddings.weight", "predictions.decoder.weight", false},
    {"electra.embeddings.word_embeddings.weight", "generator_lm_head.weight", false},
    {"deberta.embeddings.word_embeddings.weight", "cls.predictions.decoder.weight", false},
    {"shared.weight", "lm_head.weight", false},
    {"shared.weight", "encoder.embed_tokens.weight", true},
    {"shared.weight", "decoder.embed_tokens.weight", true},
    {"model.shared.weight", "lm_head.weight", false},
    {"model.shared.weight", "model.encoder.embed_tokens.weight", true},
    {"model.shared.weight", "model.decoder.embed_tokens.weight", true},
};
#define TIE_COUNT (sizeof(ties) / sizeof(*ties))

/* Families whose config class says true, or false, when config.json says nothing. */
static const char *const tied_types[] = {"albert",
					 "bart",
					 "bert",
					 "big_bird",
					 "biogpt",
					 "blenderbot",
					 "bloom",
					 "camembert",
					 "cohere",
					 "cohere2",
					 "ctrl",
					 "deberta",
					 "deberta-v2",
					 "distilbert",
					 "electra",
					 "ernie4_5",
					 "esm",
					 "falcon",
					 "falcon_mamba",
					 "gemma",
					 "gemma2",
					 "gemma3",
					 "gemma3_text",
					 "gemma3n",
					 "gemma3n_text",
					 "gemma4",
					 "gemma4_text",
					 "gpt2",
					 "gpt-sw3",
					 "gpt_bigcode",
					 "gpt_neo",
					 "jetmoe",
					 "led",
					 "lfm2",
					 "longformer",
					 "longt5",
					 "m2m_100",
					 "mamba",
					 "marian",
					 "mbart",
					 "modernbert",
					 "mpnet",
					 "mpt",
					 "mt5",
					 "openai-gpt",
					 "opt",
					 "paligemma",
					 "pegasus",
					 "recurrent_gemma",
					 "roberta",
					 "smollm3",
					 "starcoder2",
					 "switch_transformers",
					 "t5",
					 "t5gemma",
					 "umt5",
					 "whisper",
					 "xglm",
					 "xlm-roberta",
					 "xlnet",
					 "zamba",
					 "zamba2",
					 NULL};
static const char *const untied_types[] = {"apertus",
					   "arcee",
					   "bamba",
					   "bitnet",
					   "chameleon",
					   "codegen",
					   "dbrx",
					   "deepseek_v2",
					   "deepseek_v3",
					   "diffllama",
					   "dots1",
					   "exaone4",
					   "falcon_h1",
					   "glm",
					   "glm4",
					   "glm4_moe",
					   "gpt_neox",
					   "gpt_oss",
					   "gptj",
					   "granite",
					   "granitemoe",
					   "granitemoehybrid",
					   "granitemoeshared",
					   "helium",
					   "imagegpt",
					   "jamba",
					   "llama",
					   "llama4_text",
					   "llava",
					   "llava_next",
					   "llava_onevision",
					   "mamba2",
					   "minimax",
					   "ministral",
					   "mistral",
					   "mixtral",
					   "nemotron",
					   "olmo",
					   "olmo2",
					   "olmo3",
					   "olmoe",
					   "persimmon",
					   "phi",
					   "phi3",
					   "phimoe",
					   "qwen2",
					   "qwen2_moe",
					   "qwen2_vl",
					   "qwen2_5_vl",
					   "qwen3",
					   "qwen3_moe",
					   "qwen3_next",
					   "qwen3_vl",
					   "qwen3_5_text",
					   "rwkv",
					   "seed_oss",
					   "stablelm",
					   NULL};

static bool in_list(const char *const *list, const char *word)
{
	for (; *list; list++)
		if (!strcmp(*list, word))
			return true;
	return false;
}

enum lora_answer lora__family_ties(const struct lora_base_view *base)
{
	static const char *const nested[] = {"text_config", "llm_config", "language_config",
					     "thinker_config", NULL};
	bool value;

	if (lora__json_bool(lora__json_get(base->config, "tie_word_embeddings"), &value))
		return value ? LORA_ANSWER_YES : LORA_ANSWER_NO;
	for (size_t i = 0; nested[i]; i++) {
		const struct lora_json *inner = lora__json_get(base->config, nested[i]);

		if (lora__json_bool(lora__json_get(inner, "tie_word_embeddings"), &value))
			return value ? LORA_ANSWER_YES : LORA_ANSWER_NO;
	}
	if (base->model_type && in_list(tied_types, base->model_type))
		return LORA_ANSWER_YES;
	if (base->model_type && in_list(untied_types, base->model_type))
		return LORA_ANSWER_NO;
	return LORA_ANSWER_UNKNOWN;
}

const char *lora__family_tied_name(const char *name, size_t i)
{
	for (size_t t = 0; t < TIE_COUNT; t++) {
		const char *other = !strcmp(name, ties[t].stored)  ? ties[t].alias
				    : !strcmp(name, ties[t].alias) ? ties[t].stored
								   : NULL;

		if (other && i-- == 0)
			return other;
	}
	return NULL;
}

bool lora__family_always_tied(const char *name, const char *other)
{
	for (size_t t = 0; t < TIE_COUNT; t++)
		if (ties[t].always &&
		    ((!strcmp(name, ties[t].stored) && !strcmp(other, ties[t].alias)) ||
		     (!strcmp(name, ties[t].alias) && !strcmp(other, ties[t].stored))))
			return true;
	return false;
}

bool lora__family_is_embedding(const char *name)
{
	return lora__family_tied_name(name, 0) != NULL;
}

/* --- looking up ------------------------------------------------------------------------------ */

/* The stored half of a tie whose absent half is `name`, or NULL. */
static const struct lora_tensor *stored_half(const struct lora_base_view *base, const char *name)
{
	enum lora_answer answer = lora__family_ties(base);
	const char *other;

	for (size_t i = 0; (other = lora__family_tied_name(name, i)); i++) {
		const struct lora_tensor *tensor =
		    lora__index_find(base->index, other, strlen(other));

		if (tensor && (answer != LORA_ANSWER_NO || lora__family_always_tied(name, other)))
			return tensor;
	}
	return NULL;
}

struct lora_found lora__base_find(const struct lora_base_view *base, struct lora_arena *arena,
				  const char *name)
{
	const char *wanted = base->rename ? base->rename(base->rename_user, arena, name) : name;
	struct lora_found found = {LORA_NO_TENSOR, false, wanted ? wanted : name, false};
	const struct lora_tensor *tensor;

	if (!wanted) /* no memory: not found, rather than found under another name */
		return found;
	tensor = lora__index_find(base->index, found.name, strlen(found.name));
	if (!tensor) {
		const char *other = lora__family_rename(base, arena, found.name);

		if (other) {
			found.name = other;
			found.respelled = true;
			tensor = lora__index_find(base->index, other, strlen(other));
		}
	}
	if (!tensor) {
		tensor = stored_half(base, found.name);
		found.tied_alias = tensor != NULL;
	}
	if (tensor)
		found.tensor = (uint32_t)(tensor - base->index->tensors);
	return found;
}
