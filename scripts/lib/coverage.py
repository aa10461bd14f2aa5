#!/usr/bin/python3
"""Line coverage of the files that read bytes from strangers; see scripts/coverage."""

import argparse
import collections
import fnmatch
import json
import os
import subprocess
import sys
import tempfile

import build_folder

ROOT = os.path.abspath(os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", ".."))
BUILD = os.path.join(ROOT, "build-coverage")
LEAST = 95.0
PARSERS = ("dataplane/wire/*", "dataplane/tcp/*", "loader/stream/*", "loader/main/*", "loader/multifd/*",
           "loader/snapshot/*", "loader/ram/xbzrle.cc", "loader/ram/inflate_page.*", "loader/destination/stream_rewriter.*",
           "loader/destination/tail_detector.*", "loader/destination/qmp*", "loader/colo/*", "loader/control/control_*",
           "dataplane/reset_mode.*")
# These have programs of their own or need hardware; what they run is not the parsers.
NOT_RUN = ("dpdk", "docs", "sim", "bench")
SIMULATED_SEEDS = 150


def run(command, **keywords):
    return subprocess.run(command, check=True, **keywords)


def build():
    build_folder.set_up(BUILD, ROOT, ["-Db_coverage=true", "-Dbench=false", "--buildtype=debug"])
    programs = [program for name, program in build_folder.tests(BUILD).items()
                if name not in NOT_RUN and program.startswith(BUILD)]
    programs.append(os.path.join(BUILD, "tests", "sim", "simulate"))
    build_folder.make(BUILD, programs).check_returncode()
    return programs


def forget_counts():
    for folder, _folders, names in os.walk(BUILD):
        for name in names:
            if name.endswith(".gcda"):
                os.unlink(os.path.join(folder, name))


def run_programs(programs):
    for program in programs:
        name = os.path.basename(program)
        arguments = []
        if name == "simulate":
            arguments = ["--seeds", str(SIMULATED_SEEDS)]
        elif name.startswith("test_"):
            arguments = ["--gtest_brief=1"]
        elif name.startswith("seeds_"):
            arguments = ["--corpus", os.path.join(ROOT, "tests", "fuzz", "corpus", name[len("seeds_"):])]
        if subprocess.run([program, *arguments], stdout=subprocess.DEVNULL, check=False, cwd=BUILD).returncode:
            sys.exit("coverage: %s fails; run it by itself" % os.path.relpath(program, ROOT))


def read_counts():
    """{file: {line: times}} over all programs."""
    counts = collections.defaultdict(lambda: collections.defaultdict(int))
    # By what was compiled, not by what was run: a file that no program reaches counts as well.
    data = [os.path.join(folder, name) for folder, _folders, names in os.walk(BUILD) for name in names
            if name.endswith(".gcno")]
    with tempfile.TemporaryDirectory(prefix="migrx-gcov-") as scratch:
        for path in data:
            # Inline functions of headers are counted by each program that has them.
            text = run(["gcov", "--json-format", "--stdout", path], cwd=scratch, capture_output=True, text=True).stdout
            for line in text.splitlines():
                for file in json.loads(line)["files"]:
                    name = os.path.relpath(os.path.normpath(os.path.join(BUILD, file["file"])), ROOT)
                    if name.startswith(("..", "tests", "bench", "build")):
                        continue
                    for entry in file["lines"]:
                        counts[name][entry["line_number"]] += entry["count"]
    return counts


def ranges(numbers):
    """5-7 9 of 5, 6, 7, 9."""
    out = []
    for number in sorted(numbers):
        if out and out[-1][1] == number - 1:
            out[-1][1] = number
        else:
            out.append([number, number])
    return " ".join("%d" % a if a == b else "%d-%d" % (a, b) for a, b in out)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--missing", action="store_true")
    parser.add_argument("--all", action="store_true")
    options = parser.parse_args()
    programs = build()
    forget_counts()
    run_programs(programs)
    counts = read_counts()
    total = reached = 0
    under = []
    for name in sorted(counts):
        is_parser = any(fnmatch.fnmatch(name, pattern) for pattern in PARSERS)
        if not is_parser and not options.all:
            continue
        lines = counts[name]
        hit = sum(1 for times in lines.values() if times)
        share = 100 * hit / len(lines)
        if is_parser:
            total, reached = total + len(lines), reached + hit
            if share < LEAST:
                under.append(name)
        print("%6.1f %%  %4d of %4d  %s%s" % (share, hit, len(lines), name, "" if is_parser else "  (no parser)"))
        if options.missing and hit < len(lines):
            print("          not reached: " + ranges(number for number, times in lines.items() if not times))
    print("parsers: %d of %d lines, %.1f %%; by themselves under %g %%: %s" % (
        reached, total, 100 * reached / total, LEAST, " ".join(under) or "none"))
    sys.exit(1 if 100 * reached / total < LEAST else 0)


if __name__ == "__main__":
    main()
