/* SPDX-License-Identifier: Apache-2.0 */
/* kern/vec_neon.c - vec.h in the vectors of 64-bit ARM. */
#define LANES 4
#define ISA   "neon"
#define NAME  lora__vec_neon

#include "kern/vec_body.h"

#include <arm_neon.h>

static inline vf load_f16(const uint16_t *p)
{
	return (vf)vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(p)));
}

static inline vf load_bf16(const uint16_t *p)
{
	return (vf)vshll_n_u16(vld1_u16(p), 16);
}
