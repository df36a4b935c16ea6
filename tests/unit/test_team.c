/* SPDX-License-Identifier: Apache-2.0 */
/* base/team.c: the invariants of base/team.h by their numbers. */
#include "base_check.h"

#include <stdatomic.h>
#include <stdbool.h>
#include <time.h>

#include "base/team.h"

struct record {
	atomic_uint calls[16];
	unsigned plain[16]; /* written without atomics: seen through the team alone */
	atomic_uint wrong;
	unsigned count;
	bool slow;
};

static void work(void *user, unsigned worker, unsigned count)
{
	struct record *r = user;
	struct timespec nap = {0, 300000};

	if (worker >= count || count != r->count)
		atomic_fetch_add(&r->wrong, 1);
	if (r->slow && worker % 2)
		nanosleep(&nap, NULL);
	atomic_fetch_add(&r->calls[worker], 1);
	r->plain[worker]++;
}

/* (1), (2): every piece is done by every worker once, and is done when run() returns; slow pieces
 * make workers and caller fall asleep. */
static void team__every_worker_works_once(void **state)
{
	static const unsigned threads[] = {1, 2, 3, 7};

	(void)state;
	for (size_t k = 0; k < 4; k++) {
		struct record r = {.count = threads[k]};
		struct lora_team *team = NULL;

		assert_int_equal(lora__team_new(&team, threads[k], NULL), LORA_OK);
		assert_int_equal(lora__team_count(team), threads[k]);
		for (unsigned turn = 1; turn <= 400; turn++) {
			r.slow = turn % 40 == 0;
			lora__team_run(team, work, &r);
			for (unsigned w = 0; w < threads[k]; w++) {
				assert_int_equal(atomic_load(&r.calls[w]), turn);
				assert_int_equal(r.plain[w], turn);
			}
		}
		assert_int_equal(atomic_load(&r.wrong), 0);
		lora__team_free(team);
	}
	lora__team_free(NULL);
}

static void team__may_rest_between_pieces(void **state)
{
	struct record r = {.count = 3};
	struct timespec rest = {0, 5000000};
	struct lora_team *team = NULL;

	(void)state;
	assert_int_equal(lora__team_new(&team, 3, NULL), LORA_OK);
	for (unsigned turn = 1; turn <= 20; turn++) {
		nanosleep(&rest, NULL);
		lora__team_run(team, work, &r);
		assert_int_equal(r.plain[0] + r.plain[1] + r.plain[2], 3 * turn);
	}
	nanosleep(&rest, NULL);
	lora__team_free(team);
}

static void team__shares_cover_all_once(void **state)
{
	(void)state;
	for (size_t total = 0; total < 200; total += 7)
		for (size_t grain = 1; grain <= 64; grain *= 4)
			for (unsigned count = 1; count < 9; count++) {
				size_t at = 0, begin, end;

				for (unsigned w = 0; w < count; w++) {
					lora__team_share(total, grain, w, count, &begin, &end);
					assert_int_equal(begin, at);
					assert_true(end >= begin && end <= total);
					assert_true(end == total || end % grain == 0);
					at = end;
				}
				assert_int_equal(at, total);
			}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(team__every_worker_works_once),
	    cmocka_unit_test(team__may_rest_between_pieces),
	    cmocka_unit_test(team__shares_cover_all_once),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
