/* SPDX-License-Identifier: Apache-2.0 */
/* trust/envelope.c - DSSE, the envelope of in-toto (secure-systems-lab/dsse, protocol 1.0)
 *
 * {"payload":BASE64,"payloadType":TYPE,"signatures":[{"keyid":ID,"sig":BASE64},...]}
 *
 * What is signed, with Ed25519, is the pre-authentication encoding of type and payload:
 * "DSSEv1" SP len(TYPE) SP TYPE SP len(payload) SP payload. The type is under the signature, so
 * that a signature over something else is never one over a statement, and the other way round;
 * minisign's are over 64 bytes that are a hash.
 *
 * Invariants
 * (1) The payload is given out after a signature by one of the caller's keys was right, and not
 *     before.
 * (2) keyid is a hint that anybody may change: it is written, and not read.
 * (3) One right signature is enough, as long as all of them are well-formed.
 * Decisions
 *     base64 in both alphabets, as the protocol demands of verifiers, but with one spelling in
 *     each: padded, no stray bits. One payload type: in-toto's.
 *
 * Tested by tests/interop/attest.py, tests/fuzz/fuzz_trust.c
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <sodium.h>

#include "base/error.h"
#include "base/json.h"
#include "trust/envelope.h"

#define PAYLOAD_TYPE "application/vnd.in-toto+json"
#define SIGNATURES   64

/* malloc'd; NULL without memory. */
static uint8_t *encode_pae(const char *payload, size_t size, size_t *length)
{
	size_t room = size + 128;
	uint8_t *pae = malloc(room);
	int head;

	if (!pae)
		return NULL;
	head = snprintf((char *)pae, room, "DSSEv1 %zu %s %zu ", strlen(PAYLOAD_TYPE), PAYLOAD_TYPE,
			size);
	memcpy(pae + head, payload, size);
	*length = (size_t)head + size;
	return pae;
}

/* malloc'd, with a NUL behind it. LORA_INPUT, and `complaint`, if the text is no base64. */
static enum lora_status decode(char **bytes, size_t *size, const char *text, const char *complaint,
			       struct lora_error *err)
{
	size_t length = strlen(text), room = length / 4 * 3 + 1;
	int variant =
	    strpbrk(text, "-_") ? sodium_base64_VARIANT_URLSAFE : sodium_base64_VARIANT_ORIGINAL;
	const char *end;

	*bytes = malloc(room);
	if (!*bytes)
		return lora__fail_memory(err);
	if (sodium_base642bin((uint8_t *)*bytes, room - 1, text, length, NULL, size, &end,
			      variant) == 0 &&
	    end == text + length) {
		(*bytes)[*size] = '\0';
		return LORA_OK;
	}
	free(*bytes);
	*bytes = NULL;
	return lora__fail(err, LORA_INPUT, "%s", complaint);
}

static void write_envelope(struct lora_json_writer *w, const char *payload,
			   const struct lora_public_key *key, const uint8_t *signature)
{
	char id[LORA_KEY_ID],
	    base64[sodium_base64_ENCODED_LEN(LORA_SIGNATURE_SIZE, sodium_base64_VARIANT_ORIGINAL)];

	lora_public_key_id(key, id);
	sodium_bin2base64(base64, sizeof(base64), signature, LORA_SIGNATURE_SIZE,
			  sodium_base64_VARIANT_ORIGINAL);
	lora_json_begin_object(w);
	lora_json_key(w, "payload");
	lora_json_string(w, payload);
	lora_json_key(w, "payloadType");
	lora_json_string(w, PAYLOAD_TYPE);
	lora_json_key(w, "signatures");
	lora_json_begin_array(w);
	lora_json_begin_object(w);
	lora_json_key(w, "keyid");
	lora_json_string(w, id);
	lora_json_key(w, "sig");
	lora_json_string(w, base64);
	lora_json_end_object(w);
	lora_json_end_array(w);
	lora_json_end_object(w);
}

