#!/usr/bin/python3
"""Downtime, total time and destination-side CPU time of a live migration: QEMU into QEMU, and through migrx.

Both go over the same veth pair between two network namespaces, MTU 9000, without segmentation or checksum offload; the
destination QEMU listens on a kernel socket, migrx on DPDK's net_af_packet at the same end. Same source, same guest,
same load, same settings; a fresh pair of QEMUs for each run, the forms by turns. The destination's RAM is allocated
beforehand in both. A run counts only when the guest's console shows neither gap nor repeat nor wrong memory.

  downtime      from the source's event STOP to the destination's RESUME, times of QEMU's own
  total         from `migrate` to the source's "completed"
  CPU           of the destination QEMU and of migrx, from `migrate` to just behind "completed"
  RAM, device state, loading   the parts of the downtime: from STOP to the last byte of RAM in place, from there to the
                last byte of device state in migrx's hands, and to RESUME (migrx's report)

With --postcopy the source switches to postcopy after its second pass, with the background copy slowed down so that the
guest has to ask for pages. Then also:

  requests      pages that the guest had to wait for
  wait          for such a page, as the destination QEMU has measured it (postcopy-latency; QEMU 10.1 and later): the
                mean, and the powers of two that half of the waits and 99 of 100 are below

Needs root, /dev/net/tun and a built migrx. It measures the machine that it runs on, and who else runs there.
"""

import argparse
import contextlib
import json
import os
import platform
import signal
import statistics
import sys
import tempfile
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "tests", "qemu"))
from rig.guest import MIB, BusyGuest, expect_unbroken
from rig.hugepages import hugetlb_folder
from rig.live import downtime_s, start_destination
from rig.machine import Backend, Machine, cpu_seconds, qemu_program
from rig.network import RECEIVER, Veth, remove_stale_namespaces
from rig.receiver import PORT, Receiver, migrx_program
from rig.runner import Skip, expect

FORMS = ("qemu", "migrx")
LOADS = {"idle": 0, "busy": 24}  # pages that the guest rewrites in a millisecond
DIRTY_START, DIRTY_END = 8 * MIB, 72 * MIB
ROWS = (("downtime", "downtime_s", 1e3, "ms"), ("total", "total_s", 1, "s"), ("CPU", "cpu_s", 1, "s"),
        ("RAM", "stop_to_ram_s", 1e3, "ms"), ("device state", "device_state_s", 1e3, "ms"),
        ("loading", "load_s", 1e3, "ms"), ("requests", "requests", 1, ""), ("wait, mean", "wait_s", 1e3, "ms"),
        ("wait, 50 %", "wait_50_s", 1e3, "ms"), ("wait, 99 %", "wait_99_s", 1e3, "ms"))
POSTCOPY_RATE = 16 * MIB  # of the background copy, in bytes for each second


def wait_below(distribution, share):
    """The bound in seconds below which that share of the waits is; bucket i of the distribution ends at 2^(i+1) us."""
    left = share * sum(distribution)
    for bucket, count in enumerate(distribution):
        left -= count
        if left <= 0:
            return 2e-6 * (1 << bucket)
    return 0.0


