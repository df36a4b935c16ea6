#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# diff - the command: its answers as exit status, text and JSON, and what it refuses. The numbers are judged by
# tests/interop/diff.py.
. "${SRC:?the repository}/tests/cli/merge_checks.sh" || exit 1
copies llama llama-adapter gpt2 gpt2-adapter

# STATUS ARGUMENT...: an answer, which is no failure: nothing on standard error, nothing changed.
answers()
{
	state >"$cli_folder/before"
	run "$LORACTL" diff "${@:2}"
	state >"$cli_folder/after"
	[ "$STATUS" -eq "$1" ] || fail "exit status $STATUS, not $1: diff ${*:2}: $(head -n 5 "$ERR")"
	expect_same "$cli_folder/before" "$cli_folder/after"
	expect_empty "$ERR"
	expect_plain "$OUT"
}

up=base_model.model.model.layers.1.mlp.up_proj

# --- two adapters

answers 0 llama-adapter llama-adapter
expect_stdout '^answer +the same$'
expect_stdout '^modules +28 in both, 0 changed$'
answers 0 llama-adapter llama-adapter/adapter_model.safetensors
answers 0 llama-adapter llama-adapter --json
expect_json 'x["schema"], x["kind"], x["same"], x["equivalent"]' "('loractl.diff/1', 'adapters', True, True)"
expect_json 'x["config"], x["added"], x["removed"], x["changed"]' '([], [], [], [])'
expect_json 'len(x["modules"]), "tensors" in x, "explained" in x' '(28, False, False)'
expect_json 'sorted(set(k for m in x["modules"] for k in m))' "['allowance', 'angles_columns', 'angles_rows', 'cosine', \
'equivalent', 'magnitude_difference', 'name', 'norm_difference', 'norm_x', 'norm_y', 'same', 'type_x', 'type_y']"
expect_json 'all(len(m["angles_rows"]) == len(m["angles_columns"]) == 6 for m in x["modules"])' True

cp -r llama-adapter other
edit scale other/adapter_model.safetensors "layers.1.mlp.up_proj.lora_B" 1.001
answers 1 llama-adapter other
expect_stdout '^answer +they differ$'
expect_stdout '^modules +28 in both, 1 changed$'
expect_stdout '^model\.layers\.1\.mlp\.up_proj +low-rank '
expect_equal "$(grep -c '_proj' "$OUT")" 1
answers 1 llama-adapter other --json
expect_json 'x["same"], x["equivalent"], x["changed"]' "(False, False, ['$up.lora_B.weight'])"
expect_json '[m["name"] for m in x["modules"] if not m["same"]]' "['model.layers.1.mlp.up_proj']"
expect_json 'abs([m for m in x["modules"] if not m["same"]][0]["cosine"] - 1) < 1e-9' True
answers 1 llama-adapter other -q
expect_empty "$OUT"

# All of them, and those that changed most first.
edit scale other/adapter_model.safetensors 'lora_B' 1.25
edit scale other/adapter_model.safetensors 'layers\.2\.self_attn\.o_proj\.lora_B' -8
answers 1 llama-adapter other
expect_stdout 'and 18 more: --modules'
expect_equal "$(grep -c '_proj' "$OUT")" 10
grep '_proj' "$OUT" | head -n 1 | grep -q 'layers\.2\.self_attn\.o_proj' || fail "the largest change is not on top"
answers 1 llama-adapter other --modules
expect_equal "$(grep -c '_proj' "$OUT")" 28

# The same update by another alpha; the config alone.
cp llama-adapter/adapter_model.safetensors other/
edit scale other/adapter_model.safetensors 'lora_B' 0.5
edit set_json other/adapter_config.json lora_alpha=32
answers 1 llama-adapter other
expect_stdout '^answer +equivalent'
expect_stdout '^config +lora_alpha: 16 -> 32$'
answers 1 llama-adapter other --json
expect_json 'x["same"], x["equivalent"], x["config"]' "(False, True, [{'key': 'lora_alpha', 'x': 16, 'y': 32}])"
expect_json 'len(x["changed"]), all(m["equivalent"] for m in x["modules"])' '(28, True)'

# A module more.
cp -r llama-adapter fewer
edit keep fewer/adapter_model.safetensors '^(?!.*layers\.1\.mlp\.up_proj)'
answers 1 fewer llama-adapter
expect_stdout "^added +$up\.lora_[AB]\.weight$"
answers 1 fewer llama-adapter --json
expect_json 'sorted(x["added"]), x["removed"], x["equivalent"]' \
	"(['$up.lora_A.weight', '$up.lora_B.weight'], [], False)"
