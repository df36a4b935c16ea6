/* SPDX-License-Identifier: Apache-2.0 */
/* cli/cmd.c - the list of commands, and the options that all of them have
 *
 * Tested by tests/cli/frame.sh, tests/cli/frame_docs.sh
 */
#include <string.h>

#include "cmd.h"
#include "suggest.h"

#define COMMAND(name) extern const struct cmd cmd_##name;
#include "commands.def"
#undef COMMAND

static const struct cmd *const commands[] = {
#define COMMAND(name) &cmd_##name,
#include "commands.def"
#undef COMMAND
    NULL,
};

#define COMMAND_COUNT (sizeof(commands) / sizeof(commands[0]) - 1)

static const char *const color_choices[] = {"auto", "always", "never", NULL};

static const struct opt global_opts[] = {
    {
	.kind = OPT_FLAG,
	.letter = 'q',
	.name = "quiet",
	.help = "print errors only",
	.at = offsetof(struct cmd_globals, quiet),
    },
    {
	.kind = OPT_FLAG,
	.letter = 'v',
	.name = "verbose",
	.help = "print details",
	.at = offsetof(struct cmd_globals, verbose),
    },
    {
	.kind = OPT_U64,
	.name = "threads",
	.metavar = "N",
	.help = "use N threads",
	.detail = "The result is the same for every N.",
	.otherwise = "the cores this process may use",
	.min = 1,
	.max = 4096,
	.at = offsetof(struct cmd_globals, threads),
    },
    {
	.kind = OPT_CHOICE,
	.name = "color",
	.choices = color_choices,
	.def = "auto",
	.help = "colour the output",
	.detail = "With auto, a terminal gets colours unless NO_COLOR is set.",
	.at = offsetof(struct cmd_globals, color),
    },
    {
	.kind = OPT_FLAG,
	.letter = 'h',
	.name = "help",
	.help = "print a short help and stop",
	.flags = OPT_STOP,
	.at = offsetof(struct cmd_globals, help),
    },
    {
	.kind = OPT_FLAG,
	.name = "version",
	.help = "print the version and stop",
	.detail = "With --verbose also the processor's kernels in use and the compiler.",
	.at = offsetof(struct cmd_globals, version),
    },
    {.name = NULL},
};

static const struct opt report_opts[] = {
    {
	.kind = OPT_FLAG,
	.name = "json",
	.help = "print the result as JSON",
	.detail = "For every command that has a result; its page describes the schema.",
	.at = offsetof(struct cmd_globals, json),
    },
    {.name = NULL},
};

static const struct opt no_opts[] = {{.name = NULL}};

const struct cmd *cmd_at(size_t i)
{
	return i < COMMAND_COUNT ? commands[i] : NULL;
}

const struct cmd *cmd_find(const char *name)
{
	for (size_t i = 0; commands[i]; i++)
		if (strcmp(commands[i]->name, name) == 0)
			return commands[i];
	return NULL;
}

enum lora_status cmd_lookup(const char *name, const struct cmd **out, struct lora_error *err)
{
	const char *names[COMMAND_COUNT];
	const char *near;
	size_t count = 0;

	*out = cmd_find(name);
	if (*out)
		return LORA_OK;
	for (size_t i = 0; commands[i]; i++)
		if (!(commands[i]->flags & CMD_HIDDEN))
			names[count++] = commands[i]->name;
	near = suggest(name, names, count);
	if (near)
		return opt_fail(err, LORA_USAGE, "unknown command '%s': did you mean '%s'?", name,
				near);
	return opt_fail(err, LORA_USAGE, "unknown command '%s': 'loractl -h' lists the commands",
			name);
}

size_t cmd_sets(const struct cmd *cmd, void *args, struct cmd_globals *globals,
		struct opt_set sets[CMD_SETS])
{
	bool reports = !cmd || (cmd->flags & CMD_REPORTS);

	sets[0] = (struct opt_set){cmd && cmd->opts ? cmd->opts : no_opts, args, 0};
	sets[1] = (struct opt_set){global_opts, globals, 0};
	sets[2] = (struct opt_set){reports ? report_opts : no_opts, globals, 0};
	return CMD_SETS;
}
