#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# merge_adapters - an adapter whose configuration is malformed, contradicts the weights or asks for what is not
# known, one of another kind, and what is no adapter at all.
. "${SRC:?the repository}/tests/cli/merge_checks.sh" || exit 1
edit small base adapter
"$LORACTL" merge -q base adapter -o whole >"$OUT" || fail "exit $?"

# KEY=JSON, or KEY to leave it out: a fresh copy of the adapter as `bad`, with these in its configuration.
config()
{
	local pair key text=
	local -A have=([peft_type]='"LORA"' [r]=2 [lora_alpha]=3 [target_modules]='["q_proj", "v_proj"]')

	for pair in "$@"; do
		key=${pair%%=*}
		unset "have[$key]"
		[ "$key" = "$pair" ] || have[$key]=${pair#*=}
	done
	for key in "${!have[@]}"; do
		text+=", \"$key\": ${have[$key]}"
	done
	rm -rf bad
	cp -r adapter bad
	printf '{%s}\n' "${text#, }" >bad/adapter_config.json
}

# STATUS PATTERN OPTION...: the bad adapter
bad()
{
	refused "$1" "$2" "$LORACTL" merge base bad -o refused "${@:3}"
	rm -rf refused
}

# OPTION...: it goes, and is looked at in out
good()
{
	rm -rf out
	done_well "$LORACTL" merge base bad -o out "$@"
}

# --- ranks and scales

config r=3
bad 3 "'r'.*3|rank.*3|3.*rank"
config r=12
bad 3 "'?r'?.*12|rank.*12|12.*rank"
config 'rank_pattern={"q_proj": 5}'
bad 3 '5'
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
for key in r peft_type lora_alpha target_modules; do # twice, be it with the same value
	config
	edit duplicate_key bad/adapter_config.json $key "$(tools get adapter/adapter_config.json "json.dumps(x['$key'])")"
	bad 3 "'$key'"
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
cp adapter/adapter_config.json bad
bad 3 'adapter_model|weights'
printf 'PK\3\4 a zip, as torch writes it' >bad/adapter_model.bin
bad 3 'adapter_model\.bin'
rm -rf bad
mkdir bad
bad 3 "bad"
cp adapter/adapter_model.safetensors alone.safetensors # no configuration beside it ...
refused 3 'adapter_config\.json' "$LORACTL" merge base alone.safetensors -o out
edit metadata alone.safetensors format=pt r=2 lora_alpha=3 # ... but its facts in the metadata
done_well "$LORACTL" merge -q base alone.safetensors -o out
expect_same out/model.safetensors whole/model.safetensors
rm -rf out
edit metadata alone.safetensors format=pt r=2 # alpha is not guessed, or it is said
run "$LORACTL" merge base alone.safetensors -o out
[ "$STATUS" -eq 3 ] || expect_stderr 'alpha'
rm -rf out alone.safetensors
refused 3 "'nothing'" "$LORACTL" merge base nothing -o out
refused 3 "'nothing:0\.5'|'nothing'" "$LORACTL" merge base nothing:0.5 -o out
refused 3 "." "$LORACTL" merge base base -o out # a base is no adapter
refused 3 "." "$LORACTL" merge adapter adapter -o out # an adapter is no base
refused 3 "'nothing'" "$LORACTL" merge nothing adapter -o out
refused 3 '.' "$LORACTL" merge base /dev/null -o out
refused 3 '.' "$LORACTL" merge /dev/null adapter -o out
echo 'no adapter' >text
refused 3 'text' "$LORACTL" merge base text -o out
mkfifo bad/fifo bad/adapter_model.safetensors
refused 3 'fifo' soon "$LORACTL" merge base bad/fifo -o out
cp adapter/adapter_config.json bad
refused 3 'adapter_model\.safetensors' soon "$LORACTL" merge base bad -o out


# --- a config that names other modules than there are tensors: the tensors decide, and that is said

config 'target_modules=["q_proj"]'
done_well "$LORACTL" merge base bad -o edited
expect_stderr "warning: bad: target_modules .*'model\.layers\.0\.self_attn\.v_proj'\$"
cmp edited/model.safetensors whole/model.safetensors || fail "the config decides"
rm -r edited
config 'target_modules=".*_proj"' 'trainable_token_indices=[3]'
done_well "$LORACTL" merge base bad -o edited
expect_stderr 'warning: bad: trainable_token_indices'
rm -r edited
