#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# generate - a continued text: the greedy ones of tests/data/README.md, which transformers made; sampling, limits, chats; and
# prompts that cannot be continued.
. "${SRC:?the repository}/tests/cli/merge_checks.sh" || exit 1
copies llama llama-adapter gpt2 gpt2-adapter

# TEXT ARGUMENT...: standard output begins with it.
expect_text()
{
	expect_exit 0 "$LORACTL" generate -q "${@:2}"
	case $(cat "$OUT") in "$1"*) ;; *) fail "not '$1': $(cat "$OUT")" ;; esac
}

# --- the table of tests/data/README.md

expect_text ' found a green dog near the mill in the morning.' llama --prompt 'The king' -n 40
expect_text ' so small did conceal a cart so quiet afore yon mill at morn;' llama --adapter llama-adapter --prompt 'The king' -n 40
expect_text ' found a quiet cart near the well in the morning.' gpt2 --prompt 'The king' -n 40
expect_text ' so small came upon a cart so green beneath yon harbour at eventide;' gpt2 --adapter gpt2-adapter --prompt 'The king' -n 40
expect_empty "$ERR"
# The same on one thread and with temperature 0; the whole of it is one line here.
cp "$OUT" greedy
expect_exit 0 "$LORACTL" generate -q gpt2 --adapter gpt2-adapter --prompt 'The king' -n 40 --threads 1 --temperature 0 --seed 5
expect_same "$OUT" greedy
[ "$(tail -c 1 greedy | od -An -tx1)" = ' 0a' ] || fail 'no newline at the end'

# --- limits

expect_exit 0 "$LORACTL" generate -q llama --prompt 'The king' -n 1
one=$(cat "$OUT")
expect_exit 0 "$LORACTL" generate -q llama --prompt 'The king' -n 2
case $(cat "$OUT") in "$one"?*) ;; *) fail "two tokens do not begin with the first" ;; esac
# More tokens than positions: the text ends there, or at its own end.
expect_exit 0 "$LORACTL" generate -q llama --prompt 'The king' -n 10000
# A token that ends the text, from either config: here the first one that is made.
id=$(python3 -c '
import json
vocabulary = json.load(open("llama/tokenizer.json"))["model"]["vocab"]
print(vocabulary["\u0120found"])' 2>/dev/null) || id=
if [ -n "$id" ]; then
	cp -r llama stops
	edit set_json stops/generation_config.json "eos_token_id=[1, $id]"
	expect_exit 0 "$LORACTL" generate -q stops --prompt 'The king' -n 5
	expect_equal "$(cat "$OUT")" ''
fi

# --- sampling

expect_exit 0 "$LORACTL" generate -q llama --prompt 'The king' -n 30 --temperature 1.2 --seed 7
cp "$OUT" seven
expect_exit 0 "$LORACTL" generate -q llama --prompt 'The king' -n 30 --temperature 1.2 --seed 7
expect_same "$OUT" seven
expect_exit 0 "$LORACTL" generate -q llama --prompt 'The king' -n 30 --temperature 1.2 --seed 8
! cmp -s "$OUT" seven || fail 'another seed gives the same text'
# A nucleus of one token, and next to no temperature, are greedy.
expect_exit 0 "$LORACTL" generate -q llama --prompt 'The king' -n 30
cp "$OUT" greedy
expect_exit 0 "$LORACTL" generate -q llama --prompt 'The king' -n 30 --temperature 1 --top-p 0.000001
expect_same "$OUT" greedy
expect_exit 0 "$LORACTL" generate -q llama --prompt 'The king' -n 30 --temperature 0.0001
expect_same "$OUT" greedy

# --- chats

expect_exit 0 "$LORACTL" generate -q llama --template plain --prompt 'The king' -n 5
expect_exit 0 "$LORACTL" generate -q llama --chat --template plain --prompt 'The king' -n 5

# --- a terminal is not obeyed: every token of this tokenizer is printed as text

if [ -z "$sanitized" ]; then
	run_on_terminal "$LORACTL" generate -q llama --prompt 'The king' -n 30 --temperature 50 --seed 3
	expect_plain "$OUT"
fi

# --- what cannot be continued

# STATUS PATTERN ARGUMENT...
not_generated()
{
	refused "$1" "$2" "$LORACTL" generate "${@:3}"
}

not_generated 2 '\-\-prompt' llama
not_generated 3 'no chat template: --template' llama --chat --prompt x
not_generated 2 "no template 'x'" llama --template x --prompt x
not_generated 3 'is one file' llama/model.safetensors --prompt x
long=$(for i in $(seq 80); do printf 'the king and the queen '; done)
not_generated 3 'the prompt has [0-9]+ tokens: this model has positions for 192' llama --prompt "$long"
not_generated 2 'temperature' llama --prompt x --temperature -1
not_generated 2 'top-p' llama --prompt x --top-p 1.5
not_generated 2 'top-p' llama --prompt x --top-p 0
not_generated 2 "option '-n'" llama --prompt x -n 0
cp -r llama m && rm m/tokenizer.json
not_generated 3 'tokenizer\.json' m --prompt x
