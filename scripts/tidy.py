#!/usr/bin/python3
"""Checks what the compiler does not: include direction, headers that compile alone, format, file length, tests for TSan.

usage: scripts/tidy.py [--clang-tidy BUILD_FOLDER] [--changed REVISION]

Prints one line per finding and a closing count; the exit status is 1 when there was one. --clang-tidy also runs
clang-tidy over the .cc files with the compile commands of that folder; --changed only over those that differ from
the revision.
"""

import argparse
import concurrent.futures
import os
import re
import subprocess
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
MAX_LINES = 800
SOURCE = (".h", ".cc")

# Who may include whom, by longest matching folder; a folder may always include itself.
MAY_INCLUDE = {
    "numa/": (),
    "dataplane/": ("numa/",),
    "loader/generate/": ("numa/", "dataplane/", "loader/tls/"),
    "loader/control/": ("numa/",),
    # Addresses are values: what a connection says of its peer, and how people read it.
    "loader/": ("numa/", "dataplane/handoff/", "dataplane/wire/address.h", "dataplane/wire/address_text.h"),
    "loader/app/": ("numa/", "dataplane/", "loader/"),
}
PROJECT_FOLDERS = ("numa/", "dataplane/", "loader/", "tests/", "bench/")
HEAVY_HEADERS = re.compile(r"#include [<\"](nlohmann(?!/json_fwd)|CLI|fmt|spdlog)/")
# DPDK and the metrics' HTTP server are not built for it.
NOT_FOR_TSAN = "dpdk/|loader/app/"
SPEAKS_JSON = "loader/control/"  # its requests and answers are JSON; few files include them


