/* SPDX-License-Identifier: Apache-2.0 */
/* trust/statement.c - a statement before the judge: whose is it, and do the files that it is about
 * stand beside it as it says?
 *
 * The key in question is one of the user's; the keyid in the envelope is not looked at. A subject
 * that is a root has no file: whoever verifies the model compares it. */
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/digest.h"
#include "base/error.h"
#include "trust/envelope.h"

/* All keys that may have signed it, as an array; malloc'd. */
static struct lora_public_key *candidates(const struct lora_trial *trial, size_t *count)
{
	const struct lora_keyring *keyring = trial->keyring;
	struct lora_public_key *keys = calloc(keyring->count + 1, sizeof(*keys));

	*count = 0;
	if (keys && trial->options->key)
		keys[(*count)++] = trial->only;
	for (size_t i = 0; keys && !trial->options->key && i < keyring->count; i++)
		keys[(*count)++] = keyring->keys[i].key;
	return keys;
}

/* A file that the statement is about: relative to the statement's directory, without "..". */
static enum lora_status check_subject(struct lora_trial *trial, int folder, const char *folder_path,
				      const struct lora_subject *subject, struct lora_error *err)
{
	struct lora_file file = LORA_FILE_INIT;
	struct lora_message message = {.file = &file};
	struct lora_sha256 digest;
	bool present;
	enum lora_status status;

	if (!lora__path_is_plain(subject->name))
		return lora__trial_no(trial, err, "its subject '%s' is no file beside it",
				      lora__escape(subject->name));
	status = lora__file_open_at(&file, folder, subject->name, folder_path, &present, err);
	if (!status && !present)
		status = lora__trial_no(trial, err, "its subject '%s' is not there",
					lora__escape(subject->name));
	else if (!status) {
		status = lora__message_hash(&message, NULL, &digest, trial->observer, err);
		if (!status && !lora__sha256_equal(&digest, &subject->digest))
			status = lora__trial_no(trial, err, "its subject '%s' was changed",
						lora__escape(subject->name));
	}
	lora__file_close(&file);
	return status;
}

static enum lora_status check_subjects(struct lora_trial *trial,
				       const struct lora_attestation *statement,
				       struct lora_error *err)
{
	const char *slash = strrchr(trial->path, '/');
	char *path = slash ? strndup(trial->path, (size_t)(slash - trial->path) + 1) : strdup(".");
	int folder = path ? open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC) : -1;
	enum lora_status status = LORA_OK;

	if (!path)
		return lora__fail_memory(err);
	if (folder < 0)
		status = lora__fail_errno(err, "cannot open '%s'", lora__escape(path));
	for (size_t i = 0; i < lora_attestation_subject_count(statement) && !status; i++) {
		const struct lora_subject *subject = lora_attestation_subject(statement, i);

		if (strcmp(subject->algorithm, LORA_DIGEST_FILE) == 0)
			status = check_subject(trial, folder, path, subject, err);
	}
	if (folder >= 0)
		(void)close(folder);
	free(path);
	return status;
}

enum lora_status lora__trial_statement(struct lora_trial *trial, const char *text, size_t size,
				       struct lora_error *err)
{
	struct lora_attestation *statement = NULL;
	struct lora_error own = LORA_ERROR_INIT;
	size_t count;
	struct lora_public_key *keys = candidates(trial, &count);
	enum lora_status status = keys ? LORA_OK : lora__fail_memory(err);

	trial->verdict.kind = "statement";
	if (status)
		return status;
	status = lora_attestation_open(&statement, text, size, keys, count, &own);
	if (status == LORA_NO)
		status = lora__trial_no(trial, err, "%s", own.message);
	else if (status)
		lora__fail(err, status, "%s", own.message);
	else
		status = lora__trial_key(trial, &keys[lora_attestation_signer(statement)], err);
	if (!status && trial->accepted) {
		lora__sha256(text, size, &trial->verdict.digest);
		status = lora__trial_scope(trial, err);
	}
	if (!status && trial->accepted)
		status = check_subjects(trial, statement, err);
	lora_attestation_close(statement);
	free(keys);
	return lora__context(err, status, "'%s'", lora__escape(trial->path));
}
