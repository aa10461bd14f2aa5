#!/usr/bin/python3
"""Builds and runs the libFuzzer programs; see scripts/fuzz."""

import argparse
import os
import re
import resource
import shutil
import subprocess
import sys
import tempfile
import time

import build_folder

ROOT = os.path.abspath(os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", ".."))
BUILD = os.path.join(ROOT, "build-fuzz")
SOURCES = os.path.join(ROOT, "tests", "fuzz")
KEPT = os.path.join(SOURCES, "corpus")
INPUT_BYTES_MAX = 65536
# What a target's corpus in the tree may have, smallest inputs first: it is run by every scripts/test.
KEPT_FILES_MAX, KEPT_BYTES_MAX = 200, 48 << 10


def targets():
    return sorted(name[:-len("_fuzz.cc")] for name in os.listdir(SOURCES) if name.endswith("_fuzz.cc"))


def program(kind, target):
    return os.path.join(BUILD, "tests", "fuzz", "%s_%s" % (kind, target))


def build(names):
    build_folder.set_up(BUILD, ROOT, ["-Dfuzz=true", "-Db_sanitize=address,undefined", "-Db_lundef=false", "-Dbench=false",
                                      "--buildtype=debug", "-Doptimization=1"], ("clang", "clang++"))
    build_folder.make(BUILD, [program(kind, name) for name in names for kind in ("fuzz", "seeds")]).check_returncode()


def files(folder):
    return os.listdir(folder) if os.path.isdir(folder) else []


def children_cpu_s():
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def fuzz(name, seconds):
    """Runs one target for so many seconds of CPU; returns (executions, edges, inputs of the corpus, findings)."""
    corpus, findings = os.path.join(BUILD, "corpus", name), os.path.join(BUILD, "findings", name)
    for folder in (corpus, findings):
        os.makedirs(folder, exist_ok=True)
    subprocess.run([program("seeds", name), "--write-seeds", corpus], check=True)
    known = set(files(findings))
    kept = os.path.join(KEPT, name)
    executions = edges = 0
    end = children_cpu_s() + seconds
    # libFuzzer ends by the clock; beside other work that is less of a CPU than was asked for.
    while (left := round(end - children_cpu_s())) > 0:
        process = subprocess.run(
            [program("fuzz", name), corpus, *([kept] if os.path.isdir(kept) else []), "-max_total_time=%d" % max(left, 5),
             "-max_len=%d" % INPUT_BYTES_MAX, "-timeout=20", "-rss_limit_mb=4096", "-print_final_stats=1", "-verbosity=1",
             "-artifact_prefix=" + findings + os.sep],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace", check=False,
            env=dict(os.environ, UBSAN_OPTIONS="halt_on_error=1:print_stacktrace=1"))
        counted = re.search(r"stat::number_of_executed_units:\s*(\d+)", process.stdout)
        executions += int(counted.group(1)) if counted else 0
        edges = max(edges, *map(int, re.findall(r"cov: (\d+)", process.stdout)), 0)
        new = sorted(set(files(findings)) - known)
        if process.returncode and not new:
            new = ["ended with status %d" % process.returncode]
        if new:
            print(process.stdout[-4000:])
            return executions, edges, len(files(corpus)), new
    return executions, edges, len(files(corpus)), []


def keep(name):
    """The smallest set of inputs that reaches what the corpus reaches goes into the tree."""
    kept = os.path.join(KEPT, name)
    with tempfile.TemporaryDirectory(prefix="migrx-corpus-") as folder:
        subprocess.run([program("fuzz", name), "-merge=1", "-max_len=%d" % INPUT_BYTES_MAX, folder,
                        os.path.join(BUILD, "corpus", name), *([kept] if os.path.isdir(kept) else [])], check=True, stderr=subprocess.DEVNULL)
        inputs = sorted(((os.path.getsize(os.path.join(folder, entry)), entry) for entry in os.listdir(folder)))
        shutil.rmtree(kept, ignore_errors=True)
        os.makedirs(kept)
        count = total = 0
        for size, entry in inputs[:KEPT_FILES_MAX]:
            total += size
            if total > KEPT_BYTES_MAX:
                break
            shutil.copy(os.path.join(folder, entry), kept)
            count += 1
    return count


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", metavar="TARGET")
    parser.add_argument("--minutes", type=float, default=1)
    parser.add_argument("--keep", action="store_true")
    parser.add_argument("--list", action="store_true")
    options = parser.parse_args()
    unknown = set(options.names) - set(targets())
    if unknown:
        sys.exit("fuzz: no target %s; there are: %s" % (" ".join(unknown), " ".join(targets())))
    names = options.names or targets()
    if options.list:
        print("\n".join(names))
        return
    build(names)
    findings = 0
    for name in names:
        begun = children_cpu_s()
        executions, edges, inputs, found = fuzz(name, round(options.minutes * 60))
        findings += len(found)
        remark = ", %d inputs kept" % keep(name) if options.keep and not found else ""
        print("%-16s %10d executions in %4d CPU s, %5d edges, %5d inputs, %d findings%s" % (
            name, executions, children_cpu_s() - begun, edges, inputs, len(found), remark), flush=True)
        for each in found:
            print("  " + os.path.join(BUILD, "findings", name, each))
    print("%d targets, %d findings (%s)" % (len(names), findings, time.strftime("%Y-%m-%d")))
    sys.exit(1 if findings else 0)


if __name__ == "__main__":
    main()
