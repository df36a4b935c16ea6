/* SPDX-License-Identifier: Apache-2.0 */
/* trust/trust.h - what the files of this layer share.
 *
 * minisign.c    bytes of keys and signatures
 * secret.c      keys that sign, and their passphrases
 * message.c     content: hashing, signing, checking
 * listing.c     a directory as a list of files
 * list_text.c   that list as JSON, and what differs
 * sign.c        files, directories and containers get signatures
 * keyring.c     whom the user trusts
 * policy.c      its patterns and dates
 * home.c        the user's folders
 * pins.c        what was reviewed, and what was seen
 * judge.c       is this signature one that counts?
 * history.c     is it older than it may be?
 * container.c   versions of a container
 * verify.c      paths to verdicts
 * adapter.c     adapters that are open already
 * envelope.c    DSSE
 * attest.c      in-toto statements
 * provenance.c  statements about a merge and a report
 * statement.c   a statement before the judge
 */
#ifndef LORA_TRUST_TRUST_H
#define LORA_TRUST_TRUST_H

#include "base/arena.h"
#include "base/file.h"
#include "trust/minisign.h"

/* libsodium is ready; the first call makes it so. */
enum lora_status lora__sodium(struct lora_error *err);

/* ---- message.c: what is signed */

/* Bytes in memory, or a file that is open. */
struct lora_message {
	const struct lora_file *file; /* NULL: data */
	const void *data;
	size_t size;
};

#define LORA_HASH_SIZE 64 /* BLAKE2b-512 */

/* BLAKE2b-512 into hash, SHA-256 into digest; each may be NULL. One pass. A file that changed since
 * it was opened is LORA_INPUT. */
enum lora_status lora__message_hash(const struct lora_message *message, uint8_t *hash,
				    struct lora_sha256 *digest,
				    const struct lora_observer *observer, struct lora_error *err);
/* Fills prehashed, number, content and global; comment is borrowed. */
void lora__message_sign(struct lora_minisig *out, const uint8_t hash[LORA_HASH_SIZE],
			const char *comment, const struct lora_secret_key *key);

/* How a signature and a key stand to a message. */
enum lora_match {
	LORA_MATCH,
	LORA_MATCH_NOT_CONTENT, /* the content is not what this key signed */
	LORA_MATCH_NOT_COMMENT, /* the trusted comment is not */
};

/* hash: of the message, which is read again (from the same descriptor) for legacy signatures
 * only. */
enum lora_status lora__message_check(enum lora_match *match, const struct lora_minisig *signature,
				     const struct lora_public_key *key,
				     const struct lora_message *message,
				     const uint8_t hash[LORA_HASH_SIZE], struct lora_error *err);

/* ---- secret.c */

struct lora_secret_key {
	struct lora_public_key public;
	uint8_t secret[LORA_SECRET_SIZE];
};

/* ---- listing.c: the files of a directory */

#define LORA_LIST_NAME	"loractl-files.json"
#define LORA_LIST_SIG	LORA_LIST_NAME ".minisig"
#define LORA_LIST_LIMIT ((size_t)16 << 20) /* bytes of it */
#define LORA_LIST_FILES ((size_t)1 << 16)
#define LORA_LIST_DEPTH 32 /* directories in directories */

/* One entry: a file, or something else that stands there. */
struct lora_listed {
	const char *name;  /* relative, '/' between the parts */
	const char *other; /* "a symbolic link", ...: no file; then the rest is unset */
	uint64_t size;
	struct lora_sha256 digest;
};

struct lora_listing {
	struct lora_arena arena; /* of the names */
	struct lora_listed *files;
	size_t count, capacity;
};

void lora__listing_fini(struct lora_listing *listing); /* a zeroed one is empty */
/* Every file below the directory `fd`, sorted by the bytes of its name, but the list itself and its
 * signature. Follows no link. Each file is opened once, hashed, and must not change meanwhile. */
enum lora_status lora__listing_read(struct lora_listing *listing, int fd, const char *path,
				    const struct lora_observer *observer, struct lora_error *err);
enum lora_status lora__listing_add(struct lora_listing *listing, const char *name, uint64_t size,
				   const struct lora_sha256 *digest, const char *other,
				   struct lora_error *err);
void lora__listing_sort(struct lora_listing *listing);

