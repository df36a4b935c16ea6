/* SPDX-License-Identifier: Apache-2.0 */
/* net/tokenizer_split.c - "pre_tokenizer": a text cut into words, within which tokens are merged
 *
 *	ByteLevel	a space in front if asked for; GPT-2's expression if asked for; then every
 *byte becomes a printable character: 21..7E, A1..AC, AE..FF stay, the other 68 become U+0100 and
 *on, in order Split		where a pattern matches; "behavior" says what becomes of the matches
 *	Digits		around digits (general category N): each of them, or rows of them
 *	Metaspace	' ' becomes a mark, U+2581; one in front; a word begins at each mark
 *
 * Every stage goes over all pieces that are no token yet, and writes them anew behind one another.
 */
#include <string.h>

#include "base/error.h"
#include "base/utf8.h"
#include "net/tokenizer.h"

static const char gpt2_pattern[] = "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| "
				   "?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+";

/* --- reading ---------------------------------------------------------------------- */

static enum lora_status read_byte_level(struct lora_reader *reader)
{
	struct lora_stage *stage = lora__stage_add(reader, LORA_STAGE_BYTE_LEVEL);
	bool offsets = false, regex = true; /* offsets are none of our business */
	enum lora_status status;

	if (stage == NULL)
		return LORA_INPUT;
	status = lora__read_bool(reader, "add_prefix_space", &stage->prefix_space);
	if (status == LORA_OK)
		status = lora__read_bool(reader, "trim_offsets", &offsets);
	if (status == LORA_OK && lora__json_get(reader->json, "use_regex") != NULL)
		status = lora__read_bool(reader, "use_regex", &regex);
	if (status == LORA_OK && regex)
		status = lora__regex_compile(&stage->regex, gpt2_pattern, false, reader->err);
	stage->behavior = LORA_SPLIT_ISOLATED;
	return status;
}

static enum lora_status read_split(struct lora_reader *reader)
{
	static const char *const names[] = {"Removed", "Isolated", "MergedWithPrevious",
					    "MergedWithNext", "Contiguous"};
	const char *name = lora__json_string(lora__json_get(reader->json, "behavior"));
	struct lora_stage *stage = lora__stage_add(reader, LORA_STAGE_SPLIT);
	enum lora_status status;
	size_t i = 0;

	if (stage == NULL)
		return LORA_INPUT;
	status = lora__read_bool(reader, "invert", &stage->invert);
	if (status != LORA_OK)
		return status;
	while (i < 5 && (name == NULL || strcmp(name, names[i]) != 0))
		i++;
	if (i == 5)
		return lora__fail(reader->err, LORA_INPUT,
				  "pre_tokenizer: Split: the behavior '%s' is not supported",
				  name == NULL ? "?" : lora__escape(name));
	stage->behavior = (enum lora_behavior)i;
	return lora__read_pattern(reader, stage);
}

static enum lora_status read_digits(struct lora_reader *reader)
{
	struct lora_stage *stage = lora__stage_add(reader, LORA_STAGE_DIGITS);
	bool individual = false;
	enum lora_status status;

	if (stage == NULL)
		return LORA_INPUT;
	status = lora__read_bool(reader, "individual_digits", &individual);
	stage->behavior = individual ? LORA_SPLIT_ISOLATED : LORA_SPLIT_CONTIGUOUS;
	return status;
}

static enum lora_status read_metaspace(struct lora_reader *reader)
{
	struct lora_stage *stage = lora__stage_add(reader, LORA_STAGE_METASPACE);

	return stage == NULL ? LORA_INPUT : lora__metaspace_read(reader, stage);
}

enum lora_status lora__pre_tokenizer_read(struct lora_stages *stages, struct lora_arena *arena,
					  const struct lora_json *json, struct lora_error *err)
{
	static const struct lora_component known[] = {
	    {"ByteLevel", "add_prefix_space trim_offsets use_regex", read_byte_level,
	     LORA_STAGE_BYTE_LEVEL},
	    {"Split", "pattern behavior invert", read_split, LORA_STAGE_SPLIT},
	    {"Digits", "individual_digits", read_digits, LORA_STAGE_DIGITS},
	    {"Metaspace", LORA_METASPACE_KEYS, read_metaspace, LORA_STAGE_METASPACE},
	    {NULL, NULL, NULL, LORA_STAGE_SPLIT},
	};
	struct lora_reader reader = {
	    .arena = arena, .stages = stages, .json = json, .where = "pre_tokenizer", .err = err};

	return lora__stages_read(&reader, "pretokenizers", known);
}

