"""Every transport mode that a QEMU source has, into files that must then equal the source's memory."""

import itertools
import os
import subprocess

from rig.guest import MIB, BareGuest
from rig.hugepages import hugetlb_folder
from rig.linux_guest import LinuxGuest, virtio_devices
from rig.machine import Backend
from rig.runner import Case, expect
from rig.transfer import Transfer, counter

VERSIONS = ("7.2", "10", "newest")


def _case(name, transfer, quick=True, seconds=120):
    return Case(name, transfer.run, quick, seconds)


def _at_least_one(name):
    def check(report, _transfer):
        count = counter(report, name)
        expect(count > 0, "no %s: the mode was not exercised", name)
        return "%s %d" % (name, count)
    return check


def precopy():
    for version in VERSIONS:
        yield _case("precopy-%s" % version, Transfer(version, return_path=False))
        yield _case("precopy-return-path-%s" % version, Transfer(version), quick=False)
        yield _case("precopy-dirty-%s" % version, Transfer(version, dirty_s=2.0))
        yield _case("precopy-auto-converge-%s" % version,
                    Transfer(version, dirty_s=2.0, capabilities={"auto_converge": True},
                             parameters={"throttle_trigger_threshold": 10}), quick=False)
        yield _case("precopy-mtu1500-%s" % version, Transfer(version, mtu=1500), quick=version == "10")


def multifd():
    quick = {("7.2", 4, "sparse"), ("10", 1, "random"), ("10", 16, "random"), ("10", 2, "sparse"),
             ("7.2", 8, "random")}
    for version in VERSIONS:
        for channels in (1, 2, 4, 8, 16):
            for fill in ("random", "sparse"):
                yield _case("multifd-%d-%s-%s" % (channels, fill, version),
                            Transfer(version, channels=channels, fill=fill, size=128 * MIB),
                            quick=(version, channels, fill) in quick)
        yield _case("multifd-4-dirty-%s" % version, Transfer(version, channels=4, dirty_s=2.0))
        yield _case("multifd-4-no-return-path-%s" % version,
                    Transfer(version, channels=4, return_path=False), quick=version == "10")
    # Two poll cores with a queue each and two workers, on two threads: connections are spread, frames that come by the
    # wrong queue are forwarded, and the barrier is met across threads.
    yield _case("multifd-8-two-queues-10",
                Transfer("10", channels=8, dirty_s=2.0,
                         receiver_extra=("--poll-cores", "0,1", "--loader-cores", "0,1", "--idle", "yield")))
    yield _case("multifd-4-second-port-10", Transfer("10", channels=4, dirty_s=1.5, two_ports=True))
    yield _case("compress-two-workers-7.2",
                Transfer("7.2", dirty_s=1.5, capabilities={"compress": True}, receiver_capabilities=("compress",),
                         parameters={"compress_threads": 4, "compress_wait_thread": True},
                         receiver_extra=("--poll-cores", "0", "--loader-cores", "0,1"),
                         check=_at_least_one("compressed_pages")))


def compressed_multifd():
    levels = {"zlib": (0, 1, 6, 9), "zstd": (0, 1, 9, 20)}
    for version in VERSIONS:
        for method, values in levels.items():
            for level in values:
                yield _case("multifd-%s%d-%s" % (method, level, version),
                            Transfer(version, channels=2, compression=method,
                                     parameters={"multifd_%s_level" % method: level}), quick=False)
            yield _case("multifd-%s-dirty-%s" % (method, version),
                        Transfer(version, channels=4, compression=method, dirty_s=2.0))


def page_encodings():
    for version in VERSIONS:
        yield _case("xbzrle-%s" % version,
                    Transfer(version, dirty_s=3.0, capabilities={"xbzrle": True},
                             parameters={"xbzrle_cache_size": 64 * MIB}, receiver_capabilities=("xbzrle",),
                             check=_at_least_one("xbzrle_pages")))
    for threads in (1, 2, 8):
        yield _case("compress-%d-7.2" % threads,
                    Transfer("7.2", capabilities={"compress": True}, receiver_capabilities=("compress",),
                             parameters={"compress_threads": threads, "compress_wait_thread": True},
                             check=_at_least_one("compressed_pages")), quick=threads == 2)
    yield _case("compress-nowait-dirty-7.2",
                Transfer("7.2", dirty_s=2.0, capabilities={"compress": True}, receiver_capabilities=("compress",),
                         parameters={"compress_threads": 4, "compress_wait_thread": False, "compress_level": 9},
                         check=_at_least_one("compressed_pages")))


