/* SPDX-License-Identifier: Apache-2.0 */
/* base/digest.h - SHA-256 through libcrypto, the only place that includes it. */
#ifndef LORA_BASE_DIGEST_H
#define LORA_BASE_DIGEST_H

#include <loractl/types.h>

struct lora_hasher; /* one running SHA-256; used by one thread at a time */

struct lora_hasher *lora__hasher_new(void); /* NULL without memory; nothing else here can fail */
void lora__hasher_free(struct lora_hasher *hasher);
void lora__hasher_reset(struct lora_hasher *hasher); /* to the empty message */
void lora__hasher_update(struct lora_hasher *hasher, const void *data, size_t size);
/* To be followed by reset or free. */
void lora__hasher_final(struct lora_hasher *hasher, struct lora_sha256 *digest);

void lora__sha256(const void *data, size_t size, struct lora_sha256 *digest);
void lora__sha256_hex(const struct lora_sha256 *digest, char hex[LORA_SHA256_HEX]);
/* False unless text is 64 lower-case hexadecimal digits. */
bool lora__sha256_parse(const char *text, struct lora_sha256 *digest);
bool lora__sha256_equal(const struct lora_sha256 *a, const struct lora_sha256 *b);

#endif