class Run:
    """One migration of a fresh guest."""

    def __init__(self, options, folder, network, memory, stack):
        self._options, self._folder, self._network, self._stack = options, folder, network, stack
        self._path = os.path.join(memory, "destination")
        stack.callback(lambda: os.path.exists(self._path) and os.unlink(self._path))

    def _start_source(self, load):
        size = self._options.memory * MIB
        rate = LOADS[load]
        guest = BusyGuest("mixed", fill_end=size - 2 * MIB, dirty_start=DIRTY_START, dirty_end=DIRTY_END,
                          pages_per_tick=rate, ticks_per_line=10)
        source = self._stack.enter_context(Machine(
            self._folder, self._options.qemu, "q35", [Backend("mem", size, prealloc=True)], guest,
            self._network.source, accel=self._options.accel))
        source.wait_console(b"count 00000010")
        return source

    def _set(self, machine):
        channels = self._options.channels
        machine.set_capabilities(multifd=channels > 0, return_path=True)
        if self._options.postcopy:
            machine.set_capabilities(postcopy_ram=True, postcopy_preempt=self._options.preempt, postcopy_blocktime=True)
        if channels:
            machine.set_parameters(multifd_channels=channels)

    def _start_qemu(self, source):
        """The destination QEMU receives by itself; it runs in the receiver's namespace."""
        self._network.set_kernel_listens(True)
        backend = Backend("mem", source.backends[0].size, path=self._path, prealloc=True)
        destination = self._stack.enter_context(source.twin("destination", [backend],
                                                            namespace=self._network.receiver))
        self._set(destination)
        uri = "tcp:%s:%d" % (RECEIVER, PORT)
        destination.qmp.command("migrate-incoming", uri=uri)
        return destination, None, uri

    def _start_migrx(self, source):
        self._network.set_kernel_listens(False)
        destination, address = start_destination(source, {"mem": self._path}, self._stack, prepare=self._prepare)
        receiver = self._stack.enter_context(Receiver(
            self._folder, self._network, {"mem": "%s,size=%d" % (self._path, source.backends[0].size)},
            self._options.channels, handoff=address,
            # It is in the source's network namespace, where its listener is not seen otherwise.
            extra=["--destination-pid", str(destination.process.pid), *self._options.receiver_extra],
            dump=not self._options.postcopy))
        expect(receiver.wait_ready(), "migrx never got ready: %s", receiver.log()[-2000:])
        return destination, receiver, receiver.uri

    def _prepare(self, destination):
        if self._options.postcopy:
            destination.set_capabilities(postcopy_ram=True, postcopy_preempt=self._options.preempt,
                                         postcopy_blocktime=True)

    def _switch(self, source):
        deadline = time.monotonic() + 60
        while source.migration().get("ram", {}).get("dirty-sync-count", 0) < 3:
            expect(time.monotonic() < deadline, "no second pass")
            time.sleep(0.01)
        source.qmp.command("migrate-start-postcopy")

    def measure(self, form, load):
        """Returns the figures of one run as a dictionary."""
        source = self._start_source(load)
        destination, receiver, uri = (self._start_qemu if form == "qemu" else self._start_migrx)(source)
        self._set(source)
        source.set_parameters(max_bandwidth=1 << 40, downtime_limit=self._options.downtime_limit)

        def cpu():
            return cpu_seconds(destination.process.pid) + (receiver.cpu_seconds() if receiver else 0)
        before, begun = cpu(), time.monotonic()
        if self._options.postcopy:
            source.set_parameters(max_bandwidth=400 * MIB, downtime_limit=1, max_postcopy_bandwidth=POSTCOPY_RATE)
        source.migrate(uri)
        if self._options.postcopy:
            self._switch(source)
        status = source.wait_migration_event(timeout=60)
        total, used = time.monotonic() - begun, cpu() - before
        expect(status == "completed", "the migration %s: %s", status, source.migration())
        if receiver:
            ended = receiver.wait(30)
            expect(ended == 0, "migrx ended with %d: %s", ended, receiver.log()[-2000:])
        deadline = time.monotonic() + 20
        while len(destination.counts()) < 10:
            expect(time.monotonic() < deadline, "the guest does not go on")
            time.sleep(0.05)
        expect_unbroken([source.console(), destination.console()])
        information = source.migration()
        figures = {"form": form, "load": load, "downtime_s": downtime_s(source, destination), "total_s": total,
                   "cpu_s": used, "rounds": information["ram"]["dirty-sync-count"],
                   "source_says_ms": information["downtime"]}
        if self._options.postcopy:
            figures["requests"] = information["ram"]["postcopy-requests"]
            there = destination.migration()
            if "postcopy-latency" in there:
                figures["wait_s"] = there["postcopy-latency"] * 1e-9
                figures["wait_50_s"] = wait_below(there["postcopy-latency-dist"], 0.5)
                figures["wait_99_s"] = wait_below(there["postcopy-latency-dist"], 0.99)
        elif receiver:
            report = receiver.report()
            timeline, start = report["timeline"], report["started_unix_s"]
            figures["stop_to_ram_s"] = start + timeline["ram_complete_s"] - source.event_times("STOP")[-1]
            figures["device_state_s"] = timeline["device_state_s"] - timeline["ram_complete_s"]
            figures["load_s"] = destination.event_times("RESUME")[0] - start - timeline["device_state_s"]
        return figures


