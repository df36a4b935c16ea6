/* SPDX-License-Identifier: Apache-2.0 */
/* merge/undo_read.c - record.json and the tensors beside it: what a stranger may have written
 *
 * 1. Parsing is a pure function of the text and the index of the record's tensors; no tensor data
 * is read for it.
 * 2. Every tensor of the record is asked for by exactly one member, with that type and shape, and
 *    none is left over.
 * 3. What needs the base's heads (that ranges lie inside, that chunks add up) is checked where
 * these are known: unmerge_plan.c.
 */
#include "merge/undo_read.h"

#include "base/checked.h"
#include "base/digest.h"
#include "base/error.h"
#include "merge/residual.h"
#include "merge/undo_write.h"

#include <loractl/unmerge.h>

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct parser {
	struct lora_undo *undo;
	const struct lora_index *index;
	size_t used;  /* tensors asked for */
	size_t parts; /* of the tensors before */
	uint64_t stored;
	struct lora_error *err;
};

static enum lora_status malformed(const struct parser *p, const char *where, const char *what)
{
	return lora__fail(p->err, LORA_INPUT, "damaged undo record: record.json: %s: %s",
			  lora__escape(where), what);
}

/* ---- members ----------------------------------------------------------------------------------
 */

static enum lora_status get_text(const struct parser *p, const struct lora_json *object,
				 const char *key, const char **text)
{
	const char *found = lora__json_string(lora__json_get(object, key));

	if (!found)
		return malformed(p, key, "a string is missing");
	*text = lora__arena_copy(&p->undo->arena, found, strlen(found));
	return *text ? LORA_OK : lora__fail_memory(p->err);
}

static enum lora_status get_uint(const struct parser *p, const struct lora_json *object,
				 const char *key, uint64_t *value)
{
	return lora__json_u64(lora__json_get(object, key), value)
		   ? LORA_OK
		   : malformed(p, key, "a whole number is missing");
}

static enum lora_status get_sha256(const struct parser *p, const struct lora_json *object,
				   const char *key, struct lora_sha256 *value)
{
	const char *text = lora__json_string(lora__json_get(object, key));

	return text && lora__sha256_parse(text, value)
		   ? LORA_OK
		   : malformed(p, key, "64 hexadecimal digits are missing");
}

/* The array `key` with room for its elements; at most as many as anything may have. */
static enum lora_status get_list(const struct parser *p, const struct lora_json *object,
				 const char *key, size_t size, const struct lora_json **list,
				 void *room)
{
	void *memory;

	*list = lora__json_get(object, key);
	if (!*list || lora__json_type(*list) != LORA_JSON_ARRAY)
		return malformed(p, key, "an array is missing");
	memory = lora__arena_array(&p->undo->arena, lora__json_count(*list) + 1, size);
	if (!memory)
		return lora__fail_memory(p->err);
	memcpy(room, &memory, sizeof(memory));
	return LORA_OK;
}

/* ---- tensors of the record --------------------------------------------------------------------
 */

uint32_t lora__undo_find(const struct lora_index *index, const char *name, size_t number)
{
	char text[64];
	int length = snprintf(text, sizeof(text), "%s.%zu", name, number);
	const struct lora_tensor *t = lora__index_find(index, text, (size_t)length);

	return t ? (uint32_t)(t - index->tensors) : LORA_NO_TENSOR;
}

static enum lora_status ask(struct parser *p, const char *name, size_t number, uint32_t ndim,
			    uint32_t *found)
{
	*found = lora__undo_find(p->index, name, number);
	if (*found == LORA_NO_TENSOR)
		return lora__fail(p->err, LORA_INPUT, "damaged undo record: no tensor '%s.%zu'",
				  name, number);
	p->used++;
	if (p->index->tensors[*found].ndim != ndim)
		return lora__fail(p->err, LORA_INPUT,
				  "damaged undo record: tensor '%s.%zu' has another shape", name,
				  number);
	return LORA_OK;
}

static enum lora_status ask_bytes(struct parser *p, const char *name, size_t number,
				  uint32_t *found)
{
	enum lora_status status = ask(p, name, number, 1, found);

	if (!status && p->index->tensors[*found].dtype != LORA_DTYPE_U8)
		return lora__fail(p->err, LORA_INPUT,
				  "damaged undo record: tensor '%s.%zu' has another type", name,
				  number);
	return status;
}

