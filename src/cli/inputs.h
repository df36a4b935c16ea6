/* SPDX-License-Identifier: Apache-2.0 */
/* cli/inputs.h - the ADAPTER[:WEIGHT] operands of a command, opened. */
#ifndef LORA_CLI_INPUTS_H
#define LORA_CLI_INPUTS_H

#include <loractl/merge.h>

/* A zeroed one is empty. */
struct inputs {
	struct lora_merge_input *input;
	size_t count;
};

/* Opens every reference. The caller closes in any case. */
enum lora_status inputs_open(struct inputs *inputs, const char *const *references, size_t count,
			     const struct lora_adapter_options *options,
			     const struct lora_observer *observer, struct lora_error *err);
void inputs_close(struct inputs *inputs);

#endif
