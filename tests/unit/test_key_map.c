/* SPDX-License-Identifier: Apache-2.0 */
/* test_key_map.c - the file behind --key-map (src/cli/key_map.h) */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cli/key_map.h"

static char path[] = "/tmp/key_map.XXXXXX";

static int make_file(void **state)
{
	int fd = mkstemp(path);

	(void)state;
	return fd < 0 || close(fd) != 0;
}

static int remove_file(void **state)
{
	(void)state;
	return unlink(path);
}

static enum lora_status read_text(struct key_map *map, const char *text, size_t length,
				  struct lora_error *err)
{
	FILE *file = fopen(path, "w");

	assert_non_null(file);
	assert_int_equal(fwrite(text, 1, length, file), length);
	assert_int_equal(fclose(file), 0);
	return key_map_read(map, path, err);
}

static void key_map__reads_pairs(void **state)
{
	static const char text[] = "# comment with three words\n"
				   "\n"
				   "a.b\tW.b\n"
				   "  \t \n"
				   "  #x y\n"
				   "  c  d  \r\n"
				   "e f"; /* the last line may lack its end */
	static const char *const want[] = {"a.b", "W.b", "c", "d", "e", "f"};
	struct lora_error err = LORA_ERROR_INIT;
	struct key_map map;

	(void)state;
	assert_int_equal(read_text(&map, text, sizeof(text) - 1, &err), LORA_OK);
	assert_int_equal(map.count, 3);
	for (size_t i = 0; i < 6; i++)
		assert_string_equal(map.pairs[i], want[i]);
	assert_null(map.pairs[6]);
	key_map_free(&map);
	assert_null(map.pairs);
}

static void key_map__refuses(void **state)
{
	static const struct {
		const char *text;
		size_t length;
		const char *message;
	} cases[] = {
	    {"a b\nc\n", 6, "line 2"},
	    {"a b c\n", 6, "line 1"},
	    {"", 0, "no pair of names"},
	    {"# a b\n", 6, "no pair of names"},
	    {"x 1\ny 1\nx 2\n", 12, "two lines for 'x'"},
	    {"a b\0c\n", 6, "a NUL byte"},
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct lora_error err = LORA_ERROR_INIT;
		struct key_map map;

		assert_int_equal(read_text(&map, cases[i].text, cases[i].length, &err), LORA_INPUT);
		if (!strstr(err.message, cases[i].message))
			fail_msg("'%s' lacks '%s'", err.message, cases[i].message);
		assert_non_null(strstr(err.message, path));
		key_map_free(&map);
	}
}

static void key_map__two_names_may_mean_one_tensor_twice(void **state)
{
	struct lora_error err = LORA_ERROR_INIT;
	struct key_map map;

	(void)state;
	assert_int_equal(read_text(&map, "x w\ny w\n", 8, &err), LORA_OK);
	assert_int_equal(map.count, 2);
	key_map_free(&map);
}

static void key_map__missing_is_input_unreadable_is_system(void **state)
{
	struct lora_error err = LORA_ERROR_INIT;
	struct key_map map;

	(void)state;
	assert_int_equal(key_map_read(&map, "/nonexistent/map", &err), LORA_INPUT);
	key_map_free(&map);
	assert_int_equal(key_map_read(&map, "/tmp", &err), LORA_SYSTEM); /* a folder: EISDIR */
	key_map_free(&map);
}

static void key_map__reads_a_bounded_amount(void **state)
{
	struct lora_error err = LORA_ERROR_INIT;
	struct key_map map;

	(void)state;
	assert_int_equal(key_map_read(&map, "/dev/zero", &err), LORA_INPUT);
	assert_non_null(strstr(err.message, "16 MiB"));
	key_map_free(&map);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(key_map__reads_pairs),
	    cmocka_unit_test(key_map__refuses),
	    cmocka_unit_test(key_map__two_names_may_mean_one_tensor_twice),
	    cmocka_unit_test(key_map__missing_is_input_unreadable_is_system),
	    cmocka_unit_test(key_map__reads_a_bounded_amount),
	};

	return cmocka_run_group_tests(tests, make_file, remove_file);
}
