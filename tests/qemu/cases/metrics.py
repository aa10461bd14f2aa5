"""`--metrics`: what real migrations tell and whether the report says the same, promtool's opinion, alert rules, every
query of the dashboard, and clients that do what they should not."""

import contextlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.parse
import urllib.request

from rig import generator
from rig.compare import expect_same_files
from rig.guest import MIB, BusyGuest
from rig.live import start_destination
from rig.machine import Backend, Machine, die_with_parent, in_namespace
from rig.network import Network
from rig.receiver import Receiver, migrx_program
from rig.runner import Case, Skip, expect
from rig.scrape import lint, metric_table, samples_of, scrape
from rig.transfer import Transfer, need

_DOCS = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "..", "docs", "monitoring")
_SIZE = 48 * MIB
_GUEST = {"size": _SIZE, "rounds": 4000, "dirty_percent": 100, "zero_percent": 20, "idle": "sleep", "timeout": 60,
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
                lint(text)
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


# ---- What a migration tells, and what its report says ----

_PORT = 9464
# In the receiver's namespace, whose loopback is its own.
# Opens connections as told, does with each what its kind does, and holds them until it is ended.
_CROWD = """
import resource, socket, sys, time
resource.setrlimit(resource.RLIMIT_NOFILE, (4096, 4096))
held = []
for kind, count in (word.split("=") for word in sys.argv[2:]):
    for _ in range(int(count)):
        one = socket.socket()
        one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1024)
        one.setblocking(False)
        one.connect_ex(("127.0.0.1", int(sys.argv[1])))
        held.append((kind, one))
print("here", flush=True)
while True:  # the slow ones send a byte now and then, those who never read ask again and again
    for kind, one in held:
        try:
            if kind == "slow":
                one.send(b"G")
            if kind == "never":
                one.send(b"GET /metrics HTTP/1.1\\r\\n\\r\\n")
        except OSError:
            pass
    time.sleep(0.2)
"""


_WHO = {"name", "peer", "poll_core", "loader_core", "end", "role", "cpu", "node", "last_stalls"}
# What no longer changes when all of RAM and of the device state is here. The others only grow.
_AT_REST = {"normal_pages", "zero_pages", "zero_pages_untouched", "xbzrle_pages", "compressed_pages", "ram_sections",
            "other_sections", "markers", "tail_bytes", "packets", "syncs", "payload_bytes", "routed_bytes", "bytes",
            "mapped_ram_pages", "mapped_ram_zero_pages", "mapped_ram_reads"}


def _compare(samples, report):
    """Every counter of the report has its metric, with its value or, where it may have grown since, no more than that.
    Returns how many were compared, and how many exactly."""
    table, compared, exact = metric_table(), 0, 0
    def one(scopes, name, labels, value):
        nonlocal compared, exact
        rows = [table[scope, name] for scope in scopes if (scope, name) in table]
        expect(rows, "%s is in the report and not in the table", name)
        metric, kind = rows[0]
        told = samples.get((metric, labels))
        expect(told is not None, "%s{%s} of the report's %s is not told", metric, labels, name)
        unit = 1e-6 if name.endswith("_us") else 1
        if name in _AT_REST:
            expect(told == value * unit, "%s{%s} is %s, the report has %s", metric, labels, told, value)
            exact += 1
        elif kind == "counter":
            expect(told <= value * unit * (1 + 1e-9), "%s{%s} is %s, the report has only %s", metric, labels, told, value)
        compared += 1
    for channel in report["channels"]:
        kind = "main channel" if channel["name"] == "main" else "multifd channel"
        for name, value in channel.items():
            if name not in _WHO:
                one((kind, "each channel", "snapshot"), name, 'channel="%s"' % channel["name"], value)
    for core in report["cores"]:
        for name, value in core.items():
            if name not in _WHO:
                one(("core",), name, 'cpu="%d",role="%s"' % (core["cpu"], core["role"]), value)
    for name, value in report["dataplane"].items():
        one(("dataplane",), name, "", value)
    for name, value in report["memory"].items():
        one(("memory",), name, "", value)
    expect(samples["migrx_session_guest_bytes_total", ""] == report["guest_bytes_loaded"], "guest bytes: %s, %s",
           samples["migrx_session_guest_bytes_total", ""], report["guest_bytes_loaded"])
    return compared, exact


def _expect_prompt(report, ended):
    """Seconds from the verdict to the end of the process, at `ended`: nobody who watches keeps it."""
    late = ended - report["started_unix_s"] - report["timeline"]["done_s"]
    expect(late < 1.5, "the process was there for %.1f s after its verdict", late)
    return late


def _told_at_rest(folder):
    """A destination that stands still when it has everything: what is told then is what the report says at the end."""
    need("10")
    with contextlib.ExitStack() as stack:
        network = stack.enter_context(Network())
        transfer = Transfer(dirty_s=2, channels=2)
        source = transfer.start_source(folder, stack, network)
        destination, address = start_destination(source, {"mem": os.path.join(folder, "received.mem")}, stack)
        receiver = stack.enter_context(Receiver(
            folder, network, {"mem": "%s,size=%d" % (destination.backends[0].path, transfer.size)}, 2,
            extra=("--metrics", str(_PORT)), handoff=address))
        expect(receiver.wait_ready(), "migrx never got ready: %s", receiver.log()[-2000:])
        before = samples_of(scrape(network.receiver, _PORT))
        expect(before["migrx_session_state", 'state="listening"'] == 1, "not listening: %s", before)
        source.migrate(receiver.uri)
        time.sleep(1)
        os.kill(destination.process.pid, signal.SIGSTOP)
        try:
            lint(scrape(network.receiver, _PORT))
            transfer.converge(source)
            text, last = "", None
            deadline = time.monotonic() + 60
            while not last or last != text:  # as told twice, 1.2 s apart, with all of the device state here
                expect(time.monotonic() < deadline, "it never came to rest: %s", receiver.log()[-2000:])
                last = text
                time.sleep(1.2)
                samples = samples_of(scrape(network.receiver, _PORT))
                at_rest = {key: value for key, value in samples.items() if key[0].startswith("migrx_channel_bytes")}
                text = str(at_rest) if samples["migrx_session_state", 'state="device state"'] == 1 else ""
        finally:
            os.kill(destination.process.pid, signal.SIGCONT)
        source.wait_migration(timeout=90)
        status = receiver.wait(60)
        ended = time.time()
        expect(status == 0, "migrx ended with %d: %s", status, receiver.log()[-2000:])
        report = receiver.report()
        compared, exact = _compare(samples, report)
        late = _expect_prompt(report, ended)
        return "%d of %d counters equal at rest, the others no more than at the end; ended %.2f s after the verdict" % (
            exact, compared, late)


def _crowd(namespace, stack, *kinds):
    process = subprocess.Popen(in_namespace(namespace, [sys.executable, "-c", _CROWD, str(_PORT), *kinds]),
                               stdout=subprocess.PIPE, preexec_fn=die_with_parent)
    stack.callback(process.wait)
    stack.callback(process.kill)
    expect(process.stdout.readline() == b"here\n", "the crowd did not come")


def _crowded(folder):
    """A thousand connections, slow clients and some that never read: the migration and its end are as without them."""
    need("10")
    with contextlib.ExitStack() as stack:
        network = stack.enter_context(Network())
        transfer = Transfer(dirty_s=1, channels=2, receiver_extra=("--metrics", str(_PORT)))
        source = transfer.start_source(folder, stack, network)
        options, files = transfer.ram_files(folder, source)
        receiver = transfer.start_receiver(folder, stack, network, options)
        _crowd(network.receiver, stack, "idle=1000", "slow=50", "never=50")
        source.migrate(receiver.uri)
        transfer.converge(source)
        source.wait_migration(timeout=transfer.timeout)
        status = receiver.wait(60)
        ended = time.time()
        expect(status == 0, "migrx ended with %d: %s", status, receiver.log()[-2000:])
        report = receiver.report()
        late = _expect_prompt(report, ended)
        expect_same_files("mem", files["mem"], source.backends[0].path)
        os.unlink(files["mem"])
        return "ended %.2f s after the verdict" % late


def _taken(folder):
    """A port that somebody has: refused with the other options, before anything is made."""
    need()
    with contextlib.ExitStack() as stack:
        network = stack.enter_context(Network())
        listener = subprocess.Popen(in_namespace(network.receiver, [
            sys.executable, "-c", "import socket, time; s = socket.create_server(('127.0.0.1', %d)); "
            "print(flush=True); time.sleep(600)" % _PORT]), stdout=subprocess.PIPE, preexec_fn=die_with_parent)
        stack.callback(listener.wait)
        stack.callback(listener.kill)
        listener.stdout.readline()
        ram = os.path.join(folder, "received.mem")
        receiver = stack.enter_context(Receiver(folder, network, {"mem": ram + ",size=64M"},
                                                extra=("--metrics", str(_PORT))))
        status = receiver.wait(30)
        text = receiver.log()
        expect(status == 2 and "choose another port" in text, "exit status %d: %s", status, text)
        expect(not os.path.exists(ram), "the file of guest memory was made")
        expect(not os.path.exists(os.path.join(folder, "run")), "the runtime folder was made")
        return text.strip().splitlines()[0]


def _loads(folder):
    """`migrx load` tells, too: from a pipe that pauses in the middle of RAM."""
    need("10")
    with contextlib.ExitStack() as stack:
        disk = stack.enter_context(tempfile.TemporaryDirectory(prefix="migrx-snapshot-", dir="/var/tmp"))
        snapshot = os.path.join(disk, "snapshot")
        guest = BusyGuest("mixed", fill_end=62 * MIB)
        source = stack.enter_context(Machine(folder, "10", "q35", [Backend("mem", 64 * MIB)], guest))
        source.wait_console(b"filled")
        source.qmp.command("stop")
        source.set_parameters(max_bandwidth=1 << 40)
        source.migrate("exec:cat > " + snapshot)
        source.wait_migration()
        port, report = _free_port(), os.path.join(folder, "load.json")
        command = [migrx_program(), "load", "-", "--no-handoff", "--report", report, "--metrics", str(port), "--ram",
                   "mem=%s,size=64M" % os.path.join(folder, "received")]
        loader = stack.enter_context(subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL))
        stack.callback(loader.kill)
        with open(snapshot, "rb") as file:
            loader.stdin.write(file.read(8 * MIB))
            loader.stdin.flush()
            def half_here():
                text = scrape(None, port)
                return text and samples_of(text).get(("migrx_channel_bytes_total", 'channel="main"'), 0) == 8 * MIB
            _wait("half of the stream", half_here)
            text = scrape(None, port)
            lint(text)
            loader.stdin.write(file.read())
            loader.stdin.close()
        expect(loader.wait(60) == 0, "migrx load failed")
        with open(report, encoding="utf-8") as file:
            told = json.load(file)
        samples, table = samples_of(text), metric_table()
        expect(samples["migrx_session_state", 'state="precopy"'] == 1, "not in precopy")
        for name, value in told["channels"][0].items():
            rows = [table[scope, name] for scope in ("main channel", "each channel", "snapshot") if (scope, name) in table]
            if name not in _WHO:
                expect(rows and samples[rows[0][0], 'channel="main"'] <= value, "%s is not told, or too large", name)
        expect(0 < samples["migrx_session_guest_bytes_total", ""] < told["guest_bytes_loaded"], "not in the middle")


