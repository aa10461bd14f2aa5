"""Running the migrx program under test and reading what it reports."""

import contextlib
import json
import os
import signal
import socket
import struct
import subprocess
import time
import urllib.parse

import jsonschema

from .machine import cpu_seconds, die_with_parent, in_namespace
from .network import NEAR, SECOND_INTERFACE, SECOND_NEAR, SECOND_RECEIVER

_ROOT = os.path.abspath(os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", ".."))
PORT = 4444
# A migration stream as it begins (header, configuration, PINGs), as long as it takes to be recognised in a pipe.
_MACHINE = b"pc-q35-7.2"
STREAM_HEAD = (struct.pack(">4sIBI", b"QEVM", 3, 7, len(_MACHINE)) + _MACHINE +
               struct.pack(">BHHI", 8, 3, 4, 1) * 500)


def stream_file(folder):
    """A file that `migrx load` takes for a stream; it ends before any memory does."""
    path = os.path.join(folder, "stream")
    with open(path, "wb") as file:
        file.write(STREAM_HEAD)
    return path


def migrx_program():
    """The program under test: $MIGRX, or the one in $MIGRX_BUILD (default build/); None when it is not built."""
    build = os.path.join(_ROOT, os.environ.get("MIGRX_BUILD", "build"))
    for path in (os.environ.get("MIGRX", ""), os.path.join(build, "loader", "app", "migrx"),
                 os.path.join(build, "migrx")):
        if path and os.access(path, os.X_OK):
            return path
    return None


class Receiver:
    """`migrx receive` in the network's receiver namespace.

    `ram` maps block names to their files, optionally with options: {"mem": "/dev/shm/x,size=64M"}.
    `terminal`: its output goes where ours goes, not to a log file. `two_ports`: a second port with a network of
    its own, which is the one that sources are told. `dump`: blocks are written at the end; not in postcopy, where
    guest memory must not be touched.
    """

    def __init__(self, folder, network, ram, channels=0, compression="none", capabilities=(), extra=(),
                 handoff=None, name="receiver", terminal=False, two_ports=False, dump=True):
        self.folder, self.network, self.name, self.two_ports = folder, network, name, two_ports
        self.report_path = os.path.join(folder, name + ".json")
        self.dump = os.path.join(folder, name + ".blocks")
        self.runtime_dir = os.path.join(folder, "run")
        self.log_path = os.path.join(folder, name + ".log")
        self.uri = "tcp:%s:%d" % (SECOND_RECEIVER if two_ports else network.told, PORT)
        os.makedirs(self.dump, exist_ok=True)
        ready_read, ready_write = os.pipe()
        command = [migrx_program(), "receive", "--port", network.port,
                   "--address", network.address, "--listen", str(PORT), "--mtu", str(network.mtu),
                   "--report", self.report_path, "--ready-fd", str(ready_write),
                   "--runtime-dir", self.runtime_dir]
        if dump:
            command += ["--dump-blocks", self.dump]
        if two_ports:
            command += ["--port", "net_tap1,iface=" + SECOND_INTERFACE, "--address", SECOND_RECEIVER + "/24"]
        if network.is_routed:
            command += ["--gateway", NEAR]
        for block, file in ram.items():
            command += ["--ram", "%s=%s" % (block, file)]
        if channels:
            command += ["--multifd-channels", str(channels), "--multifd-compression", compression]
        for capability in capabilities:
            command += ["--capability", capability]
        command += ["--handoff", handoff] if handoff else ["--no-handoff"]
        self.command = command + list(extra)
        self._log = open(self.log_path, "wb")
        self.process = subprocess.Popen(in_namespace(network.receiver, self.command), stdin=subprocess.DEVNULL,
                                        stdout=None if terminal else self._log,
                                        stderr=None if terminal else self._log, pass_fds=(ready_write,),
                                        preexec_fn=die_with_parent)
        os.close(ready_write)
        self._ready = os.fdopen(ready_read, "rb")

    def alive(self):
        return self.process.poll() is None

    def log(self):
        with open(self.log_path, encoding="utf-8", errors="replace") as file:
            return file.read()

    def attach(self, timeout):
        """Sets up its interfaces, when it has made them; False when the program ended instead."""
        if not self.network.attach(self.alive, timeout):
            return False
        return not self.two_ports or self.network.attach(self.alive, timeout, SECOND_INTERFACE, SECOND_NEAR)

    def wait_ready(self, timeout=30.0):
        """Sets up the interfaces and waits for the ready line; False when the program ended instead."""
        return self.attach(timeout) and bool(self._ready.readline())

    def told_ready(self):
        """Waits for the ready line alone; False when the program ended instead."""
        return bool(self._ready.readline())

    def wait(self, timeout=60.0):
        """Waits for the end; returns the exit status."""
        try:
            return self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            raise TimeoutError("migrx did not end within %d s: %s" % (timeout, self.log()[-2000:])) from None

    def report(self):
        """The JSON report, which has the form that docs/report.schema.json says."""
        with open(self.report_path, encoding="utf-8") as file:
            report = json.load(file)
        with open(os.path.join(_ROOT, "docs", "report.schema.json"), encoding="utf-8") as file:
            jsonschema.Draft202012Validator(json.load(file)).validate(report)
        return report

    def children(self):
        """Process ids of the program's children: the worker that the supervising parent watches."""
        with open("/proc/%d/task/%d/children" % (self.process.pid, self.process.pid), encoding="ascii") as file:
            return [int(word) for word in file.read().split()]

    def lingering(self):
        """{process id: connections left} of those who stay behind for receivers of this folder that gave up."""
        found = {}
        with contextlib.suppress(FileNotFoundError):
            for entry in os.listdir(self.runtime_dir):
                if not entry.endswith(".sock"):
                    continue
                with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as client:
                    folder = os.open(self.runtime_dir, os.O_RDONLY | os.O_DIRECTORY)
                    try:
                        client.settimeout(5)
                        client.connect("/proc/self/fd/%d/%s" % (folder, entry))  # a path of any length
                        client.sendall(b"show\n")
                        record = client.makefile("r", encoding="ascii").read().splitlines()
                    finally:
                        os.close(folder)
                    process = next(int(line.split()[1]) for line in record if line.startswith("process "))
                    found[process] = sum(line.startswith("lost ") for line in record)
        return found

    def cpu_seconds(self):
        """CPU time of the program and its living children so far."""
        return sum(cpu_seconds(process) for process in [self.process.pid, *self.children()])

    def signal(self, number=signal.SIGTERM):
        self.process.send_signal(number)

    def block(self, name):
        """Content of a block that has no file, from --dump-blocks."""
        wanted = urllib.parse.quote(name, safe=" !\"#$&'()*+,:;<=>?@[\\]^_`{|}~")
        for entry in os.listdir(self.dump):
            if entry in (wanted, wanted + ".bin", wanted + ".ram"):
                with open(os.path.join(self.dump, entry), "rb") as file:
                    return file.read()
        raise FileNotFoundError("no dump of block %s among %s" % (name, sorted(os.listdir(self.dump))))

    def close(self):
        """Ends the program with all its children; the supervising parent first, so that it restarts nothing."""
        if self.alive():
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(5)
            except subprocess.TimeoutExpired:
                children = self.children()
                self.process.kill()
                for child in children:
                    try:
                        os.kill(child, signal.SIGKILL)
                    except ProcessLookupError:
                        pass
        self.process.wait()
        for process in self.lingering():
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
        self._log.close()
        self._ready.close()
        deadline = time.monotonic() + 5
        while self.network.has_interface() and time.monotonic() < deadline:
            time.sleep(0.02)  # The worker of a killed parent is about to go, and its interface with it.

    def __enter__(self):
        return self

    def __exit__(self, *unused):
        self.close()
