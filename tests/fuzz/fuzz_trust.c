/* SPDX-License-Identifier: Apache-2.0 */
/* The JSON files of trust (lists of files, keyrings, pins, envelopes): whatever the bytes, a status
 * of the contract; and what is taken for one is written, read and written the same. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "trust/envelope.h"

/* Not assert(): a release build would leave it out. */
#define REQUIRE(truth)                                                                             \
	do {                                                                                       \
		if (!(truth))                                                                      \
			abort();                                                                   \
	} while (0)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static bool taken(enum lora_status status, const struct lora_error *err)
{
	REQUIRE(status == LORA_OK || status == LORA_INPUT);
	REQUIRE(status == LORA_OK || err->message[0]);
	return status == LORA_OK;
}

/* One kind of file: parses, emits, and frees what it took. */
typedef enum lora_status rewrite(const char *text, size_t size, char **out, size_t *length,
				 struct lora_error *err);

static enum lora_status listing(const char *text, size_t size, char **out, size_t *length,
				struct lora_error *err)
{
	struct lora_listing list = {.count = 0};
	enum lora_status status = lora__listing_parse(&list, text, size, err);

	for (size_t i = 0; i < list.count && !status; i++)
		REQUIRE(list.files[i].name[0] != '/' && !strstr(list.files[i].name, "/../"));
	if (!status)
		REQUIRE(lora__listing_text(&list, out, length, err) == LORA_OK);
	lora__listing_fini(&list);
	return status;
}

static enum lora_status keyring(const char *text, size_t size, char **out, size_t *length,
				struct lora_error *err)
{
	struct lora_keyring *ring = calloc(1, sizeof(*ring));
	enum lora_status status = lora__keyring_parse(ring, text, size, err);

	if (!status)
		REQUIRE(lora__keyring_text(ring, out, length, err) == LORA_OK);
	lora_keyring_close(ring);
	return status;
}

static enum lora_status pins(const char *text, size_t size, char **out, size_t *length,
			     struct lora_error *err)
{
	struct lora_pins list = {.count = 0};
	enum lora_status status = lora__pins_parse(&list, "loractl.lock/1", text, size, err);

	if (!status)
		REQUIRE(lora__pins_text(&list, "loractl.lock/1", out, length, err) == LORA_OK);
	lora__pins_fini(&list);
	return status;
}

static void check(rewrite *kind, const char *text, size_t size)
{
	struct lora_error err = LORA_ERROR_INIT;
	char *first = NULL, *second = NULL;
	size_t a, b;

	if (!taken(kind(text, size, &first, &a, &err), &err))
		return;
	REQUIRE(kind(first, a, &second, &b, &err) == LORA_OK);
	REQUIRE(a == b && memcmp(first, second, a) == 0);
	free(first);
	free(second);
}

/* Of the corpus's envelopes; without its secret half nobody gets a payload through. */
static const struct lora_public_key key = {{0}, {0xc6, 0xca, 0xf2, 0x0b, 0x85, 0x32, 0x27, 0xe6,
						 0x8f, 0x1f, 0x34, 0x6c, 0xb8, 0x19, 0x8c, 0xa9,
						 0xef, 0xbe, 0xd3, 0xf9, 0x31, 0x77, 0xdd, 0x63,
						 0xf8, 0x73, 0x28, 0x6e, 0xdd, 0x15, 0x67, 0x49}};

static void check_envelope(const char *text, size_t size)
{
	struct lora_attestation *statement = NULL;
	struct lora_error err = LORA_ERROR_INIT;
	enum lora_status status = lora_attestation_open(&statement, text, size, &key, 1, &err);

	REQUIRE(status == LORA_OK || status == LORA_NO || status == LORA_INPUT);
	REQUIRE((status == LORA_OK) == (statement != NULL));
	if (statement)
		REQUIRE(lora_attestation_subject_count(statement) > 0);
	lora_attestation_close(statement);
	(void)lora__envelope_probe(text, size);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	REQUIRE(lora__sodium(NULL) == LORA_OK);
	check(listing, (const char *)data, size);
	check(keyring, (const char *)data, size);
	check(pins, (const char *)data, size);
	check_envelope((const char *)data, size);
	return 0;
}
