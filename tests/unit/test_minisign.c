/* SPDX-License-Identifier: Apache-2.0 */
/* test_minisign.c - keys and signatures that minisign 0.11 made: the bytes are where they should
 * be, and the checks say what is right. */
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>
#include <string.h>

#include "trust/trust.h"

/* Made with: minisign -G -W; minisign -S and minisign -S -l over "hello\n", with -t words. */
static const char public_text[] = "untrusted comment: minisign public key 8BFB35B7C6098CB7\n"
				  "RWS3jAnGtzX7i9UjcBl5jlLX7q+cG006phGSl543S5Bt78mTBikLVc6u\n";
static const char secret_text[] =
    "untrusted comment: minisign encrypted secret key\n"
    "RWQAAEIyAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAt4wJxrc1+4vHtPSzl/"
    "cqfrSIwwIzC1edtFg/"
    "47Dndm5FucaMKGCuGdUjcBl5jlLX7q+"
    "cG006phGSl543S5Bt78mTBikLVc6uAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\n";
static const char prehashed_text[] =
    "untrusted comment: signature from minisign secret key\n"
    "RUS3jAnGtzX7i9yNOSMRe8rO/eqHwiu04FUSVv15/"
    "iFBHk3WO204zVVVEOChhDWKwFIMUDs+jfToEi1JmbhSMk6V3iT2+fmD2gI=\n"
    "trusted comment: words\n"
    "yx8E76z+SKrEwVq5NC4DDHkznspxw5sVtS1vAMNdBTeHwlYZBODER1nK7Z9ROasLpavRZBhzgJuH9QGyOhGSDg==\n";
static const char legacy_text[] =
    "untrusted comment: signature from minisign secret key\n"
    "RWS3jAnGtzX7i9nFnt2HwjtqHmQreOhQ7gVrxaP3+fjMkcMTtU2sAb72G+"
    "mxSl9ZBvIx9HeSNIxplj6oY4Rb5rRogpMuwUqbNwA=\n"
    "trusted comment: words\n"
    "hlpLJy4SV0SpOdmHZL8/PKgWZqTNGsSl9SaSeoNS1bXQLwmo2GRAr/m9P8da+a4UF4gAO9kB4hKGMFRjFFHzAw==\n";
static const char public_comment[] = "minisign public key 8BFB35B7C6098CB7";
static const char secret_comment[] = "minisign encrypted secret key";
static const char public_id[] = "8BFB35B7C6098CB7";

static void public_key__is_parsed(void **state)
{
	struct lora_error err = LORA_ERROR_INIT;
	struct lora_public_key key, same;
	char id[LORA_KEY_ID], text[LORA_KEY_TEXT], file[LORA_MINISIG_LIMIT];

	(void)state;
	assert_int_equal(lora__public_parse(&key, public_text, strlen(public_text), &err), LORA_OK);
	lora_public_key_id(&key, id);
	assert_string_equal(id, public_id);
	lora_public_key_text(&key, text);
	assert_memory_equal(text, strchr(public_text, '\n') + 1, 56);
	assert_true(lora__public_decode(&same, text));
	assert_true(lora__public_equal(&key, &same));
	same.point[31] ^= 1;
	assert_false(lora__public_equal(&key, &same));
	(void)lora__public_emit(file, sizeof(file), public_comment, &key);
	assert_string_equal(file, public_text);
	for (size_t n = 0; n + 1 < strlen(public_text); n++)
		assert_int_equal(lora__public_parse(&same, public_text, n, &err), LORA_INPUT);
}

/* The signature of minisign over "hello\n" as our checks see it, the content and comment as given.
 */
static enum lora_match check(const char *text, const char *content, size_t size)
{
	struct lora_message message = {.data = content, .size = size};
	struct lora_error err = LORA_ERROR_INIT;
	uint8_t hash[LORA_HASH_SIZE];
	struct lora_minisig signature;
	struct lora_public_key key;
	enum lora_match match;

	assert_int_equal(lora__public_parse(&key, public_text, strlen(public_text), &err), LORA_OK);
	assert_int_equal(lora__minisig_parse(&signature, text, strlen(text), &err), LORA_OK);
	assert_memory_equal(signature.number, key.number, 8);
	assert_int_equal(lora__message_hash(&message, hash, NULL, NULL, &err), LORA_OK);
	assert_int_equal(lora__message_check(&match, &signature, &key, &message, hash, &err),
			 LORA_OK);
	return match;
}

