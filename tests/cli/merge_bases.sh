#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# merge_bases - every spelling of a base: shards, a snapshot of the hub's cache, links, one file; names with
# another leading component, a map of names, tied embeddings, added and replaced layers, tokenizers.
. "${SRC:?the repository}/tests/cli/merge_checks.sh" || exit 1
copies llama llama-adapter gpt2 gpt2-adapter
"$LORACTL" merge -q gpt2 gpt2-adapter -o want >"$OUT" || fail "exit $?"

# --- shards and an index

cp -r gpt2 sharded
edit shards sharded 4
done_well "$LORACTL" merge -q sharded gpt2-adapter -o out
judged merged sharded out out/loractl-receipt.json gpt2-adapter values=no
judged same_tensors want out
expect_json 'len(x["base"]["files"])' 4 out/loractl-receipt.json
rm -rf out
done_well "$LORACTL" merge -q sharded gpt2-adapter -o out --dtype f32 # the index has another total size
judged merged sharded out out/loractl-receipt.json gpt2-adapter values=no dtype=F32
rm -rf out
# A file that the index does not name is no part of the model.
cp sharded/model-00001-of-00004.safetensors sharded/other.safetensors
done_well "$LORACTL" merge -q sharded gpt2-adapter -o out
judged same_tensors want out
rm -rf out sharded
# Both: the single file is the model, as it is to transformers.
cp -r gpt2 both
edit shards both 2
cp gpt2/model.safetensors both
for file in both/model-*; do
	edit fill "$file" '.' 7
done
done_well "$LORACTL" merge -q both gpt2-adapter -o out
expect_same out/model.safetensors want/model.safetensors
rm -rf out both

# --- order and metadata of the base, whatever they are

cp -r gpt2 odd
edit reverse odd/model.safetensors
edit metadata odd/model.safetensors 'format=pt' 'a "key"=with \ and é and 1' 'z='
done_well "$LORACTL" merge -q odd gpt2-adapter -o out
judged merged odd out out/loractl-receipt.json gpt2-adapter values=no
judged same_tensors want out
expect_json 'x["base"]["root"]' "$(tools root gpt2)" out/loractl-receipt.json # the order is no part of it
rm -rf out
edit metadata odd/model.safetensors
done_well "$LORACTL" merge -q odd gpt2-adapter -o out
judged merged odd out out/loractl-receipt.json gpt2-adapter values=no
rm -rf out odd

# --- the hub's cache: blobs, and links to them from a snapshot

