#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# trust_container - versions signed inside a container: rollback, fork and substitution are refused by the lock file on
# a machine that never saw it, and by what was seen here; a signature survives gc; appended rubbish vouches for nothing.
. "${SRC:?the repository}/tests/cli/lib.sh" || exit 1

base=$SRC/tests/data/tiny/llama
cp -r "$SRC/tests/data/tiny/llama-adapter" adapter
chmod -R u+w adapter
for name in a b; do
	"$LORACTL" keygen -o $name --no-passphrase -q
done
id_a=$(sed -n 's/.*key //p' a.pub) id_b=$(sed -n 's/.*key //p' b.pub)
"$LORACTL" trust add a.pub --as team --scope 'style' -q

# NOTE: the next version of f.lora
append()
{
	echo "$1" >adapter/note
	"$LORACTL" pack adapter -o f.lora --append --base "$base" >/dev/null || fail "pack --append"
}

# On a machine that never saw anything: COMMAND...
elsewhere()
{
	XDG_STATE_HOME=$cli_folder/elsewhere.$RANDOM$RANDOM "$@"
}

"$LORACTL" pack adapter -o f.lora --name style --base "$base" >/dev/null
expect_exit 1 "$LORACTL" verify f.lora
expect_stderr_line 'it is not signed: version 1 has no signature'
expect_exit 1 "$LORACTL" trust lock f.lora
expect_exit 0 "$LORACTL" sign f.lora -k a.key
cp f.lora signed-1
# Once more changes nothing, unless there are words to add.
expect_exit 0 "$LORACTL" sign f.lora -k a.key
expect_same f.lora signed-1
expect_exit 0 "$LORACTL" verify f.lora --json
python3 - "$OUT" "$id_a" <<'PY' || fail "the report is wrong: $(cat "$OUT")"
import json, sys
x = json.load(open(sys.argv[1]))
s = x["levels"]["signature"]
assert x["passed"] and s["signer"] == "team" and s["version"] == 1 and s["name"] == "style" and s["key_id"] == sys.argv[2], s
assert s["problems"] == []
PY
"$LORACTL" unpack f.lora -o out --manifest >/dev/null
if command -v minisign >/dev/null; then
	expect_exit 0 minisign -V -H -m out/manifest.json -p a.pub
fi

# The scope is about the manifest's name; what the file is called is the user's affair.
cp f.lora other-name.lora
expect_exit 0 "$LORACTL" verify other-name.lora
"$LORACTL" trust add a.pub --as team --scope 'f*' -q
expect_exit 1 "$LORACTL" verify f.lora
expect_stderr_line "key $id_a of 'team' is not trusted for the name 'style'"
"$LORACTL" trust add a.pub --as team --scope 'style' -q

# --- the pin

expect_exit 0 "$LORACTL" trust lock f.lora
expect_stdout "^style: pinned at version 1 to key $id_a\$"
python3 - "$(tail -n 1 a.pub)" "$("$LORACTL" inspect "$base" --json | sed -n 's/.*"root": "\(.*\)".*/\1/p')" <<'PY' || fail "$(cat loractl.lock)"
import hashlib, json, sys
digest = hashlib.sha256(open("out/manifest.json", "rb").read()).hexdigest()
assert json.load(open("loractl.lock"))["pins"] == [
    {"base": sys.argv[2], "file": "f.lora", "key": sys.argv[1], "manifest": digest, "name": "style", "version": 1}]
PY
expect_exit 0 elsewhere "$LORACTL" verify f.lora --lock loractl.lock
append two
expect_exit 1 elsewhere "$LORACTL" verify f.lora --lock loractl.lock
expect_stderr_line 'it is not signed: version 2 has no signature'
expect_exit 0 "$LORACTL" verify f.lora@1
"$LORACTL" sign f.lora -k a.key -q
# A descendant of what is pinned passes; the pin is advanced by hand.
expect_exit 0 elsewhere "$LORACTL" verify f.lora --lock loractl.lock --json
expect_stdout '"rollback": false'
append three
"$LORACTL" sign f.lora -k a.key -q
cp loractl.lock pinned-1
expect_exit 0 "$LORACTL" trust lock f.lora
expect_stdout 'pinned at version 3'
cp loractl.lock pinned-3

