#!/usr/bin/python3
"""Migrates real QEMU processes into migrx in every mode and compares memory byte for byte.

Needs root (network namespaces), /dev/net/tun and a built migrx; cases whose QEMU is missing are skipped.
The quick subset runs by default; --all runs every case, and words select cases by name. "7.2" and "10" in a name are
those QEMUs, "newest" is whatever this machine has that is newer.
"""

import os
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from cases import (benches, colo, discovery, faults, forward, generate, handoff, hostile, ipv6, libvirt, libvirt_forms,
                   links, memory, metrics, modes, nic_vm, one_guest, outages, pingpong, postcopy, running_guest, second_vm, serve, signals,
                   snapshots, tls)
from rig import runner
from rig.machine import qemu_program
from rig.network import remove_stale_namespaces

# Of the newest QEMU's cases the default set has these; --all runs all of them.
QUICK_NEWEST = ("multifd-4-dirty-newest", "xbzrle-newest", "handoff-multifd-7.2-to-newest",
                "handoff-multifd-newest-to-10", "handoff-qmp-newest", "switchover-ack-newest", "colo-refused-newest",
                "postcopy-multifd-preempt-newest")


# QEMU's version makes no difference to what these are about, so the default set has them with the other one of 7.2 and 10.
OTHER_VERSION_WILL_DO = (
    "block-not-at-source-7.2", "channels-more-at-source-10", "compression-zlib-told-zstd-7.2", "handoff-destination-dies-7.2",
    "handoff-file-replaced-10", "handoff-memory-not-shared-7.2", "handoff-multifd-there-2-10", "handoff-sigkill-7.2",
    "handoff-sigkill-while-loading-10", "handoff-sigterm-7.2", "handoff-tls-multifd-there-7.2", "machine-pc-i440fx-7.2-10",
    "migrate-cancel-multifd-7.2", "numa-hugepages-tmpfs-10", "old-bytes-in-file-7.2", "sigkill-worker-10", "sigterm-7.2",
    "source-killed-multifd-10", "wrong-size-10")


def every_case():
    for case in _cases():
        if "newest" in case.name.split("-"):
            case.quick = case.name in QUICK_NEWEST
        if case.name in OTHER_VERSION_WILL_DO:
            case.quick = False
        yield case


def _with(needs, cases):
    """Cases that have something of this machine to themselves when others run beside them (--jobs)."""
    for case in cases:
        case.needs = needs
        yield case


def _cases():
    # Cases that measure, count what the machine has, or look at all of its processes.
    measuring = [*benches.cases(), *pingpong.cases(), *metrics.cases()]
    looking = [*memory.cases(), *running_guest.cases(), *signals.cases()]
    return [*modes.cases(), *snapshots.cases(), *faults.cases(), *handoff.cases(), *one_guest.cases(),
            *outages.cases(), *colo.cases(), *_with(runner.MACHINE, measuring), *generate.cases(),
            *hostile.cases(), *_with("libvirt", [*libvirt.cases(), *libvirt_forms.cases()]), *links.cases(), *ipv6.cases(), *nic_vm.cases(),
            *tls.cases(), *_with(runner.MACHINE, looking), *second_vm.cases(), *serve.cases(), *discovery.cases(),
            *forward.cases(), *postcopy.cases()]


if __name__ == "__main__":
    if os.geteuid() == 0:
        remove_stale_namespaces()
    qemu_program("10")  # Asks every QEMU of this machine for its version, once: cases are forks of this process.
    runner.main(list(every_case()), __doc__.splitlines()[0])
