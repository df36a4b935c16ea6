/* SPDX-License-Identifier: Apache-2.0 */
/* adapter/view.c - reading strided views of the adapter's tensors, widened exactly to f32.
 *
 * 1. dst is packed row-major [rows, cols], whatever the strides.
 * 2. Three ways: rows that are contiguous are read as they stand; where columns are contiguous (a
 *    transposed factor) each column is read and scattered; anything else (one expert out of many)
 *    goes through a window that moves forward over the tensor.
 * 3. Buffers are on the stack: any number of threads may read.
 * 4. Nothing outside the tensor is touched: the view's last element is checked against the
 *    tensor's size on every call. */
#include "adapter/adapter.h"

#include "base/checked.h"
#include "base/error.h"
#include "kern/kern.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#define CHUNK 2048u /* elements: two of them stand on the stack, which may be small */

struct reader {
	const struct lora_adapter *adapter;
	const struct lora_tensor *tensor;
	const struct lora_kern *kern;
	uint64_t bad;
};

static uint64_t bytes_of(const struct lora_tensor *tensor)
{
	return tensor->dtype == LORA_DTYPE_F32 ? 4 : 2;
}

/* `count` (at most CHUNK) elements from number `first` on. */
static enum lora_status read_chunk(struct reader *reader, uint64_t first, size_t count, float *out,
				   struct lora_error *err)
{
	const struct lora_tensor *tensor = reader->tensor;
	uint64_t width = bytes_of(tensor);
	uint16_t narrow[CHUNK];
	void *into = width == 4 ? (void *)out : (void *)narrow;
	enum lora_status status = lora__adapter_read(reader->adapter, tensor, first * width, into,
						     (size_t)(count * width), err);

	if (status)
		return status;
	if (tensor->dtype == LORA_DTYPE_F16)
		reader->kern->widen_f16(out, narrow, count);
	else if (tensor->dtype == LORA_DTYPE_BF16)
		reader->kern->widen_bf16(out, narrow, count);
	for (size_t i = 0; i < count && reader->bad == UINT64_MAX; i++)
		if (!isfinite(out[i]))
			reader->bad = first + i;
	return LORA_OK;
}

/* `count` elements that stand together; the i-th goes to out[i * step]. */
static enum lora_status read_run(struct reader *reader, uint64_t first, uint64_t count, float *out,
				 uint64_t step, struct lora_error *err)
{
	enum lora_status status = LORA_OK;
	float chunk[CHUNK];

	for (uint64_t done = 0; done < count && !status;) {
		size_t n = (size_t)(count - done < CHUNK ? count - done : CHUNK);

		status = read_chunk(reader, first + done, n, step == 1 ? out + done : chunk, err);
		for (size_t i = 0; i < n && step != 1 && !status; i++)
			out[(done + i) * step] = chunk[i];
		done += n;
	}
	return status;
}

/* One direction of a walk over a view. */
struct axis {
	uint64_t count, stride; /* in the tensor, elements */
	uint64_t step;		/* in dst, elements */
};

/* Any strides: the longer one outside, so that the walk goes through the tensor once. The window
 * holds elements from `begin` to `end`, and jumps to the next one that is wanted; where they
 * stand far apart it is one element wide. */
static enum lora_status read_scattered(struct reader *reader, uint64_t first,
				       const struct axis *outer, const struct axis *inner,
				       float *out, struct lora_error *err)
{
	size_t width = inner->stride > CHUNK / 8 ? 1 : CHUNK;
	uint64_t begin = 0, end = 0, bad = UINT64_MAX;
	float window[CHUNK];

	for (uint64_t i = 0; i < outer->count; i++)
		for (uint64_t j = 0; j < inner->count; j++) {
			uint64_t at = first + i * outer->stride + j * inner->stride,
				 rest = reader->tensor->elements - at;
			float value;

			if (at < begin || at >= end) {
				size_t n = (size_t)(rest < width ? rest : width);
				enum lora_status status = read_chunk(reader, at, n, window, err);

				if (status)
					return status;
				begin = at;
				end = at + n;
			}
			value = window[at - begin];
			if (!isfinite(value) && bad == UINT64_MAX)
				bad = at;
			out[i * outer->step + j * inner->step] = value;
		}
	reader->bad = bad; /* what stands between the wanted elements is not ours to judge */
	return LORA_OK;
}

