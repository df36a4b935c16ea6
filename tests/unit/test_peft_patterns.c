/* SPDX-License-Identifier: Apache-2.0 */
/* test_peft_patterns.c - rank_pattern and alpha_pattern against Python's re, and their limits. */
#include "peft_case.h"

#include "formats/dialects/peft.h"
#include "peft_pattern_cases.h"

static struct lora_json *object_of(const char *text)
{
	struct lora_error err = LORA_ERROR_INIT;
	struct lora_json *json = NULL;

	if (lora__json_parse(&json, text, strlen(text), &err))
		fail_msg("%s: %s", text, err.message);
	return json;
}

/* {"KEY": 1}, with the key escaped for JSON. */
static struct lora_json *one_key(const char *key)
{
	char text[5000] = "{\"";
	size_t at = 2;

	for (; *key; key++) {
		if (*key == '"' || *key == '\\')
			text[at++] = '\\';
		text[at++] = *key;
	}
	memcpy(text + at, "\":1}", 5);
	return object_of(text);
}

static void patterns__match_as_python_does(void **state)
{
	struct lora_error err = LORA_ERROR_INIT;
	size_t checked = 0;

	(void)state;
	for (size_t k = 0; k < sizeof(pattern_cases) / sizeof(*pattern_cases); k++) {
		struct lora_json *json = one_key(pattern_cases[k].key);
		struct peft_patterns *patterns = NULL;

		if (lora__peft_patterns_new(&patterns, "rank_pattern", json, &err))
			fail_msg("'%s': %s", pattern_cases[k].key, err.message);
		for (size_t n = 0; n < sizeof(pattern_names) / sizeof(*pattern_names); n++) {
			bool expected = pattern_cases[k].matches[n] == 'y';
			int entry, clash;

			if (lora__peft_patterns_match(patterns, pattern_names[n], &entry, &clash,
						      &err))
				fail_msg("'%s': %s", pattern_cases[k].key, err.message);
			if ((entry == 0) != expected)
				fail_msg("key '%s', name '%s': Python says %d",
					 pattern_cases[k].key, pattern_names[n], expected);
			checked++;
		}
		lora__peft_patterns_free(patterns);
		lora__json_free(json);
	}
	assert_true(checked > 2500);
}

/* Where the two languages part, or where Python would not compile it, no guess is made. */
static void patterns__refuse_what_differs(void **state)
{
	static const char *const keys[] = {
	    "\\hq_proj",
	    "\\Qq_proj\\E",
	    "\\Rq",
	    "\\Kq",
	    "q\\p{L}",
	    "\\x71_proj",
	    "\\u0071",
	    "\\z",
	    "\\1q",
	    "\\Xq",
	    "[[:alpha:]]_proj",
	    "[a[.x.]]",
	    "*q_proj",
	    "q{,3}_proj",
	    "(?i)q_proj",
	    "(?>q)_proj",
	    "(?|q|v)",
	    "(?R)",
	    "(?(1)q)",
	    "(?#x)q",
	    "(?<n>q)",
	    "(q_proj",
	    "q)_proj(",
	    "[q",
	    "q{1000000}",
	    "\\",
	    "(?P=q)",
	    "(?:(?:q{999}){999}){999}",
	};
	struct lora_error err;

	(void)state;
	for (size_t k = 0; k < sizeof(keys) / sizeof(*keys); k++) {
		struct lora_json *json = one_key(keys[k]);
		struct peft_patterns *patterns = NULL;
		enum lora_status status;

		memset(&err, 0, sizeof(err));
		status = lora__peft_patterns_new(&patterns, "rank_pattern", json, &err);
		if (!strcmp(keys[k],
			    "q)_proj(")) /* with the rule's own parentheses it is a regex */
			assert_int_equal(status, LORA_OK);
		else if (status != LORA_INPUT || !strstr(err.message, "rank_pattern: key '"))
			fail_msg("'%s': %d '%s'", keys[k], status, err.message);
		lora__peft_patterns_free(patterns);
		lora__json_free(json);
	}
}

static void patterns__catastrophes_are_bounded(void **state)
{
	static const char *const keys[] = {"(a+)+x", "(a|aa)+x", "(.*)*x", "((a*)*)*x", "(a|a)*x"};
	char name[201];

	(void)state;
	/* The 'x' that every key asks for is there, but not at the end. */
	memset(name, 'a', sizeof(name) - 1);
	name[198] = 'x';
	name[200] = 0;
	for (size_t k = 0; k < sizeof(keys) / sizeof(*keys); k++) {
		struct lora_json *json = one_key(keys[k]);
		struct lora_error err = LORA_ERROR_INIT;
		struct peft_patterns *patterns = NULL;
		int entry, clash;

		assert_int_equal(lora__peft_patterns_new(&patterns, "alpha_pattern", json, &err),
				 LORA_OK);
		assert_int_equal(lora__peft_patterns_match(patterns, name, &entry, &clash, &err),
				 LORA_INPUT);
		assert_non_null(strstr(err.message, "takes too long"));
		lora__peft_patterns_free(patterns);
		lora__json_free(json);
	}
}

