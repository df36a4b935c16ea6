/* SPDX-License-Identifier: Apache-2.0 */
/* adapter/diff_rank.c - in how many directions a tensor was moved, beyond its rounding.
 *
 * The difference D = Y - X of a merge is the update, of rank r, plus what rounding Y to its type
 * did to every element: a matrix of full rank and small norm. So the question is how many singular
 * values of D are larger than those that rounding alone has. Rounding to nearest moves an element
 * by at most half an ulp, in effect evenly spread: variance v = ulp^2/12. The norm of a matrix of
 * independent errors is at most about max_i sqrt(sum_j v_ij) + max_j sqrt(sum_i v_ij) (Bandeira and
 * van Handel 2016, theorem 1.1, without its third term, which is small for matrices that are not);
 * twice that is the threshold. Where the matrix is tiny the Frobenius norm of half an ulp
 * everywhere is smaller: it is a bound that always holds.
 *
 * 1. Rows and columns without a changed element are left out of v: a single changed element must
 *    not drown in the rounding of a matrix that is otherwise the same bits.
 * 2. The matrix is read in slabs of whole lines: rows; but columns where it is far wider than tall,
 *    so that the vectors that are kept are never much longer than the shorter side.
 * 3. The singular values come from kern/subspace.h, whose subspace grows until it holds more
 *    than stand above the threshold, or is as large as is worth while. */
#include "adapter/diff.h"

#include "base/error.h"
#include "kern/subspace.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define SLAB	     ((uint64_t)1 << 18) /* elements of D in memory at once */
#define WIDTH	     4u			 /* bytes of an element, at most */
#define WHOLE	     1024u		 /* shorter sides up to this are looked at completely */
#define FAR_WIDER    4u			 /* times as wide as tall */
#define WIDEST	     512u		 /* of longer ones so many directions are counted */
#define FIRST	     48u
#define SPARE	     8u	  /* directions beyond those counted, without which more may be there */
#define GRAM_FLOOR   1e-7 /* singular values out of D'D: noise below 1e-8 of the largest */
#define NORM_SURPLUS 2.0

struct slabs {
	const struct lora_model *model_x, *model_y;
	const struct lora_tensor *x, *y;
	uint64_t rows, cols; /* of the tensor */
	bool wide;	     /* lines are columns */
	uint64_t lines, length;
	uint64_t step; /* lines of a slab */
	double *D;     /* [step, length]: of the slab at hand */
	double *ulp;   /* of Y */
	uint8_t *bytes;
};

static enum lora_status read_run(const struct lora_model *model, const struct lora_tensor *t,
				 uint64_t first, uint64_t count, uint8_t *out,
				 struct lora_error *err)
{
	uint64_t width = lora_dtype_bits(t->dtype) / 8;

	return lora_model_read(model, t, first * width, out, (size_t)(count * width), err);
}

/* Elements [first, first + count) of the tensors to D[at], D[at + by], ... */
static enum lora_status take(struct slabs *s, uint64_t first, uint64_t count, uint64_t at,
			     uint64_t by, struct lora_error *err)
{
	uint8_t *x = s->bytes, *y = s->bytes + SLAB * WIDTH;
	enum lora_status status = LORA_OK;

	for (uint64_t done = 0; done < count && !status; done += SLAB) {
		uint64_t n = count - done < SLAB ? count - done : SLAB;

		status = read_run(s->model_x, s->x, first + done, n, x, err);
		if (!status)
			status = read_run(s->model_y, s->y, first + done, n, y, err);
		for (uint64_t i = 0; i < n && !status; i++) {
			double a = lora__value_at(x, s->x->dtype, (size_t)i),
			       b = lora__value_at(y, s->y->dtype, (size_t)i);

			s->D[at + (done + i) * by] = b - a;
			s->ulp[at + (done + i) * by] = lora__value_ulp(b, s->y->dtype);
		}
	}
	return status;
}

/* Lines [line, line + count). */
static enum lora_status read_slab(struct slabs *s, uint64_t line, uint64_t count,
				  struct lora_error *err)
{
	enum lora_status status = LORA_OK;

	if (!s->wide)
		return take(s, line * s->cols, count * s->cols, 0, 1, err);
	for (uint64_t i = 0; i < s->rows && !status; i++)
		status = take(s, i * s->cols + line, count, i, s->rows, err);
	return status;
}

/* Has each line, and each place of a line, a changed element? */
struct activity {
	bool *line, *place;
	double *line_v, *place_v; /* sums of v */
};

static enum lora_status
each_slab(struct slabs *s, void (*look)(struct slabs *s, uint64_t line, uint64_t count, void *user),
	  void *user, struct lora_error *err)
{
	enum lora_status status = LORA_OK;

	for (uint64_t line = 0; line < s->lines && !status; line += s->step) {
		uint64_t count = s->lines - line < s->step ? s->lines - line : s->step;

		status = read_slab(s, line, count, err);
		if (!status)
			look(s, line, count, user);
	}
	return status;
}

static void find_active(struct slabs *s, uint64_t line, uint64_t count, void *user)
{
	struct activity *a = user;

	for (uint64_t i = 0; i < count; i++)
		for (uint64_t j = 0; j < s->length; j++)
			if (s->D[i * s->length + j] != 0)
				a->line[line + i] = a->place[j] = true;
}