/* A factor of a part: two dimensions, of which `rows` and `cols` are given (UINT64_MAX: free). */
static enum lora_status ask_factor(struct parser *p, const char *name, uint64_t rows, uint64_t cols,
				   uint32_t *found)
{
	const struct lora_tensor *t;
	enum lora_status status = ask(p, name, p->parts, 2, found);

	if (status)
		return status;
	t = &p->index->tensors[*found];
	if ((t->dtype != LORA_DTYPE_F32 && t->dtype != LORA_DTYPE_F16 &&
	     t->dtype != LORA_DTYPE_BF16) ||
	    (rows != UINT64_MAX && t->shape[0] != rows) ||
	    (cols != UINT64_MAX && t->shape[1] != cols))
		return lora__fail(p->err, LORA_INPUT,
				  "damaged undo record: tensor '%s.%zu' has another type or shape",
				  name, p->parts);
	return LORA_OK;
}

/* ---- the two models ---------------------------------------------------------------------------
 */

static bool is_inside_name(const char *name)
{
	char part[256];

	for (;;) {
		size_t n = strcspn(name, "/");

		if (n >= sizeof(part))
			return false;
		memcpy(part, name, n);
		part[n] = '\0';
		if (!lora__path_is_plain(part))
			return false;
		if (!name[n])
			return true;
		name += n + 1;
	}
}

/* No name twice: each is written once. */
static enum lora_status add_name(const struct parser *p, struct lora_map *names, const char *name)
{
	bool present = false;

	if (lora__map_add(names, name, strlen(name), 0, &present, NULL))
		return lora__fail_memory(p->err);
	return present ? malformed(p, name, "named twice") : LORA_OK;
}

static enum lora_status parse_files(struct parser *p, const struct lora_json *model, bool merged,
				    struct lora_map *names)
{
	struct lora_undo *u = p->undo;
	struct lora_undo_file **out = merged ? &u->merged_files : &u->base_files;
	size_t *count = merged ? &u->merged_file_count : &u->base_file_count;
	const struct lora_json *list = NULL, *at;
	enum lora_status status = get_list(p, model, "files", sizeof(**out), &list, out);

	for (at = lora__json_first(list); at && !status; at = lora__json_next(at)) {
		struct lora_undo_file *file = &(*out)[(*count)++];

		status = get_text(p, at, "name", &file->name);
		if (!status && !lora__path_is_plain(file->name))
			status = malformed(p, file->name, "no name for a file");
		if (!status)
			status = add_name(p, names, file->name);
		if (!status)
			status = get_uint(p, at, "size", &file->size);
		if (!status && !merged)
			status = get_sha256(p, at, "sha256", &file->sha256);
		if (!status && merged)
			status = get_sha256(p, at, "head_sha256", &file->head_sha256);
	}
	if (!status && *count == 0)
		status = malformed(p, "files", "there are none");
	return status;
}

static enum lora_status parse_stored(struct parser *p, const struct lora_json *at, size_t k,
				     struct lora_other *other)
{
	uint32_t tensor = 0;
	enum lora_status status;

	if (!lora__json_bool(lora__json_get(at, "stored"), &other->stored))
		return malformed(p, "stored", "true or false is missing");
	if (!other->stored)
		return LORA_OK;
	status = ask_bytes(p, "file", k, &tensor);
	if (status)
		return status;
	p->stored += other->size;
	if (p->index->tensors[tensor].size != other->size)
		return malformed(p, other->name, "stored with another size");
	if (other->size > LORA_UNDO_FILE_LIMIT || p->stored > LORA_UNDO_STORED_LIMIT)
		return malformed(p, other->name, "larger than a stored file may be");
	return LORA_OK;
}

static enum lora_status parse_others(struct parser *p, const struct lora_json *model, bool merged,
				     struct lora_map *names)
{
	struct lora_others *o = &p->undo->others;
	struct lora_other **out = merged ? &o->merged : &o->base;
	size_t *count = merged ? &o->merged_count : &o->base_count;
	const struct lora_json *list = NULL, *at;
	enum lora_status status = get_list(p, model, "others", sizeof(**out), &list, out);

	for (at = lora__json_first(list); at && !status; at = lora__json_next(at)) {
		size_t k = (*count)++;
		struct lora_other *other = &(*out)[k];

		status = get_text(p, at, "name", &other->name);
		if (!status && !is_inside_name(other->name))
			status = malformed(p, other->name, "no name for a file");
		if (!status)
			status = add_name(p, names, other->name);
		if (!status)
			status = get_uint(p, at, "size", &other->size);
		if (!status)
			status = get_sha256(p, at, "sha256", &other->sha256);
		if (!status && !merged)
			status = parse_stored(p, at, k, other);
	}
	return status;
}

