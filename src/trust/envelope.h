/* SPDX-License-Identifier: Apache-2.0 */
/* trust/envelope.h - DSSE envelopes: a payload, its type, and signatures over both. */
#ifndef LORA_TRUST_ENVELOPE_H
#define LORA_TRUST_ENVELOPE_H

#include "trust/trust.h"

#define LORA_ENVELOPE_LIMIT ((size_t)4 << 20) /* bytes; what a container holds of one */

/* malloc'd text, a line. */
enum lora_status lora__envelope_seal(char **text, const char *payload, size_t size,
				     const struct lora_secret_key *key, struct lora_error *err);
/* What came out of one. */
struct lora_payload {
	char *text;	     /* malloc'd, with a NUL behind it */
	size_t size, signer; /* which of the keys signed it */
};

/* LORA_NO: none of the keys signed it. */
enum lora_status lora__envelope_open(struct lora_payload *out, const char *text, size_t size,
				     const struct lora_public_key *keys, size_t count,
				     struct lora_error *err);
/* Does it look like one? For a probe only. */
bool lora__envelope_probe(const char *text, size_t size);

#endif
