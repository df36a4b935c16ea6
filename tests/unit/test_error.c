/* SPDX-License-Identifier: Apache-2.0 */
/* base/error.c: messages, context, escaping; base/utf8.c with it. */
#include "base_check.h"

#include <errno.h>

#include "base/error.h"
#include "base/utf8.h"

static void error__fail_sets_status_and_message(void **state)
{
	struct lora_error err = {LORA_OK, 7, "old"};

	(void)state;
	assert_int_equal(lora__fail(&err, LORA_INPUT, "tensor '%s': %d", "q", 3), LORA_INPUT);
	assert_int_equal(err.status, LORA_INPUT);
	assert_int_equal(err.sys_errno, 0);
	assert_string_equal(err.message, "tensor 'q': 3");
	assert_int_equal(lora__fail(NULL, LORA_NO, "%s", "nobody listens"), LORA_NO);
}

static void error__errno_decides_between_input_and_system(void **state)
{
	static const struct {
		int error;
		enum lora_status status;
	} cases[] = {{ENOENT, LORA_INPUT},  {ENOTDIR, LORA_INPUT}, {EACCES, LORA_SYSTEM},
		     {EISDIR, LORA_SYSTEM}, {EIO, LORA_SYSTEM},	   {ENOSPC, LORA_SYSTEM}};
	struct lora_error err = LORA_ERROR_INIT;
	char expected[256];

	(void)state;
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		(void)snprintf(expected, sizeof expected, "cannot open 'x': %s",
			       strerror(cases[i].error));
		errno = cases[i].error;
		assert_int_equal(lora__fail_errno(&err, "cannot open '%s'", "x"), cases[i].status);
		assert_int_equal(errno, cases[i].error);
		assert_int_equal(err.status, cases[i].status);
		assert_int_equal(err.sys_errno, cases[i].error);
		assert_string_equal(err.message, expected);
		assert_int_equal(lora__fail_errno(NULL, "x"), cases[i].status);
		assert_int_equal(lora__fail_system(&err, "x"), LORA_SYSTEM);
	}
	assert_int_equal(lora__fail_memory(&err), LORA_SYSTEM);
	assert_string_equal(err.message, "out of memory");
	assert_int_equal(err.sys_errno, ENOMEM);
}

static void error__context_goes_in_front(void **state)
{
	struct lora_error err = LORA_ERROR_INIT;

	(void)state;
	errno = EIO;
	lora__fail_system(&err, "cannot read 'a'");
	assert_int_equal(lora__context(&err, LORA_SYSTEM, "tensor '%s'", "q"), LORA_SYSTEM);
	assert_int_equal(lora__context(&err, LORA_SYSTEM, "base"), LORA_SYSTEM);
	assert_int_equal(err.sys_errno, EIO);
	assert_string_equal(err.message, "base: tensor 'q': cannot read 'a': Input/output error");
	assert_int_equal(lora__context(&err, LORA_OK, "nothing happened"), LORA_OK);
	assert_int_equal(err.status, LORA_SYSTEM);
	assert_int_equal(lora__context(NULL, LORA_INPUT, "base"), LORA_INPUT);
}

static void error__arguments_may_be_the_old_message(void **state)
{
	struct lora_error err = LORA_ERROR_INIT;

	(void)state;
	lora__fail(&err, LORA_NO, "inner");
	lora__fail(&err, LORA_NO, "outer (%s, %s)", err.message, err.message);
	assert_string_equal(err.message, "outer (inner, inner)");
}

