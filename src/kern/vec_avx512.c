/* SPDX-License-Identifier: Apache-2.0 */
/* kern/vec_avx512.c - vec.h in vectors of 512 bits. */
#define LANES 16
#define ISA   "avx512"
#define NAME  lora__vec_avx512

#include "kern/vec_body.h"

#include <immintrin.h>

static inline vf load_f16(const uint16_t *p)
{
	return (vf)_mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)p));
}

static inline vf load_bf16(const uint16_t *p)
{
	return (vf)_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *)p)),
				     16);
}
