#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
#
# usage: scripts/setup.sh [build] [test] [lint]
#
# Makes sure that what the build (and the tests, and the linters) need is there. Asks the machine
# for each thing - a command that runs, a header that compiles, a module that imports - and not
# for package names, so that what was installed by other means counts too. Says nothing when all
# is there. On Debian and its relatives the missing packages are announced and installed with apt
# (through sudo when not root); elsewhere the list of what to install is printed and the script
# fails.
set -eu

want=${*:-build}
missing=''  # apt packages
things=''   # the same in words

have() { # also what is for administrators
	PATH="$PATH:/usr/sbin:/sbin" command -v "$1" >/dev/null 2>&1
}

# need PACKAGE WHAT TEST...: remembers PACKAGE unless TEST succeeds
need() {
	package=$1
	what=$2
	shift 2
	"$@" >/dev/null 2>&1 && return 0
	missing="$missing $package"
	things="$things
  $what (Debian: $package)"
}

compiles() { # compiles PKG-CONFIG-NAME HEADER...
	name=$1
	shift
	pkg-config --exists "$name" || return 1
	for header; do
		echo "#include <$header>"
	done | cc -x c -fsyntax-only $(pkg-config --cflags "$name") -
}

header() { # header PRELUDE HEADER
	printf '%s\n#include <%s>\n' "$1" "$2" | cc -x c -fsyntax-only -
}

cxx() {
	echo 'int main() { return 0; }' | c++ -x c++ -fsyntax-only -
}

modern_meson() {
	for meson in "${MESON:-}" /usr/bin/meson meson; do
		[ -n "$meson" ] || continue
		version=$("$meson" --version 2>/dev/null) || continue
		case $version in
		0.*) ;;
		*) return 0 ;;
		esac
	done
	return 1
}

any_ninja() {
	have ninja || have ninja-build || have samu
}

module() { # module NAME...: some Python that the tests may use imports all of them
	list=$(echo "$*" | tr ' ' ',')
	for python in /usr/bin/python3 python3; do
		have "$python" && "$python" -c "import $list" 2>/dev/null && return 0
	done
	return 1
}

pip_and_venv() {
	module ensurepip venv pip
}

python_headers() {
	for python in /usr/bin/python3 python3; do
		have "$python" || continue
		dir=$("$python" -c 'import sysconfig; print(sysconfig.get_paths()["include"])') || continue
		[ -f "$dir/Python.h" ] && return 0
	done
	return 1
}

for set in $want; do
	case $set in
	build)
		need build-essential 'a C11 compiler (gcc or clang) with the C library headers' \
			header '' stdio.h
		need pkg-config 'pkg-config' have pkg-config
		need python3 'Python 3.9 or newer' have python3
		need meson 'Meson 1.0 or newer' modern_meson
		need ninja-build 'Ninja' any_ninja
		need libevent-dev 'libevent 2.1, with OpenSSL support' \
			compiles libevent_openssl event2/event.h event2/bufferevent_ssl.h
		need libssl-dev 'OpenSSL 3' compiles openssl openssl/ssl.h openssl/evp.h
		need libfabric-dev 'libfabric 1.11 or newer' compiles libfabric rdma/fi_rma.h
		need uthash-dev 'uthash' header '' uthash.h
		;;
	test)
		need build-essential 'a C++ compiler' cxx
		need libcmocka-dev 'cmocka 1.1' compiles cmocka stdarg.h stddef.h stdint.h setjmp.h cmocka.h
		need openssl 'the openssl command' have openssl
		need iproute2 'ip and tc of iproute2' have ip
		need nftables 'nft' have nft
		need python3-pytest 'pytest' module pytest
		need python3-numpy 'NumPy' module numpy
		need python3-dev 'the headers of Python' python_headers
		need python3-setuptools 'setuptools' module setuptools
		need python3-wheel 'wheel, for setuptools' module wheel
		need python3-venv 'venv and ensurepip' pip_and_venv
		need python3-pip 'pip' module pip
		;;
	lint)
		need clang-format 'clang-format 14 or newer' have clang-format
		need clang-tidy 'clang-tidy' have clang-tidy
		need cppcheck 'cppcheck' have cppcheck
		;;
	*)
		echo "$0: unknown set '$set' (there are build, test, lint)" >&2
		exit 2
		;;
	esac
done

[ -n "$missing" ] || exit 0
missing=$(printf '%s\n' $missing | sort -u | tr '\n' ' ')

if ! have apt-get; then
	echo "These are missing here, please install them with this system's package manager:$things" >&2
	exit 1
fi

as_root=''
if [ "$(id -u)" -ne 0 ]; then
	if ! have sudo; then
		echo "Missing packages, and neither root nor sudo to install them. As root, run:" >&2
		echo "  apt-get install $missing" >&2
		exit 1
	fi
	as_root='sudo'
fi

echo "Installing with apt-get: $missing"
log=$(mktemp)
trap 'rm -f "$log"' EXIT INT TERM

install_missing() {
	$as_root env DEBIAN_FRONTEND="${DEBIAN_FRONTEND:-noninteractive}" \
		apt-get install -y --no-install-recommends $missing >"$log" 2>&1 </dev/null
}

# An image without package lists, or with lists that are too old, needs an update first; others
# are left as they are.
if ! install_missing; then
	echo "Reading the package lists anew (apt-get update)"
	if ! $as_root apt-get update >"$log" 2>&1; then
		cat "$log" >&2
		echo "apt-get update failed; without it these cannot be installed: $missing" >&2
		exit 1
	fi
	if ! install_missing; then
		cat "$log" >&2
		echo "apt-get install failed for: $missing" >&2
		exit 1
	fi
fi
echo "Installed."
