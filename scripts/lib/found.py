#!/usr/bin/python3
"""After how many fresh seeds the simulation finds each fault of found_list.py again; see scripts/mutants."""

import argparse
import concurrent.futures
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import threading
import time

from found_list import FOUND
from mutants import FOLDER, Build, chosen, copy_sources, fault, misfits, ROOT

BINARIES = os.path.join(FOLDER, "found")
# A seed that says nothing for so long, in seconds, has come to no end: found.
HUNG = 120
NICE = 10
# Set when the program ends before its time.
STOP = threading.Event()


class Series:
    """Seeds one after another until one fails."""

    def __init__(self, binary, plan, first, bound, until):
        self.binary, self.plan, self.first, self.bound, self.until = binary, plan, first, bound, until
        self.seeds = 0  # asked, the one that failed included
        self.why = ""   # "": none failed

    def run(self):
        log = "%s-%d.log" % (self.binary, self.first)
        command = ["nice", "-n", str(NICE), self.binary, "--verbose", "--seed", str(self.first), "--seeds", str(self.bound)]
        if self.plan:
            command += ["--plan", self.plan]
        with open(log, "w", encoding="utf-8") as out:
            with subprocess.Popen(command, stdout=out, stderr=subprocess.DEVNULL) as process:
                ended_here = False
                begun = time.time()
                while process.poll() is None:
                    hung = time.time() - max(os.stat(log).st_mtime, begun) > HUNG
                    if hung or STOP.is_set() or time.monotonic() > self.until:
                        self.why = "no end" if hung else ""
                        ended_here = True
                        process.kill()
                        break
                    time.sleep(0.1)
                process.wait()
        with open(log, encoding="utf-8") as file:
            told = file.read()
        os.unlink(log)
        seeds = re.findall(r"^seed (\d+):", told, re.MULTILINE)
        self.seeds = int(seeds[-1]) + 1 - self.first if seeds else 0
        if not ended_here and process.returncode == 0:
            self.seeds = self.bound
        if failed := re.search(r"^seed \d+: FAILED: ([^;\n]*)", told, re.MULTILINE):
            self.why = failed.group(1)
        elif self.why or (not ended_here and process.returncode != 0):
            self.seeds += 1
            self.why = self.why or "crash (signal %d)" % -process.returncode
        return self


def told(mutant, series):
    """A line of the table."""
    # A series without a failure stands after all that have one.
    series = sorted(series, key=lambda s: (not s.why, s.seeds))
    numbers = ["%s%d" % ("" if s.why else "> ", s.seeds) for s in series]
    why = series[0].why.replace("|", "/")[:80]
    return "| %s | `%s` | %s | %s to %s | %d of %d | %s |" % (
        mutant.name, mutant.file, numbers[len(numbers) // 2], numbers[0], numbers[-1], sum(bool(s.why) for s in series),
        len(series), why)


def main():
    parser = argparse.ArgumentParser(prog="scripts/mutants --found", description=__doc__)
    parser.add_argument("words", nargs="*", metavar="WORD")
    parser.add_argument("--series", type=int, default=5, help="of fresh seeds, for each fault (5)")
    parser.add_argument("--bound", type=int, default=20000, help="seeds of a series (20000)")
    parser.add_argument("--minutes", type=float, default=15, help="a series ends after that, with fewer seeds (15)")
    parser.add_argument("--jobs", type=int, default=2, help="series that run at once (2)")
    parser.add_argument("--first", type=int, default=0, help="the first seed; otherwise by chance, and printed")
    options = parser.parse_args()
    mutants = chosen(FOUND, options.words)
    if problems := misfits(ROOT):
        print("\n".join(problems), file=sys.stderr)
        sys.exit(2)
    # The copy is put right again, however this ends.
    signal.signal(signal.SIGTERM, lambda *unused: sys.exit(143))
    first = options.first or random.randrange(10**9, 10**12)
    print("seeds from %d" % first, file=sys.stderr, flush=True)
    copy_sources()
    os.makedirs(BINARIES, exist_ok=True)
    build = Build("found")
    lost = 0

    def ask(mutant, binary, start):
        # The time begins when the series does: others may be waited for.
        return Series(binary, mutant.kind, start, options.bound, time.monotonic() + 60 * options.minutes).run()

    pool = concurrent.futures.ThreadPoolExecutor(options.jobs)
    try:
        asked = []
        for n, mutant in enumerate(mutants):
            with fault(mutant):
                problem = build.make([build.simulator()])
                binary = os.path.join(BINARIES, "simulate-%d-%d" % (os.getpid(), n))
                if problem:
                    print("%s does not build: %s" % (mutant.name, problem), file=sys.stderr, flush=True)
                    lost += 1
                    continue
                shutil.copy(build.simulator(), binary)
            asked.append((mutant, binary, [pool.submit(ask, mutant, binary, first + (n * options.series + k) * options.bound)
                                           for k in range(options.series)]))
        print("| fault | file | seeds (median) | least to most | found | how |\n|---|---|---|---|---|---|", flush=True)
        for mutant, binary, series in asked:
            done = [s.result() for s in series]
            os.unlink(binary)
            lost += not any(s.why for s in done)
            print(told(mutant, done), flush=True)
    finally:
        STOP.set()
        pool.shutdown(cancel_futures=True)
    sys.exit(1 if lost else 0)


if __name__ == "__main__":
    main()