export HF_HUB_CACHE=$work/hub
snapshot=hub/models--org--model/snapshots/0123abc
mkdir -p "$snapshot" hub/models--org--model/refs hub/models--org--model/blobs
printf 0123abc >hub/models--org--model/refs/main
for file in gpt2/*; do
	sum=$(sha256sum <"$file" | cut -d' ' -f1)
	cp "$file" "hub/models--org--model/blobs/$sum"
	ln -s "../../blobs/$sum" "$snapshot/$(basename "$file")"
done
done_well "$LORACTL" merge -q org/model gpt2-adapter -o out
diff -r want out || fail "another result from the hub's cache"
[ -z "$(find out -type l)" ] || fail "links in the output"
rm -rf out
done_well "$LORACTL" merge -q "$snapshot" gpt2-adapter -o out
diff -r want out || fail "another result from a snapshot"
rm -rf out
mkdir -p hf "$XDG_CACHE_HOME/huggingface"
ln -s "$work/hub" hf/hub
ln -s "$work/hub" "$XDG_CACHE_HOME/huggingface/hub"
done_reading env -u HF_HUB_CACHE HF_HOME="$work/hf" "$LORACTL" merge -q org/model gpt2-adapter --dry-run
done_reading env -u HF_HUB_CACHE "$LORACTL" merge -q org/model gpt2-adapter --dry-run
done_reading env -u HF_HUB_CACHE "$LORACTL" inspect org/model
rm -rf hf "$XDG_CACHE_HOME/huggingface"
refused 3 "'org/other'" "$LORACTL" merge org/other gpt2-adapter -o out
refused 3 "'org/model'" env HF_HUB_CACHE="$work/nothing" "$LORACTL" merge org/model gpt2-adapter -o out
refused 2 '.' "$LORACTL" merge org/model gpt2-adapter -o "$snapshot/out"
refused 2 '.' "$LORACTL" merge org/model gpt2-adapter -o "hub/models--org--model/blobs"
for ref in ../../../gpt2 '' 0123abd /etc "0123abc/../0123abc"; do
	printf %s "$ref" >hub/models--org--model/refs/main
	refused 3 '.' "$LORACTL" merge org/model gpt2-adapter -o out
done
printf '0123abc\n' >hub/models--org--model/refs/main
# A path that is there wins over the name.
mkdir org
cp -r llama org/model
refused 3 "no place" "$LORACTL" merge org/model gpt2-adapter -o out
rm -rf org
# A link that leads nowhere.
rm "$(realpath "$snapshot/model.safetensors")"
refused 3 'model.safetensors|org/model' "$LORACTL" merge org/model gpt2-adapter -o out
rm -rf hub
unset HF_HUB_CACHE

# --- one leading component more or less in all names, printed

cp -r gpt2 short # as GPT-2 is spelled on the hub
edit substitute short/model.safetensors '^transformer\.' ''
done_well "$LORACTL" merge short gpt2-adapter -o out
expect_stderr 'transformer\.'
judged merged short out out/loractl-receipt.json gpt2-adapter 'rewrite=^transformer[.]:' values=no
rm -rf out
cp -r gpt2-adapter longer
edit substitute longer/adapter_model.safetensors '^base_model\.model\.transformer\.' 'base_model.model.'
done_well "$LORACTL" merge gpt2 longer -o out
expect_stderr 'transformer\.'
expect_same out/model.safetensors want/model.safetensors
rm -rf out
edit substitute longer/adapter_model.safetensors '^base_model\.model\.h\.' 'base_model.model.h.h.' # no choice of one fits
refused 3 'no place' "$LORACTL" merge gpt2 longer -o out
edit substitute longer/adapter_model.safetensors '^base_model\.model\.h\.h\.' 'transformer.h.' # no prefix of PEFT's at all
done_well "$LORACTL" merge gpt2 longer -o out
expect_same out/model.safetensors want/model.safetensors
rm -rf out short longer

# --- a map of names

cp -r gpt2-adapter odd
edit substitute odd/adapter_model.safetensors 'h\.0\.attn\.c_attn' 'first.attention'
refused 3 'no place' "$LORACTL" merge gpt2 odd -o out
printf '# a comment\n\n%s\t %s\n' transformer.first.attention.weight transformer.h.0.attn.c_attn.weight >map
done_well "$LORACTL" merge -q gpt2 odd -o out --key-map map
expect_same out/model.safetensors want/model.safetensors
rm -rf out
sed 's/c_attn/c_nothing/' map >wrong
refused 3 'c_nothing' "$LORACTL" merge gpt2 odd -o out --key-map wrong
for line in one 'one two three' 'a b\na c'; do
	printf "$line\n" >wrong
	refused '2|3' 'wrong' "$LORACTL" merge gpt2 odd -o out --key-map wrong
done
refused 3 'nothing' "$LORACTL" merge gpt2 odd -o out --key-map nothing
rm -rf odd map wrong

# --- tied embeddings: an adapter of the head alone

cp -r gpt2-adapter head
rm head/adapter_model.safetensors
edit add head/adapter_model.safetensors base_model.model.lm_head.lora_A.weight F32 3,84 random
edit add head/adapter_model.safetensors base_model.model.lm_head.lora_B.weight F32 509,3 random
edit set_json head/adapter_config.json r=3 'target_modules=["lm_head"]' fan_in_fan_out=false
done_well "$LORACTL" merge gpt2 head -o out
expect_stderr 'tie_word_embeddings|tied'
expect_json 'x["tie_word_embeddings"]' False out/config.json
expect_json 'x["added"]' "['lm_head.weight']" out/loractl-receipt.json
tools header out/model.safetensors >"$OUT"
expect_stdout '^lm_head.weight F16 509,84 '
expect_equal "$(grep -c . "$OUT")" "$(($(tools header gpt2/model.safetensors | grep -c .) + 1))"
judged head_alone gpt2 out head
diff <(jq -S 'del(.tie_word_embeddings)' gpt2/config.json) <(jq -S 'del(.tie_word_embeddings)' out/config.json) ||
	fail "config.json changed in more than one key"
rm -rf out
refused 3 'tied|tie_word_embeddings' "$LORACTL" merge gpt2 head -o out --tied refuse
done_well "$LORACTL" merge -q gpt2 gpt2-adapter -o out --tied refuse # it touches neither side
expect_same out/model.safetensors want/model.safetensors
rm -rf out head

# --- full layers: replaced, added, with more rows

cp -r gpt2-adapter full
edit add full/adapter_model.safetensors base_model.model.score.weight F32 4,84 random
edit set_json full/adapter_config.json 'modules_to_save=["score"]'
done_well "$LORACTL" merge gpt2 full -o out
expect_json 'x["added"]' "['score.weight']" out/loractl-receipt.json
expect_stdout '1 added'
tools header out/model.safetensors >"$OUT"
expect_stdout '^score.weight F(16|32) 4,84 '
rm -rf out full
cp -r llama-adapter full
edit add full/adapter_model.safetensors base_model.model.model.embed_tokens.weight BF16 512,90 random
edit add full/adapter_model.safetensors base_model.model.lm_head.weight BF16 512,90 random
edit set_json full/adapter_config.json 'modules_to_save=["embed_tokens", "lm_head"]'
done_well "$LORACTL" merge llama full -o out
expect_json 'x["vocab_size"]' 512 out/config.json
expect_stderr '512.*vocab_size|vocab_size.*512'
tools header out/model.safetensors >"$OUT"
expect_stdout '^lm_head.weight BF16 512,90 '
expect_stdout '^model.embed_tokens.weight BF16 512,90 '
expect_equal "$(tools element out/model.safetensors lm_head.weight 46000)" \
	"$(tools element full/adapter_model.safetensors base_model.model.lm_head.weight 46000)"
refused 3 'weight' "$LORACTL" merge llama full:0.5 -o out2 # a replaced layer has no half
rm -rf out full

# --- whose tokenizer; nothing else of an adapter gets into the output

cp -r gpt2-adapter speaking
jq '.added = 1' gpt2/tokenizer_config.json >speaking/tokenizer_config.json
cp gpt2/tokenizer.json gpt2/special_tokens_map.json speaking
echo secret >speaking/training_args.bin
echo '{"evil": 1}' >speaking/config.json
echo '{"evil": 1}' >speaking/generation_config.json
done_well "$LORACTL" merge gpt2 speaking -o out
expect_stderr 'tokenizer'
diff -r want out -x loractl-receipt.json || fail "the adapter's files got into the output"
rm -rf out
done_well "$LORACTL" merge gpt2 speaking -o out --tokenizer adapter
expect_stderr 'tokenizer'
expect_same out/tokenizer_config.json speaking/tokenizer_config.json
expect_same out/config.json gpt2/config.json
expect_same out/generation_config.json gpt2/generation_config.json
expect_equal "$(ls out)" "$(ls want)"
rm -rf out
done_well "$LORACTL" merge gpt2 gpt2-adapter -o out --tokenizer base
! grep -q tokenizer "$ERR" || fail "a difference is reported where there is none: $(cat "$ERR")"
expect_only llama llama-adapter gpt2 gpt2-adapter speaking want out
