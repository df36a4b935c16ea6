/* SPDX-License-Identifier: Apache-2.0 */
/* base/arena.h - memory that lives as long as one thing does.
 *
 *	arena -> chunk -> chunk -> ...      each chunk: | header | used ...........| free |
 *
 * 1. Everything in an arena dies together, in lora__arena_fini().
 * 2. Memory is aligned to 16 bytes and zeroed.
 * 3. A failed allocation returns NULL and changes nothing.
 * Under AddressSanitizer every allocation is its own malloc, so that overruns are seen.
 */
#ifndef LORA_BASE_ARENA_H
#define LORA_BASE_ARENA_H

#include <stddef.h>

struct lora_arena_chunk;

struct lora_arena {
	struct lora_arena_chunk *last;
};

/* A zeroed struct lora_arena is empty and ready. */
void lora__arena_fini(struct lora_arena *arena);
void *lora__arena_alloc(struct lora_arena *arena, size_t size);
/* count * size with the product checked. */
void *lora__arena_array(struct lora_arena *arena, size_t count, size_t size);
char *lora__arena_copy(struct lora_arena *arena, const char *text, size_t length); /* adds a NUL */
char *lora__arena_printf(struct lora_arena *arena, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

#endif
