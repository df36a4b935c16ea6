/* SPDX-License-Identifier: Apache-2.0 */
/* formats/containers/lora_manifest.c - reading the manifest of a version: lora-container(5)
 *
 * A manifest is what gets signed, so it has one spelling: canonical JSON. That makes a reader small
 * as well. The text is first checked against JSON's grammar (base/json_scan.h); what is left is one
 * pass over it without a tree, which would be thirty times as large as the text.
 *
 * 1. Members ascend strictly by their bytes: none is there twice, and there is nothing to be
 *    sorted. What is not the canonical spelling is refused, also inside members that are ignored.
 * 2. Every name of a file or tensor is proved to be fit for use, every sum is checked.
 * 3. Keys are compared where they stand; only values that are kept are copied.
 */
#include "base/checked.h"
#include "base/error.h"
#include "base/json_scan.h"
#include "base/map.h"
#include "formats/container.h"
#include "formats/containers/lora.h"

#include <stdlib.h>
#include <string.h>

/* A string as it stands in the text, without its quotes. */
struct raw {
	const char *at, *end;
};

struct reader {
	const char *text, *at, *end;
	struct lora_manifest *manifest;
	struct raw crit; /* the array `crit`; empty without one */
	struct lora_error *err;
	enum lora_status status; /* of the first failure */
	unsigned depth;
};

static bool bad(struct reader *r, const char *problem)
{
	if (!r->status)
		r->status = lora__fail(r->err, LORA_INPUT, "manifest: byte %zu: %s",
				       (size_t)(r->at - r->text), problem);
	return false;
}

static bool no_memory(struct reader *r)
{
	r->status = lora__fail_memory(r->err);
	return false;
}

/* --- canonical JSON -------------------------------------------------------------------------- */

static bool take(struct reader *r, char c)
{
	if (r->at == r->end || *r->at != c)
		return false;
	r->at++;
	return true;
}

/* The next byte of a string, unescaped; -1 at its end, -2 for an escape that is not canonical. */
static int next_byte(struct raw *raw)
{
	static const char letters[] = "\"\\bfnrt", meant[] = "\"\\\b\f\n\r\t";
	static const char digits[] = "0123456789abcdef";
	const char *found;
	int code;

	if (raw->at == raw->end)
		return -1;
	if (*raw->at != '\\')
		return (unsigned char)*raw->at++;
	found = strchr(letters, raw->at[1]); /* the grammar has been checked: a letter follows */
	if (found) {
		raw->at += 2;
		return (unsigned char)meant[found - letters];
	}
	if (raw->at[1] != 'u' || raw->end - raw->at < 6 || memcmp(raw->at + 2, "00", 2) != 0)
		return -2;
	found = strchr(digits, raw->at[5]);
	if (!found || (raw->at[4] != '0' && raw->at[4] != '1'))
		return -2;
	code = (raw->at[4] - '0') * 16 + (int)(found - digits);
	if (strchr("\b\f\n\r\t", code)) /* code 0 is refused by the grammar's check */
		return -2;
	raw->at += 6;
	return code;
}

/* Negative, 0 or positive, as strcmp(). */
static int compare(struct raw a, struct raw b)
{
	int x, y;

	do {
		x = next_byte(&a);
		y = next_byte(&b);
	} while (x == y && x >= 0);
	return x - y;
}

static bool is(struct raw raw, const char *text)
{
	return (size_t)(raw.end - raw.at) == strlen(text) &&
	       memcmp(raw.at, text, strlen(text)) == 0;
}

static bool read_raw(struct reader *r, struct raw *raw)
{
	struct raw probe;
	int c;

	if (!take(r, '"'))
		return bad(r, "a string is expected");
	raw->at = r->at;
	while (r->at < r->end && *r->at != '"')
		r->at += *r->at == '\\' ? 2 : 1;
	raw->end = r->at;
	if (!take(r, '"'))
		return bad(r, "a string does not end");
	probe = *raw;
	do
		c = next_byte(&probe);
	while (c >= 0);
	return c == -1 || bad(r, "an escape that is not canonical");
}

