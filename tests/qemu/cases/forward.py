"""Connections that are forwarded to servers of the destination's host: what peers and servers may do to them, and what
they may not do to the migration."""

import contextlib
import ctypes
import os
import socket
import struct
import threading
import time

from rig.compare import expect_same_files
from rig.guest import MIB
from rig.machine import Backend, Machine
from rig.network import NEAR, Network, RECEIVER, _ip, attached
from rig.receiver import Receiver
from rig.runner import Case, expect
from rig.transfer import FAST, Transfer, need

_libc = ctypes.CDLL(None, use_errno=True)
_PLACES = 8
_FRIEND, _STRANGER = "10.77.0.9", "10.99.0.1"  # inside --allow, and not
_OURS, _NOBODYS, _SLOW = 10809, 10810, 10811


def _within(namespace, make):
    """What `make` returns or raises in that network namespace: sockets stay where they were made."""
    made = []

    def enter():
        try:
            with open("/run/netns/" + namespace, "rb") as file:
                if _libc.setns(file.fileno(), 0x40000000):  # CLONE_NEWNET
                    raise OSError(ctypes.get_errno(), "setns")
            made.append((make(), None))
        except OSError as error:
            made.append((None, error))
    thread = threading.Thread(target=enter)
    thread.start()
    thread.join()
    result, error = made[0]
    if error is not None:
        raise error
    return result


class _Server:
    """Listens on loopback in the receiver's namespace."""

    def __init__(self, stack, network, port=0, backlog=512):
        self._stack = stack

        def listen():
            listener = socket.socket()
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(("127.0.0.1", port))
            listener.listen(backlog)
            return listener
        self.listener = stack.enter_context(_within(network.receiver, listen))
        self.listener.settimeout(20)
        self.port = self.listener.getsockname()[1]

    def accept(self, greeting=b"SERVER01"):
        one = self._stack.enter_context(self.listener.accept()[0])
        one.settimeout(20)
        one.sendall(greeting)
        return one


def _connect(stack, network, port, address=NEAR, timeout=20):
    return stack.enter_context(_within(network.source, lambda: socket.create_connection(
        (RECEIVER, port), timeout, source_address=(address, 0))))


def _refused(stack, network, port, address=NEAR):
    """A connection there is reset before a byte comes."""
    try:
        with _connect(stack, network, port, address) as client:
            return client.recv(1) == b""
    except (ConnectionRefusedError, ConnectionResetError):
        return True


def _receive(client, size):
    data = bytearray()
    while len(data) < size:
        part = client.recv(1 << 16)
        expect(part, "the connection ended after %d of %d bytes", len(data), size)
        data += part
    return bytes(data)


def _expect_reset(client, what):
    try:
        while client.recv(1 << 16):
            pass
    except ConnectionResetError:
        return
    expect(False, "%s: the connection was closed, not reset", what)


def _reset(client):
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.close()


def _misuse(stack, network, server):
    """Connections of all kinds; none of them is left."""
    # The server speaks first, and the peer may wait for it.
    client = _connect(stack, network, _OURS)
    peer = server.accept()
    expect(_receive(client, 8) == b"SERVER01", "no greeting")
    # Both ways at a time, whole; the way back is narrow and loses nothing.
    data, answer = os.urandom(8 * MIB), os.urandom(256 << 10)
    heard = []
    threads = [threading.Thread(target=client.sendall, args=(data,)), threading.Thread(target=peer.sendall, args=(answer,)),
               threading.Thread(target=lambda: heard.append(_receive(peer, len(data))))]
    for thread in threads:
        thread.start()
    expect(_receive(client, len(answer)) == answer, "what the server said has changed")
    for thread in threads:
        thread.join()
    expect(heard and heard[0] == data, "what the peer said has changed")
    # Another host, while this one writes; one that may not connect at all.
    expect(_refused(stack, network, _OURS, _FRIEND), "a second host was let in")
    expect(_refused(stack, network, _OURS, _STRANGER), "a stranger was let in")
    # Each side closes in its turn.
    client.shutdown(socket.SHUT_WR)
    expect(peer.recv(1) == b"", "the server does not hear of the end")
    peer.sendall(b"bye")
    peer.close()
    expect(_receive(client, 3) == b"bye" and client.recv(1) == b"", "the last words are lost")
    # A peer that is reset, a server that is.
    client = _connect(stack, network, _OURS)
    peer = server.accept()
    _receive(client, 8)
    _reset(client)
    _expect_reset(peer, "the peer was reset")
    client = _connect(stack, network, _OURS)
    peer = server.accept()
    _receive(client, 8)
    _reset(peer)
    _expect_reset(client, "the server was reset")
    # Nobody listens there.
    expect(_refused(stack, network, _NOBODYS), "a connection to no server stays")
    # As many as there are places, and no more; they are free again afterwards.
    many = [_connect(stack, network, _OURS) for _ in range(_PLACES)]
    expect(_refused(stack, network, _OURS), "one more than there are places was let in")
    for one in many:
        server.accept()
        _receive(one, 8)
        _reset(one)


