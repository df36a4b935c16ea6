/* SPDX-License-Identifier: Apache-2.0 */
/* trust/container.c - versions of a container: signed inside it, and judged with their history
 *
 * What is signed is the manifest, byte for byte: it names every file and tensor by digest, the
 * version, its parent and its base, and says nothing about how they are stored. So a signature
 * stays right when the container is rewritten.
 *
 * Invariants
 * (1) A store is opened once; manifest, signatures, content and history are those that its
 *     descriptor holds.
 * (2) What a manifest says is used after a signature over it was right, but for its name, which the
 *     scopes of the signer's key are about.
 * (3) One signature that counts is enough; why the others do not is of interest only if none does.
 * (4) The name is the manifest's, so a scope is about that one alone: what the file is called is
 *     its user's affair.
 * (5) Ancestors are followed by the digests that the manifests have of one another, from the
 *     version in question: its order in the file proves nothing.
 * (6) Every byte of the version is read and compared with its digests, its files' too.
 *
 * Tested by tests/cli/trust_container.sh
 */
#include <stdlib.h>
#include <string.h>

#include <loractl/container.h>

#include "base/digest.h"
#include "base/error.h"
#include "store/store.h"
#include "trust/trust.h"

#define CHUNK ((size_t)1 << 20)

/* ---- what is signed */

static enum lora_status open_version(struct lora_store **store, size_t *version,
				     const char *reference, const struct lora_observer *observer,
				     struct lora_error *err)
{
	uint64_t number = 0;
	char *path = NULL;
	enum lora_status status = lora__store_split(reference, &path, &number, err);

	*store = NULL;
	*version = 0;
	if (!status)
		status = lora__store_open(store, path, observer, err);
	if (!status)
		status = lora__store_find(*store, number, version, err);
	free(path);
	return status;
}

/* Is one of the version's signatures a right one of that key? */
static enum lora_status find_own(bool *found, const struct lora_store *store, size_t version,
				 const struct lora_message *message,
				 const struct lora_public_key *own, struct lora_error *err)
{
	size_t count = lora__store_note_count(store, version, LORA_RECORD_SIGNATURE), size;
	uint8_t hash[LORA_HASH_SIZE];
	enum lora_status status = lora__message_hash(message, hash, NULL, NULL, err);

	*found = false;
	for (size_t i = 0; i < count && !status && !*found; i++) {
		enum lora_match match = LORA_MATCH_NOT_CONTENT;
		struct lora_minisig signature;
		char *text = NULL;

		status =
		    lora__store_note(store, version, LORA_RECORD_SIGNATURE, i, &text, &size, err);
		if (!status && lora__minisig_parse(&signature, text, size, NULL) == LORA_OK &&
		    memcmp(signature.number, own->number, sizeof(own->number)) == 0)
			status = lora__message_check(&match, &signature, own, message, hash, err);
		*found = match == LORA_MATCH;
		free(text);
	}
	return status;
}

enum lora_status lora__container_signable(struct lora_signable *out, const char *reference,
					  const struct lora_public_key *own,
					  const struct lora_observer *observer,
					  struct lora_error *err)
{
	struct lora_snapshot *snapshot = NULL;
	struct lora_store *store = NULL;
	struct lora_message message = {.file = NULL};
	size_t version;
	enum lora_status status = open_version(&store, &version, reference, observer, err);

	*out = (struct lora_signable){.bytes = NULL};
	if (!status)
		status = lora__store_manifest(store, version, &out->bytes, &out->size, err);
	if (!status)
		status = lora__snapshot_open(&snapshot, store, version, err);
	if (!status && !(out->name = strdup(lora__snapshot_manifest(snapshot)->name)))
		status = lora__fail_memory(err);
	if (!status) {
		out->digest = *lora__store_digest(store, version);
		message.data = out->bytes;
		message.size = out->size;
		status = find_own(&out->has_own, store, version, &message, own, err);
	}
	lora__snapshot_close(snapshot);
	lora__store_close(store);
	return status;
}

void lora__signable_fini(struct lora_signable *signable)
{
	free(signable->bytes);
	free(signable->name);
}

enum lora_status lora__container_add(const char *reference, const struct lora_sha256 *manifest,
				     const char *signature, const struct lora_observer *observer,
				     struct lora_error *err)
{
	uint64_t number;
	char *path = NULL;
	enum lora_status status = lora__store_split(reference, &path, &number, err);

	if (!status)
		status = lora__store_add_note(path, manifest, LORA_RECORD_SIGNATURE, signature,
					      strlen(signature), observer, err);
	free(path);
	return status;
}

/* ---- judging */

