/* SPDX-License-Identifier: Apache-2.0 */
/* cli/ui_signal.c - being interrupted without leaving anything behind
 *
 * A signal handler may call next to nothing, and removing files is not among it. So the signals are
 * blocked everywhere and one thread waits for them in an ordinary context (sigwait). The first asks
 * the work to stop: the observer returns non-zero, the library cleans up and returns
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
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <unistd.h>

#include <loractl/cleanup.h>

#include "ui.h"

static atomic_bool interrupted;
static sigset_t mask_before;
static struct sigaction pipe_before, size_before;

bool ui_interrupted(void)
{
	return atomic_load_explicit(&interrupted, memory_order_relaxed);
}

static void *wait_for_signals(void *wanted)
{
	int number;

	while (sigwait(wanted, &number) == 0) {
		if (atomic_exchange(&interrupted, true)) {
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
	static sigset_t wanted; /* the thread reads it as long as the process lives */
	struct sigaction ignore = {.sa_handler = SIG_IGN};
	pthread_t thread;

	sigaction(SIGPIPE, &ignore, &pipe_before);
	sigaction(SIGXFSZ, &ignore, &size_before);
	sigemptyset(&wanted);
	sigaddset(&wanted, SIGINT);
	sigaddset(&wanted, SIGTERM);
	if (!is_ignored(SIGHUP))
		sigaddset(&wanted, SIGHUP);
	pthread_sigmask(SIG_BLOCK, &wanted, &mask_before);
	if (pthread_create(&thread, NULL, wait_for_signals, &wanted) == 0)
		pthread_detach(thread);
	else
		pthread_sigmask(SIG_SETMASK, &mask_before, NULL);
}

void ui_signals_restore(void)
{
	sigaction(SIGPIPE, &pipe_before, NULL);
	sigaction(SIGXFSZ, &size_before, NULL);
	pthread_sigmask(SIG_SETMASK, &mask_before, NULL);
}
