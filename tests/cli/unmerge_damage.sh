#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# unmerge_damage - a merged model that was changed by one bit, anywhere, is refused and named.
. "${SRC:?the repository}/tests/cli/merge_checks.sh" || exit 1
cp -r "$SRC/tests/data/undo" golden

# FILE OFFSET [BIT]: turns one bit of it round.
flip()
{
	python3 - "$@" <<'PYTHON' || fail "flip $*"
import sys
with open(sys.argv[1], "r+b") as file:
    file.seek(int(sys.argv[2]), 2 if sys.argv[2].startswith("-") else 0)
    at = file.tell()
    byte = file.read(1)[0] ^ 1 << int((sys.argv + ["0"])[3])
    file.seek(at)
    file.write(bytes([byte]))
PYTHON
}

# FILE TENSOR: where its data begins.
begin()
{
	python3 - "$@" <<'PYTHON'
import json, struct, sys
with open(sys.argv[1], "rb") as file:
    (n,) = struct.unpack("<Q", file.read(8))
    print(8 + n + json.loads(file.read(n))[sys.argv[2]]["data_offsets"][0])
PYTHON
}

# MODEL PATTERN: refused with 1; then the model is as it was.
no()
{
	refused 1 "$2" "$LORACTL" unmerge changed --undo "golden/$1/merged.undo" -o x
	rm -rf changed
	cp -r "golden/$1/merged" changed
}

# --- weights: one bit of every tensor, at its beginning, its end or inside; adapted, replaced, added, split off, untouched

turn=0
for model in llama gpt2; do
	rm -rf changed
	cp -r golden/$model/merged changed
	for file in golden/$model/merged/*.safetensors; do
		while read -r name _ shape _; do
			at=$(begin "$file" "$name")
			bytes=$(($(tr , '*' <<<"$shape"))) # at least as many bytes as elements
			case $((turn++ % 3)) in
			0) flip "changed/${file##*/}" "$at" 0 ;;
			1) flip "changed/${file##*/}" $((at + bytes - 1)) 7 ;;
			2) flip "changed/${file##*/}" $((at + bytes / 2)) 3 ;;
			esac
			refused 1 "^loractl unmerge: tensor '${name//./\\.}' is not what the merge wrote" \
				"$LORACTL" unmerge changed --undo golden/$model/merged.undo -o x
			cp "$file" "changed/${file##*/}"
		done < <(tools header "$file")
	done
done
tools header golden/llama/merged/model-00002-of-00002.safetensors >names
tools header golden/llama/merged/model-00001-of-00002.safetensors >>names
for name in score lm_head q_proj gate_proj embed_tokens positions; do # an added, a replaced ... one was among them
	grep -q "$name" names || fail "no $name"
done
rm names

# --- headers, other files

edit metadata changed/model.safetensors format=tp
no gpt2 "a file has another size or other tensors"
edit metadata changed/model.safetensors format=pt more=1
no gpt2 "a file has another size or other tensors"
edit drop changed/model.safetensors lm_head.weight
no gpt2 "a file has another size or other tensors"
edit add changed/model.safetensors more F32 2 1
no gpt2 "a file has another size or other tensors"
edit rename changed/model.safetensors lm_head.weight lm_tail.weight
no gpt2 "a file has another size or other tensors"
edit cast changed/model.safetensors F32 ln_1
flip changed/config.json 30
no gpt2 "'config\.json' of 'changed' is not what the merge wrote"
printf '\n' >>changed/config.json
no gpt2 "'config\.json' of 'changed' is not what the merge wrote"
for file in tokenizer_config.json generation_config.json README.md; do
	flip changed/$file -3
	no gpt2 "'${file//./\\.}' of 'changed' is not what the merge wrote"
	rm changed/$file
	no gpt2 "'${file//./\\.}' of 'changed' is not what the merge wrote"
	rm changed/$file && mkdir changed/$file
	no gpt2 "'${file//./\\.}' of 'changed' is not what the merge wrote"
done
# What the base does not have is nobody's business.
echo mine >changed/notes
expect_exit 0 "$LORACTL" unmerge -q changed --undo golden/gpt2/merged.undo -o back
diff -r back golden/gpt2/base || fail "another base with a strange file beside"
rm -rf back changed
cp -r golden/llama/merged changed
echo >>changed/model.safetensors.index.json # still the same index
no llama "'model\.safetensors\.index\.json' of 'changed' is not what the merge wrote"
rm changed/model-00002-of-00002.safetensors
refused 3 'model-00002' "$LORACTL" unmerge changed --undo golden/llama/merged.undo -o x
rm -rf changed
cp -r golden/llama/merged changed
cp golden/llama/base/model-00001-of-00002.safetensors changed
no llama "tensor '[^']*' is not what the merge wrote"

# --- another record; no record

refused 1 "is not the record of 'changed'" "$LORACTL" unmerge changed --undo golden/gpt2/merged.undo -o x
refused 1 'one is a directory, the other a file' "$LORACTL" unmerge golden/gpt2/merged/model.safetensors --undo golden/gpt2/merged.undo -o x
refused 3 'no undo record' "$LORACTL" unmerge changed --undo golden/gpt2/merged/model.safetensors -o x
refused 3 '.' "$LORACTL" unmerge changed --undo golden/gpt2/merged/config.json -o x
refused 3 '.' "$LORACTL" unmerge changed --undo golden/gpt2/merged -o x
refused 3 '.' "$LORACTL" unmerge changed --undo /dev/null -o x
rm -rf changed