/* One signature of a version. Anybody may append a record: a malformed one vouches for nothing, and
 * is in nobody's way. */
static enum lora_status judge_one(struct lora_trial *trial, const struct lora_store *store,
				  size_t version, size_t i, const struct lora_message *message,
				  struct lora_error *err)
{
	struct lora_error own = LORA_ERROR_INIT;
	char *text = NULL;
	size_t size;
	enum lora_status status =
	    lora__store_note(store, version, LORA_RECORD_SIGNATURE, i, &text, &size, err);

	if (!status) {
		status = lora__trial_signature(trial, text, size, message, NULL, &own);
		if (status == LORA_INPUT)
			status =
			    lora__trial_no(trial, err, "signature %zu: %s", i + 1, own.message);
		else if (status)
			lora__fail(err, status, "%s", own.message);
	}
	free(text);
	return status;
}

/* Every signature of the version, until one counts. (3) */
static enum lora_status judge_signatures(struct lora_trial *trial, const struct lora_store *store,
					 size_t version, const struct lora_message *message,
					 struct lora_error *err)
{
	size_t count = lora__store_note_count(store, version, LORA_RECORD_SIGNATURE);
	enum lora_status status = LORA_OK;

	for (size_t i = 0; i < count && !status && !trial->accepted; i++)
		status = judge_one(trial, store, version, i, message, err);
	if (trial->accepted)
		trial->verdict.problem_count = 0;
	if (!status && count == 0)
		status =
		    lora__trial_no(trial, err, "it is not signed: version %llu has no signature",
				   (unsigned long long)lora__store_number(store, version));
	return status;
}

/* The parent that a version's manifest names; *has is false for the first. */
static enum lora_status read_parent(const struct lora_store *store, size_t version, bool *has,
				    struct lora_sha256 *parent, struct lora_error *err)
{
	struct lora_manifest manifest = {.name = NULL};
	char *bytes = NULL;
	size_t size;
	enum lora_status status = lora__store_manifest(store, version, &bytes, &size, err);

	if (!status)
		status = lora__manifest_parse(&manifest, bytes, size, err);
	*has = !status && manifest.has_parent;
	*parent = manifest.parent;
	lora__manifest_fini(&manifest);
	free(bytes);
	return status;
}

/* The version, its parent, and so on; the last may be one that is no longer in the file. (5) */
static enum lora_status read_ancestors(struct lora_trial *trial, const struct lora_store *store,
				       size_t version, struct lora_error *err)
{
	struct lora_sha256 parent = *lora__store_digest(store, version);
	enum lora_status status = LORA_OK;
	bool more = true;

	trial->ancestors = calloc(version + 2, sizeof(*trial->ancestors));
	if (!trial->ancestors)
		return lora__fail_memory(err);
	for (size_t at = version + 1; more && !status;) {
		uint64_t number =
		    at > 0 ? lora__store_number(store, at - 1) : lora__store_number(store, 0) - 1;

		trial->ancestors[trial->ancestor_count++] = (struct lora_ancestor){number, parent};
		if (at == 0 || !lora__sha256_equal(lora__store_digest(store, at - 1), &parent))
			break;
		status = read_parent(store, --at, &more, &parent, err);
	}
	return status;
}

/* One file of the version. */
static enum lora_status read_file(struct lora_trial *trial, struct lora_snapshot *snapshot,
				  size_t i, struct lora_hasher *hasher, uint8_t *buffer,
				  struct lora_error *err)
{
	const struct lora_manifest_file *file = &lora__snapshot_manifest(snapshot)->files[i];
	struct lora_error own = LORA_ERROR_INIT;
	struct lora_sha256 digest;
	enum lora_status status = LORA_OK;

	lora__hasher_reset(hasher);
	for (uint64_t done = 0; done < file->size && !status;) {
		size_t n = file->size - done < CHUNK ? (size_t)(file->size - done) : CHUNK;

		status = lora__snapshot_read(snapshot, i, done, buffer, n, &own);
		if (!status)
			lora__hasher_update(hasher, buffer, n);
		done += n;
	}
	lora__hasher_final(hasher, &digest);
	if (status == LORA_INPUT)
		return lora__trial_no(trial, err, "'%s' is damaged: %s", lora__escape(file->name),
				      own.message);
	if (status)
		return lora__fail(err, status, "%s", own.message);
	if (!lora__sha256_equal(&digest, &file->digest))
		return lora__trial_no(trial, err, "'%s' is not the one in the manifest",
				      lora__escape(file->name));
	return LORA_OK;
}

/* (6) */
static enum lora_status read_files(struct lora_trial *trial, struct lora_snapshot *snapshot,
				   struct lora_error *err)
{
	struct lora_hasher *hasher = lora__hasher_new();
	uint8_t *buffer = malloc(CHUNK);
	enum lora_status status = hasher && buffer ? LORA_OK : lora__fail_memory(err);

