#!/usr/bin/python3
"""Runs the stages of scripts/test and adds up their counts."""

import argparse
import contextlib
import dataclasses
import functools
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree

import build_folder

ROOT = os.path.abspath(os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", ".."))
# A handful of migrations that together touch every large part: main channel, multifd, compression, patches.
QUICK_CASES = ("precopy-10", "multifd-4-dirty-7.2", "multifd-zlib-dirty-10", "xbzrle-10", "sigterm-10")
QUICK_CAPTURES = ("xbzrle-7.2", "compress-7.2", "multifd-zlib-dirty-10", "precopy-rp-dirty-newest", "multifd-none-dirty-newest")
# The tests that run threads of their own (tests/meson.build).
THREADED = ("threads",)
# What runs under ASan and UBSan, and by default there alone: everything that reads bytes from strangers, their fuzz
# targets' seeds, corpora and mutations of both among them, and the simulation with fewer seeds; but for what links DPDK,
# which manages its memory itself.
FUZZ_TARGETS = tuple(sorted(name[:-len("_fuzz.cc")] for name in os.listdir(os.path.join(ROOT, "tests", "fuzz"))
                            if name.endswith("_fuzz.cc")))
HOSTILE = ("handoff", "loader_main", "loader/multifd", "loader/ram", "loader-session", "loader-destination", "loader-forward",
           "loader-control", "loader-snapshot", "loader-tls", "loader_colo", "loader/stream", "wire", "tcp", "dataplane",
           "numa", "sim", *("seeds of " + name for name in FUZZ_TARGETS))
# Lines for backtraces and no more: a third of the time a compiler takes goes into what only a debugger reads. A warning
# fails the build, as it should before anything is merged; builds by hand, with whatever compiler, only show it.
STRICT = ("-Dcpp_args=-g1", "-Dwerror=true")
# Eight files at a time and more: headers are read once, in half of the time. With --all every file is compiled by itself,
# so that none of them leans on what another one includes.
GROUPED = ("-Dunity=on", "-Dunity_size=8", "-Dquick_build=true")
UNGROUPED = ("-Dunity=off", "-Dquick_build=false")
# -O1 finds as much as -O2 does and builds in much less time.
SANITIZED = (*STRICT, "-Db_lundef=false", "-Dbench=false", "--buildtype=debug", "-Doptimization=1")


@dataclasses.dataclass
class Counts:
    """Tests of one stage, and what to say about those that did not pass."""

    passed: int = 0
    failed: int = 0
    skipped: int = 0
    remarks: list = dataclasses.field(default_factory=list)
    built_s: float = 0  # how much of the stage's time its build took

    def add(self, other):
        self.passed += other.passed
        self.failed += other.failed
        self.skipped += other.skipped


def run(command, **keywords):
    """Runs a command in the project's root; returns its exit status. Its output is the test's output."""
    return subprocess.run(command, cwd=ROOT, check=False, **keywords).returncode


def tidy(arguments):
    status = run([os.path.join(ROOT, "scripts", "tidy.py"), *arguments])
    return Counts(passed=int(status == 0), failed=int(status != 0))


def set_up(folder, options, compiler=("gcc", "g++")):
    """Configures `folder` when new; its path, None when that fails."""
    path = os.path.join(ROOT, folder)
    try:
        build_folder.set_up(path, ROOT, options, compiler)
    except subprocess.CalledProcessError:
        return None
    return path


def build_sanitized(folder, options, compilers, tests):
    """Builds these tests by (C compiler, C++ compiler); False when that fails."""
    path = set_up(folder, options, compilers)
    if path is None:
        return False
    programs = [program for name, program in build_folder.tests(path).items() if name in tests]
    return build_folder.make(path, programs).returncode == 0


def build_but_for(folder, options, left_out):
    """Builds all but these tests; the names of the tests that there are then, None when that fails."""
    path = set_up(folder, options)
    if path is None:
        return None
    tests = {name: program for name, program in build_folder.tests(path).items() if name not in left_out}
    beside_tests = os.path.join(path, "tests", "")
    programs = [program for program in build_folder.executables(path)
                if program in tests.values() or not program.startswith(beside_tests)] if left_out else ()
    return tuple(tests) if build_folder.make(path, programs).returncode == 0 else None


def read_junit(path):
    """Counts of the unit tests in a JUnit file of meson's."""
    counts = Counts()
    for case in xml.etree.ElementTree.parse(path).getroot().iter("testcase"):
        name = "%s.%s" % (case.get("classname"), case.get("name"))
        failure = next((case.find(kind) for kind in ("failure", "error") if case.find(kind) is not None), None)
        skip = case.find("skipped")
        if failure is not None:
            counts.failed += 1
            counts.remarks.append("FAILED  %s: %s" % (name, (failure.get("message") or failure.text or "").strip()))
        elif skip is not None:
            counts.skipped += 1
            reason = (skip.get("message") or skip.text or "").strip().splitlines()
            counts.remarks.append("skipped %s: %s" % (name, reason[-1] if reason else "no reason given"))
        else:
            counts.passed += 1
    return counts


def unit_tests(folder, tests, environment=None, wrapper=None):
    """Runs these tests of a built folder."""
    path = os.path.join(ROOT, folder)
    # meson adds the wrapper's name to that of the log.
    logs = "testlog-%s" % wrapper.split()[0] if wrapper else "testlog"
    junit = os.path.join(path, "meson-logs", logs + ".junit.xml")
    if os.path.exists(junit):
        os.unlink(junit)
    command = ["meson", "test", "-C", path, "--no-rebuild", "--print-errorlogs", "--timeout-multiplier", "6"]
    if wrapper:
        command += ["--wrapper", wrapper]
    status = run([*command, *tests], env=dict(os.environ, **(environment or {})))
    if not os.path.exists(junit):
        return Counts(failed=1, remarks=["meson test left no results in " + junit])
    counts = read_junit(junit)
    if status and not counts.failed:  # A program that ends without saying so: a crash, a sanitizer's report.
        counts.failed += 1
        counts.remarks.append("FAILED  a test program of %s ended with an error; see %s" % (folder, path))
    return counts


def tested_as_released(options, left_out, when_built):
    """The unit tests of a build that is optimised as the program is, but for those that are left to another one."""
    begun = time.monotonic()
    tests = build_but_for("build", options, left_out)
    built_s = time.monotonic() - begun
    if tests is None:
        return Counts(failed=1, remarks=["FAILED  building build"], built_s=built_s)
    when_built()
    counts = unit_tests("build", tests)
    counts.built_s = built_s
    return counts


def tested_sanitized(build_of, file_by_file, tests, environment, wrapper=None):
    begun = time.monotonic()
    whole = build_sanitized(*sanitized(build_of, file_by_file), tests)
    built_s = time.monotonic() - begun
    counts = unit_tests(build_of[0], tests, environment, wrapper) if whole else Counts(
        failed=1, remarks=["FAILED  building " + build_of[0]])
    counts.built_s = built_s
    return counts


# Folder, what b_sanitize is there, and the compilers. Clang takes half of the time that GCC takes, its programs run a third
# faster, and what is built has been read by a second compiler. Not for TSan: clang's takes mmap() for a write, and reports a
# page that one thread's SIGBUS handler maps while another one writes to it.
ASAN = ("build-asan", "address,undefined", ("clang", "clang++"))
TSAN = ("build-tsan", "thread", ("gcc", "g++"))


def sanitized(build_of, file_by_file):
    """Folder, options and compilers of a sanitizers' build."""
    folder, sanitizers, compilers = build_of
    return folder, ("-Db_sanitize=" + sanitizers, *SANITIZED, *(UNGROUPED if file_by_file else GROUPED)), compilers


# Memory that was given back is watched until 32 MiB more of it came; 256 cost a fifth more time, in page faults.
ASAN_ENVIRONMENT = {"ASAN_OPTIONS": "detect_stack_use_after_return=1:strict_string_checks=1:quarantine_size_mb=32",
                    "UBSAN_OPTIONS": "halt_on_error=1:print_stacktrace=1"}


def address_sanitizer(file_by_file):
    return tested_sanitized(ASAN, file_by_file, HOSTILE, ASAN_ENVIRONMENT)


def thread_sanitizer(file_by_file):
    # Address randomisation of recent kernels is wider than this compiler's TSan can take.
    return tested_sanitized(TSAN, file_by_file, THREADED, {"TSAN_OPTIONS": "halt_on_error=1:second_deadlock_stack=1"},
                            "setarch -R")


class IdleBuilds:
    """Builds for the sanitizers in the time that the stages between the first build and theirs leave: migrations of the
    QEMU matrix wait a good deal.

    Only builds: a test that watches a clock would not get the time it needs. What was not built at the end, or did not
    compile, is built and told by the stage that wants it.
    """

    def __init__(self, file_by_file):
        self._process = subprocess.Popen([sys.executable, os.path.abspath(__file__), "--sanitizer-builds",
                                          *(("--all",) if file_by_file else ())],
                                         stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                                         start_new_session=True, preexec_fn=self._be_idle)

    @staticmethod
    def _be_idle():
        try:
            os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
        except OSError:  # some containers do not permit it
            os.nice(19)

    def end(self):
        """Compilers are ended, too: ninja takes what they had not finished for not built."""
        if self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGTERM)
        self._process.wait()


