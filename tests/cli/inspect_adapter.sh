#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# inspect_adapter - what an adapter is: facts, scales and where they came from, norms and singular values against
# s*B*A itself, does it fit a base, will an engine load it.
. "${SRC:?the repository}/tests/cli/merge_checks.sh" || exit 1
copies llama llama-adapter gpt2 gpt2-adapter

# NAME EXPRESSION: of the one module of that name in $OUT
module()
{
	tools get "$OUT" "[m for m in x['modules'] if m['name'] == '$1'][0]$2"
}

# --- facts

done_reading "$LORACTL" inspect llama-adapter
expect_stdout 'adapter'
expect_stdout '[Ll]o[Rr][Aa].*peft|peft.*[Ll]o[Rr][Aa]'
expect_stdout '40,?032'
expect_stdout 'loractl/tiny-llama'
expect_stdout "$(tools adapter_root llama-adapter)"
expect_empty "$ERR"
done_reading "$LORACTL" inspect llama-adapter --json
expect_empty "$ERR"
expect_json 'x["schema"]' loractl.inspect/1
expect_json 'x["kind"], x["dialect"], x["method"].lower()' "('adapter', 'peft', 'lora')"
expect_json 'x["parameters"]' 40032
case $(tools get "$OUT" 'x["bytes"]') in
160128 | "$(stat -c %s llama-adapter/adapter_model.safetensors)") ;; # of the tensors, or of their file
*) fail "bytes: $(tools get "$OUT" 'x["bytes"]')" ;;
esac
expect_json 'x["base_name"]' loractl/tiny-llama
expect_json 'x["root"]' "$(tools adapter_root llama-adapter)"
expect_json 'x["rank"]' "{'min': 6, 'max': 6}"
expect_json 'x["problems"]' '[]'
expect_json 'len(x["modules"])' 28
expect_json 'sorted(set(k for m in x["modules"] for k in m))' \
	"['alpha', 'dtype', 'effective_rank', 'name', 'norm', 'rank', 'scale', 'scale_from', 'shape', 'type']"
expect_equal "$(module model.layers.1.mlp.up_proj '["shape"]')" '[250, 90]'
expect_equal "$(module model.layers.1.mlp.up_proj '["rank"]')" 6
expect_equal "$(module model.layers.1.mlp.up_proj '["alpha"]')" 16
expect_equal "$(module model.layers.1.mlp.up_proj '["dtype"].upper()')" F32
expect_equal "$(module model.layers.1.mlp.up_proj '["scale"] * 3 - 8 < 1e-6')" True
done_reading "$LORACTL" inspect llama-adapter/adapter_model.safetensors --json
expect_json 'x["root"]' "$(tools adapter_root llama-adapter)"
expect_json 'x["kind"]' adapter

# --- norms and singular values

for name in model.layers.0.self_attn.k_proj model.layers.3.self_attn.v_proj; do
	done_reading "$LORACTL" inspect llama-adapter --json
	judged spectrum "$OUT" llama-adapter $name
	expect_json 'any("singular_values" in m for m in x["modules"])' False
	done_reading "$LORACTL" inspect llama-adapter --json --spectrum
	judged spectrum "$OUT" llama-adapter $name
	expect_json 'all(len(m["singular_values"]) == 6 for m in x["modules"])' True
	expect_json 'all(m["singular_values"] == sorted(m["singular_values"], reverse=True) for m in x["modules"])' True
