#!/usr/bin/python3
"""Compares what main-channel records cost: the same stream from a file into a QEMU destination and `migrx load`.

A real QEMU writes each stream to a file on tmpfs; where a guest cannot be brought to send enough of one kind, its own
records are repeated in further PART sections before RAM's END. Both receivers read it on the same core, in turns,
repetition after repetition, into new memory that is faulted in beforehand; after each pair all of their RAM is
compared with each other. Needs QEMU 10 and a built migrx.

  pages        every page of a guest full of random words, as it is
  zero         zero pages for memory that is new
  zero-behind  zero pages for memory that has just been written: `pages`, then all of it zero
  xbzrle       XBZRLE patches of a guest that rewrites a few words of each page

What is counted:
  QEMU   CPU time of all its threads from migrate-incoming to the end of the migration, less what a machine with
         8 MiB of empty RAM takes (device state, ROMs), measured in the same repetition
  migrx  the time from the RAM block list to RAM's END, on its one core: at least the CPU time
"""

import argparse
import contextlib
import datetime
import json
import os
import shutil
import signal
import statistics
import struct
import subprocess
import sys
import tempfile
import time

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(0, os.path.join(ROOT, "tests", "qemu"))
from rig.compare import expect_same_files  # noqa: E402
from rig.guest import MIB, BusyGuest  # noqa: E402
from rig.machine import Backend, Machine, qemu_program  # noqa: E402
from rig.receiver import migrx_program  # noqa: E402
from rig.stream import CONTINUE, EOS, PAGE, XBZRLE, ZERO, Decoder  # noqa: E402

CASES = ("pages", "zero", "zero-behind", "xbzrle")
FIRST_FILLED = 2 * MIB  # below that is the guest's own program


class Stream:
    """A stream file: how much guest memory it is for, how many records of the kind in question it has, and how many
    bytes these have in the mean, their heads left out, where that is not plain."""

    def __init__(self, path, size, records):
        self.path, self.size, self.records, self.record_bytes = path, size, records, None


def be64_record(offset, flags, last, name):
    """The head of a record: offset and flags, the block's name unless it is that of the record before."""
    if name == last:
        return struct.pack(">Q", offset | flags | CONTINUE)
    return struct.pack(">QB", offset | flags, len(name)) + name.encode()


def sections(section, records, per_section=4096):
    """Bytes of PART sections with these (block, offset, flags, payload), each with the footer that QEMU writes."""
    out = bytearray()
    for at in range(0, len(records), per_section):
        out += struct.pack(">BI", 2, section)
        last = None
        for name, offset, flags, payload in records[at:at + per_section]:
            out += be64_record(offset, flags, last, name) + payload
            last = name
        out += struct.pack(">QBI", EOS, 0x7e, section)
    return out


def extended(stream, records_of):
    """Puts what `records_of(decoder)` returns in front of RAM's END section; returns how many records that were."""
    with open(stream.path, "rb") as file:
        data = file.read()
    decoder = Decoder(data)
    section, end = next((section, start) for kind, section, start in decoder.sections
                        if kind == 3 and decoder.section_names[section] == "ram")
    records = records_of(decoder)
    with open(stream.path, "wb") as file:
        file.write(data[:end])
        file.write(sections(section, records))
        file.write(data[end:])
    return len(records)


