/* SPDX-License-Identifier: Apache-2.0 */
/* merge/residual.c - a chunk of folded distances z as bytes.
 *
 * Most elements are predicted exactly, and of the rest most are off by one: z is 0, 1 or 2. So two
 * ways stand side by side and the smaller one is kept:
 *
 *	gaps	how many zeros lie before each z that is not 0, as bytes (255 means 255 and more to
 *		come), and these z byte plane by byte plane. With a share q of z that are not 0 the
 *		gaps are geometric, and a Huffman code of them takes within a few per cent of the
 *		entropy of q: nothing shorter exists for errors that are independent.
 *	planes	all z, byte plane by byte plane: for wide errors, and for tensors that were
 *replaced, where z is the number itself with its sign at the low end, the exponent together.
 *
 * 1. A stream is stored as it is where that is smaller: a chunk is never larger than its elements
 *    and LORA_CHUNK_OVERHEAD.
 * 2. Decoding believes nothing: every count is checked against the chunk before it is used.
 */
#include "merge/residual.h"

#include "base/error.h"
#include "kern/ordinal.h"

#include <stdlib.h>
#include <string.h>

enum mode { ALL_ZERO, GAPS, PLANES };
enum coding { ZEROS, STORED, FRAME };

/* Above this share of z that are not 0 gaps cannot win; below that one planes cannot. */
#define GAPS_WORTH_A_TRY(m, n)	 ((m) <= (n) / 2)
#define PLANES_WORTH_A_TRY(m, n) ((m) > (n) / 16)

unsigned lora__residual_width(enum lora_dtype type)
{
	return type == LORA_DTYPE_F32				   ? 4
	       : type == LORA_DTYPE_F16 || type == LORA_DTYPE_BF16 ? 2
								   : 1;
}

enum lora_status lora__residual_init(struct lora_residual *r, struct lora_error *err)
{
	size_t room = LORA_CHUNK_BYTES + LORA_CHUNK_OVERHEAD;

	memset(r, 0, sizeof(*r));
	r->codec = lora__codec_new();
	r->z = malloc(room);
	r->gaps = malloc(room);
	r->values = malloc(room);
	r->plane = malloc(LORA_CHUNK_ELEMENTS);
	r->other = malloc(room);
	return r->codec && r->z && r->gaps && r->values && r->plane && r->other
		   ? LORA_OK
		   : lora__fail_memory(err);
}

void lora__residual_fini(struct lora_residual *r)
{
	lora__codec_free(r->codec);
	free(r->z);
	free(r->gaps);
	free(r->values);
	free(r->plane);
	free(r->other);
}

/* ---- writing ----------------------------------------------------------------------------------
 */

struct writer {
	struct lora_residual *r;
	uint8_t *out;
	size_t size, room;
	bool full;
	enum lora_status status;
	struct lora_error *err;
};

static void put_u32(uint8_t *at, uint32_t value)
{
	for (unsigned i = 0; i < 4; i++)
		at[i] = (uint8_t)(value >> (8 * i));
}

static bool all_zero(const uint8_t *data, size_t n)
{
	return n == 0 || (data[0] == 0 && memcmp(data, data + 1, n - 1) == 0);
}

static bool take(struct writer *w, size_t n)
{
	w->full = w->full || w->room - w->size < n;
	return !w->full;
}

static void put_stream(struct writer *w, const uint8_t *data, size_t n)
{
	size_t packed = 0;

	if (!take(w, 1))
		return;
	if (all_zero(data, n)) {
		w->out[w->size++] = ZEROS;
		return;
	}
	if (n > 4 && w->room - w->size > 5) {
		size_t room = w->room - w->size - 5;

		packed = room < n - 4 ? room : n - 4;
		w->status = lora__frame_pack(w->r->codec, LORA_FRAME_BYTES, data, n,
					     w->out + w->size + 5, &packed, w->err);
	}
	if (packed) {
		w->out[w->size] = FRAME;
		put_u32(w->out + w->size + 1, (uint32_t)packed);
		w->size += 5 + packed;
	} else if (take(w, 1 + n)) {
		w->out[w->size] = STORED;
		memcpy(w->out + w->size + 1, data, n);
		w->size += 1 + n;
	}
}

