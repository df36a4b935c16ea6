/* SPDX-License-Identifier: Apache-2.0 */
/* verify/probe.c - eight inputs through one module, row by row.
 *
 * 1. y is computed in f64 from W and the factors alone: D is never formed, and no kernel is used.
 * 2. The bound on |W'x - y|_i. W' = rounded(t), t = f32(W + D): with u the unit roundoff of W's
 *    type, |W' - t| <= u|t| <= u/(1-u) |W'|, or half its smallest number; t and D lose in f32
 *
 *	2^-24 (2|W'| + n s|L||R|)	n = r + 3 + the number of products (Higham 2002, 3.1)
 *
 *    and a foreign merge may have rounded the update to the type on its way: 3u s|L||R| (product,
 *    scaled product, update: 1.5 ulp). Times |x|, with |L|(|R||x|) for |L||R||x|; what f64 itself
 *    loses is added.
 * 3. A bound on single rows grows with the width n, rounding errors with its root: in bf16 an
 *    update that is 1 % too strong passes easily. So its strength is measured too, over all rows
 *    and inputs, against P, what the contract makes of W + D: then rounding is on both sides.
 */
#include "verify/probe.h"

#include "adapter/diff.h"
#include "base/error.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

struct lora_probe_part {
	const struct lora_part *part;
	double *right;	  /* [inputs, rank] R x */
	double *absolute; /* [inputs, rank] |R||x| */
};

/* ---- inputs */

/* splitmix64 (Steele, Lea and Flood 2014). */
static uint64_t next(uint64_t *state)
{
	uint64_t z = *state += 0x9E3779B97F4A7C15u;

	z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
	z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
	return z ^ (z >> 31);
}

/* Box and Muller 1958. */
static double normal(uint64_t *state)
{
	double a = ((double)(next(state) >> 11) + 1) * 0x1p-53,
	       b = (double)(next(state) >> 11) * 0x1p-53;

	return sqrt(-2 * log(a)) * cos(6.283185307179586 * b);
}

static uint64_t seed_of(uint64_t seed, const char *name)
{
	uint64_t state = seed;

	for (; *name; name++)
		state = next(&state) ^ (uint8_t)*name;
	return state;
}

static bool is_product(const struct lora_part *part)
{
	return part->edit->kind != LORA_EDIT_ADD_DENSE;
}

/* x += R'v for a normal v: a direction in which the update is strong. */
static void add_direction(const struct lora_part *part, double *x, uint64_t *state)
{
	const struct lora_edit *edit = part->edit;

	for (uint64_t k = 0; k < edit->right.rows; k++) {
		double v = normal(state);

		for (uint64_t j = 0; j < edit->cols; j++)
			x[edit->col0 + j] += v * (double)part->right[k * edit->cols + j];
	}
}

static double norm(const double *x, size_t n)
{
	double sum = 0;

	for (size_t j = 0; j < n; j++)
		sum += x[j] * x[j];
	return sqrt(sum);
}

/* Every second input lies in the row space of the factors; all have the norm sqrt(width). */
static void make_inputs(struct lora_probe *probe, uint64_t seed)
{
	size_t count, width = (size_t)probe->job->width;
	const struct lora_part *parts = lora__job_parts(probe->job, &count);
	uint64_t state = seed_of(seed, probe->job->name);

	for (size_t c = 0; c < LORA_PROBE_INPUTS; c++) {
		double *x = probe->x + c * width, length = 0;

		for (size_t p = 0; c % 2 && p < count; p++)
			if (is_product(&parts[p]))
				add_direction(&parts[p], x, &state);
		length = norm(x, width);
		for (size_t j = 0; j < width && !(length > 0); j++)
			x[j] = normal(&state);
		length = norm(x, width);
		for (size_t j = 0; j < width; j++)
			x[j] *= sqrt((double)width) / length;
	}
}

static enum lora_status take_part(struct lora_probe *probe, const struct lora_part *part,
				  struct lora_error *err)
{
	struct lora_probe_part *own = &probe->parts[probe->part_count++];
	const struct lora_edit *edit = part->edit;
	size_t rank = is_product(part) ? (size_t)edit->right.rows : 0,
	       width = (size_t)probe->job->width;

