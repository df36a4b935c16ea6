#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# merge_stops - a full disk, a limit, a signal, a closed stream: nothing is left under the final name or any other,
# the inputs are as they were, and an older output stays.
. "${SRC:?the repository}/tests/cli/merge_checks.sh" || exit 1
copies llama llama-adapter
mv llama base
mv llama-adapter adapter
cp base/model.safetensors base.safetensors

# --- a full disk

cat >"$cli_folder/full" <<'SCRIPT'
# SIZE PROGRAM BASE OUT: merges into a file system of that size, made for this; 90 if there can be none.
mkdir -p disk
mount -t tmpfs -o "size=$1" tmpfs disk || exit 90
"$2" merge "$3" adapter -o "disk/$4"
status=$?
[ -z "$(ls -A disk)" ] || { echo "left: $(ls -A disk)" >&2; status=91; }
exit $status
SCRIPT
namespace=()
for try in 'unshare -m' 'unshare -Urm'; do
	# shellcheck disable=SC2086
	if $try true 2>/dev/null; then
		read -ra namespace <<<"$try"
		break
	fi
done
mkdir disk
if [ "${#namespace[@]}" -gt 0 ]; then
	for size in 4k 64k 512k 908k; do
		for base in base base.safetensors; do
			refused 4 'No space left' "${namespace[@]}" bash "$cli_folder/full" $size "$LORACTL" $base out
		done
	done
	for base in base base.safetensors; do
		run "${namespace[@]}" bash "$cli_folder/full" 8m "$LORACTL" $base out
		expect_equal "$STATUS" 91 # with room for it, it is there: the limit was the reason
	done
else
	echo "a full disk is not tested: no way to mount one"
fi
rmdir disk

# --- files may not grow beyond that (in blocks of 1024 bytes)

limited()
{
	(ulimit -f "$1" && "${@:2}")
}
for blocks in 2 100 900; do # room for the message, which goes to a file
	for base in base base.safetensors; do
		refused 4 '.' limited $blocks "$LORACTL" merge $base adapter -o out
		rm -rf .out.loractl-*
	done
done
limited 1000 "$LORACTL" merge -q base adapter -o out >"$OUT" 2>&1 || fail "not with 1000 blocks: $(cat "$OUT")"
rm -rf out
# Few files at a time, a small stack: enough is enough, too little is an error.
for files in 6 7 8; do
	refused 4 '.' bash -c "ulimit -n $files"' && exec "$0" "$@"' "$LORACTL" merge base adapter -o out
done
cp -r base many
edit shards many 30
(ulimit -n 256 && "$LORACTL" merge -q many adapter -o out >"$OUT" 2>&1) || fail "30 shards, 256 descriptors: $(cat "$OUT")"
rm -rf out many

# --- standard output is closed, or full, or read by nobody

# Standard output is closed: found before anything is written.
state >"$cli_folder/before"
"$LORACTL" merge base adapter -o out >&- 2>"$ERR" </dev/null
expect_equal "$?" 4
expect_one_error 'cannot write the result'
state >"$cli_folder/after"
cmp -s "$cli_folder/before" "$cli_folder/after" ||
	fail "left after >&-: $(diff "$cli_folder/before" "$cli_folder/after" | head -n 3)"
# A full disk behind it shows only when the merge stands: status 4, and OUT stays, whole (EXIT STATUS).
"$LORACTL" merge base adapter -o out >/dev/full 2>"$ERR" </dev/null
expect_equal "$?" 4
expect_one_error 'cannot write the result'
"$LORACTL" merge -q base adapter -o whole
diff -r out whole || fail "after >/dev/full the output is not whole"
rm -rf out whole
# A reader who has left is no failure; the work is done.
rm -rf out
"$LORACTL" merge -q base adapter -o want >"$OUT"
for option in -v --json; do
	exec 3> >(exec true)
	wait $! 2>/dev/null
	STATUS=0
	"$LORACTL" merge $option base adapter -o out >&3 2>"$ERR" </dev/null || STATUS=$?
	exec 3>&-
	expect_equal "$STATUS" 0
	diff -r out want || fail "another result for a reader who has left"
	rm -rf out
done
# Nothing takes the place of a closed stream: no file that is read or written gets a word of it.
for closed in '<&-' '2>&-' '<&- 2>&-'; do
	eval "\"\$LORACTL\" merge base adapter -o out >\"\$OUT\" 2>\"\$ERR\" $closed" || fail "$closed: exit $?"
	diff -r out want || fail "another result with $closed"
	rm -rf out
done
"$LORACTL" merge base adapter -o out <&- >&- 2>&-
expect_equal $? 4
if [ -e out ]; then
	diff -r out want || fail "a stream took the place of a file"
	rm -rf out
fi
cmp -s base/model.safetensors base.safetensors || fail "a stream took the place of an input"

# --- interrupted

edit large big big-adapter 24 64
started='.*.loractl-*'
for signal in INT TERM HUP; do
	for base in big big/model.safetensors; do
		state >"$cli_folder/before"
		said=$(tools interrupt $signal "$started" env LORACTL_CPU=generic "$LORACTL" merge --threads 2 $base big-adapter -o out \
			2>"$ERR" | xargs)
		state >"$cli_folder/after"
		if [ "$said" = early ]; then
			echo "SIG$signal on $base came too late"
			rm -rf out out.receipt.json
			continue
		fi
		expect_equal "$said" 130
		expect_plain "$ERR"
		cmp -s "$cli_folder/before" "$cli_folder/after" ||
			fail "SIG$signal: not as it was: $(diff "$cli_folder/before" "$cli_folder/after" | head -n 5)"
		rm -rf out .out.loractl-*
	done
done
# An input that changes while it is read: what was checked is what is used, or nothing.
for file in big/model.safetensors big-adapter/adapter_model.safetensors; do
	cp $file kept
	said=$(tools meddle $file "$started" env LORACTL_CPU=generic "$LORACTL" merge --threads 1 big big-adapter -o out 2>"$ERR" | xargs)
	case $file,$said in
	*,early) echo "$file changed too late" ;;
	big/*,3)
		expect_one_error 'model\.safetensors'
		[ ! -e out ] || fail "$file changed, and there is an output"
		;;
	*,3) [ ! -e out ] || fail "$file changed, and there is an output" ;;
	big-adapter/*,0) # it was read before
		mv kept $file
		"$LORACTL" merge -q big big-adapter -o want2 >"$OUT"
		diff -r out want2 || fail "$file changed, and half of it was used"
		rm -rf want2
		cp $file kept
		;;
	*) fail "$file changed: exit status $said: $(tail -n 1 "$ERR")" ;;
	esac
	mv kept $file
	rm -rf out .out.loractl-*
done
# What was there before --force is there after.
"$LORACTL" merge -q big big-adapter:0.5 -o out >"$OUT"
sum=$(cat out/* | sha256sum)
said=$(tools interrupt INT "$started" env LORACTL_CPU=generic "$LORACTL" merge --force big big-adapter -o out 2>"$ERR" | xargs)
if [ "$said" != early ]; then
	expect_equal "$said" 130
	expect_equal "$(cat out/* | sha256sum)" "$sum"
fi
