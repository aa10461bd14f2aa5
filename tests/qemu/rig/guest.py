"""The guest programs that run inside the source QEMU, assembled when a test needs them."""

import dataclasses
import os
import re
import struct
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
    disk_sectors: int = 0

    def arguments(self, folder):
        """QEMU's options for this guest."""
        return ["-kernel", self.build(folder)]

    def build(self, folder):
        """Returns the path of the Multiboot kernel made from these parameters."""
        symbols = {
            "FILL_START": self.fill_start, "FILL_END": self.fill_end, "FILL_MODE": FILL[self.fill],
            "DIRTY_START": self.dirty_start, "DIRTY_END": self.dirty_end or self.dirty_start + 4096,
            "PAGES_PER_TICK": self.pages_per_tick, "TICKS_PER_LINE": self.ticks_per_line,
            "DISK_SECTORS": self.disk_sectors,
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


_BARE = {
    # target: (machine, address of RAM, of the UART, options of clang)
    "aarch64": ("virt", 0x40000000, 0x09000000, ("--target=aarch64-none-elf", "-mgeneral-regs-only", "-mstrict-align")),
    "riscv64": ("virt", 0x80000000, 0x10000000, ("--target=riscv64-none-elf", "-march=rv64im", "-mabi=lp64",
                                                 "-mcmodel=medany", "-mno-relax")),
}


@dataclasses.dataclass
class BareGuest:
    """tests/qemu/guests/busy_bare.c on the `virt` machine of another target; `size` is its RAM in bytes."""

    target: str
    size: int
    dirty: bool = True

    def machine(self):
        return _BARE[self.target][0]

    def arguments(self, folder):
        ram = _BARE[self.target][1]
        options = ["-device", "loader,file=%s,addr=%#x,cpu-num=0,force-raw=on" % (self.build(folder), ram + MIB)]
        return options + self.destination_arguments()

    def destination_arguments(self):
        """The same machine without the guest's code, which is in its RAM already."""
        return ["-cpu", "cortex-a57"] if self.target == "aarch64" else ["-bios", "none"]

    def build(self, folder):
        """Returns the path of the code alone, to be put 1 MiB into RAM."""
        _machine, ram, uart, options = _BARE[self.target]
        defines = {"UART": uart, "FILL_START": ram + 2 * MIB, "FILL_END": ram + self.size - 2 * MIB,
                   "DIRTY_START": ram + 8 * MIB, "DIRTY_END": ram + 16 * MIB,
                   "PAGES_PER_TICK": 100 if self.dirty else 0, "TICKS_PER_LINE": 5}
        target = os.path.join(folder, "busy-%s" % self.target)
        subprocess.run(["clang", *options, "-O2", "-ffreestanding", "-fno-builtin", "-fno-unwind-tables",
                        "-fno-asynchronous-unwind-tables", "-fno-jump-tables", "-fno-vectorize", "-fomit-frame-pointer",
                        *("-D%s=%dUL" % item for item in defines.items()),
                        "-c", os.path.join(_GUESTS, "busy_bare.c"), "-o", target + ".o"], check=True)
        with open(target + ".o", "rb") as file:
            code = only_code(file.read())
        with open(target, "wb") as file:
            file.write(code)
        return target


def only_code(elf):
    """The .text of a 64-bit little-endian object file that needs nothing else: no data, no relocation."""
    headers, size, count, names = struct.unpack_from("<Q", elf, 40)[0], *struct.unpack_from("<HHH", elf, 58)
    sections = [struct.unpack_from("<IIQQQQIIQQ", elf, headers + i * size) for i in range(count)]
    table = sections[names][4]
    found = {}
    for name, kind, _flags, _address, offset, length, *_rest in sections:
        word = elf[table + name:elf.index(b"\0", table + name)].decode()
        if kind == 4 or word.startswith((".data", ".rodata", ".bss")) and length:
            expect(word in (".rela.eh_frame",), "the guest is not code alone: it has %s", word)
        found[word] = elf[offset:offset + length]
    return found[".text"]
