#!/usr/bin/python3
"""Print apt sources (deb822) for the suites named on the command line, taken from this machine's own.

The machine may use a mirror, a snapshot or a proxy, in either of apt's two formats. This finds the entry
that serves the distribution's main suite and repeats its address and key for other suites of the same
archive, so that a package of, say, bookworm-backports can be fetched without touching /etc/apt.

usage: apt_sources.py CODENAME SUITE [SUITE ...]
"""

import glob
import os
import sys


def deb822_stanzas(text):
    """Yields each stanza of a .sources file as a dictionary with lower-case keys."""
    stanza, key = {}, None
    for line in text.splitlines() + [""]:
        if not line.strip():
            if stanza:
                yield stanza
            stanza, key = {}, None
        elif line.startswith("#"):
            continue
        elif line[0] in " \t" and key:
            stanza[key] += "\n" + line.strip()
        elif ":" in line:
            key, value = line.split(":", 1)
            key = key.strip().lower()
            stanza[key] = value.strip()


def one_line_entries(text):
    """Yields (options, uri, suite) of each binary entry of a sources.list."""
    for line in text.splitlines():
        line = line.split("#", 1)[0].strip()
        if not line.startswith("deb ") and not line.startswith("deb\t"):
            continue
        rest, options = line[3:].strip(), {}
        if rest.startswith("["):
            inside, rest = rest[1:].split("]", 1)
            options = dict(word.split("=", 1) for word in inside.split() if "=" in word)
        words = rest.split()
        if len(words) >= 3:
            yield options, words[0], words[1]


def find_archive(codename, directory="/etc/apt"):
    """Returns (uris, signed_by or None) of the archive that serves `codename`; None when there is none."""
    for path in sorted(glob.glob(os.path.join(directory, "sources.list.d", "*.sources"))):
        with open(path, encoding="utf-8") as file:
            for stanza in deb822_stanzas(file.read()):
                if stanza.get("enabled", "yes").lower() in ("no", "false", "0"):
                    continue
                if "deb" in stanza.get("types", "").split() and codename in stanza.get("suites", "").split():
                    return stanza["uris"], stanza.get("signed-by")
    lists = [os.path.join(directory, "sources.list")]
    lists += sorted(glob.glob(os.path.join(directory, "sources.list.d", "*.list")))
    for path in lists:
        if not os.path.exists(path):
            continue
        with open(path, encoding="utf-8") as file:
            for options, uri, suite in one_line_entries(file.read()):
                if suite == codename:
                    return uri, options.get("signed-by")
    return None


def main(arguments):
    if len(arguments) < 2:
        sys.exit(__doc__.strip().splitlines()[-1])
    archive = find_archive(arguments[0])
    if archive is None:
        sys.exit("no apt source of this machine serves %s" % arguments[0])
    uris, signed_by = archive
    print("Types: deb\nURIs: %s\nSuites: %s\nComponents: main" % (uris, " ".join(arguments[1:])))
    if signed_by:
        print("Signed-By: " + signed_by.replace("\n", "\n "))


if __name__ == "__main__":
    main(sys.argv[1:])
