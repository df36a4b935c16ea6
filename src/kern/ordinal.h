/* SPDX-License-Identifier: Apache-2.0 */
/* kern/ordinal.h - how far two floating-point numbers of one type lie apart, counted in
 * representable values.
 *
 * The bits of an IEEE 754 number of k bits, seen as an integer, ascend with its magnitude. With
 * the other bits of negative numbers inverted they ascend with its value:
 *
 *	ord(u) = u			if the sign bit of u is clear
 *	ord(u) = u xor (2^(k-1) - 1)	if it is set
 *
 * read as a two's complement integer: -0 is -1, +0 is 0, and infinities and NaNs of every payload
 * have their places. ord is a bijection over all bit patterns and its own inverse. The distance r =
 * ord(b) - ord(p) modulo 2^k is folded so that small ones of either sign are small: z = 2r, or -2r
 * - 1 where r < 0. From p and z, b comes back whatever it was.
 *
 * Of n elements of `size` bytes (1, 2 or 4), in the byte order of the machine; an element of one
 * byte is no number: its ord is itself.
 */
#ifndef LORA_KERN_ORDINAL_H
#define LORA_KERN_ORDINAL_H

#include <stddef.h>
#include <stdint.h>

/* z[i] from b[i] and p[i]; returns how many are not 0. */
size_t lora__ordinal_fold(void *z, const void *b, const void *p, size_t n, unsigned size);

/* p[i] becomes b[i]. */
void lora__ordinal_unfold(void *p, const void *z, size_t n, unsigned size);

#endif