/* A copy of at most `limit` bytes. */
static bool read_string(struct reader *r, size_t limit, const char **out)
{
	struct raw raw = {0};
	size_t length = 0;
	char *copy;
	int c;

	if (!read_raw(r, &raw))
		return false;
	if ((size_t)(raw.end - raw.at) > 6 * limit)
		return bad(r, "a string is too long");
	copy = lora__arena_alloc(&r->manifest->arena, (size_t)(raw.end - raw.at) + 1);
	if (!copy)
		return no_memory(r);
	while ((c = next_byte(&raw)) >= 0)
		copy[length++] = (char)c;
	copy[length] = '\0';
	*out = copy;
	return length <= limit || bad(r, "a string is too long");
}

static bool read_digest(struct reader *r, struct lora_sha256 *digest)
{
	char hex[LORA_SHA256_HEX] = "";
	struct raw raw = {0};

	if (!read_raw(r, &raw))
		return false;
	if (raw.end - raw.at == LORA_SHA256_HEX - 1)
		memcpy(hex, raw.at, LORA_SHA256_HEX - 1);
	return lora__sha256_parse(hex, digest) || bad(r, "a digest has 64 hexadecimal digits");
}

static bool read_null(struct reader *r)
{
	if (r->end - r->at < 4 || memcmp(r->at, "null", 4) != 0)
		return false;
	r->at += 4;
	return true;
}

static bool read_digest_or_null(struct reader *r, bool *there, struct lora_sha256 *digest)
{
	*there = !read_null(r);
	return !*there || read_digest(r, digest);
}

/* Plain digits, below `limit`. */
static bool read_number(struct reader *r, uint64_t limit, uint64_t *out)
{
	const char *start = r->at;
	uint64_t value = 0;

	while (r->at < r->end && lora__json_is_digit(*r->at)) {
		if (lora__mul_overflows(value, 10, &value) ||
		    lora__add_overflows(value, (uint64_t)(*r->at - '0'), &value))
			return bad(r, "a number is too large");
		r->at++;
	}
	*out = value;
	if (r->at == start)
		return bad(r, "a number of plain digits is expected");
	return value < limit || bad(r, "a number is too large");
}

/* Opens `open`, or goes on behind a comma; false at `close`, or when something is wrong. */
static bool more(struct reader *r, bool *first, char open, char close)
{
	if (*first) {
		*first = false;
		if (!take(r, open))
			return bad(r,
				   open == '{' ? "an object is expected" : "an array is expected");
		if (++r->depth > LORA_NESTING_MAX)
			return bad(r, "it is nested too deep");
		if (!take(r, close))
			return true;
	} else if (take(r, ',')) {
		return true;
	} else if (!take(r, close)) {
		return bad(r, "it is not canonical JSON");
	}
	r->depth--;
	return false;
}

/* For use in a loop: the next key of an object, in order. `at` begins zeroed. */
struct members {
	bool begun;
	struct raw key;
};

static bool next_member(struct reader *r, struct members *at)
{
	struct raw before = at->key;
	bool first = !at->begun;

	if (r->status || !more(r, &first, '{', '}') || !read_raw(r, &at->key))
		return false;
	if (at->begun && compare(before, at->key) >= 0)
		return bad(r, "members are not in order");
	at->begun = true;
	return take(r, ':') || bad(r, "it is not canonical JSON");
}

static bool next_element(struct reader *r, bool *begun)
{
	bool first = !*begun;

	*begun = true;
	return !r->status && more(r, &first, '[', ']');
}

static bool skip_value(struct reader *r)
{
	static const char *const words[] = {"true", "false", "null"};
	struct members members = {0};
	bool begun = false;
	struct raw raw;
	uint64_t number;
	char c = r->at < r->end ? *r->at : '\0';

	if (c == '{') {
		while (next_member(r, &members))
			skip_value(r);
	} else if (c == '[') {
		while (next_element(r, &begun))
			skip_value(r);
	} else if (c == '"') {
		read_raw(r, &raw);
	} else {
		for (size_t i = 0; i < sizeof(words) / sizeof(*words); i++)
			if ((size_t)(r->end - r->at) >= strlen(words[i]) &&
			    memcmp(r->at, words[i], strlen(words[i])) == 0) {
				r->at += strlen(words[i]);
				return true;
			}
		read_number(r, UINT64_MAX, &number);
	}
	return !r->status;
}

