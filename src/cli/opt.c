/* SPDX-License-Identifier: Apache-2.0 */
/* cli/opt.c - reading a command line by its option tables
 *
 * The rules 1 to 5 are in opt.h; the code cites them as (1) to (5). The parser keeps no state but
 * struct opt_scan and the `seen` bits of the sets, so that one line can be read in two steps: the
 * global options in front of the command's name first, the rest with the command's table beside
 * them.
 *
 * Numbers are stricter than strtod and strtoull: no white space, no hexadecimal, no "inf", no sign
 * where none is meant, nothing behind the digits, nothing out of range.
 *
 * Tested by tests/unit/test_opt.c and tests/cli/frame.sh
 */
#include <errno.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "opt.h"
#include "suggest.h"

/* An option that was found on the line, and how it was spelt there. */
struct hit {
	struct opt_set *set;
	const struct opt *opt;
	char spelt[OPT_MAX]; /* "--name" or "-n", for messages */
};

enum lora_status opt_fail(struct lora_error *err, enum lora_status status, const char *format, ...)
{
	va_list args;
	int length;

	va_start(args, format);
	length = vsnprintf(err->message, sizeof(err->message), format, args);
	va_end(args);
	if (length >= (int)sizeof(err->message))
		memcpy(err->message + sizeof(err->message) - 4, "...", 4);
	err->status = status;
	err->sys_errno = 0;
	return status;
}

const char *opt_metavar(const struct opt *opt, char *buffer, size_t size)
{
	size_t used = 0;

	buffer[0] = '\0';
	if (opt->kind == OPT_FLAG)
		return buffer;
	if (opt->metavar || opt->kind != OPT_CHOICE) {
		snprintf(buffer, size, "%s", opt->metavar ? opt->metavar : "VALUE");
		return buffer;
	}
	for (size_t i = 0; opt->choices[i] && used < size; i++)
		used += (size_t)snprintf(buffer + used, size - used, "%s%s", i ? "|" : "",
					 opt->choices[i]);
	return buffer;
}

/* ---- values ------------------------------------------------------------------------------- */

static bool parse_u64(const char *text, uint64_t *value)
{
	char *end;

	if (*text == '\0' || text[strspn(text, "0123456789")] != '\0')
		return false;
	errno = 0;
	*value = strtoull(text, &end, 10);
	return errno == 0 && *end == '\0';
}

/* [+-] digits [. digits] [e [+-] digits], with a digit on at least one side of the point. */
static bool parse_double(const char *text, double *value)
{
	const char *at = text + strspn(text, "+-");
	size_t digits = strspn(at, "0123456789");

	if (at - text > 1)
		return false;
	at += digits;
	if (*at == '.') {
		size_t fraction = strspn(at + 1, "0123456789");

		digits += fraction;
		at += 1 + fraction;
	}
	if (digits == 0)
		return false;
	if (*at == 'e' || *at == 'E') {
		at++;
		if (*at == '+' || *at == '-')
			at++;
		digits = strspn(at, "0123456789");
		if (digits == 0)
			return false;
		at += digits;
	}
	if (*at != '\0')
		return false;
	*value = strtod(text, NULL);
	return isfinite(*value);
}

static enum lora_status set_u64(const struct opt *opt, uint64_t *at, const char *text,
				const char *spelt, struct lora_error *err)
{
	uint64_t max = opt->max ? opt->max : UINT64_MAX;
	uint64_t value;

	if (parse_u64(text, &value) && value >= opt->min && value <= max) {
		*at = value;
		return LORA_OK;
	}
	if (opt->max)
		return opt_fail(err, LORA_USAGE,
				"bad value '%s': option '%s': use a whole number from %llu to %llu",
				text, spelt, (unsigned long long)opt->min, (unsigned long long)max);
	return opt_fail(err, LORA_USAGE,
			"bad value '%s': option '%s': use a whole number from %llu on", text, spelt,
			(unsigned long long)opt->min);
}

static enum lora_status set_double(const struct opt *opt, double *at, const char *text,
				   const char *spelt, struct lora_error *err)
{
	bool bounded = opt->low != 0 || opt->high != 0;
	double value;

	if (parse_double(text, &value) && (!bounded || (value >= opt->low && value <= opt->high))) {
		*at = value;
		return LORA_OK;
	}
	if (bounded)
		return opt_fail(err, LORA_USAGE,
				"bad value '%s': option '%s': use a number from %g to %g", text,
				spelt, opt->low, opt->high);
	return opt_fail(err, LORA_USAGE, "bad value '%s': option '%s': use a decimal number", text,
			spelt);
}

static enum lora_status set_choice(const struct opt *opt, int *at, const char *text,
				   const char *spelt, struct lora_error *err)
{
	char all[256];

	for (int i = 0; opt->choices[i]; i++) {
		if (strcmp(text, opt->choices[i]) == 0) {
			*at = i;
			return LORA_OK;
		}
	}
	for (size_t i = 0, used = 0; opt->choices[i] && used < sizeof(all); i++) {
		const char *between = i == 0 ? "" : opt->choices[i + 1] ? ", " : " or ";

		used += (size_t)snprintf(all + used, sizeof(all) - used, "%s%s", between,
					 opt->choices[i]);
	}
	return opt_fail(err, LORA_USAGE, "bad value '%s': option '%s': use %s", text, spelt, all);
}

