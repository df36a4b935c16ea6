/* SPDX-License-Identifier: Apache-2.0 */
/* tests/bench/bench_kern.c - how fast each table of kernels is on this processor, on one core.
 *
 *	bench_kern [ROWS COLS]		the block of D that one call of lowrank() works on
 *
 * Prints, for every instruction set that runs here, the GFLOP/s of lowrank() by rank and their
 * share of the peak: what the same core reaches in a loop of independent fused multiply-adds of
 * that width, measured in between, so that other load and frequency change both alike. Then
 * the GB/s of apply(), counting W read and W' written, for spans that stream from memory.
 *
 * Figures are medians of RUNS short runs. Nothing here is a test: it always exits 0.
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "kern/kern.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

enum { RUNS = 9 };

static double now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
	return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static int compare(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

static double median(double values[RUNS])
{
	qsort(values, RUNS, sizeof(values[0]), compare);
	return values[RUNS / 2];
}

/* --- the peak: twelve chains hide the latency of an fma on every processor so far ------------- */

enum { STEPS = 400000, CHAINS = 12 };

/* Without this gcc -O2 keeps the chains in memory. */
#if defined(__clang__)
#define UNROLL
#else
#define UNROLL _Pragma("GCC unroll 12")
#endif

static volatile float sink;

#if defined(LORA_HAVE_AVX512)
__attribute__((target("avx512f"))) static double peak_avx512(void)
{
	__m512 x = _mm512_set1_ps(0.5f), a[CHAINS];
	double start = now(), seconds;

	for (int i = 0; i < CHAINS; i++)
		a[i] = _mm512_set1_ps((float)i);
	for (int step = 0; step < STEPS; step++) {
		UNROLL
		for (int i = 0; i < CHAINS; i++)
			a[i] = _mm512_fmadd_ps(a[i], x, x);
	}
	seconds = now() - start;
	for (int i = 1; i < CHAINS; i++)
		a[0] = _mm512_add_ps(a[0], a[i]);
	sink = _mm512_cvtss_f32(a[0]);
	return 32.0 * STEPS * CHAINS / seconds * 1e-9;
}
#endif

#if defined(LORA_HAVE_AVX2)
__attribute__((target("avx2,fma"))) static double peak_avx2(void)
{
	__m256 x = _mm256_set1_ps(0.5f), a[CHAINS];
	double start = now(), seconds;

	for (int i = 0; i < CHAINS; i++)
		a[i] = _mm256_set1_ps((float)i);
	for (int step = 0; step < STEPS; step++) {
		UNROLL
		for (int i = 0; i < CHAINS; i++)
			a[i] = _mm256_fmadd_ps(a[i], x, x);
	}
	seconds = now() - start;
	for (int i = 1; i < CHAINS; i++)
		a[0] = _mm256_add_ps(a[0], a[i]);
	sink = _mm256_cvtss_f32(a[0]);
	return 16.0 * STEPS * CHAINS / seconds * 1e-9;
}
#endif

/* One fmaf() at a time: on x86-64 without -mfma a call into libm. */
static double peak_scalar(void)
{
	volatile float half = 0.5f;
	float x = half, a[CHAINS] = {0};
	double start = now();

	for (int step = 0; step < STEPS / 40; step++)
		for (int i = 0; i < CHAINS; i++)
			a[i] = fmaf(a[i], x, x);
	for (int i = 1; i < CHAINS; i++)
		a[0] += a[i];
	sink = a[0];
	return 2.0 * (STEPS / 40) * CHAINS / (now() - start) * 1e-9;
}

static double peak(const char *isa)
{
#if defined(LORA_HAVE_AVX512)
	if (strcmp(isa, "avx512") == 0)
		return peak_avx512();
#endif
#if defined(LORA_HAVE_AVX2)
	if (strcmp(isa, "avx2") == 0)
		return peak_avx2();
#endif
	(void)isa;
	return peak_scalar();
}

/* --- lowrank ---------------------------------------------------------------------------------- */

/* Aligned to a cache line, as buffers of a merge should be: worth up to a fifth. */
static float *floats(size_t n)
{
	float *p = aligned_alloc(64, (n * sizeof(*p) + 63) / 64 * 64);

	if (!p) {
		fprintf(stderr, "bench_kern: out of memory\n");
		exit(4);
	}
	for (size_t j = 0; j < n; j++)
		p[j] = 1e-3f * (float)((int)(j * 31 % 101) - 50);
	return p;
}

