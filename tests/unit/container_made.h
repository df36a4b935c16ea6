/* SPDX-License-Identifier: Apache-2.0 */
/* container_made.h - .lora containers made by tests, record by record, from lora-container(5) and
 * without the code under test (but for SHA-256). Objects are stored as they are. */
#ifndef CONTAINER_MADE_H
#define CONTAINER_MADE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct made_container {
	uint8_t *bytes;
	size_t size;
	/* of the group that is being made */
	size_t begin;
	uint64_t lie; /* added to the commit's begin */
	size_t data_at, index_at, manifest_at;
	uint64_t manifest_size;
	uint8_t manifest[32], index[32];
	/* of all */
	uint64_t sequence;
	uint8_t link[16];
	/* of the objects */
	unsigned objects;
};

/* The superblock, with these masks. */
void made_begin(struct made_container *c, unsigned major, uint32_t incompat, uint32_t ro_compat,
		uint32_t compat);
void made_end(struct made_container *c);
/* A record with any type, flags and payload. */
void made_record(struct made_container *c, unsigned type, unsigned flags, const void *payload,
		 size_t size);
/* DATA and INDEX of one object of width 1 that holds `bytes`. */
void made_object(struct made_container *c, const void *bytes, size_t size);
/* DATA and INDEX as they are given. */
void made_objects(struct made_container *c, const void *data, size_t data_size, const void *index,
		  size_t index_size);
/* One entry of an INDEX, without its words; returns the bytes written. */
size_t made_entry(uint8_t *out, const uint8_t digest[32], uint64_t size, unsigned width,
		  unsigned flags, uint32_t parent);
/* A word; returns 4. */
size_t made_word(uint8_t *out, unsigned method, unsigned length);
/* MANIFEST; the group's version has it. */
void made_manifest(struct made_container *c, const char *text);
/* A manifest of one file `a` with one part of `size` bytes; digests in hexadecimal. parent NULL:
 * none. The root is computed. Static storage. */
const char *made_manifest_text(unsigned version, const char *parent, const char *digest,
			       uint64_t size);
/* The commit of the group. */
void made_commit(struct made_container *c, uint64_t version);
void made_sha256(const void *bytes, size_t size, uint8_t digest[32]);
const char *made_hex(const uint8_t digest[32]); /* static storage, four in turn */

#endif
