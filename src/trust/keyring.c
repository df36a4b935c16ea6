/* SPDX-License-Identifier: Apache-2.0 */
/* trust/keyring.c - whom the user trusts: for which names, until when, and whom never again
 *
 * keyring.json, canonical JSON; loractl-keyring(5) is its definition:
 *
 * {"keys":[{"key":BASE64,"principal":TEXT|null,"revoked":BOOL,"scopes":[GLOB,...],
 *           "until":TIME|null},...],"schema":"loractl.keyring/1"}
 *
 * Invariants
 * (1) A key is known by all of its bytes; its number alone identifies nothing.
 * (2) A revocation is for ever: no command takes it back, and removing the key keeps it.
 * (3) A member that is not known is refused: it might be a restriction.
 *
 * Tested by tests/cli/trust.sh, tests/unit/test_policy.c, tests/fuzz/fuzz_trust.c
 */
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "base/json.h"
#include "trust/trust.h"

#define NAME	       "keyring.json"
#define SCHEMA	       "loractl.keyring/1"
#define PRINCIPAL_SIZE 200 /* bytes */
#define SCOPE_SIZE     500
#define SCOPES	       1000

/* ---- in memory */

static enum lora_status add(struct lora_keyring *keyring, const struct lora_trusted_key *key,
			    struct lora_error *err)
{
	if (keyring->count == keyring->capacity) {
		size_t capacity = keyring->capacity ? keyring->capacity * 2 : 8;
		struct lora_trusted_key *grown =
		    realloc(keyring->keys, capacity * sizeof(*keyring->keys));

		if (!grown)
			return lora__fail_memory(err);
		keyring->keys = grown;
		keyring->capacity = capacity;
	}
	keyring->keys[keyring->count++] = *key;
	return LORA_OK;
}

struct lora_trusted_key *lora__keyring_find(const struct lora_keyring *keyring,
					    const struct lora_public_key *key)
{
	for (size_t i = 0; i < keyring->count; i++)
		if (lora__public_equal(&keyring->keys[i].key, key))
			return &keyring->keys[i];
	return NULL;
}

static bool is_word(const char *text, size_t limit)
{
	size_t size = strlen(text);

	return size > 0 && lora__comment_is_plain(text, size, limit) && !strchr(text, '\t');
}

/* ---- text */

static enum lora_status parse_scopes(struct lora_keyring *keyring, const struct lora_json *json,
				     struct lora_trusted_key *out, struct lora_error *err)
{
	size_t count = lora__json_count(json);
	const char **scopes;

	if (!json || lora__json_type(json) != LORA_JSON_ARRAY || count > SCOPES)
		return lora__fail(err, LORA_INPUT, "its scopes are no list of at most %d", SCOPES);
	scopes = lora__arena_array(&keyring->arena, count + 1, sizeof(*scopes));
	if (!scopes)
		return lora__fail_memory(err);
	for (json = lora__json_first(json); json; json = lora__json_next(json)) {
		const char *text = lora__json_string(json);

		if (!text || !is_word(text, SCOPE_SIZE))
			return lora__fail(err, LORA_INPUT, "a scope is no plain text");
		scopes[out->scope_count] = lora__arena_copy(&keyring->arena, text, strlen(text));
		if (!scopes[out->scope_count++])
			return lora__fail_memory(err);
	}
	out->scopes = scopes;
	return LORA_OK;
}

static enum lora_status parse_key(struct lora_keyring *keyring, const struct lora_json *json,
				  struct lora_error *err)
{
	const struct lora_json *principal = lora__json_get(json, "principal"),
			       *until = lora__json_get(json, "until");
	const char *base64 = lora__json_string(lora__json_get(json, "key")),
		   *name = lora__json_string(principal), *time = lora__json_string(until);
	struct lora_trusted_key key = {.has_until = time != NULL};
	enum lora_status status;

	if (!base64 || !lora__public_decode(&key.key, base64))
		return lora__fail(err, LORA_INPUT, "it has no public key");
	if (lora__json_count(json) != 5 || !principal || !until ||
	    !lora__json_bool(lora__json_get(json, "revoked"), &key.revoked) ||
	    (name ? !is_word(name, PRINCIPAL_SIZE)
		  : lora__json_type(principal) != LORA_JSON_NULL) ||
	    (time ? !lora__time_parse(time, &key.until) : lora__json_type(until) != LORA_JSON_NULL))
		return lora__fail(err, LORA_INPUT,
				  "it is not {\"key\", \"principal\", \"revoked\", \"scopes\", "
				  "\"until\"}");
	if (lora__keyring_find(keyring, &key.key))
		return lora__fail(err, LORA_INPUT, "its key stands there twice");
	lora_public_key_id(&key.key, key.id);
	if (name && !(key.principal = lora__arena_copy(&keyring->arena, name, strlen(name))))
		return lora__fail_memory(err);
	status = parse_scopes(keyring, lora__json_get(json, "scopes"), &key, err);
	return status ? status : add(keyring, &key, err);
}

