/* SPDX-License-Identifier: Apache-2.0 */
/* test_lora.c - the bytes of a .lora container: superblock, records, commits, index, planes.
 *
 * Expected values are written out from lora-container(5): offsets by number, planes by the
 * definition (element by element), digests by SHA-256 alone. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

#include "formats/containers/lora.h"

static void put(uint8_t *at, uint64_t value, unsigned size)
{
	while (size-- > 0) {
		*at++ = (uint8_t)value;
		value >>= 8;
	}
}

/* --- superblock ------------------------------------------------------------------------------ */

static void superblock(void **state)
{
	static const uint8_t start[] = {0x89, 'L', 'O', 'R', 13, 10, 26, 10, 1, 0, 0, 0};
	const struct lora_superblock block = {.major = 1};
	struct lora_superblock again;
	struct lora_sha256 digest;
	uint8_t bytes[64], expected[64] = {0};

	(void)state;
	memcpy(expected, start, sizeof(start));
	lora__sha256(expected, 32, &digest);
	memcpy(expected + 32, digest.byte, 32);
	lora__superblock_emit(bytes, &block);
	assert_memory_equal(bytes, expected, sizeof(bytes));
	assert_int_equal(lora__superblock_parse(&again, bytes, 64, NULL), LORA_OK);
	assert_memory_equal(&again, &block, sizeof(block));
	for (size_t size = 0; size < 64; size++)
		assert_int_equal(lora__superblock_parse(&again, bytes, size, NULL), LORA_INPUT);
	for (unsigned bit = 0; bit < 64 * 8; bit++) {
		memcpy(bytes, expected, sizeof(bytes));
		bytes[bit / 8] ^= (uint8_t)(1 << bit % 8);
		assert_int_equal(lora__superblock_parse(&again, bytes, 64, NULL), LORA_INPUT);
	}
}

static void features(void **state)
{
	static const struct {
		struct lora_superblock block;
		const char *words; /* NULL: it is read */
	} cases[] = {
	    {{1, 7, 0, 0, 0}, NULL},
	    {{1, 0, 0, 0, 0xffffffff}, NULL},
	    {{1, 0, 0, 5, 0}, NULL},
	    {{2, 0, 0, 0, 0}, "version 2.0"},
	    {{0, 9, 0, 0, 0}, "version 0.9"},
	    {{1, 0, 1, 0, 0}, "incompat.0"},
	    {{1, 0, 0x80000000, 0, 0}, "incompat.31"},
	};
	struct lora_superblock again;
	struct lora_error err = LORA_ERROR_INIT;
	uint8_t bytes[64];

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
		lora__superblock_emit(bytes, &cases[i].block);
		assert_int_equal(lora__superblock_parse(&again, bytes, 64, &err),
				 cases[i].words ? LORA_INPUT : LORA_OK);
		if (cases[i].words)
			assert_non_null(strstr(err.message, cases[i].words));
	}
	bytes[24] = 1; /* reserved, under a right digest */
	{
		struct lora_sha256 digest;

		memset(bytes + 12, 0, 12);
		bytes[8] = 1;
		lora__sha256(bytes, 32, &digest);
		memcpy(bytes + 32, digest.byte, 32);
	}
	assert_int_equal(lora__superblock_parse(&again, bytes, 64, &err), LORA_INPUT);
}

/* --- records --------------------------------------------------------------------------------- */

/* A header with a right check. */
static void head(uint8_t *out, unsigned type, unsigned flags, unsigned zero, uint64_t size,
		 uint64_t zero2)
{
	struct lora_sha256 digest;

	put(out, type, 2);
	put(out + 2, flags, 2);
	put(out + 4, zero, 4);
	put(out + 8, size, 8);
	put(out + 16, zero2, 8);
	lora__sha256(out, 24, &digest);
	memcpy(out + 24, digest.byte, 8);
}

