#!/usr/bin/python3
"""Manual pages and shell completion of migrx, from its own help.

usage: scripts/lib/manual.py PROGRAM FOLDER

Writes migrx.1, one page for each command, migrx.bash and _migrx. The help is the only source: an option that is not
in it is in neither, and this program fails where it cannot read the help.
"""

import dataclasses
import os
import re
import subprocess
import sys

# What the help has no room for: for each page, sections before the options, and after them.
STATUS = {
    "receive": "0: the guest is complete; 1: the migration failed, the guest is at the source; 2: wrong usage, or "
               "the host is not ready; 3: the destination has the guest and the source fell silent before it said "
               "so: ask it with query-migrate before the destination is continued.",
    "serve": "0: it was told to end, and every migration is over; 1: it was killed; 2: wrong usage, or the host is "
             "not ready.",
    "list": "0: the list was printed; 2: no daemon could be asked.",
    "cancel": "0: the migration was told; 1: there is no migration of that name, or it may not be cancelled by this "
              "user; 2: no daemon could be asked.",
    "top": "0: it was told to end; 1: the daemon ended meanwhile; 2: no daemon could be asked.",
    "load": "0: the guest is complete; 1: the file could not be loaded; 2: wrong usage, or the host is not ready.",
    "generate": "0: the receiver has all of RAM; 1: it has not; 2: wrong usage, or the host is not ready.",
    "plan": "0: the plan was printed; 2: it cannot be met.",
    "linger": "0: every connection is gone, or its time is over, or a second signal ended it; 1: the port could "
              "not be taken; 2: no record on stdin.",
    "doctor": "0: the host is ready; 1: a check failed, or with --strict warned; 2: wrong usage.",
}


@dataclasses.dataclass
class Option:
    names: list
    value: str
    text: str
    group: str


@dataclasses.dataclass
class Page:
    name: str  # "" for the program itself
    text: str
    options: list
    commands: list  # of (name, text)
    positionals: list


def help_of(program, command):
    arguments = [program] + ([command] if command else []) + ["--help"]
    return subprocess.run(arguments, capture_output=True, text=True, check=True).stdout


def columns(lines):
    """(left, right) of each entry in a two-column list, continuation lines joined."""
    entries = []
    for line in lines:
        match = re.match(r"  (\S.*?)(?:\s{2,}(\S.*))?$", line)
        if match and not line.startswith("   "):
            left, right = match.group(1), match.group(2) or ""
            if not right:  # a long left column fills the line, or touches the right one
                entries.append([left, ""])
            else:
                entries.append([left, right])
        elif entries and line.strip():
            entries[-1][1] = (entries[-1][1] + " " + line.strip()).strip()
    return entries


def parse_option(left, right, group):
    """`left` is "-h,--help" or "--port DEVARGS REQUIRED ..."; what is no word of it belongs to the text."""
    names, _, value = left.partition(" ")
    names = re.sub(r"\{\w+\}", "", names)  # a flag that turns something off: "--no-x{false}"
    # A left side that fills its column leaves one space before the text.
    if not right and " REQUIRED " in value:
        value, _, right = value.partition(" REQUIRED ")
        value += " REQUIRED"
    notes = []
    value = re.sub(r":SIZE \[[^\]]*\]", "", value)
    if "REQUIRED" in value:
        value = value.replace("REQUIRED", "")
        notes.append("Required.")
    match = re.match(r"([^=]*)=(.*)$", value)
    if match:
        value = match.group(1)
        notes.append("Default: %s." % match.group(2).strip())
    match = re.search(r":(?:INT|UINT|FLOAT) in \[(\S+) - (\S+)\]", value)
    if match:
        value = value.replace(match.group(0), "")
        notes.insert(0, "%s to %s." % match.groups())
    match = re.search(r":\{([^}]*)\}", value)
    if match:
        value = match.group(1).replace(",", "|")
    value = value.replace("...", "").strip()
    value = {"UINT": "N", "INT": "N", "FLOAT": "N"}.get(value, value)
    text = right[:1].upper() + right[1:]
    if text and not text.endswith((".", "!", "?")):
        text += "."
    return Option(names.split(","), value, " ".join([text, *notes]).strip(), group)


def parse(name, text):
    page = Page(name, "", [], [], [])
    lines = text.rstrip().split("\n")
    page.text = lines[0].strip()
    group, block = None, []

    def finish():
        for left, right in columns(block):
            if group == "Subcommands":
                page.commands.append((left, right))
            elif group == "Positionals":
                page.positionals.append((left, right))
            elif group and left.startswith("-"):
                page.options.append(parse_option(left, right, group))
    for line in lines[1:]:
        match = re.match(r"(\S.*):$", line)
        if match:
            finish()
            group, block = match.group(1), []
        elif group:
            block.append(line)
    finish()
    if not page.options:
        sys.exit("manual: no options in the help of %r" % name)
    return page


