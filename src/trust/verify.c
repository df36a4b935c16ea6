/* SPDX-License-Identifier: Apache-2.0 */
/* trust/verify.c - from a path to a verdict
 *
 *	directory	   loractl-files.json.minisig over loractl-files.json, which lists the files
 *	public key	   is it in the keyring, and does it count?
 *	in-toto statement  the envelope's own signature, and the files that it is about
 *	container	   signatures in it: container.c
 *	any other file	   PATH.minisig
 *
 * 1. The artifact is opened once, before anything is decided about it; what is hashed is what that
 *    descriptor holds, and it must not change meanwhile.
 * 2. Nothing is parsed before its signature is right, but the signature.
 * 3. A missing signature is a "no" (nobody vouches for it), a malformed one cannot be judged. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/error.h"
#include "trust/envelope.h"

enum lora_status lora__file_open_at(struct lora_file *file, int parent, const char *name,
				    const char *folder, bool *present, struct lora_error *err)
{
	*file = (struct lora_file)LORA_FILE_INIT;
	*present = true;
	file->path = lora__path_join(folder, name);
	if (!file->path)
		return lora__fail_memory(err);
	file->fd = openat(parent, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NOCTTY | O_NONBLOCK);
	if (file->fd < 0 && errno == ENOENT) {
		*present = false;
		return LORA_OK;
	}
	if (file->fd < 0 && errno == ELOOP)
		return lora__fail(err, LORA_INPUT, "'%s' is a symbolic link: put the file there",
				  lora__escape(file->path));
	if (file->fd < 0 || fstat(file->fd, &file->stat) != 0)
		return lora__fail_system(err, "cannot open '%s'", lora__escape(file->path));
	if (!S_ISREG(file->stat.st_mode))
		return lora__fail(err, LORA_INPUT, "'%s' is no file", lora__escape(file->path));
	file->size = (uint64_t)file->stat.st_size;
	return LORA_OK;
}

/* The whole text of a small file that is open. malloc'd. */
static enum lora_status read_all(const struct lora_file *file, size_t limit, char **text,
				 struct lora_error *err)
{
	enum lora_status status;

	*text = NULL;
	if (file->size > limit)
		return lora__fail(err, LORA_INPUT, "'%s' has %llu bytes: at most %zu are read",
				  lora__escape(file->path), (unsigned long long)file->size, limit);
	*text = calloc(1, (size_t)file->size + 1);
	if (!*text)
		return lora__fail_memory(err);
	status = lora__file_read(file, 0, *text, (size_t)file->size, err);
	return status ? status : lora__file_unchanged(file, err);
}

/* ---- a file */

/* malloc'd; NULL without memory. */
static char *signature_path(const char *path)
{
	char *out;

	return asprintf(&out, "%s.minisig", path) < 0 ? NULL : out;
}

static enum lora_status judge_file(struct lora_trial *trial, const struct lora_file *file,
				   const char *path, bool is_signed, struct lora_error *err)
{
	struct lora_message message = {.file = file};
	enum lora_status status;
	char *text = NULL;
	size_t size;

	if (!is_signed)
		return lora__trial_no(trial, err, "it is not signed: there is no '%s'",
				      lora__escape(path));
	status = lora__file_slurp(path, LORA_MINISIG_LIMIT, &text, &size, err);
	if (!status) {
		status = lora__trial_signature(trial, text, size, &message, "file:", err);
		lora__context(err, status, "'%s'", lora__escape(path));
	}
	free(text);
	return status;
}

/* What says by itself who vouches for it: a public key, or a statement. *done unless it is neither
 * (or has a .minisig, which then counts). */
static enum lora_status judge_special(struct lora_trial *trial, const struct lora_file *file,
				      bool *done, struct lora_error *err)
{
	struct lora_public_key key;
	size_t size = (size_t)file->size;
	char *text = NULL;
	enum lora_status status;

	*done = false;
	if (file->size > LORA_ENVELOPE_LIMIT)
		return LORA_OK;
	status = read_all(file, LORA_ENVELOPE_LIMIT, &text, err);
	if (!status && lora__public_parse(&key, text, size, NULL) == LORA_OK) {
		*done = true;
		trial->verdict.kind = "key";
		status = lora__trial_key(trial, &key, err);
	} else if (!status && lora__envelope_probe(text, size)) {
		*done = true;
		status = lora__trial_statement(trial, text, size, err);
	}
	free(text);
	return status;
}

static enum lora_status verify_file(struct lora_trial *trial, struct lora_error *err)
{
	struct lora_file file = LORA_FILE_INIT;
	char *path = NULL;
	bool done = false;
	enum lora_path_kind kind = LORA_PATH_ABSENT;
	enum lora_status status = lora__file_open(&file, trial->path, err);

