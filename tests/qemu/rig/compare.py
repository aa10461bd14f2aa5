"""Comparing received memory with the source's, page by page."""

import mmap
import os

from .guest import MIB
from .runner import expect
from .stream import PAGE, Decoder


def differing_pages(one, other, limit=8):
    """Offsets of the first differing pages of two buffers of equal length, and how many there are."""
    offsets, count = [], 0
    for base in range(0, len(one), MIB):
        a, b = one[base:base + MIB], other[base:base + MIB]
        if a == b:
            continue
        for at in range(0, len(a), PAGE):
            if a[at:at + PAGE] != b[at:at + PAGE]:
                count += 1
                if len(offsets) < limit:
                    offsets.append(base + at)
    return offsets, count


def expect_same(name, received, wanted):
    """Fails unless two buffers are equal; the text names the first pages that differ."""
    expect(len(received) == len(wanted), "%s: %d bytes received, the source has %d", name, len(received),
           len(wanted))
    offsets, count = differing_pages(received, wanted)
    expect(count == 0, "%s: %d of %d pages differ, first at %s", name, count, len(wanted) // PAGE,
           " ".join("%#x" % offset for offset in offsets))


def _first_difference(source, received, offset):
    """Says how the page at `offset` differs, which tells a stale page from a wrong one."""
    wanted, got = source[offset:offset + PAGE], received[offset:offset + PAGE]
    places = [at for at in range(PAGE) if wanted[at] != got[at]]
    first = places[0] & ~7
    return "; there %d bytes differ, at %#x..%#x; source %s, received %s" % (
        len(places), places[0], places[-1], wanted[first:first + 16].hex(), got[first:first + 16].hex())


def expect_same_files(name, received_path, source_path, ranges=None):
    """Fails unless the received file holds exactly the source's bytes, in `ranges` of (start, end) or everywhere.

    Returns the number of pages compared.
    """
    size = os.path.getsize(source_path)
    ranges = ranges or [(0, size)]
    expect(os.path.getsize(received_path) >= size, "%s: %s is shorter than the source's block", name, received_path)
    with open(received_path, "rb") as one, open(source_path, "rb") as other:
        with mmap.mmap(one.fileno(), 0, prot=mmap.PROT_READ) as received, \
                mmap.mmap(other.fileno(), 0, prot=mmap.PROT_READ) as source:
            offsets, count = [], 0
            for start, end in ranges:
                some, more = differing_pages(memoryview(source)[start:end], memoryview(received)[start:end])
                offsets, count = offsets + [start + offset for offset in some], count + more
            detail = _first_difference(source, received, offsets[0]) if offsets else ""
    expect(count == 0, "%s: %d of %d pages differ, first at %s%s", name, count, size // PAGE,
           " ".join("%#x" % offset for offset in offsets), detail)
    return sum(end - start for start, end in ranges) // PAGE


def expect_same_small_blocks(source, receiver, folder):
    """Compares every block without a file with an independently decoded capture of the stopped source."""
    path = os.path.join(folder, "small.capture")
    source.capture_small_blocks(path)
    with open(path, "rb") as file:
        oracle = Decoder(file.read(), ignore_shared=True)
    os.unlink(path)
    compared = 0
    for name, content in oracle.blocks.items():
        if name.rsplit("/", 1)[-1] in [backend.id for backend in source.backends if backend.kind == "file"]:
            continue
        expect_same(name, receiver.block(name), content)
        compared += 1
    expect(compared > 0, "no small block was compared")
