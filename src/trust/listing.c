/* SPDX-License-Identifier: Apache-2.0 */
/* trust/listing.c - a directory as a list of files, each opened once
 *
 * 1. Everything is reached from the descriptor of the directory, part by part, with O_NOFOLLOW:
 *    no link is followed, and a name that comes to mean something else meanwhile is found out by
 *    what was opened, not by what was named.
 * 2. A file is hashed through the descriptor that its size came from, and must be the same
 *    afterwards.
 * 3. What is neither a file nor a directory is listed as what it is: a signature cannot be about
 *    it. Directories are names of their files and nothing more; an empty one is not listed.
 * 4. The list and its own signature, at the top, are not in the list. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/error.h"
#include "trust/trust.h"

/* One walk. */
struct walk {
	struct lora_listing *listing;
	const char *path; /* of the top, for messages */
	const struct lora_observer *observer;
	unsigned depth;
};

void lora__listing_fini(struct lora_listing *listing)
{
	lora__arena_fini(&listing->arena);
	free(listing->files);
	*listing = (struct lora_listing){0};
}

enum lora_status lora__listing_add(struct lora_listing *listing, const char *name, uint64_t size,
				   const struct lora_sha256 *digest, const char *other,
				   struct lora_error *err)
{
	struct lora_listed *entry;

	if (listing->count == LORA_LIST_FILES)
		return lora__fail(err, LORA_INPUT, "it holds more than %zu files", LORA_LIST_FILES);
	if (listing->count == listing->capacity) {
		size_t capacity = listing->capacity ? listing->capacity * 2 : 16;
		struct lora_listed *grown =
		    realloc(listing->files, capacity * sizeof(*listing->files));

		if (!grown)
			return lora__fail_memory(err);
		listing->files = grown;
		listing->capacity = capacity;
	}
	entry = &listing->files[listing->count];
	*entry = (struct lora_listed){.other = other, .size = size};
	entry->name = lora__arena_copy(&listing->arena, name, strlen(name));
	if (!entry->name)
		return lora__fail_memory(err);
	if (digest)
		entry->digest = *digest;
	listing->count++;
	return LORA_OK;
}

static int by_name(const void *a, const void *b)
{
	return strcmp(((const struct lora_listed *)a)->name, ((const struct lora_listed *)b)->name);
}

void lora__listing_sort(struct lora_listing *listing)
{
	if (listing->count)
		qsort(listing->files, listing->count, sizeof(*listing->files), by_name);
}

static enum lora_status walk_directory(struct walk *walk, int fd, const char *prefix,
				       struct lora_error *err);

static const char *other_kind(mode_t mode)
{
	return S_ISLNK(mode)	? "a symbolic link"
	       : S_ISFIFO(mode) ? "a pipe"
	       : S_ISSOCK(mode) ? "a socket"
				: "a device";
}

/* Hashes the open file `fd`, and closes it. */
static enum lora_status add_file(struct walk *walk, int fd, const struct stat *info,
				 const char *name, struct lora_error *err)
{
	struct lora_file file = {.fd = fd, .size = (uint64_t)info->st_size, .stat = *info};
	struct lora_message message = {.file = &file};
	struct lora_sha256 digest;
	enum lora_status status;

	file.path = lora__path_join(walk->path, name);
	status = file.path ? lora__message_hash(&message, NULL, &digest, walk->observer, err)
			   : lora__fail_memory(err);
	if (!status)
		status = lora__listing_add(walk->listing, name, file.size, &digest, NULL, err);
	lora__file_close(&file);
	return status;
}

/* The entry `name` (below the top: `whole`) of the directory `parent`. */
static enum lora_status add_entry(struct walk *walk, int parent, const char *name,
				  const char *whole, struct lora_error *err)
{
	/* O_NONBLOCK: opening a pipe would wait. */
	int fd = openat(parent, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NOCTTY | O_NONBLOCK);
	struct stat info;
	enum lora_status status;

	if (fd < 0 && (errno == ELOOP || errno == ENXIO)) { /* a link; a socket */
		if (fstatat(parent, name, &info, AT_SYMLINK_NOFOLLOW) == 0 &&
		    !S_ISREG(info.st_mode) && !S_ISDIR(info.st_mode))
			return lora__listing_add(walk->listing, whole, 0, NULL,
						 other_kind(info.st_mode), err);
	}
	if (fd < 0 || fstat(fd, &info) != 0) {
		status = lora__fail_system(err, "cannot open '%s' in '%s'", lora__escape(whole),
					   lora__escape(walk->path));
		if (fd >= 0)
			(void)close(fd);
		return status;
	}
	if (S_ISREG(info.st_mode))
		return add_file(walk, fd, &info, whole, err);
	if (S_ISDIR(info.st_mode)) /* which closes fd */
		return walk_directory(walk, fd, whole, err);
	(void)close(fd);
	return lora__listing_add(walk->listing, whole, 0, NULL, other_kind(info.st_mode), err);
}

static bool is_skipped(const char *prefix, const char *name)
{
	return strcmp(name, ".") == 0 || strcmp(name, "..") == 0 ||
	       (!*prefix &&
		(strcmp(name, LORA_LIST_NAME) == 0 || strcmp(name, LORA_LIST_SIG) == 0));
}

/* Closes fd. */
static enum lora_status walk_directory(struct walk *walk, int fd, const char *prefix,
				       struct lora_error *err)
{
	enum lora_status status = LORA_OK;
	struct dirent *entry;
	DIR *dir = fdopendir(fd);

	if (!dir) {
		status = lora__fail_system(err, "cannot list '%s'", lora__escape(walk->path));
		(void)close(fd);
		return status;
	}
	if (++walk->depth > LORA_LIST_DEPTH)
		status = lora__fail(err, LORA_INPUT, "'%s' has directories %d deep: at most %d",
				    lora__escape(walk->path), walk->depth, LORA_LIST_DEPTH);
	while (!status && (errno = 0, entry = readdir(dir)) != NULL) {
		char *whole;

		if (is_skipped(prefix, entry->d_name))
			continue;
		whole = *prefix ? lora__path_join(prefix, entry->d_name) : strdup(entry->d_name);
		status = whole ? add_entry(walk, dirfd(dir), entry->d_name, whole, err)
			       : lora__fail_memory(err);
		free(whole);
	}
	if (!status && errno != 0)
		status = lora__fail_system(err, "cannot list '%s'", lora__escape(walk->path));
	walk->depth--;
	(void)closedir(dir);
	return status;
}

enum lora_status lora__listing_read(struct lora_listing *listing, int fd, const char *path,
				    const struct lora_observer *observer, struct lora_error *err)
{
	struct walk walk = {listing, path, observer, 0};
	int own = openat(fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC); /* it will be closed */
	enum lora_status status =
	    own < 0 ? lora__fail_system(err, "cannot list '%s'", lora__escape(path))
		    : walk_directory(&walk, own, "", err);

	lora__listing_sort(listing);
	return status;
}
