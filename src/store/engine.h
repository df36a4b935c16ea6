/* SPDX-License-Identifier: Apache-2.0 */
/* store/engine.h - shared by the files of the engine; nothing else includes it.
 *
 *	walk.c      superblock, records, commits: what is there (invariants 1 to 3)
 *	objects.c   the table of objects; decoding one
 *	store.c     an open container and what can be asked of it
 *	snapshot.c  a version as files
 *	writer.c    one group, from the lock to the commit
 *
 * 1. What the walk did not find behind a valid commit does not exist.
 * 2. Sizes are checked against the file's size and the limits before memory is taken.
 * 3. Reading past the end of the file is no failure of the walk: a writer may have cut off a tail
 *    meanwhile.
 */
#ifndef LORA_STORE_ENGINE_H
#define LORA_STORE_ENGINE_H

#include "base/file.h"
#include "base/watch.h"
#include "store/store.h"

/* One version as the walk found it. */
struct lora_version {
	uint64_t number;
	struct lora_sha256 digest;
	uint64_t manifest_at, stored_size, manifest_size; /* payload's place; bytes there; bytes */
	uint32_t objects; /* how many there are up to this version's group */
	uint64_t bytes;	  /* of groups that are this version's */
};

/* A record that is no group's own: a signature, an attestation, or of a kind that we do not know.
 */
struct lora_loose {
	uint64_t at;	  /* of its header */
	uint64_t size;	  /* of the payload */
	uint32_t version; /* LORA_NO_VERSION: of none in the file */
	uint32_t group;	  /* number of the commit that made it exist, from 0 */
	uint16_t type;
};
#define LORA_NO_VERSION UINT32_MAX

/* Digest to number, open addressing; slots hold number + 1. */
struct lora_object_map {
	uint32_t *slots;
	size_t capacity;
	uint64_t seed[2];
};

struct lora_store {
	struct lora_file file;
	struct lora_superblock block;
	struct lora_version *versions;
	size_t version_count;
	struct lora_object *objects;
	uint32_t object_count;
	uint64_t object_bytes; /* their sizes */
	uint64_t largest;      /* of them */
	struct lora_object_map by_digest;
	struct lora_loose *loose;
	size_t loose_count;
	size_t record_count;
	uint64_t end;	   /* behind the last valid commit: where the tail begins */
	uint64_t sequence; /* of the last commit */
	uint8_t link[16];  /* for the next one */
	uint64_t hidden;   /* a commit behind `end` that damage keeps from being used; 0: none */
	struct lora_error problem; /* what the damage is, where that is known */
};

/* --- walk.c ---------------------------------------------------------------------------------- */

/* Fills a store whose file is open and which is empty but for that. LORA_INPUT for what is no
 * container or needs a newer program. Damage is no failure here: what stands before it is found,
 * and `hidden` tells. */
enum lora_status lora__store_walk(struct lora_store *store, struct lora_error *err);
/* Empties all but the file. */
void lora__store_clear(struct lora_store *store);
/* Exactly size bytes; *there is false if the file ends before. */
enum lora_status lora__store_peek(const struct lora_store *store, uint64_t at, void *buffer,
				  size_t size, bool *there, struct lora_error *err);
/* "it is damaged ...": LORA_INPUT, for `hidden`. */
enum lora_status lora__store_complain(const struct lora_store *store, struct lora_error *err);

/* --- objects.c ------------------------------------------------------------------------------- */

/* The object's number, or LORA_NO_OBJECT. */
uint32_t lora__object_find(const struct lora_store *store, const struct lora_sha256 *digest);
/* Adds one as number object_count. LORA_INPUT if its digest is there already or there are too many.
 */
enum lora_status lora__object_add(struct lora_store *store, const struct lora_object *object,
				  struct lora_error *err);
/* Leaves the first `count`. */
void lora__object_forget(struct lora_store *store, uint32_t count);
/* How many bytes a version's files, or all objects, may have in a container of that size. */
uint64_t lora__expansion_limit(uint64_t container);

/* Room for any chunk that the store has: at most LORA_CHUNK_SIZE, at least 1. */
size_t lora__chunk_room(const struct lora_store *store);