	trial->verdict.kind = "file";
	if (!status && !(path = signature_path(trial->path)))
		status = lora__fail_memory(err);
	if (!status)
		status = lora__path_kind(path, &kind, err);
	if (!status && kind == LORA_PATH_ABSENT)
		status = judge_special(trial, &file, &done, err);
	if (!status && !done)
		status = judge_file(trial, &file, path, kind != LORA_PATH_ABSENT, err);
	lora__file_close(&file);
	free(path);
	return status;
}

/* ---- a directory */

static enum lora_status add_line(void *user, const char *line, struct lora_error *err)
{
	return lora__trial_no(user, err, "%s", line);
}

static enum lora_status compare_files(struct lora_trial *trial, int fd, const char *text,
				      size_t size, struct lora_error *err)
{
	struct lora_listing want = {.count = 0}, have = {.count = 0};
	enum lora_status status = lora__listing_parse(&want, text, size, err);

	if (!status)
		status = lora__listing_read(&have, fd, trial->path, trial->observer, err);
	if (!status)
		status = lora__listing_compare(&want, &have, false, add_line, trial, err);
	lora__listing_fini(&want);
	lora__listing_fini(&have);
	return status;
}

/* Both files are there and open. */
static enum lora_status judge_list(struct lora_trial *trial, const struct lora_file *list,
				   const struct lora_file *sig, char **text, struct lora_error *err)
{
	struct lora_message message = {.size = (size_t)list->size};
	char *signature = NULL;
	enum lora_status status = read_all(list, LORA_LIST_LIMIT, text, err);

	if (!status)
		status = read_all(sig, LORA_MINISIG_LIMIT, &signature, err);
	message.data = *text;
	if (!status)
		status = lora__trial_signature(trial, signature, (size_t)sig->size, &message,
					       "name:", err);
	free(signature);
	return status;
}

enum lora_status lora__verify_list(struct lora_trial *trial, int fd, const char *folder,
				   char **text, size_t *size, struct lora_error *err)
{
	struct lora_file list = LORA_FILE_INIT, sig = LORA_FILE_INIT;
	bool listed = false, is_signed = false;
	enum lora_status status =
	    lora__file_open_at(&list, fd, LORA_LIST_NAME, folder, &listed, err);

	*text = NULL;
	if (!status)
		status = lora__file_open_at(&sig, fd, LORA_LIST_SIG, folder, &is_signed, err);
	if (!status && (!listed || !is_signed))
		status = lora__trial_no(trial, err, "it is not signed: there is no '%s' in it",
					listed ? LORA_LIST_SIG : LORA_LIST_NAME);
	else if (!status)
		status = judge_list(trial, &list, &sig, text, err);
	*size = (size_t)list.size;
	lora__file_close(&list);
	lora__file_close(&sig);
	return status;
}

static enum lora_status verify_directory(struct lora_trial *trial, struct lora_error *err)
{
	int fd = open(trial->path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	enum lora_status status = LORA_OK;
	char *text = NULL;
	size_t size;

	trial->verdict.kind = "directory";
	if (fd < 0)
		return lora__fail_errno(err, "cannot open '%s'", lora__escape(trial->path));
	status = lora__verify_list(trial, fd, trial->path, &text, &size, err);
	if (!status && trial->accepted)
		status = compare_files(trial, fd, text, size, err);
	(void)close(fd);
	free(text);
	return lora__context(err, status, "'%s'", lora__escape(trial->path));
}

/* ---- any path */

enum lora_status lora__verify_path(struct lora_trial *trial, struct lora_error *err)
{
	enum lora_path_kind kind = LORA_PATH_ABSENT;
	enum lora_status status = lora__path_kind(trial->path, &kind, err);

	if (status)
		return status;
	if (lora_container_is(trial->path))
		return lora__verify_container(trial, NULL, err);
	if (kind == LORA_PATH_DIRECTORY)
		return verify_directory(trial, err);
	if (kind == LORA_PATH_FILE)
		return verify_file(trial, err);
	return lora__fail(err, LORA_INPUT, "'%s' %s", lora__escape(trial->path),
			  kind == LORA_PATH_ABSENT ? "does not exist"
						   : "is neither a file nor a directory");
}

enum lora_status lora_verify(struct lora_verdict **out, const char *path,
			     const struct lora_verify_options *options,
			     const struct lora_observer *observer, struct lora_error *err)
{
	struct lora_trial *trial = NULL;
	enum lora_status status = lora__trial_new(&trial, path, options, observer, err);

	*out = NULL;
	if (status)
		return status;
	status = lora__verify_path(trial, err);
	return lora__trial_end_take(trial, status, out, err);
}