static enum lora_status parse_left(struct parser *p, const struct lora_json *model)
{
	struct lora_others *o = &p->undo->others;
	const struct lora_json *list = NULL, *at;
	enum lora_status status = get_list(p, model, "left", sizeof(*o->left), &list, &o->left);

	for (at = lora__json_first(list); at && !status; at = lora__json_next(at)) {
		struct lora_other *left = &o->left[o->left_count++];

		status = get_text(p, at, "name", &left->name);
		if (!status)
			status = get_uint(p, at, "size", &left->size);
	}
	return status;
}

/* No file stands where another one's directory has to be. */
static enum lora_status check_directories(const struct parser *p, const struct lora_other *other,
					  size_t count, const struct lora_map *names)
{
	for (size_t k = 0; k < count; k++) {
		const char *name = other[k].name;

		for (const char *at = strchr(name, '/'); at; at = strchr(at + 1, '/'))
			if (lora__map_find(names, name, (size_t)(at - name)) != UINT32_MAX)
				return malformed(p, name, "below a file");
	}
	return LORA_OK;
}

static enum lora_status parse_base(struct parser *p, const struct lora_json *base)
{
	struct lora_undo *u = p->undo;
	struct lora_map names = {0};
	enum lora_status status = get_sha256(p, base, "root", &u->base_root);
	uint32_t head;

	if (!status && !lora__json_bool(lora__json_get(base, "directory"), &u->directory))
		status = malformed(p, "directory", "true or false is missing");
	if (!status)
		status = parse_files(p, base, false, &names);
	if (!status)
		status = parse_others(p, base, false, &names);
	if (!status)
		status = check_directories(p, u->others.base, u->others.base_count, &names);
	if (!status)
		status = parse_left(p, base);
	if (!status && !u->directory && (u->base_file_count != 1 || u->others.base_count))
		status = malformed(p, "base", "a single file with others");
	for (size_t f = 0; f < u->base_file_count && !status; f++)
		status = ask_bytes(p, "head", f, &head);
	lora__map_fini(&names);
	return status;
}

static enum lora_status parse_merged(struct parser *p, const struct lora_json *merged)
{
	struct lora_undo *u = p->undo;
	struct lora_map names = {0};
	const struct lora_json *list = NULL, *at;
	enum lora_status status = get_sha256(p, merged, "root", &u->merged_root);

	if (!status)
		status = parse_files(p, merged, true, &names);
	if (!status)
		status = parse_others(p, merged, true, &names);
	lora__map_fini(&names);
	if (!status)
		status = get_list(p, merged, "tensors", sizeof(*u->merged_tensors), &list,
				  &u->merged_tensors);
	for (at = lora__json_first(list); at && !status; at = lora__json_next(at)) {
		struct lora_undo_merged *t = &u->merged_tensors[u->merged_tensor_count];
		bool present = false;

		status = get_text(p, at, "name", &t->name);
		if (!status)
			status = get_sha256(p, at, "sha256", &t->sha256);
		if (!status && lora__map_add(&u->merged_by_name, t->name, strlen(t->name),
					     (uint32_t)u->merged_tensor_count, &present, NULL))
			status = lora__fail_memory(p->err);
		if (!status && present)
			status = malformed(p, t->name, "named twice");
		u->merged_tensor_count++;
	}
	return status;
}

/* ---- the tensors that changed -----------------------------------------------------------------
 */

static bool in_range(uint64_t first, uint64_t count, uint64_t limit)
{
	return first <= limit && count <= limit - first;
}

static enum lora_status parse_part(struct parser *p, const struct lora_json *at,
				   struct lora_undo_tensor *t, struct lora_undo_part *part)
{
	const char *kind = NULL;
	double scale = 0;
	enum lora_status status = get_text(p, at, "kind", &kind);

