/* SPDX-License-Identifier: Apache-2.0 */
/* net/tokenizer_normalize.c - "normalizer": what a text becomes before it is cut
 *
 *	NFC NFD NFKC NFKD	Unicode Standard Annex 15, with utf8proc's tables
 *	Lowercase		every character by itself, as Rust does: U+0130 becomes two
 *	StripAccents		without marks (general category M)
 *	Strip			without white space at the ends
 *	Prepend			something in front, unless there is nothing
 *	Replace			every occurrence of a pattern
 *
 * 1. Canonical ordering sorts each run of marks by merging, n log n; the exchanges of neighbours
 *    that utf8proc makes would be quadratic in a long run.
 * 2. utf8proc's tables are of one Unicode version, the `tokenizers` library's of another, older
 *    one: characters that were assigned in between may differ.
 */
#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

#include "base/error.h"
#include "base/utf8.h"
#include "net/tokenizer.h"

/* Code points that one becomes at most (U+FDFA has 18). */
#define DECOMPOSED 32

/* --- reading ---------------------------------------------------------------------- */

static enum lora_status read_strip(struct lora_reader *reader)
{
	struct lora_stage *stage = lora__stage_add(reader, LORA_STAGE_STRIP_SPACE);
	enum lora_status status;

	if (stage == NULL)
		return LORA_INPUT;
	status = lora__read_bool(reader, "strip_left", &stage->left);
	return status == LORA_OK ? lora__read_bool(reader, "strip_right", &stage->right) : status;
}

static enum lora_status read_prepend(struct lora_reader *reader)
{
	struct lora_stage *stage = lora__stage_add(reader, LORA_STAGE_PREPEND);

	return stage == NULL ? LORA_INPUT : lora__read_content(reader, "prepend", stage);
}

static enum lora_status read_replace(struct lora_reader *reader)
{
	struct lora_stage *stage = lora__stage_add(reader, LORA_STAGE_REPLACE);
	enum lora_status status;

	if (stage == NULL)
		return LORA_INPUT;
	status = lora__read_pattern(reader, stage);
	return status == LORA_OK ? lora__read_content(reader, "content", stage) : status;
}

enum lora_status lora__normalizer_read(struct lora_stages *stages, struct lora_arena *arena,
				       const struct lora_json *json, struct lora_error *err)
{
	static const struct lora_component known[] = {
	    {"NFC", "", NULL, LORA_STAGE_NFC},
	    {"NFD", "", NULL, LORA_STAGE_NFD},
	    {"NFKC", "", NULL, LORA_STAGE_NFKC},
	    {"NFKD", "", NULL, LORA_STAGE_NFKD},
	    {"Lowercase", "", NULL, LORA_STAGE_LOWERCASE},
	    {"StripAccents", "", NULL, LORA_STAGE_STRIP_ACCENTS},
	    {"Strip", "strip_left strip_right", read_strip, LORA_STAGE_STRIP_SPACE},
	    {"Prepend", "prepend", read_prepend, LORA_STAGE_PREPEND},
	    {"Replace", "pattern content", read_replace, LORA_STAGE_REPLACE},
	    {NULL, NULL, NULL, LORA_STAGE_NFC},
	};
	struct lora_reader reader = {
	    .arena = arena, .stages = stages, .json = json, .where = "normalizer", .err = err};

	return lora__stages_read(&reader, "normalizers", known);
}

/* --- Unicode's normal forms ------------------------------------------------------- */

static enum lora_status reserve_codes(struct lora_work *work, size_t count, struct lora_error *err)
{
	size_t capacity = count + count / 2 + 64;
	int32_t *grown;

	if (count <= work->code_capacity)
		return LORA_OK;
	if (capacity > SIZE_MAX / 8)
		return lora__fail_memory(err);
	grown = realloc(work->codes, capacity * sizeof *grown);
	if (grown == NULL)
		return lora__fail_memory(err);
	work->codes = grown;
	work->code_capacity = capacity;
	return LORA_OK;
}

