/* SPDX-License-Identifier: Apache-2.0 */
/* cli/inputs.c - from references to adapters with weights */
#include <stdio.h>
#include <stdlib.h>

#include "inputs.h"
#include "reference.h"

enum lora_status inputs_open(struct inputs *inputs, const char *const *references, size_t count,
			     const struct lora_adapter_options *options,
			     const struct lora_observer *observer, struct lora_error *err)
{
	inputs->input = calloc(count, sizeof(*inputs->input));
	if (!inputs->input) {
		err->status = LORA_SYSTEM;
		snprintf(err->message, sizeof(err->message), "out of memory");
		return err->status;
	}
	for (size_t i = 0; i < count; i++) {
		struct lora_merge_input *input = &inputs->input[i];
		char *path = NULL;
		enum lora_status status =
		    reference_split(references[i], &path, &input->weight, err);

		if (!status)
			status = lora_adapter_open(&input->adapter, path, options, observer, err);
		free(path);
		if (status)
			return status;
		inputs->count++;
	}
	return LORA_OK;
}

void inputs_close(struct inputs *inputs)
{
	for (size_t i = 0; i < inputs->count; i++)
		lora_adapter_close(inputs->input[i].adapter);
	free(inputs->input);
}
