/* SPDX-License-Identifier: Apache-2.0 */
/* test_hub.c - finding models in the hub cache (src/checkpoint/hub.c) */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "checkpoint/checkpoint.h"
#include "made.h"

static const char *const variables[] = {"HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "HF_HOME",
					"XDG_CACHE_HOME", "HOME"};

static void forget_environment(void)
{
	for (size_t i = 0; i < sizeof(variables) / sizeof(*variables); i++)
		unsetenv(variables[i]);
}

static void make_folder(const char *dir, const char *name)
{
	assert_int_equal(mkdir(made_path(dir, name), 0777), 0);
}

/* DIR/models--org--m-1.x with refs/main = ref and snapshots/c0ffee. */
static void make_cache(const char *dir, const char *ref)
{
	make_folder(dir, "models--org--m-1.x");
	make_folder(dir, "models--org--m-1.x/refs");
	make_folder(dir, "models--org--m-1.x/snapshots");
	make_folder(dir, "models--org--m-1.x/snapshots/c0ffee");
	if (ref)
		made_text(made_path(dir, "models--org--m-1.x/refs/main"), ref);
}

static void hub__knows_names(void **state)
{
	static const char *const good[] = {"org/m-1.x", "a/b", "Qwen/Qwen3_0.6B", "_/_", "0/1"};
	static const char *const bad[] = {"",	    "gpt2",	  "/b",	    "a/",     "a/b/c",
					  "../b",   "a/..",	  "./b",    "a/.b",   "a/b.",
					  "a--b/c", "a/b..c",	  "a/-b",   "a/b-",   "a b/c",
					  "a/b\n",  "a/\xc3\xa9", "a\\b/c", "org/m:1"};
	char longest[200];

	(void)state;
	for (size_t i = 0; i < sizeof(good) / sizeof(*good); i++)
		assert_true(lora__hub_is_name(good[i]));
	for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++)
		if (lora__hub_is_name(bad[i]))
			fail_msg("'%s' passes for a name", bad[i]);
	memset(longest, 'n', sizeof(longest));
	longest[1] = '/';
	longest[2 + 96] = '\0';
	assert_true(lora__hub_is_name(longest));
	longest[2 + 96] = 'n';
	longest[2 + 97] = '\0';
	assert_false(lora__hub_is_name(longest));
}

/* Each variable in turn names the cache, and wins over all that stand behind it. */
static void hub__follows_the_environment(void **state)
{
	static const char *const below[] = {"", "", "/hub", "/huggingface/hub",
					    "/.cache/huggingface/hub"};

	(void)state;
	for (size_t i = 0; i < 5; i++) {
		struct lora_error err = LORA_ERROR_INIT;
		char *dir = made_directory(), *found = NULL, expected[4096];
		const char *path = below[i] ? below[i] : "";

		forget_environment();
		for (size_t j = i; j < 5; j++)
			assert_int_equal(setenv(variables[j], j == i ? dir : "/nowhere", 1), 0);
		for (const char *at = below[i]; at && *at; at = strchr(at + 1, '/')) {
			const char *next = strchr(at + 1, '/');

			snprintf(expected, sizeof(expected), "%s%.*s", dir,
				 (int)(next ? next - below[i] : (long)strlen(below[i])), below[i]);
			assert_int_equal(mkdir(expected, 0777), 0);
		}
		snprintf(expected, sizeof(expected), "%s%s", dir, path);
		make_cache(expected, "c0ffee");
		assert_int_equal(lora__hub_resolve(&found, "org/m-1.x", &err), LORA_OK);
		snprintf(expected, sizeof(expected), "%s%s/models--org--m-1.x/snapshots/c0ffee",
			 dir, path);
		assert_string_equal(found, expected);
		free(found);
		made_remove(dir);
	}
}

static void hub__expands_the_home_directory(void **state)
{
	struct lora_error err = LORA_ERROR_INIT;
	char *dir = made_directory(), *found = NULL;

	(void)state;
	forget_environment();
	assert_int_equal(setenv("HOME", dir, 1), 0);
	assert_int_equal(setenv("HF_HUB_CACHE", "~/hub", 1), 0);
	assert_int_equal(setenv("HF_HOME", "", 1), 0);
	make_folder(dir, "hub");
	make_cache(made_path(dir, "hub"), "c0ffee\n");
	assert_int_equal(lora__hub_resolve(&found, "org/m-1.x", &err), LORA_OK);
	assert_string_equal(found, made_path(dir, "hub/models--org--m-1.x/snapshots/c0ffee"));
	free(found);
	made_remove(dir);
}

static void hub__refuses_what_is_not_there(void **state)
{
	static const struct {
		const char *name, *ref, *says;
	} cases[] = {
	    {"org/other", "c0ffee", "no model 'org/other' in the hub cache"},
	    {"gpt2", "c0ffee", "'gpt2' is no name of the form org/model"},
	    {"org/m-1.x", NULL, "has no refs/main"},
	    {"org/m-1.x", "", "does not name a snapshot"},
	    {"org/m-1.x", "\n", "does not name a snapshot"},
	    {"org/m-1.x", "..", "does not name a snapshot"},
	    {"org/m-1.x", "../snapshots/c0ffee", "does not name a snapshot"},
	    {"org/m-1.x", "c0ffee/", "does not name a snapshot"},
	    {"org/m-1.x", "decaf", "that refs/main names is missing"},
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
		struct lora_error err = LORA_ERROR_INIT;
		char *dir = made_directory(), *found = (char *)"";

		forget_environment();
		assert_int_equal(setenv("HF_HUB_CACHE", dir, 1), 0);
		make_cache(dir, cases[i].ref);
		assert_int_equal(lora__hub_resolve(&found, cases[i].name, &err), LORA_INPUT);
		assert_null(found);
		if (!strstr(err.message, cases[i].says))
			fail_msg("case %zu: '%s' instead of '%s'", i, err.message, cases[i].says);
		made_remove(dir);
	}
}

static void hub__needs_some_home(void **state)
{
	struct lora_error err = LORA_ERROR_INIT;
	char *found = NULL;

	(void)state;
	forget_environment();
	assert_int_equal(lora__hub_resolve(&found, "org/m-1.x", &err), LORA_INPUT);
	assert_non_null(strstr(err.message, "set HOME or HF_HUB_CACHE"));
}

static void hub__refuses_a_long_ref(void **state)
{
	struct lora_error err = LORA_ERROR_INIT;
	char *dir = made_directory(), *found = NULL, ref[300];

	(void)state;
	forget_environment();
	assert_int_equal(setenv("HF_HUB_CACHE", dir, 1), 0);
	memset(ref, 'c', sizeof(ref));
	ref[299] = '\0';
	make_cache(dir, ref);
	assert_int_equal(lora__hub_resolve(&found, "org/m-1.x", &err), LORA_INPUT);
	assert_null(found);
	made_remove(dir);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(hub__knows_names),
	    cmocka_unit_test(hub__follows_the_environment),
	    cmocka_unit_test(hub__expands_the_home_directory),
	    cmocka_unit_test(hub__refuses_what_is_not_there),
	    cmocka_unit_test(hub__needs_some_home),
	    cmocka_unit_test(hub__refuses_a_long_ref),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
