/* SPDX-License-Identifier: Apache-2.0 */
/* net/tokenizer.h - the parts of a tokenizer, for the files that make them
 *
 *	text -- repair --> UTF-8
 *	     -- added tokens, as they are spelled (tokenizer_added.c)
 *	     -- normalizer (tokenizer_normalize.c)
 *	     -- added tokens, as they are normalized
 *	     -- pre-tokenizer (tokenizer_split.c): words
 *	     -- model (tokenizer_bpe.c): ids
 *	     -- post-processor: ids around them
 *	ids  -- decoder (tokenizer_decode.c) --> text
 *
 * 1. A tokenizer is built once and constant afterwards; all that an encoding needs to write to is
 *    in its own struct lora_work. So one tokenizer serves many threads.
 * 2. Every step is linear in its input, or n log n.
 * 3. Every step but the first may rely on valid UTF-8.
 * 4. A component, or a key of one, that is not known is refused by its name.
 */
#ifndef LORA_NET_TOKENIZER_H
#define LORA_NET_TOKENIZER_H

#include <loractl/tokenizer.h>

#include "base/arena.h"
#include "base/json.h"
#include "base/map.h"

/* The largest files: 262,144 tokens and half a million merges take 33 MB. */
#define LORA_TOKENIZER_FILE   ((uint64_t)128 << 20)
#define LORA_TOKENIZER_CONFIG ((uint64_t)16 << 20)
#define LORA_TOKENIZER_IDS    (1u << 21) /* eight times the largest known vocabulary */
#define LORA_TOKENIZER_MERGES (1u << 22)
#define LORA_TOKENIZER_ADDED  (1u << 16)
/* Bytes of an added token. The search for them takes this many steps a byte at worst. */
#define LORA_TOKENIZER_CONTENT 256u
#define LORA_TOKENIZER_STAGES  32u /* normalizers, pre-tokenizers, decoders: each */
/* 32-bit positions of characters, and room for a heap of them. */
#define LORA_TOKENIZER_TEXT ((size_t)1 << 30)

/* --- text on its way (tokenizer_text.c) ------------------------------------------- */

struct lora_buffer {
	char *at;
	size_t size, capacity;
};

void lora__buffer_fini(struct lora_buffer *buffer);
enum lora_status lora__buffer_reserve(struct lora_buffer *buffer, size_t more,
				      struct lora_error *err);
enum lora_status lora__buffer_add(struct lora_buffer *buffer, const char *bytes, size_t size,
				  struct lora_error *err);
enum lora_status lora__buffer_add_code(struct lora_buffer *buffer, uint32_t code,
				       struct lora_error *err);

/* A stretch of a text: a token already, or (id == LORA_TOKEN_NONE) to be cut further. */
struct lora_piece {
	size_t begin, end;
	uint32_t id;
	bool first;    /* it begins where the whole text does */
	size_t origin; /* where the stretch between added tokens that it is part of began, in the
			* text as it came */
};

struct lora_pieces {
	struct lora_buffer text;
	struct lora_piece *at;
	size_t count, capacity;
	size_t origin; /* of the pieces that are added now */
};

/* For each token, the origin of its piece. */
struct lora_origins {
	size_t *at;
	size_t count, capacity;
};

void lora__pieces_fini(struct lora_pieces *pieces);
void lora__pieces_clear(struct lora_pieces *pieces);
/* Adds the piece that reaches from `begin` to the end of the text; an empty one without id is left
 * out. */
enum lora_status lora__pieces_add(struct lora_pieces *pieces, size_t begin, uint32_t id, bool first,
				  struct lora_error *err);

/* Copies size bytes, with U+FFFD for what is no UTF-8. Unless `last`, an incomplete character at
 * the end is left; *used tells how many bytes were taken. */
enum lora_status lora__utf8_repair(struct lora_buffer *to, const char *bytes, size_t size,
				   bool last, size_t *used, struct lora_error *err);
/* Unicode's White_Space; general category N. */
bool lora__is_space(uint32_t code);
bool lora__is_numeric(uint32_t code);

/* --- expressions (tokenizer_regex.c) ---------------------------------------------- */

struct lora_regex;
struct lora_matcher; /* what matching writes to */

/* `pattern` in Oniguruma's language, or plain text. */
enum lora_status lora__regex_compile(struct lora_regex **out, const char *pattern, bool plain,
				     struct lora_error *err);
void lora__regex_free(struct lora_regex *regex);
enum lora_status lora__matcher_new(struct lora_matcher **out, struct lora_error *err);
void lora__matcher_free(struct lora_matcher *matcher);

