/* SPDX-License-Identifier: Apache-2.0 */
/* base/utf8.h - one code point of UTF-8 at a time, strictly, and which of them must not reach a
 * terminal. */
#ifndef LORA_BASE_UTF8_H
#define LORA_BASE_UTF8_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define LORA_UTF8_REPLACEMENT 0xfffdu

/* The bytes (1 to 4) of the code point that text begins with, and the code point; 0 if those bytes
 * are no UTF-8: overlong, a surrogate, above U+10FFFF, cut off, or if length is 0. */
size_t lora__utf8_decode(const char *text, size_t length, uint32_t *code);
/* True for what a terminal obeys or hides instead of showing: control characters, line and
 * paragraph separators, bidirectional controls and everything else that is invisible by default. */
bool lora__utf8_is_hidden(uint32_t code);
/* The longest prefix of text that has at most `limit` bytes and does not end inside a code point.
 */
size_t lora__utf8_cut(const char *text, size_t length, size_t limit);

#endif
