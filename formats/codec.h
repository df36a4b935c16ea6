/* SPDX-License-Identifier: Apache-2.0 */
/* formats/codec.h - zstd frames for numbers: the one door to the compressor.
 *
 * Every frame is an ordinary one, which `zstd -d` reads. The two sorts differ in what the packer
 * looks for: repeats (text, gaps, differences that are mostly zero) or only the frequency of bytes
 * (exponents, where looking for repeats costs speed and size).
 *
 * 1. A frame never says how much memory it wants: the caller knows the exact size of what comes
 *    out, from a place that it trusts, and anything else is an error.
 * 2. Frames are single-segment and carry their content's size; no checksum (the caller has SHA-256)
 *    and no dictionary.
 * 3. The bytes of a frame are not promised to be the same with another release of the library;
 *    what comes out of them is.
 */
#ifndef LORA_FORMATS_CODEC_H
#define LORA_FORMATS_CODEC_H

#include <loractl/error.h>
#include <stddef.h>
#include <stdint.h>

enum lora_frame_sort {
	LORA_FRAME_REPEATS, /* level 3: runs and repeated strings */
	LORA_FRAME_DENSE,   /* level 19: the same, as small as it gets, some MB a second */
	LORA_FRAME_BYTES,   /* Huffman coding of single bytes alone */
};

/* Some 1 to 100 MB of tables; used by one thread at a time. */
struct lora_codec;

struct lora_codec *lora__codec_new(void); /* NULL without memory */
void lora__codec_free(struct lora_codec *codec);

/* Room that a frame of `size` bytes never exceeds. */
size_t lora__frame_bound(size_t size);

/* One frame of `in` into `out`, which has room for *packed bytes; *packed becomes its size, or 0 if
 * it is larger. LORA_SYSTEM without memory. */
enum lora_status lora__frame_pack(struct lora_codec *codec, enum lora_frame_sort sort,
				  const void *in, size_t size, void *out, size_t *packed,
				  struct lora_error *err);

/* One frame of exactly `packed` bytes that gives exactly `size` bytes into `out`. LORA_INPUT for
 * anything else: damage, bytes left over, more or fewer bytes inside, a skippable frame. */
enum lora_status lora__frame_unpack(struct lora_codec *codec, const void *in, size_t packed,
				    void *out, size_t size, struct lora_error *err);

#endif
