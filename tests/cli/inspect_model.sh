#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# inspect_model - what a base, a merged model, a single file is; several paths; what is none of them.
. "${SRC:?the repository}/tests/cli/merge_checks.sh" || exit 1
copies llama llama-adapter gpt2 gpt2-adapter
cp -r llama shards
edit shards shards 3
root=$(tools root llama)

# --- a base

done_reading "$LORACTL" inspect llama
expect_stdout 'base'
expect_stdout 'LlamaForCausalLM'
expect_stdout '466,?110'
expect_stdout 'BF16'
expect_stdout "$root"
expect_empty "$ERR"
done_reading "$LORACTL" inspect llama --json
expect_json 'x["schema"], x["kind"]' "('loractl.inspect/1', 'base')"
expect_json 'x["architecture"]' LlamaForCausalLM
expect_json 'x["parameters"]' 466110
case $(tools get "$OUT" 'x["bytes"]') in
932220 | "$(stat -c %s llama/model.safetensors)") ;;
*) fail "bytes: $(tools get "$OUT" 'x["bytes"]')" ;;
esac
expect_json 'x["root"]' "$root"
expect_json '"BF16" in json.dumps(x["dtypes"])' True
expect_json 'len(x["shards"])' 1
# Shards, order and metadata are no part of the root; names, types, shapes and bytes are.
done_reading "$LORACTL" inspect shards --json
expect_json 'x["root"]' "$root"
expect_json 'len(x["shards"])' 3
expect_json 'x["parameters"]' 466110
cp -r llama other
edit reverse other/model.safetensors
edit metadata other/model.safetensors
done_reading "$LORACTL" inspect other --json
expect_json 'x["root"]' "$root"
for change in 'poke other/model.safetensors model.norm.weight 3 0.125' 'shape other/model.safetensors model.norm.weight 10,9' \
	'rename other/model.safetensors model.norm.weight model.norm2.weight' 'cast other/model.safetensors F32 q_proj' \
	'drop other/model.safetensors lm_head.weight' 'keep other/model.safetensors norm' 'keep other/model.safetensors nothing'; do
	before=$(tools root other)
	# shellcheck disable=SC2086
	edit $change
	[ "$(tools root other)" != "$before" ] || fail "the test's own root is the same: $change"
	done_reading "$LORACTL" inspect other --json
	expect_json 'x["root"]' "$(tools root other)"
done
rm -r other
# The digests are remembered: the same answer, and a new one for a file of the same size and time.
done_reading "$LORACTL" inspect llama --json
expect_json 'x["root"]' "$root"
cp -rp llama other
done_reading "$LORACTL" inspect other --json
edit poke other/model.safetensors model.norm.weight 3 0.125
touch -r llama/model.safetensors other/model.safetensors
done_reading "$LORACTL" inspect other --json
expect_json 'x["root"]' "$(tools root other)"
# What is remembered may be damaged: it is never believed, and never in the way.
find "$XDG_CACHE_HOME/loractl" -type f | while read -r file; do
	head -c 100 "$file" >"$file.short"
	mv "$file.short" "$file"
done
done_reading "$LORACTL" inspect llama --json
expect_json 'x["root"]' "$root"
rm -r other
done_reading "$LORACTL" inspect llama --tensors
expect_equal "$(grep -c '\.weight ' "$OUT")" 39
expect_stdout 'layers\.3\.mlp\.down_proj\.weight .*BF16.*90, ?250'
done_reading "$LORACTL" inspect llama/model.safetensors --json
expect_json 'x["kind"], x["root"]' "('base', '$root')"
done_reading "$LORACTL" inspect llama/ --threads 3

# --- a merged model

"$LORACTL" merge -q llama llama-adapter -o merged >"$OUT" || fail "exit $?"
"$LORACTL" merge -q llama/model.safetensors llama-adapter -o merged.safetensors >"$OUT" || fail "exit $?"
for path in merged merged.safetensors; do
	done_reading "$LORACTL" inspect $path
	expect_stdout 'merged'
	done_reading "$LORACTL" inspect $path --json
	expect_json 'x["kind"]' merged
	expect_json 'x["root"]' "$(tools root $path)"
	expect_json 'x["parameters"]' 466110
