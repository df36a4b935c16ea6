#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# trust_lock - the lock file: what is pinned passes, on a machine that never saw it; another content, key or name does
# not. (Versions: trust_container.)
. "${SRC:?the repository}/tests/cli/lib.sh" || exit 1

for name in a b; do
	"$LORACTL" keygen -o $name --no-passphrase -q
	"$LORACTL" trust add $name.pub -q
done
mkdir one two
echo 1 >one/file && echo 2 >two/file
echo plain >plain
"$LORACTL" sign one plain -k a.key -q
"$LORACTL" sign two -k b.key -q

expect_exit 0 "$LORACTL" trust lock one
expect_stdout '^one: pinned to key'
expect_equal "$(stat -c %a loractl.lock)" 644
python3 - "$(tail -n 1 a.pub)" <<'PY' || fail "the lock file is not what it should be: $(cat loractl.lock)"
import hashlib, json, sys
digest = hashlib.sha256(open("one/loractl-files.json", "rb").read()).hexdigest()
want = {"pins": [{"base": None, "file": "one", "key": sys.argv[1], "manifest": digest, "name": "one", "version": None}],
        "schema": "loractl.lock/1"}
assert open("loractl.lock").read() == json.dumps(want, indent=2, sort_keys=True) + "\n"
PY
expect_exit 0 "$LORACTL" verify one --lock loractl.lock
expect_exit 0 env XDG_CONFIG_HOME="$cli_folder/new" XDG_STATE_HOME="$cli_folder/new" \
	"$LORACTL" verify one --lock loractl.lock -p a.pub
expect_exit 1 "$LORACTL" verify two --lock loractl.lock
expect_stderr_line "'two' is not in loractl\.lock: if it should be, loractl trust lock it"
expect_exit 0 "$LORACTL" trust lock two
expect_exit 0 "$LORACTL" trust lock plain
expect_exit 0 "$LORACTL" verify one two plain --lock loractl.lock
expect_equal "$(grep -c '"name"' loractl.lock)" 3

# Something else that is pinned too, moved over it.
mv one kept && cp -a two one
expect_exit 1 "$LORACTL" verify one --lock loractl.lock
expect_stderr "substituted: its name is 'two', and loractl\.lock has 'one' under this file's name"
rm -r one && cp -a kept one
# Another content, rightly signed by the same key; by another trusted key.
echo more >one/file
"$LORACTL" sign one -k a.key -q
expect_exit 0 "$LORACTL" verify one
expect_exit 1 "$LORACTL" verify one --lock loractl.lock
expect_stderr_line "substituted: it is not the one in loractl\.lock, though the key is"
rm -r one && cp -a kept one
"$LORACTL" sign one -k b.key -q --force
expect_exit 0 "$LORACTL" verify one
expect_exit 1 "$LORACTL" verify one --lock loractl.lock
expect_stderr_line "substituted: signed by key [0-9A-F]{16}, and loractl\.lock has [0-9A-F]{16}"
# Pinning it says so.
expect_exit 0 "$LORACTL" trust lock one
expect_stderr_line "warning: 'one' was pinned to key [0-9A-F]{16}, and is signed by [0-9A-F]{16} now"
expect_exit 0 "$LORACTL" verify one --lock loractl.lock

# What is not trusted is not pinned.
cp loractl.lock before
echo x >>one/file
expect_exit 1 "$LORACTL" trust lock one
expect_same loractl.lock before
"$LORACTL" trust revoke b.pub
expect_exit 1 "$LORACTL" trust lock two
expect_exit 1 "$LORACTL" verify two --lock loractl.lock
expect_exit 3 "$LORACTL" trust lock none
expect_exit 2 "$LORACTL" trust lock a.pub
expect_same loractl.lock before
expect_exit 0 "$LORACTL" trust lock plain --lock other.lock -p a.pub
expect_exit 0 "$LORACTL" verify plain --lock other.lock

# A lock file that is missing or malformed proves nothing.
expect_exit 3 "$LORACTL" verify plain --lock none.lock
for text in '' '{}' '{"pins":[],"schema":"loractl.lock/2"}' '{"pins":[{}],"schema":"loractl.lock/1"}' \
	'{"pins":[],"schema":"loractl.lock/1","x":1}'; do
	printf '%s' "$text" >bad.lock
	expect_exit 3 "$LORACTL" verify plain --lock bad.lock
	expect_stderr_line "lock file 'bad\.lock'"
	expect_exit 3 "$LORACTL" trust lock plain --lock bad.lock
	expect_equal "$(cat bad.lock)" "$text"
done
python3 - <<'PY'
import json
x = json.load(open("other.lock"))
x["pins"].append(dict(x["pins"][0], manifest="0" * 64))
json.dump(x, open("bad.lock", "w"))
PY
expect_exit 3 "$LORACTL" verify plain --lock bad.lock
expect_stderr_line "the name 'plain' stands there twice"
sed 's/"version": null/"version": 1/' other.lock >bad.lock
expect_exit 1 "$LORACTL" verify plain --lock bad.lock
sed 's/"base": null/"base": "'"$(printf '%064d' 0)"'"/' other.lock >bad.lock
expect_exit 1 "$LORACTL" verify plain --lock bad.lock
expect_stderr_line 'bound to another base'