static void error__long_messages_end_in_dots(void **state)
{
	struct lora_error err = LORA_ERROR_INIT;
	char text[LORA_ERROR_SIZE + 40];

	(void)state;
	for (size_t length = LORA_ERROR_SIZE - 6; length < sizeof text; length++) {
		memset(text, 'a', length);
		text[length] = '\0';
		lora__fail(&err, LORA_NO, "%s", text);
		if (length < LORA_ERROR_SIZE) {
			assert_string_equal(err.message, text);
			continue;
		}
		assert_int_equal(strlen(err.message), LORA_ERROR_SIZE - 1);
		assert_string_equal(err.message + LORA_ERROR_SIZE - 5, "a...");
	}
	/* The same when it is the context that makes it too long; the context survives. */
	lora__context(&err, LORA_NO, "where");
	assert_memory_equal(err.message, "where: aaa", 10);
	assert_string_equal(err.message + LORA_ERROR_SIZE - 5, "a...");
}

static void error__a_cut_respects_characters(void **state)
{
	struct lora_error err = LORA_ERROR_INIT;

	(void)state;
	/* 1023 bytes are there for the message, 3 of them for the dots; U+20AC takes 3. */
	for (size_t shift = 0; shift < 3; shift++) {
		char text[LORA_ERROR_SIZE + 40] = "aa";
		size_t length = shift, code_points = 0;

		for (; length + 3 < sizeof text; length += 3)
			memcpy(text + length, "\xe2\x82\xac", 4);
		lora__fail(&err, LORA_NO, "%s", text);
		length = strlen(err.message);
		assert_true(length <= LORA_ERROR_SIZE - 1 && length > LORA_ERROR_SIZE - 4);
		assert_string_equal(err.message + length - 3, "...");
		for (size_t at = shift; at < length - 3; code_points++) {
			uint32_t code = 0;
			size_t size = lora__utf8_decode(err.message + at, length - 3 - at, &code);

			assert_int_equal(code, 0x20ac);
			at += size;
		}
		assert_true(code_points >= 338);
	}
}

/* Expected by hand from the header: \xHH for bytes, \u{HEX} for code points. */
static void error__escape_shows_what_a_terminal_would_obey(void **state)
{
	static const struct {
		const char *text, *shown;
	} cases[] = {
	    {"model.layers.0.q_proj", "model.layers.0.q_proj"},
	    {"", ""},
	    {"\x1b[31mred", "\\x1B[31mred"},
	    {"a\nb\tc\x7f", "a\\x0Ab\\x09c\\x7F"},
	    {"gr\xc3\xbc\xc3\x9f \xe2\x82\xac \xf0\x9f\x98\x80",
	     "gr\xc3\xbc\xc3\x9f \xe2\x82\xac \xf0\x9f\x98\x80"},
	    {"\xc2\x9b"
	     "31m",
	     "\\u{9B}31m"}, /* CSI as one character */
	    {"a\xe2\x80\xae"
	     "txt.exe",
	     "a\\u{202E}txt.exe"},
	    {"\xe2\x81\xa6x\xe2\x81\xa9", "\\u{2066}x\\u{2069}"},
	    {"a\xe2\x80\x8b"
	     "b",
	     "a\\u{200B}b"},
	    {"\xef\xbb\xbfx", "\\u{FEFF}x"},
	    {"\xf3\xa0\x81\x81", "\\u{E0041}"},
	    {"\xff\xfe", "\\xFF\\xFE"},
	    {"\xc0\xaf", "\\xC0\\xAF"},			  /* an overlong slash */
	    {"\xed\xa0\x80", "\\xED\\xA0\\x80"},	  /* a surrogate */
	    {"\xf4\x90\x80\x80", "\\xF4\\x90\\x80\\x80"}, /* above U+10FFFF */
	    {"\xe2\x82", "\\xE2\\x82"},			  /* cut off */
	};

	(void)state;
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
		assert_string_equal(lora__escape(cases[i].text), cases[i].shown);
	assert_string_equal(lora__escape_n("a\0b", 3), "a\\x00b");
	assert_string_equal(lora__escape_n("abc", 2), "ab");
	assert_string_equal(lora__escape(NULL), "");
}

