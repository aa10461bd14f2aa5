"""A source and a destination libvirt daemon with a busy guest between them, and `virsh migrate` through migrx."""

import json
import os
import subprocess
import time

from . import pki
from .guest import MIB, console_lines, expect_unbroken
from .libvirt import GUEST, MEMFD, Daemon, domain, join_kernels, need_libvirt
from .network import RECEIVER, Veth
from .runner import expect
from .transfer import need

SIZE = 64 * MIB
DISK_SECTORS = 1024
URI = ("--migrateuri", "tcp://%s:49152" % RECEIVER, "--listen-address", "127.0.0.1")


def tls_options():
    return ("--tls-creds", "x509:dir=" + pki.folder(), "--handoff-tls-creds", "x509:dir=" + pki.folder(),
            "--handoff-tls-hostname", RECEIVER)


class Hosts:
    """A source and a destination daemon; the guest runs at the source."""

    def __init__(self, folder, stack, memory=MEMFD, lines=(), hook=True, tls=False, disk=0, options="", systemd=False,
                 **settings):
        """`lines`: of the destination's qemu.conf, or a function that makes them of each daemon. `tls`: both can migrate
        with --tls, and the hook's migrx takes such migrations. `disk`: bytes of the guest's. `options`: of the hook's
        migrx. `systemd`: see Daemon.stand_in_for_systemd(). `settings`: of domain()."""
        need("7.2")
        need_libvirt()
        self.network = network = stack.enter_context(Veth())
        join_kernels(network)
        creds = ('migrate_tls_x509_cert_dir = "%s"' % pki.folder(), "migrate_tls_x509_verify = 1") if tls else ()
        self.source = stack.enter_context(Daemon(folder, "source", network.source, creds))
        self.destination = stack.enter_context(Daemon(folder, "destination", network.receiver, creds))
        for daemon in (self.source, self.destination):
            daemon.configure(lines(daemon) if callable(lines) else lines if daemon is self.destination else ())
        if systemd:
            self.destination.stand_in_for_systemd()
        if hook:
            self.destination.install_hook(network, " ".join(([*tls_options()] if tls else []) + [options]))
        self.source.start()
        self.destination.start()
        if disk:
            _make_disk(self.source.disk, disk)
            with open(self.destination.disk, "wb") as file:
                file.truncate(disk)
        xml, self.console_path = domain(folder, SIZE, memory, disk_sectors=DISK_SECTORS if disk else 0, **settings)
        self.source.virsh("create", xml)
        self.wait_lines(20)

    def console(self):
        with open(self.console_path, "rb") as file:
            return file.read()

    def wait_lines(self, more, timeout=90):
        """The guest goes on: it prints so many lines more, whole and in order, and finds no bad page."""
        deadline = time.monotonic() + timeout
        before = len(console_lines(self.console())) if os.path.exists(self.console_path) else 0
        while not os.path.exists(self.console_path) or len(console_lines(self.console())) < before + more:
            expect(time.monotonic() < deadline, "the guest does not go on")
            time.sleep(0.1)
        return expect_unbroken([self.console()])

    def migrate(self, *options, check=True):
        return self.source.virsh("migrate", "--live", *options, GUEST, self.destination.uri, check=check, timeout=200)

    def expect_came_through_migrx(self, channels, least=SIZE):
        """`least`: bytes of guest memory that migrx has loaded."""
        deadline = time.monotonic() + 30
        while not os.path.exists(self.destination.report_path) and time.monotonic() < deadline:
            time.sleep(0.1)
        with open(self.destination.report_path, encoding="utf-8") as file:
            report = json.load(file)
        expect(report["outcome"] == "complete", "migrx: %s", report.get("error"))
        names = [channel["name"] for channel in report["channels"]]
        expect(len(names) == channels + 1, "it came over %s", names)
        expect(report["guest_bytes_loaded"] >= least, "only %d bytes were loaded", report["guest_bytes_loaded"])
        expect(self.destination.state() == "running" and self.source.state() == "", "not exactly one guest runs")
        return report

    def expect_stays(self):
        """The guest runs on at its source, without a gap, and nothing is left at the destination."""
        expect(self.source.state() == "running", "the guest is %r at its source", self.source.state())
        lines = self.wait_lines(20)
        expect(self.destination.state() == "", "the guest is known at the destination")
        deadline = time.monotonic() + 30
        while self.destination.receiver_process() is not None:
            expect(time.monotonic() < deadline, "migrx is left behind: %s", self.destination.receiver_log())
            time.sleep(0.1)
        return lines


def _make_disk(path, size):
    """Each MiB is something else, and every eighth one a hole."""
    with open(path, "wb") as file:
        for number in range(size // MIB):
            if number % 8 == 7:
                file.seek(MIB, os.SEEK_CUR)
            else:
                file.write(os.urandom(MIB))
        file.truncate(size)


class Background:
    """A virsh migrate beside which something else happens."""

    def __init__(self, hosts, *options, guest=GUEST):
        self._process = subprocess.Popen(["virsh", "-c", hosts.source.uri, "migrate", "--live", *options, guest,
                                          hosts.destination.uri], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def wait(self):
        return self._process.wait(120)

    def close(self):
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()
