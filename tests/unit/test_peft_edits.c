/* SPDX-License-Identifier: Apache-2.0 */
/* test_peft_edits.c - from an adapter's tensors to edits, layer by layer.
 *
 * Expected views are derived by hand from what PEFT stores: A [r, in] and B [out, r], row-major.
 * Element (i, k) of B is i*r + k, of its transpose k*r + i; so B as L has strides (r, 1), B^T as
 * R (1, r). */
#include "peft_case.h"

#define NONE LORA_NO_TENSOR

static void edits__linear(void **state)
{
	struct peft_case c = {0};
	const struct lora_edit *e;

	(void)state;
	linear_has(&c, "model.q", 4, 10, 20);
	base_has(&c, "other", "F32", 1, 3);
	base_has(&c, "model.q.weight", "BF16", 2, 20, 10);
	decoded(&c, "llama", LORA_CONFIG);
	assert_int_equal(c.decode.edit_count, 1);
	assert_int_equal(c.decode.unmatched_count, 0);
	e = &c.decode.edits[0];
	assert_int_equal(e->kind, LORA_EDIT_ADD_LOWRANK);
	assert_string_equal(e->target, "model.q.weight");
	assert_string_equal(e->module, "model.q");
	assert_int_equal(e->base_tensor, 1);
	assert_false(e->tied_alias);
	assert_int_equal(e->ndim, 2);
	assert_int_equal(e->shape[0], 20);
	assert_int_equal(e->shape[1], 10);
	assert_range(*e, 10, 0, 20, 0, 10);
	assert_view(e->left, 1, 0, 20, 4, 4, 1);
	assert_view(e->right, 0, 0, 4, 10, 10, 1);
	assert_int_equal(e->rank, 4);
	assert_true(e->alpha == 6 && e->divisor == 4 && e->scale == 1.5);
	assert_int_equal(e->source_count, 2);
	assert_int_equal(e->sources[0], 0);
	assert_int_equal(e->sources[1], 1);
	done(&c);
}

/* GPT-2 stores [in, out]: L = A^T [in, r], element (i, k) = k*10 + i; R = B^T [r, out], (k, j) =
 * j*4 + k. */
static void edits__conv1d(void **state)
{
	struct peft_case c = {0};
	const struct lora_edit *e;

	(void)state;
	linear_has(&c, "h.0.attn.c_attn", 4, 10, 20);
	linear_has(&c, "h.0.attn.c_proj", 4, 10, 10); /* square: only the family tells */
	linear_has(&c, "lm_head", 4, 10, 10);	      /* square, and no Conv1D */
	base_has(&c, "h.0.attn.c_attn.weight", "F32", 2, 10, 20);
	base_has(&c, "h.0.attn.c_proj.weight", "F32", 2, 10, 10);
	base_has(&c, "lm_head.weight", "F32", 2, 10, 10);
	decoded(&c, "gpt2", LORA_CONFIG);
	assert_int_equal(c.decode.edit_count, 3);
	e = &c.decode.edits[0];
	assert_range(*e, 20, 0, 10, 0, 20);
	assert_view(e->left, 0, 0, 10, 4, 1, 10);
	assert_view(e->right, 1, 0, 4, 20, 1, 4);
	e = &c.decode.edits[1];
	assert_view(e->left, 2, 0, 10, 4, 1, 10);
	assert_view(e->right, 3, 0, 4, 10, 1, 4);
	e = &c.decode.edits[2];
	assert_view(e->left, 5, 0, 10, 4, 4, 1);
	assert_view(e->right, 4, 0, 4, 10, 10, 1);
	done(&c);
}

static bool turned(const struct lora_edit *e)
{
	return e->left.tensor == e->sources[0]; /* L is A^T */
}

/* A family that nobody knows: the square module follows its non-square namesakes, then everybody,
 * then [out, in]. */