	if (!status)
		status = get_uint(p, at, "row", &part->row0);
	if (!status)
		status = get_uint(p, at, "rows", &part->rows);
	if (!status)
		status = get_uint(p, at, "col", &part->col0);
	if (!status)
		status = get_uint(p, at, "cols", &part->cols);
	if (status)
		return status;
	part->dense = strcmp(kind, "dense") == 0;
	if (!part->dense && strcmp(kind, "low-rank") != 0)
		return malformed(p, t->name, "a part of an unknown kind");
	if (!lora__json_double(lora__json_get(at, "scale"), &scale) || !isfinite((float)scale) ||
	    (double)(float)scale != scale)
		return malformed(p, t->name, "a scale that is no float");
	part->scale = (float)scale;
	if (!in_range(part->col0, part->cols, t->width) || part->row0 > UINT64_MAX / 2 ||
	    part->rows > UINT64_MAX / 2)
		return malformed(p, t->name, "a part outside of the matrix");
	if (part->dense)
		return ask_factor(p, "dense", part->rows, part->cols, &part->left);
	status = ask_factor(p, "left", part->rows, UINT64_MAX, &part->left);
	return status ? status
		      : ask_factor(p, "right", p->index->tensors[part->left].shape[1], part->cols,
				   &part->right);
}

static enum lora_status parse_parts(struct parser *p, const struct lora_json *object,
				    struct lora_undo_tensor *t)
{
	const struct lora_json *list = NULL, *at;
	enum lora_status status = get_list(p, object, "parts", sizeof(*t->parts), &list, &t->parts);

	for (at = lora__json_first(list); at && !status; at = lora__json_next(at), p->parts++)
		status = parse_part(p, at, t, &t->parts[t->part_count++]);
	return status;
}

static enum lora_status parse_rows(struct parser *p, const struct lora_json *object,
				   struct lora_undo_tensor *t)
{
	const struct lora_json *list = NULL, *at;
	enum lora_status status = get_list(p, object, "rows", sizeof(*t->rows), &list, &t->rows);

	for (at = lora__json_first(list); at && !status; at = lora__json_next(at)) {
		if (!lora__json_u64(at, &t->rows[t->row_count]) ||
		    (t->row_count && t->rows[t->row_count] <= t->rows[t->row_count - 1]))
			status = malformed(p, t->name, "rows that do not ascend");
		t->row_count++;
	}
	return status;
}

/* Chunks lie one behind the other in residual.T, which they fill. */
static enum lora_status parse_chunks(struct parser *p, const struct lora_json *object,
				     size_t number, struct lora_undo_tensor *t)
{
	const struct lora_json *list = NULL, *at;
	const struct lora_tensor *residual;
	uint64_t used = 0;
	enum lora_status status =
	    get_list(p, object, "chunks", sizeof(*t->chunks), &list, &t->chunks);

	if (!status)
		status = ask_bytes(p, "residual", number, &t->residual);
	if (status)
		return status;
	residual = &p->index->tensors[t->residual];
	for (at = lora__json_first(list); at; at = lora__json_next(at)) {
		struct lora_residual_chunk *chunk = &t->chunks[t->chunk_count++];
		const struct lora_json *first = lora__json_first(at);
		uint64_t bytes = 0;

		if (lora__json_count(at) != 2 || !lora__json_u64(first, &chunk->elements) ||
		    !lora__json_u64(lora__json_next(first), &bytes) || chunk->elements == 0 ||
		    chunk->elements > LORA_CHUNK_ELEMENTS || bytes == 0 ||
		    bytes > LORA_CHUNK_LIMIT || bytes > residual->size - used)
			return malformed(p, t->name, "an impossible chunk");
		chunk->size = (size_t)bytes;
		chunk->at = residual->begin + used;
		used += bytes;
	}
	return used == residual->size
		   ? LORA_OK
		   : malformed(p, t->name, "chunks that do not fill their tensor");
}

static enum lora_status parse_gain(struct parser *p, const struct lora_json *object, size_t number,
				   struct lora_undo_tensor *t)
{
	const struct lora_json *gain = lora__json_get(object, "gain");
	const char *text = lora__json_string(gain);
	enum lora_status status;

	if (!gain || (!text && lora__json_type(gain) != LORA_JSON_NULL))
		return malformed(p, t->name, "gain is missing");
	if (!text)
		return LORA_OK;
	t->has_gain = true;
	t->gain_by_column = strcmp(text, "column") == 0;
	if (!t->gain_by_column && strcmp(text, "row") != 0)
		return malformed(p, t->name, "a gain of an unknown kind");
	status = ask(p, "gain", number, 1, &t->gain);
	if (!status && p->index->tensors[t->gain].dtype != LORA_DTYPE_F32)
		status = malformed(p, t->name, "a gain of another type");
	return status;
}

static enum lora_status parse_tensor(struct parser *p, const struct lora_json *at, size_t number)
{
	struct lora_undo_tensor *t = &p->undo->tensors[number];
	const char *from = NULL;
	enum lora_status status = get_text(p, at, "name", &t->name);

