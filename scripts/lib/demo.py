#!/usr/bin/python3
"""What scripts/demo runs: a real migration through migrx, checked at both ends."""

import argparse
import contextlib
import os
import shutil
import signal
import sys
import tempfile
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "tests", "qemu"))
from rig.compare import expect_same_files
from rig.guest import MIB, BusyGuest, console_lines, expect_unbroken
from rig.hugepages import hugetlb_folder, reserve
from rig.live import downtime_s, start_destination
from rig.machine import Backend, Machine, qemu_program
from rig.network import Network, remove_stale_namespaces
from rig.receiver import Receiver
from rig.runner import Failure, Skip, expect

import demo_libvirt  # after the path above: it is one of the rig's users, too

SCRATCH = "/dev/shm"
PACKET_MEMORY = 256 * MIB  # hugepages for DPDK's packet buffers, beside the guest's
PROGRAM_END, DIRTY_START, DIRTY_END = 2 * MIB, 8 * MIB, 72 * MIB  # the guest's memory: its program; what it rewrites
HELD_S = 3.0  # so long the source may send less than its guest writes: rounds and progress to look at
DOWNTIME_LIMITS_MS = (30, 300, 2000)  # each for 10 s, for machines too slow for the one before
SLOW, FAST = 80 * MIB, 1 << 40  # bytes a second


def say(text):
    print("demo: " + text, flush=True)


def choose_version(wanted):
    """The QEMU asked for, or one of those that are here."""
    for version in [wanted] if wanted else ["10", "newest", "7.2"]:
        if qemu_program(version):
            return version
    sys.exit("demo: QEMU %s is not on this machine" % (wanted or "7.2 or newer"))


def choose_accelerator(folder, version):
    """KVM where the demo's guest really runs under it (nested KVM often runs only some guests), else TCG."""
    if not os.access("/dev/kvm", os.R_OK | os.W_OK):
        return "tcg"
    probe = os.path.join(folder, "probe")
    os.mkdir(probe)
    try:
        guest = BusyGuest("nothing", dirty_start=DIRTY_START, dirty_end=DIRTY_START + MIB, pages_per_tick=1)
        with Machine(probe, version, "q35", [Backend("mem", 16 * MIB)], guest, accel="kvm", name="probe") as machine:
            machine.wait_console(b"count 00000004", timeout=2.0)
        return "kvm"
    except (RuntimeError, TimeoutError, OSError):
        return "tcg"


def memory_file(folder, size):
    """Where the guest's RAM will be: hugepages when enough can be had, else a tmpfs file."""
    try:
        reserve(size + PACKET_MEMORY)
        return os.path.join(hugetlb_folder(size), "guest"), "2 MiB hugepages"
    except Skip as reason:
        return os.path.join(folder, "guest"), "a tmpfs file (%s)" % reason


