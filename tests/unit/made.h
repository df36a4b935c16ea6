/* SPDX-License-Identifier: Apache-2.0 */
/* made.h - safetensors files and directories made by tests, byte by byte, without the code under
 * test. */
#ifndef MADE_H
#define MADE_H

#include <stddef.h>
#include <stdint.h>

/* u64 LE length of json, json, then `data` bytes: byte i is 7 * i + 3 mod 256. malloc'd; *size is
 * its length. */
uint8_t *made_safetensors(const char *json, size_t data, size_t *size);

/* A new directory in TMPDIR or /tmp; malloc'd. */
char *made_directory(void);
/* Removes it with everything in it; frees its path, and all that made_path() gave. */
void made_remove(char *directory);
/* dir/name. Lives until the next made_remove(). */
const char *made_path(const char *dir, const char *name);
/* Writes a file anew. */
void made_file(const char *path, const void *bytes, size_t size);
void made_text(const char *path, const char *text);
/* The same for made_safetensors(). */
void made_weights(const char *path, const char *json, size_t data);
/* Sets access and modification time to `seconds` before now. */
void made_old(const char *path, long seconds);

#endif
