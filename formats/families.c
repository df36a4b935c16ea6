/* SPDX-License-Identifier: Apache-2.0 */
/* formats/families.c - the table of model families: orientation, experts, spellings. (Ties:
 * ties.c.)
 *
 * Sources: the model code and the conversion tables of transformers 4.57 and 5.23.
 *
 * Conv1D. GPT-2 and its relatives keep W as [in, out]. Only the modules named here are of that
 * kind; heads beside them are ordinary.
 *
 * Experts. PEFT asks the module for a flag is_transposed. gpt-oss, Aria and the privacy filter
 * have it. Llama-4's experts stand as [E, in, out] too, but whether the flag is set depends on
 * the release, so that only shapes can tell.
 *
 * Spellings. transformers 5 renamed modules in memory while checkpoints on disk kept theirs. A
 * row holds both spellings; '#' is one number, a leading '^' ties it to the start. Rows are tried
 * in both directions, and count when exactly one leads to a tensor that exists. */
#include "formats/families.h"

#include <stdio.h>
#include <string.h>

static bool in_list(const char *const *list, const char *word)
{
	for (; *list; list++)
		if (!strcmp(*list, word))
			return true;
	return false;
}

static const char *leaf_of(const char *path)
{
	const char *dot = strrchr(path, '.');

	return dot ? dot + 1 : path;
}

/* Does `path` end in the components `end`? */
static bool ends_in(const char *path, const char *end)
{
	size_t p = strlen(path), e = strlen(end);

	return p >= e && !strcmp(path + p - e, end) && (p == e || path[p - e - 1] == '.');
}

/* --- Conv1D ---------------------------------------------------------------------------------- */

static const char *const conv1d_types[] = {
    "gpt2", "gpt-sw3",	    "openai-gpt", "imagegpt", "decision_transformer",
    "clvp", "clvp_decoder", NULL};
static const char *const conv1d_leaves[] = {"c_attn", "q_attn", "c_proj", "c_fc", NULL};

/* Families in which nothing is Conv1D, among those that adapters are made for. */
static const char *const linear_types[] = {"llama",
					   "llama4",
					   "llama4_text",
					   "mistral",
					   "mistral3",
					   "ministral",
					   "mixtral",
					   "qwen2",
					   "qwen2_moe",
					   "qwen2_vl",
					   "qwen2_5_vl",
					   "qwen2_audio",
					   "qwen3",
					   "qwen3_moe",
					   "qwen3_next",
					   "qwen3_vl",
					   "qwen3_vl_moe",
					   "qwen3_5",
					   "qwen3_5_moe",
					   "qwen3_5_text",
					   "qwen3_5_moe_text",
					   "gemma",
					   "gemma2",
					   "gemma3",
					   "gemma3_text",
					   "gemma3n",
					   "gemma3n_text",
					   "gemma4",
					   "gemma4_text",
					   "phi",
					   "phi3",
					   "phimoe",
					   "falcon",
					   "bloom",
					   "opt",
					   "gpt_neo",
					   "gpt_neox",
					   "gptj",
					   "gpt_bigcode",
					   "gpt_oss",
					   "codegen",
					   "mpt",
					   "stablelm",
					   "starcoder2",
					   "cohere",
					   "cohere2",
					   "olmo",
					   "olmo2",
					   "olmo3",
					   "olmoe",
					   "granite",
					   "granitemoe",
					   "granitemoehybrid",
					   "granitemoeshared",
					   "deepseek_v2",
					   "deepseek_v3",
					   "glm",
					   "glm4",
					   "glm4_moe",
					   "smollm3",
					   "internlm3",
					   "nemotron",
					   "persimmon",
					   "jetmoe",
					   "dbrx",
					   "mamba",
					   "mamba2",
					   "helium",
					   "exaone4",
					   "bert",
					   "roberta",
					   "xlm-roberta",
					   "distilbert",
					   "albert",
					   "electra",
					   "deberta",
					   "deberta-v2",
					   "modernbert",
					   "t5",
					   "mt5",
					   "umt5",
					   "bart",
					   "mbart",
					   "whisper",
					   "vit",
					   "deit",
					   "beit",
					   "clip",
					   "siglip",
					   "dinov2",
					   "llava",
					   "llava_next",
					   "llava_onevision",
					   "paligemma",
					   "mllama",
					   "idefics3",
					   "smolvlm",
					   "internvl",
					   NULL};

