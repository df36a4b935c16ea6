/* SPDX-License-Identifier: Apache-2.0 */
/* standalone.c - runs a fuzz target over a corpus, without libFuzzer, under any compiler.
 *
 * usage: fuzz_NAME FILE|DIRECTORY...
 *
 * 1. The target sees each input in memory that ends exactly where an inaccessible page begins, and
 *    begins (for inputs of whole pages) where another ends: reading or writing one byte past the
 * end is a fault, in a plain release build too. A consequence is that inputs have no particular
 * alignment.
 * 2. Each input is also given at every shorter length, up to TRUNCATIONS of them (then every length
 * below half of that, and as many, evenly spread, above), and with single bytes changed, up to
 * CHANGES of them.
 * 3. A corpus without a file fails: it would prove nothing.
 * 4. When the target dies, the file and the variation are named on stderr.
 */
#include <dirent.h>
#include <errno.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

/* A run of the slowest target (a few microseconds an input) over 50 files stays within seconds. */
#define TRUNCATIONS 4096
#define CHANGES	    2048
/* The largest file taken; corpora are small on purpose. */
#define LARGEST ((size_t)16 << 20)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerInitialize(int *argc, char ***argv) __attribute__((weak));
void __sanitizer_set_death_callback(void (*callback)(void)) __attribute__((weak));

static char current[512]; /* what the target is looking at, for the obituary */
static size_t inputs, runs;

static void obituary(void)
{
	ssize_t ignored = write(STDERR_FILENO, current, strlen(current));

	(void)ignored;
}

static void on_signal(int number)
{
	obituary();
	raise(number); /* SA_RESETHAND put the default action back */
}

static void catch_signals(void)
{
	static const int numbers[] = {SIGABRT, SIGSEGV, SIGBUS, SIGFPE, SIGILL};
	struct sigaction action = {0};
	size_t first = 0;

	if (__sanitizer_set_death_callback) {
		__sanitizer_set_death_callback(obituary);
		first = 1; /* the sanitizer reports all but abort() itself, with a trace */
	}
	action.sa_handler = on_signal;
	action.sa_flags = (int)SA_RESETHAND;
	for (size_t i = 0; i < (first ? first : sizeof(numbers) / sizeof(*numbers)); i++)
		sigaction(numbers[i], &action, NULL);
}

static void die(const char *what, const char *path)
{
	fprintf(stderr, "standalone: %s '%s': %s\n", what, path, strerror(errno));
	exit(1);
}

/* Runs the target on data[0 .. size), with byte `change` complemented when change < size. */
static void run_one(const char *path, const uint8_t *data, size_t size, size_t change)
{
	size_t page = (size_t)sysconf(_SC_PAGESIZE);
	size_t body = (size + page - 1) / page * page;
	uint8_t *map, *copy;

	if (change < size)
		snprintf(current, sizeof(current), "died on '%.400s', byte %zu complemented\n",
			 path, change);
	else
		snprintf(current, sizeof(current), "died on '%.400s', first %zu bytes\n", path,
			 size);
	map = mmap(NULL, body + 2 * page, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (map == MAP_FAILED)
		die("cannot map memory for", path);
	if (body > 0 && mprotect(map + page, body, PROT_READ | PROT_WRITE) != 0)
		die("cannot open memory for", path);
	copy = map + page + body - size;
	if (size > 0)
		memcpy(copy, data, size);
	if (change < size)
		copy[change] ^= 0xff;
	LLVMFuzzerTestOneInput(copy, size);
	munmap(map, body + 2 * page);
	runs++;
}

/* Every length below min(size, TRUNCATIONS / 2), and at most about TRUNCATIONS / 2 more up to size.
 */
static void run_truncations(const char *path, const uint8_t *data, size_t size)
{
	size_t dense = size <= TRUNCATIONS ? size : TRUNCATIONS / 2;
	size_t step = (size - dense) / (TRUNCATIONS / 2) + 1;

	for (size_t length = 0; length < dense; length++)
		run_one(path, data, length, SIZE_MAX);
	for (size_t length = dense; length < size; length += step)
		run_one(path, data, length, SIZE_MAX);
}

static void run_file(const char *path, off_t length)
{
	size_t size = (size_t)length, step = size / CHANGES + 1;
	uint8_t *data = NULL;
	FILE *file = NULL;

	if (length < 0 || size > LARGEST) {
		errno = EFBIG;
		die("will not read", path);
	}
	file = fopen(path, "rb");
	data = malloc(size > 0 ? size : 1);
	if (!file || !data || fread(data, 1, size, file) != size)
		die("cannot read", path);
	fclose(file);
	run_one(path, data, size, SIZE_MAX);
	run_truncations(path, data, size);
	for (size_t change = 0; change < size; change += step)
		run_one(path, data, size, change);
	free(data);
	inputs++;
}

static void run_path(const char *path)
{
	struct dirent *entry = NULL;
	struct stat info;
	DIR *folder = NULL;
	char name[4096];

	if (stat(path, &info) != 0)
		die("cannot open", path);
	if (!S_ISDIR(info.st_mode)) {
		run_file(path, info.st_size);
		return;
	}
	folder = opendir(path);
	if (!folder)
		die("cannot open", path);
	while ((entry = readdir(folder))) {
		if (entry->d_name[0] == '.')
			continue;
		snprintf(name, sizeof(name), "%s/%s", path, entry->d_name);
		run_path(name);
	}
	closedir(folder);
}

int main(int argc, char **argv)
{
	if (LLVMFuzzerInitialize)
		LLVMFuzzerInitialize(&argc, &argv);
	catch_signals();
	for (int i = 1; i < argc; i++)
		run_path(argv[i]);
	if (inputs == 0) {
		fprintf(stderr,
			"standalone: no input: give files or a corpus folder that has some\n");
		return 1;
	}
	printf("%zu inputs, %zu runs\n", inputs, runs);
	return 0;
}
