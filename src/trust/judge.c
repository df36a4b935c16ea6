/* SPDX-License-Identifier: Apache-2.0 */
/* trust/judge.c - does this signature count?
 *
 *	the signature names a key number -> every key of the user's that has it -> is the signature
 *	right by one of them? -> revoked? expired? for this name? -> lock file, state -> verdict
 *
 * Invariants
 * (1) Keys come from the user alone: from the keyring, or the one that was named. What an artifact
 *     says about itself (key number, comment, name) is believed after the signature was right, and
 *     key numbers are only hints: an artifact may name any.
 * (2) "No" is a line in the verdict; a failure of the call means that nothing could be judged.
 *     `passed` becomes true in one place, when everything was asked and no line was written.
 * (3) A revoked key counts for nothing, whenever it signed and however it was named.
 * (4) A scope has to cover the name that was signed, and the name that the file or directory has
 *     here: whoever holds a key for one name can then neither sign another nor have his file
 *     called so.
 * (5) Validity is judged by our clock, not by a time in the signature: a thief chooses that.
 */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/error.h"
#include "base/watch.h"
#include "trust/trust.h"

/* ---- the trial */

char *lora__path_called(const char *path)
{
	size_t end = strlen(path), start;
	char *whole = NULL, *part;

	while (end > 1 && path[end - 1] == '/')
		end--;
	for (start = end; start > 0 && path[start - 1] != '/';)
		start--;
	if (path[start] != '.' && path[start] != '/')
		return strndup(path + start, end - start);
	whole = realpath(path, NULL);
	part = whole ? strdup(strrchr(whole, '/') + 1) : strndup(path + start, end - start);
	free(whole);
	return part;
}

static enum lora_status set_up(struct lora_trial *trial, const char *path, struct lora_error *err)
{
	char *called = lora__path_called(path);

	if (called)
		trial->called = lora__arena_copy(&trial->arena, called, strlen(called));
	free(called);
	trial->path = lora__arena_copy(&trial->arena, path, strlen(path));
	if (!trial->called || !trial->path)
		return lora__fail_memory(err);
	trial->verdict.name = trial->called;
	if (trial->options->key) {
		enum lora_status status =
		    lora_public_key_read(&trial->only, trial->options->key, err);

		if (status)
			return status;
	}
	return lora_keyring_open(&trial->keyring, err);
}

enum lora_status lora__trial_new(struct lora_trial **out, const char *path,
				 const struct lora_verify_options *options,
				 const struct lora_observer *observer, struct lora_error *err)
{
	static const struct lora_verify_options none = LORA_VERIFY_OPTIONS_INIT;
	struct lora_trial *trial = calloc(1, sizeof(*trial));
	enum lora_status status = trial ? lora__sodium(err) : lora__fail_memory(err);

	*out = NULL;
	if (!trial)
		return status;
	trial->options = options ? options : &none;
	trial->observer = observer;
	trial->now = trial->options->now ? trial->options->now : (int64_t)time(NULL);
	if (!status)
		status = set_up(trial, path, err);
	if (status)
		lora__trial_free(trial);
	else
		*out = trial;
	return status;
}

void lora__trial_free(struct lora_trial *trial)
{
	if (!trial)
		return;
	lora_keyring_close(trial->keyring);
	lora__arena_fini(&trial->arena);
	free(trial->ancestors);
	free(trial->lines);
	free(trial);
}

void lora_verdict_free(struct lora_verdict *verdict)
{
	lora__trial_free((struct lora_trial *)verdict); /* its first member */
}

enum lora_status lora__trial_no(struct lora_trial *trial, struct lora_error *err,
				const char *format, ...)
{
	size_t count = trial->verdict.problem_count;
	char text[LORA_ERROR_SIZE], *line;
	va_list arguments;

	if (count == trial->capacity) {
		size_t capacity = trial->capacity ? trial->capacity * 2 : 4;
		const char **grown = realloc(trial->lines, capacity * sizeof(*trial->lines));

		if (!grown)
			return lora__fail_memory(err);
		trial->lines = grown;
		trial->capacity = capacity;
		trial->verdict.problems = grown;
	}
	va_start(arguments, format);
	(void)vsnprintf(text, sizeof(text), format, arguments);
	va_end(arguments);
	line = lora__arena_copy(&trial->arena, text, strlen(text));
	if (!line)
		return lora__fail_memory(err);
	trial->lines[count] = line;
	trial->verdict.problem_count = count + 1;
	return LORA_OK;
}

/* ---- names */

/* The last part of the trusted comment that begins with `field`; NULL if none does. */
static char *signed_name(struct lora_trial *trial, const char *field)
{
	const char *at = trial->verdict.comment, *found = NULL;

	for (; at; at = strchr(at, '\t'), at = at ? at + 1 : NULL)
		if (strncmp(at, field, strlen(field)) == 0)
			found = at + strlen(field);
	return found ? lora__arena_copy(&trial->arena, found, strcspn(found, "\t")) : NULL;
}

