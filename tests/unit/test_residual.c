/* SPDX-License-Identifier: Apache-2.0 */
/* merge/residual.c: chunks of loractl-undo(5) written by hand, Zstandard frames too (RFC 8878: raw
 * and RLE blocks), and what readers refuse; chunks of ours within their limits; and no memory. The
 * format against another implementation is tests/oracle/run_undo.py. */
#include "base_check.h"

#include <stdlib.h>

#include "failing_malloc.h"
#include "merge/residual.h"

static struct lora_residual r;

static int set_up(void **state)
{
	struct lora_error err = LORA_ERROR_INIT;

	(void)state;
	return lora__residual_init(&r, &err);
}

static int tear_down(void **state)
{
	(void)state;
	lora__residual_fini(&r);
	return 0;
}

/* A frame of one segment that says its size: n raw bytes, or n times the same byte. */
#define RAW_4(a, b, c, d)                                                                          \
	2, 13, 0, 0, 0, 0x28, 0xb5, 0x2f, 0xfd, 0x20, 4, 4 << 3 | 1, 0, 0, a, b, c, d
#define RLE(n, byte)                                                                               \
	2, 10, 0, 0, 0, 0x28, 0xb5, 0x2f, 0xfd, 0x20, n, (n << 3 & 255) | 3, n >> 5, 0, byte

struct known {
	const char *what;
	unsigned width;
	size_t n;
	uint8_t chunk[64];
	size_t size;
	uint32_t predicted[6], base[6];
};

static const struct known known[] = {
    {"nothing", 4, 3, {0}, 1, {1, 0x80000000, 0x7fc00001}, {1, 0x80000000, 0x7fc00001}},
    /* +1 of 1.0; -1 of 1.0 */
    {"gaps",
     2,
     5,
     {1, 2, 0, 0, 0, 2, 0, 0, 0, 1, 1, 1, 1, 2, 1, 0},
     16,
     {0x3f80, 0x3f80, 0x3f80, 0x3f80, 0x3f80},
     {0x3f80, 0x3f81, 0x3f80, 0x3f7f, 0x3f80}},
    /* one step up from -1.0 is nearer to zero; one down from +0 is -0; one up from -0 is +0 */
    {"signs", 2, 3, {2, 1, 2, 1, 2, 0}, 6, {0xbf80, 0x0000, 0x8000}, {0xbf7f, 0x8000, 0x0000}},
    {"planes of four bytes",
     4,
     2,
     {2, 1, 0xff, 0x02, 1, 0xff, 0x01, 0, 1, 0x01, 0x00},
     11,
     {0, 0x3f800000},
     {0x80807fff /* z 0x0100ffff: 0x808000 down */, 0x3f800081}},
    {"bytes wrap around", 1, 4, {2, 1, 2, 1, 254, 255}, 6, {255, 0, 1, 0}, {0, 255, 128, 128}},
    {"a frame of raw bytes", 1, 4, {2, RAW_4(2, 4, 6, 8)}, 19, {0, 0, 0, 0}, {1, 2, 3, 4}},
    {"a frame of one byte", 2, 6, {2, RLE(6, 4), 0}, 17, {7, 7, 7, 7, 7, 7}, {9, 9, 9, 9, 9, 9}},
    {"gaps in a frame",
     4,
     5,
     {1, 4, 0, 0, 0, 4, 0, 0, 0, RAW_4(1, 0, 0, 0), RLE(4, 2), 0, 0, 0},
     45,
     {0, 0, 0, 0, 0},
     {0, 1, 1, 1, 1}},
};

static size_t pack(uint8_t *bytes, const uint32_t *values, size_t n, unsigned width)
{
	for (size_t i = 0; i < n; i++)
		for (unsigned j = 0; j < width; j++)
			bytes[i * width + j] = (uint8_t)(values[i] >> 8 * j);
	return n * width;
}

static void residual__known_chunks(void **state)
{
	(void)state;
	for (size_t i = 0; i < sizeof(known) / sizeof(*known); i++) {
		const struct known *k = &known[i];
		struct lora_residual_span span = {k->width, k->n};
		struct lora_error err = LORA_ERROR_INIT;
		uint8_t data[24], want[24];
		size_t size = pack(data, k->predicted, k->n, k->width);

		pack(want, k->base, k->n, k->width);
		if (lora__residual_decode(&r, span, k->chunk, k->size, data, &err))
			fail_msg("%s: %s", k->what, err.message);
		if (memcmp(data, want, size) != 0)
			fail_msg("%s: another base", k->what);
		/* Cut off anywhere, or with a byte more: refused. */
		for (size_t cut = 0; cut <= k->size; cut++) {
			uint8_t *exact = malloc(k->size + 1);
			size_t length = cut < k->size ? cut : k->size + 1;

			assert_non_null(exact);
			memcpy(exact, k->chunk, k->size);
			exact[k->size] = 0;
			exact =
			    realloc(exact, length + !length); /* so that reading beyond is seen */
			assert_non_null(exact);
			if (lora__residual_decode(&r, span, exact, length, data, &err) !=
			    LORA_INPUT)
				fail_msg("%s: %zu of %zu bytes are taken", k->what, length,
					 k->size);
			free(exact);
		}
	}
}

