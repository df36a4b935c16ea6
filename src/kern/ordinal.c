/* SPDX-License-Identifier: Apache-2.0 */
/* kern/ordinal.c - plain loops that every compiler turns into vectors; one body for each width */
#include "kern/ordinal.h"

/* BITS: of the element; MASK: all but its sign, or 0 for bytes. */
#define DEFINE(BITS, MASK)                                                                         \
	static uint##BITS##_t ord##BITS(uint##BITS##_t u)                                          \
	{                                                                                          \
		return (uint##BITS##_t)(u ^ (u >> ((BITS)-1) ? (uint##BITS##_t)(MASK) : 0));       \
	}                                                                                          \
	static uint##BITS##_t fold##BITS(uint##BITS##_t b, uint##BITS##_t p)                       \
	{                                                                                          \
		uint##BITS##_t r = (uint##BITS##_t)(ord##BITS(b) - ord##BITS(p));                  \
                                                                                                   \
		return (uint##BITS##_t)((uint##BITS##_t)(r << 1) ^                                 \
					(r >> ((BITS)-1) ? (uint##BITS##_t) ~0u : 0));             \
	}                                                                                          \
	static size_t fold_all##BITS(uint##BITS##_t *z, const uint##BITS##_t *b,                   \
				     const uint##BITS##_t *p, size_t n)                            \
	{                                                                                          \
		size_t count = 0;                                                                  \
                                                                                                   \
		for (size_t i = 0; i < n; i++)                                                     \
			z[i] = fold##BITS(b[i], p[i]);                                             \
		for (size_t i = 0; i < n; i++)                                                     \
			count += z[i] != 0;                                                        \
		return count;                                                                      \
	}                                                                                          \
	static void unfold_all##BITS(uint##BITS##_t *p, const uint##BITS##_t *z, size_t n)         \
	{                                                                                          \
		for (size_t i = 0; i < n; i++) {                                                   \
			uint##BITS##_t r =                                                         \
			    (uint##BITS##_t)((z[i] >> 1) ^ (z[i] & 1 ? (uint##BITS##_t) ~0u : 0)); \
                                                                                                   \
			p[i] = ord##BITS((uint##BITS##_t)(ord##BITS(p[i]) + r));                   \
		}                                                                                  \
	}

DEFINE(8, 0)
DEFINE(16, 0x7fff)
DEFINE(32, 0x7fffffff)

size_t lora__ordinal_fold(void *z, const void *b, const void *p, size_t n, unsigned size)
{
	return size == 4   ? fold_all32(z, b, p, n)
	       : size == 2 ? fold_all16(z, b, p, n)
			   : fold_all8(z, b, p, n);
}

void lora__ordinal_unfold(void *p, const void *z, size_t n, unsigned size)
{
	if (size == 4)
		unfold_all32(p, z, n);
	else if (size == 2)
		unfold_all16(p, z, n);
	else
		unfold_all8(p, z, n);
}
