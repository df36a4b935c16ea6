/* SPDX-License-Identifier: Apache-2.0 */
/* cli/suggest.c - the nearest known word to a misspelt one
 *
 * Distance  restricted Damerau-Levenshtein ("optimal string alignment"): the fewest insertions,
 *           deletions, replacements and swaps of neighbours, where no part is edited twice.
 *           d[i][j] is the distance between the first i bytes of a and the first j of b:
 *
 *               d[i][j] = min of  d[i-1][j] + 1                      delete
 *                                 d[i][j-1] + 1                      insert
 *                                 d[i-1][j-1] + (a[i-1] != b[j-1])   keep or replace
 *                                 d[i-2][j-2] + 1                    swap, if the last two are
 * crossed
 *
 *           Only three rows are alive at a time.
 * Policy    a third of the longer word may be wrong, and one edit always may. A word cut short
 *           (`--allow-unm`) counts as one edit, however much is missing: people write prefixes, and
 *           a prefix is not an option here.
 */
#include <stdint.h>
#include <string.h>

#include "suggest.h"

#define WORD_MAX   63
#define PREFIX_MIN 3

static size_t min2(size_t a, size_t b)
{
	return a < b ? a : b;
}

size_t suggest_distance(const char *a, const char *b)
{
	size_t rows[3][WORD_MAX + 1];
	size_t *before = rows[0], *above = rows[1], *row = rows[2];
	size_t na = strlen(a), nb = strlen(b);

	if (na > WORD_MAX || nb > WORD_MAX)
		return SIZE_MAX;
	for (size_t j = 0; j <= nb; j++)
		row[j] = j;
	for (size_t i = 1; i <= na; i++) {
		size_t *spare = before;

		before = above;
		above = row;
		row = spare;
		row[0] = i;
		for (size_t j = 1; j <= nb; j++) {
			row[j] = min2(above[j], row[j - 1]) + 1;
			row[j] = min2(row[j], above[j - 1] + (a[i - 1] != b[j - 1]));
			if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1])
				row[j] = min2(row[j], before[j - 2] + 1);
		}
	}
	return row[nb];
}

const char *suggest(const char *word, const char *const *words, size_t count)
{
	const char *best = NULL;
	size_t best_distance = SIZE_MAX;
	size_t length = strlen(word);

	for (size_t i = 0; i < count; i++) {
		size_t distance = suggest_distance(word, words[i]);
		size_t longer = length > strlen(words[i]) ? length : strlen(words[i]);
		size_t allowed = longer / 3 > 1 ? longer / 3 : 1;

		if (length >= PREFIX_MIN && strncmp(word, words[i], length) == 0)
			distance = min2(distance, 1);
		if (distance <= allowed && distance < best_distance) {
			best = words[i];
			best_distance = distance;
		}
	}
	return best;
}
