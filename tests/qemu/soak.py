#!/usr/bin/python3
"""Random real migrations, one after another; see scripts/soak."""

import argparse
import collections
import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from rig.guest import MIB
from rig.hugepages import hugetlb_folder
from rig.machine import die_with_parent
from rig.network import remove_stale_namespaces
from rig.runner import SCRATCH_ROOT, Case, Skip, expect, remove_stale_scratch, run_case
from rig.soak_migration import SECONDS, Migration
from rig.soak_plan import RAM_MAX, plan_of, versions
from rig.transfer import need

PACKET_MEMORY = 384 * MIB  # more than any migration's packet buffers, which take hugepages where there are enough


def migrate(plan, hugetlb):
    def run(folder):
        need(plan.version)
        with contextlib.ExitStack() as stack:
            migration = Migration(plan, folder, hugetlb, stack)
            how = migration.run()
            expect(not migration.network.has_interface() or plan.end == "worker killed",
                   "migrx ended but its interface is still there")
            return how
    return run


class Hugepages:
    """2 MiB pages for the migrations of all jobs, and whether as many are free behind them as before."""

    PATIENCE_S = 10  # the kernel frees those of a process that has just ended

    def __init__(self, jobs):
        try:
            self.folder = hugetlb_folder(jobs * (RAM_MAX + PACKET_MEMORY))
        except (Skip, OSError) as reason:
            self.folder = None
            print("no guest has hugepages: %s" % reason, flush=True)
        self.before = self.count()

    @staticmethod
    def count():
        """(total, free), which other programs may change at the same time."""
        with open("/proc/meminfo", encoding="ascii") as file:
            values = dict(re.findall(r"^HugePages_(\w+):\s+(\d+)", file.read(), re.MULTILINE))
        return int(values.get("Total", 0)), int(values.get("Free", 0))

    def come_back(self):
        """Waits until no more are in use than before; returns whether that came, and a line about it."""
        used = self.before[0] - self.before[1]
        deadline = time.monotonic() + self.PATIENCE_S
        total, free = self.count()
        while total - free != used and time.monotonic() < deadline:
            time.sleep(0.1)
            total, free = self.count()
        text = "hugepages free before: %d of %d, after: %d of %d" % (self.before[1], self.before[0], free, total)
        return total - free == used, text


def run_some(options, seeds):
    """Runs the migrations of an iterator of seeds; a line for each."""
    root = os.path.join(SCRATCH_ROOT, "migrx-test-%d" % os.getpid())
    os.makedirs(root)
    end = time.monotonic() + options.hours * 3600 if options.hours else None
    try:
        for seed in seeds:
            if end and time.monotonic() > end:
                break
            plan = plan_of(seed, options.mishaps)
            begun = time.monotonic()
            outcome, remark = run_case(Case(str(seed), migrate(plan, options.hugetlb), seconds=SECONDS),
                                       os.path.join(root, str(seed)), os.path.join(options.logs, str(seed)))
            print("seed %d: %s, %s (%.1f s): %s" % (seed, outcome, remark.replace("\n", " "), time.monotonic() - begun,
                                                    plan.describe()), flush=True)
    finally:
        shutil.rmtree(root, ignore_errors=True)


def seeds_of(options, first, step):
    seed, left = first, options.count
    while left is None or left > 0:
        yield seed
        seed += step
        left = None if left is None else left - step


class Tally:
    """What the lines of all jobs say."""

    def __init__(self):
        self.ends, self.failed, self.skipped, self.begun = collections.Counter(), [], 0, time.monotonic()

    def take(self, line):
        print(line, end="", flush=True)
        match = re.match(r"seed (\d+): (\w+), (.*?) \(\d+\.\d s\): ", line)
        if not match:
            return
        seed, outcome, how = match.groups()
        if outcome == "skipped":
            self.skipped += 1
            return
        self.ends["FAILED" if outcome == "FAILED" else how] += 1
        if outcome == "FAILED":
            self.failed.append(seed)

    def report(self, hugepages):
        """The last lines, and the exit status they stand for. Skipped migrations are none."""
        total = sum(self.ends.values())
        came_back, pages = hugepages.come_back()
        if self.failed:
            print("failed: " + " ".join(self.failed) + "; replay: scripts/soak --seed SEED")
        if not came_back:
            print("FAILED: not as many hugepages are free as before the migrations")
        if not total:
            print("FAILED: no migration was run")
        print("%d migrations in %d s (%s): %s%s; %s" % (
            total, time.monotonic() - self.begun, time.strftime("%Y-%m-%d"),
            ", ".join("%s %d" % item for item in sorted(self.ends.items())) or "none",
            "; %d more skipped" % self.skipped if self.skipped else "", pages))
        return 1 if self.failed or not total or not came_back else 0


def _child(options, job, hugetlb):
    words = [sys.executable, os.path.abspath(__file__), "--job", str(job), "--seed", str(options.seed), "--jobs",
             str(options.jobs), "--logs", options.logs]
    words += ["--count", str(options.count)] if options.count else []
    words += ["--hours", str(options.hours)] if options.hours else []
    words += ["--hugetlb", hugetlb] if hugetlb else []
    words += ["--mishaps"] if options.mishaps else []
    # Sessions of their own: ^C reaches this process alone, which ends them in good order.
    return subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True,
                            preexec_fn=die_with_parent)


def conduct(options):
    """Starts the jobs and adds up what they say; SIGINT and SIGTERM end them."""
    hugepages, tally = Hugepages(options.jobs), Tally()
    jobs = [_child(options, job, hugepages.folder) for job in range(options.jobs)]

    def stop(*_unused):
        print("interrupted: the migrations under way are ended and not counted", flush=True)
        for job in jobs:
            job.terminate()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, stop)
    for job in jobs:
        os.set_blocking(job.stdout.fileno(), False)
    while True:
        # Asked first: what it said before it ended is read below.
        alive = [job.poll() is None for job in jobs]
        for job in jobs:
            for line in job.stdout:
                tally.take(line)
        if not any(alive):
            break
        time.sleep(0.1)
    remove_stale_namespaces()
    remove_stale_scratch()
    return tally.report(hugepages)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int)
    parser.add_argument("--hours", type=float)
    parser.add_argument("--seed", type=int)
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--mishaps", action="store_true")
    parser.add_argument("--logs", default="/tmp/migrx-soak")
    parser.add_argument("--job", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--hugetlb", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.seed is None:
        options.seed = int(time.time())
    if options.count is None and options.hours is None:
        options.count = 1
    if not versions() or os.geteuid() != 0:
        sys.exit("soak: needs root and a QEMU 7.2, 10 or newer")
    if options.job is None:
        sys.exit(conduct(options))
    signal.signal(signal.SIGTERM, lambda *unused: sys.exit(143))
    run_some(options, seeds_of(options, options.seed + options.job, options.jobs))


if __name__ == "__main__":
    main()
