/* SPDX-License-Identifier: Apache-2.0 */
/* adapter/source.h - where an adapter's bytes come from: files in a directory, or a version of a
 * container.
 *
 * 1. An adapter has one origin, which knows its files by name; each file that is open is a source.
 * 2. What was checked is what is used: a plain file that changes while it is open is found by
 *    unchanged(); bytes of a container were found right before they are given out.
 * 3. Sources may be read by several threads.
 */
#ifndef LORA_ADAPTER_SOURCE_H
#define LORA_ADAPTER_SOURCE_H

#include "base/file.h"
#include "store/store.h"

struct lora_adapter;
struct lora_source;

struct lora_origin {
	/* Is there a file of that name in the adapter's directory, or beside its file? */
	enum lora_status (*has)(const struct lora_adapter *adapter, const char *name, bool *there,
				struct lora_error *err);
	/* NULL: the adapter's own file. Error messages name the file. */
	enum lora_status (*open)(const struct lora_adapter *adapter, const char *name,
				 struct lora_source *source, struct lora_error *err);
	enum lora_status (*read)(const struct lora_source *source, uint64_t offset, void *buffer,
				 size_t size, struct lora_error *err);
	enum lora_status (*unchanged)(const struct lora_source *source, struct lora_error *err);
};

extern const struct lora_origin lora__origin_files, lora__origin_container;

struct lora_source {
	const struct lora_origin *origin; /* NULL: closed */
	uint64_t size;
	struct lora_file file;		/* of plain files */
	struct lora_snapshot *snapshot; /* of a container: borrowed; and the file's number there */
	size_t number;
};

enum lora_status lora__source_open(struct lora_source *source, const struct lora_adapter *adapter,
				   const char *name, struct lora_error *err);
void lora__source_close(struct lora_source *source);
enum lora_status lora__source_read(const struct lora_source *source, uint64_t offset, void *buffer,
				   size_t size, struct lora_error *err);
/* LORA_INPUT if any of the adapter's weight files is no longer what was opened. */
enum lora_status lora__adapter_unchanged(const struct lora_adapter *adapter,
					 struct lora_error *err);
/* size bytes of the adapter's tensor t from byte `offset` of it. */
enum lora_status lora__adapter_read(const struct lora_adapter *adapter, const struct lora_tensor *t,
				    uint64_t offset, void *buffer, size_t size,
				    struct lora_error *err);
enum lora_status lora__adapter_has(const struct lora_adapter *adapter, const char *name,
				   bool *there, struct lora_error *err);
/* A file of at most `limit` bytes, malloc'd with a NUL behind it; *text is NULL if there is none.
 */
enum lora_status lora__adapter_slurp(const struct lora_adapter *adapter, const char *name,
				     uint64_t limit, char **text, size_t *size,
				     struct lora_error *err);

#endif