def roff(text):
    text = text.replace("\\", "\\e").replace("-", "\\-")
    return "\\&" + text if text.startswith((".", "'")) else text


def manual(page, version, pages):
    title = "migrx" + ("-" + page.name if page.name else "")
    command = "migrx" + (" " + page.name if page.name else "")
    out = ['.TH %s 1 "" "migrx %s" "User commands"' % (title.upper(), version), ".SH NAME",
           "%s \\- %s" % (roff(title), roff(page.text.rstrip(".")[:1].lower() + page.text.rstrip(".")[1:])),
           ".SH SYNOPSIS", ".B %s" % roff(command)]
    for left, _ in page.positionals:
        out.append("\\fI%s\\fR" % roff(left.split()[0]))
    out.append("[\\fIOPTIONS\\fR]" if page.name else "\\fICOMMAND\\fR [\\fIOPTIONS\\fR]")
    if page.positionals:
        out.append(".SH ARGUMENTS")
        for left, right in page.positionals:
            out += [".TP", "\\fI%s\\fR" % roff(left), roff(right) or "\\&"]
    if page.commands:
        out.append(".SH COMMANDS")
        for left, right in page.commands:
            out += [".TP", ".BR %s (1)" % roff("migrx-" + left), roff(right)]
    group = None
    for option in page.options:
        if option.group != group:
            group = option.group
            out.append(".SH OPTIONS" if group == "Options" else '.SH "%s"' % roff(group.upper()))
        names = ", ".join("\\fB%s\\fR" % roff(name) for name in option.names)
        out += [".TP", names + (" \\fI%s\\fR" % roff(option.value) if option.value else ""), roff(option.text) or "\\&"]
    if page.name in STATUS:
        out += [".SH EXIT STATUS", roff(STATUS[page.name])]
    others = ["migrx"] if page.name else []
    others += ["migrx-" + other.name for other in pages if other.name and other.name != page.name]
    out += [".SH SEE ALSO", ",\n".join(".BR %s (1)" % roff(other) for other in others).replace(",\n", " ,\n")]
    return "\n".join(out) + "\n"


def bash(pages):
    commands = " ".join(page.name for page in pages if page.name)
    cases = []
    for page in pages:
        words = " ".join(name for option in page.options for name in option.names)
        cases.append("    %s) options='%s' ;;" % (page.name or "''", words))
    return """# bash completion of migrx; made by scripts/lib/manual.py
_migrx() {
  local current=${COMP_WORDS[COMP_CWORD]} command='' options word
  for word in "${COMP_WORDS[@]:1:COMP_CWORD-1}"; do
    case " %s " in *" $word "*) command=$word; break ;; esac
  done
  case "$command" in
%s
  esac
  if [ -z "$command" ] && [[ $current != -* ]]; then
    mapfile -t COMPREPLY < <(compgen -W '%s' -- "$current")
  elif [[ $current == -* ]]; then
    mapfile -t COMPREPLY < <(compgen -W "$options" -- "$current")
  else
    compopt -o default
    COMPREPLY=()
  fi
}
complete -F _migrx migrx
""" % (commands, "\n".join(cases), commands)


def zsh_text(text):
    return text.replace("'", "").replace("[", "(").replace("]", ")").replace(":", " ").replace("`", "")


def zsh(pages):
    commands = "\n".join("    '%s:%s'" % (page.name, zsh_text(page.text)) for page in pages if page.name)
    cases = []
    for page in pages:
        if not page.name:
            continue
        specs = " \\\n        ".join("'*%s[%s]%s'" % (name, zsh_text(option.text), ":value:_files" if option.value else "")
                                     for option in page.options for name in option.names)
        cases.append("    %s)\n      _arguments \\\n        %s \\\n        '*:file:_files' ;;" % (page.name, specs))
    return """#compdef migrx
# zsh completion of migrx; made by scripts/lib/manual.py
_migrx() {
  local -a commands
  commands=(
%s
  )
  if (( CURRENT == 2 )); then
    _describe command commands
    return
  fi
  local command=$words[2]
  shift words
  (( CURRENT-- ))
  case $command in
%s
  esac
}
_migrx "$@"
""" % (commands, "\n".join(cases))


def main():
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    program, folder = os.path.abspath(sys.argv[1]), sys.argv[2]
    os.makedirs(folder, exist_ok=True)
    version = subprocess.run([program, "--version"], capture_output=True, text=True, check=True).stdout.split()[-1]
    top = parse("", help_of(program, ""))
    pages = [top] + [parse(name, help_of(program, name)) for name, _ in top.commands]
    for page in pages:
        name = "migrx" + ("-" + page.name if page.name else "")
        with open(os.path.join(folder, name + ".1"), "w", encoding="utf-8") as out:
            out.write(manual(page, version, pages))
    for name, text in (("migrx.bash", bash(pages)), ("_migrx", zsh(pages))):
        with open(os.path.join(folder, name), "w", encoding="utf-8") as out:
            out.write(text)


if __name__ == "__main__":
    main()
