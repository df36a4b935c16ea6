/* SPDX-License-Identifier: Apache-2.0 */
/* test_peft_whole.c - tensors that replace the base's, are added to it, or replace rows; ties. */
#include "peft_case.h"

static const struct lora_edit *edit_on(const struct peft_case *c, const char *target)
{
	for (size_t i = 0; i < c->decode.edit_count; i++)
		if (!strcmp(c->decode.edits[i].target, target))
			return &c->decode.edits[i];
	fail_msg("no edit on '%s'", target);
	return NULL;
}

static void whole__modules_to_save(void **state)
{
	struct peft_case c = {0};
	const struct lora_edit *e;

	(void)state;
	linear_has(&c, "model.q", 4, 10, 20);
	adapter_has(&c, PREFIX "lm_head.weight", "F32", 2, 30, 10);
	adapter_has(&c, PREFIX "model.layers.0.input_layernorm.weight", "F32", 1, 10);
	adapter_has(&c, PREFIX "score.weight", "F32", 2, 3, 10);
	adapter_has(&c, PREFIX "classifier.dense.weight", "F32", 2, 10, 10);
	base_has(&c, "model.q.weight", "F32", 2, 20, 10);
	base_has(&c, "lm_head.weight", "BF16", 2, 30, 10);
	base_has(&c, "model.layers.0.input_layernorm.weight", "BF16", 1, 10);
	base_has(&c, "model.dense.weight", "BF16", 2, 10, 10);
	decoded(&c, "llama",
		LORA_AND("\"modules_to_save\":[\"lm_head\",\"norm\",\"score\",\"classifier\"]"));
	assert_int_equal(c.decode.edit_count, 5);
	assert_int_equal(c.decode.unmatched_count, 0);
	assert_int_equal(c.decode.note_count, 0);
	e = edit_on(&c, "lm_head.weight");
	assert_int_equal(e->kind, LORA_EDIT_REPLACE);
	assert_int_equal(e->base_tensor, 1);
	assert_range(*e, 10, 0, 30, 0, 10);
	assert_view(e->dense, 2, 0, 30, 10, 10, 1);
	assert_true(e->scale == 1 && e->alpha == 1 && e->divisor == 1 && e->rank == 0);
	assert_int_equal(e->source_count, 1);
	e = edit_on(&c, "model.layers.0.input_layernorm.weight");
	assert_int_equal(e->kind, LORA_EDIT_REPLACE);
	assert_range(*e, 10, 0, 1, 0, 10);
	e = edit_on(&c, "score.weight");
	assert_int_equal(e->kind, LORA_EDIT_ADD_TENSOR);
	assert_int_equal(e->base_tensor, LORA_NO_TENSOR);
	assert_int_equal(e->shape[0], 3);
	assert_int_equal(edit_on(&c, "classifier.dense.weight")->kind, LORA_EDIT_ADD_TENSOR);
	done(&c);
}

/* A copy beside the base's own would change nothing that anyone uses. */
static void whole__alike_is_not_added(void **state)
{
	struct peft_case c = {0};

	(void)state;
	adapter_has(&c, PREFIX "decoder.lm_head.weight", "F32", 2, 30, 10);
	adapter_has(&c, PREFIX "other.weight", "F32", 2, 30, 10);
	adapter_has(&c, PREFIX "x.original_module.weight", "F32", 2, 30, 10);
	base_has(&c, "text.lm_head.weight", "F32", 2, 30, 10);
	decoded(&c, "llama", LORA_AND("\"modules_to_save\":[\"lm_head\",\"x\"]"));
	assert_int_equal(c.decode.edit_count, 0);
	assert_true(
	    is_unmatched(&c, PREFIX "decoder.lm_head.weight", "'text.lm_head.weight' ends alike"));
	assert_true(is_unmatched(&c, PREFIX "other.weight", "modules_to_save does not name it"));
	assert_true(
	    is_unmatched(&c, PREFIX "x.original_module.weight", "a copy of the base's own"));
	done(&c);
}

