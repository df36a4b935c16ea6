/* SPDX-License-Identifier: Apache-2.0 */
/* loractl/tokenizer.h - text to the numbers that a language model was trained on, and back.
 *
 * A tokenizer is read from a model's directory: tokenizer.json, and of tokenizer_config.json (or
 * special_tokens_map.json) which tokens begin and end a text. Byte-pair encoding is understood, as
 * the families of GPT-2, Llama, Mistral, Qwen and SmolLM use it; whatever a file asks for beyond
 * that is refused by name, never left out. The numbers are those of the `tokenizers` library
 * (tests/interop/tokenizer.py compares them); src/net/tokenizer.c says in which corners they are
 * not.
 *
 * An opened tokenizer never changes: any number of threads may use one at the same time. A decoder
 * belongs to one thread at a time.
 *
 * Text is UTF-8 of a given length; a NUL is a character like any other. Bytes that are not UTF-8
 * become U+FFFD, one for each maximal part of a character (as Python's errors="replace" does).
 */
#ifndef LORACTL_TOKENIZER_H
#define LORACTL_TOKENIZER_H

#include <loractl/types.h>

#ifdef __cplusplus
extern "C" {
#endif

struct lora_tokenizer;

/* No token. */
#define LORA_TOKEN_NONE UINT32_MAX

/* A growing list of token ids; zeroed it is empty. */
struct lora_tokens {
	uint32_t *ids;
	size_t count, capacity;
};

LORA_API void lora_tokens_fini(struct lora_tokens *tokens);

/* Reads DIRECTORY/tokenizer.json and what is there of its companions. LORA_INPUT if it is missing,
 * malformed, or asks for what is not supported. *out is NULL on failure; the caller closes it. */
LORA_API enum lora_status lora_tokenizer_open(struct lora_tokenizer **out, const char *directory,
					      struct lora_error *err);
LORA_API void lora_tokenizer_close(struct lora_tokenizer *tokenizer);

/* The number of tokens, and one more than the highest id: they differ where ids have holes. A
 * model's embedding may have more rows than either. */
LORA_API size_t lora_tokenizer_count(const struct lora_tokenizer *tokenizer);
LORA_API size_t lora_tokenizer_vocab_size(const struct lora_tokenizer *tokenizer);

enum lora_token_role { LORA_TOKEN_BOS, LORA_TOKEN_EOS, LORA_TOKEN_PAD, LORA_TOKEN_UNK };

/* The token that has this role; LORA_TOKEN_NONE if none has, or if it is not in the vocabulary. */
LORA_API uint32_t lora_tokenizer_special(const struct lora_tokenizer *tokenizer,
					 enum lora_token_role role);
/* The token that is spelled like this in tokenizer.json; LORA_TOKEN_NONE if there is none. */
LORA_API uint32_t lora_tokenizer_find(const struct lora_tokenizer *tokenizer, const char *token,
				      size_t length);
/* A token's spelling in tokenizer.json (bytes in their printable form; an added token that is
 * normalized, as that), NUL-terminated; NULL if no token has this id. `length` may be NULL.
 * Borrowed. */
LORA_API const char *lora_tokenizer_token(const struct lora_tokenizer *tokenizer, uint32_t id,
					  size_t *length);
/* True for an added token that is marked special. */
LORA_API bool lora_tokenizer_is_special(const struct lora_tokenizer *tokenizer, uint32_t id);
/* tokenizer_config.json's chat_template (or the file chat_template.jinja); NULL if there is none.
 * Borrowed. */
LORA_API const char *lora_tokenizer_chat_template(const struct lora_tokenizer *tokenizer);

#define LORA_ENCODE_SPECIAL 1u /* add what belongs around a text: <s> and the like */
#define LORA_ENCODE_LITERAL 2u /* the spelling of a special token in the text is ordinary text */

/* Appends the tokens of `length` bytes of text. Time is that of n log n, whatever the text; memory
 * is some 100 bytes for each byte of it. LORA_USAGE if the text has a gigabyte or more;
 * LORA_INPUT if the vocabulary has no token for a character and names none for that case. After a
 * failure `tokens` is as it was. */
LORA_API enum lora_status lora_tokenizer_encode(const struct lora_tokenizer *tokenizer,
						const char *text, size_t length, unsigned flags,
						struct lora_tokens *tokens, struct lora_error *err);

#define LORA_DECODE_SKIP_SPECIAL 1u /* special tokens decode to nothing */

/* The text of `count` tokens, with a NUL behind its `length` bytes; always UTF-8. Ids that no token
 * has decode to nothing. malloc'd; NULL on failure. */
LORA_API enum lora_status lora_tokenizer_decode(const struct lora_tokenizer *tokenizer,
						const uint32_t *ids, size_t count, unsigned flags,
						char **text, size_t *length,
						struct lora_error *err);

/* Decoding token after token, for text that appears while it is made. What push and finish give,
 * put together, is what lora_tokenizer_decode() gives: a character comes when its last byte does
 * (with byte_fallback: when the run of byte tokens ends, since one bad byte spoils them all). */
struct lora_decoder;

LORA_API enum lora_status lora_decoder_new(struct lora_decoder **out,
					   const struct lora_tokenizer *tokenizer, unsigned flags,
					   struct lora_error *err);
LORA_API void lora_decoder_free(struct lora_decoder *decoder);
/* What one more token adds: `length` bytes (0 is common), with a NUL behind them, valid until the
 * next call. */
LORA_API enum lora_status lora_decoder_push(struct lora_decoder *decoder, uint32_t id,
					    const char **text, size_t *length,
					    struct lora_error *err);
/* What was held back. Afterwards the decoder is as new. */
LORA_API enum lora_status lora_decoder_finish(struct lora_decoder *decoder, const char **text,
					      size_t *length, struct lora_error *err);

#ifdef __cplusplus
}
#endif

#endif
