/* SPDX-License-Identifier: Apache-2.0 */
/* trust/secret.c - keys that sign: made, put under a passphrase, taken from under it
 *
 * scrypt turns a passphrase into 104 bytes, which are XORed over key number, secret key and
 * checksum (minisign.c has the bytes). A wrong passphrase is known by the checksum.
 *
 * Invariants
 * (1) Every byte that tells about a secret key or a passphrase lies in memory from sodium_malloc():
 *     locked where the system allows it, between guard pages, in no core dump, wiped when freed;
 *     the few bytes that pass over the stack are wiped there.
 * (2) Secrets are compared in constant time.
 * (3) No message has a part of one.
 * (4) The point in a secret key must be the one that its seed gives: signing with another would
 *     give the seed away.
 * (5) What a stranger's file asks of scrypt is bounded before it is done.
 * Decisions
 *     64 MiB of memory and some 0.7 s, where minisign takes 1 GiB: small machines have to be able
 *     to sign. The cost stands in the file, and minisign reads it there. scrypt's N is 2^16, r 8,
 *     p 4: twice the work that OWASP's sheet on storing passwords asks for at this size (p 2).
 *
 * Tested by tests/cli/keygen.sh, tests/cli/verify_file.sh, tests/cli/sign_minisign.sh
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <sodium.h>

#include "base/error.h"
#include "base/watch.h"
#include "trust/trust.h"

#define KDF_OPERATIONS ((uint64_t)1 << 23)
#define KDF_MEMORY     ((uint64_t)64 << 20)
/* minisign's own are 2^25 and 1 GiB. */
#define KDF_OPERATIONS_LIMIT ((uint64_t)1 << 28)
#define KDF_MEMORY_LIMIT     ((uint64_t)2 << 30)

#define PASSPHRASE_ROOM 1024 /* bytes, as minisign's */
#define CHECK_SIZE	32

enum lora_status lora__sodium(struct lora_error *err)
{
	return sodium_init() >= 0 ? LORA_OK
				  : lora__fail(err, LORA_SYSTEM,
					       "libsodium cannot be used: the "
					       "system has no random source");
}

/* What the passphrase hides, in its order. */
struct inside {
	uint8_t number[8];
	uint8_t secret[LORA_SECRET_SIZE];
	uint8_t check[CHECK_SIZE];
};

static void make_check(const struct inside *inside, uint8_t check[CHECK_SIZE])
{
	crypto_generichash_state state;

	(void)crypto_generichash_init(&state, NULL, 0, CHECK_SIZE);
	(void)crypto_generichash_update(&state, (const uint8_t *)"Ed", 2);
	(void)crypto_generichash_update(&state, inside->number, sizeof(inside->number));
	(void)crypto_generichash_update(&state, inside->secret, sizeof(inside->secret));
	(void)crypto_generichash_final(&state, check, CHECK_SIZE);
	sodium_memzero(&state, sizeof(state));
}

/* PASSPHRASE_ROOM bytes are at text. */
static enum lora_status ask(const struct lora_passphrase *passphrase, const char *what,
			    bool confirm, char *text, size_t *length, struct lora_error *err)
{
	struct lora_error own = LORA_ERROR_INIT;

	if (!passphrase->read(passphrase->user, what, confirm, text, PASSPHRASE_ROOM, length, &own))
		return lora__fail(err, own.status, "%s", own.message);
	if (*length >= PASSPHRASE_ROOM)
		return lora__fail(err, LORA_USAGE, "the passphrase is longer than %d bytes",
				  PASSPHRASE_ROOM - 1);
	if (confirm && *length == 0)
		return lora__fail(err, LORA_USAGE,
				  "the passphrase is empty: give one, or use --no-passphrase");
	return LORA_OK;
}

/* Asks for the passphrase, and XORs its stream over sealed->sealed. */
static enum lora_status apply(struct lora_sealed *sealed, const struct lora_passphrase *passphrase,
			      const char *what, bool confirm, struct lora_error *err)
{
	char *text = sodium_malloc(PASSPHRASE_ROOM);
	uint8_t *stream = sodium_malloc(LORA_SEALED_SIZE);
	enum lora_status status = LORA_OK;
	size_t length = 0;

	if (!text || !stream)
		status = lora__fail_memory(err);
	if (!status)
		status = ask(passphrase, what, confirm, text, &length, err);
	if (!status &&
	    crypto_pwhash_scryptsalsa208sha256(stream, LORA_SEALED_SIZE, text, length, sealed->salt,
					       sealed->operations, (size_t)sealed->memory) != 0)
		status = lora__fail(err, LORA_SYSTEM,
				    "out of memory: the key's passphrase takes %llu MiB to check",
				    (unsigned long long)sealed->memory >> 20);
	for (size_t i = 0; i < LORA_SEALED_SIZE && !status; i++)
		sealed->sealed[i] ^= stream[i];
	sodium_free(text);
	sodium_free(stream);
	return status;
}

