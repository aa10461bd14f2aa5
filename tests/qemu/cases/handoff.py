"""The guest runs on: migrx loads its RAM, an unmodified destination QEMU gets device state alone."""

import contextlib
import dataclasses
import itertools
import os
import signal
import socket
import subprocess
import tempfile
import time

from rig import pki
from rig.guest import MIB, BareGuest, console_lines, expect_unbroken
from rig.machine import GUEST_BYTES, Backend, Machine
from rig.network import RECEIVER, Network
from rig.receiver import Receiver
from rig.runner import Case, expect
from rig.transfer import FAST, Transfer, need

from .snapshots import SIZE, Snapshot, run_load

VERSIONS = ("7.2", "10", "newest")
# A machine type that both QEMUs of a pair have: the newest of the older one.
MACHINE_OF_BOTH = {frozenset(("7.2", "10")): "pc-i440fx-7.2", frozenset(("7.2", "newest")): "pc-i440fx-7.2",
                   frozenset(("10", "newest")): "pc-i440fx-10.0"}


def _idle_destination(folder, stack, version, machine, backends, namespace=None, vga=1, extra=()):
    """A QEMU that migrx is to prepare by QMP; returns it, the address for --handoff and that for --qmp."""
    qmp = os.path.join(folder, "prepare.qmp")
    destination = stack.enter_context(Machine(folder, version, machine, backends, namespace=namespace,
                                              incoming="defer", name="destination", vga=vga,
                                              extra=("-qmp", "unix:%s,server=on,wait=off" % qmp, *extra)))
    return destination, "unix:" + os.path.join(folder, "handoff.sock"), "unix:" + qmp


def _destination(folder, stack, version, machine, source, path, change=lambda backend: backend, extra=(),
                 capabilities=None, parameters=None, tcp=False):
    """A QEMU that waits for its device state; its RAM is the files that migrx fills.

    `change` makes a wrong backend of a right one; `extra`: more options of that QEMU; `tcp`: it listens on loopback
    instead of a UNIX socket.
    """
    backends = [change(Backend(backend.id, backend.size, path=os.path.join(path, "received." + backend.id)))
                for backend in source.backends]
    destination = stack.enter_context(Machine(folder, version, machine, backends, namespace=source.namespace,
                                              incoming="defer", name="destination", extra=extra,
                                              target=source.target, vga=source.vga))
    if capabilities:
        destination.set_capabilities(**capabilities)
    if parameters:
        destination.set_parameters(**parameters)
    address = "tcp:127.0.0.1:49152" if tcp else "unix:" + os.path.join(folder, "handoff.sock")
    destination.qmp.command("migrate-incoming", uri=address)
    return destination, address


def _expect_goes_on(source, destination):
    """The guest's count goes on at the destination without a gap, and only there; returns the lines it printed."""
    deadline = time.monotonic() + 30
    while len(console_lines(destination.console())) < 20 and time.monotonic() < deadline:
        expect(destination.alive(), "the destination ended: %s", destination.log())
        time.sleep(0.05)
    expect_unbroken([source.console(), destination.console()])
    lines = len(console_lines(destination.console()))
    expect(lines >= 20, "the guest printed only %d lines at the destination", lines)
    expect(destination.running() and not source.running(), "not exactly one guest runs")
    return lines


def _expect_nothing_left_on(destination):
    """What would harm the guest's next migration, or leave its RAM out of its next save."""
    on = [entry["capability"] for entry in destination.qmp.command("query-migrate-capabilities") if entry["state"]]
    expect("x-ignore-shared" not in on, "x-ignore-shared is on at the destination")


