#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# keygen - pairs of keys: modes, formats, passphrases from every place they may come from, and nothing replaced.
. "${SRC:?the repository}/tests/cli/lib.sh" || exit 1
need script

# NAME: the mode of a file
mode()
{
	stat -c %a "$1"
}

expect_exit 0 "$LORACTL" keygen -o plain --no-passphrase
expect_empty "$ERR"
expect_equal "$(mode plain.key)" 600
expect_equal "$(mode plain.pub)" 644
expect_equal "$(wc -l <plain.key)/$(wc -l <plain.pub)" 2/2
expect_equal "$(head -n 1 plain.key)" "untrusted comment: minisign secret key"
expect_stdout "^key [0-9A-F]{16}\$"
expect_equal "$(head -n 1 plain.pub)" "untrusted comment: minisign public key $(sed -n 's/^key //p' "$OUT")"
expect_equal "$(tail -n 1 "$OUT")" "$(tail -n 1 plain.pub)"
# 2 + 2 + 2 bytes of names, 32 of salt, 16 of cost; then number, seed, point, and no checksum.
expect_equal "$(tail -n 1 plain.key | base64 -d | wc -c)" 158
expect_equal "$(tail -n 1 plain.key | base64 -d | head -c 6 | od -An -tx1 | tr -d ' ')" 456400004232
expect_equal "$(tail -n 1 plain.key | base64 -d | tail -c 32 | tr -d '\0' | wc -c)" 0
umask 077
expect_exit 0 "$LORACTL" keygen -o narrow --no-passphrase -q
expect_empty "$OUT"
expect_equal "$(mode narrow.pub)" 600
umask 0
expect_exit 0 "$LORACTL" keygen -o wide --no-passphrase -q
umask 022
expect_equal "$(mode wide.key)" 600

# Neither file is ever replaced, and the other is not made.
cp plain.key kept
expect_exit 2 "$LORACTL" keygen -o plain --no-passphrase
expect_stderr_line "plain\.key' exists: a key is never replaced"
expect_same plain.key kept
rm plain.pub
expect_exit 2 "$LORACTL" keygen -o plain --no-passphrase
: >only.pub
expect_exit 2 "$LORACTL" keygen -o only --no-passphrase
expect_stderr_line "only\.pub' exists"
[ ! -e only.key ] || fail "half a pair was made"
ln -s nowhere link.key
expect_exit 2 "$LORACTL" keygen -o link --no-passphrase
[ ! -e nowhere ] || fail "written through a link"
expect_exit 3 "$LORACTL" keygen -o none/key --no-passphrase
expect_stderr_line "the directory 'none' does not exist"

# Comments.
expect_exit 0 "$LORACTL" keygen -o named --no-passphrase --comment 'Tëam A, 2027'
expect_equal "$(head -n 1 named.pub)" "untrusted comment: Tëam A, 2027"
expect_exit 2 "$LORACTL" keygen -o bad --no-passphrase --comment $'two\nlines'
expect_exit 2 "$LORACTL" keygen -o bad --no-passphrase --comment $'\xff'
expect_exit 2 "$LORACTL" keygen -o bad --no-passphrase --comment "$(printf '%01001d' 0)"
expect_stderr_line 'longer than 1000 bytes'
[ ! -e bad.key ] || fail "a key with a bad comment was made"

# Passphrases: a descriptor, a file, the terminal.
echo 'correct horse' >secret
chmod 600 secret
expect_exit 0 "$LORACTL" keygen -o a --passphrase-fd 5 5<secret
expect_empty "$ERR"
expect_equal "$(head -n 1 a.key)" "untrusted comment: minisign encrypted secret key"
expect_equal "$(tail -n 1 a.key | base64 -d | head -c 6)" EdScB2
expect_equal "$(tail -n 1 a.key | base64 -d | tail -c +47 | head -c 8 | od -An -tu8 | tr -d ' ')" 67108864
echo data >file
expect_exit 0 env LORACTL_PASSPHRASE_FILE=secret "$LORACTL" sign file -k a.key
printf 'correct horse\r\n' >crlf
expect_exit 0 "$LORACTL" sign file -k a.key --passphrase-fd 7 7<crlf
printf 'correct horse' >unfinished
expect_exit 0 "$LORACTL" sign file -k a.key --passphrase-fd 7 7<unfinished
# What stands behind the line is not read.
printf 'correct horse\nrest' >two
exec 8<two
expect_exit 0 "$LORACTL" sign file -k a.key --passphrase-fd 8
expect_equal "$(cat <&8)" rest
exec 8<&-
chmod 644 secret
expect_exit 0 env LORACTL_PASSPHRASE_FILE=secret "$LORACTL" sign file -k a.key
expect_stderr_line "warning: 'secret' holds a passphrase and is open to others \(mode 644\): chmod 600 it"

