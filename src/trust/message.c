/* SPDX-License-Identifier: Apache-2.0 */
/* trust/message.c - what is signed, whether it lies in memory or in an open file
 *
 * 1. A file is read through its descriptor, once, front to back, and must be the same afterwards.
 * 2. We sign BLAKE2b-512 of the content. minisign's older signatures are over the content itself,
 *    for which all of it has to be in memory: up to LEGACY_LIMIT.
 * 3. Both signatures of a .minisig have to be right: the one over the content, and the global one
 *    over it and the trusted comment.
 * 4. A legacy signature over exactly LORA_HASH_SIZE bytes counts for nothing: one over a hash could
 *    be relabelled as one over a file that consists of that hash. */
#include <stdlib.h>
#include <string.h>

#include <sodium.h>

#include "base/digest.h"
#include "base/error.h"
#include "base/watch.h"
#include "trust/trust.h"

#define CHUNK	     ((size_t)1 << 20)
#define LEGACY_LIMIT ((uint64_t)1 << 30)

/* The two hashes, side by side. */
struct hashes {
	crypto_generichash_state *blake; /* NULL: not wanted */
	struct lora_hasher *sha;
};

static void feed(struct hashes *hashes, const void *data, size_t size)
{
	if (hashes->blake)
		(void)crypto_generichash_update(hashes->blake, data, size);
	if (hashes->sha)
		lora__hasher_update(hashes->sha, data, size);
}

static enum lora_status feed_file(struct hashes *hashes, const struct lora_file *file,
				  const struct lora_observer *observer, struct lora_error *err)
{
	uint8_t *buffer = malloc(CHUNK);
	enum lora_status status = buffer ? LORA_OK : lora__fail_memory(err);
	struct lora_watch watch;

	lora__watch_init(&watch, observer, "hash", file->size);
	for (uint64_t done = 0; done < file->size && !status;) {
		size_t n = file->size - done < CHUNK ? (size_t)(file->size - done) : CHUNK;

		status = lora__file_read(file, done, buffer, n, err);
		if (status)
			break;
		feed(hashes, buffer, n);
		done += n;
		status = lora__watch_add(&watch, n, err);
	}
	lora__watch_fini(&watch);
	if (!status)
		status = lora__file_unchanged(file, err);
	free(buffer);
	return status;
}

enum lora_status lora__message_hash(const struct lora_message *message, uint8_t *hash,
				    struct lora_sha256 *digest,
				    const struct lora_observer *observer, struct lora_error *err)
{
	crypto_generichash_state blake;
	struct hashes hashes = {hash ? &blake : NULL, digest ? lora__hasher_new() : NULL};
	enum lora_status status = LORA_OK;

	if (digest && !hashes.sha)
		return lora__fail_memory(err);
	if (hash)
		(void)crypto_generichash_init(&blake, NULL, 0, LORA_HASH_SIZE);
	if (message->file)
		status = feed_file(&hashes, message->file, observer, err);
	else
		feed(&hashes, message->data, message->size);
	if (!status && hash)
		(void)crypto_generichash_final(&blake, hash, LORA_HASH_SIZE);
	if (!status && digest)
		lora__hasher_final(hashes.sha, digest);
	lora__hasher_free(hashes.sha);
	return status;
}

/* What the global signature is over: `content`, then the comment. */
static size_t join(uint8_t buffer[LORA_SIGNATURE_SIZE + LORA_TRUSTED_LIMIT],
		   const struct lora_minisig *signature)
{
	memcpy(buffer, signature->content, LORA_SIGNATURE_SIZE);
	memcpy(buffer + LORA_SIGNATURE_SIZE, signature->comment, signature->comment_size);
	return LORA_SIGNATURE_SIZE + signature->comment_size;
}

void lora__message_sign(struct lora_minisig *out, const uint8_t hash[LORA_HASH_SIZE],
			const char *comment, const struct lora_secret_key *key)
{
	uint8_t buffer[LORA_SIGNATURE_SIZE + LORA_TRUSTED_LIMIT];

	out->prehashed = true;
	out->comment = comment;
	out->comment_size = strlen(comment);
	memcpy(out->number, key->public.number, sizeof(out->number));
	(void)crypto_sign_detached(out->content, NULL, hash, LORA_HASH_SIZE, key->secret);
	(void)crypto_sign_detached(out->global, NULL, buffer, join(buffer, out), key->secret);
}

/* Legacy: over the bytes themselves. */
static enum lora_status check_content(bool *right, const struct lora_minisig *signature,
				      const struct lora_public_key *key,
				      const struct lora_message *message, struct lora_error *err)
{
	const struct lora_file *file = message->file;
	const uint8_t *data = message->data;
	uint8_t *whole = NULL;
	size_t size = message->size;
	enum lora_status status = LORA_OK;

	if (file && file->size > LEGACY_LIMIT)
		return lora__fail(err, LORA_INPUT,
				  "the signature is of minisign's older kind, which is checked for "
				  "files up to 1 GiB: sign it again");
	if (file) {
		size = (size_t)file->size;
		data = whole = malloc(size + 1);
		status =
		    whole ? lora__file_read(file, 0, whole, size, err) : lora__fail_memory(err);
		if (!status)
			status = lora__file_unchanged(file, err);
	}
	if (!status)
		*right =
		    crypto_sign_verify_detached(signature->content, data, size, key->point) == 0;
	free(whole);
	return status;
}

static uint64_t content_size(const struct lora_message *message)
{
	return message->file ? message->file->size : message->size;
}

enum lora_status lora__message_check(enum lora_match *match, const struct lora_minisig *signature,
				     const struct lora_public_key *key,
				     const struct lora_message *message,
				     const uint8_t hash[LORA_HASH_SIZE], struct lora_error *err)
{
	uint8_t buffer[LORA_SIGNATURE_SIZE + LORA_TRUSTED_LIMIT];
	enum lora_status status = LORA_OK;
	bool right = false;

	if (signature->prehashed)
		right = crypto_sign_verify_detached(signature->content, hash, LORA_HASH_SIZE,
						    key->point) == 0;
	else
		status = check_content(&right, signature, key, message, err);
	*match = LORA_MATCH_NOT_CONTENT;
	if (!signature->prehashed && content_size(message) == LORA_HASH_SIZE)
		return status; /* 4 */
	if (status || !right)
		return status;
	right = crypto_sign_verify_detached(signature->global, buffer, join(buffer, signature),
					    key->point) == 0;
	*match = right ? LORA_MATCH : LORA_MATCH_NOT_COMMENT;
	return LORA_OK;
}