/* --- behaviors -------------------------------------------------------------------- */

/* Does the segment go to the one before it (in the direction of the walk)? */
static bool joins(enum lora_behavior behavior, bool match, bool previous)
{
	if (behavior == LORA_SPLIT_CONTIGUOUS)
		return match == previous;
	return (behavior == LORA_SPLIT_PREVIOUS || behavior == LORA_SPLIT_NEXT) && match &&
	       !previous;
}

/* Joins segments into the words that they make; what is removed is left as a match. */
static void join_forward(struct lora_segments *segments, enum lora_behavior behavior)
{
	bool previous = false;
	size_t count = 0;

	for (size_t i = 0; i < segments->count; i++) {
		struct lora_segment segment = segments->at[i];

		if (count > 0 && joins(behavior, segment.match, previous))
			segments->at[count - 1].end = segment.end;
		else
			segments->at[count++] = segment;
		previous = segment.match;
	}
	segments->count = count;
}

/* The same from the end, for MergedWithNext. */
static void join_backward(struct lora_segments *segments)
{
	size_t to = segments->count;
	bool previous = false;

	for (size_t i = segments->count; i-- > 0;) {
		struct lora_segment segment = segments->at[i];

		if (to < segments->count && joins(LORA_SPLIT_NEXT, segment.match, previous))
			segments->at[to].begin = segment.begin;
		else
			segments->at[--to] = segment;
		previous = segment.match;
	}
	segments->count -= to;
	memmove(segments->at, segments->at + to, segments->count * sizeof *segments->at);
}

/* --- the stages ------------------------------------------------------------------- */

static enum lora_status find_digits(const char *text, size_t size, struct lora_segments *segments,
				    struct lora_error *err)
{
	enum lora_status status = LORA_OK;
	size_t begin = 0, length;
	uint32_t code = 0;

	for (size_t at = 0; at < size && status == LORA_OK; at += length) {
		length = lora__utf8_decode(text + at, size - at, &code);
		if (!lora__is_numeric(code))
			continue;
		if (begin < at)
			status = lora__segments_add(segments, begin, at, false, err);
		if (status == LORA_OK)
			status = lora__segments_add(segments, at, at + length, true, err);
		begin = at + length;
	}
	if (status == LORA_OK && begin < size)
		status = lora__segments_add(segments, begin, size, false, err);
	return status;
}

/* A word begins at each mark: MergedWithNext, read from the left. */
static enum lora_status find_marks(const struct lora_stage *stage, const char *text, size_t size,
				   struct lora_segments *segments, struct lora_error *err)
{
	enum lora_status status = LORA_OK;
	size_t begin = 0, at = 0;

	while (at < size && status == LORA_OK) {
		if (size - at >= stage->length &&
		    memcmp(text + at, stage->content, stage->length) == 0) {
			if (begin < at)
				status = lora__segments_add(segments, begin, at, false, err);
			if (status == LORA_OK)
				status =
				    lora__segments_add(segments, at, at + stage->length, true, err);
			at += stage->length;
			begin = at;
		} else {
			at++;
		}
	}
	if (status == LORA_OK && begin < size)
		status = lora__segments_add(segments, begin, size, false, err);
	return status;
}

static enum lora_status find(const struct lora_stage *stage, struct lora_work *work,
			     const char *text, size_t size, struct lora_error *err)
{
	struct lora_segments *segments = &work->segments;
	enum lora_status status;

	segments->count = 0;
	if (stage->kind == LORA_STAGE_DIGITS) {
		status = find_digits(text, size, segments, err);
	} else if (stage->kind == LORA_STAGE_METASPACE && stage->split) {
		status = find_marks(stage, text, size, segments, err);
	} else if (stage->regex != NULL) {
		status =
		    lora__regex_segments(stage->regex, work->matcher, text, size, segments, err);
	} else {
		status = lora__segments_add(segments, 0, size, false, err);
	}
	for (size_t i = 0; i < segments->count && stage->invert; i++)
		segments->at[i].match = !segments->at[i].match;
	if (stage->behavior == LORA_SPLIT_NEXT)
		join_backward(segments);
	else
		join_forward(segments, stage->behavior);
	return status;
}

