/* SPDX-License-Identifier: Apache-2.0 */
/* test_peft_experts.c - target_parameters: which parameter, which layout, which expert's numbers.
 *
 * E = 3 experts, r = 4. A [12, wide]: expert e's rows are 4e .. 4e+3, so its A_e begins at
 * element 4*e*wide. B [high, 12]: column k*3 + e, so B_e begins at element e, a step of rank is 3
 * elements, a row 12. */
#include "peft_case.h"

#define TARGETS(list) LORA_AND("\"peft_version\":\"0.21.2\",\"target_parameters\":[" list "]")
#define VERSION(version, list)                                                                     \
	LORA_AND("\"peft_version\":\"" version "\",\"target_parameters\":[" list "]")

/* Factors of module `module` (a literal): A [12, wide], B [high, 12]. */
#define experts_have(c, module, wide, high)                                                        \
	do {                                                                                       \
		adapter_has(c, PREFIX module ".lora_A.weight", "F32", 2, 12, wide);                \
		adapter_has(c, PREFIX module ".lora_B.weight", "F32", 2, high, 12);                \
	} while (0)

/* W [3, d1 20, d2 10], not transposed: A [12, d2], B [d1, 12], D_e = B_e A_e. */
static void experts__plain(void **state)
{
	struct peft_case c = {0};

	(void)state;
	experts_have(&c, "l.0.mlp.experts", 10, 20);
	base_has(&c, "l.0.mlp.experts.gate_up_proj", "F32", 3, 3, 20, 10);
	decoded(&c, "qwen3_vl_moe", TARGETS("\"experts.gate_up_proj\""));
	assert_int_equal(c.decode.edit_count, 3);
	for (uint64_t e = 0; e < 3; e++) {
		const struct lora_edit *edit = &c.decode.edits[e];

		assert_string_equal(edit->target, "l.0.mlp.experts.gate_up_proj");
		assert_string_equal(edit->module, "l.0.mlp.experts.gate_up_proj");
		assert_int_equal(edit->kind, LORA_EDIT_ADD_LOWRANK);
		assert_int_equal(edit->ndim, 3);
		assert_range(*edit, 10, e * 20, 20, 0, 10);
		assert_view(edit->left, 1, e, 20, 4, 12, 3);
		assert_view(edit->right, 0, e * 40, 4, 10, 10, 1);
		assert_int_equal(edit->rank, 4);
		assert_true(edit->scale == 1.5);
		assert_int_equal(edit->source_count, 2);
	}
	done(&c);
}

/* gpt-oss, W [3, d1 10, d2 20] transposed: A [12, d1], B [d2, 12], D_e = (B_e A_e)^T: L = A_e^T,
 * R = B_e^T. */
static void experts__transposed(void **state)
{
	struct peft_case c = {0};

	(void)state;
	experts_have(&c, "l.0.mlp.experts", 10, 20);
	base_has(&c, "l.0.mlp.experts.gate_up_proj", "F32", 3, 3, 10, 20);
	decoded(&c, "gpt_oss", TARGETS("\"experts.gate_up_proj\""));
	for (uint64_t e = 0; e < 3; e++) {
		const struct lora_edit *edit = &c.decode.edits[e];

		assert_range(*edit, 20, e * 10, 10, 0, 20);
		assert_view(edit->left, 0, e * 40, 10, 4, 1, 10);
		assert_view(edit->right, 1, e, 4, 20, 3, 12);
	}
	done(&c);
}

