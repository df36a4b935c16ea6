#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# rebuild - a merge again from its receipt: the same files, or nothing and the reason.
. "${SRC:?the repository}/tests/cli/merge_checks.sh" || exit 1
copies llama llama-adapter gpt2 gpt2-adapter
cp -r gpt2-adapter other
edit scale other/adapter_model.safetensors lora_B -0.3
cp -r "$SRC/tests/data/undo" golden

# BASE [ADAPTER[:WEIGHT]...] [-- OPTION...]: merged, and again from the receipt alone, in other places and orders.
again()
{
	local base=$1 given=() plain=() reversed=() options=()

	shift
	while [ $# -gt 0 ] && [ "$1" != -- ]; do
		given+=("$1")
		plain+=("${1%:*}")
		reversed=("${1%:*}" "${reversed[@]}")
		shift
	done
	[ $# -eq 0 ] || options=("${@:2}")
	done_well "$LORACTL" merge -q "$base" "${given[@]}" "${options[@]}" -o want
	done_well "$LORACTL" rebuild -q want/loractl-receipt.json "$base" "${plain[@]}" -o have
	diff -r want have || fail "$base: another model"
	rm -rf have
	done_well "$LORACTL" rebuild -q want/loractl-receipt.json "$base" "${reversed[@]}" -o have --threads 5
	diff -r want have || fail "$base: another model from the adapters in another order"
	rm -rf want have
}
again llama llama-adapter
again llama llama-adapter:0.3 -- --dtype f32
again gpt2 gpt2-adapter other:0.7
again gpt2 other:-0.25 gpt2-adapter:3 -- --dtype bf16
again gpt2 gpt2-adapter gpt2-adapter:0.1 # the same one twice
again golden/llama/base golden/llama/sums golden/llama/dora golden/llama/more:-0.7 golden/llama/more:0.3
again golden/gpt2/base golden/gpt2/dora golden/gpt2/tie
cp -r llama shards
edit shards shards 3
again shards llama-adapter

# --- the receipt carries every option that changes the result

cp -r llama-adapter renamed
edit substitute renamed/adapter_model.safetensors 'self_attn\.q_proj' 'attention.query'
for i in 0 1 2 3; do
	echo "model.layers.$i.attention.query model.layers.$i.self_attn.q_proj"
done >map
again llama renamed -- --key-map map
cp -r llama-adapter partial
edit add partial/adapter_model.safetensors base_model.model.model.layers.9.mlp.up_proj.lora_A.weight F32 6,90 1
edit add partial/adapter_model.safetensors base_model.model.model.layers.9.mlp.up_proj.lora_B.weight F32 250,6 1
again llama partial -- --allow-unmatched
cp -r llama-adapter zero
edit fill zero/adapter_model.safetensors lora_B 0
again llama zero -- --allow-noop
cp -r llama-adapter unknown
edit set_json unknown/adapter_config.json 'a_new_option=true'
again llama unknown -- --allow-unknown
cp -r llama-adapter pissa
edit set_json pissa/adapter_config.json 'init_lora_weights="pissa"'
again llama pissa -- --allow-mutated-base
cp -r gpt2-adapter token
echo '{"chat": 1}' >token/chat_template.json
again gpt2 token -- --tokenizer adapter
again gpt2 gpt2-adapter -- --tied refuse
rm -rf renamed map partial zero unknown pissa token

# --- single files, other names, --json, -q, -v, the undo of the old one

cp llama/model.safetensors single.safetensors
done_well "$LORACTL" merge -q single.safetensors llama-adapter -o want.safetensors
done_well "$LORACTL" rebuild -q want.safetensors.receipt.json single.safetensors llama-adapter -o have.safetensors
expect_same want.safetensors have.safetensors
expect_same want.safetensors.receipt.json have.safetensors.receipt.json
rm -f want.* have.* single.safetensors
done_well "$LORACTL" merge -q gpt2 gpt2-adapter other:0.5 -o want --undo record
cp want/loractl-receipt.json receipt.json
mkdir elsewhere
cp -r gpt2 elsewhere/model
cp -r gpt2-adapter elsewhere/one
cp -r other elsewhere/two
done_well "$LORACTL" rebuild receipt.json elsewhere/model elsewhere/two elsewhere/one -o have
expect_stdout '^rebuilt +[0-9.]+ [KM]iB of weights in [0-9.]+ s, every SHA-256 the receipt.s$'
diff -r -x loractl-receipt.json want have || fail "another model in another place"
expect_json 'x["undo"]' None have/loractl-receipt.json
expect_json '[a["weight"] for a in x["adapters"]]' '[1, 0.5]' have/loractl-receipt.json
expect_exit 0 "$LORACTL" unmerge -q have --undo record -o back # it is that model, and so its record leads back
diff -r gpt2 back || fail "another base from the rebuilt model"
done_well "$LORACTL" rebuild --json receipt.json gpt2 gpt2-adapter other -o json
expect_same "$OUT" json/loractl-receipt.json
done_well "$LORACTL" rebuild -q receipt.json gpt2 gpt2-adapter other -o quiet
expect_empty "$OUT" "$ERR"
rm -rf elsewhere have back json quiet record
# What --json printed is a receipt too, whatever ends its lines.
expect_exit 0 "$LORACTL" merge -q gpt2 gpt2-adapter other:0.5 -o old --json
sed 's/$/\r/' "$OUT" >crlf.json
done_well "$LORACTL" rebuild -q crlf.json gpt2 gpt2-adapter other -o have
diff -r old have || fail "another model from a receipt with CRLF"
rm -rf have old crlf.json

# --- not these inputs: 1, and what they are

# STATUS PATTERN RECEIPT BASE ADAPTER...
not()
{
	refused "$1" "$2" "$LORACTL" rebuild -q "${@:3}" -o have
}
cp -r gpt2 changed
edit poke changed/model.safetensors transformer.wpe.weight 3 0.125
not 1 'base|root' receipt.json changed gpt2-adapter other
not 1 'base|root' receipt.json llama gpt2-adapter other
not 3 "'nowhere'" receipt.json nowhere gpt2-adapter other
cp -r other twisted
edit poke twisted/adapter_model.safetensors base_model.model.transformer.h.0.attn.c_attn.lora_A.weight 0 0.5
not 1 "none of the adapters given is the receipt's 'other' \(root [0-9a-f]{16}" receipt.json gpt2 gpt2-adapter twisted
not 1 "none of the adapters given is the receipt's 'gpt2-adapter'" receipt.json gpt2 other other
cp -r other strong
edit set_json strong/adapter_config.json lora_alpha=13
not 1 '.' receipt.json gpt2 gpt2-adapter strong # the weights are the same, what they mean is not
not 2 'names 2 adapters, 1 are given' receipt.json gpt2 gpt2-adapter
not 2 'names 2 adapters, 3 are given' receipt.json gpt2 gpt2-adapter other other
not 2 'weights are the receipt' receipt.json gpt2 gpt2-adapter other:0.5
not 2 'weights are the receipt' receipt.json gpt2 gpt2-adapter:2 other
refused 2 '.' "$LORACTL" rebuild receipt.json gpt2 -o have
refused 2 "'-o OUT'" "$LORACTL" rebuild receipt.json gpt2 gpt2-adapter other
rm -rf changed twisted strong

# --- not this receipt

# PYTHON WHAT: receipt.json with one thing changed, as bent.json
bend()
{
	python3 - "$1" <<'PYTHON' || fail "bend $1"
import json, sys
x = json.load(open("receipt.json"))
exec(sys.argv[1])
json.dump(x, open("bent.json", "w"))
PYTHON
}
# STATUS PATTERN PYTHON
bent()
{
	bend "$3"
	not "$1" "$2" bent.json gpt2 gpt2-adapter other
}
digest='"0" * 64'
bent 1 'does not come out as the receipt says: nothing was written' "x['merged']['files'][0]['sha256'] = $digest"
bent 1 "does not come out" "x['merged']['files'][0]['name'] = 'other.safetensors'"
bent 1 'names 2 files' "x['merged']['files'] *= 2"
bent 1 'base|root' "x['base']['root'] = $digest"
bent 1 'adapter' "x['adapters'][1]['root'] = $digest"
bent 1 'does not come out' "x['adapters'][1]['weight'] = 0.25"
bent 1 'does not come out|names' "x['options']['dtype'] = 'F32'"
bent 3 'dtype' "x['options']['dtype'] = 'F31'"
bent 3 'version 2 of the arithmetic' "x['arithmetic'] = 2"
bent 3 'arithmetic' "del x['arithmetic']"
bent 3 'schema' "x['schema'] = 'loractl.receipt/2'"
bent 3 'schema' "del x['schema']"
bent 3 'dry run' "x['merged'] = None"
bent 3 '.' "del x['merged']"
bent 3 '.' "x['merged']['files'] = []"
bent 3 '.' "x['merged']['files'][0]['sha256'] = 'x'"
bent 3 '.' "del x['merged']['files'][0]['name']"
bent 3 'adapters' "x['adapters'] = []"
bent 3 '.' "del x['adapters'][0]['root']"
bent 3 '.' "del x['adapters'][0]['weight']"
bent 3 'root' "del x['base']"
bent 3 'root' "x['base']['root'] = x['base']['root'][1:]"
bent 3 'options' "del x['options']"
bent 3 'options|tied' "x['options']['tied'] = 3"
bent 3 'key map' "x['options']['key_map'] = [['a']]"
bent 3 'key map' "x['options']['key_map'] = [['a', 3]]"
bent 3 '.' "x['options']['key_map'] = {'a': 'b'}"
# An unknown choice is no choice.
bent 3 'tied' "x['options']['tied'] = 'cut'"
bent 3 'tokenizer' "x['options']['tokenizer'] = 'mine'"
"$LORACTL" merge -q gpt2 gpt2-adapter other:0.5 --dry-run --json >dry.json || fail "exit $?"
not 3 'dry run' dry.json gpt2 gpt2-adapter other
for size in 0 1 100 1000 $(($(stat -c %s receipt.json) - 3)); do
	head -c "$size" receipt.json >cut.json
	not 3 "'cut\.json'" cut.json gpt2 gpt2-adapter other
done
not 3 '.' gpt2/config.json gpt2 gpt2-adapter other
not 3 '.' gpt2/model.safetensors gpt2 gpt2-adapter other
not 3 "'nowhere'" nowhere gpt2 gpt2-adapter other
not '3|4' "'gpt2'" gpt2 gpt2 gpt2-adapter other
rm -f ./*.json
# Places.
cp want/loractl-receipt.json receipt.json
for place in gpt2 gpt2/x gpt2-adapter/x want; do
	refused 2 '.' "$LORACTL" rebuild receipt.json gpt2 gpt2-adapter other -o $place
done
refused 2 "output 'want' exists: remove it\$" "$LORACTL" rebuild receipt.json gpt2 gpt2-adapter other -o want
refused '2|3|4' 'missing' "$LORACTL" rebuild receipt.json gpt2 gpt2-adapter other -o missing/x
