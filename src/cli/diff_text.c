/* SPDX-License-Identifier: Apache-2.0 */
/* cli/diff_text.c - the same for eyes: the answer, what differs beside the weights, then a table
 * with what changed most on top. */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "diff.h"

#define TOP 10 /* rows of a table, and lines of a list, that are shown without --modules */

static void fact(FILE *out, const char *name, const char *value)
{
	char safe[2048];

	fprintf(out, "%-12s%s\n", name, ui_escape(value, safe, sizeof(safe)));
}

static void more(FILE *out, size_t left)
{
	if (left)
		fprintf(out, "%-12sand %zu more: --modules shows all\n", "", left);
}

static void print_answer(FILE *out, const struct lora_diff *diff, bool adapters)
{
	const char *answer = "they differ";

	if (lora_diff_same(diff))
		answer = "the same";
	else if (lora_diff_equivalent(diff))
		answer = adapters ? "equivalent: the same update of every module, to rounding"
				  : "equivalent: the same values in every tensor";
	fact(out, "answer", answer);
}

static void print_config(FILE *out, const struct lora_diff *diff, bool all)
{
	size_t count, shown;
	const struct lora_config_difference *c = lora_diff_config(diff, &count);
	char line[1024];

	shown = all || count < TOP ? count : TOP;
	for (size_t i = 0; i < shown; i++) {
		snprintf(line, sizeof(line), "%.200s: %.300s -> %.300s", c[i].key,
			 c[i].x ? c[i].x : "(absent)", c[i].y ? c[i].y : "(absent)");
		fact(out, i ? "" : "config", line);
	}
	more(out, count - shown);
}

static void print_names(FILE *out, const char *title, const char *const *names, size_t count,
			bool all)
{
	size_t shown = all || count < TOP ? count : TOP;

	for (size_t i = 0; i < shown; i++)
		fact(out, i ? "" : title, names[i]);
	more(out, count - shown);
}

static void print_explanation(FILE *out, const struct lora_explanation *e, bool all)
{
	size_t shown = all || e->unexplained_count < TOP ? e->unexplained_count : TOP;
	char line[LORA_ERROR_SIZE + 512];

	snprintf(line, sizeof(line),
		 "%s: %zu adapted tensors to the bit, %zu to the last place, %zu tensors not",
		 e->explained ? "yes" : "no", e->exact, e->rounded, e->unexplained_count);
	fact(out, "explained", line);
	for (size_t i = 0; i < shown; i++) {
		snprintf(line, sizeof(line), "%.400s: %s", e->unexplained[i].name,
			 e->unexplained[i].why);
		fact(out, i ? "" : "unexplained", line);
	}
	more(out, e->unexplained_count - shown);
}

/* Positions of `count` things, the largest weight first; what has no number is largest. The caller
 * frees. */
struct ranked {
	size_t at;
	double weight;
};

static int heavier(const void *a, const void *b)
{
	const struct ranked *x = a, *y = b;

	if (x->weight != y->weight)
		return x->weight < y->weight ? 1 : -1;
	return (x->at > y->at) - (x->at < y->at);
}

static struct ranked *rank(const struct lora_diff *diff, bool adapters, size_t *count)
{
	const struct lora_module_difference *m = lora_diff_modules(diff, count);
	const struct lora_tensor_difference *t = NULL;
	struct ranked *ranked;
	size_t kept = 0;

	if (!adapters)
		t = lora_diff_tensors(diff, count);
	ranked = calloc(*count + 1, sizeof(*ranked));
	for (size_t i = 0; ranked && i < *count; i++) {
		double weight = adapters ? m[i].norm_difference : t[i].relative_norm;

		if (adapters && m[i].same)
			continue;
		ranked[kept++] = (struct ranked){i, isnan(weight) ? INFINITY : weight};
	}
	if (!ranked)
		return NULL;
	*count = kept;
	qsort(ranked, kept, sizeof(*ranked), heavier);
	return ranked;
}

static void number_cell(struct ui_table *table, double value, int digits)
{
	if (isnan(value))
		ui_table_cell(table, "-");
	else
		ui_table_cell(table, "%.*g", digits, value);
}

static const struct ui_column module_columns[] = {
    {"module", UI_LEFT, true},	    {"type", UI_LEFT, false},	  {"|Dx|", UI_RIGHT, false},
    {"|Dy|", UI_RIGHT, false},	    {"|Dx-Dy|", UI_RIGHT, false}, {"cosine", UI_RIGHT, false},
    {"rows, rad", UI_RIGHT, false}, {"columns", UI_RIGHT, false}, {"", UI_LEFT, false},
};

