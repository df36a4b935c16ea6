/* SPDX-License-Identifier: Apache-2.0 */
/* merge/target.c - may a merge write there? The decision about what stands at an output's place.
 *
 * 1. An output never is, lies inside, or contains an input.
 * 2. What exists is replaced only with --force, and only if it is a model that we merged: its
 *    receipt describes the weight files beside it.
 * 3. Even then nothing may be in it that the merge would not write again: every file is one of the
 *    receipt's weight files, the receipt, or a file that this merge writes under that name. The
 *    first in order of name that is neither is a stranger, and named.
 * 4. A receipt without an output, and a symbolic link that leads nowhere, are somebody else's.
 */
#include "merge/target.h"

#include "base/error.h"
#include "merge/sidecar.h"

#include <dirent.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum lora_status lora__target_outside(const char *output, const char *input, struct lora_error *err)
{
	bool inside = false, around = false;
	enum lora_status status = lora__path_inside(output, input, &inside, err);

	if (!status && !inside)
		status = lora__path_inside(input, output, &around, err);
	if (!status && (inside || around))
		return lora__fail(err, LORA_USAGE, "output '%s' %s '%s': choose another place",
				  lora__escape(output),
				  inside ? "is, or lies inside, the input" : "contains the input",
				  lora__escape(input));
	return status;
}

/* --- strangers in a model of ours ---------------------------------------------------------------
 */

struct walk {
	const struct lora_plan *plan;
	const char *output;
	const struct lora_json *receipt;
};

/* Is `name`, relative to the output, a file that the receipt names, or the receipt? */
static bool is_described(const struct walk *walk, const char *name)
{
	const struct lora_json *file = lora__receipt_files(walk->receipt);

	for (; file; file = lora__json_next(file))
		if (strcmp(lora__json_string(lora__json_get(file, "name")), name) == 0)
			return true;
	return strcmp(name, LORA_RECEIPT_FILE) == 0;
}

static enum lora_status walk_directory(const struct walk *walk, const char *inside,
				       struct lora_error *err);

static enum lora_status walk_entry(const struct walk *walk, const char *inside, const char *entry,
				   struct lora_error *err)
{
	char *name = *inside ? lora__path_join(inside, entry) : strdup(entry);
	char *path = name ? lora__path_join(walk->output, name) : NULL;
	enum lora_status status = LORA_OK;
	struct stat info;
	bool known = false;

	if (!path)
		status = lora__fail_memory(err);
	else if (lstat(path, &info) != 0)
		status = lora__fail_errno(err, "cannot examine '%s'", lora__escape(path));
	if (status)
		goto out;
	if (S_ISREG(info.st_mode))
		known = is_described(walk, name) || lora__sidecar_expected(walk->plan, name, false);
	else if (S_ISDIR(info.st_mode))
		known = lora__sidecar_expected(walk->plan, name, true);
	if (!known)
		status = lora__fail(err, LORA_USAGE,
				    "output '%s' holds '%s', which no merge of this base writes: "
				    "move it away, or choose another place",
				    lora__escape(walk->output), lora__escape(name));
	else if (S_ISDIR(info.st_mode))
		status = walk_directory(walk, name, err);
out:
	free(name);
	free(path);
	return status;
}

/* Only directories that the base has too are entered, so the depth is the base's. */
static enum lora_status walk_directory(const struct walk *walk, const char *inside,
				       struct lora_error *err)
{
	char *path = *inside ? lora__path_join(walk->output, inside) : strdup(walk->output);
	struct dirent **entries = NULL;
	int count = path ? scandir(path, &entries, NULL, alphasort) : 0;
	enum lora_status status = path ? LORA_OK : lora__fail_memory(err);

	if (count < 0)
		status = lora__fail_errno(err, "cannot list '%s'", lora__escape(path));
	for (int i = 0; i < count; i++) {
		const char *name = entries[i]->d_name;

		if (!status && strcmp(name, ".") != 0 && strcmp(name, "..") != 0)
			status = walk_entry(walk, inside, name, err);
		free(entries[i]);
	}
	free(entries);
	free(path);
	return status;
}

