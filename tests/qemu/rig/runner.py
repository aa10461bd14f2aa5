"""A small test runner: named cases, each in a scratch folder, counted at the end."""

import argparse
import contextlib
import dataclasses
import json
import os
import select
import shutil
import signal
import sys
import time
import traceback

from . import leftovers

SCRATCH_ROOT = "/dev/shm"


class Skip(Exception):
    """A case cannot run here; the text says why."""


class Failure(AssertionError):
    """The program under test did not do what it should."""


def expect(condition, text, *arguments):
    """Fails the case with `text` unless `condition` holds."""
    if not condition:
        raise Failure(text % arguments if arguments else text)


@dataclasses.dataclass
class Case:
    """One test: `run(scratch_folder)` returns normally when it passes, maybe with a remark to print.

    `needs`: what of this machine the case has to itself while it runs, such as "libvirt"; two cases that need the same
    do not run side by side, and beside one that needs MACHINE nothing does. `waits`: for minutes it does nothing else; it
    runs beside those that work.
    """

    name: str
    run: object
    quick: bool = True
    seconds: int = 120
    needs: str = ""
    waits: bool = False


MACHINE = "machine"
WAITING_MAX = 1  # beside `jobs` that work
DEAREST = 8  # cases that are named at the end, so that it is seen where the time goes


class _Overtime(BaseException):
    pass


def _overtime(*unused):
    raise _Overtime()


def _interrupted(number, _frame):
    raise KeyboardInterrupt(signal.Signals(number).name)


def remove_stale_scratch():
    """Removes scratch folders whose runner is no longer alive."""
    for name in os.listdir(SCRATCH_ROOT):
        words = name.split("-")
        if words[:2] == ["migrx", "test"] and words[-1].isdigit() and not os.path.exists("/proc/" + words[-1]):
            shutil.rmtree(os.path.join(SCRATCH_ROOT, name), ignore_errors=True)


def _keep_logs(folder, kept):
    """Copies what explains a failure, not the memory files, to `kept`."""
    os.makedirs(kept, exist_ok=True)
    for entry in os.listdir(folder):
        path = os.path.join(folder, entry)
        if os.path.isfile(path) and entry.rsplit(".", 1)[-1] in ("log", "json", "console"):
            shutil.copy(path, kept)


def run_case(case, folder, kept):
    """Runs one case; returns ("ok" | "skipped" | "FAILED", remark)."""
    os.makedirs(folder)
    signal.signal(signal.SIGALRM, _overtime)
    signal.alarm(case.seconds)
    try:
        return "ok", case.run(folder) or ""
    except Skip as reason:
        return "skipped", str(reason)
    except Failure as failure:
        _keep_logs(folder, kept)
        return "FAILED", "%s\n  logs: %s" % (failure, kept)
    except _Overtime:
        _keep_logs(folder, kept)
        return "FAILED", "not finished after %d s\n  logs: %s" % (case.seconds, kept)
    except Exception:  # Whatever a case runs into is its own failure; the others still run.
        _keep_logs(folder, kept)
        with open(os.path.join(kept, "traceback.log"), "w", encoding="utf-8") as file:
            traceback.print_exc(file=file)
        return "FAILED", "%s\n  logs: %s" % (traceback.format_exc().strip().splitlines()[-1], kept)
    finally:
        signal.alarm(0)
        shutil.rmtree(folder, ignore_errors=True)


class _Child:
    """A case in a process of its own."""

    def __init__(self, case, folder, kept):
        self.case, self.begun = case, time.monotonic()
        self.result, write = os.pipe()
        sys.stdout.flush()
        self.pid = os.fork()
        if self.pid == 0:
            try:
                os.close(self.result)
                self._run(folder, kept, write)
                leftovers.take_down()
                os._exit(0)
            except BaseException:  # Never back into the parent's code.
                traceback.print_exc()
                os._exit(1)
        os.close(write)

    def _run(self, folder, kept, write):
        signal.signal(signal.SIGTERM, _interrupted)
        try:
            outcome = run_case(self.case, folder, kept)
        except KeyboardInterrupt as reason:
            outcome = ("FAILED", "interrupted by %s" % (reason or "SIGINT"))
        os.write(write, json.dumps(outcome).encode())

    def finish(self):
        """Waits for its end; returns what run_case() did, and the seconds of CPU time that took."""
        with os.fdopen(self.result, "rb") as result:
            text = result.read()
        _, status, used = os.wait4(self.pid, 0)
        outcome = json.loads(text) if text else ("FAILED", "its process ended with status %d" % status)
        return *outcome, used.ru_utime + used.ru_stime

    def stop(self):
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGTERM)


