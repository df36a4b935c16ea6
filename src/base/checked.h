/* SPDX-License-Identifier: Apache-2.0 */
/* base/checked.h - arithmetic on sizes that came from a file: true when the result does not fit. */
#ifndef LORA_BASE_CHECKED_H
#define LORA_BASE_CHECKED_H

#include <stdbool.h>
#include <stdint.h>

static inline bool lora__add_overflows(uint64_t a, uint64_t b, uint64_t *sum)
{
	*sum = a + b;
	return *sum < a;
}

static inline bool lora__mul_overflows(uint64_t a, uint64_t b, uint64_t *product)
{
	*product = a * b;
	return a != 0 && *product / a != b;
}

#endif
