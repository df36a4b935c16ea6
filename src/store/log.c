/* SPDX-License-Identifier: Apache-2.0 */
/* store/log.c - the history of a container, newest first.
 *
 * Signers are the key ids that stand in signatures: who they are, and whether the signatures are
 * right, is for src/trust/ to say. */
#include "store/engine.h"

#include "base/error.h"

#include <loractl/container.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct lora_log {
	struct lora_store *store;
	struct lora_arena arena;
	const char *name;
	struct lora_log_version *versions;
	size_t count;
};

/* --- key ids --------------------------------------------------------------------------------- */

static int base64_value(char c)
{
	static const char digits[] =
	    "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
	const char *found = c ? strchr(digits, c) : NULL;

	return found ? (int)(found - digits) : -1;
}

/* The key id of a minisign signature: line 2 is base64 of "Ed" or "ED", 8 bytes of key number,
 * little endian, and the signature. False if it does not look like one. */
static bool read_key_id(const char *text, char id[17])
{
	const char *line = strchr(text, '\n');
	uint8_t bytes[12] = {0};
	uint64_t number = 0;

	if (!line)
		return false;
	for (unsigned i = 0; i < 16; i++) {
		int value = base64_value(line[1 + i]);

		if (value < 0)
			return false;
		for (unsigned bit = 0; bit < 6; bit++)
			if (value >> (5 - bit) & 1)
				bytes[(i * 6 + bit) / 8] |= (uint8_t)(0x80 >> (i * 6 + bit) % 8);
	}
	if (bytes[0] != 'E' || (bytes[1] != 'd' && bytes[1] != 'D'))
		return false;
	for (unsigned i = 0; i < 8; i++)
		number |= (uint64_t)bytes[2 + i] << 8 * i;
	snprintf(id, 17, "%016llX", (unsigned long long)number);
	return true;
}

static enum lora_status read_signers(struct lora_log *log, size_t version,
				     struct lora_log_version *out, struct lora_error *err)
{
	size_t count = lora__store_note_count(log->store, version, LORA_RECORD_SIGNATURE);
	struct lora_log_signer *signers =
	    lora__arena_array(&log->arena, count + 1, sizeof(*signers));
	enum lora_status status = signers ? LORA_OK : lora__fail_memory(err);

	out->signers = signers;
	for (size_t i = 0; i < count && !status; i++) {
		char *text = NULL;
		size_t size;

		status = lora__store_note(log->store, version, LORA_RECORD_SIGNATURE, i, &text,
					  &size, err);
		if (!status)
			out->signer_count += read_key_id(text, signers[out->signer_count].key_id);
		free(text);
	}
	return status;
}

/* --- versions -------------------------------------------------------------------------------- */

static enum lora_status read_version(struct lora_log *log, size_t version,
				     struct lora_log_version *out, struct lora_error *err)
{
	const struct lora_version *v = &log->store->versions[version];
	struct lora_snapshot *snapshot = NULL;
	const struct lora_manifest *m;
	enum lora_status status = lora__snapshot_open(&snapshot, log->store, version, err);
	const char *name = NULL;

	if (status)
		return status;
	m = lora__snapshot_manifest(snapshot);
	*out = (struct lora_log_version){.version = m->version,
					 .manifest = v->digest,
					 .has_parent = m->has_parent,
					 .parent = m->parent,
					 .bytes = m->bytes,
					 .stored = v->bytes,
					 .files = m->file_count,
					 .bound = m->bound,
					 .base_root = m->base_root};
	for (size_t i = 0; i < m->part_count; i++)
		out->tensors += m->parts[i].tensor != NULL;
	out->message = lora__arena_copy(&log->arena, m->message, strlen(m->message));
	name = lora__arena_copy(&log->arena, m->name, strlen(m->name));
	out->attestations = lora__store_note_count(log->store, version, LORA_RECORD_ATTESTATION);
	log->name = name; /* the newest one stays */
	lora__snapshot_close(snapshot);
	if (!out->message || !name)
		return lora__fail_memory(err);
	return read_signers(log, version, out, err);
}

enum lora_status lora_log_open(struct lora_log **out, const char *reference,
			       const struct lora_observer *observer, struct lora_error *err)
{
	struct lora_log *log = calloc(1, sizeof(*log));
	enum lora_status status;
	uint64_t number = 0;
	size_t version;
	char *path = NULL;

	*out = NULL;
	if (!log)
		return lora__fail_memory(err);
	status = lora__store_split(reference, &path, &number, err);
	if (!status)
		status = lora__store_open(&log->store, path, observer, err);
	if (!status && (number || log->store->hidden)) /* is it there, and which is the latest? */
		status = lora__store_find(log->store, number, &version, err);
	free(path);
	if (!status) {
		log->count = log->store->version_count;
		log->versions =
		    lora__arena_array(&log->arena, log->count + 1, sizeof(*log->versions));
		status = log->versions ? LORA_OK : lora__fail_memory(err);
	}
	for (size_t i = 0; !status && i < log->count; i++)
		status = read_version(log, i, &log->versions[log->count - 1 - i], err);
	if (status)
		lora_log_close(log);
	else
		*out = log;
	return status;
}

void lora_log_close(struct lora_log *log)
{
	if (!log)
		return;
	lora__store_close(log->store);
	lora__arena_fini(&log->arena);
	free(log);
}

const char *lora_log_name(const struct lora_log *log)
{
	return log->name;
}

uint64_t lora_log_size(const struct lora_log *log)
{
	return log->store->file.size;
}

size_t lora_log_count(const struct lora_log *log)
{
	return log->count;
}

const struct lora_log_version *lora_log_version(const struct lora_log *log, size_t i)
{
	return i < log->count ? &log->versions[i] : NULL;
}
