/* SPDX-License-Identifier: Apache-2.0 */
/* trust/history.c - is it older than it may be, or of another line?
 *
 * A signature stays right for ever: an old version, or a second line of versions made by somebody
 * who had the key for a while, is signed as well as the newest. Against these stand two memories:
 *
 * loractl.lock  the user's, in version control beside what uses the artifact: name, version,
 *               manifest, key and base root of what was reviewed. It works on a machine that never
 *               saw the artifact.
 * state         ours, per user: the highest version of each name and key that passed here. It can
 *               be lost, so it is the second line only.
 *
 * version < pinned                  older: rollback
 * version = pinned, other manifest  two lines under one name: fork
 * version > pinned                  good if the pinned manifest is among its ancestors; else fork
 * no versions (files, directories)  the digest has to be the pinned one; else substitution
 * other key, other base root        substitution
 * file pinned under another name    substitution: something else that is pinned, moved here
 *
 * Tested by tests/cli/trust_lock.sh, tests/cli/trust_container.sh
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/digest.h"
#include "base/error.h"
#include "base/watch.h"
#include "trust/trust.h"

#define LOCK_NAME    "loractl.lock"
#define LOCK_SCHEMA  "loractl.lock/1"
#define LOCK_LIMIT   ((uint64_t)16 << 20)
#define STATE_NAME   "seen.json"
#define STATE_SCHEMA "loractl.seen/1"

/* ---- one pin */

static bool descends(const struct lora_trial *trial, const struct lora_pin *pin)
{
	for (size_t i = 0; i < trial->ancestor_count; i++)
		if (trial->ancestors[i].version == pin->version)
			return lora__sha256_equal(&trial->ancestors[i].manifest, &pin->manifest);
	return false;
}

/* The version against the one that is remembered. `where` says by whom. */
static enum lora_status compare_version(struct lora_trial *trial, const struct lora_pin *pin,
					const char *where, struct lora_error *err)
{
	const uint64_t version = trial->verdict.version;
	const struct lora_sha256 *digest = &trial->verdict.digest;
	unsigned long long is = version, was = pin->version;

	trial->verdict.rollback = version < pin->version ? LORA_ROLLBACK_OLDER : LORA_ROLLBACK_NONE;
	if (version < pin->version)
		return lora__trial_no(trial, err, "rolled back: version %llu, where %s has %llu",
				      is, where, was);
	if (version == pin->version && !lora__sha256_equal(digest, &pin->manifest))
		return lora__trial_no(trial, err,
				      "forked: another version %llu than the one that "
				      "%s has",
				      is, where);
	if (version > pin->version && !descends(trial, pin))
		return lora__trial_no(trial, err,
				      "forked: version %llu does not descend from the "
				      "version %llu that %s has",
				      is, was, where);
	return LORA_OK;
}

/* What was substituted for what is pinned, if not a version of it. */
static enum lora_status compare_identity(struct lora_trial *trial, const struct lora_pin *pin,
					 struct lora_error *err)
{
	const struct lora_verdict *verdict = &trial->verdict;
	char id[LORA_KEY_ID];

	lora_public_key_id(&pin->key, id);
	if (!lora__public_equal(&pin->key, &trial->key))
		return lora__trial_no(trial, err,
				      "substituted: signed by key %s, and " LOCK_NAME " has %s",
				      verdict->key_id, id);
	if (pin->has_base &&
	    (!trial->has_base || !lora__sha256_equal(&pin->base, &trial->base_root)))
		return lora__trial_no(trial, err,
				      "substituted: it is bound to another base than "
				      "the one in " LOCK_NAME);
	if (pin->has_version != verdict->has_version)
		return lora__trial_no(trial, err, "substituted: " LOCK_NAME " has %s version of it",
				      pin->has_version ? "a" : "no");
	if (!pin->has_version && !lora__sha256_equal(&pin->manifest, &verdict->digest))
		return lora__trial_no(trial, err,
				      "substituted: it is not the one in " LOCK_NAME
				      ", though the key is");
	return LORA_OK;
}

/* ---- the lock file */

static enum lora_status read_lock(struct lora_pins *pins, const char *path, struct lora_error *err)
{
	char *text = NULL;
	size_t size;
	enum lora_status status = lora__file_slurp(path, LOCK_LIMIT, &text, &size, err);

