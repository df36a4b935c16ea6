/* SPDX-License-Identifier: Apache-2.0 */
/* base/team.c - threads that stay: the invariants are in team.h
 *
 * `turn` counts the pieces of work. The caller publishes work and user, then raises `turn`; a
 * worker that sees a turn it has not done does it and raises `done`; the caller waits until `done`
 * is the number of others. Both sides look for SPIN rounds before they sleep on a condition, so
 * that pieces that follow each other at once cost no system call. The lock is taken by whoever
 * goes to sleep and by whoever wakes; `turn` and `done` change under it only if somebody sleeps.
 */
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>

#include "base/error.h"
#include "base/pool.h"
#include "base/team.h"

/* Rounds of waiting awake: some 20 to 60 microseconds, about what falling asleep and waking costs.
 */
#define SPIN 2000

struct member {
	struct lora_team *team;
	unsigned number;
	pthread_t thread;
};

struct lora_team {
	unsigned count; /* the caller's thread included */
	struct member *members;
	lora_team_fn *work;
	void *user;
	atomic_uint turn, done, asleep; /* asleep: workers that wait for the condition */
	atomic_bool leave, waiting;	/* waiting: the caller sleeps */
	pthread_mutex_t lock;
	pthread_cond_t begin, end;
};

static inline void pause_a_moment(void)
{
#if defined(__x86_64__) || defined(__i386__)
	__builtin_ia32_pause();
#elif defined(__aarch64__)
	__asm__ volatile("yield");
#endif
}

static bool has_turn(const struct lora_team *team, unsigned seen)
{
	return atomic_load(&team->turn) != seen;
}

/* Returns when there is a turn beyond `seen`. */
static void wait_for_turn(struct lora_team *team, unsigned seen)
{
	for (unsigned i = 0; i < SPIN; i++) {
		if (has_turn(team, seen))
			return;
		pause_a_moment();
	}
	(void)pthread_mutex_lock(&team->lock);
	atomic_fetch_add(&team->asleep, 1);
	while (!has_turn(team, seen))
		(void)pthread_cond_wait(&team->begin, &team->lock);
	atomic_fetch_sub(&team->asleep, 1);
	(void)pthread_mutex_unlock(&team->lock);
}

static void *serve(void *argument)
{
	struct member *member = argument;
	struct lora_team *team = member->team;

	for (unsigned turn = 0;; turn++) {
		wait_for_turn(team, turn);
		if (atomic_load(&team->leave))
			return NULL;
		team->work(team->user, member->number, team->count);
		atomic_fetch_add(&team->done, 1);
		if (atomic_load(&team->waiting)) {
			(void)pthread_mutex_lock(&team->lock);
			(void)pthread_cond_signal(&team->end);
			(void)pthread_mutex_unlock(&team->lock);
		}
	}
}

static void raise_turn(struct lora_team *team)
{
	atomic_fetch_add(&team->turn, 1);
	if (atomic_load(&team->asleep) == 0)
		return;
	(void)pthread_mutex_lock(&team->lock);
	(void)pthread_cond_broadcast(&team->begin);
	(void)pthread_mutex_unlock(&team->lock);
}

static void wait_for_others(struct lora_team *team)
{
	unsigned others = team->count - 1;

	for (unsigned i = 0; i < SPIN; i++) {
		if (atomic_load(&team->done) == others)
			return;
		pause_a_moment();
	}
	(void)pthread_mutex_lock(&team->lock);
	atomic_store(&team->waiting, true);
	while (atomic_load(&team->done) != others)
		(void)pthread_cond_wait(&team->end, &team->lock);
	atomic_store(&team->waiting, false);
	(void)pthread_mutex_unlock(&team->lock);
}

void lora__team_run(struct lora_team *team, lora_team_fn *work, void *user)
{
	if (team->count > 1) {
		team->work = work;
		team->user = user;
		atomic_store(&team->done, 0);
		raise_turn(team);
	}
	work(user, 0, team->count);
	if (team->count > 1)
		wait_for_others(team);
}

unsigned lora__team_count(const struct lora_team *team)
{
	return team->count;
}

/* Starts members 1 .. threads - 1. They take no signals that are meant for the process. The count
 * is read by nobody before the first turn. */
static void start(struct lora_team *team, unsigned threads)
{
	sigset_t all, before;

	(void)sigfillset(&all);
	(void)sigdelset(&all, SIGSEGV);
	(void)sigdelset(&all, SIGBUS);
	(void)sigdelset(&all, SIGFPE);
	(void)sigdelset(&all, SIGILL);
	(void)sigdelset(&all, SIGABRT);
	(void)pthread_sigmask(SIG_BLOCK, &all, &before);
	for (team->count = 1; team->count < threads; team->count++) {
		struct member *member = &team->members[team->count];

		member->team = team;
		member->number = team->count;
		if (pthread_create(&member->thread, NULL, serve, member) != 0)
			break;
	}
	(void)pthread_sigmask(SIG_SETMASK, &before, NULL);
}

enum lora_status lora__team_new(struct lora_team **out, unsigned threads, struct lora_error *err)
{
	struct lora_team *team = calloc(1, sizeof(*team));

	*out = NULL;
	if (threads == 0)
		threads = lora__cores();
	if (team)
		team->members = calloc(threads, sizeof(*team->members));
	if (!team || !team->members) {
		free(team);
		return lora__fail_memory(err);
	}
	(void)pthread_mutex_init(&team->lock, NULL);
	(void)pthread_cond_init(&team->begin, NULL);
	(void)pthread_cond_init(&team->end, NULL);
	start(team, threads);
	*out = team;
	return LORA_OK;
}

void lora__team_free(struct lora_team *team)
{
	if (!team)
		return;
	atomic_store(&team->leave, true);
	raise_turn(team);
	for (unsigned i = 1; i < team->count; i++)
		(void)pthread_join(team->members[i].thread, NULL);
	(void)pthread_mutex_destroy(&team->lock);
	(void)pthread_cond_destroy(&team->begin);
	(void)pthread_cond_destroy(&team->end);
	free(team->members);
	free(team);
}

void lora__team_share(size_t total, size_t grain, unsigned worker, unsigned count, size_t *begin,
		      size_t *end)
{
	size_t grains = (total + grain - 1) / grain;

	*begin = grains * worker / count * grain;
	*end = grains * (worker + 1) / count * grain;
	if (*begin > total)
		*begin = total;
	if (*end > total)
		*end = total;
}