static utf8proc_propval_t class_of(int32_t code)
{
	return utf8proc_get_property(code)->combining_class;
}

/* Sorts by combining class, what is equal as it was: merges runs of 1, 2, 4, ... between `codes`
 * and `spare`, both of `count`. */
static void sort_marks(int32_t *codes, int32_t *spare, size_t count)
{
	for (size_t width = 1; width < count; width *= 2) {
		for (size_t begin = 0; begin < count; begin += 2 * width) {
			size_t middle = begin + width < count ? begin + width : count;
			size_t end = middle + width < count ? middle + width : count;
			size_t a = begin, b = middle;

			for (size_t to = begin; to < end; to++)
				spare[to] = a < middle && (b == end ||
							   class_of(codes[a]) <= class_of(codes[b]))
						? codes[a++]
						: codes[b++];
		}
		memcpy(codes, spare, count * sizeof *codes);
	}
}

/* [1] codes[0 .. count), with room for as many behind. */
static void order_marks(int32_t *codes, size_t count)
{
	for (size_t i = 0; i < count; i++) {
		size_t begin = i;

		while (i < count && class_of(codes[i]) != 0)
			i++;
		if (i - begin > 1)
			sort_marks(codes + begin, codes + count, i - begin);
	}
}

static enum lora_status decompose(struct lora_work *work, const char *text, size_t size,
				  utf8proc_option_t options, size_t *count, struct lora_error *err)
{
	enum lora_status status = LORA_OK;
	size_t length;

	*count = 0;
	for (size_t at = 0; at < size && status == LORA_OK; at += length) {
		utf8proc_ssize_t got;
		uint32_t code = 0;

		length = lora__utf8_decode(text + at, size - at, &code);
		status = reserve_codes(work, *count + DECOMPOSED, err);
		if (status != LORA_OK)
			break;
		got = utf8proc_decompose_char((utf8proc_int32_t)code, work->codes + *count,
					      DECOMPOSED, options, NULL);
		if (got < 0 || got > DECOMPOSED) /* cannot happen to a code point */
			return lora__fail(err, LORA_INPUT, "U+%04X does not decompose",
					  (unsigned)code);
		*count += (size_t)got;
	}
	if (status == LORA_OK)
		status = reserve_codes(work, 2 * *count, err);
	return status;
}

static enum lora_status normal_form(struct lora_work *work, enum lora_stage_kind kind,
				    const char *text, size_t size, struct lora_buffer *to,
				    struct lora_error *err)
{
	bool compose = kind == LORA_STAGE_NFC || kind == LORA_STAGE_NFKC;
	bool compat = kind == LORA_STAGE_NFKC || kind == LORA_STAGE_NFKD;
	utf8proc_option_t options = (utf8proc_option_t)(UTF8PROC_STABLE | UTF8PROC_DECOMPOSE |
							(compat ? UTF8PROC_COMPAT : 0));
	enum lora_status status;
	size_t count = 0;

	status = decompose(work, text, size, options, &count, err);
	if (status != LORA_OK)
		return status;
	order_marks(work->codes, count);
	if (compose)
		count = (size_t)utf8proc_normalize_utf32(
		    work->codes, (utf8proc_ssize_t)count,
		    (utf8proc_option_t)(UTF8PROC_STABLE | UTF8PROC_COMPOSE));
	for (size_t i = 0; i < count && status == LORA_OK; i++)
		status = lora__buffer_add_code(to, (uint32_t)work->codes[i], err);
	return status;
}

/* --- the others ------------------------------------------------------------------- */

static enum lora_status lowercase(uint32_t code, struct lora_buffer *to, struct lora_error *err)
{
	enum lora_status status;

	if (code != 0x130)
		return lora__buffer_add_code(to, (uint32_t)utf8proc_tolower((utf8proc_int32_t)code),
					     err);
	status = lora__buffer_add_code(to, 'i', err);
	return status == LORA_OK ? lora__buffer_add_code(to, 0x307, err) : status;
}