static void patterns__first_in_the_file_wins(void **state)
{
	struct lora_json *json =
	    object_of("{\"v_proj\":1,\"layers.0.q\":2,\"q\":3,\".*q\":3,\"layers.*q\":4,\"w\":5}");
	struct lora_error err = LORA_ERROR_INIT;
	struct peft_patterns *patterns = NULL;
	int entry, clash;

	(void)state;
	assert_int_equal(lora__peft_patterns_new(&patterns, "rank_pattern", json, &err), LORA_OK);
	assert_int_equal(lora__peft_patterns_match(patterns, "m.layers.0.q", &entry, &clash, &err),
			 LORA_OK);
	assert_int_equal(entry, 1);
	assert_int_equal(clash, 2);
	assert_int_equal(lora__peft_patterns_match(patterns, "m.layers.1.q", &entry, &clash, &err),
			 LORA_OK);
	assert_int_equal(entry, 2); /* ".*q" matches, too, but says the same */
	assert_int_equal(clash, 4);
	assert_int_equal(lora__peft_patterns_match(patterns, "m.k", &entry, &clash, &err), LORA_OK);
	assert_int_equal(entry, -1);
	assert_int_equal(clash, -1);
	assert_false(lora__peft_patterns_used(patterns, 0));
	assert_true(lora__peft_patterns_used(patterns, 1));
	assert_true(lora__peft_patterns_used(patterns, 4));
	assert_true(lora__peft_patterns_value(patterns, 4) == 4);
	lora__peft_patterns_free(patterns);
	lora__json_free(json);
}

/* The whole way: other ranks and alphas per module, independent of each other; words for both;
 * notes. */
static void patterns__reach_the_edits(void **state)
{
	static const char config[] =
	    LORA_AND("\"rank_pattern\":{\"layers.0.q\":2,\"q\":3,\"nobody\":9},"
		     "\"alpha_pattern\":{\".*q\":12,\"v\":0.5}");
	struct peft_case c = {0};

	(void)state;
	linear_has(&c, "layers.0.q", 2, 10, 20);
	linear_has(&c, "layers.1.q", 3, 10, 20);
	linear_has(&c, "layers.1.v", 4, 10, 20);
	linear_has(&c, "layers.1.k", 4, 10, 20);
	base_has(&c, "layers.0.q.weight", "F32", 2, 20, 10);
	base_has(&c, "layers.1.q.weight", "F32", 2, 20, 10);
	base_has(&c, "layers.1.v.weight", "F32", 2, 20, 10);
	base_has(&c, "layers.1.k.weight", "F32", 2, 20, 10);
	decoded(&c, "llama", config);
	assert_int_equal(c.decode.edit_count, 4);
	assert_int_equal(c.decode.edits[0].rank, 2);
	assert_true(c.decode.edits[0].scale == 6);
	assert_string_equal(c.decode.edits[0].scale_from,
			    "alpha/r, rank_pattern 'layers.0.q', alpha_pattern '.*q'");
	assert_int_equal(c.decode.edits[1].rank, 3);
	assert_true(c.decode.edits[1].scale == 4);
	assert_int_equal(c.decode.edits[2].rank, 4);
	assert_true(c.decode.edits[2].scale == 0.125);
	assert_string_equal(c.decode.edits[2].scale_from, "alpha/r, alpha_pattern 'v'");
	assert_true(c.decode.edits[3].scale == 1.5);
	assert_string_equal(c.decode.edits[3].scale_from, "alpha/r");
	assert_true(
	    has_note(&c, LORA_NOTE_WARNING,
		     "rank_pattern: module 'layers.0.q' matches 'layers.0.q' (2) and 'q' (3)"));
	assert_true(has_note(&c, LORA_NOTE_WARNING, "rank_pattern: 'nobody' matches no module"));
	assert_int_equal(c.decode.note_count, 2);
	done(&c);
}

/* The shape and the config must say the same: with the keys in the other order, layers.0.q has
 * rank 3. */
static void patterns__contradicting_ranks_are_refused(void **state)
{
	struct peft_case c = {0};

	(void)state;
	linear_has(&c, "layers.0.q", 2, 10, 20);
	base_has(&c, "layers.0.q.weight", "F32", 2, 20, 10);
	refused(&c, "llama", LORA_AND("\"rank_pattern\":{\"q\":3,\"layers.0.q\":2}"),
		"tensor 'base_model.model.layers.0.q.lora_A.weight' [2, 10] has rank 2, the config "
		"says "
		"3 (alpha/r, rank_pattern 'q')");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(patterns__match_as_python_does),
	    cmocka_unit_test(patterns__refuse_what_differs),
	    cmocka_unit_test(patterns__catastrophes_are_bounded),
	    cmocka_unit_test(patterns__first_in_the_file_wins),
	    cmocka_unit_test(patterns__reach_the_edits),
	    cmocka_unit_test(patterns__contradicting_ranks_are_refused),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
