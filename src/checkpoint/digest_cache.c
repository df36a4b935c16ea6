/* SPDX-License-Identifier: Apache-2.0 */
/* checkpoint/digest_cache.c - remembering a model's digests, so that a base is hashed once
 *
 * What it is     one small file for each model that was hashed, named by what its files were then:
 *                $XDG_CACHE_HOME/loractl/digests/KEY, or ~/.cache/... A hit saves reading the whole
 *model. Layout char[16]	"loractl digest 1" 32 bytes	KEY u64 LE		files u64 LE
 *tensors 32 bytes each	SHA-256 of every file, in order; then of every tensor, in order 32 bytes
 *SHA-256 of everything before
 *
 *	KEY	SHA-256 of the magic and, for every file in order, device, inode, size, mtime and
 *ctime (s, ns), as u64 LE, and the SHA-256 of its head
 *
 * Invariants     (1) A wrong entry is worse than none: whatever is not exactly as above is ignored,
 *and so is a file that another user owns or may write. (2) An entry appears whole (written aside,
 *renamed); it is not synced, since a torn one fails its own digest. (3) Nothing here fails an
 *operation. (4) At most ENTRIES files stay; those unused for longest go. Traps          A file's
 *times have a grain (4 ms on Linux's own file systems, up to 2 s elsewhere): a write within the
 *grain of the last one cannot be seen. So files that were young when they were opened are not
 *cached: any later write then changes mtime. ctime, which programs cannot set, is in the key for
 *those who set mtime back. Tested by      tests/unit/test_model.c
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/digest.h"
#include "checkpoint/checkpoint.h"

#define MAGIC	   "loractl digest 1"
#define MAGIC_SIZE (sizeof(MAGIC) - 1)
#define ENTRIES	   64	/* of 32 bytes a tensor: 20 MB in all for models of 10,000 */
#define REMOVALS   16	/* at one store, so that a flooded directory does not cost minutes */
#define YOUNG	   2	/* seconds: the coarsest grain, FAT's */
#define STALE	   3600 /* seconds after which an unfinished temporary file is nobody's */

static uint8_t *put_number(uint8_t *at, uint64_t value)
{
	for (unsigned i = 0; i < 8; i++)
		*at++ = (uint8_t)(value >> (8 * i));
	return at;
}

/* What the model's files are; false without memory. */
static bool make_key(const struct lora_model *model, struct lora_sha256 *key)
{
	struct lora_hasher *hasher = lora__hasher_new();

	if (!hasher)
		return false;
	lora__hasher_update(hasher, MAGIC, MAGIC_SIZE);
	for (size_t i = 0; i < model->shard_count; i++) {
		const struct lora_shard *shard = &model->shards[i];
		const struct stat *stat = &shard->file.stat;
		uint8_t facts[7 * 8], *at = facts;
		struct lora_sha256 head;

		at = put_number(at, (uint64_t)stat->st_dev);
		at = put_number(at, (uint64_t)stat->st_ino);
		at = put_number(at, (uint64_t)stat->st_size);
		at = put_number(at, (uint64_t)stat->st_mtim.tv_sec);
		at = put_number(at, (uint64_t)stat->st_mtim.tv_nsec);
		at = put_number(at, (uint64_t)stat->st_ctim.tv_sec);
		(void)put_number(at, (uint64_t)stat->st_ctim.tv_nsec);
		lora__hasher_update(hasher, facts, sizeof(facts));
		lora__sha256(shard->head, (size_t)shard->data_begin, &head);
		lora__hasher_update(hasher, head.byte, sizeof(head.byte));
	}
	lora__hasher_final(hasher, key);
	lora__hasher_free(hasher);
	return true;
}

/* Was any file written so shortly before it was opened that a later write might not show? */
static bool is_young(const struct lora_model *model)
{
	for (size_t i = 0; i < model->shard_count; i++) {
		struct timespec written = model->shards[i].file.stat.st_mtim;
		double age = (double)(model->opened.tv_sec - written.tv_sec) +
			     (double)(model->opened.tv_nsec - written.tv_nsec) / 1e9;

		if (age < YOUNG && age > -YOUNG)
			return true;
	}
	return false;
}

/* Digests go to memory as they are: the entry is an array of bytes, and so are they. */
static size_t entry_size(const struct lora_model *model)
{
	return MAGIC_SIZE + 2 * 8 +
	       LORA_SHA256_SIZE * (2 + model->shard_count + model->index.count);
}