/* A part of a text, in a row of them that leaves nothing out. */
struct lora_segment {
	size_t begin, end;
	bool match;
};

struct lora_segments {
	struct lora_segment *at;
	size_t count, capacity;
};

/* The expression for one character of a word, Rust's \w: letters, marks, digits, connectors. */
enum lora_status lora__word_compile(struct lora_regex **out, struct lora_error *err);
enum lora_status lora__regex_is_match(const struct lora_regex *regex, struct lora_matcher *matcher,
				      const char *text, size_t size, bool *match,
				      struct lora_error *err);

enum lora_status lora__segments_add(struct lora_segments *segments, size_t begin, size_t end,
				    bool match, struct lora_error *err);
/* Appends matches and what is between them; an empty match only where the last one did not end. */
enum lora_status lora__regex_segments(const struct lora_regex *regex, struct lora_matcher *matcher,
				      const char *text, size_t size, struct lora_segments *segments,
				      struct lora_error *err);

/* --- components ------------------------------------------------------------------- */

enum lora_stage_kind {
	/* normalizers */
	LORA_STAGE_NFC,
	LORA_STAGE_NFD,
	LORA_STAGE_NFKC,
	LORA_STAGE_NFKD,
	LORA_STAGE_LOWERCASE,
	LORA_STAGE_STRIP_ACCENTS,
	LORA_STAGE_STRIP_SPACE,
	LORA_STAGE_PREPEND,
	/* pre-tokenizers, and decoders */
	LORA_STAGE_BYTE_LEVEL,
	LORA_STAGE_SPLIT,
	LORA_STAGE_DIGITS,
	LORA_STAGE_METASPACE,
	LORA_STAGE_REPLACE, /* a normalizer, too */
	/* decoders */
	LORA_STAGE_BYTE_FALLBACK,
	LORA_STAGE_FUSE,
	LORA_STAGE_STRIP,
};

enum lora_behavior {
	LORA_SPLIT_REMOVED,
	LORA_SPLIT_ISOLATED,
	LORA_SPLIT_PREVIOUS,
	LORA_SPLIT_NEXT,
	LORA_SPLIT_CONTIGUOUS,
};

enum lora_prepend { LORA_PREPEND_ALWAYS, LORA_PREPEND_FIRST, LORA_PREPEND_NEVER };

struct lora_stage {
	enum lora_stage_kind kind;
	enum lora_behavior behavior; /* SPLIT, DIGITS */
	enum lora_prepend prepend;   /* METASPACE */
	bool invert;		     /* SPLIT */
	bool prefix_space;	     /* BYTE_LEVEL */
	bool split;		     /* METASPACE */
	bool left, right;	     /* STRIP_SPACE */
	bool fused;		     /* decoders: what comes in is one token from start to end */
	uint64_t start;		     /* STRIP: at most so many characters */
	struct lora_regex *regex;    /* SPLIT, REPLACE, BYTE_LEVEL with one */
	const char *content;	     /* PREPEND, REPLACE, METASPACE, STRIP; in the arena */
	size_t length;		     /* of content */
};

struct lora_stages {
	struct lora_stage at[LORA_TOKENIZER_STAGES];
	size_t count;
};

/* What a component's reader needs: `json` is the component, `where` its name for messages. */
struct lora_reader {
	struct lora_arena *arena;
	struct lora_stages *stages;
	const struct lora_json *json;
	const char *where;
	const char *type;
	struct lora_error *err;
};

/* A kind of component: its reader appends stages. */
struct lora_component {
	const char *type;
	const char
	    *keys; /* all that it may have, separated by blanks; "type" goes without saying */
	enum lora_status (*read)(struct lora_reader *reader);
	enum lora_stage_kind kind;
};

/* Reads a component (null: none) or a Sequence of them, whose list stands under `list`. */
enum lora_status lora__stages_read(struct lora_reader *reader, const char *list,
				   const struct lora_component *known);
/* One more stage, zeroed but for its kind; NULL (and a message) if there are too many. */
struct lora_stage *lora__stage_add(struct lora_reader *reader, enum lora_stage_kind kind);
void lora__stages_fini(struct lora_stages *stages);
/* A required boolean; a string into the arena; a pattern, {"String": ...} or {"Regex": ...}. */
enum lora_status lora__read_bool(struct lora_reader *reader, const char *key, bool *value);
enum lora_status lora__read_content(struct lora_reader *reader, const char *key,
				    struct lora_stage *stage);
