/* SPDX-License-Identifier: Apache-2.0 */
/* trust/pins.c - which version of what was reviewed (loractl.lock), or was seen last (state)
 *
 * JSON with sorted keys; loractl-keyring(5) is its definition:
 *
 * {"pins":[{"base":HEX|null,"file":TEXT|null,"key":BASE64,"manifest":HEX,"name":TEXT,
 *           "version":N|null},...],"schema":SCHEMA}
 *
 * The lock file is written for people and their version control: indented, an entry a name. The
 * state file has the same entries, one for each name and key. A member that is not known is
 * refused: it might be a restriction.
 *
 * Tested by tests/cli/trust_lock.sh, tests/fuzz/fuzz_trust.c
 */
#include <stdlib.h>
#include <string.h>

#include "base/digest.h"
#include "base/error.h"
#include "base/json.h"
#include "trust/trust.h"

#define NAME_SIZE 512 /* bytes */

void lora__pins_fini(struct lora_pins *pins)
{
	lora__arena_fini(&pins->arena);
	free(pins->pins);
	*pins = (struct lora_pins){0};
}

static bool copy(struct lora_arena *arena, const char **text)
{
	if (*text)
		*text = lora__arena_copy(arena, *text, strlen(*text));
	return *text != NULL;
}

struct lora_pin *lora__pins_find(const struct lora_pins *pins, const char *name,
				 const struct lora_public_key *key)
{
	for (size_t i = 0; i < pins->count; i++)
		if (strcmp(pins->pins[i].name, name) == 0 &&
		    (!pins->by_key || lora__public_equal(&pins->pins[i].key, key)))
			return &pins->pins[i];
	return NULL;
}

enum lora_status lora__pins_set(struct lora_pins *pins, const struct lora_pin *pin,
				struct lora_error *err)
{
	struct lora_pin own = *pin, *place = lora__pins_find(pins, pin->name, &pin->key);

	if (!copy(&pins->arena, &own.name) || (own.file && !copy(&pins->arena, &own.file)))
		return lora__fail_memory(err);
	if (!place && pins->count == pins->capacity) {
		size_t capacity = pins->capacity ? pins->capacity * 2 : 8;
		struct lora_pin *grown = realloc(pins->pins, capacity * sizeof(*pins->pins));

		if (!grown)
			return lora__fail_memory(err);
		pins->pins = grown;
		pins->capacity = capacity;
	}
	if (!place)
		place = &pins->pins[pins->count++];
	*place = own;
	return LORA_OK;
}

static bool is_null_or(const struct lora_json *json, bool good)
{
	return json && (good || lora__json_type(json) == LORA_JSON_NULL);
}

static enum lora_status parse_pin(struct lora_pins *pins, const struct lora_json *json,
				  struct lora_error *err)
{
	const struct lora_json *base = lora__json_get(json, "base"),
			       *version = lora__json_get(json, "version"),
			       *file = lora__json_get(json, "file");
	const char *key = lora__json_string(lora__json_get(json, "key")),
		   *manifest = lora__json_string(lora__json_get(json, "manifest")),
		   *root = lora__json_string(base);
	struct lora_pin pin = {.name = lora__json_string(lora__json_get(json, "name")),
			       .file = lora__json_string(file)};
	size_t before = pins->count;
	enum lora_status status;

	pin.has_base = root && lora__sha256_parse(root, &pin.base);
	pin.has_version = version && lora__json_u64(version, &pin.version);
	if (lora__json_count(json) != 6 || !pin.name || strlen(pin.name) > NAME_SIZE || !key ||
	    !lora__public_decode(&pin.key, key) || !manifest ||
	    !lora__sha256_parse(manifest, &pin.manifest) || !is_null_or(base, pin.has_base) ||
	    !is_null_or(version, pin.has_version) || !is_null_or(file, pin.file != NULL))
		return lora__fail(err, LORA_INPUT,
				  "it is not {\"base\", \"file\", \"key\", \"manifest\", \"name\", "
				  "\"version\"}");
	status = lora__pins_set(pins, &pin, err);
	if (!status && pins->count == before)
		status = lora__fail(err, LORA_INPUT, "the name '%s' stands there twice",
				    lora__escape(pin.name));
	return status;
}

enum lora_status lora__pins_parse(struct lora_pins *pins, const char *schema, const char *text,
				  size_t size, struct lora_error *err)
{
	struct lora_json *json = NULL;
	const struct lora_json *list, *at;
	const char *found;
	size_t number = 1;
	enum lora_status status = lora__json_parse(&json, text, size, err);

	if (status)
		return status;
	list = lora__json_get(json, "pins");
	found = lora__json_string(lora__json_get(json, "schema"));
	if (!found || strcmp(found, schema) != 0 || lora__json_count(json) != 2 || !list ||
	    lora__json_type(list) != LORA_JSON_ARRAY)
		status = lora__fail(err, LORA_INPUT, "it is not of the schema %s", schema);
	for (at = status ? NULL : lora__json_first(list); at && !status;
	     at = lora__json_next(at), number++) {
		status = parse_pin(pins, at, err);
		lora__context(err, status, "entry %zu", number);
	}
	lora__json_free(json);
	return status;
}

static void write_pin(struct lora_json_writer *w, const struct lora_pin *pin)
{
	char base64[LORA_KEY_TEXT];

	lora_public_key_text(&pin->key, base64);
	lora_json_begin_object(w);
	lora_json_key(w, "base");
	if (pin->has_base)
		lora_json_sha256(w, &pin->base);
	else
		lora_json_null(w);
	lora_json_key(w, "file");
	lora_json_string(w, pin->file);
	lora_json_key(w, "key");
	lora_json_string(w, base64);
	lora_json_key(w, "manifest");
	lora_json_sha256(w, &pin->manifest);
	lora_json_key(w, "name");
	lora_json_string(w, pin->name);
	lora_json_key(w, "version");
	if (pin->has_version)
		lora_json_uint(w, pin->version);
	else
		lora_json_null(w);
	lora_json_end_object(w);
}

static int by_name(const void *a, const void *b)
{
	const struct lora_pin *x = a, *y = b;
	int order = strcmp(x->name, y->name);

	return order ? order : memcmp(&x->key, &y->key, sizeof(x->key));
}

enum lora_status lora__pins_text(const struct lora_pins *pins, const char *schema, char **text,
				 size_t *size, struct lora_error *err)
{
	struct lora_json_writer *w = lora_json_writer_new(LORA_JSON_PRETTY);
	enum lora_status status = w ? LORA_OK : lora__fail_memory(err);
	const char *borrowed;

	*text = NULL;
	if (pins->count)
		qsort(pins->pins, pins->count, sizeof(*pins->pins), by_name);
	lora_json_begin_object(w);
	lora_json_key(w, "pins");
	lora_json_begin_array(w);
	for (size_t i = 0; i < pins->count; i++)
		write_pin(w, &pins->pins[i]);
	lora_json_end_array(w);
	lora_json_key(w, "schema");
	lora_json_string(w, schema);
	lora_json_end_object(w);
	if (!status)
		status = lora_json_writer_text(w, &borrowed, size, err);
	if (!status && !(*text = strdup(borrowed)))
		status = lora__fail_memory(err);
	lora_json_writer_free(w);
	return status;
}
