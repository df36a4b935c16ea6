/* SPDX-License-Identifier: Apache-2.0 */
/* store/store.h - the .lora storage engine, inside the library. The layout is lora-container(5).
 *
 *	store		an open container: its versions, its objects, where everything stands
 *	snapshot	one version of it, readable as files
 *	writer		one group being added to a container
 *
 * 1. A store is what the forward walk found when it was opened; it never changes. What others
 *    append later is not seen, what they truncate or replace does not matter: bytes of committed
 *    groups never change, and a file that gc replaced stays open.
 * 2. Every object and manifest is checked against its digest before a byte of it is given out.
 * 3. A writer holds the lock from its beginning to its end. What it wrote exists once
 *    lora__writer_commit() has returned LORA_OK; after any other end the file is as before.
 */
#ifndef LORA_STORE_STORE_H
#define LORA_STORE_STORE_H

#include <loractl/progress.h>

#include "formats/containers/lora.h"

/* --- an open container ----------------------------------------------------------------------- */

struct lora_store;

/* For reading. LORA_INPUT if there is no such file, it is no container or it cannot be understood.
 * A tail that a writer left is noted and ignored. */
enum lora_status lora__store_open(struct lora_store **out, const char *path,
				  const struct lora_observer *observer, struct lora_error *err);
void lora__store_close(struct lora_store *store);

const char *lora__store_path(const struct lora_store *store);
uint64_t lora__store_size(const struct lora_store *store); /* bytes, the tail included */

/* Versions are counted from the oldest in the file, 0; NUMBERS are what users call them. */
size_t lora__store_count(const struct lora_store *store);
uint64_t lora__store_number(const struct lora_store *store, size_t version);
/* SHA-256 of the version's manifest. */
const struct lora_sha256 *lora__store_digest(const struct lora_store *store, size_t version);
/* By number, or the latest for 0. LORA_INPUT if there is none, naming what there is; or if what
 * is asked for is the latest, and damage hides which that is. */
enum lora_status lora__store_find(const struct lora_store *store, uint64_t number, size_t *version,
				  struct lora_error *err);
/* The manifest's bytes, those that are signed, checked; malloc'd, with a NUL behind them. */
enum lora_status lora__store_manifest(const struct lora_store *store, size_t version, char **bytes,
				      size_t *size, struct lora_error *err);

/* Signatures (minisign text) and attestations (DSSE envelopes), in the order in which they were
 * added. The bytes are as they stand in the file: whether they are right is the caller's question.
 */
size_t lora__store_note_count(const struct lora_store *store, size_t version,
			      enum lora_record_type type);
/* malloc'd, with a NUL behind it. */
enum lora_status lora__store_note(const struct lora_store *store, size_t version,
				  enum lora_record_type type, size_t i, char **text, size_t *size,
				  struct lora_error *err);
/* Adds one, durably. type: LORA_RECORD_SIGNATURE or LORA_RECORD_ATTESTATION. LORA_INPUT if no
 * version of the container has that manifest. Waits for another writer. */
enum lora_status lora__store_add_note(const char *path, const struct lora_sha256 *manifest,
				      enum lora_record_type type, const void *text, size_t size,
				      const struct lora_observer *observer, struct lora_error *err);

/* --- references ------------------------------------------------------------------------------ */

/* FILE.lora[@VERSION]: the path (malloc'd) and the number, 0 for the latest. A path that exists
 * under the whole text wins. LORA_USAGE for what stands behind the last '@' and is neither a
 * number nor `latest`. */
enum lora_status lora__store_split(const char *reference, char **path, uint64_t *number,
				   struct lora_error *err);

/* --- one version ----------------------------------------------------------------------------- */

struct lora_snapshot;

/* The store must outlive it. */
enum lora_status lora__snapshot_open(struct lora_snapshot **out, const struct lora_store *store,
				     size_t version, struct lora_error *err);
void lora__snapshot_close(struct lora_snapshot *snapshot);

const struct lora_manifest *lora__snapshot_manifest(const struct lora_snapshot *snapshot);
/* Number of a file in manifest->files, or SIZE_MAX. */
size_t lora__snapshot_find(const struct lora_snapshot *snapshot, const char *name);
/* Exactly size bytes of a file from `offset` on. Reads and decodes the objects that hold them and
 * no others, and keeps what it decoded last. LORA_INPUT if the file ends before, or for damage.
 * Thread-safe. */
enum lora_status lora__snapshot_read(struct lora_snapshot *snapshot, size_t file, uint64_t offset,
				     void *buffer, size_t size, struct lora_error *err);
/* A whole file of at most `limit` bytes; malloc'd, with a NUL behind it. */
enum lora_status lora__snapshot_slurp(struct lora_snapshot *snapshot, size_t file, uint64_t limit,
				      char **text, size_t *size, struct lora_error *err);

#endif
