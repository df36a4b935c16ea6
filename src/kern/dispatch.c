/* SPDX-License-Identifier: Apache-2.0 */
/* kern/dispatch.c - which table of kernels this process computes with.
 *
 * 1. A table is offered only if the compiler could make it (LORA_HAVE_*) and the processor runs it.
 *    __builtin_cpu_supports() also asks the operating system: a kernel that does not save the zmm
 *    registers hides AVX-512.
 * 2. The choice is made once and kept. Threads that race for it all compute the same choice,
 *    so that the last store does no harm.
 * 3. All tables give the same bits: the choice, and LORACTL_CPU, is about speed and about tests.
 */
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "kern/kern.h"

#if defined(__x86_64__) || defined(__i386__)
#include <cpuid.h>
#endif

#if defined(LORA_HAVE_AVX2)
static bool runs_avx2(void)
{
	unsigned eax, ebx, ecx, edx;

	/* Not every compiler's __builtin_cpu_supports() knows f16c. Its registers are AVX's. */
	if (!__get_cpuid(1, &eax, &ebx, &ecx, &edx) || !(ecx & bit_F16C))
		return false;
	return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
}
#endif

#if defined(LORA_HAVE_AVX512)
static bool runs_avx512(void)
{
	return runs_avx2() && __builtin_cpu_supports("avx512f") &&
	       __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") &&
	       __builtin_cpu_supports("avx512dq");
}
#endif

static bool runs_always(void)
{
	return true;
}

struct choice {
	const struct lora_kern *kern;
	bool (*runs)(void);
};

/* Best first. */
static const struct choice choices[] = {
#if defined(LORA_HAVE_AVX512)
    {&lora__kern_avx512, runs_avx512},
#endif
#if defined(LORA_HAVE_AVX2)
    {&lora__kern_avx2, runs_avx2},
#endif
#if defined(LORA_HAVE_NEON)
    {&lora__kern_neon, runs_always},
#endif
    {&lora__kern_generic, runs_always},
};

#define CHOICES (sizeof(choices) / sizeof(choices[0]))

const struct lora_kern *lora__kern_find(const char *isa)
{
	for (size_t i = 0; i < CHOICES; i++)
		if (strcmp(choices[i].kern->isa, isa) == 0)
			return choices[i].runs() ? choices[i].kern : NULL;
	return NULL;
}

static const struct lora_kern *find_best(void)
{
	size_t i = 0;

	while (!choices[i].runs())
		i++;
	return choices[i].kern;
}

/* Sets the error, naming the tables that run here: "avx2, generic". */
static void refuse(const char *forced, struct lora_error *err)
{
	char names[64] = ""; /* all four names need 30 bytes */
	size_t used = 0;

	for (size_t i = 0; i < CHOICES && used < sizeof(names); i++)
		if (choices[i].runs())
			used += (size_t)snprintf(names + used, sizeof(names) - used, "%s%s",
						 used > 0 ? ", " : "", choices[i].kern->isa);
	lora__fail(err, LORA_USAGE, "LORACTL_CPU is '%s': this processor runs one of: %s",
		   lora__escape(forced), names);
}

const struct lora_kern *lora__kern(struct lora_error *err)
{
	static _Atomic(const struct lora_kern *) chosen;
	const struct lora_kern *kern = atomic_load_explicit(&chosen, memory_order_acquire);
	const char *forced;

	if (kern)
		return kern;
	forced = getenv("LORACTL_CPU");
	kern = forced && *forced ? lora__kern_find(forced) : find_best();
	if (kern)
		atomic_store_explicit(&chosen, kern, memory_order_release);
	else
		refuse(forced, err);
	return kern;
}

const char *lora_cpu_name(void)
{
	const struct lora_kern *kern = lora__kern(NULL);

	return kern ? kern->isa : NULL;
}
