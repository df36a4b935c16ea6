#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# trust - the keyring: whose keys count, for which names, until when, never again; and that nobody else writes it.
. "${SRC:?the repository}/tests/cli/lib.sh" || exit 1

ring=$XDG_CONFIG_HOME/loractl/keyring.json
for name in a b c; do
	"$LORACTL" keygen -o $name --no-passphrase -q
done
id_a=$(sed -n 's/.*key //p' a.pub)
for name in style-x style-y other; do
	echo $name >$name
	"$LORACTL" sign $name -k a.key -q
done

# Nobody is trusted at first; looking makes nothing.
expect_exit 0 "$LORACTL" trust list
expect_empty "$OUT" "$ERR"
expect_exit 1 "$LORACTL" verify style-x
expect_stderr_line "signed by key $id_a, which is not in the keyring"
[ ! -e "$XDG_CONFIG_HOME" ] || fail "looking at the keyring made one"

# Added: by file name, by --as.
expect_exit 0 "$LORACTL" trust add a.pub
expect_stdout "^key $id_a: trusted as 'a'\$"
expect_equal "$(stat -c %a "$ring")" 600
expect_equal "$(stat -c %a "$XDG_CONFIG_HOME/loractl")" 700
expect_exit 0 "$LORACTL" verify style-x
expect_stdout "a \(key $id_a\)"
expect_exit 0 "$LORACTL" verify a.pub
expect_exit 0 "$LORACTL" trust add a.pub --as 'Team Ä'
expect_exit 0 "$LORACTL" verify style-x --json
expect_stdout '"signer": "Team Ä"'
python3 - "$ring" "$(tail -n 1 a.pub)" <<'PY' || fail "the keyring is not what it should be"
import json, sys
text = open(sys.argv[1]).read()
want = {"schema": "loractl.keyring/1", "keys": [
    {"key": sys.argv[2], "principal": "Team Ä", "revoked": False, "scopes": ["*"], "until": None}]}
assert text == json.dumps(want, sort_keys=True, separators=(",", ":"), ensure_ascii=False), text
PY

# Scopes: for the name that was signed and the one that it has.
expect_exit 0 "$LORACTL" trust add a.pub --as team --scope 'style-?' --scope 'exact'
expect_exit 0 "$LORACTL" verify style-x
expect_exit 1 "$LORACTL" verify other
expect_stderr_line "key $id_a of 'team' is not trusted for the name 'other'"
cp other style-z && cp other.minisig style-z.minisig
expect_exit 1 "$LORACTL" verify style-z
expect_stderr_line "not trusted for the name 'other'"
cp style-x renamed && cp style-x.minisig renamed.minisig
expect_exit 1 "$LORACTL" verify renamed
expect_stderr_line "not trusted for the name 'renamed'"
mkdir style-d && echo 1 >style-d/file && "$LORACTL" sign style-d -k a.key -q
expect_exit 0 "$LORACTL" verify style-d
mv style-d directory
expect_exit 1 "$LORACTL" verify directory
mkdir outer && cp other outer/style-x
"$LORACTL" sign outer/style-x -k a.key --force -q --comment 'x'
expect_exit 0 "$LORACTL" verify outer/style-x
# With -p a key counts for any name.
expect_exit 0 "$LORACTL" verify other -p a.pub

# Dates: a day counts to its end, a moment from itself on.
yesterday=$(date -u -d yesterday +%F) today=$(date -u +%F)
expect_exit 0 "$LORACTL" trust add a.pub --as team --until "$today"
expect_exit 0 "$LORACTL" verify style-x
expect_exit 0 "$LORACTL" trust add a.pub --as team --until "$yesterday"
expect_exit 1 "$LORACTL" verify style-x
expect_stderr_line "key $id_a of 'team' was trusted until ${today}T00:00:00Z"
expect_exit 1 "$LORACTL" verify a.pub
expect_exit 0 "$LORACTL" trust add a.pub --as team --until "$(date -u -d '1 minute ago' +%FT%TZ)"
expect_exit 1 "$LORACTL" verify style-x
expect_exit 0 "$LORACTL" trust add a.pub --as team --until "$(date -u -d '1 hour' +%FT%TZ)"
expect_exit 0 "$LORACTL" verify style-x
# The time in a signature does not help a key that is over.
SOURCE_DATE_EPOCH=1000000000 "$LORACTL" sign style-y -k a.key -q
"$LORACTL" trust add a.pub --as team --until 2020-01-01 -q
expect_exit 1 "$LORACTL" verify style-y
for bad in tomorrow 2027-13-01 2027-02-30 2027-1-1 2027-01-01T00:00:00 2027-01-01T24:00:00Z '2027-01-01 ' 99999-01-01 ''; do
	expect_exit 2 "$LORACTL" trust add a.pub --as team --until="$bad"
	expect_stderr_line 'is no date: write 2027-01-31'
done

# Revoked: whatever it signed, however it is named, and for ever.
"$LORACTL" trust add a.pub --as team -q
expect_exit 0 "$LORACTL" verify style-x
expect_exit 0 "$LORACTL" trust revoke a.pub
for options in '' '-p a.pub'; do # shellcheck disable=SC2086
	expect_exit 1 "$LORACTL" verify style-x $options
	expect_stderr_line "key $id_a is revoked: nothing it signed counts"
