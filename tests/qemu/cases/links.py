"""Links that are not there at the start or go in between, and addresses that somebody else has."""

import contextlib
import json
import os
import re
import subprocess
import sys
import time

from rig.compare import expect_same_files
from rig.guest import MIB
from rig.machine import in_namespace
from rig.network import INTERFACE, RECEIVER, Network, Veth
from rig.receiver import Receiver
from rig.runner import Case, Skip, expect
from rig.transfer import FAST, Transfer, need

FLAP_S = 10.0


def ip(namespace, *words):
    """What `ip WORDS` prints in that namespace."""
    return subprocess.run(["ip", "-n", namespace, *words], check=True, capture_output=True, text=True).stdout


def _mac(namespace, interface):
    return json.loads(ip(namespace, "-j", "link", "show", interface))[0]["address"]


def small_receiver(folder, stack, network, name="receiver", extra=()):
    """A receiver that no source comes to."""
    ram = {"mem": "%s,size=%d" % (os.path.join(folder, name + ".mem"), 16 * MIB)}
    return stack.enter_context(Receiver(folder, network, ram, extra=extra, name=name))


def expect_refused(receiver, *words):
    """It ends with status 2 before it is ready, and says why."""
    expect(not receiver.wait_ready(), "it became ready")
    status = receiver.wait(20)
    expect(status == 2, "exit status %s", status)
    for word in words:
        expect(word in receiver.log(), "no %r in: %s", word, receiver.log()[-1000:])


def address_of_another_host(folder, stack):
    """Somebody on the link has migrx's address: refused with that host's MAC; --no-probe does not ask."""
    need()
    network = stack.enter_context(Veth(1500))
    ip(network.source, "addr", "add", RECEIVER + "/24", "dev", "near0")
    expect_refused(small_receiver(folder, stack, network), _mac(network.source, "near0"), "--no-probe")
    receiver = small_receiver(folder, stack, network, "unasked", ("--no-probe",))
    expect(receiver.wait_ready(), "--no-probe: %s", receiver.log()[-1000:])
    receiver.signal()
    receiver.wait(20)
    return ""


def address_of_our_kernel(folder, stack):
    """The kernel beneath an af_packet port has the address, too: it would reset every connection."""
    need()
    network = stack.enter_context(Veth(1500))
    network.set_kernel_listens(True)
    expect_refused(small_receiver(folder, stack, network), "this host's own, on " + INTERFACE)
    return ""


def address_claimed_later(folder, stack):
    """Another host takes the address while migrx has it: said once, and contradicted by ARP."""
    need()
    network = stack.enter_context(Veth(1500))
    receiver = small_receiver(folder, stack, network)
    expect(receiver.wait_ready(), "not ready: %s", receiver.log()[-1000:])
    other = _mac(network.source, "near0")
    announce = ("import socket\ns = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)\ns.bind(('near0', 0x806))\n"
                "m = bytes.fromhex('%s')\na = socket.inet_aton('%s')\n"
                "f = b'\\xff' * 6 + m + bytes.fromhex('08060001080006040001') + m + a + bytes(6) + a\n"
                "s.settimeout(5)\ns.send(f)\n"
                "while True:\n    g = s.recv(2000)\n    if g[6:12] != m and g[28:32] == a and g[38:42] == a: break\n"
                % (other.replace(":", ""), RECEIVER))
    subprocess.run(in_namespace(network.source, ["/usr/bin/python3", "-c", announce]), check=True, timeout=20)
    deadline = time.monotonic() + 5
    while "another host says" not in receiver.log():
        expect(time.monotonic() < deadline, "nothing is said: %s", receiver.log()[-1000:])
        time.sleep(0.1)
    receiver.signal()
    receiver.wait(20)
    report = receiver.report()
    expect(report["dataplane"]["poll.address_conflicts"] == 1, "counted: %s", report["dataplane"])
    expect(any("another host says" in warning for warning in report["warnings"]), "warnings: %s", report["warnings"])
    return ""


def no_link(folder, stack):
    """No link at the start: waited for, said, refused; without waiting migrx is ready and says that it is down."""
    need()
    network = stack.enter_context(Network(1500))
    # The one virtual device whose link is down until its other end comes.
    network.port = "net_memif0,role=server,socket=%s,socket-abstract=no" % os.path.join(folder, "memif.sock")
    network.attach = lambda alive, timeout: alive()
    begun = time.monotonic()
    expect_refused(small_receiver(folder, stack, network, extra=("--link-timeout", "2")), "waiting for the link",
                    "no link for 2 s", "--link-timeout 0")
    taken = time.monotonic() - begun
    expect(taken < 15, "it took %.1f s", taken)
    receiver = small_receiver(folder, stack, network, "unwaiting", ("--link-timeout", "0"))
    expect(receiver.wait_ready(), "--link-timeout 0: %s", receiver.log()[-1000:])
    time.sleep(0.5)
    receiver.signal()
    receiver.wait(20)
    expect(re.search("link of net_memif0.* is down", receiver.log()), "not said: %s", receiver.log()[-1000:])
    return ""


