/* SPDX-License-Identifier: Apache-2.0 */
/* merge/rebuild.c - a merge again, from its receipt of some kilobytes
 *
 * A receipt names base and adapters by root and holds every option that changes what comes out; the
 * arithmetic is a numbered contract, the same bits on every processor. So the merged model itself
 * need not be kept. What proves it is not trust in that sentence but the SHA-256 of every file,
 * compared before anything gets its name.
 */
#include "base/digest.h"
#include "base/error.h"
#include "merge/plan.h"
#include "merge/rebuild.h"
#include "merge/receipt.h"
#include "merge/unmerge.h"

#include <stdlib.h>
#include <string.h>

static enum lora_status malformed(const struct lora_rebuild *r, const char *what,
				  struct lora_error *err)
{
	return lora__fail(err, LORA_INPUT, "'%s': no receipt that can be rebuilt: %s",
			  lora__escape(r->path), what);
}

/* A flag that receipts may lack: then it was not given. */
static bool flag(const struct lora_json *options, const char *key)
{
	bool value = false;

	(void)lora__json_bool(lora__json_get(options, key), &value);
	return value;
}

static enum lora_status read_key_map(struct lora_rebuild *r, const struct lora_json *list,
				     struct lora_error *err)
{
	size_t n = 0;

	if (!list || lora__json_count(list) == 0)
		return LORA_OK;
	r->key_map = calloc(2 * lora__json_count(list) + 1, sizeof(*r->key_map));
	if (!r->key_map)
		return lora__fail_memory(err);
	for (const struct lora_json *at = lora__json_first(list); at; at = lora__json_next(at)) {
		const struct lora_json *first = lora__json_first(at);
		const char *from = lora__json_string(first),
			   *to = first ? lora__json_string(lora__json_next(first)) : NULL;

		if (!from || !to || lora__json_count(at) != 2)
			return malformed(r, "its key map is no list of pairs", err);
		r->key_map[n++] = from;
		r->key_map[n++] = to;
	}
	r->adapter_options.key_map = r->key_map;
	return LORA_OK;
}

static enum lora_status read_options(struct lora_rebuild *r, struct lora_error *err)
{
	const struct lora_json *options = lora__json_get(r->json, "options");
	const char *dtype = lora__json_string(lora__json_get(options, "dtype")),
		   *tied = lora__json_string(lora__json_get(options, "tied")),
		   *tokenizer = lora__json_string(lora__json_get(options, "tokenizer"));

	if (!tied || !tokenizer)
		return malformed(r, "its options are missing", err);
	if (dtype)
		r->options.dtype = lora_dtype_find(dtype, strlen(dtype));
	if (dtype && r->options.dtype == LORA_DTYPE_NONE)
		return malformed(r, "its dtype is not known", err);
	r->options.tied = strcmp(tied, "refuse") == 0 ? LORA_TIED_REFUSE : LORA_TIED_SPLIT;
	if (r->options.tied == LORA_TIED_SPLIT && strcmp(tied, "split") != 0)
		return malformed(r, "its choice of tied is not known", err);
	r->options.adapter_tokenizer = strcmp(tokenizer, "adapter") == 0;
	if (!r->options.adapter_tokenizer && strcmp(tokenizer, "base") != 0)
		return malformed(r, "its choice of tokenizer is not known", err);
	r->options.allow_unmatched = flag(options, "allow_unmatched");
	r->options.allow_noop = flag(options, "allow_noop");
	r->adapter_options.allow_unknown = flag(options, "allow_unknown");
	r->adapter_options.allow_mutated_base = flag(options, "allow_mutated_base");
	return read_key_map(r, lora__json_get(options, "key_map"), err);
}

static enum lora_status read_receipt(struct lora_rebuild *r, struct lora_error *err)
{
	const char *schema = lora__json_string(lora__json_get(r->json, "schema")),
		   *root =
		       lora__json_string(lora__json_get(lora__json_get(r->json, "base"), "root"));
	const struct lora_json *merged = lora__json_get(r->json, "merged");
	uint64_t arithmetic = 0;

	if (!schema || strcmp(schema, "loractl.receipt/1") != 0)
		return malformed(r, "its schema is not loractl.receipt/1", err);
	if (!lora__json_u64(lora__json_get(r->json, "arithmetic"), &arithmetic))
		return malformed(r, "its arithmetic is missing", err);
	if (arithmetic != LORA_ARITHMETIC)
		return lora__fail(
		    err, LORA_INPUT,
		    "'%s' was merged by version %llu of the arithmetic, and this loractl "
		    "computes by version %d only: use the one that made it",
		    lora__escape(r->path), (unsigned long long)arithmetic, LORA_ARITHMETIC);
	if (!root || !lora__sha256_parse(root, &r->base_root))
		return malformed(r, "its base.root is missing", err);
	if (!lora__json_first(lora__json_get(merged, "files")))
		return malformed(r, "it names no merged files (a dry run's?)", err);
	r->adapters = lora__json_get(r->json, "adapters");
	if (!lora__json_first(r->adapters))
		return malformed(r, "it names no adapters", err);
	return read_options(r, err);
}

