/* SPDX-License-Identifier: Apache-2.0 */
/* trust/adapter.c - is this adapter, which is open already, one that was signed?
 *
 * An adapter is opened first and judged then, so that nothing can come between: what is compared
 * with the signed list are digests of the bytes that were parsed, and of the descriptors from which
 * the weights will be read (lora_adapter_parts()). The list and the signatures themselves are
 * looked up by name: whatever is found there counts only if a trusted key signed it.
 *
 * directory  its loractl-files.json has to list every part, with the same bytes; and no part that
 *            the adapter did not find (its binding, taken away)
 * one file   the same, by the list of the directory that it stands in; where there is none, every
 *            part has a .minisig of its own
 *
 * container  a signature of its has to be over the manifest that the adapter is read by
 *
 * Tested by tests/cli/merge_signed.sh
 */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/digest.h"
#include "base/error.h"
#include "trust/trust.h"

/* ---- by the list of a directory */

static enum lora_status add_line(void *user, const char *line, struct lora_error *err)
{
	return lora__trial_no(user, err, "%s", line);
}

static bool lists(const struct lora_listing *listing, const char *name)
{
	for (size_t i = 0; i < listing->count; i++)
		if (strcmp(listing->files[i].name, name) == 0)
			return true;
	return false;
}

static enum lora_status compare(struct lora_trial *trial, const struct lora_listing *want,
				struct lora_adapter *adapter, struct lora_error *err)
{
	struct lora_listing have = {.count = 0};
	const struct lora_adapter_part *parts;
	size_t count;
	enum lora_status status = lora_adapter_parts(adapter, &parts, &count, err);

	for (size_t i = 0; !status && i < count; i++) {
		if (parts[i].present)
			status = lora__listing_add(&have, parts[i].name, parts[i].size,
						   &parts[i].digest, NULL, err);
		else if (lists(want, parts[i].name))
			status = lora__trial_no(trial, err, "'%s' was removed",
						lora__escape(parts[i].name));
	}
	lora__listing_sort(&have);
	if (!status)
		status = lora__listing_compare(want, &have, true, add_line, trial, err);
	lora__listing_fini(&have);
	return status;
}

static enum lora_status judge_directory(struct lora_trial *trial, struct lora_adapter *adapter,
					int fd, struct lora_error *err)
{
	struct lora_listing want = {.count = 0};
	char *text = NULL;
	size_t size;
	enum lora_status status = lora__verify_list(trial, fd, trial->path, &text, &size, err);

	trial->verdict.kind = "directory";
	if (!status && trial->accepted) {
		status = lora__listing_parse(&want, text, size, err);
		if (!status)
			status = compare(trial, &want, adapter, err);
	}
	lora__listing_fini(&want);
	free(text);
	return lora__context(err, status, "'%s'", lora__escape(trial->path));
}

/* ---- by a signature for every part */

/* A part's own signature, over a file with the digest of the part. Adds what is wrong to `lines`.
 */
static enum lora_status judge_part(struct lora_trial *trial, const char *folder,
				   const struct lora_adapter_part *part, struct lora_error *err)
{
	struct lora_verify_options options = *trial->options;
	char *path = lora__path_join(folder, part->name);
	struct lora_verdict *verdict = NULL;
	struct lora_error own = LORA_ERROR_INIT;
	enum lora_status status;

	if (!path)
		return lora__fail_memory(err);
	options.lock = NULL;
	status = lora_verify(&verdict, path, &options, trial->observer, &own);
	if (status == LORA_NO)
		status = lora__trial_no(trial, err, "%s", own.message);
	else if (status)
		lora__fail(err, status, "%s", own.message);
	else if (strcmp(verdict->kind, "file") != 0 ||
		 !lora__sha256_equal(&verdict->digest, &part->digest))
		status = lora__trial_no(trial, err, "'%s' changed after it was opened",
					lora__escape(part->name));
	lora_verdict_free(verdict);
	free(path);
	return status;
}

