/* SPDX-License-Identifier: Apache-2.0 */
/* Tiles cover every element of a block exactly once, in order, whatever the matrix's width and
 * wherever a block begins. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "merge/tile.h"

/* Elements [first, end) of a matrix of `width`, marked by the tiles that lora__tile_next gives. */
static void cover(uint64_t first, uint64_t end, uint64_t width)
{
	uint64_t at = first;

	while (at < end) {
		struct lora_tile tile = lora__tile_next(at, end, width);

		assert_true(tile.rows > 0 && tile.cols > 0);
		assert_true(tile.row == at / width && tile.col == at % width);
		assert_true(tile.col + tile.cols <= width);
		/* More than one row only if they are whole: so that the tile is a contiguous run.
		 */
		assert_true(tile.rows == 1 || tile.cols == width);
		/* What computes it column strip by column strip has room. */
		assert_true(tile.rows * (tile.cols < LORA_TILE_COLS ? tile.cols : LORA_TILE_COLS) <=
			    LORA_TILE_AREA);
		at += tile.rows * tile.cols;
		assert_true(at <= end);
	}
	assert_true(at == end);
}

static void tile__covers_whole_rows(void **state)
{
	static const uint64_t widths[] = {1,	2,    7,     64,    2047,  2048,
					  2049, 5632, 14336, 70000, 600000};

	(void)state;
	for (size_t i = 0; i < sizeof(widths) / sizeof(*widths); i++)
		for (uint64_t rows = 1; rows < 100; rows += 7) {
			cover(0, rows * widths[i], widths[i]);
			cover(3 * widths[i], (3 + rows) * widths[i], widths[i]);
		}
}

static void tile__covers_parts_of_a_row(void **state)
{
	(void)state;
	cover(0, 1, 1000000);
	cover(999, 1000000, 1000000);
	cover(1000000 + 262144, 1000000 + 524288, 1000000);
	cover(2048, 4096, 4096);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(tile__covers_whole_rows),
	    cmocka_unit_test(tile__covers_parts_of_a_row),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
