#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# merge_bound - an adapter that carries the root of its base is merged into that base, however it is cut into files,
# and into no other.
. "${SRC:?the repository}/tests/cli/merge_checks.sh" || exit 1
copies llama llama-adapter
mv llama base
mv llama-adapter bare
cp -r bare bound
root=$(tools root base)
printf '{"base_root": "%s"}\n' "$root" >bound/loractl.json
"$LORACTL" merge -q base bare -o want >"$OUT" || fail "exit $?"

# --- this base

done_well "$LORACTL" merge base bound -o out
! grep -q note "$ERR" || fail "a note, though the adapter is bound: $(cat "$ERR")"
expect_same out/model.safetensors want/model.safetensors
[ ! -e out/loractl.json ] || fail "loractl.json got into the output"
rm -rf out
done_well "$LORACTL" merge -q base bound -o out --require-bound
expect_same out/model.safetensors want/model.safetensors
rm -rf out
# More than the root may stand there; the order, the shards and the file do not count.
printf '{"schema": "loractl.train/1", "settings": {"lr": 2e-4}, "base_root": "%s", "loss": [1, 0.5]}' "$root" >bound/loractl.json
cp -r base other
edit reverse other/model.safetensors
edit metadata other/model.safetensors a=b
edit shards other 3
done_well "$LORACTL" merge -q other bound -o out --require-bound
judged same_tensors want out
rm -rf out
done_well "$LORACTL" merge -q base/model.safetensors bound -o out --require-bound
rm -rf out out.receipt.json other
done_well "$LORACTL" merge -q base bound/adapter_model.safetensors -o out --require-bound
rm -rf out

# --- no binding

done_well "$LORACTL" merge base bare -o out
expect_stderr '^loractl merge: note: .*bare'
rm -rf out
refused 1 "'bare'" "$LORACTL" merge base bare -o out --require-bound
refused 1 "'bare'" "$LORACTL" merge base bound bare -o out --require-bound
refused 1 "'bare'" "$LORACTL" merge base bound bare --dry-run --require-bound
echo '{}' >bare/loractl.json
refused '1|3' 'bare' "$LORACTL" merge base bare -o out --require-bound
rm bare/loractl.json

# --- another base: refused always, the first tensor that differs is named where it can be told

# NAME EDIT...: a base that differs in one thing
differs()
{
	rm -rf other
	cp -r base other
	edit "$1" other/model.safetensors "${@:2}"
	refused 1 'bound' "$LORACTL" merge other bound -o out
	refused 1 'bound' "$LORACTL" merge -q other bound -o out --require-bound
	refused 1 'bound' "$LORACTL" merge other bound --dry-run
}

differs poke model.norm.weight 89 0.125 # no adapter touches it
differs poke model.layers.3.mlp.up_proj.weight 0 0.125
differs rename model.norm.weight model.norm2.weight
differs add model.more F32 1 0
differs shape model.norm.weight 9,10
rm -rf other
zeros=$(printf '0%.0s' {1..64})
printf '{"base_root": "%s"}' "$zeros" >bound/loractl.json
refused 1 'bound' "$LORACTL" merge base bound -o out
for option in --allow-unmatched --allow-unknown --allow-noop --allow-mutated-base --force; do
	refused 1 'bound' "$LORACTL" merge base bound -o out $option
done

# --- malformed: never taken for no binding

for text in '' '{' '[]' '"x"' "{\"base_root\": \"${root:1}\"}" "{\"base_root\": \"${root}0\"}" "{\"base_root\": \"g${root:1}\"}" \
	'{"base_root": 3}' '{"base_root": ""}' "{\"base_root\": [\"$root\"]}" "{\"base_root\": \"$root\"} x" \
	"{\"base_root\": \"$zeros\", \"base_root\": \"$root\"}" "$(printf '{"base_root": "\xff"}')"; do
	printf %s "$text" >bound/loractl.json
	refused 3 'loractl\.json' "$LORACTL" merge base bound -o out
	refused 3 'loractl\.json' "$LORACTL" merge base bound -o out --require-bound
done
rm bound/loractl.json
mkdir bound/loractl.json
refused '3|4' 'loractl\.json' "$LORACTL" merge base bound -o out
rmdir bound/loractl.json
printf '{"base_root": "%s"}' "$root" >bound/loractl.json
if can_bind; then
	chmod 000 bound/loractl.json
	refused 4 'loractl\.json' bound_by_permissions "$LORACTL" merge base bound -o out
fi
