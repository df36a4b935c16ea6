/* SPDX-License-Identifier: Apache-2.0 */
/* trust/home.c - the user's own folders, which nobody else may write
 *
 * 1. Where: $XDG_CONFIG_HOME/loractl (else ~/.config/loractl) and $XDG_STATE_HOME/loractl (else
 *    ~/.local/state/loractl). A relative path in these variables is ignored, as their specification
 *    wants.
 * 2. A file that belongs to somebody else (but root), or that others may write, is refused: whoever
 *    writes the keyring decides what is trusted.
 * 3. A change is read, made and written under the lock of the folder; the file is replaced whole.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

#include "base/error.h"
#include "trust/trust.h"

#define FILE_LIMIT ((uint64_t)16 << 20)

/* The folder's path, malloc'd; NULL if the environment names none. */
static char *find_folder(enum lora_home home)
{
	static const struct {
		const char *variable, *below;
	} places[] = {{"XDG_CONFIG_HOME", "/.config"}, {"XDG_STATE_HOME", "/.local/state"}};
	const char *xdg = getenv(places[home].variable), *user = getenv("HOME");
	char *path = NULL;
	int failed = -1;

	if (xdg && xdg[0] == '/')
		failed = asprintf(&path, "%s/loractl", xdg);
	else if (user && user[0] == '/')
		failed = asprintf(&path, "%s%s/loractl", user, places[home].below);
	return failed < 0 ? NULL : path;
}

static enum lora_status check_owner(const struct lora_file *file, struct lora_error *err)
{
	if (file->stat.st_uid != geteuid() && file->stat.st_uid != 0)
		return lora__fail(err, LORA_INPUT,
				  "'%s' belongs to somebody else: it counts for "
				  "nothing",
				  lora__escape(file->path));
	if (file->stat.st_mode & 022)
		return lora__fail(err, LORA_INPUT,
				  "'%s' can be written by others: look at it, then chmod 600 it",
				  lora__escape(file->path));
	return LORA_OK;
}

enum lora_status lora__home_read(enum lora_home home, const char *name, char **text, size_t *size,
				 struct lora_error *err)
{
	char *folder = find_folder(home), *path = folder ? lora__path_join(folder, name) : NULL;
	enum lora_path_kind kind = LORA_PATH_ABSENT;
	struct lora_file file = LORA_FILE_INIT;
	enum lora_status status = path ? lora__path_kind(path, &kind, err) : LORA_OK;

	*text = NULL;
	*size = 0;
	if (status || kind == LORA_PATH_ABSENT)
		goto out;
	status = lora__file_open(&file, path, err);
	if (!status)
		status = check_owner(&file, err);
	if (!status && file.size > FILE_LIMIT)
		status = lora__fail(err, LORA_INPUT, "'%s' has %llu bytes: at most %llu are read",
				    lora__escape(path), (unsigned long long)file.size,
				    (unsigned long long)FILE_LIMIT);
	if (!status && !(*text = calloc(1, (size_t)file.size + 1)))
		status = lora__fail_memory(err);
	if (!status)
		status = lora__file_read(&file, 0, *text, (size_t)file.size, err);
	*size = (size_t)file.size;
	if (status) {
		free(*text);
		*text = NULL;
	}
out:
	lora__file_close(&file);
	free(path);
	free(folder);
	return status;
}

/* mkdir -p with 0700; what exists is left as it is. */
static bool make_folders(char *path)
{
	for (char *slash = strchr(path + 1, '/'); slash; slash = strchr(slash + 1, '/')) {
		bool made;

		*slash = '\0';
		made = mkdir(path, 0700) == 0 || errno == EEXIST;
		*slash = '/';
		if (!made)
			return false;
	}
	return mkdir(path, 0700) == 0 || errno == EEXIST;
}

enum lora_status lora__home_lock(enum lora_home home, int *lock, struct lora_error *err)
{
	char *folder = find_folder(home);
	enum lora_status status = LORA_OK;
	int failed = -1;

	*lock = -1;
	if (!folder)
		return lora__fail(err, LORA_SYSTEM, "neither HOME nor %s is set: set one",
				  home == LORA_HOME_CONFIG ? "XDG_CONFIG_HOME" : "XDG_STATE_HOME");
	if (make_folders(folder))
		*lock = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (*lock >= 0)
		do
			failed = flock(*lock, LOCK_EX);
		while (failed && errno == EINTR);
	if (failed) {
		status = lora__fail_system(err, "cannot use the folder '%s'", lora__escape(folder));
		lora__home_unlock(*lock);
		*lock = -1;
	}
	free(folder);
	return status;
}

void lora__home_unlock(int lock)
{
	if (lock >= 0)
		(void)close(lock);
}

enum lora_status lora__home_write(enum lora_home home, const char *name, const char *text,
				  size_t size, struct lora_error *err)
{
	char *folder = find_folder(home), *path = folder ? lora__path_join(folder, name) : NULL;
	struct lora_output *output = NULL;
	enum lora_status status = path ? LORA_OK : lora__fail_memory(err);
	int fd;

	if (!status)
		status = lora__output_begin_secret(&output, path, true, err);
	if (!status)
		status = lora__output_file(output, NULL, 0, &fd, err);
	if (!status)
		status = lora__write_at(fd, path, 0, text, size, err);
	if (!status)
		status = lora__output_commit(output, err);
	lora__output_free(output);
	free(path);
	free(folder);
	return status;
}
