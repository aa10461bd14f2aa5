#!/usr/bin/python3
"""Compares receivers: the same made-up guest into a QEMU destination and into migrx, on one core each.

`migrx generate` sends from one core; the receiver has another one for everything: QEMU its process and, by RPS, the
kernel's share of TCP/IP; migrx one thread for poll core and loader. Cases take turns, repetition after repetition, and
every run ends with a comparison of RAM with the image. Needs root, a built migrx and QEMU 10 with multifd.

The cases migrx-replay-* are migrx without a virtual port and without the checksum in software, which a device would
do: bench/pipeline, one thread for poll core and loader, frames in memory; what its source costs is left out.

The case qemu-loopback is the best that a kernel's TCP can do: a QEMU source and a QEMU destination over a loopback
interface of MTU 65536, so no wire, no driver, no checksum, segments of 64 KiB, and no address translation in between.
migrx-replay-coalesced-* are the replay with chains of up to 64 KiB, as a device with LRO gives them.

What is counted, per GiB of guest RAM (docs/performance.md says more):
  core     all time of the receiver's core that was not idle, from /proc/stat: other programs' as well
  process  CPU time of the receiving process between the start and the end of the transfer
  softirq  time of the receiver's core in softirqs, from /proc/stat. A kernel that does not keep interrupts' time apart
           (CONFIG_IRQ_TIME_ACCOUNTING) charges a softirq to the process it interrupts, too
  busy     migrx only: time of turns of its thread that found something to do; a turn that finds nothing is no work
  cost     what receiving took at most: QEMU, the smaller one of core and process + softirq; migrx, busy + softirq.
           When the receiver is saturated, 1 / cost is the guest GiB/s
"""

import argparse
import contextlib
import dataclasses
import datetime
import json
import os
import platform
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(0, os.path.join(ROOT, "tests", "qemu"))
from rig import generator  # noqa: E402
from rig.compare import expect_same_files  # noqa: E402
from rig.guest import MIB  # noqa: E402
from rig.machine import Backend, Machine, qemu_program  # noqa: E402
from rig.network import Network, remove_stale_namespaces  # noqa: E402
from rig.receiver import PORT, migrx_program  # noqa: E402

CHANNELS = 4
TICK = os.sysconf("SC_CLK_TCK")
GIB = 1 << 30


@dataclasses.dataclass(frozen=True)
class Case:
    receiver: str  # qemu or migrx
    link: str  # as in tests/qemu/rig/generator.py; replay, replay-coalesced: bench/pipeline, without a generator
    # and another process; loopback: a real QEMU is the source
    mtu: int
    compression: str = "none"

    @property
    def name(self):
        return "%s-%s-%d%s" % (self.receiver, self.link, self.mtu,
                               "" if self.compression == "none" else "-" + self.compression)

    @property
    def group(self):
        return (self.mtu, self.compression)


CASES = [Case("qemu", "tap", 1500), Case("qemu", "veth", 1500), Case("migrx", "tap", 1500),
         Case("migrx", "veth", 1500), Case("migrx", "memif", 1500), Case("migrx", "replay", 1500),
         Case("qemu", "veth", 9000), Case("migrx", "veth", 9000), Case("migrx", "memif", 9000),
         Case("migrx", "replay", 9000),
         Case("qemu", "loopback", 65536), Case("migrx", "replay-coalesced", 1500),
         Case("migrx", "replay-coalesced", 9000),
         Case("qemu", "veth", 9000, "zlib"), Case("migrx", "memif", 9000, "zlib"),
         Case("qemu", "veth", 9000, "zstd"), Case("migrx", "memif", 9000, "zstd")]
TINY = [Case("qemu", "tap", 1500), Case("migrx", "memif", 1500), Case("migrx", "tap", 1500),
        Case("migrx", "replay", 1500), Case("qemu", "loopback", 65536), Case("migrx", "replay-coalesced", 1500)]


class PreparedBackend(Backend):
    """RAM that is there before the first page comes, as migrx makes it ready."""

    def option(self):
        return super().option() + ",prealloc=on"


