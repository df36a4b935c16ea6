/* SPDX-License-Identifier: Apache-2.0 */
/* ADAPTER[:WEIGHT] from argv: whatever the text, a status of the contract, a path that is a prefix
 * of the text, and a finite weight. */
#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "cli/reference.h"

/* Not assert(): a release build would leave it out. */
#define REQUIRE(truth)                                                                             \
	do {                                                                                       \
		if (!(truth))                                                                      \
			abort();                                                                   \
	} while (0)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct lora_error err = LORA_ERROR_INIT;
	char *text = malloc(size + 1), *path = NULL;
	double weight = 0;
	enum lora_status status;

	if (!text)
		return 0;
	memcpy(text, data, size);
	text[size] = '\0';
	status = reference_split(text, &path, &weight, &err);
	REQUIRE(status == LORA_OK || status == LORA_USAGE);
	REQUIRE(status == LORA_OK || err.message[0]);
	if (status == LORA_OK) {
		size_t length = strlen(path);

		REQUIRE(isfinite(weight));
		REQUIRE(strncmp(path, text, length) == 0);
		REQUIRE(text[length] == '\0' || text[length] == ':');
	}
	free(path);
	free(text);
	return 0;
}
