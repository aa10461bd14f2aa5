#!/usr/bin/python3
"""What the pages in docs/ cite must exist: tests, whole suites, QEMU cases, and the mutants of the table."""

import fnmatch
import os
import re
import sys

sys.dont_write_bytecode = True
_ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path[:0] = [os.path.join(_ROOT, "tests", "qemu"), os.path.join(_ROOT, "scripts", "lib")]
import test_matrix  # pylint: disable=wrong-import-position
from mutant_list import MUTANTS  # pylint: disable=wrong-import-position

# CamelCase, a dot, snake_case with at least one underscore: nothing else in the pages looks like it.
_TEST = re.compile(r"`([A-Z][A-Za-z0-9]*\.[a-z0-9]+_[a-z0-9_]+|[A-Z]\w*\.(?:header|configuration|"
                   r"commands|section_grammar|block_list|ram_records))`")
_SUITES = re.compile(r"\ball of ((?:`\w+`(?:, | and )?)+)")
# "the case `x`", "the cases `x` and `y`"; elsewhere a name with a version, or a pattern.
_AFTER_CASE = re.compile(r"\bcases? ((?:`[a-z][\w.*-]*`(?:, | and )?)+)")
_CASE = re.compile(r"`([a-z][a-z0-9.]*(?:-[a-z0-9.]+)*-(?:\*|7\.2|10))`")
_MUTANT_TABLE = "docs/simulation.md"


def tests():
    names = set()
    for folder, _, files in os.walk(os.path.join(_ROOT, "tests")):
        for name in files:
            if name.endswith(".cc"):
                with open(os.path.join(folder, name), encoding="utf-8") as file:
                    for suite, test in re.findall(r"^TEST(?:_F|_P)?\(\s*(\w+),\s*(\w+)", file.read(), re.M):
                        names.add("%s.%s" % (suite, test))
    return names


def is_case(cited, cases):
    """A case is cited by its name, by a pattern, or by its name without the QEMU's version."""
    return any(fnmatch.fnmatchcase(name, cited) or name in (cited + "-7.2", cited + "-10") for name in cases)


class Pages:
    """The lines of all pages, and what was found wrong with them."""

    def __init__(self):
        self.wrong = 0
        self.lines = []  # (page, number, text)
        for name in sorted(os.listdir(os.path.join(_ROOT, "docs"))):
            if name.endswith(".md"):
                with open(os.path.join(_ROOT, "docs", name), encoding="utf-8") as file:
                    self.lines += [("docs/" + name, number, line) for number, line in enumerate(file, 1)]

    def complain(self, place, what):
        print("%s: %s" % (place, what))
        self.wrong += 1

    def check(self, kind, find, exists):
        """Every name that `find` yields of a line must exist; returns how many there were."""
        cited = 0
        for page, number, line in self.lines:
            for name in find(line):
                cited += 1
                if not exists(name):
                    self.complain("%s:%d" % (page, number), "there is no %s %s" % (kind, name))
        return cited

    def mutant_rows(self):
        """{name: (line, file)} of the table of mutants."""
        rows, inside = {}, False
        for page, number, line in self.lines:
            cells = [cell.strip() for cell in line.strip().strip("|").split(" | ")]
            if page != _MUTANT_TABLE or not line.startswith("|"):
                inside = False
            elif cells[0] == "mutant":
                inside = True
            elif inside and not cells[0].startswith("---"):
                if cells[0] in rows:
                    self.complain("%s:%d" % (page, number), "a second row for the mutant " + cells[0])
                rows[cells[0]] = (number, cells[1].strip("`"))
        return rows

    def check_mutants(self):
        rows, mutants = self.mutant_rows(), {mutant.name: mutant.file for mutant in MUTANTS}
        if len(mutants) != len(MUTANTS):
            self.complain("scripts/lib/mutant_list.py", "two mutants have the same name")
        for name, (number, file) in rows.items():
            if name not in mutants:
                self.complain("%s:%d" % (_MUTANT_TABLE, number), "there is no mutant " + name)
            elif mutants[name] != file:
                self.complain("%s:%d" % (_MUTANT_TABLE, number), "that mutant is one of " + mutants[name])
        for name in mutants:
            if name not in rows:
                self.complain(_MUTANT_TABLE, "no row for the mutant " + name)
        return len(rows)


def in_backticks(lists):
    return [name for names in lists for name in re.findall(r"`([^`]+)`", names)]


def suites_of(line):
    return in_backticks(_SUITES.findall(line))


def cases_of(line):
    listed = in_backticks(_AFTER_CASE.findall(line))
    return listed + [name for name in _CASE.findall(line) if name not in listed]


def main():
    known, pages = tests(), Pages()
    suites = {name.split(".")[0] for name in known}
    cases = [case.name for case in test_matrix.every_case()]
    counts = [pages.check("test", _TEST.findall, known.__contains__),
              pages.check("suite", suites_of, suites.__contains__),
              pages.check("QEMU case", cases_of, lambda name: is_case(name, cases)),
              pages.check_mutants()]
    print("%d tests, %d suites, %d QEMU cases and %d mutants cited; %d wrong" % (*counts, pages.wrong))
    sys.exit(1 if pages.wrong or not all(counts) else 0)


if __name__ == "__main__":
    main()
