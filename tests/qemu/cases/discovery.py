"""`migrx serve --serve-ports`: destination QEMUs are found by the port that they wait on; nobody tells migrx of them."""

import contextlib
import os
import time

from rig.daemon import Daemon
from rig.guest import console_lines, expect_unbroken
from rig.machine import Backend, Machine
from rig.network import Network, _ip
from rig.runner import Case, Failure, expect
from rig.transfer import FAST, Transfer, need

_FIRST = 49152
_SERVE = ("--serve-ports", "49152-49215", "--listen-range", "4444-4450")


class _Pair:
    """A source, and a destination QEMU that waits on a TCP port of the daemon's host as anybody would start it."""

    def __init__(self, folder, stack, network, number, version, channels=0, kind="memfd"):
        self.folder = os.path.join(folder, "guest%d" % number)
        os.makedirs(self.folder)
        self.port = _FIRST + number
        self._stack, self._version, self._kind = stack, version, kind
        self._network = network
        self._transfer = Transfer(version=version, channels=channels)
        self.source = self._transfer.start_source(self.folder, stack, network)
        self.destination = None

    def start_destination(self, address="127.0.0.1", size=None):
        backends = [Backend(backend.id, size or backend.size, kind=self._kind,
                            path=os.path.join(self.folder, "destination." + backend.id) if self._kind == "file" else "")
                    for backend in self.source.backends]
        self.destination = self._stack.enter_context(Machine(
            self.folder, self._version, self._transfer.machine, backends, namespace=self._network.receiver,
            incoming="defer", name="destination"))
        self.destination.set_capabilities(return_path=True, multifd=self._transfer.channels > 0)
        if self._transfer.channels:
            self.destination.set_parameters(multifd_channels=self._transfer.channels)
        self.listen(address)
        return self

    def listen(self, address="127.0.0.1"):
        self.destination.qmp.command("migrate-incoming", uri="tcp:%s:%d" % (address, self.port))

    def migrate(self, daemon):
        self.source.migrate(daemon.uri(self.port))

    def expect_arrived(self):
        self.source.set_parameters(max_bandwidth=FAST, downtime_limit=2000)
        self.source.wait_migration(timeout=90)
        deadline = time.monotonic() + 30
        while len(console_lines(self.destination.console())) < 20 and time.monotonic() < deadline:
            time.sleep(0.05)
        expect_unbroken([self.source.console(), self.destination.console()])
        expect(self.destination.running() and not self.source.running(), "not exactly one guest runs")

    def expect_refused(self, within):
        """The source is told that nobody takes its guest, which runs on."""
        begun = time.monotonic()
        self.source.wait_migration(states=("failed",), timeout=within)
        expect(self.source.running(), "the guest stands still at its source")
        return time.monotonic() - begun


def _rig(folder, stack, extra=()):
    network = stack.enter_context(Network(9000))
    _ip("-n", network.receiver, "link", "set", "lo", "up")
    return stack.enter_context(Daemon(folder, network, (*_SERVE, *extra))).wait_ready()


def _sessions(daemon):
    return daemon.control.call("query-sessions")


def _wait_sessions(daemon, wanted, within=10.0):
    deadline = time.monotonic() + within
    while True:
        sessions = [session for session in _sessions(daemon) if session["state"] != "done"]
        if len(sessions) == wanted:
            return sessions
        expect(time.monotonic() < deadline, "%d sessions are under way, not %d: %s", len(sessions), wanted, daemon.log())
        time.sleep(0.05)


