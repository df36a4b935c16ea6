/* SPDX-License-Identifier: Apache-2.0 */
/* failing_malloc.h - the n-th allocation fails, and nothing is left behind
 *
 * A program's own malloc() takes the place of the C library's, for the libraries it uses too. To be
 *included by one .c file of a program. Sanitizers bring their own malloc(): there, nothing is
 *replaced and FAILING_MALLOC is 0.
 *
 *	for (long n = 0;; n++) {
 *		failing_malloc_begin(n);           the n-th from here fails (from 0), and all after
 *it
 *		... what must fail cleanly ...
 *		if (!failing_malloc_end())         false if it was never reached: then it succeeded
 *			break;
 *	}
 *
 * failing_malloc_live() is the number of allocations that are not freed.
 */
#ifndef TESTS_FAILING_MALLOC_H
#define TESTS_FAILING_MALLOC_H

#include <errno.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>

#define FAILING_MALLOC 1
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__) || !defined(__GLIBC__)
#undef FAILING_MALLOC
#define FAILING_MALLOC 0
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#undef FAILING_MALLOC
#define FAILING_MALLOC 0
#endif
#endif

static atomic_long failing_malloc_left = -1; /* -1: none fails */
static atomic_long failing_malloc_count;
static atomic_bool failing_malloc_once;
static atomic_bool failing_malloc_failed;

static inline void failing_malloc_begin(long n)
{
	failing_malloc_failed = false;
	failing_malloc_left = n;
}

/* Did one fail? */
static inline bool failing_malloc_end(void)
{
	failing_malloc_left = -1;
	failing_malloc_once = false;
	return failing_malloc_failed;
}

static inline long failing_malloc_live(void)
{
	return failing_malloc_count;
}

#if FAILING_MALLOC
void *__libc_malloc(size_t size);
void *__libc_calloc(size_t count, size_t size);
void *__libc_realloc(void *old, size_t size);
void __libc_free(void *memory);

static bool failing_malloc_now(void)
{
	long left = failing_malloc_left;

	if (left < 0)
		return false;
	if (left > 0) {
		failing_malloc_left = left - 1;
		return false;
	}
	if (failing_malloc_once)
		failing_malloc_left = -1;
	failing_malloc_failed = true;
	errno = ENOMEM;
	return true;
}

static void *failing_malloc_made(void *memory)
{
	if (memory != NULL)
		failing_malloc_count++;
	return memory;
}

void *malloc(size_t size)
{
	return failing_malloc_now() ? NULL : failing_malloc_made(__libc_malloc(size));
}

void *calloc(size_t count, size_t size)
{
	return failing_malloc_now() ? NULL : failing_malloc_made(__libc_calloc(count, size));
}

void *realloc(void *old, size_t size)
{
	void *memory = failing_malloc_now() ? NULL : __libc_realloc(old, size);

	return old == NULL ? failing_malloc_made(memory) : memory;
}

void free(void *memory)
{
	int saved = errno;

	if (memory != NULL)
		failing_malloc_count--;
	__libc_free(memory);
	errno = saved;
}
#endif

#endif