# Rolled back: the old file; an old version by number. And the pin is not turned back.
cp f.lora new.lora && cp signed-1 f.lora
expect_exit 1 elsewhere "$LORACTL" verify f.lora --lock loractl.lock --json
expect_stderr_line 'rolled back: version 1, where loractl\.lock has 3'
expect_stdout '"rollback": true'
expect_exit 1 elsewhere "$LORACTL" verify f.lora@1 --lock loractl.lock
expect_exit 1 elsewhere "$LORACTL" verify new.lora@2 --lock loractl.lock
expect_exit 1 elsewhere "$LORACTL" trust lock f.lora
expect_same loractl.lock pinned-3
# By what was seen here, without a lock file; on another machine nobody can know.
expect_exit 0 "$LORACTL" verify new.lora
expect_exit 1 "$LORACTL" verify f.lora --json
expect_stderr_line 'rolled back: version 1, where what was verified here before has 3'
expect_stdout '"rollback": true'
expect_exit 1 "$LORACTL" trust lock f.lora --lock new.lock
[ ! -e new.lock ] || fail "a version that was rolled back was pinned"
expect_exit 0 elsewhere "$LORACTL" verify f.lora
# Who asks for an older version of the new file by its number gets it.
expect_exit 0 "$LORACTL" verify new.lora@1
expect_exit 0 "$LORACTL" verify new.lora
# A state that cannot be kept is said; a malformed one stops everything.
expect_exit 0 env XDG_STATE_HOME=/proc/nothing "$LORACTL" verify new.lora
expect_stderr 'warning: what was seen is not remembered'
cp "$XDG_STATE_HOME/loractl/seen.json" seen
echo '{}' >"$XDG_STATE_HOME/loractl/seen.json"
expect_exit 3 "$LORACTL" verify new.lora
cp seen "$XDG_STATE_HOME/loractl/seen.json"

# Forked: another version 3, another line that became longer.
cp signed-1 f.lora
append 'another two' && append 'another three'
"$LORACTL" sign f.lora -k a.key -q
expect_exit 1 elsewhere "$LORACTL" verify f.lora --lock loractl.lock
expect_stderr_line 'forked: another version 3 than the one that loractl\.lock has'
expect_exit 1 "$LORACTL" verify f.lora
expect_stderr_line 'forked: another version 3 than the one that what was verified here before has'
expect_exit 0 elsewhere "$LORACTL" verify f.lora --lock pinned-1
append 'another four'
"$LORACTL" sign f.lora -k a.key -q
expect_exit 1 elsewhere "$LORACTL" verify f.lora --lock loractl.lock --json
expect_stderr_line 'forked: version 4 does not descend from the version 3 that loractl\.lock has'
expect_stdout '"rollback": false'
expect_exit 1 "$LORACTL" verify f.lora
expect_exit 1 "$LORACTL" trust lock f.lora
expect_same loractl.lock pinned-3
cp new.lora f.lora

# gc keeps signatures, and what is left of the history: the parent of the oldest still counts.
append four
"$LORACTL" sign f.lora -k a.key -q
expect_exit 0 "$LORACTL" gc f.lora --keep 1
expect_exit 0 elsewhere "$LORACTL" verify f.lora --lock loractl.lock
append five
"$LORACTL" sign f.lora -k a.key -q
"$LORACTL" gc f.lora --keep 1 >/dev/null
expect_exit 1 elsewhere "$LORACTL" verify f.lora --lock loractl.lock
expect_stderr_line 'forked: version 5 does not descend'
cp new.lora f.lora

# Substituted: another name, key, base.
rm -rf "$XDG_STATE_HOME"
"$LORACTL" trust add a.pub --as team -q
"$LORACTL" trust add b.pub --as bee -q
"$LORACTL" pack adapter -o g.lora --name other --base "$base" >/dev/null
"$LORACTL" sign g.lora -k a.key -q
expect_exit 1 "$LORACTL" verify g.lora --lock loractl.lock
expect_stderr_line "'other' is not in loractl\.lock"
"$LORACTL" trust lock g.lora -q
expect_exit 0 "$LORACTL" verify g.lora --lock loractl.lock
cp g.lora f.lora
expect_exit 1 elsewhere "$LORACTL" verify f.lora --lock loractl.lock
expect_stderr_line "substituted: its name is 'other', and loractl\.lock has 'style' under this file's name"
rm f.lora
"$LORACTL" pack adapter -o f.lora --name style --base "$base" >/dev/null
"$LORACTL" sign f.lora -k b.key -q
expect_exit 1 elsewhere "$LORACTL" verify f.lora --lock pinned-1
expect_stderr_line "substituted: signed by key $id_b, and loractl\.lock has $id_a"
rm f.lora
"$LORACTL" pack adapter -o f.lora --name style >/dev/null
"$LORACTL" sign f.lora -k a.key -q
expect_exit 1 elsewhere "$LORACTL" verify f.lora --lock pinned-1
expect_stderr_line 'substituted: it is bound to another base'
cp new.lora f.lora

