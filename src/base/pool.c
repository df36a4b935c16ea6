/* SPDX-License-Identifier: Apache-2.0 */
/* base/pool.c - running numbered items on threads: the invariants are in pool.h
 *
 * One lock guards two numbers: `next`, the item to be handed out, and `end`, behind the last that
 * may be. A failure of item i lowers `end` to i. Since a worker takes an item and learns of
 * failures under the same lock, no item above i begins once i has failed; and since items go out in
 * ascending order, all below i have begun by then and are waited for. So the lowest failing item is
 * the same in every run, if each item's outcome depends on its number alone.
 *
 * Threads are started for one call and joined at its end: an item is a tensor's worth of work, and
 * starting a thread takes some twenty microseconds. Where the system refuses a thread, the others
 * do its work.
 */
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdlib.h>

#include "base/error.h"
#include "base/pool.h"

struct run {
	pthread_mutex_t lock;
	size_t next, end;
	size_t failed; /* the lowest item that failed so far, if status is not LORA_OK */
	enum lora_status status;
	struct lora_error error;
	lora_work_fn *work;
	void *user;
};

struct worker {
	struct run *run;
	unsigned number;
	pthread_t thread;
};

/* True with the next item, if there is one. */
static bool take(struct run *run, size_t *item)
{
	bool some;

	(void)pthread_mutex_lock(&run->lock);
	some = run->next < run->end;
	if (some)
		*item = run->next++;
	(void)pthread_mutex_unlock(&run->lock);
	return some;
}

static void fail(struct run *run, size_t item, enum lora_status status,
		 const struct lora_error *error)
{
	(void)pthread_mutex_lock(&run->lock);
	if (run->status == LORA_OK || item < run->failed) {
		run->failed = item;
		run->status = status;
		run->error = *error;
		run->error.status = status;
		if (item < run->end)
			run->end = item;
	}
	(void)pthread_mutex_unlock(&run->lock);
}

static void *work(void *argument)
{
	struct worker *worker = argument;
	struct run *run = worker->run;
	size_t item;

	while (take(run, &item)) {
		struct lora_error error = LORA_ERROR_INIT;
		enum lora_status status = run->work(run->user, item, worker->number, &error);

		if (status != LORA_OK)
			fail(run, item, status, &error);
	}
	return NULL;
}

/* Starts workers 1 .. count - 1; the number that could be started. Signals meant for the process
 * stay with the program's own threads: a thread begins with its maker's mask. */
static unsigned start(struct run *run, struct worker *workers, unsigned count)
{
	static const int own[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP, SIGABRT, SIGPROF};
	unsigned started = 0;
	sigset_t all, before;

	(void)sigfillset(&all);
	for (size_t i = 0; i < sizeof own / sizeof *own; i++)
		(void)sigdelset(&all, own[i]);
	(void)pthread_sigmask(SIG_BLOCK, &all, &before);
	for (; started + 1 < count; started++) {
		struct worker *worker = &workers[started];

		worker->run = run;
		worker->number = started + 1;
		if (pthread_create(&worker->thread, NULL, work, worker) != 0)
			break;
	}
	(void)pthread_sigmask(SIG_SETMASK, &before, NULL);
	return started;
}

enum lora_status lora__parallel(unsigned threads, size_t count, lora_work_fn *item_work, void *user,
				struct lora_error *err)
{
	struct run run = {.end = count, .work = item_work, .user = user};
	struct worker self = {.run = &run}, *workers = NULL;
	unsigned started = 0;

	if (threads == 0)
		threads = lora__cores();
	if (threads > count)
		threads = (unsigned)count;
	(void)pthread_mutex_init(&run.lock, NULL);
	if (threads > 1)
		workers = calloc(threads - 1, sizeof *workers);
	if (workers != NULL)
		started = start(&run, workers, threads);
	(void)work(&self);
	for (unsigned i = 0; i < started; i++)
		(void)pthread_join(workers[i].thread, NULL);
	free(workers);
	(void)pthread_mutex_destroy(&run.lock);
	if (run.status != LORA_OK && err != NULL)
		*err = run.error;
	return run.status;
}
