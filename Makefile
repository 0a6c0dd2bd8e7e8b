# SPDX-License-Identifier: Apache-2.0
#
# A driver over Meson: every target makes sure first that what it needs is installed
# (scripts/setup.sh), so each works on a fresh system. `make help` lists them.

BUILD   ?= build
PREFIX  ?= /usr/local
DESTDIR ?=
ARGS    ?=

# Another meson may come first on PATH (a virtual environment, pyenv) and not run: take one that does.
MESON := $(shell for m in $(MESON) /usr/bin/meson meson; do \
	"$$m" --version >/dev/null 2>&1 && { echo "$$m"; break; }; done)
meson = $(or $(MESON),/usr/bin/meson)
SHELL := /bin/sh

.DEFAULT_GOAL := build
.PHONY: build demo test check asan tsan lint format fuzz bench wheel install uninstall clean help

help: ## this list
	@echo 'usage: make [TARGET] [BUILD=dir] [PREFIX=dir]'
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/  make \1|\2/p' $(firstword $(MAKEFILE_LIST)) | \
		while IFS='|' read -r target text; do printf '%-16s %s\n' "$$target" "$$text"; done

build: ## build the library and the smem command (the default)
	@scripts/setup.sh build
	@scripts/build.sh $(BUILD)

demo: ## set up, build, and pool the memory of four processes (ARGS='--ranks 8')
	@scripts/setup.sh build
	@scripts/build.sh --quiet $(BUILD)
	@$(BUILD)/tools/smem/smem demo $(ARGS)

test: ## set up, build, run every test; ends with a line of counts
	@scripts/setup.sh build test
	@scripts/build.sh --tests $(BUILD)
	@scripts/run_tests.py --build $(BUILD) $(ARGS)

check: test

asan: ## the C tests under AddressSanitizer and UndefinedBehaviorSanitizer
	@scripts/setup.sh build test
	@scripts/build.sh --tests $(BUILD)-asan -Db_sanitize=address,undefined -Db_lundef=false \
		-Dbuildtype=debugoptimized
	@ASAN_OPTIONS="detect_leaks=1:strict_string_checks=1:$$ASAN_OPTIONS" \
	LSAN_OPTIONS="suppressions=$(CURDIR)/tests/lsan.supp:print_suppressions=0:$$LSAN_OPTIONS" \
	UBSAN_OPTIONS="halt_on_error=1:print_stacktrace=1:$$UBSAN_OPTIONS" \
		scripts/run_tests.py --build $(BUILD)-asan --no-python --slow 3 --sanitizer $(ARGS)

tsan: ## the C tests under ThreadSanitizer
	@scripts/setup.sh build test
	@scripts/build.sh --tests $(BUILD)-tsan -Db_sanitize=thread -Dbuildtype=debugoptimized
	@TSAN_OPTIONS="halt_on_error=1:second_deadlock_stack=1:$$TSAN_OPTIONS" \
		scripts/run_tests.py --build $(BUILD)-tsan --no-python --slow 5 --sanitizer $(ARGS)

lint: ## clang-format, clang-tidy, cppcheck, and the laws of the tree
	@scripts/setup.sh build test lint
	@scripts/build.sh --quiet --tests $(BUILD)
	@scripts/lint.sh $(BUILD)

format: ## rewrite the C files as .clang-format says
	@scripts/setup.sh lint
	@git ls-files '*.c' '*.h' | xargs clang-format -i

fuzz: ## the fuzz targets for longer (FUZZ_SECONDS=600 each)
	@scripts/setup.sh build test
	@scripts/fuzz.sh $(BUILD)-fuzz

bench: ## smem perf of everything (between hosts: only as root)
	@scripts/setup.sh build
	@scripts/build.sh --quiet $(BUILD)
	@for what in bm shm trans store $$([ "$$(id -u)" -ne 0 ] || echo --hosts); do $(BUILD)/tools/smem/smem perf $$what $(ARGS) || exit 1; done

wheel: ## the Python wheels, in dist/ (VERSION=1.0.0)
	@scripts/setup.sh build test
	@scripts/wheel.sh

install: ## install below PREFIX (default /usr/local; DESTDIR is honoured)
	@scripts/setup.sh build
	@scripts/build.sh --quiet $(BUILD) --prefix=$(abspath $(PREFIX))
	@DESTDIR="$(DESTDIR)" "$(meson)" install -C $(BUILD) --no-rebuild
	@[ -n "$(DESTDIR)" ] || [ "$$(id -u)" -ne 0 ] || ldconfig 2>/dev/null || true

uninstall: ## remove what the last `make install` installed
	@ninja -C $(BUILD) uninstall

clean: ## remove the build folders
	@rm -rf $(BUILD) $(BUILD)-asan $(BUILD)-tsan $(BUILD)-fuzz dist
