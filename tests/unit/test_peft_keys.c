/* SPDX-License-Identifier: Apache-2.0 */
/* test_peft_keys.c - what a tensor is, from its name; names as PEFT 0.21.2 writes them unless
 * said otherwise. */
#include "peft_case.h"

#include "formats/dialects/peft.h"

static void keys__parse(void **state)
{
	static const struct {
		const char *name;
		enum peft_role role;
		const char *path, *owner, *adapter;
		unsigned depth;
		bool wrapped;
	} cases[] = {
	    {PREFIX "model.layers.0.q_proj.lora_A.weight", PEFT_A, "model.layers.0.q_proj",
	     "model.layers.0.q_proj", NULL, 0, false},
	    {PREFIX "model.layers.0.q_proj.lora_B.weight", PEFT_B, "model.layers.0.q_proj",
	     "model.layers.0.q_proj", NULL, 0, false},
	    {PREFIX "lin0.lora_B.bias", PEFT_B_BIAS, "lin0", "lin0", NULL, 0, false},
	    {PREFIX "emb.lora_embedding_A", PEFT_EMBEDDING_A, "emb", "emb", NULL, 0, false},
	    {PREFIX "emb.lora_embedding_B", PEFT_EMBEDDING_B, "emb", "emb", NULL, 0, false},
	    {PREFIX "lin0.lora_magnitude_vector", PEFT_MAGNITUDE, "lin0", "lin0", NULL, 0, false},
	    {PREFIX "model.embed_tokens.token_adapter.trainable_tokens_delta", PEFT_TOKENS,
	     "model.embed_tokens", "model.embed_tokens", NULL, 0, false},
	    {PREFIX "mha.base_layer.out_proj.lora_A.weight", PEFT_A, "mha.out_proj", "mha", NULL, 0,
	     false},
	    {PREFIX "mlp.experts.base_layer.lora_B.weight", PEFT_B, "mlp.experts", "mlp.experts",
	     NULL, 1, false},
	    {PREFIX "mlp.experts.base_layer.base_layer.lora_B.weight", PEFT_B, "mlp.experts",
	     "mlp.experts", NULL, 2, false},
	    {PREFIX "lm_head.weight", PEFT_WHOLE, "lm_head.weight", NULL, NULL, 0, false},
	    {PREFIX "lm_head.base_layer.weight", PEFT_WHOLE, "lm_head.weight", NULL, NULL, 0, true},
	    {PREFIX "lin0.base_layer.bias", PEFT_WHOLE, "lin0.bias", NULL, NULL, 0, true},
	    {PREFIX "mha.base_layer.out_proj.base_layer.bias", PEFT_WHOLE, "mha.out_proj.bias",
	     NULL, NULL, 0, true},
	    {PREFIX "model.embed_tokens.token_adapter.base_layer.weight", PEFT_WHOLE,
	     "model.embed_tokens.weight", NULL, NULL, 0, true},
	    {PREFIX "c1.bias", PEFT_WHOLE, "c1.bias", NULL, NULL, 0, false},
	    /* as other tools leave them: an adapter's name inside, no prefix, .weight behind the
	       magnitude */
	    {PREFIX "q.lora_A.default.weight", PEFT_A, "q", "q", "default", 0, false},
	    {PREFIX "q.lora_B.default.bias", PEFT_B_BIAS, "q", "q", "default", 0, false},
	    {PREFIX "e.lora_embedding_B.mine", PEFT_EMBEDDING_B, "e", "e", "mine", 0, false},
	    {PREFIX "q.lora_magnitude_vector.default.weight", PEFT_MAGNITUDE, "q", "q", "default",
	     0, false},
	    {PREFIX "q.lora_magnitude_vector.default", PEFT_MAGNITUDE, "q", "q", "default", 0,
	     false},
	    {PREFIX "q.lora_magnitude_vector.weight", PEFT_MAGNITUDE, "q", "q", NULL, 0, false},
	    {"layers.0.q.lora_A.weight", PEFT_A, "layers.0.q", "layers.0.q", NULL, 0, false},
	    {"classifier.modules_to_save.default.dense.weight", PEFT_WHOLE,
	     "classifier.dense.weight", NULL, NULL, 0, false},
	    {"classifier.modules_to_save.weight", PEFT_WHOLE, "classifier.weight", NULL, NULL, 0,
	     false},
	    /* modules that are called like something of PEFT's */
	    {"lora_A.lora_A.weight", PEFT_A, "lora_A", "lora_A", NULL, 0, false},
	    {"base_layer.q.lora_A.weight", PEFT_A, "base_layer.q", "base_layer.q", NULL, 0, false},
	    {"weight", PEFT_WHOLE, "weight", NULL, NULL, 0, false},
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
		struct lora_error err = LORA_ERROR_INIT;
		struct lora_arena arena = {0};
		struct peft_key key;

		if (lora__peft_key_parse(&key, &arena, cases[i].name, &err))
			fail_msg("'%s': %s", cases[i].name, err.message);
		if (key.role != cases[i].role || key.depth != cases[i].depth ||
		    key.wrapped != cases[i].wrapped || strcmp(key.path, cases[i].path) != 0 ||
		    (cases[i].owner && strcmp(key.owner, cases[i].owner) != 0) ||
		    strcmp(key.adapter ? key.adapter : "-",
			   cases[i].adapter ? cases[i].adapter : "-") != 0)
			fail_msg("'%s': role %d, path '%s', owner '%s', adapter '%s', depth %u",
				 cases[i].name, (int)key.role, key.path, key.owner,
				 key.adapter ? key.adapter : "-", key.depth);
		lora__arena_fini(&arena);
	}
}

