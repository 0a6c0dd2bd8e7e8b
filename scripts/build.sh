#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
#
# usage: scripts/build.sh [--quiet] [--tests] BUILDDIR [MESON OPTION...]
#
# Configures BUILDDIR when it is new, or anew when an option differs from what it has, and builds
# it. --tests builds the tests too; a folder that has them keeps them.
set -eu

quiet=''
tests=false
while :; do
	case ${1:-} in
	--quiet) quiet=yes ;;
	--tests) tests=true ;;
	*) break ;;
	esac
	shift
done
build=$1
shift

for meson in "${MESON:-}" /usr/bin/meson meson; do
	[ -n "$meson" ] && "$meson" --version >/dev/null 2>&1 && break
done

log=$(mktemp)
trap 'rm -f "$log"' EXIT INT TERM

run() {
	if [ -n "$quiet" ]; then
		"$@" >"$log" 2>&1 || {
			cat "$log" >&2
			exit 1
		}
	else
		"$@"
	fi
}

# The options this folder was configured with last; configuring again for nothing costs seconds.
options=$build/meson-private/options.txt
fresh=''
[ -f "$build/build.ninja" ] || fresh=yes
[ "$tests" = false ] && [ -z "$fresh" ] || set -- "-Dtests=$tests" "$@"

if [ -n "$fresh" ]; then
	[ -z "$quiet" ] || echo "Building in $build"
	rm -rf "$build"
	run "$meson" setup "$build" "$@"
	echo "$*" >"$options"
elif [ $# -gt 0 ] && [ "$(cat "$options" 2>/dev/null)" != "$*" ]; then
	run "$meson" configure "$build" "$@"
	echo "$*" >"$options"
fi
ninja=$(command -v ninja || command -v ninja-build || command -v samu)
run "$ninja" -C "$build"
