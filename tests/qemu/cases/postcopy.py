"""Postcopy: the guest goes on at the destination before all of its memory is there, and fetches the rest through migrx."""

import contextlib
import os
import signal
import time

from rig import hugepages, pki
from rig.compare import expect_same_files
from rig.guest import MIB, BusyGuest, expect_unbroken
from rig.machine import Backend, Machine
from rig.network import RECEIVER, Network
from rig.receiver import Receiver
from rig.runner import Case, expect
from rig.transfer import FAST, SLOW, need

SIZE = 64 * MIB
DIRTY = (8 * MIB, 24 * MIB)  # What the guest rewrites all the time: this is left behind at the switch.
ENDED = ("failed", "cancelled")
ADDRESS = "handoff.sock"


class Postcopy:
    """A source that can switch, a destination that fetches, and migrx between them.

    `preempt`: both have postcopy-preempt. `stopped`: the destination waits for `cont` (-S). `channels_there`: of multifd at
    the destination. `by_qmp`: migrx prepares the destination. `path`, `path_there`: folders of memory files.
    `capabilities_there`: other ones than the source's. `creds`: x509 or psk, of source and destination.
    """

    def __init__(self, folder, stack, source_version, version, machine="pc", channels=0, channels_there=0, preempt=False,
                 stopped=False, by_qmp=False, capabilities=None, capabilities_there=None, receiver_extra=(), path=None,
                 path_there=None, rate=2 * MIB, creds=None):
        self.folder = folder
        self.network = stack.enter_context(Network())
        guest = BusyGuest("mixed", fill_end=SIZE - 2 * MIB, dirty_start=DIRTY[0], dirty_end=DIRTY[1], pages_per_tick=8)
        memory = Backend("mem", SIZE, path=os.path.join(path or folder, "source.mem"))
        self.source = stack.enter_context(Machine(folder, source_version, machine, [memory], guest, self.network.source,
                                                  extra=pki.source_arguments(creds) if creds else ()))
        self.source.wait_console(b"filled")
        self.released = bool(capabilities and capabilities.get("release_ram"))  # The source keeps no memory to compare.
        states = dict(capabilities or {}, postcopy_ram=True, postcopy_preempt=preempt)
        self.received = os.path.join(path_there or path or folder, "received.mem")
        qmp = os.path.join(folder, "prepare.qmp")
        extra = (("-S",) if stopped else ()) + tuple(pki.destination_arguments(creds) if creds else ())
        self.destination = stack.enter_context(Machine(
            folder, version, machine, [Backend("mem", SIZE, path=self.received)], namespace=self.network.source,
            incoming="defer", name="destination", extra=(*extra, "-qmp", "unix:%s,server=on,wait=off" % qmp)))
        self.address = "unix:" + os.path.join(folder, ADDRESS)
        options = list(receiver_extra)
        if creds:
            options += ["--tls-creds", "%s:dir=%s" % (creds, pki.folder()), "--handoff-tls-creds",
                        "%s:dir=%s" % (creds, pki.folder())]
            options += ["--handoff-tls-hostname", RECEIVER] if creds == "x509" else []
            self.destination.set_parameters(tls_creds="tls0")
            self.source.set_parameters(tls_creds="tls0")
        if by_qmp:
            options += ["--qmp", "unix:" + qmp, "--capability", "postcopy-ram"]
            options += ["--capability", "postcopy-preempt"] if preempt else []
        else:
            there = states if capabilities_there is None else capabilities_there
            self.destination.set_capabilities(**dict(there, multifd=channels_there > 0))
            if channels_there:
                self.destination.set_parameters(multifd_channels=channels_there)
            self.destination.qmp.command("migrate-incoming", uri=self.address)
        self.source.set_capabilities(**dict(states, multifd=channels > 0))
        self.source.set_parameters(max_bandwidth=SLOW, downtime_limit=1, max_postcopy_bandwidth=rate)
        if channels:
            self.source.set_parameters(multifd_channels=channels)
        self.receiver = stack.enter_context(Receiver(
            folder, self.network, {"mem": "%s,size=%d" % (self.received, SIZE)}, channels, extra=options,
            handoff=self.address, dump=False))
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
        """The source switches, and says so: since 10.2 it is postcopy-device before it is postcopy-active."""
        self.source.qmp.command("migrate-start-postcopy")
        self.source.wait_migration(("postcopy-active", "completed"), 60, ENDED)

    def wait_requests(self, count, timeout=60):
        """Until the guest has asked for that many pages at its new place."""
        deadline = time.monotonic() + timeout
        while self.source.migration().get("ram", {}).get("postcopy-requests", 0) < count:
            expect(time.monotonic() < deadline, "no %d requests: %r", count, self.source.migration())
            time.sleep(0.02)

    def wait_paused(self):
        """Both QEMUs have seen the break; nobody's guest is lost."""
        for machine in (self.source, self.destination):
            machine.wait_migration(("postcopy-paused",), 60, ("completed", *ENDED))

    def recover(self):
        """Both go on over new connections, through migrx."""
        self.wait_paused()
        self.destination.qmp.command("migrate-recover", uri=self.address)
        self.source.qmp.command("migrate", uri=self.receiver.uri, resume=True)
        self.source.wait_migration(("postcopy-active", "completed"), 60, ENDED)

    def expect_arrived(self, requests=True):
        """The source is through, and the guest goes on here, with all of its memory. Returns a remark."""
        info = self.source.wait_migration(timeout=90, ended=(*ENDED, "postcopy-paused"))
        status = self.receiver.wait(60)
        expect(status == 0, "migrx ended with %d: %s", status, self.receiver.log()[-2000:])
        asked = info["ram"]["postcopy-requests"]
        expect(not requests or asked > 0, "no page was asked for: nothing is shown")
        numbers = self.receiver.report().get("postcopy")
        expect(bool(numbers) == requests, "the report says of postcopy: %r", numbers)
        expect(not requests or (numbers["requests"] > 0 and numbers["discarded_pages"] > 0), "the report: %r", numbers)
        before = self.destination.counts()[-1]
        deadline = time.monotonic() + 60
        while self.destination.counts()[-1][1] < before[1] + 2:  # whole passes of its check of memory
            expect(self.destination.alive() and time.monotonic() < deadline, "the guest does not go on: %s",
                   self.destination.log())
            time.sleep(0.05)
        lines = expect_unbroken([self.source.console(), self.destination.console()])
        expect(self.destination.running() and not self.source.running(), "not exactly one guest runs")
        self.destination.qmp.command("stop")
        if self.released:
            return "%d requests, %d lines" % (asked, len(lines))
        pages = expect_same_files("mem", self.received, self.source.backends[0].path,
                                  [(2 * MIB, DIRTY[0]), (DIRTY[1], SIZE)])
        return "%d requests, %d lines, %d pages compared" % (asked, len(lines), pages)


