/* SPDX-License-Identifier: Apache-2.0 */
/* formats/containers/lora.h - the bytes of a .lora container: lora-container(5).
 *
 * Everything here is a PURE function of bytes: no I/O, no globals. The engine in src/store/ reads
 * and writes; the same symbols are the reader, the unit tests' subject and the fuzz target.
 */
#ifndef LORA_FORMATS_CONTAINERS_LORA_H
#define LORA_FORMATS_CONTAINERS_LORA_H

#include "base/arena.h"
#include "base/digest.h"
#include "formats/codec.h"
#include "kern/planes.h"
#include <loractl/types.h>

/* Limits, each with its reason. Those of sizes in the file are part of the format. */
#define LORA_CHUNK_SIZE	      ((size_t)4 << 20) /* what is decoded at once: the memory of a reader */
#define LORA_INDEX_SIZE_MAX   ((uint64_t)16 << 20) /* an append of 299,000 tensors */
#define LORA_MANIFEST_MAX     ((uint64_t)16 << 20) /* 65,000 tensors at 250 bytes each */
#define LORA_SIGNATURE_MAX    ((uint64_t)64 << 10) /* minisign's comments have 9 KiB at most */
#define LORA_ATTESTATION_MAX  ((uint64_t)4 << 20)  /* what OCI registries take as a manifest */
#define LORA_NOTES_MAX	      64u     /* signatures of a version: more than any threshold */
#define LORA_DEPTH_MAX	      8u      /* parents to decode: the time of one read, nine-fold */
#define LORA_VERSIONS_MAX     65536u  /* one every ten minutes for a year: 8 MB of memory */
#define LORA_RECORDS_MAX      262144u /* one read each to open the file: half a second */
#define LORA_OBJECTS_MAX      524288u /* 64 bytes each: 32 MiB */
#define LORA_PARTS_MAX	      262144u /* of a version; a manifest holds 200,000 of the shortest */
#define LORA_FILES_MAX	      65536u  /* of a version: a directory that no user looks through */
#define LORA_SIZE_MAX	      ((uint64_t)1 << 48) /* of an object or file: safetensors' own limit */
#define LORA_VERSION_MAX      (((uint64_t)1 << 53) - 1) /* what a JSON number carries everywhere */
#define LORA_FILE_NAME_MAX    1024u  /* a path inside the adapter: below PATH_MAX by far */
#define LORA_ADAPTER_NAME_MAX 255u   /* a file's name */
#define LORA_MESSAGE_MAX      65536u /* a page of text is 4,000 */
#define LORA_METADATA_MAX     1024u  /* pairs: a table that a person can read */
#define LORA_NESTING_MAX      16u    /* of JSON: ours has 5 */
/* How much a version's files may be larger than the container: zeros shrink 30,000-fold, and nobody
 * should have to unpack a terabyte of them. */
#define LORA_EXPANSION_FREE  ((uint64_t)4 << 30)
#define LORA_EXPANSION_RATIO 1024u

/* --- superblock ------------------------------------------------------------------------------ */

#define LORA_SUPERBLOCK_SIZE 64u

struct lora_superblock {
	uint16_t major, minor;
	uint32_t incompat, ro_compat, compat;
};

extern const uint8_t lora__magic[8];

/* `out` holds LORA_SUPERBLOCK_SIZE bytes. */
void lora__superblock_emit(uint8_t *out, const struct lora_superblock *block);
/* LORA_INPUT for what is no container, is damaged or needs a newer program. */
enum lora_status lora__superblock_parse(struct lora_superblock *block, const uint8_t *bytes,
					size_t size, struct lora_error *err);

/* --- records --------------------------------------------------------------------------------- */

enum lora_record_type {
	LORA_RECORD_DATA = 1,
	LORA_RECORD_INDEX,
	LORA_RECORD_MANIFEST,
	LORA_RECORD_SIGNATURE,
	LORA_RECORD_ATTESTATION,
	LORA_RECORD_COMMIT,
};

#define LORA_RECORD_HEAD 32u
#define LORA_COMMIT_BODY 208u
#define LORA_COMMIT_SIZE (LORA_RECORD_HEAD + LORA_COMMIT_BODY)

struct lora_record {
	uint16_t type; /* enum lora_record_type, or one that we do not know */
	bool critical;
	uint64_t size; /* of the payload */
};

void lora__record_emit(uint8_t *out, uint16_t type, bool critical, uint64_t size);
/* False unless the header's check is right, what must be zero is, and a known type has its flag and
 * a size that it may have. */
bool lora__record_parse(struct lora_record *record, const uint8_t *bytes);
/* "DATA"; NULL for a type that we do not know. */
const char *lora__record_name(uint16_t type);
/* Whether a known type is critical. */
bool lora__record_is_critical(uint16_t type);
/* Zero bytes behind a payload. */
unsigned lora__record_padding(uint64_t size);

struct lora_commit {
	uint64_t at, sequence, begin;
	uint64_t version; /* 0: none, then the next five are to be zero */
	uint64_t manifest_at, manifest_size;
	struct lora_sha256 manifest;
	uint64_t index_at; /* 0: none, then index is to be zero */
	struct lora_sha256 index;
	struct lora_sha256 body;
	uint8_t link[16];
	struct lora_sha256 check; /* set by emit and parse */
	bool fits;		  /* set by parse: the fields above fit each other */
};

/* The whole record, LORA_COMMIT_SIZE bytes. */
void lora__commit_emit(uint8_t *out, struct lora_commit *commit);
/* The whole record, its header too. False unless its check is right and it stands at `at`: then
 * it is one, though its fields may not fit. Those that link it to others are the caller's to check.
 */
