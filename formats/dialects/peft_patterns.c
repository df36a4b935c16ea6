/* SPDX-License-Identifier: Apache-2.0 */
/* formats/dialects/peft_patterns.c - rank_pattern and alpha_pattern: which module has another r
 * or alpha.
 *
 * The rule is Python's, since PEFT applies it: the first KEY, in the file's order, with
 *
 *	re.match(r"(.*\.)?(KEY)$", module)
 *
 * so that a key is a regular expression, its "." matches any character, and "^" holds only at the
 * start of a whole path.
 *
 * [1] Expressions run in PCRE2, as UTF-8 with Unicode classes, as Python's do.
 * [2] The two languages differ in corners. A key that uses one is refused rather than read in
 *     another way than PEFT did: escapes other than \d \D \w \W \s \S \b \B \A \Z \n \r \t and
 *     escaped punctuation; groups other than (...), (?:...), (?=...), (?!...), (?<=...), (?<!...)
 *     and (?P<name>...); PCRE2's (*VERB); {,n}; POSIX classes in brackets.
 * [3] A match that needs more than MATCH_LIMIT steps is refused: such a key is an attack or a
 *     mistake. The product of keys and modules is bounded, too.
 * [4] Keys without any special character but "." (nearly all) are compared directly. */
#define PCRE2_CODE_UNIT_WIDTH 8
#include "formats/dialects/peft.h"

#include "base/error.h"

#include <ctype.h>
#include <pcre2.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MATCH_LIMIT 1000000    /* calls of PCRE2's match(); an honest key needs some thousands */
#define HEAP_LIMIT  16384      /* KiB of backtracking memory */
#define KEY_LIMIT   4096       /* bytes of a key */
#define WORK_LIMIT  200000000u /* keys times modules: a key for each of 14,000 modules */

struct entry {
	const char *key; /* the JSON's */
	double value;
	pcre2_code *code; /* NULL: literal [4] */
	size_t length;
	bool used, told;
};

struct peft_patterns {
	const char *name;
	bool whole; /* re.fullmatch(KEY, module) instead */
	struct entry *entries;
	int count;
	uint64_t work;
	pcre2_match_context *context;
	pcre2_match_data *match;
};

static bool is_literal(const char *key)
{
	for (; *key; key++)
		if (!isalnum((unsigned char)*key) && !strchr("_.-/:", *key))
			return false;
	return true;
}

/* [2] What differs, or NULL. `at` stands on a backslash, a parenthesis, a brace. */
static const char *odd_escape(const char *at)
{
	static const char *const alike = "dDwWsSbBAZnrt";

	if ((unsigned char)at[1] < 0x80 && ispunct((unsigned char)at[1]))
		return NULL;
	return at[1] && strchr(alike, at[1]) ? NULL : "an escape";
}

static const char *odd_group(const char *at)
{
	static const char *const alike[] = {"(?:", "(?=", "(?!", "(?<=", "(?<!", "(?P<", NULL};

	if (at[1] == '*')
		return "'(*'";
	if (at[1] != '?')
		return NULL;
	for (size_t i = 0; alike[i]; i++)
		if (!strncmp(at, alike[i], strlen(alike[i])))
			return NULL;
	return "a group";
}

/* Walks over the whole expression, as it will be compiled. */
static const char *odd_syntax(const char *text)
{
	const char *odd = NULL;
	bool bracket = false;

	for (const char *at = text; *at && !odd; at++) {
		if (*at == '\\') {
			odd = odd_escape(at);
			at += at[1] != 0;
		} else if (bracket) {
			if (*at == '[' && strchr(":.=", at[1]) && at[1])
				odd = "a POSIX class";
			bracket = *at != ']';
		} else if (*at == '[') {
			bracket = true;
			at += at[1] == '^';
			at += at[1] == ']'; /* a ']' that comes first is an ordinary character */
		} else if (*at == '(') {
			odd = odd_group(at);
		} else if (*at == '{' && at[1] == ',') {
			odd = "'{,'";
		}
	}
	return odd;
}

