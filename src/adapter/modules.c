/* SPDX-License-Identifier: Apache-2.0 */
/* adapter/modules.c - the adapter as `inspect` shows it: one line a module, from headers and
 * config alone.
 *
 * Edits that share their sources and their module are one module (its experts). Shapes are the
 * update's, as far as the adapter alone tells: without a base an embedding's or a Conv1D's
 * orientation is the dialect's default. */
#include "adapter/adapter.h"

#include "base/error.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static bool same_module(const struct lora_edit *a, const struct lora_edit *b)
{
	return a->kind == b->kind && a->source_count == b->source_count &&
	       !memcmp(a->sources, b->sources, a->source_count * sizeof(*a->sources));
}

static void describe(const struct lora_adapter *adapter, const struct lora_edit *edit,
		     struct lora_module *out)
{
	out->name = edit->module;
	out->type = lora__edit_kind_name(edit->kind);
	out->ndim = edit->ndim;
	memcpy(out->shape, edit->shape, sizeof(out->shape));
	if (edit->kind == LORA_EDIT_REPLACE_ROWS)
		out->shape[0] = edit->dense.rows;
	out->rank = edit->rank;
	out->alpha = edit->alpha;
	out->scale = (double)(float)edit->scale;
	out->scale_from = edit->scale_from ? edit->scale_from : "";
	out->dtype = adapter->index.tensors[edit->sources[0]].dtype;
}

enum lora_status lora__adapter_modules(struct lora_adapter *adapter, struct lora_error *err)
{
	const struct lora_decode *decode = &adapter->decode;

	adapter->modules =
	    lora__arena_array(&adapter->arena, decode->edit_count + 1, sizeof(*adapter->modules));
	adapter->spans =
	    lora__arena_array(&adapter->arena, decode->edit_count + 1, sizeof(*adapter->spans));
	if (!adapter->modules || !adapter->spans)
		return lora__fail_memory(err);
	for (size_t i = 0; i < decode->edit_count; i++) {
		if (i && same_module(&decode->edits[i], &decode->edits[i - 1])) {
			adapter->spans[adapter->module_count - 1].count++;
			continue;
		}
		describe(adapter, &decode->edits[i], &adapter->modules[adapter->module_count]);
		adapter->spans[adapter->module_count++] = (struct lora_span){i, 1};
	}
	return LORA_OK;
}

enum lora_status lora__adapter_problem(struct lora_adapter *adapter, struct lora_error *err,
				       const char *format, ...)
{
	size_t count = adapter->problem_count;
	char line[LORA_ERROR_SIZE];
	va_list arguments;

	if (!(count & (count - 1))) { /* full: as many as a power of two, or none */
		char **bigger =
		    realloc(adapter->problems, (count ? count * 2 : 1) * sizeof(*bigger));

		if (!bigger)
			return lora__fail_memory(err);
		adapter->problems = bigger;
	}
	va_start(arguments, format);
	vsnprintf(line, sizeof(line), format, arguments);
	va_end(arguments);
	adapter->problems[count] = strdup(line);
	if (!adapter->problems[count])
		return lora__fail_memory(err);
	adapter->problem_count++;
	return LORA_OK;
}

size_t lora_adapter_module_count(const struct lora_adapter *adapter)
{
	return adapter->module_count;
}

const struct lora_module *lora_adapter_module(const struct lora_adapter *adapter, size_t i)
{
	return i < adapter->module_count ? &adapter->modules[i] : NULL;
}

size_t lora_adapter_problem_count(const struct lora_adapter *adapter)
{
	return adapter->problem_count;
}

const char *lora_adapter_problem(const struct lora_adapter *adapter, size_t i)
{
	return i < adapter->problem_count ? adapter->problems[i] : NULL;
}
