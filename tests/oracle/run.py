#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""loractl merge against an independent computation, bit for bit.

    run.py BINARY [--case NAME]... [--work DIR] [--numpy-only] [--list] [--keep]

One line a case, then `N passed, N failed`; exit status 0 only if every case passed. A case that
could not run counts as failed. NAME may be a shell pattern. Cases named peft-* are made by PEFT
itself and need torch; without torch the interpreter of build/venv is tried, unless --numpy-only
leaves them out.
"""

import argparse
import fnmatch
import os
import shutil
import sys
import tempfile
import traceback
import zlib

HERE = os.path.dirname(os.path.abspath(__file__))
sys.dont_write_bytecode = True
sys.path.insert(0, HERE)


def with_torch():
    """Torch in this interpreter, or a restart under the project's own environment."""
    os.environ.setdefault("HF_HUB_OFFLINE", "1")  # nothing here asks the network
    try:
        import peft  # noqa: F401
        import torch  # noqa: F401

        return True
    except ImportError:
        venv = os.path.join(HERE, "..", "..", "build", "venv", "bin", "python")
        if os.path.exists(venv) and not os.environ.get("LORACTL_ORACLE_REEXEC"):
            os.environ["LORACTL_ORACLE_REEXEC"] = "1"
            os.execv(venv, [venv, *sys.argv])
        return False


import check  # noqa: E402
import files  # noqa: E402
import fixtures  # noqa: E402
import peftread  # noqa: E402

PEFT_DTYPES = {"float32": "f32", "bfloat16": "bf16", "float16": "f16"}


def expectation(spec):
    """The oracle's Result, or Refused."""
    base = files.Base(spec.base)
    adapters = [(files.Adapter(p), w) for p, w in spec.weights()]
    return peftread.merged(base, adapters, spec.dtype, spec.tie)


def judge(binary, spec, folder):
    """Complaints about one run of the program."""
    out = os.path.join(folder, "out.safetensors" if os.path.isfile(spec.base) else "out")
    inputs = [spec.base] + [p for p, _ in spec.adapters]
    digests = [check.digests(p) for p in inputs]
    before = set(os.listdir(folder))
    result = None
    if spec.words is None:
        result = expectation(spec)
        bad = check.reference(result)
        if bad:
            return ["the oracle disagrees with f64: " + b for b in bad]
    p = check.run(binary, spec.base, spec.adapters, out, spec.args, spec.env)
    bad = [] if digests == [check.digests(i) for i in inputs] else ["an input changed"]
    if spec.words is not None:
        return (
            bad + check.refused(p, out, spec.words, spec.status) + check.left_behind(folder, before)
        )
    if p.returncode == 3 and spec.may_refuse:
        return bad + check.refused(p, out, []) + check.left_behind(folder, before)
    if p.returncode:
        return bad + ["exit %d: %s" % (p.returncode, p.stderr.strip()[:300])]
    if p.stderr:
        bad.append("stderr with -q: " + p.stderr.strip()[:200])
    extra = {"out.safetensors.receipt.json"} if os.path.isfile(spec.base) else set()
    bad += check.merged(spec.base, out, result, config=spec.dtype is None)
    return bad + check.left_behind(folder, before | {os.path.basename(out)} | extra)


def numpy_case(binary, name, folder):
    spec = fixtures.FIXTURES[name](fixtures.Maker(folder, zlib.crc32(name.split("@")[0].encode())))
    return judge(binary, spec, folder)


def peft_spec(made, case):
    """A Spec for files that PEFT wrote."""
    base, adapters, _, _ = made
    words = case.expect.split(":", 1)[1].split("|") if case.expect.startswith("refuse") else None
    weights = [None if w == 1 else repr(w) for w in case.weights] + [None] * len(adapters)
    return fixtures.Spec(base, list(zip(adapters, weights)), words=words)


def peft_case(binary, name, folder):
    import peftmade

    _, case, dtype = name.split("/")
    c = peftmade.CASES[case]
    # adapters of every width, in turn
    width = {"float32": None, "bfloat16": "bfloat16", "float16": "float16"}[dtype]
    made = peftmade.make(case, os.path.join(folder, "made"), dtype, width, merge=False)
    spec = peft_spec(made, c)
    if c.expect == "either":  # refusing is as good as being right
        spec.may_refuse = True
        try:
            expectation(spec)
        except peftread.Refused:
            spec.words = []
    return judge(binary, spec, folder)


def names(args):
    out = list(fixtures.FIXTURES)
    if not args.numpy_only:
        if with_torch():
            import peftmade

            out += ["peft/%s/%s" % (n, d) for n, c in peftmade.CASES.items() for d in c.dtypes]
        else:
            out.append("peft/(torch is missing)")
    if args.case:
        out = [n for n in out if any(fnmatch.fnmatch(n, c) for c in args.case)]
    return out


def one(args, name, work):
    folder = os.path.join(work, name.replace("/", "-"))
    shutil.rmtree(folder, ignore_errors=True)
    os.makedirs(folder)
    try:
        bad = (peft_case if name.startswith("peft/") else numpy_case)([args.binary], name, folder)
    except Exception as e:  # a case that could not run is a failure, whatever kept it
        bad = ["could not run: %s: %s" % (type(e).__name__, e)]
        if args.keep:
            traceback.print_exc()
    if not args.keep:
        shutil.rmtree(folder, ignore_errors=True)
    print(
        "%s %s%s" % ("FAIL" if bad else "ok  ", name, ": " + "; ".join(bad[:3]) if bad else ""),
        flush=True,
    )
    return not bad


def main():
    ap = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    ap.add_argument("binary")
    ap.add_argument("--case", action="append")
    ap.add_argument("--work")
    ap.add_argument("--numpy-only", action="store_true")
    ap.add_argument("--list", action="store_true")
    ap.add_argument("--keep", action="store_true")
    args = ap.parse_args()
    args.binary = os.path.abspath(args.binary)
    wanted = names(args)
    if args.list:
        print("\n".join(wanted))
        return 0
    work = args.work or tempfile.mkdtemp(prefix="loractl-oracle-")
    os.makedirs(work, exist_ok=True)
    passed = sum(one(args, n, work) for n in wanted)
    if not args.work and not args.keep:
        shutil.rmtree(work, ignore_errors=True)
    print("%d passed, %d failed" % (passed, len(wanted) - passed))
    return 0 if wanted and passed == len(wanted) else 1


if __name__ == "__main__":
    sys.exit(main())