static void error__escape_cuts_the_middle(void **state)
{
	char text[400], expected[400];

	(void)state;
	for (size_t i = 0; i < 300; i++)
		text[i] = (char)('a' + i % 26);
	text[300] = '\0';
	assert_string_equal(lora__escape_n(text, 200), (text[200] = '\0', text));
	text[200] = (char)('a' + 200 % 26);
	/* 200 = 98 + 3 + 99 */
	(void)snprintf(expected, sizeof expected, "%.98s...%s", text, text + 300 - 99);
	assert_string_equal(lora__escape(text), expected);
}

/* Whatever the text, the result is at most 200 bytes, and whole characters. */
static void error__escape_never_cuts_a_character(void **state)
{
	static const char *const units[] = {"\xc3\xbc", "\xe2\x82\xac", "\xf0\x9f\x98\x80",
					    "\x01",	"\xe2\x80\xae", "\xff"};
	char text[1200];

	(void)state;
	for (size_t unit = 0; unit < sizeof units / sizeof *units; unit++) {
		for (size_t shift = 0; shift < 9; shift++) {
			size_t length = shift, size = strlen(units[unit]);
			const char *shown;

			memset(text, 'a', shift);
			for (; length < 700; length += size)
				memcpy(text + length, units[unit], size);
			shown = lora__escape_n(text, length);
			assert_true(strlen(shown) <= 200 && strlen(shown) > 180);
			assert_non_null(strstr(shown, "..."));
			for (size_t at = 0; shown[at] != '\0';) {
				uint32_t code = 0;
				size_t width =
				    lora__utf8_decode(shown + at, strlen(shown + at), &code);

				assert_true(width > 0 && !lora__utf8_is_hidden(code));
				at += width;
			}
		}
	}
}

static void error__eight_escapes_in_one_message(void **state)
{
	struct lora_error err = LORA_ERROR_INIT;

	(void)state;
	lora__fail(&err, LORA_NO, "%s%s%s%s%s%s%s%s", lora__escape("1"), lora__escape("2"),
		   lora__escape("3"), lora__escape("4"), lora__escape("5"), lora__escape("6"),
		   lora__escape("7"), lora__escape("8"));
	assert_string_equal(err.message, "12345678");
}

/* Every code point, encoded here by the table of RFC 3629 and decoded there. */
static void utf8__decodes_every_code_point(void **state)
{
	(void)state;
	for (uint32_t code = 0; code < 0x110000; code++) {
		char text[4] = {0};
		uint32_t decoded = 0xffffffff;
		size_t size = code < 0x80 ? 1 : code < 0x800 ? 2 : code < 0x10000 ? 3 : 4;
		static const unsigned lead[5] = {0, 0, 0xc0, 0xe0, 0xf0};

		for (size_t i = size; i-- > 1;)
			text[i] = (char)(0x80 | (code >> 6 * (size - 1 - i) & 0x3f));
		text[0] = (char)(lead[size] | code >> 6 * (size - 1));
		if (code >= 0xd800 && code <= 0xdfff) {
			assert_int_equal(lora__utf8_decode(text, size, &decoded), 0);
			continue;
		}
		if (lora__utf8_decode(text, size, &decoded) != size || decoded != code ||
		    lora__utf8_decode(text, size - 1, &decoded) != 0)
			fail_msg("U+%04X", (unsigned)code);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(error__fail_sets_status_and_message),
	    cmocka_unit_test(error__errno_decides_between_input_and_system),
	    cmocka_unit_test(error__context_goes_in_front),
	    cmocka_unit_test(error__arguments_may_be_the_old_message),
	    cmocka_unit_test(error__long_messages_end_in_dots),
	    cmocka_unit_test(error__a_cut_respects_characters),
	    cmocka_unit_test(error__escape_shows_what_a_terminal_would_obey),
	    cmocka_unit_test(error__escape_cuts_the_middle),
	    cmocka_unit_test(error__escape_never_cuts_a_character),
	    cmocka_unit_test(error__eight_escapes_in_one_message),
	    cmocka_unit_test(utf8__decodes_every_code_point),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
