/* SPDX-License-Identifier: Apache-2.0 */
/* cli/ui.c - error lines, notes, and the last look at the result
 *
 * A line for stderr is put together first and written in one call, so that the lines of several
 * processes on one terminal stay whole.
 *
 * Was the result written? stdio keeps what it could not write and forgets why. So ui_finish()
 * flushes, looks at the stream's error mark, and closes it too, since some file systems report a
 * full disk only then. A pipe whose reader has gone is told apart by asking the descriptor (poll:
 * POLLERR), because errno of an early failed write is lost by then; `loractl ... | head` is no
 * failure.
 *
 * Tested by tests/unit/test_ui.c, tests/cli/frame_streams.sh
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "opt.h"
#include "ui.h"

#define LINE_BYTES (UI_ESCAPE_GROWTH * LORA_ERROR_SIZE)

static double monotonic_seconds(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

void ui_init(struct ui *ui, FILE *out, FILE *err)
{
	*ui = (struct ui){.out = out, .err = err, .clock = monotonic_seconds};
	ui->out_tty = isatty(fileno(out)) == 1;
	ui->err_tty = isatty(fileno(err)) == 1;
	pthread_mutex_init(&ui->lock, NULL);
	ui_set_color(ui, UI_COLOR_AUTO);
}

void ui_fini(struct ui *ui)
{
	pthread_mutex_destroy(&ui->lock);
}

void ui_set_color(struct ui *ui, enum ui_color color)
{
	const char *no_color = getenv("NO_COLOR");
	const char *term = getenv("TERM");
	bool wanted = !(no_color && *no_color) && term && strcmp(term, "dumb") != 0;

	ui->out_color =
	    color == UI_COLOR_ALWAYS || (color == UI_COLOR_AUTO && wanted && ui->out_tty);
	ui->err_color =
	    color == UI_COLOR_ALWAYS || (color == UI_COLOR_AUTO && wanted && ui->err_tty);
}

bool ui_writable(const struct ui *ui)
{
	int flags = fcntl(fileno(ui->out), F_GETFL);

	return flags != -1 && (flags & O_ACCMODE) != O_RDONLY;
}

FILE *ui_out(struct ui *ui)
{
	pthread_mutex_lock(&ui->lock);
	ui_progress_erase(ui);
	pthread_mutex_unlock(&ui->lock);
	return ui->out;
}

/* "loractl COMMAND: WORD TEXT"; the name in that colour (an SGR sequence or NULL). */
static void print_line(struct ui *ui, const char *color, const char *word, const char *text)
{
	char safe[LINE_BYTES], line[LINE_BYTES + 256];
	bool colored = ui->err_color && color;

	ui_escape(text, safe, sizeof(safe));
	snprintf(line, sizeof(line), "%sloractl%s%s:%s %s%s\n", colored ? color : "",
		 ui->command ? " " : "", ui->command ? ui->command : "", colored ? "\033[0m" : "",
		 word, safe);
	pthread_mutex_lock(&ui->lock);
	ui_progress_erase(ui);
	fputs(line, ui->err);
	fflush(ui->err);
	pthread_mutex_unlock(&ui->lock);
}

enum lora_status ui_fail(struct ui *ui, const struct lora_error *err)
{
	print_line(ui, "\033[1;31m", "", err->message);
	return err->status;
}

enum lora_status ui_failf(struct ui *ui, enum lora_status status, const char *format, ...)
{
	char text[LORA_ERROR_SIZE];
	va_list args;

	va_start(args, format);
	vsnprintf(text, sizeof(text), format, args);
	va_end(args);
	print_line(ui, "\033[1;31m", "", text);
	return status;
}

static void show_note(struct ui *ui, enum lora_note_level level, const char *text)
{
	switch (level) {
	case LORA_NOTE_DETAIL:
		if (ui->verbose)
			print_line(ui, NULL, "", text);
		return;
	case LORA_NOTE_INFO:
		if (!ui->quiet)
			print_line(ui, NULL, "note: ", text);
		return;
	case LORA_NOTE_WARNING:
		if (!ui->quiet)
			print_line(ui, "\033[1;33m", "warning: ", text);
		return;
	case LORA_NOTE_PROBLEM:
		print_line(ui, "\033[1;31m", "", text);
		return;
	}
}

void ui_note(struct ui *ui, enum lora_note_level level, const char *format, ...)
{
	char text[LORA_ERROR_SIZE];
	va_list args;

	va_start(args, format);
	vsnprintf(text, sizeof(text), format, args);
	va_end(args);
	show_note(ui, level, text);
}

static void on_note(void *user, enum lora_note_level level, const char *line)
{
	show_note(user, level, line);
}

static int on_progress(void *user, const struct lora_progress *progress)
{
	return ui_progress_step(user, progress);
}

struct lora_observer ui_observer(struct ui *ui)
{
	return (struct lora_observer){.user = ui, .note = on_note, .progress = on_progress};
}

static bool reader_has_gone(int fd)
{
	struct pollfd ask = {.fd = fd, .events = POLLOUT};

	return poll(&ask, 1, 0) == 1 && (ask.revents & POLLERR);
}

enum lora_status ui_finish(struct ui *ui, enum lora_status status)
{
	FILE *out = ui_out(ui);
	bool failed, closed_pipe;
	int reason;

	errno = 0;
	failed = fflush(out) != 0 || ferror(out);
	reason = errno;
	closed_pipe = failed && (reason == EPIPE || reader_has_gone(fileno(out)));
	errno = 0;
	if (fclose(out) != 0 && !failed) {
		failed = true;
		reason = errno;
	}
	if (!failed || closed_pipe || (status != LORA_OK && status != LORA_NO))
		return status;
	return ui_failf(ui, LORA_SYSTEM, "cannot write the result: standard output: %s",
			reason ? strerror(reason) : "a write failed");
}
