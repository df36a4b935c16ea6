#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# frame_help - `loractl help` opens the page that belongs to the program, or falls back to the short help.
. "${SRC:?the repository}/tests/cli/lib.sh" || exit 1
need script

mapfile -t names < <(commands)
for name in "${names[@]}"; do
	expect_exit 0 "$LORACTL" help "$name"
	expect_empty "$ERR"
	cp "$OUT" "$cli_folder/help"
	expect_exit 0 "$LORACTL" "$name" -h
	expect_same "$OUT" "$cli_folder/help"
done
expect_exit 0 "$LORACTL" help
expect_stdout '^Commands:'
expect_exit 2 "$LORACTL" help mrege
expect_stderr_line "^loractl help: unknown command 'mrege': did you mean 'merge'\?$"
expect_exit 2 "$LORACTL" help help help

# A `man` that tells what it was asked for.
tools=$cli_folder/tools prefix=$cli_folder/prefix
mkdir -p "$tools" "$prefix/bin" "$prefix/share/man/man1"
printf '#!/bin/sh\necho "page $1"\nexit $MAN_STATUS\n' >"$tools/man"
chmod +x "$tools/man"
cp "$LORACTL" "$prefix/bin/loractl"
export PATH=$tools:$PATH MAN_STATUS=0

# Installed without pages, outside of a source tree: the short help.
run_on_terminal "$prefix/bin/loractl" help merge
expect_equal "$STATUS" 0
expect_stdout '^usage: loractl merge'

touch "$prefix/share/man/man1/loractl-merge.1" "$prefix/share/man/man1/loractl.1.gz"
run_on_terminal "$prefix/bin/loractl" help merge
expect_stdout '^page .*/share/man/man1/loractl-merge\.1$'
run_on_terminal "$prefix/bin/loractl" help
expect_stdout '^page .*/share/man/man1/loractl\.1\.gz$'
expect_exit 0 "$prefix/bin/loractl" help merge # no terminal
expect_stdout '^usage: loractl merge'

# `man` fails, or is not there at all.
MAN_STATUS=1 run_on_terminal "$prefix/bin/loractl" help merge
expect_equal "$STATUS" 0
expect_stdout '^usage: loractl merge'
chmod -x "$tools/man"
run_on_terminal env PATH="$tools" "$prefix/bin/loractl" help merge
expect_equal "$STATUS" 0
expect_stdout '^usage: loractl merge'
chmod +x "$tools/man"

# In a source tree: its own page, two folders up.
tree=$cli_folder/tree
mkdir -p "$tree/build/release" "$tree/man" "$tree/src/cli"
cp "$LORACTL" "$tree/build/release/loractl"
touch "$tree/man/loractl-merge.1"
run_on_terminal "$tree/build/release/loractl" help merge
expect_stdout '^usage: loractl merge' # nothing says that this is our tree
touch "$tree/src/cli/commands.def"
run_on_terminal "$tree/build/release/loractl" help merge
expect_stdout '^page .*/man/loractl-merge\.1$'

expect_only