	if (!status)
		status = get_text(p, at, "from", &from);
	if (status)
		return status;
	t->from_nothing = strcmp(from, "nothing") == 0;
	if (!t->from_nothing && strcmp(from, "merged") != 0)
		return malformed(p, t->name, "from something unknown");
	if (!t->from_nothing)
		status = get_uint(p, at, "width", &t->width);
	if (!status)
		status = parse_parts(p, at, t);
	if (!status)
		status = parse_rows(p, at, t);
	if (!status)
		status = parse_gain(p, at, number, t);
	if (!status && t->from_nothing && (t->part_count || t->row_count || t->has_gain))
		status = malformed(p, t->name, "replaced, and yet changed");
	return status ? status : parse_chunks(p, at, number, t);
}

static enum lora_status parse_adapters(struct parser *p, const struct lora_json *root)
{
	struct lora_undo *u = p->undo;
	const struct lora_json *list = NULL, *at;
	enum lora_status status =
	    get_list(p, root, "adapters", sizeof(*u->adapter_names), &list, &u->adapter_names);

	for (at = lora__json_first(list); at && !status; at = lora__json_next(at))
		status = get_text(p, at, "name", &u->adapter_names[u->adapter_count++]);
	return status;
}

static enum lora_status parse_root(struct parser *p, const struct lora_json *root)
{
	struct lora_undo *u = p->undo;
	const char *schema = lora__json_string(lora__json_get(root, "schema"));
	const struct lora_json *list = NULL, *at;
	uint64_t arithmetic = 0;
	enum lora_status status;

	if (!schema || strcmp(schema, LORA_UNDO_SCHEMA) != 0)
		return lora__fail(p->err, LORA_INPUT,
				  "an undo record of schema '%s', and this version reads '%s' only",
				  lora__escape(schema ? schema : "?"), LORA_UNDO_SCHEMA);
	status = get_uint(p, root, "arithmetic", &arithmetic);
	if (!status && arithmetic != LORA_ARITHMETIC)
		return lora__fail(p->err, LORA_INPUT,
				  "an undo record of arithmetic version %llu, and this version "
				  "computes by %d only",
				  (unsigned long long)arithmetic, LORA_ARITHMETIC);
	p->used = 1; /* record.json */
	if (!status)
		status = parse_base(p, lora__json_get(root, "base"));
	if (!status)
		status = parse_merged(p, lora__json_get(root, "merged"));
	if (!status)
		status = parse_adapters(p, root);
	if (!status)
		status = get_list(p, root, "tensors", sizeof(*u->tensors), &list, &u->tensors);
	for (at = lora__json_first(list); at && !status; at = lora__json_next(at))
		status = parse_tensor(p, at, u->tensor_count++);
	if (!status && p->used != p->index->count)
		return lora__fail(p->err, LORA_INPUT,
				  "damaged undo record: %zu tensors that record.json does not name",
				  p->index->count - p->used);
	return status;
}

enum lora_status lora__undo_parse(struct lora_undo *undo, const char *text, size_t size,
				  const struct lora_index *index, struct lora_error *err)
{
	struct parser p = {undo, index, 0, 0, 0, err};
	struct lora_json *json = NULL;
	enum lora_status status = lora__json_parse(&json, text, size, err);

	if (status)
		return lora__context(err, status, "damaged undo record: record.json");
	status = parse_root(&p, json);
	lora__json_free(json);
	return status;
}

void lora__undo_fini(struct lora_undo *undo)
{
	lora__map_fini(&undo->merged_by_name);
	lora__undo_others_fini(&undo->others);
	lora__arena_fini(&undo->arena);
}

/* ---- the file ---------------------------------------------------------------------------------
 */

/* What the metadata call the file, if that is a record of any version; else NULL. */
static const char *undo_format(const struct lora_index *index)
{
	const char *format = lora__index_metadata(index, LORA_UNDO_KEY);

	return format && strncmp(format, LORA_UNDO_FORMAT, sizeof(LORA_UNDO_FORMAT) - 1) == 0
		   ? format
		   : NULL;
}

/* Where the metadata say what record.json is, it is that. */
static enum lora_status check_proof(const struct lora_index *index, const char *text, size_t size,
				    struct lora_error *err)
{
	const char *proof = lora__index_metadata(index, LORA_UNDO_PROOF);
	char hex[LORA_SHA256_HEX];
	struct lora_sha256 digest;