/* Byte planes of n values of `width` bytes. */
static void put_planes(struct writer *w, const uint8_t *values, size_t n, unsigned width)
{
	for (unsigned j = 0; j < width && !w->full && !w->status; j++) {
		for (size_t i = 0; i < n; i++)
			w->r->plane[i] = values[i * width + j];
		put_stream(w, w->r->plane, n);
	}
}

static size_t put_gap(uint8_t *gaps, size_t g, size_t gap)
{
	for (; gap >= 255; gap -= 255)
		gaps[g++] = 255;
	gaps[g++] = (uint8_t)gap;
	return g;
}

/* The z that are not 0, together, into r->values; the gaps into r->gaps. Returns their bytes. */
static size_t split_gaps(struct lora_residual *r, struct lora_residual_span span)
{
	size_t g = 0, gap = 0, step = 8 / span.width, m = 0;
	static const uint8_t zero[4];

	for (size_t i = 0; i < span.n; i++) {
		uint64_t eight = 1;

		if (i % step == 0 && span.n - i >= step)
			memcpy(&eight, r->z + i * span.width, sizeof(eight));
		if (eight == 0) {
			gap += step;
			i += step - 1;
			continue;
		}
		if (memcmp(r->z + i * span.width, zero, span.width) == 0) {
			gap++;
			continue;
		}
		g = put_gap(r->gaps, g, gap);
		gap = 0;
		memcpy(r->values + m * span.width, r->z + i * span.width, span.width);
		m++;
	}
	return g;
}

static void put_gaps(struct writer *w, struct lora_residual_span span, size_t m)
{
	size_t g = split_gaps(w->r, span);

	if (!take(w, 9))
		return;
	w->out[w->size] = GAPS;
	put_u32(w->out + w->size + 1, (uint32_t)m);
	put_u32(w->out + w->size + 5, (uint32_t)g);
	w->size += 9;
	put_stream(w, w->r->gaps, g);
	put_planes(w, w->r->values, m, span.width);
}

static void put_all(struct writer *w, struct lora_residual_span span)
{
	if (!take(w, 1))
		return;
	w->out[w->size++] = PLANES;
	put_planes(w, w->r->z, span.n, span.width);
}

enum lora_status lora__residual_encode(struct lora_residual *r, struct lora_residual_span span,
				       const void *base, const void *predicted, uint8_t *out,
				       size_t *size, struct lora_error *err)
{
	size_t room = span.n * span.width + LORA_CHUNK_OVERHEAD, m;
	struct writer gaps = {r, out, 0, room, true, LORA_OK, err},
		      planes = {r, r->other, 0, room, true, LORA_OK, err};

	if (!predicted)
		predicted = memset(r->other, 0, span.n * span.width);
	m = lora__ordinal_fold(r->z, base, predicted, span.n, span.width);
	if (m == 0) {
		out[0] = ALL_ZERO;
		*size = 1;
		return LORA_OK;
	}
	if (GAPS_WORTH_A_TRY(m, span.n)) {
		gaps.full = false;
		put_gaps(&gaps, span, m);
	}
	if (!gaps.status && (gaps.full || PLANES_WORTH_A_TRY(m, span.n))) {
		planes.full = false;
		planes.room = gaps.full ? room : gaps.size;
		put_all(&planes, span);
	}
	*size = gaps.size;
	if (!planes.full) {
		memcpy(out, planes.out, planes.size);
		*size = planes.size;
	}
	return gaps.status ? gaps.status : planes.status;
}

/* ---- reading ----------------------------------------------------------------------------------
 */

struct reader {
	struct lora_residual *r;
	const uint8_t *at;
	size_t left;
	struct lora_error *err;
};

static enum lora_status malformed(struct lora_error *err, const char *what)
{
	return lora__fail(err, LORA_INPUT, "damaged residual: %s", what);
}