static void records(void **state)
{
	static const struct {
		unsigned type, flags, zero;
		uint64_t size, zero2;
		bool good;
	} cases[] = {
	    {1, 1, 0, 1, 0, true},
	    {1, 1, 0, UINT64_MAX, 0, true}, /* the file's size bounds it */
	    {1, 0, 0, 1, 0, false},
	    {1, 1, 0, 0, 0, false},
	    {2, 1, 0, 60, 0, true},
	    {2, 1, 0, 59, 0, false},
	    {2, 1, 0, 16777216, 0, true},
	    {2, 1, 0, 16777217, 0, false},
	    {3, 1, 0, 1, 0, true},
	    {3, 1, 0, 16777217, 0, false},
	    {4, 0, 0, 33, 0, true},
	    {4, 0, 0, 32, 0, false},
	    {4, 0, 0, 32 + 65536, 0, true},
	    {4, 0, 0, 32 + 65537, 0, false},
	    {4, 1, 0, 33, 0, false},
	    {5, 0, 0, 32 + 4194304, 0, true},
	    {5, 0, 0, 32 + 4194305, 0, false},
	    {6, 1, 0, 208, 0, true},
	    {6, 1, 0, 207, 0, false},
	    {6, 1, 0, 216, 0, false},
	    {7, 0, 0, 0, 0, true},
	    {7, 1, 0, 99, 0, true}, /* critical: the group's question */
	    {0, 0, 0, 0, 0, true},
	    {65535, 0, 0, 0, 0, true},
	    {7, 2, 0, 0, 0, false},
	    {7, 0x8000, 0, 0, 0, false},
	    {7, 0, 1, 0, 0, false},
	    {7, 0, 0, 0, 1, false},
	};
	struct lora_record record;
	uint8_t bytes[32], own[32];

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
		head(bytes, cases[i].type, cases[i].flags, cases[i].zero, cases[i].size,
		     cases[i].zero2);
		assert_int_equal(lora__record_parse(&record, bytes), cases[i].good);
		if (!cases[i].good)
			continue;
		assert_int_equal(record.type, cases[i].type);
		assert_int_equal(record.size, cases[i].size);
		lora__record_emit(own, record.type, record.critical, record.size);
		assert_memory_equal(own, bytes, sizeof(own));
	}
	head(bytes, 1, 1, 0, 77, 0);
	for (unsigned bit = 0; bit < 256; bit++) {
		bytes[bit / 8] ^= (uint8_t)(1 << bit % 8);
		assert_false(lora__record_parse(&record, bytes));
		bytes[bit / 8] ^= (uint8_t)(1 << bit % 8);
	}
	assert_int_equal(lora__record_padding(0), 0);
	assert_int_equal(lora__record_padding(1), 7);
	assert_int_equal(lora__record_padding(8), 0);
	assert_int_equal(lora__record_padding(UINT64_MAX), 1);
}

static struct lora_commit a_commit(void)
{
	struct lora_commit commit = {.at = 4096,
				     .sequence = 3,
				     .begin = 1024,
				     .version = 2,
				     .manifest_at = 2048,
				     .manifest_size = 99,
				     .index_at = 1536};

	memset(commit.manifest.byte, 0x11, 32);
	memset(commit.index.byte, 0x22, 32);
	memset(commit.body.byte, 0x33, 32);
	memset(commit.link, 0x44, 16);
	return commit;
}

static void commits(void **state)
{
	struct lora_commit commit = a_commit(), again;
	uint8_t bytes[240], expected[240] = {0}, *p = expected + 32;
	struct lora_sha256 check;

	(void)state;
	head(expected, 6, 1, 0, 208, 0);
	put(p, 4096, 8);
	put(p + 8, 3, 8);
	put(p + 16, 1024, 8);
	put(p + 24, 2, 8);
	put(p + 32, 2048, 8);
	put(p + 40, 99, 8);
	memset(p + 48, 0x11, 32);
	put(p + 80, 1536, 8);
	memset(p + 88, 0x22, 32);
	memset(p + 128, 0x33, 32);
	memset(p + 160, 0x44, 16);
	lora__sha256(expected, 32 + 176, &check);
	memcpy(p + 176, check.byte, 32);
	lora__commit_emit(bytes, &commit);
	assert_memory_equal(bytes, expected, sizeof(bytes));
	assert_true(lora__commit_parse(&again, bytes, 4096));
	assert_true(again.fits);
	assert_memory_equal(&again, &commit, offsetof(struct lora_commit, fits));
	assert_false(lora__commit_parse(&again, bytes, 4104)); /* a copy elsewhere */
	for (unsigned bit = 0; bit < 240 * 8; bit++) {
		bytes[bit / 8] ^= (uint8_t)(1 << bit % 8);
		assert_false(lora__commit_parse(&again, bytes, 4096));
		bytes[bit / 8] ^= (uint8_t)(1 << bit % 8);
	}
}