done
done_reading "$LORACTL" inspect gpt2-adapter --json --spectrum
judged spectrum "$OUT" gpt2-adapter transformer.h.2.attn.c_proj
# Edges: no update at all; all of it in one direction; 16 bits; more rank than the layer is wide.
edit small base one 6 5 2
edit fill one/adapter_model.safetensors 'q_proj.lora_B' 0
edit fill one/adapter_model.safetensors 'v_proj' 0.5
done_reading "$LORACTL" inspect one --json --spectrum
expect_equal "$(module model.layers.0.self_attn.q_proj '["norm"]')" 0
expect_equal "$(module model.layers.0.self_attn.q_proj '["singular_values"]')" '[0, 0]'
judged spectrum "$OUT" one model.layers.0.self_attn.v_proj
expect_equal "$(module model.layers.0.self_attn.v_proj '["effective_rank"] < 1.001')" True
expect_plain "$OUT"
! grep -qiE 'nan|inf' "$OUT" || fail "no number: $(grep -iE 'nan|inf' "$OUT" | head -n 3)"
edit small base2 wide 5 4 3
edit cast wide/adapter_model.safetensors F16
edit set_json wide/adapter_config.json lora_alpha=7 use_rslora=true
done_reading "$LORACTL" inspect wide --json --spectrum
judged spectrum "$OUT" wide model.layers.0.self_attn.q_proj
expect_equal "$(module model.layers.0.self_attn.q_proj '["dtype"].upper()')" F16
edit small base3 full 3 4 7
done_reading "$LORACTL" inspect full --json --spectrum
expect_equal "$(module model.layers.0.self_attn.q_proj '["rank"]')" 7
expect_equal "$(module model.layers.0.self_attn.q_proj '["effective_rank"] <= 3.0001')" True
expect_equal "$(module model.layers.0.self_attn.q_proj '["norm"] > 0')" True
rm -r base base2 base3

# --- text: one line a module, one a tensor

done_reading "$LORACTL" inspect llama-adapter --modules
expect_equal "$(grep -c '_proj ' "$OUT")" 28
expect_stdout 'layers\.2\.mlp\.gate_proj .*250.*90.*6.*16.*2\.66.*alpha/r'
norm=$("$LORACTL" inspect llama-adapter --json | tools get /dev/stdin 'x["modules"][0]["norm"]')
expect_stdout "${norm:0:5}"
done_reading "$LORACTL" inspect llama-adapter --tensors
expect_equal "$(grep -c 'lora_[AB]\.weight' "$OUT")" 56
expect_stdout 'layers\.2\.mlp\.gate_proj\.lora_B\.weight .*F32.*250, ?6'
done_reading "$LORACTL" inspect llama-adapter --spectrum
expect_equal "$(grep -c '_proj' "$OUT")" 28
done_reading "$LORACTL" inspect llama-adapter --modules --tensors --spectrum --json
expect_json 'len(x["modules"])' 28

# --- scales, and where they came from

cp -r gpt2-adapter odd
edit set_json odd/adapter_config.json use_rslora=true 'alpha_pattern={"h.1.attn.c_attn": 3}' 'base_model_name_or_path=null'
done_reading "$LORACTL" inspect odd --json
expect_json 'x["base_name"]' None
expect_equal "$(module transformer.h.0.attn.c_attn '["scale"] - 12 / math.sqrt(5) < 1e-6' )" True
expect_equal "$(module transformer.h.0.attn.c_attn '["scale_from"]')" 'alpha/sqrt(r)'
expect_equal "$(module transformer.h.1.attn.c_attn '["alpha"]')" 3
expect_equal "$(module transformer.h.1.attn.c_attn '["scale_from"].count("h.1.attn.c_attn")')" 1
expect_equal "$(module transformer.h.1.attn.c_attn '["scale"] - 3 / math.sqrt(5) < 1e-6')" True
rm -r odd
# What is wrong with it is a problem, or the end.
cp -r gpt2-adapter odd
edit poke odd/adapter_model.safetensors base_model.model.transformer.h.0.attn.c_attn.lora_A.weight 3 nan
run "$LORACTL" inspect odd --json --spectrum
case $STATUS in
0)
	expect_json 'len(x["problems"]) > 0' True
	expect_json '"c_attn" in " ".join(x["problems"])' True
	;;
3) expect_one_error 'c_attn' ;;
*) fail "a NaN in a factor: exit status $STATUS" ;;
esac
rm -r odd

# --- does it fit

