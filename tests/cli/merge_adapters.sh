#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# merge_adapters - an adapter of which something is left over, missing, contradictory, unknown or of another kind
# is refused by name, and the options that go on say in the receipt what was left.
. "${SRC:?the repository}/tests/cli/merge_checks.sh" || exit 1
copies llama llama-adapter gpt2 gpt2-adapter
stem=base_model.model.model.layers.2.self_attn.q_proj

# A fresh copy of the llama adapter as `bad`, with an edit of its weights...
weights()
{
	rm -rf bad
	cp -r llama-adapter bad
	edit "$1" bad/adapter_model.safetensors "${@:2}"
}

# ... or of its configuration.
config()
{
	rm -rf bad
	cp -r llama-adapter bad
	edit set_json bad/adapter_config.json "$@"
}

# STATUS PATTERN OPTION...: the bad adapter on llama
bad()
{
	refused "$1" "$2" "$LORACTL" merge llama bad -o out "${@:3}"
}

# OPTION...: it goes, and is looked at in out
good()
{
	rm -rf out
	done_well "$LORACTL" merge llama bad -o out "$@"
}

# --- names: one tensor that finds no place

weights rename $stem.lora_A.weight ${stem/q_proj/q_porj}.lora_A.weight
bad 3 'bad'
expect_stderr "q_porj.*'model\.layers\.2\.self_attn\.q_proj\.weight'" # the nearest name
weights substitute 'layers\.2\.self_attn\.q_proj' 'layers.2.self_attn.q_porj'
bad 3 '2 of its 56'
expect_equal "$(grep -c "tensor '[^']*q_porj[^']*': .*'model\.layers\.2\.self_attn\.q_proj\.weight'" "$ERR")" 2
expect_equal "$(wc -l <"$ERR")" 3
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
refused 3 '24 of its 24' "$LORACTL" merge llama gpt2-adapter -o out
expect_equal "$(grep -c "tensor 'base_model" "$ERR")" 25
refused 3 '.' "$LORACTL" merge llama gpt2-adapter -o out --allow-unmatched
refused 3 '56 of its 56' "$LORACTL" merge gpt2 llama-adapter -o out
refused 3 '24 of its 24' "$LORACTL" merge llama llama-adapter gpt2-adapter -o out
refused 3 '24 of its 24' "$LORACTL" merge -q llama gpt2-adapter llama-adapter -o out
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
config r=5
bad 3 "'?r'?.*5|rank.*5|5.*rank"
config r=12
bad 3 "'?r'?.*12|rank.*12|12.*rank"
config 'rank_pattern={"q_proj": 3}'
bad 3 '3'
for r in 0 -6 '"6"' 6.5 null 1e99; do
	config "r=$r"
	bad 3 "'?r'?"
done
for alpha in '"16"' true '[16]' 1e999; do
	config "lora_alpha=$alpha"
	bad 3 'lora_alpha|alpha|adapter_config'
done
config lora_alpha=0
bad 3 '.' # an update of nothing
config 'alpha_pattern={"q_proj": "x"}'
bad 3 'alpha_pattern'
config 'alpha_pattern={"q_(proj": 3}'
bad 3 'alpha_pattern'
config 'alpha_pattern=[3]'
bad 3 'alpha_pattern'

# --- configuration: what is not known is refused by name, unless it says nothing

for value in 3 '"x"' true 0 '[0]' '{"a": null}'; do
	config "frobnicate=$value"
	bad 3 "'frobnicate'"
done
good --allow-unknown
expect_same out/model.safetensors whole/model.safetensors
for value in null false '""' '[]' '{}'; do
	config "frobnicate=$value"
	good
	expect_same out/model.safetensors whole/model.safetensors
done
config zweite=1 erste=2
bad 3 "'(zweite|erste)'"
for key in r peft_type lora_alpha use_rslora; do
	rm -rf bad
	cp -r llama-adapter bad
	edit duplicate_key bad/adapter_config.json $key "$(jq ".$key" llama-adapter/adapter_config.json)" 2>/dev/null ||
		true
	bad 3 "'?$key'?"
done
config peft_type
bad 3 'peft_type'
for text in '' '[]' '{' '{"peft_type": "LORA"' '"LORA"' '{"peft_type": LORA}' '{"peft_type": "LORA", "r": 6,}' \
	'{"peft_type": "LORA", "r": 06}' '{"peft_type": "LORA"} {}' '{"peft_type": "\ud800"}' "$(printf '{"\xff": 1}')"; do
	printf %s "$text" >bad/adapter_config.json
	bad 3 'adapter_config\.json'
done
python3 -c 'print("{\"peft_type\": " + "[" * 100000 + "]" * 100000 + "}")' >bad/adapter_config.json
bad 3 'adapter_config\.json'
rm bad/adapter_config.json
bad 3 'adapter_config\.json'
mkdir bad/adapter_config.json
bad '3|4' 'adapter_config\.json'

# --- other kinds are refused by their names

for kind in IA3 LOHA ADALORA VERA OFT BOFT LOKR HRA PREFIX_TUNING PROMPT_TUNING XLORA LORA2 lora ''; do
	config "peft_type=\"$kind\""
	bad 3 "${kind:-peft_type}"
done
config peft_type=3
bad 3 'peft_type'
for pair in 'use_qalora=true' 'alora_invocation_tokens=[1]' 'arrow_config={"a": 1}' 'kasa_config={"a": 1}' \
	'layer_replication=[[0,2]]' 'use_bdlora={"a": 1}'; do
	config "$pair"
	bad 3 "${pair%%=*}"
done
for init in pissa pissa_niter_4 olora corda loftq lora_ga; do
	config "init_lora_weights=\"$init\""
	bad 3 "$init|init_lora_weights"
done
good --allow-mutated-base
for init in '"gaussian"' '"eva"' '"orthogonal"' false; do
	config "init_lora_weights=$init"
	good
done
config use_dora=true # and no magnitudes
bad 3 'q_proj|dora|magnitude'

# --- files that are not there, or of a kind that may run code

rm -rf bad out
mkdir bad
cp llama-adapter/adapter_config.json bad
bad 3 'adapter_model\.safetensors|bad'
printf 'PK\3\4 a zip, as torch writes it' >bad/adapter_model.bin
bad 3 'adapter_model\.bin'
rm -rf bad
mkdir bad
bad 3 "bad"
refused 3 "'nothing'" "$LORACTL" merge llama nothing -o out
refused 3 "'nothing:0\.5'|'nothing'" "$LORACTL" merge llama nothing:0.5 -o out
refused 3 "." "$LORACTL" merge llama llama -o out         # a base is no adapter
refused 3 "." "$LORACTL" merge llama-adapter llama-adapter -o out # an adapter is no base
refused 3 "'nothing'" "$LORACTL" merge nothing llama-adapter -o out
refused 3 '.' "$LORACTL" merge llama /dev/null -o out
refused 3 '.' "$LORACTL" merge /dev/null llama-adapter -o out
echo 'no adapter' >text
refused 3 'text' "$LORACTL" merge llama text -o out
mkfifo bad/fifo bad/adapter_model.safetensors
refused 3 'fifo' soon "$LORACTL" merge llama bad/fifo -o out
cp llama-adapter/adapter_config.json bad
refused 3 'adapter_model\.safetensors|bad' soon "$LORACTL" merge llama bad -o out

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
for file in dora/adapter_model.safetensors; do
	edit keep $file 'layers\.1\.self_attn\.q_proj'
	edit add $file base_model.model.model.layers.1.self_attn.q_proj.lora_magnitude_vector F32 108 random
done
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
