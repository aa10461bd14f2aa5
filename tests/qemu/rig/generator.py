"""`migrx generate` as a source, and the links it can send over, for tests and measurements.

memif  two processes and a socket, no kernel: generator -> migrx only
tap    generator's tap in a namespace; a kernel peer is the tap's own interface, a migrx has a tap of its own and a
       bridge joins the two
veth   an af_packet port on one end of a pair; a kernel peer has the other end's address, a migrx an af_packet port on
       it. The only one that carries a kernel peer's frames above MTU 1500: net_tap sends none.
"""

import json
import os
import subprocess
import sys
import time
import zlib

from .machine import die_with_parent, in_namespace
from .network import NEAR, NEAR_6, RECEIVER, RECEIVER_6
from .receiver import PORT, migrx_program

PREFIX = "/24"
PREFIX_6 = "/64"
_OFFLOADS = os.path.join(os.path.dirname(os.path.abspath(__file__)), "offloads.py")


def _ip(namespace, *words):
    result = subprocess.run(["ip", "-n", namespace, *words], check=False, capture_output=True, text=True)
    if result.returncode != 0:
        raise RuntimeError("ip %s: %s" % (" ".join(words), result.stderr.strip()))


def make_veth(namespace, mtu, kernel_peer):
    """The pair gen0 - dst0 inside `namespace`; `kernel_peer`: dst0 gets the receiver's address."""
    _ip(namespace, "link", "add", "gen0", "type", "veth", "peer", "name", "dst0")
    for name in ("gen0", "dst0"):
        subprocess.run(in_namespace(namespace, [sys.executable, _OFFLOADS, name]), check=True)
        _ip(namespace, "link", "set", name, "mtu", str(mtu), "up")
    if kernel_peer:
        _ip(namespace, "addr", "add", RECEIVER + PREFIX, "dev", "dst0")


def wait_interface(namespace, interface, alive, timeout=30.0):
    """Until a migrx process has made its tap."""
    deadline = time.monotonic() + timeout
    while subprocess.run(["ip", "-n", namespace, "link", "show", interface], capture_output=True,
                         check=False).returncode != 0:
        if not alive() or time.monotonic() > deadline:
            raise RuntimeError("no interface %s" % interface)
        time.sleep(0.02)


def give_address(namespace, interface, mtu, alive, ipv6=False):
    """Waits for a tap and makes the kernel behind it the receiver."""
    wait_interface(namespace, interface, alive)
    _ip(namespace, "link", "set", interface, "mtu", str(mtu), "up")
    if ipv6:
        _ip(namespace, "addr", "replace", RECEIVER_6 + PREFIX_6, "dev", interface, "nodad")
    else:
        _ip(namespace, "addr", "replace", RECEIVER + PREFIX, "dev", interface)


def make_bridge(namespace, mtu, names):
    """Joins taps that exist already. A tap port has its interface's MAC; behind a bridge the two must differ."""
    _ip(namespace, "link", "add", "br0", "type", "bridge")
    _ip(namespace, "link", "set", "br0", "mtu", str(mtu), "up")
    for number, name in enumerate(names, 1):
        _ip(namespace, "link", "set", name, "address", "02:00:00:00:99:%02x" % number)
        _ip(namespace, "link", "set", name, "mtu", str(mtu), "master", "br0", "up")


class Process:
    """A migrx process that writes a report; ended when this object goes."""

    def __init__(self, folder, name, command, namespace=None, prefix=(), ready=False):
        self.report_path = os.path.join(folder, name + ".json")
        self.log_path = os.path.join(folder, name + ".log")
        command = [*prefix, migrx_program(), *command, "--report", self.report_path, "--quiet"]
        passed = ()
        if ready:
            read, write = os.pipe()
            command += ["--ready-fd", str(write)]
            passed = (write,)
        with open(self.log_path, "wb") as log:
            self.process = subprocess.Popen(in_namespace(namespace, command), stdin=subprocess.DEVNULL, stdout=log,
                                            stderr=log, pass_fds=passed, preexec_fn=die_with_parent)
        if ready:
            os.close(write)
            self._ready = os.fdopen(read, "rb")

    def wait_ready(self):
        """False: the program ended instead."""
        return bool(self._ready.readline())

    def alive(self):
        return self.process.poll() is None

    def wait(self, timeout=60):
        try:
            return self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            raise TimeoutError("%s did not end within %d s: %s" % (self.log_path, timeout, self.log())) from None

    def log(self):
        with open(self.log_path, encoding="utf-8", errors="replace") as file:
            return file.read()[-2000:]

    def report(self):
        with open(self.report_path, encoding="utf-8") as file:
            return json.load(file)

    def close(self):
        if self.alive():
            self.process.terminate()
            try:
                self.process.wait(5)
            except subprocess.TimeoutExpired:
                self.process.kill()
        self.process.wait()

    def __enter__(self):
        return self

    def __exit__(self, *unused):
        self.close()


def memif(role, folder):
    # DPDK since 24.11 takes 127 bytes of devargs; the folder's name would fill most of that. An abstract socket belongs
    # to the network namespace, which both ends share.
    name = "migrx-%x" % (zlib.crc32(folder.encode()) & 0xffffffff)
    return "net_memif0,role=%s,id=0,socket=%s,rsize=10%s" % (role, name, ",zero-copy=no" if role == "client" else "")


def generator_port(link, folder):
    return {"memif": memif("client", folder), "tap": "net_tap0,iface=gen0",
            "veth": "net_af_packet0,iface=gen0"}[link]


def receiver_port(link, folder):
    return {"memif": memif("server", folder), "tap": "net_tap0,iface=mig0",
            "veth": "net_af_packet0,iface=dst0"}[link]


def start_generator(folder, link, mtu, guest, namespace=None, extra=(), prefix=(), ipv6=False):
    """`guest`: options of `migrx generate` by name, underscores for hyphens; True for flags."""
    destination, address = ("[%s]" % RECEIVER_6, NEAR_6 + PREFIX_6) if ipv6 else (RECEIVER, NEAR + PREFIX)
    command = ["generate", "tcp:%s:%d" % (destination, PORT), "--port", generator_port(link, folder),
               "--address", address, "--mtu", str(mtu), *extra]
    for key, value in guest.items():
        command += ["--" + key.replace("_", "-")] + ([] if value is True else [str(value)])
    return Process(folder, "generator", command, namespace, prefix)


def start_receiver(folder, link, mtu, ram, channels, compression="none", namespace=None, extra=(), prefix=(),
                   ipv6=False):
    """`ram`: value of --ram."""
    address = RECEIVER_6 + PREFIX_6 if ipv6 else RECEIVER + PREFIX
    command = ["receive", "--port", receiver_port(link, folder), "--address", address, "--listen", str(PORT),
               "--mtu", str(mtu), "--ram", ram, "--no-handoff", "--multifd-channels", str(channels),
               "--multifd-compression", compression, "--runtime-dir", os.path.join(folder, "run"),
               # A generator that is killed takes a memif link with it: nobody could be told.
               "--linger", "0", *extra]
    return Process(folder, "receiver", command, namespace, prefix, ready=True)
