"""What `--metrics` tells, read as Prometheus reads it."""

import os
import re
import shutil
import subprocess
import sys

from .machine import in_namespace
from .runner import expect

_PAGE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "..", "docs", "monitoring", "metrics.md")
_SCRAPE = """
import sys, urllib.request
sys.stdout.write(urllib.request.urlopen(sys.argv[1], timeout=10).read().decode())
"""


def scrape(namespace, port):
    """The metrics as text; None when nobody listens any more."""
    command = [sys.executable, "-c", _SCRAPE, "http://127.0.0.1:%d/metrics" % port]
    answer = subprocess.run(in_namespace(namespace, command), capture_output=True, text=True, check=False, timeout=60)
    return answer.stdout if answer.returncode == 0 else None


def lint(text):
    """promtool's opinion, where it is installed."""
    if shutil.which("promtool") is None:
        return
    told = subprocess.run(["promtool", "check", "metrics"], input=text, capture_output=True, text=True, check=False)
    expect(told.returncode == 0 and not told.stderr.strip(), "promtool check metrics: %s%s", told.stdout, told.stderr)


def samples_of(text):
    """{(name, labels): value}; labels as they are written."""
    found = {}
    for line in text.splitlines():
        match = re.fullmatch(r"(\w+)(?:\{(.*)\})? (\S+)", line)
        if match:
            found[match.group(1), match.group(2) or ""] = float(match.group(3))
    return found


def metric_table():
    """{(where, name): (metric, kind)} of the page of all metrics, which a unit test keeps equal to the program."""
    rows = {}
    with open(_PAGE, encoding="utf-8") as file:
        for line in file:
            cells = [cell.strip().strip("`") for cell in line.split("|")[1:-1]]
            if len(cells) == 6 and cells[2].startswith("migrx_") and cells[1]:
                rows[cells[0], cells[1]] = (cells[2], cells[3])
    return rows
