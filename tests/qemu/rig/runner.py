"""A small test runner: named cases, each in a scratch folder, counted at the end."""

import argparse
import contextlib
import dataclasses
import os
import shutil
import signal
import sys
import time
import traceback

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
    """One test: `run(scratch_folder)` returns normally when it passes, maybe with a remark to print."""

    name: str
    run: object
    quick: bool = True
    seconds: int = 120


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


def main(cases, description):
    """Command line of a test program; exits with status 1 when a case failed."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("names", nargs="*", help="run only cases whose name contains one of these words")
    parser.add_argument("--all", action="store_true", help="also the slow cases")
    parser.add_argument("--list", action="store_true", help="print the names and end")
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
    counts, failed = dict.fromkeys(("ok", "FAILED", "skipped"), 0), []
    root = os.path.join(SCRATCH_ROOT, "migrx-test-%d" % os.getpid())
    os.makedirs(root)
    try:
        for case in chosen:
            begun = time.monotonic()
            outcome, remark = run_case(case, os.path.join(root, case.name), os.path.join(options.logs, case.name))
            counts[outcome] += 1
            if outcome == "FAILED":
                failed.append(case.name)
            print("%-8s%s (%.1f s)%s" % (outcome, case.name, time.monotonic() - begun,
                                         ": " + remark if remark else ""), flush=True)
    except KeyboardInterrupt as reason:
        print("interrupted by %s" % (reason or "SIGINT"))
        counts["FAILED"] += 1
    finally:
        with contextlib.suppress(OSError):
            shutil.rmtree(root)
    left_out = len(cases) - len(chosen)
    if left_out and not options.names:
        print("%d slow cases not run; --all runs them" % left_out)
    if failed:
        print("failed: " + " ".join(failed))
    print("%d passed, %d failed, %d skipped" % (counts["ok"], counts["FAILED"], counts["skipped"]))
    sys.exit(1 if counts["FAILED"] else 0)
