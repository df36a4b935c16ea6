#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# merge_outputs - what a merge writes: a model like the base and a receipt beside it; what it prints where.
. "${SRC:?the repository}/tests/cli/merge_checks.sh" || exit 1
copies llama llama-adapter
mv llama base
mv llama-adapter adapter

# --- a directory: the same files, and the receipt

done_well "$LORACTL" merge base adapter -o out
cp "$OUT" "$cli_folder/text"
cp "$ERR" "$cli_folder/notes"
judged merged base out out/loractl-receipt.json adapter values=no
expect_only base adapter out
for file in out out/*; do
	[ -r "$file" ] || fail "not readable: $file"
done
expect_equal "$(stat -c %a out)" "$(stat -c %a base)"
expect_equal "$(stat -c %a out/config.json)" "$(stat -c %a base/config.json)"

# Standard output has the figures: modules, size of the update, unchanged weights, noise, bytes, seconds.
cp "$cli_folder/text" "$OUT"
expect_stdout '(^|[^0-9])28( |$)'
expect_stdout '\|W\|'
expect_stdout '[Uu]nchanged'
expect_stdout '[Nn]oise'
expect_stdout '(K|M|G)i?B'
expect_stdout '[0-9] s$'
# Standard error has the note that this adapter is not bound to any base, and it is the only line.
cp "$cli_folder/notes" "$ERR"
expect_stderr_line '^loractl merge: note: .*adapter.*(binding|bound)'

# --- no name of the machine, no path, no time; the same in another place, at another time, under other names

host=$(uname -n)
[ "${#host}" -ge 4 ] || host=$work
judged anonymous out/loractl-receipt.json "$work" "$cli_folder" "$host"
mkdir -p elsewhere/deep
cp -r base elsewhere/deep/base
cp -r adapter elsewhere/deep/adapter
touch -d '2001-02-03 04:05:06' elsewhere/deep/base/model.safetensors
(cd elsewhere && TZ=Asia/Tokyo "$LORACTL" merge -q "$work/elsewhere/deep/base/" ./deep/../deep/adapter/ -o other) >"$OUT" ||
	fail "exit $? elsewhere"
diff -r out elsewhere/other || fail "another result in another place"
rm -rf elsewhere

# --- --json prints the receipt that is written

done_well "$LORACTL" merge base adapter -o again --json
expect_same "$OUT" again/loractl-receipt.json
expect_same "$OUT" out/loractl-receipt.json
done_well "$LORACTL" merge --json -q base adapter -o quiet
expect_same "$OUT" out/loractl-receipt.json
expect_empty "$ERR"
diff -r out again || fail "another result the second time"
rm -rf again quiet

# --- quiet and verbose

done_well "$LORACTL" merge -q base adapter -o quiet
expect_empty "$OUT" "$ERR"
diff -r out quiet || fail "another result with --quiet"
done_well "$LORACTL" merge -v base adapter -o loud
for module in q_proj k_proj v_proj o_proj; do
	expect_equal "$(cat "$OUT" "$ERR" | grep -c "$module\.weight")" 4
done
diff -r out loud || fail "another result with --verbose"
rm -rf quiet loud

# No terminal: no colours, no line that is written over.
done_well "$LORACTL" merge --color auto base adapter -o plain
rm -rf plain

# --- no receipt

done_well "$LORACTL" merge base adapter -o bare --no-receipt
[ ! -e bare/loractl-receipt.json ] || fail "a receipt in spite of --no-receipt"
rm -rf expected
cp -r out expected
rm expected/loractl-receipt.json
diff -r bare expected || fail "another result with --no-receipt"
rm -rf bare expected
refused 2 "'?--no-receipt'?|'?--json'?" "$LORACTL" merge base adapter -o bare --no-receipt --json

# --- nothing is written by a dry run

done_reading "$LORACTL" merge base adapter --dry-run
expect_stdout '[Uu]nchanged'
done_reading "$LORACTL" merge base adapter --dry-run -o dry
done_reading "$LORACTL" merge base adapter --dry-run --json
judged merged base - "$OUT" adapter
tools get "$OUT" 'json.dumps({k: v for k, v in x.items() if k != "merged"})' >"$cli_folder/dry"
tools get out/loractl-receipt.json 'json.dumps({k: v for k, v in x.items() if k != "merged"})' >"$cli_folder/wet"
expect_same "$cli_folder/dry" "$cli_folder/wet"
refused 2 "'?--verify'?.*--dry-run" "$LORACTL" merge base adapter --dry-run --verify
refused 3 'no such|does not exist|not found|cannot be found|No such' "$LORACTL" merge base nothing --dry-run

# --- a single file

mkdir single
cp base/model.safetensors single/base.safetensors
done_well "$LORACTL" merge single/base.safetensors adapter -o merged.safetensors
judged merged single/base.safetensors merged.safetensors merged.safetensors.receipt.json adapter values=no
expect_same merged.safetensors out/model.safetensors
expect_equal "$(find . -maxdepth 1 -type f -printf '%f\n' | sort | xargs)" \
	'merged.safetensors merged.safetensors.receipt.json'
expect_json 'x["base"]["root"]' "$(tools root base)" merged.safetensors.receipt.json
done_well "$LORACTL" merge single/base.safetensors adapter -o bare.safetensors --no-receipt
expect_same merged.safetensors bare.safetensors
[ ! -e bare.safetensors.receipt.json ] || fail "a receipt in spite of --no-receipt"
# The adapter as a file, with its configuration beside it.
done_well "$LORACTL" merge base adapter/adapter_model.safetensors -o from-file
expect_same from-file/model.safetensors out/model.safetensors
rm -rf from-file single ./*.safetensors ./*.receipt.json

# --- where nothing changes its place or type, the head of a file keeps its bytes, also those that nobody needs

cp -r base odd
python3 - odd/model.safetensors <<'PYTHON'
import sys

data = open(sys.argv[1], "rb").read()
size = 8 + int.from_bytes(data[:8], "little")
head = data[8:size].rstrip().replace(b'"dtype":', b'"dtype" : ')
head += b" " * (-len(head) % 8 + 16)
open(sys.argv[1], "wb").write(len(head).to_bytes(8, "little") + head + data[size:])
PYTHON
done_well "$LORACTL" merge -q odd adapter -o from-odd
cmp -n $((8 + $(od -An -tu8 -N8 odd/model.safetensors))) odd/model.safetensors from-odd/model.safetensors ||
	fail "the head is another"
rm -r odd from-odd

# --- tensors that are moved in several pieces, merged ones and one that is not

edit large big big-adapter 5 2
edit add big/model.safetensors still F32 800,500 random
done_well "$LORACTL" merge -q big big-adapter -o from-big
judged merged big from-big from-big/loractl-receipt.json big-adapter values=no
rm -r big big-adapter from-big

# --- the merged model is a base like any other; --verify reads it back

done_well "$LORACTL" merge base adapter -o verified --verify
diff -r out verified || fail "another result with --verify"
done_well "$LORACTL" merge out adapter -o twice
judged merged out twice twice/loractl-receipt.json adapter
expect_json 'x["base"]["root"]' "$(tools get out/loractl-receipt.json 'x["merged"]["root"]')" twice/loractl-receipt.json
rm -rf verified twice

# --- other files: all of them, by their bytes, also hidden ones, folders and what looks odd

mkdir -p base/original/deep 'base/a b'
echo one >base/original/deep/params.json
echo two >'base/a b/c d.txt'
echo three >base/.gitattributes
: >base/empty
ln -s original/deep/params.json base/link
done_well "$LORACTL" merge -q base adapter -o out2
diff -r base out2 >"$cli_folder/diff"
expect_equal "$(grep -vc 'loractl-receipt\.json\|model\.safetensors' "$cli_folder/diff")" 0
[ ! -L out2/link ] || fail "a link in the output"
rm -r out2 base/link
# A link that leads out of the model would publish somebody's file.
ln -s ../adapter/README.md base/outside
done_well "$LORACTL" merge base adapter -o out2
expect_stderr 'outside.*leads out'
[ ! -e out2/outside ] || fail "a file from outside the model in the output"
rm -r out2 base/outside
# What cannot be copied, and what may be the weights once more, is left out, and that is said.
ln -s nowhere base/dangling
mkfifo base/fifo
ln -s . base/self
cp base/model.safetensors base/extra.safetensors
cp base/model.safetensors base/pytorch_model.bin
done_well soon "$LORACTL" merge base adapter -o out2
for name in dangling fifo self extra.safetensors pytorch_model.bin; do
	expect_stderr "note: .*'$name'"
	[ ! -e out2/$name ] || fail "$name is in the output"
done
expect_same out2/model.safetensors out/model.safetensors

expect_only base adapter out out2
