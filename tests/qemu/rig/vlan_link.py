#!/usr/bin/python3
"""A switch's access port: a tap whose frames bear no tag, and a QEMU netdev whose frames do.

usage: vlan_link.py NAMESPACE INTERFACE VLAN SOCKET [OUTER]

Makes INTERFACE in NAMESPACE, and gives its frames to the QEMU that connects to the UNIX socket SOCKET (netdev
"socket,fd=" or "stream": each frame after its length, 4 bytes, big-endian) with a tag of VLAN; OUTER: and with a
service tag of that number around it. Frames that come from QEMU without that tag are dropped. SIGTERM ends it; then it prints
one line per counter. Not every kernel has VLANs of its own.
"""

import os
import select
import signal
import socket
import struct
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from impair import open_tap, write

_CUSTOMER, _SERVICE = 0x8100, 0x88a8


def main():
    namespace, interface, vlan, path = sys.argv[1:5]
    tags = struct.pack(">HH", _CUSTOMER, int(vlan))
    if len(sys.argv) > 5:
        tags = struct.pack(">HH", _SERVICE, int(sys.argv[5])) + tags
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    listener.listen(1)
    tap = open_tap(namespace, interface)
    counts = dict.fromkeys(("tagged", "untagged", "dropped"), 0)
    stop = []
    signal.signal(signal.SIGTERM, lambda *unused: stop.append(True))
    print("ready", flush=True)
    machine, pending = listener.accept()[0], b""
    poller = select.poll()
    poller.register(tap, select.POLLIN)
    poller.register(machine, select.POLLIN)
    while not stop:
        for descriptor, _events in poller.poll(200):
            if descriptor == tap:
                out = []
                for _ in range(64):
                    try:
                        frame = os.read(tap, 65600)
                    except OSError:
                        break
                    out.append(struct.pack(">I", len(frame) + len(tags)) + frame[:12] + tags + frame[12:])
                counts["tagged"] += len(out)
                try:
                    machine.sendall(b"".join(out))
                except OSError:
                    stop.append(True)
                continue
            data = machine.recv(1 << 20)
            if not data:
                stop.append(True)
            pending += data
            while len(pending) >= 4 and len(pending) >= 4 + struct.unpack(">I", pending[:4])[0]:
                length = struct.unpack(">I", pending[:4])[0]
                frame, pending = pending[4:4 + length], pending[4 + length:]
                if frame[12:12 + len(tags)] == tags:
                    counts["untagged"] += 1
                    write(tap, frame[:12] + frame[12 + len(tags):])
                else:
                    counts["dropped"] += 1
    for key, value in counts.items():
        print(key, value)


if __name__ == "__main__":
    main()
