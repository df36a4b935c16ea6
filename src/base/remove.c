/* SPDX-License-Identifier: Apache-2.0 */
/* base/remove.c - removing a directory and all that is in it
 *
 * 1. It must work when memory has run out, for then there is most to clean up: directories are read
 *    with getdents64() into a buffer on the stack (readdir() wants memory).
 * 2. It goes from descriptor to descriptor and never follows a symbolic link: whoever puts one into
 *    the tree loses the link, nobody loses what it points to.
 * 3. The kernel may skip names while others are being removed, and other threads may still be
 *    writing: so a directory is read again until it is gone, a few times.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "base/remove.h"

#define ROUNDS 8

static bool remove_inside(int directory);

static bool is_dots(const char *name)
{
	return strcmp(name, ".") == 0 || strcmp(name, "..") == 0;
}

static bool remove_directory(int parent, const char *name)
{
	for (int round = 0; round < ROUNDS; round++) {
		bool emptied;
		int directory, saved;

		if (unlinkat(parent, name, AT_REMOVEDIR) == 0 || errno == ENOENT)
			return true;
		if (errno != ENOTEMPTY && errno != EEXIST)
			return false;
		directory = openat(parent, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
		if (directory < 0)
			return errno == ENOENT;
		emptied = remove_inside(directory);
		saved = errno;
		(void)close(directory);
		errno = saved;
		if (!emptied)
			return false;
	}
	return false;
}

/* Goes on after a failure, to leave as little as possible; errno is the first one's. */
static bool remove_inside(int directory)
{
	_Alignas(struct dirent64) char buffer[2048];
	int failure = 0;
	ssize_t size;

	while ((size = getdents64(directory, buffer, sizeof buffer)) > 0) {
		const struct dirent64 *entry;

		for (ssize_t at = 0; at < size; at += entry->d_reclen) {
			entry = (const struct dirent64 *)(const void *)(buffer + at);
			if (!is_dots(entry->d_name) && !lora__remove(directory, entry->d_name) &&
			    failure == 0)
				failure = errno;
		}
	}
	if (size < 0 && failure == 0)
		failure = errno;
	errno = failure;
	return failure == 0;
}

bool lora__remove(int parent, const char *name)
{
	if (unlinkat(parent, name, 0) == 0 || errno == ENOENT)
		return true;
	/* Linux says EISDIR for a directory; POSIX, EPERM. */
	return (errno == EISDIR || errno == EPERM) && remove_directory(parent, name);
}
