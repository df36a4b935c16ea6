/* SPDX-License-Identifier: Apache-2.0 */
/* kern/planes.c - numbers as planes of bytes, a plain loop for each width
 *
 *	f32    s eeeeeeee mmm....   ->  eeeeeeee mmm.... s     plane 3 is the exponent
 *
 * 1. Exclusive or with a parent commutes with rotation and planes: a pass of its own in split, in
 *    the same loop in join, where the parent's bytes may be those that are written.
 * 2. Widths and the rotation are constants in each loop, so that the compiler can use vectors. */
#include "kern/planes.h"

#include <string.h>

/* Elements at a time: what is read and written stays in the first cache. */
#define BLOCK 512u

/* Its own inverse: what a little-endian number in memory means. */
static uint16_t le16(uint16_t x)
{
	uint8_t b[2];

	memcpy(b, &x, sizeof(b));
	return (uint16_t)(b[0] | b[1] << 8);
}

static uint32_t le32(uint32_t x)
{
	uint8_t b[4];

	memcpy(b, &x, sizeof(b));
	return b[0] | (uint32_t)b[1] << 8 | (uint32_t)b[2] << 16 | (uint32_t)b[3] << 24;
}

static uint64_t le64(uint64_t x)
{
	uint8_t b[8];
	uint64_t y = 0;

	memcpy(b, &x, sizeof(b));
	for (unsigned k = 0; k < 8; k++)
		y |= (uint64_t)b[k] << 8 * k;
	return y;
}

#define CUT(name, type, le)                                                                        \
	static void split_##name(const uint8_t *in, const uint8_t *parent, size_t n, bool rotated, \
				 size_t stride, uint8_t *out)                                      \
	{                                                                                          \
		type x[BLOCK], y[BLOCK];                                                           \
                                                                                                   \
		memcpy(x, in, n * sizeof(*x));                                                     \
		if (parent) {                                                                      \
			memcpy(y, parent, n * sizeof(*y));                                         \
			for (size_t i = 0; i < n; i++)                                             \
				x[i] ^= y[i];                                                      \
		}                                                                                  \
		for (size_t i = 0; i < n; i++)                                                     \
			x[i] = le(x[i]);                                                           \
		for (size_t i = 0; i < n && rotated; i++)                                          \
			x[i] = (type)((type)(x[i] << 1) | (type)(x[i] >> (8 * sizeof(type) - 1))); \
		for (unsigned k = 0; k < sizeof(type); k++)                                        \
			for (size_t i = 0; i < n; i++)                                             \
				out[k * stride + i] = (uint8_t)(x[i] >> 8 * k);                    \
	}                                                                                          \
                                                                                                   \
	static void join_##name(const uint8_t *const *planes, const uint8_t *parent, size_t from,  \
				size_t n, bool rotated, uint8_t *out)                              \
	{                                                                                          \
		type x[BLOCK], y[BLOCK];                                                           \
                                                                                                   \
		for (size_t i = 0; i < n; i++)                                                     \
			x[i] = planes[0][from + i];                                                \
		for (unsigned k = 1; k < sizeof(type); k++)                                        \
			for (size_t i = 0; i < n; i++)                                             \
				x[i] = (type)(x[i] | (type)((type)planes[k][from + i] << 8 * k));  \
		for (size_t i = 0; i < n && rotated; i++)                                          \
			x[i] = (type)((type)(x[i] >> 1) | (type)(x[i] << (8 * sizeof(type) - 1))); \
		for (size_t i = 0; i < n; i++)                                                     \
			x[i] = le(x[i]);                                                           \
		if (parent) {                                                                      \
			memcpy(y, parent + from * sizeof(*y), n * sizeof(*y));                     \
			for (size_t i = 0; i < n; i++)                                             \
				x[i] ^= y[i];                                                      \
		}                                                                                  \
		memcpy(out + from * sizeof(*x), x, n * sizeof(*x));                                \
	}

CUT(2, uint16_t, le16)
CUT(4, uint32_t, le32)
CUT(8, uint64_t, le64)

static void combine(const uint8_t *in, const uint8_t *parent, size_t size, uint8_t *out)
{
	for (size_t i = 0; i < size; i++)
		out[i] = in[i] ^ parent[i];
}

void lora__planes_split(struct lora_layout layout, const uint8_t *in, const uint8_t *parent,
			size_t size, uint8_t *out)
{
	size_t count = size / layout.width;

	if (layout.width == 1) {
		if (parent)
			combine(in, parent, size, out);
		else
			memcpy(out, in, size);
		return;
	}
	for (size_t at = 0; at < count; at += BLOCK) {
		size_t n = count - at < BLOCK ? count - at : BLOCK, byte = at * layout.width;
		const uint8_t *other = parent ? parent + byte : NULL;

		if (layout.width == 2)
			split_2(in + byte, other, n, layout.rotated, count, out + at);
		else if (layout.width == 4)
			split_4(in + byte, other, n, layout.rotated, count, out + at);
		else
			split_8(in + byte, other, n, layout.rotated, count, out + at);
	}
}

void lora__planes_join(struct lora_layout layout, const uint8_t *const *planes,
		       const uint8_t *parent, size_t size, uint8_t *out)
{
	size_t count = size / layout.width;

	if (layout.width == 1) {
		if (parent)
			combine(planes[0], parent, size, out);
		else
			memcpy(out, planes[0], size);
		return;
	}
	for (size_t at = 0; at < count; at += BLOCK) {
		size_t n = count - at < BLOCK ? count - at : BLOCK;

		if (layout.width == 2)
			join_2(planes, parent, at, n, layout.rotated, out);
		else if (layout.width == 4)
			join_4(planes, parent, at, n, layout.rotated, out);
		else
			join_8(planes, parent, at, n, layout.rotated, out);
	}
}
