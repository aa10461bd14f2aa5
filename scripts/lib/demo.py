#!/usr/bin/python3
"""The demonstration behind scripts/demo."""

import argparse
import contextlib
import os
import signal
import sys
import tempfile
import threading
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "tests", "qemu"))
from rig.compare import expect_same_files
from rig.guest import MIB, BusyGuest
from rig.hugepages import hugetlb_folder, reserve
from rig.machine import Backend, Machine, qemu_program
from rig.network import Network, remove_stale_namespaces
from rig.receiver import Receiver
from rig.runner import Failure, Skip, expect

PACKET_MEMORY = 256 * MIB  # hugepages for DPDK's packet buffers, beside the guest's


def choose_version(wanted):
    """The QEMU asked for, or the newest of those that are here."""
    for version in [wanted] if wanted else ["10", "7.2"]:
        if qemu_program(version):
            return version
    sys.exit("demo: QEMU %s is not on this machine" % (wanted or "10 or 7.2"))


def memory_file(folder, size):
    """Where the guest's RAM will be: hugepages when enough can be had, else a tmpfs file."""
    try:
        reserve(size + PACKET_MEMORY)
        return os.path.join(hugetlb_folder(size), "guest"), "2 MiB hugepages"
    except Skip as reason:
        return os.path.join(folder, "guest"), "a tmpfs file (%s)" % reason


def say(text):
    print("demo: " + text, flush=True)


def narrate(source, seconds, done):
    """Speeds the migration up after a while: until then the guest dirties memory faster than it is sent."""
    if not done.wait(seconds):
        with contextlib.suppress(Exception):
            source.set_parameters(max_bandwidth=1 << 40, downtime_limit=500)


def show(options, folder, stack):
    version, size = choose_version(options.qemu), options.memory * MIB
    path, kind = memory_file(folder, size)
    say("network namespace with a tap port of DPDK (net_tap), MTU 9000")
    network = stack.enter_context(Network())
    say("source: QEMU %s, %d MiB guest that fills memory and then writes 64 MiB of it over and over" %
        (version, options.memory))
    guest = BusyGuest("mixed", fill_end=size - 2 * MIB, dirty_start=8 * MIB, dirty_end=72 * MIB, pages_per_tick=24,
                      ticks_per_line=10)
    source = stack.enter_context(Machine(folder, version, "q35", [Backend("mem", size)], guest, network.source))
    source.wait_console(b"filled")
    source.set_capabilities(multifd=True, return_path=True)
    source.set_parameters(multifd_channels=options.channels, multifd_compression=options.compression,
                          max_bandwidth=160 * MIB, downtime_limit=10)
    say("receiver: migrx, %d multifd channels, compression %s, guest RAM in %s" % (
        options.channels, options.compression, kind))
    stack.callback(lambda: os.path.exists(path) and os.unlink(path))
    receiver = stack.enter_context(Receiver(folder, network, {"mem": "%s,size=%d" % (path, size)}, options.channels,
                                            options.compression, terminal=True))
    expect(receiver.wait_ready(), "migrx did not get ready")
    done = threading.Event()
    helper = threading.Thread(target=narrate, args=(source, 5.0, done), daemon=True)
    begun = time.monotonic()
    # The thread is the only user of QMP until it has ended.
    source.migrate(receiver.uri)
    helper.start()
    status = receiver.wait(120)
    done.set()
    helper.join()
    taken = time.monotonic() - begun
    expect(status == 0, "migrx ended with status %d", status)
    information = source.wait_migration(timeout=20)
    expect_same_files("mem", path, source.backends[0].path)
    report, ram = receiver.report(), information["ram"]
    count, passes, bad = source.counts()[-1]
    expect(bad == 0, "the guest found %d bad pages", bad)
    say("every one of %d guest pages equals the source's" % (size // 4096))
    print("""
  guest RAM            %d MiB, of which the guest rewrote 64 MiB %d times (%d console lines)
  migration            %.1f s in %d rounds, %d MiB over the wire
  downtime             %d ms as the source measured it
  wire rate            %.2f Gbit/s on average (held down by the source for the first seconds)
  receiver CPU         %.2f s
""" % (options.memory, passes - 1, count, taken, ram["dirty-sync-count"], report["wire_bytes"] // MIB,
       information.get("downtime", 0), report["throughput"]["wire_bytes_per_s"] * 8e-9, report["cpu_s"]))


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--qemu", choices=("7.2", "10"))
    parser.add_argument("--memory", type=int, default=512, metavar="MIB", help="guest RAM, at least 128")
    parser.add_argument("--channels", type=int, default=4)
    parser.add_argument("--compression", choices=("none", "zlib", "zstd"), default="none")
    options = parser.parse_args()
    if os.geteuid() != 0:
        sys.exit("demo: run me as root: I make a network namespace and reserve hugepages")
    if options.memory < 128 or options.memory % 2:
        sys.exit("demo: --memory must be even and at least 128")
    signal.signal(signal.SIGTERM, lambda *unused: sys.exit(143))
    remove_stale_namespaces()
    try:
        with contextlib.ExitStack() as stack:
            show(options, stack.enter_context(tempfile.TemporaryDirectory(prefix="migrx-demo-", dir="/dev/shm")), stack)
    except KeyboardInterrupt:
        sys.exit("demo: interrupted; everything was taken down")
    except Failure as failure:
        sys.exit("demo: %s" % failure)
    say("nothing is left behind: processes ended, namespace removed, hugepages given back")


if __name__ == "__main__":
    main()