enum lora_status lora__keyring_parse(struct lora_keyring *keyring, const char *text, size_t size,
				     struct lora_error *err)
{
	struct lora_json *json = NULL;
	const struct lora_json *keys, *at;
	const char *schema;
	size_t number = 1;
	enum lora_status status = lora__json_parse(&json, text, size, err);

	if (status)
		return status;
	keys = lora__json_get(json, "keys");
	schema = lora__json_string(lora__json_get(json, "schema"));
	if (!schema || strcmp(schema, SCHEMA) != 0 || lora__json_count(json) != 2 || !keys ||
	    lora__json_type(keys) != LORA_JSON_ARRAY)
		status = lora__fail(err, LORA_INPUT, "it is no keyring of the schema " SCHEMA);
	for (at = status ? NULL : lora__json_first(keys); at && !status;
	     at = lora__json_next(at), number++) {
		status = parse_key(keyring, at, err);
		lora__context(err, status, "entry %zu", number);
	}
	lora__json_free(json);
	return status;
}

static void write_key(struct lora_json_writer *w, const struct lora_trusted_key *key)
{
	char text[LORA_TIME_TEXT], base64[LORA_KEY_TEXT];

	lora_public_key_text(&key->key, base64);
	lora_json_begin_object(w);
	lora_json_key(w, "key");
	lora_json_string(w, base64);
	lora_json_key(w, "principal");
	lora_json_string(w, key->principal);
	lora_json_key(w, "revoked");
	lora_json_bool(w, key->revoked);
	lora_json_key(w, "scopes");
	lora_json_begin_array(w);
	for (size_t i = 0; i < key->scope_count; i++)
		lora_json_string(w, key->scopes[i]);
	lora_json_end_array(w);
	lora_json_key(w, "until");
	lora__time_text(key->until, text);
	lora_json_string(w, key->has_until ? text : NULL);
	lora_json_end_object(w);
}

static int by_bytes(const void *a, const void *b)
{
	return memcmp(&((const struct lora_trusted_key *)a)->key,
		      &((const struct lora_trusted_key *)b)->key, sizeof(struct lora_public_key));
}

enum lora_status lora__keyring_text(const struct lora_keyring *keyring, char **text, size_t *size,
				    struct lora_error *err)
{
	struct lora_json_writer *w = lora__json_writer_minimal();
	enum lora_status status = w ? LORA_OK : lora__fail_memory(err);
	const char *borrowed;

	*text = NULL;
	if (keyring->count)
		qsort(keyring->keys, keyring->count, sizeof(*keyring->keys), by_bytes);
	lora_json_begin_object(w);
	lora_json_key(w, "keys");
	lora_json_begin_array(w);
	for (size_t i = 0; i < keyring->count; i++)
		write_key(w, &keyring->keys[i]);
	lora_json_end_array(w);
	lora_json_key(w, "schema");
	lora_json_string(w, SCHEMA);
	lora_json_end_object(w);
	if (!status)
		status = lora_json_writer_text(w, &borrowed, size, err);
	if (!status && !(*text = strdup(borrowed)))
		status = lora__fail_memory(err);
	lora_json_writer_free(w);
	return status;
}

/* ---- on the disk */

enum lora_status lora_keyring_open(struct lora_keyring **out, struct lora_error *err)
{
	struct lora_keyring *keyring = calloc(1, sizeof(*keyring));
	char *text = NULL;
	size_t size;
	enum lora_status status = keyring ? lora__sodium(err) : lora__fail_memory(err);

	*out = NULL;
	if (!status)
		status = lora__home_read(LORA_HOME_CONFIG, NAME, &text, &size, err);
	if (!status && text) {
		status = lora__keyring_parse(keyring, text, size, err);
		lora__context(err, status, "the keyring " NAME);
	}
	free(text);
	if (status)
		lora_keyring_close(keyring);
	else
		*out = keyring;
	return status;
}

void lora_keyring_close(struct lora_keyring *keyring)
{
	if (!keyring)
		return;
	lora__arena_fini(&keyring->arena);
	free(keyring->keys);
	free(keyring);
}

size_t lora_keyring_count(const struct lora_keyring *keyring)
{
	return keyring->count;
}

const struct lora_trusted_key *lora_keyring_key(const struct lora_keyring *keyring, size_t i)
{
	return i < keyring->count ? &keyring->keys[i] : NULL;
}

/* ---- changes */

/* What is to be changed, and how. */
struct change {
	const char *path;
	struct lora_trusted_key key;
	enum lora_status (*apply)(struct lora_keyring *keyring, const struct change *change,
				  struct lora_error *err);
};

/* The key that `path` means: a .pub file; else, if nothing is called so, the id of one that is in
 * the keyring. */
