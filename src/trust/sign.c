/* SPDX-License-Identifier: Apache-2.0 */
/* trust/sign.c - files and directories get signatures
 *
 * The trusted comment is minisign's, "timestamp:T\tfile:NAME\thashed", for a directory with
 * "\tname:NAME" behind it, and with the user's own words in front. T is $SOURCE_DATE_EPOCH where it
 * is set, so that a build can be repeated.
 *
 * 1. What is hashed is what the descriptor holds that was opened first.
 * 2. An older signature is replaced if the same key made it: it is being renewed. Another's is not
 *    ours to throw away.
 * 3. The list of a directory and its signature are renamed together, the signature first: what is
 *    left by a kill in between does not verify. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/error.h"
#include "trust/trust.h"

#define UNTRUSTED "signature from loractl secret key"

/* One signing: what stays the same for all its steps. */
struct signing {
	const char *path, *name; /* the artifact, and what it is called */
	const struct lora_secret_key *key;
	const struct lora_sign_options *options;
	const struct lora_observer *observer;
};

static enum lora_status get_time(long long *seconds, struct lora_error *err)
{
	const char *epoch = getenv("SOURCE_DATE_EPOCH");
	char *end;

	*seconds = (long long)time(NULL);
	if (!epoch || !*epoch)
		return LORA_OK;
	errno = 0;
	*seconds = strtoll(epoch, &end, 10);
	return errno == 0 && *end == '\0' && *seconds >= 0
		   ? LORA_OK
		   : lora__fail(err, LORA_USAGE, "SOURCE_DATE_EPOCH is no number of seconds: '%s'",
				lora__escape(epoch));
}

/* `file` is the name of what is signed. */
static enum lora_status make_comment(char comment[LORA_TRUSTED_LIMIT + 1],
				     const struct signing *signing, const char *file,
				     struct lora_error *err)
{
	const char *own = signing->options->comment;
	bool named = strcmp(file, signing->name) != 0;
	long long seconds;
	int size;
	enum lora_status status = get_time(&seconds, err);

	if (status)
		return status;
	if (own &&
	    (!lora__comment_is_plain(own, strlen(own), LORA_COMMENT_LIMIT) || strchr(own, '\t')))
		return lora__fail(err, LORA_USAGE,
				  "the comment is longer than %d bytes, or not one line of text",
				  LORA_COMMENT_LIMIT);
	size = snprintf(comment, LORA_TRUSTED_LIMIT + 1, "%s%stimestamp:%lld\tfile:%s\thashed%s%s",
			own ? own : "", own ? "\t" : "", seconds, file, named ? "\tname:" : "",
			named ? signing->name : "");
	if (size < 0 || size > LORA_TRUSTED_LIMIT || strchr(signing->name, '\t') ||
	    !lora__comment_is_plain(comment, (size_t)size, LORA_TRUSTED_LIMIT))
		return lora__fail(err, LORA_INPUT,
				  "the name '%s' is no plain text in UTF-8: rename it",
				  lora__escape(signing->name));
	return LORA_OK;
}

/* (2) */
static enum lora_status check_old(const char *path, const struct signing *signing,
				  struct lora_error *err)
{
	struct lora_minisig old;
	enum lora_path_kind kind;
	char *text = NULL;
	size_t size;
	bool own = false;
	enum lora_status status = lora__path_kind(path, &kind, err);

	if (status || kind == LORA_PATH_ABSENT || signing->options->force)
		return status;
	if (kind == LORA_PATH_FILE)
		status = lora__file_slurp(path, LORA_MINISIG_LIMIT, &text, &size, err);
	if (!status && text)
		own = lora__minisig_parse(&old, text, size, NULL) == LORA_OK &&
		      memcmp(old.number, signing->key->public.number, sizeof(old.number)) == 0;
	if (status == LORA_SYSTEM)
		return status;
	free(text);
	return own ? LORA_OK
		   : lora__fail(err, LORA_USAGE,
				"'%s' exists and is not of this key: remove it, or use --force",
				lora__escape(path));
}

static enum lora_status emit(char text[LORA_MINISIG_LIMIT], const struct signing *signing,
			     const struct lora_message *message, const char *file,
			     struct lora_error *err)
{
	char comment[LORA_TRUSTED_LIMIT + 1];
	uint8_t hash[LORA_HASH_SIZE];
	struct lora_minisig signature;
	enum lora_status status = make_comment(comment, signing, file, err);

	if (!status)
		status = lora__message_hash(message, hash, NULL, signing->observer, err);
	if (status)
		return status;
	lora__message_sign(&signature, hash, comment, signing->key);
	(void)lora__minisig_emit(text, LORA_MINISIG_LIMIT, UNTRUSTED, &signature);
	return LORA_OK;
}

static enum lora_status sign_file(const struct signing *signing, struct lora_error *err)
{
	size_t room = strlen(signing->path) + sizeof(".minisig");
	char *target = malloc(room), text[LORA_MINISIG_LIMIT];
	struct lora_file file = LORA_FILE_INIT;
	struct lora_message message = {.file = &file};
	struct lora_output *output = NULL;
	int fd;
	enum lora_status status =
	    target ? lora__file_open(&file, signing->path, err) : lora__fail_memory(err);

