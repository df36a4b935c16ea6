/* SPDX-License-Identifier: Apache-2.0 */
/* test_peft_config.c - adapter_config.json: what is read, passed over, refused by name. */
#include "peft_case.h"

#include <math.h>

static void with_linear(struct peft_case *c, int rank)
{
	linear_has(c, "q", rank, 10, 20);
	base_has(c, "q.weight", "BF16", 2, 20, 10);
}

#define ONE(more) "{\"peft_type\":\"LORA\",\"r\":4,\"lora_alpha\":6," more "}"

static void config__refuses(void **state)
{
	static const struct {
		const char *config, *message;
	} cases[] = {
	    {"[]", "not a JSON object"},
	    {"{\"r\":4,\"lora_alpha\":6}", "'peft_type' is missing"},
	    {"{\"peft_type\":null,\"r\":4}", "'peft_type' is missing"},
	    {"{\"peft_type\":\"IA3\"}", "peft_type 'IA3' is not supported"},
	    {"{\"peft_type\":\"ADALORA\"}", "peft_type 'ADALORA' is not supported"},
	    {"{\"peft_type\":\"LORA\",\"r\":0,\"lora_alpha\":6}", "'r' is not a rank from 1"},
	    {"{\"peft_type\":\"LORA\",\"r\":-4,\"lora_alpha\":6}", "'r' is not a rank"},
	    {"{\"peft_type\":\"LORA\",\"r\":4.5,\"lora_alpha\":6}", "'r' is not a rank"},
	    {"{\"peft_type\":\"LORA\",\"r\":\"4\",\"lora_alpha\":6}", "'r' is not a rank"},
	    {"{\"peft_type\":\"LORA\",\"r\":65537,\"lora_alpha\":6}", "'r' is not a rank"},
	    {"{\"peft_type\":\"LORA\",\"r\":4,\"lora_alpha\":\"x\"}",
	     "'lora_alpha' is not a number"},
	    {"{\"peft_type\":\"LORA\",\"r\":4,\"lora_alpha\":1e10}",
	     "'lora_alpha' is not a number"},
	    {"{\"peft_type\":\"LORA\",\"r\":4,\"lora_alpha\":1e-60}", "is no usable number"},
	    {ONE("\"use_rslora\":1"), "'use_rslora' is not true or false"},
	    {ONE("\"use_dora\":\"yes\""), "'use_dora' is not true or false"},
	    {ONE("\"use_dora\":true,\"lora_bias\":true"), "'use_dora' and 'lora_bias'"},
	    {ONE("\"bias\":\"some\""), "'bias' is not"},
	    {ONE("\"bias\":true"), "'bias' is not"},
	    {ONE("\"rank_pattern\":[1]"), "'rank_pattern' is not an object"},
	    {ONE("\"rank_pattern\":{\"q\":0}"), "the value of 'q' is not a rank"},
	    {ONE("\"rank_pattern\":{\"q\":2.5}"), "the value of 'q' is not a rank"},
	    {ONE("\"alpha_pattern\":{\"q\":\"x\"}"), "the value of 'q' is not a number"},
	    {ONE("\"modules_to_save\":\"q\""), "'modules_to_save' is not a list of names"},
	    {ONE("\"modules_to_save\":[1]"), "'modules_to_save' is not a list of names"},
	    {ONE("\"target_parameters\":{}"), "'target_parameters' is not a list of names"},
	    {ONE("\"trainable_token_indices\":[-1]"), "is not a list of token numbers"},
	    {ONE("\"trainable_token_indices\":{\"e\":3}"), "is not a list of token numbers"},
	    {"{\"peft_type\":3}", "'peft_type' is not a name"},
	    {ONE("\"layers_to_transform\":\"all\""), "'layers_to_transform' is not"},
	    {ONE("\"layer_replication\":[[0,2]]"), "'layer_replication' is set: layers that share"},
	    {ONE("\"alora_invocation_tokens\":[1]"), "'alora_invocation_tokens' is set"},
	    {ONE("\"arrow_config\":{\"top_k\":3}"), "'arrow_config' is set"},
	    {ONE("\"kasa_config\":{\"beta\":3}"), "'kasa_config' is set"},
	    {ONE("\"use_qalora\":true"), "'use_qalora' is set"},
	    {ONE("\"use_bdlora\":{\"nblocks\":2}"), "'use_bdlora' is set"},
	    {ONE("\"velora_config\":{\"num_groups\":2}"), "'velora_config' is set"},
	    {ONE("\"monteclora_config\":{\"x\":2}"), "'monteclora_config' is set"},
	    {ONE("\"megatron_config\":{\"x\":2}"), "'megatron_config' is set"},
	    {ONE("\"enable_lora\":[true,false,true]"), "'enable_lora' is set"},
	    {ONE("\"merge_weights\":true"), "'merge_weights' is set"},
	    {ONE("\"use_rslroa\":true"), "'use_rslroa' is unknown; did you mean 'use_rslora'?"},
	    {ONE("\"quantum_entanglement\":7"), "'quantum_entanglement' is unknown and may change"},
	    {ONE("\"quantum_offset\":0"), "'quantum_offset' is unknown and may change"},
	    {ONE("\"init_lora_weights\":\"magic\""), "init_lora_weights 'magic' is unknown"},
	    {ONE("\"init_lora_weights\":3"), "'init_lora_weights' is not"},
	    {ONE("\"init_lora_weights\":\"pissa\""), "'pissa' changed the base"},
	    {ONE("\"init_lora_weights\":\"pissa_niter_16\""), "'pissa_niter_16' changed the base"},
	    {ONE("\"init_lora_weights\":\"olora\""), "'olora' changed the base"},
	    {ONE("\"init_lora_weights\":\"corda\""), "'corda' changed the base"},
	    {ONE("\"init_lora_weights\":\"loftq\""), "'loftq' changed the base"},
	    {ONE("\"init_lora_weights\":\"lora_ga\""), "'lora_ga' changed the base"},
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
		struct peft_case c = {0};

		with_linear(&c, 4);
		refused(&c, "llama", cases[i].config, cases[i].message);
	}
}