for bad in 'correct hors' 'Correct horse' 'correct horse ' ''; do
	expect_exit 3 "$LORACTL" sign file -k a.key --passphrase-fd 7 7< <(printf '%s\n' "$bad")
	expect_stderr_line "key 'a\.key': wrong passphrase \(or the file is damaged\)"
	! grep -q 'orse' "$ERR" || fail "the passphrase is in the message"
done
expect_exit 2 "$LORACTL" keygen -o b --passphrase-fd 7 7< <(echo)
expect_stderr_line 'the passphrase is empty: give one, or use --no-passphrase'
expect_exit 2 "$LORACTL" keygen -o b --passphrase-fd 7 7< <(printf '%01024d\n' 0)
expect_stderr_line 'longer than 1023 bytes'
expect_exit 2 "$LORACTL" keygen -o b --passphrase-fd 7 7< <(printf 'a\0b\n')
expect_stderr_line 'zero byte'
expect_exit 2 env LORACTL_PASSPHRASE_FILE=two "$LORACTL" keygen -o b
expect_stderr 'more than one line'
expect_exit 3 env LORACTL_PASSPHRASE_FILE=none "$LORACTL" keygen -o b
expect_exit 2 "$LORACTL" keygen -o b --passphrase-fd 77
expect_stderr_line 'descriptor 77 is not open'
for bad in x -1 1x '' 99999999999999999999; do
	expect_exit 2 "$LORACTL" keygen -o b --passphrase-fd="$bad"
	expect_stderr_line 'passphrase-fd'
done
expect_exit 2 "$LORACTL" keygen -o b --no-passphrase --passphrase-fd 0
expect_exit 2 setsid -w "$LORACTL" keygen -o b
expect_stderr_line 'no terminal to ask for a passphrase: use --passphrase-fd, or LORACTL_PASSPHRASE_FILE'
[ ! -e b.key ] || fail "a key was made without a passphrase"

# On a terminal: asked twice, never shown.
# LINES COMMAND...: what is typed, with pauses, into a terminal of the command's own
typed()
{
	local lines=$1 line
	shift
	printf -v line '%q ' "$@"
	STATUS=0
	while IFS= read -r text; do
		sleep 1
		printf '%s\n' "$text"
	done <<<"$lines" | SHELL=/bin/bash script -qec "$line" /dev/null >"$OUT" 2>"$ERR" || STATUS=$?
}
typed $'pass one\npass one' "$LORACTL" keygen -o tty
expect_equal "$STATUS" 0
expect_stdout 'New passphrase for tty\.key: '
! grep -q 'pass one' "$OUT" || fail "the passphrase was shown"
expect_exit 0 "$LORACTL" sign file -k tty.key --force --passphrase-fd 7 7< <(echo 'pass one')
typed $'pass one\npass two' "$LORACTL" keygen -o differ
expect_equal "$STATUS" 2
expect_stdout 'the two passphrases differ'
[ ! -e differ.key ] || fail "a key was made from passphrases that differ"
typed 'pass one' "$LORACTL" sign file -k tty.key --force
expect_equal "$STATUS" 0
expect_stdout 'Passphrase for tty\.key: '

expect_exit 2 "$LORACTL" keygen
expect_exit 2 "$LORACTL" keygen -o x y
expect_exit 2 "$LORACTL" keygen -o x --json
