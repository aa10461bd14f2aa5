"""`virsh migrate` between two unmodified libvirt daemons goes through migrx, which the hook starts."""

import contextlib
import os
import re
import signal
import subprocess
import sys
import time

from rig.daemon import Daemon as Serve
from rig.guest import MIB, console_lines, expect_unbroken
from rig.libvirt import GUEST, KERNEL, MEMFD, PRIVATE, domain, need_libvirt
from rig.libvirt_hosts import DISK_SECTORS, SIZE, URI, Background, Hosts, tls_options
from rig.network import RECEIVER
from rig.receiver import migrx_program
from rig.runner import Case, expect
from rig.transfer import need

def _expect_same_disks(hosts):
    """While the guest stands still at the destination. Returns the last line whose number it has written."""
    with open(hosts.source.disk, "rb") as one, open(hosts.destination.disk, "rb") as other:
        at = 0
        while part := one.read(MIB):
            expect(other.read(MIB) == part, "the disks differ between %d and %d", at, at + len(part))
            at += len(part)
        expect(not other.read(1), "the destination's disk is longer")
        written = 0
        for sector in range(DISK_SECTORS):
            other.seek(sector * 512)
            data = other.read(512)
            number = int.from_bytes(data[:4], "little")
            if number % DISK_SECTORS == sector and data == data[:4] * 128:
                written = max(written, number)
    return written