def _rounds(version, channels):
    """What migrx calls a round is what the source does: its dirty-sync-count, but for looks that found nothing new."""
    def run(folder):
        need(version)
        with contextlib.ExitStack() as stack:
            network = stack.enter_context(Network())
            transfer = Transfer(version=version, channels=channels, dirty_s=3)
            source = transfer.start_source(folder, stack, network)
            options, files = transfer.ram_files(folder, source)
            receiver = transfer.start_receiver(folder, stack, network, options)
            source.migrate(receiver.uri)
            transfer.converge(source)
            source.wait_migration(timeout=90)
            expect(receiver.wait(60) == 0, "migrx failed: %s", receiver.log()[-2000:])
            rounds, synced = receiver.report()["rounds"], source.migration()["ram"]["dirty-sync-count"]
            # The last pass is that of two looks, and one may find what still lies ahead in the pass under way.
            expect(rounds >= 3 and 0 <= synced - rounds <= 2, "%d rounds, dirty-sync-count %d", rounds, synced)
            expect_same_files("mem", files["mem"], source.backends[0].path)
            os.unlink(files["mem"])
            return "%d rounds, dirty-sync-count %d" % (rounds, synced)
    return run


def _ask_telemetry(pid, *commands):
    """The answers of DPDK's telemetry socket of that process, as dpdk-telemetry.py asks."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as client:
        client.settimeout(10)
        client.connect("/var/run/dpdk/migrx-%d/dpdk_telemetry.v2" % pid)
        client.recv(65536)
        answers = []
        for command in commands:
            client.sendall(command.encode())
            answers.append(json.loads(client.recv(65536))[command.split(",")[0]])
        return answers


def _telemetry(folder):
    """`--telemetry`: DPDK's socket knows the migration while it runs, and the report says the same or more."""
    need("10")
    with contextlib.ExitStack() as stack:
        network = stack.enter_context(Network())
        transfer = Transfer(dirty_s=3, channels=2)
        source = transfer.start_source(folder, stack, network)
        options, files = transfer.ram_files(folder, source)
        receiver = stack.enter_context(Receiver(folder, network, options, 2, extra=("--telemetry",)))
        expect(receiver.wait_ready(), "migrx never got ready: %s", receiver.log()[-2000:])
        worker = receiver.children()[0]
        source.migrate(receiver.uri)
        def pages_told():
            return _ask_telemetry(worker, "/migrx/sessions")[0].get("pages", 0) > 0
        _wait("pages", pages_told)
        sessions, cores, tcp, pools, listed, one = _ask_telemetry(
            worker, "/migrx/sessions", "/migrx/cores", "/migrx/tcp", "/migrx/pools", "/", "/migrx/sessions,multifd_0")
        if shutil.which("dpdk-telemetry.py"):
            script = subprocess.run(["dpdk-telemetry.py", "-f", "migrx-%d" % worker], input="/migrx/pools\nquit\n",
                                    capture_output=True, text=True, check=False, timeout=60)
            expect(json.dumps(pools["rx_buffers"]) in script.stdout, "dpdk-telemetry.py: %s%s", script.stdout,
                   script.stderr)
        transfer.converge(source)
        source.wait_migration(timeout=90)
        expect(receiver.wait(60) == 0, "migrx failed: %s", receiver.log()[-2000:])
        report = receiver.report()
        expect({"/migrx/sessions", "/migrx/cores", "/migrx/tcp", "/migrx/pools", "/ethdev/stats"} <= set(listed),
               "commands: %s", listed)
        expect(sessions["state"] in ("precopy", "switchover") and sessions["rounds"] >= 1, "sessions: %s", sessions)
        expect(0 < sessions["wire_bytes"] <= report["wire_bytes"], "wire_bytes %d", sessions["wire_bytes"])
        expect(list(one) == ["multifd_0"] and one["multifd_0"]["packets"] > 0, "one channel: %s", one)
        for channel in report["channels"]:
            told = sessions[channel["name"].replace(" ", "_")]
            expect(0 < told["bytes"] <= channel["bytes"], "%s: %s", channel["name"], told)
        expect({"cpu_%d" % core["cpu"] for core in report["cores"]} == set(cores), "cores: %s", cores)
        expect(0 < tcp["tcp_in_order"] <= report["dataplane"]["tcp.in_order"], "tcp: %s", tcp)
        expect(pools["rx_buffers"] == report["memory"]["rx_buffers"], "pools: %s", pools)
        expect_same_files("mem", files["mem"], source.backends[0].path)
        os.unlink(files["mem"])
        return "%d counters of frames and segments" % len(tcp)


