#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# container_crash - the power goes at any moment while a container is written: what the disk may hold then is worked out
# from the system calls of an append, of a repair and of a gc, and in every such state each version that had been committed
# comes out byte for byte (container_crash.py).
. "${SRC:?the repository}/tests/cli/lib.sh" || exit 1
need strace
need python3
[ -w /dev/shm ] && export TMPDIR=/dev/shm
python3 "$SRC/tests/faults/container_crash.py" "$LORACTL" >"$OUT" 2>"$ERR" || fail "$(cat "$OUT" "$ERR")"
expect_stdout '^[0-9]+ states of an append, [0-9]+ of a repair, [0-9]+ of a gc'
