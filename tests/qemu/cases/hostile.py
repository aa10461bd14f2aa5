"""Migrations beside a neighbour who forges segments: they complete, memory is equal, and what was refused is counted."""

import contextlib
import os
import select
import subprocess
import sys
import time

from rig.compare import expect_same_files
from rig.guest import MIB
from rig.machine import die_with_parent, in_namespace
from rig.network import INTERFACE, NEAR, NEAR_6, RECEIVER, RECEIVER_6, Network
from rig.receiver import PORT
from rig.runner import Case, expect
from rig.transfer import FAST, SLOW, Transfer, need

_PROGRAM = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "rig", "hostile.py")

# SYNs; some times what the table of half-open connections holds.
FLOOD = 2000

# net_tap's one queue has a descriptor for each buffer of a frame, which is one here, and holds a buffer more.
_IN_RX_RING = 2

# Counters of the report that must have moved, and how they got there.
_REFUSED = {
    "tcp.syn_cookie_sent": "a SYN flood, once the table of half-open connections was full",
    "tcp.syn_refused_peer": "SYNs from outside --allow",
    "tcp.rst_ignored": "RSTs outside the window",
    "tcp.rst_challenged": "RSTs in the window, but not with the next number",
    "tcp.syn_challenged": "SYNs on live connections",
    "tcp.ack_unacceptable": "ACKs of what was never sent",
    "tcp.challenge_acks_sent": "the answers to those",
    "tcp.challenge_acks_limited": "answers over their rate limit",
    "tcp.outside_window": "data and ACKs outside the window",
    "tcp.duplicate": "other bytes in the place of old ones",
    "tcp.timestamp_missing": "data without the agreed timestamp",
    "tcp.paws_rejected": "data with an old timestamp",
    "tcp.no_connection": "segments of no connection",
    "wire.tcp_checksum_bad": "wrong TCP checksums",
    "wire.ip_checksum_bad": "wrong IP checksums",
    "wire.ip_fragment": "fragments",
    "wire.frame_too_short": "frames cut short",
    "wire.tcp_header_bad|wire.ip_header_bad|wire.ip_length_bad": "noise in the place of headers",
}
# IPv6 has no checksum of its header: what is wrong there is its length.
_REFUSED_6 = {names: why for names, why in _REFUSED.items() if names != "wire.ip_checksum_bad"}
_REFUSED_6["wire.ip_length_bad"] = "lengths beyond the end of the frame"
_REFUSED_6["wire.ip_extension_bad"] = "options that must be understood"


class Neighbour:
    """The hostile program, running in the receiver's namespace."""

    def __init__(self, network, *words):
        target, source = (RECEIVER_6, NEAR_6) if network.ipv6 else (RECEIVER, NEAR)
        command = [sys.executable, _PROGRAM, INTERFACE, target, str(PORT), source, *words]
        self._process = subprocess.Popen(in_namespace(network.receiver, command), stdout=subprocess.PIPE, text=True,
                                         preexec_fn=die_with_parent)
        expect(self._process.stdout.readline() == "ready\n", "the hostile neighbour did not start")

    def wait_for_flood(self):
        """However slow the machine is just now: each attack has been under way, and the SYNs are a flood."""
        expect(select.select([self._process.stdout], [], [], 30)[0], "30 s, and the SYNs are no flood")
        expect(self._process.stdout.readline() == "flooded\n", "the hostile neighbour ended")

    def end(self):
        """Ends it; returns how many frames each attack sent."""
        self._process.terminate()
        counts = {name: int(count) for name, count in (line.split() for line in self._process.stdout)}
        expect(self._process.wait(10) == 0, "the hostile neighbour failed")
        return counts

    def __enter__(self):
        return self

    def __exit__(self, *unused):
        self._process.kill()
        self._process.wait()
        self._process.stdout.close()


def _set_up(transfer, folder, stack):
    need(transfer.version)
    network = stack.enter_context(Network(transfer.mtu, ipv6=transfer.ipv6))
    source = transfer.start_source(folder, stack, network)
    options, files = transfer.ram_files(folder, source)
    receiver = transfer.start_receiver(folder, stack, network, options)
    return network, source, receiver, files


