/* SPDX-License-Identifier: Apache-2.0 */
/* cli/diff.h - what `loractl diff` found out, and its two ways to say it. */
#ifndef LORA_CLI_DIFF_H
#define LORA_CLI_DIFF_H

#include <loractl/diff.h>

#include "cmd.h"

/* Schema loractl.diff/1. */
void diff_json(struct lora_json_writer *writer, const struct lora_diff *diff, bool adapters);

/* With `all` every module and tensor, else those that changed most. */
enum lora_status diff_text(struct ui *ui, const struct lora_diff *diff, bool adapters, bool all,
			   struct lora_error *err);

#endif