done

# A receipt is believed of what it describes, not by its name.
cp -r llama stale
cp merged/loractl-receipt.json stale
cp llama/model.safetensors stale.safetensors
echo '{}' >stale.safetensors.receipt.json
for path in stale stale.safetensors; do
	[ $path != stale ] || edit add stale/model.safetensors more.weight F32 3 1
	done_reading "$LORACTL" inspect $path --json
	expect_json 'x["kind"], len(x["problems"])' "('base', 1)"
	expect_json '"does not describe" in x["problems"][0]' True
	done_reading "$LORACTL" inspect $path
	expect_stdout 'problem .*receipt.* does not describe'
done
done_reading "$LORACTL" inspect merged --json
expect_json 'x["problems"]' '[]'
rm -r stale*

# Quiet: errors only, and the JSON that was asked for.
done_reading "$LORACTL" inspect -q llama llama-adapter merged
expect_empty "$OUT" "$ERR"
done_reading "$LORACTL" inspect -q llama --json
expect_json 'x["kind"]' base

# --- several

done_reading "$LORACTL" inspect llama llama-adapter merged
for word in base adapter merged; do
	expect_stdout "$word"
done
done_reading "$LORACTL" inspect llama llama-adapter merged gpt2 --json
expect_json '[e["kind"] for e in x]' "['base', 'adapter', 'merged', 'base']"
expect_json '[e["schema"] for e in x].count("loractl.inspect/1")' 4
done_reading "$LORACTL" inspect llama llama --json
expect_json 'x[0] == x[1]' True

# --- none of them

# STATUS PATTERN ARGUMENT...: nothing on standard output, one line of error
none()
{
	refused "$1" "$2" soon "$LORACTL" inspect "${@:3}"
	refused "$1" "$2" soon "$LORACTL" inspect "${@:3}" --json
}

mkdir empty odd
mkfifo fifo
: >nothing-in-it
head -c 5000 /dev/urandom >noise
printf '{"a": 1}' >a.json
cp noise noise.safetensors
printf 'PK\3\4 a zip' >odd/pytorch_model.bin
cp llama/config.json odd
none 3 "'nothing'" nothing
none 3 "'empty'" empty
none 3 "'org/model' does not exist: .*(hub|cache)" org/model
none 3 "'fifo'" fifo
none 3 "'nothing-in-it'" nothing-in-it
none 3 "'noise'" noise
none 3 "'noise\.safetensors'" noise.safetensors
none 3 "'a\.json'" a.json
none 3 'pytorch_model\.bin|odd' odd
none 3 '/dev/zero' /dev/zero
none 3 '/dev/null' /dev/null
none 3 "''|empty" ''
none 3 "'llama/config\.json'" llama/config.json
none 3 "'llama/tokenizer\.json'" llama/tokenizer.json
ln -s loop loop
none '3|4' "'loop'" loop
head -c 1000 llama/model.safetensors >cut.safetensors
none 3 "'cut\.safetensors'" cut.safetensors
mkdir cut
cp llama/config.json cut
head -c 900000 llama/model.safetensors >cut/model.safetensors
none 3 'model\.safetensors' cut
rm shards/model-00002-of-00003.safetensors
none 3 'model-00002-of-00003' shards
run "$LORACTL" inspect llama nothing llama-adapter # one of several
expect_equal "$STATUS" 3
expect_one_error "'nothing'"
if can_bind; then
	chmod 000 noise empty
	refused 4 "'noise'" bound_by_permissions "$LORACTL" inspect noise
	refused 4 "'empty['/]" bound_by_permissions "$LORACTL" inspect empty
	chmod 755 noise empty
fi

# --- a reader who has left, a full disk

expect_exit 4 bash -c '"$0" inspect llama >/dev/full' "$LORACTL"
expect_one_error 'cannot write the result'
"$LORACTL" inspect llama llama-adapter --tensors 2>"$ERR" | true
expect_equal "${PIPESTATUS[0]}" 0
expect_empty "$ERR"
