/* SPDX-License-Identifier: Apache-2.0 */
/* adapter/diff_modules.c - two adapters as updates, module by module.
 *
 *	both			compared
 *	low-rank		s*B*A, through the factors (kern/subspace.h)
 *	DoRA			the same, and the magnitudes by value
 *	dense, replace, add	by value, row block by row block
 *	rows			by value, if both replace the same rows
 *	of two kinds		the two norms only; never equivalent
 *
 * 1. Modules are compared in parallel, each by one thread from beginning to end: the numbers do
 *    not depend on how many there are.
 * 2. The experts of one module are one module: squares and products of all of them are summed,
 *    for their updates do not overlap. */
#include "adapter/diff.h"

#include "base/checked.h"
#include "base/error.h"
#include "base/pool.h"
#include "base/watch.h"
#include "kern/subspace.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define BLOCK ((uint64_t)1 << 18) /* elements of a dense tensor that are in memory at once */
#define U_F32 0x1p-24

/* One adapter's edit of a pair. */
struct side {
	const struct lora_adapter *adapter;
	const struct lora_edit *edit;
	float *left, *right; /* factors, malloc'd */
};

/* Sums over the pairs of a module. */
struct sums {
	double x2, y2, difference2, dot, allowance2, magnitude2;
	bool comparable, same, equivalent;
	double *rows, *columns; /* angles, malloc'd */
	size_t count;
};

struct job {
	const struct lora_adapter *x, *y;
	const struct lora_places *in_y;
	const size_t *spans; /* by item: which module of x */
	struct sums *sums;   /* by item */
	struct lora_watch watch;
};

static bool is_product(const struct lora_edit *edit)
{
	return edit->kind == LORA_EDIT_ADD_LOWRANK || edit->kind == LORA_EDIT_DORA;
}

static double scale_of(const struct lora_edit *edit)
{
	return (double)(float)edit->scale;
}

static enum lora_dtype type_of(const struct side *side, const struct lora_view *view)
{
	return side->adapter->index.tensors[view->tensor].dtype;
}

static enum lora_status read_view(const struct side *side, const struct lora_view *view,
				  uint64_t row, uint64_t rows, float **out, struct lora_error *err)
{
	uint64_t elements;

	if (lora__mul_overflows(rows, view->cols, &elements) ||
	    elements > SIZE_MAX / sizeof(float) / 2)
		return lora__fail_memory(err);
	*out = malloc((size_t)elements * sizeof(float) + 1);
	if (!*out)
		return lora__fail_memory(err);
	return lora__context(err, lora__view_read(side->adapter, view, row, rows, *out, err),
			     "adapter '%s'", lora__escape(side->adapter->path));
}

static bool values_equal(const float *x, const float *y, uint64_t count)
{
	for (uint64_t i = 0; i < count; i++)
		if (x[i] != y[i])
			return false;
	return true;
}

/* ---- products */

static double roundoff(enum lora_dtype type)
{
	return type == LORA_DTYPE_F16 ? 0x1p-11 : type == LORA_DTYPE_BF16 ? 0x1p-8 : U_F32;
}

/* e(B, A) of loractl/diff.h. */
static double wobble(const struct side *side, const struct lora_extent *B,
		     const struct lora_extent *A)
{
	double product = U_F32 * sqrt((double)side->edit->left.cols),
	       uB = roundoff(type_of(side, &side->edit->left)) + product,
	       uA = roundoff(type_of(side, &side->edit->right)) + product;

	return fabs(scale_of(side->edit)) * (uB + uA + uB * uA) *
	       fmax(B->frobenius * A->spectral, B->spectral * A->frobenius);
}

static struct lora_product product_of(const struct side *side)
{
	const struct lora_edit *edit = side->edit;

	return (struct lora_product){.B = side->left,
				     .A = side->right,
				     .m = (size_t)edit->rows,
				     .n = (size_t)edit->cols,
				     .r = (size_t)edit->left.cols,
				     .s = scale_of(edit)};
}

static enum lora_status read_factors(struct side *side, struct lora_error *err)
{
	const struct lora_edit *edit = side->edit;
	enum lora_status status =
	    read_view(side, &edit->left, 0, edit->left.rows, &side->left, err);

	return status ? status
		      : read_view(side, &edit->right, 0, edit->right.rows, &side->right, err);
}

