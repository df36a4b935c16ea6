/* SPDX-License-Identifier: Apache-2.0 */
/* net/families.c - the models that can be run, a row each (net/spec.h).
 *
 * Source: the configuration and model files of transformers 5.23. Rows of relatives share what they
 * have in common through LLAMA_LIKE.
 */
#include "net/spec.h"

static const char *const llama_keys[] = {"attention_bias", "mlp_bias", NULL};
static const char *const mistral_keys[] = {"sliding_window", NULL};
static const char *const qwen2_keys[] = {"sliding_window", "use_sliding_window",
					 "max_window_layers", NULL};
static const char *const qwen3_keys[] = {"attention_bias", "sliding_window", "use_sliding_window",
					 "max_window_layers", NULL};
static const char *const gpt2_keys[] = {"scale_attn_weights", "scale_attn_by_inverse_layer_idx",
					NULL};

#define LLAMA_LIKE                                                                                 \
	.norm = LORA_NORM_RMS, .gated = true, .turned = true, .vocabulary = {"vocab_size", 0},     \
	.width = {"hidden_size", 0}, .hidden = {"intermediate_size", 0},                           \
	.layers = {"num_hidden_layers", 0}, .heads = {"num_attention_heads", 0},                   \
	.activation_key = "hidden_act", .default_activation = "silu", .eps_key = "rms_norm_eps",   \
	.default_eps = 1e-6, .prefix = "model.", .embed = "embed_tokens", .norm_name = "norm",     \
	.block = "layers.", .head = "lm_head", .norm1 = "input_layernorm",                         \
	.norm2 = "post_attention_layernorm",                                                       \
	.up = {{"mlp.gate_proj", LORA_BIAS_MLP}, {"mlp.up_proj", LORA_BIAS_MLP}},                  \
	.down = {"mlp.down_proj", LORA_BIAS_MLP}

#define QKV(rule)                                                                                  \
	{                                                                                          \
		{"self_attn.q_proj", rule}, {"self_attn.k_proj", rule},                            \
		{                                                                                  \
			"self_attn.v_proj", rule                                                   \
		}                                                                                  \
	}

static const struct lora_net_family llama = {
    .type = "llama",
    .architecture = "LlamaForCausalLM",
    LLAMA_LIKE,
    .kv_heads = {"num_key_value_heads", 0},
    .head_dim = {"head_dim", 0},
    .positions = {"max_position_embeddings", 2048},
    .keys = llama_keys,
    .qkv = QKV(LORA_BIAS_ATTENTION),
    .out = {"self_attn.o_proj", LORA_BIAS_ATTENTION},
};

static const struct lora_net_family mistral = {
    .type = "mistral",
    .architecture = "MistralForCausalLM",
    LLAMA_LIKE,
    .window = LORA_WINDOW_ALL,
    .default_window = 4096,
    .kv_heads = {"num_key_value_heads", 8},
    .head_dim = {"head_dim", 0},
    .positions = {"max_position_embeddings", 131072},
    .keys = mistral_keys,
    .qkv = QKV(LORA_BIAS_NEVER),
    .out = {"self_attn.o_proj", LORA_BIAS_NEVER},
};

static const struct lora_net_family qwen2 = {
    .type = "qwen2",
    .architecture = "Qwen2ForCausalLM",
    LLAMA_LIKE,
    .window = LORA_WINDOW_TYPES,
    .default_window = 4096,
    .kv_heads = {"num_key_value_heads", 32},
    .head_dim = {"head_dim", 0},
    .positions = {"max_position_embeddings", 32768},
    .keys = qwen2_keys,
    .qkv = QKV(LORA_BIAS_ALWAYS),
    .out = {"self_attn.o_proj", LORA_BIAS_NEVER},
};

static const struct lora_net_family qwen3 = {
    .type = "qwen3",
    .architecture = "Qwen3ForCausalLM",
    LLAMA_LIKE,
    .window = LORA_WINDOW_TYPES,
    .default_window = 4096,
    .kv_heads = {"num_key_value_heads", 32},
    .head_dim = {"head_dim", 128},
    .positions = {"max_position_embeddings", 32768},
    .keys = qwen3_keys,
    .q_norm = "self_attn.q_norm",
    .k_norm = "self_attn.k_norm",
    .qkv = QKV(LORA_BIAS_ATTENTION),
    .out = {"self_attn.o_proj", LORA_BIAS_ATTENTION},
};

static const struct lora_net_family gpt2 = {
    .type = "gpt2",
    .architecture = "GPT2LMHeadModel",
    .norm = LORA_NORM_LAYER,
    .conv1d = true,
    .vocabulary = {"vocab_size", 0},
    .width = {"n_embd", 0},
    .hidden = {"n_inner", 0},
    .layers = {"n_layer", 0},
    .heads = {"n_head", 0},
    .positions = {"n_positions", 1024},
    .activation_key = "activation_function",
    .default_activation = "gelu_new",
    .eps_key = "layer_norm_epsilon",
    .default_eps = 1e-5,
    .keys = gpt2_keys,
    .prefix = "transformer.",
    .embed = "wte",
    .position = "wpe",
    .norm_name = "ln_f",
    .block = "h.",
    .head = "lm_head",
    .norm1 = "ln_1",
    .norm2 = "ln_2",
    .qkv = {{"attn.c_attn", LORA_BIAS_ALWAYS}},
    .out = {"attn.c_proj", LORA_BIAS_ALWAYS},
    .up = {{"mlp.c_fc", LORA_BIAS_ALWAYS}},
    .down = {"mlp.c_proj", LORA_BIAS_ALWAYS},
};

const struct lora_net_family *const lora__net_families[] = {&llama, &mistral, &qwen2,
							    &qwen3, &gpt2,    NULL};
