/* SPDX-License-Identifier: Apache-2.0 */
/* base/output.h - what base/output.c and base/output_commit.c share; everybody else uses
 * base/file.h. */
#ifndef LORA_BASE_OUTPUT_H
#define LORA_BASE_OUTPUT_H

#include <stdatomic.h>

#include "base/file.h"
#include "base/place.h"

/* A file or directory inside a directory output, or the file of a file output (name: NULL). */
struct lora_output_member {
	char *name; /* relative to the output */
	int fd;	    /* -1: synced and closed, or resting; directories are never kept open */
	bool rests; /* made, and not yet written */
	bool directory;
};

struct lora_output_companion {
	struct lora_place place;
	int fd;
};

struct lora_output {
	struct lora_place place;
	int fd; /* the file's, until a member has it; or the directory's */
	struct lora_output_member *members;
	size_t count, capacity;
	struct lora_output_companion *companions;
	size_t companion_count;
	bool replace;
	atomic_bool failed; /* (1) */
	bool gone;	    /* (3) */
	bool committed;	    /* nothing is left to be removed */
	struct lora_output *next;
};

/* Guards the list of unfinished outputs, every change of a name on the disk, and the fields above
 * but `failed`. */
void lora__output_lock(void);
void lora__output_unlock(void);
/* May the output still be written? Under the lock. */
enum lora_status lora__output_check(const struct lora_output *output, struct lora_error *err);
/* Removes all temporary names. Under the lock. */
void lora__output_discard(struct lora_output *output);

#endif
