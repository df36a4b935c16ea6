/* SPDX-License-Identifier: Apache-2.0 */
/* base/file.c - reading files that must not change, and writing every byte
 *
 * A name can be made to mean another file at any moment, a descriptor cannot: everything about an
 * input is asked of the descriptor, once it is open. Sizes and times of that moment are kept; when
 * they still hold after the last byte was read, nobody wrote to the file in between (the kernel
 * advances ctime at every write, and no program can set it).
 *
 * read() and write() may do less than they were asked to, and may be interrupted: the loops here
 * hide both.
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/error.h"
#include "base/file.h"

/* No larger piece than this in one call: Linux moves 2^31 - 4096 bytes at most. */
#define PIECE_MAX ((size_t)1 << 30)

static const char *kind_name(mode_t mode)
{
	return S_ISDIR(mode)	? "a directory"
	       : S_ISFIFO(mode) ? "a pipe"
	       : S_ISSOCK(mode) ? "a socket"
				: "a device";
}

/* O_NONBLOCK: opening a pipe would wait for a writer. Regular files ignore it. */
static int open_to_read(const char *path)
{
	return open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
}

enum lora_status lora__file_open(struct lora_file *file, const char *path, struct lora_error *err)
{
	enum lora_status status = LORA_OK;

	*file = (struct lora_file)LORA_FILE_INIT;
	file->path = strdup(path);
	if (file->path == NULL)
		return lora__fail_memory(err);
	file->fd = open_to_read(path);
	if (file->fd < 0)
		status = lora__fail_errno(err, "cannot open '%s'", lora__escape(path));
	else if (fstat(file->fd, &file->stat) != 0)
		status = lora__fail_system(err, "cannot examine '%s'", lora__escape(path));
	else if (!S_ISREG(file->stat.st_mode))
		status = lora__fail(err, LORA_INPUT, "cannot read '%s': it is %s, not a file",
				    lora__escape(path), kind_name(file->stat.st_mode));
	else
		file->size = (uint64_t)file->stat.st_size;
	if (status != LORA_OK)
		lora__file_close(file);
	return status;
}

void lora__file_close(struct lora_file *file)
{
	if (file->fd >= 0)
		(void)close(file->fd); /* nothing was written: nothing can be lost */
	free(file->path);
	*file = (struct lora_file)LORA_FILE_INIT;
}

static bool same_time(struct timespec a, struct timespec b)
{
	return a.tv_sec == b.tv_sec && a.tv_nsec == b.tv_nsec;
}

/* Is `fd` the file that was opened, as it was then? */
static enum lora_status prove(const struct lora_file *file, int fd, struct lora_error *err)
{
	const struct stat *then = &file->stat;
	struct stat now;

	if (fstat(fd, &now) != 0)
		return lora__fail_system(err, "cannot examine '%s'", lora__escape(file->path));
	if (now.st_dev == then->st_dev && now.st_ino == then->st_ino &&
	    now.st_size == then->st_size && same_time(now.st_mtim, then->st_mtim) &&
	    same_time(now.st_ctim, then->st_ctim))
		return LORA_OK;
	return lora__fail(err, LORA_INPUT,
			  "'%s' changed while it was read: try again when it rests",
			  lora__escape(file->path));
}

void lora__file_rest(struct lora_file *file)
{
	if (file->fd >= 0)
		(void)close(file->fd);
	file->fd = -1;
	file->rests = true;
}

enum lora_status lora__file_lend(const struct lora_file *file, int *fd, struct lora_error *err)
{
	enum lora_status status;

	*fd = file->fd;
	if (!file->rests)
		return LORA_OK;
	*fd = open_to_read(file->path);
	if (*fd < 0)
		return lora__fail_errno(err, "cannot open '%s' again", lora__escape(file->path));
	status = prove(file, *fd, err);
	if (status != LORA_OK)
		(void)close(*fd);
	return status;
}

