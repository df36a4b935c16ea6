/* SPDX-License-Identifier: Apache-2.0 */
/* base/json_scan.c - is this text JSON, to the letter, and within our limits?
 *
 * The grammar is RFC 8259's, one function a rule. s->at moves over what is good and stays at what
 * is not.
 *
 *	value    = ws ( object / array / string / number / "true" / "false" / "null" ) ws
 *	object   = "{" ws [ member *( "," ws member ) ] "}"
 *	member   = string ws ":" value
 *	array    = "[" ws [ value *( "," ws value ) ] "]"
 *	number   = [ "-" ] ( "0" / digit1-9 *digit ) [ "." 1*digit ] [ exponent ]
 *	exponent = ( "e" / "E" ) [ "+" / "-" ] 1*digit
 *	string   = quote *( escape / any of UTF-8 from U+0020 but quote and backslash ) quote
 *
 * What RFC 8259 leaves open is refused: a byte order mark, half a surrogate pair, \u0000 (strings
 * are C strings afterwards).
 */
#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#include "base/error.h"
#include "base/json.h"
#include "base/json_scan.h"
#include "base/utf8.h"

struct scanner {
	const char *text;
	size_t length, at;
	unsigned depth;
	size_t values;	     /* seen so far */
	size_t growth;	     /* bytes that the rewritten text has more */
	const char *problem; /* what is wrong at `at` */
};

static bool scan_value(struct scanner *s);

static bool bad(struct scanner *s, const char *problem)
{
	s->problem = problem;
	return false;
}

/* The next byte, or -1 at the end. */
static int peek(const struct scanner *s)
{
	return s->at < s->length ? (unsigned char)s->text[s->at] : -1;
}

static void scan_space(struct scanner *s)
{
	while (lora__json_is_space(peek(s)))
		s->at++;
}

static bool scan_digits(struct scanner *s)
{
	if (!lora__json_is_digit(peek(s)))
		return bad(s, "expected a digit");
	while (lora__json_is_digit(peek(s)))
		s->at++;
	return true;
}

static bool scan_number(struct scanner *s)
{
	s->growth += 3;
	if (peek(s) == '-')
		s->at++;
	if (peek(s) == '0')
		s->at++;
	else if (!scan_digits(s))
		return false;
	if (lora__json_is_digit(peek(s)))
		return bad(s, "a number begins with a superfluous 0");
	if (peek(s) == '.') {
		s->at++;
		if (!scan_digits(s))
			return false;
	}
	if (peek(s) == 'e' || peek(s) == 'E') {
		s->at++;
		if (peek(s) == '+' || peek(s) == '-')
			s->at++;
		return scan_digits(s);
	}
	return true;
}

/* Four hexadecimal digits. */
static bool scan_unit(struct scanner *s, unsigned *unit)
{
	*unit = 0;
	for (int i = 0; i < 4; i++) {
		int c = peek(s);
		int digit = lora__json_is_digit(c) ? c - '0'
			    : c >= 'a' && c <= 'f' ? c - 'a' + 10
			    : c >= 'A' && c <= 'F' ? c - 'A' + 10
						   : -1;

		if (digit < 0)
			return bad(s, "expected four hexadecimal digits after '\\u'");
		*unit = *unit << 4 | (unsigned)digit;
		s->at++;
	}
	return true;
}

/* What follows the backslash. */
static bool scan_escape(struct scanner *s)
{
	unsigned unit = 0;
	int c = peek(s);

	if (c < 0 || c == 0 || strchr("\"\\/bfnrtu", c) == NULL)
		return bad(s, "unknown escape in a string");
	s->at++;
	if (c != 'u')
		return true;
	if (!scan_unit(s, &unit))
		return false;
	if (unit == 0)
		return bad(s, "a string contains \\u0000");
	if (unit >= 0xd800 && unit <= 0xdbff) {
		if (s->length - s->at < 2 || memcmp(s->text + s->at, "\\u", 2) != 0)
			return bad(s, "half of a surrogate pair");
		s->at += 2;
		if (!scan_unit(s, &unit))
			return false;
		return (unit >= 0xdc00 && unit <= 0xdfff) || bad(s, "half of a surrogate pair");
	}
	return unit < 0xdc00 || unit > 0xdfff || bad(s, "half of a surrogate pair");
}

