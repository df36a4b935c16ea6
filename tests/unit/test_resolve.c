/* SPDX-License-Identifier: Apache-2.0 */
/* test_resolve.c - opening adapters from disk and laying them over a base: prefixes, key maps,
 * bindings, what does not fit. */
#include "adapter_made.h"

#include "adapter/nearest.h"
#include "base/digest.h"

static char *folder;
static struct lora_error err;

static int set_up(void **state)
{
	(void)state;
	folder = made_directory();
	return 0;
}

static int tear_down(void **state)
{
	(void)state;
	made_remove(folder);
	return 0;
}

static const char *in(const char *name)
{
	return made_path(folder, name);
}

/* A base of F32 tensors [20, 10], as one file. */
static struct lora_model *base_of(const char *file, const char *const *names)
{
	static struct made_file f;
	struct lora_model *model = NULL;

	for (; *names; names++)
		made_tensor(&f, *names, "F32", "20,10", 200, 0);
	made_write(&f, in(file));
	if (lora_model_open(&model, in(file), &err))
		fail_msg("%s", err.message);
	return model;
}

#define CONFIG "{\"peft_type\":\"LORA\",\"r\":4,\"lora_alpha\":6}"

/* An adapter of modules [20, 10] in `dir`, with that config and, perhaps, a whole tensor. */
static void adapter_in(const char *dir, const char *const *modules, const char *config)
{
	static struct made_file f;
	char name[256];

	for (; *modules; modules++) {
		snprintf(name, sizeof(name), "base_model.model.%s.lora_A.weight", *modules);
		made_tensor(&f, name, "F32", "4,10", 40, 1);
		snprintf(name, sizeof(name), "base_model.model.%s.lora_B.weight", *modules);
		made_tensor(&f, name, "F32", "20,4", 80, 1);
	}
	(void)mkdir(in(dir), 0777);
	made_write(&f, made_path(in(dir), "adapter_model.safetensors"));
	made_text(made_path(in(dir), "adapter_config.json"), config);
}

static struct lora_adapter *opened(const char *dir, const struct lora_adapter_options *options)
{
	struct lora_adapter *adapter = NULL;

	if (lora_adapter_open(&adapter, in(dir), options, NULL, &err))
		fail_msg("%s", err.message);
	return adapter;
}

#define NAMES(...) ((const char *const[]){__VA_ARGS__, NULL})

static void resolve__leading_components(void **state)
{
	static const struct {
		const char *base[4], *adapter[3], *prefix, *target;
	} cases[] = {
	    {{"model.q.weight", "model.k.weight"}, {"model.q", "model.k"}, NULL, "model.q.weight"},
	    {{"model.q.weight", "model.k.weight"}, {"q", "k"}, "added 'model.'", "model.q.weight"},
	    {{"q.weight", "k.weight"}, {"model.q", "model.k"}, "stripped 'model.'", "q.weight"},
	    {{"h.q.weight", "lm_head.weight"},
	     {"transformer.h.q", "lm_head"},
	     "stripped 'transformer.'",
	     "h.q.weight"},
	    {{"base_model.model.q.weight"},
	     {"q"},
	     "added 'base_model.model.'",
	     "base_model.model.q.weight"},
	    {{"bert.q.weight", "head.weight"}, {"q"}, "added 'bert.'", "bert.q.weight"},
	    {{"q.weight"}, {"backbone.q"}, "stripped 'backbone.'", "q.weight"},
	    /* no choice resolves everything; or two do */
	    {{"model.q.weight", "k.weight"}, {"q", "k"}, NULL, "k.weight"},
	    {{"model.q.weight", "transformer.q.weight"}, {"q"}, NULL, NULL},
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
		struct lora_model *base = base_of("base.safetensors", cases[i].base);
		struct lora_resolved resolved;
		struct lora_adapter *adapter;
		struct lines lines = {.count = 0};
		struct lora_observer observer = {&lines, keep_note, NULL};

		adapter_in("ad", cases[i].adapter, CONFIG);
		adapter = opened("ad", NULL);
		if (lora__adapter_resolve(&resolved, adapter, base, &observer, &err))
			fail_msg("%zu: %s", i, err.message);
		if (cases[i].prefix) {
			assert_string_equal(resolved.prefix, cases[i].prefix);
			assert_int_equal(resolved.unmatched_count, 0);
			assert_true(has_line(&lines, cases[i].prefix));
		} else {
			assert_null(resolved.prefix);
		}
		if (cases[i].target)
			assert_string_equal(resolved.edits[0].target, cases[i].target);
		else
			assert_int_equal(resolved.edit_count, 0);
		lora__resolved_fini(&resolved);
		lora_adapter_close(adapter);
		lora_model_close(base);
	}
}