	if (!status) {
		status = lora__pins_parse(pins, LOCK_SCHEMA, text, size, err);
		lora__context(err, status, "lock file '%s'", lora__escape(path));
	}
	free(text);
	return status;
}

/* The pin of what is called so here, if it has another name: something was moved over it. */
static const struct lora_pin *pin_of_file(const struct lora_pins *pins,
					  const struct lora_trial *trial)
{
	for (size_t i = 0; i < pins->count; i++)
		if (pins->pins[i].file && strcmp(pins->pins[i].file, trial->called) == 0 &&
		    strcmp(pins->pins[i].name, trial->verdict.name) != 0)
			return &pins->pins[i];
	return NULL;
}

static enum lora_status compare_lock(struct lora_trial *trial, const struct lora_pins *pins,
				     struct lora_error *err)
{
	const struct lora_verdict *verdict = &trial->verdict;
	const struct lora_pin *pin = lora__pins_find(pins, verdict->name, &trial->key),
			      *moved = pin_of_file(pins, trial);
	enum lora_status status;

	if (moved)
		return lora__trial_no(trial, err,
				      "substituted: its name is '%s', and " LOCK_NAME
				      " has '%s' under this file's name",
				      lora__escape(verdict->name), lora__escape(moved->name));
	if (!pin)
		return lora__trial_no(trial, err,
				      "'%s' is not in " LOCK_NAME
				      ": if it should be, loractl trust lock it",
				      lora__escape(verdict->name));
	status = compare_identity(trial, pin, err);
	if (status || verdict->problem_count || !pin->has_version)
		return status;
	return compare_version(trial, pin, LOCK_NAME, err);
}

enum lora_status lora__trial_lock(struct lora_trial *trial, struct lora_error *err)
{
	struct lora_pins pins = {.by_key = false};
	enum lora_status status;

	if (!trial->options->lock || strcmp(trial->verdict.kind, "key") == 0)
		return LORA_OK;
	status = read_lock(&pins, trial->options->lock, err);
	if (!status)
		status = compare_lock(trial, &pins, err);
	lora__pins_fini(&pins);
	return status;
}

/* ---- the state */

static enum lora_status read_state(struct lora_pins *pins, struct lora_error *err)
{
	char *text = NULL;
	size_t size;
	enum lora_status status = lora__home_read(LORA_HOME_STATE, STATE_NAME, &text, &size, err);

	pins->by_key = true;
	if (!status && text) {
		status = lora__pins_parse(pins, STATE_SCHEMA, text, size, err);
		lora__context(err, status, "the state file " STATE_NAME);
	}
	free(text);
	return status;
}

/* Who asks for an older version by its number gets it, if the lock file has nothing against it. */
enum lora_status lora__trial_state(struct lora_trial *trial, struct lora_error *err)
{
	struct lora_pins pins = {.by_key = true};
	const struct lora_pin *pin;
	enum lora_rollback by_lock = trial->verdict.rollback;
	enum lora_status status;

	if (!trial->verdict.has_version || trial->asked_older)
		return LORA_OK;
	status = read_state(&pins, err);
	pin = status ? NULL : lora__pins_find(&pins, trial->verdict.name, &trial->key);
	if (pin)
		status = compare_version(trial, pin, "what was verified here before", err);
	if (by_lock == LORA_ROLLBACK_OLDER)
		trial->verdict.rollback = by_lock;
	lora__pins_fini(&pins);
	return status;
}

static enum lora_status remember(const struct lora_trial *trial, struct lora_error *err)
{
	struct lora_pin pin = {.name = trial->verdict.name,
			       .key = trial->key,
			       .has_version = true,
			       .has_base = trial->has_base,
			       .version = trial->verdict.version,
			       .manifest = trial->verdict.digest,
			       .base = trial->base_root};
	struct lora_pins pins = {.by_key = true};
	const struct lora_pin *old;
	char *text = NULL;
	size_t size;
	int lock;
	enum lora_status status = lora__home_lock(LORA_HOME_STATE, &lock, err);

	if (!status)
		status = read_state(&pins, err);
	old = status ? NULL : lora__pins_find(&pins, pin.name, &pin.key);
	if (!status && !(old && old->version >= pin.version)) {
		status = lora__pins_set(&pins, &pin, err);
		if (!status)
			status = lora__pins_text(&pins, STATE_SCHEMA, &text, &size, err);
		if (!status)
			status = lora__home_write(LORA_HOME_STATE, STATE_NAME, text, size, err);
	}
	lora__home_unlock(lock);
	lora__pins_fini(&pins);
	free(text);
	return status;
}

