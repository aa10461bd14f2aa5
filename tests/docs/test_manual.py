#!/usr/bin/python3
"""Manual pages and shell completion, made from the program's help: each command and each option is in them.

usage: test_manual.py PROGRAM
"""

import os
import re
import shutil
import subprocess
import sys
import tempfile

ROOT = os.path.abspath(os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", ".."))


def help_of(program, *command):
    return subprocess.run([program, *command, "--help"], capture_output=True, text=True, check=True).stdout


def commands_of(text):
    return re.findall(r"^  ([a-z-]+) ", text.split("Subcommands:\n", 1)[1], re.MULTILINE)


def complete(script, *words):
    """What bash offers for the last of these words."""
    text = ". %s; COMP_WORDS=(%s) COMP_CWORD=%d; _migrx; echo ${COMPREPLY[*]}" % (
        script, " ".join("'%s'" % word for word in words), len(words) - 1)
    return subprocess.run(["bash", "-c", text], capture_output=True, text=True, check=True).stdout.split()


def problems(program, folder):
    subprocess.run([sys.executable, os.path.join(ROOT, "scripts", "lib", "manual.py"), program, folder], check=True)
    commands = commands_of(help_of(program))
    if len(commands) < 5:
        yield "only %d commands found" % len(commands)
    script = os.path.join(folder, "migrx.bash")
    if sorted(complete(script, "migrx", "")) != sorted(commands):
        yield "bash offers %s for the command" % complete(script, "migrx", "")
    with open(os.path.join(folder, "_migrx"), encoding="utf-8") as file:
        zsh = file.read()
    for command in commands:
        path = os.path.join(folder, "migrx-%s.1" % command)
        with open(path, encoding="utf-8") as file:
            page = file.read().replace("\\-", "-")
        offered = complete(script, "migrx", command, "--")
        for option in set(re.findall(r"^  (?:-\w,)?(--[a-z][a-z-]*)", help_of(program, command), re.MULTILINE)):
            if "\\fB%s\\fR" % option not in page:
                yield "%s is not in the page of %s" % (option, command)
            if option not in offered:
                yield "bash does not offer %s for %s" % (option, command)
            if "*%s[" % option not in zsh:
                yield "zsh does not offer %s" % option
        for section in ("NAME", "SYNOPSIS", "EXIT STATUS", "SEE ALSO"):
            if not re.search("^\\.SH %s$" % section, page, re.MULTILINE):
                yield "the page of %s has no %s" % (command, section)
        if shutil.which("man"):
            result = subprocess.run(["man", "-l", "--warnings", "-P", "cat", path], capture_output=True, text=True,
                                    env=dict(os.environ, LC_ALL="C.UTF-8", MANWIDTH="90"), check=False)
            if result.returncode or "warning" in result.stderr:
                yield "man says of %s: %s" % (command, result.stderr)


def main():
    program = os.path.abspath(sys.argv[1])
    with tempfile.TemporaryDirectory(prefix="migrx-manual-") as folder:
        found = list(problems(program, folder))
    for problem in found:
        print(problem)
    print("%d passed, %d failed" % (int(not found), int(bool(found))))
    sys.exit(int(bool(found)))


if __name__ == "__main__":
    main()
