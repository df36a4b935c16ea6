#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# merge_names - whatever stands in a name or a text of a file, a terminal gets to see only letters: no escape, no new
# line, nothing that turns the line around, in errors, lists, notes, results and JSON.
. "${SRC:?the repository}/tests/cli/merge_checks.sh" || exit 1
export LC_ALL=C.UTF-8
edit small base adapter 6 5 2
stem=base_model.model.model.layers.0.self_attn
# Red, a bell, a new line, a carriage return, a title for the window, a deletion, C1, right-to-left, no UTF-8.
evil=$'\e[31m' bell=$'\a' line=$'a\nloractl merge, all is well' return=$'x\rloractl' title=$'\e]0;x\a' delete=$'\x7f'
c1=$'\u009b31m' rtl=$'\u202egnp'
texts=("$evil" "$bell" "$line" "$return" "$title" "$delete" "$c1" "$rtl" $'\u2066' $'\u200f' $'\ufeff' $'\t' $'\u2028')
[ -z "$sanitized" ] || texts=("$evil" "$line" "$c1" "$rtl" $'\t')

# --- names of tensors

for text in "${texts[@]}"; do
	rm -rf a b out
	cp -r adapter a
	cp -r base b
	edit rename a/adapter_model.safetensors $stem.q_proj.lora_A.weight "$stem.${text}q_proj.lora_A.weight"
	edit rename a/adapter_model.safetensors $stem.q_proj.lora_B.weight "$stem.${text}q_proj.lora_B.weight"
	edit rename b/model.safetensors model.layers.0.self_attn.q_proj.weight "model.layers.0.self_attn.${text}q_proj.weight"
	refused 3 'q_proj|2 of its 4' "$LORACTL" merge base a -o out
	if grep -q 'control character' "$ERR"; then # such a file is refused altogether
		for command in "merge b adapter -o out" "merge base a -o out --allow-unmatched" "inspect a --json" \
			"inspect b --tensors" "inspect a --base base"; do
			# shellcheck disable=SC2086
			refused 3 'q_proj.*control character' "$LORACTL" $command
		done
		continue
	fi
	refused 3 '2 of its 4' "$LORACTL" merge b adapter -o out # the nearest name of that text is suggested
	done_well "$LORACTL" merge base a -o out --allow-unmatched
	python3 - out/loractl-receipt.json "$stem.${text}q_proj" <<'PYTHON' || fail "the name is not in the receipt: $(cat -v out/loractl-receipt.json)"
import json, sys
with open(sys.argv[1]) as file:
    assert sorted(json.load(file)["unmatched"]) == [sys.argv[2] + ".lora_A.weight", sys.argv[2] + ".lora_B.weight"]
PYTHON
	expect_plain out/loractl-receipt.json
	rm -rf out
	done_well "$LORACTL" merge -v --json base a -o out --allow-unmatched
	run "$LORACTL" inspect a --base base
	expect_equal "$STATUS" 1
	expect_plain "$OUT" "$ERR"
	rm -rf out
	done_well "$LORACTL" merge -v b a -o out
	done_well "$LORACTL" inspect a b out --modules --tensors
	done_well "$LORACTL" inspect a b out --json
	# A value in it that is not finite
	edit poke b/model.safetensors "model.layers.0.self_attn.${text}q_proj.weight" 3 nan
	refused 3 '0, ?3' "$LORACTL" merge b a -o out2
done
rm -rf a b out
# A very long name is cut in a message, in the middle of nothing.
long=$(printf 'é%.0s' {1..20000})
cp -r adapter a
edit rename a/adapter_model.safetensors $stem.q_proj.lora_A.weight "$stem.$long.lora_A.weight"
edit rename a/adapter_model.safetensors $stem.q_proj.lora_B.weight "$stem.$long.lora_B.weight"
refused 3 '.' "$LORACTL" merge base a -o out
[ "$(wc -c <"$ERR")" -lt 20000 ] || fail "a message of $(wc -c <"$ERR") bytes"
rm -rf a

