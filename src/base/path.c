/* SPDX-License-Identifier: Apache-2.0 */
/* base/path.c - what paths name
 *
 * "Inside" is a question about files, not about spellings: `out` may be a symbolic link into the
 * base, `a/../b` is not inside `a`, and a bind mount gives one directory two names. So both paths
 * are resolved as far as they exist, and then every directory above the inner one is compared with
 * the outer by device and inode as well as by name.
 */
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/error.h"
#include "base/file.h"

static bool is_missing(int error)
{
	return error == ENOENT || error == ENOTDIR;
}

enum lora_status lora__path_kind(const char *path, enum lora_path_kind *kind,
				 struct lora_error *err)
{
	struct stat info;

	*kind = LORA_PATH_ABSENT;
	if (stat(path, &info) != 0) {
		if (is_missing(errno))
			return LORA_OK;
		return lora__fail_system(err, "cannot examine '%s'", lora__escape(path));
	}
	*kind = S_ISREG(info.st_mode)	? LORA_PATH_FILE
		: S_ISDIR(info.st_mode) ? LORA_PATH_DIRECTORY
					: LORA_PATH_OTHER;
	return LORA_OK;
}

char *lora__path_join(const char *dir, const char *name)
{
	size_t head = strlen(dir), size = head + strlen(name) + 2;
	bool slash = head > 0 && dir[head - 1] != '/';
	char *path = malloc(size);

	if (path != NULL)
		(void)snprintf(path, size, "%s%s%s", dir, slash ? "/" : "", name);
	return path;
}

bool lora__path_is_plain(const char *name)
{
	if (name[0] == '\0' || strcmp(name, ".") == 0 || strcmp(name, "..") == 0)
		return false;
	for (; *name != '\0'; name++)
		if ((unsigned char)*name < 0x20 || *name == 0x7f || *name == '/')
			return false;
	return true;
}

/* Appends to the resolved, absolute path a rest that does not exist: nothing is left to be
 * followed, so that "." and ".." can be taken by the letter. `room` bytes are at path. */
static bool append_missing(char *path, size_t room, const char *rest)
{
	while (*rest != '\0') {
		size_t size = strcspn(rest, "/"), length = strlen(path);

		if (size == 2 && memcmp(rest, "..", 2) == 0) {
			char *last = strrchr(path, '/');

			last[last == path] = '\0';
		} else if (size > 0 && !(size == 1 && *rest == '.')) {
			bool slash = length > 1;

			if (length + slash + size >= room)
				return false;
			if (slash)
				path[length++] = '/';
			memcpy(path + length, rest, size);
			path[length + size] = '\0';
		}
		rest += size + (rest[size] == '/');
	}
	return true;
}

/* The absolute path without symbolic links, ".", ".."; the part that does not exist stays as it is.
 * malloc'd. */
static enum lora_status resolve(const char *path, char **out, struct lora_error *err)
{
	enum lora_status status = LORA_OK;
	char *found = malloc(PATH_MAX), *head = strdup(path);
	size_t cut = strlen(path);

	*out = NULL;
	if (found == NULL || head == NULL) {
		status = lora__fail_memory(err);
		goto out;
	}
	while (realpath(cut == 0 ? (path[0] == '/' ? "/" : ".") : head, found) == NULL) {
		if (!is_missing(errno) || cut == 0) {
			status = lora__fail_system(err, "cannot resolve '%s'", lora__escape(path));
			goto out;
		}
		while (cut > 0 && head[cut - 1] == '/')
			cut--;
		while (cut > 0 && head[cut - 1] != '/')
			cut--;
		head[cut] = '\0';
	}
	if (!append_missing(found, PATH_MAX, path + cut)) {
		errno = ENAMETOOLONG;
		status = lora__fail_system(err, "cannot resolve '%s'", lora__escape(path));
		goto out;
	}
	*out = found;
	found = NULL;
out:
	free(found);
	free(head);
	return status;
}

static bool same_file(const char *path, const struct stat *other)
{
	struct stat info;

	return stat(path, &info) == 0 && info.st_dev == other->st_dev &&
	       info.st_ino == other->st_ino;
}

enum lora_status lora__path_inside(const char *inner, const char *outer, bool *inside,
				   struct lora_error *err)
{
	char *below = NULL, *above = NULL;
	enum lora_status status;
	struct stat info;
	bool exists;

	*inside = false;
	status = resolve(inner, &below, err);
	if (status == LORA_OK)
		status = resolve(outer, &above, err);
	if (status != LORA_OK)
		goto out;
	exists = stat(above, &info) == 0;
	for (;;) {
		char *slash = strrchr(below, '/');

		*inside = strcmp(below, above) == 0 || (exists && same_file(below, &info));
		if (*inside || below[1] == '\0')
			break;
		slash[slash == below] = '\0'; /* to the directory above */
	}
out:
	free(below);
	free(above);
	return status;
}
