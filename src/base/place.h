/* SPDX-License-Identifier: Apache-2.0 */
/* base/place.h - a name under which a new file or directory appears at once: the file system's side
 * of an output.
 *
 *	begin      ".NAME.loractl-XXXXXX" is made beside NAME, and opened
 *	publish    it becomes NAME; what stood there (only with replace) gets a temporary name
 *	sync       the directory of both is made durable
 *	discard    what bears the temporary name is removed: the unfinished one before publish,
 *	           the replaced one after it
 *	retract    undoes publish: what stood there stands there again, ours has the temporary name
 *
 * Names are looked up from the descriptor of their directory, so that nothing changes if a
 * directory above is renamed meanwhile. No function but begin takes memory.
 */
#ifndef LORA_BASE_PLACE_H
#define LORA_BASE_PLACE_H

#include <limits.h>
#include <loractl/types.h>
#include <sys/stat.h>

struct lora_place {
	int parent;   /* descriptor of the directory; -1: nothing was begun */
	char *path;   /* the target, for messages */
	char *folder; /* the directory's path */
	char name[NAME_MAX + 1];
	char temp[NAME_MAX + 1];
	bool directory;	 /* ours is one */
	bool secret;	 /* ours is the owner's alone, from its first moment and for good */
	bool pending;	 /* something bears the temporary name */
	bool published;	 /* ours bears the final name */
	bool narrowed;	 /* mode has to be given back */
	mode_t mode;	 /* the mode that ours is to have */
	bool occupied;	 /* something stood there at the beginning: */
	dev_t old_dev;	 /* this, and nothing else, */
	ino_t old_inode; /* is replaced */
};

#define LORA_PLACE_INIT                                                                            \
	{                                                                                          \
		.parent = -1                                                                       \
	}

/* *fd: the new file, open for reading and writing, or the new directory. LORA_USAGE if something
 * stands there and !replace, or if it is of another kind; LORA_INPUT if its directory does not
 * exist. */
enum lora_status lora__place_begin(struct lora_place *place, const char *path, bool directory,
				   bool replace, int *fd, struct lora_error *err);
/* The same for a file that holds a secret: nobody else can open it at any moment. */
enum lora_status lora__place_begin_secret(struct lora_place *place, const char *path, bool replace,
					  int *fd, struct lora_error *err);
/* Gives ours its final mode: 0666 or 0777 without the umask's bits (it is the owner's alone while
 * it is being written). */
enum lora_status lora__place_open_up(struct lora_place *place, int fd, struct lora_error *err);
enum lora_status lora__place_publish(struct lora_place *place, struct lora_error *err);
enum lora_status lora__place_sync(struct lora_place *place, struct lora_error *err);
/* Do both names stand in one directory, so that one sync is enough? */
bool lora__place_shares_folder(const struct lora_place *a, const struct lora_place *b);
void lora__place_retract(struct lora_place *place);
/* False, with errno, if something remains. */
bool lora__place_discard(struct lora_place *place);
void lora__place_fini(struct lora_place *place); /* closes and frees; removes nothing */

/* Makes a directory's names durable. File systems that cannot are taken at their word. */
int lora__sync_directory(int fd);

#endif
