/* SPDX-License-Identifier: Apache-2.0 */
/* fuzz_safetensors.c - any bytes as a safetensors file
 *
 * The input is a whole file. It is judged twice: as it is, and as the head of a file of 1 TiB, so
 * that sizes are reached which no input has. What is accepted must satisfy the invariants of
 * formats/container.h, be bid for, and come out of emit() and parse() again as it was.
 */
#include <stdlib.h>
#include <string.h>

#include "formats/container.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void demand(bool truth)
{
	if (!truth)
		abort();
}

static void check_tensor(const struct lora_index *index, size_t i, uint64_t end)
{
	const struct lora_tensor *tensor = &index->tensors[i];
	uint64_t bits = lora_dtype_bits(tensor->dtype);

	demand(tensor->ndim <= LORA_MAX_DIMS);
	for (uint32_t j = 0; j < tensor->ndim; j++)
		demand(!__builtin_mul_overflow(bits, tensor->shape[j], &bits));
	demand(bits % 8 == 0 && bits / 8 == tensor->size);
	demand(tensor->begin == end);
	demand(lora__index_find(index, tensor->name, strlen(tensor->name)) == tensor);
}

/* Emits the same tensors in the same order; parses that. */
static void check_round_trip(const struct lora_index *index)
{
	struct lora_tensor *copy = calloc(index->count + 1, sizeof(*copy));
	struct lora_error err = LORA_ERROR_INIT;
	struct lora_index again = {0};
	uint64_t data = 0;
	uint8_t *head = NULL;
	size_t size = 0;

	demand(copy != NULL);
	for (size_t i = 0; i < index->count; i++) {
		copy[i] = index->tensors[i];
		data += copy[i].size;
	}
	demand(lora__safetensors.emit(&head, &size, copy, index->count, index->metadata,
				      index->metadata_count, &err) == LORA_OK);
	demand(lora__safetensors.parse(&again, head, size, size + data, &err) == LORA_OK);
	demand(again.count == index->count && again.metadata_count == index->metadata_count);
	for (size_t i = 0; i < again.count; i++) {
		const struct lora_tensor *a = &index->tensors[i], *b = &again.tensors[i];

		demand(strcmp(a->name, b->name) == 0 && a->dtype == b->dtype && a->ndim == b->ndim);
		demand(memcmp(a->shape, b->shape, sizeof(a->shape)) == 0 && a->size == b->size);
	}
	for (size_t i = 0; i < again.metadata_count; i++)
		demand(strcmp(again.metadata[i].key, index->metadata[i].key) == 0 &&
		       strcmp(again.metadata[i].value, index->metadata[i].value) == 0);
	lora__index_fini(&again);
	free(head);
	free(copy);
}

static void judge(const uint8_t *data, size_t size, uint64_t file_size)
{
	struct lora_error err = LORA_ERROR_INIT;
	struct lora_index index = {0};
	enum lora_status status;
	uint64_t need = 0, end;

	status = lora__safetensors.parse(&index, data, size, file_size, &err);
	if (status == LORA_OK) {
		demand(lora__safetensors.head_size(&need, data, size, file_size, &err) == LORA_OK);
		demand(need == index.data_begin && need <= size);
		demand(lora__container_probe(data, size, file_size) == &lora__safetensors);
		end = index.data_begin;
		for (size_t i = 0; i < index.count; i++) {
			check_tensor(&index, i, end);
			end += index.tensors[i].size;
		}
		demand(end == file_size);
		check_round_trip(&index);
	} else {
		demand(status == err.status && err.message[0] != '\0');
		demand(!strchr(err.message, '\n'));
	}
	lora__index_fini(&index);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	judge(data, size, size);
	judge(data, size, (uint64_t)1 << 40);
	return 0;
}