def _next_case(waiting, running, jobs):
    """The first case that may run beside those that do; None: one of them has to end first."""
    if any(child.case.needs == MACHINE for child in running):
        return None
    taken = {child.case.needs for child in running if child.case.needs}
    at_wait = sum(child.case.waits for child in running)
    for case in waiting:
        free = at_wait < WAITING_MAX if case.waits else len(running) - at_wait < jobs
        if free and case.needs not in taken and not (case.needs == MACHINE and running):
            return case
    return None


def run_side_by_side(cases, jobs, root, logs):
    """Yields (case, outcome, remark, seconds, of CPU time) in the order in which cases end, at most `jobs` that work at
    a time."""
    # What needs the whole machine comes last, so that the others do not wait for each other's end again and again.
    waiting, running = sorted(cases, key=lambda case: case.needs == MACHINE), []
    try:
        while waiting or running:
            while (case := _next_case(waiting, running, jobs)) is not None:
                waiting.remove(case)
                running.append(_Child(case, os.path.join(root, case.name), os.path.join(logs, case.name)))
            ended = select.select([child.result for child in running], [], [])[0]
            for child in [child for child in running if child.result in ended]:
                running.remove(child)
                outcome, remark, cpu = child.finish()
                yield child.case, outcome, remark, time.monotonic() - child.begun, cpu
    finally:
        for child in running:
            child.stop()
        for child in running:
            child.finish()


def run_in_turn(cases, root, logs):
    """The same in this process, one after the other."""
    for case in cases:
        begun, before = time.monotonic(), os.times()
        outcome, remark = run_case(case, os.path.join(root, case.name), os.path.join(logs, case.name))
        after = os.times()
        yield case, outcome, remark, time.monotonic() - begun, sum(after[:4]) - sum(before[:4])


def main(cases, description):
    """Command line of a test program; exits with status 1 when a case failed."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("names", nargs="*", help="run only cases whose name contains one of these words")
    parser.add_argument("--all", action="store_true", help="also the slow cases")
    parser.add_argument("--list", action="store_true", help="print the names and end")
    parser.add_argument("--jobs", type=int, default=1, help="cases side by side (default: %(default)s)")
    parser.add_argument("--logs", default="/tmp/migrx-failed", help="folder for the logs of failed cases")
    options = parser.parse_args()
    known = {case.name for case in cases}

    def is_named(case):  # A whole name means that case alone, any other word all names that contain it.
        return any(word == case.name or (word not in known and word in case.name) for word in options.names)
    chosen = [case for case in cases if (is_named(case) if options.names else case.quick or options.all)]
    if options.list:
        for case in cases:
            print(case.name, "" if case.quick else "(--all)")
        return
    signal.signal(signal.SIGTERM, _interrupted)
    remove_stale_scratch()
    counts, failed, spent = dict.fromkeys(("ok", "FAILED", "skipped"), 0), [], []
    root = os.path.join(SCRATCH_ROOT, "migrx-test-%d" % os.getpid())
    os.makedirs(root)
    leftovers.set_run_folder(root)
    try:
        results = run_in_turn(chosen, root, options.logs) if options.jobs == 1 else run_side_by_side(
            chosen, options.jobs, root, options.logs)
        with contextlib.closing(results):
            for case, outcome, remark, seconds, cpu in results:
                counts[outcome] += 1
                spent.append((cpu, case.name))
                if outcome == "FAILED":
                    failed.append(case.name)
                print("%-8s%s (%.1f s, %.1f of CPU)%s" % (outcome, case.name, seconds, cpu, ": " + remark if remark else ""),
                      flush=True)
    except KeyboardInterrupt as reason:
        print("interrupted by %s" % (reason or "SIGINT"))
        counts["FAILED"] += 1
    finally:
        with contextlib.suppress(OSError):
            shutil.rmtree(root)
    left_out = len(cases) - len(chosen)
    if left_out and not options.names:
        print("%d slow cases not run; --all runs them" % left_out)
    if len(spent) > DEAREST:
        print("%.0f s of CPU; the dearest: %s" % (sum(cpu for cpu, _ in spent), ", ".join(
            "%s %.0f" % (name, cpu) for cpu, name in sorted(spent, reverse=True)[:DEAREST])))
    if failed:
        print("failed: " + " ".join(failed))
    print("%d passed, %d failed, %d skipped" % (counts["ok"], counts["FAILED"], counts["skipped"]))
    sys.exit(1 if counts["FAILED"] else 0)
