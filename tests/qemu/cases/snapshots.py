"""Snapshots in files, loaded by `migrx load`: mapped-ram with and without multifd and direct I/O, plain streams."""

import contextlib
import dataclasses
import gzip
import json
import os
import re
import shlex
import struct
import subprocess
import tempfile

from rig.compare import expect_same, expect_same_files
from rig.guest import MIB, BusyGuest
from rig.machine import Backend, Machine
from rig.receiver import migrx_program
from rig.runner import Case, expect
from rig.stream import Decoder
from rig.transfer import need

SIZE = 64 * MIB


def run_load(folder, snapshot, ram, extra=(), destination=("--no-handoff",), shell=""):
    """Runs `migrx load`; returns (exit status, report or None, output). `shell`: a command whose output it reads."""
    report = os.path.join(folder, "load.json")
    command = [migrx_program(), "load", snapshot, *destination, "--report", report,
               "--dump-blocks", os.path.join(folder, "blocks"), *extra]
    for block, option in ram.items():
        command += ["--ram", "%s=%s" % (block, option)]
    if shell:
        command = ["sh", "-c", shell + ' | exec "$@"', "sh", *command]
    result = subprocess.run(command, capture_output=True, text=True, timeout=180, check=False)
    output = result.stdout + result.stderr
    with open(os.path.join(folder, "load.log"), "w", encoding="utf-8") as file:
        file.write(output)
    if os.path.exists(report):
        with open(report, encoding="utf-8") as file:
            return result.returncode, json.load(file), output
    return result.returncode, None, output


@dataclasses.dataclass
class Snapshot:
    """One snapshot that must load completely. `uri` has {} for the file's path."""

    version: str = "10"
    uri: str = "file:{}"
    offset: int = 0
    capabilities: dict = dataclasses.field(default_factory=dict)
    parameters: dict = dataclasses.field(default_factory=dict)
    receiver_capabilities: tuple = ()
    fill: str = "mixed"
    running: bool = False  # the guest goes on writing while the snapshot is made

    def run(self, folder):
        need(self.version)
        # Direct I/O needs a disk file system; scratch folders are on tmpfs.
        with contextlib.ExitStack() as stack:
            disk = stack.enter_context(tempfile.TemporaryDirectory(prefix="migrx-snapshot-", dir="/var/tmp"))
            return self._run(folder, os.path.join(disk, "snapshot"), stack)

    def make(self, folder, path, stack):
        """Makes the snapshot; returns the stopped source."""
        guest = BusyGuest(self.fill, fill_end=SIZE - 2 * MIB, dirty_start=8 * MIB,
                          dirty_end=24 * MIB if self.running else 0, pages_per_tick=16 if self.running else 0)
        source = stack.enter_context(Machine(folder, self.version, "q35", [Backend("mem", SIZE)], guest))
        source.wait_console(b"filled")
        if not self.running:
            source.qmp.command("stop")
        source.set_capabilities(**self.capabilities)
        source.set_parameters(max_bandwidth=1 << 40, **self.parameters)
        source.migrate(self.uri.format(path))
        source.wait_migration(timeout=60)
        return source

    def _run(self, folder, path, stack):
        source = self.make(folder, path, stack)
        extra = [word for name in self.receiver_capabilities for word in ("--capability", name)]
        if self.offset:
            extra += ["--offset", str(self.offset)]
        received = os.path.join(folder, "received")
        status, report, output = run_load(folder, path, {"mem": "%s,size=%d" % (received, SIZE)}, extra)
        expect(status == 0, "migrx load ended with %d: %s", status, output[-2000:])
        expect(report["outcome"] == "complete", "outcome %s: %s", report["outcome"], report.get("error"))
        expect_same_files("mem", received, source.backends[0].path)
        small = os.path.join(folder, "small.capture")
        source.capture_small_blocks(small)
        with open(small, "rb") as file:
            oracle = Decoder(file.read(), ignore_shared=True)
        for name, content in oracle.blocks.items():
            if name != "mem":
                with open(os.path.join(folder, "blocks", name.replace("/", "%2F")), "rb") as file:
                    expect_same(name, file.read(), content)
        return ""


def save_header(program=0, xml=b"<domain type='qemu'><name>made up</name></domain>\0" + bytes(1024)):
    """What libvirt writes in front of QEMU's stream (src/qemu/qemu_saveimage.h)."""
    return b"LibvirtQemudSave" + struct.pack("<5I", 2, len(xml), 1, program, 0) + bytes(14 * 4) + xml


