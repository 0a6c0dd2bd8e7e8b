#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
#
# usage: scripts/wheel.sh [DIST]
#
# The wheels mf_smem and mf_adapter and the source distribution of mf_smem into DIST (default dist/).
# VERSION names their version (default 1.0.0), PYTHON the interpreter to build with; otherwise the
# first of the system's and the one on PATH that is CPython 3.11 or later with headers. Its
# setuptools are used when it has them, else pip fetches some.
set -eu

cd "$(dirname "$0")/.."
dist=${1:-dist}

usable() {
	"$1" - 2>/dev/null <<-'END'
		import os, sys, sysconfig
		header = os.path.join(sysconfig.get_paths()["include"], "Python.h")
		import pip
		sys.exit(sys.version_info < (3, 11) or sys.implementation.name != "cpython" or not os.path.exists(header))
	END
}

for python in ${PYTHON:+"$PYTHON"} /usr/bin/python3 python3; do
	usable "$python" && break
	python=''
done
[ -n "$python" ] || {
	echo 'no CPython 3.11 or later with its headers and pip: install python3-dev and python3-pip, or set PYTHON' >&2
	exit 1
}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT INT TERM
mkdir -p "$dist"
if ! "$python" -c 'import setuptools, wheel; assert int(setuptools.__version__.split(".")[0]) >= 64' 2>/dev/null; then
	"$python" -m pip --disable-pip-version-check install --quiet --target "$work/.tools" setuptools wheel packaging
	PYTHONPATH=$work/.tools${PYTHONPATH:+:$PYTHONPATH}
	export PYTHONPATH
fi
# A copy of the tree, so that nothing of an earlier build gets in and nothing is left in it.
for name in LICENSE README.md Makefile MANIFEST.in meson.build meson_options.txt pyproject.toml setup.py include src \
	tools examples python; do
	cp -a "$name" "$work/"
done
find "$work" \( -name '*.so' -o -name __pycache__ -o -name '*.egg-info' -o -name .libs \) -prune -exec rm -rf {} +

rm -f "$dist"/mf_smem-*.whl "$dist"/mf_adapter-*.whl "$dist"/mf_smem-*.tar.gz
for project in "$work" "$work/python/mf_adapter"; do
	"$python" -m pip --disable-pip-version-check wheel --quiet --no-deps --no-index --no-build-isolation \
		--wheel-dir "$dist" "$project"
done
(cd "$work" && rm -rf build && "$python" setup.py --quiet sdist --dist-dir "$work/sdist" >/dev/null 2>&1) || {
	echo 'the source distribution failed' >&2
	exit 1
}
cp "$work"/sdist/*.tar.gz "$dist/"
ls "$dist"/mf_smem-*.whl "$dist"/mf_adapter-*.whl "$dist"/mf_smem-*.tar.gz