def start_source(folder, version, size, namespace, stack):
    accelerator = choose_accelerator(folder, version)
    say("source: QEMU %s (%s), a guest of %d MiB that counts on its console, has filled its memory and rewrites "
        "%d MiB of it" % (version, accelerator.upper(), size // MIB, (DIRTY_END - DIRTY_START) // MIB))
    guest = BusyGuest("mixed", fill_end=size - 2 * MIB, dirty_start=DIRTY_START, dirty_end=DIRTY_END,
                      pages_per_tick=24, ticks_per_line=10)
    source = stack.enter_context(Machine(folder, version, "q35", [Backend("mem", size)], guest, namespace,
                                         accel=accelerator))
    source.wait_console(b"filled")
    return source


def migrate(source, receiver):
    """Begins the migration, slow at first so that there is something to see; returns when the source knows the end."""
    begun = time.monotonic()
    source.migrate(receiver.uri)
    while receiver.alive() and time.monotonic() < begun + HELD_S:
        time.sleep(0.05)
    for limit_ms in DOWNTIME_LIMITS_MS:
        source.set_parameters(max_bandwidth=FAST, downtime_limit=limit_ms)
        with contextlib.suppress(TimeoutError):
            return source.wait_migration_event(timeout=10), begun
    return source.migration()["status"], begun


def finished(source, receiver, status):
    ended = receiver.wait(30)
    expect(ended == 0 and status == "completed", "migrx ended with status %d, the source's migration is %s: %s", ended,
           status, source.migration().get("error-desc", "see above"))


def summary(rows):
    print()
    for name, text in rows:
        print("  %-18s %s" % (name, text))
    print(flush=True)


def transport_rows(report, information, taken):
    return [("total time", "%.2f s, %d rounds" % (taken, information["ram"]["dirty-sync-count"])),
            ("throughput", "%d MiB over the wire, %.2f Gbit/s on average (held down for %.0f s)" %
             (report["wire_bytes"] // MIB, report["throughput"]["wire_bytes_per_s"] * 8e-9, HELD_S)),
            ("CPU time", "%.2f s of migrx, whose cores poll also while the source is held down" % report["cpu_s"])]


def show_live(source, path, start_receiver, stack):
    """The whole: migrated through migrx, the guest goes on in a destination QEMU."""
    destination, address = start_destination(source, {"mem": path}, stack, extra=("-S",))
    say("destination: QEMU %s, -incoming, stopped until it is told; its RAM is the file that migrx fills" %
        source.version)
    receiver = start_receiver(handoff=address)
    status, begun = migrate(source, receiver)
    if status == "completed":  # Only now may the guest run elsewhere: the source has let go of it.
        destination.qmp.command("cont")
    taken = time.monotonic() - begun
    finished(source, receiver, status)
    say("the source says completed, the destination is continued")
    passes = source.counts()[-1][1]
    deadline = time.monotonic() + 20  # Two more passes: the guest looks at each page that it rewrites.
    while not destination.counts() or destination.counts()[-1][1] < passes + 2:
        expect(destination.alive(), "the destination ended: %s", destination.log())
        expect(time.monotonic() < deadline, "the guest does not go on at the destination")
        time.sleep(0.05)
    expect(destination.running() and not source.running(), "not exactly one guest runs")
    downtime = downtime_s(source, destination)
    destination.qmp.command("stop")
    lines = expect_unbroken([source.console(), destination.console()])
    here = len(lines) - len(source.counts())  # A line that the switch cut in two ends at the destination.
    size = source.backends[0].size
    same = expect_same_files("mem", path, source.backends[0].path, [(PROGRAM_END, DIRTY_START), (DIRTY_END, size)])
    information = source.migration()
    summary([
        ("downtime", "%.1f ms from the source's STOP to the destination's RESUME (the source says %d ms)" %
         (downtime * 1e3, information.get("downtime", 0))),
        *transport_rows(receiver.report(), information, taken),
        ("console", "counts 1 to %d without gap or repeat, %d to %d at the destination" %
         (len(lines), len(lines) - here + 1, len(lines))),
        ("memory", "%d pages equal the source's byte for byte; %d the guest rewrites and checks itself:" %
         (same, (DIRTY_END - DIRTY_START) // 4096)),
        ("", "0 bad in %d passes, %d of them after the migration" % (lines[-1][1], lines[-1][1] - passes))])


def show_receiver(source, path, start_receiver):
    """The receiver alone: the guest ends with its source, and all of its memory can be compared."""
    receiver = start_receiver()
    status, begun = migrate(source, receiver)
    taken = time.monotonic() - begun
    finished(source, receiver, status)
    same = expect_same_files("mem", path, source.backends[0].path)
    lines = expect_unbroken([source.console()])
    information = source.migration()
    summary([("downtime", "%d ms as the source measured it" % information.get("downtime", 0)),
             *transport_rows(receiver.report(), information, taken),
             ("memory", "all %d pages equal the source's byte for byte, after %d passes of the guest" %
              (same, lines[-1][1]))])


def show(options, folder, stack):
    version, size = choose_version(options.qemu), options.memory * MIB
    path, kind = memory_file(folder, size)
    stack.callback(lambda: os.path.exists(path) and os.unlink(path))
    network = stack.enter_context(Network())
    source = start_source(folder, version, size, network.source, stack)
    source.set_capabilities(multifd=True, return_path=True)
    source.set_parameters(multifd_channels=options.channels, multifd_compression=options.compression,
                          max_bandwidth=SLOW, downtime_limit=1)

    def start_receiver(handoff=None):
        say("receiver: migrx on a tap port of DPDK (net_tap) in a network namespace, MTU %d; %d multifd channels, "
            "compression %s; guest RAM in %s" % (network.mtu, options.channels, options.compression, kind))
        receiver = stack.enter_context(Receiver(folder, network, {"mem": "%s,size=%d" % (path, size)}, options.channels,
                                                options.compression, handoff=handoff, terminal=True))
        expect(receiver.wait_ready(), "migrx did not get ready")
        return receiver
    if options.handoff:
        show_live(source, path, start_receiver, stack)
    else:
        show_receiver(source, path, start_receiver)


def remove_stale_scratch():
    """Removes what a killed demo left: its folder is named after its process."""
    for name in os.listdir(SCRATCH):
        words = name.split("-")
        if words[:2] == ["migrx", "demo"] and words[2:3] and words[2].isdigit() and \
                not os.path.exists("/proc/" + words[2]):
            shutil.rmtree(os.path.join(SCRATCH, name), ignore_errors=True)


def interrupted(number, _frame):
    """Once is enough: what follows is the taking down, which a second Ctrl-C must not cut short."""
    for other in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(other, signal.SIG_IGN)
    raise KeyboardInterrupt(signal.Signals(number).name)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--qemu", choices=("7.2", "10", "newest"))
    parser.add_argument("--memory", type=int, metavar="MIB", help="guest RAM, at least 128; default 512, 128 with --libvirt")
    parser.add_argument("--channels", type=int, default=4)
    parser.add_argument("--compression", choices=("none", "zlib", "zstd"), default="none")
    parser.add_argument("--no-handoff", dest="handoff", action="store_false",
                        help="no destination QEMU: all of the received memory is compared with the source's")
    parser.add_argument("--libvirt", action="store_true", help="`virsh migrate` between two libvirt daemons, through migrx")
    options = parser.parse_args()
    if options.libvirt and (options.qemu, options.channels, options.compression, options.handoff) != (
            None, 4, "none", True):
        sys.exit("demo: with --libvirt the QEMU is this system's and virsh decides the rest: --memory is the only option")
    if options.memory is None:
        options.memory = 128 if options.libvirt else 512
    if os.geteuid() != 0:
        sys.exit("demo: run me as root: I make a network namespace and reserve hugepages")
    if options.memory < 128 or options.memory % 2:
        sys.exit("demo: --memory must be even and at least 128")
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, interrupted)
    remove_stale_namespaces()
    remove_stale_scratch()
    prefix = "migrx-demo-%d-" % os.getpid()
    try:
        with contextlib.ExitStack() as stack:
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix=prefix, dir=SCRATCH))
            if options.libvirt:
                demo_libvirt.show(options.memory * MIB, folder, stack, summary)
            else:
                show(options, folder, stack)
    except KeyboardInterrupt as reason:
        print(flush=True)
        sys.exit("demo: interrupted (%s); everything was taken down" % (reason or "SIGINT"))
    except (Failure, Skip, RuntimeError, TimeoutError) as failure:
        sys.exit("demo: %s" % failure)
    say("nothing is left over: processes ended, namespace removed, hugepages given back")


if __name__ == "__main__":
    main()