static void commit_fields(void **state)
{
	struct lora_commit good = a_commit(), commit, again;
	uint8_t bytes[240];

	(void)state;
#define REFUSED(field, value)                                                                      \
	do {                                                                                       \
		commit = good;                                                                     \
		commit.field = (value);                                                            \
		lora__commit_emit(bytes, &commit);                                                 \
		assert_true(lora__commit_parse(&again, bytes, 4096));                              \
		assert_false(again.fits);                                                          \
	} while (0)
	REFUSED(version, 0); /* with a manifest */
	REFUSED(version, (uint64_t)1 << 53);
	REFUSED(manifest_size, 0);
	REFUSED(manifest_size, (16u << 20) + 1);
	REFUSED(manifest_at, 1016);
	REFUSED(manifest_at, 4096);
	REFUSED(manifest_at, 0);
	REFUSED(index_at, 1016);
	REFUSED(index_at, 4096);
	REFUSED(index_at, 0); /* with a digest */
#undef REFUSED
	commit = good;
	commit.index_at = 0;
	memset(commit.index.byte, 0, 32);
	lora__commit_emit(bytes, &commit);
	assert_true(lora__commit_parse(&again, bytes, 4096) && again.fits);
	commit = (struct lora_commit){.at = 4096, .sequence = 1, .begin = 64};
	lora__commit_emit(bytes, &commit);
	assert_true(lora__commit_parse(&again, bytes, 4096) && again.fits);
}

/* --- index ----------------------------------------------------------------------------------- */

struct entry {
	uint64_t size;
	unsigned width, flags, zero;
	uint32_t parent;
	uint32_t words[8];
	unsigned count;
};

static size_t make_index(uint8_t *out, const struct entry *entries, size_t count)
{
	size_t at = 8;

	put(out, count, 8);
	for (size_t i = 0; i < count; i++) {
		memset(out + at, (int)(i + 1), 32);
		put(out + at + 32, entries[i].size, 8);
		out[at + 40] = (uint8_t)entries[i].width;
		out[at + 41] = (uint8_t)entries[i].flags;
		put(out + at + 42, entries[i].zero, 2);
		put(out + at + 44, entries[i].parent, 4);
		at += 48;
		for (unsigned k = 0; k < entries[i].count; k++, at += 4)
			put(out + at, entries[i].words[k], 4);
	}
	return at;
}

/* All entries of an index of `size` bytes at 1000, data at 200; the objects, or the failure. */
static enum lora_status walk_all(const uint8_t *bytes, size_t size, uint64_t data,
				 struct lora_object *objects, uint32_t *count)
{
	struct lora_index_walk walk;
	struct lora_object object;
	enum lora_status status;
	bool end = false;

	*count = 0;
	status = lora__index_begin(&walk, bytes, size, 1000, 200, data, NULL);
	while (!status) {
		status = lora__index_next(&walk, objects, *count, &object, &end, NULL);
		if (status || end)
			break;
		assert_true(*count < 16);
		objects[(*count)++] = object;
	}
	return status;
}

