/* SPDX-License-Identifier: Apache-2.0 */
/* trust/minisign.h - minisign's three kinds of files: bytes to facts and back, and nothing else.
 *
 * Parsing is a pure function of bytes; what is wrong is LORA_INPUT. Nothing here checks a signature
 * or opens a secret. */
#ifndef LORA_TRUST_MINISIGN_H
#define LORA_TRUST_MINISIGN_H

#include <loractl/trust.h>

#define LORA_POINT_SIZE	    32	/* an Ed25519 public key */
#define LORA_SIGNATURE_SIZE 64	/* an Ed25519 signature */
#define LORA_SECRET_SIZE    64	/* an Ed25519 secret key as libsodium has it: seed, point */
#define LORA_SEALED_SIZE    104 /* key number, secret key, checksum: what a passphrase hides */
#define LORA_SALT_SIZE	    32
#define LORA_COMMENT_LIMIT  1000  /* bytes; with its prefix it fits minisign's 1024 */
#define LORA_TRUSTED_LIMIT  8190  /* bytes; minisign's limit is 8192 with the newline and NUL */
#define LORA_MINISIG_LIMIT  16384 /* bytes of a whole file of any of the three kinds */

/* A parsed .minisig. */
struct lora_minisig {
	bool prehashed; /* over BLAKE2b-512 of the content; else, legacy, over the content */
	uint8_t number[8];
	uint8_t content[LORA_SIGNATURE_SIZE];
	uint8_t global[LORA_SIGNATURE_SIZE]; /* over `content` and the trusted comment */
	const char *comment;		     /* the trusted one: borrowed, not NUL-terminated */
	size_t comment_size;
};

/* A parsed secret key file. Without a passphrase `sealed` is plain. */
struct lora_sealed {
	bool encrypted;
	uint8_t salt[LORA_SALT_SIZE];
	uint64_t operations, memory; /* of scrypt; memory in bytes */
	uint8_t sealed[LORA_SEALED_SIZE];
};

enum lora_status lora__minisig_parse(struct lora_minisig *out, const char *text, size_t size,
				     struct lora_error *err);
enum lora_status lora__public_parse(struct lora_public_key *out, const char *text, size_t size,
				    struct lora_error *err);
/* `out` must lie in locked memory. */
enum lora_status lora__sealed_parse(struct lora_sealed *out, const char *text, size_t size,
				    struct lora_error *err);

/* The 56 characters of base64 alone, as keyrings have them. */
bool lora__public_decode(struct lora_public_key *out, const char *base64);
bool lora__public_equal(const struct lora_public_key *a, const struct lora_public_key *b);

/* Whole files, into `room` bytes (LORA_MINISIG_LIMIT is always enough); returns their size. */
size_t lora__minisig_emit(char *text, size_t room, const char *untrusted,
			  const struct lora_minisig *signature);
size_t lora__public_emit(char *text, size_t room, const char *comment,
			 const struct lora_public_key *key);
size_t lora__sealed_emit(char *text, size_t room, const char *comment,
			 const struct lora_sealed *key);

/* May it stand in a comment? UTF-8 of at most `limit` bytes in one line, without control
 * characters but tabs. */
bool lora__comment_is_plain(const char *comment, size_t size, size_t limit);

#endif