class Maker:
    """Makes the streams."""

    def __init__(self, options, folder):
        self.options, self.folder = options, folder

    def capture(self, name, size, guest, xbzrle_pages=0):
        """Lets a QEMU write a stream; with `xbzrle_pages`, slowly, until it has sent that many."""
        path = os.path.join(self.folder, name + ".stream")
        scratch = os.path.join(self.folder, name + ".source")
        os.makedirs(scratch)
        with Machine(scratch, "10", "pc", [Backend("mem", size)], guest, vga=False) as source:
            source.wait_console(b"filled")
            source.set_capabilities(xbzrle=xbzrle_pages > 0)
            source.set_parameters(max_bandwidth=20 * MIB if xbzrle_pages else 1 << 40, downtime_limit=1,
                                  xbzrle_cache_size=2 * size)
            source.migrate("exec:cat > " + path)
            deadline = time.monotonic() + 60
            while xbzrle_pages and time.monotonic() < deadline:
                info = source.migration()
                if info["status"] == "completed" or info.get("xbzrle-cache", {}).get("pages", 0) > xbzrle_pages:
                    break
                time.sleep(0.05)
            source.set_parameters(max_bandwidth=1 << 40, downtime_limit=2000)
            source.wait_migration()
        shutil.rmtree(scratch)
        return Stream(path, size, size // PAGE)

    def random(self, name):
        size = self.options.size * MIB
        return self.capture(name, size, BusyGuest("random", FIRST_FILLED, size - 2 * MIB))

    def make(self, name):
        return {"pages": self.pages, "zero": self.zero, "zero-behind": self.zero_behind, "xbzrle": self.xbzrle,
                "empty": self.empty}[name](name)

    def empty(self, name):
        return self.capture(name, 8 * MIB, BusyGuest("nothing"))

    def pages(self, name):
        return self.random(name)

    def zero(self, name):
        return self.capture(name, 4 * self.options.size * MIB, BusyGuest("nothing"))

    def zero_behind(self, name):
        stream = self.random(name)
        filled = range(FIRST_FILLED, stream.size - 2 * MIB, PAGE)
        stream.records = extended(stream, lambda _decoder: [("mem", at, ZERO, b"\0") for at in filled])
        return stream

    def xbzrle(self, name):
        size, wanted = 64 * MIB, self.options.patches
        stream = self.capture(name, size, BusyGuest("random", FIRST_FILLED, size - 2 * MIB, 4 * MIB, 48 * MIB,
                                                    pages_per_tick=6000), xbzrle_pages=min(wanted, 100_000))

        def again(decoder):
            if not decoder.patches:
                raise RuntimeError("the source sent no XBZRLE page")
            records = [(block, at, XBZRLE, b"\1" + struct.pack(">H", len(patch)) + patch)
                       for block, at, patch in decoder.patches]
            stream.record_bytes = sum(len(patch) for _block, _at, patch in decoder.patches) / len(records)
            return records * -(-wanted // len(records))
        stream.records = extended(stream, again)
        return stream


def threads_cpu_s(pid):
    """CPU time of all living threads, to the nanosecond."""
    total = 0
    for thread in os.listdir("/proc/%d/task" % pid):
        with contextlib.suppress(FileNotFoundError), \
                open("/proc/%d/task/%s/schedstat" % (pid, thread), encoding="ascii") as file:
            total += int(file.read().split()[0])
    return total / 1e9


class Bench:
    def __init__(self, options, folder):
        self.options, self.folder = options, folder

    def prefix(self):
        words = ["taskset", "-c", str(self.options.cpu)]
        return words if self.options.tiny or os.geteuid() != 0 else [*words, "nice", "-n", "-20"]

    def qemu(self, stream, keep=None):
        """CPU seconds that a QEMU destination takes for a stream; `keep` gets a link to its RAM."""
        scratch = os.path.join(self.folder, "destination")
        os.makedirs(scratch)
        try:
            backend = Backend("mem", stream.size, prealloc=True)
            with Machine(scratch, "10", "pc", [backend], None, incoming="defer", vga=False, extra=["-S"],
                         name="destination", prefix=self.prefix()) as machine:
                before = threads_cpu_s(machine.process.pid)
                machine.qmp.command("migrate-incoming", uri="file:" + stream.path)
                if machine.wait_migration_event() != "completed":
                    raise RuntimeError("QEMU did not take the stream: " + machine.log())
                spent = threads_cpu_s(machine.process.pid) - before
                if keep:
                    os.link(backend.path, keep)
                return spent
        finally:
            shutil.rmtree(scratch)

    def migrx(self, stream, ram):
        """Seconds that migrx takes between the block list and RAM's END."""
        path = os.path.join(self.folder, "load.json")
        subprocess.run([*self.prefix(), migrx_program(), "load", stream.path, "--no-handoff", "--quiet", "--ram",
                        "mem=%s,size=%d" % (ram, stream.size), "--report", path], check=True)
        with open(path, encoding="utf-8") as file:
            times = json.load(file)["timeline"]
        return times["ram_complete_s"] - times["setup_s"]

    def pair(self, stream, empty):
        """One repetition of a case; RAM of both is equal, or it is an error."""
        theirs, ours = os.path.join(self.folder, "qemu.ram"), os.path.join(self.folder, "migrx.ram")
        try:
            base = self.qemu(empty)
            run = {"qemu_s": self.qemu(stream, keep=theirs) - base, "qemu_base_s": base,
                   "migrx_s": self.migrx(stream, ours)}
            expect_same_files("mem", ours, theirs)
        finally:
            for path in (theirs, ours):
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(path)
        return {**run, "ratio": run["qemu_s"] / run["migrx_s"],
                **{"%s_ns_per_record" % who: run[who + "_s"] * 1e9 / stream.records for who in ("qemu", "migrx")}}


def summary(runs):
    return {key: {"median": statistics.median(values), "min": min(values), "max": max(values)}
            for key in runs[0] for values in [[run[key] for run in runs]]}


def table(rows):
    lines = ["| stream | records | QEMU, ns per record | migrx, ns per record | times QEMU per core second |",
             "|---|---|---|---|---|"]
    for row in rows:
        lines.append("| %s | %d | %s | %s | %s |" % (row["case"], row["records"], *(
            "%.*f (%.*f to %.*f)" % tuple(part for what in ("median", "min", "max")
                                          for part in (digits, row[key][what]))
            for key, digits in (("qemu_ns_per_record", 0), ("migrx_ns_per_record", 0), ("ratio", 2)))))
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cases", nargs="*", help="of %s (default: all)" % ", ".join(CASES))
    parser.add_argument("--repetitions", type=int, default=7)
    parser.add_argument("--size", type=int, default=256, help="MiB of guest RAM; four times that with zero (default: 256)")
    parser.add_argument("--patches", type=int, default=1_000_000, help="XBZRLE pages at least (default: 1000000)")
    parser.add_argument("--cpu", type=int, default=max(os.sched_getaffinity(0)), help="CPU of the receivers")
    parser.add_argument("--json", help="file for the results")
    parser.add_argument("--tiny", action="store_true", help="a moment only: shows that it works, says nothing")
    options = parser.parse_args()
    unknown = [case for case in options.cases if case not in CASES]
    if unknown or options.repetitions < 1:
        parser.error("no case %s" % ", ".join(unknown) if unknown else "one repetition at least")
    if migrx_program() is None or qemu_program("10") is None:
        print("skipped: needs a built migrx and QEMU 10")
        sys.exit(77)
    if options.tiny:
        options.repetitions, options.size, options.patches = 1, 32, 2000
    signal.signal(signal.SIGTERM, lambda number, _frame: sys.exit(128 + number))  # runs what tidies up
    bed = {"date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
           "load_average": os.getloadavg()}
    names = options.cases or list(CASES)
    with tempfile.TemporaryDirectory(prefix="migrx-compare-load-", dir="/dev/shm") as folder:
        maker, bench = Maker(options, folder), Bench(options, folder)
        empty, streams = maker.make("empty"), {name: maker.make(name) for name in names}
        runs = {name: [] for name in names}
        for repetition in range(options.repetitions):
            for name in names:
                run = bench.pair(streams[name], empty)
                runs[name].append(run)
                print("%d %-12s QEMU %.3f s, migrx %.3f s" % (repetition, name, run["qemu_s"], run["migrx_s"]),
                      file=sys.stderr, flush=True)
    rows = [{"case": name, "records": streams[name].records, "record_bytes": streams[name].record_bytes,
             "runs": runs[name], **summary(runs[name])} for name in names]
    print(table(rows))
    if options.json:
        with open(options.json, "w", encoding="utf-8") as file:
            json.dump({"testbed": bed, "cases": rows}, file, indent=2)


if __name__ == "__main__":
    main()