static bool covers(const struct lora_trusted_key *key, const char *name)
{
	for (size_t i = 0; i < key->scope_count; i++)
		if (lora__scope_covers(key->scopes[i], name))
			return true;
	return false;
}

/* (4) */
static enum lora_status check_scope(struct lora_trial *trial, const struct lora_trusted_key *key,
				    const char *field, struct lora_error *err)
{
	const char *names[2] = {trial->verdict.name, field ? trial->called : NULL};

	for (size_t i = 0; i < 2 && names[i]; i++)
		if (!covers(key, names[i]))
			return lora__trial_no(
			    trial, err, "key %s of '%s' is not trusted for the name '%s'", key->id,
			    lora__escape(key->principal), lora__escape(names[i]));
	return LORA_OK;
}

enum lora_status lora__trial_scope(struct lora_trial *trial, struct lora_error *err)
{
	const struct lora_trusted_key *known = lora__keyring_find(trial->keyring, &trial->key);

	if (trial->options->key || !known)
		return LORA_OK;
	return check_scope(trial, known, NULL, err);
}

/* ---- keys */

/* What is wrong with a key of the user's, whatever it signed; false, and a line, if something is.
 * (3) (5) */
static enum lora_status check_key(struct lora_trial *trial, const struct lora_public_key *key,
				  struct lora_error *err)
{
	const struct lora_trusted_key *known = lora__keyring_find(trial->keyring, key);
	char id[LORA_KEY_ID], text[LORA_TIME_TEXT];

	lora_public_key_id(key, id);
	if (known && known->revoked)
		return lora__trial_no(trial, err, "key %s is revoked: nothing it signed counts",
				      id);
	if (trial->options->key)
		return lora__public_equal(key, &trial->only)
			   ? LORA_OK
			   : lora__trial_no(trial, err, "key %s is not the one of '%s'", id,
					    lora__escape(trial->options->key));
	if (!known)
		return lora__trial_no(
		    trial, err, "key %s is not in the keyring: loractl trust add its .pub", id);
	lora__time_text(known->until, text);
	if (known->has_until && known->until <= trial->now)
		return lora__trial_no(trial, err, "key %s of '%s' was trusted until %s", id,
				      lora__escape(known->principal), text);
	return LORA_OK;
}

/* Remembers who signed. */
static enum lora_status accept(struct lora_trial *trial, const struct lora_public_key *key,
			       struct lora_error *err)
{
	const struct lora_trusted_key *known = lora__keyring_find(trial->keyring, key);

	trial->key = *key;
	trial->accepted = true;
	if (!known || !known->principal)
		return LORA_OK;
	trial->verdict.principal =
	    lora__arena_copy(&trial->arena, known->principal, strlen(known->principal));
	return trial->verdict.principal ? LORA_OK : lora__fail_memory(err);
}

static enum lora_status set_id(struct lora_trial *trial, const uint8_t number[8],
			       struct lora_error *err)
{
	struct lora_public_key key;
	char id[LORA_KEY_ID];

	memcpy(key.number, number, sizeof(key.number));
	lora_public_key_id(&key, id);
	trial->verdict.key_id = lora__arena_copy(&trial->arena, id, strlen(id));
	return trial->verdict.key_id ? LORA_OK : lora__fail_memory(err);
}

enum lora_status lora__trial_key(struct lora_trial *trial, const struct lora_public_key *key,
				 struct lora_error *err)
{
	enum lora_status status = set_id(trial, key->number, err);

	if (!status)
		status = check_key(trial, key, err);
	if (status || trial->verdict.problem_count)
		return status;
	return accept(trial, key, err);
}

/* ---- signatures */

/* The i-th key that the user has under that number; NULL behind the last. */
static const struct lora_public_key *candidate(const struct lora_trial *trial,
					       const uint8_t number[8], size_t i)
{
	const struct lora_keyring *keyring = trial->keyring;

	if (trial->options->key)
		return i == 0 && memcmp(trial->only.number, number, 8) == 0 ? &trial->only : NULL;
	for (size_t k = 0; k < keyring->count; k++)
		if (memcmp(keyring->keys[k].key.number, number, 8) == 0 && i-- == 0)
			return &keyring->keys[k].key;
	return NULL;
}

static enum lora_status no_candidate(struct lora_trial *trial, struct lora_error *err)
{
	char id[LORA_KEY_ID];

	if (!trial->options->key)
		return lora__trial_no(
		    trial, err,
		    "signed by key %s, which is not in the keyring: if it should be trusted, "
		    "loractl trust add its .pub",
		    trial->verdict.key_id);
	lora_public_key_id(&trial->only, id);
	return lora__trial_no(trial, err, "signed by key %s, not by %s ('%s')",
			      trial->verdict.key_id, id, lora__escape(trial->options->key));
}

