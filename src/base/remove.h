/* SPDX-License-Identifier: Apache-2.0 */
/* base/remove.h - removing what an unfinished or replaced output left. */
#ifndef LORA_BASE_REMOVE_H
#define LORA_BASE_REMOVE_H

#include <stdbool.h>

/* Removes the file, link or whole directory `name` in the directory `parent` (a descriptor). Takes
 * no memory and follows no symbolic link. True if nothing is there afterwards; else errno says why.
 */
bool lora__remove(int parent, const char *name);

#endif
