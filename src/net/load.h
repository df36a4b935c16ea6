/* SPDX-License-Identifier: Apache-2.0 */
/* net/load.h - tensors from the checkpoint to the places that the layout gave them. */
#ifndef LORA_NET_LOAD_H
#define LORA_NET_LOAD_H

#include "net/net.h"

/* A tensor's way into memory. */
struct lora_load {
	const struct lora_tensor *tensor;
	uint8_t *to;
	enum lora_dtype dtype; /* there */
	size_t rows, cols;     /* there */
	bool turned;	       /* the file has [cols, rows] */
};

/* Reads all of them, side by side. LORA_INPUT, naming tensor and element, for a value that is not
 * finite, or if a file changed meanwhile. */
enum lora_status lora__load_all(const struct lora_net *net, const struct lora_load *loads,
				size_t count, const struct lora_observer *observer,
				struct lora_error *err);

#endif
