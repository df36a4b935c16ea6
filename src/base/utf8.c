/* SPDX-License-Identifier: Apache-2.0 */
/* base/utf8.c - decoding UTF-8 strictly
 *
 * The shape of a sequence (The Unicode Standard, table 3-7, "well-formed UTF-8 byte sequences"):
 *
 *	U+0000   .. U+007F     0xxxxxxx
 *	U+0080   .. U+07FF     110xxxxx 10xxxxxx
 *	U+0800   .. U+FFFF     1110xxxx 10xxxxxx 10xxxxxx              without U+D800 .. U+DFFF
 *	U+10000  .. U+10FFFF   11110xxx 10xxxxxx 10xxxxxx 10xxxxxx
 *
 * 1. A code point has exactly one spelling: the shortest. (C0 AF is not a slash.)
 * 2. Surrogates are not code points: UTF-16 spells with them, UTF-8 does not.
 */
#include "base/utf8.h"

static bool is_continuation(char byte)
{
	return ((unsigned char)byte & 0xc0u) == 0x80u;
}

size_t lora__utf8_decode(const char *text, size_t length, uint32_t *code)
{
	static const uint32_t smallest[5] = {0, 0, 0x80, 0x800, 0x10000};
	unsigned char first = length > 0 ? (unsigned char)text[0] : 0x80;
	size_t size = first < 0x80 ? 1 : first < 0xc0 ? 0 : first < 0xe0 ? 2 : first < 0xf0 ? 3 : 4;
	uint32_t value = first;

	if (size == 1) {
		*code = value;
		return 1;
	}
	if (size == 0 || size > length || first >= 0xf8)
		return 0;
	value &= 0x7fu >> size;
	for (size_t i = 1; i < size; i++) {
		if (!is_continuation(text[i]))
			return 0;
		value = value << 6 | ((unsigned char)text[i] & 0x3fu);
	}
	if (value < smallest[size] || value > 0x10ffff || (value >= 0xd800 && value <= 0xdfff))
		return 0;
	*code = value;
	return size;
}

/* Cc, Zl and Zp by general category, Default_Ignorable_Code_Point by property, and the interlinear
 * annotation marks. Ascending. */
bool lora__utf8_is_hidden(uint32_t code)
{
	static const struct {
		uint32_t first, last;
	} hidden[] = {
	    {0x0000, 0x001f},	{0x007f, 0x009f},   {0x00ad, 0x00ad},	{0x034f, 0x034f},
	    {0x061c, 0x061c},	{0x115f, 0x1160},   {0x17b4, 0x17b5},	{0x180b, 0x180f},
	    {0x200b, 0x200f},	{0x2028, 0x202e},   {0x2060, 0x206f},	{0x3164, 0x3164},
	    {0xfe00, 0xfe0f},	{0xfeff, 0xfeff},   {0xffa0, 0xffa0},	{0xfff0, 0xfffb},
	    {0x1bca0, 0x1bca3}, {0x1d173, 0x1d17a}, {0xe0000, 0xe0fff},
	};

	for (size_t i = 0; i < sizeof hidden / sizeof *hidden; i++)
		if (code <= hidden[i].last)
			return code >= hidden[i].first;
	return false;
}

size_t lora__utf8_cut(const char *text, size_t length, size_t limit)
{
	size_t cut = limit;

	if (length <= limit)
		return length;
	while (cut > 0 && limit - cut < 3 && is_continuation(text[cut]))
		cut--;
	return cut;
}
