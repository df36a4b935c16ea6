/* SPDX-License-Identifier: Apache-2.0 */
/* tidy.h - included by tests/lint/tidy before every file: tells the analyzer, which sees one file
 * at a time, what the functions of base/error.h and opt_fail() promise: the status they return is
 * no success. Without this it reports every "status = p ? LORA_OK : lora__fail_memory(err)" as a
 * null pointer that is used later. */
#include "base/error.h"
#include "cli/opt.h"

#define lora__fail(err, status, ...)	(lora__fail(err, status, __VA_ARGS__), status)
#define lora__context(err, status, ...) (lora__context(err, status, __VA_ARGS__), status)
#define lora__fail_errno(err, ...)	(lora__fail_errno(err, __VA_ARGS__), LORA_SYSTEM)
#define lora__fail_memory(err)		(lora__fail_memory(err), LORA_SYSTEM)
#define lora__fail_system(err, ...)	(lora__fail_system(err, __VA_ARGS__), LORA_SYSTEM)
#define opt_fail(err, status, ...)	(opt_fail(err, status, __VA_ARGS__), status)
