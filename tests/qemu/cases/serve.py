"""`migrx serve`: many real sources at a time into one daemon, and what becomes of the others when one fails."""

import contextlib
import dataclasses
import fcntl
import functools
import grp
import json
import os
import pty
import pwd
import re
import select
import signal
import struct
import subprocess
import termios
import time

from rig import pki
from rig.compare import expect_same_files
from rig.daemon import Control, ControlError, Daemon
from rig.guest import MIB, console_lines, expect_unbroken
from rig.machine import Backend, Machine, in_namespace
from rig.network import Network
from rig.receiver import migrx_program
from rig.runner import Case, expect
from rig.scrape import lint, metric_table, samples_of, scrape
from rig.transfer import FAST, SLOW, Transfer, need

from cases.tls import PARAMETERS

METRICS_PORT = 9465  # of a network namespace of its own
MODES = (dict(), dict(channels=2), dict(channels=2, compression="zlib"), dict(capabilities={"xbzrle": True},
                                                                                receiver_capabilities=("xbzrle",)))


class _Guest:
    """One source and its session."""

    def __init__(self, folder, stack, network, number, transfer):
        self.folder = os.path.join(folder, "guest%d" % number)
        os.makedirs(self.folder)
        self.transfer = transfer
        self.source = transfer.start_source(self.folder, stack, network)
        self.session = self.port = self.destination = None

    def start_destination(self, stack):
        """A QEMU that waits for the guest, on the files that the daemon fills."""
        backends = [Backend(backend.id, backend.size, path=os.path.join(self.folder, "received." + backend.id))
                    for backend in self.source.backends]
        self.destination = stack.enter_context(Machine(self.folder, self.transfer.version, self.transfer.machine, backends,
                                                       namespace=self.source.namespace, incoming="defer",
                                                       name="destination"))
        self.destination.qmp.command("migrate-incoming", uri="unix:" + os.path.join(self.folder, "handoff.sock"))

    def add(self, daemon, until="ready", **arguments):
        options, self.files = self.transfer.ram_files(self.folder, self.source)
        if self.destination is None:
            for path in self.files.values():
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(path)
        else:
            arguments = dict(arguments, no_handoff=False, handoff="unix:" + os.path.join(self.folder, "handoff.sock"))
        given = {"ram": ["%s=%s" % item for item in options.items()], "no_handoff": True,
                 "capability": list(self.transfer.receiver_capabilities)}
        if self.transfer.channels:
            given.update(multifd_channels=self.transfer.channels, multifd_compression=self.transfer.compression)
        added = daemon.control.call("session-add", **{**given, **arguments})
        self.session, self.port = added["id"], added["port"]
        daemon.control.wait_session(self.session, (until,))
        return self

    def migrate(self, daemon):
        self.source.migrate(daemon.uri(self.port))

    def wait_under_way(self):
        deadline = time.monotonic() + 30
        while self.source.migration().get("ram", {}).get("transferred", 0) < MIB:
            expect(time.monotonic() < deadline, "the migration never got going: %s", self.source.migration())
            time.sleep(0.05)

    def expect_arrives(self, daemon):
        self.source.set_parameters(max_bandwidth=FAST, downtime_limit=2000)
        self.source.wait_migration(timeout=90)
        end = daemon.control.wait_session(self.session)
        expect(end["exit-status"] == 0, "session %s: %s", self.session, end)
        if self.destination is not None:
            deadline = time.monotonic() + 30
            while len(console_lines(self.destination.console())) < 20 and time.monotonic() < deadline:
                time.sleep(0.05)
            expect_unbroken([self.source.console(), self.destination.console()])
            expect(self.destination.running() and not self.source.running(), "not exactly one guest runs")
            return
        for backend in self.source.backends:
            expect_same_files(backend.id, self.files[backend.id], backend.path)


