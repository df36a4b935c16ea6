/* SPDX-License-Identifier: Apache-2.0 */
/* adapter/resolve.c - laying an adapter over a base: the base's own names decide.
 *
 * 1. Names are looked up as the adapter spells them, after the key map. A pair (from, to) of the
 * map replaces a whole wanted name, or the module's path in front of it; what it gives is final.
 * The pair with the longest `from` wins.
 * 2. If tensors stay unmatched, one leading component is added to all other names, or taken from
 * all that have it: model., transformer., base_model.model., and those with which the base's names
 * begin, or the unmatched ones. The choice is taken when it is the only one that leaves nothing
 * unmatched, and it is reported.
 * 3. A choice under which the adapter contradicts the base is no choice. Contradictions of names as
 * spelled are the answer.
 * 4. Whatever the dialect says, lora__decode_check() counts once more.
 */
#include "adapter/adapter.h"

#include "adapter/nearest.h"
#include "base/digest.h"
#include "base/error.h"
#include "base/watch.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CHOICE_LIMIT 64u /* leading components that are tried; a model has three or four */

struct renamer {
	char **key_map; /* pairs, or NULL */
	bool *used;	/* by pair */
	const char *add;
	const char *strip;
};

struct choice {
	const char *component; /* with its dot */
	bool strip;
};

static const char *without_prefix(const char *name)
{
	static const char prefix[] = "base_model.model.";

	return strncmp(name, prefix, sizeof(prefix) - 1) ? name : name + sizeof(prefix) - 1;
}

/* 1 */
static const char *mapped(struct renamer *renamer, struct lora_arena *arena, const char *name)
{
	size_t best = SIZE_MAX, longest = 0;

	for (size_t i = 0; renamer->key_map && renamer->key_map[i]; i += 2) {
		const char *from = without_prefix(renamer->key_map[i]);
		size_t length = strlen(from);

		if (length > longest && !strncmp(name, from, length) &&
		    (!name[length] || name[length] == '.')) {
			longest = length;
			best = i;
		}
	}
	if (best == SIZE_MAX)
		return NULL;
	renamer->used[best / 2] = true;
	return lora__arena_printf(arena, "%s%s", renamer->key_map[best + 1], name + longest);
}

static const char *rename_one(void *user, struct lora_arena *arena, const char *name)
{
	struct renamer *renamer = user;
	const char *to = mapped(renamer, arena, name);

	if (to)
		return to;
	if (renamer->add)
		return lora__arena_printf(arena, "%s%s", renamer->add, name);
	if (renamer->strip && !strncmp(name, renamer->strip, strlen(renamer->strip)))
		return name + strlen(renamer->strip);
	return name;
}

/* --- one attempt ----------------------------------------------------------------------------- */

struct attempt {
	struct lora_arena arena;
	struct lora_decode decode;
};

static void attempt_fini(struct attempt *attempt)
{
	lora__arena_fini(&attempt->arena);
	*attempt = (struct attempt){0};
}

static bool is_bound_to(const struct lora_adapter *adapter, const struct lora_model *base)
{
	return adapter->bound && base->digests_known &&
	       lora__sha256_equal(&adapter->bound_root, &base->root);
}

static enum lora_status try_names(struct attempt *attempt, const struct lora_adapter *adapter,
				  const struct lora_model *base, struct lora_base_view *view,
				  struct lora_error *err)
{
	enum lora_status status;

	*attempt = (struct attempt){0};
	attempt->decode = (struct lora_decode){.tensors = &adapter->index,
					       .config = adapter->config,
					       .base = view,
					       .allow_unknown = adapter->allow_unknown,
					       .allow_mutated_base = adapter->allow_mutated_base ||
								     is_bound_to(adapter, base),
					       .arena = &attempt->arena};
	status = adapter->dialect->decode(&attempt->decode, err);
	if (!status)
		status = lora__decode_check(&attempt->decode, err);
	attempt->decode.base = NULL; /* the view does not live as long as this */
	return status;
}

/* --- leading components ---------------------------------------------------------------------- */

struct choices {
	struct choice list[CHOICE_LIMIT];
	size_t count;
	struct lora_arena arena;
};

/* The component (to which `dot` belongs) once. */
static void add_choice(struct choices *choices, const char *name, size_t length, bool strip)
{
	for (size_t i = 0; i < choices->count; i++)
		if (choices->list[i].strip == strip &&
		    !strncmp(choices->list[i].component, name, length) &&
		    !choices->list[i].component[length])
			return;
	if (choices->count == CHOICE_LIMIT)
		return;
	choices->list[choices->count].component = lora__arena_copy(&choices->arena, name, length);
	choices->list[choices->count].strip = strip;
	choices->count += choices->list[choices->count].component != NULL;
}

