/* SPDX-License-Identifier: Apache-2.0 */
/* cli/ui_table.c - rows in aligned columns
 *
 * Cells are text, made safe for a terminal as they come in. Widths are known only behind the last
 * row, so a table is kept whole and printed once. Two spaces stand between columns, none behind the
 * last. Names are cut in the middle (their ends tell them apart:
 * `model.layers.31.self_attn.q_proj`), and only on a terminal: whoever pipes a table gets every
 * byte.
 *
 * Tested by tests/unit/test_ui.c
 */
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "opt.h"
#include "ui.h"

#define GAP	   2
#define SHRUNK_MIN 16 /* columns that a shrunk column keeps */

struct ui_table {
	const struct ui_column *columns;
	size_t ncolumn;
	char **cells;
	size_t ncell, room;
	bool failed; /* no memory for a cell: reported by ui_table_print */
};

struct ui_table *ui_table_new(const struct ui_column *columns, size_t count)
{
	struct ui_table *table = calloc(1, sizeof(*table));

	if (table) {
		table->columns = columns;
		table->ncolumn = count;
	}
	return table;
}

void ui_table_free(struct ui_table *table)
{
	if (!table)
		return;
	for (size_t i = 0; i < table->ncell; i++)
		free(table->cells[i]);
	free(table->cells);
	free(table);
}

static bool make_room(struct ui_table *table)
{
	size_t room = table->room ? table->room * 2 : 64;
	char **cells;

	if (table->ncell < table->room)
		return true;
	if (room > SIZE_MAX / sizeof(*cells))
		return false;
	cells = realloc(table->cells, room * sizeof(*cells));
	if (!cells)
		return false;
	table->cells = cells;
	table->room = room;
	return true;
}

/* The formatted text, escaped; the caller frees it. */
static char *make_cell(const char *format, va_list args)
{
	char *raw = NULL, *safe = NULL;
	size_t size;

	if (vasprintf(&raw, format, args) < 0)
		return NULL;
	size = UI_ESCAPE_GROWTH * strlen(raw) + 1;
	safe = malloc(size);
	if (safe)
		ui_escape(raw, safe, size);
	free(raw);
	return safe;
}

void ui_table_cell(struct ui_table *table, const char *format, ...)
{
	va_list args;
	char *cell;

	if (!table || table->failed)
		return;
	va_start(args, format);
	cell = make_cell(format, args);
	va_end(args);
	if (cell && make_room(table)) {
		table->cells[table->ncell++] = cell;
		return;
	}
	free(cell);
	table->failed = true;
}

/* Takes columns from the widest that may shrink until the rows fit, or none can give more. */
static void fit(const struct ui_table *table, size_t *widths, size_t available)
{
	for (;;) {
		size_t total = GAP * (table->ncolumn - 1);
		size_t widest = SIZE_MAX;

		for (size_t c = 0; c < table->ncolumn; c++) {
			total += widths[c];
			if (table->columns[c].shrinks && widths[c] > SHRUNK_MIN &&
			    (widest == SIZE_MAX || widths[c] > widths[widest]))
				widest = c;
		}
		if (total <= available || widest == SIZE_MAX)
			return;
		widths[widest]--;
	}
}

static void print_cell(FILE *out, const char *text, size_t width, enum ui_align align, bool last)
{
	char buffer[1024]; /* of what fits a terminal's line; see fit() */
	const char *shown =
	    ui_width(text) <= width ? text : ui_shorten(text, width, buffer, sizeof(buffer));
	size_t have = ui_width(shown);
	int pad = have < width ? (int)(width - have) : 0;

	if (align == UI_RIGHT)
		fprintf(out, "%*s%s", pad, "", shown);
	else
		fprintf(out, "%s%*s", shown, last ? 0 : pad, "");
	fprintf(out, "%*s", last ? 0 : GAP, "");
}

static void print_titles(const struct ui_table *table, const size_t *widths, FILE *out, bool color)
{
	if (color)
		fputs("\033[1m", out);
	for (size_t c = 0; c < table->ncolumn; c++)
		print_cell(out, table->columns[c].title, widths[c], table->columns[c].align,
			   c + 1 == table->ncolumn);
	fputs(color ? "\033[0m\n" : "\n", out);
}

enum lora_status ui_table_print(const struct ui_table *table, struct ui *ui, struct lora_error *err)
{
	FILE *out = ui_out(ui);
	size_t *widths;

	if (!table || table->failed)
		return opt_fail(err, LORA_SYSTEM, "out of memory: making a table");
	widths = calloc(table->ncolumn, sizeof(*widths));
	if (!widths)
		return opt_fail(err, LORA_SYSTEM, "out of memory: making a table");
	for (size_t c = 0; c < table->ncolumn; c++)
		widths[c] = ui_width(table->columns[c].title);
	for (size_t i = 0; i < table->ncell; i++) {
		size_t width = ui_width(table->cells[i]);

		if (width > widths[i % table->ncolumn])
			widths[i % table->ncolumn] = width;
	}
	if (ui->out_tty)
		fit(table, widths, ui_columns(out));
	print_titles(table, widths, out, ui->out_color);
	for (size_t i = 0; i < table->ncell; i++) {
		size_t c = i % table->ncolumn;

		print_cell(out, table->cells[i], widths[c], table->columns[c].align,
			   c + 1 == table->ncolumn);
		if (c + 1 == table->ncolumn)
			fputc('\n', out);
	}
	free(widths);
	return LORA_OK;
}
