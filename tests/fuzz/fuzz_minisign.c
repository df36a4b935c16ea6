/* SPDX-License-Identifier: Apache-2.0 */
/* minisign's three kinds of files: whatever the bytes, a status of the contract; and what is taken
 * for one comes out of the emitter as the same again. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "trust/trust.h"

/* Not assert(): a release build would leave it out. */
#define REQUIRE(truth)                                                                             \
	do {                                                                                       \
		if (!(truth))                                                                      \
			abort();                                                                   \
	} while (0)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static bool taken(enum lora_status status, const struct lora_error *err)
{
	REQUIRE(status == LORA_OK || status == LORA_INPUT);
	REQUIRE(status == LORA_OK || err->message[0]);
	return status == LORA_OK;
}

static void check_signature(const char *text, size_t size)
{
	static char again[LORA_MINISIG_LIMIT];
	struct lora_error err = LORA_ERROR_INIT;
	struct lora_minisig a, b;
	size_t length;

	if (!taken(lora__minisig_parse(&a, text, size, &err), &err))
		return;
	REQUIRE(a.comment >= text && a.comment + a.comment_size <= text + size);
	length = lora__minisig_emit(again, sizeof(again), "x", &a);
	REQUIRE(length < sizeof(again));
	REQUIRE(lora__minisig_parse(&b, again, length, &err) == LORA_OK);
	REQUIRE(a.prehashed == b.prehashed && memcmp(a.number, b.number, 8) == 0);
	REQUIRE(memcmp(a.content, b.content, sizeof(a.content)) == 0);
	REQUIRE(memcmp(a.global, b.global, sizeof(a.global)) == 0);
	REQUIRE(a.comment_size == b.comment_size &&
		memcmp(a.comment, b.comment, a.comment_size) == 0);
}

static void check_public(const char *text, size_t size)
{
	struct lora_error err = LORA_ERROR_INIT;
	struct lora_public_key a, b;
	char base64[LORA_KEY_TEXT];

	if (!taken(lora__public_parse(&a, text, size, &err), &err))
		return;
	lora_public_key_text(&a, base64);
	REQUIRE(lora__public_decode(&b, base64) && lora__public_equal(&a, &b));
}

static void check_secret(const char *text, size_t size)
{
	static char again[LORA_MINISIG_LIMIT];
	struct lora_error err = LORA_ERROR_INIT;
	struct lora_sealed a = {0}, b = {0};
	size_t length;

	if (!taken(lora__sealed_parse(&a, text, size, &err), &err))
		return;
	length = lora__sealed_emit(again, sizeof(again), "x", &a);
	REQUIRE(lora__sealed_parse(&b, again, length, &err) == LORA_OK);
	REQUIRE(a.encrypted == b.encrypted && a.operations == b.operations &&
		a.memory == b.memory && memcmp(a.sealed, b.sealed, sizeof(a.sealed)) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	REQUIRE(lora__sodium(NULL) == LORA_OK);
	check_signature((const char *)data, size);
	check_public((const char *)data, size);
	check_secret((const char *)data, size);
	return 0;
}
