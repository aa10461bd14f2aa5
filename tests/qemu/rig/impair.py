#!/usr/bin/python3
"""A link with faults: joins two tap interfaces, one in each of two network namespaces.

usage: impair.py NAMESPACE NAMESPACE [--seed N] [--loss P] [--duplicate P] [--reorder P] [--corrupt P]

P are probabilities for each frame that carries TCP payload towards the second namespace; ACKs and ARP travel
unharmed unless --both. The decisions come from --seed alone: the same sequence of frames meets the same faults.
Reordered frames are held back until some later frames have passed (or 20 ms). Corruption flips one bit behind
the Ethernet header. SIGTERM ends it; then it prints one line per counter.
"""

import argparse
import ctypes
import fcntl
import os
import random
import select
import signal
import struct
import sys
import time

_TUNSETIFF, _IFF_TAP, _IFF_NO_PI = 0x400454ca, 2, 0x1000
_CLONE_NEWNET = 0x40000000
_HOLD_S = 0.02


def open_tap(namespace, name="link0"):
    """A tap interface `name` made inside `namespace`; returns its descriptor."""
    libc = ctypes.CDLL(None, use_errno=True)
    with open("/run/netns/" + namespace, "rb") as file:
        if libc.setns(file.fileno(), _CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), "setns " + namespace)
    descriptor = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(descriptor, _TUNSETIFF, struct.pack("16sH22x", name.encode(), _IFF_TAP | _IFF_NO_PI))
    return descriptor


def has_payload(frame):
    """True for an IPv4 TCP segment with data: the frames that faults are for."""
    if len(frame) < 54 or frame[12:14] != b"\x08\x00" or frame[23] != 6:
        return False
    ip_header, total = (frame[14] & 15) * 4, struct.unpack_from(">H", frame, 16)[0]
    tcp_header = (frame[14 + ip_header + 12] >> 4) * 4 if len(frame) > 26 + ip_header else 0
    return total > ip_header + tcp_header


class Link:
    """Decides what becomes of each frame, and keeps those that are held back."""

    def __init__(self, options):
        self._options, self._random, self._held = options, random.Random(options.seed), []
        self.counts = dict.fromkeys(("frames", "lost", "duplicated", "reordered", "corrupted"), 0)

    def forward(self, frame, now):
        """Frames to deliver now that `frame` has come in."""
        self.counts["frames"] += 1
        out, options, dice = [], self._options, self._random
        # Five draws for every frame, used or not, so that one option does not shift another's decisions.
        loss, duplicate, reorder, corrupt, where = (dice.random() for _ in range(5))
        if loss < options.loss or len(frame) > options.longest:
            self.counts["lost"] += 1
        else:
            if corrupt < options.corrupt:
                self.counts["corrupted"] += 1
                frame = bytearray(frame)
                bit = int(where * (len(frame) - 14) * 8)
                frame[14 + bit // 8] ^= 1 << bit % 8
            if reorder < options.reorder:
                self.counts["reordered"] += 1
                self._held.append([1 + int(where * options.distance), now + _HOLD_S, frame])
                frame = None
            if frame is not None:
                out.append(frame)
                if duplicate < options.duplicate:
                    self.counts["duplicated"] += 1
                    out.append(frame)
        for entry in self._held:
            entry[0] -= 1
        return out + self.due(now)

    def due(self, now):
        """Held frames whose turn has come."""
        out = [frame for left, deadline, frame in self._held if left < 0 or deadline <= now]
        self._held = [entry for entry in self._held if not (entry[0] < 0 or entry[1] <= now)]
        return out

    def holds(self):
        return bool(self._held)


def write(descriptor, frame):
    try:
        os.write(descriptor, frame)
    except OSError:
        pass  # The interface is down or its queue is full: the frame is lost, as on any link.


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("namespaces", nargs=2)
    parser.add_argument("--seed", type=int, default=1)
    for name in ("loss", "duplicate", "reorder", "corrupt"):
        parser.add_argument("--" + name, type=float, default=0.0)
    parser.add_argument("--distance", type=int, default=8, help="frames that pass a reordered one, at most")
    parser.add_argument("--longest", type=int, default=1 << 20, help="bytes of the longest frame that passes")
    parser.add_argument("--both", type=int, default=0, help="1: the other direction has the same faults")
    options = parser.parse_args()
    near, far = (open_tap(name) for name in options.namespaces)
    stop = []
    signal.signal(signal.SIGTERM, lambda *unused: stop.append(True))
    links = {near: (far, Link(options)), far: (near, Link(options))}
    print("ready", flush=True)
    poller = select.poll()
    for descriptor in links:
        poller.register(descriptor, select.POLLIN)
    while not stop:
        holding = any(link.holds() for _, link in links.values())
        ready = poller.poll(5 if holding else 200)
        now = time.monotonic()
        for descriptor, _ in ready:
            other, link = links[descriptor]
            for _ in range(64):
                try:
                    frame = os.read(descriptor, 65600)
                except OSError:
                    break  # Nothing more for now, or the interface is not up yet.
                if (descriptor == near or options.both) and has_payload(frame):
                    for each in link.forward(frame, now):
                        write(other, each)
                else:
                    write(other, frame)
        for other, link in links.values():
            for frame in link.due(now):
                write(other, frame)
    for key, value in links[near][1].counts.items():
        print(key, value)
    sys.stdout.flush()


if __name__ == "__main__":
    main()
