/* SPDX-License-Identifier: Apache-2.0 */
/* base/place.c - publishing a file or directory under its name at once
 *
 * renameat2() has the two operations that are needed, each of them indivisible: NOREPLACE, which
 * fails if the name is taken, and EXCHANGE, which swaps two names. Where a file system has neither,
 * these stand in:
 *
 *	NOREPLACE, file        link() fails if the name is taken; then the temporary name goes
 *	NOREPLACE, directory   a look whether the name is free, then rename() (which fails by
 *	                       itself where a file or a directory with something in it stands)
 *	EXCHANGE, file         the old file gets a second, temporary name; then rename() over it
 *	EXCHANGE, directory    two renames; for a moment the name names nothing
 *
 * 1. Only that is replaced which stood there at the beginning, by device and inode: the caller
 *    decided about that and about nothing else. After an exchange it is the old one, under its
 *    temporary name, that is looked at, so that nothing can happen between look and exchange.
 * 2. Temporary names are random and made with O_EXCL (or mkdir): a name that somebody guessed or
 *    left there is never written through.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/error.h"
#include "base/file.h"
#include "base/place.h"
#include "base/random.h"
#include "base/remove.h"
#include "base/utf8.h"

#define TEMP_MARK   ".loractl-"
#define TEMP_RANDOM 6
#define TEMP_TRIES  100

/* ".NAME.loractl-XXXXXX"; a long NAME is cut. */
static bool make_temp_name(const char *name, char temp[NAME_MAX + 1])
{
	static const char letters[] = "abcdefghijklmnopqrstuvwxyz0123456789";
	const size_t room = NAME_MAX - 1 - (sizeof TEMP_MARK - 1) - TEMP_RANDOM;
	unsigned char random[TEMP_RANDOM];
	char suffix[TEMP_RANDOM + 1] = "";

	if (!lora__random(random, sizeof random))
		return false;
	for (size_t i = 0; i < TEMP_RANDOM; i++)
		suffix[i] = letters[random[i] % (sizeof letters - 1)];
	(void)snprintf(temp, NAME_MAX + 1, ".%.*s" TEMP_MARK "%s",
		       (int)lora__utf8_cut(name, strlen(name), room), name, suffix);
	return true;
}

/* --- begin --------------------------------------------------------------------------- */

/* Splits the path into the directory and the name in it. */
static enum lora_status split(struct lora_place *place, const char *path, bool directory,
			      struct lora_error *err)
{
	size_t end = strlen(path), start;

	while (directory && end > 1 && path[end - 1] == '/')
		end--;
	start = end;
	while (start > 0 && path[start - 1] != '/')
		start--;
	if (end - start > NAME_MAX)
		return lora__fail(err, LORA_USAGE, "cannot write '%s': the name is too long",
				  lora__escape(path));
	memcpy(place->name, path + start, end - start);
	place->name[end - start] = '\0';
	if (place->name[0] == '\0' || strcmp(place->name, ".") == 0 ||
	    strcmp(place->name, "..") == 0)
		return lora__fail(err, LORA_USAGE, "cannot write '%s': it does not name a new %s",
				  lora__escape(path), directory ? "directory" : "file");
	while (start > 1 && path[start - 1] == '/')
		start--;
	place->path = strndup(path, end);
	place->folder = start == 0 ? strdup(".") : strndup(path, start);
	if (place->path == NULL || place->folder == NULL)
		return lora__fail_memory(err);
	return LORA_OK;
}

static enum lora_status open_parent(struct lora_place *place, struct lora_error *err)
{
	place->parent = open(place->folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (place->parent >= 0)
		return LORA_OK;
	if (errno == ENOENT)
		return lora__fail(
		    err, LORA_INPUT,
		    "cannot write '%s': the directory '%s' does not exist: make it first",
		    lora__escape(place->path), lora__escape(place->folder));
	return lora__fail_errno(err, "cannot write '%s': cannot open the directory '%s'",
				lora__escape(place->path), lora__escape(place->folder));
}

/* Looks at what stands there. A symbolic link stands for itself: it is what would be replaced. */
static enum lora_status look(struct lora_place *place, bool replace, struct lora_error *err)
{
	struct stat info;

