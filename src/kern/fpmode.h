/* SPDX-License-Identifier: Apache-2.0 */
/* kern/fpmode.h - computing in the default floating-point mode, whatever the caller's is.
 *
 * The contract fixes every bit, and so it fixes the mode: rounding to nearest, subnormals kept,
 * exceptions masked. A thread may be in another one without knowing it: linking with -ffast-math
 * makes GCC set flush-to-zero at start-up (before version 13 even for a shared library, and so for
 * whoever loads it), and threads inherit the mode of the thread that made them. So each kernel
 * is a pair: a slot
 *
 *	{ mode = lora__fpmode_enter(); compute(...); lora__fpmode_leave(mode); }
 *
 * and a function that is LORA_NOINLINE, because compilers do not know that arithmetic depends on
 * the mode and would otherwise be free to move it across the two calls.
 *
 * Reading the mode costs some ten cycles, writing it is avoided when it is right already.
 */
#ifndef LORA_KERN_FPMODE_H
#define LORA_KERN_FPMODE_H

#include <stdint.h>

#define LORA_NOINLINE __attribute__((noinline))

#if defined(__SSE2__) && defined(__x86_64__)

#include <xmmintrin.h>

/* Bits 0 to 5 of MXCSR are flags that say what happened; the rest is the mode, 0x1f80 by default.
 */
static inline uint64_t lora__fpmode_enter(void)
{
	unsigned mode = _mm_getcsr();

	if ((mode & ~0x3fu) != 0x1f80)
		_mm_setcsr(0x1f80);
	return mode;
}

static inline void lora__fpmode_leave(uint64_t mode)
{
	if ((mode & ~(uint64_t)0x3f) != 0x1f80)
		_mm_setcsr((unsigned)mode);
}

#elif defined(__aarch64__)

/* FPCR is 0 by default, its flags live elsewhere (FPSR). */
static inline uint64_t lora__fpmode_enter(void)
{
	uint64_t mode, zero = 0;

	__asm__ volatile("mrs %0, fpcr" : "=r"(mode)::"memory");
	if (mode != 0)
		__asm__ volatile("msr fpcr, %0" ::"r"(zero) : "memory");
	return mode;
}

static inline void lora__fpmode_leave(uint64_t mode)
{
	if (mode != 0)
		__asm__ volatile("msr fpcr, %0" ::"r"(mode) : "memory");
}

#else

#include <fenv.h>

/* C knows the rounding direction only; flush-to-zero is left as it is. */
static inline uint64_t lora__fpmode_enter(void)
{
	int mode = fegetround();

	if (mode != FE_TONEAREST)
		fesetround(FE_TONEAREST);
	return (uint64_t)mode;
}

static inline void lora__fpmode_leave(uint64_t mode)
{
	if ((int)mode != FE_TONEAREST)
		fesetround((int)mode);
}

#endif
#endif