@contextlib.contextmanager
def _made(folder, source_version, version, **settings):
    need(source_version)
    need(version)
    with contextlib.ExitStack() as stack:
        if settings.pop("huge", False):
            settings["path"] = hugepages.hugetlb_folder(2 * SIZE)
        yield Postcopy(folder, stack, source_version, version, **settings)


def _arrives(source_version, version, switch=True, during=None, **settings):
    """`during(postcopy)`: after the switch, while pages are missing."""
    def run(folder):
        with _made(folder, source_version, version, **settings) as postcopy:
            postcopy.begin()
            postcopy.wait_rounds()
            if switch:
                postcopy.switch()
            else:
                postcopy.source.set_parameters(max_bandwidth=FAST, downtime_limit=2000)
            if settings.get("stopped"):
                postcopy.destination.qmp.command("cont")
            if during:
                postcopy.wait_requests(3)
                during(postcopy)
            remark = postcopy.expect_arrived(requests=switch)
            urgent = postcopy.receiver.report().get("postcopy", {}).get("urgent_bytes", 0)
            expect((urgent > 0) == bool(settings.get("preempt") and switch), "%d urgent bytes", urgent)
            return remark
    return run


def _recovers(source_version, version, breaks, times=1, requests=5, **settings):
    """`breaks(postcopy)` breaks a connection after the guest has asked for pages."""
    def run(folder):
        with _made(folder, source_version, version, **settings) as postcopy:
            postcopy.begin()
            postcopy.wait_rounds()
            postcopy.switch()
            for time_ in range(times):
                postcopy.wait_requests(requests * (time_ + 1))
                breaks(postcopy)
                postcopy.recover()
            remark = postcopy.expect_arrived()
            pauses = postcopy.receiver.report()["postcopy"]["pauses"]
            expect(pauses == times, "%d pauses", pauses)
            return remark
    return run


def _refused(version, says, **settings):
    """What is not equal at both ends is told while the source's guest runs."""
    def run(folder):
        with _made(folder, version, version, **settings) as postcopy:
            postcopy.begin()
            postcopy.source.wait_migration(("failed",), 60, ("completed", "cancelled", "postcopy-active"))
            status = postcopy.receiver.wait(30)
            message = postcopy.receiver.log()
            expect(status == 1 and says in message, "exit status %d without %r: %s", status, says, message[-2000:])
            expect(postcopy.source.running() and postcopy.source.goes_on(), "the source's guest does not go on")
            return message.strip().splitlines()[-1]
    return run


def _broken(version, harm, status, **settings):
    """What ends it for good: nobody's guest is taken away by migrx, and its exit status says that neither has all."""
    def run(folder):
        with _made(folder, version, version, **settings) as postcopy:
            postcopy.begin()
            postcopy.wait_rounds()
            postcopy.switch()
            postcopy.wait_requests(3)
            harm(postcopy)
            ended = postcopy.receiver.wait(30)
            expect(ended == status, "migrx ended with %d: %s", ended, postcopy.receiver.log()[-2000:])
            postcopy.source.wait_migration(("postcopy-paused",), 60, ("completed", *ENDED))
            expect(os.path.exists(postcopy.received), "the destination's memory was removed")
            return postcopy.receiver.log().strip().splitlines()[-1]
    return run


def _source_pauses(postcopy):
    postcopy.source.qmp.command("migrate-pause")