def libvirt_and_pipes(folder):
    """A save image as libvirt makes it, as a file and through pipes, plain and compressed by the command that the
    refusal names; and what cannot be loaded is refused in words."""
    need("7.2")
    with contextlib.ExitStack() as stack:
        path = os.path.join(folder, "guest's save")
        with open(path, "wb") as file:
            file.write(save_header())
        source = Snapshot("7.2", "exec:cat >> {}").make(folder, shlex.quote(path), stack)
        received = os.path.join(folder, "received")
        ram = {"mem": "%s,size=%d" % (received, SIZE)}

        def loads(name, snapshot, shell=""):
            status, report, output = run_load(folder, snapshot, ram, shell=shell)
            expect(status == 0 and report["outcome"] == "complete", "%s: exit status %d: %s", name, status, output[-2000:])
            expect_same_files("mem", received, source.backends[0].path)
            os.unlink(received)

        loads("save image", path)
        loads("save image through a pipe", "-", "cat %s" % shlex.quote(path))
        loads("save image as /dev/stdin", "/dev/stdin", "cat %s" % shlex.quote(path))
        packed = os.path.join(folder, "packed")
        with open(path, "rb") as whole, open(packed, "wb") as file:
            whole.read(len(save_header()))
            file.write(save_header(program=1) + gzip.compress(whole.read(), 1))
        status, _, output = run_load(folder, packed, ram)
        expect(status == 2 and not os.path.exists(received), "a compressed save image: %d: %s", status, output)
        command = re.search(r": (tail .*) \| migrx load -", output)
        expect(command, "no command for a compressed save image: %s", output)
        loads("by the command of the refusal", "-", command[1])

        fifo = os.path.join(folder, "fifo")
        os.mkfifo(fifo)
        unreadable = os.path.join(folder, "packed")
        os.truncate(unreadable, 50)
        for name, snapshot, word in (("directory", folder, "directory"), ("device", "/dev/zero", "device"),
                                     ("nothing there", os.path.join(folder, "none"), "No such file"),
                                     ("cut header", unreadable, "header"), ("other file", "/etc/passwd", "QEVM")):
            status, _, output = run_load(folder, snapshot, ram)
            expect(status == 2 and word in output and not os.path.exists(received), "%s: exit status %d: %s", name,
                   status, output)


def damaged(folder):
    """A snapshot cut short at many places must be refused each time, and leave no file."""
    need("10")
    with contextlib.ExitStack() as stack:
        disk = stack.enter_context(tempfile.TemporaryDirectory(prefix="migrx-snapshot-", dir="/var/tmp"))
        path = os.path.join(disk, "snapshot")
        Snapshot(capabilities={"mapped_ram": True}).make(folder, path, stack)
        size = os.path.getsize(path)
        received = os.path.join(folder, "received")
        for cut in (size - SIZE // 2, size // 2, MIB + 5, 1000, 40, 7, 0):
            os.truncate(path, cut)
            status, report, output = run_load(folder, path, {"mem": "%s,size=%d" % (received, SIZE)})
            expect(status == (1 if cut >= 4 else 2), "a snapshot cut at %d of %d: exit status %d: %s", cut, size, status, output[-800:])
            expect(report["error"], "a snapshot cut at %d has no error in its report", cut)
            expect(not os.path.exists(received), "a snapshot cut at %d left %s", cut, received)


def cases():
    mapped = {"mapped_ram": True}
    parallel = {"mapped_ram": True, "multifd": True}
    for name, snapshot, quick in (
            ("mapped-ram-10", Snapshot(capabilities=mapped), True),
            ("mapped-ram-sparse-10", Snapshot(capabilities=mapped, fill="sparse"), False),
            ("mapped-ram-running-10", Snapshot(capabilities=mapped, running=True), False),
            ("mapped-ram-offset-10", Snapshot(uri="file:{},offset=%d" % (4 * MIB), offset=4 * MIB,
                                              capabilities=mapped), False),
            ("mapped-ram-multifd-10", Snapshot(capabilities=parallel, parameters={"multifd_channels": 4}), True),
            ("mapped-ram-multifd-direct-io-10",
             Snapshot(capabilities=parallel, parameters={"multifd_channels": 4, "direct_io": True}), True),
            ("mapped-ram-direct-io-10", Snapshot(capabilities=mapped, parameters={"direct_io": True}), False),
            ("plain-file-10", Snapshot(), True),
            ("plain-exec-7.2", Snapshot("7.2", "exec:cat > {}"), True),
            ("plain-exec-dirty-10", Snapshot(uri="exec:cat > {}", running=True), False)):
        yield Case("snapshot-" + name, snapshot.run, quick)
        if snapshot.version == "10":
            yield Case("snapshot-%snewest" % name[:-len("10")], dataclasses.replace(snapshot, version="newest").run, False)
    yield Case("snapshot-damaged-10", damaged)
    yield Case("snapshot-libvirt-and-pipes-7.2", libvirt_and_pipes, True)
