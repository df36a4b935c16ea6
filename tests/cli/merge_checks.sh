#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# merge_checks - what the tests of merge and inspect share, sourced after lib.sh; and, run by itself, the proof
# that these checks can fail: programs that break one promise each have to be caught.
#
# 1. `refused` is the one way to assert a failure. It looks at everything that a failure promises: the status,
#    one line in the form of the manual, nothing on standard output, and the folder as it was, where every file
#    counts with its inode, size, times and mode, every folder below with its time, and HOME and TMPDIR too.
# 2. Nothing is merged onto the committed data: `copies` makes copies in $work.
# 3. The values are judged by tools.py, from the files and the definitions in the manual.
# shellcheck shell=bash
[ -n "${cli_folder:-}" ] || . "${SRC:?the repository}/tests/cli/lib.sh" || exit 1

tiny=$SRC/tests/data/tiny
export TMPDIR=$cli_folder/tmp PYTHONDONTWRITEBYTECODE=1 LC_ALL=C.UTF-8
mkdir "$TMPDIR"
sanitized=
case ${LORACTL_SANITIZE:-} in ?*) sanitized=1 ;; esac

# As lib.sh's, but the line is that of the test itself, not of a function in it.
fail()
{
	local outermost=$((${#BASH_SOURCE[@]} - 1))

	echo "$(basename "${BASH_SOURCE[outermost]}"):${BASH_LINENO[outermost - 1]}: $*"
	count_fault
}

# VERB ARGUMENT...
tools()
{
	python3 "$SRC/tests/cli/tools.py" "$@"
}

# VERB ARGUMENT...: an edit that has to work, or the test tests nothing.
edit()
{
	tools "$@" || fail "tools.py $*"
}

# VERB ARGUMENT...: a check of tools.py.
judged()
{
	local said

	said=$(tools "$@" 2>&1) || fail "tools.py $*: $(head -n 8 <<<"$said")"
}

# NAME...: the committed models and adapters, as base and adapter, or under their own names.
copies()
{
	local name

	for name in "$@"; do
		cp -r "$tiny/$name" "$name"
	done
}

# Everything below the folder, as `stat` sees it. The time of the folder itself is left out: a temporary file may
# come and go there.
state()
{
	find . "$HOME" "$TMPDIR" -mindepth 1 \( -type d -printf '%p d %m %T@\n' -o -printf '%p %y %m %s %T@ %C@ %i %l\n' \) |
		LC_ALL=C sort
	find "$XDG_CACHE_HOME" -mindepth 1 -maxdepth 1 ! -name loractl ! -name huggingface
}

# FILE...: nothing that a terminal would obey, no bytes that are no text.
expect_plain()
{
	local file

	for file in "$@"; do
		LC_ALL=C grep -q '[^ -~]' "$file" || continue # plain ASCII
		! LC_ALL=C grep -qP '[\x00-\x08\x0b-\x1f\x7f]' "$file" ||
			fail "control characters: $(cat -v "$file" | head -n 5)"
		iconv -f UTF-8 -t UTF-8 "$file" >/dev/null 2>&1 || fail "no UTF-8: $(cat -v "$file" | head -n 5)"
		! grep -qP '[\x{80}-\x{9f}\x{200e}\x{200f}\x{202a}-\x{202e}\x{2066}-\x{2069}\x{feff}]' "$file" ||
			fail "characters that turn the line around: $(cat -v "$file" | head -n 5)"
	done
}

# The last line is an error in the form that every error has. Before it there may be notes and warnings, which -q
# takes away, and the list of tensors without a place.
expect_one_error()
{
	local lines last='' line note="^loractl [a-z]+: (note|warning): |^loractl [a-z]+: [^:]+: tensor '[^']+': (no|factors) "

	mapfile lines <"$ERR"
	[ "${#lines[@]}" -eq 0 ] || last=${lines[-1]}
	[[ $last != *[!$'\n'] ]] || fail "the error does not end its line"
	last=${last%$'\n'}
	[[ $last =~ ^loractl\ [a-z]+:\ [^\ ] ]] || fail "no error in the form of the manual: $last"
	[[ $last =~ $1 ]] || fail "the error does not match /$1/: $last"
	[[ $last != *. || $last == *... ]] || fail "the error ends with a full stop: $last"
	unset 'lines[-1]' 2>/dev/null
	for line in "${lines[@]}"; do
		[[ $line =~ $note ]] || fail "more than one line of error: $line"
	done
	expect_plain "$ERR"
}

# STATUS PATTERN COMMAND...: fails with that status (or one of A|B, where the documents leave it open), says why
# in one line that matches, and leaves everything as it was.
refused()
{
	state >"$cli_folder/before"
	run "${@:3}"
	state >"$cli_folder/after"
	case "|$1|" in
	*"|$STATUS|"*) ;;
	*) fail "exit status $STATUS, not $1: ${*:3}: $(head -n 5 "$ERR")" ;;
	esac
	expect_one_error "$2"
	expect_empty "$OUT"
	cmp -s "$cli_folder/before" "$cli_folder/after" ||
		fail "not as it was: ${*:3}: $(diff "$cli_folder/before" "$cli_folder/after" | head -n 5)"
}

# COMMAND...: works, and of what was there before nothing changes.
done_well()
{
	state >"$cli_folder/before"
	expect_exit 0 "$@"
	state >"$cli_folder/after"
	[ -z "$(LC_ALL=C comm -23 "$cli_folder/before" "$cli_folder/after")" ] ||
		fail "an input changed: $*: $(LC_ALL=C comm -23 "$cli_folder/before" "$cli_folder/after" | head -n 5)"
	expect_plain "$OUT" "$ERR"
}

# COMMAND...: works, and changes nothing at all.
done_reading()
{
	done_well "$@"
	cmp -s "$cli_folder/before" "$cli_folder/after" ||
		fail "something is new: $*: $(diff "$cli_folder/before" "$cli_folder/after" | head -n 5)"
}

# PYTHON-EXPRESSION WANTED [FILE]: a value of the JSON document x, on standard output by default.
expect_json()
{
	expect_equal "$(tools get "${3:-$OUT}" "$1" 2>&1 | tail -n 1)" "$2"
}

# COMMAND...: ends within ten seconds (sixty with sanitizers).
soon()
{
	timeout -s KILL "${sanitized:+60}${sanitized:-10}" "$@"
}

# As a user whom permissions bind; false if there is no way.
bound_by_permissions()
{
	if [ "$(id -u)" -ne 0 ]; then
		"$@"
	else
		setpriv --bounding-set=-dac_override,-dac_read_search "$@"
	fi
}

can_bind()
{
	local status=0

	: >"$cli_folder/secret"
	chmod 000 "$cli_folder/secret"
	! bound_by_permissions cat "$cli_folder/secret" >/dev/null 2>&1 || status=1
	bound_by_permissions true 2>/dev/null || status=1
	rm -f "$cli_folder/secret"
	return $status
}

need python3
[ "${BASH_SOURCE[0]}" = "$0" ] || return 0

# --- the checks themselves

unset LORACTL_TEST_STOP # faults are what is looked for

# NAME <SCRIPT: a program that breaks something.
program()
{
	{
		echo '#!/usr/bin/env bash'
		cat
	} >"$cli_folder/$1"
	chmod +x "$cli_folder/$1"
}

# SAID CHECK...: the check has to find a fault, and to say what matches.
caught()
{
	local before=$cli_faults

	"${@:2}" >"$cli_folder/said" 2>&1
	if [ "$cli_faults" -eq "$before" ]; then
		fail "not caught: $1: ${*:2}"
	else
		cli_faults=$before
		grep -qE -e "$1" "$cli_folder/said" || fail "caught, but not for '$1': $(cat "$cli_folder/said")"
	fi
	rm -rf x y .x.loractl-1
	printf 'text\n' >input
}

# WHAT CHECK...: the check has to be content.
content()
{
	local before=$cli_faults

	"${@:2}"
	[ "$cli_faults" -eq "$before" ] || fail "not content: $1"
}

error="echo 'loractl merge: bad thing: here: do that' >&2"
printf 'text\n' >input
mkdir folder
touch folder/inside

program good <<<"$error; exit 3"
content good refused 3 'bad thing' "$cli_folder/good"
content either refused '2|3' 'bad thing' "$cli_folder/good"
caught 'exit status 3, not 2' refused 2 'bad thing' "$cli_folder/good"
caught 'does not match /good thing/' refused 3 'good thing' "$cli_folder/good"
program listing <<<"echo \"loractl merge: adapter: tensor 'x': no tensor 'y' in the base\" >&2; echo 'loractl merge: note: unbound' >&2; $error; exit 3"
content 'a list and a note' refused 3 'bad thing' "$cli_folder/listing"
program two_lines <<<"$error; $error; exit 3"
caught 'more than one line of error' refused 3 'bad thing' "$cli_folder/two_lines"
program stray <<<"echo 'ERROR: something' >&2; $error; exit 3"
caught 'more than one line of error' refused 3 'bad thing' "$cli_folder/stray"
program after <<<"$error; echo trailer >&2; exit 3"
caught 'no error in the form of the manual: trailer' refused 3 'bad thing' "$cli_folder/after"
program silent <<<"exit 3"
caught 'no error in the form of the manual: $' refused 3 '' "$cli_folder/silent"
program stop <<<"echo 'loractl merge: bad thing.' >&2; exit 3"
caught 'ends with a full stop' refused 3 'bad thing' "$cli_folder/stop"
program unended <<<"printf 'loractl merge: bad thing' >&2; exit 3"
caught 'does not end its line' refused 3 'bad thing' "$cli_folder/unended"
program printing <<<"$error; echo result; exit 3"
caught 'stdout is not empty' refused 3 'bad thing' "$cli_folder/printing"
program leaving <<<"$error; echo >x; exit 3"
caught 'not as it was: .*' refused 3 'bad thing' "$cli_folder/leaving"
program hidden <<<"$error; echo >.x.loractl-1; exit 3"
caught 'not as it was: .*' refused 3 'bad thing' "$cli_folder/hidden"
program touching <<<"$error; touch input; exit 3"
caught 'not as it was: .*' refused 3 'bad thing' "$cli_folder/touching"
program writing <<<"$error; touch -r input $cli_folder/time; echo TEXT >input; touch -r $cli_folder/time input; exit 3"
caught 'not as it was: .*' refused 3 'bad thing' "$cli_folder/writing"
program passing <<<"$error; touch folder/x; rm folder/x; exit 3"
caught 'not as it was: .*' refused 3 'bad thing' "$cli_folder/passing"
program inmode <<<"$error; chmod 600 folder/inside; exit 3"
caught 'not as it was: .*' refused 3 'bad thing' "$cli_folder/inmode"
chmod 644 folder/inside
program homing <<<"$error; touch ~/x; exit 3"
caught 'not as it was: .*' refused 3 'bad thing' "$cli_folder/homing"
rm -f ~/x
program escaping <<<"printf 'loractl merge: bad \\e[31mthing\\n' >&2; exit 3"
caught 'control characters' refused 3 'bad' "$cli_folder/escaping"
program turning <<<"printf 'loractl merge: bad \\u202ething\\n' >&2; exit 3"
caught 'turn the line around' refused 3 'bad' "$cli_folder/turning"
program killed <<<"$error; kill -SEGV \$\$"
caught 'exit status 139, not 3' refused 3 'bad thing' "$cli_folder/killed"

program works <<<"echo >x"
content works done_well "$cli_folder/works"
rm -f x
caught 'something is new' done_reading "$cli_folder/works"
program spoils <<<"echo >input"
caught 'an input changed' done_well "$cli_folder/spoils"
program fails <<<"exit 1"
caught 'exit status 1, not 0' done_well "$cli_folder/fails"

# tools.py: an output that is not the merge.
edit small base adapter
cp -r base out
caught 'q_proj.weight: 30 elements are not W' judged merged base out - adapter
rm -rf out
cp -r base out
edit rename out/model.safetensors model.norm.weight model.norm.other
caught 'names in the order of the header' judged merged base out - adapter values=no
rm -rf out
cp -r base out
edit reverse out/model.safetensors
caught 'names in the order of the bytes' judged merged base out - adapter values=no
edit metadata out/model.safetensors a=b
caught 'metadata' judged merged base out - adapter values=no
rm -rf out
cp -r base out
edit poke out/model.safetensors model.norm.weight 0 1.5
caught 'model.norm.weight: no adapter touches it, and its bytes changed' judged merged base out - adapter values=no
rm -rf out
cp -r base out
echo >>out/config.json
caught 'bytes of config.json' judged merged base out - adapter values=no
cp base/config.json out
touch out/more
caught 'files of out' judged merged base out - adapter values=no
rm -rf out
cp -r base out
edit cast out/model.safetensors BF16 q_proj
caught 'q_proj.weight: type' judged merged base out - adapter values=no
printf '{"base": "%s", "x": 1}' "$work" >r
caught 'occurs in r' judged anonymous r "$work"
printf '{"time": %s}' "$(date +%s)" >r
caught 'a time in r' judged anonymous r nothing