static void resolve__key_map(void **state)
{
	static const char *const pairs[] = {
	    "model.q", "other.query",	 "base_model.model.k", "k2",	"unused",
	    "x",       "model.v.weight", "model.value.weight", "model", "shorter",
	    NULL};
	struct lora_adapter_options options = LORA_ADAPTER_OPTIONS_INIT;
	struct lora_model *base = base_of(
	    "base.safetensors", NAMES("other.query.weight", "k2.weight", "model.value.weight",
				      "model.o.weight", "shorter.qk.weight"));
	struct lines lines = {.count = 0};
	struct lora_observer observer = {&lines, keep_note, NULL};
	struct lora_resolved resolved;
	struct lora_adapter *adapter;

	(void)state;
	adapter_in("ad", NAMES("model.q", "k", "model.v", "o", "model.qk"), CONFIG);
	options.key_map = pairs;
	adapter = opened("ad", &options);
	if (lora__adapter_resolve(&resolved, adapter, base, &observer, &err))
		fail_msg("%s", err.message);
	/* what the map gives is final; 'model.' is added to the rest */
	assert_int_equal(resolved.unmatched_count, 0);
	assert_string_equal(resolved.prefix, "added 'model.'");
	assert_string_equal(resolved.edits[0].target, "other.query.weight");
	assert_string_equal(resolved.edits[1].target, "k2.weight");
	assert_string_equal(resolved.edits[2].target, "model.value.weight");
	assert_string_equal(resolved.edits[3].target, "model.o.weight");
	/* whole components: "model.q" is nothing to "model.qk" */
	assert_string_equal(resolved.edits[4].target, "shorter.qk.weight");
	assert_true(has_line(&lines, "the key map's 'unused' is nothing"));
	lora__resolved_fini(&resolved);
	lora_adapter_close(adapter);
	lora_model_close(base);
}

#define LOST                                                                                       \
	"tensor 'base_model.model.model.layers.1.q_porj.lora_A.weight': no tensor "                \
	"'model.layers.1.q_porj.weight' in the base; the closest is "                              \
	"'model.layers.1.q_proj.weight'"

static void resolve__unmatched_are_listed_with_the_closest(void **state)
{
	struct lora_model *base =
	    base_of("base.safetensors",
		    NAMES("model.layers.0.q_proj.weight", "model.layers.1.q_proj.weight"));
	struct lines lines = {.count = 0};
	struct lora_observer observer = {&lines, keep_note, NULL};
	struct lora_resolved resolved;
	struct lora_adapter *adapter;

	(void)state;
	adapter_in("ad", NAMES("model.layers.0.q_proj", "model.layers.1.q_porj"), CONFIG);
	adapter = opened("ad", NULL);
	assert_int_equal(lora__adapter_resolve(&resolved, adapter, base, NULL, &err), LORA_OK);
	assert_int_equal(resolved.edit_count, 1);
	assert_int_equal(resolved.unmatched_count, 2);
	assert_int_equal(lora__adapter_refuse_unmatched(&resolved, adapter, base, &observer, &err),
			 LORA_INPUT);
	/* few stand in the message itself */
	assert_int_equal(lines.count, 0);
	assert_non_null(strstr(err.message, "2 of its 4 tensors find no place"));
	assert_non_null(strstr(err.message, LOST "; tensor '"));
	lora__resolved_fini(&resolved);
	assert_int_equal(lora_adapter_fits(adapter, base, keep_problem, &lines, &err), LORA_NO);
	assert_int_equal(lines.count, 2);
	assert_true(has_line(&lines, LOST));
	lora_adapter_close(adapter);

	/* many get a line each, before */
	adapter_in("ad",
		   NAMES("model.layers.0.q_proj", "model.layers.1.q_porj", "a", "b", "c", "d", "e"),
		   CONFIG);
	adapter = opened("ad", NULL);
	lines.count = 0;
	assert_int_equal(lora__adapter_resolve(&resolved, adapter, base, NULL, &err), LORA_OK);
	assert_int_equal(lora__adapter_refuse_unmatched(&resolved, adapter, base, &observer, &err),
			 LORA_INPUT);
	assert_int_equal(lines.count, 12);
	assert_int_equal(lines.level[0], LORA_NOTE_PROBLEM);
	assert_true(has_line(&lines, LOST));
	assert_non_null(strstr(err.message, "12 of its 14 tensors find no place"));
	lora__resolved_fini(&resolved);
	lora_adapter_close(adapter);

	adapter_in("ad", NAMES("model.layers.0.q_proj"), CONFIG);
	adapter = opened("ad", NULL);
	lines.count = 0;
	assert_int_equal(lora_adapter_fits(adapter, base, keep_problem, &lines, &err), LORA_OK);
	assert_int_equal(lines.count, 0);
	lora_adapter_close(adapter);
	lora_model_close(base);
}

