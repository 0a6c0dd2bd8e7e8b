#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The laws of the tree, as TAP: who may include whom, what no file may contain, how long files and functions may be."""

import os
import re
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))

# A folder of src/ may include its own headers and those of the folders named here.
LAYERS = {
    "api": {"core", "util"},
    "core": {"transport", "device", "store", "util"},
    "transport": {"device", "util"},
    "device": {"util"},
    "store": {"util"},
    "util": set(),
}
PUBLIC = set(os.listdir(os.path.join(ROOT, "include")))
# These see the library as a user does.
USERS = ("tools", "examples", "python")
# But for one file: no public function asks the processes at a store what they have, and none is to be added for a tool.
# So this file is linked with the store's client itself; what it learns goes on as plain numbers and texts.
ASKING = {os.path.join("tools", "smem", "info_survey.c"):
          {"core/survey_rows.h", "store/survey.h", "util/err.h", "util/log.h"}}

INCLUDE = re.compile(r'^\s*#\s*include\s+"([^"]+)"')
SLEEP = re.compile(r"\b(?:sleep|usleep|nanosleep|clock_nanosleep|time\.sleep|asyncio\.sleep|Sleep)\s*\(")
ENDING = re.compile(r"\b(?:abort|exit|_exit|_Exit|quick_exit|assert)\s*\(")

FILE_LINES = 600
FUNCTION_LINES = 80
LINE_COLUMNS = 100


def files(folder, endings):
    for path, folders, names in os.walk(os.path.join(ROOT, folder)):
        folders[:] = [f for f in folders if not f.startswith((".", "build")) and f != "__pycache__"]
        for name in sorted(names):
            if name.endswith(endings):
                yield os.path.join(path, name)


def short(path):
    return os.path.relpath(path, ROOT)


def lines_of(path):
    with open(path, encoding="utf-8") as text:
        return text.read().split("\n")


def without_comments(text):
    """The same lines, with comments and the insides of literals blanked."""
    pattern = re.compile(r'//[^\n]*|/\*.*?\*/|"(?:\\.|[^"\\\n])*"|\'(?:\\.|[^\'\\\n])*\'', re.DOTALL)
    return pattern.sub(lambda m: re.sub(r"[^\n]", " ", m.group(0)), text)


def code_of(path):
    with open(path, encoding="utf-8") as text:
        return without_comments(text.read()).split("\n")


def layers():
    for layer, allowed in LAYERS.items():
        for path in files(os.path.join("src", layer), (".c", ".h")):
            for number, line in enumerate(lines_of(path), 1):
                match = INCLUDE.match(line)
                if not match:
                    continue
                target = match.group(1)
                folder = target.split("/")[0] if "/" in target else None
                if folder is None and target in PUBLIC:
                    continue
                if folder is None:
                    yield "%s:%d: includes \"%s\" without its folder" % (short(path), number, target)
                elif folder != layer and folder not in allowed:
                    yield "%s:%d: %s may not include %s" % (short(path), number, layer, target)


def users():
    for folder in USERS:
        for path in files(folder, (".c", ".h", ".cc", ".cpp", ".hpp")):
            for number, line in enumerate(lines_of(path), 1):
                match = INCLUDE.match(line)
                if not match or match.group(1) in PUBLIC | ASKING.get(short(path), set()):
                    continue
                if not os.path.exists(os.path.join(os.path.dirname(path), match.group(1))) and not \
                        match.group(1).startswith("gen_"):
                    yield "%s:%d: %s is no public header" % (short(path), number, match.group(1))


def sleeps():
    for folder in ("src", "tools", "examples", "tests"):
        for path in files(folder, (".c", ".h")):
            for number, line in enumerate(code_of(path), 1):
                if SLEEP.search(line):
                    yield "%s:%d: sleeps: %s" % (short(path), number, line.strip())
    for folder in ("python", "tests", "examples", "scripts"):
        for path in files(folder, (".py",)):
            if os.path.samefile(path, os.path.abspath(__file__)):
                continue
            for number, line in enumerate(lines_of(path), 1):
                if re.search(r"\btime\.sleep\s*\(", line.split("#")[0]):
                    yield "%s:%d: sleeps: %s" % (short(path), number, line.strip())


def endings():
    for path in files("src", (".c", ".h")):
        for number, line in enumerate(code_of(path), 1):
            if ENDING.search(line) and "_Static_assert" not in line:
                yield "%s:%d: a library ends nobody's process: %s" % (short(path), number, line.strip())


def licences():
    for folder in ("src", "include", "tools", "examples", "tests", "python", "scripts"):
        for path in files(folder, (".c", ".h", ".py", ".sh")):
            text = "\n".join(lines_of(path)[:3])
            if text.strip() and "SPDX-License-Identifier: Apache-2.0" not in text:
                yield "%s: no SPDX line" % short(path)


def file_sizes():
    for folder in ("src", "include", "tools", "examples", "tests"):
        for path in files(folder, (".c", ".h")):
            lines = lines_of(path)
            if len(lines) - 1 > FILE_LINES:
                yield "%s: %d lines, the law is %d" % (short(path), len(lines) - 1, FILE_LINES)
            for number, line in enumerate(lines, 1):
                if len(line.expandtabs(8)) > LINE_COLUMNS:
                    yield "%s:%d: %d columns" % (short(path), number, len(line.expandtabs(8)))


def function_sizes():
    for folder in ("src", "tools", "examples"):
        for path in files(folder, (".c",)):
            start = None
            lines = code_of(path)
            for number, line in enumerate(lines, 1):
                if line.startswith("{"):
                    start = number
                elif line.startswith("}") and start:
                    if number - start - 1 > FUNCTION_LINES:
                        yield "%s:%d: a function of %d lines, the law is %d" % (
                            short(path), start, number - start - 1, FUNCTION_LINES)
                    start = None


LAWS = (
    ("who may include whom in src", layers),
    ("tools, examples and python include public headers only, but for one file", users),
    ("nothing sleeps to wait for an event", sleeps),
    ("the library never ends the process", endings),
    ("every file names its licence", licences),
    ("files and lines are short enough", file_sizes),
    ("functions are short enough", function_sizes),
)


def main():
    bad = 0
    print("1..%d" % len(LAWS))
    for number, (name, law) in enumerate(LAWS, 1):
        found = list(law())
        bad += bool(found)
        print("%sok %d - %s" % ("not " if found else "", number, name))
        for line in found:
            print("# " + line)
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
