/* SPDX-License-Identifier: Apache-2.0 */
/* net/tokenizer*.c and net/chat.c: what a comparison with the `tokenizers` library
 * (tests/interop/tokenizer.py) does not show: the work done, memory that is not there, threads. */
#include "base_check.h"

#include <loractl/chat.h>
#include <math.h>
#include <pthread.h>

#include "failing_malloc.h"
#include "net/tokenizer.h"

#define MEGABYTE ((size_t)1 << 20)

/* --- a tokenizer ------------------------------------------------------------------ */

/* The printable form of a byte, from the definition: those that print, then the others in order. */
static unsigned printable(unsigned byte)
{
	unsigned others = 0;

	for (unsigned i = 0; i <= byte; i++) {
		bool prints = (i >= 0x21 && i <= 0x7e) || (i >= 0xa1 && i != 0xad);

		if (i == byte)
			return prints ? byte : 0x100 + others;
		others += !prints;
	}
	return 0;
}

/* Byte-level: all bytes; aa, aaaa, ... up to 16; ab, abab; "th", "the". `middle` is the rest. */
static char *make(const char *middle)
{
	static const char *const more[][2] = {
	    {"a", "a"}, {"aa", "aa"}, {"aaaa", "aaaa"}, {"aaaaaaaa", "aaaaaaaa"},
	    {"a", "b"}, {"ab", "ab"}, {"t", "h"},	{"th", "e"},
	};
	char *text = NULL;
	size_t size = 0;
	FILE *file = open_memstream(&text, &size);

	fprintf(file, "{%s,\"model\":{\"type\":\"BPE\",\"vocab\":{", middle);
	for (unsigned byte = 0; byte < 256; byte++)
		fprintf(file, "\"\\u%04x\":%u,", printable(byte), byte);
	for (unsigned i = 0; i < 8; i++)
		fprintf(file, "\"%s%s\":%u%s", more[i][0], more[i][1], 256 + i, i < 7 ? "," : "");
	fprintf(file, "},\"merges\":[");
	for (unsigned i = 0; i < 8; i++)
		fprintf(file, "\"%s %s\"%s", more[i][0], more[i][1], i < 7 ? "," : "");
	fprintf(file, "]}}");
	fclose(file);
	return text;
}

#define ADDED                                                                                      \
	"\"added_tokens\":[{\"id\":264,\"content\":\"<|im_start|>\",\"single_word\":false,"        \
	"\"lstrip\":false,\"rstrip\":false,\"normalized\":false,\"special\":true},"                \
	"{\"id\":265,\"content\":\"<|im_end|>\",\"single_word\":false,\"lstrip\":false,"           \
	"\"rstrip\":false,\"normalized\":false,\"special\":true}],"
#define REST                                                                                       \
	"\"normalizer\":{\"type\":\"NFC\"},\"pre_tokenizer\":{\"type\":\"ByteLevel\","             \
	"\"add_prefix_space\":false,\"trim_offsets\":true},"                                       \
	"\"post_processor\":{\"type\":\"TemplateProcessing\",\"single\":[{\"SpecialToken\":"       \
	"{\"id\":\"x\",\"type_id\":0}},{\"Sequence\":{\"id\":\"A\",\"type_id\":0}}],\"pair\":[],"  \
	"\"special_tokens\":{\"x\":{\"id\":\"x\",\"ids\":[264],\"tokens\":[\"x\"]}}},"             \
	"\"decoder\":{\"type\":\"ByteLevel\",\"add_prefix_space\":true,\"trim_offsets\":true}"

static enum lora_status parse(struct lora_tokenizer **out, const char *text, struct lora_error *err)
{
	static const char config[] = "{\"bos_token\":\"<|im_start|>\",\"chat_template\":"
				     "\"<|im_start|> <|im_end|>\"}";
	struct lora_tokenizer_files files = {.tokenizer = text,
					     .tokenizer_size = strlen(text),
					     .config = config,
					     .config_size = strlen(config)};

	return lora__tokenizer_parse(out, &files, err);
}

static struct lora_tokenizer *open_made(const char *middle)
{
	struct lora_error err = LORA_ERROR_INIT;
	struct lora_tokenizer *tokenizer = NULL;
	char *text = make(middle);

	assert_ok(parse(&tokenizer, text, &err));
	free(text);
	return tokenizer;
}

/* --- pieces ----------------------------------------------------------------------- */

