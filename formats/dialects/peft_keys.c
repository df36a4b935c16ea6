/* SPDX-License-Identifier: Apache-2.0 */
/* formats/dialects/peft_keys.c - what a tensor of the adapter is, from its name.
 *
 *	name	  = [ "base_model.model." ] path "." suffix
 *	suffix	  = ("lora_A" | "lora_B") ["." adapter] ".weight"		path is the module
 *		  | "lora_B" ["." adapter] ".bias"
 *		  | ("lora_embedding_A" | "lora_embedding_B") ["." adapter]
 *		  | "lora_magnitude_vector" ["." adapter] [".weight"]
 *		  | "token_adapter.trainable_tokens_delta" ["." adapter]
 *		  | anything else: a whole tensor, whose path is the name itself
 *
 * 1. `adapter` is the name that PEFT takes out when it saves; other tools leave it in. One file
 *    holds one adapter.
 * 2. A component "base_layer" is PEFT's wrapper. At the end of a module's path it counts (several
 *    parameters of one module nest: depth 0 is the outermost); inside, the part before it is the
 *    module that was targeted (a MultiheadAttention's out_proj). In a whole tensor's name it is
 *    only removed, as are "modules_to_save" "." adapter and "token_adapter".
 * 3. A component that begins with "lora_" and fits nowhere above is of a kind that we do not
 *    know: refused, not passed over. */
#include "formats/dialects/peft.h"

#include "base/error.h"

#include <stdlib.h>
#include <string.h>

static bool has_prefix(const char *text, const char *prefix)
{
	return !strncmp(text, prefix, strlen(prefix));
}

/* If `text` is "" or ".NAME" with one component: true, and its name. */
static bool is_adapter(const char *text, const char **adapter)
{
	*adapter = NULL;
	if (!*text)
		return true;
	*adapter = text + 1;
	return *text == '.' && text[1] && !strchr(text + 1, '.');
}

/* If `text` is [".NAME"] `end`: true, and the name, copied. */
static bool is_adapter_and(struct lora_arena *arena, const char *text, const char *end,
			   const char **adapter)
{
	size_t length = strlen(text), tail = strlen(end);

	*adapter = NULL;
	if (length < tail || strcmp(text + length - tail, end) != 0)
		return false;
	length -= tail;
	if (length == 0)
		return true;
	if (*text != '.' || length < 2 || memchr(text + 1, '.', length - 1))
		return false;
	*adapter = lora__arena_copy(arena, text + 1, length - 1);
	return *adapter != NULL;
}

/* Does `at` begin with the component `word`? Then what follows it, else NULL. */
static const char *after(const char *at, const char *word)
{
	size_t length = strlen(word);

	if (strncmp(at, word, length) != 0 || (at[length] && at[length] != '.'))
		return NULL;
	return at + length;
}

/* The role of the suffix that begins at `at`; PEFT_WHOLE if it is none. */
static enum peft_role role_at(struct lora_arena *arena, const char *at, const char **adapter)
{
	const char *rest;

	*adapter = NULL;
	if ((rest = after(at, "lora_A")) || (rest = after(at, "lora_B"))) {
		bool is_b = at[5] == 'B';

		if (is_adapter_and(arena, rest, ".weight", adapter))
			return is_b ? PEFT_B : PEFT_A;
		return is_b && is_adapter_and(arena, rest, ".bias", adapter) ? PEFT_B_BIAS
									     : PEFT_OTHER;
	}
	if ((rest = after(at, "lora_embedding_A")) || (rest = after(at, "lora_embedding_B"))) {
		if (!is_adapter(rest, adapter))
			return PEFT_OTHER;
		return at[15] == 'B' ? PEFT_EMBEDDING_B : PEFT_EMBEDDING_A;
	}
	if ((rest = after(at, "lora_magnitude_vector")))
		return !strcmp(rest, ".weight") || is_adapter(rest, adapter) ||
			       is_adapter_and(arena, rest, ".weight", adapter)
			   ? PEFT_MAGNITUDE
			   : PEFT_OTHER;
	if ((rest = after(at, "token_adapter")))
		rest = after(*rest ? rest + 1 : rest, "trainable_tokens_delta");
	if (rest)
		return is_adapter(rest, adapter) ? PEFT_TOKENS : PEFT_OTHER;
	return has_prefix(at, "lora_") ? PEFT_OTHER : PEFT_WHOLE;
}