/* What asks for nothing, or only tells of the training, changes nothing: s = 6/4. */
static void config__passes_over(void **state)
{
	static const char *const configs[] = {
	    ONE("\"layer_replication\":null"),
	    ONE("\"enable_lora\":null,\"merge_weights\":false"),
	    ONE("\"future_option\":null,\"other\":{},\"third\":[],\"fourth\":\"\""),
	    ONE("\"rank_pattern\":null,\"alpha_pattern\":{},\"modules_to_save\":null"),
	    ONE("\"loftq_config\":{\"loftq_bits\":4},\"eva_config\":{\"rho\":2.0}"),
	    ONE("\"task_type\":\"CAUSAL_LM\",\"auto_mapping\":{\"a\":1},\"revision\":\"main\""),
	    ONE("\"inference_mode\":true,\"target_modules\":[\"q\"],\"exclude_modules\":\"k\""),
	    ONE("\"lora_dropout\":0.1,\"megatron_core\":\"megatron.core\",\"qalora_group_size\":"
		"16"),
	    ONE("\"init_lora_weights\":\"gaussian\""),
	    ONE("\"init_lora_weights\":\"orthogonal\""),
	    ONE("\"init_lora_weights\":\"eva\""),
	    ONE("\"init_lora_weights\":\"mica\""),
	    ONE("\"init_lora_weights\":false"),
	    ONE("\"ensure_weight_tying\":true,\"layers_pattern\":\"layers\""),
	};

	(void)state;
	for (size_t i = 0; i < sizeof(configs) / sizeof(*configs); i++) {
		struct peft_case c = {0};

		with_linear(&c, 4);
		decoded(&c, "llama", configs[i]);
		assert_int_equal(c.decode.edit_count, 1);
		assert_true(c.decode.edits[0].scale == 1.5);
		assert_int_equal(c.decode.note_count, 0);
		assert_null(c.decode.mutated_by);
		done(&c);
	}
}

static void config__allow_unknown_warns(void **state)
{
	struct peft_case c = {.allow_unknown = true};

	(void)state;
	with_linear(&c, 4);
	decoded(&c, "llama", ONE("\"quantum\":7,\"init_lora_weights\":\"magic\""));
	assert_true(has_note(&c, LORA_NOTE_WARNING, "'quantum' is unknown: ignored"));
	assert_true(has_note(&c, LORA_NOTE_WARNING, "'magic' is unknown: ignored"));
	done(&c);
	/* It is no licence for what is known to be unsupported. */
	c.allow_unknown = true;
	with_linear(&c, 4);
	refused(&c, "llama", ONE("\"kasa_config\":{\"a\":1}"), "'kasa_config' is set");
}