	for (size_t i = 0; i < lora__snapshot_manifest(snapshot)->file_count && !status; i++)
		status = read_file(trial, snapshot, i, hasher, buffer, err);
	lora__hasher_free(hasher);
	free(buffer);
	return status;
}

static enum lora_status judge(struct lora_trial *trial, const struct lora_store *store,
			      size_t version, bool read_all, struct lora_error *err)
{
	struct lora_snapshot *snapshot = NULL;
	struct lora_message message = {.file = NULL};
	const struct lora_manifest *m;
	char *bytes = NULL;
	enum lora_status status = lora__store_manifest(store, version, &bytes, &message.size, err);

	message.data = bytes;
	if (!status)
		status = lora__snapshot_open(&snapshot, store, version, err);
	if (status)
		goto out;
	m = lora__snapshot_manifest(snapshot);
	trial->verdict.name = lora__arena_copy(&trial->arena, m->name, strlen(m->name));
	status = trial->verdict.name ? judge_signatures(trial, store, version, &message, err)
				     : lora__fail_memory(err);
	if (status || !trial->accepted)
		goto out;
	trial->verdict.has_version = true;
	trial->verdict.version = m->version;
	trial->asked_older = version + 1 < lora__store_count(store);
	trial->has_base = m->bound;
	trial->base_root = m->base_root;
	status = read_ancestors(trial, store, version, err);
	if (!status && read_all)
		status = read_files(trial, snapshot, err);
out:
	lora__snapshot_close(snapshot);
	free(bytes);
	return status;
}

enum lora_status lora__verify_container(struct lora_trial *trial, const struct lora_sha256 *opened,
					struct lora_error *err)
{
	struct lora_store *store = NULL;
	size_t version;
	enum lora_status status = open_version(&store, &version, trial->path, trial->observer, err);

	trial->verdict.kind = "container";
	for (size_t i = 0; opened && !status && i < lora__store_count(store); i++)
		if (lora__sha256_equal(lora__store_digest(store, i), opened))
			version = i;
	if (!status && opened && !lora__sha256_equal(lora__store_digest(store, version), opened))
		status = lora__trial_no(trial, err, "it changed after it was opened");
	else if (!status)
		status = judge(trial, store, version, opened == NULL, err);
	lora__store_close(store);
	return lora__context(err, status, "'%s'", lora__escape(trial->path));
}

/* ---- who signed which version */

/* The signatures of one version, each by itself. */
static enum lora_status list_version(struct lora_trial *trial, const struct lora_store *store,
				     size_t version,
				     void (*signer)(void *user, const struct lora_signer *signer),
				     void *user, struct lora_error *err)
{
	size_t count = lora__store_note_count(store, version, LORA_RECORD_SIGNATURE);
	struct lora_message message = {.file = NULL};
	struct lora_manifest manifest = {.name = NULL};
	char *bytes = NULL;
	enum lora_status status = LORA_OK;

	if (count == 0)
		return LORA_OK;
	status = lora__store_manifest(store, version, &bytes, &message.size, err);
	message.data = bytes;
	if (!status)
		status = lora__manifest_parse(&manifest, bytes, message.size, err);
	for (size_t i = 0; i < count && !status; i++) {
		struct lora_signer one = {.version = lora__store_number(store, version)};

		trial->verdict =
		    (struct lora_verdict){.name = manifest.name, .problems = trial->lines};
		trial->accepted = false;
		status = judge_one(trial, store, version, i, &message, err);
		one.key_id = trial->verdict.key_id;
		one.principal = trial->verdict.principal;
		one.trusted = trial->accepted;
		if (!status && one.key_id)
			signer(user, &one);
	}
	lora__manifest_fini(&manifest);
	free(bytes);
	return status;
}

enum lora_status lora_container_signers(const char *path,
					void (*signer)(void *user,
						       const struct lora_signer *signer),
					void *user, struct lora_error *err)
{
	struct lora_trial *trial = NULL;
	struct lora_store *store = NULL;
	uint64_t number;
	char *own = NULL;
	enum lora_status status = lora__trial_new(&trial, path, NULL, NULL, err);

	if (!status)
		status = lora__store_split(path, &own, &number, err);
	if (!status)
		status = lora__store_open(&store, own, NULL, err);
	for (size_t i = status ? 0 : lora__store_count(store); i-- > 0 && !status;)
		status = list_version(trial, store, i, signer, user, err);
	lora__store_close(store);
	lora__trial_free(trial);
	free(own);
	return status;
}
