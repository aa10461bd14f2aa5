#!/usr/bin/python3
"""Turns an interface's offloads off, so that frames bear their checksums and are no longer than the MTU.

usage: offloads.py INTERFACE; in the network namespace it is run in. An af_packet port at the other end of a veth needs
that: the kernel would leave both to hardware that is not there.
"""

import ctypes
import fcntl
import socket
import struct
import sys

SIOCETHTOOL = 0x8946
# linux/ethtool.h: ETHTOOL_STXCSUM, ETHTOOL_STSO, ETHTOOL_SGSO, ETHTOOL_SGRO
COMMANDS = (0x17, 0x1f, 0x24, 0x2c)


def main():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        for command in COMMANDS:
            value = ctypes.create_string_buffer(struct.pack("II", command, 0))  # struct ethtool_value
            request = struct.pack("16sP16x", sys.argv[1].encode(), ctypes.addressof(value))  # struct ifreq
            fcntl.ioctl(control, SIOCETHTOOL, request)


if __name__ == "__main__":
    main()
