/* SPDX-License-Identifier: Apache-2.0 */
/* kern/vec_generic.c - vec.h in the baseline's vectors, and the choice of a table. */
#define LANES 4
#define ISA   "generic"
#define NAME  lora__vec_generic

#include "kern/vec_body.h"

static vf load_bf16(const uint16_t *p)
{
	vh h;

	memcpy(&h, p, sizeof(h));
	return (vf)(__builtin_convertvector(h, vu) << 16);
}

/* Half to single by bits: the exponent moves up by 112; a subnormal is scaled by a product, which
 * is exact; an infinity or NaN (none is loaded from a model's file) keeps an exponent of ones. */
static vf load_f16(const uint16_t *p)
{
	vh h;
	vu bits, sign, magnitude;
	vf value;

	memcpy(&h, p, sizeof(h));
	bits = __builtin_convertvector(h, vu);
	sign = (bits & 0x8000u) << 16;
	magnitude = (bits & 0x7fffu) << 13;
	value = (vf)magnitude * splat(0x1p112f);
	value = choose(magnitude >= (0x7c00u << 13), (vf)(magnitude | 0x7f800000u), value);
	return (vf)((vu)value | sign);
}

static const struct lora_vec *const tables[] = {
#if defined(LORA_HAVE_AVX512)
    &lora__vec_avx512,
#endif
#if defined(LORA_HAVE_AVX2)
    &lora__vec_avx2,
#endif
#if defined(LORA_HAVE_NEON)
    &lora__vec_neon,
#endif
    &lora__vec_generic,
};

const struct lora_vec *lora__vec(const char *isa)
{
	for (size_t i = 0; i < sizeof(tables) / sizeof(*tables); i++)
		if (strcmp(tables[i]->isa, isa) == 0)
			return tables[i];
	return NULL;
}