def _rig(folder, stack, count, version="10", dirty_s=0.0, modes=MODES, extra=(), **changes):
    need(version)
    network = stack.enter_context(Network(9000))
    daemon = stack.enter_context(Daemon(folder, network, extra)).wait_ready()
    guests = [_Guest(folder, stack, network, number,
                     dataclasses.replace(Transfer(version=version, dirty_s=dirty_s, **modes[number % len(modes)]), **changes))
              for number in range(count)]
    return daemon, guests


def _start_all(daemon, guests):
    for guest in guests:
        guest.add(daemon)
        guest.migrate(daemon)
    for guest in guests:
        guest.wait_under_way()


def at_once(version, count):
    """All at the same time, in different modes: every second one into a destination QEMU, of the others RAM is compared."""
    def body(folder, stack):
        daemon, guests = _rig(folder, stack, count, version)
        for guest in guests[::2]:
            guest.start_destination(stack)
        for guest in guests:
            guest.add(daemon)
        for guest in guests:
            guest.migrate(daemon)
        for guest in guests:
            guest.expect_arrives(daemon)
        names = {event["event"] for event in daemon.control.events}
        expect({"READY", "CONNECTED", "SWITCHOVER", "COMPLETED"} <= names, "events: %s", sorted(names))
        daemon.signal()
        expect(daemon.wait() == 0, "the daemon ended badly: %s", daemon.log())
        return "%d sessions" % len(guests)
    return body