/* First registered is innermost; one alone is the outermost, whichever it is. */
static void experts__nested(void **state)
{
	struct peft_case c = {0};

	(void)state;
	experts_have(&c, "mlp.experts.base_layer", 10, 20);
	experts_have(&c, "mlp.experts", 9, 10);
	base_has(&c, "mlp.experts.down_proj", "F32", 3, 3, 10, 9);
	base_has(&c, "mlp.experts.gate_up_proj", "F32", 3, 3, 20, 10);
	decoded(&c, "qwen3_vl_moe", TARGETS("\"experts.down_proj\",\"experts.gate_up_proj\""));
	assert_int_equal(c.decode.edit_count, 6);
	assert_string_equal(c.decode.edits[0].target, "mlp.experts.gate_up_proj");
	assert_string_equal(c.decode.edits[3].target, "mlp.experts.down_proj");
	assert_int_equal(c.decode.unmatched_count, 0);
	done(&c);
	experts_have(&c, "mlp.experts", 9, 10);
	base_has(&c, "mlp.experts.down_proj", "F32", 3, 3, 10, 9);
	base_has(&c, "mlp.experts.gate_up_proj", "F32", 3, 3, 20, 10);
	decoded(&c, "qwen3_vl_moe", TARGETS("\"experts.down_proj\""));
	assert_string_equal(c.decode.edits[0].target, "mlp.experts.down_proj");
	done(&c);
	experts_have(&c, "mlp.experts", 9, 10); /* two are named, one is there: which? */
	base_has(&c, "mlp.experts.down_proj", "F32", 3, 3, 10, 9);
	base_has(&c, "mlp.experts.gate_up_proj", "F32", 3, 3, 20, 10);
	refused(&c, "qwen3_vl_moe", TARGETS("\"down_proj\",\"gate_up_proj\""),
		"names 2 of its parameters, the adapter has factors for 1");
	experts_have(&c, "mlp.experts.base_layer", 10, 20); /* two whose order nobody knows */
	experts_have(&c, "mlp.experts", 10, 20);
	base_has(&c, "mlp.experts.one", "F32", 3, 3, 20, 10);
	base_has(&c, "mlp.experts.two", "F32", 3, 3, 20, 10);
	refused(&c, "qwen3_vl_moe", TARGETS("\"one\",\"two\""),
		"the order of its parameters 'one'");
}

/* Square experts: peft_version and family must tell. true: L comes from A. */
static void experts__square(void **state)
{
	static const struct {
		const char *type, *config;
		int transposed; /* -1: refused */
	} cases[] = {
	    {"gpt_oss", VERSION("0.21.2", "\"experts.w\""), 1},
	    {"qwen3_vl_moe", VERSION("0.21.2", "\"experts.w\""), 0},
	    {"gpt_oss", VERSION("0.19.1", "\"experts.w\""), 1},
	    {"qwen3_vl_moe", VERSION("0.19.1", "\"experts.w\""), 0},
	    {"gpt_oss", VERSION("0.19.0", "\"experts.w\""), 0}, /* the flag the wrong way round */
	    {"qwen3_vl_moe", VERSION("0.19.0", "\"experts.w\""), 1},
	    {"gpt_oss", VERSION("0.18.1", "\"experts.w\""), 1}, /* the first layout for all */
	    {"qwen3_vl_moe", VERSION("0.18.1", "\"experts.w\""), 1},
	    {"qwen3_vl_moe", VERSION("0.17.0", "\"experts.w\""), 1},
	    {"unheard_of", VERSION("0.18.0", "\"experts.w\""), 1},
	    {"unheard_of", VERSION("0.21.2", "\"experts.w\""), -1},
	    {"llama4", VERSION("0.21.2", "\"experts.w\""),
	     -1}, /* depends on transformers' release */
	    {NULL, VERSION("0.21.2", "\"experts.w\""), -1},
	    {"gpt_oss", LORA_AND("\"target_parameters\":[\"experts.w\"]"), -1},
	    {"gpt_oss", VERSION("new", "\"experts.w\""), -1},
	    {"gpt_oss", VERSION("0.18.1.dev0@abc", "\"experts.w\""), -1},
	    {"gpt_oss", VERSION("0.19.1.dev0", "\"experts.w\""), -1},
	    {"gpt_oss", VERSION("0.20.1.dev0@UNKNOWN", "\"experts.w\""), 1},
	    {"qwen3_vl_moe", VERSION("0.17.2.dev0", "\"experts.w\""), 1},
	    {"gpt_oss", VERSION("0.16.0", "\"experts.w\""), -1},
	    {"gpt_oss", VERSION("1.0.0", "\"experts.w\""), 1},
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
		struct peft_case c = {0};

		experts_have(&c, "mlp.experts", 10, 10);
		base_has(&c, "mlp.experts.w", "F32", 3, 3, 10, 10);
		if (cases[i].transposed < 0) {
			refused(&c, cases[i].type, cases[i].config,
				"experts 'mlp.experts' are square");
			continue;
		}
		decoded(&c, cases[i].type, cases[i].config);
		if ((c.decode.edits[0].left.tensor == 0) != cases[i].transposed)
			fail_msg("case %zu", i);
		done(&c);
	}
}

