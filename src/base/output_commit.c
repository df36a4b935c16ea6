/* SPDX-License-Identifier: Apache-2.0 */
/* base/output_commit.c - from written to published: steps 2 to 6 of base/output.c, whose invariants
 * hold here. */
#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

#include "base/error.h"
#include "base/output.h"

/* --- sync ---------------------------------------------------------------------------- */

/* Syncs and closes a file; `name` may be NULL. (1) */
static enum lora_status sync_file(struct lora_output *output, int fd, const char *name,
				  struct lora_error *err)
{
	int failed, saved;

	do
		failed = fdatasync(fd);
	while (failed != 0 && errno == EINTR);
	saved = errno;
	/* Some file systems report a failed write only here. After EINTR Linux has closed it. */
	if (close(fd) != 0 && failed == 0 && errno != EINTR) {
		failed = -1;
		saved = errno;
	}
	if (failed == 0)
		return LORA_OK;
	output->failed = true;
	errno = saved;
	return lora__fail_system(err, "cannot sync '%s'%s%s%s", lora__escape(output->place.path),
				 name == NULL ? "" : ": '", name == NULL ? "" : lora__escape(name),
				 name == NULL ? "" : "'");
}

/* Takes the descriptor away from its member; false if none has it. */
static bool take_member(struct lora_output *output, int fd, struct lora_output_member *taken)
{
	bool found = false;

	lora__output_lock();
	for (size_t i = output->count; i-- > 0 && !found;) {
		found = output->members[i].fd == fd && fd >= 0;
		if (found) {
			*taken = output->members[i];
			output->members[i].fd = -1;
		}
	}
	lora__output_unlock();
	return found;
}

static enum lora_status finish_member(struct lora_output *output,
				      const struct lora_output_member *member,
				      struct lora_error *err)
{
	enum lora_status status = LORA_OK;

	if (member->name == NULL)
		status = lora__place_open_up(&output->place, member->fd, err);
	if (status == LORA_OK)
		return sync_file(output, member->fd, member->name, err);
	(void)close(member->fd);
	output->failed = true;
	return status;
}

enum lora_status lora__output_finish(struct lora_output *output, int fd, struct lora_error *err)
{
	struct lora_output_member member;

	if (!take_member(output, fd, &member))
		return lora__fail(err, LORA_USAGE, "descriptor %d is none of '%s'", fd,
				  lora__escape(output->place.path));
	return finish_member(output, &member, err);
}

static enum lora_status finish_files(struct lora_output *output, struct lora_error *err)
{
	enum lora_status status = LORA_OK;

	for (size_t i = 0; i < output->count && status == LORA_OK; i++) {
		struct lora_output_member member = output->members[i];

		if (member.rests)
			return lora__fail(err, LORA_USAGE, "'%s' of '%s' was never written",
					  lora__escape(member.name),
					  lora__escape(output->place.path));
		if (member.fd < 0)
			continue;
		output->members[i].fd = -1;
		status = finish_member(output, &member, err);
	}
	for (size_t i = 0; i < output->companion_count && status == LORA_OK; i++) {
		struct lora_output_companion *companion = &output->companions[i];
		int fd = companion->fd;

		status = lora__place_open_up(&companion->place, fd, err);
		if (status != LORA_OK)
			return status;
		companion->fd = -1;
		status = sync_file(output, fd, companion->place.name, err);
	}
	return status;
}

static enum lora_status fail_sync_inside(const struct lora_output *output, const char *name,
					 struct lora_error *err)
{
	return lora__fail_system(err, "cannot sync the directory '%s' in '%s'", lora__escape(name),
				 lora__escape(output->place.path));
}

/* The deepest first. */
static enum lora_status sync_directories(struct lora_output *output, struct lora_error *err)
{
	enum lora_status status;

	for (size_t i = output->count; i-- > 0;) {
		const struct lora_output_member *member = &output->members[i];
		int fd, failed, saved;

		if (!member->directory)
			continue;
		fd = openat(output->fd, member->name,
			    O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
		if (fd < 0)
			return fail_sync_inside(output, member->name, err);
		failed = lora__sync_directory(fd);
		saved = errno;
		(void)close(fd);
		errno = saved;
		if (failed != 0)
			return fail_sync_inside(output, member->name, err);
	}
	status = lora__place_open_up(&output->place, output->fd, err);
	if (status == LORA_OK && lora__sync_directory(output->fd) != 0)
		status = fail_sync_inside(output, ".", err);
	return status;
}

/* --- commit -------------------------------------------------------------------------- */

/* Companions first, and durable if they stand elsewhere: where the output is, they are. (The names
 * of one directory get to the disk in the order in which they were made.) Under the lock. */
static enum lora_status publish(struct lora_output *output, struct lora_error *err)
{
	enum lora_status status = lora__output_check(output, err);
	size_t count = output->companion_count;

	for (size_t i = 0; i < count && status == LORA_OK; i++) {
		struct lora_place *place = &output->companions[i].place;

		status = lora__place_publish(place, err);
		if (status == LORA_OK && !lora__place_shares_folder(place, &output->place))
			status = lora__place_sync(place, err);
	}
	if (status == LORA_OK)
		status = lora__place_publish(&output->place, err);
	if (status == LORA_OK)
		status = lora__place_sync(&output->place, err);
	if (status != LORA_OK) {
		lora__place_retract(&output->place);
		for (size_t i = count; i-- > 0;)
			lora__place_retract(&output->companions[i].place);
	}
	return status;
}

/* The old one lies under the temporary name now. Nothing of the new one depends on its removal. */
static enum lora_status remove_old(struct lora_place *place, struct lora_error *err)
{
	if (lora__place_discard(place))
		return LORA_OK;
	return lora__fail_system(
	    err, "'%s' was replaced, but what it was before cannot be removed: remove '%s'",
	    lora__escape(place->path), lora__escape(place->temp));
}

static enum lora_status remove_replaced(struct lora_output *output, struct lora_error *err)
{
	enum lora_status status = remove_old(&output->place, err);

	for (size_t i = 0; i < output->companion_count; i++)
		if (remove_old(&output->companions[i].place, err) != LORA_OK)
			status = LORA_SYSTEM;
	return status;
}

enum lora_status lora__output_commit(struct lora_output *output, struct lora_error *err)
{
	enum lora_status status;

	lora__output_lock();
	status = lora__output_check(output, err);
	lora__output_unlock();
	if (status != LORA_OK)
		return status;
	if (!output->place.directory && output->fd >= 0)
		return lora__fail(err, LORA_USAGE, "nothing was written to '%s'",
				  lora__escape(output->place.path));
	status = finish_files(output, err);
	if (status == LORA_OK && output->place.directory)
		status = sync_directories(output, err);
	lora__output_lock();
	if (status == LORA_OK)
		status = publish(output, err);
	output->failed = status != LORA_OK;
	output->committed = status == LORA_OK;
	if (status == LORA_OK)
		status = remove_replaced(output, err);
	else
		lora__output_discard(output);
	lora__output_unlock();
	return status;
}
