/* SPDX-License-Identifier: Apache-2.0 */
/* base/cores.c - how many cores this process may use
 *
 * Two things take cores away from a process: an affinity mask says which it may run on, and a
 * control group's quota says how much time all its threads may have together in each period (that
 * is what a container's "2 CPUs" is). With more threads than the quota they all stand still at the
 * end of each period, so the quota counts as ceil(quota / period) cores.
 *
 *	version 2   GROUP/cpu.max              "max 100000", or "150000 100000": quota, period
 *	version 1   GROUP/cpu.cfs_quota_us     "-1": none
 *	            GROUP/cpu.cfs_period_us
 *
 * /proc/self/cgroup names the GROUP, in a line "NUMBER:CONTROLLERS:PATH" for each hierarchy; it is
 * /sys/fs/cgroup/PATH where CONTROLLERS is empty (version 2) and /sys/fs/cgroup/CONTROLLERS/PATH
 * where it is "cpu" or "cpu,cpuacct". Every group above limits too, so that the smallest quota from
 * PATH up to the root counts. In a container PATH may be one of the host's that is not there; then
 * the root of what is mounted is the container's own group.
 */
#include <limits.h>
#include <sched.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/pool.h"

#define SET_MAX 65536 /* cores: the largest mask that is asked for */

/* The first line of a file, without its newline. */
static bool read_line(const char *path, char *line, int size)
{
	FILE *file = fopen(path, "re");
	bool good = file != NULL && fgets(line, size, file) != NULL;

	if (file != NULL)
		(void)fclose(file);
	if (good)
		line[strcspn(line, "\n")] = '\0';
	return good;
}

/* ceil(quota / period), UINT_MAX without a quota. Both texts are microseconds. */
static unsigned cores_of(const char *quota, const char *period)
{
	long long q = strtoll(quota, NULL, 10), p = strtoll(period, NULL, 10);

	if (q <= 0 || p <= 0 || q / p >= UINT_MAX) /* "max" gives 0 */
		return UINT_MAX;
	return (unsigned)((q - 1) / p + 1);
}

/* One group's own quota; `group` is its directory. */
static unsigned group_cores(const char *group)
{
	char path[PATH_MAX + 32], quota[64], period[64];
	char *space;

	(void)snprintf(path, sizeof path, "%s/cpu.max", group);
	if (read_line(path, quota, sizeof quota)) {
		space = strchr(quota, ' ');
		return space == NULL ? UINT_MAX : cores_of(quota, space + 1);
	}
	(void)snprintf(path, sizeof path, "%s/cpu.cfs_quota_us", group);
	if (!read_line(path, quota, sizeof quota))
		return UINT_MAX;
	(void)snprintf(path, sizeof path, "%s/cpu.cfs_period_us", group);
	return read_line(path, period, sizeof period) ? cores_of(quota, period) : UINT_MAX;
}

/* The smallest quota from mount/path up to mount. */
static unsigned hierarchy_cores(const char *mount, const char *path)
{
	char group[PATH_MAX];
	size_t root = strlen(mount);
	int length = snprintf(group, sizeof group, "%s%s", mount, path);
	unsigned least = UINT_MAX;

	if (length < 0 || (size_t)length >= sizeof group)
		return UINT_MAX;
	for (;;) {
		unsigned cores = group_cores(group);
		char *slash = strrchr(group, '/');

		if (cores < least)
			least = cores;
		if (slash == NULL || slash < group + root)
			return least;
		*slash = '\0';
	}
}

static bool names_cpu(const char *controllers)
{
	for (const char *at = controllers; *at != '\0'; at += *at == ',') {
		size_t size = strcspn(at, ",");

		if (size == 3 && memcmp(at, "cpu", 3) == 0)
			return true;
		at += size;
	}
	return false;
}

unsigned lora__cores_quota(const char *root)
{
	char line[PATH_MAX], mount[PATH_MAX + 32];
	unsigned least = UINT_MAX;
	FILE *file;

	(void)snprintf(line, sizeof line, "%s/proc/self/cgroup", root);
	file = fopen(line, "re");
	if (file == NULL)
		return UINT_MAX;
	while (fgets(line, sizeof line, file) != NULL) {
		char *controllers = strchr(line, ':'), *path;
		unsigned cores;

		line[strcspn(line, "\n")] = '\0';
		path = controllers == NULL ? NULL : strchr(++controllers, ':');
		if (path == NULL)
			continue;
		*path++ = '\0';
		if (*controllers != '\0' && !names_cpu(controllers))
			continue;
		(void)snprintf(mount, sizeof mount, "%s/sys/fs/cgroup%s%s", root,
			       *controllers == '\0' ? "" : "/", controllers);
		cores = hierarchy_cores(mount, path);
		if (cores < least)
			least = cores;
	}
	(void)fclose(file);
	return least;
}

/* 0 if it cannot be found out. The kernel refuses a set that is smaller than its own. */
static unsigned mask_cores(void)
{
	for (int size = CPU_SETSIZE; size <= SET_MAX; size *= 2) {
		cpu_set_t *set = CPU_ALLOC((size_t)size);
		int count = 0;

		if (set == NULL)
			return 0;
		if (sched_getaffinity(0, CPU_ALLOC_SIZE((size_t)size), set) == 0)
			count = CPU_COUNT_S(CPU_ALLOC_SIZE((size_t)size), set);
		CPU_FREE(set);
		if (count > 0)
			return (unsigned)count;
	}
	return 0;
}

unsigned lora__cores(void)
{
	unsigned cores = mask_cores(), quota = lora__cores_quota("");

	if (quota < cores)
		cores = quota;
	return cores > 0 ? cores : 1;
}