static enum lora_status find_key(struct lora_keyring *keyring, const char *path,
				 struct lora_public_key *out, struct lora_error *err)
{
	const struct lora_trusted_key *found = NULL;
	enum lora_path_kind kind;
	enum lora_status status = lora__path_kind(path, &kind, err);

	if (status)
		return status;
	if (kind != LORA_PATH_ABSENT)
		return lora_public_key_read(out, path, err);
	for (size_t i = 0; i < keyring->count; i++) {
		if (strcmp(keyring->keys[i].id, path) != 0)
			continue;
		if (found)
			return lora__fail(err, LORA_INPUT,
					  "two keys have the id '%s': give the .pub file", path);
		found = &keyring->keys[i];
	}
	if (!found)
		return lora__fail(err, LORA_INPUT,
				  "'%s' is no file, and no id of a key in the keyring: give a .pub "
				  "file",
				  lora__escape(path));
	*out = found->key;
	return LORA_OK;
}

static enum lora_status change_keyring(struct change *change, struct lora_error *err)
{
	struct lora_keyring *keyring = NULL;
	char *text = NULL;
	size_t size;
	int lock;
	enum lora_status status = lora__home_lock(LORA_HOME_CONFIG, &lock, err);

	if (!status)
		status = lora_keyring_open(&keyring, err);
	if (!status)
		status = find_key(keyring, change->path, &change->key.key, err);
	if (!status) {
		lora_public_key_id(&change->key.key, change->key.id);
		status = change->apply(keyring, change, err);
	}
	if (!status)
		status = lora__keyring_text(keyring, &text, &size, err);
	if (!status)
		status = lora__home_write(LORA_HOME_CONFIG, NAME, text, size, err);
	lora_keyring_close(keyring);
	lora__home_unlock(lock);
	free(text);
	return status;
}

static enum lora_status apply_add(struct lora_keyring *keyring, const struct change *change,
				  struct lora_error *err)
{
	struct lora_trusted_key *there = lora__keyring_find(keyring, &change->key.key);

	if (there && there->revoked)
		return lora__fail(
		    err, LORA_NO,
		    "key %s is revoked, which is for ever: its owner has to make a new one",
		    there->id);
	if (there)
		*there = change->key;
	return there ? LORA_OK : add(keyring, &change->key, err);
}

static enum lora_status apply_remove(struct lora_keyring *keyring, const struct change *change,
				     struct lora_error *err)
{
	struct lora_trusted_key *there = lora__keyring_find(keyring, &change->key.key);

	if (!there || !there->principal)
		return lora__fail(err, LORA_INPUT, "key %s is not in the keyring", change->key.id);
	if (there->revoked) /* (2) */
		*there = (struct lora_trusted_key){.key = there->key, .revoked = true};
	else
		*there = keyring->keys[--keyring->count];
	return LORA_OK;
}

static enum lora_status apply_revoke(struct lora_keyring *keyring, const struct change *change,
				     struct lora_error *err)
{
	struct lora_trusted_key *there = lora__keyring_find(keyring, &change->key.key), revoked;

	if (there) {
		there->revoked = true;
		return LORA_OK;
	}
	revoked = (struct lora_trusted_key){.key = change->key.key, .revoked = true};
	return add(keyring, &revoked, err);
}

enum lora_status lora_keyring_add(const char *path, const char *principal,
				  const char *const *scopes, size_t scope_count, const char *until,
				  struct lora_error *err)
{
	static const char *const every[] = {"*"};
	struct change change = {path,
				{.principal = principal,
				 .scopes = scope_count ? scopes : every,
				 .scope_count = scope_count ? scope_count : 1,
				 .has_until = until != NULL},
				apply_add};

	if (!is_word(principal, PRINCIPAL_SIZE))
		return lora__fail(err, LORA_USAGE,
				  "'%s' cannot be a principal: give a name of at "
				  "most %d bytes in one line",
				  lora__escape(principal), PRINCIPAL_SIZE);
	if (scope_count > SCOPES)
		return lora__fail(err, LORA_USAGE, "more than %d scopes", SCOPES);
	for (size_t i = 0; i < scope_count; i++)
		if (!is_word(scopes[i], SCOPE_SIZE))
			return lora__fail(err, LORA_USAGE,
					  "'%s' cannot be a scope: give a pattern "
					  "such as 'org/*'",
					  lora__escape(scopes[i]));
	if (until && !lora__time_parse(until, &change.key.until))
		return lora__fail(err, LORA_USAGE,
				  "'%s' is no date: write 2027-01-31 or 2027-01-31T12:00:00Z",
				  lora__escape(until));
	return change_keyring(&change, err);
}

enum lora_status lora_keyring_remove(const char *path, struct lora_error *err)
{
	struct change change = {path, {.revoked = false}, apply_remove};

	return change_keyring(&change, err);
}

enum lora_status lora_keyring_revoke(const char *path, struct lora_error *err)
{
	struct change change = {path, {.revoked = false}, apply_revoke};

	return change_keyring(&change, err);
}
