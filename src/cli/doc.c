/* SPDX-License-Identifier: Apache-2.0 */
/* cli/doc.c - `loractl __doc`: manual pages and completions, printed from the tables
 *
 *	loractl __doc man merge man/body/merge.mdoc     a page of the manual, mdoc(7)
 *	loractl __doc bash | zsh | fish                 a completion script
 *
 * It is how scripts/docs makes man/ and completions/, and nobody else's business, hence hidden.
 *
 * A page is a body written by hand, with what the tables know put around and into it:
 *
 * 1. The body's first line is its `.Dd`, the day on which its text was last revised.
 * 2. NAME and SYNOPSIS follow that line.
 * 3. The lines `.\" OPTIONS` and `.\" COMMANDS` are replaced by those sections. A command's body
 *    must have the first, the overview's (its name is "loractl") both.
 *
 * Texts from the tables are plain, so what mdoc would take for markup is escaped: backslashes, a
 * dot or a quote at the beginning of a line, and the dashes of options (a printed hyphen cannot be
 * pasted into a shell). Sentences begin on new lines, as mdoc wants them.
 *
 * Tested by tests/cli/frame_docs.sh
 */
#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "cmd.h"

#define TEXT_BYTES 1024
#define LINE_BYTES 76

/* ---- text to mdoc ------------------------------------------------------------------------- */

/* One word of plain text. */
static void put_word(FILE *out, const char *word, size_t length, bool begins_line)
{
	bool option =
	    length > 1 && word[0] == '-' && (word[1] == '-' || isalpha((unsigned char)word[1]));

	if (begins_line && (word[0] == '.' || word[0] == '\''))
		fputs("\\&", out);
	for (size_t i = 0; i < length; i++) {
		if (word[i] == '\\')
			fputs("\\e", out);
		else if (word[i] == '-' && option)
			fputs("\\-", out);
		else
			fputc(word[i], out);
	}
}

/* Plain text in lines of at most LINE_BYTES, with a new line behind each sentence and at the end.
 */
static void put_text(FILE *out, const char *text)
{
	size_t column = 0;

	while (*text) {
		size_t word = strcspn(text, " ");
		const char *next = text + word + strspn(text + word, " ");
		bool sentence_ends = word && text[word - 1] == '.';

		if (column && column + 1 + word > LINE_BYTES) {
			fputc('\n', out);
			column = 0;
		}
		if (column)
			fputc(' ', out);
		put_word(out, text, word, column == 0);
		column += word + (column != 0);
		if (sentence_ends || !*next) {
			fputc('\n', out);
			column = 0;
		}
		text = next;
	}
}

/* "Fl \-dry\-run" for --dry-run. */
static void put_long(FILE *out, const struct opt *opt)
{
	fputs("Fl \\-", out);
	for (const char *c = opt->name; *c; c++)
		fprintf(out, "%s%c", *c == '-' ? "\\" : "", *c);
}

static void put_value(FILE *out, const struct opt *opt)
{
	char metavar[TEXT_BYTES];

	if (opt->kind != OPT_FLAG)
		fprintf(out, " Ar %s", opt_metavar(opt, metavar, sizeof(metavar)));
}

/* phrase, as a sentence: its first letter in upper case, a full stop behind. */
static void put_sentence(FILE *out, const char *phrase)
{
	char text[TEXT_BYTES];

	snprintf(text, sizeof(text), "%s.", phrase);
	text[0] = (char)toupper((unsigned char)text[0]);
	put_text(out, text);
}

/* ---- the generated sections --------------------------------------------------------------- */

static void put_synopsis_option(FILE *out, const struct opt *opt)
{
	bool required = opt->flags & OPT_REQUIRED;

	fputs(required ? "." : ".Op ", out);
	if (opt->letter)
		fprintf(out, "Fl %c", opt->letter);
	else
		put_long(out, opt);
	put_value(out, opt);
	fputs(opt->kind == OPT_LIST ? " ...\n" : "\n", out);
}

/* The options of the three tables that are required, or those that are not; never -h and --version.
 */