static bool factors_equal(const struct side *x, const struct side *y)
{
	const struct lora_edit *a = x->edit, *b = y->edit;

	return a->left.cols == b->left.cols &&
	       (float)a->scale == (float)b->scale && /* as applied */
	       values_equal(x->left, y->left, a->left.rows * a->left.cols) &&
	       values_equal(x->right, y->right, a->right.rows * a->right.cols);
}

static void add_comparison(struct sums *sums, const struct side *x, const struct side *y,
			   const struct lora_comparison *c)
{
	bool same = factors_equal(x, y);
	double allowance =
	    wobble(x, &c->Bx, &c->Ax) + wobble(y, &c->By, &c->Ay) + U_F32 * (c->norm_x + c->norm_y);

	sums->x2 += c->norm_x * c->norm_x;
	sums->y2 += c->norm_y * c->norm_y;
	sums->difference2 += same ? 0 : c->norm_difference * c->norm_difference;
	sums->dot += c->dot;
	sums->allowance2 += allowance * allowance;
	sums->count += c->angles;
	sums->same = sums->same && same;
	sums->equivalent = sums->equivalent && (same || c->norm_difference <= allowance);
}

static enum lora_status compare_products(struct sums *sums, struct side *x, struct side *y,
					 struct lora_error *err)
{
	uint64_t p = x->edit->left.cols, q = y->edit->left.cols;
	size_t room = sums->count + (size_t)(p < q ? p : q);
	double *rows = realloc(sums->rows, (room + 1) * sizeof(*rows)), *columns;
	struct lora_comparison c = {0};
	struct lora_product a, b;
	enum lora_status status;

	if (!rows)
		return lora__fail_memory(err);
	sums->rows = rows;
	columns = realloc(sums->columns, (room + 1) * sizeof(*columns));
	if (!columns)
		return lora__fail_memory(err);
	sums->columns = columns;
	c.angles_rows = rows + sums->count;
	c.angles_columns = columns + sums->count;
	status = read_factors(x, err);
	if (!status)
		status = read_factors(y, err);
	a = product_of(x);
	b = product_of(y);
	if (!status)
		status = lora__products_compare(&a, &b, &c, err);
	if (!status)
		add_comparison(sums, x, y, &c);
	return lora__context(err, status, "module '%s'", lora__escape(x->edit->module));
}

static enum lora_status compare_magnitudes(struct sums *sums, const struct side *x,
					   const struct side *y, struct lora_error *err)
{
	const struct lora_view *a = &x->edit->magnitude, *b = &y->edit->magnitude;
	float *mx = NULL, *my = NULL;
	bool equal = a->cols == b->cols && x->edit->norm_by_column == y->edit->norm_by_column;
	enum lora_status status = read_view(x, a, 0, a->rows, &mx, err);

	if (!status)
		status = read_view(y, b, 0, b->rows, &my, err);
	for (uint64_t i = 0; i < a->cols && a->cols == b->cols && !status; i++) {
		double d = (double)mx[i] - (double)my[i];

		equal = equal && d == 0;
		sums->magnitude2 += d * d;
	}
	sums->same = sums->same && equal;
	sums->equivalent = sums->equivalent && equal;
	free(mx);
	free(my);
	return status;
}

/* ---- values */

/* Whole numbers and the like: equal or not, and no norms. */
static enum lora_status compare_raw(struct sums *sums, const struct side *x, const struct side *y,
				    struct lora_error *err)
{
	bool same = false;
	enum lora_status status = lora__diff_same_bytes(
	    x->adapter, &x->adapter->index.tensors[x->edit->dense.tensor], y->adapter,
	    &y->adapter->index.tensors[y->edit->dense.tensor], &same, err);

	sums->x2 = sums->y2 = NAN;
	sums->comparable = false;
	sums->same = sums->same && same;
	sums->equivalent = sums->equivalent && same;
	return status;
}

