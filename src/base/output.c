/* SPDX-License-Identifier: Apache-2.0 */
/* base/output.c - an output exists whole or not at all
 *
 * What may happen at any moment: the disk is full, a write fails, the process is killed, the power
 * goes. What is on the disk then is what was synced, plus any part of the rest, in any order. So
 * the order is
 *
 *	1. write everything under a temporary name
 *	2. fdatasync() every file                    its bytes are on the disk
 *	3. fsync() the output's own directories      its names are on the disk
 *	4. rename                                    it bears its name, or does not
 *	5. fsync() the parent directory              the rename is on the disk
 *	6. remove what was replaced                  not before: until 5 it may be needed again
 *
 * and a step begins when the one before has succeeded (base/output_commit.c has steps 2 to 6).
 *Where a step fails, those before it are undone.
 *
 * Invariants
 * (1) A failed sync is never tried again: the kernel reports a lost write once and then forgets it.
 *     The output is marked as failed, and commit refuses it.
 * (2) Every output with a temporary name on the disk is in the list `unfinished`. Names are made,
 *     renamed and removed under its lock, so that lora_cleanup() sees none half-made; the slow
 *     steps 1 to 3 are not under it.
 * (3) lora_cleanup() removes names and touches no descriptor: other threads may be writing to them.
 *     It marks the output as gone; what is asked of it afterwards is refused as interrupted.
 */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <loractl/cleanup.h>

#include "base/error.h"
#include "base/output.h"

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct lora_output *unfinished;

void lora__output_lock(void)
{
	(void)pthread_mutex_lock(&lock);
}

void lora__output_unlock(void)
{
	(void)pthread_mutex_unlock(&lock);
}

/* --- the list ------------------------------------------------------------------------ */

static void enlist(struct lora_output *output)
{
	output->next = unfinished;
	unfinished = output;
}

static void delist(struct lora_output *output)
{
	struct lora_output **link = &unfinished;

	while (*link != NULL && *link != output)
		link = &(*link)->next;
	if (*link != NULL)
		*link = output->next;
}

void lora__output_discard(struct lora_output *output)
{
	for (size_t i = 0; i < output->companion_count; i++)
		(void)lora__place_discard(&output->companions[i].place);
	(void)lora__place_discard(&output->place);
}

void lora_cleanup(void)
{
	lora__output_lock();
	for (struct lora_output *output = unfinished; output != NULL; output = output->next) {
		output->gone = true;
		lora__output_discard(output);
	}
	lora__output_unlock();
}

/* --- begin --------------------------------------------------------------------------- */

/* What an output is to be: a row of flags would be a parameter more than anybody reads. */
enum sort { A_FILE, A_SECRET, A_DIRECTORY };

static enum lora_status begin(struct lora_output **out, const char *path, enum sort sort,
			      bool replace, struct lora_error *err)
{
	struct lora_output *output = calloc(1, sizeof *output);
	enum lora_status status;

	*out = NULL;
	if (output == NULL)
		return lora__fail_memory(err);
	output->replace = replace;
	lora__output_lock();
	status = sort == A_SECRET
		     ? lora__place_begin_secret(&output->place, path, replace, &output->fd, err)
		     : lora__place_begin(&output->place, path, sort == A_DIRECTORY, replace,
					 &output->fd, err);
	if (status == LORA_OK)
		enlist(output);
	lora__output_unlock();
	if (status == LORA_OK)
		*out = output;
	else
		free(output);
	return status;
}

enum lora_status lora__output_begin(struct lora_output **out, const char *path, bool directory,
				    bool replace, struct lora_error *err)
{
	return begin(out, path, directory ? A_DIRECTORY : A_FILE, replace, err);
}

enum lora_status lora__output_begin_secret(struct lora_output **out, const char *path, bool replace,
					   struct lora_error *err)
{
	return begin(out, path, A_SECRET, replace, err);
}

enum lora_status lora__output_check(const struct lora_output *output, struct lora_error *err)
{
	if (output->gone)
		return lora__fail(err, LORA_CANCELLED, "interrupted");
	if (output->committed)
		return lora__fail(err, LORA_USAGE, "'%s' is committed already",
				  lora__escape(output->place.path));
	if (output->failed)
		return lora__fail(err, LORA_SYSTEM, "cannot commit '%s': writing it failed before",
				  lora__escape(output->place.path));
	return LORA_OK;
}

/* --- files --------------------------------------------------------------------------- */