/* The printable form of a byte. */
static uint32_t printable(unsigned char byte)
{
	if (byte <= 0x20)
		return 0x100u + byte;
	if (byte >= 0x7f && byte <= 0xa0)
		return 0x121u + byte - 0x7fu;
	return byte == 0xad ? 0x143u : byte;
}

static enum lora_status add_word(const struct lora_stage *stage, struct lora_pieces *to,
				 const char *text, size_t size, bool first, struct lora_error *err)
{
	size_t begin = to->text.size;
	enum lora_status status = LORA_OK;

	if (stage->kind != LORA_STAGE_BYTE_LEVEL)
		status = lora__buffer_add(&to->text, text, size, err);
	for (size_t i = 0; stage->kind == LORA_STAGE_BYTE_LEVEL && i < size && status == LORA_OK;
	     i++)
		status = lora__buffer_add_code(&to->text, printable((unsigned char)text[i]), err);
	return status == LORA_OK ? lora__pieces_add(to, begin, LORA_TOKEN_NONE, first, err)
				 : status;
}

static bool begins_with(const char *text, size_t size, const char *prefix, size_t length)
{
	return size >= length && memcmp(text, prefix, length) == 0;
}

/* ' ' becomes the mark, and one goes in front. */
static enum lora_status put_marks(const struct lora_stage *stage, const struct lora_piece *piece,
				  const char *text, size_t size, struct lora_buffer *to,
				  struct lora_error *err)
{
	bool wanted = stage->prepend == LORA_PREPEND_ALWAYS ||
		      (stage->prepend == LORA_PREPEND_FIRST && piece->first);
	enum lora_status status = LORA_OK;

	if (wanted && text[0] != ' ' && !begins_with(text, size, stage->content, stage->length))
		status = lora__buffer_add(to, stage->content, stage->length, err);
	for (size_t i = 0; i < size && status == LORA_OK; i++)
		status = text[i] == ' ' ? lora__buffer_add(to, stage->content, stage->length, err)
					: lora__buffer_add(to, text + i, 1, err);
	return status;
}

/* The piece as the stage wants it before it is cut, in work->text. */
static enum lora_status prepare(const struct lora_stage *stage, struct lora_work *work,
				const struct lora_piece *piece, struct lora_error *err)
{
	const char *text = work->pieces.text.at + piece->begin;
	size_t size = piece->end - piece->begin;
	enum lora_status status = LORA_OK;

	work->text.size = 0;
	if (stage->kind == LORA_STAGE_METASPACE)
		return put_marks(stage, piece, text, size, &work->text, err);
	if (stage->prefix_space && text[0] != ' ')
		status = lora__buffer_add(&work->text, " ", 1, err);
	return status == LORA_OK ? lora__buffer_add(&work->text, text, size, err) : status;
}

static enum lora_status split_piece(const struct lora_stage *stage, struct lora_work *work,
				    const struct lora_piece *piece, struct lora_error *err)
{
	enum lora_status status;

	work->other.origin = piece->origin;
	if (piece->id != LORA_TOKEN_NONE)
		return lora__pieces_add(&work->other, work->other.text.size, piece->id, false, err);
	status = prepare(stage, work, piece, err);
	if (status == LORA_OK)
		status = find(stage, work, work->text.at, work->text.size, err);
	for (size_t i = 0; i < work->segments.count && status == LORA_OK; i++) {
		const struct lora_segment *word = &work->segments.at[i];

		if (stage->behavior == LORA_SPLIT_REMOVED && word->match)
			continue;
		status = add_word(stage, &work->other, work->text.at + word->begin,
				  word->end - word->begin, piece->first && word->begin == 0, err);
	}
	return status;
}

enum lora_status lora__split(const struct lora_stage *stage, struct lora_work *work,
			     struct lora_error *err)
{
	enum lora_status status = LORA_OK;
	struct lora_pieces done;

	lora__pieces_clear(&work->other);
	for (size_t i = 0; i < work->pieces.count && status == LORA_OK; i++)
		status = split_piece(stage, work, &work->pieces.at[i], err);
	done = work->other;
	work->other = work->pieces;
	work->pieces = done;
	return status;
}