static enum lora_status add_rows(struct sums *sums, const struct side *x, const struct side *y,
				 uint64_t row, uint64_t rows, struct lora_error *err)
{
	double sx = scale_of(x->edit), sy = scale_of(y->edit);
	float *a = NULL, *b = NULL;
	enum lora_status status = read_view(x, &x->edit->dense, row, rows, &a, err);

	if (!status)
		status = read_view(y, &y->edit->dense, row, rows, &b, err);
	for (uint64_t i = 0; i < rows * x->edit->dense.cols && !status; i++) {
		double u = sx * (double)a[i], v = sy * (double)b[i];

		sums->x2 += u * u;
		sums->y2 += v * v;
		sums->dot += u * v;
		sums->difference2 += (u - v) * (u - v);
		sums->same = sums->same && u == v;
		sums->equivalent = sums->equivalent && u == v;
	}
	free(a);
	free(b);
	return status;
}

static bool same_rows(const struct lora_edit *x, const struct lora_edit *y)
{
	return x->kind != LORA_EDIT_REPLACE_ROWS ||
	       memcmp(x->row_ids, y->row_ids, (size_t)x->dense.rows * sizeof(*x->row_ids)) == 0;
}

static uint64_t rows_at_once(const struct lora_view *view)
{
	return view->cols && BLOCK / view->cols ? BLOCK / view->cols : 1;
}

static enum lora_status compare_values(struct sums *sums, const struct side *x,
				       const struct side *y, struct lora_error *err)
{
	const struct lora_view *a = &x->edit->dense, *b = &y->edit->dense;
	uint64_t step = rows_at_once(a);
	enum lora_status status = LORA_OK;

	if (!lora__values_known(type_of(x, a)) || !lora__values_known(type_of(y, b)))
		return compare_raw(sums, x, y, err);
	for (uint64_t row = 0; row < a->rows && !status; row += step)
		status =
		    add_rows(sums, x, y, row, a->rows - row < step ? a->rows - row : step, err);
	return status;
}

/* ---- two kinds */

static enum lora_status square_of(struct side *side, double *square, struct lora_error *err)
{
	const struct lora_view *view = &side->edit->dense;
	struct sums alone = {0};
	enum lora_status status = LORA_OK;

	if (is_product(side->edit)) {
		struct lora_comparison c = {0};
		struct lora_product product, none;

		status = read_factors(side, err);
		none = product = product_of(side);
		none.r = 0;
		if (!status)
			status = lora__products_compare(&product, &none, &c, err);
		*square += c.norm_x * c.norm_x;
		return status;
	}
	if (!lora__values_known(type_of(side, view)))
		alone.x2 = NAN;
	else
		for (uint64_t row = 0, step = rows_at_once(view); row < view->rows && !status;
		     row += step)
			status = add_rows(&alone, side, side, row,
					  view->rows - row < step ? view->rows - row : step, err);
	*square += alone.x2;
	return status;
}

static enum lora_status compare_kinds(struct sums *sums, struct side *x, struct side *y,
				      struct lora_error *err)
{
	enum lora_status status = square_of(x, &sums->x2, err);

	sums->comparable = sums->same = sums->equivalent = false;
	return status ? status : square_of(y, &sums->y2, err);
}

/* ---- modules */

static enum lora_status compare_pair(struct sums *sums, struct side *x, struct side *y,
				     struct lora_error *err)
{
	enum lora_status status;

	if (x->edit->kind != y->edit->kind || !same_rows(x->edit, y->edit))
		return compare_kinds(sums, x, y, err);
	if (!is_product(x->edit))
		return compare_values(sums, x, y, err);
	status = compare_products(sums, x, y, err);
	if (!status && x->edit->kind == LORA_EDIT_DORA)
		status = compare_magnitudes(sums, x, y, err);
	return status;
}

