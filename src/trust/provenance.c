/* SPDX-License-Identifier: Apache-2.0 */
/* trust/provenance.c - what a merge's receipt, and a report, say as in-toto predicates
 *
 *	receipt   SLSA provenance, version 1: how the merge was made. What the user chose (adapters,
 *		  weights, options) is external; what the arithmetic is, internal; base files and
 *		  adapters are what it depended on; the receipt itself is named by its digest.
 *	report	  a predicate of our own: what was verified, with all its numbers. SLSA and in-toto
 *		  have none for a numerical comparison.
 *
 * 1. No time, host or path enters: the same inputs give the same statement.
 * 2. Values are copied as they are written in the receipt, so that no number is rounded. */
#include <stdlib.h>
#include <string.h>

#include "base/digest.h"
#include "base/error.h"
#include "base/json.h"
#include "trust/trust.h"

/* ---- pieces */

/* "key": VALUE as the receipt has it (null where it has none). */
static enum lora_status copy_value(struct lora_json_writer *w, const char *key,
				   const struct lora_json *value, struct lora_error *err)
{
	char *text = NULL;
	size_t size;
	enum lora_status status = LORA_OK;

	if (value)
		status = lora__json_canonical(value, &text, &size, err);
	lora_json_key(w, key);
	if (text)
		lora__json_raw(w, text);
	else
		lora_json_null(w);
	free(text);
	return status;
}

static const char *member(const struct lora_json *json, const char *key)
{
	return lora__json_string(lora__json_get(json, key));
}

/* {"digest": {ALGORITHM: HEX}, "name": NAME} */
static void write_dependency(struct lora_json_writer *w, const char *name, const char *algorithm,
			     const char *hex)
{
	lora_json_begin_object(w);
	lora_json_key(w, "digest");
	lora_json_begin_object(w);
	lora_json_key(w, algorithm);
	lora_json_string(w, hex);
	lora_json_end_object(w);
	lora_json_key(w, "name");
	lora_json_string(w, name);
	lora_json_end_object(w);
}

/* ---- the receipt */

static void write_dependencies(struct lora_json_writer *w, const struct lora_json *receipt)
{
	const struct lora_json *base = lora__json_get(receipt, "base"), *at;

	lora_json_begin_array(w);
	write_dependency(w, "base", LORA_DIGEST_ROOT, member(base, "root"));
	for (at = lora__json_first(lora__json_get(base, "files")); at; at = lora__json_next(at))
		write_dependency(w, member(at, "name"), LORA_DIGEST_FILE, member(at, "sha256"));
	at = lora__json_first(lora__json_get(receipt, "adapters"));
	for (; at; at = lora__json_next(at))
		write_dependency(w, member(at, "name"), LORA_DIGEST_ROOT, member(at, "root"));
	lora_json_end_array(w);
}

static enum lora_status write_definition(struct lora_json_writer *w,
					 const struct lora_json *receipt, struct lora_error *err)
{
	enum lora_status status;

	lora_json_begin_object(w);
	lora_json_key(w, "buildType");
	lora_json_string(w, LORA_MERGE_BUILD_TYPE);
	lora_json_key(w, "externalParameters");
	lora_json_begin_object(w);
	status = copy_value(w, "adapters", lora__json_get(receipt, "adapters"), err);
	lora_json_key(w, "operation");
	lora_json_string(w, "merge");
	if (!status)
		status = copy_value(w, "options", lora__json_get(receipt, "options"), err);
	lora_json_end_object(w);
	lora_json_key(w, "internalParameters");
	lora_json_begin_object(w);
	if (!status)
		status = copy_value(w, "arithmetic", lora__json_get(receipt, "arithmetic"), err);
	lora_json_end_object(w);
	lora_json_key(w, "resolvedDependencies");
	write_dependencies(w, receipt);
	lora_json_end_object(w);
	return status;
}

