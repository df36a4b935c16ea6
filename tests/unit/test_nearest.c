/* SPDX-License-Identifier: Apache-2.0 */
/* test_nearest.c - the closest name of a base, and how long it takes to find it. */
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "adapter/nearest.h"
#include "base/distance.h"

/* A base of one-byte tensors. */
static void base_of(struct lora_index *index, char (*names)[96], size_t count)
{
	struct lora_error err = LORA_ERROR_INIT;

	memset(index, 0, sizeof(*index));
	index->tensors = calloc(count, sizeof(*index->tensors));
	index->count = count;
	for (size_t i = 0; i < count; i++)
		index->tensors[i] = (struct lora_tensor){
		    .name = names[i], .dtype = LORA_DTYPE_U8, .begin = i, .size = 1};
	if (lora__index_finish(index, count, &err))
		fail_msg("%s", err.message);
}

static char small[][96] = {
    "model.embed_tokens.weight",
    "model.layers.0.self_attn.q_proj.weight",
    "model.layers.0.self_attn.k_proj.weight",
    "model.layers.0.mlp.down_proj.weight",
    "model.layers.0.input_layernorm.weight",
    "model.layers.1.self_attn.q_proj.weight",
    "model.layers.1.self_attn.k_proj.weight",
    "model.layers.1.mlp.down_proj.weight",
    "lm_head.weight",
};

static void nearest__finds(void **state)
{
	static const char *const cases[][2] = {
	    {"model.layers.1.self_attn.q_porj.weight", "model.layers.1.self_attn.q_proj.weight"},
	    {"layers.1.self_attn.q_proj.weight", "model.layers.1.self_attn.q_proj.weight"},
	    {"model.model.layers.1.mlp.down_proj.weight", "model.layers.1.mlp.down_proj.weight"},
	    {"model.layers.0.down_proj.mlp.weight", "model.layers.0.mlp.down_proj.weight"},
	    /* numbers are kept where such a tensor exists, else the first of the pattern is named
	     */
	    {"model.layers.1.input_layernorms.weight", "model.layers.0.input_layernorm.weight"},
	    {"model.layers.77.self_attn.k_proj.weight", "model.layers.0.self_attn.k_proj.weight"},
	    {"lm_hed.weight", "lm_head.weight"},
	    {"transformer.h.0.attn.c_attn.weight", NULL},
	    {"x", NULL},
	    {"", NULL},
	};
	struct lora_error err = LORA_ERROR_INIT;
	struct lora_nearest *nearest = NULL;
	struct lora_index index;

	(void)state;
	base_of(&index, small, sizeof(small) / sizeof(*small));
	assert_int_equal(lora__nearest_new(&nearest, &index, &err), LORA_OK);
	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
		const char *found = lora__nearest_find(nearest, cases[i][0]);

		if (!found != !cases[i][1] || (found && strcmp(found, cases[i][1]) != 0))
			fail_msg("'%s': '%s'", cases[i][0], found ? found : "(none)");
	}
	lora__nearest_free(nearest);
	free(index.tensors);
	index.tensors = NULL;
	lora__index_fini(&index);
}

/* 100,000 names and as many questions: patterns make it a matter of milliseconds. Names without
 * numbers, each its own pattern, are the worst case, and bounded. The times are a hundred times
 * what they take. */
static void nearest__is_quick(void **state)
{
	const size_t count = 100000;
	char(*names)[96] = calloc(count, sizeof(*names));
	struct lora_error err = LORA_ERROR_INIT;

	(void)state;
	for (int hostile = 0; hostile < 2; hostile++) {
		struct lora_nearest *nearest = NULL;
		struct lora_index index;
		clock_t start = clock();

		for (size_t i = 0; i < count; i++)
			if (hostile)
				snprintf(names[i], sizeof(*names), "m%zx.l%zx.a%zx.w", i, i * 7,
					 i * 31);
			else
				snprintf(names[i], sizeof(*names),
					 "model.layers.%zu.experts.%zu.w%zu.weight", i / 1000,
					 i / 3 % 334, i % 3);
		base_of(&index, names, count);
		assert_int_equal(lora__nearest_new(&nearest, &index, &err), LORA_OK);
		for (size_t i = 0; i < count; i++) {
			char wanted[96];
			const char *found;

			snprintf(wanted, sizeof(wanted),
				 hostile ? "q%zx.l.a%zx.w" : "layers.%zu.experts.%zu.w1.weight",
				 i / 1000, i % 334);
			found = lora__nearest_find(nearest, wanted);
			if (!hostile && (!found || strncmp(found, "model.layers.", 13) != 0))
				fail_msg("'%s': '%s'", wanted, found ? found : "(none)");
		}
		assert_true((clock() - start) / CLOCKS_PER_SEC < 60);
		lora__nearest_free(nearest);
		free(index.tensors);
		index.tensors = NULL;
		lora__index_fini(&index);
	}
	free(names);
}

/* Optimal string alignment: "ca" to "abc" is 3, since no part is edited twice (the unrestricted
 * distance is 2). */
static void distance__known_values(void **state)
{
	static const struct {
		const char *a, *b;
		size_t steps;
	} cases[] = {
	    {"", "", 0},
	    {"", "abc", 3},
	    {"abc", "abc", 0},
	    {"abc", "acb", 1},
	    {"ca", "abc", 3},
	    {"q_porj", "q_proj", 1},
	    {"kitten", "sitting", 3},
	    {"ab", "ba", 1},
	    {"abcdef", "bacdfe", 2},
	};
	char a[200], b[200];

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
		assert_int_equal(
		    lora__distance(cases[i].a, strlen(cases[i].a), cases[i].b, strlen(cases[i].b)),
		    cases[i].steps);
		assert_int_equal(
		    lora__distance(cases[i].b, strlen(cases[i].b), cases[i].a, strlen(cases[i].a)),
		    cases[i].steps);
	}
	memset(a, 'a', sizeof(a));
	memset(b, 'a', sizeof(b));
	b[3] = 'x';
	assert_int_equal(lora__distance(a, 200, b, 190), 11);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(nearest__finds),
	    cmocka_unit_test(nearest__is_quick),
	    cmocka_unit_test(distance__known_values),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
