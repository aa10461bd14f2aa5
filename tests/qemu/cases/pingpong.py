"""A Linux guest that migrates again and again: each destination is the next migration's source."""

import contextlib
import os
import time

from rig.guest import MIB, console_lines, expect_unbroken
from rig.hugepages import hugetlb_folder
from rig.linux_guest import LinuxGuest, disk_path, flip_a_byte, virtio_devices
from rig.live import downtime_s, start_destination
from rig.machine import Backend, Machine
from rig.network import Network
from rig.receiver import Receiver
from rig.runner import Case, expect
from rig.transfer import FAST, counter, need

_VERSION = "10"  # 7.2 under TCG loses dirty pages of a Linux guest by itself.
_MODES = ("none", "zstd", "xbzrle", "zlib")  # of multifd, or in its place
_CHANNELS = 2
_ROUNDS = {"zlib": 2}  # at most: with a processor's worth of load each one takes it many seconds
_SLOW = 160 * MIB  # bytes a second, less than the guest writes


class _Chain:
    """The guest's hosts one after the other; only the last two exist, all consoles are kept."""

    def __init__(self, folder, backends):
        self.folder, self.consoles, self.downtimes = folder, [], []
        self._stacks = [contextlib.ExitStack()]
        self.network = self._stacks[0].enter_context(Network())
        self.host = self._enter(Machine(folder, _VERSION, "q35", backends, LinuxGuest(rewritten=32),
                                        self.network.source, vga=0, extra=virtio_devices(folder), name="host0"))
        self.host.wait_console(b"count 00000002", timeout=90)

    def _enter(self, machine):
        self._stacks.append(contextlib.ExitStack())
        return self._stacks[-1].enter_context(machine)

    def close(self):
        for stack in reversed(self._stacks):
            stack.close()

    def console(self):
        """What the guest printed on all its hosts."""
        return b"".join([*self.consoles, self.host.console()])

    def check(self):
        text = self.console()
        for words in (b"disk bad", b"net bad", b"no module", b"Kernel panic"):
            expect(words not in text, "the guest said %r", words)
        return expect_unbroken([text])

    def wait_passes(self, count):
        """Waits until the guest has looked at all of its memory `count` more times."""
        wanted = len(console_lines(self.console())) + count
        deadline = time.monotonic() + 60
        while len(console_lines(self.console())) < wanted:
            expect(self.host.alive(), "%s ended: %s", self.host.name, self.host.log())
            expect(time.monotonic() < deadline, "the guest printed nothing on %s", self.host.name)
            time.sleep(0.05)

    @staticmethod
    def _wait_rounds(source, rounds):
        """Waits until the source has begun round `rounds`: so often, nearly, has each busy page been sent."""
        deadline = time.monotonic() + 40
        while True:
            information = source.migration()
            done = information.get("ram", {}).get("dirty-sync-count", 0)
            if done >= rounds or (done >= 2 and information["status"] == "completed"):
                return
            expect(information["status"] in ("setup", "active", "device"), "%s after %d rounds", information, done)
            expect(time.monotonic() < deadline, "only %d rounds in 40 s", done)
            time.sleep(0.05)

    def hop(self, number, rounds):
        """One migration; returns migrx's report."""
        mode, source, stack = _MODES[number % len(_MODES)], self.host, contextlib.ExitStack()
        # Only whole 2 MiB pages fit into hugetlbfs; a block of another length stays on tmpfs.
        paths = {backend.id: os.path.join(
            hugetlb_folder(backend.size) if number % 2 and backend.size % (2 * MIB) == 0 else self.folder,
            "ram%d.%s" % (number, backend.id)) for backend in source.backends}
        with stack:
            destination, address = start_destination(source, paths, stack, "host%d" % (number + 1))
            multifd, channels = mode != "xbzrle", _CHANNELS if mode != "xbzrle" else 0
            receiver = stack.enter_context(Receiver(
                self.folder, self.network,
                {backend.id: "%s,size=%d" % (paths[backend.id], backend.size) for backend in source.backends},
                channels, mode if multifd else "none", () if multifd else ("xbzrle",), handoff=address,
                name="receiver%d" % number))
            expect(receiver.wait_ready(), "migrx never got ready: %s", receiver.log()[-2000:])
            # It was a destination itself: what it has in shared files must be sent now.
            source.set_capabilities(x_ignore_shared=False, multifd=multifd, xbzrle=not multifd, return_path=True)
            source.set_parameters(max_bandwidth=_SLOW, downtime_limit=1, xbzrle_cache_size=64 * MIB)
            if multifd:
                source.set_parameters(multifd_channels=_CHANNELS, multifd_compression=mode)
            source.migrate(receiver.uri)
            self._wait_rounds(source, min(rounds, _ROUNDS.get(mode, rounds)))
            source.set_parameters(max_bandwidth=FAST, downtime_limit=2000)
            status = source.wait_migration_event(timeout=60)
            ended = receiver.wait(30)
            expect(status == "completed" and ended == 0, "hop %d: the source says %s, migrx ended with %d: %s", number,
                   status, ended, receiver.log()[-2000:])
            report = receiver.report()
            self.host = destination
            self.consoles.append(source.console())
            self.wait_passes(2)
            self.downtimes.append(downtime_s(source, destination))
            expect(destination.running() and not source.running(), "hop %d: not exactly one guest runs", number)
            self.check()
            receiver.close()
            kept = stack.pop_all()
        self._stacks[-1].close()  # The old source, and its memory's files.
        self._stacks[-1] = kept
        return report


