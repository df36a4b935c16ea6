#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# unmerge - there and back: merge --undo and unmerge give the base again, every file of it byte for byte.
. "${SRC:?the repository}/tests/cli/merge_checks.sh" || exit 1
copies llama llama-adapter gpt2 gpt2-adapter
golden=$SRC/tests/data/undo
cp -r gpt2-adapter other
edit scale other/adapter_model.safetensors lora_B -0.3

# BASE OUT RECORD: OUT and RECORD lead back to BASE, and to nothing else.
back()
{
	done_well "$LORACTL" unmerge -q "$2" --undo "$3" -o back
	expect_empty "$OUT" "$ERR"
	diff -r "$1" back || fail "$1 does not come back"
	rm -rf back
}

# BASE ADAPTER... [OPTION...]
round()
{
	done_well "$LORACTL" merge -q "$@" -o out --undo record
	! diff -qr "$1" out >/dev/null || fail "$*: the merge changed nothing"
	back "$1" out record
	rm -rf out out.receipt.json record
}

round llama llama-adapter
round gpt2 gpt2-adapter
round gpt2 gpt2-adapter other:0.7
round gpt2 other:-0.25 gpt2-adapter:3 other
for dtype in f32 bf16; do
	round llama llama-adapter --dtype $dtype
done
round gpt2 gpt2-adapter --dtype f32

# Shards, and one file alone.
cp -r llama llama-shards
edit shards llama-shards 5
round llama-shards llama-adapter
cp llama/model.safetensors single.safetensors
done_well "$LORACTL" merge -q single.safetensors llama-adapter -o out.safetensors --undo record
done_well "$LORACTL" unmerge -q out.safetensors --undo record -o back.safetensors
expect_same single.safetensors back.safetensors
mv out.safetensors renamed.safetensors # a single file may be called something else today
rm back.safetensors
done_well "$LORACTL" unmerge -q renamed.safetensors --undo record -o back.safetensors
expect_same single.safetensors back.safetensors
rm renamed.safetensors out.safetensors.receipt.json record back.safetensors single.safetensors

# Tensors in another order than their header, bytes of metadata, a type that no adapter touches, an empty tensor.
cp -r gpt2 odd
edit reverse odd/model.safetensors
edit add odd/model.safetensors empty F32 0,3 0
edit metadata odd/model.safetensors format=pt 'note=a b'
round odd gpt2-adapter
rm -rf odd

# Tensors of several blocks, and of rows that are longer than one.
edit small big big-adapter 600 500 2
round big big-adapter
edit small wide wide-adapter 300000 1 1
round wide wide-adapter
rm -rf big big-adapter wide wide-adapter

# --- f16 from f32: a record of its own size, which has to be asked for

cp -r llama wide
edit cast wide/model.safetensors F32
refused 2 '--undo-large' "$LORACTL" merge wide llama-adapter -o out --undo record --dtype f16
refused 2 '--undo-large' "$LORACTL" merge wide llama-adapter -o out --undo record --dtype bf16
refused 2 '--undo-large' "$LORACTL" merge wide llama-adapter --undo record --dtype bf16 --dry-run
# f16 has more bits of precision than bf16, and yet not its range: no refusal, and back all the same.
round wide llama-adapter --dtype f16 --undo-large
round wide llama-adapter --dtype bf16 --undo-large
round llama llama-adapter --dtype f16
rm -rf wide

# --- every kind of edit: the base of the golden records, and its adapters

cp -r "$golden" golden
for option in '' '--dtype f32'; do
	# shellcheck disable=SC2086
	round golden/llama/base golden/llama/sums golden/llama/dora golden/llama/more:-0.7 golden/llama/more:0.3 $option
	# shellcheck disable=SC2086
	round golden/gpt2/base golden/gpt2/dora golden/gpt2/tie $option
