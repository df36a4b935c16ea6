#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# The order of a merge's system calls: every byte is synced before the name appears, and the directory after it. A kill cannot show
# a missing fsync (the page cache survives it), so the calls themselves are looked at.
. "${SRC:?the repository}/tests/cli/lib.sh" || exit 1
need strace
need python3
tiny=$SRC/tests/data/tiny

trace()
{
	strace -f -y -s 0 -o "$cli_folder/trace" \
		-e trace=openat,mkdir,mkdirat,write,pwrite64,pwritev,copy_file_range,sendfile,fsync,fdatasync,rename,renameat,renameat2,link,linkat \
		"$LORACTL" merge -q --threads 2 "$@" || fail "merge $* under strace: exit $?"
}

# Every file that was written below the temporary name has a later fdatasync or fsync before the rename to the final name, no write after it;
# then the parent directory is synced.
check()
{
	python3 - "$cli_folder/trace" "$1" "$2" <<'PYTHON' || fail "the order of system calls for $2"
import os, re, sys

trace, final, parent = sys.argv[1], os.path.realpath(sys.argv[2]) if False else sys.argv[2], sys.argv[3]
work = os.path.dirname(final)
written, synced, renamed, after = {}, {}, None, False
for number, line in enumerate(open(trace)):
    call = re.match(r"\d+ +(\w+)\(", line)
    if not call or " = -1 " in line:
        continue
    call = call.group(1)
    if call in ("write", "pwrite64", "pwritev"):
        path = re.search(r"\(\d+<([^>]*)>", line)
        if path and path.group(1).startswith(work + "/"):
            written[path.group(1)] = number
    elif call in ("copy_file_range", "sendfile"):
        for path in re.findall(r"\d+<([^>]*)>", line):
            if ".loractl-" in path:
                written[path] = number
    elif call in ("fsync", "fdatasync"):
        path = re.search(r"\(\d+<([^>]*)>", line).group(1)
        synced[path] = number
        if renamed is not None and path == work:
            after = True
    elif call.startswith(("rename", "link")) and f'"{os.path.basename(final)}"' in line.replace(work + "/", ""):
        renamed = number
problems = []
if renamed is None:
    problems.append("no rename to the final name was seen")
if not written:
    problems.append("no write was seen")
for path, number in written.items():
    if not number < synced.get(path, -1) < (renamed or 0):
        problems.append(f"{path}: written at {number}, synced at {synced.get(path)}, renamed at {renamed}")
inner = [p for p in synced if os.path.basename(p).startswith(".") and ".loractl-" in os.path.basename(p)]
if parent == "directory" and not inner:
    problems.append("the new directory itself was not synced")
if not after:
    problems.append("the parent directory was not synced after the rename")
print("\n".join(problems))
sys.exit(bool(problems))
PYTHON
}

trace "$tiny/llama" "$tiny/llama-adapter" -o "$work/merged"
check "$work/merged" directory
trace "$tiny/llama/model.safetensors" "$tiny/llama-adapter" -o "$work/merged.safetensors"
check "$work/merged.safetensors" file
