/* SPDX-License-Identifier: Apache-2.0 */
/* base/arena.c */
#include "base_check.h"

#include "base/arena.h"
#include "failing_malloc.h"

static void arena__memory_is_aligned_zeroed_and_apart(void **state)
{
	struct lora_arena arena = {0};
	static unsigned char *parts[2000];

	(void)state;
	for (size_t i = 0; i < 2000; i++) {
		size_t size = i * 7919 % 5000; /* sizes around and above a chunk, in no order */

		parts[i] = lora__arena_alloc(&arena, size);
		assert_non_null(parts[i]);
		assert_int_equal((uintptr_t)parts[i] % 16, 0);
		for (size_t k = 0; k < size; k++)
			assert_int_equal(parts[i][k], 0);
		memset(parts[i], (int)(i % 255 + 1), size);
	}
	for (size_t i = 0; i < 2000; i++)
		for (size_t k = 0; k < i * 7919 % 5000; k++)
			assert_int_equal(parts[i][k], i % 255 + 1);
	lora__arena_fini(&arena);
	assert_null(arena.last);
}

static void arena__large_blocks_do_not_waste_the_open_chunk(void **state)
{
	struct lora_arena arena = {0};
	char *a, *b;

	(void)state;
	a = lora__arena_alloc(&arena, 16);
	assert_non_null(lora__arena_alloc(&arena, 1 << 20));
	b = lora__arena_alloc(&arena, 16);
	if (FAILING_MALLOC) /* with a sanitizer every allocation stands alone */
		assert_ptr_equal(b, a + 16);
	lora__arena_fini(&arena);
}

static void arena__impossible_sizes_are_refused(void **state)
{
	struct lora_arena arena = {0};

	(void)state;
	assert_null(lora__arena_array(&arena, SIZE_MAX / 2, 3));
	assert_null(lora__arena_array(&arena, 3, SIZE_MAX / 2));
	assert_null(lora__arena_array(&arena, SIZE_MAX / 2 + 1, 2)); /* 0, if it wrapped */
	assert_null(lora__arena_array(&arena, 16, SIZE_MAX / 16 + 2));
	assert_null(lora__arena_alloc(&arena, SIZE_MAX));
	assert_null(lora__arena_alloc(&arena, SIZE_MAX - 31));
	assert_null(lora__arena_copy(&arena, "x", SIZE_MAX));
	assert_null(arena.last);
	assert_non_null(lora__arena_array(&arena, 0, SIZE_MAX));
	assert_non_null(lora__arena_array(&arena, SIZE_MAX, 0));
	lora__arena_fini(&arena);
}

static void arena__text(void **state)
{
	struct lora_arena arena = {0};
	char *copy;

	(void)state;
	copy = lora__arena_copy(&arena, "a\0bcd", 4);
	assert_memory_equal(copy, "a\0bc", 5);
	assert_string_equal(lora__arena_copy(&arena, NULL, 0), "");
	assert_string_equal(lora__arena_printf(&arena, "%s.%d", "layers", 12), "layers.12");
	lora__arena_fini(&arena);
	lora__arena_fini(&arena);
}

static void arena__without_memory_nothing_changes(void **state)
{
	struct lora_arena arena = {0};
	long live = failing_malloc_live();

	(void)state;
	if (!FAILING_MALLOC)
		skip();
	for (int full = 0; full < 2; full++) {
		struct lora_arena_chunk *last = arena.last;

		failing_malloc_begin(0);
		assert_null(lora__arena_alloc(&arena, 5000));
		assert_null(lora__arena_array(&arena, 5000, 1));
		assert_null(lora__arena_printf(&arena, "%5000d", 1));
		assert_true(failing_malloc_end());
		assert_ptr_equal(arena.last, last);
		assert_non_null(lora__arena_alloc(&arena, 100));
	}
	lora__arena_fini(&arena);
	assert_int_equal(failing_malloc_live(), live);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(arena__memory_is_aligned_zeroed_and_apart),
	    cmocka_unit_test(arena__large_blocks_do_not_waste_the_open_chunk),
	    cmocka_unit_test(arena__impossible_sizes_are_refused),
	    cmocka_unit_test(arena__text),
	    cmocka_unit_test(arena__without_memory_nothing_changes),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
