/* SPDX-License-Identifier: Apache-2.0 */
/* cli/passphrase.h - where a passphrase comes from: never from the command line itself. */
#ifndef LORA_CLI_PASSPHRASE_H
#define LORA_CLI_PASSPHRASE_H

#include <loractl/trust.h>

#include "opt.h"
#include "ui.h"

/* Tried in this order: the descriptor, the file named by LORACTL_PASSPHRASE_FILE, the terminal. */
struct passphrase {
	struct ui *ui;
	const char *fd; /* of --passphrase-fd, or NULL */
};

/* The option of every command that needs a key; `at` is that of `const char *` in its args. */
#define PASSPHRASE_OPT(place)                                                                      \
	{                                                                                          \
		.kind = OPT_STRING, .name = "passphrase-fd", .metavar = "N",                       \
		.help = "read the passphrase from descriptor N",                                   \
		.detail = "One line of it. "                                                       \
			  "Without this option it is the line in the file that "                   \
			  "LORACTL_PASSPHRASE_FILE names, or is asked for on the terminal.",       \
		.at = (place)                                                                      \
	}

struct lora_passphrase passphrase_source(struct passphrase *passphrase);

/* Between these two the process holds secrets: no core dump, no debugger of the same user. */
void passphrase_guard(void);
void passphrase_unguard(void);

#endif
