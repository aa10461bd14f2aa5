"""COLO: a real primary, checkpoints into migrx, failover and death at every message of the dialogue."""

import contextlib
import dataclasses
import os
import signal
import time

from rig.colo import LOADED, NAMES, READY, RECEIVED, ColoGuest, Link, need_kvm
from rig.compare import expect_same, expect_same_files
from rig.guest import MIB, BusyGuest
from rig.machine import Backend, Machine
from rig.network import RECEIVER, Network
from rig.receiver import PORT, Receiver
from rig.runner import Case, expect
from rig.transfer import FAST, need

SIZE = 32 * MIB


class Pair:
    """A source with x-colo on, migrx as its secondary, and the link between them."""

    def __init__(self, folder, stack, xbzrle=False, handoff=None, dirty_end=9 * MIB):
        need("7.2")
        need_kvm()
        self.folder = folder
        self.network = stack.enter_context(Network())
        self.backends = [Backend("mem", SIZE)]
        self.source = stack.enter_context(Machine(folder, "7.2", "pc", self.backends, ColoGuest(dirty_end=dirty_end),
                                                  accel="kvm", vga=0))
        self.file = os.path.join(folder, "received.mem")
        self.destination = None
        if handoff:
            self.destination = stack.enter_context(self.source.twin(
                "destination", [Backend("mem", SIZE, path=self.file)], guest=ColoGuest()))
            self.destination.qmp.command("migrate-incoming", uri="unix:" + os.path.join(folder, "handoff"))
        self.receiver = stack.enter_context(Receiver(
            folder, self.network, {"mem": "%s,size=%d" % (self.file, SIZE)},
            capabilities=("x-colo", "xbzrle") if xbzrle else ("x-colo",),
            handoff="unix:" + os.path.join(folder, "handoff") if handoff else None))
        expect(self.receiver.wait_ready(), "migrx never got ready: %s", self.receiver.log()[-2000:])
        self.link = stack.enter_context(Link(folder, self.network.receiver, (RECEIVER, PORT)))
        self.source.wait_console(b"count 00000002")
        self.source.set_capabilities(x_colo=True, xbzrle=xbzrle)
        self.source.set_parameters(max_bandwidth=FAST, downtime_limit=2000, x_checkpoint_delay=100)
        self.source.migrate(self.link.uri)
        self.ram, self.state = b"", b""  # as of the last finished checkpoint, by the rig's own decoder

    def received(self):
        with open(self.file, "rb") as file:
            return file.read()

    def keep(self):
        """The dialogue stands behind a finished checkpoint: RAM here must be the stopped source's."""
        self.ram, self.state = bytes(self.link.oracle.blocks["mem"]), self.link.state
        with open(self.backends[0].path, "rb") as file:
            expect_same("the decoder's RAM, checkpoint %d" % self.link.checkpoints, self.ram, file.read())
        expect_same("RAM of checkpoint %d" % self.link.checkpoints, self.received(), self.ram)

    def fail_over(self):
        """SIGUSR1; migrx must end well with the last finished checkpoint."""
        self.receiver.signal(signal.SIGUSR1)
        status = self.receiver.wait(30)
        expect(status == 0, "migrx ended with %d: %s", status, self.receiver.log()[-2000:])
        report = self.receiver.report()
        expect(report["outcome"] == "complete" and report["colo"]["failed_over"] == 1, "report: %s", report)
        return report

    def expect_last_checkpoint(self, report):
        expect_same("RAM after failover", self.received(), self.ram)
        with open(os.path.join(self.receiver.dump, "device-state"), "rb") as file:
            state = file.read()
        expect(state.startswith(self.state) and len(state) - len(self.state) in (0, 7),
               "%d bytes of device state kept, the checkpoint had %d", len(state), len(self.state))
        for name, content in self.link.oracle.blocks.items():
            if name != "mem" and report["colo"]["checkpoints"] == self.link.checkpoints:
                expect_same(name, self.receiver.block(name), content)


