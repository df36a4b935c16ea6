/* SPDX-License-Identifier: Apache-2.0 */
/* fuzz_residual.c - any bytes as a chunk of an undo record
 *
 * The first byte says the width (1, 2 or 4), the next two how many elements there are,
 * little-endian; the chunk is the rest. Whatever it is, nothing beyond the elements is written.
 * What is accepted leads from predictions to a base; our own chunk for that way is no larger than
 * it may be and leads there too.
 */
#include <stdlib.h>
#include <string.h>

#include "merge/residual.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void demand(bool truth)
{
	if (!truth)
		abort();
}

static uint8_t *copy_of(const uint8_t *data, size_t size)
{
	uint8_t *copy = malloc(size + !size); /* exactly: so that reading beyond is seen */

	demand(copy != NULL);
	if (size)
		memcpy(copy, data, size);
	return copy;
}

static void check_ours(struct lora_residual *r, struct lora_residual_span span, const uint8_t *base,
		       uint8_t *predicted)
{
	struct lora_error err = LORA_ERROR_INIT;
	uint8_t *chunk = malloc(span.n * span.width + LORA_CHUNK_OVERHEAD);
	size_t size = 0;

	demand(chunk != NULL);
	demand(!lora__residual_encode(r, span, base, predicted, chunk, &size, &err));
	demand(size > 0 && size <= span.n * span.width + LORA_CHUNK_OVERHEAD);
	demand(!lora__residual_decode(r, span, chunk, size, predicted, &err));
	demand(memcmp(base, predicted, span.n * span.width) == 0);
	free(chunk);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static struct lora_residual r;
	static bool ready;
	struct lora_error err = LORA_ERROR_INIT;
	struct lora_residual_span span;
	uint8_t *chunk, *base, *predicted;
	size_t bytes;
	enum lora_status status;

	if (!ready)
		demand(!lora__residual_init(&r, &err));
	ready = true;
	if (size < 3)
		return 0;
	span.width = 1u << data[0] % 3;
	span.n = (size_t)data[1] | (size_t)data[2] << 8;
	span.n += !span.n;
	bytes = span.n * span.width;
	chunk = copy_of(data + 3, size - 3);
	predicted = malloc(bytes);
	demand(predicted != NULL);
	for (size_t i = 0; i < bytes; i++)
		predicted[i] = (uint8_t)(i * 37 + data[0]);
	base = copy_of(predicted, bytes);
	status = lora__residual_decode(&r, span, chunk, size - 3, base, &err);
	if (status == LORA_OK)
		check_ours(&r, span, base, predicted);
	else
		demand(status == LORA_INPUT && err.status == status && err.message[0] &&
		       !strchr(err.message, '\n'));
	free(chunk);
	free(base);
	free(predicted);
	return 0;
}