/* Which candidate's signature it is; *signer NULL, and a line, if it is nobody's. */
static enum lora_status find_signer(struct lora_trial *trial, const struct lora_minisig *signature,
				    const struct lora_message *message,
				    const struct lora_public_key **signer, struct lora_error *err)
{
	enum lora_match match = LORA_MATCH_NOT_CONTENT, worst = LORA_MATCH_NOT_CONTENT;
	uint8_t hash[LORA_HASH_SIZE];
	struct lora_sha256 digest;
	const struct lora_public_key *key;
	enum lora_status status = lora__message_hash(message, hash, &digest, trial->observer, err);

	*signer = NULL;
	for (size_t i = 0; !status && !*signer && (key = candidate(trial, signature->number, i));
	     i++) {
		status = lora__message_check(&match, signature, key, message, hash, err);
		if (!status && match == LORA_MATCH)
			*signer = key;
		else if (match == LORA_MATCH_NOT_COMMENT)
			worst = match;
	}
	if (status)
		return status;
	trial->verdict.digest = *signer ? digest : (struct lora_sha256){{0}};
	if (*signer)
		return LORA_OK;
	return lora__trial_no(trial, err,
			      worst == LORA_MATCH_NOT_COMMENT
				  ? "the trusted comment was changed after key %s signed"
				  : "the signature is not right: this is not what key %s signed",
			      trial->verdict.key_id);
}

/* The signature is right: does its key count, for this name? */
static enum lora_status judge_signer(struct lora_trial *trial, const struct lora_minisig *signature,
				     const struct lora_public_key *key, const char *field,
				     struct lora_error *err)
{
	const struct lora_trusted_key *known = lora__keyring_find(trial->keyring, key);
	size_t before = trial->verdict.problem_count;
	const char *name;
	enum lora_status status;

	trial->verdict.comment =
	    lora__arena_copy(&trial->arena, signature->comment, signature->comment_size);
	if (!trial->verdict.comment)
		return lora__fail_memory(err);
	name = field ? signed_name(trial, field) : NULL;
	if (name)
		trial->verdict.name = name;
	status = check_key(trial, key, err);
	if (!status && !trial->options->key && known && known->principal)
		status = check_scope(trial, known, field, err);
	if (status || trial->verdict.problem_count != before)
		return status;
	if (name && strcmp(name, trial->called) != 0)
		lora__note(trial->observer, LORA_NOTE_WARNING,
			   "'%s' was signed under the name '%s'", lora__escape(trial->path),
			   lora__escape(name));
	return accept(trial, key, err);
}

enum lora_status lora__trial_signature(struct lora_trial *trial, const char *text, size_t size,
				       const struct lora_message *message, const char *field,
				       struct lora_error *err)
{
	const struct lora_public_key *signer = NULL;
	struct lora_minisig signature;
	enum lora_status status = lora__minisig_parse(&signature, text, size, err);

	if (!status)
		status = set_id(trial, signature.number, err);
	if (!status && !candidate(trial, signature.number, 0))
		return no_candidate(trial, err);
	if (!status)
		status = find_signer(trial, &signature, message, &signer, err);
	if (!status && signer)
		status = judge_signer(trial, &signature, signer, field, err);
	return status;
}

/* ---- the end */

static enum lora_status give(struct lora_trial *trial, struct lora_verdict **out,
			     struct lora_error *err)
{
	struct lora_verdict *verdict = &trial->verdict;

	verdict->passed = trial->accepted && verdict->problem_count == 0; /* (2) */
	*out = verdict;
	trial->options = NULL;
	trial->observer = NULL;
	if (verdict->passed)
		return LORA_OK;
	if (verdict->problem_count > 1)
		return lora__fail(err, LORA_NO, "'%s' is not to be trusted: %s (and %zu more)",
				  lora__escape(trial->path), verdict->problems[0],
				  verdict->problem_count - 1);
	return lora__fail(err, LORA_NO, "'%s' is not to be trusted: %s", lora__escape(trial->path),
			  verdict->problem_count ? verdict->problems[0] : "nothing vouches for it");
}

enum lora_status lora__trial_end_take(struct lora_trial *trial, enum lora_status status,
				      struct lora_verdict **out, struct lora_error *err)
{
	bool good = !status && trial->accepted && !trial->verdict.problem_count;

	*out = NULL;
	if (good)
		status = lora__trial_lock(trial, err);
	if (good && !status)
		status = lora__trial_state(trial, err);
	if (status) {
		lora__trial_free(trial);
		return status;
	}
	if (good && !trial->verdict.problem_count)
		lora__trial_remember(trial);
	return give(trial, out, err);
}
