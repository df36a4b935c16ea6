#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# container - pack, unpack, log, fsck and gc as their user meets them: what goes in comes out byte for byte, what is
# refused leaves nothing, and every command that takes an adapter takes a version of a container.
. "${SRC:?the repository}/tests/cli/merge_checks.sh" || exit 1
need python3
copies llama llama-adapter gpt2

# FILE: its schema's fields, from $OUT
json() { tools get "$OUT" "$1"; }

# PATH: flips a bit of a byte of the file.
flip()
{
	python3 - "$1" "$2" <<'PYTHON'
import sys
path, at = sys.argv[1], int(sys.argv[2])
data = bytearray(open(path, "rb").read())
data[at] ^= 1
open(path, "wb").write(data)
PYTHON
}

# --- pack and unpack

expect_exit 0 "$LORACTL" pack llama-adapter -o a.lora --message 'first
second line'
expect_empty "$ERR"
expect_stdout '^a\.lora: version 1, 3 files,'
expect_exit 0 "$LORACTL" unpack a.lora -o out
diff -r llama-adapter out || fail 'what was packed is not what comes out'
expect_exit 2 "$LORACTL" unpack a.lora -o out
expect_stderr_line "'out' exists"
expect_exit 2 "$LORACTL" pack llama-adapter -o a.lora
expect_stderr_line "'a.lora' exists: --append"
expect_exit 0 "$LORACTL" pack llama-adapter -o a.lora --append --json
expect_equal "$(json 'x["schema"], x["version"], x["unchanged"], x["stored"]')" "('loractl.pack/1', 1, True, 0)"
expect_exit 0 "$LORACTL" pack llama-adapter -o a.lora --append
expect_stdout 'unchanged: version 1 holds this content'
size=$(stat -c %s a.lora)

mkdir -p llama-adapter/deep/er llama-adapter/checkpoint-7
echo x >llama-adapter/deep/er/file
: >llama-adapter/empty
echo s >llama-adapter/optimizer.pt
echo s >llama-adapter/checkpoint-7/adapter_config.json
expect_exit 0 "$LORACTL" pack llama-adapter -o a.lora --append
expect_stderr "not packed: 'optimizer.pt'"
expect_stderr "not packed: 'checkpoint-7'"
[ $(($(stat -c %s a.lora) - size)) -lt 6000 ] || fail 'tensors that were there are stored again'
expect_exit 0 "$LORACTL" pack llama-adapter -o a.lora --append --all
expect_empty "$ERR"
expect_exit 0 "$LORACTL" unpack a.lora -o all
diff -r llama-adapter all || fail '--all packed not all'
expect_exit 0 "$LORACTL" unpack a.lora@2 -o two
[ -e two/deep/er/file ] && [ -e two/empty ] && [ ! -e two/optimizer.pt ] || fail 'version 2 is another'
expect_exit 0 "$LORACTL" unpack a.lora@1 -o one
diff -r one out || fail 'version 1 has changed'
expect_exit 3 "$LORACTL" unpack a.lora@4 -o four
expect_stderr_line "has no version 4: it has 1 to 3"
expect_exit 2 "$LORACTL" unpack a.lora@four -o four
expect_exit 3 "$LORACTL" unpack nothing.lora -o four
expect_exit 3 "$LORACTL" unpack llama/config.json -o four
expect_stderr_line 'no .lora container'
expect_exit 3 "$LORACTL" unpack llama -o four
[ ! -e four ] || fail 'a refused unpack left something'
cp a.lora a.lora@2
expect_exit 0 "$LORACTL" unpack a.lora@2 -o whole # a file of that name is meant first
diff -r llama-adapter whole || fail 'a.lora@2 is a file, and means its latest version'
rm a.lora@2

