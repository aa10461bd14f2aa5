"""An independent decoder of migration streams: main channel and multifd channels, from captured files.

It is an oracle, so it is written for plainness and shares nothing with migrx. It reads whole files, applies
epoch after epoch (QEMU migration/ram.c, ram_load_precopy; migration/multifd.c, multifd_recv_thread) and keeps
every block in a bytearray.
"""

import struct
import zlib

from . import zstd

PAGE = 4096
ZERO, MEM_SIZE, SAVE_PAGE, EOS, CONTINUE, XBZRLE, COMPRESS, FLUSH = 2, 4, 8, 0x10, 0x20, 0x40, 0x100, 0x200
MULTIFD_SYNC, MULTIFD_ZLIB, MULTIFD_ZSTD = 1, 2, 4


class StreamError(Exception):
    """The bytes are not what QEMU sends."""


class Reader:
    """A cursor over bytes."""

    def __init__(self, data):
        self.data, self.at = data, 0

    def take(self, count):
        if self.at + count > len(self.data):
            raise StreamError("ends at %d, %d bytes wanted" % (len(self.data), count))
        self.at += count
        return self.data[self.at - count:self.at]

    def u8(self):
        return self.take(1)[0]

    def be16(self):
        return struct.unpack(">H", self.take(2))[0]

    def be32(self):
        return struct.unpack(">I", self.take(4))[0]

    def be64(self):
        return struct.unpack(">Q", self.take(8))[0]

    def str8(self):
        return bytes(self.take(self.u8())).decode()

    def peek(self):
        return self.data[self.at] if self.at < len(self.data) else None


def decode_xbzrle(page, patch):
    """Applies an XBZRLE patch to `page`, a bytearray (QEMU migration/xbzrle.c, xbzrle_decode_buffer)."""
    reader, position = Reader(patch), 0

    def uleb():
        low = reader.u8()
        return low if low < 0x80 else (low & 0x7f) | reader.u8() << 7

    while reader.at < len(patch):
        position += uleb()
        run = uleb()
        if run == 0 or position + run > PAGE:
            raise StreamError("XBZRLE run")
        page[position:position + run] = reader.take(run)
        position += run


class Channel:
    """One multifd channel's captured bytes; epoch() applies packets up to and including the next SYNC."""

    def __init__(self, data, decoder):
        self._reader, self._decoder = Reader(data), decoder
        self._zlib = zlib.decompressobj()
        self._zstd = zstd.Decompressor()
        magic, version = self._reader.be32(), self._reader.be32()
        if (magic, version) != (0x11223344, 1):
            raise StreamError("multifd init packet")
        self.uuid = self._reader.take(16)
        self.id = self._reader.u8()
        self._reader.take(39)
        self.packets = self.syncs = 0

    def at_end(self):
        return self._reader.at == len(self._reader.data)

    def epoch(self):
        while not self.at_end():
            if self._packet():
                self.syncs += 1
                return True
        return False

    def _packet(self):
        header = Reader(self._reader.take(320 + 8 * 128))
        magic, version, flags, _allocated, normal, size = (header.be32() for _ in range(6))
        if (magic, version) != (0x11223344, 1):
            raise StreamError("multifd packet of channel %d" % self.id)
        header.be64()
        zero = header.be32()
        header.take(28)
        name = bytes(header.take(256)).split(b"\0", 1)[0].decode()
        self.packets += 1
        counters = self._decoder.counters
        if normal:
            payload = self._reader.take(size)
            if flags & MULTIFD_ZLIB:
                data = self._zlib.decompress(payload)
                counters["multifd_zlib"] += 1
            elif flags & MULTIFD_ZSTD:
                data = self._zstd.decompress(payload, normal * PAGE)
                counters["multifd_zstd"] += 1
            else:
                data = payload
            if len(data) != normal * PAGE:
                raise StreamError("multifd payload of channel %d" % self.id)
            block = self._decoder.blocks[name]
            for index in range(normal):
                offset = header.be64()
                block[offset:offset + PAGE] = data[index * PAGE:(index + 1) * PAGE]
            counters["multifd_normal"] += normal
        for _ in range(zero):
            offset = header.be64()
            self._decoder.blocks[name][offset:offset + PAGE] = bytes(PAGE)
        counters["multifd_zero"] += zero
        return bool(flags & MULTIFD_SYNC)


