"""A Debian kernel with an initramfs made here: busybox, the virtio modules, a memory checking program."""

import dataclasses
import gzip
import mmap
import os
import struct
import subprocess

from .cpio import newc
from .runner import Skip

CACHE = os.path.join(os.environ.get("MIGRX_CACHE", "/var/cache/migrx"), "linux")
_GUESTS = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "guests")
# In the order of their dependencies; the unpacked package has no modules.dep.
_MODULES = ("drivers/virtio/virtio", "drivers/virtio/virtio_ring", "drivers/virtio/virtio_pci_legacy_dev",
            "drivers/virtio/virtio_pci_modern_dev", "drivers/virtio/virtio_pci", "drivers/block/virtio_blk",
            "net/core/failover", "drivers/net/net_failover", "drivers/net/virtio_net")

_INIT = """#!/bin/busybox sh
/bin/busybox --install -s /bin
mount -t proc none /proc
mount -t sysfs none /sys
mount -t devtmpfs none /dev
for module in {modules}; do
  insmod /modules/$module.ko || echo "no module $module"
done
if [ -b /dev/vda ]; then
  while true; do
    head -c 65536 /dev/urandom > /written
    dd if=/written of=/dev/vda bs=65536 conv=fsync 2>/dev/null
    blockdev --flushbufs /dev/vda
    dd if=/dev/vda of=/read bs=65536 count=1 2>/dev/null
    cmp -s /written /read || echo "disk bad"
    sleep 0.3
  done &
fi
if ifconfig eth0 10.0.2.15 2>/dev/null; then
  while true; do
    ping -c 1 -W 3 10.0.2.2 >/dev/null || ping -c 1 -W 3 10.0.2.2 >/dev/null || echo "net bad"
    sleep 0.3
  done &
fi
echo started
exec /memcheck {rewritten} {kept} {pause_ms}
"""


def _read(path):
    with open(path, "rb") as file:
        return file.read()


def virtio_devices(folder):
    """Two processors, a disk and a network card, so that device state is more than a serial port's."""
    disk = disk_path(folder)
    if not os.path.exists(disk):
        with open(disk, "wb") as file:
            file.truncate(16 << 20)
    return ["-cpu", "max", "-smp", "2", "-drive", "file=%s,format=raw,if=none,id=disk" % disk,
            "-device", "virtio-blk-pci,drive=disk", "-netdev", "user,id=net",
            "-device", "virtio-net-pci,netdev=net,romfile="]


def disk_path(folder):
    return os.path.join(folder, "disk")


_PAGE = 4096


def _checked_page(page, turn):
    """What memcheck.c writes into a page in pass `turn`; the kept part is pass 0."""
    words = []
    for word in range(_PAGE // 8):
        changes = page % 2 == 0 or word % 32 == 0
        x = ((page * (_PAGE // 8) + word) * 0x9e3779b97f4a7c15 + turn * changes * 0xbf58476d1ce4e5b9) & (1 << 64) - 1
        words.append(x ^ x >> 29)
    return struct.pack("<%dQ" % len(words), *words)


def flip_a_byte(path, page, turns):
    """Changes one bit of memory that memcheck.c has written in one of the passes `turns`; False: it is not there.

    `path`: guest RAM; the guest must be stopped.
    """
    with open(path, "r+b") as file, mmap.mmap(file.fileno(), 0) as memory:
        for turn in turns:
            at = memory.find(_checked_page(page, turn))
            if at >= 0:
                memory[at + 1234] ^= 0x10
                return True
    return False


@dataclasses.dataclass
class LinuxGuest:
    """Boots to memcheck.c, pass after pass, `pause_ms` apart. With virtio_devices() it also writes to its disk and
    reads back what it wrote, and asks its network for an answer, over and over; it says "disk bad" and "net bad".
    """

    rewritten: int = 64  # MiB
    kept: int = 32  # MiB
    pause_ms: int = 50

    def arguments(self, folder):
        """QEMU's options for this guest; skips the test when there is no kernel here."""
        try:
            release = _read(os.path.join(CACHE, "version")).decode().strip()
        except OSError:
            raise Skip("needs the Linux guest's kernel: scripts/install --linux") from None
        program = os.path.join(folder, "memcheck")
        subprocess.run(["gcc", "-O2", "-static", "-o", program, os.path.join(_GUESTS, "memcheck.c")], check=True)
        modules = os.path.join(CACHE, "lib", "modules", release, "kernel")
        init = _INIT.format(modules=" ".join(os.path.basename(name) for name in _MODULES), rewritten=self.rewritten,
                            kept=self.kept, pause_ms=self.pause_ms)
        entries = [("dev", None), ("proc", None), ("sys", None), ("bin", None), ("modules", None),
                   ("bin/busybox", _read(os.path.join(CACHE, "bin", "busybox"))),
                   ("memcheck", _read(program)), ("init", init.encode())]
        entries += [("modules/%s.ko" % os.path.basename(name), _read(os.path.join(modules, name + ".ko")))
                    for name in _MODULES]
        initramfs = os.path.join(folder, "initramfs.gz")
        with gzip.open(initramfs, "wb", compresslevel=1) as file:
            file.write(newc(entries))
        return ["-kernel", os.path.join(CACHE, "boot", "vmlinuz-" + release), "-initrd", initramfs,
                "-append", "console=ttyS0 quiet panic=-1 nokaslr"]
