/* SPDX-License-Identifier: Apache-2.0 */
/* formats/containers/lora.c - the frame of a .lora container: superblock, record headers, commits.
 *
 * What it is     an append-only file of records, lora-container(5), which is the definition.
 * Layout
 *	superblock	64 bytes: magic, version, feature masks, SHA-256
 *	record		32 bytes: type, flags, length, 8 bytes of SHA-256; payload; zeros up to 8
 *	commit record	32 + 208 bytes, the only one that says that something exists
 *
 * Invariants
 *	(1) No byte of the three can change without being noticed: all are under a digest, and what
 *	    is reserved is zero. (A later version that gives it a meaning sets a feature bit.)
 *	(2) A commit record carries its own offset, so that a copy of one (a container packed into a
 *	    container) is not mistaken for one.
 *	(3) A length is bounded by its type here, by the file's size in the engine.
 * Traps          A header's digest does not cover the payload: only the commit's `body` does.
 * Tested by      tests/unit/test_lora.c, tests/fuzz/fuzz_lora.c
 */
#include "formats/containers/lora.h"

#include "base/error.h"
#include "formats/containers/lora_bytes.h"

#include <string.h>

#define MAJOR	 1u
#define CRITICAL 1u

const uint8_t lora__magic[8] = {0x89, 'L', 'O', 'R', '\r', '\n', 0x1a, '\n'};

/* --- superblock ------------------------------------------------------------------------------ */

void lora__superblock_emit(uint8_t *out, const struct lora_superblock *block)
{
	struct lora_sha256 digest;

	memset(out, 0, LORA_SUPERBLOCK_SIZE);
	memcpy(out, lora__magic, sizeof(lora__magic));
	lora__put16(out + 8, block->major);
	lora__put16(out + 10, block->minor);
	lora__put32(out + 12, block->incompat);
	lora__put32(out + 16, block->ro_compat);
	lora__put32(out + 20, block->compat);
	lora__sha256(out, 32, &digest);
	memcpy(out + 32, digest.byte, sizeof(digest.byte));
}

enum lora_status lora__superblock_parse(struct lora_superblock *block, const uint8_t *bytes,
					size_t size, struct lora_error *err)
{
	struct lora_sha256 digest;

	if (size < sizeof(lora__magic) || memcmp(bytes, lora__magic, sizeof(lora__magic)) != 0)
		return lora__fail(err, LORA_INPUT,
				  "it is no .lora container: give a file that `loractl pack` made");
	if (size < LORA_SUPERBLOCK_SIZE)
		return lora__fail(err, LORA_INPUT,
				  "it ends inside its first 64 bytes: fetch it again");
	lora__sha256(bytes, 32, &digest);
	if (memcmp(bytes + 32, digest.byte, sizeof(digest.byte)) != 0)
		return lora__fail(err, LORA_INPUT,
				  "its first 64 bytes are damaged: fetch it again");
	*block = (struct lora_superblock){lora__get16(bytes + 8), lora__get16(bytes + 10),
					  lora__get32(bytes + 12), lora__get32(bytes + 16),
					  lora__get32(bytes + 20)};
	if (block->major != MAJOR)
		return lora__fail(err, LORA_INPUT,
				  "it is a container of version %u.%u: this program reads %u.x",
				  block->major, block->minor, MAJOR);
	for (unsigned bit = 0; bit < 32; bit++)
		if (block->incompat >> bit & 1)
			return lora__fail(err, LORA_INPUT,
					  "it needs the feature incompat.%u, which this program "
					  "does not know: use a newer one",
					  bit);
	if (lora__get64(bytes + 24) != 0)
		return lora__fail(err, LORA_INPUT,
				  "bytes 24 to 31 are not zero: it is damaged or badly written");
	return LORA_OK;
}

/* --- records --------------------------------------------------------------------------------- */

/* What is true of each known type, by its number. */
static const struct {
	const char *name;
	bool critical;
	uint64_t min, max; /* bytes of the payload */
} kinds[] = {
    [LORA_RECORD_DATA] = {"DATA", true, 1, UINT64_MAX},
    [LORA_RECORD_INDEX] = {"INDEX", true, 8 + LORA_ENTRY_HEAD + 4, LORA_INDEX_SIZE_MAX},
    [LORA_RECORD_MANIFEST] = {"MANIFEST", true, 1, LORA_MANIFEST_MAX},
    [LORA_RECORD_SIGNATURE] = {"SIGNATURE", false, 33, 32 + LORA_SIGNATURE_MAX},
    [LORA_RECORD_ATTESTATION] = {"ATTESTATION", false, 33, 32 + LORA_ATTESTATION_MAX},
    [LORA_RECORD_COMMIT] = {"COMMIT", true, LORA_COMMIT_BODY, LORA_COMMIT_BODY},
};

static bool is_known(uint16_t type)
{
	return type < sizeof(kinds) / sizeof(*kinds) && kinds[type].name;
}

const char *lora__record_name(uint16_t type)
{
	return is_known(type) ? kinds[type].name : NULL;
}

bool lora__record_is_critical(uint16_t type)
{
	return is_known(type) && kinds[type].critical;
}

