/* SPDX-License-Identifier: Apache-2.0 */
/* kern/unapply.c - plain loops; kern/fpmode.h tells why each is a pair */
#include "kern/unapply.h"

#include "kern/fpmode.h"

static LORA_NOINLINE void subtract(float *q, const float *D, size_t n)
{
	for (size_t j = 0; j < n; j++)
		q[j] = q[j] - D[j];
}

static LORA_NOINLINE void divide(float *q, const float *g, size_t step, size_t n)
{
	for (size_t j = 0; j < n; j++) {
		float by = g[j * step];

		q[j] = by == 0 ? 0 : q[j] / by;
	}
}

void lora__unapply(float *q, const float *D, size_t n)
{
	uint64_t mode = lora__fpmode_enter();

	subtract(q, D, n);
	lora__fpmode_leave(mode);
}

void lora__ungain(float *q, const float *g, size_t step, size_t n)
{
	uint64_t mode = lora__fpmode_enter();

	divide(q, g, step, n);
	lora__fpmode_leave(mode);
}