	if (fstatat(place->parent, place->name, &info, AT_SYMLINK_NOFOLLOW) != 0) {
		if (errno == ENOENT)
			return LORA_OK;
		return lora__fail_system(err, "cannot examine '%s'", lora__escape(place->path));
	}
	if (!replace)
		return lora__fail(err, LORA_USAGE, "'%s' exists: remove it, or choose another name",
				  lora__escape(place->path));
	if (S_ISDIR(info.st_mode) != place->directory && !S_ISLNK(info.st_mode))
		return lora__fail(err, LORA_USAGE, "cannot replace '%s' by a %s: it is %s",
				  lora__escape(place->path),
				  place->directory ? "directory" : "file",
				  place->directory ? "none" : "a directory");
	place->occupied = true;
	place->old_dev = info.st_dev;
	place->old_inode = info.st_ino;
	return LORA_OK;
}

/* The new file, open, or directory, not open, under the temporary name. False with errno. */
static bool make_temp(struct lora_place *place, int *fd)
{
	for (int i = 0; i < TEMP_TRIES && !place->pending; i++) {
		if (!make_temp_name(place->name, place->temp))
			return false;
		if (place->directory) {
			place->pending = mkdirat(place->parent, place->temp, 0777) == 0;
		} else {
			*fd = openat(place->parent, place->temp,
				     O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW,
				     place->secret ? 0600 : 0666);
			place->pending = *fd >= 0;
		}
		if (!place->pending && errno != EEXIST)
			return false;
	}
	return place->pending;
}

/* Opens what was made. The kernel has just applied the umask (or the directory's default access
 * list), which cannot be asked for safely in a program with threads: that mode is kept for later,
 * and until then ours is the owner's alone. File systems without modes refuse to change them, and
 * need not. */
static bool narrow(struct lora_place *place, int *fd)
{
	struct stat info;

	if (place->directory)
		*fd = openat(place->parent, place->temp,
			     O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (*fd < 0 || fstat(*fd, &info) != 0)
		return false;
	place->mode = info.st_mode & 07777;
	place->narrowed = fchmod(*fd, place->directory ? 0700 : 0600) == 0;
	return true;
}

/* The place is initialised, and knows what ours will be. */
static enum lora_status begin(struct lora_place *place, const char *path, bool replace, int *fd,
			      struct lora_error *err)
{
	const bool directory = place->directory;
	enum lora_status status = split(place, path, directory, err);

	*fd = -1;
	if (status == LORA_OK)
		status = open_parent(place, err);
	if (status == LORA_OK)
		status = look(place, replace, err);
	if (status == LORA_OK && !(make_temp(place, fd) && narrow(place, fd)))
		status = lora__fail_system(err, "cannot make a temporary %s beside '%s'",
					   directory ? "directory" : "file", lora__escape(path));
	if (status != LORA_OK) {
		if (*fd >= 0)
			(void)close(*fd);
		*fd = -1;
		(void)lora__place_discard(place);
		lora__place_fini(place);
	}
	return status;
}

enum lora_status lora__place_begin(struct lora_place *place, const char *path, bool directory,
				   bool replace, int *fd, struct lora_error *err)
{
	*place = (struct lora_place)LORA_PLACE_INIT;
	place->directory = directory;
	return begin(place, path, replace, fd, err);
}

enum lora_status lora__place_begin_secret(struct lora_place *place, const char *path, bool replace,
					  int *fd, struct lora_error *err)
{
	*place = (struct lora_place)LORA_PLACE_INIT;
	place->secret = true;
	return begin(place, path, replace, fd, err);
}

enum lora_status lora__place_open_up(struct lora_place *place, int fd, struct lora_error *err)
{
	if (place->narrowed && fchmod(fd, place->mode) != 0)
		return lora__fail_system(err, "cannot set the mode of '%s'",
					 lora__escape(place->path));
	place->narrowed = false;
	return LORA_OK;
}

/* --- publish ------------------------------------------------------------------------- */

/* The file system, or the kernel, does not know the flag. */
static bool is_unsupported(int error)
{
	return error == EINVAL || error == ENOSYS || error == EOPNOTSUPP;
}

/* Hard links are not possible here. */
static bool is_linkless(int error)
{
	return is_unsupported(error) || error == EPERM || error == EMLINK;
}

static bool is_free(const struct lora_place *place)
{
	struct stat info;

	if (fstatat(place->parent, place->name, &info, AT_SYMLINK_NOFOLLOW) == 0) {
		errno = EEXIST;
		return false;
	}
	return errno == ENOENT;
}

static bool rename_in(const struct lora_place *place, const char *from, const char *to)
{
	return renameat(place->parent, from, place->parent, to) == 0;
}

/* temp -> name, which must be free. */
static bool move(struct lora_place *place)
{
	const int at = place->parent;

	if (renameat2(at, place->temp, at, place->name, RENAME_NOREPLACE) == 0) {
		place->pending = false;
		return true;
	}
	if (!is_unsupported(errno))
		return false;
	if (!place->directory) {
		if (linkat(at, place->temp, at, place->name, 0) == 0) {
			place->pending = unlinkat(at, place->temp, 0) != 0;
			return true;
		}
		if (!is_linkless(errno))
			return false;
	}
	place->pending = !(is_free(place) && rename_in(place, place->temp, place->name));
	return !place->pending;
}

/* The stand-in for EXCHANGE. Afterwards the old one has a temporary name, if that is possible. */
static bool replace_plainly(struct lora_place *place)
{
	const int at = place->parent;
	char spare[NAME_MAX + 1];
	bool kept;
	int saved;

	if (!make_temp_name(place->name, spare))
		return false;
	if (place->directory) {
		if (!rename_in(place, place->name, spare))
			return false;
		kept = true;
	} else {
		kept = linkat(at, place->name, at, spare, 0) == 0;
		if (!kept && !is_linkless(errno))
			return false;
	}
	if (!rename_in(place, place->temp, place->name)) {
		saved = errno;
		if (place->directory)
			(void)rename_in(place, spare, place->name);
		else if (kept)
			(void)unlinkat(at, spare, 0);
		errno = saved;
		return false;
	}
	memcpy(place->temp, spare, sizeof spare);
	place->pending = kept;
	return true;
}

/* True unless something else bears the name than at the beginning. */
static bool is_the_old_one(const struct lora_place *place, const char *name)
{
	struct stat info;

	return fstatat(place->parent, name, &info, AT_SYMLINK_NOFOLLOW) == 0 &&
	       info.st_dev == place->old_dev && info.st_ino == place->old_inode;
}

static enum lora_status fail_changed(const struct lora_place *place, struct lora_error *err)
{
	return lora__fail(err, LORA_USAGE,
			  "'%s' was changed by somebody else meanwhile: it is left as it is",
			  lora__escape(place->path));
}

/* temp <-> name, which is occupied. */
static enum lora_status swap(struct lora_place *place, struct lora_error *err)
{
	const int at = place->parent;

	if (renameat2(at, place->temp, at, place->name, RENAME_EXCHANGE) == 0) {
		if (is_the_old_one(place, place->temp))
			return LORA_OK;
		(void)renameat2(at, place->temp, at, place->name, RENAME_EXCHANGE);
		return fail_changed(place, err);
	}
	if (is_unsupported(errno)) {
		if (!is_the_old_one(place, place->name))
			return fail_changed(place, err);
		if (replace_plainly(place))
			return LORA_OK;
	}
	return lora__fail_system(err, "cannot replace '%s'", lora__escape(place->path));
}

enum lora_status lora__place_publish(struct lora_place *place, struct lora_error *err)
{
	enum lora_status status = LORA_OK;

	if (place->occupied && is_free(place))
		place->occupied = false; /* removed by somebody: nothing is left to be replaced */
	if (place->occupied)
		status = swap(place, err);
	else if (!move(place))
		status =
		    errno == EEXIST || errno == ENOTEMPTY
			? lora__fail(err, LORA_USAGE, "'%s' exists now: it is left as it is",
				     lora__escape(place->path))
			: lora__fail_system(err, "cannot rename '%s' to '%s'",
					    lora__escape(place->temp), lora__escape(place->path));
	place->published = status == LORA_OK;
	return status;
}

int lora__sync_directory(int fd)
{
	return fsync(fd) == 0 || is_unsupported(errno) ? 0 : -1;
}

enum lora_status lora__place_sync(struct lora_place *place, struct lora_error *err)
{
	if (lora__sync_directory(place->parent) != 0)
		return lora__fail_system(err, "cannot sync the directory '%s'",
					 lora__escape(place->folder));
	return LORA_OK;
}

bool lora__place_shares_folder(const struct lora_place *a, const struct lora_place *b)
{
	struct stat x, y;

	return fstat(a->parent, &x) == 0 && fstat(b->parent, &y) == 0 && x.st_dev == y.st_dev &&
	       x.st_ino == y.st_ino;
}

void lora__place_retract(struct lora_place *place)
{
	const int at = place->parent;

	if (!place->published)
		return;
	place->published = false;
	if (!place->pending) { /* nothing was there before, or it could not be kept */
		place->pending = rename_in(place, place->name, place->temp);
		return;
	}
	if (!place->occupied) { /* both names are ours: move() linked and could not unlink */
		(void)unlinkat(at, place->name, 0);
		return;
	}
	if (renameat2(at, place->temp, at, place->name, RENAME_EXCHANGE) == 0)
		return;
	/* Without an exchange ours goes at once, and then the old one back. */
	if (!place->directory || lora__remove(at, place->name))
		place->pending = !rename_in(place, place->temp, place->name);
}

bool lora__place_discard(struct lora_place *place)
{
	if (place->pending)
		place->pending = !lora__remove(place->parent, place->temp);
	return !place->pending;
}

void lora__place_fini(struct lora_place *place)
{
	if (place->parent >= 0)
		(void)close(place->parent);
	free(place->path);
	free(place->folder);
	*place = (struct lora_place)LORA_PLACE_INIT;
}
