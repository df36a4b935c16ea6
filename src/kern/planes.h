/* SPDX-License-Identifier: Apache-2.0 */
/* kern/planes.h - numbers as planes of bytes: byte k of every element in plane k, little endian. */
#ifndef LORA_KERN_PLANES_H
#define LORA_KERN_PLANES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define LORA_PLANES_MAX 8u

/* How the bytes of an object are laid out in planes. */
struct lora_layout {
	uint8_t width; /* bytes of an element, and planes: 1, 2, 4 or 8 */
	bool rotated;  /* elements are rotated left by one bit: the sign goes below the mantissa, so
			  that the exponent is a plane */
};

/* Planes of `size` bytes, a multiple of the width, to out [size], one after another. Where `parent`
 * is not NULL, in ^ parent is cut. Nothing overlaps. */
void lora__planes_split(struct lora_layout layout, const uint8_t *in, const uint8_t *parent,
			size_t size, uint8_t *out);
/* The inverse: plane k, of size / width bytes, is planes[k]. `parent` may be `out`. */
void lora__planes_join(struct lora_layout layout, const uint8_t *const *planes,
		       const uint8_t *parent, size_t size, uint8_t *out);

#endif