static void keys__of_unknown_kinds(void **state)
{
	static const char *const names[] = {
	    PREFIX "q.lora_diag",
	    PREFIX "q.lora_velora_embed",
	    PREFIX "q.lora_E",
	    PREFIX "q.lora_A",
	    PREFIX "q.lora_A.a.b.weight",
	    PREFIX "q.lora_A.bias",
	    PREFIX "e.lora_embedding_A.a.b",
	    PREFIX "q.lora_C.weight",
	};

	(void)state;
	for (size_t i = 0; i < sizeof(names) / sizeof(*names); i++) {
		struct peft_case c = {0};

		linear_has(&c, "q", 4, 10, 20);
		adapter_has(&c, names[i], "F32", 2, 4, 10);
		base_has(&c, "q.weight", "F32", 2, 20, 10);
		refused(&c, "llama", LORA_CONFIG, "is of a kind that is not supported");
	}
}

static void keys__halves_and_doubles(void **state)
{
	struct peft_case c = {0};

	(void)state;
	adapter_has(&c, PREFIX "q.lora_A.weight", "F32", 2, 4, 10);
	refused(&c, "llama", LORA_CONFIG,
		"'base_model.model.q.lora_A.weight' has no lora_B beside it");
	adapter_has(&c, PREFIX "q.lora_B.weight", "F32", 2, 20, 4);
	refused(&c, "llama", LORA_CONFIG,
		"'base_model.model.q.lora_B.weight' has no lora_A beside it");
	adapter_has(&c, PREFIX "e.lora_embedding_A", "F32", 2, 4, 10);
	refused(&c, "llama", LORA_CONFIG, "has no lora_embedding_B beside it");
	adapter_has(&c, PREFIX "e.lora_embedding_B", "F32", 2, 4, 10);
	refused(&c, "llama", LORA_CONFIG, "has no lora_embedding_A beside it");
	adapter_has(&c, PREFIX "q.lora_magnitude_vector", "F32", 1, 20);
	refused(&c, "llama", LORA_AND("\"use_dora\":true"), "has no lora_A beside it");
	linear_has(&c, "q", 4, 10, 20);
	refused(&c, "llama", LORA_AND("\"use_dora\":true"), "has no lora_magnitude_vector");
	linear_has(&c, "q", 4, 10, 20);
	adapter_has(&c, PREFIX "q.lora_magnitude_vector", "F32", 1, 20);
	refused(&c, "llama", LORA_CONFIG, "belongs to DoRA, but config key 'use_dora' is not set");
	linear_has(&c, "q", 4, 10, 20);
	refused(&c, "llama", LORA_AND("\"lora_bias\":true"),
		"lacks a bias, but config key 'lora_bias'");
	linear_has(&c, "q", 4, 10, 20);
	adapter_has(&c, PREFIX "q.lora_B.bias", "F32", 1, 20);
	refused(&c, "llama", LORA_CONFIG, "has a bias, but config key 'lora_bias' is not set");
	linear_has(&c, "q", 4, 10, 20);
	adapter_has(&c, "q.lora_A.weight", "F32", 2, 4, 10);
	refused(&c, "llama", LORA_CONFIG, "are the same one");
	adapter_has(&c, PREFIX "lm_head.weight", "F32", 2, 4, 10);
	adapter_has(&c, PREFIX "lm_head.base_layer.weight", "F32", 2, 4, 10);
	refused(&c, "llama", LORA_CONFIG, "are the same one");
	linear_has(&c, "e", 4, 10, 20);
	adapter_has(&c, PREFIX "e.token_adapter.trainable_tokens_delta", "F32", 2, 1, 10);
	refused(&c, "llama", LORA_CONFIG, "both factors and trainable tokens");
}