/* What PEFT writes of a saved embedding when the vocabulary was resized: it loads the first. */
static void whole__stored_three_times(void **state)
{
	static const char *const names[] = {PREFIX "lm_head.modules_to_save.weight",
					    PREFIX "lm_head.original_module.weight",
					    PREFIX "lm_head.weight"};
	struct peft_case c = {0};
	const struct lora_edit *e;

	(void)state;
	for (size_t i = 0; i < 3; i++)
		adapter_has(&c, names[i], "F32", 2, 31, 10);
	base_has(&c, "lm_head.weight", "F32", 2, 30, 10);
	decoded(&c, "llama", LORA_AND("\"modules_to_save\":[\"lm_head\"]"));
	assert_int_equal(c.decode.edit_count, 1);
	assert_int_equal(c.decode.unmatched_count, 0);
	e = edit_on(&c, "lm_head.weight");
	assert_int_equal(e->kind, LORA_EDIT_REPLACE);
	assert_int_equal(e->dense.tensor, 2);
	assert_int_equal(e->source_count, 3);
	done(&c);
	/* Another shape is no copy. */
	adapter_has(&c, names[0], "F32", 2, 30, 10);
	adapter_has(&c, names[2], "F32", 2, 31, 10);
	refused(&c, "llama", LORA_CONFIG, "are the same one");
}

static void whole__not_listed_is_told(void **state)
{
	struct peft_case c = {0};

	(void)state;
	adapter_has(&c, PREFIX "model.norm.weight", "F32", 1, 10);
	adapter_has(&c, PREFIX "model.q.bias", "F32", 1, 20);
	base_has(&c, "model.norm.weight", "F32", 1, 10);
	base_has(&c, "model.q.bias", "F32", 1, 20);
	decoded(&c, "llama", LORA_AND("\"bias\":\"all\""));
	assert_int_equal(c.decode.edit_count, 2);
	assert_int_equal(c.decode.note_count, 1);
	assert_true(has_note(&c, LORA_NOTE_INFO, "'model.norm.weight' replaces the base's"));
	done(&c);
}

static void whole__shapes_and_types(void **state)
{
	struct peft_case c = {0};

	(void)state;
	adapter_has(&c, PREFIX "a.weight", "F32", 2, 3, 10);
	adapter_has(&c, PREFIX "b.count", "I64", 0);
	adapter_has(&c, PREFIX "c.count", "I64", 1, 2);
	adapter_has(&c, PREFIX "d.weight", "F16", 1, 2);
	base_has(&c, "a.weight", "F32", 2, 4, 10);
	base_has(&c, "b.count", "I64", 0);
	base_has(&c, "c.count", "I32", 1, 2);
	base_has(&c, "d.weight", "BF16", 1, 2);
	decoded(&c, "llama", LORA_AND("\"modules_to_save\":[\"a\",\"b\",\"c\",\"d\"]"));
	assert_int_equal(c.decode.edit_count, 2);
	assert_int_equal(edit_on(&c, "b.count")->ndim, 0);
	assert_range(*edit_on(&c, "b.count"), 1, 0, 1, 0, 1);
	edit_on(&c, "d.weight");
	assert_true(
	    is_unmatched(&c, PREFIX "a.weight", "shape [3, 10] does not fit 'a.weight' [4, 10]"));
	assert_true(
	    is_unmatched(&c, PREFIX "c.count", "type I64 cannot replace 'c.count' of type I32"));
	done(&c);
	adapter_has(&c, PREFIX "a.weight", "F64", 2, 3, 10);
	refused(&c, "llama", LORA_CONFIG, "has type F64");
}

