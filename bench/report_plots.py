"""The plots of bench/report, as SVG to be put into a page. Without matplotlib AVAILABLE is False and none is made."""

import io

try:
    import matplotlib
    matplotlib.use("svg")
    from matplotlib import pyplot
    AVAILABLE = True
except ImportError:
    AVAILABLE = False


def finish(figure):
    """The figure as an svg element."""
    for axes in figure.axes:
        if axes.get_ylim()[0] == 0:
            axes.set_ylim(0, 1.05 * max(axes.get_ylim()[1], axes.dataLim.y1))
    figure.tight_layout()
    out = io.StringIO()
    figure.savefig(out, format="svg", metadata={"Date": None})
    pyplot.close(figure)
    text = out.getvalue()
    return text[text.index("<svg"):]


def bars_of(value):
    """Median, and how far the least and the most are from it, as matplotlib wants it."""
    return value["median"], (value["median"] - value["min"], value["max"] - value["median"])


def line(axes, points, label, **style):
    """points: (x, {median, min, max}) in the order of x."""
    points = sorted(points, key=lambda point: point[0])
    values = [bars_of(value) for _, value in points]
    axes.errorbar([x for x, _ in points], [median for median, _ in values],
                  yerr=list(zip(*(error for _, error in values))), label=label, marker="o", capsize=3, **style)


def label_of(row):
    if row["one_thread"]:
        return "1 thread"
    if row["checksum"] != "good by port":
        return "1+1, software checksum"
    if row.get("ipv6"):
        return "1+1, IPv6"
    return "1+1, scattered pages" if row["scatter"] else "1+1"


def against_mtu(rows):
    """In RAM on the left, on the cable on the right: bytes of headers are no guest's."""
    rows = [row for row in rows if row["series"] == "shape" or (row["series"] == "channels" and row["channels"] == 8)]
    figure, axes = pyplot.subplots(1, 2, figsize=(11, 4), sharey=True)
    for side, key, title in ((axes[0], "ram_gb_s", "in RAM"), (axes[1], "wire_gb_s", "on the cable")):
        for label in dict.fromkeys(label_of(row) for row in rows):
            line(side, [(row["mtu"], row[key]) for row in rows if label_of(row) == label], label)
        for gbe in (50, 100, 200):
            if key == "wire_gb_s":
                side.axhline(gbe / 8, color="gray", linewidth=0.7, linestyle=":")
                side.text(1500, gbe / 8, "%d GbE" % gbe, fontsize=8, color="gray", va="bottom")
        side.set(xlabel="MTU, bytes", title="8 channels, " + title, ylim=(0, None))
        side.grid(alpha=0.3)
    axes[0].set_ylabel("GB/s")
    axes[0].legend()
    return finish(figure)


def against(rows, series, key, name, logarithmic):
    rows = [row for row in rows if row["series"] == series or (
        series == "loader cores" and row["series"] == "channels" and row["channels"] == 8)]
    if not rows:
        return None
    figure, axes = pyplot.subplots(1, 2, figsize=(11, 4))
    for mtu in sorted({row["mtu"] for row in rows}):
        mine = [row for row in rows if row["mtu"] == mtu]
        line(axes[0], [(row[key], row["ram_gb_s"]) for row in mine], "MTU %d" % mtu)
        line(axes[1], [(row[key], row["poll_cycles_per_segment"]) for row in mine], "MTU %d" % mtu)
    for side, title in ((axes[0], "GB/s in RAM"), (axes[1], "poll core, cycles per segment")):
        if logarithmic:
            side.set_xscale("log", base=2)
            ticks = sorted({row[key] for row in rows})
            if series != "pool":
                side.set_xticks(ticks, [str(tick) for tick in ticks])
            side.minorticks_off()
        side.set(xlabel=name, title=title, ylim=(0, None))
        side.grid(alpha=0.3)
    axes[0].legend()
    return finish(figure)


