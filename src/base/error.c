/* SPDX-License-Identifier: Apache-2.0 */
/* base/error.c - the one error message
 *
 * A message grows from the inside out: the function that knows the fact writes it, and callers that
 * know more put their part in front,
 *
 *	cannot open 'a.safetensors': tensor 'q_proj.lora_A': data_offsets [0, 96] reach past the end
 *	'---------- context ------'  '------ context -----'  '------------- fact -------------'
 *
 * 1. A message is cut at its end, never in the middle of a character, and shows that by "...".
 * 2. Arguments may point into the message that is being replaced.
 * 3. Nothing here needs memory: these functions also report that there is none.
 * 4. errno is as it was afterwards, so that a caller can still look at it.
 */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/error.h"
#include "base/utf8.h"

/* How many threads' worth of names one message may hold, and the longest of them in bytes. */
#define ESCAPE_BUFFERS 8
#define ESCAPE_MAX     200

static void store(struct lora_error *err, const char *text, size_t length)
{
	size_t kept = lora__utf8_cut(text, length, sizeof err->message - sizeof "...");

	if (length < sizeof err->message) {
		memcpy(err->message, text, length + 1);
		return;
	}
	memcpy(err->message, text, kept);
	memcpy(err->message + kept, "...", sizeof "...");
}

/* Message := the formatted text, then `tail`. The buffer is larger than a message so that store()
 * sees that something must be cut. */
static void compose(struct lora_error *err, const char *tail, const char *format, va_list args)
{
	char text[LORA_ERROR_SIZE + 8];
	int written = vsnprintf(text, sizeof text, format, args);
	size_t length = written > 0 ? (size_t)written : 0;

	if (length >= sizeof text)
		length = sizeof text - 1;
	text[length] = '\0';
	written = snprintf(text + length, sizeof text - length, "%s", tail);
	if (written > 0)
		length += (size_t)written;
	if (length >= sizeof text)
		length = sizeof text - 1;
	store(err, text, length);
}

enum lora_status lora__fail(struct lora_error *err, enum lora_status status, const char *format,
			    ...)
{
	int saved = errno;
	va_list args;

	if (err == NULL)
		return status;
	va_start(args, format);
	compose(err, "", format, args);
	va_end(args);
	err->status = status;
	err->sys_errno = 0;
	errno = saved;
	return status;
}

static void fail_errno(struct lora_error *err, enum lora_status status, const char *format,
		       va_list args)
{
	char reason[160];
	int saved = errno;

	if (err == NULL)
		return;
	(void)snprintf(reason, sizeof reason, ": %m"); /* unlike strerror(), safe in threads */
	compose(err, reason, format, args);
	err->status = status;
	err->sys_errno = saved;
	errno = saved;
}

enum lora_status lora__fail_errno(struct lora_error *err, const char *format, ...)
{
	enum lora_status status = errno == ENOENT || errno == ENOTDIR ? LORA_INPUT : LORA_SYSTEM;
	va_list args;

	va_start(args, format);
	fail_errno(err, status, format, args);
	va_end(args);
	return status;
}

enum lora_status lora__fail_system(struct lora_error *err, const char *format, ...)
{
	va_list args;

	va_start(args, format);
	fail_errno(err, LORA_SYSTEM, format, args);
	va_end(args);
	return LORA_SYSTEM;
}

enum lora_status lora__fail_memory(struct lora_error *err)
{
	lora__fail(err, LORA_SYSTEM, "out of memory");
	if (err != NULL)
		err->sys_errno = ENOMEM;
	return LORA_SYSTEM;
}

enum lora_status lora__context(struct lora_error *err, enum lora_status status, const char *format,
			       ...)
{
	char tail[LORA_ERROR_SIZE + 2];
	int saved = errno;
	va_list args;

	if (status == LORA_OK || err == NULL)
		return status;
	(void)snprintf(tail, sizeof tail, ": %s", err->message);
	va_start(args, format);
	compose(err, tail, format, args);
	va_end(args);
	err->status = status;
	errno = saved;
	return status;
}

/* One character of the text, shown: writes its escaped form (at most 10 bytes and a NUL) and
 * returns how many bytes of the text it stands for. */
static size_t show(const char *text, size_t length, char shown[12])
{
	uint32_t code = 0;
	size_t size = lora__utf8_decode(text, length, &code);

	if (size == 0 || (size == 1 && lora__utf8_is_hidden(code))) {
		(void)snprintf(shown, 12, "\\x%02X", (unsigned)(unsigned char)text[0]);
		return 1;
	}
	if (lora__utf8_is_hidden(code)) {
		(void)snprintf(shown, 12, "\\u{%X}", (unsigned)code);
		return size;
	}
	memcpy(shown, text, size);
	shown[size] = '\0';
	return size;
}

/* Shows text from the front while it fits into `room` bytes and a NUL; the number of bytes of text
 * shown. */
static size_t show_front(const char *text, size_t length, char *out, size_t room)
{
	char shown[12];
	size_t used = 0;

	while (used < length) {
		size_t size = show(text + used, length - used, shown);
		size_t width = strlen(shown);

		if (width > room)
			break;
		memcpy(out, shown, width);
		out += width;
		room -= width;
		used += size;
	}
	*out = '\0';
	return used;
}

const char *lora__escape_n(const char *text, size_t length)
{
	static _Thread_local char buffers[ESCAPE_BUFFERS][ESCAPE_MAX + 1];
	static _Thread_local unsigned turn;
	const size_t head = (ESCAPE_MAX - 3) / 2, tail = ESCAPE_MAX - 3 - head;
	char *result = buffers[turn++ % ESCAPE_BUFFERS], *out;
	size_t start, skip;
	char scratch[12];

	if (show_front(text, length, result, ESCAPE_MAX) == length)
		return result;
	(void)show_front(text, length, result, head);
	out = result + strlen(result);
	memcpy(out, "...", sizeof "...");
	out += 3;
	/* A character is never shown in fewer bytes than it has, so that the last `tail` bytes of
	 * the text are enough; from there, characters are left out until the rest fits. */
	start = length > tail ? length - tail : 0;
	skip = lora__utf8_cut(text, length, start);
	if (skip < start)
		start = skip + show(text + skip, length - skip, scratch);
	while (start + show_front(text + start, length - start, out, tail) < length)
		start += show(text + start, length - start, scratch);
	return result;
}

const char *lora__escape(const char *text)
{
	return text == NULL ? "" : lora__escape_n(text, strlen(text));
}