def core_times(cpu):
    """Seconds of a CPU since boot by kind, from /proc/stat."""
    with open("/proc/stat", encoding="ascii") as file:
        for line in file:
            words = line.split()
            if words[0] == "cpu%d" % cpu:
                names = ("user", "nice", "system", "idle", "iowait", "irq", "softirq", "steal")
                return {name: int(word) / TICK for name, word in zip(names, words[1:])}
    raise RuntimeError("no CPU %d" % cpu)


def process_seconds(pid):
    """User and system time of a process, its ended threads included."""
    with open("/proc/%d/stat" % pid, encoding="ascii") as file:
        words = file.read().rsplit(")", 1)[1].split()
    return (int(words[11]) + int(words[12])) / TICK


def steer(namespace, interface, cpu):
    """Receive packet steering: what comes in by `interface` is worked on by `cpu`."""
    path = "/sys/class/net/%s/queues/rx-0/rps_cpus" % interface
    subprocess.run(["ip", "netns", "exec", namespace, "sh", "-c", "echo %x > %s" % (1 << cpu, path)], check=True)


def pipeline_program():
    """bench/pipeline of the build that migrx is from."""
    build = os.path.dirname(os.path.dirname(os.path.dirname(os.path.realpath(migrx_program()))))
    return os.path.join(build, "bench", "pipeline")


