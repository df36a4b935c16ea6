/* SPDX-License-Identifier: Apache-2.0 */
/* net/tokenizer_regex.c - the expressions of a tokenizer.json, run by PCRE2
 *
 * They are written for Oniguruma (its Ruby syntax). Where the two languages agree, an expression is
 * passed on; where they differ and the difference can be spelled out, it is:
 *
 *	\s \S	\p{White_Space} \P{White_Space}		PCRE2's \s has U+180E too
 *	\w	[\p{Alphabetic}\p{M}\p{Nd}\p{Pc}...]	PCRE2's lacks marks; Oniguruma's has U+00B2
 *and other digits of Latin-1 \p{Han}	\p{sc:Han}				PCRE2 means
 *Script_Extensions \u2019	\x{2019} ^ $	at every line, the option PCRE2_MULTILINE
 *
 * 1. Whatever else might be read differently is refused by name: so that an expression means what
 *    it meant where the model was trained, or nothing. An expression that asks for more than the
 *    known tokenizers do is more likely to be an attack than a need.
 * 2. A match that takes more than MATCH_LIMIT steps, or HEAP_LIMIT of memory, is refused.
 * 3. Which characters are letters is a matter of the Unicode version: PCRE2's tables decide about
 *    characters that were assigned lately.
 * 4. In (?i:...) Oniguruma also lets several characters match one ("ss" and U+00DF): refused are
 *    the pairs for which that exists, and everything but ASCII.
 */
#define PCRE2_CODE_UNIT_WIDTH 8
#include <ctype.h>
#include <pcre2.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "base/error.h"
#include "net/tokenizer.h"

#define PATTERN_LIMIT 16384u /* bytes; the longest known has 700 */
/* PCRE2's count of steps for one match: a row of n blanks needs n. */
#define MATCH_LIMIT(size) (100000 + 2 * (size))
#define HEAP_LIMIT	  65536u /* KiB */
#define GROUPS		  64u
#define GROWTH		  40u /* bytes for each of the pattern's two, and more */

struct lora_regex {
	pcre2_code *code;
};

struct lora_matcher {
	pcre2_match_data *data;
	pcre2_match_context *context;
};

/* --- Oniguruma's language to PCRE2's ---------------------------------------------- */

struct translation {
	const char *at;
	char *to;	     /* GROWTH times the pattern: \w is the longest */
	const char *problem; /* what is not supported */
	char shown[40];	     /* its spelling */
	bool in_class;
	bool caseless[GROUPS]; /* by depth of parentheses */
	unsigned depth;
};

static bool refuse(struct translation *t, const char *problem, const char *from, size_t length)
{
	if (length >= sizeof t->shown)
		length = sizeof t->shown - 1;
	memcpy(t->shown, from, length);
	t->shown[length] = '\0';
	t->problem = problem;
	return false;
}

static bool put(struct translation *t, const char *text)
{
	size_t length = strlen(text);

	memcpy(t->to, text, length);
	t->to += length;
	return true;
}

static bool copy(struct translation *t, size_t length)
{
	memcpy(t->to, t->at, length);
	t->to += length;
	t->at += length;
	return true;
}

/* \p{NAME}: the general categories, and the scripts that tokenizers name. */
static bool put_property(struct translation *t)
{
	static const char categories[] =
	    " L Lu Ll Lt Lm Lo M Mn Mc Me N Nd Nl No P Pc Pd Ps Pe Pi Pf Po S Sm Sc Sk So Z Zs Zl "
	    "Zp C Cc Cf Co Cn ";
	static const char scripts[] = " Han Hiragana Katakana Hangul Latin Greek Cyrillic Arabic "
				      "Hebrew Thai Devanagari Bengali Tamil Telugu Armenian "
				      "Georgian Khmer Lao Tibetan Myanmar Ethiopic Mongolian ";
	const char *from = t->at, *name = from + 3, *end = strchr(from, '}');
	char padded[20];
	bool script;

	if (from[2] != '{' || end == NULL || end - name > 16)
		return refuse(t, "a property", from, 3);
	name += *name == '^';
	(void)snprintf(padded, sizeof padded, " %.*s ", (int)(end - name), name);
	script = strstr(scripts, padded) != NULL;
	if (end == name || (!script && strstr(categories, padded) == NULL))
		return refuse(t, "a property", from, (size_t)(end + 1 - from));
	if (t->caseless[t->depth])
		return refuse(t, "a property without regard to case", from,
			      (size_t)(end + 1 - from));
	(void)copy(t, (size_t)(name - from));
	if (script)
		(void)put(t, "sc:");
	return copy(t, (size_t)(end + 1 - name));
}