/* Gaps of 255 and more: as many bytes of 255, and what is left. */
static void residual__long_gaps(void **state)
{
	static const size_t places[] = {0, 254, 255, 256, 509, 510, 511, 765, 1000, 2047};

	(void)state;
	for (size_t i = 0; i < sizeof(places) / sizeof(*places); i++) {
		uint8_t chunk[32] = {1, 1}, data[2048] = {0}, want[2048] = {0};
		size_t g = places[i] / 255 + 1, size = 9;
		struct lora_error err = LORA_ERROR_INIT;

		chunk[5] = (uint8_t)g;
		chunk[size++] = 1;
		memset(chunk + size, 255, g - 1);
		size += g - 1;
		chunk[size++] = (uint8_t)(places[i] % 255);
		chunk[size++] = 1;
		chunk[size++] = 6;
		want[places[i]] = 3;
		assert_int_equal(lora__residual_decode(&r, (struct lora_residual_span){1, 2048},
						       chunk, size, data, &err),
				 LORA_OK);
		assert_memory_equal(data, want, sizeof(data));
		assert_int_equal(lora__residual_decode(&r,
						       (struct lora_residual_span){1, places[i]},
						       chunk, size, data, &err),
				 LORA_INPUT); /* one element less: outside */
	}
}

static const struct {
	const char *what;
	uint8_t chunk[40];
	size_t size;
} refused[] = {
    /* of five elements of two bytes */
    {"an unknown sort", {3}, 1},
    {"an unknown sort with streams", {255, 0, 0}, 3},
    {"an unknown coding", {2, 3, 0}, 3},
    {"bytes after nothing", {0, 0}, 2},
    {"m of 0", {1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0}, 12},
    {"no gaps at all", {1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}, 12},
    {"m above n", {1, 6, 0, 0, 0, 6, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 0}, 18},
    {"m of 2^32 - 1", {1, 255, 255, 255, 255, 255, 255, 255, 255, 0, 0, 0}, 12},
    {"g below m", {1, 2, 0, 0, 0, 1, 0, 0, 0, 0, 1, 2, 2, 0}, 14},
    {"g of 2^32 - 1", {1, 1, 0, 0, 0, 255, 255, 255, 255, 0, 1, 2, 0}, 13},
    {"a gap out of it", {1, 1, 0, 0, 0, 1, 0, 0, 0, 1, 5, 1, 2, 0}, 14},
    {"gaps that add up beyond", {1, 2, 0, 0, 0, 2, 0, 0, 0, 1, 3, 1, 1, 2, 2, 0}, 16},
    {"gaps left over", {1, 1, 0, 0, 0, 2, 0, 0, 0, 1, 1, 1, 1, 2, 0}, 15},
    {"a gap that goes on and ends", {1, 1, 0, 0, 0, 1, 0, 0, 0, 1, 255, 1, 2, 0}, 14},
    {"a z of 0 among the others", {1, 2, 0, 0, 0, 2, 0, 0, 0, 1, 1, 1, 1, 2, 0, 0}, 16},
    {"all of them 0", {1, 1, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0}, 12},
    {"a frame of fewer bytes", {2, RAW_4(1, 2, 3, 4), 0}, 20},
    {"a frame of more bytes", {2, RLE(6, 1), 0}, 17},
    {"a frame of many more bytes", {2, RLE(200, 1), 0}, 17},
    {"no frame", {2, 2, 5, 0, 0, 0, 1, 2, 3, 4, 5, 0}, 12},
    {"a frame of no size", {2, 2, 0, 0, 0, 0, 0}, 7},
    {"a frame longer than the chunk", {2, 2, 255, 255, 255, 255, 0x28, 0xb5, 0x2f, 0xfd}, 10},
    {"bytes after the frame, inside its size",
     {2, 2, 11, 0, 0, 0, 0x28, 0xb5, 0x2f, 0xfd, 0x20, 5, 5 << 3 | 3, 0, 0, 1, 0, 0},
     18},
    {"a skippable frame", {2, 2, 8, 0, 0, 0, 0x50, 0x2a, 0x4d, 0x18, 0, 0, 0, 0, 0}, 15},
};

static void residual__refused(void **state)
{
	(void)state;
	for (size_t i = 0; i < sizeof(refused) / sizeof(*refused); i++) {
		struct lora_error err = LORA_ERROR_INIT;
		uint8_t data[10] = {0}, *exact = malloc(refused[i].size);

		assert_non_null(exact);
		memcpy(exact, refused[i].chunk, refused[i].size);
		if (lora__residual_decode(&r, (struct lora_residual_span){2, 5}, exact,
					  refused[i].size, data, &err) != LORA_INPUT)
			fail_msg("%s is taken", refused[i].what);
		assert_int_equal(err.status, LORA_INPUT);
		assert_true(err.message[0] && !strchr(err.message, '\n'));
		free(exact);
	}
}

