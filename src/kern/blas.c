/* SPDX-License-Identifier: Apache-2.0 */
/* kern/blas.c - the BLAS and LAPACK, loaded when somebody first needs them.
 *
 * 1. Sonames come from the build (LORA_BLAS_SONAMES), so that what is loaded has the ABI of the
 *    header that was compiled with. A second one is for a LAPACK in a library of its own.
 * 2. It is tried once. What failed then fails again with the same words.
 * 3. Loading is kept on the safe side: OpenBLAS ends the process (SIGINT to itself) where it cannot
 *    start its threads, and hangs where it cannot map its buffers, so the room is tried out first.
 */
#include "kern/blas.h"

#include <dlfcn.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <sys/mman.h>

#include "base/error.h"
#include "base/pool.h"

/* Bytes of address space: its code; and for each thread that computes a buffer of 128 MiB, which it
 * asks for again and again until it gets it, a stack, and the C library's arena. */
#define ROOM	    ((size_t)64 << 20)
#define THREAD_ROOM ((size_t)200 << 20)

static const char *const sonames[] = {LORA_BLAS_SONAMES};
#define SONAMES (sizeof(sonames) / sizeof(*sonames))

static struct lora_blas table;
static bool loaded;
static char why[256];

static void ignore_threads(int threads)
{
	(void)threads;
}

static bool have_room(void)
{
	size_t size = ROOM + lora__cores() * THREAD_ROOM;
	void *room = mmap(NULL, size, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (room == MAP_FAILED) {
		snprintf(why, sizeof(why), "no %zu MiB of address space are left for it",
			 size >> 20);
		return false;
	}
	(void)munmap(room, size);
	return true;
}

/* POSIX lets a function's address go through a void *, ISO C does not: through memory, then. */
static bool find(void *const *handles, const char *name, void *function)
{
	for (size_t i = 0; i < SONAMES; i++) {
		*(void **)function = dlsym(handles[i], name);
		if (*(void **)function)
			return true;
	}
	snprintf(why, sizeof(why), "'%s' has no function '%s'", sonames[0], name);
	return false;
}

static void load(void)
{
	void *handles[SONAMES];

	if (!have_room())
		return;
	for (size_t i = 0; i < SONAMES; i++) {
		handles[i] = dlopen(sonames[i], RTLD_NOW | RTLD_LOCAL);
		if (!handles[i]) {
			snprintf(why, sizeof(why), "%s", dlerror());
			return;
		}
	}
	if (!find(handles, "openblas_set_num_threads", &table.set_threads))
		table.set_threads = ignore_threads;
	loaded = find(handles, "cblas_sgemm", &table.sgemm) &&
		 find(handles, "cblas_dgemm", &table.dgemm) &&
		 find(handles, "cblas_dnrm2", &table.dnrm2) &&
		 find(handles, "dgeqrf_", &table.dgeqrf) &&
		 find(handles, "dorgqr_", &table.dorgqr) &&
		 find(handles, "dgesvd_", &table.dgesvd) && find(handles, "dsyev_", &table.dsyev);
	table.set_threads(1);
}

const struct lora_blas *lora__blas(struct lora_error *err)
{
	static pthread_once_t once = PTHREAD_ONCE_INIT;

	pthread_once(&once, load);
	if (loaded)
		return &table;
	(void)lora__fail(err, LORA_SYSTEM, "cannot load the BLAS library '%s': %s", sonames[0],
			 lora__escape(why));
	return NULL;
}
