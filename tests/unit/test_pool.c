/* SPDX-License-Identifier: Apache-2.0 */
/* base/pool.c and base/cores.c: the invariants of base/pool.h by their numbers. */
#include "base_check.h"

#include <errno.h>
#include <limits.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/stat.h>

#include "base/error.h"
#include "base/pool.h"
#include "failing_malloc.h"

#define ITEMS 500

struct record {
	atomic_int runs[ITEMS]; /* how often each item ran */
	atomic_int busy[16];	/* calls that a worker is in */
	atomic_uint workers;	/* bit mask of those that were seen */
	atomic_bool wrong_worker;
	unsigned threads;
	unsigned char fails[ITEMS]; /* which items fail */
	unsigned char slow[ITEMS];
};

static void spin(unsigned turns)
{
	for (volatile unsigned i = 0; i < turns * 1000; i++)
		continue;
}

static enum lora_status work(void *user, size_t item, unsigned worker, struct lora_error *err)
{
	struct record *record = user;
	enum lora_status status = LORA_OK;

	if (worker >= record->threads || atomic_fetch_add(&record->busy[worker % 16], 1) != 0)
		record->wrong_worker = true;
	atomic_fetch_or(&record->workers, 1u << worker % 16);
	atomic_fetch_add(&record->runs[item], 1);
	spin(record->slow[item]);
	if (record->fails[item])
		status = lora__fail(err, item % 2 ? LORA_NO : LORA_INPUT, "item %zu", item);
	atomic_fetch_sub(&record->busy[worker % 16], 1);
	return status;
}

static unsigned next_random(unsigned *seed)
{
	*seed = *seed * 1664525u + 1013904223u;
	return *seed >> 16;
}

/* (1) */
static void pool__every_item_runs_once(void **state)
{
	static const unsigned threads[] = {1, 2, 3, 8, 16};
	struct lora_error err = {LORA_NO, 5, "as it was"};

	(void)state;
	for (size_t i = 0; i < sizeof threads / sizeof *threads; i++) {
		struct record record = {.threads = threads[i]};

		assert_ok(lora__parallel(threads[i], ITEMS, work, &record, &err));
		for (size_t item = 0; item < ITEMS; item++)
			assert_int_equal(record.runs[item], 1);
		assert_false(record.wrong_worker);
		assert_string_equal(err.message, "as it was");
	}
}

static void pool__no_items_is_no_work(void **state)
{
	struct record record = {.threads = 4};
	struct lora_error err = LORA_ERROR_INIT;

	(void)state;
	assert_ok(lora__parallel(4, 0, work, &record, &err));
	assert_ok(lora__parallel(0, 1, work, &record, &err));
	assert_int_equal(record.runs[0], 1);
	assert_int_equal(record.workers, 1); /* one item needs no second thread */
}

/* (2) Items fail at random; whichever fails first in time, the lowest is reported, none below it
 * was left out, and with one thread none above it ran. */
static void pool__the_lowest_failure_is_reported(void **state)
{
	unsigned seed = 1;

	(void)state;
	for (int round = 0; round < 200; round++) {
		struct record record = {.threads = (unsigned)round % 8 + 1};
		struct lora_error err = LORA_ERROR_INIT;
		size_t lowest = ITEMS;
		char expected[32];

		for (size_t item = ITEMS; item-- > 0;) {
			record.slow[item] = next_random(&seed) % 8 == 0 ? 20 : 0;
			if (next_random(&seed) % 40 == 0) {
				record.fails[item] = 1;
				lowest = item;
			}
		}
		if (lowest == ITEMS)
			continue;
		assert_int_equal(lora__parallel(record.threads, ITEMS, work, &record, &err),
				 lowest % 2 ? LORA_NO : LORA_INPUT);
		(void)snprintf(expected, sizeof expected, "item %zu", lowest);
		assert_string_equal(err.message, expected);
		assert_int_equal(err.status, lowest % 2 ? LORA_NO : LORA_INPUT);
		for (size_t item = 0; item <= lowest; item++)
			assert_int_equal(record.runs[item], 1);
		for (size_t item = lowest + 1; item < ITEMS; item++)
			assert_true(record.runs[item] <= (record.threads > 1));
		assert_false(record.wrong_worker);
	}
}

/* Four items begin together on four threads, and each goes on when all have begun. */
struct gate {
	pthread_mutex_t lock;
	pthread_cond_t changed;
	int began;
	size_t highest;
	size_t first, second; /* items that fail: one at once, one after a while */
	pthread_t caller;
	bool wrong_thread, wrong_mask;
};

#define GATE_INIT                                                                                  \
	{                                                                                          \
		PTHREAD_MUTEX_INITIALIZER, PTHREAD_COND_INITIALIZER                                \
	}

