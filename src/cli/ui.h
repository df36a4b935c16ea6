/* SPDX-License-Identifier: Apache-2.0 */
/* cli/ui.h - everything that reaches the user: results, error lines, notes, progress, tables.
 *
 * stdout carries the result, stderr everything else.
 *
 * 1. An error is one line, `loractl COMMAND: what: where: what to do`.
 * 2. No control character that came from a file or from argv reaches a terminal: every line and
 *    every cell passes ui_escape().
 * 3. A progress bar is erased before anything else is printed.
 * 4. A result that could not be written is a failure, found at the latest at exit; but a reader who
 *    closes the pipe had enough: that is none.
 */
#ifndef LORA_CLI_UI_H
#define LORA_CLI_UI_H

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <loractl/error.h>
#include <loractl/progress.h>

enum ui_color { /* in the order of --color's choices */
		UI_COLOR_AUTO,
		UI_COLOR_ALWAYS,
		UI_COLOR_NEVER,
};

/* The stage that the library is in, as far as it was shown. Times are seconds of ui->clock. */
struct ui_progress {
	const char *stage;   /* NULL before the first call */
	double work_began;   /* the first call of all */
	double stage_began;  /* the first call of this stage */
	uint64_t stage_from; /* bytes that were done then */
	double drawn;	     /* when the bar was last drawn */
	int step;	     /* tenths of the stage that were last reported as a line */
	bool visible;	     /* a bar stands on the terminal's last line */
};

struct ui {
	FILE *out, *err;
	const char *command; /* NULL before it is known */
	bool out_tty, err_tty;
	bool out_color, err_color;
	bool quiet, verbose;
	double (*clock)(void); /* monotonic seconds; tests bring their own */
	struct ui_progress progress;
	pthread_mutex_t lock; /* progress may come from a worker while a note is printed */
};

/* Colours as for UI_COLOR_AUTO: on a terminal, unless NO_COLOR is set or TERM is "dumb". */
void ui_init(struct ui *ui, FILE *out, FILE *err);
void ui_fini(struct ui *ui);
void ui_set_color(struct ui *ui, enum ui_color color);

/* Where a result is written. Erases the bar first. */
FILE *ui_out(struct ui *ui);

/* Can anything be written there at all? Not when the descriptor was closed at the start. */
bool ui_writable(const struct ui *ui);

/* Prints the error line and returns its status, for `return ui_fail(ctx->ui, &err)`. */
enum lora_status ui_fail(struct ui *ui, const struct lora_error *err);
enum lora_status ui_failf(struct ui *ui, enum lora_status status, const char *format, ...)
    LORA_PRINTF(3, 4);

/* The observer through which the library speaks: notes, progress, and cancelling by a signal. */
struct lora_observer ui_observer(struct ui *ui);

/* A note of the command itself. */
void ui_note(struct ui *ui, enum lora_note_level level, const char *format, ...) LORA_PRINTF(3, 4);

/* Flushes and closes ui->out. Returns status, or LORA_SYSTEM after a message when the result could
 * not be written; a closed pipe is no failure. Call once, last. */
enum lora_status ui_finish(struct ui *ui, enum lora_status status);

/* ---- ui_signal.c */

/* From here on SIGINT, SIGTERM and SIGHUP ask the work to stop (the observer then cancels); a
 * second one ends the process at once, with unfinished outputs removed. SIGPIPE is ignored. */
void ui_signals_start(void);
bool ui_interrupted(void);
/* In a child, before exec: the signals as they were. */
void ui_signals_restore(void);

/* ---- ui_progress.c */

int ui_progress_step(struct ui *ui, const struct lora_progress *progress);
/* Erases the bar; the caller holds ui->lock. */
void ui_progress_erase(struct ui *ui);

/* ---- ui_text.c: text for people. The returned pointer is buffer. */

#define UI_TEXT 32

const char *ui_size(uint64_t bytes, char buffer[UI_TEXT]);    /* "17 B", "1.25 GiB" */
const char *ui_seconds(double seconds, char buffer[UI_TEXT]); /* "0:07", "1:02:03" */
const char *ui_count(uint64_t count, char buffer[UI_TEXT]);   /* "6,738,415,616" */

/* text with control characters, broken UTF-8 and bidirectional overrides made visible (\n, \x1b,
 * \u{202e}): cut to size. What is already escaped stays as it is. The result is at most
 * UI_ESCAPE_GROWTH times as long. */
#define UI_ESCAPE_GROWTH 4
const char *ui_escape(const char *text, char *buffer, size_t size);

/* Columns of UTF-8 text on a terminal. */
size_t ui_width(const char *text);
/* text, cut in its middle to at most `width` (5 or more) columns. */
const char *ui_shorten(const char *text, size_t width, char *buffer, size_t size);
/* Columns of the terminal behind `file`; 80 if there is none. */
size_t ui_columns(FILE *file);

/* ---- ui_table.c: rows in aligned columns. */

enum ui_align {
	UI_LEFT,
	UI_RIGHT,
};

struct ui_column {
	const char *title;
	enum ui_align align;
	bool shrinks; /* may be cut in the middle where a terminal is too narrow */
};

struct ui_table;

/* NULL without memory, which the other functions take, and ui_table_print reports. The columns are
 * borrowed until ui_table_free. */
struct ui_table *ui_table_new(const struct ui_column *columns, size_t count);
void ui_table_free(struct ui_table *table);
/* The next cell, row after row. */
void ui_table_cell(struct ui_table *table, const char *format, ...) LORA_PRINTF(2, 3);
/* Titles and rows to ui_out(). Unless it goes to a terminal nothing is ever cut. */
enum lora_status ui_table_print(const struct ui_table *table, struct ui *ui,
				struct lora_error *err);

#endif
