/* SPDX-License-Identifier: Apache-2.0 */
/* loractl/progress.h - what the library tells its caller while it works; it never prints.
 *
 * Callbacks run on the thread that called the library, or, for `progress`, on any worker but never
 * two at a time. They may be NULL.
 */
#ifndef LORACTL_PROGRESS_H
#define LORACTL_PROGRESS_H

#include <loractl/types.h>

#ifdef __cplusplus
extern "C" {
#endif

struct lora_progress {
	const char *stage; /* "hash base", "merge", ...; static storage */
	uint64_t done;	   /* bytes */
	uint64_t total;	   /* bytes; 0 if unknown */
};

enum lora_note_level {
	LORA_NOTE_DETAIL,  /* shown with --verbose */
	LORA_NOTE_INFO,	   /* shown unless --quiet */
	LORA_NOTE_WARNING, /* likewise, marked */
	LORA_NOTE_PROBLEM, /* one of several lines that precede an error: shown even with --quiet */
};

struct lora_observer {
	void *user;
	/* One line without a newline, already escaped for a terminal. */
	void (*note)(void *user, enum lora_note_level level, const char *line);
	/* Return non-zero to cancel: the operation cleans up and returns LORA_CANCELLED. */
	int (*progress)(void *user, const struct lora_progress *progress);
};

#ifdef __cplusplus
}
#endif

#endif
