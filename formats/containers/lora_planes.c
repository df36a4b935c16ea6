/* SPDX-License-Identifier: Apache-2.0 */
/* formats/containers/lora_planes.c - numbers as planes of bytes, and planes as little as they can
 *be
 *
 * A trained weight is a sign, an exponent that takes a few dozen values, and a mantissa that is
 * noise. Compressors look for repeated strings and find none. Cut into planes, byte k of every
 * element in plane k, the exponents stand together and cost what their frequencies say (order 0),
 * and mantissas are stored as they are, at no cost in time. In f32 and bf16 the exponent straddles
 * two bytes; rotating every element left by one bit brings it into the top one.
 *
 * Against a parent, elements are combined by exclusive or first: what did not change is zero, what
 * changed little has zeros on top. It commutes with rotation and planes.
 *
 * Encoding a plane: all bytes equal, a REPEAT; nothing to be gained by the frequencies, STORED;
 * else the smaller of a frame of single bytes, and of one with repeats where these are likely.
 */
#include "base/error.h"
#include "formats/containers/lora.h"
#include "formats/containers/lora_bytes.h"

#include <math.h>
#include <string.h>

#define LENGTH_MASK 0xffffffu

struct lora_layout lora__layout_of(enum lora_dtype dtype)
{
	switch (dtype) {
	case LORA_DTYPE_F32:
	case LORA_DTYPE_C64:
		return (struct lora_layout){4, true};
	case LORA_DTYPE_F16:
	case LORA_DTYPE_BF16:
		return (struct lora_layout){2, true};
	case LORA_DTYPE_F64:
		return (struct lora_layout){8, true};
	case LORA_DTYPE_U16:
	case LORA_DTYPE_I16:
		return (struct lora_layout){2, false};
	case LORA_DTYPE_U32:
	case LORA_DTYPE_I32:
		return (struct lora_layout){4, false};
	case LORA_DTYPE_U64:
	case LORA_DTYPE_I64:
		return (struct lora_layout){8, false};
	default:
		return (struct lora_layout){1, false};
	}
}

/* --- decoding -------------------------------------------------------------------------------- */

enum lora_status lora__words_check(const uint8_t *words, struct lora_layout layout, size_t size,
				   uint64_t *stored, struct lora_error *err)
{
	size_t n = size / layout.width;

	*stored = 0;
	for (unsigned k = 0; k < layout.width; k++) {
		uint32_t word = lora__get32(words + 4 * k), length = word & LENGTH_MASK;
		bool good = false;

		switch (word >> 24) {
		case LORA_PLANE_STORED:
			good = length == n;
			break;
		case LORA_PLANE_FRAME:
			good = length > 0 && length < n;
			break;
		case LORA_PLANE_REPEAT:
			good = length == 1;
			break;
		default:
			break;
		}
		if (!good)
			return lora__fail(err, LORA_INPUT,
					  "the index is damaged or badly written: no plane of %zu "
					  "bytes is stored as %08x says",
					  n, (unsigned)word);
		*stored += length;
	}
	return LORA_OK;
}

/* Where the bytes of a plane are: as they are stored, or in `room` [n]. */
static enum lora_status decode_plane(struct lora_codec *codec, uint32_t word, const uint8_t *stored,
				     size_t n, uint8_t *room, const uint8_t **plane,
				     struct lora_error *err)
{
	*plane = room;
	switch (word >> 24) {
	case LORA_PLANE_STORED:
		*plane = stored;
		return LORA_OK;
	case LORA_PLANE_REPEAT:
		memset(room, *stored, n);
		return LORA_OK;
	default:
		return lora__frame_unpack(codec, stored, word & LENGTH_MASK, room, n, err);
	}
}

enum lora_status lora__chunk_decode(struct lora_codec *codec, const struct lora_chunk *chunk,
				    const uint8_t *stored, uint8_t *out, uint8_t *scratch,
				    struct lora_error *err)
{
	size_t n = chunk->size / chunk->layout.width;
	const uint8_t *planes[LORA_PLANES_MAX];

	for (unsigned k = 0; k < chunk->layout.width; k++) {
		uint32_t word = lora__get32(chunk->words + 4 * k);
		enum lora_status status =
		    decode_plane(codec, word, stored, n, scratch + k * n, &planes[k], err);

		if (status)
			return status;
		stored += word & LENGTH_MASK;
	}
	lora__planes_join(chunk->layout, planes, chunk->parent, chunk->size, out);
	return LORA_OK;
}

/* --- encoding -------------------------------------------------------------------------------- */

/* What there is to know about a plane before it is packed. */
struct census {
	double entropy; /* order 0, bytes for the whole plane */
	double most;	/* share of the most frequent byte */
};

