/* SPDX-License-Identifier: Apache-2.0 */
/* cli/ui_text.c - sizes, times and names as people read them
 *
 * Names come from files and from strangers. A terminal obeys some of their bytes, so what it would
 * obey is spelt out: C0 and C1 controls (escape sequences), bytes that are no UTF-8, and the
 * bidirectional overrides that make a line read otherwise than it is. Printable text of any
 * language passes. The backslash itself is left alone, so escaping twice changes nothing.
 *
 * Width is counted in terminal columns (wcwidth), not bytes, with UTF-8 whatever LC_ALL says, since
 * the names in these files are UTF-8 by definition of their formats.
 *
 * Tested by tests/unit/test_ui.c
 */
#include <locale.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>
#include <wchar.h>

#include "ui.h"

const char *ui_size(uint64_t bytes, char buffer[UI_TEXT])
{
	static const char *const units[] = {"KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
	double value = (double)bytes;
	size_t unit = 0;
	int decimals;

	if (bytes < 1024) {
		snprintf(buffer, UI_TEXT, "%u B", (unsigned)bytes);
		return buffer;
	}
	/* what would be printed as 1024 belongs to the next unit */
	for (value /= 1024; value >= 1023.5 && unit < 5; unit++)
		value /= 1024;
	decimals = value < 9.995 ? 2 : value < 99.95 ? 1 : 0;
	snprintf(buffer, UI_TEXT, "%.*f %s", decimals, value, units[unit]);
	return buffer;
}

const char *ui_seconds(double seconds, char buffer[UI_TEXT])
{
	unsigned long long whole =
	    seconds > 0 && seconds < 1e15 ? (unsigned long long)(seconds + 0.5) : 0;

	if (whole < 3600)
		snprintf(buffer, UI_TEXT, "%llu:%02llu", whole / 60, whole % 60);
	else
		snprintf(buffer, UI_TEXT, "%llu:%02llu:%02llu", whole / 3600, whole / 60 % 60,
			 whole % 60);
	return buffer;
}

const char *ui_count(uint64_t count, char buffer[UI_TEXT])
{
	char *at = buffer + UI_TEXT;
	int digits = 0;

	*--at = '\0';
	do {
		if (digits && digits % 3 == 0)
			*--at = ',';
		*--at = (char)('0' + count % 10);
		digits++;
		count /= 10;
	} while (count);
	return memmove(buffer, at, (size_t)(buffer + UI_TEXT - at));
}

/* One code point of NUL-terminated text; its length in bytes, or 0 where the bytes are no UTF-8
 * (overlong, surrogate, beyond U+10FFFF, cut short: RFC 3629). */
static size_t decode(const char *text, uint32_t *point)
{
	const unsigned char *b = (const unsigned char *)text;
	size_t length = b[0] < 0x80 ? 1 : b[0] < 0xc2 ? 0 : b[0] < 0xe0 ? 2 : b[0] < 0xf0 ? 3 : 4;
	static const uint32_t least[] = {0, 0, 0x80, 0x800, 0x10000};

	if (length == 0 || b[0] > 0xf4)
		return 0;
	*point = length == 1 ? b[0] : b[0] & (0xffu >> (length + 1));
	for (size_t i = 1; i < length; i++) {
		if ((b[i] & 0xc0) != 0x80)
			return 0;
		*point = *point << 6 | (b[i] & 0x3f);
	}
	if (*point < least[length] || *point > 0x10ffff || (*point >= 0xd800 && *point <= 0xdfff))
		return 0;
	return length;
}

/* What a terminal obeys, or what hides: C0, DEL, C1, zero-width and bidirectional controls, line
 * and paragraph separators, byte order mark. */
static bool is_unsafe(uint32_t point)
{
	return point < 0x20 || (point >= 0x7f && point < 0xa0) || point == 0x061c ||
	       (point >= 0x200b && point <= 0x200f) || (point >= 0x2028 && point <= 0x202e) ||
	       (point >= 0x2060 && point <= 0x2069) || point == 0xfeff;
}

const char *ui_escape(const char *text, char *buffer, size_t size)
{
	size_t used = 0;

	while (*text) {
		char piece[16];
		uint32_t point = 0;
		size_t length = decode(text, &point);

		if (length == 0)
			snprintf(piece, sizeof(piece), "\\x%02x", (unsigned char)*text);
		else if (!is_unsafe(point))
			snprintf(piece, sizeof(piece), "%.*s", (int)length, text);
		else if (point == '\n' || point == '\t')
			snprintf(piece, sizeof(piece), point == '\n' ? "\\n" : "\\t");
		else if (point < 0x80)
			snprintf(piece, sizeof(piece), "\\x%02x", (unsigned)point);
		else
			snprintf(piece, sizeof(piece), "\\u{%x}", (unsigned)point);
		if (used + strlen(piece) + 1 > size)
			break;
		memcpy(buffer + used, piece, strlen(piece));
		used += strlen(piece);
		text += length ? length : 1;
	}
	buffer[used] = '\0';
	return buffer;
}

/* Columns of one code point. Without a UTF-8 locale on the machine every code point counts as one.
 */
static size_t point_width(uint32_t point)
{
	static locale_t utf8;
	locale_t before;
	int width;

	if (point < 0x300)
		return 1;
	if (!utf8)
		utf8 = newlocale(LC_CTYPE_MASK, "C.UTF-8", (locale_t)0);
	if (!utf8)
		return 1;
	before = uselocale(utf8);
	width = wcwidth((wchar_t)point);
	uselocale(before);
	return width < 0 ? 1 : (size_t)width;
}

/* Bytes of the first code point at text, and its columns. */
static size_t step(const char *text, size_t *columns)
{
	uint32_t point = 0;
	size_t length = decode(text, &point);

	*columns = length ? point_width(point) : 1;
	return length ? length : 1;
}

size_t ui_width(const char *text)
{
	size_t width = 0, columns;

	for (; *text; width += columns)
		text += step(text, &columns);
	return width;
}

const char *ui_shorten(const char *text, size_t width, char *buffer, size_t size)
{
	size_t all = ui_width(text), columns;
	size_t head = (width - 3 + 1) / 2, tail = (width - 3) / 2;
	const char *left = text, *right = text;

	if (all <= width) {
		snprintf(buffer, size, "%s", text);
		return buffer;
	}
	for (size_t used = 0; *left; used += columns) {
		size_t length = step(left, &columns);

		if (used + columns > head)
			break;
		left += length;
	}
	for (size_t rest = all; *right && rest > tail; rest -= columns)
		right += step(right, &columns);
	snprintf(buffer, size, "%.*s...%s", (int)(left - text), text, right);
	return buffer;
}

size_t ui_columns(FILE *file)
{
	struct winsize window;

	if (ioctl(fileno(file), TIOCGWINSZ, &window) != 0 || window.ws_col == 0)
		return 80;
	return window.ws_col;
}