def _expect_whole(network, source, receiver, files):
    """The migration is complete, memory equal, nothing left behind; returns the report."""
    source.wait_migration(timeout=60)
    expect(receiver.wait(30) == 0, "migrx ended with an error: %s", receiver.log()[-2000:])
    report = receiver.report()
    expect(report["outcome"] == "complete", "outcome %s: %s", report["outcome"], report.get("error"))
    for backend in source.backends:
        expect_same_files(backend.id, files[backend.id], backend.path)
    deadline = time.monotonic() + 2
    while network.has_interface() and time.monotonic() < deadline:
        time.sleep(0.02)
    expect(not network.has_interface(), "migrx ended but its interface is still there")
    memory = report["memory"]
    missing = memory["rx_buffers"] - memory["rx_buffers_available"]
    expect(missing <= _IN_RX_RING, "%d packet buffers have not come back: %s", missing, memory)
    return report


def _value(report, names):
    return sum(report["dataplane"].get(name, 0) for name in names.split("|"))


def under_attack(version, channels, ipv6=False):
    """Every attack there is, from before the first round to behind the last."""
    def body(folder):
        with contextlib.ExitStack() as stack:
            transfer = Transfer(version, channels=channels, dirty_s=1.0, parameters={"max_bandwidth": SLOW // 4},
                                ipv6=ipv6)
            network, source, receiver, files = _set_up(transfer, folder, stack)
            source.migrate(receiver.uri)
            neighbour = stack.enter_context(Neighbour(network, "--flood", str(FLOOD)))
            deadline = time.monotonic() + 20
            while source.migration().get("ram", {}).get("transferred", 0) < 16 * MIB:
                expect(time.monotonic() < deadline, "the migration never got going: %s", source.migration())
                time.sleep(0.05)
            neighbour.wait_for_flood()
            source.set_parameters(max_bandwidth=FAST, downtime_limit=2000)
            report = _expect_whole(network, source, receiver, files)
            sent = neighbour.end()
            for name, count in sent.items():
                expect(count > 0, "the attack %s sent nothing: %s", name, sent)
            expect(sent["syn_flood"] > FLOOD, "a flood of %d SYNs is none", sent["syn_flood"])
            for names, why in (_REFUSED_6 if ipv6 else _REFUSED).items():
                expect(_value(report, names) > 0, "the report does not count %s (%s): %s", names, why,
                       report["dataplane"])
            expect(_value(report, "tcp.rst") <= 12, "connections were reset: %s", report["dataplane"])
            expect(_value(report, "tcp.overlap_differs") == 0, "forged bytes met the source's")
            return "%d frames, %d cookies" % (sum(sent.values()), _value(report, "tcp.syn_cookie_sent"))
    return body


def crowded(version, channels, ipv6=False):
    """A flood, and connections of strangers on every place there is, before the source comes."""
    def body(folder):
        with contextlib.ExitStack() as stack:
            transfer = Transfer(version, channels=channels, dirty_s=0.5, ipv6=ipv6)
            network, source, receiver, files = _set_up(transfer, folder, stack)
            # All but one that speaks as a source would: whoever does that first is taken for it (docs/limits.md).
            neighbour = stack.enter_context(Neighbour(
                network, "--only", "syn_flood", "peers", "stray_segments",
                "--manners", "silent", "garbage", "tls", "holes", "tiny", "zero_window", "leaves"))
            time.sleep(1.5)
            source.migrate(receiver.uri)
            time.sleep(0.5)
            source.set_parameters(max_bandwidth=FAST, downtime_limit=2000)
            report = _expect_whole(network, source, receiver, files)
            sent = neighbour.end()
            expect(_value(report, "tcp.syn_cookie_sent") > 100, "no flood: %s", report["dataplane"])
            expect(_value(report, "poll.connections_opened") > channels + 4, "no strangers: %s", report["dataplane"])
            return "%d frames, %d connections opened" % (sum(sent.values()), _value(report, "poll.connections_opened"))
    return body


def cases():
    for version in ("7.2", "10", "newest"):
        newest = version == "10"
        yield Case("hostile-multifd-%s" % version, under_attack(version, 4), newest, 90)
        yield Case("hostile-precopy-%s" % version, under_attack(version, 0), not newest, 90)
        yield Case("hostile-before-%s" % version, crowded(version, 4), newest, 90)
        yield Case("hostile-ipv6-multifd-%s" % version, under_attack(version, 4, ipv6=True), newest, 120)
        yield Case("hostile-ipv6-before-%s" % version, crowded(version, 4, ipv6=True), False, 120)
