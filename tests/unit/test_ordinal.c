/* SPDX-License-Identifier: Apache-2.0 */
/* kern/ordinal.c against a second definition: the place of a number in the order of all numbers,
 * counted up and down from zero, and a distance between places that wraps around. */
#include "base_check.h"

#include <stdlib.h>

#include "kern/ordinal.h"

/* +0 is 0, the smallest subnormal 1, -0 is -1, the negative of the smallest subnormal -2. */
static int64_t place(uint64_t bits, unsigned k)
{
	uint64_t half = 1ull << (k - 1);

	if (k == 8) /* no number */
		return bits < half ? (int64_t)bits : (int64_t)bits - 256;
	return bits < half ? (int64_t)bits : -1 - (int64_t)(bits - half);
}

/* How often one has to step up (down: odd) to come from p to b, the short way round. */
static uint64_t folded(uint64_t b, uint64_t p, unsigned k)
{
	int64_t all = 1ll << k, r = place(b, k) - place(p, k);

	while (r >= all / 2)
		r -= all;
	while (r < -all / 2)
		r += all;
	return r >= 0 ? (uint64_t)r * 2 : (uint64_t)-r * 2 - 1;
}

static uint16_t every[65536], same[65536], z[65536], back[65536];

static void check_sixteen(uint16_t p)
{
	static uint8_t seen[65536];
	size_t count;

	for (size_t i = 0; i < 65536; i++) {
		every[i] = (uint16_t)i;
		same[i] = back[i] = p;
	}
	count = lora__ordinal_fold(z, every, same, 65536, 2);
	assert_int_equal(count, 65535); /* only p itself has a distance of 0 */
	memset(seen, 0, sizeof(seen));
	for (size_t i = 0; i < 65536; i++) {
		if (z[i] != folded(i, p, 16))
			fail_msg("b %04zx, p %04x: z %04x", i, p, z[i]);
		assert_false(seen[z[i]]++);
	}
	lora__ordinal_unfold(back, z, 65536, 2);
	assert_memory_equal(back, every, sizeof(back));
}

static void ordinal__sixteen_bits(void **state)
{
	static const uint16_t edges[] = {0,	 1,	 0x8000, 0x8001, 0x3f80, 0xbf80,
					 0x3c00, 0x7c00, 0xfc00, 0x7f80, 0xff80, 0x7fff,
					 0xffff, 0x7bff, 0x0400, 0x8400, 0x7fc1};

	(void)state;
	for (size_t i = 0; i < sizeof(edges) / sizeof(*edges); i++)
		check_sixteen(edges[i]);
	for (uint32_t p = 0; p < 65536; p += 997)
		check_sixteen((uint16_t)p);
}

static void ordinal__bytes(void **state)
{
	(void)state;
	for (unsigned b = 0; b < 256; b++)
		for (unsigned p = 0; p < 256; p++) {
			uint8_t from = (uint8_t)b, to = (uint8_t)p, distance;

			assert_int_equal(lora__ordinal_fold(&distance, &from, &to, 1, 1), b != p);
			assert_int_equal(distance, folded(b, p, 8));
			lora__ordinal_unfold(&to, &distance, 1, 1);
			assert_int_equal(to, b);
		}
}

static uint64_t random_state = 1;

static uint32_t random_bits(void)
{
	random_state = random_state * 6364136223846793005ull + 1442695040888963407ull;
	return (uint32_t)(random_state >> 32);
}

#define N 4099

static void ordinal__thirty_two_bits(void **state)
{
	static const uint32_t edges[] = {0,	     1,		 0x80000000, 0x80000001, 0x007fffff,
					 0x00800000, 0x807fffff, 0x80800000, 0x3f800000, 0xbf800000,
					 0x7f7fffff, 0xff7fffff, 0x7f800000, 0xff800000, 0x7f800001,
					 0xffc12345, 0x7fffffff, 0xffffffff};
	static uint32_t b[N], p[N], distance[N];
	size_t edge_count = sizeof(edges) / sizeof(*edges), n = 0, want = 0;

	(void)state;
	for (size_t i = 0; i < edge_count; i++)
		for (size_t j = 0; j < edge_count; j++, n++) {
			b[n] = edges[i];
			p[n] = edges[j];
		}
	for (; n < N; n++) { /* far apart, near by on both sides of zero, and the same */
		b[n] = random_bits();
		p[n] = n % 3 == 0   ? random_bits()
		       : n % 3 == 1 ? b[n] ^ (random_bits() & 0x80000003)
				    : b[n];
	}
	for (size_t i = 0; i < N; i++)
		want += b[i] != p[i];
	assert_int_equal(lora__ordinal_fold(distance, b, p, N, 4), want);
	for (size_t i = 0; i < N; i++)
		if (distance[i] != folded(b[i], p[i], 32))
			fail_msg("b %08x, p %08x: z %08x", b[i], p[i], distance[i]);
	lora__ordinal_unfold(p, distance, N, 4);
	assert_memory_equal(b, p, sizeof(b));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(ordinal__sixteen_bits),
	    cmocka_unit_test(ordinal__bytes),
	    cmocka_unit_test(ordinal__thirty_two_bits),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