enum lora_answer lora__family_conv1d(const char *model_type, const char *module)
{
	if (!model_type)
		return LORA_ANSWER_UNKNOWN;
	if (in_list(conv1d_types, model_type))
		return in_list(conv1d_leaves, leaf_of(module)) ? LORA_ANSWER_YES : LORA_ANSWER_NO;
	return in_list(linear_types, model_type) ? LORA_ANSWER_NO : LORA_ANSWER_UNKNOWN;
}

/* --- experts --------------------------------------------------------------------------------- */

static const char *const transposed_types[] = {"gpt_oss", "aria", "aria_text",
					       "openai_privacy_filter", NULL};
static const char *const unsure_types[] = {"llama4", "llama4_text", NULL};

static const char *const qwen_moe_types[] = {
    "qwen2_moe",  "qwen3_moe",	    "qwen3_next", "deepseek_v2", "deepseek_v3",
    "dots1",	  "ernie4_5_moe",   "glm4_moe",	  "olmoe",	 "flex_olmo",
    "exaone_moe", "hunyuan_v1_moe", NULL};
static const char *const mixtral_types[] = {"mixtral", "minimax", "minimax_m2", "phimoe", NULL};
static const char *const granite_moe_types[] = {"granitemoe", "granitemoeshared",
						"granitemoehybrid", NULL};
/* 3-D on disk as in memory, flag not set. */
static const char *const plain_moe_types[] = {
    "jetmoe", "qwen3_vl_moe", "qwen3_5_moe", "qwen3_5_moe_text", "gemma4", "gemma4_text", NULL};

enum lora_answer lora__family_experts_transposed(const char *model_type)
{
	if (!model_type || in_list(unsure_types, model_type))
		return LORA_ANSWER_UNKNOWN;
	if (in_list(transposed_types, model_type))
		return LORA_ANSWER_YES;
	if (in_list(qwen_moe_types, model_type) || in_list(mixtral_types, model_type) ||
	    in_list(granite_moe_types, model_type) || in_list(plain_moe_types, model_type))
		return LORA_ANSWER_NO;
	return LORA_ANSWER_UNKNOWN;
}

static const struct {
	const char *const *types;
	struct lora_fusion fusion;
} fusions[] = {
    {qwen_moe_types, {"mlp.experts", "gate_up_proj", "mlp.experts", {"gate_proj", "up_proj"}}},
    {qwen_moe_types, {"mlp.experts", "down_proj", "mlp.experts", {"down_proj", NULL}}},
    {mixtral_types, {"mlp.experts", "gate_up_proj", "block_sparse_moe.experts", {"w1", "w3"}}},
    {mixtral_types, {"mlp.experts", "down_proj", "block_sparse_moe.experts", {"w2", NULL}}},
};

const struct lora_fusion *lora__family_fusion(const char *model_type, const char *module,
					      const char *parameter)
{
	for (size_t i = 0; model_type && i < sizeof(fusions) / sizeof(*fusions); i++)
		if (in_list(fusions[i].types, model_type) &&
		    ends_in(module, fusions[i].fusion.memory) &&
		    !strcmp(parameter, fusions[i].fusion.parameter))
			return &fusions[i].fusion;
	return NULL;
}

/* --- spellings ------------------------------------------------------------------------------- */

static const char *const vit_types[] = {"vit",	   "deit",    "ijepa",
					"vit_mae", "vit_msn", "audio-spectrogram-transformer",
					"vivit",   "beit",    NULL};
static const char *const llava_types[] = {
    "llava",	"llava_next", "llava_next_video", "llava_onevision", "paligemma", "gemma3",
    "mistral3", "internvl",   "vipllava",	  "aya_vision",	     "got_ocr2",  "mllama",
    "aria",	NULL};
static const char *const dinov2_types[] = {"dinov2", "dinov2_with_registers", NULL};
static const char *const qwen_vl_types[] = {"qwen2_vl", "qwen2_5_vl", NULL};

struct renaming {
	const char *const *types;
	const char *one, *other;
};

