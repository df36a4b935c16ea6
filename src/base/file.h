/* SPDX-License-Identifier: Apache-2.0 */
/* base/file.h - reading files that must not change, and writing outputs that exist whole or not at
 * all.
 *
 * Reading
 * 1. A file is opened once (O_RDONLY | O_CLOEXEC, never O_NOFOLLOW: hub caches are symlinks), its
 *    identity (device, inode, size, mtime, ctime in ns) is kept, and lora__file_unchanged()
 *    compares it with fstat() later: what was checked is what is used.
 *    A file that rests has no descriptor: it is opened by its path for each use, and proved to be
 *    the same by all of that, so that a model may have more shards than a process has descriptors.
 * 2. Only regular files are read (a FIFO or device is LORA_INPUT); sizes come from fstat and are
 *    checked before memory is taken.
 *
 * Writing (struct lora_output: one file or one directory)
 * 3. Everything is written under a temporary name beside the target, ".NAME.loractl-XXXXXX", on the
 *    same file system.
 * 4. Commit: every file fdatasync'ed, [directory: its own directories fsync'ed], renamed without
 *    replacing (renameat2 RENAME_NOREPLACE; with replace: RENAME_EXCHANGE and the old one removed
 *    afterwards), then the parent directory fsync'ed.
 * 5. Abort, or lora__output_free() without a commit, removes every trace.
 * 6. Temporary outputs are registered in a process-wide list that lora_cleanup()
 *    (loractl/cleanup.h) removes: for signals.
 */
#ifndef LORA_BASE_FILE_H
#define LORA_BASE_FILE_H

#include <loractl/types.h>
#include <sys/stat.h>

struct lora_file {
	int fd;	    /* -1: closed, or resting */
	bool rests; /* opened anew for each use */
	char *path; /* as opened; for messages */
	uint64_t size;
	struct stat stat; /* at open */
};

/* A zeroed struct with fd = -1 is closed. */
#define LORA_FILE_INIT                                                                             \
	{                                                                                          \
		.fd = -1                                                                           \
	}

enum lora_status lora__file_open(struct lora_file *file, const char *path, struct lora_error *err);
void lora__file_close(struct lora_file *file);
/* Gives the descriptor of an open file back to the system. */
void lora__file_rest(struct lora_file *file);
/* A descriptor for one use, the file's own unless it rests. LORA_INPUT if its path has come to mean
 * another file, or the file changed. */
enum lora_status lora__file_lend(const struct lora_file *file, int *fd, struct lora_error *err);
void lora__file_take_back(const struct lora_file *file, int fd);
/* Exactly size bytes at offset (pread, EINTR and short reads handled). LORA_INPUT if the file ends
 * before, LORA_SYSTEM for I/O errors. Thread-safe. */
enum lora_status lora__file_read(const struct lora_file *file, uint64_t offset, void *buffer,
				 size_t size, struct lora_error *err);
/* LORA_INPUT "... changed while it was read" if size, mtime, ctime, inode differ from those at
 * open. */
enum lora_status lora__file_unchanged(const struct lora_file *file, struct lora_error *err);
/* A whole file of at most `limit` bytes; malloc'd, with a NUL after the last byte. LORA_INPUT if it
 * is larger. */
enum lora_status lora__file_slurp(const char *path, uint64_t limit, char **text, size_t *size,
				  struct lora_error *err);

enum lora_path_kind { LORA_PATH_ABSENT, LORA_PATH_FILE, LORA_PATH_DIRECTORY, LORA_PATH_OTHER };
/* What stands there, symlinks followed. LORA_SYSTEM if that cannot be found out (permission). */
enum lora_status lora__path_kind(const char *path, enum lora_path_kind *kind,
				 struct lora_error *err);
/* dir/name, malloc'd; NULL without memory. */
char *lora__path_join(const char *dir, const char *name);
/* True if `inner` is the same file or directory as `outer`, or lies inside it, both resolved as far
 * as they exist (realpath of the longest existing prefix). */
enum lora_status lora__path_inside(const char *inner, const char *outer, bool *inside,
				   struct lora_error *err);
/* True unless name is empty, ".", "..", holds '/' or a NUL or control characters: fit to be one
 * file's name. */
bool lora__path_is_plain(const char *name);

struct lora_output; /* opaque */

/* Begins an output at `path`. LORA_USAGE if it exists and !replace, or is of the other kind;
 * LORA_INPUT if its parent directory does not exist. A symbolic link there is replaced itself. */
enum lora_status lora__output_begin(struct lora_output **out, const char *path, bool directory,
				    bool replace, struct lora_error *err);
/* The same for a file with a secret: mode 0600, from its first moment. Companions are as ever. */
enum lora_status lora__output_begin_secret(struct lora_output **out, const char *path, bool replace,
					   struct lora_error *err);
/* Makes (O_EXCL, mode 0666 & ~umask) one file: `name` relative to a directory output (plain
 * components joined by '/', directories are made), or NULL for a file output. The fd belongs to the
 * output, is open for writing until commit, synced and closed by it. With size > 0 the space is
 * reserved (fallocate where the file system can, so that a full disk shows here; else
 * ftruncate). */
enum lora_status lora__output_file(struct lora_output *output, const char *name, uint64_t size,
				   int *fd, struct lora_error *err);
/* The mode that a file output gets, instead of 0666 & ~umask: that of what it replaces. */
void lora__output_mode(struct lora_output *output, mode_t mode);
/* Syncs and closes one file early (so that many small files do not exhaust descriptors). */
enum lora_status lora__output_finish(struct lora_output *output, int fd, struct lora_error *err);
/* A file of a directory output that was made but not written may rest until its turn, without a
 * descriptor; commit refuses one that was not woken. */
enum lora_status lora__output_rest(struct lora_output *output, int fd, struct lora_error *err);
enum lora_status lora__output_wake(struct lora_output *output, const char *name, int *fd,
				   struct lora_error *err);
/* A companion file elsewhere (OUT.receipt.json, an undo record), renamed together with the output:
 * companions first, the output last. */
enum lora_status lora__output_beside(struct lora_output *output, const char *path, int *fd,
				     struct lora_error *err);
/* All or nothing; after a failure only lora__output_free() is left to do. LORA_USAGE if something
 * else stands there now than at the beginning: it stays. LORA_CANCELLED after lora_cleanup(). One
 * failure comes late: LORA_SYSTEM when everything is in place but what was replaced could not be
 * removed; the message names it. */
enum lora_status lora__output_commit(struct lora_output *output, struct lora_error *err);
/* Aborts if not committed. NULL is a no-op. */
void lora__output_free(struct lora_output *output);
/* The temporary path of `name` inside the output (NULL: of the output itself), for reading back
 * before commit; malloc'd. */
char *lora__output_path(const struct lora_output *output, const char *name);

/* pwrite of all bytes (EINTR, short writes). `path` for the message. Thread-safe. */
enum lora_status lora__write_at(int fd, const char *path, uint64_t offset, const void *data,
				size_t size, struct lora_error *err);

#endif
