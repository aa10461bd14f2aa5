"""The guest programs that run inside the source QEMU, assembled when a test needs them."""

import dataclasses
import os
import re
import subprocess

from .runner import expect

MIB = 1 << 20
_GUESTS = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "guests")

FILL = {"nothing": 0, "random": 1, "compressible": 2, "mixed": 3, "sparse": 4}


@dataclasses.dataclass
class BusyGuest:
    """tests/qemu/guests/busy.S and its parameters; ranges in bytes, `dirty_end` 0 means no dirtying."""

    fill: str = "mixed"
    fill_start: int = 2 * MIB
    fill_end: int = 0
    dirty_start: int = 2 * MIB
    dirty_end: int = 0
    pages_per_tick: int = 0
    ticks_per_line: int = 50

    def arguments(self, folder):
        """QEMU's options for this guest."""
        return ["-kernel", self.build(folder)]

    def build(self, folder):
        """Returns the path of the Multiboot kernel made from these parameters."""
        symbols = {
            "FILL_START": self.fill_start, "FILL_END": self.fill_end, "FILL_MODE": FILL[self.fill],
            "DIRTY_START": self.dirty_start, "DIRTY_END": self.dirty_end or self.dirty_start + 4096,
            "PAGES_PER_TICK": self.pages_per_tick, "TICKS_PER_LINE": self.ticks_per_line,
        }
        source = os.path.join(_GUESTS, "busy.S")
        target = os.path.join(folder, "busy.elf")
        defines = [word for name, value in symbols.items() for word in ("--defsym", "%s=%d" % (name, value))]
        subprocess.run(["as", "--32", *defines, "-o", target + ".o", source], check=True)
        subprocess.run(["ld", "-m", "elf_i386", "-N", "--no-warn-rwx-segments", "-Ttext=0x100000",
                        "-o", target, target + ".o"], check=True)
        return target


_LINE = re.compile(rb"count ([0-9a-f]{8}) pass ([0-9a-f]{8}) bad ([0-9a-f]{8})\r?\n")


def console_lines(data):
    """The guest's console as a list of (count, pass, bad)."""
    return [tuple(int(word, 16) for word in match.groups()) for match in _LINE.finditer(data)]


def expect_unbroken(consoles):
    """Fails unless the consoles of one guest's hosts, one behind the other, hold every count once, and no bad page.

    A line may begin on one and end on the next. Returns all (count, pass, bad).
    """
    lines = console_lines(b"".join(consoles))
    counts = [count for count, _pass, _bad in lines]
    expect(counts == list(range(1, len(counts) + 1)), "the console has a gap or a repeat: %r", counts)
    expect(all(bad == 0 for _count, _pass, bad in lines), "the guest found wrong memory: %r", lines[-3:])
    return lines