static void add_first_component(struct choices *choices, const char *name, bool strip)
{
	const char *dot = name ? strchr(name, '.') : NULL;

	if (dot && dot != name)
		add_choice(choices, name, (size_t)(dot - name) + 1, strip);
}

static void gather_choices(struct choices *choices, const struct lora_decode *decode,
			   const struct lora_model *base)
{
	static const char *const usual[] = {"model.", "transformer.", "base_model.model.", NULL};

	for (size_t i = 0; usual[i]; i++) {
		add_choice(choices, usual[i], strlen(usual[i]), false);
		add_choice(choices, usual[i], strlen(usual[i]), true);
	}
	for (size_t i = 0; i < decode->unmatched_count; i++)
		add_first_component(choices, decode->unmatched[i].wanted, true);
	for (size_t i = 0; i < base->index.count; i++)
		add_first_component(choices, base->index.tensors[i].name, false);
}

/* Would the choice find the first name that was missing? It costs little, and spares most attempts.
 */
static bool is_promising(const struct choice *choice, const struct lora_decode *decode,
			 struct lora_base_view *view, struct renamer *renamer,
			 struct lora_arena *arena)
{
	for (size_t i = 0; i < decode->unmatched_count; i++) {
		if (!decode->unmatched[i].wanted)
			continue;
		renamer->add = choice->strip ? NULL : choice->component;
		renamer->strip = choice->strip ? choice->component : NULL;
		return lora__base_find(view, arena, decode->unmatched[i].wanted).tensor !=
		       LORA_NO_TENSOR;
	}
	return false;
}

/* 2, 3. *best is what `as_spelled` was, or the one choice that resolves everything. */
static enum lora_status try_choices(struct attempt *best, const char **prefix,
				    struct lora_adapter *adapter, const struct lora_model *base,
				    struct lora_base_view *view, struct lora_error *err)
{
	struct renamer *renamer = view->rename_user;
	enum lora_status status = LORA_OK;
	struct choices choices = {0};
	struct attempt only = {0};
	size_t resolving = 0, which = 0;

	gather_choices(&choices, &best->decode, base);
	for (size_t i = 0; i < choices.count && !status; i++) {
		struct lora_error ignored = LORA_ERROR_INIT;
		struct attempt next;

		if (!is_promising(&choices.list[i], &best->decode, view, renamer, &choices.arena))
			continue;
		status = try_names(&next, adapter, base, view, &ignored);
		if (status == LORA_INPUT || next.decode.unmatched_count) {
			status = LORA_OK;
			attempt_fini(&next);
		} else if (status) {
			attempt_fini(&next);
			*err = ignored;
		} else if (resolving++ == 0) {
			only = next;
			which = i;
		} else {
			attempt_fini(&next);
		}
	}
	if (resolving == 1 && !status) {
		struct attempt old = *best;

		*best = only;
		only = old;
		*prefix = lora__arena_printf(
		    &best->arena, choices.list[which].strip ? "stripped '%s'" : "added '%s'",
		    lora__escape(choices.list[which].component));
		if (!*prefix)
			status = lora__fail_memory(err);
	}
	attempt_fini(&only);
	lora__arena_fini(&choices.arena);
	return status;
}

/* --- the whole ------------------------------------------------------------------------------- */

static void report(const struct lora_resolved *out, const struct lora_adapter *adapter,
		   const struct attempt *attempt, const bool *used,
		   const struct lora_observer *observer)
{
	const struct lora_decode *decode = &attempt->decode;
	const char *name = adapter->name;

	for (size_t i = 0; i < decode->note_count; i++)
		lora__note(observer, decode->notes[i].level, "%s: %s", lora__escape(name),
			   decode->notes[i].line);
	if (decode->mutated_by)
		lora__note(observer, LORA_NOTE_WARNING,
			   "%s: init_lora_weights '%s' changed the base at training: this base is "
			   "taken to be that one",
			   lora__escape(name), lora__escape(decode->mutated_by));
	if (out->prefix)
		lora__note(observer, LORA_NOTE_INFO, "%s: %s to fit the base's names",
			   lora__escape(name), out->prefix);
	for (size_t i = 0; adapter->key_map && adapter->key_map[2 * i]; i++)
		if (!used[i])
			lora__note(observer, LORA_NOTE_WARNING,
				   "%s: the key map's '%s' is nothing that the adapter asks for",
				   lora__escape(name), lora__escape(adapter->key_map[2 * i]));
}