static void config__mutated_base(void **state)
{
	struct peft_case c = {.allow_mutated_base = true};

	(void)state;
	with_linear(&c, 4);
	decoded(&c, "llama", ONE("\"init_lora_weights\":\"PiSSA_niter_4\""));
	assert_string_equal(c.decode.mutated_by, "PiSSA_niter_4");
	done(&c);
	/* Looking at the adapter alone is always possible. */
	c.no_base = true;
	with_linear(&c, 4);
	decoded(&c, "llama", ONE("\"init_lora_weights\":\"olora\""));
	assert_string_equal(c.decode.mutated_by, "olora");
	done(&c);
}

static void config__defaults_are_told(void **state)
{
	struct peft_case c = {0};

	(void)state;
	with_linear(&c, 8);
	decoded(&c, "llama", "{\"peft_type\":\"LORA\"}");
	assert_int_equal(c.decode.edits[0].rank, 8);
	assert_true(c.decode.edits[0].alpha == 8 && c.decode.edits[0].scale == 1);
	assert_string_equal(c.decode.edits[0].scale_from,
			    "alpha/r, r by default, alpha by default");
	assert_true(has_note(&c, LORA_NOTE_WARNING, "'r' is missing: PEFT's default 8"));
	assert_true(has_note(&c, LORA_NOTE_WARNING, "'lora_alpha' is missing: PEFT's default 8"));
	done(&c);
}

/* s = alpha/r or alpha/sqrt(r) in f64: 3/7 and 3/sqrt(7) are what Python gives. */
static void config__scale(void **state)
{
	static const struct {
		const char *config;
		double alpha, divisor, scale;
		const char *from;
	} cases[] = {
	    {"{\"peft_type\":\"LORA\",\"r\":7,\"lora_alpha\":3}", 3, 7, 0x1.b6db6db6db6dbp-2,
	     "alpha/r"},
	    {"{\"peft_type\":\"LORA\",\"r\":7,\"lora_alpha\":3,\"use_rslora\":true}", 3,
	     0x1.52a7fa9d2f8eap+1, 0x1.2246d6cfdf9edp+0, "alpha/sqrt(r)"},
	    {"{\"peft_type\":\"LORA\",\"r\":7,\"lora_alpha\":3.5}", 3.5, 7, 0.5, "alpha/r"},
	    {"{\"peft_type\":\"LORA\",\"r\":7,\"lora_alpha\":0}", 0, 7, 0, "alpha/r"},
	    {"{\"peft_type\":\"LORA\",\"r\":7,\"lora_alpha\":-7}", -7, 7, -1, "alpha/r"},
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
		struct peft_case c = {0};

		with_linear(&c, 7);
		decoded(&c, "llama", cases[i].config);
		assert_true(c.decode.edits[0].alpha == cases[i].alpha);
		assert_true(c.decode.edits[0].divisor == cases[i].divisor);
		assert_true(c.decode.edits[0].scale == cases[i].scale);
		assert_string_equal(c.decode.edits[0].scale_from, cases[i].from);
		assert_int_equal(c.decode.note_count, cases[i].alpha <= 0);
		done(&c);
	}
}

static void config__method_and_base(void **state)
{
	struct peft_case c = {0};

	(void)state;
	with_linear(&c, 4);
	decoded(&c, "llama", ONE("\"base_model_name_or_path\":\"org/model\""));
	assert_string_equal(c.decode.method, "lora");
	assert_string_equal(c.decode.base_name, "org/model");
	done(&c);
	with_linear(&c, 4);
	decoded(&c, "llama", ONE("\"use_rslora\":true"));
	assert_string_equal(c.decode.method, "rslora");
	assert_null(c.decode.base_name);
	done(&c);
}

