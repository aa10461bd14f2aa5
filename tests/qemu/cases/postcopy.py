"""Postcopy: the guest goes on at the destination before all of its memory is there, and fetches the rest through migrx."""

import contextlib
import os
import time

from rig.compare import expect_same_files
from rig.guest import MIB, BusyGuest, console_lines, expect_unbroken
from rig.machine import Backend, Machine
from rig.network import Network
from rig.receiver import Receiver
from rig.runner import Case, expect
from rig.transfer import SLOW, need

SIZE = 64 * MIB
DIRTY = (8 * MIB, 24 * MIB)  # What the guest rewrites all the time: this is left behind at the switch.


class Postcopy:
    """A source that can switch, a destination that fetches, and migrx between them."""

    def __init__(self, folder, stack, source_version, version, machine="pc", channels=0, channels_there=0, preempt=False,
                 stopped=False, capabilities=None, receiver_extra=(), path=None, rate=2 * MIB):
        self.folder, self.channels = folder, channels
        network = stack.enter_context(Network())
        guest = BusyGuest("mixed", fill_end=SIZE - 2 * MIB, dirty_start=DIRTY[0], dirty_end=DIRTY[1], pages_per_tick=8)
        place = path or folder
        self.source = stack.enter_context(Machine(folder, source_version, machine, [
            Backend("mem", SIZE, path=os.path.join(place, "source.mem"))], guest, network.source))
        self.source.wait_console(b"filled")
        states = dict(capabilities or {}, postcopy_ram=True, postcopy_preempt=preempt)
        self.received = os.path.join(place, "received.mem")
        self.destination = stack.enter_context(Machine(
            folder, version, machine, [Backend("mem", SIZE, path=self.received)], namespace=network.source,
            incoming="defer", name="destination", extra=("-S",) if stopped else ()))
        self.destination.set_capabilities(**dict(states, multifd=channels_there > 0))
        if channels_there:
            self.destination.set_parameters(multifd_channels=channels_there)
        self.address = "unix:" + os.path.join(folder, "handoff.sock")
        self.destination.qmp.command("migrate-incoming", uri=self.address)
        self.source.set_capabilities(**dict(states, multifd=channels > 0))
        self.source.set_parameters(max_bandwidth=SLOW, downtime_limit=1, max_postcopy_bandwidth=rate)
        if channels:
            self.source.set_parameters(multifd_channels=channels)
        self.receiver = stack.enter_context(Receiver(folder, network, {"mem": "%s,size=%d" % (self.received, SIZE)},
                                                     channels, extra=receiver_extra, handoff=self.address, dump=False))
        expect(self.receiver.wait_ready(), "migrx never got ready: %s", self.receiver.log()[-2000:])

    def begin(self):
        self.source.migrate(self.receiver.uri)

    def wait_rounds(self, rounds=3, timeout=60):
        """Until the source has begun that many passes over RAM."""
        deadline = time.monotonic() + timeout
        while True:
            info = self.source.migration()
            expect(info["status"] in ("setup", "active"), "the source's migration is %s: %s; migrx: %s",
                   info["status"], info.get("error-desc", ""), self.receiver.log()[-2000:])
            if info.get("ram", {}).get("dirty-sync-count", 0) >= rounds:
                return
            expect(time.monotonic() < deadline, "no %d rounds: %r", rounds, info)
            time.sleep(0.02)

    def switch(self):
        self.source.qmp.command("migrate-start-postcopy")

    def wait_requests(self, count, timeout=60):
        """Until the guest has asked for that many pages at its new place."""
        deadline = time.monotonic() + timeout
        while self.source.migration().get("ram", {}).get("postcopy-requests", 0) < count:
            expect(time.monotonic() < deadline, "no %d requests: %r", count, self.source.migration())
            time.sleep(0.02)

    def recover(self):
        """Both QEMUs are paused, and go on through migrx."""
        ended = ("completed", "failed", "cancelled")
        for machine in (self.source, self.destination):
            machine.wait_migration(("postcopy-paused",), 60, ended)
        self.destination.qmp.command("migrate-recover", uri=self.address)
        self.source.qmp.command("migrate", uri=self.receiver.uri, resume=True)
        self.source.wait_migration(("postcopy-active", "completed"), 60, ("failed", "cancelled"))

    def expect_arrived(self, requests=True):
        """The source is through, and the guest goes on here, with all of its memory."""
        info = self.source.wait_migration(timeout=90, ended=("completed", "failed", "cancelled", "postcopy-paused"))
        status = self.receiver.wait(60)
        expect(status == 0, "migrx ended with %d: %s", status, self.receiver.log()[-2000:])
        asked = info["ram"]["postcopy-requests"]
        expect(not requests or asked > 0, "no page was asked for: nothing is shown")
        before = self.destination.counts()[-1]
        deadline = time.monotonic() + 60
        while self.destination.counts()[-1][1] < before[1] + 2:  # whole passes of its check of memory
            expect(self.destination.alive() and time.monotonic() < deadline, "the guest does not go on: %s",
                   self.destination.log())
            time.sleep(0.05)
        lines = expect_unbroken([self.source.console(), self.destination.console()])
        expect(self.destination.running() and not self.source.running(), "not exactly one guest runs")
        self.destination.qmp.command("stop")
        pages = expect_same_files("mem", self.received, self.source.backends[0].path,
                                  [(2 * MIB, DIRTY[0]), (DIRTY[1], SIZE)])
        return asked, lines, pages


