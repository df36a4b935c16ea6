# SPDX-License-Identifier: Apache-2.0
# lib.sh - what the tests of the command share; each sources it first:
#
#    . "${SRC:?the repository}/tests/cli/lib.sh" || exit 1
#
# 1. A test runs in an empty folder of its own, $work, with a HOME and a cache of its own; all of it is removed.
# 2. `run` and `expect_exit` leave the streams of the command in $OUT and $ERR and its status in $STATUS; the
#    other checks look at these. $OUT and $ERR are outside $work, so that $work holds what the command made.
# 3. A check that fails says FILE:LINE: WHAT, and the test goes on; it ends with 1 if there was one. With
#    LORACTL_TEST_STOP set it ends there: scripts/mutants asks for no more than one.
# 4. Whatever a test did, no temporary file of loractl may be left anywhere below (.NAME.loractl-XXXXXX).
# shellcheck shell=bash disable=SC2034
set -u

: "${LORACTL:?the program to test}" "${SRC:?the repository}"
cli_folder=$(mktemp -d "${TMPDIR:-/tmp}/cli.XXXXXX") || exit 1
work=$cli_folder/work OUT=$cli_folder/stdout ERR=$cli_folder/stderr
STATUS=0
cli_faults=0
export HOME=$cli_folder/home XDG_CACHE_HOME=$cli_folder/cache
export XDG_CONFIG_HOME=$cli_folder/config XDG_STATE_HOME=$cli_folder/state
unset LORACTL_PASSPHRASE_FILE SOURCE_DATE_EPOCH LORACTL_CPU NO_COLOR HF_HOME HF_HUB_CACHE
mkdir "$work" "$HOME" "$XDG_CACHE_HOME"
: >"$OUT"
: >"$ERR"
LORACTL=$(cd "$(dirname "$LORACTL")" && pwd)/$(basename "$LORACTL")
cd "$work" || exit 1

cli_finish()
{
	local status=$? left

	left=$(find "$cli_folder" -name '.*.loractl-*')
	[ -z "$left" ] || fail "temporary files are left: $left"
	chmod -R u+rwx "$cli_folder"
	rm -rf "$cli_folder"
	[ "$cli_faults" -eq 0 ] || exit 1
	exit "$status"
}
trap cli_finish EXIT

count_fault()
{
	cli_faults=$((cli_faults + 1))
	[ -z "${LORACTL_TEST_STOP:-}" ] || exit 1
}

# Says what is wrong, at the line of the test that asked.
fail()
{
	local i=0

	while [ "${BASH_SOURCE[i]}" = "${BASH_SOURCE[0]}" ] && [ -n "${BASH_SOURCE[i + 1]:-}" ]; do
		i=$((i + 1))
	done
	echo "$(basename "${BASH_SOURCE[i]}"):${BASH_LINENO[i - 1]}: $*"
	count_fault
}

# Ends the test as skipped, unless everything has to be there (CI=true).
need()
{
	command -v "$1" >/dev/null && return
	if [ "${CI:-}" = true ]; then
		fail "'$1' is not installed, and with CI=true nothing is skipped"
		exit 1
	fi
	echo "SKIP: '$1' is not installed"
	exit 77
}

# COMMAND...
run()
{
	STATUS=0
	"$@" >"$OUT" 2>"$ERR" </dev/null || STATUS=$?
}

# STATUS COMMAND...
expect_exit()
{
	run "${@:2}"
	[ "$STATUS" -eq "$1" ] || fail "exit status $STATUS, not $1: ${*:2}: $(head -n 5 "$ERR")"
}

# Standard error is one line, and matches the extended regular expression.
expect_stderr_line()
{
	[ "$(wc -l <"$ERR")" -eq 1 ] && [ "$(grep -c '' "$ERR")" -eq 1 ] ||
		fail "standard error is not one line: $(cat "$ERR")"
	grep -qE -e "$1" "$ERR" || fail "standard error does not match /$1/: $(cat "$ERR")"
}

# Some line of standard output (of standard error) matches.
expect_stdout()
{
	grep -qE -e "$1" "$OUT" || fail "standard output does not match /$1/: $(head -n 20 "$OUT")"
}

expect_stderr()
{
	grep -qE -e "$1" "$ERR" || fail "standard error does not match /$1/: $(head -n 20 "$ERR")"
}

# FILE...
expect_empty()
{
	local file

	for file in "$@"; do
		[ ! -s "$file" ] || fail "$(basename "$file") is not empty: $(head -n 5 "$file")"
	done
}

# TEXT TEXT
expect_equal()
{
	[ "$1" = "$2" ] || fail "not equal: '$1' and '$2'"
}

# FILE FILE
expect_same()
{
	cmp -s "$1" "$2" || fail "not the same: $(diff "$1" "$2" 2>&1 | head -n 10)"
}

# NAME...: the folder $work holds these entries, hidden ones counted, and no others.
expect_only()
{
	local have want

	have=$(cd "$work" && find . -mindepth 1 -maxdepth 1 | sed 's,^\./,,' | LC_ALL=C sort)
	want=$([ $# -eq 0 ] || printf '%s\n' "$@" | LC_ALL=C sort)
	[ "$have" = "$want" ] || fail "the folder holds: ${have//$'\n'/ }; not: ${want//$'\n'/ }"
}

# The listed commands, one a line, as the overview names them.
commands()
{
	"$LORACTL" -h | sed -n '/^Commands:/,/^$/s/^  \([a-z][a-z-]*\) .*/\1/p'
}

# COMMAND...: runs it with standard output and standard error on a terminal; both come out as $OUT, without
# carriage returns.
run_on_terminal()
{
	local line

	printf -v line '%q ' "$@"
	STATUS=0
	SHELL=/bin/bash script -qec "$line" /dev/null </dev/null >"$OUT" 2>"$ERR" || STATUS=$?
	tr -d '\r' <"$OUT" >"$OUT.plain" && mv "$OUT.plain" "$OUT"
}