static void check_thread(struct gate *gate, unsigned worker)
{
	sigset_t mask;

	if ((worker == 0) != (pthread_equal(pthread_self(), gate->caller) != 0))
		gate->wrong_thread = true;
	/* Signals for the process are none of the workers' business; faults of their own are. */
	if (pthread_sigmask(SIG_SETMASK, NULL, &mask) != 0 || sigismember(&mask, SIGSEGV) ||
	    sigismember(&mask, SIGINT) != (worker > 0))
		gate->wrong_mask = true;
}

static enum lora_status gate_work(void *user, size_t item, unsigned worker, struct lora_error *err)
{
	struct gate *gate = user;
	struct timespec pause = {0, 200000000};

	pthread_mutex_lock(&gate->lock);
	check_thread(gate, worker);
	gate->began++;
	if (item > gate->highest)
		gate->highest = item;
	pthread_cond_broadcast(&gate->changed);
	while (gate->began < 4)
		pthread_cond_wait(&gate->changed, &gate->lock);
	pthread_mutex_unlock(&gate->lock);
	if (item == gate->first)
		return lora__fail(err, LORA_INPUT, "first");
	while (nanosleep(&pause, &pause) != 0)
		continue;
	return item == gate->second ? lora__fail(err, LORA_NO, "second") : LORA_OK;
}

/* (2) After a failure nothing above it begins, though its thread has time for it; what is below may
 * still fail, and then counts. */
static void pool__nothing_above_a_failure_begins(void **state)
{
	struct gate gate = GATE_INIT;
	struct lora_error err = LORA_ERROR_INIT;

	(void)state;
	gate.caller = pthread_self();
	gate.first = 3;
	gate.second = 1;
	assert_int_equal(lora__parallel(4, 1000, gate_work, &gate, &err), LORA_NO);
	assert_string_equal(err.message, "second");
	assert_int_equal(gate.began, 4);
	assert_int_equal(gate.highest, 3);
}

/* (2) A higher item that began before and fails later does not. */
static void pool__a_later_failure_above_does_not_count(void **state)
{
	struct gate gate = GATE_INIT;
	struct lora_error err = LORA_ERROR_INIT;

	(void)state;
	gate.caller = pthread_self();
	gate.first = 1;
	gate.second = 3;
	assert_int_equal(lora__parallel(4, 1000, gate_work, &gate, &err), LORA_INPUT);
	assert_string_equal(err.message, "first");
	assert_int_equal(gate.began, 4);
}

/* (3) */
static void pool__the_caller_is_worker_0(void **state)
{
	struct gate gate = GATE_INIT;
	struct lora_error err = LORA_ERROR_INIT;
	sigset_t mask;

	(void)state;
	gate.caller = pthread_self();
	gate.first = gate.second = SIZE_MAX;
	assert_ok(lora__parallel(4, 4, gate_work, &gate, &err));
	assert_int_equal(gate.began, 4); /* each on its own thread, or they would still wait */
	assert_false(gate.wrong_thread);
	assert_false(gate.wrong_mask);
	assert_int_equal(pthread_sigmask(SIG_SETMASK, NULL, &mask), 0);
	assert_false(sigismember(&mask, SIGINT));
}

static enum lora_status fail_silently(void *user, size_t item, unsigned worker,
				      struct lora_error *err)
{
	(void)user, (void)item, (void)worker, (void)err;
	return LORA_CANCELLED;
}

static void pool__a_failure_without_a_message_keeps_its_status(void **state)
{
	struct lora_error err = LORA_ERROR_INIT;

	(void)state;
	assert_int_equal(lora__parallel(2, 10, fail_silently, NULL, &err), LORA_CANCELLED);
	assert_int_equal(err.status, LORA_CANCELLED);
	assert_int_equal(lora__parallel(2, 10, fail_silently, NULL, NULL), LORA_CANCELLED);
}

static void pool__without_memory_the_caller_does_it_all(void **state)
{
	struct record record = {.threads = 8};
	struct lora_error err = LORA_ERROR_INIT;

	(void)state;
	if (!FAILING_MALLOC)
		skip();
	failing_malloc_begin(0);
	assert_ok(lora__parallel(8, ITEMS, work, &record, &err));
	assert_true(failing_malloc_end());
	assert_int_equal(record.workers, 1);
	for (size_t item = 0; item < ITEMS; item++)
		assert_int_equal(record.runs[item], 1);
}

/* --- cores --------------------------------------------------------------------------- */

static void write_file(const char *path, const char *text)
{
	char folder[4096];
	FILE *file;

	for (const char *slash = strchr(path, '/'); slash != NULL; slash = strchr(slash + 1, '/')) {
		(void)snprintf(folder, sizeof folder, "%.*s", (int)(slash - path), path);
		if (mkdir(folder, 0777) != 0 && errno != EEXIST)
			fail_msg("%s", folder);
	}
	file = fopen(path, "w");
	assert_non_null(file);
	assert_true(fputs(text, file) >= 0);
	assert_int_equal(fclose(file), 0);
}

