/* SPDX-License-Identifier: Apache-2.0 */
/* cli/reference.h - ADAPTER[:WEIGHT] as the command line spells it. */
#ifndef LORA_CLI_REFERENCE_H
#define LORA_CLI_REFERENCE_H

#include <stdbool.h>

#include <loractl/error.h>

/* Splits text into a path (malloc'd) and a weight (1 where none is given). A path that exists under
 * the whole text wins. LORA_USAGE for a suffix behind the last ':' that is no decimal number,
 * unless it holds a '/'. */
enum lora_status reference_split(const char *text, char **path, double *weight,
				 struct lora_error *err);

#endif
