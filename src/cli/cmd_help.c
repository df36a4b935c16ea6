/* SPDX-License-Identifier: Apache-2.0 */
/* cli/cmd_help.c - `loractl help`: the manual page, or the short help where there is none to show
 *
 * Which page? The one that belongs to this very program: beside an installed bin/loractl it is
 * share/man/man1, beside a build in a source tree it is that tree's man/. A page that the system's
 * manual happens to have under the same name may describe another version, so it is not asked for.
 *
 * A page is opened only on a terminal; anywhere else, and where `man` is missing or fails, the text
 * that `-h` prints is the answer.
 */
#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "cmd.h"

/* Where this program lies, without its name: "/usr/bin". */
static bool own_folder(char folder[PATH_MAX])
{
	ssize_t length = readlink("/proc/self/exe", folder, PATH_MAX - 1);
	char *slash;

	if (length <= 0 || length >= PATH_MAX - 1)
		return false;
	folder[length] = '\0';
	slash = strrchr(folder, '/');
	if (!slash)
		return false;
	*slash = '\0';
	return true;
}

/* The page's path ("loractl-merge" is name), if there is one to read. */
static bool find_page(const char *name, char page[PATH_MAX])
{
	char folder[PATH_MAX], mark[PATH_MAX];

	if (!own_folder(folder))
		return false;
	if (snprintf(page, PATH_MAX, "%s/../share/man/man1/%s.1", folder, name) < PATH_MAX &&
	    access(page, R_OK) == 0)
		return true;
	if (snprintf(page, PATH_MAX, "%s/../share/man/man1/%s.1.gz", folder, name) < PATH_MAX &&
	    access(page, R_OK) == 0)
		return true;
	/* build/release/loractl lies two folders below the tree that has src/cli */
	if (snprintf(mark, PATH_MAX, "%s/../../src/cli/commands.def", folder) >= PATH_MAX ||
	    access(mark, R_OK) != 0)
		return false;
	return snprintf(page, PATH_MAX, "%s/../../man/%s.1", folder, name) < PATH_MAX &&
	       access(page, R_OK) == 0;
}

/* Whether `man` showed the page. */
static bool open_page(const char *page)
{
	int status = 0;
	pid_t child = fork();

	if (child < 0)
		return false;
	if (child == 0) {
		ui_signals_restore();
		execlp("man", "man", page, (char *)NULL);
		_exit(127);
	}
	while (waitpid(child, &status, 0) < 0)
		if (errno != EINTR)
			return false;
	return WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

static enum lora_status run(const struct cmd_ctx *ctx, const void *args,
			    const char *const *operands, size_t count)
{
	const struct cmd *cmd = NULL;
	char name[64] = "loractl", page[PATH_MAX];
	struct lora_error err = LORA_ERROR_INIT;

	(void)args;
	if (count && cmd_lookup(operands[0], &cmd, &err))
		return ui_fail(ctx->ui, &err);
	if (cmd)
		snprintf(name, sizeof(name), "loractl-%s", cmd->name);
	if (ctx->ui->out_tty && find_page(name, page) && open_page(page))
		return LORA_OK;
	if (cmd)
		help_command(ui_out(ctx->ui), cmd);
	else
		help_overview(ui_out(ctx->ui));
	return LORA_OK;
}

static const struct operand operands[] = {
    {.name = "COMMAND",
     .help = "the command to read about; without one, loractl itself",
     .hint = HINT_COMMAND,
     .optional = true},
    {.name = NULL},
};

static const struct example examples[] = {
    {"everything about merging", "loractl help merge"},
    {NULL, NULL},
};

const struct cmd cmd_help = {
    .name = "help",
    .summary = "Open the manual page of a command",
    .operands = operands,
    .examples = examples,
    .run = run,
};
