"""One whole migration from a QEMU into migrx, described by its settings, with everything it must fulfil."""

import contextlib
import dataclasses
import os
import time

from .compare import expect_same_files, expect_same_small_blocks
from .guest import MIB, BusyGuest
from .machine import GUEST_BYTES, Backend, Machine, qemu_program
from .network import Network
from .receiver import Receiver, migrx_program
from .runner import Skip, expect

FAST, SLOW = 1 << 40, 40 * MIB


def need(version=None, target="x86_64"):
    """Skips the case where something it needs is missing on this machine."""
    if os.geteuid() != 0:
        raise Skip("needs root: network namespaces")
    if not os.access("/dev/net/tun", os.R_OK | os.W_OK):
        raise Skip("needs /dev/net/tun")
    if migrx_program() is None:
        raise Skip("migrx is not built")
    if version is not None and qemu_program(version, target) is None:
        raise Skip("no qemu-system-%s %s here%s" % (
            target, "newer than 10" if version == "newest" else version,
            ": scripts/install --newest unpacks one" if version == "newest" else ""))


def counter(report, name):
    """Sum of one counter over all channels of a report; missing everywhere is an error."""
    values = [channel[name] for channel in report["channels"] if name in channel]
    expect(values, "the report has no counter %s in its channels: %s", name,
           sorted({key for channel in report["channels"] for key in channel}))
    return sum(values)


@dataclasses.dataclass
class Transfer:
    """A migration that must succeed. Sizes in bytes; `dirty_s`: seconds of dirtying at reduced bandwidth."""

    version: str = "10"
    machine: str = "pc"
    target: str = "x86_64"
    size: int = GUEST_BYTES
    fill: str = "mixed"
    dirty_s: float = 0.0
    channels: int = 0
    compression: str = "none"
    capabilities: dict = dataclasses.field(default_factory=dict)
    parameters: dict = dataclasses.field(default_factory=dict)
    receiver_capabilities: tuple = ()
    receiver_extra: tuple = ()
    return_path: bool = True
    backends: object = None  # folder -> list of Backend
    ram: object = None  # folder -> {block: option}; default: one new tmpfs file per backend
    guest: object = None  # a guest other than BusyGuest; it must print the same lines
    extra: object = None  # folder -> further QEMU arguments
    prefix: str = ""  # of block names: "/objects/" for machine types up to 3.1
    mtu: int = 9000
    two_ports: bool = False
    congestion: object = None
    impair: object = None
    ipv6: bool = False
    small_blocks: bool = True
    vga: int = 1  # as Machine has it, unless `guest` is another one
    ready: object = None  # (files by block), when migrx has said that it is ready
    check: object = None  # (report, transfer) -> remark, after everything else
    timeout: int = 90

    def run(self, folder):
        need(self.version, self.target)
        with contextlib.ExitStack() as stack:
            return self._run(folder, stack)

    def make_network(self, _folder):
        return Network(self.mtu, self.congestion, self.impair, self.ipv6)

    def start_source(self, folder, stack, network):
        """The source QEMU, its guest's memory filled, its migration settings made."""
        backends = self.backends(folder) if self.backends else [Backend("mem", self.size)]
        size = sum(backend.size for backend in backends)
        guest = BusyGuest(self.fill, fill_end=size - 2 * MIB, dirty_start=8 * MIB,
                          dirty_end=24 * MIB if self.dirty_s else 0, pages_per_tick=16 if self.dirty_s else 0)
        source = stack.enter_context(Machine(folder, self.version, self.machine, backends, self.guest or guest,
                                             network.source, vga=0 if self.guest else self.vga,
                                             extra=self.extra(folder) if self.extra else (), target=self.target))
        source.wait_console(b"count 00000002" if self.guest else b"filled")
        capabilities = dict(self.capabilities, return_path=self.return_path)
        parameters = dict(self.parameters)
        if self.channels:
            capabilities["multifd"] = True
            parameters.update(multifd_channels=self.channels, multifd_compression=self.compression)
        source.set_capabilities(**capabilities)
        parameters.setdefault("max_bandwidth", SLOW if self.dirty_s else FAST)
        parameters.setdefault("downtime_limit", 1 if self.dirty_s else 2000)
        source.set_parameters(**parameters)
        return source

    def ram_files(self, folder, source):
        """{block: option of --ram} and {block: path} of the files to receive into."""
        if self.ram:
            options = self.ram(folder)
        else:
            options = {self.prefix + backend.id: os.path.join(folder, "received.%s,size=%d" % (backend.id, backend.size))
                       for backend in source.backends}
        return options, {block: option.split(",", 1)[0] for block, option in options.items()}

    def start_receiver(self, folder, stack, network, options):
        receiver = stack.enter_context(Receiver(folder, network, options, self.channels, self.compression,
                                                self.receiver_capabilities, self.receiver_extra,
                                                two_ports=self.two_ports))
        expect(receiver.wait_ready(), "migrx never got ready: %s", receiver.log()[-2000:])
        return receiver

    def converge(self, source):
        """Lets the guest dirty memory for a while, then gives the migration all it needs to finish."""
        if self.dirty_s:
            time.sleep(self.dirty_s)
            source.set_parameters(max_bandwidth=FAST, downtime_limit=2000)

    def _run(self, folder, stack):
        network = stack.enter_context(self.make_network(folder))
        source = self.start_source(folder, stack, network)
        options, files = self.ram_files(folder, source)
        receiver = self.start_receiver(folder, stack, network, options)
        if self.ready:
            self.ready(files)
        source.migrate(receiver.uri)
        self.converge(source)
        source.wait_migration(timeout=self.timeout)
        status = receiver.wait(self.timeout)
        expect(status == 0, "migrx ended with %d: %s", status, receiver.log()[-2000:])
        report = receiver.report()
        expect(report["outcome"] == "complete", "outcome %s: %s", report["outcome"], report.get("error"))
        for backend in source.backends:
            expect_same_files(backend.id, files[self.prefix + backend.id], backend.path)
        if self.dirty_s:
            dirtied = source.counts()
            expect(dirtied and dirtied[-1][1] > 1 and dirtied[-1][2] == 0, "the guest printed %r", dirtied[-1:])
            rounds = source.migration()["ram"]["dirty-sync-count"]
            expect(rounds >= 3, "only %d rounds: nothing was sent twice", rounds)
        if self.small_blocks:
            expect_same_small_blocks(source, receiver, folder)
        expect(not network.has_interface(), "migrx ended but its interface is still there")
        remark = self.check(report, self) if self.check else ""
        for path in files.values():
            if os.path.exists(path):
                os.unlink(path)
        faults = network.impairment_counts()
        if faults:
            harmed = sum(count for key, count in faults.items() if key != "frames")
            expect(harmed > 0, "the link harmed none of %d frames", faults["frames"])
            remark = ((remark or "") + " " + " ".join("%s %d" % item for item in faults.items())).strip()
        return remark
