/* SPDX-License-Identifier: Apache-2.0 */
/* verify/prompts.c - from a file, from a seed, or from what somebody else has computed. */
#include "verify/prompts.h"

#include "adapter/diff.h"
#include "base/error.h"
#include "merge/tile.h"
#include <loractl/tokenizer.h>

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#define SEEDED	     4
#define PROMPT_LIMIT ((uint64_t)64 << 20) /* bytes of a file of prompts */

static enum lora_status add(struct lora_prompts *prompts, const uint32_t *ids, size_t count,
			    size_t total, struct lora_error *err)
{
	struct lora_prompt *p = &prompts->at[prompts->count];

	p->count = count < total ? count : total;
	p->total = total;
	p->ids = lora__arena_array(&prompts->arena, total, sizeof(*p->ids));
	if (!p->ids)
		return lora__fail_memory(err);
	memcpy(p->ids, ids, p->count * sizeof(*ids));
	prompts->count++;
	return LORA_OK;
}

static enum lora_status room_for(struct lora_prompts *prompts, size_t count, struct lora_error *err)
{
	prompts->at = lora__arena_array(&prompts->arena, count + 1, sizeof(*prompts->at));
	return prompts->at ? LORA_OK : lora__fail_memory(err);
}

/* ---- seeded */

static enum lora_status from_seed(struct lora_prompts *prompts, uint64_t seed, size_t total,
				  size_t vocabulary, struct lora_error *err)
{
	size_t count = (total + 1) / 2;
	uint32_t *ids = malloc(count * sizeof(*ids));
	enum lora_status status = ids ? room_for(prompts, SEEDED, err) : lora__fail_memory(err);
	uint64_t state = seed;

	for (size_t i = 0; i < SEEDED && !status; i++) {
		for (size_t t = 0; t < count; t++) {
			state = state * 6364136223846793005u + 1442695040888963407u; /* Knuth */
			ids[t] = (uint32_t)((state >> 33) % vocabulary);
		}
		status = add(prompts, ids, count, total, err);
	}
	free(ids);
	return status;
}

/* ---- a file, a line a prompt */

static enum lora_status encode(struct lora_prompts *prompts, const struct lora_tokenizer *tokenizer,
			       const char *line, size_t length, size_t total,
			       struct lora_error *err)
{
	struct lora_tokens tokens = {NULL, 0, 0};
	enum lora_status status =
	    lora_tokenizer_encode(tokenizer, line, length, LORA_ENCODE_SPECIAL, &tokens, err);

	if (!status && tokens.count)
		status = add(prompts, tokens.ids, tokens.count, total, err);
	lora_tokens_fini(&tokens);
	return status;
}

static enum lora_status from_file(struct lora_prompts *prompts, const struct lora_proof *proof,
				  size_t total, struct lora_error *err)
{
	const char *path = proof->options.prompts;
	struct lora_tokenizer *tokenizer = NULL;
	char *text = NULL, *line, *end;
	size_t size = 0, lines = 1;
	enum lora_status status = lora__file_slurp(path, PROMPT_LIMIT, &text, &size, err);

	if (!status)
		status = lora_tokenizer_open(&tokenizer, proof->base->path, err);
	for (size_t i = 0; i < size; i++)
		lines += text[i] == '\n';
	if (!status)
		status = room_for(prompts, lines, err);
	for (line = text; !status && line < text + size; line = end + 1) {
		end = memchr(line, '\n', (size_t)(text + size - line));
		end = end ? end : text + size;
		if (end > line)
			status = encode(prompts, tokenizer, line, (size_t)(end - line), total, err);
	}
	if (!status && prompts->count == 0)
		status = lora__fail(err, LORA_INPUT, "'%s' holds no prompt: one a line",
				    lora__escape(path));
	lora_tokenizer_close(tokenizer);
	free(text);
	return status;
}

/* ---- what somebody else has computed */

/* The tensor of that rank; `name` where there are several. NULL if there is none. */
static const struct lora_tensor *pick(const struct lora_model *file, uint32_t ndim,
				      const char *name)
{
	const struct lora_tensor *named = lora_model_find(file, name);

	if (named && named->ndim == ndim)
		return named;
	for (size_t i = 0; i < lora_model_tensor_count(file); i++)
		if (lora_model_tensor(file, i)->ndim == ndim)
			return lora_model_tensor(file, i);
	return NULL;
}

static enum lora_status open_reference(struct lora_prompts *prompts, const char *path,
				       struct lora_error *err)
{
	enum lora_status status = lora_model_open(&prompts->reference, path, err);