/* \xHH (ASCII only), \x{H...}, \uHHHH */
static bool put_number(struct translation *t)
{
	const char *from = t->at;
	size_t digits = 0, skip = from[1] == 'x' && from[2] == '{' ? 3 : 2;
	char text[16];

	while (isxdigit((unsigned char)from[skip + digits]) && digits < 8)
		digits++;
	if (skip == 3	     ? digits < 1 || digits > 6 || from[skip + digits] != '}'
	    : from[1] == 'u' ? digits < 4
			     : digits < 2 || from[skip] > '7')
		return refuse(t, "a character by number", from, skip + digits);
	if (skip == 2)
		digits = from[1] == 'u' ? 4 : 2;
	(void)snprintf(text, sizeof text, "\\x{%.*s}", (int)digits, from + skip);
	t->at += skip + digits + (skip == 3);
	return put(t, text);
}

#define WORD "\\p{Alphabetic}\\p{M}\\p{Nd}\\p{Pc}\\x{b2}\\x{b3}\\x{b9}\\x{bc}-\\x{be}"

static bool put_escape(struct translation *t)
{
	unsigned char next = (unsigned char)t->at[1];
	const char *text = NULL;

	if (next == 'p' || next == 'P')
		return put_property(t);
	if (next == 'x' || next == 'u')
		return put_number(t);
	if (next == 's')
		text = "\\p{White_Space}";
	else if (next == 'S')
		text = "\\P{White_Space}";
	else if (next == 'w')
		text = t->in_class ? WORD : "[" WORD "]";
	else if (next == 'W' && !t->in_class)
		text = "[^" WORD "]";
	if (text != NULL) {
		t->at += 2;
		return put(t, text);
	}
	if (next < 0x80 && (ispunct(next) || (next != 0 && strchr("nrtfdD", next) != NULL) ||
			    (!t->in_class && next != 0 && strchr("AzZ", next) != NULL)))
		return copy(t, 2);
	return refuse(t, "an escape", t->at, next == 0 ? 1 : 2);
}

static bool put_group(struct translation *t)
{
	static const char *const known[] = {"(?:", "(?=", "(?!", "(?<=", "(?<!", "(?>", "(?i:"};
	size_t length = t->at[1] == '?' ? 0 : 1;
	bool caseless = t->caseless[t->depth];

	if (t->at[1] == '*')
		return refuse(t, "a verb", t->at, 2);
	for (size_t i = 0; length == 0 && i < sizeof known / sizeof *known; i++)
		if (strncmp(t->at, known[i], strlen(known[i])) == 0) {
			length = strlen(known[i]);
			caseless = caseless || known[i][2] == 'i';
		}
	if (length == 0)
		return refuse(t, "a group", t->at, strnlen(t->at, 3));
	if (t->depth + 1 == GROUPS)
		return refuse(t, "groups this deep", t->at, 1);
	t->caseless[++t->depth] = caseless;
	return copy(t, length);
}

/* {n} {n,} {n,m}, and {n,}? {n,m}?; in Ruby's syntax a + behind is no possessive and {n}? is an
 * option. */
static bool put_counts(struct translation *t)
{
	const char *from = t->at, *end = from + 1;
	bool range = false;

	while (isdigit((unsigned char)*end))
		end++;
	if (*end == ',' && end > from + 1) {
		range = true;
		end++;
		while (isdigit((unsigned char)*end))
			end++;
	}
	if (*end != '}' || end == from + 1 || end[1] == '+' || (end[1] == '?' && !range))
		return refuse(t, "a repetition", from, strnlen(from, 8));
	return copy(t, (size_t)(end + 1 - from));
}

static bool put_class_begin(struct translation *t)
{
	size_t length = t->at[1] == '^' ? 2 : 1;

	t->in_class = true;
	if (t->at[length] == ']' || t->at[length] == '[')
		return refuse(t, "a class", t->at, length + 1);
	return copy(t, length);
}

/* [4] */
static bool is_folded_pair(const char *at)
{
	static const char *const pairs[] = {"ss", "st", "ff", "fi", "fl"};

	for (size_t i = 0; i < sizeof pairs / sizeof *pairs; i++)
		if (strncasecmp(at, pairs[i], 2) == 0)
			return true;
	return false;
}