# The same directory and options give the same bytes; nothing of the time gets in.
expect_exit 0 "$LORACTL" pack two -o b.lora --name llama-adapter
sleep 1.1
touch two/*
mv two elsewhere
expect_exit 0 "$LORACTL" pack elsewhere -o c.lora --name llama-adapter
expect_same b.lora c.lora

# --- what cannot be packed

expect_exit 3 "$LORACTL" pack nothing -o d.lora
expect_exit 3 "$LORACTL" pack a.lora -o d.lora
expect_stderr_line 'is no directory'
mkdir bare
expect_exit 3 "$LORACTL" pack bare -o d.lora
echo hello >bare/readme
expect_exit 0 "$LORACTL" pack bare -o e.lora # files are files
expect_stderr 'warning: packed unread'
expect_exit 2 "$LORACTL" pack bare -o bare/d.lora -q
expect_stderr_line 'lies in'
expect_exit 3 "$LORACTL" pack bare -o none/d.lora
ln -s ../llama/config.json bare/link
expect_exit 3 "$LORACTL" pack bare -o d.lora -q
expect_stderr_line "'link' is a symbolic link that leads out"
rm bare/link
ln -s readme bare/inside
expect_exit 0 "$LORACTL" pack bare -o f.lora -q
expect_exit 0 "$LORACTL" unpack f.lora -o inside
expect_same inside/inside bare/readme
rm bare/inside
mkfifo bare/pipe
expect_exit 3 "$LORACTL" pack bare -o d.lora -q
expect_stderr_line "'pipe' cannot be packed"
rm bare/pipe
touch bare/$'new\nline'
expect_exit 3 "$LORACTL" pack bare -o d.lora -q
expect_stderr_line 'cannot be packed: names are UTF-8'
rm bare/new*
touch bare/$'\xff'
expect_exit 3 "$LORACTL" pack bare -o d.lora -q
expect_stderr_line 'cannot be packed: names are UTF-8'
rm bare/$'\xff'
[ ! -e d.lora ] || fail 'a refused pack left something'
expect_exit 2 "$LORACTL" pack bare -o e.lora --append --name other -q
expect_stderr_line "holds the adapter 'bare', not 'other'"
expect_exit 2 "$LORACTL" pack bare -o d.lora --name a/b -q
expect_exit 3 "$LORACTL" pack llama-adapter -o llama/config.json --append
expect_stderr_line 'no .lora container'

# --- log

expect_exit 0 "$LORACTL" log a.lora --json
expect_equal "$(json 'x["schema"], x["name"], [v["version"] for v in x["versions"]]')" \
	"('loractl.log/1', 'llama-adapter', [3, 2, 1])"
expect_equal "$(json 'x["versions"][2]["message"], x["versions"][2]["parent"], x["versions"][2]["base_root"], x["versions"][2]["signers"]')" \
	"('first\\nsecond line', None, None, [])"
expect_equal "$(json 'x["versions"][0]["parent"] == x["versions"][1]["manifest"]')" True
expect_equal "$(json 'sum(v["stored"] for v in x["versions"]) + 64')" "$(stat -c %s a.lora)"
expect_equal "$(json 'x["versions"][2]["bytes"]')" "$(cat out/* | wc -c)"
manifest=$(json 'x["versions"][2]["manifest"]')
expect_exit 0 "$LORACTL" unpack a.lora@1 -o signed --manifest
expect_stderr 'not signed'
expect_equal "$(sha256sum <signed/manifest.json | cut -d ' ' -f 1)" "$manifest"
expect_exit 0 "$LORACTL" log a.lora
expect_stdout 'first'
! grep -q 'second line' "$OUT" || fail 'a message breaks the table'
expect_exit 3 "$LORACTL" log llama
expect_exit 3 "$LORACTL" log llama/config.json

# --- binding, and adapters that are versions

expect_exit 0 "$LORACTL" pack out -o bound.lora --base llama --name x
root=$("$LORACTL" inspect llama --json | python3 -c 'import json, sys; print(json.load(sys.stdin)["root"])')
expect_exit 0 "$LORACTL" log bound.lora --json
expect_json 'x["versions"][0]["base_root"]' "$root"
expect_exit 0 "$LORACTL" pack out -o bound.lora --append # bound it stays
expect_stdout unchanged
expect_exit 0 "$LORACTL" merge llama bound.lora -o merged --require-bound
expect_exit 0 "$LORACTL" merge llama out -o plain
expect_same merged/model.safetensors plain/model.safetensors
expect_exit 0 "$LORACTL" merge llama bound.lora@1:0.5 -o half
expect_exit 0 "$LORACTL" merge llama out:0.5 -o half-plain
expect_same half/model.safetensors half-plain/model.safetensors
edit_base()
{
	cp -r llama other
	flip other/model.safetensors $(($(stat -c %s other/model.safetensors) - 5))
}
edit_base
expect_exit 1 "$LORACTL" merge other bound.lora -o wrong
expect_stderr 'another base|other base|bound'
echo "{\"base_root\": \"$root\"}" >out/loractl.json
expect_exit 1 "$LORACTL" pack out -o no.lora --base other
[ ! -e no.lora ] || fail 'packed for another base'
expect_exit 0 "$LORACTL" pack out -o carried.lora
expect_exit 0 "$LORACTL" log carried.lora --json
expect_json 'x["versions"][0]["base_root"]' "$root"
expect_exit 0 "$LORACTL" inspect bound.lora --json
expect_json 'x["kind"], x["name"], x["dialect"], len(x["modules"]), len(x["versions"])' "('container', 'x', 'peft', 28, 1)"
here=$(json 'x["root"]')
expect_exit 0 "$LORACTL" inspect llama-adapter --json
expect_json 'x["root"]' "$here"
expect_exit 0 "$LORACTL" inspect bound.lora@latest --base llama
expect_stdout 'fits +yes'
expect_exit 1 "$LORACTL" inspect bound.lora --base gpt2
expect_exit 3 "$LORACTL" inspect bound.lora@2
expect_exit 1 "$LORACTL" inspect bound.lora --for peft
expect_stdout 'does not read containers'
expect_exit 2 "$LORACTL" merge llama bound.lora -o bound.lora
expect_exit 3 "$LORACTL" merge llama e.lora -o wrong
[ ! -e wrong ] || fail 'a refused merge left something'

# --- fsck

expect_exit 0 "$LORACTL" fsck a.lora --json
expect_json 'x["schema"], x["ok"], x["versions"], x["problems"], x["repairable"]' \
	"('loractl.fsck/1', True, 3, [], False)"
expect_exit 3 "$LORACTL" fsck llama/config.json
expect_exit 3 "$LORACTL" fsck nothing
cp a.lora torn.lora
"$LORACTL" log a.lora --json >log.json
head -c -100 a.lora >torn.lora
expect_exit 1 "$LORACTL" fsck torn.lora --json
expect_json 'x["ok"], x["versions"], len(x["problems"]), x["repairable"]' '(False, 2, 1, True)'
expect_exit 0 "$LORACTL" log torn.lora
expect_stderr 'warning: .* not finished'
expect_exit 0 "$LORACTL" fsck torn.lora --repair --json
expect_json 'x["ok"], x["versions"], x["repaired"]' '(True, 2, True)'
expect_exit 0 "$LORACTL" fsck torn.lora
head -c -100 a.lora >torn.lora
expect_exit 0 "$LORACTL" pack llama-adapter -o torn.lora --append --all # goes on by itself
expect_stderr 'cut off'
expect_same torn.lora a.lora
cp a.lora bad.lora
flip bad.lora 70
expect_exit 1 "$LORACTL" fsck bad.lora --repair --json
expect_json 'x["ok"], x["versions"], x["repairable"]' '(False, 0, False)'
expect_exit 3 "$LORACTL" log bad.lora
expect_exit 3 "$LORACTL" unpack bad.lora -o bad
expect_exit 3 "$LORACTL" merge llama bad.lora -o bad
expect_exit 3 "$LORACTL" gc bad.lora --keep 1
cp a.lora bad.lora
at=$((64 + $(python3 -c "import json; print(json.load(open('log.json'))['versions'][2]['stored'])"))) # version 2's
flip bad.lora $((at + 5))
expect_exit 1 "$LORACTL" fsck bad.lora
expect_exit 3 "$LORACTL" unpack bad.lora -o bad
expect_exit 0 "$LORACTL" unpack bad.lora@1 -o saved # what is before the damage is there
diff -r saved one || fail 'version 1 of a damaged container is another'
[ ! -e bad ] || fail 'a damaged container was unpacked'
mkdir left
touch left/.model.loractl-abc123 left/.other
expect_exit 1 "$LORACTL" fsck left --json
expect_json 'x["problems"][0]["where"], len(x["problems"])' "('.model.loractl-abc123', 1)"
rm left/.model.loractl-abc123
expect_exit 0 "$LORACTL" fsck left

# --- gc

cp a.lora g.lora
ln -s g.lora link.lora
chmod 600 g.lora
expect_exit 2 "$LORACTL" gc g.lora
expect_exit 2 "$LORACTL" gc g.lora --keep 0
expect_exit 0 "$LORACTL" gc link.lora --keep 1
[ -L link.lora ] || fail 'gc replaced a link'
expect_equal "$(stat -c %a g.lora)" 600
expect_exit 0 "$LORACTL" unpack g.lora@3 -o kept
diff -r kept llama-adapter || fail 'gc changed a version'
expect_exit 3 "$LORACTL" unpack g.lora@2 -o gone
expect_exit 0 "$LORACTL" fsck g.lora
expect_exit 0 "$LORACTL" log g.lora --json
expect_json 'x["versions"][0]["manifest"] == '"$(python3 -c "import json; print(repr(json.load(open('log.json'))['versions'][0]['manifest']))")" True
before=$(sha256sum <g.lora)
expect_exit 0 "$LORACTL" gc g.lora --keep 5
expect_equal "$(sha256sum <g.lora)" "$before"
