/* SPDX-License-Identifier: Apache-2.0 */
/* base/types.c - element types: their spelling in safetensors headers and their size
 *
 * Names and sizes are those of the safetensors crate, enum Dtype. F8_E8M0, F6_* and F4 are the
 * element and scale types of the OCP Microscaling formats; F6 and F4 are the only ones that do not
 * fill bytes.
 */
#include <string.h>

#include <loractl/types.h>

static const struct {
	const char *name;
	unsigned bits;
} dtypes[LORA_DTYPE_COUNT] = {
    [LORA_DTYPE_F32] = {"F32", 32},	   [LORA_DTYPE_F16] = {"F16", 16},
    [LORA_DTYPE_BF16] = {"BF16", 16},	   [LORA_DTYPE_F64] = {"F64", 64},
    [LORA_DTYPE_F8_E4M3] = {"F8_E4M3", 8}, [LORA_DTYPE_F8_E5M2] = {"F8_E5M2", 8},
    [LORA_DTYPE_F8_E8M0] = {"F8_E8M0", 8}, [LORA_DTYPE_F6_E2M3] = {"F6_E2M3", 6},
    [LORA_DTYPE_F6_E3M2] = {"F6_E3M2", 6}, [LORA_DTYPE_F4] = {"F4", 4},
    [LORA_DTYPE_BOOL] = {"BOOL", 8},	   [LORA_DTYPE_U8] = {"U8", 8},
    [LORA_DTYPE_I8] = {"I8", 8},	   [LORA_DTYPE_U16] = {"U16", 16},
    [LORA_DTYPE_I16] = {"I16", 16},	   [LORA_DTYPE_U32] = {"U32", 32},
    [LORA_DTYPE_I32] = {"I32", 32},	   [LORA_DTYPE_U64] = {"U64", 64},
    [LORA_DTYPE_I64] = {"I64", 64},	   [LORA_DTYPE_C64] = {"C64", 64},
};

static int is_dtype(enum lora_dtype dtype)
{
	return (unsigned)dtype > LORA_DTYPE_NONE && (unsigned)dtype < LORA_DTYPE_COUNT;
}

const char *lora_dtype_name(enum lora_dtype dtype)
{
	return is_dtype(dtype) ? dtypes[dtype].name : NULL;
}

enum lora_dtype lora_dtype_find(const char *name, size_t length)
{
	for (unsigned i = LORA_DTYPE_NONE + 1; i < LORA_DTYPE_COUNT; i++)
		if (strlen(dtypes[i].name) == length && memcmp(dtypes[i].name, name, length) == 0)
			return (enum lora_dtype)i;
	return LORA_DTYPE_NONE;
}

unsigned lora_dtype_bits(enum lora_dtype dtype)
{
	return is_dtype(dtype) ? dtypes[dtype].bits : 0;
}