def zero_pages():
    for version, method in itertools.product(("10", "newest"), ("legacy", "multifd", "none")):
        yield _case("zero-page-detection-%s-%s" % (method, version),
                    Transfer(version, channels=4, dirty_s=1.5, fill="sparse",
                             parameters={"zero_page_detection": method}))


def switchover_ack():
    """Without a destination QEMU it is migrx that must know how many acknowledgements a source waits for."""
    for name, version, machine, extra in (("10", "10", "pc", ()), ("newest", "newest", "pc", ()),
                                          ("pc-i440fx-10.0-newest", "newest", "pc-i440fx-10.0", ()),
                                          ("microvm-newest", "newest", "microvm", ("--switchover-ack-legacy", "off"))):
        yield _case("switchover-ack-" + name,
                    Transfer(version, machine, channels=2, dirty_s=2.0, capabilities={"switchover_ack": True},
                             receiver_capabilities=("switchover-ack",), receiver_extra=extra), name == "10")


def machine_types():
    types = (("7.2", "pc-i440fx-7.2", True), ("7.2", "pc-q35-7.2", True), ("7.2", "pc-i440fx-4.0", False),
             ("10", "pc-i440fx-7.2", True), ("10", "pc-q35-8.0", True), ("10", "pc-q35-8.1", True),
             ("10", "pc-i440fx-8.2", False), ("10", "pc-q35-9.1", False), ("10", "pc-q35-10.0", True), ("newest", "pc-i440fx-7.2", False), ("newest", "pc-q35-8.0", False),
             ("newest", "pc-q35-9.1", False), ("newest", "pc-q35-10.0", False), ("newest", "pc-i440fx-11.0", False))
    for version, machine, quick in types:
        yield _case("machine-%s-%s" % (machine, version),
                    Transfer(version, machine, channels=4, dirty_s=1.5), quick)
        yield _case("machine-%s-precopy-%s" % (machine, version), Transfer(version, machine, dirty_s=1.5), False)
    # Block names are paths of QEMU's object tree up to 3.1; streams have no configuration or footers up to 2.3.
    yield _case("machine-pc-i440fx-3.1-7.2", Transfer("7.2", "pc-i440fx-3.1", channels=2, prefix="/objects/"))
    yield _case("machine-pc-i440fx-2.3-7.2", Transfer("7.2", "pc-i440fx-2.3", prefix="/objects/"))


def targets():
    """Little-endian machines with pages of 4 KiB are all alike to migrx."""
    for target in ("aarch64", "riscv64"):
        guest = BareGuest(target, 64 * MIB)
        settings = {"version": "newest", "machine": guest.machine(), "target": target, "guest": guest, "dirty_s": 2.0,
                    "small_blocks": False}
        yield _case("%s-precopy-dirty-newest" % target, Transfer(**settings))
        yield _case("%s-multifd-4-dirty-newest" % target, Transfer(channels=4, **settings))
        yield _case("%s-xbzrle-newest" % target, Transfer(capabilities={"xbzrle": True}, receiver_capabilities=("xbzrle",),
                                                         parameters={"xbzrle_cache_size": 64 * MIB}, **settings))


def _two_nodes(folder):
    return [Backend("near", 48 * MIB, path=os.path.join(folder, "near.source")),
            Backend("far", 32 * MIB, path=os.path.join(folder, "far.source"))]


def _two_destinations(folder):
    return {"near": "%s,size=%d" % (os.path.join(hugetlb_folder(48 * MIB), "near"), 48 * MIB),
            "far": "%s,size=%d" % (os.path.join(folder, "far"), 32 * MIB)}