/* An adapted embedding is saved with its base: REPLACE first, the update on the new shape. */
static void whole__targeted_embeddings(void **state)
{
	struct peft_case c = {0};
	const struct lora_edit *e;

	(void)state;
	adapter_has(&c, PREFIX "model.embed_tokens.base_layer.weight", "F32", 2, 33, 10);
	adapter_has(&c, PREFIX "model.embed_tokens.lora_embedding_A", "F32", 2, 4, 33);
	adapter_has(&c, PREFIX "model.embed_tokens.lora_embedding_B", "F32", 2, 10, 4);
	adapter_has(&c, PREFIX "lm_head.base_layer.weight", "F32", 2, 33, 10);
	linear_has(&c, "lm_head", 4, 10, 33);
	base_has(&c, "model.embed_tokens.weight", "F32", 2, 30, 10);
	base_has(&c, "lm_head.weight", "F32", 2, 30, 10);
	decoded(&c, "llama", LORA_CONFIG);
	assert_int_equal(c.decode.edit_count, 4);
	for (size_t i = 0; i < 4; i++) {
		e = &c.decode.edits[i];
		assert_int_equal(e->kind, i < 2 ? LORA_EDIT_ADD_LOWRANK : LORA_EDIT_REPLACE);
		assert_int_equal(e->shape[0], 33);
		assert_range(*e, 10, 0, 33, 0, 10);
	}
	assert_int_equal(c.decode.note_count, 0);
	done(&c);
	/* One half resized, the other left: no model has that. */
	adapter_has(&c, PREFIX "model.embed_tokens.weight", "F32", 2, 33, 10);
	base_has(&c, "model.embed_tokens.weight", "F32", 2, 30, 10);
	base_has(&c, "lm_head.weight", "F32", 2, 30, 10);
	refused(
	    &c, "llama", LORA_CONFIG,
	    "'model.embed_tokens.weight' is resized to 33 rows, but 'lm_head.weight' keeps its 30");
	/* Tied, the one that is stored suffices. */
	adapter_has(&c, PREFIX "model.embed_tokens.weight", "F32", 2, 33, 10);
	base_has(&c, "model.embed_tokens.weight", "F32", 2, 30, 10);
	decoded(&c, "gemma", LORA_CONFIG);
	assert_int_equal(c.decode.edit_count, 1);
	done(&c);
	/* Other columns are no resizing. */
	adapter_has(&c, PREFIX "model.embed_tokens.weight", "F32", 2, 30, 11);
	base_has(&c, "model.embed_tokens.weight", "F32", 2, 30, 10);
	decoded(&c, "gemma", LORA_CONFIG);
	assert_int_equal(c.decode.unmatched_count, 1);
	done(&c);
}

static void whole__ties(void **state)
{
	struct peft_case c = {0};
	const struct lora_edit *e;

	(void)state;
	linear_has(&c, "lm_head", 4, 10, 30);
	base_has(&c, "x", "F32", 1, 1);
	base_has(&c, "model.embed_tokens.weight", "F32", 2, 30, 10);
	if (decode_with(&c, "llama", "{\"tie_word_embeddings\":true}", LORA_CONFIG))
		fail_msg("%s", c.err.message);
	e = &c.decode.edits[0];
	assert_string_equal(e->target, "lm_head.weight");
	assert_true(e->tied_alias);
	assert_int_equal(e->base_tensor, 1);
	assert_view(e->left, 1, 0, 30, 4, 4, 1);
	done(&c);
	linear_has(&c, "lm_head", 4, 10, 30); /* llama does not tie unless it says so */
	base_has(&c, "model.embed_tokens.weight", "F32", 2, 30, 10);
	decoded(&c, "llama", LORA_CONFIG);
	assert_int_equal(c.decode.unmatched_count, 2);
	done(&c);
}

#define TOKENS "model.embed_tokens.token_adapter.trainable_tokens_delta"

