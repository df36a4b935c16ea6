#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# verify_directory - a signed directory: the list is right, and every file added, removed, renamed, changed or made
# a link is named.
. "${SRC:?the repository}/tests/cli/lib.sh" || exit 1

"$LORACTL" keygen -o a --no-passphrase -q
"$LORACTL" keygen -o b --no-passphrase -q
mkdir -p dir/sub/deeper dir/empty
printf 'one' >dir/one
: >dir/zero
printf 'hidden' >dir/.hidden
printf 'two' >'dir/sub/t w ö"\'
printf 'three' >dir/sub/deeper/three
expect_exit 0 "$LORACTL" sign dir/ -k a.key
cp -a dir kept

# The list, by a second implementation.
python3 - <<'PY' || fail "the list is not what it should be"
import hashlib, json, os
files = []
for folder, _, names in os.walk("dir"):
    for name in names:
        path = os.path.join(folder, name)
        data = open(path, "rb").read()
        files.append({"name": path[4:], "size": len(data), "sha256": hashlib.sha256(data).hexdigest()})
files = sorted((f for f in files if not f["name"].startswith("loractl-files.json")), key=lambda f: f["name"].encode())
assert len(files) == 5
want = json.dumps({"files": files, "schema": "loractl.files/1"}, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
assert open("dir/loractl-files.json").read() == want, open("dir/loractl-files.json").read()
PY
for path in dir dir/ ./dir "$PWD/dir" dir/sub/..; do
	expect_exit 0 "$LORACTL" verify "$path" -p a.pub
	expect_empty "$ERR"
done
cd dir || exit 1
expect_exit 0 "$LORACTL" verify . -p ../a.pub
expect_empty "$ERR"
cd ..

# LINE...: dir does not pass, for these reasons and no others; it is put back
refused()
{
	local line
	expect_exit 1 "$LORACTL" verify dir -p a.pub
	expect_equal "$(grep -c '^  problem' "$OUT")" $#
	for line; do
		grep -qF -e "$line" "$OUT" || fail "not said: $line: $(cat "$OUT")"
	done
	expect_stderr_line "'dir' is not to be trusted: "
	rm -rf dir
	cp -a kept dir
}

printf 'One' >dir/one
refused "'one' was changed"
printf 'ones' >dir/one
refused "'one' was changed: 4 bytes, not 3"
printf x >dir/zero
refused "'zero' was changed: 1 bytes, not 0"
rm dir/.hidden
refused "'.hidden' was removed"
rm -r dir/sub/deeper
refused "'sub/deeper/three' was removed"
mv dir/one dir/uno
refused "'one' was removed" "'uno' was added"
printf x >dir/empty/new
refused "'empty/new' was added"
printf x >dir/sub/loractl-files.json
refused "'sub/loractl-files.json' was added"
rm dir/one && ln -s ../kept/one dir/one
refused "'one' is a symbolic link now"
ln -s one dir/link
refused "'link' was added: it is a symbolic link"
rm -r dir/sub && ln -s ../kept/sub dir/sub
refused "'sub' was added: it is a symbolic link" "'sub/deeper/three' was removed" "'sub/t w ö"
rm dir/zero && mkfifo dir/zero
refused "'zero' is a pipe now"
mkdir dir/x && rmdir dir/x # an empty directory is no file
expect_exit 0 "$LORACTL" verify dir -p a.pub
rm dir/one && mkdir dir/one && printf x >dir/one/one
refused "'one' was removed" "'one/one' was added"
printf 'one' >dir/one && printf x >dir/sub/deeper/three && rm dir/zero
refused "'sub/deeper/three' was changed: 1 bytes, not 5" "'zero' was removed"

# The list itself.
sed -i 's/"size":3/"size":4/' dir/loractl-files.json
refused 'the signature is not right'
printf ' ' >>dir/loractl-files.json
refused 'the signature is not right'
cp dir/loractl-files.json x && rm dir/loractl-files.json && ln -s ../x dir/loractl-files.json
expect_exit 3 "$LORACTL" verify dir -p a.pub
expect_stderr_line "'dir/loractl-files.json' is a symbolic link"
rm -r dir && cp -a kept dir
rm dir/loractl-files.json
refused "it is not signed: there is no 'loractl-files.json' in it"
rm dir/loractl-files.json.minisig
refused "it is not signed: there is no 'loractl-files.json.minisig' in it"
truncate -s 20M dir/loractl-files.json
expect_exit 3 "$LORACTL" verify dir -p a.pub
expect_stderr_line 'at most 16777216 are read'
rm -r dir && cp -a kept dir
expect_exit 1 "$LORACTL" verify dir -p b.pub
expect_equal "$(grep -c '^  problem' "$OUT")" 1

# Lists that the right key signed, and that are none.
# TEXT MESSAGE
bad_list()
{
	printf '%s' "$1" >dir/loractl-files.json
	rm dir/loractl-files.json.minisig
	"$LORACTL" sign dir/loractl-files.json -k a.key -q
	expect_exit 3 "$LORACTL" verify dir -p a.pub
	expect_stderr_line "$2"
	rm -r dir && cp -a kept dir
}
hex=$(printf '%064d' 0)
bad_list '' 'dir'
bad_list '[]' 'no list of the schema'
bad_list '{"files":[],"schema":"loractl.files/2"}' 'no list of the schema'
bad_list '{"files":[],"schema":"loractl.files/1","ignore":"*"}' 'no list of the schema'
bad_list '{"files":[],"files":[],"schema":"loractl.files/1"}' "'dir'"
for name in /etc/passwd ../x a/../b a//b . '' a/ './a' 'a\u0001'; do
	bad_list "{\"files\":[{\"name\":\"$name\",\"sha256\":\"$hex\",\"size\":1}],\"schema\":\"loractl.files/1\"}" \
		'is no place in the directory'
done
for entry in '{}' '1' "{\"name\":\"a\",\"sha256\":\"$hex\"}" "{\"name\":\"a\",\"sha256\":\"${hex}0\",\"size\":1}" \
	"{\"name\":\"a\",\"sha256\":\"$hex\",\"size\":-1}" "{\"name\":\"a\",\"sha256\":\"$hex\",\"size\":1,\"x\":1}"; do
	bad_list "{\"files\":[$entry],\"schema\":\"loractl.files/1\"}" 'entry 1 is not'
done
one="{\"name\":\"b\",\"sha256\":\"$hex\",\"size\":1}"
bad_list "{\"files\":[$one,$one],\"schema\":\"loractl.files/1\"}" "entry 2: 'b' is out of order"
bad_list "{\"files\":[$one,${one/b/a}],\"schema\":\"loractl.files/1\"}" "entry 2: 'a' is out of order"

# Signing again after a change; another key needs --force; nothing is signed that cannot be.
printf x >dir/new
expect_exit 0 "$LORACTL" sign dir -k a.key
expect_exit 0 "$LORACTL" verify dir -p a.pub
expect_exit 2 "$LORACTL" sign dir -k b.key
expect_exit 0 "$LORACTL" verify dir -p a.pub
expect_exit 0 "$LORACTL" sign dir -k b.key --force
expect_exit 0 "$LORACTL" verify dir -p b.pub
cp dir/loractl-files.json before
ln -s new dir/link
expect_exit 3 "$LORACTL" sign dir -k b.key
expect_stderr_line "'dir': 'link' is a symbolic link: only files can be signed"
expect_same dir/loractl-files.json before
rm dir/link
: >"dir/$(printf 'bad\xff')"
expect_exit 3 "$LORACTL" sign dir -k b.key
expect_stderr_line "is no plain text in UTF-8: rename it"
expect_same dir/loractl-files.json before
rm dir/bad*
mkdir none
expect_exit 3 "$LORACTL" sign none -k a.key
expect_stderr_line 'holds no file that could be signed'
deep=dir
for _ in {1..40}; do deep=$deep/d; done
mkdir -p $deep && : >$deep/file
expect_exit 3 "$LORACTL" sign dir -k b.key
expect_stderr_line 'directories 33 deep: at most 32'
