"""What one migration of the soak is, from its seed: the same seed, the same migration."""

import dataclasses
import random
import subprocess

from .guest import MIB
from .machine import Backend, qemu_program

# Machine types that all versions have, and such as only some have.
_OLD_MACHINES = ("pc-i440fx-7.2", "pc-q35-7.2", "pc-i440fx-6.2")
_MACHINES = {"7.2": (*_OLD_MACHINES, "pc-i440fx-4.0", "pc", "q35"),
             "10": (*_OLD_MACHINES, "pc-i440fx-4.0", "pc", "q35", "pc-q35-8.0", "pc-q35-8.1", "pc-i440fx-8.2", "pc-q35-9.0", "pc-q35-9.1",
                    "pc-i440fx-9.2", "pc-q35-10.0"),
             "newest": (*_OLD_MACHINES, "pc", "q35", "pc-q35-8.0", "pc-i440fx-8.2", "pc-q35-10.0", "pc-q35-11.0")}
# How it goes: "complete" and "handoff" must succeed, the others are mishaps at a random moment.
ENDS = ("complete", "handoff", "cancel", "source killed", "receiver SIGTERM", "worker killed", "destination killed",
        "outage", "second VM", "second receiver", "file replaced", "file replaced before")
_WEIGHTS = (50, 14, 5, 5, 5, 5, 4, 4, 4, 4, 4, 2)
# Of these the migration must hear nothing.
HARMLESS = ("outage", "second receiver", "file replaced")
# With a destination QEMU.
_WITH_DESTINATION = ("handoff", "destination killed", "second receiver", "file replaced", "file replaced before")
RAM_MAX = 64 * MIB  # of one guest


