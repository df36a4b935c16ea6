/* SPDX-License-Identifier: Apache-2.0 */
/* base/digest.c - SHA-256 through libcrypto
 *
 * libcrypto has two ways in, to the same code, which it picks for the processor:
 *
 *	EVP_*       algorithms by name; a context takes memory when it is made, and again when it
 *	            begins a new message
 *	SHA256_*    a plain struct, deprecated since OpenSSL 3.0 in favour of the other
 *
 * Ours is the second: nothing in it can fail, so neither can lora__hasher_reset(), _update(),
 * _final() and lora__sha256(), and no caller has to ask whether a digest is one. (A failure that
 * nobody asked about would be a digest of something else: compared, printed, signed.)
 *
 * 1. Only lora__hasher_new() takes memory.
 * 2. Should libcrypto ever refuse, against its documentation, the process aborts.
 * 3. Hashers are independent: there is no state outside them.
 */
#define OPENSSL_SUPPRESS_DEPRECATED
#include <openssl/sha.h>
#include <stdlib.h>
#include <string.h>

#include "base/digest.h"

struct lora_hasher {
	SHA256_CTX context;
};

static void demand(int success)
{
	if (success != 1)
		abort();
}

struct lora_hasher *lora__hasher_new(void)
{
	struct lora_hasher *hasher = malloc(sizeof *hasher);

	if (hasher != NULL)
		lora__hasher_reset(hasher);
	return hasher;
}

void lora__hasher_free(struct lora_hasher *hasher)
{
	free(hasher);
}

void lora__hasher_reset(struct lora_hasher *hasher)
{
	demand(SHA256_Init(&hasher->context));
}

void lora__hasher_update(struct lora_hasher *hasher, const void *data, size_t size)
{
	if (size > 0)
		demand(SHA256_Update(&hasher->context, data, size));
}

void lora__hasher_final(struct lora_hasher *hasher, struct lora_sha256 *digest)
{
	demand(SHA256_Final(digest->byte, &hasher->context));
}

void lora__sha256(const void *data, size_t size, struct lora_sha256 *digest)
{
	struct lora_hasher hasher;

	lora__hasher_reset(&hasher);
	lora__hasher_update(&hasher, data, size);
	lora__hasher_final(&hasher, digest);
}

void lora__sha256_hex(const struct lora_sha256 *digest, char hex[LORA_SHA256_HEX])
{
	static const char digits[] = "0123456789abcdef";

	for (size_t i = 0; i < LORA_SHA256_SIZE; i++) {
		hex[2 * i] = digits[digest->byte[i] >> 4];
		hex[2 * i + 1] = digits[digest->byte[i] & 15];
	}
	hex[LORA_SHA256_HEX - 1] = '\0';
}

/* 0 to 15, or -1. */
static int digit_value(char c)
{
	return c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

bool lora__sha256_parse(const char *text, struct lora_sha256 *digest)
{
	struct lora_sha256 parsed;

	if (strnlen(text, LORA_SHA256_HEX) != LORA_SHA256_HEX - 1)
		return false;
	for (size_t i = 0; i < LORA_SHA256_SIZE; i++) {
		int high = digit_value(text[2 * i]), low = digit_value(text[2 * i + 1]);

		if (high < 0 || low < 0)
			return false;
		parsed.byte[i] = (uint8_t)(high << 4 | low);
	}
	*digest = parsed;
	return true;
}

bool lora__sha256_equal(const struct lora_sha256 *a, const struct lora_sha256 *b)
{
	return memcmp(a->byte, b->byte, LORA_SHA256_SIZE) == 0;
}