class _Manager:
    """The service manager's end of $NOTIFY_SOCKET, for a program started within `for_child`."""

    def __init__(self, folder):
        self.path = os.path.join(folder, "notify.sock")
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        self._socket.bind(self.path)
        self.heard = []  # (process, message)

    @contextlib.contextmanager
    def for_child(self, **more):
        names = dict(more, NOTIFY_SOCKET=self.path)
        os.environ.update(names)
        try:
            yield
        finally:
            for name in names:
                del os.environ[name]

    def listen(self):
        """What was said so far, the senders being what the kernel says of them."""
        with contextlib.suppress(BlockingIOError):
            while True:
                message, control, _, _ = self._socket.recvmsg(4096, socket.CMSG_SPACE(12))
                process = int.from_bytes(control[0][2][:4], sys.byteorder) if control else 0
                self.heard.append((process, message.decode()))
        return [message for _, message in self.heard]


def _told_to_manager(folder):
    """systemd's part played by the case: ready when the source may connect, the progress, signs of life, stopping."""
    need("10")
    with contextlib.ExitStack() as stack:
        network = stack.enter_context(Network())
        transfer = Transfer(dirty_s=4, channels=2)
        source = transfer.start_source(folder, stack, network)
        options, files = transfer.ram_files(folder, source)
        manager = _Manager(folder)
        with manager.for_child(WATCHDOG_USEC="2000000"):
            receiver = stack.enter_context(Receiver(folder, network, options, 2))
        expect(receiver.attach(30), "no interface: %s", receiver.log())
        expect("READY=1" not in manager.listen(), "ready before it listened: %s", manager.heard)
        expect(receiver.told_ready(), "migrx never got ready: %s", receiver.log()[-2000:])
        _wait("READY=1", lambda: "READY=1" in manager.listen())
        source.migrate(receiver.uri)
        transfer.converge(source)
        source.wait_migration(timeout=90)
        expect(receiver.wait(60) == 0, "migrx failed: %s", receiver.log()[-2000:])
        heard = manager.listen()
        expect(heard.count("READY=1") == 1, "READY: %s", heard)
        expect(any(text.startswith("STATUS=") and "precopy" in text and "GiB/s" in text for text in heard),
               "no progress: %s", heard)
        expect(heard[-1] == "STOPPING=1\nSTATUS=complete", "the last word: %s", heard[-3:])
        expect(heard.count("WATCHDOG=1") >= 1, "signs of life: %s", heard)
        expect({process for process, _ in manager.heard} == {receiver.process.pid}, "not the main process's: %s",
               manager.heard)
        expect_same_files("mem", files["mem"], source.backends[0].path)
        return "%d messages, %d signs of life" % (len(heard), heard.count("WATCHDOG=1"))


