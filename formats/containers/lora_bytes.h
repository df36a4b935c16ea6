/* SPDX-License-Identifier: Apache-2.0 */
/* formats/containers/lora_bytes.h - little-endian numbers, at any address. */
#ifndef LORA_FORMATS_CONTAINERS_LORA_BYTES_H
#define LORA_FORMATS_CONTAINERS_LORA_BYTES_H

#include <stdint.h>

static inline void lora__put_le(uint8_t *out, uint64_t value, unsigned size)
{
	for (unsigned i = 0; i < size; i++)
		out[i] = (uint8_t)(value >> 8 * i);
}

static inline uint64_t lora__get_le(const uint8_t *in, unsigned size)
{
	uint64_t value = 0;

	for (unsigned i = 0; i < size; i++)
		value |= (uint64_t)in[i] << 8 * i;
	return value;
}

static inline void lora__put16(uint8_t *out, uint16_t value)
{
	lora__put_le(out, value, 2);
}

static inline void lora__put32(uint8_t *out, uint32_t value)
{
	lora__put_le(out, value, 4);
}

static inline void lora__put64(uint8_t *out, uint64_t value)
{
	lora__put_le(out, value, 8);
}

static inline uint16_t lora__get16(const uint8_t *in)
{
	return (uint16_t)lora__get_le(in, 2);
}

static inline uint32_t lora__get32(const uint8_t *in)
{
	return (uint32_t)lora__get_le(in, 4);
}

static inline uint64_t lora__get64(const uint8_t *in)
{
	return lora__get_le(in, 8);
}

#endif