static enum lora_status add_to_list(struct opt_list *list, const char *text, struct lora_error *err)
{
	const char **item = realloc(list->item, (list->count + 1) * sizeof(*item));

	if (!item)
		return opt_fail(err, LORA_SYSTEM, "out of memory: reading the command line");
	list->item = item;
	list->item[list->count++] = text;
	return LORA_OK;
}

/* text means nothing for a flag. */
static enum lora_status set_value(const struct opt *opt, void *values, const char *text,
				  const char *spelt, struct lora_error *err)
{
	void *at = (char *)values + opt->at;

	switch (opt->kind) {
	case OPT_FLAG:
		*(bool *)at = true;
		return LORA_OK;
	case OPT_PATH:
		if (*text == '\0')
			return opt_fail(err, LORA_USAGE, "bad value '': option '%s': give a path",
					spelt);
		*(const char **)at = text;
		return LORA_OK;
	case OPT_STRING:
		*(const char **)at = text;
		return LORA_OK;
	case OPT_U64:
		return set_u64(opt, at, text, spelt, err);
	case OPT_DOUBLE:
		return set_double(opt, at, text, spelt, err);
	case OPT_CHOICE:
		return set_choice(opt, at, text, spelt, err);
	case OPT_LIST:
		return add_to_list(at, text, err);
	}
	return LORA_USAGE;
}

/* ---- looking up --------------------------------------------------------------------------- */

static bool find_long(struct opt_scan *scan, const char *name, size_t length, struct hit *hit)
{
	for (size_t s = 0; s < scan->nset; s++) {
		for (const struct opt *opt = scan->sets[s].opts; opt->name; opt++) {
			if (strlen(opt->name) != length || memcmp(opt->name, name, length) != 0)
				continue;
			hit->set = &scan->sets[s];
			hit->opt = opt;
			snprintf(hit->spelt, sizeof(hit->spelt), "--%s", opt->name);
			return true;
		}
	}
	return false;
}

static bool find_letter(struct opt_scan *scan, char letter, struct hit *hit)
{
	for (size_t s = 0; s < scan->nset; s++) {
		for (const struct opt *opt = scan->sets[s].opts; opt->name; opt++) {
			if (!opt->letter || opt->letter != letter)
				continue;
			hit->set = &scan->sets[s];
			hit->opt = opt;
			snprintf(hit->spelt, sizeof(hit->spelt), "-%c", letter);
			return true;
		}
	}
	return false;
}

/* Whether this argument would be read as an option of these tables. */
static bool is_option(struct opt_scan *scan, const char *argument)
{
	struct hit hit;

	if (argument[0] != '-' || argument[1] == '\0')
		return false;
	if (argument[1] != '-')
		return find_letter(scan, argument[1], &hit);
	return argument[2] == '\0' ||
	       find_long(scan, argument + 2, strcspn(argument + 2, "="), &hit);
}

/* word has no dashes. */
static enum lora_status unknown(struct opt_scan *scan, const char *argument, const char *word,
				struct lora_error *err)
{
	const char *names[4 * OPT_MAX];
	size_t count = 0;
	const char *near;
	char name[OPT_MAX];
	int shown = (int)strcspn(argument, "=");

	for (size_t s = 0; s < scan->nset; s++)
		for (const struct opt *opt = scan->sets[s].opts; opt->name; opt++)
			if (count < sizeof(names) / sizeof(names[0]))
				names[count++] = opt->name;
	snprintf(name, sizeof(name), "%.*s", (int)strcspn(word, "="), word);
	near = suggest(name, names, count);
	if (near)
		return opt_fail(err, LORA_USAGE, "unknown option '%.*s': did you mean '--%s'?",
				shown, argument, near);
	return opt_fail(err, LORA_USAGE, "unknown option '%.*s': '-h' lists the options", shown,
			argument);
}

/* ---- the scan ----------------------------------------------------------------------------- */

/* Sets the option that was hit; text is its value, anything for a flag. */
static enum lora_status take(struct opt_scan *scan, const struct hit *hit, const char *text,
			     struct lora_error *err)
{
	uint64_t bit = UINT64_C(1) << (hit->opt - hit->set->opts);

	/* (4) */
	if ((hit->set->seen & bit) && hit->opt->kind != OPT_FLAG && hit->opt->kind != OPT_LIST)
		return opt_fail(err, LORA_USAGE, "option '%s' is given twice: give it one value",
				hit->spelt);
	hit->set->seen |= bit;
	if (hit->opt->flags & OPT_STOP)
		scan->stop = hit->opt;
	return set_value(hit->opt, hit->set->values, text, hit->spelt, err);
}

/* The value that stands in the next argument (5). */
static enum lora_status detached(struct opt_scan *scan, const struct hit *hit, const char **text,
				 struct lora_error *err)
{
	char metavar[128];