def _destination_pauses(postcopy):
    postcopy.destination.qmp.command("migrate-pause")


def _link_breaks(postcopy):
    """The source's TCP gives up before ours hears of it."""
    postcopy.network.set_away(True)
    postcopy.source.qmp.command("migrate-pause")
    time.sleep(1)
    postcopy.network.set_away(False)


def _sigterms(postcopy):
    """migrx goes on, whatever it is told. The guest stands still meanwhile, so that pages are missing long enough."""
    postcopy.destination.qmp.command("stop")
    for _again in range(2):
        postcopy.receiver.signal(signal.SIGTERM)
        time.sleep(1.1)
        expect(postcopy.receiver.alive(), "SIGTERM ended migrx in postcopy: %s", postcopy.receiver.log()[-2000:])
    log = postcopy.receiver.log()
    postcopy.destination.qmp.command("cont")
    expect("SIGKILL ends it all the same" in log, "the operator is not told the price: %s", log[-2000:])


def _paused_and_left(postcopy):
    _source_pauses(postcopy)
    postcopy.wait_paused()
    for _again in range(2):
        postcopy.receiver.signal(signal.SIGTERM)
        time.sleep(1.1)


def _kill(postcopy):
    os.kill(postcopy.receiver.children()[0], signal.SIGKILL)
    postcopy.receiver.wait(30)
    postcopy.network.attach()  # of the process that stays and resets the source


def cases():
    for version in ("7.2", "10", "newest"):
        yield Case("postcopy-%s" % version, _arrives(version, version), version == "10")
        yield Case("postcopy-unused-%s" % version, _arrives(version, version, switch=False), version == "7.2")
        yield Case("postcopy-preempt-%s" % version, _arrives(version, version, preempt=True), version == "7.2")
        yield Case("postcopy-recover-%s" % version, _recovers(version, version, _source_pauses), version == "7.2")
        yield Case("postcopy-recover-twice-%s" % version,
                   _recovers(version, version, _destination_pauses, times=2), False)
        yield Case("postcopy-recover-preempt-%s" % version,
                   _recovers(version, version, _source_pauses, preempt=True), version == "10")
        yield Case("postcopy-hugepages-%s" % version, _arrives(version, version, huge=True), version == "10",
                   needs="hugepages")
        yield Case("postcopy-stopped-%s" % version, _arrives(version, version, stopped=True), False)
        yield Case("postcopy-not-there-%s" % version,
                   _refused(version, "capability postcopy-ram", capabilities_there={}), version == "7.2")
    for version in ("7.2", "10"):  # A newer one is through before it can be paused: its eight hugepages come at once.
        yield Case("postcopy-recover-hugepages-%s" % version,
                   _recovers(version, version, _source_pauses, requests=1, huge=True), False, needs="hugepages")
    yield Case("postcopy-multifd-7.2", _arrives("7.2", "7.2", channels=2))
    yield Case("postcopy-multifd-preempt-newest", _arrives("newest", "newest", channels=2, preempt=True))
    yield Case("postcopy-multifd-there-newest", _arrives("newest", "newest", channels=2, channels_there=2), False)
    yield Case("postcopy-multifd-there-preempt-newest",
               _arrives("newest", "newest", channels=2, channels_there=2, preempt=True), False)
    yield Case("postcopy-recover-multifd-newest", _recovers("newest", "newest", _source_pauses, channels=2), False)
    yield Case("postcopy-7.2-to-10", _arrives("7.2", "10", machine="pc-i440fx-7.2"), False)
    yield Case("postcopy-10-to-7.2", _arrives("10", "7.2", machine="pc-i440fx-7.2", preempt=True), False)
    yield Case("postcopy-release-ram-10", _arrives("10", "10", capabilities={"release_ram": True}), False)
    yield Case("postcopy-qmp-preempt-10", _arrives("10", "10", by_qmp=True, preempt=True))
    yield Case("postcopy-expected-10", _arrives("10", "10", receiver_extra=("--expect-postcopy",)), False)
    yield Case("postcopy-expected-unused-7.2",
               _arrives("7.2", "7.2", switch=False, receiver_extra=("--expect-postcopy",)), False)
    yield Case("postcopy-tls-psk-10", _arrives("10", "10", creds="psk"), False)
    yield Case("postcopy-tls-x509-7.2", _arrives("7.2", "7.2", creds="x509", preempt=True), False)
    yield Case("postcopy-sigterm-10", _arrives("10", "10", during=_sigterms, rate=MIB))
    yield Case("postcopy-recover-link-10", _recovers("10", "10", _link_breaks))
    yield Case("postcopy-other-pages-10", _hugepages_at_one_end(), False, needs="hugepages")
    yield Case("postcopy-destination-killed-10", _broken("10", lambda postcopy: postcopy.destination.process.kill(), 4))
    yield Case("postcopy-paused-left-7.2", _broken("7.2", _paused_and_left, 4), False)
    yield Case("postcopy-killed-10", _broken("10", _kill, 4), False)


def _hugepages_at_one_end():
    def run(folder):
        return _refused("10", "postcopy needs the same at both ends", path_there=hugepages.hugetlb_folder(SIZE))(folder)
    return run