static void edits__square_by_evidence(void **state)
{
	struct peft_case c = {0};

	(void)state;
	linear_has(&c, "a.proj", 4, 10, 10);
	linear_has(&c, "b.proj", 4, 10, 20);
	linear_has(&c, "b.head", 4, 10, 20);
	base_has(&c, "a.proj.weight", "F32", 2, 10, 10);
	base_has(&c, "b.proj.weight", "F32", 2, 10, 20); /* [in, out] */
	base_has(&c, "b.head.weight", "F32", 2, 20, 10);
	decoded(&c, NULL, LORA_CONFIG);
	assert_true(turned(&c.decode.edits[0]));
	assert_true(turned(&c.decode.edits[1]));
	assert_false(turned(&c.decode.edits[2]));
	done(&c);

	linear_has(&c, "a.proj", 4, 10, 10); /* no namesake, but all others are [in, out] */
	linear_has(&c, "b.head", 4, 10, 20);
	base_has(&c, "a.proj.weight", "F32", 2, 10, 10);
	base_has(&c, "b.head.weight", "F32", 2, 10, 20);
	decoded(&c, "new_family", LORA_CONFIG);
	assert_true(turned(&c.decode.edits[0]));
	done(&c);

	linear_has(&c, "a.proj", 4, 10, 10); /* no namesake, and the others disagree */
	linear_has(&c, "b.head", 4, 10, 20);
	linear_has(&c, "b.tail", 4, 10, 20);
	base_has(&c, "a.proj.weight", "F32", 2, 10, 10);
	base_has(&c, "b.head.weight", "F32", 2, 10, 20);
	base_has(&c, "b.tail.weight", "F32", 2, 20, 10);
	refused(&c, NULL, LORA_CONFIG, "module 'a.proj' is square, and other modules");

	linear_has(&c, "a.proj", 4, 10, 10); /* nothing at all */
	base_has(&c, "a.proj.weight", "F32", 2, 10, 10);
	decoded(&c, NULL, LORA_CONFIG);
	assert_false(turned(&c.decode.edits[0]));
	done(&c);
}

/* PEFT stores there what its last layer wanted: never followed, and never contradicted blindly. */
static void edits__fan_in_fan_out_is_no_evidence(void **state)
{
	static const char config[] = LORA_AND("\"fan_in_fan_out\":true");
	static const char no[] = LORA_AND("\"fan_in_fan_out\":false");
	struct peft_case c = {0};

	(void)state;
	linear_has(&c, "q", 4, 10, 10);
	base_has(&c, "q.weight", "F32", 2, 10, 10);
	decoded(&c, "llama", config);
	assert_false(turned(&c.decode.edits[0]));
	done(&c);
	linear_has(&c, "h.0.attn.c_proj", 4, 10, 10);
	base_has(&c, "h.0.attn.c_proj.weight", "F32", 2, 10, 10);
	decoded(&c, "gpt2", no);
	assert_true(turned(&c.decode.edits[0]));
	done(&c);
	linear_has(&c, "q", 4, 10, 10);
	base_has(&c, "q.weight", "F32", 2, 10, 10);
	refused(&c, NULL, config, "only 'fan_in_fan_out' hints at");
	linear_has(&c, "q", 4, 10, 20); /* the shape tells */
	base_has(&c, "q.weight", "F32", 2, 20, 10);
	decoded(&c, NULL, config);
	assert_false(turned(&c.decode.edits[0]));
	done(&c);
}

/* The family's word and the shape must agree. */
static void edits__orientation_contradiction(void **state)
{
	struct peft_case c = {0};

	(void)state;
	linear_has(&c, "h.0.attn.c_attn", 4, 10, 20);
	base_has(&c, "h.0.attn.c_attn.weight", "F32", 2, 20, 10);
	decoded(&c, "gpt2", LORA_CONFIG);
	assert_int_equal(c.decode.edit_count, 0);
	assert_true(is_unmatched(&c, PREFIX "h.0.attn.c_attn.lora_A.weight", "do not fit"));
	done(&c);
	linear_has(&c, "q", 4, 10, 20);
	base_has(&c, "q.weight", "F32", 2, 10, 20);
	decoded(&c, "llama", LORA_CONFIG);
	assert_int_equal(c.decode.edit_count, 0);
	assert_int_equal(c.decode.unmatched_count, 2);
	done(&c);
}

/* Embedding [V, D] = [30, 5]: L = A^T [30, 4], (v, k) = k*30 + v; R = B^T [4, 5], (k, d) = d*4 +
 * k. DoRA: by column. */
static void edits__embedding(void **state)
{
	struct peft_case c = {0};
	const struct lora_edit *e;

	(void)state;
	adapter_has(&c, PREFIX "e.lora_embedding_A", "F32", 2, 4, 30);
	adapter_has(&c, PREFIX "e.lora_embedding_B", "F32", 2, 5, 4);
	adapter_has(&c, PREFIX "e.lora_magnitude_vector", "F32", 1, 5);
	base_has(&c, "e.weight", "F32", 2, 30, 5);
	decoded(&c, "llama", LORA_AND("\"use_dora\":true"));
	assert_int_equal(c.decode.edit_count, 1);
	e = &c.decode.edits[0];
	assert_int_equal(e->kind, LORA_EDIT_DORA);
	assert_range(*e, 5, 0, 30, 0, 5);
	assert_view(e->left, 0, 0, 30, 4, 1, 30);
	assert_view(e->right, 1, 0, 4, 5, 1, 4);
	assert_view(e->magnitude, 2, 0, 1, 5, 5, 1);
	assert_true(e->norm_by_column);
	assert_int_equal(e->source_count, 3);
	assert_string_equal(c.decode.method, "dora");
	done(&c);
}

