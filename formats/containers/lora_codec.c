/* SPDX-License-Identifier: Apache-2.0 */
/* formats/containers/lora_codec.c - the only place that includes zstd.
 *
 * Level -1000 with literals always compressed is zstd's Huffman coder without its search for
 * matches: on exponents it comes within a few per cent of the order-0 entropy at hundreds of MB a
 * second, where higher levels spend their time on matches that cost more bits than they save. The
 * parameter for literals is in zstd's section of experimental ones, reached by its number through
 * the stable call, as that section documents for shared libraries. */
#include "formats/codec.h"

#include "base/error.h"

#include <stdlib.h>
#include <zstd.h>
#include <zstd_errors.h>

#define LITERALS	ZSTD_c_experimentalParam5 /* ZSTD_c_literalCompressionMode */
#define LITERALS_AUTO	0			  /* ZSTD_ps_auto */
#define LITERALS_ALWAYS 1			  /* ZSTD_ps_enable: Huffman, if it shrinks */
#define NO_MATCHES	(-1000)			  /* a level: matches are not looked for */

struct lora_codec {
	ZSTD_CCtx *pack;
	ZSTD_DCtx *unpack;
};

struct lora_codec *lora__codec_new(void)
{
	struct lora_codec *codec = calloc(1, sizeof(*codec));

	if (!codec)
		return NULL;
	codec->pack = ZSTD_createCCtx();
	codec->unpack = ZSTD_createDCtx();
	if (codec->pack && codec->unpack)
		return codec;
	lora__codec_free(codec);
	return NULL;
}

void lora__codec_free(struct lora_codec *codec)
{
	if (!codec)
		return;
	ZSTD_freeCCtx(codec->pack);
	ZSTD_freeDCtx(codec->unpack);
	free(codec);
}

size_t lora__frame_bound(size_t size)
{
	return ZSTD_compressBound(size);
}

/* Of a failing call of zstd's. */
static enum lora_status fail(size_t result, struct lora_error *err)
{
	if (ZSTD_getErrorCode(result) == ZSTD_error_memory_allocation)
		return lora__fail_memory(err);
	return lora__fail(err, LORA_INPUT, "damaged zstd frame: %s", ZSTD_getErrorName(result));
}

static size_t set_up(ZSTD_CCtx *context, enum lora_frame_sort sort)
{
	static const int levels[] = {3, 19, NO_MATCHES};
	size_t result = ZSTD_CCtx_reset(context, ZSTD_reset_session_only); /* it may have failed */

	if (ZSTD_isError(result))
		return result;
	result = ZSTD_CCtx_setParameter(context, ZSTD_c_compressionLevel, levels[sort]);
	if (ZSTD_isError(result))
		return result;
	return ZSTD_CCtx_setParameter(context, LITERALS,
				      sort == LORA_FRAME_BYTES ? LITERALS_ALWAYS : LITERALS_AUTO);
}

enum lora_status lora__frame_pack(struct lora_codec *codec, enum lora_frame_sort sort,
				  const void *in, size_t size, void *out, size_t *packed,
				  struct lora_error *err)
{
	size_t room = *packed;
	size_t result = set_up(codec->pack, sort);

	*packed = 0;
	if (!ZSTD_isError(result))
		result = ZSTD_compress2(codec->pack, out, room, in, size);
	if (!ZSTD_isError(result))
		*packed = result;
	else if (ZSTD_getErrorCode(result) != ZSTD_error_dstSize_tooSmall)
		return lora__fail(err, LORA_SYSTEM, "zstd cannot compress: %s",
				  ZSTD_getErrorName(result)); /* memory: the input is any bytes */
	return LORA_OK;
}

enum lora_status lora__frame_unpack(struct lora_codec *codec, const void *in, size_t packed,
				    void *out, size_t size, struct lora_error *err)
{
	size_t frame = ZSTD_findFrameCompressedSize(in, packed), result;

	if (ZSTD_isError(frame))
		return fail(frame, err);
	if (frame != packed)
		return lora__fail(err, LORA_INPUT, "damaged zstd frame: %zu bytes behind it",
				  packed - frame);
	if (ZSTD_getFrameContentSize(in, packed) != size) /* a skippable frame says 0 */
		return lora__fail(
		    err, LORA_INPUT,
		    "damaged zstd frame: it does not hold the %zu bytes that it should", size);
	result = ZSTD_decompressDCtx(codec->unpack, out, size, in, packed);
	if (ZSTD_isError(result))
		return fail(result, err);
	if (result != size)
		return lora__fail(err, LORA_INPUT, "damaged zstd frame: %zu bytes, not %zu", result,
				  size);
	return LORA_OK;
}