enum lora_status lora__read_pattern(struct lora_reader *reader, struct lora_stage *stage);
enum lora_status lora__read_character(struct lora_reader *reader, const char *key,
				      struct lora_stage *stage);
#define LORA_METASPACE_KEYS "replacement prepend_scheme split add_prefix_space str_rep"
enum lora_status lora__metaspace_read(struct lora_reader *reader, struct lora_stage *stage);
/* LORA_INPUT if `json` has a key that is not in `keys`. */
enum lora_status lora__check_keys(const struct lora_json *json, const char *keys, const char *where,
				  struct lora_error *err);

enum lora_status lora__normalizer_read(struct lora_stages *stages, struct lora_arena *arena,
				       const struct lora_json *json, struct lora_error *err);
enum lora_status lora__pre_tokenizer_read(struct lora_stages *stages, struct lora_arena *arena,
					  const struct lora_json *json, struct lora_error *err);
enum lora_status lora__decoder_read(struct lora_stages *stages, struct lora_arena *arena,
				    const struct lora_json *json, struct lora_error *err);

/* --- pairs of numbers (tokenizer_pairs.c) ----------------------------------------- */

struct lora_pair {
	uint64_t key;	   /* left << 32 | right; UINT64_MAX: empty */
	uint32_t rank, id; /* of a merge: its place in the file, what the two become */
};

struct lora_pairs {
	struct lora_pair *slots;
	uint64_t mask, seed;
};

/* Room for `most` pairs; there never is more. */
enum lora_status lora__pairs_init(struct lora_pairs *pairs, size_t most, struct lora_error *err);
void lora__pairs_fini(struct lora_pairs *pairs);
/* Replaces what the pair had. */
void lora__pairs_put(struct lora_pairs *pairs, uint32_t left, uint32_t right, uint32_t rank,
		     uint32_t id);
const struct lora_pair *lora__pairs_find(const struct lora_pairs *pairs, uint32_t left,
					 uint32_t right);

/* --- the model (tokenizer_vocab.c, tokenizer_bpe.c) ------------------------------- */

/* Characters below this have a table; the printable forms of all bytes are among them. */
#define LORA_BPE_DIRECT 0x180u

struct lora_bpe {
	struct lora_map ids; /* spelling -> id, of the model's own tokens */
	struct lora_token {
		const char *text; /* NULL: no such token */
		size_t length;
		bool special;
	} * tokens;		  /* by id, added ones too */
	uint32_t room;		  /* ids are below this */
	uint32_t count, in_model; /* tokens, and those that are not only added */
	struct lora_pairs merges;
	uint32_t direct[LORA_BPE_DIRECT];
	uint32_t byte[256]; /* "<0x41>" and so on; used with byte_fallback */
	bool byte_fallback, fuse_unk, ignore_merges, has_unk;
	uint32_t unk; /* with has_unk: LORA_TOKEN_NONE if the vocabulary lacks it */
};

struct lora_symbol {
	uint32_t id; /* LORA_TOKEN_NONE: merged into the one before */
	uint32_t previous, next;
};

struct lora_candidate {
	uint64_t order; /* rank << 32 | position */
	uint32_t id;
};

/* Room for one word, kept from word to word. */
struct lora_bpe_work {
	struct lora_symbol *symbols;
	size_t count, capacity;
	struct lora_candidate *heap;
	size_t heap_count, heap_capacity;
	uint64_t steps; /* comparisons of candidates so far: the measure of the work done */
};

enum lora_status lora__bpe_read(struct lora_bpe *bpe, struct lora_arena *arena,
				const struct lora_json *model, struct lora_error *err);
void lora__bpe_fini(struct lora_bpe *bpe);
/* Gives an id its spelling (borrowed); LORA_INPUT if the id has one, or is too high. */
enum lora_status lora__bpe_name(struct lora_bpe *bpe, uint64_t id, const char *text, size_t length,
				struct lora_error *err);
/* Appends the tokens of one word (valid UTF-8, not empty). */
enum lora_status lora__bpe_encode(const struct lora_bpe *bpe, struct lora_bpe_work *work,
				  const char *word, size_t length, struct lora_tokens *tokens,
				  struct lora_error *err);
void lora__bpe_work_fini(struct lora_bpe_work *work);
enum lora_status lora__tokens_add(struct lora_tokens *tokens, uint32_t id, struct lora_error *err);

/* --- added tokens (tokenizer_added.c) --------------------------------------------- */

