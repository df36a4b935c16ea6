/* SPDX-License-Identifier: Apache-2.0 */
/* base/distance.c - Damerau's distance, restricted form, with three rows of the table.
 *
 *	d(i, j) = min(d(i-1, j) + 1, d(i, j-1) + 1, d(i-1, j-1) + [a_i != b_j],
 *		      d(i-2, j-2) + 1  if a_i = b_j-1 and a_i-1 = b_j)
 */
#include "base/distance.h"

#include <string.h>

static size_t least(size_t a, size_t b)
{
	return a < b ? a : b;
}

size_t lora__distance(const char *a, size_t a_length, const char *b, size_t b_length)
{
	size_t rows[3][LORA_DISTANCE_LIMIT + 1];
	size_t n = least(a_length, LORA_DISTANCE_LIMIT), m = least(b_length, LORA_DISTANCE_LIMIT);
	size_t over = (a_length - n) > (b_length - m) ? (a_length - n) - (b_length - m)
						      : (b_length - m) - (a_length - n);

	for (size_t j = 0; j <= m; j++)
		rows[0][j] = j;
	for (size_t i = 1; i <= n; i++) {
		size_t *now = rows[i % 3], *last = rows[(i + 2) % 3], *before = rows[(i + 1) % 3];

		now[0] = i;
		for (size_t j = 1; j <= m; j++) {
			now[j] = least(least(last[j], now[j - 1]) + 1,
				       last[j - 1] + (a[i - 1] != b[j - 1]));
			if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1])
				now[j] = least(now[j], before[j - 2] + 1);
		}
	}
	return rows[n % 3][m] + over;
}
