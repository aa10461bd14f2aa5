"""`migrx serve` in the network's receiver namespace, and a client of its control socket."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import time

import jsonschema

from .machine import die_with_parent, in_namespace
from .network import NEAR
from .receiver import migrx_program
from .runner import expect

_ROOT = os.path.abspath(os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", ".."))


class ControlError(Exception):
    """An error that the daemon answered: its class, and the sentence."""

    def __init__(self, answer):
        super().__init__("%(class)s: %(desc)s" % answer)
        self.error_class = answer["class"]


class Control:
    """One connection to the control socket. Every line from the daemon is checked against its schema."""

    def __init__(self, path):
        with open(os.path.join(_ROOT, "docs", "report.schema.json"), encoding="utf-8") as file:
            self._report_schema = json.load(file)
        self.events = []
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(20)
        folder = os.open(os.path.dirname(path), os.O_RDONLY | os.O_DIRECTORY)
        try:
            self._socket.connect("/proc/self/fd/%d/%s" % (folder, os.path.basename(path)))  # a path of any length
        finally:
            os.close(folder)
        self._lines = self._socket.makefile("r", encoding="utf-8")
        self.greeting = json.loads(self._lines.readline())

    def call(self, command, **arguments):
        request = {"execute": command, "arguments": {key.replace("_", "-"): value for key, value in arguments.items()}}
        self._socket.sendall(json.dumps(request).encode() + b"\n")
        while True:
            line = self._lines.readline()
            expect(line, "the daemon closed the control connection")
            answer = json.loads(line)
            if "event" in answer:
                self.events.append(answer)
                continue
            if "error" in answer:
                raise ControlError(answer["error"])
            return answer["return"]

    def wait_session(self, session, states=("done",), timeout=90.0):
        """Asks until the session is in one of the states; returns what the daemon says of it."""
        deadline = time.monotonic() + timeout
        while True:
            answer = self.call("query-session", id=session)
            if answer["state"] in states:
                if answer["state"] == "done":
                    jsonschema.Draft202012Validator(self._report_schema).validate(answer["report"])
                return answer
            expect(answer["state"] != "done", "session %s is over: %s", session, answer.get("summary"))
            expect(time.monotonic() < deadline, "session %s stays %s: %s", session, answer["state"], answer)
            time.sleep(0.05)

    def close(self):
        self._lines.close()
        self._socket.close()


class Daemon:
    """`migrx serve`, ready."""

    def __init__(self, folder, network, extra=(), name="daemon"):
        self.folder, self.network = folder, network
        self.runtime_dir = os.path.join(folder, "run")
        os.makedirs(self.runtime_dir, mode=0o700, exist_ok=True)
        self.socket = os.path.join(folder, name + ".control")
        self.log_path = os.path.join(folder, name + ".log")
        self.command = [migrx_program(), "serve", "--port", network.port, "--address", network.address, "--mtu",
                        str(network.mtu), "--allow", "any", "--control", self.socket, "--runtime-dir", self.runtime_dir,
                        *(("--gateway", NEAR) if network.is_routed else ()), *extra]
        self._log = open(self.log_path, "wb")
        self.process = subprocess.Popen(in_namespace(network.receiver, self.command), stdin=subprocess.DEVNULL,
                                        stdout=self._log, stderr=self._log, preexec_fn=die_with_parent)
        self.control = None

    def wait_ready(self, timeout=30.0):
        expect(self.network.attach(self.alive, timeout), "migrx serve ended: %s", self.log())
        deadline = time.monotonic() + timeout
        while "ready:" not in self.log():
            expect(self.alive() and time.monotonic() < deadline, "migrx serve never got ready: %s", self.log())
            time.sleep(0.02)
        self.control = Control(self.socket)
        return self

    def uri(self, port):
        return "tcp:%s:%d" % (self.network.told, port)

    def alive(self):
        return self.process.poll() is None

    def log(self):
        with open(self.log_path, encoding="utf-8", errors="replace") as file:
            return file.read()

    def children(self):
        with open("/proc/%d/task/%d/children" % (self.process.pid, self.process.pid), encoding="ascii") as file:
            return [int(word) for word in file.read().split()]

    def worker(self):
        """Process id of the daemon proper; the supervising parent is `process`."""
        return self.children()[0]

    def count(self, what):
        """Descriptors ("fd") or threads ("task") of the daemon proper."""
        return len(os.listdir("/proc/%d/%s" % (self.worker(), what)))

    def resident(self):
        """Bytes of memory that the daemon proper has of its own (guest RAM is of files)."""
        with open("/proc/%d/status" % self.worker(), encoding="ascii") as file:
            return next(int(line.split()[1]) << 10 for line in file if line.startswith("RssAnon"))

    def signal(self, number=signal.SIGTERM):
        self.process.send_signal(number)

    def wait(self, timeout=30.0):
        return self.process.wait(timeout)

    def close(self):
        if self.control is not None:
            self.control.close()
        if self.alive():
            children = self.children()
            self.process.send_signal(signal.SIGTERM)
            time.sleep(1.1)
            for _ in range(2):
                if self.alive():
                    self.process.send_signal(signal.SIGTERM)
                    with contextlib.suppress(subprocess.TimeoutExpired):
                        self.process.wait(2)
            if self.alive():
                self.process.kill()
                for child in children:
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(child, signal.SIGKILL)
        self.process.wait()
        self._log.close()

    def __enter__(self):
        return self

    def __exit__(self, *unused):
        self.close()
