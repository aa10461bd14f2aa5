"""The page of bench/report: tables, plots, and what follows from the figures. Knows results.json and nothing else."""

import html
import statistics

import report_plots

DRIVER_CYCLES = 100  # per segment, for what a real port adds to a poll core
BUSY = 0.8           # share of a core that a plan should count on
HEADERS = 52         # IPv4 and TCP with timestamps
FRAMING = 38         # Ethernet header, frame check sequence, preamble and gap


def can_plot():
    return report_plots.AVAILABLE


def escape(value):
    return html.escape(str(value))


def table(heading, rows):
    """rows: lists of texts, which are escaped."""
    lines = ["<table><tr>", *("<th>%s</th>" % escape(cell) for cell in heading), "</tr>"]
    for row in rows:
        lines += ["<tr>", *("<td>%s</td>" % escape(cell) for cell in row), "</tr>"]
    return "".join(lines) + "</table>"


def spread(value, shape="%.2f"):
    """'median (least to most)' of a dictionary with these keys."""
    if not isinstance(value, dict):
        return "" if value is None else shape % value
    if value["min"] == value["max"]:
        return shape % value["median"]
    return "%s (%s to %s)" % tuple(shape % value[key] for key in ("median", "min", "max"))


def of_list(values):
    return {"median": statistics.median(values), "min": min(values), "max": max(values)}


def shape_of(row):
    text = "1 thread" if row["one_thread"] else "1+%d cores" % row["loader_cores"]
    if row.get("ipv6"):
        text += ", IPv6"
    if row["checksum"] != "good by port":
        text += ", software checksum"
    if row["scatter"]:
        text += ", scattered pages"
    if row.get("coalesce_kib"):
        text += ", coalesced to %d KiB" % row["coalesce_kib"]
    if row["burst"] != 32:
        text += ", burst %d" % row["burst"]
    if row["drop_every"]:
        text += ", 1 of %d lost" % row["drop_every"]
    return text


def is_loss_free(row):
    return row["drop_every"] == 0 and row["dropped"] == 0


