#!/usr/bin/python3
"""The systemd unit as systemd reads it: systemd-analyze verify finds nothing, and what it must say stands in it.

usage: test_unit.py MIGRX
"""

import os
import shutil
import subprocess
import sys
import tempfile

_ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
_UNIT = os.path.join(_ROOT, "scripts", "lib", "debian", "migrx-receive@.service")
_SKIPPED = 77
# Without these: never "started", killed while memory is taken, sources told by nobody.
_NEEDED = ("Type=notify", "NotifyAccess=all", "TimeoutStartSec=", "KillMode=process", "Restart=no")


def main(program):
    with open(_UNIT, encoding="utf-8") as file:
        unit = file.read()
    missing = [line for line in _NEEDED if "\n" + line not in unit]
    if missing:
        sys.exit("the unit lacks %s" % ", ".join(missing))
    if shutil.which("systemd-analyze") is None:
        print("no systemd-analyze")
        sys.exit(_SKIPPED)
    with tempfile.TemporaryDirectory() as folder:
        # The manual page is not installed here, and the program neither.
        lines = [line.replace("/usr/bin/migrx", os.path.abspath(program)) for line in unit.splitlines()
                 if not line.startswith("Documentation=")]
        for change, valid in (("", True), ("Type=notifi\n", False)):
            path = os.path.join(folder, "migrx-receive@vm0.service")
            with open(path, "w", encoding="utf-8") as file:
                file.write("\n".join(lines).replace("Type=notify\n", change or "Type=notify\n") + "\n")
            result = subprocess.run(["systemd-analyze", "verify", "--man=no", path], capture_output=True, text=True,
                                    check=False)
            said = result.stdout + result.stderr
            if ("migrx-receive" in said) == valid:
                sys.exit("systemd-analyze verify of %s: %s" % ("the unit" if valid else "a wrong one", said or "nothing"))


if __name__ == "__main__":
    main(sys.argv[1])