def _watchdog_ends(folder):
    """A receiver that hangs: no sign of life, and what systemd does then (SIGABRT) ends it like one that is killed."""
    need("10")
    with contextlib.ExitStack() as stack:
        network = stack.enter_context(Network())
        transfer = Transfer(dirty_s=30, channels=2)
        source = transfer.start_source(folder, stack, network)
        manager = _Manager(folder)
        with manager.for_child(WATCHDOG_USEC="2000000"):
            receiver = stack.enter_context(Receiver(folder, network, transfer.ram_files(folder, source)[0], 2))
        expect(receiver.wait_ready(), "migrx never got ready: %s", receiver.log()[-2000:])
        source.migrate(receiver.uri)
        _wait("a sign of life", lambda: "WATCHDOG=1" in manager.listen())
        worker = receiver.children()[0]
        os.kill(worker, signal.SIGSTOP)
        time.sleep(0.5)
        before = manager.listen().count("WATCHDOG=1")
        time.sleep(4)
        expect(manager.listen().count("WATCHDOG=1") == before, "one that stands still says that it is alive")
        receiver.signal(signal.SIGABRT)
        status = receiver.wait(30)
        expect(status == 1, "exit status %d: %s", status, receiver.log()[-2000:])
        network.attach(lambda: bool(receiver.lingering()), 30)  # of who stays behind to tell the source
        info = source.wait_migration(("failed",), timeout=60)
        expect(source.goes_on(), "the guest does not go on at the source: %s", info)