	opt_metavar(hit->opt, metavar, sizeof(metavar));
	if (scan->next == scan->argc)
		return opt_fail(err, LORA_USAGE, "option '%s' needs a value: '%s %s'", hit->spelt,
				hit->spelt, metavar);
	*text = scan->argv[scan->next];
	if (is_option(scan, *text))
		return opt_fail(err, LORA_USAGE,
				"option '%s' needs a value, and '%s' is an option: write '--%s=%s' "
				"if it is meant",
				hit->spelt, *text, hit->opt->name, *text);
	scan->next++;
	return LORA_OK;
}

/* argument is "--NAME" or "--NAME=VALUE". */
static enum lora_status scan_long(struct opt_scan *scan, const char *argument,
				  struct lora_error *err)
{
	size_t length = strcspn(argument + 2, "=");
	const char *text = argument[2 + length] == '=' ? argument + 2 + length + 1 : NULL;
	enum lora_status status = LORA_OK;
	struct hit hit;

	if (!find_long(scan, argument + 2, length, &hit))
		return unknown(scan, argument, argument + 2, err); /* (3) */
	if (hit.opt->kind == OPT_FLAG) {
		if (text)
			return opt_fail(err, LORA_USAGE, "option '%s' takes no value: drop '=%s'",
					hit.spelt, text);
	} else if (!text) {
		status = detached(scan, &hit, &text, err);
	}
	return status ? status : take(scan, &hit, text ? text : "", err);
}

/* argument is "-" and letters: flags, the last of which may be an option with its value. */
static enum lora_status scan_letters(struct opt_scan *scan, const char *argument,
				     struct lora_error *err)
{
	for (const char *letter = argument + 1; *letter && !scan->stop; letter++) {
		enum lora_status status = LORA_OK;
		const char *text = "";
		struct hit hit;

		if (!find_letter(scan, *letter, &hit))
			return unknown(scan, argument, argument + 1, err);
		if (hit.opt->kind != OPT_FLAG) {
			text = letter + 1;
			letter += strlen(letter) - 1;
			if (*text == '\0')
				status = detached(scan, &hit, &text, err);
		}
		if (!status)
			status = take(scan, &hit, text, err);
		if (status)
			return status;
	}
	return LORA_OK;
}

enum lora_status opt_scan(struct opt_scan *scan, struct lora_error *err)
{
	bool options_ended = false;

	while (scan->next < scan->argc && !scan->stop) {
		const char *argument = scan->argv[scan->next];
		bool operand = options_ended || argument[0] != '-' || argument[1] == '\0'; /* (1) */
		enum lora_status status = LORA_OK;

		if (operand && scan->leading)
			return LORA_OK;
		scan->next++;
		if (operand)
			scan->operands[scan->noperand++] = argument;
		else if (strcmp(argument, "--") == 0)
			options_ended = true;
		else if (argument[1] == '-')
			status = scan_long(scan, argument, err);
		else
			status = scan_letters(scan, argument, err);
		if (status)
			return status;
	}
	return LORA_OK;
}

/* ---- before and after --------------------------------------------------------------------- */

enum lora_status opt_init(const struct opt_set *set, struct lora_error *err)
{
	for (const struct opt *opt = set->opts; opt->name; opt++) {
		void *at = (char *)set->values + opt->at;
		enum lora_status status = LORA_OK;

		if (opt - set->opts >= OPT_MAX)
			return opt_fail(err, LORA_USAGE, "too many options in one table: '--%s'",
					opt->name);
		if (opt->kind == OPT_CHOICE)
			*(int *)at = -1;
		if (opt->kind == OPT_DOUBLE)
			*(double *)at = NAN;
		if (opt->def)
			status = set_value(opt, set->values, opt->def, opt->name, err);
		if (status)
			return status;
	}
	return LORA_OK;
}

void opt_fini(const struct opt_set *set)
{
	for (const struct opt *opt = set->opts; opt->name; opt++) {
		struct opt_list *list = (void *)((char *)set->values + opt->at);

		if (opt->kind != OPT_LIST)
			continue;
		free(list->item);
		*list = (struct opt_list){NULL, 0};
	}
}

bool opt_given(const struct opt_set *set, const char *name)
{
	for (const struct opt *opt = set->opts; opt->name; opt++)
		if (strcmp(opt->name, name) == 0)
			return set->seen >> (opt - set->opts) & 1;
	return false;
}

enum lora_status opt_check(const struct opt_set *set, struct lora_error *err)
{
	for (const struct opt *opt = set->opts; opt->name; opt++) {
		char metavar[128];

		if (!(opt->flags & OPT_REQUIRED) || opt_given(set, opt->name))
			continue;
		if (opt->unless && opt_given(set, opt->unless))
			continue;
		opt_metavar(opt, metavar, sizeof(metavar));
		if (opt->letter)
			return opt_fail(err, LORA_USAGE, "an option is missing: give '-%c %s'",
					opt->letter, metavar);
		return opt_fail(err, LORA_USAGE, "an option is missing: give '--%s %s'", opt->name,
				metavar);
	}
	return LORA_OK;
}