def nat_pool(version):
    """A NAT with two addresses between source and migrx: refused with the option's name, received with it."""
    def body(folder, stack):
        need(version)
        transfer = Transfer(version, channels=2, mtu=1500)
        network = stack.enter_context(Network(transfer.mtu, impair={}))
        inside = ["nsenter", "--net=/run/netns/" + network.receiver, "iptables", "-w", "-t", "nat", "-A", "POSTROUTING",
                  "-o", INTERFACE, "-p", "tcp"]
        try:
            subprocess.run([*inside, "-m", "statistic", "--mode", "nth", "--every", "2", "--packet", "0",
                            "-j", "SNAT", "--to-source", "10.77.0.16"], check=True, capture_output=True)
            subprocess.run([*inside, "-j", "SNAT", "--to-source", "10.77.0.17"], check=True, capture_output=True)
        except (OSError, subprocess.CalledProcessError) as error:
            raise Skip("needs the kernel's NAT: %s" % error) from None
        source = transfer.start_source(folder, stack, network)
        path = os.path.join(folder, "received.mem")
        # A main channel that ends in good order may be whole, so migrx waits for the rest.
        for extra in (("--channels-timeout", "5"), ("--source-nat", "10.77.0.16/30")):
            named = extra[0] == "--source-nat"
            receiver = stack.enter_context(Receiver(
                folder, network, {"mem": "%s,size=%d" % (path, transfer.size)}, transfer.channels, extra=extra,
                name="named" if named else "receiver"))
            expect(receiver.wait_ready(), "not ready: %s", receiver.log()[-1000:])
            source.set_parameters(max_bandwidth=FAST, downtime_limit=2000)
            source.migrate(receiver.uri)
            source.wait_migration(("completed",) if named else ("failed",), timeout=60)
            status = receiver.wait(30)
            expect(status == (0 if named else 1), "status %s: %s", status, receiver.log()[-1000:])
            if not named:
                expect("--source-nat" in receiver.report()["error"]["message"], "error: %s", receiver.report()["error"])
        expect_same_files("mem", path, source.backends[0].path)
        peers = {channel["peer"].split(":")[0] for channel in receiver.report()["channels"]}
        expect(peers == {"10.77.0.16", "10.77.0.17"}, "channels came from %s", peers)
        return ""
    return body


def _expect_warned(receiver, word, within=40):
    deadline = time.monotonic() + within
    while word not in receiver.log():
        expect(receiver.alive(), "migrx ended: %s", receiver.log()[-1000:])
        expect(time.monotonic() < deadline, "no %r: %s", word, receiver.log()[-1000:])
        time.sleep(0.1)
    receiver.signal()
    receiver.wait(20)
    expect(any(word in warning for warning in receiver.report()["warnings"]), "not in the report")


_STACKED = """
import socket, sys
link = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
link.bind((sys.argv[1], 0))
tags = bytes.fromhex("88a80007" + "8100000c")
for _ in range(8):  # ARP questions, as a source behind such a port would send them
    link.send(bytes.fromhex("ffffffffffff" + "020000000001") + tags + bytes.fromhex("0806") + bytes(46))
"""


def stacked_vlans(folder, stack):
    """A port whose frames have two VLAN tags: migrx says so and what to do at the switch."""
    need()
    network = stack.enter_context(Network(1500))
    receiver = small_receiver(folder, stack, network)
    expect(receiver.wait_ready(), "not ready: %s", receiver.log()[-1000:])
    subprocess.run(["nsenter", "--net=/run/netns/" + network.receiver, sys.executable, "-c", _STACKED, INTERFACE],
                   check=True, timeout=20)
    _expect_warned(receiver, "take the outer tag off", within=15)
    expect(receiver.report()["dataplane"]["wire.stacked_vlan"] == 8, "counted: %s", receiver.report()["dataplane"])
    return ""


def _migrate_in_vain(version, folder, stack, network, word):
    """A path that will never do: migrx says what it is, and the source keeps its guest."""
    transfer = Transfer(version, channels=2, dirty_s=1.0, mtu=1500)
    source = transfer.start_source(folder, stack, network)
    receiver = stack.enter_context(Receiver(
        folder, network, {"mem": "%s,size=%d" % (os.path.join(folder, "received.mem"), transfer.size)},
        transfer.channels))
    expect(receiver.wait_ready(), "not ready: %s", receiver.log()[-1000:])
    source.set_parameters(max_bandwidth=FAST)
    source.migrate(receiver.uri)
    _expect_warned(receiver, word)
    if source.migration()["status"] not in ("failed", "cancelled"):
        source.qmp.command("migrate_cancel")


def mtu_black_hole(version):
    """A path that carries frames of 1400 bytes and tells nobody."""
    def body(folder, stack):
        need(version)
        network = stack.enter_context(Network(1500, impair={"longest": 1400}))
        _migrate_in_vain(version, folder, stack, network, "ping -M do -s 1472 " + RECEIVER)
        return ""
    return body