static bool put_one(struct translation *t)
{
	unsigned char c = (unsigned char)*t->at;

	if (c == '\\')
		return put_escape(t);
	if (t->caseless[t->depth] && (c >= 0x80 || (!t->in_class && is_folded_pair(t->at))))
		return refuse(t, "letters without regard to case", t->at, strnlen(t->at, 2));
	if (t->in_class) {
		if (c == '[' || (c == '&' && t->at[1] == '&'))
			return refuse(t, "a class in a class", t->at, strnlen(t->at, 2));
		t->in_class = c != ']';
		return copy(t, 1);
	}
	if (c == '[')
		return put_class_begin(t);
	if (c == '(')
		return put_group(t);
	if (c == '{')
		return put_counts(t);
	if (c == ')' && t->depth > 0)
		t->depth--;
	return copy(t, 1);
}

/* --- compiling -------------------------------------------------------------------- */

/* White space by property in a pattern: PCRE2 since 10.40. */
static enum lora_status compile(struct lora_regex *regex, const char *pattern, const char *shown,
				uint32_t options, struct lora_error *err)
{
	pcre2_compile_context *context = pcre2_compile_context_create(NULL);
	PCRE2_UCHAR reason[160];
	PCRE2_SIZE place = 0;
	int code = 0;

	if (context == NULL)
		return lora__fail_memory(err);
	(void)pcre2_set_newline(context, PCRE2_NEWLINE_LF);
	regex->code = pcre2_compile((PCRE2_SPTR)pattern, PCRE2_ZERO_TERMINATED, options, &code,
				    &place, context);
	pcre2_compile_context_free(context);
	if (regex->code == NULL) {
		if (code == PCRE2_ERROR_NOMEMORY || code == PCRE2_ERROR_HEAP_FAILED)
			return lora__fail_memory(err);
		(void)pcre2_get_error_message(code, reason, sizeof reason);
		return lora__fail(err, LORA_INPUT, "expression '%s': %s", lora__escape(shown),
				  (const char *)reason);
	}
	/* Where there is no compiler to machine code, the interpreter does it. */
	(void)pcre2_jit_compile(regex->code, PCRE2_JIT_COMPLETE);
	return LORA_OK;
}

static enum lora_status compile_translated(struct lora_regex *regex, const char *pattern,
					   struct lora_error *err)
{
	char *text = malloc(strlen(pattern) * GROWTH + 1);
	struct translation t = {.at = pattern, .to = text};
	enum lora_status status;

	if (text == NULL)
		return lora__fail_memory(err);
	while (*t.at != '\0' && put_one(&t))
		;
	*t.to = '\0';
	if (t.problem != NULL)
		status = lora__fail(err, LORA_INPUT, "expression '%s': %s ('%s') is not supported",
				    lora__escape(pattern), t.problem, lora__escape(t.shown));
	else
		status =
		    compile(regex, text, pattern,
			    PCRE2_UTF | PCRE2_UCP | PCRE2_MULTILINE | PCRE2_NEVER_BACKSLASH_C, err);
	free(text);
	return status;
}

enum lora_status lora__regex_compile(struct lora_regex **out, const char *pattern, bool plain,
				     struct lora_error *err)
{
	struct lora_regex *regex = calloc(1, sizeof *regex);
	enum lora_status status;

	*out = NULL;
	if (regex == NULL)
		return lora__fail_memory(err);
	if (strlen(pattern) > PATTERN_LIMIT)
		status = lora__fail(err, LORA_INPUT, "an expression of %zu bytes is too long",
				    strlen(pattern));
	else if (*pattern == '\0')
		status = lora__fail(err, LORA_INPUT, "an empty pattern is not supported");
	else if (plain)
		status = compile(regex, pattern, pattern, PCRE2_UTF | PCRE2_LITERAL, err);
	else
		status = compile_translated(regex, pattern, err);
	if (status == LORA_OK)
		*out = regex;
	else
		lora__regex_free(regex);
	return status;
}

enum lora_status lora__word_compile(struct lora_regex **out, struct lora_error *err)
{
	static const char word[] = "[\\p{Alphabetic}\\p{M}\\p{Nd}\\p{Pc}\\x{200c}\\x{200d}]";
	struct lora_regex *regex = calloc(1, sizeof *regex);
	enum lora_status status = regex == NULL
				      ? lora__fail_memory(err)
				      : compile(regex, word, word, PCRE2_UTF | PCRE2_UCP, err);

	*out = status == LORA_OK ? regex : NULL;
	if (status != LORA_OK)
		lora__regex_free(regex);
	return status;
}

void lora__regex_free(struct lora_regex *regex)
{
	if (regex == NULL)
		return;
	pcre2_code_free(regex->code);
	free(regex);
}

/* --- matching --------------------------------------------------------------------- */

enum lora_status lora__matcher_new(struct lora_matcher **out, struct lora_error *err)
{
	struct lora_matcher *matcher = calloc(1, sizeof *matcher);