static void index_good(void **state)
{
	static const struct entry entries[] = {
	    {5, 1, 0, 0, 0, {5}, 1},
	    {8, 4, 1, 0, 0, {2, 2u << 24 | 1, 1u << 24 | 1, 2}, 4},
	    {8, 2, 2, 0, 1, {4, 2u << 24 | 1}, 2},
	};
	struct lora_object objects[16];
	uint8_t bytes[1024];
	uint32_t count;
	size_t size = make_index(bytes, entries, 3);

	(void)state;
	assert_int_equal(walk_all(bytes, size, 5 + 6 + 5, objects, &count), LORA_OK);
	assert_int_equal(count, 3);
	assert_int_equal(objects[0].data, 200);
	assert_int_equal(objects[1].data, 205);
	assert_int_equal(objects[2].data, 211);
	assert_int_equal(objects[0].words, 1000 + 8 + 48);
	assert_int_equal(objects[2].words, 1000 + 8 + 48 + 4 + 48 + 16 + 48);
	assert_int_equal(objects[0].parent, LORA_NO_OBJECT);
	assert_int_equal(objects[2].parent, 1);
	assert_int_equal(objects[2].depth, 1);
	assert_true(objects[1].layout.rotated);
	assert_int_equal(walk_all(bytes, size, 15, objects, &count), LORA_INPUT);
	assert_int_equal(walk_all(bytes, size, 17, objects, &count), LORA_INPUT);
	assert_int_equal(walk_all(bytes, size + 4, 16, objects, &count), LORA_INPUT);
	for (size_t cut = 0; cut < size; cut++) { /* in memory that ends there */
		uint8_t *copy = malloc(cut + 1);

		memcpy(copy, bytes, cut);
		assert_int_equal(walk_all(copy, cut, 16, objects, &count), LORA_INPUT);
		free(copy);
	}
}

static void index_bad(void **state)
{
	static const struct entry cases[] = {
	    {0, 1, 0, 0, 0, {0}, 1},		     /* no bytes */
	    {(uint64_t)1 << 48, 1, 0, 0, 0, {1}, 1}, /* too many */
	    {UINT64_MAX, 1, 0, 0, 0, {1}, 1},	     /* wraps */
	    {(uint64_t)1 << 47, 1, 0, 0, 0, {1}, 1}, /* more words than bytes */
	    {8, 0, 0, 0, 0, {8}, 1},		     /* width */
	    {8, 3, 0, 0, 0, {3, 3, 2}, 3},
	    {8, 16, 0, 0, 0, {8}, 1},
	    {7, 2, 0, 0, 0, {3, 4}, 2}, /* no multiple */
	    {8, 1, 1, 0, 0, {8}, 1},	/* rotated bytes */
	    {8, 2, 4, 0, 0, {4, 4}, 2}, /* flags */
	    {8, 2, 0, 1, 0, {4, 4}, 2},
	    {8, 2, 0, 0, 1, {4, 4}, 2}, /* a parent without the flag */
	    {8, 2, 2, 0, 1, {4, 4}, 2}, /* itself */
	    {8, 2, 2, 0, 7, {4, 4}, 2}, /* later */
	    {8, 2, 2, 0, UINT32_MAX, {4, 4}, 2},
	    {6, 2, 2, 0, 0, {3, 3}, 2}, /* of another size */
	    {8, 2, 0, 0, 0, {3, 4}, 2}, /* stored, too short */
	    {8, 2, 0, 0, 0, {5, 4}, 2},
	    {8, 2, 0, 0, 0, {1u << 24, 4}, 2},	   /* an empty frame */
	    {8, 2, 0, 0, 0, {1u << 24 | 4, 4}, 2}, /* one that gains nothing */
	    {8, 2, 0, 0, 0, {2u << 24, 4}, 2},
	    {8, 2, 0, 0, 0, {2u << 24 | 2, 4}, 2},
	    {8, 2, 0, 0, 0, {3u << 24 | 1, 4}, 2}, /* no method */
	    {8, 2, 0, 0, 0, {255u << 24 | 1, 4}, 2},
	};
	struct lora_object objects[16];
	uint8_t bytes[1024];
	uint32_t count;

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
		const struct entry entries[] = {{8, 1, 0, 0, 0, {8}, 1}, cases[i]};
		uint64_t data = 8;

		for (unsigned k = 0; k < cases[i].count; k++)
			data += cases[i].words[k] & 0xffffff;
		assert_int_equal(
		    walk_all(bytes, make_index(bytes, entries, 2), data, objects, &count),
		    LORA_INPUT);
		assert_int_equal(count, 1);
	}
	put(bytes, 0, 8); /* no entry */
	assert_int_equal(walk_all(bytes, 8, 0, objects, &count), LORA_INPUT);
	put(bytes, UINT64_MAX, 8);
	assert_int_equal(walk_all(bytes, 8, 0, objects, &count), LORA_INPUT);
	for (uint64_t data = UINT64_MAX; data > UINT64_MAX - 200; data--)
		assert_int_equal(walk_all(bytes, 100, data, objects, &count), LORA_INPUT);
}