/* Canonical JSON, malloc'd. LORA_INPUT for what is no file or has no name in UTF-8. */
enum lora_status lora__listing_text(const struct lora_listing *listing, char **text, size_t *size,
				    struct lora_error *err);
/* A pure function of the bytes. Names are plain, relative, ascending and unique. */
enum lora_status lora__listing_parse(struct lora_listing *listing, const char *text, size_t size,
				     struct lora_error *err);
/* A line for each entry that was added, removed, changed or is no file any more. With `partial`
 * what is only in `want` is no difference. */
enum lora_status lora__listing_compare(const struct lora_listing *want,
				       const struct lora_listing *have, bool partial,
				       enum lora_status (*difference)(void *user, const char *line,
								      struct lora_error *err),
				       void *user, struct lora_error *err);

/* ---- home.c: the user's folders */

enum lora_home {
	LORA_HOME_CONFIG, /* $XDG_CONFIG_HOME/loractl */
	LORA_HOME_STATE,  /* $XDG_STATE_HOME/loractl */
};

/* The text of a file there; NULL if there is none. Others must not be able to write it. */
enum lora_status lora__home_read(enum lora_home home, const char *name, char **text, size_t *size,
				 struct lora_error *err);
/* Makes the folder (0700) and takes its lock: one change at a time. */
enum lora_status lora__home_lock(enum lora_home home, int *lock, struct lora_error *err);
void lora__home_unlock(int lock);
/* Replaces the file (0600) as a whole. */
enum lora_status lora__home_write(enum lora_home home, const char *name, const char *text,
				  size_t size, struct lora_error *err);

/* ---- keyring.c */

struct lora_keyring {
	struct lora_arena arena;
	struct lora_trusted_key *keys; /* sorted by their base64; malloc'd */
	size_t count, capacity;
};

/* A pure function of the bytes. */
enum lora_status lora__keyring_parse(struct lora_keyring *keyring, const char *text, size_t size,
				     struct lora_error *err);
enum lora_status lora__keyring_text(const struct lora_keyring *keyring, char **text, size_t *size,
				    struct lora_error *err);
struct lora_trusted_key *lora__keyring_find(const struct lora_keyring *keyring,
					    const struct lora_public_key *key);

/* ---- policy.c: small questions */

/* Does the pattern (* for any text, ? for any one character) cover the whole name? */
bool lora__scope_covers(const char *pattern, const char *name);
/* "2027-01-31" (its last second and one more) or "2027-01-31T12:00:00Z" -> seconds since 1970. */
bool lora__time_parse(const char *text, int64_t *seconds);
#define LORA_TIME_TEXT 32
void lora__time_text(int64_t seconds, char text[LORA_TIME_TEXT]);

/* ---- pins.c: loractl.lock and the state file */

struct lora_pin {
	const char *name; /* of the artifact */
	const char *file; /* what its file was called; NULL in the state file */
	struct lora_public_key key;
	bool has_version, has_base;
	uint64_t version;
	struct lora_sha256 manifest, base;
};

struct lora_pins {
	struct lora_arena arena;
	struct lora_pin *pins; /* sorted by name, then key; malloc'd */
	size_t count, capacity;
	bool by_key; /* one for each name and key, not one for each name */
};

void lora__pins_fini(struct lora_pins *pins); /* a zeroed one is empty */
enum lora_status lora__pins_parse(struct lora_pins *pins, const char *schema, const char *text,
				  size_t size, struct lora_error *err);
enum lora_status lora__pins_text(const struct lora_pins *pins, const char *schema, char **text,
				 size_t *size, struct lora_error *err);
/* Adds a copy, or replaces the one that there is. */
enum lora_status lora__pins_set(struct lora_pins *pins, const struct lora_pin *pin,
				struct lora_error *err);
/* The pin of that name (and, with by_key, that key), or NULL. */
struct lora_pin *lora__pins_find(const struct lora_pins *pins, const char *name,
				 const struct lora_public_key *key);

/* ---- judge.c */

struct lora_ancestor {
	uint64_t version;
	struct lora_sha256 manifest;
};

