/* SPDX-License-Identifier: Apache-2.0 */
/* adapter/engines.c - will that engine load the adapter as it is?
 *
 * What is known of each, as of PEFT 0.21, vLLM at the end of 2025 and llama.cpp's
 * convert_lora_to_gguf.py:
 *
 *	peft		reads adapter_config.json and one adapter_model.safetensors; names without
 *			its prefix, or with an adapter's name left in, are passed over, and so are
 *			modules that the config does not target
 *	vllm		the same files; low-rank updates of linear layers and embeddings only, up
 *			to rank 512; one scale for all, from r, lora_alpha and use_rslora
 *	llama.cpp	low-rank updates of matrices only; the scale is lora_alpha / rank,
 *			whatever the config says besides
 *
 * An engine that would load the adapter and compute something else does not load it, here. Every
 * reason is a line, the first module standing for all that share it. */
#include "adapter/adapter.h"

#include "base/error.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define VLLM_RANK_LIMIT 512u /* the largest value that its max_lora_rank takes */

struct asker {
	const struct lora_adapter *adapter;
	void (*problem)(void *user, const char *line);
	void *user;
	size_t problems;
};

static void say(struct asker *asker, const char *format, ...) LORA_PRINTF(2, 3);
static void say(struct asker *asker, const char *format, ...)
{
	char line[LORA_ERROR_SIZE];
	va_list arguments;

	va_start(arguments, format);
	vsnprintf(line, sizeof(line), format, arguments);
	va_end(arguments);
	asker->problems++;
	if (asker->problem)
		asker->problem(asker->user, line);
}

/* The first edit for which `bad` holds, or NULL. */
static const struct lora_edit *first_edit(const struct asker *asker,
					  bool (*bad)(const struct asker *asker,
						      const struct lora_edit *edit))
{
	const struct lora_decode *decode = &asker->adapter->decode;

	for (size_t i = 0; i < decode->edit_count; i++)
		if (bad(asker, &decode->edits[i]))
			return &decode->edits[i];
	return NULL;
}

static bool is_dora(const struct asker *asker, const struct lora_edit *edit)
{
	(void)asker;
	return edit->kind == LORA_EDIT_DORA;
}

static bool is_bias(const struct asker *asker, const struct lora_edit *edit)
{
	(void)asker;
	return edit->kind == LORA_EDIT_ADD_DENSE;
}

static bool is_rows(const struct asker *asker, const struct lora_edit *edit)
{
	(void)asker;
	return edit->kind == LORA_EDIT_REPLACE_ROWS;
}

static bool is_whole(const struct asker *asker, const struct lora_edit *edit)
{
	(void)asker;
	return edit->kind == LORA_EDIT_REPLACE || edit->kind == LORA_EDIT_ADD_TENSOR;
}

static bool is_many_dimensional(const struct asker *asker, const struct lora_edit *edit)
{
	(void)asker;
	return edit->rank && edit->ndim > 2;
}

static bool is_high(const struct asker *asker, const struct lora_edit *edit)
{
	(void)asker;
	return edit->rank > VLLM_RANK_LIMIT;
}

/* The config's own numbers, which the engines read without its patterns. */
static double config_number(const struct asker *asker, const char *key)
{
	double value = 8;

	lora__json_double(lora__json_get(asker->adapter->config, key), &value);
	return value;
}

static bool differs(double a, double b)
{
	return fabs(a - b) > 1e-9 * fabs(a);
}

static bool has_own_scale(const struct asker *asker, const struct lora_edit *edit)
{
	double r = config_number(asker, "r"), alpha = config_number(asker, "lora_alpha");
	bool rslora = false;

	lora__json_bool(lora__json_get(asker->adapter->config, "use_rslora"), &rslora);
	return edit->rank && differs(edit->scale, alpha / (rslora ? sqrt(r) : r));
}

static bool has_other_scale(const struct asker *asker, const struct lora_edit *edit)
{
	return edit->rank && differs(edit->scale, config_number(asker, "lora_alpha") / edit->rank);
}

static void ask_files(struct asker *asker, const char *engine)
{
	bool there = false;

	if (asker->adapter->snapshot)
		say(asker, "%s does not read containers: `loractl unpack` writes a directory",
		    engine);
	if (lora__adapter_has(asker->adapter, "adapter_config.json", &there, NULL) == LORA_OK &&
	    !there)
		say(asker, "%s needs an adapter_config.json", engine);
	if (asker->adapter->file_count > 1)
		say(asker, "%s reads one adapter_model.safetensors, not %zu shards", engine,
		    asker->adapter->file_count);
}

