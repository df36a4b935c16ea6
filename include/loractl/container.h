/* SPDX-License-Identifier: Apache-2.0 */
/* loractl/container.h - one file that holds every version of an adapter: lora-container(5).
 *
 * A reference is `FILE.lora` or `FILE.lora@VERSION`, VERSION a number or `latest`, the default. A
 * file that exists under the whole text wins. lora_adapter_open() takes one too, and reads the
 * version where it stands.
 */
#ifndef LORACTL_CONTAINER_H
#define LORACTL_CONTAINER_H

#include <loractl/progress.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Does a file that begins like a container stand there (a reference's version is cut off)? False
 * also if it cannot be read. */
LORA_API bool lora_container_is(const char *reference);

/* --- pack ------------------------------------------------------------------------------------ */

struct lora_pack_options {
	size_t size;	     /* sizeof(struct lora_pack_options) */
	bool append;	     /* the container may exist: the next version is added to it */
	bool all;	     /* the optimizer's state and checkpoints too */
	const char *name;    /* of the adapter; NULL: the container's, or the directory's */
	const char *message; /* or NULL */
	const struct lora_sha256 *base_root; /* binds the version to that base; or NULL */
};

#define LORA_PACK_OPTIONS_INIT                                                                     \
	{                                                                                          \
		sizeof(struct lora_pack_options), false, false, NULL, NULL, NULL                   \
	}

struct lora_pack_result {
	uint64_t version; /* that holds the content now */
	bool unchanged;	  /* the latest version holds it already: nothing was written */
	uint64_t bytes;	  /* of the files that were packed */
	uint64_t stored;  /* by which the container grew */
	size_t files;
	size_t objects, reused; /* tensors and files; of these, those that it had already */
	size_t left_out;	/* files that only `all` would pack */
};

/* Puts every file of a directory into the container, byte for byte, as its next version. A new
 * container appears whole or not at all; one that grows keeps its versions whatever happens.
 * LORA_USAGE if it exists and !append. */
LORA_API enum lora_status lora_container_pack(const char *directory, const char *path,
					      const struct lora_pack_options *options,
					      struct lora_pack_result *result,
					      const struct lora_observer *observer,
					      struct lora_error *err);

/* --- unpack ---------------------------------------------------------------------------------- */

struct lora_unpack_options {
	size_t size;   /* sizeof(struct lora_unpack_options) */
	bool manifest; /* also manifest.json, and manifest.json.minisig if the version is signed */
};

#define LORA_UNPACK_OPTIONS_INIT                                                                   \
	{                                                                                          \
		sizeof(struct lora_unpack_options), false                                          \
	}

struct lora_unpack_result {
	uint64_t version, bytes;
	size_t files;
	size_t signatures; /* that were written beside manifest.json */
};

/* Writes a version's files to a new directory; every byte is checked against its digest. */
LORA_API enum lora_status lora_container_unpack(const char *reference, const char *directory,
						const struct lora_unpack_options *options,
						struct lora_unpack_result *result,
						const struct lora_observer *observer,
						struct lora_error *err);

/* --- log ------------------------------------------------------------------------------------- */

struct lora_log_signer {
	char key_id[17]; /* 16 upper-case hexadecimal digits, as minisign prints it */
};

struct lora_log_version {
	uint64_t version;
	struct lora_sha256 manifest; /* digest of the version's manifest */
	bool has_parent;
	struct lora_sha256 parent;
	const char *message;
	uint64_t bytes;	 /* of all files */
	uint64_t stored; /* by which the version made the container grow, signatures included */
	size_t files, tensors;
	bool bound;
	struct lora_sha256 base_root;
	/* Key ids found in signatures. Whether these are right is lora_container's no business. */
	const struct lora_log_signer *signers;
	size_t signer_count;
	size_t attestations;
};

struct lora_log;

/* Reads the history of a container, or of the one that a reference names. A note tells of a tail
 * that a killed writer left. */
LORA_API enum lora_status lora_log_open(struct lora_log **out, const char *reference,
					const struct lora_observer *observer,
					struct lora_error *err);
LORA_API void lora_log_close(struct lora_log *log);
LORA_API const char *lora_log_name(const struct lora_log *log); /* the adapter's; may be NULL */
LORA_API uint64_t lora_log_size(const struct lora_log *log);	/* of the container, bytes */
LORA_API size_t lora_log_count(const struct lora_log *log);
/* Newest first. */
LORA_API const struct lora_log_version *lora_log_version(const struct lora_log *log, size_t i);

/* --- fsck ------------------------------------------------------------------------------------ */

struct lora_fsck_result {
	bool ok;	 /* nothing is wrong, or no longer */
	bool repairable; /* what was wrong can be repaired without losing a version */
	size_t versions; /* whole ones */
	size_t problems;
};

/* Checks every byte of a container, or lists what killed writers left in a directory; every problem
 * is a line to `problem`. With `repair` an unfinished tail is cut off, left-over temporary files
 * are removed. LORA_OK: nothing is wrong, or it is repaired; LORA_NO: something is; LORA_INPUT: it
 * is no container. */
LORA_API enum lora_status
lora_container_fsck(const char *path, bool repair,
		    void (*problem)(void *user, const char *where, const char *what), void *user,
		    struct lora_fsck_result *result, const struct lora_observer *observer,
		    struct lora_error *err);

/* --- gc -------------------------------------------------------------------------------------- */

struct lora_gc_result {
	uint64_t before, after; /* bytes of the container */
	size_t kept, removed;	/* versions */
};

/* Rewrites the container with its `keep` (1 or more) latest versions. Their manifests, signatures
 * and attestations stay as they are. */
LORA_API enum lora_status lora_container_gc(const char *path, uint64_t keep,
					    struct lora_gc_result *result,
					    const struct lora_observer *observer,
					    struct lora_error *err);

#ifdef __cplusplus
}
#endif

#endif
