/* SPDX-License-Identifier: Apache-2.0 */
/* base/arena.c - the arena: invariants in arena.h
 *
 * The newest chunk of ordinary size is `last`; allocations are cut from its front. What does not
 * fit opens a new chunk of twice the size, up to CHUNK_MAX. What is larger than a quarter of the
 * next chunk gets a chunk of its own, put behind `last`, so that the rest of `last` is not lost.
 *
 * Chunks come from calloc(): fresh pages are zero already and are not touched before they are used.
 */
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/arena.h"

#if defined(__SANITIZE_ADDRESS__)
#define ONE_EACH 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define ONE_EACH 1
#endif
#endif
#ifndef ONE_EACH
#define ONE_EACH 0
#endif

#define ALIGN	  16u
#define CHUNK_MIN (4u << 10)
#define CHUNK_MAX (256u << 10)

struct lora_arena_chunk {
	_Alignas(ALIGN) struct lora_arena_chunk *previous;
	size_t size, used; /* bytes behind this header */
};

static struct lora_arena_chunk *chunk_new(size_t size)
{
	struct lora_arena_chunk *chunk;

	if (size > SIZE_MAX - sizeof *chunk)
		return NULL;
	chunk = calloc(1, sizeof *chunk + size);
	if (chunk != NULL)
		chunk->size = size;
	return chunk;
}

/* A chunk with at least size bytes free, in its place in the list; NULL without memory. */
static struct lora_arena_chunk *chunk_for(struct lora_arena *arena, size_t size)
{
	struct lora_arena_chunk *last = arena->last, *chunk;
	size_t next = last == NULL ? CHUNK_MIN : last->size * 2;
	bool own;

	if (!ONE_EACH && last != NULL && last->size - last->used >= size)
		return last;
	if (next > CHUNK_MAX)
		next = CHUNK_MAX;
	own = ONE_EACH || size > next / 4;
	chunk = chunk_new(own ? size : next);
	if (chunk == NULL)
		return NULL;
	if (own && last != NULL) {
		chunk->previous = last->previous;
		last->previous = chunk;
	} else {
		chunk->previous = last;
		arena->last = chunk;
	}
	return chunk;
}

void *lora__arena_alloc(struct lora_arena *arena, size_t size)
{
	struct lora_arena_chunk *chunk;
	size_t rounded = size == 0 ? 1 : size;
	char *memory;

	if (rounded > SIZE_MAX - ALIGN)
		return NULL;
	if (!ONE_EACH)
		rounded = (rounded + ALIGN - 1) / ALIGN * ALIGN;
	chunk = chunk_for(arena, rounded);
	if (chunk == NULL)
		return NULL;
	memory = (char *)(chunk + 1) + chunk->used;
	chunk->used += rounded;
	return memory;
}

void *lora__arena_array(struct lora_arena *arena, size_t count, size_t size)
{
	if (size != 0 && count > SIZE_MAX / size)
		return NULL;
	return lora__arena_alloc(arena, count * size);
}

char *lora__arena_copy(struct lora_arena *arena, const char *text, size_t length)
{
	char *copy = length == SIZE_MAX ? NULL : lora__arena_alloc(arena, length + 1);

	if (copy != NULL && length > 0)
		memcpy(copy, text, length);
	return copy;
}

char *lora__arena_printf(struct lora_arena *arena, const char *format, ...)
{
	char *text = NULL;
	va_list args;
	int length;

	va_start(args, format);
	length = vsnprintf(NULL, 0, format, args);
	va_end(args);
	if (length >= 0)
		text = lora__arena_alloc(arena, (size_t)length + 1);
	if (text == NULL)
		return NULL;
	va_start(args, format);
	(void)vsnprintf(text, (size_t)length + 1, format, args);
	va_end(args);
	return text;
}

void lora__arena_fini(struct lora_arena *arena)
{
	struct lora_arena_chunk *chunk = arena->last;

	while (chunk != NULL) {
		struct lora_arena_chunk *previous = chunk->previous;

		free(chunk);
		chunk = previous;
	}
	arena->last = NULL;
}