enum lora_status lora_rebuild_open(struct lora_rebuild **out, const char *path,
				   struct lora_error *err)
{
	struct lora_rebuild *r = calloc(1, sizeof(*r));
	enum lora_status status;

	*out = NULL;
	if (!r)
		return lora__fail_memory(err);
	r->options = (struct lora_merge_options)LORA_MERGE_OPTIONS_INIT;
	r->adapter_options = (struct lora_adapter_options)LORA_ADAPTER_OPTIONS_INIT;
	r->path = strdup(path);
	status = r->path ? lora__file_slurp(path, LORA_RECEIPT_LIMIT, &r->text, &r->size, err)
			 : lora__fail_memory(err);
	if (!status)
		status = lora__context(err, lora__json_parse(&r->json, r->text, r->size, err),
				       "'%s'", lora__escape(path));
	if (!status)
		status = read_receipt(r, err);
	if (!status)
		*out = r;
	else
		lora_rebuild_free(r);
	return status;
}

void lora_rebuild_free(struct lora_rebuild *rebuild)
{
	if (!rebuild)
		return;
	lora__json_free(rebuild->json);
	free(rebuild->key_map);
	free(rebuild->text);
	free(rebuild->path);
	free(rebuild);
}

const struct lora_adapter_options *lora_rebuild_adapter_options(const struct lora_rebuild *rebuild)
{
	return &rebuild->adapter_options;
}

size_t lora_rebuild_adapter_count(const struct lora_rebuild *rebuild)
{
	return lora__json_count(rebuild->adapters);
}

enum lora_status lora__rebuild_base(const struct lora_rebuild *r, const struct lora_model *base,
				    struct lora_error *err)
{
	char theirs[LORA_SHA256_HEX], ours[LORA_SHA256_HEX];

	if (lora__sha256_equal(&r->base_root, &base->root))
		return LORA_OK;
	lora__sha256_hex(&r->base_root, theirs);
	lora__sha256_hex(&base->root, ours);
	return lora__fail(err, LORA_NO,
			  "'%s' is not the base of the receipt: root %.16s..., not %.16s...",
			  lora__escape(base->path), ours, theirs);
}

/* The input whose adapter has the root of the receipt's entry `at`, among those from `first` on,
 * swapped to `first`. */
static enum lora_status take_input(const struct lora_rebuild *r, const struct lora_json *at,
				   struct lora_merge_input *inputs, size_t first, size_t count,
				   struct lora_error *err)
{
	const char *text = lora__json_string(lora__json_get(at, "root")),
		   *name = lora__json_string(lora__json_get(at, "name"));
	struct lora_sha256 root, theirs;
	double weight = 0;

	if (!text || !lora__sha256_parse(text, &root) ||
	    !lora__json_double(lora__json_get(at, "weight"), &weight))
		return malformed(r, "an adapter without root or weight", err);
	for (size_t i = first; i < count; i++) {
		struct lora_merge_input found = inputs[i];
		enum lora_status status = lora_adapter_root(found.adapter, &theirs, err);

		if (status)
			return status;
		if (!lora__sha256_equal(&root, &theirs))
			continue;
		inputs[i] = inputs[first];
		inputs[first] = (struct lora_merge_input){found.adapter, weight};
		return LORA_OK;
	}
	return lora__fail(err, LORA_NO,
			  "none of the adapters given is the receipt's '%s' (root %.16s...)",
			  lora__escape(name ? name : "?"), text);
}

enum lora_status lora__rebuild_inputs(const struct lora_rebuild *rebuild,
				      struct lora_merge_input *inputs, struct lora_error *err)
{
	size_t count = lora_rebuild_adapter_count(rebuild);
	const struct lora_json *at = lora__json_first(rebuild->adapters);
	enum lora_status status = LORA_OK;

	for (size_t i = 0; i < count && !status; i++, at = lora__json_next(at))
		status = take_input(rebuild, at, inputs, i, count, err);
	return status;
}

enum lora_status lora_rebuild(struct lora_merge_result **out, const struct lora_rebuild *rebuild,
			      struct lora_model *base, struct lora_merge_input *inputs,
			      const char *output, const struct lora_unmerge_options *options,
			      struct lora_error *err)
{
	struct lora_merge_options merge = rebuild->options;
	size_t count = lora_rebuild_adapter_count(rebuild);
	enum lora_status status =
	    lora_model_digest(base, LORA_DIGEST_CACHED, options->threads, options->observer, err);

	*out = NULL;
	if (!status)
		status = lora__rebuild_base(rebuild, base, err);
	if (!status)
		status = lora__rebuild_inputs(rebuild, inputs, err);
	if (status)
		return status;
	merge.threads = options->threads;
	merge.expect = rebuild->text;
	return lora_merge(out, base, inputs, count, output, &merge, options->observer, err);
}
