#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# Every system call of `merge --undo` and of `unmerge` that touches an output fails once, or is the last thing the process does;
# allocations fail. Afterwards there are both, model and record, or neither; a kill between the two renames may leave the
# record alone, never the model without it.
. "${SRC:?the repository}/tests/cli/lib.sh" || exit 1
need strace
golden=$SRC/tests/data/undo/llama
cp -r "$golden/base" base
cp -r "$golden/sums" sums
cp -r "$golden/dora" dora
cp -r "$golden/merged" merged
cp "$golden/merged.undo" merged.undo
mkdir elsewhere
merge=("$LORACTL" merge -q --threads 1 base sums dora -o out)
unmerge=("$LORACTL" unmerge -q --threads 1 merged --undo merged.undo -o out)
# The base's digests are in the cache from here on, and no call is made for them.
"${merge[@]}" --undo record || fail "exit $?"
mv out want
mv record want.undo

inputs()
{
	find base sums dora merged merged.undo -type f -exec sha256sum {} + | sort
}
before=$(inputs)

# WHAT: neither is there, and nothing else.
neither()
{
	local left

	left=$(find . \( -name 'out*' -o -name 'record*' -o -name '.*.loractl-*' -o -name '.loractl-*' \) | tr '\n' ' ')
	[ -z "$left" ] || fail "$1: left: $left"
	[ "$(inputs)" = "$before" ] || fail "$1: an input changed"
	clean
}

clean()
{
	rm -rf out record elsewhere/record
	find . -name '.*loractl-*' -exec rm -rf {} +
}

# WHAT: whole, where it is.
whole()
{
	local record

	record=$(find . -name record)
	case $mode in
	merge)
		[ -e out ] && [ -n "$record" ] || fail "$1: one of the two alone"
		diff -r out want >/dev/null || fail "$1: another model"
		cmp -s "$record" want.undo || fail "$1: another record"
		;;
	unmerge) diff -r out base >/dev/null || fail "$1: another base" ;;
	esac
	[ "$(inputs)" = "$before" ] || fail "$1: an input changed"
	clean
}

# CALL COMMAND...: how often it makes that call.
count()
{
	strace -f -o "$cli_folder/trace" -e trace="$1" "${@:2}" >/dev/null 2>&1 || fail "${*:2}: exit $?"
	clean
	grep -c "$1(" "$cli_folder/trace"
}

# CALL ERROR COMMAND...
fail_each()
{
	local calls loader n

	calls=$(count "$1" "${@:3}")
	loader=$(count "$1" "$LORACTL" --version) # which reads libraries
	[ "$calls" -gt "$loader" ] || fail "$1 is never called: the test tests nothing"
	for ((n = loader + 1; n <= calls; n++)); do
		run strace -f -o /dev/null -e trace="$1" -e inject="$1:error=$2:when=$n" "${@:3}"
		if [ "$STATUS" -eq 0 ]; then # a call whose failure may be survived
			whole "$mode: $1 $2 at $n"
			continue
		fi
		[ "$STATUS" -eq 4 ] || fail "$mode: $1 $2 at $n: exit $STATUS: $(cat "$ERR")"
		[ "$(wc -l <"$ERR")" -eq 1 ] || fail "$mode: $1 $2 at $n: $(wc -l <"$ERR") lines: $(cat "$ERR")"
		neither "$mode: $1 $2 at $n"
	done
}

# CALL COMMAND...
kill_each()
{
	local calls n

	calls=$(count "$1" "${@:2}")
	for ((n = 1; n <= calls; n++)); do
		{ run strace -f -o /dev/null -e trace="$1" -e inject="$1:signal=SIGKILL:when=$n" "${@:2}"; } 2>/dev/null
		if [ -e out ]; then
			whole "$mode: killed at $1 $n"
			continue
		fi
		for record in record elsewhere/record; do # alone it is whole
			[ ! -e $record ] || cmp -s $record want.undo || fail "$mode: killed at $1 $n: a torn record"
		done
		[ "$(inputs)" = "$before" ] || fail "$mode: killed at $1 $n: an input changed"
		clean
	done
}

