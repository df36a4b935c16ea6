/* SPDX-License-Identifier: Apache-2.0 */
/* merge/predict.c - what the base was, judging by the merged values and the update
 *
 * W' = RNE(g * (W + D)) is taken back as P = RNE(W' / g - D). P is W but for what rounding lost,
 * mostly nothing, else one unit in the last place; where D moved a value into a higher binade, or
 * into a narrower type, more. What remains is the residual's matter: a prediction may be wrong, but
 * must be the same bits wherever it is made, while merging and while taking back.
 */
#include "merge/tile.h"

#include "kern/unapply.h"

#include <math.h>
#include <string.h>

static bool is_zero_row(const struct lora_job *job, uint64_t row)
{
	return job->zero_rows && (job->zero_rows[row / 8] >> row % 8 & 1);
}

/* n elements of one row from column `col` on; at most LORA_STAT_SPAN. */
struct piece {
	uint64_t row, col;
	size_t n;
};

static void predict_piece(const struct lora_job *job, struct piece piece, struct lora_way way,
			  const float *D, const struct lora_kern *kern, float *q)
{
	lora__widen(kern, q, way.merged, way.merged_type, piece.n);
	if (job->gain && job->gain_by_column)
		lora__ungain(q, job->gain + piece.col, 1, piece.n);
	else if (job->gain)
		lora__ungain(q, job->gain + piece.row, 0, piece.n);
	lora__unapply(q, D, piece.n);
	lora__narrow(kern, way.base, way.base_type, q, piece.n);
}

void lora__tile_predict(const struct lora_block *block, struct lora_tile tile, struct lora_way way,
			const struct lora_kern *kern, struct lora_scratch *scratch)
{
	const struct lora_job *job = block->job;
	size_t merged = lora_dtype_bits(way.merged_type) / 8,
	       base = lora_dtype_bits(way.base_type) / 8;

	for (uint64_t i = 0; i < tile.rows; i++)
		for (uint64_t j = 0; j < tile.cols; j += LORA_STAT_SPAN) {
			uint64_t left = tile.cols - j, row = tile.row + i, col = tile.col + j,
				 at = row * job->width + col - block->first;
			struct piece piece = {
			    row, col, left < LORA_STAT_SPAN ? (size_t)left : LORA_STAT_SPAN};
			struct lora_way here = {way.merged + at * merged, way.merged_type,
						way.base + at * base, way.base_type};

			if (is_zero_row(job, row))
				memset(here.base, 0, piece.n * base);
			else
				predict_piece(job, piece, here, scratch->update + i * tile.cols + j,
					      kern, scratch->span);
		}
}

/* Biased exponent of a value as its type has it: subnormals share the lowest. */
static int exponent(float value, enum lora_dtype type)
{
	int lowest = type == LORA_DTYPE_F16 ? 127 - 14 : 1, e;
	uint32_t bits;

	memcpy(&bits, &value, sizeof(bits));
	e = (int)(bits >> 23 & 255);
	return e > lowest ? e : lowest;
}

/* An element that the merge rounded by e, and the way back to W's units: 2^up of them make one of
 * W', and D has j bits below them. e is one of 2^(up + j) multiples of 2^-j, up to half a unit of
 * W'; W comes back where |e| is less than half of its own unit, and from a tie where W is even.
 *
 *	up > 0	2^j - 1 cases, and both ties:	1 - 2^-up are off, if half of all W are even
 *	up = 0	all but the ties, of which one half was rounded the other way: 2^-(j+1) are off
 *	up < 0	all: W's unit is the wider one
 *
 * (In f32 ties count; a 16-bit W has 2^-16 of them.) */
static void expect_one(struct lora_stats *stats, float merged, float base, float D,
		       enum lora_dtype type)
{
	int mantissa = type == LORA_DTYPE_F32	? 23
		       : type == LORA_DTYPE_F16 ? 10
						: 7,
	    unit = exponent(base, type) - mantissa, up = exponent(merged, type) - mantissa - unit,
	    j = unit - (exponent(D, LORA_DTYPE_F32) - 23);
	double ulp = ldexp(1, up + unit - 127), ties = 0;
	uint32_t bits;

	stats->nonzero++;
	stats->w2 += (double)base * (double)base;
	if (up >= 0 && j > 0 && D != 0)
		ties = ldexp(up ? 2 : 1, -up - j);
	stats->ties += ties;
	stats->ties2 += ties * ldexp(ulp * ulp, -2 * up);
	if (up > 0) {
		stats->d2 += 1 - ldexp(1, -up);
		stats->e2 += ulp * ulp / 12 * (1 + ldexp(2, -2 * up));
		return;
	}
	stats->d2 += ties / 2;
	stats->e2 += ties / 2 * ulp * ulp;
	if (ties > 0.1)
		return;
	memcpy(&bits, &base, sizeof(bits));
	stats->changed++;
	stats->unchanged += !(bits >> (23 - mantissa) & 1);
}

void lora__tile_expect(const struct lora_block *block, struct lora_tile tile, struct lora_way way,
		       const struct lora_kern *kern, struct lora_scratch *scratch,
		       struct lora_stats *stats)
{
	const struct lora_job *job = block->job;
	size_t merged = lora_dtype_bits(way.merged_type) / 8,
	       base = lora_dtype_bits(way.base_type) / 8;

	for (uint64_t i = 0; i < tile.rows; i++) {
		uint64_t at = (tile.row + i) * job->width + tile.col - block->first;

		lora__widen(kern, scratch->value, way.merged + at * merged, way.merged_type,
			    (size_t)tile.cols);
		lora__widen(kern, scratch->base, way.base + at * base, way.base_type,
			    (size_t)tile.cols);
		for (uint64_t j = 0; j < tile.cols; j++)
			expect_one(stats, scratch->value[j], scratch->base[j],
				   scratch->update[i * tile.cols + j], way.base_type);
	}
}