struct lora_added {
	const char *content;
	size_t length;
	uint32_t id;
	bool single_word, lstrip, rstrip, normalized, special;
};

struct lora_trie {
	struct lora_pairs edges; /* (node, byte) -> node; node 0 is the root */
	uint32_t *tokens;	 /* by node: index of the token that ends there, or UINT32_MAX */
	uint32_t count;		 /* nodes */
	bool begins[256];
};

struct lora_added_set {
	struct lora_map places; /* content -> index in `at` */
	struct lora_added *at;
	uint32_t count;
	uint32_t next;			/* the highest id among them, and 1 */
	struct lora_trie plain, normal; /* as spelled; as normalized */
	struct lora_regex *word; /* one character of a word; NULL if nothing is single_word */
};

/* Texts in which special tokens are not looked for: ascending, apart. */
struct lora_span {
	size_t begin, end;
};

struct lora_added_search {
	const struct lora_added_set *set;
	const struct lora_trie *trie;
	struct lora_matcher *matcher;
	bool literal;		       /* special tokens are ordinary text */
	const struct lora_span *spans; /* ... or only where they touch one of these */
	size_t span_count;
	bool places;		      /* texts are as they came: origins are places in them */
	bool later;		      /* the text is no text's beginning */
	struct lora_origins *origins; /* filled in if it is not NULL */
};

enum lora_status lora__added_read(struct lora_added_set *set, struct lora_bpe *bpe,
				  struct lora_arena *arena, const struct lora_json *json,
				  struct lora_error *err);
/* Puts them where they will be searched for: after the normalizer is known. */
enum lora_status lora__added_build(struct lora_added_set *set, struct lora_bpe *bpe,
				   struct lora_arena *arena, const struct lora_stages *normalizer,
				   struct lora_error *err);
/* The added token with this content, or NULL. */
const struct lora_added *lora__added_find(const struct lora_added_set *set, const char *content,
					  size_t length);
void lora__added_fini(struct lora_added_set *set);
/* Cuts text[0 .. size) into pieces of `to`: added tokens, and what is between them. */
enum lora_status lora__added_cut(const struct lora_added_search *search, const char *text,
				 size_t size, bool first, struct lora_pieces *to,
				 struct lora_error *err);

/* --- all of it -------------------------------------------------------------------- */

struct lora_tokenizer {
	struct lora_arena arena;
	struct lora_bpe bpe;
	struct lora_added_set added;
	struct lora_stages normalizer, pre_tokenizer, decoder;
	struct lora_tokens before, after; /* the post-processor's */
	uint32_t special[4];		  /* by enum lora_token_role */
	bool spaced;			  /* without a decoder: blanks between tokens */
	const char *chat_template;
};

/* The bytes of a tokenizer's files; NULL for one that is not there. */
struct lora_tokenizer_files {
	const char *tokenizer, *config, *special, *chat;
	size_t tokenizer_size, config_size, special_size, chat_size;
};

/* A pure function of bytes. */
enum lora_status lora__tokenizer_parse(struct lora_tokenizer **out,
				       const struct lora_tokenizer_files *files,
				       struct lora_error *err);
/* "post_processor": what stands around a text. */
enum lora_status lora__post_processor_read(struct lora_tokenizer *tokenizer,
					   const struct lora_json *json, struct lora_error *err);

/* Room for one encoding. */
struct lora_work {
	struct lora_matcher *matcher;
	struct lora_pieces pieces, other;
	struct lora_buffer text, spare;
	struct lora_segments segments;
	struct lora_bpe_work bpe;
	int32_t *codes; /* normalizing: code points */
	size_t code_capacity;
};

enum lora_status lora__work_init(struct lora_work *work, struct lora_error *err);
void lora__work_fini(struct lora_work *work);
/* Normalizes text[0 .. size); *out and *out_size are in the work's buffers. */
enum lora_status lora__normalize(const struct lora_stages *stages, struct lora_work *work,
				 const char *text, size_t size, const char **out, size_t *out_size,
				 struct lora_error *err);
/* work->pieces through one pre-tokenizer. */
enum lora_status lora__split(const struct lora_stage *stage, struct lora_work *work,
			     struct lora_error *err);
/* lora_tokenizer_encode(), with special tokens out of sight where `spans` are. */
enum lora_status lora__tokenizer_encode(const struct lora_tokenizer *tokenizer,
					struct lora_added_search *search, const char *text,
					size_t length, unsigned flags, struct lora_tokens *tokens,
					struct lora_error *err);

#endif
