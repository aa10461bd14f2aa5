#!/usr/bin/python3
"""Runs the mutants of mutant_list.py; see scripts/mutants."""

import argparse
import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import time

import build_folder
from found_list import FOUND
from mutant_list import MUTANTS

ROOT = os.path.abspath(os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", ".."))
FOLDER = os.path.join(ROOT, "build-mutants")
SOURCE = os.path.join(FOLDER, "source")
# Mutants whose faults keep the simulation going for ever are killed by this, in seconds.
PATIENCE = 240
# "" is the simulation and the unit tests, "tsan" the unit tests with threads. -O1 builds quickest.
OPTIONS = {"": ["-Dbench=false", "--buildtype=plain", "-Doptimization=1"],
           # As scripts/build makes it, and inside the copy: then ccache has nearly all of it.
           "found": ["--buildtype=debugoptimized"],
           "tsan": ["-Dbench=false", "--buildtype=debug", "-Doptimization=1", "-Db_sanitize=thread", "-Db_lundef=false"]}


def copy_sources():
    """Tracked and new files, as they are now; copies that need no change keep their times."""
    names = subprocess.run(["git", "ls-files", "--cached", "--others", "--exclude-standard"], cwd=ROOT,
                           capture_output=True, check=True, text=True).stdout.split()
    for name in names:
        origin, copy = os.path.join(ROOT, name), os.path.join(SOURCE, name)
        if not os.path.isfile(origin):
            continue
        with open(origin, "rb") as file:
            content = file.read()
        if os.path.exists(copy):
            with open(copy, "rb") as file:
                if file.read() == content:
                    continue
        os.makedirs(os.path.dirname(copy), exist_ok=True)
        shutil.copy(origin, copy)


class Build:
    """One build folder over the copied sources."""

    def __init__(self, kind):
        self.path = os.path.join(SOURCE, "build") if kind == "found" else os.path.join(FOLDER, "build-" + (kind or "plain"))
        build_folder.set_up(self.path, SOURCE, OPTIONS[kind])
        self.tests = build_folder.tests(self.path)
        self.environment = dict(os.environ, TSAN_OPTIONS="halt_on_error=1") if kind == "tsan" else None
        self.wrapper = ["setarch", "-R"] if kind == "tsan" else []
        self.filter = ["--gtest_filter=-*every_split_point*"] if kind == "tsan" else []

    def make(self, targets):
        """Builds; returns "" or the compiler's first complaint."""
        done = build_folder.make(self.path, targets, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        if done.returncode == 0:
            return ""
        errors = [line for line in done.stdout.splitlines() if "error" in line]
        return errors[0] if errors else done.stdout[-300:]

    def simulator(self):
        return os.path.join(self.path, "tests", "sim", "simulate")

    def unit_test(self, name):
        """"" when it passes, else the name of the first test that fails."""
        command = [*self.wrapper, self.tests[name], "--gtest_brief=1", *self.filter]
        try:
            done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False,
                                  timeout=PATIENCE, cwd=self.path, env=self.environment)
        except subprocess.TimeoutExpired:
            return "%s: no end" % name
        if done.returncode == 0:
            return ""
        if "ThreadSanitizer" in done.stdout:
            race = re.search(r"(\w+)_Test::TestBody", done.stdout)
            return "%s under TSan: %s" % (name, race.group(1) if race else "data race")
        failed = re.search(r"\[  FAILED  \] ([\w./]+)", done.stdout)
        return "%s: %s" % (name, failed.group(1) if failed else "crash")


def simulate(build, seeds):
    """(seed that fails, why); (0, "") when none does."""
    with subprocess.Popen([build.simulator(), "--seeds", str(seeds), "--verbose"], stdout=subprocess.PIPE,
                          stderr=subprocess.DEVNULL, text=True) as process:
        try:
            output, _ = process.communicate(timeout=PATIENCE)
            why = ""
        except subprocess.TimeoutExpired:
            process.kill()
            output, _ = process.communicate()
            why = "no end"
    failed = re.search(r"^seed (\d+): FAILED: ([^;\n]*)", output, re.MULTILINE)
    if failed:
        return int(failed.group(1)), failed.group(2)
    if process.returncode == 0:
        return 0, ""
    told = re.findall(r"^seed (\d+):", output, re.MULTILINE)
    return int(told[-1]) + 1 if told else 1, why or "crash (signal %d)" % -process.returncode


def ask_seeds(mutant, build, seeds):
    """(killer, why) or ("", "")."""
    problem = build.make([build.simulator()])
    if problem:
        return "?", "does not build: " + problem
    seed, why = simulate(build, seeds)
    return ("seed %d" % seed, why) if seed else ("", "")


def ask_unit_tests(mutant, build, _seeds):
    problem = build.make([build.tests[name] for name in mutant.tests])
    if problem:
        return "?", "does not build: " + problem
    for name in mutant.tests:
        failed = build.unit_test(name)
        if failed:
            return "unit test", failed
    return "", ""


def read(mutant):
    with open(os.path.join(SOURCE, mutant.file), encoding="utf-8") as file:
        return file.read()


def places(mutant):
    """(old, new) of each place of the file."""
    old, new = ((text,) if isinstance(text, str) else text for text in (mutant.old, mutant.new))
    return zip(old, new, strict=True)


@contextlib.contextmanager
def fault(mutant):
    """The copy has the fault meanwhile."""
    path, right = os.path.join(SOURCE, mutant.file), read(mutant)
    wrong = right
    for old, new in places(mutant):
        wrong = wrong.replace(old, new)
    try:
        with open(path, "w", encoding="utf-8") as file:
            file.write(wrong)
        yield
    finally:
        with open(path, "w", encoding="utf-8") as file:
            file.write(right)


def chosen(mutants, words):
    some = [mutant for mutant in mutants if not words or any(word in mutant.name for word in words)]
    # Those that cost the least building first.
    return sorted(some, key=lambda mutant: (mutant.kind, mutant.file.endswith(".h")))


def misfits(folder):
    """What is wrong with the lists: each mutant's text must occur once in its file."""
    problems = []
    for mutant in (*MUTANTS, *FOUND):
        with open(os.path.join(folder, mutant.file), encoding="utf-8") as file:
            content = file.read()
        for old, _new in places(mutant):
            if content.count(old) != 1:
                problems.append("mutants: \"%s\": its text occurs %d times in %s" %
                                (mutant.name, content.count(old), mutant.file))
    return problems


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("words", nargs="*", metavar="WORD")
    parser.add_argument("--seeds", type=int, default=1000)
    parser.add_argument("--list", action="store_true")
    parser.add_argument("--check", action="store_true")
    options = parser.parse_args()
    mutants = chosen(MUTANTS, options.words)
    if options.list:
        print("\n".join("%-62s %s" % (mutant.name, mutant.file) for mutant in mutants))
        return
    if problems := misfits(ROOT):  # the whole list is looked at before hours are spent on it
        print("\n".join(problems), file=sys.stderr)
        sys.exit(2)
    if options.check:
        return
    # The copy is put right again, however this ends.
    signal.signal(signal.SIGTERM, lambda *unused: sys.exit(143))
    copy_sources()
    print("| mutant | file | killed by | how |\n|---|---|---|---|")
    builds, alive = {}, mutants
    # The seeds are quick to ask; unit tests take long to build and see only what is left.
    for ask, kinds in ((ask_seeds, ("",)), (ask_unit_tests, ("", "tsan"))):
        left = []
        for mutant in alive:
            if mutant.kind not in kinds:
                left.append(mutant)
                continue
            if mutant.kind not in builds:
                builds[mutant.kind] = Build(mutant.kind)
            begun = time.monotonic()
            with fault(mutant):
                killer, why = ask(mutant, builds[mutant.kind], options.seeds)
            if killer in ("", "?"):
                left.append(mutant)
            else:
                print("| %s | `%s` | %s | %s |" % (mutant.name, mutant.file, killer, why.replace("|", "/")[:100]), flush=True)
            print("%4d s %s: %s %s" % (time.monotonic() - begun, mutant.name, killer or "lives", why), file=sys.stderr,
                  flush=True)
        alive = left
    for mutant in alive:
        print("| %s | `%s` | **nobody** | |" % (mutant.name, mutant.file))
    print("\n%d mutants, %d killed" % (len(mutants), len(mutants) - len(alive)))
    sys.exit(1 if alive else 0)


if __name__ == "__main__":
    main()
