#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# merge_numbers - each element is W + s*B*A, rounded once, and the figures of the receipt are those of the files;
# types, weights, several adapters, scales from patterns. tools.py computes W + s*B*A in double precision.
. "${SRC:?the repository}/tests/cli/merge_checks.sh" || exit 1
copies llama llama-adapter gpt2 gpt2-adapter

# WHAT ARGUMENT...: merges, and compares; what `merged` of tools.py wants stands behind --.
compared()
{
	local arguments=()

	while [ "$1" != -- ]; do
		arguments+=("$1")
		shift
	done
	shift
	rm -rf out
	done_well "$LORACTL" merge -q "${arguments[@]}" -o out
	judged merged "${arguments[0]}" out out/loractl-receipt.json "$@"
}

compared llama llama-adapter -- llama-adapter
compared gpt2 gpt2-adapter -- gpt2-adapter # Conv1D: W is [in, out], and attn.c_proj is square

# --- the type of the output; what is not adapted keeps its own

compared gpt2 gpt2-adapter --dtype f32 -- gpt2-adapter dtype=F32
expect_json 'x["options"]["dtype"].lower()' f32 out/loractl-receipt.json
compared gpt2 gpt2-adapter --dtype bf16 -- gpt2-adapter dtype=BF16
compared gpt2 gpt2-adapter --dtype f16 -- gpt2-adapter
cp -r out f16
compared gpt2 gpt2-adapter -- gpt2-adapter
expect_same out/model.safetensors f16/model.safetensors
compared llama llama-adapter --dtype=f16 -- llama-adapter dtype=F16

# --- weights

compared gpt2 gpt2-adapter:0.5 -- gpt2-adapter=0.5
compared gpt2 gpt2-adapter:-1 -- gpt2-adapter=-1
compared gpt2 gpt2-adapter:1 -- gpt2-adapter
expect_same out/model.safetensors f16/model.safetensors
compared gpt2 gpt2-adapter:0.250 -- gpt2-adapter=0.25
mv gpt2-adapter 'ad:0.5' # a path that is there wins
compared gpt2 'ad:0.5' -- 'ad:0.5=1'
expect_same out/model.safetensors f16/model.safetensors
compared gpt2 'ad:0.5:.5' -- 'ad:0.5=0.5'
compared gpt2 'ad:0.5/:0.5' -- 'ad:0.5=0.5'
compared gpt2 'ad:0.5/adapter_model.safetensors:2' -- 'ad:0.5/adapter_model.safetensors=2'
mv 'ad:0.5' gpt2-adapter
rm -rf out f16
for weight in nan inf -inf 1e999 x '' 1,5 0x1 ' 1' '1 ' 1:1; do
	refused '2|3' '.' "$LORACTL" merge gpt2 "gpt2-adapter:$weight" -o out
done

# --- two adapters, the sum of both, in one rounding; the order counts for nothing but the last bit

cp -r gpt2-adapter second
edit scale second/adapter_model.safetensors 'h\.[01]\..*lora_A' -0.75
edit keep second/adapter_model.safetensors '^base_model.model.transformer.h.[01]'
edit set_json second/adapter_config.json lora_alpha=7
compared gpt2 gpt2-adapter second:0.5 -- gpt2-adapter second=0.5
compared gpt2 second:0.5 gpt2-adapter -- second=0.5 gpt2-adapter
compared gpt2 gpt2-adapter gpt2-adapter:-0.25 -- gpt2-adapter gpt2-adapter=-0.25

# --- another r, alpha, rsLoRA, alpha_pattern: the first key that matches, in the order of the file

edit set_json second/adapter_config.json lora_alpha=16 use_rslora=true
compared gpt2 second -- second
edit set_json second/adapter_config.json use_rslora=false 'alpha_pattern={"c_fc": 3, "mlp.c_fc": 40, "h.1.attn.c_attn": 1}'
rm -rf out
done_well "$LORACTL" merge gpt2 second -o out
expect_stderr 'warning: .*c_fc'
judged merged gpt2 out out/loractl-receipt.json second
expect_json '[m["scale_from"] for m in x["modules"] if m["tensor"].endswith("h.1.attn.c_attn.weight")][0].count("h.1.attn.c_attn")' 1 \
	out/loractl-receipt.json
# The two keys match with the same value: nothing to say.
edit set_json second/adapter_config.json 'alpha_pattern={"c_fc": 3, "mlp.c_fc": 3}'
rm -rf out
done_well "$LORACTL" merge gpt2 second -o out
! grep -q warning "$ERR" || fail "a warning without a reason: $(cat "$ERR")"
judged merged gpt2 out out/loractl-receipt.json second
# Alpha is missing: PEFT's default, 8, and it is said.
edit set_json second/adapter_config.json alpha_pattern lora_alpha
rm -rf out
done_well "$LORACTL" merge gpt2 second -o out
expect_stderr 'alpha'
edit set_json second/adapter_config.json lora_alpha=8
judged merged gpt2 out - second

# --- an adapter in 16 bits, and one of two widths

edit set_json second/adapter_config.json lora_alpha=12
edit cast second/adapter_model.safetensors BF16
compared gpt2 second -- second
edit cast second/adapter_model.safetensors F16 lora_A
compared gpt2 second -- second
rm -rf out second

# --- a weight of 0 changes nothing

refused 3 'noop|no-op|changes nothing|changes no' "$LORACTL" merge gpt2 gpt2-adapter:0 -o out
done_well "$LORACTL" merge gpt2 gpt2-adapter:0 -o out --allow-noop
expect_same out/model.safetensors gpt2/model.safetensors
rm -rf out

expect_only llama llama-adapter gpt2 gpt2-adapter
