/* SPDX-License-Identifier: Apache-2.0 */
/* kern/span.h - what the kernels of all instruction sets share of apply(): how a span's lanes
 * become statistics.
 *
 * A kernel fills a struct lora_span_found and calls lora__span_finish(), which lives in
 * kern_generic.c: the order of the last additions and the rare second summation in f64 are
 * written once. That summation reads W again, so a kernel that overwrites W keeps a copy first.
 *
 * This header is included by files of different instruction sets: nothing in it may be an inline
 * function with external linkage, or the linker could take an AVX-512 copy for everyone.
 */
#ifndef LORA_KERN_SPAN_H
#define LORA_KERN_SPAN_H

#include <string.h>

#include "kern/kern.h"

/* The build initialises automatic variables as hardening; not large scratch that is written before
 * it is read: zeroing it would cost more than some of the calls that use it. */
#if defined(__has_attribute)
#if __has_attribute(uninitialized)
#define LORA_UNINITIALIZED __attribute__((uninitialized))
#endif
#endif
#if !defined(LORA_UNINITIALIZED)
#define LORA_UNINITIALIZED
#endif

/* One call of apply(). */
struct lora_span {
	void *out;	/* W' */
	const void *w;	/* W: as given or, when out is w, a copy */
	const float *D; /* [n] */
	size_t n;	/* elements, at most LORA_STAT_SPAN */
	enum lora_dtype out_type, w_type;
};

/* What a kernel found in a span: the lanes of the sums, and the counts. */
struct lora_span_found {
	float d2[LORA_STAT_LANES], w2[LORA_STAT_LANES], e2[LORA_STAT_LANES];
	uint64_t nonzero, unchanged, changed, nonfinite;
};

/* Adds a span to *stats. */
void lora__span_finish(const struct lora_span *span, const struct lora_span_found *found,
		       struct lora_stats *stats);

#define LORA_SPAN_BYTES (LORA_STAT_SPAN * sizeof(float))

/* A W that lives through writing `out`: w, or its copy in `scratch` [LORA_SPAN_BYTES]. */
static inline const void *lora__span_keep(void *scratch, const void *out, const void *w,
					  enum lora_dtype w_type, size_t n)
{
	if (out != w)
		return w;
	return memcpy(scratch, w, n * (w_type == LORA_DTYPE_F32 ? 4 : 2));
}

#endif
