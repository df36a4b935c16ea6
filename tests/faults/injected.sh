#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# Every system call of a merge that touches the output fails once, or is the last thing the process does. After a failure: exit 4,
# one line, nothing left. After a kill: nothing under the final name, and the inputs as they were.
. "${SRC:?the repository}/tests/cli/lib.sh" || exit 1
need strace
tiny=$SRC/tests/data/tiny
cp -r "$tiny/llama" base
cp -r "$tiny/llama-adapter" adapter
sums=$(find base adapter -type f -exec sha256sum {} + | sort)

# CALL: how often a merge makes it on the output's side
count()
{
	strace -f -o "$cli_folder/trace" -e trace="$1" "$LORACTL" merge -q --threads 1 base adapter -o counted >/dev/null
	rm -rf counted
	grep -c "$1(" "$cli_folder/trace"
}

nothing_left()
{
	[ ! -e merged ] || fail "$1: the final name exists"
	[ "$(find . -name '.*.loractl-*' | wc -l)" -eq 0 ] || fail "$1: temporary files are left"
	[ "$(find base adapter -type f -exec sha256sum {} + | sort)" = "$sums" ] || fail "$1: an input changed"
	rm -rf merged
}

# CALL ERROR
fail_each()
{
	local calls n

	calls=$(count "$1")
	[ "$calls" -gt 0 ] || fail "$1 is never called: the test tests nothing"
	for ((n = 1; n <= calls; n++)); do
		run strace -f -o /dev/null -e trace="$1" -e inject="$1:error=$2:when=$n" \
			"$LORACTL" merge -q --threads 1 base adapter -o merged
		if [ "$STATUS" -eq 0 ]; then
			# A call whose failure may be survived (a fallback) must leave a whole result.
			"$LORACTL" merge -q base adapter -o again
			diff -r merged again >/dev/null || fail "$1 failing at $n: success, but another result"
			rm -rf merged again
			continue
		fi
		[ "$STATUS" -eq 4 ] || fail "$1 $2 at $n: exit $STATUS: $(cat "$ERR")"
		[ "$(wc -l <"$ERR")" -eq 1 ] || fail "$1 $2 at $n: $(wc -l <"$ERR") lines: $(cat "$ERR")"
		nothing_left "$1 $2 at $n"
	done
}

# CALL
kill_each()
{
	local calls n

	calls=$(count "$1")
	for ((n = 1; n <= calls; n++)); do
		{ run strace -f -o /dev/null -e trace="$1" -e inject="$1:signal=SIGKILL:when=$n" \
			"$LORACTL" merge -q --threads 1 base adapter -o merged; } 2>/dev/null
		if [ -e merged ]; then
			# Killed at or after the rename: then it is whole.
			"$LORACTL" merge -q base adapter -o again
			diff -r merged again >/dev/null || fail "killed at $1 $n: a torn result under the final name"
		fi
		rm -rf merged again
		find . -maxdepth 1 -name '.*.loractl-*' -exec rm -rf {} +
		[ "$(find base adapter -type f -exec sha256sum {} + | sort)" = "$sums" ] || fail "killed at $1 $n: an input changed"
	done
}

fail_each pwrite64 ENOSPC
fail_each pwrite64 EIO
fail_each fdatasync EIO
fail_each fsync EIO
fail_each renameat2 EIO
fail_each mkdir EACCES
fail_each fallocate ENOSPC
fail_each copy_file_range EIO
fail_each copy_file_range EXDEV
kill_each pwrite64
kill_each fdatasync
kill_each fsync
kill_each renameat2