answers 1 llama-adapter fewer --json
expect_json 'x["added"], len(x["removed"]), len(x["modules"])' '([], 2, 27)'
answers 1 llama-adapter gpt2-adapter --json
expect_json 'x["modules"], len(x["removed"])' '([], 56)'

# --- two models

answers 0 llama llama
expect_stdout '^answer +the same$'
answers 0 llama llama --json
expect_json 'x["kind"], x["same"], x["tensors"]' "('checkpoints', True, [])"
cp -r llama moved
edit shards moved 3
answers 0 llama moved
run "$LORACTL" merge -q llama llama-adapter -o merged
answers 1 llama merged
expect_stdout '^tensors +28 changed$'
expect_equal "$(grep -c '_proj' "$OUT")" 10
answers 1 llama merged --modules
expect_equal "$(grep -c '_proj' "$OUT")" 28
answers 1 llama merged --json
expect_json 'len(x["tensors"]), x["equivalent"], "modules" in x' '(28, False, False)'
expect_json 'sorted(set(k for t in x["tensors"] for k in t))' "['changed', 'dtype_x', 'dtype_y', 'elements', 'max_ulp', \
'name', 'rank', 'rank_is_least', 'relative_norm', 'reshaped', 'threshold']"
expect_json 'all(0 < t["changed"] <= t["elements"] and t["rank"] == 6 for t in x["tensors"])' True
edit set_json moved/config.json vocab_size=510
answers 1 llama moved --json
expect_json 'x["same"], x["equivalent"], x["config"]' "(False, True, [{'key': 'vocab_size', 'x': 509, 'y': 510}])"
answers 1 llama gpt2 --json

# --- does the adapter explain it?

answers 0 llama merged llama-adapter
expect_stdout '^explained +yes: 28 adapted tensors to the bit, 0 to the last place, 0 tensors not$'
answers 0 llama merged llama-adapter --json
expect_json 'x["same"], x["explained"], x["unexplained"], x["exact"]' '(False, True, [], 28)'
answers 1 llama merged llama-adapter:0.99 --json
expect_json 'x["explained"], len(x["unexplained"]), len(x["reasons"])' '(False, 28, 28)'
answers 1 llama llama llama-adapter
expect_stdout '^explained +no: '
expect_stdout '^unexplained +model\.layers\.0\.'
cp -r merged spoilt
edit poke spoilt/model.safetensors model.norm.weight 3 7.5
answers 1 llama spoilt llama-adapter
expect_stdout '^unexplained +model\.norm\.weight: it changed, and no adapter touches it$'
answers 1 llama spoilt llama-adapter --json
expect_json 'x["unexplained"]' "['model.norm.weight']"
# Another program's: without our receipt one value must still be near.
cp -r merged foreign
rm foreign/loractl-receipt.json
answers 0 llama foreign llama-adapter
edit poke foreign/model.safetensors model.layers.1.mlp.up_proj.weight 93 7.5
answers 1 llama foreign llama-adapter
expect_stdout '^unexplained +model\.layers\.1\.mlp\.up_proj\.weight: 1 of 22500 elements .*, \[1, 3\] is the first$'
# Conv1D, stored the other way round.
run "$LORACTL" merge -q gpt2 gpt2-adapter -o merged2
answers 0 gpt2 merged2 gpt2-adapter
answers 1 gpt2 merged2 gpt2-adapter:2

# --- what is refused

refused 3 "'llama-adapter' is an adapter and 'llama' is a checkpoint" "$LORACTL" diff llama llama-adapter
refused 3 "'llama-adapter' is an adapter and 'llama' is a checkpoint" "$LORACTL" diff llama-adapter llama
refused 3 "'nothing' does not exist" "$LORACTL" diff llama nothing
refused 3 "'nothing' does not exist" "$LORACTL" diff nothing llama-adapter
refused 3 "'nothing' does not exist" "$LORACTL" diff llama merged nothing
refused 2 "'other': a third argument explains" "$LORACTL" diff llama-adapter llama-adapter other
refused 2 'the weight is no decimal number' "$LORACTL" diff llama merged llama-adapter:strong
refused 2 "an argument is missing: give Y" "$LORACTL" diff llama
refused 2 "an argument is missing: give X" "$LORACTL" diff
refused 2 "unknown option '--module'" "$LORACTL" diff --module llama llama
refused 3 'find no place in the base' "$LORACTL" diff llama merged gpt2-adapter
for size in 0 7 8 100 5000; do
	cp -r llama-adapter cut
	truncate -s $size cut/adapter_model.safetensors
	refused 3 "cut" "$LORACTL" diff llama-adapter cut
	rm -r cut
	cp -r llama cut
	truncate -s $size cut/model.safetensors
	refused 3 "cut" "$LORACTL" diff llama cut
	rm -r cut