def _arrives(source_version, version, switch=True, **settings):
    def run(folder):
        need(source_version)
        need(version)
        with contextlib.ExitStack() as stack:
            postcopy = Postcopy(folder, stack, source_version, version, **settings)
            postcopy.begin()
            postcopy.wait_rounds()
            if switch:
                postcopy.switch()
            else:
                postcopy.source.set_parameters(max_bandwidth=1 << 40, downtime_limit=2000)
            asked, lines, pages = postcopy.expect_arrived(requests=switch)
            return "%d requests, %d lines, %d pages compared" % (asked, len(lines), pages)
    return run


def _recovers(source_version, version, breaks, times=1, **settings):
    """`breaks(postcopy)` breaks a connection after the guest has asked for pages."""
    def run(folder):
        need(source_version)
        need(version)
        with contextlib.ExitStack() as stack:
            postcopy = Postcopy(folder, stack, source_version, version, **settings)
            postcopy.begin()
            postcopy.wait_rounds()
            postcopy.switch()
            for time_ in range(times):
                postcopy.wait_requests(5 * (time_ + 1))
                breaks(postcopy)
                postcopy.recover()
            asked, lines, pages = postcopy.expect_arrived()
            return "%d requests, %d lines, %d pages compared" % (asked, len(lines), pages)
    return run


def _source_pauses(postcopy):
    postcopy.source.wait_migration(("postcopy-active",))  # Since 10.2 it is postcopy-device before.
    postcopy.source.qmp.command("migrate-pause")


def _destination_pauses(postcopy):
    postcopy.destination.qmp.command("migrate-pause")


def cases():
    for version in ("7.2", "10", "newest"):
        yield Case("postcopy-recover-%s" % version, _recovers(version, version, _source_pauses), seconds=120)
        yield Case("postcopy-recover-twice-%s" % version, _recovers(version, version, _destination_pauses, times=2), seconds=120)
        yield Case("postcopy-recover-preempt-%s" % version, _recovers(version, version, _source_pauses, preempt=True), seconds=120)
    yield Case("postcopy-recover-multifd-newest", _recovers("newest", "newest", _source_pauses, channels=2), seconds=120)
    for version in ("7.2", "10", "newest"):
        yield Case("postcopy-%s" % version, _arrives(version, version), seconds=120)
        yield Case("postcopy-unused-%s" % version, _arrives(version, version, switch=False), seconds=120)
        yield Case("postcopy-preempt-%s" % version, _arrives(version, version, preempt=True), seconds=120)
    yield Case("postcopy-multifd-7.2", _arrives("7.2", "7.2", channels=2), seconds=120)
    yield Case("postcopy-multifd-newest", _arrives("newest", "newest", channels=2), seconds=120)
