#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# merge_unmatched - an adapter of which something is left over, missing, of another shape or without effect is refused
# by name, and the options that go on say in the receipt what was left.
. "${SRC:?the repository}/tests/cli/merge_checks.sh" || exit 1
copies llama llama-adapter gpt2 gpt2-adapter
stem=base_model.model.model.layers.2.self_attn.q_proj

# A fresh copy of the llama adapter as `bad`, with an edit of its weights.
weights()
{
	rm -rf bad
	cp -r llama-adapter bad
	edit "$1" bad/adapter_model.safetensors "${@:2}"
}

# STATUS PATTERN OPTION...: the bad adapter on llama
bad()
{
	refused "$1" "$2" "$LORACTL" merge llama bad -o refused "${@:3}"
	rm -rf refused
}

# OPTION...: it goes, and is looked at in out
good()
{
	rm -rf out
	done_well "$LORACTL" merge llama bad -o out "$@"
}

# --- names: one tensor that finds no place

weights rename $stem.lora_A.weight ${stem/q_proj/q_porj}.lora_A.weight
bad 3 'q_porj|q_proj' # half of a pair, and the other half
weights substitute 'layers\.2\.self_attn\.q_proj' 'layers.2.self_attn.q_porj'
bad 3 '2 of its 56'
for factor in A B; do # each of them, with the nearest name
	expect_stderr "q_porj\.lora_$factor\.weight'.*'model\.layers\.2\.self_attn\.q_proj\.weight'"
done
good --allow-unmatched
expect_json 'sorted(x["unmatched"])' \
	"['${stem/q_proj/q_porj}.lora_A.weight', '${stem/q_proj/q_porj}.lora_B.weight']" out/loractl-receipt.json
expect_json 'len(x["modules"])' 27 out/loractl-receipt.json
expect_json 'x["untouched"]' 12 out/loractl-receipt.json
done_well "$LORACTL" merge -q llama llama-adapter -o whole
edit drop bad/adapter_model.safetensors ${stem/q_proj/q_porj}.lora_A.weight ${stem/q_proj/q_porj}.lora_B.weight
rm -rf out
good # without them it is a smaller adapter, and the merge is the same
expect_json 'x["unmatched"]' '[]' out/loractl-receipt.json
weights add base_model.model.model.layers.2.strange F32 3,4 random
bad 3 'strange|1 of its 57'
expect_stderr 'model\.layers\.2\.strange'
weights add strange F32 3,4 random
bad 3 'strange|1 of its 57'
expect_stderr "'strange'"
good --allow-unmatched
expect_same out/model.safetensors whole/model.safetensors
expect_json 'x["unmatched"]' "['strange']" out/loractl-receipt.json
# All of them: also with --allow-unmatched there is nothing to merge.
refused 3 '24 of its 24' "$LORACTL" merge llama gpt2-adapter -o refused
expect_equal "$(grep -oE "'base_model\.model\.transformer\.[^']*\.lora_[AB]\.weight'" "$ERR" | sort -u | wc -l)" 24
refused 3 '.' "$LORACTL" merge llama gpt2-adapter -o refused --allow-unmatched
refused 3 '56 of its 56' "$LORACTL" merge gpt2 llama-adapter -o refused
refused 3 '24 of its 24' "$LORACTL" merge llama llama-adapter gpt2-adapter -o refused
refused 3 '24 of its 24' "$LORACTL" merge -q llama gpt2-adapter llama-adapter -o refused
refused 3 '24 of its 24' "$LORACTL" merge llama gpt2-adapter --dry-run

# --- halves, shapes, ranks

weights drop $stem.lora_B.weight
bad 3 "$stem|q_proj"
weights drop $stem.lora_A.weight
bad 3 "$stem|q_proj"
weights shape $stem.lora_A.weight 90,6
bad 3 "$stem|q_proj"
weights shape $stem.lora_A.weight 6,91
bad 3 "$stem|q_proj"
weights shape $stem.lora_B.weight 107,6
bad 3 "$stem|q_proj"
weights shape $stem.lora_B.weight 108,5
bad 3 "$stem|q_proj"
weights shape $stem.lora_A.weight 6,90,1
bad 3 "$stem|q_proj"
weights shape $stem.lora_A.weight 540
bad 3 "$stem|q_proj"
weights shape $stem.lora_A.weight 0,90
bad 3 "$stem|q_proj"
weights cast I32 XX && rm -rf bad && cp -r llama-adapter bad
python3 - bad/adapter_model.safetensors <<'PYTHON'
import sys
path = sys.argv[1]
data = open(path, "rb").read()
open(path, "wb").write(data.replace(b'"dtype":"F32"', b'"dtype":"I32"', 1))
PYTHON
bad 3 "I32|down_proj|integer"
# --- the adapter changes nothing

weights fill lora_B 0
bad 3 'noop|no-op|changes nothing|changes no|no value'
done_reading "$LORACTL" merge llama bad --dry-run --allow-noop
good --allow-noop
expect_same out/model.safetensors llama/model.safetensors
weights fill lora_B -0.0
bad 3 'noop|no-op|changes nothing|changes no|no value'
weights fill lora_B 1e-30 # rounding takes all of it
bad 3 'noop|no-op|changes nothing|changes no|no value'
good --dtype f32 --allow-noop
edit poke bad/adapter_model.safetensors $stem.lora_B.weight 3 0.25 # one row is enough
good

# --- two that cannot go together, and DoRA's weight

cp -r llama-adapter dora
edit set_json dora/adapter_config.json use_dora=true
edit keep dora/adapter_model.safetensors 'layers\.1\.self_attn\.q_proj'
edit add dora/adapter_model.safetensors base_model.model.model.layers.1.self_attn.q_proj.lora_magnitude_vector F32 108 random
done_well "$LORACTL" merge llama dora -o out2
refused 3 'q_proj|[Dd]o[Rr][Aa]' "$LORACTL" merge llama dora:0.5 -o out3
refused 3 'q_proj|[Dd]o[Rr][Aa]' "$LORACTL" merge llama dora llama-adapter -o out3
refused 3 'q_proj|[Dd]o[Rr][Aa]' "$LORACTL" merge llama llama-adapter dora -o out3
for i in 1 2; do
	cp -r llama-adapter full$i
	edit set_json full$i/adapter_config.json 'modules_to_save=["norm"]'
	edit add full$i/adapter_model.safetensors base_model.model.model.norm.weight F32 90 1.$i
done
done_well "$LORACTL" merge llama full1 -o out3
refused 3 'model\.norm' "$LORACTL" merge llama full1 full2 -o out4
refused 3 'model\.norm' "$LORACTL" merge llama full1:2 -o out4