	if (!proof)
		return LORA_OK;
	lora__sha256(text, size, &digest);
	lora__sha256_hex(&digest, hex);
	return strcmp(proof, hex) == 0
		   ? LORA_OK
		   : lora__fail(err, LORA_INPUT,
				"damaged undo record: record.json is not what its digest says");
}

static enum lora_status read_json(const struct lora_adapter *store, char **text, size_t *size,
				  struct lora_error *err)
{
	static const char name[] = "record.json";
	const struct lora_tensor *t = lora__index_find(&store->index, name, sizeof(name) - 1);
	const char *format = undo_format(&store->index);
	enum lora_status status;

	if (!format)
		return lora__fail(err, LORA_INPUT, "no undo record: merge --undo writes one");
	if (strcmp(format, LORA_UNDO_SCHEMA) != 0)
		return lora__fail(err, LORA_INPUT,
				  "an undo record of schema '%s', and this version reads '%s' only",
				  lora__escape(format), LORA_UNDO_SCHEMA);
	if (!t || t->dtype != LORA_DTYPE_U8 || t->size > LORA_UNDO_JSON_LIMIT)
		return lora__fail(err, LORA_INPUT,
				  "damaged undo record: record.json is missing or too large");
	*size = (size_t)t->size;
	*text = malloc(*size + 1);
	if (!*text)
		return lora__fail_memory(err);
	status = lora__file_read(&store->files[0].file, t->begin, *text, *size, err);
	return status ? status : check_proof(&store->index, *text, *size, err);
}

enum lora_status lora__undo_open(struct lora_adapter *store, struct lora_undo *undo,
				 const char *path, struct lora_error *err)
{
	uint8_t *head = NULL;
	char *text = NULL;
	size_t head_size = 0, size = 0;
	enum lora_status status;

	store->files = calloc(1, sizeof(*store->files));
	if (!store->files)
		return lora__fail_memory(err);
	store->file_count = 1;
	store->files[0] =
	    (struct lora_source){.origin = &lora__origin_files, .file = LORA_FILE_INIT};
	status = lora__file_open(&store->files[0].file, path, err);
	if (status)
		return status;
	status = lora__container_load(&store->index, &head, &head_size, &store->files[0].file, err);
	if (!status)
		status = lora__context(err, read_json(store, &text, &size, err), "'%s'",
				       lora__escape(path));
	if (!status)
		status = lora__context(err, lora__undo_parse(undo, text, size, &store->index, err),
				       "'%s'", lora__escape(path));
	free(head);
	free(text);
	return status;
}

void lora__undo_close(struct lora_adapter *store, struct lora_undo *undo)
{
	lora__undo_fini(undo);
	if (store->files)
		lora__source_close(&store->files[0]);
	free(store->files);
	lora__index_fini(&store->index);
}

/* ---- looking ----------------------------------------------------------------------------------
 */

struct lora_undo_record {
	struct lora_adapter store;
	struct lora_undo undo;
	struct lora_undo_record_facts facts;
};

enum lora_status lora_undo_record_open(struct lora_undo_record **out, const char *path,
				       struct lora_error *err)
{
	struct lora_undo_record *r = calloc(1, sizeof(*r));
	enum lora_status status;

	*out = NULL;
	if (!r)
		return lora__fail_memory(err);
	status = lora__undo_open(&r->store, &r->undo, path, err);
	if (status) {
		lora_undo_record_close(r);
		return status;
	}
	r->facts.base_root = r->undo.base_root;
	r->facts.merged_root = r->undo.merged_root;
	r->facts.bytes = r->store.files[0].file.size;
	r->facts.tensors = r->undo.tensor_count;
	r->facts.files = r->undo.base_file_count + r->undo.others.base_count;
	r->facts.left = r->undo.others.left_count;
	r->facts.adapters = r->undo.adapter_names;
	r->facts.adapter_count = r->undo.adapter_count;
	for (size_t f = 0; f < r->undo.base_file_count; f++)
		r->facts.base_bytes += r->undo.base_files[f].size;
	for (size_t i = 0; i < r->undo.tensor_count; i++)
		r->facts.residual += r->store.index.tensors[r->undo.tensors[i].residual].size;
	*out = r;
	return LORA_OK;
}

const struct lora_undo_record_facts *lora_undo_record_facts(const struct lora_undo_record *record)
{
	return &record->facts;
}

void lora_undo_record_close(struct lora_undo_record *record)
{
	if (!record)
		return;
	lora__undo_close(&record->store, &record->undo);
	free(record);
}