def found(version):
    """Four at once, precopy and multifd, memfd and file, listeners of one address, of all, and by two sockets."""
    def body(folder, stack):
        need(version)
        daemon = _rig(folder, stack)
        pairs = [_Pair(folder, stack, daemon.network, number, version, channels=(0, 4)[number % 2],
                       kind=("memfd", "file")[number // 2]) for number in range(4)]
        for pair, address in zip(pairs, ("127.0.0.1", "0.0.0.0", "127.0.0.2", "")):
            pair.start_destination(address)
        for pair in pairs:
            pair.migrate(daemon)
        for pair in pairs:
            try:
                pair.expect_arrived()
            except Exception as error:
                raise Failure("%s: %s; the destination: %s; the daemon: %s" % (
                    pair.port, error, pair.destination.log()[-500:], daemon.log()[-2000:])) from error
        _wait_sessions(daemon, 0)
        outcomes = [session["outcome"] for session in _sessions(daemon)]
        expect(outcomes == ["complete"] * 4, "%s", outcomes)
        for session in ("s1", "s2", "s3", "s4"):
            expect(session + ": complete: " in daemon.log(), "nothing is said of the end of %s: %s", session, daemon.log())
        expect("waits for a guest, and so" not in daemon.log(), "one that listens twice was taken for two: %s", daemon.log())
    return body


def at_the_same_moment(folder, stack):
    """The source connects in the moment in which its destination begins to listen: its SYN is not refused."""
    need("10")
    daemon = _rig(folder, stack)
    for number in range(3):
        pair = _Pair(folder, stack, daemon.network, number, "10").start_destination()
        pair.migrate(daemon)
        pair.expect_arrived()


def nobody_listens(folder, stack):
    """A port without a destination: refused within two retransmissions, before and after one was there."""
    need("10")
    daemon = _rig(folder, stack)
    pair = _Pair(folder, stack, daemon.network, 0, "10")
    pair.migrate(daemon)
    first = pair.expect_refused(within=5)
    pair.start_destination()
    _wait_sessions(daemon, 1)
    pair.destination.close()
    _wait_sessions(daemon, 0)
    pair.migrate(daemon)
    second = pair.expect_refused(within=5)
    return "refused after %.1f and %.1f s" % (first, second)


def cannot_be_filled(folder, stack):
    """A destination whose memory is private: the daemon says what to do, the source is refused; others go on."""
    need("10")
    daemon = _rig(folder, stack)
    private = _Pair(folder, stack, daemon.network, 0, "10", kind="ram").start_destination()
    other = _Pair(folder, stack, daemon.network, 1, "10").start_destination()
    private.migrate(daemon)
    other.migrate(daemon)
    private.expect_refused(within=5)
    other.expect_arrived()
    expect("port 49152: no guest can be taken in there: its memory mem is not shared: give" in daemon.log(), "%s",
           daemon.log())


def cannot_be_reached(folder, stack):
    """A destination that listens on [::] alone, on a host without an IPv6 address: the daemon says what to do."""
    need("10")
    daemon = _rig(folder, stack)
    pair = _Pair(folder, stack, daemon.network, 0, "10").start_destination("[::]")
    pair.migrate(daemon)
    pair.expect_refused(within=8)
    expect("it listens on tcp:[::1]:49152 alone, which cannot be reached from here" in daemon.log(), "%s", daemon.log())


def other_user(folder, stack):
    """The users whose QEMUs get guests are named, and root, whose this one is, is not among them."""
    need("10")
    daemon = _rig(folder, stack, ("--serve-users", "nobody"))
    pair = _Pair(folder, stack, daemon.network, 0, "10").start_destination()
    pair.migrate(daemon)
    pair.expect_refused(within=5)
    expect("runs as user 0, who is not among --serve-users" in daemon.log(), "%s", daemon.log())


def one_place(folder, stack):
    """Two destinations and room for one: the second source waits, and comes in when the first is over."""
    need("10")
    daemon = _rig(folder, stack, ("--sessions-max", "1"))
    first, second = (_Pair(folder, stack, daemon.network, number, "10") for number in range(2))
    first.start_destination()
    _wait_sessions(daemon, 1)
    second.start_destination()
    second.migrate(daemon)
    deadline = time.monotonic() + 10
    while "waits for a guest, and so does its source for room here" not in daemon.log():
        expect(time.monotonic() < deadline, "nothing is said of the second: %s", daemon.log())
        time.sleep(0.05)
    first.migrate(daemon)
    first.expect_arrived()
    second.expect_arrived()


def a_running_qemu(listens):
    """A guest that arrived and runs, with `-incoming` on its command line, and listens once more: it is not touched."""
    def body(folder, stack):
        need("10")
        daemon = _rig(folder, stack)
        pair = _Pair(folder, stack, daemon.network, 0, "10").start_destination()
        pair.migrate(daemon)
        pair.expect_arrived()
        listens(pair.destination.qmp)
        other = _Pair(folder, stack, daemon.network, 8, "10")
        other.migrate(daemon)
        took = other.expect_refused(within=150)
        before = len(console_lines(pair.destination.console()))
        deadline = time.monotonic() + 30
        while len(console_lines(pair.destination.console())) < before + 10:
            expect(time.monotonic() < deadline, "the guest stands still")
            time.sleep(0.1)
        expect_unbroken([pair.source.console(), pair.destination.console()])
        return "refused after %.1f s" % took
    return body


def _nbd(qmp):
    """A server for its disks, whose port libvirt takes from the same range."""
    qmp.command("nbd-server-start", addr={"type": "inet", "data": {"host": "127.0.0.1", "port": "49160"}})


def _chardev(qmp):
    """A socket for one client, as the migration's is; what is read from it goes nowhere."""
    qmp.command("chardev-add", id="other", backend={"type": "socket", "data": {
        "addr": {"type": "inet", "data": {"host": "127.0.0.1", "port": "49160"}}, "server": True, "wait": False}})


def _case(name, body, quick=True):
    def run(folder):
        with contextlib.ExitStack() as stack:
            return body(folder, stack)
    return Case(name, run, quick, 240)


def cases():
    """All cases of --serve-ports."""
    for version in ("7.2", "10", "newest"):
        yield _case("serve-found-%s" % version, found(version), version == "7.2")
    yield _case("serve-found-at-once", at_the_same_moment)
    yield _case("serve-found-nobody", nobody_listens)
    yield _case("serve-found-private", cannot_be_filled)
    yield _case("serve-found-other-user", other_user)
    yield _case("serve-found-unreachable", cannot_be_reached)
    yield _case("serve-found-one-place", one_place)
    yield _case("serve-found-running-nbd", a_running_qemu(_nbd))
    yield _case("serve-found-running-chardev", a_running_qemu(_chardev), False)