	if (status)
		goto out;
	(void)snprintf(target, room, "%s.minisig", signing->path);
	status = check_old(target, signing, err);
	if (!status)
		status = emit(text, signing, &message, signing->name, err);
	if (!status)
		status = lora__output_begin(&output, target, false, true, err);
	if (!status)
		status = lora__output_file(output, NULL, 0, &fd, err);
	if (!status)
		status = lora__write_at(fd, target, 0, text, strlen(text), err);
	if (!status)
		status = lora__output_commit(output, err);
out:
	lora__output_free(output);
	lora__file_close(&file);
	free(target);
	return status;
}

/* The two files, together. (3) */
static enum lora_status write_list(const char *list, const char *sig, const char *text, size_t size,
				   const char *signature, struct lora_error *err)
{
	struct lora_output *output = NULL;
	int fd, beside;
	enum lora_status status = lora__output_begin(&output, list, false, true, err);

	if (!status)
		status = lora__output_file(output, NULL, 0, &fd, err);
	if (!status)
		status = lora__output_beside(output, sig, &beside, err);
	if (!status)
		status = lora__write_at(fd, list, 0, text, size, err);
	if (!status)
		status = lora__write_at(beside, sig, 0, signature, strlen(signature), err);
	if (!status)
		status = lora__output_commit(output, err);
	lora__output_free(output);
	return status;
}

static enum lora_status list_files(const struct signing *signing, char **text, size_t *size,
				   struct lora_error *err)
{
	struct lora_listing listing = {.count = 0};
	int fd = open(signing->path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	enum lora_status status =
	    fd < 0 ? lora__fail_errno(err, "cannot open '%s'", lora__escape(signing->path))
		   : lora__listing_read(&listing, fd, signing->path, signing->observer, err);

	if (!status && listing.count == 0)
		status = lora__fail(err, LORA_INPUT, "it holds no file that could be signed");
	if (!status)
		status = lora__listing_text(&listing, text, size, err);
	if (fd >= 0)
		(void)close(fd);
	lora__listing_fini(&listing);
	return lora__context(err, status, "'%s'", lora__escape(signing->path));
}

static enum lora_status sign_directory(const struct signing *signing, struct lora_error *err)
{
	char *list = lora__path_join(signing->path, LORA_LIST_NAME),
	     *sig = lora__path_join(signing->path, LORA_LIST_SIG), *text = NULL;
	char signature[LORA_MINISIG_LIMIT];
	size_t size = 0;
	enum lora_status status =
	    list && sig ? check_old(sig, signing, err) : lora__fail_memory(err);

	if (!status)
		status = list_files(signing, &text, &size, err);
	if (!status) {
		struct lora_message message = {.data = text, .size = size};

		status = emit(signature, signing, &message, LORA_LIST_NAME, err);
	}
	if (!status)
		status = write_list(list, sig, text, size, signature, err);
	free(text);
	free(list);
	free(sig);
	return status;
}

static enum lora_status sign_container(struct signing *signing, struct lora_error *err)
{
	struct lora_signable what;
	char signature[LORA_MINISIG_LIMIT];
	enum lora_status status = lora__container_signable(
	    &what, signing->path, &signing->key->public, signing->observer, err);
	struct lora_message message = {.data = what.bytes, .size = what.size};

	signing->name = what.name;
	if (!status && (!what.has_own || signing->options->comment)) {
		status = emit(signature, signing, &message, "manifest.json", err);
		if (!status)
			status = lora__container_add(signing->path, &what.digest, signature,
						     signing->observer, err);
	}
	lora__signable_fini(&what);
	return status;
}

enum lora_status lora_sign(const char *path, const struct lora_secret_key *key,
			   const struct lora_sign_options *options,
			   const struct lora_observer *observer, struct lora_error *err)
{
	static const struct lora_sign_options none = LORA_SIGN_OPTIONS_INIT;
	struct signing signing = {path, NULL, key, options ? options : &none, observer};
	enum lora_path_kind kind = LORA_PATH_ABSENT;
	char *name = lora__path_called(path);
	enum lora_status status = name ? lora__sodium(err) : lora__fail_memory(err);

	signing.name = name;
	if (!status)
		status = lora__path_kind(path, &kind, err);
	if (!status && lora_container_is(path))
		status = sign_container(&signing, err);
	else if (!status && kind == LORA_PATH_DIRECTORY)
		status = sign_directory(&signing, err);
	else if (!status && kind == LORA_PATH_FILE)
		status = sign_file(&signing, err);
	else if (!status)
		status = lora__fail(err, LORA_INPUT, "'%s' %s", lora__escape(path),
				    kind == LORA_PATH_ABSENT ? "does not exist"
							     : "is neither a file nor a directory");
	free(name);
	return status;
}
