/* SPDX-License-Identifier: Apache-2.0 */
/* loractl/types.h - tensors as facts: name, type, shape. */
#ifndef LORACTL_TYPES_H
#define LORACTL_TYPES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <loractl/error.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Element types, those of the safetensors format. Only F32, F16 and BF16 are computed with; the
 * others pass through untouched. */
enum lora_dtype {
	LORA_DTYPE_NONE = 0,
	LORA_DTYPE_F32,
	LORA_DTYPE_F16,
	LORA_DTYPE_BF16,
	LORA_DTYPE_F64,
	LORA_DTYPE_F8_E4M3,
	LORA_DTYPE_F8_E5M2,
	LORA_DTYPE_F8_E8M0,
	LORA_DTYPE_F6_E2M3,
	LORA_DTYPE_F6_E3M2,
	LORA_DTYPE_F4,
	LORA_DTYPE_BOOL,
	LORA_DTYPE_U8,
	LORA_DTYPE_I8,
	LORA_DTYPE_U16,
	LORA_DTYPE_I16,
	LORA_DTYPE_U32,
	LORA_DTYPE_I32,
	LORA_DTYPE_U64,
	LORA_DTYPE_I64,
	LORA_DTYPE_C64,
	LORA_DTYPE_COUNT
};

/* "F32", "BF16", ...: the spelling of safetensors headers; static storage; NULL for a bad value. */
LORA_API const char *lora_dtype_name(enum lora_dtype dtype);
/* The type with that spelling (length bytes), or LORA_DTYPE_NONE. */
LORA_API enum lora_dtype lora_dtype_find(const char *name, size_t length);
/* Bits of one element; 0 for a bad value. */
LORA_API unsigned lora_dtype_bits(enum lora_dtype dtype);

#define LORA_MAX_DIMS 8

/* One tensor as a file describes it. Row-major, the last dimension contiguous. */
struct lora_tensor {
	const char *name; /* NUL-terminated; never contains a NUL or invalid UTF-8 */
	enum lora_dtype dtype;
	uint32_t ndim;		       /* 0 for a scalar */
	uint64_t shape[LORA_MAX_DIMS]; /* elements */
	uint64_t elements;	       /* product of shape */
	uint32_t file;		       /* which of the parent's files holds it */
	uint64_t begin;		       /* bytes from the start of that file */
	uint64_t size;		       /* bytes */
};

#define LORA_SHA256_SIZE 32
#define LORA_SHA256_HEX	 65 /* with the NUL */

struct lora_sha256 {
	uint8_t byte[LORA_SHA256_SIZE];
};

#ifdef __cplusplus
}
#endif

#endif
