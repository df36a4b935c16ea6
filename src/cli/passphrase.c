/* SPDX-License-Identifier: Apache-2.0 */
/* cli/passphrase.c - asking for a passphrase without showing it, or taking it from a descriptor
 *
 * 1. It goes from the descriptor straight into the library's locked buffer, a byte at a time:
 *    through no stdio, so that no copy stays behind and nothing behind its line is taken.
 * 2. A terminal does not echo meanwhile, and does again whatever happens. Signals are looked at
 *    every tenth of a second.
 * 3. The line ends before its newline (CR LF counts as one).
 *
 * Tested by tests/cli/keygen.sh
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <termios.h>
#include <unistd.h>

#include "passphrase.h"

#define TICK_MS 100

/* Reads to the end of the line. On a terminal it waits in ticks. (1) (3) */
static enum lora_status read_line(int fd, bool terminal, char *buffer, size_t room, size_t *length,
				  struct lora_error *err)
{
	struct pollfd wait = {.fd = fd, .events = POLLIN};
	ssize_t got;

	*length = 0;
	for (;;) {
		if (terminal && ui_interrupted())
			return opt_fail(err, LORA_CANCELLED, "interrupted");
		if (terminal && poll(&wait, 1, TICK_MS) <= 0)
			continue;
		got = read(fd, buffer + *length, 1);
		if (got < 0 && errno == EINTR)
			continue;
		if (got < 0)
			return opt_fail(err, LORA_SYSTEM, "cannot read the passphrase: %s",
					strerror(errno));
		if (got == 0 || buffer[*length] == '\n')
			break;
		if (buffer[*length] == '\0')
			return opt_fail(
			    err, LORA_USAGE,
			    "the passphrase has a zero byte: it has to be one line of text");
		if (++*length == room)
			return opt_fail(err, LORA_USAGE, "the passphrase is longer than %zu bytes",
					room - 1);
	}
	if (*length > 0 && buffer[*length - 1] == '\r')
		--*length;
	return LORA_OK;
}

/* ---- the terminal */

static void say(int fd, const char *text)
{
	(void)!write(fd, text, strlen(text));
}

static enum lora_status ask(int tty, const char *prompt, const char *what, char *buffer,
			    size_t room, size_t *length, struct lora_error *err)
{
	char name[256];
	enum lora_status status;

	say(tty, prompt);
	say(tty, ui_escape(what, name, sizeof(name)));
	say(tty, ": ");
	status = read_line(tty, true, buffer, room, length, err);
	say(tty, "\n");
	return status;
}

/* A new passphrase, twice: the second goes behind the first, where there is room for one as long
 * and a byte more. */
static enum lora_status ask_twice(int tty, const char *what, char *buffer, size_t room,
				  size_t *length, struct lora_error *err)
{
	size_t again = 0;
	enum lora_status status =
	    ask(tty, "New passphrase for ", what, buffer, room / 2, length, err);

	if (!status)
		status = ask(tty, "Once more, for ", what, buffer + *length, room - *length, &again,
			     err);
	if (!status && (again != *length || memcmp(buffer, buffer + *length, *length) != 0))
		status = opt_fail(err, LORA_USAGE, "the two passphrases differ: try again");
	return status;
}

static enum lora_status from_terminal(const char *what, bool confirm, char *buffer, size_t room,
				      size_t *length, struct lora_error *err)
{
	int tty = open("/dev/tty", O_RDWR | O_NOCTTY | O_CLOEXEC);
	struct termios before, silent;
	enum lora_status status;

	if (tty < 0 || tcgetattr(tty, &before) != 0) {
		if (tty >= 0)
			(void)close(tty);
		return opt_fail(err, LORA_USAGE,
				"no terminal to ask for a passphrase: use --passphrase-fd, or "
				"LORACTL_PASSPHRASE_FILE");
	}
	silent = before;
	silent.c_lflag &= ~(tcflag_t)(ECHO | ECHOE | ECHOK | ECHONL);
	(void)tcsetattr(tty, TCSAFLUSH, &silent);
	status = confirm ? ask_twice(tty, what, buffer, room, length, err)
			 : ask(tty, "Passphrase for ", what, buffer, room, length, err);
	(void)tcsetattr(tty, TCSAFLUSH, &before);
	(void)close(tty);
	return status;
}

/* ---- files and descriptors */

static enum lora_status from_file(struct ui *ui, const char *path, char *buffer, size_t room,
				  size_t *length, struct lora_error *err)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY);
	struct stat info;
	enum lora_status status;
	char byte;

	if (fd < 0)
		return opt_fail(err, errno == ENOENT ? LORA_INPUT : LORA_SYSTEM,
				"cannot open '%s', which LORACTL_PASSPHRASE_FILE names: %s", path,
				strerror(errno));
	if (fstat(fd, &info) == 0 && S_ISREG(info.st_mode) && (info.st_mode & 077))
		ui_note(ui, LORA_NOTE_WARNING,
			"'%s' holds a passphrase and is open to others (mode %03o): chmod 600 it",
			path, (unsigned)info.st_mode & 0777);
	status = read_line(fd, false, buffer, room, length, err);
	if (!status && read(fd, &byte, 1) > 0)
		status = opt_fail(err, LORA_USAGE,
				  "'%s' has more than one line: a passphrase is one", path);
	(void)close(fd);
	return status;
}

static enum lora_status from_descriptor(const char *text, char *buffer, size_t room, size_t *length,
					struct lora_error *err)
{
	char *end;
	long fd;

	errno = 0;
	fd = strtol(text, &end, 10);
	if (*text < '0' || *text > '9' || *end || errno || fd > 1 << 20)
		return opt_fail(err, LORA_USAGE,
				"bad value of '--passphrase-fd': '%s' is no number of a descriptor",
				text);
	if (fcntl((int)fd, F_GETFD) == -1)
		return opt_fail(err, LORA_USAGE,
				"bad value of '--passphrase-fd': descriptor %ld is not open", fd);
	return read_line((int)fd, false, buffer, room, length, err);
}

static bool read_passphrase(void *user, const char *what, bool confirm, char *buffer, size_t room,
			    size_t *length, struct lora_error *err)
{
	const struct passphrase *passphrase = user;
	const char *file = getenv("LORACTL_PASSPHRASE_FILE");
	enum lora_status status;

	if (passphrase->fd)
		status = from_descriptor(passphrase->fd, buffer, room, length, err);
	else if (file && *file)
		status = from_file(passphrase->ui, file, buffer, room, length, err);
	else
		status = from_terminal(what, confirm, buffer, room, length, err);
	return status == LORA_OK;
}

struct lora_passphrase passphrase_source(struct passphrase *passphrase)
{
	return (struct lora_passphrase){passphrase, read_passphrase};
}

/* ---- the process */

void passphrase_guard(void)
{
	const struct rlimit none = {0, 0};

	(void)setrlimit(RLIMIT_CORE, &none);
	(void)prctl(PR_SET_DUMPABLE, 0, 0, 0, 0);
}

void passphrase_unguard(void)
{
	(void)prctl(PR_SET_DUMPABLE, 1, 0, 0, 0);
}
