#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
#
# usage: scripts/lint.sh BUILDDIR
#
# Everything that can be said about the code without running it. Goes on after a finding, so that
# one run tells all; fails if there was any.
set -u
build=$1
cd "$(dirname "$0")/.." || exit 1
bad=0

step() {
	echo "== $1"
	shift
	"$@" || {
		bad=$((bad + 1))
		echo "== findings above"
	}
}

formatted() {
	git ls-files '*.c' '*.h' | xargs clang-format --dry-run -Werror
}

tidy() {
	# The options of gcc that clang does not know are no finding; the headers are looked at through their users.
	git ls-files 'src/*.c' 'tools/*.c' 'examples/*.c' | while read -r file; do
		grep -q "\"file\": \".*$file\"" "$build/compile_commands.json" && echo "$file"
	done | xargs -P 2 -n 8 clang-tidy -p "$build" --quiet \
		--extra-arg=-Wno-unknown-warning-option --extra-arg=-Wno-ignored-optimization-argument \
		--extra-arg=-Wno-format-nonliteral --warnings-as-errors='*' 2>"$log"
	status=$?
	grep -v 'warnings generated' "$log"
	return $status
}

# What is suppressed are its misunderstandings of mmap and of list macros; leaks are for clang-tidy and the sanitizers.
cppchecked() {
	cppcheck --quiet --std=c11 --language=c --enable=warning,portability --inline-suppr -j 2 \
		--suppress=missingIncludeSystem --suppress=unknownMacro --suppress=invalidFunctionArg \
		--suppress=leakReturnValNotUsed --suppress=memleak --suppress=uninitvar \
		--suppress=internalAstError --suppress=readdirCalled --suppress=arrayIndexThenCheck \
		--error-exitcode=1 --library=posix -D_GNU_SOURCE -D__x86_64__ -D__GNUC__=12 -D__linux__ \
		-I include -I src src tools examples
}

shell_scripts() {
	for script in scripts/*.sh tests/*.sh .ci/run; do
		[ -f "$script" ] || continue
		case $(head -n 1 "$script") in
		*bash*) bash -n "$script" || return 1 ;;
		*) sh -n "$script" || return 1 ;;
		esac
	done
}

log=$(mktemp)
trap 'rm -f "$log"' EXIT INT TERM

step 'clang-format' formatted
step 'the laws of the tree' scripts/check_layers.py
step 'exported symbols' scripts/check_symbols.py "$build/libmf_smem.so"
step 'public headers' scripts/check_headers.py "${CC:-cc}"
step 'documentation' scripts/check_docs.py "$build" "${CC:-cc}"
step 'shell scripts' shell_scripts
step 'cppcheck' cppchecked
step 'clang-tidy' tidy

[ "$bad" -eq 0 ] && echo "lint: no findings" && exit 0
echo "lint: findings in $bad of 8 steps"
exit 1