bool lora__commit_parse(struct lora_commit *commit, const uint8_t *bytes, uint64_t at);

/* --- objects --------------------------------------------------------------------------------- */

#define LORA_ENTRY_HEAD	    48u
#define LORA_OBJECT_ROTATED 1u
#define LORA_OBJECT_XOR	    2u
#define LORA_NO_OBJECT	    UINT32_MAX

/* The layout that fits a type of numbers; width 1 for LORA_DTYPE_NONE. */
struct lora_layout lora__layout_of(enum lora_dtype dtype);

struct lora_object {
	struct lora_sha256 digest;
	uint64_t size;	 /* raw bytes */
	uint64_t data;	 /* where its stored bytes stand in the file */
	uint64_t words;	 /* where its words do */
	uint32_t parent; /* LORA_NO_OBJECT without one */
	struct lora_layout layout;
	uint8_t depth;
};

/* Chunks of an object of that size. */
uint64_t lora__object_chunks(uint64_t size);

enum lora_plane_method {
	LORA_PLANE_STORED,
	LORA_PLANE_FRAME,
	LORA_PLANE_REPEAT,
};

/* Words of the INDEX. */
static inline uint32_t lora__word(enum lora_plane_method method, uint32_t length)
{
	return (uint32_t)method << 24 | length;
}

/* Walks over an INDEX payload: begin, then next() until *end. */
struct lora_index_walk {
	const uint8_t *bytes;
	size_t size, at;
	uint64_t index_at;	 /* offset of the payload in the file */
	uint64_t left;		 /* entries */
	uint64_t data, data_end; /* of what is still to be assigned */
};

enum lora_status lora__index_begin(struct lora_index_walk *walk, const uint8_t *bytes, size_t size,
				   uint64_t index_at, uint64_t data_at, uint64_t data_size,
				   struct lora_error *err);
/* `number` is that of the object, `known` the objects before it (parents are among them). After the
 * last: *end, and everything is proved to be used up. */
enum lora_status lora__index_next(struct lora_index_walk *walk, const struct lora_object *known,
				  uint32_t number, struct lora_object *object, bool *end,
				  struct lora_error *err);

/* What a chunk of `size` raw bytes is stored as: the sum of its words' lengths. LORA_INPUT for a
 * word that cannot be. */
enum lora_status lora__words_check(const uint8_t *words, struct lora_layout layout, size_t size,
				   uint64_t *stored, struct lora_error *err);

/* One chunk of an object: how it is laid out, its width words of the INDEX, how many bytes it has,
 * and the same bytes of the parent object, or NULL. */
struct lora_chunk {
	struct lora_layout layout;
	uint8_t *words;
	size_t size;
	const uint8_t *parent;
};

/* `stored` are its planes, checked by lora__words_check(). `out` may be the parent's bytes.
 * `scratch` holds LORA_CHUNK_SIZE bytes. */
enum lora_status lora__chunk_decode(struct lora_codec *codec, const struct lora_chunk *chunk,
				    const uint8_t *stored, uint8_t *out, uint8_t *scratch,
				    struct lora_error *err);
/* The inverse: writes the words, and the planes to `out` [size]; *stored tells how much of it.
 * `scratch` holds 2 * LORA_CHUNK_SIZE bytes. */
enum lora_status lora__chunk_encode(struct lora_codec *codec, const struct lora_chunk *chunk,
				    const uint8_t *in, uint8_t *out, size_t *stored,
				    uint8_t *scratch, struct lora_error *err);

/* --- manifest -------------------------------------------------------------------------------- */

#define LORA_MANIFEST_SCHEMA "loractl.manifest/1"

struct lora_manifest_part {
	struct lora_sha256 digest;
	uint64_t size;
	const char *tensor; /* NULL: not one; then dtype, ndim and shape are 0 */
	enum lora_dtype dtype;
	uint32_t ndim;
	const uint64_t *shape;
};

struct lora_manifest_file {
	const char *name;
	uint64_t size;
	struct lora_sha256 digest;
	size_t first, count; /* parts */
};

struct lora_manifest_pair {
	const char *key, *value;
};

struct lora_manifest {
	struct lora_arena arena; /* strings and shapes */
	const char *name, *message;
	uint64_t version;
	bool has_parent, bound;
	struct lora_sha256 parent, base_root, root;
	struct lora_manifest_pair *metadata; /* the three arrays are malloc'd */
	size_t metadata_count;
	struct lora_manifest_file *files;
	size_t file_count;
	struct lora_manifest_part *parts;
	size_t part_count;
	uint64_t bytes; /* of all files */
};

/* Room for one more element in one of the arrays: grown by doubling, NULL without memory. */
void *lora__manifest_room(void *array, size_t count, size_t size);

/* *manifest is zeroed before; the caller finis it also after a failure. LORA_INPUT for anything
 * that is not the canonical spelling of a manifest. */
enum lora_status lora__manifest_parse(struct lora_manifest *manifest, const char *text, size_t size,
				      struct lora_error *err);
void lora__manifest_fini(struct lora_manifest *manifest);
/* Canonical text, malloc'd; sets `root` first. What was emitted is parsed before it is returned. */
enum lora_status lora__manifest_emit(struct lora_manifest *manifest, char **text, size_t *size,
				     struct lora_error *err);
/* The content's digest, from the files' names, sizes and digests. */
void lora__manifest_root(const struct lora_manifest *manifest, struct lora_sha256 *root);
/* Fit to be the path of a packed file? */
bool lora__packed_name_ok(const char *name);
/* Fit to be an adapter's name? */
bool lora__adapter_name_ok(const char *name);

#endif