/* Its weights carry the verdict: their name is the adapter's. */
static enum lora_status judge_parts(struct lora_trial *trial, struct lora_adapter *adapter,
				    const char *folder, struct lora_error *err)
{
	const struct lora_adapter_part *parts;
	size_t count;
	enum lora_status status = lora_adapter_parts(adapter, &parts, &count, err);

	for (size_t i = 0; !status && i < count; i++)
		if (parts[i].present)
			status = judge_part(trial, folder, &parts[i], err);
	if (!status && !trial->verdict.problem_count)
		status = lora__verify_path(trial, err);
	for (size_t i = 0; !status && trial->accepted && i < count; i++)
		if (strcmp(parts[i].name, trial->called) == 0 &&
		    !lora__sha256_equal(&trial->verdict.digest, &parts[i].digest))
			status = lora__trial_no(trial, err, "it changed after it was opened");
	return status;
}

/* ---- the door */

/* Is there a list in the folder? */
static bool has_list(const char *folder)
{
	char *path = lora__path_join(folder, LORA_LIST_NAME);
	enum lora_path_kind kind = LORA_PATH_ABSENT;
	bool there =
	    path && lora__path_kind(path, &kind, NULL) == LORA_OK && kind != LORA_PATH_ABSENT;

	free(path);
	return there;
}

static enum lora_status judge(struct lora_verdict **out, struct lora_adapter *adapter,
			      const char *folder, bool listed,
			      const struct lora_verify_options *options,
			      const struct lora_observer *observer, struct lora_error *err)
{
	struct lora_trial *trial = NULL;
	enum lora_status status = lora__trial_new(
	    &trial, listed ? folder : lora_adapter_path(adapter), options, observer, err);
	int fd;

	if (status)
		return status;
	fd = listed ? open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC) : -1;
	if (!listed)
		status = judge_parts(trial, adapter, folder, err);
	else if (fd < 0)
		status = lora__fail_errno(err, "cannot open '%s'", lora__escape(folder));
	else
		status = judge_directory(trial, adapter, fd, err);
	if (fd >= 0)
		(void)close(fd);
	return lora__trial_end_take(trial, status, out, err);
}

/* Its manifest is the one that was signed; and every byte that is read of it is checked against
 * that. */
static enum lora_status judge_container(struct lora_verdict **out,
					const struct lora_adapter *adapter,
					const struct lora_verify_options *options,
					const struct lora_observer *observer,
					struct lora_error *err)
{
	struct lora_trial *trial = NULL;
	enum lora_status status =
	    lora__trial_new(&trial, lora_adapter_path(adapter), options, observer, err);

	if (status)
		return status;
	status = lora__verify_container(trial, lora_adapter_manifest(adapter), err);
	return lora__trial_end_take(trial, status, out, err);
}

enum lora_status lora_verify_adapter(struct lora_verdict **out, struct lora_adapter *adapter,
				     const struct lora_verify_options *options,
				     const struct lora_observer *observer, struct lora_error *err)
{
	const char *path = lora_adapter_path(adapter), *slash = strrchr(path, '/');
	enum lora_path_kind kind = LORA_PATH_ABSENT;
	enum lora_status status = lora__path_kind(path, &kind, err);
	char *folder = kind == LORA_PATH_DIRECTORY ? strdup(path)
		       : slash			   ? strndup(path, (size_t)(slash - path) + 1)
						   : strdup(".");

	*out = NULL;
	if (lora_adapter_manifest(adapter)) {
		free(folder);
		return judge_container(out, adapter, options, observer, err);
	}
	if (!status && !folder)
		status = lora__fail_memory(err);
	if (!status)
		status =
		    judge(out, adapter, folder, kind == LORA_PATH_DIRECTORY || has_list(folder),
			  options, observer, err);
	free(folder);
	return status;
}