static void whole__trainable_tokens(void **state)
{
	struct peft_case c = {0};
	const struct lora_edit *e;

	(void)state;
	adapter_has(&c, PREFIX TOKENS, "F32", 2, 3, 10);
	base_has(&c, "model.embed_tokens.weight", "F32", 2, 30, 10);
	decoded(&c, "llama", LORA_AND("\"trainable_token_indices\":[7,29,0]"));
	e = &c.decode.edits[0];
	assert_int_equal(e->kind, LORA_EDIT_REPLACE_ROWS);
	assert_range(*e, 10, 0, 30, 0, 10);
	assert_view(e->dense, 0, 0, 3, 10, 10, 1);
	assert_int_equal(e->row_ids[0], 7);
	assert_int_equal(e->row_ids[1], 29);
	assert_int_equal(e->row_ids[2], 0);
	done(&c);
	/* PEFT 0.21, tied and resized: both names, one list, the rows of the new embedding. */
	adapter_has(&c, PREFIX TOKENS, "F32", 2, 1, 10);
	adapter_has(&c, PREFIX "model.embed_tokens.token_adapter.base_layer.weight", "F32", 2, 33,
		    10);
	adapter_has(&c, PREFIX "lm_head.token_adapter.trainable_tokens_delta", "F32", 2, 1, 10);
	adapter_has(&c, PREFIX "lm_head.token_adapter.base_layer.weight", "F32", 2, 33, 10);
	base_has(&c, "model.embed_tokens.weight", "F32", 2, 30, 10);
	decoded(&c, "gemma", LORA_AND("\"trainable_token_indices\":{\"embed_tokens\":[32]}"));
	assert_int_equal(c.decode.edit_count, 4);
	assert_true(edit_on(&c, "lm_head.weight")->tied_alias);
	assert_int_equal(edit_on(&c, "lm_head.weight")->row_ids[0], 32);
	done(&c);
	/* each module its own list */
	adapter_has(&c, PREFIX TOKENS, "F32", 2, 2, 10);
	adapter_has(&c, PREFIX "lm_head.token_adapter.trainable_tokens_delta", "F32", 2, 1, 10);
	base_has(&c, "model.embed_tokens.weight", "F32", 2, 30, 10);
	base_has(&c, "lm_head.weight", "F32", 2, 30, 10);
	decoded(&c, "llama",
		LORA_AND("\"trainable_token_indices\":{\"lm_head\":[5],\"embed_tokens\":[7,3]}"));
	assert_int_equal(edit_on(&c, "lm_head.weight")->row_ids[0], 5);
	assert_int_equal(edit_on(&c, "model.embed_tokens.weight")->row_ids[1], 3);
	done(&c);
}

static void whole__bad_tokens(void **state)
{
	static const struct {
		const char *config, *message;
	} cases[] = {
	    {LORA_CONFIG, "has 2 trainable tokens, trainable_token_indices lists 0"},
	    {LORA_AND("\"trainable_token_indices\":[1]"), "lists 1 for it"},
	    {LORA_AND("\"trainable_token_indices\":[1,30]"), "token 30 is not below the 30 rows"},
	    {LORA_AND("\"trainable_token_indices\":[4,4]"), "token 4 stands there twice"},
	    {LORA_AND("\"trainable_token_indices\":{\"lm_head2\":[1,2]}"), "lists 0 for it"},
	};
	struct peft_case c = {0};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
		adapter_has(&c, PREFIX TOKENS, "F32", 2, 2, 10);
		base_has(&c, "model.embed_tokens.weight", "F32", 2, 30, 10);
		refused(&c, "llama", cases[i].config, cases[i].message);
	}
	adapter_has(&c, PREFIX TOKENS, "F32", 2, 2, 11);
	base_has(&c, "model.embed_tokens.weight", "F32", 2, 30, 10);
	decoded(&c, "llama", LORA_AND("\"trainable_token_indices\":[1,2]"));
	assert_true(is_unmatched(&c, PREFIX TOKENS, "rows of [2, 11] do not fit"));
	done(&c);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(whole__modules_to_save),
	    cmocka_unit_test(whole__alike_is_not_added),
	    cmocka_unit_test(whole__stored_three_times),
	    cmocka_unit_test(whole__not_listed_is_told),
	    cmocka_unit_test(whole__shapes_and_types),
	    cmocka_unit_test(whole__targeted_embeddings),
	    cmocka_unit_test(whole__ties),
	    cmocka_unit_test(whole__trainable_tokens),
	    cmocka_unit_test(whole__bad_tokens),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