static bool is_inside(const struct lora_adapter *adapter, const struct lora_view *view,
		      uint64_t row0, uint64_t rows)
{
	uint64_t end, down, right, last;

	if (view->tensor >= adapter->index.count || !view->cols ||
	    lora__add_overflows(row0, rows, &end) || end > view->rows || rows == 0)
		return false;
	return !lora__mul_overflows(view->rows - 1, view->row_stride, &down) &&
	       !lora__mul_overflows(view->cols - 1, view->col_stride, &right) &&
	       !lora__add_overflows(down, right, &last) &&
	       !lora__add_overflows(last, view->offset, &last) &&
	       last < adapter->index.tensors[view->tensor].elements;
}

static enum lora_status prepare(struct reader *reader, const struct lora_adapter *adapter,
				const struct lora_view *view, uint64_t row0, uint64_t rows,
				struct lora_error *err)
{
	const struct lora_tensor *tensor;

	if (!is_inside(adapter, view, row0, rows))
		return lora__fail(err, LORA_USAGE, "a view leaves its tensor");
	tensor = &adapter->index.tensors[view->tensor];
	if (tensor->dtype != LORA_DTYPE_F32 && tensor->dtype != LORA_DTYPE_F16 &&
	    tensor->dtype != LORA_DTYPE_BF16)
		return lora__fail(
		    err, LORA_INPUT,
		    "tensor '%s' has type %s: only F32, F16 and BF16 are computed with",
		    lora__escape(tensor->name), lora_dtype_name(tensor->dtype));
	reader->kern = lora__kern(err);
	if (!reader->kern)
		return LORA_USAGE;
	reader->tensor = tensor;
	reader->adapter = adapter;
	reader->bad = UINT64_MAX;
	return LORA_OK;
}

enum lora_status lora__view_read_any(const struct lora_adapter *adapter,
				     const struct lora_view *view, uint64_t row0, uint64_t rows,
				     float *dst, uint64_t *bad, struct lora_error *err)
{
	struct reader reader = {0};
	enum lora_status status;

	*bad = UINT64_MAX;
	if (rows == 0)
		return LORA_OK;
	status = prepare(&reader, adapter, view, row0, rows, err);
	if (status)
		return status;
	if (view->col_stride == 1 && view->row_stride == view->cols) {
		status = read_run(&reader, view->offset + row0 * view->cols, rows * view->cols, dst,
				  1, err);
	} else if (view->col_stride == 1) {
		for (uint64_t i = 0; i < rows && !status; i++)
			status = read_run(&reader, view->offset + (row0 + i) * view->row_stride,
					  view->cols, dst + i * view->cols, 1, err);
	} else if (view->row_stride == 1 && rows > 1) {
		for (uint64_t j = 0; j < view->cols && !status; j++)
			status = read_run(&reader, view->offset + row0 + j * view->col_stride, rows,
					  dst + j, view->cols, err);
	} else {
		const struct axis down = {rows, view->row_stride, view->cols},
				  along = {view->cols, view->col_stride, 1};
		bool tall = view->row_stride < view->col_stride;

		status = read_scattered(&reader, view->offset + row0 * view->row_stride,
					tall ? &along : &down, tall ? &down : &along, dst, err);
	}
	*bad = reader.bad;
	return status;
}

void lora__view_complain(const struct lora_adapter *adapter, const struct lora_view *view,
			 uint64_t element, char *line)
{
	const struct lora_tensor *tensor = &adapter->index.tensors[view->tensor];
	char place[LORA_MAX_DIMS * 22 + 4];
	uint64_t stride = tensor->elements;
	size_t at = 0;

	place[at++] = '[';
	for (uint32_t i = 0; i < tensor->ndim; i++) {
		stride /= tensor->shape[i];
		at += (size_t)snprintf(place + at, sizeof(place) - at, i ? ", %llu" : "%llu",
				       (unsigned long long)(element / stride));
		element %= stride;
	}
	snprintf(place + at, sizeof(place) - at, "]");
	snprintf(line, LORA_ERROR_SIZE, "tensor '%s': element %s is not finite",
		 lora__escape(tensor->name), place);
}

enum lora_status lora__view_read(const struct lora_adapter *adapter, const struct lora_view *view,
				 uint64_t row0, uint64_t rows, float *dst, struct lora_error *err)
{
	char line[LORA_ERROR_SIZE];
	enum lora_status status;
	uint64_t bad;

	status = lora__view_read_any(adapter, view, row0, rows, dst, &bad, err);
	if (status || bad == UINT64_MAX)
		return status;
	lora__view_complain(adapter, view, bad, line);
	return lora__fail(err, LORA_INPUT, "%s: the adapter is broken", line);
}
