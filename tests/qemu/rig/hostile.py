#!/usr/bin/python3
"""A hostile neighbour on the receiver's link: forges frames with a packet socket until it is told to end.

usage: hostile.py INTERFACE TARGET PORT SOURCE [--seed N] [--only ATTACK...] [--manners MANNER...] [--flood N]

In the network namespace that holds INTERFACE. TARGET is migrx's address, of either family, SOURCE that of the
migration's source, whose live connections it watches to know their numbers: it is as bad as a neighbour can be that
does not use what would end any TCP connection, an RST or data with exactly the next number and a valid timestamp.
With --flood N it prints "flooded" when more SYNs than that have been sent. SIGTERM ends it; then it prints one line per
attack with the number of frames sent.
"""

import argparse
import ipaddress
import random
import signal
import socket
import struct
import sys
import time

FIN, SYN, RST, PSH, ACK, URG = 1, 2, 4, 8, 16, 32
_FLOOD_PER_ROUND = 24
_MULTIFD_HELLO = bytes.fromhex("1122334400000001" + "00" * 56)
_MASK = 0xffffffff
# Of connections that the neighbour opens.
_MANNERS = ("silent", "garbage", "tls", "holes", "tiny", "zero_window", "multifd", "leaves")


def checksum(data):
    """RFC 1071."""
    if len(data) % 2:
        data += b"\0"
    total = sum(struct.unpack(">%dH" % (len(data) // 2), data))
    while total >> 16:
        total = (total & 0xffff) + (total >> 16)
    return ~total & 0xffff


def timestamps(value, echo):
    return struct.pack(">BBBBII", 1, 1, 8, 10, value & _MASK, echo & _MASK)


def family_of(address):
    return socket.AF_INET6 if ":" in address else socket.AF_INET


def packed(address):
    return socket.inet_pton(family_of(address), address)


def tcp(source, target, ports, seq, ack, flags, window=1000, options=b"", payload=b"", damage=0):
    """A TCP segment; `damage` is added to its checksum."""
    options += b"\1" * (-len(options) % 4)
    head = struct.pack(">HHIIBBHHH", ports[0], ports[1], seq & _MASK, ack & _MASK, (5 + len(options) // 4) << 4, flags,
                       window, 0, 0) + options
    pseudo = packed(source) + packed(target) + struct.pack(">II", len(head) + len(payload), 6)
    value = (checksum(pseudo + head + payload) + damage) & 0xffff
    return head[:16] + struct.pack(">H", value) + head[18:] + payload


def ip(source, target, payload, options=b"", fragment=0, damage=0):
    """An IPv4 packet. `fragment`: the field with flags and offset."""
    head = struct.pack(">BBHHHBBH", 0x45 + len(options) // 4, 0, 20 + len(options) + len(payload), 0x4242, fragment,
                       64, 6, 0) + packed(source) + packed(target) + options
    return head[:10] + struct.pack(">H", (checksum(head) + damage) & 0xffff) + head[12:] + payload


def ip6(source, target, payload, extension=b"", kind=0, damage=0):
    """An IPv6 packet. `extension`: an extension header without its first byte, `kind` its number; `damage` is added to
    the payload length, for the header has no checksum."""
    if extension:
        payload = b"\6" + extension + payload
    head = struct.pack(">IHBB", 6 << 28, len(payload) + damage, kind if extension else 6, 64)
    return head + packed(source) + packed(target) + payload


class Live:
    """What has been overheard of one of the source's connections, in its own numbers."""

    def __init__(self):
        self.source_next = self.source_ts = self.migrx_next = self.migrx_ts = self.acknowledged = None

    def complete(self):
        return None not in (self.source_ts, self.migrx_ts)


class Peer:
    """A connection from an address nobody has, so that no kernel answers for it."""

    def __init__(self, address, port, manner):
        self.address, self.port, self.manner = address, port, manner
        self.seq, self.ack, self.born, self.sent, self.open = 1000, 0, time.monotonic(), 0, False


class Hostile:
    """The attacks; each is a method that sends a few frames and is called again and again."""

    def __init__(self, options):
        self._random, self._target, self._port = random.Random(options.seed), options.target, options.port
        self._flood = options.flood
        self._source, self._ipv6 = options.source, ":" in options.target
        self._subnet = ipaddress.ip_interface(options.target + ("/64" if self._ipv6 else "/24")).network
        self._family = family_of(options.target)
        self._ether_type = b"\x86\xdd" if self._ipv6 else b"\x08\x00"
        # ETH_P_ALL: only such a socket sees what the host itself sends.
        self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
        self._socket.bind((options.interface, 3))
        self._socket.setblocking(False)
        self._own_mac = self._socket.getsockname()[4]
        self._target_mac = None
        self._live, self._peers, self._next_port, self._manners = {}, {}, 20000, options.manners
        attacks = (self.syn_flood, self.syn_from_afar, self.rst_outside, self.rst_in_window, self.syn_in_window,
                   self.ack_storm, self.wrong_ack_with_data, self.data_beyond_window, self.old_data_that_differs,
                   self.data_without_timestamp, self.data_from_the_past, self.bad_checksums, self.fragments,
                   self.ip_options, self.fin_outside, self.stray_segments, self.torn_frames, self.peers)
        self._attacks = [attack for attack in attacks if not options.only or attack.__name__ in options.only]
        self.counts = {attack.__name__: 0 for attack in self._attacks}

    # ---- The wire

    def _send(self, packet):
        try:
            self._socket.send(self._target_mac + self._own_mac + self._ether_type + packet)
            self.counts[self._present] += 1
        except OSError:
            pass  # the interface's queue is full, or migrx has ended and it is gone

    def listen(self):
        """Takes in what passed by, so that numbers are fresh."""
        target = packed(self._target)
        for _ in range(4000):
            try:
                frame = self._socket.recv(128)
            except OSError:
                return
            if frame[12:14] == b"\x08\x06" and frame[28:32] == target:
                self._target_mac = frame[22:28]  # it announced itself, or answered
            if self._ipv6 and frame[12:14] == self._ether_type and frame[20] == 58 and frame[22:38] == target:
                self._target_mac = frame[6:12]  # by neighbour discovery
            if len(frame) < 54 or frame[12:14] != self._ether_type or frame[20 if self._ipv6 else 23] != 6:
                continue
            head = 54 if self._ipv6 else 14 + (frame[14] & 15) * 4
            if len(frame) < head + 20:
                continue
            self._overhear(frame, head)

    def _overhear(self, frame, head):
        at, size = (22, 16) if self._ipv6 else (26, 4)
        source, target = (socket.inet_ntop(self._family, frame[i:i + size]) for i in (at, at + size))
        ports, seq, ack = struct.unpack_from(">HH", frame, head), *struct.unpack_from(">II", frame, head + 4)
        length, flags = (frame[head + 12] >> 4) * 4, frame[head + 13]
        ts = None
        if length >= 32 and frame[head + 20:head + 24] == b"\1\1\x08\x0a" and len(frame) >= head + 32:
            ts = struct.unpack_from(">I", frame, head + 24)[0]
        # IPv6's length does not count its own header.
        payload = (struct.unpack_from(">H", frame, 18)[0] if self._ipv6 else
                   struct.unpack_from(">H", frame, 16)[0] - (head - 14)) - length
        if self._target_mac is None and target == self._target:
            self._target_mac = frame[:6]
        if source == self._target and ports[0] == self._port:
            if target == self._source and ts is not None and flags & SYN == 0:
                live = self._live.setdefault(ports[1], Live())
                live.acknowledged, live.migrx_next, live.migrx_ts = ack, seq + payload, ts
            peer = self._peers.get((target, ports[1]))
            if peer is not None:
                self._hear_as_peer(peer, flags, seq)
        elif target == self._target and source == self._source and ts is not None and flags == flags & (ACK | PSH):
            # Our own forgeries come by as well; the kernel's numbers only grow.
            live = self._live.get(ports[0])
            if live is not None and (live.source_ts is None or 0 <= ts - live.source_ts < 5000):
                live.source_next, live.source_ts = seq + payload, ts

    def _hear_as_peer(self, peer, flags, seq):
        if flags & RST:
            self._peers.pop((peer.address, peer.port), None)
        elif flags & SYN:
            peer.open, peer.ack, peer.seq = True, seq + 1, 1001
            self._as_peer(peer, ACK)

    def run(self, stop):
        """Attacks in turn until `stop` holds something."""
        with socket.socket(self._family, socket.SOCK_DGRAM) as asks:  # the kernel asks the link where it is
            asks.sendto(b"", (self._target, 9))
        while not stop:
            if self._flood is not None and self.counts["syn_flood"] > self._flood:
                self._flood = None
                print("flooded", flush=True)
            self.listen()
            if self._target_mac is not None:
                for attack in self._attacks:
                    self._present = attack.__name__
                    attack()
            time.sleep(0.002)

    # ---- Without a connection

    def _neighbour(self):
        return str(self._subnet[self._random.randrange(100, 250)])

    def _syn(self, source):
        ports = (self._random.randrange(1024, 65535), self._port)
        options = struct.pack(">BBHBBBBBBBB", 2, 4, 1460, 4, 2, 1, 3, 3, 7, 1, 1) + timestamps(77, 0)
        segment = tcp(source, self._target, ports, self._random.getrandbits(32), 0, SYN, options=options)
        self._send(self._packet(source, segment))

    def syn_flood(self):
        for _ in range(_FLOOD_PER_ROUND):
            self._syn(self._neighbour())

    def syn_from_afar(self):
        self._syn(("2001:db8::%x" if self._ipv6 else "192.0.2.%d") % self._random.randrange(1, 255))

    def _packet(self, source, segment):
        return (ip6 if self._ipv6 else ip)(source, self._target, segment)

    def stray_segments(self):
        for flags in (ACK, ACK | PSH, FIN | ACK, RST, SYN | ACK, 0, 255):
            source, ports = self._neighbour(), (self._random.randrange(1024, 65535), self._port)
            segment = tcp(source, self._target, ports, self._random.getrandbits(32), self._random.getrandbits(32), flags,
                          payload=b"x" * self._random.randrange(0, 40))
            self._send(self._packet(source, segment))

    def torn_frames(self):
        whole = self._packet(self._neighbour(), tcp(self._source, self._target, (1, self._port), 1, 1, ACK))
        self._send(whole[:self._random.randrange(0, len(whole))])
        self._send(self._random.randbytes(self._random.randrange(0, 400)))

    # ---- Into the source's connections

    def _forge(self, port, live, **changes):
        fields = {"ports": (port, self._port), "seq": live.acknowledged, "ack": live.migrx_next, "flags": ACK,
                  "options": timestamps(live.source_ts, live.migrx_ts)}
        outer = {key: changes.pop(key) for key in ("fragment", "ip_options", "ip_damage") if key in changes}
        fields.update(changes)
        segment = tcp(self._source, self._target, **fields)
        if not self._ipv6:
            self._send(ip(self._source, self._target, segment, outer.get("ip_options", b""), outer.get("fragment", 0),
                          outer.get("ip_damage", 0)))
        elif "fragment" in outer:  # RFC 8200 section 4.5: the offset stands three bits higher, "more" is the last
            field = (outer["fragment"] & 0x1fff) << 3 | outer["fragment"] >> 13
            self._send(ip6(self._source, self._target, segment, struct.pack(">BHI", 0, field, 0x4242), 44))
        else:
            self._send(ip6(self._source, self._target, segment, outer.get("ip_options", b""), 60,
                           outer.get("ip_damage", 0)))

    def _victims(self):
        return [(port, live) for port, live in self._live.items() if live.complete()]

    def rst_outside(self):
        for port, live in self._victims():
            for offset in (-1, -70000, 1 << 30, 1 << 31):
                self._forge(port, live, flags=RST, seq=live.acknowledged + offset, options=b"")

    def rst_in_window(self):
        for port, live in self._victims():
            for offset in (1, 2, 3):  # no segment is that short, so none is the next number by then
                self._forge(port, live, flags=RST, seq=live.acknowledged + offset, options=b"")

    def syn_in_window(self):
        for port, live in self._victims():
            for offset in (0, 10001, -90000, 1 << 29):
                self._forge(port, live, flags=SYN, seq=live.acknowledged + offset)

    def ack_storm(self):
        for port, live in self._victims():
            for n in range(8):
                self._forge(port, live, ack=live.migrx_next + (n + 1) * 100000)
                self._forge(port, live, ack=live.migrx_next - (1 << 30))
                self._forge(port, live, seq=live.acknowledged - 100000)

    def wrong_ack_with_data(self):
        for port, live in self._victims():
            self._forge(port, live, ack=live.migrx_next + (1 << 24), flags=ACK | PSH, payload=b"forged" * 100,
                        options=timestamps(live.source_ts + (1 << 30), live.migrx_ts))

    def data_beyond_window(self):
        for port, live in self._victims():
            self._forge(port, live, seq=live.acknowledged + (1 << 29), payload=b"beyond" * 100)

    def old_data_that_differs(self):
        for port, live in self._victims():
            self._forge(port, live, seq=live.acknowledged - 60000, payload=b"differs" * 50)

    def data_without_timestamp(self):
        for port, live in self._victims():
            self._forge(port, live, payload=b"without" * 50, options=b"")

    def data_from_the_past(self):
        for port, live in self._victims():
            self._forge(port, live, payload=b"past" * 50, options=timestamps(live.source_ts - 100000, live.migrx_ts))

    def fin_outside(self):
        for port, live in self._victims():
            self._forge(port, live, flags=FIN | ACK, seq=live.acknowledged + (1 << 29))

    def bad_checksums(self):
        for port, live in self._victims():
            self._forge(port, live, payload=b"damaged" * 50, damage=1)
            self._forge(port, live, payload=b"damaged" * 50, ip_damage=1)

    def fragments(self):
        for port, live in self._victims():
            self._forge(port, live, payload=b"first part", fragment=0x2000)
            self._forge(port, live, payload=b"later part", fragment=0x0010)

    def ip_options(self):
        # Record route; what follows is refused for its number alone. Of IPv6, destination options that a receiver need
        # not know, and some that it must.
        options = (b"\0\x1e\4\0\0\0\0", b"\0\xde\4\0\0\0\0") if self._ipv6 else (b"\7\7\4\0\0\0\0\0",)
        for port, live in self._victims():
            for each in options:
                self._forge(port, live, seq=live.acknowledged + (1 << 29), payload=b"options", ip_options=each)

    # ---- Connections of its own

    def peers(self):
        """Keeps a dozen connections that do what no source does."""
        now = time.monotonic()
        for key, peer in list(self._peers.items()):
            if now - peer.born > 5:
                del self._peers[key]
            elif peer.open:
                self._behave(peer)
        while len(self._peers) < 12:
            self._next_port += 1
            peer = Peer(self._neighbour(), self._next_port, self._random.choice(self._manners))
            self._peers[(peer.address, peer.port)] = peer
            peer.seq = 1000
            self._as_peer(peer, SYN)

    def _as_peer(self, peer, flags, payload=b"", offset=0):
        window = {"zero_window": 0, "tiny": 1}.get(peer.manner, 65535)
        segment = tcp(peer.address, self._target, (peer.port, self._port), peer.seq + offset, peer.ack, flags, window,
                      b"" if flags & SYN == 0 else struct.pack(">BBH", 2, 4, 64), payload)
        self._send(self._packet(peer.address, segment))

    def _behave(self, peer):
        peer.sent += 1
        if peer.manner == "garbage" and peer.sent == 1:
            self._as_peer(peer, ACK | PSH, b"\xff" + self._random.randbytes(60))
        elif peer.manner == "tls" and peer.sent == 1:  # as a scanner begins
            self._as_peer(peer, ACK | PSH, b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + self._random.randbytes(32))
        elif peer.manner == "multifd" and peer.sent == 1:
            self._as_peer(peer, ACK | PSH, _MULTIFD_HELLO)
        elif peer.manner == "holes" and peer.sent < 400:
            for n in range(8):  # the first byte never comes
                self._as_peer(peer, ACK, b"h", offset=1 + 2 * (8 * peer.sent + n))
        elif peer.manner == "tiny" and peer.sent <= 3:
            self._as_peer(peer, ACK | PSH, b"Q", offset=peer.sent - 1)
        elif peer.manner == "leaves" and peer.sent == 1:
            self._as_peer(peer, FIN | ACK)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("interface")
    parser.add_argument("target")
    parser.add_argument("port", type=int)
    parser.add_argument("source")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", nargs="*", default=[])
    parser.add_argument("--manners", nargs="*", default=_MANNERS, choices=_MANNERS)
    parser.add_argument("--flood", type=int)
    stop = []
    signal.signal(signal.SIGTERM, lambda *unused: stop.append(True))
    hostile = Hostile(parser.parse_args())
    print("ready", flush=True)
    hostile.run(stop)
    for name, count in hostile.counts.items():
        print(name, count)
    sys.stdout.flush()


if __name__ == "__main__":
    main()