/* ---- opening */

static enum lora_status check_cost(const struct lora_sealed *sealed, struct lora_error *err)
{
	if (!sealed->encrypted ||
	    (sealed->operations <= KDF_OPERATIONS_LIMIT && sealed->memory <= KDF_MEMORY_LIMIT))
		return LORA_OK;
	return lora__fail(
	    err, LORA_INPUT,
	    "its passphrase asks for %llu MiB and %llu operations: at most %llu MiB "
	    "and %llu are done for a file",
	    (unsigned long long)sealed->memory >> 20, (unsigned long long)sealed->operations,
	    (unsigned long long)KDF_MEMORY_LIMIT >> 20, (unsigned long long)KDF_OPERATIONS_LIMIT);
}

/* The plain bytes become a key, if they are one. (2) (4) */
static enum lora_status accept(struct lora_secret_key *key, const struct inside *inside,
			       bool encrypted, struct lora_error *err)
{
	uint8_t check[CHECK_SIZE] = {0}, point[LORA_POINT_SIZE];

	if (encrypted)
		make_check(inside, check);
	if (encrypted && sodium_memcmp(check, inside->check, CHECK_SIZE) != 0)
		return lora__fail(err, LORA_INPUT,
				  "wrong passphrase (or the file is damaged): try again");
	memcpy(key->public.number, inside->number, sizeof(inside->number));
	(void)crypto_sign_seed_keypair(point, key->secret, inside->secret);
	memcpy(key->public.point, point, sizeof(point));
	if (sodium_memcmp(key->secret, inside->secret, sizeof(key->secret)) != 0)
		return lora__fail(err, LORA_INPUT, "the secret key is damaged: its halves differ");
	return LORA_OK;
}

static enum lora_status unseal(struct lora_secret_key *key, struct lora_sealed *sealed,
			       const char *path, const struct lora_passphrase *passphrase,
			       struct lora_error *err)
{
	struct inside *inside = sodium_malloc(sizeof(*inside));
	enum lora_status status = inside ? check_cost(sealed, err) : lora__fail_memory(err);

	if (!status && sealed->encrypted)
		status = passphrase ? apply(sealed, passphrase, path, false, err)
				    : lora__fail(err, LORA_USAGE, "it needs a passphrase");
	if (!status) {
		memcpy(inside, sealed->sealed, sizeof(*inside));
		status = accept(key, inside, sealed->encrypted, err);
	}
	sodium_free(inside);
	return status;
}

/* Reads and parses, all in locked memory. */
static enum lora_status load(struct lora_sealed *sealed, const char *path,
			     const struct lora_observer *observer, struct lora_error *err)
{
	struct lora_file file = LORA_FILE_INIT;
	char *text = NULL;
	enum lora_status status = lora__file_open(&file, path, err);

	if (status)
		return status;
	if (file.size > LORA_MINISIG_LIMIT)
		status = lora__fail(err, LORA_INPUT, "it is no secret key: it has %llu bytes",
				    (unsigned long long)file.size);
	if (!status && !(text = sodium_malloc((size_t)file.size + 1)))
		status = lora__fail_memory(err);
	if (!status)
		status = lora__file_read(&file, 0, text, (size_t)file.size, err);
	if (!status)
		status = lora__sealed_parse(sealed, text, (size_t)file.size, err);
	if (!status && (file.stat.st_mode & 077))
		lora__note(
		    observer, LORA_NOTE_WARNING,
		    "'%s' is open to others (mode %03o): chmod 600 it, and make a new key if "
		    "it was copied",
		    lora__escape(path), (unsigned)file.stat.st_mode & 0777);
	sodium_free(text);
	lora__file_close(&file);
	return lora__context(err, status, "key '%s'", lora__escape(path));
}

enum lora_status lora_secret_key_open(struct lora_secret_key **out, const char *path,
				      const struct lora_passphrase *passphrase,
				      const struct lora_observer *observer, struct lora_error *err)
{
	struct lora_secret_key *key = NULL;
	struct lora_sealed *sealed = NULL;
	enum lora_status status = lora__sodium(err);

	*out = NULL;
	if (status)
		return status;
	key = sodium_malloc(sizeof(*key));
	sealed = sodium_malloc(sizeof(*sealed));
	status = key && sealed ? load(sealed, path, observer, err) : lora__fail_memory(err);
	if (!status) {
		status = unseal(key, sealed, path, passphrase, err);
		lora__context(err, status, "key '%s'", lora__escape(path));
	}
	sodium_free(sealed);
	if (status)
		lora_secret_key_close(key);
	else
		*out = key;
	return status;
}

void lora_secret_key_close(struct lora_secret_key *key)
{
	sodium_free(key); /* wipes it */
}

void lora_secret_key_public(const struct lora_secret_key *key, struct lora_public_key *out)
{
	*out = key->public;
}

enum lora_status lora_public_key_read(struct lora_public_key *out, const char *path,
				      struct lora_error *err)
{
	enum lora_status status = lora__sodium(err);
	char *text = NULL;
	size_t size;

