/* SPDX-License-Identifier: Apache-2.0 */
/* cli/cmd.h - what a command is, and what it is given to run.
 *
 * A command is one file, cmd_NAME.c, that holds: its args struct, its option table, its run
 * function, and last `const struct cmd cmd_NAME`, which commands.def lists. Nothing else has to
 * know it: the parser, `-h`, the manual page and the completions are made from that struct.
 *
 * A command writes its result to ui_out() and returns the status that is the exit code; failures go
 * through ui_fail(), which prints the one line. It composes operations of the library and holds
 * no arithmetic and no knowledge of formats.
 */
#ifndef LORA_CLI_CMD_H
#define LORA_CLI_CMD_H

#include <loractl/progress.h>

#include "opt.h"
#include "ui.h"

enum cmd_flags {
	CMD_REPORTS = 1 << 0, /* has a result: takes --json */
	CMD_HIDDEN = 1 << 1,  /* not listed, not completed, no manual page */
};

/* One operand, or several of one sort, in order. */
struct operand {
	const char *name; /* NULL ends the array */
	const char *help; /* as struct opt's */
	enum opt_hint hint;
	bool optional;
	bool repeats; /* the last one only */
};

/* An example for `-h`: what it is good for, and the line to type. */
struct example {
	const char *what;
	const char *line; /* NULL ends the array */
};

/* What every command may ask about the options that all of them have. */
struct cmd_ctx {
	const struct cmd *cmd;
	struct ui *ui;
	const struct lora_observer *observer; /* give it to the library */
	unsigned threads;		      /* 0: every core that this process may use */
	bool json;
	bool verbose;
};

struct cmd {
	const char *name;
	const char *summary; /* one phrase, upper-case first, no full stop */
	const struct operand *operands;
	const struct opt *opts;
	size_t args_size; /* of the args struct; zeroed, then given its defaults */
	unsigned flags;	  /* of enum cmd_flags */
	const struct example *examples;
	enum lora_status (*run)(const struct cmd_ctx *ctx, const void *args,
				const char *const *operands, size_t count);
};

/* The values of the options that every command has. */
struct cmd_globals {
	bool quiet, verbose, json, help, version;
	uint64_t threads;
	int color; /* enum ui_color */
};

/* Commands in the order of commands.def; NULL behind the last. */
const struct cmd *cmd_at(size_t i);
/* By name, the hidden ones too; NULL if there is none. */
const struct cmd *cmd_find(const char *name);
/* The same; where there is none, LORA_USAGE with a message that names the nearest. */
enum lora_status cmd_lookup(const char *name, const struct cmd **out, struct lora_error *err);

/* The option tables that apply to a command, its own first (cmd may be NULL: `loractl` itself).
 * Returns how many of the three places were filled. */
#define CMD_SETS 3
size_t cmd_sets(const struct cmd *cmd, void *args, struct cmd_globals *globals,
		struct opt_set sets[CMD_SETS]);

/* What the whole program is for: one phrase, as struct cmd's summary. */
#define PROGRAM_SUMMARY "Inspect, merge, unmerge and sign LoRA adapters"

/* help.c: the short help of a command, the list of commands, and two lines for whoever typed
 * nothing; all at most 80 columns wide. */
void help_command(FILE *out, const struct cmd *cmd);
void help_overview(FILE *out);
void help_usage(FILE *out);

/* The help of an option with its default behind it, as `-h` and the manual page print it; cut to
 * size. */
const char *help_of_option(const struct opt *opt, char *buffer, size_t size);

/* complete.c: completion scripts. */
void complete_bash(FILE *out);
void complete_zsh(FILE *out);
void complete_fish(FILE *out);

#endif
