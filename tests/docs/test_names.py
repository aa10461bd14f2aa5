#!/usr/bin/python3
"""Every `Suite.name` that a page in docs/ cites as a test must be a test."""

import os
import re
import sys

_ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


def tests():
    names = set()
    for folder, _, files in os.walk(os.path.join(_ROOT, "tests")):
        for name in files:
            if name.endswith(".cc"):
                with open(os.path.join(folder, name), encoding="utf-8") as file:
                    for suite, test in re.findall(r"^TEST(?:_F|_P)?\(\s*(\w+),\s*(\w+)", file.read(), re.M):
                        names.add("%s.%s" % (suite, test))
    return names


def main():
    known = tests()
    wrong = 0
    cited = 0
    for name in sorted(os.listdir(os.path.join(_ROOT, "docs"))):
        if not name.endswith(".md"):
            continue
        with open(os.path.join(_ROOT, "docs", name), encoding="utf-8") as file:
            for number, line in enumerate(file, 1):
                # CamelCase, a dot, snake_case with at least one underscore: nothing else in the pages looks like it.
                for test in re.findall(r"`([A-Z][A-Za-z0-9]*\.[a-z0-9]+_[a-z0-9_]+|[A-Z]\w*\.(?:header|configuration|"
                                       r"commands|section_grammar|block_list|ram_records))`", line):
                    cited += 1
                    if test not in known:
                        print("docs/%s:%d: there is no test %s" % (name, number, test))
                        wrong += 1
    print("%d tests cited, %d missing" % (cited, wrong))
    sys.exit(1 if wrong or not cited else 0)


if __name__ == "__main__":
    main()
