/* SPDX-License-Identifier: Apache-2.0 */
/* net/tokenizer_text.c - text on its way: growing buffers, pieces, UTF-8 that is repaired
 *
 * What is no UTF-8 becomes U+FFFD, one for each maximal part of a character (The Unicode Standard,
 * section 3.9, "U+FFFD substitution of maximal subparts"): the longest stretch that begins a
 * character, or else one byte. Table 3-7 there gives the second byte's range after each first:
 *
 *	C2..DF  80..BF		E0  A0..BF	ED  80..9F	F0  90..BF
 *	F1..F3  80..BF		E1..EC, EE, EF  80..BF		F4  80..8F
 */
#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

#include "base/error.h"
#include "base/utf8.h"
#include "net/tokenizer.h"

/* --- buffers ---------------------------------------------------------------------- */

void lora__buffer_fini(struct lora_buffer *buffer)
{
	free(buffer->at);
	*buffer = (struct lora_buffer){0};
}

/* Room for one more byte than asked for: a NUL can always be put behind. */
enum lora_status lora__buffer_reserve(struct lora_buffer *buffer, size_t more,
				      struct lora_error *err)
{
	size_t need = buffer->size + more + 1, capacity = buffer->capacity * 2;
	char *grown;

	if (more >= SIZE_MAX / 4 || buffer->size >= SIZE_MAX / 4)
		return lora__fail_memory(err);
	if (need <= buffer->capacity)
		return LORA_OK;
	if (capacity < need)
		capacity = need + 64;
	grown = realloc(buffer->at, capacity);
	if (grown == NULL)
		return lora__fail_memory(err);
	buffer->at = grown;
	buffer->capacity = capacity;
	return LORA_OK;
}

enum lora_status lora__buffer_add(struct lora_buffer *buffer, const char *bytes, size_t size,
				  struct lora_error *err)
{
	enum lora_status status = lora__buffer_reserve(buffer, size, err);

	if (status == LORA_OK && size > 0) {
		memcpy(buffer->at + buffer->size, bytes, size);
		buffer->size += size;
	}
	return status;
}

enum lora_status lora__buffer_add_code(struct lora_buffer *buffer, uint32_t code,
				       struct lora_error *err)
{
	enum lora_status status = lora__buffer_reserve(buffer, 4, err);

	if (status == LORA_OK)
		buffer->size += (size_t)utf8proc_encode_char(
		    (utf8proc_int32_t)code, (utf8proc_uint8_t *)buffer->at + buffer->size);
	return status;
}

/* --- pieces ----------------------------------------------------------------------- */

void lora__pieces_fini(struct lora_pieces *pieces)
{
	lora__buffer_fini(&pieces->text);
	free(pieces->at);
	*pieces = (struct lora_pieces){0};
}

void lora__pieces_clear(struct lora_pieces *pieces)
{
	pieces->text.size = 0;
	pieces->count = 0;
}

enum lora_status lora__pieces_add(struct lora_pieces *pieces, size_t begin, uint32_t id, bool first,
				  struct lora_error *err)
{
	if (begin == pieces->text.size && id == LORA_TOKEN_NONE)
		return LORA_OK;
	if (pieces->count == pieces->capacity) {
		size_t capacity = pieces->capacity == 0 ? 64 : pieces->capacity * 2;
		struct lora_piece *grown = realloc(pieces->at, capacity * sizeof *grown);

		if (grown == NULL)
			return lora__fail_memory(err);
		pieces->at = grown;
		pieces->capacity = capacity;
	}
	pieces->at[pieces->count++] =
	    (struct lora_piece){begin, pieces->text.size, id, first, pieces->origin};
	return LORA_OK;
}

/* --- UTF-8 ------------------------------------------------------------------------ */

static bool second_fits(unsigned char first, unsigned char second)
{
	switch (first) {
	case 0xe0:
		return second >= 0xa0 && second <= 0xbf;
	case 0xed:
		return second >= 0x80 && second <= 0x9f;
	case 0xf0:
		return second >= 0x90 && second <= 0xbf;
	case 0xf4:
		return second >= 0x80 && second <= 0x8f;
	default:
		return second >= 0x80 && second <= 0xbf;
	}
}

/* The bytes of the character at `bytes`, or of the part of one. *whole tells which; *open, that
 * the part ends only because the bytes do. size > 0. */
static size_t measure(const char *bytes, size_t size, bool *whole, bool *open)
{
	const unsigned char *b = (const unsigned char *)bytes;
	size_t want = b[0] < 0x80		     ? 1
		      : b[0] >= 0xc2 && b[0] <= 0xdf ? 2
		      : b[0] >= 0xe0 && b[0] <= 0xef ? 3
		      : b[0] >= 0xf0 && b[0] <= 0xf4 ? 4
						     : 0;
	size_t have = 1;

	*whole = want == 1;
	*open = false;
	if (want <= 1)
		return 1;
	while (have < want && have < size &&
	       (have == 1 ? second_fits(b[0], b[1]) : (b[have] & 0xc0) == 0x80))
		have++;
	*whole = have == want;
	*open = !*whole && have == size;
	return have;
}

enum lora_status lora__utf8_repair(struct lora_buffer *to, const char *bytes, size_t size,
				   bool last, size_t *used, struct lora_error *err)
{
	enum lora_status status = LORA_OK;
	size_t begin = 0, at = 0;

	while (at < size && status == LORA_OK) {
		bool whole, open;
		size_t length = measure(bytes + at, size - at, &whole, &open);

		if (whole) {
			at += length;
			continue;
		}
		if (open && !last)
			break;
		status = lora__buffer_add(to, bytes + begin, at - begin, err);
		if (status == LORA_OK)
			status = lora__buffer_add_code(to, LORA_UTF8_REPLACEMENT, err);
		at += length;
		begin = at;
	}
	*used = at;
	return status == LORA_OK ? lora__buffer_add(to, bytes + begin, at - begin, err) : status;
}

/* PropList.txt, White_Space. */
bool lora__is_space(uint32_t code)
{
	return (code >= 0x09 && code <= 0x0d) || code == 0x20 || code == 0x85 || code == 0xa0 ||
	       code == 0x1680 || (code >= 0x2000 && code <= 0x200a) || code == 0x2028 ||
	       code == 0x2029 || code == 0x202f || code == 0x205f || code == 0x3000;
}

bool lora__is_numeric(uint32_t code)
{
	utf8proc_category_t category = utf8proc_category((utf8proc_int32_t)code);

	return category == UTF8PROC_CATEGORY_ND || category == UTF8PROC_CATEGORY_NL ||
	       category == UTF8PROC_CATEGORY_NO;
}