static const struct renaming renamings[] = {
    {vit_types, "layers.#.attention.q_proj", "encoder.layer.#.attention.attention.query"},
    {vit_types, "layers.#.attention.k_proj", "encoder.layer.#.attention.attention.key"},
    {vit_types, "layers.#.attention.v_proj", "encoder.layer.#.attention.attention.value"},
    {vit_types, "layers.#.attention.o_proj", "encoder.layer.#.attention.output.dense"},
    {vit_types, "layers.#.mlp.fc1", "encoder.layer.#.intermediate.dense"},
    {vit_types, "layers.#.mlp.fc2", "encoder.layer.#.output.dense"},
    {vit_types, "layers.#.layernorm_before", "encoder.layer.#.layernorm_before"},
    {vit_types, "layers.#.layernorm_after", "encoder.layer.#.layernorm_after"},
    {dinov2_types, "layer.#.attention.q_proj", "layer.#.attention.attention.query"},
    {dinov2_types, "layer.#.attention.k_proj", "layer.#.attention.attention.key"},
    {dinov2_types, "layer.#.attention.v_proj", "layer.#.attention.attention.value"},
    {dinov2_types, "layer.#.attention.o_proj", "layer.#.attention.output.dense"},
    {dinov2_types, "layer.#.mlp.down_proj", "layer.#.mlp.weights_out"},
    {mixtral_types, "mlp.gate", "block_sparse_moe.gate"},
    {mixtral_types, "mlp.router", "block_sparse_moe.gate"},
    {granite_moe_types, "block_sparse_moe.experts.gate_up_proj",
     "block_sparse_moe.input_linear.weight"},
    {granite_moe_types, "block_sparse_moe.experts.down_proj",
     "block_sparse_moe.output_linear.weight"},
    {granite_moe_types, "block_sparse_moe.router.weight", "block_sparse_moe.router.layer.weight"},
    {llava_types, "^model.language_model", "^language_model.model"},
    {llava_types, "^lm_head", "^language_model.lm_head"},
    {llava_types, "^model.vision_tower", "^vision_tower"},
    {llava_types, "^model.vision_tower", "^vision_tower.vision_model"},
    {llava_types, "^model.vision_model", "^vision_model"},
    {llava_types, "^model.multi_modal_projector", "^multi_modal_projector"},
    {qwen_vl_types, "^model.language_model", "^model"},
    {qwen_vl_types, "^model.visual", "^visual"},
};

/* Matches `pattern` at the start of `text`, which must go on with '.' or end. Numbers that '#'
 * took go to *number (one at most). Returns what follows, or NULL. */
static const char *match_here(const char *text, const char *pattern, char number[24])
{
	for (; *pattern; pattern++) {
		size_t digits;

		if (*pattern != '#') {
			if (*text++ != *pattern)
				return NULL;
			continue;
		}
		digits = strspn(text, "0123456789");
		if (digits == 0 || digits >= 24)
			return NULL;
		memcpy(number, text, digits);
		number[digits] = 0;
		text += digits;
	}
	return *text == '.' || !*text ? text : NULL;
}

/* `name` with the first place where `from` stands replaced by `to`; NULL if there is none. */
static char *replaced(struct lora_arena *arena, const char *name, const char *from, const char *to)
{
	const char *start = name, *rest = NULL, *hash;
	char number[24] = "";
	bool anchored = *from == '^';

	if (anchored) {
		from++;
		to++;
	}
	while (start && !(rest = match_here(start, from, number))) {
		start = anchored ? NULL : strchr(start, '.');
		if (start)
			start++;
	}
	if (!start)
		return NULL;
	hash = strchr(to, '#');
	if (!hash)
		return lora__arena_printf(arena, "%.*s%s%s", (int)(start - name), name, to, rest);
	return lora__arena_printf(arena, "%.*s%.*s%s%s%s", (int)(start - name), name,
				  (int)(hash - to), to, number, hash + 1, rest);
}

const char *lora__family_rename(const struct lora_base_view *base, struct lora_arena *arena,
				const char *name)
{
	const char *found = NULL;

	if (!base->model_type)
		return NULL;
	for (size_t i = 0; i < 2 * sizeof(renamings) / sizeof(*renamings); i++) {
		const struct renaming *row = &renamings[i / 2];
		const char *candidate;

		if (!in_list(row->types, base->model_type))
			continue;
		candidate = i % 2 ? replaced(arena, name, row->other, row->one)
				  : replaced(arena, name, row->one, row->other);
		if (!candidate || !lora__index_find(base->index, candidate, strlen(candidate)))
			continue;
		if (found && strcmp(found, candidate) != 0)
			return NULL;
		found = candidate;
	}
	return found;
}
