/* SPDX-License-Identifier: Apache-2.0 */
/* test_families.c - the table of model families.
 *
 * Expected spellings are those of one model saved by transformers 4.57 (on disk) and seen in
 * memory by 5.23. */
#include "peft_case.h"

#include "formats/families.h"

static void families__conv1d(void **state)
{
	(void)state;
	assert_int_equal(lora__family_conv1d("gpt2", "transformer.h.0.attn.c_attn"),
			 LORA_ANSWER_YES);
	assert_int_equal(lora__family_conv1d("gpt2", "transformer.h.0.mlp.c_proj"),
			 LORA_ANSWER_YES);
	assert_int_equal(lora__family_conv1d("gpt2", "c_fc"), LORA_ANSWER_YES);
	assert_int_equal(lora__family_conv1d("gpt2", "lm_head"), LORA_ANSWER_NO);
	assert_int_equal(lora__family_conv1d("gpt2", "xc_fc"), LORA_ANSWER_NO);
	assert_int_equal(lora__family_conv1d("openai-gpt", "h.0.attn.c_attn"), LORA_ANSWER_YES);
	assert_int_equal(lora__family_conv1d("imagegpt", "h.0.attn.q_attn"), LORA_ANSWER_YES);
	assert_int_equal(lora__family_conv1d("decision_transformer", "h.0.mlp.c_fc"),
			 LORA_ANSWER_YES);
	assert_int_equal(lora__family_conv1d("llama", "model.layers.0.self_attn.q_proj"),
			 LORA_ANSWER_NO);
	assert_int_equal(lora__family_conv1d("gpt_bigcode", "h.0.attn.c_attn"), LORA_ANSWER_NO);
	assert_int_equal(lora__family_conv1d("new_family", "c_attn"), LORA_ANSWER_UNKNOWN);
	assert_int_equal(lora__family_conv1d(NULL, "c_attn"), LORA_ANSWER_UNKNOWN);
}

static enum lora_answer ties(const char *type, const char *config)
{
	struct lora_base_view view = {.model_type = type};
	struct lora_error err = LORA_ERROR_INIT;
	struct lora_json *json = NULL;
	enum lora_answer answer;

	if (config && lora__json_parse(&json, config, strlen(config), &err))
		fail_msg("%s", err.message);
	view.config = json;
	answer = lora__family_ties(&view);
	lora__json_free(json);
	return answer;
}

static void families__ties(void **state)
{
	(void)state;
	assert_int_equal(ties("llama", "{\"tie_word_embeddings\":true}"), LORA_ANSWER_YES);
	assert_int_equal(ties("gpt2", "{\"tie_word_embeddings\":false}"), LORA_ANSWER_NO);
	assert_int_equal(ties("gpt2", "{}"), LORA_ANSWER_YES);
	assert_int_equal(ties("gemma", "{}"), LORA_ANSWER_YES);
	assert_int_equal(ties("llama", "{}"), LORA_ANSWER_NO);
	assert_int_equal(ties("qwen2", NULL), LORA_ANSWER_NO);
	assert_int_equal(ties("llava", "{\"text_config\":{\"tie_word_embeddings\":true}}"),
			 LORA_ANSWER_YES);
	assert_int_equal(ties("new_family", "{}"), LORA_ANSWER_UNKNOWN);
	assert_int_equal(ties(NULL, NULL), LORA_ANSWER_UNKNOWN);
}

static void families__tied_names(void **state)
{
	(void)state;
	assert_string_equal(lora__family_tied_name("model.embed_tokens.weight", 0),
			    "lm_head.weight");
	assert_null(lora__family_tied_name("model.embed_tokens.weight", 1));
	assert_string_equal(lora__family_tied_name("transformer.wte.weight", 0), "lm_head.weight");
	assert_string_equal(lora__family_tied_name("shared.weight", 0), "lm_head.weight");
	assert_string_equal(lora__family_tied_name("shared.weight", 2),
			    "decoder.embed_tokens.weight");
	assert_null(lora__family_tied_name("model.layers.0.q.weight", 0));
	assert_true(lora__family_always_tied("encoder.embed_tokens.weight", "shared.weight"));
	assert_true(lora__family_always_tied("shared.weight", "encoder.embed_tokens.weight"));
	assert_false(lora__family_always_tied("shared.weight", "lm_head.weight"));
	assert_true(lora__family_is_embedding("lm_head.weight"));
	assert_false(lora__family_is_embedding("lm_head.bias"));
}