static size_t pair_count(const struct lora_adapter *adapter)
{
	size_t count = 0;

	while (adapter->key_map && adapter->key_map[count])
		count++;
	return count / 2;
}

enum lora_status lora__adapter_resolve(struct lora_resolved *out, struct lora_adapter *adapter,
				       const struct lora_model *base,
				       const struct lora_observer *observer, struct lora_error *err)
{
	struct renamer renamer = {.key_map = adapter->key_map};
	struct lora_base_view view = {.index = &base->index,
				      .config = base->config,
				      .model_type = lora_model_type(base),
				      .rename = rename_one,
				      .rename_user = &renamer};
	struct lora_error local = LORA_ERROR_INIT;
	struct attempt attempt = {0};
	enum lora_status status;

	*out = (struct lora_resolved){0};
	err = err ? err : &local;
	renamer.used = calloc(pair_count(adapter) + 1, sizeof(*renamer.used));
	status =
	    renamer.used ? try_names(&attempt, adapter, base, &view, err) : lora__fail_memory(err);
	if (!status && attempt.decode.unmatched_count)
		status = try_choices(&attempt, &out->prefix, adapter, base, &view, err);
	if (!status) {
		out->edits = attempt.decode.edits;
		out->edit_count = attempt.decode.edit_count;
		out->unmatched = attempt.decode.unmatched;
		out->unmatched_count = attempt.decode.unmatched_count;
		report(out, adapter, &attempt, renamer.used, observer);
		out->arena = attempt.arena;
		attempt.arena = (struct lora_arena){0};
	}
	attempt_fini(&attempt);
	free(renamer.used);
	return lora__context(err, status, "adapter '%s'", lora__escape(adapter->path));
}

void lora__resolved_fini(struct lora_resolved *resolved)
{
	lora__arena_fini(&resolved->arena);
	*resolved = (struct lora_resolved){0};
}

/* What one error line can hold beside the rest of it; more unmatched tensors are listed one a line.
 */
#define UNMATCHED_LINE 700

/* --- what found no place --------------------------------------------------------------------- */

void lora__unmatched_line(const struct lora_unmatched *unmatched, struct lora_nearest *nearest,
			  char *line)
{
	const char *wanted = unmatched->wanted, *close = NULL;
	size_t at;

	if (nearest && wanted)
		close = lora__nearest_find(nearest, wanted);
	if (close && !strcmp(close, wanted))
		close = NULL; /* it is there, and does not fit */
	at = (size_t)snprintf(line, LORA_ERROR_SIZE, "tensor '%s': %s",
			      lora__escape(unmatched->tensor), unmatched->why);
	if (close && at < LORA_ERROR_SIZE)
		snprintf(line + at, LORA_ERROR_SIZE - at, "; the closest is '%s'",
			 lora__escape(close));
}

/* All of them in one line if they are few enough for it: the bytes that it would take, at most
 * `size`. */
static size_t join_unmatched(const struct lora_resolved *resolved, struct lora_nearest *nearest,
			     char *out, size_t size)
{
	char line[LORA_ERROR_SIZE];
	size_t at = 0;

	for (size_t i = 0; i < resolved->unmatched_count && at < size; i++) {
		lora__unmatched_line(&resolved->unmatched[i], nearest, line);
		at += (size_t)snprintf(out + at, size - at, "%s%s", i ? "; " : "", line);
	}
	return at < size ? at : size;
}

enum lora_status lora__adapter_refuse_unmatched(const struct lora_resolved *resolved,
						const struct lora_adapter *adapter,
						const struct lora_model *base,
						const struct lora_observer *observer,
						struct lora_error *err)
{
	struct lora_nearest *nearest = NULL;
	enum lora_status status = lora__nearest_new(&nearest, &base->index, err);
	char line[LORA_ERROR_SIZE], all[UNMATCHED_LINE];
	bool listed;

	if (status)
		return status;
	listed = join_unmatched(resolved, nearest, all, sizeof(all)) == sizeof(all);
	for (size_t i = 0; i < resolved->unmatched_count && listed; i++) {
		lora__unmatched_line(&resolved->unmatched[i], nearest, line);
		lora__note(observer, LORA_NOTE_PROBLEM, "%s: %s", lora__escape(adapter->name),
			   line);
	}
	lora__nearest_free(nearest);
	return lora__fail(
	    err, LORA_INPUT,
	    "adapter '%s': %zu of its %zu tensors find no place in the base: %s: is it another "
	    "base? use --key-map FILE or --allow-unmatched",
	    lora__escape(adapter->path), resolved->unmatched_count, adapter->index.count,
	    listed ? "they are listed above" : all);
}