def loss(rows):
    figure, axes = pyplot.subplots(1, 2, figsize=(11, 4))
    for mtu in sorted({row["mtu"] for row in rows}):
        mine = [row for row in rows if row["mtu"] == mtu and (
            row["series"] == "loss" or (row["series"] == "channels" and row["channels"] == 8))]
        percent = [(100 / row["drop_every"] if row["drop_every"] else 0, row) for row in mine]
        line(axes[0], [(x, row["ram_gb_s"]) for x, row in percent], "MTU %d" % mtu)
        line(axes[1], [(x, row["poll_cycles_per_segment"]) for x, row in percent], "MTU %d" % mtu)
    for side, title in ((axes[0], "GB/s in RAM"), (axes[1], "poll core, cycles per segment")):
        side.set(xlabel="segments lost on the way, %", title=title + ", 8 channels", ylim=(0, None))
        side.set_xscale("symlog", linthresh=0.1)
        side.set_xticks([0, 0.1, 1, 5], ["0", "0.1", "1", "5"])
        side.grid(alpha=0.3)
    axes[0].legend()
    return finish(figure)


def stages(ladders):
    """One bar per ladder, stacked by stage; a step below zero, which noise makes, is drawn as none."""
    names = ["%d\n%s\n%s" % (ladder["mtu"], "port" if ladder["checksum"] == "good by port" else "software",
                             ladder["other_side"]) for ladder in ladders]
    figure, axes = pyplot.subplots(figsize=(11, 4.5))
    bottom = [0.0] * len(ladders)
    for i, first in enumerate(ladders[0]["stages"]):
        steps = [max(0.0, ladder["stages"][i]["cycles"]["median"]) for ladder in ladders]
        axes.bar(range(len(ladders)), steps, bottom=bottom, label=first["stage"].split(" ")[0], width=0.7)
        bottom = [a + b for a, b in zip(bottom, steps)]
    axes.set_xticks(range(len(ladders)), names, fontsize=8)
    axes.set(ylabel="cycles per segment", title="MTU, checksum, where the other side runs")
    axes.legend(ncol=4, fontsize=8)
    axes.grid(alpha=0.3, axis="y")
    return finish(figure)


def barrier(rows):
    figure, axes = pyplot.subplots(figsize=(7, 4))
    names = [str(row["channels"] or "bare") for row in rows]
    for key, label, style in (("p50_ns", "barrier p50", "-"), ("p99_ns", "barrier p99", "-"),
                              ("p999_ns", "barrier p99.9", "-"), ("spinner_p99_ns", "spinners p99", ":"),
                              ("spinner_p999_ns", "spinners p99.9", ":")):
        axes.plot(names, [row[key] / 1e3 for row in rows], style, marker="o", label=label)
    axes.set(xlabel="channels", ylabel="µs", yscale="log")
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    return finish(figure)


def qemu(rows):
    figure, axes = pyplot.subplots(1, 2, figsize=(11, 1.5 + 0.4 * len(rows)), sharey=True)
    colours = ["tab:orange" if row["receiver"] == "qemu" else "tab:blue" for row in rows]
    for side, key, title in ((axes[0], "guest_gib_per_s", "guest GiB/s, receiver on one core"),
                             (axes[1], "cost_s_per_gib", "core seconds per GiB (less is better)")):
        values = [bars_of(row[key]) for row in rows]
        side.barh([row["case"] for row in rows], [median for median, _ in values],
                  xerr=list(zip(*(error for _, error in values))), color=colours, capsize=2)
        side.set_title(title)
        side.grid(alpha=0.3, axis="x")
    axes[0].invert_yaxis()
    return finish(figure)


def downtime(runs):
    loads = sorted({run["load"] for run in runs})
    figure, axes = pyplot.subplots(figsize=(6, 3.5))
    values, names = [], []
    for load in loads:
        for form in ("qemu", "migrx"):
            mine = [run["downtime_s"] * 1e3 for run in runs if (run["load"], run["form"]) == (load, form)]
            if mine:
                values.append(mine)
                names.append("%s\n%s" % (form, load))
    axes.boxplot(values, whis=(0, 100))
    axes.set_xticks(range(1, len(names) + 1), names)
    axes.set(ylabel="downtime, ms", ylim=(0, None))
    axes.grid(alpha=0.3, axis="y")
    return finish(figure)