# In a mount namespace of its own: a journal's socket where systemd has it, and the command with both of its outputs on
# what the journal would give it. Prints a line of JSON for each entry, and last the status.
_JOURNAL = """
import ctypes, json, os, select, signal, socket, struct, subprocess, sys
subprocess.run(["mount", "--make-rprivate", "/"], check=True)
subprocess.run(["mount", "-t", "tmpfs", "none", "/run"], check=True)
os.makedirs("/run/systemd/journal")
journal = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
journal.bind("/run/systemd/journal/socket")
stream, other = socket.socketpair()
inode = os.fstat(other.fileno())
process = subprocess.Popen(sys.argv[1:], stdout=other, stderr=other,
                           preexec_fn=lambda: ctypes.CDLL(None).prctl(1, signal.SIGTERM),
                           env=dict(os.environ, JOURNAL_STREAM="%d:%d" % (inode.st_dev, inode.st_ino)))
while process.poll() is None or select.select([journal], [], [], 0)[0]:
    if not select.select([journal], [], [], 0.1)[0]:
        continue
    data, entry = journal.recv(1 << 20), {}
    while data:
        line, data = data.split(b"\\n", 1)
        name, assigned, value = line.partition(b"=")
        if not assigned:
            size = struct.unpack("<Q", data[:8])[0]
            value, data = data[8:8 + size], data[8 + size + 1:]
        entry[name.decode()] = value.decode()
    print(json.dumps(entry), flush=True)
    if entry["MESSAGE"].startswith("ready"):
        process.send_signal(signal.SIGTERM)
print(json.dumps({"status": process.returncode, "stream": select.select([stream], [], [], 0)[0] != []}))
"""