def _with_disk(*options, size=48 * MIB):
    """--copy-storage-all without --disks-uri: libvirt's NBD goes to migrx's address, and through it."""
    def run(folder):
        with contextlib.ExitStack() as stack:
            hosts = Hosts(folder, stack, disk=size, lines=('migration_host = "%s"' % RECEIVER,))
            hosts.migrate("--copy-storage-all", "--suspend", *options)
            expect(hosts.destination.state() == "paused", "the guest is %r", hosts.destination.state())
            with open(hosts.console_path, "rb") as file:
                lines = len(console_lines(file.read()))
            # A line that is being written when the guest stops is the next one, or its number is not on the disk yet.
            written = _expect_same_disks(hosts)
            expect(lines - 1 <= written <= lines + 1, "line %d is on the disk, %d on the console", written, lines)
            hosts.destination.virsh("resume", GUEST)
            hosts.wait_lines(20)
            hosts.expect_came_through_migrx(2 if "--parallel" in options else 0)
            forwarded = re.search(r"forwarded for .*: ([0-9.]+) MiB in ([0-9.]+) s", hosts.destination.receiver_log())
            expect(forwarded, "nothing was forwarded: %s", hosts.destination.receiver_log())
            expect(float(forwarded.group(1)) * MIB >= size * 7 // 8, "only %s MiB were forwarded", forwarded.group(1))
            return "%s MiB of disk in %s s, %d lines without a gap" % (*forwarded.groups(), len(hosts.wait_lines(1)))
    return run


def _goes_through(*options, channels=0, lines=(), uri=URI, afterwards=lambda hosts: None):
    tls = "--tls" in options

    def run(folder):
        with contextlib.ExitStack() as stack:
            hosts = Hosts(folder, stack, lines=lines, tls=tls)
            hosts.migrate(*options, *uri)
            report = hosts.expect_came_through_migrx(channels)
            expect(("tls" in report, "handoff_tls" in report) == (tls, tls), "TLS: %s", report.get("handoff_tls"))
            expect(not tls or report["handoff_tls"]["handshakes"] == channels + 1, "%s", report.get("handoff_tls"))
            hosts.wait_lines(20)
            afterwards(hosts)
            return "%d lines without a gap" % len(hosts.wait_lines(1))
    return run


def _saved_restored_and_back(hosts):
    """What a capability left switched on would spoil."""
    path = os.path.join(os.path.dirname(hosts.console_path), "saved")
    hosts.destination.virsh("save", GUEST, path)
    expect(os.path.getsize(path) > SIZE // 4, "the saved guest has %d bytes", os.path.getsize(path))
    hosts.destination.virsh("restore", path)
    os.unlink(path)
    hosts.wait_lines(20)
    hosts.destination.virsh("migrate", "--live", GUEST, hosts.source.uri, "--migrateuri", "tcp://" + KERNEL["source"],
                            timeout=200)
    expect(hosts.source.state() == "running" and hosts.destination.state() == "", "it did not come back")
    hosts.wait_lines(20)


def _refused(says, memory=MEMFD, configured=True):
    """The hook ends the migration before the source has done anything, and virsh says why."""
    def run(folder):
        with contextlib.ExitStack() as stack:
            hosts = Hosts(folder, stack, memory)
            if not configured:
                os.unlink(os.path.join(hosts.destination.folder, "etc/migrx.conf"))
            done = hosts.migrate(*URI, check=False)
            expect(done.returncode != 0, "it went through")
            hosts.expect_stays()
            expect(says in done.stderr, "virsh does not say %r: %s", says, done.stderr)
            return done.stderr.strip().splitlines()[-1][-200:]
    return run


def _aborted(folder):
    with contextlib.ExitStack() as stack:
        hosts = Hosts(folder, stack)
        hosts.source.virsh("migrate-setmaxdowntime", GUEST, "1", check=False)
        migration = stack.enter_context(contextlib.closing(Background(
            hosts, "--bandwidth", "8", *URI)))
        time.sleep(3)
        hosts.source.virsh("domjobabort", GUEST)
        expect(migration.wait() != 0, "it went through")
        return "%d lines without a gap" % len(hosts.expect_stays())


def _served(count, tls=False):
    """So many `virsh migrate` at a time through one `migrx serve`, with no hook: the destinations are found."""
    def run(folder):
        with contextlib.ExitStack() as stack:
            hosts = Hosts(folder, stack, hook=False, lines=('migration_host = "%s"' % RECEIVER,), tls=tls)
            consoles = {GUEST: hosts.console_path}
            for number in range(1, count):
                name = "busy%d" % number
                os.makedirs(os.path.join(folder, name))
                xml, consoles[name] = domain(os.path.join(folder, name), SIZE, name=name, number=number)
                hosts.source.virsh("create", xml)
            daemon = stack.enter_context(Serve(folder, hosts.network, (
                "--serve-ports", "49152-49215", "--listen-range", "4444-4450", *(tls_options() if tls else ())))).wait_ready()
            # Every second one with multifd.
            under_way = [stack.enter_context(contextlib.closing(Background(
                hosts, *(("--tls",) if tls else ()), *(("--parallel", "--parallel-connections", "2") if number % 2 else ()),
                guest=name)))
                         for number, name in enumerate(consoles)]
            statuses = [one.wait() for one in under_way]
            expect(not any(statuses), "virsh ended with %s: %s", statuses, daemon.log())
            for name in consoles:
                expect(hosts.destination.state(name) == "running" and hosts.source.state(name) == "",
                       "not exactly one %s runs", name)
            sessions = daemon.control.call("query-sessions")
            expect([session["outcome"] for session in sessions] == ["complete"] * count, "%s", sessions)
            reports = [daemon.control.call("query-session", id=session["id"])["report"] for session in sessions]
            expect(all(("handoff_tls" in report) == tls for report in reports), "not all are encrypted, or some are")
            channels = sorted(len(report["channels"]) for report in reports)
            expect(channels == sorted([1, 3] * count)[:count // 2] + [3] * (count // 2), "channels: %s", channels)
            lines = 0
            for path in consoles.values():
                with open(path, "rb") as file:
                    before = len(console_lines(file.read()))
                lines += _wait_lines(path, before + 10)
            return "%d lines without a gap" % lines
    return run


def _wait_lines(path, count, timeout=60):
    deadline = time.monotonic() + timeout
    while True:
        with open(path, "rb") as file:
            text = file.read()
        if len(console_lines(text)) >= count:
            return len(expect_unbroken([text]))
        expect(time.monotonic() < deadline, "%s: the guest does not go on", path)
        time.sleep(0.1)


def _demo(interrupted):
    """scripts/demo --libvirt, without its building; `interrupted`: by Ctrl-C while the guest is on its way."""
    def run(folder):
        need("7.2")
        need_libvirt()
        root = os.path.abspath(os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", ".."))
        path = os.path.join(folder, "demo.log")
        with open(path, "wb") as log:
            demo = subprocess.Popen([sys.executable, os.path.join(root, "scripts", "lib", "demo.py"), "--libvirt"],
                                    env=dict(os.environ, MIGRX=migrx_program()), stdin=subprocess.DEVNULL, stdout=log,
                                    stderr=log, start_new_session=True)
        try:
            deadline = time.monotonic() + 200
            while demo.poll() is None:
                expect(time.monotonic() < deadline, "the demo does not end: %s", _said(path))
                if interrupted and "listening on" in _said(path):
                    os.killpg(demo.pid, signal.SIGINT)  # as a terminal does
                    expect(demo.wait(60) == 1, "status %d: %s", demo.returncode, _said(path))
                time.sleep(0.1)
        finally:
            if demo.poll() is None:
                demo.terminate()
                demo.wait(60)
        said = _said(path)
        expect(("everything was taken down" if interrupted else "without gap or repeat") in said, "%s", said[-2000:])
        expect(interrupted or demo.returncode == 0, "status %d: %s", demo.returncode, said[-2000:])
        left = [name for name in (*os.listdir("/dev/shm"), *os.listdir("/run/netns"))
                if name.startswith(("migrx-demo-%d-" % demo.pid, "migrx-%d-" % demo.pid))]
        expect(not left, "it left %s", left)
        expect(not _processes_with("migrx-demo-%d-" % demo.pid), "it left processes")
        return said.strip().splitlines()[-1]
    return run


def _said(path):
    with open(path, encoding="utf-8", errors="replace") as file:
        return file.read()


def _processes_with(word):
    """Those that have it on their command line."""
    found = []
    for name in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError), open("/proc/%s/cmdline" % name, "rb") as file:
            if word.encode() in file.read():
                found.append(int(name))
    return found


def cases():
    """All cases with two daemons."""
    yield Case("libvirt-plain-and-back", _goes_through(afterwards=_saved_restored_and_back), True, 400)
    yield Case("libvirt-parallel-2", _goes_through("--parallel", "--parallel-connections", "2", channels=2), True, 300)
    yield Case("libvirt-tls", _goes_through("--tls"), False, 300)
    yield Case("libvirt-tls-parallel-2", _goes_through("--tls", "--parallel", "--parallel-connections", "2", channels=2),
               True, 300)
    yield Case("libvirt-parallel-4", _goes_through("--parallel", "--parallel-connections", "4", channels=4), False, 300)
    yield Case("libvirt-migration-host",
               _goes_through(lines=('migration_host = "%s"' % RECEIVER,), uri=()), True, 300)
    yield Case("libvirt-serve-2", _served(2), True, 300)
    yield Case("libvirt-serve-tls", _served(2, tls=True), False, 300)
    yield Case("libvirt-serve-4", _served(4), False, 300)
    yield Case("libvirt-aborted", _aborted, True, 300)
    yield Case("libvirt-private-memory", _refused("access mode='shared'", PRIVATE), True, 300)
    yield Case("libvirt-not-configured", _refused("write there PORT=", configured=False), False, 300)
    yield Case("libvirt-demo", _demo(False), True, 300)
    yield Case("libvirt-demo-interrupted", _demo(True), False, 300)
    yield Case("libvirt-disk", _with_disk(), True, 300)
    yield Case("libvirt-disk-parallel-2", _with_disk("--parallel", "--parallel-connections", "2"), False, 300)