void lora__trial_remember(const struct lora_trial *trial)
{
	struct lora_error err = LORA_ERROR_INIT;

	if (trial->verdict.has_version && !trial->asked_older && remember(trial, &err))
		lora__note(trial->observer, LORA_NOTE_WARNING,
			   "what was seen is not remembered: %s", err.message);
}

/* ---- writing a pin */

/* May the pin that is there make place for the one of the trial? Whoever pins has looked: another
 * key, and another content where there are no versions, are only said. */
static enum lora_status compare_old(struct lora_trial *trial, const struct lora_pin *old,
				    struct lora_error *err)
{
	const struct lora_verdict *verdict = &trial->verdict;
	char id[LORA_KEY_ID];

	lora_public_key_id(&old->key, id);
	if (!lora__public_equal(&old->key, &trial->key))
		lora__note(trial->observer, LORA_NOTE_WARNING,
			   "'%s' was pinned to key %s, and is signed by %s now",
			   lora__escape(verdict->name), id, verdict->key_id);
	if (old->has_base &&
	    (!trial->has_base || !lora__sha256_equal(&old->base, &trial->base_root)))
		return lora__trial_no(trial, err,
				      "it is bound to another base than the one that is "
				      "pinned: if that is meant, take its pin out of "
				      "the lock file first");
	if (!old->has_version || !verdict->has_version)
		return LORA_OK;
	return compare_version(trial, old, LOCK_NAME, err);
}

static enum lora_status write_lock(const struct lora_pins *pins, const char *path,
				   struct lora_error *err)
{
	struct lora_output *output = NULL;
	char *text = NULL;
	size_t size;
	int fd;
	enum lora_status status = lora__pins_text(pins, LOCK_SCHEMA, &text, &size, err);

	if (!status)
		status = lora__output_begin(&output, path, false, true, err);
	if (!status)
		status = lora__output_file(output, NULL, 0, &fd, err);
	if (!status)
		status = lora__write_at(fd, path, 0, text, size, err);
	if (!status)
		status = lora__output_commit(output, err);
	lora__output_free(output);
	free(text);
	return status;
}

static enum lora_status pin_it(struct lora_trial *trial, const char *path, struct lora_error *err)
{
	struct lora_pin pin = {.name = trial->verdict.name,
			       .file = trial->called,
			       .key = trial->key,
			       .has_version = trial->verdict.has_version,
			       .has_base = trial->has_base,
			       .version = trial->verdict.version,
			       .manifest = trial->verdict.digest,
			       .base = trial->base_root};
	struct lora_pins pins = {.by_key = false};
	enum lora_path_kind kind;
	const struct lora_pin *old;
	enum lora_status status = lora__path_kind(path, &kind, err);

	if (!status && kind != LORA_PATH_ABSENT)
		status = read_lock(&pins, path, err);
	old = status ? NULL : lora__pins_find(&pins, pin.name, &pin.key);
	if (old)
		status = compare_old(trial, old, err);
	if (!status && !trial->verdict.problem_count)
		status = lora__pins_set(&pins, &pin, err);
	if (!status && !trial->verdict.problem_count)
		status = write_lock(&pins, path, err);
	lora__pins_fini(&pins);
	return status;
}

enum lora_status lora_lock(struct lora_verdict **out, const char *path, const char *lock,
			   const struct lora_verify_options *options,
			   const struct lora_observer *observer, struct lora_error *err)
{
	struct lora_verify_options own = LORA_VERIFY_OPTIONS_INIT;
	struct lora_trial *trial = NULL;
	enum lora_status status;

	*out = NULL;
	if (options)
		own = *options;
	own.lock = NULL; /* it is what is being written */
	status = lora__trial_new(&trial, path, &own, observer, err);
	if (status)
		return status;
	status = lora__verify_path(trial, err);
	if (!status && strcmp(trial->verdict.kind, "key") == 0)
		status = lora__fail(err, LORA_USAGE, "'%s' is a key: loractl trust add it",
				    lora__escape(path));
	if (!status && trial->accepted && !trial->verdict.problem_count)
		status = lora__trial_state(trial, err);
	if (!status && trial->accepted && !trial->verdict.problem_count)
		status = pin_it(trial, lock ? lock : LOCK_NAME, err);
	return lora__trial_end_take(trial, status, out, err);
}
