/* SPDX-License-Identifier: Apache-2.0 */
#include "container_made.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/digest.h"

static void put(uint8_t *at, uint64_t value, unsigned size)
{
	while (size-- > 0) {
		*at++ = (uint8_t)value;
		value >>= 8;
	}
}

void made_sha256(const void *bytes, size_t size, uint8_t digest[32])
{
	struct lora_sha256 result;

	lora__sha256(bytes, size, &result);
	memcpy(digest, result.byte, 32);
}

const char *made_hex(const uint8_t digest[32])
{
	static char text[4][65];
	static unsigned next;
	char *hex = text[next++ % 4];

	for (unsigned i = 0; i < 32; i++)
		snprintf(hex + 2 * i, 3, "%02x", digest[i]);
	return hex;
}

/* Room for `size` zero bytes at the end; their place. */
static uint8_t *grow(struct made_container *c, size_t size)
{
	c->bytes = realloc(c->bytes, c->size + size + 1);
	memset(c->bytes + c->size, 0, size);
	c->size += size;
	return c->bytes + c->size - size;
}

void made_begin(struct made_container *c, unsigned major, uint32_t incompat, uint32_t ro_compat,
		uint32_t compat)
{
	static const uint8_t magic[] = {0x89, 'L', 'O', 'R', '\r', '\n', 0x1a, '\n'};
	uint8_t *p;

	*c = (struct made_container){0};
	p = grow(c, 64);
	memcpy(p, magic, 8);
	put(p + 8, major, 2);
	put(p + 12, incompat, 4);
	put(p + 16, ro_compat, 4);
	put(p + 20, compat, 4);
	made_sha256(p, 32, p + 32);
	memcpy(c->link, p + 32, 16);
	c->begin = c->size;
}

void made_end(struct made_container *c)
{
	free(c->bytes);
	*c = (struct made_container){0};
}

void made_record(struct made_container *c, unsigned type, unsigned flags, const void *payload,
		 size_t size)
{
	uint8_t *p = grow(c, 32 + size + (-size & 7)), digest[32];

	put(p, type, 2);
	put(p + 2, flags, 2);
	put(p + 8, size, 8);
	made_sha256(p, 24, digest);
	memcpy(p + 24, digest, 8);
	if (size)
		memcpy(p + 32, payload, size);
}

void made_objects(struct made_container *c, const void *data, size_t data_size, const void *index,
		  size_t index_size)
{
	made_record(c, 1, 1, data, data_size);
	c->index_at = c->size;
	made_sha256(index, index_size, c->index);
	made_record(c, 2, 1, index, index_size);
}

size_t made_entry(uint8_t *out, const uint8_t digest[32], uint64_t size, unsigned width,
		  unsigned flags, uint32_t parent)
{
	memset(out, 0, 48);
	memcpy(out, digest, 32);
	put(out + 32, size, 8);
	out[40] = (uint8_t)width;
	out[41] = (uint8_t)flags;
	put(out + 44, parent, 4);
	return 48;
}

size_t made_word(uint8_t *out, unsigned method, unsigned length)
{
	put(out, method << 24 | length, 4);
	return 4;
}

void made_object(struct made_container *c, const void *bytes, size_t size)
{
	uint8_t index[8 + 48 + 4] = {1}, digest[32];

	made_sha256(bytes, size, digest);
	made_entry(index + 8, digest, size, 1, 0, 0);
	made_word(index + 56, 0, (unsigned)size);
	made_objects(c, bytes, size, index, sizeof(index));
	c->objects++;
}

void made_manifest(struct made_container *c, const char *text)
{
	c->manifest_at = c->size;
	c->manifest_size = strlen(text);
	made_sha256(text, strlen(text), c->manifest);
	made_record(c, 3, 1, text, strlen(text));
}

const char *made_manifest_text(unsigned version, const char *parent, const char *digest,
			       uint64_t size)
{
	static char text[2048];
	char quoted[80] = "null";
	uint8_t root[18 + 4 + 1 + 8 + 32] = "loractl content 1", hash[32];

	if (parent)
		snprintf(quoted, sizeof(quoted), "\"%s\"", parent);
	root[18] = 1;
	root[22] = 'a';
	put(root + 23, size, 8);
	for (unsigned i = 0; i < 32; i++) {
		unsigned byte = 0;

		sscanf(digest + 2 * i, "%2x", &byte);
		root[31 + i] = (uint8_t)byte;
	}
	made_sha256(root, sizeof(root), hash);
	snprintf(
	    text, sizeof(text),
	    "{\"base_root\":null,\"files\":[{\"name\":\"a\",\"parts\":[{\"sha256\":\"%s\","
	    "\"size\":%llu}],\"sha256\":\"%s\",\"size\":%llu}],\"message\":\"\",\"metadata\":{},"
	    "\"name\":\"n\",\"parent\":%s,\"root\":\"%s\",\"schema\":\"loractl.manifest/1\","
	    "\"version\":%u}",
	    digest, (unsigned long long)size, digest, (unsigned long long)size, quoted,
	    made_hex(hash), version);
	return text;
}

/* SHA-256 of each record's payload and zeros, then its header. */
static void hash_body(const struct made_container *c, uint8_t digest[32])
{
	uint8_t *copy = malloc(c->size - c->begin + 1);
	size_t at = c->begin, to = 0;

	while (at < c->size) {
		size_t size = 0, rest;

		for (unsigned i = 8; i-- > 0;)
			size = size << 8 | c->bytes[at + 8 + i];
		rest = size + (-size & 7);
		memcpy(copy + to, c->bytes + at + 32, rest);
		memcpy(copy + to + rest, c->bytes + at, 32);
		at += 32 + rest;
		to += 32 + rest;
	}
	made_sha256(copy, to, digest);
	free(copy);
}

void made_commit(struct made_container *c, uint64_t version)
{
	uint8_t payload[208] = {0}, body[32];
	size_t at = c->size;

	hash_body(c, body);
	put(payload, at, 8);
	put(payload + 8, ++c->sequence, 8);
	put(payload + 16, c->begin + c->lie, 8);
	put(payload + 24, version, 8);
	if (c->manifest_at) {
		put(payload + 32, c->manifest_at, 8);
		put(payload + 40, c->manifest_size, 8);
		memcpy(payload + 48, c->manifest, 32);
	}
	if (c->index_at) {
		put(payload + 80, c->index_at, 8);
		memcpy(payload + 88, c->index, 32);
	}
	memcpy(payload + 128, body, 32);
	memcpy(payload + 160, c->link, 16);
	made_record(c, 6, 1, payload, sizeof(payload));
	made_sha256(c->bytes + at, 32 + 176, c->bytes + at + 32 + 176);
	memcpy(c->link, c->bytes + at + 32 + 176, 16);
	c->begin = c->size;
	c->manifest_at = c->index_at = 0;
}
