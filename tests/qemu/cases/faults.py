"""Migrations that must fail: cleanly, with a clear reason, and with the guest still running at the source."""

import contextlib
import dataclasses
import os
import signal
import subprocess
import sys
import time

from rig.compare import expect_same_files
from rig.guest import MIB
from rig.machine import Backend, Machine
from rig.network import INTERFACE, NEAR, RECEIVER, Network
from rig.receiver import PORT, Receiver
from rig.runner import Case, expect
from rig.transfer import SLOW, Transfer, need

FREE_S = 5.0  # "within seconds": how soon a source must be free of a receiver that failed
REFUSALS = 6  # of eight channels; a QEMU 7.2 or 10 whose channels are reset at once is stuck after one in three


class Faulty:
    """A started source and receiver, and the expectations that failing cases share."""

    def __init__(self, transfer, folder, stack, ram=None, **receiver_changes):
        need(transfer.version)
        self.transfer, self.folder = transfer, folder
        self.network = stack.enter_context(Network(transfer.mtu, ipv6=transfer.ipv6))
        self.source = transfer.start_source(folder, stack, self.network)
        options, self.files = transfer.ram_files(folder, self.source)
        told = dataclasses.replace(transfer, **receiver_changes)
        self.receiver = told.start_receiver(folder, stack, self.network, options if ram is None else ram)

    def begin(self, seconds=1.0):
        """Starts a migration that cannot converge and lets it run for a while."""
        self.source.migrate(self.receiver.uri)
        deadline = time.monotonic() + 20
        while self.source.migration().get("ram", {}).get("transferred", 0) < MIB:
            expect(time.monotonic() < deadline, "the migration never got going: %s", self.source.migration())
            time.sleep(0.05)
        time.sleep(seconds)
        expect(self.source.migration()["status"] == "active", "ended too early: %s", self.source.migration())

    def expect_source_free(self, states=("failed",), within=FREE_S, again=True):
        """The source's migration is over and its guest runs: it counts on. `again`: and can migrate again."""
        begun = time.monotonic()
        self.source.wait_migration(states, timeout=within)
        taken = time.monotonic() - begun
        if again:
            self.source.wait_cleaned_up()
        expect(self.source.running(), "the source's guest is %s", self.source.qmp.command("query-status"))
        before = len(self.source.console())
        deadline = time.monotonic() + 5
        while len(self.source.console()) == before:
            expect(time.monotonic() < deadline, "the source's guest prints nothing any more")
            time.sleep(0.05)
        counts = self.source.counts()
        expect(counts[-1][2] == 0, "the source's guest found bad pages: %s", counts[-1])
        return "source free after %.2f s" % taken

    def expect_failed(self, error_class, *words, status=1):
        """migrx ended with `status` and its report's error is of that class and names those words."""
        got = self.receiver.wait(30)
        expect(got == status, "exit status %d, expected %d: %s", got, status, self.receiver.log()[-1500:])
        report = self.receiver.report()
        expect(report["outcome"] != "complete", "the report says complete")
        error = report["error"]
        expect(error, "the report has no error: %s", report)
        expect(error["class"] in error_class.split("|"), "error class %s, expected %s: %s", error["class"],
               error_class, error)
        text = " ".join(str(value) for value in error.values())
        for word in words:
            expect(word in text, "the error does not name %r: %s", word, error)
        self.expect_nothing_left()
        return report

    def expect_nothing_left(self):
        """No interface, and of the files only those that were there before. Who stays behind to tell the source
        has the interface for a few quiet seconds more."""
        deadline = time.monotonic() + 40
        while self.network.has_interface() and time.monotonic() < deadline:
            time.sleep(0.02)
        expect(not self.network.has_interface(), "migrx ended but its interface is still there")
        for path in self.files.values():
            expect(not os.path.exists(path), "migrx failed but left %s", path)


