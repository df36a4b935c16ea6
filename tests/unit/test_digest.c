/* SPDX-License-Identifier: Apache-2.0 */
/* base/digest.c. The first three messages are those of FIPS 180-4's examples; the last digest is
 * from Python's hashlib. */
#include "base_check.h"

#include <pthread.h>

#include "base/digest.h"
#include "failing_malloc.h"

static char million[1000000], squares[5000];

static const struct {
	const char *data;
	size_t size;
	const char *hex;
} cases[] = {
    {"", 0, "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"},
    {"abc", 3, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"},
    {million, sizeof million, "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0"},
    {squares, sizeof squares, "660faa7089afce64fd1e9dd44cdbce136859740a4fe371c564b58687a67f7b8b"},
};

static int fill(void **state)
{
	(void)state;
	memset(million, 'a', sizeof million);
	for (size_t i = 0; i < sizeof squares; i++)
		squares[i] = (char)(i * i % 251);
	return 0;
}

static void assert_hex(const struct lora_sha256 *digest, const char *expected)
{
	char hex[LORA_SHA256_HEX];

	lora__sha256_hex(digest, hex);
	assert_string_equal(hex, expected);
}

static void digest__known_messages(void **state)
{
	struct lora_hasher *hasher = lora__hasher_new();
	struct lora_sha256 digest;

	(void)state;
	assert_non_null(hasher);
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		lora__sha256(cases[i].data, cases[i].size, &digest);
		assert_hex(&digest, cases[i].hex);
		memset(&digest, 0, sizeof digest);
		lora__hasher_update(hasher, cases[i].data, cases[i].size);
		lora__hasher_final(hasher, &digest);
		assert_hex(&digest, cases[i].hex);
		lora__hasher_reset(hasher);
	}
	lora__hasher_free(hasher);
	lora__hasher_free(NULL);
}

static void digest__pieces_do_not_matter(void **state)
{
	struct lora_hasher *hasher = lora__hasher_new();
	struct lora_sha256 digest;

	(void)state;
	assert_non_null(hasher);
	for (size_t piece = 1; piece < 200; piece += 13) {
		lora__hasher_update(hasher, "left over", 9);
		lora__hasher_reset(hasher);
		for (size_t at = 0; at < sizeof squares; at += piece) {
			size_t rest = sizeof squares - at;

			lora__hasher_update(hasher, squares + at, piece < rest ? piece : rest);
		}
		lora__hasher_update(hasher, NULL, 0);
		lora__hasher_final(hasher, &digest);
		assert_hex(&digest, cases[3].hex);
		lora__hasher_reset(hasher);
	}
	lora__hasher_free(hasher);
}

static void digest__hex_there_and_back(void **state)
{
	static const char *const wrong[] = {
	    "",
	    "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015a",	 /* 63 */
	    "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad0", /* 65 */
	    "BA7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
	    "ga7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
	    "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015a ",
	};
	struct lora_sha256 digest, parsed = {{1}}, untouched = {{1}};

	(void)state;
	for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++)
		assert_false(lora__sha256_parse(wrong[i], &parsed));
	assert_true(lora__sha256_equal(&parsed, &untouched));
	lora__sha256("abc", 3, &digest);
	assert_true(lora__sha256_parse(cases[1].hex, &parsed));
	assert_true(lora__sha256_equal(&parsed, &digest));
	assert_int_equal(parsed.byte[0], 0xba);
	assert_int_equal(parsed.byte[31], 0xad);
	for (size_t i = 0; i < LORA_SHA256_SIZE; i++) {
		digest.byte[i] ^= 1;
		assert_false(lora__sha256_equal(&parsed, &digest));
		digest.byte[i] ^= 1;
	}
}

static void *hash_squares(void *argument)
{
	struct lora_sha256 *digest = argument;

	for (int i = 0; i < 50; i++) {
		struct lora_hasher *hasher = lora__hasher_new();

		if (hasher == NULL)
			return NULL;
		lora__hasher_update(hasher, squares, sizeof squares);
		lora__hasher_final(hasher, digest);
		lora__hasher_free(hasher);
	}
	return argument;
}

static void digest__threads_do_not_meet(void **state)
{
	struct lora_sha256 digests[4];
	pthread_t threads[4];
	void *result;

	(void)state;
	for (size_t i = 0; i < 4; i++)
		assert_int_equal(pthread_create(&threads[i], NULL, hash_squares, &digests[i]), 0);
	for (size_t i = 0; i < 4; i++) {
		assert_int_equal(pthread_join(threads[i], &result), 0);
		assert_ptr_equal(result, &digests[i]);
		assert_hex(&digests[i], cases[3].hex);
	}
}

static void digest__only_a_new_hasher_needs_memory(void **state)
{
	long live = failing_malloc_live();
	struct lora_sha256 digest;
	struct lora_hasher *hasher;

	(void)state;
	if (!FAILING_MALLOC)
		skip();
	failing_malloc_begin(0);
	assert_null(lora__hasher_new());
	assert_true(failing_malloc_end());
	hasher = lora__hasher_new();
	assert_non_null(hasher);
	failing_malloc_begin(0);
	lora__hasher_update(hasher, "left over", 9);
	lora__hasher_final(hasher, &digest);
	lora__hasher_reset(hasher);
	lora__hasher_update(hasher, "abc", 3);
	lora__hasher_final(hasher, &digest);
	assert_hex(&digest, cases[1].hex);
	lora__sha256(million, sizeof million, &digest);
	assert_hex(&digest, cases[2].hex);
	assert_false(failing_malloc_end());
	lora__hasher_free(hasher);
	assert_int_equal(failing_malloc_live(), live);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(digest__known_messages),
	    cmocka_unit_test(digest__pieces_do_not_matter),
	    cmocka_unit_test(digest__hex_there_and_back),
	    cmocka_unit_test(digest__threads_do_not_meet),
	    cmocka_unit_test(digest__only_a_new_hasher_needs_memory),
	};

	return cmocka_run_group_tests(tests, fill, NULL);
}