static void index_depth(void **state)
{
	struct entry entries[11] = {{4, 1, 0, 0, 0, {4}, 1}};
	struct lora_object objects[16];
	uint8_t bytes[1024];
	uint32_t count;

	(void)state;
	for (uint32_t i = 1; i < 11; i++)
		entries[i] = (struct entry){4, 1, 2, 0, i - 1, {4}, 1};
	assert_int_equal(walk_all(bytes, make_index(bytes, entries, 9), 36, objects, &count),
			 LORA_OK);
	assert_int_equal(objects[8].depth, 8);
	assert_int_equal(walk_all(bytes, make_index(bytes, entries, 10), 40, objects, &count),
			 LORA_INPUT);
	assert_int_equal(count, 9);
}

/* --- planes ---------------------------------------------------------------------------------- */

/* Straight from the page: byte k of element i, rotated left by one bit, of x ^ parent. */
static uint8_t plane_byte(const uint8_t *in, const uint8_t *parent, unsigned width, bool rotated,
			  size_t i, unsigned k)
{
	uint64_t x = 0;

	for (unsigned b = 0; b < width; b++) {
		uint8_t byte = in[i * width + b] ^ (parent ? parent[i * width + b] : 0);

		x |= (uint64_t)byte << 8 * b;
	}
	if (rotated) {
		uint64_t top = x >> (8 * width - 1);

		x = x << 1 | top;
	}
	return (uint8_t)(x >> 8 * k);
}

static uint32_t seed = 1;
static uint8_t noise(void)
{
	seed = seed * 1664525 + 1013904223;
	return (uint8_t)(seed >> 24);
}

static void cut_in_planes(void **state)
{
	static const unsigned widths[] = {1, 2, 4, 8};
	/* More than a block of the loops, and no multiple of one. */
	enum { N = 1237 };
	static uint8_t in[8 * N], parent[8 * N], out[8 * N], back[8 * N];
	const uint8_t *planes[8];

	(void)state;
	for (size_t i = 0; i < sizeof(in); i++) {
		in[i] = noise();
		parent[i] = noise();
	}
	for (unsigned w = 0; w < 4; w++)
		for (unsigned mode = 0; mode < 4; mode++) {
			struct lora_layout layout = {(uint8_t)widths[w], mode & 1 && w};
			const uint8_t *p = mode & 2 ? parent : NULL;
			size_t n = N, size = n * widths[w];

			lora__planes_split(layout, in, p, size, out);
			for (size_t i = 0; i < n; i++)
				for (unsigned k = 0; k < widths[w]; k++)
					assert_int_equal(
					    out[k * n + i],
					    plane_byte(in, p, widths[w], layout.rotated, i, k));
			for (unsigned k = 0; k < 8; k++)
				planes[k] = out + k * n;
			lora__planes_join(layout, planes, p, size, back);
			assert_memory_equal(back, in, size);
			if (p) { /* in place of the parent, as chains are decoded */
				memcpy(back, parent, size);
				lora__planes_join(layout, planes, back, size, back);
				assert_memory_equal(back, in, size);
			}
		}
}

static void layouts(void **state)
{
	(void)state;
	for (unsigned t = 0; t < LORA_DTYPE_COUNT; t++) {
		struct lora_layout layout = lora__layout_of((enum lora_dtype)t);

		assert_true(layout.width == 1 || layout.width == 2 || layout.width == 4 ||
			    layout.width == 8);
		if (t && lora_dtype_bits((enum lora_dtype)t) >= 8)
			assert_int_equal(lora_dtype_bits((enum lora_dtype)t) / 8 % layout.width, 0);
	}
	assert_true(lora__layout_of(LORA_DTYPE_BF16).rotated);
	assert_false(lora__layout_of(LORA_DTYPE_I32).rotated);
}

