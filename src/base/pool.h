/* SPDX-License-Identifier: Apache-2.0 */
/* base/pool.h - worker threads.
 *
 * 1. Work is a numbered list of independent items; which thread takes which is unspecified, so an
 *    item's result must depend on its number alone. That is how results are the same for every
 *    number of threads.
 * 2. The first failure by ITEM NUMBER (not by time) is the one that is reported: items are handed
 *    out in ascending order, and after a failure of item i no item above i is started, all below i
 *    are finished.
 * 3. The caller's thread works too. threads = 1 starts none.
 */
#ifndef LORA_BASE_POOL_H
#define LORA_BASE_POOL_H

#include <loractl/error.h>
#include <stddef.h>

/* The cores that this process may use (its affinity mask, its cgroup's quota), at least 1. */
unsigned lora__cores(void);
/* The quota alone, rounded up to cores; UINT_MAX without one. root: what stands before "/proc" and
 * "/sys", "" but in tests. */
unsigned lora__cores_quota(const char *root);

/* Runs work(user, item, worker, err) for item = 0 .. count - 1 on up to `threads` threads (0:
 * lora__cores()); worker is below that number and no two calls with the same worker run at once:
 * index scratch memory with it. */
typedef enum lora_status lora_work_fn(void *user, size_t item, unsigned worker,
				      struct lora_error *err);
enum lora_status lora__parallel(unsigned threads, size_t count, lora_work_fn *work, void *user,
				struct lora_error *err);

#endif
