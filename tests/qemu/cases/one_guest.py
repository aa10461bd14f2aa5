"""Something dies at a random moment of a hand-off: exactly one guest goes on, whoever has it.

The moments lie around the switchover, where the guest changes hands; the seed is in the case's remark.
"""

import contextlib
import os
import random
import signal
import threading
import time

from rig import pki
from rig.guest import console_lines, expect_unbroken
from rig.machine import Backend, Machine, QmpError
from rig.network import RECEIVER, Network
from rig.receiver import Receiver
from rig.runner import Case, expect
from rig.transfer import FAST, Transfer, need

_SETTLED = ("completed", "failed", "cancelled")


class _HandOver:
    """A source, migrx and a destination started with -S; the guest is busy and the migration is under way."""

    def __init__(self, folder, version, stack, tls=False):
        """`tls`: both ends are encrypted, and the destination waits for multifd channels, too."""
        self.transfer = Transfer(version, channels=2, dirty_s=1.0, **(dict(
            extra=lambda _folder: pki.source_arguments("x509"), parameters={"tls_creds": "tls0"}) if tls else {}))
        self.network = stack.enter_context(Network(self.transfer.mtu))
        self.source = self.transfer.start_source(folder, stack, self.network)
        path = os.path.join(folder, "received.mem")
        self.destination = stack.enter_context(Machine(
            folder, version, "pc", [Backend("mem", self.transfer.size, path=path)], namespace=self.network.receiver,
            incoming="defer", name="destination", extra=("-S", *(pki.destination_arguments("x509") if tls else ()))))
        if tls:
            self.destination.set_capabilities(multifd=True)
            self.destination.set_parameters(tls_creds="tls0", multifd_channels=self.transfer.channels)
            creds = "x509:dir=" + pki.folder()
        address = "unix:" + os.path.join(folder, "handoff.sock")
        self.destination.qmp.command("migrate-incoming", uri=address)
        self.receiver = stack.enter_context(Receiver(folder, self.network, {"mem": path}, self.transfer.channels,
                                                     handoff=address, extra=(
                                                         "--tls-creds", creds, "--handoff-tls-creds", creds,
                                                         "--handoff-tls-hostname", RECEIVER) if tls else ()))
        expect(self.receiver.wait_ready(), "migrx never got ready: %s", self.receiver.log()[-2000:])
        self.source.migrate(self.receiver.uri)
        time.sleep(0.5)

    def switch_over(self):
        """Gives the migration what it needs to end; the next quarter of a second holds the switchover."""
        self.source.set_parameters(max_bandwidth=FAST, downtime_limit=2000)

    def settle_source(self):
        """The source's last word; its connections may have to be reset by the parent of a killed migrx."""
        settled = threading.Event()
        # On a thread of its own: a source that is completing does not answer until its connections move.
        attach = threading.Thread(target=self._keep_attached, args=(settled,))
        attach.start()
        try:
            deadline = time.monotonic() + 60
            while True:
                status = self.source.migration()["status"]
                if status in _SETTLED:
                    return status
                expect(time.monotonic() < deadline, "the source's migration is %s for ever", status)
                time.sleep(0.05)
        finally:
            settled.set()
            attach.join()

    def _keep_attached(self, settled):
        """A killed migrx comes back with a new interface, which a host's network manager would set up."""
        while not settled.wait(0.1):
            with contextlib.suppress(Exception):
                self.network.attach(lambda: not settled.is_set(), 1)

    def expect_runs_at_destination(self):
        expect(self.destination.alive(), "the destination ended: %s", self.destination.log())
        deadline = time.monotonic() + 20
        while self.destination.qmp.command("query-status")["status"] == "inmigrate":
            expect(time.monotonic() < deadline, "the destination is still waiting for the guest")
            time.sleep(0.02)
        self.destination.qmp.command("cont")
        while len(console_lines(self.destination.console())) < 5:
            expect(time.monotonic() < deadline, "the guest does not go on at the destination")
            time.sleep(0.05)

    def expect_only_at_source(self):
        expect(self.source.goes_on(), "the source's guest does not go on")
        expect(not console_lines(self.destination.console()), "the guest ran at the destination, too")


def _kill_migrx(hand_over):
    for child in hand_over.receiver.children():
        with contextlib.suppress(ProcessLookupError):
            os.kill(child, signal.SIGKILL)


def _end_migrx(hand_over):
    hand_over.receiver.signal(signal.SIGTERM)


def _kill_destination(hand_over):
    hand_over.destination.process.kill()


def _cancel(hand_over):
    with contextlib.suppress(QmpError):
        hand_over.source.qmp.command("migrate_cancel")


def _kill_source(hand_over):
    hand_over.source.process.kill()


def _struck(folder, version, harm, times, seed, tls=False):
    """Yields `times` hand-overs, one after the other, each struck by `harm` at a random moment."""
    need(version)
    draw = random.Random(seed)
    for number in range(times):
        place = os.path.join(folder, str(number))
        os.mkdir(place)
        with contextlib.ExitStack() as stack:
            hand_over = _HandOver(place, version, stack, tls)
            hand_over.switch_over()
            time.sleep(draw.uniform(0, 0.25))
            harm(hand_over)
            yield hand_over


def _sweep(version, harm, times, seed=1, tls=False):
    def run(folder):
        ends = []
        for hand_over in _struck(folder, version, harm, times, seed, tls):
            ends.append(hand_over.settle_source())
            if ends[-1] != "completed":
                hand_over.expect_only_at_source()
            elif harm is not _kill_destination:  # That QEMU had the guest, as after any migration.
                hand_over.expect_runs_at_destination()
                expect_unbroken([hand_over.source.console(), hand_over.destination.console()])
        return "seed %d: %s" % (seed, ", ".join(ends))
    return run


def _source_dies(version, times, seed=1):
    """The guest is lost with its source unless the destination had all of it: it never runs in part."""
    def run(folder):
        ends = []
        for hand_over in _struck(folder, version, _kill_source, times, seed):
            ends.append("complete" if hand_over.receiver.wait(90) == 0 else "failed")
            if ends[-1] == "complete":
                hand_over.expect_runs_at_destination()
                expect_unbroken([hand_over.source.console(), hand_over.destination.console()])
            else:
                expect(not console_lines(hand_over.destination.console()), "half a guest ran at the destination")
        return "seed %d: %s" % (seed, ", ".join(ends))
    return run


def cases():
    """Short in the default set, twelve moments each with --all."""
    for version in ("7.2", "10", "newest"):
        for name, harm in (("sigkill", _kill_migrx), ("sigterm", _end_migrx), ("destination-dies", _kill_destination),
                           ("cancelled", _cancel)):
            yield Case("one-guest-%s-%s" % (name, version), _sweep(version, harm, 12), False, 400)
            if name != "cancelled":
                yield Case("one-guest-tls-%s-%s" % (name, version), _sweep(version, harm, 12, tls=True), False, 400)
        yield Case("one-guest-source-dies-%s" % version, _source_dies(version, 12), False, 400)
    yield Case("one-guest-sigkill-short-10", _sweep("10", _kill_migrx, 3, 2), True, 120)
    yield Case("one-guest-sigterm-short-7.2", _sweep("7.2", _end_migrx, 3, 2), True, 120)
