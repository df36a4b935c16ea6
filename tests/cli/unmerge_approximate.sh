#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# unmerge_approximate - subtracting adapters: what is expected of it is what comes of it, counted here once more from
# the files; and what cannot be subtracted is refused.
. "${SRC:?the repository}/tests/cli/merge_checks.sh" || exit 1
copies llama llama-adapter gpt2 gpt2-adapter
cp -r gpt2-adapter other
edit scale other/adapter_model.safetensors lora_B -0.3
cp -r "$SRC/tests/data/undo" golden

# BASE NEAR REPORT: the measured figures are those of the two files, the expected ones within 15 % of them.
close_to()
{
	PYTHONPATH=$SRC/tests/cli python3 - "$@" <<'PYTHON' || fail "$1: the figures"
import array, json, math, sys
import tools

base, near, report = sys.argv[1:]
adapted = open("names").read().split()
x = json.load(open(report))
wrong = []
off = elements = most = 0
e2 = w2 = 0.0
for path, other in zip(tools._weights(base), tools._weights(near)):
    ours, theirs = tools.File(path).tensors, tools.File(other).tensors
    if list(ours) != list(theirs):
        wrong.append("other tensors")
    for name in ours:
        a, b = ours[name], theirs[name]
        if name not in adapted:
            if a.data != b.data:
                wrong.append(name + ": nothing was merged into it, and it differs")
            continue
        k = {"F32": "I", "F16": "H", "BF16": "H"}[a.dtype]
        top = 1 << (8 * array.array(k).itemsize - 1)
        place = lambda u: u if u < top else top - 1 - u  # by value: -0 is just below +0
        for u, v, p, q in zip(array.array(k, a.data), array.array(k, b.data), a.values(), b.values()):
            elements += 1
            off += u != v
            most = max(most, abs(place(u) - place(v)))
            e2 += (p - q) ** 2
            w2 += p * p
have = x["measured"]
want = {"off": off / elements, "relative": math.sqrt(e2 / w2), "max_ulp": most}
for key in want:
    if abs(have[key] - want[key]) > 1e-9 * max(want[key], 1e-30):
        wrong.append("measured %s: %r, counted here %r" % (key, have[key], want[key]))
for key in ("off", "relative"):
    if not abs(x["expected"][key] - want[key]) <= 0.15 * want[key]:
        wrong.append("expected %s: %r, and it is %r" % (key, x["expected"][key], want[key]))
if off == 0 or x["exact"] or x["root"] is not None:
    wrong.append("exact: %s" % x)
print(*wrong, sep="\n")
sys.exit(bool(wrong))
PYTHON
}

# BASE ADAPTER...
near()
{
	done_well "$LORACTL" merge -q "$@" -o out
	done_well "$LORACTL" unmerge out "${@:2}" --approximate --base "$1" -o near --json
	cp "$OUT" report.json
	tools get out/loractl-receipt.json '"\n".join(m["tensor"] for m in x["modules"])' >names
	close_to "$1" near report.json
	for file in config.json tokenizer.json; do
		[ ! -e "$1/$file" ] || expect_same "$1/$file" near/$file
	done
	# The same without a base to measure against, and for any number of threads.
	expect_exit 0 "$LORACTL" unmerge -q out "${@:2}" --approximate -o again --threads 7
	diff -r near again || fail "$*: another result without --base"
	rm -rf out near again report.json names
}
near llama llama-adapter
near gpt2 gpt2-adapter
near gpt2 gpt2-adapter:2 other:-0.5
cp -r llama wide
edit cast wide/model.safetensors F32
python3 - wide/model.safetensors <<'PYTHON' || fail "wide"
import random, struct, sys # low bits as training fills them
data = bytearray(open(sys.argv[1], "rb").read())
source = random.Random(3)
for at in range(8 + struct.unpack("<Q", data[:8])[0], len(data), 4):
    data[at : at + 2] = source.randbytes(2)
open(sys.argv[1], "wb").write(data)
PYTHON
near wide llama-adapter
cp -r llama shards
edit shards shards 3
near shards llama-adapter
rm -rf wide

# --- what is printed

done_well "$LORACTL" merge -q llama llama-adapter -o out
done_well "$LORACTL" unmerge out llama-adapter --approximate --base llama -o near
expect_stdout '^expected +[0-9.e-]+ % of the adapted weights off, \|error\| [0-9.e-]+ % of \|W\|$'
expect_stdout '^measured +[0-9.e-]+ % of the adapted weights off'
expect_stdout '; not the base: near it$'
expect_equal "$(grep -n '' "$OUT" | sed -n 's/^\([0-9]*\):\(expected\|measured\|wrote\).*/\1\2/p' | tr '\n' ' ')" '1expected 2measured 3wrote '
expect_equal "$(grep -c note "$ERR")" "$(sort -u "$ERR" | grep -c note)" # nothing is said twice
rm -rf near
done_well "$LORACTL" unmerge out llama-adapter --approximate -o near
! grep -q measured "$OUT" || fail "measured without a base"
rm -rf near
done_well "$LORACTL" unmerge out llama-adapter --approximate -o near --json
expect_json 'x["schema"], x["exact"], x["root"], "measured" in x, sorted(x["expected"])' \
	"('loractl.unmerge/1', False, None, False, ['off', 'relative'])"
rm -rf near
done_well "$LORACTL" unmerge -q out llama-adapter --approximate -o near
expect_empty "$OUT" "$ERR"
rm -rf near
cp out/model.safetensors out.safetensors
done_well "$LORACTL" unmerge -q out.safetensors llama-adapter --approximate -o near.safetensors
done_well "$LORACTL" unmerge -q out llama-adapter --approximate -o near
expect_same near/model.safetensors near.safetensors
rm -rf near near.safetensors out.safetensors

# --- what cannot be subtracted

refused 3 "'model\.layers\.0\.mlp\.[a-z_]*\.weight' was not merged by a sum \(dora" \
	"$LORACTL" unmerge golden/llama/merged golden/llama/dora --approximate -o x
refused 3 "'[^']*' was not merged by a sum|would split tied weights or add tensors" \
	"$LORACTL" unmerge golden/llama/merged golden/llama/sums --approximate -o x
refused 3 "'transformer\.h\.0\.[^']*' was not merged by a sum \(dora" \
	"$LORACTL" unmerge golden/gpt2/merged golden/gpt2/dora --approximate -o x
refused 3 'split tied weights' "$LORACTL" unmerge golden/gpt2/base golden/gpt2/tie --approximate -o x
# An adapter of another model; a base of another shape, of another type.
refused 3 '.' "$LORACTL" unmerge out gpt2-adapter --approximate -o x
refused 3 "'gpt2' has no tensor '[^']*' of that type and shape: it is another base" \
	"$LORACTL" unmerge -q out llama-adapter --approximate --base gpt2 -o x
cp -r llama narrow
edit cast narrow/model.safetensors F16
refused 3 "'narrow' has no tensor" "$LORACTL" unmerge -q out llama-adapter --approximate --base narrow -o x
cp -r llama short
edit shape short/model.safetensors model.layers.0.mlp.up_proj.weight 250,89
refused 3 "'short' has no tensor" "$LORACTL" unmerge -q out llama-adapter --approximate --base short -o x
refused 3 "'nowhere'" "$LORACTL" unmerge -q out llama-adapter --approximate --base nowhere -o x
refused 3 "'nowhere'" "$LORACTL" unmerge -q out nowhere --approximate -o x
# Places.
for place in out out/x llama llama/x llama-adapter/x; do
	refused 2 '.' "$LORACTL" unmerge -q out llama-adapter --approximate --base llama -o $place
done
