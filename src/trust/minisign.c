/* SPDX-License-Identifier: Apache-2.0 */
/* trust/minisign.c - the bytes of minisign's files (jedisct1/minisign, version 0.11)
 *
 * Lines that end with LF. Line 1 of each is "untrusted comment: " and anything; line 2 is base64
 * (RFC 4648, padded) of
 *
 * public key  "Ed" number[8] point[32]                                                 42 bytes
 * signature   "ED" or "Ed", number[8] signature[64]                                    74
 * secret key  "Ed", "Sc" or 00 00, "B2" salt[32] operations[8] memory[8] sealed[104]   158
 *
 * A signature goes on with "trusted comment: " TEXT, and base64 of 64 bytes: the global signature,
 * over signature[64] and TEXT. "ED": signed is BLAKE2b-512 of the content; "Ed" (legacy): the
 * content itself. Numbers are little-endian; a key number is shown as %016X of such a number.
 * sealed is number[8] secret[64] check[32], XORed with scrypt(passphrase); check is
 * BLAKE2b-256("Ed" number secret), all zero where there is no passphrase.
 *
 * Invariants
 * (1) A file is at most LORA_MINISIG_LIMIT bytes, before anything is taken for it.
 * (2) base64 is decoded strictly: exact length, right padding, no stray bits, so that a signature
 *     has one spelling.
 * (3) Nothing stands behind the last line.
 * Decisions
 *     CR LF is read as LF (checkouts on Windows), never written. Trusted comments with control
 *     characters (but tabs) or bytes that are no UTF-8 are refused, as minisign 0.12 does.
 *
 * Tested by tests/unit/test_minisign.c, tests/fuzz/fuzz_minisign.c, tests/cli/sign_minisign.sh
 */
#include <stdio.h>
#include <string.h>

#include <sodium.h>

#include "base/error.h"
#include "base/utf8.h"
#include "trust/minisign.h"

#define UNTRUSTED "untrusted comment: "
#define TRUSTED	  "trusted comment: "

#define PUBLIC_SIZE    (2 + 8 + LORA_POINT_SIZE)
#define SIGNATURE_BLOB (2 + 8 + LORA_SIGNATURE_SIZE)
#define SECRET_BLOB    (6 + LORA_SALT_SIZE + 16 + LORA_SEALED_SIZE)

#define BASE64_SIZE(bytes) (((bytes) + 2) / 3 * 4 + 1)

/* ---- lines */

struct lines {
	const char *at;
	size_t left;
};

struct line {
	const char *text;
	size_t size;
};

static bool next_line(struct lines *lines, struct line *line)
{
	const char *end;

	if (lines->left == 0)
		return false;
	end = memchr(lines->at, '\n', lines->left);
	line->text = lines->at;
	line->size = end ? (size_t)(end - lines->at) : lines->left;
	lines->at += line->size + (end != NULL);
	lines->left -= line->size + (end != NULL);
	if (line->size > 0 && line->text[line->size - 1] == '\r')
		line->size--;
	return true;
}

static bool strip(struct line *line, const char *prefix)
{
	size_t size = strlen(prefix);

	if (line->size < size || memcmp(line->text, prefix, size) != 0)
		return false;
	line->text += size;
	line->size -= size;
	return true;
}

static bool decode(const struct line *line, uint8_t *bytes, size_t size)
{
	const char *end = NULL;
	size_t got = 0;

	return sodium_base642bin(bytes, size, line->text, line->size, NULL, &got, &end,
				 sodium_base64_VARIANT_ORIGINAL) == 0 &&
	       got == size && end == line->text + line->size;
}

/* Line 1, and line 2 decoded. */
static enum lora_status parse_head(struct lines *lines, const char *what, uint8_t *bytes,
				   size_t size, struct lora_error *err)
{
	struct line line;

	if (lines->left > LORA_MINISIG_LIMIT)
		return lora__fail(err, LORA_INPUT, "it is no %s: it is larger than %d bytes", what,
				  LORA_MINISIG_LIMIT);
	if (!next_line(lines, &line) || !strip(&line, UNTRUSTED))
		return lora__fail(err, LORA_INPUT,
				  "it is no %s: its first line does not begin with '" UNTRUSTED "'",
				  what);
	if (!next_line(lines, &line) || !decode(&line, bytes, size))
		return lora__fail(err, LORA_INPUT,
				  "it is no %s, or cut off: line 2 is not %zu bytes in base64",
				  what, size);
	return LORA_OK;
}

