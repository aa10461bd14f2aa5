#!/usr/bin/python3
"""Makes captures of real migrations for the developers of decoders.

usage: capture.py FOLDER [NAME ...]

Each capture is a folder NAME with main.bin, channelK.bin, the source's guest RAM (mem.bin), one file per small
block, and meta.json. Every capture is decoded by the rig's own decoder and compared before it is kept.
"""

import json
import os
import shutil
import sys
import tempfile
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from rig.guest import MIB, BusyGuest
from rig.machine import Backend, Machine, qemu_program
from rig.reference_receiver import ReferenceReceiver
from rig.stream import Decoder

SIZE = 24 * MIB

_ALL = ("7.2", "10", "newest")
_MODES = {
    # name: (capabilities, parameters, dirtying?, versions)
    "precopy": ({}, {}, False, _ALL),
    "precopy-rp-dirty": ({"return_path": True}, {}, True, _ALL),
    "multifd-none": ({"multifd": True}, {"multifd_channels": 2}, False, _ALL),
    "multifd-none-dirty": ({"multifd": True, "return_path": True}, {"multifd_channels": 4}, True, _ALL),
    "multifd-zlib-dirty": ({"multifd": True}, {"multifd_channels": 2, "multifd_compression": "zlib"}, True,
                           _ALL),
    "multifd-zstd-dirty": ({"multifd": True}, {"multifd_channels": 2, "multifd_compression": "zstd"}, True,
                           _ALL),
    "multifd-zstd20": ({"multifd": True}, {"multifd_channels": 1, "multifd_compression": "zstd",
                                           "multifd_zstd_level": 20}, False, _ALL),
    "multifd-zeropage-legacy": ({"multifd": True}, {"multifd_channels": 2, "zero_page_detection": "legacy"}, True,
                                ("10", "newest")),
    "multifd-zeropage-none": ({"multifd": True}, {"multifd_channels": 2, "zero_page_detection": "none"}, False,
                              ("10", "newest")),
    "xbzrle": ({"xbzrle": True}, {"xbzrle_cache_size": 64 * MIB}, True, _ALL),
    "compress": ({"compress": True}, {"compress_threads": 2, "compress_wait_thread": True}, False, ("7.2",)),
    "compress-nowait-dirty": ({"compress": True}, {"compress_threads": 2, "compress_wait_thread": False}, True,
                              ("7.2",)),
}


def captures():
    for mode, (capabilities, parameters, dirtying, versions) in _MODES.items():
        for version in versions:
            yield "%s-%s" % (mode, version), version, "pc", capabilities, parameters, dirtying
    # Machine types decide where barriers lie: q35, and an old type on the new QEMU (sync per section).
    yield ("multifd-none-dirty-q35-7.2-on-10", "10", "pc-q35-7.2", {"multifd": True}, {"multifd_channels": 2}, True)
    yield ("multifd-none-dirty-q35-10", "10", "q35", {"multifd": True}, {"multifd_channels": 2}, True)
    yield ("multifd-none-dirty-q35-8.0-on-newest", "newest", "pc-q35-8.0", {"multifd": True}, {"multifd_channels": 2}, True)


def capture(folder, name, version, machine, capabilities, parameters, dirtying):
    """Makes one capture in `folder`/`name`; returns a line about it."""
    scratch = tempfile.mkdtemp(prefix="migrx-capture-", dir="/dev/shm")
    target = os.path.join(folder, name)
    shutil.rmtree(target, ignore_errors=True)
    os.makedirs(target)
    guest = BusyGuest(fill_start=2 * MIB, fill_end=SIZE - 2 * MIB, dirty_start=8 * MIB,
                      dirty_end=12 * MIB if dirtying else 0, pages_per_tick=40 if dirtying else 0)
    channels = parameters.get("multifd_channels", 0)
    try:
        with Machine(scratch, version, machine, [Backend("mem", SIZE)], guest) as source:
            source.wait_console(b"filled")
            source.set_capabilities(**capabilities)
            slow = dict(max_bandwidth=12 * MIB, downtime_limit=1) if dirtying else dict(max_bandwidth=1 << 40)
            source.set_parameters(**parameters, **slow)
            receiver = ReferenceReceiver(os.path.join(scratch, "in"), target, channels)
            source.migrate(receiver.uri)
            if dirtying:  # A few rounds, then let it converge.
                time.sleep(3)
                source.set_parameters(max_bandwidth=1 << 40, downtime_limit=2000)
            source.wait_migration()
            receiver.wait()
            receiver.close()
            statistics = source.migration()
            shutil.copyfile(source.backends[0].path, os.path.join(target, "mem.bin"))
            small = os.path.join(scratch, "small")
            source.capture_small_blocks(small)
            with open(small, "rb") as file:
                oracle = Decoder(file.read())
        with open(os.path.join(target, "main.bin"), "rb") as file:
            main = file.read()
        data = []
        for identifier in sorted(receiver.channels):
            with open(receiver.channels[identifier], "rb") as file:
                data.append(file.read())
        decoded = Decoder(main, data)
        with open(os.path.join(target, "mem.bin"), "rb") as file:
            oracle.blocks["mem"] = file.read()
        wrong = {}
        for block, content in decoded.blocks.items():
            pages = [at for at in range(0, len(content), 4096)
                     if content[at:at + 4096] != oracle.blocks[block][at:at + 4096]]
            if pages:
                wrong[block] = pages[:8] + ["%d in all" % len(pages)]
            if block != "mem":
                with open(os.path.join(target, "block." + block.replace("/", "_")), "wb") as file:
                    file.write(oracle.blocks[block])
        meta = {"qemu": version, "machine": decoded.machine, "capabilities": capabilities, "parameters": parameters,
                "blocks": {block: len(content) for block, content in decoded.blocks.items()},
                "counters": decoded.counters, "ram_sections": decoded.rounds, "tail_offset": decoded.tail_offset,
                "channels": {channel.id: {"packets": channel.packets, "syncs": channel.syncs}
                             for channel in decoded.channels},
                "source_ram": statistics["ram"], "wrong_pages": wrong}
        with open(os.path.join(target, "meta.json"), "w", encoding="utf-8") as file:
            json.dump(meta, file, indent=1)
        return "%-36s %s %s" % (name, {k: v for k, v in decoded.counters.items() if v},
                                "WRONG %r" % wrong if wrong else "ok")
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def main(arguments):
    if not arguments:
        sys.exit(__doc__.strip())
    failed = 0
    for name, version, *rest in captures():
        if len(arguments) > 1 and not any(wanted in name for wanted in arguments[1:]):
            continue
        if qemu_program(version) is None:
            print("%-36s no QEMU %s here" % (name, version))
            continue
        line = capture(arguments[0], name, version, *rest)
        failed += "WRONG" in line
        print(line, flush=True)
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main(sys.argv[1:])
