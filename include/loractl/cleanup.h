/* SPDX-License-Identifier: Apache-2.0 */
/* loractl/cleanup.h - for programs that die by a signal: remove unfinished outputs first. */
#ifndef LORACTL_CLEANUP_H
#define LORACTL_CLEANUP_H

#include <loractl/version.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Removes the temporary files of every unfinished output of this process. Not async-signal-safe:
 * call it from a normal context (a thread that waits for signals, or after the observer has
 * cancelled). */
LORA_API void lora_cleanup(void);

#ifdef __cplusplus
}
#endif

#endif
