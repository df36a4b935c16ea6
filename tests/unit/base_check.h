/* SPDX-License-Identifier: Apache-2.0 */
/* base_check.h - what the tests of src/base share: statuses with their messages, and a directory to
 * work in. */
#ifndef TESTS_BASE_CHECK_H
#define TESTS_BASE_CHECK_H

#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <loractl/error.h>

/* The call succeeds, or the test fails with its message. `err` is in scope. */
#define assert_ok(call)                                                                            \
	do {                                                                                       \
		enum lora_status status_ = (call);                                                 \
		if (status_ != LORA_OK)                                                            \
			fail_msg("%s: status %d: %s", #call, status_, err.message);                \
	} while (0)

/* The call fails with that status, says so in err too, and its message has the text in it. */
#define assert_fails(expected, text, call)                                                         \
	do {                                                                                       \
		enum lora_status status_;                                                          \
		memset(&err, 0, sizeof err);                                                       \
		status_ = (call);                                                                  \
		if (status_ != (expected) || err.status != status_ ||                              \
		    strstr(err.message, (text)) == NULL)                                           \
			fail_msg("%s: status %d, %d: '%s'", #call, status_, err.status,            \
				 err.message);                                                     \
	} while (0)

/* A new, empty directory, made the working directory. */
static inline void enter_scratch(void)
{
	char path[4096];
	const char *base = getenv("TMPDIR");

	(void)snprintf(path, sizeof path, "%s/base-XXXXXX", base == NULL ? "/tmp" : base);
	if (mkdtemp(path) == NULL || chdir(path) != 0)
		fail_msg("cannot make %s", path);
}

/* Leaves and removes it. */
static inline void leave_scratch(void)
{
	char path[4096], command[9000];

	if (getcwd(path, sizeof path) == NULL || strstr(path, "/base-") == NULL || chdir("/") != 0)
		fail_msg("not in a scratch directory");
	(void)snprintf(command, sizeof command, "chmod -R u+rwx '%s'; rm -rf '%s'", path, path);
	if (system(command) != 0)
		fail_msg("cannot remove %s", path);
}

#endif
