/* SPDX-License-Identifier: Apache-2.0 */
/* cli/inspect_text.c - the same for eyes: a card of facts, then tables for what was asked. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "history.h"
#include "inspect.h"

#define SHAPE_TEXT 128

static const char *shape_text(const uint64_t *shape, uint32_t ndim, char buffer[SHAPE_TEXT])
{
	int at = snprintf(buffer, SHAPE_TEXT, "[");

	for (uint32_t d = 0; d < ndim && at < SHAPE_TEXT; d++)
		at += snprintf(buffer + at, (size_t)(SHAPE_TEXT - at), "%s%llu", d ? ", " : "",
			       (unsigned long long)shape[d]);
	if (at < SHAPE_TEXT)
		snprintf(buffer + at, (size_t)(SHAPE_TEXT - at), "]");
	return buffer;
}

static void fact(FILE *out, const char *name, const char *value)
{
	char safe[1024];

	fprintf(out, "  %-14s%s\n", name, ui_escape(value, safe, sizeof(safe)));
}

static void root_fact(FILE *out, const char *name, const struct lora_sha256 *root)
{
	fprintf(out, "  %-14s", name);
	for (size_t i = 0; i < LORA_SHA256_SIZE; i++)
		fprintf(out, "%02x", root->byte[i]);
	fputc('\n', out);
}

static void ranks_fact(FILE *out, const struct lora_adapter *adapter)
{
	uint32_t min, max;
	char text[64];

	rank_range(adapter, &min, &max);
	if (max == 0)
		return;
	if (min == max)
		snprintf(text, sizeof(text), "%u", max);
	else
		snprintf(text, sizeof(text), "%u to %u", min, max);
	fact(out, "rank", text);
}

static void adapter_card(FILE *out, const struct inspected *what)
{
	const struct lora_adapter *adapter = what->adapter;
	const char *base = lora_adapter_base_name(adapter);
	char text[128], a[UI_TEXT], b[UI_TEXT];

	snprintf(text, sizeof(text), "%s (%s)", lora_adapter_method(adapter),
		 lora_adapter_dialect(adapter));
	fact(out, "method", text);
	snprintf(text, sizeof(text), "%s, %s", ui_count(lora_adapter_parameters(adapter), a),
		 ui_size(lora_adapter_bytes(adapter), b));
	fact(out, "parameters", text);
	snprintf(text, sizeof(text), "%zu", lora_adapter_module_count(adapter));
	fact(out, "modules", text);
	ranks_fact(out, adapter);
	fact(out, "base", base ? base : "(not named)");
	if (lora_adapter_bound_root(adapter))
		root_fact(out, "bound to", lora_adapter_bound_root(adapter));
	root_fact(out, "root", &what->root);
	for (size_t i = 0; i < lora_adapter_problem_count(adapter); i++)
		fact(out, "problem", lora_adapter_problem(adapter, i));
}

static void types_fact(FILE *out, const struct type_sums *sums)
{
	char a[UI_TEXT], b[UI_TEXT], text[128];

	for (int type = 0; type < LORA_DTYPE_COUNT; type++) {
		if (!sums->tensors[type])
			continue;
		snprintf(text, sizeof(text), "%s: %llu tensors, %s, %s",
			 lora_dtype_name((enum lora_dtype)type),
			 (unsigned long long)sums->tensors[type], ui_count(sums->elements[type], a),
			 ui_size(sums->bytes[type], b));
		fact(out, "parameters", text);
	}
}

static void model_card(FILE *out, const struct inspected *what)
{
	const struct lora_model *model = what->model;
	struct type_sums sums;
	char text[256], a[UI_TEXT];

	if (lora_model_architecture(model))
		fact(out, "architecture", lora_model_architecture(model));
	sum_types(&sums, model);
	types_fact(out, &sums);
	for (size_t f = 0; f < lora_model_file_count(model); f++) {
		snprintf(text, sizeof(text), "%.200s, %s", lora_model_file_name(model, f),
			 ui_size(lora_model_file_size(model, f), a));
		fact(out, f ? "" : "files", text);
	}
	root_fact(out, "root", &what->root);
}

static void record_card(FILE *out, const struct lora_undo_record_facts *facts)
{
	char text[256], a[UI_TEXT], b[UI_TEXT];

	snprintf(text, sizeof(text), "%zu tensors and %zu files, %s of weights", facts->tensors,
		 facts->files, ui_size(facts->base_bytes, a));
	fact(out, "restores", text);
	root_fact(out, "base", &facts->base_root);
	root_fact(out, "from", &facts->merged_root);
	for (size_t i = 0; i < facts->adapter_count; i++)
		fact(out, i ? "" : "undoes", facts->adapters[i]);
	snprintf(text, sizeof(text), "%s, of it %s of residuals", ui_size(facts->bytes, a),
		 ui_size(facts->residual, b));
	fact(out, "size", text);
	if (facts->left) {
		snprintf(text, sizeof(text), "%zu files of the base, which were not kept",
			 facts->left);
		fact(out, "lacks", text);
	}
	fact(out, "needs", "the merged model, and nothing else: it is self-contained");
}

static enum lora_status print_modules(struct ui *ui, const struct lora_adapter *adapter,
				      struct lora_error *err)
{
	static const struct ui_column columns[] = {
	    {"module", UI_LEFT, true},	    {"type", UI_LEFT, false},	{"shape", UI_LEFT, false},
	    {"rank", UI_RIGHT, false},	    {"alpha", UI_RIGHT, false}, {"scale", UI_RIGHT, false},
	    {"from", UI_LEFT, true},	    {"dtype", UI_LEFT, false},	{"|sBA|", UI_RIGHT, false},
	    {"eff. rank", UI_RIGHT, false},
	};
	struct ui_table *table = ui_table_new(columns, sizeof(columns) / sizeof(*columns));
	enum lora_status status;
	char shape[SHAPE_TEXT];

	for (size_t i = 0; i < lora_adapter_module_count(adapter); i++) {
		const struct lora_module *m = lora_adapter_module(adapter, i);

		ui_table_cell(table, "%s", m->name);
		ui_table_cell(table, "%s", m->type);
		ui_table_cell(table, "%s", shape_text(m->shape, m->ndim, shape));
		ui_table_cell(table, m->rank ? "%u" : "-", m->rank);
		ui_table_cell(table, m->rank ? "%.6g" : "-", m->alpha);
		ui_table_cell(table, m->rank ? "%.9g" : "-", m->scale);
		ui_table_cell(table, "%s", m->scale_from ? m->scale_from : "-");
		ui_table_cell(table, "%s", lora_dtype_name(m->dtype));
		ui_table_cell(table, m->has_norm ? "%.5g" : "-", m->norm);
		ui_table_cell(table, m->has_norm && m->rank ? "%.3g" : "-", m->effective_rank);
	}
	status = ui_table_print(table, ui, err);
	ui_table_free(table);
	return status;
}

static void print_spectrum(FILE *out, const struct lora_adapter *adapter)
{
	char safe[1024];

	for (size_t i = 0; i < lora_adapter_module_count(adapter); i++) {
		const struct lora_module *m = lora_adapter_module(adapter, i);

		if (!m->singular_count)
			continue;
		fprintf(out, "%s\n ", ui_escape(m->name, safe, sizeof(safe)));
		for (uint32_t k = 0; k < m->singular_count; k++)
			fprintf(out, " %.5g", m->singular_values[k]);
		fputc('\n', out);
	}
}

static enum lora_status print_tensors(struct ui *ui, const struct inspected *what,
				      struct lora_error *err)
{
	static const struct ui_column columns[] = {
	    {"tensor", UI_LEFT, true},
	    {"dtype", UI_LEFT, false},
	    {"shape", UI_LEFT, false},
	    {"bytes", UI_RIGHT, false},
	};
	struct ui_table *table = ui_table_new(columns, sizeof(columns) / sizeof(*columns));
	size_t count = what->model ? lora_model_tensor_count(what->model)
				   : lora_adapter_tensor_count(what->adapter);
	enum lora_status status;
	char shape[SHAPE_TEXT], size[UI_TEXT];

	for (size_t i = 0; i < count; i++) {
		const struct lora_tensor *t = what->model ? lora_model_tensor(what->model, i)
							  : lora_adapter_tensor(what->adapter, i);

		ui_table_cell(table, "%s", t->name);
		ui_table_cell(table, "%s", lora_dtype_name(t->dtype));
		ui_table_cell(table, "%s", shape_text(t->shape, t->ndim, shape));
		ui_table_cell(table, "%s", ui_count(t->size, size));
	}
	status = ui_table_print(table, ui, err);
	ui_table_free(table);
	return status;
}

static void print_answer(FILE *out, const char *question, const char *about, bool yes,
			 const struct lines *why)
{
	char text[1024];

	snprintf(text, sizeof(text), "%s, %.900s", yes ? "yes" : "no", about);
	fact(out, question, text);
	for (size_t i = 0; i < why->count; i++)
		fact(out, "", why->line[i]);
}

static void container_card(FILE *out, const struct lora_log *log)
{
	uint64_t bytes = 0;
	char text[128], a[UI_TEXT], b[UI_TEXT];

	for (size_t i = 0; i < lora_log_count(log); i++)
		bytes += lora_log_version(log, i)->bytes;
	fact(out, "name", lora_log_name(log) ? lora_log_name(log) : "-");
	snprintf(text, sizeof(text), "%zu, %s in %s (%.1f %%)", lora_log_count(log),
		 ui_size(bytes, a), ui_size(lora_log_size(log), b),
		 bytes ? 100.0 * (double)lora_log_size(log) / (double)bytes : 100.0);
	fact(out, "versions", text);
}

enum lora_status inspect_text(struct ui *ui, const struct inspected *what,
			      const struct inspect_view *view, struct lora_error *err)
{
	FILE *out = ui_out(ui);
	char safe[1024];
	enum lora_status status = LORA_OK;

	fprintf(out, "%s: %s\n", ui_escape(what->path, safe, sizeof(safe)),
		lora_kind_name(what->kind));
	if (what->log)
		container_card(out, what->log);
	if (what->adapter)
		adapter_card(out, what);
	else if (what->record)
		record_card(out, lora_undo_record_facts(what->record));
	else if (what->model)
		model_card(out, what);
	for (size_t i = 0; i < what->problems.count; i++)
		fact(out, "problem", what->problems.line[i]);
	if (view->base)
		print_answer(out, "fits", view->base, what->fits, &what->misfits);
	if (view->engine)
		print_answer(out, "loads", view->engine, what->loads, &what->obstacles);
	if (view->modules && what->adapter)
		status = print_modules(ui, what->adapter, err);
	if (!status && view->spectrum && what->adapter)
		print_spectrum(out, what->adapter);
	if (!status && view->tensors && (what->model || what->adapter))
		status = print_tensors(ui, what, err);
	if (!status && what->log)
		status = history_text(ui, what->log, false, err);
	return status;
}