static void tokenizer__broken_utf8_is_replaced_by_maximal_parts(void **state)
{
	/* The Unicode Standard, tables 3-8 to 3-11. */
	static const struct {
		const char *in, *out;
	} cases[] = {
	    {"\xc0\xaf\xe0\x80\xbf\xf0\x81\x82\x41",
	     "\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd"
	     "\xef\xbf\xbd\xef\xbf\xbd\x41"},
	    {"\xed\xa0\x80\xed\xbf\xbf\xed\xaf\x41",
	     "\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd"
	     "\xef\xbf\xbd\xef\xbf\xbd\x41"},
	    {"\xf4\x91\x92\x93\xff\x41\x80\xbf\x42",
	     "\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\x41"
	     "\xef\xbf\xbd\xef\xbf\xbd\x42"},
	    {"\xe1\x80\xe2\xf0\x91\x92\xf1\xbf\x41",
	     "\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\x41"},
	    {"\xe2\x82\xac\xf0\x9f\x98\x80 ok", "\xe2\x82\xac\xf0\x9f\x98\x80 ok"},
	};
	struct lora_error err = LORA_ERROR_INIT;
	struct lora_buffer to = {0};
	size_t used = 0;

	(void)state;
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		size_t size = strlen(cases[i].in);

		to.size = 0;
		assert_ok(lora__utf8_repair(&to, cases[i].in, size, true, &used, &err));
		assert_int_equal(used, size);
		assert_int_equal(to.size, strlen(cases[i].out));
		assert_memory_equal(to.at, cases[i].out, to.size);
	}
	to.size = 0;
	assert_ok(lora__utf8_repair(&to, "a\xf0\x9f\x98", 4, false, &used, &err));
	assert_int_equal(used, 1); /* three bytes may become a character yet */
	assert_int_equal(to.size, 1);
	lora__buffer_fini(&to);
}

/* --- work ------------------------------------------------------------------------- */

/* Merges, candidate for candidate, are counted: n log n of them at most. */
static void check_steps(const struct lora_tokenizer *tokenizer, const char *word, size_t size)
{
	struct lora_error err = LORA_ERROR_INIT;
	struct lora_bpe_work work = {0};
	struct lora_tokens tokens = {0};

	assert_ok(lora__bpe_encode(&tokenizer->bpe, &work, word, size, &tokens, &err));
	assert_true(work.steps >= size / 2);
	assert_true((double)work.steps < 4.0 * (double)size * log2((double)size));
	lora__bpe_work_fini(&work);
	lora_tokens_fini(&tokens);
}

static void tokenizer__a_long_word_takes_n_log_n_steps(void **state)
{
	struct lora_tokenizer *tokenizer = open_made(ADDED REST);
	char *word = malloc(MEGABYTE);
	uint32_t random = 1;

	(void)state;
	memset(word, 'a', MEGABYTE);
	check_steps(tokenizer, word, MEGABYTE);
	check_steps(tokenizer, word, MEGABYTE - 1);
	for (size_t i = 0; i < MEGABYTE; i++)
		word[i] = i % 2 == 0 ? 'a' : 'b';
	check_steps(tokenizer, word, MEGABYTE);
	for (size_t i = 0; i < MEGABYTE; i++) {
		random = random * 1664525u + 1013904223u;
		word[i] = "aabthe"[(random >> 16) % 6];
	}
	check_steps(tokenizer, word, MEGABYTE);
	free(word);
	lora_tokenizer_close(tokenizer);
}

/* Whole texts of a megabyte: anything quadratic would take hours here. The number of tokens is
 * known where one letter fills the text: 16 to a token. */