static enum lora_status get(struct reader *in, size_t n, const uint8_t **data)
{
	if (n > in->left)
		return malformed(in->err, "it ends too early");
	*data = in->at;
	in->at += n;
	in->left -= n;
	return LORA_OK;
}

static enum lora_status get_u32(struct reader *in, uint32_t *value)
{
	const uint8_t *b = NULL;
	enum lora_status status = get(in, 4, &b);

	if (!status)
		*value = (uint32_t)b[0] | (uint32_t)b[1] << 8 | (uint32_t)b[2] << 16 |
			 (uint32_t)b[3] << 24;
	return status;
}

static enum lora_status get_stream(struct reader *in, uint8_t *out, size_t n)
{
	const uint8_t *coding = NULL, *data = NULL;
	uint32_t packed = 0;
	enum lora_status status = get(in, 1, &coding);

	if (status)
		return status;
	switch (*coding) {
	case ZEROS:
		memset(out, 0, n);
		return LORA_OK;
	case STORED:
		status = get(in, n, &data);
		if (!status)
			memcpy(out, data, n);
		return status;
	case FRAME:
		status = get_u32(in, &packed);
		if (!status)
			status = get(in, packed, &data);
		return status ? status
			      : lora__frame_unpack(in->r->codec, data, packed, out, n, in->err);
	default:
		return malformed(in->err, "a stream of an unknown coding");
	}
}

static enum lora_status get_planes(struct reader *in, uint8_t *values, size_t n, unsigned width)
{
	enum lora_status status = LORA_OK;

	for (unsigned j = 0; j < width && !status; j++) {
		status = get_stream(in, in->r->plane, n);
		for (size_t i = 0; i < n && !status; i++)
			values[i * width + j] = in->r->plane[i];
	}
	return status;
}

/* Every value to its place in a z that is 0 elsewhere. */
static enum lora_status spread(struct reader *in, struct lora_residual_span span, size_t m,
			       size_t g)
{
	static const uint8_t zero[4];
	struct lora_residual *r = in->r;
	size_t at = 0, used = 0;

	memset(r->z, 0, span.n * span.width);
	for (size_t k = 0; k < m; k++, at++) {
		uint8_t byte;

		do {
			if (used == g)
				return malformed(in->err, "gaps are missing");
			byte = r->gaps[used++];
			at += byte;
			if (at >= span.n)
				return malformed(in->err, "a gap leads out of it");
		} while (byte == 255);
		if (memcmp(r->values + k * span.width, zero, span.width) == 0)
			return malformed(in->err, "a difference of 0 among the others");
		memcpy(r->z + at * span.width, r->values + k * span.width, span.width);
	}
	return used == g ? LORA_OK : malformed(in->err, "gaps are left over");
}

static enum lora_status get_gaps(struct reader *in, struct lora_residual_span span)
{
	uint32_t m = 0, g = 0;
	enum lora_status status = get_u32(in, &m);

	if (!status)
		status = get_u32(in, &g);
	if (!status && (m == 0 || m > span.n || g < m || g > LORA_CHUNK_BYTES))
		status = malformed(in->err, "its counts are impossible");
	if (!status)
		status = get_stream(in, in->r->gaps, g);
	if (!status)
		status = get_planes(in, in->r->values, m, span.width);
	return status ? status : spread(in, span, m, g);
}

enum lora_status lora__residual_decode(struct lora_residual *r, struct lora_residual_span span,
				       const uint8_t *chunk, size_t size, void *predicted,
				       struct lora_error *err)
{
	struct reader in = {r, chunk, size, err};
	const uint8_t *mode = NULL;
	enum lora_status status = get(&in, 1, &mode);

	if (status)
		return status;
	if (*mode == GAPS)
		status = get_gaps(&in, span);
	else if (*mode == PLANES)
		status = get_planes(&in, r->z, span.n, span.width);
	else if (*mode != ALL_ZERO)
		return malformed(err, "a chunk of an unknown sort");
	if (!status && in.left)
		status = malformed(err, "bytes are left over");
	if (!status && *mode != ALL_ZERO)
		lora__ordinal_unfold(predicted, r->z, span.n, span.width);
	return status;
}