/* --- the decision -------------------------------------------------------------------------------
 */

/* With --force: what stands there is of the same kind, ours, and has nothing of anybody else. */
static enum lora_status check_ours(const struct lora_plan *plan, const char *output,
				   enum lora_path_kind kind, bool is_link, struct lora_error *err)
{
	bool directory = plan->base->directory;
	struct walk walk = {plan, output, NULL};
	struct lora_json *receipt = NULL;
	enum lora_status status = LORA_OK;

	if (is_link || kind != (directory ? LORA_PATH_DIRECTORY : LORA_PATH_FILE) ||
	    lora__receipt_load(&receipt, output, directory, NULL) != LORA_OK)
		return lora__fail(err, LORA_USAGE,
				  "output '%s' exists and is no model that loractl wrote: remove "
				  "it yourself",
				  lora__escape(output));
	walk.receipt = receipt;
	if (directory)
		status = walk_directory(&walk, "", err);
	lora__json_free(receipt);
	return status;
}

static enum lora_status check_existing(const struct lora_plan *plan, const char *output,
				       struct lora_error *err)
{
	enum lora_path_kind kind = LORA_PATH_ABSENT, beside = LORA_PATH_ABSENT;
	char *receipt = lora__receipt_path(output, plan->base->directory);
	struct stat link;
	bool there = lstat(output, &link) == 0;
	enum lora_status status =
	    receipt ? lora__path_kind(output, &kind, err) : lora__fail_memory(err);

	if (!status)
		status = lora__path_kind(receipt, &beside, err);
	if (status)
		goto out;
	if (kind == LORA_PATH_ABSENT && !there) {
		if (beside != LORA_PATH_ABSENT)
			status = lora__fail(err, LORA_USAGE,
					    "'%s' exists without '%s': remove it yourself",
					    lora__escape(receipt), lora__escape(output));
	} else if (!plan->options->force) {
		status = lora__fail(err, LORA_USAGE, "output '%s' exists: remove it%s",
				    lora__escape(output),
				    plan->options->expect ? "" : ", or use --force");
	} else {
		status = check_ours(plan, output, kind, there && S_ISLNK(link.st_mode), err);
	}
out:
	free(receipt);
	return status;
}

/* A record is never replaced, --force or not: it may be the only way back from another model, and
 * between two replacements a kill would leave a model beside the wrong record. */
static enum lora_status check_record(const char *path, struct lora_error *err)
{
	struct stat info;

	if (lstat(path, &info) == 0)
		return lora__fail(
		    err, LORA_USAGE,
		    "'%s' exists, and may be a record that somebody needs: choose another "
		    "name for --undo, or remove it",
		    lora__escape(path));
	return errno == ENOENT || errno == ENOTDIR
		   ? LORA_OK
		   : lora__fail_errno(err, "cannot examine '%s'", lora__escape(path));
}

static enum lora_status check_undo(const struct lora_plan *plan, const char *output,
				   struct lora_error *err)
{
	const char *path = plan->options->undo;
	bool inside = false;
	enum lora_status status = lora__target_outside(path, plan->base->path, err);

	for (size_t a = 0; a < plan->input_count && !status; a++)
		status = lora__target_outside(path, plan->inputs[a].adapter->path, err);
	if (!status)
		status = lora__path_inside(path, output, &inside, err);
	if (!status && inside)
		return lora__fail(
		    err, LORA_USAGE,
		    "the undo record '%s' would lie inside the output: choose another "
		    "place",
		    lora__escape(path));
	return status ? status : check_record(path, err);
}

enum lora_status lora__target_check(const struct lora_plan *plan, const char *output,
				    struct lora_error *err)
{
	enum lora_status status = LORA_OK;

	if (!output)
		return LORA_OK;
	status = lora__target_outside(output, plan->base->path, err);
	for (size_t a = 0; a < plan->input_count && !status; a++)
		status = lora__target_outside(output, plan->inputs[a].adapter->path, err);
	if (!status)
		status = check_existing(plan, output, err);
	return status || !plan->options->undo ? status : check_undo(plan, output, err);
}
