"""Hugepages for a test: enough of them, and a mount of its own."""

import atexit
import os
import subprocess
import tempfile

from .guest import MIB
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


def reserve(size):
    """Makes sure that `size` bytes of 2 MiB pages are free, raising the machine's number if it must."""
    if not os.path.isdir(_TREE):
        raise Skip("needs 2 MiB hugepages")
    wanted = size // _PAGE - (_read("free_hugepages") - _read("resv_hugepages"))
    if wanted > 0:
        before = _read("nr_hugepages")
        _write("nr_hugepages", before + wanted)
        _state["raised"] += _read("nr_hugepages") - before
    if _read("free_hugepages") - _read("resv_hugepages") < size // _PAGE:
        raise Skip("needs %d free hugepages of 2 MiB" % (size // _PAGE))


def hugetlb_folder(size):
    """A folder on hugetlbfs with `size` bytes of free pages; unmounted and given back when the rig ends."""
    reserve(size)
    if _state["folder"] is None:
        folder = tempfile.mkdtemp(prefix="migrx-huge-")
        if subprocess.run(["mount", "-t", "hugetlbfs", "-o", "pagesize=2M", "none", folder], check=False).returncode:
            os.rmdir(folder)
            raise Skip("needs to mount hugetlbfs")
        _state["folder"] = folder
    return _state["folder"]


@atexit.register
def _give_back():
    if _state["folder"] is not None:
        subprocess.run(["umount", _state["folder"]], check=False)
        os.rmdir(_state["folder"])
    if _state["raised"]:
        # Others may have reserved pages meanwhile; take back only what this rig added and nobody uses.
        _write("nr_hugepages", max(0, _read("nr_hugepages") - min(_state["raised"], _read("free_hugepages"))))