	if (!status)
		status = lora__file_slurp(path, LORA_MINISIG_LIMIT, &text, &size, err);
	if (!status) {
		status = lora__public_parse(out, text, size, err);
		lora__context(err, status, "key '%s'", lora__escape(path));
	}
	free(text);
	return status;
}

/* ---- making */

/* A new key, sealed. */
static enum lora_status make(struct lora_sealed *sealed, struct lora_public_key *public,
			     const char *path, const struct lora_passphrase *passphrase,
			     struct lora_error *err)
{
	struct inside *inside = sodium_malloc(sizeof(*inside));
	enum lora_status status = inside ? LORA_OK : lora__fail_memory(err);

	if (status)
		return status;
	memset(sealed, 0, sizeof(*sealed));
	memset(inside, 0, sizeof(*inside));
	(void)crypto_sign_keypair(public->point, inside->secret);
	randombytes_buf(public->number, sizeof(public->number));
	memcpy(inside->number, public->number, sizeof(inside->number));
	if (passphrase) {
		sealed->encrypted = true;
		sealed->operations = KDF_OPERATIONS;
		sealed->memory = KDF_MEMORY;
		randombytes_buf(sealed->salt, sizeof(sealed->salt));
		make_check(inside, inside->check);
	}
	memcpy(sealed->sealed, inside, sizeof(*inside));
	if (passphrase)
		status = apply(sealed, passphrase, path, true, err);
	sodium_free(inside);
	return status;
}

/* NAME.key and NAME.pub, both or none. */
static enum lora_status write_pair(const char *secret_path, const char *public_path,
				   const char *secret, const char *public, struct lora_error *err)
{
	struct lora_output *output = NULL;
	int fd, beside;
	enum lora_status status = lora__output_begin_secret(&output, secret_path, false, err);

	if (!status)
		status = lora__output_file(output, NULL, 0, &fd, err);
	if (!status)
		status = lora__output_beside(output, public_path, &beside, err);
	if (!status)
		status = lora__write_at(fd, secret_path, 0, secret, strlen(secret), err);
	if (!status)
		status = lora__write_at(beside, public_path, 0, public, strlen(public), err);
	if (!status)
		status = lora__output_commit(output, err);
	lora__output_free(output);
	return status;
}

/* Everything about the two files but their names. */
static enum lora_status generate(struct lora_public_key *public, const char *paths[2],
				 const char *comment, const struct lora_passphrase *passphrase,
				 struct lora_error *err)
{
	struct lora_sealed *sealed = sodium_malloc(sizeof(*sealed));
	char *secret = sodium_malloc(LORA_MINISIG_LIMIT), id[LORA_KEY_ID];
	char text[LORA_MINISIG_LIMIT], label[64];
	enum lora_status status = sealed && secret ? make(sealed, public, paths[0], passphrase, err)
						   : lora__fail_memory(err);

	if (!status) {
		lora_public_key_id(public, id);
		(void)snprintf(label, sizeof(label), "minisign public key %s", id);
		lora__public_emit(text, sizeof(text), comment ? comment : label, public);
		lora__sealed_emit(secret, LORA_MINISIG_LIMIT,
				  comment      ? comment
				  : passphrase ? "minisign encrypted "
						 "secret key"
					       : "minisign secret key",
				  sealed);
		status = write_pair(paths[0], paths[1], secret, text, err);
	}
	sodium_free(secret);
	sodium_free(sealed);
	return status;
}

/* Before anybody types a passphrase: would writing be refused? */
static enum lora_status check_free(const char *path, struct lora_error *err)
{
	struct stat info;

	if (lstat(path, &info) != 0)
		return LORA_OK; /* what else is wrong shows when it is written */
	return lora__fail(err, LORA_USAGE,
			  "'%s' exists: a key is never replaced: choose another name",
			  lora__escape(path));
}

enum lora_status lora_key_generate(struct lora_public_key *out, const char *name,
				   const char *comment, const struct lora_passphrase *passphrase,
				   struct lora_error *err)
{
	size_t room = strlen(name) + sizeof(".key");
	char *secret = malloc(room), *public = malloc(room);
	const char *paths[2] = {secret, public};
	enum lora_status status = secret && public ? lora__sodium(err) : lora__fail_memory(err);

	if (!status && comment &&
	    !lora__comment_is_plain(comment, strlen(comment), LORA_COMMENT_LIMIT))
		status = lora__fail(err, LORA_USAGE,
				    "the comment is longer than %d bytes, or not one line of text",
				    LORA_COMMENT_LIMIT);
	if (!status) {
		(void)snprintf(secret, room, "%s.key", name);
		(void)snprintf(public, room, "%s.pub", name);
		status = check_free(secret, err);
	}
	if (!status)
		status = check_free(public, err);
	if (!status)
		status = generate(out, paths, comment, passphrase, err);
	free(secret);
	free(public);
	return status;
}