/* Adds a member of that name (copied). Memory is taken before anything is made on the disk. */
static struct lora_output_member *add_member(struct lora_output *output, const char *name,
					     size_t length)
{
	struct lora_output_member *member;

	if (output->count == output->capacity) {
		size_t capacity = output->capacity == 0 ? 8 : output->capacity * 2;
		struct lora_output_member *grown =
		    realloc(output->members, capacity * sizeof *grown);

		if (grown == NULL)
			return NULL;
		output->members = grown;
		output->capacity = capacity;
	}
	member = &output->members[output->count];
	*member = (struct lora_output_member){.fd = -1};
	if (name != NULL) {
		member->name = strndup(name, length);
		if (member->name == NULL)
			return NULL;
	}
	output->count++;
	return member;
}

static void drop_last_member(struct lora_output *output)
{
	free(output->members[--output->count].name);
}

static bool is_relative_and_plain(const char *name)
{
	for (;;) {
		char part[NAME_MAX + 1];
		size_t size = strcspn(name, "/");

		if (size > NAME_MAX)
			return false;
		memcpy(part, name, size);
		part[size] = '\0';
		if (!lora__path_is_plain(part))
			return false;
		if (name[size] == '\0')
			return true;
		name += size + 1;
	}
}

/* Makes the directories that lead to `name`, those that are not there yet. */
static enum lora_status make_directories(struct lora_output *output, const char *name,
					 struct lora_error *err)
{
	const char *slash = strchr(name, '/');

	for (; slash != NULL; slash = strchr(slash + 1, '/')) {
		struct lora_output_member *member =
		    add_member(output, name, (size_t)(slash - name));

		if (member == NULL)
			return lora__fail_memory(err);
		member->directory = true;
		if (mkdirat(output->fd, member->name, 0777) == 0)
			continue;
		if (errno != EEXIST) {
			lora__fail_system(err, "cannot make the directory '%s' in '%s'",
					  lora__escape(member->name),
					  lora__escape(output->place.path));
			drop_last_member(output);
			return LORA_SYSTEM;
		}
		drop_last_member(output);
	}
	return LORA_OK;
}

static enum lora_status make_file(struct lora_output *output, const char *name, int *fd,
				  struct lora_error *err)
{
	enum lora_status status;
	struct lora_output_member *member;

	if (!is_relative_and_plain(name))
		return lora__fail(err, LORA_USAGE, "'%s' is no name for a file in '%s'",
				  lora__escape(name), lora__escape(output->place.path));
	status = make_directories(output, name, err);
	if (status != LORA_OK)
		return status;
	member = add_member(output, name, strlen(name));
	if (member == NULL)
		return lora__fail_memory(err);
	member->fd =
	    openat(output->fd, name, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0666);
	*fd = member->fd;
	if (*fd >= 0)
		return LORA_OK;
	status = errno == EEXIST
		     ? lora__fail(err, LORA_USAGE, "'%s' is written to '%s' twice",
				  lora__escape(name), lora__escape(output->place.path))
		     : lora__fail_system(err, "cannot make '%s' in '%s'", lora__escape(name),
					 lora__escape(output->place.path));
	drop_last_member(output);
	return status;
}

/* The one file of a file output exists already: hands out its descriptor, once. */
static enum lora_status give_file(struct lora_output *output, int *fd, struct lora_error *err)
{
	struct lora_output_member *member;

	if (output->fd < 0)
		return lora__fail(err, LORA_USAGE, "'%s' is one file, and open already",
				  lora__escape(output->place.path));
	member = add_member(output, NULL, 0);
	if (member == NULL)
		return lora__fail_memory(err);
	member->fd = *fd = output->fd;
	output->fd = -1;
	return LORA_OK;
}

/* Takes the space from the file system now, so that a full disk shows before the work; where it
 * cannot, the file gets its size only. (posix_fallocate() would write the zeros out instead.) */
static enum lora_status reserve(struct lora_output *output, int fd, uint64_t size,
				struct lora_error *err)
{
	int failed;

	if (size > INT64_MAX) {
		errno = EFBIG;
		failed = -1;
	} else {
		do
			failed = fallocate(fd, 0, 0, (off_t)size);
		while (failed != 0 && errno == EINTR);
		if (failed != 0 && (errno == EOPNOTSUPP || errno == ENOSYS || errno == EINVAL))
			failed = ftruncate(fd, (off_t)size);
	}
	if (failed == 0)
		return LORA_OK;
	output->failed = true;
	return lora__fail_system(err, "cannot reserve %llu bytes for '%s'",
				 (unsigned long long)size, lora__escape(output->place.path));
}