def _journal(folder):
    """Each line is an entry with its level and fields, and none goes the old way."""
    command = [migrx_program(), "receive", "--port", "net_tap0,iface=journal0", "--link-timeout", "0", "--address",
               "198.51.100.2/24", "--no-handoff", "--listen", "4711", "--runtime-dir", os.path.join(folder, "run"), "--ram", "mem=%s/mem,size=16M" % folder]
    done = subprocess.run(["unshare", "--mount", "--net", sys.executable, "-c", _JOURNAL, *command], capture_output=True, text=True,
                          check=False, timeout=60)
    expect(done.returncode == 0, "the journal's part ended with %d: %s", done.returncode, done.stderr)
    *entries, end = [json.loads(line) for line in done.stdout.splitlines()]
    ready = [entry for entry in entries if entry["MESSAGE"].startswith("ready: listening")]
    expect(len(ready) == 1 and ready[0]["PRIORITY"] == "6" and ready[0]["MIGRX_COMMAND"] == "receive" and
           ready[0]["MIGRX_LISTEN"] == "4711" and "MIGRX_OUTCOME" not in ready[0], "ready: %s", entries)
    verdict = entries[-1]
    expect(verdict["MIGRX_EXIT_STATUS"] == str(end["status"]) == "1" and verdict["MIGRX_OUTCOME"] == "cancelled" and
           verdict["PRIORITY"] == "3" and "\n" in verdict["MESSAGE"], "the verdict: %s, status %s", verdict, end)
    expect(all(entry["SYSLOG_IDENTIFIER"] == "migrx" for entry in entries), "entries: %s", entries)
    expect(not end["stream"], "some lines went to the stream")
    return "%d entries" % len(entries)


def cases():
    yield Case("metrics-prometheus", _watched)
    yield Case("metrics-values-10", _told_at_rest)
    yield Case("metrics-crowd-10", _crowded)
    yield Case("metrics-port-taken", _taken)
    yield Case("metrics-load-10", _loads)
    for version in ("7.2", "10"):
        yield Case("metrics-rounds-main-" + version, _rounds(version, 0), quick=version == "7.2")
        yield Case("metrics-rounds-multifd-" + version, _rounds(version, 2), quick=version == "10")
    yield Case("metrics-telemetry-10", _telemetry)
    yield Case("metrics-notify-10", _told_to_manager)
    yield Case("metrics-journal", _journal)
    yield Case("metrics-watchdog-10", _watchdog_ends)