# --- what stands in the container besides

# Two signatures: one that counts is enough, whichever comes first.
"$LORACTL" sign f.lora -k b.key -q --comment 'me too'
for key in a b; do
	expect_exit 0 elsewhere "$LORACTL" verify f.lora -p $key.pub
done
"$LORACTL" trust revoke a.pub -q
expect_exit 0 elsewhere "$LORACTL" verify f.lora
expect_stdout "signer +bee \(key $id_b\)"
expect_exit 0 "$LORACTL" log f.lora --json
python3 - "$OUT" "$id_a" "$id_b" <<'PY' || fail "log: $(cat "$OUT")"
import json, sys
v = json.load(open(sys.argv[1]))["versions"]
assert [x["version"] for x in v] == [3, 2, 1]
assert v[0]["signers"] == [{"key_id": sys.argv[2], "principal": None, "trusted": False},
                           {"key_id": sys.argv[3], "principal": "bee", "trusted": True}], v[0]["signers"]
assert v[2]["signers"] == [{"key_id": sys.argv[2], "principal": None, "trusted": False}]
PY
expect_exit 1 elsewhere "$LORACTL" verify new.lora
expect_stderr_line 'is revoked'
rm "$XDG_CONFIG_HOME/loractl/keyring.json"
"$LORACTL" trust add a.pub --as team -q

# Every flipped byte of a signed container is found, or harms nothing: no version but a signed one passes.
cp signed-1 f.lora
"$LORACTL" unpack f.lora -o first >/dev/null
size=$(stat -c %s f.lora)
for ((at = 3; at < size; at += size / 40)); do
	cp signed-1 f.lora
	python3 - $at <<'PY'
import sys
with open("f.lora", "r+b") as f:
    f.seek(int(sys.argv[1]))
    byte = f.read(1)[0]
    f.seek(int(sys.argv[1]))
    f.write(bytes([byte ^ 0x10]))
PY
	run elsewhere "$LORACTL" verify f.lora
	case $STATUS in
	1 | 3) ;;
	0) # a byte that nothing was read from: what is given out is what was signed
		"$LORACTL" unpack f.lora -o flipped >/dev/null || fail "byte $at: verified, and cannot be unpacked"
		diff -r flipped first >/dev/null || fail "byte $at: verified, and differs"
		rm -r flipped
		;;
	*) fail "byte $at: exit status $STATUS" ;;
	esac
done
cp signed-1 f.lora
truncate -s -1 f.lora # the commit of the signature is gone, and so is the signature
expect_exit 1 elsewhere "$LORACTL" verify f.lora
expect_stderr 'it is not signed'

# --- where it is used

cp new.lora f.lora
rm -rf "$XDG_STATE_HOME"
expect_exit 0 "$LORACTL" merge "$base" f.lora -o merged --require-signed --require-bound -q
rm -r merged
append 'not signed'
expect_exit 1 "$LORACTL" merge "$base" f.lora -o merged --require-signed
expect_stderr_line "it is not signed: version 4 has no signature"
expect_exit 0 "$LORACTL" merge "$base" f.lora@3 -o merged --require-signed -q
# What passed there is remembered too.
expect_exit 0 "$LORACTL" merge "$base" new.lora -o merged2 --require-signed -q
expect_exit 1 "$LORACTL" merge "$base" signed-1 -o merged3 --require-signed
expect_stderr_line 'rolled back'
expect_exit 3 "$LORACTL" sign f.lora@9 -k a.key
expect_exit 3 "$LORACTL" verify f.lora@9
expect_exit 2 "$LORACTL" verify f.lora@x
expect_exit 3 "$LORACTL" verify none.lora