def _busy(version, **changes):
    """A migration that goes on until somebody ends it: the guest dirties faster than the bandwidth allows."""
    settings = {"version": version, "dirty_s": 1.0, "channels": 4, "parameters": {"max_bandwidth": SLOW // 2}}
    settings.update(changes)
    return Transfer(**settings)


def _case(name, body, quick=True):
    def run(folder):
        with contextlib.ExitStack() as stack:
            return body(folder, stack)
    return Case(name, run, quick, 90)


def cancelled(version, channels, **changes):
    def body(folder, stack):
        faulty = Faulty(_busy(version, channels=channels, **changes), folder, stack)
        faulty.begin()
        faulty.source.qmp.command("migrate_cancel")
        remark = faulty.expect_source_free(("cancelled",))
        faulty.expect_failed("truncated")
        return remark
    return body


def cancelled_in_setup(version, channels):
    """Cancelled before its first page. QEMU 11 waits then for the destination to close, its guest standing still."""
    def body(folder, stack):
        faulty = Faulty(_busy(version, channels=channels, receiver_extra=("--stall-timeout", "4")), folder, stack)
        faulty.source.qmp.wait_longer(60)
        faulty.source.migrate(faulty.receiver.uri)
        faulty.source.qmp.command("migrate_cancel")
        remark = faulty.expect_source_free(("cancelled", "failed"), within=40)
        with contextlib.suppress(subprocess.TimeoutExpired):
            faulty.receiver.process.wait(5)
        if faulty.receiver.alive():  # it never saw this source, and waits for one
            faulty.receiver.signal()
        faulty.expect_failed("truncated|timed-out|cancelled")
        return remark + ", " + faulty.receiver.report()["error"]["message"]
    return body


_STRANGER = """
import socket, sys, time
for hello in sys.argv[2:]:
    s = socket.socket()
    s.settimeout(10)  # a multifd channel has 4 s to be closed by its source
    s.bind((sys.argv[1], 0))
    try:
        s.connect(("%s", %d))
        s.sendall(bytes.fromhex(hello))
        print("closed" if s.recv(1) == b"" else "answered")
    except ConnectionResetError:
        print("reset")
    except (TimeoutError, ConnectionRefusedError):
        print("refused")
"""


def stranger(version, allow):
    """Another host says what a source would say, in the middle of a migration; it must not matter."""
    def body(folder, stack):
        extra = ("--allow", NEAR + "/32") if allow else ()
        faulty = Faulty(_busy(version, receiver_extra=extra), folder, stack)
        faulty.begin()
        subprocess.run(["ip", "-n", faulty.network.receiver, "addr", "add", "10.77.0.9/24", "dev", INTERFACE],
                       check=True)
        # A multifd channel's init packet and the beginning of its SYNC, main, TLS.
        hellos = ["1122334400000001" + "00" * 64, "5145564d00000003", "16030100"]
        command = ["nsenter", "--net=/run/netns/" + faulty.network.receiver, sys.executable, "-c",
                   _STRANGER % (RECEIVER, PORT), "10.77.0.9", *hellos]
        said = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout.split()
        expect(said == (["refused"] if allow else ["reset"]) * 3, "the stranger was told %s", said)
        faulty.source.set_parameters(max_bandwidth=1 << 40, downtime_limit=2000)
        faulty.source.wait_migration(timeout=60)
        expect(faulty.receiver.wait(30) == 0, "migrx did not complete: %s", faulty.receiver.log()[-2000:])
        for backend in faulty.source.backends:
            expect_same_files(backend.id, faulty.files[backend.id], backend.path)
        return ", ".join(said)
    return body


def source_killed(version, channels):
    def body(folder, stack):
        faulty = Faulty(_busy(version, channels=channels), folder, stack)
        faulty.begin()
        faulty.source.process.kill()
        faulty.expect_failed("truncated|io")
    return body


def receiver_terminated(version, number, **changes):
    def body(folder, stack):
        faulty = Faulty(_busy(version, **changes), folder, stack)
        faulty.begin()
        faulty.receiver.signal(number)
        remark = faulty.expect_source_free()
        status = faulty.receiver.wait(10)
        expect(status == 1, "exit status %d after %s", status, signal.Signals(number).name)
        expect(faulty.receiver.report()["outcome"] != "complete", "the report says complete")
        faulty.expect_nothing_left()
        return remark
    return body


def worker_killed(version, return_path=True, **changes):
    """SIGKILL of the process that holds the connections: its parent must free the source."""
    def body(folder, stack):
        faulty = Faulty(_busy(version, return_path=return_path, **changes), folder, stack)
        faulty.begin()
        workers = faulty.receiver.children()
        expect(len(workers) == 1, "migrx has the children %s, expected one worker", workers)
        os.kill(workers[0], signal.SIGKILL)
        # The interface goes with the worker and comes back with the one that resets: configure it again, as the
        # host's network manager would.
        deadline = time.monotonic() + FREE_S + 5
        while faulty.source.migration()["status"] == "active" and time.monotonic() < deadline:
            with contextlib.suppress(Exception):
                faulty.network.attach(timeout=1)
            time.sleep(0.1)
        # Whoever resets in a dead worker's place does not know which connection is main.
        remark = faulty.expect_source_free(again=False)
        # The source may be free before the new interface has an address; its other connections are told only then.
        with contextlib.suppress(Exception):
            faulty.network.attach(timeout=5)
        status = faulty.receiver.wait(30)
        expect(status == 1, "exit status %d, expected 1", status)
        faulty.expect_nothing_left()
        return remark
    return body


def parent_killed(version):
    def body(folder, stack):
        faulty = Faulty(_busy(version), folder, stack)
        faulty.begin()
        workers = faulty.receiver.children()
        faulty.receiver.process.kill()
        remark = faulty.expect_source_free(again=False)
        deadline = time.monotonic() + 5
        while any(os.path.exists("/proc/%d" % worker) for worker in workers):
            expect(time.monotonic() < deadline, "the worker outlives its parent")
            time.sleep(0.05)
        return remark
    return body


def misconfigured(version, settings, receiver, words, error_class="mismatch", ram=None):
    """Source and receiver disagree: settings of the one, changes of the other."""
    def body(folder, stack):
        transfer = _busy(version, **settings)
        faulty = Faulty(transfer, folder, stack, ram=ram(folder) if ram else None, **receiver)
        faulty.source.migrate(faulty.receiver.uri)
        report = faulty.expect_failed(error_class, *words)
        return "%s; %s" % (faulty.expect_source_free(), report["error"].get("message", ""))
    return body


def small_pages(channels):
    """Arm boards whose CPUs may have pages of 1 KiB: refused by that name, and their guest was never stopped."""
    def run(folder):
        need("newest", "aarch64")
        with contextlib.ExitStack() as stack:
            network = stack.enter_context(Network())
            source = stack.enter_context(Machine(
                folder, "newest", "vexpress-a9,audiodev=none", [Backend("mem", 32 * MIB)], None, network.source,
                vga=0, target="aarch64", extra=("-audiodev", "none,id=none")))
            receiver = stack.enter_context(Receiver(
                folder, network, {"mem": "%s,size=%d" % (os.path.join(folder, "received"), 32 * MIB)}, channels))
            expect(receiver.wait_ready(), "migrx never got ready: %s", receiver.log()[-2000:])
            source.set_capabilities(return_path=True, multifd=channels > 0)
            if channels:
                source.set_parameters(multifd_channels=channels)
            source.migrate(receiver.uri)
            expect(receiver.wait(60) == 1, "migrx ended with %d", receiver.process.returncode)
            source.wait_migration(states=("failed",), timeout=30)
            message = receiver.report()["error"]["message"]
            expect("1 KiB" in message or "4 KiB" in message, "migrx does not name the pages: %s", message)
            expect(not source.event_times("STOP") and source.running(), "the source stopped its guest")
            return message
    return run


def postcopy(version):
    def body(folder, stack):
        transfer = _busy(version, channels=0, capabilities={"postcopy_ram": True})
        faulty = Faulty(transfer, folder, stack)
        faulty.source.migrate(faulty.receiver.uri)
        faulty.expect_failed("unsupported", "postcopy-ram")
        return faulty.expect_source_free()
    return body


def refused_often(version):
    """Half of a source's channels are refused, again and again: its QEMU must be able to migrate each time."""
    def body(folder, stack):
        need(version)
        transfer = _busy(version, channels=8)
        network = stack.enter_context(Network(transfer.mtu))
        source = transfer.start_source(folder, stack, network)
        for number in range(REFUSALS):
            path = os.path.join(folder, "received%d.mem" % number)
            receiver = stack.enter_context(Receiver(folder, network, {"mem": "%s,size=%d" % (path, transfer.size)},
                                                    transfer.channels // 2))
            expect(receiver.wait_ready(), "not ready: %s", receiver.log()[-1000:])
            source.migrate(receiver.uri)
            source.wait_migration(("failed",), timeout=FREE_S)
            source.wait_cleaned_up()
            expect(source.running(), "the source's guest is %s", source.qmp.command("query-status"))
            expect(receiver.wait(15) == 1, "migrx ended with %s", receiver.process.returncode)
        return ""
    return body


def too_few_channels(version):
    """The source opens 2 channels, the receiver waits for 4."""
    def body(folder, stack):
        faulty = Faulty(_busy(version, channels=2), folder, stack, channels=4,
                        receiver_extra=("--channels-timeout", "2"))
        faulty.source.migrate(faulty.receiver.uri)
        faulty.expect_failed("mismatch", "multifd-channels")
        return faulty.expect_source_free()
    return body


_UUID, _OTHER_UUID = "6f1c9a52-0c7e-4f4b-9d0e-3a5b7c8d9e0f", "6f1c9a52-0c7e-4f4b-9d0e-3a5b7c8d9e1f"  # a bit apart


def _uuid_at_source(version, uuid, **changes):
    """A migration over four channels that is told --uuid; `uuid` is the source's, None when it has none."""
    return _busy(version, receiver_extra=("--uuid", _UUID), extra=lambda folder: ("-uuid", uuid) if uuid else (),
                 **changes)


def uuid_matches(version):
    return _uuid_at_source(version, _UUID, parameters={}).run


def uuid_differs(version, uuid):
    def body(folder, stack):
        faulty = Faulty(_uuid_at_source(version, uuid), folder, stack)
        faulty.source.migrate(faulty.receiver.uri)
        # A stranger: refused, and the receiver waits for the right guest. Its main goes first, when no channel of the
        # right guest has come in two seconds; whose channels alone are reset may end by an assertion (QEMU 7.2).
        remark = faulty.expect_source_free(within=15)
        expect(faulty.receiver.alive(), "migrx ended: %s", faulty.receiver.log()[-1500:])
        faulty.receiver.signal(signal.SIGTERM)
        report = faulty.expect_failed("cancelled")
        expect(any("refused" in warning for warning in report["warnings"]), "no warning: %s", report["warnings"])
        return remark
    return body


def cases():
    for version in ("7.2", "10", "newest"):
        newest = version == "10"
        yield _case("migrate-cancel-multifd-%s" % version, cancelled(version, 4))
        yield _case("migrate-cancel-precopy-%s" % version, cancelled(version, 0), False)
        yield _case("cancelled-in-setup-multifd-%s" % version, cancelled_in_setup(version, 2), version == "newest")
        yield _case("cancelled-in-setup-precopy-%s" % version, cancelled_in_setup(version, 0), version == "newest")
        yield _case("source-killed-multifd-%s" % version, source_killed(version, 4))
        yield _case("source-killed-precopy-%s" % version, source_killed(version, 0), False)
        yield _case("sigterm-%s" % version, receiver_terminated(version, signal.SIGTERM))
        yield _case("sigint-%s" % version, receiver_terminated(version, signal.SIGINT), False)
        yield _case("sigkill-worker-%s" % version, worker_killed(version))
        yield _case("sigkill-worker-no-return-path-%s" % version, worker_killed(version, False), False)
        yield _case("sigkill-parent-%s" % version, parent_killed(version), newest)
        yield _case("channels-fewer-at-source-%s" % version, too_few_channels(version), newest)
        yield _case("channels-more-at-source-%s" % version,
                    misconfigured(version, {"channels": 4}, {"channels": 2}, ["multifd-channels"],
                                  # The source may give up before its surplus has spoken.
                                  "mismatch|truncated"))
        yield _case("channels-refused-often-%s" % version, refused_often(version), version != "newest")
        yield _case("multifd-unexpected-%s" % version,
                    misconfigured(version, {"channels": 2}, {"channels": 0}, ["--multifd-channels"],
                                  "mismatch|truncated"), newest)
        yield _case("compression-zlib-told-zstd-%s" % version,
                    misconfigured(version, {"channels": 2, "compression": "zlib"}, {"compression": "zstd"},
                                  ["multifd-compression", "zlib", "zstd"]))
        yield _case("compression-none-told-zlib-%s" % version,
                    misconfigured(version, {"channels": 2}, {"compression": "zlib"},
                                  ["multifd-compression"]), False)
        yield _case("multifd-off-at-source-%s" % version,
                    misconfigured(version, {"channels": 0}, {"channels": 2}, ["does not use multifd"]), newest)
        yield _case("block-not-at-source-%s" % version,
                    misconfigured(version, {}, {}, ["nosuch"],
                                  ram=lambda folder: {"nosuch": os.path.join(folder, "received.mem,size=32M")}))
        yield _case("wrong-size-%s" % version,
                    misconfigured(version, {}, {}, ["mem"],
                                  ram=lambda folder: {"mem": os.path.join(folder, "received.mem,size=24M")}))
        yield _case("stranger-%s" % version, stranger(version, False), newest)
        yield _case("stranger-not-allowed-%s" % version, stranger(version, True), newest)
        yield _case("postcopy-refused-%s" % version, postcopy(version))
        yield Case("uuid-matches-%s" % version, uuid_matches(version), newest, 90)
        yield _case("uuid-differs-%s" % version, uuid_differs(version, _OTHER_UUID), not newest)
        yield _case("uuid-missing-at-source-%s" % version, uuid_differs(version, None), False)
    yield _case("compress-not-told-7.2",
                misconfigured("7.2", {"channels": 0, "capabilities": {"compress": True}}, {}, ["compress"],
                              "mismatch|bad-stream"))
    for channels in (0, 2):
        yield Case("pages-of-1k-%s-newest" % ("multifd" if channels else "precopy"), small_pages(channels), False)