def measure(options, form, load):
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="migrx-downtime-", dir=options.scratch))
        try:
            # Postcopy wants the source's page size, and the source's RAM is on tmpfs.
            memory = folder if options.postcopy else hugetlb_folder(options.memory * MIB)
        except Skip:
            memory = folder
        network = stack.enter_context(Veth())
        return Run(options, folder, network, memory, stack).measure(form, load)


def describe(values, scale):
    ordered = [value * scale for value in sorted(values)]
    return "%8.2f  (%.2f to %.2f)" % (statistics.median(ordered), ordered[0], ordered[-1])


def print_table(runs, options):
    for load in options.loads:
        print("\n%s guest, %d MiB/s written over and over in %d MiB" % (
            load, LOADS[load] * 4096 * 1000 // MIB, (DIRTY_END - DIRTY_START) // MIB))
        for name, key, scale, unit in ROWS:
            texts = []
            for form in FORMS:
                values = [run[key] for run in runs if run["load"] == load and run["form"] == form and key in run]
                if values:
                    texts.append("%-6s %-30s" % (form, describe(values, scale)))
            print(("  %-18s %s" % ("%s, %s" % (name, unit), " ".join(texts))).rstrip())
        pairs = {form: [run["downtime_s"] for run in runs if run["load"] == load and run["form"] == form]
                 for form in FORMS}
        ratio = statistics.median(pairs["migrx"]) / statistics.median(pairs["qemu"])
        print("  downtime, migrx to QEMU: %.2f" % ratio)
        waits = {form: [run["wait_s"] for run in runs
                        if run["load"] == load and run["form"] == form and "wait_s" in run] for form in FORMS}
        if all(waits.values()):
            print("  mean wait, migrx to QEMU: %.2f" % (
                statistics.median(waits["migrx"]) / statistics.median(waits["qemu"])))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repetitions", type=int, default=7)
    parser.add_argument("--qemu", default="10", choices=("7.2", "10", "newest"))
    parser.add_argument("--memory", type=int, default=1024, metavar="MIB", help="guest RAM, at least 128")
    parser.add_argument("--channels", type=int, default=2, help="multifd channels; 0: multifd off")
    parser.add_argument("--downtime-limit", type=int, default=50, metavar="MS", help="the source's downtime-limit")
    parser.add_argument("--loads", nargs="+", default=list(LOADS), choices=list(LOADS))
    parser.add_argument("--accel", default="tcg", choices=("tcg", "kvm"))
    parser.add_argument("--postcopy", action="store_true", help="the source switches to postcopy")
    parser.add_argument("--preempt", action="store_true", help="with --postcopy: postcopy-preempt")
    parser.add_argument("--receiver-extra", nargs="*", default=[], metavar="WORD",
                        help="further options of migrx receive, written --receiver-extra=--idle=spin")
    parser.add_argument("--scratch", default="/dev/shm", metavar="FOLDER", help="on tmpfs")
    parser.add_argument("--json", metavar="FILE", help="writes all runs there")
    options = parser.parse_args()
    if os.geteuid() != 0 or migrx_program() is None or qemu_program(options.qemu) is None:
        sys.exit("downtime: needs root, a built migrx and QEMU " + options.qemu)
    signal.signal(signal.SIGTERM, lambda *unused: sys.exit(143))
    remove_stale_namespaces()
    print("QEMU %s (%s), %d MiB guest, %d multifd channels, downtime-limit %d ms, %d repetitions; median (least to "
          "most)" % (options.qemu, options.accel, options.memory, options.channels, options.downtime_limit,
                     options.repetitions))
    print("%s, %d CPUs, Linux %s, load %.1f" % (platform.machine(), os.cpu_count(), platform.release(),
                                              os.getloadavg()[0]), flush=True)
    runs = []
    for _ in range(options.repetitions):
        for load in options.loads:
            for form in FORMS:
                runs.append(measure(options, form, load))
    print_table(runs, options)
    if options.json:
        with open(options.json, "w", encoding="utf-8") as file:
            json.dump(runs, file, indent=1)


if __name__ == "__main__":
    main()