static void tokenizer__megabytes_of_anything_are_encoded(void **state)
{
	static const char *const texts[] = {"a",
					    "ab",
					    " ",
					    "\n",
					    "\t ",
					    "1",
					    "!",
					    "\xff",
					    "\xcc\x81\xcc\xa3",
					    "e\xcc\x81",
					    "<|im_end|>",
					    "<|im_end|",
					    "\xe6\x97\xa5",
					    "'"};
	static const char *const middles[] = {
	    ADDED REST,
	    "\"normalizer\":{\"type\":\"Sequence\",\"normalizers\":[{\"type\":\"NFKD\"},"
	    "{\"type\":\"StripAccents\"},{\"type\":\"Prepend\",\"prepend\":\"x\"}]},"
	    "\"pre_tokenizer\":{\"type\":\"Sequence\",\"pretokenizers\":[{\"type\":\"Split\","
	    "\"pattern\":{\"Regex\":\"(?i:'s|'t)|[^\\\\r\\\\n\\\\p{L}\\\\p{N}]?\\\\p{L}+|"
	    "\\\\p{N}{1,3}| ?[^\\\\s\\\\p{L}\\\\p{N}]+[\\\\r\\\\n]*|\\\\s*[\\\\r\\\\n]+|"
	    "\\\\s+(?!\\\\S)|\\\\s+\"},\"behavior\":\"MergedWithNext\",\"invert\":false},"
	    "{\"type\":\"Digits\",\"individual_digits\":true},{\"type\":\"Metaspace\","
	    "\"replacement\":\"_\",\"prepend_scheme\":\"first\"},{\"type\":\"ByteLevel\","
	    "\"add_prefix_space\":true,\"trim_offsets\":true,\"use_regex\":false}]}",
	};
	struct lora_error err = LORA_ERROR_INIT;
	struct lora_tokens tokens = {0};
	char *text = malloc(MEGABYTE);

	(void)state;
	for (size_t m = 0; m < 2; m++) {
		struct lora_tokenizer *tokenizer = open_made(middles[m]);

		for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
			size_t length = strlen(texts[i]);

			for (size_t k = 0; k < MEGABYTE; k++)
				text[k] = texts[i][k % length];
			tokens.count = 0;
			assert_ok(
			    lora_tokenizer_encode(tokenizer, text, MEGABYTE, 0, &tokens, &err));
			if (m == 0 && i == 0)
				assert_int_equal(tokens.count, MEGABYTE / 16);
		}
		lora_tokenizer_close(tokenizer);
	}
	lora_tokens_fini(&tokens);
	free(text);
}

/* --- decoding --------------------------------------------------------------------- */

static void tokenizer__a_character_comes_with_its_last_byte(void **state)
{
	static const struct {
		uint32_t id;
		const char *text;
	} pushes[] = {{'a', "a"},
		      {0xf0, ""},
		      {0x9f, ""},
		      {0x98, ""},
		      {0x80, "\xf0\x9f\x98\x80"},
		      {0xe2, ""},
		      {0x82, ""},
		      {'b', "\xef\xbf\xbd"
			    "b"},
		      {99999, ""},
		      {0xc3, ""}};
	struct lora_tokenizer *tokenizer = open_made(ADDED REST);
	struct lora_error err = LORA_ERROR_INIT;
	struct lora_decoder *decoder = NULL;
	const char *text = NULL;
	size_t length = 0;

	(void)state;
	assert_ok(lora_decoder_new(&decoder, tokenizer, 0, &err));
	for (int round = 0; round < 2; round++) {
		for (size_t i = 0; i < sizeof pushes / sizeof *pushes; i++) {
			assert_ok(lora_decoder_push(decoder, pushes[i].id, &text, &length, &err));
			assert_string_equal(text, pushes[i].text);
			assert_int_equal(length, strlen(text));
		}
		assert_ok(lora_decoder_finish(decoder, &text, &length, &err));
		assert_string_equal(text, "\xef\xbf\xbd");
	}
	lora_decoder_free(decoder);
	lora_tokenizer_close(tokenizer);
}

/* --- memory, sizes, threads ------------------------------------------------------- */

static enum lora_status everything(const char *json, struct lora_error *err)
{
	static const struct lora_message talk[] = {{"user", "the <|im_start|> e\xcc\x81", 20},
						   {"assistant", "ab", 2}};
	struct lora_conversation all = {LORA_CHAT_NONE, talk, 2, true};
	uint8_t *mask = NULL;
	struct lora_tokenizer *tokenizer = NULL;
	struct lora_tokens tokens = {0};
	enum lora_status status = parse(&tokenizer, json, err);
	char *text = NULL;
	size_t length = 0;

	if (status == LORA_OK)
		status = lora_tokenizer_encode(tokenizer, "aaaa the<|im_end|>\xff", 20,
					       LORA_ENCODE_SPECIAL, &tokens, err);
	if (status == LORA_OK) {
		all.chat = lora_chat_of(tokenizer);
		status = lora_chat_encode_masked(tokenizer, &all, &tokens, &mask, err);
	}
	if (status == LORA_OK)
		status = lora_tokenizer_decode(tokenizer, tokens.ids, tokens.count, 0, &text,
					       &length, err);
	free(mask);
	free(text);
	lora_tokens_fini(&tokens);
	lora_tokenizer_close(tokenizer);
	return status;
}

static void tokenizer__without_memory_nothing_is_left_behind(void **state)
{
	struct lora_error err = LORA_ERROR_INIT;
	char *json = make(ADDED REST);

	(void)state;
	assert_ok(everything(json, &err));
	for (long n = 0; FAILING_MALLOC; n = n < 900 ? n + 1 : n + 7) {
		long live = failing_malloc_live();
		enum lora_status status;
		bool failed;

		failing_malloc_begin(n);
		status = everything(json, &err);
		failed = failing_malloc_end();
		assert_int_equal(failing_malloc_live(), live);
		assert_int_equal(status, failed ? LORA_SYSTEM : LORA_OK);
		if (!failed)
			break;
	}
	free(json);
}

