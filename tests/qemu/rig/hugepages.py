"""Hugepages for a test: enough of them, and a mount of its own."""

import contextlib
import os
import re
import subprocess

from .guest import MIB
from .leftovers import at_end
from .runner import Skip

_PAGE = 2 * MIB
_TREE = "/sys/kernel/mm/hugepages/hugepages-2048kB/"


def _read(name):
    with open(_TREE + name, encoding="ascii") as file:
        return int(file.read())


def _write(name, value):
    with open(_TREE + name, "w", encoding="ascii") as file:
        file.write(str(value))


_state = {"folder": None, "raised": 0}
_MOUNTS = "/tmp"


def free_bytes():
    return (_read("free_hugepages") - _read("resv_hugepages")) * _PAGE


def reserve(size):
    """Makes sure that `size` bytes of 2 MiB pages are free, raising the machine's number if it must."""
    if not os.path.isdir(_TREE):
        raise Skip("needs 2 MiB hugepages")
    wanted = -(-(size - free_bytes()) // _PAGE)
    if wanted > 0:
        before = _read("nr_hugepages")
        _write("nr_hugepages", before + wanted)
        if not _state["raised"]:
            at_end(_lower)
        _state["raised"] += _read("nr_hugepages") - before
    if free_bytes() < size:
        raise Skip("needs %d free hugepages of 2 MiB" % (size // _PAGE))


def hugetlb_folder(size):
    """A folder on hugetlbfs with `size` bytes of free pages; unmounted and given back when the rig ends."""
    reserve(size)
    if _state["folder"] is None:
        _remove_stale_mounts()
        folder = os.path.join(_MOUNTS, "migrx-huge-%d" % os.getpid())
        os.mkdir(folder, 0o700)
        at_end(os.rmdir, folder)
        if subprocess.run(["mount", "-t", "hugetlbfs", "-o", "pagesize=2M", "none", folder], check=False).returncode:
            raise Skip("needs to mount hugetlbfs")
        at_end(_unmount, folder)
        _state["folder"] = folder
    return _state["folder"]


def _unmount(folder):
    subprocess.run(["umount", "-l", folder], check=False)


def _remove_stale_mounts():
    """Of rigs that were killed. Only what is mounted: anybody may make a folder, or a link, of such a name."""
    with open("/proc/self/mounts", encoding="utf-8") as file:
        mounts = [line.split()[1] for line in file if line.split()[2] == "hugetlbfs"]
    for folder in mounts:
        match = re.fullmatch(_MOUNTS + r"/migrx-huge-(\d+)", folder)
        if match and (int(match.group(1)) == os.getpid() or not os.path.exists("/proc/" + match.group(1))):
            _unmount(folder)
            with contextlib.suppress(OSError):
                os.rmdir(folder)


def _lower():
    # Others may have reserved pages meanwhile; take back only what this rig added and nobody uses.
    _write("nr_hugepages", max(0, _read("nr_hugepages") - min(_state["raised"], _read("free_hugepages"))))
