/* SPDX-License-Identifier: Apache-2.0 */
/* net/load.c - tensors from the checkpoint to the places that the layout gave them: side by side, a
 * chunk at a time, each value looked at on the way. */
#include "net/load.h"

#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "base/pool.h"
#include "base/watch.h"

#define CHUNK (1u << 18) /* elements read at once */

void lora__net_widen(const struct lora_net *net, float *out, const void *from,
		     enum lora_dtype dtype, size_t n)
{
	if (dtype == LORA_DTYPE_F16)
		net->kern->widen_f16(out, from, n);
	else if (dtype == LORA_DTYPE_BF16)
		net->kern->widen_bf16(out, from, n);
	else
		memcpy(out, from, n * sizeof(float));
}

/* The first of n stored elements whose exponent is all ones, or n. */
static size_t find_odd(const void *data, enum lora_dtype dtype, size_t n)
{
	uint32_t ones = dtype == LORA_DTYPE_F32	   ? 0x7f800000u
			: dtype == LORA_DTYPE_BF16 ? 0x7f80u
						   : 0x7c00u;
	const uint32_t *wide = data;
	const uint16_t *half = data;
	size_t odd = 0;

	if (dtype == LORA_DTYPE_F32) {
		for (size_t i = 0; i < n; i++)
			odd += (wide[i] & ones) == ones;
		for (size_t i = 0; odd && i < n; i++)
			if ((wide[i] & ones) == ones)
				return i;
	} else {
		for (size_t i = 0; i < n; i++)
			odd += (half[i] & ones) == ones;
		for (size_t i = 0; odd && i < n; i++)
			if ((half[i] & ones) == ones)
				return i;
	}
	return n;
}

/* n elements of the file from number `first` on, as they stand there, to their place. */
static void place(const struct lora_net *net, const struct lora_load *job, size_t first,
		  const void *from, size_t n, float *wide)
{
	size_t width = lora__net_width(job->dtype);
	const uint8_t *bytes = from;

	if (job->dtype != job->tensor->dtype) {
		lora__net_widen(net, wide, from, job->tensor->dtype, n);
		bytes = (const uint8_t *)wide;
	}
	if (!job->turned) {
		memcpy(job->to + first * width, bytes, n * width);
		return;
	}
	/* element (row, col) of the file is (col, row) there */
	for (size_t i = 0, row = first / job->rows, col = first % job->rows; i < n; i++) {
		memcpy(job->to + (col * job->cols + row) * width, bytes + i * width, width);
		col++;
		if (col == job->rows) {
			col = 0;
			row++;
		}
	}
}

struct reading {
	const struct lora_net *net;
	const struct lora_load *loads;
	struct lora_watch watch;
};

static enum lora_status read_tensor(void *user, size_t item, unsigned worker,
				    struct lora_error *err)
{
	struct reading *r = user;
	const struct lora_load *job = &r->loads[item];
	const struct lora_tensor *t = job->tensor;
	size_t elements = (size_t)t->elements, width = lora__net_width(t->dtype);
	size_t most = elements < CHUNK ? elements : CHUNK;
	uint8_t *chunk = malloc(most * width + 1);
	float *wide = malloc(most * sizeof(float) + 1);
	enum lora_status status = chunk && wide ? LORA_OK : lora__fail_memory(err);

	(void)worker;
	for (size_t at = 0; at < elements && !status;) {
		size_t n = elements - at < most ? elements - at : most, odd;

		status = lora_model_read(r->net->model, t, at * width, chunk, n * width, err);
		odd = status ? n : find_odd(chunk, t->dtype, n);
		if (odd < n)
			status = lora__fail(err, LORA_INPUT,
					    "tensor '%s': element %zu is not finite: the model "
					    "cannot be run",
					    lora__escape(t->name), at + odd);
		if (!status)
			place(r->net, job, at, chunk, n, wide);
		if (!status)
			status = lora__watch_add(&r->watch, n * width, err);
		at += n;
	}
	free(chunk);
	free(wide);
	return status;
}

enum lora_status lora__load_all(const struct lora_net *net, const struct lora_load *loads,
				size_t count, const struct lora_observer *observer,
				struct lora_error *err)
{
	struct reading reading = {.net = net, .loads = loads};
	enum lora_status status;
	uint64_t total = 0;

	for (size_t i = 0; i < count; i++)
		total += loads[i].tensor->size;
	lora__watch_init(&reading.watch, observer, "load", total);
	status = lora__parallel(lora__team_count(net->team), count, read_tensor, &reading, err);
	lora__watch_fini(&reading.watch);
	return status ? status : lora__model_unchanged(net->model, err);
}
