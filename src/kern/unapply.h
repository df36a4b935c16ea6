/* SPDX-License-Identifier: Apache-2.0 */
/* kern/unapply.h - the way back from a merged value: one rounded operation an element, in the
 * default floating-point mode, the same bits everywhere.
 */
#ifndef LORA_KERN_UNAPPLY_H
#define LORA_KERN_UNAPPLY_H

#include <stddef.h>

/* q[j] = q[j] - D[j] */
void lora__unapply(float *q, const float *D, size_t n);

/* q[j] = q[j] / g[j], or +0 where g[j] is 0. One g for all (step 0) or one each (step 1). */
void lora__ungain(float *q, const float *g, size_t step, size_t n);

#endif
