#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# frame - reading the command line is the same for every command: help, options, mistakes.
. "${SRC:?the repository}/tests/cli/lib.sh" || exit 1

mapfile -t names < <(commands)
[ "${#names[@]}" -ge 3 ] || fail "the overview lists no commands"

# A usage error: status 2, one line that matches, nothing on standard output.
expect_usage()
{
	expect_exit 2 "${@:2}"
	expect_stderr_line "$1"
	expect_empty "$OUT"
}

# The arguments were read: whatever the command then says, it is no usage error.
expect_read()
{
	run "$@"
	[ "$STATUS" -ne 2 ] || fail "not read: $*: $(cat "$ERR")"
}

expect_help()
{
	expect_exit 0 "$@"
	expect_empty "$ERR"
	expect_stdout '^usage: loractl '
	[ -z "$(grep -E '.{81}' "$OUT")" ] || fail "wider than 80 columns: $*: $(grep -E '.{81}' "$OUT")"
	! grep -qE '[[:space:]]$' "$OUT" || fail "blanks at the end of lines: $*"
}

# --- help and version

expect_exit 2 "$LORACTL"
expect_empty "$OUT"
expect_stderr '^usage: loractl COMMAND'
expect_help "$LORACTL" -h
expect_help "$LORACTL" --help
for name in "${names[@]}"; do
	expect_help "$LORACTL" "$name" -h
	expect_stdout "^usage: loractl $name "
	cp "$OUT" "$cli_folder/help"
	expect_help "$LORACTL" "$name" a b c --help --no-such-option
	expect_same "$OUT" "$cli_folder/help"
	expect_help "$LORACTL" --help "$name"
	expect_same "$OUT" "$cli_folder/help"
	expect_exit 0 "$LORACTL" "$name" --version
	expect_stdout '^loractl [0-9]'
done

part()
{
	sed -n "s/^#define LORA_VERSION_$1 //p" "$SRC/include/loractl/version.h"
}
expect_exit 0 "$LORACTL" --version
expect_equal "$(cat "$OUT")" "loractl $(part MAJOR).$(part MINOR).$(part PATCH)"
expect_empty "$ERR"
for line in '-v --version' '--version -v'; do
	# shellcheck disable=SC2086
	expect_exit 0 "$LORACTL" $line
	expect_stdout '^kernels: (generic|avx2|avx512|neon)$'
	expect_stdout '^compiler: .'
done
expect_exit 2 env LORACTL_CPU=abacus "$LORACTL" -v --version
expect_stderr_line "^loractl: .*LORACTL_CPU.*'abacus'"

# --- mistakes in names, with the nearest suggested

expect_usage "^loractl: unknown command 'mrege': did you mean 'merge'\?$" "$LORACTL" mrege
expect_usage "^loractl: unknown command 'zzz': 'loractl -h' " "$LORACTL" zzz
expect_usage "^loractl: unknown option '--versoin': did you mean '--version'\?$" "$LORACTL" --versoin
expect_usage "^loractl merge: unknown option '--dtpye': did you mean '--dtype'\?$" \
	"$LORACTL" merge b a -o out --dtpye=f32
expect_usage "^loractl merge: unknown option '-z': '-h' lists" "$LORACTL" merge b a -z
expect_usage "^loractl merge: unknown option '-force': did you mean '--force'\?$" "$LORACTL" merge b a -force
for name in "${names[@]}"; do
	expect_usage "^loractl $name: unknown option '--no-such-thing': " "$LORACTL" "$name" --no-such-thing
done

# A prefix, however unique, is not the option.
for prefix in --dry --outpu --f --no --threa --js --key; do
	expect_usage "^loractl merge: unknown option '$prefix': " "$LORACTL" merge b a -o out "$prefix"
done
expect_usage "^loractl merge: unknown option '--dry': did you mean '--dry-run'\?$" "$LORACTL" merge --dry
expect_usage "^loractl: unknown command 'merg': did you mean 'merge'\?$" "$LORACTL" merg

# --- where options stand and how values are given

