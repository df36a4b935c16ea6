/* SPDX-License-Identifier: Apache-2.0 */
/* base/watch.c - calling the observer
 *
 * Workers add bytes thousands of times a second, and the observer needs to hear of it now and then:
 * `done` is a counter that all threads add to without a lock, and only the one that carries it past
 * `next` takes the lock, looks again, calls and sets the next step.
 *
 * 1. The observer is called at the beginning (done = 0), at about every thousandth, and at the end
 *    (done = total).
 * 2. Calls follow one another and `done` never decreases: it is read under the lock.
 * 3. Once it has asked to stop it is not called again, and every add returns LORA_CANCELLED.
 */
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/error.h"
#include "base/utf8.h"
#include "base/watch.h"

#define NOTE_SIZE 4096
#define STEPS	  1000
/* Bytes from call to call when the total is not known. */
#define STEP_UNKNOWN ((uint64_t)16 << 20)

void lora__note(const struct lora_observer *observer, enum lora_note_level level,
		const char *format, ...)
{
	char line[NOTE_SIZE];
	va_list args;
	int length;

	if (observer == NULL || observer->note == NULL)
		return;
	va_start(args, format);
	length = vsnprintf(line, sizeof line, format, args);
	va_end(args);
	if (length < 0)
		return;
	if ((size_t)length >= sizeof line) {
		size_t kept = lora__utf8_cut(line, sizeof line - 1, sizeof line - sizeof "...");

		memcpy(line + kept, "...", sizeof "...");
	}
	observer->note(observer->user, level, line);
}

/* Calls the observer and sets the next step. The caller holds the lock, or is alone. */
static void report(struct lora_watch *watch)
{
	uint64_t done = atomic_load(&watch->done);
	uint64_t step = watch->total == 0 ? STEP_UNKNOWN : watch->total / STEPS;
	uint64_t next = done + (step == 0 ? 1 : step);
	struct lora_progress progress = {watch->stage, done, watch->total};

	if (done < watch->total && next > watch->total)
		next = watch->total;
	atomic_store(&watch->next, next < done ? UINT64_MAX : next);
	if (watch->observer->progress(watch->observer->user, &progress) != 0)
		atomic_store(&watch->cancelled, true);
}

void lora__watch_init(struct lora_watch *watch, const struct lora_observer *observer,
		      const char *stage, uint64_t total)
{
	if (observer != NULL && observer->progress == NULL)
		observer = NULL;
	watch->observer = observer;
	watch->stage = stage;
	watch->total = total;
	atomic_init(&watch->done, 0);
	atomic_init(&watch->next, 0);
	atomic_init(&watch->cancelled, false);
	(void)pthread_mutex_init(&watch->lock, NULL);
	if (observer != NULL)
		report(watch);
}

void lora__watch_fini(struct lora_watch *watch)
{
	(void)pthread_mutex_destroy(&watch->lock);
}

enum lora_status lora__watch_add(struct lora_watch *watch, uint64_t bytes, struct lora_error *err)
{
	uint64_t done = atomic_fetch_add(&watch->done, bytes) + bytes;

	if (watch->observer == NULL)
		return LORA_OK;
	if (done >= atomic_load(&watch->next)) {
		(void)pthread_mutex_lock(&watch->lock);
		if (atomic_load(&watch->done) >= atomic_load(&watch->next) &&
		    !atomic_load(&watch->cancelled))
			report(watch);
		(void)pthread_mutex_unlock(&watch->lock);
	}
	if (atomic_load(&watch->cancelled))
		return lora__fail(err, LORA_CANCELLED, "interrupted");
	return LORA_OK;
}
