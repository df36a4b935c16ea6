#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# unmerge_same - the same record for every number of threads and on every kernel, and the same base from it; in
# memory that neither threads nor the model's size decide.
. "${SRC:?the repository}/tests/cli/merge_checks.sh" || exit 1
copies llama llama-adapter
cp -r llama shards
edit shards shards 5
cp -r "$SRC/tests/data/undo" golden
kernels=(generic)
for kernel in avx2 avx512 neon; do
	run env LORACTL_CPU=$kernel "$LORACTL" -v --version
	[ "$STATUS" -ne 0 ] || kernels+=("$kernel")
done

# BASE ADAPTER...
same()
{
	rm -rf want want.undo
	LORACTL_CPU=generic "$LORACTL" merge -q "$@" --threads 1 -o want --undo want.undo || fail "$1: exit $?"
	for kernel in "${kernels[@]}"; do
		for threads in 1 2 3 8; do
			[ $kernel = generic ] || [ $threads -gt 2 ] || continue
			expect_exit 0 env LORACTL_CPU=$kernel "$LORACTL" merge -q "$@" --threads $threads -o have --undo have.undo
			expect_same want.undo have.undo
			expect_exit 0 env LORACTL_CPU=$kernel "$LORACTL" unmerge -q want --undo want.undo -o back --threads $threads
			diff -r "$1" back || fail "$1, $kernel, $threads threads: another base"
			rm -rf have have.undo back
		done
	done
}
same llama llama-adapter
same shards llama-adapter
same golden/llama/base golden/llama/sums golden/llama/dora golden/llama/more:-0.7 golden/llama/more:0.3
same golden/gpt2/base golden/gpt2/dora golden/gpt2/tie
# Several threads on one core, where blocks come in another order each time.
for _ in 1 2 3 4 5; do
	expect_exit 0 taskset -c 0 "$LORACTL" merge -q shards llama-adapter --threads 16 -o have --undo have.undo
	expect_exit 0 "$LORACTL" merge -q shards llama-adapter --threads 7 -o want2 --undo want2.undo
	expect_same have.undo want2.undo
	rm -rf have have.undo want2 want2.undo
done
rm -rf llama shards golden want want.undo

# --- memory

[ -z "$sanitized" ] || exit 0
mebibytes=300
edit large base adapter $mebibytes 64
python3 - base/model.safetensors <<'PYTHON' || fail "base"
import random, struct, sys # weights of every size and sign, so that residuals are large
with open(sys.argv[1], "r+b") as file:
    begin = 8 + struct.unpack("<Q", file.read(8))[0]
    source = random.Random(5)
    block = struct.pack("<262144f", *[source.gauss(0, 0.3) for _ in range(1 << 18)])
    size = file.seek(0, 2) - begin
    file.seek(begin)
    for at in range(0, size, len(block)):
        file.write(block[: size - at])
PYTHON
# COMMAND...: its peak of resident memory in KiB.
peak()
{
	python3 - "$@" <<'PYTHON'
import os, resource, subprocess, sys
status = subprocess.run(sys.argv[1:], stdout=subprocess.DEVNULL).returncode
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss if status == 0 else "exit %d" % status)
PYTHON
}
# THREADS COMMAND...
bounded()
{
	local kib

	kib=$(peak "$LORACTL" "${@:2}" -q --threads "$1")
	[ "$kib" -le $((256 << 10)) ] 2>/dev/null || fail "--threads $1: ${*:2}: $kib KiB at its peak"
}
for dtype in f32 f16; do
	for threads in 1 64; do
		bounded $threads merge base adapter -o out --undo record --dtype $dtype --undo-large
		bounded $threads unmerge out --undo record -o back
		diff -r base back || fail "$dtype: another base with --threads $threads"
		[ $dtype != f32 ] || bounded $threads unmerge out adapter --approximate -o near --base base
		rm -rf out record back near
	done
done
rm -rf base adapter