class Bench:
    def __init__(self, options):
        self.options = options
        self.source_cpu, self.receiver_cpu = options.cpus

    def pinned(self, cpu):
        words = ["taskset", "-c", str(cpu)]
        return words if self.options.tiny else [*words, "nice", "-n", "-20"]

    def guest(self, case, image):
        size = self.options.size * MIB
        guest = {"size": size, "image": image, "multifd_channels": CHANNELS, "timeout": 10,
                 "multifd_compression": case.compression, "cpu": self.source_cpu,
                 "idle": self.options.idle or "spin"}
        if case.compression == "none":
            guest.update(rounds=self.options.rounds, dirty_percent=100)
        else:
            guest.update(prepare=True, compressible_percent=100)
        return guest

    def run(self, case, folder):
        """One transfer; returns what it took."""
        if case.link.startswith("replay"):
            return self.replay(case, folder)
        if case.link == "loopback":
            return self.loopback(case, folder)
        image = os.path.join(folder, "image")
        with contextlib.ExitStack() as stack:
            stack.callback(shutil.rmtree, folder, ignore_errors=True)
            os.makedirs(folder)
            network = stack.enter_context(Network(case.mtu))
            namespace = network.receiver if case.link != "memif" else None
            if case.link == "veth":
                generator.make_veth(namespace, case.mtu, kernel_peer=case.receiver == "qemu")
                steer(namespace, "dst0", self.receiver_cpu)
            begin = {"qemu": self.start_qemu, "migrx": self.start_migrx}[case.receiver]
            pid, finish = begin(case, folder, namespace, stack)
            before, core_before = process_seconds(pid), core_times(self.receiver_cpu)
            source = stack.enter_context(generator.start_generator(
                folder, case.link, case.mtu, self.guest(case, image), namespace,
                prefix=self.pinned(self.source_cpu)))
            if case.link == "tap":
                self.join_taps(case, namespace, source)
            status = source.wait(self.options.timeout)
            core_after = core_times(self.receiver_cpu)
            if status != 0:
                raise RuntimeError("%s: migrx generate ended with %d: %s" % (case.name, status, source.log()))
            ram, process_s, busy_s, dropped = finish(before)
            expect_same_files("mem", ram, image)
            return self.result(source.report(), core_before, core_after, process_s, busy_s, dropped)

    def replay(self, case, folder):
        """The same for the data path alone. bench/pipeline fails by itself when RAM is not what was sent."""
        os.makedirs(folder)
        path = os.path.join(folder, "pipeline.json")
        cpu = str(self.receiver_cpu)
        size = ["--guest", str(self.options.size), "--rounds", str(self.options.rounds), "--repetitions", "1"]
        if case.link == "replay-coalesced":
            size += ["--coalesce", "64"]
        elif self.options.tiny:
            size = ["--tiny"]
        subprocess.run([*self.pinned(self.receiver_cpu), pipeline_program(), "--one-thread", "--poll-cpu", cpu,
                        "--worker-cpu", cpu, "--mtu", str(case.mtu), "--channels", str(CHANNELS), "--json", path,
                        *size],
                       check=True, stdout=subprocess.DEVNULL)
        with open(path, encoding="utf-8") as file:
            row = json.load(file)["rows"][0]
        shutil.rmtree(folder)
        speed = row["busy_gb_s_of_both_agents"]["median"] * 1e9 / GIB
        return {"guest_gib_per_s": speed, "cost_s_per_gib": 1 / speed, "busy_s_per_gib": 1 / speed,
                "segments": row["segments"]["median"], "receiver_dropped": row["dropped"],
                "poll_cycles_per_segment": row["poll_cycles_per_segment"]["median"],
                "loader_gb_s": row["loader_gb_s"]["median"]}

    def loopback(self, case, folder):
        """A paused QEMU with RAM of random bytes as source. All of its RAM goes once, so it has that of all rounds."""
        size = self.options.size * self.options.rounds * MIB
        with contextlib.ExitStack() as stack:
            stack.callback(shutil.rmtree, folder, ignore_errors=True)
            os.makedirs(folder)
            network = stack.enter_context(Network(case.mtu))
            steer(network.receiver, "lo", self.receiver_cpu)
            image = os.path.join(folder, "image")
            with open(image, "wb") as file:
                for _ in range(size // MIB):
                    file.write(os.urandom(MIB))
            ends = {}
            for name, path, cpu in (("source", image, self.source_cpu),
                                    ("destination", os.path.join(folder, "ram"), self.receiver_cpu)):
                ends[name] = stack.enter_context(Machine(
                    folder, "10", "pc", [PreparedBackend("mem", size, path=path)], None, network.receiver,
                    incoming="defer" if name == "destination" else None, vga=False, extra=["-S"], name=name,
                    prefix=self.pinned(cpu)))
                ends[name].set_capabilities(multifd=True)
                ends[name].set_parameters(multifd_channels=CHANNELS)
            ends["source"].set_parameters(max_bandwidth=1 << 40)
            ends["destination"].qmp.command("migrate-incoming", uri="tcp:127.0.0.1:%d" % PORT)
            pid = ends["destination"].process.pid
            before, core_before = process_seconds(pid), core_times(self.receiver_cpu)
            ends["source"].migrate("tcp:127.0.0.1:%d" % PORT)
            ends["source"].wait_migration(timeout=self.options.timeout)
            ends["destination"].wait_migration()
            process_s, core_after = process_seconds(pid) - before, core_times(self.receiver_cpu)
            expect_same_files("mem", os.path.join(folder, "ram"), image)
            done = ends["source"].qmp.command("query-migrate")
            gib = size / GIB
            spent = {name: core_after[name] - core_before[name] for name in core_after}
            core_s = sum(value for name, value in spent.items() if name not in ("idle", "iowait"))
            return {"guest_gib_per_s": gib / ((done["total-time"] - done.get("setup-time", 0)) / 1000),
                    "cost_s_per_gib": min(core_s, process_s + spent["softirq"]) / gib,
                    "core_s_per_gib": core_s / gib, "process_s_per_gib": process_s / gib,
                    "softirq_s_per_gib": spent["softirq"] / gib}

    def join_taps(self, case, namespace, source):
        if case.receiver == "qemu":
            generator.give_address(namespace, "gen0", case.mtu, source.alive)
        else:
            generator.wait_interface(namespace, "gen0", source.alive)
            generator.make_bridge(namespace, case.mtu, ("gen0", "mig0"))
        steer(namespace, "gen0", self.receiver_cpu)

    def start_qemu(self, case, folder, namespace, stack):
        backend = PreparedBackend("mem", self.options.size * MIB)
        machine = stack.enter_context(Machine(folder, "10", "pc", [backend], None, namespace, incoming="defer",
                                              vga=False, extra=["-S"], name="destination",
                                              prefix=self.pinned(self.receiver_cpu)))
        machine.set_capabilities(multifd=True)
        machine.set_parameters(multifd_channels=CHANNELS, multifd_compression=case.compression)
        machine.qmp.command("migrate-incoming", uri="tcp:0.0.0.0:%d" % PORT)

        def finish(before):
            machine.wait_migration()
            return backend.path, process_seconds(machine.process.pid) - before, None, None
        return machine.process.pid, finish

    def start_migrx(self, case, folder, namespace, stack):
        ram = os.path.join(folder, "ram")
        cpu = str(self.receiver_cpu)
        # Where the kernel brings the frames, its share is done on the same core: a spinner would be in its way.
        idle = self.options.idle or ("spin" if case.link == "memif" else "yield")
        receiver = stack.enter_context(generator.start_receiver(
            folder, case.link, case.mtu, "mem=%s,size=%d" % (ram, self.options.size * MIB), CHANNELS,
            case.compression, namespace, prefix=self.pinned(self.receiver_cpu),
            extra=("--poll-cores", cpu, "--loader-cores", cpu, "--no-supervisor", "--idle", idle)))
        if not receiver.wait_ready():
            raise RuntimeError("migrx never got ready: %s" % receiver.log())

        def finish(before):
            if receiver.wait() != 0:
                raise RuntimeError("migrx receive failed: %s" % receiver.log())
            report = receiver.report()
            counters = report["dataplane"]
            dropped = sum(counters.get(name, 0) for name in ("port.rx_missed", "port.rx_errors",
                                                             "port.rx_no_buffer", "tcp.over_quota"))
            return ram, report["cpu_s"] - before, sum(core["busy_s"] for core in report["cores"]), dropped
        return receiver.process.pid, finish

    def result(self, report, core_before, core_after, process_s, busy_s, dropped):
        gib = report["guest_bytes_sent"] / GIB
        spent = {name: core_after[name] - core_before[name] for name in core_after}
        core_s = sum(value for name, value in spent.items() if name not in ("idle", "iowait"))
        channels = report["channels"]
        return {
            "guest_gib_per_s": gib / report["seconds"],
            "stream_gb_per_s": report["stream_bytes_per_s"] / 1e9,
            "seconds": report["seconds"],
            "core_s_per_gib": core_s / gib,
            "process_s_per_gib": process_s / gib,
            "softirq_s_per_gib": spent["softirq"] / gib,
            "cost_s_per_gib": (min(core_s, process_s + spent["softirq"]) if busy_s is None
                               else busy_s + spent["softirq"]) / gib,
            "busy_s_per_gib": None if busy_s is None else busy_s / gib,
            "segments": report["segments"],
            "resent_segments": sum(channel["resent_segments"] for channel in channels),
            "timeouts": sum(channel["timeouts"] for channel in channels),
            "receiver_dropped": dropped,
            "channels": channels,
            "source_cycles_per_segment": report["thread"]["busy_cycles_per_segment"],
            "source_idle_share": report["thread"]["idle_s"] / max(1e-9, report["thread"]["idle_s"] +
                                                                  report["thread"]["busy_s"]),
        }


def median(values):
    return statistics.median(values)


def summarize(cases, runs):
    """Per case: median, smallest and largest of every number; ratios to the best QEMU of the same group."""
    rows = []
    for case in cases:
        mine = runs[case.name]
        row = {"case": case.name, "receiver": case.receiver, "link": case.link, "mtu": case.mtu,
               "compression": case.compression, "runs": mine}
        for key in mine[0]:
            values = [run[key] for run in mine if isinstance(run[key], (int, float))]
            if values:
                row[key] = {"median": median(values), "min": min(values), "max": max(values)}
        rivals = [other for other in cases if other.receiver == "qemu" and other.group == case.group]
        if case.receiver == "migrx" and rivals:
            speed = [run["guest_gib_per_s"] / max(runs[rival.name][i]["guest_gib_per_s"] for rival in rivals)
                     for i, run in enumerate(mine)]
            cost = [min(runs[rival.name][i]["cost_s_per_gib"] for rival in rivals) / run["cost_s_per_gib"]
                    for i, run in enumerate(mine) if run["cost_s_per_gib"] > 0]
            row["speed_ratio"] = {"median": median(speed), "min": min(speed), "max": max(speed)}
            if cost:
                row["cost_ratio"] = {"median": median(cost), "min": min(cost), "max": max(cost)}
        best = [other for other in cases if other.link == "loopback"]
        if case.link.startswith("replay") and best:
            ratio = [runs[best[0].name][i]["cost_s_per_gib"] / run["cost_s_per_gib"] for i, run in enumerate(mine)]
            row["loopback_cost_ratio"] = {"median": median(ratio), "min": min(ratio), "max": max(ratio)}
        rows.append(row)
    return rows


def table(rows):
    """The same for people, in Markdown."""
    lines = ["| case | guest GiB/s (min to max) | cost, core s per GiB | process | softirq | busy | segments again | "
             "times QEMU: speed | per core second | times QEMU on loopback, per core second |",
             "|---|---|---|---|---|---|---|---|---|---|"]
    for row in rows:
        def number(key, shape="%.3f"):
            return shape % row[key]["median"] if key in row else ""

        def ratio(key):
            return "%.2f (%.2f to %.2f)" % tuple(row[key][what] for what in ("median", "min", "max")) \
                if key in row else ""
        lines.append("| %s | %.2f (%.2f to %.2f) | %s | %s | %s | %s | %s | %s | %s | %s |" % (
            row["case"], *(row["guest_gib_per_s"][what] for what in ("median", "min", "max")),
            number("cost_s_per_gib"), number("process_s_per_gib"), number("softirq_s_per_gib"),
            number("busy_s_per_gib"), number("resent_segments", "%d"), ratio("speed_ratio"), ratio("cost_ratio"),
            ratio("loopback_cost_ratio")))
    return "\n".join(lines)


def testbed():
    with open("/proc/cpuinfo", encoding="utf-8") as file:
        models = [line.split(":", 1)[1].strip() for line in file if line.startswith("model name")]
    qemu = subprocess.run([qemu_program("10"), "--version"], capture_output=True, text=True, check=True).stdout
    return {"date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
            "cpu": models[0] if models else "unknown", "cpus": os.cpu_count(), "kernel": platform.release(),
            "qemu": qemu.splitlines()[0], "load_average": os.getloadavg()}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("words", nargs="*", help="only cases with these names, or whose names contain these")
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--size", type=int, default=256, help="MiB of guest RAM (default: 256)")
    parser.add_argument("--rounds", type=int, default=4, help="times all of it is sent when not compressed")
    parser.add_argument("--cpus", type=int, nargs=2, default=(0, 1), metavar=("SOURCE", "RECEIVER"))
    parser.add_argument("--timeout", type=int, default=120, help="seconds for one transfer")
    parser.add_argument("--idle", choices=("spin", "yield", "sleep"),
                        help="of both migrx processes (default: spin; a receiver on tap and veth yields)")
    parser.add_argument("--json", help="file for the results")
    parser.add_argument("--tiny", action="store_true", help="a moment only: shows that it works, says nothing")
    options = parser.parse_args()
    if os.geteuid() != 0 or migrx_program() is None or qemu_program("10") is None:
        print("skipped: needs root, a built migrx and QEMU 10")
        sys.exit(77)
    cases = TINY if options.tiny else CASES
    if options.tiny:
        options.repetitions, options.size, options.rounds, options.idle = 1, 32, 2, "sleep"
    known = {case.name for case in cases}
    cases = [case for case in cases if not options.words or any(
        word == case.name or (word not in known and word in case.name) for word in options.words)]
    remove_stale_namespaces()
    signal.signal(signal.SIGTERM, lambda number, _frame: sys.exit(128 + number))  # runs what tidies up
    bench, runs = Bench(options), {case.name: [] for case in cases}
    scratch = tempfile.mkdtemp(prefix="migrx-compare-", dir="/dev/shm")
    bed = testbed()
    try:
        for repetition in range(options.repetitions):
            for case in cases:
                result = bench.run(case, os.path.join(scratch, case.name))
                runs[case.name].append(result)
                print("%d %-22s %6.2f GiB/s %7.3f s/GiB" % (repetition, case.name, result["guest_gib_per_s"],
                                                            result["cost_s_per_gib"]), file=sys.stderr, flush=True)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    rows = summarize(cases, runs)
    print(table(rows))
    if options.json:
        with open(options.json, "w", encoding="utf-8") as file:
            json.dump({"testbed": bed, "size_mib": options.size, "rounds": options.rounds, "channels": CHANNELS,
                       "cases": rows}, file, indent=2)


if __name__ == "__main__":
    main()