/* The rules are PEFT's: check_target_module_exists, match_target_against_key (0.21). */
static void config__names_what_the_adapter_holds(void **state)
{
	static const char other[] = "target_modules does not name",
			  layers[] = "layers_to_transform does not list";
	static const struct {
		const char *config, *warning; /* NULL: none */
	} cases[] = {
	    {"\"target_modules\":[\"q\"]", NULL},
	    {"\"target_modules\":[\"attn.q\"]", NULL},
	    {"\"target_modules\":[\"model.layers.3.attn.q\"]", NULL},
	    {"\"target_modules\":[\"k\",\"q\"]", NULL},
	    {"\"target_modules\":[\"k\"]", other},
	    {"\"target_modules\":[\"n.q\"]", other}, /* not from a dot on */
	    {"\"target_modules\":[\".*q\"]", other}, /* a list has no expressions */
	    {"\"target_modules\":[]", other},
	    {"\"target_modules\":null", NULL},
	    {"\"target_modules\":\"all-linear\"", NULL},
	    {"\"target_modules\":\".*\\\\.q\"", NULL},
	    {"\"target_modules\":\".*(k|q)\"", NULL},
	    {"\"target_modules\":\"k|.*q\"", NULL},
	    {"\"target_modules\":\"q\"", other}, /* the whole path, not its end */
	    {"\"target_modules\":\".*attn\"", other},
	    {"\"target_modules\":\"model.layers.3.attn.q\"", NULL},
	    {"\"target_modules\":\"(?i).*Q\"", NULL}, /* not compared */
	    {"\"target_modules\":[\"q\"],\"exclude_modules\":[\"q\"]", other},
	    {"\"target_modules\":[\"q\"],\"exclude_modules\":\".*layers.2.*\"", NULL},
	    {"\"target_modules\":[\"q\"],\"exclude_modules\":\".*layers.3.*\"", other},
	    {"\"target_modules\":[\"k\"],\"target_parameters\":[\"attn.q.weight\"]", NULL},
	    {"\"target_modules\":[\"k\"],\"target_parameters\":[\"attn.k.weight\"]", other},
	    {"\"target_modules\":[\"q\"],\"layers_to_transform\":[1,2]", layers},
	    {"\"target_modules\":[\"q\"],\"layers_to_transform\":[2,3]", NULL},
	    {"\"target_modules\":[\"q\"],\"layers_to_transform\":3", NULL},
	    {"\"target_modules\":[\"q\"],\"layers_to_transform\":2", layers},
	    {"\"target_modules\":\".*q\",\"layers_to_transform\":2", NULL},
	    {"\"target_modules\":[\"model.layers.3.attn.q\"],\"layers_to_transform\":2", NULL},
	    {"\"layers_to_transform\":[1,2]", NULL}, /* PEFT's own list decides */
	    {"\"modules_to_save\":[\"norm\"]", "modules_to_save names modules"},
	    {"\"modules_to_save\":[\"score\"]", "modules_to_save names modules"},
	    {"\"modules_to_save\":[]", NULL},
	    {"\"trainable_token_indices\":[1]", "trainable_token_indices is set"},
	    {"\"trainable_token_indices\":{\"e\":[1]}", "trainable_token_indices is set"},
	    {"\"trainable_token_indices\":[]", NULL},
	    {"\"bias\":\"all\"", "biases were trained"},
	    {"\"bias\":\"lora_only\"", "biases were trained"},
	    {"\"bias\":\"none\"", NULL},
	};
	struct peft_case c = {0};
	char config[400];

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
		linear_has(&c, "model.layers.3.attn.q", 4, 10, 20);
		base_has(&c, "model.layers.3.attn.q.weight", "F32", 2, 20, 10);
		base_has(&c, "model.layers.3.attn.q.bias", "F32", 1, 20);
		snprintf(config, sizeof(config),
			 "{\"peft_type\":\"LORA\",\"r\":4,\"lora_alpha\":8,%s}", cases[i].config);
		decoded(&c, "llama", config);
		assert_int_equal(c.decode.edit_count, 1);
		if (cases[i].warning ? !has_note(&c, LORA_NOTE_WARNING, cases[i].warning)
				     : has_note(&c, LORA_NOTE_WARNING, ""))
			fail_msg("%s", cases[i].config);
		done(&c);
	}
	/* How many there are, and which comes first. */
	linear_has(&c, "model.layers.3.attn.q", 4, 10, 20);
	linear_has(&c, "model.layers.4.attn.q", 4, 10, 20);
	decoded(&c, NULL, ONE("\"target_modules\":[\"k\"]"));
	assert_true(has_note(&c, LORA_NOTE_WARNING, "'model.layers.3.attn.q' and 1 more"));
	done(&c);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(config__refuses),
	    cmocka_unit_test(config__passes_over),
	    cmocka_unit_test(config__allow_unknown_warns),
	    cmocka_unit_test(config__mutated_base),
	    cmocka_unit_test(config__defaults_are_told),
	    cmocka_unit_test(config__scale),
	    cmocka_unit_test(config__method_and_base),
	    cmocka_unit_test(config__names_what_the_adapter_holds),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