static void families__experts(void **state)
{
	const struct lora_fusion *fusion;

	(void)state;
	assert_int_equal(lora__family_experts_transposed("gpt_oss"), LORA_ANSWER_YES);
	assert_int_equal(lora__family_experts_transposed("qwen3_moe"), LORA_ANSWER_NO);
	assert_int_equal(lora__family_experts_transposed("llama4"), LORA_ANSWER_UNKNOWN);
	assert_int_equal(lora__family_experts_transposed("llama"), LORA_ANSWER_UNKNOWN);
	assert_int_equal(lora__family_experts_transposed(NULL), LORA_ANSWER_UNKNOWN);
	fusion = lora__family_fusion("mixtral", "model.layers.0.mlp.experts", "gate_up_proj");
	assert_string_equal(fusion->disk, "block_sparse_moe.experts");
	assert_string_equal(fusion->parts[0], "w1");
	assert_string_equal(fusion->parts[1], "w3");
	fusion = lora__family_fusion("qwen3_moe", "mlp.experts", "down_proj");
	assert_string_equal(fusion->parts[0], "down_proj");
	assert_null(fusion->parts[1]);
	assert_null(lora__family_fusion("mixtral", "model.layers.0.xmlp.experts", "gate_up_proj"));
	assert_null(lora__family_fusion("llama", "mlp.experts", "down_proj"));
	assert_null(lora__family_fusion("mixtral", "mlp.experts", "gate_proj"));
}

static void families__renamings(void **state)
{
	static const struct {
		const char *type, *in_base, *wanted;
	} cases[] = {
	    {"vit", "vit.encoder.layer.3.attention.attention.query.weight",
	     "vit.layers.3.attention.q_proj.weight"},
	    {"vit", "vit.encoder.layer.11.attention.output.dense.bias",
	     "vit.layers.11.attention.o_proj.bias"},
	    {"vit", "vit.encoder.layer.0.intermediate.dense.weight", "vit.layers.0.mlp.fc1.weight"},
	    {"vit", "vit.encoder.layer.0.output.dense.weight", "vit.layers.0.mlp.fc2.weight"},
	    {"vit", "vit.layers.3.attention.q_proj.weight",
	     "vit.encoder.layer.3.attention.attention.query.weight"}, /* the other way */
	    {"dinov2", "encoder.layer.2.attention.attention.key.weight",
	     "encoder.layer.2.attention.k_proj.weight"},
	    {"mixtral", "model.layers.0.block_sparse_moe.gate.weight",
	     "model.layers.0.mlp.gate.weight"},
	    {"granitemoe", "model.layers.0.block_sparse_moe.input_linear.weight",
	     "model.layers.0.block_sparse_moe.experts.gate_up_proj"},
	    {"qwen2_vl", "model.layers.0.self_attn.q_proj.weight",
	     "model.language_model.layers.0.self_attn.q_proj.weight"},
	    {"qwen2_vl", "visual.blocks.0.attn.qkv.weight",
	     "model.visual.blocks.0.attn.qkv.weight"},
	    {"llava", "language_model.model.layers.0.mlp.up_proj.weight",
	     "model.language_model.layers.0.mlp.up_proj.weight"},
	    {"llava", "language_model.lm_head.weight", "lm_head.weight"},
	    {"llava", "vision_tower.vision_model.encoder.layers.0.mlp.fc1.weight",
	     "model.vision_tower.encoder.layers.0.mlp.fc1.weight"},
	    /* what has no row is not guessed */
	    {"llama", "language_model.lm_head.weight", NULL},
	    {NULL, "visual.blocks.0.attn.qkv.weight", NULL},
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
		struct lora_base_view view = {.model_type = cases[i].type};
		struct peft_case c = {0};
		const char *found;

		base_has(&c, cases[i].in_base, "F32", 2, 2, 2);
		case_finish(&c.base, c.list[1]);
		view.index = &c.base;
		found = lora__family_rename(
		    &view, &c.arena,
		    cases[i].wanted ? cases[i].wanted : "model.visual.blocks.0.attn.qkv.weight");
		if (!cases[i].wanted ? found != NULL
				     : !found || strcmp(found, cases[i].in_base) != 0)
			fail_msg("'%s': '%s'", cases[i].in_base, found ? found : "(none)");
		done(&c);
	}
}