/* A chunk goes in and out, whatever its bytes; its words and stored bytes are in bounds. */
static void round_trip(struct lora_codec *codec, struct lora_layout layout, const uint8_t *in,
		       const uint8_t *parent, size_t size, size_t *stored)
{
	uint8_t *scratch = malloc(2 * LORA_CHUNK_SIZE), *out = malloc(size + 1),
		*back = malloc(size + 1);
	uint8_t words[32];
	const struct lora_chunk chunk = {layout, words, size, parent};
	uint64_t sum;

	memset(out, 0x5a, size + 1);
	assert_int_equal(lora__chunk_encode(codec, &chunk, in, out, stored, scratch, NULL),
			 LORA_OK);
	assert_true(*stored <= size);
	assert_int_equal(out[size], 0x5a);
	assert_int_equal(lora__words_check(words, layout, size, &sum, NULL), LORA_OK);
	assert_int_equal(sum, *stored);
	assert_int_equal(lora__chunk_decode(codec, &chunk, out, back, scratch, NULL), LORA_OK);
	assert_memory_equal(back, in, size);
	free(scratch);
	free(out);
	free(back);
}

static void chunks(void **state)
{
	static const struct lora_layout all[] = {{1, false}, {2, false}, {2, true}, {4, false},
						 {4, true},  {8, false}, {8, true}};
	struct lora_codec *codec = lora__codec_new();
	uint8_t *in = malloc(LORA_CHUNK_SIZE), *parent = malloc(LORA_CHUNK_SIZE);
	size_t stored;

	(void)state;
	for (size_t i = 0; i < LORA_CHUNK_SIZE; i++) {
		in[i] = i % 4 == 3 ? (uint8_t)(0x3c + noise() % 4) : noise();
		parent[i] = in[i] ^ (i % 1000 == 0);
	}
	for (size_t l = 0; l < sizeof(all) / sizeof(*all); l++)
		for (size_t size = all[l].width; size <= 4096; size = size * 2 + all[l].width) {
			round_trip(codec, all[l], in, NULL, size, &stored);
			round_trip(codec, all[l], in, parent, size, &stored);
		}
	round_trip(codec, (struct lora_layout){4, true}, in, NULL, LORA_CHUNK_SIZE, &stored);
	/* Three planes of noise, and exponents of 8 equally likely values (a bit of which is from
	 * the mantissa): 3 + 0 .. 3 bits of 32. */
	assert_true(stored > LORA_CHUNK_SIZE * 3 / 4 && stored < LORA_CHUNK_SIZE * 88 / 100);
	round_trip(codec, (struct lora_layout){4, true}, in, parent, LORA_CHUNK_SIZE, &stored);
	assert_true(stored < LORA_CHUNK_SIZE / 200);
	memset(in, 7, LORA_CHUNK_SIZE);
	round_trip(codec, (struct lora_layout){2, true}, in, NULL, LORA_CHUNK_SIZE, &stored);
	assert_int_equal(stored, 2);
	free(in);
	free(parent);
	lora__codec_free(codec);
}

/* A frame's own idea of its size is not believed. */
static void frames_that_lie(void **state)
{
	struct lora_codec *codec = lora__codec_new();
	uint8_t *big = calloc(1, LORA_CHUNK_SIZE), *scratch = malloc(2 * LORA_CHUNK_SIZE);
	uint8_t frame[4096], words[4], out[100];
	const struct lora_chunk chunk = {{1, false}, words, sizeof(out), NULL};
	size_t packed = sizeof(frame);

	(void)state;
	assert_int_equal(
	    lora__frame_pack(codec, LORA_FRAME_REPEATS, big, LORA_CHUNK_SIZE, frame, &packed, NULL),
	    LORA_OK);
	assert_in_range(packed, 1, 1000);
	if (packed > 99)
		packed = 99;
	put(words, 1u << 24 | packed, 4);
	assert_int_equal(lora__chunk_decode(codec, &chunk, frame, out, scratch, NULL), LORA_INPUT);
	free(big);
	free(scratch);
	lora__codec_free(codec);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(superblock),    cmocka_unit_test(features),
	    cmocka_unit_test(records),	     cmocka_unit_test(commits),
	    cmocka_unit_test(commit_fields), cmocka_unit_test(index_good),
	    cmocka_unit_test(index_bad),     cmocka_unit_test(index_depth),
	    cmocka_unit_test(cut_in_planes), cmocka_unit_test(layouts),
	    cmocka_unit_test(chunks),	     cmocka_unit_test(frames_that_lie),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