static void sum_variances(struct slabs *s, uint64_t line, uint64_t count, void *user)
{
	struct activity *a = user;

	for (uint64_t i = 0; i < count; i++)
		for (uint64_t j = 0; j < s->length && a->line[line + i]; j++) {
			double ulp = a->place[j] ? s->ulp[i * s->length + j] : 0;

			a->line_v[line + i] += ulp * ulp / 12;
			a->place_v[j] += ulp * ulp / 12;
		}
}

static double largest(const double *values, uint64_t count)
{
	double most = 0;

	for (uint64_t i = 0; i < count; i++)
		most = values[i] > most ? values[i] : most;
	return most;
}

/* What rounding alone may be. */
static enum lora_status find_threshold(struct slabs *s, double *threshold, struct lora_error *err)
{
	struct activity a = {calloc((size_t)s->lines + 1, sizeof(bool)),
			     calloc((size_t)s->length + 1, sizeof(bool)),
			     calloc((size_t)s->lines + 1, sizeof(double)),
			     calloc((size_t)s->length + 1, sizeof(double))};
	enum lora_status status =
	    a.line && a.place && a.line_v && a.place_v ? LORA_OK : lora__fail_memory(err);
	double total = 0;

	if (!status)
		status = each_slab(s, find_active, &a, err);
	if (!status)
		status = each_slab(s, sum_variances, &a, err);
	for (uint64_t j = 0; j < s->length && !status; j++)
		total += a.place_v[j];
	if (!status)
		*threshold = fmin(NORM_SURPLUS * (sqrt(largest(a.line_v, s->lines)) +
						  sqrt(largest(a.place_v, s->length))),
				  sqrt(3 * total));
	free(a.line);
	free(a.place);
	free(a.line_v);
	free(a.place_v);
	return status;
}

struct round {
	struct lora_range *range;
	double *room;
};

static void add_lines(struct slabs *s, uint64_t line, uint64_t count, void *user)
{
	struct round *round = user;

	(void)line;
	lora__range_add(round->range, s->D, (size_t)count, round->room);
}

/* The l largest singular values of D, descending. */
static enum lora_status values_of(struct slabs *s, size_t l, double *values, struct lora_error *err)
{
	struct round round = {NULL, malloc((size_t)s->step * l * sizeof(double))};
	int rounds = l == s->length ? 1 : 2;
	enum lora_status status = round.room
				      ? lora__range_new(&round.range, (size_t)s->length, l, err)
				      : lora__fail_memory(err);

	for (int i = 0; i < rounds && !status; i++) {
		status = each_slab(s, add_lines, &round, err);
		if (!status)
			status = lora__range_turn(round.range, values, err);
	}
	lora__range_free(round.range);
	free(round.room);
	return status;
}

static enum lora_status count_values(struct slabs *s, struct lora_tensor_difference *out,
				     struct lora_error *err)
{
	size_t shorter = (size_t)(s->length < s->lines ? s->length : s->lines),
	       most = shorter <= WHOLE ? shorter : WIDEST, l = most < FIRST ? most : FIRST;
	double noise = out->threshold;
	double *values = calloc(most + 1, sizeof(*values));
	enum lora_status status = values ? LORA_OK : lora__fail_memory(err);

	while (!status) {
		status = values_of(s, l, values, err);
		if (status)
			break;
		out->threshold = fmax(noise, GRAM_FLOOR * values[0]);
		for (out->rank = 0; out->rank < l && values[out->rank] > out->threshold;)
			out->rank++;
		out->rank_is_least = out->rank == l && l < shorter;
		if (l == most || out->rank + SPARE <= l)
			break;
		l = 4 * l < most ? 4 * l : most;
	}
	out->has_rank = !status;
	free(values);
	return status;
}

enum lora_status lora__diff_rank(const struct lora_model *model_x, const struct lora_tensor *x,
				 const struct lora_model *model_y, const struct lora_tensor *y,
				 struct lora_tensor_difference *out, struct lora_error *err)
{
	struct slabs s = {.model_x = model_x, .model_y = model_y, .x = x, .y = y};
	enum lora_status status = LORA_OK;

	if (out->changed == 0 || x->elements == 0) {
		out->has_rank = true;
		return LORA_OK;
	}
	s.rows = x->ndim > 1 ? x->shape[0] : 1;
	s.cols = x->elements / s.rows;
	s.wide = s.rows < s.cols / FAR_WIDER;
	s.lines = s.wide ? s.cols : s.rows;
	s.length = s.wide ? s.rows : s.cols;
	s.step = SLAB / s.length ? SLAB / s.length : 1;
	s.step = s.step < s.lines ? s.step : s.lines;
	s.D = malloc((size_t)(s.step * s.length) * sizeof(double));
	s.ulp = malloc((size_t)(s.step * s.length) * sizeof(double));
	s.bytes = malloc((size_t)(2 * SLAB * WIDTH));
	if (!s.D || !s.ulp || !s.bytes)
		status = lora__fail_memory(err);
	if (!status)
		status = find_threshold(&s, &out->threshold, err);
	if (!status)
		status = count_values(&s, out, err);
	free(s.D);
	free(s.ulp);
	free(s.bytes);
	return lora__context(err, status, "tensor '%s'", lora__escape(x->name));
}