def _prove_that_wrong_memory_shows(chain):
    """All was right so far: now one bit is changed behind the guest's back, and it must say so; twice."""
    for page, kept in ((9, False), (5, True)):
        before = chain.host.counts()[-1]
        chain.host.qmp.command("stop")
        turn = console_lines(chain.console())[-1][1]
        turns = (0,) if kept else (turn, turn + 1)
        expect(any(flip_a_byte(backend.path, page, turns) for backend in chain.host.backends),
               "page %d of the guest's %s buffer is nowhere in its RAM", page, "kept" if kept else "rewritten")
        chain.host.qmp.command("cont")
        chain.wait_passes(2)
        expect(chain.host.counts()[-1][2] > before[2], "memory was changed and the guest saw nothing")


def _disk_content(folder):
    with open(disk_path(folder), "rb") as file:
        return file.read(1 << 16)


def _ping_pong(hops, rounds, backends):
    def run(folder):
        need(_VERSION)
        with contextlib.closing(_Chain(folder, backends(folder))) as chain:
            patched = 0
            for number in range(hops):
                report = chain.hop(number, rounds)
                if _MODES[number % len(_MODES)] == "xbzrle":
                    patched += counter(report, "xbzrle_pages")
            lines = chain.check()
            expect(patched > 0, "no page came as a difference")
            disk = _disk_content(folder)
            _prove_that_wrong_memory_shows(chain)
            expect(any(disk) and disk != _disk_content(folder), "the guest does not write to its disk")
            middle = sorted(chain.downtimes)[hops // 2]
            return "%d hops, %d passes without a bad page, downtime %.0f ms in the middle, %.0f at most" % (
                hops, lines[-1][1], middle * 1000, max(chain.downtimes) * 1000)
    return run


def _one_node(_folder):
    return [Backend("mem", 256 * MIB)]


def _two_nodes(folder):
    # The second length: see _two_large_nodes() in modes.py.
    return [Backend("near", 128 * MIB, path=os.path.join(folder, "near.source")),
            Backend("far", 128 * MIB + (64 << 10), path=os.path.join(folder, "far.source"))]


def cases():
    yield Case("pingpong-short", _ping_pong(3, 3, _one_node), True, 240)
    yield Case("pingpong-20", _ping_pong(20, 5, _one_node), False, 900)
    yield Case("pingpong-20-numa", _ping_pong(20, 5, _two_nodes), False, 900)
