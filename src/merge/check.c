/* SPDX-License-Identifier: Apache-2.0 */
/* merge/check.c - the second opinion: what was written against the contract, by the plain kernel.
 *
 * Nothing here is fast and nothing is shared with the pipeline but the loading of factors: no
 * tiles, no blocks, one row at a time through kern_generic.
 */
#include "merge/check.h"

#include "base/error.h"
#include "base/pool.h"
#include "base/watch.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#define COMPARE_STEP (1u << 20) /* bytes of an untouched tensor at a time */

struct check {
	struct lora_plan *plan;
	const struct lora_model *merged;
	const struct lora_item **items; /* all, in order */
	size_t count;
	struct lora_watch watch;
};

/* One row of a job: its values, and the bytes that they should have become. */
struct row {
	float *update, *value, *before;
	uint8_t *expected, *base, *written;
};

static enum lora_status add_part(const struct lora_plan *plan, const struct lora_part *part,
				 uint64_t row, float *line, float *update, struct lora_error *err)
{
	const struct lora_edit *edit = part->edit;
	const struct lora_adapter *adapter = plan->inputs[part->adapter].adapter;
	struct lora_lowrank_shape shape = {1, (size_t)edit->cols, (size_t)edit->left.cols, part->s,
					   false};
	enum lora_status status;

	if (row < edit->row0 || row >= edit->row0 + edit->rows)
		return LORA_OK;
	if (edit->kind == LORA_EDIT_ADD_DENSE) {
		status = lora__view_read(adapter, &edit->dense, row - edit->row0, 1, line, err);
		for (uint64_t j = 0; j < edit->cols && !status; j++) {
			float d = part->s * line[j];

			update[edit->col0 + j] = update[edit->col0 + j] + d;
		}
		return status;
	}
	status = lora__view_read(adapter, &edit->left, row - edit->row0, 1, line, err);
	if (!status)
		lora__kern_generic.lowrank(update + edit->col0, (size_t)edit->cols, line,
					   shape.rank, part->right, (size_t)edit->cols, &shape);
	return status;
}

static void widen(float *out, const void *in, enum lora_dtype type, size_t n)
{
	if (type == LORA_DTYPE_F32)
		memcpy(out, in, n * sizeof(float));
	else if (type == LORA_DTYPE_F16)
		lora__kern_generic.widen_f16(out, in, n);
	else
		lora__kern_generic.widen_bf16(out, in, n);
}

static void narrow(void *out, enum lora_dtype type, const float *in, size_t n)
{
	if (type == LORA_DTYPE_F32)
		memcpy(out, in, n * sizeof(float));
	else if (type == LORA_DTYPE_F16)
		lora__kern_generic.narrow_f16(out, in, n);
	else
		lora__kern_generic.narrow_bf16(out, in, n);
}

static enum lora_status base_row(const struct lora_plan *plan, const struct lora_job *job,
				 uint64_t i, struct row *row, struct lora_error *err)
{
	size_t bytes = (size_t)job->width * (lora_dtype_bits(job->in_type) / 8);
	enum lora_status status = LORA_OK;

	if (job->source != LORA_NO_TENSOR) {
		status = lora_model_read(plan->base, &plan->base->index.tensors[job->source],
					 i * bytes, row->base, bytes, err);
		if (!status)
			widen(row->value, row->base, job->in_type, (size_t)job->width);
	}
	if (!status && job->replace)
		status = lora__view_read(plan->inputs[job->replace->adapter].adapter,
					 &job->replace->edit->dense, i, 1, row->value, err);
	for (size_t p = 0; p < job->row_count; p++)
		for (uint64_t k = 0; k < job->rows[p].edit->dense.rows && !status; k++)
			if (job->rows[p].edit->row_ids[k] == i)
				status = lora__view_read(plan->inputs[job->rows[p].adapter].adapter,
							 &job->rows[p].edit->dense, k, 1,
							 row->value, err);
	return status;
}

static enum lora_status expected_row(const struct lora_plan *plan, const struct lora_job *job,
				     uint64_t i, float *line, struct row *row,
				     struct lora_error *err)
{
	size_t width = (size_t)job->width;
	enum lora_status status = base_row(plan, job, i, row, err);

	memset(row->update, 0, width * sizeof(float));
	for (size_t p = 0; p < job->add_count && !status; p++)
		status = add_part(plan, &job->adds[p], i, line, row->update, err);
	if (job->dora && !status)
		status = add_part(plan, job->dora, i, line, row->update, err);
	if (status)
		return status;
	memcpy(row->before, row->value, width * sizeof(float));
	for (size_t j = 0; j < width && (job->add_count || job->dora); j++)
		row->value[j] = row->value[j] + row->update[j];
	for (size_t j = 0; j < width && job->dora; j++)
		row->value[j] = job->gain[job->dora->edit->norm_by_column ? j : i] * row->value[j];
	narrow(row->expected, job->out_type, row->value, width);
	return LORA_OK;
}

/* Elements that add_part() reads at a time. */
static uint64_t longest_line(const struct lora_job *job)
{
	uint64_t longest = job->dora ? job->dora->edit->left.cols : 0;

	for (size_t p = 0; p < job->add_count; p++) {
		const struct lora_edit *edit = job->adds[p].edit;
		uint64_t n = edit->kind == LORA_EDIT_ADD_DENSE ? edit->dense.cols : edit->left.cols;

		longest = n > longest ? n : longest;
	}
	return longest;
}