/* Which of `keys` (at most 32, ends with NULL) the key is; one that is not among them is skipped
 * with its value, unless it is critical. *seen collects. Returns -1 at the end. */
static int next_known(struct reader *r, struct members *at, const char *const *keys, unsigned *seen)
{
	while (next_member(r, at)) {
		for (int i = 0; keys[i]; i++)
			if (is(at->key, keys[i])) {
				*seen |= 1u << i;
				return i;
			}
		skip_value(r);
	}
	return -1;
}

/* --- the schema ------------------------------------------------------------------------------ */

void *lora__manifest_room(void *array, size_t count, size_t size)
{
	if (count && count & (count - 1)) /* only at powers of two there is no room left */
		return array;
	return reallocarray(array, count ? count * 2 : 1, size);
}

static bool read_dtype(struct reader *r, struct lora_manifest_part *part)
{
	struct raw raw;

	if (!read_raw(r, &raw))
		return false;
	part->dtype = lora_dtype_find(raw.at, (size_t)(raw.end - raw.at));
	return part->dtype != LORA_DTYPE_NONE || bad(r, "a type that this program does not know");
}

static bool read_shape(struct reader *r, struct lora_manifest_part *part)
{
	uint64_t dims[LORA_MAX_DIMS], *shape;
	bool begun = false;

	while (next_element(r, &begun)) {
		if (part->ndim == LORA_MAX_DIMS)
			return bad(r, "a shape has too many dimensions");
		if (!read_number(r, LORA_SIZE_MAX, &dims[part->ndim]))
			return false;
		part->ndim++;
	}
	if (r->status)
		return false;
	shape = lora__arena_array(&r->manifest->arena, part->ndim + 1, sizeof(*shape));
	if (!shape)
		return no_memory(r);
	if (part->ndim)
		memcpy(shape, dims, part->ndim * sizeof(*shape));
	part->shape = shape;
	return true;
}

static bool shape_fits(const struct lora_manifest_part *part)
{
	uint64_t bits = lora_dtype_bits(part->dtype);

	for (uint32_t i = 0; i < part->ndim; i++)
		if (lora__mul_overflows(bits, part->shape[i], &bits))
			return false;
	return bits == 8 * part->size; /* below 2^51 */
}

static bool read_part(struct reader *r, struct lora_manifest_part *part)
{
	static const char *const keys[] = {"dtype", "sha256", "shape", "size", "tensor", NULL};
	enum { DTYPE = 1, DIGEST = 2, SHAPE = 4, SIZE = 8, TENSOR = 16 };
	struct members members = {0};
	unsigned seen = 0;
	bool good = true;
	int i;

	while (good && (i = next_known(r, &members, keys, &seen)) >= 0)
		good = i == 0	? read_dtype(r, part)
		       : i == 1 ? read_digest(r, &part->digest)
		       : i == 2 ? read_shape(r, part)
		       : i == 3 ? read_number(r, LORA_SIZE_MAX, &part->size)
				: read_string(r, LORA_NAME_LIMIT, &part->tensor);
	if (r->status)
		return false;
	if (seen != (DIGEST | SIZE) && seen != (DTYPE | DIGEST | SHAPE | SIZE | TENSOR))
		return bad(r, "a part lacks a member");
	if (part->size == 0)
		return bad(r, "a part is empty");
	if (part->tensor && (!*part->tensor || !shape_fits(part)))
		return bad(r, "a tensor's name, shape, type and size do not fit");
	return true;
}

