#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
#
# usage: FUZZ_SECONDS=N scripts/fuzz.sh BUILDDIR
#
# The fuzz suite under AddressSanitizer and UndefinedBehaviorSanitizer, for FUZZ_SECONDS (default
# 600) a target instead of the short run of `make test`.
set -eu
build=$1
cd "$(dirname "$0")/.."
seconds=${FUZZ_SECONDS:-600}

scripts/build.sh --quiet --tests "$build" -Db_sanitize=address,undefined -Db_lundef=false \
	-Dbuildtype=debugoptimized
echo "fuzzing for $seconds s a target"
FUZZ_SECONDS=$seconds UBSAN_OPTIONS=halt_on_error=1:print_stacktrace=1 \
	exec scripts/run_tests.py --build "$build" --suite fuzz --slow $((seconds / 30 + 2))