void lora__file_take_back(const struct lora_file *file, int fd)
{
	if (file->rests)
		(void)close(fd);
}

enum lora_status lora__file_unchanged(const struct lora_file *file, struct lora_error *err)
{
	int fd;
	enum lora_status status = lora__file_lend(file, &fd, err);

	if (status != LORA_OK)
		return status;
	status = prove(file, fd, err);
	lora__file_take_back(file, fd);
	return status;
}

static enum lora_status read_all(const struct lora_file *file, int fd, uint64_t offset, char *to,
				 size_t size, struct lora_error *err)
{
	while (size > 0) {
		ssize_t got = pread(fd, to, size < PIECE_MAX ? size : PIECE_MAX, (off_t)offset);

		if (got < 0 && errno == EINTR)
			continue;
		if (got < 0)
			return lora__fail_system(err, "cannot read '%s'", lora__escape(file->path));
		if (got == 0)
			return lora__fail(err, LORA_INPUT, "'%s' ends early, at byte %llu",
					  lora__escape(file->path), (unsigned long long)offset);
		to += got;
		offset += (uint64_t)got;
		size -= (size_t)got;
	}
	return LORA_OK;
}

enum lora_status lora__file_read(const struct lora_file *file, uint64_t offset, void *buffer,
				 size_t size, struct lora_error *err)
{
	enum lora_status status;
	int fd;

	if (offset > INT64_MAX || size > INT64_MAX - offset)
		return lora__fail(err, LORA_INPUT, "cannot read '%s': it has no byte %llu",
				  lora__escape(file->path), (unsigned long long)offset);
	status = lora__file_lend(file, &fd, err);
	if (status != LORA_OK)
		return status;
	status = read_all(file, fd, offset, buffer, size, err);
	lora__file_take_back(file, fd);
	return status;
}

enum lora_status lora__file_slurp(const char *path, uint64_t limit, char **text, size_t *size,
				  struct lora_error *err)
{
	struct lora_file file = LORA_FILE_INIT;
	enum lora_status status;
	char *buffer = NULL;

	*text = NULL;
	*size = 0;
	status = lora__file_open(&file, path, err);
	if (status != LORA_OK)
		goto out;
	if (file.size > limit || file.size >= SIZE_MAX) {
		status = lora__fail(err, LORA_INPUT, "'%s' has %llu bytes: at most %llu are read",
				    lora__escape(path), (unsigned long long)file.size,
				    (unsigned long long)limit);
		goto out;
	}
	buffer = malloc((size_t)file.size + 1);
	if (buffer == NULL) {
		status = lora__fail_memory(err);
		goto out;
	}
	status = lora__file_read(&file, 0, buffer, (size_t)file.size, err);
	if (status == LORA_OK)
		status = lora__file_unchanged(&file, err);
	if (status != LORA_OK)
		goto out;
	buffer[file.size] = '\0';
	*size = (size_t)file.size;
	*text = buffer;
	buffer = NULL;
out:
	free(buffer);
	lora__file_close(&file);
	return status;
}

enum lora_status lora__write_at(int fd, const char *path, uint64_t offset, const void *data,
				size_t size, struct lora_error *err)
{
	const char *from = data;

	if (offset > INT64_MAX || size > INT64_MAX - offset)
		return lora__fail(err, LORA_SYSTEM,
				  "cannot write '%s': a file ends before byte %llu",
				  lora__escape(path), (unsigned long long)offset);
	while (size > 0) {
		ssize_t put = pwrite(fd, from, size < PIECE_MAX ? size : PIECE_MAX, (off_t)offset);

		if (put < 0 && errno == EINTR)
			continue;
		if (put == 0)
			errno = EIO; /* never seen on a file; would be an endless loop */
		if (put <= 0)
			return lora__fail_system(err, "cannot write '%s'", lora__escape(path));
		from += put;
		offset += (uint64_t)put;
		size -= (size_t)put;
	}
	return LORA_OK;
}
