#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# eval - the loss of a file of examples: figures from tests/data/README.md, where PyTorch computed them; kinds of files;
# options; and data, models and adapters that cannot be used.
. "${SRC:?the repository}/tests/cli/merge_checks.sh" || exit 1
copies llama llama-adapter gpt2 gpt2-adapter style1.txt style2.txt style2-pairs.jsonl

# WORD EXPRESSION: the JSON's figure, to five digits, is the one in the table.
expect_figure()
{
	expect_json "'%.4f' % x['$1']" "$2"
}

# --- the table of tests/data/README.md

for row in 'llama style1 2.6244 1013' 'llama style2 5.1178 1547' 'gpt2 style1 2.5915 1013' 'gpt2 style2 5.4626 1547'; do
	read -r model style perplexity tokens <<<"$row"
	done_reading "$LORACTL" eval "$model" --data "$style.txt" --json
	expect_json 'x["schema"]' loractl.eval/1
	expect_figure perplexity "$perplexity"
	expect_json 'x["tokens"], x["examples"], x["cut"]' "($tokens, 40, 0)"
	expect_json 'abs(math.exp(x["loss"]) - x["perplexity"]) < 1e-9 * x["perplexity"]' True
	expect_json 'x["tokens_per_second"] > 0' True
done
for row in 'llama style1 4.5814' 'llama style2 2.1237' 'gpt2 style1 3.6779' 'gpt2 style2 2.1828'; do
	read -r model style perplexity <<<"$row"
	done_reading "$LORACTL" eval "$model" --adapter "$model-adapter" --data "$style.txt" --json
	expect_figure perplexity "$perplexity"
done
# One thread, another order of options, a merged model: the same.
done_reading "$LORACTL" eval --threads 1 --data style1.txt llama --json
expect_figure perplexity 2.6244
expect_exit 0 "$LORACTL" merge -q llama llama-adapter --dtype f32 -o merged
done_reading "$LORACTL" eval merged --data style2.txt --json
expect_figure perplexity 2.1237
# An adapter and its opposite leave the base.
done_reading "$LORACTL" eval llama --adapter llama-adapter:0.5 --adapter llama-adapter:-0.5 --data style1.txt --json
expect_figure perplexity 2.6244
# Text for people says the same.
done_reading "$LORACTL" eval llama --data style1.txt
expect_stdout '^perplexity +2\.6244'
expect_stdout '1,013 predicted, in 40 examples'

# --- kinds of files

# text in jsonl, blank lines and carriage returns: the same examples.
python3 -c '
import json, sys
for line in open("style1.txt", encoding="utf-8"):
    print(json.dumps({"text": line.rstrip("\n"), "more": [1]}) + "\n")' >style1.jsonl
sed -e 's/$/\r/' -e 'G' style1.txt >crlf.txt
for file in style1.jsonl crlf.txt; do
	done_reading "$LORACTL" eval llama --data "$file" --json
	expect_figure perplexity 2.6244
	expect_json 'x["examples"]' 40
done
# Pairs: the completions alone are fewer, and well known to the adapter.
done_reading "$LORACTL" eval llama --adapter llama-adapter --data style2-pairs.jsonl --json
expect_json 'x["examples"]' 60
all=$(tools get "$OUT" 'x["tokens"]')
done_reading "$LORACTL" eval llama --adapter llama-adapter --data style2-pairs.jsonl --mask-prompt --json
expect_json "x['tokens'] < $all" True
# Conversations, by a template that the model does not bring.
echo '{"messages": [{"role": "user", "content": "The king"}, {"role": "assistant", "content": "was happy."}]}' >chat.jsonl
done_reading "$LORACTL" eval llama --template plain --data chat.jsonl --json
all=$(tools get "$OUT" 'x["tokens"]')
expect_json 'x["tokens"] > 4' True
done_reading "$LORACTL" eval llama --template llama2 --data chat.jsonl --json
all=$(tools get "$OUT" 'x["tokens"]')
done_reading "$LORACTL" eval llama --template llama2 --data chat.jsonl --mask-prompt --json
expect_json "0 < x['tokens'] < $all" True
# Cut examples are counted, and said.
expect_exit 0 "$LORACTL" eval llama --data style1.txt --seq-len 10 --json
expect_json 'x["tokens"], x["cut"]' '(360, 40)'
expect_stderr '40 of 40 examples were cut to 10 tokens'

# --- data that cannot be used

# STATUS PATTERN ARGUMENT...
not_evaluated()
{
	refused "$1" "$2" "$LORACTL" eval "${@:3}"
}