mode=merge
for place in record elsewhere/record; do
	fail_each renameat2 EIO "${merge[@]}" --undo $place
	fail_each fsync EIO "${merge[@]}" --undo $place
	kill_each renameat2 "${merge[@]}" --undo $place
done
fail_each pwrite64 ENOSPC "${merge[@]}" --undo record
fail_each fdatasync EIO "${merge[@]}" --undo record
fail_each mkdir EACCES "${merge[@]}" --undo record
fail_each fallocate ENOSPC "${merge[@]}" --undo record
kill_each pwrite64 "${merge[@]}" --undo record
kill_each fdatasync "${merge[@]}" --undo record
kill_each fsync "${merge[@]}" --undo record
# Spools are read back; and a file system may not have files without a name.
fail_each pread64 EIO "${merge[@]}" --undo record
mode=unmerge
for call in pwrite64:ENOSPC fdatasync:EIO fsync:EIO renameat2:EIO pread64:EIO; do
	fail_each "${call%:*}" "${call#*:}" "${unmerge[@]}"
done
for call in pwrite64 fdatasync fsync renameat2; do
	kill_each $call "${unmerge[@]}"
done

# --- no memory: an allocation fails, alone or with all that follow; some hundred places, spread over the whole run

[ -z "${LORACTL_SANITIZE:-}" ] || exit 0 # sanitizers bring their own malloc()
cat >"$cli_folder/failing.c" <<'C'
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>
void *__libc_malloc(size_t), *__libc_calloc(size_t, size_t), *__libc_realloc(void *, size_t), *__libc_memalign(size_t, size_t);
static long count, from = -1, to;
__attribute__((constructor)) static void begin(void)
{
	const char *text = getenv("FAIL_FROM");
	if (text)
		from = strtol(text, NULL, 10), to = getenv("FAIL_ONCE") ? from + 1 : 1L << 40;
	count = 0;
}
void _exit(int status)
{
	if (getenv("FAIL_COUNT"))
		dprintf(open(getenv("FAIL_COUNT"), O_WRONLY | O_CREAT | O_TRUNC, 0600), "%ld\n", count);
	for (;;)
		syscall(SYS_exit_group, status);
}
static int now(void)
{
	long n = __atomic_fetch_add(&count, 1, __ATOMIC_RELAXED);
	if (from < 0 || n < from || n >= to)
		return 0;
	errno = ENOMEM;
	return 1;
}
void *malloc(size_t n) { return now() ? NULL : __libc_malloc(n); }
void *calloc(size_t n, size_t m) { return now() ? NULL : __libc_calloc(n, m); }
void *realloc(void *p, size_t n) { return now() ? NULL : __libc_realloc(p, n); }
void *aligned_alloc(size_t a, size_t n) { return now() ? NULL : __libc_memalign(a, n); }
C
"${CC:-cc}" -O1 -w -shared -fPIC -o "$cli_folder/failing.so" "$cli_folder/failing.c" || fail "no library"

# COMMAND...
without_memory()
{
	local calls n once step

	env LD_PRELOAD="$cli_folder/failing.so" FAIL_COUNT="$cli_folder/count" "$@" || fail "$*: exit $?"
	clean
	calls=$(cat "$cli_folder/count")
	[ "${calls:-0}" -gt 100 ] || fail "$mode: $calls allocations: the test tests nothing"
	step=$((calls / 100 + 1))
	for once in '' 1; do
		for ((n = 0; n < calls; n += step)); do
			run env LD_PRELOAD="$cli_folder/failing.so" FAIL_FROM=$n ${once:+FAIL_ONCE=1} "$@"
			if [ "$STATUS" -eq 0 ]; then
				whole "$mode: allocation $n fails"
				continue
			fi
			[ "$STATUS" -eq 4 ] || fail "$mode: allocation $n fails: exit $STATUS: $(cat "$ERR")"
			[ "$(wc -l <"$ERR")" -eq 1 ] || fail "$mode: allocation $n fails: $(wc -l <"$ERR") lines: $(cat "$ERR")"
			neither "$mode: allocation $n fails"
		done
	done
}
mode=merge
without_memory "${merge[@]}" --undo record
mode=unmerge
without_memory "${unmerge[@]}"