static void edits__dora(void **state)
{
	static const char config[] = LORA_AND("\"use_dora\":true");
	struct peft_case c = {0};
	const struct lora_edit *e;

	(void)state;
	linear_has(&c, "q", 4, 10, 20);
	adapter_has(&c, PREFIX "q.lora_magnitude_vector", "F32", 1, 20);
	linear_has(&c, "h.c_attn", 4, 10, 20);
	adapter_has(&c, PREFIX "h.c_attn.lora_magnitude_vector", "F32", 1, 20);
	base_has(&c, "q.weight", "F32", 2, 20, 10);
	base_has(&c, "h.c_attn.weight", "F32", 2, 10, 20);
	decoded(&c, "gpt2", config);
	e = &c.decode.edits[0]; /* [out, in]: m by row */
	assert_int_equal(e->kind, LORA_EDIT_DORA);
	assert_false(e->norm_by_column);
	assert_view(e->magnitude, 2, 0, 1, 20, 20, 1);
	e = &c.decode.edits[1]; /* [in, out]: m by column */
	assert_true(e->norm_by_column);
	assert_view(e->magnitude, 5, 0, 1, 20, 20, 1);
	assert_range(*e, 20, 0, 10, 0, 20);
	done(&c);
	linear_has(&c, "q", 4, 10, 20);
	adapter_has(&c, PREFIX "q.lora_magnitude_vector", "F32", 1, 10);
	base_has(&c, "q.weight", "F32", 2, 20, 10);
	refused(&c, "llama", config, "lora_magnitude_vector' [10] does not have 20 elements");
}

/* Conv2d [out 10, in 5, 3, 2]: seen as [10, 30]; A [4, 5, 3, 2] as [4, 30], B [10, 4, 1, 1] as
 * [10, 4]. */
static void edits__convolution(void **state)
{
	struct peft_case c = {0};
	const struct lora_edit *e;

	(void)state;
	adapter_has(&c, PREFIX "c.lora_A.weight", "F32", 4, 4, 5, 3, 2);
	adapter_has(&c, PREFIX "c.lora_B.weight", "F32", 4, 10, 4, 1, 1);
	adapter_has(&c, PREFIX "c.lora_magnitude_vector", "F32", 4, 1, 10, 1, 1);
	adapter_has(&c, PREFIX "d.lora_A.weight", "F32", 3, 4, 3, 2);
	adapter_has(&c, PREFIX "d.lora_B.weight", "F32", 3, 7, 4, 1);
	adapter_has(&c, PREFIX "d.lora_magnitude_vector", "F32", 3, 1, 7, 1);
	base_has(&c, "c.weight", "F32", 4, 10, 5, 3, 2);
	base_has(&c, "d.weight", "F32", 3, 7, 3, 2);
	decoded(&c, NULL, LORA_AND("\"use_dora\":true"));
	e = &c.decode.edits[0];
	assert_int_equal(e->kind, LORA_EDIT_DORA);
	assert_int_equal(e->ndim, 4);
	assert_range(*e, 30, 0, 10, 0, 30);
	assert_view(e->left, 1, 0, 10, 4, 4, 1);
	assert_view(e->right, 0, 0, 4, 30, 30, 1);
	assert_view(e->magnitude, 2, 0, 1, 10, 10, 1);
	assert_false(e->norm_by_column);
	e = &c.decode.edits[1];
	assert_int_equal(e->ndim, 3);
	assert_range(*e, 6, 0, 7, 0, 6);
	done(&c);
}

