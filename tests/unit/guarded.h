/* SPDX-License-Identifier: Apache-2.0 */
/* tests/unit/guarded.h - arrays that end where an unreadable page begins: one element too many,
 * read or written, ends the process. */
#ifndef TESTS_UNIT_GUARDED_H
#define TESTS_UNIT_GUARDED_H

#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

struct guarded {
	char *base, *end; /* [base, end) may be used; `page` bytes from end on may not */
	size_t page;
};

static struct guarded guarded_new(size_t size)
{
	struct guarded g = {NULL, NULL, (size_t)sysconf(_SC_PAGESIZE)};

	size = (size + g.page - 1) / g.page * g.page;
	g.base =
	    mmap(NULL, size + g.page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (g.base == MAP_FAILED || mprotect(g.base + size, g.page, PROT_NONE) != 0) {
		perror("mmap");
		exit(1);
	}
	g.end = g.base + size;
	return g;
}

static void guarded_free(struct guarded *g)
{
	munmap(g->base, (size_t)(g->end - g->base) + g->page);
}

/* The last n elements of a size. */
static void *guarded_last(const struct guarded *g, size_t n, size_t element)
{
	if (n * element > (size_t)(g->end - g->base)) {
		fprintf(stderr, "kern_compare: array too large\n");
		exit(1);
	}
	return g->end - n * element;
}

#endif