: >empty.txt
printf '\n \n' >blank.txt
not_evaluated 3 "'empty\.txt' holds no examples" llama --data empty.txt
not_evaluated 3 "'blank\.txt' holds no examples" llama --data blank.txt
not_evaluated 3 'no/such' llama --data no/such.txt
not_evaluated 3 '.' llama --data .
{ head -n 2 style1.jsonl; echo '{"text": "ok"'; } >bad.jsonl
not_evaluated 3 "'bad\.jsonl': line 3: " llama --data bad.jsonl
echo '["text"]' >bad.jsonl
not_evaluated 3 'line 1: it is no JSON object' llama --data bad.jsonl
echo '{"texts": "x"}' >bad.jsonl
not_evaluated 3 "line 1: it has neither 'text'" llama --data bad.jsonl
echo '{"text": 7}' >bad.jsonl
not_evaluated 3 "line 1: its 'text' is no string" llama --data bad.jsonl
echo '{"prompt": "x"}' >bad.jsonl
not_evaluated 3 "line 1: its 'completion' is no string" llama --data bad.jsonl
echo '{"messages": []}' >bad.jsonl
not_evaluated 3 "line 1: its 'messages' is no list" llama --data bad.jsonl
echo '{"messages": [{"role": "user"}]}' >bad.jsonl
not_evaluated 3 "line 1: message 1 has no 'role' or no 'content'" llama --data bad.jsonl
not_evaluated 3 'no chat template: --template' llama --data chat.jsonl
not_evaluated 2 "no template 'other': use one of: plain, chatml" llama --data chat.jsonl --template other
echo '{"messages": [{"role": "user", "content": "x"}]}' >bad.jsonl
not_evaluated 3 'no token to predict' llama --data bad.jsonl --template llama2 --mask-prompt
not_evaluated 3 'line 1: ' llama --data chat.jsonl --template plain --mask-prompt
for i in $(seq 60); do printf 'the king and the queen '; done >long.txt
not_evaluated 3 "'long\.txt': line 1: it has [0-9]+ tokens, the model has positions for 192: --seq-len" llama --data long.txt
expect_exit 0 "$LORACTL" eval -q llama --data long.txt --seq-len 192
printf 'ok\n\xff\xfe\x00\x1b[31m\n' >bytes.txt
expect_exit 0 "$LORACTL" eval -q llama --data bytes.txt

# --- models that cannot be run

# NAME: a fresh copy of the Llama model.
fresh()
{
	rm -rf "$1"
	cp -r llama "$1"
}

fresh m && rm m/tokenizer.json
not_evaluated 3 'tokenizer\.json' m --data style1.txt
fresh m && edit poke m/model.safetensors model.layers.2.mlp.up_proj.weight 17 nan
not_evaluated 3 "tensor 'model\.layers\.2\.mlp\.up_proj\.weight': element 17 is not finite" m --data style1.txt
fresh m && edit poke m/model.safetensors lm_head.weight 0 inf
not_evaluated 3 "tensor 'lm_head\.weight': element 0 is not finite" m --data style1.txt
fresh m && edit drop m/model.safetensors model.layers.3.self_attn.k_proj.weight
not_evaluated 3 "tensor 'model\.layers\.3\.self_attn\.k_proj\.weight' is missing" m --data style1.txt
fresh m && edit drop m/model.safetensors lm_head.weight
not_evaluated 3 "tensor 'lm_head\.weight' is missing" m --data style1.txt
fresh m && edit shape m/model.safetensors model.layers.0.mlp.down_proj.weight 250,90
not_evaluated 3 "down_proj\.weight' has not the shape \[90, 250\]" m --data style1.txt
fresh m && edit shape m/model.safetensors model.norm.weight 91
not_evaluated 3 "model\.norm\.weight' has not the shape \[90\]" m --data style1.txt
fresh m && edit add m/model.safetensors model.layers.0.self_attn.q_proj.bias F32 108 0.5
not_evaluated 3 "tensor 'model\.layers\.0\.self_attn\.q_proj\.bias' is no part of a llama model" m --data style1.txt
fresh m && edit cast m/model.safetensors F64 up_proj
not_evaluated 3 'is of type F64: only F32, F16 and BF16' m --data style1.txt
# Weights so large that products overflow.
fresh m && edit scale m/model.safetensors 'down_proj|up_proj|gate_proj|o_proj|v_proj' 1e30
not_evaluated 3 'not finite' m --data style1.txt
# The tokenizer of a larger vocabulary.
fresh m
edit shape m/model.safetensors model.embed_tokens.weight 200,90
edit shape m/model.safetensors lm_head.weight 200,90
edit set_json m/config.json vocab_size=200
not_evaluated 3 "line 1: token [0-9]+ is beyond the model's vocabulary of 200" m --data style1.txt
not_evaluated 3 'is one file: give a model' llama/model.safetensors --data style1.txt
not_evaluated 3 'no/such' no/such --data style1.txt

