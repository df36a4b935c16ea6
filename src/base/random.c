/* SPDX-License-Identifier: Apache-2.0 */
/* base/random.c - the system's random source. It blocks only before the system has booted. */
#include <unistd.h>

#include "base/random.h"

bool lora__random(void *bytes, size_t size)
{
	return getentropy(bytes, size) == 0;
}
