# SPDX-License-Identifier: Apache-2.0
"""What may be on the disk when the power goes while a container is written, and what readers make of it.

A command runs under strace, which records what it writes, cuts and syncs. The model of the disk is the weakest that POSIX
allows: a write or a change of the size that no fdatasync or fsync has followed may be there or not, in any order; a write may
be there in part (any of its 512-byte sectors; bytes that are missing are zeros if the file is longer). What was synced is there.

For every moment, and for every subset of what is unsynced then (all of them, or many at random), the file is made, and:

- every version that had been committed before the command comes out as it was packed;
- the version that the command adds is there exactly as packed, or not at all; when the command had said that it was done,
  it is there;
- fsck says ok or "an append that was not finished", and then --repair makes it ok, and loses none of these versions;
- a later append works.

gc writes another file and gives it the name: all of that file must be synced before the rename, and the directory after it.
"""
import itertools
import json
import os
import random
import re
import shutil
import struct
import subprocess
import sys
import tempfile

LORACTL = sys.argv[1]
SUBSETS = 24  # subsets tried at one moment at most
random.seed(1)


def run(*args, good=(0,)):
    done = subprocess.run([LORACTL, *args], stdout=subprocess.PIPE, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL)
    if done.returncode not in good:
        sys.exit(f"loractl {' '.join(args)}: exit {done.returncode}: {done.stderr.decode()}")
    return done


def calls(trace, *args):
    """Runs a command under strace; its system calls on files: (name, path, details)."""
    log = trace + ".strace"
    subprocess.run(["strace", "-f", "-y", "-xx", "-s", "100000000", "-o", log, "-e",
                    "trace=pwrite64,write,pwritev,ftruncate,truncate,fallocate,fdatasync,fsync,sync_file_range,rename,renameat,"
                    "renameat2,linkat,unlink,unlinkat,copy_file_range,mmap",
                    LORACTL, *args], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=True)
    found = []
    for line in open(log):
        match = re.match(r"\d+ +(\w+)\((.*)\) += (-?\d+)", line)
        if not match or match.group(3).startswith("-"):
            continue
        name, text, result = match.groups()
        path = re.match(r"(\d+)<([^>]*)>", text)
        path = bytes.fromhex(path.group(2).replace("\\x", "")).decode() if path and "\\x" in path.group(2) else path and path.group(2)
        strings = [bytes.fromhex(s.replace("\\x", "")) for s in re.findall(r'"((?:\\x[0-9a-f]{2})*)"', text)]
        numbers = [int(n) for n in re.findall(r"(?<![\\x\w])(\d+)(?=,|$)", re.sub(r'"[^"]*"', "", text).split(">", 1)[-1])]
        found.append((name, path, strings, numbers, int(result), text))
    os.unlink(log)
    return found


