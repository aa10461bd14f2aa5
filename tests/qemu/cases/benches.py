"""The benchmarks that run real QEMUs, each as short as it goes: that they run and that what they measure is right."""

import json
import os
import subprocess
import sys

from rig.runner import Case, expect
from rig.transfer import need

_BENCH = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "..", "bench")


def _downtime(folder):
    need("10")
    path = os.path.join(folder, "downtime.runs")
    run = subprocess.run([sys.executable, os.path.join(_BENCH, "downtime.py"), "--repetitions", "1", "--memory", "128",
                          "--scratch", folder, "--json", path], capture_output=True, text=True, check=False)
    expect(run.returncode == 0, "downtime.py ended with %d: %s", run.returncode, run.stdout + run.stderr)
    with open(path, encoding="utf-8") as file:
        runs = json.load(file)
    expect([(one["form"], one["load"]) for one in runs] ==
           [(form, load) for load in ("idle", "busy") for form in ("qemu", "migrx")], "runs %r", runs)
    for one in runs:
        # The guest stood still within the migration, and QEMU's own figure is about the same.
        expect(0 < one["downtime_s"] < one["total_s"], "%r", one)
        expect(abs(one["downtime_s"] * 1e3 - one["source_says_ms"]) < 500, "%r", one)
        parts = sum(one.get(part, 0) for part in ("stop_to_ram_s", "device_state_s", "load_s"))
        expect(one["form"] == "qemu" or abs(parts - one["downtime_s"]) < 1e-3, "%r", one)
    return "; ".join("%s %s %.1f ms" % (one["form"], one["load"], one["downtime_s"] * 1e3) for one in runs)


def _load(folder):
    need("10")
    path = os.path.join(folder, "load.json")
    run = subprocess.run([sys.executable, os.path.join(_BENCH, "compare_load.py"), "--tiny", "--json", path],
                         capture_output=True, text=True, check=False)
    expect(run.returncode == 0, "compare_load.py ended with %d: %s", run.returncode, run.stdout + run.stderr)
    with open(path, encoding="utf-8") as file:
        rows = json.load(file)["cases"]
    expect([row["case"] for row in rows] == ["pages", "zero", "zero-behind", "xbzrle"], "%r", rows)
    for row in rows:  # What they took is not looked at; RAM of both programs was compared.
        expect(row["records"] >= (2000 if row["case"] == "xbzrle" else 7000), "%r", row)
    return "; ".join("%s %d records" % (row["case"], row["records"]) for row in rows)


def cases():
    yield Case("bench-downtime", _downtime, False, 300)
    yield Case("bench-load", _load, True, 120)
