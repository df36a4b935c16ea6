#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# undo_golden - records of earlier days: every one that was ever written has to give its base back, byte for byte.
. "${SRC:?the repository}/tests/cli/merge_checks.sh" || exit 1
golden=$SRC/tests/data/undo

# MODEL KIND-OF-CHUNK...: what the record has to cover, or it is another one than README.md describes.
covers()
{
	python3 - "$golden/$1" "${@:2}" <<'PYTHON' || fail "$1: the record does not cover what it should"
import json, struct, sys

def load(data):
    (n,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + n])
    header.pop("__metadata__", None)
    return {k: (v["dtype"], data[8 + n + v["data_offsets"][0] : 8 + n + v["data_offsets"][1]]) for k, v in header.items()}

record = load(open(sys.argv[1] + "/merged.undo", "rb").read())
facts = json.loads(record["record.json"][1])
types = {}
for name, (_, head) in record.items():
    if name.startswith("head."):
        types.update({k: v["dtype"] for k, v in json.loads(head[8:]).items() if k != "__metadata__"})
seen = set()
for i, tensor in enumerate(facts["tensors"]):
    seen.update([types[tensor["name"]], tensor["from"], "gain-%s" % tensor["gain"]])
    seen.update(part["kind"] for part in tensor["parts"])
    seen.update(["rows"] if tensor["rows"] else [])
    seen.update(["sum-of-three"] if len(tensor["parts"]) > 2 else [])
    width, chunks, at = {"F32": 4}.get(types[tensor["name"]], 2), record["residual.%d" % i][1], 0
    for elements, size in tensor["chunks"]:
        chunk, at = chunks[at : at + size], at + size
        streams, place = [elements] * width, 1
        seen.add("mode-%d" % chunk[0])
        if chunk[0] == 1:
            m, g = struct.unpack("<II", chunk[1:9])
            streams, place = [g] + [m] * width, 9
        for n in streams if chunk[0] else []:
            seen.add("coding-%d" % chunk[place])
            more = [0, n, 4 + (struct.unpack("<I", chunk[place + 1 : place + 5])[0] if chunk[place] == 2 else 0)]
            place += 1 + more[chunk[place]]
lacking = set(sys.argv[2:]) - seen
print(*lacking)
sys.exit(bool(lacking))
PYTHON
}

covers llama F32 F16 BF16 low-rank dense sum-of-three rows merged nothing gain-row mode-0 mode-1 mode-2 \
	coding-0 coding-1 coding-2
covers gpt2 F32 F16 BF16 low-rank gain-column merged

for model in llama gpt2; do
	cp -r "$golden/$model" $model
	done_well "$LORACTL" unmerge -q $model/merged --undo $model/merged.undo -o base
	diff -r base "$golden/$model/base" || fail "$model: another base"
	rm -rf base
	for kernel in generic avx2 avx512; do
		run env LORACTL_CPU=$kernel "$LORACTL" --version -v
		[ "$STATUS" -eq 0 ] || continue
		for threads in 1 3; do
			expect_exit 0 env LORACTL_CPU=$kernel "$LORACTL" unmerge -q --threads $threads $model/merged \
				--undo $model/merged.undo -o base
			diff -r base "$golden/$model/base" || fail "$model: $kernel, $threads threads: another base"
			rm -rf base
		done
	done
done

# The merged models too are for ever: they follow from the arithmetic, which has a number.
adapters_llama=(llama/sums llama/dora llama/more:-0.7 llama/more:0.3)
adapters_gpt2=(gpt2/dora gpt2/tie)
expect_exit 0 "$LORACTL" merge -q llama/base "${adapters_llama[@]}" -o llama/new --undo llama/new.undo
expect_exit 0 "$LORACTL" merge -q gpt2/base "${adapters_gpt2[@]}" -o gpt2/new --undo gpt2/new.undo
expect_exit 0 "$LORACTL" rebuild -q llama/merged/loractl-receipt.json llama/base llama/{more,dora,more,sums} -o llama/rebuilt
expect_exit 0 "$LORACTL" rebuild -q gpt2/merged/loractl-receipt.json gpt2/base gpt2/{tie,dora} -o gpt2/rebuilt
for model in llama gpt2; do
	for made in new rebuilt; do
		diff -r -x loractl-receipt.json $model/$made $model/merged || fail "$model/$made: not the model of that day"
	done
	# Compressed by another library it may have other bytes; it is the way back all the same.
	expect_exit 0 "$LORACTL" unmerge -q $model/new --undo $model/new.undo -o $model/again
	diff -r $model/again "$golden/$model/base" || fail "$model: the new record gives another base"
	# A rebuilt model is the one of that day, so the record of that day leads back from it.
	expect_exit 0 "$LORACTL" unmerge -q $model/rebuilt --undo $model/merged.undo -o $model/back
	diff -r $model/back "$golden/$model/base" || fail "$model: another base from the rebuilt model"
done
