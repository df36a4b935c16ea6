/* SPDX-License-Identifier: Apache-2.0 */
/* config.json of a model that is to be run: whatever the text, a spec within its limits, or a
 * refusal that says why. */
#include <math.h>
#include <stdint.h>
#include <stdlib.h>

#include "net/spec.h"

/* Not assert(): a release build would leave it out. */
#define REQUIRE(truth)                                                                             \
	do {                                                                                       \
		if (!(truth))                                                                      \
			abort();                                                                   \
	} while (0)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(const struct lora_spec *s)
{
	REQUIRE(s->family && s->vocabulary && s->width && s->hidden && s->layers);
	REQUIRE(s->heads && s->kv_heads && s->heads % s->kv_heads == 0);
	REQUIRE(s->head_dim && s->positions && s->window);
	REQUIRE((uint64_t)s->heads * s->head_dim <= (uint64_t)1 << 24);
	REQUIRE(s->eps >= 0 && s->eps < 1);
	REQUIRE(!s->family->turned == !s->inverse);
	for (size_t i = 0; s->inverse && i < s->head_dim / 2; i++)
		REQUIRE(isfinite(s->inverse[i]) && s->inverse[i] >= 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct lora_error err = LORA_ERROR_INIT;
	struct lora_json *config = NULL;
	struct lora_arena arena = {NULL};
	struct lora_spec spec;

	if (lora__json_parse(&config, (const char *)data, size, &err) == LORA_OK) {
		for (int allow = 0; allow < 2; allow++) {
			enum lora_status status =
			    lora__spec_parse(&spec, config, allow, &arena, &err);

			REQUIRE(status == LORA_OK || status == LORA_INPUT);
			if (status == LORA_OK)
				check(&spec);
			else
				REQUIRE(err.message[0]);
		}
	}
	lora__arena_fini(&arena);
	lora__json_free(config);
	return 0;
}