def one_of_many(harm):
    """One of three ends badly, in the manner of `harm`; the others arrive, and its own source runs on."""
    def body(folder, stack):
        daemon, guests = _rig(folder, stack, 3, dirty_s=1.0, modes=MODES[:2], parameters={"max_bandwidth": SLOW // 4})
        _start_all(daemon, guests)
        remark = harm(daemon, guests[0])
        for guest in guests[1:]:
            guest.expect_arrives(daemon)
        end = daemon.control.wait_session(guests[0].session)
        expect(end["exit-status"] == 1, "the session that was harmed: %s", end)
        return remark
    return body


def _cancel(daemon, guest):
    answer = daemon.control.call("session-cancel", id=guest.session)
    expect(answer["answer"] == "end", "cancelled: %s", answer)
    guest.source.wait_migration(("failed",), timeout=10)
    expect(guest.source.running(), "the source's guest does not run on")
    return "cancelled: %s" % answer["text"]


def _kill_source(_daemon, guest):
    guest.source.process.kill()
    return "the source was killed"


def _cut_memory(_daemon, guest):
    os.truncate(next(iter(guest.files.values())), 4096)
    guest.source.wait_migration(("failed",), timeout=20)
    expect(guest.source.running(), "the source's guest does not run on")
    return "its file was cut"


def again_and_again(rounds):
    """One after another on the same daemon and port: nothing grows."""
    def body(folder, stack):
        daemon, guests = _rig(folder, stack, 1, modes=MODES[1:2], parameters={"max_bandwidth": SLOW // 8})
        guest = guests[0]
        first = None
        for number in range(rounds):
            guest.add(daemon, listen=50000)
            guest.migrate(daemon)
            guest.wait_under_way()
            daemon.control.call("session-cancel", id=guest.session)
            daemon.control.wait_session(guest.session)
            guest.source.wait_migration(("failed",), timeout=20)
            time.sleep(0.3)  # QEMU cleans up after a failed migration a moment later
            seen = (daemon.count("fd"), daemon.count("task"))
            first = first or seen
            expect(seen == first, "descriptors and threads: %s after %s", seen, first)
            if number == min(9, rounds - 2):
                resident = daemon.resident()
        grown = daemon.resident() - resident
        expect(grown < 8 * MIB, "%d KiB more are resident after the last session than after the tenth", grown >> 10)
        budget = daemon.control.call("query-host")["budget"]
        expect(budget["sessions"] == 0 and budget["connections"] == 0, "left over: %s", budget)
        return "descriptors and threads %s, %d KiB more resident" % (first, grown >> 10)
    return body


def killed(folder, stack):
    """The daemon is killed with two sessions under way: both sources are free soon, and a new daemon takes both in."""
    daemon, guests = _rig(folder, stack, 2, dirty_s=1.0, modes=MODES[:2], parameters={"max_bandwidth": SLOW // 4})
    _start_all(daemon, guests)
    os.kill(daemon.worker(), signal.SIGKILL)
    daemon.wait()
    second = stack.enter_context(Daemon(folder, daemon.network, name="second")).wait_ready()
    begun = time.monotonic()
    for guest in guests:
        guest.source.wait_migration(("failed",), timeout=10)
        expect(guest.source.running(), "the source's guest does not run on")
    free = time.monotonic() - begun
    expect(free < 5, "free only after %.1f s", free)
    time.sleep(1)  # QEMU cleans up after a failed migration a moment later
    for guest in guests:
        guest.add(second)
        guest.migrate(second)
    for guest in guests:
        guest.expect_arrives(second)
    return "free %.1f s after the second daemon was ready" % free


def _expect_last_arrives(daemon, guest):
    """The daemon drains, and ends with this one."""
    guest.source.set_parameters(max_bandwidth=FAST, downtime_limit=2000)
    guest.source.wait_migration(timeout=60)
    expect(daemon.wait() == 0, "the daemon ended badly: %s", daemon.log())
    for backend in guest.source.backends:
        expect_same_files(backend.id, guest.files[backend.id], backend.path)


def drained(folder, stack):
    """SIGTERM: what is under way arrives, nothing new is taken in."""
    daemon, guests = _rig(folder, stack, 2, dirty_s=1.0, modes=MODES[:2], parameters={"max_bandwidth": SLOW // 4})
    guests[0].add(daemon)
    guests[0].migrate(daemon)
    guests[0].wait_under_way()
    daemon.signal()
    deadline = time.monotonic() + 5
    while "draining" not in daemon.log():
        expect(time.monotonic() < deadline, "it does not drain: %s", daemon.log())
        time.sleep(0.02)
    with contextlib.suppress(ControlError):
        guests[1].add(daemon)
        expect(False, "a migration was taken in while it drains")
    _expect_last_arrives(daemon, guests[0])
    return ""


def budgets(folder, stack):
    """What does not fit is refused with numbers before its source has begun, and fits once a session has ended."""
    daemon, guests = _rig(folder, stack, 3, modes=MODES[:1], extra=("--sessions-max", "2"))
    guests[0].add(daemon)
    guests[1].add(daemon)
    try:
        guests[2].add(daemon)
        expect(False, "a third session of two was taken in")
    except ControlError as error:
        expect(error.error_class == "NoRoom" and "2 of 2" in str(error), "refused with %s", error)
    daemon.control.call("session-cancel", id=guests[0].session)
    daemon.control.wait_session(guests[0].session)
    guests[2].add(daemon)
    for guest in guests[1:]:
        guest.migrate(daemon)
        guest.expect_arrives(daemon)
    budget = daemon.control.call("query-host")["budget"]
    expect(budget["sessions"] == 0, "left over: %s", budget)
    return ""


@contextlib.contextmanager
def _client_that_says(command, word):
    """A program whose line with that word has come."""
    client = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        line = ""
        while word not in line:
            line = client.stdout.readline()
            expect(line, "the client ended with %s", client.poll())
        yield client
    finally:
        client.kill()
        client.stdout.close()
        client.wait()


def waits(folder, stack):
    """Who waits for room touches nothing, begins in the order of coming, and ends at once when it is to."""
    daemon, guests = _rig(folder, stack, 2, dirty_s=1.0, modes=MODES[:1], extra=("--sessions-max", "1"),
                          parameters={"max_bandwidth": SLOW // 4})
    guests[0].add(daemon)
    guests[1].add(daemon, until="queued", wait=True)
    told = daemon.control.call("query-session", id=guests[1].session)["progress"]
    expect("1 of 1 migrations" in told, "it says %s", told)
    made = [path for path in guests[1].files.values() if os.path.exists(path)]
    expect(not made, "files were made: %s", made)
    command = [migrx_program(), "receive", "--via", daemon.socket, "--no-handoff", "--wait", "--ram",
               "mem=%s,size=2M" % os.path.join(folder, "never")]
    with _client_that_says(command, "waits for room") as client:
        client.send_signal(signal.SIGTERM)
        expect(client.wait(5) == 2, "the client ended with %d", client.returncode)
    begun = time.monotonic()
    daemon.control.call("session-cancel", id=guests[0].session)
    daemon.control.wait_session(guests[1].session, ("ready",))
    taken = time.monotonic() - begun
    guests[1].migrate(daemon)
    guests[1].wait_under_way()
    guests[0].add(daemon, until="queued", wait=True)
    daemon.signal()
    end = daemon.control.wait_session(guests[0].session)
    expect(end["exit-status"] == 2 and "started anew" in end["summary"], "it waits on while the daemon drains: %s", end)
    _expect_last_arrives(daemon, guests[1])
    return "ready %.1f s after the other one was cancelled" % taken


def waits_for_a_port(folder, stack):
    """Who waits for another one's port takes no room, and has it as soon as that one is over."""
    daemon, guests = _rig(folder, stack, 3, modes=MODES[:1], extra=("--sessions-max", "2"))
    guests[0].add(daemon)
    guests[1].add(daemon, until="queued", wait=True, listen=guests[0].port)
    guests[2].add(daemon)
    guests[2].migrate(daemon)
    guests[2].expect_arrives(daemon)
    told = daemon.control.call("query-session", id=guests[1].session)
    expect(told["state"] == "queued" and "has that port" in told["progress"], "it says %s", told)
    guests[0].migrate(daemon)
    guests[0].expect_arrives(daemon)
    daemon.control.wait_session(guests[1].session, ("ready",))
    guests[1].migrate(daemon)
    guests[1].expect_arrives(daemon)


def another_client(folder, stack):
    """A client that sends nonsense, and one that leaves, change nothing for a migration."""
    daemon, guests = _rig(folder, stack, 1, modes=MODES[1:2])
    nonsense = Control(daemon.socket)
    nonsense._socket.sendall(b"\xff" * 70000)
    leaves = Control(daemon.socket)
    leaves.close()
    guests[0].add(daemon)
    guests[0].migrate(daemon)
    guests[0].expect_arrives(daemon)
    nonsense.close()
    return ""


def tls(folder, stack):
    """With x509, without TLS and with PSK, at once: each session has credentials of its own."""
    kinds = ("x509", None, "psk")
    modes = [dict(channels=2, parameters=PARAMETERS, extra=lambda _folder, kind=kind: pki.source_arguments(kind))
             if kind else dict(channels=2) for kind in kinds]
    pki.folder()
    daemon, guests = _rig(folder, stack, len(kinds), modes=modes)
    for guest, kind in zip(guests, kinds):
        guest.add(daemon, **({"tls_creds": "%s:dir=%s" % (kind, pki.folder())} if kind else {}))
    for guest in guests:
        guest.migrate(daemon)
    for guest, kind in zip(guests, kinds):
        guest.expect_arrives(daemon)
        report = daemon.control.call("query-session", id=guest.session)["report"]
        expect((report["tls"]["handshakes"] == 3) if kind else "tls" not in report, "%s: %s", kind, report.get("tls"))


def via(folder, stack):
    """`migrx receive --via` is the same command as without a daemon: ready line, report, exit status. `list` shows it."""
    daemon, guests = _rig(folder, stack, 1, modes=MODES[1:2], dirty_s=1.0)
    guest = guests[0]
    options, files = guest.transfer.ram_files(guest.folder, guest.source)
    report_path = os.path.join(folder, "via.json")
    command = [migrx_program(), "receive", "--via", daemon.socket, "--no-handoff", "--multifd-channels",
               str(guest.transfer.channels), "--listen", "50001", "--report", report_path]
    for item in options.items():
        command += ["--ram", "%s=%s" % item]
    with _client_that_says(command, "ready") as client:
        listed = subprocess.run([migrx_program(), "list", "--via", daemon.socket], capture_output=True, text=True, check=True)
        expect("s1" in listed.stdout and "50001" in listed.stdout, "list shows %s", listed.stdout)
        guest.source.migrate(daemon.uri(50001))
        guest.source.set_parameters(max_bandwidth=FAST, downtime_limit=2000)
        guest.source.wait_migration(timeout=60)
        expect(client.wait(30) == 0, "the client ended with %d", client.returncode)
    with open(report_path, encoding="utf-8") as file:
        report = json.load(file)
    expect(report["outcome"] == "complete", "the report says %s", report["outcome"])
    for backend in guest.source.backends:
        expect_same_files(backend.id, files[backend.id], backend.path)
    cancelled = subprocess.run([migrx_program(), "cancel", "s1", "--via", daemon.socket], capture_output=True, text=True,
                               check=False)
    return "cancel of what is over: %d, %s" % (cancelled.returncode, (cancelled.stdout + cancelled.stderr).strip())


def _read_screen(terminal, words, timeout=20.0):
    """What is drawn on the pseudo-terminal until it has all the words."""
    seen, deadline = "", time.monotonic() + timeout
    while not all(word in seen for word in words):
        expect(time.monotonic() < deadline, "the screen has not %s: %s", words, seen[-3000:])
        if select.select([terminal], [], [], 0.2)[0]:
            seen += os.read(terminal, 65536).decode(errors="replace")
    return seen


def top(folder, stack):
    """`migrx top`: a screen on a terminal, which gets its modes back; plain text elsewhere; the daemon's end is told."""
    daemon, guests = _rig(folder, stack, 1, dirty_s=1.0, modes=MODES[:1], parameters={"max_bandwidth": SLOW // 4})
    guests[0].add(daemon)
    guests[0].migrate(daemon)
    guests[0].wait_under_way()
    terminal, inside = pty.openpty()
    command = [migrx_program(), "top", "--via", daemon.socket, "--interval", "0.2"]
    try:
        fcntl.ioctl(inside, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 100, 0, 0))
        before = termios.tcgetattr(inside)
        client = subprocess.Popen(command, stdin=inside, stdout=inside, stderr=inside)
        try:
            seen = _read_screen(terminal, ("\x1b[H", "migrations 1 of 16", "precopy", "iB/s", "of its turns"))
            screen = seen.split("\x1b[H\x1b[J")[-2].replace("\r", "").split("\n")
            expect(len(screen) <= 24 and all(len(line) < 100 for line in screen), "it does not fit: %s", screen)
            expect(not termios.tcgetattr(inside)[3] & termios.ICANON, "keys wait for the end of a line")
            os.write(terminal, b"q")
            expect(client.wait(5) == 0, "after q it ended with %s", client.returncode)
            expect(termios.tcgetattr(inside) == before, "the terminal's modes are not as they were")
        finally:
            client.kill()
            client.wait()
    finally:
        os.close(terminal)
        os.close(inside)
    plain = subprocess.run([*command, "--count", "2"], capture_output=True, text=True, check=True, timeout=20).stdout
    expect(plain.count("migrx at ") == 2 and "\x1b" not in plain, "not two plain screens: %s", plain)
    watching = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    try:
        guests[0].expect_arrives(daemon)
        daemon.signal()
        told = watching.communicate(timeout=20)[1]
    finally:
        watching.kill()
        watching.wait()
    expect(watching.returncode == 1 and told.startswith("migrx: "), "with the daemon it ended with %d: %s",
           watching.returncode, told)
    missing = subprocess.run([*command[:3], os.path.join(folder, "nobody"), "--count", "1"], capture_output=True, text=True,
                             check=False, timeout=20)
    expect(missing.returncode == 2, "without a daemon it ended with %d: %s", missing.returncode, missing.stderr)
    return told.strip()


def _told(daemon, condition, timeout=10.0):
    """The metrics' samples once they are so; they are made anew once a second."""
    deadline = time.monotonic() + timeout
    while True:
        text = scrape(daemon.network.receiver, METRICS_PORT)
        samples = samples_of(text)
        if condition(samples):
            return text, samples
        expect(time.monotonic() < deadline, "metrics: %s", text)
        time.sleep(0.2)


def metrics(folder, stack):
    """Each session's numbers under its name, while it waits, runs and is over; the host's and the daemon's once."""
    daemon, guests = _rig(folder, stack, 3, modes=MODES[:2], extra=("--metrics", str(METRICS_PORT), "--sessions-max", "2"))

    def state(samples, guest, name):
        return samples.get(("migrx_session_state", 'session="%s",state="%s"' % (guest.session, name))) == 1
    for guest in guests[:2]:
        guest.add(daemon)
    guests[2].add(daemon, until="queued", wait=True)
    try:
        daemon.control.call("session-add", ram=["mem=%s/other,size=16M" % folder], no_handoff=True, listen=guests[1].port)
        expect(False, "a port that is taken was given away")
    except ControlError as error:
        expect(error.error_class == "NoRoom", "refused as %s", error)
    text, samples = _told(daemon, lambda told: state(told, guests[2], "queued") and told["migrx_serve_refused_total", ""] == 1)
    lint(text)
    host = daemon.control.call("query-host")
    for (where, name), (metric, _kind) in metric_table().items():
        if where == "daemon":
            value = functools.reduce(lambda part, word: part[word], name.split("."), host)
            expect(samples.get((metric, "")) == value, "%s is %s, query-host has %s", metric, samples.get((metric, "")), value)
    expect(state(samples, guests[0], "listening") and state(samples, guests[1], "listening"), "not listening: %s", text)
    expect(samples["migrx_serve_sessions", ""] == 2 and samples["migrx_serve_sessions_waiting", ""] == 1, "%s", text)

    guests[1].migrate(daemon)
    guests[1].expect_arrives(daemon)
    report = daemon.control.call("query-session", id=guests[1].session)["report"]
    text, samples = _told(daemon, lambda told: state(told, guests[1], "done") and state(told, guests[2], "listening"))
    lint(text)
    label = 'session="%s"' % guests[1].session
    expect(samples["migrx_session_guest_bytes_total", label] == report["guest_bytes_loaded"], "guest bytes: %s", text)
    expect(samples["migrx_session_wire_bytes_total", label] == report["wire_bytes"], "wire bytes: %s", text)
    for name in ("packets", "normal_pages", "payload_bytes", "bytes"):
        where = "each channel" if name == "bytes" else "multifd channel"
        whole = sum(channel.get(name, 0) for channel in report["channels"] if channel["name"] != "main")
        told = samples[metric_table()[where, name][0], label + ',channel="multifd"']
        expect(told == whole > 0, "%s of all channels: %s, the report has %s", name, told, whole)
    expect(samples["migrx_serve_completed_total", ""] == 1, "%s", text)

    daemon.control.call("session-cancel", id=guests[2].session)
    _told(daemon, lambda told: state(told, guests[2], "failed") and told["migrx_serve_failed_total", ""] == 1)
    for _ in range(17):  # the last sixteen that are over have metrics
        other = daemon.control.call("session-add", ram=["mem=%s/other,size=2M" % folder], no_handoff=True)["id"]
        daemon.control.call("session-cancel", id=other)
        daemon.control.wait_session(other)
    text, _samples = _told(daemon, lambda told: told.get(
        ("migrx_session_state", 'session="%s",state="failed"' % other)) == 1)
    named = set(re.findall(r'session="(s\d+)"', text))
    expect(len(named) == 17 and guests[0].session in named and guests[1].session not in named, "sessions: %s", named)
    taken = subprocess.run(in_namespace(daemon.network.receiver, [word.replace("daemon.control", "other.control")
                                                                  for word in daemon.command]),
                           capture_output=True, text=True, check=False, timeout=20)
    expect(taken.returncode == 2 and "--metrics: cannot listen" in taken.stderr, "with the same port it ended with %d: %s",
           taken.returncode, taken.stderr)
    guests[0].migrate(daemon)
    guests[0].expect_arrives(daemon)


def unprivileged(folder, stack):
    """A member of the group that is not root: what is the host's is refused, memory below its folder is taken."""
    nobody = pwd.getpwnam("nobody")
    own = os.path.join(folder, "own")
    os.makedirs(own)
    os.chown(own, nobody.pw_uid, nobody.pw_gid)
    os.chmod(folder, 0o755)
    need("10")
    network = stack.enter_context(Network(9000))
    daemon = stack.enter_context(Daemon(folder, network, ("--group", grp.getgrgid(nobody.pw_gid).gr_name,
                                                          "--client-folder", own))).wait_ready()
    script = """
import json, socket, sys
client = socket.socket(socket.AF_UNIX)
client.connect("/proc/self/fd/%%s/%%s" %% (sys.argv[1], sys.argv[2]))
lines = client.makefile("r")
lines.readline()
def call(command, arguments):
    client.sendall(json.dumps({"execute": command, "arguments": arguments}).encode() + b"\\n")
    while True:
        answer = json.loads(lines.readline())
        if "event" not in answer:
            return answer
def add(path, **more):
    return call("session-add", dict({"ram": ["mem=" + path + ",size=2M"], "no-handoff": True}, **more))
out = {"own": add(sys.argv[3] + "/mine"), "roots": add(sys.argv[4] + "/roots"),
       "link": add(sys.argv[3] + "/../roots"), "port": add(sys.argv[3] + "/other", listen=22),
       "allow": add(sys.argv[3] + "/other", allow="0.0.0.0/0"),
       "quit": call("quit", {}),
       "handoff": call("session-add", {"ram": ["mem=" + sys.argv[3] + "/x,size=2M"], "handoff": "tcp:127.0.0.1:4444"})}
print(json.dumps(out))
""".replace("%%", "%")
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        done = subprocess.run(["setpriv", "--reuid=%d" % nobody.pw_uid, "--regid=%d" % nobody.pw_gid, "--clear-groups",
                               "/usr/bin/python3", "-c", script, str(handle), os.path.basename(daemon.socket), own, folder],
                              capture_output=True, text=True, pass_fds=(handle,), check=False)
    finally:
        os.close(handle)
    expect(done.returncode == 0, "the unprivileged client failed: %s", done.stderr)
    answers = json.loads(done.stdout)
    expect("return" in answers["own"], "its own folder: %s", answers["own"])
    daemon.control.wait_session(answers["own"]["return"]["id"], ("ready",))
    expect(os.stat(os.path.join(own, "mine")).st_uid == nobody.pw_uid, "the file is not the client's")
    for name in ("port", "quit", "handoff", "allow"):
        expect(answers[name].get("error", {}).get("class") == "NotPermitted", "%s: %s", name, answers[name])
    for name in ("roots", "link"):
        if "return" in answers[name]:
            end = daemon.control.wait_session(answers[name]["return"]["id"])
            expect(end["exit-status"] == 2, "%s: %s", name, end)
        expect(not os.path.exists(os.path.join(folder, "roots")), "a file was made as root")
    return "; ".join(answers[name]["error"]["desc"] for name in ("port", "quit"))


def unprivileged_destination(folder, stack):
    """A member of the group that is not root hands a guest to a QEMU of its own; nobody else's can be named."""
    need("10")
    nobody = pwd.getpwnam("nobody")
    as_nobody = ["setpriv", "--reuid=%d" % nobody.pw_uid, "--regid=%d" % nobody.pw_gid, "--clear-groups"]
    own = os.path.join(folder, "own")
    os.makedirs(own)
    os.chown(own, nobody.pw_uid, nobody.pw_gid)
    os.chmod(folder, 0o755)
    network = stack.enter_context(Network(9000))
    daemon = stack.enter_context(Daemon(folder, network, ("--group", grp.getgrgid(nobody.pw_gid).gr_name,
                                                          "--client-folder", own))).wait_ready()
    transfer = Transfer("10", dirty_s=1.0)
    source = transfer.start_source(folder, stack, network)

    def destination(name, **settings):
        backends = [Backend(backend.id, backend.size, path=os.path.join(own, "%s.%s" % (name, backend.id)))
                    for backend in source.backends]
        qmp = os.path.join(own, name + ".second")
        machine = stack.enter_context(Machine(own, "10", backends=backends, incoming="defer", name=name,
                                              extra=("-qmp", "unix:%s,server=on,wait=off" % qmp), **settings))
        return machine, qmp, ["--ram=%s=%s,size=%d" % (backend.id, backend.path, backend.size) for backend in backends]

    # Anybody may talk to root's, and write its memory: whose it is forbids it.
    roots, roots_qmp, roots_ram = destination("roots")
    for path in (roots_qmp, *(backend.path for backend in roots.backends)):
        os.chmod(path, 0o666)
    theirs, qmp, ram = destination("theirs", prefix=as_nobody)
    receive = [*as_nobody, migrx_program(), "receive", "--via", daemon.socket, "--listen", "49160"]
    incoming = "unix:" + os.path.join(own, "incoming")
    for words, options in ((("another user listens there",), ["--qmp", "unix:" + roots_qmp, "--handoff", incoming, *roots_ram]),
                           (("may not name anything there",), ["--qmp", "unix:" + daemon.socket, "--handoff", incoming, *ram]),
                           (("No such file",), ["--handoff", incoming, *ram]),
                           (("only root may name an address of TCP",), ["--handoff", "tcp:127.0.0.1:4446", *ram]),
                           (("only root may name a process",),
                            ["--handoff", incoming, "--destination-pid", str(theirs.process.pid), *ram])):
        refused = subprocess.run([*receive, *options], capture_output=True, text=True, check=False, timeout=30)
        expect(refused.returncode == 2, "%s: it ended with %d: %s", options, refused.returncode, refused.stderr)
        for word in words:
            expect(word in refused.stdout + refused.stderr, "%r is not said: %s", word, refused.stdout + refused.stderr)
    expect(roots.qmp.command("query-status")["status"] == "inmigrate", "root's QEMU was armed")
    with _client_that_says([*receive, "--qmp", "unix:" + qmp, "--handoff", incoming, *ram], "ready") as client:
        source.migrate(daemon.uri(49160))
        source.set_parameters(max_bandwidth=FAST, downtime_limit=2000)
        source.wait_migration(timeout=60)
        expect(client.wait(30) == 0, "the client ended with %d", client.returncode)
    deadline = time.monotonic() + 30
    while len(console_lines(theirs.console())) < 10 and time.monotonic() < deadline:
        time.sleep(0.05)
    expect_unbroken([source.console(), theirs.console()])
    expect(theirs.running() and not source.running(), "not exactly one guest runs")
    return "%d lines without a gap" % len(console_lines(theirs.console()))


def _case(name, body, quick=True):
    def run(folder):
        with contextlib.ExitStack() as stack:
            return body(folder, stack)
    return Case(name, run, quick, 240)


def cases():
    yield _case("serve-at-once-4-10", at_once("10", 4))
    yield _case("serve-at-once-3-7.2", at_once("7.2", 3), False)
    yield _case("serve-at-once-16-10", at_once("10", 16), False)
    yield _case("serve-cancel-one", one_of_many(_cancel))
    yield _case("serve-source-killed", one_of_many(_kill_source))
    yield _case("serve-memory-cut", one_of_many(_cut_memory))
    yield _case("serve-again", again_and_again(12))
    yield _case("serve-again-200", again_and_again(200), False)
    yield _case("serve-killed", killed)
    yield _case("serve-drained", drained)
    yield _case("serve-budgets", budgets)
    yield _case("serve-waits", waits)
    yield _case("serve-waits-port", waits_for_a_port)
    yield _case("serve-clients", another_client)
    yield _case("serve-tls", tls)
    yield _case("serve-via", via)
    yield _case("serve-unprivileged", unprivileged)
    yield _case("serve-unprivileged-destination", unprivileged_destination)
    yield _case("serve-top", top)
    yield _case("serve-metrics", metrics)