done
round golden/llama/base golden/llama/dora --dtype bf16 --undo-large
round golden/gpt2/base golden/gpt2/tie
cp -r golden/gpt2/base tied-shards
edit shards tied-shards 3
round tied-shards golden/gpt2/tie golden/gpt2/dora
rm -rf golden tied-shards

# --- the other files of a base: what the merge does not copy, the record keeps

cp -r llama rich
mkdir -p rich/original/deep rich/.git rich/.hidden/.deep
echo cell >rich/.hidden/.deep/note
echo '{"dim": 90}' >rich/original/params.json
echo deep >rich/original/deep/notes
echo bin >rich/pytorch_model.bin
echo 'a: signature' >rich/model.safetensors.minisig
echo '{"schema": "loractl.files/1"}' >rich/loractl-files.json
echo 'a: signature' >rich/loractl-files.json.minisig
echo '*.safetensors filter=lfs' >rich/.gitattributes
: >rich/empty
printf '\0\377\n' >rich/$'name with \303\274'
rmdir rich/.git
round rich llama-adapter
# More than a record keeps of one file: `left`, said when merging and when taking back.
truncate -s 17M rich/flax_model.msgpack
ln -s original rich/link
mkdir rich/.cache
echo cached >rich/.cache/x
done_well "$LORACTL" merge rich llama-adapter -o out --undo record
for name in flax_model.msgpack link .cache; do
	expect_stderr "not in the record: '$name'"
done
done_well "$LORACTL" unmerge out --undo record -o back
for name in flax_model.msgpack link .cache; do
	expect_stderr "'$name' of the base .* did not come back"
done
expect_equal "$(diff -r rich back)" "$(printf 'Only in rich: %s\n' .cache flax_model.msgpack link)"
expect_exit 0 "$LORACTL" inspect --json record
expect_json 'x["left"]' 3
rm -rf out record back rich

# A snapshot of the hub's cache: every file a link to a blob. What comes back has the same bytes.
mkdir -p hub/blobs hub/snapshots/1
for file in llama/*; do
	cp "$file" "hub/blobs/$(sha256sum "$file" | cut -c 1-64)"
	ln -s "../../blobs/$(sha256sum "$file" | cut -c 1-64)" "hub/snapshots/1/${file##*/}"
done
round hub/snapshots/1 llama-adapter
rm -rf hub

# --- one upon the other: last in, first out

done_well "$LORACTL" merge -q gpt2 gpt2-adapter -o one --undo one.undo
done_well "$LORACTL" merge -q one other:0.5 -o two --undo two.undo
done_well "$LORACTL" merge -q two other -o three --undo three.undo
refused 1 "'one\.undo' does not undo the last merge of 'three': that is 'three\.undo'" "$LORACTL" unmerge three --undo one.undo -o x
refused 1 "'two\.undo' .*'three\.undo' \(sha256 $(sha256sum <three.undo | cut -c 1-16)" "$LORACTL" unmerge three --undo two.undo -o x
refused 1 "'one\.undo' .*'two\.undo'" "$LORACTL" unmerge two --undo one.undo -o x
refused 1 "'three\.undo' .*'two\.undo'" "$LORACTL" unmerge two --undo three.undo -o x
refused 1 "tensor 'transformer\.h\.0\.[^']*' is not what the merge wrote" "$LORACTL" unmerge gpt2 --undo two.undo -o x
back two three three.undo
back one two two.undo
back gpt2 one one.undo
# Without a receipt nothing says which one it is, but not this one.
rm three/loractl-receipt.json
refused 1 "tensor '[^']*' is not what the merge wrote" "$LORACTL" unmerge three --undo one.undo -o x
back two three three.undo # the receipt itself is no part of what the merge wrote
# The receipt of the base is a file of it, which the merge replaced and the record keeps: back had it above.
[ -f one/loractl-receipt.json ] || fail "no receipt in the base: the test tests nothing"
rm -rf one two three ./*.undo
