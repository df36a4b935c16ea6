#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# container_together - writers that meet, readers meanwhile: no version is lost, no reader sees half of one.
. "${SRC:?the repository}/tests/cli/lib.sh" || exit 1
need python3
tiny=$SRC/tests/data/tiny

# Eight writers at once, each with a file of its own content.
for i in 0 1 2 3 4 5 6 7; do
	cp -r "$tiny/llama-adapter" dir$i
	echo "content $i" >dir$i/note
done
"$LORACTL" pack dir0 -o f.lora --name x -q >"$OUT" || fail 'the first pack'
for i in 1 2 3 4 5 6 7; do
	"$LORACTL" pack dir$i -o f.lora --append -q >"$cli_folder/out$i" 2>&1 &
done
# A reader meanwhile, of the first version and of the latest.
for round in 1 2 3 4 5 6 7 8 9 10; do
	rm -rf seen latest
	"$LORACTL" unpack f.lora@1 -o seen -q >"$OUT" 2>"$ERR" || fail "round $round: a reader failed: $(cat "$ERR")"
	diff -r seen dir0 || fail 'a reader saw something else'
	"$LORACTL" unpack f.lora -o latest -q >"$OUT" 2>"$ERR" || fail "round $round: a reader failed: $(cat "$ERR")"
	diff -r latest "dir$(sed 's/content //' latest/note)" || fail 'a reader saw a mixture'
	"$LORACTL" fsck f.lora >"$OUT" 2>"$ERR"
	case $? in 0 | 1) ;; *) fail "fsck during an append: $(cat "$ERR")" ;; esac
done
wait
expect_exit 0 "$LORACTL" fsck f.lora
expect_exit 0 "$LORACTL" log f.lora --json
python3 -c '
import json, sys
v = [x["version"] for x in json.load(open(sys.argv[1]))["versions"]]
sys.exit(v != list(range(8, 0, -1)))' "$OUT" || fail "not eight versions: $(cat "$OUT")"
for v in 1 2 3 4 5 6 7 8; do
	rm -rf seen
	"$LORACTL" unpack f.lora@$v -o seen -q >"$OUT" 2>&1 || fail "version $v"
	sed 's/content //' seen/note
	diff -r seen "dir$(sed 's/content //' seen/note)" >&2 || fail "version $v is a mixture"
done | sort | tr '\n' ' ' >"$cli_folder/list"
expect_equal "$(cat "$cli_folder/list")" '0 1 2 3 4 5 6 7 '

# gc, appends and readers together: the name always means a whole container.
for i in 0 1 2 3; do
	echo "more $i" >dir$i/note
	"$LORACTL" pack dir$i -o f.lora --append -q >"$cli_folder/out$i" 2>&1 &
	"$LORACTL" gc f.lora --keep 3 -q >"$cli_folder/gc$i" 2>&1 || fail "gc: $(cat "$cli_folder/gc$i")"
	rm -rf seen
	"$LORACTL" unpack f.lora -o seen -q >"$OUT" 2>"$ERR" || fail "a reader during gc: $(cat "$ERR")"
done
wait
cat "$cli_folder"/out[0-3] | grep -v version && fail 'an append failed beside gc'
expect_exit 0 "$LORACTL" fsck f.lora
expect_exit 0 "$LORACTL" log f.lora --json
python3 -c '
import json, sys
v = [x["version"] for x in json.load(open(sys.argv[1]))["versions"]]
sys.exit(v[0] != 12 or v != list(range(12, 12 - len(v), -1)) or len(v) < 3)' "$OUT" || fail "versions are lost: $(cat "$OUT")"
