/* SPDX-License-Identifier: Apache-2.0 */
/* cli/suggest.h - the nearest known word to a misspelt one. */
#ifndef LORA_CLI_SUGGEST_H
#define LORA_CLI_SUGGEST_H

#include <stddef.h>

/* Edits (insert, delete, replace a byte, swap two neighbours) that turn a into b; SIZE_MAX when a
 * word is too long to be a misspelling of anything. */
size_t suggest_distance(const char *a, const char *b);

/* The nearest of `count` words, the first among equals; NULL if none is near enough to be meant. */
const char *suggest(const char *word, const char *const *words, size_t count);

#endif