static enum lora_status compile(struct peft_patterns *patterns, struct entry *entry,
				struct lora_error *err)
{
	const char *before = patterns->whole ? "(?:" : "(.*\\.)?(";
	const char *after = patterns->whole ? ")" : ")$";
	char text[KEY_LIMIT + 16];
	PCRE2_UCHAR reason[120];
	PCRE2_SIZE place;
	const char *odd;
	int code;

	snprintf(text, sizeof(text), "%s%s%s", before, entry->key, after);
	odd = odd_syntax(text);
	if (odd)
		return lora__fail(err, LORA_INPUT,
				  "%s: key '%s' uses %s that Python and PCRE2 read differently: "
				  "write it in another way",
				  patterns->name, lora__escape(entry->key), odd);
	entry->code =
	    pcre2_compile((PCRE2_SPTR)text, PCRE2_ZERO_TERMINATED,
			  PCRE2_UTF | PCRE2_UCP | PCRE2_ANCHORED | PCRE2_NEVER_BACKSLASH_C |
			      (patterns->whole ? PCRE2_ENDANCHORED : 0u),
			  &code, &place, NULL);
	if (entry->code)
		return LORA_OK;
	if (code == PCRE2_ERROR_NOMEMORY || code == PCRE2_ERROR_HEAP_FAILED)
		return lora__fail_memory(err);
	pcre2_get_error_message(code, reason, sizeof(reason));
	return lora__fail(err, LORA_INPUT, "%s: key '%s' is no regular expression: %s",
			  patterns->name, lora__escape(entry->key), (const char *)reason);
}

static enum lora_status add_key(struct peft_patterns *patterns, const char *key,
				struct lora_error *err)
{
	struct entry *entry = &patterns->entries[patterns->count];

	entry->key = key;
	entry->length = strlen(key);
	if (entry->length > KEY_LIMIT)
		return lora__fail(err, LORA_INPUT, "%s: a key of %zu bytes is too long",
				  patterns->name, entry->length);
	patterns->count++;
	return is_literal(key) && !patterns->whole ? LORA_OK : compile(patterns, entry, err);
}

static enum lora_status add_entry(struct peft_patterns *patterns, const struct lora_json *member,
				  struct lora_error *err)
{
	const char *key = lora__json_key(member);

	if (!lora__json_double(member, &patterns->entries[patterns->count].value))
		return lora__fail(err, LORA_INPUT, "%s: the value of '%s' is not a number",
				  patterns->name, lora__escape(key));
	return add_key(patterns, key, err);
}

static enum lora_status make_room(struct peft_patterns *patterns, size_t count,
				  struct lora_error *err)
{
	patterns->entries = calloc(count, sizeof(*patterns->entries));
	patterns->context = pcre2_match_context_create(NULL);
	patterns->match = pcre2_match_data_create(1, NULL);
	if (!patterns->entries || !patterns->context || !patterns->match)
		return lora__fail_memory(err);
	pcre2_set_match_limit(patterns->context, MATCH_LIMIT);
	pcre2_set_heap_limit(patterns->context, HEAP_LIMIT);
	return LORA_OK;
}

enum lora_status lora__peft_expression_new(struct peft_patterns **out, const char *key,
					   const char *expression, struct lora_error *err)
{
	struct peft_patterns *patterns = calloc(1, sizeof(*patterns));
	enum lora_status status;

	*out = patterns;
	if (!patterns)
		return lora__fail_memory(err);
	patterns->name = key;
	patterns->whole = true;
	status = make_room(patterns, 1, err);
	return status ? status : add_key(patterns, expression, err);
}

enum lora_status lora__peft_patterns_new(struct peft_patterns **out, const char *key,
					 const struct lora_json *object, struct lora_error *err)
{
	struct peft_patterns *patterns = calloc(1, sizeof(*patterns));
	const struct lora_json *member = object ? lora__json_first(object) : NULL;
	size_t count = object ? lora__json_count(object) : 0;
	enum lora_status status = LORA_OK;

	*out = patterns;
	if (!patterns)
		return lora__fail_memory(err);
	patterns->name = key;
	if (!count)
		return LORA_OK;
	if (count > 10000000)
		return lora__fail(err, LORA_INPUT, "%s: too many keys", key);
	status = make_room(patterns, count, err);
	for (; member && !status; member = lora__json_next(member))
		status = add_entry(patterns, member, err);
	return status;
}