enum lora_status lora__check_rows(struct lora_plan *plan, struct lora_job *job,
				  const struct lora_model *merged,
				  const struct lora_tensor *written, lora_check_row_fn *visit,
				  void *user, struct lora_error *err)
{
	size_t width = (size_t)job->width, bytes = width * (lora_dtype_bits(job->out_type) / 8);
	uint64_t longest = longest_line(job);
	struct row row = {calloc(width + 1, 4), calloc(width + 1, 4), calloc(width + 1, 4),
			  calloc(width + 1, 4), calloc(width + 1, 4), calloc(width + 1, 4)};
	float *line = malloc((size_t)longest * sizeof(float) + 1);
	enum lora_status status = LORA_OK;

	if (!row.update || !row.value || !row.before || !row.expected || !row.base ||
	    !row.written || !line)
		status = lora__fail_memory(err);
	if (!status)
		status = lora__job_load(plan, job, err);
	for (uint64_t i = 0; i < job->height && !status; i++) {
		struct lora_check_row seen = {i,	 width,	       row.before,  row.update,
					      row.value, row.expected, row.written, bytes};

		status = expected_row(plan, job, i, line, &row, err);
		if (!status)
			status =
			    lora_model_read(merged, written, i * bytes, row.written, bytes, err);
		if (!status)
			status = visit(user, &seen, err);
	}
	lora__job_unload(job);
	free(row.update);
	free(row.value);
	free(row.before);
	free(row.expected);
	free(row.base);
	free(row.written);
	free(line);
	return status;
}

/* What stays of a row where any difference is the end. */
struct same {
	struct check *check;
	const struct lora_job *job;
};

static enum lora_status same_row(void *user, const struct lora_check_row *row,
				 struct lora_error *err)
{
	const struct same *same = user;

	if (memcmp(row->written, row->expected, row->bytes) != 0)
		return lora__fail(err, LORA_NO,
				  "'%s' row %" PRIu64
				  ": what was written differs from the reference: do not use it",
				  lora__escape(same->job->name), row->number);
	return lora__watch_add(&same->check->watch, row->bytes, err);
}

static enum lora_status check_job(struct check *check, struct lora_job *job,
				  const struct lora_tensor *written, struct lora_error *err)
{
	struct same same = {check, job};

	return lora__check_rows(check->plan, job, check->merged, written, same_row, &same, err);
}

/* Bytes equal to the base's, or to the adapter's where a replacement is copied raw. */
static enum lora_status check_bytes(struct check *check, const struct lora_item *item,
				    const struct lora_tensor *written, struct lora_error *err)
{
	uint8_t *a = malloc(COMPARE_STEP), *b = malloc(COMPARE_STEP);
	enum lora_status status = a && b ? LORA_OK : lora__fail_memory(err);

	for (uint64_t at = 0; at < item->size && !status; at += COMPARE_STEP) {
		size_t n =
		    item->size - at < COMPARE_STEP ? (size_t)(item->size - at) : COMPARE_STEP;

		status = lora_model_read(check->merged, written, at, a, n, err);
		if (!status && item->job) {
			const struct lora_part *part = item->job->replace;
			const struct lora_adapter *adapter =
			    check->plan->inputs[part->adapter].adapter;
			const struct lora_tensor *t =
			    &adapter->index.tensors[part->edit->dense.tensor];

			status = lora__adapter_read(adapter, t, at, b, n, err);
		} else if (!status) {
			status = lora_model_read(check->plan->base, item->base, at, b, n, err);
		}
		if (!status && memcmp(a, b, n) != 0)
			status = lora__fail(
			    err, LORA_NO,
			    "'%s': untouched bytes differ from the base's: do not use it",
			    lora__escape(item->name));
		if (!status)
			status = lora__watch_add(&check->watch, n, err);
	}
	free(a);
	free(b);
	return status;
}

static enum lora_status check_item(void *user, size_t i, unsigned worker, struct lora_error *err)
{
	struct check *check = user;
	const struct lora_item *item = check->items[i];
	const struct lora_tensor *written = lora_model_find(check->merged, item->name);

	(void)worker;
	if (!written || written->size != item->size)
		return lora__fail(err, LORA_NO, "'%s' is not in the merged model: do not use it",
				  lora__escape(item->name));
	if (item->job && !item->job->raw)
		return check_job(check, item->job, written, err);
	return check_bytes(check, item, written, err);
}

enum lora_status lora__merge_check(struct lora_plan *plan, const struct lora_model *merged,
				   struct lora_error *err)
{
	struct check check = {plan, merged, NULL, 0, {0}};
	enum lora_status status;

	for (size_t f = 0; f < plan->file_count; f++)
		check.count += plan->files[f].item_count;
	check.items = calloc(check.count + 1, sizeof(*check.items));
	if (!check.items)
		return lora__fail_memory(err);
	check.count = 0;
	for (size_t f = 0; f < plan->file_count; f++)
		for (size_t i = 0; i < plan->files[f].item_count; i++)
			check.items[check.count++] = &plan->files[f].items[i];
	lora__watch_init(&check.watch, plan->observer, "verify", plan->bytes);
	if (lora_model_tensor_count(merged) != check.count)
		status = lora__fail(err, LORA_NO,
				    "the merged model has %zu tensors, not %zu: do not use it",
				    lora_model_tensor_count(merged), check.count);
	else
		status =
		    lora__parallel(lora__merge_workers(plan), check.count, check_item, &check, err);
	lora__watch_fini(&check.watch);
	free(check.items);
	return status;
}
