"""`migrx generate` as the source: into migrx, and into a QEMU destination through the kernel's TCP."""

import contextlib
import os
import subprocess
import sys

from rig import generator, pki
from rig.compare import expect_same_files
from rig.guest import MIB
from rig.machine import Backend, Machine
from rig.network import RECEIVER, Network
from rig.receiver import PORT
from rig.runner import Case, expect
from rig.transfer import need

_SIZE = 48 * MIB
_GUEST = {"size": _SIZE, "rounds": 3, "dirty_percent": 20, "zero_percent": 20, "compressible_percent": 30,
          "idle": "sleep", "timeout": 10}


def _expect_sent(source):
    status = source.wait()
    expect(status == 0, "migrx generate ended with %d: %s", status, source.log())
    report = source.report()
    expect(report["outcome"] == "complete", "outcome %s: %s", report["outcome"], report["problem"])
    expect(report["guest_bytes_sent"] > _SIZE * 1.2, "the later rounds sent nothing")
    return "%d segments, %d of them again" % (
        report["segments"], sum(channel["resent_segments"] for channel in report["channels"]))


def _tls(kind):
    """Options of a generator and of a receiver."""
    if kind is None:
        return (), ()
    creds = "%s:dir=%s" % (kind, pki.folder())
    return ("--tls-creds", creds), ("--tls-creds", creds)


def _expect_tls(kind, *reports):
    for report in reports:
        expect(("tls" in report) == (kind is not None), "tls in the report: %r", report.get("tls"))
        if kind is not None:
            expect(report["tls"]["session"].startswith("TLS1.3 AES-"), "session %r", report["tls"])


def _into_migrx(mtu, compression, tls=None, ipv6=False):
    def run(folder):
        need()
        ours, theirs = _tls(tls)
        image, ram = os.path.join(folder, "image"), os.path.join(folder, "ram")
        guest = dict(_GUEST, image=image, multifd_channels=3, multifd_compression=compression)
        with generator.start_receiver(folder, "memif", mtu, "mem=%s,size=%d" % (ram, _SIZE), 3, compression,
                                      extra=("--idle", "sleep", *theirs), ipv6=ipv6) as receiver:
            expect(receiver.wait_ready(), "migrx never got ready: %s", receiver.log())
            with generator.start_generator(folder, "memif", mtu, guest, extra=ours, ipv6=ipv6) as source:
                remark = _expect_sent(source)
            expect(receiver.wait() == 0, "migrx receive failed: %s", receiver.log())
            _expect_tls(tls, source.report(), receiver.report())
        expect_same_files("mem", ram, image)
        return remark
    return run


def _into_qemu(mtu, link, compression, tls=None, ipv6=False):
    def run(folder):
        need("10")
        objects = [] if tls is None else pki.destination_arguments(tls)
        image = os.path.join(folder, "image")
        guest = dict(_GUEST, image=image, multifd_channels=2, multifd_compression=compression)
        with contextlib.ExitStack() as stack:
            network = stack.enter_context(Network(mtu, ipv6=ipv6))
            namespace = network.receiver
            if link == "veth":
                generator.make_veth(namespace, mtu, kernel_peer=True)
            destination = stack.enter_context(Machine(folder, "10", "pc", [Backend("mem", _SIZE)], None, namespace,
                                                      incoming="defer", vga=0, extra=["-S", *objects], name="destination"))
            destination.set_capabilities(multifd=True)
            destination.set_parameters(multifd_channels=2, multifd_compression=compression)
            if tls is not None:
                destination.set_parameters(tls_creds="tls0")
            destination.qmp.command("migrate-incoming", uri="tcp:%s:%d" % ("[::]" if ipv6 else "0.0.0.0", PORT))
            source = stack.enter_context(generator.start_generator(folder, link, mtu, guest, namespace, _tls(tls)[0],
                                                                    ipv6=ipv6))
            if link == "tap":
                generator.give_address(namespace, "gen0", mtu, source.alive, ipv6)
            remark = _expect_sent(source)
            _expect_tls(tls, source.report())
            destination.wait_migration()
            expect_same_files("mem", destination.backends[0].path, image)
        return remark
    return run


def _compare(_folder):
    """bench/compare_qemu.py as a whole: its numbers are not looked at, its comparisons of RAM are."""
    need("10")
    program = os.path.join(os.path.dirname(__file__), "..", "..", "..", "bench", "compare_qemu.py")
    result = subprocess.run([sys.executable, program, "--tiny"], capture_output=True, text=True, check=False)
    expect(result.returncode == 0, "compare_qemu ended with %d: %s", result.returncode, result.stderr[-2000:])
    expect(result.stdout.count("\n| ") >= 3, "no table: %s", result.stdout)


def cases():
    yield Case("generate-memif", _into_migrx(9000, "none"))
    yield Case("generate-memif-tls-x509", _into_migrx(9000, "none", "x509"))
    yield Case("generate-memif-tls-psk", _into_migrx(1500, "none", "psk"))
    yield Case("generate-tap-tls-x509-qemu-10", _into_qemu(1500, "tap", "none", "x509"))
    yield Case("generate-tap-tls-psk-qemu-10", _into_qemu(1500, "tap", "none", "psk"), quick=False)
    yield Case("generate-memif-1500-zstd", _into_migrx(1500, "zstd"), quick=False)
    yield Case("generate-tap-qemu-10", _into_qemu(1500, "tap", "none"))
    yield Case("generate-memif-ipv6", _into_migrx(1500, "none", ipv6=True))
    yield Case("generate-tap-ipv6-qemu-10", _into_qemu(1500, "tap", "none", ipv6=True))
    yield Case("generate-veth-zlib-qemu-10", _into_qemu(9000, "veth", "zlib"), quick=False)
    yield Case("compare-qemu-tiny", _compare, quick=False)
