# SPDX-License-Identifier: Apache-2.0
# lib.sh - what the lints share; each sources it first.
#
# 1. A lint says each fault on one line, FILE:LINE: WHAT where there is a line, and exits 1 if there was one.
# 2. A tool that is missing: SKIP and exit 77; a failure with CI=true, so that nothing is skipped there.
# 3. SRC is the repository, BUILD a folder where it was built (default build/release).
# shellcheck shell=bash disable=SC2034
set -euo pipefail

SRC=${SRC:-$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)}
BUILD=${BUILD:-$SRC/build/release}
lint=$(basename "$0")
faults=0
cd "$SRC"

complain()
{
	echo "$lint: $*"
	faults=$((faults + 1))
}

finish()
{
	[ "$faults" -eq 0 ] || exit 1
	echo "$lint: ok"
}

skip()
{
	if [ "${CI:-}" = true ]; then
		echo "$lint: FAIL: $*, and with CI=true no lint is skipped"
		exit 1
	fi
	echo "$lint: SKIP: $*"
	exit 77
}

# The first of the named tools that is there goes into the variable $1.
need()
{
	local variable=$1 tool

	for tool in "${@:2}"; do
		if command -v "$tool" >/dev/null; then
			printf -v "$variable" %s "$tool"
			return
		fi
	done
	skip "$2 is not installed (scripts/deps --test installs it)"
}

# Files of the repository whose names match one of the patterns, without what builds leave behind.
files()
{
	local names=() pattern

	for pattern in "$@"; do
		names+=(-o -name "$pattern")
	done
	find . \( -path ./build -o -path ./.git -o -name __pycache__ \) -prune -o \
		-type f \( "${names[@]:1}" \) -print | sed 's,^\./,,' | LC_ALL=C sort
}

scratch()
{
	scratch=$(mktemp -d)
	trap 'rm -rf "$scratch"' EXIT
}
