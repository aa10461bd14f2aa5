"""The archive that a Linux kernel unpacks into its first file system."""

import os
import re
import lzma

_DIRECTORY, _REGULAR, _LINK = 0o040755, 0o100755, 0o120777


def newc(entries):
    """A cpio archive ("newc", Linux Documentation/driver-api/early-userspace/buffer-format.rst).

    `entries`: (name, content) in the order of their folders; content is None for a folder, bytes for a file, and a
    string, the target, for a symbolic link.
    """
    out = bytearray()
    for number, (name, content) in enumerate([*entries, ("TRAILER!!!", b"")], 1):
        mode = _DIRECTORY if content is None else _LINK if isinstance(content, str) else _REGULAR
        data = content.encode() if isinstance(content, str) else content or b""
        encoded = name.encode() + b"\0"
        fields = (number, mode, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(encoded), 0)
        out += b"070701" + b"".join(b"%08X" % field for field in fields) + encoded
        out += bytes(-len(out) % 4)
        out += data
        out += bytes(-len(out) % 4)
    return bytes(out)


def with_folders(files):
    """Entries for {absolute path: content}, each folder before what is in it."""
    entries, made = [], set()
    for path in sorted(files):
        parts = path.strip("/").split("/")
        for depth in range(1, len(parts)):
            folder = "/".join(parts[:depth])
            if folder not in made:
                made.add(folder)
                entries.append((folder, None))
        entries.append(("/".join(parts), files[path]))
    return entries


class Modules:
    """The modules of an unpacked kernel package, which has no modules.dep."""

    def __init__(self, folder):
        self._paths = {}
        for parent, _folders, names in os.walk(folder):
            for name in names:
                match = re.fullmatch(r"(.+)\.ko(\.xz)?", name)
                if match:
                    self._paths[match.group(1).replace("-", "_")] = os.path.join(parent, name)

    def read(self, name):
        """The module's bytes, uncompressed; None: the kernel has it built in, or not at all."""
        path = self._paths.get(name)
        if path is None:
            return None
        with (lzma.open(path) if path.endswith(".xz") else open(path, "rb")) as file:
            return file.read()

    def closure(self, wanted):
        """{name: bytes} of the modules and of what they depend on, in the order in which they can be loaded."""
        found = {}

        def add(name):
            name = name.replace("-", "_")
            if name in found:
                return
            data = self.read(name)
            if data is None:
                return
            # .modinfo: strings that end with 0.
            match = re.search(rb"\0depends=([^\0]*)\0", data)
            for other in match.group(1).decode().split(",") if match and match.group(1) else ():
                add(other)
            found[name] = data
        for name in wanted:
            add(name)
        return found
