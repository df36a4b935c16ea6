/* SPDX-License-Identifier: Apache-2.0 */
/* merge/undo_write.h - making an undo record, loractl-undo(5), while a merge runs. */
#ifndef LORA_MERGE_UNDO_WRITE_H
#define LORA_MERGE_UNDO_WRITE_H

#include "merge/plan.h"

/* The metadata pair that says what a record is. */
#define LORA_UNDO_KEY	 "format"
#define LORA_UNDO_SCHEMA "loractl.undo/1"
/* The pair with the SHA-256 of record.json: the names in it have no other proof. */
#define LORA_UNDO_PROOF "record_sha256"

/* Limits of loractl-undo(5). */
#define LORA_UNDO_JSON_LIMIT   (256u << 20) /* bytes: a tensor of a merged model takes 150 */
#define LORA_UNDO_FILE_LIMIT   (16u << 20)  /* a config, a receipt, an index of 140,000 tensors */
#define LORA_UNDO_STORED_LIMIT (256u << 20) /* all stored files together */

/* For a record at `path`: residuals are collected in nameless files in its folder. With path NULL
 * they are only counted. plan->undo is set, and every job gets its zero_rows. */
enum lora_status lora__undo_begin(struct lora_plan *plan, const char *path, struct lora_error *err);
void lora__undo_end(struct lora_plan *plan); /* without a record in the plan: does nothing */

/* Does the way back need a residual of this item, block by block? */
bool lora__undo_wants(const struct lora_plan *plan, const struct lora_item *item);

/* The next chunk of an item of output file `file`. One caller a file at a time; a file's items in
 * order. */
enum lora_status lora__undo_chunk(struct lora_undo_writer *writer, size_t file,
				  const struct lora_job *job, struct lora_residual_chunk chunk,
				  const uint8_t *data, struct lora_error *err);

/* After the blocks: the base's tensors that were replaced whole. */
enum lora_status lora__undo_replaced(struct lora_plan *plan, struct lora_error *err);

/* Writes the record to `fd` (a companion of the output) and fills plan->undo_sha256 and undo_size.
 * `written` is where the merged model stands now; its directory's other files are compared with the
 * base's. */
enum lora_status lora__undo_write(struct lora_plan *plan, int fd, const char *written,
				  struct lora_error *err);

/* Bytes of all residuals, and of the base's tensors that they belong to. */
void lora__undo_sizes(const struct lora_plan *plan, uint64_t *residual, uint64_t *adapted);

#endif