/* Where they are not square the shapes tell; what version and family say must agree. */
static void experts__shapes_decide(void **state)
{
	struct peft_case c = {0};

	(void)state;
	experts_have(&c, "mlp.experts", 10, 20);
	base_has(&c, "mlp.experts.w", "F32", 3, 3, 20, 10);
	decoded(&c, "llama4", TARGETS("\"experts.w\""));
	assert_int_equal(c.decode.edits[0].left.tensor, 1);
	done(&c);
	experts_have(&c, "mlp.experts", 10, 20);
	base_has(&c, "mlp.experts.w", "F32", 3, 3, 10, 20);
	decoded(&c, NULL, LORA_AND("\"target_parameters\":[\"experts.w\"]"));
	assert_int_equal(c.decode.edits[0].left.tensor, 0);
	done(&c);
	experts_have(&c, "mlp.experts", 10, 20);
	base_has(&c, "mlp.experts.w", "F32", 3, 3, 10, 20);
	refused(&c, "qwen3_vl_moe", TARGETS("\"experts.w\""),
		"lie otherwise than peft_version 0.21.2");
	experts_have(&c, "mlp.experts", 10, 20);
	base_has(&c, "mlp.experts.w", "F32", 3, 3, 20, 10);
	refused(&c, "gpt_oss", TARGETS("\"experts.w\""), "lie otherwise than peft_version 0.21.2");
}

static void experts__misfits(void **state)
{
	struct peft_case c = {0};

	(void)state;
	experts_have(&c, "mlp.experts", 10, 20); /* four experts in the base */
	base_has(&c, "mlp.experts.w", "F32", 3, 4, 20, 10);
	decoded(&c, "qwen3_vl_moe", TARGETS("\"experts.w\""));
	assert_int_equal(c.decode.unmatched_count, 2);
	done(&c);
	experts_have(&c, "mlp.experts", 11, 20);
	base_has(&c, "mlp.experts.w", "F32", 3, 3, 20, 10);
	decoded(&c, "qwen3_vl_moe", TARGETS("\"experts.w\""));
	assert_int_equal(c.decode.unmatched_count, 2);
	done(&c);
	adapter_has(&c, PREFIX "mlp.experts.lora_A.weight", "F32", 2, 13, 10);
	adapter_has(&c, PREFIX "mlp.experts.lora_B.weight", "F32", 2, 20, 13);
	base_has(&c, "mlp.experts.w", "F32", 3, 3, 20, 10);
	refused(&c, "qwen3_vl_moe", TARGETS("\"experts.w\""), "does not hold 1 to 4096 experts");
	adapter_has(&c, PREFIX "mlp.experts.lora_A.weight", "F32", 2, 12, 10);
	adapter_has(&c, PREFIX "mlp.experts.lora_B.weight", "F32", 2, 20, 8);
	base_has(&c, "mlp.experts.w", "F32", 3, 3, 20, 10);
	refused(&c, "qwen3_vl_moe", TARGETS("\"experts.w\""), "do not fit each other");
}

/* A matrix is taken as it stands, in Conv1D too: A [r, shape[1]], B [shape[0], r]. The rules of
 * patterns see the parameter. */
static void experts__matrix(void **state)
{
	static const char config[] = LORA_AND("\"target_parameters\":[\"attn.c_proj.weight\"],"
					      "\"alpha_pattern\":{\"c_proj.weight\":2}");
	struct peft_case c = {0};

	(void)state;
	linear_has(&c, "h.0.attn.c_proj", 4, 10, 10);
	linear_has(&c, "h.0.mlp.c_proj", 4, 10, 10);
	base_has(&c, "h.0.attn.c_proj.weight", "F32", 2, 10, 10);
	base_has(&c, "h.0.mlp.c_proj.weight", "F32", 2, 10, 10);
	decoded(&c, "gpt2", config);
	assert_int_equal(c.decode.edits[0].left.tensor, 1); /* B: straight */
	assert_true(c.decode.edits[0].scale == 0.5);
	assert_int_equal(c.decode.edits[1].left.tensor, 2); /* A^T: a module of GPT-2 */
	assert_true(c.decode.edits[1].scale == 1.5);
	done(&c);
}

