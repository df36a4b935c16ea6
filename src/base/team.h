/* SPDX-License-Identifier: Apache-2.0 */
/* base/team.h - threads that stay, for work that comes in pieces of microseconds.
 *
 * base/pool.h starts its threads anew for each list of items, which costs some twenty microseconds:
 * nothing beside a tensor of a merge, everything beside one matrix of one token. A team's threads
 * wait for the next piece: awake for a moment, then asleep.
 *
 * 1. One piece of work at a time; lora__team_run() returns when every worker is done with it, and
 *    what the workers wrote is seen by the caller, and by all workers in the next piece.
 * 2. Workers are numbered 0 to count - 1; the caller's thread is worker 0. Work must give a result
 *    that depends on (worker, count) alone, or share it out by an atomic counter.
 * 3. There is no failure on the way: work that can fail writes its error where its worker number
 *    says.
 */
#ifndef LORA_BASE_TEAM_H
#define LORA_BASE_TEAM_H

#include <loractl/error.h>
#include <stddef.h>

struct lora_team;

typedef void lora_team_fn(void *user, unsigned worker, unsigned count);

/* threads: 0 for lora__cores(). Where the system refuses a thread the team is smaller. */
enum lora_status lora__team_new(struct lora_team **out, unsigned threads, struct lora_error *err);
void lora__team_free(struct lora_team *team); /* NULL is a no-op */
unsigned lora__team_count(const struct lora_team *team);
void lora__team_run(struct lora_team *team, lora_team_fn *work, void *user);

/* Worker's share of `total` in whole multiples of `grain`: [*begin, *end), maybe empty. */
void lora__team_share(size_t total, size_t grain, unsigned worker, unsigned count, size_t *begin,
		      size_t *end);

#endif
