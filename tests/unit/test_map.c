/* SPDX-License-Identifier: Apache-2.0 */
/* base/map.c */
#include "base_check.h"

#include "base/map.h"
#include "failing_malloc.h"

#define MANY 100000

static enum lora_status add(struct lora_map *map, const char *key, uint32_t value, bool *present,
			    struct lora_error *err)
{
	return lora__map_add(map, key, strlen(key), value, present, err);
}

static void map__finds_what_was_added_and_nothing_else(void **state)
{
	static char keys[MANY][24];
	struct lora_error err = LORA_ERROR_INIT;
	struct lora_map map = {0};
	bool present;

	(void)state;
	assert_int_equal(lora__map_find(&map, "k0", 2), UINT32_MAX);
	for (uint32_t i = 0; i < MANY; i++) {
		(void)snprintf(keys[i], sizeof keys[i], "layers.%u.w", (unsigned)i);
		present = true;
		assert_ok(add(&map, keys[i], i, &present, &err));
		assert_false(present);
	}
	assert_int_equal(map.count, MANY);
	for (uint32_t i = 0; i < MANY; i++) {
		assert_int_equal(lora__map_find(&map, keys[i], strlen(keys[i])), i);
		/* One byte less is another key: "layers.1.", which nobody added. */
		assert_int_equal(lora__map_find(&map, keys[i], strlen(keys[i]) - 1), UINT32_MAX);
	}
	lora__map_fini(&map);
	assert_int_equal(lora__map_find(&map, keys[0], strlen(keys[0])), UINT32_MAX);
}

static void map__a_second_add_changes_nothing(void **state)
{
	struct lora_error err = LORA_ERROR_INIT;
	struct lora_map map = {0};
	char copy[] = "key";
	bool present = false;

	(void)state;
	assert_ok(add(&map, "key", 7, &present, &err));
	assert_ok(add(&map, copy, 8, &present, &err));
	assert_true(present);
	assert_int_equal(map.count, 1);
	assert_int_equal(lora__map_find(&map, copy, 3), 7);
	lora__map_fini(&map);
}

static void map__keys_are_bytes(void **state)
{
	struct lora_error err = LORA_ERROR_INIT;
	struct lora_map map = {0};
	bool present = true;

	(void)state;
	assert_ok(lora__map_add(&map, "", 0, 1, &present, &err));
	assert_ok(lora__map_add(&map, "a\0b", 3, 2, &present, &err));
	assert_ok(lora__map_add(&map, "a\0c", 3, 3, &present, &err));
	assert_false(present);
	assert_int_equal(lora__map_find(&map, "x", 0), 1);
	assert_int_equal(lora__map_find(&map, "a\0b", 3), 2);
	assert_int_equal(lora__map_find(&map, "a\0c", 3), 3);
	assert_int_equal(lora__map_find(&map, "a", 1), UINT32_MAX);
	assert_fails(LORA_USAGE, "names", add(&map, "z", UINT32_MAX, &present, &err));
	lora__map_fini(&map);
}

static void map__seeds_differ(void **state)
{
	struct lora_error err = LORA_ERROR_INIT;
	struct lora_map a = {0}, b = {0};
	bool present;

	(void)state;
	assert_ok(add(&a, "k", 1, &present, &err));
	assert_ok(add(&b, "k", 1, &present, &err));
	assert_memory_not_equal(a.seed, b.seed, sizeof a.seed);
	lora__map_fini(&a);
	lora__map_fini(&b);
}

/* Python 3.11 and newer hash bytes with SipHash-1-3, under the seed 0 if PYTHONHASHSEED=0:
 * python3.11 -c 'print(hex(hash(b"lora") & (2**64 - 1)))' */
static void map__hash_is_siphash_1_3(void **state)
{
	static const struct {
		const char *text;
		uint64_t hash;
	} cases[] = {
	    {"a", 0x407448d2b89b1813},	       {"lora", 0x53e0d5321d31a5ee},
	    {"1234567", 0xa33d651594fdae81},   {"12345678", 0x3489982430560a87},
	    {"123456789", 0x0fbc0f0007965fcf},
	};
	const uint64_t seed[2] = {0, 0};
	char bytes[64];

	(void)state;
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
		assert_true(lora__siphash(seed, cases[i].text, strlen(cases[i].text)) ==
			    cases[i].hash);
	for (size_t i = 0; i < sizeof bytes; i++)
		bytes[i] = (char)i;
	assert_true(lora__siphash(seed, bytes, sizeof bytes) ==
		    0x75e05fd5bbc870c6); /* bytes(range(64)) */
}

static void map__without_memory_the_map_stays_as_it_is(void **state)
{
	static char keys[100][8];
	struct lora_error err = LORA_ERROR_INIT;
	struct lora_map map = {0};
	long live = failing_malloc_live();
	bool present;

	(void)state;
	if (!FAILING_MALLOC)
		skip();
	for (uint32_t i = 0; i < 100; i++) {
		(void)snprintf(keys[i], sizeof keys[i], "%u", (unsigned)i);
		failing_malloc_begin(0);
		if (add(&map, keys[i], i, &present, &err) != LORA_OK) {
			assert_true(failing_malloc_end());
			assert_int_equal(err.status, LORA_SYSTEM);
			assert_int_equal(map.count, i);
			assert_int_equal(lora__map_find(&map, keys[i], strlen(keys[i])),
					 UINT32_MAX);
			assert_ok(add(&map, keys[i], i, &present, &err));
		}
		(void)failing_malloc_end();
		for (uint32_t k = 0; k <= i; k++)
			assert_int_equal(lora__map_find(&map, keys[k], strlen(keys[k])), k);
	}
	lora__map_fini(&map);
	assert_int_equal(failing_malloc_live(), live);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(map__finds_what_was_added_and_nothing_else),
	    cmocka_unit_test(map__a_second_add_changes_nothing),
	    cmocka_unit_test(map__keys_are_bytes),
	    cmocka_unit_test(map__seeds_differ),
	    cmocka_unit_test(map__hash_is_siphash_1_3),
	    cmocka_unit_test(map__without_memory_the_map_stays_as_it_is),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