static void module_row(struct ui_table *table, const struct lora_module_difference *m)
{
	bool angles = m->angle_count > 0;

	ui_table_cell(table, "%s", m->name);
	if (m->type_x == m->type_y)
		ui_table_cell(table, "%s", m->type_x);
	else
		ui_table_cell(table, "%s -> %s", m->type_x, m->type_y);
	number_cell(table, m->norm_x, 5);
	number_cell(table, m->norm_y, 5);
	number_cell(table, m->norm_difference, 5);
	number_cell(table, m->cosine, 7);
	number_cell(table, angles ? m->angles_rows[m->angle_count - 1] : NAN, 3);
	number_cell(table, angles ? m->angles_columns[m->angle_count - 1] : NAN, 3);
	ui_table_cell(table, "%s", m->equivalent ? "equivalent" : "");
}

static const struct ui_column tensor_columns[] = {
    {"tensor", UI_LEFT, true},	  {"type", UI_LEFT, false},	{"elements", UI_RIGHT, false},
    {"changed", UI_RIGHT, false}, {"max ulp", UI_RIGHT, false}, {"|Y-X|/|X|", UI_RIGHT, false},
    {"rank", UI_RIGHT, false},
};

static void tensor_row(struct ui_table *table, const struct lora_tensor_difference *t)
{
	char text[UI_TEXT];

	ui_table_cell(table, "%s", t->name);
	if (t->dtype_x == t->dtype_y)
		ui_table_cell(table, "%s", lora_dtype_name(t->dtype_x));
	else
		ui_table_cell(table, "%s -> %s", lora_dtype_name(t->dtype_x),
			      lora_dtype_name(t->dtype_y));
	ui_table_cell(table, "%s", ui_count(t->elements, text));
	if (t->reshaped)
		ui_table_cell(table, "reshaped");
	else
		ui_table_cell(table, "%s", ui_count(t->changed, text));
	ui_table_cell(table, "%s", t->has_ulp ? ui_count(t->max_ulp, text) : "-");
	number_cell(table, t->relative_norm, 4);
	if (t->has_rank)
		ui_table_cell(table, "%s%" PRIu32, t->rank_is_least ? ">=" : "", t->rank);
	else
		ui_table_cell(table, "-");
}

static enum lora_status print_table(struct ui *ui, const struct lora_diff *diff, bool adapters,
				    bool all, struct lora_error *err)
{
	size_t count, total, shown;
	struct ranked *ranked = rank(diff, adapters, &count);
	struct ui_table *table =
	    adapters
		? ui_table_new(module_columns, sizeof(module_columns) / sizeof(*module_columns))
		: ui_table_new(tensor_columns, sizeof(tensor_columns) / sizeof(*tensor_columns));
	const struct lora_module_difference *m = lora_diff_modules(diff, &total);
	const struct lora_tensor_difference *t = lora_diff_tensors(diff, &total);
	enum lora_status status = LORA_OK;

	if (!ranked) {
		ui_table_free(table);
		return opt_fail(err, LORA_SYSTEM, "out of memory: sorting a table");
	}
	shown = all || count < TOP ? count : TOP;
	for (size_t i = 0; i < shown; i++) {
		if (adapters)
			module_row(table, &m[ranked[i].at]);
		else
			tensor_row(table, &t[ranked[i].at]);
	}
	if (shown) {
		fputc('\n', ui_out(ui));
		status = ui_table_print(table, ui, err);
	}
	if (!status)
		more(ui_out(ui), count - shown);
	ui_table_free(table);
	free(ranked);
	return status;
}

static void print_counts(FILE *out, const struct lora_diff *diff, bool adapters)
{
	size_t count, changed = 0;
	const struct lora_module_difference *m = lora_diff_modules(diff, &count);
	char line[128];

	for (size_t i = 0; i < count; i++)
		changed += !m[i].same;
	if (adapters) {
		snprintf(line, sizeof(line), "%zu in both, %zu changed", count, changed);
		fact(out, "modules", line);
	} else {
		(void)lora_diff_tensors(diff, &count);
		snprintf(line, sizeof(line), "%zu changed", count);
		fact(out, "tensors", line);
	}
}

enum lora_status diff_text(struct ui *ui, const struct lora_diff *diff, bool adapters, bool all,
			   struct lora_error *err)
{
	const struct lora_explanation *explanation = lora_diff_explanation(diff);
	FILE *out = ui_out(ui);
	const char *const *names;
	size_t count;

	print_answer(out, diff, adapters);
	print_config(out, diff, all);
	print_counts(out, diff, adapters);
	names = lora_diff_added(diff, &count);
	print_names(out, "added", names, count, all);
	names = lora_diff_removed(diff, &count);
	print_names(out, "removed", names, count, all);
	if (explanation)
		print_explanation(out, explanation, all);
	return print_table(ui, diff, adapters, all, err);
}