static enum lora_status write_provenance(struct lora_json_writer *w, const char *text,
					 const struct lora_json *receipt, struct lora_error *err)
{
	struct lora_sha256 digest;
	char hex[LORA_SHA256_HEX];
	enum lora_status status;

	lora__sha256(text, strlen(text), &digest);
	lora__sha256_hex(&digest, hex);
	lora_json_begin_object(w);
	lora_json_key(w, "buildDefinition");
	status = write_definition(w, receipt, err);
	lora_json_key(w, "runDetails");
	lora_json_begin_object(w);
	lora_json_key(w, "builder");
	lora_json_begin_object(w);
	lora_json_key(w, "id");
	lora_json_string(w, "urn:loractl:builder:1");
	lora_json_key(w, "version");
	lora_json_begin_object(w);
	if (!status)
		status = copy_value(w, "loractl", lora__json_get(receipt, "version"), err);
	lora_json_end_object(w);
	lora_json_end_object(w);
	lora_json_key(w, "byproducts");
	lora_json_begin_array(w);
	write_dependency(w, "loractl-receipt.json", LORA_DIGEST_FILE, hex);
	lora_json_end_array(w);
	lora_json_end_object(w);
	lora_json_end_object(w);
	return status;
}

/* The merged files, and their root. malloc'd; names are the receipt's. */
static enum lora_status find_subjects(struct lora_subject **out, size_t *count,
				      const struct lora_json *merged, struct lora_error *err)
{
	const struct lora_json *files = lora__json_get(merged, "files"), *at;
	const char *root = member(merged, "root");
	struct lora_subject *subjects = calloc(lora__json_count(files) + 1, sizeof(*subjects));
	bool good = root && lora__json_count(files) > 0;
	size_t n = 0;

	*out = subjects;
	*count = 0;
	if (!subjects)
		return lora__fail_memory(err);
	for (at = lora__json_first(files); at && good; at = lora__json_next(at), n++) {
		const char *name = member(at, "name"), *hex = member(at, "sha256");

		subjects[n] = (struct lora_subject){name, LORA_DIGEST_FILE, {{0}}};
		good = name && hex && lora__sha256_parse(hex, &subjects[n].digest);
	}
	subjects[n] = (struct lora_subject){"merged", LORA_DIGEST_ROOT, {{0}}};
	if (!good || !lora__sha256_parse(root, &subjects[n++].digest))
		return lora__fail(err, LORA_INPUT,
				  "the receipt names no merged files: was it a dry "
				  "run?");
	*count = n;
	return LORA_OK;
}

static enum lora_status parse(struct lora_json **out, const char *text, const char *schema,
			      struct lora_error *err)
{
	enum lora_status status = lora__json_parse(out, text, strlen(text), err);
	const char *found = status ? NULL : member(*out, "schema");

	if (!status && (!found || strcmp(found, schema) != 0))
		status = lora__fail(err, LORA_INPUT, "it is not of the schema %s", schema);
	return status;
}

enum lora_status lora_attest_receipt(char **envelope, const char *receipt, const char *file,
				     const struct lora_secret_key *key, struct lora_error *err)
{
	struct lora_json_writer *w = lora__json_writer_minimal();
	struct lora_subject *subjects = NULL;
	struct lora_json *json = NULL;
	const char *predicate;
	size_t count, size;
	enum lora_status status =
	    w ? parse(&json, receipt, "loractl.receipt/1", err) : lora__fail_memory(err);

	*envelope = NULL;
	if (!status)
		status = find_subjects(&subjects, &count, lora__json_get(json, "merged"), err);
	if (!status && file && count != 2)
		status = lora__fail(err, LORA_USAGE, "it describes more than one file");
	if (!status && file)
		subjects[0].name = file;
	if (!status)
		status = write_provenance(w, receipt, json, err);
	if (!status)
		status = lora_json_writer_text(w, &predicate, &size, err);
	if (!status)
		status = lora_attest(envelope, subjects, count, LORA_PREDICATE_PROVENANCE,
				     predicate, key, err);
	lora_json_writer_free(w);
	lora__json_free(json);
	free(subjects);
	return lora__context(err, status, "the receipt");
}

/* ---- the report */

enum lora_status lora_attest_report(char **envelope, const char *report,
				    const struct lora_subject *subjects, size_t count,
				    const struct lora_secret_key *key, struct lora_error *err)
{
	struct lora_json *json = NULL;
	enum lora_status status = parse(&json, report, "loractl.verify/1", err);

	*envelope = NULL;
	lora__json_free(json);
	if (!status)
		status = lora_attest(envelope, subjects, count, LORA_PREDICATE_VERIFICATION, report,
				     key, err);
	return lora__context(err, status, "the report");
}
