#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# frame_streams - a result that cannot be written is a failure, a reader who has left is none; colours.
. "${SRC:?the repository}/tests/cli/lib.sh" || exit 1
need script

# COMMAND...: standard output is a full disk, then closed: status 4 and one line that says so.
expect_noticed()
{
	"$@" >/dev/full 2>"$ERR" </dev/null
	expect_equal $? 4
	expect_stderr_line 'cannot write the result: standard output: No space left on device$'
	"$@" 2>"$ERR" </dev/null >&-
	expect_equal $? 4
	expect_stderr_line 'cannot write the result: standard output: Bad file descriptor$'
}

expect_noticed "$LORACTL" -h
expect_noticed "$LORACTL" --version
expect_noticed "$LORACTL" merge -h
expect_noticed "$LORACTL" help merge
expect_noticed "$LORACTL" __doc zsh # more than a buffer, so that writing fails before the end

# COMMAND...: standard output is a pipe that nobody reads.
expect_quiet()
{
	local reader

	exec 3> >(exec true)
	reader=$!
	wait "$reader" 2>/dev/null
	STATUS=0
	"$@" >&3 2>"$ERR" </dev/null || STATUS=$?
	exec 3>&-
}

expect_quiet "$LORACTL" -h
expect_equal "$STATUS" 0
expect_empty "$ERR"
expect_quiet "$LORACTL" __doc zsh
expect_equal "$STATUS" 0
expect_empty "$ERR"
expect_quiet "$LORACTL" merge --no-such-option
expect_equal "$STATUS" 2
expect_stderr_line 'unknown option'

# Nothing takes the place of a stream that is closed.
"$LORACTL" merge --no-such-option >"$OUT" 2>&-
expect_equal $? 2
expect_empty "$OUT"
"$LORACTL" -h >"$OUT" 2>"$ERR" <&-
expect_equal $? 0
expect_stdout '^usage: '
"$LORACTL" __doc man merge /dev/stdin 2>"$ERR" >"$OUT" <&-
expect_equal $? 3
expect_stderr_line '^loractl __doc: no place for a generated section' # descriptor 0 is taken, by nothing to read
"$LORACTL" -h <&- >&- 2>&-
expect_equal $? 4

# Colours: asked for, or on a terminal that can and may.
escape=$'\e'
expect_exit 2 "$LORACTL" zzz
! grep -q "$escape" "$ERR" || fail "coloured, though it is no terminal"
expect_exit 2 "$LORACTL" --color always merge --no-such-option
expect_stderr "^$escape"
expect_exit 2 "$LORACTL" merge --color always --no-such-option
expect_stderr "^$escape"
export TERM=xterm
run_on_terminal "$LORACTL" --color always help zzz
expect_stdout "^$escape"
run_on_terminal "$LORACTL" help zzz
expect_stdout "^$escape.*loractl help:"
run_on_terminal env NO_COLOR=1 "$LORACTL" help zzz
expect_stdout "^loractl help: unknown"
run_on_terminal env NO_COLOR= "$LORACTL" help zzz
expect_stdout "^$escape"
run_on_terminal env TERM=dumb "$LORACTL" help zzz
expect_stdout "^loractl help: unknown"
run_on_terminal "$LORACTL" --color=never help zzz
expect_stdout "^loractl help: unknown"
NO_COLOR=1 expect_exit 2 "$LORACTL" --color=always help zzz
expect_stderr "^$escape"

expect_only
