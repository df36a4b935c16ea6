/* SPDX-License-Identifier: Apache-2.0 */
/* store/collect.c - which files of a directory make a version
 *
 * 1. All of them: what is left out is either nobody's content (a clone's .git, caches, leftovers of
 *    killed writers) or the state of a training run, which is larger than the adapter and which
 *    nobody needs who uses it; --all takes that too. Both are told.
 * 2. What cannot be packed is refused, not skipped: a version that lacks a file would be a lie.
 * 3. Symbolic links to files are followed where they stay in the directory, or in a store of blobs
 *    beside it, as in the hub cache. Others would publish somebody's file with the adapter.
 */
#include "store/collect.h"

#include "base/error.h"
#include "base/file.h"
#include "base/watch.h"
#include "formats/containers/lora.h"

#include <dirent.h>
#include <errno.h>
#include <fnmatch.h>
#include <stdlib.h>
#include <string.h>

#define DEPTH_LIMIT 16

static const char *const nobodys[] = {".git", ".cache", ".huggingface", ".*.loractl-??????", NULL};
static const char *const states[] = {
    "optimizer.pt",   "optimizer.bin",	   "scheduler.pt",	"scaler.pt",
    "rng_state*.pth", "checkpoint-[0-9]*", "global_step[0-9]*", NULL};

struct search {
	struct lora_collection *out;
	const char *top;
	bool all;
	const struct lora_observer *observer;
};

static bool matches(const char *name, const char *const *patterns)
{
	for (; *patterns; patterns++)
		if (fnmatch(*patterns, name, 0) == 0)
			return true;
	return false;
}

static enum lora_status add(struct search *search, const char *name, struct lora_error *err)
{
	struct lora_collection *out = search->out;
	const char **names = lora__manifest_room(out->names, out->count, sizeof(*names)), *copy;

	if (!names)
		return lora__fail_memory(err);
	out->names = names;
	copy = lora__arena_copy(&out->arena, name, strlen(name));
	if (!copy)
		return lora__fail_memory(err);
	if (out->count == LORA_FILES_MAX)
		return lora__fail(err, LORA_INPUT, "'%s' has more than %u files",
				  lora__escape(search->top), LORA_FILES_MAX);
	names[out->count++] = copy;
	return LORA_OK;
}

/* Invariant 3. */
static enum lora_status check_link(const struct search *search, const char *path, const char *name,
				   struct lora_error *err)
{
	static const char *const stores[] = {".", "../../blobs", "../blobs"};
	enum lora_status status = LORA_OK;
	bool stays = false;

	for (size_t i = 0; i < sizeof(stores) / sizeof(*stores) && !stays && !status; i++) {
		char *store = lora__path_join(search->top, stores[i]);

		status =
		    store ? lora__path_inside(path, store, &stays, err) : lora__fail_memory(err);
		free(store);
	}
	if (!status && !stays)
		status = lora__fail(err, LORA_INPUT,
				    "'%s': '%s' is a symbolic link that leads out of it: put the "
				    "file there, or remove the link",
				    lora__escape(search->top), lora__escape(name));
	return status;
}

static enum lora_status look_into(struct search *search, const char *path, const char *inside,
				  int depth, struct lora_error *err);

static enum lora_status take(struct search *search, const char *path, const char *name, int depth,
			     struct lora_error *err)
{
	enum lora_path_kind kind = LORA_PATH_OTHER;
	struct stat info;
	enum lora_status status = lora__path_kind(path, &kind, err);
	bool is_link = lstat(path, &info) == 0 && S_ISLNK(info.st_mode);

	if (status)
		return status;
	if (!lora__packed_name_ok(name))
		return lora__fail(err, LORA_INPUT,
				  "'%s': the name '%s' cannot be packed: names are UTF-8 without "
				  "control characters, at most %u bytes",
				  lora__escape(search->top), lora__escape(name),
				  LORA_FILE_NAME_MAX);
	if (kind == LORA_PATH_FILE) {
		status = is_link ? check_link(search, path, name, err) : LORA_OK;
		return status ? status : add(search, name, err);
	}
	if (kind == LORA_PATH_DIRECTORY && !is_link && depth < DEPTH_LIMIT)
		return look_into(search, path, name, depth + 1, err);
	return lora__fail(err, LORA_INPUT, "'%s': '%s' cannot be packed: it is %s",
			  lora__escape(search->top), lora__escape(name),
			  kind != LORA_PATH_DIRECTORY ? "neither a file nor a directory"
			  : is_link		      ? "a symbolic link to a directory"
						      : "nested too deep");
}

static enum lora_status take_entry(struct search *search, const char *path, const char *inside,
				   const char *entry, int depth, struct lora_error *err)
{
	char *from = lora__path_join(path, entry),
	     *name = *inside ? lora__path_join(inside, entry) : strdup(entry);
	enum lora_status status = from && name ? LORA_OK : lora__fail_memory(err);

	if (!status && matches(entry, nobodys)) {
		lora__note(search->observer, LORA_NOTE_INFO, "not packed: '%s'",
			   lora__escape(name));
	} else if (!status && !search->all && matches(entry, states)) {
		lora__note(search->observer, LORA_NOTE_INFO,
			   "not packed: '%s': the state of a training run (--all packs it)",
			   lora__escape(name));
		search->out->left_out++;
	} else if (!status) {
		status = take(search, from, name, depth, err);
	}
	free(from);
	free(name);
	return status;
}

static enum lora_status look_into(struct search *search, const char *path, const char *inside,
				  int depth, struct lora_error *err)
{
	DIR *dir = opendir(path);
	enum lora_status status =
	    dir ? LORA_OK : lora__fail_errno(err, "cannot list '%s'", lora__escape(path));

	while (!status) {
		struct dirent *entry;

		errno = 0;
		entry = readdir(dir);
		if (!entry) {
			if (errno)
				status =
				    lora__fail_system(err, "cannot list '%s'", lora__escape(path));
			break;
		}
		if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0)
			status = take_entry(search, path, inside, entry->d_name, depth, err);
	}
	if (dir)
		closedir(dir);
	return status;
}

static int by_name(const void *a, const void *b)
{
	const char *const *x = a, *const *y = b;

	return strcmp(*x, *y);
}

enum lora_status lora__collect(struct lora_collection *out, const char *directory, bool all,
			       const struct lora_observer *observer, struct lora_error *err)
{
	struct search search = {out, directory, all, observer};
	enum lora_status status = look_into(&search, directory, "", 0, err);

	if (!status && out->count)
		qsort(out->names, out->count, sizeof(*out->names), by_name);
	return status;
}

void lora__collection_fini(struct lora_collection *collection)
{
	lora__arena_fini(&collection->arena);
	free(collection->names);
	*collection = (struct lora_collection){0};
}