def apply(image, op, sectors=None):
    """The image after a write (or some of its sectors) or a cut."""
    kind, at, data = op
    if kind == "size":
        return image[:at] + bytes(max(0, at - len(image)))
    end = at + len(data)
    image = bytearray(image) + bytes(max(0, end - len(image)))
    first = at // 512
    for sector in range(first, (end + 511) // 512):
        if sectors is not None and sector - first not in sectors:
            continue
        low, high = max(at, sector * 512), min(end, (sector + 1) * 512)
        image[low:high] = data[low - at:high - at]
    return bytes(image)


def states(start, trace, path):
    """(image, done): what the disk may hold, and whether the command had finished."""
    durable, pending = start, []
    seen = set()

    def variants(finished):
        chosen = [()] + [tuple(range(n + 1)) for n in range(len(pending))]
        if len(pending) <= 4:
            chosen += [c for n in range(len(pending) + 1) for c in itertools.combinations(range(len(pending)), n)]
        else:
            chosen += [(n,) for n in range(len(pending))] + [tuple(m for m in range(len(pending)) if m != n) for n in range(len(pending))]
            chosen += [tuple(n for n in range(len(pending)) if random.random() < 0.5) for _ in range(SUBSETS)]
        for subset in chosen[-1:] + random.sample(chosen, min(len(chosen), SUBSETS)):
            for torn in (False, True):
                image = durable
                for n in subset:
                    op = pending[n]
                    sectors = None
                    if torn and op[0] == "write":
                        count = (op[1] + len(op[2]) + 511) // 512 - op[1] // 512
                        sectors = {s for s in range(count) if random.random() < 0.6}
                    image = apply(image, op, sectors)
                if image not in seen or finished:
                    seen.add(image)
                    yield image, finished

    synced = False
    yield from variants(False)
    for name, where, strings, numbers, result, text in trace:
        if where != path:
            continue
        if name == "pwrite64":
            assert len(strings[0]) == result, (len(strings[0]), result)
            pending.append(("write", numbers[-1], strings[0]))
        elif name == "ftruncate":
            pending.append(("size", numbers[-1], b""))
        elif name in ("fdatasync", "fsync"):
            for op in pending:
                durable = apply(durable, op)
            pending = []
            synced = True
        elif name not in ("fallocate",):
            sys.exit(f"a call that the model does not know: {name} {text[:100]}")
        yield from variants(False)
    if not synced or pending:
        sys.exit(f"the command said that it was done, and {len(pending)} changes were not synced")
    yield durable, True


def contents(folder):
    return {os.path.relpath(os.path.join(top, name), folder): open(os.path.join(top, name), "rb").read()
            for top, _, names in os.walk(folder) for name in names}


def check(image, before, after, finished, extra):
    """before: number -> files that must be there; after: those that may be; extra: a directory to append."""
    open("s.lora", "wb").write(image)
    log = json.loads(run("log", "s.lora", "--json").stdout)
    numbers = [v["version"] for v in log["versions"]][::-1]
    want, most = sorted(before), sorted(after)
    if numbers != want and numbers != most:
        sys.exit(f"versions {numbers}, not {want} or {most}")
    if finished and numbers != most:
        sys.exit(f"it was done, and its version is not there: {numbers}")
    for number in numbers:
        shutil.rmtree("out", ignore_errors=True)
        run("unpack", f"s.lora@{number}", "-o", "out", "-q")
        if contents("out") != after.get(number, before.get(number)):
            sys.exit(f"version {number} is not what was packed")
    report = json.loads(run("fsck", "s.lora", "--json", good=(0, 1)).stdout)
    if not report["ok"]:
        if not report["repairable"] or [p["what"] for p in report["problems"]] != ["an append that was not finished"]:
            sys.exit(f"fsck: {report}")
        run("fsck", "s.lora", "--repair")
    if json.loads(run("fsck", "s.lora", "--json").stdout)["versions"] != len(numbers):
        sys.exit("repair lost a version")
    if random.random() < 0.2:
        open("s.lora", "wb").write(image)
        run("pack", extra, "-o", "s.lora", "--append", "-q")
        run("fsck", "s.lora")
        log = json.loads(run("log", "s.lora", "--json").stdout)
        if [v["version"] for v in log["versions"]][::-1] != numbers + [numbers[-1] + 1]:
            sys.exit("an append to it went wrong")


def adapter(folder, seed):
    os.mkdir(folder)
    noise = random.Random(seed)
    data = b"".join(struct.pack("<f", noise.gauss(0, 0.02)) for _ in range(400))
    header = json.dumps({"x.lora_A.weight": {"dtype": "F32", "shape": [20, 10], "data_offsets": [0, 800]},
                         "x.lora_B.weight": {"dtype": "F32", "shape": [10, 20], "data_offsets": [800, 1600]}}).encode()
    open(f"{folder}/adapter_model.safetensors", "wb").write(struct.pack("<Q", len(header)) + header + data)
    open(f"{folder}/adapter_config.json", "w").write(json.dumps({"r": seed}))


def main():
    top = tempfile.mkdtemp()
    os.chdir(top)
    top = os.getcwd()
    path = os.path.join(top, "f.lora")
    packed = {}
    for v in (1, 2, 3, 4):
        adapter(f"v{v}", v)
        packed[v] = contents(f"v{v}")
    run("pack", "v1", "-o", "f.lora", "--name", "x", "-q")
    run("pack", "v2", "-o", "f.lora", "--append", "-q")
    start = open("f.lora", "rb").read()
    two, three = {v: packed[v] for v in (1, 2)}, {v: packed[v] for v in (1, 2, 3)}

    trace = calls("append", "pack", "v3", "-o", "f.lora", "--append", "-q")
    full = open("f.lora", "rb").read()
    appends = 0
    for image, finished in states(start, trace, path):
        check(image, two, three, finished, "v4")
        appends += 1
    if image != full:
        sys.exit("the model of the disk is not what the command wrote")

    # An append to a file that a writer left unfinished: its tail is cut off, and may come back.
    torn = full[:len(full) - 300]
    open("f.lora", "wb").write(torn)
    trace = calls("append", "pack", "v3", "-o", "f.lora", "--append", "-q")
    for image, finished in states(torn, trace, path):
        check(image, two, three, finished, "v4")
        appends += 1

    open("f.lora", "wb").write(torn)
    trace = calls("repair", "fsck", "f.lora", "--repair")
    repairs = 0
    for image, finished in states(torn, trace, path):
        check(image, two, two, finished, "v4")
        repairs += 1
    if image != start:
        sys.exit("a repaired file is not what it was before")

    # gc: nothing of the old file is written to; the new one is whole and synced when it gets the name.
    open("f.lora", "wb").write(full)
    trace = calls("gc", "gc", "f.lora", "--keep", "2")
    temporary, dirty, renamed, synced_after = None, 0, False, False
    moments = 0
    for name, where, strings, numbers, result, text in trace:
        moments += 1
        if name in ("pwrite64", "write", "ftruncate") and where and os.path.dirname(where) == top:
            if where == path and not renamed:
                sys.exit("gc wrote to the old file")
            temporary, dirty = where, dirty + 1
            if renamed:
                sys.exit("gc wrote after the rename")
        elif name in ("fdatasync", "fsync") and where == temporary:
            dirty = 0
        elif name in ("fdatasync", "fsync") and where == top:
            synced_after = renamed
        elif name.startswith("rename"):
            if dirty:
                sys.exit("gc renamed what was not synced")
            renamed = True
        elif name.startswith("unlink") and not synced_after:
            sys.exit("gc removed the old file before the new name was durable")
    if not (renamed and synced_after and temporary):
        sys.exit("gc: no rename, or no directory was synced")
    for image in (full, open("f.lora", "rb").read()):
        check(image, {v: packed[v] for v in (2, 3)} if image != full else three,
              {v: packed[v] for v in (2, 3)} if image != full else three, True, "v4")
    os.chdir("/")
    shutil.rmtree(top)
    if appends < 100 or repairs < 2 or moments < 5:
        sys.exit(f"{appends} {repairs} {moments}: the test tests nothing")
    print(f"{appends} states of an append, {repairs} of a repair, {moments} of a gc")


main()
