#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# readme - what the README shows is what happens: each command of its transcript (a line `    $ COMMAND`) is run, in
# the order of the page, on a terminal without colours, in a folder where tests/ is this repository's and the
# committed models lie under their own names too; and what it prints is compared with the lines below it.
#
# Durations and rates are masked on both sides (`0.11 s`, `12.6 MiB/s`); nothing else is. A line `...` in the README
# stands for any number of lines. `echo $?` after a command shows its status.
. "${SRC:?the repository}/tests/cli/merge_checks.sh" || exit 1
need script

# README: runs its commands.
replay()
{
	local count number status=0

	rm -rf "$cli_folder/readme"
	mkdir "$cli_folder/readme"
	count=$(tools transcript "$1" "$cli_folder/readme")
	for ((number = 1; number <= count; number++)); do
		run_on_terminal env NO_COLOR=1 TERM=dumb bash -c "(exit $status); $(cat "$cli_folder/readme/$number.command")"
		status=$STATUS
		tools as_shown "$cli_folder/readme/$number.shown" "$OUT" >"$cli_folder/said" 2>&1 ||
			fail "$(cat "$cli_folder/readme/$number.command"): $(cat "$cli_folder/said")"
	done
}

mkdir bin build
ln -s "$LORACTL" bin/loractl
export PATH=$work/bin:$PATH
ln -s "$SRC/tests" tests
for folder in "$tiny"/*/; do
	cp -r "$folder" .
done

replay "$SRC/README.md"
own=$(grep -lE '(^|[^a-z])loractl [a-z-]' "$cli_folder"/readme/*.command | wc -l)
[ "$own" -ge 3 ] || fail "README.md shows $own commands of loractl; the test tests nothing"
! grep -q '@[A-Z]*@' "$SRC/README.md" || fail "a place in README.md is not filled: $(grep '@[A-Z]*@' "$SRC/README.md")"

# The comparison sees a difference: another word, a line more, a line less, another status.
version=$("$LORACTL" --version)
cat >good <<README
Text.

    $ loractl --version
    $version
    $ loractl merge -h
    usage: loractl merge \\[OPTIONS]
    ...
    $ loractl nothing
    ...
    $ echo \$?
    2
README
usage=$("$LORACTL" merge -h | head -n 1)
sed -i "s|^    usage: .*|    $usage|" good
replay good
for change in 's/loractl [0-9]/loracle 0/' "/    $version/d" "s/    $version/&\\n    more/" 's/^    2/    3/' '0,/^    \.\.\.$/{//d}'; do
	sed "$change" good >bad
	before=$cli_faults
	replay bad >"$cli_folder/replayed"
	if [ "$cli_faults" -eq "$before" ]; then
		fail "not seen: $change"
	else
		cli_faults=$before
	fi
done
