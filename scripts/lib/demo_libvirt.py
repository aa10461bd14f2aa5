"""What `scripts/demo --libvirt` shows: `virsh migrate --live` between two libvirt daemons, through migrx.

Each daemon has its own configuration, sockets, mounts and network namespace, as tests/qemu/rig/libvirt.py makes them for
the tests; a libvirt that this machine runs itself is not touched.
"""

import contextlib
import json
import os
import subprocess
import threading
import time

from rig.guest import MIB, console_lines, expect_unbroken
from rig.libvirt import GUEST, Daemon, domain, join_kernels, need_libvirt
from rig.machine import die_with_parent
from rig.network import RECEIVER, Veth
from rig.runner import expect

SLOW_MIB, FAST_MIB = 32, 4096  # a second
HELD_S = 4.0  # so long the source may not send faster: progress to look at
DOWNTIME_LIMITS_MS = (30, 300, 2000)  # each for 10 s, for machines too slow for the one before


def say(text):
    print("demo: " + text, flush=True)


class _Console:
    """The guest's console, to which both hosts append."""

    def __init__(self, path):
        self.path = path

    def read(self):
        with contextlib.suppress(FileNotFoundError), open(self.path, "rb") as file:
            return file.read()
        return b""

    def count(self):
        return len(console_lines(self.read()))

    def wait_for(self, count, what, timeout=60):
        deadline = time.monotonic() + timeout
        while self.count() < count:
            expect(time.monotonic() < deadline, "%s", what)
            time.sleep(0.05)


class _Follower(threading.Thread):
    """Prints what migrx says at the destination, line by line."""

    def __init__(self, destination):
        super().__init__(daemon=True)
        self._destination, self._over, self._shown = destination, threading.Event(), 0
        self.start()

    def _show(self):
        text = self._destination.receiver_log()
        for line in filter(str.strip, text[self._shown:text.rfind("\n") + 1].splitlines()):
            print("  migrx  " + line, flush=True)
        self._shown = max(self._shown, text.rfind("\n") + 1)

    def run(self):
        while not self._over.wait(0.2):
            self._show()
        self._show()

    def close(self):
        self._over.set()
        self.join()


def _start_hosts(folder, stack, size):
    network = stack.enter_context(Veth())
    join_kernels(network)
    source = stack.enter_context(Daemon(folder, "source", network.source))
    destination = stack.enter_context(Daemon(folder, "destination", network.receiver,
                                             ('migration_host = "%s"' % RECEIVER,)))
    destination.install_hook(network)
    source.start()
    destination.start()
    version = source.virsh("version").stdout.splitlines()
    say("two hosts, each a libvirtd in a network namespace of its own: %s" % ", ".join(
        line.partition(": ")[2] for line in version if line.startswith(("Using library", "Running hypervisor"))))
    say("the destination has migrx's hook, and migration_host = \"%s\" in its qemu.conf: migrx's address" % RECEIVER)
    xml, console = domain(folder, size, machine="pc")
    source.virsh("create", xml)
    say("source: guest %r of %d MiB (TCG) counts on its console, has filled its memory and rewrites some of it" %
        (GUEST, size // MIB))
    console = _Console(console)
    console.wait_for(20, "the guest does not count: %s" % source.log(), 120)
    return source, destination, console


def _migrate(source, destination):
    """Runs virsh, held down at first; returns the seconds it took."""
    words = ["virsh", "-c", source.uri, "migrate", "--live", "--bandwidth", str(SLOW_MIB), GUEST, destination.uri]
    say("virsh migrate --live %s %s" % (GUEST, destination.uri))
    print(flush=True)
    begun = time.monotonic()
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                          preexec_fn=die_with_parent) as virsh, contextlib.closing(_Follower(destination)):
        try:
            with contextlib.suppress(subprocess.TimeoutExpired):
                virsh.wait(HELD_S)
            for limit_ms in DOWNTIME_LIMITS_MS:
                if virsh.poll() is None:  # It may end at any moment: what it cannot do any more does no harm.
                    source.virsh("migrate-setmaxdowntime", GUEST, str(limit_ms), check=False)
                    source.virsh("migrate-setspeed", GUEST, str(FAST_MIB), check=False)
                with contextlib.suppress(subprocess.TimeoutExpired):
                    virsh.wait(10)
            virsh.wait(60)
        finally:
            if virsh.poll() is None:
                virsh.kill()
        said = virsh.stdout.read().strip()
    expect(virsh.returncode == 0, "virsh ended with status %d: %s", virsh.returncode, said)
    taken = time.monotonic() - begun
    deadline = time.monotonic() + 20
    while destination.receiver_process() is not None and time.monotonic() < deadline:
        time.sleep(0.05)
    return taken


def _downtime(destination):
    """What the destination's libvirt has of it."""
    for line in destination.virsh("domjobinfo", "--completed", GUEST).stdout.splitlines():
        if line.startswith("Total downtime:"):
            return " ".join(line.split()[2:])
    return "not known"


def show(size, folder, stack, summary):
    """All of it; `stack` takes everything down. `summary` prints rows of a name and a text. Raises Failure, Skip."""
    need_libvirt()
    source, destination, console = _start_hosts(folder, stack, size)
    taken = _migrate(source, destination)
    switched = console.count()
    print(flush=True)
    say("virsh says that the guest is there; it counts on: %d" % switched)
    for _ in range(3):
        console.wait_for(console.count() + 10, "the guest does not go on at the destination")
        say("  %s, at the destination it is %s" % (console.read().splitlines()[-1].decode(errors="replace"),
                                                 destination.state()))
    expect(destination.state() == "running" and source.state() == "", "not exactly one guest runs")
    with open(destination.report_path, encoding="utf-8") as file:
        report = json.load(file)
    expect(report["outcome"] == "complete", "migrx: %s", report.get("error"))
    lines = expect_unbroken([console.read()])
    summary([
        ("downtime", "%s, as libvirt has it" % _downtime(destination)),
        ("total time", "%.2f s for virsh, held down for %.0f s of them" % (taken, HELD_S)),
        ("throughput", "%d MiB over the wire, %.2f Gbit/s on average" %
         (report["wire_bytes"] // MIB, report["throughput"]["wire_bytes_per_s"] * 8e-9)),
        ("guest RAM", "%d MiB were loaded by migrx, none by the destination QEMU" %
         (report["guest_bytes_loaded"] // MIB)),
        ("console", "counts 1 to %d without gap or repeat, %d to %d after the migration" %
         (len(lines), switched + 1, len(lines))),
        ("memory", "the guest checks each page that it rewrites: 0 bad in %d passes" % lines[-1][1])])