static void edits__grouped_convolution_is_refused(void **state)
{
	struct peft_case c = {0};

	(void)state;
	/* PEFT 0.21: Conv2d(16, 32, 3, groups=2) gives A [4, 16, 3, 3], B [32, 2, 1, 1]; W is
	 * [32, 8, 3, 3] */
	adapter_has(&c, PREFIX "c.lora_A.weight", "F32", 4, 4, 16, 3, 3);
	adapter_has(&c, PREFIX "c.lora_B.weight", "F32", 4, 32, 2, 1, 1);
	base_has(&c, "c.weight", "F32", 4, 32, 8, 3, 3);
	refused(&c, NULL, LORA_CONFIG, "module 'c' is a convolution with 2 groups");
	/* B's rank alone shows it, without a base */
	c.no_base = true;
	adapter_has(&c, PREFIX "c.lora_A.weight", "F32", 4, 4, 16, 3, 3);
	adapter_has(&c, PREFIX "c.lora_B.weight", "F32", 4, 32, 2, 1, 1);
	refused(&c, NULL, LORA_CONFIG, "module 'c' is a convolution with 2 groups");
	adapter_has(&c, PREFIX "c.lora_A.weight", "F32", 4, 4, 16, 3, 3);
	adapter_has(&c, PREFIX "c.lora_B.weight", "F32", 4, 32, 3, 1, 1);
	refused(&c, NULL, LORA_CONFIG, "do not fit each other");
	/* A's channels alone show it, too */
	adapter_has(&c, PREFIX "c.lora_A.weight", "F32", 4, 4, 16, 3, 3);
	adapter_has(&c, PREFIX "c.lora_B.weight", "F32", 4, 32, 4, 1, 1);
	base_has(&c, "c.weight", "F32", 4, 32, 4, 3, 3);
	refused(&c, NULL, LORA_CONFIG, "module 'c' is a convolution with 4 groups");
}

/* E = 12: in_proj_weight [36, 12]; out_proj is one update, with the attention's rank and alpha. */
static void edits__attention(void **state)
{
	struct peft_case c = {0};

	(void)state;
	linear_has(&c, "mha", 2, 12, 36);
	linear_has(&c, "mha.base_layer.out_proj", 2, 12, 12);
	base_has(&c, "mha.in_proj_weight", "F32", 2, 36, 12);
	base_has(&c, "mha.out_proj.weight", "F32", 2, 12, 12);
	decoded(&c, NULL, LORA_AND("\"rank_pattern\":{\"mha\":2}"));
	assert_int_equal(c.decode.edit_count, 2);
	assert_string_equal(c.decode.edits[0].target, "mha.in_proj_weight");
	assert_view(c.decode.edits[0].left, 1, 0, 36, 2, 2, 1);
	assert_string_equal(c.decode.edits[1].target, "mha.out_proj.weight");
	assert_view(c.decode.edits[1].left, 3, 0, 12, 2, 2, 1);
	assert_int_equal(c.decode.edits[1].rank, 2);
	assert_true(c.decode.edits[1].scale == 3);
	assert_int_equal(c.decode.note_count, 0);
	done(&c);
	/* Without a base the wrapped out_proj shows what it is. */
	c.no_base = true;
	linear_has(&c, "mha", 4, 12, 36);
	linear_has(&c, "mha.base_layer.out_proj", 4, 12, 12);
	decoded(&c, NULL, LORA_CONFIG);
	assert_string_equal(c.decode.edits[0].target, "mha.in_proj_weight");
	done(&c);
}

static void edits__lora_bias(void **state)
{
	static const char config[] = LORA_AND("\"lora_bias\":true");
	struct peft_case c = {0};
	const struct lora_edit *e;

	(void)state;
	linear_has(&c, "q", 4, 10, 20);
	adapter_has(&c, PREFIX "q.lora_B.bias", "F32", 1, 20);
	base_has(&c, "q.weight", "F32", 2, 20, 10);
	base_has(&c, "q.bias", "F32", 1, 20);
	decoded(&c, "llama", config);
	assert_int_equal(c.decode.edit_count, 2);
	e = &c.decode.edits[1];
	assert_int_equal(e->kind, LORA_EDIT_ADD_DENSE);
	assert_string_equal(e->target, "q.bias");
	assert_range(*e, 20, 0, 1, 0, 20);
	assert_view(e->dense, 2, 0, 1, 20, 20, 1);
	assert_true(e->scale == 1.5 && e->alpha == 6 && e->divisor == 4);
	assert_int_equal(e->source_count, 1);
	done(&c);
	linear_has(&c, "q", 4, 10, 20); /* a base without that bias */
	adapter_has(&c, PREFIX "q.lora_B.bias", "F32", 1, 20);
	base_has(&c, "q.weight", "F32", 2, 20, 10);
	decoded(&c, "llama", config);
	assert_int_equal(c.decode.edit_count, 1);
	assert_true(is_unmatched(&c, PREFIX "q.lora_B.bias", "no tensor 'q.bias' in the base"));
	done(&c);
}

