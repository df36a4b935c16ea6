/* SPDX-License-Identifier: Apache-2.0 */
/* cli/history.h - the versions of a container, as `log` and `inspect` show them. */
#ifndef LORA_CLI_HISTORY_H
#define LORA_CLI_HISTORY_H

#include <loractl/container.h>
#include <loractl/json.h>
#include <loractl/trust.h>

#include "ui.h"

/* The members `name` and `versions` of an open object: schema loractl.log/1. Signatures are judged
 * by the keyring; `path` is the container's. */
enum lora_status history_json(struct lora_json_writer *writer, const struct lora_log *log,
			      const char *path, struct lora_error *err);
/* A table, newest first; with `full` digests too. */
enum lora_status history_text(struct ui *ui, const struct lora_log *log, bool full,
			      struct lora_error *err);

#endif