	own->part = part;
	own->right = calloc(LORA_PROBE_INPUTS * rank + 1, sizeof(double));
	own->absolute = calloc(LORA_PROBE_INPUTS * rank + 1, sizeof(double));
	if (!own->right || !own->absolute)
		return lora__fail_memory(err);
	for (size_t c = 0; c < LORA_PROBE_INPUTS; c++)
		for (size_t k = 0; k < rank; k++) {
			const double *x = probe->into + c * width + edit->col0;
			const float *r = part->right + k * edit->cols;

			for (size_t j = 0; j < edit->cols; j++) {
				own->right[c * rank + k] += (double)r[j] * x[j];
				own->absolute[c * rank + k] += fabs((double)r[j] * x[j]);
			}
		}
	return LORA_OK;
}

/* The longest row of a factor or a dense update. */
static size_t longest(const struct lora_part *parts, size_t count)
{
	uint64_t most = 0;

	for (size_t p = 0; p < count; p++) {
		const struct lora_edit *edit = parts[p].edit;
		uint64_t n = is_product(&parts[p]) ? edit->left.cols : edit->dense.cols;

		most = n > most ? n : most;
	}
	return (size_t)most;
}

enum lora_status lora__probe_init(struct lora_probe *probe, const struct lora_plan *plan,
				  const struct lora_job *job, uint64_t seed, bool foreign,
				  struct lora_error *err)
{
	size_t count, width = (size_t)job->width, inputs = LORA_PROBE_INPUTS * width;
	const struct lora_part *parts = lora__job_parts(job, &count);
	enum lora_status status = LORA_OK;

	*probe = (struct lora_probe){.plan = plan, .job = job, .foreign = foreign};
	probe->x = calloc(inputs + 1, sizeof(double));
	probe->into = calloc(inputs + 1, sizeof(double));
	probe->there = calloc(width + 1, sizeof(double));
	probe->wanted = calloc(width + 1, sizeof(double));
	probe->before = calloc(width + 1, sizeof(double));
	probe->line = calloc(longest(parts, count) + 1, sizeof(float));
	probe->parts = calloc(count + 1, sizeof(*probe->parts));
	if (!probe->x || !probe->into || !probe->there || !probe->wanted || !probe->before ||
	    !probe->line || !probe->parts)
		return lora__fail_memory(err);
	make_inputs(probe, seed);
	for (size_t i = 0; i < inputs; i++)
		probe->into[i] =
		    probe->x[i] *
		    (job->gain && job->gain_by_column ? (double)job->gain[i % width] : 1);
	for (size_t p = 0; p < count && !status; p++) {
		probe->terms = fmax(probe->terms, (double)(parts[p].edit->rank + 3 + count));
		status = take_part(probe, &parts[p], err);
	}
	return status;
}

void lora__probe_fini(struct lora_probe *probe)
{
	for (size_t p = 0; probe->parts && p < probe->part_count; p++) {
		free(probe->parts[p].right);
		free(probe->parts[p].absolute);
	}
	free(probe->parts);
	free(probe->x);
	free(probe->into);
	free(probe->there);
	free(probe->wanted);
	free(probe->before);
	free(probe->line);
}

/* ---- one row */

/* sum of a*x and of |a*x|. */
struct sums {
	double of, absolute;
};

static struct sums dot(const double *a, const double *x, size_t n)
{
	struct sums s = {0, 0};

	for (size_t j = 0; j < n; j++) {
		double product = a[j] * x[j];

		s.of += product;
		s.absolute += fabs(product);
	}
	return s;
}

/* update[c] += s*L_i(R x), or s*D_i x */
static enum lora_status add_update(struct lora_probe *probe, const struct lora_probe_part *own,
				   uint64_t row, struct sums *update, struct lora_error *err)
{
	const struct lora_part *part = own->part;
	const struct lora_edit *edit = part->edit;
	const struct lora_adapter *adapter = probe->plan->inputs[part->adapter].adapter;
	const struct lora_view *view = is_product(part) ? &edit->left : &edit->dense;
	double s = (double)part->s;
	enum lora_status status;

	if (row < edit->row0 || row >= edit->row0 + edit->rows)
		return LORA_OK;
	status = lora__view_read(adapter, view, row - edit->row0, 1, probe->line, err);
	for (size_t c = 0; c < LORA_PROBE_INPUTS && !status; c++) {
		const double *x = is_product(part)
				      ? own->right + c * view->cols
				      : probe->into + c * probe->job->width + edit->col0,
			     *a = is_product(part) ? own->absolute + c * view->cols : x;

		for (uint64_t k = 0; k < view->cols; k++) {
			double l = s * (double)probe->line[k];

			update[c].of += l * x[k];
			update[c].absolute += fabs(l * a[k]);
		}
	}
	return status;
}