/* Four tables, so that equal bytes in a row do not wait for each other. */
static struct census count(const uint8_t *plane, size_t n)
{
	uint32_t tally[4][256] = {{0}};
	struct census census = {0, 0};
	size_t i = 0;

	for (; i + 4 <= n; i += 4)
		for (unsigned j = 0; j < 4; j++)
			tally[j][plane[i + j]]++;
	for (; i < n; i++)
		tally[0][plane[i]]++;
	for (unsigned b = 0; b < 256; b++) {
		double share =
		    ((double)tally[0][b] + tally[1][b] + tally[2][b] + tally[3][b]) / (double)n;

		if (share > census.most)
			census.most = share;
		if (share > 0)
			census.entropy -= share * log2(share);
	}
	census.entropy *= (double)n / 8;
	return census;
}

/* Mantissas are noise, and told from a sample: as good as nothing can be gained by frequencies that
 * differ so little. */
#define SAMPLE_BLOCK 4096u
#define SAMPLES	     16u
#define NOISE	     0.996

static bool is_noise(const uint8_t *plane, size_t n)
{
	uint8_t sample[SAMPLES * SAMPLE_BLOCK];
	size_t step = n / SAMPLES;

	if (n < 4 * sizeof(sample))
		return false;
	for (unsigned i = 0; i < SAMPLES; i++)
		memcpy(sample + i * SAMPLE_BLOCK, plane + i * step, SAMPLE_BLOCK);
	return count(sample, sizeof(sample)).entropy > NOISE * (double)sizeof(sample);
}

/* Text and files, whose repeats the frequencies do not show; and planes where one byte rules, as in
 * differences: Huffman codes spend a bit on each, runs cost nothing. */
#define RULES 0.4
/* Below this share of a plane a frame is not worth the time of its reader. */
#define GAIN 0.99

/* A plane of n bytes on its way into `out` [n]; `spare` is as long. */
struct plane {
	const uint8_t *bytes;
	size_t n;
	bool text;
	uint8_t *out, *spare;
};

/* The smaller of the frames that are worth trying; 0 if none gains. */
static enum lora_status pack_plane(struct lora_codec *codec, const struct plane *plane,
				   const struct census *census, size_t *best,
				   struct lora_error *err)
{
	size_t n = plane->n, other = 0; /* room, then size; as *best */
	enum lora_status status = LORA_OK;

	*best = 0;
	if (census->entropy < GAIN * (double)n && !plane->text) {
		*best = n - 1;
		status = lora__frame_pack(codec, LORA_FRAME_BYTES, plane->bytes, n, plane->out,
					  best, err);
	}
	if (!status && (plane->text || census->most > RULES)) {
		other = *best ? *best - 1 : n - 1;
		status = lora__frame_pack(codec, LORA_FRAME_REPEATS, plane->bytes, n, plane->spare,
					  &other, err);
	}
	if (!status && other) {
		memcpy(plane->out, plane->spare, other);
		*best = other;
	}
	return status;
}

static enum lora_status encode_plane(struct lora_codec *codec, const struct plane *plane,
				     uint32_t *word, struct lora_error *err)
{
	struct census census;
	enum lora_status status;
	size_t packed;

	if (!plane->text && is_noise(plane->bytes, plane->n)) {
		memcpy(plane->out, plane->bytes, plane->n);
		*word = lora__word(LORA_PLANE_STORED, (uint32_t)plane->n);
		return LORA_OK;
	}
	census = count(plane->bytes, plane->n);
	if (census.most == 1) {
		*plane->out = *plane->bytes;
		*word = lora__word(LORA_PLANE_REPEAT, 1);
		return LORA_OK;
	}
	status = pack_plane(codec, plane, &census, &packed, err);
	if (!packed)
		memcpy(plane->out, plane->bytes, plane->n);
	*word = packed ? lora__word(LORA_PLANE_FRAME, (uint32_t)packed)
		       : lora__word(LORA_PLANE_STORED, (uint32_t)plane->n);
	return status;
}

enum lora_status lora__chunk_encode(struct lora_codec *codec, const struct lora_chunk *chunk,
				    const uint8_t *in, uint8_t *out, size_t *stored,
				    uint8_t *scratch, struct lora_error *err)
{
	size_t n = chunk->size / chunk->layout.width;
	struct plane plane = {scratch, n, chunk->layout.width == 1 && !chunk->parent, out,
			      scratch + LORA_CHUNK_SIZE};

	*stored = 0;
	lora__planes_split(chunk->layout, in, chunk->parent, chunk->size, scratch);
	for (unsigned k = 0; k < chunk->layout.width; k++) {
		uint32_t word;
		enum lora_status status = encode_plane(codec, &plane, &word, err);

		if (status)
			return status;
		lora__put32(chunk->words + 4 * k, word);
		*stored += word & LENGTH_MASK;
		plane.bytes += n;
		plane.out = out + *stored;
	}
	return LORA_OK;
}