static int ascending(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

static enum lora_status compare_module(void *user, size_t item, unsigned worker,
				       struct lora_error *err)
{
	struct job *job = user;
	const struct lora_span *span = &job->x->spans[job->spans[item]];
	struct sums *sums = &job->sums[item];
	enum lora_status status = LORA_OK;

	(void)worker;
	for (size_t i = span->first; i < span->first + span->count && !status; i++) {
		struct side x = {job->x, &job->x->decode.edits[i], NULL, NULL},
			    y = {job->y, lora__places_find(job->in_y, job->y, x.edit), NULL, NULL};

		if (y.edit)
			status = compare_pair(sums, &x, &y, err);
		free(x.left);
		free(x.right);
		free(y.left);
		free(y.right);
	}
	if (sums->count) {
		qsort(sums->rows, sums->count, sizeof(*sums->rows), ascending);
		qsort(sums->columns, sums->count, sizeof(*sums->columns), ascending);
	}
	return status ? status : lora__watch_add(&job->watch, 1, err);
}

static const double *keep(struct lora_diff *diff, const double *values, size_t count)
{
	double *copy = lora__arena_array(&diff->arena, count + 1, sizeof(*copy));

	if (copy && count)
		memcpy(copy, values, count * sizeof(*copy));
	return copy;
}

static enum lora_status describe(struct lora_diff *diff, const struct job *job, size_t item,
				 struct lora_error *err)
{
	const struct lora_span *span = &job->x->spans[job->spans[item]];
	const struct lora_edit *x = &job->x->decode.edits[span->first],
			       *y = lora__places_find(job->in_y, job->y, x);
	const struct sums *sums = &job->sums[item];
	struct lora_module_difference *out = &diff->modules[diff->module_count++];
	double norms = sqrt(sums->x2) * sqrt(sums->y2);

	out->name = lora__arena_copy(&diff->arena, x->module, strlen(x->module));
	out->angles_rows = keep(diff, sums->rows, sums->count);
	out->angles_columns = keep(diff, sums->columns, sums->count);
	if (!out->name || !out->angles_rows || !out->angles_columns || !y)
		return lora__fail_memory(err);
	out->type_x = lora__edit_kind_name(x->kind);
	out->type_y = lora__edit_kind_name(y->kind);
	out->same = sums->same;
	out->equivalent = sums->equivalent;
	out->norm_x = sqrt(sums->x2);
	out->norm_y = sqrt(sums->y2);
	out->norm_difference = sums->comparable ? sqrt(sums->difference2) : NAN;
	out->cosine = sums->comparable && norms > 0 ? fmax(-1, fmin(1, sums->dot / norms)) : NAN;
	out->allowance = sqrt(sums->allowance2);
	out->magnitude_difference = sqrt(sums->magnitude2);
	out->angle_count = sums->count;
	diff->equivalent = diff->equivalent && sums->equivalent;
	return LORA_OK;
}

/* Modules of x with a partner in y for their first edit; edits of either side without one end the
 * equivalence. */
static size_t find_modules(struct lora_diff *diff, const struct job *job, size_t *spans)
{
	size_t count = 0, paired = 0;

	for (size_t i = 0; i < job->x->module_count; i++) {
		const struct lora_span *span = &job->x->spans[i];

		for (size_t e = span->first; e < span->first + span->count; e++) {
			bool found =
			    lora__places_find(job->in_y, job->y, &job->x->decode.edits[e]) != NULL;

			paired += found;
			if (found && e == span->first)
				spans[count++] = i;
		}
	}
	if (paired != job->x->decode.edit_count || paired != job->y->decode.edit_count)
		diff->equivalent = false;
	return count;
}

enum lora_status lora__diff_modules(struct lora_diff *diff, const struct lora_adapter *x,
				    const struct lora_adapter *y, const struct lora_places *in_y,
				    unsigned threads, const struct lora_observer *observer,
				    struct lora_error *err)
{
	struct job job = {.x = x, .y = y, .in_y = in_y};
	size_t *spans = calloc(x->module_count + 1, sizeof(*spans)), count;
	enum lora_status status;

	if (!spans)
		return lora__fail_memory(err);
	count = find_modules(diff, &job, spans);
	job.spans = spans;
	job.sums = calloc(count + 1, sizeof(*job.sums));
	diff->modules = lora__arena_array(&diff->arena, count + 1, sizeof(*diff->modules));
	status = job.sums && diff->modules ? LORA_OK : lora__fail_memory(err);
	for (size_t i = 0; i < count && !status; i++)
		job.sums[i].comparable = job.sums[i].same = job.sums[i].equivalent = true;
	lora__watch_init(&job.watch, observer, "compare", count);
	if (!status)
		status = lora__parallel(threads, count, compare_module, &job, err);
	lora__watch_fini(&job.watch);
	for (size_t i = 0; i < count && !status; i++)
		status = describe(diff, &job, i, err);
	for (size_t i = 0; job.sums && i < count; i++) {
		free(job.sums[i].rows);
		free(job.sums[i].columns);
	}
	free(job.sums);
	free(spans);
	return status;
}