	if (status)
		return status;
	prompts->logits = pick(prompts->reference, 3, "logits");
	if (!prompts->logits || !lora__values_known(prompts->logits->dtype))
		return lora__fail(err, LORA_INPUT,
				  "'%s' holds no logits: a tensor [prompts, tokens, vocabulary] of "
				  "F32, F16 or BF16",
				  lora__escape(path));
	return LORA_OK;
}

/* input_ids [prompts, tokens], of a type of integers. */
static enum lora_status from_ids(struct lora_prompts *prompts, const struct lora_tensor *t,
				 size_t total, struct lora_error *err)
{
	size_t count = (size_t)t->shape[1], width = lora_dtype_bits(t->dtype) / 8;
	uint8_t *raw = malloc(count * width + 1);
	uint32_t *ids = malloc((count + 1) * sizeof(*ids));
	enum lora_status status =
	    raw && ids ? room_for(prompts, (size_t)t->shape[0], err) : lora__fail_memory(err);

	for (uint64_t i = 0; i < t->shape[0] && !status; i++) {
		status = lora_model_read(prompts->reference, t, i * count * width, raw,
					 count * width, err);
		for (size_t k = 0; k < count && !status; k++)
			memcpy(&ids[k], raw + k * width, sizeof(*ids)); /* the lower half of I64 */
		if (!status)
			status = add(prompts, ids, count, total > count ? total : count, err);
	}
	free(raw);
	free(ids);
	return status;
}

static bool are_ids(const struct lora_tensor *t)
{
	return t && t->ndim == 2 && t->shape[1] > 0 &&
	       (t->dtype == LORA_DTYPE_I64 || t->dtype == LORA_DTYPE_I32 ||
		t->dtype == LORA_DTYPE_U64 || t->dtype == LORA_DTYPE_U32);
}

static enum lora_status check_reference(const struct lora_prompts *prompts, size_t vocabulary,
					struct lora_error *err)
{
	const struct lora_tensor *t = prompts->logits;

	if (t->shape[0] == prompts->count && t->shape[1] > 0 && t->shape[2] == vocabulary)
		return LORA_OK;
	return lora__fail(err, LORA_INPUT,
			  "the reference's logits are [%" PRIu64 ", %" PRIu64 ", %" PRIu64
			  "]: there are %zu prompts and a vocabulary of %zu",
			  t->shape[0], t->shape[1], t->shape[2], prompts->count, vocabulary);
}

enum lora_status lora__prompts_make(struct lora_prompts *prompts, const struct lora_proof *proof,
				    struct lora_prompt_limits limits, struct lora_error *err)
{
	size_t total =
	    proof->options.tokens < limits.positions ? proof->options.tokens : limits.positions;
	const char *reference = proof->options.reference;
	const struct lora_tensor *ids = NULL;
	enum lora_status status = reference ? open_reference(prompts, reference, err) : LORA_OK;

	if (status)
		return status;
	if (reference && !proof->options.prompts)
		ids = lora_model_find(prompts->reference, "input_ids");
	if (reference && !proof->options.prompts && !are_ids(ids))
		return lora__fail(
		    err, LORA_INPUT,
		    "'%s' does not say of which tokens its logits are: use --prompts, "
		    "or add input_ids [prompts, tokens] to it",
		    lora__escape(reference));
	status = ids ? from_ids(prompts, ids, total, err)
		 : proof->options.prompts
		     ? from_file(prompts, proof, total, err)
		     : from_seed(prompts, proof->options.seed, total, limits.vocabulary, err);
	if (!status && reference)
		status = check_reference(prompts, limits.vocabulary, err);
	return status;
}

void lora__prompts_fini(struct lora_prompts *prompts)
{
	lora_model_close(prompts->reference);
	lora__arena_fini(&prompts->arena);
}

size_t lora__prompts_covered(const struct lora_prompts *prompts, size_t i)
{
	size_t count = prompts->at[i].count;

	if (!prompts->logits)
		return 0;
	return prompts->logits->shape[1] < count ? (size_t)prompts->logits->shape[1] : count;
}

enum lora_status lora__prompts_reference(const struct lora_prompts *prompts, size_t i, size_t at,
					 float *out, struct lora_error *err)
{
	const struct lora_tensor *t = prompts->logits;
	size_t n = (size_t)t->shape[2], width = lora_dtype_bits(t->dtype) / 8;
	void *raw = malloc(n * width + 1);
	enum lora_status status = raw ? LORA_OK : lora__fail_memory(err);

	if (!status)
		status = lora_model_read(prompts->reference, t, (i * t->shape[1] + at) * n * width,
					 raw, n * width, err);
	if (!status)
		lora__widen(&lora__kern_generic, out, raw, t->dtype, n);
	free(raw);
	return status;
}
