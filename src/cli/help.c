/* SPDX-License-Identifier: Apache-2.0 */
/* cli/help.c - what `-h` prints
 *
 *	usage: loractl merge [OPTIONS] BASE ADAPTER[:WEIGHT]... -o OUT
 *	...
 *	Options:
 *	  -o, --output OUT      what it does, wrapped into
 *	                        the right column (default: so)
 *
 * One screen, made from the command's tables alone; explanations are the manual page's. No line is
 * wider than 80 columns; the texts are ASCII, so a byte is a column.
 *
 * Tested by tests/cli/frame.sh
 */
#include <string.h>

#include "cmd.h"

#define WIDTH	   80
#define LEFT	   24 /* columns of the left part, with its indent */
#define TEXT_BYTES 512

/* text into the columns from `indent` on; the cursor stands at column `at`. Ends the line. */
static void print_wrapped(FILE *out, const char *text, size_t indent, size_t at)
{
	while (*text) {
		size_t word = strcspn(text, " ");

		if (at > indent && at + 1 + word > WIDTH) {
			fputc('\n', out);
			at = 0;
		}
		if (at < indent) {
			fprintf(out, "%*s", (int)(indent - at), "");
			at = indent;
		} else if (at > indent) {
			fputc(' ', out);
			at++;
		}
		fprintf(out, "%.*s", (int)word, text);
		at += word;
		text += word + strspn(text + word, " ");
	}
	fputc('\n', out);
}

/* One row: left part, right part wrapped. */
static void print_row(FILE *out, const char *left, const char *right)
{
	size_t at = strlen(left);

	fputs(left, out);
	if (at + 2 > LEFT) {
		fputc('\n', out);
		at = 0;
	}
	print_wrapped(out, right, LEFT, at);
}

const char *help_of_option(const struct opt *opt, char *buffer, size_t size)
{
	const char *without = opt->def ? opt->def : opt->otherwise;

	snprintf(buffer, size, "%s%s%s%s%s", opt->help,
		 opt->kind == OPT_LIST ? "; may be given more than once" : "",
		 without ? " (default: " : "", without ? without : "", without ? ")" : "");
	return buffer;
}

static void print_option(FILE *out, const struct opt *opt)
{
	char metavar[TEXT_BYTES], left[2 * TEXT_BYTES], right[TEXT_BYTES], letter[8] = "    ";

	opt_metavar(opt, metavar, sizeof(metavar));
	if (opt->letter)
		snprintf(letter, sizeof(letter), "-%c, ", opt->letter);
	snprintf(left, sizeof(left), "  %s--%s%s%s", letter, opt->name, *metavar ? " " : "",
		 metavar);
	print_row(out, left, help_of_option(opt, right, sizeof(right)));
}

/* "usage: loractl NAME [OPTIONS] OPERANDS REQUIRED-OPTIONS". */
static void print_usage(FILE *out, const struct cmd *cmd)
{
	char line[2 * TEXT_BYTES], metavar[TEXT_BYTES];
	size_t used =
	    (size_t)snprintf(line, sizeof(line), "usage: loractl %s [OPTIONS]", cmd->name);

	for (const struct operand *o = cmd->operands; o && o->name; o++)
		used += (size_t)snprintf(line + used, sizeof(line) - used, " %s%s%s%s",
					 o->optional ? "[" : "", o->name, o->repeats ? "..." : "",
					 o->optional ? "]" : "");
	for (const struct opt *opt = cmd->opts; opt && opt->name; opt++) {
		if (!(opt->flags & OPT_REQUIRED))
			continue;
		opt_metavar(opt, metavar, sizeof(metavar));
		if (opt->letter)
			used += (size_t)snprintf(line + used, sizeof(line) - used, " -%c %s",
						 opt->letter, metavar);
		else
			used += (size_t)snprintf(line + used, sizeof(line) - used, " --%s %s",
						 opt->name, metavar);
	}
	print_wrapped(out, line, 0, 0);
}

static void print_options(FILE *out, const char *title, const struct opt_set *set)
{
	if (!set->opts->name)
		return;
	if (title)
		fprintf(out, "\n%s:\n", title);
	for (const struct opt *opt = set->opts; opt->name; opt++)
		print_option(out, opt);
}

void help_command(FILE *out, const struct cmd *cmd)
{
	struct opt_set sets[CMD_SETS];
	char left[TEXT_BYTES];

	cmd_sets(cmd, NULL, NULL, sets);
	print_usage(out, cmd);
	fprintf(out, "%s.\n", cmd->summary);
	for (const struct operand *o = cmd->operands; o && o->name; o++) {
		snprintf(left, sizeof(left), "  %s", o->name);
		if (o == cmd->operands)
			fputc('\n', out);
		print_row(out, left, o->help);
	}
	print_options(out, "Options", &sets[0]);
	print_options(out, "Common options", &sets[1]);
	print_options(out, NULL, &sets[2]);
	for (const struct example *e = cmd->examples; e && e->line; e++)
		fprintf(out, "%s  # %s\n  %s\n", e == cmd->examples ? "\nExamples:\n" : "", e->what,
			e->line);
	if (!(cmd->flags & CMD_HIDDEN))
		fprintf(out, "\nThe manual: loractl help %s\n", cmd->name);
}

void help_overview(FILE *out)
{
	struct opt_set sets[CMD_SETS];
	char left[TEXT_BYTES];
	const struct cmd *cmd;

	cmd_sets(NULL, NULL, NULL, sets);
	fputs("usage: loractl COMMAND [OPTIONS] ARGS...\n" PROGRAM_SUMMARY ".\n"
	      "\nCommands:\n",
	      out);
	for (size_t i = 0; (cmd = cmd_at(i)); i++) {
		if (cmd->flags & CMD_HIDDEN)
			continue;
		snprintf(left, sizeof(left), "  %s", cmd->name);
		print_row(out, left, cmd->summary);
	}
	print_options(out, "Common options", &sets[1]);
	fputs("\nOne command: loractl COMMAND -h    Its manual: loractl help COMMAND\n", out);
}

void help_usage(FILE *out)
{
	fputs("usage: loractl COMMAND [OPTIONS] ARGS...\n"
	      "'loractl -h' lists the commands\n",
	      out);
}