/* Everything before the digests. */
static uint8_t *put_front(uint8_t *at, const struct lora_model *model,
			  const struct lora_sha256 *key)
{
	memcpy(at, MAGIC, MAGIC_SIZE);
	memcpy(at + MAGIC_SIZE, key->byte, LORA_SHA256_SIZE);
	at = put_number(at + MAGIC_SIZE + LORA_SHA256_SIZE, model->shard_count);
	return put_number(at, model->index.count);
}

/* --- the directory ------------------------------------------------------------------------------
 */

/* Opens `name` below `parent`, made if need be; -1 if that cannot be. Closes parent. */
static int enter(int parent, const char *name)
{
	int fd;

	if (parent < 0)
		return -1;
	(void)mkdirat(parent, name, 0700);
	fd = openat(parent, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	(void)close(parent);
	return fd;
}

/* The cache's directory, or -1. The specification of XDG_CACHE_HOME has relative paths ignored. */
static int open_directory(void)
{
	const char *cache = getenv("XDG_CACHE_HOME"), *home = getenv("HOME");
	int fd = -1;

	if (cache && cache[0] == '/') {
		(void)mkdir(cache, 0700);
		fd = open(cache, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	} else if (home && home[0] == '/') {
		fd = enter(open(home, O_RDONLY | O_DIRECTORY | O_CLOEXEC), ".cache");
	}
	return enter(enter(fd, "loractl"), "digests");
}

static bool is_entry(const char *name)
{
	return strlen(name) == LORA_SHA256_HEX - 1 &&
	       strspn(name, "0123456789abcdef") == LORA_SHA256_HEX - 1;
}

static bool is_temporary(const char *name)
{
	return strncmp(name, ".new-", 5) == 0;
}

/* One look at the directory: removes stale temporary files; the number of entries, and the one that
 * was used longest ago. */
static size_t survey(DIR *directory, char oldest[LORA_SHA256_HEX])
{
	struct timespec least = {0, 0}, now = {0, 0};
	struct dirent *item = NULL;
	size_t count = 0;

	(void)clock_gettime(CLOCK_REALTIME, &now);
	rewinddir(directory);
	while ((item = readdir(directory))) {
		struct stat info;

		if (!is_entry(item->d_name) && !is_temporary(item->d_name))
			continue;
		if (fstatat(dirfd(directory), item->d_name, &info, AT_SYMLINK_NOFOLLOW) != 0)
			continue;
		if (is_temporary(item->d_name)) {
			if (now.tv_sec - info.st_mtim.tv_sec > STALE)
				(void)unlinkat(dirfd(directory), item->d_name, 0);
			continue;
		}
		if (count++ == 0 || info.st_mtim.tv_sec < least.tv_sec ||
		    (info.st_mtim.tv_sec == least.tv_sec && info.st_mtim.tv_nsec < least.tv_nsec)) {
			least = info.st_mtim;
			memcpy(oldest, item->d_name, LORA_SHA256_HEX);
		}
	}
	return count;
}

/* [4] Closes fd. */
static void prune(int fd)
{
	DIR *directory = fdopendir(fd);
	char oldest[LORA_SHA256_HEX];

	if (!directory) {
		(void)close(fd);
		return;
	}
	for (int i = 0; i < REMOVALS && survey(directory, oldest) > ENTRIES; i++)
		(void)unlinkat(fd, oldest, 0);
	(void)closedir(directory);
}

/* --- reading ------------------------------------------------------------------------------------
 */

static bool read_all(int fd, uint8_t *bytes, size_t size)
{
	while (size > 0) {
		ssize_t got = read(fd, bytes, size);

		if (got < 0 && errno == EINTR)
			continue;
		if (got <= 0)
			return false;
		bytes += got;
		size -= (size_t)got;
	}
	return true;
}

/* The entry's bytes if there is one of that size that can be trusted; malloc'd. [1] */
static uint8_t *read_entry(int directory, const char *name, size_t size)
{
	int fd = openat(directory, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
	uint8_t *bytes = NULL;
	struct stat info;

	if (fd < 0)
		return NULL;
	if (fstat(fd, &info) == 0 && S_ISREG(info.st_mode) && info.st_uid == geteuid() &&
	    (info.st_mode & 022) == 0 && (uint64_t)info.st_size == size)
		bytes = malloc(size);
	if (bytes && !read_all(fd, bytes, size)) {
		free(bytes);
		bytes = NULL;
	}
	if (bytes)
		(void)futimens(fd, NULL); /* used now: see [4] */
	(void)close(fd);
	return bytes;
}

/* Takes the digests out of an entry if it is whole and means this model. */
static bool take_entry(struct lora_model *model, const struct lora_sha256 *key,
		       const uint8_t *bytes, size_t size)
{
	uint8_t front[MAGIC_SIZE + LORA_SHA256_SIZE + 2 * 8];
	struct lora_sha256 seal;

	lora__sha256(bytes, size - LORA_SHA256_SIZE, &seal);
	if (memcmp(seal.byte, bytes + size - LORA_SHA256_SIZE, LORA_SHA256_SIZE) != 0)
		return false;
	put_front(front, model, key);
	if (memcmp(bytes, front, sizeof(front)) != 0)
		return false;
	bytes += sizeof(front);
	for (size_t i = 0; i < model->shard_count; i++, bytes += LORA_SHA256_SIZE)
		memcpy(model->shards[i].sha256.byte, bytes, LORA_SHA256_SIZE);
	for (size_t i = 0; i < model->index.count; i++, bytes += LORA_SHA256_SIZE)
		memcpy(model->tensor_sha256[i].byte, bytes, LORA_SHA256_SIZE);
	return true;
}

bool lora__digest_cache_load(struct lora_model *model)
{
	size_t size = entry_size(model);
	char name[LORA_SHA256_HEX];
	struct lora_sha256 key;
	uint8_t *bytes = NULL;
	bool hit = false;
	int directory;

	if (!make_key(model, &key))
		return false;
	directory = open_directory();
	if (directory < 0)
		return false;
	lora__sha256_hex(&key, name);
	bytes = read_entry(directory, name, size);
	if (bytes)
		hit = take_entry(model, &key, bytes, size);
	free(bytes);
	(void)close(directory);
	return hit;
}

/* --- writing ------------------------------------------------------------------------------------
 */

static bool write_all(int fd, const uint8_t *bytes, size_t size)
{
	while (size > 0) {
		ssize_t put = write(fd, bytes, size);

		if (put < 0 && errno == EINTR)
			continue;
		if (put <= 0)
			return false;
		bytes += put;
		size -= (size_t)put;
	}
	return true;
}

/* The entry's bytes; malloc'd, NULL without memory. */
static uint8_t *make_entry(const struct lora_model *model, const struct lora_sha256 *key,
			   size_t size)
{
	uint8_t *bytes = malloc(size), *at = bytes;
	struct lora_sha256 seal;

	if (!bytes)
		return NULL;
	at = put_front(at, model, key);
	for (size_t i = 0; i < model->shard_count; i++, at += LORA_SHA256_SIZE)
		memcpy(at, model->shards[i].sha256.byte, LORA_SHA256_SIZE);
	for (size_t i = 0; i < model->index.count; i++, at += LORA_SHA256_SIZE)
		memcpy(at, model->tensor_sha256[i].byte, LORA_SHA256_SIZE);
	lora__sha256(bytes, size - LORA_SHA256_SIZE, &seal);
	memcpy(at, seal.byte, LORA_SHA256_SIZE);
	return bytes;
}

/* Writes aside, then renames: [2]. The temporary name is the process's own. */
static void write_entry(int directory, const char *name, const uint8_t *bytes, size_t size)
{
	char temporary[64];
	bool written;
	int fd;

	snprintf(temporary, sizeof(temporary), ".new-%ld-%.16s", (long)getpid(), name);
	(void)unlinkat(directory, temporary, 0);
	fd = openat(directory, temporary, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	if (fd < 0)
		return;
	written = write_all(fd, bytes, size);
	written = close(fd) == 0 && written;
	if (!written || renameat(directory, temporary, directory, name) != 0)
		(void)unlinkat(directory, temporary, 0);
}

void lora__digest_cache_store(const struct lora_model *model)
{
	size_t size = entry_size(model);
	char name[LORA_SHA256_HEX];
	struct lora_sha256 key;
	uint8_t *bytes = NULL;
	int directory;

	if (!model->digests_known || is_young(model) ||
	    lora__model_unchanged(model, NULL) != LORA_OK || !make_key(model, &key))
		return;
	directory = open_directory();
	if (directory < 0)
		return;
	lora__sha256_hex(&key, name);
	bytes = make_entry(model, &key, size);
	if (bytes)
		write_entry(directory, name, bytes, size);
	free(bytes);
	prune(directory);
}