def _old_bytes(folder):
    path = os.path.join(folder, "old")
    with open(path, "wb") as file:
        for _ in range(Transfer.size // MIB):
            file.write(b"\xa5" * MIB)
    return {"mem": path}


def _is_cleared(files):
    """Pages that a balloon gave back are never sent: nothing of the file's past may be left under them."""
    with open(files["mem"], "rb") as file:
        while data := file.read(MIB):
            expect(not any(data), "old bytes are left in the file when migrx says it is ready")


def memory():
    for version in VERSIONS:
        yield _case("numa-hugepages-tmpfs-%s" % version,
                    Transfer(version, channels=4, dirty_s=1.5, backends=_two_nodes, ram=_two_destinations))
        yield _case("numa-hugepages-tmpfs-precopy-%s" % version,
                    Transfer(version, backends=_two_nodes, ram=_two_destinations), quick=False)
        yield _case("old-bytes-in-file-%s" % version,
                    Transfer(version, channels=2, fill="sparse", ram=_old_bytes, ready=_is_cleared))


def impaired():
    faults = {"loss1": {"loss": 0.01}, "loss5": {"loss": 0.05}, "reorder": {"reorder": 0.05},
              "duplicate": {"duplicate": 0.05}, "corrupt": {"corrupt": 0.01},
              "everything": {"loss": 0.01, "reorder": 0.02, "duplicate": 0.02, "corrupt": 0.005}}
    available = subprocess.run(["cat", "/proc/sys/net/ipv4/tcp_available_congestion_control"], capture_output=True,
                               text=True, check=True).stdout.split()
    for congestion in ("cubic", "bbr"):
        if congestion not in available:
            continue
        for name, fault in faults.items():
            quick = (name == "everything") or (congestion, name) in (("cubic", "loss1"), ("bbr", "loss5"))
            yield _case("impaired-%s-%s-10" % (name, congestion),
                        Transfer("10", channels=4, congestion=congestion, impair=dict(fault, seed=7), mtu=1500,
                                 small_blocks=False), quick)
    yield _case("impaired-everything-precopy-10",
                Transfer("10", dirty_s=1.5, impair=dict(faults["everything"], seed=11), mtu=1500), quick=False)
    yield _case("impaired-everything-zlib-10",
                Transfer("10", channels=2, compression="zlib", impair=dict(faults["everything"], seed=13)),
                quick=False)


def _two_large_nodes(folder):
    # The second length is no multiple of 256 KiB for the source's sake. Where a block's dirty bits are synced in whole
    # words, QEMU (cpu_physical_memory_sync_dirty_bitmap, as read up to 10.0) has TCG watch the pages again by their
    # offset in the block, where tlb_reset_dirty_range_all() takes a ram_addr_t: right for the first block alone. What
    # the guest goes on writing in a later one is not sent again (seen with 10.0.2 and with another receiver, too).
    # Another length takes the path page by page, which adds the block's offset.
    return [Backend("near", 192 * MIB, path=os.path.join(folder, "near.source")),
            Backend("far", 192 * MIB + (64 << 10), path=os.path.join(folder, "far.source"))]


def linux():
    """A real kernel with virtio devices. 7.2 is left out: under TCG it loses dirty pages of such a guest."""
    settings = {"version": "10", "machine": "q35", "size": 384 * MIB, "dirty_s": 4.0, "guest": LinuxGuest(),
                "extra": virtio_devices}
    yield _case("linux-multifd-10", Transfer(channels=4, **settings), False, 240)
    yield _case("linux-numa-zstd-10", Transfer(channels=4, compression="zstd", backends=_two_large_nodes, **settings),
                False, 240)
    # Differences come from the third time on that a page is sent: the first round alone takes ten seconds.
    yield _case("linux-xbzrle-10", Transfer(capabilities={"xbzrle": True}, receiver_capabilities=("xbzrle",),
                                            check=_at_least_one("xbzrle_pages"), **{**settings, "dirty_s": 20.0}),
                False, 240)


def cases():
    for group in (precopy, multifd, compressed_multifd, page_encodings, zero_pages, switchover_ack, machine_types, targets, memory, impaired,
                  linux):
        yield from group()
