/* SPDX-License-Identifier: Apache-2.0 */
/* cli/ui_progress.c - how far the work is, for those who wait for it
 *
 * On a terminal: one line at the bottom, redrawn at most ten times a second and erased before
 * anything else is printed. It shows up when the work has lasted a second, so that short work
 * leaves no flicker.
 *
 *	merge [############--------]  60 %  2.04 GiB of 3.40 GiB  830 MiB/s  0:02 left
 *
 * Anywhere else (a log, a pipe): a plain line at each tenth, for stages that last a second or more.
 *
 *	loractl merge: hash base: 60 % (2.04 GiB of 3.40 GiB, 830 MiB/s)
 *
 * The rate is the mean since the stage began. Calls may come from any worker, never two at a time.
 *
 * Tested by tests/unit/test_ui.c
 */
#include <string.h>

#include "ui.h"

#define PATIENCE      1.0 /* seconds of work before anything is shown */
#define REDRAW	      0.1 /* seconds between two drawings */
#define BAR_MAX	      30  /* cells of the bar */
#define BAR_MIN	      8	  /* with fewer there is no bar */
#define FIGURES_BYTES 160

void ui_progress_erase(struct ui *ui)
{
	if (!ui->progress.visible)
		return;
	fputs("\r\033[K", ui->err);
	fflush(ui->err);
	ui->progress.visible = false;
}

static void enter_stage(struct ui_progress *seen, const struct lora_progress *progress, double now)
{
	if (!seen->stage)
		seen->work_began = now;
	else if (strcmp(seen->stage, progress->stage) == 0)
		return;
	seen->stage = progress->stage;
	seen->stage_began = now;
	seen->stage_from = progress->done;
	seen->step = 0;
}

/* Bytes a second since the stage began; 0 while there is nothing to say. */
static double rate_of(const struct ui_progress *seen, const struct lora_progress *progress,
		      double now)
{
	double elapsed = now - seen->stage_began;

	if (elapsed <= 0 || progress->done <= seen->stage_from)
		return 0;
	return (double)(progress->done - seen->stage_from) / elapsed;
}

static double share_of(const struct lora_progress *progress)
{
	if (progress->total == 0)
		return 0;
	if (progress->done >= progress->total)
		return 1;
	return (double)progress->done / (double)progress->total;
}

static void format_figures(const struct lora_progress *progress, double rate,
			   char figures[FIGURES_BYTES])
{
	char done[UI_TEXT], total[UI_TEXT], speed[UI_TEXT], left[UI_TEXT];
	size_t used;

	ui_size(progress->done, done);
	ui_size((uint64_t)rate, speed);
	if (progress->total)
		used = (size_t)snprintf(figures, FIGURES_BYTES, " %3d %%  %s of %s",
					(int)(100 * share_of(progress)), done,
					ui_size(progress->total, total));
	else
		used = (size_t)snprintf(figures, FIGURES_BYTES, "  %s", done);
	if (rate < 1)
		return;
	used += (size_t)snprintf(figures + used, FIGURES_BYTES - used, "  %s/s", speed);
	if (progress->total > progress->done)
		snprintf(figures + used, FIGURES_BYTES - used, "  %s left",
			 ui_seconds((double)(progress->total - progress->done) / rate, left));
}

static void draw_bar(struct ui *ui, const struct lora_progress *progress, double now)
{
	char figures[FIGURES_BYTES], cells[BAR_MAX + 1] = "";
	size_t columns = ui_columns(ui->err) - 1; /* the last column would wrap */
	size_t stage = strlen(progress->stage), room;

	format_figures(progress, rate_of(&ui->progress, progress, now), figures);
	room = columns > stage + strlen(figures) + 3 ? columns - stage - strlen(figures) - 3 : 0;
	if (room > BAR_MAX)
		room = BAR_MAX;
	if (room >= BAR_MIN && progress->total) {
		memset(cells, '-', room);
		memset(cells, '#', (size_t)(share_of(progress) * (double)room));
	}
	fprintf(ui->err, "\r%.*s%s%s%s%.*s\033[K", (int)columns, progress->stage,
		*cells ? " [" : "", cells, *cells ? "]" : "",
		(int)(columns > stage ? columns - stage : 0), figures);
	fflush(ui->err);
	ui->progress.visible = true;
	ui->progress.drawn = now;
}

static void print_step(struct ui *ui, const struct lora_progress *progress, double now)
{
	struct ui_progress *seen = &ui->progress;
	int tenth = (int)(10 * share_of(progress));
	char done[UI_TEXT], total[UI_TEXT], speed[UI_TEXT];
	double rate = rate_of(seen, progress, now);

	if (tenth <= seen->step)
		return;
	seen->step = tenth;
	fprintf(ui->err, "loractl%s%s: %s: %d %% (%s of %s", ui->command ? " " : "",
		ui->command ? ui->command : "", progress->stage, 10 * tenth,
		ui_size(progress->done, done), ui_size(progress->total, total));
	if (rate >= 1)
		fprintf(ui->err, ", %s/s", ui_size((uint64_t)rate, speed));
	fputs(")\n", ui->err);
	fflush(ui->err);
}

int ui_progress_step(struct ui *ui, const struct lora_progress *progress)
{
	struct ui_progress *seen = &ui->progress;
	bool finished = progress->total && progress->done >= progress->total;
	double now;

	if (ui_interrupted())
		return 1;
	if (ui->quiet)
		return 0;
	pthread_mutex_lock(&ui->lock);
	now = ui->clock();
	enter_stage(seen, progress, now);
	if (!ui->err_tty) {
		if (now - seen->stage_began >= PATIENCE)
			print_step(ui, progress, now);
	} else if (finished) {
		ui_progress_erase(ui);
	} else if (now - seen->work_began >= PATIENCE && now - seen->drawn >= REDRAW) {
		draw_bar(ui, progress, now);
	}
	pthread_mutex_unlock(&ui->lock);
	return 0;
}
