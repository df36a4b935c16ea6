/* SPDX-License-Identifier: Apache-2.0 */
/* loractl/version.h - the version, and the attributes that every other header uses.
 *
 * The three numbers below are the only place where the version is written; the build reads them.
 * Before 1.0 the shared library's SOVERSION is the minor number: each minor release may break it.
 */
#ifndef LORACTL_VERSION_H
#define LORACTL_VERSION_H

#define LORA_VERSION_MAJOR 0
#define LORA_VERSION_MINOR 1
#define LORA_VERSION_PATCH 0

#if defined(__GNUC__)
#define LORA_API		   __attribute__((visibility("default")))
#define LORA_PRINTF(string, first) __attribute__((format(printf, string, first)))
#else
#define LORA_API
#define LORA_PRINTF(string, first)
#endif

#ifdef __cplusplus
extern "C" {
#endif

/* The version of the library that runs, "MAJOR.MINOR.PATCH"; static storage. */
LORA_API const char *lora_version(void);

/* The kernel table in use: "generic", "avx2", "avx512" or "neon"; static storage.
 * LORACTL_CPU in the environment forces one; a name that this processor cannot run gives NULL, and
 * every function that computes then fails with LORA_USAGE. */
LORA_API const char *lora_cpu_name(void);

#ifdef __cplusplus
}
#endif

#endif
