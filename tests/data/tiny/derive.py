# SPDX-License-Identifier: Apache-2.0
"""Variants of the committed tiny models, written into a build folder, never committed.

For each family F (llama, gpt2), with D one of f32, f16, bf16:

    F-D/               the base in dtype D, one file
    F-D-sharded/       the same tensors in four or more shards, with an index
    F-adapter-D/       the adapter with its tensors in dtype D
    F-peft-merged-D/   PEFT's own merge of F-D and the committed adapter
    gpt2-hub/          F-f32 spelled like GPT-2 on the hub: no leading "transformer.", and the
                       causal masks stored as h.N.attn.bias

The committed weights are 16 bits wide; widened as they are, an f32 base would hold none but zeros
in its low bits and hide rounding errors. So f32 is the committed value times 1 + u, u seeded and so
small that rounding leads back to the committed bits (checked here). The other 16-bit dtype is
rounded from that f32, and the committed one is the committed one.
"""

import json
import pathlib
import shutil

import lib
import numpy
import safetensors.torch
import torch

SEED = 20


@torch.no_grad()
def fill_low_bits(model, dtype):
    """Moves each f32 parameter by less than half a unit of `dtype` in the last place."""
    # half a unit is at least 2^-9 of a value with bf16's 8 bits, 2^-12 with f16's 11
    bound = 0.9 * {"bf16": 2.0 ** -9, "f16": 2.0 ** -12}[dtype]
    rng = numpy.random.Generator(numpy.random.PCG64(SEED))
    for name, p in model.named_parameters():
        before = p.to(lib.DTYPES[dtype])
        p.mul_(torch.from_numpy(1.0 + bound * rng.uniform(-1.0, 1.0, tuple(p.shape))).float())
        if not torch.equal(p.to(lib.DTYPES[dtype]).view(torch.int16), before.view(torch.int16)):
            raise RuntimeError(f"{name}: does not round back to the committed bits")


def size_of(model):
    return sum(p.numel() * p.element_size() for p in model.parameters())


def derive_bases(source, family, out):
    """F-D and F-D-sharded."""
    committed = lib.load(source / family)
    own = {v: k for k, v in lib.DTYPES.items()}[committed.dtype]
    wide = lib.load(source / family, "f32")
    fill_low_bits(wide, own)
    lib.save(wide, out / f"{family}-f32")
    for d in lib.DTYPES:
        model = committed if d == own else lib.load(out / f"{family}-f32", d)
        for name, limit in ((f"{family}-{d}", 10 ** 9),
                            (f"{family}-{d}-sharded", size_of(model) // 4)):
            lib.save(model, out / name, limit)
            lib.copy_tokenizer(source / family, out / name)


def derive_adapters(source, family, out):
    """F-adapter-D."""
    adapter = source / f"{family}-adapter"
    tensors = safetensors.torch.load_file(adapter / "adapter_model.safetensors")
    for d, dtype in lib.DTYPES.items():
        folder = out / f"{family}-adapter-{d}"
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(adapter, folder)
        safetensors.torch.save_file({k: t.to(dtype) for k, t in tensors.items()},
                                    folder / "adapter_model.safetensors", {"format": "pt"})
        lib.open_to_read(folder)


def derive_hub_spelling(out):
    """gpt2-hub."""
    source, folder = out / "gpt2-f32", out / "gpt2-hub"
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(source, folder)
    config = json.loads((folder / "config.json").read_text())
    n = config["n_positions"]
    tensors = {k.removeprefix("transformer."): t for k, t in
               safetensors.torch.load_file(source / "model.safetensors").items()}
    for layer in range(config["n_layer"]):
        tensors[f"h.{layer}.attn.bias"] = torch.ones(n, n).tril().reshape(1, 1, n, n)
    safetensors.torch.save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    lib.open_to_read(folder)


def derive(source, families, out):
    """All of the above; returns at once when it was done from the same files before."""
    inputs = [p for family in families for name in (family, f"{family}-adapter")
              for p in (source / name).iterdir()]
    stamp = lib.stamp_of(*inputs, pathlib.Path(__file__), pathlib.Path(lib.__file__))
    with lib.locked(out):
        if lib.is_done(out, stamp):
            return
        out.mkdir(parents=True, exist_ok=True)
        for family in families:
            derive_bases(source, family, out)
            derive_adapters(source, family, out)
            for d in lib.DTYPES:
                lib.peft_merge(out / f"{family}-{d}", d, source / f"{family}-adapter",
                               out / f"{family}-peft-merged-{d}")
        derive_hub_spelling(out)
        lib.set_done(out, stamp)