done_reading "$LORACTL" inspect llama-adapter --base llama
expect_stdout '[Ff]its.*yes'
done_reading "$LORACTL" inspect llama-adapter --base llama --json
expect_json 'x["kind"]' adapter
done_reading "$LORACTL" inspect llama-adapter --base llama/model.safetensors
cp -r llama shards
edit shards shards 3
done_reading "$LORACTL" inspect llama-adapter --base shards
cp -r gpt2 short
edit substitute short/model.safetensors '^transformer\.' ''
done_reading "$LORACTL" inspect gpt2-adapter --base short

# STATUS ARGUMENT...: reads, changes nothing, its answer is that
answers()
{
	state >"$cli_folder/before"
	run "$LORACTL" inspect "${@:2}"
	state >"$cli_folder/after"
	expect_equal "$STATUS" "$1"
	expect_same "$cli_folder/before" "$cli_folder/after"
	expect_plain "$OUT" "$ERR"
}

answers 1 gpt2-adapter --base llama
expect_stdout 'c_attn\.weight'
expect_stdout 'h\.2\.mlp\.c_proj\.lora_B\.weight'
answers 1 gpt2-adapter --base llama --json
tools get "$OUT" 'json.dumps(x)' >/dev/null || fail "no JSON: $(head -n 3 "$OUT")"
grep -q 'h\.2\.mlp\.c_proj\.lora_B' "$OUT" || fail "what does not fit is not in the JSON"
answers 1 llama-adapter gpt2-adapter --base llama # one of two does not
answers 1 gpt2-adapter llama-adapter --base llama --json
cp -r llama-adapter odd
edit shape odd/adapter_model.safetensors base_model.model.model.layers.0.mlp.up_proj.lora_B.weight 249,6
answers 1 odd --base llama
expect_stdout 'up_proj'
rm -r odd
answers 3 llama-adapter --base nothing
expect_one_error "'nothing'"
answers '2' llama --base llama
answers '2' llama --for peft

# --- will it be loaded

for engine in peft vllm llama.cpp; do
	answers 0 llama-adapter --for $engine
	expect_stdout "yes"
	answers 0 llama-adapter --for $engine --json
	answers 0 llama-adapter --for $engine --base llama
	answers 1 llama-adapter --for $engine --base gpt2
done
answers 2 llama-adapter --for keras
expect_one_error "'keras'"
cp -r llama-adapter dora
edit set_json dora/adapter_config.json use_dora=true
edit keep dora/adapter_model.safetensors 'layers\.1\.self_attn\.q_proj'
edit add dora/adapter_model.safetensors base_model.model.model.layers.1.self_attn.q_proj.lora_magnitude_vector F32 108 random
answers 0 dora --for peft
answers 1 dora --for vllm
expect_stdout '[Dd]o[Rr][Aa]'
answers 1 dora --for vllm --json
grep -qi 'dora' "$OUT" || fail "the reason is not in the JSON"
cp -r llama-adapter saved
edit add saved/adapter_model.safetensors base_model.model.lm_head.weight F32 509,90 random
edit set_json saved/adapter_config.json 'modules_to_save=["lm_head"]'
answers 0 saved --for peft
# What the config does not name, PEFT passes over; what it names and is not there stops PEFT.
cp -r llama-adapter edited
edit set_json edited/adapter_config.json 'target_modules=["q_proj"]'
answers 1 edited --for peft
expect_stdout "target_modules .*'model\.layers\.0\.[a-z_.]*' and 23 more"
answers 0 edited --for vllm
done_reading "$LORACTL" inspect edited --json
expect_json 'len(x["problems"]), "target_modules" in x["problems"][0]' '(1, True)'
edit set_json edited/adapter_config.json 'target_modules=".*(self_attn|mlp)\\.[a-z]+_proj"' 'modules_to_save=["norm"]'
answers 1 edited --for peft
expect_stdout "modules_to_save .*'norm'"
edit set_json edited/adapter_config.json modules_to_save=null 'bias="lora_only"'
answers 0 edited --for peft
rm -r edited
answers 1 saved --for vllm
expect_stdout 'lm_head|modules_to_save'

expect_only llama llama-adapter gpt2 gpt2-adapter one wide full shards short dora saved