done
# No numbers in a factor: named, whichever side it is on. In a model they are values like others.
for value in nan inf -inf; do
	cp -r llama-adapter odd
	edit poke odd/adapter_model.safetensors $up.lora_A.weight 93 $value
	refused 3 "$up\.lora_A\.weight': element \[1, 3\] is not finite" "$LORACTL" diff llama-adapter odd
	refused 3 "$up\.lora_A\.weight': element \[1, 3\] is not finite" "$LORACTL" diff odd llama-adapter --json
	refused 3 "$up\.lora_A\.weight': element \[1, 3\] is not finite" "$LORACTL" diff odd odd
	rm -r odd
	cp -r llama odd
	edit poke odd/model.safetensors model.layers.1.mlp.up_proj.weight 93 $value
	answers 1 llama odd --json
	expect_json 'x["tensors"][0]["changed"], x["tensors"][0]["relative_norm"], x["tensors"][0]["rank"]' '(1, None, None)'
	answers 0 odd odd
	rm -r odd
done
# A factor without a dimension.
cp -r llama-adapter flat
edit shape flat/adapter_model.safetensors $up.lora_A.weight 0,90
edit shape flat/adapter_model.safetensors $up.lora_B.weight 250,0
refused 3 'up_proj' "$LORACTL" diff flat llama-adapter
refused 3 'up_proj' "$LORACTL" diff llama-adapter flat
# Empty tensors of models.
cp -r llama empty
edit add empty/model.safetensors nothing F32 0,7 0
answers 0 empty empty
answers 1 llama empty
expect_stdout '^added +nothing$'

# --- who reads it

run_on_terminal "$LORACTL" diff llama merged --color always
grep -q $'\033\\[1m' "$OUT" || fail "no bold titles on a terminal"
run env NO_COLOR=1 "$LORACTL" diff llama merged
expect_plain "$OUT"
expect_equal "$("$LORACTL" diff llama merged --json --threads 1 | sha256sum)" \
	"$("$LORACTL" diff llama merged --json --threads 3 | sha256sum)"

# --- as the merge was told to

cp -r llama-adapter strange
edit substitute strange/adapter_model.safetensors 'layers\.1\.mlp\.up_proj' 'layers.1.mlp.upward'
sed -i 's/"up_proj"/"up_proj", "upward"/' strange/adapter_config.json
echo 'model.layers.1.mlp.upward model.layers.1.mlp.up_proj' >map
run "$LORACTL" merge -q llama strange --key-map map -o mapped
expect_equal "$STATUS" 0
refused 3 'find no place in the base' "$LORACTL" diff llama mapped strange
run "$LORACTL" diff llama mapped strange --key-map map
expect_equal "$STATUS" 0
run "$LORACTL" diff llama mapped strange --allow-unmatched
expect_equal "$STATUS" 1
run "$LORACTL" merge -q llama strange --allow-unmatched -o without
run "$LORACTL" diff llama without strange --allow-unmatched
expect_equal "$STATUS" 0
edit set_json strange/adapter_config.json 'turbo=true'
refused 3 "turbo" "$LORACTL" diff strange llama-adapter
run "$LORACTL" diff strange llama-adapter --allow-unknown
expect_equal "$STATUS" 1

# --- versions of a container, and what is neither adapter nor model

run "$LORACTL" pack llama-adapter -o f.lora
run "$LORACTL" pack other -o f.lora --append
answers 0 f.lora@1 llama-adapter
answers 1 f.lora@1 f.lora@2 --json
expect_json 'x["same"], x["equivalent"], x["config"][0]["key"]' "(False, True, 'lora_alpha')"
answers 0 llama merged f.lora@1
answers 1 llama merged f.lora@1:0.5
run "$LORACTL" merge -q llama llama-adapter -o again --undo undo
refused 3 "'undo' is of kind 'undo'" "$LORACTL" diff undo llama
refused 3 "'undo' is of kind 'undo'" "$LORACTL" diff llama-adapter undo