static enum lora_status expect_end(const struct lines *lines, const char *what,
				   struct lora_error *err)
{
	return lines->left == 0 ? LORA_OK
				: lora__fail(err, LORA_INPUT,
					     "it is no %s: something follows its last line", what);
}

/* ---- parsing */

bool lora__comment_is_plain(const char *comment, size_t size, size_t limit)
{
	uint32_t code;

	if (size > limit)
		return false;
	for (size_t at = 0, n; at < size; at += n) {
		n = lora__utf8_decode(comment + at, size - at, &code);
		if (n == 0 || (code < 0x20 && code != '\t') || (code >= 0x7f && code < 0xa0))
			return false;
	}
	return true;
}

static bool read_public(struct lora_public_key *out, const uint8_t blob[PUBLIC_SIZE])
{
	memcpy(out->number, blob + 2, sizeof(out->number));
	memcpy(out->point, blob + 10, sizeof(out->point));
	return memcmp(blob, "Ed", 2) == 0;
}

enum lora_status lora__public_parse(struct lora_public_key *out, const char *text, size_t size,
				    struct lora_error *err)
{
	struct lines lines = {text, size};
	uint8_t blob[PUBLIC_SIZE];
	enum lora_status status = parse_head(&lines, "public key", blob, sizeof(blob), err);

	if (!status && !read_public(out, blob))
		status = lora__fail(err, LORA_INPUT,
				    "it is no public key of a kind that is known: not Ed25519");
	return status ? status : expect_end(&lines, "public key", err);
}

bool lora__public_decode(struct lora_public_key *out, const char *base64)
{
	struct line line = {base64, strlen(base64)};
	uint8_t blob[PUBLIC_SIZE];

	return decode(&line, blob, sizeof(blob)) && read_public(out, blob);
}

enum lora_status lora__minisig_parse(struct lora_minisig *out, const char *text, size_t size,
				     struct lora_error *err)
{
	struct lines lines = {text, size};
	uint8_t blob[SIGNATURE_BLOB];
	struct line line;
	enum lora_status status = parse_head(&lines, "signature", blob, sizeof(blob), err);

	if (status)
		return status;
	if (blob[0] != 'E' || (blob[1] != 'D' && blob[1] != 'd'))
		return lora__fail(err, LORA_INPUT,
				  "it is no signature of a kind that is known: not Ed25519");
	out->prehashed = blob[1] == 'D';
	memcpy(out->number, blob + 2, sizeof(out->number));
	memcpy(out->content, blob + 10, sizeof(out->content));
	if (!next_line(&lines, &line) || !strip(&line, TRUSTED))
		return lora__fail(err, LORA_INPUT,
				  "the signature is cut off: line 3 does not begin with '" TRUSTED
				  "'");
	if (!lora__comment_is_plain(line.text, line.size, LORA_TRUSTED_LIMIT))
		return lora__fail(err, LORA_INPUT,
				  "the signature's trusted comment is too long, or no plain text");
	out->comment = line.text;
	out->comment_size = line.size;
	if (!next_line(&lines, &line) || !decode(&line, out->global, sizeof(out->global)))
		return lora__fail(err, LORA_INPUT,
				  "the signature is cut off: line 4 is not %d bytes in base64",
				  LORA_SIGNATURE_SIZE);
	return expect_end(&lines, "signature", err);
}

static uint64_t get_number(const uint8_t *at)
{
	uint64_t value = 0;

	for (unsigned i = 8; i-- > 0;)
		value = value << 8 | at[i];
	return value;
}

static void put_number(uint8_t *at, uint64_t value)
{
	for (unsigned i = 0; i < 8; i++)
		at[i] = (uint8_t)(value >> (8 * i));
}

enum lora_status lora__sealed_parse(struct lora_sealed *out, const char *text, size_t size,
				    struct lora_error *err)
{
	static const uint8_t none[2] = {0, 0};
	struct lines lines = {text, size};
	uint8_t blob[SECRET_BLOB], *at = blob + 6;
	enum lora_status status = parse_head(&lines, "secret key", blob, sizeof(blob), err);