/* GFLOP/s of one run of about 2e9 operations (2e7 for the generic table). */
static double run_lowrank(const struct lora_kern *kern, float *D, const float *L, const float *R,
			  const struct lora_lowrank_shape *shape)
{
	double ops = 2.0 * (double)shape->rows * (double)shape->cols * (double)shape->rank;
	double budget = strcmp(kern->isa, "generic") == 0 ? 2e7 : 1e9;
	long times = lround(ceil(budget / ops));
	double start = now();

	for (long i = 0; i < times; i++)
		kern->lowrank(D, shape->cols, L, shape->rank, R, shape->cols, shape);
	return ops * (double)times / (now() - start) * 1e-9;
}

static void bench_lowrank(const struct lora_kern *kern, size_t rows, size_t cols)
{
	static const size_t ranks[] = {4, 8, 16, 32, 64, 128, 256, 512};

	printf("%-8s lowrank, D [%zu, %zu]\n", kern->isa, rows, cols);
	for (size_t i = 0; i < sizeof(ranks) / sizeof(ranks[0]); i++) {
		struct lora_lowrank_shape shape = {rows, cols, ranks[i], 2.0f, true};
		float *D = floats(rows * cols), *L = floats(rows * ranks[i]);
		float *R = floats(ranks[i] * cols);
		double rate[RUNS], share[RUNS];

		for (int run = 0; run < RUNS; run++) {
			rate[run] = run_lowrank(kern, D, L, R, &shape);
			share[run] = rate[run] / peak(kern->isa);
		}
		printf("  r=%-4zu %8.1f GFLOP/s %5.0f %% of peak\n", ranks[i], median(rate),
		       100 * median(share));
		free(R);
		free(L);
		free(D);
	}
}

/* --- apply ------------------------------------------------------------------------------------ */

/* GB/s over `n` elements, span by span, D being one span that stays in the cache. */
static double run_apply(const struct lora_kern *kern, char *out, enum lora_dtype out_type,
			const char *w, enum lora_dtype w_type, const float *D, size_t n)
{
	size_t out_size = out_type == LORA_DTYPE_F32 ? 4 : 2,
	       w_size = w_type == LORA_DTYPE_F32 ? 4 : 2;
	struct lora_stats stats = {0};
	double start = now();

	for (size_t j = 0; j < n; j += LORA_STAT_SPAN)
		kern->apply(out + j * out_size, out_type, w + j * w_size, w_type, D, LORA_STAT_SPAN,
			    &stats);
	return (double)n * (double)(out_size + w_size) / (now() - start) * 1e-9;
}

static void bench_apply(const struct lora_kern *kern)
{
	static const struct {
		enum lora_dtype out, w;
		const char *name;
		bool in_place;
	} cases[] = {
	    {LORA_DTYPE_BF16, LORA_DTYPE_BF16, "bf16 -> bf16", false},
	    {LORA_DTYPE_BF16, LORA_DTYPE_BF16, "bf16 in place", true},
	    {LORA_DTYPE_F16, LORA_DTYPE_F16, "f16 -> f16", false},
	    {LORA_DTYPE_F32, LORA_DTYPE_F32, "f32 -> f32", false},
	    {LORA_DTYPE_F32, LORA_DTYPE_F32, "f32 in place", true},
	    {LORA_DTYPE_BF16, LORA_DTYPE_F32, "f32 -> bf16", false},
	};
	size_t n = (size_t)LORA_STAT_SPAN * (strcmp(kern->isa, "generic") == 0 ? 64 : 4096);
	float *w = floats(n), *out = floats(n), *D = floats(LORA_STAT_SPAN);
	double rate[RUNS];

	printf("%-8s apply, W read and W' written, %zu M elements\n", kern->isa, n >> 20);
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		char *to = (char *)(cases[i].in_place ? w : out);

		for (int run = 0; run < RUNS; run++) {
			memset(w, 0x3c, n * sizeof(*w));
			rate[run] =
			    run_apply(kern, to, cases[i].out, (const char *)w, cases[i].w, D, n);
		}
		printf("  %-14s %8.2f GB/s\n", cases[i].name, median(rate));
	}
	free(D);
	free(out);
	free(w);
}

int main(int argc, char **argv)
{
	static const char *const names[] = {"generic", "avx2", "avx512", "neon"};
	size_t rows = argc == 3 ? strtoul(argv[1], NULL, 10) : 32;
	size_t cols = argc == 3 ? strtoul(argv[2], NULL, 10) : 4096;

	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		const struct lora_kern *kern = lora__kern_find(names[i]);

		if (!kern)
			continue;
		printf("%-8s peak %.1f GFLOP/s\n", kern->isa, peak(kern->isa));
		bench_lowrank(kern, rows, cols);
		bench_apply(kern);
	}
	return 0;
}
