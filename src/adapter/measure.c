/* SPDX-License-Identifier: Apache-2.0 */
/* adapter/measure.c - how large the updates are, without ever forming one.
 *
 *	module			norm			singular values
 *	low-rank, DoRA		|s*B*A|			of s*B*A, through QR of the factors
 *	experts			of all together		of all together (the update is a direct sum)
 *	dense			|s*D|			none
 *	replace, rows, add	|D|			none
 *
 * 1. Modules are measured in parallel, each by one thread from beginning to end: the numbers do
 *    not depend on how many there are.
 * 2. A value that is not finite is a problem's line, not a failure: has_norm stays false for that
 *    module. */
#include "adapter/adapter.h"

#include "base/checked.h"
#include "base/error.h"
#include "base/pool.h"
#include "base/watch.h"
#include "kern/linalg.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define BLOCK ((uint64_t)1 << 18) /* elements of a dense tensor that are in memory at once */

struct measured {
	double *values; /* malloc'd */
	size_t count;
	double squares;
	char *problem; /* malloc'd */
};

struct job {
	const struct lora_adapter *adapter;
	struct measured *measured; /* by module */
	struct lora_watch watch;
};

static void note_problem(const struct job *job, const struct lora_view *view, uint64_t element,
			 struct measured *out)
{
	char line[LORA_ERROR_SIZE];

	if (out->problem)
		return;
	lora__view_complain(job->adapter, view, element, line);
	out->problem = strdup(line);
}

static enum lora_status read_factor(const struct job *job, const struct lora_view *view,
				    float **out, struct measured *measured, struct lora_error *err)
{
	enum lora_status status;
	uint64_t elements, bad;

	if (lora__mul_overflows(view->rows, view->cols, &elements) ||
	    elements > SIZE_MAX / sizeof(float) / 2)
		return lora__fail_memory(err);
	*out = malloc((size_t)elements * sizeof(float) + 1);
	if (!*out)
		return lora__fail_memory(err);
	status = lora__view_read_any(job->adapter, view, 0, view->rows, *out, &bad, err);
	if (!status && bad != UINT64_MAX)
		note_problem(job, view, bad, measured);
	return status;
}

static enum lora_status measure_factors(const struct job *job, const struct lora_edit *edit,
					struct measured *out, struct lora_error *err)
{
	float *left = NULL, *right = NULL;
	struct lora_product product;
	struct lora_spectrum spectrum = {0};
	enum lora_status status;
	double *grown;

	grown = realloc(out->values, (out->count + edit->rank) * sizeof(*grown));
	if (!grown)
		return lora__fail_memory(err);
	out->values = grown;
	status = read_factor(job, &edit->left, &left, out, err);
	if (!status)
		status = read_factor(job, &edit->right, &right, out, err);
	product = (struct lora_product){.B = left,
					.A = right,
					.m = (size_t)edit->rows,
					.n = (size_t)edit->cols,
					.r = edit->rank,
					.s = (double)(float)edit->scale};
	spectrum.values = out->values + out->count;
	if (!status && !out->problem)
		status = lora__lowrank_spectrum(&product, &spectrum, err);
	out->count += spectrum.count;
	out->squares += spectrum.norm * spectrum.norm;
	free(left);
	free(right);
	return status;
}

static enum lora_status measure_dense(const struct job *job, const struct lora_edit *edit,
				      struct measured *out, struct lora_error *err)
{
	const struct lora_view *view = &edit->dense;
	enum lora_dtype type = job->adapter->index.tensors[view->tensor].dtype;
	uint64_t step = BLOCK / view->cols ? BLOCK / view->cols : 1;
	enum lora_status status = LORA_OK;
	float *block;

	if (type != LORA_DTYPE_F32 && type != LORA_DTYPE_F16 && type != LORA_DTYPE_BF16) {
		out->squares = NAN; /* whole numbers and the like: nothing to measure */
		return LORA_OK;
	}
	if (view->rows < step)
		step = view->rows;
	block = malloc((size_t)(step * view->cols) * sizeof(float) + 1);
	if (!block)
		return lora__fail_memory(err);
	for (uint64_t row = 0; row < view->rows && !status; row += step) {
		uint64_t rows = view->rows - row < step ? view->rows - row : step, bad;

		status = lora__view_read_any(job->adapter, view, row, rows, block, &bad, err);
		if (!status && bad != UINT64_MAX)
			note_problem(job, view, bad, out);
		for (uint64_t i = 0; i < rows * view->cols && !status; i++) {
			double x = (double)block[i] * (double)(float)edit->scale;

			out->squares += x * x;
		}
	}
	free(block);
	return status;
}

static int descending(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x < y) - (x > y);
}

static enum lora_status measure_one(void *user, size_t item, unsigned worker,
				    struct lora_error *err)
{
	struct job *job = user;
	const struct lora_span *span = &job->adapter->spans[item];
	struct measured *out = &job->measured[item];
	enum lora_status status = LORA_OK;

	(void)worker;
	for (size_t i = span->first; i < span->first + span->count && !status; i++) {
		const struct lora_edit *edit = &job->adapter->decode.edits[i];

		status = edit->rank ? measure_factors(job, edit, out, err)
				    : measure_dense(job, edit, out, err);
	}
	if (out->count)
		qsort(out->values, out->count, sizeof(*out->values), descending);
	return status ? status : lora__watch_add(&job->watch, 1, err);
}

static enum lora_status keep(struct lora_adapter *adapter, size_t i,
			     const struct measured *measured, struct lora_error *err)
{
	struct lora_module *module = &adapter->modules[i];
	double *copy;

	if (measured->problem)
		return lora__adapter_problem(adapter, err, "%s", measured->problem);
	if (!isfinite(measured->squares))
		return LORA_OK;
	copy = lora__arena_array(&adapter->arena, measured->count + 1, sizeof(*copy));
	if (!copy)
		return lora__fail_memory(err);
	if (measured->count)
		memcpy(copy, measured->values, measured->count * sizeof(*copy));
	module->has_norm = true;
	module->norm = sqrt(measured->squares);
	module->singular_values = copy;
	module->singular_count = (uint32_t)measured->count;
	module->effective_rank = lora__effective_rank(copy, measured->count);
	return LORA_OK;
}

enum lora_status lora_adapter_measure(struct lora_adapter *adapter, unsigned threads,
				      const struct lora_observer *observer, struct lora_error *err)
{
	struct job job = {.adapter = adapter};
	enum lora_status status;

	if (adapter->measured)
		return LORA_OK;
	job.measured = calloc(adapter->module_count + 1, sizeof(*job.measured));
	if (!job.measured)
		return lora__fail_memory(err);
	lora__watch_init(&job.watch, observer, "measure", adapter->module_count);
	status = lora__parallel(threads, adapter->module_count, measure_one, &job, err);
	lora__watch_fini(&job.watch);
	if (!status)
		status = lora__adapter_unchanged(adapter, err);
	for (size_t i = 0; i < adapter->module_count && !status; i++)
		status = keep(adapter, i, &job.measured[i], err);
	for (size_t i = 0; i < adapter->module_count; i++) {
		free(job.measured[i].values);
		free(job.measured[i].problem);
	}
	free(job.measured);
	adapter->measured = status == LORA_OK;
	return lora__context(err, status, "adapter '%s'", lora__escape(adapter->path));
}
