/* SPDX-License-Identifier: Apache-2.0 */
/* kern/vec_avx2.c - vec.h in vectors of 256 bits. */
#define LANES 8
#define ISA   "avx2"
#define NAME  lora__vec_avx2

#include "kern/vec_body.h"

#include <immintrin.h>

static inline vf load_f16(const uint16_t *p)
{
	return (vf)_mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)p));
}

static inline vf load_bf16(const uint16_t *p)
{
	return (vf)_mm256_slli_epi32(_mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i *)p)),
				     16);
}