def _wait_lost(receiver):
    deadline = time.monotonic() + 20
    while "the source is lost" not in receiver.log():
        expect(receiver.alive() and time.monotonic() < deadline, "migrx did not notice: %s", receiver.log()[-1000:])
        time.sleep(0.02)


def checkpoints(folder, count=4, xbzrle=False):
    with contextlib.ExitStack() as stack:
        pair = Pair(folder, stack, xbzrle)

        def at(message, checkpoint):
            if message in (READY, LOADED):
                pair.keep()
            return message == LOADED and checkpoint == count
        pair.link.run(at)
        report = pair.fail_over()
        pair.expect_last_checkpoint(report)
        expect(report["colo"]["checkpoints"] == count, "report: %s", report["colo"])
        expect(report["colo"]["pages_to_ram"] > 0, "no page was flushed: %s", report["colo"])
        if xbzrle:
            expect(pair.link.xbzrle > 0, "no checkpoint held an XBZRLE page")
        return "%d checkpoints, %d pages flushed, %d by XBZRLE" % (count, report["colo"]["pages_to_ram"],
                                                                   pair.link.xbzrle)


def stopped_at(folder, stop, kill):
    """Failover, or the source's death and then failover, when message `stop` of checkpoint 2 is due."""
    with contextlib.ExitStack() as stack:
        pair = Pair(folder, stack)

        def at(message, checkpoint):
            # RECEIVED: what comes behind it is being loaded and counts.
            if message in (READY, LOADED):
                pair.keep()
            if message == stop and checkpoint == (0 if stop == READY else 2 if stop == LOADED else 1):
                if stop == RECEIVED:
                    pair.ram, pair.state = bytes(pair.link.oracle.blocks["mem"]), pair.link.state
                return True
            return False
        pair.link.run(at)
        if kill:
            pair.source.process.kill()
            pair.source.process.wait()
            pair.link.close()
            _wait_lost(pair.receiver)
        report = pair.fail_over()
        pair.expect_last_checkpoint(report)
        return "%d checkpoints kept" % report["colo"]["checkpoints"]


def handed_on(folder):
    """At failover a destination QEMU goes on from the last finished checkpoint, not from what came behind it."""
    with contextlib.ExitStack() as stack:
        pair = Pair(folder, stack, handoff=True)
        lines = []

        def at(message, checkpoint):
            if message in (READY, LOADED):
                pair.keep()
                lines.append(pair.source.counts()[-1][0])
            return message == NAMES.index("VMSTATE_SIZE") and checkpoint == 3
        pair.link.run(at)
        pair.source.process.kill()
        pair.source.process.wait()
        report = pair.fail_over()
        destination = pair.destination
        destination.wait_migration(timeout=20)
        expect(report["colo"]["checkpoints"] == 3, "report: %s", report["colo"])
        if not destination.running():
            destination.qmp.command("cont")
        deadline = time.monotonic() + 20
        while len(destination.counts()) < 12:
            expect(destination.alive() and time.monotonic() < deadline, "the guest does not go on: %s",
                   destination.log())
            time.sleep(0.05)
        counts = destination.counts()
        first = counts[0][0]
        expect(lines[-1] <= first <= lines[-1] + 2, "it goes on at %d, the checkpoint was at %d", first, lines[-1])
        expect(all(bad == 0 for _count, _pass, bad in counts), "the guest found wrong memory: %s", counts[-3:])
        return "checkpoint at count %d, on from %d to %d" % (lines[-1], first, counts[-1][0])


