#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# sign_minisign - minisign verifies what we sign, we verify what minisign signs, with each other's keys, encrypted
# ones too, prehashed and legacy.
. "${SRC:?the repository}/tests/cli/lib.sh" || exit 1
need minisign

echo 'our passphrase' >secret
"$LORACTL" keygen -o ours --no-passphrase -q || fail "keygen"
"$LORACTL" keygen -o ours-enc -q --passphrase-fd 3 3<secret || fail "keygen"
minisign -G -W -p theirs.pub -s theirs.key >/dev/null || fail "minisign -G -W"
printf '%s\n' "their passphrase" "their passphrase" | minisign -G -p theirs-enc.pub -s theirs-enc.key >/dev/null ||
	fail "minisign -G"
declare -A passphrase=([ours]="" [ours-enc]='our passphrase' [theirs]="" [theirs-enc]='their passphrase')
: >empty
head -c 64 /dev/urandom >sixty-four
head -c 3000017 /dev/urandom >large
printf 'a name with spaces' >'with spaces'

for key in ours ours-enc theirs theirs-enc; do
	for file in large empty sixty-four 'with spaces'; do
		# We sign.
		expect_exit 0 "$LORACTL" sign "$file" -k $key.key --force --passphrase-fd 7 \
			7< <(echo "${passphrase[$key]}")
		expect_exit 0 minisign -V -H -m "$file" -p $key.pub
		expect_stdout '^Signature and comment signature verified$'
		expect_stdout "^Trusted comment: timestamp:[0-9]+	file:$file	hashed\$"
		expect_exit 0 "$LORACTL" verify "$file" -p $key.pub
		# They sign.
		printf '%s\n' "${passphrase[$key]}" | minisign -S -m "$file" -s $key.key -t 'their words' >/dev/null ||
			fail "minisign -S with $key"
		expect_exit 0 "$LORACTL" verify "$file" -p $key.pub
		expect_stdout 'their words'
		# (A passphrase of minisign's takes seconds and 1 GiB: one file is enough.)
		[ -z "${passphrase[$key]}" ] || break
		# The older kind, over the content itself; not over 64 bytes, which might be a hash.
		minisign -S -l -m "$file" -s $key.key >/dev/null || fail "minisign -S -l with $key"
		if [ "$file" = sixty-four ]; then
			expect_exit 1 "$LORACTL" verify "$file" -p $key.pub
		else
			expect_exit 0 "$LORACTL" verify "$file" -p $key.pub
		fi
	done
done

# A file that is a hash, with the signature over the file of that hash relabelled as legacy.
minisign -S -m large -s theirs.key >/dev/null
b2sum large | head -c 128 | xxd -r -p >hashed
sed '2s/^RU/RW/' large.minisig >hashed.minisig
expect_equal "$(sed -n 2p hashed.minisig | base64 -d | head -c 2)" Ed
expect_exit 0 minisign -V -m hashed -p theirs.pub
expect_exit 1 "$LORACTL" verify hashed -p theirs.pub

# A directory's list; our comment; a comment as long as it may be.
mkdir dir && echo a >dir/a
expect_exit 0 "$LORACTL" sign dir -k ours.key --comment 'reviewed, twice'
expect_exit 0 minisign -V -m dir/loractl-files.json -p ours.pub
expect_stdout '^Trusted comment: reviewed, twice	timestamp:[0-9]+	file:loractl-files.json	hashed	name:dir$'
expect_exit 0 "$LORACTL" sign large -k ours.key --force --comment "$(printf '%01000d' 0)"
expect_exit 0 minisign -V -m large -p ours.pub
minisign -S -m large -s theirs.key -t "$(printf '%04000d' 0)" >/dev/null || fail "minisign -t"
expect_exit 0 "$LORACTL" verify large -p theirs.pub -q

# minisign's ids are ours.
id=$(minisign -R -s theirs.key -p again.pub >/dev/null; sed -n 's/.*key //p' again.pub)
expect_exit 1 "$LORACTL" verify large -p ours.pub
expect_stderr_line "signed by key $id, not by [0-9A-F]{16} \('ours\.pub'\)"
cmp -s <(tail -n 1 again.pub) <(tail -n 1 theirs.pub) || fail "minisign -R gives another key"
minisign -R -s ours.key -p ours-again.pub >/dev/null || fail "minisign cannot read our key"
expect_same ours-again.pub ours.pub

# The same time and content give the same signature.
expect_exit 0 env SOURCE_DATE_EPOCH=1700000000 "$LORACTL" sign large -k ours.key --force
cp large.minisig first
expect_exit 0 env SOURCE_DATE_EPOCH=1700000000 "$LORACTL" sign large -k ours.key
expect_same large.minisig first
grep -q '^trusted comment: timestamp:1700000000	' first || fail "SOURCE_DATE_EPOCH was not taken"
for bad in x 1x -1 99999999999999999999; do
	expect_exit 2 env SOURCE_DATE_EPOCH=$bad "$LORACTL" sign large -k ours.key
done