def qemu_matrix(arguments):
    """Real QEMU processes; the program prints a line per case and the counts last."""
    # Cases wait more than they work: two side by side take two cores as well as one does.
    jobs = "2" if (os.cpu_count() or 1) > 1 else "1"
    command = ["/usr/bin/python3", os.path.join(ROOT, "tests", "qemu", "test_matrix.py"), "--jobs", jobs, *arguments]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    counts, last = None, ""
    try:
        for line in process.stdout:
            match = re.fullmatch(r"(\d+) passed, (\d+) failed, (\d+) skipped\n", line)
            if match:
                counts = Counts(*(int(word) for word in match.groups()))
            else:
                print(line, end="", flush=True)
            last = line
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
        process.wait()
    return counts or Counts(failed=1, remarks=["FAILED  the QEMU matrix ended early: " + last.strip()])


def captured_streams(names):
    """Records streams of real QEMUs and decodes them with the project's parsers, under ASan, torn at random places."""
    with tempfile.TemporaryDirectory(prefix="migrx-captures-", dir="/var/tmp") as folder:
        if run(["/usr/bin/python3", os.path.join(ROOT, "tests", "qemu", "capture.py"), folder, *names]):
            return Counts(failed=1, remarks=["FAILED  a captured stream is not what the source's RAM says"])
        if not os.listdir(folder):
            return Counts(skipped=1, remarks=["skipped captured streams: no QEMU here"])
        status = run([os.path.join(ROOT, ASAN[0], "tests", "loader", "main", "test_loader_main"),
                      "--gtest_brief=1", "--gtest_filter=Capture.*"],
                     env=dict(os.environ, **ASAN_ENVIRONMENT, MIGRX_CAPTURES=folder))
    return Counts(passed=int(status == 0), failed=int(status != 0))


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    size = parser.add_mutually_exclusive_group()
    size.add_argument("--quick", action="store_true", help="no sanitizers, few migrations")
    size.add_argument("--all", action="store_true", help="clang-tidy and the whole QEMU matrix, too")
    parser.add_argument("--sanitizer-builds", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.sanitizer_builds:
        sys.exit(0 if build_sanitized(*sanitized(ASAN, options.all), HOSTILE) and
                 build_sanitized(*sanitized(TSAN, options.all), THREADED) else 1)
    signal.signal(signal.SIGTERM, lambda *unused: sys.exit(143))
    # clang-tidy wants the command of each file.
    release = ("--buildtype=debugoptimized", "-Dbench_burst_64=%s" % ("true" if options.all else "false"), *STRICT,
               *(UNGROUPED if options.all else GROUPED))
    idle = contextlib.ExitStack()

    def build_when_idle():
        if not options.quick:
            idle.callback(IdleBuilds(options.all).end)

    # Each unit test runs once, unless there is no sanitizer's run, or time for all.
    left_out = () if options.quick or options.all else HOSTILE
    matrix = list(QUICK_CASES) if options.quick else ["--all"] if options.all else []
    stages = [("unit tests", lambda: tested_as_released(release, left_out, build_when_idle)),
              ("tidy", lambda: tidy(["--clang-tidy", "build"] if options.all else [])),
              ("migrations from real QEMUs", lambda: qemu_matrix(matrix))]
    asan = functools.partial(address_sanitizer, options.all)
    if not options.quick:
        stages += [("unit tests under ASan and UBSan", asan),
                   ("streams captured from real QEMUs", lambda: captured_streams(() if options.all else QUICK_CAPTURES)),
                   ("unit tests under TSan", lambda: thread_sanitizer(options.all))]
    total, times = Counts(), []
    with idle:
        for name, stage in stages:
            print("== %s" % name, flush=True)
            if stage is asan:
                idle.close()
            begun = time.monotonic()
            counts = stage()
            for remark in counts.remarks:
                print(remark)
            took = "%d s" % (time.monotonic() - begun)
            if counts.built_s:
                took += " (%d s to build)" % counts.built_s
            print("== %s: %d passed, %d failed, %d skipped, %s" % (
                name, counts.passed, counts.failed, counts.skipped, took), flush=True)
            times.append("%s %s" % (name, took))
            total.add(counts)
    print("== time: %s" % ", ".join(times))
    print("%d passed, %d failed, %d skipped" % (total.passed, total.failed, total.skipped))
    sys.exit(1 if total.failed else 0)


if __name__ == "__main__":
    main()
