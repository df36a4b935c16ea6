#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# frame_docs - `-h`, the manual page and the completions of three shells name the same commands and options.
# What is committed is looked at; tests/lint/docs compares that with what the program prints.
. "${SRC:?the repository}/tests/cli/lib.sh" || exit 1

bash_file=$SRC/completions/loractl.bash
zsh_file=$SRC/completions/_loractl
fish_file=$SRC/completions/loractl.fish

# Each prints `-x` and `--name` of a command, sorted.
sorted()
{
	grep -oE -e '--?[a-zA-Z0-9][a-z0-9-]*' | LC_ALL=C sort -u
}

options_of_help()
{
	"$LORACTL" "$1" -h | sed -nE 's/^  (-[a-z], |    )(--[a-z0-9-]+).*/\1\2/p' | sorted
}

options_of_man()
{
	sed -n '/^\.Sh OPTIONS/,/^\.Sh [^O]/s/^\.It //p' "$SRC/man/loractl-$1.1" |
		sed -e 's/ Ar .*//' -e 's/Fl \\-/--/g' -e 's/Fl /-/g' -e 's/\\//g' | sorted
}

synopsis_of_man()
{
	sed -n '/^\.Sh SYNOPSIS/,/^\.Sh DESCRIPTION/p' "$SRC/man/loractl-$1.1" | sed -n 's/^\.\(Op \)\{0,1\}Fl /-/p' |
		sed -e 's/ Ar .*//' -e 's/\\//g' | sorted
}

options_of_bash()
{
	sed -n "/^	$1)\$/,/^		;;\$/s/^		options='\(.*\)'/\1/p" "$bash_file" | sorted
}

options_of_zsh()
{
	sed -n "/^		$1)\$/,/^			;;\$/p" "$zsh_file" | sed -e 's/_arguments -s//' -e 's/\[.*//' -e "s/^.*'{//" | sorted
}

options_of_fish()
{
	sed -n "s/^complete -c loractl -n '__fish_seen_subcommand_from $1'//p" "$fish_file" |
		sed -E -e "s/ -d '.*//" -e 's/ -s ([a-z])/ -\1/' -e 's/ -l / --/' | grep -oE -e ' --?[a-z][a-z0-9-]*' |
		grep -vE '^ -[rFxaf]$' | sorted
}

mapfile -t names < <(commands)
for name in "${names[@]}"; do
	options_of_help "$name" >"$cli_folder/help"
	[ "$(wc -l <"$cli_folder/help")" -ge 9 ] || fail "$name: too few options found in -h"
	for place in man bash zsh fish; do
		"options_of_$place" "$name" >"$cli_folder/$place"
		cmp -s "$cli_folder/help" "$cli_folder/$place" ||
			fail "$name: -h (<) and $place (>): $(diff "$cli_folder/help" "$cli_folder/$place" | grep '^[<>]')"
	done
	# The synopsis: each option once, by its letter if it has one; -h and --version are no part of it.
	synopsis_of_man "$name" >"$cli_folder/synopsis"
	expect_equal "$(wc -l <"$cli_folder/synopsis")" \
		"$("$LORACTL" "$name" -h | grep -cE '^  (-[a-z], |    )--' | xargs -I{} expr {} - 2)"
	[ -z "$(comm -13 "$cli_folder/help" "$cli_folder/synopsis")" ] ||
		fail "$name: the synopsis has more: $(comm -13 "$cli_folder/help" "$cli_folder/synopsis")"
	# The values to choose from.
	while read -r option choices; do
		words=${choices//|/ }
		grep -qE -e "^\.It .*Fl \\\\-${option#--} Ar ${choices//|/\\|}\$" "$SRC/man/loractl-$name.1" ||
			fail "$name $option: the manual page does not have $choices"
		for file in "$bash_file" "$zsh_file" "$fish_file"; do
			grep -F -e "${option#--}" "$file" | grep -qE "['(]${words}[')]" ||
				fail "$name $option: $(basename "$file") does not have $words"
		done
	done < <("$LORACTL" "$name" -h | sed -nE 's/^  (-[a-z], |    )(--[a-z-]+) ([a-z0-9.]+(\|[a-z0-9.]+)+).*/\2 \3/p')
done

# Every command has its page, and the overview and the completions name it.
for name in "${names[@]}"; do
	[ -f "$SRC/man/loractl-$name.1" ] || fail "no page for $name"
	grep -qx "\.It Cm $name" "$SRC/man/loractl.1" || fail "loractl.1 does not list $name"
	grep -q "commands='.* $name\b" "$bash_file" || fail "loractl.bash does not list $name"
	grep -q "^		'$name:" "$zsh_file" || fail "_loractl does not list $name"
	grep -q "use_subcommand -f -a $name " "$fish_file" || fail "loractl.fish does not list $name"
done
expect_equal "$(find "$SRC/man" -name 'loractl-*.1' | wc -l)" "${#names[@]}"
for file in "$SRC"/man/*.1 "$bash_file" "$zsh_file" "$fish_file"; do
	! grep -q '__doc' <(grep -v 'Generated\|generated' "$file") || fail "$(basename "$file") shows the hidden command"
done
expect_exit 0 "$LORACTL" -h
! grep -q __doc "$OUT" || fail "the overview shows the hidden command"

# A body that lacks a place for what is generated is refused.
printf '.Dd January 1, 2026\n.Sh DESCRIPTION\nText.\n' >"$cli_folder/body"
expect_exit 3 "$LORACTL" __doc man merge "$cli_folder/body"
expect_stderr_line 'add \.\\" OPTIONS$'
printf '.Sh DESCRIPTION\n.\\" OPTIONS\n' >"$cli_folder/body"
expect_exit 3 "$LORACTL" __doc man merge "$cli_folder/body"
expect_stderr_line 'begin it with \.Dd$'
expect_exit 3 "$LORACTL" __doc man merge "$cli_folder/nothing"
expect_exit 2 "$LORACTL" __doc man mrege "$cli_folder/body"
expect_exit 2 "$LORACTL" __doc tcsh

expect_only
