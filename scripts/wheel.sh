#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
#
# usage: VERSION=1.0.0 scripts/wheel.sh
#
# Builds the two wheels into dist/ with the system's setuptools: no index is asked for anything.
set -eu
cd "$(dirname "$0")/.."

for python in "${PYTHON:-}" /usr/bin/python3 python3; do
	[ -n "$python" ] && "$python" -c 'import setuptools, wheel, pip' 2>/dev/null && break
done

rm -rf dist
"$python" -m pip wheel --quiet --disable-pip-version-check --no-build-isolation --no-deps \
	--no-index --wheel-dir dist . ./python/mf_adapter
ls -1 dist/*.whl