static bool scan_string(struct scanner *s)
{
	s->growth++;
	s->at++;
	for (int c = peek(s); c != '"'; c = peek(s)) {
		uint32_t code = 0;
		size_t size = 1;

		if (c < 0)
			return bad(s, "a string does not end");
		if (c < 0x20)
			return bad(s, "a control character in a string");
		if (c >= 0x80)
			size = lora__utf8_decode(s->text + s->at, s->length - s->at, &code);
		if (size == 0)
			return bad(s, "not UTF-8");
		s->at += size;
		if (c == '\\' && !scan_escape(s))
			return false;
	}
	s->at++;
	return true;
}

static bool scan_key(struct scanner *s)
{
	if (peek(s) != '"')
		return bad(s, "expected a key");
	if (!scan_string(s))
		return false;
	scan_space(s);
	if (peek(s) != ':')
		return bad(s, "expected ':'");
	s->at++;
	return true;
}

static bool scan_container(struct scanner *s, int close)
{
	if (++s->depth > LORA_JSON_DEPTH)
		return bad(s, "nested too deeply");
	s->at++;
	scan_space(s);
	if (peek(s) != close) {
		for (;;) {
			if (close == '}' && !scan_key(s))
				return false;
			if (!scan_value(s))
				return false;
			if (peek(s) != ',')
				break;
			s->at++;
			scan_space(s);
		}
	}
	if (peek(s) != close)
		return bad(s, close == '}' ? "expected ',' or '}'" : "expected ',' or ']'");
	s->at++;
	s->depth--;
	return true;
}

static bool scan_word(struct scanner *s, const char *word)
{
	size_t length = strlen(word);

	if (s->length - s->at < length || memcmp(s->text + s->at, word, length) != 0)
		return bad(s, "expected a value");
	s->at += length;
	return true;
}

/* A value with the white space around it. */
static bool scan_value(struct scanner *s)
{
	bool good;
	int c;

	if (++s->values > LORA_JSON_VALUES)
		return bad(s, "too many values");
	scan_space(s);
	c = peek(s);
	if (c == '{' || c == '[')
		good = scan_container(s, c == '{' ? '}' : ']');
	else if (c == '"')
		good = scan_string(s);
	else if (c == '-' || lora__json_is_digit(c))
		good = scan_number(s);
	else
		good = scan_word(s, c == 't' ? "true" : c == 'f' ? "false" : "null");
	if (good)
		scan_space(s);
	return good;
}

static enum lora_status fail_at(const struct scanner *s, struct lora_error *err)
{
	bool cut = s->at >= s->length;
	size_t line = 1, begin = 0;

	for (size_t i = 0; i < s->at; i++) {
		if (s->text[i] == '\n') {
			line++;
			begin = i + 1;
		}
	}
	return lora__fail(err, LORA_INPUT, "malformed JSON: %s at line %zu, column %zu",
			  cut ? "the text ends too early," : s->problem, line, s->at - begin + 1);
}

enum lora_status lora__json_scan(const char *text, size_t length, size_t *growth,
				 struct lora_error *err)
{
	struct scanner s = {.text = text, .length = length};

	*growth = 0;
	if (length >= 3 && memcmp(text, "\xef\xbb\xbf", 3) == 0)
		s.problem = "a byte order mark";
	else if (scan_value(&s) && s.at < length)
		s.problem = "expected the end";
	if (s.problem != NULL)
		return fail_at(&s, err);
	*growth = s.growth;
	return LORA_OK;
}