enum lora_status lora__output_file(struct lora_output *output, const char *name, uint64_t size,
				   int *fd, struct lora_error *err)
{
	enum lora_status status;

	*fd = -1;
	if ((name != NULL) != output->place.directory)
		return lora__fail(err, LORA_USAGE, "'%s' is a %s", lora__escape(output->place.path),
				  name == NULL ? "directory: its files have names" : "file");
	lora__output_lock();
	status = lora__output_check(output, err);
	if (status == LORA_OK)
		status =
		    name == NULL ? give_file(output, fd, err) : make_file(output, name, fd, err);
	lora__output_unlock();
	if (status == LORA_OK && size > 0)
		status = reserve(output, *fd, size, err);
	if (status != LORA_OK)
		*fd = -1; /* it stays the output's and goes with it */
	return status;
}

void lora__output_mode(struct lora_output *output, mode_t mode)
{
	lora__output_lock();
	output->place.mode = mode & 07777;
	lora__output_unlock();
}

static struct lora_output_member *find_member(struct lora_output *output, const char *name, int fd)
{
	for (size_t i = output->count; i-- > 0;) {
		struct lora_output_member *member = &output->members[i];

		if (name ? member->rests && strcmp(member->name, name) == 0
			 : member->fd == fd && fd >= 0 && member->name)
			return member;
	}
	return NULL;
}

enum lora_status lora__output_rest(struct lora_output *output, int fd, struct lora_error *err)
{
	struct lora_output_member *member;
	enum lora_status status = LORA_OK;

	lora__output_lock();
	member = find_member(output, NULL, fd);
	if (member == NULL) {
		status = lora__fail(err, LORA_USAGE, "descriptor %d is none of '%s'", fd,
				    lora__escape(output->place.path));
	} else {
		member->fd = -1;
		member->rests = true;
		(void)close(fd);
	}
	lora__output_unlock();
	return status;
}

enum lora_status lora__output_wake(struct lora_output *output, const char *name, int *fd,
				   struct lora_error *err)
{
	struct lora_output_member *member;
	enum lora_status status;

	*fd = -1;
	lora__output_lock();
	status = lora__output_check(output, err);
	member = status == LORA_OK ? find_member(output, name, -1) : NULL;
	if (member != NULL) {
		*fd = openat(output->fd, name, O_RDWR | O_CLOEXEC | O_NOFOLLOW);
		if (*fd < 0)
			status =
			    lora__fail_system(err, "cannot open '%s' in '%s'", lora__escape(name),
					      lora__escape(output->place.path));
		member->fd = *fd;
		member->rests = *fd < 0;
	} else if (status == LORA_OK) {
		status = lora__fail(err, LORA_USAGE, "'%s' of '%s' does not rest",
				    lora__escape(name), lora__escape(output->place.path));
	}
	lora__output_unlock();
	return status;
}

enum lora_status lora__output_beside(struct lora_output *output, const char *path, int *fd,
				     struct lora_error *err)
{
	size_t count = output->companion_count;
	struct lora_output_companion *grown;
	enum lora_status status;

	*fd = -1;
	lora__output_lock();
	status = lora__output_check(output, err);
	if (status != LORA_OK)
		goto out;
	grown = realloc(output->companions, (count + 1) * sizeof *grown);
	if (grown == NULL) {
		status = lora__fail_memory(err);
		goto out;
	}
	output->companions = grown;
	status = lora__place_begin(&grown[count].place, path, false, output->replace,
				   &grown[count].fd, err);
	if (status != LORA_OK)
		goto out;
	*fd = grown[count].fd;
	output->companion_count++;
out:
	lora__output_unlock();
	return status;
}

/* --- the end ------------------------------------------------------------------------- */

static void close_once(int *fd)
{
	if (*fd >= 0)
		(void)close(*fd);
	*fd = -1;
}

/* First the descriptors: removing a tree needs one, and they may all be in use. */
void lora__output_free(struct lora_output *output)
{
	if (output == NULL)
		return;
	for (size_t i = 0; i < output->count; i++)
		close_once(&output->members[i].fd);
	for (size_t i = 0; i < output->companion_count; i++)
		close_once(&output->companions[i].fd);
	close_once(&output->fd);
	lora__output_lock();
	if (!output->committed)
		lora__output_discard(output);
	delist(output);
	lora__output_unlock();
	for (size_t i = 0; i < output->count; i++)
		free(output->members[i].name);
	for (size_t i = 0; i < output->companion_count; i++)
		lora__place_fini(&output->companions[i].place);
	lora__place_fini(&output->place);
	free(output->members);
	free(output->companions);
	free(output);
}

char *lora__output_path(const struct lora_output *output, const char *name)
{
	char *top = lora__path_join(output->place.folder, output->place.temp), *path;

	if (name == NULL || top == NULL)
		return top;
	path = lora__path_join(top, name);
	free(top);
	return path;
}
