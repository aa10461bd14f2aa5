"""Network namespaces for one test: the source's side, and optionally a router with an impaired link.

Plain:   [source and receiver's tap mig0, 10.77.0.1/24]
Routed:  [source 10.78.0.2] == tap - impair.py - tap == [router 10.78.0.1, 10.77.0.1 on mig0]
The receiver creates mig0 itself (DPDK's net_tap) and answers as 10.77.0.2. With IPv6 it answers as fd00:77::2, too,
which is what sources are told, and the source is fd00:77::1. No address ever exists outside these namespaces. Names carry the rig's process id; what a killed rig left is removed by the next one.
"""

import contextlib
import ctypes
import itertools
import os
import re
import socket
import subprocess
import sys
import threading
import time

from .machine import die_with_parent

_RUN = "/run/netns"
_numbers = itertools.count()
_libc = ctypes.CDLL(None, use_errno=True)
_CLONE_NEWNET = 0x40000000
INTERFACE, RECEIVER, NEAR, FAR = "mig0", "10.77.0.2", "10.77.0.1", "10.78.0.2"
RECEIVER_6, NEAR_6 = "fd00:77::2", "fd00:77::1"
# Of a receiver with two ports.
SECOND_INTERFACE, SECOND_RECEIVER, SECOND_NEAR = "mig1", "10.79.0.2", "10.79.0.1"


def _ip(*words, check=True):
    return subprocess.run(["ip", *words], check=check, capture_output=True, text=True)


def remove_stale_namespaces():
    """Removes namespaces whose rig is no longer alive."""
    if not os.path.isdir(_RUN):
        return
    for name in os.listdir(_RUN):
        match = re.fullmatch(r"migrx-(\d+)-\d+[a-z]?", name)
        if match and not os.path.exists("/proc/" + match.group(1)):
            _ip("netns", "del", name, check=False)


@contextlib.contextmanager
def attached(network):
    """Whoever makes the interface meanwhile finds it configured, as a network manager would do it."""
    over = threading.Event()

    def keep():
        while not over.wait(0.1):
            with contextlib.suppress(Exception):
                network.attach(lambda: not over.is_set(), 1)

    thread = threading.Thread(target=keep)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


