/* SPDX-License-Identifier: Apache-2.0 */
/* trust/list_text.c - loractl-files.json: what is signed where a directory is
 *
 * {"files":[{"name":"a/b","sha256":"...","size":1},...],"schema":"loractl.files/1"}
 *
 * as canonical JSON (keys sorted, no white space): the same files give the same bytes.
 *
 * Invariants
 * (1) Names are relative, of plain parts joined by '/', in ascending order of their bytes, so that
 *     none stands twice.
 * (2) Nothing is read of a list before its signature is known to be right; the parser bears
 *     anything all the same.
 * (3) A member that is not known is refused: it might restrict what the list says.
 *
 * Tested by tests/cli/verify_directory.sh, tests/fuzz/fuzz_trust.c
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/digest.h"
#include "base/error.h"
#include "base/json.h"
#include "base/utf8.h"
#include "trust/trust.h"

#define SCHEMA "loractl.files/1"

static bool is_utf8(const char *text)
{
	uint32_t code;

	for (size_t left = strlen(text), n; left > 0; text += n, left -= n) {
		n = lora__utf8_decode(text, left, &code);
		if (n == 0)
			return false;
	}
	return true;
}

static bool is_listable(const char *name)
{
	char part[LORA_ERROR_SIZE];

	for (;; name++) {
		size_t size = strcspn(name, "/");

		if (size >= sizeof(part))
			return false;
		memcpy(part, name, size);
		part[size] = '\0';
		if (!lora__path_is_plain(part))
			return false;
		name += size;
		if (*name == '\0')
			return true;
	}
}

enum lora_status lora__listing_text(const struct lora_listing *listing, char **text, size_t *size,
				    struct lora_error *err)
{
	struct lora_json_writer *w = lora__json_writer_minimal();
	enum lora_status status = LORA_OK;
	const char *borrowed;

	*text = NULL;
	lora_json_begin_object(w);
	lora_json_key(w, "files");
	lora_json_begin_array(w);
	for (size_t i = 0; i < listing->count && !status; i++) {
		const struct lora_listed *file = &listing->files[i];

		if (file->other)
			status =
			    lora__fail(err, LORA_INPUT,
				       "'%s' is %s: only files can be signed: remove it, or put "
				       "a file there",
				       lora__escape(file->name), file->other);
		else if (!is_utf8(file->name) || !is_listable(file->name))
			status = lora__fail(err, LORA_INPUT,
					    "the name '%s' is no plain text in UTF-8: rename it",
					    lora__escape(file->name));
		lora_json_begin_object(w);
		lora_json_key(w, "name");
		lora_json_string(w, file->name);
		lora_json_key(w, "sha256");
		lora_json_sha256(w, &file->digest);
		lora_json_key(w, "size");
		lora_json_uint(w, file->size);
		lora_json_end_object(w);
	}
	lora_json_end_array(w);
	lora_json_key(w, "schema");
	lora_json_string(w, SCHEMA);
	lora_json_end_object(w);
	if (!status)
		status =
		    w ? lora_json_writer_text(w, &borrowed, size, err) : lora__fail_memory(err);
	if (!status && *size > LORA_LIST_LIMIT)
		status = lora__fail(err, LORA_INPUT, "its list of files is larger than %zu bytes",
				    LORA_LIST_LIMIT);
	if (!status && !(*text = strdup(borrowed)))
		status = lora__fail_memory(err);
	lora_json_writer_free(w);
	return status;
}

static enum lora_status parse_file(struct lora_listing *listing, const struct lora_json *json,
				   struct lora_error *err)
{
	const char *name = lora__json_string(lora__json_get(json, "name")),
		   *hex = lora__json_string(lora__json_get(json, "sha256"));
	const char *last = listing->count ? listing->files[listing->count - 1].name : NULL;
	struct lora_sha256 digest;
	uint64_t size;

	if (lora__json_count(json) != 3 || !name || !hex || !lora__sha256_parse(hex, &digest) ||
	    !lora__json_u64(lora__json_get(json, "size"), &size))
		return lora__fail(err, LORA_INPUT,
				  "entry %zu is not {\"name\", \"sha256\", \"size\"}",
				  listing->count + 1);
	if (!is_listable(name))
		return lora__fail(err, LORA_INPUT, "entry %zu: '%s' is no place in the directory",
				  listing->count + 1, lora__escape(name));
	if (last && strcmp(last, name) >= 0)
		return lora__fail(err, LORA_INPUT, "entry %zu: '%s' is out of order",
				  listing->count + 1, lora__escape(name));
	return lora__listing_add(listing, name, size, &digest, NULL, err);
}

enum lora_status lora__listing_parse(struct lora_listing *listing, const char *text, size_t size,
				     struct lora_error *err)
{
	struct lora_json *json = NULL;
	const struct lora_json *files, *at;
	const char *schema;
	enum lora_status status = lora__json_parse(&json, text, size, err);

	if (status)
		return status;
	files = lora__json_get(json, "files");
	schema = lora__json_string(lora__json_get(json, "schema"));
	if (!schema || strcmp(schema, SCHEMA) != 0 || lora__json_count(json) != 2 || !files ||
	    lora__json_type(files) != LORA_JSON_ARRAY)
		status = lora__fail(err, LORA_INPUT, "it is no list of the schema " SCHEMA);
	for (at = status ? NULL : lora__json_first(files); at && !status; at = lora__json_next(at))
		status = parse_file(listing, at, err);
	lora__json_free(json);
	return status;
}

/* ---- differences */

/* What became of a file that both lists have; false if nothing did. */
static bool describe(const struct lora_listed *want, const struct lora_listed *have, char *line,
		     size_t room)
{
	if (have->other)
		(void)snprintf(line, room, "'%s' is %s now", lora__escape(have->name), have->other);
	else if (want->size != have->size)
		(void)snprintf(line, room, "'%s' was changed: %llu bytes, not %llu",
			       lora__escape(have->name), (unsigned long long)have->size,
			       (unsigned long long)want->size);
	else if (!lora__sha256_equal(&want->digest, &have->digest))
		(void)snprintf(line, room, "'%s' was changed", lora__escape(have->name));
	else
		return false;
	return true;
}

enum lora_status lora__listing_compare(const struct lora_listing *want,
				       const struct lora_listing *have, bool partial,
				       enum lora_status (*difference)(void *user, const char *line,
								      struct lora_error *err),
				       void *user, struct lora_error *err)
{
	enum lora_status status = LORA_OK;
	char line[LORA_ERROR_SIZE];

	for (size_t i = 0, j = 0; (i < want->count || j < have->count) && !status;) {
		const struct lora_listed *a = i < want->count ? &want->files[i] : NULL,
					 *b = j < have->count ? &have->files[j] : NULL;
		int order = !a ? 1 : !b ? -1 : strcmp(a->name, b->name);
		bool differs = order != 0 && !(partial && order < 0);

		if (a && b && order == 0)
			differs = describe(a, b, line, sizeof(line));
		else if (a && order < 0)
			(void)snprintf(line, sizeof(line), "'%s' was removed",
				       lora__escape(a->name));
		else if (b)
			(void)snprintf(line, sizeof(line), "'%s' was added%s%s",
				       lora__escape(b->name), b->other ? ": it is " : "",
				       b->other ? b->other : "");
		if (differs)
			status = difference(user, line, err);
		i += order <= 0;
		j += order >= 0;
	}
	return status;
}
