#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# frame_complete - what the completions offer, asked as the shells ask them.
. "${SRC:?the repository}/tests/cli/lib.sh" || exit 1

# --- bash: the words on the line, the last of which is being typed -> what is offered
. "$SRC/completions/loractl.bash"

offers() # WANTED WORD...
{
	COMP_WORDS=("${@:2}")
	COMP_CWORD=$(($# - 2))
	COMPREPLY=()
	_loractl 2>/dev/null
	[ "${COMPREPLY[*]}" = "$1" ] || fail "bash: [${*:2}] gives '${COMPREPLY[*]}', not '$1'"
}

mapfile -t names < <(commands)
allowing=$("$LORACTL" merge -h | sed -nE 's/^ {6}(--allow-[a-z-]+).*/\1/p' | xargs)
mkdir 'a b' && touch file.safetensors
offers "${names[*]}" loractl ''
offers 'merge' loractl m
offers 'merge' loractl --threads 2 m
offers 'auto always never' loractl --color ''
offers '--version' loractl --vers
offers 'f32 f16 bf16' loractl merge --dtype ''
offers 'bf16' loractl merge --dtype = b
offers 'f32 f16 bf16' loractl merge --dtype =
offers "$allowing" loractl merge base --allow
offers '' loractl merge --threads ''
offers 'a b' loractl merge a
offers 'a b' loractl merge base adapter -o a
offers 'file.safetensors' loractl inspect --base f
offers 'vllm' loractl -q inspect x --for v
offers 'inspect' loractl help i
offers '' loractl help --js

# --- fish
if command -v fish >/dev/null; then
	fish_offers() # WANTED LINE
	{
		local got

		got=$(fish --no-config -c "source '$SRC/completions/loractl.fish'; complete -C '$2'" | cut -f1 |
			LC_ALL=C sort | tr '\n' ' ')
		[ "$got" = "$1 " ] || fail "fish: [$2] gives '$got', not '$1'"
	}
	fish --no-execute "$SRC/completions/loractl.fish" || fail "fish does not parse its completion"
	fish_offers "$(printf '%s\n' "${names[@]}" | LC_ALL=C sort | xargs)" 'loractl '
	fish_offers "$(tr ' ' '\n' <<<"$allowing" | LC_ALL=C sort | xargs)" 'loractl merge base --allow'
	fish_offers 'bf16 f16 f32' 'loractl merge --dtype '
	fish_offers 'inspect' 'loractl help i'
fi

# --- zsh: it parses; what it offers needs a terminal
if command -v zsh >/dev/null; then
	zsh -n "$SRC/completions/_loractl" || fail "zsh does not parse its completion"
	head -n 1 "$SRC/completions/_loractl" | grep -qx '#compdef loractl' || fail "no #compdef line"
fi

expect_only 'a b' file.safetensors