def newer_source(folder):
    """QEMU 10.0 announces COLO and completes without it: its guest is here, and failover takes it."""
    need("10")
    with contextlib.ExitStack() as stack:
        network = stack.enter_context(Network())
        backend = Backend("mem", SIZE)
        source = stack.enter_context(Machine(folder, "10", "pc", [backend], ColoGuest(), network.source, vga=0))
        path = os.path.join(folder, "received.mem")
        receiver = stack.enter_context(Receiver(folder, network, {"mem": "%s,size=%d" % (path, SIZE)},
                                                capabilities=("x-colo",)))
        expect(receiver.wait_ready(), "migrx never got ready: %s", receiver.log()[-2000:])
        source.wait_console(b"count 00000002")
        source.set_capabilities(x_colo=True)
        source.set_parameters(max_bandwidth=FAST, downtime_limit=2000)
        source.migrate(receiver.uri)
        source.wait_migration(timeout=30)
        _wait_lost(receiver)
        receiver.signal(signal.SIGUSR1)
        expect(receiver.wait(30) == 0, "migrx: %s", receiver.log()[-2000:])
        expect(receiver.report()["colo"]["checkpoints"] == 0, "report: %s", receiver.report()["colo"])
        expect_same_files("mem", path, backend.path)


def refused(folder):
    """From 11.1 on nothing in the stream announces COLO: with the capability here it is refused, and the guest goes on."""
    need("newest")
    with contextlib.ExitStack() as stack:
        network = stack.enter_context(Network())
        backend = Backend("mem", SIZE)
        source = stack.enter_context(Machine(folder, "newest", "pc", [backend], BusyGuest(fill_end=SIZE - 2 * MIB),
                                             network.source, vga=0))
        receiver = stack.enter_context(Receiver(
            folder, network, {"mem": "%s,size=%d" % (os.path.join(folder, "received.mem"), SIZE)},
            capabilities=("x-colo",)))
        expect(receiver.wait_ready(), "migrx never got ready: %s", receiver.log()[-2000:])
        source.wait_console(b"count 00000002")
        source.set_capabilities(return_path=True, x_colo=True)
        source.migrate(receiver.uri)
        source.wait_migration(states=("failed",), timeout=30)
        expect(receiver.wait(30) == 1, "migrx ended with %d", receiver.process.returncode)
        message = receiver.report()["error"]["message"]
        expect("x-colo off" in message, "migrx does not say what to do: %s", message)
        expect(not source.event_times("STOP"), "the source stopped its guest")
        expect(source.goes_on(), "the source's guest does not go on")
        return message


def untold(folder):
    """The same source, and nobody told migrx: the source stands still in colo, and the operator hears of it."""
    need("newest")
    with contextlib.ExitStack() as stack:
        network = stack.enter_context(Network())
        backend = Backend("mem", SIZE)
        source = stack.enter_context(Machine(folder, "newest", "pc", [backend], BusyGuest(fill_end=SIZE - 2 * MIB),
                                             network.source, vga=0))
        path = os.path.join(folder, "received.mem")
        receiver = stack.enter_context(Receiver(folder, network, {"mem": "%s,size=%d" % (path, SIZE)}))
        expect(receiver.wait_ready(), "migrx never got ready: %s", receiver.log()[-2000:])
        source.wait_console(b"filled")
        source.set_capabilities(return_path=True, x_colo=True)
        source.set_parameters(max_bandwidth=FAST, downtime_limit=2000)
        source.migrate(receiver.uri)
        source.wait_migration(states=("colo",), timeout=30)
        expect(receiver.wait(60) == 0, "migrx: %s", receiver.log()[-2000:])
        expect("x-colo-lost-heartbeat" in " ".join(receiver.report()["warnings"]), "no warning: %s", receiver.log())
        expect(not source.running(), "the source's guest runs")
        expect_same_files("mem", path, backend.path)


@dataclasses.dataclass
class _Run:
    function: object
    arguments: tuple

    def __call__(self, folder):
        return self.function(folder, *self.arguments)


def cases():
    out = [Case("colo-checkpoints", checkpoints), Case("colo-handoff", handed_on),
           Case("colo-xbzrle", _Run(checkpoints, (6, True)), quick=False),
           Case("colo-source-10", newer_source, quick=False), Case("colo-refused-newest", refused),
           Case("colo-untold-newest", untold, quick=False)]
    for message, name in enumerate(NAMES):
        word = name.lower().replace("_", "-")
        out.append(Case("colo-failover-at-" + word, _Run(stopped_at, (message, False)), quick=False))
        out.append(Case("colo-source-killed-at-" + word, _Run(stopped_at, (message, True)), quick=False))
    return out