static void put_synopsis_options(FILE *out, const struct cmd *cmd, bool required)
{
	struct opt_set sets[CMD_SETS];
	size_t count = cmd_sets(cmd, NULL, NULL, sets);

	for (size_t s = 0; s < count; s++)
		for (const struct opt *opt = sets[s].opts; opt->name; opt++)
			if (!!(opt->flags & OPT_REQUIRED) == required &&
			    strcmp(opt->name, "help") != 0 && strcmp(opt->name, "version") != 0)
				put_synopsis_option(out, opt);
}

static void put_synopsis(FILE *out, const struct cmd *cmd)
{
	fprintf(out, ".Sh SYNOPSIS\n.Nm loractl %s\n", cmd->name);
	put_synopsis_options(out, cmd, false);
	for (const struct operand *o = cmd->operands; o && o->name; o++)
		fprintf(out, ".%s %s%s\n", o->optional ? "Op Ar" : "Ar", o->name,
			o->repeats ? " ..." : "");
	put_synopsis_options(out, cmd, true);
}

/* One item of the OPTIONS list. */
static void put_option(FILE *out, const struct opt *opt)
{
	const char *without = opt->def ? opt->def : opt->otherwise;
	char text[TEXT_BYTES];

	fputs(".It ", out);
	if (opt->letter)
		fprintf(out, "Fl %c , ", opt->letter);
	put_long(out, opt);
	put_value(out, opt);
	fputc('\n', out);
	put_sentence(out, opt->help);
	if (opt->detail)
		put_text(out, opt->detail);
	if (opt->kind == OPT_LIST)
		put_text(out, "May be given more than once.");
	if (without) {
		snprintf(text, sizeof(text), "Default: %s.", without);
		put_text(out, text);
	}
}

static void put_option_list(FILE *out, const struct opt_set *sets, size_t count)
{
	fputs(".Bl -tag -width Ds\n", out);
	for (size_t s = 0; s < count; s++)
		for (const struct opt *opt = sets[s].opts; opt->name; opt++)
			put_option(out, opt);
	fputs(".El\n", out);
}

/* cmd is NULL in the overview. */
static void put_options(FILE *out, const struct cmd *cmd)
{
	struct opt_set sets[CMD_SETS];
	size_t count = cmd_sets(cmd, NULL, NULL, sets);

	fputs(".Sh OPTIONS\n", out);
	if (sets[0].opts->name) {
		put_option_list(out, sets, 1);
		fputs(".Ss Common options\n", out);
	}
	put_option_list(out, sets + 1, count - 1);
}

static void put_commands(FILE *out)
{
	const struct cmd *cmd;

	fputs(".Sh COMMANDS\n.Bl -tag -width Ds\n", out);
	for (size_t i = 0; (cmd = cmd_at(i)); i++) {
		if (cmd->flags & CMD_HIDDEN)
			continue;
		fprintf(out, ".It Cm %s\n", cmd->name);
		put_sentence(out, cmd->summary);
		fprintf(out, "See\n.Xr loractl-%s 1 .\n", cmd->name);
	}
	fputs(".El\n", out);
}

/* From `.Dt` to the end of SYNOPSIS (2). cmd is NULL in the overview. */
static void put_head(FILE *out, const struct cmd *cmd)
{
	char what[TEXT_BYTES];

	if (!cmd) {
		snprintf(what, sizeof(what), "%s", PROGRAM_SUMMARY);
		what[0] = (char)tolower((unsigned char)what[0]);
		fprintf(out, ".Dt LORACTL 1\n.Os loractl\n.Sh NAME\n.Nm loractl\n.Nd %s\n", what);
		fputs(".Sh SYNOPSIS\n.Nm\n.Ar COMMAND\n.Op Ar OPTIONS\n.Ar ARGS ...\n"
		      ".Nm\n.Fl \\-version\n.Nm\n.Fl \\-help\n",
		      out);
		return;
	}
	fputs(".Dt LORACTL-", out);
	for (const char *c = cmd->name; *c; c++)
		fputc(toupper((unsigned char)*c), out);
	snprintf(what, sizeof(what), "%s", cmd->summary);
	what[0] = (char)tolower((unsigned char)what[0]);
	fprintf(out, " 1\n.Os loractl\n.Sh NAME\n.Nm loractl-%s\n.Nd %s\n", cmd->name, what);
	put_synopsis(out, cmd);
}