static void edits__unmatched(void **state)
{
	struct peft_case c = {0};

	(void)state;
	linear_has(&c, "nowhere", 4, 10, 20);
	linear_has(&c, "q", 4, 11, 20);
	linear_has(&c, "k", 4, 10, 20);
	base_has(&c, "q.weight", "F32", 2, 20, 10);
	base_has(&c, "k.weight", "F32", 2, 20, 10);
	decoded(&c, "llama", LORA_CONFIG);
	assert_int_equal(c.decode.edit_count, 1);
	assert_int_equal(c.decode.unmatched_count, 4);
	assert_true(is_unmatched(&c, PREFIX "nowhere.lora_A.weight", "no tensor 'nowhere.weight'"));
	assert_true(is_unmatched(&c, PREFIX "nowhere.lora_B.weight", "no tensor 'nowhere.weight'"));
	assert_true(is_unmatched(&c, PREFIX "q.lora_B.weight",
				 "shapes [20, 4] and [4, 11] do not fit 'q.weight' [20, 10]"));
	assert_string_equal(c.decode.unmatched[0].wanted, "nowhere.weight");
	done(&c);
}

static void edits__wrong_shapes(void **state)
{
	struct peft_case c = {0};

	(void)state;
	adapter_has(&c, PREFIX "q.lora_A.weight", "F32", 2, 4, 10);
	adapter_has(&c, PREFIX "q.lora_B.weight", "F32", 2, 20, 5);
	base_has(&c, "q.weight", "F32", 2, 20, 10);
	refused(&c, "llama", LORA_CONFIG, "do not fit each other");
	linear_has(&c, "q", 5, 10, 20);
	base_has(&c, "q.weight", "F32", 2, 20, 10);
	refused(&c, "llama", LORA_CONFIG, "has rank 5, the config says 4 (alpha/r)");
	adapter_has(&c, PREFIX "q.lora_A.weight", "F32", 1, 4);
	adapter_has(&c, PREFIX "q.lora_B.weight", "F32", 1, 20);
	refused(&c, "llama", LORA_CONFIG, "do not fit each other");
	adapter_has(&c, PREFIX "c.lora_A.weight", "F32", 4, 4, 5, 3, 2);
	adapter_has(&c, PREFIX "c.lora_B.weight", "F32", 4, 10, 4, 1, 2);
	refused(&c, "llama", LORA_CONFIG, "do not fit each other");
	adapter_has(&c, PREFIX "e.base_layer.lora_A.weight", "F32", 2, 4, 10);
	adapter_has(&c, PREFIX "e.base_layer.lora_B.weight", "F32", 2, 20, 4);
	refused(&c, "llama", LORA_CONFIG, "wrapped in 1 'base_layer'");
}

/* Without a base: targets as the adapter spells them, [out, in]. */
static void edits__without_a_base(void **state)
{
	struct peft_case c = {.no_base = true};

	(void)state;
	linear_has(&c, "model.q", 4, 10, 20);
	adapter_has(&c, PREFIX "score.weight", "F32", 2, 3, 10);
	decoded(&c, NULL, LORA_AND("\"modules_to_save\":[\"score\"]"));
	assert_int_equal(c.decode.edit_count, 2);
	assert_string_equal(c.decode.edits[0].target, "model.q.weight");
	assert_int_equal(c.decode.edits[0].base_tensor, NONE);
	assert_range(c.decode.edits[0], 10, 0, 20, 0, 10);
	assert_int_equal(c.decode.edits[1].kind, LORA_EDIT_REPLACE);
	assert_int_equal(c.decode.unmatched_count, 0);
	done(&c);
}

static void edits__names_without_the_prefix(void **state)
{
	struct peft_case c = {0};

	(void)state;
	adapter_has(&c, "model.q.lora_A.default.weight", "F32", 2, 4, 10);
	adapter_has(&c, "model.q.lora_B.default.weight", "F32", 2, 20, 4);
	base_has(&c, "model.q.weight", "F32", 2, 20, 10);
	decoded(&c, "llama", LORA_CONFIG);
	assert_int_equal(c.decode.edit_count, 1);
	assert_true(has_note(&c, LORA_NOTE_INFO, "lack 'base_model.model.'"));
	done(&c);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(edits__linear),
	    cmocka_unit_test(edits__conv1d),
	    cmocka_unit_test(edits__square_by_evidence),
	    cmocka_unit_test(edits__fan_in_fan_out_is_no_evidence),
	    cmocka_unit_test(edits__orientation_contradiction),
	    cmocka_unit_test(edits__embedding),
	    cmocka_unit_test(edits__dora),
	    cmocka_unit_test(edits__convolution),
	    cmocka_unit_test(edits__grouped_convolution_is_refused),
	    cmocka_unit_test(edits__attention),
	    cmocka_unit_test(edits__lora_bias),
	    cmocka_unit_test(edits__unmatched),
	    cmocka_unit_test(edits__wrong_shapes),
	    cmocka_unit_test(edits__without_a_base),
	    cmocka_unit_test(edits__names_without_the_prefix),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