static enum lora_status strip_accent(uint32_t code, struct lora_buffer *to, struct lora_error *err)
{
	utf8proc_category_t category = utf8proc_category((utf8proc_int32_t)code);

	return category == UTF8PROC_CATEGORY_MN || category == UTF8PROC_CATEGORY_MC ||
		       category == UTF8PROC_CATEGORY_ME
		   ? LORA_OK
		   : lora__buffer_add_code(to, code, err);
}

static enum lora_status each_character(const char *text, size_t size,
				       enum lora_status (*one)(uint32_t, struct lora_buffer *,
							       struct lora_error *),
				       struct lora_buffer *to, struct lora_error *err)
{
	enum lora_status status = LORA_OK;
	uint32_t code = 0;

	for (size_t at = 0; at < size && status == LORA_OK;) {
		at += lora__utf8_decode(text + at, size - at, &code);
		status = one(code, to, err);
	}
	return status;
}

static enum lora_status strip_space(const struct lora_stage *stage, const char *text, size_t size,
				    struct lora_buffer *to, struct lora_error *err)
{
	size_t begin = SIZE_MAX, end = 0, length;
	uint32_t code = 0;

	for (size_t at = 0; at < size; at += length) {
		length = lora__utf8_decode(text + at, size - at, &code);
		if (lora__is_space(code))
			continue;
		if (begin == SIZE_MAX)
			begin = at;
		end = at + length;
	}
	if (begin == SIZE_MAX) /* nothing but white space */
		return stage->left || stage->right ? LORA_OK
						   : lora__buffer_add(to, text, size, err);
	if (!stage->left)
		begin = 0;
	if (!stage->right)
		end = size;
	return lora__buffer_add(to, text + begin, end - begin, err);
}

static enum lora_status replace(const struct lora_stage *stage, struct lora_work *work,
				const char *text, size_t size, struct lora_buffer *to,
				struct lora_error *err)
{
	enum lora_status status;

	work->segments.count = 0;
	status =
	    lora__regex_segments(stage->regex, work->matcher, text, size, &work->segments, err);
	for (size_t i = 0; i < work->segments.count && status == LORA_OK; i++) {
		const struct lora_segment *part = &work->segments.at[i];

		status = part->match ? lora__buffer_add(to, stage->content, stage->length, err)
				     : lora__buffer_add(to, text + part->begin,
							part->end - part->begin, err);
	}
	return status;
}

static enum lora_status apply(const struct lora_stage *stage, struct lora_work *work,
			      const char *text, size_t size, struct lora_buffer *to,
			      struct lora_error *err)
{
	enum lora_status status;

	switch (stage->kind) {
	case LORA_STAGE_LOWERCASE:
		return each_character(text, size, lowercase, to, err);
	case LORA_STAGE_STRIP_ACCENTS:
		return each_character(text, size, strip_accent, to, err);
	case LORA_STAGE_STRIP_SPACE:
		return strip_space(stage, text, size, to, err);
	case LORA_STAGE_REPLACE:
		return replace(stage, work, text, size, to, err);
	case LORA_STAGE_PREPEND:
		status = lora__buffer_add(to, stage->content, size > 0 ? stage->length : 0, err);
		return status == LORA_OK ? lora__buffer_add(to, text, size, err) : status;
	default:
		return normal_form(work, stage->kind, text, size, to, err);
	}
}

enum lora_status lora__normalize(const struct lora_stages *stages, struct lora_work *work,
				 const char *text, size_t size, const char **out, size_t *out_size,
				 struct lora_error *err)
{
	enum lora_status status = LORA_OK;

	work->text.size = 0;
	status = lora__buffer_add(&work->text, text, size, err);
	for (size_t i = 0; i < stages->count && status == LORA_OK; i++) {
		struct lora_buffer old = work->text;

		work->text = work->spare;
		work->text.size = 0;
		work->spare = old;
		status = apply(&stages->at[i], work, old.at, old.size, &work->text, err);
	}
	*out = work->text.at;
	*out_size = work->text.size;
	return status;
}
