#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""usage: knobs.py > gen_tables.h

Reads the one table of environment variables (src/util/env.h) and the one table of limits (src/util/limits.h) and
writes them as a header for `smem info`, which includes public headers only.
"""

import collections
import os
import re
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
Knob = collections.namedtuple("Knob", "name kind default low high help")
Limit = collections.namedtuple("Limit", "name value reason")

ROW = re.compile(r'X\(\s*ENV_\w+\s*,\s*"(\w+)"\s*,\s*(STR|INT)\s*,\s*"([^"]*)"\s*,\s*([^,]+?)\s*,\s*([^,]+?)\s*,\s*'
                 r'((?:"(?:\\.|[^"\\])*"\s*)+)\)')
DEFINE = re.compile(r"^#define\s+([A-Z]\w+)[ \t]+(\S[^\n]*?)[ \t]*/\*(.*?)\*/", re.DOTALL | re.MULTILINE)


def source(name):
    with open(os.path.join(ROOT, "src", "util", name), encoding="utf-8") as text:
        return text.read().replace("\\\n", " ")


def number(text):
    """The value of a C constant expression made of integers, << and *."""
    text = re.sub(r"(?<=[0-9a-fA-F])[uUlL]+\b", "", text)
    if not re.fullmatch(r"[0-9a-fA-FxX\s()<*+-]+", text):
        raise ValueError("no constant: " + text)
    return eval(text, {"__builtins__": {}})


def table():
    rows = []
    for name, kind, default, low, high, words in ROW.findall(source("env.h")):
        words = "".join(re.findall(r'"((?:\\.|[^"\\])*)"', words))
        rows.append(Knob(name, kind, default, number(low), number(high), words))
    if len(rows) != len(re.findall(r"\bX\(ENV_", source("env.h"))):
        raise SystemExit("knobs.py does not understand a row of src/util/env.h")
    return rows


def limits():
    found = []
    for name, value, reason in DEFINE.findall(source("limits.h")):
        try:
            found.append(Limit(name, number(value), " ".join(reason.split())))
        except (ValueError, SyntaxError):
            continue
    return found


def main():
    print("/* Made by scripts/knobs.py from src/util/env.h and src/util/limits.h. */")
    print("#define KNOBS(X) \\")
    print(" \\\n".join('\tX("%s", "%s", %d, "%s")' % (k.name, k.default, k.kind == "INT", k.help) for k in table()))
    print("\n#define LIMITS(X) \\")
    print(" \\\n".join('\tX("%s", %d, "%s")' % (l.name, l.value, l.reason.replace('"', "'")) for l in limits()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