	if (status)
		goto out;
	if (memcmp(blob, "Ed", 2) != 0 || memcmp(blob + 4, "B2", 2) != 0 ||
	    (memcmp(blob + 2, "Sc", 2) != 0 && memcmp(blob + 2, none, 2) != 0)) {
		status = lora__fail(err, LORA_INPUT,
				    "it is no secret key of a kind that is known: not Ed25519 with "
				    "scrypt");
		goto out;
	}
	out->encrypted = blob[2] == 'S';
	memcpy(out->salt, at, sizeof(out->salt));
	out->operations = get_number(at + LORA_SALT_SIZE);
	out->memory = get_number(at + LORA_SALT_SIZE + 8);
	memcpy(out->sealed, at + LORA_SALT_SIZE + 16, sizeof(out->sealed));
	status = expect_end(&lines, "secret key", err);
out:
	sodium_memzero(blob, sizeof(blob));
	return status;
}

/* ---- emitting */

/* UNTRUSTED comment, base64. */
static size_t emit_head(char *text, size_t room, const char *comment, const uint8_t *bytes,
			size_t size)
{
	char base64[BASE64_SIZE(SECRET_BLOB)];
	int length;

	sodium_bin2base64(base64, sizeof(base64), bytes, size, sodium_base64_VARIANT_ORIGINAL);
	length = snprintf(text, room, UNTRUSTED "%s\n%s\n", comment, base64);
	sodium_memzero(base64, sizeof(base64));
	return length < 0 ? 0 : (size_t)length;
}

static void write_public(uint8_t blob[PUBLIC_SIZE], const struct lora_public_key *key)
{
	blob[0] = 'E';
	blob[1] = 'd';
	memcpy(blob + 2, key->number, sizeof(key->number));
	memcpy(blob + 10, key->point, sizeof(key->point));
}

void lora_public_key_text(const struct lora_public_key *key, char base64[LORA_KEY_TEXT])
{
	uint8_t blob[PUBLIC_SIZE];

	write_public(blob, key);
	sodium_bin2base64(base64, LORA_KEY_TEXT, blob, sizeof(blob),
			  sodium_base64_VARIANT_ORIGINAL);
}

size_t lora__public_emit(char *text, size_t room, const char *comment,
			 const struct lora_public_key *key)
{
	uint8_t blob[PUBLIC_SIZE];

	write_public(blob, key);
	return emit_head(text, room, comment, blob, sizeof(blob));
}

size_t lora__minisig_emit(char *text, size_t room, const char *untrusted,
			  const struct lora_minisig *signature)
{
	uint8_t blob[SIGNATURE_BLOB];
	char base64[BASE64_SIZE(LORA_SIGNATURE_SIZE)];
	size_t head;
	int rest;

	blob[0] = 'E';
	blob[1] = signature->prehashed ? 'D' : 'd';
	memcpy(blob + 2, signature->number, sizeof(signature->number));
	memcpy(blob + 10, signature->content, sizeof(signature->content));
	head = emit_head(text, room, untrusted, blob, sizeof(blob));
	sodium_bin2base64(base64, sizeof(base64), signature->global, sizeof(signature->global),
			  sodium_base64_VARIANT_ORIGINAL);
	rest = snprintf(text + head, room - head, TRUSTED "%.*s\n%s\n",
			(int)signature->comment_size, signature->comment, base64);
	return rest < 0 ? 0 : head + (size_t)rest;
}

size_t lora__sealed_emit(char *text, size_t room, const char *comment,
			 const struct lora_sealed *key)
{
	uint8_t blob[SECRET_BLOB] = {'E', 'd', 0, 0, 'B', '2'}, *at = blob + 6;
	size_t size;

	if (key->encrypted) {
		blob[2] = 'S';
		blob[3] = 'c';
	}
	memcpy(at, key->salt, sizeof(key->salt));
	put_number(at + LORA_SALT_SIZE, key->operations);
	put_number(at + LORA_SALT_SIZE + 8, key->memory);
	memcpy(at + LORA_SALT_SIZE + 16, key->sealed, sizeof(key->sealed));
	size = emit_head(text, room, comment, blob, sizeof(blob));
	sodium_memzero(blob, sizeof(blob));
	return size;
}

/* ---- keys */

void lora_public_key_id(const struct lora_public_key *key, char id[LORA_KEY_ID])
{
	(void)snprintf(id, LORA_KEY_ID, "%016llX", (unsigned long long)get_number(key->number));
}

bool lora__public_equal(const struct lora_public_key *a, const struct lora_public_key *b)
{
	return memcmp(a->number, b->number, sizeof(a->number)) == 0 &&
	       memcmp(a->point, b->point, sizeof(a->point)) == 0;
}