/* PiSSA beside a base: refused, unless somebody says so, or loractl.json binds it to exactly this
 * one. */
static void resolve__mutated_base(void **state)
{
	static const char pissa[] =
	    "{\"peft_type\":\"LORA\",\"r\":4,\"lora_alpha\":6,\"init_lora_weights\":\"pissa\"}";
	struct lora_model *base = base_of("base.safetensors", NAMES("q.weight"));
	struct lora_adapter_options options = LORA_ADAPTER_OPTIONS_INIT;
	char text[200], hex[LORA_SHA256_HEX];
	struct lines lines = {.count = 0};
	struct lora_observer observer = {&lines, keep_note, NULL};
	struct lora_resolved resolved;
	struct lora_adapter *adapter;

	(void)state;
	adapter_in("ad", NAMES("q"), pissa);
	adapter = opened("ad", NULL);
	assert_null(lora_adapter_bound_root(adapter));
	assert_true(lora_adapter_problem_count(adapter) == 1);
	assert_int_equal(lora__adapter_resolve(&resolved, adapter, base, NULL, &err), LORA_INPUT);
	lora__resolved_fini(&resolved);
	assert_int_equal(lora_adapter_fits(adapter, base, keep_problem, &lines, &err), LORA_NO);
	assert_true(has_line(&lines, "init_lora_weights 'pissa' changed the base"));
	lora_adapter_close(adapter);

	options.allow_mutated_base = true;
	adapter = opened("ad", &options);
	assert_int_equal(lora__adapter_resolve(&resolved, adapter, base, &observer, &err), LORA_OK);
	assert_true(has_line(&lines, "this base is taken to be that one"));
	lora__resolved_fini(&resolved);
	lora_adapter_close(adapter);

	assert_int_equal(lora_model_digest(base, LORA_DIGEST_FRESH, 1, NULL, &err), LORA_OK);
	lora__sha256_hex(lora_model_root(base), hex);
	snprintf(text, sizeof(text), "{\"base_root\":\"%s\"}", hex);
	made_text(made_path(in("ad"), "loractl.json"), text);
	adapter = opened("ad", NULL);
	assert_true(lora__sha256_equal(lora_adapter_bound_root(adapter), lora_model_root(base)));
	assert_int_equal(lora__adapter_resolve(&resolved, adapter, base, NULL, &err), LORA_OK);
	lora__resolved_fini(&resolved);
	lora_adapter_close(adapter);

	text[16] = text[16] == 'a' ? 'b' : 'a'; /* another base's root */
	made_text(made_path(in("ad"), "loractl.json"), text);
	adapter = opened("ad", NULL);
	assert_int_equal(lora__adapter_resolve(&resolved, adapter, base, NULL, &err), LORA_INPUT);
	lora__resolved_fini(&resolved);
	lora_adapter_close(adapter);
	(void)remove(made_path(in("ad"), "loractl.json"));
	lora_model_close(base);
}

/* A choice of names under which the adapter contradicts itself is no choice; as spelled it is the
 * answer. */
static void resolve__contradictions(void **state)
{
	struct lora_model *base = base_of("base.safetensors", NAMES("q.weight"));
	struct lora_resolved resolved;
	struct lora_adapter *adapter;

	(void)state;
	adapter_in("ad", NAMES("q"),
		   "{\"peft_type\":\"LORA\",\"r\":4,\"lora_alpha\":6,"
		   "\"target_parameters\":[\"q.weight\",\"q.q.weight\"]}");
	adapter = opened("ad", NULL);
	assert_int_equal(lora__adapter_resolve(&resolved, adapter, base, NULL, &err), LORA_OK);
	assert_int_equal(resolved.edit_count, 1);
	lora__resolved_fini(&resolved);
	lora_adapter_close(adapter);
	lora_model_close(base);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(resolve__leading_components),
	    cmocka_unit_test(resolve__key_map),
	    cmocka_unit_test(resolve__unmatched_are_listed_with_the_closest),
	    cmocka_unit_test(resolve__mutated_base),
	    cmocka_unit_test(resolve__contradictions),
	};

	return cmocka_run_group_tests(tests, set_up, tear_down);
}