enum lora_status lora__envelope_seal(char **text, const char *payload, size_t size,
				     const struct lora_secret_key *key, struct lora_error *err)
{
	size_t length, room = sodium_base64_ENCODED_LEN(size, sodium_base64_VARIANT_ORIGINAL);
	struct lora_json_writer *w = lora__json_writer_minimal();
	uint8_t signature[LORA_SIGNATURE_SIZE], *pae = encode_pae(payload, size, &length);
	char *base64 = malloc(room);
	const char *borrowed;
	enum lora_status status = w && pae && base64 ? LORA_OK : lora__fail_memory(err);

	*text = NULL;
	if (!status && room > LORA_ENVELOPE_LIMIT / 2)
		status = lora__fail(err, LORA_INPUT, "the statement has %zu bytes: too many", size);
	if (!status) {
		(void)crypto_sign_detached(signature, NULL, pae, length, key->secret);
		sodium_bin2base64(base64, room, (const uint8_t *)payload, size,
				  sodium_base64_VARIANT_ORIGINAL);
		write_envelope(w, base64, &key->public, signature);
		status = lora_json_writer_text(w, &borrowed, &length, err);
	}
	if (!status && asprintf(text, "%s\n", borrowed) < 0) {
		*text = NULL;
		status = lora__fail_memory(err);
	}
	lora_json_writer_free(w);
	free(base64);
	free(pae);
	return status;
}

/* Is it a right signature by one of the keys? (2) */
static enum lora_status check(const struct lora_json *json, const uint8_t *pae, size_t length,
			      const struct lora_public_key *keys, size_t count, size_t *signer,
			      struct lora_error *err)
{
	static const char complaint[] = "a signature of it is not 64 bytes in base64";
	const char *text = lora__json_string(lora__json_get(json, "sig"));
	char *signature = NULL;
	size_t size = 0;
	enum lora_status status = decode(&signature, &size, text ? text : "", complaint, err);

	if (!status && size != LORA_SIGNATURE_SIZE)
		status = lora__fail(err, LORA_INPUT, "%s", complaint);
	if (status) {
		free(signature);
		return status;
	}
	for (size_t i = 0; i < count && *signer == SIZE_MAX; i++)
		if (crypto_sign_verify_detached((const uint8_t *)signature, pae, length,
						keys[i].point) == 0)
			*signer = i;
	free(signature);
	return LORA_OK;
}

static enum lora_status check_all(const struct lora_json *signatures, struct lora_payload *payload,
				  const struct lora_public_key *keys, size_t count,
				  struct lora_error *err)
{
	size_t length;
	uint8_t *pae = encode_pae(payload->text, payload->size, &length);
	enum lora_status status = pae ? LORA_OK : lora__fail_memory(err);

	payload->signer = SIZE_MAX;
	for (const struct lora_json *at = lora__json_first(signatures); at && !status;
	     at = lora__json_next(at))
		status = check(at, pae, length, keys, count, &payload->signer, err);
	free(pae);
	if (!status && payload->signer == SIZE_MAX)
		status = lora__fail(err, LORA_NO,
				    "no signature of it is right by a key that is "
				    "trusted");
	return status;
}

enum lora_status lora__envelope_open(struct lora_payload *out, const char *text, size_t size,
				     const struct lora_public_key *keys, size_t count,
				     struct lora_error *err)
{
	struct lora_json *json = NULL;
	const struct lora_json *signatures;
	const char *base64, *type;
	enum lora_status status = lora__sodium(err);

	*out = (struct lora_payload){.text = NULL};
	if (!status && size > LORA_ENVELOPE_LIMIT)
		status = lora__fail(err, LORA_INPUT, "it is no envelope: larger than %zu bytes",
				    LORA_ENVELOPE_LIMIT);
	if (!status)
		status = lora__json_parse(&json, text, size, err);
	if (status)
		return status;
	base64 = lora__json_string(lora__json_get(json, "payload"));
	type = lora__json_string(lora__json_get(json, "payloadType"));
	signatures = lora__json_get(json, "signatures");
	if (!base64 || !type || !signatures || lora__json_type(signatures) != LORA_JSON_ARRAY ||
	    lora__json_count(signatures) > SIGNATURES)
		status =
		    lora__fail(err, LORA_INPUT,
			       "it is no envelope: it lacks payload, payloadType or signatures");
	else if (strcmp(type, PAYLOAD_TYPE) != 0)
		status = lora__fail(err, LORA_INPUT, "it holds '%s', not " PAYLOAD_TYPE,
				    lora__escape(type));
	else
		status = decode(&out->text, &out->size, base64, "its payload is no base64", err);
	if (!status)
		status = check_all(signatures, out, keys, count, err);
	lora__json_free(json);
	if (status) {
		free(out->text);
		*out = (struct lora_payload){.text = NULL};
	}
	return status;
}

bool lora__envelope_probe(const char *text, size_t size)
{
	struct lora_json *json = NULL;
	bool found = size <= LORA_ENVELOPE_LIMIT && size > 0 && text[0] == '{' &&
		     lora__json_parse(&json, text, size, NULL) == LORA_OK &&
		     lora__json_get(json, "payloadType") && lora__json_get(json, "payload");

	lora__json_free(json);
	return found;
}
