#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Undo records both ways, against a reader and a writer made from loractl-undo(5) alone.

    run_undo.py BINARY | --self  [--only merge|write|hostile]... [--case PATTERN]... [--large]
                [--reader-only] [--work DIR] [--list]

merge    BINARY merge --undo on the oracle's fixtures; undo.py and BINARY unmerge restore the base
write    records of undo_write.py; BINARY unmerge restores the base
hostile  records bent in one place; BINARY unmerge refuses with one line and leaves nothing

With --self the Python reader stands in for BINARY unmerge, and the oracle's own merge with a record
of undo_write.py for BINARY merge. --reader-only reads the program's records with undo.py alone, for
a program whose unmerge is in doubt. --large adds the limits that need files of 256 MiB. Lines only
for what failed; then `N passed, N failed`.
"""

import argparse
import contextlib
import fnmatch
import io
import itertools
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import traceback
import zlib
from collections import OrderedDict

import numpy as np

HERE = os.path.dirname(os.path.abspath(__file__))
sys.dont_write_bytecode = True
sys.path.insert(0, HERE)

import check  # noqa: E402
import contract  # noqa: E402
import files  # noqa: E402
import fixturelib  # noqa: E402
import fixtures  # noqa: E402
import undo  # noqa: E402
import undo_hostile  # noqa: E402
import undo_write  # noqa: E402
from files import Tensor  # noqa: E402
from undo_write import Edit, Part  # noqa: E402

FLOATS = ("F32", "F16", "BF16")
MEMORY = 1 << 20  # KiB that no run may exceed


class Binary:
    def __init__(self, path):
        self.path, self.prefix = os.path.abspath(path), "loractl unmerge: "
        self.reader_only = False

    def call(self, *args, env=None):
        p = subprocess.run(
            [self.path, *args],
            capture_output=True,
            timeout=600,
            env={**os.environ, "LC_ALL": "C.UTF-8", **(env or {})},
        )
        return p.returncode, p.stderr.decode("utf-8", "replace")

    def unmerge(self, merged, record, out):
        return self.call("unmerge", merged, "--undo", record, "-o", out)

    def merge(self, spec, out, record, folder):
        names = [p if w is None else "%s:%s" % (p, w) for p, w in spec.adapters]
        args = ["merge", spec.base, *names, "-o", out, "--undo", record, "-q", *spec.args]
        if narrower(spec):
            args.append("--undo-large")
        env = {"XDG_CACHE_HOME": os.path.join(folder, "cache"), **spec.env}
        return self.call(*args, env=env)


class Stand:
    """The Python side in the place of the program."""

    prefix, reader_only = "undo.py: ", True

    def unmerge(self, merged, record, out):
        err = io.StringIO()
        with contextlib.redirect_stderr(err):
            status = undo.main(["undo.py", record, merged, out])
        return status, err.getvalue()

    def merge(self, spec, out, record, folder):
        pretend = [sys.executable, os.path.join(HERE, "pretend.py")]
        p = check.run(pretend, spec.base, spec.adapters, out, spec.args, spec.env)
        if p.returncode == 0:
            undo_write.write(record, spec.base, out, rng=np.random.default_rng(5))
        return p.returncode, p.stderr


def narrower(spec):
    """Does --dtype take bits from the significands?"""
    if spec.dtype is None:
        return False
    types = {t.dtype for t in files.Base(spec.base).tensors.values()} & set(FLOATS)
    return any(contract.FORMAT[t][0] > contract.FORMAT[spec.dtype][0] for t in types)


def differences(base, out, left=()):
    """Complaints unless out is base, file by file, without the files left."""
    want, got = check.digests(base), check.digests(out)
    for name in left:
        want.pop(name)
    bad = ["%s: missing" % n for n in sorted(set(want) - set(got))]
    bad += ["%s: not in the base" % n for n in sorted(set(got) - set(want))]
    return bad + ["%s: differs" % n for n in sorted(set(want) & set(got)) if want[n] != got[n]]


def restored(result, base, out, left=()):
    """Complaints about a call that had to restore the base."""
    status, err = result
    if status:
        return ["exit %d: %s" % (status, err.strip()[:300])]
    if not os.path.exists(out):
        return ["exit 0 and no output"]
    return differences(base, out, left)


# ------------------------------------------------------------------------------------------------
# (a) records that the program writes


def other_files(maker):
    """A base with other files in folders, one of them too large to be stored."""
    base = fixturelib.llama(maker, "BF16", shards=2)
    more_files(base)
    for name in ("sub/large.bin", "pytorch_model.bin", "large.txt"):
        with open(os.path.join(base, name), "wb") as f:
            f.write(name.encode())
            f.truncate((16 << 20) + 1)
    adapter = maker.adapter(fixturelib.llama_lora(maker), target_modules=["q_proj"])
    return fixtures.Spec(base, [adapter])


MORE = {"other-files": other_files}


def left_out(record, base):
    """The files that the record says it leaves: what is large may be."""
    rec = undo.Container(record)
    left = undo.parse_json(rec.data("record.json"), "record.json")["base"]["left"]
    size = lambda name: os.path.getsize(os.path.join(base, name))
    small = [f["name"] for f in left if f["size"] != size(f["name"]) or f["size"] <= 16 << 20]
    if small:
        raise ValueError("left without need: %s" % small)
    return [f["name"] for f in left]


def merge_case(program, name, folder):
    maker = fixtures.Maker(folder, zlib.crc32(name.split("@")[0].encode()))
    spec = {**fixtures.FIXTURES, **MORE}[name](maker)
    file = os.path.isfile(spec.base)
    out, record = os.path.join(folder, "m.safetensors" if file else "m"), os.path.join(folder, "m.undo")
    before = check.digests(spec.base)
    status, err = program.merge(spec, out, record, folder)
    if status == 3 and spec.may_refuse:
        return []
    if status:
        return ["merge: exit %d: %s" % (status, err.strip()[:300])]
    if not os.path.exists(record):
        return ["merge: no record"]
    bad = [] if check.digests(spec.base) == before else ["merge: the base changed"]
    back = os.path.join(folder, "back-oracle")
    left = () if file else left_out(record, spec.base)
    result = Stand().unmerge(out, record, back)
    bad += ["undo.py: " + b for b in restored(result, spec.base, back, left)]
    if program.reader_only:
        return bad
    back = os.path.join(folder, "back")
    result = program.unmerge(out, record, back)
    return bad + ["unmerge: " + b for b in restored(result, spec.base, back, left)]


def merge_cases(program, args):
    # what must merge; what may refuse is allowed to
    for name, f in {**fixtures.FIXTURES, **MORE}.items():
        if args.list and not name.startswith("refuse"):
            yield name, None
            continue
        with tempfile.TemporaryDirectory(dir=args.work) as probe:
            spec = f(fixtures.Maker(probe, zlib.crc32(name.split("@")[0].encode())))
        if spec.words is None:
            yield name, lambda folder, name=name: merge_case(program, name, folder)


# ------------------------------------------------------------------------------------------------
# (b) records that undo_write.py writes


class Models:
    """A base, and a model that stands for a merge of it, made without any adapter."""

    def __init__(self, seed, base, merged):
        self.maker = fixtures.Maker("", seed)
        self.rng, self.b, self.m = self.maker.rng, base, merged
        self.base, self.merged, self.edits = OrderedDict(), OrderedDict(), OrderedDict()

    def weight(self, *shape, dtype=None):
        return self.maker.weight(*shape, dtype=dtype or self.b)

    def factor(self, *shape):
        dtype = FLOATS[int(self.rng.integers(3))]
        return self.maker.weight(*shape, dtype=dtype)

    def near(self, t, share=1.0):
        """A merged tensor that is `share` of the way another one."""
        x = contract.widen(t.raw, t.dtype).reshape(t.shape)
        noise = self.maker.normal(*t.shape, sigma=0.01) * (self.rng.random(t.shape) < share)
        x = np.nan_to_num(x, nan=1, posinf=2, neginf=-2) + noise.astype(np.float32)
        return Tensor(self.m, contract.round_to(x.reshape(-1), self.m).reshape(t.shape))

    def add(self, name, base, merged=None, edit=None):
        self.base[name] = base
        self.merged[name] = self.near(base) if merged is None else merged
        if edit:
            self.edits[name] = edit

    def low_rank(self, scale, row, rows, col, cols, rank):
        return Part(scale, row, col, self.factor(rows, rank), self.factor(rank, cols))

    def dense(self, scale, row, rows, col, cols):
        return Part(scale, row, col, dense=self.factor(rows, cols))

    def gain(self, side, n):
        g = self.maker.normal(n, sigma=2)
        g[self.rng.permutation(n)[: max(1, n // 4)]] = [0, -0.0][int(self.rng.integers(2))]
        return side, g


def everything(seed, b, m):
    """Models with each kind of edit."""
    s = Models(seed, b, m)
    s.add("plain", s.weight(13, 9), edit=Edit(9, [s.low_rank(0.37, 0, 13, 0, 9, 4)]))
    fused = [s.low_rank(1 / 3, r, n, 0, 14, 3) for r, n in ((0, 6), (6, 5), (11, 4))]
    s.add("fused", s.weight(15, 14), edit=Edit(14, fused))
    lap = [s.low_rank(0.9, 1, 8, 2, 7, 2), s.dense(-0.3, 0, 10, 0, 11), s.low_rank(1e-3, 5, 5, 0, 11, 5)]
    s.add("overlap", s.weight(10, 11), edit=Edit(11, lap + [s.dense(2, 3, 1, 4, 1)]))
    rows = [s.low_rank(-0.7, 0, 12, 0, 6, 2)]
    s.add("dora-rows", s.weight(12, 6), edit=Edit(6, rows, gain=s.gain("row", 12)))
    s.add("dora-columns", s.weight(6, 12), edit=Edit(12, [s.dense(1, 0, 6, 0, 12)], gain=s.gain("column", 12)))
    s.add("gain-alone", s.weight(7, 5), edit=Edit(5, gain=s.gain("row", 7)))
    s.add("tokens", s.weight(20, 6), edit=Edit(6, rows=[0, 3, 4, 19]))
    both = Edit(6, [s.low_rank(0.2, 0, 9, 0, 6, 2)], rows=[1, 8], gain=s.gain("column", 6))
    s.add("tokens-and-dora", s.weight(9, 6), edit=both)
    s.add("convolution", s.weight(6, 4, 3, 3), edit=Edit(36, [s.low_rank(0.5, 0, 6, 0, 36, 2)]))
    s.add("experts", s.weight(3, 8, 5), edit=Edit(5, [s.low_rank(0.5, 8 * e, 8, 0, 5, 2) for e in range(3)]))
    s.add("bias", s.weight(33), edit=Edit(33, [s.dense(1, 0, 1, 0, 33)]))
    s.add("column", s.weight(33), edit=Edit(1, [s.low_rank(1, 4, 20, 0, 1, 1)]))
    s.add("scalar", s.weight(1))
    t = s.weight(40, 40)
    s.add("sparse", t, s.near(t, 0.001) if b == m else None)
    s.add("changes-nothing", s.weight(8, 8), edit=Edit(8, [s.low_rank(0, 0, 8, 0, 8, 1)]))
    odd(s)
    replaced(s)
    return s


def odd(s):
    """Every kind of bit pattern in the base, above a merged tensor that is finite."""
    all16 = np.arange(1 << 16, dtype=np.uint32)
    if s.b == "F32":
        bits = (all16 << np.uint32(16)) | s.rng.integers(0, 1 << 16, 1 << 16, dtype=np.uint32)
    else:
        bits = all16.astype(np.uint16)
    t = Tensor(s.b, bits[s.rng.permutation(1 << 16)].reshape(256, 256))
    s.add("all-bits", t)
    s.add("all-bits-replaced", Tensor(s.b, t.raw[::-1].copy()), edit=Edit(nothing=True))


def replaced(s):
    s.add("of-its-shape", s.weight(5, 4), edit=Edit(nothing=True))
    s.add("of-more-rows", s.weight(7, 4), s.weight(9, 4, dtype=s.m))
    s.add("of-no-rows", Tensor(s.b, s.weight(0, 4).raw), s.weight(2, 4, dtype=s.m))
    for dtype in ("I64", "U8", "F64", "BOOL", "I16", "I32", "F8_E4M3"):
        u = files.UINT[files.SIZE[dtype]]
        x, y = (Tensor(dtype, s.rng.integers(0, 1 << 7, (3, 5)).astype(u)) for _ in "xy")
        s.add("replaced-" + dtype, x, y)
    s.add("replaced-float-by-i64", s.weight(4), Tensor("I64", np.arange(4, dtype=np.uint64)))
    s.add("replaced-i64-by-float", Tensor("I64", np.arange(4, dtype=np.uint64)), s.weight(4))
    s.base["gone"] = s.weight(3, 3)
    s.merged["new"] = s.weight(2, 2, dtype=s.m)
    nan = Tensor("F32", np.array([0x7FC12345, 0xFFA00001, 0x7F800000, 0x80000000], dtype=np.uint32))
    s.add("untouched", nan, nan)
    s.add("untouched-\u00fc\u4e2d\U0001f600\"\\", nan, nan)
    s.add("untouched-none", Tensor("F32", np.zeros((0, 3), dtype=np.uint32)), Tensor("F32", np.zeros((0, 3), dtype=np.uint32)))


def spread(maker, tensors, name, shards, rng):
    """A directory, the tensors in an order and in shards of their own."""
    names = [list(tensors)[i] for i in rng.permutation(len(tensors))]
    mixed = OrderedDict((n, tensors[n]) for n in names)
    return maker.base(mixed, {"model_type": name}, shards=shards, name=name, extra=shards != 2)


def more_files(base, merged=None):
    """Other files: in folders, empty, with odd names, on one side or on both."""
    for name, data, both in (
        ("sub/a/b.txt", b"deep\n", False),
        ("sub/same.bin", bytes(range(256)) * 40, True),
        ("empty", b"", False),
        (".hidden", b"\n", True),
        ("a name with \u00fc and 'quotes'\".txt", b"x", True),
        ("sub/sub", b"y", True),
        ("...", b"three dots\n", False),
    ):
        for folder in (base, merged) if both and merged else (base,):
            path = os.path.join(folder, name)
            os.makedirs(os.path.dirname(path), exist_ok=True)
            with open(path, "wb") as f:
                f.write(data)
    if merged:
        with open(os.path.join(base, "left.bin"), "wb") as f:
            f.write(b"too large\n")


def write_case(program, b, m, single, folder):
    seed = zlib.crc32(("%s %s %d" % (b, m, single)).encode())
    s = everything(seed, b, m)
    maker, rng = fixtures.Maker(folder, seed), np.random.default_rng(seed)
    leave = []
    if single:
        paths = [maker.base(t, name=n, single=True) for n, t in (("base", s.base), ("merged", s.merged))]
    else:
        paths = [spread(maker, t, n, k, rng) for n, t, k in (("base", s.base, 3), ("merged", s.merged, 2))]
        more_files(*paths)
        leave = ["left.bin"]
    record, bad = os.path.join(folder, "r.undo"), []
    for i in range(2):  # two drawings of chunks and codings
        undo_write.write(record, *paths, s.edits, rng, leave)
        out = os.path.join(folder, "back%d" % i)
        bad += restored(program.unmerge(paths[1], record, out), paths[0], out, leave)
    return bad


def wide_case(program, b, m, folder):
    """Rows longer than a chunk, and many rows."""
    s = Models(11, b, m)
    part = s.low_rank(0.5, 0, 2, 100, 400000, 2)
    s.add("wide", s.weight(2, 600000), edit=Edit(600000, [part]))
    t = s.weight(3000, 200)
    s.add("tall", t, s.near(t, 0.01), Edit(200, [s.low_rank(1e-4, 0, 3000, 0, 200, 2)]))
    maker = fixtures.Maker(folder, 11)
    paths = [maker.base(t, name=n, single=True) for n, t in (("base", s.base), ("merged", s.merged))]
    record, out = os.path.join(folder, "r.undo"), os.path.join(folder, "back")
    undo_write.write(record, *paths, s.edits, s.rng)
    return restored(program.unmerge(paths[1], record, out), paths[0], out)


def renamed_case(program, folder):
    """One file is the merged model under any name."""
    s = everything(3, "BF16", "BF16")
    maker = fixtures.Maker(folder, 3)
    paths = [maker.base(t, name=n, single=True) for n, t in (("base", s.base), ("merged", s.merged))]
    record, out = os.path.join(folder, "r.undo"), os.path.join(folder, "back")
    undo_write.write(record, *paths, s.edits, s.rng)
    other = os.path.join(folder, "other.safetensors")
    os.rename(paths[1], other)
    return restored(program.unmerge(other, record, out), paths[0], out)


def shards_case(program, side, folder):
    """The weight files of a record in the opposite order."""
    s = Models(4, "BF16", "BF16")
    for i in range(7):
        s.add("t%d" % i, s.weight(5, 4))
    maker = fixtures.Maker(folder, 4)
    paths = [spread(maker, t, n, 3, s.rng) for n, t in (("base", s.base), ("merged", s.merged))]
    rec, out = undo_write.make(*paths, rng=s.rng), os.path.join(folder, "back")
    rec.json[side]["files"].reverse()
    if side == "base":
        t = rec.tensors
        t["head.0"], t["head.2"] = t["head.2"], t["head.0"]
    record = os.path.join(folder, "r.undo")
    rec.save(record)
    return restored(program.unmerge(paths[1], record, out), paths[0], out)


def write_cases(program, args):
    for side in ("base", "merged"):
        yield "shards-of-%s-reversed" % side, lambda f, side=side: shards_case(program, side, f)
    yield "renamed-file", lambda f: renamed_case(program, f)
    for b in FLOATS:
        for m in FLOATS:
            for single in (False, True):
                name = "%s-from-%s-%s" % (b, m, "file" if single else "directory")
                yield name, lambda f, v=(b, m, single): write_case(program, *v, f)
    for b, m in (("F32", "F32"), ("BF16", "BF16"), ("BF16", "F32"), ("F32", "F16")):
        yield "wide-%s-from-%s" % (b, m), lambda f, v=(b, m): wide_case(program, *v, f)


# ------------------------------------------------------------------------------------------------
# (c) records that must be refused


def judged(program, statuses, base, merged, record, out):
    """Complaints about one call of unmerge."""
    folder = os.path.dirname(out)
    before, was = check.digests(folder), check.digests(merged)
    status, err = program.unmerge(merged, record, out)
    if status == 0 and 0 in statuses:
        bad = differences(base, out, ["big.bin"] if "big.bin" in check.digests(base) else ())
        (shutil.rmtree if os.path.isdir(out) else os.unlink)(out)
        return bad
    bad = []
    if status not in statuses:
        bad.append("exit %d, not %s: %s" % (status, sorted(statuses), err.strip()[:200]))
    lines = err.split("\n")
    if len(lines) != 2 or lines[1] or not lines[0].startswith(program.prefix):
        bad.append("not one line on stderr: %r" % err[:300])
    if any(ord(c) < 32 or ord(c) == 127 for c in lines[0]):
        bad.append("a control character on stderr: %r" % err[:300])
    if os.path.lexists(out):
        bad.append("an output")
        (shutil.rmtree if os.path.isdir(out) else os.unlink)(out)
    if check.digests(folder) != before or set(os.listdir(folder)) != {os.path.basename(record)}:
        bad.append("left behind: %s" % sorted(os.listdir(folder)))
    return bad + ([] if check.digests(merged) == was else ["the merged model changed"])


class Hostile:
    def __init__(self, program, work):
        self.program, self.folder = program, os.path.join(work, "scene")
        os.makedirs(self.folder)
        self.scene = undo_hostile.Scene(self.folder)

    def run(self, variant, folder):
        merged, record = self.scene.merged, os.path.join(folder, "bent.undo")
        if variant.merged:
            merged = folder + ".merged"
            shutil.copytree(self.scene.merged, merged)
            variant.merged(merged)
        if variant.raw is not None:
            with open(record, "wb") as f:
                f.write(variant.raw)
        else:
            variant.rec.save(record)
        try:
            out = os.path.join(folder, "out")
            return judged(self.program, variant.statuses, self.scene.base, merged, record, out)
        finally:
            if variant.merged:
                shutil.rmtree(merged)


def limit_case(program, case, folder):
    name, statuses, base, merged, rec = case
    record = os.path.join(folder, "r.undo")
    rec.save(record)
    return judged(program, statuses, base, merged, record, os.path.join(folder, "out"))


def memory_case(program):
    """No run so far took much memory."""
    if isinstance(program, Stand) or os.environ.get("LORACTL_SANITIZE"):
        return []
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    return ["%d MiB resident" % (peak >> 10)] if peak > MEMORY else []


def hostile_cases(program, args):
    h = Hostile(program, args.work)
    valid = undo_hostile.Variant("valid", {0}, h.scene.record)
    for v in [valid, *undo_hostile.variants(h.scene)]:
        yield v.name, lambda folder, v=v: h.run(v, folder)
    limits = (undo_hostile.limits(h.folder), undo_hostile.file_limits(h.folder, args.large))
    for case in itertools.chain(*limits):
        yield case[0], lambda folder, case=case: limit_case(program, case, folder)
    yield "memory", lambda folder: memory_case(program)


# ------------------------------------------------------------------------------------------------


KINDS = {"merge": merge_cases, "write": write_cases, "hostile": hostile_cases}


def one(name, run, work):
    folder = tempfile.mkdtemp(dir=work)
    try:
        bad = run(folder)
    except Exception as e:  # a case that could not run is a failure, whatever kept it
        traceback.print_exc()
        bad = ["could not run: %s: %s" % (type(e).__name__, e)]
    shutil.rmtree(folder, ignore_errors=True)
    if bad:
        print("FAIL %s: %s" % (name, "; ".join(bad[:3])), flush=True)
    return not bad


def main():
    ap = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    ap.add_argument("binary", nargs="?")
    ap.add_argument("--self", action="store_true", dest="stand")
    ap.add_argument("--only", action="append", choices=list(KINDS))
    ap.add_argument("--case", action="append")
    ap.add_argument("--reader-only", action="store_true")
    ap.add_argument("--large", action="store_true")
    ap.add_argument("--work")
    ap.add_argument("--list", action="store_true")
    args = ap.parse_args()
    if bool(args.binary) == args.stand:
        ap.error("BINARY or --self")
    program = Stand() if args.stand else Binary(args.binary)
    program.reader_only |= args.reader_only
    top = tempfile.mkdtemp(prefix="loractl-undo-", dir=args.work)
    args.work, passed, failed = top, 0, 0
    for kind in args.only or KINDS:
        for name, run in KINDS[kind](program, args):
            name = "%s/%s" % (kind, name)
            if args.case and not any(fnmatch.fnmatch(name, c) for c in args.case):
                continue
            if args.list:
                print(name)
                continue
            ok = one(name, run, top)
            passed, failed = passed + ok, failed + (not ok)
    shutil.rmtree(top, ignore_errors=True)
    if not args.list:
        print("%d passed, %d failed" % (passed, failed))
    return 0 if args.list or (passed and not failed) else 1


if __name__ == "__main__":
    sys.exit(main())
