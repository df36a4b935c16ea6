#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""A real model there and back: SmolLM2-135M + a PEFT adapter, merge --undo, unmerge.

    undo.py BINARY [--work DIR] [--dtype f32|bf16|f16]...

Every file of the base comes back with its SHA-256 by hashlib; numpy counts how many weights PEFT's
own formula without a record, W' - sBA, would have missed, so that it is known that there was
something to restore. The model: the folder LORACTL_SMOLLM2 or build/smollm2
(tests/data/smollm2.py makes it). f32 and bf16 unless --dtype says others.
"""

import argparse
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
sys.dont_write_bytecode = True
sys.path.insert(0, os.path.join(ROOT, "tests", "oracle"))

import numpy as np  # noqa: E402

import files  # noqa: E402


def digests(folder):
    """name -> SHA-256 of every file of a folder, links followed."""
    found = {}
    for name in sorted(os.listdir(folder)):
        digest = hashlib.sha256()
        with open(os.path.join(folder, name), "rb") as f:
            while step := f.read(1 << 22):
                digest.update(step)
        found[name] = digest.hexdigest()
    return found


def values(tensor):
    if tensor.dtype == "F32":
        return tensor.raw.view(np.float32)
    if tensor.dtype == "F16":
        return tensor.raw.view(np.float16).astype(np.float32)
    return (tensor.raw.astype(np.uint32) << 16).view(np.float32)


def rounded(x, dtype):
    """Bits of f32 values in another type, ties to even; finite values only."""
    if dtype == "F32":
        return x.view(np.uint32)
    if dtype == "F16":
        return x.astype(np.float16).view(np.uint16)
    bits = x.view(np.uint32).astype(np.uint64)
    return ((bits + 0x7FFF + (bits >> 16 & 1)) >> 16).astype(np.uint16)


def tensors(folder):
    found = {}
    for name in sorted(os.listdir(folder)):
        if name.endswith(".safetensors"):
            found.update(files.read(os.path.join(folder, name))[0])
    return found


def missed(base, merged, adapter, scale):
    """Of the linear layers of the first two blocks: weights that subtracting does not give back."""
    wrong = count = 0
    before, after = tensors(base), tensors(merged)
    factors = files.read(os.path.join(adapter, "adapter_model.safetensors"))[0]
    for name, a in factors.items():
        if ".lora_A." not in name or not (".layers.0." in name or ".layers.1." in name):
            continue
        b = factors[name.replace(".lora_A.", ".lora_B.")]
        target = name.replace("base_model.model.", "", 1).replace(".lora_A.", ".")
        update = np.float32(scale) * (values(b) @ values(a))
        near = rounded(values(after[target]) - update, after[target].dtype)
        wrong += int((near != before[target].raw).sum())
        count += near.size
    return wrong, count


def case(binary, data, dtype, folder):
    base, adapter = os.path.join(data, dtype), os.path.join(data, "adapter-r16")
    merged, record, back = (os.path.join(folder, x) for x in ("merged", "record", "back"))
    env = {**os.environ, "XDG_CACHE_HOME": os.path.join(folder, "cache")}
    faults = []
    for command in (
        ["merge", "-q", base, adapter, "-o", merged, "--undo", record],
        ["unmerge", "-q", merged, "--undo", record, "-o", back],
    ):
        run = subprocess.run([binary, *command], env=env, capture_output=True, text=True)
        if run.returncode or run.stdout or run.stderr:
            return ["%s: exit %d: %s" % (command[0], run.returncode, run.stderr[:500])]
    want, have = digests(base), digests(back)
    for name in sorted(set(want) | set(have)):
        if want.get(name) != have.get(name):
            faults.append("%s: %s, not %s" % (name, have.get(name), want.get(name)))
    wrong, count = missed(base, merged, adapter, 2.0)
    if wrong == 0:
        faults.append("subtracting gives the base already: the record had nothing to do")
    adapted = os.path.getsize(record)
    print(
        "%s: %d files equal; without the record %d of %d weights would be off; record %.1f MiB"
        % (dtype, len(want), wrong, count, adapted / 2**20)
    )
    return faults


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("binary")
    parser.add_argument("--work")
    parser.add_argument("--dtype", action="append", choices=("f32", "bf16", "f16"))
    args = parser.parse_args()
    data = os.environ.get("LORACTL_SMOLLM2") or os.path.join(ROOT, "build", "smollm2")
    if not os.path.isdir(os.path.join(data, "adapter-r16")):
        print("%s: not there: tests/data/smollm2.py makes it" % data)
        return 1 if os.environ.get("CI") == "true" else 77
    faults = []
    for dtype in args.dtype or ("f32", "bf16"):
        folder = tempfile.mkdtemp(prefix="undo-", dir=args.work)
        try:
            faults += ["%s: %s" % (dtype, fault) for fault in case(args.binary, data, dtype, folder)]
        finally:
            shutil.rmtree(folder)
    print(*faults, sep="\n", end="\n" if faults else "")
    print("%d failed" % len(faults))
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
