/* SPDX-License-Identifier: Apache-2.0 */
/* base/distance.h - how many slips of the finger lie between two words. */
#ifndef LORA_BASE_DISTANCE_H
#define LORA_BASE_DISTANCE_H

#include <stddef.h>

#define LORA_DISTANCE_LIMIT 64 /* bytes of a word that are looked at */

/* Optimal string alignment distance of two byte strings: insertions, deletions, substitutions and
 * swaps of neighbours, each one step, no part edited twice (Damerau 1964). Words longer than
 * LORA_DISTANCE_LIMIT are compared by their first that many bytes, and what is left over counts
 * fully when its lengths differ. */
size_t lora__distance(const char *a, size_t a_length, const char *b, size_t b_length);

#endif
