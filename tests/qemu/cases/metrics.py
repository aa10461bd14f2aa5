"""`--metrics` as Prometheus sees it: promtool's opinion, alert rules, and every query of the dashboard."""

import json
import os
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request

from rig import generator
from rig.guest import MIB
from rig.runner import Case, Skip, expect

_DOCS = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "..", "docs", "monitoring")
_SIZE = 48 * MIB
_GUEST = {"size": _SIZE, "rounds": 400, "dirty_percent": 100, "zero_percent": 20, "idle": "sleep", "timeout": 60,
          "multifd_channels": 2}


def _free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _get(url):
    with urllib.request.urlopen(url, timeout=10) as answer:
        return answer.read().decode()


def _start_prometheus(folder, target, port):
    path = os.path.join(folder, "prometheus.yml")
    with open(path, "w", encoding="utf-8") as config:
        json.dump({"global": {"scrape_interval": "500ms", "scrape_timeout": "500ms"},
                   "rule_files": [os.path.join(_DOCS, "migrx-alerts.yml")],
                   "scrape_configs": [{"job_name": "migrx", "static_configs": [{"targets": ["127.0.0.1:%d" % target]}]}]},
                  config)  # JSON is YAML
    with open(os.path.join(folder, "prometheus.log"), "wb") as log:
        return subprocess.Popen(["prometheus", "--config.file=" + path, "--storage.tsdb.path=" + os.path.join(folder, "tsdb"),
                                 "--web.listen-address=127.0.0.1:%d" % port], stdin=subprocess.DEVNULL, stdout=log, stderr=log)


def _query(port, text):
    url = "http://127.0.0.1:%d/api/v1/query?%s" % (port, urllib.parse.urlencode({"query": text}))
    answer = json.loads(_get(url))
    expect(answer["status"] == "success", "Prometheus refuses %s: %s", text, answer)
    return answer["data"]["result"]


def _dashboard_queries():
    with open(os.path.join(_DOCS, "migrx-dashboard.json"), encoding="utf-8") as file:
        dashboard = json.load(file)
    return [target["expr"].replace("$__rate_interval", "5s") for panel in dashboard["panels"] for target in panel["targets"]]


def _wait(what, condition, seconds=60):
    end = time.monotonic() + seconds
    while True:
        try:
            if condition():
                return
        except (OSError, urllib.error.URLError):
            pass
        expect(time.monotonic() < end, "%s did not come within %d s", what, seconds)
        time.sleep(0.2)


def _watched(folder):
    for program in ("prometheus", "promtool"):
        if shutil.which(program) is None:
            raise Skip("no " + program)
    rules = subprocess.run(["promtool", "check", "rules", os.path.join(_DOCS, "migrx-alerts.yml")], capture_output=True,
                           text=True, check=False)
    expect(rules.returncode == 0, "promtool check rules: %s%s", rules.stdout, rules.stderr)
    target, own = _free_port(), _free_port()
    prometheus = _start_prometheus(folder, target, own)
    try:
        _wait("Prometheus", lambda: _get("http://127.0.0.1:%d/-/ready" % own))
        ram = "mem=%s,size=%d" % (os.path.join(folder, "ram"), _SIZE)
        with generator.start_receiver(folder, "memif", 1500, ram, 2,
                                      extra=("--idle", "sleep", "--metrics", str(target))) as receiver:
            expect(receiver.wait_ready(), "migrx never got ready: %s", receiver.log())
            with generator.start_generator(folder, "memif", 1500, _GUEST) as source:
                _wait("a rate", lambda: any(float(row["value"][1]) > 0 for row in _query(
                    own, "rate(migrx_session_wire_bytes_total[5s])")))
                text = _get("http://127.0.0.1:%d/metrics" % target)
                lint = subprocess.run(["promtool", "check", "metrics"], input=text, capture_output=True, text=True,
                                      check=False)
                expect(lint.returncode == 0 and not lint.stderr.strip(), "promtool check metrics: %s%s", lint.stdout,
                       lint.stderr)
                queries = _dashboard_queries()
                for query in queries:
                    expect(_query(own, query), "no data for %s", query)
                families = text.count("# TYPE migrx_")
                expect(source.alive(), "the migration was over before it was looked at: %s", source.log())
                source.process.terminate()
    finally:
        prometheus.terminate()
        prometheus.wait(30)
    return "%d families, %d queries of the dashboard have data" % (families, len(queries))


def cases():
    yield Case("metrics-prometheus", _watched)
