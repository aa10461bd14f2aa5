"""The link is away for a while, or for good as far as migrx waits: the migration completes, or the source is told."""

import contextlib
import os
import signal
import time

from rig.compare import expect_same_files
from rig.guest import MIB, console_lines, expect_unbroken
from rig.machine import Backend, Machine
from rig.network import Network, attached
from rig.receiver import Receiver
from rig.runner import MACHINE, Case, expect
from rig.transfer import FAST, SLOW, Transfer, need

SOON_S = 5.0  # after the source's own retransmission has got through, or after the link is back for a reset
TAKEOVER_S = 1.0  # more than a receiver takes that has no predecessor
AT_ONCE_S = 3.0  # for the exit status of who gives up, on a machine that has others to serve


class _Outage:
    """A source and migrx on two hosts with a router in between, whose link can be cut; the guest is busy."""

    def __init__(self, folder, version, stack, destination=False):
        need(version)
        self.folder, self.stack = folder, stack
        # The guest may be too slow to dirty enough: its first pass alone lasts longer than all that precedes an outage.
        self.transfer = Transfer(version, channels=2, dirty_s=1.0, mtu=1500, parameters={"max_bandwidth": SLOW // 4})
        self.network = stack.enter_context(Network(self.transfer.mtu, impair={}))
        self.source = self.start_source(folder)
        self.destination = None
        path = os.path.join(folder, "received.mem")
        address = None
        if destination:
            self.destination = stack.enter_context(Machine(
                folder, version, "pc", [Backend("mem", self.transfer.size, path=path)],
                namespace=self.network.receiver, incoming="defer", name="destination", extra=("-S",)))
            address = "unix:" + os.path.join(folder, "handoff.sock")
            self.destination.qmp.command("migrate-incoming", uri=address)
        begun = time.monotonic()
        self.receiver = self.start_receiver("receiver", path, address)
        self.ready_s = time.monotonic() - begun
        self.source.migrate(self.receiver.uri)
        # More than windows and sockets hold: a destination has answered, and is read for.
        self.wait_transferred(self.source, 12 * MIB if destination else MIB)

    def start_source(self, folder):
        return self.transfer.start_source(folder, self.stack, self.network)

    def start_receiver(self, name, path, handoff=None):
        ram = path if handoff else "%s,size=%d" % (path, self.transfer.size)
        receiver = self.stack.enter_context(Receiver(self.folder, self.network, {"mem": ram}, self.transfer.channels,
                                                     handoff=handoff, name=name))
        with attached(self.network):  # a predecessor's interface goes, and its own comes
            expect(receiver.told_ready(), "migrx never got ready: %s", receiver.log()[-2000:])
        return receiver

    @staticmethod
    def wait_transferred(source, least=MIB):
        deadline = time.monotonic() + 30
        while source.migration().get("ram", {}).get("transferred", 0) < least:
            expect(time.monotonic() < deadline, "the migration never got going: %s", source.migration())
            time.sleep(0.05)

    def switch_over(self):
        self.source.set_parameters(max_bandwidth=FAST, downtime_limit=2000)

    def expect_completed(self, within, receiver=None):
        """The source completes and migrx says so; returns seconds."""
        begun = time.monotonic()
        self.source.wait_migration(timeout=within)
        taken = time.monotonic() - begun
        status = (receiver or self.receiver).wait(15)
        expect(status == 0, "migrx ended with %d: %s", status, self.receiver.log()[-2000:])
        return taken

    def expect_runs_at_destination(self):
        deadline = time.monotonic() + 20
        while self.destination.qmp.command("query-status")["status"] == "inmigrate":
            expect(time.monotonic() < deadline, "the destination is still waiting for the guest")
            time.sleep(0.02)
        self.destination.qmp.command("cont")
        while len(console_lines(self.destination.console())) < 5:
            expect(time.monotonic() < deadline, "the guest does not go on at the destination")
            time.sleep(0.05)
        expect_unbroken([self.source.console(), self.destination.console()])

    def expect_gives_up(self, harm):
        """`harm` makes migrx give up: its status comes at once, its source is not told, and one stays behind."""
        begun = time.monotonic()
        harm()
        status = self.receiver.wait(30)
        taken = time.monotonic() - begun
        expect(status == 1, "exit status %d, expected 1", status)
        expect(taken < AT_ONCE_S, "the exit status took %.1f s", taken)
        expect(self.source.migration()["status"] == "active", "told through a link that is away?")
        left = self.receiver.lingering()
        expect(list(left.values()) == [3], "who stays behind, and for how many: %s; %s", left, self.receiver.log())
        return next(iter(left)), taken

    def expect_source_free(self, within):
        begun = time.monotonic()
        self.source.wait_migration(("failed",), timeout=within)
        taken = time.monotonic() - begun
        expect(self.source.goes_on(), "the source's guest does not go on")
        return taken


def expect_nobody_behind(receiver, within):
    deadline = time.monotonic() + within
    while left := receiver.lingering():
        expect(time.monotonic() < deadline, "who stays behind, and for how many: %s", left)
        time.sleep(0.1)


def while_loading(version, seconds, moves=False):
    """All has been sent, the destination loads, and the link is away when its verdict comes. `moves`: when it is
    back, the gateway has another MAC address (as with VRRP), and nothing but migrx's own question can find that out.
    """
    def body(folder, stack):
        outage = _Outage(folder, version, stack, destination=True)
        os.kill(outage.destination.process.pid, signal.SIGSTOP)
        try:
            outage.switch_over()
            # QEMU 7.2 calls the migration active to its end: whether its guest stands tells.
            deadline = time.monotonic() + 30
            while outage.source.running():
                expect(time.monotonic() < deadline, "the source never switches over: %s", outage.source.migration())
                time.sleep(0.05)
            time.sleep(2.0)  # what is under way arrives
            outage.network.set_away(True)
        finally:
            os.kill(outage.destination.process.pid, signal.SIGCONT)
        time.sleep(seconds)
        expect(outage.receiver.alive(), "migrx gave up: %s", outage.receiver.log()[-2000:])
        expected = "active" if version == "7.2" else "device"
        expect(outage.source.migration()["status"] == expected, "the source is %s", outage.source.migration()["status"])
        if moves:
            outage.network.move_gateway()
        outage.network.set_away(False)
        taken = outage.expect_completed(SOON_S)
        outage.expect_runs_at_destination()
        return "completed %.1f s after the link was back" % taken
    return body


def mid_stream(version, seconds, switchover):
    """Away in precopy, or at the switchover; the source's own retransmission comes after at most as long again."""
    def body(folder, stack):
        outage = _Outage(folder, version, stack, destination=True)
        # Before the switchover one channel may get on while main still waits for its own retransmission.
        outage.source.qmp.wait_longer(seconds + 60 + SOON_S)
        if switchover:
            outage.switch_over()
            time.sleep(0.1)
        outage.network.set_away(True)
        time.sleep(seconds)
        expect(outage.receiver.alive(), "migrx gave up: %s", outage.receiver.log()[-2000:])
        outage.network.set_away(False)
        back = time.monotonic()
        if not switchover:
            sent = outage.source.migration()["ram"]["transferred"]
            deadline = back + seconds + 60
            while outage.source.migration()["ram"]["transferred"] <= sent:
                expect(time.monotonic() < deadline, "nothing moves after the outage")
                time.sleep(0.1)
            outage.switch_over()
        outage.expect_completed(seconds + 60 + SOON_S)
        outage.expect_runs_at_destination()
        expect("warning" not in outage.receiver.log(), "an outage is warned of: %s", outage.receiver.log()[-2000:])
        return "completed %.1f s after the link was back" % (time.monotonic() - back)
    return body


def gives_up(version, harm):
    """In an outage: the status at once; when the link is back the source's guest is free, and nobody is left."""
    def body(folder, stack):
        outage = _Outage(folder, version, stack)
        outage.network.set_away(True)
        time.sleep(1)
        _, taken = outage.expect_gives_up(lambda: harm(outage.receiver))
        with attached(outage.network):
            time.sleep(5)
            outage.network.set_away(False)
            free = outage.expect_source_free(SOON_S)
            deadline = time.monotonic() + 15
            while outage.receiver.lingering():
                expect(time.monotonic() < deadline, "somebody stays although all have been told")
                time.sleep(0.2)
        return "status after %.2f s, source free %.1f s after the link was back" % (taken, free)
    return body


def successor(version, killed):
    """Who gave up has a successor on the same address at once: it takes the port over, and both sources end right.
    `killed`: the one that stayed behind was killed as well, and its record is what is left."""
    def body(folder, stack):
        outage = _Outage(folder, version, stack)
        other_folder = os.path.join(folder, "other")
        os.makedirs(other_folder)
        other = outage.start_source(other_folder)
        outage.network.set_away(True)
        time.sleep(1)
        behind, _ = outage.expect_gives_up(outage.receiver.signal)
        if killed:
            os.kill(behind, signal.SIGKILL)
        begun = time.monotonic()
        path = os.path.join(folder, "second.mem")
        second = outage.start_receiver("second", path)
        ready = time.monotonic() - begun
        expect(ready <= outage.ready_s + TAKEOVER_S, "ready after %.1f s, the first one after %.1f s", ready, outage.ready_s)
        expect(not second.lingering(), "process %d still holds the port", behind)
        outage.network.set_away(False)
        free = outage.expect_source_free(SOON_S)
        other.migrate(second.uri)
        outage.wait_transferred(other)
        other.set_parameters(max_bandwidth=FAST, downtime_limit=2000)
        other.wait_migration(timeout=90)
        status = second.wait(15)
        expect(status == 0, "the second migrx ended with %d: %s", status, second.log()[-2000:])
        expect_same_files("mem", path, other.backends[0].path)
        # The second one's migration may be over before the first source's connections are known to be gone.
        expect_nobody_behind(second, 30)
        expect("reset from here on" in second.log(), "it took nothing over: %s", second.log())
        return "ready after %.1f s, the first source free %.1f s after the link was back" % (ready, free)
    return body


def _kill_worker(receiver):
    for child in receiver.children():
        os.kill(child, signal.SIGKILL)


def both_and_group(version):
    """A signal for parent and worker at once, and for the whole group, is one: the worker is told once."""
    def body(folder, stack):
        outage = _Outage(folder, version, stack)
        receiver = outage.receiver
        for process in (receiver.process.pid, *receiver.children()):
            os.kill(process, signal.SIGTERM)
        expect(receiver.wait(20) == 1, "exit status %s", receiver.process.returncode)
        told = receiver.log().count("SIGTERM")
        expect(told == 1, "SIGTERM was taken %d times: %s", told, receiver.log())
        outage.expect_source_free(SOON_S)
        return ""
    return body


def _case(name, body, timeout, waits=True, quick=True, needs=""):
    def run(folder):
        with contextlib.ExitStack() as stack:
            return body(folder, stack)
    return Case(name, run, quick, timeout, needs, waits)


def cases():
    """They wait for minutes, beside others. Twice 120 s only with --all: a migrx that sleeps costs a fifth of a core."""
    yield _case("outage-verdict-65s-10", while_loading("10", 65), 240)
    yield _case("outage-verdict-120s-7.2", while_loading("7.2", 120), 300)
    for seconds in (65, 120):
        yield _case("outage-precopy-%ds-10" % seconds, mid_stream("10", seconds, False), 600, quick=seconds < 120)
        yield _case("outage-switchover-%ds-10" % seconds, mid_stream("10", seconds, True), 600, quick=seconds < 120)
    yield _case("outage-gateway-moves-10", while_loading("10", 5, moves=True), 120, waits=False)
    yield _case("outage-sigterm-10", gives_up("10", lambda receiver: receiver.signal()), 150)
    yield _case("outage-sigkill-7.2", gives_up("7.2", _kill_worker), 150)
    # They measure.
    yield _case("outage-successor-10", successor("10", False), 240, False, needs=MACHINE)
    yield _case("outage-successor-of-killed-10", successor("10", True), 240, False, needs=MACHINE)
    yield _case("signals-both-7.2", both_and_group("7.2"), 120, waits=False)
