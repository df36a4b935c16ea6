#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# Little address space: a merge stands (0) or fails with its one line (4), in short time, and leaves nothing.
. "${SRC:?the repository}/tests/cli/lib.sh" || exit 1
[ -z "${LORACTL_SANITIZE:-}" ] || { echo "SKIP: sanitizers need all of the address space"; exit 77; }
tiny=$SRC/tests/data/tiny

limited()
{
	(ulimit -v "$1" && exec timeout -s KILL 30 "${@:2}")
}
stood=0
# Below 12,000 KiB the loader decides, before main().
for kib in 12000 14000 20000 40000 60000 80000 100000 120000 140000 160000 200000 300000 1000000; do
	run limited $kib "$LORACTL" merge -q "$tiny/llama" "$tiny/llama-adapter" -o out
	case $STATUS in
	0) stood=$((stood + 1)) && [ -f out/model.safetensors ] || fail "$kib KiB: exit 0 without an output" ;;
	4) [ "$(wc -l <"$ERR")" -eq 1 ] || fail "$kib KiB: exit 4: $(cat "$ERR")" ;;
	*) fail "$kib KiB: exit $STATUS: $(cat "$ERR")" ;;
	esac
	[ "$STATUS" -eq 0 ] || [ ! -e out ] || fail "$kib KiB: an output after a failure"
	rm -rf out
done
[ $stood -gt 0 ] || fail "no limit let it through"

# A small stack, which is that of every thread.
stacked() { (ulimit -s "$1" && exec timeout -s KILL 30 "${@:2}"); }
expect_exit 4 stacked 64 "$LORACTL" merge -q "$tiny/llama" "$tiny/llama-adapter" -o out
expect_stderr_line 'stack is limited to 64 KiB'
for kib in 128 256; do
	for adapter in llama gpt2; do
		expect_exit 0 stacked $kib "$LORACTL" merge -q "$tiny/$adapter" "$tiny/$adapter-adapter" -o out --verify
		rm -rf out
		expect_exit 0 stacked $kib "$LORACTL" inspect "$tiny/$adapter-adapter" --base "$tiny/$adapter" --spectrum
	done
done