def _servers(version):
    def run(folder):
        need(version)
        with contextlib.ExitStack() as stack:
            network = stack.enter_context(Network())
            server, slow = _Server(stack, network), _Server(stack, network)
            transfer = Transfer(version, channels=2, dirty_s=1.0, receiver_extra=(
                "--forward", "%d=127.0.0.1:%d" % (_OURS, server.port), "--forward", "%d=127.0.0.1:9" % _NOBODYS,
                "--forward", "%d=127.0.0.1:%d" % (_SLOW, slow.port)))
            source = transfer.start_source(folder, stack, network)
            options, files = transfer.ram_files(folder, source)
            receiver = transfer.start_receiver(folder, stack, network, options)
            for address in (_FRIEND, _STRANGER):
                _ip("-n", network.source, "addr", "add", address + "/24", "dev", "mig0")
            deadline = time.monotonic() + 20
            _misuse(stack, network, server)
            while True:  # The places of the last ones are free when their resets have been heard.
                with contextlib.suppress(ConnectionError):
                    client = _connect(stack, network, _OURS)
                    peer = server.accept()
                    break
                expect(time.monotonic() < deadline, "the places are not free again")
            # A server that reads nothing, and one that reads what a peer pushes all the while: RAM goes on beside both.
            full = _connect(stack, network, _SLOW)
            slow.accept()
            full.settimeout(0.5)
            sent = 0
            with contextlib.suppress(TimeoutError):
                while sent < 256 * MIB:
                    sent += full.send(bytes(MIB))
            expect(sent < 256 * MIB, "what a server does not read is taken without end")
            pushed = []
            pusher = threading.Thread(target=_push, args=(client, peer, pushed))
            pusher.start()
            source.migrate(receiver.uri)
            transfer.converge(source)
            source.wait_migration(timeout=90)
            status = receiver.wait(90)
            expect(status == 0, "migrx ended with %d: %s", status, receiver.log()[-2000:])
            for backend in source.backends:
                expect_same_files(backend.id, files[backend.id], backend.path)
            pusher.join()
            log = receiver.log()
            expect("which another source uses" in log and "does not take connections" in log, "%s", log[-3000:])
            return "%.0f MiB/s beside a migration" % pushed[0]
    return run


def _push(client, peer, rates):
    """Until the connection ends: the migration is over."""
    def drain():
        with contextlib.suppress(OSError):
            while peer.recv(MIB):
                pass
    reader = threading.Thread(target=drain)
    reader.start()
    begun, sent, data = time.monotonic(), 0, bytes(MIB)
    with contextlib.suppress(OSError):
        while True:
            sent += client.send(data)
    rates.append(sent / MIB / (time.monotonic() - begun))
    reader.join()


def _nbd(version):
    """The destination QEMU's NBD server is found, also when it starts late; what others listen on is not."""
    def run(folder):
        need(version)
        with contextlib.ExitStack() as stack:
            network = stack.enter_context(Network())
            source = Transfer(version, dirty_s=0.5).start_source(folder, stack, network)
            path = os.path.join(folder, "memory")
            destination = stack.enter_context(Machine(
                folder, version, "pc", [Backend("mem", source.backends[0].size, kind="file", path=path)],
                namespace=network.receiver, incoming="defer", name="destination", extra=("-S",)))
            destination.qmp.command("migrate-incoming", uri="tcp:127.0.0.1:49152")
            _Server(stack, network, 49160)  # not that QEMU's
            receiver = stack.enter_context(Receiver(
                folder, network, {"mem": "%s,size=%d" % (path, source.backends[0].size)},
                handoff="tcp:127.0.0.1:49152"))
            expect(receiver.wait_ready(), "migrx did not get ready: %s", receiver.log())
            expect(_refused(stack, network, 49153), "somebody listens on 49153")
            expect(_refused(stack, network, 49160), "another process's server is forwarded")
            destination.qmp.command("nbd-server-start", addr={"type": "inet", "data": {"host": "127.0.0.1", "port": "49153"}})
            deadline = time.monotonic() + 10
            while _refused(stack, network, 49153):
                expect(time.monotonic() < deadline, "it is not found: %s", receiver.log())
                time.sleep(0.05)
            client = _connect(stack, network, 49153)
            expect(_receive(client, 16)[:8] == b"NBDMAGIC", "no greeting")
            client.close()
            destination.qmp.command("nbd-server-stop")
            while not _refused(stack, network, 49153):
                expect(time.monotonic() < deadline, "it is still forwarded: %s", receiver.log())
                time.sleep(0.05)
            source.set_parameters(max_bandwidth=FAST, downtime_limit=2000)
            source.migrate(receiver.uri)
            source.wait_migration(timeout=90)
            destination.qmp.command("cont")
            expect(receiver.wait(30) == 0, "migrx: %s", receiver.log())
            expect(destination.running() and not source.running(), "not exactly one guest runs")
    return run


def _killed(folder):
    """migrx is ended, and another one killed, with forwarded connections: their peers are reset, too."""
    need()
    with contextlib.ExitStack() as stack:
        network = stack.enter_context(Network())
        server = _Server(stack, network)
        for name, kill in (("first", False), ("second", True)):
            receiver = stack.enter_context(Receiver(
                folder, network, {"mem": os.path.join(folder, name) + ",size=64M"}, name=name,
                extra=("--forward", "%d=127.0.0.1:%d" % (_OURS, server.port))))
            expect(receiver.wait_ready(), "migrx did not get ready: %s", receiver.log())
            client = _connect(stack, network, _OURS)
            peer = server.accept()
            _receive(client, 8)
            client.sendall(b"hello")
            expect(_receive(peer, 5) == b"hello", "not forwarded")
            if kill:
                os.kill(receiver.children()[0], 9)
                stack.enter_context(attached(network))  # the interface is made anew by the one that resets
            else:
                receiver.signal()
            _expect_reset(client, name)
            receiver.close()
            client.close()


def cases():
    yield Case("forward-servers-7.2", _servers("7.2"), True, 180)
    yield Case("forward-servers-10", _servers("10"), False, 180)
    yield Case("forward-nbd-7.2", _nbd("7.2"), False, 120)
    yield Case("forward-nbd-10", _nbd("10"), True, 120)
    yield Case("forward-killed", _killed, False, 120)
