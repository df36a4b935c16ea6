/* SPDX-License-Identifier: Apache-2.0 */
/* neon_equal.c - is the NEON table equal, bit for bit, to the generic one? Built and run by
 * cross-neon.
 *
 * tests/unit/test_kern.c asks more of every table, but needs cmocka for the target; this needs libc
 * alone. Both tables run on the same (emulated) processor. The formats' conversions are compared
 * over all bit patterns, narrowing over random ones, the rest on random values with magnitudes from
 * subnormal to beyond f16's range, at sizes around the vectors' and at pointers that are aligned
 * for their type only.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kern/kern.h"

#define MOST  LORA_STAT_SPAN
#define GUARD 16 /* elements behind every output that no kernel may touch */

static const struct lora_kern *const right = &lora__kern_generic;
static const struct lora_kern *const fast = &lora__kern_neon;
static const size_t sizes[] = {0,  1,  2,  3,  4,  5,  7,  8,	9,    15,
			       16, 17, 31, 33, 63, 64, 65, 127, 1000, MOST};
#define SIZES (sizeof(sizes) / sizeof(*sizes))

static uint64_t state = 0x9e3779b97f4a7c15u;
static unsigned checks;

static uint64_t draw(void) /* xorshift64*, Vigna 2016 */
{
	state ^= state >> 12;
	state ^= state << 25;
	state ^= state >> 27;
	return state * 0x2545f4914f6cdd1du;
}

/* A finite value: one in eight a zero or subnormal, the others between 2^-20 and 2^17. */
static float draw_value(void)
{
	uint64_t random = draw();
	uint32_t bits = (uint32_t)(random >> 32) & 0x807fffffu;
	uint32_t exponent = random % 8 == 0 ? 0 : 107 + (uint32_t)(random >> 8) % 37;
	float value;

	if (random % 64 == 0)
		bits &= 0x80000000u;
	bits |= exponent << 23;
	memcpy(&value, &bits, sizeof(value));
	return value;
}

static void fill(float *values, size_t count)
{
	for (size_t i = 0; i < count; i++)
		values[i] = draw_value();
}

static void same(const char *slot, size_t n, const void *a, const void *b, size_t bytes)
{
	checks++;
	if (memcmp(a, b, bytes) == 0)
		return;
	fprintf(stderr, "%s: n = %zu: neon differs from generic\n", slot, n);
	exit(1);
}

static void check_widen(void)
{
	static uint16_t in[65536];
	static float a[65536], b[65536];

	for (size_t i = 0; i < 65536; i++)
		in[i] = (uint16_t)i;
	right->widen_f16(a, in, 65536);
	fast->widen_f16(b, in, 65536);
	same("widen_f16", 65536, a, b, sizeof(a));
	right->widen_bf16(a, in, 65536);
	fast->widen_bf16(b, in, 65536);
	same("widen_bf16", 65536, a, b, sizeof(a));
}

static void check_narrow(size_t n)
{
	static float in[MOST + 1];
	uint16_t a[MOST + GUARD] = {0}, b[MOST + GUARD] = {0};

	for (size_t i = 0; i <= n; i++) {
		uint32_t bits = (uint32_t)(draw() >> 32);

		memcpy(&in[i], &bits, sizeof(bits)); /* NaNs and infinities too */
	}
	right->narrow_f16(a, in + 1, n);
	fast->narrow_f16(b, in + 1, n);
	same("narrow_f16", n, a, b, sizeof(a));
	right->narrow_bf16(a, in + 1, n);
	fast->narrow_bf16(b, in + 1, n);
	same("narrow_bf16", n, a, b, sizeof(a));
}

static void check_lowrank(size_t rows, size_t cols, size_t rank, bool first)
{
	struct lora_lowrank_shape shape = {rows, cols, rank, 0.7f, first};
	size_t ldl = rank + 3, ldr = cols + 1, ldd = cols + 5;
	float *l = calloc(rows * ldl + 1, sizeof(float)),
	      *r = calloc(rank * ldr + 1, sizeof(float));
	float *a = calloc(rows * ldd + 1, sizeof(float)),
	      *b = calloc(rows * ldd + 1, sizeof(float));

	if (!l || !r || !a || !b)
		exit(2);
	fill(l, rows * ldl + 1);
	fill(r, rank * ldr + 1);
	fill(a, rows * ldd + 1);
	memcpy(b, a, (rows * ldd + 1) * sizeof(float));
	right->lowrank(a + 1, ldd, l + 1, ldl, r + 1, ldr, &shape);
	fast->lowrank(b + 1, ldd, l + 1, ldl, r + 1, ldr, &shape);
	same("lowrank", cols, a, b, (rows * ldd + 1) * sizeof(float));
	free(l);
	free(r);
	free(a);
	free(b);
}

static const enum lora_dtype types[] = {LORA_DTYPE_F32, LORA_DTYPE_F16, LORA_DTYPE_BF16};

/* Weights of a type: values that the type holds, from random f32. */
static void draw_weights(void *out, enum lora_dtype type, size_t n)
{
	static float wide[MOST];

	fill(wide, n);
	if (type == LORA_DTYPE_F32)
		memcpy(out, wide, n * sizeof(float));
	else if (type == LORA_DTYPE_F16)
		right->narrow_f16(out, wide, n);
	else
		right->narrow_bf16(out, wide, n);
}

static void check_apply(enum lora_dtype w_type, enum lora_dtype out_type, size_t n)
{
	static float w[MOST], d[MOST + 1], a[MOST + GUARD], b[MOST + GUARD];
	struct lora_stats sa = {0}, sb = {0};
	double pa[8] = {1, 2, 3}, pb[8] = {1, 2, 3};

	draw_weights(w, w_type, n);
	fill(d, n + 1);
	memset(a, 0, sizeof(a));
	memset(b, 0, sizeof(b));
	right->apply(a, out_type, w, w_type, d + 1, n, &sa);
	fast->apply(b, out_type, w, w_type, d + 1, n, &sb);
	same("apply", n, a, b, sizeof(a));
	same("apply: sums of squares", n, &sa, &sb, 3 * sizeof(double));
	same("apply: counts", n, &sa.nonzero, &sb.nonzero, 4 * sizeof(uint64_t));
	right->sum(a, w, w_type, d + 1, n);
	fast->sum(b, w, w_type, d + 1, n);
	same("sum", n, a, b, sizeof(a));
	right->square8(pa, a, n, n % 8);
	fast->square8(pb, a, n, n % 8);
	same("square8", n, pa, pb, sizeof(pa));
}

int main(void)
{
	check_widen();
	for (size_t i = 0; i < SIZES; i++) {
		check_narrow(sizes[i]);
		for (size_t t = 0; t < 9; t++)
			check_apply(types[t / 3], types[t % 3], sizes[i]);
		for (size_t rank = 1; rank <= 20; rank += 1 + rank / 2)
			check_lowrank(1 + i % 7, sizes[i] > 1000 ? 1000 : sizes[i], rank, rank % 2);
	}
	printf("%u comparisons equal\n", checks);
	return 0;
}