/* Takes the components "base_layer" out of `path`, in place. *depth counts those at its end; the
 * length of what stands before the first that is not there goes to *owner (the whole length if
 * there is none). Returns the number taken out. */
static unsigned unwrap(char *path, unsigned *depth, size_t *owner)
{
	static const char word[] = "base_layer";
	const size_t length = sizeof(word) - 1;
	unsigned taken = 0;
	char *in = path, *out = path;

	*depth = 0;
	*owner = SIZE_MAX;
	while (*in) {
		size_t size = strcspn(in, ".");

		if (size == length && !memcmp(in, word, length) && out != path) {
			taken++;
			++*depth;
		} else {
			if (*depth && *owner == SIZE_MAX)
				*owner = (size_t)(out - path);
			*depth = 0;
			if (out != path)
				*out++ = '.';
			memmove(out, in, size);
			out += size;
		}
		in += size;
		in += *in == '.';
	}
	*out = 0;
	if (*owner == SIZE_MAX)
		*owner = strlen(path);
	return taken;
}

/* Removes PEFT's other wrappers from a whole tensor's path, in place: "modules_to_save." with the
 * adapter's name after it, if one is there, and "token_adapter.". */
static void drop_wrappers(char *path)
{
	static const char saved[] = ".modules_to_save.", tokens[] = ".token_adapter.";
	char *at = strstr(path, saved), *rest, *dot;

	if (at) {
		rest = at + sizeof(saved) - 1;
		dot = strchr(rest, '.');
		if (dot)
			rest = dot + 1;
		memmove(at + 1, rest, strlen(rest) + 1);
	}
	at = strstr(path, tokens);
	if (at) {
		rest = at + sizeof(tokens) - 1;
		memmove(at + 1, rest, strlen(rest) + 1);
	}
}

static enum lora_status parse_whole(struct peft_key *out, struct lora_arena *arena,
				    const char *name, struct lora_error *err)
{
	char *path = lora__arena_copy(arena, name, strlen(name));
	unsigned depth;
	size_t owner;

	if (!path)
		return lora__fail_memory(err);
	out->role = PEFT_WHOLE;
	out->wrapped = unwrap(path, &depth, &owner) > 0;
	drop_wrappers(path);
	out->path = out->owner = path;
	return LORA_OK;
}

enum lora_status lora__peft_key_parse(struct peft_key *out, struct lora_arena *arena,
				      const char *name, struct lora_error *err)
{
	enum peft_role role = PEFT_WHOLE;
	const char *at, *adapter;
	size_t owner;
	char *path;

	*out = (struct peft_key){PEFT_WHOLE, NULL, NULL, NULL, 0, false};
	if (has_prefix(name, PEFT_PREFIX))
		name += strlen(PEFT_PREFIX);
	/* A module may be called like one of PEFT's own: the last place that is one counts. */
	for (at = name + strlen(name); at > name && role == PEFT_WHOLE;) {
		do
			at--;
		while (at > name && at[-1] != '.');
		role = role_at(arena, at, &adapter);
	}
	if (role == PEFT_WHOLE)
		return parse_whole(out, arena, name, err);
	if (at == name)
		return lora__fail(err, LORA_INPUT, "tensor '%s' names no module",
				  lora__escape(name));
	out->role = role;
	out->adapter = adapter;
	path = lora__arena_copy(arena, name, (size_t)(at - name) - 1);
	if (!path)
		return lora__fail_memory(err);
	unwrap(path, &out->depth, &owner);
	out->path = path;
	out->owner = lora__arena_copy(arena, path, owner);
	return out->owner ? LORA_OK : lora__fail_memory(err);
}