static void keys__two_adapters_in_a_file(void **state)
{
	struct peft_case c = {0};

	(void)state;
	adapter_has(&c, PREFIX "q.lora_A.one.weight", "F32", 2, 4, 10);
	adapter_has(&c, PREFIX "q.lora_B.two.weight", "F32", 2, 20, 4);
	refused(&c, "llama", LORA_CONFIG,
		"belongs to another adapter than those before it ('one')");
}

static void keys__types(void **state)
{
	struct peft_case c = {0};

	(void)state;
	adapter_has(&c, PREFIX "q.lora_A.weight", "F64", 2, 4, 10);
	refused(&c, "llama", LORA_CONFIG, "'base_model.model.q.lora_A.weight' has type F64: only");
	adapter_has(&c, PREFIX "q.lora_A.weight", "F8_E4M3", 2, 4, 10);
	refused(&c, "llama", LORA_CONFIG, "has type F8_E4M3");
	adapter_has(&c, PREFIX "q.lora_A.weight", "F32", 2, 0, 10);
	refused(&c, "llama", LORA_CONFIG, "is empty [0, 10]");
	refused(&c, "llama", LORA_CONFIG, "holds no tensors");
	adapter_has(&c, PREFIX "q.lora_A.weight", "F16", 2, 4, 10);
	adapter_has(&c, PREFIX "q.lora_B.weight", "BF16", 2, 20, 4);
	base_has(&c, "q.weight", "F32", 2, 20, 10);
	decoded(&c, "llama", LORA_CONFIG);
	assert_int_equal(c.decode.edit_count, 1);
	done(&c);
}

static void keys__probe(void **state)
{
	struct peft_case c = {0};

	(void)state;
	linear_has(&c, "q", 4, 10, 20);
	base_has(&c, "q.weight", "F32", 2, 20, 10);
	decoded(&c, "llama", LORA_CONFIG);
	assert_ptr_equal(lora__dialect_probe(&c.adapter, c.config), &lora__peft);
	assert_ptr_equal(lora__dialect_probe(&c.adapter, NULL), &lora__peft);
	assert_ptr_equal(lora__dialect_probe(&c.base, c.config), &lora__peft);
	assert_null(lora__dialect_probe(&c.base, NULL));
	done(&c);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(keys__parse),
	    cmocka_unit_test(keys__of_unknown_kinds),
	    cmocka_unit_test(keys__halves_and_doubles),
	    cmocka_unit_test(keys__two_adapters_in_a_file),
	    cmocka_unit_test(keys__types),
	    cmocka_unit_test(keys__probe),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