/* ---- a page ------------------------------------------------------------------------------- */

/* Copies the body with the generated sections in their places. */
static enum lora_status put_page(FILE *out, const struct cmd *cmd, FILE *body, const char *path,
				 struct lora_error *err)
{
	bool options = false, commands = cmd != NULL;
	enum lora_status status = LORA_OK;
	char *line = NULL;
	size_t room = 0;

	fprintf(out,
		".\\\" Generated by scripts/docs from %s and the tables in src/cli: do not edit.\n",
		path);
	for (size_t number = 1; getline(&line, &room, body) >= 0; number++) {
		if (number == 1 && strncmp(line, ".Dd ", 4) != 0) {
			status =
			    opt_fail(err, LORA_INPUT, "no date: '%s': begin it with .Dd", path);
			goto out;
		}
		if (strcmp(line, ".\\\" OPTIONS\n") == 0) {
			put_options(out, cmd);
			options = true;
		} else if (!cmd && strcmp(line, ".\\\" COMMANDS\n") == 0) {
			put_commands(out);
			commands = true;
		} else {
			fputs(line, out);
		}
		if (number == 1)
			put_head(out, cmd);
	}
	if (ferror(body))
		status = opt_fail(err, LORA_SYSTEM, "cannot read '%s': %s", path, strerror(errno));
	else if (!options || !commands)
		status = opt_fail(err, LORA_INPUT,
				  "no place for a generated section: '%s': add .\\\" %s", path,
				  options ? "COMMANDS" : "OPTIONS");
out:
	free(line);
	return status;
}

static enum lora_status print_man(FILE *out, const char *name, const char *path,
				  struct lora_error *err)
{
	const struct cmd *cmd = NULL;
	enum lora_status status;
	FILE *body;

	if (strcmp(name, "loractl") != 0 && cmd_lookup(name, &cmd, err))
		return err->status;
	body = fopen(path, "r");
	if (!body)
		return opt_fail(err, errno == ENOENT ? LORA_INPUT : LORA_SYSTEM,
				"cannot open '%s': %s", path, strerror(errno));
	status = put_page(out, cmd, body, path, err);
	fclose(body);
	return status;
}

static enum lora_status run(const struct cmd_ctx *ctx, const void *args,
			    const char *const *operands, size_t count)
{
	struct lora_error err = LORA_ERROR_INIT;
	FILE *out = ui_out(ctx->ui);

	(void)args;
	if (strcmp(operands[0], "man") == 0 && count == 3)
		return print_man(out, operands[1], operands[2], &err) ? ui_fail(ctx->ui, &err)
								      : LORA_OK;
	if (count != 1)
		return ui_failf(ctx->ui, LORA_USAGE,
				"wrong arguments: use man NAME BODY, bash, zsh or fish");
	if (strcmp(operands[0], "bash") == 0)
		complete_bash(out);
	else if (strcmp(operands[0], "zsh") == 0)
		complete_zsh(out);
	else if (strcmp(operands[0], "fish") == 0)
		complete_fish(out);
	else
		return ui_failf(ctx->ui, LORA_USAGE,
				"unknown format '%s': use man, bash, zsh or fish", operands[0]);
	return LORA_OK;
}

static const struct operand operands[] = {
    {.name = "FORMAT", .help = "man, bash, zsh or fish"},
    {.name = "NAME", .help = "for man: a command, or loractl", .optional = true},
    {.name = "BODY", .help = "for man: the file with the text", .optional = true},
    {.name = NULL},
};

const struct cmd cmd_doc = {
    .name = "__doc",
    .summary = "Print a manual page or a completion script",
    .operands = operands,
    .flags = CMD_HIDDEN,
    .run = run,
};
