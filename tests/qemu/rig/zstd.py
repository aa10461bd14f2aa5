"""Streaming zstd decompression by the system's libzstd, which Python's standard library does not cover."""

import ctypes
import ctypes.util


class _Buffer(ctypes.Structure):
    _fields_ = [("data", ctypes.c_void_p), ("size", ctypes.c_size_t), ("at", ctypes.c_size_t)]


class Decompressor:
    """One zstd frame that is fed packet by packet."""

    def __init__(self):
        self._library = ctypes.CDLL(ctypes.util.find_library("zstd") or "libzstd.so.1")
        self._library.ZSTD_createDStream.restype = ctypes.c_void_p
        self._library.ZSTD_decompressStream.restype = ctypes.c_size_t
        self._library.ZSTD_decompressStream.argtypes = [ctypes.c_void_p, ctypes.POINTER(_Buffer),
                                                        ctypes.POINTER(_Buffer)]
        self._library.ZSTD_freeDStream.argtypes = [ctypes.c_void_p]
        self._stream = self._library.ZSTD_createDStream()

    def decompress(self, data, size):
        """Returns the `size` bytes that `data` holds; ValueError when it holds another number."""
        source = ctypes.create_string_buffer(bytes(data), len(data))
        target = ctypes.create_string_buffer(size + 1)
        taken = _Buffer(ctypes.addressof(source), len(data), 0)
        made = _Buffer(ctypes.addressof(target), size + 1, 0)
        while taken.at < len(data):
            before = (taken.at, made.at)
            left = self._library.ZSTD_decompressStream(self._stream, ctypes.byref(made), ctypes.byref(taken))
            if self._library.ZSTD_isError(ctypes.c_size_t(left)) or before == (taken.at, made.at):
                raise ValueError("zstd stream")
        if made.at != size:
            raise ValueError("zstd gave %d bytes, expected %d" % (made.at, size))
        return target.raw[:size]

    def __del__(self):
        self._library.ZSTD_freeDStream(self._stream)
