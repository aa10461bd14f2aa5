"""The two sides of a COLO pair with a watcher between them: who said what, and stops where a test wants them.

The source is a real QEMU 7.2 with KVM (under TCG it deadlocks behind its first checkpoint), the secondary is
migrx. A thread passes the bytes on in both directions and follows the dialogue of QEMU's migration/colo.c with
the rig's own decoder, so that a test can look at both memories while a message is held.
"""

import contextlib
import ctypes
import os
import socket
import struct
import subprocess
import threading

from .machine import kvm_refusal, qemu_program
from .reference_receiver import stream_complete
from .runner import Skip, expect
from .stream import Decoder

READY, REQUEST, REPLY, SEND, SIZE, RECEIVED, LOADED = range(7)
NAMES = ("CHECKPOINT_READY", "CHECKPOINT_REQUEST", "CHECKPOINT_REPLY", "VMSTATE_SEND", "VMSTATE_SIZE",
         "VMSTATE_RECEIVED", "VMSTATE_LOADED")
_GUEST = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "guests", "colo.S")
_libc = ctypes.CDLL(None, use_errno=True)


def need_kvm():
    if qemu_program("7.2") is None:
        raise Skip("needs QEMU 7.2: later ones do not enter COLO")
    refusal = kvm_refusal("7.2")
    if refusal:
        raise Skip("a COLO source works with KVM only: " + refusal)


class ColoGuest:
    """tests/qemu/guests/colo.S as the machine's firmware. Ranges in bytes."""

    def __init__(self, fill_start=2 << 20, fill_end=8 << 20, dirty_start=8 << 20, dirty_end=9 << 20, ticks=20):
        self._symbols = {"FILL_START": fill_start, "FILL_END": fill_end, "DIRTY_START": dirty_start,
                         "DIRTY_END": dirty_end, "TICKS": ticks}

    def arguments(self, folder):
        target = os.path.join(folder, "colo.rom")
        defines = [word for name, value in self._symbols.items() for word in ("--defsym", "%s=%d" % (name, value))]
        subprocess.run(["as", "--64", *defines, "-o", target + ".o", _GUEST], check=True)
        subprocess.run(["ld", "-m", "elf_x86_64", "-N", "-Ttext=0xffff0000", "--oformat", "binary", "-o", target,
                        target + ".o"], check=True)
        return ["-bios", target]


def _connect_in(namespace, address):
    """A TCP connection made inside a network namespace: a thread enters it, the socket stays there."""
    made = []

    def connect():
        with open("/run/netns/" + namespace, encoding="ascii") as file:
            if _libc.setns(file.fileno(), 0x40000000):  # CLONE_NEWNET
                made.append(OSError(ctypes.get_errno(), "setns"))
                return
        try:
            made.append(socket.create_connection(address, 10))
        except OSError as error:
            made.append(error)
    thread = threading.Thread(target=connect)
    thread.start()
    thread.join()
    if isinstance(made[0], OSError):
        raise made[0]
    made[0].setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return made[0]


class _Stream:
    """What the source sends, passed on as it is read."""

    def __init__(self, source, receiver):
        self._source, self._receiver, self._unread, self.passed = source, receiver, b"", True

    def take(self, count):
        while len(self._unread) < count:
            data = self._source.recv(1 << 20)
            if not data:
                raise EOFError
            self._unread += data
        data, self._unread = self._unread[:count], self._unread[count:]
        if self.passed:
            self._receiver.sendall(data)
        return data

    def u8(self):
        return self.take(1)[0]

    def be16(self):
        return struct.unpack(">H", self.take(2))[0]

    def be32(self):
        return struct.unpack(">I", self.take(4))[0]

    def be64(self):
        return struct.unpack(">Q", self.take(8))[0]

    def str8(self):
        return self.take(self.u8()).decode()

    def peek(self):
        while not self._unread:
            self._unread = self._source.recv(1 << 20)
            if not self._unread:
                raise EOFError
        return self._unread[0]


class Link:
    """Between source and secondary. `uri` is for the source; run() follows the dialogue in the caller's thread.

    `at(message, checkpoint)` is called before each message is passed on, also for READY (checkpoint 0); true
    ends the run, with the message not passed on. `oracle.blocks` then holds what the cache must hold.
    """

    def __init__(self, folder, namespace, address):
        self._path = os.path.join(folder, "link")
        self.uri = "unix:" + self._path
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(self._path)
        self._listener.listen(1)
        self._namespace, self._address = namespace, address
        self.source = self.secondary = self.oracle = None
        self.state, self.checkpoints, self.xbzrle = b"", 0, 0

    def _pass_initial(self):
        self.source, _ = self._listener.accept()
        self.secondary = _connect_in(self._namespace, self._address)
        self.source.settimeout(30)
        self.secondary.settimeout(30)
        data = bytearray()
        while not stream_complete(bytes(data[-300000:])):
            piece = self.source.recv(1 << 20)
            expect(piece, "the source closed after %d bytes", len(data))
            self.secondary.sendall(piece)
            data += piece
        self.oracle = Decoder(bytes(data))
        self.state = bytes(data[self.oracle.tail_offset:])

    def _heard(self, wanted, at):
        """A message of the secondary: looked at, then passed on."""
        data = b""
        while len(data) < 4:
            piece = self.secondary.recv(4 - len(data))
            if not piece:
                raise EOFError
            data += piece
        code = struct.unpack(">I", data)[0]
        expect(code == wanted, "the secondary said %d, not %s", code, NAMES[wanted])
        if at(wanted, self.checkpoints):
            return True
        self.source.sendall(data)
        return False

    def _said(self, stream, wanted, at):
        stream.passed = False
        code = stream.be32()
        expect(code == wanted, "the source said %d, not %s", code, NAMES[wanted])
        if at(wanted, self.checkpoints):
            return True
        self.secondary.sendall(struct.pack(">I", code))
        stream.passed = True
        return False

    def run(self, at):
        self._pass_initial()
        stream = _Stream(self.source, self.secondary)
        self.oracle._reader = stream
        if self._heard(READY, at):
            return
        while True:
            if self._said(stream, REQUEST, at) or self._heard(REPLY, at) or self._said(stream, SEND, at):
                return
            self._ram(stream)
            if self._said(stream, SIZE, at):
                return
            self.state = stream.take(stream.be64())
            if self._heard(RECEIVED, at):
                return
            self.checkpoints += 1
            if self._heard(LOADED, at):
                return

    def _ram(self, stream):
        before = self.oracle.counters["xbzrle"]
        while True:
            kind = stream.u8()
            if kind == 0:
                break
            expect(kind == 3, "section type %d in a checkpoint", kind)
            section = stream.be32()
            expect(self.oracle.section_names[section] == "ram", "section %d in a checkpoint", section)
            self.oracle._ram(kind)
            if stream.peek() == 0x7e:
                stream.take(5)
        self.xbzrle += self.oracle.counters["xbzrle"] - before

    def close(self):
        for connection in (self.source, self.secondary, self._listener):
            if connection is not None:
                with contextlib.suppress(OSError):
                    connection.close()

    def __enter__(self):
        return self

    def __exit__(self, *unused):
        self.close()