/* Buffers for decoding chunks of at most `room` bytes. */
struct lora_decoder {
	struct lora_codec *codec;
	uint8_t *stored, *scratch;
};

enum lora_status lora__decoder_init(struct lora_decoder *decoder, size_t room,
				    struct lora_error *err);
void lora__decoder_fini(struct lora_decoder *decoder); /* a zeroed one is empty */
/* Bytes of chunk `chunk` of an object. */
size_t lora__chunk_bytes(const struct lora_object *object, uint64_t chunk);
/* Decodes it, parents first, into out [lora__chunk_room()]. Nothing proves it right but the digest
 * of the whole object, which is the caller's to check. */
enum lora_status lora__object_chunk(const struct lora_store *store, struct lora_decoder *decoder,
				    uint32_t number, uint64_t chunk, uint8_t *out,
				    struct lora_error *err);
/* Decodes all of it and checks its digest. `each` (may be NULL) sees every chunk; `out` is the
 * buffer [lora__chunk_room()], and holds the last chunk afterwards. */
typedef enum lora_status lora_chunk_fn(void *user, uint64_t chunk, const uint8_t *bytes,
				       size_t size, struct lora_error *err);
enum lora_status lora__object_verify(const struct lora_store *store, struct lora_decoder *decoder,
				     uint32_t number, uint8_t *out, lora_chunk_fn *each, void *user,
				     struct lora_error *err);

/* --- writer.c -------------------------------------------------------------------------------- */

struct lora_writer {
	struct lora_store *store; /* what is there, and what has been added */
	int fd;
	const char *path;
	bool fresh;	  /* a new file: nothing to be synced or restored */
	uint64_t begin;	  /* of the group */
	uint64_t at;	  /* where the next byte goes; beyond store->end: not committed */
	uint64_t data_at; /* of the DATA record's header; 0: none */
	uint64_t index_record, index_payload; /* 0: none yet */
	struct lora_sha256 index_digest;
	uint8_t *index; /* entries of this group, malloc'd */
	size_t index_size, index_room;
	uint32_t first; /* number of the group's first object */
	struct lora_hasher *body, *part;
	struct lora_decoder decoder;
	uint8_t *raw, *parent, *planes[2], *encode; /* buffers of chunks */
};

/* Where the bytes of a new object come from. */
struct lora_object_source {
	enum lora_status (*read)(void *user, uint64_t offset, void *buffer, size_t size,
				 struct lora_error *err);
	void *user;
	bool hashed; /* the bytes are those that the digest was made from: in memory, at rest */
};

/* Locks a container for writing, walks it, cuts off a tail. LORA_INPUT for one that is damaged. */
enum lora_status lora__writer_open(struct lora_writer *writer, const char *path,
				   const struct lora_observer *observer, struct lora_error *err);
/* Begins a new container in an empty file that somebody else syncs and publishes. */
enum lora_status lora__writer_create(struct lora_writer *writer, int fd, const char *path,
				     const struct lora_superblock *block, struct lora_error *err);
/* Restores the file if the last group was not committed; closes what open opened. */
void lora__writer_close(struct lora_writer *writer);

/* Stores an object that the container does not have, as itself or as the difference from `parent`
 * (LORA_NO_OBJECT: none), whichever is smaller. LORA_INPUT if what is read has another digest. */
enum lora_status lora__writer_object(struct lora_writer *writer, const struct lora_sha256 *digest,
				     uint64_t size, struct lora_layout layout, uint32_t parent,
				     const struct lora_object_source *source,
				     struct lora_error *err);
/* A payload in two pieces. */
struct lora_payload {
	const void *head;
	size_t head_size;
	const void *body;
	size_t body_size;
};

/* A record of its own. Ends the DATA record. */
enum lora_status lora__writer_record(struct lora_writer *writer, uint16_t type, bool critical,
				     const struct lora_payload *payload, struct lora_error *err);
/* Ends the group: with a manifest (its bytes, of that version), or without one (NULL, 0). */
enum lora_status lora__writer_commit(struct lora_writer *writer, uint64_t version,
				     const char *manifest, size_t size, struct lora_error *err);

#endif