static void cores__quota_of_version_2(void **state)
{
	static const struct {
		const char *text;
		unsigned cores;
	} cases[] = {
	    {"max 100000\n", UINT_MAX}, {"100000 100000\n", 1},	 {"100001 100000\n", 2},
	    {"150000 100000\n", 2},	{"50000 100000\n", 1},	 {"1000 1000000\n", 1},
	    {"6400000 100000\n", 64},	{"garbage\n", UINT_MAX}, {"", UINT_MAX},
	    {"100000 0\n", UINT_MAX},
	};

	(void)state;
	enter_scratch();
	assert_int_equal(lora__cores_quota("none"), UINT_MAX);
	write_file("r/proc/self/cgroup", "0::/a/b\n");
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		write_file("r/sys/fs/cgroup/a/b/cpu.max", cases[i].text);
		assert_int_equal(lora__cores_quota("r"), cases[i].cores);
	}
	/* A group above allows less; one beside it does not matter. */
	write_file("r/sys/fs/cgroup/a/b/cpu.max", "400000 100000\n");
	write_file("r/sys/fs/cgroup/a/cpu.max", "250000 100000\n");
	write_file("r/sys/fs/cgroup/c/cpu.max", "100000 100000\n");
	assert_int_equal(lora__cores_quota("r"), 3);
	/* In a container: PATH is the host's, the mount is the container's. */
	write_file("r/proc/self/cgroup", "0::/docker/0123456789abcdef\n");
	assert_int_equal(lora__cores_quota("r"), UINT_MAX);
	write_file("r/sys/fs/cgroup/cpu.max", "200000 100000\n");
	assert_int_equal(lora__cores_quota("r"), 2);
	leave_scratch();
}

static void cores__quota_of_version_1(void **state)
{
	(void)state;
	enter_scratch();
	write_file("r/proc/self/cgroup",
		   "5:cpuset:/x\n4:memory:/x\n3:cpu,cpuacct:/x/y\n1:name=systemd:/x\n0::/x\n");
	write_file("r/sys/fs/cgroup/cpu,cpuacct/x/y/cpu.cfs_quota_us", "-1\n");
	write_file("r/sys/fs/cgroup/cpu,cpuacct/x/y/cpu.cfs_period_us", "100000\n");
	assert_int_equal(lora__cores_quota("r"), UINT_MAX);
	write_file("r/sys/fs/cgroup/cpu,cpuacct/x/y/cpu.cfs_quota_us", "320000\n");
	assert_int_equal(lora__cores_quota("r"), 4);
	write_file("r/sys/fs/cgroup/cpu,cpuacct/x/cpu.cfs_quota_us", "50000\n");
	write_file("r/sys/fs/cgroup/cpu,cpuacct/x/cpu.cfs_period_us", "25000\n");
	assert_int_equal(lora__cores_quota("r"), 2);
	/* A hierarchy that does not govern the processor. */
	write_file("r/sys/fs/cgroup/cpuset/x/cpu.cfs_quota_us", "1\n");
	write_file("r/sys/fs/cgroup/cpuset/x/cpu.cfs_period_us", "1\n");
	assert_int_equal(lora__cores_quota("r"), 2);
	leave_scratch();
}

static void cores__affinity_counts(void **state)
{
	cpu_set_t before, one;
	unsigned all = lora__cores();

	(void)state;
	assert_true(all >= 1);
	assert_int_equal(sched_getaffinity(0, sizeof before, &before), 0);
	assert_true(all <= (unsigned)CPU_COUNT(&before));
	CPU_ZERO(&one);
	for (size_t cpu = 0; cpu < CPU_SETSIZE && CPU_COUNT(&one) == 0; cpu++)
		if (CPU_ISSET(cpu, &before))
			CPU_SET(cpu, &one);
	assert_int_equal(sched_setaffinity(0, sizeof one, &one), 0);
	assert_int_equal(lora__cores(), 1);
	assert_int_equal(sched_setaffinity(0, sizeof before, &before), 0);
	assert_int_equal(lora__cores(), all);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(pool__every_item_runs_once),
	    cmocka_unit_test(pool__no_items_is_no_work),
	    cmocka_unit_test(pool__the_lowest_failure_is_reported),
	    cmocka_unit_test(pool__nothing_above_a_failure_begins),
	    cmocka_unit_test(pool__a_later_failure_above_does_not_count),
	    cmocka_unit_test(pool__a_failure_without_a_message_keeps_its_status),
	    cmocka_unit_test(pool__the_caller_is_worker_0),
	    cmocka_unit_test(pool__without_memory_the_caller_does_it_all),
	    cmocka_unit_test(cores__quota_of_version_2),
	    cmocka_unit_test(cores__quota_of_version_1),
	    cmocka_unit_test(cores__affinity_counts),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