static void tokenizer__sizes_are_checked(void **state)
{
	struct lora_error err = LORA_ERROR_INIT;
	struct lora_tokenizer *tokenizer = open_made(ADDED REST);
	struct lora_tokens tokens = {0};

	(void)state;
	assert_fails(LORA_USAGE, "too long",
		     lora_tokenizer_encode(tokenizer, "", (size_t)1 << 31, 0, &tokens, &err));
	assert_int_equal(lora_tokenizer_count(tokenizer), 266);
	assert_int_equal(lora_tokenizer_vocab_size(tokenizer), 266);
	assert_int_equal(lora_tokenizer_find(tokenizer, "the", 3), 263);
	assert_int_equal(lora_tokenizer_find(tokenizer, "them", 4), LORA_TOKEN_NONE);
	assert_int_equal(lora_tokenizer_special(tokenizer, LORA_TOKEN_BOS), 264);
	assert_int_equal(lora_tokenizer_special(tokenizer, LORA_TOKEN_EOS), LORA_TOKEN_NONE);
	assert_true(lora_tokenizer_is_special(tokenizer, 264));
	assert_false(lora_tokenizer_is_special(tokenizer, 263));
	assert_false(lora_tokenizer_is_special(tokenizer, UINT32_MAX));
	assert_null(lora_tokenizer_token(tokenizer, 266, NULL));
	lora_tokenizer_close(tokenizer);
	tokenizer = NULL;
	enter_scratch();
	assert_fails(LORA_INPUT, "tokenizer.json", lora_tokenizer_open(&tokenizer, ".", &err));
	fclose(fopen("tokenizer.json", "w"));
	assert_int_equal(truncate("tokenizer.json", (off_t)LORA_TOKENIZER_FILE + 1), 0);
	assert_fails(LORA_INPUT, "at most", lora_tokenizer_open(&tokenizer, ".", &err));
	assert_null(tokenizer);
	leave_scratch();
}

struct shared {
	const struct lora_tokenizer *tokenizer;
	const struct lora_tokens *want;
	const char *text;
};

static void *encode_often(void *data)
{
	const struct shared *shared = data;
	bool good = true;

	for (int i = 0; i < 50; i++) {
		struct lora_tokens tokens = {0};

		good = good &&
		       lora_tokenizer_encode(shared->tokenizer, shared->text, strlen(shared->text),
					     LORA_ENCODE_SPECIAL, &tokens, NULL) == LORA_OK;
		good =
		    good && tokens.count == shared->want->count &&
		    memcmp(tokens.ids, shared->want->ids, tokens.count * sizeof *tokens.ids) == 0;
		lora_tokens_fini(&tokens);
	}
	return good ? data : NULL;
}

static void tokenizer__one_serves_many_threads(void **state)
{
	struct lora_tokenizer *tokenizer = open_made(ADDED REST);
	struct lora_error err = LORA_ERROR_INIT;
	struct lora_tokens want = {0};
	struct shared shared = {tokenizer, &want,
				"the aaaaaaa\n\n x <|im_end|> e\xcc\x81 123 <|im_start|>"};
	pthread_t threads[4];

	(void)state;
	assert_ok(lora_tokenizer_encode(tokenizer, shared.text, strlen(shared.text),
					LORA_ENCODE_SPECIAL, &want, &err));
	for (int i = 0; i < 4; i++)
		assert_int_equal(pthread_create(&threads[i], NULL, encode_often, &shared), 0);
	for (int i = 0; i < 4; i++) {
		void *result = NULL;

		assert_int_equal(pthread_join(threads[i], &result), 0);
		assert_non_null(result);
	}
	lora_tokens_fini(&want);
	lora_tokenizer_close(tokenizer);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(tokenizer__broken_utf8_is_replaced_by_maximal_parts),
	    cmocka_unit_test(tokenizer__a_long_word_takes_n_log_n_steps),
	    cmocka_unit_test(tokenizer__megabytes_of_anything_are_encoded),
	    cmocka_unit_test(tokenizer__a_character_comes_with_its_last_byte),
	    cmocka_unit_test(tokenizer__without_memory_nothing_is_left_behind),
	    cmocka_unit_test(tokenizer__sizes_are_checked),
	    cmocka_unit_test(tokenizer__one_serves_many_threads),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