def checksums_left_out(version):
    """The sender's end of a veth leaves checksums to a NIC: nothing that it says can be believed."""
    def body(folder, stack):
        need(version)
        network = stack.enter_context(Veth(1500))
        subprocess.run(in_namespace(network.source, ["ethtool", "-K", "near0", "tx", "on"]), check=True,
                       capture_output=True)
        _migrate_in_vain(version, folder, stack, network, "ethtool -K")
        return ""
    return body


def misspelt_devargs(folder, stack):
    """An argument that the driver would pass over in silence."""
    need()
    network = stack.enter_context(Network(1500))
    network.attach = lambda alive, timeout: alive()
    for port, words in (("net_tap0,ifac=mig0", ("'ifac'", "iface remote")), ("net_tap0,iface=", ("iface=VALUE",))):
        network.port = port
        expect_refused(small_receiver(folder, stack, network), *words)
    return ""


def flap(version):
    """The link is down for some seconds in precopy: said, in the report, and survived."""
    def body(folder, stack):
        need(version)
        transfer = Transfer(version, channels=2, dirty_s=1.0, mtu=1500)
        network = stack.enter_context(Network(transfer.mtu))
        source = transfer.start_source(folder, stack, network)
        path = os.path.join(folder, "received.mem")
        receiver = stack.enter_context(Receiver(folder, network, {"mem": "%s,size=%d" % (path, transfer.size)},
                                                transfer.channels))
        expect(receiver.wait_ready(), "not ready: %s", receiver.log()[-1000:])
        source.migrate(receiver.uri)
        deadline = time.monotonic() + 30
        while source.migration().get("ram", {}).get("transferred", 0) < MIB:
            expect(time.monotonic() < deadline, "the migration never got going: %s", source.migration())
            time.sleep(0.05)
        ip(network.receiver, "link", "set", INTERFACE, "down")
        time.sleep(FLAP_S)
        ip(network.receiver, "link", "set", INTERFACE, "up")
        back = time.monotonic()
        source.set_parameters(max_bandwidth=FAST, downtime_limit=2000)
        source.wait_migration(timeout=60)
        taken = time.monotonic() - back
        expect(receiver.wait(15) == 0, "migrx ended with %s: %s", receiver.process.returncode, receiver.log()[-2000:])
        expect_same_files("mem", path, source.backends[0].path)
        report = receiver.report()
        expect([event["up"] for event in report["links"]] == [False, True], "links: %s", report.get("links"))
        expect(report["dataplane"]["port.link_changes"] == 2, "counted: %s", report["dataplane"])
        expect("is down: what is under way waits" in receiver.log(), "not said: %s", receiver.log()[-1000:])
        return "completed %.1f s after the link was back" % taken
    return body


def af_xdp(version):
    """A migration by DPDK's net_af_xdp on a veth; a larger MTU, at which frames would be lost, is refused."""
    def body(folder, stack):
        need(version)
        transfer = Transfer(version, channels=2, mtu=1500)
        network = stack.enter_context(Veth(transfer.mtu))
        network.port = "net_af_xdp0,iface=" + INTERFACE
        source = transfer.start_source(folder, stack, network)
        network.mtu = 3000
        expect_refused(small_receiver(folder, stack, network, "jumbo"), "MTU 1500")
        network.mtu = transfer.mtu
        path = os.path.join(folder, "received.mem")
        receiver = stack.enter_context(Receiver(folder, network, {"mem": "%s,size=%d" % (path, transfer.size)},
                                                transfer.channels))
        expect(receiver.wait_ready(), "not ready: %s", receiver.log()[-1000:])
        source.set_parameters(max_bandwidth=FAST, downtime_limit=2000)
        source.migrate(receiver.uri)
        source.wait_migration(timeout=60)
        expect(receiver.wait(15) == 0, "migrx ended with %s: %s", receiver.process.returncode, receiver.log()[-2000:])
        expect_same_files("mem", path, source.backends[0].path)
        return ""
    return body


def _case(name, body, quick, timeout=120):
    def run(folder):
        with contextlib.ExitStack() as stack:
            return body(folder, stack)
    return Case(name, run, quick, timeout)


def cases():
    yield _case("link-address-of-another-host", address_of_another_host, True)
    yield _case("link-address-of-our-kernel", address_of_our_kernel, True)
    yield _case("link-address-claimed-later", address_claimed_later, True)
    yield _case("link-missing", no_link, True)
    yield _case("link-misspelt", misspelt_devargs, True)
    for version in ("7.2", "10", "newest"):
        yield _case("link-mtu-black-hole-%s" % version, mtu_black_hole(version), version == "10")
        yield _case("link-checksums-left-out-%s" % version, checksums_left_out(version), version == "7.2")
    yield _case("link-stacked-vlans", stacked_vlans, True)
    yield _case("nat-pool-10", nat_pool("10"), True)
    yield _case("af-xdp-10", af_xdp("10"), False)
    yield _case("link-flap-10", flap("10"), True)
