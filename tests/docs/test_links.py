#!/usr/bin/python3
"""Checks that every relative link in the project's Markdown leads to a file, and that files named in it exist.

usage: tests/docs/test_links.py

Prints one line per finding; the exit status is 1 when there was one.
"""

import os
import re
import subprocess
import sys

ROOT = os.path.abspath(os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", ".."))
# A path of the project in backquotes; commands and files of a host are none.
NAMED = re.compile(r"`((?:docs|scripts|loader|dataplane|numa|tests|bench)/[\w./-]+)`")
LINK = re.compile(r"\]\((?!https?://|#)([^)#]+)(?:#[^)]*)?\)")


def findings(name, text):
    folder = os.path.dirname(os.path.join(ROOT, name))
    for number, line in enumerate(text.split("\n"), 1):
        for target in LINK.findall(line):
            if not os.path.exists(os.path.join(folder, target)):
                yield number, "link to %s leads nowhere" % target
        for target in NAMED.findall(line):
            path = os.path.join(ROOT, target)
            if not any(os.path.exists(path + ending) for ending in ("", ".h", ".cc", ".md")):
                yield number, "%s does not exist" % target


def main():
    names = subprocess.run(["git", "-C", ROOT, "ls-files", "--cached", "--others", "--exclude-standard", "*.md"],
                           capture_output=True, text=True, check=True).stdout.split("\n")
    found = 0
    for name in filter(None, names):
        with open(os.path.join(ROOT, name), encoding="utf-8") as file:
            for number, finding in findings(name, file.read()):
                print("%s:%d: %s" % (name, number, finding))
                found += 1
    print("%d passed, %d failed" % (int(not found), int(bool(found))))
    sys.exit(int(bool(found)))


if __name__ == "__main__":
    main()