static uint64_t random_state = 1;

static uint32_t random_bits(void)
{
	random_state = random_state * 6364136223846793005ull + 1442695040888963407ull;
	return (uint32_t)(random_state >> 32);
}

/* Of every 2^share elements one differs, by up to `reach` bits. */
static void check_ours(unsigned width, size_t n, unsigned share, uint32_t reach, int mode)
{
	struct lora_residual_span span = {width, n};
	struct lora_error err = LORA_ERROR_INIT;
	uint8_t *base = malloc(n * width + 1), *data = malloc(n * width + 1),
		*chunk = malloc(n * width + LORA_CHUNK_OVERHEAD);
	size_t size = 0;

	assert_true(base && data && chunk);
	for (size_t i = 0; i < n; i++) {
		uint32_t p = random_bits(),
			 b = random_bits() % (1u << share) ? p : p ^ (random_bits() & reach);

		pack(data + i * width, &p, 1, width);
		pack(base + i * width, &b, 1, width);
	}
	assert_int_equal(lora__residual_encode(&r, span, base, data, chunk, &size, &err), LORA_OK);
	assert_true(size > 0 && size <= n * width + LORA_CHUNK_OVERHEAD);
	if (mode >= 0)
		assert_int_equal(chunk[0], mode);
	assert_int_equal(lora__residual_decode(&r, span, chunk, size, data, &err), LORA_OK);
	assert_memory_equal(data, base, n * width);
	free(base);
	free(data);
	free(chunk);
}

static void residual__ours(void **state)
{
	(void)state;
	for (unsigned width = 1; width <= 4; width *= 2) {
		size_t most = LORA_CHUNK_BYTES / width < LORA_CHUNK_ELEMENTS
				  ? LORA_CHUNK_BYTES / width
				  : LORA_CHUNK_ELEMENTS;

		for (size_t n = 1; n < 40; n++)
			for (unsigned share = 0; share < 6; share++)
				check_ours(width, n, share, 3, -1);
		check_ours(width, most, 0, 0, 0);	   /* nothing */
		check_ours(width, most, 9, 1, 1);	   /* gaps */
		check_ours(width, most, 0, UINT32_MAX, 2); /* planes that nothing compresses */
		check_ours(width, most, 1, UINT32_MAX, -1);
		check_ours(width, most - 1, 12, 1, 1);
	}
}

/* Without a prediction: from zeros. */
static void residual__from_nothing(void **state)
{
	struct lora_error err = LORA_ERROR_INIT;
	uint16_t base[4] = {0x3c00, 0x8000, 0xfc00, 0}, data[4] = {0};
	uint8_t chunk[8 + LORA_CHUNK_OVERHEAD];
	size_t size;

	(void)state;
	assert_int_equal(lora__residual_encode(&r, (struct lora_residual_span){2, 4}, base, NULL,
					       chunk, &size, &err),
			 LORA_OK);
	assert_int_equal(
	    lora__residual_decode(&r, (struct lora_residual_span){2, 4}, chunk, size, data, &err),
	    LORA_OK);
	assert_memory_equal(base, data, sizeof(base));
}

static void residual__without_memory(void **state)
{
	static uint8_t base[4096], chunk[4096 + LORA_CHUNK_OVERHEAD], data[4096];
	struct lora_residual_span span = {4, 1024};
	long live = failing_malloc_live(), n;

	(void)state;
	for (size_t i = 0; i < sizeof(base); i++)
		base[i] = (uint8_t)(i % 11);
	for (n = 0; FAILING_MALLOC; n++) {
		struct lora_error err = LORA_ERROR_INIT;
		struct lora_residual own;
		size_t size = 0;
		enum lora_status status;
		bool failed;

		failing_malloc_begin(n);
		status = lora__residual_init(&own, &err);
		if (!status)
			status = lora__residual_encode(&own, span, base, NULL, chunk, &size, &err);
		memset(data, 0, sizeof(data));
		if (!status)
			status = lora__residual_decode(&own, span, chunk, size, data, &err);
		lora__residual_fini(&own);
		failed = failing_malloc_end();
		assert_int_equal(failing_malloc_live(), live);
		if (!failed)
			assert_int_equal(status, LORA_OK);
		if (!status)
			assert_memory_equal(data, base, sizeof(base));
		else
			assert_int_equal(status, LORA_SYSTEM);
		if (!failed)
			break;
	}
	assert_true(!FAILING_MALLOC || n > 5);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(residual__known_chunks), cmocka_unit_test(residual__long_gaps),
	    cmocka_unit_test(residual__refused),      cmocka_unit_test(residual__ours),
	    cmocka_unit_test(residual__from_nothing), cmocka_unit_test(residual__without_memory),
	};

	return cmocka_run_group_tests(tests, set_up, tear_down);
}