def files():
    """Tracked and new files, relative to the root."""
    command = ["git", "-C", ROOT, "ls-files", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    return [name for name in sorted(set(names)) if os.path.isfile(os.path.join(ROOT, name))]


def allowed_includes(name):
    """Folders that file `name` may include from, or None for files that may include anything."""
    for folder in sorted(MAY_INCLUDE, key=len, reverse=True):
        if name.startswith(folder):
            return (folder, *MAY_INCLUDE[folder])
    return None


def check_text(name, text):
    """Findings in one file's text."""
    lines = text.split("\n")
    if len(lines) - 1 > MAX_LINES:
        yield 1, "%d lines, at most %d" % (len(lines) - 1, MAX_LINES)
    if text and not text.endswith("\n"):
        yield len(lines), "no newline at the end"
    marker = re.compile(r"\b(TO" "DO|FIX" "ME|XX" r"X)\b")
    for number, line in enumerate(lines, 1):
        if line != line.rstrip():
            yield number, "trailing white space"
        if marker.search(line):
            yield number, "a note to oneself; finish it or say what is so"
    if name.endswith(".h") and "#pragma once" not in text:
        yield 1, "no #pragma once"


def check_includes(name, text, hwloc_files):
    """Findings about what a C++ file includes."""
    allowed = allowed_includes(name)
    for number, line in enumerate(text.split("\n"), 1):
        match = re.match(r"\s*#\s*include\s+[<\"]([^>\"]+)[>\"]", line)
        if not match:
            continue
        included = match.group(1)
        if allowed is not None and included.startswith(PROJECT_FOLDERS) and not included.startswith(allowed):
            yield number, "%s may not include %s (dependencies run numa <- dataplane <- loader)" % (name, included)
        if included.startswith("rte_") and not name.startswith(("dataplane/dpdk/", "tests/dpdk/", "bench/")):
            yield number, "rte_* headers belong in dataplane/dpdk/"
        if re.match(r"hwloc(\.h|/)", included) and name.startswith(("numa/", "dataplane/", "loader/")):
            hwloc_files.add(name)
        heavy = HEAVY_HEADERS.match(line)
        if heavy and heavy.group(1) == "nlohmann" and name.startswith(SPEAKS_JSON):
            continue
        if name.endswith(".h") and not name.startswith(("tests/", "bench/")) and heavy:
            yield number, "%s is slow to compile: keep it in .cc files" % included


def flags():
    """Compiler flags for checking a header by itself."""
    packages = subprocess.run(["pkg-config", "--cflags", "libdpdk", "hwloc", "libisal", "libzstd", "zlib"],
                              capture_output=True, text=True, check=False).stdout.split()
    return ["-std=c++20", "-fsyntax-only", "-I" + ROOT, "-Wall", "-Wextra", *packages]


def first_include(name):
    """What a source includes first, or None."""
    with open(os.path.join(ROOT, name), encoding="utf-8") as file:
        match = re.search(r"^#include [<\"]([^>\"]+)", file.read(), re.MULTILINE)
    return match.group(1) if match else None


def headers_to_compile(cpp):
    """Headers that no source includes before anything else: the build shows that the others compile alone."""
    shown = {first_include(name) for name in cpp if name.endswith(".cc")}
    return [name for name in cpp if name.endswith(".h") and name not in shown]


def header_alone(name, options):
    """The compiler's first complaint about a header included by nothing else, or None."""
    result = subprocess.run(["g++", *options, "-x", "c++", "-"], input='#include "%s"\n' % name, text=True,
                            capture_output=True, cwd=ROOT, check=False)
    return None if result.returncode == 0 else result.stderr.strip().splitlines()[0]


def unlisted_threads(names):
    """Tests with threads of their own that tests/meson.build does not give to TSan."""
    with open(os.path.join(ROOT, "tests", "meson.build"), encoding="utf-8") as file:
        listed = set(re.findall(r"'([\w/]+_test\.cc)'", file.read()))
    for name in names:
        if not re.fullmatch(r"tests/(?!%s).*_test\.cc" % NOT_FOR_TSAN, name) or name[len("tests/"):] in listed:
            continue
        with open(os.path.join(ROOT, name), encoding="utf-8") as file:
            if re.search(r"\bstd::(thread|jthread|async)\b|\bAgentThread\b", file.read()):
                yield name


def clang_tidy(name, build):
    result = subprocess.run(["clang-tidy", "-quiet", "-p", build, name], capture_output=True, text=True, cwd=ROOT,
                            check=False)
    lines = [line for line in result.stdout.splitlines() if ": error:" in line or ": warning:" in line]
    # Paths as seen from the build folder or absolute: made relative, so that a header's finding is told once.
    return [re.sub(r"^.*?((numa|dataplane|loader)/)", r"\1", line) for line in lines]


def changed_since(revision):
    command = ["git", "-C", ROOT, "diff", "--name-only", revision]
    return set(subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines())


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clang-tidy", metavar="BUILD_FOLDER")
    parser.add_argument("--changed", metavar="REVISION")
    options = parser.parse_args()
    findings, found, hwloc_files = [], {}, set()
    names = files()
    cpp = [name for name in names if name.endswith(SOURCE)]
    for name in names:
        if not name.endswith((*SOURCE, ".py", ".S", ".build", ".md")) and not name.startswith("scripts/"):
            continue
        with open(os.path.join(ROOT, name), encoding="utf-8") as file:
            text = file.read()
        findings += [(name, *finding) for finding in check_text(name, text)]
        if name in cpp:
            findings += [(name, *finding) for finding in check_includes(name, text, hwloc_files)]
    if len(hwloc_files) > 1:
        findings.append((sorted(hwloc_files)[1], 1, "hwloc headers belong in one file, not in %d" % len(hwloc_files)))
    formatted = subprocess.run(["clang-format", "--dry-run", "-Werror", *cpp], capture_output=True, text=True,
                               cwd=ROOT, check=False)
    for line in sorted({line.split(":")[0] for line in formatted.stderr.splitlines() if ": error:" in line}):
        findings.append((line, 1, "not formatted: clang-format -i " + line))
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        headers, compiler = headers_to_compile(cpp), flags()
        for name, complaint in zip(headers, pool.map(lambda name: header_alone(name, compiler), headers)):
            if complaint:
                findings.append((name, 1, "does not compile alone: " + complaint))
        if options.clang_tidy:
            sources = [name for name in cpp if name.endswith(".cc") and not name.startswith(("tests/", "bench/"))]
            if options.changed:
                sources = [name for name in sources if name in changed_since(options.changed)]
            for name, lines in zip(sources, pool.map(lambda name: clang_tidy(name, options.clang_tidy), sources)):
                found.update(dict.fromkeys(lines))
    findings += [(name, 1, "has threads and is missing in threaded_tests of tests/meson.build")
                 for name in unlisted_threads(names)]
    for name, line, text in findings:
        print("%s:%d: %s" % (name, line, text))
    for line in found:
        print(line)
    print("tidy: %d files, %d findings" % (len(names), len(findings) + len(found)))
    sys.exit(1 if findings or found else 0)


if __name__ == "__main__":
    main()