void lora__peft_patterns_free(struct peft_patterns *patterns)
{
	if (!patterns)
		return;
	for (int i = 0; i < patterns->count; i++)
		pcre2_code_free(patterns->entries[i].code);
	pcre2_match_data_free(patterns->match);
	pcre2_match_context_free(patterns->context);
	free(patterns->entries);
	free(patterns);
}

/* [4] KEY stands at the end, at the start of the path or after a dot, its dots matching anything.
 *     A dot of the expression matches a
 * whole character, so this holds for ASCII names only. */
static bool match_literal(const struct entry *entry, const char *name, size_t length)
{
	const char *tail;

	if (length < entry->length)
		return false;
	tail = name + (length - entry->length);
	if (tail != name && tail[-1] != '.')
		return false;
	for (size_t i = 0; i < entry->length; i++)
		if (entry->key[i] != '.' && entry->key[i] != tail[i])
			return false;
	return true;
}

static bool is_ascii(const char *text)
{
	for (; *text; text++)
		if ((unsigned char)*text >= 0x80)
			return false;
	return true;
}

/* [3] */
static enum lora_status match_one(struct peft_patterns *patterns, struct entry *entry,
				  const char *name, bool *matches, struct lora_error *err)
{
	enum lora_status status;
	size_t length = strlen(name);
	int code;

	if (!entry->code && is_ascii(name)) {
		*matches = match_literal(entry, name, length);
		return LORA_OK;
	}
	if (!entry->code) {
		status = compile(patterns, entry, err);
		if (status)
			return status;
	}
	code = pcre2_match(entry->code, (PCRE2_SPTR)name, length, 0, 0, patterns->match,
			   patterns->context);
	*matches = code >= 0;
	if (code >= 0 || code == PCRE2_ERROR_NOMATCH)
		return LORA_OK;
	if (code == PCRE2_ERROR_NOMEMORY)
		return lora__fail_memory(err);
	return lora__fail(err, LORA_INPUT, "%s: key '%s' takes too long to match '%s': simplify it",
			  patterns->name, lora__escape(entry->key), lora__escape(name));
}

enum lora_status lora__peft_patterns_match(struct peft_patterns *patterns, const char *name,
					   int *entry, int *clash, struct lora_error *err)
{
	enum lora_status status = LORA_OK;

	*entry = *clash = -1;
	patterns->work += (uint64_t)patterns->count;
	if (patterns->work > WORK_LIMIT)
		return lora__fail(err, LORA_INPUT, "%s: too many keys for so many modules",
				  patterns->name);
	for (int i = 0; i < patterns->count && !status; i++) {
		struct entry *this = &patterns->entries[i];
		bool matches = false;

		status = match_one(patterns, this, name, &matches, err);
		if (!matches)
			continue;
		this->used = true;
		if (*entry < 0)
			*entry = i;
		else if (*clash < 0 && this->value != patterns->entries[*entry].value)
			*clash = i;
	}
	return status;
}

const char *lora__peft_patterns_key(const struct peft_patterns *patterns, int entry)
{
	return patterns->entries[entry].key;
}

double lora__peft_patterns_value(const struct peft_patterns *patterns, int entry)
{
	return patterns->entries[entry].value;
}

bool lora__peft_patterns_used(const struct peft_patterns *patterns, int entry)
{
	return patterns->entries[entry].used;
}

int lora__peft_patterns_count(const struct peft_patterns *patterns)
{
	return patterns->count;
}

bool lora__peft_patterns_first(struct peft_patterns *patterns, int entry)
{
	bool first = !patterns->entries[entry].told;

	patterns->entries[entry].told = true;
	return first;
}