# KEY=JSON PATTERN: the config asks for something else.
while read -r pair pattern; do
	fresh m && edit set_json m/config.json "$pair"
	not_evaluated 3 "$pattern" m --data style1.txt
done <<'TABLE'
model_type="gemma2" models of type 'gemma2' cannot be run
model_type=7 config\.json has no 'model_type'
architectures=["LlamaForSequenceClassification"] architecture 'LlamaForSequenceClassification' cannot be run
hidden_act="relu" hidden_act 'relu' is not supported
hidden_act="gelu_new" hidden_act 'gelu_new' is not supported
logit_scale=0.0625 key 'logit_scale' is not known
quantization_config={"bits":4} key 'quantization_config' is not known
sliding_window=64 key 'sliding_window' is not known
attention_bias=true q_proj\.bias' is missing
mlp_bias=1 'mlp_bias' is neither true nor false
num_key_value_heads=4 6 heads of queries are no multiple of 4
num_key_value_heads=0 'num_key_value_heads' is no number from 1
num_hidden_layers=3 is no part of a llama model
num_hidden_layers=5 is missing
num_hidden_layers=99999 99999 layers are more than
hidden_size=99999999999 'hidden_size' is no number from 1
head_dim=17 has not the shape|cannot be turned in pairs
rms_norm_eps="x" 'rms_norm_eps' is no number
layer_types=["full_attention"] 'layer_types' is no list of 4 layers
layer_types=["full_attention","full_attention","full_attention","chunked_attention"] layer type 'chunked_attention' is not supported
rope_parameters={"rope_type":"yarn","factor":4,"rope_theta":1e4} rope type 'yarn' is not supported
rope_parameters={"rope_type":"dynamic","factor":4,"rope_theta":1e4} rope type 'dynamic' is not supported
rope_parameters={"rope_type":"linear","rope_theta":1e4} rope's 'factor' is missing
rope_parameters={"rope_type":"linear","factor":0,"rope_theta":1e4} rope's 'factor' is no usable number
rope_parameters={"rope_type":"default","rope_theta":1e4,"partial_rotary_factor":0.5} rope's 'partial_rotary_factor' is not supported
rope_scaling={"type":"linear","factor":2} both 'rope_parameters' and 'rope_scaling'
rope_theta=1234.5 two values of 'rope_theta'
TABLE
fresh m && edit set_json m/config.json logit_scale=0.0625
expect_exit 0 "$LORACTL" eval -q --allow-unknown m --data style1.txt
# Tied by the config, and not the same in the file.
fresh m && edit set_json m/config.json tie_word_embeddings=true
not_evaluated 3 "ties 'lm_head\.weight' to 'model\.embed_tokens\.weight', but the two differ" m --data style1.txt

# --- adapters

cp -r llama-adapter a
edit poke a/adapter_model.safetensors base_model.model.model.layers.1.mlp.up_proj.lora_B.weight 3 nan
not_evaluated 3 'lora_B\.weight.* is not finite' llama --adapter a --data style1.txt
not_evaluated 3 'find no place|not supported' gpt2 --adapter llama-adapter --data style1.txt
not_evaluated 3 "adapter 'llama-adapter' changes nothing" gpt2 --adapter llama-adapter --allow-unmatched --data style1.txt
cp -r llama-adapter part
edit rename part/adapter_model.safetensors base_model.model.model.layers.1.mlp.up_proj.lora_B.weight \
	base_model.model.model.layers.7.mlp.up_proj.lora_B.weight
edit rename part/adapter_model.safetensors base_model.model.model.layers.1.mlp.up_proj.lora_A.weight \
	base_model.model.model.layers.7.mlp.up_proj.lora_A.weight
not_evaluated 3 '2 of its 56 tensors find no place' llama --adapter part --data style1.txt
expect_exit 0 "$LORACTL" eval llama --adapter part --allow-unmatched --data style1.txt
expect_stderr 'part: 2 tensors find no place in the model: left out'
echo 'model.layers.7 model.layers.1' >map
done_reading "$LORACTL" eval llama --adapter part --key-map map --data style2.txt --json
expect_figure perplexity 2.1237
not_evaluated 2 'weight is no decimal' llama --adapter llama-adapter:x --data style1.txt
not_evaluated 3 'no/such' llama --adapter no/such --data style1.txt
cp -r llama-adapter bound
echo '{"base_root": "0000000000000000000000000000000000000000000000000000000000000000"}' >bound/loractl.json
run "$LORACTL" eval llama --adapter bound --data style1.txt
[ "$STATUS" -eq 1 ] && expect_stderr 'was trained on another base' || fail "a bound adapter: exit $STATUS: $(cat "$ERR")"
not_evaluated 2 "'--data' is required|--data" llama