	*out = matcher;
	if (matcher == NULL)
		return lora__fail_memory(err);
	matcher->context = pcre2_match_context_create(NULL);
	matcher->data = pcre2_match_data_create(1, NULL);
	if (matcher->context == NULL || matcher->data == NULL) {
		lora__matcher_free(matcher);
		*out = NULL;
		return lora__fail_memory(err);
	}
	(void)pcre2_set_heap_limit(matcher->context, HEAP_LIMIT);
	return LORA_OK;
}

void lora__matcher_free(struct lora_matcher *matcher)
{
	if (matcher == NULL)
		return;
	pcre2_match_data_free(matcher->data);
	pcre2_match_context_free(matcher->context);
	free(matcher);
}

enum lora_status lora__segments_add(struct lora_segments *segments, size_t begin, size_t end,
				    bool match, struct lora_error *err)
{
	if (segments->count == segments->capacity) {
		size_t capacity = segments->capacity == 0 ? 64 : segments->capacity * 2;
		struct lora_segment *grown = realloc(segments->at, capacity * sizeof *grown);

		if (grown == NULL)
			return lora__fail_memory(err);
		segments->at = grown;
		segments->capacity = capacity;
	}
	segments->at[segments->count++] = (struct lora_segment){begin, end, match};
	return LORA_OK;
}

/* The first match at or after `at`; *begin is SIZE_MAX if there is none. The text was checked:
 * checking it at every match would take quadratic time. */
static enum lora_status match_one(const struct lora_regex *regex, struct lora_matcher *matcher,
				  const char *text, size_t size, size_t at, size_t found[2],
				  struct lora_error *err)
{
	PCRE2_SPTR subject = (PCRE2_SPTR)text;
	PCRE2_UCHAR reason[160];
	int result;

	if (size > LORA_TOKENIZER_TEXT)
		return lora__fail(err, LORA_USAGE, "a word of %zu bytes is too long", size);
	(void)pcre2_set_match_limit(matcher->context, (uint32_t)MATCH_LIMIT(size));
	result = pcre2_match(regex->code, subject, size, at, PCRE2_NO_UTF_CHECK, matcher->data,
			     matcher->context);
	if (result == PCRE2_ERROR_JIT_STACKLIMIT)
		result =
		    pcre2_match(regex->code, subject, size, at, PCRE2_NO_UTF_CHECK | PCRE2_NO_JIT,
				matcher->data, matcher->context);
	found[0] = SIZE_MAX;
	if (result == PCRE2_ERROR_NOMATCH)
		return LORA_OK;
	if (result == PCRE2_ERROR_NOMEMORY)
		return lora__fail_memory(err);
	if (result < 0) {
		(void)pcre2_get_error_message(result, reason, sizeof reason);
		return lora__fail(err, LORA_INPUT, "an expression of the tokenizer: %s",
				  (const char *)reason);
	}
	found[0] = pcre2_get_ovector_pointer(matcher->data)[0];
	found[1] = pcre2_get_ovector_pointer(matcher->data)[1];
	return LORA_OK;
}

enum lora_status lora__regex_is_match(const struct lora_regex *regex, struct lora_matcher *matcher,
				      const char *text, size_t size, bool *match,
				      struct lora_error *err)
{
	size_t found[2];
	enum lora_status status = match_one(regex, matcher, text, size, 0, found, err);

	*match = status == LORA_OK && found[0] != SIZE_MAX;
	return status;
}

static size_t next_character(const char *text, size_t size, size_t at)
{
	at++;
	while (at < size && ((unsigned char)text[at] & 0xc0u) == 0x80u)
		at++;
	return at;
}

enum lora_status lora__regex_segments(const struct lora_regex *regex, struct lora_matcher *matcher,
				      const char *text, size_t size, struct lora_segments *segments,
				      struct lora_error *err)
{
	size_t at = 0, end = 0, last = SIZE_MAX, found[2];
	enum lora_status status = LORA_OK;

	while (at <= size && status == LORA_OK) {
		status = match_one(regex, matcher, text, size, at, found, err);
		if (status != LORA_OK || found[0] == SIZE_MAX)
			break;
		if (found[0] == found[1] && found[1] == last) { /* no empty match behind a match */
			at = next_character(text, size, at);
			continue;
		}
		if (found[0] > end)
			status = lora__segments_add(segments, end, found[0], false, err);
		if (status == LORA_OK)
			status = lora__segments_add(segments, found[0], found[1], true, err);
		at = end = last = found[1];
	}
	if (status == LORA_OK && end < size)
		status = lora__segments_add(segments, end, size, false, err);
	return status;
}
