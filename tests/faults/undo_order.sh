#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# The order of the system calls of `merge --undo`: the record is on the disk and has its name before the model has its own.
. "${SRC:?the repository}/tests/cli/lib.sh" || exit 1
need strace
need python3
golden=$SRC/tests/data/undo/llama
for name in base sums dora more; do
	cp -r "$golden/$name" $name
done
mkdir elsewhere

# RECORD MODEL BASE ADAPTER...: the first two as absolute paths.
ordered()
{
	strace -f -y -s 0 -o "$cli_folder/trace" \
		-e trace=write,pwrite64,pwritev,copy_file_range,fsync,fdatasync,rename,renameat,renameat2,link,linkat \
		"$LORACTL" merge -q --threads 2 "${@:3}" -o "$2" --undo "$1" || fail "exit $?"
	python3 - "$cli_folder/trace" "$1" "$2" <<'PYTHON' || fail "the order of system calls for $1 and $2"
import os, re, sys

trace, record, model = sys.argv[1:]
events, problems = [], []
for line in open(trace):
    call = re.match(r"\d+ +(\w+)\(", line)
    if not call or " = -1 " in line:
        continue
    path = re.search(r"\((?:AT_FDCWD|\d+)<([^>]*)>", line)
    events.append((call.group(1), path.group(1) if path else "", line))
def last(what):
    found = [i for i, e in enumerate(events) if what(e)]
    return found[-1] if found else None
def renamed(final):
    return last(lambda e: e[0].startswith(("rename", "link")) and '"%s"' % os.path.basename(final) in e[2].replace(os.path.dirname(final) + "/", ""))
def temporary(final, path):
    return os.path.dirname(path) == os.path.dirname(final) and os.path.basename(path).startswith(".%s.loractl-" % os.path.basename(final))
writes = ("write", "pwrite64", "pwritev", "copy_file_range")
at_record, at_model = renamed(record), renamed(model)
written = last(lambda e: e[0] in writes and temporary(record, e[1]))
synced = last(lambda e: e[0] in ("fsync", "fdatasync") and temporary(record, e[1]))
if None in (at_record, at_model, written, synced):
    sys.exit("not seen: %s" % [at_record, at_model, written, synced])
if not written < synced < at_record < at_model:
    problems.append("written %d, synced %d, renamed %d; the model renamed %d" % (written, synced, at_record, at_model))
model_data = [i for i, e in enumerate(events) if e[0] in writes and e[1].startswith(os.path.dirname(model) + "/." + os.path.basename(model) + ".loractl-")]
if not model_data or max(model_data) > at_record:
    problems.append("the model was written after the record had its name")
folder = lambda path: [i for i, e in enumerate(events) if e[0] in ("fsync", "fdatasync") and e[1] == os.path.dirname(path)]
if not [i for i in folder(model) if i > at_model]:
    problems.append("the model's folder was not synced after its rename")
if os.path.dirname(record) != os.path.dirname(model) and not [i for i in folder(record) if at_record < i < at_model]:
    problems.append("the record's folder was not synced between the renames")
print(*problems, sep="\n")
sys.exit(bool(problems))
PYTHON
	rm -rf "$1" "$2" "$2.receipt.json"
}
ordered "$work/record" "$work/out" base sums dora
ordered "$work/elsewhere/record" "$work/out" base sums dora
# One file: its receipt stands beside it too.
ordered "$work/record" "$work/out.safetensors" base/model-00001-of-00002.safetensors more