class Network:
    """The namespaces of one test. `source` and `receiver` name those for the two processes."""

    def __init__(self, mtu=9000, congestion=None, impair=None, ipv6=False):
        """`congestion`: the source's TCP congestion control; `impair`: options for impair.py, which also
        puts the router in between, e.g. {"seed": 1, "loss": 0.01}. `ipv6`: beside IPv4, not with a router."""
        self.ipv6 = ipv6
        self.address = RECEIVER + "/24" + (",%s/64" % RECEIVER_6 if ipv6 else "")  # of --address
        self.near, self.near_6 = NEAR, NEAR_6  # the source's
        self.told = "[%s]" % RECEIVER_6 if ipv6 else RECEIVER  # of the source's URI
        self.mtu, self.port, self._names, self._impairment = mtu, "net_tap0,iface=" + INTERFACE, [], None
        self.is_routed = impair is not None
        number = next(_numbers)
        self.receiver = self._make("migrx-%d-%d" % (os.getpid(), number))
        self.source = self._make("migrx-%d-%ds" % (os.getpid(), number)) if impair is not None else self.receiver
        try:
            if congestion:
                self._set_congestion(congestion)
            if impair is not None:
                self._start_impairment(impair)
        except BaseException:
            self.close()
            raise

    def _make(self, name):
        _ip("netns", "add", name)
        self._names.append(name)
        for scope in ("all", "default"):
            self.sysctl(name, "net/ipv6/conf/%s/disable_ipv6" % scope, "0" if self.ipv6 else "1")
            # The kernel's end need not ask for seconds whether it may use what it is given.
            if self.ipv6:
                self.sysctl(name, "net/ipv6/conf/%s/accept_dad" % scope, "0")
        _ip("-n", name, "link", "set", "lo", "up")
        return name

    @staticmethod
    def sysctl(name, key, value):
        """Sets /proc/sys/KEY inside the namespace."""
        subprocess.run(["nsenter", "--net=%s/%s" % (_RUN, name), "sh", "-c", 'echo "$2" > /proc/sys/"$1"', "sh",
                        key, value], check=True)

    def _set_congestion(self, name):
        """Only what the host allows to everybody may be chosen inside a namespace: allow `name` for a moment."""
        path = "/proc/sys/net/ipv4/tcp_allowed_congestion_control"
        with open(path, encoding="ascii") as file:
            allowed = file.read().strip()
        if name not in allowed.split():
            with open(path, "w", encoding="ascii") as file:
                file.write(allowed + " " + name)
        try:
            self.sysctl(self.source, "net/ipv4/tcp_congestion_control", name)
        finally:
            if name not in allowed.split():
                with open(path, "w", encoding="ascii") as file:
                    file.write(allowed)

    def _start_impairment(self, options):
        program = os.path.join(os.path.dirname(os.path.abspath(__file__)), "impair.py")
        words = [word for key, value in options.items() for word in ("--" + key, str(value))]
        self._impairment = subprocess.Popen([sys.executable, program, self.source, self.receiver, *words],
                                            stdout=subprocess.PIPE, text=True, preexec_fn=die_with_parent)
        if self._impairment.stdout.readline() != "ready\n":
            raise RuntimeError("impair.py did not start")
        for name, address in ((self.source, FAR), (self.receiver, "10.78.0.1")):
            _ip("-n", name, "link", "set", "link0", "mtu", str(self.mtu), "up")
            _ip("-n", name, "addr", "add", address + "/24", "dev", "link0")
        _ip("-n", self.source, "route", "add", "default", "via", "10.78.0.1")
        self.sysctl(self.receiver, "net/ipv4/ip_forward", "1")

    def has_interface(self, name=INTERFACE):
        found = []

        def look():  # A thread can be in a namespace of its own; `ip` would take ten times as long.
            with contextlib.suppress(OSError), open(os.path.join(_RUN, self.receiver), "rb") as namespace:
                if _libc.setns(namespace.fileno(), _CLONE_NEWNET) == 0:
                    found.append(socket.if_nametoindex(name))
        thread = threading.Thread(target=look)
        thread.start()
        thread.join()
        return bool(found)

    def attach(self, alive=lambda: True, timeout=30.0, interface=INTERFACE, address=NEAR):
        """Waits until the receiver has made its interface and gives it MTU and address; False if it ended."""
        deadline = time.monotonic() + timeout
        while not self.has_interface(interface):
            if not alive():
                return False
            if time.monotonic() > deadline:
                raise TimeoutError("the receiver made no interface " + interface)
            time.sleep(0.02)
        _ip("-n", self.receiver, "link", "set", interface, "mtu", str(self.mtu), "up")
        _ip("-n", self.receiver, "addr", "replace", address + "/24", "dev", interface)
        if self.ipv6:
            _ip("-n", self.receiver, "addr", "replace", NEAR_6 + "/64", "dev", interface, "nodad")
        return True

    def set_away(self, away):
        """The link between both hosts (a routed network's) is cut, which neither can see, or is back."""
        _in = ["nsenter", "--net=%s/%s" % (_RUN, self.receiver), "iptables", "-w"]
        subprocess.run([*_in, "-I" if away else "-D", "FORWARD", "-j", "DROP"], check=True, capture_output=True)

    def move_gateway(self):
        """The source, or its router, has another MAC address from now on and says nothing of it."""
        _ip("-n", self.receiver, "link", "set", INTERFACE, "address", "02:00:00:77:77:77")

    def unacknowledged(self):
        """Bytes that TCP connections of the source's side have not been acknowledged, sent or not."""
        lines = subprocess.run(["nsenter", "--net=%s/%s" % (_RUN, self.source), "ss", "-Htn"], check=True,
                               capture_output=True, text=True).stdout.splitlines()
        return sum(int(line.split()[2]) for line in lines)

    def impairment_counts(self):
        """What impair.py did so far, as a dictionary; empty without one. Ends it."""
        if self._impairment is None:
            return {}
        self._impairment.terminate()
        counts = {}
        for line in self._impairment.stdout:
            key, value = line.split()
            counts[key] = int(value)
        self._impairment.wait()
        self._impairment = None
        return counts

    def close(self):
        if self._impairment is not None:
            self._impairment.kill()
            self._impairment.wait()
        for name in self._names:
            _ip("netns", "del", name, check=False)
        self._names = []

    def __enter__(self):
        return self

    def __exit__(self, *unused):
        self.close()