/* Mixtral in transformers 5: fused [3, 2*20, 10] in memory, w1 and w3 [20, 10] of each expert on
 * disk. */
static void experts__fused_in_memory(void **state)
{
	static const char *const names[2][3] = {
	    {"model.layers.7.block_sparse_moe.experts.0.w1.weight",
	     "model.layers.7.block_sparse_moe.experts.1.w1.weight",
	     "model.layers.7.block_sparse_moe.experts.2.w1.weight"},
	    {"model.layers.7.block_sparse_moe.experts.0.w3.weight",
	     "model.layers.7.block_sparse_moe.experts.1.w3.weight",
	     "model.layers.7.block_sparse_moe.experts.2.w3.weight"}};
	struct peft_case c = {0};

	(void)state;
	experts_have(&c, "model.layers.7.mlp.experts", 10, 40);
	for (int e = 0; e < 3; e++) {
		base_has(&c, names[0][e], "F32", 2, 20, 10);
		base_has(&c, names[1][e], "F32", 2, 20, 10);
	}
	decoded(&c, "mixtral", TARGETS("\"experts.gate_up_proj\""));
	assert_int_equal(c.decode.edit_count, 6);
	for (uint64_t i = 0; i < 6; i++) {
		const struct lora_edit *edit = &c.decode.edits[i];
		uint64_t e = i / 2, part = i % 2;

		assert_string_equal(edit->target, names[part][e]);
		assert_range(*edit, 10, 0, 20, 0, 10);
		assert_view(edit->left, 1, e + part * 20 * 12, 20, 4, 12, 3);
		assert_view(edit->right, 0, e * 40, 4, 10, 10, 1);
	}
	done(&c);
	/* a base with one expert more, or one part less, is another one */
	experts_have(&c, "model.layers.7.mlp.experts", 10, 40);
	for (int e = 0; e < 3; e++) {
		base_has(&c, names[0][e], "F32", 2, 20, 10);
		if (e < 2)
			base_has(&c, names[1][e], "F32", 2, 20, 10);
	}
	decoded(&c, "mixtral", TARGETS("\"experts.gate_up_proj\""));
	assert_int_equal(c.decode.edit_count, 0);
	assert_true(
	    is_unmatched(&c, PREFIX "model.layers.7.mlp.experts.lora_A.weight",
			 "but the base has no 'model.layers.7.block_sparse_moe.experts.2.w3"));
	done(&c);
	adapter_has(&c, PREFIX "model.layers.7.mlp.experts.lora_A.weight", "F32", 2, 8, 10);
	adapter_has(&c, PREFIX "model.layers.7.mlp.experts.lora_B.weight", "F32", 2, 40, 8);
	for (int e = 0; e < 3; e++) {
		base_has(&c, names[0][e], "F32", 2, 20, 10);
		base_has(&c, names[1][e], "F32", 2, 20, 10);
	}
	decoded(&c, "mixtral", TARGETS("\"experts.gate_up_proj\""));
	assert_true(is_unmatched(&c, PREFIX "model.layers.7.mlp.experts.lora_A.weight",
				 "for 2 experts, but the base has also"));
	done(&c);
}

static void experts__without_a_base(void **state)
{
	struct peft_case c = {.no_base = true};

	(void)state;
	experts_have(&c, "mlp.experts", 10, 20);
	linear_has(&c, "q", 4, 10, 20);
	decoded(&c, NULL, TARGETS("\"experts.gate_up_proj\""));
	assert_int_equal(c.decode.edit_count, 4);
	assert_int_equal(c.decode.edits[0].shape[0], 3);
	done(&c);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(experts__plain),	       cmocka_unit_test(experts__transposed),
	    cmocka_unit_test(experts__nested),	       cmocka_unit_test(experts__square),
	    cmocka_unit_test(experts__shapes_decide),  cmocka_unit_test(experts__misfits),
	    cmocka_unit_test(experts__matrix),	       cmocka_unit_test(experts__fused_in_memory),
	    cmocka_unit_test(experts__without_a_base),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
