/* SPDX-License-Identifier: Apache-2.0 */
/* base/watch.h - calling the observer: notes with a format, progress that is cheap and thread-safe.
 */
#ifndef LORA_BASE_WATCH_H
#define LORA_BASE_WATCH_H

#include <loractl/progress.h>
#include <pthread.h>
#include <stdatomic.h>

/* observer may be NULL. */
void lora__note(const struct lora_observer *observer, enum lora_note_level level,
		const char *format, ...) LORA_PRINTF(3, 4);

struct lora_watch {
	const struct lora_observer *observer;
	const char *stage;
	uint64_t total;
	_Atomic uint64_t done;
	/* done at which the observer is called again: steps of total / 1000 */
	_Atomic uint64_t next;
	atomic_bool cancelled;
	pthread_mutex_t lock;
};

void lora__watch_init(struct lora_watch *watch, const struct lora_observer *observer,
		      const char *stage, uint64_t total);
void lora__watch_fini(struct lora_watch *watch);
/* Adds bytes; any thread. LORA_CANCELLED ("interrupted") once the observer has asked to stop. */
enum lora_status lora__watch_add(struct lora_watch *watch, uint64_t bytes, struct lora_error *err);

#endif