/* Names that PEFT's own spelling does not have. */
static void ask_names(struct asker *asker, const char *engine, bool prefix)
{
	static const char wrapper[] = "base_model.model.";
	const struct lora_index *index = &asker->adapter->index;

	for (size_t i = 0; i < index->count && prefix; i++)
		if (strncmp(index->tensors[i].name, wrapper, sizeof(wrapper) - 1) != 0) {
			say(asker, "%s passes over names without '%s', as '%s'", engine, wrapper,
			    lora__escape(index->tensors[i].name));
			break;
		}
	for (size_t i = 0; i < index->count; i++)
		if (strstr(index->tensors[i].name, ".default.") ||
		    strstr(index->tensors[i].name, ".modules_to_save.")) {
			say(asker, "%s does not know names with an adapter's name left in, as '%s'",
			    engine, lora__escape(index->tensors[i].name));
			break;
		}
}

/* An adapter of a base that its initialisation has changed is wrong on the original. PEFT repeats
 * the initialisation. */
static void ask_base(struct asker *asker, const char *engine)
{
	if (asker->adapter->decode.mutated_by)
		say(asker, "init_lora_weights '%s' changed the base, and %s has the original",
		    lora__escape(asker->adapter->decode.mutated_by), engine);
}

static void ask_kinds(struct asker *asker, const char *engine)
{
	const struct lora_edit *edit;

	edit = first_edit(asker, is_dora);
	if (edit)
		say(asker, "%s does not support DoRA, as of '%s'", engine,
		    lora__escape(edit->module));
	edit = first_edit(asker, is_bias);
	if (edit)
		say(asker, "%s does not support lora_bias, as of '%s'", engine,
		    lora__escape(edit->module));
	edit = first_edit(asker, is_rows);
	if (edit)
		say(asker, "%s does not support trainable tokens, as of '%s'", engine,
		    lora__escape(edit->module));
	edit = first_edit(asker, is_whole);
	if (edit)
		say(asker,
		    "%s does not load whole tensors (modules_to_save, biases, embeddings), as '%s'",
		    engine, lora__escape(edit->module));
	edit = first_edit(asker, is_many_dimensional);
	if (edit)
		say(asker, "%s adapts matrices only, not convolutions or stacked experts, as '%s'",
		    engine, lora__escape(edit->module));
}

/* What PEFT reads from the config, and we from the tensors. */
static void ask_config(struct asker *asker)
{
	const struct lora_decode *decode = &asker->adapter->decode;

	for (size_t i = 0; i < decode->note_count; i++)
		if (decode->notes[i].obstacle)
			say(asker, "%s", decode->notes[i].line);
}

static void ask_peft(struct asker *asker)
{
	ask_files(asker, "PEFT");
	ask_names(asker, "PEFT", true);
	ask_config(asker);
}

static void ask_vllm(struct asker *asker)
{
	const struct lora_edit *edit;

	ask_files(asker, "vLLM");
	ask_names(asker, "vLLM", false);
	ask_base(asker, "vLLM");
	ask_kinds(asker, "vLLM");
	edit = first_edit(asker, is_high);
	if (edit)
		say(asker, "vLLM takes ranks up to %u, '%s' has %u", VLLM_RANK_LIMIT,
		    lora__escape(edit->module), edit->rank);
	edit = first_edit(asker, has_own_scale);
	if (edit)
		say(asker,
		    "vLLM has one scale for all modules and would give '%s' another one than %g "
		    "(%s)",
		    lora__escape(edit->module), edit->scale, edit->scale_from);
}

static void ask_llama_cpp(struct asker *asker)
{
	const struct lora_edit *edit;

	ask_files(asker, "llama.cpp's converter");
	ask_names(asker, "llama.cpp's converter", true);
	ask_base(asker, "llama.cpp");
	ask_kinds(asker, "llama.cpp");
	edit = first_edit(asker, has_other_scale);
	if (edit)
		say(asker,
		    "llama.cpp scales by lora_alpha / rank and would give '%s' another scale than "
		    "%g (%s)",
		    lora__escape(edit->module), edit->scale, edit->scale_from);
}

enum lora_status lora_adapter_loads_in(struct lora_adapter *adapter, const char *engine,
				       void (*problem)(void *user, const char *line), void *user,
				       struct lora_error *err)
{
	static const struct {
		const char *name;
		void (*ask)(struct asker *asker);
	} engines[] = {{"peft", ask_peft}, {"vllm", ask_vllm}, {"llama.cpp", ask_llama_cpp}};
	struct asker asker = {adapter, problem, user, 0};

	for (size_t i = 0; i < sizeof(engines) / sizeof(*engines); i++)
		if (!strcmp(engines[i].name, engine)) {
			engines[i].ask(&asker);
			return asker.problems ? LORA_NO : LORA_OK;
		}
	return lora__fail(err, LORA_USAGE,
			  "engine '%s' is unknown: there are peft, vllm and llama.cpp",
			  lora__escape(engine));
}
