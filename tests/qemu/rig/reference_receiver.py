"""A receiver that stores what a source sends, byte for byte, and nothing else.

It accepts the main connection and the multifd channels on a UNIX socket, writes each to a file, answers a
return path (PONG, then SHUT 0 when the stream is complete) and so makes captures that decoders are tested
with. It is deliberately simple: threads, blocking reads, the end found by the VM description at the tail.
"""

import os
import re
import socket
import struct
import threading

_OPEN_RETURN_PATH = bytes.fromhex("0800010000" "08000200040000") + b"\x00\x01"


def stream_complete(tail):
    """True when `tail`, the last bytes of a main stream, ends in EOF and the VM description behind it."""
    for match in re.finditer(rb"\x00\x06(....)\{", tail, re.DOTALL):
        if len(tail) - match.end() + 1 == struct.unpack(">I", match.group(1))[0]:
            return True
    return False


class ReferenceReceiver:
    """Listens at `path`; after wait(), `main` and `channels` (by id) name the captured files."""

    def __init__(self, path, folder, channels=0):
        self.uri = "unix:" + path
        self._folder, self._expected = folder, channels
        self.main, self.channels, self.errors = None, {}, []
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(path)
        self._listener.listen(300)
        self._path = path
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._threads[0].start()

    def _accept(self):
        for _ in range(1 + self._expected):
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            thread = threading.Thread(target=self._guarded, args=(connection,), daemon=True)
            self._threads.append(thread)
            thread.start()

    def _guarded(self, connection):
        try:
            with connection:
                self._receive(connection)
        except Exception as error:  # Shown by wait(); a thread has nobody else to tell.
            self.errors.append(error)

    def _receive(self, connection):
        first = connection.recv(64, socket.MSG_WAITALL)
        if first[:4] == b"QEVM":
            self.main = os.path.join(self._folder, "main.bin")
            self._receive_main(connection, first)
            return
        if first[:4] != b"\x11\x22\x33\x44":
            raise RuntimeError("connection begins with %r" % first)
        identifier = first[25 - 1]
        path = os.path.join(self._folder, "channel%d.bin" % identifier)
        self.channels[identifier] = path
        with open(path, "wb") as file:
            file.write(first)
            while data := connection.recv(1 << 20):
                file.write(data)

    def _receive_main(self, connection, first):
        head, tail, return_path, done = first, first, False, False
        with open(self.main, "wb") as file:
            file.write(first)
            while True:
                if len(head) < 65536 and not return_path and _OPEN_RETURN_PATH in head:
                    return_path = True
                    connection.sendall(struct.pack(">HHI", 2, 4, 1))
                if return_path and not done and stream_complete(tail):
                    done = True
                    connection.sendall(struct.pack(">HHI", 1, 4, 0))
                data = connection.recv(1 << 20)
                if not data:
                    return
                file.write(data)
                if len(head) < 65536:
                    head += data
                tail = (tail + data)[-(1 << 18):]

    def wait(self, timeout=60.0):
        """Waits until every connection has ended; raises what went wrong in them."""
        for thread in self._threads:  # The first, which accepts, adds the others and then ends.
            thread.join(timeout)
        if self.errors:
            raise self.errors[0]

    def close(self):
        self._listener.close()
        os.unlink(self._path)
