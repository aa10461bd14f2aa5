"""A client of QEMU's machine protocol (QMP) over a UNIX socket."""

import json
import socket
import time


class QmpError(Exception):
    """QEMU answered a command with an error."""


class Qmp:
    """One QMP connection; commands are answered in turn, events are kept with the time of their arrival."""

    def __init__(self, path, timeout=20.0):
        deadline = time.monotonic() + timeout
        while True:
            self._socket = socket.socket(socket.AF_UNIX)
            try:
                self._socket.connect(path)
                break
            except OSError:
                self._socket.close()
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.02)
        self._socket.settimeout(timeout)
        self._buffer = b""
        self.events = []
        self._greetings = 0
        self._read_message()
        self.command("qmp_capabilities")

    def wait_longer(self, seconds):
        """For answers of a QEMU that is stuck in the middle of a migration: its main thread writes to its
        sockets at the switchover, and answers nobody while the link is away."""
        self._socket.settimeout(seconds)

    def close(self):
        self._socket.close()

    def _read_message(self):
        while b"\n" not in self._buffer:
            data = self._socket.recv(65536)
            if not data:
                raise ConnectionError("QEMU closed its QMP socket")
            self._buffer += data
        line, self._buffer = self._buffer.split(b"\n", 1)
        message = json.loads(line)
        if "QMP" in message:
            self._greetings += 1
        return message

    def command(self, execute, **arguments):
        """Runs one command and returns its result; underscores in argument names become hyphens."""
        request = {"execute": execute}
        if arguments:
            request["arguments"] = {name.replace("_", "-"): value for name, value in arguments.items()}
        greetings = self._greetings
        self._socket.sendall(json.dumps(request).encode() + b"\n")
        while True:
            message = self._read_message()
            if "event" in message:
                self.events.append(message)
            elif "return" in message or "error" in message:
                break
        if "error" in message and greetings != self._greetings:
            # A QEMU that is just starting may greet twice (the socket opens before and with its monitor); each
            # greeting begins the negotiation anew, and commands are refused until it is over.
            self.command("qmp_capabilities")
            return self.command(execute, **arguments)
        if "error" in message:
            raise QmpError("%s: %s" % (execute, message["error"]["desc"]))
        return message["return"]

    def wait_event(self, wanted, since=0, timeout=30.0):
        """Returns the first event that `wanted` holds for, among those kept from index `since` on or to come."""
        deadline = time.monotonic() + timeout
        while True:
            for event in self.events[since:]:
                if wanted(event):
                    return event
            since = len(self.events)
            self._socket.settimeout(max(0.01, deadline - time.monotonic()))
            try:
                message = self._read_message()
            finally:
                self._socket.settimeout(20.0)
            if "event" in message:
                self.events.append(message)