/* One artifact before the judge. */
struct lora_trial {
	struct lora_verdict verdict; /* first: it is what the caller gets */
	struct lora_arena arena;
	const char **lines; /* malloc'd: the problems */
	size_t capacity;
	const struct lora_verify_options *options;
	const struct lora_observer *observer;
	struct lora_keyring *keyring;
	struct lora_public_key only; /* options->key */
	int64_t now;
	char *path;
	const char *called;	    /* last part of the path: what the artifact is called here */
	bool accepted;		    /* a signature was right, by a key that counts */
	struct lora_public_key key; /* that key */
	/* What containers know besides. */
	bool has_base;
	struct lora_sha256 base_root;
	bool asked_older; /* an older version than the newest was asked for by its number */
	struct lora_ancestor *ancestors; /* of the manifest in question, which is the first */
	size_t ancestor_count;
};

/* Last part of the path, as the file system has it: "." is called something too. malloc'd. */
char *lora__path_called(const char *path);
enum lora_status lora__trial_new(struct lora_trial **out, const char *path,
				 const struct lora_verify_options *options,
				 const struct lora_observer *observer, struct lora_error *err);
void lora__trial_free(struct lora_trial *trial);
/* Adds a line to the problems: the artifact does not pass. */
enum lora_status lora__trial_no(struct lora_trial *trial, struct lora_error *err,
				const char *format, ...) LORA_PRINTF(3, 4);
/* Is the signature right, by a key that counts, for a name in its scope? Then trial->accepted; else
 * a line is added. Only what cannot be judged is a failure. `field` is how the trusted comment
 * introduces the artifact's name, "file:"; NULL where the name is in what was signed. */
enum lora_status lora__trial_signature(struct lora_trial *trial, const char *text, size_t size,
				       const struct lora_message *message, const char *field,
				       struct lora_error *err);
/* A key itself. */
enum lora_status lora__trial_key(struct lora_trial *trial, const struct lora_public_key *key,
				 struct lora_error *err);
/* Does the scope of the key that was accepted cover what the artifact is called here? */
enum lora_status lora__trial_scope(struct lora_trial *trial, struct lora_error *err);
/* A statement in its envelope, and the files beside it that it is about: statement.c. */
enum lora_status lora__trial_statement(struct lora_trial *trial, const char *text, size_t size,
				       struct lora_error *err);
/* With LORA_OK: lock file and state, then LORA_OK or LORA_NO and the verdict. Takes the trial. */
enum lora_status lora__trial_end_take(struct lora_trial *trial, enum lora_status status,
				      struct lora_verdict **out, struct lora_error *err);

/* ---- container.c */

/* What is signed of a version: the manifest's bytes (malloc'd), its digest, and its name
 * (malloc'd). */
struct lora_signable {
	char *bytes, *name;
	size_t size;
	struct lora_sha256 digest;
	bool has_own; /* a right signature of `own` is there already */
};

enum lora_status lora__container_signable(struct lora_signable *out, const char *reference,
					  const struct lora_public_key *own,
					  const struct lora_observer *observer,
					  struct lora_error *err);
void lora__signable_fini(struct lora_signable *signable);
/* Puts a signature into the container. */
enum lora_status lora__container_add(const char *reference, const struct lora_sha256 *manifest,
				     const char *signature, const struct lora_observer *observer,
				     struct lora_error *err);
/* Everything but the end. `opened`: the digest of the manifest that is in use; NULL: the one that
 * trial->path refers to, whose bytes are then all read. */
enum lora_status lora__verify_container(struct lora_trial *trial, const struct lora_sha256 *opened,
					struct lora_error *err);

/* ---- history.c: is it older than what is pinned, or was seen? */

enum lora_status lora__trial_lock(struct lora_trial *trial, struct lora_error *err);
enum lora_status lora__trial_state(struct lora_trial *trial, struct lora_error *err);
/* Remembers an artifact that passed; what fails is only noted. */
void lora__trial_remember(const struct lora_trial *trial);

/* ---- verify.c */

/* A signed list of files in the directory `fd` (called `folder`): is its signature one that counts?
 * Then trial->accepted. *text is the list, malloc'd, or NULL. */
enum lora_status lora__verify_list(struct lora_trial *trial, int fd, const char *folder,
				   char **text, size_t *size, struct lora_error *err);
/* Everything but the end. */
enum lora_status lora__verify_path(struct lora_trial *trial, struct lora_error *err);
/* Opens `name` in the directory `parent`, which is called `folder` in messages; no link. *present
 * is false, and all is well, where there is nothing. */
enum lora_status lora__file_open_at(struct lora_file *file, int parent, const char *name,
				    const char *folder, bool *present, struct lora_error *err);

#endif
