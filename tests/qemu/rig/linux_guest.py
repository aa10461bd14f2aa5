"""A Debian kernel with an initramfs made here: busybox, the virtio modules, a memory checking program."""

import dataclasses
import gzip
import os
import subprocess

from .runner import Skip

_CACHE = os.path.join(os.environ.get("MIGRX_CACHE", "/var/cache/migrx"), "linux")
_GUESTS = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "guests")
# In the order of their dependencies; the unpacked package has no modules.dep.
_MODULES = ("drivers/virtio/virtio", "drivers/virtio/virtio_ring", "drivers/virtio/virtio_pci_legacy_dev",
            "drivers/virtio/virtio_pci_modern_dev", "drivers/virtio/virtio_pci", "drivers/block/virtio_blk",
            "net/core/failover", "drivers/net/net_failover", "drivers/net/virtio_net")

_INIT = """#!/bin/busybox sh
/bin/busybox mount -t proc none /proc
/bin/busybox mount -t sysfs none /sys
for module in {modules}; do
  /bin/busybox insmod /modules/$module.ko || echo "no module $module"
done
echo started
exec /memcheck {mebibytes} {pause_ms}
"""


def _newc(entries):
    """A cpio archive ("newc", Linux Documentation/driver-api/early-userspace/buffer-format.rst)."""
    out, directory, regular = bytearray(), 0o040755, 0o100755
    for number, (name, content) in enumerate([*entries, ("TRAILER!!!", b"")], 1):
        mode = directory if content is None else regular
        data, encoded = content or b"", name.encode() + b"\0"
        fields = (number, mode, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(encoded), 0)
        out += b"070701" + b"".join(b"%08X" % field for field in fields) + encoded
        out += bytes(-len(out) % 4)
        out += data
        out += bytes(-len(out) % 4)
    return bytes(out)


def _read(path):
    with open(path, "rb") as file:
        return file.read()


@dataclasses.dataclass
class LinuxGuest:
    """Boots to a program that checks `mebibytes` of its memory, pass after pass, `pause_ms` apart."""

    mebibytes: int = 64
    pause_ms: int = 50

    def arguments(self, folder):
        """QEMU's options for this guest; skips the test when there is no kernel here."""
        try:
            release = _read(os.path.join(_CACHE, "version")).decode().strip()
        except OSError:
            raise Skip("needs the Linux guest's kernel: scripts/install --linux") from None
        program = os.path.join(folder, "memcheck")
        subprocess.run(["gcc", "-O2", "-static", "-o", program, os.path.join(_GUESTS, "memcheck.c")], check=True)
        modules = os.path.join(_CACHE, "lib", "modules", release, "kernel")
        init = _INIT.format(modules=" ".join(os.path.basename(name) for name in _MODULES), mebibytes=self.mebibytes,
                            pause_ms=self.pause_ms)
        entries = [("dev", None), ("proc", None), ("sys", None), ("bin", None), ("modules", None),
                   ("bin/busybox", _read(os.path.join(_CACHE, "bin", "busybox"))),
                   ("memcheck", _read(program)), ("init", init.encode())]
        entries += [("modules/%s.ko" % os.path.basename(name), _read(os.path.join(modules, name + ".ko")))
                    for name in _MODULES]
        initramfs = os.path.join(folder, "initramfs.gz")
        with gzip.open(initramfs, "wb", compresslevel=1) as file:
            file.write(_newc(entries))
        return ["-kernel", os.path.join(_CACHE, "boot", "vmlinuz-" + release), "-initrd", initramfs,
                "-append", "console=ttyS0 quiet panic=-1 nokaslr"]