@dataclasses.dataclass
class Plan:
    """The settings of one migration. Sizes in bytes, times in seconds."""

    seed: int
    version: str = ""
    destination: str = ""  # version of the destination QEMU, for hand-offs
    machine: str = ""
    sizes: tuple = ()  # of the memory backends
    fill: str = ""
    pages_per_tick: int = 0  # 0: the guest writes nothing after the fill
    dirty_end: int = 0
    dirty_s: float = 0.0
    channels: int = 0
    compression: str = "none"
    capabilities: dict = dataclasses.field(default_factory=dict)
    parameters: dict = dataclasses.field(default_factory=dict)
    receiver_capabilities: tuple = ()
    receiver_extra: tuple = ()
    return_path: bool = True
    mtu: int = 9000
    congestion: object = None
    impair: object = None
    two_ports: bool = False
    old_bytes: bool = False  # the receiver's file is there and holds something else
    small_blocks: bool = False
    hugepages: bool = False  # guest RAM at the receiver, where there are some
    end: str = "complete"
    mishap_s: float = 0.0  # after the migration began
    outage_s: float = 0.0

    def has_destination(self):
        return bool(self.destination)

    def backends(self):
        if len(self.sizes) == 1:
            return [Backend("mem", self.sizes[0])]
        return [Backend("m%d" % i, size) for i, size in enumerate(self.sizes)]

    def describe(self):
        words = ["QEMU %s %s" % (self.version, self.machine), "+".join("%d" % (size // MIB) for size in self.sizes) + " MiB",
                 self.fill]
        if self.pages_per_tick:
            words.append("%d pages/ms for %.1f s" % (self.pages_per_tick, self.dirty_s))
        words.append("multifd %d" % self.channels if self.channels else "precopy")
        if self.compression != "none":
            words.append(self.compression)
        words += [name for name, on in self.capabilities.items() if on]
        words += ["%s %s" % item for item in self.parameters.items() if item[0] == "zero_page_detection"]
        if not self.return_path:
            words.append("no return path")
        words.append("MTU %d" % self.mtu)
        words += [word for word in (self.congestion, "two ports" if self.two_ports else "",
                                    "two cores" if "--poll-cores" in self.receiver_extra else "",
                                    "old bytes" if self.old_bytes else "",
                                    "hugepages" if self.hugepages else "") if word]
        if self.impair:
            words += ["%s %g" % item for item in self.impair.items() if item[0] != "seed"]
        words.append(self.end if self.end in ("complete",) else
                     "handoff to %s" % self.destination if self.end == "handoff" else
                     "%s after %.2f s%s" % (self.end, self.mishap_s, " for %.1f s" % self.outage_s if self.outage_s else ""))
        return ", ".join(words)


def versions():
    return [version for version in ("7.2", "10", "newest") if qemu_program(version)]


def _congestion_controls():
    return subprocess.run(["cat", "/proc/sys/net/ipv4/tcp_available_congestion_control"], capture_output=True, text=True,
                          check=True).stdout.split()


def _modes(dice, plan):
    """Channels and page encodings that this QEMU has."""
    plan.channels = dice.choice((0, 0, 1, 2, 3, 4, 8, 16))
    if plan.channels:
        plan.compression = dice.choice(("none", "none", "none", "zlib", "zstd"))
        if plan.compression != "none":
            plan.parameters["multifd_%s_level" % plan.compression] = dice.choice((0, 1, 3, 9))
        if plan.version != "7.2":
            plan.parameters["zero_page_detection"] = dice.choice(("legacy", "multifd", "none"))
    elif dice.random() < 0.35:
        plan.capabilities["xbzrle"] = True
        plan.parameters["xbzrle_cache_size"] = dice.choice((2, 16, 64)) * MIB
        plan.receiver_capabilities = ("xbzrle",)
    elif plan.version == "7.2" and dice.random() < 0.5:
        plan.capabilities["compress"] = True
        plan.parameters.update(compress_threads=dice.choice((1, 2, 8)), compress_level=dice.choice((1, 6, 9)),
                               compress_wait_thread=dice.random() < 0.5)
        plan.receiver_capabilities = ("compress",)
    if dice.random() < 0.1:
        plan.capabilities["auto_converge"] = True


def _network(dice, plan):
    plan.mtu = dice.choice((1500, 1500, 9000, 9000, 4000))
    if dice.random() < 0.5:
        plan.congestion = dice.choice([name for name in ("cubic", "bbr", "reno") if name in _congestion_controls()])
    if dice.random() < 0.25:
        chances = {"loss": (0, 0.001, 0.01, 0.03), "reorder": (0, 0.01, 0.05), "duplicate": (0, 0.01, 0.05),
                   "corrupt": (0, 0.001, 0.01)}
        plan.impair = {"seed": dice.randrange(1 << 30), **{name: dice.choice(values) for name, values in chances.items()}}
    elif dice.random() < 0.06:
        plan.two_ports = True


def plan_of(seed, mishaps=False):
    """`mishaps`: no migration without one."""
    dice = random.Random(seed)
    plan = Plan(seed)
    plan.end = dice.choices(ENDS, [0, 0, *_WEIGHTS[2:]] if mishaps else _WEIGHTS)[0]
    plan.version = dice.choice(versions())
    plan.machine = dice.choice(_MACHINES[plan.version])
    handoff = plan.end in _WITH_DESTINATION or (plan.end == "outage" and dice.random() < 0.6)
    plan.destination = plan.version if handoff else ""
    if handoff and dice.random() < 0.4:
        plan.destination, plan.machine = dice.choice(versions()), dice.choice(_OLD_MACHINES)
    plan.sizes = (dice.choice((32, 32, 40, 48, 64)) * MIB,)
    if dice.random() < 0.15:
        plan.sizes = (32 * MIB, dice.choice((8, 16)) * MIB)
    plan.fill = dice.choice(("random", "compressible", "mixed", "sparse", "nothing"))
    mishap = plan.end not in ("complete", "handoff")
    if mishap or dice.random() < 0.6:
        plan.pages_per_tick = dice.choice((1, 4, 16, 48))
        plan.dirty_end = 8 * MIB + dice.choice((1, 4, 16)) * MIB
        plan.dirty_s = round(dice.uniform(0.1, 0.8), 2)
    _modes(dice, plan)
    _network(dice, plan)
    # Without a return path a source believes it is done as soon as its sockets took the last byte: a mishap then proves
    # nothing, and a hand-off is refused.
    plan.return_path = mishap or handoff or dice.random() < 0.85
    if dice.random() < 0.25:
        plan.receiver_extra = ("--poll-cores", "0,1", "--loader-cores", "0,1", "--idle", "yield")
    plan.old_bytes = not handoff and dice.random() < 0.15
    plan.small_blocks = plan.end == "complete" and dice.random() < 0.1
    plan.mishap_s = round(dice.choice((0.0, dice.uniform(0, 0.3), dice.uniform(0, 1.5))), 2)
    if plan.end == "cancel":
        plan.receiver_extra += ("--stall-timeout", "8")
    if plan.end == "outage":
        # Seldom long: the source's next retransmission may take as long again.
        plan.outage_s = round(dice.choice((dice.uniform(0.2, 3), dice.uniform(3, 15), dice.uniform(15, 25))), 1)
        plan.impair, plan.two_ports = plan.impair or {"seed": 1}, False  # with a router, whose link goes
    plan.hugepages = dice.random() < 0.25 and not plan.old_bytes and plan.end != "file replaced before"  # hugetlbfs has no write()
    return plan