# --- metadata, types, configuration, index, binding

# FILE-OF-ADAPTER KEY=JSON
config()
{
	rm -rf a
	cp -r adapter a
	edit set_json a/adapter_config.json "$@"
	refused 3 '.' "$LORACTL" merge base a -o out
}

for text in '\u001b[31m' '\u0007' '\n' '\r' '\u009b' '\u202e' '\u0000' '\u007f'; do
	config "peft_type=\"${text}LORA\""
	config "\"x\"=1" "init_lora_weights=\"${text}\""
	config "alpha_pattern={\"(${text}\": 3}"
	config "alpha_pattern={\"${text}\": \"x\"}"
	rm -rf a
	cp -r adapter a
	printf '{"peft_type": "LORA", "r": 2, "lora_alpha": 3, "key%s": 1}' "$text" >a/adapter_config.json
	refused 3 'key|adapter_config' "$LORACTL" merge base a -o out
	printf '{"peft_type": "LORA", "r": 2, "lora_alpha": 3, "base_model_name_or_path": "a%sb", "target_modules": ["%s"]}' \
		"$text" "$text" >a/adapter_config.json
	run "$LORACTL" inspect a
	expect_plain "$OUT" "$ERR"
	run "$LORACTL" inspect a --json
	expect_plain "$OUT" "$ERR"
	cp adapter/adapter_config.json a
	printf '{"base_root": "%s"}' "$text" >a/loractl.json
	refused 3 'loractl\.json' "$LORACTL" merge base a -o out
	rm -rf b
	cp -r base b
	printf '{"model_type": "%s", "architectures": ["%s"]}' "$text" "$text" >b/config.json
	run "$LORACTL" inspect b
	expect_plain "$OUT" "$ERR"
	run "$LORACTL" inspect b --json
	expect_plain "$OUT" "$ERR"
	run "$LORACTL" merge -v b adapter --dry-run
	expect_plain "$OUT" "$ERR"
	printf '{"model_type": "llama", "%s": 1, "%s": 2}' "$text" "$text" >b/config.json
	refused 3 'config\.json' "$LORACTL" merge b adapter -o out
	edit raw b/model.safetensors "{\"a\":{\"dtype\":\"\\$text\",\"shape\":[2],\"data_offsets\":[0,8]}}" 8
	cp base/config.json b
	refused 3 'model\.safetensors' "$LORACTL" merge b adapter -o out
	rm b/model.safetensors
	printf '{"weight_map": {"a": "x%s.safetensors"}}' "$text" >b/model.safetensors.index.json
	refused 3 '.' "$LORACTL" merge b adapter -o out
done
rm -rf a b

# --- names of files, also of ones that are no UTF-8

for text in "${texts[@]}" $'\xff' $'\xc3'; do
	cp -r base "b$text"
	cp -r adapter "a$text"
	done_well "$LORACTL" merge -v "b$text" "a$text" -o "o$text"
	done_well "$LORACTL" inspect "b$text" "a$text" "o$text"
	done_well "$LORACTL" inspect "b$text" --json
	python3 -c 'import json, sys; json.load(open(sys.argv[1]))' "$OUT" || fail "no JSON: $(cat -v "$OUT")"
	python3 -c 'import json, sys; json.load(open(sys.argv[1]))' "o$text/loractl-receipt.json" ||
		fail "no JSON: $(cat -v "o$text/loractl-receipt.json")"
	expect_plain "o$text/loractl-receipt.json"
	refused 2 '.' "$LORACTL" merge "b$text" "a$text" -o "o$text"
	refused 3 '.' "$LORACTL" merge "n$text" "a$text" -o out
	refused 3 '.' "$LORACTL" merge "b$text" "n$text" -o out
	refused 3 '.' "$LORACTL" inspect "n$text"
	rm "b$text/model.safetensors"
	refused 3 '.' "$LORACTL" merge "b$text" "a$text" -o out
	rm -rf "b$text" "a$text" "o$text"
done
