# SPDX-License-Identifier: Apache-2.0
"""How small and how fast: containers beside zstd, and the order-0 bound.

    container.py LORACTL [ADAPTER-DIRECTORY...]

The bound is what the frequencies of bytes allow, tensor by tensor, in the planes of the rotated elements: no code of single
bytes is smaller. Sizes are of whole containers and of zstd over whole weight files, in per cent of the weights. MB/s are those of
a core: bytes of the weights over user and system time of `loractl pack` and `loractl unpack`, everything included.
Needs numpy and zstandard; zipnn is a column where it is installed.
"""
import json
import os
import resource
import shutil
import struct
import subprocess
import sys
import tempfile

import numpy as np
import zstandard

try:
    import zipnn
except ImportError:
    zipnn = None

WIDTH = {"F32": np.uint32, "F16": np.uint16, "BF16": np.uint16}


def tensors(path):
    data = open(path, "rb").read()
    size = struct.unpack("<Q", data[:8])[0]
    for name, t in json.loads(data[8:8 + size]).items():
        if name != "__metadata__":
            begin, end = t["data_offsets"]
            yield name, t["dtype"], data[8 + size + begin:8 + size + end]


def entropy(plane):
    counts = np.bincount(plane, minlength=256)
    share = counts[counts > 0] / plane.size
    return float(-(share * np.log2(share)).sum() * plane.size / 8)


def bound(path, parent=None):
    """Bytes of the weights, and of their order-0 bound; against a parent the smaller of both, tensor by tensor."""
    before = {name: raw for name, _, raw in tensors(parent)} if parent else {}
    total = best = 0
    for name, dtype, raw in tensors(path):
        kind = WIDTH.get(dtype, np.uint8)
        width = np.dtype(kind).itemsize
        sizes = []
        for other in (None, before.get(name)):
            x = np.frombuffer(raw, kind)
            if other is not None:
                x = x ^ np.frombuffer(other, kind)
            elif sizes:
                continue
            if width > 1:
                x = (x << kind(1)) | (x >> kind(8 * width - 1))
            planes = x.view(np.uint8).reshape(-1, width)
            sizes.append(sum(entropy(np.ascontiguousarray(planes[:, k])) for k in range(width)))
        total += len(raw)
        best += min(sizes)
    return total, best


def spent(*command):
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def made(folder, dtype, seed, count=48, shape=(1024, 256), parent=None, step=0.0):
    """An adapter like a trained one: normal values of a scale of its own in each tensor."""
    os.makedirs(folder)
    rng, header, blobs, at = np.random.default_rng(seed), {}, [], 0
    old = {n: np.frombuffer(r, np.float32) for n, _, r in tensors(parent)} if parent and dtype == "F32" else {}
    for i in range(count):
        name = f"base_model.model.layers.{i}.lora_{'AB'[i % 2]}.weight"
        x = (rng.standard_normal(shape) * 10 ** rng.uniform(-3, -1.5)).astype(np.float32)
        if name in old:
            x = (old[name].reshape(shape) * (1 + step * rng.standard_normal(shape))).astype(np.float32)
        raw = x.tobytes()
        if dtype == "BF16":
            bits = x.view(np.uint32)
            raw = ((bits + 0x7fff + (bits >> 16 & 1)) >> 16).astype(np.uint16).tobytes()
        elif dtype == "F16":
            raw = x.astype(np.float16).tobytes()
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [at, at + len(raw)]}
        at += len(raw)
        blobs.append(raw)
    text = json.dumps(header).encode()
    with open(f"{folder}/adapter_model.safetensors", "wb") as f:
        f.write(struct.pack("<Q", len(text)) + text + b"".join(blobs))
    open(f"{folder}/adapter_config.json", "w").write('{"peft_type": "LORA", "r": 8, "lora_alpha": 16}')
    return folder


def row(loractl, label, folder, container, parent=None):
    path = f"{folder}/adapter_model.safetensors"
    data = open(path, "rb").read()
    total, best = bound(path, f"{parent}/adapter_model.safetensors" if parent else None)
    before = os.path.getsize(container) if parent else 0
    pack = spent(loractl, "pack", folder, "-o", container, "--append")
    stored = os.path.getsize(container) - before
    unpack = spent(loractl, "unpack", container, "-o", container + ".out")
    same = open(container + ".out/adapter_model.safetensors", "rb").read() == data
    shutil.rmtree(container + ".out")
    cells = [f"{label:34}{total / 1e6:8.1f}{100 * best / total:8.2f}{100 * stored / total:8.2f}"
             f"{100 * (stored / best - 1):8.2f}"]
    small = data[:32 << 20]
    for level in (3, 19):
        part = small if level == 3 else small[:8 << 20]
        cells.append(f"{100 * len(zstandard.ZstdCompressor(level=level).compress(part)) / len(part):8.2f}")
    if zipnn:
        kind = next(d for _, d, _ in tensors(path))
        packer = zipnn.ZipNN(bytearray_dtype={"F32": "float32", "F16": "float16"}.get(kind, "bfloat16"))
        cells.append(f"{100 * len(packer.compress(data)) / len(data):8.2f}")
    cells.append(f"{total / 1e6 / pack:8.0f}{total / 1e6 / unpack:8.0f}")
    print("".join(cells) + ("" if same else "   NOT THE SAME"))


def main():
    loractl, given = sys.argv[1], sys.argv[2:]
    work = tempfile.mkdtemp(dir="/dev/shm" if os.access("/dev/shm", os.W_OK) else None)
    print(f"{'':34}{'MB':>8}{'bound %':>8}{'.lora %':>8}{'over %':>8}{'zstd -3':>8}{'zstd-19':>8}"
          + (f"{'zipnn':>8}" if zipnn else "") + f"{'pack':>8}{'unpack':>8}  MB/s")
    try:
        for folder in given:
            row(loractl, os.path.basename(folder.rstrip("/")), folder, f"{work}/given.lora")
            os.unlink(f"{work}/given.lora")
        for dtype in ("BF16", "F16", "F32"):
            first = made(f"{work}/{dtype}", dtype, 1)
            row(loractl, f"made, {dtype}", first, f"{work}/{dtype}.lora")
        first = f"{work}/F32"
        second = made(f"{work}/F32b", "F32", 2, parent=f"{first}/adapter_model.safetensors", step=1e-5)
        row(loractl, "made, F32, next version (1e-5)", second, f"{work}/F32.lora", parent=first)
    finally:
        shutil.rmtree(work)


main()