for line in 'b a -o out' 'b a -oout' 'b a --output out' 'b a --output=out' '-o out b a' 'b -o out a' \
	'-qo out b a' '-q -oout -- b a' 'b a --dry-run' 'b a --dry-run --color never'; do
	# shellcheck disable=SC2086
	expect_read "$LORACTL" merge $line
	# shellcheck disable=SC2086
	expect_read "$LORACTL" --threads 2 -q --json merge $line --dtype f16
done
expect_read "$LORACTL" merge b a -o --force-is-a-name
expect_read "$LORACTL" merge b a -o=
expect_read "$LORACTL" merge b a --output=--force
expect_usage "^loractl help: unknown command '-h': " "$LORACTL" help -- -h
expect_help "$LORACTL" help -- merge
expect_usage "^loractl help: unknown command '-': " "$LORACTL" help -

# --- values

expect_usage "^loractl merge: option '-o' is given twice" "$LORACTL" merge b a -o x -o y
expect_usage "^loractl merge: option '--output' is given twice" "$LORACTL" merge b a -o x --output=y
expect_usage "^loractl merge: option '--dtype' is given twice" "$LORACTL" merge b a --dtype f32 --dtype f32
expect_usage "^loractl merge: option '--threads' is given twice" \
	"$LORACTL" --threads 1 merge b a -o x --threads 1
expect_read "$LORACTL" merge b a -o x --force --force -q -q
expect_usage "^loractl merge: option '--output' needs a value: '--output OUT'$" "$LORACTL" merge b a --output
expect_usage "^loractl merge: option '-o' needs a value, and '--force' is an option" \
	"$LORACTL" merge b a -o --force
expect_usage "^loractl merge: option '-o' needs a value, and '--' is an option" "$LORACTL" merge b a -o -- x
expect_usage "^loractl merge: option '--force' takes no value" "$LORACTL" merge b a -o x --force=yes
expect_usage "^loractl merge: bad value '': option '-o': give a path$" "$LORACTL" merge b a -o ''
expect_usage "^loractl merge: bad value 'f8': option '--dtype': use f32, f16 or bf16$" \
	"$LORACTL" merge b a -o x --dtype f8
expect_usage "^loractl merge: bad value 'F32': " "$LORACTL" merge b a -o x --dtype F32
expect_usage "^loractl: bad value 'blue': option '--color': use auto, always or never$" "$LORACTL" --color blue
for number in 0 -1 +1 ' 1' 1x 0x10 1.0 '' 4097 18446744073709551616 99999999999999999999999; do
	expect_usage "^loractl merge: bad value '${number/+/\\+}': option '--threads': use a whole number from 1 to 4096$" \
		"$LORACTL" merge b a -o x "--threads=$number"
done
expect_usage "exclude each other" "$LORACTL" merge b a -o x -q -v
expect_usage "^loractl help: unknown option '--json': " "$LORACTL" help --json
expect_usage "^loractl help: unknown option '--json': " "$LORACTL" --json help

# --- operands and required options

expect_usage "^loractl merge: an argument is missing: give BASE$" "$LORACTL" merge
expect_usage "^loractl merge: an argument is missing: give ADAPTER" "$LORACTL" merge b -o x
expect_usage "^loractl merge: an option is missing: give '-o OUT'$" "$LORACTL" merge b a
expect_usage "^loractl inspect: an argument is missing: give PATH$" "$LORACTL" inspect
expect_usage "^loractl help: one argument too many: 'inspect'" "$LORACTL" help merge inspect

# --- what a terminal would obey is spelt out, and the error stays one line

expect_usage "^loractl: unknown command 'mer\\\\nge\\\\x1b\[31m': " "$LORACTL" $'mer\nge\e[31m'
expect_usage "^loractl merge: unknown option '--\\\\xff\\\\u\{202e\}': " "$LORACTL" merge $'--\xff\u202e'
long=$(printf 'x%.0s' {1..5000})
expect_usage '\.\.\.$' "$LORACTL" merge b a -o x --dtype "$long"

expect_only
