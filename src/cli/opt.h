/* SPDX-License-Identifier: Apache-2.0 */
/* cli/opt.h - the option table, from which everything that is said about an option is made.
 *
 * A command describes its options once, as an array of struct opt that ends with a NULL name. The
 * parser (opt.c), `-h` (help.c), the manual page (doc.c) and the completions (complete.c) all read
 * that array and nothing else, so they cannot disagree.
 *
 * Values go into the command's own args struct, at the offset that the option names; there are no
 * globals. What lies there, by kind:
 *
 *	OPT_FLAG    bool             false until given
 *	OPT_STRING  const char *     NULL until given; borrowed from argv
 *	OPT_PATH    const char *     the same, never empty
 *	OPT_U64     uint64_t         0 until given, unless there is a default
 *	OPT_DOUBLE  double           NAN until given, unless there is a default; always finite
 *	OPT_CHOICE  int              index into choices; -1 until given, unless there is a default
 *	OPT_LIST    struct opt_list  every value, in order: the one kind that may be repeated
 *
 * Syntax, the same for every command:
 *
 * 1. Options stand before, between or after the operands; `--` ends them; a lone `-` is an operand.
 * 2. `--name=V`, `--name V`, `-oV` and `-o V` mean the same; flags may share a dash (`-qv`).
 * 3. A prefix of a name is not that option: a script must not change its meaning when one is added.
 * 4. An option with one value is given once; twice is an error, never "the last one wins".
 * 5. A detached value that is itself an option of the command is an error (`-o --force` forgot the
 *    value); the attached spelling takes any text.
 */
#ifndef LORA_CLI_OPT_H
#define LORA_CLI_OPT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <loractl/error.h>

enum opt_kind {
	OPT_FLAG,
	OPT_STRING,
	OPT_PATH,
	OPT_U64,
	OPT_DOUBLE,
	OPT_CHOICE,
	OPT_LIST,
};

/* What a shell completes a value with. */
enum opt_hint {
	HINT_NONE,
	HINT_FILE,
	HINT_DIR,
	HINT_COMMAND,
};

enum opt_flags {
	OPT_STOP = 1 << 0,     /* nothing behind it is read: --help */
	OPT_REQUIRED = 1 << 1, /* must be given, unless the flag named by `unless` is */
};

struct opt_list {
	const char **item; /* count of them, borrowed from argv; the array is freed by opt_fini() */
	size_t count;
};

struct opt {
	enum opt_kind kind;
	char letter;	     /* of the short option, or 0 */
	const char *name;    /* of the long option, without dashes; NULL ends the table */
	const char *metavar; /* name of the value; OPT_CHOICE without one shows its choices */
	const char *help;    /* one phrase, plain ASCII, no full stop: `-h` and the manual page */
	const char *detail;  /* whole sentences for the manual page alone; or NULL */
	size_t at;	     /* offsetof(struct NAME_args, field) */
	const char *const *choices; /* OPT_CHOICE: ends with NULL */
	const char *def;	    /* the default, as text: it is parsed and printed; or NULL */
	const char *otherwise; /* printed where there is no def: what happens without the option */
	uint64_t min, max;     /* OPT_U64, inclusive; a max of 0 is none */
	double low, high;      /* OPT_DOUBLE, inclusive; both 0 is no bound */
	enum opt_hint hint;
	unsigned flags;	    /* of enum opt_flags */
	const char *unless; /* OPT_REQUIRED: name of a flag in the same table; or NULL */
};

/* One table, the struct that its values go to, and which of its options were given (bit i is option
 * i: a table holds at most OPT_MAX). */
#define OPT_MAX 64

struct opt_set {
	const struct opt *opts;
	void *values; /* may be NULL where only the descriptions are read */
	uint64_t seen;
};

/* A command line on its way through the parser. */
struct opt_scan {
	struct opt_set *sets; /* nset of them; a name is looked up in each, in order */
	size_t nset;
	char *const *argv; /* argc of them */
	size_t argc;
	size_t next;	       /* the first that was not read */
	bool leading;	       /* stop in front of the first operand */
	const char **operands; /* filled by the scan: room for argc; may be NULL if leading */
	size_t noperand;
	const struct opt *stop; /* the OPT_STOP option that ended the scan, or NULL */
};

/* Defaults into set->values (which must be zeroed). LORA_USAGE if the table itself is wrong. */
enum lora_status opt_init(const struct opt_set *set, struct lora_error *err);
void opt_fini(const struct opt_set *set);

/* Reads scan->argv from scan->next on. LORA_USAGE with the message; LORA_SYSTEM without memory. */
enum lora_status opt_scan(struct opt_scan *scan, struct lora_error *err);

/* Whether every required option was given. LORA_USAGE names the first that was not. */
enum lora_status opt_check(const struct opt_set *set, struct lora_error *err);

/* Whether that option of the set (by its long name) was given. */
bool opt_given(const struct opt_set *set, const char *name);

/* Text of the value as help shows it: the metavar, or the choices with '|' between. Truncated to
 * size; empty for a flag. */
const char *opt_metavar(const struct opt *opt, char *buffer, size_t size);

/* Sets err, which must not be NULL, and returns status. */
enum lora_status opt_fail(struct lora_error *err, enum lora_status status, const char *format, ...)
    LORA_PRINTF(3, 4);

#endif