static bool read_parts(struct reader *r, struct lora_manifest_file *file, uint64_t *sum)
{
	struct lora_manifest *m = r->manifest;
	struct lora_map names = {0};
	bool begun = false, good = true, present = false;

	file->first = m->part_count;
	while (good && next_element(r, &begun)) {
		struct lora_manifest_part *parts = lora__manifest_room(m->parts, m->part_count,
								       sizeof(*parts)),
					  *part;

		if (!parts) {
			(void)no_memory(r);
			lora__map_fini(&names);
			return false;
		}
		m->parts = parts;
		part = &parts[m->part_count];
		*part = (struct lora_manifest_part){0};
		good = m->part_count < LORA_PARTS_MAX ? read_part(r, part)
						      : bad(r, "it has too many parts");
		if (good && part->tensor) {
			r->status = lora__map_add(&names, part->tensor, strlen(part->tensor), 0,
						  &present, r->err);
			good = !r->status && (!present || bad(r, "a tensor's name is there twice"));
		}
		if (good && (lora__add_overflows(*sum, part->size, sum) || *sum >= LORA_SIZE_MAX))
			good = bad(r, "a file is too large");
		m->part_count += good;
	}
	file->count = m->part_count - file->first;
	lora__map_fini(&names);
	return !r->status;
}

static bool read_file(struct reader *r, struct lora_manifest_file *file)
{
	static const char *const keys[] = {"name", "parts", "sha256", "size", NULL};
	struct members members = {0};
	unsigned seen = 0;
	uint64_t sum = 0;
	bool good = true;
	int i;

	while (good && (i = next_known(r, &members, keys, &seen)) >= 0)
		good = i == 0	? read_string(r, LORA_FILE_NAME_MAX, &file->name)
		       : i == 1 ? read_parts(r, file, &sum)
		       : i == 2 ? read_digest(r, &file->digest)
				: read_number(r, LORA_SIZE_MAX, &file->size);
	if (r->status)
		return false;
	if (seen != 15)
		return bad(r, "a file lacks a member");
	if (!lora__packed_name_ok(file->name))
		return bad(r, "a file's name would lead out of the directory, or is no name");
	return sum == file->size || bad(r, "a file's parts do not have its size");
}

static bool read_files(struct reader *r)
{
	struct lora_manifest *m = r->manifest;
	bool begun = false;

	while (next_element(r, &begun)) {
		struct lora_manifest_file *files =
		    lora__manifest_room(m->files, m->file_count, sizeof(*files));

		if (!files)
			return no_memory(r);
		m->files = files;
		files[m->file_count] = (struct lora_manifest_file){0};
		if (m->file_count == LORA_FILES_MAX)
			return bad(r, "it has too many files");
		if (!read_file(r, &files[m->file_count]))
			return false;
		if (m->file_count && files[m->file_count - 1].name && files[m->file_count].name &&
		    strcmp(files[m->file_count - 1].name, files[m->file_count].name) >= 0)
			return bad(r, "files are not in the order of their names");
		if (lora__add_overflows(m->bytes, files[m->file_count].size, &m->bytes))
			return bad(r, "it is too large");
		m->file_count++;
	}
	return !r->status;
}

static bool read_metadata(struct reader *r)
{
	struct lora_manifest *m = r->manifest;
	struct members members = {0};

	while (next_member(r, &members)) {
		struct lora_manifest_pair *pairs =
		    lora__manifest_room(m->metadata, m->metadata_count, sizeof(*pairs));
		struct raw raw = members.key;
		size_t length = 0;
		char *key;
		int c;

		if (pairs)
			m->metadata = pairs;
		key = lora__arena_alloc(&m->arena, (size_t)(raw.end - raw.at) + 1);
		if (!pairs || !key)
			return no_memory(r);
		if (m->metadata_count == LORA_METADATA_MAX)
			return bad(r, "it has too much metadata");
		while ((c = next_byte(&raw)) >= 0)
			key[length++] = (char)c;
		pairs[m->metadata_count] = (struct lora_manifest_pair){key, NULL};
		if (!read_string(r, LORA_MESSAGE_MAX, &pairs[m->metadata_count].value))
			return false;
		m->metadata_count++;
	}
	return !r->status;
}

