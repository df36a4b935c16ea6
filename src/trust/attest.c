/* SPDX-License-Identifier: Apache-2.0 */
/* trust/attest.c - in-toto statements: who says what about which files
 *
 * {"_type":"https://in-toto.io/Statement/v1","predicate":{...},"predicateType":URI,
 *  "subject":[{"digest":{"sha256":HEX},"name":TEXT},...]}
 *
 * in an envelope. The subjects say what it is about, by digest; the predicate is what is said.
 *
 * Invariants
 * (1) A statement is made once, as canonical JSON, and its bytes are signed; nobody serialises it
 *     again.
 * (2) Only statements of that type come out of lora_attestation_open(), with at least one subject,
 *     each with a digest that we know.
 * Decisions
 *     A subject that is a root, not a file, has its digest under "loractlRoot1": calling it sha256
 *     would be a lie about some file.
 *
 * Tested by tests/interop/attest.py, tests/fuzz/fuzz_trust.c
 */
#include <stdlib.h>
#include <string.h>

#include "base/digest.h"
#include "base/error.h"
#include "base/json.h"
#include "trust/envelope.h"

#define STATEMENT_TYPE "https://in-toto.io/Statement/v1"
#define SUBJECTS       ((size_t)1 << 16)

/* ---- making */

/* The predicate as canonical JSON, malloc'd. */
static enum lora_status canonical_object(char **out, const char *text, struct lora_error *err)
{
	struct lora_json *json = NULL;
	size_t size;
	enum lora_status status = lora__json_parse(&json, text, strlen(text), err);

	if (!status && lora__json_type(json) != LORA_JSON_OBJECT)
		status = lora__fail(err, LORA_INPUT, "the predicate is no JSON object");
	if (!status)
		status = lora__json_canonical(json, out, &size, err);
	lora__json_free(json);
	return status;
}

static void write_subject(struct lora_json_writer *w, const struct lora_subject *subject)
{
	lora_json_begin_object(w);
	lora_json_key(w, "digest");
	lora_json_begin_object(w);
	lora_json_key(w, subject->algorithm);
	lora_json_sha256(w, &subject->digest);
	lora_json_end_object(w);
	lora_json_key(w, "name");
	lora_json_string(w, subject->name);
	lora_json_end_object(w);
}

enum lora_status lora_attest(char **envelope, const struct lora_subject *subjects, size_t count,
			     const char *type, const char *predicate,
			     const struct lora_secret_key *key, struct lora_error *err)
{
	struct lora_json_writer *w = lora__json_writer_minimal();
	const char *statement;
	char *canonical = NULL;
	size_t size;
	enum lora_status status = w ? lora__sodium(err) : lora__fail_memory(err);

	*envelope = NULL;
	if (!status && (count == 0 || count > SUBJECTS))
		status =
		    lora__fail(err, LORA_USAGE, "a statement is about 1 to %zu subjects", SUBJECTS);
	if (!status)
		status = canonical_object(&canonical, predicate, err);
	if (status)
		goto out;
	lora_json_begin_object(w);
	lora_json_key(w, "_type");
	lora_json_string(w, STATEMENT_TYPE);
	lora_json_key(w, "predicate");
	lora__json_raw(w, canonical);
	lora_json_key(w, "predicateType");
	lora_json_string(w, type);
	lora_json_key(w, "subject");
	lora_json_begin_array(w);
	for (size_t i = 0; i < count; i++)
		write_subject(w, &subjects[i]);
	lora_json_end_array(w);
	lora_json_end_object(w);
	status = lora_json_writer_text(w, &statement, &size, err);
	if (!status)
		status = lora__envelope_seal(envelope, statement, size, key, err);
out:
	lora_json_writer_free(w);
	free(canonical);
	return status;
}

enum lora_status lora_attest_write(const char *path, const char *envelope, bool replace,
				   struct lora_error *err)
{
	struct lora_output *output = NULL;
	int fd;
	enum lora_status status = lora__output_begin(&output, path, false, replace, err);

	if (!status)
		status = lora__output_file(output, NULL, 0, &fd, err);
	if (!status)
		status = lora__write_at(fd, path, 0, envelope, strlen(envelope), err);
	if (!status)
		status = lora__output_commit(output, err);
	lora__output_free(output);
	return status;
}

/* ---- reading */