class Decoder:
    """Decodes one capture; afterwards `blocks` maps each RAM block's name to its content.

    For whoever makes another stream of it: `sections` has (type, section id, offset) of each section before the
    device state, `patches` (block, offset in it, encoded bytes) of each XBZRLE page.
    """

    def __init__(self, main, channels=(), ignore_shared=False):
        """`main` and each of `channels` are bytes-like. `ignore_shared`: the source has x-ignore-shared on but
        is of a machine type that does not say so (no configuration section)."""
        self._reader, self._ignore_shared = Reader(main), ignore_shared
        self.blocks, self.ignored, self.machine, self.capabilities = {}, {}, "", []
        self.commands, self.section_names, self.rounds = [], {}, 0
        self.sections, self.patches = [], []
        self.counters = dict.fromkeys(("normal", "zero", "xbzrle", "compressed", "flush", "multifd_normal",
                                       "multifd_zero", "multifd_zlib", "multifd_zstd"), 0)
        self._last_block, self._round_mode, self._footer = None, False, True
        self.tail_offset = 0
        self._header()
        self.channels = [Channel(data, self) for data in channels]
        self._sections()

    def _header(self):
        reader = self._reader
        if reader.be32() != 0x5145564d or reader.be32() != 3:
            raise StreamError("header")
        if reader.peek() != 7:
            return
        reader.u8()
        self.machine = bytes(reader.take(reader.be32())).decode()
        while reader.peek() == 5:
            reader.u8()
            name, version = reader.str8(), reader.be32()
            if version != 1:
                raise StreamError(name)
            if name == "configuration/capabilities":
                self.capabilities = [reader.str8() for _ in range(reader.be32())]
            elif name == "configuration/target-page-bits":
                reader.be32()
            elif name == "configuration/uuid":
                reader.take(16)
            else:
                raise StreamError(name)

    def _sections(self):
        reader = self._reader
        while True:
            start, kind = reader.at, reader.u8()
            if kind == 8:
                command, length = reader.be16(), reader.be16()
                self.commands.append((command, bytes(reader.take(length))))
                continue
            if kind not in (1, 2, 3, 4):
                raise StreamError("section type %#x at %d" % (kind, start))
            section = reader.be32()
            if kind in (1, 4):
                self.section_names[section] = reader.str8()
                reader.be64()  # Instance and version.
            name = self.section_names[section]
            self.sections.append((kind, section, start))
            if kind == 4:
                self.tail_offset = start
                return
            if name == "ram":
                self._ram(kind)
            elif name == "dirty-bitmap" and reader.u8() == 1:
                pass  # Nothing but its end mark: no bitmaps.
            else:
                raise StreamError("section " + name)
            if reader.peek() == 0x7e:
                reader.u8()
                if reader.be32() != section:
                    raise StreamError("footer")

    def _block_list(self, total):
        reader = self._reader
        ignore_shared = self._ignore_shared or "x-ignore-shared" in self.capabilities
        while total > 0:
            name, length = reader.str8(), reader.be64()
            address = reader.be64() if ignore_shared else None
            total -= length
            # Every block gets a buffer; of those a shared-memory source leaves out no page arrives.
            self.blocks[name] = bytearray(length)
            if ignore_shared:
                self.ignored[name] = address
        if total:
            raise StreamError("block list")

    def _barrier(self):
        for channel in self.channels:
            channel.epoch()

    def _ram(self, kind):
        reader = self._reader
        while True:
            word = reader.be64()
            flags, offset = word & (PAGE - 1), word & ~(PAGE - 1)
            if flags & (ZERO | SAVE_PAGE | XBZRLE | COMPRESS):
                if not flags & CONTINUE:
                    self._last_block = reader.str8()
                block = self.blocks[self._last_block]
            kind_of_record = flags & ~CONTINUE
            if kind_of_record == MEM_SIZE:
                self._block_list(offset)
            elif kind_of_record == ZERO:
                if reader.u8():
                    raise StreamError("zero page with another byte")
                block[offset:offset + PAGE] = bytes(PAGE)
                self.counters["zero"] += 1
            elif kind_of_record == SAVE_PAGE:
                block[offset:offset + PAGE] = reader.take(PAGE)
                self.counters["normal"] += 1
            elif kind_of_record == XBZRLE:
                if reader.u8() != 1:
                    raise StreamError("XBZRLE flag")
                page, patch = bytearray(block[offset:offset + PAGE]), reader.take(reader.be16())
                self.patches.append((self._last_block, offset, patch))
                decode_xbzrle(page, patch)
                block[offset:offset + PAGE] = page
                self.counters["xbzrle"] += 1
            elif kind_of_record == COMPRESS:
                page = zlib.decompress(reader.take(reader.be32()))
                if len(page) != PAGE:
                    raise StreamError("compressed page")
                block[offset:offset + PAGE] = page
                self.counters["compressed"] += 1
            elif kind_of_record == FLUSH:
                self.counters["flush"] += 1
                self._round_mode = True
                self._barrier()
            elif kind_of_record == EOS:
                if not self._round_mode:
                    self._barrier()
                self.rounds += 1
                break
            else:
                raise StreamError("flags %#x at %d" % (flags, reader.at))
        if kind == 3:  # END: every channel's data belongs to an epoch that has passed, but for a last SYNC.
            for channel in self.channels:
                while channel.epoch():
                    pass
