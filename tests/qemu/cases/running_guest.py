"""Memory that is not ours to write: a command given twice, or for the wrong files, must not cost a running guest a byte."""

import contextlib
import os
import subprocess

from rig.guest import MIB, BusyGuest
from rig.machine import Backend, Machine
from rig.network import Network
from rig.receiver import Receiver, migrx_program, stream_file
from rig.runner import Case, expect
from rig.transfer import need

SIZE = 64 * MIB
VERSIONS = ("7.2", "10", "newest")


def _guest(folder, version, stack, network, name="victim", path=None, extra=(), incoming=None):
    backend = Backend("mem", SIZE, path=path or os.path.join(folder, name + ".ram"))
    machine = stack.enter_context(Machine(folder, version, "pc", [backend],
                                          BusyGuest("mixed", fill_end=SIZE - 2 * MIB, dirty_start=8 * MIB,
                                                    dirty_end=24 * MIB, pages_per_tick=4),
                                          network.source, name=name, extra=extra, incoming=incoming))
    return machine, backend.path


def _expect_unharmed(machine):
    """The guest counts on and finds its own memory as it wrote it."""
    before = len(machine.counts())
    expect(machine.goes_on(), "the guest does not run any more: %s", machine.log()[-500:])
    counts = machine.counts()
    expect(len(counts) > before and all(bad == 0 for _count, _passes, bad in counts), "the guest found bad pages: %r",
           counts[-3:])


def _expect_refused(status, output, machine, words=("PID %d",)):
    expect(status == 2, "status %d: %s", status, output[-1500:])
    for word in words:
        word = word % machine.process.pid if "%d" in word else word
        expect(word in output, "no %r in: %s", word, output[-1500:])


def _listening(folder, machine, socket):
    """The path of a socket of a QEMU that runs: VNC, NBD or QMP."""
    path = os.path.join(folder, socket + ".sock")
    if socket == "nbd":
        machine.qmp.command("nbd-server-start", addr={"type": "unix", "data": {"path": path}})
    return path


def _once_incoming(folder, version, stack, network, extra):
    """A guest that runs with -incoming on its command line, having come by a migration."""
    first, _path = _guest(folder, version, stack, network, "first")
    first.wait_console(b"filled")
    machine, path = _guest(folder, version, stack, network, extra=extra, incoming="defer")
    address = "unix:" + os.path.join(folder, "plain.sock")
    machine.qmp.command("migrate-incoming", uri=address)
    first.set_parameters(max_bandwidth=1 << 40, downtime_limit=2000)
    first.migrate(address)
    first.wait_migration()
    machine.wait_console(b"count")
    return machine, path


def _receive(version, handoff, once_incoming=False):
    """`migrx receive` on the file of a guest that runs; `handoff`: which socket of its QEMU is given as --handoff."""
    def run(folder):
        need(version)
        with contextlib.ExitStack() as stack:
            network = stack.enter_context(Network())
            extra = ("-vnc", "unix:" + os.path.join(folder, "vnc.sock"), "-qmp",
                     "unix:%s,server=on,wait=off" % os.path.join(folder, "qmp.sock"))
            if once_incoming:
                machine, path = _once_incoming(folder, version, stack, network, extra)
            else:
                machine, path = _guest(folder, version, stack, network, extra=extra)
                machine.wait_console(b"filled")
            socket = handoff and "unix:" + _listening(folder, machine, handoff)
            receiver = stack.enter_context(Receiver(folder, network, {"mem": path}, handoff=socket))
            if not handoff:
                _expect_refused(receiver.wait(30), receiver.log(), machine)
            else:
                # It may get ready: nobody has been asked yet. Nothing is written, whatever a source says.
                receiver.wait_ready()
                twin = Backend("mem", SIZE, path=os.path.join(folder, "source.ram"))
                source = stack.enter_context(Machine(folder, version, "pc", [twin],
                                                     BusyGuest("mixed", fill_end=SIZE - 2 * MIB), network.source,
                                                     name="source"))
                source.wait_console(b"filled")
                source.set_capabilities(return_path=True)
                if receiver.alive():
                    source.migrate(receiver.uri)
                    source.wait_migration(("failed",), timeout=90)
                    expect(receiver.wait(60) == 1, "migrx did not fail: %s", receiver.log()[-1500:])
            _expect_unharmed(machine)
    return run


def _load(version):
    """`migrx load` of anything at all on the file of a guest that runs."""
    def run(folder):
        need(version)
        with contextlib.ExitStack() as stack:
            network = stack.enter_context(Network())
            machine, path = _guest(folder, version, stack, network)
            machine.wait_console(b"filled")
            done = subprocess.run([migrx_program(), "load", stream_file(folder), "--no-handoff", "--ram", "mem=" + path],
                                  capture_output=True, text=True, timeout=60, check=False)
            expect(done.returncode == 2 and "PID %d" % machine.process.pid in done.stderr, "status %d: %s",
                   done.returncode, done.stderr)
            _expect_unharmed(machine)
    return run


def _two_users(version):
    """A QEMU that runs and one that waits, on one file: nobody may load there."""
    def run(folder):
        need(version)
        with contextlib.ExitStack() as stack:
            network = stack.enter_context(Network())
            machine, path = _guest(folder, version, stack, network)
            machine.wait_console(b"filled")
            waiting, _path = _guest(folder, version, stack, network, "waiting", path, incoming="defer")
            socket = os.path.join(folder, "handoff.sock")
            waiting.qmp.command("migrate-incoming", uri="unix:" + socket)
            receiver = stack.enter_context(Receiver(folder, network, {"mem": path}, handoff="unix:" + socket))
            _expect_refused(receiver.wait(30), receiver.log(), machine, ("PID %d", "PID %d" % waiting.process.pid))
            _expect_unharmed(machine)
    return run


def _second_receiver(version):
    """The second of two receivers on one file is refused; the first goes on."""
    def run(folder):
        need(version)
        with contextlib.ExitStack() as stack:
            network = stack.enter_context(Network())
            path = os.path.join(folder, "received.mem")
            first = stack.enter_context(Receiver(folder, network, {"mem": "%s,size=%d" % (path, SIZE)}))
            expect(first.wait_ready(), "migrx never got ready: %s", first.log())
            done = subprocess.run([migrx_program(), "load", stream_file(folder), "--no-handoff", "--ram", "mem=" + path],
                                  capture_output=True, text=True, timeout=60, check=False)
            expect(done.returncode == 2 and "has locked it" in done.stderr, "status %d: %s", done.returncode, done.stderr)
            expect(first.alive() and os.path.getsize(path) == SIZE, "the first receiver or its file is gone")
    return run


def cases():
    """The cases of this file."""
    for version in VERSIONS:
        quick = version == "10"
        yield Case("running-guest-receive-%s" % version, _receive(version, None), quick)
        for socket in ("vnc", "nbd", "qmp"):
            yield Case("running-guest-%s-as-handoff-%s" % (socket, version), _receive(version, socket), quick, 240)
        yield Case("running-guest-once-incoming-%s" % version, _receive(version, None, True), quick, 240)
        yield Case("running-guest-once-incoming-vnc-%s" % version, _receive(version, "vnc", True), quick, 240)
        yield Case("running-guest-load-%s" % version, _load(version), quick)
        yield Case("running-guest-two-users-%s" % version, _two_users(version), quick)
        yield Case("running-guest-second-receiver-%s" % version, _second_receiver(version), quick)