struct lora_attestation {
	struct lora_arena arena;
	struct lora_payload payload;
	const char *type;
	struct lora_subject *subjects;
	size_t count;
};

static enum lora_status read_subject(struct lora_attestation *attestation,
				     const struct lora_json *json, struct lora_error *err)
{
	static const char *const algorithms[] = {LORA_DIGEST_FILE, LORA_DIGEST_ROOT};
	struct lora_subject *subject = &attestation->subjects[attestation->count];
	const struct lora_json *digests = lora__json_get(json, "digest");
	const char *name = lora__json_string(lora__json_get(json, "name"));

	for (size_t i = 0; i < 2 && !subject->algorithm; i++) {
		const char *hex = lora__json_string(lora__json_get(digests, algorithms[i]));

		if (hex && lora__sha256_parse(hex, &subject->digest))
			subject->algorithm = algorithms[i];
	}
	if (!name || !subject->algorithm)
		return lora__fail(err, LORA_INPUT,
				  "subject %zu has no name, or no digest that is "
				  "known (" LORA_DIGEST_FILE ", " LORA_DIGEST_ROOT ")",
				  attestation->count + 1);
	subject->name = lora__arena_copy(&attestation->arena, name, strlen(name));
	attestation->count++;
	return subject->name ? LORA_OK : lora__fail_memory(err);
}

/* The payload, whose signature is right. (2) */
static enum lora_status read_statement(struct lora_attestation *attestation, struct lora_error *err)
{
	struct lora_json *json = NULL;
	const struct lora_json *subjects, *at;
	const char *type, *predicate;
	size_t count;
	enum lora_status status =
	    lora__json_parse(&json, attestation->payload.text, attestation->payload.size, err);

	if (status)
		return lora__context(err, status, "the payload");
	type = lora__json_string(lora__json_get(json, "_type"));
	predicate = lora__json_string(lora__json_get(json, "predicateType"));
	subjects = lora__json_get(json, "subject");
	count = lora__json_count(subjects);
	if (!type || strcmp(type, STATEMENT_TYPE) != 0 || !predicate || !subjects ||
	    lora__json_type(subjects) != LORA_JSON_ARRAY || count == 0 || count > SUBJECTS)
		status = lora__fail(err, LORA_INPUT,
				    "the payload is no in-toto statement, version 1, "
				    "about 1 to %zu subjects",
				    SUBJECTS);
	if (!status) {
		attestation->type =
		    lora__arena_copy(&attestation->arena, predicate, strlen(predicate));
		attestation->subjects =
		    lora__arena_array(&attestation->arena, count, sizeof(struct lora_subject));
		if (!attestation->type || !attestation->subjects)
			status = lora__fail_memory(err);
	}
	for (at = status ? NULL : lora__json_first(subjects); at && !status;
	     at = lora__json_next(at))
		status = read_subject(attestation, at, err);
	lora__json_free(json);
	return status;
}

enum lora_status lora_attestation_open(struct lora_attestation **out, const char *envelope,
				       size_t size, const struct lora_public_key *keys,
				       size_t count, struct lora_error *err)
{
	struct lora_attestation *attestation = calloc(1, sizeof(*attestation));
	enum lora_status status = attestation ? LORA_OK : lora__fail_memory(err);

	*out = NULL;
	if (!status)
		status =
		    lora__envelope_open(&attestation->payload, envelope, size, keys, count, err);
	if (!status)
		status = read_statement(attestation, err);
	if (status)
		lora_attestation_close(attestation);
	else
		*out = attestation;
	return status;
}

void lora_attestation_close(struct lora_attestation *attestation)
{
	if (!attestation)
		return;
	lora__arena_fini(&attestation->arena);
	free(attestation->payload.text);
	free(attestation);
}

const char *lora_attestation_type(const struct lora_attestation *attestation)
{
	return attestation->type;
}

const char *lora_attestation_statement(const struct lora_attestation *attestation)
{
	return attestation->payload.text;
}

size_t lora_attestation_signer(const struct lora_attestation *attestation)
{
	return attestation->payload.signer;
}

size_t lora_attestation_subject_count(const struct lora_attestation *attestation)
{
	return attestation->count;
}

const struct lora_subject *lora_attestation_subject(const struct lora_attestation *attestation,
						    size_t i)
{
	return i < attestation->count ? &attestation->subjects[i] : NULL;
}
