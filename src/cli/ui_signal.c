/* SPDX-License-Identifier: Apache-2.0 */
/* cli/ui_signal.c - being interrupted without leaving anything behind
 *
 * A signal handler may call next to nothing, and removing files is not among it. So the handler
 * only writes a byte into a pipe, and a thread at its other end does the rest in an ordinary
 * context. (Blocking the signals and waiting for them with sigwait() would not do: libraries start
 * threads before main() that block nothing, and a signal that one of them gets ends the process.)
 * The first asks the work to stop: the observer returns non-zero, the library cleans up and returns
 * LORA_CANCELLED. A second one does not wait for that: unfinished outputs are removed here and the
 * process ends.
 *
 * SIGHUP stays ignored where it was (nohup). SIGINT is taken even then: a shell script starts its
 * background jobs with SIGINT ignored, and whoever sends one to us by hand means it.
 *
 * SIGPIPE is ignored: a write then fails with EPIPE, and ui_finish() decides what that means. So is
 * SIGXFSZ: a file that grows past the limit is then an error like a full disk, and is removed.
 *
 * Tested by tests/unit/test_ui.c
 */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <unistd.h>

#include <loractl/cleanup.h>

#include "ui.h"

static const int wanted[] = {SIGINT, SIGTERM, SIGHUP};
#define WANTED (sizeof(wanted) / sizeof(*wanted))

static atomic_bool interrupted;
static int wake[2] = {-1, -1}; /* a pipe: read end, write end */
static struct sigaction pipe_before, size_before;
static struct sigaction before[WANTED];

bool ui_interrupted(void)
{
	return atomic_load_explicit(&interrupted, memory_order_relaxed);
}

static void on_signal(int number)
{
	int saved = errno;
	char byte = (char)number;

	(void)!write(wake[1], &byte, 1);
	errno = saved;
}

static void *wait_for_signals(void *user)
{
	ssize_t n;
	char byte;

	(void)user;
	while ((n = read(wake[0], &byte, 1)) == 1 || (n < 0 && errno == EINTR)) {
		if (n == 1 && atomic_exchange(&interrupted, true)) {
			lora_cleanup();
			_exit(LORA_CANCELLED);
		}
	}
	return NULL;
}

static bool is_ignored(int number)
{
	struct sigaction now;

	return sigaction(number, NULL, &now) == 0 && now.sa_handler == SIG_IGN;
}

void ui_signals_start(void)
{
	struct sigaction ignore = {.sa_handler = SIG_IGN};
	struct sigaction handle = {.sa_handler = on_signal, .sa_flags = SA_RESTART};
	pthread_t thread;

	sigaction(SIGPIPE, &ignore, &pipe_before);
	sigaction(SIGXFSZ, &ignore, &size_before);
	for (size_t i = 0; i < WANTED; i++)
		sigaction(wanted[i], NULL, &before[i]);
	if (pipe2(wake, O_CLOEXEC) || pthread_create(&thread, NULL, wait_for_signals, NULL))
		return; /* then a signal ends the process, as it does by itself */
	pthread_detach(thread);
	sigemptyset(&handle.sa_mask);
	for (size_t i = 0; i < WANTED; i++)
		if (wanted[i] != SIGHUP || !is_ignored(SIGHUP))
			sigaction(wanted[i], &handle, NULL);
}

void ui_signals_restore(void)
{
	sigaction(SIGPIPE, &pipe_before, NULL);
	sigaction(SIGXFSZ, &size_before, NULL);
	for (size_t i = 0; i < WANTED; i++)
		sigaction(wanted[i], &before[i], NULL);
}