done
expect_exit 1 "$LORACTL" verify style-y # signed long before
expect_exit 1 "$LORACTL" verify a.pub -p a.pub
expect_exit 1 "$LORACTL" trust add a.pub --as team
expect_stderr_line "key $id_a is revoked, which is for ever"
expect_exit 0 "$LORACTL" trust remove a.pub
expect_exit 1 "$LORACTL" verify style-x -p a.pub
expect_stderr_line 'is revoked'
expect_exit 3 "$LORACTL" trust remove a.pub
expect_exit 0 "$LORACTL" trust list
expect_stdout "^$id_a +- +revoked"
# One that was never trusted; by id only what is there.
expect_exit 0 "$LORACTL" trust revoke c.pub
echo 1 >by-c && "$LORACTL" sign by-c -k c.key -q
expect_exit 1 "$LORACTL" verify by-c -p c.pub
expect_exit 3 "$LORACTL" trust revoke 0123456789ABCDEF
expect_stderr_line 'is no file, and no id of a key in the keyring'

# Removed; by id.
"$LORACTL" trust add b.pub --as bee --scope 'b*' --scope c --until 2099-12-31 -q
echo 1 >by-b && "$LORACTL" sign by-b -k b.key -q
expect_exit 0 "$LORACTL" verify by-b
expect_exit 0 "$LORACTL" trust list --json
python3 - "$OUT" "$(tail -n 1 b.pub)" <<'PY' || fail "trust list --json: $(cat "$OUT")"
import json, sys
x = json.load(open(sys.argv[1]))
assert x["schema"] == "loractl.trust/1" and len(x["keys"]) == 3
b = [k for k in x["keys"] if k["principal"] == "bee"][0]
assert b["key"] == sys.argv[2] and b["scopes"] == ["b*", "c"] and b["until"] == "2100-01-01T00:00:00Z" and not b["revoked"], b
PY
expect_exit 0 "$LORACTL" trust remove "$(sed -n 's/.*key //p' b.pub)"
expect_exit 1 "$LORACTL" verify by-b

# Two keys of one number: each is tried, and only the right one counts.
python3 - <<'PY'
import base64
a, b = (bytearray(base64.b64decode(open(n + ".pub").read().split("\n")[1])) for n in "ab")
a[2:10] = b[2:10]
open("twin.pub", "w").write("untrusted comment: x\n%s\n" % base64.b64encode(a).decode())
PY
"$LORACTL" trust add twin.pub --as twin -q
expect_exit 1 "$LORACTL" verify by-b
expect_stderr_line 'the signature is not right'
"$LORACTL" trust add b.pub --as bee -q
expect_exit 0 "$LORACTL" verify by-b
expect_stdout '^  signer +bee '
expect_exit 3 "$LORACTL" trust remove "$(sed -n 's/.*key //p' b.pub)"
expect_stderr_line 'two keys have the id'
expect_exit 0 "$LORACTL" trust remove b.pub
expect_exit 1 "$LORACTL" verify by-b

# A keyring that others may write decides nothing; nor does a malformed one. It is not replaced.
cp "$ring" ring
# MESSAGE
no_ring()
{
	cp "$ring" before
	expect_exit 3 "$LORACTL" verify by-b
	expect_stderr_line "$1"
	expect_exit 3 "$LORACTL" verify by-b -p b.pub
	expect_exit 3 "$LORACTL" trust add b.pub
	expect_exit 3 "$LORACTL" trust list
	expect_same "$ring" before
	cp ring "$ring" && chmod 600 "$ring"
}
chmod 620 "$ring"
no_ring 'can be written by others'
chmod 602 "$ring"
no_ring 'can be written by others'
: >"$ring"
no_ring 'keyring'
sed -i 's/"revoked":true/"revoked":1/' "$ring"
no_ring 'entry [0-9]: it is not'
sed -i 's/"principal"/"note":1,"principal"/' "$ring"
no_ring 'entry 1: it is not'
sed -i 's,loractl.keyring/1,loractl.keyring/2,' "$ring"
no_ring 'no keyring of the schema'
python3 - "$ring" <<'PY'
import json, sys
x = json.load(open(sys.argv[1]))
x["keys"].append(x["keys"][0])
json.dump(x, open(sys.argv[1], "w"))
PY
no_ring 'its key stands there twice'
truncate -s 20M "$ring"
no_ring 'at most 16777216 are read'

# Usage.
expect_exit 2 "$LORACTL" trust
expect_exit 2 "$LORACTL" trust trust a.pub
expect_stderr_line 'is no action: add, remove, revoke, list or lock'
expect_exit 2 "$LORACTL" trust add
expect_exit 2 "$LORACTL" trust list a.pub
expect_exit 2 "$LORACTL" trust remove b.pub --as x
expect_exit 2 "$LORACTL" trust add b.pub --lock x
expect_exit 3 "$LORACTL" trust add none.pub
expect_exit 3 "$LORACTL" trust add by-b
for bad in '' $'a\tb' $'a\nb' $'\xff'; do
	expect_exit 2 "$LORACTL" trust add b.pub --as="$bad"
	expect_exit 2 "$LORACTL" trust add b.pub --scope="$bad"
done
expect_exit 4 env -u XDG_CONFIG_HOME -u HOME "$LORACTL" trust add b.pub
expect_stderr_line 'neither HOME nor XDG_CONFIG_HOME is set'
expect_exit 0 env -u XDG_CONFIG_HOME "$LORACTL" trust add b.pub -q
[ -f "$HOME/.config/loractl/keyring.json" ] || fail "no keyring in ~/.config"
expect_exit 0 env XDG_CONFIG_HOME=relative "$LORACTL" verify by-b

# Many at once: none is lost.
for i in {1..12}; do
	"$LORACTL" keygen -o many$i --no-passphrase -q
done
for i in {1..12}; do
	"$LORACTL" trust add many$i.pub -q &
done
wait
expect_exit 0 "$LORACTL" trust list
expect_equal "$(grep -c ' many' "$OUT")" 12