static void keep_worst(struct lora_probe *probe, double difference, double bound, uint64_t row)
{
	/* difference / bound > worst / bound, without dividing by 0; a NaN is the worst */
	if (probe->any && !(difference * probe->bound > probe->worst * bound) && !isnan(difference))
		return;
	if (probe->any && isnan(probe->worst))
		return;
	probe->any = true;
	probe->worst = difference;
	probe->bound = bound;
	probe->row = row;
}

static double roundoff(enum lora_dtype type)
{
	return type == LORA_DTYPE_F32 ? 0x1p-24 : type == LORA_DTYPE_F16 ? 0x1p-11 : 0x1p-8;
}

static double smallest(enum lora_dtype type)
{
	return type == LORA_DTYPE_F32 ? 0x1p-149 : type == LORA_DTYPE_F16 ? 0x1p-24 : 0x1p-133;
}

/* One input through one row [2] [3]; `differs`: the row is not the contract's. */
static double judge(struct lora_probe *probe, const struct lora_check_row *row, size_t c,
		    const struct sums *update, bool differs)
{
	size_t n = row->width;
	const struct lora_job *job = probe->job;
	const double *x = probe->x + c * n, *into = probe->into + c * n;
	double gain = job->gain && !job->gain_by_column ? (double)job->gain[row->number] : 1,
	       u = roundoff(job->out_type);
	struct sums merged = dot(probe->there, x, n), base = dot(probe->before, into, n);
	double y = gain * (base.of + update->of), lost = fabs(gain) * update->absolute,
	       bound = u / (1 - u) * merged.absolute +
		       smallest(job->out_type) / 2 * sqrt((double)n) * norm(x, n) +
		       0x1p-24 * (2 * merged.absolute + probe->terms * lost) +
		       (double)(n + 8) * 0x1p-52 *
			   (merged.absolute + fabs(gain) * base.absolute + lost),
	       b = y - (job->gain ? dot(probe->before, x, n).of : base.of), a = 0;

	if (probe->foreign) /* and DoRA's norm, summed in f32 */
		bound += 3 * u * lost + (job->dora ? (double)n * 0x1p-24 * merged.absolute : 0);
	keep_worst(probe, fabs(merged.of - y), bound, row->number);
	if (differs)
		for (size_t j = 0; j < n; j++)
			a += (probe->there[j] - probe->wanted[j]) * x[j];
	probe->size2 += b * b;
	return a * b;
}

enum lora_status lora__probe_row(struct lora_probe *probe, const struct lora_check_row *row,
				 struct lora_error *err)
{
	struct sums update[LORA_PROBE_INPUTS] = {{0, 0}};
	bool differs = memcmp(row->expected, row->written, row->bytes) != 0;
	enum lora_dtype type = probe->job->out_type;
	enum lora_status status = LORA_OK;
	double along = 0;

	for (size_t j = 0; j < row->width; j++) {
		probe->there[j] = lora__value_at(row->written, type, j);
		probe->wanted[j] = lora__value_at(row->expected, type, j);
		probe->before[j] = (double)row->before[j];
	}
	for (size_t p = 0; p < probe->part_count && !status; p++)
		status = add_update(probe, &probe->parts[p], row->number, update, err);
	for (size_t c = 0; c < LORA_PROBE_INPUTS && !status; c++)
		along += judge(probe, row, c, &update[c], differs);
	probe->along += along;
	probe->spread += along * along;
	return status;
}

void lora__probe_strength(const struct lora_probe *probe, double *k, double *error)
{
	*k = probe->size2 > 0 ? probe->along / probe->size2 : 0;
	*error = probe->size2 > 0 ? sqrt(probe->spread) / probe->size2 : 0;
}