class Page:
    def __init__(self, results):
        self.results = results
        self.parts = results["parts"]
        self.plots = 0
        self.text = []

    def add(self, text):
        self.text.append(text)

    def data(self, name):
        return self.parts.get(name, {}).get("data")

    def plot(self, function, *arguments):
        svg = function(*arguments) if report_plots.AVAILABLE else None
        if svg:
            self.plots += 1
            self.add("<figure>%s</figure>" % svg)

    def section(self, name, title, explanation):
        """Begins a part; False: there is nothing to show."""
        part = self.parts.get(name)
        self.add("<h2 id='%s'>%s</h2>" % (name, escape(title)))
        if part is None:
            self.add("<p class='note'>Not measured.</p>")
            return False
        if "data" not in part:
            self.add("<p class='note'>%s: %s</p>" % ("Left out" if "skipped" in part else "Failed",
                                                     escape(part.get("skipped") or part["failed"])))
            return False
        bed = part["testbed"]
        self.add("<p>%s</p><p class='note'>Measured %s, load average at start %s, took %.0f s%s.</p>" % (
            explanation, escape(bed["date"]), escape(bed["load average at start"]), part["seconds"],
            "" if part["size"] == "full" else ", %s run" % part["size"]))
        return True

    # ---- Sections

    def head(self):
        bed = self.results["testbed"]
        self.add("<h1>migrx: benchmark report</h1>")
        if self.results["size"] != "full":
            self.add("<p class='warning'>A %s run: few repetitions, short runs.%s</p>" % (
                self.results["size"], " Its figures say nothing." if self.results["size"] == "tiny" else ""))
        self.add("<p>All figures are medians with the least and the most of their repetitions. Every benchmark "
                 "verifies its result, most of them all of guest RAM byte for byte, and fails otherwise. "
                 "1 GB is 10<sup>9</sup> bytes.</p>")
        self.add("<h2>Testbed</h2>")
        beds = [("this report", bed)] + [(name, part["testbed"]) for name, part in self.parts.items()]
        differing = [(name, other) for name, other in beds[1:]
                     if any(other.get(key) != bed.get(key) for key in ("CPU", "kernel", "migrx", "usable CPUs"))]
        self.add(table(("", "this report", *(name for name, _ in differing)),
                       [(key, bed[key], *(other.get(key, "") for _, other in differing)) for key in bed]))

    def pipeline(self):
        if not self.section("pipeline", "Data path (bench/pipeline)",
                            "Frames in memory → poll core with TCP → hand-off rings → loader workers → guest RAM. "
                            "<b>On the cable</b> counts headers, preamble and gap; <b>in RAM</b> is what the guest "
                            "gets. ● marks rows without loss: every frame of the source was taken and nothing was "
                            "sent twice. Rows with loss lose segments on purpose, on the way."):
            return
        # A pool smaller than the connections' smallest quotas is made larger. Earlier results do not say by how much.
        rows = [{"pool_mib_used": row["pool_mib"], **row} for row in self.data("pipeline")["rows"]]
        self.add(table(
            ("loss-free", "MTU", "channels", "pool MiB", "shape", "GB/s in RAM", "GB/s on the cable",
             "of stores' limit", "loader GB/s busy", "poll cycles/segment", "source cycles/segment", "segments/burst",
             "checksum"),
            [("●" if is_loss_free(row) else "", row["mtu"], row["channels"], "%.1f" % row["pool_mib_used"],
              shape_of(row), spread(row["ram_gb_s"]), spread(row["wire_gb_s"]), spread(row["loader_of_nt_limit"]),
              spread(row["loader_gb_s"]), spread(row["poll_cycles_per_segment"], "%.0f"),
              spread(row["source_cycles_per_segment"], "%.0f"), spread(row["segments_per_burst"], "%.1f"),
              row["checksum"]) for row in rows]))
        self.plot(report_plots.against_mtu, rows)
        self.plot(report_plots.against, rows, "channels", "channels", "channels", True)
        self.plot(report_plots.loss, rows)
        self.plot(report_plots.against, rows, "pool", "pool_mib_used",
                  "packet buffers, MiB (at least the connections' quotas)", True)
        self.plot(report_plots.against, rows, "burst", "burst", "frames per burst", True)
        if any(row["loader_cores"] > 1 for row in rows):
            self.plot(report_plots.against, rows, "loader cores", "loader_cores", "loader cores", False)
        else:
            self.add("<p class='note'>Loader cores: this machine has CPUs for one only.</p>")

    def stages(self):
        if not self.section("stages", "Cycles by stage (bench/pipeline --stages)",
                            "A ladder: each rung does one stage more than the one before, timed from outside; "
                            "steps are the differences. Small ones may fall below zero on a machine that others "
                            "use. The other end of the rings is on the same core, or on another."):
            return
        ladders = self.data("stages")["ladders"]
        for agent in ("poll", "loader"):
            mine = [ladder for ladder in ladders if ladder["agent"] == agent]
            if not mine:
                continue
            self.add("<h3>%s</h3>" % ("Poll core" if agent == "poll" else "Loader"))
            for ladder in mine:
                title = "MTU %d, checksum %s, other side on %s" % (ladder["mtu"], ladder["checksum"],
                                                                   ladder["other_side"])
                self.add("<h4>%s</h4>" % escape(title))
                self.add(table(("stage", "adds, cycles/segment", "sum", "what"),
                               [(stage["stage"], spread(stage["cycles"], "%.0f"), spread(stage["sum"], "%.0f"),
                                 stage["what"]) for stage in ladder["stages"]] +
                               [(stage["stage"], spread(stage["cycles"], "%.0f"), "", "by itself: " + stage["what"])
                                for stage in ladder["alone"]]))
            self.plot(report_plots.stages, mine)

    def model(self):
        self.add("<h2 id='model'>What a host with 16 cores would need</h2>")
        data = self.data("pipeline")
        rows = [row for row in data["rows"] if row["series"] == "channels" and row["channels"] == 8] if data else []
        if not rows:
            self.add("<p class='note'>Needs rows of bench/pipeline with 8 channels.</p>")
            return
        self.add("<p>Arithmetic from the rows with 8 channels above, not a measurement: nothing here has run on such "
                 "a link. Assumed: %d cycles per segment for a port's driver, which these rows do not have; cores "
                 "used to %d %%; flows spread evenly over poll cores; memory bandwidth for twice the line rate; "
                 "checksums verified by the port. Poll core: the measured cycles per segment at this machine's TSC "
                 "rate. Loader: its measured rate while busy.</p>"
                 % (DRIVER_CYCLES, 100 * BUSY))
        out = []
        for row in rows:
            payload = row["mtu"] - HEADERS
            for link in (100, 200, 400):
                segments = link * 1e9 / 8 / (row["mtu"] + FRAMING)
                poll = segments * (row["poll_cycles_per_segment"]["median"] + DRIVER_CYCLES) / row["tsc_hz"] / BUSY
                loader = segments * payload / 1e9 / row["loader_gb_s"]["median"] / BUSY
                cores = -int(-poll // 1) + -int(-loader // 1)
                out.append(("%d GbE" % link, row["mtu"], "%.1f" % (segments * payload / 1e9),
                            "%.2f M" % (segments / 1e6),
                            "%.1f → %d" % (poll, -int(-poll // 1)), "%.1f → %d" % (loader, -int(-loader // 1)),
                            "%d" % cores if cores <= 16 else "%d: does not fit" % cores))
        self.add(table(("link", "MTU", "GB/s in RAM", "segments/s", "poll cores", "loader cores", "of 16"), out))

    def micro(self):
        if self.section("micro", "Single parts (bench/micro)", "Time of one iteration, and what the benchmark counts."):
            self.google_rows("micro")

    def google_rows(self, name):
        rows = []
        for row in self.data(name)["rows"]:
            runs = row["runs"]
            unit = runs[0]["time_unit"]
            rate = of_list([run["bytes_per_second"] / 1e9 for run in runs]) if "bytes_per_second" in runs[0] else None
            own = [key for key, value in runs[0].items() if isinstance(value, (int, float)) and key not in (
                "family_index", "per_family_instance_index", "repetitions", "repetition_index", "threads", "iterations",
                "real_time", "cpu_time", "bytes_per_second", "items_per_second")]
            rows.append((row["name"], "%s %s" % (spread(of_list([run["real_time"] for run in runs]), "%.4g"), unit),
                         spread(rate) if rate else "",
                         "; ".join("%s %s" % (key, spread(of_list([run[key] for run in runs]), "%.4g"))
                                   for key in own)))
        self.add(table(("benchmark", "time", "GB/s", "counts"), rows))

    def barrier(self):
        if not self.section("barrier", "Flush barrier (bench/barrier)",
                            "Main's marker, SYNC of every channel, release, until every channel goes on, between "
                            "two spinning threads. Beside it what two threads that do nothing suffer on the same "
                            "CPUs in the same run: p99 and p99.9 of a piece of work of the same length, from the "
                            "histogram of their stalls. What the barrier shows beyond p50 and the spinners show, "
                            "too, is the machine's."):
            return
        rows = self.data("barrier")["rows"]
        self.add(table(("channels", "episodes", "p50 µs", "p99 µs", "p99.9 µs", "spinners: p99 µs", "p99.9 µs",
                        "bound to be disturbed"),
                       [(row["channels"] or "bare word", row["episodes"], *("%.2f" % (row[key] / 1e3) for key in (
                           "p50_ns", "p99_ns", "p999_ns", "spinner_p99_ns", "spinner_p999_ns")),
                         "%.2f %%" % (100 * row["disturbed_share"])) for row in rows]))
        self.add("<h4>Stalls of the spinners, per second</h4>")
        self.add(table(("channels", "CPU of", "1 to 3 µs", "3 to 10", "10 to 100", "100 to 1000", "longer"),
                       [(row["channels"], side["cpu_of"], *("%.1f" % (count / side["seconds"])
                                                            for count in side["count"]))
                        for row in rows for side in row["stalls"]]))
        self.plot(report_plots.barrier, rows)

    def dma(self):
        if not self.section("dma", "Copies by a DMA engine (bench/dma_offload)",
                            "What the core that submits pays per slice, in TSC cycles, beside the page writer that "
                            "copies by itself. The engine is a thread (DPDK's dma_skeleton), so its GB/s are no "
                            "engine's; <code>floor</code> has nobody at the other end."):
            return
        self.add(table(("slice, bytes", "way", "fill", "doorbell", "completions", "sum", "waiting", "GB/s"),
                       [(row["slice_bytes"], row["way"], *(spread(row[key], "%.0f") for key in (
                           "fill", "doorbell", "poll", "sum", "wait")), spread(row["gb_s"], "%.1f"))
                        for row in self.data("dma")["rows"]]))

    def prefault(self):
        if not self.section("prefault", "Faulting in guest memory (bench/prefault)",
                            "By 1 to N threads, beside the rates at which as many threads clear memory that is there "
                            "already, in one piece and by 4 KiB as the kernel does; the ratio is to the latter."):
            return
        data = self.data("prefault")
        self.add("<p>%s, %d MiB</p>" % (escape(data["folder"]), data["bytes"] >> 20))
        self.add(table(("threads", "GB/s", "clearing GB/s", "by 4 KiB", "ratio", "spread"),
                       [(row["threads"], "%.2f" % (row["prefault_bytes_per_s"] / 1e9),
                         "%.2f" % (row["clear_bytes_per_s"] / 1e9),
                         "%.2f" % (row["clear_4k_bytes_per_s"] / 1e9),
                         "%.2f" % (row["prefault_bytes_per_s"] / row["clear_4k_bytes_per_s"]),
                         "%.0f %%" % (100 * row["spread"]))
                        for row in data["rows"]]))

    def colo(self):
        if self.section("colo", "COLO (bench/colo_cache)",
                        "What a checkpoint costs, and that pages of an ordinary migration cost the same as without "
                        "COLO: <code>ordinary</code> beside <code>plain_pointer</code> and <code>colo</code>."):
            self.google_rows("colo")

    def downtime(self):
        if not self.section("downtime", "Downtime (bench/downtime.py)",
                            "Whole migrations of real QEMUs over the same veth pair: QEMU into QEMU, and through "
                            "migrx."):
            return
        runs = self.data("downtime")["runs"]
        rows = []
        for load in sorted({run["load"] for run in runs}):
            for form in ("qemu", "migrx"):
                mine = [run for run in runs if (run["load"], run["form"]) == (load, form)]
                if mine:
                    rows.append((load, form, len(mine), *(
                        spread(of_list([run[key] * scale for run in mine]))
                        for key, scale in (("downtime_s", 1e3), ("total_s", 1), ("cpu_s", 1)))))
        self.add(table(("guest", "receiver", "runs", "downtime ms", "total s", "destination's CPU s"), rows))
        self.plot(report_plots.downtime, runs)

    def load(self):
        if not self.section("load", "Main-channel records against QEMU (bench/compare_load.py)",
                            "The same stream from a file into a QEMU destination and <code>migrx load</code>, on one "
                            "core, RAM of both compared afterwards. QEMU's device state is left out."):
            return
        self.add(table(("stream", "records", "QEMU, ns per record", "migrx, ns per record",
                        "per core second, times QEMU", "times QEMU on loopback"),
                       [(row["case"], row["records"], spread(row["qemu_ns_per_record"], "%.0f"),
                         spread(row["migrx_ns_per_record"], "%.0f"), spread(row["ratio"]))
                        for row in self.data("load")["cases"]]))

    def qemu(self):
        if not self.section("qemu", "Against QEMU (bench/compare_qemu.py)",
                            "The same made-up guest into a QEMU destination and into migrx, the receiver on one "
                            "core. Cost is what receiving took of that core at most; docs/performance.md says how "
                            "it is counted. On tap and veth both pay the kernel for bringing the frames; memif's "
                            "copy and the checksum in software stand in a device's place."):
            return
        rows = self.data("qemu")["cases"]
        self.add(table(("case", "guest GiB/s", "cost, core s per GiB", "segments sent again", "dropped by receiver",
                        "per core second, times QEMU"),
                       [(row["case"], spread(row["guest_gib_per_s"]), spread(row["cost_s_per_gib"], "%.3f"),
                         spread(row.get("resent_segments"), "%d"), spread(row.get("receiver_dropped"), "%d"),
                         spread(row.get("cost_ratio")), spread(row.get("loopback_cost_ratio"))) for row in rows]))
        self.plot(report_plots.qemu, rows)


STYLE = """body{font:15px/1.45 sans-serif;max-width:75em;margin:2em auto;padding:0 1em;color:#222}
table{border-collapse:collapse;margin:.6em 0;font-size:13px}td,th{border:1px solid #ccc;padding:2px 7px;text-align:left}
th{background:#eee}figure{margin:1em 0}.note{color:#666}.warning{background:#fe9;padding:.4em}
svg{max-width:100%;height:auto}"""


def build(results):
    """The page and the number of its plots."""
    page = Page(results)
    page.head()
    for part in (page.pipeline, page.stages, page.model, page.qemu, page.load, page.downtime, page.barrier, page.micro,
                 page.dma, page.prefault, page.colo):
        part()
    return ("<!DOCTYPE html><html lang='en'><head><meta charset='utf-8'><title>migrx: benchmark report</title>"
            "<style>%s</style></head><body>%s</body></html>\n" % (STYLE, "\n".join(page.text)), page.plots)
