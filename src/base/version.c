/* SPDX-License-Identifier: Apache-2.0 */
/* base/version.c - the version of the library that runs, from the numbers in loractl/version.h. */
#include <loractl/version.h>

#define TEXT(number)  TEXT_(number)
#define TEXT_(number) #number

const char *lora_version(void)
{
	return TEXT(LORA_VERSION_MAJOR) "." TEXT(LORA_VERSION_MINOR) "." TEXT(LORA_VERSION_PATCH);
}
