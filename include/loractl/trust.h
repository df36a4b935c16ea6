/* SPDX-License-Identifier: Apache-2.0 */
/* loractl/trust.h - keys, signatures, whom to trust, and what was seen before.
 *
 * Keys and signatures are minisign's, byte for byte (Ed25519; BLAKE2b-512 of the content is
 * signed). Trust is the user's own: a keyring says whose keys count, for which names and until
 * when; a lock file pins what was reviewed; nothing in an artifact adds to either.
 *
 *	lora_secret_key_open(&key, "me.key", &passphrase, observer, &err);
 *	lora_sign("adapter/", key, NULL, observer, &err);
 *
 *	status = lora_verify(&verdict, "adapter/", NULL, observer, &err);    LORA_OK: trusted
 *
 * A verdict is about the bytes that were read for it, through descriptors that were opened once.
 * Whoever goes on to use an artifact must use those bytes: lora_verify_adapter() judges an adapter
 * that is open already, by what its descriptors hold.
 */
#ifndef LORACTL_TRUST_H
#define LORACTL_TRUST_H

#include <loractl/adapter.h>
#include <loractl/container.h>

#ifdef __cplusplus
extern "C" {
#endif

/* ---- keys */

#define LORA_KEY_ID   17 /* 16 hexadecimal digits, as minisign prints them, and the NUL */
#define LORA_KEY_TEXT 57 /* line 2 of a .pub, and the NUL */

struct lora_public_key {
	uint8_t number[8]; /* chosen at random when the key was made; no secret, and no proof */
	uint8_t point[32]; /* Ed25519 */
};

struct lora_secret_key; /* lives in locked memory that enters no core dump, wiped when closed */

/* Where passphrases come from. `read` puts one (without a newline or NUL) into `buffer`, `room`
 * bytes of locked memory; `confirm` asks for a new one, twice. False, and err set, if there is
 * none. Called only where one is needed. */
struct lora_passphrase {
	void *user;
	bool (*read)(void *user, const char *what, bool confirm, char *buffer, size_t room,
		     size_t *length, struct lora_error *err);
};

/* Makes NAME.key (mode 0600) and NAME.pub; both or none. passphrase NULL: the secret key is stored
 * as it is. comment NULL: minisign's. LORA_USAGE if one of the files exists. */
LORA_API enum lora_status lora_key_generate(struct lora_public_key *out, const char *name,
					    const char *comment,
					    const struct lora_passphrase *passphrase,
					    struct lora_error *err);

/* LORA_INPUT if it is no secret key, or the passphrase is wrong. A key that others may read gets a
 * warning. */
LORA_API enum lora_status lora_secret_key_open(struct lora_secret_key **out, const char *path,
					       const struct lora_passphrase *passphrase,
					       const struct lora_observer *observer,
					       struct lora_error *err);
LORA_API void lora_secret_key_close(struct lora_secret_key *key);
LORA_API void lora_secret_key_public(const struct lora_secret_key *key,
				     struct lora_public_key *out);

LORA_API enum lora_status lora_public_key_read(struct lora_public_key *out, const char *path,
					       struct lora_error *err);
LORA_API void lora_public_key_id(const struct lora_public_key *key, char id[LORA_KEY_ID]);
LORA_API void lora_public_key_text(const struct lora_public_key *key, char text[LORA_KEY_TEXT]);

/* ---- signing */

struct lora_sign_options {
	size_t size;	     /* sizeof(struct lora_sign_options) */
	const char *comment; /* signed too: printed wherever the signature is verified; or NULL */
	bool force;	     /* replace a signature that another key made */
};

#define LORA_SIGN_OPTIONS_INIT                                                                     \
	{                                                                                          \
		sizeof(struct lora_sign_options), NULL, false                                      \
	}

/* A file gets PATH.minisig; a directory loractl-files.json and loractl-files.json.minisig. An older
 * signature of the same key is replaced; that of another is LORA_USAGE. A version of a container
 * (FILE.lora[@VERSION]) gets one more signature, unless the key's is there and there is no comment
 * to be added. */
LORA_API enum lora_status lora_sign(const char *path, const struct lora_secret_key *key,
				    const struct lora_sign_options *options,
				    const struct lora_observer *observer, struct lora_error *err);

/* ---- verifying */

enum lora_rollback {
	LORA_ROLLBACK_UNKNOWN, /* nothing to compare with */
	LORA_ROLLBACK_NONE,    /* not older than what is pinned or was seen */
	LORA_ROLLBACK_OLDER,   /* older: refused */
};

/* Owns what it points to. What stands under (*) is NULL or zero unless the signature is right. */
struct lora_verdict {
	bool passed;
	const char *kind;	   /* "file", "directory", "container", "key" */
	const char *name;	   /* of the artifact: as it was signed, else as it is called */
	const char *key_id;	   /* that the signature names; NULL without one */
	const char *principal;	   /* (*) whose key it is, says the keyring; NULL without it */
	const char *comment;	   /* (*) the trusted comment */
	struct lora_sha256 digest; /* (*) of what was signed: the file, the list, the manifest */
	bool has_version;	   /* (*) containers have versions */
	uint64_t version;	   /* (*) */
	enum lora_rollback rollback;
	size_t problem_count; /* why it did not pass, a line each */
	const char *const *problems;
};

struct lora_verify_options {
	size_t size;	  /* sizeof(struct lora_verify_options) */
	const char *key;  /* trust this .pub alone, for any name; NULL: the keyring */
	const char *lock; /* a loractl.lock that the artifact must agree with; or NULL */
	int64_t now;	  /* seconds since 1970; 0: the clock */
};

#define LORA_VERIFY_OPTIONS_INIT                                                                   \
	{                                                                                          \
		sizeof(struct lora_verify_options), NULL, NULL, 0                                  \
	}

/* LORA_OK: trusted. LORA_NO: not (the message has the first reason, *out all). LORA_INPUT: cannot
 * be judged (missing, malformed). *out is given with LORA_OK and LORA_NO. */
LORA_API enum lora_status lora_verify(struct lora_verdict **out, const char *path,
				      const struct lora_verify_options *options,
				      const struct lora_observer *observer, struct lora_error *err);
LORA_API void lora_verdict_free(struct lora_verdict *verdict);

/* The same about an adapter that is open: the files that it holds open, and those that it has read,
 * must be the ones that were signed. Use it between opening and using. */
LORA_API enum lora_status lora_verify_adapter(struct lora_verdict **out,
					      struct lora_adapter *adapter,
					      const struct lora_verify_options *options,
					      const struct lora_observer *observer,
					      struct lora_error *err);

/* A signature in a container. */
struct lora_signer {
	uint64_t version;
	const char *key_id;
	const char *principal; /* NULL unless trusted */
	bool trusted;	       /* right, and by a key that counts for the container's name */
};

/* Tells of every signature of every version, the newest first; what is told is valid during the
 * call. */
LORA_API enum lora_status lora_container_signers(const char *path,
						 void (*signer)(void *user,
								const struct lora_signer *signer),
						 void *user, struct lora_error *err);

/* ---- the keyring, $XDG_CONFIG_HOME/loractl/keyring.json */

struct lora_keyring;

struct lora_trusted_key {
	struct lora_public_key key;
	char id[LORA_KEY_ID];
	const char *principal; /* NULL for a key that is only revoked */
	const char *const *scopes;
	size_t scope_count;
	bool has_until;
	int64_t until; /* from this second on the key is not trusted; seconds since 1970 */
	bool revoked;
};

/* A keyring that does not exist is empty. LORA_INPUT if it is malformed or others may write it. */
LORA_API enum lora_status lora_keyring_open(struct lora_keyring **out, struct lora_error *err);
LORA_API void lora_keyring_close(struct lora_keyring *keyring);
LORA_API size_t lora_keyring_count(const struct lora_keyring *keyring);
LORA_API const struct lora_trusted_key *lora_keyring_key(const struct lora_keyring *keyring,
							 size_t i);

/* Changes on the disk, one at a time. `path` is a .pub file; remove and revoke also take the id of
 * a key in the keyring. Adding a key that is there replaces what was said about it; adding one that
 * is revoked is LORA_NO. Scopes are patterns for names with * and ?; none: every name. until: a
 * last day on which the key is trusted, or the moment from which on it is not (2027-01-31,
 * 2027-01-31T12:00:00Z; UTC); or NULL. */
LORA_API enum lora_status lora_keyring_add(const char *path, const char *principal,
					   const char *const *scopes, size_t scope_count,
					   const char *until, struct lora_error *err);
LORA_API enum lora_status lora_keyring_remove(const char *path, struct lora_error *err);
LORA_API enum lora_status lora_keyring_revoke(const char *path, struct lora_error *err);

/* ---- the lock file */

/* Verifies PATH and writes its pin into the lock file (`lock`, else ./loractl.lock), or advances
 * it. LORA_NO if it is not trusted, older than the pin, or no descendant of it. */
LORA_API enum lora_status lora_lock(struct lora_verdict **out, const char *path, const char *lock,
				    const struct lora_verify_options *options,
				    const struct lora_observer *observer, struct lora_error *err);

/* ---- attestations: in-toto statements in DSSE envelopes, signed with the same keys */

#define LORA_PREDICATE_PROVENANCE   "https://slsa.dev/provenance/v1"
#define LORA_PREDICATE_VERIFICATION "urn:loractl:verification:1"
#define LORA_MERGE_BUILD_TYPE	    "urn:loractl:merge:1"
/* What a digest is of: a file, or (the roots of models and adapters) a tree. */
#define LORA_DIGEST_FILE "sha256"
#define LORA_DIGEST_ROOT "loractlRoot1"

struct lora_subject {
	const char *name;
	const char *algorithm; /* one of the two above */
	struct lora_sha256 digest;
};

/* An envelope (text, free() it) about those subjects; `predicate` is a JSON object. */
LORA_API enum lora_status lora_attest(char **envelope, const struct lora_subject *subjects,
				      size_t count, const char *type, const char *predicate,
				      const struct lora_secret_key *key, struct lora_error *err);
/* The provenance of a merge, from its receipt (loractl.receipt/1): the subjects are the merged
 * files and the merged root. file: what a model in one file is called where it stands; NULL: as in
 * the receipt. */
LORA_API enum lora_status lora_attest_receipt(char **envelope, const char *receipt,
					      const char *file, const struct lora_secret_key *key,
					      struct lora_error *err);
/* What was verified, from a report (loractl.verify/1), about those subjects. */
LORA_API enum lora_status lora_attest_report(char **envelope, const char *report,
					     const struct lora_subject *subjects, size_t count,
					     const struct lora_secret_key *key,
					     struct lora_error *err);
/* Writes it, whole or not at all. LORA_USAGE if the path exists and !replace. */
LORA_API enum lora_status lora_attest_write(const char *path, const char *envelope, bool replace,
					    struct lora_error *err);

struct lora_attestation; /* a statement whose signature is right */

/* Signed by one of those keys? LORA_NO if not; LORA_INPUT if it is no envelope, or what is in it no
 * statement. Nothing in the payload is read before its signature is right. */
LORA_API enum lora_status lora_attestation_open(struct lora_attestation **out, const char *envelope,
						size_t size, const struct lora_public_key *keys,
						size_t count, struct lora_error *err);
LORA_API void lora_attestation_close(struct lora_attestation *attestation);
LORA_API const char *lora_attestation_type(const struct lora_attestation *attestation);
/* The payload: what was signed, byte for byte. */
LORA_API const char *lora_attestation_statement(const struct lora_attestation *attestation);
/* Which of the keys. */
LORA_API size_t lora_attestation_signer(const struct lora_attestation *attestation);
LORA_API size_t lora_attestation_subject_count(const struct lora_attestation *attestation);
LORA_API const struct lora_subject *
lora_attestation_subject(const struct lora_attestation *attestation, size_t i);

#ifdef __cplusplus
}
#endif

#endif