static void signature__is_checked(void **state)
{
	static const char *const both[] = {prehashed_text, legacy_text};
	char text[LORA_MINISIG_LIMIT];

	(void)state;
	for (size_t i = 0; i < 2; i++) {
		assert_int_equal(check(both[i], "hello\n", 6), LORA_MATCH);
		assert_int_equal(check(both[i], "hello", 5), LORA_MATCH_NOT_CONTENT);
		assert_int_equal(check(both[i], "", 0), LORA_MATCH_NOT_CONTENT);
		strcpy(text, both[i]);
		strstr(text, "words")[0] = 'W';
		assert_int_equal(check(text, "hello\n", 6), LORA_MATCH_NOT_COMMENT);
	}
	/* The two kinds are not one another's. */
	strcpy(text, prehashed_text);
	assert_non_null(strstr(text, "\nRU"));
	strstr(text, "\nRU")[2] = 'W';
	assert_int_equal(check(text, "hello\n", 6), LORA_MATCH_NOT_CONTENT);
	strcpy(text, legacy_text);
	strstr(text, "\nRW")[2] = 'U';
	assert_int_equal(check(text, "hello\n", 6), LORA_MATCH_NOT_CONTENT);
}

/* A signature over a hash, relabelled as one over a file that is that hash. */
static void signature__is_not_one_over_its_hash(void **state)
{
	struct lora_message message = {.data = "hello\n", .size = 6};
	struct lora_error err = LORA_ERROR_INIT;
	uint8_t hash[LORA_HASH_SIZE];
	char text[LORA_MINISIG_LIMIT];

	(void)state;
	assert_int_equal(lora__message_hash(&message, hash, NULL, NULL, &err), LORA_OK);
	strcpy(text, prehashed_text);
	strstr(text, "\nRU")[2] = 'W';
	assert_int_equal(check(text, (const char *)hash, sizeof(hash)), LORA_MATCH_NOT_CONTENT);
}

static void signature__has_one_spelling(void **state)
{
	struct lora_error err = LORA_ERROR_INIT;
	char text[LORA_MINISIG_LIMIT];
	struct lora_minisig signature;
	char *last;

	(void)state;
	for (size_t n = 0; n + 1 < strlen(prehashed_text); n++)
		assert_int_equal(lora__minisig_parse(&signature, prehashed_text, n, &err),
				 LORA_INPUT);
	strcpy(text, prehashed_text);
	last = strchr(strchr(text, '\n') + 1, '\n') - 2; /* of line 2, before its '=' */
	assert_int_equal(last[1], '=');
	*last = (char)(*last + 1); /* the bits that padding leaves unused */
	assert_int_equal(lora__minisig_parse(&signature, text, strlen(text), &err), LORA_INPUT);
}

static void secret_key__is_parsed(void **state)
{
	struct lora_error err = LORA_ERROR_INIT;
	struct lora_public_key key;
	struct lora_sealed sealed;
	char file[LORA_MINISIG_LIMIT];

	(void)state;
	assert_int_equal(lora__public_parse(&key, public_text, strlen(public_text), &err), LORA_OK);
	assert_int_equal(lora__sealed_parse(&sealed, secret_text, strlen(secret_text), &err),
			 LORA_OK);
	assert_false(sealed.encrypted);
	assert_memory_equal(sealed.sealed, key.number, 8);
	assert_memory_equal(sealed.sealed + 40, key.point, 32);
	(void)lora__sealed_emit(file, sizeof(file), secret_comment, &sealed);
	assert_string_equal(file, secret_text);
	for (size_t n = 0; n + 1 < strlen(secret_text); n++)
		assert_int_equal(lora__sealed_parse(&sealed, secret_text, n, &err), LORA_INPUT);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(public_key__is_parsed),
	    cmocka_unit_test(signature__is_checked),
	    cmocka_unit_test(signature__is_not_one_over_its_hash),
	    cmocka_unit_test(signature__has_one_spelling),
	    cmocka_unit_test(secret_key__is_parsed),
	};

	if (lora__sodium(NULL))
		return 1;
	return cmocka_run_group_tests(tests, NULL, NULL);
}
