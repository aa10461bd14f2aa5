"""The same over IPv6: a port that has an address of either family, and a source that is told the one of IPv6."""

import contextlib
import os
import subprocess
import sys

from rig.compare import expect_same_files
from rig.machine import in_namespace
from rig.network import INTERFACE, NEAR_6, RECEIVER_6, Network, Veth
from rig.receiver import Receiver
from rig.runner import Case, expect
from rig.transfer import FAST, Transfer, need

from .faults import cancelled, receiver_terminated, worker_killed
from .links import expect_refused, ip, small_receiver


def _came_by_ipv6(report, _transfer):
    peers = {channel["peer"].rsplit(":", 1)[0] for channel in report["channels"]}
    expect(peers == {"[%s]" % NEAR_6}, "channels came from %s", peers)
    return ""


def address_of_another_host(folder, stack):
    """Somebody on the link has migrx's IPv6 address: refused by duplicate address detection."""
    need()
    network = stack.enter_context(Veth(1500, ipv6=True))
    ip(network.source, "addr", "add", RECEIVER_6 + "/64", "dev", "near0", "nodad")
    expect_refused(small_receiver(folder, stack, network), "address " + RECEIVER_6, "is in use by", "--no-probe")
    receiver = small_receiver(folder, stack, network, "unasked", ("--no-probe",))
    expect(receiver.wait_ready(), "--no-probe: %s", receiver.log()[-1000:])
    receiver.signal()
    receiver.wait(20)
    return ""


def address_of_our_kernel(folder, stack):
    """The kernel beneath an af_packet port has the address, too."""
    need()
    network = stack.enter_context(Veth(1500, ipv6=True))
    ip(network.receiver, "addr", "add", RECEIVER_6 + "/64", "dev", INTERFACE, "nodad")
    expect_refused(small_receiver(folder, stack, network), RECEIVER_6 + " is this host's own, on " + INTERFACE)
    return ""


# The kernel forms and checks the checksum, finds the neighbour and puts fragments together.
_PING = """
import os, socket, sys
s = socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6)
s.settimeout(10)
for size in map(int, sys.argv[2:]):
    data = os.urandom(size)
    s.sendto(bytes([128, 0, 0, 0, 1, 2, 3, 4]) + data, (sys.argv[1], 0))
    while True:
        answer, sender = s.recvfrom(65536)
        if answer[0] == 129 and sender[0] == sys.argv[1]:
            break
    print("same" if answer[4:] == bytes([1, 2, 3, 4]) + data else "other")
"""


def ping(folder, stack):
    """The kernel's neighbour discovery finds migrx, and its pings are answered, long ones too."""
    need()
    network = stack.enter_context(Network(9000, ipv6=True))
    receiver = small_receiver(folder, stack, network)
    expect(receiver.wait_ready(), "not ready: %s", receiver.log()[-1000:])
    done = subprocess.run(in_namespace(network.source, [sys.executable, "-c", _PING, RECEIVER_6, "56", "1400", "8900"]),
                          check=False, capture_output=True, text=True, timeout=60)
    expect(done.stdout.split() == ["same"] * 3, "answers: %s", done.stdout + done.stderr)
    receiver.signal()
    receiver.wait(20)
    return ""


def by_af_packet(version):
    """On a veth, whose far end is a kernel's interface beneath DPDK's af_packet."""
    def body(folder, stack):
        need(version)
        transfer = Transfer(version, channels=2, mtu=1500, ipv6=True)
        network = stack.enter_context(Veth(transfer.mtu, ipv6=True))
        source = transfer.start_source(folder, stack, network)
        path = os.path.join(folder, "received.mem")
        receiver = stack.enter_context(Receiver(folder, network, {"mem": "%s,size=%d" % (path, transfer.size)},
                                                transfer.channels))
        expect(receiver.wait_ready(), "not ready: %s", receiver.log()[-1000:])
        groups = ip(network.receiver, "maddr", "show", "dev", INTERFACE)
        expect("33:33:ff:00:00:02" in groups, "the interface lets in: %s", groups)
        source.set_parameters(max_bandwidth=FAST, downtime_limit=2000)
        source.migrate(receiver.uri)
        source.wait_migration(timeout=90)
        expect(receiver.wait(30) == 0, "migrx ended with %s: %s", receiver.process.returncode, receiver.log()[-2000:])
        expect_same_files("mem", path, source.backends[0].path)
        return _came_by_ipv6(receiver.report(), transfer)
    return body


def _case(name, body, quick, timeout=180):
    def run(folder):
        with contextlib.ExitStack() as stack:
            return body(folder, stack)
    return Case(name, run, quick, timeout)


def cases():
    yield _case("ipv6-address-of-another-host", address_of_another_host, True)
    yield _case("ipv6-address-of-our-kernel", address_of_our_kernel, True)
    yield _case("ipv6-ping", ping, True)
    for version in ("7.2", "10", "newest"):
        precopy = Transfer(version, dirty_s=1.0, ipv6=True, check=_came_by_ipv6)
        yield Case("ipv6-precopy-%s" % version, precopy.run, version == "10", 180)
        multifd = Transfer(version, channels=4, dirty_s=1.0, mtu=1500, ipv6=True, check=_came_by_ipv6)
        yield Case("ipv6-multifd-4-%s" % version, multifd.run, version == "10", 180)
        yield _case("ipv6-af-packet-%s" % version, by_af_packet(version), version == "10")
        yield _case("ipv6-cancel-%s" % version, cancelled(version, 4, ipv6=True), version == "10")
        yield _case("ipv6-sigterm-%s" % version, receiver_terminated(version, 15, ipv6=True), False)
        yield _case("ipv6-sigkill-worker-%s" % version, worker_killed(version, ipv6=True), version == "10")