/* Both spellings of a vision tower stand in the base: which is meant? */
static void families__two_ways_are_none(void **state)
{
	struct lora_base_view view = {.model_type = "llava"};
	struct peft_case c = {0};

	(void)state;
	base_has(&c, "vision_tower.fc1.weight", "F32", 1, 1);
	base_has(&c, "vision_tower.vision_model.fc1.weight", "F32", 1, 1);
	case_finish(&c.base, c.list[1]);
	view.index = &c.base;
	assert_null(lora__family_rename(&view, &c.arena, "model.vision_tower.fc1.weight"));
	done(&c);
}

static const char *prefixed(void *user, struct lora_arena *arena, const char *name)
{
	return lora__arena_printf(arena, "%s%s", (const char *)user, name);
}

static void families__base_find(void **state)
{
	struct lora_base_view view = {.model_type = "gemma"};
	struct peft_case c = {0};
	struct lora_found found;

	(void)state;
	base_has(&c, "x.weight", "F32", 1, 1);
	base_has(&c, "model.embed_tokens.weight", "F32", 2, 2, 2);
	case_finish(&c.base, c.list[1]);
	view.index = &c.base;
	found = lora__base_find(&view, &c.arena, "x.weight");
	assert_int_equal(found.tensor, 0);
	assert_false(found.tied_alias);
	found = lora__base_find(&view, &c.arena, "lm_head.weight");
	assert_int_equal(found.tensor, 1);
	assert_true(found.tied_alias);
	assert_string_equal(found.name, "lm_head.weight");
	found = lora__base_find(&view, &c.arena, "y.weight");
	assert_int_equal(found.tensor, LORA_NO_TENSOR);
	view.rename = prefixed;
	view.rename_user = "model.";
	found = lora__base_find(&view, &c.arena, "embed_tokens.weight");
	assert_int_equal(found.tensor, 1);
	assert_string_equal(found.name, "model.embed_tokens.weight");
	view.rename = NULL;
	view.model_type = "llama"; /* whose embeddings are tied only if it says so */
	found = lora__base_find(&view, &c.arena, "lm_head.weight");
	assert_int_equal(found.tensor, LORA_NO_TENSOR);
	done(&c);
}

/* A ViT adapter of transformers 5 on a checkpoint as it stands on disk: the whole way. */
static void families__renamed_modules_get_edits(void **state)
{
	struct peft_case c = {0};

	(void)state;
	linear_has(&c, "vit.layers.0.attention.q_proj", 4, 10, 10);
	base_has(&c, "vit.encoder.layer.0.attention.attention.query.weight", "F32", 2, 10, 10);
	decoded(&c, "vit", LORA_CONFIG);
	assert_int_equal(c.decode.edit_count, 1);
	assert_string_equal(c.decode.edits[0].target,
			    "vit.encoder.layer.0.attention.attention.query.weight");
	assert_int_equal(c.decode.note_count, 1);
	assert_true(has_note(&c, LORA_NOTE_INFO,
			     "'vit.layers.0.attention.q_proj.weight' is "
			     "'vit.encoder.layer.0.attention.attention.query.weight' in the base"));
	done(&c);
	/* both spellings in one adapter would update one weight twice */
	linear_has(&c, "vit.layers.0.attention.q_proj", 4, 10, 10);
	linear_has(&c, "vit.encoder.layer.0.attention.attention.query", 4, 10, 10);
	base_has(&c, "vit.encoder.layer.0.attention.attention.query.weight", "F32", 2, 10, 10);
	refused(&c, "vit", LORA_CONFIG, "of the adapter both mean");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(families__conv1d),
	    cmocka_unit_test(families__ties),
	    cmocka_unit_test(families__tied_names),
	    cmocka_unit_test(families__experts),
	    cmocka_unit_test(families__renamings),
	    cmocka_unit_test(families__two_ways_are_none),
	    cmocka_unit_test(families__base_find),
	    cmocka_unit_test(families__renamed_modules_get_edits),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
