/* SPDX-License-Identifier: Apache-2.0 */
/* fuzz_undo.c - any bytes as an undo record's head and record.json
 *
 * An input is how many bytes of data the head describes (four bytes, little-endian), the head of a
 * safetensors file (its length in front) and record.json. What is accepted names every tensor of
 * the head once, with ranges, chunks and names that the rest of the program may rely upon.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "formats/container.h"
#include "merge/residual.h"
#include "merge/undo_read.h"
#include "merge/undo_write.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void demand(bool truth)
{
	if (!truth)
		abort();
}

static uint64_t little_endian(const uint8_t *data, unsigned n)
{
	uint64_t value = 0;

	for (unsigned i = 0; i < n; i++)
		value |= (uint64_t)data[i] << 8 * i;
	return value;
}

/* Where a file may be written below a folder: no way out, no empty component. */
static void check_name(const char *name, bool plain)
{
	for (;;) {
		size_t n = strcspn(name, "/");

		demand(n > 0 && !(n == 1 && name[0] == '.') &&
		       !(n == 2 && name[0] == '.' && name[1] == '.'));
		if (!name[n])
			return;
		demand(!plain);
		name += n + 1;
	}
}

static void check_tensor(const struct lora_undo_tensor *t, const struct lora_index *index)
{
	const struct lora_tensor *residual = &index->tensors[t->residual];
	uint64_t at = residual->begin;

	for (size_t i = 0; i < t->part_count; i++) {
		const struct lora_undo_part *part = &t->parts[i];
		const struct lora_tensor *left = &index->tensors[part->left];

		demand(isfinite(part->scale) && part->cols <= t->width &&
		       part->col0 <= t->width - part->cols);
		demand(left->ndim == 2 && left->shape[0] == part->rows);
		if (part->dense)
			demand(left->shape[1] == part->cols);
		else
			demand(left->shape[1] == index->tensors[part->right].shape[0] &&
			       index->tensors[part->right].shape[1] == part->cols);
	}
	for (size_t i = 1; i < t->row_count; i++)
		demand(t->rows[i - 1] < t->rows[i]);
	for (size_t i = 0; i < t->chunk_count; i++) {
		demand(t->chunks[i].at == at && t->chunks[i].size > 0 &&
		       t->chunks[i].size <= LORA_CHUNK_LIMIT);
		demand(t->chunks[i].elements > 0 && t->chunks[i].elements <= LORA_CHUNK_ELEMENTS);
		at += t->chunks[i].size;
	}
	demand(at == residual->begin + residual->size && residual->dtype == LORA_DTYPE_U8);
	if (t->has_gain)
		demand(index->tensors[t->gain].dtype == LORA_DTYPE_F32 &&
		       index->tensors[t->gain].ndim == 1);
	demand(!t->from_nothing || (!t->part_count && !t->row_count && !t->has_gain));
}

static void check(const struct lora_undo *undo, const struct lora_index *index)
{
	uint64_t stored = 0;

	demand(undo->base_file_count > 0 && undo->merged_file_count > 0);
	for (size_t i = 0; i < undo->base_file_count; i++)
		check_name(undo->base_files[i].name, true);
	for (size_t i = 0; i < undo->merged_file_count; i++)
		check_name(undo->merged_files[i].name, true);
	for (size_t i = 0; i < undo->others.base_count; i++) {
		const struct lora_other *other = &undo->others.base[i];

		check_name(other->name, false);
		stored += other->stored ? other->size : 0;
		demand(!other->stored || other->size <= LORA_UNDO_FILE_LIMIT);
	}
	demand(stored <= LORA_UNDO_STORED_LIMIT);
	for (size_t i = 0; i < undo->others.merged_count; i++)
		check_name(undo->others.merged[i].name, false);
	for (size_t i = 0; i < undo->tensor_count; i++)
		check_tensor(&undo->tensors[i], index);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct lora_error err = LORA_ERROR_INIT;
	struct lora_index index = {0};
	struct lora_undo undo = {0};
	uint64_t head, described;
	enum lora_status status;

	if (size < 12)
		return 0;
	described = little_endian(data, 4);
	head = little_endian(data + 4, 8);
	if (head > size - 12)
		return 0;
	head += 8;
	data += 4;
	size -= 4;
	status = lora__safetensors.parse(&index, data, (size_t)head, head + described, &err);
	if (status == LORA_OK) {
		char *text =
		    malloc(size - (size_t)head + 1); /* exactly: so that reading beyond is seen */

		demand(text != NULL);
		memcpy(text, data + head, size - (size_t)head);
		status = lora__undo_parse(&undo, text, size - (size_t)head, &index, &err);
		free(text);
		if (status == LORA_OK)
			check(&undo, &index);
		else
			demand(status == LORA_INPUT && err.status == status && err.message[0] &&
			       !strchr(err.message, '\n'));
	}
	lora__undo_fini(&undo);
	lora__index_fini(&index);
	return 0;
}
