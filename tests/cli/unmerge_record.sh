#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# unmerge_record - a record that was cut off or changed, anywhere, or says something else, never gives a wrong base.
. "${SRC:?the repository}/tests/cli/merge_checks.sh" || exit 1
cp -r "$SRC/tests/data/undo" golden

# The name of a stored file has no other proof than the digest of record.json.
sed 's/"name":"config\.json"/"name":"konfig.json"/' golden/gpt2/merged.undo >bent.undo
expect_equal "$(cmp -l bent.undo golden/gpt2/merged.undo | wc -l)" 1
refused 3 "'bent\.undo': damaged undo record: record\.json is not what its digest says" \
	"$LORACTL" unmerge golden/gpt2/merged --undo bent.undo -o x
refused 3 "record\.json is not what its digest says" "$LORACTL" inspect bent.undo

# --- a record that says something else, with nothing that covers record.json as a whole: each has its own proof

# MODEL PYTHON: the record with another x, as bent.undo.
bend()
{
	python3 - "golden/$1/merged.undo" "$2" <<'PYTHON' || fail "bend $*"
import json, struct, sys
data = open(sys.argv[1], "rb").read()
(n,) = struct.unpack("<Q", data[:8])
header = json.loads(data[8 : 8 + n])
parts = {k: data[8 + n + v["data_offsets"][0] : 8 + n + v["data_offsets"][1]] for k, v in header.items() if k != "__metadata__"}
x = json.loads(parts["record.json"])
was = json.dumps(x)
other = lambda digest: ("1" if digest[0] == "0" else "0") + digest[1:]
exec(sys.argv[2])
assert json.dumps(x) != was
parts["record.json"] = json.dumps(x).encode()
header["__metadata__"] = {"format": "loractl.undo/1"}
header["record.json"]["shape"] = [len(parts["record.json"])]
at = 0
for name, part in parts.items():
    header[name]["data_offsets"] = [at, at + len(part)]
    at += len(part)
text = json.dumps(header).encode()
open("bent.undo", "wb").write(struct.pack("<Q", len(text)) + text + b"".join(parts.values()))
PYTHON
}
# STATUS PATTERN MODEL PYTHON
bent()
{
	bend "$3" "$4"
	refused "$1" "$2" "$LORACTL" unmerge "golden/$3/merged" --undo bent.undo -o x
}
not_base="damaged undo record: '[^']*' does not come out as the base's"
bent 3 "'root' does not come out" gpt2 'x["base"]["root"] = other(x["base"]["root"])'
bent 3 "$not_base" gpt2 'x["base"]["files"][0]["sha256"] = other(x["base"]["files"][0]["sha256"])'
bent 3 "$not_base" llama 'x["base"]["files"][1]["sha256"] = other(x["base"]["files"][1]["sha256"])'
bent 1 'it has another root' gpt2 'x["merged"]["root"] = other(x["merged"]["root"])'
bent 1 'another size or other tensors' gpt2 'x["merged"]["files"][0]["head_sha256"] = other(x["merged"]["files"][0]["head_sha256"])'
bent 1 'another size or other tensors' gpt2 'x["merged"]["files"][0]["size"] += 1'
bent 1 'it has another root' gpt2 'x["merged"]["tensors"][0]["sha256"] = other(x["merged"]["tensors"][0]["sha256"])'
bent 1 "'README\.md' of .* is not what the merge wrote" gpt2 'y = [y for y in x["base"]["others"] if y["name"] == "README.md"][0]; y["sha256"] = other(y["sha256"])'
bent 3 "the stored file 'config\.json' is not what its digest says" gpt2 'y = [y for y in x["base"]["others"] if y["name"] == "config.json"][0]; y["sha256"] = other(y["sha256"])'
bent 1 "'config\.json' of .* is not what the merge wrote" gpt2 'y = [y for y in x["merged"]["others"] if y["name"] == "config.json"][0]; y["sha256"] = other(y["sha256"])'
bent 3 "$not_base" llama 'y = [y for y in x["tensors"] if y["parts"]][0]; y["parts"][0]["scale"] *= 2'
bent 3 "$not_base" llama 'y = [y for y in x["tensors"] if y["rows"]][0]; y["rows"][0] += 1'
bent 3 'chunk' llama 'y = x["tensors"][0]; y["chunks"][0][0] -= 1'
bent 3 'chunk' llama 'y = x["tensors"][0]; y["chunks"][0][1] -= 1'
bent 3 'ascend' llama 'y = [y for y in x["tensors"] if y["rows"]][0]; y["rows"].reverse()'
bent 3 'no name for a file' gpt2 'x["base"]["others"][0]["name"] = "../" + x["base"]["others"][0]["name"]'
bent 3 'arithmetic version 2' gpt2 'x["arithmetic"] = 2'
bent 3 "'loractl\.undo/2'" gpt2 'x["schema"] = "loractl.undo/2"'

# --- a damaged record: cut off, or one byte changed. Exit 1 or 3, one line, nothing left; or, where what changed is
# no part of the way (the name of a member that nobody needs), the base itself.

# MODEL STEP
damage()
{
	python3 - "$LORACTL" "golden/$1" "$2" <<'PYTHON' || fail "$1: a damaged record"
import hashlib, os, random, shutil, subprocess, sys

loractl, folder, step = sys.argv[1], sys.argv[2], int(sys.argv[3])
record = open(folder + "/merged.undo", "rb").read()
head = int.from_bytes(record[:8], "little")

def tree(top):
    return {os.path.relpath(os.path.join(d, f), top): open(os.path.join(d, f), "rb").read()
            for d, _, names in os.walk(top) for f in names}

base, faults, right = tree(folder + "/base"), [], 0

def attempt(what, data):
    global right
    with open("damaged", "wb") as file:
        file.write(data)
    before = sorted(os.listdir("."))
    run = subprocess.run([loractl, "unmerge", folder + "/merged", "--undo", "damaged", "-o", "out"],
                         capture_output=True, timeout=20)
    if run.returncode == 0:
        right += 1
        if tree("out") != base:
            faults.append(what + ": a wrong base")
        shutil.rmtree("out")
    elif run.returncode not in (1, 3):
        faults.append("%s: exit %d: %s" % (what, run.returncode, run.stderr[:300]))
    elif run.stderr.count(b"\n") != 1 or not run.stderr.startswith(b"loractl unmerge: ") or run.stdout:
        faults.append("%s: %s %s" % (what, run.stdout, run.stderr[:300]))
    if sorted(os.listdir(".")) != before:
        faults.append(what + ": something is left")
        shutil.rmtree("out", ignore_errors=True)

edges = {0, 1, 7, 8, 9, 8 + head - 1, 8 + head, 8 + head + 1, len(record) - 1}
for n in sorted(edges | set(range(0, len(record), 4 * step))):
    attempt("cut to %d bytes" % n, record[:n])
attempt("a byte more", record + b"\0")
if right:
    faults.append("a record that was cut off was taken")
source = random.Random(7)
right, tried = 0, 0
for at in range(source.randrange(step), len(record), step):
    bent = bytearray(record)
    bent[at] ^= source.choice([1, 2, 4, 8, 16, 32, 64, 128, 255])
    attempt("byte %d" % at, bytes(bent))
    tried += 1
if right > 2 + tried // 10: # a low bit of a factor may change no prediction
    faults.append("%d of %d changed bytes went unnoticed" % (right, tried))
print(*faults[:10], sep="\n")
os.remove("damaged")
sys.exit(bool(faults))
PYTHON
}

step=41
[ -z "$sanitized" ] || step=397
damage llama $step
damage gpt2 $step