/* Names of members that must be understood: none that we know is ever among them. */
static bool read_crit(struct reader *r)
{
	bool begun = false;
	const char *name;

	while (next_element(r, &begun)) {
		if (!read_string(r, LORA_NAME_LIMIT, &name))
			return false;
		r->status = lora__fail(r->err, LORA_INPUT,
				       "manifest: it needs '%s' to be understood, which this "
				       "program does not: use a newer one",
				       lora__escape(name));
	}
	return !r->status;
}

static bool read_schema(struct reader *r)
{
	struct raw raw;

	if (!read_raw(r, &raw))
		return false;
	return is(raw, LORA_MANIFEST_SCHEMA) || bad(r, "its schema is not " LORA_MANIFEST_SCHEMA);
}

static bool read_top(struct reader *r)
{
	static const char *const keys[] = {"base_root", "crit",	   "files",  "message",
					   "metadata",	"name",	   "parent", "root",
					   "schema",	"version", NULL};
	enum { CRIT = 2, ALL = 1023 };
	struct lora_manifest *m = r->manifest;
	struct members members = {0};
	unsigned seen = 0;
	bool good = true;
	int i;

	while (good && (i = next_known(r, &members, keys, &seen)) >= 0)
		good = i == 0	? read_digest_or_null(r, &m->bound, &m->base_root)
		       : i == 1 ? read_crit(r)
		       : i == 2 ? read_files(r)
		       : i == 3 ? read_string(r, LORA_MESSAGE_MAX, &m->message)
		       : i == 4 ? read_metadata(r)
		       : i == 5 ? read_string(r, LORA_ADAPTER_NAME_MAX, &m->name)
		       : i == 6 ? read_digest_or_null(r, &m->has_parent, &m->parent)
		       : i == 7 ? read_digest(r, &m->root)
		       : i == 8 ? read_schema(r)
				: read_number(r, LORA_VERSION_MAX + 1, &m->version);
	if (r->status)
		return false;
	if ((seen | CRIT) != ALL)
		return bad(r, "it lacks a member");
	return r->at == r->end || bad(r, "something stands behind it");
}

/* No file stands where another needs a folder. */
static bool check_folders(struct reader *r)
{
	struct lora_manifest *m = r->manifest;
	struct lora_map names = {0};
	bool good = true, present;

	for (size_t i = 0; i < m->file_count && good; i++) {
		r->status = lora__map_add(&names, m->files[i].name, strlen(m->files[i].name),
					  (uint32_t)i, &present, r->err);
		good = !r->status;
	}
	for (size_t i = 0; i < m->file_count && good; i++) {
		const char *name = m->files[i].name, *slash = name;

		while (good && (slash = strchr(slash, '/')) != NULL) {
			good = lora__map_find(&names, name, (size_t)(slash - name)) == UINT32_MAX ||
			       bad(r, "a file's name is another's folder");
			slash++;
		}
	}
	lora__map_fini(&names);
	return good;
}

static bool check_whole(struct reader *r)
{
	struct lora_manifest *m = r->manifest;
	struct lora_sha256 root;

	if (!lora__adapter_name_ok(m->name))
		return bad(r, "the adapter's name is no name");
	if (m->version == 0 || m->has_parent != (m->version > 1))
		return bad(r, "version and parent do not fit");
	lora__manifest_root(m, &root);
	if (!lora__sha256_equal(&root, &m->root))
		return bad(r, "its root is not that of its files");
	return check_folders(r);
}

enum lora_status lora__manifest_parse(struct lora_manifest *manifest, const char *text, size_t size,
				      struct lora_error *err)
{
	struct reader r = {.text = text, .at = text, .end = text + size, .manifest = manifest};
	size_t growth;
	enum lora_status status;

	r.err = err;
	if (size > LORA_MANIFEST_MAX)
		return lora__fail(err, LORA_INPUT, "manifest: it is too long");
	status = lora__json_scan(text, size, &growth, err);
	if (status)
		return lora__context(err, status, "manifest");
	if (read_top(&r))
		check_whole(&r);
	return r.status;
}

void lora__manifest_fini(struct lora_manifest *manifest)
{
	lora__arena_fini(&manifest->arena);
	free(manifest->metadata);
	free(manifest->files);
	free(manifest->parts);
	*manifest = (struct lora_manifest){0};
}