class Tagged(Network):
    """The receiver is a VM behind a switch's access port: its frames bear the tag `vlan`, with `outer` a service tag, too.

    [source 10.77.0.1 on mig0] == vlan_link.py == UNIX socket `socket` == [QEMU's netdev]
    """

    def __init__(self, folder, mtu=9000, ipv6=False, vlan=7, outer=None):
        super().__init__(mtu, ipv6=ipv6)
        self.socket = os.path.join(folder, "wire.sock")
        program = os.path.join(os.path.dirname(os.path.abspath(__file__)), "vlan_link.py")
        words = [self.receiver, INTERFACE, str(vlan), self.socket] + ([str(outer)] if outer is not None else [])
        self._switch = subprocess.Popen([sys.executable, program, *words], stdout=subprocess.PIPE, text=True,
                                        preexec_fn=die_with_parent)
        if self._switch.stdout.readline() != "ready\n":
            self.close()
            raise RuntimeError("vlan_link.py did not start")

    def counts(self):
        """Frames by what became of them, when it has ended."""
        return {key: int(value) for key, value in (line.split() for line in self._switch.stdout)}

    def has_interface(self, name=INTERFACE):
        # Its own, until the VM has ended.
        return self._switch.poll() is None and super().has_interface(name)

    def close(self):
        self._switch.kill()
        self._switch.wait()
        super().close()


class Veth(Network):
    """Two namespaces joined by a veth pair, to whose far end, mig0, either the kernel or DPDK's af_packet listens.

    [source 10.77.0.1] == veth == [receiver 10.77.0.2 on mig0]
    Frames are what a wire would carry: segmentation and checksums are not left to the other end.
    """

    def __init__(self, mtu=9000, ipv6=False):
        super().__init__(mtu, ipv6=ipv6)
        self.port = "net_af_packet0,iface=" + INTERFACE
        try:
            self.source = self._make(self.receiver + "v")
            _ip("-n", self.source, "link", "add", "near0", "mtu", str(mtu), "type", "veth", "peer", "name", INTERFACE,
                "mtu", str(mtu), "netns", self.receiver)
            _ip("-n", self.source, "addr", "add", NEAR + "/24", "dev", "near0")
            if ipv6:
                _ip("-n", self.source, "addr", "add", NEAR_6 + "/64", "dev", "near0", "nodad")
            for name, interface in ((self.source, "near0"), (self.receiver, INTERFACE)):
                _ip("-n", name, "link", "set", interface, "up")
                subprocess.run(["nsenter", "--net=%s/%s" % (_RUN, name), "ethtool", "-K", interface, "rx", "off", "tx",
                                "off", "tso", "off", "gso", "off", "gro", "off"], check=True, capture_output=True)
        except BaseException:
            self.close()
            raise

    def set_kernel_listens(self, listens):
        """Gives the receiver's address to the kernel, or takes it away so that a user-space port can have it."""
        _ip("-n", self.receiver, "addr", "flush", "dev", INTERFACE)
        if listens:
            _ip("-n", self.receiver, "addr", "add", RECEIVER + "/24", "dev", INTERFACE)

    def has_interface(self):
        return False  # none that comes and goes with the receiver

    def attach(self, alive=lambda: True, timeout=30.0):
        return alive()