unsigned lora__record_padding(uint64_t size)
{
	return (unsigned)(-size & 7);
}

void lora__record_emit(uint8_t *out, uint16_t type, bool critical, uint64_t size)
{
	struct lora_sha256 digest;

	memset(out, 0, LORA_RECORD_HEAD);
	lora__put16(out, type);
	lora__put16(out + 2, critical ? CRITICAL : 0);
	lora__put64(out + 8, size);
	lora__sha256(out, 24, &digest);
	memcpy(out + 24, digest.byte, 8);
}

bool lora__record_parse(struct lora_record *record, const uint8_t *bytes)
{
	uint16_t flags = lora__get16(bytes + 2);
	struct lora_sha256 digest;

	lora__sha256(bytes, 24, &digest);
	if (memcmp(bytes + 24, digest.byte, 8) != 0 || (flags & ~CRITICAL) != 0 ||
	    lora__get32(bytes + 4) != 0 || lora__get64(bytes + 16) != 0)
		return false;
	*record =
	    (struct lora_record){lora__get16(bytes), flags & CRITICAL, lora__get64(bytes + 8)};
	if (!is_known(record->type))
		return true;
	return record->critical == kinds[record->type].critical &&
	       record->size >= kinds[record->type].min && record->size <= kinds[record->type].max;
}

/* --- commits --------------------------------------------------------------------------------- */

/* Where the fields stand in the record, its header included. */
enum {
	AT = 32,
	SEQUENCE = 40,
	BEGIN = 48,
	VERSION = 56,
	MANIFEST_AT = 64,
	MANIFEST_SIZE = 72,
	MANIFEST = 80,
	INDEX_AT = 112,
	INDEX = 120,
	ZERO = 152,
	BODY = 160,
	LINK = 192,
	CHECK = 208,
};

void lora__commit_emit(uint8_t *out, struct lora_commit *commit)
{
	memset(out, 0, LORA_COMMIT_SIZE);
	lora__record_emit(out, LORA_RECORD_COMMIT, true, LORA_COMMIT_BODY);
	lora__put64(out + AT, commit->at);
	lora__put64(out + SEQUENCE, commit->sequence);
	lora__put64(out + BEGIN, commit->begin);
	lora__put64(out + VERSION, commit->version);
	lora__put64(out + MANIFEST_AT, commit->manifest_at);
	lora__put64(out + MANIFEST_SIZE, commit->manifest_size);
	memcpy(out + MANIFEST, commit->manifest.byte, LORA_SHA256_SIZE);
	lora__put64(out + INDEX_AT, commit->index_at);
	memcpy(out + INDEX, commit->index.byte, LORA_SHA256_SIZE);
	memcpy(out + BODY, commit->body.byte, LORA_SHA256_SIZE);
	memcpy(out + LINK, commit->link, sizeof(commit->link));
	lora__sha256(out, CHECK, &commit->check);
	memcpy(out + CHECK, commit->check.byte, LORA_SHA256_SIZE);
}

/* What a group without a version, or without objects, must leave zero; and bounds. */
static bool do_fit(const struct lora_commit *commit)
{
	static const struct lora_sha256 zero;
	bool no_manifest = commit->manifest_at == 0 && commit->manifest_size == 0 &&
			   lora__sha256_equal(&commit->manifest, &zero),
	     no_index = commit->index_at == 0 && lora__sha256_equal(&commit->index, &zero);

	if (commit->version == 0)
		return no_manifest && no_index;
	if (commit->version > LORA_VERSION_MAX || commit->manifest_size == 0 ||
	    commit->manifest_size > LORA_MANIFEST_MAX || commit->manifest_at < commit->begin ||
	    commit->manifest_at >= commit->at)
		return false;
	return no_index || (commit->index_at >= commit->begin && commit->index_at < commit->at);
}

bool lora__commit_parse(struct lora_commit *commit, const uint8_t *bytes, uint64_t at)
{
	struct lora_record record;

	if (!lora__record_parse(&record, bytes) || record.type != LORA_RECORD_COMMIT)
		return false;
	lora__sha256(bytes, CHECK, &commit->check);
	if (memcmp(commit->check.byte, bytes + CHECK, LORA_SHA256_SIZE) != 0 ||
	    lora__get64(bytes + AT) != at)
		return false;
	commit->at = at;
	commit->sequence = lora__get64(bytes + SEQUENCE);
	commit->begin = lora__get64(bytes + BEGIN);
	commit->version = lora__get64(bytes + VERSION);
	commit->manifest_at = lora__get64(bytes + MANIFEST_AT);
	commit->manifest_size = lora__get64(bytes + MANIFEST_SIZE);
	memcpy(commit->manifest.byte, bytes + MANIFEST, LORA_SHA256_SIZE);
	commit->index_at = lora__get64(bytes + INDEX_AT);
	memcpy(commit->index.byte, bytes + INDEX, LORA_SHA256_SIZE);
	memcpy(commit->body.byte, bytes + BODY, LORA_SHA256_SIZE);
	memcpy(commit->link, bytes + LINK, sizeof(commit->link));
	commit->fits = do_fit(commit) && lora__get64(bytes + ZERO) == 0;
	return true;
}