def _saved_and_restored(folder, stack, saved, by_pipe):
    """The guest is saved to a file and goes on from the file in another QEMU, with all of its memory."""
    path = os.path.join(folder, "saved")
    saved.set_parameters(max_bandwidth=FAST, downtime_limit=2000)
    saved.migrate(("exec:cat > " if by_pipe else "file:") + path)
    saved.wait_migration()
    expect(os.path.getsize(path) > GUEST_BYTES // 2, "the saved guest has %d bytes", os.path.getsize(path))
    restored = stack.enter_context(saved.twin(
        "restored", [Backend(backend.id, backend.size, path=os.path.join(folder, "restored." + backend.id))
                     for backend in saved.backends], extra=()))
    restored.qmp.command("migrate-incoming", uri=("exec:cat < " if by_pipe else "file:") + path)
    return restored


def _moved_on(folder, stack, moved):
    """The guest is migrated on, without migrx."""
    address = "unix:" + os.path.join(folder, "onward.sock")
    onward = stack.enter_context(moved.twin(
        "onward", [Backend(backend.id, backend.size, path=os.path.join(folder, "onward." + backend.id))
                   for backend in moved.backends], extra=()))
    onward.qmp.command("migrate-incoming", uri=address)
    moved.set_parameters(max_bandwidth=FAST, downtime_limit=2000)
    moved.migrate(address)
    moved.wait_migration()
    return onward


def _expect_sound(machine, before):
    """The guest counts on and finds its memory as it wrote it."""
    if machine.qmp.command("query-status")["status"] != "running":
        deadline = time.monotonic() + 20
        while machine.qmp.command("query-status")["status"] == "inmigrate":
            expect(time.monotonic() < deadline, "%s still waits for the guest", machine.name)
            time.sleep(0.05)
        machine.qmp.command("cont")
    deadline = time.monotonic() + 60
    # Two whole passes of its check of memory.
    while not machine.counts() or machine.counts()[-1][1] < before[1] + 2:
        expect(machine.alive() and time.monotonic() < deadline, "%s does not go on: %s", machine.name, machine.log())
        time.sleep(0.05)
    expect(all(bad == 0 for _count, _passes, bad in machine.counts()), "%s: the guest finds bad pages: %r",
           machine.name, machine.counts()[-3:])


def _lives_on(version, form):
    """After a hand-off that --qmp prepared the guest is moved on without migrx, saved to a file and restored: nothing
    that would leave its RAM out is on any more."""
    transfer = Transfer(version, "pc", channels=2, dirty_s=0.5)

    def run(folder):
        need(version)
        with contextlib.ExitStack() as stack:
            network = stack.enter_context(Network(transfer.mtu))
            source = transfer.start_source(folder, stack, network)
            backends = [Backend(backend.id, backend.size, path=os.path.join(folder, "received." + backend.id))
                        for backend in source.backends]
            destination, address, qmp = _idle_destination(folder, stack, version, "pc", backends, source.namespace)
            options = {backend.id: "%s,size=%d" % (backend.path, backend.size) for backend in backends}
            receiver = stack.enter_context(Receiver(folder, network, options, transfer.channels, handoff=address,
                                                    extra=("--qmp", qmp, "--handoff-form", form)))
            expect(receiver.wait_ready(), "migrx never got ready: %s", receiver.log()[-2000:])
            source.migrate(receiver.uri)
            transfer.converge(source)
            source.wait_migration(timeout=transfer.timeout)
            expect(receiver.wait(60) == 0, "migrx failed: %s", receiver.log()[-2000:])
            _expect_nothing_left_on(destination)
            _expect_goes_on(source, destination)
            before = destination.counts()[-1]
            onward = _moved_on(folder, stack, destination)
            _expect_sound(onward, before)
            before = onward.counts()[-1]
            restored = _saved_and_restored(folder, stack, onward, version == "7.2")
            _expect_sound(restored, before)
            return "%d lines after the last move" % len(restored.counts())
    return run


def _tls(kind, source=True, **settings):
    """A transfer whose source has tls-creds of `kind`."""
    if source:
        settings.update(extra=lambda _folder: pki.source_arguments(kind), parameters={"tls_creds": "tls0"})
    return Transfer(**settings)


def _tls_options(kind, source=True, host=RECEIVER, path=None, creds_more=""):
    """migrx's options when its destination has tls-creds, and its source when `source`."""
    options = ("--tls-creds", "%s:dir=%s" % (kind, pki.folder())) if source else ("--handoff-tls", "on")
    options += ("--handoff-tls-creds", "%s:dir=%s%s" % (kind, path or pki.folder(), creds_more))
    return options + (("--handoff-tls-hostname", host) if kind == "x509" else ())


def _expect_encrypted(report, creds, connections):
    """What the report says of the hand-off's TLS."""
    tls = report.get("handoff_tls")
    expect(bool(tls) == bool(creds), "the report says of the hand-off's TLS: %s", tls)
    expect(not creds or tls["handshakes"] == connections, "%s for %d connections", tls, connections)


def _runs_on(version, destination_version, machine, transfer, by_qmp=False, tcp=False, multifd_there=False,
             form="plain", creds=None):
    """A live migration through migrx to a QEMU of another process. by_qmp: migrx prepares that QEMU, and the blocks
    are named in an order that does not tell their addresses. multifd_there: the destination waits for as many
    channels as the source has, as orchestration that knows nothing of migrx sets it up. creds: x509 or psk, the
    destination's tls-creds; the source's when the transfer has them."""
    def run(folder):
        need(version, transfer.target)
        need(destination_version, transfer.target)
        with contextlib.ExitStack() as stack:
            network = stack.enter_context(Network(transfer.mtu))
            source = transfer.start_source(folder, stack, network)
            extra = _tls_options(creds, "tls_creds" in transfer.parameters) if creds else ()
            creds_there = pki.destination_arguments(creds) if creds else ()
            if by_qmp:
                backends = [Backend(backend.id, backend.size, path=os.path.join(folder, "received." + backend.id))
                            for backend in source.backends]
                destination, address, qmp = _idle_destination(folder, stack, destination_version, machine, backends,
                                                              source.namespace, extra=creds_there)
                if creds:
                    destination.set_parameters(tls_creds="tls0")
                extra += ("--qmp", qmp)
            else:
                capabilities, parameters = {}, {}
                if multifd_there:
                    capabilities["multifd"] = True
                    parameters["multifd_channels"] = transfer.channels
                if form == "x-ignore-shared":
                    capabilities["x_ignore_shared"] = True
                    extra += ("--handoff-form", form)
                if transfer.capabilities.get("switchover_ack"):
                    capabilities.update(return_path=True, switchover_ack=True)
                if creds:
                    parameters["tls_creds"] = "tls0"
                extra_there = transfer.guest.destination_arguments() if isinstance(transfer.guest, BareGuest) else ()
                destination, address = _destination(folder, stack, destination_version, machine, source, folder,
                                                    extra=(*extra_there, *creds_there), capabilities=capabilities,
                                                    parameters=parameters, tcp=tcp)
            options = {backend.id: "%s,size=%d" % (backend.path, backend.size)
                       for backend in reversed(destination.backends)} if by_qmp else {
                           backend.id: "%s,size=%d" % (backend.path, backend.size) for backend in destination.backends}
            receiver = stack.enter_context(Receiver(folder, network, options, transfer.channels, transfer.compression,
                                                    transfer.receiver_capabilities, extra, handoff=address))
            expect(receiver.wait_ready(), "migrx never got ready: %s", receiver.log()[-2000:])
            source.migrate(receiver.uri)
            transfer.converge(source)
            source.wait_migration(timeout=transfer.timeout)
            status = receiver.wait(60)
            expect(status == 0, "migrx ended with %d: %s", status, receiver.log()[-2000:])
            report = receiver.report()
            lines = _expect_goes_on(source, destination)
            if form == "plain":
                _expect_nothing_left_on(destination)
            _expect_encrypted(report, creds, 1 + (transfer.channels if multifd_there else 0))
            times = report["timeline"]
            return "device state %.1f ms behind the last page, handed on %.1f ms later; %d lines at the destination" % (
                (times["device_state_s"] - times["ram_complete_s"]) * 1000,
                (times["handed_on_s"] - times["device_state_s"]) * 1000, lines)
    return run


def _from_snapshot(version, capabilities, by_qmp, behind=0):
    """`migrx load --handoff`: a snapshot's guest goes on in another QEMU. `behind`: bytes of something else that stand
    behind the stream, as on a disk that was written before."""
    snapshot = Snapshot(version, "exec:cat > {}" if version == "7.2" else "file:{}", capabilities=capabilities)

    def run(folder):
        need(version)
        with contextlib.ExitStack() as stack:
            disk = stack.enter_context(tempfile.TemporaryDirectory(prefix="migrx-snapshot-", dir="/var/tmp"))
            path = os.path.join(disk, "snapshot")
            source = snapshot.make(folder, path, stack)
            with open(path, "ab") as file:
                file.write(os.urandom(behind))
            received = os.path.join(folder, "received.mem")
            destination, address, qmp = _idle_destination(folder, stack, version, "q35",
                                                          [Backend("mem", SIZE, path=received)])
            extra = ["--handoff", address]
            if by_qmp:
                extra += ["--qmp", qmp]
            else:
                destination.qmp.command("migrate-incoming", uri=address)
            status, report, output = run_load(folder, path, {"mem": received}, extra, ())
            expect(status == 0, "migrx load ended with %d: %s", status, output[-2000:])
            expect(report["outcome"] == "complete", "outcome %s: %s", report["outcome"], report.get("error"))
            destination.qmp.command("cont")  # The snapshot is of a stopped guest.
            return "%d lines at the destination" % _expect_goes_on(source, destination)
    return run


def _refuses_by_qmp(version, says, change=lambda backend: backend, prepare=lambda destination: None):
    """A destination that --qmp finds wrong: migrx ends before it opens the file for writing, and the destination was
    not told to wait."""
    def run(folder):
        need(version)
        with contextlib.ExitStack() as stack:
            network = stack.enter_context(Network())
            path = os.path.join(folder, "received.mem")
            with open(path, "wb") as file:
                file.write(b"somebody's")
                file.truncate(64 * MIB)
            backend = change(Backend("mem", 64 * MIB, path=path))
            destination, address, qmp = _idle_destination(folder, stack, version, "pc", [backend])
            prepare(destination)
            receiver = stack.enter_context(Receiver(folder, network, {"mem": path}, 2, extra=("--qmp", qmp),
                                                    handoff=address))
            status = receiver.wait(30)
            message = receiver.log()
            expect(status == 2 and says in message, "exit status %d without %r: %s", status, says, message[-2000:])
            expect(destination.alive() and not os.path.exists(address[len("unix:"):]),
                   "the destination was told to wait")
            with open(path, "rb") as file:
                expect(file.read(10) == b"somebody's", "the file was written")
            expect("prefault" not in message, "memory was touched before the refusal: %s", message)
            return message.strip().splitlines()[-1]
    return run


def _occupied(destination):
    """Another program, such as libvirt, talks to the QMP socket that is given to migrx."""
    destination.occupant = socket.socket(socket.AF_UNIX)
    destination.occupant.connect(os.path.join(destination.folder, "prepare.qmp"))
    expect(destination.occupant.recv(4096).startswith(b'{"QMP"'), "no greeting")


def _is_gone(destination):
    destination.process.wait(10)


def _is_gone_or_stopped(destination):
    """One that found all of the device state in its socket has loaded it, and waits for a cont that must not come."""
    deadline = time.monotonic() + 10
    while destination.alive() and time.monotonic() < deadline:
        with contextlib.suppress(OSError):  # It may go while it is asked.
            if destination.qmp.command("query-status")["status"] == "paused":
                return
        time.sleep(0.1)
    _is_gone(destination)


def _guest_stays(version, harm, says, start=_destination, status=1, extra=(), ends=_is_gone, transfer=None):
    """A hand-off that fails: `harm(destination, receiver, source)` in its midst, or by the way the destination was started.
    `extra`: more options of migrx, or a function that makes them. `ends(destination)` waits for what becomes of the destination.

    The source's guest goes on, no other guest runs, and migrx says why in a message that holds `says`.
    """
    # The first pass takes longer than a second, the blocks that have no file come last in it, and they do not fit into a
    # socket: a destination that stands still from then on has not got all of its stream.
    transfer = transfer or Transfer(version, "pc", channels=2, dirty_s=2.0, size=64 * MIB, vga=16)

    def run(folder):
        need(version)
        with contextlib.ExitStack() as stack:
            network = stack.enter_context(Network(transfer.mtu))
            source = transfer.start_source(folder, stack, network)
            destination, address = start(folder, stack, version, transfer.machine, source, folder)
            options = {backend.id: "%s,size=%d" % (os.path.join(folder, "received." + backend.id), backend.size)
                       for backend in source.backends}
            receiver = stack.enter_context(Receiver(folder, network, options, transfer.channels, handoff=address,
                                                    extra=extra() if callable(extra) else extra))
            expect(receiver.wait_ready(), "migrx never got ready: %s", receiver.log()[-2000:])
            source.migrate(receiver.uri)
            time.sleep(1.0)
            harm(destination, receiver, source)
            source.wait_migration(states=("failed", "cancelled"), timeout=60)
            ended = receiver.wait(30)
            expect(status in (ended, None), "migrx ended with %d: %s", ended, receiver.log()[-2000:])
            expect(source.goes_on(), "the source's guest does not go on")
            if destination is not None:
                ends(destination)
                expect(not destination.counts(), "the guest ran at the destination")
            message = receiver.report()["error"]["message"] if status is not None else receiver.log()
            expect(says in message, "migrx does not say %r: %s", says, message)
            return message if status is not None else "the source was told"
    return run


def _file_replaced(version, with_destination):
    """The RAM file is removed after migrx has opened it, and made again by the destination QEMU where there is one:
    migrx loads memory that nobody would find, so the source keeps its guest."""
    transfer = Transfer(version, "pc", channels=2)

    def run(folder):
        need(version)
        with contextlib.ExitStack() as stack:
            network = stack.enter_context(Network(transfer.mtu))
            source = transfer.start_source(folder, stack, network)
            path = os.path.join(folder, "received.mem")
            address = "unix:" + os.path.join(folder, "handoff.sock") if with_destination else None
            receiver = stack.enter_context(Receiver(folder, network, {"mem": "%s,size=%d" % (path, transfer.size)},
                                                    transfer.channels, handoff=address))
            expect(receiver.wait_ready(), "migrx never got ready: %s", receiver.log()[-2000:])
            os.unlink(path)
            destination = None
            if with_destination:
                destination, there = _destination(folder, stack, version, transfer.machine, source, folder)
                expect(there == address, "the destination waits at %s", there)
            source.migrate(receiver.uri)
            source.wait_migration(states=("failed",), timeout=60)
            ended = receiver.wait(30)
            message = receiver.report()["error"]["message"]
            expect(ended == 1 and "was removed or replaced" in message, "status %d: %s", ended, message)
            expect(source.goes_on(), "the source's guest does not go on")
            if destination is not None:
                expect(not destination.counts(), "the guest ran at the destination")
                expect(os.stat(path).st_size == transfer.size, "somebody else's file was removed")
            return message
    return run


def _untouched(*_unused):
    pass


def _with_backends(change, extra=()):
    def start(folder, stack, version, machine, source, path):
        for backend in source.backends:  # The size that migrx needs, whatever the destination asks for.
            with open(os.path.join(path, "received." + backend.id), "wb") as file:
                file.truncate(backend.size)
        return _destination(folder, stack, version, machine, source, path, change, extra=extra)
    return start


def _started_stopped(folder, stack, version, machine, source, path):
    return _destination(folder, stack, version, machine, source, path, extra=("-S",))


def _with_machine(other):
    def start(folder, stack, version, _machine, source, path):
        return _destination(folder, stack, version, other, source, path)
    return start


def _no_destination(folder, *_unused):
    return None, "unix:" + os.path.join(folder, "nobody.sock")


def _kill_worker(_destination, receiver, source):
    for child in receiver.children():
        os.kill(child, signal.SIGKILL)
    # The interface goes with the worker and comes back with the one that resets: configure it again.
    deadline = time.monotonic() + 30
    while source.migration()["status"] in ("active", "device") and time.monotonic() < deadline:
        with contextlib.suppress(Exception):
            receiver.network.attach(timeout=1)
        time.sleep(0.1)


def _behind_a_firewall(folder, stack, version, machine, source, path):
    """The source's host lets nothing in that does not belong to a connection, as a stateful firewall does."""
    for rule in ("ESTABLISHED,RELATED -j ACCEPT", "INVALID -j DROP"):
        subprocess.run(["nsenter", "--net=/run/netns/" + source.namespace, "iptables", "-w", "-A", "INPUT", "-m",
                        "conntrack", "--ctstate", *rule.split()], check=True)
    return _destination(folder, stack, version, machine, source, path)


def _kill_worker_while_loading(destination, receiver, source):
    """Everything has been sent and acknowledged, the guest stands still at both sides, and nobody sends anything: the
    source waits for a destination that takes its time."""
    destination.process.send_signal(signal.SIGSTOP)
    source.set_parameters(max_bandwidth=FAST, downtime_limit=2000)
    deadline = time.monotonic() + 20
    while source.qmp.command("query-status")["status"] != "finish-migrate" or receiver.network.unacknowledged() > 0:
        expect(time.monotonic() < deadline, "the source never came to wait: %s", source.migration())
        time.sleep(0.1)
    try:
        _kill_worker(destination, receiver, source)
    finally:
        destination.process.send_signal(signal.SIGCONT)


def _hang(destination, _receiver, source):
    """The destination takes what its socket holds and never answers."""
    destination.process.send_signal(signal.SIGSTOP)
    try:
        source.set_parameters(max_bandwidth=FAST, downtime_limit=2000)
        source.wait_migration(states=("failed",), timeout=30)
    finally:
        destination.process.send_signal(signal.SIGCONT)


def _with_creds(kind, on=True, multifd=False, stopped=False):
    """A destination that has tls-creds, and uses them when `on`. `stopped`: its process stands still."""
    def start(folder, stack, version, machine, source, path):
        parameters = {"tls_creds": "tls0"} if on else {}
        if multifd:
            parameters["multifd_channels"] = 2
        found = _destination(folder, stack, version, machine, source, path, extra=tuple(pki.destination_arguments(kind)),
                             capabilities={"multifd": True} if multifd else None, parameters=parameters)
        if stopped:
            found[0].process.send_signal(signal.SIGSTOP)
        return found
    return start


def _waits_or_is_gone(destination):
    """A QEMU whose handshake fails drops that connection, and waits for another one."""
    destination.process.send_signal(signal.SIGCONT)  # It may have stood still.
    with contextlib.suppress(OSError):
        expect(destination.qmp.command("query-status")["status"] == "inmigrate", "the destination waits no more")
        return
    _is_gone(destination)


def _tls_cases():
    """Hand-offs to a destination with tls-creds, as libvirt's --tls sets them at both ends."""
    for version in VERSIONS:
        x509 = _tls("x509", version=version, machine="pc", channels=2, dirty_s=1.0)
        psk = _tls("psk", version=version, machine="pc", channels=2, dirty_s=1.0)
        yield Case("handoff-tls-x509-%s" % version, _runs_on(version, version, "pc", x509, creds="x509"),
                   False, 120)
        yield Case("handoff-tls-multifd-there-%s" % version,
                   _runs_on(version, version, "pc", x509, tcp=True, multifd_there=True, creds="x509"), True, 120)
        # Not told by the listener's queue.
        yield Case("handoff-tls-multifd-there-1-%s" % version,
                   _runs_on(version, version, "pc", _tls("x509", version=version, machine="pc", channels=1, dirty_s=1.0),
                            tcp=True, multifd_there=True, creds="x509"), False, 120)
        yield Case("handoff-tls-psk-%s" % version,
                   _runs_on(version, version, "pc", psk, tcp=True, creds="psk"), version == "10", 120)
        yield Case("handoff-tls-psk-multifd-there-%s" % version,
                   _runs_on(version, version, "pc", psk, tcp=True, multifd_there=True, creds="psk"), False, 120)
        yield Case("handoff-tls-precopy-%s" % version,
                   _runs_on(version, version, "pc", _tls("x509", version=version, machine="pc", dirty_s=1.0),
                            creds="x509"), False, 120)
        yield Case("handoff-tls-qmp-%s" % version,
                   _runs_on(version, version, "pc", x509, by_qmp=True, creds="x509"), False, 120)
        # The source without, the destination with tls-creds: by option only.
        yield Case("handoff-tls-destination-alone-%s" % version,
                   _runs_on(version, version, "pc", Transfer(version, "pc", channels=2, dirty_s=1.0), creds="x509"),
                   False, 120)
        failing = _tls("x509", version=version, machine="pc", channels=2, dirty_s=2.0, size=64 * MIB, vga=16)
        plain = ("--tls-creds", "x509:dir=%s")
        yield Case("handoff-tls-other-name-%s" % version,
                   _guest_stays(version, _untouched, "--handoff-tls-hostname", _with_creds("x509"),
                                extra=lambda: _tls_options("x509", host="other.example"), transfer=failing, ends=_waits_or_is_gone),
                   version == "10", 120)
        yield Case("handoff-tls-stranger-%s" % version,
                   _guest_stays(version, _untouched, "client-cert.pem", _with_creds("x509"),
                                extra=lambda: _tls_options("x509", path=pki.folder(strange_client=True),
                                                           creds_more=",sanity-check=off"), transfer=failing, ends=_waits_or_is_gone),
                   version == "10", 120)
        yield Case("handoff-tls-not-there-%s" % version,
                   _guest_stays(version, _untouched, "--handoff-tls off", _with_creds("x509", on=False),
                                extra=lambda: _tls_options("x509"), transfer=failing, ends=_waits_or_is_gone), version == "10", 120)
        yield Case("handoff-tls-not-here-%s" % version,
                   _guest_stays(version, _untouched, "--handoff-tls-creds", _with_creds("x509"),
                                extra=lambda: (plain[0], plain[1] % pki.folder()), transfer=failing, ends=_waits_or_is_gone),
                   version == "7.2", 120)
        yield Case("handoff-tls-multifd-not-here-%s" % version,
                   _guest_stays(version, _untouched, "--handoff-tls-creds", _with_creds("x509", multifd=True),
                                extra=lambda: (plain[0], plain[1] % pki.folder()), transfer=failing, ends=_waits_or_is_gone), False, 120)
        yield Case("handoff-tls-hangs-%s" % version,
                   _guest_stays(version, _untouched, "does not finish the TLS handshake",
                                _with_creds("x509", stopped=True), extra=lambda: _tls_options("x509"),
                                transfer=failing, ends=_waits_or_is_gone), False, 120)
        yield Case("handoff-tls-sigterm-%s" % version,
                   _guest_stays(version, lambda _destination, receiver, _source: receiver.signal(), "signal",
                                _with_creds("x509", stopped=True), extra=lambda: _tls_options("x509"),
                                transfer=failing, ends=_waits_or_is_gone), False, 120)
        yield Case("handoff-tls-destination-dies-%s" % version,
                   _guest_stays(version, lambda destination, *_unused: destination.process.kill(),
                                "closed the connection", _with_creds("x509"), extra=lambda: _tls_options("x509"),
                                transfer=failing), False, 120)


def cases():
    """All cases of handing a guest on."""
    yield from _tls_cases()
    for version, destination in itertools.product(VERSIONS, VERSIONS):
        machine = "pc" if version == destination else MACHINE_OF_BOTH[frozenset((version, destination))]
        yield Case("handoff-%s-to-%s" % (version, destination),
                   _runs_on(version, destination, machine, Transfer(version, machine, dirty_s=1.0)),
                   version == destination, 120)
        yield Case("handoff-multifd-%s-to-%s" % (version, destination),
                   _runs_on(version, destination, machine, Transfer(version, machine, channels=4, dirty_s=1.5)),
                   True, 120)
    for version in VERSIONS:
        yield Case("handoff-q35-zstd-%s" % version,
                   _runs_on(version, version, "q35",
                            Transfer(version, "q35", channels=2, compression="zstd", dirty_s=1.0)), False, 120)
        yield Case("handoff-numa-%s" % version,
                   _runs_on(version, version, "pc",
                            Transfer(version, "pc", channels=2, dirty_s=1.0,
                                     backends=lambda folder: [Backend("m0", 48 * MIB), Backend("m1", 16 * MIB)])),
                   version == "10", 120)
        yield Case("handoff-qmp-%s" % version,
                   _runs_on(version, version, "pc", Transfer(version, "pc", channels=4, dirty_s=1.0), by_qmp=True),
                   version == "7.2", 120)
        yield Case("handoff-qmp-numa-%s" % version,
                   _runs_on(version, version, "q35",
                            Transfer(version, "q35", channels=2, dirty_s=1.0,
                                     backends=lambda folder: [Backend("m0", 48 * MIB), Backend("m1", 16 * MIB)]),
                            by_qmp=True), version == "10", 120)
        yield Case("handoff-qmp-not-shared-%s" % version,
                   _refuses_by_qmp(version, "share=on", lambda backend: dataclasses.replace(backend, kind="private")),
                   version == "10", 60)
        yield Case("handoff-qmp-too-small-%s" % version,
                   _refuses_by_qmp(version, "bytes", lambda backend: dataclasses.replace(backend, size=32 * MIB)),
                   False, 60)
        yield Case("handoff-qmp-elsewhere-%s" % version,
                   _refuses_by_qmp(version, "lies in",
                                   lambda backend: dataclasses.replace(backend, path=backend.path + "2")), False, 60)
        yield Case("handoff-qmp-tls-%s" % version,
                   _refuses_by_qmp(version, "tls-creds is tls0",
                                   prepare=lambda there: there.set_parameters(tls_creds="tls0")), version == "10", 60)
        yield Case("handoff-qmp-busy-%s" % version,
                   _refuses_by_qmp(version, "serves one client at a time; end the one", prepare=_occupied),
                   version == "10", 60)
        yield Case("handoff-qmp-anonymous-%s" % version,
                   _refuses_by_qmp(version, "memory-backend-file",
                                   lambda backend: dataclasses.replace(backend, kind="memfd")), False, 60)
        yield Case("handoff-load-plain-%s" % version, _from_snapshot(version, {}, version == "7.2"), version == "7.2",
                   120)
        for form in ("plain", "x-ignore-shared"):
            yield Case("handoff-lives-on-%s-%s" % (form, version), _lives_on(version, form),
                       (form, version) in (("plain", "10"), ("x-ignore-shared", "7.2")), 150)
        yield Case("handoff-file-replaced-%s" % version, _file_replaced(version, True), version != "newest", 60)
        yield Case("file-removed-%s" % version, _file_replaced(version, False), version == "10", 60)
        yield Case("handoff-destination-dies-%s" % version,
                   _guest_stays(version, lambda destination, *_unused: destination.process.kill(),
                                "closed the connection"), True, 120)
        yield Case("handoff-destination-hangs-%s" % version,
                   _guest_stays(version, _hang, "--destination-timeout", _started_stopped,
                                extra=("--destination-timeout", "3"), ends=_is_gone_or_stopped),
                   version == "10", 120)
        yield Case("handoff-memory-not-shared-%s" % version,
                   _guest_stays(version, _untouched, "share=on",
                                _with_backends(lambda backend: dataclasses.replace(backend, kind="private"))),
                   True, 120)
        yield Case("handoff-memory-too-small-%s" % version,
                   _guest_stays(version, _untouched, "needs size=",
                                _with_backends(lambda backend: dataclasses.replace(backend, size=backend.size // 2))),
                   version == "10", 120)
        yield Case("handoff-memory-elsewhere-%s" % version,
                   _guest_stays(version, _untouched, "does not map",
                                _with_backends(lambda backend: dataclasses.replace(backend, path=backend.path + "2"))),
                   version == "10", 120)
        # A process chooses its name itself: it must not matter.
        yield Case("handoff-memory-elsewhere-named-%s" % version,
                   _guest_stays(version, _untouched, "does not map",
                                _with_backends(lambda backend: dataclasses.replace(backend, path=backend.path + "2"),
                                               ("-name", "destination,process=vm0"))),
                   version == "10", 120)
        yield Case("handoff-other-machine-%s" % version,
                   _guest_stays(version, _untouched, "destination QEMU", _with_machine("q35")), version == "7.2", 120)
        yield Case("handoff-socket-missing-%s" % version,
                   _guest_stays(version, _untouched, "migrate-incoming", _no_destination), False, 120)
        yield Case("handoff-cancelled-%s" % version,
                   _guest_stays(version, lambda _destination, _receiver, source: source.qmp.command("migrate_cancel"),
                                "main: byte"), version == "7.2", 120)
        yield Case("handoff-sigterm-%s" % version,
                   _guest_stays(version, lambda _destination, receiver, _source: receiver.signal(), "signal"), True, 120)
        yield Case("handoff-sigkill-%s" % version,
                   _guest_stays(version, _kill_worker, "", status=None), True, 120)
        yield Case("handoff-sigkill-while-loading-%s" % version,
                   _guest_stays(version, _kill_worker_while_loading, "", _behind_a_firewall, status=None), True, 120)
    yield Case("handoff-load-mapped-ram-10", _from_snapshot("10", {"mapped_ram": True}, True), True, 120)
    yield Case("handoff-load-more-behind-10", _from_snapshot("10", {}, True, behind=32 * MIB), True, 120)
    yield Case("handoff-load-mapped-ram-multifd-10",
               _from_snapshot("10", {"mapped_ram": True, "multifd": True}, False), False, 120)
    # A destination that is set up as for a migration without migrx.
    for version in VERSIONS:
        yield Case("handoff-tcp-%s" % version,
                   _runs_on(version, version, "pc", Transfer(version, "pc", channels=2, dirty_s=1.0), tcp=True),
                   version == "10", 120)
        for channels in (1, 2, 4):
            yield Case("handoff-multifd-there-%d-%s" % (channels, version),
                       _runs_on(version, version, "pc", Transfer(version, "pc", channels=channels, dirty_s=1.0), tcp=True,
                                multifd_there=True), channels == 2, 120)
        yield Case("handoff-x-ignore-shared-%s" % version,
                   _runs_on(version, version, "pc", Transfer(version, "pc", channels=2, dirty_s=1.0),
                            form="x-ignore-shared"), version == "7.2", 120)
    # Synchronises per section although its QEMU is new.
    yield Case("handoff-multifd-there-7.2-to-10",
               _runs_on("7.2", "10", "pc-i440fx-7.2", Transfer("7.2", "pc-i440fx-7.2", channels=2, dirty_s=1.0), tcp=True,
                        multifd_there=True), True, 120)
    for version in ("10", "newest"):
        # The destination says it, and migrx was not told.
        yield Case("handoff-switchover-ack-untold-%s" % version,
                   _runs_on(version, version, "pc", Transfer(version, "pc", channels=2, dirty_s=1.0,
                                                             capabilities={"switchover_ack": True}), tcp=True), True, 120)
        # Without the destination's word the source would go on precopying for ever.
        yield Case("handoff-switchover-ack-%s" % version,
                   _runs_on(version, version, "pc",
                            Transfer(version, "pc", channels=2, dirty_s=1.0, capabilities={"switchover_ack": True},
                                     receiver_capabilities=("switchover-ack",)), by_qmp=True), True, 120)
    for target in ("aarch64", "riscv64"):
        transfer = Transfer("newest", "virt", target, channels=2, dirty_s=1.0, guest=BareGuest(target, 64 * MIB))
        yield Case("handoff-%s-newest" % target, _runs_on("newest", "newest", "virt", transfer, tcp=True), False, 120)
